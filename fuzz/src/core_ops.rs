//! A whole core on the simulator's machine, with clients that write what they like and servers that answer what they like:
//! it never panics, its invariants hold after every turn, nobody is forgotten, and at its end every slab is empty.
//!
//! It does not judge what callers are told; `tests/simulation` does, with peers that know what they said.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use wharf::core::{Command, Core, Flow, Report};
use wharf::net::Driver as _;
use wharf::net::sim::{Arrival, Dialled, End, Machine, SimDriver, Weather};
use wharf::policy::{
    Backend, BackendId, Endpoint, Limits, Listener, PathMatch, Route, RouteKind, Snapshot, Target,
};
use wharf::wire::Reason;
use wharf::wire::envelope::prefix;

use super::shared::Script;

/// How many clients and servers there are at once.
const PEERS_MAX: usize = 6;
/// How many turns a whole script may take. Where bytes move one by one, many.
const TURNS_MAX: usize = 60_000;
/// For so long everybody is given time to notice that the others have gone. Longer than any limit of the core.
const PATIENCE: Duration = Duration::from_secs(200);

/// Reads `input` as a byte of weather, a byte of limits, and a script: a byte for each operation, most with arguments.
pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (Some(weather), Some(limits)) = (script.byte(), script.byte()) else {
        return;
    };
    let mut world = World::new(weather, limits);
    while let Some(op) = script.byte() {
        world.obey(op, &mut script);
        world.turn(true, None);
    }
    world.finish();
}

/// Somebody at the other end of a socket of the core.
struct Peer {
    end: Option<End>,
    /// What it has to say and could not yet.
    outbox: Vec<u8>,
    /// It closes its side when all is said.
    closes: bool,
    reads: bool,
    heard: Vec<u8>,
}

impl Peer {
    fn new(end: End) -> Self {
        Self {
            end: Some(end),
            outbox: Vec::new(),
            closes: false,
            reads: true,
            heard: Vec::new(),
        }
    }

    /// HTTP/2: what `n` chooses. Streams are the first of a client's.
    fn say_http2(&mut self, n: u8) {
        let stream = 1 + 2 * u32::from(n >> 4);
        match n % 8 {
            0 => {
                self.outbox
                    .extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                self.frame(4, 0, 0, settings(n >> 1));
                self.frame(4, 1, 0, &[]);
            }
            1..=3 => {
                // POST, http, a method, a host and a type.
                let mut block = vec![0x83, 0x86];
                field(
                    &mut block,
                    ":path",
                    if n % 8 == 3 { "/plain/a" } else { "/a.B/C" },
                );
                field(&mut block, ":authority", "h");
                field(&mut block, "content-type", "application/grpc-web");
                if n % 8 == 2 {
                    field(&mut block, "grpc-timeout", "900m");
                }
                self.frame(1, 4, stream, &block);
            }
            4 => self.frame(0, 0, stream, &message(n)),
            5 => self.frame(0, 1, stream, &[]),
            6 => self.frame(3, 0, stream, &[0, 0, 0, 8]),
            _ => {
                self.frame(8, 0, stream, &[0, 0, 0x40, n]);
                self.frame(8, 0, 0, &[0, 0, 0x40, n]);
            }
        }
    }

    /// A frame with that content: its kind in the high bits, its flags and stream in the low ones.
    fn say_frame(&mut self, n: u8, payload: &[u8]) {
        let flags = [0, 1, 4, 5][usize::from(n & 3)];
        let stream = if n & 4 == 0 {
            0
        } else {
            1 + 2 * u32::from(n >> 7)
        };
        self.frame(n >> 3 & 15, flags, stream, payload);
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        self.outbox.extend_from_slice(&length[1..]);
        self.outbox.extend_from_slice(&[kind, flags]);
        self.outbox.extend_from_slice(&stream.to_be_bytes());
        self.outbox.extend_from_slice(payload);
    }

    fn step(&mut self) {
        let Some(end) = &self.end else { return };
        match end.write(&self.outbox) {
            Ok(n) => drop(self.outbox.drain(..n)),
            Err(_) => self.outbox.clear(),
        }
        if self.closes && self.outbox.is_empty() {
            end.shutdown();
        }
        if self.reads {
            while let Arrival::Bytes(_) = end.read(&mut self.heard, 1 << 16) {}
        }
    }
}

