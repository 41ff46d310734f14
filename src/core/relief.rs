//! Who has to go when all calls together hold more than they may.
//!
//! Owns the choice: what has stood still for longest, whether its caller does not read or its backend does not; where nothing
//! stands still, a call of the client who holds most in all. Somebody who reads, or writes and is read, is not made to pay for
//! those who do not. Calls that hold little are left alone.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::task::Context;
use std::time::{Duration, Instant};

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
/// Where that could not be made free, it is looked for again when one part in so many has come.
const GROWN: usize = 64;
/// What has waited for less is on its way: a round trip to somebody who reads.
const STILL_TIME_MIN: Duration = Duration::from_secs(1);

/// One of those who hold something.
#[derive(Clone, Copy, Debug)]
struct Holder {
    who: Who,
    connection: Key,
    bytes: usize,
    /// Since when nothing of it has moved, if that is long.
    since: Option<Instant>,
    /// Its caller does not read.
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
    fn holders(&self, spared: usize, now: Instant) -> Vec<Holder> {
        let mut holders = Vec::new();
        let long = |since: &Instant| now >= *since + STILL_TIME_MIN;
        let mut hold = |who, connection, bytes, unread: Option<Instant>, still: Option<Instant>| {
            if bytes > spared {
                let unread = unread.filter(long);
                holders.push(Holder {
                    who,
                    connection,
                    bytes,
                    since: unread.into_iter().chain(still.filter(long)).min(),
                    unread: unread.is_some(),
                });
            }
        };
        for (key, call) in self.exchanges.iter() {
            let connection = call.connection;
            let down = call.exchange.down();
            let bytes = call.share.bytes() + down.holds();
            let unread = self.unread_since(down, connection);
            hold(Who::Call(key), connection, bytes, unread, call.still_since);
        }
        for (key, connection) in self.connections.iter() {
            let Seat::Shared(shared) = &connection.seat else {
                continue;
            };
            let unread = self.socket_unread_since(connection.transport);
            for stream in shared.engine.leaving() {
                let unread = stream.stalled_since().or(unread);
                hold(Who::Leaving(stream.id()), key, stream.holds(), unread, None);
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

    /// Since when its caller has been keeping bytes waiting.
    fn unread_since(&self, down: &Stream<D::Socket>, connection: Key) -> Option<Instant> {
        let socket = || self.socket_unread_since(self.connections.get(connection)?.transport);
        match down {
            Stream::Http1(_) => socket(),
            Stream::Http2(stream) => stream
                .stalled_since()
                .or_else(|| stream.unwritten().and_then(|_| socket())),
        }
    }

    fn socket_unread_since(&self, transport: Key) -> Option<Instant> {
        let place = self.reactor.transports.get(transport)?;
        place.transport.borrow().stalled_since()
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
