//! Is an answer right? Owns the reading of a gRPC-Web answer over HTTP/1.1, piece by piece as it comes, that of the messages in
//! any answer, and every way in which one can be wrong. A load that did not look would find the proxy fastest that answers nonsense.
//!
//! Sources: RFC 9112 (heads, chunked), RFC 4648 (base64), the gRPC-Web protocol page (the trailer frame has 0x80 set).

use std::fmt;

/// The largest head and the largest trailer frame that are read, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fields in an answer's head that are read at most.
const FIELDS_MAX: usize = 64;

/// What a right answer is.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The payload of each message. Where messages are stamped only its length counts.
    pub(crate) payload: Vec<u8>,
    /// How many messages there are; `None` where the answer never ends by itself.
    pub(crate) messages: Option<u64>,
    /// The first eight bytes of a message are the time of its making.
    pub(crate) stamped: bool,
    /// The body is base64.
    pub(crate) text: bool,
    /// Plain gRPC: the status stands in the trailers, and no frame of the body is one.
    pub(crate) native: bool,
}

/// Why an answer is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What came is no head of an answer.
    Head,
    /// Its status is not 200.
    Status(u16),
    /// It is not said to be gRPC-Web of the kind asked for.
    ContentType,
    /// Where the body ends cannot be told, or a chunk is no chunk.
    Framing,
    /// The body was to be base64 and is not.
    Base64,
    /// A message is longer or shorter than it has to be.
    Length(u32),
    /// A message has other bytes than were sent.
    Payload,
    /// So many messages came, and there should have been another number.
    Messages(u64),
    /// It ended without a trailer frame.
    NoTrailer,
    /// A status that is not 0, or none in the trailer frame (`None`).
    GrpcStatus(Option<u32>),
    /// Bytes after the end.
    Excess,
    /// The connection was closed before the end.
    Closed,
    /// The stream was reset, with this code of HTTP/2.
    Reset(u32),
    /// It was still not there when the load had ended.
    Unanswered,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => write!(f, "not a head of an answer"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::ContentType => write!(f, "another content-type than was asked for"),
            Self::Framing => write!(f, "a body whose end cannot be told"),
            Self::Base64 => write!(f, "not base64"),
            Self::Length(length) => write!(f, "a message of {length} bytes"),
            Self::Payload => write!(f, "a message with other bytes than were sent"),
            Self::Messages(count) => write!(f, "{count} messages"),
            Self::NoTrailer => write!(f, "no trailer frame"),
            Self::GrpcStatus(Some(status)) => write!(f, "grpc-status {status}"),
            Self::GrpcStatus(None) => write!(f, "no grpc-status"),
            Self::Excess => write!(f, "bytes after the end"),
            Self::Closed => write!(f, "closed before the end"),
            Self::Reset(code) => write!(f, "reset with code {code}"),
            Self::Unanswered => write!(f, "no answer until the end"),
        }
    }
}

/// Where an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    /// So many bytes of a body with a length are still to come.
    Sized(u64),
    /// In the line with a chunk's size, with what was read of it; the flag is set once the digits have ended.
    ChunkSize(u64, bool),
    /// So many bytes of the chunk are still to come.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailer fields of HTTP after the last chunk; how long the present line is.
    Fields(usize),
    Done,
}

/// One answer on its way.
#[derive(Debug)]
pub(crate) struct Answer {
    stage: Stage,
    /// The beginning of a head that has not come whole.
    head: Vec<u8>,
    closes: bool,
    base64: Base64,
    envelopes: Envelopes,
}

