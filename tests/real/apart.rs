//! One caller before a real server, which all callers of a worker reach over one connection: what he says badly ends the call that
//! it came with, and no other, and so does his leaving.
//!
//! The C core remembers of an entry in its table of fields that the value could not be read, also for those who only take the
//! name from there (RFC 7541 §6.2.1).

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use wharf::wire::http2::{PREFACE, flag, kind};

use crate::client::{Call, frame};
use crate::peers::Wharf;
use crate::peers::echo::{Echo, SAY, STREAM, Say, Stack, Stream, peers};
use crate::peers::wharf::tools;

/// Names, what the C core cannot read under them, and what it can.
const STRICT: [(&str, &[&str], &[&str]); 5] = [
    (
        "tok-bin",
        &["!!!", "QR", "AA==AA==", "Q-_Q"],
        &["AAAA", "QQ", "QQ==", "AAAB"],
    ),
    ("grpc-tags-bin", &["!!!"], &["AAAA", "AAAB"]),
    (
        "lb-cost-bin",
        &["AAAA"],
        &["AAAAAAAAAAA", "AAAAAAAAAAAAAAAA"],
    ),
    (
        "grpc-encoding",
        &["zstd", "GZIP"],
        &["gzip", "identity", "deflate"],
    ),
    (
        "grpc-previous-rpc-attempts",
        &["abc", "-1", "4294967296"],
        &["1", "2", "0"],
    ),
];

/// The connections to that port of loopback, each by the end of who opened it: `/proc/net/tcp` (proc_net_tcp(5)). Where others
/// come and go while that is read, a row may stand in it twice.
fn connections(port: u16) -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("this is Linux");
    let own = format!("0100007F:{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace());
    rows.filter_map(|mut row| {
        let (local, remote, state) = (row.nth(1)?, row.next()?, row.next()?);
        // Established.
        (remote == own && state == "01").then(|| local.to_owned())
    })
    .collect()
}

/// A call by gRPC-Web over HTTP/1.1, from a client of its own: its status, and what it says.
fn by_page(wharf: &Wharf, name: &str, value: &str) -> (u32, String) {
    let call = Call::new(SAY).message(Say::text("hi").to_bytes());
    let answer = call.field(name, value).make(wharf.address);
    (answer.status(), answer.status_message())
}

/// A call by plain gRPC over HTTP/2, from a client of its own that says what no library would.
fn by_curl(wharf: &Wharf, name: &str, value: &str) -> (u32, String) {
    let body = frame(0, &Say::text("hi").to_bytes());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("apart-{}", wharf.address.port()));
    std::fs::write(&file, body).expect("a folder for it");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--http2-prior-knowledge",
        ])
        // The heads of an answer, its trailers among them, and not its body.
        .args(["-D", "-", "-o", "/dev/null"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", &format!("{name}: {value}")])
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg(format!("{}{SAY}", wharf.url()))
        .output()
        .expect("curl is installed");
    let _ = std::fs::remove_file(&file);
    let heads = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let mut lines = heads.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(own, value)| (own == name).then(|| value.trim().to_owned()))
    };
    let status = field("grpc-status").unwrap_or_else(|| panic!("no status: {output:?}"));
    let message = field("grpc-message").unwrap_or_default();
    (status.parse().expect("a number"), message)
}

/// A call of grpcurl's, which encodes what it is told in base64 by itself.
fn by_grpcurl(wharf: &Wharf, field: &str) {
    let output = Command::new(tools().join("go/bin/grpcurl"))
        .args(["-plaintext", "-proto", "echo.proto", "-import-path"])
        .arg(peers())
        .args(["-max-time", "20", "-H", field, "-d", "{}"])
        .arg(wharf.address.to_string())
        .arg("wharf.test.v1.Echo/Say")
        .output()
        .expect("run scripts/tools");
    assert!(output.status.success(), "{field}: {output:?}");
}

type Make = fn(&Wharf, &str, &str) -> (u32, String);

fn one_connection(backend: SocketAddr) -> String {
    let mut all = connections(backend.port());
    assert_eq!(all.len(), 1, "{all:?}");
    all.pop_first().expect("there is one")
}

