//! Where in our own frames the bytes stand that `h2` writes.
//!
//! Owns the walk over them, so that content is written from where it lies and an end is known to have left. It changes nothing
//! and decides nothing.

use bytes::Bytes;

use crate::http2::loans::{Loans, PIECE_BYTES_MIN};
use crate::wire::http2::{FRAME_HEAD_BYTES, FrameHead};

/// A walk over what is written on one connection.
#[derive(Debug)]
pub struct Passing {
    /// Bytes that are still to come of the present frame's payload.
    left: usize,
    /// The present frame; `None`: the preface.
    frame: Option<FrameHead>,
    /// What there is of the next frame's head.
    head: Vec<u8>,
}

/// How far a frame has gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its head has.
    Begun(FrameHead),
    /// All of it has.
    Whole(FrameHead),
}

impl Passing {
    /// Before the first byte; `preface` of them come before the first frame.
    pub fn new(preface: usize) -> Self {
        Self {
            left: preface,
            frame: None,
            head: Vec::new(),
        }
    }

    /// The same bytes as whoever lent them knows them, if they are content alone: no byte of a frame's head.
    pub fn find(&self, bytes: &[u8], loans: &mut Loans) -> Option<Bytes> {
        let stream = self.frame.map_or(0, |frame| frame.stream);
        let whole = bytes.len() <= self.left;
        whole.then(|| loans.find(stream, bytes)).flatten()
    }

    /// These bytes go by. `tell` hears of each frame, when its head has and when all of it has.
    pub fn wrote(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Gone)) {
        loop {
            if self.left > 0 {
                let gone = self.left.min(bytes.len());
                bytes = &bytes[gone..];
                self.left -= gone;
                if self.left > 0 {
                    return;
                }
                if let Some(frame) = self.frame {
                    tell(Gone::Whole(frame));
                }
            }
            let frame = if self.head.is_empty()
                && let Some(frame) = FrameHead::parse(bytes)
            {
                bytes = &bytes[FRAME_HEAD_BYTES..];
                frame
            } else {
                let missing = FRAME_HEAD_BYTES - self.head.len();
                let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                let Some(frame) = FrameHead::parse(&self.head) else {
                    return;
                };
                self.head.clear();
                frame
            };
            self.left = frame.length;
            self.frame = Some(frame);
            tell(Gone::Begun(frame));
            if frame.length == 0 {
                tell(Gone::Whole(frame));
            }
        }
    }

    /// Whether a piece of content is worth being found again.
    pub fn is_worth_it(piece: &Bytes) -> bool {
        piece.len() >= PIECE_BYTES_MIN
    }
}
