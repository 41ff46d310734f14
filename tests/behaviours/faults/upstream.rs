//! Rows U: what a backend may do wrong. Those whose call ends by the table of ends stand in `ends`, those of the queue in
//! `pool`, those about repeating in `repeats`, those of time in `time`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, PATH, alone, cut, message, streamed, trailer_frame};
use crate::frames::{
    CONTINUATION, DATA, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PING, PUSH_PROMISE, SETTINGS,
    WINDOW_UPDATE, block, frame, settings_payload,
};
use crate::world::{PATIENCE, Plan, World};

const OK: &str = "grpc-status:0\r\n";
const CLOSED: &str = "grpc-status:14\r\ngrpc-message:backend \"greeter\" closed the connection\r\n";
const BROKEN: &str = "grpc-status:13\r\n\
                      grpc-message:backend \"greeter\" broke the protocol: it broke HTTP/2\r\n";
const TOO_LARGE: &str =
    "grpc-status:8\r\ngrpc-message:metadata is larger than limits.header_bytes\r\n";
const A_MOMENT: Duration = Duration::from_millis(100);

/// So many calls on one connection: their clients, and the streams in the same order.
fn open_calls(world: &World, backend: &Backend, count: usize) -> (Vec<Client>, Peer, Vec<u32>) {
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    let mut peer = None;
    for index in 0..count {
        clients.push(Client::calling(world.address, &message(&[index as u8])));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let request = peer.request();
        assert_eq!(request.body, message(&[index as u8]));
        streams.push(request.stream);
    }
    (clients, peer.expect("a call"), streams)
}

/// A call on a new connection to the backend finds it well.
fn assert_serves_anew(world: &World, backend: &Backend) {
    let mut client = Client::calling(world.address, &message(b"again"));
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(request.body, message(b"again"));
    peer.answer(request.stream, &message(b"well"));
    let expected = streamed(&[&message(b"well"), &trailer_frame(OK)]);
    assert_eq!(client.answer(), expected);
    assert_eq!(world.record().reason, Reason::Ok);
}

/// A whole call over a connection that must still be good.
fn assert_serves(world: &World, client: &mut Client, peer: &mut Peer) {
    client.post("", &message(b"more"));
    let request = peer.request();
    assert_eq!(request.body, message(b"more"));
    peer.answer(request.stream, &message(b"well"));
    let expected = streamed(&[&message(b"well"), &trailer_frame(OK)]);
    assert_eq!(client.answer(), expected);
    assert_eq!(world.record().reason, Reason::Ok);
}

/// Nothing is on its way but resets of a stream that is over: late frames are ignored, or for who has forgotten it, reset.
fn assert_only_resets(peer: &mut Peer, stream: u32) {
    // An answer to a PING goes before resets of the same turn: the second one comes behind them all.
    for _ in 0..2 {
        peer.frame(PING, 0, 0, b"anything");
        loop {
            match peer.next() {
                Seen::Reset { stream: own, .. } => assert_eq!(own, stream),
                Seen::Pong => break,
                other => panic!("instead of a pong: {other:?}"),
            }
        }
    }
}

#[test]
fn u_02_what_is_not_http2_costs_the_connection_and_its_call_is_unavailable() {
    let noise: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(89) ^ 0x5a).collect();
    let rows: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &noise,
        // HTTP/2, but no preface: a HEADERS frame comes first.
        &frame(HEADERS, 4, 1, &[0x88]),
    ];
    for bytes in rows {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept_silently();
        peer.raw(bytes);
        let told = "grpc-status:14\r\ngrpc-message:backend \"greeter\" does not speak gRPC\r\n";
        assert_eq!(client.answer(), alone(told));
        let record = world.record();
        assert_eq!(record.reason, Reason::BackendNotGrpc(0));
        assert_eq!((record.by, record.attempts), (Party::Proxy, 0));
        peer.assert_closed();
    }
}

#[test]
fn u_02_a_backend_that_loses_its_mind_later_costs_its_own_connection() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, _) = open_calls(&world, &backend, 2);
    // As the head of a frame it is one of two megabytes and more.
    peer.raw(b"HTTP/1.1 500 Oh\r\n\r\n");
    for client in &mut clients {
        assert_eq!(client.answer(), alone(CLOSED));
        assert_eq!(world.record().reason, Reason::BackendClosed);
    }
    peer.assert_closed();
    assert_serves_anew(&world, &backend);
}

