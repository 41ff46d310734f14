//! Every way in which a backend can end a call, and what the caller is told.

use wharf::telemetry::Record;
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Request};
use crate::client::{Answer, Client, PATH, alone, cut, message, streamed, trailer_frame};
use crate::world::{Plan, World};

/// The 17 codes of gRPC, by number.
const CODES: u32 = 17;

/// RFC 9113 §7 and what gRPC makes of each (grpc/grpc `doc/PROTOCOL-HTTP2.md`, "Errors"). Written down a second time on
/// purpose: this is what the product's table is held to.
pub(crate) const RESETS: [(u32, &str, u32); 14] = [
    (0, "NO_ERROR", 13),
    (1, "PROTOCOL_ERROR", 13),
    (2, "INTERNAL_ERROR", 13),
    (3, "FLOW_CONTROL_ERROR", 13),
    (4, "SETTINGS_TIMEOUT", 13),
    (5, "STREAM_CLOSED", 13),
    (6, "FRAME_SIZE_ERROR", 13),
    (7, "REFUSED_STREAM", 14),
    (8, "CANCEL", 1),
    (9, "COMPRESSION_ERROR", 13),
    (10, "CONNECT_ERROR", 13),
    (11, "ENHANCE_YOUR_CALM", 8),
    (12, "INADEQUATE_SECURITY", 7),
    (13, "HTTP_1_1_REQUIRED", 13),
];

/// One client and one backend that have met. Every call goes over the same two connections.
pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) client: Client,
    pub(crate) peer: Peer,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Self {
        let backend = Backend::new();
        let world = World::with(plan, &[&backend]);
        let mut client = Client::calling(world.address, &message(b"hello"));
        let mut peer = backend.accept();
        let first = peer.request();
        peer.answer(first.stream, b"");
        assert!(client.answer().whole);
        assert_eq!(world.record().reason, Reason::Ok);
        Self {
            world,
            client,
            peer,
        }
    }

    /// Makes a call, lets the backend answer it, and tells what became of it.
    pub(crate) fn call(&mut self, answer: impl FnOnce(&mut Peer, u32)) -> (Answer, Record) {
        self.client.post("", &message(b"hi"));
        let Request { stream, body, .. } = self.peer.request();
        assert_eq!(body, message(b"hi"));
        answer(&mut self.peer, stream);
        let answer = self.client.answer();
        (answer, self.world.record())
    }

    /// A connection that was cut in the middle of an answer is gone for the next call.
    pub(crate) fn reconnect(&mut self) {
        self.client.assert_closed();
        self.client = Client::new(self.world.address);
    }
}

pub(crate) fn assert_ends(record: &Record, code: u32, reason: Reason, by: Party, aborted: bool) {
    let ends = (record.code, record.reason, record.by, record.aborted);
    assert_eq!(ends, (Some(Code::new(code)), reason, by, aborted));
}

fn own_end(code: u32) -> Reason {
    if code == 0 {
        Reason::Ok
    } else {
        Reason::BackendStatus
    }
}

#[test]
fn each_code_in_trailers_arrives_in_one_frame_behind_the_messages() {
    let mut pair = Pair::new();
    for code in 0..CODES {
        let number = code.to_string();
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"one"), false);
            let fields = [
                ("grpc-status", number.as_str()),
                ("grpc-message", "50% off"),
                ("x-many", "a"),
                ("x-many", "b"),
                ("grpc-status-details-bin", "CAU"),
            ];
            peer.trailers(stream, &fields);
        });
        let lines = format!(
            "grpc-status:{number}\r\ngrpc-message:50%25 off\r\nx-many:a\r\nx-many:b\r\n\
             grpc-status-details-bin:CAU\r\n"
        );
        let expected = streamed(&[&message(b"one"), &trailer_frame(&lines)]);
        assert_eq!(answer, expected);
        assert_ends(&record, code, own_end(code), Party::Upstream, false);
        assert_eq!(record.message, "50% off");
        assert_eq!((record.response.messages, record.response.bytes), (1, 8));
    }
    pair.peer.assert_quiet();
}

