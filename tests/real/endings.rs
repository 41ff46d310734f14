//! Calls that end otherwise than the backend wanted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Call, Mode, Next};
use crate::peers::Wharf;
use crate::peers::echo::{self, Echo, SAY, STREAM, Say, Stack, Stream};
use crate::peers::wharf::{binary, nowhere};

const STACKS: [Stack; 2] = [Stack::Grpcio, Stack::Tonic];

#[test]
fn a_backend_killed_at_message_37_of_100_leaves_37_messages_and_unavailable() {
    for stack in STACKS {
        for mode in [Mode::Binary, Mode::Text] {
            let backend = Echo::start(stack, &[]);
            let wharf = Wharf::before(backend.address);
            let stream = Stream {
                count: 100,
                hold_after: 37,
                size: 1_000,
                ..Stream::default()
            };
            let call = Call::new(STREAM).mode(mode).message(stream.to_bytes());
            let mut answering = call.begin(wharf.address);
            for expected in 1..=37 {
                assert_eq!(echo::number(&answering.message()), expected);
            }
            backend.program.kill();
            let answer = answering.rest();
            assert!(answer.messages.is_empty(), "{answer:?}");
            answer.assert_shape();
            assert_eq!(answer.status(), 14);
            assert_ne!(answer.status_message(), "");
            wharf.wait_call_line(&["wharf.test.v1.Echo/Stream", "UNAVAILABLE"]);
        }
    }
}

#[test]
fn a_backend_killed_before_it_answers_is_unavailable() {
    for stack in STACKS {
        let backend = Echo::start(stack, &[]);
        let wharf = Wharf::before(backend.address);
        let slow = Say {
            delay_ms: 20_000,
            ..Say::default()
        };
        // A call that went well first, so that the connection is there.
        assert_eq!(Call::new(SAY).message([]).make(wharf.address).status(), 0);
        let call = Call::new(SAY).message(slow.to_bytes());
        let answer = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| call.make(wharf.address));
            std::thread::sleep(Duration::from_millis(300));
            backend.program.kill();
            waiting.join().expect("the call ends")
        });
        answer.assert_shape();
        assert_eq!(answer.status(), 14);
    }
}

#[test]
fn a_backend_that_is_not_there_is_unavailable_with_a_message() {
    let wharf = Wharf::before(nowhere());
    for mode in [Mode::Binary, Mode::Text] {
        let answer = Call::new(SAY).mode(mode).message([]).make(wharf.address);
        answer.assert_shape();
        assert!(answer.messages.is_empty());
        assert_eq!(answer.status(), 14);
        assert_ne!(answer.status_message(), "");
        assert!(answer.head.get("content-length").is_some(), "{answer:?}");
    }
}

