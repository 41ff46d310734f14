//! Right answers in all their spellings and at every split, and wrong ones by name.

use super::*;
use crate::call;

const SIZE: usize = 300;

fn expected() -> Expected {
    Expected {
        payload: call::payload(SIZE),
        messages: Some(1),
        stamped: false,
        text: false,
        native: false,
    }
}

fn trailer(text: &str) -> Vec<u8> {
    let mut frame = vec![0x80];
    frame.extend_from_slice(&(text.len() as u32).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn body() -> Vec<u8> {
    [
        call::envelope(&call::payload(SIZE)),
        trailer("grpc-status:0\r\n"),
    ]
    .concat()
}

fn sized(head: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\n";

fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut answer = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for piece in pieces {
        answer.extend_from_slice(format!("{:X};a=b\r\n", piece.len()).as_bytes());
        answer.extend_from_slice(piece);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\nx: y\r\n\r\n");
    answer
}

fn check(answer: &[u8], expected: &Expected) -> Result<bool, Fault> {
    Answer::new().feed(answer, expected)
}

#[test]
fn a_right_answer_is_right_wherever_it_is_split() {
    let body = body();
    let mut text = expected();
    text.text = true;
    let text_head = HEAD.replace("+proto", "-text+proto");
    // Each frame encoded by itself, as proxies do: 305 bytes end with padding.
    let both = [
        call::base64(&body[..SIZE + 5]),
        call::base64(&body[SIZE + 5..]),
    ]
    .concat();
    for (answer, expected) in [
        (sized(HEAD, &body), expected()),
        (chunked(&[&body]), expected()),
        (
            chunked(&[&body[..7], &body[7..200], &body[200..]]),
            expected(),
        ),
        (
            call::answer(&call::payload(SIZE), Some(500)).unwrap(),
            expected(),
        ),
        (sized(&text_head, &both), text),
    ] {
        for split in 0..answer.len() {
            let mut fed = Answer::new();
            assert_eq!(fed.feed(&answer[..split], &expected), Ok(false), "{split}");
            assert_eq!(fed.feed(&answer[split..], &expected), Ok(true), "{split}");
        }
        let mut fed = Answer::new();
        for round in 0..2 {
            for (at, byte) in answer.iter().enumerate() {
                let whole = at + 1 == answer.len();
                assert_eq!(fed.feed(&[*byte], &expected), Ok(whole), "{round} {at}");
            }
            assert_eq!(fed.take_messages(), 1);
            fed.reset();
        }
    }
}

#[test]
fn a_status_may_be_spelt_as_proxies_spell_it() {
    for spelling in [
        "grpc-status:0",
        "Grpc-Status: 0 \r\n",
        "a: b\r\ngrpc-status: 0\r\ngrpc-message: \r\n",
    ] {
        let body = [call::envelope(&call::payload(SIZE)), trailer(spelling)].concat();
        assert_eq!(
            check(&sized(HEAD, &body), &expected()),
            Ok(true),
            "{spelling}"
        );
    }
}

#[test]
fn wrong_answers_are_told_apart() {
    let message = call::envelope(&call::payload(SIZE));
    let right = trailer("grpc-status:0\r\n");
    let mut other = message.clone();
    other[100] ^= 1;
    let with = |parts: &[&[u8]]| sized(HEAD, &parts.concat());
    let mut late = with(&[&message, &right]);
    late.push(b'x');
    for (answer, fault) in [
        (b"SSH-2.0-x\r\n\r\n".to_vec(), Fault::Head),
        (
            sized(&HEAD.replace("200 OK", "503 No"), &body()),
            Fault::Status(503),
        ),
        (
            sized(&HEAD.replace("grpc-web+proto", "json"), &body()),
            Fault::ContentType,
        ),
        (
            sized(&HEAD.replace("+proto", "-text"), &body()),
            Fault::ContentType,
        ),
        (
            sized(&format!("{HEAD}grpc-status: 14\r\n"), b""),
            Fault::GrpcStatus(Some(14)),
        ),
        (format!("{HEAD}\r\n").into_bytes(), Fault::Framing),
        (
            chunked(&[&body()]).replace_first(b"\r\n\r\n", b"\r\n\r\nz"),
            Fault::Framing,
        ),
        (
            with(&[&call::envelope(&call::payload(SIZE - 1)), &right]),
            Fault::Length(SIZE as u32 - 1),
        ),
        (with(&[&other, &right]), Fault::Payload),
        (with(&[&right]), Fault::Messages(0)),
        (with(&[&message, &message, &right]), Fault::Messages(2)),
        (with(&[&message]), Fault::NoTrailer),
        (with(&[&message, &right[..10]]), Fault::NoTrailer),
        (with(&[&message[..100]]), Fault::NoTrailer),
        (with(&[]), Fault::NoTrailer),
        (
            with(&[&message, &trailer("grpc-status: 13\r\n")]),
            Fault::GrpcStatus(Some(13)),
        ),
        (
            with(&[&message, &trailer("grpc-message: x\r\n")]),
            Fault::GrpcStatus(None),
        ),
        (with(&[&message, &trailer("")]), Fault::GrpcStatus(None)),
        (with(&[&message, &right, &message]), Fault::Excess),
        (late, Fault::Excess),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(check(&answer, &expected()), Err(fault), "{shown}");
    }
}

#[test]
fn text_that_is_no_base64_is_told() {
    let mut text = expected();
    text.text = true;
    let head = HEAD.replace("+proto", "-text");
    for body in ["A===", "AA=A", "A*AA"] {
        assert_eq!(
            check(&sized(&head, body.as_bytes()), &text),
            Err(Fault::Base64),
            "{body}"
        );
    }
    let cut = call::base64(&body());
    assert_eq!(
        check(&sized(&head, &cut[..cut.len() - 1]), &text),
        Err(Fault::Base64)
    );
}

#[test]
fn stamps_are_read_and_counted() {
    let expected = Expected {
        payload: call::payload(16),
        messages: None,
        stamped: true,
        text: false,
        native: false,
    };
    let mut message = call::payload(16);
    let mut bytes = format!("{HEAD}transfer-encoding: chunked\r\n\r\n2a\r\n").into_bytes();
    for stamp in [7_u64, 1 << 40] {
        message[..8].copy_from_slice(&stamp.to_be_bytes());
        bytes.extend_from_slice(&call::envelope(&message));
    }
    let mut answer = Answer::new();
    let mut stamps = Vec::new();
    for byte in bytes {
        assert_eq!(answer.feed(&[byte], &expected), Ok(false));
        stamps.extend(answer.stamps());
    }
    assert!(answer.has_head());
    assert_eq!(stamps, [7, 1 << 40]);
    assert_eq!(answer.take_messages(), 2);
    assert_eq!(answer.take_messages(), 0);
}

trait ReplaceFirst {
    fn replace_first(self, what: &[u8], by: &[u8]) -> Self;
}

impl ReplaceFirst for Vec<u8> {
    fn replace_first(mut self, what: &[u8], by: &[u8]) -> Self {
        let at = self
            .windows(what.len())
            .position(|found| found == what)
            .unwrap();
        self.splice(at..at + what.len(), by.iter().copied());
        self
    }
}
