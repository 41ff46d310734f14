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
    /// Whose it is.
    stream: u32,
    /// What there is of the next frame's head.
    head: Vec<u8>,
}

impl Passing {
    /// Before the first byte; `preface` of them come before the first frame.
    pub fn new(preface: usize) -> Self {
        Self {
            left: preface,
            stream: 0,
            head: Vec::new(),
        }
    }

    /// The same bytes as whoever lent them knows them, if they are content alone: no byte of a frame's head.
    pub fn find(&self, bytes: &[u8], loans: &mut Loans) -> Option<Bytes> {
        let whole = bytes.len() <= self.left;
        whole.then(|| loans.find(self.stream, bytes)).flatten()
    }

    /// These bytes go by. `begun` is told of each frame whose head has gone by.
    pub fn wrote(&mut self, mut bytes: &[u8], mut begun: impl FnMut(FrameHead)) {
        loop {
            let gone = self.left.min(bytes.len());
            bytes = &bytes[gone..];
            self.left -= gone;
            if self.left > 0 {
                return;
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
            self.stream = frame.stream;
            begun(frame);
        }
    }

    /// Whether a piece of content is worth being found again.
    pub fn is_worth_it(piece: &Bytes) -> bool {
        piece.len() >= PIECE_BYTES_MIN
    }
}
