//! Sockets that are two queues of bytes, and a clock that each wait moves on.
//!
//! Nothing ever fails or is torn here; `net::sim` is for that. What it does while a turn is counted stands in `outside`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use wharf::net::{Driver, Event, Key, Now, Socket, Token};

/// What a wait takes.
const STEP: Duration = Duration::from_micros(100);

/// The machine of one core; every clone is the same one.
#[derive(Clone, Default)]
pub(super) struct Memory(Rc<State>);

#[derive(Default)]
struct State {
    events: RefCell<Vec<Event>>,
    waiting: RefCell<VecDeque<Wire>>,
    dialled: RefCell<VecDeque<Wire>>,
    now: Cell<Option<Now>>,
    counted: Rc<Cell<bool>>,
}

/// One connection, as both ends see it.
#[derive(Clone)]
pub(super) struct Wire {
    link: Rc<RefCell<Link>>,
    counted: Rc<Cell<bool>>,
}

#[derive(Default)]
struct Link {
    key: Option<Key>,
    /// To the core, and how much of it was read.
    inward: Vec<u8>,
    read: usize,
    /// From the core.
    outward: Vec<u8>,
}

impl Memory {
    /// Whether the turn that begins is counted.
    pub(super) fn count(&self, counted: bool) {
        self.0.counted.set(counted);
    }

    /// A client connects.
    pub(super) fn dial_in(&self) -> Wire {
        let wire = self.wire();
        self.0.waiting.borrow_mut().push_back(wire.clone());
        wire
    }

    /// The next connection that the core has made.
    pub(super) fn dialled(&self) -> Option<Wire> {
        self.0.dialled.borrow_mut().pop_front()
    }

    /// Sends something to the core; it learns of it in its next turn.
    pub(super) fn send(&self, wire: &Wire, bytes: &[u8]) {
        let mut link = wire.link.borrow_mut();
        link.inward.extend_from_slice(bytes);
        if let Some(key) = link.key {
            self.0.events.borrow_mut().push(event(key, true, false));
        }
    }

    fn wire(&self) -> Wire {
        Wire {
            link: Rc::default(),
            counted: Rc::clone(&self.0.counted),
        }
    }

    fn pass_events(&self, events: &mut Vec<Event>) -> Now {
        events.append(&mut self.0.events.borrow_mut());
        let now = self.0.now.get().map_or_else(
            || Now {
                instant: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            },
            |now| Now {
                instant: now.instant + STEP,
                wall: now.wall + STEP,
            },
        );
        self.0.now.set(Some(now));
        now
    }
}

impl Wire {
    /// Takes what the core has sent.
    pub(super) fn receive(&self, into: &mut Vec<u8>) {
        into.append(&mut self.link.borrow_mut().outward);
    }

    fn take_in(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        let unread = link.inward.get(link.read..).unwrap_or_default();
        if unread.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = unread.len().min(into.len());
        into[..n].copy_from_slice(&unread[..n]);
        link.read += n;
        if link.read == link.inward.len() {
            link.inward.clear();
            link.read = 0;
        }
        Ok(n)
    }

    fn give_out(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        let before = link.outward.len();
        for piece in from {
            link.outward.extend_from_slice(piece);
        }
        Ok(link.outward.len() - before)
    }
}

fn event(key: Key, readable: bool, writable: bool) -> Event {
    Event {
        token: Token::Transport(key),
        readable,
        writable,
        read_closed: false,
        error: false,
    }
}

/// The machine's work within a counted turn. Each function is entered from the product and from nowhere else.
mod outside {
    use std::hint::black_box;

    use super::{Event, IoSlice, Memory, Now, Wire, io};

    #[inline(never)]
    pub(super) fn wait(memory: &Memory, events: &mut Vec<Event>) -> Now {
        black_box(memory.pass_events(events))
    }

    #[inline(never)]
    pub(super) fn read(wire: &Wire, into: &mut [u8]) -> io::Result<usize> {
        black_box(wire.take_in(into))
    }

    #[inline(never)]
    pub(super) fn write(wire: &Wire, from: &[IoSlice<'_>]) -> io::Result<usize> {
        black_box(wire.give_out(from))
    }
}

impl Socket for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.counted.get() {
            return outside::read(self, into);
        }
        self.take_in(into)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.counted.get() {
            return outside::write(self, from);
        }
        self.give_out(from)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

impl Driver for Memory {
    type Socket = Wire;

    fn wait(&mut self, _until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        if self.0.counted.get() {
            return outside::wait(self, events);
        }
        self.pass_events(events)
    }

    fn accept(&mut self, _listener: u32) -> io::Result<(Wire, SocketAddr)> {
        let wire = self.0.waiting.borrow_mut().pop_front();
        let wire = wire.ok_or(io::ErrorKind::WouldBlock)?;
        Ok((wire, SocketAddr::from(([127, 0, 0, 1], 40_000))))
    }

    fn turn_away(&mut self, _listener: u32) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn connect(&mut self, _address: SocketAddr) -> io::Result<Wire> {
        let wire = self.wire();
        self.0.dialled.borrow_mut().push_back(wire.clone());
        Ok(wire)
    }

    fn register(&mut self, socket: &mut Wire, key: Key) -> io::Result<()> {
        socket.link.borrow_mut().key = Some(key);
        self.0.events.borrow_mut().push(event(key, true, true));
        Ok(())
    }

    fn close_listener(&mut self, _listener: u32) {}
}
