//! Rows M: what crosses between headers and metadata, and what does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf::policy::{Forwarded, Listener, Network, Snapshot};
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Request, Seen};
use crate::caller::{Caller, call_with};
use crate::client::{Answer, Client, PATH, alone, message, streamed, trailer_frame};
use crate::ends::{Pair, assert_ends};
use crate::frames::{INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE, REFUSED_STREAM, WINDOW_MAX, Way};
use crate::world::{PATIENCE, Plan, World};

const OK: &str = "grpc-status:0\r\n";
const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
/// In which nothing comes that should not.
const A_MOMENT: Duration = Duration::from_millis(100);

/// What the backend gets of a call with those lines.
fn crossing(pair: &mut Pair, lines: &str) -> Request {
    pair.client.post(lines, &message(b"hi"));
    let request = pair.peer.request();
    assert_eq!(request.body, message(b"hi"));
    pair.peer.answer(request.stream, b"");
    assert!(pair.client.answer().whole);
    assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
    request
}

/// What the client gets of an answer whose head and trailers have these fields besides those that must be there.
fn answered(pair: &mut Pair, head: &[(&str, &str)], trailers: &[(&str, &str)]) -> Answer {
    let (answer, record) = pair.call(|peer, stream| {
        peer.head(stream, &[&HEAD[..], head].concat(), false);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[&[("grpc-status", "0")][..], trailers].concat());
    });
    assert_ends(&record, 0, Reason::Ok, Party::Upstream, false);
    answer
}

/// The values of a name, in order.
fn values<'a>(request: &'a Request, name: &str) -> Vec<&'a str> {
    let fields = request.fields.iter();
    let found = fields.filter(|(own, _)| own == name);
    found.map(|(_, value)| value.as_str()).collect()
}

/// The values of a field of the answer's head, in order.
fn fields<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let lines = answer.head.lines().skip(1);
    let found = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(own, _)| *own == name);
    found.map(|(_, value)| value.trim_ascii()).collect()
}

/// The body of an answer of one message, with these lines in its frame.
fn body(lines: &str) -> Vec<u8> {
    [message(b"one"), trailer_frame(&format!("{OK}{lines}"))].concat()
}

#[test]
fn m_01_binary_values_cross_untouched_but_for_what_a_browser_joined() {
    let mut pair = Pair::new();
    let request = crossing(
        &mut pair,
        "a-bin: QQ==\r\nb-bin: QQ\r\nc-bin: !no base64!\r\nd-bin:\r\ne-bin: QQ==, QkI=,Qg\r\n\
         f-bin: QQ\r\nf-bin: QkI=\r\ng-bin: Q-_Q\r\nbinary: a, b\r\n",
    );
    for (name, expected) in [
        ("a-bin", &["QQ=="][..]),
        ("b-bin", &["QQ"]),
        ("c-bin", &["!no base64!"]),
        ("d-bin", &[""]),
        ("e-bin", &["QQ==", "QkI=", "Qg"]),
        ("f-bin", &["QQ", "QkI="]),
        ("g-bin", &["Q-_Q"]),
        // Of other fields a comma is the application's own.
        ("binary", &["a, b"]),
    ] {
        assert_eq!(values(&request, name), expected, "{name}");
    }
    let sent = [
        ("a-bin", "QQ=="),
        ("b-bin", "QQ, QkI="),
        ("c-bin", "!no base64!"),
        ("b-bin", ""),
    ];
    let answer = answered(&mut pair, &sent, &sent);
    assert_eq!(fields(&answer, "a-bin"), ["QQ=="]);
    assert_eq!(fields(&answer, "b-bin"), ["QQ, QkI=", ""]);
    assert_eq!(fields(&answer, "c-bin"), ["!no base64!"]);
    let lines = "a-bin:QQ==\r\nb-bin:QQ, QkI=\r\nb-bin:\r\nc-bin:!no base64!\r\n";
    assert_eq!(answer.body, body(lines));
}

#[test]
fn m_02_names_are_lower_and_values_of_one_name_keep_their_order() {
    let mut pair = Pair::new();
    let request = crossing(
        &mut pair,
        "X-A: 1\r\nx-b: 0\r\nx-a: 2\r\nX-a: Three\r\nx-A: 1\r\nX_Under.Dot-09: Z\r\n",
    );
    assert_eq!(values(&request, "x-a"), ["1", "2", "Three", "1"]);
    assert_eq!(values(&request, "x-b"), ["0"]);
    assert_eq!(values(&request, "x_under.dot-09"), ["Z"]);
    let upper = |name: &str| name.bytes().any(|byte| byte.is_ascii_uppercase());
    assert!(!request.fields.iter().any(|(name, _)| upper(name)));
    let sent = [("x-a", "1"), ("x-b", "0"), ("x-a", "2"), ("x-a", "1")];
    let answer = answered(&mut pair, &sent, &sent);
    assert_eq!(fields(&answer, "x-a"), ["1", "2", "1"]);
    assert_eq!(answer.body, body("x-a:1\r\nx-a:2\r\nx-a:1\r\nx-b:0\r\n"));
}

