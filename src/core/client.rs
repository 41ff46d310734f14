//! A client's connection as its core keeps it: where its engine is, who it is, and what wakes it.
//!
//! Owns no rule: the turn advances connections, see `serve`.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::core::doors::Claim;
use crate::downstream::{Http1, Http2};
use crate::net::{Alarm, Bell, Key, ReadyList, Socket, Task, Wakeup};

/// A client's connection.
pub(super) struct Connection<S: Socket> {
    pub(super) seat: Seat<S>,
    pub(super) transport: Key,
    pub(super) peer: Client,
    /// Its part of `Core::half_heads`, bytes.
    pub(super) head_bytes: u32,
    pub(super) bell: Bell,
    pub(super) alarm: Alarm,
    /// Its place among the clients of this core, where there are other cores.
    pub(super) claim: Option<Claim>,
}

/// A client's address, and the index of the listener where it came in. There are thousands of clients, and few of them come
/// with an address of 28 bytes.
pub(super) enum Client {
    V4(SocketAddrV4, u32),
    V6(Box<(SocketAddrV6, u32)>),
}

impl Client {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::V4(address, _) => (*address).into(),
            Self::V6(both) => both.0.into(),
        }
    }

    pub(super) fn listener(&self) -> u32 {
        match self {
            Self::V4(_, listener) => *listener,
            Self::V6(both) => both.1,
        }
    }
}

impl From<(SocketAddr, u32)> for Client {
    fn from((address, listener): (SocketAddr, u32)) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address, listener),
            SocketAddr::V6(address) => Self::V6(Box::new((address, listener))),
        }
    }
}

/// Where a connection's engine is (invariant 6).
pub(super) enum Seat<S: Socket> {
    /// Here.
    Home(Http1<S>),
    /// With this exchange.
    Lent(Key),
    /// Here for good: it gives out streams, and exchanges have those.
    Shared(Box<Shared<S>>),
    /// Being moved.
    Empty,
}

/// An HTTP/2 connection's engine.
pub(super) struct Shared<S: Socket> {
    pub(super) engine: Http2<S>,
    /// `h2` wakes it, so it has more than a bell.
    pub(super) wakeup: Wakeup<Task>,
    /// Which turn the next one is of.
    pub(super) turn: u64,
    /// Its requests that were looked at.
    pub(super) begun: usize,
    /// It was held over, and waits to be called.
    pub(super) waits: bool,
}

impl<S: Socket> Shared<S> {
    /// Begins to count anew if this is another turn, of which it may read `frames`.
    pub(super) fn count_for(&mut self, turn: u64, frames: u32) {
        if self.turn != turn {
            (self.turn, self.begun) = (turn, 0);
            self.engine.allow_frames(frames);
        }
    }
}

impl<S: Socket> Connection<S> {
    /// Enqueues it, whose task is `task`, unless it is queued already.
    pub(super) fn wake(&self, ready: &ReadyList<Task>, task: Task) {
        match &self.seat {
            Seat::Shared(shared) => shared.wakeup.wake(),
            Seat::Home(_) | Seat::Lent(_) | Seat::Empty => self.bell.wake(ready, task),
        }
    }

    /// Whether it is enqueued.
    pub(super) fn queued(&self) -> bool {
        match &self.seat {
            Seat::Shared(shared) => shared.wakeup.queued(),
            Seat::Home(_) | Seat::Lent(_) | Seat::Empty => self.bell.queued(),
        }
    }

    pub(super) fn popped(&self) {
        self.bell.popped();
        if let Seat::Shared(shared) = &self.seat {
            shared.wakeup.popped();
        }
    }
}
