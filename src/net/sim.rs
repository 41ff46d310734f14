//! A machine that is a function of a seed: sockets in memory, readiness as the kernel gives it, a clock that jumps.
//!
//! Owns the faults that a real machine has and seldom shows: torn reads and writes, `WouldBlock` though something is on its
//! way, interruptions, late and stale events, resets, half-closes, connects that fail or never finish, accepts that fail.
//! Everything is decided by the seed; the same seed gives the same trace. It never knows what the bytes mean.
//!
//! Readiness follows epoll(7) with `EPOLLET`: an event comes when something has changed, it reports all that is true of the
//! socket at that time, and what it has said it does not say again. So a `WouldBlock` or a short read with more to come is
//! followed by an event, until *read closed* has been said: from then on no event comes, and a read tells all there is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;

use crate::net::driver::{Driver, Event, Now, Socket, Token};
use crate::net::slots::Key;

/// How many lines of the trace are kept unless more are asked for.
const LINES_KEPT: usize = 50;
/// What `accept` fails with on Linux for want of something, and then can again: ENOMEM, ENFILE, EMFILE, ENOBUFS.
const ACCEPT_EXHAUSTED: [i32; 4] = [12, 23, 24, 105];
/// What it fails with for the sake of one client, who is lost: EINTR loses nobody. EPERM, EPROTO, ECONNABORTED.
const ACCEPT_LOST: [i32; 3] = [1, 71, 103];
/// `EINTR`.
const INTERRUPTED: i32 = 4;
/// What `connect` fails with at once: EACCES, EMFILE, EADDRNOTAVAIL, ENETUNREACH, ENOBUFS, ECONNREFUSED.
const CONNECT_FAILS: [i32; 6] = [13, 24, 99, 101, 105, 111];
/// What a read or a write fails with when the connection is lost: EIO, ECONNRESET, ETIMEDOUT, EHOSTUNREACH.
const BREAKS: [i32; 4] = [5, 104, 110, 113];
/// `ENOSPC`: epoll watches no more.
const UNWATCHED: i32 = 28;

/// How far the clock leaps, and how often at most.
const LEAP: Duration = Duration::from_secs(3600);
const LEAPS_MAX: usize = 3;

/// How bad the machine is. Chances are out of 256.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A read or a write that takes less than it could.
    pub torn: u8,
    /// Torn ones take a single byte.
    pub crumbs: bool,
    /// `WouldBlock` though there is something; an event follows.
    pub blocked: u8,
    /// `EINTR`.
    pub interrupted: u8,
    /// An event that is kept back for a turn.
    pub late: u8,
    /// An event for a socket that is closed already.
    pub stale: u8,
    /// An event for an open socket of which nothing has changed.
    pub spurious: u8,
    /// A read or a write that fails for good, out of 65,536: the connection is lost.
    pub breaks: u16,
    /// A socket that cannot be watched.
    pub unwatched: u8,
    /// A wait after which an hour has passed, out of 65,536, whatever was on its way.
    pub leap: u16,
    /// An accept that fails.
    pub accept: u8,
    /// A connect that fails at once.
    pub connect: u8,
    /// A wait that lasts longer than was asked for, by up to three seconds.
    pub oversleep: u8,
    /// What a socket buffer holds at most, bytes.
    pub buffer_bytes_max: usize,
    /// And at least.
    pub buffer_bytes_min: usize,
}

impl Weather {
    /// Nothing goes wrong.
    pub fn fair() -> Self {
        Self {
            torn: 0,
            crumbs: false,
            blocked: 0,
            interrupted: 0,
            late: 0,
            stale: 0,
            spurious: 0,
            breaks: 0,
            unwatched: 0,
            leap: 0,
            accept: 0,
            connect: 0,
            oversleep: 0,
            buffer_bytes_max: 1 << 20,
            buffer_bytes_min: 1,
        }
    }

    /// Some things go wrong, others do not, as `rng` says.
    pub fn of(rng: &mut fastrand::Rng) -> Self {
        let mut chance = |max: u8| if rng.bool() { 0 } else { rng.u8(1..=max) };
        let (torn, blocked, interrupted) = (chance(200), chance(100), chance(30));
        let (late, stale) = (chance(160), chance(20));
        let (accept, connect, oversleep) = (chance(40), chance(60), chance(40));
        let (spurious, unwatched) = (chance(60), chance(6));
        let mut seldom = |max: u16| {
            if rng.u8(..4) != 0 {
                0
            } else {
                rng.u16(1..=max)
            }
        };
        let (breaks, leap) = (seldom(400), seldom(100));
        Self {
            torn,
            crumbs: rng.u8(..8) == 0,
            blocked,
            interrupted,
            late,
            stale,
            spurious,
            breaks,
            unwatched,
            leap,
            accept,
            connect,
            oversleep,
            buffer_bytes_max: 1 << rng.u8(6..=20),
            buffer_bytes_min: 1,
        }
    }
}