#[test]
fn u_14_interim_heads_up_to_sixteen_are_skipped_and_one_more_is_too_many() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 2);
    let interim = |peer: &mut Peer, stream| {
        peer.head(stream, &[(":status", "103"), ("link", "x")], false);
    };
    for _ in 0..16 {
        interim(&mut peer, streams[0]);
    }
    peer.answer(streams[0], &message(b"one"));
    let good = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    assert_eq!(clients[0].answer(), good);
    assert_eq!(world.record().reason, Reason::Ok);

    // All at once, or each on its own, and ten thousand of them.
    let told = "grpc-status:13\r\n\
                grpc-message:backend \"greeter\" broke the protocol: too many interim heads\r\n";
    for (count, slowly) in [(17, false), (17, true), (10_000, false)] {
        clients[0].post("", &message(b"hi"));
        let stream = peer.request().stream;
        for _ in 0..count {
            interim(&mut peer, stream);
            if slowly {
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(clients[0].answer(), alone(told));
        let record = world.record();
        assert_eq!(record.code, Some(Code::INTERNAL));
        let how = "too many interim heads";
        assert_eq!(record.reason, Reason::BackendProtocol(how));
        assert_eq!((record.by, record.attempts), (Party::Upstream, 1));
        peer.assert_reset(stream, 8);
        // Its answer comes too late.
        peer.answer(stream, &message(b"late"));
        assert_only_resets(&mut peer, stream);
    }
    // The other call on the connection has noticed nothing.
    peer.answer(streams[1], &message(b"two"));
    let expected = streamed(&[&message(b"two"), &trailer_frame(OK)]);
    assert_eq!(clients[1].answer(), expected);
}

#[test]
fn u_15_a_head_whose_status_is_missing_double_or_misplaced_is_a_broken_answer() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 2);
    let mut next = Some(streams[0]);
    let rows: [&[(&str, &str)]; 3] = [
        &[("content-type", "application/grpc")],
        &[(":status", "200"), (":status", "200")],
        // A pseudo-field behind the others (RFC 9113 §8.3).
        &[("content-type", "application/grpc"), (":status", "200")],
    ];
    for fields in rows {
        let stream = next.take().unwrap_or_else(|| {
            clients[0].post("", &message(b"hi"));
            peer.request().stream
        });
        peer.head(stream, fields, false);
        assert_eq!(clients[0].answer(), alone(BROKEN), "{fields:?}");
        let record = world.record();
        assert_eq!(record.code, Some(Code::INTERNAL));
        assert_eq!((record.by, record.attempts), (Party::Upstream, 1));
        assert!(matches!(peer.next(), Seen::Reset { stream: own, .. } if own == stream));
        peer.assert_quiet();
    }
    peer.answer(streams[1], &message(b"two"));
    let expected = streamed(&[&message(b"two"), &trailer_frame(OK)]);
    assert_eq!(clients[1].answer(), expected);
}

#[test]
fn u_15_a_status_that_is_no_number_costs_the_connection_too() {
    for status in ["abc", "20", ""] {
        break_connection(
            |peer, stream| peer.head(stream, &[(":status", status)], false),
            PROTOCOL,
        );
    }
}

/// What a call on whose stream the connection broke is told, and what becomes of two others on it: one that waits for its
/// answer and one in the middle of it. `None`: it is told what they are told.
fn break_connection(attack: impl FnOnce(&mut Peer, u32), told: Option<(&str, Reason)>) {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 3);
    peer.grpc_head(streams[2]);
    peer.data(streams[2], &message(b"one"), false);
    let (_, begun) = clients[2].chunked_start(8);
    assert_eq!(begun, message(b"one"));

    attack(&mut peer, streams[0]);
    let answer = clients[0].answer();
    assert!(answer.whole, "{answer:?}");
    let expected = told.map_or(CLOSED, |(lines, _)| lines);
    assert!(
        answer.body.ends_with(&trailer_frame(expected)),
        "{answer:?}"
    );
    assert_eq!(clients[1].answer(), alone(CLOSED));
    assert_eq!(clients[2].chunked_rest(), (trailer_frame(CLOSED), true));
    let mut reasons = HashMap::<_, usize>::new();
    for _ in 0..3 {
        let record = world.record();
        assert_eq!((record.by, record.attempts), (Party::Upstream, 1));
        *reasons.entry(record.reason).or_default() += 1;
    }
    let mut expected = HashMap::from([(Reason::BackendClosed, 2)]);
    *expected
        .entry(told.map_or(Reason::BackendClosed, |(_, reason)| reason))
        .or_default() += 1;
    assert_eq!(reasons, expected);
    peer.assert_closed();
    assert_serves_anew(&world, &backend);
}

