//! What stands between a backend's bytes and `h2`: is this HTTP/2 at all, and frames that would end the connection for
//! nothing.
//!
//! `h2` ends a connection at the 101st empty DATA frame of its life (0.4.20, not configurable); a backend that sends one with
//! every answer would lose every hundredth call. Such frames mean nothing, so they are taken out here and counted. And the
//! first bytes decide whether the peer speaks HTTP/2 (RFC 9113 §3.4: its preface is a SETTINGS frame): what does not is
//! never shown to `h2`, so that the reason can be told to a person.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::{Buf, BytesMut};

use crate::net::Sieve;

/// RFC 9113 §4.1.
const FRAME_HEAD_BYTES: usize = 9;
const FRAME_DATA: u8 = 0;
const FRAME_SETTINGS: u8 = 4;
const FLAG_END_STREAM: u8 = 1;
const FLAG_PADDED: u8 = 8;
const FLAG_ACK: u8 = 1;
/// How much of a first line is kept for people, bytes.
const LINE_BYTES_MAX: usize = 60;

/// What a peer's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A SETTINGS frame: HTTP/2.
    Http2,
    /// A TLS record: it wants TLS.
    Tls,
    /// An HTTP/1 status line.
    Http1(String),
    /// Something else.
    Noise,
}

/// What the gate has seen; the connection looks at it after each poll.
#[derive(Debug, Default)]
pub struct Notes {
    opening: RefCell<Option<Opening>>,
    dropped: Cell<u64>,
}

impl Notes {
    /// What the first bytes said; `None` until there were enough.
    pub fn opening(&self) -> Option<Opening> {
        self.opening.borrow().clone()
    }

