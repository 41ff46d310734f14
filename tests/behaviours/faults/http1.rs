//! Rows H1: heads, bodies and the ways to smuggle a request past a parser.
//!
//! Behind everything that is refused stands a good call: were one byte of it read as a request, the backend would see it.
//! Rows that need every split or thousands of mutants stand in `tests/simulation/http1.rs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use wharf::policy::filter::cors::{Cors, OriginPattern, Remedy};
use wharf::policy::{Answer as Answering, Callee, RouteKind, Target};
use wharf::wire::{Code, OutgoingHead, Part, Party, Reason, Reset};

use crate::backend::{Backend, Peer, Request, Seen};
use crate::client::{Answer, Client, PATH, last, message, request, streamed, trailer_frame};
use crate::frames::CANCEL;
use crate::world::{Plan, World};

const OK: &str = "grpc-status:0\r\n";
/// Names by which somebody frames, routes or identifies a request.
const GUARDED: [&str; 18] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "content-type",
    "content-encoding",
    "grpc-timeout",
    "grpc-encoding",
    "origin",
    "authorization",
    "forwarded",
    "via",
    "x-real-ip",
    "x-forwarded-client-cert",
];
/// A chunk with the prefix of a message of two bytes. What stands behind it is inside that message.
const BEGUN: &[u8] = b"5\r\n\0\0\0\0\x02\r\n";

/// A proxy and its backend, with a count of the streams that the backend may have seen.
struct Stand {
    backend: Backend,
    world: World,
    peer: Option<Peer>,
    streams: u32,
}

impl Stand {
    fn new() -> Self {
        Self::with(Plan::default())
    }

    fn with(plan: Plan) -> Self {
        let backend = Backend::new();
        Self {
            world: World::with(plan, &[&backend]),
            backend,
            peer: None,
            streams: 0,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.world.address)
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.get_or_insert_with(|| self.backend.accept())
    }

    /// The next stream is the next in number: none was opened and reset unseen.
    fn count(&mut self, stream: u32) {
        assert_eq!(stream, 2 * self.streams + 1, "a stream too many");
        self.streams += 1;
    }

    /// These bytes are answered with that status, whole, and nothing else comes of them. What was answered.
    fn refuses(&self, bytes: &[u8], status: u16) -> String {
        let what = shown(bytes);
        let mut client = self.client();
        client.send(&[bytes, &request("", &message(b"smuggled"))].concat());
        let answer = client.answer();
        let record = self.world.record();
        assert_eq!(record.http_status, Some(status), "{what}: {record:?}");
        assert_eq!(answer, refusal(status, &record.message), "{what}");
        client.assert_closed();
        assert_eq!(record.refusal, Some("bad_http"), "{what}");
        assert_eq!(
            (record.code, record.by, record.attempts),
            (None, Party::Downstream, 0),
            "{what}"
        );
        record.message
    }

    /// These bytes are one call, and the backend sees it once.
    fn passes(&mut self, bytes: &[u8]) -> Request {
        let mut client = self.client();
        client.send(bytes);
        let call = self.peer().request();
        self.count(call.stream);
        self.peer().answer(call.stream, &message(b"one"));
        assert_eq!(client.answer(), good(), "{}", shown(bytes));
        assert_eq!(self.world.record().reason, Reason::Ok);
        call
    }

    /// The backend has seen nothing but what was counted.
    fn assert_nothing_else(mut self) {
        let call = self.passes(&request("", &message(b"good")));
        assert_eq!(call.body, message(b"good"));
        self.peer().assert_quiet();
    }

    /// A call whose body is broken ends with `reason` at its caller, wherever its answer stands, and is reset at the
    /// backend.
    fn breaks(&mut self, head: &[u8], body: &[u8], detail: &'static str) {
        let what = shown(body);
        let lines = format!("grpc-status:13\r\ngrpc-message:the request is broken: {detail}\r\n");
        let behind = request("", &message(b"smuggled"));
        for sent in [None, Some(8), Some(7)] {
            let mut client = self.client();
            client.send(head);
            let stream = match self.peer().next() {
                Seen::Head {
                    stream, end: false, ..
                } => stream,
                other => panic!("instead of a head: {other:?}"),
            };
            self.count(stream);
            if let Some(bytes) = sent {
                self.peer().grpc_head(stream);
                self.peer().data(stream, &message(b"one")[..bytes], false);
                client.chunked_start(bytes);
            }
            client.try_send(&[body, &behind].concat());
            match sent {
                None => assert_eq!(client.answer(), last(&lines), "{what}"),
                Some(8) => {
                    let end = (trailer_frame(&lines), true);
                    assert_eq!(client.chunked_rest(), end, "{what}");
                }
                Some(_) => assert_eq!(client.chunked_rest(), (Vec::new(), false), "{what}"),
            }
            client.assert_closed();
            loop {
                match self.peer().next() {
                    Seen::Data {
                        stream: own,
                        end: false,
                        ..
                    } if own == stream => {}
                    Seen::Reset {
                        stream: own,
                        code: CANCEL,
                    } if own == stream => break,
                    other => panic!("{what}: instead of a reset: {other:?}"),
                }
            }
            self.peer().assert_quiet();
            let record = self.world.record();
            assert_eq!(
                (record.code, record.reason, record.by, record.aborted),
                (
                    Some(Code::INTERNAL),
                    Reason::ClientProtocol(detail),
                    Party::Downstream,
                    sent == Some(7)
                ),
                "{what}"
            );
        }
    }
}

/// A backend for plain HTTP that answers nobody, and remembers what it was told.
#[derive(Clone, Debug, Default)]
struct Silent {
    calls: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Callee for Silent {
    fn call(&self, _: &OutgoingHead) -> Box<dyn Answering> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::new(self.clone())
    }
}

impl Answering for Silent {
    fn handle_part(&mut self, part: Part) {
        if let Part::End(_) = part {
            self.told.lock().expect("no panic").push("end".to_owned());
        }
    }

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        Poll::Pending
    }
}

/// Where everything is plain HTTP and nobody answers.
fn plain_world(plan: Plan) -> (World, Silent) {
    let silent = Silent::default();
    let mut snapshot = plan.snapshot(&[]);
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody has it yet");
    routes[0].kind = RouteKind::Plain;
    snapshot.backends[0].target = Target::Local(Arc::new(silent.clone()));
    (World::obeying(snapshot), silent)
}

/// Bodies that break their framing: under a good RPC head, and under one of plain HTTP.
fn assert_broken(detail: &'static str, bodies: &[&[u8]]) {
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let mut stand = Stand::new();
    let (plain, silent) = plain_world(Plan::default());
    for body in bodies {
        stand.breaks(head.as_bytes(), body, detail);

        let mut client = Client::new(plain.address);
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.try_send(&[body, &request("", &message(b"smuggled"))[..]].concat());
        let told = format!("the request is broken: {detail}\n");
        assert_eq!(
            client.answer(),
            plain_refusal(400, &told),
            "{}",
            shown(body)
        );
        client.assert_closed();
        let record = plain.record();
        assert_eq!(record.reason, Reason::ClientProtocol(detail));
        assert_eq!((record.code, record.http_status), (None, Some(400)));
    }
    stand.assert_nothing_else();
    assert_eq!(silent.calls.load(Ordering::SeqCst), bodies.len());
    assert_eq!(silent.told.lock().expect("no panic")[..], [""; 0]);
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}

fn phrase(status: u16) -> &'static str {
    let status = StatusCode::from_u16(status).expect("a status");
    status.canonical_reason().expect("a known one")
}

/// What is answered to bytes that are no request.
fn refusal(status: u16, told: &str) -> Answer {
    let allow = match status {
        405 => "allow: GET, POST, OPTIONS\r\n",
        _ => "",
    };
    let connection = match status {
        426 => "upgrade: HTTP/1.1\r\nconnection: close, upgrade\r\n",
        _ => "connection: close\r\n",
    };
    let length = told.len() + 1;
    let phrase = phrase(status);
    Answer {
        head: format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             cache-control: no-store\r\n{allow}content-length: {length}\r\n{connection}\r\n"
        ),
        body: format!("{told}\n").into_bytes(),
        whole: true,
    }
}

