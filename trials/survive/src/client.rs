//! A gRPC-Web client over HTTP/1.1 that believes nothing: it tells what an answer said, or how it broke off.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::{Deed, envelope};

/// How a call ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// A gRPC status, in the trailer frame or among the header fields.
    Status(u32),
    /// Status 0, but not the one message that belongs to the call.
    Untrue,
    /// Another HTTP status than 200, and no gRPC status.
    Http(u16),
    /// A whole answer without any status.
    Silent,
    /// The connection ended inside the answer, or before it.
    Cut,
    /// Nothing came in time.
    Nothing,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "status {code}"),
            Self::Untrue => f.write_str("status 0 without its message"),
            Self::Http(code) => write!(f, "HTTP {code}"),
            Self::Silent => f.write_str("no status"),
            Self::Cut => f.write_str("cut"),
            Self::Nothing => f.write_str("no answer"),
        }
    }
}

/// A client's connection, kept from call to call where the proxy allows it.
pub(crate) struct Client {
    proxy: SocketAddr,
    socket: Option<TcpStream>,
}

impl Client {
    pub(crate) fn new(proxy: SocketAddr) -> Self {
        Self {
            proxy,
            socket: None,
        }
    }

    /// A whole call.
    pub(crate) fn call(&mut self, deed: Deed, name: &str, patience: Duration) -> Ending {
        let until = Instant::now() + patience;
        let Some(call) = Call::start_on(self.socket.take(), self.proxy, deed, name) else {
            return Ending::Cut;
        };
        let (ending, socket) = call.end(until);
        self.socket = socket;
        ending
    }
}

/// A call that has been sent.
pub(crate) struct Call {
    name: String,
    socket: TcpStream,
    answer: Answer,
}

impl Call {
    /// Sends a call on a connection of its own.
    pub(crate) fn start(proxy: SocketAddr, deed: Deed, name: &str) -> Option<Self> {
        Self::start_on(None, proxy, deed, name)
    }

    fn start_on(
        socket: Option<TcpStream>,
        proxy: SocketAddr,
        deed: Deed,
        name: &str,
    ) -> Option<Self> {
        let mut socket = match socket {
            Some(socket) => socket,
            None => TcpStream::connect_timeout(&proxy, Duration::from_secs(5)).ok()?,
        };
        // Small requests that wait for an acknowledgement would only make it slow.
        let _ = socket.set_nodelay(true);
        let body = envelope(name.as_bytes());
        let mut request = format!(
            "POST /survive.{}/{name} HTTP/1.1\r\nhost: {proxy}\r\ncontent-type: application/grpc-web+proto\r\n\
             accept: application/grpc-web+proto\r\nx-grpc-web: 1\r\ncontent-length: {}\r\n\r\n",
            deed.service(),
            body.len()
        )
        .into_bytes();
        request.extend(body);
        socket.write_all(&request).ok()?;
        Some(Self {
            name: name.to_owned(),
            socket,
            answer: Answer::default(),
        })
    }

    /// Whether the first message has come in time.
    pub(crate) fn begins(&mut self, until: Instant) -> bool {
        while self.answer.messages.is_empty() {
            if self.answer.over || self.read(until).is_err() {
                return false;
            }
        }
        true
    }

    /// The rest, and the connection if it serves another call.
    pub(crate) fn end(mut self, until: Instant) -> (Ending, Option<TcpStream>) {
        while !self.answer.over {
            if let Err(ending) = self.read(until) {
                return (ending, None);
            }
        }
        let ending = self.answer.ending(self.name.as_bytes());
        let socket = self.answer.reusable.then_some(self.socket);
        (ending, socket)
    }

