//! Advancing the connections of clients: what comes in on them, when it is too late, and how many requests and frames of whom a turn
//! looks at.
//!
//! It decides nothing about a request: `admit` does.

use std::collections::VecDeque;
use std::mem;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Version;

use crate::core::admit::{ONLY_HTTP1, ONLY_HTTP2};
use crate::core::client::{Connection, Seat, Shared};
use crate::core::contain::Work;
use crate::core::drain::Drain;
use crate::core::turn::Core;
use crate::downstream::{Arrival, Http2, Incoming, Refused, Stream};
use crate::net::{Driver, Key, Now, Task};
use crate::policy::Versions;
use crate::policy::limits::STALL_PROGRESS_BYTES;
use crate::telemetry::panics;
use crate::tripwire::{Place, trip};
use crate::wire::{Party, Sink};

/// How many requests of HTTP/2 clients are looked at in one turn. A hundred connections may bring ten thousand at once; each is a head to be
/// written to a backend, which takes them a turn at a time. Half of them are for those who were held over: whoever comes with one
/// call does not wait until thousands have had theirs.
const CALLS_MAX: usize = 256;
/// And of one of them, so that one who has more than all others together does not keep them from coming. The more there are who were
/// held over, the fewer each.
pub(super) const CALLS_OF_ONE_MAX: usize = 64;
/// How many frames of HTTP/2 clients are read in one turn: a frame of ten bytes costs as much as one of a kilobyte, some two thousand
/// instructions, and a turn of them all must not be felt by anybody else.
const FRAMES_MAX: u32 = 8 << 10;
/// And of one of them, as with calls.
pub(super) const FRAMES_OF_ONE_MAX: u32 = 1 << 10;
/// And at least, however many were held over: fewer would cost more to call for than to read.
const FRAMES_OF_ONE_MIN: u32 = 32;
/// What each may say even where others have said all that, so that a few frames never wait for many.
const FRAMES_BEYOND: u32 = 8;
/// How many of those who were held over go on in one turn, the first first.
const CALLED_MAX: usize = CALLS_MAX / 2;
/// So many places of an empty line are kept.
const HELD_OVER_KEPT: usize = 1024;

impl<D: Driver> Core<D> {
    /// Its alarm has fired: it is too late for something, or early.
    pub(super) fn expire_connection(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.alarm.fired();
        let mut next = None;
        let stalled = self
            .reactor
            .transports
            .get(connection.transport)
            .is_some_and(|place| {
                let mut transport = place.transport.borrow_mut();
                let limit = self.snapshot.limits.stall_timeout;
                let at = transport.stalled_at(now.instant, limit, STALL_PROGRESS_BYTES);
                let stalled = at.is_some_and(|at| now.instant >= at);
                if stalled {
                    transport.give_up();
                } else {
                    next = at;
                }
                stalled
            });
        if !stalled
            && let Seat::Home(engine) = &mut connection.seat
            && engine
                .deadline()
                .is_some_and(|deadline| now.instant >= deadline)
            && let Some(refused) = engine.handle_timeout(now.instant)
        {
            self.refuse(key, refused, now);
        }
        // Only a stall's time is armed here, which is after now; all else is armed by whoever is advanced. A time that has
        // passed would fire in this same pass, for ever.
        if let Some(connection) = self.connections.get_mut(key) {
            connection
                .alarm
                .arm(&mut self.reactor.timers, next, Task::Downstream(key));
        }
        self.wake(Task::Downstream(key));
    }

    /// Sees to it that the connection is looked at when its time is over.
    pub(super) fn arm_connection(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let home = match &connection.seat {
            Seat::Home(engine) => engine.deadline(),
            Seat::Shared(shared) => shared.engine.deadline(),
            Seat::Lent(_) | Seat::Empty => None,
        };
        let stall = self
            .reactor
            .transports
            .get(connection.transport)
            .and_then(|place| {
                let limit = self.snapshot.limits.stall_timeout;
                place
                    .transport
                    .borrow_mut()
                    .stalled_at(now.instant, limit, STALL_PROGRESS_BYTES)
            });
        let wanted = home.into_iter().chain(stall).min();
        connection
            .alarm
            .arm(&mut self.reactor.timers, wanted, Task::Downstream(key));
    }