    /// How many empty frames were taken out.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

/// The sieve of an upstream connection.
#[derive(Debug, Default)]
pub struct Gate {
    notes: Rc<Notes>,
    opened: bool,
    /// Bytes of the present frame that are still to be handed on.
    left: usize,
}

impl Gate {
    /// A gate before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has seen.
    pub fn notes(&self) -> Rc<Notes> {
        Rc::clone(&self.notes)
    }
}

impl Sieve for Gate {
    fn pass(&mut self, unread: &mut BytesMut) -> usize {
        if !self.opened {
            match opening(unread) {
                Some(Opening::Http2) => self.opened = true,
                Some(other) => {
                    *self.notes.opening.borrow_mut() = Some(other);
                    return 0;
                }
                None => return 0,
            }
        }
        loop {
            if self.left > 0 {
                return self.left.min(unread.len());
            }
            let Some(&[a, b, c, kind, flags, ..]) = unread.get(..FRAME_HEAD_BYTES) else {
                return 0;
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let empty = match (kind, flags & FLAG_PADDED) {
                (FRAME_DATA, 0) => length == 0,
                // A padded frame of nothing but padding: its pad length must be known to tell. It keeps its window, so it
                // may only be taken out where it charges none; one byte of pad length is charged. `h2` counts it, rarely.
                _ => false,
            };
            if empty && flags & FLAG_END_STREAM == 0 {
                unread.advance(FRAME_HEAD_BYTES);
                self.notes.dropped.set(self.notes.dropped.get() + 1);
                continue;
            }
            self.left = FRAME_HEAD_BYTES + length;
        }
    }

    fn passed(&mut self, bytes: usize) {
        self.left -= bytes;
        if self.opened && self.left == 0 && self.notes.opening.borrow().is_none() {
            // Not before the whole of the first SETTINGS has gone by: they say how many calls the peer takes.
            *self.notes.opening.borrow_mut() = Some(Opening::Http2);
        }
    }
}

/// What those first bytes say; `None`: too few to tell.
fn opening(bytes: &[u8]) -> Option<Opening> {
    match bytes {
        // A TLS record of type alert or handshake, version 3.x. As the length of a SETTINGS frame it would be over a mebibyte.
        [0x15 | 0x16, 0x03, ..] => Some(Opening::Tls),
        _ if bytes.starts_with(b"HTTP/") => {
            let line = bytes
                .split(|&byte| byte == b'\r' || byte == b'\n')
                .next()
                .unwrap_or(bytes);
            if line.len() == bytes.len() && bytes.len() < LINE_BYTES_MAX {
                return None;
            }
            let line = line.get(..LINE_BYTES_MAX).unwrap_or(line);
            Some(Opening::Http1(String::from_utf8_lossy(line).into_owned()))
        }
        _ if b"HTTP/".starts_with(bytes) => None,
        [_, _, _, kind, flags, rest @ ..] if *kind != FRAME_SETTINGS || rest.len() >= 4 => {
            let on_connection = rest.get(..4).is_some_and(|stream| stream == [0; 4]);
            // An acknowledgement says nothing of the peer's own settings.
            let settings = *kind == FRAME_SETTINGS && flags & FLAG_ACK == 0 && on_connection;
            Some(if settings {
                Opening::Http2
            } else {
                Opening::Noise
            })
        }
        _ => None,
    }
}

/// What is known of a peer that ended its side before that much: its first line, if it looks like one.
pub fn opening_at_end(bytes: &[u8]) -> Option<Opening> {
    match bytes {
        [] => None,
        // What may be the beginning of a SETTINGS frame says nothing but that the connection was lost.
        [0, rest @ ..]
            if rest.len() < FRAME_HEAD_BYTES - 1
                && rest.get(2).is_none_or(|&kind| kind == FRAME_SETTINGS) =>
        {
            None
        }
        _ if bytes.starts_with(b"HTTP/") => {
            Some(Opening::Http1(String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => Some(opening(bytes).unwrap_or(Opening::Noise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn through(pieces: &[&[u8]]) -> (Vec<u8>, Rc<Notes>) {
        let mut gate = Gate::new();
        let mut unread = BytesMut::new();
        let mut out = Vec::new();
        for piece in pieces {
            unread.extend_from_slice(piece);
            loop {
                let n = gate.pass(&mut unread);
                if n == 0 {
                    break;
                }
                // Hand on unevenly, as a small ReadBuf would.
                let n = n.min(7);
                out.extend_from_slice(&unread[..n]);
                unread.advance(n);
                gate.passed(n);
            }
        }
        (out, gate.notes())
    }

    #[test]
    fn empty_data_is_taken_out_at_every_split_and_all_else_passes() {
        let mut input = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let mut expected = input.clone();
        for (kind, flags, payload, passes) in [
            (FRAME_DATA, 0, &b""[..], false),
            (FRAME_DATA, 0, b"hello", true),
            (FRAME_DATA, FLAG_END_STREAM, b"", true),
            (FRAME_DATA, 0, b"", false),
            (FRAME_DATA, 0, b"", false),
            (1, 4, b"head", true),
            (FRAME_SETTINGS, 1, b"", true),
        ] {
            let frame = frame(kind, flags, 1, payload);
            input.extend(&frame);
            if passes {
                expected.extend(&frame);
            }
        }
        let (whole, notes) = through(&[&input]);
        assert_eq!(whole, expected);
        assert_eq!(notes.dropped(), 3);
        for cut in 0..=input.len() {
            let (a, b) = input.split_at(cut);
            let (out, notes) = through(&[a, b]);
            assert_eq!(out, expected, "cut at {cut}");
            assert_eq!(notes.dropped(), 3);
        }
        let bytes: Vec<_> = input.chunks(1).collect();
        assert_eq!(through(&bytes).0, expected);
    }

    #[test]
    fn http2_is_noted_when_the_whole_of_the_first_settings_has_gone_by() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
        for cut in 0..=settings.len() {
            let (_, notes) = through(&[&settings[..cut]]);
            let whole = cut == settings.len();
            assert_eq!(notes.opening().is_some(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_first_bytes_tell_who_answers() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[]);
        let acknowledgement = frame(FRAME_SETTINGS, FLAG_ACK, 0, &[]);
        let on_a_stream = frame(FRAME_SETTINGS, 0, 1, &[]);
        for (bytes, expected) in [
            (&settings[..], Some(Opening::Http2)),
            (&settings[..8], None),
            (&acknowledgement[..], Some(Opening::Noise)),
            (&on_a_stream[..], Some(Opening::Noise)),
            (&[0x15, 0x03, 0x03, 0, 2, 2, 70], Some(Opening::Tls)),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                Some(Opening::Http1("HTTP/1.1 400 Bad Request".into())),
            ),
            (b"HTT", None),
            (b"SSH-2.0-OpenSSH", Some(Opening::Noise)),
            (b"", None),
        ] {
            assert_eq!(opening(bytes), expected, "{bytes:?}");
        }
        let (out, notes) = through(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]);
        assert!(out.is_empty(), "h2 never sees what is not HTTP/2");
        assert!(matches!(notes.opening(), Some(Opening::Http1(_))));
    }

    #[test]
    fn a_peer_that_ends_inside_its_settings_is_lost_and_not_foreign() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        for cut in 0..FRAME_HEAD_BYTES {
            assert_eq!(opening_at_end(&settings[..cut]), None, "cut at {cut}");
        }
        for noise in [&b"SSH"[..], b"\x00\x00\x06\x01", b"\x15", b"HT"] {
            assert_eq!(opening_at_end(noise), Some(Opening::Noise), "{noise:?}");
        }
    }
}
