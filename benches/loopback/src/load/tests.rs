//! Load against the programs of this crate and against servers that answer wrongly: what comes out of a report.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::answer::Fault;

/// A server that gives each request this answer; the connection is closed after it if `closes`.
fn server(answer: Vec<u8>, request_bytes: usize, closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut request = vec![0; request_bytes];
                while stream.read_exact(&mut request).is_ok() {
                    if stream.write_all(&answer).is_err() || closes {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn target(address: SocketAddr, connections: usize) -> Target {
    Target {
        target: address,
        connections,
        bytes: None,
        http2: false,
        native: false,
        streams: 1,
        text: false,
        path: call::PATH.to_owned(),
        watch: Some(std::process::id()),
    }
}

const SHORT: Time = Time {
    seconds: 0.2,
    warm_up: 0.05,
};

fn request_bytes(bytes: usize) -> usize {
    call::request("127.0.0.1:12345", call::PATH, &call::payload(bytes), false).len()
}

fn right(bytes: usize) -> Vec<u8> {
    call::answer(&call::payload(bytes), None).unwrap()
}

#[test]
fn a_right_server_has_no_failures_and_its_calls_are_counted() {
    let target = target(server(right(16), request_bytes(16), false), 4);
    let report = repeated(&target, target.plan(16), SHORT).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
    let calls = report["calls"].as_u64().unwrap();
    assert!(calls > 0, "{report}");
    assert_eq!(report["messages"], calls);
    assert_eq!(report["bytes"], calls * 16);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.2..5.0).contains(&seconds), "{report}");
    let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
    assert!(
        0.0 < latency("p50") && latency("p50") <= latency("p99"),
        "{report}"
    );
    assert!(latency("p99") <= latency("max"), "{report}");
}

#[test]
fn what_is_wrong_is_counted_and_named() {
    let payload = call::payload(16);
    let whole = right(16);
    let mut refused = whole.clone();
    let at = refused
        .windows(13)
        .position(|found| found == b"grpc-status:0")
        .unwrap();
    refused[at + 12] = b'7';
    let mut changed = whole.clone();
    let at = changed
        .windows(16)
        .position(|found| found == payload)
        .unwrap();
    changed[at + 3] ^= 1;
    let unavailable = [&b"HTTP/1.1 503 "[..], &whole[13..]].concat();
    for (answer, closes, fault) in [
        (unavailable, false, Fault::Status(503)),
        (refused, false, Fault::GrpcStatus(Some(7))),
        (changed, false, Fault::Payload),
        (right(15), false, Fault::Length(15)),
        (whole[..whole.len() - 10].to_vec(), true, Fault::Closed),
    ] {
        let target = target(server(answer, request_bytes(16), closes), 2);
        let report = repeated(&target, target.plan(16), SHORT).unwrap();
        assert!(report["failures"].as_u64().unwrap() >= 2, "{report}");
        assert_eq!(report["first_failure"], fault.to_string(), "{report}");
        assert_eq!(report["calls"], 0, "{report}");
    }
}

#[test]
fn a_server_that_never_answers_is_a_failure() {
    let target = target(server(Vec::new(), request_bytes(16), false), 2);
    let mut clients = Clients::connect(target.plan(16), clock::now_ns() + PATIENCE_NS).unwrap();
    clients.call_all();
    clients.finish(clock::now_ns() + 50_000_000).unwrap();
    let report = clients.report();
    assert_eq!(report["failures"], 2);
    assert_eq!(report["first_failure"], Fault::Unanswered.to_string());
}

#[test]
fn a_server_that_closes_after_each_answer_and_says_so_is_no_failure() {
    let answer = right(16);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let at = text.find("content-type").unwrap();
    let said = [&answer[..at], b"connection: close\r\n", &answer[at..]].concat();
    let target = target(server(said, request_bytes(16), true), 2);
    let report = repeated(&target, target.plan(16), SHORT).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
    assert!(report["reconnects"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn an_open_loop_makes_the_calls_that_are_due_and_counts_waiting_as_latency() {
    let target = target(server(right(16), request_bytes(16), false), 8);
    let time = Time {
        seconds: 0.5,
        warm_up: 0.1,
    };
    let report = open(&target, time, 400).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
    let calls = report["calls"].as_u64().unwrap();
    // Fewer where the machine is busy; never more than were due.
    assert!((20..=300).contains(&calls), "{report}");
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let plan = target(address, 3).plan(16);
    let error = Clients::connect(plan, clock::now_ns() + 200_000_000).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn idle_connections_are_held_and_left() {
    let target = target(server(right(16), request_bytes(16), false), 50);
    let report = idle(&target, 2, false, 0.05, 0.0).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
    assert_eq!(report["calls"], 100, "{report}");
    assert_eq!(report["reconnects"], 0, "{report}");
}

#[test]
fn a_stream_that_is_open_has_a_head_and_nothing_more() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\ntransfer-encoding: chunked\r\n\r\n";
    let target = target(server(head.to_vec(), request_bytes(16), false), 20);
    let report = idle(&target, 0, true, 0.05, 0.0).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
}
