//! A peer that keeps bytes waiting: since when, and whether it takes enough of them all the same.

use std::time::{Duration, Instant};

/// Since when bytes wait, counted anew whenever the peer has taken enough of them.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    since: Instant,
    taken_then: u64,
}

impl Stall {
    /// Bytes wait from now on; the peer has taken so many before, bytes.
    pub const fn new(now: Instant, taken: u64) -> Self {
        Self {
            since: now,
            taken_then: taken,
        }
    }

    /// The same time, where what the peer takes is counted in another way from now on and is so many by that, bytes.
    pub const fn counted_from(self, taken: u64) -> Self {
        Self {
            since: self.since,
            taken_then: taken,
        }
    }

    /// The same where so long was not the peer's doing.
    pub fn later_by(self, time: Duration) -> Self {
        Self {
            since: self.since + time,
            ..self
        }
    }

    /// Since when.
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The peer has taken that many by now, bytes in all. If `progress` of them are new, its time begins again.
    pub const fn note(&mut self, now: Instant, taken: u64, progress: u64) {
        if taken - self.taken_then >= progress {
            *self = Self::new(now, taken);
        }
    }

    /// When it will have kept them waiting for `limit`. `None`: never, as far as clocks go.
    pub fn until(&self, limit: Duration) -> Option<Instant> {
        self.since.checked_add(limit)
    }
}
