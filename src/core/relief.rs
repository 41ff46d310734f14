//! Who has to go when all calls together hold more than they may.
//!
//! Owns the choice: what is only kept to be sent again goes first, and costs nobody his call. Then those go of whose bytes the
//! oldest have been waiting for longest, whether a caller does not read, or slowly, or a backend does not. So whoever is read as
//! fast as he writes is not made to pay for those who are not, on however many connections they come. Where nobody's bytes are old,
//! a call goes of the client who holds most in all. Calls that hold little are left alone.

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

/// How long the oldest of what a call holds has been waiting, each way by itself: what goes on one way is none of what stands still
/// the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    request: Oldest,
    answer: Oldest,
}

/// How long the oldest of what waits one way has been waiting.
///
/// Bytes are not told apart: at some moment it is noted how many must have gone on before all that waits then has. Until they have,
/// some of it is as old as that moment; then the next one is noted. What waits behind it is taken for as old as those were that went
/// on last, until it is older: where bytes go on steadily that is so, and where they begin to go on fast it is soon noted.
/// Nobody says when bytes go on, only how many have whenever somebody looks. Where all has that was there at the last look, what
/// waits now is new, and when the last of those went is not known: they waited until that look, and not for all the time that was
/// quiet since.
/// Where content grows on its way (answers in text) more bytes go on than have waited, and it may say less.
#[derive(Clone, Copy, Debug, Default)]
struct Oldest {
    noted: Option<Noted>,
    /// How long it took those to go on that were noted before.
    took: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    at: Instant,
    /// How many bytes must have gone on.
    until: u64,
    seen: Seen,
}

/// What was there at the last look.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    /// How many bytes have gone on when all of it has.
    all: u64,
}

impl Oldest {
    /// So it is `now`.
    fn note(&mut self, moved: Moved, now: Instant) {
        let Moved { passed, waiting } = moved;
        if waiting == 0 {
            *self = Self::default();
            return;
        }
        let all = passed + waiting as u64;
        let seen = Seen { at: now, all };
        if let Some(noted) = &mut self.noted {
            let until = match () {
                () if passed >= noted.seen.all => noted.seen.at,
                () if passed >= noted.until => now,
                () => {
                    noted.seen = seen;
                    return;
                }
            };
            self.took = until.saturating_duration_since(noted.at);
        }
        self.noted = Some(Noted {
            at: now,
            until: all,
            seen,
        });
    }

    /// Its age `now`. `None`: nothing waited when it was noted last.
    fn age(self, now: Instant) -> Option<Duration> {
        let noted = self.noted?;
        Some(self.took.max(now.saturating_duration_since(noted.at)))
    }
}

/// What a call has moved one way, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    passed: u64,
    waiting: usize,
}

impl Backlog {
    fn note(&mut self, request: Moved, answer: Moved, now: Instant) {
        self.request.note(request, now);
        self.answer.note(answer, now);
    }

    /// How old the oldest of both is `now`, if that is much.
    fn age(&self, now: Instant) -> Option<Duration> {
        self.request_age(now).max(self.answer_age(now))
    }

    /// Of what waits for a backend.
    fn request_age(&self, now: Instant) -> Option<Duration> {
        self.request.age(now).filter(is_old)
    }

    /// Of what waits for its caller.
    fn answer_age(&self, now: Instant) -> Option<Duration> {
        self.answer.age(now).filter(is_old)
    }
}

fn is_old(age: &Duration) -> bool {
    *age >= OLD_TIME_MIN
}

impl<S: Socket> Call<S> {
    /// What it holds is looked at again.
    pub(super) fn note_backlog(&mut self, held: &Held, now: Instant) {
        let down = self.exchange.down();
        let (answered, unanswered) = down.answered();
        let unsent = down.held().0 + held.request;
        let unread = held.answer + unanswered;
        if unsent + unread == 0 {
            self.backlog = Backlog::default();
            return;
        }
        // As its caller wrote it, as what has not been taken of it is: what is held behind that is no larger.
        let taken = self.exchange.read();
        let request = Moved {
            passed: taken.saturating_sub(held.request as u64),
            waiting: unsent,
        };
        let answer = Moved {
            passed: answered,
            waiting: unread,
        };
        self.backlog.note(request, answer, now);
    }
}

/// One of those who hold something.
#[derive(Clone, Copy, Debug)]
struct Holder {
    who: Who,
    connection: Key,
    bytes: usize,
    /// How long some of it has been waiting, if that is much.
    age: Option<Duration>,
    /// Some of that waits for its caller, who does not read, or slowly.
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
        self.forget_kept(spared, enough);
        let mut left = self.budget.held();
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

    /// What is only kept to be sent again goes before any call has to, until no more than `enough` is held: nothing waits for it, and
    /// few ever need it. Of those who hold more than `spared`, bytes.
    fn forget_kept(&mut self, spared: usize, enough: usize) {
        for (_, call) in self.exchanges.iter_mut() {
            if self.budget.held() <= enough {
                return;
            }
            if call.share.bytes() > spared && call.held().kept > 0 {
                call.exchange.forget_kept();
                let held = call.held();
                call.share.hold(held.all);
            }
        }
    }

