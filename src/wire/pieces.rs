//! Content on its way, in pieces: small ones copied together, large ones kept where they lie.
//!
//! A peer may cut its content into single bytes. Kept one by one they would cost many times what they hold, and each could
//! pin a whole read's memory; so pieces below [`COPY_BYTES_MAX`] share one buffer.

use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};

/// Below this size pieces are copied together, bytes.
pub const COPY_BYTES_MAX: usize = 1 << 10;

/// What the buffer for small pieces begins with, bytes.
const TAIL_BYTES_MIN: usize = 2 << 10;

/// A queue of content. Most calls never have more than one piece waiting, so that one needs no memory of its own.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Empty only when all is.
    first: Bytes,
    rest: Option<Box<Rest>>,
}

/// What waits behind the first piece.
#[derive(Debug, Default)]
struct Rest {
    queue: VecDeque<Bytes>,
    /// Small pieces, put together behind the queue.
    tail: BytesMut,
    bytes: usize,
}

impl Rest {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < COPY_BYTES_MAX {
            if self.tail.is_empty() {
                self.tail.reserve(TAIL_BYTES_MIN);
            }
            self.tail.extend_from_slice(&piece);
        } else {
            self.close_tail();
            self.queue.push_back(piece);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.close_tail();
        }
        let first = self.queue.pop_front()?;
        self.bytes -= first.len();
        Some(first)
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(mem::take(&mut self.tail).freeze());
        }
    }
}

impl Pieces {
    /// Adds content at the end.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.is_empty() {
            // It needs no copy, unless more follows before it is taken.
            self.first = piece;
        } else {
            self.rest.get_or_insert_default().push(piece);
        }
    }

    /// Takes the first piece; the small ones behind it are one piece by now.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let first = mem::take(&mut self.first);
        self.close_up();
        Some(first)
    }

    /// Takes at most `max` bytes from the front, small pieces put together.
    pub fn take(&mut self, max: usize) -> Bytes {
        if self.first.len() >= max {
            let taken = self.first.split_to(max);
            self.close_up();
            return taken;
        }
        if self.rest.is_none() || self.first.len() >= COPY_BYTES_MAX {
            return self.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(max.min(self.bytes()));
        while joined.len() < max && !self.is_empty() {
            let step = self.first.len().min(max - joined.len());
            joined.extend_from_slice(&self.first.split_to(step));
            self.close_up();
        }
        joined.freeze()
    }

    /// Puts `earlier` in front of everything.
    pub fn prepend(&mut self, earlier: Self) {
        let mut later = mem::replace(self, earlier);
        while let Some(piece) = later.pop() {
            self.push(piece);
        }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.first.len() + self.rest.as_ref().map_or(0, |rest| rest.bytes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Moves up what waits, once the first piece is gone. When there is nothing more, nothing is held.
    fn close_up(&mut self) {
        if self.first.is_empty() {
            let next = self.rest.as_deref_mut().and_then(Rest::pop);
            self.first = next.unwrap_or_default();
            self.rest.take_if(|rest| rest.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(rng: &mut fastrand::Rng, bytes: usize) -> Bytes {
        (0..bytes).map(|_| rng.u8(..)).collect::<Vec<_>>().into()
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_it_is_taken() {
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..500 {
            let mut pieces = Pieces::default();
            let (mut pushed, mut taken) = (Vec::new(), Vec::new());
            for _ in 0..rng.usize(1..30) {
                let bytes = [0, 1, 5, 1_023, 1_024, 3_000][rng.usize(..6)];
                let piece = content(&mut rng, bytes);
                pushed.extend_from_slice(&piece);
                pieces.push(piece);
                if rng.u8(..4) == 0 {
                    let max = rng.usize(1..4_000);
                    let some = pieces.take(max);
                    assert!(some.len() <= max);
                    taken.extend_from_slice(&some);
                } else if rng.u8(..4) == 0 {
                    taken.extend_from_slice(&pieces.pop().unwrap_or_default());
                }
                assert_eq!(pieces.bytes(), pushed.len() - taken.len(), "round {round}");
            }
            if rng.bool() {
                // As a call that is sent anew.
                let mut whole = Pieces::default();
                whole.push(Bytes::copy_from_slice(&taken));
                pieces.prepend(whole);
                taken.clear();
            }
            while let Some(piece) = pieces.pop() {
                assert!(!piece.is_empty());
                taken.extend_from_slice(&piece);
            }
            assert_eq!(taken, pushed, "round {round}");
            assert!(pieces.is_empty());
        }
    }

    #[test]
    fn as_much_is_taken_as_there_is_and_may_be() {
        let mut pieces = Pieces::default();
        for bytes in [&b"one "[..], b"two ", b"three"] {
            pieces.push(Bytes::from_static(bytes));
        }
        let large = Bytes::from(vec![b'x'; COPY_BYTES_MAX]);
        pieces.push(large.clone());
        pieces.push(Bytes::from_static(b"end"));

        // Small ones are put together, and cut where it has to be.
        assert_eq!(pieces.take(4), "one ");
        assert_eq!(pieces.take(6), "two th");
        assert_eq!(pieces.take(5), "reexx");
        assert_eq!(pieces.take(1), "x");
        assert_eq!(pieces.bytes(), COPY_BYTES_MAX - 3 + 3);
        // The last of a large one is small, and goes with what is behind it.
        let rest = pieces.take(10_000);
        assert_eq!(rest.len(), COPY_BYTES_MAX);
        assert!(rest.ends_with(b"xend"));
        assert_eq!(pieces.take(10_000), "");

        // A large one goes by itself, where it lies.
        pieces.push(large.clone());
        pieces.push(Bytes::from_static(b"end"));
        assert_eq!(pieces.take(10_000).as_ptr(), large.as_ptr());
        // And so does the only one.
        let only = Bytes::copy_from_slice(&pieces.take(10));
        pieces.push(only.clone());
        assert_eq!(pieces.take(10_000).as_ptr(), only.as_ptr());
        assert!(pieces.is_empty());
    }

    #[test]
    fn ten_thousand_single_bytes_are_two_pieces() {
        let mut pieces = Pieces::default();
        for byte in 0..10_000 {
            pieces.push(Bytes::copy_from_slice(&[byte as u8]));
        }
        assert_eq!(pieces.pop().map(|piece| piece.len()), Some(1));
        assert_eq!(pieces.pop().map(|piece| piece.len()), Some(9_999));
        assert_eq!(pieces.pop(), None);
    }
}