/// What a plain call is told whose body went wrong.
fn plain_refusal(status: u16, told: &str) -> Answer {
    let (length, phrase) = (told.len(), phrase(status));
    Answer {
        head: format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n"
        ),
        body: told.as_bytes().to_vec(),
        whole: true,
    }
}

fn good() -> Answer {
    streamed(&[&message(b"one"), &trailer_frame(OK)])
}

/// A whole call with these lines among its fields.
fn call(lines: impl AsRef<[u8]>) -> Vec<u8> {
    let fields: &[u8] = b"content-type: application/grpc-web\r\ncontent-length: 7\r\n";
    let fields = [b"host: wharf.test\r\n", fields, lines.as_ref()].concat();
    raw(format!("POST {PATH} HTTP/1.1"), fields, message(b"hi"))
}

/// The same, but its framing is only what `lines` say.
fn framed(lines: &str, body: &[u8]) -> Vec<u8> {
    let fields = format!("host: wharf.test\r\ncontent-type: application/grpc-web\r\n{lines}");
    raw(format!("POST {PATH} HTTP/1.1"), fields, body)
}

/// The same, with another request line.
fn asked(line: &str) -> Vec<u8> {
    let fields = "host: wharf.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 7\r\n";
    raw(line, fields, message(b"hi"))
}

/// The same, with these for `host`.
fn hosted(line: &str, hosts: &str) -> Vec<u8> {
    let fields = format!("{hosts}content-type: application/grpc-web\r\ncontent-length: 7\r\n");
    raw(line, fields, message(b"hi"))
}

fn raw(line: impl AsRef<[u8]>, fields: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let (line, fields, body) = (line.as_ref(), fields.as_ref(), body.as_ref());
    [line, b"\r\n", fields, b"\r\n", body].concat()
}

/// Each of them is refused with that status, and the backend sees none.
fn assert_refused(status: u16, rows: impl IntoIterator<Item = Vec<u8>>) {
    let stand = Stand::new();
    for bytes in rows {
        stand.refuses(&bytes, status);
    }
    stand.assert_nothing_else();
}

/// A whole call in which `from` is replaced by `to`, everywhere.
fn altered(from: &str, to: &str) -> Vec<u8> {
    let whole = String::from_utf8(call("x: y\r\n")).expect("ASCII");
    whole.replace(from, to).into_bytes()
}

#[test]
fn h1_01_a_bare_line_feed_ends_no_request_line() {
    assert_refused(
        400,
        [altered("HTTP/1.1\r\n", "HTTP/1.1\n"), altered("\r\n", "\n")],
    );
}

#[test]
fn h1_02_a_bare_line_feed_ends_no_field() {
    assert_refused(
        400,
        [
            altered("wharf.test\r\n", "wharf.test\n"),
            altered("x: y\r\n", "x: y\n"),
            altered("content-length: 7\r\n", "content-length: 7\n"),
        ],
    );
}

#[test]
fn h1_03_a_bare_line_feed_ends_no_head() {
    assert_refused(400, [altered("x: y\r\n\r\n", "x: y\r\n\n")]);
}

#[test]
fn h1_04_a_bare_return_stands_in_no_value() {
    assert_refused(
        400,
        [call("x: a\rb\r\n"), call("x: a\r\r\n"), call("x: \r\r\n")],
    );
}

#[test]
fn h1_05_returns_alone_end_no_lines() {
    assert_refused(400, [altered("\r\n", "\r"), altered("x: y\r\n", "x: y\r")]);
}

#[test]
fn h1_06_what_almost_ends_a_head_does_not() {
    assert_refused(
        400,
        [
            altered("\r\n\r\n", "\r\n\rX"),
            altered("\r\n\r\n", "\r\n\r\r\n"),
        ],
    );
}

#[test]
fn h1_07_nul_stands_in_no_head() {
    assert_refused(
        400,
        [
            call("x: a\0b\r\n"),
            call("x\0: a\r\n"),
            altered("POST", "PO\0ST"),
            altered("HTTP/1.1\r\n", "HTTP/1.1\0\r\n"),
        ],
    );
}

#[test]
fn h1_08_a_control_character_stands_in_no_value() {
    let bytes = (1..0x20u8).chain([0x7f]).filter(|byte| *byte != b'\t');
    assert_refused(
        400,
        bytes.map(|byte| call([b"x: a", &[byte][..], b"b\r\n"].concat())),
    );
    let mut stand = Stand::new();
    let seen = stand.passes(&call("x: a\tb\r\n"));
    assert_eq!(seen.field("x"), Some("a\tb"), "a tab is white space");
}