#[test]
fn each_code_in_a_trailers_only_answer_arrives_in_one_frame_and_not_in_the_head() {
    let mut pair = Pair::new();
    for code in 0..CODES {
        let number = code.to_string();
        let (answer, record) = pair.call(|peer, stream| {
            let fields = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", number.as_str()),
                ("x-own", "yes"),
            ];
            peer.trailers(stream, &fields);
        });
        let lines = format!("grpc-status:{number}\r\nx-own:yes\r\n");
        assert_eq!(answer, alone(&lines));
        assert_ends(&record, code, own_end(code), Party::Upstream, false);
    }
    pair.peer.assert_quiet();
}

#[test]
fn a_code_that_nobody_knows_passes_and_one_that_is_no_number_is_unknown() {
    let mut pair = Pair::new();
    for (sent, told) in [("99", 99), ("007", 2), ("x", 2), ("-1", 2)] {
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.trailers(stream, &[("grpc-status", sent)]);
        });
        let lines = format!("grpc-status:{told}\r\n");
        assert_eq!(answer, streamed(&[&trailer_frame(&lines)]));
        assert_ends(&record, told, Reason::BackendStatus, Party::Upstream, false);
    }
}

#[test]
fn u_p5_each_reset_before_the_head_ends_the_call_with_its_status() {
    for (h2, name, code) in RESETS {
        if name == "REFUSED_STREAM" {
            // Repeated, and a row of its own in `repeats`.
            continue;
        }
        let mut pair = Pair::new();
        let (answer, record) = pair.call(|peer, stream| peer.reset(stream, h2));
        let lines = format!(
            "grpc-status:{code}\r\ngrpc-message:backend \"greeter\" reset the stream ({name})\r\n"
        );
        assert_eq!(answer, alone(&lines), "{name}");
        assert_ends(
            &record,
            code,
            Reason::BackendReset(h2),
            Party::Upstream,
            false,
        );
        assert_eq!(record.attempts, 1);
        pair.peer.assert_quiet();
    }
}

#[test]
fn u_p9_each_reset_between_messages_ends_the_answer_with_its_status() {
    let mut pair = Pair::new();
    for (h2, name, code) in RESETS {
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"one"), false);
            // The beginning of a prefix is nobody's message yet.
            peer.data(stream, &[0, 0], false);
            peer.reset(stream, h2);
        });
        let lines = format!(
            "grpc-status:{code}\r\ngrpc-message:backend \"greeter\" reset the stream ({name})\r\n"
        );
        let expected = streamed(&[&message(b"one"), &trailer_frame(&lines)]);
        assert_eq!(answer, expected, "{name}");
        assert_ends(
            &record,
            code,
            Reason::BackendReset(h2),
            Party::Upstream,
            false,
        );
    }
    pair.peer.assert_quiet();
}

#[test]
fn u_p7_each_reset_behind_the_head_ends_the_answer_with_its_status() {
    let mut pair = Pair::new();
    for (h2, name, code) in RESETS {
        let (answer, _) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.reset(stream, h2);
        });
        let lines = format!(
            "grpc-status:{code}\r\ngrpc-message:backend \"greeter\" reset the stream ({name})\r\n"
        );
        // Whether the head was seen before the reset decides whether it is sent; the end is the same.
        assert_eq!(answer.body, trailer_frame(&lines), "{name}");
        assert!(answer.whole);
    }
}

#[test]
fn u_p8_each_reset_inside_a_message_cuts_the_answer() {
    let mut pair = Pair::new();
    for (h2, name, code) in RESETS {
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"whole"), false);
            peer.data(stream, &message(b"not whole")[..9], false);
            peer.reset(stream, h2);
        });
        let expected = cut(&[&message(b"whole"), &message(b"not whole")[..9]]);
        assert_eq!(answer, expected, "{name}");
        assert_ends(
            &record,
            code,
            Reason::BackendReset(h2),
            Party::Upstream,
            true,
        );
        pair.reconnect();
    }
    pair.peer.assert_quiet();
}

