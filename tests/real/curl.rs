//! Programs that others wrote as callers: curl with raw bytes, and buf's own gRPC-Web client.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::peers::Wharf;
use crate::peers::echo::{Echo, Failure, SAY, STREAM, Say, Stack, peers};
use crate::peers::wharf::{nowhere, tools};

const CHECK: &str = "/grpc.health.v1.Health/Check";

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run scripts/tools"));
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it is our child")
}

/// What curl prints for a call.
fn curl(wharf: &Wharf, path: &str, arguments: &[&str], body: &[u8]) -> Output {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--data-binary",
            "@-",
        ])
        .args(arguments)
        .arg(format!("{}{path}", wharf.url()));
    run(&mut command, body)
}

const BINARY: &str = "content-type: application/grpc-web+proto";
const TEXT: &str = "content-type: application/grpc-web-text";

#[test]
fn a_health_check_by_curl_is_these_bytes() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    let arguments = ["-H", BINARY, "-H", "x-grpc-web: 1"];
    let output = curl(&wharf, CHECK, &arguments, &[0; 5]);
    let mut expected = vec![0, 0, 0, 0, 2, 8, 1];
    expected.extend(b"\x80\0\0\0\x0fgrpc-status:0\r\n");
    // tonic sends a status of OK without a message; grpcio would add an empty one.
    assert_eq!(
        output.stdout,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_health_check_in_text_is_these_characters_wherever_the_padding_stands() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    // Five zero bytes each time: in one piece, as two and two and one, as one by one.
    for body in ["AAAAAAA=", "AAA=AAA=AA==", "AA==AA==AA==AA==AA=="] {
        let output = curl(&wharf, CHECK, &["-H", TEXT], body.as_bytes());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "AAAAAAIIAQ==gAAAAA9ncnBjLXN0YXR1czowDQo=", "{body}");
    }
}

#[test]
fn the_accept_field_chooses_between_the_two_forms() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    let table = [
        (TEXT, "AAAAAAA=", "application/grpc-web+proto", false),
        (TEXT, "AAAAAAA=", "*/*", true),
        (BINARY, "\0\0\0\0\0", "application/grpc-web-text", true),
        (BINARY, "\0\0\0\0\0", "*/*", false),
    ];
    for (content_type, body, accept, text) in table {
        let accept = format!("accept: {accept}");
        let output = curl(
            &wharf,
            CHECK,
            &["-H", content_type, "-H", &accept],
            body.as_bytes(),
        );
        let expected: &[u8] = if text {
            b"AAAAAAIIAQ=="
        } else {
            b"\0\0\0\0\x02\x08\x01"
        };
        assert!(
            output.stdout.starts_with(expected),
            "{content_type} {accept}"
        );
    }
}

#[test]
fn a_refused_call_is_http_200_with_a_length_and_one_frame() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let down = Wharf::before(nowhere());
    let failure = Some(Failure::new(7, "no entry"));
    let say = crate::client::frame(
        0,
        &Say {
            failure,
            ..Say::default()
        }
        .to_bytes(),
    );
    let arguments = ["-i", "-H", BINARY, "-H", "trail-why: because"];
    for (wharf, status, needles) in [
        (
            &wharf,
            7,
            &["grpc-message:no entry\r\n", "trail-why:because\r\n"][..],
        ),
        (&down, 14, &["grpc-message:"][..]),
    ] {
        let output = curl(wharf, SAY, &arguments, &say);
        let at = output
            .stdout
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let (head, body) = output.stdout.split_at(at);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(!head.contains("grpc-status"), "{head}");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{head}"
        );
        assert_eq!(body[0], 0x80);
        let length = u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize;
        assert_eq!(body.len(), 5 + length, "one frame and no more");
        let text = String::from_utf8_lossy(&body[5..]);
        assert!(
            text.contains(&format!("grpc-status:{status}\r\n")),
            "{text}"
        );
        for needle in needles {
            assert!(text.contains(needle), "{needle} is not in {text}");
        }
    }
}

#[test]
fn curl_sends_a_large_body_after_100_continue() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    let say = Say {
        payload: vec![5; 2_000_000],
        ..Say::default()
    };
    let body = crate::client::frame(0, &say.to_bytes());
    let arguments = ["-v", "-H", BINARY, "-H", "expect: 100-continue"];
    let output = curl(&wharf, SAY, &arguments, &body);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("< HTTP/1.1 100 Continue"), "{log}");
    assert!(output.stdout.len() > 2_000_000);
    assert!(output.stdout.ends_with(b"grpc-status:0\r\n"));
}

#[test]
fn curl_reuses_its_connection() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    let url = format!("{}{CHECK}", wharf.url());
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "-v",
        "--max-time",
        "20",
        "-H",
        TEXT,
        "-d",
        "AAAAAAA=",
    ]);
    command.args([&url, &url, &url]);
    let output = run(&mut command, &[]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        log.matches("Re-using existing connection").count(),
        2,
        "{log}"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.matches("gAAAAA9ncnBjLXN0YXR1czowDQo=").count(),
        3,
        "{text}"
    );
}

fn buf(wharf: &Wharf, path: &str, arguments: &[&str], json: &str) -> Output {
    let mut command = Command::new(tools().join("npm/node_modules/.bin/buf"));
    command
        .args(["curl", "--protocol", "grpcweb", "--schema"])
        .arg(peers().join("echo.proto"))
        .args(arguments)
        .args(["-d", json])
        .arg(format!("{}{path}", wharf.url()));
    run(&mut command, &[])
}

#[test]
fn buf_makes_a_unary_call() {
    for stack in [Stack::Grpcio, Stack::Tonic] {
        let backend = Echo::shared(stack);
        let wharf = Wharf::before(backend.address);
        let output = buf(&wharf, SAY, &["-H", "x-tenant: acme"], r#"{"text":"hi"}"#);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.replace(' ', "").contains(r#""text":"hi""#), "{text}");
        assert!(text.contains("x-tenant"), "{text}");
    }
}

#[test]
fn buf_reads_a_stream() {
    for stack in [Stack::Grpcio, Stack::Tonic] {
        let backend = Echo::shared(stack);
        let wharf = Wharf::before(backend.address);
        let output = buf(&wharf, STREAM, &[], r#"{"count":5,"intervalMs":10}"#);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).replace([' ', '\n'], "");
        let expected: String = (1..=5)
            .map(|number| format!(r#"{{"number":{number}}}"#))
            .collect();
        assert_eq!(text, expected);
    }
}

#[test]
fn buf_reads_the_true_error() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let json = r#"{"failure":{"code":5,"message":"not here, 100 % ü"}}"#;
    let output = buf(&wharf, SAY, &[], json);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("not_found") && text.contains("not here, 100 % ü"),
        "{text}"
    );

    let down = Wharf::before(nowhere());
    let output = buf(&down, SAY, &[], "{}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("unavailable") && !text.contains("HTTP status"),
        "{text}"
    );
}
