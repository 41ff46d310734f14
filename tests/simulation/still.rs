//! A core on a machine without faults, whose clock the test moves: what a test says comes in the pieces that it says, and
//! every time is exact.
//!
//! Everything is plain HTTP or one route of calls, and the backend is a function that remembers what it was told. It never
//! knows what a test is about.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use http::{HeaderMap, HeaderValue, StatusCode};
use wharf::core::{Command, Core, Flow, Report};
use wharf::net::sim::{Arrival, End, Machine, SimDriver, Weather};
use wharf::policy::snapshot::{Backend, Listener, PathMatch, Route, RouteKind, Target};
use wharf::policy::{Answer, BackendId, Callee, Limits, Snapshot};
use wharf::telemetry::Record;
use wharf::wire::{OutgoingHead, Part, Reset, ResponseHead};

/// The pause between two deeds of a client that does not hurry.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(2);
/// What a backend says at once, bytes.
const PIECE: usize = 16 << 10;

/// A call as the backend saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// Its end came.
    pub(crate) ended: bool,
    /// It was let go.
    pub(crate) dropped: bool,
}

/// How a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The path, when the request has ended.
    Echo,
    /// Never.
    Silent,
    /// At once, with so many bytes, whoever reads them.
    Torrent(usize),
}

/// Behind it a path says how many bytes are answered at once and, after an x, each how many milliseconds: without end, and whatever
/// the backend's manner.
pub(crate) const PULSES: &str = "/pulses/";

/// A backend that remembers.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    seen: Arc<Mutex<Vec<Seen>>>,
    manner: Manner,
    rpc: bool,
}

impl Memory {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().expect("no panic").clear();
    }
}

impl Callee for Memory {
    fn call(&self, head: &OutgoingHead) -> Box<dyn Answer> {
        let pulses = head.path.path().strip_prefix(PULSES);
        if let Some((bytes, every)) = pulses.and_then(|words| words.split_once('x')) {
            return Box::new(Pulses {
                bytes: bytes.parse().expect("a number"),
                every: Duration::from_millis(every.parse().expect("a number")),
                left: 0,
                next: None,
            });
        }
        let mut seen = self.seen.lock().expect("no panic");
        seen.push(Seen {
            method: head.method.to_string(),
            path: head.path.to_string(),
            ..Seen::default()
        });
        let torrent = match self.manner {
            Manner::Torrent(bytes) => bytes,
            Manner::Echo | Manner::Silent => 0,
        };
        Box::new(Remembered {
            memory: self.clone(),
            index: seen.len() - 1,
            stage: 0,
            left: torrent,
        })
    }
}

struct Remembered {
    memory: Memory,
    index: usize,
    stage: u8,
    left: usize,
}

impl Remembered {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        // A test may have forgotten it.
        if let Some(seen) = self
            .memory
            .seen
            .lock()
            .expect("no panic")
            .get_mut(self.index)
        {
            note(seen);
        }
    }
}

impl Answer for Remembered {
    fn handle_part(&mut self, part: Part) {
        self.note(|seen| match part {
            Part::Data(bytes) => seen.body.extend(bytes),
            Part::End(_) => seen.ended = true,
            Part::Head(_) => panic!("a head inside a request"),
        });
    }

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        let mut ready = false;
        let mut path = String::new();
        self.note(|seen| {
            ready = seen.ended;
            path.clone_from(&seen.path);
        });
        match self.memory.manner {
            Manner::Silent => return Poll::Pending,
            Manner::Echo if !ready => return Poll::Pending,
            Manner::Echo | Manner::Torrent(_) => {}
        }
        let part = match self.stage {
            0 => {
                let mut head = ResponseHead::new(StatusCode::OK);
                if self.memory.rpc {
                    let kind = HeaderValue::from_static("application/grpc");
                    head.headers.insert(http::header::CONTENT_TYPE, kind);
                }
                Part::Head(Box::new(head))
            }
            1 if self.left > 0 => {
                let bytes = self.left.min(PIECE);
                self.left -= bytes;
                return Poll::Ready(Ok(Part::Data(Bytes::from(vec![0; bytes]))));
            }
            1 if self.memory.manner == Manner::Echo && !self.memory.rpc => {
                Part::Data(Bytes::from(path))
            }
            1 => Part::Data(Bytes::new()),
            _ if self.memory.rpc => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Part::End(Some(Box::new(trailers)))
            }
            _ => Part::End(None),
        };
        self.stage += 1;
        Poll::Ready(Ok(part))
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.note(|seen| seen.dropped = true);
    }
}

/// So many bytes at once, then a pause.
struct Pulses {
    bytes: usize,
    every: Duration,
    /// Of this one.
    left: usize,
    /// When the next one begins. `None`: its head has not been asked for.
    next: Option<Instant>,
}

impl Answer for Pulses {
    fn handle_part(&mut self, _: Part) {}

