//! Both codecs from outside: what callers and backends send, in tables, each row at every split point, and each answer held
//! against what every gRPC-Web answer must be.

use std::io::Write;

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::rpc::dialect::Form;
use crate::wire::base64::{Decoder, Encoder};
use crate::wire::envelope::prefix;
use crate::wire::{Code, Party, ResponseHead};

mod native;

const LIMIT: u32 = 64;

type Rows<'a> = &'a [(&'a str, &'a str)];

/// One part of a backend's script.
#[derive(Clone, Debug)]
enum Said {
    Head(u16, Vec<(String, String)>, bool),
    Data(Vec<u8>),
    End(Option<Vec<(String, String)>>),
}

/// What came out, and how it ended.
#[derive(Debug, Default)]
struct Seen {
    head: Option<Box<ResponseHead>>,
    body: Vec<u8>,
    data_parts: usize,
    ended: bool,
    ending: Option<Ending>,
    fault: Option<Reset>,
    closing: Option<Closing>,
    messages: u64,
    bytes: u64,
    /// After which part of the script the head was out.
    head_after: Option<usize>,
}

/// The body of an answer that was written to its end, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    messages: Vec<(u8, Vec<u8>)>,
    trailers: String,
}

fn owned(rows: Rows<'_>) -> Vec<(String, String)> {
    let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    rows.iter().map(pair).collect()
}

fn head(status: u16, fields: Rows<'_>) -> Said {
    Said::Head(status, owned(fields), false)
}

fn last_head(status: u16, fields: Rows<'_>) -> Said {
    Said::Head(status, owned(fields), true)
}

fn trailers(fields: Rows<'_>) -> Said {
    Said::End(Some(owned(fields)))
}

const END: Said = Said::End(None);
const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
const OK: (&str, &str) = ("grpc-status", "0");

fn map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    map
}

fn message(flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&prefix(flags, length)[..], payload].concat()
}

fn part(said: &Said) -> Part {
    match said {
        Said::Head(status, fields, end) => Part::Head(Box::new(ResponseHead {
            status: StatusCode::from_u16(*status).expect("a status"),
            headers: map(fields),
            end: *end,
        })),
        Said::Data(data) => Part::Data(Bytes::copy_from_slice(data)),
        Said::End(fields) => Part::End(fields.as_ref().map(|fields| Box::new(map(fields)))),
    }
}

impl Seen {
    fn take(&mut self, part: Part) {
        assert!(!self.ended, "nothing after the end");
        match part {
            Part::Head(head) => {
                assert!(self.head.is_none(), "one head");
                self.head = Some(head);
            }
            Part::Data(data) => {
                assert!(self.head.is_some(), "a head comes first");
                assert!(!data.is_empty(), "no empty data");
                self.body.extend_from_slice(&data);
                self.data_parts += 1;
            }
            Part::End(fields) => {
                assert!(self.head.is_some(), "a head comes first");
                assert!(fields.is_none(), "gRPC-Web has no HTTP trailers");
                self.ended = true;
            }
        }
    }

    fn field(&self, name: &str) -> Vec<String> {
        let head = self.head.as_ref().expect("a head");
        let values = head.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    fn code(&self) -> u32 {
        self.ending
            .as_ref()
            .expect("an ending")
            .status
            .code
            .number()
    }

    fn word(&self) -> &'static str {
        self.ending.as_ref().expect("an ending").reason.word()
    }

    /// The raw bytes of gRPC-Web's binary form.
    fn binary(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Binary => self.body.clone(),
            Form::Text => {
                let mut bytes = BytesMut::new();
                let mut decoder = Decoder::new();
                decoder.decode(&self.body, &mut bytes).expect("base64");
                decoder.finish().expect("whole quanta");
                bytes.to_vec()
            }
        }
    }
}

