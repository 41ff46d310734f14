//! One real core in memory, with everything around it scripted: what a call costs in instructions, on any machine.
//!
//! Owns the world of a case: the rules that `wharf --backend` would have, a [`Core`] on [`Memory`], the clients and the
//! backend. It measures nothing by itself; `turn` and `counts` do. No socket, no thread, no clock: a run is the same every
//! time, but for the seeds of hash tables.
//!
//! Everything that is not the product's own work stands in functions that Callgrind can leave out: a turn that counts is
//! [`counted_turn`], and what the machine does inside it is below `machine::outside`. With `--toggle-collect` on both, each
//! entry and each return flips the counting: on in the turn, off in the machine, on again behind it.

mod backend;
mod client;
mod memory;
mod native;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use wharf::config::{self, Flags};
use wharf::core::{Command, Core, Flow, Report};
use wharf::policy::{Snapshot, Target};
use wharf::telemetry::Record;
use wharf::upstream::pool::RESET_STREAM_DURATION;

use backend::Backend;
use client::Client;
use memory::Memory;
use native::Native;

/// How many records that have been read wait to be written on again, as in the product.
const SPENT_MAX: usize = 1024;
/// After so many turns without an answer a run is stuck.
const TURNS_IDLE_MAX: u32 = 100;

/// What the clients ask for, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How many call at the same time.
    pub(crate) callers: usize,
    /// What they speak.
    pub(crate) speech: Speech,
    /// The size of a request's message, bytes.
    pub(crate) request_bytes: usize,
    /// What is answered.
    pub(crate) answer: Answer,
    /// How many calls are counted.
    pub(crate) calls: usize,
    /// How many calls are made before, so that tables and buffers have their sizes.
    pub(crate) warm_up: usize,
}

/// What the callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// gRPC-Web over HTTP/1.1, each on a connection of its own.
    Binary,
    /// The same in base64, as `application/grpc-web-text`.
    Text,
    /// gRPC, all on one connection of HTTP/2.
    Native,
}

/// What the backend answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// The message of the request.
    Echo,
    /// So many messages of so many bytes.
    Stream { messages: usize, bytes: usize },
}

impl Case {
    const fn unary(name: &'static str, speech: Speech, request_bytes: usize) -> Self {
        Self {
            name,
            callers: match speech {
                Speech::Native => 32,
                Speech::Binary | Speech::Text => 64,
            },
            speech,
            request_bytes,
            answer: Answer::Echo,
            calls: 1000,
            warm_up: 1000,
        }
    }

    const fn stream(name: &'static str, callers: usize, speech: Speech) -> Self {
        Self {
            name,
            callers,
            speech,
            request_bytes: 16,
            answer: Answer::Stream {
                messages: 1000,
                bytes: 100,
            },
            calls: callers,
            warm_up: callers,
        }
    }

    /// The method that is called.
    const fn path(&self) -> &'static str {
        match self.answer {
            Answer::Echo => "/bench.v1.Echo/Say",
            Answer::Stream { .. } => "/bench.v1.Echo/Watch",
        }
    }

    /// How many messages the answers of so many calls have.
    pub(crate) fn messages(&self, calls: usize) -> usize {
        match self.answer {
            Answer::Echo => calls,
            Answer::Stream { messages, .. } => calls * messages,
        }
    }

    /// How many bytes those messages have.
    pub(crate) fn payload(&self, calls: usize) -> usize {
        let each = match self.answer {
            Answer::Echo => self.request_bytes,
            Answer::Stream { bytes, .. } => bytes,
        };
        self.messages(calls) * each
    }
}

/// All of them.
pub(crate) const CASES: [Case; 10] = [
    Case::unary("unary", Speech::Binary, 16),
    Case::unary("unary-1k", Speech::Binary, 1 << 10),
    Case::unary("unary-64k", Speech::Binary, 64 << 10),
    Case::unary("text", Speech::Text, 16),
    Case::unary("text-1k", Speech::Text, 1 << 10),
    Case::unary("native", Speech::Native, 16),
    Case::stream("stream-1", 1, Speech::Binary),
    Case::stream("stream-10", 10, Speech::Binary),
    Case::stream("stream-10-text", 10, Speech::Text),
    Case::stream("stream-10-native", 10, Speech::Native),
];

/// What the clients have received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Answers that ended with `grpc-status: 0`.
    pub(crate) calls: usize,
    /// Messages.
    pub(crate) messages: usize,
    /// Their bytes, without prefixes and after base64.
    pub(crate) payload: usize,
}

/// A connection of a caller, or of all of them.
enum Caller {
    Page(Client),
    Native(Native),
}

impl Caller {
    /// One more call may be open.
    fn has_room(&self) -> bool {
        match self {
            Self::Page(client) => client.is_idle(),
            Self::Native(client) => client.has_room(),
        }
    }

    fn send(&mut self, memory: &Memory) {
        match self {
            Self::Page(client) => client.send(memory),
            Self::Native(client) => client.send(memory),
        }
    }