struct World {
    machine: Machine,
    core: Core<SimDriver>,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    clients: Vec<Peer>,
    servers: Vec<Server>,
    unfinished: Vec<Dialled>,
    limits: u8,
    generation: u64,
    turns: usize,
    stopped: bool,
    told: bool,
}

impl World {
    fn new(weather: u8, limits: u8) -> Self {
        let seed = u64::from(weather);
        let weather = match weather {
            0..=127 => Weather::fair(),
            _ => Weather::of(&mut fastrand::Rng::with_seed(seed)),
        };
        let machine = Machine::new(seed, weather, 1, Instant::now());
        machine.keep_lines(Some(1));
        let (commands, inbox) = unbounded();
        let (sender, reports) = unbounded();
        let core = Core::new(
            0,
            machine.driver(),
            1,
            snapshot(1, limits),
            inbox,
            sender,
            Duration::MAX,
        );
        Self {
            machine,
            core,
            commands,
            reports,
            clients: Vec::new(),
            servers: Vec::new(),
            unfinished: Vec::new(),
            limits,
            generation: 1,
            turns: 0,
            stopped: false,
            told: false,
        }
    }

    fn obey(&mut self, op: u8, script: &mut Script<'_>) {
        let who = script.byte().unwrap_or_default();
        match op % 26 {
            0 => {
                if self.clients.len() < PEERS_MAX {
                    self.clients.extend(self.machine.dial_in(0).map(Peer::new));
                }
            }
            1..=3 => {
                let request =
                    REQUESTS[usize::from(script.byte().unwrap_or_default()) % REQUESTS.len()];
                self.client(who, |client| client.outbox.extend_from_slice(request));
            }
            4 => {
                let bytes = text(script);
                self.client(who, |client| client.outbox.extend_from_slice(bytes));
            }
            5 => {
                let n = script.byte().unwrap_or_default();
                self.client(who, |client| {
                    let message = message(n);
                    client
                        .outbox
                        .extend_from_slice(format!("{:x}\r\n", message.len()).as_bytes());
                    client.outbox.extend_from_slice(&message);
                    client.outbox.extend_from_slice(b"\r\n");
                });
            }
            6 => self.client(who, |client| client.closes = true),
            7 => self.client(who, |client| {
                if let Some(end) = client.end.take()
                    && who >= 128
                {
                    end.reset();
                }
            }),
            8 => self.client(who, |client| client.reads = !client.reads),
            9 | 10 => {
                if let Some((_, dialled)) = self.machine.dialled() {
                    match who % 8 {
                        0 => dialled.refuse(io::ErrorKind::ConnectionRefused),
                        1 => self.unfinished.push(dialled),
                        _ => {
                            let mut server = Server::new(dialled.accept());
                            server.frame(4, 0, 0, settings(who));
                            self.servers.push(server);
                        }
                    }
                }
            }
            11 => {
                let n = script.byte().unwrap_or_default();
                self.server(who, |server| server.frame(4, n & 1, 0, settings(n)));
            }
            12 | 13 => {
                let n = script.byte().unwrap_or_default();
                self.server(who, |server| server.answer(n));
            }
            14 | 15 => {
                let n = script.byte().unwrap_or_default();
                self.server(who, |server| {
                    server.frame(0, n & 1, n >> 1, &message(n));
                });
            }
            16 => {
                let n = script.byte().unwrap_or_default();
                self.server(who, |server| server.trailers(n));
            }
            17 => {
                let (n, code) = (
                    script.byte().unwrap_or_default(),
                    script.byte().unwrap_or_default(),
                );
                self.server(who, |server| match n & 3 {
                    0 | 1 => server.frame(3, 0, n >> 1, &u32::from(code).to_be_bytes()),
                    2 => {
                        let last = if n & 4 == 0 {
                            0x7fff_ffff
                        } else {
                            u32::from(n >> 3)
                        };
                        let goaway = [last.to_be_bytes(), u32::from(code).to_be_bytes()].concat();
                        server.frame(7, 0, 0xff, &goaway);
                    }
                    _ => {
                        let stream = if n & 4 == 0 { 0xff } else { n >> 1 };
                        server.frame(8, 0, stream, &(u32::from(code) << (n >> 4)).to_be_bytes());
                    }
                });
            }
            18 => {
                let bytes = text(script);
                let (kind, flags, stream) = (who >> 4, bytes.len() as u8, who);
                self.server(who, |server| server.frame(kind, flags, stream, bytes));
            }
            19 => {
                let bytes = text(script);
                self.server(who, |server| {
                    server.allows_large = true;
                    server.peer.outbox.extend_from_slice(bytes);
                });
            }
            20 => self.server(who, |server| match who >> 5 {
                0 => server.peer.closes = true,
                1 => server.peer.end = None,
                2 => {
                    if let Some(end) = server.peer.end.take() {
                        end.reset();
                    }
                }
                _ => server.peer.reads = !server.peer.reads,
            }),
            21 => {
                let until = self.machine.now() + Duration::from_millis(u64::from(who) * 100);
                for _ in 0..20 {
                    if self.machine.now() < until {
                        self.turn(false, Some(until));
                    }
                }
            }
            22 => (0..who % 16).for_each(|_| self.turn(true, None)),
            23 => self.command(who),
            24 => {
                let n = script.byte().unwrap_or_default();
                self.client(who, |client| client.say_http2(n));
            }
            _ => {
                let n = script.byte().unwrap_or_default();
                let bytes = text(script);
                self.client(who, |client| client.say_frame(n, bytes));
            }
        }
    }