const METADATA: Option<(&str, Reason)> = Some((TOO_LARGE, Reason::MetadataTooLarge));
const PROTOCOL: Option<(&str, Reason)> = Some((BROKEN, Reason::BackendProtocol("it broke HTTP/2")));

#[test]
fn u_16_a_head_without_end_costs_the_connection_and_its_call_is_told_why() {
    // Continuations with nothing in them, with little, and with much.
    for piece in [0, 100, 16 << 10] {
        let literal = [&[0, 1, b'x', 1][..], b"y"].concat();
        let payload: Vec<u8> = literal
            .iter()
            .copied()
            .cycle()
            .take(piece / 5 * 5)
            .collect();
        break_connection(
            |peer, stream| {
                peer.raw(&frame(HEADERS, 0, stream, &[0x88]));
                let pieces = frame(CONTINUATION, 0, stream, &payload);
                let mut sent = 0;
                while sent < 1 << 20 && peer.try_raw(&pieces) {
                    sent += pieces.len();
                }
            },
            METADATA,
        );
    }
}

#[test]
fn u_16_a_hundred_thousand_fields_cost_the_connection_and_their_call_is_told_why() {
    // Each in its own bytes, and as references of one byte to a field that was said once (RFC 7541 §6.1, §6.2.1).
    let literals = {
        let one = block(&[("x", "y")]);
        [vec![0x88], one.repeat(100_000)].concat()
    };
    let references = {
        let mut said = vec![0x88, 0x40, 1, b'x', 127];
        // 1,900 bytes: 127 and the rest in two septets.
        said.extend([0x80 | (1773 % 128) as u8, (1773 / 128) as u8]);
        said.extend(vec![b'y'; 1900]);
        said.extend(vec![0x80 | 62; 60_000]);
        said
    };
    for block in [literals, references] {
        for trailers in [false, true] {
            break_connection(
                |peer, stream| {
                    if trailers {
                        peer.grpc_head(stream);
                    }
                    let mut pieces = block.chunks(16 << 10);
                    let first = pieces.next().expect("it is long");
                    let end = u8::from(trailers);
                    let mut going = peer.try_raw(&frame(HEADERS, end, stream, first));
                    for piece in pieces {
                        going = going && peer.try_raw(&frame(CONTINUATION, 0, stream, piece));
                    }
                },
                METADATA,
            );
        }
    }
}

#[test]
fn u_16_trailers_of_a_mebibyte_cost_the_connection_and_their_call_is_told_why() {
    let large = "x".repeat(1 << 20);
    break_connection(
        |peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"whole"), false);
            peer.try_long_head(stream, &[("grpc-status", "0"), ("x-large", &large)], true);
        },
        METADATA,
    );
}

