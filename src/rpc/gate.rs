//! The gate that messages pass untouched: it reads every prefix, refuses what may not pass, and lets nothing through that is
//! not the whole of a prefix.
//!
//! Owns the border between what was let through and what was not: the reader is inside a message exactly where a payload has
//! been begun and not ended. It copies nothing but a prefix that a cut went through.

use bytes::Bytes;

use crate::wire::envelope::{COMPRESSED, Prefix, Step, Walker};
use crate::wire::{Reason, Reset};

/// What may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateFault {
    /// A message with that flag set, which is not known or not allowed here.
    Flags(u8),
    /// A message that declares to be longer than the limit.
    TooLarge,
}

impl GateFault {
    /// What it is in a request whose messages may be that long.
    pub(super) fn of_request(self, message_bytes_max: u32) -> Reset {
        Reset::downstream(match self {
            Self::TooLarge => Reason::MessageTooLarge(message_bytes_max),
            Self::Flags(_) => Reason::ClientProtocol(UNKNOWN_FLAGS),
        })
    }

    /// What it is in an answer whose messages may be that long.
    pub(super) fn of_answer(self, message_bytes_max: u32) -> Reset {
        Reset::upstream(match self {
            Self::TooLarge => Reason::MessageTooLarge(message_bytes_max),
            Self::Flags(COMPRESSED) => {
                Reason::BackendProtocol("a compressed message without grpc-encoding")
            }
            Self::Flags(_) => Reason::BackendProtocol(UNKNOWN_FLAGS),
        })
    }
}

const UNKNOWN_FLAGS: &str = "a message has flags that gRPC does not know";

/// Whether messages may say that they are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compressed {
    /// The reader knows what to do with them.
    Allowed,
    /// Nothing says how to unpack them.
    Refused,
}

/// A gate for one direction of one call.
#[derive(Debug)]
pub(super) struct Gate {
    walker: Walker,
    compressed: Compressed,
    message_bytes_max: u32,
    bytes: u64,
}

impl Gate {
    pub(super) fn new(compressed: Compressed, message_bytes_max: u32) -> Self {
        Self {
            walker: Walker::new(),
            compressed,
            message_bytes_max,
            bytes: 0,
        }
    }

    /// Lets through what may pass. What stands before a fault in the same piece has been let through.
    pub(super) fn pass(
        &mut self,
        data: Bytes,
        emit: &mut impl FnMut(Bytes),
    ) -> Result<(), GateFault> {
        // Everything before `passed` has been let through, everything before `at` has been walked.
        let mut passed = 0;
        let mut at = 0;
        loop {
            let before = self.walker;
            let (used, step) = self.walker.step(data.get(at..).unwrap_or_default());
            match step {
                Step::Payload(_) => {}
                Step::Prefix(prefix) => {
                    if let Err(fault) = self.admit(prefix) {
                        self.walker = before;
                        self.let_through(data, passed, at, emit);
                        return Err(fault);
                    }
                    if before.begun_bytes() > 0 {
                        // Its first bytes came with an earlier piece and were kept back.
                        let whole = Bytes::copy_from_slice(&prefix.to_bytes());
                        let end = whole.len();
                        self.let_through(whole, 0, end, emit);
                        passed = used;
                    }
                }
                Step::Hungry => {
                    self.let_through(data, passed, at, emit);
                    return Ok(());
                }
            }
            at += used;
        }
    }

