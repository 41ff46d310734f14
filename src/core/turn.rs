//! The turn: sense, obey, expire, run, flush.
//!
//! Owns the slabs of one thread and the order in which their tenants are advanced. It decides nothing about calls:
//! `admit` does at their beginning, `exchange` until their end.

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use http::header::{ORIGIN, USER_AGENT};
use http::{HeaderValue, Version};

use crate::core::admit::{NO_ROOM, ONLY_HTTP1, ONLY_HTTP2};
use crate::core::contain::{Panics, Work};
use crate::core::doors::{Claim, Doors, Handed, Placed};
use crate::core::messages::{Command, REPORTS_MAX, Report};
use crate::downstream::{
    Arrival, Budget, HIGH_WATER, Http1, Http2, Incoming, Refused, Share, Stream,
};
use crate::exchange::{Exchange, Outcome};
use crate::net::{
    AcceptFault, Alarm, Bell, Driver, EVENTS_MAX, Event, Key, Now, Reactor, ReadyList, Slots,
    Socket, Task, Token, Wakeup, trim,
};
use crate::policy::limits::STALL_PROGRESS_BYTES;
use crate::policy::{Limits, Peer, Rules, Snapshot, Versions};
use crate::telemetry::record::Traffic;
use crate::telemetry::{Record, panics};
use crate::tripwire::{Place, trip};
use crate::upstream::Pool;
use crate::wire::fields::X_USER_AGENT;
use crate::wire::{Party, Reason, RequestHead, Sink};

/// How many clients are accepted from one listener in one turn; then others have their turn.
const ACCEPTS_MAX: usize = 256;
/// How many clients are taken from a listener that is about to close: as many as its queue holds.
const QUEUE_MAX: usize = 4096;
/// After so many clients in a row that were lost in `accept`, it rests.
const LOST_MAX: usize = 64;
/// The pause after an `accept` that failed for want of something (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that clients are turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How many requests of HTTP/2 clients are looked at in one turn. A hundred connections may bring ten thousand at once; each is a head to be
/// written to a backend, which takes them a turn at a time.
const CALLS_MAX: usize = 256;
/// And of one of them, so that one who has more than all others together does not keep them from coming.
const CALLS_OF_ONE_MAX: usize = 64;
/// How many frames of HTTP/2 clients are read in one turn: a frame of ten bytes costs as much as one of a kilobyte, some two thousand
/// instructions, and a turn of them all must not be felt by anybody else.
const FRAMES_MAX: u32 = 8 << 10;
/// And of one of them; and what each may say even where others have said all that, so that a few frames never wait for many.
const FRAMES_OF_ONE_MAX: u32 = 1 << 10;
const FRAMES_OF_ONE_MIN: u32 = 32;
/// A head in HTTP/2 of which no more has come is refused only where twice as much is held of heads as may be, bytes.
const SMALL_HEAD_BYTES: usize = 4 << 10;
/// How many rounds over the ready list one turn makes; what is ready then waits for the next, so that sockets are served.
const ROUNDS_MAX: usize = 8;
/// Whose address is not known any more.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Call [`Core::turn`] again.
    Running,
    /// Everything is closed.
    Stopped,
}

/// Everything that one thread owns.
pub struct Core<D: Driver> {
    pub(super) id: usize,
    pub(super) reactor: Reactor<D>,
    pub(super) connections: Slots<Connection<D::Socket>>,
    pub(super) exchanges: Slots<Call<D::Socket>>,
    pub(super) pool: Pool<D::Socket>,
    pub(super) snapshot: Rules,
    /// Those of the snapshot, for the connections that are accepted under it.
    limits: Rc<Limits>,
    /// What all calls hold.
    pub(super) budget: Rc<Budget>,
    pub(super) drain: Drain,
    /// What all connections hold of heads that have not come whole, bytes.
    pub(super) heads_bytes: usize,
    inbox: Receiver<Command>,
    reports: Sender<Report>,
    /// Where records go, if not to the control thread.
    ledger: Option<Ledger>,
    /// How many records the channel had no room for.
    pub(super) records_dropped: u64,
    /// How many there were in all.
    pub(super) records: u64,
    /// How many requests were asked.
    requests: u64,
    pub(super) panics: Panics,
    listeners: Vec<Accepting>,
    /// Where clients are shared with other cores; `None`: there is no other.
    pub(super) doors: Option<Doors<D::Socket>>,
    pub(super) now: Option<Now>,
    /// When a client was last said to be turned away.
    turned_away: Option<Instant>,
    /// How many were turned away for want of a descriptor and have not been told of.
    unserved: usize,
    /// How long `h2` remembers a stream that was reset.
    reset_stream_duration: Duration,
    /// Which turn this is.
    turns: u64,
    /// Requests of HTTP/2 clients that have been looked at in this turn.
    begun: usize,
    /// Frames of HTTP/2 clients that have been read in it.
    frames: u32,
    /// HTTP/2 connections that may have more.
    held_over: Vec<Key>,
    events: Vec<Event>,
    batch: Vec<Task>,
    keys: Vec<Key>,
}

