//! Native gRPC through the codecs: in tables at every split point, and by chance beside gRPC-Web, which must come to the same
//! status and the same messages.

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::{collection, option};

use super::*;

/// Runs a script for a native caller. What is neither ended nor broken when it is over loses its backend then.
fn pass(request: Rows<'_>, script: &[Said]) -> Native {
    let request = map(&owned(request)).into();
    let mut codec = ResponseCodec::new(Dialect::Grpc, &request, LIMIT);
    let mut seen = Native::default();
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
                let again = codec.translate(END_PART, &mut |part| panic!("{part:?}"));
                assert_eq!(again, Err(fault), "a fault is sticky");
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
    if seen.ending.is_none() {
        let status = Status::new(Code::UNAVAILABLE, "100% gone");
        let aligned = codec.at_boundary();
        let closing = codec.end(&status, &mut |part| seen.take(part));
        assert_eq!(closing == Closing::Ended, seen.ended);
        assert_eq!(closing == Closing::Ended, aligned);
        seen.closing = Some(closing);
    }
    let late = Status::new(Code::INTERNAL, "late");
    let closing = codec.end(&late, &mut |part| panic!("{part:?}"));
    assert_eq!(closing, Closing::Ended);
    assert_eq!(codec.dropped_fields(), 0);
    seen
}

/// What came out, and how it ended.
#[derive(Debug, Default)]
struct Native {
    head: Option<Box<ResponseHead>>,
    body: Vec<u8>,
    ended: bool,
    trailers: Option<Box<HeaderMap>>,
    ending: Option<Ending>,
    fault: Option<Reset>,
    closing: Option<Closing>,
    messages: u64,
    bytes: u64,
    head_after: Option<usize>,
}

impl Native {
    fn take(&mut self, part: Part) {
        assert!(!self.ended, "nothing after the end");
        match part {
            Part::Head(head) => {
                assert!(self.head.is_none(), "one head");
                assert_eq!(head.status, StatusCode::OK);
                assert_eq!(head.headers.get_all(CONTENT_TYPE).iter().count(), 1);
                self.head = Some(head);
            }
            Part::Data(data) => {
                assert!(self.head.as_ref().is_some_and(|head| !head.end));
                assert!(!data.is_empty(), "no empty data");
                self.body.extend_from_slice(&data);
            }
            Part::End(trailers) => {
                let head = self.head.as_ref().expect("a head comes first");
                assert_eq!(head.end, trailers.is_none(), "trailers-only or trailers");
                self.trailers = trailers;
                self.ended = true;
            }
        }
    }

    fn is_alone(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.end)
    }

    /// The fields that end the call, in order of their names.
    fn end_fields(&self) -> Vec<(String, String)> {
        assert!(self.ended, "{self:?}");
        let head = self.head.as_ref().expect("a head");
        let fields = self.trailers.as_deref().unwrap_or(&head.headers);
        assert_eq!(fields.get_all("grpc-status").iter().count(), 1);
        assert!(fields.get_all("grpc-message").iter().count() <= 1);
        sorted(fields)
    }

    fn head_fields(&self) -> Vec<(String, String)> {
        sorted(&self.head.as_ref().expect("a head").headers)
    }
}

fn sorted(fields: &HeaderMap) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    // Values of one name keep their order.
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    pairs
}

fn sorted_rows(rows: Rows<'_>) -> Vec<(String, String)> {
    sorted(&map(&owned(rows)))
}

struct Shape<'a> {
    name: &'a str,
    script: Vec<Said>,
    code: u32,
    reason: &'a str,
    /// `None`: trailers-only.
    head: Option<Rows<'a>>,
    end: Rows<'a>,
}

const NO_STATUS: (&str, &str) = (
    "grpc-message",
    "the backend ended its answer without grpc-status",
);
const OWN_TYPE: (&str, &str) = ("content-type", "application/grpc+json");