/// Messages and what is left over behind the last whole one.
fn envelopes(mut bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
    let mut messages = Vec::new();
    while let Some((&[flags, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        messages.push((flags, payload.to_vec()));
        bytes = rest;
    }
    (messages, bytes.to_vec())
}

/// Runs a script. After a fault the answer is ended with INTERNAL, as an exchange would.
fn answer(form: Form, request: Rows<'_>, script: &[Said]) -> Seen {
    let dialect = Dialect::GrpcWeb {
        request: form,
        response: form,
    };
    let mut codec = ResponseCodec::new(dialect, &map(&owned(request)).into(), LIMIT);
    let mut seen = Seen::default();
    for (index, said) in script.iter().enumerate() {
        match codec.translate(part(said), &mut |part| seen.take(part)) {
            Ok(None) => assert!(!seen.ended, "an end is told"),
            Ok(Some(ending)) => {
                assert!(seen.ended, "what is told to be ended has an end");
                seen.ending = Some(ending);
                break;
            }
            Err(fault) => {
                assert!(!seen.ended);
                seen.fault = Some(fault);
                let again = codec.translate(END_PART, &mut |part| seen.take(part));
                assert_eq!(again, Err(fault), "a fault is sticky");
                let status = Status::new(Code::INTERNAL, "100% broken");
                let closing = codec.end(&status, &mut |part| seen.take(part));
                assert_eq!(closing == Closing::Ended, seen.ended);
                seen.closing = Some(closing);
                break;
            }
        }
        assert_eq!(codec.head_sent(), seen.head.is_some());
        if seen.head.is_some() && seen.head_after.is_none() {
            seen.head_after = Some(index);
        }
    }
    seen.messages = codec.messages();
    seen.bytes = codec.bytes();
    // Nothing may follow, whatever is asked.
    let status = Status::new(Code::INTERNAL, "late");
    if seen.ended || seen.closing.is_some() {
        assert_eq!(
            codec.end(&status, &mut |part| seen.take(part)),
            Closing::Ended
        );
    }
    seen
}

const END_PART: Part = Part::End(None);

/// What every answer that was written to its end must be, and what it holds.
fn whole_body(seen: &Seen, form: Form) -> Body {
    assert!(seen.ended, "{seen:?}");
    let head = seen.head.as_ref().expect("a head");
    assert_eq!(head.status, StatusCode::OK);
    assert!(!head.end);
    for name in [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "connection",
    ] {
        assert!(!head.headers.contains_key(name), "{name} in the head");
    }
    if let Some(length) = head.headers.get(CONTENT_LENGTH) {
        assert_eq!(length, &seen.body.len().to_string());
    }
    let wanted = match form {
        Form::Binary => "application/grpc-web",
        Form::Text => "application/grpc-web-text",
    };
    let content_type = head.headers[CONTENT_TYPE].to_str().expect("ASCII");
    let essence = content_type.split('+').next();
    assert_eq!(essence, Some(wanted), "{content_type}");
    let (mut messages, rest) = envelopes(&seen.binary(form));
    assert!(rest.is_empty(), "nothing behind the last envelope");
    let (flags, trailers) = messages.pop().expect("a trailer frame");
    assert_eq!(flags, 0x80);
    assert!(
        messages.iter().all(|(flags, _)| *flags < 0x80),
        "one frame, last"
    );
    let trailers = String::from_utf8(trailers).expect("ASCII");
    assert!(
        trailers
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
    );
    assert!(trailers.ends_with("\r\n") && !trailers.contains("\r\n\r\n"));
    assert_eq!(trailers.matches("grpc-status:").count(), 1);
    Body { messages, trailers }
}

/// The script with its content cut in two at that byte.
fn cut(script: &[Said], at: usize) -> Vec<Said> {
    let mut before = 0;
    let mut pieces = Vec::new();
    for said in script {
        match said {
            Said::Data(data) if at > before && at < before + data.len() => {
                let (left, right) = data.split_at(at - before);
                pieces.push(Said::Data(left.to_vec()));
                pieces.push(Said::Data(right.to_vec()));
                before += data.len();
            }
            Said::Data(data) => {
                before += data.len();
                pieces.push(said.clone());
            }
            other => pieces.push(other.clone()),
        }
    }
    pieces
}

fn content_bytes(script: &[Said]) -> usize {
    script
        .iter()
        .map(|said| {
            if let Said::Data(data) = said {
                data.len()
            } else {
                0
            }
        })
        .sum()
}

/// The script, whole, at every cut, and byte by byte.
fn ways(script: &[Said]) -> Vec<Vec<Said>> {
    let mut ways = vec![script.to_vec()];
    ways.extend((1..content_bytes(script)).map(|at| cut(script, at)));
    let bytes = script.iter().flat_map(|said| match said {
        Said::Data(data) => data
            .chunks(1)
            .map(|byte| Said::Data(byte.to_vec()))
            .collect(),
        other => vec![other.clone()],
    });
    ways.push(bytes.collect());
    ways
}

const FORMS: [Form; 2] = [Form::Binary, Form::Text];

struct Shape {
    name: &'static str,
    script: Vec<Said>,
    code: u32,
    reason: &'static str,
    /// Payloads that the caller gets.
    payloads: Vec<&'static [u8]>,
    trailers: &'static str,
}

#[test]
fn every_shape_of_answer_ends_with_one_frame_at_every_split() {
    let hello = || Said::Data(message(0, b"hello"));
    let two = || Said::Data([message(0, b"hello"), message(0, b"")].concat());
    let page = "<html>gone</html>";
    let no_status =
        "grpc-status:2\r\ngrpc-message:the backend ended its answer without grpc-status\r\n";
    let shapes = [
        Shape {
            name: "messages, then trailers",
            script: vec![head(200, &[GRPC]), two(), trailers(&[OK])],
            code: 0,
            reason: "ok",
            payloads: vec![b"hello", b""],
            trailers: "grpc-status:0\r\n",
        },
        Shape {
            name: "no message, then trailers with an error",
            script: vec![
                head(200, &[GRPC]),
                trailers(&[("grpc-status", "5"), ("grpc-message", "no %E2%98%BA")]),
            ],
            code: 5,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:5\r\ngrpc-message:no %E2%98%BA\r\n",
        },
        Shape {
            name: "w_30 trailers: duplicates, -bin, order",
            script: vec![
                head(200, &[GRPC]),
                hello(),
                trailers(&[
                    ("x-many", "one"),
                    ("x-many", "two"),
                    ("grpc-status-details-bin", "CAU="),
                    ("grpc-message", "50% broken"),
                    ("grpc-status", "13"),
                ]),
            ],
            code: 13,
            reason: "backend_status",
            payloads: vec![b"hello"],
            trailers: "grpc-status:13\r\ngrpc-message:50%25 broken\r\nx-many:one\r\nx-many:two\r\n\
                       grpc-status-details-bin:CAU=\r\n",
        },
        Shape {
            name: "w_31 trailers-only",
            script: vec![
                last_head(
                    200,
                    &[GRPC, ("grpc-status", "12"), ("x-a", "1"), ("date", "now")],
                ),
                END,
            ],
            code: 12,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:12\r\nx-a:1\r\n",
        },
        Shape {
            name: "trailers-only in a head and an empty end",
            script: vec![
                head(200, &[GRPC, ("grpc-status", "7")]),
                Said::Data(Vec::new()),
                END,
            ],
            code: 7,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:7\r\n",
        },
        Shape {
            name: "status in the head, other fields in trailers",
            script: vec![
                head(200, &[GRPC, ("grpc-status", "7"), ("x-a", "1")]),
                trailers(&[("x-a", "2"), ("x-a", "3")]),
            ],
            code: 7,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:7\r\nx-a:1\r\nx-a:2\r\nx-a:3\r\n",
        },
        Shape {
            name: "u_13 trailers beat the head, without messages",
            script: vec![
                head(200, &[GRPC, ("grpc-status", "7"), ("grpc-message", "no")]),
                trailers(&[OK]),
            ],
            code: 0,
            reason: "ok",
            payloads: vec![],
            trailers: "grpc-status:0\r\n",
        },
        Shape {
            name: "u_13 trailers beat the head, with messages",
            script: vec![
                head(
                    200,
                    &[
                        GRPC,
                        ("grpc-status", "0"),
                        ("grpc-status-details-bin", "AA"),
                    ],
                ),
                hello(),
                trailers(&[("grpc-status", "9")]),
            ],
            code: 9,
            reason: "backend_status",
            payloads: vec![b"hello"],
            trailers: "grpc-status:9\r\n",
        },
        Shape {
            name: "trailers without a status",
            script: vec![head(200, &[GRPC]), hello(), trailers(&[("x-a", "1")])],
            code: 2,
            reason: "backend_protocol",
            payloads: vec![b"hello"],
            trailers: "grpc-status:2\r\n\
                       grpc-message:the backend ended its answer without grpc-status\r\nx-a:1\r\n",
        },
        Shape {
            name: "trailers without a status, with a message",
            script: vec![
                head(200, &[GRPC]),
                hello(),
                trailers(&[("grpc-message", "oh")]),
            ],
            code: 2,
            reason: "backend_protocol",
            payloads: vec![b"hello"],
            trailers: "grpc-status:2\r\ngrpc-message:oh\r\n",
        },
        Shape {
            name: "u_10 a head and the end, no status",
            script: vec![last_head(200, &[GRPC]), END],
            code: 2,
            reason: "backend_no_trailers",
            payloads: vec![],
            trailers: no_status,
        },
        Shape {
            name: "u_10 a head, then an empty end, no status",
            script: vec![head(200, &[GRPC]), Said::Data(Vec::new()), END],
            code: 2,
            reason: "backend_no_trailers",
            payloads: vec![],
            trailers: no_status,
        },
        Shape {
            name: "w_35 a status that is no number",
            script: vec![
                head(200, &[GRPC]),
                hello(),
                trailers(&[("grpc-status", "abc")]),
            ],
            code: 2,
            reason: "backend_status",
            payloads: vec![b"hello"],
            trailers: "grpc-status:2\r\n",
        },
        Shape {
            name: "w_35 two statuses",
            script: vec![head(200, &[GRPC]), trailers(&[OK, ("grpc-status", "5")])],
            code: 2,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:2\r\n",
        },
        Shape {
            name: "w_35 a status that is not one of the 17",
            script: vec![head(200, &[GRPC]), trailers(&[("grpc-status", "99")])],
            code: 99,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:99\r\n",
        },
        Shape {
            name: "a backend's page",
            script: vec![
                head(404, &[("content-type", "text/html")]),
                Said::Data(page.into()),
                END,
            ],
            code: 12,
            reason: "backend_not_grpc",
            payloads: vec![],
            trailers: "grpc-status:12\r\ngrpc-message:<html>gone</html>\r\n",
        },
        Shape {
            name: "u_12 200 and not gRPC",
            script: vec![last_head(200, &[("content-type", "text/html")]), END],
            code: 2,
            reason: "backend_not_grpc",
            payloads: vec![],
            trailers: "grpc-status:2\r\ngrpc-message:the backend did not answer with gRPC: HTTP status \
                       200, content-type text/html\r\n",
        },
        Shape {
            name: "503 without anything",
            script: vec![head(503, &[]), END],
            code: 14,
            reason: "backend_not_grpc",
            payloads: vec![],
            trailers: "grpc-status:14\r\ngrpc-message:the backend did not answer with gRPC: HTTP status \
                       503, content-type none\r\n",
        },
        Shape {
            name: "u_12 500 with grpc-status 0",
            script: vec![last_head(500, &[GRPC, OK]), END],
            code: 0,
            reason: "ok",
            payloads: vec![],
            trailers: "grpc-status:0\r\n",
        },
        Shape {
            name: "403 of another proxy, with a status and content",
            script: vec![
                head(
                    403,
                    &[
                        ("content-type", "text/plain"),
                        ("grpc-status", "7"),
                        ("x-a", "1"),
                    ],
                ),
                Said::Data(b"RBAC".to_vec()),
                END,
            ],
            code: 7,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:7\r\nx-a:1\r\n",
        },
        Shape {
            name: "502 with a status in the trailers",
            script: vec![
                head(502, &[GRPC, ("x-a", "1")]),
                Said::Data(b"bad".to_vec()),
                trailers(&[("grpc-status", "3"), ("x-b", "2")]),
            ],
            code: 3,
            reason: "backend_status",
            payloads: vec![],
            trailers: "grpc-status:3\r\nx-b:2\r\n",
        },
        Shape {
            name: "1xx before the head",
            script: vec![head(103, &[]), head(200, &[GRPC]), hello(), trailers(&[OK])],
            code: 0,
            reason: "ok",
            payloads: vec![b"hello"],
            trailers: "grpc-status:0\r\n",
        },
    ];
    for shape in &shapes {
        for form in FORMS {
            for script in ways(&shape.script) {
                let seen = answer(form, &[], &script);
                let body = whole_body(&seen, form);
                assert_eq!(seen.fault, None, "{}", shape.name);
                assert_eq!(
                    (seen.code(), seen.word()),
                    (shape.code, shape.reason),
                    "{}",
                    shape.name
                );
                let payloads: Vec<&[u8]> =
                    body.messages.iter().map(|(_, bytes)| &bytes[..]).collect();
                assert_eq!(payloads, shape.payloads, "{}", shape.name);
                assert_eq!(body.trailers, shape.trailers, "{}", shape.name);
                assert_eq!(seen.messages, shape.payloads.len() as u64);
                let bytes: usize = shape.payloads.iter().map(|bytes| bytes.len() + 5).sum();
                assert_eq!(seen.bytes, bytes as u64, "{}", shape.name);
            }
        }
    }
}

#[test]
fn broken_answers_end_at_a_boundary_and_are_cut_inside_a_message() {
    let hello = || message(0, b"hello");
    let rows: Vec<(&str, Vec<Said>, &str, Closing)> = vec![
        (
            "u_09 messages and no trailers",
            vec![head(200, &[GRPC]), Said::Data(hello()), END],
            "backend_no_trailers",
            Closing::Ended,
        ),
        (
            "u_09 a status in the head does not count behind messages",
            vec![head(200, &[GRPC, OK]), Said::Data(hello()), END],
            "backend_no_trailers",
            Closing::Ended,
        ),
        (
            "w_34 a short message, then trailers",
            vec![
                head(200, &[GRPC]),
                Said::Data([&hello()[..], &hello()[..7]].concat()),
                trailers(&[OK]),
            ],
            "backend_protocol",
            Closing::Cut,
        ),
        (
            "w_34 a prefix without its message, then the end",
            vec![head(200, &[GRPC]), Said::Data(hello()[..5].to_vec()), END],
            "backend_protocol",
            Closing::Cut,
        ),
        (
            "a begun prefix never left, so the answer can be ended",
            vec![
                head(200, &[GRPC]),
                Said::Data([&hello()[..], &hello()[..4]].concat()),
                trailers(&[OK]),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "flags that gRPC does not know",
            vec![
                head(200, &[GRPC]),
                Said::Data([hello(), message(2, b"x")].concat()),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "a backend's own trailer frame",
            vec![
                head(200, &[GRPC]),
                Said::Data([hello(), message(0x80, b"")].concat()),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "w_33 a compressed message without grpc-encoding",
            vec![
                head(200, &[GRPC]),
                Said::Data([hello(), message(1, b"x")].concat()),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "w_33 a coding that we do not know",
            vec![
                head(200, &[GRPC, ("grpc-encoding", "snappy")]),
                Said::Data([hello(), message(1, b"x")].concat()),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "w_38 a message over the limit",
            vec![
                head(200, &[GRPC]),
                Said::Data([hello(), message(0, &[0; 65])].concat()),
            ],
            "message_too_large",
            Closing::Ended,
        ),
        (
            "w_04 the longest length",
            vec![
                head(200, &[GRPC]),
                Said::Data([hello(), prefix(0, u32::MAX).to_vec()].concat()),
            ],
            "message_too_large",
            Closing::Ended,
        ),
        (
            "m_12 connection fields in trailers",
            vec![
                head(200, &[GRPC]),
                Said::Data(hello()),
                trailers(&[OK, ("connection", "close")]),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "u_15 two heads",
            vec![head(200, &[GRPC]), Said::Data(hello()), head(200, &[GRPC])],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "u_15 two heads, the first held",
            vec![head(200, &[GRPC, OK]), head(200, &[GRPC])],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "u_15 two heads, the first foreign",
            vec![
                head(500, &[]),
                Said::Data(b"oh".to_vec()),
                head(200, &[GRPC]),
            ],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "content before the head",
            vec![Said::Data(hello())],
            "backend_protocol",
            Closing::Ended,
        ),
        (
            "an end before the head",
            vec![END],
            "backend_protocol",
            Closing::Ended,
        ),
    ];
    for (name, script, reason, closing) in &rows {
        for form in FORMS {
            for script in ways(script) {
                let seen = answer(form, &[], &script);
                let fault = seen.fault.unwrap_or_else(|| panic!("{name}: a fault"));
                assert_eq!(
                    (fault.by, fault.reason.word()),
                    (Party::Upstream, *reason),
                    "{name}"
                );
                assert_eq!(seen.closing, Some(*closing), "{name}");
                if *closing == Closing::Ended {
                    let body = whole_body(&seen, form);
                    assert!(
                        body.messages.iter().all(|(_, payload)| payload == b"hello"),
                        "{name}"
                    );
                    assert_eq!(
                        body.trailers, "grpc-status:13\r\ngrpc-message:100%25 broken\r\n",
                        "{name}"
                    );
                } else {
                    assert!(!seen.ended, "{name}");
                }
            }
        }
    }
}

#[test]
fn an_answer_cut_anywhere_is_ended_exactly_where_no_message_is_open() {
    let content = [message(0, b"hello"), message(0, b""), message(0, b"w")].concat();
    // Messages lie at 0..10, 10..15, 15..21.
    let aligned = |at: usize| matches!(at, 0..=4 | 10..=19 | 21);
    for form in FORMS {
        for at in 0..=content.len() {
            let script = [head(200, &[GRPC]), Said::Data(content[..at].to_vec())];
            for script in ways(&script) {
                let mut codec = ResponseCodec::new(
                    Dialect::GrpcWeb {
                        request: form,
                        response: form,
                    },
                    &Fields::new(),
                    LIMIT,
                );
                let mut seen = Seen::default();
                for said in &script {
                    let translated = codec.translate(part(said), &mut |part| seen.take(part));
                    assert_eq!(translated, Ok(None));
                }
                assert_eq!(codec.at_boundary(), aligned(at), "at {at}");
                let status = Status::new(Code::UNAVAILABLE, "the backend is gone");
                let before = seen.body.len();
                let closing = codec.end(&status, &mut |part| seen.take(part));
                if aligned(at) {
                    assert_eq!(closing, Closing::Ended, "at {at}");
                    let body = whole_body(&seen, form);
                    assert_eq!(
                        body.trailers,
                        "grpc-status:14\r\ngrpc-message:the backend is gone\r\n"
                    );
                } else {
                    assert_eq!(closing, Closing::Cut, "at {at}");
                    assert_eq!(seen.body.len(), before, "nothing is written into a message");
                    assert!(!seen.ended);
                }
            }
        }
    }
}

#[test]
fn the_head_leaves_at_once_with_the_backends_suffix_and_metadata() {
    let fields: Rows<'_> = &[
        ("content-type", "application/grpc+json; charset=utf-8"),
        ("content-length", "10"),
        ("x-initial", "a"),
        ("x-initial", "b"),
        ("x-bin", "AAE"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("grpc-accept-encoding", "gzip"),
        ("access-control-allow-origin", "*"),
        ("trailer", "grpc-status"),
    ];
    let script = [
        head(200, fields),
        Said::Data(message(0, b"hello")),
        trailers(&[OK]),
    ];
    let seen = answer(
        Form::Text,
        &[("content-type", "application/grpc-web-text+proto")],
        &script,
    );
    assert_eq!(seen.head_after, Some(0));
    assert_eq!(
        seen.field("content-type"),
        ["application/grpc-web-text+json"]
    );
    assert_eq!(seen.field("x-initial"), ["a", "b"]);
    assert_eq!(seen.field("x-bin"), ["AAE"]);
    assert_eq!(seen.field("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(seen.field("grpc-accept-encoding"), ["gzip"]);
    for gone in ["content-length", "access-control-allow-origin", "trailer"] {
        assert!(seen.field(gone).is_empty(), "m_13: {gone}");
    }
}

#[test]
fn w_31_a_trailers_only_answer_keeps_https_own_fields_in_the_head() {
    let script = [last_head(
        200,
        &[
            ("content-type", "application/grpc"),
            ("grpc-status", "16"),
            ("grpc-message", "who are you"),
            ("grpc-encoding", "gzip"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("date", "today"),
            ("x-many", "1"),
            ("x-many", "2"),
            ("content-length", "0"),
            ("access-control-allow-origin", "*"),
        ],
    )];
    let seen = answer(
        Form::Binary,
        &[("content-type", "application/grpc-web+proto")],
        &script,
    );
    let body = whole_body(&seen, Form::Binary);
    assert_eq!(
        body.trailers,
        "grpc-status:16\r\ngrpc-message:who are you\r\nx-many:1\r\nx-many:2\r\n"
    );
    assert_eq!(seen.field("content-type"), ["application/grpc-web"]);
    assert_eq!(seen.field("content-length"), [seen.body.len().to_string()]);
    assert_eq!(seen.field("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(seen.field("date"), ["today"]);
    assert!(seen.field("access-control-allow-origin").is_empty());
    let ending = seen.ending.expect("an ending");
    assert_eq!(
        ending.status,
        Status::new(Code::UNAUTHENTICATED, "who are you")
    );
}

#[test]
fn an_answer_of_our_own_has_the_requests_suffix_and_a_length() {
    for form in FORMS {
        let dialect = Dialect::GrpcWeb {
            request: form,
            response: form,
        };
        let request = map(&owned(&[("content-type", "application/grpc-web+json")]));
        let mut codec = ResponseCodec::new(dialect, &request.into(), LIMIT);
        let mut seen = Seen::default();
        let status = Status::new(Code::UNIMPLEMENTED, "");
        assert_eq!(
            codec.end(&status, &mut |part| seen.take(part)),
            Closing::Ended
        );
        assert_eq!(whole_body(&seen, form).trailers, "grpc-status:12\r\n");
        assert!(seen.field("content-type")[0].ends_with("+json"));
        assert_eq!(seen.field("content-length"), [seen.body.len().to_string()]);
        assert!(codec.head_sent());
    }
}

#[test]
fn u_12_a_foreign_body_is_cut_for_the_message_and_dropped_at_64_kib() {
    let piece = || Said::Data(vec![b'x'; 16 << 10]);
    let script = [
        head(503, &[("content-type", "text/plain")]),
        piece(),
        piece(),
        piece(),
        piece(),
    ];
    let seen = answer(Form::Binary, &[], &script);
    assert!(
        seen.ending.is_none() && seen.head.is_none(),
        "64 KiB are waited for"
    );
    let script = [&script[..], &[Said::Data(b"y".to_vec())]].concat();
    let seen = answer(Form::Binary, &[], &script);
    let body = whole_body(&seen, Form::Binary);
    assert_eq!((seen.code(), seen.word()), (14, "backend_not_grpc"));
    let message = body
        .trailers
        .split("grpc-message:")
        .nth(1)
        .expect("a message");
    assert_eq!(message.trim_end(), "x".repeat(4096));

    let packed = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    let script = [head(500, &packed), Said::Data(vec![0x1f, 0x8b]), END];
    let seen = answer(Form::Binary, &[], &script);
    assert!(
        whole_body(&seen, Form::Binary)
            .trailers
            .contains("HTTP status 500")
    );
}

#[test]
fn u_29_a_status_of_ok_is_not_believed_where_content_was_dropped() {
    // Told OK, a caller would take an answer for whole whose messages it never got.
    let message = || Said::Data(vec![0, 0, 0, 0, 1, b'x']);
    let ends = [&[OK][..], &[("grpc-status", "7")]];
    for (ends, expected) in ends.into_iter().zip([2, 7]) {
        let late = [head(500, &[GRPC]), message(), trailers(ends)];
        let early = [
            head(200, &[&[("content-type", "application/x")], ends].concat()),
            message(),
            END,
        ];
        for script in [late, early] {
            let seen = answer(Form::Binary, &[], &script);
            let word = ["backend_not_grpc", "backend_status"][usize::from(expected == 7)];
            assert_eq!((seen.code(), seen.word()), (expected, word));
            assert!(whole_body(&seen, Form::Binary).messages.is_empty());
        }
    }
    // Nothing lost, nothing doubted.
    let script = [head(500, &[GRPC]), Said::Data(Vec::new()), trailers(&[OK])];
    assert_eq!(answer(Form::Binary, &[], &script).code(), 0);
}

#[test]
fn w_33_compressed_messages_pass_to_who_asked_and_are_unpacked_for_others() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"hello hello").expect("memory");
    let packed = encoder.finish().expect("memory");
    let script = [
        head(200, &[GRPC, ("grpc-encoding", "gzip")]),
        Said::Data([message(1, &packed), message(0, b"plain")].concat()),
        trailers(&[OK]),
    ];
    for form in FORMS {
        for script in ways(&script) {
            for accepted in ["gzip", "deflate,gzip", "identity, gzip"] {
                let seen = answer(form, &[("grpc-accept-encoding", accepted)], &script);
                let body = whole_body(&seen, form);
                assert_eq!(body.messages, [(1, packed.clone()), (0, b"plain".to_vec())]);
                assert_eq!(seen.field("grpc-encoding"), ["gzip"]);
            }
            for request in [&[][..], &[("grpc-accept-encoding", "identity")]] {
                let seen = answer(form, request, &script);
                let body = whole_body(&seen, form);
                assert_eq!(
                    body.messages,
                    [(0, b"hello hello".to_vec()), (0, b"plain".to_vec())]
                );
                assert!(seen.field("grpc-encoding").is_empty());
            }
        }
    }
}

#[test]
fn w_33_a_bomb_ends_the_answer_behind_the_messages_before_it() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&[0; 4096]).expect("memory");
    let bomb = encoder.finish().expect("memory");
    assert!(bomb.len() <= LIMIT as usize);
    let script = [
        head(200, &[GRPC, ("grpc-encoding", "gzip")]),
        Said::Data([message(0, b"hello"), message(1, &bomb)].concat()),
    ];
    for script in ways(&script) {
        let seen = answer(Form::Binary, &[], &script);
        assert_eq!(
            seen.fault,
            Some(Reset::upstream(Reason::MessageTooLarge(LIMIT)))
        );
        assert_eq!(
            whole_body(&seen, Form::Binary).messages,
            [(0, b"hello".to_vec())]
        );
    }
}

#[test]
fn binary_data_is_moved_through_and_not_copied() {
    let dialect = Dialect::GrpcWeb {
        request: Form::Binary,
        response: Form::Binary,
    };
    let mut codec = ResponseCodec::new(dialect, &Fields::new(), LIMIT);
    codec
        .translate(part(&head(200, &[GRPC])), &mut |_| {})
        .expect("a head");
    let data = Bytes::from([message(0, b"hello"), message(0, b"w")].concat());
    let mut out = Vec::new();
    codec
        .translate(Part::Data(data.clone()), &mut |part| out.push(part))
        .expect("data");
    let [Part::Data(passed)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((passed.as_ptr(), passed.len()), (data.as_ptr(), data.len()));
}

#[test]
fn w_24_a_large_message_leaves_in_text_as_it_comes() {
    let dialect = Dialect::GrpcWeb {
        request: Form::Text,
        response: Form::Text,
    };
    let mut codec = ResponseCodec::new(dialect, &Fields::new(), 1 << 30);
    codec
        .translate(part(&head(200, &[GRPC])), &mut |_| {})
        .expect("a head");
    let mut given = 0;
    let mut taken = 0;
    let piece = Bytes::from(vec![7; 1 << 14]);
    let mut give = |data: Bytes, taken: &mut usize| {
        given += data.len();
        let mut take = |part| {
            let Part::Data(text) = part else {
                panic!("data")
            };
            *taken += text.len() / 4 * 3;
        };
        codec.translate(Part::Data(data), &mut take).expect("data");
        assert!(given - *taken <= 2, "at most two bytes are held");
    };
    give(Bytes::copy_from_slice(&prefix(0, 64 << 20)), &mut taken);
    for _ in 0..64 {
        give(piece.clone(), &mut taken);
    }
}

#[test]
fn a_text_answer_is_padded_where_a_message_ends() {
    let script = [
        head(200, &[GRPC]),
        Said::Data(message(0, b"ab")),
        Said::Data(message(0, b"")),
    ];
    let seen = answer(Form::Text, &[], &script);
    assert_eq!(seen.data_parts, 2);
    assert_eq!(seen.body, b"AAAAAAJhYg==AAAAAAA=");
}

/// What a request came to: the bytes for the backend, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    body: Vec<u8>,
    outcome: Result<(), Reset>,
    messages: u64,
}

fn send(form: Form, pieces: &[&[u8]]) -> Sent {
    let dialect = Dialect::GrpcWeb {
        request: form,
        response: form,
    };
    let trailers = map(&owned(&[("x-client-trailer", "1")]));
    send_as(dialect, pieces, Part::End(Some(Box::new(trailers))))
}

/// A request of that dialect, in such pieces and with the end that its client may say.
fn send_as(dialect: Dialect, pieces: &[&[u8]], end: Part) -> Sent {
    let mut codec = RequestCodec::new(dialect, LIMIT);
    let mut body = Vec::new();
    let mut ended = false;
    let mut take = |part| match part {
        Part::Data(data) => {
            assert!(!data.is_empty() && !ended);
            body.extend_from_slice(&data);
        }
        Part::End(None) => ended = true,
        other => panic!("{other:?}"),
    };
    let pieces = pieces
        .iter()
        .map(|piece| Part::Data(Bytes::copy_from_slice(piece)));
    let outcome = pieces
        .chain([end])
        .try_for_each(|part| codec.translate(part, &mut take));
    if outcome.is_err() {
        assert_eq!(
            codec.translate(END_PART, &mut take),
            outcome,
            "a fault is sticky"
        );
    }
    assert_eq!(
        ended,
        outcome.is_ok(),
        "an end is sent after a whole request and no other"
    );
    assert_eq!(codec.bytes(), body.len() as u64);
    assert_eq!(codec.at_boundary(), !codec.in_message());
    assert!(outcome.is_err() || codec.at_boundary());
    Sent {
        messages: codec.messages(),
        body,
        outcome,
    }
}

/// Both forms of a request, each at every cut and byte by byte.
fn sent_ways(binary: &[u8]) -> Vec<Sent> {
    let mut encoder = Encoder::new();
    let mut text = BytesMut::new();
    encoder.encode(binary, &mut text);
    encoder.flush(&mut text);
    let mut sent = Vec::new();
    for (form, bytes) in [(Form::Binary, binary), (Form::Text, &text[..])] {
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            sent.push(send(form, &[left, right]));
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        sent.push(send(form, &single));
    }
    sent
}

#[test]
fn w_08_a_request_cut_anywhere_gives_the_same_bytes() {
    let rows = [
        (Vec::new(), 0),
        (message(0, b""), 1),
        (message(0, b"hello"), 1),
        (message(1, b"w_06 is the backend's to refuse"), 1),
        (
            [
                message(0, b"a"),
                message(0, b""),
                message(1, b"bc"),
                message(0, &[9; 64]),
            ]
            .concat(),
            4,
        ),
    ];
    for (binary, messages) in rows {
        for sent in sent_ways(&binary) {
            let expected = Sent {
                body: binary.clone(),
                outcome: Ok(()),
                messages,
            };
            assert_eq!(sent, expected);
        }
    }
}

#[test]
fn w_02_to_w_07_a_broken_request_never_ends_and_nothing_of_the_broken_message_leaves() {
    let good = message(0, b"fine");
    let rows: [(&str, Vec<u8>, &str); 9] = [
        ("w_02 a begun prefix", vec![0], "client_protocol"),
        ("w_02 a begun prefix", vec![0, 0, 0, 0], "client_protocol"),
        ("w_04", prefix(0, u32::MAX).to_vec(), "message_too_large"),
        ("w_05", message(0, &[0; 65]), "message_too_large"),
        ("w_07", message(2, b""), "client_protocol"),
        ("w_07", message(0x7f, b"x"), "client_protocol"),
        (
            "w_07",
            message(0x80, b"grpc-status:0\r\n"),
            "client_protocol",
        ),
        ("w_07", message(0x81, b""), "client_protocol"),
        ("w_07", message(0xff, b""), "client_protocol"),
    ];
    for (name, bad, reason) in rows {
        for sent in sent_ways(&[&good[..], &bad].concat()) {
            let fault = sent.outcome.expect_err(name);
            assert_eq!(
                (fault.by, fault.reason.word()),
                (Party::Downstream, reason),
                "{name}"
            );
            assert_eq!(sent.body, good, "{name}");
            assert_eq!(sent.messages, 1, "{name}");
        }
    }
}

#[test]
fn w_03_a_short_message_is_begun_but_never_ended() {
    let good = message(0, b"fine");
    let short = &message(0, b"hello")[..9];
    for sent in sent_ways(&[&good[..], short].concat()) {
        let fault = sent.outcome.expect_err("a short message");
        assert_eq!(fault.reason.word(), "client_protocol");
        assert_eq!(sent.messages, 1);
    }
}

#[test]
fn w_21_and_w_22_text_that_is_no_base64_is_the_clients_fault() {
    for text in [
        &b"AAAA!AAA"[..],
        b"AAAAAA==AAAA-_-_",
        b"AAAAAAA",
        b"AAAAAAJhY",
        b"AAAA\r\n",
    ] {
        for at in 0..=text.len() {
            let (left, right) = text.split_at(at);
            let fault = send(Form::Text, &[left, right])
                .outcome
                .expect_err("no base64");
            assert_eq!(fault.by, Party::Downstream);
            assert_eq!(fault.reason.word(), "client_protocol");
        }
    }
}

#[test]
fn w_20_a_text_request_may_be_padded_anywhere() {
    let binary = message(0, b"hello");
    for border in 0..=binary.len() {
        let mut encoder = Encoder::new();
        let mut text = BytesMut::new();
        for run in [&binary[..border], &binary[border..]] {
            encoder.encode(run, &mut text);
            encoder.flush(&mut text);
        }
        for at in 0..=text.len() {
            let (left, right) = text.split_at(at);
            assert_eq!(send(Form::Text, &[left, right]).body, binary);
        }
    }
}

#[test]
fn the_backend_gets_grpcs_words_for_the_call() {
    let rows = [
        ("application/grpc-web", "application/grpc"),
        ("application/grpc-web+proto", "application/grpc+proto"),
        ("application/grpc-web-text", "application/grpc"),
        (
            "application/grpc-web-text+json; charset=utf-8",
            "application/grpc+json",
        ),
        ("Application/GRPC-WEB+Thrift", "application/grpc+thrift"),
    ];
    let dialect = Dialect::GrpcWeb {
        request: Form::Binary,
        response: Form::Binary,
    };
    let codec = RequestCodec::new(dialect, LIMIT);
    for (from, to) in rows {
        let original = map(&owned(&[("content-type", from)]));
        let mut forwarded = map(&owned(&[("x-a", "1")]));
        codec.request_fields(&original.into(), &mut forwarded);
        let expected = [
            ("x-a", "1"),
            ("content-type", to),
            ("te", "trailers"),
            ("grpc-accept-encoding", "identity"),
        ];
        assert_eq!(forwarded, map(&owned(&expected)));
    }
    let mut forwarded = map(&owned(&[("grpc-accept-encoding", "gzip")]));
    codec.request_fields(&forwarded.clone().into(), &mut forwarded);
    assert_eq!(forwarded["grpc-accept-encoding"], "gzip");
}

#[test]
fn plain_http_passes_as_it_is_and_can_only_be_ended_before_its_head() {
    assert!(!Dialect::Plain.is_rpc());
    let mut codec = ResponseCodec::new(Dialect::Plain, &Fields::new(), LIMIT);
    let mut seen = Seen::default();
    let script = [
        head(404, &[("content-type", "text/html"), ("x-a", "1")]),
        Said::Data(b"gone".to_vec()),
    ];
    assert!(!codec.head_sent());
    for said in &script {
        let translated = codec.translate(part(said), &mut |part| seen.take(part));
        assert_eq!(translated, Ok(None));
        assert!(codec.head_sent());
    }
    let status = Status::new(Code::UNAVAILABLE, "nobody is there");
    assert!(!codec.at_boundary());
    let ending = codec
        .translate(END_PART, &mut |part| seen.take(part))
        .expect("an end");
    assert_eq!(ending.map(|ending| ending.reason), Some(Reason::Ok));
    assert_eq!(
        seen.head.as_ref().map(|head| head.status),
        Some(StatusCode::NOT_FOUND)
    );
    assert_eq!(
        (seen.field("x-a"), &seen.body[..]),
        (vec!["1".to_owned()], &b"gone"[..])
    );
    assert!(seen.ended);

    let mut codec = ResponseCodec::new(Dialect::Plain, &Fields::new(), LIMIT);
    let mut seen = Seen::default();
    assert_eq!(
        codec.end(&status, &mut |part| seen.take(part)),
        Closing::Ended
    );
    assert_eq!(
        seen.head.as_ref().map(|head| head.status.as_u16()),
        Some(503)
    );
    assert_eq!(
        (&seen.body[..], seen.ended),
        (&b"nobody is there\n"[..], true)
    );
    assert_eq!(codec.bytes(), seen.body.len() as u64);

    let mut codec = ResponseCodec::new(Dialect::Plain, &Fields::new(), LIMIT);
    codec
        .translate(part(&script[0]), &mut |_| {})
        .expect("a head");
    let nothing = &mut |part| panic!("{part:?}");
    assert_eq!(codec.end(&status, nothing), Closing::Cut);

    let mut request = RequestCodec::new(Dialect::Plain, LIMIT);
    let mut forwarded = HeaderMap::new();
    let original = map(&owned(&[
        ("content-type", "text/plain"),
        ("accept", "text/html"),
        ("te", "x"),
    ]));
    request.request_fields(&original.into(), &mut forwarded);
    assert_eq!(
        forwarded,
        map(&owned(&[
            ("content-type", "text/plain"),
            ("accept", "text/html")
        ]))
    );
    let mut body = Vec::new();
    let data = Part::Data(Bytes::from_static(b"\xff anything"));
    request
        .translate(data, &mut |part| body.push(part))
        .expect("anything passes");
    request
        .translate(END_PART, &mut |part| body.push(part))
        .expect("an end");
    assert!(matches!(&body[..], [Part::Data(data), Part::End(None)] if data.len() == 10));
    assert_eq!(request.bytes(), 10);
    // Of plain HTTP nobody knows where it rests.
    assert!(!request.at_boundary());
}

#[test]
fn a_request_is_between_messages_only_where_nothing_of_the_next_one_has_come() {
    let whole = b"\0\0\0\0\x02hi";
    // The same in text: `AAAAAAJoaQ==`.
    let rows: [(Form, &[u8], bool); 12] = [
        (Form::Binary, b"", true),
        (Form::Binary, &whole[..1], false),
        (Form::Binary, &whole[..5], false),
        (Form::Binary, &whole[..6], false),
        (Form::Binary, whole, true),
        (Form::Binary, b"\0\0\0\0\x02hi\0", false),
        (Form::Text, b"", true),
        (Form::Text, b"A", false),
        // Whole groups of four, and half a message.
        (Form::Text, b"AAAAAAJo", false),
        (Form::Text, b"AAAAAAJoaQ=", false),
        (Form::Text, b"AAAAAAJoaQ==", true),
        // A whole message, and the beginning of a group.
        (Form::Text, b"AAAAAAJoaQ==A", false),
    ];
    for (request, bytes, boundary) in rows {
        let response = Form::Binary;
        let mut codec = RequestCodec::new(Dialect::GrpcWeb { request, response }, LIMIT);
        let data = Part::Data(Bytes::from_static(bytes));
        codec.translate(data, &mut |_| {}).expect("nothing wrong");
        assert_eq!(codec.at_boundary(), boundary, "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_answer_without_a_content_type_is_none_of_grpcs() {
    let dialect = Dialect::GrpcWeb {
        request: Form::Binary,
        response: Form::Binary,
    };
    let mut codec = ResponseCodec::new(dialect, &Fields::new(), LIMIT);
    let untyped = ResponseHead::new(StatusCode::OK);
    let begun = codec.translate(Part::Head(Box::new(untyped)), &mut |part| {
        panic!("{part:?}")
    });
    assert_eq!(begun, Ok(None));
    let ending = codec.translate(END_PART, &mut |_| {}).expect("an end");
    let reason = ending.map(|ending| ending.reason);
    assert_eq!(reason, Some(Reason::BackendNotGrpc(200)));
}

#[test]
fn m_17_what_is_left_out_of_a_frame_is_counted_behind_messages_and_alone() {
    let dialect = Dialect::GrpcWeb {
        request: Form::Binary,
        response: Form::Binary,
    };
    for alone in [false, true] {
        let mut codec = ResponseCodec::new(dialect, &Fields::new(), LIMIT);
        let mut head = ResponseHead::new(StatusCode::OK);
        let grpc = HeaderValue::from_static("application/grpc");
        head.headers.insert(CONTENT_TYPE, grpc);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let odd = HeaderValue::from_bytes(b"gr\xfcn").expect("legal in HTTP");
        trailers.insert("x-odd", odd.clone());
        trailers.insert("x-other", odd);
        let mut end = END_PART;
        if alone {
            head.headers.extend(trailers);
        } else {
            end = Part::End(Some(Box::new(trailers)));
        }
        for part in [Part::Head(Box::new(head)), end] {
            codec.translate(part, &mut |_| {}).expect("nothing wrong");
        }
        assert_eq!(codec.dropped_fields(), 2, "alone: {alone}");
    }
}
