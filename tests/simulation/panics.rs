//! Row R-21: a panic at any step of any call ends one key and nothing else.
//!
//! One scene of clients that share a connection to one server is played once for each time that it comes by each place of
//! `wharf::tripwire`, and there it panics. Everybody else must not notice, and afterwards the house must be in order.
//! `WHARF_PANICS=N` plays at most so many of them for each place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use wharf::core::{Command, Core, Flow, Report};
use wharf::net::Driver;
use wharf::net::sim::{Arrival, End, Machine, SimDriver, Weather};
use wharf::policy::snapshot::{Backend, Listener, PathMatch, Route, RouteKind, Target};
use wharf::policy::{BackendId, Endpoint, Limits, Snapshot};
use wharf::telemetry::Record;
use wharf::tripwire::{PLACES, Place, arm, disarm};
use wharf::wire::Reason;

use crate::answer::{Content, Reader};
use crate::browser::Step;
use crate::caller::{Call, Caller, Ended};
use crate::model::status_of;
use crate::number;
use crate::plan::{Facts, Form, Ledger, Plan, Play, SharedLedger};
use crate::server::{Peer, Stage, Temper, welcome};

/// How many times each place is made to panic at most, unless more are asked for; then they are spread over all its times.
const TIMES: u64 = 40;
/// After so many turns a scene is taken never to end.
const TURNS_MAX: u64 = 20_000;

struct Scene {
    machine: Machine,
    core: Core<SimDriver>,
    commands: Sender<Command>,
    reports: Receiver<Report>,
    rules: Arc<Snapshot>,
    clients: Vec<Client>,
    /// Those who speak HTTP/2, with all their calls at once.
    callers: Vec<Caller>,
    peers: Vec<Peer>,
    ledger: SharedLedger,
    records: Vec<Record>,
    rng: fastrand::Rng,
    turns: u64,
    wake: Option<Duration>,
    stopped: bool,
}

/// A client that makes its calls one after the other on one connection, and reads what comes.
struct Client {
    end: Option<End>,
    calls: Vec<usize>,
    begun: usize,
    out: Vec<u8>,
    reader: Reader,
}

/// The calls of each client, and of each that speaks HTTP/2. One more is made when all is over.
fn plans() -> (Vec<Vec<Plan>>, Vec<Vec<Plan>>) {
    let mut id = 0;
    let mut call = |play: Play, requests: &[usize], timeout: Option<u64>, form: Form| {
        id += 1;
        Plan {
            id: id - 1,
            backend: 'A',
            requests: requests.to_vec(),
            play,
            timeout: timeout.map(Duration::from_millis),
            form,
            broken: None,
        }
    };
    let stream = |sizes: &[usize], code| Play::Stream {
        sizes: sizes.to_vec(),
        code,
        early: false,
    };
    let mut all = Vec::new();
    for n in 0..4 {
        let form = if n % 2 == 1 { Form::Text } else { Form::Web };
        all.push(vec![
            call(Play::Echo { code: 0 }, &[5, 0, 40], None, form),
            call(stream(&[7, 300], 5), &[9], Some(60_000), form),
        ]);
        all.push(vec![call(stream(&[100, 2_000, 3], 0), &[50], None, form)]);
        all.push(vec![call(Play::TrailersOnly { code: 7 }, &[1], None, form)]);
        let reset = Play::Reset {
            sizes: Some(vec![10]),
            h2: 2,
        };
        all.push(vec![call(reset, &[3], None, form)]);
        let silent = Play::Silent { sizes: vec![11] };
        all.push(vec![call(silent, &[2], Some(30), form)]);
    }
    all.push(vec![call(
        Play::Refuse { times: 1 },
        &[4, 4],
        None,
        Form::Web,
    )]);
    let mut shared = Vec::new();
    for forms in [[Form::Native; 2], [Form::Web, Form::Text]] {
        let mut own = Vec::new();
        for form in forms {
            let reset = Play::Reset {
                sizes: Some(vec![10]),
                h2: 2,
            };
            own.push(call(Play::Echo { code: 0 }, &[5, 0, 40], None, form));
            own.push(call(stream(&[7, 300, 2_000], 5), &[9], Some(60_000), form));
            own.push(call(Play::TrailersOnly { code: 7 }, &[1], None, form));
            own.push(call(reset, &[3], None, form));
            own.push(call(Play::Silent { sizes: vec![11] }, &[2], Some(30), form));
        }
        shared.push(own);
    }
    all.push(vec![call(Play::Echo { code: 0 }, &[8], None, Form::Web)]);
    (all, shared)
}