    fn receive(&mut self, received: &mut Received) {
        match self {
            Self::Page(client) => client.receive(received),
            Self::Native(client) => client.receive(received),
        }
    }
}

/// A core and all who talk to it.
pub(crate) struct World {
    pub(crate) case: Case,
    core: Core<Memory>,
    memory: Memory,
    clients: Vec<Caller>,
    backend: Option<Backend>,
    reports: Receiver<Report>,
    records: Receiver<Report>,
    /// Takes records back that have been read: without it every call would pay for the memory of a new one.
    spent: Sender<Box<Record>>,
    _commands: Sender<Command>,
    received: Received,
    /// How many turns were counted.
    pub(crate) turns: u64,
}

impl World {
    /// A core that has served the warm-up.
    pub(crate) fn new(case: Case) -> Self {
        let memory = Memory::default();
        // As in the product: the core looks how many wait.
        let (reporter, reports) = unbounded();
        let (ledger, records) = unbounded();
        let (spent, spares) = bounded(SPENT_MAX);
        let (commands, inbox) = unbounded();
        let span = RESET_STREAM_DURATION;
        let mut core = Core::new(
            0,
            memory.clone(),
            1,
            Arc::new(rules()),
            inbox,
            reporter,
            span,
        );
        core.keep_ledger(ledger, spares);
        let request = client::request(&case);
        let text = case.speech == Speech::Text;
        let page = |_| Client::new(memory.dial_in(), Bytes::clone(&request), text);
        let clients = match case.speech {
            Speech::Binary | Speech::Text => {
                (0..case.callers).map(page).map(Caller::Page).collect()
            }
            Speech::Native => {
                let client = Native::new(memory.dial_in(), &case, case.callers);
                vec![Caller::Native(client)]
            }
        };
        let mut world = Self {
            case,
            core,
            memory,
            clients,
            backend: None,
            reports,
            records,
            spent,
            _commands: commands,
            received: Received::default(),
            turns: 0,
        };
        world.serve(case.warm_up, false);
        world
    }

    /// Has the clients make so many calls, and counts what happens in the turns.
    pub(crate) fn run(&mut self, calls: usize) -> Received {
        self.serve(calls, true)
    }

    fn serve(&mut self, calls: usize, counted: bool) -> Received {
        self.received = Received::default();
        let mut unsent = calls;
        let mut idle = 0;
        let mut recorded = 0;
        while self.received.calls < calls {
            for client in &mut self.clients {
                while unsent > 0 && client.has_room() {
                    client.send(&self.memory);
                    unsent -= 1;
                }
            }
            if counted {
                self.memory.count(true);
                assert_eq!(counted_turn(&mut self.core), Flow::Running);
                self.memory.count(false);
                self.turns += 1;
            } else {
                assert_eq!(self.core.turn(), Flow::Running);
            }
            let before = self.received;
            for client in &mut self.clients {
                client.receive(&mut self.received);
            }
            idle = if before == self.received { idle + 1 } else { 0 };
            assert!(idle < TURNS_IDLE_MAX, "{}: no answer comes", self.case.name);
            if self.backend.is_none() {
                self.backend = self.memory.dialled().map(Backend::new);
            }
            if let Some(backend) = &mut self.backend {
                backend.step(&self.case, &self.memory);
            }
            self.reports.try_iter().for_each(drop);
            // As whoever prints does.
            for report in self.records.try_iter() {
                if let Report::Record(mut record) = report {
                    assert_eq!(record.http_status, Some(200), "{record:?}");
                    recorded += 1;
                    record.trim();
                    let _ = self.spent.try_send(record);
                }
            }
        }
        // One that comes later, or never, would be missing in what is counted.
        assert_eq!(
            recorded, calls,
            "{}: each call has its record",
            self.case.name
        );
        let right = Received {
            calls,
            messages: self.case.messages(calls),
            payload: self.case.payload(calls),
        };
        assert_eq!(self.received, right, "{}", self.case.name);
        self.received
    }
}

/// One turn that is counted.
#[inline(never)]
fn counted_turn(core: &mut Core<Memory>) -> Flow {
    black_box(core.turn())
}

/// What a core obeys that was started with `--backend` and nothing else.
fn rules() -> Snapshot {
    let flags = Flags {
        backends: vec![SERVER.to_owned()],
        ..Flags::default()
    };
    let machine = config::Machine {
        cpus: 1,
        descriptors: 1 << 20,
    };
    let mut snapshot = config::load(None, &flags, &machine)
        .compiled
        .expect("one backend is enough")
        .snapshot;
    // The control thread would resolve it.
    let address: SocketAddr = SERVER.parse().expect("an address");
    for backend in &mut snapshot.backends {
        if let Target::Endpoints(endpoints) = &mut backend.target {
            for endpoint in endpoints {
                endpoint.addresses = vec![address];
            }
        }
    }
    snapshot
}

const SERVER: &str = "127.0.0.1:50051";

/// A frame, behind what is there.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
