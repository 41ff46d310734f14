//! A real core on real loopback sockets, with one route to the backends of the test.
//!
//! [`World`] runs the core on a thread of its own; [`Stepped`] leaves each turn to the test, which proves what happens within
//! one. Either way the numbered invariants are checked after every turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Done, Sender as To, channel};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::net::TcpStream;
use wharf::core::{Command, Core, Doors, Flow, Report};
use wharf::net::Driver;
use wharf::net::mio::{MioDriver, listen};
use wharf::policy::{
    Backend, BackendId, Endpoint, Limits, Listener, PathMatch, Route, RouteKind, Snapshot, Target,
};
use wharf::telemetry::Record;
use wharf::upstream::pool::RESET_STREAM_DURATION;

use crate::backend::Backend as Scripted;

/// How long a test waits for what must come. Only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test may want otherwise.
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections_max: usize,
    pub(crate) pending_max: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connect_timeout: PATIENCE,
            connections_max: 1,
            pending_max: 1024,
        }
    }
}

impl Plan {
    /// The rules that a core obeys, for those who want them otherwise still.
    pub(crate) fn snapshot(self, backends: &[&Scripted]) -> Snapshot {
        let endpoints = backends
            .iter()
            .map(|backend| Endpoint {
                name: backend.address.to_string().into(),
                addresses: vec![backend.address],
            })
            .collect();
        Snapshot {
            generation: 1,
            listeners: vec![Listener {
                name: "web".into(),
                address: SocketAddr::from(([127, 0, 0, 1], 0)),
                versions: wharf::policy::Versions::Both,
            }],
            routes: Arc::new([Route {
                name: "all".into(),
                path: PathMatch::Prefix("/".to_owned()),
                kind: RouteKind::Rpc,
                backend: BackendId(0),
                filters: Box::new([]),
            }]),
            backends: vec![Backend {
                name: "greeter".into(),
                target: Target::Endpoints(endpoints),
                connect_timeout: self.connect_timeout,
                connections_max: self.connections_max,
                pending_max: self.pending_max,
            }],
            limits: self.limits,
            unrouted: Arc::new([]),
            live_path: Some("/healthz".to_owned()),
        }
    }
}

/// A core whose turns the test makes.
pub(crate) struct Stepped<D: Driver = MioDriver> {
    pub(crate) core: Core<D>,
    pub(crate) address: SocketAddr,
    /// Of all listeners, in their order.
    addresses: Vec<SocketAddr>,
    waker: Arc<mio::Waker>,
    commands: Sender<Command>,
    reports: Receiver<Report>,
}

impl Stepped {
    pub(crate) fn new(plan: Plan, backends: &[&Scripted]) -> Self {
        Self::obeying(plan.snapshot(backends), 0)
    }

    /// On that port, which others may share; 0: on a free one.
    pub(crate) fn obeying(snapshot: Snapshot, port: u16) -> Self {
        Self::driven(snapshot, port, None, |driver| driver)
    }
}

impl Stepped {
    /// So many cores that share their clients. Each listens on a port of its own, so that the test decides to which of them
    /// a client comes.
    pub(crate) fn sharing<const CORES: usize>(plan: impl Fn() -> Plan) -> [Self; CORES] {
        let mut bells = Vec::new();
        let cores = [(); CORES].map(|()| {
            Self::driven(plan().snapshot(&[]), 0, None, |driver| {
                bells.push(driver.bell());
                driver
            })
        });
        let mut doors = Doors::new(bells).into_iter();
        cores.map(|own| Self {
            core: own.core.sharing(doors.next().expect("a door for each")),
            ..own
        })
    }
}

impl<D: Driver> Stepped<D> {
    /// On what `wrap` makes of the machine, telling what happens on that channel.
    pub(crate) fn driven(
        snapshot: Snapshot,
        port: u16,
        reports: Option<(Sender<Report>, Receiver<Report>)>,
        wrap: impl FnOnce(MioDriver) -> D,
    ) -> Self {
        let bind = |port| listen(SocketAddr::from(([127, 0, 0, 1], port))).expect("a port");
        let mut sockets = vec![bind(port)];
        sockets.extend(snapshot.listeners.iter().skip(1).map(|_| bind(0)));
        let addresses = sockets.iter().map(|socket| socket.local_addr());
        let addresses: Vec<_> = addresses
            .map(|address| address.expect("it is bound"))
            .collect();
        let listeners = sockets.len();
        let driver = MioDriver::new(sockets).expect("an event loop");
        let waker = driver.waker();
        let (commands, inbox) = unbounded();
        let (reporter, reports) = reports.unwrap_or_else(unbounded);
        let span = RESET_STREAM_DURATION;
        let driver = wrap(driver);
        let core = Core::new(
            0,
            driver,
            listeners,
            Arc::new(snapshot),
            inbox,
            reporter,
            span,
        );
        Self {
            core,
            address: addresses[0],
            addresses,
            waker,
            commands,
            reports,
        }
    }

    /// One pass of the loop; it never waits.
    pub(crate) fn turn(&mut self) {
        assert_eq!(self.turn_or_end(), Flow::Running);
    }

    /// The same where it may be the last.
    pub(crate) fn turn_or_end(&mut self) -> Flow {
        self.wake();
        let flow = self.core.turn();
        self.core.check_invariants();
        flow
    }