/// The way of the records past the control thread.
struct Ledger {
    records: Sender<Report>,
    /// Records that have been read, to be written on again.
    spent: Receiver<Box<Record>>,
}

/// A client's connection.
pub(super) struct Connection<S: Socket> {
    pub(super) seat: Seat<S>,
    pub(super) transport: Key,
    pub(super) peer: Client,
    /// Its part of [`Core::heads_bytes`].
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
    /// Which turn the next two are of.
    turn: u64,
    /// Its requests that were looked at.
    begun: usize,
    /// Its frames that were read.
    frames: u32,
}

impl<S: Socket> Shared<S> {
    /// Begins to count anew if this is another turn, of which it may read `frames`.
    fn count_for(&mut self, turn: u64, frames: u32) {
        if self.turn != turn {
            (self.turn, self.begun, self.frames) = (turn, 0, 0);
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

    fn popped(&self) {
        self.bell.popped();
        if let Seat::Shared(shared) = &self.seat {
            shared.wakeup.popped();
        }
    }
}

/// An exchange in its slot.
pub(super) struct Call<S: Socket> {
    pub(super) exchange: Exchange<Stream<S>, Pool<S>>,
    pub(super) connection: Key,
    pub(super) wakeup: Wakeup<Task>,
    pub(super) alarm: Alarm,
    /// Its part of what all calls hold, without what its client's stream counts by itself.
    pub(super) share: Share,
    /// When it began, for people.
    pub(super) started: SystemTime,
}

impl<S: Socket> Call<S> {
    /// What it holds, but for its client's end, bytes. What is kept to be sent again is the same that waits for window.
    fn holds(&self) -> usize {
        let (waiting, kept) = self.exchange.held();
        let upstream = self.exchange.upstream();
        let (gathered, unsent) = upstream.map_or((0, 0), |upstream| upstream.held());
        waiting + gathered + kept.max(unsent)
    }
}

/// How a listener stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// Its queue was empty when we looked last.
    Idle,
    /// There may be more in its queue than one turn's worth.
    More,
    /// It could not; once more at that time.
    Paused(Instant),
    Closed,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It has not begun.
    No,
    /// No more connections; open calls end by themselves until then.
    Until(Instant),
    /// All is closed.
    Done,
}

impl<D: Driver> Core<D> {
    /// A core that obeys `snapshot`. `reset_stream_duration`: [`crate::upstream::pool::RESET_STREAM_DURATION`], or "for ever"
    /// in a simulation.
    pub fn new(
        id: usize,
        driver: D,
        listeners: usize,
        snapshot: Arc<Snapshot>,
        inbox: Receiver<Command>,
        reports: Sender<Report>,
        reset_stream_duration: Duration,
    ) -> Self {
        let mut pool = Pool::new(reset_stream_duration);
        pool.adopt(&snapshot);
        Self {
            id,
            reactor: Reactor::new(driver),
            connections: Slots::default(),
            exchanges: Slots::default(),
            pool,
            limits: Rc::new(snapshot.limits.clone()),
            budget: Rc::new(Budget::new(snapshot.limits.buffers_bytes_max)),
            snapshot: Rules::new(snapshot),
            drain: Drain::No,
            heads_bytes: 0,
            inbox,
            reports,
            ledger: None,
            records_dropped: 0,
            records: 0,
            requests: 0,
            panics: Panics::default(),
            // The queue may have filled before the first wait.
            listeners: vec![Accepting::More; listeners],
            doors: None,
            now: None,
            turned_away: None,
            unserved: 0,
            reset_stream_duration,
            turns: 0,
            begun: 0,
            frames: 0,
            held_over: Vec::new(),
            events: Vec::new(),
            batch: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// The same core where it shares its clients with others, by its own view of all doors.
    #[must_use]
    pub fn sharing(mut self, doors: Doors<D::Socket>) -> Self {
        self.doors = Some(doors);
        self
    }

    /// From now on sends records to `records`, and attempts there as well as to the control thread, so that whoever prints
    /// has both in their order. Those that have been read may come back through `spent`: their memory is used again, which
    /// is cheaper than having one thread allocate and another one free.
    pub fn keep_ledger(&mut self, records: Sender<Report>, spent: Receiver<Box<Record>>) {
        self.ledger = Some(Ledger { records, spent });
    }

    /// Turns until it is told to stop.
    pub fn run(mut self) {
        while self.turn() == Flow::Running {}
    }

    /// One pass of the loop.
    pub fn turn(&mut self) -> Flow {
        let mut events = mem::take(&mut self.events);
        let now = self.reactor.driver.wait(self.wait_until(), &mut events);
        self.now = Some(now);
        self.reactor.staging.next_turn();
        let crowded = events.len() >= EVENTS_MAX;
        self.sense(&mut events, now);
        if crowded {
            self.look_at_backends(now);
        }
        self.events = events;
        self.obey(now);
        self.expire(now);
        (self.turns, self.begun, self.frames) = (self.turns + 1, 0, 0);
        self.run_ready(now);
        self.relieve(now);
        self.flush(now);
        self.call_held_over();
        self.leave(now)
    }

    pub(super) fn wait_until(&self) -> Option<Instant> {
        let now = self.now?.instant;
        if !self.reactor.ready.is_empty() || self.listeners.contains(&Accepting::More) {
            return Some(now);
        }
        let paused = self.listeners.iter().filter_map(|listener| match listener {
            Accepting::Paused(until) => Some(*until),
            _ => None,
        });
        let drain = match self.drain {
            Drain::Until(until) => Some(until),
            Drain::No | Drain::Done => None,
        };
        paused.chain(self.reactor.timers.next()).chain(drain).min()
    }

    /// Marks and enqueues; no work is done here.
    fn sense(&mut self, events: &mut Vec<Event>, now: Now) {
        for event in events.drain(..) {
            match event.token {
                Token::Inbox => self.welcome_handed(Doors::take, now),
                Token::Listener(index) => {
                    if let Some(listener @ Accepting::Idle) = self.listeners.get_mut(index as usize)
                    {
                        *listener = Accepting::More;
                    }
                }
                Token::Transport(key) => {
                    // A late event for a dead connection finds nobody.
                    let Some(owner) = self.reactor.transports.get(key).map(|place| place.owner)
                    else {
                        continue;
                    };
                    self.contain(Work::Task(owner), now, |core| {
                        if let Some(place) = core.reactor.transports.get(key) {
                            place.transport.borrow_mut().handle_event(&event);
                        }
                        core.wake(owner);
                    });
                }
            }
        }
        for index in 0..self.listeners.len() {
            let due = match self.listeners[index] {
                Accepting::More => true,
                Accepting::Paused(until) => now.instant >= until,
                Accepting::Idle | Accepting::Closed => false,
            };
            if due {
                self.listeners[index] = self.accept(index, ACCEPTS_MAX, now);
            }
        }
    }

    /// There are more events than one turn takes, and they come in the order in which they happened: what a backend has answered
    /// would be read only behind everybody who has called before it, and each of those is a call more that is open.
    fn look_at_backends(&mut self, now: Now) {
        self.contain(Work::Other, now, |core| core.pool.look());
    }

    /// Takes clients out of a listener's queue. It never gives up a listener, whatever `accept` says.
    fn accept(&mut self, index: usize, accepts_max: usize, now: Now) -> Accepting {
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

    /// Who asks, and by what number the request that has just come is told from all others.
    pub(super) fn who_asks(&mut self, address: SocketAddr, listener: u32, now: Now) -> Peer {
        self.requests += 1;
        let since = now.wall.duration_since(SystemTime::UNIX_EPOCH);
        let time = since.map_or(0, |since| since.as_nanos() as u64);
        // Apart in time from those of another process, and in place and order from those of this one.
        let own = (self.id as u64) << 48 | self.requests;
        Peer {
            address,
            listener: listener as usize,
            number: u128::from(time) << 64 | u128::from(own),
        }
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
    fn welcome_handed(
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

    /// Enqueues whoever is to go on when something has happened to `task`'s socket.
    pub(super) fn wake(&self, task: Task) {
        match task {
            Task::Upstream(key) => self.pool.wake(key),
            Task::Exchange(key) => {
                if let Some(call) = self.exchanges.get(key) {
                    call.wakeup.wake();
                }
            }
            Task::Downstream(key) => match self.connections.get(key) {
                Some(Connection {
                    seat: Seat::Lent(exchange),
                    ..
                }) => {
                    self.wake(Task::Exchange(*exchange));
                }
                Some(connection) => connection.wake(&self.reactor.ready, task),
                None => {}
            },
        }
    }

    fn obey(&mut self, now: Now) {
        while let Ok(command) = self.inbox.try_recv() {
            self.contain(Work::Command, now, |core| core.obey_one(command, now));
        }
    }

    fn obey_one(&mut self, command: Command, now: Now) {
        match command {
            Command::Adopt(snapshot) => {
                self.pool.adopt(&snapshot);
                trip(Place::Obey);
                let generation = snapshot.generation;
                self.limits = Rc::new(snapshot.limits.clone());
                self.budget.allow(snapshot.limits.buffers_bytes_max);
                self.snapshot = Rules::new(snapshot);
                self.report(Report::Adopted {
                    core: self.id,
                    generation,
                });
            }
            Command::Probe => {
                self.pool.probe();
                self.connect_wanted(now);
            }
            Command::Drain(limit) => self.begin_drain(now.instant + limit, now),
            Command::Stop => {
                // A drain without patience: open calls are told, and each has its record.
                self.begin_drain(now.instant, now);
                self.drain = Drain::Until(now.instant);
            }
        }
    }

    /// Begins the connections that calls have asked for.
    fn connect_wanted(&mut self, now: Now) {
        self.contain(Work::Other, now, |core| {
            core.pool.connect_wanted(&mut core.reactor, now.instant);
        });
        self.report_attempts();
    }

    pub(super) fn begin_drain(&mut self, until: Instant, now: Now) {
        if self.drain != Drain::No {
            return;
        }
        self.drain = Drain::Until(until);
        trip(Place::Obey);
        self.close_doors(now);
    }

    /// No more clients, and no more requests of those who are here.
    pub(super) fn close_doors(&mut self, now: Now) {
        // Whoever is on the way from another core was let in by it; from now on others keep theirs.
        self.welcome_handed(Doors::close, now);
        for index in 0..self.listeners.len() {
            if self.listeners[index] == Accepting::Closed {
                continue;
            }
            // A closed SO_REUSEPORT listener drops what waits in its queue: whoever is in it is served.
            // Not more than it can hold: under a stream of new ones the drain must begin all the same.
            self.accept(index, QUEUE_MAX, now);
            self.reactor.driver.close_listener(index as u32);
            self.listeners[index] = Accepting::Closed;
        }
        // Answers that have not begun say that they are the last on their connection.
        for (_, call) in self.exchanges.iter_mut() {
            call.exchange.condemn();
        }
        // Each idle connection closes itself when it is advanced.
        for (key, connection) in self.connections.iter() {
            let task = Task::Downstream(key);
            connection.wake(&self.reactor.ready, task);
        }
    }

    fn expire(&mut self, now: Now) {
        while let Some(task) = self.reactor.timers.expired(now.instant) {
            self.contain(Work::Task(task), now, |core| core.expire_one(task, now));
        }
    }

    fn expire_one(&mut self, task: Task, now: Now) {
        trip(Place::Expire);
        match task {
            Task::Upstream(key) => self.pool.wake(key),
            Task::Exchange(key) => {
                if let Some(call) = self.exchanges.get_mut(key) {
                    call.alarm.fired();
                    call.wakeup.wake();
                }
            }
            Task::Downstream(key) => self.expire_connection(key, now),
        }
    }

    fn expire_connection(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.alarm.fired();
        let mut next = None;
        let stalled = self
            .reactor
            .transports
            .get(connection.transport)
            .is_some_and(|place| {
                let mut transport = place.transport.borrow_mut();
                let limit = self.snapshot.limits.stall_timeout;
                let at = transport.stalled_at(now.instant, limit, STALL_PROGRESS_BYTES);
                let stalled = at.is_some_and(|at| now.instant >= at);
                if stalled {
                    transport.give_up();
                } else {
                    next = at;
                }
                stalled
            });
        if !stalled
            && let Seat::Home(engine) = &mut connection.seat
            && engine
                .deadline()
                .is_some_and(|deadline| now.instant >= deadline)
            && let Some(refused) = engine.handle_timeout(now.instant)
        {
            self.refuse(key, refused, now);
        }
        // Only a stall's time is armed here, which is after now; all else is armed by whoever is advanced. A time that has
        // passed would fire in this same pass, for ever.
        if let Some(connection) = self.connections.get_mut(key) {
            connection
                .alarm
                .arm(&mut self.reactor.timers, next, Task::Downstream(key));
        }
        self.wake(Task::Downstream(key));
    }

    /// Sees to it that the connection is looked at when its time is over.
    fn arm_connection(&mut self, key: Key, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let home = match &connection.seat {
            Seat::Home(engine) => engine.deadline(),
            Seat::Shared(shared) => shared.engine.deadline(),
            Seat::Lent(_) | Seat::Empty => None,
        };
        let stall = self
            .reactor
            .transports
            .get(connection.transport)
            .and_then(|place| {
                let limit = self.snapshot.limits.stall_timeout;
                place
                    .transport
                    .borrow_mut()
                    .stalled_at(now.instant, limit, STALL_PROGRESS_BYTES)
            });
        let wanted = home.into_iter().chain(stall).min();
        connection
            .alarm
            .arm(&mut self.reactor.timers, wanted, Task::Downstream(key));
    }

    /// Advances whoever is ready, connections before exchanges, so that what has arrived is visible to whoever waits for it.
    fn run_ready(&mut self, now: Now) {
        let mut batch = mem::take(&mut self.batch);
        for _ in 0..ROUNDS_MAX {
            self.reactor.ready.take(&mut batch);
            if batch.is_empty() {
                break;
            }
            for &task in &batch {
                match task {
                    Task::Downstream(key) => {
                        self.contain(Work::Task(task), now, |core| {
                            core.advance_connection(key, now)
                        });
                    }
                    Task::Upstream(key) => {
                        self.contain(Work::Task(task), now, |core| {
                            core.pool.advance(key, &mut core.reactor, now.instant);
                        });
                        self.report_attempts();
                    }
                    Task::Exchange(_) => {}
                }
            }
            for &task in &batch {
                if let Task::Exchange(key) = task {
                    self.contain(Work::Task(task), now, |core| {
                        core.advance_exchange(key, now)
                    });
                }
            }
            batch.clear();
            self.connect_wanted(now);
        }
        trim(&mut batch);
        self.batch = batch;
    }

    fn advance_connection(&mut self, key: Key, now: Now) {
        if let Some(connection) = self.connections.get(key) {
            connection.popped();
        }
        trip(Place::Downstream);
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            let flow = match &connection.seat {
                Seat::Home(_) => self.advance_http1(key, now),
                Seat::Shared(_) => self.advance_http2(key, now),
                Seat::Lent(_) | Seat::Empty => return,
            };
            match flow {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(true) => break,
                ControlFlow::Break(false) => return,
            }
        }
        self.arm_connection(key, now);
    }

    /// One step of an HTTP/1.1 connection. `Break`: it waits, or (`false`) is gone.
    fn advance_http1(&mut self, key: Key, now: Now) -> ControlFlow<bool> {
        let draining = self.drain != Drain::No;
        let Some(Connection {
            seat: Seat::Home(engine),
            ..
        }) = self.connections.get_mut(key)
        else {
            return ControlFlow::Break(false);
        };
        match engine.poll(now.instant) {
            Poll::Pending if draining && engine.is_idle() => engine.linger(),
            Poll::Pending => {
                let bytes = engine.head_bytes();
                let most = self.snapshot.limits.heads_bytes_max;
                if !self.hold_head(key, bytes) || self.heads_bytes <= most {
                    return ControlFlow::Break(true);
                }
                self.refuse_for_want_of_room(key, now);
            }
            Poll::Ready(Incoming::Closed) => {
                self.close_connection(key, now);
                return ControlFlow::Break(false);
            }
            Poll::Ready(Incoming::Refused(refused)) => self.refuse(key, refused, now),
            Poll::Ready(Incoming::Http2) => match self.versions(key) {
                Versions::Http1 => {
                    let refused = Refused {
                        fault: ONLY_HTTP1,
                        head: None,
                    };
                    self.refuse(key, refused, now);
                }
                Versions::Both | Versions::Http2 => self.share(key, now),
            },
            Poll::Ready(Incoming::Request(request)) if self.versions(key) == Versions::Http2 => {
                self.hold_head(key, 0);
                let refused = Refused {
                    fault: ONLY_HTTP2,
                    head: Some(Box::new(request.head)),
                };
                if let Some(mut stream) = self.lend(key) {
                    stream.condemn();
                    self.turn_down(key, stream, refused, "bad_http", Party::Downstream, now);
                }
            }
            Poll::Ready(Incoming::Request(request)) => {
                self.hold_head(key, 0);
                let work = Work::Task(Task::Downstream(key));
                self.accounted(key, work, now, |core| {
                    if let Some(stream) = core.lend(key) {
                        core.admit(key, stream, request.head, request.version, now);
                    }
                });
            }
        }
        ControlFlow::Continue(())
    }

    /// What is spoken where a client came in.
    fn versions(&self, key: Key) -> Versions {
        let connection = self.connections.get(key);
        let listener =
            connection.and_then(|own| self.snapshot.listeners.get(own.peer.listener() as usize));
        listener.map_or(Versions::Both, |listener| listener.versions)
    }

    /// From now on it speaks HTTP/2.
    fn share(&mut self, key: Key, now: Now) {
        let wakeup = self.reactor.wakeup(Task::Downstream(key));
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Seat::Home(engine) = &connection.seat else {
            return;
        };
        let transport = Rc::clone(engine.transport());
        let (limits, budget) = (Rc::clone(&self.limits), Rc::clone(&self.budget));
        let duration = self.reset_stream_duration;
        let engine = Http2::new(transport, limits, budget, duration, now.instant);
        connection.seat = Seat::Shared(Box::new(Shared {
            engine,
            wakeup,
            // None has this number.
            turn: u64::MAX,
            begun: 0,
            frames: 0,
        }));
    }

    /// One step of an HTTP/2 connection. `Break`: it waits, or (`false`) is gone.
    fn advance_http2(&mut self, key: Key, now: Now) -> ControlFlow<bool> {
        let draining = self.drain != Drain::No;
        let (turn, room) = (self.turns, self.begun < CALLS_MAX);
        let frames = FRAMES_MAX.saturating_sub(self.frames);
        let frames = frames.clamp(FRAMES_OF_ONE_MIN, FRAMES_OF_ONE_MAX);
        let Some(Connection {
            seat: Seat::Shared(shared),
            ..
        }) = self.connections.get_mut(key)
        else {
            return ControlFlow::Break(false);
        };
        shared.count_for(turn, frames);
        let accepts = room && shared.begun < CALLS_OF_ONE_MAX;
        let Shared {
            engine,
            wakeup,
            frames,
            ..
        } = &mut **shared;
        if draining {
            engine.close(now.instant);
        }
        let cx = &mut Context::from_waker(wakeup.waker());
        // A request that is lost costs its stream, which has reset itself, and no other.
        let work = Work::Other;
        let before = engine.frames_left();
        let found = engine.poll(accepts, now.instant, cx);
        let read = before.saturating_sub(engine.frames_left());
        *frames += read;
        self.frames += read;
        match found {
            Poll::Pending => {
                let bytes = engine.head_bytes();
                if !accepts || engine.is_out_of_frames() {
                    self.held_over.push(key);
                }
                let most = self.snapshot.limits.heads_bytes_max;
                // There are many small ones, and few who hold much would cost them their calls.
                let most = if bytes <= SMALL_HEAD_BYTES {
                    2 * most
                } else {
                    most
                };
                if !self.hold_head(key, bytes) || self.heads_bytes <= most {
                    return ControlFlow::Break(true);
                }
                if let Some(Connection {
                    seat: Seat::Shared(shared),
                    ..
                }) = self.connections.get_mut(key)
                {
                    shared.engine.refuse();
                }
                let words = NO_ROOM.detail.to_owned();
                self.record_malformed(key, "overloaded", words, Party::Proxy, now);
            }
            Poll::Ready(Arrival::Closed) => {
                self.close_connection(key, now);
                return ControlFlow::Break(false);
            }
            Poll::Ready(Arrival::Malformed(words)) => {
                self.record_malformed(key, "bad_http", words, Party::Downstream, now);
            }
            Poll::Ready(Arrival::Refused(refused, stream)) => {
                self.note_begun(key);
                self.accounted(key, work, now, |core| {
                    let stream = Stream::Http2(stream);
                    core.turn_down(key, stream, refused, "bad_http", Party::Downstream, now);
                });
            }
            Poll::Ready(Arrival::Request(head, stream)) => {
                self.note_begun(key);
                self.accounted(key, work, now, |core| {
                    core.admit(key, Stream::Http2(stream), head, Version::HTTP_2, now);
                });
            }
        }
        ControlFlow::Continue(())
    }

    /// A request of an HTTP/2 client is looked at.
    fn note_begun(&mut self, key: Key) {
        self.begun += 1;
        if let Some(Connection {
            seat: Seat::Shared(shared),
            ..
        }) = self.connections.get_mut(key)
        {
            shared.begun += 1;
        }
    }

    /// HTTP/2 connections that may have more go on in the next turn; first those who had least in this one.
    fn call_held_over(&mut self) {
        let mut keys = mem::take(&mut self.held_over);
        keys.sort_by_cached_key(|&key| match self.connections.get_mut(key) {
            Some(Connection {
                seat: Seat::Shared(shared),
                ..
            }) => (shared.begun, shared.frames),
            _ => (0, 0),
        });
        for key in keys {
            self.wake(Task::Downstream(key));
        }
    }

    /// A request that came whole is accounted for, whatever becomes of it in that step.
    fn accounted(&mut self, key: Key, work: Work, now: Now, step: impl FnOnce(&mut Self)) {
        let (records, calls, peer) = (self.records, self.exchanges.len(), self.peer(key));
        if panics::contained(|| step(self)).is_some() {
            return;
        }
        // Asked before others that are lost with it have their records.
        let is_lost = self.records == records && self.exchanges.len() == calls;
        self.lose(work, now);
        if is_lost {
            self.record_lost(peer, now);
        }
        // A call that was begun, and of which nobody was told yet.
        for (_, call) in self.exchanges.iter() {
            if call.connection == key {
                call.wakeup.wake();
            }
        }
    }

    /// An engine at home, to be lent.
    pub(super) fn lend(&mut self, key: Key) -> Option<Stream<D::Socket>> {
        let connection = self.connections.get_mut(key)?;
        match mem::replace(&mut connection.seat, Seat::Empty) {
            Seat::Home(engine) => Some(Stream::Http1(engine)),
            seat => {
                connection.seat = seat;
                None
            }
        }
    }

    /// A call is over: its connection takes back what it has given for it.
    pub(super) fn take_back(&mut self, key: Key, stream: Stream<D::Socket>, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match (stream, &mut connection.seat) {
            (Stream::Http1(mut engine), seat) => {
                engine.come_home(now.instant);
                *seat = Seat::Home(engine);
            }
            (Stream::Http2(stream), Seat::Shared(shared)) => {
                shared.engine.take_leave(stream, now.instant);
            }
            (Stream::Http2(stream), _) => drop(stream),
        }
        // No socket event announces what is already buffered.
        connection.wake(&self.reactor.ready, Task::Downstream(key));
    }

    /// Counts what a connection holds of a head that has not come whole. Whether it has become more.
    fn hold_head(&mut self, key: Key, bytes: usize) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        // What is read ahead of one connection is bounded far below that.
        let noted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = mem::replace(&mut connection.head_bytes, noted);
        self.heads_bytes = self.heads_bytes + noted as usize - before as usize;
        noted > before
    }

    fn advance_exchange(&mut self, key: Key, now: Now) {
        let Some(call) = self.exchanges.get_mut(key) else {
            return;
        };
        call.wakeup.popped();
        let cx = &mut Context::from_waker(call.wakeup.waker());
        match call.exchange.poll(&mut self.pool, now.instant, cx) {
            Poll::Ready(outcome) => self.finish(key, outcome, now),
            Poll::Pending => {
                call.share.hold(call.holds());
                let wanted = call.exchange.wake_at();
                call.alarm
                    .arm(&mut self.reactor.timers, wanted, Task::Exchange(key));
            }
        }
    }

    /// The one end of every exchange: both streams go, the engine comes home, the record is written.
    pub(super) fn finish(&mut self, key: Key, outcome: Outcome, now: Now) {
        let Some(call) = self.exchanges.get(key) else {
            return;
        };
        let record = self.record(call, outcome, now);
        self.report(Report::Record(record));
        let Some(mut call) = self.exchanges.remove(key) else {
            return;
        };
        call.alarm.cancel(&mut self.reactor.timers);
        trip(Place::Finish);
        let connection = call.connection;
        let (stream, ticket, _) = call.exchange.into_parts();
        self.pool.leave(&ticket);
        self.take_back(connection, stream, now);
    }

    fn record(&self, call: &Call<D::Socket>, outcome: Outcome, now: Now) -> Box<Record> {
        let exchange = &call.exchange;
        let terms = exchange.terms();
        let route = terms.snapshot.routes.get(terms.route);
        let backend = route.and_then(|route| terms.snapshot.backend(route.backend));
        let peer = self
            .connections
            .get(call.connection)
            .map(|connection| connection.peer.address());
        let (request, response) = exchange.traffic();
        let rpc = terms.dialect.is_rpc();
        let ledger = self.ledger.as_ref();
        let spent = ledger.and_then(|own| own.spent.try_recv().ok());
        let mut record = spent.unwrap_or_else(|| Box::new(Record::blank()));
        begin_record(&mut record, &terms.head, peer, call.started);
        record.elapsed = now.instant.duration_since(terms.started);
        record.first_byte = exchange.first_byte();
        record.protocol = terms.dialect.name();
        record.route = route.map(|route| Arc::clone(&route.name));
        record.backend = backend.map(|backend| Arc::clone(&backend.name));
        record.endpoint = exchange.ticket().address();
        record.attempts = exchange.ticket().attempts();
        record.code = rpc.then_some(outcome.status.code);
        record.http_status = exchange.http_status();
        record.reason = outcome.reason;
        record.by = outcome.by;
        record.message.push_str(&outcome.status.message);
        record.aborted = outcome.aborted;
        record.request = request;
        record.response = response;
        record
    }

    /// A record with what the request's head says, and nothing else.
    pub(super) fn blank_record(
        head: &RequestHead,
        peer: Option<SocketAddr>,
        started: Now,
    ) -> Record {
        let mut record = Record::blank();
        begin_record(&mut record, head, peer, started.wall);
        record
    }

    pub(super) fn peer(&self, key: Key) -> SocketAddr {
        let connection = self.connections.get(key);
        connection.map_or(NOBODY, |connection| connection.peer.address())
    }

    pub(super) fn close_connection(&mut self, key: Key, now: Now) {
        self.hold_head(key, 0);
        if let Some(mut connection) = self.connections.remove(key) {
            connection.alarm.cancel(&mut self.reactor.timers);
            self.reactor.close(connection.transport, now.instant);
        }
    }

    /// One write for each socket that has something to say; whoever waited for room goes on.
    fn flush(&mut self, now: Now) {
        let mut keys = mem::take(&mut self.keys);
        self.reactor.staging.take_dirty(&mut keys);
        for key in keys.drain(..) {
            let Some(owner) = self.reactor.transports.get(key).map(|place| place.owner) else {
                continue;
            };
            self.contain(Work::Task(owner), now, |core| {
                core.flush_one(key, owner, now)
            });
        }
        self.reactor.staging.take_starved(&mut keys);
        for key in keys.drain(..) {
            if let Some(place) = self.reactor.transports.get(key) {
                self.wake(place.owner);
            }
        }
        trim(&mut keys);
        self.keys = keys;
    }

    fn flush_one(&mut self, key: Key, owner: Task, now: Now) {
        let Some(place) = self.reactor.transports.get(key) else {
            return;
        };
        let mut transport = place.transport.borrow_mut();
        transport.flush(now.instant);
        let high_water = match owner {
            Task::Upstream(_) => usize::MAX,
            Task::Downstream(_) | Task::Exchange(_) => HIGH_WATER,
        };
        let relieved = transport.take_relieved(high_water);
        let failed = transport.is_broken();
        let waiting = transport.unwritten() > 0 && !failed;
        drop(transport);
        if relieved || failed {
            self.wake(owner);
        }
        if waiting && let Task::Downstream(key) = owner {
            self.arm_connection(key, now);
        }
    }

    /// Whether this was the last turn.
    fn leave(&mut self, now: Now) -> Flow {
        if let Drain::Until(until) = self.drain {
            if self.connections.is_empty() {
                self.drain = Drain::Done;
            } else if now.instant >= until {
                // The last row of the table of ends: what is left is told why.
                let keys: Vec<Key> = self.exchanges.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.contain(Work::Task(Task::Exchange(key)), now, |core| {
                        if let Some(call) = core.exchanges.get_mut(key) {
                            let cx = &mut Context::from_waker(call.wakeup.waker());
                            let outcome = call.exchange.abandon(Reason::Draining, now.instant, cx);
                            core.finish(key, outcome, now);
                        }
                    });
                }
                self.drain = Drain::Done;
            }
        }
        if self.drain != Drain::Done {
            return Flow::Running;
        }
        self.say_goodbye(now);
        self.flush(now);
        let keys: Vec<Key> = self.exchanges.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Exchange(key)), now, |core| {
                if let Some(mut call) = core.exchanges.remove(key) {
                    call.alarm.cancel(&mut core.reactor.timers);
                }
            });
        }
        let keys: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            let task = Task::Downstream(key);
            self.contain(Work::Task(task), now, |core| {
                core.close_connection(key, now)
            });
        }
        let keys: Vec<Key> = self.pool.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Upstream(key)), now, |core| {
                core.pool.remove(key, &mut core.reactor, now.instant);
            });
        }
        // The last word must arrive: whoever waits for this core waits for it.
        let _ = self.reports.send(self.last_word());
        Flow::Stopped
    }

    /// What HTTP/2 connections still have to say is staged.
    fn say_goodbye(&mut self, now: Now) {
        let keys: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.contain(Work::Task(Task::Downstream(key)), now, |core| {
                if let Some(Connection {
                    seat: Seat::Shared(shared),
                    ..
                }) = core.connections.get_mut(key)
                {
                    shared.engine.say_goodbye(now.instant);
                }
            });
        }
    }

    fn report_attempts(&mut self) {
        for attempt in self.pool.take_attempts() {
            self.report(Report::Attempt(Box::new(attempt)));
        }
    }

    /// Tells the control thread, or whoever keeps the records; where too many wait it costs the report, never the turn.
    pub(super) fn report(&mut self, report: Report) {
        let is_record = u64::from(matches!(report, Report::Record(_)));
        self.records += is_record;
        let way = match (&report, &self.ledger) {
            (Report::Record(_), Some(ledger)) => &ledger.records,
            (Report::Attempt(attempt), Some(ledger)) => {
                let _ = tell(&ledger.records, Report::Attempt(attempt.clone()));
                &self.reports
            }
            _ => &self.reports,
        };
        if !tell(way, report) {
            self.records_dropped += is_record;
        }
    }
}

