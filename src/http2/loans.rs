//! What `h2` was given of content, so that it is written from where it lies.
//!
//! `h2` offers plain slices to be written, which can only be copied. Where one of them lies within a piece that it was given,
//! a part of that piece can be written in its place. Owns a handle on each such piece until it has gone by or its stream is
//! over, and decides nothing: what is not found here is copied, as it would have been.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::http2::unsent::SEND_BUFFER_BYTES;

/// From this size on a piece is worth the bookkeeping, bytes.
pub const PIECE_BYTES_MIN: usize = 8 << 10;
/// `h2` copies by itself what is less than this of a piece (0.4.20), so so short a rest is not waited for, bytes.
const REST_BYTES_MAX: usize = 1 << 10;

/// How many pieces of one stream are known: as many as `h2` holds, and the one that it is writing. What is further back has gone
/// by in frames too small to be found here, and would be held for as long as the call is open.
const PIECES_MAX: usize = SEND_BUFFER_BYTES / PIECE_BYTES_MIN + 1;

/// The pieces, by stream, in their order.
#[derive(Debug, Default)]
pub struct Loans(BTreeMap<u32, VecDeque<Bytes>>);

impl Loans {
    /// `h2` is given this to send on that stream.
    pub fn note(&mut self, stream: u32, piece: &Bytes) {
        let pieces = self.0.entry(stream).or_default();
        if pieces.len() >= PIECES_MAX {
            pieces.pop_front();
        }
        pieces.push_back(piece.clone());
    }

    /// The same bytes as a part of the piece in which they lie, if it is known; what came before it has gone by.
    pub fn find(&mut self, stream: u32, bytes: &[u8]) -> Option<Bytes> {
        let pieces = self.0.get_mut(&stream)?;
        let sought = bytes.as_ptr_range();
        let at = pieces.iter().position(|piece| {
            let piece = piece.as_ptr_range();
            piece.start <= sought.start && sought.end <= piece.end
        })?;
        pieces.drain(..at);
        let piece = pieces.front()?;
        let found = piece.slice_ref(bytes);
        let rest = piece.as_ptr_range().end.addr() - sought.end.addr();
        if rest < REST_BYTES_MAX {
            pieces.pop_front();
            if pieces.is_empty() {
                self.0.remove(&stream);
            }
        }
        Some(found)
    }

    /// Nothing more of that stream will be written, or what is can be copied.
    pub fn forget(&mut self, stream: u32) {
        self.0.remove(&stream);
    }

    /// Nothing more will be written at all.
    pub fn forget_all(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_piece_is_found_where_it_lies_until_the_piece_has_gone_by() {
        let mut loans = Loans::default();
        let (first, second) = (Bytes::from(vec![1; 20_000]), Bytes::from(vec![2; 20_000]));
        loans.note(1, &first);
        loans.note(1, &second);

        let found = loans.find(1, &first[1_015..16_384]).unwrap();
        assert_eq!(found.as_ptr_range(), first[1_015..16_384].as_ptr_range());
        assert!(loans.find(3, &first[..2_000]).is_none(), "another stream's");
        assert!(
            loans.find(1, &[1; 2_000]).is_none(),
            "the same bytes elsewhere"
        );
        assert!(!first.is_unique());

        // The rest is so short that it comes as a copy, or the next piece comes: either way it has gone by.
        loans.find(1, &second[..10_000]).unwrap();
        drop(found);
        assert!(first.is_unique());
        loans
            .find(1, &second[10_000..20_000 - REST_BYTES_MAX + 1])
            .unwrap();
        assert!(second.is_unique());
        assert!(loans.0.is_empty());
    }

    #[test]
    fn pieces_that_go_by_in_small_frames_are_held_up_to_a_limit() {
        let mut loans = Loans::default();
        let pieces: Vec<_> = (0..1_000)
            .map(|_| Bytes::from(vec![1; PIECE_BYTES_MIN]))
            .collect();
        for piece in &pieces {
            loans.note(1, piece);
        }
        let held = |piece: &&Bytes| !piece.is_unique();
        assert_eq!(pieces.iter().filter(held).count(), PIECES_MAX);
        assert!(loans.find(1, &pieces[0]).is_none());
        for piece in &pieces[pieces.len() - PIECES_MAX..] {
            assert!(loans.find(1, piece).is_some());
        }
    }

    #[test]
    fn a_stream_that_is_over_holds_nothing() {
        let mut loans = Loans::default();
        let piece = Bytes::from(vec![1; 20_000]);
        loans.note(1, &piece);
        loans.forget(1);
        assert!(piece.is_unique());
        loans.note(3, &piece);
        loans.forget_all();
        assert!(piece.is_unique());
    }
}
