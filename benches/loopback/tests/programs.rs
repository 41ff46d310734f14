//! The programs as they are started: floors before their backend under load, the backend under a hand-written client, and how
//! each begins and ends. No proxy is measured here.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A program that serves, stopped when it is dropped.
struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
    first: Value,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = loopback(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let first = serde_json::from_str(&line).unwrap();
        Self { child, said, first }
    }

    fn address(&self) -> SocketAddr {
        self.first["listening"].as_str().unwrap().parse().unwrap()
    }

    /// Stops it as a runner would, and returns its last line.
    fn stop(mut self) -> Value {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&rest).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn loopback(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loopback"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Output, Vec<Value>) {
    let output = loopback(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines = lines.collect();
    (output, lines)
}

/// A floor before its backend.
fn floor(kind: &str, bytes: &str) -> (Server, Server) {
    let echo = Server::start(&[
        "floor-echo",
        "--kind",
        kind,
        "--listen",
        "127.0.0.1:0",
        "--bytes",
        bytes,
        "--for",
        "60",
    ]);
    let backend = echo.address().to_string();
    let floor = Server::start(&[
        "floor",
        "--kind",
        kind,
        "--listen",
        "127.0.0.1:0",
        "--backend",
        &backend,
        "--for",
        "60",
    ]);
    (floor, echo)
}

#[test]
fn floors_carry_calls_of_every_size_for_few_and_for_many() {
    for kind in ["mux", "one-to-one"] {
        for (bytes, connections) in [("16", 1), ("1024", 64), ("65536", 64), ("16", 1000)] {
            let (floor, _echo) = floor(kind, bytes);
            let target = floor.address().to_string();
            let count = connections.to_string();
            // The second load comes after the first one has left, and finds its numbers free again.
            for _ in 0..2 {
                let (output, lines) = run(&[
                    "load",
                    "idle",
                    "--target",
                    &target,
                    "--connections",
                    &count,
                    "--bytes",
                    bytes,
                    "--calls-each",
                    "3",
                    "--hold",
                    "0",
                ]);
                let case = format!("{kind} {bytes} {connections}: {output:?}");
                assert!(output.status.success(), "{case}");
                let report = lines.last().unwrap();
                assert_eq!(report["failures"], 0, "{case}");
                assert_eq!(report["calls"], 3 * connections, "{case}");
            }
            assert!(floor.stop()["cpu_ns"].as_u64().unwrap() > 0);
        }
    }
}

#[test]
fn a_closed_loop_says_where_its_measured_part_begins_and_ends() {
    let (floor, _echo) = floor("mux", "16");
    let target = floor.address().to_string();
    let watched = floor.child.id().to_string();
    let (output, lines) = run(&[
        "load",
        "closed",
        "--target",
        &target,
        "--connections",
        "8",
        "--seconds",
        "0.5",
        "--warm-up",
        "0.1",
        "--watch",
        &watched,
    ]);
    let [begin, end, report] = &lines[..] else {
        panic!("{output:?}");
    };
    assert_eq!(begin["event"], "begin");
    assert_eq!(end["event"], "end");
    assert!(begin["cpu_ns"].as_u64().unwrap() < end["cpu_ns"].as_u64().unwrap());
    assert_eq!(end["calls"], report["calls"]);
    assert_eq!(report["failures"], 0);
    assert!(report["seconds"].as_f64().unwrap() >= 0.5);
}

#[test]
fn connections_through_a_floor_are_held_and_left() {
    let (floor, _echo) = floor("mux", "16");
    let target = floor.address().to_string();
    let watched = floor.child.id().to_string();
    let (output, lines) = run(&[
        "load",
        "idle",
        "--target",
        &target,
        "--connections",
        "500",
        "--calls-each",
        "3",
        "--hold",
        "0.1",
        "--leave-then-hold",
        "0.1",
        "--watch",
        &watched,
    ]);
    let [holding, left, report] = &lines[..] else {
        panic!("{output:?}");
    };
    assert_eq!(holding["event"], "holding");
    assert_eq!(holding["connections"], 500);
    assert!(holding["cpu_ns"].as_u64().unwrap() > 0);
    assert_eq!(left["event"], "left");
    assert_eq!(report["calls"], 1500);
    assert_eq!(report["failures"], 0);
}

#[test]
fn the_backend_answers_a_frame_client_by_the_port_it_came_in_on() {
    let echo = Server::start(&[
        "echo",
        "--listen",
        "unary=127.0.0.1:0",
        "--listen",
        "stream=127.0.0.1:0",
        "--messages",
        "3",
        "--bytes",
        "4",
        "--for",
        "60",
    ]);
    let body = b"\0\0\0\0\x04abcd";
    for (mode, messages) in [("unary", 1), ("stream", 3)] {
        let address = echo.first["all"][mode].as_str().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        request.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0");
        request.extend_from_slice(b"\0\0\x01\x01\x04\0\0\0\x01\x82");
        request.extend_from_slice(b"\0\0\x09\0\x01\0\0\0\x01");
        request.extend_from_slice(body);
        stream.write_all(&request).unwrap();
        let mut heads = Vec::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let mut payload = vec![0; usize::from(head[2])];
            stream.read_exact(&mut payload).unwrap();
            if head[8] == 1 {
                heads.push((head[3], head[4]));
                if mode == "unary" && head[3] == 0 {
                    assert_eq!(payload, body);
                }
            }
            if head[3] == 1 && head[4] & 1 != 0 {
                break;
            }
        }
        let mut expected = vec![(1, 4)];
        expected.extend(vec![(0, 0); messages]);
        expected.push((1, 5));
        assert_eq!(heads, expected, "{mode}");
    }
    let last = echo.stop();
    assert_eq!(last["calls"], 2);
    assert_eq!(last["messages"], 4);
    assert_eq!(last["connections"], 2);
}

