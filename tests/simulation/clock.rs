//! Rows D that hang on exact time: one core on a machine in fair weather, whose two clocks the test holds in its hand.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, unbounded};
use wharf::core::{Core, Flow, Report};
use wharf::net::sim::{End, Machine, SimDriver, SimSocket, Weather};
use wharf::net::{Driver, Event, Key, Now};
use wharf::policy::snapshot::{Backend, Listener, PathMatch, Route, RouteKind, Target};
use wharf::policy::{BackendId, Endpoint, Limits, Snapshot};
use wharf::telemetry::Record;
use wharf::wire::{Code, Reason};

const DAY: Duration = Duration::from_secs(86_400);
/// What a test's loop may take before it is taken to hang.
const TURNS_MAX: usize = 200_000;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// A machine whose wall clock somebody sets.
struct Set {
    driver: SimDriver,
    /// By so much the wall clock is ahead, seconds.
    ahead: Rc<Cell<i64>>,
}

impl Driver for Set {
    type Socket = SimSocket;

    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        let now = self.driver.wait(until, events);
        let ahead = self.ahead.get();
        let by = Duration::from_secs(ahead.unsigned_abs());
        let wall = if ahead < 0 {
            now.wall - by
        } else {
            now.wall + by
        };
        Now { wall, ..now }
    }

    fn accept(&mut self, listener: u32) -> io::Result<(SimSocket, SocketAddr)> {
        self.driver.accept(listener)
    }

    fn turn_away(&mut self, listener: u32) -> io::Result<()> {
        self.driver.turn_away(listener)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<SimSocket> {
        self.driver.connect(address)
    }

    fn register(&mut self, socket: &mut SimSocket, key: Key) -> io::Result<()> {
        self.driver.register(socket, key)
    }

    fn close_listener(&mut self, listener: u32) {
        self.driver.close_listener(listener);
    }
}

/// A core, the machine below it, and a server that says nothing unless it is told to.
struct Bench {
    machine: Machine,
    core: Core<Set>,
    reports: Receiver<Report>,
    ahead: Rc<Cell<i64>>,
    servers: Vec<Server>,
}

/// A server's end: it greets, and remembers what it was sent.
struct Server {
    end: End,
    bytes: Vec<u8>,
    /// Type and stream of each frame.
    frames: Vec<(u8, u32)>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let machine = Machine::new(seed, Weather::fair(), 1, Instant::now());
        let ahead = Rc::new(Cell::new(0));
        let driver = Set {
            driver: machine.driver(),
            ahead: Rc::clone(&ahead),
        };
        let (_, inbox) = unbounded();
        let (reporter, reports) = unbounded();
        let core = Core::new(0, driver, 1, snapshot(), inbox, reporter, Duration::MAX);
        Self {
            machine,
            core,
            reports,
            ahead,
            servers: Vec::new(),
        }
    }

    /// A client that makes a call with these lines in its head.
    fn call(&self, lines: &str) -> Client {
        let end = self.machine.dial_in(0).expect("a listener");
        let sent = format!(
            "POST /sim.A/B HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n{lines}\
             content-length: 0\r\n\r\n"
        );
        Client {
            end,
            unsent: sent.into_bytes(),
            got: Vec::new(),
        }
    }

    /// One turn. Where nobody has anything to do, time goes on to `until`.
    fn turn(&mut self, busy: bool, until: Option<Duration>) {
        self.machine.expect(busy, until);
        assert_eq!(self.core.turn(), Flow::Running);
        self.core.check_invariants();
        while let Some((_, dialled)) = self.machine.dialled() {
            let end = dialled.accept();
            // SETTINGS: a hundred streams at once.
            let greeting = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
            assert_eq!(end.write(&greeting).ok(), Some(greeting.len()));
            self.servers.push(Server {
                end,
                bytes: Vec::new(),
                frames: Vec::new(),
            });
        }
        for server in &mut self.servers {
            server.read();
        }
    }

    /// Turns until so many calls have reached the server.
    fn turn_until_called(&mut self, clients: &mut [Client], calls: usize) {
        for _ in 0..TURNS_MAX {
            for client in &mut *clients {
                client.send();
            }
            let heads = self.servers.iter().map(|server| server.count(HEADERS));
            if heads.sum::<usize>() == calls {
                return;
            }
            self.turn(true, None);
        }
        panic!("the calls do not reach the server");
    }

    fn record(&self) -> Option<Record> {
        self.reports.try_iter().find_map(|report| match report {
            Report::Record(record) => Some(*record),
            _ => None,
        })
    }
}

