//! The numbered invariants that can be seen from outside between two turns, checked in simulation.
//!
//! Owns no rule of its own: each check names the invariant of ARCHITECTURE.md that it holds the house to.

use std::collections::HashSet;

use crate::core::client::Seat;
use crate::core::drain::Drain;
use crate::core::heads::HalfHeads;
use crate::core::turn::Core;
use crate::downstream::HIGH_WATER;
use crate::net::{Driver, Key, Task};

/// What is held of anything at most, bytes: each is its own limit and what one step may add to it.
const STAGED_DOWN_MAX: usize = HIGH_WATER + (512 << 10);
const STAGED_UP_MAX: usize = (256 << 10) + (128 << 10);
const UNREAD_MAX: usize = 512 << 10;
const GATHERED_MAX: usize = 128 << 10;
const REQUEST_MAX: usize = 256 << 10;

/// Which of the seldom used joints are in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// A write to a backend waits, because too much is staged.
    pub refused: bool,
    /// Empty frames were kept from `h2`.
    pub sieved: bool,
    /// The rest of a request is thrown away.
    pub discards: bool,
}

impl<D: Driver> Core<D> {
    /// Panics where the house is broken. Called after every turn of a simulation.
    ///
    /// # Panics
    ///
    /// When an invariant does not hold; that is what it is for.
    pub fn check_invariants(&self) {
        for (key, connection) in self.connections.iter() {
            let place = self.reactor.transports.get(connection.transport);
            let place = place.expect("a connection has a transport");
            assert_eq!(
                place.owner,
                Task::Downstream(key),
                "a transport knows its owner"
            );
            match &connection.seat {
                Seat::Empty => panic!("invariant 6: an engine is at home or lent"),
                Seat::Lent(exchange) => {
                    let call = self
                        .exchanges
                        .get(*exchange)
                        .expect("invariant 6: lent to a live one");
                    assert_eq!(call.connection, key, "invariant 6: both know of the loan");
                }
                Seat::Shared(shared) => {
                    let transport = place.transport.borrow();
                    let calls = self.exchanges.iter();
                    let calls = calls.filter(|(_, call)| call.connection == key).count();
                    let streams = shared.engine.streams();
                    let leaving = shared.engine.leaving().count();
                    assert_eq!(
                        calls + leaving,
                        streams,
                        "invariant 6: a stream is a call's, or it leaves"
                    );
                    let due = shared.engine.deadline();
                    let alarm = connection.alarm.at(&self.reactor.timers);
                    let noted = match due {
                        // Its calls have deadlines of their own, or none at all; last words that wait for the socket have a
                        // stall's.
                        None => streams > 0 || alarm.is_some(),
                        Some(due) => alarm.is_some_and(|at| at <= due),
                    };
                    assert!(
                        noted || connection.queued() || shared.waits,
                        "invariant 1: a connection is due at {due:?}, and its alarm is set to {alarm:?}"
                    );
                    assert!(
                        !transport.may_read()
                            || transport.has_refused()
                            || transport.is_in_line()
                            || connection.queued()
                            || shared.waits,
                        "invariant 1: unread bytes of a client in the kernel and nobody to read them"
                    );
                }
                Seat::Home(engine) => {
                    let transport = place.transport.borrow();
                    let noted = connection.queued() || connection.alarm.is_set();
                    assert!(
                        noted,
                        "invariant 1: an idle connection has a wake-up or a deadline"
                    );
                    let waits = transport.unwritten() >= HIGH_WATER;
                    let called = waits || transport.is_in_line() || connection.queued();
                    assert!(
                        !transport.may_read() || called,
                        "invariant 1: unread bytes in the kernel and nobody to read them"
                    );
                    assert!(
                        !engine.has_whole_head() || called,
                        "invariant 1: a request waits for its turn, and nobody will call it"
                    );
                }
            }
        }
        let claims = self
            .connections
            .iter()
            .filter(|(_, own)| own.claim.is_some());
        let (claims, clients) = (claims.count(), self.connections.len());
        match &self.doors {
            None => assert_eq!(claims, 0, "a lone core shares nothing"),
            Some(doors) => {
                assert_eq!(claims, clients, "every client has its place");
                let told = doors.own_clients();
                assert!(told >= clients, "{clients} clients, and others see {told}");
            }
        }
        let heads = self.connections.iter();
        assert_eq!(
            heads.fold(HalfHeads::default(), |all, (_, own)| all
                .and(own.head_bytes)),
            self.half_heads,
            "invariant 10: what is held of heads is counted"
        );
        let calls = self.exchanges.iter();
        let on_streams = calls.map(|(_, call)| {
            let (request, answer) = call.exchange.down().held();
            assert!(
                request <= REQUEST_MAX && answer <= STAGED_DOWN_MAX,
                "invariant 10: a client's stream holds {request} and {answer} bytes"
            );
            request + answer + call.share.bytes()
        });
        let leaving = self.connections.iter().map(|(_, own)| match &own.seat {
            Seat::Shared(shared) => shared.engine.held() + shared.engine.unwritten(),
            Seat::Home(_) | Seat::Lent(_) | Seat::Empty => 0,
        });
        assert_eq!(
            on_streams.sum::<usize>() + leaving.sum::<usize>(),
            self.budget.held(),
            "invariant 10: what calls hold is counted"
        );
        for (key, call) in self.exchanges.iter() {
            let connection = self.connections.get(call.connection);
            let lent = connection.is_some_and(|own| match &own.seat {
                Seat::Lent(call) => *call == key,
                Seat::Shared(_) => true,
                Seat::Home(_) | Seat::Empty => false,
            });
            assert!(lent, "invariant 6: an exchange has its connection's engine");
            assert_eq!(
                call.share.bytes(),
                call.held().all,
                "invariant 10: what a call holds is counted when it has changed"
            );
            assert_ne!(
                call.exchange.phase(),
                "done",
                "invariant 5: an ended exchange is gone"
            );
            let (waiting, kept) = call.exchange.held();
            let (gathered, unsent) = call.exchange.upstream().map_or((0, 0), |up| up.held());
            assert!(
                waiting <= REQUEST_MAX && kept <= REQUEST_MAX && unsent <= REQUEST_MAX,
                "invariant 10: a request holds {waiting}, {kept} and {unsent} bytes"
            );
            assert!(
                gathered <= GATHERED_MAX,
                "invariant 10: an answer holds {gathered} bytes, more than its window"
            );
        }
        let line = self.reactor.staging.line();
        let standing: HashSet<Key> = line.iter().copied().collect();
        assert_eq!(
            standing.len(),
            line.len(),
            "whoever stands in the line stands there once"
        );
        for (key, place) in self.reactor.transports.iter() {
            let transport = place.transport.borrow();
            assert_eq!(
                transport.is_in_line(),
                standing.contains(&key),
                "invariant 1: who was starved stands in the line, and nobody else"
            );
            assert!(
                !transport.is_in_line() || matches!(place.owner, Task::Downstream(_)),
                "no backend stands in the line"
            );
            let staged_max = match place.owner {
                Task::Upstream(_) => STAGED_UP_MAX,
                Task::Downstream(_) | Task::Exchange(_) => STAGED_DOWN_MAX,
            };
            let (staged, unread) = (transport.unwritten(), transport.unread().len());
            assert!(
                staged <= staged_max && unread <= UNREAD_MAX,
                "invariant 10: {:?} has staged {staged} and read ahead {unread} bytes",
                place.owner
            );
        }
        for (key, connection) in self.pool.iter() {
            let place = self.reactor.transports.get(connection.transport_key());
            let place = place.expect("an upstream connection has a transport");
            assert_eq!(
                place.owner,
                Task::Upstream(key),
                "a transport knows its owner"
            );
            let transport = place.transport.borrow();
            assert!(
                !transport.may_read() || transport.has_refused() || self.pool.queued(key),
                "invariant 1: unread bytes of a backend in the kernel and nobody to read them"
            );
        }
        let relaying = self.relaying();
        assert!(
            self.streams() <= relaying,
            "a stream on a connection is an exchange's"
        );
        assert!(
            self.pool.waiting() <= self.exchanges.len() - relaying,
            "only who has no stream waits for one"
        );
        if let Some((now, next)) = self.now.zip(self.reactor.timers.next()) {
            assert!(
                next > now.instant,
                "invariant 1: a deadline that has passed would have the core spin"
            );
        }
        let owners = self.connections.len() + self.exchanges.len() + self.pool.connections();
        assert!(
            self.reactor.timers.len() <= owners,
            "invariant 10: one deadline for each who may have one"
        );
        let transports = self.connections.len() + self.pool.connections();
        assert_eq!(
            self.reactor.transports.len(),
            transports,
            "every transport has one owner"
        );
        if self.drain == Drain::Done {
            assert!(
                self.is_empty(),
                "invariant 12: after a drain every slab is empty"
            );
        }
    }

