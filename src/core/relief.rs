//! Who has to go when all calls together hold more than they may.
//!
//! Owns the choice: whoever has been keeping bytes waiting for longest, since that is what fills a core; where nobody does, whoever
//! holds most. Somebody who reads is not made to pay for those who do not. It never looks at calls that hold little.

use std::cmp::Reverse;
use std::task::Context;
use std::time::Instant;

use crate::core::client::Seat;
use crate::core::contain::Work;
use crate::core::turn::Core;
use crate::downstream::Stream;
use crate::net::{Driver, Key, Now, Task};
use crate::wire::Reason;

/// A call that holds no more than that stays, bytes, up to twice of what all may hold: there are many of them, and each costs a look.
const SMALL_BYTES: usize = 4 << 10;
/// One part in so many of what may be held is made free, so that it is not looked for every few bytes.
const FREED: usize = 8;

/// One of those who hold something.
#[derive(Clone, Copy, Debug)]
enum Holder {
    Call(Key),
    /// A stream of that connection whose call has ended.
    Leaving(Key),
}

impl<D: Driver> Core<D> {
    /// Makes room, if too much is held.
    pub(super) fn relieve(&mut self, now: Now) {
        let (held, most) = (self.budget.held(), self.budget.bytes_max());
        if held <= most {
            return;
        }
        let enough = most - most / FREED;
        let spared = if held > 2 * most { 0 } else { SMALL_BYTES };
        for (since, holder) in self.holders(spared) {
            if self.budget.held() <= enough {
                break;
            }
            let work = Work::Task(match holder {
                Holder::Call(key) => Task::Exchange(key),
                Holder::Leaving(key) => Task::Downstream(key),
            });
            self.contain(work, now, |core| match (holder, since) {
                (Holder::Call(key), since) => core.send_away(key, since.is_some(), now),
                (Holder::Leaving(key), Some(since)) => core.cut_leaving(key, since),
                (Holder::Leaving(_), None) => {}
            });
        }
    }

    /// Those who hold more than `spared`, bytes, in the order in which they have to go, each with the time since when it keeps bytes
    /// waiting.
    fn holders(&self, spared: usize) -> Vec<(Option<Instant>, Holder)> {
        let mut holders = Vec::new();
        for (key, call) in self.exchanges.iter() {
            let down = call.exchange.down();
            let (request, answer) = down.held();
            let bytes = request + answer + call.share.bytes();
            if bytes > spared {
                holders.push((
                    self.stalled_since(down, call.connection),
                    bytes,
                    Holder::Call(key),
                ));
            }
        }
        for (key, connection) in self.connections.iter() {
            if let Seat::Shared(shared) = &connection.seat {
                let leaving = shared.engine.leaving_stalled();
                holders.extend(leaving.map(|(at, bytes)| (Some(at), bytes, Holder::Leaving(key))));
            }
        }
        holders.sort_by_key(|&(since, bytes, _)| (since.is_none(), since, Reverse(bytes)));
        let who = holders.into_iter();
        who.map(|(since, _, holder)| (since, holder)).collect()
    }

    fn stalled_since(&self, down: &Stream<D::Socket>, connection: Key) -> Option<Instant> {
        match down {
            Stream::Http1(_) => {
                let connection = self.connections.get(connection)?;
                let place = self.reactor.transports.get(connection.transport)?;
                place.transport.borrow().stalled_since()
            }
            Stream::Http2(stream) => stream.stalled_since(),
        }
    }

    /// Cuts those that leave and have been waiting for window since then, or for longer.
    fn cut_leaving(&mut self, key: Key, since: Instant) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Seat::Shared(shared) = &mut connection.seat
        {
            shared.engine.cut_leaving(since);
            self.wake(Task::Downstream(key));
        }
    }

    /// Ends a call. `cut`: its caller reads nothing, so what waits for it goes at once, and it is not told.
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
