//! The machine as a core sees it: sockets, readiness, time. IO is a parameter, so that the same core runs under a simulator.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;

use crate::net::slots::Key;

/// How many events one wait brings at most; the rest waits for the next turn. So few, because all calls that begin in one turn
/// hold at the same moment what only their beginning needs.
pub const EVENTS_MAX: usize = 256;

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

/// What an `accept` that failed says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// Nobody waits.
    Nobody,
    /// That client is lost, or was never one; the next may be fine.
    Lost,
    /// The process or the machine has no descriptor left.
    Full,
    /// The machine has no memory for it, or something else is wrong: later, perhaps.
    Later,
}

impl AcceptFault {
    /// Every error has its place; accept(2) names them, and says that errors of the network which are pending on the new
    /// socket come out here.
    pub fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::Full,
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::TIMEDOUT
                | Errno::CONNRESET,
            ) => Self::Lost,
            Some(_) | None => match error.kind() {
                io::ErrorKind::WouldBlock => Self::Nobody,
                io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset => Self::Lost,
                _ => Self::Later,
            },
        }
    }
}

/// What a core asks of the machine.
pub trait Driver {
    /// Its sockets.
    type Socket: Socket;

    /// Waits for events until `until` (for ever if `None`), appends them, and reads the clocks.
    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now;

    /// Takes one waiting client of a listener. `WouldBlock`: none.
    fn accept(&mut self, listener: u32) -> io::Result<(Self::Socket, SocketAddr)>;

    /// No descriptor is left: takes one waiting client of a listener with the one that is kept for this, and closes it, so
    /// that it does not wait for nothing. `WouldBlock`: none waits.
    fn turn_away(&mut self, listener: u32) -> io::Result<()>;

    /// Begins to connect.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Self::Socket>;

    /// Events of this socket go to `key` from now on, both directions.
    fn register(&mut self, socket: &mut Self::Socket, key: Key) -> io::Result<()>;

    /// Closes a listener for good. Clients that wait in its queue must have been accepted first.
    fn close_listener(&mut self, listener: u32);
}
