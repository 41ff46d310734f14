//! Which call goes over which connection, and who waits.
//!
//! Owns every connection of one core to every backend, the queue of calls that wait for a free stream, and the pauses between
//! failed attempts. It knows nothing of what a call is. Connecting happens on demand: a backend that nobody calls is not
//! bothered.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::net::{Driver, Key, Reactor, Slots, Socket, Task, TimerId, Timers, Wakeup};
use crate::policy::{BackendId, Callee, Snapshot, Target};
use crate::tripwire::{Place, trip};
use crate::upstream::connection::{Condition, Connection};
use crate::upstream::gate::Opening;
use crate::upstream::local::Local;
use crate::upstream::stream::Stream;
use crate::wire::{Dial, OutgoingHead, Reason, Reset};

/// The pause after a first failed attempt; each further one is longer by three fifths, and each up to a fifth shorter or
/// longer than that, so that cores do not come in step.
/// How many of those who wait for a stream are woken together.
const NEXT_MAX: usize = 64;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest pause. Attempts are made only when somebody calls, so a backend that is down is asked once in this time, more or
/// less; whoever calls meanwhile is told at once. A longer one would only keep calls from a backend that is back.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a call waits for a stream, besides the time that connecting may take. Over it: UNAVAILABLE, `pending_overflow`. A
/// backend may allow fewer streams than there are calls, or none, and change its mind never.
pub const PENDING_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that has carried so many calls at the same time is replaced once it carries none: `h2` keeps three quarters of a
/// kilobyte for each call of the largest burst for as long as the connection lives.
const BURST_STREAMS: usize = 512;
/// How long it must have carried none.
const BURST_REST: Duration = Duration::from_secs(2);
/// How long `h2` remembers reset streams in production; see [`crate::upstream::settings`].
pub const RESET_STREAM_DURATION: Duration = Duration::from_secs(1);

/// All connections of one core to its backends.
pub struct Pool<S: Socket> {
    backends: Slots<Backend>,
    /// By [`BackendId`] of the snapshot that was adopted last.
    ids: Vec<Key>,
    endpoints: Slots<Endpoint>,
    connections: Slots<Held<S>>,
    /// Endpoints to connect to before the turn ends.
    wanted: Vec<Key>,
    attempts: Vec<Attempt>,
    places: u64,
    /// Attempts that failed, ever.
    failures: u64,
    reset_stream_duration: Duration,
}

struct Backend {
    name: Arc<str>,
    local: Option<Arc<dyn Callee>>,
    endpoints: Vec<Key>,
    /// Calls that wait for a stream, in the order in which they came.
    queue: VecDeque<Waiting>,
    /// Where to begin looking, so that equals take turns.
    rotation: usize,
    connect_timeout: Duration,
    connections_max: usize,
    pending_max: usize,
}

struct Waiting {
    place: u64,
    waker: Waker,
}

struct Endpoint {
    backend: Key,
    name: Arc<str>,
    addresses: Vec<SocketAddr>,
    connections: Vec<Key>,
    /// The attempt in progress, if there is one.
    attempt: Option<Trial>,
    failure: Option<Failure>,
}

/// One round over the addresses of an endpoint.
struct Trial {
    started: Instant,
    next_address: usize,
}

#[derive(Clone, Copy)]
struct Failure {
    reason: Reason,
    pause: Duration,
    retry_at: Instant,
}

struct Held<S: Socket> {
    connection: Connection<S>,
    endpoint: Key,
    address: Rc<SocketAddr>,
    wakeup: Wakeup<Task>,
    timer: Option<TimerId>,
    /// Until when it must be ready; then, since it carries no call after a burst, from when on it is to be replaced.
    deadline: Instant,
    /// Its deadline is for its replacement.
    resting: bool,
}

/// A place in the queue of one backend, and the memory of who refused.
#[derive(Debug)]
pub struct Ticket {
    backend: Key,
    place: Option<Box<Queued>>,
    /// The endpoint that the last stream was opened on.
    endpoint: Option<Key>,
    /// The address that the last stream was opened to.
    address: Option<Rc<SocketAddr>>,
    refused_by: Option<Key>,
    attempts: u32,
}

/// A place in the queue.
#[derive(Debug)]
struct Queued {
    number: u64,
    /// How long it is kept.
    until: Instant,
    /// When an endpoint that has failed may be tried again: nobody else may be there to wake whoever waits.
    retry_at: Option<Instant>,
}

