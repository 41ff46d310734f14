//! A client's side of HTTP/2 (RFC 9113), frame by frame: what it sends is what the test says and nothing else, what it hears is
//! told in order. It keeps to no rule by itself, so that it can break each of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::client::PATH;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PADDED, PING,
    PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, number, settings_payload,
};
use crate::world::PATIENCE;

/// What a frame may hold where nobody has said otherwise, bytes.
const FRAME_MAX: usize = 16 << 10;

/// The head of an ordinary call.
pub(crate) const CALL: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "wharf.test"),
    ("content-type", "application/grpc-web"),
];

/// What has come from the proxy. SETTINGS, their acknowledgements and window updates are counted and left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
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
    GoAway {
        last: u32,
        code: u32,
    },
    End,
}

/// An answer, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// END_STREAM came. If not, it was reset, or the connection ended.
    pub(crate) whole: bool,
    /// What it was reset with.
    pub(crate) reset: Option<u32>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Its status and its content as text.
    pub(crate) fn told(&self) -> (&str, String) {
        let text = self.body.escape_ascii().to_string();
        (self.field(":status").unwrap_or_default(), text)
    }
}

/// One connection of a client.
pub(crate) struct Caller {
    socket: TcpStream,
    frames: Frames,
    /// The next stream.
    next: u32,
    /// How much window was given, by stream; 0: the connection's.
    pub(crate) windows: BTreeMap<u32, u64>,
    /// How many SETTINGS of ours were acknowledged.
    pub(crate) acknowledged: usize,
    /// Whether the proxy's SETTINGS are acknowledged.
    pub(crate) acknowledges: bool,
}

