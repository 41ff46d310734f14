//! Frames of HTTP/2 (RFC 9113 §4, §6) for those who play a client or a server: their numbers, how they are written, and how whole
//! ones are read from a socket. It never judges what they mean.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use httlib_hpack::Decoder;
pub(crate) use wharf::wire::http2::PREFACE;
pub(crate) use wharf::wire::http2::flag::{ACK, END_HEADERS, END_STREAM, PADDED};
pub(crate) use wharf::wire::http2::kind::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Error codes (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// The most that a window may be, bytes.
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;

const HEAD_BYTES: usize = 9;

/// A frame that has come whole.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// How a field stood in a head (RFC 7541 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In letters, to be kept in the table.
    Added,
    /// In letters, and nobody on the way may keep it in a table.
    Never,
    /// From the table, or in letters that are not kept.
    Other,
}

/// What has come of one direction of a connection.
pub(crate) struct Frames {
    unread: Vec<u8>,
    decoder: Decoder<'static>,
    /// How the fields of the last head stood in it.
    pub(crate) ways: Vec<(String, Way)>,
    /// And how long its block was, bytes.
    pub(crate) block_bytes: usize,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            unread: Vec::new(),
            decoder: Decoder::with_dynamic_size(4096),
            ways: Vec::new(),
            block_bytes: 0,
        }
    }

    /// The next one. `None`: nothing in the socket's time. `Some(None)`: the connection has ended.
    #[expect(clippy::option_option, reason = "two different nothings")]
    pub(crate) fn read(&mut self, socket: &mut TcpStream) -> Option<Option<Frame>> {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(frame) = self.take() {
                return Some(Some(frame));
            }
            match socket.read(&mut bytes) {
                Ok(0) => return Some(None),
                Ok(n) => self.unread.extend(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(None),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("cannot read from the proxy: {error}"),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let &[a, b, c, kind, flags, ..] = self.unread.first_chunk::<HEAD_BYTES>()?;
        let end = u32::from_be_bytes([0, a, b, c]) as usize + HEAD_BYTES;
        let payload = self.unread.get(HEAD_BYTES..end)?.to_vec();
        let stream = number(&self.unread[5..HEAD_BYTES]);
        self.unread.drain(..end);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// The fields of a head, or of trailers, that came in one frame.
    pub(crate) fn fields(&mut self, head: &Frame) -> Vec<(String, String)> {
        assert!(head.has(END_HEADERS), "a short head");
        assert!(!head.has(PADDED | 0x20), "no padding, no priority");
        let mut fields = Vec::new();
        let mut block = head.payload.clone();
        self.block_bytes = block.len();
        let decoded = self.decoder.decode(&mut block, &mut fields);
        decoded.expect("a field block");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ASCII");
        let way = |flag| match flag {
            Decoder::WITH_INDEXING => Way::Added,
            Decoder::NEVER_INDEXED => Way::Never,
            _ => Way::Other,
        };
        self.ways = fields
            .iter()
            .map(|(name, _, flag)| (text(name.clone()), way(*flag)))
            .collect();
        fields
            .into_iter()
            .map(|(name, value, _)| (text(name), text(value)))
            .collect()
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend(name.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    payload
}

/// A field block of literals that are never indexed (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push((length % 128) as u8 | 128);
                    length /= 128;
                }
                block.push(length as u8);
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

pub(crate) fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().expect("four bytes"))
}