    fn command(&mut self, n: u8) {
        let command = match n {
            0..=100 => {
                self.generation += 1;
                self.limits = n;
                Command::Adopt(snapshot(self.generation, n))
            }
            101..=150 => Command::Probe,
            151..=254 => {
                self.told = true;
                Command::Drain(Duration::from_millis(u64::from(n - 151) * 100))
            }
            255 => {
                self.told = true;
                Command::Stop
            }
        };
        let _ = self.commands.send(command);
        self.machine.ring();
    }

    fn client(&mut self, who: u8, act: impl FnOnce(&mut Peer)) {
        let count = self.clients.len().max(1);
        if let Some(client) = self.clients.get_mut(usize::from(who) % count) {
            act(client);
        }
    }

    fn server(&mut self, who: u8, act: impl FnOnce(&mut Server)) {
        let count = self.servers.len().max(1);
        if let Some(server) = self.servers.get_mut(usize::from(who) % count) {
            act(server);
        }
    }

    fn turn(&mut self, busy: bool, wake: Option<Duration>) {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "it never ends: {:?}", self.core);
        for client in &mut self.clients {
            client.step();
            let heard = &client.heard[..client.heard.len().min(9)];
            // What it hears in HTTP/2 begins with SETTINGS.
            let frame = |at: usize| (3..9).contains(&at) || at < 2;
            let settings = heard.iter().enumerate().filter(|&(at, _)| frame(at));
            let mut settings = settings.map(|(at, &byte)| byte == if at == 3 { 4 } else { 0 });
            assert!(
                b"HTTP/1.1 ".starts_with(heard) || settings.all(|same| same),
                "a client heard no HTTP"
            );
        }
        for server in &mut self.servers {
            server.peer.step();
            server.walk();
        }
        self.machine.expect(busy, wake);
        if self.stopped {
            self.machine.driver().wait(None, &mut Vec::new());
            return;
        }
        let flow = self.core.turn();
        self.core.check_invariants();
        self.stopped = flow == Flow::Stopped;
        if self.stopped {
            assert!(self.told, "it stopped, and nobody had said so");
            assert!(
                self.core.is_empty(),
                "invariant 12: after the end every slab is empty"
            );
        }
        let mut last = false;
        while let Ok(report) = self.reports.try_recv() {
            assert!(!last, "nothing comes after the last word");
            match report {
                Report::Record(record) => {
                    assert_ne!(record.reason, Reason::Panic, "{record:?}");
                }
                Report::Stopped {
                    records_dropped, ..
                } => {
                    assert!(self.stopped);
                    assert_eq!(records_dropped, 0);
                    last = true;
                }
                Report::Failed { .. } => panic!("the core says that it failed"),
                Report::Attempt(_) | Report::Adopted { .. } => {}
            }
        }
        assert_eq!(last, self.stopped, "a core that stops says so");
    }

    /// Time passes until nothing can happen any more, or everybody's patience is at its end.
    fn settle(&mut self) {
        let until = self.machine.now() + PATIENCE;
        while !self.stopped && self.machine.now() < until && self.machine.stuck() < 2 {
            while let Some((_, dialled)) = self.machine.dialled() {
                dialled.refuse(io::ErrorKind::ConnectionRefused);
            }
            self.turn(false, None);
        }
    }

    /// Everybody leaves, in an order that the script's length has chosen; then it is drained.
    fn finish(mut self) {
        self.machine.clear_up();
        for peer in &mut self.clients {
            // What is half said stays half said.
            peer.outbox.clear();
            peer.end = None;
        }
        self.unfinished.clear();
        for server in &mut self.servers {
            server.peer.outbox.clear();
            server.peer.end = None;
        }
        self.settle();
        if !self.stopped {
            let (clients, calls, _) = self.core.census();
            assert_eq!(
                (clients, calls),
                (0, 0),
                "nobody is there, and they are still served"
            );
        }
        if !self.told {
            self.told = true;
            let _ = self.commands.send(Command::Drain(Duration::from_secs(5)));
            self.machine.ring();
        }
        let turns = self.turns;
        while !self.stopped {
            assert!(self.turns < turns + 2_000, "the drain has no end");
            self.turn(false, None);
        }
    }
}