#[test]
fn m_04_of_the_reserved_names_only_the_call_definition_reaches_the_backend() {
    let mut pair = Pair::new();
    let dropped = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-internal",
        "grpc-web",
        "grpc-retry-pushback-ms",
        "Grpc-Status",
        "grpc-",
        "grpc-server-stats-bin",
    ];
    let kept = [
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "gzip"),
        ("grpc-message-type", "demo.Hello"),
        ("grpc-trace-bin", "AAEC"),
        ("grpc-tags-bin", "AAEC"),
        ("grpc-previous-rpc-attempts", "2"),
        ("grpcx", "mine"),
        ("x-grpc-status", "mine"),
    ];
    let mut lines: String = dropped
        .iter()
        .map(|name| format!("{name}: 0\r\n"))
        .collect();
    lines.extend(kept.map(|(name, value)| format!("{name}: {value}\r\n")));
    let request = crossing(&mut pair, &lines);
    for name in dropped {
        assert_eq!(values(&request, &name.to_lowercase()), [""; 0], "{name}");
    }
    for (name, value) in kept {
        assert_eq!(values(&request, name), [value]);
    }
    let request = crossing(&mut pair, "grpc-timeout: 60S\r\n");
    assert_eq!(values(&request, "grpc-timeout").len(), 1);
}

#[test]
fn m_05_a_pseudo_field_in_http_1_is_400_and_reaches_nobody() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    for line in [
        ":path: /x.Y/Z",
        ":authority: evil",
        ":status: 200",
        ": x",
        ":: x",
        " :path: /x",
    ] {
        let mut client = Client::new(world.address);
        client.post(&format!("{line}\r\n"), &message(b"hi"));
        let answer = client.answer();
        assert!(
            answer.head.starts_with("HTTP/1.1 400 "),
            "{line}: {}",
            answer.head
        );
        client.assert_closed();
        assert_eq!(world.record().refusal, Some("bad_http"));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn m_06_a_length_is_one_connections_own_both_ways() {
    let mut pair = Pair::new();
    let request = crossing(&mut pair, "");
    assert_eq!(request.field("content-length"), None);
    assert_eq!(request.field("transfer-encoding"), None);
    // The backend's is that of its messages, and a frame follows them here.
    let answer = answered(&mut pair, &[("content-length", "8")], &[]);
    assert_eq!(answer, streamed(&[&body("")]));
    // One that does not fit is a broken answer, not a shorter one.
    for length in ["7", "9"] {
        let mut pair = Pair::new();
        pair.client.post("", &message(b"hi"));
        let stream = pair.peer.request().stream;
        let head = [&HEAD[..], &[("content-length", length)]].concat();
        pair.peer.head(stream, &head, false);
        pair.peer.data(stream, &message(b"one"), false);
        pair.peer.trailers(stream, &[("grpc-status", "0")]);
        let answer = pair.client.answer();
        let record = pair.world.record();
        assert_eq!(record.code, Some(Code::INTERNAL), "{length}");
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!told.contains(OK), "{length}: {told}");
        assert!(
            record.aborted || told.contains("grpc-status:13\r\n"),
            "{length}: {told}"
        );
    }
}

#[test]
fn m_07_the_host_becomes_the_authority_and_is_told_once() {
    let mut pair = Pair::new();
    let request = crossing(&mut pair, "");
    assert_eq!(values(&request, ":authority"), ["wharf.test"]);
    assert_eq!(values(&request, "host"), [""; 0]);
    for (target, host, expected) in [
        (
            format!("http://Wharf.test:8080{PATH}"),
            "wharf.TEST:8080",
            "wharf.TEST:8080",
        ),
        (PATH.to_owned(), "[::1]:50051", "[::1]:50051"),
        (PATH.to_owned(), "a.b-c_d~e", "a.b-c_d~e"),
    ] {
        let sent = format!(
            "POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/grpc-web\r\n\
             content-length: 0\r\n\r\n"
        );
        pair.client.send(sent.as_bytes());
        let request = pair.peer.request();
        assert_eq!(values(&request, ":authority"), [expected]);
        assert_eq!(values(&request, ":path"), [PATH]);
        assert_eq!(values(&request, "host"), [""; 0]);
        pair.peer.answer(request.stream, b"");
        assert!(pair.client.answer().whole);
        pair.world.record();
    }
}