    fn read(&mut self, until: Instant) -> Result<(), Ending> {
        let left = until.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        if self.socket.set_read_timeout(Some(left)).is_err() {
            return Err(Ending::Cut);
        }
        let mut bytes = [0; 4096];
        match self.socket.read(&mut bytes) {
            Ok(0) => {
                self.answer.closed();
                if self.answer.over {
                    Ok(())
                } else {
                    Err(Ending::Cut)
                }
            }
            Ok(count) => {
                self.answer.feed(&bytes[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Ending::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Ending::Cut),
        }
    }
}

/// What has come of an answer.
#[derive(Default)]
struct Answer {
    /// Bytes of HTTP that are not yet understood.
    unread: Vec<u8>,
    head: Option<Head>,
    /// What is left of the present chunk, with its line end.
    chunk: usize,
    /// Bytes of gRPC-Web that are not yet understood.
    body: Vec<u8>,
    messages: Vec<Vec<u8>>,
    trailers: Option<Option<u32>>,
    over: bool,
    reusable: bool,
}

struct Head {
    code: u16,
    framing: Framing,
    status: Option<u32>,
    reusable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
}

impl Answer {
    fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
        if self.head.is_none() {
            let Some(end) = find(&self.unread, b"\r\n\r\n") else {
                return;
            };
            let head = Head::read(&String::from_utf8_lossy(&self.unread[..end]));
            self.unread.drain(..end + 4);
            self.head = Some(head);
        }
        self.unframe();
        self.unwrap_envelopes();
        if self.over {
            let reusable = self.head.as_ref().is_some_and(|head| head.reusable);
            self.reusable = reusable && self.unread.is_empty();
        }
    }

    /// The connection has ended.
    fn closed(&mut self) {
        let framing = self.head.as_ref().map(|head| head.framing);
        self.over |= framing == Some(Framing::UntilClose);
    }

    fn unframe(&mut self) {
        let Some(head) = &mut self.head else {
            return;
        };
        match &mut head.framing {
            Framing::UntilClose => self.body.append(&mut self.unread),
            Framing::Length(left) => {
                let taken = (*left).min(self.unread.len());
                self.body.extend(self.unread.drain(..taken));
                *left -= taken;
                self.over = *left == 0;
            }
            Framing::Chunked => loop {
                if self.chunk > 0 {
                    let taken = self.chunk.min(self.unread.len());
                    // The last two are a line end.
                    let data = taken.min(self.chunk.saturating_sub(2));
                    self.body.extend(&self.unread[..data]);
                    self.unread.drain(..taken);
                    self.chunk -= taken;
                    if self.chunk > 0 {
                        return;
                    }
                }
                let Some(end) = find(&self.unread, b"\r\n") else {
                    return;
                };
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                let size = line.split(';').next().unwrap_or_default().trim();
                let Ok(size) = usize::from_str_radix(size, 16) else {
                    return;
                };
                if size == 0 {
                    // No trailer fields are expected; without them a line end is the last.
                    if let Some(last) = find(&self.unread[end..], b"\r\n\r\n") {
                        self.unread.drain(..end + last + 4);
                        self.over = true;
                    }
                    return;
                }
                self.unread.drain(..end + 2);
                self.chunk = size + 2;
            },
        }
    }

    fn unwrap_envelopes(&mut self) {
        while let Some(&[flags, a, b, c, d]) = self.body.first_chunk() {
            let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
            if self.body.len() < end {
                return;
            }
            let payload = self.body[5..end].to_vec();
            self.body.drain(..end);
            if flags & 0x80 == 0 {
                self.messages.push(payload);
            } else {
                self.trailers = Some(status_in(&String::from_utf8_lossy(&payload)));
            }
        }
    }

    fn ending(&self, name: &[u8]) -> Ending {
        let Some(head) = &self.head else {
            return Ending::Cut;
        };
        let status = self.trailers.flatten().or(head.status);
        match status {
            Some(0) if self.messages != [name] || !self.body.is_empty() => Ending::Untrue,
            Some(code) => Ending::Status(code),
            None if head.code != 200 => Ending::Http(head.code),
            None => Ending::Silent,
        }
    }
}

impl Head {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let code = lines.next().and_then(|line| line.split(' ').nth(1));
        let code = code.and_then(|code| code.parse().ok()).unwrap_or_default();
        let mut framing = Framing::UntilClose;
        let mut reusable = true;
        for (name, value) in fields(text) {
            match name.as_str() {
                "content-length" => {
                    framing = value.parse().map_or(framing, Framing::Length);
                }
                "transfer-encoding" => framing = Framing::Chunked,
                "connection" if value.eq_ignore_ascii_case("close") => reusable = false,
                _ => {}
            }
        }
        Self {
            code,
            framing,
            status: status_in(text),
            reusable: reusable && framing != Framing::UntilClose,
        }
    }
}

fn fields(text: &str) -> impl Iterator<Item = (String, &str)> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
}

fn status_in(text: &str) -> Option<u32> {
    let found = fields(text).find(|(name, _)| name == "grpc-status");
    found.and_then(|(_, value)| value.parse().ok())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web+proto\r\n";

    fn ending(answer: &[u8]) -> Ending {
        let mut ends = Vec::new();
        // Whole, and byte by byte.
        for size in [answer.len().max(1), 1] {
            let mut own = Answer::default();
            for piece in answer.chunks(size) {
                own.feed(piece);
            }
            own.closed();
            ends.push(if own.over {
                own.ending(b"me")
            } else {
                Ending::Cut
            });
        }
        assert_eq!(ends[0], ends[1]);
        ends[0]
    }

    fn trailer_frame(text: &str) -> Vec<u8> {
        let mut frame = vec![0x80, 0, 0, 0, text.len() as u8];
        frame.extend(text.as_bytes());
        frame
    }

    fn with_length(body: &[u8]) -> Vec<u8> {
        let head = format!("{HEAD}content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    fn chunked(body: &[u8]) -> Vec<u8> {
        let mut answer = format!("{HEAD}transfer-encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.chunks(3) {
            answer.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend(chunk);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        answer
    }

    #[test]
    fn an_answer_is_read_as_it_stands_whatever_frames_it() {
        let good = [envelope(b"me"), trailer_frame("grpc-status: 0\r\n")].concat();
        let crossed = [envelope(b"you"), trailer_frame("grpc-status: 0\r\n")].concat();
        let twice = [envelope(b"me"), good.clone()].concat();
        let failed = trailer_frame("grpc-status:14\r\ngrpc-message:gone\r\n");
        for (body, expected) in [
            (&good, Ending::Status(0)),
            (&crossed, Ending::Untrue),
            (&twice, Ending::Untrue),
            (&failed, Ending::Status(14)),
            (&envelope(b"me"), Ending::Silent),
        ] {
            assert_eq!(ending(&with_length(body)), expected);
            assert_eq!(ending(&chunked(body)), expected);
            let until_close = [HEAD.as_bytes(), b"\r\n", body].concat();
            assert_eq!(ending(&until_close), expected);
        }
        let whole = chunked(&good);
        for cut in 0..whole.len() {
            assert_eq!(ending(&whole[..cut]), Ending::Cut, "at {cut}");
        }
    }

    #[test]
    fn an_answer_without_a_body_may_have_its_status_in_the_head() {
        let head = format!("{HEAD}grpc-status: 8\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(ending(head.as_bytes()), Ending::Status(8));
        let bad = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno";
        assert_eq!(ending(bad), Ending::Http(502));
        assert_eq!(ending(b""), Ending::Cut);
    }
}
