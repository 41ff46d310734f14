//! A page that calls through `fetch`: the head of a browser, one call at a time, and a strict reader of what comes back.

use bytes::{Bytes, BytesMut};
use wharf::wire::base64::{Decoder, Encoder};
use wharf::wire::envelope::prefix;

use super::memory::{Memory, Wire};
use super::{Case, Received, Speech};

/// One client on its connection.
pub(super) struct Client {
    wire: Wire,
    request: Bytes,
    text: bool,
    waits: bool,
    /// What has come of the answer and is not yet understood.
    unread: Vec<u8>,
    /// How much of `unread` is understood.
    at: usize,
    reading: Reading,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Head,
    /// The body has so many bytes.
    Sized(usize),
    /// It comes in chunks.
    Chunked,
}

/// The request of a case, whole: nine headers, as a browser sends them.
pub(super) fn request(case: &Case) -> Bytes {
    let mut message = BytesMut::new();
    message.extend_from_slice(&prefix(0, case.request_bytes as u32));
    message.extend((0..case.request_bytes).map(|n| n as u8));
    let mut body = BytesMut::new();
    let media_type = if case.speech == Speech::Text {
        let mut encoder = Encoder::new();
        encoder.encode(&message, &mut body);
        encoder.flush(&mut body);
        "application/grpc-web-text"
    } else {
        body = message;
        "application/grpc-web+proto"
    };
    let path = case.path();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\n\
         host: localhost:8080\r\n\
         content-type: {media_type}\r\n\
         content-length: {length}\r\n\
         accept: {media_type}\r\n\
         origin: http://localhost:3000\r\n\
         user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36\r\n\
         x-user-agent: grpc-web-javascript/0.1\r\n\
         x-grpc-web: 1\r\n\
         authorization: Bearer 3f786850e387550fdab836ed7e6dc881de23001b\r\n\
         \r\n"
    );
    let mut request = BytesMut::from(head.as_bytes());
    request.extend_from_slice(&body);
    request.freeze()
}

impl Client {
    pub(super) fn new(wire: Wire, request: Bytes, text: bool) -> Self {
        Self {
            wire,
            request,
            text,
            waits: false,
            unread: Vec::new(),
            at: 0,
            reading: Reading::Head,
            body: Vec::new(),
        }
    }

    /// No call is open.
    pub(super) fn is_idle(&self) -> bool {
        !self.waits
    }

    /// Makes a call.
    pub(super) fn send(&mut self, memory: &Memory) {
        memory.send(&self.wire, &self.request);
        self.waits = true;
    }

    /// Reads what has come; an answer that is whole is checked and counted.
    pub(super) fn receive(&mut self, received: &mut Received) {
        self.wire.receive(&mut self.unread);
        if self.unread.len() > self.at && self.read_answer() {
            assert!(self.waits, "an answer to nothing");
            assert_eq!(self.at, self.unread.len(), "more than an answer");
            self.unread.clear();
            self.at = 0;
            self.reading = Reading::Head;
            self.waits = false;
            self.check(received);
            self.body.clear();
        }
    }

    /// Whether the answer has come whole.
    fn read_answer(&mut self) -> bool {
        loop {
            let rest = &self.unread[self.at..];
            match self.reading {
                Reading::Head => {
                    let Some(end) = find(rest, b"\r\n\r\n") else {
                        return false;
                    };
                    let head = std::str::from_utf8(&rest[..end]).expect("a head of text");
                    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    let field = |name: &str| {
                        head.lines().find_map(|line| {
                            let (found, value) = line.split_once(':')?;
                            found.eq_ignore_ascii_case(name).then(|| value.trim())
                        })
                    };
                    assert_eq!(
                        field("access-control-allow-origin"),
                        Some("http://localhost:3000"),
                        "{head}"
                    );
                    self.reading = field("content-length").map_or(Reading::Chunked, |length| {
                        Reading::Sized(length.parse().expect("a length"))
                    });
                    self.at += end + 4;
                }
                Reading::Sized(length) => {
                    if rest.len() < length {
                        return false;
                    }
                    self.body.extend_from_slice(&rest[..length]);
                    self.at += length;
                    return true;
                }
                Reading::Chunked => {
                    let Some(line) = find(rest, b"\r\n") else {
                        return false;
                    };
                    let size = std::str::from_utf8(&rest[..line]).expect("a size");
                    let size = usize::from_str_radix(size, 16).expect("a size");
                    let end = line + 2 + size + 2;
                    if rest.len() < end {
                        return false;
                    }
                    assert_eq!(&rest[end - 2..end], b"\r\n", "the end of a chunk");
                    self.body.extend_from_slice(&rest[line + 2..end - 2]);
                    self.at += end;
                    if size == 0 {
                        return true;
                    }
                }
            }
        }
    }

    /// Messages, then one trailer frame that says OK, then nothing.
    fn check(&self, received: &mut Received) {
        let mut decoded = BytesMut::new();
        let mut rest = &self.body[..];
        if self.text {
            let mut decoder = Decoder::new();
            decoder.decode(rest, &mut decoded).expect("base64");
            decoder.finish().expect("whole base64");
            rest = &decoded;
        }
        loop {
            let (head, behind) = rest.split_first_chunk::<5>().expect("a frame");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let (payload, behind) = behind.split_at(length);
            if head[0] == 0x80 {
                let said = std::str::from_utf8(payload).expect("text");
                let status = said
                    .lines()
                    .find_map(|line| line.strip_prefix("grpc-status:"));
                assert_eq!(status.map(str::trim), Some("0"), "{said}");
                assert!(behind.is_empty(), "something behind the trailers");
                break;
            }
            assert_eq!(head[0], 0, "a plain message");
            received.messages += 1;
            received.payload += payload.len();
            rest = behind;
        }
        received.calls += 1;
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|found| found == what)
}
