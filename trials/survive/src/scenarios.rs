//! What is done to a proxy, and what must hold then.
//!
//! A scenario has *subjects*, the calls that something is done to, and *innocents*, which share their connections: calls that
//! stay open from its beginning to its end, and small ones, one after the other, all the while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::backend::{Backend, Deed, INTERNAL_ERROR, STREAMS_MAX, Share};
use crate::client::{Call, Client, Ending};
use crate::report::{Endings, Report, memory};

/// How long a scenario waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long for what a proxy need not do.
const SHORT: Duration = Duration::from_secs(5);
/// Calls that stay open throughout.
const STAYING: usize = 8;
/// Clients that call all the while, and how long each rests between two calls.
const CALLING: usize = 2;
const REST: Duration = Duration::from_millis(2);
/// Calls after it all, one after the other.
const AFTERWARDS: usize = 50;

/// What is done to a proxy.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How many calls the backend takes at once on one connection.
    streams_max: u32,
    act: fn(&mut Trial),
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "cancelled",
        about: "1,200 open calls are cancelled at once",
        streams_max: STREAMS_MAX,
        act: |trial| late(trial, 1200, 0, Duration::ZERO),
    },
    Scenario {
        name: "late-1",
        about: "1,200 calls are cancelled at once, one late DATA frame comes for each",
        streams_max: STREAMS_MAX,
        act: |trial| late(trial, 1200, 1, Duration::ZERO),
    },
    Scenario {
        name: "late-103",
        about: "100 calls are cancelled, 103 late DATA frames come for each, in rounds",
        streams_max: STREAMS_MAX,
        act: |trial| late(trial, 100, 103, Duration::ZERO),
    },
    Scenario {
        name: "late-forgotten",
        about: "1,200 calls are cancelled at once, one late DATA frame comes for each two seconds after",
        streams_max: STREAMS_MAX,
        act: |trial| late(trial, 1200, 1, Duration::from_secs(2)),
    },
    Scenario {
        name: "parked",
        about: "200 calls where 10 are taken at once; those that still wait are cancelled",
        streams_max: 10,
        act: parked,
    },
    Scenario {
        name: "empty",
        about: "10,000 calls whose answers hold an empty DATA frame each",
        streams_max: STREAMS_MAX,
        act: |trial| many(trial, Deed::Empty, 10_000),
    },
    Scenario {
        name: "padded-empty",
        about: "10,000 calls whose answers hold a DATA frame of padding alone",
        streams_max: STREAMS_MAX,
        act: |trial| many(trial, Deed::Padded, 10_000),
    },
    Scenario {
        name: "goaway-half",
        about: "GOAWAY while 100 calls are open; half of them were not processed",
        streams_max: STREAMS_MAX,
        act: |trial| go_away(trial, Share::Half),
    },
    Scenario {
        name: "goaway-0",
        about: "GOAWAY(NO_ERROR, 0) while 100 calls are open; none was processed",
        streams_max: STREAMS_MAX,
        act: |trial| go_away(trial, Share::None),
    },
    Scenario {
        name: "refused",
        about: "2,000 calls are refused once each (REFUSED_STREAM)",
        streams_max: STREAMS_MAX,
        act: |trial| many(trial, Deed::RefusedOnce, 2000),
    },
    Scenario {
        name: "mass-reset",
        about: "1,000 open calls are reset at once (INTERNAL_ERROR)",
        streams_max: STREAMS_MAX,
        act: |trial| mass_reset(trial, 1000),
    },
];

/// One scenario on its way.
pub(crate) struct Trial {
    proxy: SocketAddr,
    backend: Backend,
    pid: Option<u32>,
    memory_before: Option<u64>,
    started: Instant,
    staying: Vec<Call>,
    over: Arc<AtomicBool>,
    calling: Vec<JoinHandle<Endings>>,
    subjects: Endings,
    innocents: Endings,
    facts: BTreeMap<&'static str, usize>,
    amiss: Vec<String>,
}

