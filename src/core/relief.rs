//! Who has to go when all calls together hold more than they may.
//!
//! Owns the choice: those go of whose bytes the oldest have been waiting for longest, whether a caller does not read, or slowly, or
//! a backend does not. So whoever is read as fast as he writes is not made to pay for those who are not, on however many connections
//! they come. Where nobody's bytes are old, a call goes of the client who holds most in all. Calls that hold little are left alone.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::core::client::Seat;
use crate::core::contain::Work;
use crate::core::turn::{Call, Core, Held};
use crate::net::{Driver, Key, Now, Socket, Task};
use crate::wire::Reason;

/// A call that holds no more than that stays, bytes, up to twice of what all may hold: there are many of them, and each costs a look.
const SMALL_BYTES: usize = 4 << 10;
/// One part in so many of what may be held is made free, so that it is not looked for every few bytes.
const FREED: usize = 8;
/// Where that could not be made free, it is looked for again when one part in so many has come.
const GROWN: usize = 64;
/// What has waited for less is on its way: a round trip to somebody who reads.
const OLD_TIME_MIN: Duration = Duration::from_secs(1);

/// Since when the oldest of what a call holds has been waiting.
///
/// Bytes are not told apart: at some moment it is noted how many must have gone on before all that waits then has. Until they have,
/// some of it is as old as that moment; then the next one is noted. So what it says is true, and at least half of the whole age.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog(Option<Noted>);

#[derive(Clone, Copy, Debug)]
struct Noted {
    at: Instant,
    /// How many bytes must have gone on.
    until: u64,
}

impl Backlog {
    /// So many bytes wait `now`, behind so many that have `passed` since the call began.
    fn note(&mut self, passed: u64, waiting: usize, now: Instant) {
        if waiting == 0 {
            self.0 = None;
        } else if self.0.is_none_or(|noted| passed >= noted.until) {
            let until = passed + waiting as u64;
            self.0 = Some(Noted { at: now, until });
        }
    }

    /// Since when, or a little later. `None`: nothing waited when it was noted last.
    fn since(self) -> Option<Instant> {
        self.0.map(|noted| noted.at)
    }
}

impl<S: Socket> Call<S> {
    /// What it holds is looked at again.
    pub(super) fn note_backlog(&mut self, held: &Held, now: Instant) {
        let down = self.exchange.down();
        let (answered, unanswered) = down.answered();
        let request = down.held().0 + held.request;
        let waiting = request + held.answer + unanswered;
        if waiting == 0 {
            self.backlog = Backlog::default();
            return;
        }
        let read = self.exchange.traffic().0.bytes;
        let passed = read.saturating_sub(held.request as u64) + answered;
        self.backlog.note(passed, waiting, now);
    }
}

/// One of those who hold something.
#[derive(Clone, Copy, Debug)]
struct Holder {
    who: Who,
    connection: Key,
    bytes: usize,
    /// Since when some of it has been waiting, if that is long.
    since: Option<Instant>,
    /// Most of it waits for its caller, who does not read, or slowly.
    unread: bool,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Call(Key),
    /// The stream of that number, whose call has ended.
    Leaving(u32),
}

impl<D: Driver> Core<D> {
    /// Makes room, if too much is held.
    pub(super) fn relieve(&mut self, now: Now) {
        let (held, most) = (self.budget.held(), self.budget.bytes_max());
        if held <= most {
            self.unrelieved = None;
            return;
        }
        let spared = if held > 2 * most { 0 } else { SMALL_BYTES };
        if spared > 0
            && self
                .unrelieved
                .is_some_and(|before| held < before + most / GROWN)
        {
            // Those who hold little hold it all.
            self.unrelieved = self.unrelieved.min(Some(held));
            return;
        }
        let enough = most - most / FREED;
        let mut left = held;
        for holder in self.holders(spared, now.instant) {
            if left <= enough {
                break;
            }
            let Holder {
                who,
                connection,
                bytes,
                unread,
                ..
            } = holder;
            // What `h2` holds of a call goes with its stream, and that with the connection's next step.
            left = left.saturating_sub(bytes);
            let task = match who {
                Who::Call(key) => Task::Exchange(key),
                Who::Leaving(_) => Task::Downstream(connection),
            };
            self.contain(Work::Task(task), now, |core| match who {
                Who::Call(key) => core.send_away(key, unread, now),
                Who::Leaving(stream) => core.cut_leaving(connection, stream),
            });
        }
        self.unrelieved = Some(left).filter(|&left| left > most);
    }

    /// Those who hold more than `spared`, bytes, in the order in which they have to go.
    fn holders(&mut self, spared: usize, now: Instant) -> Vec<Holder> {
        let mut holders = Vec::new();
        let old = |since: &Instant| now >= *since + OLD_TIME_MIN;
        for (key, call) in self.exchanges.iter_mut() {
            let held = call.held();
            let down = call.exchange.down();
            let bytes = call.share.bytes() + down.holds();
            if bytes <= spared {
                continue;
            }
            let unanswered = held.answer + down.answered().1;
            // What its socket has taken since its last step, it has not heard of.
            call.note_backlog(&held, now);
            let since = call.backlog.since().filter(old);
            holders.push(Holder {
                who: Who::Call(key),
                connection: call.connection,
                bytes,
                since,
                unread: since.is_some() && unanswered > bytes / 2,
            });
        }
        for (key, connection) in self.connections.iter() {
            let Seat::Shared(shared) = &connection.seat else {
                continue;
            };
            for stream in shared.engine.leaving() {
                let bytes = stream.holds();
                if bytes > spared {
                    holders.push(Holder {
                        who: Who::Leaving(stream.id()),
                        connection: key,
                        bytes,
                        since: stream.leaving_since().filter(old),
                        unread: true,
                    });
                }
            }
        }
        let mut clients = HashMap::new();
        for holder in &holders {
            *clients.entry(holder.connection).or_insert(0) += holder.bytes;
        }
        holders.sort_by_cached_key(|holder| {
            let client = clients.get(&holder.connection).copied();
            let Holder { bytes, since, .. } = *holder;
            (since.is_none(), since, Reverse(client), Reverse(bytes))
        });
        holders
    }

    /// Cuts one that leaves.
    fn cut_leaving(&mut self, key: Key, stream: u32) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Seat::Shared(shared) = &mut connection.seat
        {
            shared.engine.cut_leaving(stream);
            self.wake(Task::Downstream(key));
        }
    }

    /// Ends a call. `cut`: its caller does not read, so what waits for it goes at once, and it is not told.
    fn send_away(&mut self, key: Key, cut: bool, now: Now) {
        let Some(call) = self.exchanges.get_mut(key) else {
            return;
        };
        let cx = &mut Context::from_waker(call.wakeup.waker());
        let outcome = match cut {
            true => call.exchange.cut(Reason::Overloaded),
            false => call.exchange.abandon(Reason::Overloaded, now.instant, cx),
        };
        self.finish(key, outcome, now);
    }
}