impl Ticket {
    /// Where the last stream was opened to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.as_deref().copied()
    }

    /// The place in the queue that it holds.
    pub fn place(&self) -> Option<u64> {
        self.place.as_ref().map(|place| place.number)
    }

    /// How many streams were opened with it.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// How an attempt to connect went.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The endpoint as it was written.
    pub endpoint: Arc<str>,
    /// The addresses that were tried, the last one last.
    pub tried: Vec<SocketAddr>,
    /// How long it took.
    pub elapsed: Duration,
    /// `None`: ready for calls.
    pub failure: Option<Reason>,
    /// What answered, where that was not HTTP/2.
    pub opening: Option<Opening>,
}

impl<S: Socket> Pool<S> {
    /// A pool without a backend. `reset_stream_duration`: [`RESET_STREAM_DURATION`], or "for ever" in a simulation.
    pub fn new(reset_stream_duration: Duration) -> Self {
        Self {
            backends: Slots::default(),
            ids: Vec::new(),
            endpoints: Slots::default(),
            connections: Slots::default(),
            wanted: Vec::new(),
            attempts: Vec::new(),
            places: 0,
            failures: 0,
            reset_stream_duration,
        }
    }

    /// Takes over the backends of a snapshot. Endpoints that stay keep their connections, those that leave drain.
    pub fn adopt(&mut self, snapshot: &Snapshot) {
        let mut left: Vec<Key> = self.backends.iter().map(|(key, _)| key).collect();
        self.ids.clear();
        for backend in &snapshot.backends {
            let known = self
                .backends
                .iter()
                .find(|(_, known)| known.name == backend.name);
            let key = match known {
                Some((key, _)) => key,
                None => self.backends.insert_with(|_| Backend {
                    name: Arc::clone(&backend.name),
                    local: None,
                    endpoints: Vec::new(),
                    queue: VecDeque::new(),
                    rotation: 0,
                    connect_timeout: backend.connect_timeout,
                    connections_max: backend.connections_max,
                    pending_max: backend.pending_max,
                }),
            };
            left.retain(|&left| left != key);
            self.ids.push(key);
            let (local, endpoints): (_, &[_]) = match &backend.target {
                Target::Local(callee) => (Some(Arc::clone(callee)), &[]),
                Target::Endpoints(endpoints) => (None, endpoints),
            };
            let before = match self.backends.get_mut(key) {
                Some(own) => {
                    own.local = local;
                    own.connect_timeout = backend.connect_timeout;
                    own.connections_max = backend.connections_max;
                    own.pending_max = backend.pending_max;
                    std::mem::take(&mut own.endpoints)
                }
                None => Vec::new(),
            };
            let mut after = Vec::with_capacity(endpoints.len());
            for endpoint in endpoints {
                let stays = before.iter().copied().find(|&key| {
                    self.endpoints
                        .get(key)
                        .is_some_and(|own| own.name == endpoint.name)
                });
                match stays.and_then(|key| Some((key, self.endpoints.get_mut(key)?))) {
                    Some((key, own)) => {
                        if own.addresses != endpoint.addresses {
                            own.addresses.clone_from(&endpoint.addresses);
                            own.failure = None;
                            // What is connected to an address that the name does not mean any more ends with its calls.
                            for connection in &own.connections {
                                if let Some(held) = self.connections.get_mut(*connection)
                                    && !own.addresses.contains(&*held.address)
                                {
                                    held.connection.drain();
                                    held.wakeup.wake();
                                }
                            }
                        }
                        after.push(key);
                    }
                    None => after.push(self.endpoints.insert_with(|_| Endpoint {
                        backend: key,
                        name: Arc::clone(&endpoint.name),
                        addresses: endpoint.addresses.clone(),
                        connections: Vec::new(),
                        attempt: None,
                        failure: None,
                    })),
                }
            }
            for gone in before.into_iter().filter(|key| !after.contains(key)) {
                self.drain_endpoint(gone);
            }
            if let Some(own) = self.backends.get_mut(key) {
                own.endpoints = after;
                own.wake_all();
            }
        }
        for key in left {
            if let Some(gone) = self.backends.remove(key) {
                gone.wake_all();
                for endpoint in gone.endpoints {
                    self.drain_endpoint(endpoint);
                }
            }
        }
    }

