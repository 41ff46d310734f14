//! The turn: sense, obey, expire, run, flush.
//!
//! Owns the slabs of one thread and the order in which their tenants are advanced. It decides nothing about calls:
//! `admit` does at their beginning, `exchange` until their end.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use crate::core::accept::{ACCEPTS_MAX, Accepting};
use crate::core::client::{Connection, Seat};
use crate::core::contain::{Panics, Work};
use crate::core::doors::Doors;
use crate::core::drain::Drain;
use crate::core::heads::HalfHeads;
use crate::core::messages::{Command, Report};
use crate::core::records::Ledger;
use crate::core::relief::Backlog;
use crate::core::serve::{CALLS_OF_ONE_MAX, FRAMES_OF_ONE_MAX};
use crate::downstream::{Budget, HIGH_WATER, Share, Stream};
use crate::exchange::{Exchange, Outcome};
use crate::net::{
    Alarm, Driver, EVENTS_MAX, Event, Key, Now, Reactor, Slots, Socket, Task, Token, Wakeup, trim,
};
use crate::policy::{Limits, Peer, Rules, Snapshot};
use crate::telemetry::Record;
use crate::tripwire::{Place, trip};
use crate::upstream::Pool;

/// How many rounds over the ready list one turn makes; what is ready then waits for the next, so that sockets are served.
const ROUNDS_MAX: usize = 8;

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
    pub(super) limits: Rc<Limits>,
    /// What all calls hold.
    pub(super) budget: Rc<Budget>,
    pub(super) drain: Drain,
    /// What all connections hold of heads that have not come whole.
    pub(super) half_heads: HalfHeads,
    /// What was held when there was nobody left who had to go for it, bytes.
    pub(super) unrelieved: Option<usize>,
    inbox: Receiver<Command>,
    pub(super) reports: Sender<Report>,
    /// Where records go, if not to the control thread.
    pub(super) ledger: Option<Ledger>,
    /// How many records the channel had no room for.
    pub(super) records_dropped: u64,
    /// How many there were in all.
    pub(super) records: u64,
    /// How many requests were asked.
    requests: u64,
    pub(super) panics: Panics,
    pub(super) listeners: Vec<Accepting>,
    /// Where clients are shared with other cores; `None`: there is no other.
    pub(super) doors: Option<Doors<D::Socket>>,
    pub(super) now: Option<Now>,
    /// When a client was last said to be turned away.
    pub(super) turned_away: Option<Instant>,
    /// How many were turned away for want of a descriptor and have not been told of.
    pub(super) unserved: usize,
    /// How long `h2` remembers a stream that was reset.
    pub(super) reset_stream_duration: Duration,
    /// Which turn this is.
    pub(super) turns: u64,
    /// Requests of HTTP/2 clients that have been looked at in this turn.
    pub(super) begun: usize,
    /// Frames of HTTP/2 clients that have been read in it.
    pub(super) frames: u32,
    /// HTTP/2 connections that may have more.
    pub(super) held_over: VecDeque<Key>,
    /// How many calls, and how many frames, one of them may have in a turn.
    pub(super) portion: (usize, u32),
    events: Vec<Event>,
    batch: Vec<Task>,
    keys: Vec<Key>,
}

/// An exchange in its slot.
pub(super) struct Call<S: Socket> {
    pub(super) exchange: Exchange<Stream<S>, Pool<S>>,
    pub(super) connection: Key,
    pub(super) wakeup: Wakeup<Task>,
    pub(super) alarm: Alarm,
    /// Its part of what all calls hold, without what its client's stream counts by itself.
    pub(super) share: Share,
    pub(super) backlog: Backlog,
    /// When it began, for people.
    pub(super) started: SystemTime,
}

impl<S: Socket> Call<S> {
    /// What it holds, but for its client's end.
    pub(super) fn held(&self) -> Held {
        let (waiting, kept) = self.exchange.held();
        let upstream = self.exchange.upstream();
        let (gathered, unsent) = upstream.map_or((0, 0), |upstream| upstream.held());
        Held {
            // What is kept to be sent again is the same that waits for window.
            all: waiting + gathered + kept.max(unsent),
            kept: kept.saturating_sub(unsent),
            request: waiting + unsent,
            answer: gathered,
        }
    }
}

/// What a call holds, bytes.
pub(super) struct Held {
    pub(super) all: usize,
    /// What of that would be free if the call were not sent again.
    pub(super) kept: usize,
    /// What of its request waits to go on. What is only kept to be sent again has gone where it was to go.
    pub(super) request: usize,
    /// What has come of its answer.
    pub(super) answer: usize,
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
            half_heads: HalfHeads::default(),
            unrelieved: None,
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
            held_over: VecDeque::new(),
            portion: (CALLS_OF_ONE_MAX, FRAMES_OF_ONE_MAX),
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
        // Not before: who stands in line is not late.
        self.call_held_over();
        self.call_line();
        (self.turns, self.begun, self.frames) = (self.turns + 1, 0, 0);
        self.run_ready(now);
        self.relieve(now);
        self.flush(now);
        self.leave(now)
    }

    pub(super) fn wait_until(&self) -> Option<Instant> {
        let now = self.now?.instant;
        if !self.reactor.ready.is_empty()
            || self.reactor.staging.has_line()
            || !self.held_over.is_empty()
            || self.listeners.contains(&Accepting::More)
        {
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

    fn advance_exchange(&mut self, key: Key, now: Now) {
        let Some(call) = self.exchanges.get_mut(key) else {
            return;
        };
        call.wakeup.popped();
        let cx = &mut Context::from_waker(call.wakeup.waker());
        match call.exchange.poll(&mut self.pool, now.instant, cx) {
            Poll::Ready(outcome) => self.finish(key, outcome, now),
            Poll::Pending => {
                let held = call.held();
                call.share.hold(held.all);
                call.note_backlog(&held, now.instant);
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

    /// One write for each socket that has something to say; whoever waited for room goes on.
    pub(super) fn flush(&mut self, now: Now) {
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
