//! One seed's world, turned until everything has ended.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use wharf::core::{Command, Core, Flow, Reached, Report};
use wharf::net::Driver;
use wharf::net::sim::{Dialled, Machine, SimDriver, Weather};
use wharf::policy::snapshot::{Backend, Listener, PathMatch, Route, RouteKind, Target};
use wharf::policy::{BackendId, Endpoint, Limits, Snapshot};

use crate::browser::{Browser, Step};
use crate::caller::Caller;
use crate::model;
use crate::plan::{Deed, Facts, Ledger, Plan, SharedLedger, Size, server};
use crate::server::{Peer, Stage, Temper, welcome};

/// After so many turns a seed is taken never to end. Two uploads of half a megabyte through windows of two bytes take 500,000, and
/// each of them moves something; what moves nothing is found by [`IDLE_TURNS_MAX`].
const TURNS_MAX: u64 = 2_000_000;
/// How many turns in a row may move nothing.
const IDLE_TURNS_MAX: u64 = 1_000;

/// How long connecting may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) turns: u64,
    pub(crate) tally: Tally,
    pub(crate) ledger: SharedLedger,
    pub(crate) browsers: Vec<Browser>,
    /// Those who speak HTTP/2.
    pub(crate) callers: Vec<Caller>,
    core: Core<SimDriver>,
    rng: fastrand::Rng,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    /// Clients that are yet to come.
    coming: Vec<Coming>,
    tempers: BTreeMap<SocketAddr, Temper>,
    peers: Vec<Peer>,
    stage: Stage,
    /// Which link of the core leads where.
    ways: BTreeMap<usize, SocketAddr>,
    /// Links of browsers that the machine has lost.
    pub(crate) lost: BTreeSet<usize>,
    /// How often the core rested while nothing was due.
    pub(crate) rests: u64,
    unfinished: Vec<Dialled>,
    generation: u64,
    pending_max: usize,
    drain_at: Option<(Duration, Duration)>,
    adopts: u8,
    kills: u8,
    clears_up_at: Duration,
    stopped: bool,
    plain: bool,
    /// How often everybody is woken for nothing before every third turn.
    pub(crate) storm: usize,
}

/// A client that is yet to come.
struct Coming {
    at: Duration,
    /// It speaks HTTP/2.
    shared: bool,
    plans: Vec<Plan>,
}

/// What the seeds have come to, so that one sees whether they come to anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seeds: u64,
    pub(crate) turns: u64,
    pub(crate) calls: u64,
    pub(crate) whole: u64,
    pub(crate) cut: u64,
    pub(crate) unanswered: u64,
    /// How often the core was found at rest, and woken for nothing.
    pub(crate) rests: u64,
    /// Seeds in which a write to a backend had to wait, empty frames were taken out, a request was thrown away.
    pub(crate) refused: u64,
    pub(crate) sieved: u64,
    pub(crate) discards: u64,
    /// Calls over HTTP/2, those in native gRPC among them, those that were reset by who made them, and connections that were told
    /// to go.
    pub(crate) shared: u64,
    pub(crate) native: u64,
    pub(crate) reset: u64,
    pub(crate) goaways: u64,
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.turns += other.turns;
        self.calls += other.calls;
        self.whole += other.whole;
        self.cut += other.cut;
        self.unanswered += other.unanswered;
        self.rests += other.rests;
        self.refused += other.refused;
        self.sieved += other.sieved;
        self.discards += other.discards;
        self.shared += other.shared;
        self.native += other.native;
        self.reset += other.reset;
        self.goaways += other.goaways;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }
}

