//! The server's side of HTTP/2 (RFC 9113), frame by frame: what it sends is what the test says and nothing else, what it
//! receives is told in order. It keeps to no rule by itself, so that it can break each of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS,
    INITIAL_WINDOW_SIZE, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Way, block, frame,
    number, settings_payload,
};
use crate::world::PATIENCE;

/// A port that a scripted server listens on.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    listener: Option<TcpListener>,
}

impl Backend {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        Self {
            address: listener.local_addr().expect("it is bound"),
            listener: Some(listener),
        }
    }

    /// Somewhere else's address.
    pub(crate) fn named(address: SocketAddr) -> Self {
        Self {
            address,
            listener: None,
        }
    }

    /// An address where nobody listens.
    pub(crate) fn nobody() -> Self {
        Self::named(Self::new().address)
    }

    /// The next connection, greeted with no limits worth the name.
    pub(crate) fn accept(&self) -> Peer {
        self.accept_with(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)])
    }

    /// The next connection, greeted with those settings.
    pub(crate) fn accept_with(&self, settings: &[(u16, u32)]) -> Peer {
        Self::greet(self.accept_silently(), settings)
    }

    fn greet(mut peer: Peer, settings: &[(u16, u32)]) -> Peer {
        peer.settings(settings);
        // All there is, for the connection.
        let more = ((1u32 << 31) - 1 - 65_535).to_be_bytes();
        peer.frame(WINDOW_UPDATE, 0, 0, &more);
        peer
    }

    /// The next connection. Its preface has been read, nothing has been sent.
    pub(crate) fn accept_silently(&self) -> Peer {
        Peer::new(self.accept_within(PATIENCE).expect("a connection"))
    }

    /// The next connection, and its preface, while `turn` makes a core go on.
    pub(crate) fn accept_turning(&self, mut turn: impl FnMut()) -> Peer {
        const STEP: Duration = Duration::from_millis(5);
        let socket = loop {
            turn();
            if let Some(socket) = self.accept_within(STEP) {
                break socket;
            }
        };
        socket.set_read_timeout(Some(STEP)).expect("a timeout");
        while socket.peek(&mut [0; 24]).ok() != Some(24) {
            turn();
        }
        Self::greet(Peer::new(socket), &[])
    }

    /// The next connection, greeted, if one comes soon.
    pub(crate) fn accept_soon(&self) -> Option<Peer> {
        let socket = self.accept_within(Duration::from_millis(50))?;
        Some(Self::greet(Peer::new(socket), &[]))
    }

    /// Whether nobody connects for that long.
    pub(crate) fn is_left_alone(&self, time: Duration) -> bool {
        self.accept_within(time).is_none()
    }

    fn accept_within(&self, time: Duration) -> Option<TcpStream> {
        let listener = self.listener.as_ref().expect("a listening one");
        let limit = SockRef::from(listener).set_read_timeout(Some(time));
        limit.expect("a timeout");
        let (socket, _) = listener.accept().ok()?;
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Some(socket)
    }
}

/// What has come from the proxy. SETTINGS, their acknowledgements and window updates are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Head {
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Pong,
    GoAway,
    End,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field_of(&self.fields, name)
    }
}

pub(crate) fn field_of<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(own, _)| own == name);
    found.map(|(_, value)| value.as_str())
}

/// The server's end of a connection.
pub(crate) struct Peer {
    socket: TcpStream,
    frames: Frames,
}