#[test]
fn every_shape_of_answer_passes_as_it_came_at_every_split() {
    let content = || Said::Data([message(0, b"hello"), message(0, b"")].concat());
    let shapes = [
        Shape {
            name: "messages, then trailers with details and more",
            script: vec![
                head(
                    200,
                    &[
                        ("content-type", "application/grpc+proto; x=Y"),
                        ("x-a", "1"),
                        ("x-a", "2"),
                        ("grpc-encoding", "identity"),
                        ("grpc-accept-encoding", "gzip"),
                        ("date", "now"),
                    ],
                ),
                content(),
                trailers(&[
                    ("x-b", "1"),
                    ("grpc-status", "5"),
                    ("x-b", "2"),
                    ("grpc-message", "no %E2%98%BA"),
                    ("grpc-status-details-bin", "CAU="),
                    ("server", "s"),
                ]),
            ],
            code: 5,
            reason: "backend_status",
            head: Some(&[
                ("content-type", "application/grpc+proto; x=Y"),
                ("x-a", "1"),
                ("x-a", "2"),
                ("grpc-encoding", "identity"),
                ("grpc-accept-encoding", "gzip"),
                ("date", "now"),
            ]),
            end: &[
                ("grpc-status", "5"),
                ("grpc-message", "no %E2%98%BA"),
                ("grpc-status-details-bin", "CAU="),
                ("server", "s"),
                ("x-b", "1"),
                ("x-b", "2"),
            ],
        },
        Shape {
            name: "a head and trailers apart, without a message",
            script: vec![head(200, &[GRPC]), trailers(&[OK])],
            code: 0,
            reason: "ok",
            head: Some(&[GRPC]),
            end: &[OK],
        },
        Shape {
            name: "trailers-only",
            script: vec![
                last_head(
                    200,
                    &[GRPC, ("grpc-status", "12"), ("x-a", "1"), ("date", "now")],
                ),
                END,
            ],
            code: 12,
            reason: "backend_status",
            head: None,
            end: &[GRPC, ("grpc-status", "12"), ("x-a", "1"), ("date", "now")],
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
            head: None,
            end: &[GRPC, ("grpc-status", "7")],
        },
        Shape {
            name: "a status in the head, other fields in trailers",
            script: vec![
                head(200, &[GRPC, ("grpc-status", "7"), ("x-a", "1")]),
                trailers(&[("x-a", "2"), ("grpc-message", "not the status's")]),
            ],
            code: 7,
            reason: "backend_status",
            head: None,
            end: &[GRPC, ("grpc-status", "7"), ("x-a", "1"), ("x-a", "2")],
        },
        Shape {
            name: "trailers beat the head",
            script: vec![
                head(
                    200,
                    &[
                        GRPC,
                        OK,
                        ("grpc-message", "x"),
                        ("grpc-status-details-bin", "AA"),
                    ],
                ),
                content(),
                trailers(&[("grpc-status", "9")]),
            ],
            code: 9,
            reason: "backend_status",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "9")],
        },
        Shape {
            name: "fields of the backend's connection stay behind",
            script: vec![
                head(
                    200,
                    &[
                        GRPC,
                        ("content-length", "15"),
                        ("trailer", "grpc-status"),
                        ("access-control-allow-origin", "*"),
                        ("x-a", "1"),
                    ],
                ),
                content(),
                trailers(&[OK]),
            ],
            code: 0,
            reason: "ok",
            head: Some(&[GRPC, ("x-a", "1")]),
            end: &[OK],
        },
        Shape {
            name: "and so they do of trailers-only",
            script: vec![
                last_head(
                    200,
                    &[
                        OK,
                        GRPC,
                        ("content-length", "0"),
                        ("access-control-allow-origin", "*"),
                        ("grpc-encoding", "gzip"),
                    ],
                ),
                END,
            ],
            code: 0,
            reason: "ok",
            head: None,
            end: &[GRPC, OK, ("grpc-encoding", "gzip")],
        },
        Shape {
            name: "a broken message is repaired",
            script: vec![
                head(200, &[GRPC]),
                trailers(&[("grpc-status", "13"), ("grpc-message", "50% broken")]),
            ],
            code: 13,
            reason: "backend_status",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "13"), ("grpc-message", "50%25 broken")],
        },
        Shape {
            name: "two messages, of which the first counts",
            script: vec![last_head(
                200,
                &[
                    GRPC,
                    ("grpc-status", "3"),
                    ("grpc-message", "a"),
                    ("grpc-message", "b"),
                ],
            )],
            code: 3,
            reason: "backend_status",
            head: None,
            end: &[GRPC, ("grpc-status", "3"), ("grpc-message", "a")],
        },
        Shape {
            name: "w_35 a status that is no number",
            script: vec![
                head(200, &[GRPC]),
                content(),
                trailers(&[("grpc-status", "abc"), ("x-a", "1")]),
            ],
            code: 2,
            reason: "backend_status",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "2"), ("x-a", "1")],
        },
        Shape {
            name: "w_35 two statuses that differ",
            script: vec![last_head(200, &[GRPC, OK, ("grpc-status", "5")])],
            code: 2,
            reason: "backend_status",
            head: None,
            end: &[GRPC, ("grpc-status", "2")],
        },
        Shape {
            name: "two statuses that agree",
            script: vec![head(200, &[GRPC]), trailers(&[OK, OK])],
            code: 0,
            reason: "ok",
            head: Some(&[GRPC]),
            end: &[OK],
        },
        Shape {
            name: "w_35 a status that is not one of the 17",
            script: vec![head(200, &[GRPC]), trailers(&[("grpc-status", "99")])],
            code: 99,
            reason: "backend_status",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "99")],
        },
        Shape {
            name: "trailers without a status",
            script: vec![head(200, &[GRPC]), content(), trailers(&[("x-a", "1")])],
            code: 2,
            reason: "backend_protocol",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "2"), NO_STATUS, ("x-a", "1")],
        },
        Shape {
            name: "u_10 a head and the end, no status",
            script: vec![last_head(200, &[GRPC, ("x-a", "1")]), END],
            code: 2,
            reason: "backend_no_trailers",
            head: None,
            end: &[GRPC, ("grpc-status", "2"), NO_STATUS, ("x-a", "1")],
        },
        Shape {
            name: "u_10 a head, then an empty end, no status",
            script: vec![head(200, &[GRPC]), Said::Data(Vec::new()), END],
            code: 2,
            reason: "backend_no_trailers",
            head: Some(&[GRPC]),
            end: &[("grpc-status", "2"), NO_STATUS],
        },
        Shape {
            name: "another server's page",
            script: vec![
                head(
                    404,
                    &[("content-type", "text/html"), ("date", "now"), ("x-a", "1")],
                ),
                Said::Data(b"<html>gone</html>".to_vec()),
                END,
            ],
            code: 12,
            reason: "backend_not_grpc",
            head: None,
            end: &[
                OWN_TYPE,
                ("date", "now"),
                ("grpc-status", "12"),
                ("grpc-message", "<html>gone</html>"),
            ],
        },
        Shape {
            name: "503 without anything",
            script: vec![last_head(503, &[]), END],
            code: 14,
            reason: "backend_not_grpc",
            head: None,
            end: &[
                OWN_TYPE,
                ("grpc-status", "14"),
                (
                    "grpc-message",
                    "the backend did not answer with gRPC: HTTP status 503, content-type none",
                ),
            ],
        },
        Shape {
            name: "u_12 500 with a status",
            script: vec![
                last_head(500, &[GRPC, ("grpc-status", "8"), ("x-a", "1")]),
                END,
            ],
            code: 8,
            reason: "backend_status",
            head: None,
            end: &[OWN_TYPE, ("grpc-status", "8"), ("x-a", "1")],
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
            head: None,
            end: &[OWN_TYPE, ("grpc-status", "3"), ("x-a", "1"), ("x-b", "2")],
        },
        Shape {
            name: "gRPC-Web's own type is not gRPC's",
            script: vec![last_head(
                200,
                &[("content-type", "application/grpc-web"), OK],
            )],
            code: 0,
            reason: "ok",
            head: None,
            end: &[OWN_TYPE, OK],
        },
        Shape {
            name: "1xx before the head",
            script: vec![
                head(103, &[]),
                head(200, &[GRPC]),
                content(),
                trailers(&[OK]),
            ],
            code: 0,
            reason: "ok",
            head: Some(&[GRPC]),
            end: &[OK],
        },
    ];
    for Shape {
        name,
        script,
        code,
        reason,
        head,
        end,
    } in &shapes
    {
        let payloads = match head {
            Some(_) => content_bytes(script),
            None => 0,
        };
        for script in ways(script) {
            let seen = pass(&[OWN_TYPE], &script);
            let ending = seen.ending.as_ref().unwrap_or_else(|| panic!("{name}"));
            let told = (ending.status.code.number(), ending.reason.word());
            assert_eq!(told, (*code, *reason), "{name}");
            assert_eq!(seen.end_fields(), sorted_rows(end), "{name}");
            match head {
                None => assert!(seen.is_alone(), "{name}"),
                Some(head) => {
                    assert_eq!(seen.head_fields(), sorted_rows(head), "{name}");
                    let content = [message(0, b"hello"), message(0, b"")].concat();
                    assert_eq!(seen.body, content[..payloads], "{name}");
                }
            }
            assert_eq!(seen.bytes, payloads as u64, "{name}");
            assert_eq!(seen.messages, if payloads > 0 { 2 } else { 0 }, "{name}");
        }
    }
}