#[test]
fn h1_09_a_value_that_is_not_ascii_is_dropped_or_refused_where_it_decides() {
    let mut stand = Stand::new();
    for name in GUARDED {
        for byte in [0x80, 0xe9, 0xff] {
            let field = [name.as_bytes(), b": a", &[byte], b"\r\n"].concat();
            stand.refuses(&call(field), 400);
        }
    }
    for byte in 0x80..=0xff {
        let field = [b"x: a", &[byte][..], b"\r\nz: 1\r\n"].concat();
        let seen = stand.passes(&call(field));
        assert_eq!((seen.field("x"), seen.field("z")), (None, Some("1")));
        assert_eq!(seen.body, message(b"hi"));
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_10_a_field_does_not_go_on_in_the_next_line() {
    assert_refused(
        400,
        [
            call("x: a\r\n b\r\n"),
            call("x: a\r\n\tb\r\n"),
            call("x:\r\n \r\n"),
            framed("transfer-encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
            framed("transfer-encoding: x\r\n\tchunked\r\n", b"0\r\n\r\n"),
        ],
    );
}

#[test]
fn h1_11_no_space_stands_before_a_colon() {
    assert_refused(
        400,
        [
            call("x : a\r\n"),
            call("x\t: a\r\n"),
            framed("content-length : 7\r\n", &message(b"hi")),
            framed("transfer-encoding\t: chunked\r\n", b"0\r\n\r\n"),
        ],
    );
}

#[test]
fn h1_12_no_space_stands_before_the_first_field() {
    assert_refused(
        400,
        [
            hosted(&format!("POST {PATH} HTTP/1.1"), " host: a\r\n"),
            hosted(&format!("POST {PATH} HTTP/1.1"), "\thost: a\r\n"),
            hosted(&format!("POST {PATH} HTTP/1.1"), " \r\nhost: a\r\n"),
        ],
    );
}

#[test]
fn h1_13_a_field_has_a_name() {
    assert_refused(400, [call(": x\r\n"), call(":\r\n"), call("::\r\n")]);
}

#[test]
fn h1_14_a_name_ends_with_its_colon_on_its_own_line() {
    assert_refused(
        400,
        [
            call("x\r\n"),
            call("x\r\ny: z\r\n"),
            framed("transfer-\r\nencoding: chunked\r\n", b"0\r\n\r\n"),
        ],
    );
}

#[test]
fn h1_15_a_name_is_a_token() {
    let tokens = b"!#$%&'*+-.^_`|~";
    let others = (0x21..=0xffu8)
        .filter(|byte| !byte.is_ascii_alphanumeric() && !tokens.contains(byte) && *byte != b':');
    assert_refused(
        400,
        others.map(|byte| call([b"x", &[byte][..], b"y: a\r\n"].concat())),
    );
}

#[test]
fn h1_16_an_underscore_is_fine_unless_it_imitates_a_field_that_decides() {
    let mut stand = Stand::new();
    for name in [
        "Content_Length",
        "content_length",
        "Transfer_Encoding",
        "TRANSFER_encoding",
        "X_Forwarded_Client_Cert",
        "x-forwarded_for",
        "grpc_timeout",
        "content_type",
        "x_real-ip",
    ] {
        stand.refuses(&call(format!("{name}: 5\r\n")), 400);
    }
    let seen = stand.passes(&call("x_a: 1\r\nmy_content_length: 2\r\n"));
    assert_eq!(seen.field("x_a"), Some("1"));
    assert_eq!(seen.field("my_content_length"), Some("2"));
    stand.assert_nothing_else();
}

#[test]
fn h1_17_one_empty_line_may_stand_before_a_request_and_no_more() {
    let mut stand = Stand::new();
    let whole = call("");
    for before in [&b"\r\n\r\n"[..], b"\n", b"\r\n\n", b"\r\r\n", b"\n\r\n"] {
        stand.refuses(&[before, &whole].concat(), 400);
    }
    let seen = stand.passes(&[b"\r\n", &whole[..]].concat());
    assert_eq!(seen.field(":path"), Some(PATH));
    stand.assert_nothing_else();
}

#[test]
fn h1_18_a_request_line_has_two_single_spaces() {
    let lines = [
        format!("POST  {PATH} HTTP/1.1"),
        format!("POST {PATH}  HTTP/1.1"),
        format!("POST\t{PATH} HTTP/1.1"),
        format!("POST {PATH}\tHTTP/1.1"),
        format!("POST {PATH} HTTP/1.1 "),
        format!("POST {PATH} HTTP/1.1\t"),
        format!(" POST {PATH} HTTP/1.1"),
        format!("POST {PATH} x HTTP/1.1"),
        format!("POST{PATH} HTTP/1.1"),
        "POST HTTP/1.1".to_owned(),
        format!("P(ST {PATH} HTTP/1.1"),
    ];
    assert_refused(400, lines.iter().map(|line| asked(line)));
}

#[test]
fn h1_19_http_0_9_is_not_spoken() {
    assert_refused(
        400,
        [
            b"GET /\r\n".to_vec(),
            b"GET /healthz\r\n\r\n".to_vec(),
            asked("POST /a.B/C"),
        ],
    );
}

#[test]
fn h1_20_a_version_is_1_1_to_the_letter() {
    let line = |version: &str| asked(&format!("POST {PATH} {version}"));
    let wrong = [
        "HTTP/1.2",
        "HTTP/1.9",
        "HTTP/01.1",
        "HTTP/1.01",
        "http/1.1",
        "Http/1.1",
        "HTTP/1.1x",
        "HTTP/1.",
        "HTTP/1",
        "HTTP/11",
        "HTTP/ 1.1",
        "HTTP/+1.1",
        "HTTP/1,1",
        "HTTP/4294967295.255",
        "HTTP/10.1",
        "ICY/1.1",
        "XHTTP/1.1",
    ];
    assert_refused(400, wrong.map(line));
    assert_refused(
        505,
        ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"].map(line),
    );
}

#[test]
fn h1_21_http_1_0_carries_no_call() {
    assert_refused(
        426,
        [
            asked(&format!("POST {PATH} HTTP/1.0")),
            asked(&format!("PUT {PATH} HTTP/1.0")),
            hosted(
                &format!("POST {PATH} HTTP/1.0"),
                "connection: keep-alive\r\n",
            ),
        ],
    );
}

#[test]
fn h1_22_http_1_0_knows_no_transfer_coding() {
    let fields = "host: a\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n";
    assert_refused(
        400,
        ["POST /a.B/C", "GET /healthz", "HEAD /healthz"]
            .map(|line| raw(format!("{line} HTTP/1.0"), fields, b"0\r\n\r\n")),
    );
}

#[test]
fn h1_23_a_body_is_framed_in_one_way() {
    assert_refused(
        400,
        [
            framed(
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                b"0\r\n\r\n",
            ),
            framed(
                "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
                b"0\r\n\r\n",
            ),
            framed(
                "Transfer-Encoding: CHUNKED\r\nCONTENT-LENGTH: 5\r\n",
                b"0\r\n\r\n",
            ),
            framed(
                "content-length: 0\r\ntransfer-encoding: Chunked\r\n",
                b"0\r\n\r\n",
            ),
            raw(
                "GET /healthz HTTP/1.1",
                "host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n",
                b"0\r\n\r\n",
            ),
        ],
    );
}

#[test]
fn h1_24_a_length_is_said_once_though_twice_were_the_same() {
    let lines = "content-length: 7\r\ncontent-length: 7\r\n";
    let zeros = "content-length: 0\r\nContent-Length: 0\r\n";
    assert_refused(400, [framed(lines, &message(b"hi")), framed(zeros, b"")]);
}

#[test]
fn h1_25_two_lengths_are_refused() {
    let rows = [
        ("7", "8"),
        ("8", "7"),
        ("", "7"),
        ("7", ""),
        ("0", "7"),
        ("7", "007"),
    ];
    assert_refused(
        400,
        rows.map(|(a, b)| {
            let lines = format!("content-length: {a}\r\nx: y\r\nContent-Length: {b}\r\n");
            framed(&lines, &message(b"hi"))
        }),
    );
}

#[test]
fn h1_26_a_length_is_no_list() {
    let rows = ["7, 7", "7,7", "7,8", "7,", ",7", "7 7"];
    assert_refused(400, rows.map(length));
}

#[test]
fn h1_27_a_length_is_nothing_but_digits() {
    let rows = [
        "+7", "-0", "-7", "-48", "0x10", "0x7", "1_0", "1Z", "7.0", "7e0", "\"7\"", "1 0", "", "७",
        "7;", "7\x0b",
    ];
    assert_refused(400, rows.map(length));
    // White space around a value is none of it (RFC 9110 §5.5).
    Stand::new().passes(&framed("content-length: \t 7 \t\r\n", &message(b"hi")));
}

#[test]
fn h1_28_a_length_has_no_leading_zeros() {
    assert_refused(400, ["007", "07", "00", "0000000000000000007"].map(length));
}

fn length(value: &str) -> Vec<u8> {
    framed(&format!("content-length: {value}\r\n"), &message(b"hi"))
}

#[test]
fn h1_29_a_length_of_2_to_the_63_and_more_is_refused_and_a_large_one_buffers_nothing() {
    let too_large = [
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551623",
        "99999999999999999999999999999999",
    ];
    assert_refused(400, too_large.map(length));
    // A stream may be as long as it likes; it is the message that is limited, by what its prefix says.
    let mut stand = Stand::new();
    let mut client = stand.client();
    client.send(&framed(
        "content-length: 9223372036854775807\r\n",
        b"\0\xff\xff\xff\xff",
    ));
    let told = "grpc-status:8\r\ngrpc-message:a message of the request is larger than \
                limits.message_bytes (4194304 bytes)\r\n";
    assert_eq!(client.answer(), last(told));
    client.assert_closed();
    assert_eq!(
        stand.world.record().reason,
        Reason::MessageTooLarge(4 << 20)
    );
    // Its connection was begun; a stream was not.
    stand.peer().assert_quiet();
    stand.assert_nothing_else();
}

#[test]
fn h1_30_a_body_is_chunked_once() {
    assert_refused(
        400,
        [
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked,chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding:\r\n",
        ]
        .map(|lines| framed(lines, b"0\r\n\r\n")),
    );
}

#[test]
fn h1_31_chunked_is_the_one_coding_that_is_known() {
    let coded = |value: &str| framed(&format!("transfer-encoding: {value}\r\n"), b"0\r\n\r\n");
    let wrong = [
        "identity",
        "xchunked",
        "chunkedx",
        ",chunked",
        "chunked,",
        "chunked;q=1",
        "chunked ;a=b",
        "",
        "\x0bchunked",
        "\"chunked\"",
        "chunked identity",
        "chunked, gzip",
        "gzip",
        "identity, chunked",
    ];
    assert_refused(400, wrong.map(coded));
    assert_refused(
        501,
        ["gzip, chunked", "GZIP,Chunked", "br, zstd, chunked"].map(coded),
    );
    let mut stand = Stand::new();
    for value in ["chunked", "Chunked", "CHUNKED", "\t chunked \t"] {
        let chunks = b"7\r\n\0\0\0\0\x02hi\r\n0\r\n\r\n";
        let seen = stand.passes(&framed(&format!("transfer-encoding: {value}\r\n"), chunks));
        assert_eq!(seen.body, message(b"hi"));
        assert_eq!(seen.field("transfer-encoding"), None);
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_32_a_chunk_size_is_not_empty() {
    let begun = [BEGUN, b"\r\nhi\r\n0\r\n\r\n"].concat();
    assert_broken(
        "bad chunk size",
        &[b"\r\n", b"\r\nhi\r\n0\r\n\r\n", b"\r\n\r\n", &begun],
    );
}

#[test]
fn h1_33_an_extension_is_no_chunk_size() {
    let begun = [BEGUN, b";\r\n"].concat();
    assert_broken("bad chunk size", &[b";\r\n", b";a=b\r\n\r\n", &begun]);
}

#[test]
fn h1_34_a_bare_line_feed_ends_no_extension() {
    assert_broken(
        "bad chunk extension",
        &[
            b"5;\n\0\0\0\0\x02\r\n",
            b"5;a=b\n\0\0\0\0\x02\r\n",
            b"2;\nxx\r\n0\r\n\r\n",
            b"0;\n\r\n",
        ],
    );
    assert_broken("bad chunk size", &[b"5\n\0\0\0\0\x02\r\n", b"0\n\n"]);
}

#[test]
fn h1_35_a_control_character_stands_in_no_extension() {
    assert_broken(
        "bad chunk extension",
        &[
            b"5;a\0b\r\n\0\0\0\0\x02\r\n",
            b"5;\x01\r\n",
            b"5;a=\x7f\r\n",
            b"5;\x0b\r\n",
            b"0;\0\r\n\r\n",
        ],
    );
}

#[test]
fn h1_36_a_bare_return_ends_no_chunk_line() {
    assert_broken(
        "chunk line does not end with CRLF",
        &[
            b"5;a\rb\r\n\0\0\0\0\x02\r\n",
            b"5\r\r;\n",
            b"5;\r\r\n",
            b"5\r\0\0\0\0\x02\r\n",
            b"0\rX",
        ],
    );
}

#[test]
fn h1_37_no_space_stands_behind_a_chunk_size() {
    assert_broken(
        "bad chunk size",
        &[
            b"5 \r\n\0\0\0\0\x02\r\n",
            b"5\t\r\n\0\0\0\0\x02\r\n",
            b"5 5\r\n",
            b"0 \r\n\r\n",
        ],
    );
}

#[test]
fn h1_38_an_extension_is_dropped_with_the_space_before_it() {
    let mut stand = Stand::new();
    for chunks in [
        &b"7 ;a=b\r\n\0\0\0\0\x02hi\r\n0\r\n\r\n"[..],
        b"7\t ;a\r\n\0\0\0\0\x02hi\r\n0;z=\"y\"\r\n\r\n",
        b"5;\r\n\0\0\0\0\x02\r\n2;a;b=c\r\nhi\r\n0 ;x\r\n\r\n",
    ] {
        let seen = stand.passes(&framed("transfer-encoding: chunked\r\n", chunks));
        assert_eq!(seen.body, message(b"hi"));
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_39_a_chunk_size_is_nothing_but_hexadecimal_digits() {
    assert_broken(
        "bad chunk size",
        &[
            b"+5\r\n\0\0\0\0\x02\r\n",
            b"-5\r\n\0\0\0\0\x02\r\n",
            b"0x5\r\n\0\0\0\0\x02\r\n",
            b"5_0\r\n",
            b" 5\r\n\0\0\0\0\x02\r\n",
            b"5g\r\n",
            b"g\r\n",
            b"\"5\"\r\n",
            b"5,5\r\n",
        ],
    );
}

#[test]
fn h1_40_a_chunk_size_does_not_wrap() {
    assert_broken(
        "bad chunk size",
        &[
            b"FFFFFFFFFFFFFFFF\r\n",
            b"8000000000000000\r\n",
            b"10000000000000000\r\n",
            b"10000000000000005\r\n\0\0\0\0\x02\r\n",
            b"00000000000000005\r\n\0\0\0\0\x02\r\n",
            b"ffffffffffffffffffffffffffffffff\r\n",
        ],
    );
}

#[test]
fn h1_41_extensions_are_bounded_in_a_line_and_in_all() {
    let line = [b"5;", &[b'a'; 255][..], b"\r\n\0\0\0\0\x02\r\n"].concat();
    let endless = [b"5;", &[b'a'; 1 << 20][..]].concat();
    assert_broken("chunk line too long", &[&line, &endless]);
    // Messages of no length, a byte in each chunk.
    let chunk = [b"1;", &[b'a'; 254][..], b"\r\n\0\r\n"].concat();
    assert_broken("bad chunk extension", &[&chunk.repeat(70)]);
    let mut stand = Stand::new();
    let within = [&chunk.repeat(60)[..], b"0\r\n\r\n"].concat();
    let seen = stand.passes(&framed("transfer-encoding: chunked\r\n", &within));
    assert_eq!(seen.body, [0; 60]);
}

#[test]
fn h1_42_a_chunk_ends_where_its_size_says() {
    assert_broken(
        "chunk is not followed by CRLF",
        &[
            b"5\r\n\0\0\0\0\x02\n",
            b"5\r\n\0\0\0\0\x02XX",
            b"5\r\n\0\0\0\0\x02\r\r\n",
            b"5\r\n\0\0\0\0\x020\r\n\r\n",
            b"5\r\n\0\0\0\0\x02\r0\r\n\r\n",
        ],
    );
}

#[test]
fn h1_43_a_million_chunks_of_one_byte_are_one_message_and_there_is_an_end_to_it() {
    const BYTES: usize = 1_000_000;
    let chunks = |body: &[u8]| -> Vec<u8> {
        let chunk = |byte: &u8| [b'1', b'\r', b'\n', *byte, b'\r', b'\n'];
        body.iter().flat_map(chunk).collect()
    };
    // Nobody can write and read so much at once.
    let post = |address, body: Vec<u8>| {
        thread::spawn(move || {
            let mut client = Client::new(address);
            client.try_send(&framed("transfer-encoding: chunked\r\n", &body));
            client
        })
    };
    let mut stand = Stand::new();
    let body = message(&[7; BYTES - 5]);
    let whole = [chunks(&body), b"0\r\n\r\n".to_vec()].concat();
    let client = post(stand.world.address, whole);
    let seen = stand.peer().request();
    stand.count(seen.stream);
    assert!(
        seen.body == body,
        "{} of {BYTES} bytes, or others",
        seen.body.len()
    );
    stand.peer().answer(seen.stream, &message(b"one"));
    assert_eq!(client.join().expect("it only writes").answer(), good());
    assert_eq!(stand.world.record().reason, Reason::Ok);

    let body = message(&[7; (1 << 20) + 100]);
    let client = post(stand.world.address, chunks(&body));
    let mut got = 0;
    loop {
        match stand.peer().next() {
            Seen::Head { stream, .. } => stand.count(stream),
            Seen::Data { bytes, end, .. } => {
                assert!(!end, "it never ends at the backend");
                got += bytes.len();
            }
            Seen::Reset { code, .. } => break assert_eq!(code, CANCEL),
            other => panic!("instead of the rest: {other:?}"),
        }
    }
    assert!(got <= 1 << 20, "{got}");
    let mut client = client.join().expect("it only writes");
    let told = "grpc-status:13\r\ngrpc-message:the request is broken: too many tiny chunks\r\n";
    assert_eq!(client.answer(), last(told));
    client.assert_closed();
    let record = stand.world.record();
    assert_eq!(
        record.reason,
        Reason::ClientProtocol("too many tiny chunks")
    );
    stand.assert_nothing_else();
}

#[test]
fn h1_44_trailers_are_read_bounded_and_go_nowhere() {
    const CHUNKS: &[u8] = b"7\r\n\0\0\0\0\x02hi\r\n0\r\n";
    let mut stand = Stand::new();
    let trailers: &[u8] = b"Content-Length: 5\r\nHost: evil\r\nAuthorization: root\r\nx: \xff\r\n\
                            transfer-encoding: chunked\r\ngrpc-timeout: 1n\r\n\r\n";
    let seen = stand.passes(&framed(
        "transfer-encoding: chunked\r\n",
        &[CHUNKS, trailers].concat(),
    ));
    assert_eq!(seen.body, message(b"hi"));
    assert_eq!(seen.field(":authority"), Some("wharf.test"));
    for name in [
        "content-length",
        "host",
        "authorization",
        "x",
        "grpc-timeout",
    ] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    stand.assert_nothing_else();

    let field = |value: usize| [b"x: ", &vec![b'a'; value][..], b"\r\n"].concat();
    let many = [CHUNKS, &b"x: y\r\n".repeat(101)].concat();
    let large = [CHUNKS, &field(16 << 10)].concat();
    assert_broken("trailers too large", &[&many, &large]);
    let bad = |line: &[u8]| [CHUNKS, line].concat();
    assert_broken(
        "bad trailer field",
        &[
            &bad(b"x\r\n\r\n"),
            &bad(b"x : y\r\n\r\n"),
            &bad(b" x: y\r\n\r\n"),
            &bad(b": y\r\n\r\n"),
            &bad(b"x: y\n\n"),
            &bad(b"\n"),
            &bad(b"\rX"),
            &bad(b"x: a\0\r\n\r\n"),
        ],
    );
}

#[test]
fn h1_45_a_byte_behind_a_chunked_body_is_the_next_request_or_none() {
    let mut stand = Stand::new();
    let whole = framed(
        "transfer-encoding: chunked\r\n",
        b"7\r\n\0\0\0\0\x02hi\r\n0\r\n\r\n",
    );
    for behind in [
        &b"\0"[..],
        b"\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\x16\x03\x01",
    ] {
        let mut client = stand.client();
        client.send(&[&whole[..], behind].concat());
        let call = stand.peer().request();
        stand.count(call.stream);
        assert_eq!(call.body, message(b"hi"));
        stand.peer().answer(call.stream, &message(b"one"));
        assert_eq!(client.answer(), good());
        assert_eq!(stand.world.record().reason, Reason::Ok);
        let answer = client.answer();
        let record = stand.world.record();
        assert_eq!(answer, refusal(400, &record.message), "{}", shown(behind));
        client.assert_closed();
    }
    // Half a line is nobody's request, whatever it may become.
    let mut client = stand.client();
    client.send(&[&whole[..], b"X"].concat());
    let call = stand.peer().request();
    stand.count(call.stream);
    stand.peer().answer(call.stream, &message(b"one"));
    assert_eq!(client.answer(), good());
    assert_eq!(stand.world.record().reason, Reason::Ok);
    client.finish();
    client.assert_closed();
    stand.assert_nothing_else();
}

/// Requests that end before their bodies do: `head` and part of a body, then FIN.
fn assert_cut(rows: &[(&str, &[u8])]) {
    const DETAIL: &str = "request ends before its body does";
    let told = format!("the request is broken: {DETAIL}");
    let lines = format!("grpc-status:13\r\ngrpc-message:{told}\r\n");
    let mut stand = Stand::new();
    let (plain, silent) = plain_world(Plan::default());
    for (lines_of_head, part) in rows {
        // At once with the FIN; and when the backend has what came.
        for slowly in [false, true] {
            let mut client = stand.client();
            client.send(&framed(lines_of_head, part));
            let mut begun = None;
            if slowly {
                let Seen::Head { stream, end, .. } = stand.peer().next() else {
                    panic!("no head");
                };
                assert!(!end);
                stand.count(stream);
                begun = Some(stream);
            }
            client.finish();
            assert_eq!(client.answer(), last(&lines), "{}", shown(part));
            client.assert_closed();
            let record = stand.world.record();
            assert_eq!(
                (record.code, record.reason, record.by),
                (
                    Some(Code::INTERNAL),
                    Reason::ClientProtocol(DETAIL),
                    Party::Downstream
                )
            );
            if stand.peer.is_some() {
                assert_cancelled(&mut stand, begun);
            }
        }
        let mut client = Client::new(plain.address);
        client.send(&framed(lines_of_head, part));
        client.finish();
        assert_eq!(client.answer(), plain_refusal(400, &format!("{told}\n")));
        client.assert_closed();
        assert_eq!(plain.record().reason, Reason::ClientProtocol(DETAIL));
    }
    stand.assert_nothing_else();
    assert_eq!(silent.told.lock().expect("no panic")[..], [""; 0], "no end");
}

/// What has come, or had before (`begun`), is at most one call that was begun, never ended, and cancelled.
fn assert_cancelled(stand: &mut Stand, begun: Option<u32>) {
    stand.peer().frame(6, 0, 0, b"anything");
    let mut open = begun;
    let mut answered = false;
    // Where many are cancelled in a moment it is told a little later.
    while !answered || open.is_some() {
        match stand.peer().next() {
            Seen::Pong => answered = true,
            Seen::Head { stream, end, .. } => {
                assert!(!end);
                stand.count(stream);
                open = Some(stream);
            }
            Seen::Data { end, .. } => assert!(!end, "a cut request is no whole one"),
            Seen::Reset { code, .. } => {
                assert_eq!(code, CANCEL);
                open = None;
            }
            other => panic!("instead of a reset: {other:?}"),
        }
    }
}

#[test]
fn h1_46_a_body_that_is_shorter_than_its_length_never_ends_at_the_backend() {
    let whole = message(b"hi");
    assert_cut(&[
        ("content-length: 7\r\n", &whole[..6]),
        ("content-length: 8\r\n", &whole),
        ("content-length: 7\r\n", b""),
        ("content-length: 7\r\n", &whole[..3]),
    ]);
}

#[test]
fn h1_47_a_chunked_body_without_its_last_chunk_never_ends_at_the_backend() {
    const LINES: &str = "transfer-encoding: chunked\r\n";
    const CHUNK: &[u8] = b"7\r\n\0\0\0\0\x02hi\r\n";
    let behind = |rest: &[u8]| [CHUNK, rest].concat();
    assert_cut(&[
        (LINES, CHUNK),
        (LINES, b""),
        (LINES, b"7"),
        (LINES, b"7\r\n\0\0\0"),
        (LINES, &CHUNK[..CHUNK.len() - 1]),
        (LINES, &behind(b"0")),
        (LINES, &behind(b"0\r\n")),
        (LINES, &behind(b"0\r\n\r")),
        (LINES, &behind(b"0\r\nx: y\r\n")),
    ]);
}

#[test]
fn h1_50_what_is_left_of_a_refused_body_is_never_a_request() {
    let stand = Stand::new();
    // It breaks its framing where it is drained: where the next request begins is not known any more.
    for broken in [
        &b"\r\n"[..],
        b"5\r\nhelloXX",
        b"5;\nhello\r\n",
        b"FFFFFFFFFFFFFFFF\r\n",
    ] {
        let mut client = stand.client();
        let head = "host: a\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n";
        let refused = raw(format!("POST {PATH} HTTP/1.1"), head, broken);
        client.send(&[&refused[..], &request("", &message(b"smuggled"))].concat());
        let answer = client.answer();
        assert!(answer.head.starts_with("HTTP/1.1 415 "), "{}", answer.head);
        client.assert_closed();
        assert_eq!(stand.world.record().refusal, Some("content_type"));
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_51_no_upgrade_is_heard_and_the_bytes_behind_it_are_a_request_or_none() {
    let mut stand = Stand::new();
    for lines in [
        "connection: upgrade\r\nupgrade: foo\r\n",
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: grpc-websockets\r\n",
    ] {
        let mut client = stand.client();
        let behind = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.send(&[&call(lines), &behind[..]].concat());
        let seen = stand.peer().request();
        stand.count(seen.stream);
        assert_eq!(seen.body, message(b"hi"));
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen.field(name), None, "{name}");
        }
        stand.peer().answer(seen.stream, &message(b"one"));
        assert_eq!(client.answer(), good());
        assert_eq!(stand.world.record().reason, Reason::Ok);
        let answer = client.answer();
        assert_eq!(answer, refusal(505, &stand.world.record().message));
        client.assert_closed();
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_51_an_upgrade_of_a_page_that_may_not_call_is_refused_by_its_origin() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    let page = "https://app.example.com";
    let cors = Cors::new(vec![page.parse().expect("an origin")], Remedy::Flag);
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody else's yet");
    routes[0].filters = Box::new([Box::new(cors)]);
    let world = World::obeying(snapshot);
    let handshake = |origin: &str| {
        format!(
            "GET {PATH} HTTP/1.1\r\nhost: wharf.test\r\n{origin}connection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: grpc-websockets\r\n\r\n"
        )
    };
    for (origin, status, word) in [
        ("origin: https://other.example\r\n", 403, "cors_origin"),
        (
            "origin: https://evil-app.example.com\r\n",
            403,
            "cors_origin",
        ),
        ("origin: null\r\n", 403, "cors_origin"),
        // Whoever may call is told that nothing is upgraded here, and so is whoever is no page.
        ("origin: https://app.example.com\r\n", 405, "method"),
        ("", 405, "method"),
    ] {
        let mut client = Client::new(world.address);
        client.send(handshake(origin).as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.head.starts_with(&begin), "{origin}: {}", answer.head);
        let record = world.record();
        assert_eq!(record.refusal, Some(word), "{origin}");
        let allowed = answer.head.contains("access-control-allow-origin: ");
        assert_eq!(allowed, origin.contains("//app.example.com\r"), "{origin}");
        if word == "cors_origin" && !origin.contains("null") {
            assert!(record.message.contains("; add:  --allow-origin https://"));
        }
    }
    // A call is a call, whatever it would like to become: it is served, and its page may not read it.
    let mut client = Client::new(world.address);
    client.send(&call("connection: upgrade\r\nupgrade: h2c\r\n"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.answer(stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn h1_52_connect_and_trace_are_not_methods_here() {
    assert_refused(
        405,
        [
            raw("CONNECT a:80 HTTP/1.1", "host: a:80\r\n", b""),
            raw("CONNECT /a.B/C HTTP/1.1", "host: a\r\n", b""),
            raw("TRACE / HTTP/1.1", "host: a\r\n", b""),
            asked("TRACE /a.B/C HTTP/1.1"),
        ],
    );
}

#[test]
fn h1_53_no_100_is_said_to_what_will_not_be_routed() {
    let stand = Stand::new();
    for expectation in ["tea", "100-continue, tea", "100-continue2", ""] {
        stand.refuses(&call(format!("expect: {expectation}\r\n")), 417);
    }
    stand.refuses(&call("expect: 100-continue\r\nx : y\r\n"), 400);
    let mut client = stand.client();
    let head = "host: a\r\ncontent-type: application/grpc-web\r\nexpect: 100-continue\r\n\
                content-length: 7\r\n";
    client.send(&raw("POST /no-method HTTP/1.1", head, b""));
    let told = "grpc-status:12\r\n\
                grpc-message:not a method: a path is /package.Service/Method\r\n";
    assert_eq!(client.answer(), last(told));
    client.assert_closed();
    assert_eq!(stand.world.record().reason, Reason::NoRoute);
    stand.assert_nothing_else();
}

#[test]
fn h1_53_who_asked_for_100_and_then_says_nothing_is_not_waited_for() {
    let mut plan = Plan::default();
    plan.limits.head_timeout = Duration::from_millis(300);
    let mut stand = Stand::with(plan);
    let mut client = stand.client();
    let whole = call("expect: 100-continue\r\n");
    client.send(&whole[..whole.len() - 7]);
    assert_eq!(client.bare_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    let Seen::Head { stream, .. } = stand.peer().next() else {
        panic!("no head");
    };
    stand.count(stream);
    let told = "grpc-status:4\r\ngrpc-message:the caller is too slow\r\n";
    assert_eq!(client.answer(), last(told));
    client.assert_closed();
    stand.peer().assert_reset(stream, CANCEL);
    let record = stand.world.record();
    assert_eq!(
        (record.reason, record.by),
        (Reason::ClientTooSlow, Party::Downstream)
    );
    stand.assert_nothing_else();

    // A plain body alike, with HTTP's word for it.
    let mut plan = Plan::default();
    plan.limits.head_timeout = Duration::from_millis(300);
    let (plain, silent) = plain_world(plan);
    let mut client = Client::new(plain.address);
    client
        .send(b"POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 7\r\n\r\n");
    assert_eq!(client.bare_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(
        client.answer(),
        plain_refusal(408, "the caller is too slow\n")
    );
    client.assert_closed();
    assert_eq!(plain.record().reason, Reason::ClientTooSlow);
    assert_eq!(silent.told.lock().expect("no panic")[..], [""; 0], "no end");
}

#[test]
fn h1_54_a_request_has_one_host_that_is_one() {
    let line = format!("POST {PATH} HTTP/1.1");
    let hosts = [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host:\r\n",
        "host: a,b\r\n",
        "host: a/b\r\n",
        "host: u@a\r\n",
        "host: a b\r\n",
        "host: a:\r\n",
        "host: a:b\r\n",
        "host: a:65536\r\n",
        "host: a:+1\r\n",
        "host: :80\r\n",
        "host: a?b\r\n",
        "host: a#b\r\n",
        "host: a\\b\r\n",
        "host: a%2eb\r\n",
        "host: [::1\r\n",
        "host: [::1]x\r\n",
        "host: [a]\r\n",
    ];
    assert_refused(400, hosts.map(|hosts| hosted(&line, hosts)));
    let mut stand = Stand::new();
    for host in ["a", "a:80", "127.0.0.1:8080", "[::1]:80", "A.b-c_d~e"] {
        let seen = stand.passes(&hosted(&line, &format!("host: {host}\r\n")));
        assert_eq!(seen.field(":authority"), Some(host));
        assert_eq!(seen.field("host"), None);
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_55_an_absolute_target_names_the_host_or_is_refused() {
    let target = |target: &str| asked(&format!("POST {target} HTTP/1.1"));
    let wrong = [
        "http://other.test/a.B/C",
        "http://wharf.test:80/a.B/C",
        "http://wharf.test.evil/a.B/C",
        "http://u@wharf.test/a.B/C",
        "ftp://wharf.test/a.B/C",
        "http:/wharf.test/a.B/C",
        "//wharf.test:x://a",
        "http:///a.B/C",
        "wharf.test/a.B/C",
    ];
    assert_refused(
        400,
        wrong[..6]
            .iter()
            .chain(&wrong[7..])
            .map(|line| target(line)),
    );
    let line = "POST http://wharf.test/a.B/C HTTP/1.1";
    assert_refused(
        400,
        [
            hosted(line, ""),
            hosted(line, "host: b\r\nhost: wharf.test\r\n"),
        ],
    );
    let mut stand = Stand::new();
    for target in ["http://wharf.test/a.B/C", "HTTPS://WHARF.test/a.B/C"] {
        let seen = stand.passes(&asked(&format!("POST {target} HTTP/1.1")));
        assert_eq!(seen.field(":path"), Some("/a.B/C"));
        assert_eq!(seen.field(":authority"), Some("wharf.test"));
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_56_a_target_holds_only_what_a_uri_may() {
    let mut rows: Vec<Vec<u8>> = [
        "POST * HTTP/1.1",
        "POST *a HTTP/1.1",
        "GET * HTTP/1.1",
        "POST ? HTTP/1.1",
    ]
    .map(asked)
    .to_vec();
    for byte in (0..=0x20u8)
        .chain(b"\"#<>\\^`".iter().copied())
        .chain(0x7f..=0xff)
    {
        let line = [b"POST /a.B/C", &[byte][..], b"x HTTP/1.1"].concat();
        let fields = "host: a\r\ncontent-type: application/grpc-web\r\ncontent-length: 7\r\n";
        rows.push(raw(line, fields, message(b"hi")));
    }
    assert_refused(400, rows);
}

#[test]
fn h1_57_a_path_is_not_decoded_and_not_made_normal() {
    let mut stand = Stand::new();
    let line = |path: &str| asked(&format!("POST {path} HTTP/1.1"));
    for (path, seen) in [
        ("/a.B/M?q", "/a.B/M"),
        ("/a.B/M?", "/a.B/M"),
        ("/a.B/M?/../x", "/a.B/M"),
        ("/a.B/%2e%2e", "/a.B/%2e%2e"),
        ("/a.B/..", "/a.B/.."),
        ("/./M", "/./M"),
        ("/a.B/M;x", "/a.B/M;x"),
        ("/a%2fB/M", "/a%2fB/M"),
        ("/a.B/%4D", "/a.B/%4D"),
        ("/a.B/M%00", "/a.B/M%00"),
        ("/A.b/m", "/A.b/m"),
        ("/a.B/M%zz", "/a.B/M%zz"),
    ] {
        let call = stand.passes(&line(path));
        assert_eq!(call.field(":path"), Some(seen), "{path}");
        assert_eq!(call.body, message(b"hi"));
    }
    let told = "grpc-status:12\r\n\
                grpc-message:not a method: a path is /package.Service/Method\r\n";
    for path in [
        "/a.B/../c.D/M",
        "/a.B%2fM",
        "//a.B/M",
        "/a.B//M",
        "/a.B/M/",
        "/",
        "/a.B/",
        "//M",
        "/a?/b",
    ] {
        let mut client = stand.client();
        client.send(&line(path));
        assert_eq!(client.answer(), crate::client::alone(told), "{path}");
        let record = stand.world.record();
        assert_eq!(
            (record.reason, record.attempts),
            (Reason::NoRoute, 0),
            "{path}"
        );
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_58_what_is_too_long_is_refused_and_what_is_not_passes() {
    let fields = |count: usize| {
        let lines: Vec<String> = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
        call(lines.concat())
    };
    let name = |bytes: usize| call(format!("{}: y\r\n", "x".repeat(bytes)));
    let line = |bytes: usize| {
        let rest = "POST /a.B/ HTTP/1.1".len();
        asked(&format!("POST /a.B/{} HTTP/1.1", "m".repeat(bytes - rest)))
    };
    let head = |bytes: usize| {
        let rest = call("x: \r\n").len() - 7;
        call(format!("x: {}\r\n", "y".repeat(bytes - rest)))
    };
    // Three fields stand there anyhow.
    assert_refused(
        431,
        [
            fields(98),
            fields(300),
            name(257),
            head((16 << 10) + 1),
            head(1 << 20),
        ],
    );
    assert_refused(414, [line((8 << 10) + 1), line(12 << 10), line(1 << 20)]);
    let mut stand = Stand::new();
    for bytes in [fields(97), name(256), line(8 << 10), head(16 << 10)] {
        let seen = stand.passes(&bytes);
        assert_eq!(seen.body, message(b"hi"));
    }
    // What bounds it is named, and no key where none does.
    let head_limit = "limits.header_bytes";
    for (bytes, told, bound) in [
        (head(1 << 20), "head too large", head_limit),
        (fields(98), "too many fields", "limits.header_fields"),
        (name(257), "field name too long", "256 bytes"),
    ] {
        let mut client = stand.client();
        client.send(&bytes);
        let said = stand.world.record().message;
        assert_eq!(client.answer(), refusal(431, &said));
        assert!(said.starts_with(told) && said.contains(bound), "{said}");
        assert_eq!(said.contains(head_limit), bound == head_limit, "{said}");
    }
    // Without an end it is refused as soon as it is too long.
    let mut client = stand.client();
    client.send(&call(format!("x: {}", "y".repeat(16 << 10)))[..16 << 10]);
    let answer = client.answer();
    assert_eq!(answer, refusal(431, &stand.world.record().message));
    client.assert_closed();
    stand.assert_nothing_else();
}

#[test]
fn h1_59_who_says_nothing_or_half_a_line_is_let_go_without_a_word() {
    let stand = Stand::new();
    for start in [&b""[..], b"\r\n", b"P", b"POST /a", &call("")[..60]] {
        let mut client = stand.client();
        client.send(start);
        client.finish();
        client.assert_closed();
        let mut client = stand.client();
        client.send(start);
        client.abort();
    }
    // The next record is the next call's: none was written.
    stand.assert_nothing_else();
}

#[test]
fn h1_60_what_is_no_http_is_refused_at_its_first_bytes() {
    let stand = Stand::new();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(
        stand.refuses(hello, 400),
        "TLS came to a plaintext port; write http://, not https://, and give a gRPC client an insecure channel \
         (grpcurl -plaintext)"
    );
    let mut rng = fastrand::Rng::with_seed(60);
    for _ in 0..50 {
        let mut noise: Vec<u8> = (0..200).map(|_| rng.u8(..)).collect();
        // Whatever it is, it has a byte that no head holds.
        noise[rng.usize(..200)] = 0;
        stand.refuses(&noise, 400);
    }
    // Not even a version stands there: nobody would understand an answer.
    let mut client = stand.client();
    client.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
    client.assert_closed();
    let record = stand.world.record();
    assert_eq!(
        (record.http_status, record.refusal),
        (None, Some("bad_http"))
    );
    stand.assert_nothing_else();
}

#[test]
fn h1_61_the_preface_of_http2_is_spoken_at_the_beginning_and_nowhere_else() {
    let stand = Stand::new();
    let told = "HTTP/2 begins with its preface, whole, and with nothing before it";
    assert_eq!(
        stand.refuses(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", 505),
        told
    );
    assert_eq!(
        stand.refuses(b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        told
    );
    // Whoever has spoken HTTP/1.1 goes on so: what stands behind a request was checked by nobody in front of us.
    let mut client = stand.client();
    client.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(client.bare_head().starts_with("HTTP/1.1 200 OK"));
    client.assert_next(b"ok\n");
    assert!(client.bare_head().starts_with("HTTP/1.1 505 "));
    assert_eq!(stand.world.record().message, told);
    stand.assert_nothing_else();
}

#[test]
fn h1_61_a_listener_without_http2_sends_nobody_there() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    snapshot.listeners[0].versions = wharf::policy::Versions::Http1;
    let world = World::obeying(snapshot);
    let mut client = Client::new(world.address);
    client.send(
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n"
        )
        .as_bytes(),
    );
    let answer = client.answer();
    assert!(answer.head.starts_with("HTTP/1.1 415 "), "{}", answer.head);
    let record = world.record();
    assert_eq!(record.refusal, Some("content_type"));
    assert_eq!(
        record.message,
        "native gRPC needs HTTP/2, and this listener speaks HTTP/1.1 alone (protocol = \"http1\"): call one that \
         speaks HTTP/2, or send application/grpc-web+proto"
    );
    let mut client = Client::new(world.address);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(client.bare_head().starts_with("HTTP/1.1 505 "));
    assert_eq!(
        world.record().message,
        "HTTP/2 is not spoken here; use HTTP/1.1, or write  protocol = \"auto\"  in [[listener]] \"web\""
    );
}

#[test]
fn h1_62_a_body_under_get_is_read_and_is_no_request() {
    let stand = Stand::new();
    let behind = request("", &message(b"smuggled"));
    let length = behind.len();
    let chunked = format!(
        "{length:x}\r\n{}\r\n0\r\n\r\n",
        String::from_utf8_lossy(&behind)
    );
    for verb in ["GET", "HEAD"] {
        for (lines, body) in [
            (format!("content-length: {length}\r\n"), behind.clone()),
            (
                "transfer-encoding: chunked\r\n".to_owned(),
                chunked.clone().into_bytes(),
            ),
        ] {
            let mut client = stand.client();
            let fields = format!("host: a\r\n{lines}");
            client.send(&raw(format!("{verb} /healthz HTTP/1.1"), fields, body));
            let head = client.bare_head();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            client.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let expected = if verb == "GET" {
                "ok\nHTTP/1.1 200 OK"
            } else {
                "HTTP/1.1 200 OK"
            };
            client.assert_next(expected.as_bytes());
        }
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_71_a_body_under_a_preflight_is_read_and_is_no_request() {
    let world = with_page(Plan::default());
    let behind = request("", &message(b"smuggled"));
    let length = behind.len();
    let chunked = [
        format!("{length:x}\r\n").as_bytes(),
        &behind,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for (lines, body) in [
        (format!("content-length: {length}\r\n"), behind),
        ("transfer-encoding: chunked\r\n".to_owned(), chunked),
    ] {
        let mut client = Client::new(world.address);
        let fields = format!(
            "host: a\r\norigin: https://app.test\r\naccess-control-request-method: POST\r\n{lines}"
        );
        client.send(&raw(format!("OPTIONS {PATH} HTTP/1.1"), fields, body));
        let head = client.bare_head();
        assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{head}");
        assert!(
            !head.contains("content-length") && !head.contains("connection"),
            "{head}"
        );
        client.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().body, b"ok\n");
        assert_eq!(world.record().http_status, Some(204));
    }
    // The next record is this one's.
    let mut client = Client::new(world.address);
    client.send(b"\0");
    client.answer();
    assert_eq!(world.record().refusal, Some("bad_http"));
}

#[test]
fn h1_72_a_refused_head_has_no_content_that_the_next_answer_could_be_taken_for() {
    let stand = Stand::new();
    for path in [PATH, "/", "/a/b/c"] {
        let mut client = stand.client();
        let head = format!("HEAD {path} HTTP/1.1\r\nhost: a\r\naccept: text/html\r\n\r\n");
        client.send(&[head.as_bytes(), b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"].concat());
        let refused = client.bare_head();
        assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
        assert!(!refused.contains("content-length: 0\r\n"), "{refused}");
        assert_eq!(client.answer().body, b"ok\n");
        assert_eq!(stand.world.record().refusal, Some("method"));
    }
    stand.assert_nothing_else();
}

#[test]
fn h1_63_connection_nominates_no_field_that_decides_and_what_it_nominates_stays_here() {
    let mut stand = Stand::new();
    for name in GUARDED {
        // RFC 9110 §10.1.4 and §7.8 tell clients to name these.
        if !["te", "upgrade", "trailer"].contains(&name) {
            stand.refuses(&call(format!("connection: {name}\r\n")), 400);
            stand.refuses(
                &call(format!("connection: close, {}\r\n", name.to_uppercase())),
                400,
            );
        }
    }
    let lines = "connection: x-hop, te , x-other\r\nconnection: third\r\nx-hop: 1\r\nx-other: 2\r\n\
                 Third: 3\r\nx-end: 4\r\n";
    let seen = stand.passes(&call(lines));
    for name in ["x-hop", "x-other", "third", "connection"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(seen.field("x-end"), Some("4"));
    stand.assert_nothing_else();
}

#[test]
fn h1_64_what_belongs_to_one_connection_stays_on_it() {
    let mut stand = Stand::new();
    let seen = stand.passes(&call(
        "proxy-connection: keep-alive\r\nkeep-alive: timeout=5\r\nte: gzip\r\ntrailer: x\r\n",
    ));
    for name in ["proxy-connection", "keep-alive", "trailer", "connection"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    let te: Vec<_> = seen
        .fields
        .iter()
        .filter(|(name, _)| name == "te")
        .collect();
    assert_eq!(te, [&("te".to_owned(), "trailers".to_owned())]);
    stand.assert_nothing_else();
}

#[test]
fn h1_65_a_body_that_is_packed_as_a_whole_is_not_taken() {
    let mut stand = Stand::new();
    for coding in ["gzip", "GZIP", "br", "identity, gzip", "deflate"] {
        let mut client = stand.client();
        let fields = format!("content-encoding: {coding}\r\n");
        // The body is drained, and the connection goes on.
        client.send(
            &[
                call(&fields),
                b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            ]
            .concat(),
        );
        let answer = client.answer();
        assert!(answer.head.starts_with("HTTP/1.1 415 "), "{}", answer.head);
        let record = stand.world.record();
        assert_eq!(record.refusal, Some("content_encoding"));
        assert_eq!(client.answer().body, b"ok\n");
    }
    stand.passes(&call("content-encoding: identity\r\n"));
    stand.assert_nothing_else();
}

#[test]
fn h1_66_a_line_end_in_a_field_of_the_backend_is_never_written() {
    for evil in [
        "a\r\nset-cookie: evil=1",
        "a\nevil: 1",
        "a\revil",
        "a\0evil",
    ] {
        // In the head; in the trailers behind a whole message; and behind half of one. h2 gives the connection up with it.
        for sent in [None, Some(8), Some(7)] {
            let mut stand = Stand::new();
            let mut client = Client::calling(stand.world.address, &message(b"hi"));
            let stream = stand.peer().request().stream;
            let (answer, whole, text) = if let Some(bytes) = sent {
                stand.peer().grpc_head(stream);
                stand.peer().data(stream, &message(b"one")[..bytes], false);
                let (head, _) = client.chunked_start(bytes);
                let trailers = [("grpc-status", "0"), ("x", evil)];
                stand.peer().trailers(stream, &trailers);
                let (rest, whole) = client.chunked_rest();
                (head, whole, rest)
            } else {
                let head = [
                    (":status", "200"),
                    ("content-type", "application/grpc"),
                    ("x", evil),
                ];
                stand.peer().head(stream, &head, false);
                let answer = client.answer();
                (answer.head, answer.whole, answer.body)
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            let told = sent != Some(7);
            assert_eq!(whole, told, "{evil:?}");
            assert_eq!(
                text.contains("grpc-status:13\r\n"),
                told,
                "{evil:?}: {text}"
            );
            assert_eq!(text.is_empty(), !told);
            assert!(
                !answer.contains("evil") && !text.contains("evil"),
                "{evil:?}"
            );
            let record = stand.world.record();
            assert_eq!(
                (record.code, record.by, record.aborted),
                (Some(Code::INTERNAL), Party::Upstream, !told)
            );
            assert!(
                matches!(record.reason, Reason::BackendProtocol(_)),
                "{record:?}"
            );
        }
    }
}

/// A proxy that lets one page call.
fn with_page(plan: Plan) -> World {
    let mut snapshot = plan.snapshot(&[]);
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody has it yet");
    let page = OriginPattern::Exact("https://app.test".into());
    routes[0].filters = Box::new([Box::new(Cors::new(vec![page], Remedy::Flag))]);
    World::obeying(snapshot)
}

#[test]
fn h1_70_a_page_that_may_call_may_read_why_its_head_was_refused() {
    let mut plan = Plan::default();
    plan.limits.head_timeout = Duration::from_millis(500);
    let world = with_page(plan);
    let large = format!("x: {}\r\n", "y".repeat(20 << 10));
    let many: String = (0..200).map(|n| format!("x{n}: y\r\n")).collect();
    for (lines, status) in [
        (large.as_str(), 431),
        (&many, 431),
        ("authorization: \u{e9}\r\n", 400),
        ("content_length: 1\r\n", 400),
        ("expect: tea\r\n", 417),
        ("connection: origin\r\n", 400),
    ] {
        for (origin, allowed) in [("https://app.test", true), ("https://evil.test", false)] {
            let mut client = Client::new(world.address);
            client.send(&call(format!(
                "Origin: {origin}\r\nuser-agent: me\r\n{lines}"
            )));
            let answer = client.answer();
            client.assert_closed();
            let head = &answer.head;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            let echoed = "\r\naccess-control-allow-origin: https://app.test\r\n";
            assert_eq!(head.contains(echoed), allowed, "{head}");
            assert_eq!(
                head.contains("access-control-expose-headers: grpc-status,"),
                allowed
            );
            assert!(head.contains("\r\nvary: Origin\r\n"), "{head}");
            assert!(!head.contains("evil"), "{head}");
            let record = world.record();
            assert_eq!(record.http_status, Some(status));
            assert_eq!((record.verb.as_str(), record.path.as_str()), ("POST", PATH));
            assert_eq!(record.origin.as_deref(), Some(origin));
            assert_eq!(record.library.as_deref(), Some("me"));
        }
    }
    // One that never came whole, as far as it came.
    let mut client = Client::new(world.address);
    let whole = call("origin: https://app.test\r\nx: y\r\n");
    client.send(&whole[..whole.len() - 10]);
    let head = client.answer().head;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(
        head.contains("\r\naccess-control-allow-origin: https://app.test\r\n"),
        "{head}"
    );
    // What stands behind a line that is none, or twice, or in half a line, says nothing.
    for lines in [
        "x: y\norigin: https://app.test\r\n",
        "origin: https://app.test\r\norigin: https://app.test\r\nx : y\r\n",
        "x: \0\r\norigin: https://evil.test\r\n",
    ] {
        let mut client = Client::new(world.address);
        client.send(&call(lines));
        let head = client.answer().head;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(!head.contains("access-control-"), "{head}");
    }
}