#[test]
fn m_10_a_request_over_16_kib_is_431_and_an_answer_is_resource_exhausted() {
    let mut pair = Pair::new();
    // The head is this and the field's value.
    let frame = crate::client::request("x-large: \r\n", &message(b"hi")).len() - 7;
    let most = (16 << 10) - frame;
    let request = crossing(&mut pair, &format!("x-large: {}\r\n", "x".repeat(most)));
    assert_eq!(request.field("x-large").map(str::len), Some(most));
    let line = format!("x-large: {}\r\n", "x".repeat(most + 1));
    pair.client.post(&line, &message(b"hi"));
    let answer = pair.client.answer();
    assert!(answer.head.starts_with("HTTP/1.1 431 "), "{}", answer.head);
    assert_eq!(pair.world.record().http_status, Some(431));
    pair.peer.assert_quiet();
    pair.reconnect();

    let told = "grpc-status:8\r\ngrpc-message:metadata is larger than limits.header_bytes\r\n";
    // 32 for each field, its name and its value (RFC 9113 §6.5.2).
    let weight = |fields: &[(&str, &str)]| -> usize {
        let weights = fields
            .iter()
            .map(|(name, value)| 32 + name.len() + value.len());
        weights.sum()
    };
    let head = (16 << 10) - weight(&[HEAD[1], ("x-large", "")]);
    let trailers = (16 << 10) - weight(&[("grpc-status", "0"), ("x-large", "")]);
    for over in [0, 1] {
        let value = "x".repeat(trailers + over);
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"one"), false);
            let block = crate::frames::block(&[("grpc-status", "0"), ("x-large", &value)]);
            peer.frame(1, 1, stream, &block[..100]);
            peer.frame(9, 4, stream, &block[100..]);
        });
        let fits = body(&format!("x-large:{value}\r\n"));
        let refused = [message(b"one"), trailer_frame(told)].concat();
        assert!(answer == streamed(&[if over == 0 { &fits } else { &refused }]));
        let reason = [Reason::Ok, Reason::MetadataTooLarge][over];
        assert_ends(&record, 8 * over as u32, reason, Party::Upstream, false);

        let value = "x".repeat(head + over);
        let (answer, record) = pair.call(|peer, stream| {
            let block = crate::frames::block(&[HEAD[0], HEAD[1], ("x-large", &value)]);
            peer.frame(1, 0, stream, &block[..100]);
            peer.frame(9, 4, stream, &block[100..]);
            if over == 0 {
                peer.trailers(stream, &[("grpc-status", "0")]);
            }
        });
        if over == 0 {
            assert_eq!(fields(&answer, "x-large"), [value]);
        } else {
            assert_eq!(answer, alone(told));
            assert!(matches!(pair.peer.next(), Seen::Reset { code: 8, .. }));
        }
        assert_ends(&record, 8 * over as u32, reason, Party::Upstream, false);
    }
}

#[test]
fn m_11_empty_values_and_duplicates_are_kept_and_crumbs_are_joined_once() {
    let mut pair = Pair::new();
    let crumbs: Vec<String> = (0..90).map(|index| format!("c{index}=v{index}")).collect();
    let lines: String = crumbs
        .iter()
        .map(|crumb| format!("cookie: {crumb}\r\n"))
        .collect();
    let request = crossing(&mut pair, &format!("x-empty:\r\nx-blank: \t \r\n{lines}"));
    assert_eq!(values(&request, "x-empty"), [""]);
    assert_eq!(values(&request, "x-blank"), [""]);
    assert_eq!(values(&request, "cookie"), [crumbs.join("; ")]);

    // As many as a head may have fields: three are of the call itself.
    let many: Vec<String> = (0..97).map(|index| format!("v{index}")).collect();
    let lines: String = many
        .iter()
        .map(|value| format!("x-many: {value}\r\n"))
        .collect();
    assert_eq!(values(&crossing(&mut pair, &lines), "x-many"), many);

    let many: Vec<String> = (0..100).map(|index| index.to_string()).collect();
    let mut sent: Vec<_> = many
        .iter()
        .map(|value| ("x-many", value.as_str()))
        .collect();
    sent.push(("x-empty", ""));
    let answer = answered(&mut pair, &sent, &sent);
    assert_eq!(fields(&answer, "x-many"), many);
    assert_eq!(fields(&answer, "x-empty"), [""]);
    let lines: String = many
        .iter()
        .map(|value| format!("x-many:{value}\r\n"))
        .collect();
    assert_eq!(answer.body, body(&format!("{lines}x-empty:\r\n")));
}