fn snapshot(generation: u64, pending_max: usize, b_moves: bool) -> Arc<Snapshot> {
    let backend = |name: &str, endpoints: &[u8]| Backend {
        name: name.into(),
        target: Target::Endpoints(
            endpoints
                .iter()
                .map(|&n| Endpoint {
                    name: format!("server{n}:50051").as_str().into(),
                    addresses: vec![server(n)],
                })
                .collect(),
        ),
        connect_timeout: CONNECT_TIMEOUT,
        connections_max: 1,
        pending_max,
    };
    let route = |name: char, backend| Route {
        name: name.to_string().as_str().into(),
        path: PathMatch::Prefix(format!("/sim.{name}")),
        kind: RouteKind::Rpc,
        backend: BackendId(backend),
        filters: Box::new([]),
    };
    Arc::new(Snapshot {
        generation,
        listeners: vec![Listener {
            name: "main".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            versions: wharf::policy::Versions::Both,
        }],
        routes: Arc::new([route('A', 0), route('B', 1)]),
        backends: vec![
            backend("a", &[1, 2]),
            backend("b", if b_moves { &[4] } else { &[3] }),
        ],
        limits: Limits::default(),
        unrouted: Arc::new([]),
        live_path: None,
    })
}

impl World {
    pub(crate) fn new(seed: u64, base: Instant, lines: Option<usize>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weather = if rng.u8(..4) == 0 {
            Weather::fair()
        } else {
            Weather::of(&mut rng)
        };
        let machine = Machine::new(rng.u64(..), weather, 1, base);
        machine.keep_lines(lines);
        let mut ledger = Ledger::default();
        ledger.weather.oversleeps = weather.oversleep > 0 || weather.leap > 0;
        let pending_max = if rng.u8(..5) == 0 {
            rng.usize(1..4)
        } else {
            1000
        };
        ledger.weather.pending_max_small = pending_max < 1000;
        // Where bytes move in crumbs, many of them take too many turns.
        let size = match weather {
            _ if weather.crumbs || weather.buffer_bytes_max < 1 << 11 => Size::Small,
            _ if weather.buffer_bytes_max >= 1 << 19 && rng.u8(..6) == 0 => Size::Flood,
            _ => Size::Mixed,
        };
        let mut coming = Vec::new();
        let many = rng.usize(1..=12);
        for _ in 0..many {
            let shared = rng.u8(..5) < 2;
            let plans: Vec<Plan> = (0..rng.usize(0..=if shared { 10 } else { 4 }))
                .map(|_| {
                    let plan = Plan::draw(ledger.calls.len(), size, shared, &mut rng);
                    ledger.calls.push(Facts::new(plan.clone()));
                    plan
                })
                .collect();
            let at = if rng.bool() { 0 } else { rng.u64(..4_000_000) };
            coming.push(Coming {
                at: Duration::from_micros(at),
                shared,
                plans,
            });
        }
        let good = rng.u8(..4) == 0;
        let tempers = (1..=4).map(|n| {
            let mut temper = Temper::draw(&mut rng);
            if good {
                temper.clear_up();
            }
            if size == Size::Flood && rng.bool() {
                // So wide that it is the socket that is too narrow.
                temper.window = Some(1 << 22);
                temper.raw = 0;
            }
            (server(n), temper)
        });
        let tempers = tempers.collect();
        let drain_at = (rng.u8(..4) == 0).then(|| {
            let at = Duration::from_micros(rng.u64(..3_000_000));
            (at, Duration::from_millis(rng.u64(..20_000)))
        });
        let adopts = if rng.u8(..4) == 0 { rng.u8(1..4) } else { 0 };
        let kills = if rng.u8(..4) == 0 { rng.u8(1..4) } else { 0 };
        let clears_up_at = Duration::from_secs(rng.u64(1..10));
        Self {
            drain_at,
            adopts,
            kills,
            clears_up_at,
            ..Self::with(rng, machine, ledger, coming, tempers, pending_max)
        }
    }

    /// Browsers and servers that do what they are to do, each browser on a connection of its own, all at once.
    pub(crate) fn plain(browsers: Vec<Vec<Plan>>, weather: Weather, base: Instant) -> Self {
        Self::plain_of(browsers, false, weather, base)
    }