#[test]
fn an_answer_of_our_own_is_trailers_only_with_the_callers_suffix() {
    for (request, own) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc+json; a=b", "application/grpc+json"),
        ("Application/GRPC+Thrift", "application/grpc+thrift"),
    ] {
        let request = [("content-type", request)];
        let seen = pass(&request, &[]);
        assert!(seen.is_alone());
        let expected = [
            ("content-type", own),
            ("grpc-status", "14"),
            ("grpc-message", "100%25 gone"),
        ];
        assert_eq!(seen.end_fields(), sorted_rows(&expected));
        // What has been heard of the backend's and not told is not told any more.
        for held in [
            head(200, &[GRPC, ("grpc-status", "5"), ("x-a", "1")]),
            head(500, &[("x-a", "1")]),
        ] {
            let seen = pass(&request, &[held]);
            assert_eq!(seen.end_fields(), sorted_rows(&expected));
        }
    }
    let mut codec = ResponseCodec::new(Dialect::Grpc, &Fields::new(), LIMIT);
    let mut seen = Native::default();
    let status = Status::new(Code::UNIMPLEMENTED, "");
    let closing = codec.end(&status, &mut |part| seen.take(part));
    assert_eq!(closing, Closing::Ended);
    assert!(codec.head_sent());
    let expected = [("content-type", "application/grpc"), ("grpc-status", "12")];
    assert_eq!(seen.end_fields(), sorted_rows(&expected));
}