    fn drain_endpoint(&mut self, key: Key) {
        if let Some(endpoint) = self.endpoints.remove(key) {
            for connection in endpoint.connections {
                if let Some(held) = self.connections.get_mut(connection) {
                    if held.connection.condition() == Condition::Opening {
                        // Nobody waits for it any more.
                        held.connection.abandon(Reset::proxy(Reason::NoEndpoint));
                    }
                    held.connection.drain();
                    // Idle ones end at once, the others after their last stream.
                    held.wakeup.wake();
                }
            }
        }
    }

    /// A ticket for a backend of the snapshot that was adopted last.
    pub fn ticket(&self, backend: BackendId) -> Option<Ticket> {
        let backend = *self.ids.get(backend.0)?;
        Some(Ticket {
            backend,
            place: None,
            endpoint: None,
            address: None,
            refused_by: None,
            attempts: 0,
        })
    }

    /// The holder of this ticket waits no more.
    pub fn leave(&mut self, ticket: &Ticket) {
        let Some(backend) = self.backends.get_mut(ticket.backend) else {
            return;
        };
        if let Some(place) = ticket.place()
            && let Ok(index) = backend
                .queue
                .binary_search_by_key(&place, |waiting| waiting.place)
        {
            backend.queue.remove(index);
        }
        // It may have been woken for a free stream that it never took.
        backend.wake_next(1);
    }

