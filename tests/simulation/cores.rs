//! Several cores of one port, row R-20: the kernel sends most clients to one of them, some cores drain or stop on the way, and
//! some clients are lost to a panic at the door. Whoever asked is answered, or has lost his connection to somebody who may.
//!
//! `WHARF_CORES=N` plays so many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use wharf::core::{Command, Core, Doors, Flow, Report};
use wharf::net::Driver;
use wharf::net::sim::{Arrival, End, Machine, SimDriver, Weather};
use wharf::policy::snapshot::Listener;
use wharf::policy::{Limits, Snapshot};
use wharf::tripwire::{Place, arm, disarm};

use crate::number;

const SEEDS: u64 = 400;
const TURNS_MAX: usize = 20_000;
const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
const DRAIN_TIME: Duration = Duration::from_secs(5);

struct Worker {
    core: Core<SimDriver>,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    /// It has been told to end.
    told: bool,
    stopped: bool,
}

struct Client {
    end: End,
    unsent: Vec<u8>,
    got: Vec<u8>,
    /// How many requests it has made.
    asked: usize,
    gone: bool,
}

struct Town {
    machine: Machine,
    workers: Vec<Worker>,
    clients: Vec<Client>,
}

fn rules(connections_max: usize) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: 1,
        listeners: vec![Listener {
            name: "main".into(),
            address: ([127, 0, 0, 1], 8080).into(),
            versions: wharf::policy::Versions::Both,
        }],
        routes: Arc::new([]),
        unrouted: Arc::new([]),
        backends: Vec::new(),
        limits: Limits {
            connections_max,
            ..Limits::default()
        },
        live_path: Some("/healthz".to_owned()),
    })
}

impl Town {
    fn new(cores: usize, seed: u64, weather: Weather, connections_max: usize) -> Self {
        let machine = Machine::with_cores(cores, seed, weather, 1, Instant::now());
        let doors = Doors::new((0..cores).map(|core| machine.bell(core)));
        let worker = |(id, doors): (usize, _)| {
            let (commands, inbox) = unbounded();
            let (reporter, reports) = unbounded();
            let (driver, span) = (machine.driver_of(id), Duration::MAX);
            let rules = rules(connections_max);
            let core = Core::new(id, driver, 1, rules, inbox, reporter, span).sharing(doors);
            Worker {
                core,
                commands,
                reports,
                told: false,
                stopped: false,
            }
        };
        let workers = doors.into_iter().enumerate().map(worker).collect();
        Self {
            machine,
            workers,
            clients: Vec::new(),
        }
    }

    /// A client that asks at once.
    fn dial_in(&mut self, core: usize) {
        let Some(end) = self.machine.dial_in(core) else {
            return;
        };
        let mut client = Client {
            end,
            unsent: Vec::new(),
            got: Vec::new(),
            asked: 0,
            gone: false,
        };
        client.ask();
        self.clients.push(client);
    }

    fn turn(&mut self, wake: Option<Duration>) {
        let mut busy = false;
        for client in &mut self.clients {
            busy |= client.step();
        }
        for core in 0..self.workers.len() {
            self.machine.expect(busy, wake);
            let worker = &mut self.workers[core];
            if worker.stopped {
                // The clock does not wait for it.
                self.machine.driver_of(core).wait(None, &mut Vec::new());
                continue;
            }
            worker.stopped = worker.core.turn() == Flow::Stopped;
            worker.core.check_invariants();
            for report in worker.reports.try_iter() {
                assert!(!matches!(report, Report::Failed { .. }), "core {core}");
            }
            // Nobody else runs, so what others think is exact.
            let (clients, waiting) = worker.core.shared().expect("it shares");
            let (own, _, _) = worker.core.census();
            assert_eq!(clients, own + waiting, "core {core} of {own} clients");
            assert!(!worker.stopped || clients == 0, "core {core} has ended");
        }
    }

    /// Turns until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let until = self.machine.now() + Duration::from_millis(5);
            self.turn(Some(until));
            let ends = |own: &Worker| own.stopped || own.core.is_resting();
            if self.machine.now() >= until
                && self.machine.is_quiet()
                && self.workers.iter().all(ends)
            {
                return;
            }
        }
        panic!("they never rest");
    }

    fn command(&mut self, core: usize, command: Command) {
        let worker = &mut self.workers[core];
        worker.told = true;
        let _ = worker.commands.send(command);
        self.machine.bell(core).wake();
    }

    /// How many clients each core has.
    fn shares(&self) -> Vec<usize> {
        let workers = self.workers.iter();
        workers.map(|own| own.core.census().0).collect()
    }

    /// Has all of them drain, to their end.
    fn drain(&mut self) {
        for core in 0..self.workers.len() {
            self.command(core, Command::Drain(DRAIN_TIME));
        }
        for _ in 0..TURNS_MAX {
            if self.workers.iter().all(|own| own.stopped) {
                break;
            }
            self.turn(None);
        }
        for (core, worker) in self.workers.iter().enumerate() {
            assert!(worker.stopped, "core {core} never ends: {:?}", worker.core);
            assert!(worker.core.is_empty(), "core {core}: {:?}", worker.core);
        }
        for client in &mut self.clients {
            while client.step() {}
            assert!(client.gone, "{client:?} waits for ever");
        }
    }
}