/// The machine, shared by the driver, its sockets, and the world at the other ends of them.
#[derive(Clone)]
pub struct Machine(Rc<RefCell<State>>);

struct State {
    rng: fastrand::Rng,
    weather: Weather,
    base: Instant,
    now: Duration,
    links: Vec<Link>,
    queues: Vec<Queue>,
    dialled: VecDeque<(usize, SocketAddr)>,
    /// With the core that they were of.
    dead_keys: Vec<(usize, Key)>,
    /// One for each core.
    bells: Vec<Arc<Bell>>,
    /// When each core wanted to be woken when it waited last.
    untils: Vec<Option<Duration>>,
    busy: bool,
    wake: Option<Duration>,
    stuck: u32,
    /// Nothing happens in the next wait: neither time nor events.
    frozen: bool,
    losses: Vec<Loss>,
    leaps: Vec<Duration>,
    /// Reads and writes of the core so far.
    operations: u64,
    /// One fault for one operation, counted from the first.
    fated: Option<(u64, Fault)>,
    moved: u64,
    deeds: u64,
    trace: Trace,
}

/// What ends a core's wait though none of its sockets has changed.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What befalls one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It moves one byte.
    Crumb,
    /// It would block; an event follows.
    Blocks,
    /// It is interrupted.
    Interrupted,
    /// It fails, and the connection is lost.
    Breaks,
}

/// A connection that the machine has lost by itself.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// When.
    pub at: Duration,
    /// Which; `None`: there never was one.
    pub link: Option<usize>,
    /// Where to, if the core was making it.
    pub address: Option<SocketAddr>,
}

/// One connection: two pipes, and what epoll knows of the core's end.
struct Link {
    /// From the world to the core.
    inward: Pipe,
    /// From the core to the world.
    outward: Pipe,
    stage: Stage,
    /// The core's end is open.
    core: bool,
    /// The world's end is open.
    world: bool,
    reset: bool,
    key: Option<Key>,
    /// The core that watches it.
    watcher: usize,
    edge: Option<Edge>,
    /// An event has said *read closed*.
    said_closed: bool,
    /// A write was refused or cut short for want of room.
    full: bool,
    /// What the core has read of it since the last wait, and the most that it ever read between two.
    read: usize,
    read_most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Open,
    Failed(io::ErrorKind),
}

#[derive(Default)]
struct Pipe {
    bytes: BytesMut,
    capacity: usize,
    shut: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Edge {
    readable: bool,
    writable: bool,
}

struct Queue {
    waiting: VecDeque<usize>,
    open: bool,
    edge: bool,
}

struct Trace {
    /// Lines are made and hashed.
    kept: bool,
    hash: u64,
    lines: VecDeque<String>,
    lines_kept: usize,
}

impl Machine {
    /// A machine with so many listeners. `base` is when it begins; all that is shown of a time is the difference to it.
    pub fn new(seed: u64, weather: Weather, listeners: usize, base: Instant) -> Self {
        Self::with_cores(1, seed, weather, listeners, base)
    }

    /// The same for so many cores, each with so many listeners of its own: the first ones are of the first core. They share
    /// the clock, which jumps where the core that waits has nothing to do, and never over the time that another has named.
    pub fn with_cores(
        cores: usize,
        seed: u64,
        weather: Weather,
        listeners: usize,
        base: Instant,
    ) -> Self {
        let queue = || Queue {
            waiting: VecDeque::new(),
            open: true,
            edge: false,
        };
        Self(Rc::new(RefCell::new(State {
            rng: fastrand::Rng::with_seed(seed),
            weather,
            base,
            now: Duration::ZERO,
            links: Vec::new(),
            queues: (0..listeners * cores).map(|_| queue()).collect(),
            dialled: VecDeque::new(),
            dead_keys: Vec::new(),
            bells: (0..cores).map(|_| Arc::default()).collect(),
            untils: vec![None; cores],
            busy: false,
            wake: None,
            stuck: 0,
            frozen: false,
            losses: Vec::new(),
            leaps: Vec::new(),
            operations: 0,
            fated: None,
            moved: 0,
            deeds: 0,
            trace: Trace {
                kept: true,
                hash: 0xcbf2_9ce4_8422_2325,
                lines: VecDeque::new(),
                lines_kept: LINES_KEPT,
            },
        })))
    }