impl Peer {
    fn new(mut socket: TcpStream) -> Self {
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).expect("a preface");
        assert_eq!(&preface, PREFACE);
        Self {
            socket,
            frames: Frames::new(),
        }
    }

    /// What comes next; fails the test if nothing does.
    pub(crate) fn next(&mut self) -> Seen {
        self.next_within(PATIENCE).expect("a frame")
    }

    /// What comes next, if it comes in time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Seen> {
        let limit = self.socket.set_read_timeout(Some(time));
        limit.expect("a timeout");
        loop {
            match self.frames.read(&mut self.socket)? {
                None => return Some(Seen::End),
                Some(frame) => {
                    if let Some(seen) = self.understand(&frame) {
                        return Some(seen);
                    }
                }
            }
        }
    }

    /// What comes next for those who count all windows: which one has grown by how much (0 is the connection's), or something
    /// else.
    pub(crate) fn next_or_windows(&mut self, time: Duration) -> Option<Result<(u32, u32), Seen>> {
        let limit = self.socket.set_read_timeout(Some(time));
        limit.expect("a timeout");
        loop {
            let Some(frame) = self.frames.read(&mut self.socket)? else {
                return Some(Err(Seen::End));
            };
            if frame.kind == WINDOW_UPDATE {
                return Some(Ok((frame.stream, number(&frame.payload))));
            }
            if let Some(seen) = self.understand(&frame) {
                return Some(Err(seen));
            }
        }
    }

    /// What comes next for those who count their window: how much more may be sent on `own`, or something else.
    pub(crate) fn next_or_window(&mut self, own: u32, time: Duration) -> Option<Result<u32, Seen>> {
        let limit = self.socket.set_read_timeout(Some(time));
        limit.expect("a timeout");
        loop {
            let Some(frame) = self.frames.read(&mut self.socket)? else {
                return Some(Err(Seen::End));
            };
            if frame.kind == WINDOW_UPDATE && frame.stream == own {
                return Some(Ok(number(&frame.payload)));
            }
            if let Some(seen) = self.understand(&frame) {
                return Some(Err(seen));
            }
        }
    }

    /// The next request, which must come whole and alone.
    pub(crate) fn request(&mut self) -> Request {
        let next = self.next();
        self.request_of(next)
    }

    /// The next request on a connection where the proxy may or may not have given `own` up without an error first: it does when
    /// it has seen the whole answer, and need not any more when it has seen the backend's own reset beside it.
    pub(crate) fn request_after(&mut self, own: u32) -> Request {
        let next = match self.next() {
            Seen::Reset { stream, code: 0 } if stream == own => self.next(),
            other => other,
        };
        self.request_of(next)
    }

    /// The request that begins with what was seen, which must come whole and alone.
    pub(crate) fn request_of(&mut self, seen: Seen) -> Request {
        match seen {
            Seen::Head {
                stream,
                fields,
                end: false,
            } => Request {
                stream,
                fields,
                body: self.body(stream),
            },
            other => panic!("instead of a head: {other:?}"),
        }
    }

    /// So many whole requests, whose frames may be mixed, in the order of their heads.
    pub(crate) fn requests(&mut self, count: usize) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        let mut open = count;
        while open > 0 {
            match self.next() {
                Seen::Head {
                    stream,
                    fields,
                    end: false,
                } => requests.push(Request {
                    stream,
                    fields,
                    body: Vec::new(),
                }),
                Seen::Data { stream, bytes, end } => {
                    let own = requests.iter_mut().find(|own| own.stream == stream);
                    own.expect("a head first").body.extend(bytes);
                    open -= usize::from(end);
                }
                other => panic!("instead of a request: {other:?}"),
            }
        }
        assert_eq!(requests.len(), count);
        requests
    }

    /// What is still to come of a request, to its end.
    pub(crate) fn body(&mut self, own: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            match self.next() {
                Seen::Data { stream, bytes, end } if stream == own => {
                    body.extend(bytes);
                    if end {
                        return body;
                    }
                }
                other => panic!("instead of data of {own}: {other:?}"),
            }
        }
    }

    /// How the values of that name stood in the last head.
    pub(crate) fn ways(&self, name: &str) -> Vec<Way> {
        let ways = self.frames.ways.iter();
        ways.filter_map(|(own, way)| (own == name).then_some(*way))
            .collect()
    }

    /// How long the last head was as HPACK wrote it, bytes.
    pub(crate) fn block_bytes(&self) -> usize {
        self.frames.block_bytes
    }

    /// Proves that nothing is on its way: what the proxy has sent before it answers a PING came before the answer.
    pub(crate) fn assert_quiet(&mut self) {
        self.frame(PING, 0, 0, b"anything");
        assert_eq!(self.next(), Seen::Pong, "something came unasked");
    }

    pub(crate) fn assert_reset(&mut self, stream: u32, code: u32) {
        assert_eq!(self.next(), Seen::Reset { stream, code });
    }

    pub(crate) fn settings(&mut self, settings: &[(u16, u32)]) {
        self.frame(SETTINGS, 0, 0, &settings_payload(settings));
    }

    /// A head; the fields stand in it as they are.
    pub(crate) fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields));
    }

    /// The head of an ordinary gRPC answer.
    pub(crate) fn grpc_head(&mut self, stream: u32) {
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        self.head(stream, &fields, false);
    }

    pub(crate) fn trailers(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.head(stream, fields, true);
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let mut pieces = bytes.chunks(16 << 10).peekable();
        if pieces.peek().is_none() {
            let flags = if end { END_STREAM } else { 0 };
            return self.frame(DATA, flags, stream, b"");
        }
        while let Some(piece) = pieces.next() {
            let last = end && pieces.peek().is_none();
            let flags = if last { END_STREAM } else { 0 };
            self.frame(DATA, flags, stream, piece);
        }
    }

    pub(crate) fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    pub(crate) fn go_away(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(GOAWAY, 0, 0, &payload);
    }

    /// A whole good answer of one message.
    pub(crate) fn answer(&mut self, stream: u32, body: &[u8]) {
        self.grpc_head(stream);
        self.data(stream, body, false);
        self.trailers(stream, &[("grpc-status", "0")]);
    }

    /// A frame as it stands.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the proxy reads");
    }

    /// Sends as much as is taken: a proxy that is attacked may have closed.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        let limit = self.socket.set_write_timeout(Some(PATIENCE));
        limit.expect("a timeout");
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends until that much time passes without a byte being taken. How much was taken.
    pub(crate) fn send_within(&mut self, bytes: &[u8], time: Duration) -> usize {
        let limit = self.socket.set_write_timeout(Some(time));
        limit.expect("a timeout");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("cannot write to the proxy: {error}"),
            }
        }
        let limit = self.socket.set_write_timeout(Some(PATIENCE));
        limit.expect("a timeout");
        sent
    }

    /// Sends while the test reads.
    pub(crate) fn send_beside(&self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut socket = self.socket.try_clone().expect("another handle");
        thread::spawn(move || socket.write_all(&bytes).expect("the proxy reads"))
    }

    /// A head or trailers in as many frames as it takes; whether all of it was taken.
    pub(crate) fn try_long_head(
        &mut self,
        stream: u32,
        fields: &[(&str, &str)],
        end: bool,
    ) -> bool {
        let block = block(fields);
        let count = block.len().div_ceil(16 << 10);
        block.chunks(16 << 10).enumerate().all(|(index, piece)| {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let ends_stream = if index == 0 && end { END_STREAM } else { 0 };
            let ends_head = if index + 1 == count { END_HEADERS } else { 0 };
            self.try_raw(&frame(kind, ends_stream | ends_head, stream, piece))
        })
    }

    /// Waits until the proxy has closed the connection; whatever it still says is not of interest.
    pub(crate) fn assert_closed(&mut self) {
        while self.next() != Seen::End {}
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

    fn understand(&mut self, frame: &Frame) -> Option<Seen> {
        let (stream, end) = (frame.stream, frame.has(END_STREAM));
        match frame.kind {
            HEADERS => Some(Seen::Head {
                stream,
                fields: self.frames.fields(frame),
                end,
            }),
            DATA => {
                let bytes = frame.payload.clone();
                Some(Seen::Data { stream, bytes, end })
            }
            RST_STREAM => {
                let code = number(&frame.payload);
                Some(Seen::Reset { stream, code })
            }
            SETTINGS if !frame.has(ACK) => {
                self.try_raw(&crate::frames::frame(SETTINGS, ACK, 0, b""));
                None
            }
            PING if frame.has(ACK) => Some(Seen::Pong),
            GOAWAY => Some(Seen::GoAway),
            SETTINGS | WINDOW_UPDATE => None,
            other => panic!("a frame of type {other}"),
        }
    }
}