#[test]
fn u_p7_to_u_p9_a_lost_connection_ends_the_answer_where_it_can() {
    let told = "grpc-status:14\r\ngrpc-message:backend \"greeter\" closed the connection\r\n";
    let whole = message(b"one");
    let half = &message(b"other")[..7];
    let rows: [(&[&[u8]], bool); 3] = [(&[], false), (&[&whole], false), (&[&whole, half], true)];
    for (pieces, aborted) in rows {
        for by_reset in [false, true] {
            let backend = Backend::new();
            let world = World::new(&[&backend]);
            let mut client = Client::calling(world.address, &message(b"hi"));
            let mut peer = backend.accept();
            let stream = peer.request().stream;
            peer.grpc_head(stream);
            for piece in pieces {
                peer.data(stream, piece, false);
            }
            let body = pieces.concat();
            let (head, begun) = client.chunked_start(body.len());
            assert_eq!((head.as_str(), &begun), (crate::client::STREAMED, &body));
            if by_reset {
                peer.abort();
            } else {
                peer.finish();
            }
            let expected = if aborted {
                (Vec::new(), false)
            } else {
                (trailer_frame(told), true)
            };
            assert_eq!(client.chunked_rest(), expected);
            let record = world.record();
            assert_ends(&record, 14, Reason::BackendClosed, Party::Upstream, aborted);
            assert_eq!(record.attempts, 1);
        }
    }
}

#[test]
fn u_p5_a_connection_lost_before_the_head_is_unavailable_and_nothing_is_repeated() {
    let told = "grpc-status:14\r\ngrpc-message:backend \"greeter\" closed the connection\r\n";
    for by_reset in [false, true] {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept();
        peer.request();
        if by_reset {
            peer.abort();
        } else {
            peer.finish();
        }
        assert_eq!(client.answer(), alone(told));
        let record = world.record();
        assert_ends(&record, 14, Reason::BackendClosed, Party::Upstream, false);
        assert_eq!(record.attempts, 1);
        // The next call finds a new connection.
        client.post("", &message(b"again"));
        let mut peer = backend.accept();
        let again = peer.request();
        assert_eq!(again.body, message(b"again"));
        peer.answer(again.stream, &message(b"one"));
        assert!(client.answer().whole);
    }
}

#[test]
fn u_09_an_end_without_trailers_behind_messages_is_internal() {
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), true);
    });
    let told = "grpc-status:13\r\n\
                grpc-message:backend \"greeter\" ended its answer without a status\r\n";
    let expected = streamed(&[&message(b"one"), &trailer_frame(told)]);
    assert_eq!(answer, expected);
    assert_ends(
        &record,
        13,
        Reason::BackendNoTrailers,
        Party::Upstream,
        false,
    );
}

#[test]
fn u_09_an_end_inside_a_message_cuts_the_answer_with_trailers_or_without() {
    let mut pair = Pair::new();
    for trailers in [false, true] {
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"long")[..8], !trailers);
            if trailers {
                peer.trailers(stream, &[("grpc-status", "0")]);
            }
        });
        assert_eq!(answer, cut(&[&message(b"long")[..8]]));
        let how = "the answer ends inside a message";
        let reason = Reason::BackendProtocol(how);
        assert_ends(&record, 13, reason, Party::Upstream, true);
        pair.reconnect();
    }
}

#[test]
fn u_10_a_head_and_nothing_else_is_unknown() {
    let told = "grpc-status:2\r\n\
                grpc-message:the backend ended its answer without grpc-status\r\n";
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        peer.head(stream, &fields, true);
    });
    assert_eq!(answer, alone(told));
    assert_ends(
        &record,
        2,
        Reason::BackendNoTrailers,
        Party::Upstream,
        false,
    );
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, b"", true);
    });
    assert_eq!(answer.body, trailer_frame(told));
    assert_ends(
        &record,
        2,
        Reason::BackendNoTrailers,
        Party::Upstream,
        false,
    );
}

#[test]
fn trailers_without_a_status_are_unknown_and_keep_their_fields() {
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[("x-own", "yes")]);
    });
    let told = "grpc-status:2\r\n\
                grpc-message:the backend ended its answer without grpc-status\r\nx-own:yes\r\n";
    let expected = streamed(&[&message(b"one"), &trailer_frame(told)]);
    assert_eq!(answer, expected);
    let how = "trailers without grpc-status";
    assert_ends(
        &record,
        2,
        Reason::BackendProtocol(how),
        Party::Upstream,
        false,
    );
}