    /// Those who hold more than `spared`, bytes, in the order in which they have to go.
    fn holders(&mut self, spared: usize, now: Instant) -> Vec<Holder> {
        let mut holders = Vec::new();
        for (key, call) in self.exchanges.iter_mut() {
            let held = call.held();
            let down = call.exchange.down();
            let bytes = call.share.bytes() + down.holds();
            if bytes <= spared {
                continue;
            }
            // What its socket has taken since its last step, it has not heard of.
            call.note_backlog(&held, now);
            holders.push(Holder {
                who: Who::Call(key),
                connection: call.connection,
                bytes,
                age: call.backlog.age(now),
                unread: call.backlog.answer_age(now).is_some(),
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
                        age: stream
                            .leaving_since()
                            .map(|since| now.saturating_duration_since(since))
                            .filter(is_old),
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
            let Holder { bytes, age, .. } = *holder;
            (Reverse(age), Reverse(client), Reverse(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn r_09_what_stands_still_one_way_is_old_however_much_goes_the_other() {
        let began = Instant::now();
        let [still, flowing] = [0, 1].map(|flows| {
            move |second: u64| Moved {
                passed: flows * second * 40_000,
                waiting: 50_000,
            }
        });
        let (mut talks, mut listens) = (Backlog::default(), Backlog::default());
        for second in 0..10 {
            let now = began + SECOND * u32::try_from(second).expect("few");
            talks.note(flowing(second), still(second), now);
            listens.note(still(second), flowing(second), now);
        }
        let now = began + 9 * SECOND + SECOND / 2;
        for (backlog, request, answer) in [
            (talks, 2 * SECOND, 19 * SECOND / 2),
            (listens, 19 * SECOND / 2, 2 * SECOND),
        ] {
            assert_eq!(backlog.request_age(now), Some(request));
            assert_eq!(backlog.answer_age(now), Some(answer));
            assert_eq!(backlog.age(now), Some(19 * SECOND / 2));
        }
    }

    #[test]
    fn r_09_what_waits_is_old_until_as_much_has_gone_on_as_waited() {
        let began = Instant::now();
        let mut oldest = Oldest::default();
        let mut age = |second: u32, passed, waiting| {
            let now = began + second * SECOND;
            oldest.note(Moved { passed, waiting }, now);
            oldest.age(now)
        };
        assert_eq!(age(0, 0, 100), Some(Duration::ZERO));
        assert_eq!(age(3, 99, 500), Some(3 * SECOND));
        // What waits behind them has waited as long.
        assert_eq!(age(4, 100, 500), Some(4 * SECOND));
        assert_eq!(age(9, 599, 100), Some(5 * SECOND));
        assert_eq!(age(10, 600, 110), Some(6 * SECOND));
        // Soon it goes fast.
        assert_eq!(age(11, 709, 20), Some(6 * SECOND));
        assert_eq!(age(12, 710, 20), Some(2 * SECOND));
        assert_eq!(age(13, 730, 20), Some(Duration::ZERO));
        assert_eq!(age(14, 750, 0), None);
    }

    #[test]
    fn r_09_what_went_on_while_nobody_looked_is_not_taken_for_slow() {
        let began = Instant::now();
        let mut oldest = Oldest::default();
        let mut age = |second: u32, passed, waiting| {
            let now = began + second * SECOND;
            oldest.note(Moved { passed, waiting }, now);
            oldest.age(now)
        };
        // It comes in two pieces, and nothing is seen of its going.
        assert_eq!(age(0, 0, 10), Some(Duration::ZERO));
        assert_eq!(age(0, 0, 100), Some(Duration::ZERO));
        assert_eq!(age(20, 100, 50), Some(Duration::ZERO));
        // This one was seen to wait, for some of the time.
        assert_eq!(age(23, 120, 30), Some(3 * SECOND));
        assert_eq!(age(40, 150, 50), Some(3 * SECOND));
        assert_eq!(age(60, 200, 50), Some(Duration::ZERO));
        // Of that some is left, which has waited for all the time.
        assert_eq!(age(70, 200, 60), Some(10 * SECOND));
        assert_eq!(age(80, 250, 10), Some(20 * SECOND));
    }

    #[test]
    fn r_09_what_goes_on_steadily_is_as_old_as_it_waits_at_any_time() {
        const DELAY: u32 = 10;
        let began = Instant::now();
        let mut oldest = Oldest::default();
        for second in 1..6 * DELAY {
            let now = began + second * SECOND;
            // A byte comes each second, and goes on as much later.
            let moved = Moved {
                passed: second.saturating_sub(DELAY).into(),
                waiting: second.min(DELAY) as usize,
            };
            oldest.note(moved, now);
            if second > 2 * DELAY {
                assert_eq!(oldest.age(now), Some(DELAY * SECOND));
            }
        }
    }
}