impl Trial {
    pub(crate) fn new(proxy: SocketAddr, backend: Backend, pid: Option<u32>) -> Self {
        Self {
            proxy,
            backend,
            pid,
            memory_before: None,
            started: Instant::now(),
            staying: Vec::new(),
            over: Arc::default(),
            calling: Vec::new(),
            subjects: Endings::default(),
            innocents: Endings::default(),
            facts: BTreeMap::new(),
            amiss: Vec::new(),
        }
    }

    /// New connections for everybody, each of which takes so many calls at once, and one good call.
    fn begin(&mut self, streams_max: u32) -> Result<(), Ending> {
        self.backend.fresh(streams_max);
        let until = Instant::now() + PATIENCE;
        loop {
            let mut client = Client::new(self.proxy);
            match client.call(Deed::Echo, "warm-up", SHORT) {
                Ending::Status(0) => break,
                ending if Instant::now() >= until => return Err(ending),
                // It may still have to learn that its old connections are gone.
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
        self.memory_before = self.pid.and_then(memory);
        self.started = Instant::now();
        Ok(())
    }

    /// All of it.
    pub(crate) fn run(mut self, scenario: &Scenario, proxy: &str) -> Report {
        match self.begin(scenario.streams_max) {
            Ok(()) => (scenario.act)(&mut self),
            Err(ending) => self.amiss(format!("a first call got no answer ({ending})")),
        }
        self.report(scenario.name, proxy)
    }

    /// Something did not hold.
    fn amiss(&mut self, text: String) {
        self.amiss.push(text);
    }

    /// Calls that are open from now on.
    fn some_stay(&mut self) {
        let until = Instant::now() + PATIENCE;
        for index in 0..STAYING {
            let name = format!("stay-{index}");
            let call = Call::start(self.proxy, Deed::Open, &name);
            match call.and_then(|mut call| call.begins(until).then_some(call)) {
                Some(call) => self.staying.push(call),
                None => self.innocents.count(Ending::Cut),
            }
        }
    }

    /// Small calls from now on.
    fn some_call(&mut self) {
        for caller in 0..CALLING {
            let (proxy, over) = (self.proxy, Arc::clone(&self.over));
            self.calling.push(thread::spawn(move || {
                let mut endings = Endings::default();
                let mut client = Client::new(proxy);
                for index in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("echo-{caller}-{index}");
                    endings.count(client.call(Deed::Echo, &name, PATIENCE));
                    thread::sleep(REST);
                }
                endings
            }));
        }
    }

    /// All that was sent has been read; those who stayed end, and some call afterwards.
    fn innocents_end(&mut self) {
        self.backend.settle(SHORT);
        self.over.store(true, Ordering::Relaxed);
        for caller in std::mem::take(&mut self.calling) {
            match caller.join() {
                Ok(endings) => self.innocents.add(&endings),
                Err(_) => self.amiss("a client panicked".to_owned()),
            }
        }
        self.backend.finish("stay-");
        let until = Instant::now() + PATIENCE;
        for call in self.staying.drain(..) {
            self.innocents.count(call.end(until).0);
        }
        let mut client = Client::new(self.proxy);
        for index in 0..AFTERWARDS {
            let ending = client.call(Deed::Echo, &format!("after-{index}"), SHORT);
            self.innocents.count(ending);
        }
    }

    /// Says what is amiss unless it holds.
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.amiss(otherwise());
        }
    }

    /// All subjects ended well.
    fn expect_good_subjects(&mut self) {
        let bad = self.subjects.other_than(Ending::Status(0));
        let total = self.subjects.total();
        self.expect(bad == 0, || {
            format!("{bad} of {total} subjects did not end well")
        });
    }

    fn report(mut self, scenario: &'static str, proxy: &str) -> Report {
        let tally = self.backend.tally();
        let bad = self.innocents.other_than(Ending::Status(0));
        let total = self.innocents.total();
        self.expect(bad == 0, || {
            format!("{bad} of {total} innocent calls failed")
        });
        self.expect(tally.lost == 0, || {
            format!("{} of {} connections lost", tally.lost, tally.opened)
        });
        let memory_after = self.pid.and_then(memory);
        let ended = self.pid.is_some() && memory_after.is_none();
        self.expect(!ended, || "the proxy has ended".to_owned());
        Report {
            proxy: proxy.to_owned(),
            scenario,
            seconds: self.started.elapsed().as_secs_f64(),
            subjects: self.subjects,
            innocents: self.innocents,
            tally,
            facts: self.facts,
            memory_before: self.memory_before,
            memory_after,
            amiss: self.amiss,
        }
    }
}