impl Answer {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Head,
            head: Vec::new(),
            closes: false,
            base64: Base64::new(),
            envelopes: Envelopes::new(),
        }
    }

    /// Takes the next bytes. `true` once the answer is whole and right.
    pub(crate) fn feed(&mut self, bytes: &[u8], expected: &Expected) -> Result<bool, Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, stage) = match self.stage {
                Stage::Head => match self.head(rest, expected)? {
                    Some(step) => step,
                    None => return Ok(false),
                },
                Stage::Sized(left) => {
                    let taken = at_most(rest, left);
                    self.body(&rest[..taken], expected)?;
                    (taken, Stage::Sized(left - taken as u64))
                }
                Stage::ChunkSize(size, ended) => chunk_size(rest[0], size, ended)?,
                Stage::Chunk(0) => return Err(Fault::Framing),
                Stage::Chunk(left) => {
                    let taken = at_most(rest, left);
                    self.body(&rest[..taken], expected)?;
                    match left - taken as u64 {
                        0 => (taken, Stage::ChunkEnd),
                        left => (taken, Stage::Chunk(left)),
                    }
                }
                Stage::ChunkEnd => match rest[0] {
                    b'\r' => (1, Stage::ChunkEnd),
                    b'\n' => (1, Stage::ChunkSize(0, false)),
                    _ => return Err(Fault::Framing),
                },
                Stage::Fields(length) => match rest[0] {
                    b'\n' if length == 0 => (1, Stage::Done),
                    b'\n' => (1, Stage::Fields(0)),
                    b'\r' => (1, Stage::Fields(length)),
                    _ => (1, Stage::Fields(length + 1)),
                },
                Stage::Done => return Err(Fault::Excess),
            };
            rest = &rest[taken..];
            self.stage = match stage {
                Stage::Sized(0) => Stage::Done,
                stage => stage,
            };
        }
        if self.stage != Stage::Done {
            return Ok(false);
        }
        if expected.text && !self.base64.is_between() {
            return Err(Fault::Base64);
        }
        self.envelopes.end(expected)?;
        Ok(true)
    }

    /// Ready for the next answer on the same connection.
    pub(crate) fn reset(&mut self) {
        self.stage = Stage::Head;
        self.head.clear();
        self.closes = false;
        self.base64 = Base64::new();
        self.envelopes.reset();
    }

    /// A head with status 200 has come.
    pub(crate) fn has_head(&self) -> bool {
        self.stage != Stage::Head
    }

    /// The other side said that it closes after this answer.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Messages that came since this was asked last.
    pub(crate) fn take_messages(&mut self) -> u64 {
        self.envelopes.take_messages()
    }

    /// The stamps of messages that came since, in order.
    pub(crate) fn stamps(&mut self) -> std::vec::Drain<'_, u64> {
        self.envelopes.stamps.drain(..)
    }

    /// Reads a head once it is whole: how much of `rest` it took, and what comes next.
    fn head(&mut self, rest: &[u8], expected: &Expected) -> Result<Option<(usize, Stage)>, Fault> {
        let before = self.head.len();
        let whole = if before == 0 {
            rest
        } else {
            self.head.extend_from_slice(rest);
            &self.head
        };
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match parsed.parse(whole) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if whole.len() < HEAD_BYTES_MAX => {
                if before == 0 {
                    self.head.extend_from_slice(rest);
                }
                return Ok(None);
            }
            _ => return Err(Fault::Head),
        };
        match parsed.code {
            Some(200) => {}
            Some(status) => return Err(Fault::Status(status)),
            None => return Err(Fault::Head),
        }
        let mut stage = None;
        let mut kind_is_right = false;
        let mut closes = false;
        for field in parsed.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let length = std::str::from_utf8(field.value).ok();
                let length = length.and_then(|text| text.trim().parse().ok());
                stage = Some(Stage::Sized(length.ok_or(Fault::Framing)?));
            } else if is("transfer-encoding") {
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Framing);
                }
                stage = Some(Stage::ChunkSize(0, false));
            } else if is("content-type") {
                let kind: &[u8] = if expected.text {
                    b"application/grpc-web-text"
                } else {
                    b"application/grpc-web"
                };
                kind_is_right = field.value.starts_with(kind)
                    && (expected.text || !field.value.starts_with(b"application/grpc-web-text"));
            } else if is("connection") {
                closes = field.value.eq_ignore_ascii_case(b"close");
            } else if is("grpc-status") && field.value != b"0" {
                return Err(Fault::GrpcStatus(status(field.value)));
            }
        }
        self.closes = closes;
        if !kind_is_right {
            return Err(Fault::ContentType);
        }
        let stage = stage.ok_or(Fault::Framing)?;
        self.head.clear();
        Ok(Some((length - before, stage)))
    }

    fn body(&mut self, bytes: &[u8], expected: &Expected) -> Result<(), Fault> {
        if expected.text {
            let plain = self.base64.decode(bytes)?;
            self.envelopes.feed(plain, expected)
        } else {
            self.envelopes.feed(bytes, expected)
        }
    }
}

