//! What a peer's frames look like on their way to `h2`: whole frames, and without those that mean nothing.
//!
//! `h2` ends a connection at the 101st empty DATA frame of its life (0.4.20, not configurable); a peer that sends one with every
//! message would lose every hundredth call. Such frames are taken out here, and the window that the padding of one has used is
//! given back from here. Owns no limit: whoever looks at each frame says what is too much.

use std::collections::BTreeMap;
use std::mem;

use bytes::Buf;

use crate::wire::http2::{FRAME_HEAD_BYTES, FrameHead, flag, kind};

/// The head of a DATA frame with so much content goes first and by itself: `h2` then makes room for the whole, and does not
/// move what it had room for already. Bytes; just under what its buffer begins with.
pub const LARGE_BYTES: usize = 4 << 10;
/// So many frames are handed on together at most, so that whoever counts them can stop.
pub const TOGETHER_MAX: u32 = 256;
/// A window as large as there is one (RFC 9113 §6.9.1), bytes.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// A walk over what comes in on one connection.
#[derive(Debug)]
pub struct Entering {
    /// Up to this stream frames that mean nothing are taken out; beyond it they are `h2`'s to judge.
    pub known: u32,
    /// So many frames are handed on together at most.
    pub together_max: u32,
    /// Frames that have begun since somebody asked.
    frames: u32,
    /// Bytes of the present frame that are still to be handed on.
    left: usize,
    /// Bytes of it that are handed on only when those are gone.
    behind: usize,
    /// Bytes of padding, or of what falls, that are still to be thrown away.
    padding: usize,
    /// Window that padding has used and that is not given back yet, by stream.
    owed: BTreeMap<u32, u32>,
}

/// What becomes of a frame that could be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is.
    Passes,
    /// `h2` does not hear of it.
    Falls,
}

/// A frame that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It will be handed on, unless whoever looks says otherwise.
    HandedOn(FrameHead),
    /// It means nothing and is taken out.
    TakenOut {
        /// Which.
        frame: FrameHead,
        /// Window that is owed to its stream now, bytes.
        owed: u32,
        /// How many streams are owed some.
        streams_owed: usize,
    },
}

impl Default for Entering {
    fn default() -> Self {
        Self {
            known: u32::MAX,
            together_max: TOGETHER_MAX,
            frames: 0,
            left: 0,
            behind: 0,
            padding: 0,
            owed: BTreeMap::new(),
        }
    }
}

impl Entering {
    /// How many bytes at the front of `unread` may be handed on now, zero: more are needed. `judge` is told of each frame that
    /// begins, sees what is unread from there on, and says whether it passes; what it refuses ends the walk. Of one that is taken
    /// out it sees what is behind its head.
    #[inline]
    pub fn pass<E>(
        &mut self,
        unread: &mut impl Buf,
        mut judge: impl FnMut(Met, &[u8]) -> Result<Fate, E>,
    ) -> Result<usize, E> {
        loop {
            if self.padding > 0 {
                let gone = self.padding.min(unread.remaining());
                unread.advance(gone);
                self.padding -= gone;
            }
            if self.left == 0 {
                self.left = mem::take(&mut self.behind);
            }
            if self.left > 0 {
                return Ok(self.left.min(unread.remaining()));
            }
            let Some(frame) = FrameHead::parse(unread.chunk()) else {
                return Ok(0);
            };
            let length = frame.length;
            let padding = match (frame.kind, frame.flags & (flag::PADDED | flag::END_STREAM)) {
                // The connection has no DATA of its own, and streams of a server there are none: `h2` shall find that, and end it
                // (RFC 9113 §5.1.1, §6.1).
                _ if frame.stream.is_multiple_of(2) || frame.stream > self.known => None,
                (kind::DATA, 0) if length == 0 => Some(0),
                (kind::DATA, flag::PADDED) if length > 0 => {
                    match unread.chunk().get(FRAME_HEAD_BYTES) {
                        // The length of the padding counts as padding.
                        Some(&pad) if usize::from(pad) + 1 == length => Some(length),
                        Some(_) => None,
                        None => return Ok(0),
                    }
                }
                _ => None,
            };
            match padding {
                Some(padding) => {
                    unread.advance(FRAME_HEAD_BYTES);
                    let met = self.take_out(frame, padding);
                    judge(met, unread.chunk())?;
                }
                None => {
                    if judge(Met::HandedOn(frame), unread.chunk())? == Fate::Falls {
                        unread.advance(FRAME_HEAD_BYTES);
                        self.padding = length;
                        continue;
                    }
                    self.frames = self.frames.saturating_add(1);
                    self.left = FRAME_HEAD_BYTES + length;
                    if frame.kind == kind::DATA && length >= LARGE_BYTES {
                        self.behind =
                            mem::replace(&mut self.left, FRAME_HEAD_BYTES) - FRAME_HEAD_BYTES;
                    } else if frame.kind == kind::DATA && frame.flags == 0 {
                        let more = self.together_max.saturating_sub(1);
                        let (bytes, frames) =
                            same_data_behind(unread.chunk(), self.left, frame.stream, more);
                        self.left += bytes;
                        self.frames = self.frames.saturating_add(frames);
                    }
                }
            }
        }
    }

