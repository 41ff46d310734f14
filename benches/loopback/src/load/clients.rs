//! Clients, one call at a time on each connection. Owns their sockets, their calls and what is counted of them. It knows
//! nothing of warm-ups and rounds: it counts between `begin` and `end`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use super::tally::Tally;
use super::{CONNECTING_MAX, Crowd, READ_BYTES, REST_NS};
use crate::answer::{Answer, Expected, Fault};
use crate::clock::{self, Timer};
use crate::socket::{self, Readout};

const TIMER: Token = Token(usize::MAX);

/// What clients do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) connections: usize,
    /// The bytes of each request.
    pub(super) request: Vec<u8>,
    /// What each answer has to be.
    pub(super) expected: Expected,
    /// A client that has its answer calls again at once.
    pub(super) again: bool,
    /// The kernel's buffer for what was not read.
    pub(super) receive_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Broken,
    /// On its way.
    Connecting,
    /// Free for a call.
    Free,
    /// A call is open.
    Calling,
}

#[derive(Debug)]
struct Client {
    stream: Option<TcpStream>,
    state: State,
    readable: bool,
    /// The server has ended: it is read until nothing is left, since no edge will come for it any more.
    ended: bool,
    writable: bool,
    /// How much of the request was written.
    sent: usize,
    /// When the call began, or was due, in nanoseconds.
    since_ns: u64,
    answer: Answer,
    /// The present answer's head was counted.
    has_head: bool,
}

/// Calls at a rate.
#[derive(Debug)]
struct Schedule {
    timer: Timer,
    next_ns: u64,
    period_ns: f64,
    made: u64,
    begin_ns: u64,
    /// Calls that were due while no connection was free.
    overdue: VecDeque<u64>,
    overdue_max: usize,
}

/// All clients of a load.
#[derive(Debug)]
pub(super) struct Clients {
    plan: Plan,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    /// Clients to read.
    readable: Vec<usize>,
    /// Clients that are free, in an open loop.
    free: VecDeque<usize>,
    broken: VecDeque<usize>,
    mend_ns: u64,
    connecting: usize,
    calling: usize,
    heads: usize,
    again: bool,
    reads: bool,
    /// Connections made anew.
    reconnects: u64,
    tally: Tally,
    schedule: Option<Schedule>,
}