/// An HTTP/2 server of a sort: it writes frames, whatever was asked, and watches those that come.
struct Server {
    peer: Peer,
    /// How much of what was heard has been looked at.
    walked: usize,
    /// Streams that may not speak any more, and why.
    silent: BTreeMap<u32, &'static str>,
    /// It may have allowed larger frames than HTTP/2 begins with.
    allows_large: bool,
}

impl Server {
    fn new(end: End) -> Self {
        Self {
            peer: Peer::new(end),
            walked: 0,
            silent: BTreeMap::new(),
            allows_large: false,
        }
    }

    /// A frame. Streams are the first of the client's; 0xff is the connection.
    fn frame(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let stream = match stream {
            _ if kind == 4 || kind == 6 => 0,
            0xff => 0,
            n => 1 + 2 * u32::from(n % 8),
        };
        let largest = |setting: &[u8]| setting.starts_with(&[0, 5]);
        self.allows_large |= kind == 4 && payload.chunks(6).any(largest);
        let length = (payload.len() as u32).to_be_bytes();
        self.peer.outbox.extend_from_slice(&length[1..]);
        self.peer.outbox.extend_from_slice(&[kind, flags]);
        self.peer.outbox.extend_from_slice(&stream.to_be_bytes());
        self.peer.outbox.extend_from_slice(payload);
    }

    /// The head of an answer: the stream in the low bits, then whether it is the end of it, then what it says.
    fn answer(&mut self, n: u8) {
        let mut block = match n >> 5 {
            0 => vec![0x8d],
            1 => b"\x48\x03503".to_vec(),
            2 => b"\x48\x03103".to_vec(),
            _ => vec![0x88],
        };
        field(&mut block, "content-type", "application/grpc+proto");
        if n >> 5 == 3 {
            field(&mut block, "grpc-encoding", "gzip");
        }
        let ends = n >> 3 & 1;
        if ends == 1 {
            field(&mut block, "grpc-status", "5");
        }
        self.frame(1, 4 | ends, n, &block);
    }

    fn trailers(&mut self, n: u8) {
        let mut block = Vec::new();
        field(
            &mut block,
            "grpc-status",
            ["0", "1", "16", "x"][usize::from(n >> 6)],
        );
        if n & 8 != 0 {
            field(&mut block, "grpc-message", "so%20it%20is\n%");
        }
        self.frame(1, 5, n, &block);
    }

    /// Looks at the frames that came: each whole, no larger than allowed, and none of a stream that had ended.
    fn walk(&mut self) {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let heard = &self.peer.heard;
        if self.walked == 0 {
            let there = heard.len().min(PREFACE.len());
            assert_eq!(heard[..there], PREFACE[..there], "no preface");
            if there < PREFACE.len() {
                return;
            }
            self.walked = PREFACE.len();
        }
        while let Some(&[a, b, c, kind, flags, s, t, u, v]) = heard
            .get(self.walked..)
            .and_then(|rest| rest.first_chunk::<9>())
        {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes([s, t, u, v]);
            if heard.len() < self.walked + 9 + length {
                return;
            }
            assert!(
                length <= 1 << 14 || self.allows_large,
                "a frame larger than allowed"
            );
            if matches!(kind, 0 | 1) {
                assert_eq!(stream % 2, 1, "no stream of a client");
                if let Some(why) = self.silent.get(&stream) {
                    panic!("stream {stream} speaks after its {why}");
                }
                if flags & 1 != 0 {
                    self.silent.insert(stream, "end");
                }
            }
            if kind == 3 {
                self.silent.insert(stream, "reset");
            }
            self.walked += 9 + length;
        }
    }
}

