//! An answer, frame by frame, and where it broke off.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use crate::connection::Reader;

/// The longest head that is read, bytes.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// The longest frame that is believed, bytes.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(at, _)| at == name)?;
        Some(&field.1)
    }

    /// Whether the peer will close after this answer.
    pub fn closes(&self) -> bool {
        self.get("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Where a connection ended that should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Not a byte of an answer came.
    BeforeHead,
    InHead,
    /// Between two messages, or before the first: here a status could have stood.
    Boundary,
    /// Inside a message: here none could.
    InMessage,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeHead => "before-head",
            Self::InHead => "in-head",
            Self::Boundary => "between-messages",
            Self::InMessage => "in-message",
        })
    }
}

/// Why an answer is not whole.
#[derive(Clone, Debug)]
pub enum Broken {
    Cut(Place),
    /// It says something that no answer may say.
    Malformed(String),
}

/// One frame of a body.
#[derive(Debug)]
pub enum Frame {
    Message(Bytes),
    Trailers(Vec<(String, String)>),
    /// The body ended as its framing says, on a frame's end.
    End,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    /// The text form: characters that are not yet a group of four.
    text: Option<BytesMut>,
    unread: BytesMut,
    trailers_seen: bool,
}

#[derive(Debug)]
enum Framing {
    Length(usize),
    /// Bytes left of the chunk; whether one has begun, whose line end is still to come.
    Chunked {
        left: usize,
        begun: bool,
    },
    UntilClose,
    Over,
}

enum Piece {
    Some(Bytes),
    End,
    Cut,
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Malformed(what.into()))
}

impl Reader {
    /// Reads an answer's head.
    pub async fn head(&mut self) -> Result<(Head, Body), Broken> {
        let mut looked = 0;
        let end = loop {
            let from = looked.min(self.unread.len());
            if let Some(at) = self.unread[from..]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break from + at + 4;
            }
            looked = self.unread.len().saturating_sub(3);
            if self.unread.len() > HEAD_BYTES_MAX {
                return malformed("a head without an end");
            }
            if !self.fill().await {
                return Err(Broken::Cut(match self.unread.is_empty() {
                    true => Place::BeforeHead,
                    false => Place::InHead,
                }));
            }
        };
        let bytes = self.unread.split_to(end);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return malformed("a head that is not text");
        };
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok());
        let Some(status) = status else {
            return malformed(format!("a first line {first:?}"));
        };
        let mut fields = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                return malformed(format!("a field {line:?}"));
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let head = Head { status, fields };
        let body = Body::of(&head)?;
        Ok((head, body))
    }

    /// The next frame of a body.
    pub async fn frame(&mut self, body: &mut Body) -> Result<Frame, Broken> {
        loop {
            if let Some(frame) = body.whole_frame()? {
                return Ok(frame);
            }
            match self.piece(&mut body.framing).await? {
                Piece::Some(bytes) => body.take(&bytes)?,
                Piece::End if body.is_clean() => return Ok(Frame::End),
                Piece::End => return malformed("a body that ends cleanly inside a frame"),
                Piece::Cut if body.is_clean() => return Err(Broken::Cut(Place::Boundary)),
                Piece::Cut => return Err(Broken::Cut(Place::InMessage)),
            }
        }
    }

    async fn piece(&mut self, framing: &mut Framing) -> Result<Piece, Broken> {
        match framing {
            Framing::Over => Ok(Piece::End),
            Framing::Length(0) => {
                *framing = Framing::Over;
                Ok(Piece::End)
            }
            Framing::Length(left) => {
                if self.unread.is_empty() && !self.fill().await {
                    return Ok(Piece::Cut);
                }
                let take = self.unread.len().min(*left);
                *left -= take;
                Ok(Piece::Some(self.unread.split_to(take).freeze()))
            }
            Framing::UntilClose => {
                if self.unread.is_empty() && !self.fill().await {
                    *framing = Framing::Over;
                    return Ok(Piece::End);
                }
                Ok(Piece::Some(self.unread.split().freeze()))
            }
            Framing::Chunked { left, begun } => {
                if *left == 0 {
                    if *begun {
                        match self.line().await? {
                            Some(line) if line.is_empty() => *begun = false,
                            Some(line) => return malformed(format!("after a chunk {line:?}")),
                            None => return Ok(Piece::Cut),
                        }
                    }
                    let Some(line) = self.line().await? else {
                        return Ok(Piece::Cut);
                    };
                    let Ok(size) = usize::from_str_radix(&line, 16) else {
                        return malformed(format!("a chunk's size {line:?}"));
                    };
                    if size == 0 {
                        match self.line().await? {
                            Some(line) if line.is_empty() => {}
                            Some(line) => return malformed(format!("an HTTP trailer {line:?}")),
                            None => return Ok(Piece::Cut),
                        }
                        *framing = Framing::Over;
                        return Ok(Piece::End);
                    }
                    (*left, *begun) = (size, true);
                }
                if self.unread.is_empty() && !self.fill().await {
                    return Ok(Piece::Cut);
                }
                let take = self.unread.len().min(*left);
                *left -= take;
                Ok(Piece::Some(self.unread.split_to(take).freeze()))
            }
        }
    }

    /// The next line without its end; `None` if the connection ends first.
    async fn line(&mut self) -> Result<Option<String>, Broken> {
        loop {
            if let Some(at) = self
                .unread
                .windows(2)
                .take(1024)
                .position(|two| two == b"\r\n")
            {
                let line = self.unread.split_to(at + 2);
                return Ok(Some(String::from_utf8_lossy(&line[..at]).into_owned()));
            }
            if self.unread.len() > 1024 {
                return malformed("a chunk's line without an end");
            }
            if !self.fill().await {
                return Ok(None);
            }
        }
    }
}