#[test]
fn m_12_a_connections_field_in_an_answer_is_a_broken_answer() {
    let by_us = "grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the protocol: \
                 connection field in trailers\r\n";
    let by_h2 = "grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the protocol: it broke \
                 HTTP/2\r\n";
    let rows = [
        (("connection", "close"), by_h2),
        (("transfer-encoding", "chunked"), by_h2),
        (("upgrade", "h2c"), by_h2),
        (("keep-alive", "timeout=5"), by_h2),
        (("proxy-connection", "x"), by_h2),
        (("te", "gzip"), by_h2),
        (("te", "trailers"), by_us),
        (("trailer", "x"), by_us),
        (("http2-settings", "AAMAAABk"), by_us),
        // Pseudo-fields stand before all others, if at all.
        ((":status", "200"), by_h2),
        ((":path", "/x"), by_h2),
    ];
    let mut pair = Pair::new();
    for (field, told) in rows {
        for (content, inside) in [
            (message(b"one"), false),
            (message(b"one")[..7].to_vec(), true),
        ] {
            // Inside a message it is the missing rest that is met first, if the section is good HTTP/2.
            pair.client.post("", &message(b"hi"));
            let stream = pair.peer.request().stream;
            pair.peer.grpc_head(stream);
            pair.peer.data(stream, &content, false);
            let (_, begun) = pair.client.chunked_start(content.len());
            assert_eq!(begun, content);
            pair.peer.trailers(stream, &[("grpc-status", "0"), field]);
            let rest = pair.client.chunked_rest();
            let expected = match inside {
                true => (Vec::new(), false),
                false => (trailer_frame(told), true),
            };
            assert_eq!(rest, expected, "{field:?}");
            let record = pair.world.record();
            assert_eq!(record.reason.word(), "backend_protocol");
            let ends = (record.code, record.by, record.aborted);
            assert_eq!(
                ends,
                (Some(Code::INTERNAL), Party::Upstream, inside),
                "{field:?}"
            );
            if inside {
                pair.reconnect();
            }
            // The stream is gone, and whatever is said about it was said to it alone.
            let _ = pair.peer.next_within(Duration::from_millis(20));
        }
    }
}

#[test]
fn m_12_a_connections_field_in_a_head_is_a_broken_answer_or_stays_behind() {
    let told = "grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the protocol: it broke \
                HTTP/2\r\n";
    let mut pair = Pair::new();
    for field in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "x"),
        (":status", "200"),
    ] {
        let (answer, record) = pair.call(|peer, stream| {
            peer.head(stream, &[&HEAD[..], &[field]].concat(), false);
        });
        assert_eq!(answer, alone(told), "{field:?}");
        let reason = Reason::BackendProtocol("it broke HTTP/2");
        assert_ends(&record, 13, reason, Party::Upstream, false);
        assert!(matches!(pair.peer.next(), Seen::Reset { code: 1, .. }));
    }
    let sent = [
        ("te", "trailers"),
        ("trailer", "x"),
        ("http2-settings", "AA"),
    ];
    assert_eq!(answered(&mut pair, &sent, &[]), streamed(&[&body("")]));
}

#[test]
fn m_12_a_pseudo_field_before_the_trailers_is_left_out_and_never_told() {
    // `h2` takes it out without a word; what matters is that it becomes no metadata.
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(
            stream,
            &[(":status", "500"), ("grpc-status", "0"), ("x-a", "b")],
        );
    });
    assert_eq!(answer, streamed(&[&body("x-a:b\r\n")]));
    assert_ends(&record, 0, Reason::Ok, Party::Upstream, false);
}

/// A world with two listeners, of which the second trusts proxies on this machine.
fn two_doors(backends: &[&Backend]) -> Snapshot {
    let mut snapshot = Plan::default().snapshot(backends);
    snapshot.listeners.push(Listener {
        name: "inside".into(),
        address: snapshot.listeners[0].address,
        versions: wharf::policy::Versions::Both,
    });
    let loopback: Network = "127.0.0.0/8".parse().expect("a network");
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody else's yet");
    routes[0].filters = Box::new([Box::new(Forwarded::new([vec![], vec![loopback]]))]);
    snapshot
}

