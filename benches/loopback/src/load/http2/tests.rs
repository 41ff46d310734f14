//! Clients against servers that answer in frames as a test says: what is right counts as a call, what is wrong by its name.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::call;

const NATIVE_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const WEB_HEAD: &[u8] = b"\x88\x0f\x10\x1aapplication/grpc-web+proto";
const OK: &[u8] = b"\x00\x0bgrpc-status\x010";

/// One frame of an answer: kind, flags, payload.
type Frame = (u8, u8, Vec<u8>);

/// A server that gives each request these frames, after these settings.
fn server(answer: Vec<Frame>, settings: &[(u16, u32)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut greeting = Vec::new();
    frame(&mut greeting, SETTINGS, 0, 0, settings.len() * 6);
    for (name, value) in settings {
        greeting.extend_from_slice(&name.to_be_bytes());
        greeting.extend_from_slice(&value.to_be_bytes());
    }
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let (answer, greeting) = (answer.clone(), greeting.clone());
            thread::spawn(move || serve(stream, &answer, &greeting));
        }
    });
    address
}

fn serve(mut stream: std::net::TcpStream, answer: &[Frame], greeting: &[u8]) -> io::Result<()> {
    let mut preface = vec![0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE);
    stream.write_all(greeting)?;
    loop {
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        if head[3] != DATA || head[4] & END_STREAM == 0 {
            continue;
        }
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut out = Vec::new();
        for (kind, flags, payload) in answer {
            frame(&mut out, *kind, *flags, id, payload.len());
            out.extend_from_slice(payload);
        }
        stream.write_all(&out)?;
    }
}

