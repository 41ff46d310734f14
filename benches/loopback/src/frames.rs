//! HTTP/2's frames as both ends here write them: kinds, flags, and the nine bytes before each. Owns no state.
//!
//! Source: RFC 9113 (frames 4.1 and 6, the preface 3.4).

use std::hash::Hasher;

/// The client's first bytes.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's head, in bytes.
pub(crate) const FRAME_HEAD: usize = 9;

/// The largest payload of a frame, in bytes: what HTTP/2 allows unasked. We neither announce nor use more.
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;

/// The window of HTTP/2 before anybody has said anything, in bytes.
pub(crate) const FIRST_WINDOW: i64 = 65_535;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY: u8 = 0x20;

/// A frame's head.
pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, length: usize) {
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags, i0, i1, i2, i3]);
}

/// "So many bytes more", for a stream or, with id 0, for all.
pub(crate) fn window_update(out: &mut Vec<u8>, id: u32, more: u32) {
    frame(out, WINDOW_UPDATE, 0, id, 4);
    out.extend_from_slice(&more.to_be_bytes());
}

/// What a frame carries, without its padding; `None` where the padding is longer than the frame.
pub(crate) fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if flags & PADDED == 0 {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// Stream ids are counted up by the client: their own bits are hash enough.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        // The table looks at the highest bits as well as at the lowest.
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