    /// A ring that nobody answers: the wait for events ends at once.
    pub(crate) fn wake(&self) {
        self.waker.wake().expect("the core lives");
    }

    /// Asks something of it, to be obeyed in the next turn.
    pub(crate) fn command(&self, command: Command) {
        self.commands.send(command).expect("the core lives");
        self.wake();
    }

    /// What it has told and nobody has heard yet.
    pub(crate) fn reports(&self) -> impl Iterator<Item = Report> {
        self.reports.try_iter()
    }

    /// How many turns the core makes of its own accord in that time. One is a ring that ends the last wait.
    pub(crate) fn turns_within(&mut self, time: Duration) -> usize {
        let (waker, until) = (Arc::clone(&self.waker), Instant::now() + time);
        let ringer = thread::spawn(move || {
            thread::sleep(time);
            waker.wake().expect("the core lives");
        });
        let mut turns = 0;
        while Instant::now() < until {
            assert_eq!(self.core.turn(), Flow::Running);
            self.core.check_invariants();
            turns += 1;
        }
        ringer.join().expect("it only rings");
        turns
    }

    /// Has the core stop at once.
    pub(crate) fn stop(&mut self) {
        self.command(Command::Stop);
        while self.core.turn() == Flow::Running {}
        self.core.check_invariants();
    }

    /// Turns until a call has finished.
    pub(crate) fn turn_until_record(&mut self) -> Record {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(record) = self.record() {
                return record;
            }
            assert!(Instant::now() < until, "no call ended");
            self.turn();
        }
    }

    /// The next finished call, if there is one already.
    pub(crate) fn record(&self) -> Option<Record> {
        self.reports.try_iter().find_map(record_of)
    }
}

/// A core on its own thread.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    /// Of all listeners, in their order.
    pub(crate) addresses: Vec<SocketAddr>,
    waker: Arc<mio::Waker>,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    done: Done<()>,
}

impl World {
    pub(crate) fn new(backends: &[&Scripted]) -> Self {
        Self::with(Plan::default(), backends)
    }

    pub(crate) fn with(plan: Plan, backends: &[&Scripted]) -> Self {
        Self::obeying(plan.snapshot(backends))
    }

    pub(crate) fn obeying(snapshot: Snapshot) -> Self {
        let (world, _, doors) = Self::begin(snapshot);
        doors.send(None).expect("the core waits for it");
        world
    }

    /// So many cores that share their clients, each on a port of its own.
    pub(crate) fn sharing<const CORES: usize>(plan: impl Fn() -> Plan) -> [Self; CORES] {
        Self::sharing_under(|| plan().snapshot(&[]))
    }

    /// The same where they obey such snapshots.
    pub(crate) fn sharing_under<const CORES: usize>(rules: impl Fn() -> Snapshot) -> [Self; CORES] {
        let (mut bells, mut waiting) = (Vec::new(), Vec::new());
        let worlds = [(); CORES].map(|()| {
            let (world, bell, doors) = Self::begin(rules());
            bells.push(bell);
            waiting.push(doors);
            world
        });
        for (core, doors) in waiting.iter().zip(Doors::new(bells)) {
            core.send(Some(doors)).expect("the core waits for it");
        }
        worlds
    }

    /// A core that waits for its doors, or to be told that it is alone; and its bell.
    fn begin(snapshot: Snapshot) -> (Self, Waker, To<Option<Doors<TcpStream>>>) {
        let (say, done) = channel();
        let (hand_over, handed_over) = channel();
        let (doors, shared) = channel();
        // The slabs are not `Send`: the core is made where it lives.
        thread::spawn(move || {
            let mut bell = Waker::noop().clone();
            let stepped = Stepped::driven(snapshot, 0, None, |driver| {
                bell = driver.bell();
                driver
            });
            let Stepped {
                mut core,
                addresses,
                waker,
                commands,
                reports,
                ..
            } = stepped;
            let reins = (addresses, waker, commands, reports, bell);
            hand_over.send(reins).expect("the test waits");
            if let Some(doors) = shared.recv().expect("the test says") {
                core = core.sharing(doors);
            }
            while core.turn() == Flow::Running {
                core.check_invariants();
            }
            core.check_invariants();
            let _ = say.send(());
        });
        let (addresses, waker, commands, reports, bell) = handed_over.recv().expect("a core");
        let world = Self {
            address: addresses[0],
            addresses,
            waker,
            commands,
            reports,
            done,
        };
        (world, bell, doors)
    }

    /// The next finished call.
    pub(crate) fn record(&self) -> Record {
        let until = Instant::now() + PATIENCE;
        loop {
            let report = self.reports.recv_deadline(until).expect("a record");
            if let Some(record) = record_of(report) {
                return record;
            }
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.commands.send(command).expect("the core lives");
        self.waker.wake().expect("the core lives");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        let _ = self.waker.wake();
        let stopped = self.done.recv_timeout(PATIENCE);
        if !thread::panicking() {
            stopped.expect("the core stops, with every slab empty");
        }
    }
}

fn record_of(report: Report) -> Option<Record> {
    match report {
        Report::Record(record) => Some(*record),
        _ => None,
    }
}
