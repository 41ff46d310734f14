//! Rows H1-01 to H1-31, H1-51 to H1-58 and H1-63 of the fault catalogue, as far as a head decides them.

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    line_bytes_max: 8 << 10,
    head_bytes_max: 16 << 10,
    fields_max: 100,
    name_bytes_max: 256,
};

const GOOD: &str = "POST /a.B/C HTTP/1.1\r\nHost: h:80\r\nContent-Type: application/grpc-web\r\n\
                    X-Empty:\r\nX-A: 1\r\nx-a:\t2 \r\nContent-Length: 5\r\n\r\n";

/// Reads a head that has come at once.
fn read(input: &[u8]) -> Result<Http1Request, HeadFault> {
    let length = scan(input, 0, &LIMITS)?.expect("a whole head");
    parse_request(Bytes::copy_from_slice(&input[..length]), &LIMITS)
}

/// A POST with these lines between the request line and `host`.
fn with(lines: &str) -> Result<Http1Request, HeadFault> {
    read(format!("POST /a/b HTTP/1.1\r\n{lines}host: h\r\n\r\n").as_bytes())
}

fn status(outcome: Result<Http1Request, HeadFault>) -> u16 {
    outcome.map_or_else(|fault| fault.status, |_| 200)
}

/// The outcome of a scan that sees the input grow in these steps, and how much it had seen then.
fn scan_growing(
    input: &[u8],
    steps: impl Iterator<Item = usize>,
) -> Result<Option<usize>, HeadFault> {
    let mut from = 0;
    for end in steps {
        if let Some(length) = scan(&input[..end], from, &LIMITS)? {
            return Ok(Some(length));
        }
        from = end;
    }
    Ok(None)
}

/// H1-68: one outcome, whether the input comes at once, in two pieces, or byte by byte.
fn assert_scans_alike(input: &[u8]) {
    let whole = scan(input, 0, &LIMITS);
    assert_eq!(
        scan_growing(input, 1..=input.len()),
        whole,
        "{input:?} byte by byte"
    );
    // Where it is long, not at every point.
    let step = 1 + input.len() / 1000;
    for split in (0..=input.len()).step_by(step) {
        let steps = [split, input.len()].into_iter();
        assert_eq!(
            scan_growing(input, steps),
            whole,
            "{input:?} in two at {split}"
        );
    }
}

#[test]
fn a_good_head_becomes_a_request() {
    let request = read(GOOD.as_bytes()).unwrap();
    assert_eq!(request.head.method, Method::POST);
    assert_eq!(request.head.path, "/a.B/C");
    assert_eq!(request.head.authority.unwrap(), "h:80");
    assert_eq!(request.framing, Framing::Length(5));
    assert_eq!(request.version, Version::HTTP_11);
    assert!(request.persistent);
    assert!(!request.expect_continue);
    assert_eq!(request.dropped_fields, 0);
    let fields = request.head.headers;
    assert!(!fields.contains("host"));
    assert_eq!(fields.get("content-type").unwrap(), "application/grpc-web");
    assert_eq!(fields.get("x-empty").unwrap(), "");
    let both: Vec<_> = fields.get_all("x-a").collect();
    assert_eq!(both, ["1", "2"]);
    assert_eq!(fields.len(), 5);
}

#[test]
fn values_share_the_heads_bytes() {
    let head = Bytes::copy_from_slice(GOOD.as_bytes());
    let request = parse_request(head.clone(), &LIMITS).unwrap();
    let value = request
        .head
        .headers
        .get("content-type")
        .unwrap()
        .as_bytes()
        .as_ptr_range();
    assert!(head.as_ptr_range().contains(&value.start));
}

#[test]
fn h1_68_a_head_reads_alike_at_every_split() {
    let long_line = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(9000));
    let fits = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8192 - 14));
    let long_head = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(17_000));
    let rows: [&[u8]; 22] = [
        GOOD.as_bytes(),
        b"\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
        b"",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\r\n",
        b"\n",
        b"\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\r\n\n",
        b"GET / HTTP/1.1\r\na: b\r\n\rX",
        b"GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\ra: b\r\r",
        b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        long_line.as_bytes(),
        fits.as_bytes(),
        long_head.as_bytes(),
    ];
    for row in rows {
        assert_scans_alike(row);
    }
    // The length is that of the head alone, a leading empty line included.
    assert_eq!(scan(rows[1], 0, &LIMITS), Ok(Some(29)));
    assert_eq!(scan(GOOD.as_bytes(), 0, &LIMITS), Ok(Some(GOOD.len())));
}

