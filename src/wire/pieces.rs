//! Content on its way, in pieces: small ones copied together, large ones kept where they lie.
//!
//! A peer may cut its content into single bytes. Kept one by one they would cost many times what they hold, and each could
//! pin a whole read's memory; so pieces below [`COPY_BYTES_MAX`] share one buffer.

use std::collections::VecDeque;
use std::mem;

use bytes::{Bytes, BytesMut};

/// Below this size pieces are copied together, bytes.
pub const COPY_BYTES_MAX: usize = 1 << 10;

/// A queue of content.
///
/// Nearly always it holds one piece or none, in thousands of calls at once: the first lies here, and only what is behind it costs
/// an allocation.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Empty only where there is nothing behind it.
    first: Bytes,
    rest: Option<Box<Rest>>,
    bytes: usize,
}

/// What is behind the first piece; gone as soon as there is nothing.
#[derive(Debug, Default)]
struct Rest {
    queue: VecDeque<Bytes>,
    /// Small pieces, copied together.
    tail: BytesMut,
}

impl Pieces {
    /// Adds content at the end.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        if self.first.is_empty() {
            // Alone it needs no copy, unless more follows before it is taken.
            self.first = piece;
            return;
        }
        let rest = self.rest.get_or_insert_default();
        if piece.len() < COPY_BYTES_MAX {
            rest.tail.extend_from_slice(&piece);
        } else {
            rest.close_tail();
            rest.queue.push_back(piece);
        }
    }

    /// Takes the first piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.first.is_empty() {
            return None;
        }
        let first = mem::take(&mut self.first);
        self.bytes -= first.len();
        self.move_up();
        Some(first)
    }

    /// Takes at most `max` bytes from the front, small pieces put together.
    pub fn take(&mut self, max: usize) -> Bytes {
        if self.first.len() > max {
            self.bytes -= max;
            return self.first.split_to(max);
        }
        let whole = self.first.len() == max || self.first.len() >= COPY_BYTES_MAX;
        if whole || self.rest.is_none() {
            return self.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(max.min(self.bytes));
        while joined.len() < max && !self.first.is_empty() {
            let step = self.first.len().min(max - joined.len());
            joined.extend_from_slice(&self.first.split_to(step));
            if self.first.is_empty() {
                self.move_up();
            }
        }
        self.bytes -= joined.len();
        joined.freeze()
    }

    /// Puts `earlier` in front of everything.
    pub fn prepend(&mut self, earlier: Self) {
        let later = mem::take(self);
        let mut whole = VecDeque::new();
        for mut pieces in [earlier, later] {
            self.bytes += pieces.bytes;
            while let Some(piece) = pieces.pop() {
                whole.push_back(piece);
            }
        }
        self.first = whole.pop_front().unwrap_or_default();
        if !whole.is_empty() {
            self.rest.get_or_insert_default().queue = whole;
        }
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The first piece has gone: the next one becomes it.
    fn move_up(&mut self) {
        let Some(rest) = &mut self.rest else {
            self.first = Bytes::new();
            return;
        };
        self.first = match rest.queue.pop_front() {
            Some(piece) => piece,
            None => mem::take(&mut rest.tail).freeze(),
        };
        if rest.queue.is_empty() && rest.tail.is_empty() {
            self.rest = None;
        }
    }
}

impl Rest {
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(mem::take(&mut self.tail).freeze());
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