fn rules() -> Arc<Snapshot> {
    Arc::new(Snapshot {
        unrouted: Arc::new([]),
        generation: 1,
        listeners: vec![Listener {
            name: "main".into(),
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            versions: wharf::policy::Versions::Both,
        }],
        routes: Arc::new([Route {
            name: "all".into(),
            path: PathMatch::Prefix("/".into()),
            kind: RouteKind::Rpc,
            backend: BackendId(0),
            filters: Box::new([]),
        }]),
        backends: vec![Backend {
            name: "a".into(),
            target: Target::Endpoints(vec![Endpoint {
                name: "server:50051".into(),
                addresses: vec![SocketAddr::from(([10, 0, 0, 1], 50_051))],
            }]),
            connect_timeout: Duration::from_secs(5),
            connections_max: 1,
            pending_max: 1000,
        }],
        limits: Limits::default(),
        live_path: None,
    })
}

impl Scene {
    fn new(base: Instant) -> Self {
        let weather = Weather {
            torn: 40,
            ..Weather::fair()
        };
        let machine = Machine::new(7, weather, 1, base);
        let mut ledger = Ledger::default();
        let (plans, shared) = plans();
        let mut all: Vec<&Plan> = plans.iter().chain(&shared).flatten().collect();
        all.sort_by_key(|plan| plan.id);
        ledger.calls = all.into_iter().cloned().map(Facts::new).collect();
        let (commands, inbox) = unbounded();
        let (sender, reports) = unbounded();
        let rules = rules();
        let driver = machine.driver();
        let span = Duration::MAX;
        let core = Core::new(0, driver, 1, Arc::clone(&rules), inbox, sender, span);
        let mut scene = Self {
            core,
            commands,
            reports,
            rules,
            clients: Vec::new(),
            callers: Vec::new(),
            peers: Vec::new(),
            ledger: Rc::new(RefCell::new(ledger)),
            records: Vec::new(),
            rng: fastrand::Rng::with_seed(7),
            turns: 0,
            wake: None,
            stopped: false,
            machine,
        };
        // The last one comes when the others have gone.
        for calls in &plans[..plans.len() - 1] {
            scene.call(calls.iter().map(|plan| plan.id).collect());
        }
        for calls in &shared {
            let caller = Caller::new(&scene.machine, &mut scene.rng, calls, true);
            scene.callers.extend(caller);
        }
        scene
    }

    fn call(&mut self, calls: Vec<usize>) {
        self.clients.push(Client {
            end: self.machine.dial_in(0),
            calls,
            begun: 0,
            out: Vec::new(),
            reader: Reader::default(),
        });
    }