#[test]
fn u_11_each_http_status_without_a_grpc_status_is_mapped_and_its_content_is_the_message() {
    let rows = [
        ("400", 13),
        ("401", 16),
        ("403", 7),
        ("404", 12),
        ("409", 2),
        ("412", 2),
        ("413", 2),
        ("415", 2),
        ("429", 14),
        ("431", 13),
        ("500", 2),
        ("502", 14),
        ("503", 14),
        ("504", 14),
    ];
    let mut pair = Pair::new();
    for (status, code) in rows {
        let (answer, record) = pair.call(|peer, stream| {
            let fields = [(":status", status), ("content-type", "text/plain")];
            peer.head(stream, &fields, false);
            peer.data(stream, "nicht grün".as_bytes(), true);
        });
        let lines = format!("grpc-status:{code}\r\ngrpc-message:nicht gr%C3%BCn\r\n");
        assert_eq!(answer, alone(&lines), "{status}");
        let http = status.parse().expect("a number");
        let reason = Reason::BackendNotGrpc(http);
        assert_ends(&record, code, reason, Party::Upstream, false);

        let (answer, _) = pair.call(|peer, stream| {
            peer.head(stream, &[(":status", status)], true);
        });
        let lines = format!(
            "grpc-status:{code}\r\ngrpc-message:the backend did not answer with gRPC: \
             HTTP status {status}, content-type none\r\n"
        );
        assert_eq!(answer, alone(&lines), "{status} without content");
    }
    pair.peer.assert_quiet();
}

#[test]
fn u_12_a_grpc_status_is_believed_under_any_http_status() {
    let mut pair = Pair::new();
    for code in [0, 5, 9] {
        let number = code.to_string();
        let (answer, record) = pair.call(|peer, stream| {
            let fields = [
                (":status", "500"),
                ("content-type", "application/grpc"),
                ("grpc-status", number.as_str()),
                ("grpc-message", "as given"),
            ];
            peer.head(stream, &fields, true);
        });
        let lines = format!("grpc-status:{code}\r\ngrpc-message:as given\r\n");
        assert_eq!(answer, alone(&lines));
        assert_ends(&record, code, own_end(code), Party::Upstream, false);
    }
}

#[test]
fn u_12_a_page_is_unknown_and_its_end_is_not_awaited_for_ever() {
    let mut pair = Pair::new();
    let fields = [(":status", "200"), ("content-type", "text/html")];
    let (answer, record) = pair.call(|peer, stream| {
        peer.head(stream, &fields, false);
        peer.data(stream, b"<h1>Welcome</h1>", true);
    });
    let told = "grpc-status:2\r\ngrpc-message:<h1>Welcome</h1>\r\n";
    assert_eq!(answer, alone(told));
    let reason = Reason::BackendNotGrpc(200);
    assert_ends(&record, 2, reason, Party::Upstream, false);

    // It never ends: at 64 KiB it is left, and the backend is told so.
    pair.client.post("", &message(b"hi"));
    let stream = pair.peer.request().stream;
    pair.peer.head(stream, &fields, false);
    pair.peer.data(stream, &[b'x'; 70 << 10], false);
    let answer = pair.client.answer();
    let lines = format!("grpc-status:2\r\ngrpc-message:{}\r\n", "x".repeat(4096));
    assert_eq!(answer, alone(&lines));
    pair.peer.assert_reset(stream, 8);
}

#[test]
fn u_13_trailers_win_over_the_head() {
    let mut pair = Pair::new();
    let (answer, _) = pair.call(|peer, stream| {
        let fields = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "from the head"),
        ];
        peer.head(stream, &fields, false);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[("grpc-status", "0")]);
    });
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(answer, streamed(&[&message(b"one"), &end]));
}

#[test]
fn u_14_interim_heads_are_skipped() {
    let mut pair = Pair::new();
    let (answer, _) = pair.call(|peer, stream| {
        peer.head(stream, &[(":status", "103"), ("link", "x")], false);
        peer.answer(stream, &message(b"one"));
    });
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(answer, streamed(&[&message(b"one"), &end]));
}

#[test]
fn u_15_a_second_head_is_a_broken_answer() {
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        peer.grpc_head(stream);
    });
    let told = "grpc-status:13\r\n\
                grpc-message:backend \"greeter\" broke the protocol: it broke HTTP/2\r\n";
    let expected = streamed(&[&message(b"one"), &trailer_frame(told)]);
    assert_eq!(answer, expected);
    assert_eq!(record.code, Some(Code::INTERNAL));
    assert_eq!(record.by, Party::Upstream);
}