impl Caller {
    /// A connection that has said its preface and SETTINGS without a word in them.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    /// The same with those settings.
    pub(crate) fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::greet(TcpStream::connect(address).expect("it listens"), settings)
    }

    /// One whose kernel takes little that is not read.
    pub(crate) fn narrow(address: SocketAddr, bytes: usize, settings: &[(u16, u32)]) -> Self {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a size");
        socket.connect(&address.into()).expect("the proxy listens");
        Self::greet(socket.into(), settings)
    }

    /// A connection on which nothing has been said.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the proxy listens"))
    }

    fn greet(socket: TcpStream, settings: &[(u16, u32)]) -> Self {
        let mut own = Self::of(socket);
        own.raw(PREFACE);
        own.frame(SETTINGS, 0, 0, &settings_payload(settings));
        own
    }

    fn of(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            frames: Frames::new(),
            next: 1,
            windows: BTreeMap::new(),
            acknowledged: 0,
            acknowledges: true,
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the proxy reads");
    }

    /// Sends as much as is taken: a proxy that is attacked may have closed.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends as much as the kernel takes within that time. How much it was.
    pub(crate) fn send_within(&mut self, bytes: &[u8], time: Duration) -> usize {
        let limit = self.socket.set_write_timeout(Some(time));
        limit.expect("a timeout");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        let limit = self.socket.set_write_timeout(Some(PATIENCE));
        limit.expect("a timeout");
        sent
    }

    /// A frame as it stands.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload));
    }

    pub(crate) fn settings(&mut self, settings: &[(u16, u32)]) {
        self.frame(SETTINGS, 0, 0, &settings_payload(settings));
    }

    /// The number of a stream that is still to be opened.
    pub(crate) fn fresh(&mut self) -> u32 {
        let own = self.next;
        self.next += 2;
        own
    }

    /// A head on a new stream.
    pub(crate) fn open(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.fresh();
        self.raw(&head(stream, fields, end));
        stream
    }

    /// A whole call on a new stream.
    pub(crate) fn call(&mut self, body: &[u8]) -> u32 {
        let stream = self.fresh();
        self.raw(&call(stream, body));
        stream
    }

    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let flags = if end { END_STREAM } else { 0 };
        self.frame(DATA, flags, stream, bytes);
    }

    pub(crate) fn window(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    pub(crate) fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Says that no more will come, and goes on listening.
    pub(crate) fn finish(&self) {
        let shut = self.socket.shutdown(Shutdown::Write);
        shut.expect("an open socket");
    }

    /// What comes next; fails the test if nothing does.
    pub(crate) fn next(&mut self) -> Heard {
        self.next_within(PATIENCE).expect("a frame")
    }

    /// What comes next, if it comes in time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Heard> {
        let limit = self.socket.set_read_timeout(Some(time));
        limit.expect("a timeout");
        loop {
            match self.frames.read(&mut self.socket)? {
                None => return Some(Heard::End),
                Some(frame) => {
                    if let Some(heard) = self.understand(&frame) {
                        return Some(heard);
                    }
                }
            }
        }
    }

    /// The answer on that stream; nothing else may come before its end.
    pub(crate) fn answer(&mut self, own: u32) -> Answer {
        let mut answer = Answer::default();
        loop {
            match self.next() {
                Heard::Head {
                    stream,
                    fields,
                    end,
                } if stream == own => {
                    answer.fields.extend(fields);
                    answer.whole = end;
                }
                Heard::Data { stream, bytes, end } if stream == own => {
                    answer.body.extend(bytes);
                    answer.whole = end;
                }
                Heard::Reset { stream, code } if stream == own => {
                    answer.reset = Some(code);
                    return answer;
                }
                Heard::End => return answer,
                other => panic!("instead of the answer on {own}: {other:?}"),
            }
            if answer.whole {
                return answer;
            }
        }
    }

    /// The stream is reset with that code, and nothing is said before it.
    pub(crate) fn assert_reset(&mut self, stream: u32, code: u32) {
        assert_eq!(self.next(), Heard::Reset { stream, code });
    }

    /// The connection ends with a GOAWAY of that code; what comes before it is of no interest.
    pub(crate) fn assert_turned_out(&mut self, code: u32) {
        assert_eq!(self.last_words().last().map(|(_, code)| *code), Some(code));
    }

    /// Sends that content in DATA frames of `piece` bytes, padded by so much where padding is wanted, as far as the windows allow,
    /// and waits for more where they do not.
    pub(crate) fn upload(&mut self, stream: u32, bytes: &[u8], piece: usize, padding: Option<u8>) {
        const BATCH: usize = 16 << 10;
        let mut out = Vec::new();
        let mut sent = 0;
        for piece in bytes.chunks(piece) {
            let mut payload: Vec<u8> = padding.into_iter().collect();
            payload.extend(piece);
            payload.resize(payload.len() + usize::from(padding.unwrap_or_default()), 0);
            let flags = if padding.is_some() { PADDED } else { 0 };
            let length = payload.len() as u64;
            let given = |own: &Self, whose| own.windows.get(&whose).copied().unwrap_or_default();
            while sent + length > 65_535 + given(self, stream).min(given(self, 0)) {
                self.raw(&std::mem::take(&mut out));
                self.hear_window();
            }
            sent += length;
            out.extend(frame(DATA, flags, stream, &payload));
            if out.len() >= BATCH {
                self.raw(&std::mem::take(&mut out));
            }
        }
        self.raw(&out);
    }

    /// Waits until some window grows.
    fn hear_window(&mut self) {
        loop {
            let frame = self.frames.read(&mut self.socket);
            let frame = frame.expect("a frame").expect("no end");
            let heard = self.understand(&frame);
            assert_eq!(heard, None, "instead of window");
            if frame.kind == WINDOW_UPDATE {
                return;
            }
        }
    }

    /// All GOAWAYs until the connection ends: the last stream of each and its code.
    pub(crate) fn last_words(&mut self) -> Vec<(u32, u32)> {
        let mut words = Vec::new();
        loop {
            match self.next() {
                Heard::GoAway { last, code } => words.push((last, code)),
                Heard::End => return words,
                _ => {}
            }
        }
    }

    /// Proves that nothing is on its way: what the proxy has sent before it answers a PING came before the answer. What a turn
    /// stages goes behind that, so it is asked twice.
    pub(crate) fn assert_quiet(&mut self) {
        for _ in 0..2 {
            self.frame(PING, 0, 0, b"anything");
            assert_eq!(self.next(), Heard::Pong, "something came unasked");
        }
    }

    fn understand(&mut self, frame: &Frame) -> Option<Heard> {
        let (stream, end) = (frame.stream, frame.has(END_STREAM));
        let payload = &frame.payload;
        match frame.kind {
            HEADERS => Some(Heard::Head {
                stream,
                fields: self.frames.fields(frame),
                end,
            }),
            DATA => {
                let bytes = payload.clone();
                Some(Heard::Data { stream, bytes, end })
            }
            RST_STREAM => {
                let code = number(payload);
                Some(Heard::Reset { stream, code })
            }
            SETTINGS if !frame.has(ACK) => {
                if self.acknowledges {
                    self.try_raw(&crate::frames::frame(SETTINGS, ACK, 0, b""));
                }
                None
            }
            SETTINGS => {
                self.acknowledged += 1;
                None
            }
            // Asked by a drain; the test that wants no answer reads no further.
            PING if !frame.has(ACK) => {
                if self.acknowledges {
                    self.try_raw(&crate::frames::frame(PING, ACK, 0, payload));
                }
                None
            }
            PING => Some(Heard::Pong),
            GOAWAY => Some(Heard::GoAway {
                last: number(payload),
                code: number(&payload[4..]),
            }),
            WINDOW_UPDATE => {
                *self.windows.entry(stream).or_default() += u64::from(number(payload));
                None
            }
            other => panic!("a frame of type {other}"),
        }
    }
}

/// A head as it goes on the wire.
pub(crate) fn head(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    head_of(stream, &block(fields), end)
}

/// A head whose field block stands there already.
pub(crate) fn head_of(stream: u32, block: &[u8], end: bool) -> Vec<u8> {
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, block)
}

/// A head in as many frames as it takes.
pub(crate) fn long_head(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let block = block(fields);
    let count = block.chunks(FRAME_MAX).count();
    let mut bytes = Vec::new();
    for (index, piece) in block.chunks(FRAME_MAX).enumerate() {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let ends_stream = if index == 0 && end { END_STREAM } else { 0 };
        let ends_head = if index + 1 == count { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, ends_stream | ends_head, stream, piece));
    }
    bytes
}

/// A whole call as it goes on the wire.
pub(crate) fn call(stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = head(stream, &CALL, false);
    bytes.extend(frame(DATA, END_STREAM, stream, body));
    bytes
}

/// The head of an ordinary call, with more fields.
pub(crate) fn call_with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&CALL[..], more].concat()
}