    /// The core's side; where there are several, the first one's.
    pub fn driver(&self) -> SimDriver {
        self.driver_of(0)
    }

    /// The side of that core.
    pub fn driver_of(&self, core: usize) -> SimDriver {
        SimDriver {
            machine: self.clone(),
            core,
        }
    }

    /// What ends the wait of that core.
    pub fn bell(&self, core: usize) -> Waker {
        Arc::clone(&self.0.borrow().bells[core]).into()
    }

    /// The time since the beginning.
    pub fn now(&self) -> Duration {
        self.0.borrow().now
    }

    /// What the world is about to do, to be said before each turn. `busy`: something, at once; `wake`: something, then.
    /// Where the core has nothing to do either, the clock jumps to the earlier of both.
    pub fn expect(&self, busy: bool, wake: Option<Duration>) {
        let mut state = self.0.borrow_mut();
        state.busy = busy;
        state.wake = wake;
    }

    /// Another thread has left a message, for the first core.
    pub fn ring(&self) {
        self.bell(0).wake();
    }

    /// The faults of the machine cease.
    pub fn clear_up(&self) {
        let mut state = self.0.borrow_mut();
        state.weather = Weather {
            buffer_bytes_max: state.weather.buffer_bytes_max,
            ..Weather::fair()
        };
    }

    /// In how many waits in a row nothing could happen any more: neither event nor deadline nor deed of the world.
    pub fn stuck(&self) -> u32 {
        self.0.borrow().stuck
    }

    /// A client connects. `None`: nobody listens.
    pub fn dial_in(&self, listener: usize) -> Option<End> {
        let mut state = self.0.borrow_mut();
        if !state.queues.get(listener)?.open {
            return None;
        }
        let link = state.link(Stage::Open);
        let queue = state.queues.get_mut(listener)?;
        queue.waiting.push_back(link);
        queue.edge = true;
        state.note(format_args!("#{link} client dials"), &[]);
        drop(state);
        Some(End {
            machine: self.clone(),
            link,
        })
    }

    /// The next connection that the core began to make, if there is one: where to, and what becomes of it.
    pub fn dialled(&self) -> Option<(SocketAddr, Dialled)> {
        let (link, address) = self.0.borrow_mut().dialled.pop_front()?;
        let machine = self.clone();
        Some((address, Dialled { machine, link }))
    }

    /// Writes a line into the trace. Every line is part of the hash.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        self.0.borrow_mut().note(line, &[]);
    }

    /// A number that stands for everything that has happened.
    pub fn hash(&self) -> u64 {
        self.0.borrow().trace.hash
    }

    /// Keeps so many lines of the trace; `None`: makes none, and no hash of them, which is what takes the time of a seed.
    pub fn keep_lines(&self, count: Option<usize>) {
        let mut state = self.0.borrow_mut();
        state.trace.kept = count.is_some();
        state.trace.lines_kept = count.unwrap_or_default();
    }

    /// How much has happened so far: every line of the trace is one more, kept or not, and all that the world has moved.
    pub fn moved(&self) -> u64 {
        self.0.borrow().moved
    }

    /// How often the core has moved bytes or closed something.
    pub fn deeds(&self) -> u64 {
        self.0.borrow().deeds
    }

    /// Lets the next wait pass without time and without events.
    pub fn freeze(&self) {
        self.0.borrow_mut().frozen = true;
    }

    /// Whether the next wait would find neither an event nor a message: whatever happens then is a deed of the clock or of
    /// the world.
    pub fn is_quiet(&self) -> bool {
        let state = self.0.borrow();
        (0..state.bells.len()).all(|core| !state.pending(core))
    }

    /// Takes the connections that the machine itself has lost.
    pub fn take_losses(&self) -> Vec<Loss> {
        mem::take(&mut self.0.borrow_mut().losses)
    }

    /// When the clock has leapt.
    pub fn leaps(&self) -> Vec<Duration> {
        self.0.borrow().leaps.clone()
    }

    /// How often the core has read or written so far.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Lets that fault befall the operation of that number.
    pub fn fate(&self, operation: u64, fault: Fault) {
        self.0.borrow_mut().fated = Some((operation, fault));
    }

    /// How many links there have been.
    pub fn links(&self) -> usize {
        self.0.borrow().links.len()
    }

