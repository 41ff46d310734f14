//! What a backend is told of a client.

use http::{HeaderMap, Method};

use super::*;
use crate::wire::metadata::forward_request;

const CLIENT: &str = "203.0.113.9:51812";
const PROXY: &str = "10.0.0.7:4000";

fn filter() -> Forwarded {
    Forwarded::new([
        vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        vec![],
    ])
}

fn peer(address: &str, listener: usize) -> Peer {
    Peer {
        address: address.parse().unwrap(),
        listener,
        number: 0x0123_4567_89ab_cdef_0000_0000_0000_0001,
    }
}

fn going(head: &RequestHead) -> HeaderMap {
    let mut forwarded = forward_request(&head.headers);
    if let Some(vouched) = head.headers.vouched() {
        vouched.write(head.authority.as_ref(), &mut forwarded);
    }
    forwarded
}

/// What goes on of a request with these fields, in the order of names.
fn through(fields: &[(&str, &str)], peer: &Peer) -> Vec<String> {
    let mut headers = Fields::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    let mut head = RequestHead {
        method: Method::POST,
        path: "/demo.v1.Echo/Say".parse().unwrap(),
        authority: Some("api.example.com:8080".parse().unwrap()),
        headers,
    };
    let verdict = filter().request(&mut head, peer);
    assert!(matches!(verdict, Verdict::Continue));
    let forwarded = going(&head);
    // Whoever looks at the head is not deceived.
    let told = head
        .headers
        .iter()
        .find(|(name, _)| tells_who(name.as_str()));
    assert_eq!(told, None);
    let lines = forwarded
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

const SPOOFED: [(&str, &str); 9] = [
    ("x-forwarded-for", "198.51.100.7, 10.0.0.1"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "admin.internal"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-client-cert", "Subject=\"CN=root\""),
    ("forwarded", "for=127.0.0.1;proto=https"),
    ("x-real-ip", "127.0.0.1"),
    ("x-own", "kept"),
];

#[test]
fn m_08_what_a_client_says_of_itself_is_removed_and_said_anew() {
    let expected = [
        "x-forwarded-for: 203.0.113.9",
        "x-forwarded-host: api.example.com:8080",
        "x-forwarded-proto: http",
        "x-own: kept",
        "x-real-ip: 203.0.113.9",
        "x-request-id: 0123456789abcdef0000000000000001",
    ];
    for listener in [0, 1, 7] {
        assert_eq!(through(&SPOOFED, &peer(CLIENT, listener)), expected);
    }
    // A proxy that another listener trusts is nobody here.
    let stranger = through(&SPOOFED, &peer(PROXY, 1));
    assert_eq!(stranger[0], "x-forwarded-for: 10.0.0.7");
    assert_eq!(stranger.len(), expected.len());
    // And neither is anybody where nobody is trusted.
    let mut head = RequestHead {
        method: Method::POST,
        path: "/a.B/C".parse().unwrap(),
        authority: None,
        headers: Fields::new(),
    };
    let _ = Forwarded::default().request(&mut head, &peer(PROXY, 0));
    assert_eq!(head.headers.vouched(), None, "nothing is claimed");
    let claim = HeaderValue::from_static("127.0.0.1");
    head.headers.append(X_REAL_IP, claim);
    let _ = Forwarded::default().request(&mut head, &peer(PROXY, 0));
    let told = going(&head);
    assert_eq!(told[X_FORWARDED_FOR], "10.0.0.7");
    assert!(!told.contains_key(X_FORWARDED_HOST));
}

#[test]
fn m_08_behind_a_trusted_proxy_its_word_is_kept_and_it_is_appended() {
    assert_eq!(
        through(&SPOOFED, &peer(PROXY, 0)),
        [
            "forwarded: for=127.0.0.1;proto=https, for=10.0.0.7;proto=http",
            "x-forwarded-client-cert: Subject=\"CN=root\"",
            "x-forwarded-for: 198.51.100.7, 10.0.0.1, 127.0.0.1, 10.0.0.7",
            "x-forwarded-host: admin.internal",
            "x-forwarded-port: 443",
            "x-forwarded-proto: https",
            "x-own: kept",
            // The newest that is no proxy of ours.
            "x-real-ip: 127.0.0.1",
            "x-request-id: 0123456789abcdef0000000000000001",
        ]
    );
    // One that says nothing is itself the client.
    assert_eq!(
        through(&[], &peer("[::1]:4000", 0)),
        [
            "x-forwarded-for: ::1",
            "x-forwarded-host: api.example.com:8080",
            "x-forwarded-proto: http",
            "x-real-ip: ::1",
            "x-request-id: 0123456789abcdef0000000000000001",
        ]
    );
}

#[test]
fn m_08_the_client_is_the_newest_address_that_no_trusted_proxy_has() {
    for (path, real, expected) in [
        ("198.51.100.7", None, "198.51.100.7"),
        // What the client has written before its own address is not believed.
        ("127.0.0.1, 198.51.100.7", None, "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7, 10.2.0.1", None, "198.51.100.7"),
        ("10.1.0.1, 10.2.0.1", None, "10.1.0.1"),
        ("198.51.100.7, ::ffff:10.2.0.1", None, "198.51.100.7"),
        ("2001:db8::1", Some("9.9.9.9"), "2001:db8::1"),
        ("198.51.100.7, unknown, 10.2.0.1", None, "10.2.0.1"),
        ("unknown", None, "10.0.0.7"),
        ("unknown", Some("9.9.9.9"), "9.9.9.9"),
        ("", None, "10.0.0.7"),
        (",", Some("no address"), "10.0.0.7"),
    ] {
        let mut fields = vec![("x-forwarded-for", path)];
        fields.extend(real.map(|real| ("x-real-ip", real)));
        let told = through(&fields, &peer(PROXY, 0));
        let expected = format!("x-real-ip: {expected}");
        assert!(told.contains(&expected), "{path}: {told:?}");
    }
}

#[test]
fn m_08_a_trusted_proxys_nonsense_is_said_anew() {
    for (name, value, expected) in [
        ("x-forwarded-proto", "gopher", "x-forwarded-proto: http"),
        (
            "x-forwarded-proto",
            "https, http",
            "x-forwarded-proto: http",
        ),
        (
            "x-forwarded-host",
            "a b",
            "x-forwarded-host: api.example.com:8080",
        ),
        (
            "x-forwarded-host",
            "",
            "x-forwarded-host: api.example.com:8080",
        ),
        (
            "x-forwarded-host",
            "a.example:1",
            "x-forwarded-host: a.example:1",
        ),
    ] {
        let told = through(&[(name, value)], &peer(PROXY, 0));
        assert!(
            told.iter().any(|line| line == expected),
            "{value}: {told:?}"
        );
    }
    let twice = [("x-forwarded-host", "a"), ("x-forwarded-host", "b")];
    let told = through(&twice, &peer(PROXY, 0));
    assert!(told.contains(&"x-forwarded-host: api.example.com:8080".to_owned()));
    let told = through(&[("forwarded", "for=a")], &peer("[::1]:1", 0));
    assert!(told.contains(&"forwarded: for=a, for=\"[::1]\";proto=http".to_owned()));
}

#[test]
fn m_08_an_address_is_written_without_port_and_as_what_it_is() {
    for (address, told) in [
        ("203.0.113.9:51812", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[::ffff:203.0.113.9]:443", "203.0.113.9"),
    ] {
        let claimed = [("x-real-ip", "127.0.0.1")];
        let lines = through(&claimed, &peer(address, 1));
        assert_eq!(lines[0], format!("x-forwarded-for: {told}"));
    }
    // IPv4 in the clothes of IPv6 is trusted as what it is.
    let lines = through(
        &[("x-forwarded-for", "1.2.3.4")],
        &peer("[::ffff:10.0.0.7]:1", 0),
    );
    assert_eq!(lines[0], "x-forwarded-for: 1.2.3.4, 10.0.0.7");
}

#[test]
fn m_08_a_request_id_is_kept_from_anyone_if_it_is_a_token_of_128_characters_at_most() {
    let made = "0123456789abcdef0000000000000001";
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);
    for (sent, told) in [
        (&["a"][..], "a"),
        (
            &["6f1ed002-ab56-4d1f-9f0e-2c8c25b8f0a1"],
            "6f1ed002-ab56-4d1f-9f0e-2c8c25b8f0a1",
        ),
        (&["!#$%&'*+-.^_`|~09azAZ"], "!#$%&'*+-.^_`|~09azAZ"),
        (&[&longest], &longest),
        (&[&too_long], made),
        (&[""], made),
        (&["a b"], made),
        (&["a,b"], made),
        (&["\"a\""], made),
        (&["a=b"], made),
        (&["a/b"], made),
        (&["a\tb"], made),
        (&["a", "b"], made),
        (&["a", "a"], made),
        (&[], made),
    ] {
        let fields: Vec<_> = sent.iter().map(|id| ("x-request-id", *id)).collect();
        for address in [CLIENT, PROXY] {
            let lines = through(&fields, &peer(address, 0));
            let ids = lines.iter().filter(|line| line.starts_with("x-request-id"));
            let ids: Vec<_> = ids.collect();
            if sent.is_empty() && address == CLIENT {
                assert!(ids.is_empty(), "nothing is claimed");
            } else {
                assert_eq!(ids, [&format!("x-request-id: {told}")], "{sent:?}");
            }
        }
    }
}

#[test]
fn m_08_an_open_quotation_mark_does_not_swallow_what_we_add() {
    let last = |said: &str| {
        let told = through(&[("forwarded", said)], &peer(PROXY, 0));
        let own = told
            .iter()
            .find_map(|line| line.strip_prefix("forwarded: "));
        own.expect("it is told").to_owned()
    };
    let ours = "for=10.0.0.7;proto=http";
    for closed in [r#"for="a;b""#, r#"for="a\"b""#, "for=a", r#"for="a\\""#] {
        assert_eq!(last(closed), format!("{closed}, {ours}"));
    }
    for open in [r#"for="a;b"#, r#"for=a, for=""#, r#"for="a\""#] {
        assert_eq!(last(open), ours, "{open}");
    }
}
