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
        listener: 0,
        number: 0,
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
fn a_flag_that_does_more_than_to_add_says_what() {
    let (loopback, over_file) = (
        "  (with  --allow-origin 'http://localhost:*'  pages on http://localhost stay allowed)",
        "  (the flag stands in place of allow_origins in [cors])",
    );
    for (from, besides) in [
        (OriginsFrom::Loopback, loopback),
        (OriginsFrom::FlagsOverFile, over_file),
    ] {
        let cors = Cors::new(vec![], from);
        let told = |origin| preflight(&cors, origin, &[]).refusal.unwrap().1;
        assert_eq!(
            told("https://a.example"),
            format!(
                "origin https://a.example is not allowed; add:  --allow-origin https://a.example{besides}"
            )
        );
        let null = told("null");
        assert!(
            null.ends_with(&format!("all with  --allow-origin null{besides}")),
            "{null}"
        );
    }
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
    // Nor does it make a second line that looks like a cure of ours.
    for origin in [
        "a; add:  --allow-origin http://evil.example",
        "http://a\"; add:  --allow-origin http://evil.example",
        "http://a;\u{a0}add: x",
    ] {
        let (_, sentence) = preflight(&cors(&[]), origin, &[]).refusal.unwrap();
        let (cause, cure) = sentence.split_once("; ").unwrap();
        assert_eq!(cure, "it is no well-formed origin", "{origin}");
        assert_eq!(cause.split(' ').count(), 5, "{cause}");
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
    assert_eq!(exposed[3..], ["content-type", "trace-bin", "x-custom"]);
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
        "http://*",
        "http://*.",
        "http://*:80",
        "http://*example.com",
        "http://a.*.example.com",
        "http://*.*.example.com",
        "http://*.example.*",
        "http://*..example.com",
        "http://*.example.com.",
        "http://*.10.0.0.1",
        "http://*.[::1]",
        "http://*.a@example.com",
        "http://*.example.com:port",
        "http://*.example.com:",
        "*.example.com",
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
fn several_origins_in_one_text_are_told_apart() {
    for text in [
        "https://a.com,https://b.com",
        "https://a.com, https://b.com",
        "https://a.com https://b.com",
    ] {
        let fault = text.parse::<OriginPattern>().unwrap_err();
        assert!(fault.0.starts_with("one origin each"), "{text}: {fault:?}");
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
    let names = CONTENT_TYPE.as_str();
    assert_eq!(USUALLY_EXPOSED, format!("{ALWAYS_EXPOSED_LIST},{names}"));
    // In another order, or beside another field, it is put together.
    let mut turned = HeaderMap::new();
    for name in USUAL_FIELDS.iter().rev() {
        turned.append(name.clone(), value.clone());
    }
    turned.append(CONTENT_LENGTH, value.clone());
    turned.append(SET_COOKIE, value.clone());
    assert_eq!(exposed_fields(&turned), USUALLY_EXPOSED);
    usual.append(HeaderName::from_static("x-own"), value);
    let expected = format!("{ALWAYS_EXPOSED_LIST},{names},x-own");
    assert_eq!(exposed_fields(&usual), expected);
}

const BELOW: &str = "https://*.example.com";

#[test]
fn a_wildcard_means_every_host_below_its_domain_on_the_same_port() {
    for (pattern, origin, expected) in [
        (BELOW, "https://app.example.com", true),
        (BELOW, "https://a.b-c.d_e.example.com", true),
        (BELOW, "https://xn--bcher-kva.example.com", true),
        (BELOW, "https://1.example.com", true),
        ("https://*.EXAMPLE.com", "https://app.example.com", true),
        ("https://*.example.com:443", "https://app.example.com", true),
        (
            "https://*.example.com:8443",
            "https://a.example.com:8443",
            true,
        ),
        ("https://*.example.com:*", "https://a.example.com:1", true),
        ("https://*.example.com:*", "https://a.example.com", true),
        ("http://*.localhost:*", "http://app.localhost:5173", true),
        // The domain itself, and what only looks like something below it.
        (BELOW, "https://example.com", false),
        (BELOW, "https://.example.com", false),
        (BELOW, "https://evilexample.com", false),
        (BELOW, "https://app.example.com.evil.net", false),
        (BELOW, "https://app.example.com.", false),
        (BELOW, "https://app..example.com", false),
        (BELOW, "https://evil.net/.example.com", false),
        (BELOW, "https://evil.net#.example.com", false),
        (BELOW, "https://evil.net?.example.com", false),
        (BELOW, "https://evil.net\\.example.com", false),
        (BELOW, "https://user@app.example.com", false),
        (BELOW, "https://user:1@app.example.com", false),
        (BELOW, "https://evil.net:80.example.com", false),
        (BELOW, "https://[::1].example.com", false),
        (BELOW, "https://%61.example.com", false),
        (BELOW, "https://*.example.com", false),
        (BELOW, "https://APP.example.com", false),
        (BELOW, "https://app.Example.com", false),
        (BELOW, "HTTPS://app.example.com", false),
        (BELOW, "http://app.example.com", false),
        (BELOW, "https://app.example.com:444", false),
        (BELOW, "https://app.example.com:443", false),
        (BELOW, " https://app.example.com", false),
        (
            BELOW,
            "https://app.example.com,https://b.example.com",
            false,
        ),
        (BELOW, "https://", false),
        (BELOW, "null", false),
        (
            "https://*.example.com:8443",
            "https://a.example.com:8444",
            false,
        ),
        ("https://*.example.com:8443", "https://a.example.com", false),
        ("https://*.example.com:*", "https://a.example.com:", false),
        ("https://*.example.com:*", "https://a.example.com:+1", false),
        (
            "https://*.example.com:*",
            "https://a.example.com:70000",
            false,
        ),
        ("https://*.example.com:*", "https://example.com:1", false),
        (
            "https://*.example.com:*",
            "https://a.example.com:1:2",
            false,
        ),
    ] {
        let parsed: OriginPattern = pattern.parse().unwrap();
        assert_eq!(parsed.matches(origin), expected, "{pattern} {origin}");
    }
    for (pattern, printed) in [
        (BELOW, BELOW),
        ("https://*.Example.com:443", BELOW),
        ("http://*.a:81", "http://*.a:81"),
        ("http://*.a:*", "http://*.a:*"),
    ] {
        assert_eq!(
            pattern.parse::<OriginPattern>().unwrap().to_string(),
            printed
        );
    }
}

#[test]
fn no_origin_that_somebody_else_may_own_matches_whatever_is_put_around_a_good_one() {
    let letters = [
        "a",
        "z",
        "0",
        "-",
        "_",
        ".",
        ":",
        "/",
        "@",
        "#",
        "?",
        "\\",
        "%2e",
        "*",
        " ",
        "A",
        "\u{e9}",
        "example.com",
        ".example.com",
        "https://",
        "http://",
        "evil",
        ":443",
        ":8443",
        ",",
        "[",
        "]",
    ];
    let patterns = [
        BELOW,
        "https://*.example.com:8443",
        "https://*.example.com:*",
        "https://example.com",
        "https://example.com:*",
    ]
    .map(|text| text.parse::<OriginPattern>().unwrap());
    let mut random = fastrand::Rng::with_seed(6);
    let mut matched = 0;
    for _ in 0..200_000 {
        let mut origin = String::new();
        if random.u8(..4) != 0 {
            origin.push_str("https://");
        }
        for _ in 0..random.usize(..4) {
            origin.push_str(letters[random.usize(..letters.len())]);
        }
        if random.bool() {
            origin.push_str("example.com");
        }
        if random.u8(..4) == 0 {
            origin.push_str(letters[random.usize(..letters.len())]);
        }
        for (index, pattern) in patterns.iter().enumerate() {
            if !pattern.matches(&origin) {
                continue;
            }
            matched += 1;
            // Read as a URL is read: scheme, then host, then port, and nothing besides.
            let authority = origin.strip_prefix("https://").expect("the scheme");
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            assert!(host.bytes().all(plain), "{origin}");
            assert!(!host.contains("..") && !host.starts_with('.'), "{origin}");
            match index {
                0..=2 => assert!(host.ends_with(".example.com"), "{pattern} {origin}"),
                _ => assert_eq!(host, "example.com", "{pattern} {origin}"),
            }
            match index {
                0 | 3 => assert_eq!(port, None, "{pattern} {origin}"),
                1 => assert_eq!(port, Some("8443"), "{pattern} {origin}"),
                _ => assert!(
                    port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+')),
                    "{pattern} {origin}"
                ),
            }
        }
    }
    assert!(
        matched > 1_000,
        "only {matched} matched, so this says little"
    );
}

#[test]
fn whoever_lies_below_a_domain_of_one_label_is_told_apart() {
    for (pattern, expected) in [
        ("https://*.com", Some("com")),
        ("https://*.test:8443", Some("test")),
        ("http://*.localhost:*", None),
        (BELOW, None),
        ("https://com", None),
        ("*", None),
    ] {
        let pattern: OriginPattern = pattern.parse().unwrap();
        assert_eq!(pattern.top_level(), expected, "{pattern}");
    }
}

#[test]
fn w_16_credentials_are_for_pages_that_are_named_and_never_stand_beside_a_star() {
    let other = "https://other.example";
    for (patterns, origin, expected) in [
        (&[PAGE][..], PAGE, true),
        (&["http://localhost:*"], PAGE, true),
        (&[BELOW], "https://a.example.com", true),
        (&["null"], "null", true),
        (&["*"], other, false),
        (&["*"], "null", false),
        // Whoever is named is named, whatever stands before it.
        (&["*", PAGE], PAGE, true),
        (&[PAGE, "*"], other, false),
    ] {
        let cors = cors(patterns).with_credentials(true);
        let answer = preflight(&cors, origin, &[b"content-type"]);
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        cors.response(
            &request("POST", &[("origin", origin.as_bytes())]),
            &mut head,
        );
        for headers in [&answer.head.headers, &head.headers] {
            let told = headers.get(ACCESS_CONTROL_ALLOW_CREDENTIALS);
            let told = told.map(|value| value.to_str().unwrap());
            assert_eq!(told, expected.then_some("true"), "{patterns:?} {origin}");
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
            assert!(headers.values().all(|value| value != "*"), "{headers:?}");
            assert!(headers.contains_key(VARY));
        }
    }
    // Nobody who is refused is told anything of it.
    let cors = cors(&[PAGE]).with_credentials(true);
    let answer = preflight(&cors, other, &[]);
    assert_eq!(listing(&answer.head.headers).len(), 2, "content-type, vary");
    let mut head = ResponseHead::new(StatusCode::OK);
    cors.response(&request("POST", &[("origin", other.as_bytes())]), &mut head);
    assert_eq!(listing(&head.headers), ["vary: Origin"]);
}

fn names(texts: &[&str]) -> Vec<HeaderName> {
    let names = texts.iter().map(|text| HeaderName::try_from(*text));
    names.map(Result::unwrap).collect()
}

#[test]
fn a_list_of_fields_is_told_as_it_is_and_what_grpc_web_needs_is_always_in_it() {
    let cors = cors(&[PAGE]).letting_send(names(&["x-tenant", "content-type"]));
    let list = "content-type,x-grpc-web,x-user-agent,grpc-timeout,x-tenant";
    for asked in [
        &b""[..],
        b"x-tenant",
        b"X-Grpc-Web,content-type",
        b"grpc-timeout",
    ] {
        let answer = preflight(&cors, PAGE, &[asked]);
        assert_eq!(answer.head.status, 204);
        assert_eq!(answer.head.headers[ACCESS_CONTROL_ALLOW_HEADERS], list);
        assert_eq!(answer.head.headers[ACCESS_CONTROL_MAX_AGE], "7200");
        assert!(answer.refusal.is_none(), "{asked:?}");
    }
}

#[test]
fn a_field_that_is_not_listed_is_refused_with_cause_and_cure_and_the_browser_can_name_it() {
    let cors = Cors::new(vec![OriginPattern::Any], Remedy::File)
        .letting_send(names(&["x-tenant"]))
        .naming_fields_in("[route.cors] of route \"greeter\"");
    let answer = preflight(
        &cors,
        PAGE,
        &[b"content-type,X-Trace,x-tenant", b"x-trace,x-b"],
    );
    // With these a browser says: x-trace is not allowed by access-control-allow-headers.
    assert_eq!(
        listing(&answer.head.headers),
        [
            "access-control-allow-headers: content-type,x-grpc-web,x-user-agent,grpc-timeout,x-tenant",
            "access-control-allow-methods: POST",
            "access-control-allow-origin: http://localhost:5173",
            "access-control-max-age: 0",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
    );
    assert_eq!(
        answer.refusal.unwrap(),
        (
            "cors_header",
            "the page asks to send \"x-trace\", \"x-b\", which allow_headers does not list; add \"x-trace\", \"x-b\" \
             there, or write allow_headers = \"mirror\", in [route.cors] of route \"greeter\""
                .to_owned()
        )
    );
    // What means something to a shell is not named as a thing to type, and neither is what nobody could read.
    let many = (0..400)
        .map(|n| format!("x-{n}-{}", "y".repeat(1 + n % 5)))
        .collect::<Vec<_>>()
        .join(",");
    let long = "x".repeat(300);
    for asked in ["x-`reboot`,$a|b", &long, &many] {
        let (word, sentence) = preflight(&cors, PAGE, &[asked.as_bytes()]).refusal.unwrap();
        assert_eq!(word, "cors_header");
        assert!(sentence.len() < 600, "{sentence}");
        assert!(!sentence.contains(['`', '$', '|']), "{sentence}");
        assert!(sentence.contains("; "), "{sentence}");
    }
}

#[test]
fn a_list_of_what_may_be_read_stands_in_place_of_what_is_on_the_answer() {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers
        .insert("x-custom", HeaderValue::from_static("1"));
    let list = names(&["x-own", "grpc-status", "set-cookie"]);
    let call = request("POST", &[("origin", PAGE.as_bytes())]);
    cors(&[PAGE]).letting_read(list).response(&call, &mut head);
    assert_eq!(
        head.headers[ACCESS_CONTROL_EXPOSE_HEADERS],
        "grpc-status,grpc-message,grpc-status-details-bin,x-own"
    );
    cors(&[PAGE]).letting_read([]).response(&call, &mut head);
    assert_eq!(
        head.headers[ACCESS_CONTROL_EXPOSE_HEADERS],
        ALWAYS_EXPOSED_LIST
    );
}

#[test]
fn a_preflight_is_remembered_for_as_long_as_it_is_said() {
    for (time, said) in [
        (Duration::ZERO, "0"),
        (Duration::from_millis(2_900), "2"),
        (Duration::from_hours(24), "86400"),
    ] {
        let cors = cors(&[PAGE]).remembered_for(time);
        let answer = preflight(&cors, PAGE, &[]);
        assert_eq!(answer.head.headers[ACCESS_CONTROL_MAX_AGE], said);
    }
}

#[test]
fn an_upgrade_is_refused_to_a_page_that_may_not_call_and_to_nobody_else() {
    let filter = cors(&[PAGE]);
    for (origin, refused) in [
        (Some(PAGE), false),
        (None, false),
        (Some("https://other.example"), true),
        (Some("null"), true),
    ] {
        let mut fields = vec![("upgrade", b"websocket".as_slice())];
        fields.extend(origin.map(|origin| ("origin", origin.as_bytes())));
        for method in ["GET", "POST"] {
            let answer = ask(&filter, &mut request(method, &fields));
            assert_eq!(answer.is_some(), refused, "{method} {origin:?}");
            let Some(answer) = answer else { continue };
            assert_eq!(answer.head.status, 403);
            assert_eq!(answer.refusal.unwrap().0, "cors_origin");
        }
    }
}

#[test]
fn a_page_that_asks_for_a_websocket_is_told_first_that_there_is_none() {
    let filter = cors(&[PAGE]);
    let other = "https://other.example";
    let told = |upgrade: &[u8]| {
        let fields = [("upgrade", upgrade), ("origin", other.as_bytes())];
        let answer = ask(&filter, &mut request("GET", &fields)).unwrap();
        let (_, sentence) = answer.refusal.unwrap();
        assert_eq!(answer.body, format!("{sentence}\n"));
        sentence
    };
    let plain =
        "origin https://other.example is not allowed; add:  --allow-origin https://other.example";
    for upgrade in ["websocket", "WebSocket", "foo, websocket/13"] {
        assert_eq!(
            told(upgrade.as_bytes()),
            format!(
                "WebSocket is not spoken here: use the client's fetch transport, for which {plain}"
            )
        );
    }
    for upgrade in ["h2c", "websockets", "foo/websocket"] {
        assert_eq!(told(upgrade.as_bytes()), plain);
    }
}

#[test]
fn a_cure_that_a_shell_would_not_leave_as_it_is_stands_in_quotes() {
    let (_, sentence) = preflight(&cors(&[]), "http://[::1]:5173", &[])
        .refusal
        .unwrap();
    assert!(
        sentence.ends_with("; add:  --allow-origin 'http://[::1]:5173'"),
        "{sentence}"
    );
}

#[test]
fn what_is_no_origin_is_told_how_it_would_be_one() {
    for (text, told) in [
        (
            "https://münchen.example",
            "write the host in its ASCII form, as browsers send it, e.g. https://xn--mnchen-3ya.example",
        ),
        (
            "file://",
            "pages of files have the origin \"null\": serve the page by http, or write \"null\"",
        ),
        (
            "file:///page.html",
            "pages of files have the origin \"null\": serve the page by http, or write \"null\"",
        ),
        (
            "https://app.example.com?x",
            "leave out everything behind the host and port: https://app.example.com",
        ),
        (
            "https://app.example.com:8443/",
            "leave out everything behind the host and port: https://app.example.com:8443",
        ),
        (
            "https://app.example.com#x",
            "leave out everything behind the host and port: https://app.example.com",
        ),
        (
            "*.example.com",
            "an origin begins with its scheme: https://*.example.com",
        ),
        (
            "app.example.com",
            "an origin begins with its scheme: https://app.example.com",
        ),
        (
            "localhost:*",
            "an origin begins with its scheme: http://localhost:*",
        ),
        (
            "localhost:5173",
            "an origin begins with its scheme: http://localhost:5173",
        ),
        (
            "127.0.0.1:5173",
            "an origin begins with its scheme: http://127.0.0.1:5173",
        ),
        (
            "[::1]:5173",
            "an origin begins with its scheme: http://[::1]:5173",
        ),
        (
            "a$b",
            "an origin begins with its scheme, e.g. https://app.example.com",
        ),
        (
            "",
            "an origin begins with its scheme, e.g. https://app.example.com",
        ),
    ] {
        let fault = text.parse::<OriginPattern>().unwrap_err();
        assert_eq!(fault.0, told, "{text}");
        // What is shown as the cure is one.
        if let Some((_, cure)) = told.split_once(": http") {
            assert!(
                format!("http{cure}").parse::<OriginPattern>().is_ok(),
                "{told}"
            );
        }
    }
}

#[test]
fn null_is_told_whose_origin_it_is() {
    let (_, sentence) = preflight(&cors(&[]), "null", &[]).refusal.unwrap();
    assert_eq!(
        sentence,
        "origin null is not allowed: it is a file's or a sandboxed frame's; serve the page by http, or allow them all \
         with  --allow-origin null"
    );
    let filter = Cors::new(vec![], Remedy::File);
    let (_, sentence) = preflight(&filter, "null", &[]).refusal.unwrap();
    assert!(
        sentence.ends_with("\"null\" in allow_origins in [cors]"),
        "{sentence}"
    );
}

#[test]
fn what_a_page_asks_of_private_networks_is_not_answered() {
    let fields = [
        ("origin", PAGE.as_bytes()),
        ("access-control-request-method", b"POST".as_slice()),
        ("access-control-request-private-network", b"true"),
        ("access-control-request-local-network", b"true"),
    ];
    let filter = cors(&[PAGE]);
    let answer = ask(&filter, &mut request("OPTIONS", &fields)).unwrap();
    assert_eq!(answer.head.status, 204);
    let mut head = ResponseHead::new(StatusCode::OK);
    let private = "access-control-allow-private-network";
    head.headers
        .insert(private, HeaderValue::from_static("true"));
    filter.response(&request("POST", &fields), &mut head);
    for headers in [&answer.head.headers, &head.headers] {
        assert!(!headers.contains_key(private));
    }
}