    /// An hour passes.
    pub fn leap(&self) {
        let mut state = self.0.borrow_mut();
        state.now += LEAP;
        let now = state.now;
        state.leaps.push(now);
        state.note(format_args!("the clock leaps"), &[]);
    }

    /// The most that the core has read of that link between two waits, bytes.
    pub fn read_most(&self, link: usize) -> usize {
        self.0.borrow().links[link].read_most
    }

    /// The sockets of the core that have bytes in the kernel of which no event will tell any more.
    pub fn untold(&self) -> Vec<(Key, usize)> {
        let state = self.0.borrow();
        let untold = state.links.iter().filter(|link| {
            let there = !link.inward.bytes.is_empty();
            link.core && link.edge.is_none() && there && link.stage == Stage::Open
        });
        let untold = untold.filter_map(|link| Some((link.key?, link.inward.bytes.len())));
        untold.collect()
    }

    /// Takes the lines of the trace that were kept.
    pub fn take_lines(&self) -> Vec<String> {
        mem::take(&mut self.0.borrow_mut().trace.lines).into()
    }
}

impl State {
    fn chance(&mut self, of_256: u8) -> bool {
        of_256 > 0 && self.rng.u8(..) < of_256
    }

    fn link(&mut self, stage: Stage) -> usize {
        let mut pipe = || Pipe {
            capacity: self
                .rng
                .usize(self.weather.buffer_bytes_min..=self.weather.buffer_bytes_max),
            ..Pipe::default()
        };
        let (inward, outward) = (pipe(), pipe());
        self.links.push(Link {
            inward,
            outward,
            stage,
            core: true,
            world: true,
            reset: false,
            key: None,
            watcher: 0,
            edge: None,
            said_closed: false,
            full: false,
            read: 0,
            read_most: 0,
        });
        self.links.len() - 1
    }

    /// The listeners of that core.
    fn listeners(&self, core: usize) -> Range<usize> {
        let each = self.queues.len() / self.bells.len();
        core * each..(core + 1) * each
    }

    /// The queue of a core's own listener.
    fn queue(&mut self, core: usize, listener: u32) -> Option<&mut Queue> {
        let index = self.listeners(core).nth(listener as usize)?;
        self.queues.get_mut(index)
    }

    /// Whether that core would hear something.
    fn pending(&self, core: usize) -> bool {
        let mut links = self.links.iter().filter(|link| link.watcher == core);
        let mut queues = self.queues[self.listeners(core)].iter();
        links.any(Link::has_edge)
            || queues.any(|queue| queue.edge && queue.open)
            || self.bells[core].0.load(Ordering::Relaxed)
    }

    fn seldom(&mut self, of_65536: u16) -> bool {
        of_65536 > 0 && self.rng.u16(..) < of_65536
    }