impl Server {
    fn read(&mut self) {
        self.end.read(&mut self.bytes, usize::MAX);
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        if self.bytes.starts_with(PREFACE) {
            self.bytes.drain(..PREFACE.len());
        }
        while let Some(&[a, b, c, kind, _, d, e, f, g]) = self.bytes.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize + 9;
            if self.bytes.len() < length {
                return;
            }
            self.bytes.drain(..length);
            self.frames.push((kind, u32::from_be_bytes([d, e, f, g])));
        }
    }

    fn count(&self, kind: u8) -> usize {
        self.frames.iter().filter(|(own, _)| *own == kind).count()
    }

    /// Answers a call whole: `:status: 200`, gRPC's content type, status 0.
    fn answer(&self, stream: u32) {
        let mut block = vec![0x88];
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
            block.extend([0, name.len() as u8]);
            block.extend(name.bytes());
            block.push(value.len() as u8);
            block.extend(value.bytes());
        }
        let mut frame = vec![0, 0, block.len() as u8, HEADERS, 5];
        frame.extend(stream.to_be_bytes());
        frame.extend(block);
        assert_eq!(self.end.write(&frame).ok(), Some(frame.len()));
    }
}

struct Client {
    end: End,
    unsent: Vec<u8>,
    got: Vec<u8>,
}

impl Client {
    fn send(&mut self) {
        if !self.unsent.is_empty() {
            let n = self.end.write(&self.unsent).expect("the proxy reads");
            self.unsent.drain(..n);
        }
    }

    /// All that has come.
    fn answer(&mut self) -> String {
        self.end.read(&mut self.got, usize::MAX);
        String::from_utf8_lossy(&self.got).into_owned()
    }
}

fn snapshot() -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: 1,
        listeners: vec![Listener {
            name: "main".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            versions: wharf::policy::Versions::Both,
        }],
        routes: Arc::new([Route {
            name: "all".into(),
            path: PathMatch::Prefix("/".to_owned()),
            kind: RouteKind::Rpc,
            backend: BackendId(0),
            filters: Box::new([]),
        }]),
        unrouted: Arc::new([]),
        backends: vec![Backend {
            name: "a".into(),
            target: Target::Endpoints(vec![Endpoint {
                name: "a:1".into(),
                addresses: vec![SocketAddr::from(([10, 0, 0, 1], 50_051))],
            }]),
            connect_timeout: Duration::from_secs(5),
            connections_max: 1,
            pending_max: 10_000,
        }],
        limits: Limits::default(),
        live_path: None,
    })
}

#[test]
fn d_04_at_the_deadline_the_caller_is_told_and_the_backend_in_the_same_turn() {
    let mut bench = Bench::new(1);
    let mut clients = [bench.call("grpc-timeout: 5S\r\n")];
    bench.turn_until_called(&mut clients, 1);
    // Nobody has anything to do: the next thing that happens is the deadline.
    bench.turn(false, None);
    while bench.machine.now() < Duration::from_secs(4) {
        assert_eq!(clients[0].answer(), "");
        bench.turn(false, None);
    }
    let record = bench.record().expect("its time is over");
    assert_eq!(record.reason, Reason::Deadline);
    let answer = clients[0].answer();
    assert!(answer.contains("grpc-status:4\r\n"), "{answer}");
    assert_eq!(bench.servers[0].count(RST_STREAM), 1);
    let late = record.elapsed - Duration::from_secs(5);
    assert!(late <= Duration::from_millis(10), "{late:?}");
}

