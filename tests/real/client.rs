//! A gRPC-Web caller over a plain socket, strict where browsers are lenient.
//!
//! Owns HTTP/1.1 and gRPC-Web as a client reads them, and panics on every byte that should not be there: a frame after the
//! trailers, a head with both framings, a chunk that is not whole. Never retries, never repairs.
//! Sources: RFC 9112; grpc/grpc `doc/PROTOCOL-WEB.md`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a call is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Binary,
    Text,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Call {
    path: String,
    mode: Mode,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call {
    /// A binary call of that method without a message.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: Mode::Binary,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The same in that mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// With one more field in its head.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more message.
    pub fn message(mut self, message: impl AsRef<[u8]>) -> Self {
        self.body.extend(frame(0, message.as_ref()));
        self
    }

    /// The whole request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (content_type, body) = match self.mode {
            Mode::Binary => ("application/grpc-web+proto", self.body.clone()),
            Mode::Text => (
                "application/grpc-web-text",
                STANDARD.encode(&self.body).into_bytes(),
            ),
        };
        let mut out = format!(
            "POST {} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: {content_type}\r\nx-grpc-web: 1\r\n",
            self.path
        );
        for (name, value) in &self.fields {
            out += &format!("{name}: {value}\r\n");
        }
        out += &format!("content-length: {}\r\n\r\n", body.len());
        let mut out = out.into_bytes();
        out.extend(body);
        out
    }

    /// Makes the call over a connection of its own and reads the answer to its end.
    pub fn make(&self, address: SocketAddr) -> Answer {
        let mut connection = Connection::open(address);
        connection.send(&self.to_bytes());
        connection.answer()
    }

    /// Makes the call over a connection of its own and reads the answer's head.
    pub fn begin(&self, address: SocketAddr) -> Answering {
        let mut connection = Connection::open(address);
        connection.send(&self.to_bytes());
        connection.begin()
    }
}

/// One frame: flags, length, bytes.
pub fn frame(flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
    out
}

/// A connection to wharf.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub fn open(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).expect("wharf takes connections");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("SO_RCVTIMEO");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("wharf reads");
    }

    /// Sends it one byte per segment.
    pub fn trickle(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(std::slice::from_ref(byte));
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("half close");
    }

    /// Reads one answer to its end.
    pub fn answer(&mut self) -> Answer {
        let (head, body) = self.read_head_of_body();
        let mut reader = BodyReader::new(&head, body);
        let mut out = Answer {
            head,
            ..Answer::default()
        };
        while let Some(next) = reader.next(self) {
            out.take(next);
        }
        out
    }

    /// Reads an answer's head; its frames are asked for one by one.
    pub fn begin(mut self) -> Answering {
        let (head, body) = self.read_head_of_body();
        let reader = BodyReader::new(&head, body);
        Answering {
            connection: self,
            head,
            reader,
        }
    }

    /// Reads a head that is followed by no body of its own, as `100 Continue`'s is.
    pub fn interim(&mut self) -> Head {
        self.read_head()
    }

    /// Reads an answer that is no RPC's: its head and its whole body.
    pub fn plain(&mut self) -> (Head, Vec<u8>) {
        let (head, mut framing) = self.read_head_of_body();
        let mut body = Vec::new();
        while let Piece::Some(bytes) = self.read_body(&mut framing) {
            body.extend(bytes);
        }
        (head, body)
    }

    /// Whether the peer has closed the connection and nothing unread is left.
    pub fn is_over(&mut self) -> bool {
        self.unread.is_empty() && !self.fill()
    }

    fn read_head_of_body(&mut self) -> (Head, Framing) {
        let head = self.read_head();
        let length = head.all("content-length");
        let coding = head.all("transfer-encoding");
        let framing = match (length.as_slice(), coding.as_slice()) {
            ([length], []) => Framing::Length(length.parse().expect("a length is a number")),
            ([], ["chunked"]) => Framing::Chunked {
                left: 0,
                begun: false,
            },
            ([], []) => Framing::UntilClose,
            _ => panic!("this head frames its body twice: {head:?}"),
        };
        (head, framing)
    }

    fn read_head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection ended inside a head: {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        };
        let bytes: Vec<u8> = self.unread.drain(..end).collect();
        let text = String::from_utf8(bytes).expect("an answer's head is ASCII here");
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.1 ").expect("an HTTP/1.1 answer");
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a field has a colon");
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Head {
            status: status[..3].parse().expect("a status is a number"),
            fields,
        }
    }

    fn read_body(&mut self, framing: &mut Framing) -> Piece {
        match framing {
            Framing::Over => Piece::End,
            Framing::Length(0) => {
                *framing = Framing::Over;
                Piece::End
            }
            Framing::Length(left) => {
                if self.unread.is_empty() && !self.fill() {
                    return Piece::Cut;
                }
                let take = self.unread.len().min(*left);
                *left -= take;
                Piece::Some(self.unread.drain(..take).collect())
            }
            Framing::UntilClose => {
                if self.unread.is_empty() && !self.fill() {
                    *framing = Framing::Over;
                    return Piece::End;
                }
                Piece::Some(std::mem::take(&mut self.unread))
            }
            Framing::Chunked { left, begun } => {
                if *left == 0 {
                    if *begun {
                        match self.line() {
                            Some(line) => assert_eq!(line, "", "a chunk ends with an empty line"),
                            None => return Piece::Cut,
                        }
                    }
                    let Some(line) = self.line() else {
                        return Piece::Cut;
                    };
                    *left =
                        usize::from_str_radix(&line, 16).expect("a chunk's size is hexadecimal");
                    *begun = true;
                    if *left == 0 {
                        let line = self.line();
                        assert_eq!(line.as_deref(), Some(""), "no HTTP trailers are sent");
                        *framing = Framing::Over;
                        return Piece::End;
                    }
                }
                if self.unread.is_empty() && !self.fill() {
                    return Piece::Cut;
                }
                let take = self.unread.len().min(*left);
                *left -= take;
                Piece::Some(self.unread.drain(..take).collect())
            }
        }
    }

    /// The next line without its end; `None` if the connection ends first.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads once. False at the connection's end, however it ended.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.unread.extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading from wharf: {error}"),
        }
    }
}