#[test]
fn u_16_trailers_that_are_cut_are_never_taken_for_whole_and_cost_nobody_else_anything() {
    let backend = Backend::new();
    let mut plan = Plan::default();
    // The most that may be configured.
    plan.limits.head_bytes_max = 64 << 10;
    let world = World::with(plan, &[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 2);
    let mut next = Some(streams[0]);
    // One field of so many bytes behind a status that says all is well.
    for bytes in [65 << 10, 80 << 10, 94 << 10] {
        for trailers in [true, false] {
            let stream = next.take().unwrap_or_else(|| {
                clients[0].post("", &message(b"hi"));
                peer.request().stream
            });
            let large = "x".repeat(bytes);
            let mut expected = alone(TOO_LARGE);
            if trailers {
                peer.grpc_head(stream);
                peer.data(stream, &message(b"one"), false);
                let fields = [("grpc-status", "0"), ("x-large", large.as_str())];
                assert!(peer.try_long_head(stream, &fields, true));
                expected = streamed(&[&message(b"one"), &trailer_frame(TOO_LARGE)]);
            } else {
                let fields = [(":status", "200"), ("x-large", large.as_str())];
                assert!(peer.try_long_head(stream, &fields, false));
            }
            assert_eq!(clients[0].answer(), expected, "{bytes} bytes");
            assert_eq!(world.record().reason, Reason::MetadataTooLarge);
            if !trailers {
                peer.assert_reset(stream, 8);
            }
            peer.assert_quiet();
        }
    }
    // Huffman's shortest code makes eight characters of five bytes (RFC 7541, appendix B: `a` is 00011).
    clients[0].post("", &message(b"hi"));
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    let packed: Vec<u8> = [0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(18_000);
    let mut trailers = block(&[("grpc-status", "0")]);
    trailers.extend([0, 7]);
    trailers.extend(b"x-large");
    let rest = packed.len() - 127;
    trailers.extend([0x80 | 127, 0x80 | (rest % 128) as u8]);
    trailers.extend([0x80 | (rest / 128 % 128) as u8, (rest >> 14) as u8]);
    trailers.extend(packed);
    let (first, last) = trailers.split_at(16 << 10);
    peer.raw(&frame(HEADERS, 1, stream, first));
    let mut pieces = last.chunks(16 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { 4 } else { 0 };
        peer.raw(&frame(CONTINUATION, end, stream, piece));
    }
    let answer = clients[0].answer();
    assert_eq!(answer.body, trailer_frame(TOO_LARGE));
    peer.answer(streams[1], &message(b"two"));
    let expected = streamed(&[&message(b"two"), &trailer_frame(OK)]);
    assert_eq!(clients[1].answer(), expected);
}

#[test]
fn u_17_a_client_whose_backend_takes_nothing_is_paused() {
    // The kernel's buffers on the way, which nobody knows, and 64 KiB of ours: far less than this.
    const OFFERED: usize = 64 << 20;
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.message_bytes_max = OFFERED as u32;
    let world = World::with(plan, &[&backend]);
    let mut client = TcpStream::connect(world.address).expect("the proxy listens");
    let limit = client.set_write_timeout(Some(Duration::from_millis(300)));
    limit.expect("a timeout");
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         content-length: {OFFERED}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).expect("the proxy reads");
    let mut peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, 0)]);
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    let length = ((OFFERED - 5) as u32).to_be_bytes();
    let mut taken = client.write(&[&[0], &length[..]].concat()).expect("room");
    let piece = [7; 64 << 10];
    while let Ok(n) = client.write(&piece) {
        taken += n;
        assert!(
            taken < OFFERED / 2,
            "{taken} bytes for a backend that takes none"
        );
    }
    // Not a byte has come, and when there is window it goes on.
    peer.assert_quiet();
    peer.frame(WINDOW_UPDATE, 0, stream, &(100u32 << 10).to_be_bytes());
    let mut got = 0;
    while got < 100 << 10 {
        match peer.next() {
            Seen::Data { bytes, .. } => got += bytes.len(),
            other => panic!("instead of data: {other:?}"),
        }
    }
    assert_eq!(got, 100 << 10);
    peer.assert_quiet();
}

#[test]
fn u_18_a_backend_that_goes_silent_costs_a_call_its_deadline_and_no_other_anything() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("grpc-timeout: 300m\r\n", &message(b"hi"));
    let mut peer = backend.accept();
    let silent = peer.request().stream;
    let mut other = Client::calling(world.address, &message(b"patient"));
    let stream = peer.request().stream;
    let told = "grpc-status:4\r\ngrpc-message:the deadline of the call has passed\r\n";
    assert_eq!(client.answer(), alone(told));
    assert_eq!(world.record().reason, Reason::Deadline);
    peer.assert_reset(silent, 8);
    peer.answer(stream, &message(b"one"));
    let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    assert_eq!(other.answer(), expected);
}