/// The fields by which a backend knows who calls, with their values.
const WHO: [&str; 8] = [
    "forwarded",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

fn who(request: &Request) -> Vec<String> {
    let told = WHO.iter().flat_map(|name| {
        let values = values(request, name).into_iter();
        values.map(move |value| format!("{name}: {value}"))
    });
    told.collect()
}

const SPOOFED: &str = "X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n\
    x-forwarded-host: admin.internal\r\nx-forwarded-port: 443\r\nx-forwarded-client-cert: Subject=\"CN=root\"\r\n\
    Forwarded: for=10.0.0.1;proto=https\r\nx-real-ip: 10.0.0.1\r\nx-request-id: kept-1\r\nx-own: kept\r\n";

#[test]
fn m_08_who_a_client_says_it_is_is_said_anew_or_appended_to_where_its_listener_trusts_it() {
    let backend = Backend::new();
    let world = World::obeying(two_doors(&[&backend]));
    let mut peer = None;
    for (address, expected) in [
        (
            world.addresses[0],
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: wharf.test",
                "x-forwarded-proto: http",
                "x-real-ip: 127.0.0.1",
                "x-request-id: kept-1",
            ][..],
        ),
        (
            world.addresses[1],
            &[
                "forwarded: for=10.0.0.1;proto=https, for=127.0.0.1;proto=http",
                "x-forwarded-client-cert: Subject=\"CN=root\"",
                "x-forwarded-for: 198.51.100.7, 127.0.0.1, 127.0.0.1",
                "x-forwarded-host: admin.internal",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 198.51.100.7",
                "x-request-id: kept-1",
            ],
        ),
    ] {
        let mut client = Client::new(address);
        client.post(SPOOFED, &message(b"hi"));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let request = peer.request();
        assert_eq!(who(&request), expected);
        assert_eq!(values(&request, "x-own"), ["kept"]);
        peer.answer(request.stream, b"");
        assert!(client.answer().whole);
    }
}

#[test]
fn m_08_an_id_is_made_for_a_request_whose_own_is_none_and_for_each_of_a_trusted_proxy() {
    let backend = Backend::new();
    let world = World::obeying(two_doors(&[&backend]));
    let mut peer = None;
    let mut seen = HashSet::new();
    let mut clients = [0, 1].map(|door| Client::new(world.addresses[door]));
    for round in 0..8 {
        for (door, client) in clients.iter_mut().enumerate() {
            for lines in [
                "",
                "x-request-id: a b\r\n",
                "x-request-id: a\r\nx-request-id: a\r\n",
            ] {
                client.post(lines, &message(b"hi"));
                let peer = peer.get_or_insert_with(|| backend.accept());
                let request = peer.request();
                let ids = values(&request, "x-request-id");
                if let ([id], true) = (&ids[..], door == 1 || !lines.is_empty()) {
                    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                    assert!(id.len() == 32 && id.bytes().all(hex), "{id}");
                    assert!(seen.insert((*id).to_owned()), "{id} in round {round} again");
                } else {
                    // Nothing is claimed, and nothing is said.
                    assert!(lines.is_empty() && door == 0 && who(&request).is_empty());
                }
                peer.answer(request.stream, b"");
                assert!(client.answer().whole);
            }
        }
    }
    assert_eq!(seen.len(), 40);
}

