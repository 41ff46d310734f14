//! Clients whom one core has accepted and another one serves.
//!
//! The kernel spreads clients over the cores of a port by a hash, and a few fat ones may all fall to one core. So whoever
//! accepts a client looks how many each core has, and hands it to the one with the fewest. This is the only thing that cores
//! share, and a client passes here once, before its first byte is read: it is never handed on, and never handed back.
//!
//! Owns those numbers and the sockets that are on their way; it never reads, writes or registers a socket. It is no part of a
//! call: between two accepts nobody looks here, and a core that is alone has no doors at all.

use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// How many clients may wait at a door; one more is served by the core that has accepted it.
const WAITING_MAX: usize = 256;
/// How much more than the fewest a core may have and keep the next one too: this part of the fewest. Where there are hundreds
/// the hash is fair enough, and a ring of the bell costs more than it mends.
const SLACK_PART: usize = 8;
/// How often a core chooses again because others were faster; then it keeps the client.
const TRIES_MAX: usize = 8;

/// The doors of all cores, as one core sees them. Dropped, its own is closed.
#[derive(Debug)]
pub struct Doors<S> {
    all: Arc<[Door<S>]>,
    own: usize,
}

/// Where other cores leave clients for one core.
#[derive(Debug)]
struct Door<S> {
    load: Arc<Load>,
    /// `None`: closed for good. Only under this lock: whoever has left a client here has left it before the last look.
    waiting: Mutex<Option<Vec<Handed<S>>>>,
    /// Ends its wait for events.
    bell: Waker,
}

/// How many clients a core has. Every core reads it at each accept, so nothing else lives in its cache lines (two of them,
/// because they are fetched in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Load {
    /// Those it serves and those on their way to it: as many as there are claims.
    clients: AtomicUsize,
    /// A hint that saves a try; the door itself knows.
    open: AtomicBool,
}

/// A place among the clients of one core, from the accept until the connection is gone, however it ends.
#[derive(Debug)]
pub struct Claim(Arc<Load>);

/// A client on its way from the core that accepted it.
#[derive(Debug)]
pub struct Handed<S> {
    /// Not registered anywhere.
    pub socket: S,
    /// Who it is.
    pub peer: SocketAddr,
    /// Where it came in: the listener's index.
    pub listener: u32,
    /// Its place at the core that it comes to.
    pub claim: Claim,
}

/// What has become of a client that was accepted.
#[derive(Debug)]
pub enum Placed<S> {
    /// It is served here.
    Here(S, Claim),
    /// It is another core's.
    Elsewhere,
    /// Every core has as many as it may.
    Nowhere,
}

impl<S> Doors<S> {
    /// A door for each bell, and for each core its view of them, in that order. A bell is rung after a client was left:
    /// [`Token::Inbox`](crate::net::Token::Inbox) must follow.
    pub fn new(bells: impl IntoIterator<Item = Waker>) -> Vec<Self> {
        let door = |bell| Door {
            load: Arc::new(Load {
                clients: AtomicUsize::new(0),
                open: AtomicBool::new(true),
            }),
            waiting: Mutex::new(Some(Vec::new())),
            bell,
        };
        let all: Arc<[Door<S>]> = bells.into_iter().map(door).collect();
        let view = |own| Self {
            all: Arc::clone(&all),
            own,
        };
        (0..all.len()).map(view).collect()
    }

    /// Gives a client to the core that has the fewest, unless this one has hardly more. No core gets more than
    /// `clients_max`. Whoever has closed his own door serves all that he still accepts.
    pub fn place(
        &self,
        mut socket: S,
        peer: SocketAddr,
        listener: u32,
        clients_max: usize,
    ) -> Placed<S> {
        for _ in 0..TRIES_MAX {
            let Some((core, clients)) = self.elsewhere(clients_max) else {
                break;
            };
            let door = &self.all[core];
            // Nobody else may have gone there since we looked: many who see the same minimum must not all choose it.
            let Some(claim) = Load::claim(&door.load, clients + 1) else {
                continue;
            };
            let handed = Handed {
                socket,
                peer,
                listener,
                claim,
            };
            match door.hand(handed) {
                Ok(()) => return Placed::Elsewhere,
                Err(handed) => socket = handed.socket,
            }
        }
        match Load::claim(&self.all[self.own].load, clients_max) {
            Some(claim) => Placed::Here(socket, claim),
            None => Placed::Nowhere,
        }
    }

    /// The core that ought to serve the next client instead of this one, and how many it has.
    fn elsewhere(&self, clients_max: usize) -> Option<(usize, usize)> {
        let own = &self.all[self.own];
        if !own.load.open.load(Ordering::Relaxed) {
            return None;
        }
        let here = own.load.clients.load(Ordering::Relaxed);
        let cores = self.all.len();
        // Beginning behind this one, so that not all prefer the first among equals.
        let others = (1..cores).map(|step| (self.own + step) % cores);
        let others = others.filter_map(|core| {
            let load = &self.all[core].load;
            let clients = load.clients.load(Ordering::Relaxed);
            (load.open.load(Ordering::Relaxed) && clients < clients_max).then_some((core, clients))
        });
        let (core, fewest) = others.min_by_key(|&(_, clients)| clients)?;
        let worth_it = here > fewest + fewest / SLACK_PART || here >= clients_max;
        worth_it.then_some((core, fewest))
    }

    /// Takes those whom others have left for this core.
    pub fn take(&self) -> Vec<Handed<S>> {
        let mut waiting = self.all[self.own].lock();
        waiting.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Closes this core's door for good, and takes those who stand there: nobody comes after them.
    pub fn close(&self) -> Vec<Handed<S>> {
        let door = &self.all[self.own];
        door.load.open.store(false, Ordering::Relaxed);
        let mut waiting = door.lock();
        waiting.take().unwrap_or_default()
    }

    /// How many clients wait at this core's door.
    pub fn waiting(&self) -> usize {
        self.all[self.own].lock().as_ref().map_or(0, Vec::len)
    }

    /// How many clients each core has, those on their way to it included.
    pub fn clients(&self) -> Vec<usize> {
        let loads = self.all.iter().map(|door| &door.load);
        loads
            .map(|load| load.clients.load(Ordering::Relaxed))
            .collect()
    }

    /// How many this core has, those on their way to it included.
    pub fn own_clients(&self) -> usize {
        self.all[self.own].load.clients.load(Ordering::Relaxed)
    }
}

impl<S> Door<S> {
    /// Leaves a client here, and rings. `Err`: the door is closed, or too many wait.
    fn hand(&self, handed: Handed<S>) -> Result<(), Handed<S>> {
        let mut door = self.lock();
        let Some(waiting) = door.as_mut().filter(|own| own.len() < WAITING_MAX) else {
            return Err(handed);
        };
        waiting.push(handed);
        let first = waiting.len() == 1;
        drop(door);
        if first {
            // Whoever comes for one takes all.
            self.bell.wake_by_ref();
        }
        Ok(())
    }

    /// Held for as long as a push takes, and only while a client is handed over.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Handed<S>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// One client more, if there are fewer than `below`.
    fn claim(load: &Arc<Self>, below: usize) -> Option<Claim> {
        let one_more = |clients| (clients < below).then_some(clients + 1);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let claimed = load.clients.fetch_update(success, failure, one_more);
        claimed.ok().map(|_| Claim(Arc::clone(load)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Drop for Doors<S> {
    fn drop(&mut self) {
        // A core that has failed takes with it whoever was on the way to it, as all its clients.
        drop(self.close());
    }
}

#[cfg(test)]
mod tests;