    /// The fault of this operation on that link. Every read and every write of the core comes by here once.
    fn fault(&mut self, id: usize) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        if let Some((fated, fault)) = self.fated {
            return (fated == number).then_some(fault);
        }
        if self.chance(self.weather.interrupted) {
            return Some(Fault::Interrupted);
        }
        // Who is gone already is not lost.
        let whole = !self.links[id].reset && self.links[id].world;
        if whole && self.seldom(self.weather.breaks) {
            return Some(Fault::Breaks);
        }
        if self.chance(self.weather.blocked) {
            return Some(Fault::Blocks);
        }
        None
    }

    /// The machine loses that connection.
    fn lose(&mut self, id: usize) -> io::Error {
        let kind = self.rng.usize(..BREAKS.len());
        let at = self.now;
        self.losses.push(Loss {
            at,
            link: Some(id),
            address: None,
        });
        let link = &mut self.links[id];
        link.inward.bytes.clear();
        link.break_off();
        self.note(format_args!("#{id} is lost: errno {}", BREAKS[kind]), &[]);
        io::Error::from_raw_os_error(BREAKS[kind])
    }

    fn note(&mut self, line: fmt::Arguments<'_>, bytes: &[u8]) {
        self.moved += 1;
        if !self.trace.kept {
            return;
        }
        let line = format!("{:>13.6} {line}", self.now.as_secs_f64());
        self.trace.mix(line.as_bytes());
        self.trace.mix(bytes);
        self.trace.lines.push_back(line);
        if self.trace.lines.len() > self.trace.lines_kept {
            self.trace.lines.pop_front();
        }
    }

    /// How much of `most` is moved at once.
    fn tear(&mut self, most: usize, fault: Option<Fault>) -> usize {
        if fault == Some(Fault::Crumb) {
            return most.min(1);
        }
        if most > 1 && self.chance(self.weather.torn) {
            let crumbs = self.weather.crumbs || self.rng.u8(..4) == 0;
            if crumbs { 1 } else { self.rng.usize(1..most) }
        } else {
            most
        }
    }

    fn read(&mut self, id: usize, into: &mut [u8]) -> io::Result<usize> {
        if self.links[id].stage != Stage::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let fault = self.fault(id);
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Breaks) => return Err(self.lose(id)),
            _ => {}
        }
        let blocked = fault == Some(Fault::Blocks);
        let link = &mut self.links[id];
        let there = link.inward.bytes.len();
        if there == 0 {
            return match (link.reset, link.inward.shut) {
                (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        if blocked && !link.said_closed {
            link.raise(true, false);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = there.min(into.len());
        let n = self.tear(most, fault);
        let link = &mut self.links[id];
        link.read += n;
        link.read_most = link.read_most.max(link.read);
        into[..n].copy_from_slice(&link.inward.bytes.split_to(n));
        if n < most && !link.said_closed {
            link.raise(true, false);
        }
        self.deeds += 1;
        self.note(format_args!("#{id} core reads {n} of {there}"), &into[..n]);
        Ok(n)
    }

    fn write(&mut self, id: usize, from: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.links[id].stage != Stage::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let fault = self.fault(id);
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Breaks) => return Err(self.lose(id)),
            _ => {}
        }
        let blocked = fault == Some(Fault::Blocks);
        let total: usize = from.iter().map(|piece| piece.len()).sum();
        let broken = self.rng.bool();
        let link = &mut self.links[id];
        if link.reset || link.outward.shut {
            return Err(match broken {
                true => io::ErrorKind::ConnectionReset.into(),
                false => io::ErrorKind::BrokenPipe.into(),
            });
        }
        if !link.world {
            // The peer has closed: the first write is taken, and answered with a reset.
            link.break_off();
            return Ok(total);
        }
        let room = link.outward.room();
        if room == 0 || blocked {
            link.full = true;
            if room > 0 {
                link.raise(false, true);
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.tear(total.min(room), fault);
        let link = &mut self.links[id];
        let before = link.outward.bytes.len();
        let mut left = n;
        for piece in from {
            let taken = left.min(piece.len());
            link.outward.bytes.extend_from_slice(&piece[..taken]);
            left -= taken;
        }
        if n < total {
            link.full = true;
            if link.outward.room() > 0 {
                link.raise(false, true);
            }
        }
        let written = match self.trace.kept {
            true => link.outward.bytes[before..].to_vec(),
            false => Vec::new(),
        };
        self.deeds += 1;
        self.note(format_args!("#{id} core writes {n} of {total}"), &written);
        Ok(n)
    }

    fn wait(&mut self, core: usize, until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        for link in self.links.iter_mut().filter(|link| link.watcher == core) {
            link.read = 0;
        }
        if mem::take(&mut self.frozen) {
            return self.clocks();
        }
        self.untils[core] = until.map(|until| until.saturating_duration_since(self.base));
        let until = self.untils.iter().flatten().min().copied();
        let pending = (0..self.bells.len()).any(|core| self.pending(core));
        let due = until.is_some_and(|until| until <= self.now);
        if pending || self.busy || due {
            self.stuck = 0;
            let most = if self.rng.u8(..32) == 0 { 5_000 } else { 50 };
            self.now += Duration::from_micros(self.rng.u64(..most));
        } else {
            let next = until.into_iter().chain(self.wake).min();
            if next.is_none() {
                self.stuck += 1;
            }
            self.now = next.map_or(self.now + Duration::from_secs(1), |next| next.max(self.now));
            if self.chance(self.weather.oversleep) {
                self.now += Duration::from_millis(self.rng.u64(..3_000));
            }
            self.note(format_args!("the clock jumps"), &[]);
        }
        if self.leaps.len() < LEAPS_MAX && self.seldom(self.weather.leap) {
            self.now += LEAP;
            self.leaps.push(self.now);
            self.note(format_args!("the clock leaps"), &[]);
        }
        self.deliver(core, events);
        self.clocks()
    }

    fn clocks(&self) -> Now {
        Now {
            instant: self.base + self.now,
            wall: SystemTime::UNIX_EPOCH + self.now,
        }
    }

    fn deliver(&mut self, core: usize, events: &mut Vec<Event>) {
        let first = events.len();
        if self.bells[core].0.swap(false, Ordering::Relaxed) {
            events.push(event(Token::Inbox));
        }
        for (listener, index) in self.listeners(core).enumerate() {
            if self.queues[index].edge && !self.chance(self.weather.late) {
                self.queues[index].edge = false;
                events.push(Event {
                    readable: true,
                    ..event(Token::Listener(listener as u32))
                });
            }
        }
        for id in 0..self.links.len() {
            let own = self.links[id].watcher == core;
            if !own || !self.links[id].has_edge() || self.chance(self.weather.late) {
                continue;
            }
            let whole = self.rng.u8(..8) != 0;
            let link = &mut self.links[id];
            let (Some(edge), Some(key)) = (link.edge.take(), link.key) else {
                continue;
            };
            let event = link.event(key, edge, whole);
            link.said_closed |= event.read_closed;
            events.push(event);
            let Event {
                readable,
                writable,
                read_closed,
                error,
                ..
            } = event;
            let flag = |set, letter| if set { letter } else { '-' };
            let flags = [
                flag(readable, 'r'),
                flag(writable, 'w'),
                flag(read_closed, 'c'),
                flag(error, 'e'),
            ];
            let flags = String::from_iter(flags);
            self.note(format_args!("#{id} event {flags}"), &[]);
        }
        if self.chance(self.weather.spurious) && !self.links.is_empty() {
            let id = self.rng.usize(..self.links.len());
            let (readable, writable) = (self.rng.bool(), self.rng.bool());
            let link = &self.links[id];
            let live = link.watcher == core && link.core && link.stage != Stage::Connecting;
            if let (Some(key), true) = (link.key, live) {
                events.push(Event {
                    readable,
                    writable,
                    ..event(Token::Transport(key))
                });
                self.note(format_args!("#{id} event for nothing"), &[]);
            }
        }
        if self.chance(self.weather.stale)
            && let Some(&(watcher, key)) = self.rng.choice(&self.dead_keys)
            && watcher == core
        {
            events.push(Event {
                readable: true,
                writable: true,
                read_closed: true,
                error: true,
                ..event(Token::Transport(key))
            });
        }
        self.rng.shuffle(&mut events[first..]);
    }
}

fn event(token: Token) -> Event {
    Event {
        token,
        readable: false,
        writable: false,
        read_closed: false,
        error: false,
    }
}

impl Link {
    fn raise(&mut self, readable: bool, writable: bool) {
        if self.core {
            let edge = self.edge.get_or_insert_default();
            edge.readable |= readable;
            edge.writable |= writable;
        }
    }

    fn has_edge(&self) -> bool {
        self.edge.is_some() && self.key.is_some() && self.core
    }

    /// Both directions are over; what has arrived can still be read.
    fn break_off(&mut self) {
        self.reset = true;
        self.raise(true, true);
    }

    /// All that is true of the socket; or, which epoll may do as well where it was asked between two changes, only what
    /// has changed.
    fn event(&self, key: Key, edge: Edge, whole: bool) -> Event {
        let failed = matches!(self.stage, Stage::Failed(_));
        let error = self.reset || failed;
        let closed = (self.inward.shut && self.stage == Stage::Open) || error;
        let level_r = !self.inward.bytes.is_empty() || closed;
        let level_w = self.stage == Stage::Open && self.outward.room() > 0;
        Event {
            readable: level_r && (whole || edge.readable),
            writable: (level_w && (whole || edge.writable)) || error,
            read_closed: closed,
            error,
            ..event(Token::Transport(key))
        }
    }
}

impl Pipe {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }
}

impl Trace {
    fn mix(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            let word = u64::from_le_bytes(padded) ^ (word.len() as u64) << 60;
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
    }
}

/// One core's side of a [`Machine`].
pub struct SimDriver {
    machine: Machine,
    core: usize,
}

/// A socket of the core.
pub struct SimSocket {
    machine: Machine,
    link: usize,
}

impl Driver for SimDriver {
    type Socket = SimSocket;

    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        let mut state = self.machine.0.borrow_mut();
        state.wait(self.core, until, events)
    }

    fn accept(&mut self, listener: u32) -> io::Result<(SimSocket, SocketAddr)> {
        let mut state = self.machine.0.borrow_mut();
        let chance = state.weather.accept;
        let fails = state.chance(chance);
        let how = state
            .rng
            .usize(..ACCEPT_EXHAUSTED.len() + ACCEPT_LOST.len() + 1);
        let queue = state.queue(self.core, listener);
        let Some(queue) = queue.filter(|queue| !queue.waiting.is_empty()) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if fails && let Some(&errno) = ACCEPT_EXHAUSTED.get(how) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let lost = ACCEPT_LOST.get(how.wrapping_sub(ACCEPT_EXHAUSTED.len()));
        if fails && lost.is_none() {
            return Err(io::Error::from_raw_os_error(INTERRUPTED));
        }
        let link = queue.waiting.pop_front().unwrap_or_default();
        if fails && let Some(&errno) = lost {
            state.links[link].core = false;
            state.links[link].break_off();
            state.note(format_args!("#{link} is lost before accept"), &[]);
            return Err(io::Error::from_raw_os_error(errno));
        }
        state.note(format_args!("#{link} accepted"), &[]);
        drop(state);
        let machine = self.machine.clone();
        Ok((SimSocket { machine, link }, peer(link)))
    }

    fn turn_away(&mut self, listener: u32) -> io::Result<()> {
        let mut state = self.machine.0.borrow_mut();
        let queue = state.queue(self.core, listener);
        let link = queue.and_then(|queue| queue.waiting.pop_front());
        let link = link.ok_or(io::ErrorKind::WouldBlock)?;
        state.links[link].core = false;
        state.links[link].break_off();
        state.note(format_args!("#{link} is turned away"), &[]);
        Ok(())
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<SimSocket> {
        let mut state = self.machine.0.borrow_mut();
        let chance = state.weather.connect;
        if state.chance(chance) {
            let kind = state.rng.usize(..CONNECT_FAILS.len());
            let at = state.now;
            state.losses.push(Loss {
                at,
                link: None,
                address: Some(address),
            });
            state.note(format_args!("connect to {address} fails"), &[]);
            return Err(io::Error::from_raw_os_error(CONNECT_FAILS[kind]));
        }
        let link = state.link(Stage::Connecting);
        state.dialled.push_back((link, address));
        state.note(format_args!("#{link} connecting to {address}"), &[]);
        drop(state);
        let machine = self.machine.clone();
        Ok(SimSocket { machine, link })
    }

    fn register(&mut self, socket: &mut SimSocket, key: Key) -> io::Result<()> {
        let mut state = self.machine.0.borrow_mut();
        let chance = state.weather.unwatched;
        if state.chance(chance) {
            let (at, link) = (state.now, Some(socket.link));
            let address = state.dialled.iter().find(|own| Some(own.0) == link);
            let address = address.map(|own| own.1);
            state.losses.push(Loss { at, link, address });
            state.note(format_args!("#{} cannot be watched", socket.link), &[]);
            return Err(io::Error::from_raw_os_error(UNWATCHED));
        }
        let link = &mut state.links[socket.link];
        link.key = Some(key);
        link.watcher = self.core;
        if link.stage == Stage::Open {
            // What is so already is reported once.
            link.raise(true, true);
        }
        Ok(())
    }

    fn close_listener(&mut self, listener: u32) {
        let mut state = self.machine.0.borrow_mut();
        let Some(queue) = state.queue(self.core, listener) else {
            return;
        };
        queue.open = false;
        for link in mem::take(&mut queue.waiting) {
            state.links[link].core = false;
            state.links[link].break_off();
            state.note(format_args!("#{link} is lost with its listener"), &[]);
        }
    }
}

impl Socket for SimSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.machine.0.borrow_mut().read(self.link, into)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.machine.0.borrow_mut().write(self.link, from)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        state.links[id].outward.shut = true;
        state.deeds += 1;
        state.note(format_args!("#{id} core shuts down"), &[]);
        Ok(())
    }

    fn connected(&mut self) -> io::Result<bool> {
        let state = self.machine.0.borrow();
        let link = &state.links[self.link];
        match link.stage {
            Stage::Connecting => Ok(false),
            Stage::Open if link.reset => Err(io::ErrorKind::ConnectionReset.into()),
            Stage::Open => Ok(true),
            Stage::Failed(kind) => Err(kind.into()),
        }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        let loses = state.rng.bool();
        let kept = state.rng.f64();
        let link = &mut state.links[id];
        link.core = false;
        link.outward.shut = true;
        let unread = link.inward.bytes.len();
        if unread > 0 && link.world && link.stage == Stage::Open {
            // Closing with bytes unread resets the connection, and what was on its way may be lost with it.
            link.reset = true;
            if loses {
                let kept = (link.outward.bytes.len() as f64 * kept) as usize;
                link.outward.bytes.truncate(kept);
            }
        }
        if let Some(key) = link.key {
            let dead = (link.watcher, key);
            state.dead_keys.push(dead);
        }
        state.deeds += 1;
        state.note(format_args!("#{id} core closes, {unread} unread"), &[]);
    }
}