impl Body {
    fn of(head: &Head) -> Result<Self, Broken> {
        let all = |name: &str| -> Vec<&str> {
            let fields = head.fields.iter().filter(|(at, _)| at == name);
            fields.map(|(_, value)| value.as_str()).collect()
        };
        let framing = match (
            all("content-length").as_slice(),
            all("transfer-encoding").as_slice(),
        ) {
            ([length], []) => match length.parse() {
                Ok(length) => Framing::Length(length),
                Err(_) => return malformed(format!("content-length {length:?}")),
            },
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked {
                left: 0,
                begun: false,
            },
            ([], []) => Framing::UntilClose,
            both => return malformed(format!("a body framed as {both:?}")),
        };
        let text = head
            .get("content-type")
            .is_some_and(|kind| kind.starts_with("application/grpc-web-text"));
        Ok(Self {
            framing,
            text: text.then(BytesMut::new),
            unread: BytesMut::new(),
            trailers_seen: false,
        })
    }

    fn is_clean(&self) -> bool {
        self.unread.is_empty() && self.text.as_ref().is_none_or(BytesMut::is_empty)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(text) = &mut self.text else {
            self.unread.extend_from_slice(bytes);
            return Ok(());
        };
        text.extend_from_slice(bytes);
        let whole = text.split_to(text.len() / 4 * 4);
        // Padding may stand in the middle of a body, and ends what can be decoded at once.
        let mut left = &whole[..];
        while !left.is_empty() {
            let padded = left.iter().position(|&byte| byte == b'=');
            let until = padded.map_or(left.len(), |at| at / 4 * 4 + 4);
            let (group, rest) = left.split_at(until);
            match STANDARD.decode(group) {
                Ok(decoded) => self.unread.extend_from_slice(&decoded),
                Err(error) => return malformed(format!("base64: {error}")),
            }
            left = rest;
        }
        Ok(())
    }

    fn whole_frame(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(&[flags, a, b, c, d]) = self.unread.first_chunk::<5>() else {
            return Ok(None);
        };
        if self.trailers_seen {
            return malformed("a frame after the trailers");
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX {
            return malformed(format!("a frame of {length} bytes"));
        }
        if self.unread.len() < 5 + length {
            return Ok(None);
        }
        let bytes = self.unread.split_to(5 + length).freeze().slice(5..);
        match flags {
            0x00 => Ok(Some(Frame::Message(bytes))),
            0x80 => {
                self.trailers_seen = true;
                let text = String::from_utf8_lossy(&bytes);
                let mut fields = Vec::new();
                for line in text.split_terminator("\r\n") {
                    let Some((name, value)) = line.split_once(':') else {
                        return malformed(format!("a trailer {line:?}"));
                    };
                    fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                Ok(Some(Frame::Trailers(fields)))
            }
            flags => malformed(format!("a frame with the flags {flags:#x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    /// What a client makes of these bytes, sent and then closed.
    async fn read(bytes: &'static [u8]) -> Result<Vec<Frame>, Broken> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (connection, accepted) = tokio::join!(Connection::open(address), listener.accept());
        let (mut connection, (mut peer, _)) = (connection.expect("open"), accepted.expect("one"));
        peer.write_all(bytes).await.expect("written");
        drop(peer);
        let (_, mut body) = connection.reader.head().await?;
        let mut frames = Vec::new();
        loop {
            match connection.reader.frame(&mut body).await? {
                Frame::End => return Ok(frames),
                frame => frames.push(frame),
            }
        }
    }

    #[tokio::test]
    async fn a_whole_answer_is_whole_in_either_framing() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n\0\0\0\0\x02hi\x80\0\0\0\0"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\0\0\0\r\n9\r\n\0\x02hi\x80\0\0\0\0\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 20\r\n\r\nAAAAAAJoaQ==gAAAAAA=",
        ] {
            let frames = read(bytes).await.expect("whole");
            assert!(matches!(&frames[0], Frame::Message(message) if message == "hi"));
            assert!(matches!(&frames[1], Frame::Trailers(fields) if fields.is_empty()));
            assert_eq!(frames.len(), 2);
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_says_where_it_broke_off() {
        let rows: [(&[u8], Place); 6] = [
            (b"", Place::BeforeHead),
            (b"HTTP/1.1 200", Place::InHead),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n\0\0\0\0\x02hi",
                Place::Boundary,
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n\0\0\0\0\x02h",
                Place::InMessage,
            ),
            // The last chunk is missing: the trailers have come, and all the same it is no end.
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n\x80\0\0\0\0\r\n",
                Place::Boundary,
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 9\r\n\r\nAAA",
                Place::InMessage,
            ),
        ];
        for (bytes, place) in rows {
            match read(bytes).await {
                Err(Broken::Cut(at)) => assert_eq!(at, place, "{bytes:?}"),
                other => panic!("{bytes:?} is {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_no_answer_may_say_is_not_believed() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\0\0\0\0\x02h"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n\x80\0\0\0\0\0\0\0\0\0",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\x02\0\0\0\0",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 4\r\n\r\n!!!!",
        ] {
            let end = read(bytes).await;
            assert!(matches!(end, Err(Broken::Malformed(_))), "{bytes:?}: {end:?}");
        }
    }
}