    /// The same, where `shared` says that they speak HTTP/2.
    pub(crate) fn plain_of(
        browsers: Vec<Vec<Plan>>,
        shared: bool,
        weather: Weather,
        base: Instant,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let machine = Machine::new(1, weather, 1, base);
        let mut ledger = Ledger::default();
        let mut plans: Vec<&Plan> = browsers.iter().flatten().collect();
        plans.sort_by_key(|plan| plan.id);
        ledger.calls = plans.into_iter().cloned().map(Facts::new).collect();
        let coming = browsers.into_iter().map(|plans| Coming {
            at: Duration::ZERO,
            shared,
            plans,
        });
        let coming = coming.collect();
        let tempers = (1..=4).map(|n| {
            let mut temper = Temper::draw(&mut rng);
            temper.clear_up();
            temper.raw = 0;
            temper.streams_max = None;
            temper.window = Some(1 << 20);
            (server(n), temper)
        });
        let tempers = tempers.collect();
        let mut world = Self::with(rng, machine, ledger, coming, tempers, 1000);
        world.plain = true;
        world
    }

    fn with(
        rng: fastrand::Rng,
        machine: Machine,
        ledger: Ledger,
        coming: Vec<Coming>,
        tempers: BTreeMap<SocketAddr, Temper>,
        pending_max: usize,
    ) -> Self {
        let (commands, inbox) = unbounded();
        let (sender, reports) = unbounded();
        let core = Core::new(
            0,
            machine.driver(),
            1,
            snapshot(1, pending_max, false),
            inbox,
            sender,
            Duration::MAX,
        );
        let ledger = Rc::new(RefCell::new(ledger));
        Self {
            turns: 0,
            tally: Tally::default(),
            stage: Stage {
                machine: machine.clone(),
                ledger: Rc::clone(&ledger),
            },
            ways: BTreeMap::new(),
            lost: BTreeSet::new(),
            rests: 0,
            ledger,
            browsers: Vec::new(),
            callers: Vec::new(),
            core,
            commands,
            reports,
            coming,
            tempers,
            peers: Vec::new(),
            unfinished: Vec::new(),
            generation: 1,
            pending_max,
            drain_at: None,
            adopts: 0,
            kills: 0,
            clears_up_at: Duration::MAX,
            plain: false,
            storm: 0,
            stopped: false,
            machine,
            rng,
        }
    }

    /// Turns it to its end, and judges it.
    pub(crate) fn run(&mut self) {
        let (mut seen, mut idle) = (self.machine.moved(), 0);
        while !(self.coming.is_empty() && self.clients_are_done()) {
            self.turn();
            let stuck = self.machine.stuck();
            assert!(stuck < 3, "it hangs: {}", self.unfinished());
            // A window of two bytes makes many turns of a long request, each of which moves something.
            let now = self.machine.moved();
            idle = if now == seen { idle + 1 } else { 0 };
            seen = now;
            assert!(idle < IDLE_TURNS_MAX, "it spins: {}", self.unfinished());
            assert!(
                self.turns < TURNS_MAX,
                "it never ends: {}",
                self.unfinished()
            );
        }
        self.machine.note(format_args!("all clients are done"));
        if !self.stopped {
            self.settle();
        }
        if !self.stopped {
            let _ = self.commands.send(Command::Drain(Duration::from_secs(5)));
            self.ledger.borrow_mut().weather.draining = true;
            self.machine.ring();
        }
        let turns = self.turns;
        while !self.stopped {
            self.turn();
            assert!(self.turns < turns + 10_000, "the drain has no end");
        }
        assert!(self.core.is_empty(), "after the end every slab is empty");
        for peer in &mut self.peers {
            peer.close();
        }
        self.ledger.borrow_mut().weather.leaps = self.machine.leaps();
        model::judge(self);
    }

    fn clients_are_done(&self) -> bool {
        let mut browsers = self.browsers.iter();
        browsers.all(|browser| browser.done) && self.callers.iter().all(|caller| caller.done)
    }

    /// Calls that ended for their callers end for the servers too.
    fn settle(&mut self) {
        self.machine.clear_up();
        let until = self.machine.now() + Duration::from_secs(40);
        let mut turns = 0;
        while self.machine.now() < until
            && self.machine.stuck() == 0
            && turns < 20_000
            && !self.stopped
        {
            self.turn();
            turns += 1;
        }
        if self.stopped {
            return;
        }
        let (clients, calls, _) = self.core.census();
        assert_eq!(
            (clients, calls),
            (0, 0),
            "clients and calls that nobody is at"
        );
        for facts in &self.ledger.borrow().calls {
            assert_eq!(
                facts.open, 0,
                "call {}: its server was not told",
                facts.plan.id
            );
        }
    }