#[test]
fn an_answer_cut_anywhere_gets_trailers_exactly_where_no_message_is_open() {
    let content = [message(0, b"hello"), message(0, b""), message(0, b"w")].concat();
    // Messages lie at 0..10, 10..15, 15..21.
    let starts = [0, 10, 15, 21];
    for at in 0..=content.len() {
        let script = [head(200, &[GRPC]), Said::Data(content[..at].to_vec())];
        for script in ways(&script) {
            let seen = pass(&[], &script);
            let start = starts.into_iter().rev().find(|&start| start <= at);
            let begun = at - start.expect("zero is a start");
            if begun < 5 {
                // A prefix that is not whole has been kept back.
                assert_eq!(seen.body, content[..at - begun], "at {at}");
                assert_eq!(seen.closing, Some(Closing::Ended), "at {at}");
                let told = [("grpc-status", "14"), ("grpc-message", "100%25 gone")];
                assert_eq!(seen.end_fields(), sorted_rows(&told), "at {at}");
                assert!(!seen.is_alone());
            } else {
                assert_eq!(seen.body, content[..at], "at {at}");
                assert_eq!(seen.closing, Some(Closing::Cut), "at {at}");
            }
        }
    }
}

#[test]
fn compressed_messages_pass_untouched_in_whatever_coding_the_head_names() {
    let content = [message(1, b"packed"), message(0, b""), message(1, b"")].concat();
    for coding in ["gzip", "snappy", "GZIP", "x-unheard-of"] {
        let script = [
            head(200, &[GRPC, ("grpc-encoding", coding)]),
            Said::Data(content.clone()),
            trailers(&[OK]),
        ];
        for script in ways(&script) {
            let seen = pass(&[], &script);
            assert_eq!(seen.fault, None, "{coding}");
            assert_eq!(seen.body, content);
            let fields = [GRPC, ("grpc-encoding", coding)];
            assert_eq!(seen.head_fields(), sorted_rows(&fields));
        }
    }
    let uncoded: [Rows<'_>; 3] = [
        &[GRPC],
        &[GRPC, ("grpc-encoding", "identity")],
        &[GRPC, ("grpc-encoding", "Identity")],
    ];
    for fields in uncoded {
        let good = message(0, b"good");
        let script = [
            head(200, fields),
            Said::Data([&good[..], &content].concat()),
        ];
        for script in ways(&script) {
            let seen = pass(&[], &script);
            let fault = seen.fault.expect("nothing says how to unpack it");
            assert_eq!(
                fault,
                Reset::upstream(Reason::BackendProtocol(
                    "a compressed message without grpc-encoding"
                ))
            );
            assert_eq!(seen.body, good);
            assert_eq!(seen.closing, Some(Closing::Ended));
        }
    }
}

