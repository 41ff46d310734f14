//! Requests through their codec: the same at every split, in both forms and from a native caller, and nothing of a message that
//! may not pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use wharf::rpc::{Dialect, Form, RequestCodec};
use wharf::wire::base64::Base64Fault;
use wharf::wire::{Part, Party, Reason, Reset, ResponseHead};

use super::base64_stream;
use super::shared::{envelopes, pieces, ways};

/// Reads `input` as the limit of a message, how the body ends, the sizes of pieces (four bytes), and the body: as it stands
/// in either form and without one, put into text, and as indices of text.
pub fn check(input: &[u8]) {
    let Some((&[limit, end, ref sizes @ ..], body)) = input.split_first_chunk::<6>() else {
        return;
    };
    let limit = u32::from(limit);
    let end = match end {
        b'x' => End::Never,
        b't' => End::Trailers,
        b'h' => End::Head,
        _ => End::Clean,
    };

    let expected = naive(body, None, limit, end);
    for pieces in ways(body, sizes) {
        assert_eq!(run(BINARY, limit, &pieces, end), expected);
        assert_eq!(run(Dialect::Grpc, limit, &pieces, end), expected, "native");
    }
    let text: String = pieces(body, sizes)
        .iter()
        .map(|run| STANDARD.encode(run))
        .collect();
    for pieces in ways(text.as_bytes(), sizes) {
        assert_eq!(run(TEXT, limit, &pieces, end), expected, "as text");
    }
    check_text(body, sizes, limit, end);
    check_text(&base64_stream::spelled(body), sizes, limit, end);
    for pieces in ways(body, sizes) {
        let seen = run(Dialect::Plain, limit, &pieces, end);
        assert_eq!(seen.bytes, body);
        assert_eq!(seen.fault.is_some(), end == End::Head);
    }
}

const BINARY: Dialect = Dialect::GrpcWeb {
    request: Form::Binary,
    response: Form::Binary,
};
const TEXT: Dialect = Dialect::GrpcWeb {
    request: Form::Text,
    response: Form::Text,
};

/// What follows the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    Clean,
    Trailers,
    Head,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
    fault: Option<Fault>,
    messages: u64,
    /// `None` after a fault: it means nothing then.
    at_boundary: Option<bool>,
}

/// A fault, as far as a naive reading can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    TooLarge,
    Protocol,
}

fn check_text(text: &[u8], sizes: &[u8], limit: u32, end: End) {
    let (bytes, fault) = base64_stream::naive(text);
    let expected = naive(&bytes, fault, limit, end);
    for pieces in ways(text, sizes) {
        let seen = run(TEXT, limit, &pieces, end);
        if fault == Some(Base64Fault::Invalid) {
            // How much stands before the fault depends on the pieces, and so does which fault is seen first.
            assert!(seen.fault.is_some());
            assert!(expected.bytes.starts_with(&seen.bytes));
            assert!(!seen.ended);
        } else {
            assert_eq!(seen, expected);
        }
    }
}

/// What must come of a body of such bytes, in a text with that fault.
fn naive(body: &[u8], text: Option<Base64Fault>, limit: u32, end: End) -> Seen {
    let read = envelopes(body);
    let mut seen = Seen {
        bytes: Vec::new(),
        ended: false,
        fault: None,
        messages: 0,
        at_boundary: None,
    };
    let whole = read.whole.iter().map(|&(flags, payload)| {
        let length = payload.len() as u32;
        (flags, length, payload)
    });
    for (flags, length, payload) in whole.chain(read.begun) {
        if flags > 1 {
            seen.fault = Some(Fault::Protocol);
            return seen;
        }
        if length > limit {
            seen.fault = Some(Fault::TooLarge);
            return seen;
        }
        seen.bytes.push(flags);
        seen.bytes.extend(length.to_be_bytes());
        seen.bytes.extend(payload);
        seen.messages += u64::from(payload.len() as u32 == length);
    }
    let at_boundary = read.begun.is_none() && read.rest.is_empty() && text.is_none();
    match end {
        End::Never => seen.at_boundary = Some(at_boundary),
        End::Clean | End::Trailers if at_boundary => {
            seen.ended = true;
            seen.at_boundary = Some(true);
        }
        _ => seen.fault = Some(Fault::Protocol),
    }
    seen
}

fn run(dialect: Dialect, limit: u32, pieces: &[&[u8]], end: End) -> Seen {
    let mut codec = RequestCodec::new(dialect, limit);
    let mut bytes = Vec::new();
    let mut ended = false;
    let mut out = |part: Part| {
        assert!(!ended, "nothing comes after the end");
        match part {
            Part::Head(_) => panic!("a head inside a request"),
            Part::Data(data) => {
                assert!(!data.is_empty(), "no empty data");
                bytes.extend_from_slice(&data);
            }
            Part::End(fields) => {
                assert!(fields.is_none(), "a request of gRPC has no trailers");
                ended = true;
            }
        }
    };
    let content = pieces
        .iter()
        .map(|piece| Part::Data(Bytes::copy_from_slice(piece)));
    let last = match end {
        End::Never => None,
        End::Clean => Some(Part::End(None)),
        End::Trailers => Some(Part::End(Some(Box::new(HeaderMap::new())))),
        End::Head => Some(Part::Head(Box::new(ResponseHead::new(StatusCode::OK)))),
    };
    let mut fault = None;
    for part in content.chain(last) {
        if let Err(reset) = codec.translate(part, &mut out) {
            fault = Some(reset);
            break;
        }
    }
    if let Some(fault) = fault {
        let more = Part::Data(Bytes::from_static(b"\0\0\0\0\x01x"));
        for part in [more, Part::End(None)] {
            let again = codec.translate(part, &mut |_| panic!("nothing comes after a fault"));
            assert_eq!(again, Err(fault), "a fault is sticky");
        }
    }
    assert_eq!(codec.bytes(), bytes.len() as u64);
    Seen {
        bytes,
        ended,
        fault: fault.map(|reset| told(reset, limit)),
        messages: codec.messages(),
        at_boundary: fault.is_none().then(|| codec.at_boundary()),
    }
}

fn told(reset: Reset, limit: u32) -> Fault {
    assert_eq!(reset.by, Party::Downstream);
    match reset.reason {
        Reason::ClientProtocol(_) => Fault::Protocol,
        Reason::MessageTooLarge(told) => {
            assert_eq!(told, limit);
            Fault::TooLarge
        }
        other => panic!("{other:?}"),
    }
}
