//! The bytes of a request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How gRPC's messages are written: as they are, or in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Text,
}

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

/// A request's head. `fields`: whole lines with their ends.
pub fn head(host: &str, path: &str, form: Form, framing: Framing, fields: &str) -> Vec<u8> {
    let kind = match form {
        Form::Binary => "application/grpc-web+proto",
        Form::Text => "application/grpc-web-text+proto",
    };
    let framing = match framing {
        Framing::Length(bytes) => format!("content-length: {bytes}"),
        Framing::Chunked => "transfer-encoding: chunked".to_owned(),
    };
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\naccept: {kind}\r\nx-grpc-web: 1\r\n{fields}\
         {framing}\r\n\r\n"
    )
    .into_bytes()
}

/// gRPC's five bytes and a message.
pub fn frame(message: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(message.len()).expect("a trial's message is small");
    out.push(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
}

/// A whole body in the text form.
pub fn text(body: &[u8]) -> Vec<u8> {
    STANDARD.encode(body).into_bytes()
}