#[test]
fn data_and_trailers_are_moved_through_and_not_copied() {
    let mut codec = ResponseCodec::new(Dialect::Grpc, &Fields::new(), LIMIT);
    codec
        .translate(part(&head(200, &[GRPC])), &mut |_| {})
        .expect("a head");
    let data = Bytes::from([message(0, b"hello"), message(0, b"w")].concat());
    let mut trailers = Box::new(map(&owned(&[OK, ("grpc-message", "")])));
    // What is no printable ASCII has its place in HTTP/2, though not in a trailer frame.
    let odd = HeaderValue::from_bytes(b"gr\xfcn").expect("legal in HTTP");
    trailers.insert("x-odd", odd);
    let (expected, place) = (trailers.clone(), std::ptr::from_ref(&*trailers));
    let mut out = Vec::new();
    for part in [Part::Data(data.clone()), Part::End(Some(trailers))] {
        codec
            .translate(part, &mut |part| out.push(part))
            .expect("nothing wrong");
    }
    let [Part::Data(passed), Part::End(Some(ended))] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((passed.as_ptr(), passed.len()), (data.as_ptr(), data.len()));
    assert_eq!(std::ptr::from_ref(&**ended), place);
    assert_eq!(*ended, expected);
}

const BINARY: Dialect = Dialect::GrpcWeb {
    request: Form::Binary,
    response: Form::Binary,
};

#[test]
fn h2_29_a_native_request_passes_untouched_and_its_trailers_go_nowhere() {
    let content = [
        message(0, b"a"),
        message(0, b""),
        message(1, b"packed"),
        message(0, &[9; 64]),
    ]
    .concat();
    for at in 0..=content.len() {
        let (left, right) = content.split_at(at);
        for end in [
            END_PART,
            Part::End(Some(Box::new(map(&owned(&[
                ("x-client-trailer", "1"),
                OK,
            ]))))),
        ] {
            let sent = send_as(Dialect::Grpc, &[left, right], end);
            let expected = Sent {
                body: content.clone(),
                outcome: Ok(()),
                messages: 4,
            };
            assert_eq!(sent, expected);
        }
        // It ends where a message does, or not at all.
        let short = send_as(Dialect::Grpc, &[left], END_PART);
        let whole = matches!(at, 0 | 6 | 11 | 22) || at == content.len();
        assert_eq!(short.outcome.is_ok(), whole, "at {at}");
    }
    for (bad, word) in [
        (message(2, b""), "client_protocol"),
        (message(0x80, b"grpc-status:0\r\n"), "client_protocol"),
        (message(0, &[0; 65]), "message_too_large"),
        (prefix(1, u32::MAX).to_vec(), "message_too_large"),
    ] {
        let good = message(0, b"fine");
        let content = [&good[..], &bad].concat();
        for at in 0..=content.len() {
            let (left, right) = content.split_at(at);
            let sent = send_as(Dialect::Grpc, &[left, right], END_PART);
            let fault = sent.outcome.expect_err("a fault");
            assert_eq!((fault.by, fault.reason.word()), (Party::Downstream, word));
            assert_eq!((sent.body, sent.messages), (good.clone(), 1));
        }
    }
}