impl Clients {
    /// Connects all, until `until_ns` at the latest.
    pub(super) fn connect(plan: Plan, until_ns: u64) -> io::Result<Self> {
        let clients = (0..plan.connections).map(|_| Client {
            stream: None,
            state: State::Broken,
            readable: false,
            ended: false,
            writable: false,
            sent: 0,
            since_ns: 0,
            answer: Answer::new(),
            has_head: false,
        });
        let mut all = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            clients: clients.collect(),
            buffer: vec![0; READ_BYTES],
            readable: Vec::new(),
            free: VecDeque::new(),
            broken: (0..plan.connections).collect(),
            mend_ns: 0,
            connecting: 0,
            calling: 0,
            heads: 0,
            // Nobody calls before all are there.
            again: false,
            reads: true,
            reconnects: 0,
            tally: Tally::new(),
            schedule: None,
            plan,
        };
        all.mend(until_ns)?;
        if all.free.len() < all.clients.len() {
            return Err(io::Error::other(format!(
                "{} of {} connections to {} could not be made: does anybody listen there?",
                all.clients.len() - all.free.len(),
                all.clients.len(),
                all.plan.target,
            )));
        }
        all.reconnects = 0;
        all.again = all.plan.again;
        Ok(all)
    }

    /// From now on calls are made at this rate per second.
    pub(super) fn schedule(&mut self, rate: u64) -> io::Result<()> {
        let period_ns = 1e9 / rate.max(1) as f64;
        let begin_ns = clock::now_ns();
        let period = Duration::from_nanos(period_ns as u64);
        self.schedule = Some(Schedule {
            timer: Timer::every(period, self.poll.registry(), TIMER)?,
            next_ns: begin_ns,
            period_ns,
            made: 0,
            begin_ns,
            overdue: VecDeque::new(),
            overdue_max: 0,
        });
        Ok(())
    }

    /// Answers end only when somebody closes.
    pub(super) fn expect_no_end(&mut self) {
        self.plan.expected.messages = None;
    }

    /// Whatever comes stays where it is.
    pub(super) fn never_read(&mut self) {
        self.reads = false;
    }

    /// Waits until each open call has a head.
    pub(super) fn wait_for_heads(&mut self, until_ns: u64) -> io::Result<()> {
        while self.heads < self.calling && clock::now_ns() < until_ns {
            self.turn(until_ns)?;
        }
        for key in 0..self.clients.len() {
            let client = &self.clients[key];
            if client.state == State::Calling && !client.has_head {
                self.fail(key, Fault::Unanswered);
            }
        }
        Ok(())
    }

    /// Makes what connections are missing, a few at a time.
    fn reconnect(&mut self, now_ns: u64) {
        while self.connecting < CONNECTING_MAX {
            let Some(key) = self.broken.pop_front() else {
                return;
            };
            let made = socket::connect(self.plan.target, self.plan.receive_bytes).and_then(
                |mut stream| {
                    socket::register(self.poll.registry(), &mut stream, Token(key))?;
                    Ok(stream)
                },
            );
            let client = &mut self.clients[key];
            match made {
                Ok(stream) => {
                    client.stream = Some(stream);
                    client.state = State::Connecting;
                    self.connecting += 1;
                    self.reconnects += 1;
                }
                Err(_) => {
                    self.broken.push_back(key);
                    self.mend_ns = now_ns + REST_NS;
                    return;
                }
            }
        }
        // The next ones follow as soon as these are there.
        self.mend_ns = now_ns + 1_000_000;
    }

    /// The socket takes bytes: for the first time, or again.
    fn resume(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if client.state == State::Connecting {
            let broken = match &client.stream {
                Some(stream) => {
                    !matches!(stream.take_error(), Ok(None)) || stream.peer_addr().is_err()
                }
                None => true,
            };
            self.connecting -= 1;
            if broken {
                client.state = State::Free;
                self.close(key);
                return;
            }
            client.state = State::Free;
            self.rest(key);
        } else {
            self.write(key);
        }
    }

    /// A client has nothing to do: it calls, or waits to be asked.
    fn rest(&mut self, key: usize) {
        if self.again {
            self.call(key, clock::now_ns());
        } else {
            self.free.push_back(key);
        }
    }

    fn call(&mut self, key: usize, since_ns: u64) {
        let client = &mut self.clients[key];
        if client.state != State::Free {
            return;
        }
        client.state = State::Calling;
        client.since_ns = since_ns;
        client.sent = 0;
        client.has_head = false;
        client.answer.reset();
        self.calling += 1;
        self.write(key);
    }

    /// Writes what is left of the request.
    fn write(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let rest = &self.plan.request[client.sent..];
        let (State::Calling, true, Some(stream), false) = (
            client.state,
            client.writable,
            &client.stream,
            rest.is_empty(),
        ) else {
            return;
        };
        match socket::write(stream, rest) {
            Ok(taken) => {
                client.writable = taken == rest.len();
                client.sent += taken;
            }
            Err(_) => self.fail(key, Fault::Closed),
        }
    }

    /// Reads once, and looks at what came.
    fn read(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let Some(stream) = client.stream.as_ref().filter(|_| client.readable) else {
            return;
        };
        if client.state == State::Connecting {
            // It cannot be there before it is writable: `resume` will see what became of it.
            client.readable = false;
            return;
        }
        let bytes = match socket::read(stream, &mut self.buffer) {
            Readout::Bytes(bytes) => bytes,
            Readout::Empty => {
                client.readable = false;
                return;
            }
            Readout::Closed if client.state == State::Calling => {
                self.fail(key, Fault::Closed);
                return;
            }
            // Between two calls a server may close.
            Readout::Closed => {
                self.close(key);
                return;
            }
        };
        client.readable = client.ended || bytes == self.buffer.len();
        if client.readable {
            self.readable.push(key);
        }
        if client.state != State::Calling {
            self.fail(key, Fault::Excess);
            return;
        }
        let fed = client
            .answer
            .feed(&self.buffer[..bytes], &self.plan.expected);
        let messages = client.answer.take_messages();
        self.tally.messages(messages);
        if self.plan.expected.stamped {
            let now_ns = clock::now_ns();
            for stamp in client.answer.stamps() {
                self.tally.latency(now_ns.saturating_sub(stamp));
            }
        }
        if !client.has_head && client.answer.has_head() {
            client.has_head = true;
            self.heads += 1;
        }
        match fed {
            Ok(false) => {}
            Ok(true) => self.done(key),
            Err(fault) => self.fail(key, fault),
        }
    }

    /// A right answer has come whole.
    fn done(&mut self, key: usize) {
        let now_ns = clock::now_ns();
        let client = &mut self.clients[key];
        client.state = State::Free;
        self.calling -= 1;
        self.heads -= usize::from(client.has_head);
        self.tally.call(now_ns.saturating_sub(client.since_ns));
        if client.answer.closes() {
            self.close(key);
        } else if self.again {
            self.call(key, now_ns);
        } else {
            self.free.push_back(key);
        }
    }

    /// A call went wrong, and its connection with it.
    fn fail(&mut self, key: usize, fault: Fault) {
        self.tally.failure(fault);
        self.close(key);
    }

    /// The connection is given up; another one takes its place in a while.
    fn close(&mut self, key: usize) {
        let client = &mut self.clients[key];
        match client.state {
            State::Calling => {
                self.calling -= 1;
                self.heads -= usize::from(client.has_head);
            }
            State::Free => self.free.retain(|free| *free != key),
            State::Connecting => self.connecting -= 1,
            State::Broken => return,
        }
        client.state = State::Broken;
        client.stream = None;
        (client.readable, client.writable, client.ended) = (false, false, false);
        self.broken.push_back(key);
        self.mend_ns = clock::now_ns() + REST_NS;
    }

    /// Makes the calls that are due.
    fn call_due(&mut self) {
        let now_ns = clock::now_ns();
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        while schedule.next_ns <= now_ns {
            schedule.overdue.push_back(schedule.next_ns);
            schedule.made += 1;
            schedule.next_ns =
                schedule.begin_ns + (schedule.made as f64 * schedule.period_ns) as u64;
        }
        while let Some(schedule) = &mut self.schedule
            && !schedule.overdue.is_empty()
        {
            // The one that was free longest, so that all connections are used.
            let Some(key) = self.free.pop_front() else {
                schedule.overdue_max = schedule.overdue_max.max(schedule.overdue.len());
                return;
            };
            if let Some(due_ns) = schedule.overdue.pop_front() {
                self.call(key, due_ns);
            }
        }
    }
}