    fn unfinished(&self) -> String {
        let mut text = String::new();
        for browser in self.browsers.iter().filter(|browser| !browser.done) {
            let ids: Vec<usize> = browser.calls.iter().map(|sent| sent.id).collect();
            text += &format!(
                "browser #{} calls {ids:?} answers {} sent {} of all: {}; ",
                browser.link,
                browser.reader.answers.len(),
                browser.sent,
                browser.all_sent(),
            );
        }
        for caller in self.callers.iter().filter(|caller| !caller.done) {
            text += &format!("{caller:?}; ");
        }
        text += &format!("{:?}", self.core);
        for facts in &self.ledger.borrow().calls {
            if facts.records.is_empty() {
                text += &format!("\n  {:?} processed {}", facts.plan, facts.processed);
            }
        }
        text
    }

    pub(crate) fn core(&self) -> &Core<SimDriver> {
        &self.core
    }

    pub(crate) fn turn(&mut self) {
        self.turns += 1;
        let (busy, wake) = self.act();
        self.machine.expect(busy, wake);
        if !busy && !self.stopped && self.core.is_resting() && self.machine.is_quiet() {
            self.rest();
        }
        if self.stopped {
            // Time goes on without the core.
            self.machine.driver().wait(None, &mut Vec::new());
            return;
        }
        // Between storms the clock may jump.
        for _ in 0..if self.turns.is_multiple_of(3) {
            self.storm
        } else {
            0
        } {
            self.core.rouse();
        }
        if self.core.turn() == Flow::Stopped {
            self.stopped = true;
        }
        self.core.check_invariants();
        self.look();
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
    }

    /// Nothing has happened and nothing is due: whoever would do something now, were he woken, has lost his wake-up.
    fn rest(&mut self) {
        self.rests += 1;
        self.core.check_rest(&self.machine.untold());
        self.core.rouse();
        self.machine.freeze();
        let deeds = self.machine.deeds();
        self.core.turn();
        self.core.check_invariants();
        assert_eq!(
            self.machine.deeds(),
            deeds,
            "invariant 1: somebody slept who had something to do"
        );
        while let Ok(report) = self.reports.try_recv() {
            assert!(
                !matches!(report, Report::Record(_)),
                "invariant 1: a call slept over its end: {report:?}"
            );
            self.note(report);
        }
    }