/// The address of the client on that link.
fn peer(link: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, (link >> 8) as u8, link as u8], 40_000))
}

/// A connection that the core is making. Dropped, it never finishes.
pub struct Dialled {
    machine: Machine,
    link: usize,
}

impl Dialled {
    /// Which link, as the trace names it.
    pub fn id(&self) -> usize {
        self.link
    }

    /// It is made.
    pub fn accept(self) -> End {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        let link = &mut state.links[id];
        link.stage = Stage::Open;
        link.raise(true, true);
        state.note(format_args!("#{id} connected"), &[]);
        drop(state);
        End {
            machine: self.machine,
            link: self.link,
        }
    }

    /// It fails.
    pub fn refuse(self, kind: io::ErrorKind) {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        let link = &mut state.links[id];
        link.stage = Stage::Failed(kind);
        link.raise(true, true);
        state.note(format_args!("#{id} fails to connect: {kind:?}"), &[]);
    }
}

/// What the world finds when it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The core has ended its side.
    End,
    /// The connection was reset.
    Reset,
}

/// The world's end of a connection. Dropped, it closes: with a reset if something is unread, as a kernel does.
pub struct End {
    machine: Machine,
    link: usize,
}

impl End {
    /// Which link, as the trace names it.
    pub fn id(&self) -> usize {
        self.link
    }