#[test]
fn the_backend_gets_a_native_callers_own_words() {
    let codec = RequestCodec::new(Dialect::Grpc, LIMIT);
    for content_type in [
        "application/grpc",
        "application/grpc+json; charset=utf-8",
        "Application/GRPC+Proto",
    ] {
        let original = map(&owned(&[
            ("content-type", content_type),
            ("te", "trailers"),
            ("grpc-encoding", "snappy"),
            ("grpc-accept-encoding", "identity, snappy"),
            ("grpc-timeout", "1S"),
            ("user-agent", "grpc-go/1.80.0"),
            ("x-a-bin", "AAE"),
        ]));
        let mut forwarded = crate::wire::metadata::forward_request(&original.clone().into());
        codec.request_fields(&original.clone().into(), &mut forwarded);
        assert_eq!(forwarded, original);
    }
    // `te` is ours to say, and a coding is not.
    let original = map(&owned(&[("content-type", "application/grpc")]));
    let mut forwarded = HeaderMap::new();
    codec.request_fields(&original.into(), &mut forwarded);
    let expected = [("content-type", "application/grpc"), ("te", "trailers")];
    assert_eq!(forwarded, map(&owned(&expected)));
}

/// Fields of which a section may have any. The codings are those that gRPC-Web knows, too.
const FIELDS: &[(&str, &str)] = &[
    ("grpc-status", "0"),
    ("grpc-status", "5"),
    ("grpc-status", "05"),
    ("grpc-status", "99"),
    ("grpc-message", "plain"),
    ("grpc-message", "50% of gr\u{fc}n"),
    ("grpc-message", ""),
    ("grpc-status-details-bin", "CAU="),
    ("x-a", "1"),
    ("x-a", "2"),
    ("x-bin", "AAE"),
    ("date", "now"),
    ("set-cookie", "a=1"),
    ("content-length", "9"),
    ("connection", "x-a"),
    ("access-control-allow-origin", "*"),
    ("grpc-encoding", "gzip"),
    ("grpc-encoding", "identity"),
    ("content-type", "application/grpc+json"),
];

fn some_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    collection::vec(0..FIELDS.len(), 0..5).prop_map(|places| {
        let rows: Vec<_> = places.into_iter().map(|place| FIELDS[place]).collect();
        owned(&rows)
    })
}

fn some_head() -> impl Strategy<Value = Said> {
    let status = prop_oneof![
        6 => Just(200_u16),
        1 => Just(103),
        1 => Just(404),
        1 => Just(503),
    ];
    let content_type = prop_oneof![
        6 => Just(Some("application/grpc+proto")),
        1 => Just(Some("application/grpc; a=b")),
        1 => Just(Some("text/html")),
        1 => Just(None),
    ];
    (status, content_type, some_fields(), any::<bool>()).prop_map(
        |(status, content_type, mut fields, end)| {
            let own = content_type.map(|value| ("content-type".to_owned(), value.to_owned()));
            fields.splice(0..0, own);
            // Without END_STREAM three times of four, by what there is at hand.
            Said::Head(status, fields.clone(), end && fields.len() % 2 == 1)
        },
    )
}

fn some_content() -> impl Strategy<Value = Said> {
    let flags = prop_oneof![8 => Just(0_u8), 3 => Just(1), 1 => Just(2), 1 => Just(0x80)];
    let whole = (flags, collection::vec(any::<u8>(), 0..68));
    prop_oneof![
        6 => whole.prop_map(|(flags, payload)| Said::Data(message(flags, &payload))),
        1 => collection::vec(any::<u8>(), 0..9).prop_map(Said::Data),
    ]
}

fn some_answer() -> impl Strategy<Value = Vec<Said>> {
    let interim = option::weighted(0.1, some_head());
    let end = prop_oneof![
        6 => some_fields().prop_map(|fields| Some(Said::End(Some(fields)))),
        2 => Just(Some(END)),
        1 => some_head().prop_map(Some),
        1 => Just(None),
    ];
    let content = collection::vec(some_content(), 0..5);
    (interim, some_head(), content, end).prop_map(|(interim, head, content, end)| {
        interim
            .into_iter()
            .chain([head])
            .chain(content)
            .chain(end)
            .collect()
    })
}