    /// What the machine has lost by itself, and which joints are in use.
    fn look(&mut self) {
        for loss in self.machine.take_losses() {
            let way = loss.link.and_then(|link| self.ways.get(&link).copied());
            if let Some(address) = loss.address {
                self.stage.commit(address, Deed::Refuses);
            } else if let Some(address) = way {
                self.stage.commit(address, Deed::Dies);
            } else if let Some(link) = loss.link {
                self.lost.insert(link);
            }
        }
        let Reached {
            refused,
            sieved,
            discards,
        } = self.core.reached();
        self.tally.refused |= u64::from(refused);
        self.tally.sieved |= u64::from(sieved);
        self.tally.discards |= u64::from(discards);
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Record(record) => {
                let reason = record.refusal.unwrap_or_else(|| record.reason.word());
                self.machine.note(format_args!(
                    "record {} {reason} {:?} code {:?}{} {}",
                    record.path,
                    record.by,
                    record.code.map(|code| code.number()),
                    if record.aborted { " aborted" } else { "" },
                    record.message,
                ));
                *self.tally.reasons.entry(reason).or_default() += 1;
                let id = record
                    .path
                    .rsplit('c')
                    .next()
                    .and_then(|id| id.parse::<usize>().ok());
                let mut ledger = self.ledger.borrow_mut();
                // One that a garbage browser named is not its call.
                if let Some(facts) = id.and_then(|id| ledger.calls.get_mut(id))
                    && record.refusal.is_none()
                {
                    facts.records.push(*record);
                }
            }
            Report::Stopped {
                records_dropped, ..
            } => assert_eq!(records_dropped, 0),
            Report::Failed { .. } => panic!("the core says that it failed"),
            Report::Attempt(_) | Report::Adopted { .. } => {}
        }
    }

    /// Everybody in the world does something, or some do. Whether anything happened, and when it will at the latest.
    fn act(&mut self) -> (bool, Option<Duration>) {
        let now = self.machine.now();
        let everybody = self.rng.bool();
        let mut busy = !everybody;
        let mut wake: Option<Duration> = None;
        let mut sleep = |until: Duration| wake = Some(wake.map_or(until, |wake| wake.min(until)));
        if now >= self.clears_up_at {
            for temper in self.tempers.values_mut() {
                temper.clear_up();
            }
            self.machine.clear_up();
            self.clears_up_at = Duration::MAX;
        }
        if let Some((at, limit)) = self.drain_at {
            if now >= at {
                self.drain_at = None;
                let mut ledger = self.ledger.borrow_mut();
                ledger.weather.draining = true;
                ledger.weather.drained_until = Some(now + limit);
                let stop = self.rng.u8(..4) == 0;
                ledger.weather.drained_hard = stop;
                self.machine
                    .note(format_args!("drain {limit:?}, stop: {stop}"));
                let command = if stop {
                    Command::Stop
                } else {
                    Command::Drain(limit)
                };
                let _ = self.commands.send(command);
                self.machine.ring();
                busy = true;
            } else {
                sleep(at);
            }
        }
        if self.adopts > 0 && self.rng.u8(..64) == 0 {
            self.adopts -= 1;
            self.generation += 1;
            let moved = self.rng.bool();
            self.machine.note(format_args!("adopt, b moves: {moved}"));
            let snapshot = snapshot(self.generation, self.pending_max, moved);
            let _ = self.commands.send(Command::Adopt(snapshot));
            self.machine.ring();
            busy = true;
        }
        let mut index = 0;
        while index < self.coming.len() {
            if self.coming[index].at > now {
                sleep(self.coming[index].at);
                index += 1;
                continue;
            }
            let Coming { shared, plans, .. } = self.coming.remove(index);
            let (machine, rng) = (&self.machine, &mut self.rng);
            match shared {
                true => {
                    let caller = Caller::new(machine, rng, &plans, self.plain);
                    self.callers.extend(caller);
                }
                false => {
                    let browser = Browser::new(machine, rng, &plans, self.plain);
                    self.browsers.extend(browser);
                }
            }
            busy = true;
        }
        for browser in &mut self.browsers {
            if !everybody && self.rng.bool() {
                continue;
            }
            match browser.step(now, &mut self.rng) {
                Ok(Step::Progress) => busy = true,
                Ok(Step::Idle | Step::Waits) => {}
                Ok(Step::Sleeps(until)) => sleep(until),
                Err(why) => panic!("browser #{} reads no HTTP: {why}", browser.link),
            }
        }
        for caller in &mut self.callers {
            if !everybody && self.rng.bool() {
                continue;
            }
            match caller.step(now, &mut self.rng) {
                Step::Progress => busy = true,
                Step::Idle | Step::Waits => {}
                Step::Sleeps(until) => sleep(until),
            }
        }
        while let Some((address, dialled)) = self.machine.dialled() {
            busy = true;
            let temper = &self.tempers[&address];
            self.ways.insert(dialled.id(), address);
            let peer = welcome(
                dialled,
                address,
                temper,
                &mut self.rng,
                &self.stage,
                &mut self.unfinished,
            );
            self.peers.extend(peer);
        }
        for peer in &mut self.peers {
            if !everybody && self.rng.bool() {
                continue;
            }
            let (acted, until) = peer.step(&mut self.rng);
            busy |= acted;
            if let Some(until) = until {
                sleep(until);
            }
        }
        if self.kills > 0
            && self.rng.u8(..) == 0
            && let Some(peer) = self.peers.iter_mut().find(|peer| !peer.is_gone())
        {
            self.kills -= 1;
            peer.kill(&mut self.rng);
            busy = true;
        }
        self.peers.retain(|peer| !peer.is_gone());
        (busy, wake)
    }
}