impl Client {
    fn ask(&mut self) {
        self.asked += 1;
        self.unsent.extend(LIVE);
        self.step();
    }

    /// Whether anything has moved.
    fn step(&mut self) -> bool {
        if self.gone {
            return false;
        }
        let mut moved = false;
        if !self.unsent.is_empty() {
            match self.end.write(&self.unsent) {
                Ok(n) => {
                    self.unsent.drain(..n);
                    moved = n > 0;
                }
                Err(_) => self.unsent.clear(),
            }
        }
        match self.end.read(&mut self.got, usize::MAX) {
            Arrival::Bytes(_) => true,
            Arrival::Nothing => moved,
            Arrival::End | Arrival::Reset => {
                self.gone = true;
                true
            }
        }
    }

    fn answers(&self) -> usize {
        let text = String::from_utf8_lossy(&self.got);
        text.matches("\r\n\r\nok\n").count()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}: {} of {} answers",
            self.end,
            self.answers(),
            self.asked
        )
    }
}

#[test]
fn r_20_wherever_few_clients_come_each_core_has_as_many() {
    for (cores, clients) in [(2, 8), (3, 9), (4, 8), (4, 28), (8, 8), (8, 48)] {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut town = Town::new(cores, seed, Weather::fair(), 1_000);
            let mut left = clients;
            while left > 0 {
                for _ in 0..rng.usize(1..=left) {
                    // All to the first, or to some.
                    let core = rng.usize(..1 + seed as usize % cores);
                    town.dial_in(core);
                    left -= 1;
                }
                town.settle();
            }
            assert_eq!(town.shares(), vec![clients / cores; cores], "seed {seed}");
            for client in &town.clients {
                assert_eq!(client.answers(), 1, "seed {seed}: {client:?}");
            }
            town.drain();
        }
    }
}

/// Some cores of one port, from the first client to the end of the last core.
fn play(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let cores = rng.usize(2..=4);
    // In half of the seeds nothing but the drain may cost anybody an answer.
    let fair = rng.bool();
    let weather = match fair {
        true => Weather {
            buffer_bytes_min: 1 << 10,
            ..Weather::fair()
        },
        false => Weather::of(&mut rng),
    };
    let connections_max = if rng.u8(..4) == 0 { 6 } else { 1_000 };
    let mut town = Town::new(cores, seed, weather, connections_max);
    let panics = !fair && rng.bool();
    for _ in 0..rng.usize(10..120) {
        for _ in 0..rng.usize(..3) {
            let core = match rng.u8(..4) {
                0 => rng.usize(..cores),
                _ => 0,
            };
            town.dial_in(core);
        }
        if panics && rng.u8(..16) == 0 {
            arm(Place::Accept, rng.u64(1..4));
        }
        if rng.u8(..40) == 0 {
            let core = rng.usize(..cores);
            let command = match fair || rng.bool() {
                true => Command::Drain(DRAIN_TIME),
                false => Command::Stop,
            };
            town.command(core, command);
        }
        if !town.clients.is_empty() && rng.u8(..3) == 0 {
            let which = rng.usize(..town.clients.len());
            let client = &mut town.clients[which];
            match rng.u8(..4) {
                // Who leaves before an answer has none.
                0 if client.answers() == client.asked => {
                    town.clients.swap_remove(which);
                }
                1..3 if client.answers() == client.asked && !client.gone => client.ask(),
                _ => {}
            }
        }
        match rng.u8(..8) {
            0 => town.settle(),
            _ => town.turn(None),
        }
    }
    disarm();
    town.machine.clear_up();
    // A listener that could not accept rests for a tenth of a second.
    let until = town.machine.now() + Duration::from_secs(1);
    while town.machine.now() < until {
        town.turn(Some(until));
    }
    town.settle();
    for client in &town.clients {
        let answered = client.answers() == client.asked;
        // Nobody waits for ever, wherever he stood.
        assert!(answered || client.gone, "{client:?}");
        let first = client.answers() > 0;
        // Whoever asked as he came is answered, unless there was room for nobody.
        let room = connections_max == 1_000;
        assert!(first || !fair || !room, "{client:?} was lost");
    }
    town.drain();
}

#[test]
fn r_20_no_client_is_lost_between_cores_that_come_to_their_ends() {
    let seeds = number("WHARF_CORES").unwrap_or(SEEDS);
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or_default();
        if !what.starts_with("the wire at ") {
            eprintln!("{info}");
        }
    }));
    for seed in 1..=seeds {
        let result = catch_unwind(AssertUnwindSafe(|| play(seed)));
        disarm();
        assert!(result.is_ok(), "seed {seed}");
    }
}
