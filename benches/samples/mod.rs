//! What the pure rooms are given when they are measured, the same for all who measure them: `codec` in bytes per second,
//! `counts` in instructions, and the test that they allocate nothing.
#![allow(dead_code, reason = "nobody who includes it uses all of it")]

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf::rpc::{Dialect, Form, ResponseCodec};
use wharf::wire::base64::Encoder;
use wharf::wire::envelope::{Step, Walker, prefix};
use wharf::wire::{Fields, Part, ResponseHead};

/// What one read of a socket brings at most.
pub(crate) const PIECE: usize = 64 << 10;

/// The sizes of messages that calls are made of: a counter, a row, a picture.
pub(crate) const MESSAGES: [usize; 3] = [8, 1 << 10, 60_000];

/// A request's head as Chromium sends it.
pub(crate) const HEAD: &[u8] = b"POST /helloworld.Greeter/SayHello HTTP/1.1\r\n\
    Host: localhost:8080\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nx-grpc-web: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Chromium\";v=\"143\", \"Not A(Brand\";v=\"24\"\r\n\
    content-type: application/grpc-web+proto\r\nx-user-agent: grpc-web-javascript/0.1\r\n\
    sec-ch-ua-mobile: ?0\r\nAccept: */*\r\nOrigin: http://localhost:3000\r\n\
    Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Referer: http://localhost:3000/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\r\n";

/// A piece full of messages of that size.
pub(crate) fn messages(size: usize) -> Bytes {
    let mut piece = BytesMut::new();
    while piece.len() + size + 5 <= PIECE {
        piece.extend_from_slice(&prefix(0, size as u32));
        piece.extend((0..size).map(|n| n as u8));
    }
    piece.freeze()
}

/// The same in base64.
pub(crate) fn text(piece: &[u8]) -> BytesMut {
    let mut text = BytesMut::new();
    let mut encoder = Encoder::new();
    encoder.encode(piece, &mut text);
    encoder.flush(&mut text);
    text
}

/// Walks over all envelopes of a piece.
pub(crate) fn walk(walker: &mut Walker, piece: &[u8]) -> u64 {
    let mut at = 0;
    loop {
        let (used, step) = walker.step(piece.get(at..).unwrap_or_default());
        at += used;
        if step == Step::Hungry {
            return walker.messages();
        }
    }
}

/// A codec for answers whose head has passed.
pub(crate) fn response_codec(response: Form) -> ResponseCodec {
    let dialect = Dialect::GrpcWeb {
        request: Form::Binary,
        response,
    };
    let mut codec = ResponseCodec::new(dialect, &Fields::new(), u32::MAX);
    let mut head = ResponseHead::new(StatusCode::OK);
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers.insert("content-type", grpc);
    let begun = codec.translate(Part::Head(Box::new(head)), &mut |_| {});
    assert_eq!(begun, Ok(None));
    codec
}

/// Sends a piece through; how many bytes came out.
pub(crate) fn translate(codec: &mut ResponseCodec, piece: Bytes) -> usize {
    let mut bytes = 0;
    let passed = codec.translate(Part::Data(piece), &mut |part| {
        if let Part::Data(data) = part {
            bytes += data.len();
        }
    });
    assert_eq!(passed, Ok(None));
    bytes
}

/// What a server adds to a status.
pub(crate) fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-request-id", HeaderValue::from_static("3f786850e387550f"));
    trailers.insert("x-trace-bin", HeaderValue::from_static("AAECAwQFBgc="));
    trailers
}
