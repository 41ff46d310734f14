//! A browser's side of HTTP/1.1, byte by byte: it says what the test says, and takes an answer apart without forgiving
//! anything.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::world::PATIENCE;

/// No socket is asked to wait for less; for nothing at all it cannot be asked.
const A_TICK: Duration = Duration::from_millis(1);
/// What a call asks for where the test does not care.
pub(crate) const PATH: &str = "/demo.Greeter/Greet";
/// The head of an answer whose length is not known before its end.
pub(crate) const STREAMED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web\r\n\
                            transfer-encoding: chunked\r\n\r\n";

/// An answer, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// From the status line to the empty line.
    pub(crate) head: String,
    /// Without chunks.
    pub(crate) body: Vec<u8>,
    /// Its framing says that this was all. If not, the connection ended in the middle.
    pub(crate) whole: bool,
}

/// One connection of a client.
pub(crate) struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the proxy listens"))
    }

    fn of(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    /// One whose kernel takes little that is not read, so that what it leaves unread waits at the proxy.
    pub(crate) fn narrow(address: SocketAddr, bytes: usize) -> Self {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )
        .expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a size");
        socket.connect(&address.into()).expect("the proxy listens");
        Self::of(socket.into())
    }

    /// A new connection that has made a whole call.
    pub(crate) fn calling(address: SocketAddr, body: &[u8]) -> Self {
        let mut client = Self::new(address);
        client.post("", body);
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the proxy reads");
    }

    /// Sends as much as is taken: a proxy may have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// A whole call. `fields`: lines that end with CRLF.
    pub(crate) fn post(&mut self, fields: &str, body: &[u8]) {
        self.send(&request(fields, body));
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head().expect("an answer");
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find_map(|(own, value)| (own == name).then(|| value.to_owned()))
        };
        let mut body = Vec::new();
        let whole = if let Some(length) = field("content-length") {
            let length = length.parse().expect("a number");
            let piece = self.take(length);
            let whole = piece.len() == length;
            body = piece;
            whole
        } else if field("transfer-encoding").is_some() {
            self.chunks(&mut body)
        } else if head.starts_with("HTTP/1.1 1") || head.starts_with("HTTP/1.1 204 ") {
            true
        } else {
            body = self.take(usize::MAX);
            true
        };
        Answer { head, body, whole }
    }

    /// Whether nothing comes any more, and nothing came: the end of the connection, or a reset of it.
    pub(crate) fn was_dropped(&mut self) -> bool {
        self.take(1).is_empty()
    }

    /// An answer to HEAD: a head and nothing else.
    pub(crate) fn bare_head(&mut self) -> String {
        self.head().expect("an answer")
    }

    /// So many bytes of the answer's content, without waiting for more. Chunks are taken apart.
    pub(crate) fn chunked_start(&mut self, bytes: usize) -> (String, Vec<u8>) {
        let head = self.head().expect("an answer");
        let mut body = Vec::new();
        while body.len() < bytes {
            let length = self.chunk_length().expect("a chunk");
            assert_ne!(length, 0, "the answer ended");
            body.extend(self.take(length));
            assert_eq!(self.take(2), b"\r\n");
        }
        (head, body)
    }

    /// The rest of an answer that [`Client::chunked_start`] has begun, and whether its end came.
    pub(crate) fn chunked_rest(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        let whole = self.chunks(&mut body);
        (body, whole)
    }

    /// Reads so many bytes, whatever they are. False: the connection ended first.
    pub(crate) fn skip(&mut self, bytes: usize) -> bool {
        self.take(bytes).len() == bytes
    }

    /// Whether nothing comes for that long.
    pub(crate) fn is_left_alone(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut alone = self.unread.is_empty();
        // The kernel counts in ticks, and may give up a little early.
        while alone && let Some(left) = until.checked_duration_since(Instant::now()) {
            let limit = self.socket.set_read_timeout(Some(left.max(A_TICK)));
            limit.expect("a timeout");
            let read = self.socket.peek(&mut [0]);
            alone = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        }
        let limit = self.socket.set_read_timeout(Some(PATIENCE));
        limit.expect("a timeout");
        alone
    }

    /// The proxy has closed the connection and said nothing more.
    pub(crate) fn assert_closed(&mut self) {
        let rest = self.take(usize::MAX);
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    /// These bytes come next.
    pub(crate) fn assert_next(&mut self, bytes: &[u8]) {
        let next = self.take(bytes.len());
        assert_eq!(
            next.escape_ascii().to_string(),
            bytes.escape_ascii().to_string()
        );
    }

    /// Says that no more will come, and goes on listening.
    pub(crate) fn finish(&self) {
        let shut = self.socket.shutdown(Shutdown::Write);
        shut.expect("an open socket");
    }

    /// Resets the connection.
    pub(crate) fn abort(self) {
        let linger = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        linger.expect("a socket option");
    }

    /// The head of an answer, as it stands.
    pub(crate) fn raw_head(&mut self) -> Vec<u8> {
        self.head_bytes().expect("an answer")
    }

    fn head(&mut self) -> Option<String> {
        let head = self.head_bytes()?;
        Some(String::from_utf8(head).expect("an ASCII head"))
    }

    fn head_bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                return Some(self.take(end + 4));
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "half a head");
                return None;
            }
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        while let Some(length) = self.chunk_length() {
            if length == 0 {
                assert_eq!(self.take(2), b"\r\n", "no trailers");
                return true;
            }
            let piece = self.take(length);
            let whole = piece.len() == length;
            body.extend(piece);
            if !whole {
                return false;
            }
            assert_eq!(self.take(2), b"\r\n");
        }
        false
    }

    fn chunk_length(&mut self) -> Option<usize> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2);
                let digits = std::str::from_utf8(&line[..end]).expect("ASCII");
                return Some(usize::from_str_radix(digits, 16).expect("a chunk's length"));
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "half a chunk's length");
                return None;
            }
        }
    }

    /// So many bytes, or what there was before the end.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.unread.len() < bytes && self.fill() {}
        let rest = self.unread.split_off(bytes.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        match self.socket.read(&mut bytes) {
            Ok(n) => {
                self.unread.extend(&bytes[..n]);
                n > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("cannot read from the proxy: {error}"),
        }
    }
}

/// A whole call on the wire. `fields`: lines that end with CRLF.
pub(crate) fn request(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: application/grpc-web\r\n\
         {fields}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// One message in its envelope.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    envelope(0, payload)
}

/// The frame that ends an answer.
pub(crate) fn trailer_frame(lines: &str) -> Vec<u8> {
    envelope(0x80, lines.as_bytes())
}

/// The whole answer that is one trailer frame.
pub(crate) fn alone(lines: &str) -> Answer {
    alone_and(lines, "")
}

/// The same, after which the connection closes.
pub(crate) fn last(lines: &str) -> Answer {
    alone_and(lines, "connection: close\r\n")
}

fn alone_and(lines: &str, fields: &str) -> Answer {
    let body = trailer_frame(lines);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc-web\r\ncontent-length: {length}\r\n{fields}\r\n"
    );
    Answer {
        head,
        body,
        whole: true,
    }
}

/// An answer in chunks, with that content.
pub(crate) fn streamed(pieces: &[&[u8]]) -> Answer {
    Answer {
        head: STREAMED.to_owned(),
        body: pieces.concat(),
        whole: true,
    }
}

/// The same, cut.
pub(crate) fn cut(pieces: &[&[u8]]) -> Answer {
    Answer {
        whole: false,
        ..streamed(pieces)
    }
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&[flags][..], &length.to_be_bytes(), payload].concat()
}