#[test]
fn m_08_a_call_that_is_sent_again_is_the_same_request() {
    let backend = Backend::new();
    let world = World::obeying(two_doors(&[&backend]));
    let mut client = Client::new(world.addresses[1]);
    client.post("", &message(b"hi"));
    let mut peer = backend.accept();
    let first = peer.request();
    assert!(!who(&first).is_empty());
    // REFUSED_STREAM: it was not looked at.
    peer.frame(3, 0, first.stream, &7u32.to_be_bytes());
    let again = peer.request();
    assert_eq!(who(&again), who(&first));
    peer.answer(again.stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn m_08_a_client_that_another_core_serves_came_in_where_it_came_in() {
    let backend = Backend::new();
    let worlds: [World; 2] = World::sharing_under(|| two_doors(&[&backend]));
    let mut clients: Vec<_> = (0..12)
        .map(|n| {
            let door = n % 2;
            (door, Client::new(worlds[0].addresses[door]))
        })
        .collect();
    // Each core has a connection of its own; whichever the call comes on, it is asked and answered in turn.
    let mut peers = Vec::new();
    for (door, client) in &mut clients {
        client.post("x-forwarded-for: 198.51.100.7\r\n", &message(b"hi"));
        let (peer, request) = next_request(&backend, &mut peers);
        let told = values(&request, "x-forwarded-for");
        let expected = ["127.0.0.1", "198.51.100.7, 127.0.0.1"][*door];
        assert_eq!(told, [expected]);
        peers[peer].answer(request.stream, b"");
        assert!(client.answer().whole);
    }
    assert_eq!(peers.len(), 2, "no client was served by the other core");
}

/// The next request on any of these connections, or on a new one.
fn next_request(backend: &Backend, peers: &mut Vec<Peer>) -> (usize, Request) {
    const STEP: Duration = Duration::from_millis(20);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        peers.extend(backend.accept_soon());
        for (index, peer) in peers.iter_mut().enumerate() {
            // What is left of the request before is of no matter.
            while let Some(seen) = peer.next_within(STEP) {
                if let Seen::Head { stream, fields, .. } = seen {
                    let body = Vec::new();
                    return (
                        index,
                        Request {
                            stream,
                            fields,
                            body,
                        },
                    );
                }
            }
        }
    }
    panic!("no request");
}

#[test]
fn m_13_what_the_backend_permits_to_pages_stays_behind() {
    let mut pair = Pair::new();
    let sent = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-secret"),
        ("access-control-allow-private-network", "true"),
        ("x-own", "yes"),
    ];
    let answer = answered(&mut pair, &sent, &[]);
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
    assert_eq!(fields(&answer, "x-own"), ["yes"]);
    // Nor where head and trailers are one.
    let (answer, _) = pair.call(|peer, stream| {
        let fields = [&HEAD[..], &sent, &[("grpc-status", "0")]].concat();
        peer.trailers(stream, &fields);
    });
    assert_eq!(answer, alone("grpc-status:0\r\nx-own:yes\r\n"));
}

#[test]
fn m_14_cookies_of_an_answer_stay_apart() {
    let mut pair = Pair::new();
    let sent = [
        ("set-cookie", "a=1; expires=Wed, 09 Jun 2027 10:18:14 GMT"),
        ("set-cookie", "b=2; path=/"),
        ("set-cookie", "a=1; expires=Wed, 09 Jun 2027 10:18:14 GMT"),
    ];
    let expected = sent.map(|(_, value)| value);
    let answer = answered(&mut pair, &sent, &[]);
    assert_eq!(fields(&answer, "set-cookie"), expected);
    // Where head and trailers are one they still are the head's: a page never sees them, its browser does.
    let (answer, _) = pair.call(|peer, stream| {
        let fields = [&HEAD[..], &sent, &[("grpc-status", "5")]].concat();
        peer.trailers(stream, &fields);
    });
    assert_eq!(fields(&answer, "set-cookie"), expected);
    assert_eq!(answer.body, trailer_frame("grpc-status:5\r\n"));
}

#[test]
fn m_15_who_called_crosses_unchanged() {
    let mut pair = Pair::new();
    let sent = [
        ("x-grpc-web", "1"),
        ("x-user-agent", "grpc-web-javascript/0.1"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) \"quoted\" \\ ~",
        ),
        ("origin", "https://page.example"),
        ("referer", "https://page.example/x?y=z"),
        ("authorization", "Bearer a.b.c"),
    ];
    let lines: String = sent
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = crossing(&mut pair, &lines);
    for (name, value) in sent {
        assert_eq!(values(&request, name), [value]);
    }
    // What nobody sent is not invented.
    let request = crossing(&mut pair, "");
    for (name, _) in sent {
        assert_eq!(values(&request, name), [""; 0], "{name}");
    }
}

#[test]
fn m_16_a_call_that_has_come_through_eight_times_goes_no_further() {
    let mut pair = Pair::new();
    let rows = [
        (String::new(), vec!["1.1 wharf"]),
        (
            "via: 1.0 other, 2 Wharf (x)\r\n".to_owned(),
            vec!["1.0 other, 2 Wharf (x)", "1.1 wharf"],
        ),
        // Others' names, and eight of them, are none of our own.
        (
            format!("via: {}\r\n", ["1.1 wharfage"; 9].join(", ")),
            vec![],
        ),
        ("via: 1.1 wharf\r\n".repeat(7), vec![]),
    ];
    for (lines, expected) in rows {
        let request = crossing(&mut pair, &lines);
        let via = values(&request, "via");
        assert_eq!(via.last(), Some(&"1.1 wharf"));
        assert!(expected.is_empty() || via == expected, "{via:?}");
    }
    let told = "grpc-status:13\r\n\
                grpc-message:the call has been through this proxy too often\r\n";
    for lines in [
        "via: 1.1 wharf\r\n".repeat(8),
        format!("via: {}\r\n", ["2 WHARF"; 8].join(",")),
        format!(
            "via: {}\r\nvia: 1.0 a, 1.1 wharf\r\n",
            ["1.1\twharf (b)"; 7].join(" , ")
        ),
    ] {
        pair.client.post(&lines, &message(b"hi"));
        assert_eq!(pair.client.answer(), alone(told), "{lines}");
        let record = pair.world.record();
        assert_ends(&record, 13, Reason::Loop, Party::Proxy, false);
        pair.peer.assert_quiet();
    }
}