    /// Whether every slab and every queue is empty and no timer is set (invariant 12).
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.exchanges.is_empty()
            && self.reactor.transports.is_empty()
            && self.reactor.timers.is_empty()
            && self.pool.connections() == 0
            && self.pool.waiting() == 0
            && self.doors.as_ref().is_none_or(|doors| doors.waiting() == 0)
    }

    fn relaying(&self) -> usize {
        let calls = self.exchanges.iter();
        calls
            .filter(|(_, call)| call.exchange.upstream().is_some())
            .count()
    }

    fn streams(&self) -> usize {
        let own = self.pool.iter();
        own.map(|(_, own)| own.streams() - own.cancelled()).sum()
    }

    /// Whether it would sleep: nobody is ready, nothing is due.
    pub fn is_resting(&self) -> bool {
        let now = self.now.map(|now| now.instant);
        now.is_some_and(|now| self.wait_until().is_none_or(|until| until > now))
    }

    /// Panics where somebody sleeps who ought not to. `untold`: sockets with bytes in the kernel of which no event will tell
    /// any more. To be called when the core rests.
    ///
    /// # Panics
    ///
    /// When an invariant does not hold.
    pub fn check_rest(&self, untold: &[(Key, usize)]) {
        for &(key, bytes) in untold {
            let Some(place) = self.reactor.transports.get(key) else {
                panic!("invariant 1: a socket that nobody owns");
            };
            let transport = place.transport.borrow();
            let reads = match place.owner {
                Task::Upstream(_) => transport.is_connected() && !transport.has_refused(),
                Task::Downstream(key) => match self.connections.get(key).map(|own| &own.seat) {
                    Some(Seat::Lent(exchange)) => self
                        .exchanges
                        .get(*exchange)
                        .is_some_and(|call| call.exchange.wants_more()),
                    Some(Seat::Shared(_)) => !transport.has_refused(),
                    _ => transport.unwritten() < HIGH_WATER,
                },
                Task::Exchange(_) => false,
            };
            assert!(
                !reads,
                "invariant 1: {bytes} bytes lie in the kernel and {:?} sleeps",
                place.owner
            );
        }
    }

    /// Wakes everybody, with cause or without.
    pub fn rouse(&self) {
        for (key, connection) in self.connections.iter() {
            let task = Task::Downstream(key);
            connection.wake(&self.reactor.ready, task);
        }
        for (_, call) in self.exchanges.iter() {
            call.wakeup.wake();
        }
        for (key, _) in self.pool.iter() {
            self.pool.wake(key);
        }
    }

    /// Which of the seldom used joints are in use now.
    pub fn reached(&self) -> Reached {
        let mut reached = Reached::default();
        for (key, own) in self.pool.iter() {
            reached.sieved |= own.dropped() > 0;
            let transport = self.reactor.transports.get(own.transport_key());
            reached.refused |= transport.is_some_and(|own| {
                debug_assert_eq!(own.owner, Task::Upstream(key));
                own.transport.borrow().has_refused()
            });
        }
        let mut calls = self.exchanges.iter();
        reached.discards = calls.any(|(_, call)| call.exchange.discards());
        reached
    }

    /// Where clients are shared with other cores: how many these think it has, and how many of them wait at its door.
    pub fn shared(&self) -> Option<(usize, usize)> {
        let doors = self.doors.as_ref()?;
        Some((doors.own_clients(), doors.waiting()))
    }

    /// How many clients are connected, how many calls are open, and how many connections to backends there are.
    pub fn census(&self) -> (usize, usize, usize) {
        (
            self.connections.len(),
            self.exchanges.len(),
            self.pool.connections(),
        )
    }
}