#[test]
fn h1_68_random_heads_of_few_letters_scan_alike_at_every_split() {
    let mut random = fastrand::Rng::with_seed(68);
    let words: [&[u8]; 8] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
        b"a: b",
        b" ",
        b"\0",
    ];
    for _ in 0..5000 {
        let mut input = Vec::new();
        for _ in 0..random.usize(..9) {
            let word = if random.u8(..16) == 0 {
                7
            } else {
                random.usize(..7)
            };
            input.extend_from_slice(words[word]);
        }
        assert_scans_alike(&input);
    }
}

#[test]
fn h1_58_a_limit_is_met_at_its_own_byte() {
    let limits = HeadLimits {
        line_bytes_max: 20,
        head_bytes_max: 60,
        ..LIMITS
    };
    let scan = |input: &str| scan(input.as_bytes(), 0, &limits);
    let tail = "\r\nhost: h\r\n\r\n";
    assert_eq!(
        scan(&format!("GET /{} HTTP/1.1{tail}", "a".repeat(6))),
        Ok(Some(33))
    );
    let over = format!("GET /{} HTTP/1.1{tail}", "a".repeat(7));
    assert_eq!(scan(&over).unwrap_err().status, 414);
    // One leading empty line is not the request line's.
    assert_eq!(
        scan(&format!("\r\nGET /{} HTTP/1.1{tail}", "a".repeat(6))),
        Ok(Some(35))
    );
    let head = |value: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(value));
    assert_eq!(scan(&head(37)), Ok(Some(60)));
    assert_eq!(scan(&head(38)).unwrap_err().status, 431);
    // Memory is bounded: what is not whole by then never will be.
    assert_eq!(scan(&head(100)[..59]), Ok(None));
    assert_eq!(scan(&head(100)[..60]).unwrap_err().status, 431);
}

#[test]
fn h1_58_too_many_fields_and_too_long_names_are_431() {
    assert_eq!(status(with(&"a: b\r\n".repeat(99))), 200);
    assert_eq!(status(with(&"a: b\r\n".repeat(100))), 431);
    assert_eq!(status(with(&format!("{}: b\r\n", "a".repeat(256)))), 200);
    assert_eq!(status(with(&format!("{}: b\r\n", "a".repeat(257)))), 431);
    let none = HeadLimits {
        fields_max: usize::MAX,
        ..LIMITS
    };
    let head = format!(
        "GET / HTTP/1.1\r\nhost: h\r\n{}\r\n",
        "a: b\r\n".repeat(FIELDS_CAP)
    );
    let fault = parse_request(Bytes::from(head), &none).unwrap_err();
    assert_eq!(fault.status, 431);
}

#[test]
fn h1_01_to_07_a_bare_line_feed_a_bare_return_and_a_nul_are_refused_at_once() {
    let rows = [
        ("h1_01", "GET / HTTP/1.1\n"),
        ("h1_01", "GET / HTTP/1.1\nhost: h\n\n"),
        ("h1_02", "GET / HTTP/1.1\r\nhost: h\n"),
        ("h1_03", "GET / HTTP/1.1\r\nhost: h\r\n\n"),
        ("h1_04", "GET / HTTP/1.1\r\nhost: h\rx"),
        ("h1_04", "GET / HTTP/1.1\r\nhost: h\r\r"),
        ("h1_05", "GET / HTTP/1.1\rhost: h"),
        ("h1_06", "GET / HTTP/1.1\r\nhost: h\r\n\rX"),
        ("h1_07", "GET / HTTP/1.1\r\nhost: h\0"),
        ("h1_07", "GET /\0"),
        ("h1_17", "\n"),
        ("h1_17", "\r\n\r\n"),
        ("h1_17", "\r\n\n"),
        ("h1_19", "GET /\r\n"),
        ("h1_60", "\x16\x03"),
    ];
    for (id, input) in rows {
        // "At once": though the head is not whole yet.
        let fault = scan(input.as_bytes(), 0, &LIMITS).unwrap_err();
        assert_eq!(fault.status, 400, "{id} {input:?}");
    }
}