    fn poll_part(&mut self, now: Instant) -> Poll<Result<Part, Reset>> {
        let Some(next) = self.next else {
            self.next = Some(now + self.every);
            let mut head = ResponseHead::new(StatusCode::OK);
            let kind = HeaderValue::from_static("application/grpc");
            head.headers.insert(http::header::CONTENT_TYPE, kind);
            return Poll::Ready(Ok(Part::Head(Box::new(head))));
        };
        if self.left == 0 {
            if now < next {
                return Poll::Pending;
            }
            self.left = self.bytes;
            self.next = Some(now + self.every);
        }
        let bytes = self.left.min(PIECE);
        self.left -= bytes;
        Poll::Ready(Ok(Part::Data(Bytes::from(vec![0; bytes]))))
    }

    fn wake_at(&self) -> Option<Instant> {
        self.next
    }
}

/// The core, its machine and its backend.
pub(crate) struct Still {
    pub(crate) machine: Machine,
    pub(crate) core: Core<SimDriver>,
    pub(crate) memory: Memory,
    pub(crate) records: Vec<Record>,
    reports: Receiver<Report>,
    pub(crate) commands: Sender<Command>,
}

impl Still {
    pub(crate) fn new(kind: RouteKind, manner: Manner, limits: Limits) -> Self {
        let weather = Weather {
            buffer_bytes_max: 1 << 18,
            ..Weather::fair()
        };
        Self::under(weather, kind, manner, limits)
    }

    /// The same where the machine's sockets are as `weather` says.
    pub(crate) fn under(weather: Weather, kind: RouteKind, manner: Manner, limits: Limits) -> Self {
        let machine = Machine::new(7, weather, 1, Instant::now());
        let memory = Memory {
            seen: Arc::default(),
            manner,
            rpc: kind == RouteKind::Rpc,
        };
        let snapshot = Snapshot {
            unrouted: Arc::new([]),
            generation: 1,
            listeners: vec![Listener {
                name: "main".into(),
                address: ([127, 0, 0, 1], 8080).into(),
                versions: wharf::policy::Versions::Both,
            }],
            routes: Arc::new([Route {
                name: "all".into(),
                path: PathMatch::Prefix("/".to_owned()),
                kind,
                backend: BackendId(0),
                filters: Box::new([]),
            }]),
            backends: vec![Backend {
                name: "memory".into(),
                target: Target::Local(Arc::new(memory.clone())),
                connect_timeout: Duration::from_secs(5),
                connections_max: 1,
                pending_max: 1000,
            }],
            limits,
            live_path: Some("/healthz".to_owned()),
        };
        let (commands, inbox) = unbounded();
        let (reporter, reports) = unbounded();
        let driver = machine.driver();
        let snapshot = Arc::new(snapshot);
        let core = Core::new(0, driver, 1, snapshot, inbox, reporter, Duration::MAX);
        Self {
            machine,
            core,
            memory,
            records: Vec::new(),
            reports,
            commands,
        }
    }

    pub(crate) fn client(&self) -> End {
        self.machine.dial_in(0).expect("it listens")
    }

    /// Turns until nothing is left to be done now.
    pub(crate) fn settle(&mut self) {
        loop {
            let until = self.machine.now() + A_MOMENT;
            self.turn(until);
            // The clock jumps only where nothing else is to be done.
            if self.machine.now() == until {
                return self.collect();
            }
        }
    }

    /// Turns until it is that late. A deadline on the way is met at its time.
    pub(crate) fn run_until(&mut self, until: Duration) {
        // The clock jumps to the next deadline, or to where we have something to do.
        while self.machine.now() < until {
            self.turn(until);
        }
        self.collect();
    }

    /// One turn, which waits until then where there is nothing to be done.
    pub(crate) fn turn(&mut self, wake: Duration) {
        self.machine.expect(false, Some(wake));
        assert_eq!(self.core.turn(), Flow::Running);
        self.core.check_invariants();
    }

    /// Takes the records that there are.
    pub(crate) fn collect(&mut self) {
        let records = self.reports.try_iter().filter_map(|report| match report {
            Report::Record(record) => Some(*record),
            _ => None,
        });
        self.records.extend(records);
    }

    /// All that comes to this client, and whether its connection has ended.
    pub(crate) fn receive(&mut self, end: &End) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        loop {
            let (bytes, closed) = received(end);
            if bytes.is_empty() {
                return (all, closed);
            }
            // There may be more behind it that had no room.
            all.extend(bytes);
            self.settle();
        }
    }

    /// Sends it whole, however small the socket's buffer.
    pub(crate) fn send(&mut self, end: &End, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            match end.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(_) => return,
            }
            if sent < bytes.len() {
                self.settle();
            }
        }
    }
}

/// All that lies there, and whether the other side has ended behind it.
pub(crate) fn received(end: &End) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match end.read(&mut bytes, usize::MAX) {
            Arrival::Bytes(_) => {}
            Arrival::Nothing => return (bytes, false),
            Arrival::End | Arrival::Reset => return (bytes, true),
        }
    }
}
