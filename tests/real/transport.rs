//! HTTP/1.1 as a caller sees it on a real connection.

use std::time::Duration;

use crate::client::{Call, Connection, Mode};
use crate::message::{self, Message};
use crate::peers::Wharf;
use crate::peers::echo::{Echo, Failure, SAY, STREAM, Said, Say, Stack, Stream, UPLOAD};

fn wharf() -> (std::sync::Arc<Echo>, Wharf) {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    (backend, wharf)
}

#[test]
fn a_connection_serves_one_call_after_the_other() {
    let (_backend, wharf) = wharf();
    let mut connection = Connection::open(wharf.address);
    for round in 0..50 {
        let text = format!("round {round}");
        let mut call = Call::new(SAY).mode([Mode::Binary, Mode::Text][round % 2]);
        call = call.message(Say::text(&text).to_bytes());
        connection.send(&call.to_bytes());
        let answer = connection.answer();
        answer.assert_shape();
        assert_eq!(Said::from_bytes(&answer.messages[0]).text, text);
    }
}

#[test]
fn a_connection_is_still_good_after_a_failed_call() {
    let (_backend, wharf) = wharf();
    let mut connection = Connection::open(wharf.address);
    for code in [0, 5, 0, 14, 13, 0] {
        let failure = (code != 0).then(|| Failure::new(code, "no"));
        let say = Say {
            failure,
            ..Say::default()
        };
        connection.send(&Call::new(SAY).message(say.to_bytes()).to_bytes());
        assert_eq!(connection.answer().status(), code);
    }
}

#[test]
fn pipelined_calls_are_answered_in_their_order() {
    let (_backend, wharf) = wharf();
    // The first takes longest, so an answer that overtakes would show.
    let delays = [300, 0, 100, 0, 0];
    let mut requests = Vec::new();
    for (number, delay_ms) in delays.into_iter().enumerate() {
        let say = Say {
            text: number.to_string(),
            delay_ms,
            ..Say::default()
        };
        requests.extend(Call::new(SAY).message(say.to_bytes()).to_bytes());
    }
    let mut connection = Connection::open(wharf.address);
    connection.send(&requests);
    for number in 0..delays.len() {
        let answer = connection.answer();
        answer.assert_shape();
        assert_eq!(
            Said::from_bytes(&answer.messages[0]).text,
            number.to_string()
        );
    }
}

#[test]
fn a_call_that_comes_byte_by_byte_is_answered_like_any_other() {
    let (_backend, wharf) = wharf();
    for mode in [Mode::Binary, Mode::Text] {
        let mut connection = Connection::open(wharf.address);
        let call = Call::new(SAY)
            .mode(mode)
            .message(Say::text("slowly").to_bytes());
        connection.trickle(&call.to_bytes());
        let answer = connection.answer();
        answer.assert_shape();
        assert_eq!(Said::from_bytes(&answer.messages[0]).text, "slowly");
    }
}

