//! What all connections hold of heads that have not come whole, and whose are refused when that is too much.
//!
//! Owns the counts and the choice: whose head has been coming for longest. A head in two packets is there in a round trip; those
//! who fill a core with halves of heads must let them stand. Before them go those who pipeline behind answers that they do not
//! read: nobody looks at what they hold, so nothing of it is known to be young. Large and small ones are counted apart, so that
//! neither costs the other its place. When a head is too late by itself its engine knows.

use std::mem;

use crate::core::admit::NO_ROOM;
use crate::core::client::Seat;
use crate::core::contain::Work;
use crate::core::turn::Core;
use crate::net::{Driver, Key, Now, Task};
use crate::wire::Party;

/// What has come of a small one at most, bytes.
const SMALL_BYTES: usize = 4 << 10;
/// One part in so many of what may be held is made free, so that it is not looked for with every head.
const FREED: usize = 8;

/// What is held of heads that have not come whole, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HalfHeads {
    small: usize,
    large: usize,
}

impl HalfHeads {
    /// All that are as large as that one, or as small.
    const fn like(&mut self, bytes: usize) -> &mut usize {
        match is_small(bytes) {
            true => &mut self.small,
            false => &mut self.large,
        }
    }

    /// With one more.
    pub(super) const fn and(mut self, bytes: u32) -> Self {
        *self.like(bytes as usize) += bytes as usize;
        self
    }
}

const fn is_small(bytes: usize) -> bool {
    bytes <= SMALL_BYTES
}

impl<D: Driver> Core<D> {
    /// Counts what a connection holds of a head that has not come whole, bytes. Whether it has become more.
    pub(super) fn hold_head(&mut self, key: Key, bytes: usize) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        // What is read ahead of one connection is bounded far below that.
        let noted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = mem::replace(&mut connection.head_bytes, noted);
        *self.half_heads.like(before as usize) -= before as usize;
        self.half_heads = self.half_heads.and(noted);
        noted > before
    }

    /// Makes room where there are too many like that one. Whether somebody had to go.
    pub(super) fn relieve_heads(&mut self, bytes: usize, now: Now) -> bool {
        let most = self.snapshot.limits.heads_bytes_max;
        if *self.half_heads.like(bytes) <= most {
            return false;
        }
        let mut coming: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, own)| {
                own.head_bytes > 0 && is_small(own.head_bytes as usize) == is_small(bytes)
            })
            .filter_map(|(key, own)| {
                let (reads, since) = match &own.seat {
                    Seat::Home(engine) => {
                        // What was said in this very turn nobody can have read.
                        let reads = !engine.transport().borrow().is_kept_waiting();
                        (reads, engine.head_since())
                    }
                    // Its heads do not wait for its answers.
                    Seat::Shared(shared) => (true, shared.engine.head_since()),
                    Seat::Lent(_) | Seat::Empty => return None,
                };
                Some((reads, since?, key))
            })
            .collect();
        coming.sort_by_key(|&(reads, since, _)| (reads, since));
        for (.., key) in coming {
            if *self.half_heads.like(bytes) <= most - most / FREED {
                break;
            }
            self.hold_head(key, 0);
            let task = Task::Downstream(key);
            self.contain(Work::Task(task), now, |core| core.refuse_head(key, now));
            if let Some(connection) = self.connections.get(key) {
                connection.wake(&self.reactor.ready, task);
            }
        }
        true
    }

    fn refuse_head(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match &mut connection.seat {
            Seat::Home(_) => self.refuse_for_want_of_room(key, now),
            Seat::Shared(shared) => {
                shared.engine.refuse();
                let words = NO_ROOM.detail.to_owned();
                self.record_malformed(key, "overloaded", words, Party::Proxy, now);
            }
            Seat::Lent(_) | Seat::Empty => {}
        }
    }
}