#[test]
fn a_backend_that_comes_later_is_found() {
    let address = nowhere();
    let wharf = Wharf::before(address);
    assert_eq!(Call::new(SAY).message([]).make(wharf.address).status(), 14);
    let port = address.port().to_string();
    let _backend = Echo::start(Stack::Grpcio, &["--port", &port]);
    // It may wait a little between two tries to connect, but not long.
    let begun = Instant::now();
    while Call::new(SAY).message([]).make(wharf.address).status() != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backend_that_was_restarted_is_found_again() {
    let backend = Echo::start(Stack::Grpcio, &[]);
    let wharf = Wharf::before(backend.address);
    assert_eq!(Call::new(SAY).message([]).make(wharf.address).status(), 0);
    let port = backend.address.port().to_string();
    backend.program.kill();
    backend.program.wait(Duration::from_secs(5));
    assert_eq!(Call::new(SAY).message([]).make(wharf.address).status(), 14);
    let _backend = Echo::start(Stack::Grpcio, &["--port", &port]);
    let begun = Instant::now();
    while Call::new(SAY).message([]).make(wharf.address).status() != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Browsers' libraries fail on a compressed message, so wharf opens what the backend closed against the caller's wish.
#[test]
fn what_a_backend_compressed_though_nobody_asked_arrives_plain() {
    for stack in STACKS {
        let backend = Echo::start(stack, &["--gzip"]);
        let wharf = Wharf::before(backend.address);
        for mode in [Mode::Binary, Mode::Text] {
            let say = Say {
                text: "so much air in here ".repeat(500),
                ..Say::default()
            };
            let call = Call::new(SAY).mode(mode).message(say.to_bytes());
            let answer = call.make(wharf.address);
            answer.assert_shape();
            assert_eq!(answer.status(), 0);
            assert_eq!(
                answer
                    .head
                    .get("grpc-encoding")
                    .filter(|it| *it != "identity"),
                None
            );
            assert_eq!(answer.messages.len(), 1, "{answer:?}");
            assert_eq!(echo::Said::from_bytes(&answer.messages[0]).text, say.text);

            let stream = Stream {
                count: 20,
                size: 5_000,
                ..Stream::default()
            };
            let call = Call::new(STREAM).mode(mode).message(stream.to_bytes());
            let answer = call.make(wharf.address);
            answer.assert_shape();
            assert_eq!(answer.status(), 0);
            let numbers: Vec<_> = answer.messages.iter().map(|it| echo::number(it)).collect();
            assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_a_backend_compressed_on_request_passes_as_it_is() {
    for stack in STACKS {
        let backend = Echo::start(stack, &["--gzip"]);
        let wharf = Wharf::before(backend.address);
        let say = Say::text(&"so much air in here ".repeat(500));
        let call = Call::new(SAY)
            .field("grpc-accept-encoding", "gzip")
            .message(say.to_bytes());
        let answer = call.make(wharf.address);
        answer.assert_shape();
        assert_eq!(answer.head.get("grpc-encoding"), Some("gzip"));
        assert_eq!((answer.messages.len(), answer.compressed.len()), (0, 1));
        let mut opened = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(answer.compressed[0].as_slice());
        std::io::Read::read_to_end(&mut reader, &mut opened).expect("it is gzip");
        assert_eq!(echo::Said::from_bytes(&opened).text, say.text);
    }
}

#[test]
fn sigterm_lets_an_open_call_finish_and_then_ends_with_0() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let stream = Stream {
        count: 10,
        interval_ms: 100,
        ..Stream::default()
    };
    let call = Call::new(STREAM).message(stream.to_bytes());
    let mut answering = call.begin(wharf.address);
    assert_eq!(echo::number(&answering.message()), 1);
    wharf.program.terminate();
    for expected in 2..=10 {
        assert_eq!(echo::number(&answering.message()), expected);
    }
    assert!(matches!(answering.next(), Next::Trailers(_)));
    assert_eq!(wharf.program.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_second_sigterm_does_not_wait_for_open_calls() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let held = Stream {
        count: 2,
        hold_after: 1,
        ..Stream::default()
    };
    let mut answering = Call::new(STREAM)
        .message(held.to_bytes())
        .begin(wharf.address);
    answering.message();
    wharf.program.terminate();
    std::thread::sleep(Duration::from_millis(300));
    wharf.program.terminate();
    wharf.program.wait(Duration::from_secs(3));
}

/// Its lines fill a pipe that nobody reads: calls go on, and it ends when it is told to.
#[test]
fn a_full_pipe_costs_lines_and_neither_calls_nor_the_end() {
    let mut wharf = Command::new(binary())
        .args(["demo", "--listen", "127.0.0.1:0", "--workers", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("wharf starts");
    // The banner is read byte by byte, and nothing after it.
    let mut said = Vec::new();
    let output = wharf.stdout.as_mut().expect("it is piped");
    while !said.ends_with(b"stops at once.\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).expect("the banner");
        said.push(byte[0]);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    let (_, rest) = said
        .split_once("http://")
        .expect("it says where it listens");
    let address = rest.split_whitespace().next().expect("an address");
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    // Far more lines than a pipe holds (64 KiB), each answered.
    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100));
    for _ in 0..100 {
        socket
            .write_all(request.repeat(50).as_bytes())
            .expect("it reads");
        let mut answers = Vec::new();
        while answers
            .windows(12)
            .filter(|window| window == b"HTTP/1.1 404")
            .count()
            < 50
        {
            let mut some = [0; 65_536];
            let n = socket.read(&mut some).expect("an answer to each request");
            assert_ne!(n, 0, "it hung up");
            answers.extend_from_slice(&some[..n]);
        }
    }
    drop(socket);
    kill_process(Pid::from_child(&wharf), Signal::TERM).expect("it is our child");
    let end = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = wharf.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > end {
            let _ = wharf.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}
