//! The numbered invariants that can be seen from outside between two turns, checked in simulation.
//!
//! Owns no rule of its own: each check names the invariant of ARCHITECTURE.md that it holds the house to.

use crate::core::turn::{Core, Drain, Seat};
use crate::net::{Driver, Task};

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
                Seat::Home(_) => {
                    let transport = place.transport.borrow();
                    let noted = connection.wakeup.queued() || connection.alarm.at().is_some();
                    assert!(
                        noted,
                        "invariant 1: an idle connection has a wake-up or a deadline"
                    );
                    let waits = transport.unwritten() >= crate::downstream::http1::HIGH_WATER;
                    assert!(
                        !transport.may_read() || waits || connection.wakeup.queued(),
                        "invariant 1: unread bytes in the kernel and nobody to read them"
                    );
                }
            }
        }
        for (key, call) in self.exchanges.iter() {
            let connection = self.connections.get(call.connection);
            let lent = connection.is_some_and(|own| matches!(own.seat, Seat::Lent(k) if k == key));
            assert!(lent, "invariant 6: an exchange has its connection's engine");
            assert_ne!(
                call.exchange.phase(),
                "done",
                "invariant 5: an ended exchange is gone"
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
        }
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
