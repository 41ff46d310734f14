//! The end: of the doors, of a connection, and of a core.
//!
//! Owns the order of a drain: no more clients, open calls until a time, last words, then nothing is left (invariant 12).

use std::task::Context;
use std::time::Instant;

use crate::core::accept::{Accepting, QUEUE_MAX};
use crate::core::client::{Connection, Seat};
use crate::core::contain::Work;
use crate::core::doors::Doors;
use crate::core::turn::{Core, Flow};
use crate::net::{Driver, Key, Now, Task};
use crate::tripwire::{Place, trip};
use crate::wire::Reason;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It has not begun.
    No,
    /// No more connections; open calls end by themselves until then.
    Until(Instant),
    /// All is closed.
    Done,
}

impl<D: Driver> Core<D> {
    /// From now on nobody new is served, and whoever is here until then.
    pub(super) fn begin_drain(&mut self, until: Instant, now: Now) {
        if self.drain != Drain::No {
            return;
        }
        self.drain = Drain::Until(until);
        trip(Place::Obey);
        self.close_doors(now);
    }

    /// No more clients, and no more requests of those who are here.
    pub(super) fn close_doors(&mut self, now: Now) {
        // Whoever is on the way from another core was let in by it; from now on others keep theirs.
        self.welcome_handed(Doors::close, now);
        for index in 0..self.listeners.len() {
            if self.listeners[index] == Accepting::Closed {
                continue;
            }
            // A closed SO_REUSEPORT listener drops what waits in its queue: whoever is in it is served.
            // Not more than it can hold: under a stream of new ones the drain must begin all the same.
            self.accept(index, QUEUE_MAX, now);
            self.reactor.driver.close_listener(index as u32);
            self.listeners[index] = Accepting::Closed;
        }
        // Answers that have not begun say that they are the last on their connection.
        for (_, call) in self.exchanges.iter_mut() {
            call.exchange.condemn();
        }
        // Each idle connection closes itself when it is advanced.
        for (key, connection) in self.connections.iter() {
            let task = Task::Downstream(key);
            connection.wake(&self.reactor.ready, task);
        }
    }

    /// Whether this was the last turn.
    pub(super) fn leave(&mut self, now: Now) -> Flow {
        if let Drain::Until(until) = self.drain {
            if self.connections.is_empty() {
                self.drain = Drain::Done;
            } else if now.instant >= until {
                // The last row of the table of ends: what is left is told why.
                let keys: Vec<Key> = self.exchanges.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.contain(Work::Task(Task::Exchange(key)), now, |core| {
                        if let Some(call) = core.exchanges.get_mut(key) {
                            let cx = &mut Context::from_waker(call.wakeup.waker());
                            let outcome = call.exchange.abandon(Reason::Draining, now.instant, cx);
                            core.finish(key, outcome, now);
                        }
                    });
                }
                self.drain = Drain::Done;
            }
        }
        if self.drain != Drain::Done {
            return Flow::Running;
        }
        self.say_goodbye(now);
        self.flush(now);
        let keys: Vec<Key> = self.exchanges.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Exchange(key)), now, |core| {
                if let Some(mut call) = core.exchanges.remove(key) {
                    call.alarm.cancel(&mut core.reactor.timers);
                }
            });
        }
        let keys: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            let task = Task::Downstream(key);
            self.contain(Work::Task(task), now, |core| {
                core.close_connection(key, now)
            });
        }
        let keys: Vec<Key> = self.pool.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Upstream(key)), now, |core| {
                core.pool.remove(key, &mut core.reactor, now.instant);
            });
        }
        // The last word must arrive: whoever waits for this core waits for it.
        let _ = self.reports.send(self.last_word());
        Flow::Stopped
    }

    /// What HTTP/2 connections still have to say is staged.
    fn say_goodbye(&mut self, now: Now) {
        let keys: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Downstream(key)), now, |core| {
                if let Some(Connection {
                    seat: Seat::Shared(shared),
                    ..
                }) = core.connections.get_mut(key)
                {
                    shared.engine.say_goodbye(now.instant);
                }
            });
        }
    }

    pub(super) fn close_connection(&mut self, key: Key, now: Now) {
        self.hold_head(key, 0);
        if let Some(mut connection) = self.connections.remove(key) {
            connection.alarm.cancel(&mut self.reactor.timers);
            self.reactor.close(connection.transport, now.instant);
        }
    }
}