#[test]
fn m_17_a_value_that_is_legal_in_http_but_not_in_a_frame_stays_in_the_head_and_out_of_the_frame() {
    let literal = |name: &[u8], value: &[u8]| {
        [
            &[0, name.len() as u8][..],
            name,
            &[value.len() as u8],
            value,
        ]
        .concat()
    };
    let odd: [&[u8]; 3] = [b"a\xffb", b"gr\xc3\xbcn", b"a\tb"];
    let mut pair = Pair::new();
    for value in odd {
        pair.client.post("", &message(b"hi"));
        let stream = pair.peer.request().stream;
        let block = [
            // `:status: 200`, of the static table.
            vec![0x88],
            literal(b"content-type", b"application/grpc"),
            literal(b"x-odd", value),
        ];
        pair.peer.frame(1, 4, stream, &block.concat());
        pair.peer.data(stream, &message(b"one"), false);
        let block = [
            literal(b"grpc-status", b"0"),
            literal(b"x-odd", value),
            literal(b"x-even", b"yes"),
        ];
        pair.peer.frame(1, 5, stream, &block.concat());
        let head = pair.client.raw_head();
        let line = [b"\r\nx-odd: ", value, b"\r\n"].concat();
        assert!(
            head.windows(line.len()).any(|own| own == line),
            "{}",
            head.escape_ascii()
        );
        let (got, whole) = pair.client.chunked_rest();
        assert!(whole);
        assert_eq!(got, body("x-even:yes\r\n"), "{}", value.escape_ascii());
        assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
    }
}

/// Names, what a strict server cannot read under them, and what it can.
const STRICT: [(&str, &[&str], &[&str]); 5] = [
    (
        "tok-bin",
        &[
            "!!!", "A", "QR", "QQ=", "QQ===", "AA==AA==", "Q-_Q", "QQ Qg", "=",
        ],
        &["AAAA", "QQ", "QQ==", "QUI=", ""],
    ),
    ("grpc-tags-bin", &["not base64"], &["AAEC"]),
    // A server reads a number of eight bytes in it, and it has no business in a request.
    ("lb-cost-bin", &["AAAA", "AAAAAAAAAAA"], &[]),
    (
        "grpc-encoding",
        &["zstd", "GZIP", "gzip, identity", ""],
        &["gzip", "identity", "deflate"],
    ),
    (
        "grpc-previous-rpc-attempts",
        &["abc", "-1", "+1", "4294967296", "1, 2", ""],
        &["0", "1", "999999999"],
    ),
];

#[test]
fn m_18_what_a_server_may_be_unable_to_read_is_kept_by_nobodys_table() {
    let mut pair = Pair::new();
    // The second time a name stands in the table already: a bad value may take its name from there.
    for _ in 0..2 {
        for (name, bad, good) in STRICT {
            for value in bad.iter().chain(good).chain(bad) {
                let request = crossing(&mut pair, &format!("{name}: {value}\r\n"));
                assert_eq!(values(&request, name), [*value]);
                let way = pair.peer.ways(name);
                assert_eq!(way == [Way::Never], bad.contains(value), "{name}: {value}");
            }
        }
    }
}

#[test]
fn m_18_what_can_be_read_keeps_its_place_in_the_table() {
    for (name, _, good) in STRICT {
        for value in good {
            let mut pair = Pair::new();
            for expected in [Way::Added, Way::Other] {
                crossing(&mut pair, &format!("{name}: {value}\r\n"));
                assert_eq!(pair.peer.ways(name), [expected], "{name}: {value}");
            }
        }
    }
    let mut pair = Pair::new();
    for lines in ["x-any: !!!\r\n", "grpc-accept-encoding: zstd\r\n"] {
        crossing(&mut pair, lines);
        let (name, _) = lines.split_once(':').unwrap();
        assert_eq!(pair.peer.ways(name), [Way::Added], "{name}");
    }
}