    /// The address that the core knows it by.
    pub fn address(&self) -> SocketAddr {
        peer(self.link)
    }

    /// Takes at most `max` bytes of what the core has written.
    pub fn read(&self, into: &mut Vec<u8>, max: usize) -> Arrival {
        let mut state = self.machine.0.borrow_mut();
        let link = &mut state.links[self.link];
        let n = link.outward.bytes.len().min(max);
        if n > 0 {
            state.moved += 1;
            let link = &mut state.links[self.link];
            into.extend_from_slice(&link.outward.bytes.split_to(n));
            // Linux says that there is room again when a third is free.
            if link.full && link.outward.room() * 3 >= link.outward.capacity {
                link.full = false;
                link.raise(false, true);
            }
            return Arrival::Bytes(n);
        }
        match (link.reset, link.outward.shut) {
            _ if max == 0 => Arrival::Nothing,
            (true, _) => Arrival::Reset,
            (false, true) => Arrival::End,
            (false, false) => Arrival::Nothing,
        }
    }

    /// Sends as much of `bytes` as there is room for. `Err`: nobody will read it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.machine.0.borrow_mut();
        let link = &mut state.links[self.link];
        if link.reset || link.inward.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !link.core {
            link.reset = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let n = link.inward.room().min(bytes.len());
        if n > 0 {
            link.inward.bytes.extend_from_slice(&bytes[..n]);
            link.raise(true, false);
            state.moved += 1;
        }
        Ok(n)
    }

