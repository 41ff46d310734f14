//! What a page sees of CORS.

use super::*;

const PAGE: &str = "http://localhost:5173";

fn cors(patterns: &[&str]) -> Cors {
    let patterns = patterns.iter().map(|p| p.parse().unwrap()).collect();
    Cors::new(patterns, Remedy::Flag)
}

fn request(method: &str, fields: &[(&str, &[u8])]) -> RequestHead {
    let mut headers = Fields::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    RequestHead {
        method: method.parse().unwrap(),
        path: "/demo.v1.Echo/Say".parse().unwrap(),
        authority: None,
        headers,
    }
}

fn ask(cors: &Cors, head: &mut RequestHead) -> Option<LocalAnswer> {
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
    };
    match cors.request(head, &peer) {
        Verdict::Continue => None,
        Verdict::Respond(answer) => Some(*answer),
    }
}

fn preflight(cors: &Cors, origin: &str, asked: &[&[u8]]) -> LocalAnswer {
    let mut fields = vec![
        ("origin", origin.as_bytes()),
        ("access-control-request-method", b"POST".as_slice()),
    ];
    fields.extend(asked.iter().map(|v| ("access-control-request-headers", *v)));
    ask(cors, &mut request("OPTIONS", &fields)).expect("a preflight is never forwarded")
}