    fn request(plan: &Plan) -> Vec<u8> {
        let mut body = plan.request_bytes();
        let mut fields = String::new();
        if plan.form == Form::Text {
            use base64::Engine;
            body = base64::engine::general_purpose::STANDARD
                .encode(&body)
                .into_bytes();
            fields += "accept: application/grpc-web-text\r\n";
        }
        if let Some(timeout) = plan.timeout {
            fields += &format!("grpc-timeout: {}m\r\n", timeout.as_millis());
        }
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: sim.test\r\ncontent-type: {}\r\nx-call: {}\r\n\
             {fields}content-length: {}\r\n\r\n",
            plan.path(),
            plan.form.content_type(),
            plan.id,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    /// One turn of everybody.
    fn turn(&mut self) {
        self.turns += 1;
        let mut busy = false;
        for client in &mut self.clients {
            busy |= client.step(&self.ledger);
        }
        for caller in &mut self.callers {
            // It sleeps for nothing: what it does not do is not done.
            busy |= caller.step(self.machine.now(), &mut self.rng) == Step::Progress;
        }
        let calm = Temper {
            refuses: 0,
            never_connects: 0,
            says_nothing: 0,
            foreign: 0,
            dies: 0,
            goes_away: 0,
            raw: 0,
            harmless: true,
            streams_max: Some(100),
            window: Some(1 << 20),
        };
        let stage = Stage {
            machine: self.machine.clone(),
            ledger: Rc::clone(&self.ledger),
        };
        while let Some((address, dialled)) = self.machine.dialled() {
            busy = true;
            let mut unfinished = Vec::new();
            let peer = welcome(
                dialled,
                address,
                &calm,
                &mut self.rng,
                &stage,
                &mut unfinished,
            );
            self.peers.extend(peer);
        }
        for peer in &mut self.peers {
            busy |= peer.step(&mut self.rng).0;
        }
        self.peers.retain(|peer| !peer.is_gone());
        self.machine.expect(busy, self.wake);
        if self.stopped {
            self.machine.driver().wait(None, &mut Vec::new());
            return;
        }
        self.stopped = self.core.turn() == Flow::Stopped;
        self.core.check_invariants();
        while let Ok(report) = self.reports.try_recv() {
            match report {
                Report::Record(record) => self.records.push(*record),
                Report::Failed { .. } => panic!("the core says that it failed"),
                Report::Stopped { .. } | Report::Attempt(_) | Report::Adopted { .. } => {}
            }
        }
    }

    fn turn_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let until = self.turns + TURNS_MAX;
        while !done(self) {
            assert!(self.machine.stuck() < 3, "it hangs: {what}: {self:?}");
            assert!(self.turns < until, "it never ends: {what}: {self:?}");
            self.turn();
        }
    }

    fn command(&self, command: Command) {
        self.commands.send(command).expect("the core lives");
        self.machine.ring();
    }

    /// Plays it to its end.
    fn play(&mut self) {
        self.turn_until("the first head", |scene| scene.turns > 3);
        let rules = Arc::clone(&self.rules);
        self.command(Command::Adopt(rules));
        self.turn_until("every call", |scene| {
            let mut clients = scene.clients.iter();
            clients.all(|client| client.end.is_none())
                && scene.callers.iter().all(|caller| caller.done)
        });
        self.turn_until("calls without a client", |scene| {
            let (clients, calls, _) = scene.core.census();
            (clients, calls) == (0, 0)
        });
        // A core that has lost a key serves on.
        let last = self.ledger.borrow().calls.len() - 1;
        let panicked = self.core.panics() > 0;
        // A backend that has failed is left alone for a while.
        let rested = self.machine.now() + Duration::from_secs(2);
        self.wake = Some(rested);
        self.turn_until("a pause", |scene| scene.machine.now() >= rested);
        self.wake = None;
        self.call(vec![last]);
        self.turn_until("the last call", |scene| {
            scene.clients.iter().all(|client| client.end.is_none())
        });
        if panicked {
            let client = self.clients.last().expect("it was made");
            assert_eq!(client.code(0, false), Some(0), "a core serves on");
        }
        self.turn_until("a server that was not told", |scene| {
            let ledger = scene.ledger.borrow();
            ledger.calls.iter().all(|facts| facts.open == 0)
        });
        self.command(Command::Drain(Duration::from_secs(5)));
        self.turn_until("the drain", |scene| scene.stopped);
        assert!(self.core.is_empty(), "after the drain every slab is empty");
        for peer in &mut self.peers {
            peer.close();
        }
    }