#[test]
fn u_16_metadata_over_the_limit_is_resource_exhausted_in_the_head_and_in_trailers() {
    let told = "grpc-status:8\r\ngrpc-message:metadata is larger than limits.header_bytes\r\n";
    let large = "x".repeat(20 << 10);
    let fields = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("x-large", large.as_str()),
    ];
    let mut pair = Pair::new();
    for end in [false, true] {
        let (answer, record) = pair.call(|peer, stream| {
            let block = crate::frames::block(&fields);
            peer.frame(1, u8::from(end), stream, &block[..16 << 10]);
            peer.frame(9, 4, stream, &block[16 << 10..]);
        });
        assert_eq!(answer, alone(told));
        let reason = Reason::MetadataTooLarge;
        assert_ends(&record, 8, reason, Party::Upstream, false);
        if !end {
            let stream = match pair.peer.next() {
                crate::backend::Seen::Reset { stream, code: 8 } => stream,
                other => panic!("instead of a reset: {other:?}"),
            };
            assert!(stream > 1);
        }
    }
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        let block = crate::frames::block(&[("grpc-status", "0"), ("x-large", &large)]);
        peer.frame(1, 1, stream, &block[..16 << 10]);
        peer.frame(9, 4, stream, &block[16 << 10..]);
    });
    let expected = streamed(&[&message(b"one"), &trailer_frame(told)]);
    assert_eq!(answer, expected);
    let reason = Reason::MetadataTooLarge;
    assert_ends(&record, 8, reason, Party::Upstream, false);
}

#[test]
fn u_16_metadata_up_to_the_limit_that_was_set_passes_however_many_fields_it_has() {
    let mut plan = Plan::default();
    plan.limits.head_bytes_max = 60 << 10;
    let mut pair = Pair::with(plan);
    // Far more than the default would let pass, by HTTP/2's count: 32 bytes and the text of each (RFC 9113 §6.5.2).
    let names: Vec<String> = (0..440).map(|index| format!("k{index:03}")).collect();
    let mut fields = vec![("grpc-status", "0")];
    fields.extend(names.iter().map(|name| (name.as_str(), "abcd")));
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.trailers(stream, &fields);
    });
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}:{value}\r\n"))
        .collect();
    assert!(
        answer == streamed(&[&trailer_frame(&lines)]),
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(record.reason, Reason::Ok);
}

#[test]
fn w_38_a_message_over_the_limit_is_resource_exhausted_whoever_sends_it() {
    let mut pair = Pair::new();
    let (answer, record) = pair.call(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        peer.data(stream, &[0, 0, 0x40, 0, 1], false);
    });
    let told = "grpc-status:8\r\ngrpc-message:a message of the answer is larger than \
                limits.message_bytes (4194304 bytes)\r\n";
    let expected = streamed(&[&message(b"one"), &trailer_frame(told)]);
    assert_eq!(answer, expected);
    let reason = Reason::MessageTooLarge(4 << 20);
    assert_ends(&record, 8, reason, Party::Upstream, false);
    assert!(matches!(
        pair.peer.next(),
        crate::backend::Seen::Reset { code: 8, .. }
    ));

    let told = "grpc-status:8\r\ngrpc-message:a message of the request is larger than \
                limits.message_bytes (4194304 bytes)\r\n";
    pair.client.post("", &[0, 0, 0x40, 0, 1]);
    let answer = pair.client.answer();
    assert_eq!(answer, crate::client::last(told));
    let record = pair.world.record();
    assert_ends(&record, 8, reason, Party::Downstream, false);
    pair.reconnect();
}

#[test]
fn h1_46_and_h1_47_a_request_that_breaks_off_never_ends_at_the_backend() {
    let rows: [(&str, &[u8], &str); 4] = [
        (
            "content-length: 20\r\n",
            &message(b"hello"),
            "request ends before its body does",
        ),
        (
            "transfer-encoding: chunked\r\n",
            b"a\r\n\0\0\0\0\x05hello\r\n",
            "request ends before its body does",
        ),
        (
            "content-length: 8\r\n",
            &message(b"hello")[..8],
            "the request ends inside a message",
        ),
        (
            "content-length: 10\r\n",
            b"\x02\0\0\0\x05hello",
            "a message has flags that gRPC does not know",
        ),
    ];
    for (framing, body, how) in rows {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::new(world.address);
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n{framing}\r\n"
        );
        client.send(head.as_bytes());
        let mut peer = backend.accept();
        let crate::backend::Seen::Head { stream, .. } = peer.next() else {
            panic!("no head");
        };
        client.send(body);
        client.finish();
        let told = format!("grpc-status:13\r\ngrpc-message:the request is broken: {how}\r\n");
        assert_eq!(client.answer(), crate::client::last(&told));
        client.assert_closed();
        let record = world.record();
        let reason = Reason::ClientProtocol(how);
        assert_ends(&record, 13, reason, Party::Downstream, false);
        loop {
            match peer.next() {
                crate::backend::Seen::Data { end, .. } => assert!(!end, "half a request ended"),
                other => {
                    assert_eq!(other, crate::backend::Seen::Reset { stream, code: 8 });
                    break;
                }
            }
        }
    }
}

