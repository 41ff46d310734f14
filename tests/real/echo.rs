//! Calls that go well, and calls that the backend itself fails: the same for every gRPC stack behind wharf.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::client::{Answer, Call, End, Mode, Next};
use crate::peers::Wharf;
use crate::peers::echo::{self, Echo, Failure, SAY, STREAM, Said, Say, Stack, Stream};

/// The same sentences for each stack.
macro_rules! for_each_stack {
    ($($(#[$about:meta])* fn $name:ident($wharf:ident: &Wharf, $stack:ident: Stack) $body:block)+) => {
        $($(#[$about])* fn $name($wharf: &Wharf, $stack: Stack) $body)+

        mod grpcio {
            $(#[test] fn $name() { super::run(super::Stack::Grpcio, super::$name); })+
        }

        mod tonic {
            $(#[test] fn $name() { super::run(super::Stack::Tonic, super::$name); })+
        }
    };
}

fn run(stack: Stack, test: fn(&Wharf, Stack)) {
    let backend = Echo::shared(stack);
    let wharf = Wharf::before(backend.address);
    test(&wharf, stack);
}

/// Makes the call and holds its answer to the shape that every answer has.
fn make(call: &Call, address: SocketAddr) -> Answer {
    let answer = call.make(address);
    answer.assert_shape();
    answer
}

fn say(say: &Say) -> Call {
    Call::new(SAY).message(say.to_bytes())
}

fn stream(stream: &Stream) -> Call {
    Call::new(STREAM).message(stream.to_bytes())
}

fn said(answer: &Answer) -> Said {
    assert_eq!(answer.messages.len(), 1, "{answer:?}");
    Said::from_bytes(&answer.messages[0])
}

fn numbers(answer: &Answer) -> Vec<u32> {
    answer
        .messages
        .iter()
        .map(|message| echo::number(message))
        .collect()
}

const MODES: [Mode; 2] = [Mode::Binary, Mode::Text];

for_each_stack! {
    fn a_unary_call_answers_one_message_and_then_its_status(wharf: &Wharf, _stack: Stack) {
        for mode in MODES {
            let answer = make(&say(&Say::text("grüß dich")).mode(mode), wharf.address);
            assert_eq!(said(&answer).text, "grüß dich");
            assert_eq!(answer.status(), 0);
            // The backend chooses whether a `+proto` follows.
            let content_type = answer.head.get("content-type").unwrap_or_default();
            let text = content_type.starts_with("application/grpc-web-text");
            assert_eq!(text, mode == Mode::Text, "{content_type}");
        }
    }

    fn a_stream_answers_every_message_in_order_and_then_its_status(wharf: &Wharf, _stack: Stack) {
        for mode in MODES {
            let call = stream(&Stream { count: 100, size: 3_000, ..Stream::default() });
            let answer = make(&call.mode(mode), wharf.address);
            assert_eq!(numbers(&answer), (1..=100).collect::<Vec<_>>());
            assert_eq!(answer.status(), 0);
        }
    }

    fn a_message_is_passed_on_before_the_next_is_made(wharf: &Wharf, _stack: Stack) {
        for mode in MODES {
            // The backend sends two and then nothing for ever: what is read here can have waited for nothing.
            let call = stream(&Stream { count: 3, hold_after: 2, ..Stream::default() }).mode(mode);
            let mut answering = call.begin(wharf.address);
            assert_eq!(echo::number(&answering.message()), 1);
            assert_eq!(echo::number(&answering.message()), 2);
        }
    }

    fn an_empty_stream_answers_its_status_alone(wharf: &Wharf, _stack: Stack) {
        let answer = make(&stream(&Stream::default()), wharf.address);
        assert!(answer.messages.is_empty());
        assert_eq!(answer.status(), 0);
    }

    fn a_message_of_no_bytes_is_a_message(wharf: &Wharf, _stack: Stack) {
        for mode in MODES {
            let answer = make(&Call::new(SAY).mode(mode).message([]), wharf.address);
            assert_eq!(said(&answer).text, "");
            assert_eq!(answer.status(), 0);
        }
    }

    fn messages_of_every_awkward_size_arrive_whole(wharf: &Wharf, _stack: Stack) {
        // Around a frame of HTTP/2, its window, and each remainder that base64 can have.
        for size in [1, 2, 3, 4, 16_378, 16_379, 16_380, 65_535, 65_536, 1_000_001] {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            for mode in MODES {
                let call = say(&Say { payload: payload.clone(), ..Say::default() });
                let answer = make(&call.mode(mode), wharf.address);
                assert!(said(&answer).payload == payload, "{size} bytes in {mode:?}");
                assert_eq!(answer.status(), 0);
            }
        }
    }

    fn all_codes_arrive_with_their_message(wharf: &Wharf, _stack: Stack) {
        for code in 1..=16 {
            for mode in MODES {
                let failure = Some(Failure::new(code, "weil: 100 % ü\r\nnächste"));
                let unary = say(&Say { failure: failure.clone(), ..Say::default() });
                let answer = make(&unary.mode(mode), wharf.address);
                assert!(answer.messages.is_empty());
                assert_eq!(answer.status(), code);
                assert_eq!(answer.status_message(), "weil: 100 % ü\r\nnächste");

                let call = stream(&Stream { count: 2, failure, ..Stream::default() });
                let answer = make(&call.mode(mode), wharf.address);
                assert_eq!(numbers(&answer), [1, 2]);
                assert_eq!(answer.status(), code);
                assert_eq!(answer.status_message(), "weil: 100 % ü\r\nnächste");
            }
        }
    }

    fn a_refusal_is_one_frame_of_known_length(wharf: &Wharf, _stack: Stack) {
        let failure = Some(Failure::new(7, "no"));
        let call = say(&Say { failure, ..Say::default() }).field("trail-why", "because");
        let answer = make(&call, wharf.address);
        assert_eq!(answer.status(), 7);
        assert_eq!(answer.trailer("trail-why"), Some("because"));
        assert_eq!(answer.head.get("trail-why"), None);
    }

    fn a_method_that_nobody_has_is_unimplemented(wharf: &Wharf, _stack: Stack) {
        for path in ["/wharf.test.v1.Echo/Nothing", "/wharf.test.v1.Nothing/Say"] {
            let answer = make(&Call::new(path).message([]), wharf.address);
            assert_eq!(answer.status(), 12);
        }
    }

    fn details_of_a_status_arrive_byte_for_byte(wharf: &Wharf, _stack: Stack) {
        let details: Vec<u8> = (0..=255).collect();
        let failure = Failure { code: 9, message: "see details".into(), details: details.clone() };
        let answer = make(&say(&Say { failure: Some(failure), ..Say::default() }), wharf.address);
        assert_eq!(answer.status(), 9);
        let value = answer.trailer("grpc-status-details-bin").expect("the details arrive");
        let value = value.trim_end_matches('=');
        assert_eq!(STANDARD_NO_PAD.decode(value).expect("base64"), details);
    }

    fn metadata_of_the_call_reaches_the_backend(wharf: &Wharf, _stack: Stack) {
        let bytes: Vec<u8> = (0..=255).collect();
        let call = say(&Say::default())
            .field("x-plain", "one value, with a comma")
            .field("X-Mixed-Case", "kept")
            .field("x-twice", "first")
            .field("x-twice", "second")
            .field("x-bytes-bin", &STANDARD.encode(&bytes))
            .field("authorization", "Bearer abc");
        let got = said(&make(&call, wharf.address));
        assert_eq!(got.got("x-plain"), [b"one value, with a comma"]);
        assert_eq!(got.got("x-mixed-case"), [b"kept"]);
        assert_eq!(got.got("x-twice"), [&b"first"[..], b"second"]);
        assert_eq!(got.got("x-bytes-bin"), [&bytes[..]]);
        assert_eq!(got.got("authorization"), [b"Bearer abc"]);
        assert_eq!(got.got("x-grpc-web"), [b"1"]);
    }

    fn binary_metadata_that_a_browser_joined_arrives_as_two_values(wharf: &Wharf, _stack: Stack) {
        let joined = format!("{}, {}", STANDARD.encode([1, 2]), STANDARD.encode([3]));
        let got = said(&make(&say(&Say::default()).field("x-bytes-bin", &joined), wharf.address));
        assert_eq!(got.got("x-bytes-bin"), [&[1, 2][..], &[3]]);
    }

    fn fields_of_the_connection_stay_on_the_connection(wharf: &Wharf, _stack: Stack) {
        let call = say(&Say::default())
            .field("connection", "keep-alive, x-hop")
            .field("x-hop", "only this far")
            .field("keep-alive", "timeout=5")
            .field("proxy-connection", "keep-alive")
            .field("te", "trailers")
            .field("grpc-mine", "reserved");
        let answer = make(&call, wharf.address);
        assert_eq!(answer.status(), 0);
        let got = said(&answer);
        let nothing: [&[u8]; 0] = [];
        for name in ["x-hop", "keep-alive", "proxy-connection", "connection", "grpc-mine", "content-length"] {
            assert_eq!(got.got(name), nothing, "{name}");
        }
    }

    fn metadata_of_the_answer_comes_in_its_head_and_in_its_trailers(wharf: &Wharf, _stack: Stack) {
        let bytes: Vec<u8> = (0..=255).collect();
        let encoded = STANDARD.encode(&bytes);
        for mode in MODES {
            let call = stream(&Stream { count: 2, ..Stream::default() })
                .mode(mode)
                .field("head-plain", "in the head")
                .field("head-bytes-bin", &encoded)
                .field("trail-plain", "in the trailers")
                .field("trail-twice", "first")
                .field("trail-twice", "second")
                .field("trail-bytes-bin", &encoded);
            let answer = make(&call, wharf.address);
            assert_eq!(answer.status(), 0);
            assert_eq!(answer.head.get("head-plain"), Some("in the head"));
            assert_eq!(answer.trailer("trail-plain"), Some("in the trailers"));
            assert_eq!(answer.trailers("trail-twice"), ["first", "second"]);
            assert_eq!(answer.head.get("trail-plain"), None);
            assert_eq!(answer.trailer("head-plain"), None);
            for value in [answer.head.get("head-bytes-bin"), answer.trailer("trail-bytes-bin")] {
                let value = value.expect("it arrives").trim_end_matches('=');
                assert_eq!(STANDARD_NO_PAD.decode(value).expect("base64"), bytes);
            }
        }
    }

    fn the_head_comes_before_the_first_message(wharf: &Wharf, stack: Stack) {
        // Initial metadata at once, the message after two seconds: whoever waits for the message is too late.
        let call = say(&Say { delay_ms: 2_000, ..Say::default() }).field("head-early", "yes");
        let begun = Instant::now();
        let mut answering = call.begin(wharf.address);
        let waited = begun.elapsed();
        assert_eq!(answering.head.get("head-early"), Some("yes"));
        // tonic sends a unary answer's head with its message; grpcio sends it when it is told to.
        if stack == Stack::Grpcio {
            assert!(waited < Duration::from_millis(1_500), "{waited:?}");
        }
        answering.message();
        assert!(matches!(answering.next(), Next::Trailers(_)));
    }

    fn a_deadline_reaches_the_backend_as_what_is_left(wharf: &Wharf, stack: Stack) {
        let call = say(&Say::default()).field("grpc-timeout", "20S");
        let got = said(&make(&call, wharf.address));
        match stack {
            Stack::Grpcio => assert!((10_000..=20_000).contains(&got.deadline_ms), "{got:?}"),
            Stack::Tonic => assert_eq!(got.got("grpc-timeout").len(), 1),
        }
        let got = said(&make(&say(&Say::default()), wharf.address));
        assert_eq!(got.deadline_ms, -1);
        // Nine digits are more than gRPC allows, and Google's client writes them.
        let call = say(&Say::default()).field("grpc-timeout", "999999999m");
        assert_eq!(make(&call, wharf.address).status(), 0);
    }

    fn a_call_past_its_deadline_ends_with_deadline_exceeded_and_is_cancelled_behind(wharf: &Wharf, stack: Stack) {
        let backend = Echo::shared(stack);
        for mode in MODES {
            let id = format!("late-{stack:?}-{mode:?}");
            let late = Say { delay_ms: 20_000, id: id.clone(), ..Say::default() };
            let begun = Instant::now();
            let answer = make(&say(&late).mode(mode).field("grpc-timeout", "300m"), wharf.address);
            let waited = begun.elapsed();
            assert_eq!(answer.status(), 4);
            assert!(answer.messages.is_empty());
            assert!((Duration::from_millis(290)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
            backend.wait_cancelled(&id);

            let id = format!("late-stream-{stack:?}-{mode:?}");
            let held = Stream { count: 9, hold_after: 2, id: id.clone(), ..Stream::default() };
            let answer = make(&stream(&held).mode(mode).field("grpc-timeout", "300m"), wharf.address);
            assert_eq!(numbers(&answer), [1, 2]);
            assert_eq!(answer.status(), 4);
            backend.wait_cancelled(&id);
        }
    }

    fn an_upload_of_many_messages_is_counted(wharf: &Wharf, _stack: Stack) {
        let mut call = Call::new(echo::UPLOAD);
        for size in 0..50_usize {
            let payload = vec![7; size];
            call = call.message(crate::message::Message::new().bytes(1, payload).done());
        }
        for mode in MODES {
            let answer = make(&call.clone().mode(mode), wharf.address);
            assert_eq!(answer.messages.len(), 1);
            assert_eq!(crate::message::number(&answer.messages[0], 1), 50);
            assert_eq!(crate::message::number(&answer.messages[0], 2), (0..50).sum::<u64>());
            assert_eq!(answer.status(), 0);
        }
    }

    fn a_talk_answers_each_message(wharf: &Wharf, _stack: Stack) {
        let mut call = Call::new(echo::TALK);
        for text in ["one", "two", "three"] {
            call = call.message(Say::text(text).to_bytes());
        }
        for mode in MODES {
            let answer = make(&call.clone().mode(mode), wharf.address);
            let texts: Vec<_> = answer.messages.iter().map(|it| Said::from_bytes(it).text).collect();
            assert_eq!(texts, ["one", "two", "three"]);
            assert_eq!(answer.status(), 0);
            assert_eq!(answer.end, End::Clean);
        }
    }

    fn the_accept_field_chooses_how_the_answer_is_written(wharf: &Wharf, _stack: Stack) {
        let table = [
            (Mode::Binary, None, Mode::Binary),
            (Mode::Text, None, Mode::Text),
            (Mode::Binary, Some("*/*"), Mode::Binary),
            (Mode::Text, Some("*/*"), Mode::Text),
            (Mode::Text, Some("application/grpc-web+proto"), Mode::Binary),
            (Mode::Binary, Some("application/grpc-web-text"), Mode::Text),
        ];
        for (request, accept, expected) in table {
            let mut call = say(&Say::text("hi")).mode(request);
            if let Some(accept) = accept {
                call = call.field("accept", accept);
            }
            let answer = make(&call, wharf.address);
            let text = answer.head.get("content-type").is_some_and(|value| value.contains("-text"));
            assert_eq!(text, expected == Mode::Text, "{request:?} {accept:?}");
            assert_eq!(said(&answer).text, "hi");
        }
    }

    fn a_finished_call_prints_one_line(wharf: &Wharf, _stack: Stack) {
        make(&say(&Say::text("hi")), wharf.address);
        let line = wharf.wait_call_line(&["wharf.test.v1.Echo/Say"]);
        assert!(line.contains("OK"), "{line}");
        let failure = Some(Failure::new(5, "not here"));
        make(&say(&Say { failure, ..Say::default() }), wharf.address);
        wharf.wait_call_line(&["wharf.test.v1.Echo/Say", "NOT_FOUND"]);
    }
}

/// tonic hands on the fields of HTTP as they came, so it can tell what wharf sends a backend.
#[test]
fn a_backend_is_sent_plain_grpc() {
    let backend = Echo::shared(Stack::Tonic);
    let wharf = Wharf::before(backend.address);
    for mode in MODES {
        let got = said(&make(&say(&Say::default()).mode(mode), wharf.address));
        let content_type = got.got("content-type");
        assert_eq!(content_type.len(), 1);
        assert!([&b"application/grpc"[..], b"application/grpc+proto"].contains(&content_type[0]));
        assert_eq!(got.got("te"), [b"trailers"]);
        assert_eq!(got.got("grpc-accept-encoding"), [b"identity"]);
    }
}
