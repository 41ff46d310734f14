//! The service by hand: parts in, parts out, time as an argument.

use super::*;

/// What came back, in one piece.
#[derive(Debug, PartialEq)]
struct Heard {
    trailers_only: bool,
    messages: Vec<Bytes>,
    code: u32,
    message: String,
    demo_trailer: bool,
}

fn call(path: &str) -> Box<dyn Answer> {
    call_as(Method::POST, path)
}

fn call_as(method: Method, path: &str) -> Box<dyn Answer> {
    Echo.call(&OutgoingHead {
        method,
        path: path.parse().unwrap(),
        authority: None,
        headers: HeaderMap::new(),
    })
}

/// Everything that is said without waiting, to the end.
fn listen(answer: &mut dyn Answer, now: Instant) -> Heard {
    let Poll::Ready(Ok(Part::Head(head))) = answer.poll_part(now) else {
        panic!("the head comes first");
    };
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.headers[CONTENT_TYPE], "application/grpc+proto");
    let mut messages = Vec::new();
    let trailers = loop {
        match answer.poll_part(now) {
            Poll::Ready(Ok(Part::Data(bytes))) => messages.push(bytes),
            Poll::Ready(Ok(Part::End(trailers))) => break trailers,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(head.end, trailers.is_none(), "trailers stand in one place");
    assert!(
        matches!(answer.poll_part(now), Poll::Ready(Ok(Part::End(None)))),
        "the end is sticky"
    );
    assert_eq!(answer.wake_at(), None);
    let fields = trailers.as_deref().unwrap_or(&head.headers);
    let text = |name: HeaderName| fields.get(name).map_or("", |value| value.to_str().unwrap());
    Heard {
        trailers_only: head.end,
        messages,
        code: text(GRPC_STATUS).parse().unwrap(),
        message: text(GRPC_MESSAGE).to_owned(),
        demo_trailer: fields.contains_key(DEMO_TRAILER),
    }
}

fn ask(path: &str, body: &[u8]) -> Heard {
    let mut answer = call(path);
    if !body.is_empty() {
        answer.handle_part(Part::Data(Bytes::copy_from_slice(body)));
    }
    answer.handle_part(Part::End(None));
    listen(answer.as_mut(), Instant::now())
}

fn refused(code: Code, message: &str) -> Heard {
    Heard {
        trailers_only: true,
        messages: vec![],
        code: code.number(),
        message: message.to_owned(),
        demo_trailer: true,
    }
}

fn say(text: &str) -> Bytes {
    envelope(&SayRequest { text: text.into() })
}

#[test]
fn say_answers_what_was_said_with_ok_in_the_trailers() {
    let heard = ask("/demo.v1.Echo/Say", b"\0\0\0\0\x04\x0a\x02hi");
    assert_eq!(
        heard,
        Heard {
            trailers_only: false,
            messages: vec![Bytes::from_static(b"\0\0\0\0\x04\x0a\x02hi")],
            code: 0,
            message: String::new(),
            demo_trailer: false,
        }
    );
}

#[test]
fn a_message_of_no_bytes_is_a_message() {
    let heard = ask("/demo.v1.Echo/Say", b"\0\0\0\0\0");
    assert_eq!(heard.messages, [Bytes::from_static(b"\0\0\0\0\0")]);
    assert_eq!(heard.code, 0);
}

#[test]
fn a_request_torn_at_every_byte_gets_the_same_answer_as_the_whole() {
    let requests: [(&str, Bytes); 4] = [
        ("/demo.v1.Echo/Say", say("torn")),
        (
            "/demo.v1.Echo/Say",
            [say("one"), say("two")].concat().into(),
        ),
        ("/demo.v1.Echo/Say", Bytes::from_static(b"\0\0\0\0\x09\x0a")),
        (
            "/demo.v1.Echo/Fail",
            envelope(&FailRequest {
                code: 5,
                message: "ö".into(),
            }),
        ),
    ];
    for (path, body) in requests {
        let whole = ask(path, &body);
        for at in 0..=body.len() {
            let mut answer = call(path);
            answer.handle_part(Part::Data(body.slice(..at)));
            answer.handle_part(Part::Data(body.slice(at..)));
            answer.handle_part(Part::End(None));
            assert_eq!(
                listen(answer.as_mut(), Instant::now()),
                whole,
                "{path} at {at}"
            );
        }
    }
}

#[test]
fn nothing_is_said_before_the_request_is_whole() {
    let mut answer = call("/demo.v1.Echo/Say");
    let now = Instant::now();
    assert!(answer.poll_part(now).is_pending());
    answer.handle_part(Part::Data(say("wait")));
    assert!(answer.poll_part(now).is_pending());
    assert_eq!(answer.wake_at(), None);
    answer.handle_part(Part::End(None));
    assert_eq!(listen(answer.as_mut(), now).messages, [say("wait")]);
}

#[test]
fn fail_ends_with_the_status_that_was_asked_for_and_a_trailer() {
    for code in 1..=16 {
        let body = envelope(&FailRequest {
            code,
            message: "100 % of “Ø”\r\n".into(),
        });
        assert_eq!(
            ask("/demo.v1.Echo/Fail", &body),
            refused(Code::new(code), "100 %25 of %E2%80%9C%C3%98%E2%80%9D%0D%0A")
        );
    }
}

#[test]
fn fail_never_succeeds() {
    for code in [0, 17, u32::MAX] {
        let body = envelope(&FailRequest {
            code,
            message: String::new(),
        });
        let heard = ask("/demo.v1.Echo/Fail", &body);
        assert_eq!(heard.code, Code::INVALID_ARGUMENT.number(), "{code}");
    }
}

#[test]
fn a_long_message_of_fail_is_cut_between_two_characters() {
    let body = envelope(&FailRequest {
        code: 2,
        message: format!("a{}", "ö".repeat(2_000)),
    });
    let heard = ask("/demo.v1.Echo/Fail", &body);
    assert_eq!(heard.message, format!("a{}", "%C3%B6".repeat(511)));
}

#[test]
fn what_is_no_call_of_the_service_is_refused_before_its_body_has_come() {
    for (method, path, code) in [
        (Method::POST, "/demo.v1.Echo/Nope", Code::UNIMPLEMENTED),
        (Method::POST, "/demo.v1.Echo/say", Code::UNIMPLEMENTED),
        (
            Method::POST,
            "/grpc.health.v1.Health/Check",
            Code::UNIMPLEMENTED,
        ),
        (Method::GET, "/demo.v1.Echo/Say", Code::INTERNAL),
    ] {
        let heard = listen(call_as(method, path).as_mut(), Instant::now());
        assert!(heard.trailers_only);
        assert_eq!(heard.code, code.number(), "{path}");
    }
}

#[test]
fn a_broken_request_has_a_status_that_says_how() {
    let long = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
    for (body, code, message) in [
        (
            b"".as_slice(),
            Code::UNIMPLEMENTED,
            "this method takes exactly one message; no message came",
        ),
        (
            b"\0\0\0\0\0\0\0\0\0\0",
            Code::UNIMPLEMENTED,
            "this method takes exactly one message; more than one message came",
        ),
        (
            b"\0\0\0",
            Code::INTERNAL,
            "the request ended inside a message",
        ),
        (
            b"\0\0\0\0\x02\x0a",
            Code::INTERNAL,
            "the request ended inside a message",
        ),
        (
            b"\x01\0\0\0\0",
            Code::UNIMPLEMENTED,
            "the demo reads no compressed messages",
        ),
        (
            b"\x80",
            Code::INTERNAL,
            "reserved flags in front of a message",
        ),
        (
            b"\x02\0\0\0\0",
            Code::INTERNAL,
            "reserved flags in front of a message",
        ),
        (
            &[&[0], long.as_slice()].concat(),
            Code::RESOURCE_EXHAUSTED,
            "the message has 65537 bytes; the demo takes 65536",
        ),
    ] {
        assert_eq!(
            ask("/demo.v1.Echo/Say", body),
            refused(code, message),
            "{body:x?}"
        );
    }
    // Not protobuf, and protobuf of another type. The words after the colon are prost's.
    for body in [b"\0\0\0\0\x02\x0a\x09".as_slice(), b"\0\0\0\0\x02\x08\x01"] {
        let heard = ask("/demo.v1.Echo/Say", body);
        assert_eq!(heard.code, Code::INTERNAL.number());
        assert!(
            heard.message.starts_with("not the request's message: "),
            "{heard:?}"
        );
    }
}

#[test]
fn the_longest_message_is_taken_and_an_endless_one_is_not_kept() {
    let body = say(&"x".repeat(MESSAGE_BYTES_MAX - 4));
    assert_eq!(body.len(), PREFIX_BYTES + MESSAGE_BYTES_MAX);
    assert_eq!(ask("/demo.v1.Echo/Say", &body).messages, [body]);

    let mut answer = call("/demo.v1.Echo/Say");
    answer.handle_part(Part::Data(Bytes::from(vec![0; 1 << 20])));
    let heard = listen(answer.as_mut(), Instant::now());
    assert_eq!(
        heard.code,
        Code::UNIMPLEMENTED.number(),
        "it did not wait for the end"
    );
}

#[test]
fn a_stream_over_its_limits_is_refused() {
    let ask_stream = |count, interval_ms| {
        let asked = StreamRequest {
            text: "x".into(),
            count,
            interval_ms,
        };
        let mut answer = call("/demo.v1.Echo/Stream");
        answer.handle_part(Part::Data(envelope(&asked)));
        answer.handle_part(Part::End(None));
        answer
    };
    let now = Instant::now();
    assert_eq!(
        listen(ask_stream(COUNT_MAX + 1, 0).as_mut(), now),
        refused(Code::INVALID_ARGUMENT, "count is 10001; the most is 10000")
    );
    assert_eq!(
        listen(ask_stream(1, INTERVAL_MS_MAX + 1).as_mut(), now),
        refused(
            Code::INVALID_ARGUMENT,
            "interval_ms is 60001; the most is 60000"
        )
    );
    assert_eq!(
        listen(ask_stream(COUNT_MAX, 0).as_mut(), now)
            .messages
            .len(),
        10_000
    );
    assert_eq!(listen(ask_stream(0, 0).as_mut(), now).messages.len(), 0);
    assert_eq!(
        listen(ask_stream(1, INTERVAL_MS_MAX).as_mut(), now)
            .messages
            .len(),
        1
    );
}

#[test]
fn a_stream_says_its_head_at_once_and_each_message_when_it_is_due() {
    let mut answer = call("/demo.v1.Echo/Stream");
    answer.handle_part(Part::Data(envelope(&StreamRequest {
        text: "tick".into(),
        count: 3,
        interval_ms: 250,
    })));
    answer.handle_part(Part::End(None));

    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let mut heard = Vec::new();
    // (milliseconds, what is said then, when it wants to wake next)
    for (ms, parts, wake) in [
        (0, 2, Some(250)), // the head and the first message
        (100, 0, Some(250)),
        (249, 0, Some(250)),
        (250, 1, Some(500)),
        (900, 2, None), // woken late: the last message and the end, no burst before
    ] {
        for _ in 0..parts {
            let Poll::Ready(Ok(part)) = answer.poll_part(after(ms)) else {
                panic!("at {ms} ms it said less");
            };
            heard.push(part);
        }
        if let Some(wake) = wake {
            assert!(
                answer.poll_part(after(ms)).is_pending(),
                "at {ms} ms it said more"
            );
            assert_eq!(answer.wake_at(), Some(after(wake)), "at {ms} ms");
        } else {
            assert_eq!(answer.wake_at(), None);
        }
    }
    let numbers: Vec<u32> = heard
        .iter()
        .filter_map(|part| match part {
            Part::Data(bytes) => Some(StreamReply::decode(&bytes[PREFIX_BYTES..]).unwrap()),
            _ => None,
        })
        .map(|reply| reply.number)
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(matches!(heard.first(), Some(Part::Head(head)) if !head.end));
    assert!(
        matches!(heard.last(), Some(Part::End(Some(trailers))) if trailers[GRPC_STATUS] == "0")
    );
}

#[test]
fn what_the_client_says_after_its_end_changes_nothing() {
    let mut answer = call("/demo.v1.Echo/Say");
    answer.handle_part(Part::Data(say("first")));
    answer.handle_part(Part::End(None));
    answer.handle_part(Part::Data(say("second")));
    answer.handle_part(Part::End(None));
    assert_eq!(
        listen(answer.as_mut(), Instant::now()).messages,
        [say("first")]
    );
}