impl Crowd for Clients {
    fn mend(&mut self, until_ns: u64) -> io::Result<()> {
        while (!self.broken.is_empty() || self.connecting > 0) && clock::now_ns() < until_ns {
            self.turn(until_ns)?;
        }
        Ok(())
    }

    fn call_all(&mut self) {
        let now_ns = clock::now_ns();
        for key in std::mem::take(&mut self.free) {
            self.call(key, now_ns);
        }
    }

    fn begin(&mut self) {
        self.tally.begin();
    }

    fn end(&mut self) -> Value {
        self.tally.end()
    }

    fn finish(&mut self, until_ns: u64) -> io::Result<()> {
        let again = std::mem::replace(&mut self.again, false);
        if let Some(schedule) = &mut self.schedule {
            schedule.next_ns = u64::MAX;
            schedule.overdue.clear();
        }
        while self.calling > 0 && clock::now_ns() < until_ns {
            self.turn(until_ns)?;
        }
        for key in 0..self.clients.len() {
            if self.clients[key].state == State::Calling {
                self.fail(key, Fault::Unanswered);
            }
        }
        self.again = again;
        Ok(())
    }

    fn counts(&self) -> Value {
        let there = |client: &&Client| matches!(client.state, State::Free | State::Calling);
        let connections = self.clients.iter().filter(there).count();
        self.tally.counts(connections, self.calling)
    }

    fn report(&self) -> Value {
        let streams = self.plan.expected.messages != Some(1);
        let mut report = self.tally.report(self.plan.expected.payload.len(), streams);
        report["reconnects"] = json!(self.reconnects);
        report["overdue_max"] = json!(self.schedule.as_ref().map(|schedule| schedule.overdue_max));
        report["request_bytes"] = json!(self.plan.request.len());
        report
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        let now_ns = clock::now_ns();
        if !self.broken.is_empty() && now_ns >= self.mend_ns {
            self.reconnect(now_ns);
        }
        let mut timeout_ns = until_ns.saturating_sub(now_ns);
        if !self.readable.is_empty() {
            timeout_ns = 0;
        } else if !self.broken.is_empty() {
            timeout_ns = timeout_ns.min(self.mend_ns.saturating_sub(now_ns));
        }
        socket::wait(
            &mut self.poll,
            &mut self.events,
            Duration::from_nanos(timeout_ns),
        )?;
        let mut timer = false;
        let mut writable = Vec::new();
        for event in &self.events {
            if event.token() == TIMER {
                timer = true;
                continue;
            }
            let Token(key) = event.token();
            let Some(client) = self.clients.get_mut(key).filter(|one| one.stream.is_some()) else {
                continue;
            };
            if event.is_writable() && !std::mem::replace(&mut client.writable, true) {
                writable.push(key);
            }
            client.ended |= event.is_read_closed();
            if event.is_readable() && self.reads && !std::mem::replace(&mut client.readable, true) {
                self.readable.push(key);
            }
        }
        for key in writable {
            self.resume(key);
        }
        for key in std::mem::take(&mut self.readable) {
            self.read(key);
        }
        if timer && let Some(schedule) = &self.schedule {
            schedule.timer.rearm();
        }
        self.call_due();
        Ok(())
    }
}