fn plan(target: SocketAddr, native: bool) -> Plan {
    let host = target.to_string();
    let payload = call::payload(16);
    let body = call::envelope(&payload);
    Plan {
        target,
        connections: 2,
        streams: 3,
        fields: if native {
            call::native_fields(&host, call::PATH)
        } else {
            call::web_fields(&host, call::PATH, body.len())
        },
        body,
        expected: Expected {
            payload,
            messages: Some(1),
            stamped: false,
            text: false,
            native,
        },
        again: true,
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// A short load, to its end.
fn report(target: SocketAddr, native: bool) -> Value {
    let mut clients =
        Clients::connect(plan(target, native), clock::now_ns() + 10 * SECOND_NS).unwrap();
    clients.begin();
    clients.call_all();
    let until_ns = clock::now_ns() + SECOND_NS / 5;
    while clock::now_ns() < until_ns {
        clients.turn(until_ns).unwrap();
    }
    clients.end();
    clients.finish(clock::now_ns() + SECOND_NS / 2).unwrap();
    clients.report()
}

fn head(block: &[u8]) -> Frame {
    (HEADERS, END_HEADERS, block.to_vec())
}

fn trailers(block: &[u8]) -> Frame {
    (HEADERS, END_HEADERS | END_STREAM, block.to_vec())
}

fn data(bytes: &[u8]) -> Frame {
    (DATA, 0, bytes.to_vec())
}

fn message() -> Vec<u8> {
    call::envelope(&call::payload(16))
}

fn web_body() -> Vec<u8> {
    [message(), b"\x80\0\0\0\x0fgrpc-status:0\r\n".to_vec()].concat()
}

#[test]
fn right_answers_are_counted_however_they_are_cut() {
    let split = message();
    let native = [
        vec![head(NATIVE_HEAD), data(&message()), trailers(OK)],
        // A head in two pieces, one that only announces before it, padding, an empty frame, a message in two frames.
        vec![
            (HEADERS, END_HEADERS, b"\x08\x03100".to_vec()),
            (HEADERS, 0, NATIVE_HEAD[..5].to_vec()),
            (CONTINUATION, END_HEADERS, NATIVE_HEAD[5..].to_vec()),
            data(&split[..7]),
            data(b""),
            (DATA, 8, [&[2], &split[7..], &[0, 0][..]].concat()),
            trailers(OK),
        ],
    ];
    let web = [
        vec![head(WEB_HEAD), (DATA, END_STREAM, web_body())],
        vec![
            head(WEB_HEAD),
            data(&web_body()),
            (DATA, END_STREAM, Vec::new()),
        ],
    ];
    for (is_native, answers) in [(true, native), (false, web)] {
        for answer in answers {
            let report = report(server(answer, &[]), is_native);
            assert_eq!(report["failures"], 0, "{report}");
            let calls = report["calls"].as_u64().unwrap();
            // Three at a time on two connections.
            assert!(calls >= 6, "{report}");
            assert_eq!(report["messages"], calls);
            assert_eq!(report["reconnects"], 0, "{report}");
        }
    }
}

#[test]
fn what_is_wrong_is_counted_and_named() {
    let mut changed = message();
    changed[9] ^= 1;
    let unavailable = b"\x08\x03503".to_vec();
    let refused = [NATIVE_HEAD, b"\x00\x0bgrpc-status\x017"].concat();
    for (native, answer, fault) in [
        (true, vec![trailers(&unavailable)], Fault::Status(503)),
        (
            true,
            vec![head(WEB_HEAD), data(&message()), trailers(OK)],
            Fault::ContentType,
        ),
        (
            false,
            vec![head(NATIVE_HEAD), (DATA, END_STREAM, web_body())],
            Fault::ContentType,
        ),
        (true, vec![trailers(&refused)], Fault::GrpcStatus(Some(7))),
        (
            true,
            vec![
                head(NATIVE_HEAD),
                data(&message()),
                trailers(b"\x00\x0bgrpc-status\x0214"),
            ],
            Fault::GrpcStatus(Some(14)),
        ),
        (
            true,
            vec![head(NATIVE_HEAD), (DATA, END_STREAM, message())],
            Fault::GrpcStatus(None),
        ),
        (
            true,
            vec![head(NATIVE_HEAD), data(&changed), trailers(OK)],
            Fault::Payload,
        ),
        (
            true,
            vec![head(NATIVE_HEAD), trailers(OK)],
            Fault::Messages(0),
        ),
        (
            true,
            vec![
                head(NATIVE_HEAD),
                data(&[message(), message()].concat()),
                trailers(OK),
            ],
            Fault::Messages(2),
        ),
        // gRPC-Web's last frame, where gRPC was asked for.
        (
            true,
            vec![head(NATIVE_HEAD), data(&web_body()), trailers(OK)],
            Fault::Length(15),
        ),
        (
            false,
            vec![head(WEB_HEAD), (DATA, END_STREAM, message())],
            Fault::NoTrailer,
        ),
        (
            true,
            vec![head(NATIVE_HEAD), (RST_STREAM, 0, vec![0, 0, 0, 2])],
            Fault::Reset(2),
        ),
        (true, vec![data(&message()), trailers(OK)], Fault::Head),
    ] {
        let report = report(server(answer, &[]), native);
        assert!(report["failures"].as_u64().unwrap() >= 6, "{report}");
        assert_eq!(report["first_failure"], fault.to_string(), "{report}");
        assert_eq!(report["calls"], 0, "{report}");
    }
}

#[test]
fn a_connection_that_breaks_fails_its_calls_and_is_made_anew() {
    for answer in [
        vec![(GOAWAY, 0, vec![0, 0, 0, 0, 0, 0, 0, 1])],
        vec![(PUSH_PROMISE, 0, Vec::new())],
        vec![head(b"\xff\xff\xff\xff\xff\xff\xff")],
    ] {
        let report = report(server(answer, &[]), true);
        assert_eq!(report["first_failure"], Fault::Closed.to_string());
        assert!(report["reconnects"].as_u64().unwrap() > 0, "{report}");
    }
}

#[test]
fn a_server_that_never_answers_is_a_failure() {
    let report = report(server(Vec::new(), &[]), true);
    assert_eq!(report["failures"], 6, "{report}");
    assert_eq!(report["first_failure"], Fault::Unanswered.to_string());
}

#[test]
fn a_server_s_limits_are_kept() {
    let answer = vec![head(NATIVE_HEAD), data(&message()), trailers(OK)];
    // One stream at a time; no table; both are seen by a server that would not answer otherwise.
    for settings in [&[(3, 1)][..], &[(1, 0)], &[(4, 21)]] {
        let report = report(server(answer.clone(), settings), true);
        assert_eq!(report["failures"], 0, "{report}");
        assert!(report["calls"].as_u64().unwrap() >= 2, "{report}");
    }
    let plan = plan(server(answer, &[(4, 20)]), true);
    let connected = Clients::connect(plan, clock::now_ns() + SECOND_NS / 5);
    assert!(connected.is_err(), "a request does not fit");
}

#[test]
fn the_second_head_names_what_the_first_one_said() {
    let fields = call::web_fields("127.0.0.1:1", call::PATH, 21);
    let blocks = Blocks::new(&fields);
    let mut decoder = Decoder::with_dynamic_size(TABLE_BYTES as u32);
    for block in [&blocks.first, &blocks.later, &blocks.later, &blocks.plain] {
        let mut read = Vec::new();
        decoder.decode(&mut block.clone(), &mut read).unwrap();
        let read: Vec<_> = read
            .into_iter()
            .map(|(name, value, _)| {
                (
                    String::from_utf8(name).unwrap(),
                    String::from_utf8(value).unwrap(),
                )
            })
            .collect();
        assert_eq!(read, fields);
    }
    assert_eq!(blocks.later.len(), fields.len());
    let mut long = Vec::new();
    integer(&mut long, 0, 1337);
    assert_eq!(long, [0x7f, 0xba, 0x09]);
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let connected = Clients::connect(plan(address, true), clock::now_ns() + SECOND_NS / 5);
    let error = connected.err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
