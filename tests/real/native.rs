//! Plain gRPC over HTTP/2 through wharf, by programs that others wrote: grpcio, grpcurl and ghz; and gRPC-Web over HTTP/2 by
//! curl. What each answer has to be is said by the clients themselves (`tests/peers/grpcio_client.py`) or here.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::peers::Wharf;
use crate::peers::echo::{Echo, SAY, Say, Stack, peers};
use crate::peers::program::{Program, START};
use crate::peers::wharf::tools;

/// The same sentences for each stack behind wharf.
macro_rules! for_each_stack {
    ($($(#[$about:meta])* fn $name:ident($wharf:ident: &Wharf, $backend:ident: &Echo) $body:block)+) => {
        $($(#[$about])* fn $name($wharf: &Wharf, $backend: &Echo) $body)+

        mod grpcio {
            $(#[test] fn $name() { super::run(super::Stack::Grpcio, super::$name); })+
        }

        mod tonic {
            $(#[test] fn $name() { super::run(super::Stack::Tonic, super::$name); })+
        }
    };
}

fn run(stack: Stack, test: fn(&Wharf, &Echo)) {
    // Each has its own: grpcio answers with 64 threads, which a hundred calls that wait would take from other tests.
    let backend = Echo::start(stack, &[]);
    let wharf = Wharf::before(backend.address);
    test(&wharf, &backend);
}

/// One case of the grpcio client, to its end; `id` is what its calls are known by.
fn grpcio(wharf: &Wharf, case: &str, id: &str) {
    let mut command = Command::new(tools().join("py/bin/python"));
    command
        .arg(peers().join("grpcio_client.py"))
        .args([&wharf.address.to_string(), case, id]);
    let output = output(&mut command);
    assert!(
        output.status.success() && output.stdout == b"fine\n",
        "{case}: {}",
        text(&output)
    );
}

fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run scripts/tools"))
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    format!("{said}{}", String::from_utf8_lossy(&output.stderr))
}

/// A name for calls that no other test has.
fn own(wharf: &Wharf, what: &str) -> String {
    format!("native-{what}-{}", wharf.address.port())
}

/// grpcurl with the service's own description, up to the address; what follows is the method.
fn grpcurl(wharf: &Wharf, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools().join("go/bin/grpcurl"));
    command
        .args(["-plaintext", "-proto", "echo.proto", "-import-path"])
        .arg(peers())
        .args(["-connect-timeout", "20"])
        .args(arguments)
        .arg(wharf.address.to_string());
    command
}

/// One method with that content, told in JSON; what grpcurl prints if all went well.
fn said(wharf: &Wharf, method: &str, arguments: &[&str], data: &str) -> String {
    let mut arguments = arguments.to_vec();
    arguments.extend(["-max-time", "60", "-d", data]);
    let output = output(grpcurl(wharf, &arguments).arg(format!("wharf.test.v1.Echo/{method}")));
    assert!(output.status.success(), "{method}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// ghz: so many calls of a method on one connection, fifty at a time; its summary.
fn ghz(wharf: &Wharf, method: &str, calls: u32, arguments: &[&str], data: &str) -> String {
    let own_timeout = if arguments.contains(&"--timeout") {
        &[][..]
    } else {
        &["--timeout", "60s"]
    };
    let mut command = Command::new(tools().join("go/bin/ghz"));
    command
        .args(["--insecure", "--connections", "1", "--concurrency", "50"])
        .args(["--call", &format!("wharf.test.v1.Echo.{method}")])
        .args(["--total", &calls.to_string()])
        .args(own_timeout)
        .arg("--proto")
        .arg(peers().join("echo.proto"))
        .args(arguments)
        .args(["--data", data])
        .arg(wharf.address.to_string());
    let output = output(&mut command);
    assert!(output.status.success(), "{method}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// That many, and nothing else: `[OK]   10000 responses`.
fn assert_all(summary: &str, code: &str, calls: u32) {
    let codes: Vec<Vec<&str>> = summary
        .lines()
        .filter(|line| line.trim_end().ends_with(" responses"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [vec![
        format!("[{code}]"),
        calls.to_string(),
        "responses".into(),
    ]];
    assert_eq!(codes, expected, "{summary}");
}

for_each_stack! {
    fn all_four_kinds_of_stream_pass(wharf: &Wharf, _backend: &Echo) {
        grpcio(wharf, "kinds", "");
        wharf.wait_call_line(&["wharf.test.v1.Echo/Talk", "OK"]);
    }

    fn messages_of_every_awkward_size_pass(wharf: &Wharf, _backend: &Echo) {
        grpcio(wharf, "sizes", "");
    }

    fn metadata_passes_both_ways_as_text_and_as_bytes(wharf: &Wharf, _backend: &Echo) {
        grpcio(wharf, "metadata", "");
    }

    fn all_codes_pass_with_their_message_and_details(wharf: &Wharf, _backend: &Echo) {
        grpcio(wharf, "failures", "");
        wharf.wait_call_line(&["wharf.test.v1.Echo/Say", "NOT_FOUND"]);
    }

    fn a_deadline_is_told_and_kept_and_the_backend_is_left(wharf: &Wharf, backend: &Echo) {
        let own = own(wharf, "deadline");
        grpcio(wharf, "deadline", &own);
        backend.wait_cancelled(&format!("{own}-unary"));
        backend.wait_cancelled(&format!("{own}-stream"));
    }

    fn who_cancels_is_gone_and_disturbs_nobody_on_the_same_connection(wharf: &Wharf, backend: &Echo) {
        let own = own(wharf, "cancel");
        grpcio(wharf, "cancel", &own);
        backend.wait_cancelled(&format!("{own}-unary"));
        let (_, sent) = backend.wait_cancelled(&format!("{own}-stream"));
        assert_eq!(sent, 2);
        wharf.wait_call_line(&["wharf.test.v1.Echo/Stream", "CANCELLED"]);
    }

    fn ten_thousand_calls_pass_on_one_connection(wharf: &Wharf, _backend: &Echo) {
        grpcio(wharf, "many", "");
    }

    fn grpcurl_makes_all_four_kinds_of_call(wharf: &Wharf, _backend: &Echo) {
        let whole = said(wharf, "Say", &[], r#"{"text":"grüß dich"}"#);
        assert!(whole.contains(r#""text": "grüß dich""#), "{whole}");
        let whole = said(wharf, "Stream", &[], r#"{"count":30}"#);
        assert_eq!(whole.matches(r#""number""#).count(), 30, "{whole}");
        assert!(whole.contains(r#""number": 30"#), "{whole}");
        let whole = said(wharf, "Upload", &[], r#"{"payload":"AAAA"}{"payload":"AAAAAA=="}{}"#);
        assert!(whole.contains(r#""messages": 3"#) && whole.contains(r#""bytes": "7""#), "{whole}");
        let whole = said(wharf, "Talk", &[], r#"{"text":"one"}{"text":"two"}{"text":"three"}"#);
        let texts: Vec<&str> = whole.lines().filter(|line| line.contains(r#""text""#)).map(str::trim).collect();
        assert_eq!(texts, [r#""text": "one","#, r#""text": "two","#, r#""text": "three","#], "{whole}");
    }

    fn grpcurl_sees_metadata_of_head_and_end(wharf: &Wharf, _backend: &Echo) {
        let fields = ["-v", "-H", "x-bytes-bin: AAEC/w==", "-H", "head-bytes-bin: AAEC/w==", "-H", "head-plain: early",
            "-H", "trail-bytes-bin: AAEC/w==", "-H", "trail-plain: late"];
        let whole = said(wharf, "Say", &fields, "{}");
        let part = |title: &str| {
            let (_, rest) = whole.split_once(title).unwrap_or_else(|| panic!("{title} in {whole}"));
            rest.split("\n\n").next().unwrap_or_default().to_owned()
        };
        let (head, end) = (part("Response headers received:\n"), part("Response trailers received:\n"));
        assert!(head.contains("head-plain: early") && head.contains("head-bytes-bin: AAEC/w=="), "{whole}");
        assert!(end.contains("trail-plain: late") && end.contains("trail-bytes-bin: AAEC/w=="), "{whole}");
        let sent = part("Response contents:\n");
        assert!(sent.contains("\"name\": \"x-bytes-bin\",\n      \"value\": \"AAEC/w==\""), "{whole}");
    }

    fn grpcurl_is_told_why_a_call_failed_and_that_its_time_is_over(wharf: &Wharf, backend: &Echo) {
        let own = own(wharf, "grpcurl");
        let failing = r#"{"failure":{"code":5,"message":"not here"}}"#;
        let held = format!(r#"{{"count":9,"hold_after":2,"id":"{own}"}}"#);
        for (method, seconds, data, needles) in [
            ("Say", "60", failing, ["Code: NotFound", "Message: not here"]),
            ("Stream", "0.5", &held, ["Code: DeadlineExceeded", "Message: "]),
        ] {
            let mut command = grpcurl(wharf, &["-max-time", seconds, "-d", data]);
            let output = output(command.arg(format!("wharf.test.v1.Echo/{method}")));
            assert!(!output.status.success());
            for needle in needles {
                assert!(text(&output).contains(needle), "{method}: {}", text(&output));
            }
        }
        backend.wait_cancelled(&own);
    }

    fn grpcurl_that_is_killed_in_a_stream_cancels_it(wharf: &Wharf, backend: &Echo) {
        let own = own(wharf, "killed");
        let held = format!(r#"{{"count":9,"hold_after":2,"id":"{own}"}}"#);
        let mut command = grpcurl(wharf, &["-d", &held]);
        let program = Program::start("grpcurl", command.arg("wharf.test.v1.Echo/Stream"));
        program.wait_line(START, |line| line.contains(r#""number": 2"#).then_some(()));
        let killed = Instant::now();
        program.kill();
        let (_, sent) = backend.wait_cancelled(&own);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        assert_eq!(sent, 2);
    }

    fn ghz_makes_ten_thousand_calls_on_one_connection(wharf: &Wharf, _backend: &Echo) {
        let metadata = ["--metadata", r#"{"x-plain":"a","x-bytes-bin":"AAEC"}"#];
        let summary = ghz(wharf, "Say", 10_000, &metadata, r#"{"text":"hi","payload":"AAAA"}"#);
        assert_all(&summary, "OK", 10_000);
    }

    fn ghz_makes_streams_of_every_kind(wharf: &Wharf, _backend: &Echo) {
        for (method, data) in [
            ("Stream", r#"{"count":20,"size":100}"#),
            ("Upload", r#"[{"payload":"AAAA"},{"payload":"AAAA"},{}]"#),
            ("Talk", r#"[{"text":"one"},{"text":"two"},{"text":"three"}]"#),
        ] {
            assert_all(&ghz(wharf, method, 500, &[], data), "OK", 500);
        }
    }

    fn ghz_counts_deadlines_that_were_not_kept(wharf: &Wharf, _backend: &Echo) {
        let summary = ghz(wharf, "Say", 100, &["--timeout", "200ms"], r#"{"delay_ms":20000}"#);
        assert_all(&summary, "DeadlineExceeded", 100);
    }

    /// curl speaks HTTP/2 without asking first, as gRPC clients do.
    fn grpc_web_over_http_2_ends_with_its_trailer_frame(wharf: &Wharf, _backend: &Echo) {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        for (kind, encode) in [("application/grpc-web+proto", false), ("application/grpc-web-text", true)] {
            let mut body = crate::client::frame(0, &Say::text("hi").to_bytes());
            if encode {
                body = base64(&body).into_bytes();
            }
            let file = folder.join(own(wharf, if encode { "text" } else { "binary" }));
            std::fs::write(&file, body).expect("a folder for it");
            let output = output(Command::new("curl")
                .args(["--silent", "--show-error", "--max-time", "20", "--http2-prior-knowledge", "-i"])
                .args(["-H", &format!("content-type: {kind}"), "-H", "x-grpc-web: 1"])
                .arg("--data-binary").arg(format!("@{}", file.display()))
                .arg(format!("{}{SAY}", wharf.url())));
            let _ = std::fs::remove_file(&file);
            let whole = text(&output);
            assert!(whole.starts_with("HTTP/2 200"), "{whole}");
            let (head, body) = whole.split_once("\r\n\r\n").expect("a head");
            assert!(head.to_lowercase().contains(&format!("content-type: {}", &kind[..20])), "{head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
            // grpcio adds an empty message, so where it is text the last frame is not always the same characters.
            let body = if encode { unbase64(body) } else { body.to_owned() };
            let (_, end) = body.split_once("grpc-status:").expect("the frame that ends it");
            assert!(end.starts_with("0\r\n"), "{whole:?}");
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn compressed_messages_pass_as_they_are() {
    let backend = Echo::start(Stack::Grpcio, &["--gzip"]);
    let wharf = Wharf::before(backend.address);
    grpcio(&wharf, "compressed", "");
}

/// Each frame is padded by itself.
fn unbase64(text: &str) -> String {
    use base64::Engine as _;
    let mut plain = Vec::new();
    for piece in text.trim().split('=').filter(|piece| !piece.is_empty()) {
        let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(piece);
        plain.extend(decoded.expect("base64"));
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Reflection is a stream both ways, and grpcurl knows nothing before it has asked.
#[test]
fn grpcurl_lists_what_a_backend_offers() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let mut command = Command::new(tools().join("go/bin/grpcurl"));
    command
        .args(["-plaintext", "-max-time", "60"])
        .arg(wharf.address.to_string())
        .arg("list");
    let output = output(&mut command);
    assert!(
        text(&output).contains("wharf.test.v1.Echo"),
        "{}",
        text(&output)
    );
}