/// Runs a script for a caller of gRPC-Web who reads the codings that there are, and ends it as [`pass`] does.
fn model(script: &[Said]) -> Seen {
    let accepted = map(&owned(&[("grpc-accept-encoding", "gzip")])).into();
    let mut codec = ResponseCodec::new(BINARY, &accepted, LIMIT);
    let mut seen = Seen::default();
    for (index, said) in script.iter().enumerate() {
        match codec.translate(part(said), &mut |part| seen.take(part)) {
            Ok(ending) => seen.ending = ending,
            Err(fault) => seen.fault = Some(fault),
        }
        if seen.ending.is_some() || seen.fault.is_some() {
            break;
        }
        if seen.head.is_some() && seen.head_after.is_none() {
            seen.head_after = Some(index);
        }
    }
    seen.messages = codec.messages();
    seen.bytes = codec.bytes();
    if seen.ending.is_none() {
        let status = Status::new(Code::UNAVAILABLE, "100% gone");
        seen.closing = Some(codec.end(&status, &mut |part| seen.take(part)));
    }
    seen
}

/// All that a caller learns beside the messages, in order of names: a head's fields and an end's.
fn told_by_model(seen: &Seen, frame: &str) -> Vec<(String, String)> {
    let head = seen.head.as_ref().expect("a head");
    let mut told = sorted(&head.headers);
    told.extend(frame.lines().map(|line| {
        let (name, value) = line.split_once(':').expect("a line has a colon");
        (name.to_owned(), value.to_owned())
    }));
    comparable(told)
}

/// Without what a dialect writes of itself. In an answer without messages gRPC-Web has no use for a coding.
fn comparable(mut told: Vec<(String, String)>) -> Vec<(String, String)> {
    let own = ["content-type", "content-length", "grpc-encoding"];
    told.retain(|(name, _)| !own.contains(&name.as_str()));
    told.sort();
    told
}

proptest! {
    #[test]
    fn a_native_caller_learns_what_one_of_grpc_web_does(script in some_answer(), at in any::<u16>()) {
        let expected = model(&script);
        let at = usize::from(at) % (content_bytes(&script) + 1);
        for script in [script.clone(), cut(&script, at)] {
            let seen = pass(&[OWN_TYPE], &script);
            prop_assert_eq!(&seen.ending, &expected.ending);
            prop_assert_eq!(seen.fault, expected.fault);
            prop_assert_eq!(seen.closing, expected.closing);
            prop_assert_eq!((seen.messages, seen.bytes), (expected.messages, expected.bytes));
            prop_assert_eq!(seen.ended, expected.ended);
            if expected.closing == Some(Closing::Cut) {
                prop_assert_eq!(&seen.body, &expected.body);
                continue;
            }
            let body = whole_body(&expected, Form::Binary);
            prop_assert_eq!(envelopes(&seen.body), (body.messages.clone(), Vec::new()));
            let mut told = seen.head_fields();
            if let Some(trailers) = &seen.trailers {
                told.extend(sorted(trailers));
            }
            prop_assert_eq!(comparable(told), told_by_model(&expected, &body.trailers));
        }
        let uncut = pass(&[OWN_TYPE], &script);
        prop_assert_eq!(uncut.head_after, expected.head_after);
    }

    #[test]
    fn a_native_request_comes_to_what_one_of_grpc_web_does(
        content in collection::vec(some_content(), 0..5),
        at in any::<u16>(),
    ) {
        let bytes: Vec<u8> = content
            .iter()
            .flat_map(|said| match said {
                Said::Data(data) => data.clone(),
                _ => Vec::new(),
            })
            .collect();
        let expected = send_as(BINARY, &[&bytes], END_PART);
        let (left, right) = bytes.split_at(usize::from(at) % (bytes.len() + 1));
        for pieces in [&[&bytes[..]][..], &[left, right]] {
            prop_assert_eq!(&send_as(Dialect::Grpc, pieces, END_PART), &expected);
        }
    }
}