#[test]
fn h1_08_control_characters_in_a_value_are_refused() {
    for byte in (0..0x20).chain([0x7f]) {
        let input = [
            b"GET / HTTP/1.1\r\nhost: h\r\na: b",
            &[byte][..],
            b"c\r\n\r\n",
        ]
        .concat();
        let outcome = scan(&input, 0, &LIMITS).and_then(|length| {
            let length = length.expect("a whole head");
            parse_request(Bytes::copy_from_slice(&input[..length]), &LIMITS)
        });
        let expected = if byte == b'\t' { 200 } else { 400 };
        assert_eq!(status(outcome), expected, "{byte:#x}");
    }
}

#[test]
fn h1_09_a_value_that_is_not_ascii_is_dropped_or_refused_where_it_decides() {
    let request = |field: &[u8]| {
        read(
            &[
                b"POST /a HTTP/1.1\r\nhost: h\r\nx: 1\r\n",
                field,
                b"\r\n\r\n",
            ]
            .concat(),
        )
    };
    for byte in 0x80..=0xff {
        let request = request(&[b"x-name: a", &[byte][..]].concat()).unwrap();
        assert_eq!(request.dropped_fields, 1);
        assert!(!request.head.headers.contains("x-name"));
        assert!(request.head.headers.contains("x"));
    }
    for name in [
        "content-length",
        "Transfer-Encoding",
        "connection",
        "expect",
        "te",
        "authorization",
        "grpc-timeout",
        "Origin",
        "content-type",
        "X-Forwarded-Client-Cert",
        "x-forwarded-for",
        "via",
        "upgrade",
    ] {
        let fault = request(&[name.as_bytes(), b": \xe9"].concat()).unwrap_err();
        assert_eq!(fault.status, 400, "{name}");
    }
    assert_eq!(
        read(b"GET / HTTP/1.1\r\nhost: h\xe9\r\n\r\n")
            .unwrap_err()
            .status,
        400
    );
}

#[test]
fn h1_10_to_15_fields_out_of_shape_are_refused() {
    let rows = [
        ("h1_10", "a: b\r\n c\r\n"),
        ("h1_10", "transfer-encoding:\r\n\tchunked\r\n"),
        ("h1_11", "a : b\r\n"),
        ("h1_11", "a\t: b\r\n"),
        ("h1_12", " a: b\r\n"),
        ("h1_12", "\ta: b\r\n"),
        ("h1_13", ": x\r\n"),
        ("h1_13", ":\r\n"),
        ("h1_14", "a\r\n"),
        ("h1_14", "a\r\nb: c\r\n"),
        ("h1_15", "a\u{85}: b\r\n"),
        ("h1_15", "a\u{a0}: b\r\n"),
        ("h1_15", "a(: b\r\n"),
        ("h1_15", "a\": b\r\n"),
        ("m_05", ":path: /x\r\n"),
    ];
    for (id, lines) in rows {
        assert_eq!(status(with(lines)), 400, "{id} {lines:?}");
    }
}

#[test]
fn h1_16_an_underscore_is_fine_unless_it_imitates_a_field_that_decides() {
    for name in [
        "Content_Length",
        "transfer_Encoding",
        "X_Forwarded_Client_Cert",
        "x-forwarded_for",
        "grpc_timeout",
        "x_forwarded-by-somebody-with-a-long-name",
        "X_Forwarded_By_Somebody_With_A_Long_Name",
    ] {
        assert_eq!(status(with(&format!("{name}: 5\r\n"))), 400, "{name}");
    }
    for name in [
        "x_forward-by-somebody-with-a-long-name",
        "x.forwarded.by_somebody_with_a_long_name",
    ] {
        assert!(with(&format!("{name}: 5\r\n")).is_ok(), "{name}");
    }
    let request = with("x_a: 1\r\nmy_content_length: 2\r\n").unwrap();
    assert_eq!(request.head.headers.get("x_a").unwrap(), "1");
    assert_eq!(request.head.headers.get("my_content_length").unwrap(), "2");
}

