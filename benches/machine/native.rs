//! A gRPC client on one connection of HTTP/2: the fields of grpc-go, several calls at a time, and a strict reader of what comes back.
//! Its windows are wider than any answer, so it says nothing while it reads; grpc-go would, for a stream of messages.

use std::collections::BTreeMap;

use httlib_hpack::Decoder;
use wharf::wire::envelope::prefix;
use wharf::wire::http2::{FrameHead, PREFACE, flag, kind};

use super::memory::{Memory, Wire};
use super::{Case, Received, frame};

/// What one answer may have under way, bytes; more than a whole one of any case.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What all may have before they are given more, bytes.
const CONNECTION_BYTES: u32 = 1 << 30;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The fields of a request that HPACK's table takes in with the first of them: their number in the static table, if the name has
/// one (RFC 7541, appendix A), name and value. `:method` and `:scheme` stand there whole.
const FIELDS: [(u8, &str, &str); 6] = [
    (4, ":path", ""),
    (1, ":authority", "localhost:8080"),
    (0, "te", "trailers"),
    (31, "content-type", "application/grpc"),
    (58, "user-agent", "grpc-go/1.76.0"),
    (0, "grpc-accept-encoding", "identity, deflate, gzip"),
];
const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
/// The first number of the dynamic table.
const DYNAMIC: usize = 62;

/// One client on its connection.
pub(super) struct Native {
    wire: Wire,
    path: &'static str,
    message: Vec<u8>,
    streams_max: usize,
    next: u32,
    out: Vec<u8>,
    unread: Vec<u8>,
    decoder: Decoder<'static>,
    calls: BTreeMap<u32, Call>,
}

#[derive(Default)]
struct Call {
    headed: bool,
    body: Vec<u8>,
}

impl Native {
    pub(super) fn new(wire: Wire, case: &Case, streams_max: usize) -> Self {
        let mut message = prefix(0, case.request_bytes as u32).to_vec();
        message.extend((0..case.request_bytes).map(|n| n as u8));
        let mut out = PREFACE.to_vec();
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(STREAM_WINDOW_BYTES.to_be_bytes());
        frame(&mut out, kind::SETTINGS, 0, 0, &settings);
        let more = CONNECTION_BYTES.to_be_bytes();
        frame(&mut out, kind::WINDOW_UPDATE, 0, 0, &more);
        Self {
            wire,
            path: case.path(),
            message,
            streams_max,
            next: 1,
            out,
            unread: Vec::new(),
            decoder: Decoder::with_dynamic_size(4096),
            calls: BTreeMap::new(),
        }
    }

    /// One more call may be open.
    pub(super) fn has_room(&self) -> bool {
        self.calls.len() < self.streams_max
    }

    /// Makes a call.
    pub(super) fn send(&mut self, memory: &Memory) {
        let mut block = vec![METHOD_POST, SCHEME_HTTP];
        for (place, (number, name, value)) in FIELDS.iter().enumerate() {
            if self.next > 1 {
                // The table's last comes first.
                block.push(0x80 | (DYNAMIC + FIELDS.len() - 1 - place) as u8);
                continue;
            }
            block.push(0x40 | number);
            if *number == 0 {
                text(name, &mut block);
            }
            text(if place == 0 { self.path } else { value }, &mut block);
        }
        let stream = self.next;
        self.next += 2;
        let out = &mut self.out;
        frame(out, kind::HEADERS, flag::END_HEADERS, stream, &block);
        frame(out, kind::DATA, flag::END_STREAM, stream, &self.message);
        memory.send(&self.wire, out);
        out.clear();
        self.calls.insert(stream, Call::default());
    }

    /// Reads what has come; an answer that is whole is checked and counted.
    pub(super) fn receive(&mut self, received: &mut Received) {
        self.wire.receive(&mut self.unread);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        while let Some(head) = FrameHead::parse(rest)
            && let Some(payload) = rest.get(9..9 + head.length)
        {
            self.take(head, payload, received);
            rest = &rest[9 + head.length..];
        }
        self.unread = rest.to_vec();
    }

    fn take(&mut self, head: FrameHead, payload: &[u8], received: &mut Received) {
        let stream = head.stream;
        match head.kind {
            // What is owed goes with the next call.
            kind::SETTINGS if !head.has(flag::ACK) => {
                frame(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !head.has(flag::ACK) => {
                frame(&mut self.out, kind::PING, flag::ACK, 0, payload);
            }
            kind::SETTINGS | kind::WINDOW_UPDATE => {}
            kind::HEADERS => {
                assert!(head.has(flag::END_HEADERS), "one frame");
                let mut fields = Vec::new();
                let decoded = self.decoder.decode(&mut payload.to_vec(), &mut fields);
                decoded.expect("a field block");
                let field = |name: &[u8]| {
                    let mut found = fields.iter().filter(|(own, ..)| own == name);
                    found.next().map(|(_, value, _)| &value[..])
                };
                let call = self.calls.get_mut(&stream).expect("an open stream");
                if !std::mem::replace(&mut call.headed, true) {
                    assert_eq!(field(b":status"), Some(&b"200"[..]));
                    assert_eq!(field(b"content-type"), Some(&b"application/grpc"[..]));
                }
                if head.has(flag::END_STREAM) {
                    assert_eq!(field(b"grpc-status"), Some(&b"0"[..]));
                    let call = self.calls.remove(&stream).expect("it is open");
                    check(&call.body, received);
                }
            }
            kind::DATA => {
                assert!(!head.has(flag::END_STREAM), "trailers follow");
                let call = self.calls.get_mut(&stream).expect("an open stream");
                call.body.extend_from_slice(payload);
            }
            other => panic!("a frame of type {other} on stream {stream}"),
        }
    }
}

/// Messages, and nothing else.
fn check(mut body: &[u8], received: &mut Received) {
    while let Some((head, behind)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        assert_eq!(head[0], 0, "a plain message");
        received.messages += 1;
        received.payload += length;
        body = &behind[length..];
    }
    assert!(body.is_empty(), "half a message");
    received.calls += 1;
}

fn text(text: &str, block: &mut Vec<u8>) {
    block.push(text.len() as u8);
    block.extend(text.as_bytes());
}