#[derive(Debug)]
enum Framing {
    Length(usize),
    Chunked { left: usize, begun: bool },
    UntilClose,
    Over,
}

/// What a body gave.
enum Piece {
    Some(Vec<u8>),
    End,
    Cut,
}

/// An answer's head.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// Every value of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The one value of that name. Panics if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        one(&self.fields, name)
    }
}

fn all<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(at, _)| at == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

fn one<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let values = all(fields, name);
    assert!(
        values.len() < 2,
        "{name} is there {} times: {values:?}",
        values.len()
    );
    values.first().copied()
}

/// How an answer stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The body ended as its framing says.
    #[default]
    Clean,
    /// The connection went first.
    Cut,
}

/// One frame of an answer, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Message(Vec<u8>),
    /// A message whose flag says that it is compressed.
    Compressed(Vec<u8>),
    Trailers(Vec<(String, String)>),
    End(End),
}

/// An answer that was read to its end.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub head: Head,
    pub messages: Vec<Vec<u8>>,
    pub compressed: Vec<Vec<u8>>,
    pub trailers: Option<Vec<(String, String)>>,
    pub end: End,
}

impl Answer {
    fn take(&mut self, next: Next) {
        match next {
            Next::Message(bytes) => self.messages.push(bytes),
            Next::Compressed(bytes) => self.compressed.push(bytes),
            Next::Trailers(fields) => self.trailers = Some(fields),
            Next::End(end) => self.end = end,
        }
    }

    /// Every value of a trailer.
    pub fn trailers(&self, name: &str) -> Vec<&str> {
        all(self.trailers.as_deref().unwrap_or_default(), name)
    }

    /// The one value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        one(self.trailers.as_deref().unwrap_or_default(), name)
    }

    /// The status in the trailers frame. Panics if there is none.
    pub fn status(&self) -> u32 {
        let Some(status) = self.trailer("grpc-status") else {
            panic!("this answer has no status: {self:?}");
        };
        status.parse().expect("a status is a number")
    }

    /// `grpc-message`, percent-decoded; empty if there is none.
    pub fn status_message(&self) -> String {
        let raw = self.trailer("grpc-message").unwrap_or_default().as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < raw.len() {
            if raw[at] == b'%' {
                let digits = std::str::from_utf8(&raw[at + 1..at + 3]).expect("two digits");
                out.push(u8::from_str_radix(digits, 16).expect("an escape is hexadecimal"));
                at += 3;
            } else {
                out.push(raw[at]);
                at += 1;
            }
        }
        String::from_utf8(out).expect("a message is UTF-8")
    }

    /// Asserts the shape that every ended gRPC-Web answer has, whatever its status: HTTP 200, no status among the head's
    /// fields, one trailers frame, a clean end.
    pub fn assert_shape(&self) -> &Self {
        assert_eq!(self.head.status, 200, "{self:?}");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert_eq!(self.head.get(name), None, "{self:?}");
        }
        let content_type = self.head.get("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/grpc-web"), "{self:?}");
        assert!(self.trailers.is_some(), "{self:?}");
        assert_eq!(self.end, End::Clean, "{self:?}");
        self
    }
}

