//! The machine as a core sees it: sockets, readiness, time. IO is a parameter, so that the same core runs under a simulator.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use crate::net::slots::Key;

/// Both clocks, read once per turn (invariant 9).
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For everything that is measured or waited for.
    pub instant: Instant,
    /// For people.
    pub wall: SystemTime,
}

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The listener of that index.
    Listener(u32),
    /// The transport of that key.
    Transport(Key),
    /// Another thread has left a message.
    Inbox,
}

/// What the kernel says, edge-triggered: it says it once.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Whom it is for.
    pub token: Token,
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The peer will send no more. Data may still be waiting in front of that end.
    pub read_closed: bool,
    /// The socket has failed.
    pub error: bool,
}

/// A connected or connecting stream of bytes. Never blocks.
pub trait Socket: Sized + 'static {
    /// As `std::io::Read::read`.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// As `std::io::Write::write_vectored`.
    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Says that we will send no more.
    fn shutdown_write(&mut self) -> io::Result<()>;
    /// `Ok(false)`: still connecting. `Err`: it could not connect.
    fn connected(&mut self) -> io::Result<bool>;
}

/// What a core asks of the machine.
pub trait Driver {
    /// Its sockets.
    type Socket: Socket;

    /// Waits for events until `until` (for ever if `None`), appends them, and reads the clocks.
    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now;

    /// Takes one waiting client of a listener. `WouldBlock`: none.
    fn accept(&mut self, listener: u32) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Begins to connect.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Self::Socket>;

    /// Events of this socket go to `key` from now on, both directions.
    fn register(&mut self, socket: &mut Self::Socket, key: Key) -> io::Result<()>;

    /// Closes a listener for good. Clients that wait in its queue must have been accepted first.
    fn close_listener(&mut self, listener: u32);
}