    /// How many bytes the core has not read yet.
    pub fn unread(&self) -> usize {
        self.machine.0.borrow().links[self.link].inward.bytes.len()
    }

    /// Sends no more.
    pub fn shutdown(&self) {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        if !mem::replace(&mut state.links[id].inward.shut, true) {
            state.links[id].raise(true, false);
            state.note(format_args!("#{id} world shuts down"), &[]);
        }
    }

    /// Resets the connection.
    pub fn reset(&self) {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        state.links[id].break_off();
        state.note(format_args!("#{id} world resets"), &[]);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.machine.0.borrow_mut();
        let id = self.link;
        let link = &mut state.links[id];
        link.world = false;
        if link.outward.bytes.is_empty() {
            if !mem::replace(&mut link.inward.shut, true) {
                link.raise(true, false);
            }
        } else {
            link.break_off();
        }
        link.outward.bytes.clear();
        if link.full {
            link.full = false;
            link.raise(false, true);
        }
        state.note(format_args!("#{id} world closes"), &[]);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        f.debug_struct("Machine")
            .field("now", &state.now)
            .field("links", &state.links.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDriver")
            .field("machine", &self.machine)
            .field("core", &self.core)
            .finish()
    }
}

macro_rules! debug_by_link {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(#{})"), self.link)
            }
        }
    )*};
}

debug_by_link!(SimSocket, Dialled, End);