#[test]
fn u_20_a_window_that_shrinks_below_what_is_under_way_is_kept_to_the_byte() {
    const FIRST: usize = 50_000;
    let body = message(&(0..200_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &body);
    let mut peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, FIRST as u32)]);
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    let (mut got, mut ended) = (Vec::new(), false);
    let mut read = |peer: &mut Peer, until: usize| {
        while got.len() < until {
            match peer.next() {
                Seen::Data { bytes, end, .. } => {
                    got.extend(bytes);
                    ended |= end;
                }
                other => panic!("instead of data: {other:?}"),
            }
        }
        assert_eq!(got.len(), until);
        (got.clone(), ended)
    };
    read(&mut peer, FIRST);
    peer.assert_quiet();
    // 50,000 are under way, and from now on 100 are allowed: the window is 49,900 below nothing (RFC 9113 §6.9.2).
    peer.settings(&[(INITIAL_WINDOW_SIZE, 100)]);
    peer.assert_quiet();
    peer.frame(WINDOW_UPDATE, 0, stream, &49_900u32.to_be_bytes());
    peer.assert_quiet();
    peer.frame(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes());
    read(&mut peer, FIRST + 1);
    peer.assert_quiet();
    peer.frame(WINDOW_UPDATE, 0, stream, &10_000u32.to_be_bytes());
    read(&mut peer, FIRST + 10_001);
    peer.assert_quiet();
    peer.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    let (got, ended) = read(&mut peer, body.len());
    assert!(got == body);
    if !ended {
        assert_eq!(peer.body(stream), b"");
    }
    peer.answer(stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn u_21_what_breaks_http2_on_a_connection_costs_that_connection() {
    let update = |bytes: u32| bytes.to_be_bytes();
    let promise = [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat();
    let rows: [(&str, Vec<u8>); 10] = [
        (
            "a window over 2^31-1",
            frame(
                SETTINGS,
                0,
                0,
                &settings_payload(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
            ),
        ),
        (
            "a frame size below the least",
            frame(SETTINGS, 0, 0, &settings_payload(&[(5, 100)])),
        ),
        ("half a setting", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        (
            "an acknowledgement with something in it",
            frame(SETTINGS, 1, 0, &[0; 6]),
        ),
        ("a PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("DATA on the connection", frame(DATA, 0, 0, b"x")),
        (
            "a head on a stream that was never opened",
            frame(HEADERS, 4, 99, &[0x88]),
        ),
        (
            "DATA on a stream that was never opened",
            frame(DATA, 0, 99, b"x"),
        ),
        (
            "a connection's window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &update((1 << 31) - 1)),
        ),
        ("a promise on a stream that was never opened", {
            frame(PUSH_PROMISE, 4, 99, &promise)
        }),
    ];
    for (what, bytes) in rows {
        break_connection(
            |peer, _| {
                assert!(peer.try_raw(&bytes), "{what}");
            },
            None,
        );
    }
}

#[test]
fn u_21_what_breaks_http2_on_a_stream_and_with_it_the_connection_is_that_calls_fault() {
    let promise = |stream: u32| {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
        ];
        frame(
            PUSH_PROMISE,
            4,
            stream,
            &[&[0, 0, 0, 2][..], &block(&fields)].concat(),
        )
    };
    type Attack = Box<dyn FnOnce(u32) -> Vec<u8>>;
    let rows: [(&str, Attack); 5] = [
        ("a promise, which we do not take", Box::new(promise)),
        (
            "DATA before the head",
            Box::new(|stream| frame(DATA, 0, stream, b"x")),
        ),
        (
            "padding that is longer than its frame",
            Box::new(|stream| {
                let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
                [
                    frame(HEADERS, 4, stream, &head),
                    frame(DATA, PADDED, stream, &[9, 0]),
                ]
                .concat()
            }),
        ),
        (
            "a head that HPACK does not know",
            Box::new(|stream| frame(HEADERS, 4, stream, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ),
        (
            "a frame that is larger than we take",
            Box::new(|stream| frame(DATA, 0, stream, &vec![0; (16 << 10) + 1])),
        ),
    ];
    for (what, attack) in rows {
        break_connection(
            |peer, stream| {
                assert!(peer.try_raw(&attack(stream)), "{what}");
            },
            PROTOCOL,
        );
    }
}

#[test]
fn u_21_what_breaks_http2_on_a_stream_alone_costs_that_call_alone() {
    for overflow in [true, false] {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
        // Its request is still open: of one that has ended the window means nothing.
        let mut client = Client::new(world.address);
        let request = crate::client::request("", &message(&[b'x'; 600]));
        client.send(&request[..request.len() - 3]);
        let Seen::Head { stream, .. } = peer.next() else {
            panic!("no head");
        };
        assert!(matches!(peer.next(), Seen::Data { end: false, .. }));
        if overflow {
            peer.frame(WINDOW_UPDATE, 0, stream, &((1u32 << 31) - 1).to_be_bytes());
        } else {
            // More than its content-length.
            let fields = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("content-length", "3"),
            ];
            peer.head(stream, &fields, false);
            peer.data(stream, &message(b"one"), false);
        }
        let answer = client.answer();
        assert!(answer.whole);
        assert_eq!(answer.body, trailer_frame(BROKEN), "{overflow}");
        let record = world.record();
        assert_eq!(record.code, Some(Code::INTERNAL));
        assert_eq!((record.by, record.attempts), (Party::Upstream, 1));
        assert!(matches!(peer.next(), Seen::Reset { stream: own, .. } if own == stream));
        peer.answer(streams[0], &message(b"two"));
        let expected = streamed(&[&message(b"two"), &trailer_frame(OK)]);
        assert_eq!(clients[0].answer(), expected);
        peer.assert_quiet();
    }
}

#[test]
fn u_21_frames_of_closed_streams_are_ignored_or_reset_and_cost_nothing() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
    let stream = streams[0];
    peer.answer(stream, &message(b"one"));
    assert!(clients[0].answer().whole);
    world.record();
    for _ in 0..50 {
        peer.frame(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes());
        peer.data(stream, b"late", false);
        peer.trailers(stream, &[("grpc-status", "0")]);
    }
    assert_only_resets(&mut peer, stream);
    assert_serves(&world, &mut clients[0], &mut peer);
}

#[test]
fn u_22_pings_are_answered_one_by_one_and_who_reads_no_answers_is_read_no_further() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
    let ping = frame(PING, 0, 0, b"anything");
    let pings = ping.repeat(1000);
    // 34 MiB of answers, if all were read: more than every buffer on the way holds. We would hold them all.
    let mut sent = 0;
    let rest = loop {
        let taken = peer.send_within(&pings, Duration::from_millis(500));
        sent += taken;
        if taken < pings.len() {
            break pings[taken..].to_vec();
        }
        assert!(sent < 34 << 20, "who does not listen is read on and on");
    };
    // Once it listens, each has its answer, and the call goes on.
    let count = (sent + rest.len()) / ping.len();
    let sender = peer.send_beside(rest);
    for _ in 0..count {
        assert_eq!(peer.next(), Seen::Pong);
    }
    sender.join().expect("the proxy reads");
    peer.answer(streams[0], &message(b"one"));
    let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    assert_eq!(clients[0].answer(), expected);
}

#[test]
fn u_22_settings_by_the_hundred_cost_the_connection() {
    break_connection(
        |peer, _| {
            let settings = settings_payload(&[(INITIAL_WINDOW_SIZE, 1000)]);
            peer.try_raw(&frame(SETTINGS, 0, 0, &settings).repeat(200));
        },
        None,
    );
}

#[test]
fn u_22_messages_of_a_byte_in_frames_of_a_byte_arrive_by_the_hundred_thousand() {
    // Six bytes a message.
    const FRAMES: usize = 99_996;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 2);
    let one = message(b"x");
    let sender = thread::spawn(move || {
        let stream = streams[0];
        peer.grpc_head(stream);
        let mut window = 128i64 << 10;
        let mut sent = 0;
        let mut batch = Vec::new();
        while sent < FRAMES {
            while sent < FRAMES && window > 0 && batch.len() < 16 << 10 {
                let byte = one[sent % one.len()];
                batch.extend(frame(DATA, 0, stream, &[byte]));
                // Every seventh is followed by one that holds nothing but padding.
                if sent % 7 == 0 {
                    batch.extend(frame(DATA, PADDED, stream, &[3, 0, 0, 0]));
                    window -= 4;
                }
                window -= 1;
                sent += 1;
            }
            peer.raw(&std::mem::take(&mut batch));
            let wait = if window > 0 {
                Duration::from_micros(1)
            } else {
                PATIENCE
            };
            match peer.next_or_window(stream, wait) {
                Some(Ok(more)) => window += i64::from(more),
                Some(Err(other)) => panic!("instead of window: {other:?}"),
                None => assert!(window > 0, "no window comes back"),
            }
        }
        peer.trailers(stream, &[("grpc-status", "0")]);
        peer.answer(streams[1], &message(b"two"));
        peer
    });
    let answer = clients[0].answer();
    let expected = streamed(&[&message(b"x").repeat(FRAMES / 6), &trailer_frame(OK)]);
    assert!(answer == expected, "{} bytes", answer.body.len());
    let other = streamed(&[&message(b"two"), &trailer_frame(OK)]);
    assert_eq!(clients[1].answer(), other);
    sender.join().expect("it only sends");
}

#[test]
fn u_23_a_reader_that_pauses_holds_its_backend_back_and_has_all_of_its_answer() {
    // What may be under way: 128 KiB of window, 64 KiB staged, the kernel's buffers. Far less than what is offered.
    const UNDER_WAY: usize = 24 << 20;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(256 << 10).expect("a buffer");
    let connected = socket.connect(&world.address.into());
    connected.expect("the proxy listens");
    let mut client: TcpStream = socket.into();
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
        .write_all(&crate::client::request("", &message(b"hi")))
        .expect("the proxy reads");
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    let piece = message(&[7; (16 << 10) - 5]);
    let (mut sent, mut window) = (0, 128i64 << 10);
    // Sends as long as there is window; whether some came back in that time.
    let mut send = |peer: &mut Peer, patience: Duration| {
        while window >= piece.len() as i64 {
            peer.data(stream, &piece, false);
            window -= piece.len() as i64;
            sent += piece.len();
        }
        match peer.next_or_window(stream, patience) {
            Some(Ok(more)) => window += i64::from(more),
            Some(Err(other)) => panic!("instead of window: {other:?}"),
            None => return (sent, false),
        }
        (sent, true)
    };
    let paused = loop {
        let (sent, goes_on) = send(&mut peer, Duration::from_millis(300));
        assert!(sent < UNDER_WAY, "{sent} bytes for a reader that pauses");
        if !goes_on {
            break sent;
        }
    };
    let reader = thread::spawn(move || {
        let end = b"0\r\n\r\n";
        let (mut read, mut tail) = (0, Vec::new());
        let mut bytes = vec![0; 64 << 10];
        while !tail.ends_with(end) {
            let n = client.read(&mut bytes).expect("an answer");
            assert_ne!(n, 0, "the answer is cut");
            read += n;
            tail.extend(&bytes[..n]);
            tail.drain(..tail.len().saturating_sub(end.len()));
        }
        read
    });
    // It reads again, and the backend goes on.
    let total = loop {
        let (sent, goes_on) = send(&mut peer, PATIENCE);
        assert!(goes_on, "nobody is told that there is room");
        if sent > paused + (2 << 20) {
            break sent;
        }
    };
    peer.trailers(stream, &[("grpc-status", "0")]);
    let read = reader.join().expect("it only reads");
    assert!(read > total, "{read} of {total}");
    assert_eq!(world.record().reason, Reason::Ok);
}

#[test]
fn u_25_every_call_of_a_backend_that_dies_is_told_and_the_next_one_finds_it_when_it_is_back() {
    const CALLS: usize = 500;
    for by_reset in [false, true] {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let (mut clients, peer, _) = open_calls(&world, &backend, CALLS);
        if by_reset {
            peer.abort();
        } else {
            peer.finish();
        }
        for client in &mut clients {
            assert_eq!(client.answer(), alone(CLOSED));
        }
        for _ in 0..CALLS {
            let record = world.record();
            assert_eq!((record.reason, record.attempts), (Reason::BackendClosed, 1));
        }
        assert!(
            backend.is_left_alone(A_MOMENT),
            "nobody calls, nobody connects"
        );
        assert_serves_anew(&world, &backend);
    }
}

#[test]
fn u_27_no_call_is_delivered_twice_whatever_its_backend_does() {
    const CALLS: u32 = 600;
    let backend = Backend::new();
    let world = World::with(
        Plan {
            connections_max: 2,
            ..Plan::default()
        },
        &[&backend],
    );
    let address = world.address;
    let callers: Vec<_> = (0..4u32)
        .map(|caller| {
            thread::spawn(move || {
                let mut told = Vec::new();
                for call in 0..CALLS / 4 {
                    let id = caller * CALLS + call;
                    let mut client = Client::calling(address, &message(&id.to_be_bytes()));
                    told.push((id, client.answer()));
                }
                told
            })
        })
        .collect();
    // The backend: each connection lives for some calls and dies in some way. A call counts as delivered when the backend has
    // seen all of it and has not said that it left it alone.
    let mut rng = 0x2545_f491_4f6c_dd1du64;
    let mut draw = |of: u64| {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        rng % of
    };
    let mut delivered = HashMap::<Vec<u8>, u32>::new();
    let mut answered = 0;
    while !callers.iter().all(thread::JoinHandle::is_finished) {
        let Some(mut peer) = backend.accept_soon() else {
            continue;
        };
        let mut life = 1 + draw(20);
        let mut open = HashMap::<u32, Vec<u8>>::new();
        loop {
            match peer.next_within(Duration::from_millis(300)) {
                // Nobody calls on this one: it ends as an idle server ends.
                None => {
                    peer.go_away((1 << 31) - 1, 0);
                    break;
                }
                Some(Seen::End) => break,
                Some(Seen::Head { stream, .. }) => {
                    open.insert(stream, Vec::new());
                }
                Some(Seen::Data { stream, bytes, end }) => {
                    let Some(body) = open.get_mut(&stream) else {
                        continue;
                    };
                    body.extend(bytes);
                    if !end {
                        continue;
                    }
                    let body = open.remove(&stream).expect("it is there");
                    life -= 1;
                    match draw(8) {
                        // Left alone, and said so.
                        0 => peer.reset(stream, 7),
                        1 if life == 0 => {
                            peer.go_away(stream.saturating_sub(2), 0);
                            break;
                        }
                        // Taken, and then lost in one way or another.
                        2 => {
                            *delivered.entry(body).or_default() += 1;
                            peer.reset(stream, 8);
                        }
                        3 if life == 0 => {
                            *delivered.entry(body).or_default() += 1;
                            peer.go_away(stream, 0);
                            break;
                        }
                        _ => {
                            *delivered.entry(body.clone()).or_default() += 1;
                            answered += 1;
                            peer.answer(stream, &body);
                        }
                    }
                    if life == 0 {
                        break;
                    }
                }
                Some(_) => {}
            }
        }
        match draw(2) {
            0 => peer.abort(),
            _ => drop(peer),
        }
    }
    let mut good = 0;
    for caller in callers {
        for (id, answer) in caller.join().expect("it only calls") {
            let body = message(&id.to_be_bytes());
            let times = delivered.get(&body).copied().unwrap_or(0);
            assert!(times <= 1, "call {id} was delivered {times} times");
            if answer == streamed(&[&body, &trailer_frame(OK)]) {
                assert_eq!(times, 1, "call {id} has an answer that nobody gave");
                good += 1;
            }
        }
    }
    assert!(good > 0 && good <= answered, "{good} of {answered}");
}

#[test]
fn u_28_an_answer_is_the_same_wherever_its_bytes_are_cut() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
    let client = &mut clients[0];
    let answer_of = |stream: u32| {
        let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
        [
            frame(HEADERS, 4, stream, &head),
            frame(DATA, 0, stream, b""),
            frame(DATA, 0, stream, &message(b"one")),
            frame(DATA, PADDED, stream, &[2, 0, 0]),
            frame(
                DATA,
                PADDED,
                stream,
                &[&[3][..], &message(b"two"), &[0; 3]].concat(),
            ),
            frame(PING, 0, 0, b"anything"),
            frame(
                HEADERS,
                5,
                stream,
                &block(&[("grpc-status", "0"), ("x-own", "a")]),
            ),
        ]
        .concat()
    };
    let end = trailer_frame("grpc-status:0\r\nx-own:a\r\n");
    let expected = streamed(&[&message(b"one"), &message(b"two"), &end]);
    let mut next = Some(streams[0]);
    let length = answer_of(1).len();
    // At each byte once, then at each byte.
    for cut in 1..=length {
        let stream = next.take().unwrap_or_else(|| {
            client.post("", &message(b"hi"));
            peer.request().stream
        });
        let answer = answer_of(stream);
        if cut < length {
            let (first, rest) = answer.split_at(cut);
            peer.raw(first);
            thread::sleep(Duration::from_millis(1));
            peer.raw(rest);
        } else {
            for byte in answer.chunks(1) {
                peer.raw(byte);
                thread::sleep(Duration::from_micros(200));
            }
        }
        assert_eq!(client.answer(), expected, "cut at {cut}");
        assert_eq!(peer.next(), Seen::Pong);
        let record = world.record();
        assert_eq!((record.reason, record.response.messages), (Reason::Ok, 2));
    }
    peer.assert_quiet();
}

#[test]
fn u_28_an_answer_that_ends_at_any_byte_is_whole_or_says_that_it_is_not() {
    let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    let messages = [message(b"one"), message(b"two")].concat();
    let frames = [
        frame(HEADERS, 4, 1, &head),
        // One whole message and the beginning of another.
        frame(DATA, 0, 1, &messages[..14]),
        frame(DATA, 0, 1, &messages[14..]),
        frame(HEADERS, 5, 1, &block(&[("grpc-status", "0")])),
    ];
    let answer = frames.concat();
    let end = trailer_frame(CLOSED);
    // By the number of frames that came whole.
    let expected = [
        alone(CLOSED),
        streamed(&[&end]),
        cut(&[&messages[..14]]),
        streamed(&[&messages, &end]),
        streamed(&[&messages, &trailer_frame(OK)]),
    ];
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    for at in 0..=answer.len() {
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept();
        assert_eq!(peer.request().stream, 1);
        peer.raw(&answer[..at]);
        peer.finish();
        let mut left = at;
        let whole = frames.iter().take_while(|frame| {
            let came = left >= frame.len();
            left = left.saturating_sub(frame.len());
            came
        });
        let expected = &expected[whole.count()];
        // The head's framing depends on what came with it.
        let told = client.answer();
        assert_eq!(
            (&told.body, told.whole),
            (&expected.body, expected.whole),
            "ended at {at}"
        );
        let record = world.record();
        let good = at == answer.len();
        assert_eq!(record.reason == Reason::Ok, good, "ended at {at}");
        assert_eq!(record.attempts, 1);
    }
}