    /// Goes on with it as far as it can.
    pub(super) fn advance_connection(&mut self, key: Key, now: Now) {
        if let Some(connection) = self.connections.get(key) {
            connection.popped();
        }
        trip(Place::Downstream);
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            let flow = match &connection.seat {
                Seat::Home(_) => self.advance_http1(key, now),
                Seat::Shared(_) => self.advance_http2(key, now),
                Seat::Lent(_) | Seat::Empty => return,
            };
            match flow {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(true) => break,
                ControlFlow::Break(false) => return,
            }
        }
        self.arm_connection(key, now);
    }

    /// One step of an HTTP/1.1 connection. `Break`: it waits, or (`false`) is gone.
    fn advance_http1(&mut self, key: Key, now: Now) -> ControlFlow<bool> {
        let draining = self.drain != Drain::No;
        let Some(Connection {
            seat: Seat::Home(engine),
            ..
        }) = self.connections.get_mut(key)
        else {
            return ControlFlow::Break(false);
        };
        let work = Work::Task(Task::Downstream(key));
        match engine.poll(now.instant) {
            Poll::Pending if draining && engine.is_idle() => engine.linger(),
            Poll::Pending => {
                let bytes = engine.head_bytes();
                if !self.hold_head(key, bytes) || !self.relieve_heads(bytes, now) {
                    return ControlFlow::Break(true);
                }
            }
            Poll::Ready(Incoming::Closed) => {
                self.close_connection(key, now);
                return ControlFlow::Break(false);
            }
            Poll::Ready(Incoming::Refused(refused)) => {
                self.accounted(key, work, now, |core| core.refuse(key, refused, now));
            }
            Poll::Ready(Incoming::Http2) => match self.versions(key) {
                Versions::Http1 => {
                    let refused = Refused {
                        fault: ONLY_HTTP1,
                        head: None,
                    };
                    self.accounted(key, work, now, |core| core.refuse(key, refused, now));
                }
                Versions::Both | Versions::Http2 => self.share(key, now),
            },
            Poll::Ready(Incoming::Request(request)) if self.versions(key) == Versions::Http2 => {
                self.hold_head(key, 0);
                let refused = Refused {
                    fault: ONLY_HTTP2,
                    head: Some(Box::new(request.head)),
                };
                self.accounted(key, work, now, |core| {
                    if let Some(mut stream) = core.lend(key) {
                        stream.condemn();
                        let by = Party::Downstream;
                        core.turn_down(key, stream, refused, "bad_http", by, now);
                    }
                });
            }
            Poll::Ready(Incoming::Request(request)) => {
                self.hold_head(key, 0);
                self.accounted(key, work, now, |core| {
                    if let Some(stream) = core.lend(key) {
                        core.admit(key, stream, request.head, request.version, now);
                    }
                });
            }
        }
        ControlFlow::Continue(())
    }

    /// What is spoken where a client came in.
    fn versions(&self, key: Key) -> Versions {
        let connection = self.connections.get(key);
        let listener =
            connection.and_then(|own| self.snapshot.listeners.get(own.peer.listener() as usize));
        listener.map_or(Versions::Both, |listener| listener.versions)
    }

    /// From now on it speaks HTTP/2.
    fn share(&mut self, key: Key, now: Now) {
        let wakeup = self.reactor.wakeup(Task::Downstream(key));
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Seat::Home(engine) = &connection.seat else {
            return;
        };
        let transport = Rc::clone(engine.transport());
        let (limits, budget) = (Rc::clone(&self.limits), Rc::clone(&self.budget));
        let duration = self.reset_stream_duration;
        let engine = Http2::new(transport, limits, budget, duration, now.instant);
        connection.seat = Seat::Shared(Box::new(Shared {
            engine,
            wakeup,
            // None has this number.
            turn: u64::MAX,
            begun: 0,
            waits: false,
        }));
    }

    /// One step of an HTTP/2 connection. `Break`: it waits, or (`false`) is gone.
    fn advance_http2(&mut self, key: Key, now: Now) -> ControlFlow<bool> {
        let draining = self.drain != Drain::No;
        let (turn, room) = (self.turns, self.begun < CALLS_MAX);
        let (calls, frames) = self.portion;
        let frames = frames.min(FRAMES_MAX.saturating_sub(self.frames));
        let frames = frames.max(FRAMES_BEYOND);
        let Some(Connection {
            seat: Seat::Shared(shared),
            ..
        }) = self.connections.get_mut(key)
        else {
            return ControlFlow::Break(false);
        };
        // Whoever waits to be called reads nothing meanwhile.
        shared.count_for(turn, if shared.waits { 0 } else { frames });
        let accepts = room && shared.begun < calls && !shared.waits;
        let Shared {
            engine,
            wakeup,
            waits,
            ..
        } = &mut **shared;
        if draining {
            engine.close(now.instant);
        }
        let cx = &mut Context::from_waker(wakeup.waker());
        // A request that is lost costs its stream, which has reset itself, and no other.
        let work = Work::Other;
        let before = engine.frames_left();
        let found = engine.poll(accepts, now.instant, cx);
        self.frames += before.saturating_sub(engine.frames_left());
        match found {
            Poll::Pending => {
                let bytes = engine.head_bytes();
                if (!accepts || engine.is_out_of_frames()) && !mem::replace(waits, true) {
                    self.held_over.push_back(key);
                }
                if !self.hold_head(key, bytes) || !self.relieve_heads(bytes, now) {
                    return ControlFlow::Break(true);
                }
            }
            Poll::Ready(Arrival::Closed) => {
                self.close_connection(key, now);
                return ControlFlow::Break(false);
            }
            Poll::Ready(Arrival::Malformed(words)) => {
                self.record_malformed(key, "bad_http", words, Party::Downstream, now);
            }
            Poll::Ready(Arrival::Refused(refused, stream)) => {
                self.note_begun(key);
                self.accounted(key, work, now, |core| {
                    let stream = Stream::Http2(stream);
                    core.turn_down(key, stream, refused, "bad_http", Party::Downstream, now);
                });
            }
            Poll::Ready(Arrival::Request(head, stream)) => {
                self.note_begun(key);
                self.accounted(key, work, now, |core| {
                    core.admit(key, Stream::Http2(stream), head, Version::HTTP_2, now);
                });
            }
        }
        ControlFlow::Continue(())
    }

    /// A request of an HTTP/2 client is looked at.
    fn note_begun(&mut self, key: Key) {
        self.begun += 1;
        if let Some(Connection {
            seat: Seat::Shared(shared),
            ..
        }) = self.connections.get_mut(key)
        {
            shared.begun += 1;
        }
    }

    /// HTTP/2 connections that may have more go on in the next turn, those first that have been waiting for longest.
    pub(super) fn call_held_over(&mut self) {
        let waiting = self.held_over.len().max(1);
        let calls = (CALLS_MAX / 2 / waiting).clamp(1, CALLS_OF_ONE_MAX);
        let frames = FRAMES_MAX / 2 / u32::try_from(waiting).unwrap_or(u32::MAX);
        self.portion = (calls, frames.clamp(FRAMES_OF_ONE_MIN, FRAMES_OF_ONE_MAX));
        let mut called = 0;
        while called < CALLED_MAX
            && let Some(key) = self.held_over.pop_front()
        {
            // Others have left meanwhile.
            if let Some(Connection {
                seat: Seat::Shared(shared),
                ..
            }) = self.connections.get_mut(key)
            {
                shared.waits = false;
                self.wake(Task::Downstream(key));
                called += 1;
            }
        }
        if self.held_over.is_empty() && self.held_over.capacity() > HELD_OVER_KEPT {
            self.held_over = VecDeque::new();
        }
    }

    /// Clients that had more than a turn gives go on in the next one, as far as they have come to the front of the line. There may be
    /// thousands, and one request of each would be a turn that everybody feels.
    pub(super) fn call_line(&self) {
        let mut called = 0;
        while called < CALLED_MAX
            && let Some(key) = self.reactor.staging.next_in_line()
        {
            // Others have left meanwhile.
            if let Some(place) = self.reactor.transports.get(key) {
                place.transport.borrow_mut().leave_line();
                self.wake(place.owner);
                called += 1;
            }
        }
        self.reactor.staging.share_among(called);
    }

    /// A request that came whole is accounted for, whatever becomes of it in that step.
    fn accounted(&mut self, key: Key, work: Work, now: Now, step: impl FnOnce(&mut Self)) {
        let (records, calls, peer) = (self.records, self.exchanges.len(), self.peer(key));
        if panics::contained(|| step(self)).is_some() {
            return;
        }
        // Asked before others that are lost with it have their records.
        let is_lost = self.records == records && self.exchanges.len() == calls;
        self.lose(work, now);
        if is_lost {
            self.record_lost(peer, now);
        }
        // A call that was begun, and of which nobody was told yet.
        for (_, call) in self.exchanges.iter() {
            if call.connection == key {
                call.wakeup.wake();
            }
        }
    }

    /// An engine at home, to be lent.
    pub(super) fn lend(&mut self, key: Key) -> Option<Stream<D::Socket>> {
        let connection = self.connections.get_mut(key)?;
        match mem::replace(&mut connection.seat, Seat::Empty) {
            Seat::Home(engine) => Some(Stream::Http1(engine)),
            seat => {
                connection.seat = seat;
                None
            }
        }
    }

    /// A call is over: its connection takes back what it has given for it.
    pub(super) fn take_back(&mut self, key: Key, stream: Stream<D::Socket>, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match (stream, &mut connection.seat) {
            (Stream::Http1(mut engine), seat) => {
                engine.come_home(now.instant);
                *seat = Seat::Home(engine);
            }
            (Stream::Http2(stream), Seat::Shared(shared)) => {
                shared.engine.take_leave(stream, now.instant);
            }
            (Stream::Http2(stream), _) => drop(stream),
        }
        // No socket event announces what is already buffered.
        connection.wake(&self.reactor.ready, Task::Downstream(key));
    }
}