/// Whether the report is on its way. A channel may have a bound of its own as well.
fn tell(way: &Sender<Report>, report: Report) -> bool {
    way.len() < REPORTS_MAX && way.try_send(report).is_ok()
}

/// Writes on a record what the request's head says, and takes away all else that is on it. Its texts keep their memory.
fn begin_record(on: &mut Record, head: &RequestHead, peer: Option<SocketAddr>, at: SystemTime) {
    // By name, each of them: a field that is forgotten here would tell of another call.
    let Record {
        started,
        elapsed,
        first_byte,
        client,
        verb,
        path,
        origin,
        library,
        protocol,
        route,
        backend,
        endpoint,
        attempts,
        code,
        http_status,
        reason,
        refusal,
        by,
        message,
        aborted,
        request,
        response,
    } = on;
    *started = at;
    *elapsed = Duration::ZERO;
    *first_byte = None;
    *client = peer.unwrap_or(NOBODY);
    verb.clear();
    verb.push_str(head.method.as_str());
    path.clear();
    path.push_str(head.path.path());
    write_field(origin, head.headers.get(ORIGIN));
    let named = head.headers.get(X_USER_AGENT);
    write_field(library, named.or_else(|| head.headers.get(USER_AGENT)));
    *protocol = "http";
    *route = None;
    *backend = None;
    *endpoint = None;
    *attempts = 0;
    *code = None;
    *http_status = None;
    *reason = Reason::Ok;
    *refusal = None;
    *by = Party::Proxy;
    message.clear();
    *aborted = false;
    *request = Traffic::default();
    *response = Traffic::default();
}

fn write_field(on: &mut Option<String>, value: Option<&HeaderValue>) {
    let Some(value) = value else {
        *on = None;
        return;
    };
    let on = on.get_or_insert_default();
    on.clear();
    match value.to_str() {
        Ok(text) => on.push_str(text),
        Err(_) => on.push_str(&String::from_utf8_lossy(value.as_bytes())),
    }
}

impl<D: Driver> fmt::Debug for Core<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.id)
            .field("connections", &self.connections.len())
            .field("exchanges", &self.exchanges.len())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