/// Bad calls of one kind of caller, and then good ones of both, each by a client of its own.
fn bad_then_good(bad_by: Make) {
    let backend = Echo::start(Stack::Grpcio, &[]);
    let address = backend.address.to_string();
    for (name, bad, good) in STRICT {
        for value in bad {
            // A name that the table knows, and one that it does not.
            for known in [false, true] {
                let wharf = Wharf::start(&["--backend", &address, "--workers", "1"]);
                if known {
                    assert_eq!(by_page(&wharf, name, good[0]).0, 0, "{name}: {}", good[0]);
                }
                let (status, message) = bad_by(&wharf, name, value);
                assert_eq!(status, 13, "{name}: {value}");
                assert!(
                    message.contains("Error parsing") && message.contains(name),
                    "{message}"
                );
                let shared = one_connection(backend.address);
                for call in [by_page as Make, by_curl] {
                    for value in good {
                        assert_eq!(
                            call(&wharf, name, value),
                            (0, String::new()),
                            "{name}: {value}"
                        );
                    }
                }
                assert_eq!(one_connection(backend.address), shared);
                wharf.program.kill();
                wharf.program.wait(Duration::from_secs(10));
            }
        }
    }
    let wharf = Wharf::start(&["--backend", &address, "--workers", "1"]);
    assert_eq!(bad_by(&wharf, "tok-bin", "!!!").0, 13);
    let shared = one_connection(backend.address);
    by_grpcurl(&wharf, "tok-bin: AAAA");
    assert_eq!(one_connection(backend.address), shared);
}

#[test]
fn m_18_what_a_page_says_badly_spoils_nobody_elses_call() {
    bad_then_good(by_page);
}

#[test]
fn m_18_what_a_native_caller_says_badly_spoils_nobody_elses_call() {
    bad_then_good(by_curl);
}

/// As many calls as a caller may have open.
const CALLS: u32 = 90;

/// How somebody ends his calls.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// As they begin.
    AtOnce,
    /// A moment later, all of them together.
    Together,
    /// They say nothing that could be answered.
    Broken,
    /// They have a millisecond.
    Late,
}

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection of HTTP/2 on which so many calls begin and end, in as few writes as there can be.
fn leave(address: SocketAddr, ends: Ends) {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", STREAM),
        (":authority", "echo"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    if let Ends::Late = ends {
        fields.push(("grpc-timeout", "1m"));
    }
    let mut head = Vec::new();
    for text in fields
        .into_iter()
        .flat_map(|(name, value)| ["", name, value])
    {
        // A literal that is not kept, then its name and its value (RFC 7541 §6.2.2).
        head.push(u8::try_from(text.len()).expect("a short one"));
        head.extend(text.as_bytes());
    }
    let held = Stream {
        count: 9,
        hold_after: 1,
        ..Stream::default()
    };
    let body = match ends {
        Ends::Broken => b"\0\xff\xff\xff\xffx".to_vec(),
        _ => frame(0, &held.to_bytes()),
    };
    let (mut first, mut second) = (PREFACE.to_vec(), Vec::new());
    first.extend(http2_frame(kind::SETTINGS, 0, 0, b""));
    for stream in (0..CALLS).map(|number| 1 + 2 * number) {
        first.extend(http2_frame(kind::HEADERS, flag::END_HEADERS, stream, &head));
        first.extend(http2_frame(kind::DATA, flag::END_STREAM, stream, &body));
        let reset = http2_frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes());
        match ends {
            Ends::AtOnce => first.extend(reset),
            Ends::Together => second.extend(reset),
            Ends::Broken | Ends::Late => {}
        }
    }
    let mut socket = TcpStream::connect(address).expect("wharf listens");
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    socket.write_all(&first).expect("it is taken");
    thread::sleep(Duration::from_micros(500));
    socket.write_all(&second).expect("it is taken");
    // What is answered is of no interest; but it is read, as callers do.
    let mut answered = [0; 16 << 10];
    while socket.read(&mut answered).is_ok_and(|n| n > 0) {}
}

#[test]
fn u_32_who_ends_all_his_calls_at_once_costs_nobody_else_his() {
    for stack in [Stack::Tonic, Stack::Grpcio] {
        let backend = Echo::start(stack, &[]);
        let address = backend.address.to_string();
        let wharf = Wharf::start(&["--backend", &address, "--workers", "1"]);
        for ends in [Ends::AtOnce, Ends::Together, Ends::Broken, Ends::Late] {
            let held = Stream {
                count: 20,
                interval_ms: 50,
                ..Stream::default()
            };
            let mut other = Call::new(STREAM)
                .message(held.to_bytes())
                .begin(wharf.address);
            other.message();
            let shared = one_connection(backend.address);
            for _ in 0..6 {
                leave(wharf.address, ends);
            }
            assert_eq!(other.rest().status(), 0, "{stack:?} {ends:?}");
            assert_eq!(
                one_connection(backend.address),
                shared,
                "{stack:?} {ends:?}"
            );
        }
    }
}
