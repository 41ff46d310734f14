//! A panic ends the key that was being advanced, and nothing else: the call, the connection, the client at the door.
//!
//! Owns what is lost and what is mended after one, and the budget: a core that panics too often ends by itself. It never looks
//! at what went wrong. What a panic may have left half done is found by looking at all there is: panics are rare, and then
//! nothing is taken for granted.
//!
//! Where `h2` was interrupted under its lock, every call on that connection is lost with it: its handles panic whenever they
//! are touched, so they are left behind in memory.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::core::admit::blank_head;
use crate::core::client::Seat;
use crate::core::drain::Drain;
use crate::core::messages::Report;
use crate::core::turn::Core;
use crate::net::{Driver, Key, Now, Task};
use crate::telemetry::{Record, panics};
use crate::upstream;
use crate::wire::Reason;

/// So many panics in so long are survived; with more, something is rotten, and the core ends.
const PANICS_MAX: usize = 64;
const PANICS_SPAN: Duration = Duration::from_secs(10);
/// How long the calls of a core that ends so may go on.
const LAST_CALLS_TIME: Duration = Duration::from_secs(5);

/// How often a core has panicked.
#[derive(Debug, Default)]
pub(super) struct Panics {
    recent: VecDeque<Instant>,
    pub(super) total: u64,
    /// There were too many: the core ends, and says that it has failed.
    pub(super) rotten: bool,
}

/// What was being done, by whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// One key was advanced, or its socket was written.
    Task(Task),
    /// A command was obeyed.
    Command,
    /// What belongs to no key that is there already: a client at the door, a connection that was wanted.
    Other,
}

impl<D: Driver> Core<D> {
    /// Does one piece of work. `None`: it panicked, and whoever it was for is gone; everybody else goes on.
    pub(super) fn contain<T>(
        &mut self,
        work: Work,
        now: Now,
        step: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let done = panics::contained(|| step(self));
        if done.is_none() {
            self.lose(work, now);
        }
        done
    }

    /// How many panics it has survived.
    pub fn panics(&self) -> u64 {
        self.panics.total
    }

    /// After a panic: whoever it was for goes, and what it has left half done is found.
    #[cold]
    pub(super) fn lose(&mut self, work: Work, now: Now) {
        match work {
            Work::Task(Task::Exchange(key)) => self.lose_call(key, Reason::Panic, true, now),
            Work::Task(Task::Downstream(key)) => self.lose_connection(key, now),
            Work::Task(Task::Upstream(key)) => {
                // Its calls learn from `h2` that it is lost.
                panics::contained(|| self.pool.lose(key, &mut self.reactor, now.instant));
            }
            Work::Command => {
                // A snapshot that was adopted by half is left by adopting the present one again.
                self.pool.adopt(&self.snapshot);
                if self.drain != Drain::No {
                    self.close_doors(now);
                }
            }
            Work::Other => {}
        }
        self.mend(now);
        self.count_panic(now);
    }

    /// Ends a call in the middle of whatever it was doing. `heard`: its caller may still be told.
    fn lose_call(&mut self, key: Key, reason: Reason, heard: bool, now: Now) {
        let Some(call) = self.exchanges.get_mut(key) else {
            return;
        };
        release(call.exchange.take_upstream());
        let cx = &mut Context::from_waker(call.wakeup.waker());
        let told = heard.then(|| {
            panics::contained(|| match reason {
                // What was read of the request, or told of the answer, may be lost.
                Reason::Panic => call.exchange.fail(now.instant, cx),
                // It has done nothing wrong itself.
                reason => call.exchange.abandon(reason, now.instant, cx),
            })
        });
        let outcome = told.flatten().unwrap_or_else(|| call.exchange.cut(reason));
        let connection = call.connection;
        let (records, peer) = (self.records, self.peer(connection));
        if panics::contained(|| self.finish(key, outcome, now)).is_none() {
            // Its engine is gone with it; `mend` closes the connection.
            self.exchanges.remove(key);
            if self.records == records {
                self.record_lost(peer, now);
            }
        }
    }

    /// Closes a client's connection where it stands: what has been written of it is not known.
    fn lose_connection(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if let Some(place) = self.reactor.transports.get(connection.transport) {
            place.transport.borrow_mut().give_up();
        }
        let calls = self.exchanges.iter();
        let calls = calls.filter(|(_, call)| call.connection == key);
        for call in calls.map(|(key, _)| key).collect::<Vec<_>>() {
            self.lose_call(call, Reason::Panic, false, now);
        }
        panics::contained(|| self.close_connection(key, now));
    }