/// An answer whose head has come.
#[derive(Debug)]
pub struct Answering {
    connection: Connection,
    pub head: Head,
    reader: BodyReader,
}

impl Answering {
    /// Waits for the next frame. Panics after the end.
    pub fn next(&mut self) -> Next {
        self.reader
            .next(&mut self.connection)
            .expect("nothing is asked for after the end")
    }

    /// Waits for a message.
    pub fn message(&mut self) -> Vec<u8> {
        match self.next() {
            Next::Message(bytes) => bytes,
            other => panic!("a message was to come, not {other:?}"),
        }
    }

    /// Reads what is left.
    pub fn rest(mut self) -> Answer {
        let mut out = Answer {
            head: self.head.clone(),
            ..Answer::default()
        };
        while let Some(next) = self.reader.next(&mut self.connection) {
            out.take(next);
        }
        out
    }
}

/// Frames out of a body.
#[derive(Debug)]
struct BodyReader {
    framing: Framing,
    mode: Mode,
    /// Text mode: characters that are not yet a group of four.
    text: Vec<u8>,
    unread: Vec<u8>,
    trailers_seen: bool,
    ended: bool,
}

impl BodyReader {
    fn new(head: &Head, framing: Framing) -> Self {
        let text = head
            .get("content-type")
            .is_some_and(|value| value.starts_with("application/grpc-web-text"));
        Self {
            framing,
            mode: if text { Mode::Text } else { Mode::Binary },
            text: Vec::new(),
            unread: Vec::new(),
            trailers_seen: false,
            ended: false,
        }
    }

    fn next(&mut self, connection: &mut Connection) -> Option<Next> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(frame) = self.whole_frame() {
                return Some(frame);
            }
            match connection.read_body(&mut self.framing) {
                Piece::Some(bytes) => self.take(&bytes),
                Piece::End => {
                    assert!(
                        self.unread.is_empty() && self.text.is_empty(),
                        "a body ended cleanly inside a frame: {:?} {:?}",
                        self.unread,
                        String::from_utf8_lossy(&self.text)
                    );
                    self.ended = true;
                    return Some(Next::End(End::Clean));
                }
                Piece::Cut => {
                    self.ended = true;
                    return Some(Next::End(End::Cut));
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        match self.mode {
            Mode::Binary => self.unread.extend_from_slice(bytes),
            Mode::Text => {
                self.text.extend_from_slice(bytes);
                let whole = self.text.len() / 4 * 4;
                // Group by group: padding may stand in the middle of a body.
                for group in self.text[..whole].chunks(4) {
                    let decoded = STANDARD.decode(group).expect("an answer's text is base64");
                    self.unread.extend(decoded);
                }
                self.text.drain(..whole);
            }
        }
    }

    fn whole_frame(&mut self) -> Option<Next> {
        let (&[flags, a, b, c, d], rest) = self.unread.split_first_chunk::<5>()?;
        assert!(!self.trailers_seen, "a frame after the trailers");
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let bytes = rest.get(..length)?.to_vec();
        self.unread.drain(..5 + length);
        Some(match flags {
            0x00 => Next::Message(bytes),
            0x01 => Next::Compressed(bytes),
            0x80 => {
                self.trailers_seen = true;
                Next::Trailers(trailer_lines(&bytes))
            }
            flags => panic!("a frame with the flags {flags:#x}"),
        })
    }
}

fn trailer_lines(bytes: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(bytes).expect("trailers are ASCII");
    assert!(
        text.ends_with("\r\n") && !text.ends_with("\r\n\r\n"),
        "{text:?}"
    );
    text.split_terminator("\r\n")
        .map(|line| {
            assert!(
                line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{line:?} is not printable"
            );
            let (name, value) = line.split_once(':').expect("a trailer has a colon");
            assert_eq!(
                name,
                name.to_ascii_lowercase(),
                "trailer names are in lower case"
            );
            (name.to_owned(), value.trim_start().to_owned())
        })
        .collect()
}