/// Clients leave, all at once, and their answers go on for a while.
fn late(trial: &mut Trial, calls: usize, frames: usize, after: Duration) {
    trial.some_stay();
    trial.some_call();
    let until = Instant::now() + PATIENCE;
    let mut subjects: Vec<Call> = (0..calls)
        .filter_map(|index| Call::start(trial.proxy, Deed::Open, &format!("leave-{index}")))
        .collect();
    let begun = subjects
        .iter_mut()
        .filter_map(|call| call.begins(until).then_some(()));
    let begun = begun.count();
    drop(subjects);
    let cancelled = trial.backend.wait_for_resets("leave-", calls, SHORT);
    thread::sleep(after);
    trial.backend.late_data("leave-", frames);
    trial.innocents_end();
    trial.facts.insert("begun", begun);
    trial.facts.insert("cancelled", cancelled);
    trial.expect(begun == calls, || {
        format!("only {begun} of {calls} subjects got the beginning of an answer")
    });
    trial.expect(cancelled == calls, || {
        format!("the backend was told of {cancelled} of {calls} cancellations")
    });
}

/// Calls of one kind, ten at a time, each of which ends well.
fn many(trial: &mut Trial, deed: Deed, calls: usize) {
    const CLIENTS: usize = 10;
    trial.some_stay();
    trial.some_call();
    let name = |client: usize, index: usize| format!("many-{client}-{index}");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let proxy = trial.proxy;
            thread::spawn(move || {
                let mut endings = Endings::default();
                let mut own = Client::new(proxy);
                for index in 0..calls / CLIENTS {
                    let ending = own.call(deed, &name(client, index), SHORT);
                    endings.count(ending);
                    // A proxy that answers nobody would keep us for hours.
                    if endings.of(Ending::Nothing) > 2 {
                        break;
                    }
                }
                endings
            })
        })
        .collect();
    for client in clients {
        match client.join() {
            Ok(endings) => trial.subjects.add(&endings),
            Err(_) => trial.amiss("a client panicked".to_owned()),
        }
    }
    trial.innocents_end();
    let expected = if deed == Deed::RefusedOnce { 2 } else { 1 };
    let (mut repeated, mut wrong) = (0, 0);
    for client in 0..CLIENTS {
        for index in 0..calls / CLIENTS {
            let visits = trial.backend.visits(&name(client, index));
            repeated += usize::from(visits.seen > 1);
            wrong += usize::from(visits.seen > expected || visits.processed > 1);
        }
    }
    trial.facts.insert("repeated", repeated);
    trial.facts.insert("seen too often", wrong);
    trial.expect_good_subjects();
    let made = trial.subjects.total();
    trial.expect(made == calls, || format!("given up after {made} calls"));
    trial.expect(wrong == 0, || format!("{wrong} calls were seen too often"));
}