    /// Connects to every endpoint of every backend that has no connection, whether or not anybody calls.
    pub fn probe(&mut self) {
        let idle = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.attempt.is_none() && endpoint.connections.is_empty());
        self.wanted.extend(idle.map(|(key, _)| key));
    }

    /// Has every connection that carries calls read without waiting for its event.
    pub fn look(&self) {
        for (_, held) in self.connections.iter() {
            if held.connection.streams() > 0 {
                held.connection.transport().borrow_mut().suspect();
                held.wakeup.wake();
            }
        }
    }

    /// How the attempts since the last call of this went.
    pub fn take_attempts(&mut self) -> Vec<Attempt> {
        std::mem::take(&mut self.attempts)
    }

    /// How many connections there are, in whatever condition.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many calls wait for a stream.
    pub fn waiting(&self) -> usize {
        self.backends
            .iter()
            .map(|(_, backend)| backend.queue.len())
            .sum()
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Connection<S>)> {
        self.connections
            .iter()
            .map(|(key, held)| (key, &held.connection))
    }

    /// Whether the connection of that key is on the ready list.
    pub fn queued(&self, key: Key) -> bool {
        self.connections
            .get(key)
            .is_some_and(|held| held.wakeup.queued())
    }

    /// Wakes the connection of that key: its socket has news, or room.
    pub fn wake(&self, key: Key) {
        if let Some(held) = self.connections.get(key) {
            held.wakeup.wake();
        }
    }

    /// Begins the attempts that were asked for during the turn.
    pub fn connect_wanted<D: Driver<Socket = S>>(
        &mut self,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        while let Some(key) = self.wanted.pop() {
            let Some(endpoint) = self.endpoints.get_mut(key) else {
                continue;
            };
            let rested = endpoint
                .failure
                .is_none_or(|failure| now >= failure.retry_at);
            if endpoint.attempt.is_none() && rested {
                endpoint.attempt = Some(Trial {
                    started: now,
                    next_address: 0,
                });
                self.try_next_address(key, Reason::BackendDns, None, reactor, now);
            }
        }
    }

    /// Goes on with an attempt: the next address, or its end with the reason of the last one.
    fn try_next_address<D: Driver<Socket = S>>(
        &mut self,
        key: Key,
        mut reason: Reason,
        opening: Option<Opening>,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        let timeout = self
            .backends
            .get(endpoint.backend)
            .map_or(Duration::ZERO, |own| own.connect_timeout);
        let Some(trial) = endpoint.attempt.as_mut() else {
            return;
        };
        while let Some(&address) = endpoint.addresses.get(trial.next_address) {
            trial.next_address += 1;
            // The owner is known only when the connection has its place.
            let placeholder = Task::Upstream(key);
            let (transport_key, transport) = match reactor.connect(address, placeholder) {
                Ok(placed) => placed,
                Err(error) => {
                    log::debug!("cannot connect to {address}: {error}");
                    reason = Reason::BackendConnectRefused;
                    continue;
                }
            };
            let connection = self.connections.insert_with(|own| Held {
                connection: Connection::new(transport, transport_key),
                endpoint: key,
                address: Rc::new(address),
                wakeup: reactor.wakeup(Task::Upstream(own)),
                timer: None,
                deadline: now + timeout,
                resting: false,
            });
            if let Some(place) = reactor.transports.get_mut(transport_key) {
                place.owner = Task::Upstream(connection);
            }
            if let Some(held) = self.connections.get_mut(connection) {
                let task = Task::Upstream(connection);
                reactor
                    .timers
                    .set(&mut held.timer, Some(held.deadline), task);
            }
            endpoint.connections.push(connection);
            return;
        }
        let pause = match endpoint.failure {
            Some(failure) => (failure.pause * 8 / 5).min(BACKOFF_MAX),
            None => BACKOFF_FIRST,
        };
        let trial = endpoint.attempt.take();
        let elapsed = trial.map_or(Duration::ZERO, |trial| now.duration_since(trial.started));
        // No two attempts take the same time to fail, but where a seed decides.
        self.failures += 1;
        let seed = self.failures ^ self.places.rotate_left(32) ^ u64::from(elapsed.subsec_nanos());
        endpoint.failure = Some(Failure {
            reason,
            pause,
            retry_at: now + spread(pause, seed),
        });
        let tried = endpoint.addresses.clone();
        let (backend, name) = (endpoint.backend, Arc::clone(&endpoint.name));
        if let Some(backend) = self.backends.get(backend) {
            self.attempts.push(Attempt {
                backend: Arc::clone(&backend.name),
                endpoint: name,
                tried,
                elapsed,
                failure: Some(reason),
                opening,
            });
            // Everybody who waits decides anew: another endpoint, or the end.
            backend.wake_all();
        }
    }

    /// Lets one connection go on.
    pub fn advance<D: Driver<Socket = S>>(
        &mut self,
        key: Key,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        let Some(held) = self.connections.get_mut(key) else {
            return;
        };
        held.wakeup.popped();
        trip(Place::Upstream);
        let before = held.connection.condition();
        if before == Condition::Opening && now >= held.deadline {
            held.connection
                .abandon(Reset::proxy(Reason::BackendConnectTimeout));
        }
        let cx = &mut Context::from_waker(held.wakeup.waker());
        let after = held.connection.advance(self.reset_stream_duration, now, cx);
        let endpoint = held.endpoint;
        match (before, after) {
            (Condition::Opening, Condition::Ready) => {
                reactor.timers.cancel(&mut held.timer);
                let address = *held.address;
                self.note_success(endpoint, address, now);
                self.wake_resting(endpoint);
            }
            (before, Condition::Gone(reset)) => {
                let opening = held.connection.opening().cloned();
                self.remove(key, reactor, now);
                if before == Condition::Opening {
                    self.try_next_address(endpoint, reset.reason, opening, reactor, now);
                } else if let Some(backend) = self.backend_of(endpoint) {
                    // Those who wait must not wait for this one.
                    backend.wake_next(NEXT_MAX);
                }
            }
            (_, Condition::Ready | Condition::Draining) => {
                let ready = held.connection.condition() == Condition::Ready;
                let room = held.connection.room();
                if held.rest(key, &mut reactor.timers, now) && ready {
                    self.replace(key, endpoint);
                }
                // A stream may have come free.
                if let Some(backend) = self.backend_of(endpoint) {
                    backend.wake_next(room);
                }
            }
            (_, Condition::Opening) => {}
        }
    }

    /// Ends a connection on which no call is, once there is another one in its place. Not before: a backend may have stopped
    /// taking new ones and serve the old ones still.
    fn replace(&mut self, key: Key, endpoint: Key) {
        let Some(own) = self.endpoints.get(endpoint) else {
            return;
        };
        let is_ready = |held: &Held<S>| held.connection.condition() == Condition::Ready;
        let mut others = own.connections.iter().filter(|&&other| other != key);
        if others.any(|&other| self.connections.get(other).is_some_and(is_ready)) {
            if let Some(held) = self.connections.get_mut(key) {
                held.connection.drain();
                held.wakeup.wake();
            }
        } else if own.attempt.is_none() {
            // One that is under way may come about in this very turn, and is the one that is wanted.
            self.wanted.push(endpoint);
        }
    }

    /// A connection has come about that those may have waited for who have had their burst.
    fn wake_resting(&self, endpoint: Key) {
        let own = self.endpoints.get(endpoint).into_iter();
        for &key in own.flat_map(|own| &own.connections) {
            if let Some(held) = self.connections.get(key).filter(|held| held.resting) {
                held.wakeup.wake();
            }
        }
    }

    fn note_success(&mut self, key: Key, address: SocketAddr, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        endpoint.failure = None;
        let trial = endpoint.attempt.take();
        let (backend, name) = (endpoint.backend, Arc::clone(&endpoint.name));
        if let Some(backend) = self.backends.get(backend) {
            self.attempts.push(Attempt {
                backend: Arc::clone(&backend.name),
                endpoint: name,
                tried: vec![address],
                elapsed: trial.map_or(Duration::ZERO, |trial| now.duration_since(trial.started)),
                failure: None,
                opening: None,
            });
            backend.wake_next(NEXT_MAX);
        }
    }

    /// Takes a connection out. Its streams learn from `h2` that it is lost.
    pub fn remove<D: Driver<Socket = S>>(
        &mut self,
        key: Key,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        if let Some(mut held) = self.connections.remove(key) {
            reactor.timers.cancel(&mut held.timer);
            if let Some(endpoint) = self.endpoints.get_mut(held.endpoint) {
                endpoint.connections.retain(|&own| own != key);
            }
            let transport = held.connection.transport_key();
            drop(held);
            reactor.close(transport, now);
        }
    }

    /// Gives up a connection, whatever state a panic has left it in. The house is mended afterwards, by [`Pool::mend`].
    pub fn lose<D: Driver<Socket = S>>(
        &mut self,
        key: Key,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        if let Some(held) = self.connections.get_mut(key) {
            // Nobody knows what has been written of a frame: nothing follows it.
            held.connection.transport().borrow_mut().give_up();
            self.remove(key, reactor, now);
        }
    }

    /// Puts in order what a panic may have left half done, wherever it was: connections that are no good, attempts that
    /// nobody makes, places in queues that nobody holds. `holds`: whether a call holds that ticket's place.
    pub fn mend<D: Driver<Socket = S>>(
        &mut self,
        holds: impl Fn(u64) -> bool,
        reactor: &mut Reactor<D>,
        now: Instant,
    ) {
        let broken: Vec<Key> = self
            .connections
            .iter()
            .filter(|(key, held)| {
                let placed = reactor.transports.get(held.connection.transport_key());
                let endpoint = self.endpoints.get(held.endpoint);
                let listed = endpoint.is_none_or(|own| own.connections.contains(key));
                held.connection.is_poisoned() || placed.is_none() || !listed
            })
            .map(|(key, _)| key)
            .collect();
        for key in broken {
            self.lose(key, reactor, now);
        }
        let orphans: Vec<Key> = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| {
                let mut own = endpoint.connections.iter();
                let opening = own.any(|&key| {
                    let held = self.connections.get(key);
                    held.is_some_and(|held| held.connection.condition() == Condition::Opening)
                });
                endpoint.attempt.is_some() && !opening
            })
            .map(|(key, _)| key)
            .collect();
        for key in orphans {
            self.try_next_address(key, Reason::BackendClosed, None, reactor, now);
        }
        let keys: Vec<Key> = self.backends.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(backend) = self.backends.get_mut(key) {
                backend.queue.retain(|waiting| holds(waiting.place));
                backend.wake_all();
            }
        }
        for (_, held) in self.connections.iter() {
            held.wakeup.wake();
        }
    }

    /// Whether a connection has that key.
    pub fn has(&self, key: Key) -> bool {
        self.connections.get(key).is_some()
    }

    fn backend_of(&self, endpoint: Key) -> Option<&Backend> {
        self.backends.get(self.endpoints.get(endpoint)?.backend)
    }

    /// Where this ticket's stream is to be opened, if it is its turn and there is room.
    fn first_choice(&self, ticket: &Ticket, first: bool) -> Option<Key> {
        let backend = self.backends.get(ticket.backend)?;
        first
            .then(|| self.pick(backend, ticket.refused_by))
            .flatten()
    }

    /// The connection with room that has the fewest streams; `avoid` only if there is no other.
    fn pick(&self, backend: &Backend, avoid: Option<Key>) -> Option<Key> {
        let count = backend.endpoints.len();
        let mut best: Option<((bool, usize), Key)> = None;
        for step in 0..count {
            let key = backend.endpoints[(backend.rotation + step) % count];
            let Some(endpoint) = self.endpoints.get(key) else {
                continue;
            };
            for &connection in &endpoint.connections {
                let Some(held) = self.connections.get(connection) else {
                    continue;
                };
                let rank = (avoid == Some(key), held.connection.streams());
                if held.connection.has_room() && best.is_none_or(|(best, _)| rank < best) {
                    best = Some((rank, connection));
                }
            }
        }
        best.map(|(_, connection)| connection)
    }

    /// Asks for connections where they would help. Whether any is on its way or in use, so that waiting makes sense.
    /// When it makes sense to ask again though nobody wakes.
    fn want(&mut self, backend: Key, now: Instant) -> Result<Option<Instant>, Reason> {
        let Some(backend) = self.backends.get(backend) else {
            return Err(Reason::NoEndpoint);
        };
        // Room that is left is for those further ahead, who have been woken for it, and then for us. It wants no connection.
        let mut all = backend
            .endpoints
            .iter()
            .filter_map(|&key| self.endpoints.get(key))
            .flat_map(|endpoint| &endpoint.connections)
            .filter_map(|&key| self.connections.get(key));
        if all.any(|held| held.connection.has_room()) {
            return Ok(None);
        }
        let mut hope = false;
        let mut retry_at: Option<Instant> = None;
        let mut reason = Reason::NoEndpoint;
        for &key in &backend.endpoints {
            let Some(endpoint) = self.endpoints.get(key) else {
                continue;
            };
            let held = || {
                endpoint
                    .connections
                    .iter()
                    .filter_map(|&key| self.connections.get(key))
            };
            if held().any(|held| held.connection.condition() == Condition::Ready) {
                hope = true;
            }
            if endpoint.attempt.is_some() {
                hope = true;
                continue;
            }
            match endpoint.failure {
                Some(failure) if now < failure.retry_at => {
                    reason = failure.reason;
                    retry_at = retry_at.into_iter().chain([failure.retry_at]).min();
                }
                _ => {
                    let full = held()
                        .filter(|held| held.connection.condition() != Condition::Draining)
                        .count()
                        >= backend.connections_max;
                    if !full {
                        hope = true;
                        if !self.wanted.contains(&key) {
                            self.wanted.push(key);
                        }
                    }
                }
            }
        }
        if hope { Ok(retry_at) } else { Err(reason) }
    }
}