    fn take_out(&mut self, frame: FrameHead, padding: usize) -> Met {
        self.padding = padding;
        let mut owed = 0;
        if padding > 0 {
            let own = self.owed.entry(frame.stream).or_default();
            *own = own.saturating_add(u32::try_from(padding).unwrap_or(u32::MAX));
            owed = *own;
        }
        Met::TakenOut {
            frame,
            owed,
            streams_owed: self.owed.len(),
        }
    }

    /// How many frames were handed on since this was asked last, each counted as it begins.
    pub fn take_frames(&mut self) -> u32 {
        mem::take(&mut self.frames)
    }

    /// So many bytes were handed on. Whether a frame has ended with them.
    #[inline]
    pub fn passed(&mut self, bytes: usize) -> bool {
        self.left -= bytes;
        self.left == 0 && self.behind == 0
    }

    /// Whether window is owed to the peer.
    pub fn owes_answer(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The frames that give back what is owed.
    pub fn take_answer(&mut self) -> Option<Vec<u8>> {
        if self.owed.is_empty() {
            return None;
        }
        let owed = mem::take(&mut self.owed);
        let all: u64 = owed.values().map(|&bytes| u64::from(bytes)).sum();
        let all = u32::try_from(all).unwrap_or(u32::MAX).min(WINDOW_BYTES_MAX);
        let mut answer = Vec::new();
        for (stream, bytes) in owed.into_iter().chain([(0, all)]) {
            answer.extend([0, 0, 4, kind::WINDOW_UPDATE, 0]);
            answer.extend(stream.to_be_bytes());
            answer.extend(bytes.to_be_bytes());
        }
        Some(answer)
    }
}

/// How long the plain DATA frames of that stream are that follow one another from `at` on, the last maybe only begun, and how many;
/// no more than `most`.
/// Handed on together they cost `h2` one read, and what it finds wrong it still found on that stream.
fn same_data_behind(unread: &[u8], at: usize, stream: u32, most: u32) -> (usize, u32) {
    let mut end = at;
    let mut frames = 0;
    while frames < most
        && let Some(frame) = unread.get(end..).and_then(FrameHead::parse)
    {
        // An empty one is taken out, and a large one begins by itself.
        if frame.kind != kind::DATA
            || frame.flags != 0
            || frame.length == 0
            || frame.length >= LARGE_BYTES
            || frame.stream != stream
        {
            break;
        }
        end += FRAME_HEAD_BYTES + frame.length;
        frames += 1;
    }
    (end - at, frames)
}
