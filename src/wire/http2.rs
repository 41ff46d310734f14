//! HTTP/2 as far as it is ours: the outside of its frames (RFC 9113 §4.1), nine bytes that say what follows and how long, and
//! what a request's head says once `h2` has read it.
//!
//! Owns the names and numbers that whoever looks at frames on their way needs. It looks into no frame but SETTINGS, for what `h2`
//! reads there and keeps to itself.

pub mod head;
pub mod hpack;

/// The head of every frame, bytes.
pub const FRAME_HEAD_BYTES: usize = 9;
/// What a client says before its first frame (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's type (RFC 9113 §6). Not every one that there may be: peers may send others, which mean nothing.
pub mod kind {
    /// Content.
    pub const DATA: u8 = 0;
    /// A head, or its beginning.
    pub const HEADERS: u8 = 1;
    /// A wish that has no meaning any more.
    pub const PRIORITY: u8 = 2;
    /// The end of a stream before its time.
    pub const RST_STREAM: u8 = 3;
    /// What a peer says of itself.
    pub const SETTINGS: u8 = 4;
    /// An answer that nobody has asked for.
    pub const PUSH_PROMISE: u8 = 5;
    /// A question whether somebody is there.
    pub const PING: u8 = 6;
    /// No more streams.
    pub const GOAWAY: u8 = 7;
    /// More may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The rest of a head.
    pub const CONTINUATION: u8 = 9;
}

/// A frame's flags.
pub mod flag {
    /// On DATA and HEADERS: nothing follows on this stream.
    pub const END_STREAM: u8 = 0x1;
    /// On SETTINGS and PING: the answer to one.
    pub const ACK: u8 = 0x1;
    /// On HEADERS and CONTINUATION: the head is whole.
    pub const END_HEADERS: u8 = 0x4;
    /// On DATA and HEADERS: the payload begins with the length of what is thrown away at its end.
    pub const PADDED: u8 = 0x8;
}

/// One of those that a frame of SETTINGS holds, bytes (RFC 9113 §6.5.1).
pub const SETTING_BYTES: usize = 6;

/// What the payload of a frame of SETTINGS says of that one; the last word counts. `None`: nothing.
pub fn setting(payload: &[u8], id: u16) -> Option<u32> {
    let (settings, _) = payload.as_chunks::<SETTING_BYTES>();
    settings.iter().rev().find_map(|&[a, b, value @ ..]| {
        (u16::from_be_bytes([a, b]) == id).then(|| u32::from_be_bytes(value))
    })
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// How long its payload is, bytes.
    pub length: usize,
    /// One of [`kind`], or another one.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// Whose it is; 0: the connection's.
    pub stream: u32,
}

impl FrameHead {
    /// What stands at the beginning of `bytes`; `None`: too few.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    /// Whether one of these flags is set.
    #[inline]
    pub const fn has(self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_stands_in_it() {
        let bytes = [0x01, 0x00, 0x02, 0x00, 0x09, 0x80, 0x00, 0x01, 0x03, 0xff];
        let head = FrameHead::parse(&bytes).expect("nine bytes");
        assert_eq!(
            head,
            FrameHead {
                length: 0x01_00_02,
                kind: kind::DATA,
                flags: flag::END_STREAM | flag::PADDED,
                stream: 0x0103,
            }
        );
        assert!(head.has(flag::PADDED));
        assert!(!head.has(flag::END_HEADERS));
        assert_eq!(FrameHead::parse(&bytes[..8]), None);
    }
}
