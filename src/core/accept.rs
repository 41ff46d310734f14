//! New clients: out of a listener's queue, past the doors of other cores, to a place of their own, or away.
//!
//! Owns how many are taken in one turn and what is done where there is no room. It never reads from them.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::core::client::{Connection, Seat};
use crate::core::contain::Work;
use crate::core::doors::{Claim, Doors, Handed, Placed};
use crate::core::turn::Core;
use crate::downstream::Http1;
use crate::net::{AcceptFault, Alarm, Bell, Driver, Key, Now, Task};
use crate::tripwire::{Place, trip};

/// How many clients are accepted from one listener in one turn; then others have their turn.
pub(super) const ACCEPTS_MAX: usize = 256;
/// How many clients are taken from a listener that is about to close: as many as its queue holds.
pub(super) const QUEUE_MAX: usize = 4096;
/// After so many clients in a row that were lost in `accept`, it rests.
const LOST_MAX: usize = 64;
/// The pause after an `accept` that failed for want of something (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that clients are turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How a listener stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Its queue was empty when we looked last.
    Idle,
    /// There may be more in its queue than one turn's worth.
    More,
    /// It could not; once more at that time.
    Paused(Instant),
    Closed,
}

impl<D: Driver> Core<D> {
    /// Takes clients out of a listener's queue. It never gives up a listener, whatever `accept` says.
    pub(super) fn accept(&mut self, index: usize, accepts_max: usize, now: Now) -> Accepting {
        let later = Accepting::Paused(now.instant + ACCEPT_PAUSE);
        let mut lost = 0;
        for _ in 0..accepts_max {
            let accepted = self.contain(Work::Other, now, |core| {
                let (socket, peer) = core.reactor.driver.accept(index as u32)?;
                trip(Place::Accept);
                core.place(socket, peer, index as u32, now);
                Ok::<_, io::Error>(())
            });
            match accepted {
                Some(Ok(())) => lost = 0,
                None => lost += 1,
                Some(Err(error)) => match AcceptFault::of(&error) {
                    AcceptFault::Nobody => return Accepting::Idle,
                    AcceptFault::Lost => lost += 1,
                    AcceptFault::Full => {
                        self.unserved += self.turn_away(index, accepts_max);
                        // It is also the answer where nobody waits.
                        if self.unserved > 0 && self.may_complain(now) {
                            let count = mem::take(&mut self.unserved);
                            log::warn!(
                                "clients turned away, since no descriptor is left: {count} ({error}); allow more with  ulimit -n"
                            );
                        }
                        return later;
                    }
                    AcceptFault::Later => {
                        if self.may_complain(now) {
                            log::warn!("cannot accept a connection, trying again: {error}");
                        }
                        return later;
                    }
                },
            }
            if lost == LOST_MAX {
                // Whether such an error takes somebody out of the queue is for the kernel to know.
                return later;
            }
        }
        Accepting::More
    }

    /// Closes those who wait in a listener's queue, since there is no descriptor to serve them on. How many they were.
    fn turn_away(&mut self, index: usize, clients_max: usize) -> usize {
        (0..clients_max)
            .take_while(|_| self.reactor.driver.turn_away(index as u32).is_ok())
            .count()
    }

    /// Whether it may be said again that clients are not served.
    fn may_complain(&mut self, now: Now) -> bool {
        let rested = |last: Instant| now.instant - last >= TURNED_AWAY_PAUSE;
        let may = self.turned_away.is_none_or(rested);
        if may {
            self.turned_away = Some(now.instant);
        }
        may
    }

    /// Finds out who serves a client that was accepted here.
    fn place(&mut self, socket: D::Socket, peer: SocketAddr, listener: u32, now: Now) {
        let connections_max = self.snapshot.limits.connections_max;
        let placed = match &self.doors {
            Some(doors) => doors.place(socket, peer, listener, connections_max),
            None if self.connections.len() < connections_max => {
                return self.welcome(socket, peer, listener, None, now);
            }
            None => Placed::Nowhere,
        };
        match placed {
            Placed::Here(socket, claim) => {
                self.welcome(socket, peer, listener, Some(claim), now);
            }
            Placed::Elsewhere => {}
            Placed::Nowhere => {
                if self.may_complain(now) {
                    log::warn!("{peer} was turned away: limits.connections is reached");
                }
            }
        }
    }

    /// Takes in the clients whom other cores have left at the door.
    pub(super) fn welcome_handed(
        &mut self,
        take: impl FnOnce(&Doors<D::Socket>) -> Vec<Handed<D::Socket>>,
        now: Now,
    ) {
        let handed = self.doors.as_ref().map(take).unwrap_or_default();
        for Handed {
            socket,
            peer,
            listener,
            claim,
        } in handed
        {
            self.contain(Work::Other, now, |core| {
                trip(Place::Accept);
                core.welcome(socket, peer, listener, Some(claim), now);
            });
        }
    }

    fn welcome(
        &mut self,
        socket: D::Socket,
        peer: SocketAddr,
        listener: u32,
        claim: Option<Claim>,
        now: Now,
    ) {
        // The owner is known only when the connection has its place.
        let placeholder = Task::Downstream(Key {
            index: u32::MAX,
            generation: 0,
        });
        let (key, transport) = match self.reactor.adopt(socket, placeholder) {
            Ok(placed) => placed,
            Err(error) => {
                log::warn!("cannot serve {peer}: {error}");
                return;
            }
        };
        let engine = Http1::new(transport, Rc::clone(&self.limits), now.instant);
        let own = self.connections.insert_with(|_| Connection {
            seat: Seat::Home(engine),
            transport: key,
            peer: (peer, listener).into(),
            head_bytes: 0,
            bell: Bell::default(),
            alarm: Alarm::default(),
            claim,
        });
        if let Some(place) = self.reactor.transports.get_mut(key) {
            place.owner = Task::Downstream(own);
        }
        self.wake(Task::Downstream(own));
    }
}
