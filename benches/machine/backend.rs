//! A gRPC server's frames, as grpc-go sends them: a head with `content-type`, DATA, trailers with `grpc-status` and an empty
//! `grpc-message`, all fields in HPACK's table after the first answer. It reads no field of a request: the case says what is asked.

use std::collections::BTreeMap;

use wharf::wire::envelope::prefix;
use wharf::wire::http2::{FrameHead, PREFACE, flag, kind};

use super::memory::{Memory, Wire};
use super::{Answer, Case, frame};

const INITIAL_WINDOW_SIZE: u16 = 4;
const FRAME_BYTES_MAX: usize = 16 << 10;
/// What one stream may send us, bytes: more than any request.
const WINDOW_BYTES: u32 = 1 << 20;
/// What all together may send before they are given more, bytes.
const CONNECTION_BYTES: u32 = 1 << 30;
/// How much of streams goes out between two turns, bytes.
const STREAM_STEP_BYTES: usize = 16 << 10;

/// Each field of an answer, by its number in HPACK's static table if its name has one (RFC 7541, appendix A).
const FIELDS: [(u8, &str, &str); 3] = [
    (31, "content-type", "application/grpc"),
    (0, "grpc-status", "0"),
    (0, "grpc-message", ""),
];

/// The one connection to the server.
pub(super) struct Backend {
    wire: Wire,
    unread: Vec<u8>,
    greeted: bool,
    out: Vec<u8>,
    /// Fields in HPACK's table, oldest first.
    table: Vec<usize>,
    window_initial: i64,
    window: i64,
    consumed: u32,
    calls: BTreeMap<u32, Call>,
    /// Whose turn it is among the streams.
    next: u32,
}

#[derive(Default)]
struct Call {
    body: Vec<u8>,
    window: i64,
    /// The request is whole.
    asked: bool,
    headed: bool,
    messages_sent: usize,
}

impl Backend {
    pub(super) fn new(wire: Wire) -> Self {
        Self {
            wire,
            unread: Vec::new(),
            greeted: false,
            out: Vec::new(),
            table: Vec::new(),
            window_initial: 65_535,
            window: 65_535,
            consumed: 0,
            calls: BTreeMap::new(),
            next: 0,
        }
    }

    /// Reads what has come and answers what is asked.
    pub(super) fn step(&mut self, case: &Case, memory: &Memory) {
        self.wire.receive(&mut self.unread);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        if !self.greeted {
            let Some(behind) = rest.strip_prefix(PREFACE) else {
                assert!(PREFACE.starts_with(rest), "the preface");
                self.unread = unread;
                return;
            };
            rest = behind;
            self.greeted = true;
            let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
            settings.extend(WINDOW_BYTES.to_be_bytes());
            self.frame(kind::SETTINGS, 0, 0, &settings);
            self.frame(kind::WINDOW_UPDATE, 0, 0, &CONNECTION_BYTES.to_be_bytes());
        }
        while let Some(head) = FrameHead::parse(rest)
            && let Some(payload) = rest.get(9..9 + head.length)
        {
            self.take(head, payload);
            rest = &rest[9 + head.length..];
        }
        self.unread = rest.to_vec();
        match case.answer {
            Answer::Echo => self.echo(),
            Answer::Stream { messages, bytes } => self.stream(messages, bytes),
        }
        if !self.out.is_empty() {
            memory.send(&self.wire, &self.out);
            self.out.clear();
        }
    }