/// A pause like this one, up to a fifth shorter or longer: the same for the same seed (the mixer of SplitMix64).
fn spread(pause: Duration, seed: u64) -> Duration {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let permille = 800 + ((mixed ^ (mixed >> 31)) % 401) as u32;
    pause * permille / 1000
}

impl<S: Socket> Held<S> {
    /// Watches over a connection that has had its burst. Whether it has rested long enough to be replaced.
    fn rest(&mut self, key: Key, timers: &mut Timers<Task>, now: Instant) -> bool {
        let idle =
            self.connection.streams() == 0 && self.connection.streams_most() >= BURST_STREAMS;
        if idle && !self.resting {
            self.resting = true;
            self.deadline = now + BURST_REST;
            timers.set(&mut self.timer, Some(self.deadline), Task::Upstream(key));
        } else if !idle && self.resting {
            self.resting = false;
            timers.cancel(&mut self.timer);
        }
        if !self.resting {
            // What has to be asked and cannot, because the socket takes nothing, is asked when that goes on.
            let wake_at = self.connection.wake_at().filter(|&at| at > now);
            if wake_at.is_some() || self.timer.is_some() {
                timers.set(&mut self.timer, wake_at, Task::Upstream(key));
            }
        }
        self.resting && now >= self.deadline
    }
}