    /// Whose end each call had, and what it may have had.
    fn judge(&self, place: Option<Place>) {
        let ledger = self.ledger.borrow();
        let panicked = place.is_some();
        assert!(self.core.panics() <= u64::from(panicked), "one panic");
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.records {
            *reasons.entry(record.reason.word()).or_default() += 1;
        }
        let count = |word| reasons.get(word).copied().unwrap_or(0);
        let has_panicked = |id: usize| {
            let path = ledger.calls[id].plan.path();
            let mut records = self.records.iter();
            records.any(|record| record.path == path && record.reason == Reason::Panic)
        };
        // One key: a call, or a connection with all the calls on it.
        let clients = self.clients.iter().map(|own| own.calls.clone());
        let callers = self.callers.iter();
        let callers = callers.map(|own| own.calls.iter().filter_map(|call| call.id).collect());
        let struck = clients.chain(callers);
        let struck = struck.filter(|calls| calls.iter().any(|&id| has_panicked(id)));
        assert!(struck.count() <= usize::from(panicked), "{reasons:?}");
        let nameless = self.records.iter();
        let nameless = nameless.filter(|own| own.reason == Reason::Panic && own.path.is_empty());
        assert!(nameless.count() <= usize::from(panicked), "{reasons:?}");
        if panicked && place == Some(Place::Lend) {
            // A request that is lost on its way in costs nobody else's.
            assert!(count("panic") <= 1, "{reasons:?}");
        }
        // Where a connection to the backend was lost, its calls were.
        let lost = count("backend_lost") + count("backend_closed");
        let shared = matches!(
            place,
            Some(
                Place::Upstream
                    | Place::Read
                    | Place::HasRead
                    | Place::Write
                    | Place::Written
                    | Place::Wake
                    | Place::Connect
                    | Place::Expire
            )
        );
        assert!(
            lost == 0 || shared,
            "{place:?} loses no others: {reasons:?}"
        );
        let mut unknown = Vec::new();
        let mut unexplained = Vec::new();
        for client in &self.clients {
            // The connection may have ended with a call that says why.
            let mut explained = false;
            for (index, &id) in client.calls.iter().enumerate() {
                let facts = &ledger.calls[id];
                let plan = &facts.plan;
                assert!(facts.processed <= 1, "call {id} was processed twice");
                let path = plan.path();
                let own = |record: &&Record| record.path == path;
                let records: Vec<&Record> = self.records.iter().filter(own).collect();
                assert!(records.len() <= 1, "call {id} has two records");
                let Some(record) = records.first() else {
                    if !explained {
                        unknown.push(id);
                    }
                    assert!(facts.processed == 0, "call {id} has no record");
                    assert_eq!(client.code(index, plan.form == Form::Text), None);
                    continue;
                };
                let told = client.code(index, plan.form == Form::Text);
                let code = record.code.map(|code| code.number());
                if let Some(told) = told {
                    assert_eq!(Some(u32::from(told)), code, "call {id}: told and recorded");
                } else {
                    // Its server takes back the rest of a message by its reset, if that has not left yet: such an answer is cut.
                    let cut = record.aborted && matches!(plan.play, Play::Reset { .. });
                    assert!(panicked || cut, "call {id} was not answered");
                }
                match record.reason {
                    Reason::Panic => {
                        assert_eq!(code, Some(13));
                        assert_eq!(told.is_none(), record.aborted, "call {id}: {record:?}");
                        explained |= told.is_some();
                    }
                    Reason::BackendLost | Reason::BackendClosed => {
                        assert_eq!(code, Some(14));
                        assert_eq!(told.is_none(), record.aborted, "call {id}: {record:?}");
                        explained |= record.aborted;
                    }
                    // It came to its own end.
                    _ => {
                        let own = match plan.play {
                            Play::Reset { .. } => 13,
                            Play::Silent { .. } => 4,
                            _ => plan.code().map_or(0, u32::from),
                        };
                        assert_eq!(code, Some(own), "call {id}: {record:?}");
                        explained |= record.aborted;
                        let reset = matches!(plan.play, Play::Reset { .. });
                        assert!(!record.aborted || reset, "call {id}: {record:?}");
                        if told.is_none() {
                            // The answer was on its way when its connection was lost.
                            assert!(client.lost(), "call {id} was not told");
                        }
                    }
                }
                client.hold_content(index, plan);
            }
            if client.lost() && !explained {
                unexplained.push(&client.calls);
            }
        }
        let hurt = self.callers.iter();
        let hurt = hurt.filter(|caller| self.is_hurt(caller, panicked)).count();
        assert!(
            hurt <= usize::from(panicked),
            "{hurt} clients of HTTP/2 were hurt: {reasons:?}"
        );
        // What never was a call: its client was lost at the door, or its head with its connection, or with an earlier call.
        assert!(
            unknown.len() <= 2 * usize::from(panicked),
            "calls {unknown:?} have no record: {reasons:?}"
        );
        assert!(
            unexplained.len() <= usize::from(panicked),
            "clients {unexplained:?} were lost: {reasons:?}"
        );
    }
}