#[test]
fn a_chunked_upload_whose_chunks_cut_through_frames_is_counted() {
    let (_backend, wharf) = wharf();
    let mut body = Vec::new();
    for size in [0_usize, 1, 5, 70_000] {
        let message = Message::new().bytes(1, vec![1; size]).done();
        body.extend(crate::client::frame(0, &message));
    }
    for chunk in [1_000, 7_777, 100_000] {
        let mut request = format!(
            "POST {UPLOAD} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: application/grpc-web+proto\r\n\
             transfer-encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for piece in body.chunks(chunk) {
            request.extend(format!("{:x}\r\n", piece.len()).bytes());
            request.extend(piece);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        let mut connection = Connection::open(wharf.address);
        connection.send(&request);
        let answer = connection.answer();
        answer.assert_shape();
        assert_eq!(answer.status(), 0, "{answer:?}");
        assert_eq!(message::number(&answer.messages[0], 1), 4);
        assert_eq!(message::number(&answer.messages[0], 2), 70_006);
    }
}

#[test]
fn a_caller_that_waits_for_100_continue_gets_it() {
    let (_backend, wharf) = wharf();
    let call = Call::new(SAY)
        .field("expect", "100-continue")
        .message(Say::text("may I").to_bytes());
    let bytes = call.to_bytes();
    let body = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let mut connection = Connection::open(wharf.address);
    connection.send(&bytes[..body]);
    assert_eq!(connection.interim().status, 100);
    connection.send(&bytes[body..]);
    let answer = connection.answer();
    answer.assert_shape();
    assert_eq!(Said::from_bytes(&answer.messages[0]).text, "may I");
}

#[test]
fn a_caller_that_asks_to_close_is_answered_and_closed() {
    let (_backend, wharf) = wharf();
    let mut connection = Connection::open(wharf.address);
    let call = Call::new(SAY).field("connection", "close").message([]);
    connection.send(&call.to_bytes());
    assert_eq!(connection.answer().status(), 0);
    assert!(connection.is_over());
}

/// A slow reader stops the backend, not the proxy: a megabyte is read at leisure while others are served.
#[test]
fn a_slow_reader_holds_up_nobody_else() {
    let (_backend, wharf) = wharf();
    let big = Stream {
        count: 64,
        size: 1 << 18,
        ..Stream::default()
    };
    let mut slow = Call::new(STREAM)
        .message(big.to_bytes())
        .begin(wharf.address);
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        assert_eq!(Call::new(SAY).message([]).make(wharf.address).status(), 0);
    }
    assert_eq!(slow.message().len(), (1 << 18) + 6);
    let answer = slow.rest();
    assert_eq!(answer.messages.len(), 63);
    assert_eq!(answer.status(), 0);
}

#[test]
fn the_health_path_answers_200_without_the_backend() {
    let wharf = Wharf::before(crate::peers::wharf::nowhere());
    let mut connection = Connection::open(wharf.address);
    connection.send(b"GET /healthz HTTP/1.1\r\nhost: wharf.test\r\n\r\n");
    let (head, body) = connection.plain();
    assert_eq!(head.status, 200);
    assert!(!body.is_empty());
}

#[test]
fn a_refusal_is_told_in_http_and_names_its_cause() {
    let (_backend, wharf) = wharf();
    let table = [
        ("GET", "application/grpc-web+proto", 405),
        ("POST", "text/plain", 415),
        ("POST", "application/proto", 415),
    ];
    for (verb, content_type, expected) in table {
        let mut connection = Connection::open(wharf.address);
        let request = format!(
            "{verb} {SAY} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: {content_type}\r\ncontent-length: 0\r\n\r\n"
        );
        connection.send(request.as_bytes());
        let (head, body) = connection.plain();
        assert_eq!(head.status, expected, "{verb} {content_type}");
        assert!(!body.is_empty());
    }
}

#[test]
fn broken_framing_ends_with_internal_and_a_closed_connection() {
    let (_backend, wharf) = wharf();
    // A message that promises more than there is; a frame with an unknown flag; base64 that is none.
    let table: [(&str, &[u8]); 3] = [
        ("application/grpc-web+proto", b"\0\0\0\0\x09abc"),
        ("application/grpc-web+proto", b"\x02\0\0\0\0"),
        ("application/grpc-web-text", b"AAA*"),
    ];
    for (content_type, body) in table {
        let mut connection = Connection::open(wharf.address);
        let mut request = format!(
            "POST {SAY} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        connection.send(&request);
        let answer = connection.answer();
        answer.assert_shape();
        assert_eq!(answer.status(), 13, "{body:?}");
        assert!(connection.is_over());
    }
}

/// Each loses its connection inside the request; the next caller must not notice.
#[test]
fn a_request_cut_short_disturbs_nobody() {
    let (_backend, wharf) = wharf();
    let whole = Call::new(SAY)
        .message(Say::text("whole").to_bytes())
        .to_bytes();
    for length in 1..whole.len() {
        let mut connection = Connection::open(wharf.address);
        connection.send(&whole[..length]);
        if length % 2 == 0 {
            connection.finish_sending();
        }
    }
    let mut connection = Connection::open(wharf.address);
    connection.send(&whole);
    assert_eq!(connection.answer().status(), 0);
}