/// More calls than the backend takes at once, of which those that wait are cancelled.
fn parked(trial: &mut Trial) {
    const CALLS: usize = 200;
    /// So long nothing has come: what has not been sent waits.
    const QUIET: Duration = Duration::from_millis(700);
    let name = |index: usize| format!("held-{index}");
    let mut subjects: Vec<_> = (0..CALLS)
        .map(|index| Call::start(trial.proxy, Deed::Held, &name(index)))
        .collect();
    let mut held = 0;
    loop {
        let now = trial.backend.wait_for(Deed::Held, held + 1, QUIET);
        if now <= held {
            break;
        }
        held = now;
    }
    let waiting: Vec<usize> = (0..CALLS)
        .filter(|index| trial.backend.visits(&name(*index)).seen == 0)
        .collect();
    for index in &waiting {
        drop(subjects[*index].take());
    }
    // They have left; nothing tells us when the proxy knows.
    thread::sleep(QUIET);
    trial.backend.release();
    let until = Instant::now() + PATIENCE;
    for call in subjects.into_iter().flatten() {
        trial.subjects.count(call.end(until).0);
    }
    trial.innocents_end();
    let reached = waiting
        .iter()
        .filter(|index| trial.backend.visits(&name(**index)).seen > 0);
    let reached = reached.count();
    trial.facts.insert("waited", waiting.len());
    trial.facts.insert("reached", reached);
    trial.expect_good_subjects();
    trial.expect(reached == 0, || {
        format!(
            "{reached} of {} calls reached the backend after they were cancelled",
            waiting.len()
        )
    });
}

/// The backend leaves while calls are open.
fn go_away(trial: &mut Trial, share: Share) {
    const CALLS: usize = 100;
    // A call that is open below the last id may end; above it there must be none.
    if matches!(share, Share::Half) {
        trial.some_stay();
    }
    let subjects: Vec<Call> = (0..CALLS)
        .filter_map(|index| Call::start(trial.proxy, Deed::Held, &format!("held-{index}")))
        .collect();
    let held = trial.backend.wait_for(Deed::Held, CALLS, PATIENCE);
    trial.some_call();
    let left_out = trial.backend.go_away(share);
    // The others are still being worked on.
    thread::sleep(Duration::from_millis(300));
    trial.backend.release();
    let until = Instant::now() + PATIENCE;
    for call in subjects {
        trial.subjects.count(call.end(until).0);
    }
    trial.innocents_end();
    let (mut repeated, mut twice, mut often) = (0, 0, 0);
    for index in 0..CALLS {
        let visits = trial.backend.visits(&format!("held-{index}"));
        repeated += usize::from(visits.seen > 1);
        twice += usize::from(visits.processed > 1);
        often += usize::from(visits.seen > 2);
    }
    trial.facts.insert("held", held);
    trial.facts.insert("not processed", left_out);
    trial.facts.insert("repeated", repeated);
    trial.facts.insert("processed twice", twice);
    trial.facts.insert("seen too often", often);
    trial.expect_good_subjects();
    trial.expect(held == CALLS, || {
        format!("only {held} of {CALLS} calls came")
    });
    trial.expect(repeated == left_out, || {
        format!("{repeated} calls were repeated, {left_out} were to be")
    });
    trial.expect(twice == 0, || format!("{twice} calls were processed twice"));
    trial.expect(often == 0, || format!("{often} calls were seen too often"));
}

/// The backend ends calls whose answers have begun.
fn mass_reset(trial: &mut Trial, calls: usize) {
    trial.some_stay();
    trial.some_call();
    let until = Instant::now() + PATIENCE;
    let mut subjects: Vec<Call> = (0..calls)
        .filter_map(|index| Call::start(trial.proxy, Deed::Open, &format!("reset-{index}")))
        .collect();
    let begun = subjects
        .iter_mut()
        .filter_map(|call| call.begins(until).then_some(()));
    let begun = begun.count();
    let reset = trial.backend.reset("reset-", INTERNAL_ERROR);
    for call in subjects {
        trial.subjects.count(call.end(until).0);
    }
    trial.innocents_end();
    trial.facts.insert("begun", begun);
    trial.facts.insert("reset", reset);
    trial.expect(reset == calls, || {
        format!("only {reset} of {calls} calls came")
    });
    // INTERNAL, as gRPC maps that code; a message had ended, so there is room for a status.
    let otherwise = trial.subjects.other_than(Ending::Status(13));
    trial.expect(otherwise == 0, || {
        format!("{otherwise} of {calls} subjects were not told INTERNAL")
    });
    let lies = trial.subjects.of(Ending::Status(0)) + trial.subjects.of(Ending::Untrue);
    trial.expect(lies == 0, || format!("{lies} subjects were told OK"));
}
