//! What all connections of one core share: the driver, the transports, the timers, the ready list.
//!
//! Owns the sockets' places and who is to be woken for each; decides nothing.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::net::driver::Driver;
use crate::net::ready::{ReadyList, Wakeup};
use crate::net::slots::{Key, Slots};
use crate::net::timers::Timers;
use crate::net::transport::{SharedTransport, Staging, Transport};
use crate::tripwire::{self, trip};

/// What can be advanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// The client's connection of that key.
    Downstream(Key),
    /// The backend's connection of that key.
    Upstream(Key),
    /// The exchange of that key.
    Exchange(Key),
}

/// The machine, seen from the connections of one core.
pub struct Reactor<D: Driver> {
    /// Sockets and time.
    pub driver: D,
    /// Every open socket, with the task that speaks on it.
    pub transports: Slots<Place<D::Socket>>,
    /// All deadlines.
    pub timers: Timers<Task>,
    /// Who wants to be advanced.
    pub ready: Arc<ReadyList<Task>>,
    /// Shared by the transports.
    pub staging: Rc<Staging>,
}

/// An open socket and its owner.
pub struct Place<S> {
    /// The bytes.
    pub transport: SharedTransport<S>,
    /// Who is woken when something happens.
    pub owner: Task,
}

impl<D: Driver> Reactor<D> {
    /// A reactor without a socket.
    pub fn new(driver: D) -> Self {
        Self {
            driver,
            transports: Slots::default(),
            timers: Timers::default(),
            ready: Arc::default(),
            staging: Rc::default(),
        }
    }

    /// Takes in a client's socket.
    pub fn adopt(
        &mut self,
        socket: D::Socket,
        owner: Task,
    ) -> io::Result<(Key, SharedTransport<D::Socket>)> {
        self.place(socket, owner, Transport::accepted)
    }

    /// Begins to connect to a backend.
    pub fn connect(
        &mut self,
        address: SocketAddr,
        owner: Task,
    ) -> io::Result<(Key, SharedTransport<D::Socket>)> {
        trip(tripwire::Place::Connect);
        let socket = self.driver.connect(address)?;
        self.place(socket, owner, Transport::connecting)
    }

    fn place(
        &mut self,
        socket: D::Socket,
        owner: Task,
        make: impl FnOnce(D::Socket, Key, &Rc<Staging>) -> Transport<D::Socket>,
    ) -> io::Result<(Key, SharedTransport<D::Socket>)> {
        let staging = &self.staging;
        let key = self.transports.insert_with(|key| Place {
            transport: Rc::new(RefCell::new(make(socket, key, staging))),
            owner,
        });
        let transport = self
            .transports
            .get(key)
            .map(|place| Rc::clone(&place.transport));
        let transport = transport.ok_or(io::ErrorKind::Other)?;
        let registered = self
            .driver
            .register(transport.borrow_mut().socket_mut(), key);
        if let Err(error) = registered {
            self.transports.remove(key);
            return Err(error);
        }
        Ok((key, transport))
    }

    /// Closes a socket: what was staged is written as far as the kernel takes it at once.
    pub fn close(&mut self, key: Key, now: Instant) {
        if let Some(place) = self.transports.remove(key) {
            place.transport.borrow_mut().flush(now);
        }
    }

    /// A wakeup for that task.
    pub fn wakeup(&self, task: Task) -> Wakeup<Task> {
        Wakeup::new(&self.ready, task)
    }
}

impl<D: Driver> fmt::Debug for Reactor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("transports", &self.transports.len())
            .field("timers", &self.timers.len())
            .finish_non_exhaustive()
    }
}