#[test]
fn m_18_each_value_of_a_name_is_judged_by_itself() {
    let mut pair = Pair::new();
    crossing(&mut pair, "a-bin: AAAA, !,QQ\r\nb-bin: !\r\nb-bin: QQ\r\n");
    let (a, b) = (pair.peer.ways("a-bin"), pair.peer.ways("b-bin"));
    assert_eq!(a, [Way::Added, Way::Never, Way::Other]);
    assert_eq!(b, [Way::Never, Way::Other]);
    // Too many to be split: then it is no base64 either.
    let joined = vec!["AA"; 200].join(",");
    let request = crossing(&mut pair, &format!("c-bin: {joined}\r\n"));
    assert_eq!(values(&request, "c-bin"), [joined]);
    assert_eq!(pair.peer.ways("c-bin"), [Way::Never]);
}

#[test]
fn m_18_holds_for_native_callers_and_for_a_call_that_is_made_again() {
    let mut pair = Pair::new();
    let mut caller = Caller::new(pair.world.address);
    for content_type in ["application/grpc", "application/grpc-web"] {
        let mut fields = call_with(&[("te", "trailers")]);
        fields[4].1 = content_type;
        for (name, bad, _) in STRICT {
            fields.push((name, bad[0]));
        }
        fields.push(("good-bin", "AAAA"));
        let stream = caller.open(&fields, false);
        caller.data(stream, &message(b"hi"), true);
        for refused in [true, false] {
            let request = pair.peer.request();
            for (name, bad, _) in STRICT {
                assert_eq!(values(&request, name), [bad[0]]);
                assert_eq!(pair.peer.ways(name), [Way::Never], "{name}");
            }
            assert_ne!(pair.peer.ways("good-bin"), [Way::Never]);
            if refused {
                pair.peer.reset(request.stream, REFUSED_STREAM);
            } else {
                pair.peer.answer(request.stream, &message(b"one"));
            }
        }
        assert_eq!(pair.world.record().attempts, 2);
    }
}

#[test]
fn m_19_a_request_that_its_backend_does_not_take_ends_alone_and_is_not_sent() {
    const TAKES: usize = 8 << 10;
    let told = "grpc-status:8\r\ngrpc-message:the request's metadata is larger than what backend \"greeter\" \
                takes (8192 bytes)\r\n";
    let backend = Backend::new();
    let world = World::with(Plan::default(), &[&backend]);
    let mut other = Client::calling(world.address, &message(b"hello"));
    let mut peer = backend.accept_with(&[
        (INITIAL_WINDOW_SIZE, WINDOW_MAX),
        (MAX_HEADER_LIST_SIZE, TAKES as u32),
    ]);
    // Somebody else's call on that connection, which is open through all of it.
    let open = peer.request().stream;
    let mut client = Client::new(world.address);
    // What the list of fields and their block come to. `None`: it was not sent.
    let mut call = |peer: &mut Peer, letter: &str, count: usize, fits: bool| {
        client.post(
            &format!("x-large: {}\r\n", letter.repeat(count)),
            &message(b"hi"),
        );
        if !fits {
            assert_eq!(client.answer(), alone(told));
            let reason = Reason::MetadataTooLargeThere(TAKES as u32);
            assert_ends(&world.record(), 8, reason, Party::Proxy, false);
            peer.assert_quiet();
            return (0, 0);
        }
        let Request { stream, fields, .. } = peer.request();
        let block = peer.block_bytes();
        peer.answer(stream, b"");
        assert!(client.answer().whole);
        assert_eq!(world.record().reason, Reason::Ok);
        let sizes = fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32);
        (sizes.sum(), block)
    };
    let (bare, _) = call(&mut peer, "", 0, true);
    let most = TAKES - bare;
    assert_eq!(call(&mut peer, "a", most, true).0, TAKES);
    call(&mut peer, "a", most + 1, false);
    // These take 13 bits each: what goes out is larger than the list, and some servers look at that.
    let (list, block) = call(&mut peer, "~", 4_800, true);
    assert!(
        list < block && block > TAKES - 500 && block <= TAKES,
        "{block}"
    );
    call(&mut peer, "~", 5_200, false);
    // It may say so later, too.
    peer.settings(&[(MAX_HEADER_LIST_SIZE, u32::MAX)]);
    peer.assert_quiet();
    let (_, block) = call(&mut peer, "~", 5_200, true);
    assert!(block > TAKES);
    peer.answer(open, b"");
    assert!(other.answer().whole);
    assert_eq!(world.record().reason, Reason::Ok);
}