fn at_most(bytes: &[u8], limit: u64) -> usize {
    usize::try_from(limit).map_or(bytes.len(), |limit| limit.min(bytes.len()))
}

/// The next byte of a chunk's first line: hex digits, then perhaps an extension, which means nothing to us.
fn chunk_size(byte: u8, size: u64, ended: bool) -> Result<(usize, Stage), Fault> {
    let stage = match (byte, ended) {
        (b'\n', _) if size == 0 => Stage::Fields(0),
        (b'\n', _) => Stage::Chunk(size),
        (b'\r' | b';', _) | (_, true) => Stage::ChunkSize(size, true),
        (digit, false) => {
            let digit = char::from(digit).to_digit(16).ok_or(Fault::Framing)?;
            let larger = size.checked_mul(16).ok_or(Fault::Framing)?;
            Stage::ChunkSize(larger + u64::from(digit), false)
        }
    };
    Ok((1, stage))
}

/// A gRPC status as it is written.
pub(crate) fn status(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Base64 in pieces: padding may stand in the middle, since each frame may have been encoded by itself.
#[derive(Debug)]
struct Base64 {
    bits: u32,
    /// How many of four characters have come, padding counted.
    count: u32,
    padding: u32,
    plain: Vec<u8>,
}

impl Base64 {
    fn new() -> Self {
        Self {
            bits: 0,
            count: 0,
            padding: 0,
            plain: Vec::new(),
        }
    }

    fn is_between(&self) -> bool {
        self.count == 0
    }

    fn decode(&mut self, text: &[u8]) -> Result<&[u8], Fault> {
        self.plain.clear();
        for &character in text {
            let value = match character {
                b'=' if self.count >= 2 => {
                    self.padding += 1;
                    0
                }
                _ if self.padding > 0 => return Err(Fault::Base64),
                _ => value_of(character).ok_or(Fault::Base64)?,
            };
            self.bits = self.bits << 6 | value;
            self.count += 1;
            if self.count == 4 {
                let three = self.bits.to_be_bytes();
                let length = 3 - self.padding as usize;
                self.plain.extend_from_slice(&three[1..1 + length]);
                (self.bits, self.count, self.padding) = (0, 0, 0);
            }
        }
        Ok(&self.plain)
    }
}

fn value_of(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// The envelopes of a body, and the trailer frame that ends them where there is one.
#[derive(Debug)]
pub(crate) struct Envelopes {
    prefix: [u8; 5],
    /// How much of the prefix has come.
    prefix_length: usize,
    /// How much of the payload has come.
    at: usize,
    stamp: [u8; 8],
    stamps: Vec<u64>,
    messages: u64,
    told: u64,
    /// What has come of the trailer frame; `is_trailer` says that it has begun.
    trailer: Vec<u8>,
    is_trailer: bool,
    ended: bool,
}

impl Envelopes {
    pub(crate) fn new() -> Self {
        Self {
            prefix: [0; 5],
            prefix_length: 0,
            at: 0,
            stamp: [0; 8],
            stamps: Vec::new(),
            messages: 0,
            told: 0,
            trailer: Vec::new(),
            is_trailer: false,
            ended: false,
        }
    }

    /// Ready for the next body.
    pub(crate) fn reset(&mut self) {
        self.prefix_length = 0;
        self.at = 0;
        self.stamps.clear();
        self.messages = 0;
        self.told = 0;
        self.trailer.clear();
        self.is_trailer = false;
        self.ended = false;
    }

    /// Messages that came since this was asked last.
    pub(crate) fn take_messages(&mut self) -> u64 {
        let new = self.messages - self.told;
        self.told = self.messages;
        new
    }

    /// Takes the next bytes of the body.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], expected: &Expected) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if self.ended {
                return Err(Fault::Excess);
            }
            if self.prefix_length < 5 {
                let taken = bytes.len().min(5 - self.prefix_length);
                self.prefix[self.prefix_length..][..taken].copy_from_slice(&bytes[..taken]);
                self.prefix_length += taken;
                bytes = &bytes[taken..];
                if self.prefix_length < 5 {
                    return Ok(());
                }
                self.begin(expected)?;
            }
            let [flags, length @ ..] = self.prefix;
            self.is_trailer = flags & 0x80 != 0;
            let length = u32::from_be_bytes(length) as usize;
            let taken = bytes.len().min(length - self.at);
            let (piece, rest) = bytes.split_at(taken);
            bytes = rest;
            if self.is_trailer {
                self.trailer.extend_from_slice(piece);
            } else {
                self.compare(piece, expected)?;
            }
            self.at += taken;
            if self.at == length {
                self.finish(expected);
            }
        }
        Ok(())
    }

    /// A prefix has come whole: may this envelope follow?
    fn begin(&mut self, expected: &Expected) -> Result<(), Fault> {
        let [flags, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length);
        self.at = 0;
        if flags & 0x80 != 0 {
            if length as usize > HEAD_BYTES_MAX || expected.native {
                return Err(Fault::Length(length));
            }
        } else if flags != 0 || length as usize != expected.payload.len() {
            return Err(Fault::Length(length));
        }
        // What is empty is over before a byte of it comes.
        if length == 0 {
            self.is_trailer = flags & 0x80 != 0;
            self.finish(expected);
        }
        Ok(())
    }

    fn compare(&mut self, piece: &[u8], expected: &Expected) -> Result<(), Fault> {
        if !expected.stamped {
            return match expected.payload.get(self.at..self.at + piece.len()) {
                Some(same) if same == piece => Ok(()),
                _ => Err(Fault::Payload),
            };
        }
        for (at, byte) in (self.at..8).zip(piece) {
            self.stamp[at] = *byte;
        }
        Ok(())
    }

    fn finish(&mut self, expected: &Expected) {
        self.prefix_length = 0;
        self.at = 0;
        if self.is_trailer {
            self.ended = true;
        } else {
            self.messages += 1;
            if expected.stamped {
                self.stamps.push(u64::from_be_bytes(self.stamp));
            }
        }
    }

    /// The body is over: was it all?
    pub(crate) fn end(&self, expected: &Expected) -> Result<(), Fault> {
        if expected.native {
            return match expected.messages {
                _ if self.prefix_length > 0 => Err(Fault::Closed),
                Some(messages) if messages == self.messages => Ok(()),
                _ => Err(Fault::Messages(self.messages)),
            };
        }
        if !self.ended {
            return Err(Fault::NoTrailer);
        }
        let status = self
            .trailer
            .split(|byte| *byte == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                let (name, value) = (line[..colon].trim_ascii(), &line[colon + 1..]);
                name.eq_ignore_ascii_case(b"grpc-status")
                    .then(|| status(value))
            })
            .next()
            .flatten();
        if status != Some(0) {
            return Err(Fault::GrpcStatus(status));
        }
        match expected.messages {
            Some(messages) if messages == self.messages => Ok(()),
            _ => Err(Fault::Messages(self.messages)),
        }
    }
}

#[cfg(test)]
mod tests;