#[test]
fn d_07_a_call_without_a_timeout_rests_as_long_as_it_likes() {
    let mut bench = Bench::new(2);
    let mut clients = [bench.call("")];
    bench.turn_until_called(&mut clients, 1);
    for day in 1..=400 {
        bench.turn(false, Some(DAY * day));
        assert_eq!(clients[0].answer(), "");
        assert_eq!(bench.servers[0].count(RST_STREAM), 0);
    }
    assert!(
        bench.machine.now() >= DAY * 300,
        "{:?}",
        bench.machine.now()
    );
    assert!(bench.record().is_none());
    bench.servers[0].answer(1);
    for _ in 0..10 {
        bench.turn(true, None);
    }
    let answer = clients[0].answer();
    assert!(answer.contains("grpc-status:0\r\n"), "{answer}");
    let record = bench.record().expect("it has ended");
    assert_eq!((record.code, record.reason), (Some(Code::OK), Reason::Ok));
    assert!(record.elapsed >= DAY * 300);
}

/// What the clocks said of a call whose time is over: when its record was made, and the record. After the first `steps` turns
/// since the call reached the server the wall clock is set by so much; a second client stops in the middle of its head.
fn under_a_wall_clock(ahead: i64, steps: usize) -> (Duration, Duration, Record) {
    let mut bench = Bench::new(3);
    let mut clients = [bench.call("grpc-timeout: 20S\r\n")];
    bench.turn_until_called(&mut clients, 1);
    let mut slow = bench.call("");
    slow.unsent.truncate(30);
    slow.send();
    let mut refused = None;
    for step in 0..TURNS_MAX {
        if step == steps {
            bench.ahead.set(ahead);
        }
        bench.turn(false, None);
        for report in bench.reports.try_iter() {
            let Report::Record(record) = report else {
                continue;
            };
            if record.refusal.is_some() {
                assert_eq!(record.http_status, Some(408));
                refused = Some(bench.machine.now());
            } else {
                let refused = refused.expect("a head has ten seconds");
                return (refused, bench.machine.now(), *record);
            }
        }
    }
    panic!("the call has no end");
}

#[test]
fn d_08_a_wall_clock_that_is_set_moves_no_deadline() {
    let (refused, ended, straight) = under_a_wall_clock(0, 0);
    assert_eq!(straight.reason, Reason::Deadline);
    assert!(refused < ended);
    let day = DAY.as_secs() as i64;
    for ahead in [day, -day, 400 * day, 1, -1] {
        for steps in [0, 1, 2] {
            let (refused_now, ended_now, record) = under_a_wall_clock(ahead, steps);
            assert_eq!(
                (refused_now, ended_now),
                (refused, ended),
                "{ahead} s in turn {steps}"
            );
            assert_eq!(
                record.elapsed, straight.elapsed,
                "what is measured is measured"
            );
            assert_eq!(record.reason, Reason::Deadline);
            // For people it began when their clock said so.
            assert_eq!(record.started, straight.started);
            assert!(record.started < SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        }
    }
}

#[test]
fn d_09_each_of_many_deadlines_is_kept_to_ten_milliseconds() {
    const CALLS: usize = 400;
    let mut bench = Bench::new(4);
    let mut rng = fastrand::Rng::with_seed(9);
    let times: Vec<u64> = (0..CALLS).map(|_| rng.u64(3_000..9_000)).collect();
    let mut clients: Vec<Client> = times
        .iter()
        .map(|time| bench.call(&format!("x-time: {time}\r\ngrpc-timeout: {time}m\r\n")))
        .collect();
    // The server takes a hundred at once; the others wait in the queue, and their time passes there.
    bench.turn_until_called(&mut clients, 100);
    let mut ended = Vec::new();
    for _ in 0..TURNS_MAX {
        bench.turn(false, None);
        while let Some(record) = bench.record() {
            assert_eq!(record.code, Some(Code::DEADLINE_EXCEEDED));
            ended.push(record.elapsed);
        }
        if ended.len() == CALLS {
            break;
        }
    }
    let mut times: Vec<Duration> = times.into_iter().map(Duration::from_millis).collect();
    times.sort_unstable();
    ended.sort_unstable();
    assert_eq!(ended.len(), CALLS);
    for (elapsed, time) in ended.iter().zip(&times) {
        let late = elapsed.checked_sub(*time).expect("never early");
        assert!(late <= Duration::from_millis(10), "{late:?} late");
    }
    for client in &mut clients {
        assert!(client.answer().contains("grpc-status:4\r\n"));
    }
}