#[test]
fn clients_of_http_2_make_calls_and_streams_and_are_held() {
    let echo = Server::start(&[
        "echo",
        "--listen",
        "unary=127.0.0.1:0",
        "--listen",
        "stream=127.0.0.1:0",
        "--listen",
        "bulk=127.0.0.1:0",
        "--for",
        "60",
    ]);
    let time = ["--seconds", "0.3", "--warm-up", "0.1"];
    for (kind, mode, per_call, more) in [
        (
            "closed",
            "unary",
            1,
            &["--connections", "4", "--streams", "8"][..],
        ),
        (
            "closed",
            "unary",
            1,
            &["--connections", "64", "--bytes", "60000"],
        ),
        (
            "stream",
            "stream",
            1000,
            &["--connections", "2", "--streams", "4"],
        ),
        (
            "bulk",
            "bulk",
            64,
            &["--connections", "2", "--streams", "2"],
        ),
    ] {
        let address = echo.first["all"][mode].as_str().unwrap();
        let arguments = [
            &["load", kind, "--native", "--target", address],
            more,
            &time,
        ]
        .concat();
        let (output, lines) = run(&arguments);
        assert!(output.status.success(), "{output:?}");
        let report = lines.last().unwrap();
        assert_eq!(report["failures"], 0, "{report}");
        assert!(report["calls"].as_u64().unwrap() > 0, "{report}");
        assert!(
            report["messages"].as_u64()
                >= report["calls"].as_u64().map(|calls| calls * per_call / 2),
            "{report}"
        );
        assert_eq!(report["reconnects"], 0, "{report}");
    }
    let address = echo.first["all"]["unary"].as_str().unwrap();
    let (_, lines) = run(&[
        "load",
        "idle",
        "--native",
        "--target",
        address,
        "--connections",
        "200",
        "--streams",
        "3",
        "--calls-each",
        "2",
        "--hold",
        "0.1",
    ]);
    assert_eq!(lines[0]["connections"], 200, "{lines:?}");
    assert_eq!(lines.last().unwrap()["calls"], 1200, "{lines:?}");
    for refused in [
        &["open", "--rate", "10"][..],
        &["tick"],
        &["stalled", "--hold", "0"],
        &["closed", "--text"],
    ] {
        let (output, _) = run(&[
            &["load"],
            refused,
            &["--native", "--target", address, "--connections", "1"],
        ]
        .concat());
        assert!(!output.status.success(), "{refused:?}");
    }
}

#[test]
fn programs_end_by_themselves_and_say_what_is_wrong() {
    let (output, lines) = run(&["echo", "--listen", "hang=127.0.0.1:0", "--for", "0"]);
    assert!(output.status.success());
    assert_eq!(lines.len(), 2);

    let taken = lines_of_a_taken_port();
    assert!(taken.contains("cannot listen on 127.0.0.1:"), "{taken}");

    let (output, _) = run(&["echo", "--listen", "nothing=127.0.0.1:0"]);
    assert!(!output.status.success());
}

fn lines_of_a_taken_port() -> String {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let (output, _) = run(&[
        "floor-echo",
        "--kind",
        "mux",
        "--bytes",
        "1",
        "--listen",
        &address,
    ]);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}