impl Backend {
    /// Those who are next go on, as many as there is `room` for on the connection that is known to have some, and one at the least,
    /// because another may have. If they came one by one, no more would get on in a turn than it has rounds, while hundreds come.
    fn wake_next(&self, room: usize) {
        for next in self.queue.iter().take(room.clamp(1, NEXT_MAX)) {
            next.waker.wake_by_ref();
        }
    }

    fn wake_all(&self) {
        for waiting in &self.queue {
            waiting.waker.wake_by_ref();
        }
    }

    fn leave(&mut self, ticket: &mut Ticket) {
        if let Some(place) = ticket.place.take().map(|place| place.number)
            && let Ok(index) = self
                .queue
                .binary_search_by_key(&place, |waiting| waiting.place)
        {
            self.queue.remove(index);
        }
    }
}

impl<S: Socket> Dial for Pool<S> {
    type Stream = Stream;
    type Ticket = Ticket;

    fn poll_open(
        &mut self,
        ticket: &mut Ticket,
        head: impl Fn() -> OutgoingHead,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, Reset>> {
        trip(Place::Open);
        let Some(backend) = self.backends.get_mut(ticket.backend) else {
            return Poll::Ready(Err(Reset::proxy(Reason::NoEndpoint)));
        };
        if let Some(callee) = &backend.local {
            ticket.attempts += 1;
            return Poll::Ready(Ok(Stream::Local(Box::new(Local::new(
                callee.call(&head()),
            )))));
        }
        let first = backend
            .queue
            .front()
            .is_none_or(|first| Some(first.place) == ticket.place());
        // Whoever is not first in the queue waits behind those who are.
        while let Some(key) = self.first_choice(ticket, first) {
            let Some(held) = self.connections.get_mut(key) else {
                break;
            };
            let endpoint = held.endpoint;
            let authority = self
                .endpoints
                .get(endpoint)
                .map(|endpoint| Arc::clone(&endpoint.name));
            let authority = authority.as_deref().unwrap_or_default();
            match held.connection.open(head(), authority, held.wakeup.waker()) {
                Ok(stream) => {
                    ticket.endpoint = Some(endpoint);
                    ticket.address = Some(Rc::clone(&held.address));
                    ticket.attempts += 1;
                    let room = held.connection.room();
                    if let Some(backend) = self.backends.get_mut(ticket.backend) {
                        backend.rotation = backend.rotation.wrapping_add(1);
                        backend.leave(ticket);
                        backend.wake_next(room);
                    }
                    return Poll::Ready(Ok(Stream::Http2(Box::new(stream))));
                }
                // It takes no more calls; its own poll will find out why.
                Err(Reset {
                    reason: Reason::BackendRefused,
                    ..
                }) => {
                    held.connection.drain();
                    held.wakeup.wake();
                }
                Err(reset) => return Poll::Ready(Err(reset)),
            }
        }
        let retry_at = match self.want(ticket.backend, now) {
            Ok(retry_at) => retry_at,
            Err(reason) => {
                if let Some(backend) = self.backends.get_mut(ticket.backend) {
                    backend.leave(ticket);
                }
                return Poll::Ready(Err(Reset::proxy(reason)));
            }
        };
        let places = &mut self.places;
        let Some(backend) = self.backends.get_mut(ticket.backend) else {
            return Poll::Ready(Err(Reset::proxy(Reason::NoEndpoint)));
        };
        let index = ticket.place().and_then(|place| {
            backend
                .queue
                .binary_search_by_key(&place, |waiting| waiting.place)
                .ok()
        });
        if let Some(index) = index {
            if ticket
                .place
                .as_ref()
                .is_some_and(|place| now >= place.until)
            {
                backend.leave(ticket);
                return Poll::Ready(Err(Reset::proxy(Reason::PendingOverflow)));
            }
            if let Some(place) = &mut ticket.place {
                place.retry_at = retry_at;
            }
            backend.queue[index].waker.clone_from(cx.waker());
        } else if backend.queue.len() >= backend.pending_max {
            return Poll::Ready(Err(Reset::proxy(Reason::PendingOverflow)));
        } else {
            *places += 1;
            let until = now + backend.connect_timeout + PENDING_TIMEOUT;
            ticket.place = Some(Box::new(Queued {
                number: *places,
                until,
                retry_at,
            }));
            backend.queue.push_back(Waiting {
                place: *places,
                waker: cx.waker().clone(),
            });
        }
        Poll::Pending
    }

    fn note_refused(&mut self, ticket: &mut Ticket) {
        ticket.refused_by = ticket.endpoint;
    }

    fn wake_at(&self, ticket: &Ticket) -> Option<Instant> {
        let place = ticket.place.as_ref()?;
        place.retry_at.into_iter().chain([place.until]).min()
    }
}

impl<S: Socket> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("backends", &self.backends.len())
            .field("connections", &self.connections.len())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