impl Scene {
    /// Whether a client of HTTP/2 has lost something that it was not told the end of.
    fn is_hurt(&self, caller: &Caller, panicked: bool) -> bool {
        let ledger = self.ledger.borrow();
        let mut hurt = false;
        for call in &caller.calls {
            let id = call.id.expect("a call");
            let facts = &ledger.calls[id];
            let plan = &facts.plan;
            assert!(facts.processed <= 1, "call {id} was processed twice");
            let path = plan.path();
            let own = self.records.iter().filter(|record| record.path == path);
            let own: Vec<&Record> = own.collect();
            assert!(own.len() <= 1, "call {id} has two records");
            let told = status_heard(call, plan);
            let Some(record) = own.first() else {
                assert!(facts.processed == 0, "call {id} has no record");
                assert_eq!(told, None, "call {id} has no record");
                hurt = true;
                continue;
            };
            let code = record.code.map(|code| code.number());
            match (call.ended, told) {
                (Some(Ended::Whole), told) => {
                    assert_eq!(told.map(u32::from), code, "call {id}: told and recorded");
                }
                (Some(Ended::Reset(_)), _) if record.aborted => {}
                _ => hurt = true,
            }
            let expected = match record.reason {
                Reason::Panic => 13,
                Reason::BackendLost | Reason::BackendClosed => 14,
                // Its connection was lost.
                Reason::ClientLeft => {
                    hurt = true;
                    1
                }
                _ => match plan.play {
                    Play::Reset { .. } => 13,
                    Play::Silent { .. } => 4,
                    _ => plan.code().map_or(0, u32::from),
                },
            };
            assert_eq!(code, Some(expected), "call {id}: {record:?}");
            let reset = matches!(plan.play, Play::Reset { .. } | Play::Silent { .. });
            assert!(
                panicked || reset || !record.aborted,
                "call {id}: {record:?}"
            );
        }
        hurt
    }
}

/// The status of what came whole. Whatever came is the server's, and in order.
fn status_heard(call: &Call, plan: &Plan) -> Option<u8> {
    let content = Content::of(&call.body, plan.form == Form::Text).expect("messages");
    let replies = plan.replies();
    assert!(
        replies.starts_with(&content.messages),
        "call {}: the messages are the server's",
        plan.id
    );
    if call.ended != Some(Ended::Whole) {
        return None;
    }
    match plan.form {
        Form::Native => status_of(call.trailers.as_ref().or(call.head.as_ref())),
        Form::Web | Form::Text => content.code(),
    }
}