    /// Finds whatever a panic has left half done, wherever it was, and sees to it that the invariants hold again.
    fn mend(&mut self, now: Now) {
        // Calls whose upstream connection is poisoned, and calls that no connection is lent to.
        let calls = self.exchanges.iter().filter_map(|(key, call)| {
            let seat = self.connections.get(call.connection).map(|own| &own.seat);
            let lent = match seat {
                Some(Seat::Lent(own)) => *own == key,
                Some(Seat::Shared(shared)) => !shared.engine.is_poisoned(),
                Some(Seat::Home(_) | Seat::Empty) | None => false,
            };
            let stream = call.exchange.upstream();
            let poisoned = stream.is_some_and(upstream::Stream::is_poisoned);
            (poisoned || !lent).then_some((key, lent))
        });
        for (key, lent) in calls.collect::<Vec<_>>() {
            let reason = if lent {
                Reason::BackendLost
            } else {
                Reason::Panic
            };
            self.lose_call(key, reason, lent, now);
        }
        // Connections whose engine is nowhere.
        let connections = self.connections.iter().filter_map(|(key, connection)| {
            let seated = match &connection.seat {
                Seat::Home(_) => true,
                Seat::Shared(shared) => !shared.engine.is_poisoned(),
                Seat::Lent(call) => self.exchanges.get(*call).is_some(),
                Seat::Empty => false,
            };
            let placed = self.reactor.transports.get(connection.transport).is_some();
            (!seated || !placed).then_some(key)
        });
        for key in connections.collect::<Vec<_>>() {
            self.lose_connection(key, now);
        }
        let tickets = self
            .exchanges
            .iter()
            .map(|(_, call)| call.exchange.ticket());
        let places: HashSet<u64> = tickets.filter_map(upstream::Ticket::place).collect();
        let holds = |place| places.contains(&place);
        self.pool.mend(holds, &mut self.reactor, now.instant);
        // Sockets that nobody speaks on, and deadlines of those who are gone.
        let sockets = self.reactor.transports.iter().filter_map(|(key, place)| {
            let owned = match place.owner {
                Task::Downstream(own) => {
                    let own = self.connections.get(own);
                    own.is_some_and(|own| own.transport == key)
                }
                Task::Upstream(own) => {
                    let mut all = self.pool.iter();
                    all.any(|(at, own_end)| at == own && own_end.transport_key() == key)
                }
                Task::Exchange(_) => false,
            };
            (!owned).then_some(key)
        });
        for key in sockets.collect::<Vec<_>>() {
            self.reactor.transports.remove(key);
        }
        let Self {
            connections,
            exchanges,
            pool,
            reactor,
            ..
        } = self;
        reactor.timers.retain(|task| match task {
            Task::Downstream(key) => connections.get(key).is_some(),
            Task::Exchange(key) => exchanges.get(key).is_some(),
            Task::Upstream(key) => pool.has(key),
        });
        // Somebody may have been about to be woken, or counts on a deadline that is gone.
        for (key, connection) in connections.iter() {
            connection.wake(&reactor.ready, Task::Downstream(key));
        }
        for (_, call) in exchanges.iter() {
            call.wakeup.wake();
        }
    }

    /// Counts a panic. Beyond the budget the core takes no more clients and ends; beyond it once more, at once.
    pub(super) fn count_panic(&mut self, now: Now) {
        self.panics.total += 1;
        let recent = &mut self.panics.recent;
        recent.retain(|&at| now.instant.duration_since(at) < PANICS_SPAN);
        recent.push_back(now.instant);
        if recent.len() < PANICS_MAX {
            return;
        }
        recent.clear();
        assert!(!self.panics.rotten, "panics without end");
        self.panics.rotten = true;
        log::error!(
            "worker {} has panicked {PANICS_MAX} times within {} s and ends",
            self.id,
            PANICS_SPAN.as_secs()
        );
        self.begin_drain(now.instant + LAST_CALLS_TIME, now);
    }

    /// The record of a request whose own is lost: that a panic ended it, and whose it was.
    pub(super) fn record_lost(&mut self, peer: SocketAddr, now: Now) {
        let record = Record {
            reason: Reason::Panic,
            aborted: true,
            verb: String::new(),
            path: String::new(),
            ..Self::blank_record(&blank_head(), Some(peer), now)
        };
        self.report(Report::Record(Box::new(record)));
    }

    /// What this core says last.
    pub(super) fn last_word(&self) -> Report {
        if self.panics.rotten {
            return Report::Failed { core: self.id };
        }
        debug_assert_eq!(self.drain, Drain::Done);
        Report::Stopped {
            core: self.id,
            records_dropped: self.records_dropped,
        }
    }
}

/// Lets go of a stream after a panic: dropped where that is possible, which cancels it; else left behind.
fn release(stream: Option<upstream::Stream>) {
    let Some(stream) = stream else {
        return;
    };
    if stream.is_poisoned() {
        stream.forget();
    } else {
        panics::contained(|| drop(stream));
    }
}
