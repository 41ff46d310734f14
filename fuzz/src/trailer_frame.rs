//! Trailer frames: whatever the fields are, a client reads one status, the message, and each field that can be printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf::rpc::trailer_frame::TrailerFrame;
use wharf::rpc::{Closing, Dialect, Form, ResponseCodec};
use wharf::wire::metadata::is_hop_by_hop;
use wharf::wire::status::{GRPC_MESSAGE, GRPC_STATUS, repair_message};
use wharf::wire::{Code, Fields, Part, ResponseHead, Status};

use super::shared::{envelopes, fields, percent_decoded, trailers};

/// Reads `input` as a line of `grpc-status`, a line of `grpc-message`, and lines of `name:value`.
pub fn check(input: &[u8]) {
    let mut lines = input.splitn(3, |&byte| byte == b'\n');
    let status = HeaderValue::from_bytes(lines.next().unwrap_or_default());
    let code = status.map_or(Code::OK, |value| Code::from_header(&value));
    let message = lines.next();
    let mut others = fields(lines.next().unwrap_or_default(), b'\n');

    let repaired = message.map(repair_message);
    let frame = TrailerFrame::new(code, repaired.as_deref(), &others);
    check_frame(&frame, code, repaired.as_deref(), &others);

    // The same by way of the codec, as trailers behind a head.
    others.insert(GRPC_STATUS, HeaderValue::from(code.number()));
    others.remove(GRPC_MESSAGE);
    let value = message.and_then(|message| HeaderValue::from_bytes(message).ok());
    let repaired = value.as_ref().map(|value| repair_message(value.as_bytes()));
    if let Some(value) = value {
        others.insert(GRPC_MESSAGE, value);
    }
    let expected = TrailerFrame::new(code, repaired.as_deref(), &others);
    for form in [Form::Binary, Form::Text] {
        check_answer(form, &others, &expected);
        check_end(form, code, message.unwrap_or_default());
    }
}

fn check_frame(frame: &TrailerFrame, code: Code, message: Option<&[u8]>, fields: &HeaderMap) {
    let block = block(&frame.bytes);
    let read = trailers(block);

    let mut expected = vec![("grpc-status", code.number().to_string())];
    if let Some(message) = message {
        expected.push((
            "grpc-message",
            String::from_utf8_lossy(message).into_owned(),
        ));
    }
    let mut dropped = 0;
    for (name, value) in fields {
        if name == GRPC_STATUS || name == GRPC_MESSAGE {
            continue;
        }
        if value
            .as_bytes()
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~'))
        {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            expected.push((name.as_str(), value));
        } else {
            dropped += 1;
        }
    }
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    assert_eq!(read, expected);
    assert_eq!(frame.dropped_fields, dropped);

    // Another reader of fields reads the same.
    let section = [block, b"\r\n"].concat();
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let Ok(httparse::Status::Complete((length, theirs))) =
        httparse::parse_headers(&section, &mut slots)
    else {
        panic!("httparse cannot read it");
    };
    assert_eq!(length, section.len());
    assert_eq!(theirs.len(), read.len());
    for (theirs, (name, value)) in theirs.iter().zip(read) {
        assert_eq!(theirs.name, name);
        assert_eq!(theirs.value, value.trim_matches(' ').as_bytes());
    }
}

fn check_answer(form: Form, fields: &HeaderMap, expected: &TrailerFrame) {
    let mut codec = codec(form);
    let mut head = ResponseHead::new(StatusCode::OK);
    let grpc = HeaderValue::from_static("application/grpc+proto");
    head.headers.insert(CONTENT_TYPE, grpc);
    let begun = codec.translate(Part::Head(Box::new(head)), &mut |part| {
        assert!(matches!(part, Part::Head(_)));
    });
    assert_eq!(begun, Ok(None));

    let mut body = Vec::new();
    let mut ends = 0;
    let end = Part::End(Some(Box::new(fields.clone())));
    let ending = codec.translate(end, &mut |part| take(part, &mut body, &mut ends));
    if fields.keys().any(is_hop_by_hop) {
        assert!(ending.is_err());
        assert!(body.is_empty() && ends == 0);
        return;
    }
    let ending = ending.expect("nothing is wrong").expect("it is over");
    assert_eq!(ends, 1);
    assert_eq!(binary(form, &body), expected.bytes);
    assert_eq!(codec.dropped_fields(), expected.dropped_fields);
    let read = trailers(block(&expected.bytes));
    assert_eq!(read[0].1, ending.status.code.number().to_string());
    if let Some((_, message)) = read.iter().find(|(name, _)| *name == "grpc-message") {
        assert_eq!(percent_decoded(message.as_bytes()), ending.status.message);
    }
}

fn check_end(form: Form, code: Code, message: &[u8]) {
    let text = String::from_utf8_lossy(message).into_owned();
    let status = Status::new(code, text.clone());
    let mut codec = codec(form);
    let mut body = Vec::new();
    let mut ends = 0;
    let closing = codec.end(&status, &mut |part| take(part, &mut body, &mut ends));
    assert_eq!(closing, Closing::Ended);
    assert_eq!(ends, 1);
    let written = binary(form, &body);
    let read = trailers(block(&written));
    assert_eq!(read[0], ("grpc-status", &*code.number().to_string()));
    match read.get(1) {
        None => assert!(text.is_empty()),
        Some((name, message)) => {
            assert_eq!(*name, "grpc-message");
            assert!(text.starts_with(&percent_decoded(message.as_bytes())));
            assert!(!text.is_empty());
        }
    }
    assert!(read.len() <= 2);
}

fn codec(form: Form) -> ResponseCodec {
    let dialect = Dialect::GrpcWeb {
        request: form,
        response: form,
    };
    ResponseCodec::new(dialect, &Fields::new(), 1 << 20)
}

fn take(part: Part, body: &mut Vec<u8>, ends: &mut u32) {
    assert_eq!(*ends, 0, "nothing comes after the end");
    match part {
        Part::Head(_) => assert!(body.is_empty()),
        Part::Data(data) => body.extend_from_slice(&data),
        Part::End(fields) => {
            assert!(fields.is_none());
            *ends += 1;
        }
    }
}

fn binary(form: Form, body: &[u8]) -> Vec<u8> {
    match form {
        Form::Binary => body.to_vec(),
        Form::Text => STANDARD.decode(body).expect("one padded run"),
    }
}

/// The block of the one frame that there is.
fn block(frame: &[u8]) -> &[u8] {
    let read = envelopes(frame);
    assert!(read.begun.is_none() && read.rest.is_empty());
    let [(0x80, block)] = read.whole[..] else {
        panic!("not one trailer frame: {read:?}");
    };
    block
}