#[test]
fn the_backend_sees_exactly_this_request() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post(
        "x-grpc-web: 1\r\nte: gzip\r\nkeep-alive: 5\r\nproxy-connection: x\r\n\
         connection: keep-alive, x-hop\r\nx-hop: 1\r\nx-own: a\r\nx-own: b\r\nx-own-bin: AQ, Ag\r\n\
         grpc-secret: 1\r\nuser-agent: test\r\n",
        &message(b"hi"),
    );
    let mut peer = backend.accept();
    let request = peer.request();
    let mut fields: Vec<(&str, &str)> = request
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    // Pseudo-fields first; the order of the others means nothing but among equals.
    let pseudo: Vec<_> = fields
        .iter()
        .map(|(name, _)| name.starts_with(':'))
        .collect();
    assert!(pseudo.is_sorted_by(|a, b| a >= b));
    fields.sort_by_key(|(name, _)| *name);
    assert_eq!(
        fields,
        [
            (":authority", "wharf.test"),
            (":method", "POST"),
            (":path", PATH),
            (":scheme", "http"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
            ("te", "trailers"),
            ("user-agent", "test"),
            ("via", "1.1 wharf"),
            ("x-grpc-web", "1"),
            ("x-own", "a"),
            ("x-own", "b"),
            ("x-own-bin", "AQ"),
            ("x-own-bin", "Ag"),
        ]
    );
    assert_eq!(request.body, message(b"hi"));
    peer.answer(request.stream, &message(b"one"));
    assert!(client.answer().whole);
}

#[test]
fn u_p10_each_reset_behind_a_whole_answer_takes_nothing_away() {
    let mut pair = Pair::new();
    for (h2, name, _) in RESETS {
        let (answer, record) = pair.call(|peer, stream| {
            peer.answer(stream, &message(b"one"));
            peer.reset(stream, h2);
        });
        let end = trailer_frame("grpc-status:0\r\n");
        assert_eq!(answer, streamed(&[&message(b"one"), &end]), "{name}");
        assert_eq!(record.reason, Reason::Ok);
    }
}

#[test]
fn u_07_a_whole_answer_and_a_reset_before_the_end_of_the_request_are_the_answer() {
    early_answer(true);
}

#[test]
fn u_08_a_whole_answer_before_the_end_of_the_request_stops_the_upload() {
    early_answer(false);
}

fn early_answer(then_reset: bool) {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         content-length: 100\r\n\r\n"
    );
    client.send(head.as_bytes());
    let mut peer = backend.accept();
    let crate::backend::Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    peer.answer(stream, &message(b"early"));
    if then_reset {
        peer.reset(stream, 0);
    }
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(client.answer(), streamed(&[&message(b"early"), &end]));
    assert_eq!(world.record().reason, Reason::Ok);
    if !then_reset {
        peer.assert_reset(stream, 0);
    }
    // The rest is read and thrown away; the next request stands behind it.
    client.send(&[0x55; 100]);
    client.post("", &message(b"next"));
    let next = match then_reset {
        true => peer.request_after(stream),
        false => peer.request(),
    };
    assert_eq!(next.body, message(b"next"));
    peer.answer(next.stream, &message(b"two"));
    assert_eq!(client.answer(), streamed(&[&message(b"two"), &end]));
}

#[test]
fn an_answer_far_larger_than_every_buffer_arrives_whole_with_its_trailers() {
    let mut pair = Pair::new();
    let payload: Vec<u8> = (0..120_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let (answer, record) = pair.call(|peer, stream| {
        // Everything at once: the trailers are there long before there is room for the message.
        peer.answer(stream, &message(&payload));
    });
    let end = trailer_frame("grpc-status:0\r\n");
    assert!(answer == streamed(&[&message(&payload), &end]));
    assert_eq!(record.response.bytes, 120_005);
}