impl Client {
    fn step(&mut self, ledger: &SharedLedger) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        let answered = self.reader.answers.len();
        let closing = self.reader.answers.last().is_some_and(|last| last.closes());
        if self.out.is_empty()
            && answered == self.begun
            && self.begun < self.calls.len()
            && !closing
        {
            self.out = Scene::request(&ledger.borrow().calls[self.calls[self.begun]].plan);
            self.begun += 1;
        }
        let mut moved = false;
        if !self.out.is_empty() {
            match end.write(&self.out) {
                Ok(n) => {
                    self.out.drain(..n);
                    moved = n > 0;
                }
                Err(_) => self.out.clear(),
            }
        }
        let mut bytes = Vec::new();
        match end.read(&mut bytes, 1 << 16) {
            Arrival::Bytes(_) => {
                self.reader.feed(&bytes).expect("HTTP");
                moved = true;
            }
            Arrival::Nothing => {}
            Arrival::End | Arrival::Reset => {
                self.end = None;
                return true;
            }
        }
        if self.reader.answers.len() == self.calls.len() && self.reader.at_rest() {
            self.end = None;
            return true;
        }
        moved
    }

    /// It has not had all its answers.
    fn lost(&self) -> bool {
        self.reader.answers.len() < self.calls.len()
    }

    /// The status of that answer, if it came whole.
    fn code(&self, index: usize, text: bool) -> Option<u8> {
        let answer = self.reader.answers.get(index)?;
        assert_eq!(answer.status, 200);
        let content = Content::of(&answer.body, text).expect("gRPC-Web");
        Some(content.code().expect("a whole answer has a status"))
    }

    /// What came of the answer is the server's, and in order.
    fn hold_content(&self, index: usize, plan: &Plan) {
        let answer = self.reader.answers.get(index);
        let partial = (index == self.reader.answers.len())
            .then(|| self.reader.partial())
            .flatten();
        let Some(answer) = answer.or(partial) else {
            return;
        };
        let content = Content::of(&answer.body, plan.form == Form::Text).expect("gRPC-Web");
        let replies = plan.replies();
        assert!(
            replies.starts_with(&content.messages),
            "call {}: the messages are the server's",
            plan.id
        );
    }
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.clients.iter().filter(|client| client.end.is_some());
        let waiting: Vec<_> = waiting
            .map(|client| (&client.calls, client.begun, client.reader.answers.len()))
            .collect();
        f.debug_struct("Scene")
            .field("turns", &self.turns)
            .field("waiting", &waiting)
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

/// Plays the scene with a panic the `nth` time that it comes by `place`. How often it came by.
fn play(place: Place, nth: u64) -> Result<u64, String> {
    let mut scene = Scene::new(Instant::now());
    scene.machine.keep_lines(Some(60));
    arm(place, nth);
    let result = catch_unwind(AssertUnwindSafe(|| {
        scene.play();
        scene.judge((nth > 0).then_some(place));
    }));
    let times = disarm();
    if let Err(panic) = result {
        let why = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        let failure = format!(
            "{place:?}, time {nth}: {why}\n{}",
            scene.machine.take_lines().join("\n")
        );
        // Its core may not be fit to be dropped.
        std::mem::forget(scene);
        return Err(failure);
    }
    if nth > 0 && times >= nth {
        assert_eq!(
            scene.core.panics(),
            1,
            "{place:?} {nth}: the wire was tripped"
        );
    }
    Ok(times)
}

/// Panics that were asked for are not told: each would cost a backtrace.
fn hush() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let what = info.payload_as_str().unwrap_or_default();
        if !what.starts_with("the wire at ") && !what.contains("Poison") {
            before(info);
        }
    }));
}

fn play_all(places: &[Place]) {
    hush();
    let most = number("WHARF_PANICS").unwrap_or(TIMES).max(1);
    let mut failures = Vec::new();
    for &place in places {
        let times = play(place, 0).expect("without a panic nothing is wrong");
        assert!(times > 0, "nobody ever comes by {place:?}");
        let step = times.div_ceil(most);
        println!("{place:?}: {times} times, every {step}.");
        for nth in (1..=times).step_by(step as usize) {
            if let Err(failure) = play(place, nth) {
                failures.push(failure);
            }
            if failures.len() > 3 {
                break;
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} scenes failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn r_21_a_panic_at_any_step_ends_one_key_and_nothing_else() {
    play_all(&PLACES);
}