/// A literal field that nobody remembers (RFC 7541 §6.2.2).
fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

/// SETTINGS: nothing, few streams, none, a small window, a large one.
fn settings(n: u8) -> &'static [u8] {
    match n / 8 % 8 {
        1 => &[0, 3, 0, 0, 0, 1],
        2 => &[0, 3, 0, 0, 0, 0],
        3 => &[0, 4, 0, 0, 0, 7],
        4 => &[0, 4, 0, 0x40, 0, 0],
        5 => &[0, 4, 0, 0, 0, 0],
        6 => &[0, 5, 0, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 0],
        _ => &[],
    }
}

/// The next bytes of a script: how many, and they.
fn text<'a>(script: &mut Script<'a>) -> &'a [u8] {
    let count = script.byte().unwrap_or_default() % 64;
    script.bytes(usize::from(count))
}

/// A message; every fourth is larger than most windows and buffers here.
fn message(n: u8) -> Vec<u8> {
    let size = usize::from(n) * if n % 4 == 3 { 64 } else { 1 };
    [&prefix(0, size as u32)[..], &vec![n; size]].concat()
}

/// What clients say, whole or begun.
const REQUESTS: [&[u8]; 16] = [
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\ncontent-length: 7\r\n\r\n\0\0\0\0\x02hi",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web+proto\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 8\r\n\r\nAAAAAAA=",
    b"OPTIONS /a.B/C HTTP/1.1\r\nhost: h\r\norigin: https://x\r\naccess-control-request-method: POST\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\ngrpc-timeout: 900m\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\ncontent-length: 99999\r\n\r\n\0\0\x01\x86\x9a",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0POST /a.B/C HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc-web\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
    b"0\r\n\r\n",
    b"POST /plain HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nplain",
    b"HEAD /plain/page HTTP/1.1\r\nhost: h\r\n\r\n",
    b"POST /a.B/C HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: application/grpc-web-text\r\naccept: application/grpc-web\r\ntransfer-encoding: chunked\r\n\r\n8\r\nAAAAAAA=\r\n0\r\n\r\n",
    b"POST /other.A/B HTTP/1.0\r\n\r\n",
];

fn snapshot(generation: u64, limits: u8) -> Arc<Snapshot> {
    let endpoint = |n: u8| Endpoint {
        name: format!("server{n}:50051").as_str().into(),
        addresses: vec![SocketAddr::from(([10, 0, 0, n], 50_051))],
    };
    let backend = |name: &str, endpoints: Vec<Endpoint>| Backend {
        name: name.into(),
        target: Target::Endpoints(endpoints),
        connect_timeout: Duration::from_secs(5),
        connections_max: 1 + usize::from(limits & 1),
        pending_max: if limits & 2 == 0 { 1000 } else { 1 },
    };
    let route = |name: &str, kind, backend| Route {
        name: name.into(),
        path: PathMatch::Prefix(name.to_owned()),
        kind,
        backend: BackendId(backend),
        filters: Box::new([]),
    };
    Arc::new(Snapshot {
        unrouted: Arc::new([]),
        generation,
        listeners: vec![Listener {
            name: "main".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            versions: wharf::policy::Versions::Both,
        }],
        routes: Arc::new([
            route("/a.B", RouteKind::Rpc, 0),
            route("/plain", RouteKind::Plain, 1),
        ]),
        backends: vec![
            backend("a", vec![endpoint(1), endpoint(2 + (limits >> 6))]),
            backend("b", vec![endpoint(1)]),
        ],
        limits: Limits {
            connections_max: if limits & 4 == 0 { 1000 } else { 2 },
            message_bytes_max: if limits & 8 == 0 { 4 << 20 } else { 100 },
            ..Limits::default()
        },
        live_path: Some("/healthz".to_owned()),
    })
}