    fn take(&mut self, head: FrameHead, payload: &[u8]) {
        let stream = head.stream;
        match head.kind {
            kind::SETTINGS if !head.has(flag::ACK) => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        self.window_initial = i64::from(number(&setting[2..]));
                    }
                }
                self.frame(kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::SETTINGS => {}
            kind::PING if !head.has(flag::ACK) => self.frame(kind::PING, flag::ACK, 0, payload),
            kind::WINDOW_UPDATE => {
                let more = i64::from(number(payload));
                if stream == 0 {
                    self.window += more;
                } else if let Some(call) = self.calls.get_mut(&stream) {
                    call.window += more;
                }
            }
            kind::HEADERS => {
                let whole = head.has(flag::END_HEADERS) && !head.has(flag::PADDED);
                assert!(whole, "one frame");
                let call = Call {
                    window: self.window_initial,
                    asked: head.has(flag::END_STREAM),
                    ..Call::default()
                };
                self.calls.insert(stream, call);
            }
            kind::DATA => {
                assert!(!head.has(flag::PADDED), "no padding");
                let call = self.calls.get_mut(&stream).expect("an open stream");
                call.body.extend_from_slice(payload);
                call.asked = head.has(flag::END_STREAM);
                self.consumed += payload.len() as u32;
                if self.consumed > CONNECTION_BYTES / 2 {
                    let more = std::mem::take(&mut self.consumed);
                    self.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
                }
            }
            other => panic!("a frame of type {other} on stream {stream}"),
        }
    }

    /// Answers every whole request with its own body.
    fn echo(&mut self) {
        let whole: Vec<u32> = self.asked().collect();
        for stream in whole {
            let call = self.calls.remove(&stream).expect("it is open");
            assert!(call.body.len() as i64 <= call.window.min(self.window));
            self.window -= call.body.len() as i64;
            self.head(stream);
            for piece in call.body.chunks(FRAME_BYTES_MAX) {
                self.frame(kind::DATA, 0, stream, piece);
            }
            self.trailers(stream);
        }
    }

    /// Sends messages of all streams in turn, as far as their windows and the step go.
    fn stream(&mut self, messages: usize, bytes: usize) {
        let mut message = prefix(0, bytes as u32).to_vec();
        message.extend((0..bytes).map(|n| n as u8));
        let size = message.len() as i64;
        let most = self.out.len() + STREAM_STEP_BYTES;
        let mut refused = 0;
        while self.out.len() < most {
            let all: Vec<u32> = self.asked().collect();
            let found = all.iter().copied().find(|&stream| stream > self.next);
            let Some(stream) = found.or_else(|| all.first().copied()) else {
                break;
            };
            self.next = stream;
            let call = self.calls.get_mut(&stream).expect("it is open");
            if call.window.min(self.window) < size {
                refused += 1;
                if refused > all.len() {
                    break;
                }
                continue;
            }
            refused = 0;
            call.window -= size;
            self.window -= size;
            call.messages_sent += 1;
            let last = call.messages_sent == messages;
            if !std::mem::replace(&mut call.headed, true) {
                self.head(stream);
            }
            self.frame(kind::DATA, 0, stream, &message);
            if last {
                self.trailers(stream);
                self.calls.remove(&stream);
            }
        }
    }

    fn asked(&self) -> impl Iterator<Item = u32> {
        let asked = self.calls.iter().filter(|(_, call)| call.asked);
        asked.map(|(stream, _)| *stream)
    }

    fn head(&mut self, stream: u32) {
        // `:status: 200` is entry 8 of the static table.
        let mut block = vec![0x88];
        self.field(0, &mut block);
        self.frame(kind::HEADERS, flag::END_HEADERS, stream, &block);
    }

    fn trailers(&mut self, stream: u32) {
        let mut block = Vec::new();
        self.field(1, &mut block);
        self.field(2, &mut block);
        self.frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            stream,
            &block,
        );
    }

    /// From the table if it is there already, else spelled out and put there (RFC 7541, 6.1 and 6.2.1).
    fn field(&mut self, field: usize, block: &mut Vec<u8>) {
        if let Some(place) = self.table.iter().position(|&known| known == field) {
            block.push(0x80 | (62 + self.table.len() - 1 - place) as u8);
            return;
        }
        let (number, name, value) = FIELDS[field];
        block.push(0x40 | number);
        if number == 0 {
            block.push(name.len() as u8);
            block.extend(name.as_bytes());
        }
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
        self.table.push(field);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame(&mut self.out, kind, flags, stream, payload);
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().expect("four bytes"))
}