    /// The writer has ended a message, and a stream may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.walker.at_boundary()
    }

    /// What was let through ends with a whole message.
    pub(super) fn is_aligned(&self) -> bool {
        self.walker.remaining() == 0
    }

    pub(super) fn message_bytes_max(&self) -> u32 {
        self.message_bytes_max
    }

    pub(super) fn messages(&self) -> u64 {
        self.walker.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn admit(&self, prefix: Prefix) -> Result<(), GateFault> {
        match (prefix.flags, self.compressed) {
            (0, _) | (COMPRESSED, Compressed::Allowed) => {}
            (flags, _) => return Err(GateFault::Flags(flags)),
        }
        if prefix.length > self.message_bytes_max {
            return Err(GateFault::TooLarge);
        }
        Ok(())
    }

    fn let_through(&mut self, data: Bytes, from: usize, to: usize, emit: &mut impl FnMut(Bytes)) {
        if from >= to {
            return;
        }
        self.bytes += (to - from) as u64;
        if from == 0 && to == data.len() {
            emit(data);
        } else {
            emit(data.slice(from..to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::prefix;

    struct Passed {
        bytes: Vec<u8>,
        pieces: usize,
        fault: Option<GateFault>,
        aligned: bool,
        whole: bool,
        messages: u64,
    }

    fn pass(pieces: &[&[u8]], compressed: Compressed, max: u32) -> Passed {
        let mut gate = Gate::new(compressed, max);
        let mut passed = Vec::new();
        let mut count = 0;
        let mut fault = None;
        for piece in pieces {
            let mut emit = |piece: Bytes| {
                assert!(!piece.is_empty());
                count += 1;
                passed.extend_from_slice(&piece);
            };
            if let Err(refused) = gate.pass(Bytes::copy_from_slice(piece), &mut emit) {
                fault = Some(refused);
                break;
            }
        }
        assert_eq!(gate.bytes(), passed.len() as u64);
        Passed {
            bytes: passed,
            pieces: count,
            fault,
            aligned: gate.is_aligned(),
            whole: gate.is_whole(),
            messages: gate.messages(),
        }
    }

    fn message(flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short");
        [&prefix(flags, length)[..], payload].concat()
    }

    fn stream() -> Vec<u8> {
        [
            message(0, b"hello"),
            message(1, b"packed"),
            message(0, b""),
            message(0, b"end"),
        ]
        .concat()
    }

    #[test]
    fn one_piece_passes_as_one_piece_untouched() {
        let bytes = Bytes::from(stream());
        let mut gate = Gate::new(Compressed::Allowed, 100);
        let mut out = Vec::new();
        gate.pass(bytes.clone(), &mut |piece| out.push(piece))
            .expect("no fault");
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), bytes.as_ptr(), "moved, not copied");
        assert_eq!(out[0], bytes);
    }

    #[test]
    fn every_split_lets_the_same_bytes_through() {
        let bytes = stream();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let cut: [&[u8]; 3] = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let passed = pass(&cut, Compressed::Allowed, 6);
                assert_eq!(passed.bytes, bytes);
                assert_eq!(passed.fault, None);
                assert!(passed.aligned && passed.whole);
                assert_eq!(passed.messages, 4);
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(pass(&single, Compressed::Allowed, 6).bytes, bytes);
    }

    #[test]
    fn a_begun_prefix_is_kept_back_so_that_the_reader_stays_aligned() {
        let bytes = stream();
        for cut in 0..=bytes.len() {
            let passed = pass(&[&bytes[..cut]], Compressed::Allowed, 6);
            // Messages lie at 0..10, 10..21, 21..26, 26..34.
            let starts = [0, 10, 21, 26, 34];
            let start = starts.into_iter().rev().find(|&start| start <= cut);
            let begun = cut - start.expect("zero is a start");
            let kept_back = if begun < 5 { begun } else { 0 };
            assert_eq!(passed.bytes, bytes[..cut - kept_back], "cut at {cut}");
            assert_eq!(passed.aligned, begun < 5, "cut at {cut}");
            assert_eq!(passed.whole, begun == 0, "cut at {cut}");
            assert!(passed.pieces <= 1);
        }
    }

    #[test]
    fn a_fault_lets_nothing_of_its_message_through_at_any_split() {
        let rows = [
            (message(2, b"odd"), Compressed::Allowed, GateFault::Flags(2)),
            (
                message(0x80, b"x: y\r\n"),
                Compressed::Allowed,
                GateFault::Flags(0x80),
            ),
            (
                message(0x81, b""),
                Compressed::Allowed,
                GateFault::Flags(0x81),
            ),
            (
                message(1, b"packed"),
                Compressed::Refused,
                GateFault::Flags(1),
            ),
            (
                message(0, b"seven b"),
                Compressed::Allowed,
                GateFault::TooLarge,
            ),
            (
                prefix(0, u32::MAX).to_vec(),
                Compressed::Allowed,
                GateFault::TooLarge,
            ),
        ];
        for (bad, compressed, fault) in rows {
            let good = [message(0, b"sixsix"), message(0, b"")].concat();
            let bytes = [&good[..], &bad].concat();
            for cut in 0..=bytes.len() {
                let passed = pass(&[&bytes[..cut], &bytes[cut..]], compressed, 6);
                assert_eq!(passed.fault, Some(fault), "cut at {cut}");
                assert_eq!(passed.bytes, good, "cut at {cut}");
                assert!(passed.aligned, "cut at {cut}");
                assert_eq!(passed.messages, 2);
            }
        }
    }
}