fn listing(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn w_14_preflight_of_an_allowed_page_is_answered_with_exact_fields() {
    let answer = preflight(
        &cors(&[PAGE]),
        PAGE,
        &[b"content-type,x-grpc-web, X-User-Agent"],
    );
    assert_eq!(answer.head.status, 204);
    assert!(answer.body.is_empty() && answer.refusal.is_none());
    assert_eq!(
        listing(&answer.head.headers),
        [
            "access-control-allow-headers: content-type,x-grpc-web,x-user-agent",
            "access-control-allow-methods: POST",
            "access-control-allow-origin: http://localhost:5173",
            "access-control-max-age: 7200",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
    );
}

#[test]
fn a_preflight_that_asks_for_no_fields_is_told_of_none() {
    let answer = preflight(&cors(&["*"]), PAGE, &[]);
    assert_eq!(answer.head.status, 204);
    assert!(
        !answer
            .head
            .headers
            .contains_key(ACCESS_CONTROL_ALLOW_HEADERS)
    );
}

#[test]
fn w_14_preflight_of_another_page_is_refused_with_cause_and_cure_and_no_permission() {
    let other = "http://192.168.1.7:5173";
    for cors in [cors(&[PAGE]), cors(&[])] {
        let answer = preflight(&cors, other, &[b"content-type"]);
        assert_eq!(answer.head.status, 403);
        let allow = answer
            .head
            .headers
            .keys()
            .find(|n| n.as_str().starts_with("access-control-"));
        assert_eq!(allow, None);
        assert!(answer.head.headers.contains_key(VARY));
        let (word, sentence) = answer.refusal.unwrap();
        assert_eq!(word, "cors_origin");
        assert_eq!(
            sentence,
            "origin http://192.168.1.7:5173 is not allowed; add:  --allow-origin http://192.168.1.7:5173"
        );
    }
}

#[test]
fn the_cure_names_the_file_when_there_is_one() {
    let cors = Cors::new(vec![], Remedy::File);
    let (_, sentence) = preflight(&cors, "https://a.example", &[]).refusal.unwrap();
    assert_eq!(
        sentence,
        "origin https://a.example is not allowed; add \"https://a.example\" to allow_origins in [cors]"
    );
}

#[test]
fn an_origin_that_is_none_never_becomes_something_to_paste() {
    for origin in [
        "http://a;reboot",
        "http://a.example/$(reboot)",
        "http://a b",
        "HTTP://A.example",
        "http://a.example:80",
        "*",
        "http://localhost:*",
        "",
    ] {
        let (_, sentence) = preflight(&cors(&[]), origin, &[]).refusal.unwrap();
        assert!(!sentence.contains("--allow-origin"), "{origin}: {sentence}");
    }
    let long = format!("http://{}", "a".repeat(5000));
    let (_, sentence) = preflight(&cors(&[]), &long, &[]).refusal.unwrap();
    assert!(sentence.len() < 300, "{}", sentence.len());
}

#[test]
fn w_14_null_is_allowed_only_where_it_is_listed_or_all_are() {
    for (patterns, status) in [
        (&["null"][..], 204),
        (&["*"], 204),
        (&[PAGE, "http://localhost:*"], 403),
    ] {
        assert_eq!(
            preflight(&cors(patterns), "null", &[]).head.status,
            status,
            "{patterns:?}"
        );
    }
}

#[test]
fn w_14_two_origins_are_a_bad_request_on_a_preflight_and_on_a_call() {
    let two = [("origin", PAGE.as_bytes()), ("origin", PAGE.as_bytes())];
    for method in ["POST", "OPTIONS"] {
        let answer = ask(&cors(&["*"]), &mut request(method, &two)).unwrap();
        assert_eq!(answer.head.status, 400);
        assert_eq!(answer.refusal.unwrap().0, "bad_http");
    }
    let mut head = ResponseHead::new(StatusCode::BAD_REQUEST);
    cors(&["*"]).response(&request("POST", &two), &mut head);
    assert!(!head.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[test]
fn w_15_asked_fields_that_are_no_names_are_a_bad_request() {
    for asked in [
        b"content type".as_slice(),
        b"a,b:c",
        b"a;b",
        b"x-\xff",
        b"(x)",
        b"a\tb",
    ] {
        let answer = preflight(&cors(&["*"]), PAGE, &[asked]);
        assert_eq!(answer.head.status, 400, "{asked:?}");
        assert_eq!(answer.refusal.unwrap().0, "cors_header");
        assert!(
            !answer
                .head
                .headers
                .contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
        );
    }
}

#[test]
fn w_15_asked_fields_in_great_number_are_too_large() {
    let name = "x".repeat(63);
    let fits = vec![name.as_str(); 63].join(",");
    let over = vec![name.as_str(); 66].join(",");
    assert_eq!(
        preflight(&cors(&["*"]), PAGE, &[fits.as_bytes()])
            .head
            .status,
        204
    );
    let answer = preflight(&cors(&["*"]), PAGE, &[over.as_bytes()]);
    assert_eq!(answer.head.status, 431);
    // Split over several fields it is no smaller.
    let half = &over.as_bytes()[..over.len() / 2];
    let answer = preflight(&cors(&["*"]), PAGE, &[half, half, half]);
    assert_eq!(answer.head.status, 431);
}

#[test]
fn asked_fields_over_several_lines_and_with_empty_elements_are_joined() {
    let answer = preflight(&cors(&["*"]), PAGE, &[b" a ,, b", b"", b"c,"]);
    assert_eq!(answer.head.headers[ACCESS_CONTROL_ALLOW_HEADERS], "a,b,c");
}

#[test]
fn an_options_that_is_no_preflight_goes_on() {
    let filter = cors(&[PAGE]);
    for fields in [
        &[("origin", PAGE.as_bytes())][..],
        &[("access-control-request-method", b"POST".as_slice())],
        &[],
    ] {
        assert!(ask(&filter, &mut request("OPTIONS", fields)).is_none());
    }
}

#[test]
fn w_17_every_answer_to_an_allowed_page_is_readable_with_exactly_the_fields_on_it() {
    let mut head = ResponseHead::new(StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/grpc-web+proto"),
        ("x-custom", "1"),
        ("x-custom", "2"),
        ("trace-bin", "AAAA"),
        ("grpc-message", "x"),
        ("set-cookie", "a=b"),
        ("access-control-allow-origin", "https://elsewhere.example"),
        ("access-control-allow-credentials", "true"),
    ] {
        head.headers.append(name, HeaderValue::from_static(value));
    }
    let call = request("POST", &[("origin", PAGE.as_bytes())]);
    cors(&[PAGE]).response(&call, &mut head);
    assert_eq!(head.headers[ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
    assert!(
        !head
            .headers
            .contains_key("access-control-allow-credentials")
    );
    let exposed = head.headers[ACCESS_CONTROL_EXPOSE_HEADERS]
        .to_str()
        .unwrap();
    let mut exposed: Vec<_> = exposed.split(',').collect();
    assert_eq!(
        exposed[..3],
        ["grpc-status", "grpc-message", "grpc-status-details-bin"]
    );
    exposed[3..].sort_unstable();
    assert_eq!(
        exposed[3..],
        ["content-type", "trace-bin", "vary", "x-custom"]
    );
}

#[test]
fn a_call_of_another_page_is_served_without_permission_even_if_the_backend_gives_it() {
    let filter = cors(&[PAGE]);
    let mut call = request("POST", &[("origin", b"https://other.example")]);
    assert!(ask(&filter, &mut call).is_none());
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    filter.response(&call, &mut head);
    assert_eq!(listing(&head.headers), ["vary: Origin"]);
}

#[test]
fn w_16_vary_is_always_there_and_the_backends_own_stays() {
    for (before, after) in [
        (&[][..], &["Origin"][..]),
        (&["accept-encoding"], &["accept-encoding", "Origin"]),
        (&["x, ORIGIN"], &["x, ORIGIN"]),
        (&["*"], &["*"]),
    ] {
        let mut head = ResponseHead::new(StatusCode::OK);
        for value in before {
            head.headers.append(VARY, HeaderValue::from_static(value));
        }
        cors(&[PAGE]).response(&request("POST", &[]), &mut head);
        let values: Vec<_> = head.headers.get_all(VARY).iter().collect();
        assert_eq!(values, after, "{before:?}");
    }
}

#[test]
fn the_answer_to_a_preflight_is_left_as_it_is() {
    let filter = cors(&[PAGE]);
    let mut head = preflight(&filter, PAGE, &[b"x-a"]).head;
    let before = listing(&head.headers);
    let fields = [
        ("origin", PAGE.as_bytes()),
        ("access-control-request-method", b"POST".as_slice()),
    ];
    filter.response(&request("OPTIONS", &fields), &mut head);
    assert_eq!(listing(&head.headers), before);
}

#[test]
fn patterns_match_whole_origins_and_nothing_that_only_begins_like_one() {
    for (pattern, origin, expected) in [
        ("https://app.example.com", "https://app.example.com", true),
        ("https://APP.example.com", "https://app.example.com", true),
        (
            "https://app.example.com:443",
            "https://app.example.com",
            true,
        ),
        ("http://app.example.com:80", "http://app.example.com", true),
        ("https://app.example.com", "http://app.example.com", false),
        (
            "https://app.example.com",
            "https://app.example.com.evil",
            false,
        ),
        (
            "https://app.example.com",
            "https://app.example.com:444",
            false,
        ),
        ("http://localhost:*", "http://localhost", true),
        ("http://localhost:*", "http://localhost:5173", true),
        ("http://localhost:*", "http://localhost:", false),
        ("http://localhost:*", "http://localhost:+80", false),
        ("http://localhost:*", "http://localhost:70000", false),
        ("http://localhost:*", "http://localhost.evil:80", false),
        ("http://localhost:*", "http://localhost:80.evil", false),
        ("http://localhost:*", "https://localhost:80", false),
        ("http://[::1]:*", "http://[::1]:8080", true),
        ("http://[::1]:8080", "http://[::1]:8080", true),
        ("*", "null", true),
    ] {
        let parsed: OriginPattern = pattern.parse().unwrap();
        assert_eq!(parsed.matches(origin), expected, "{pattern} {origin}");
    }
}

#[test]
fn what_is_no_origin_is_refused_with_a_sentence() {
    for text in [
        "",
        "localhost:5173",
        "http://",
        "://x",
        "1http://x",
        "http://x/",
        "http://x/path",
        "http://x?y",
        "http://*.example.com",
        "http://x:port",
        "http://x:99999",
        "http://x:",
        "http://[::1",
        "http://[zz]:80",
        "http://a b",
    ] {
        assert!(text.parse::<OriginPattern>().is_err(), "{text}");
    }
    for text in OriginPattern::LOOPBACK {
        assert_eq!(text.parse::<OriginPattern>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_usually_exposed_is_what_would_be_put_together() {
    let value = HeaderValue::from_static("a");
    let mut usual = HeaderMap::new();
    for name in &USUAL_FIELDS {
        usual.append(name.clone(), value.clone());
    }
    assert_eq!(exposed_fields(&usual), USUALLY_EXPOSED);
    let names = USUAL_FIELDS.each_ref().map(HeaderName::as_str).join(",");
    assert_eq!(USUALLY_EXPOSED, format!("{ALWAYS_EXPOSED_LIST},{names}"));
    // In another order, or beside another field, it is put together.
    let mut turned = HeaderMap::new();
    for name in USUAL_FIELDS.iter().rev() {
        turned.append(name.clone(), value.clone());
    }
    let expected = format!("{ALWAYS_EXPOSED_LIST},vary,content-type");
    assert_eq!(exposed_fields(&turned), expected);
    usual.append(HeaderName::from_static("x-own"), value);
    let expected = format!("{ALWAYS_EXPOSED_LIST},{names},x-own");
    assert_eq!(exposed_fields(&usual), expected);
}