#[test]
fn h1_16_an_underscore_is_found_wherever_it_stands_and_nothing_else_is() {
    for length in 0..40 {
        for other in [b'^', b'`', b'-', b'a', 0xdf, 0xff] {
            let mut name = vec![other; length];
            assert!(!has_underscore(&name), "{length} of {other}");
            for at in 0..length {
                name[at] = b'_';
                assert!(has_underscore(&name), "{length} of {other} at {at}");
                name[at] = other;
            }
        }
    }
}

#[test]
fn h1_17_one_leading_empty_line_is_ignored() {
    let request = read(b"\r\nGET /x HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    assert_eq!(request.head.path, "/x");
}

#[test]
fn h1_18_to_20_the_request_line_is_read_strictly() {
    let rows = [
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET  HTTP/1.1", 400),
        ("GET HTTP/1.1", 400),
        ("HTTP/1.1", 400),
        (" HTTP/1.1", 400),
        ("G@T / HTTP/1.1", 400),
        ("GET /", 400),
        ("GET / HTTP/1.2", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.1x", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/4294967295.255", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/9.9", 505),
        ("get / HTTP/1.1", 200),
        ("M-SEARCH / HTTP/1.1", 200),
    ];
    for (line, expected) in rows {
        let outcome = read(format!("{line}\r\nhost: h\r\n\r\n").as_bytes());
        assert_eq!(status(outcome), expected, "{line:?}");
    }
}

#[test]
fn h1_21_and_22_http_1_0_may_ask_for_pages_and_nothing_else() {
    let get = read(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").unwrap();
    assert!(!get.persistent);
    assert_eq!(get.version, Version::HTTP_10);
    assert_eq!(get.head.authority, None);
    assert_eq!(status(read(b"HEAD / HTTP/1.0\r\nhost: h\r\n\r\n")), 200);
    let post = b"POST /a/b HTTP/1.0\r\nhost: h\r\ncontent-length: 1\r\n\r\n";
    assert_eq!(status(read(post)), 426);
    for method in ["GET", "POST"] {
        let chunked =
            format!("{method} / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(status(read(chunked.as_bytes())), 400, "{method}");
    }
    let expects = read(b"GET / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert!(!expects.unwrap().expect_continue);
}

#[test]
fn h1_23_to_31_a_body_has_one_end_or_the_request_is_refused() {
    let chunked = Ok(Framing::Chunked);
    let rows: [(&str, &str, Result<Framing, u16>); 58] = [
        ("none", "", Ok(Framing::Empty)),
        ("length", "content-length: 0\r\n", Ok(Framing::Length(0))),
        ("length", "Content-Length:5\r\n", Ok(Framing::Length(5))),
        (
            "length",
            "CONTENT-LENGTH: \t 5 \t\r\n",
            Ok(Framing::Length(5)),
        ),
        (
            "length",
            "content-length: 9223372036854775807\r\n",
            Ok(Framing::Length(i64::MAX as u64)),
        ),
        ("chunked", "transfer-encoding: chunked\r\n", chunked),
        ("chunked", "Transfer-Encoding: CHUNKED\r\n", chunked),
        (
            "h1_23",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            Err(400),
        ),
        (
            "h1_23",
            "TRANSFER-ENCODING: chunked\r\nContent-length: 5\r\n",
            Err(400),
        ),
        (
            "h1_23",
            "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
            Err(400),
        ),
        (
            "h1_24",
            "content-length: 5\r\ncontent-length: 5\r\n",
            Err(400),
        ),
        (
            "h1_25",
            "content-length: 5\r\nContent-Length: 6\r\n",
            Err(400),
        ),
        (
            "h1_25",
            "content-length:\r\ncontent-length: 6\r\n",
            Err(400),
        ),
        ("h1_26", "content-length: 5, 5\r\n", Err(400)),
        ("h1_26", "content-length: 5,6\r\n", Err(400)),
        ("h1_27", "content-length: +5\r\n", Err(400)),
        ("h1_27", "content-length: -0\r\n", Err(400)),
        ("h1_27", "content-length: -48\r\n", Err(400)),
        ("h1_27", "content-length: 0x10\r\n", Err(400)),
        ("h1_27", "content-length: 1_0\r\n", Err(400)),
        ("h1_27", "content-length: 1Z\r\n", Err(400)),
        ("h1_27", "content-length: 1 0\r\n", Err(400)),
        ("h1_27", "content-length: \"5\"\r\n", Err(400)),
        ("h1_27", "content-length:\r\n", Err(400)),
        ("h1_27", "content-length: 5.0\r\n", Err(400)),
        ("h1_27", "content-length: 5;\r\n", Err(400)),
        ("h1_28", "content-length: 005\r\n", Err(400)),
        ("h1_28", "content-length: 00\r\n", Err(400)),
        ("h1_29", "content-length: 9223372036854775808\r\n", Err(400)),
        ("h1_29", "content-length: 9999999999999999999\r\n", Err(400)),
        (
            "h1_29",
            "content-length: 18446744073709551621\r\n",
            Err(400),
        ),
        (
            "h1_29",
            "content-length: 99999999999999999999999\r\n",
            Err(400),
        ),
        ("h1_30", "transfer-encoding: chunked, chunked\r\n", Err(400)),
        (
            "h1_30",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            Err(400),
        ),
        (
            "h1_30",
            "transfer-encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            Err(400),
        ),
        ("h1_31", "transfer-encoding: identity\r\n", Err(400)),
        (
            "h1_31",
            "transfer-encoding: identity, chunked\r\n",
            Err(400),
        ),
        ("h1_31", "transfer-encoding: xchunked\r\n", Err(400)),
        ("h1_31", "transfer-encoding: ,chunked\r\n", Err(400)),
        ("h1_31", "transfer-encoding: chunked,\r\n", Err(400)),
        ("h1_31", "transfer-encoding: chunked;q=1\r\n", Err(400)),
        ("h1_31", "transfer-encoding: chunked;\r\n", Err(400)),
        ("h1_31", "transfer-encoding: \"chunked\"\r\n", Err(400)),
        ("h1_31", "transfer-encoding: chunked x\r\n", Err(400)),
        ("h1_31", "transfer-encoding:\r\n", Err(400)),
        ("h1_31", "transfer-encoding: x, chunked\r\n", Err(400)),
        ("h1_31", "transfer-encoding: chunked, gzip\r\n", Err(400)),
        ("h1_31", "transfer-encoding: gzip\r\n", Err(400)),
        (
            "h1_31",
            "transfer-encoding: chunked, gzip, chunked\r\n",
            Err(400),
        ),
        ("h1_31", "transfer-encoding: gzip, chunked\r\n", Err(501)),
        (
            "h1_31",
            "transfer-encoding: GZIP , Deflate,chunked\r\n",
            Err(501),
        ),
        ("h1_31", "transfer-encoding: , chunked\r\n", Err(400)),
        (
            "h1_51",
            "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\n",
            Ok(Framing::Empty),
        ),
        (
            "h1_51",
            "upgrade: foo\r\nconnection: upgrade\r\ncontent-length: 3\r\n",
            Ok(Framing::Length(3)),
        ),
        (
            "h1_51",
            "upgrade: websocket\r\nconnection: Upgrade\r\n",
            Ok(Framing::Empty),
        ),
        ("names", "content-lengt: 5\r\n", Ok(Framing::Empty)),
        (
            "names",
            "xtransfer-encoding: chunked\r\n",
            Ok(Framing::Empty),
        ),
        ("names", "content-lengthx: 5\r\n", Ok(Framing::Empty)),
    ];
    for (id, lines, expected) in rows {
        let outcome = with(lines)
            .map(|request| request.framing)
            .map_err(|fault| fault.status);
        assert_eq!(outcome, expected, "{id} {lines:?}");
    }
    // `\x0bchunked`: a vertical tab is no white space.
    let input = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: \x0bchunked\r\n\r\n";
    assert_eq!(scan(input, 0, &LIMITS).unwrap_err().status, 400);
}

#[test]
fn h1_52_methods_that_would_tunnel_or_reflect_are_405() {
    for line in [
        "CONNECT h:443 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "TRACE / HTTP/1.1",
    ] {
        assert_eq!(
            status(read(format!("{line}\r\nhost: h\r\n\r\n").as_bytes())),
            405,
            "{line}"
        );
    }
}

#[test]
fn h1_53_only_one_expectation_is_known_and_only_before_a_body() {
    let rows = [
        ("expect: 100-continue\r\ncontent-length: 5\r\n", Ok(true)),
        (
            "Expect: 100-Continue\r\ntransfer-encoding: chunked\r\n",
            Ok(true),
        ),
        ("expect: 100-continue\r\n", Ok(false)),
        ("expect: 100-continue\r\ncontent-length: 0\r\n", Ok(false)),
        ("content-length: 5\r\n", Ok(false)),
        ("expect: 200-ok\r\ncontent-length: 5\r\n", Err(417)),
        ("expect: 100-continue, x\r\ncontent-length: 5\r\n", Err(417)),
        (
            "expect: 100-continue\r\nexpect: x\r\ncontent-length: 5\r\n",
            Err(417),
        ),
        ("expect:\r\ncontent-length: 5\r\n", Err(417)),
    ];
    for (lines, expected) in rows {
        let outcome = with(lines).map(|request| request.expect_continue);
        assert_eq!(outcome.map_err(|fault| fault.status), expected, "{lines:?}");
    }
}

#[test]
fn h1_54_there_is_one_host_and_it_is_a_host() {
    let host = |value: &str| read(format!("GET / HTTP/1.1\r\nhost:{value}\r\n\r\n").as_bytes());
    for good in [
        "h",
        " h:80",
        "A.b-c_d~1:65535",
        "127.0.0.1:8080",
        "[::1]",
        "[2001:db8::1]:443",
        "xn--a.example.",
    ] {
        let authority = host(good).unwrap().head.authority.unwrap();
        assert_eq!(authority, good.trim());
    }
    for bad in [
        "",
        " ",
        ":80",
        "a,b",
        "a, b",
        "a/b",
        "u@a",
        "a b",
        "a:",
        "a:b",
        "a:+80",
        "a:65536",
        "a:80:80",
        "a:0080000",
        "[::1",
        "::1",
        "[]",
        "[x]",
        "[::1]x",
        "[::1]:",
        "a?b",
        "a#b",
        "a%41",
        "http://a",
        "a\\b",
        "\"a\"",
        "a;b",
    ] {
        assert_eq!(status(host(bad)), 400, "{bad:?}");
    }
    assert_eq!(status(read(b"GET / HTTP/1.1\r\n\r\n")), 400);
    assert_eq!(
        status(read(b"GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n")),
        400
    );
    assert_eq!(
        status(read(
            b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\nhost: b\r\n\r\n"
        )),
        400
    );
}

#[test]
fn h1_55_an_absolute_target_agrees_with_the_host() {
    let rows = [
        ("http://h/a?b", "h", Ok("/a?b")),
        ("HTTP://H:80/a", "h:80", Ok("/a")),
        ("https://h", "h", Ok("/")),
        ("http://h?q", "h", Ok("/?q")),
        ("http://h/", "x", Err(400)),
        ("http://h:80/", "h", Err(400)),
        ("http://u@h/", "h", Err(400)),
        ("http:///a", "h", Err(400)),
        ("http://", "h", Err(400)),
        ("ftp://h/a", "h", Err(400)),
        ("h:80", "h:80", Err(400)),
        ("//h/a", "h", Ok("//h/a")),
    ];
    for (target, host, expected) in rows {
        let outcome = read(format!("POST {target} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
            .map(|request| request.head.path.as_str().to_owned());
        assert_eq!(
            outcome.map_err(|fault| fault.status),
            expected.map(str::to_owned),
            "{target}"
        );
    }
    assert_eq!(status(read(b"GET http://h/ HTTP/1.1\r\n\r\n")), 400);
    let old = read(b"GET http://h/ HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.head.authority.unwrap(), "h");
}

#[test]
fn h1_56_a_target_holds_nothing_that_a_uri_does_not() {
    let target = |target: &[u8]| {
        status(read(
            &[b"POST ", target, b" HTTP/1.1\r\nhost: h\r\n\r\n"].concat(),
        ))
    };
    for bad in [
        &b"*"[..],
        b"a/b",
        b"/a#frag",
        b"?q",
        b"\xe9",
        b"/\xc3\xa9",
        b"/a\x7f",
    ] {
        assert_eq!(target(bad), 400, "{bad:?}");
    }
    for byte in b"\"<>\\^`" {
        assert_eq!(target(&[b'/', *byte]), 400, "{byte:#x}");
        assert_eq!(target(&[b'/', b'?', *byte]), 400, "{byte:#x} in a query");
    }
    let star = read(b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    assert_eq!(star.head.path, "*");
}

#[test]
fn h1_57_a_target_is_neither_decoded_nor_normalised() {
    for path in [
        "/a.B/../c.D/M",
        "/%2e%2e/x",
        "/a%2fb",
        "//",
        "/a;x",
        "/a?q",
        "/a??x=/../",
        "/",
        "/%zz",
        "/a|b?{x}[1]",
    ] {
        let request = read(format!("POST {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(request.head.path.as_str(), path);
    }
}

#[test]
fn h1_63_connection_does_not_nominate_what_decides() {
    for option in [
        "content-length",
        "Authorization",
        "grpc-timeout",
        "x-forwarded-client-cert",
        "host",
        "Transfer-Encoding",
        "close, via",
        "x, content_length",
        "content-type",
        "x-forwarded-for",
        "origin",
        "expect",
    ] {
        assert_eq!(
            status(with(&format!("connection: {option}\r\n"))),
            400,
            "{option}"
        );
    }
    for option in ["keep-alive", "Upgrade", "TE", "trailer", "x-a, , x-b", ""] {
        assert_eq!(
            status(with(&format!("connection: {option}\r\n"))),
            200,
            "{option}"
        );
    }
}

#[test]
fn a_connection_persists_unless_somebody_says_close() {
    assert!(with("").unwrap().persistent);
    assert!(with("connection: keep-alive, x\r\n").unwrap().persistent);
    assert!(!with("connection: Close\r\n").unwrap().persistent);
    assert!(
        !with("connection: x\r\nconnection: keep-alive,CLOSE\r\n")
            .unwrap()
            .persistent
    );
    assert!(with("connection: closed\r\n").unwrap().persistent);
}

#[test]
fn whatever_is_done_to_a_good_head_is_refused_or_read_but_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(69);
    let seeds = [
        GOOD,
        "POST http://h/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ];
    for _ in 0..20_000 {
        let mut input = seeds[random.usize(..seeds.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..input.len());
            match random.u8(..4) {
                0 => drop(input.remove(at)),
                1 => input[at] = random.u8(..),
                2 => input.insert(at, random.choice(*b"\r\n\0 :\t,;_\x80a0").unwrap()),
                _ => input.splice(at..at, *b"\r\n").for_each(drop),
            }
        }
        let Ok(Some(length)) = scan(&input, 0, &LIMITS) else {
            continue;
        };
        let Ok(request) = parse_request(Bytes::copy_from_slice(&input[..length]), &LIMITS) else {
            continue;
        };
        // What is accepted says one thing about its body.
        let fields = &request.head.headers;
        let count = |name: &str| fields.get_all(name).count();
        let expected = match (count("content-length"), count("transfer-encoding")) {
            (0, 0) => matches!(request.framing, Framing::Empty),
            (1, 0) => matches!(request.framing, Framing::Length(_)),
            (0, 1) => matches!(request.framing, Framing::Chunked),
            _ => false,
        };
        assert!(expected, "{:?}", String::from_utf8_lossy(&input));
    }
}

fn written(head: &ResponseHead, framing: ResponseFraming, close: bool) -> String {
    let mut out = BytesMut::new();
    write_response(head, framing, close, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn an_answers_head_is_written_with_its_framing() {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.insert(
        "content-type",
        HeaderValue::from_static("application/grpc-web+proto"),
    );
    head.headers.append("x", HeaderValue::from_static("1"));
    head.headers.append("x", HeaderValue::from_static(""));
    let fields = "content-type: application/grpc-web+proto\r\nx: 1\r\nx: \r\n";
    let rows = [
        (
            ResponseFraming::Chunked,
            false,
            "transfer-encoding: chunked\r\n",
        ),
        (ResponseFraming::Length(0), false, "content-length: 0\r\n"),
        (
            ResponseFraming::Length(u64::MAX),
            false,
            "content-length: 18446744073709551615\r\n",
        ),
        (
            ResponseFraming::Length(1000),
            true,
            "content-length: 1000\r\nconnection: close\r\n",
        ),
        (ResponseFraming::None, false, ""),
    ];
    for (framing, close, expected) in rows {
        assert_eq!(
            written(&head, framing, close),
            format!("HTTP/1.1 200 OK\r\n{fields}{expected}\r\n")
        );
    }
    let odd = ResponseHead::new(StatusCode::from_u16(599).unwrap());
    assert_eq!(
        written(&odd, ResponseFraming::None, false),
        "HTTP/1.1 599 \r\n\r\n"
    );

    let mut out = BytesMut::new();
    write_continue(&mut out);
    assert_eq!(out, "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_map_never_frames_an_answer_and_never_speaks_for_the_connection() {
    let mut head = ResponseHead::new(StatusCode::OK);
    for name in [
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    ] {
        head.headers.insert(name, HeaderValue::from_static("5"));
    }
    assert_eq!(
        written(&head, ResponseFraming::Length(7), false),
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    );
}

#[test]
fn h1_21_the_answer_426_says_what_is_wanted() {
    let head = ResponseHead::new(StatusCode::UPGRADE_REQUIRED);
    assert_eq!(
        written(&head, ResponseFraming::Length(0), true),
        "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nupgrade: HTTP/1.1\r\n\
         connection: close, upgrade\r\n\r\n"
    );
}

#[test]
fn h1_66_a_value_that_would_split_an_answer_can_not_be_made() {
    for bytes in [&b"a\rb"[..], b"a\nb", b"a\0b", b"a\r\nb: c"] {
        assert!(HeaderValue::from_bytes(bytes).is_err());
        assert!(HeaderValue::from_maybe_shared(Bytes::copy_from_slice(bytes)).is_err());
        assert!(HeaderName::from_bytes(bytes).is_err());
    }
}

#[test]
fn h1_70_of_what_is_refused_is_told_what_its_whole_lines_say() {
    type Told = Option<(&'static str, &'static str, Vec<&'static str>)>;
    let rows: [(&[u8], Told); 11] = [
        (b"", None),
        (b"POST /a", None),
        (b"POST /a HTTP/1.1\n", None),
        (b"\x16\x03\x01\r\n", None),
        (b"POST\r\n", None),
        (
            b"\r\nPOST /a?b HTTP/1.1\r\n",
            Some(("POST", "/a?b", vec![])),
        ),
        (
            b"GET /a HTTP/9.9\r\nORIGIN:\t https://a \r\n\r\norigin: b\r\n",
            Some(("GET", "/a", vec!["https://a"])),
        ),
        (
            b"GET /a HTTP/1.1\r\norigin: a\r\nx\r\norigin: b\r\norigin: c",
            Some(("GET", "/a", vec!["a", "b"])),
        ),
        (
            b"GET /a HTTP/1.1\r\norigin: a\nb: c\r\n",
            Some(("GET", "/a", vec![])),
        ),
        (
            b"GET /a HTTP/1.1\r\nx: y\norigin: a\r\n",
            Some(("GET", "/a", vec![])),
        ),
        (
            b"GET /a HTTP/1.1\r\norigin: \xe9\r\norigin : b\r\n",
            Some(("GET", "/a", vec![])),
        ),
    ];
    for (bytes, told) in rows {
        let head = glean(bytes);
        let seen = head.as_ref().map(|head| {
            let origins = head.headers.get_all("origin");
            let origins = origins.map(|value| value.to_str().unwrap()).collect();
            let path = head.path.as_str();
            (head.method.as_str(), path, origins)
        });
        assert_eq!(seen, told, "{}", bytes.escape_ascii());
    }
}
