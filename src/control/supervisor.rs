//! The control thread itself.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select, tick, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::config::{Compiled, Process};
use crate::control::cpus;
use crate::control::resolve::{Resolved, Resolver};
use crate::core::{Command, Core, Doors, Report};
use crate::net::mio::{MioDriver, in_use, listen};
use crate::policy::{Snapshot, Target};
use crate::telemetry::Record;
use crate::upstream::pool::RESET_STREAM_DURATION;

/// How many records that have been printed are kept to be written on again: what two rests of whoever prints bring at 100,000
/// calls a second.
const SPENT_MAX: usize = 1024;
/// How many notices may wait to be printed; beyond it they are dropped and counted.
const NOTICES_MAX: usize = 1024;
/// How often a backend that does not answer is tried though nobody calls it, and a name that has no address is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// After how many of those intervals a name that has addresses is asked again.
const REFRESH_ROUNDS: u32 = 15;
/// How long the last notice may wait to be heard.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// The first two end the process. The others would, if nobody heard them: a terminal that closes, a tool that asks daemons to
/// reload or to rotate their logs, must not cut calls.
const HEARD: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
/// How long the start waits for names to be resolved.
const FIRST_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What people should know, and does not come from a core.
#[derive(Debug)]
pub enum Notice {
    /// A name could not be resolved.
    Unresolved {
        /// `host:port`.
        name: Arc<str>,
        /// What the resolver said.
        error: String,
    },
    /// The first signal: no more connections, open calls run on.
    Draining {
        /// For how long.
        limit: Duration,
    },
    /// All cores have stopped; this is the last notice.
    Stopped {
        /// Lines that were never written, because whoever reads them was too slow.
        dropped: u64,
        /// Calls were cut: by a second signal, or with a worker that failed.
        forced: bool,
        /// Dropped by whoever has heard it.
        heard: Sender<()>,
    },
}

/// Why it could not start.
#[derive(Debug)]
pub enum StartError {
    /// Somebody listens there already.
    InUse(SocketAddr),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The machine refused something else.
    Machine(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(address) => write!(f, "cannot listen on {address}: it is in use"),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Machine(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A proxy that runs.
#[derive(Debug)]
pub struct Control {
    /// What people should know, until [`Notice::Stopped`].
    pub notices: Receiver<Notice>,
    /// What the cores tell people: records and attempts to connect, nothing else. They do not pass the control thread.
    pub records: Receiver<Report>,
    /// Takes records back that have been read, [trimmed](Record::trim), so that the cores may write on them again.
    pub spent: Sender<Box<Record>>,
    /// Names of listeners and the addresses that they really have.
    pub listening: Vec<(Arc<str>, SocketAddr)>,
    /// Asks it to drain as the first signal does, and to stop as the second one does.
    pub stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Binds every listener, starts every core, and then the thread that watches over them.
    pub fn start(compiled: Compiled) -> Result<Self, StartError> {
        let Compiled {
            mut snapshot,
            process,
            ..
        } = compiled;
        for listener in &mut snapshot.listeners {
            match in_use(listener.address) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(StartError::InUse(listener.address));
                }
                Err(error) => return Err(StartError::Listen(listener.address, error)),
            }
        }
        let sockets = bind(&mut snapshot, process.workers)?;
        let listening = snapshot
            .listeners
            .iter()
            .map(|listener| (Arc::clone(&listener.name), listener.address))
            .collect();

        let machine = |what| move |error| StartError::Machine(what, error);
        let resolver = Resolver::start().map_err(machine("start the resolver's thread"))?;
        // Whoever sends looks first how many wait: a channel with a bound of its own holds all its places from the beginning.
        let (notices, heard) = unbounded();
        let (reports, reported) = unbounded();
        let (records, recorded) = unbounded();
        let (spent, spares) = bounded(SPENT_MAX);
        let mut watch = Watch {
            snapshot: Arc::new(snapshot),
            process,
            cores: Vec::new(),
            resolver,
            notices,
            records: records.clone(),
            dropped: 0,
            draining: false,
            forced: false,
            unreachable: HashSet::new(),
        };
        watch.resolve_first();

        let count = watch.snapshot.listeners.len();
        let drivers = sockets.into_iter().map(MioDriver::new);
        let drivers: Vec<_> = drivers
            .collect::<Result<_, _>>()
            .map_err(machine("wait for events"))?;
        // A core that is alone has nobody to share its clients with.
        let shared = drivers.len() > 1;
        let mut doors =
            Doors::new(drivers.iter().map(MioDriver::bell).filter(|_| shared)).into_iter();

        let allowed = cpus::allowed();
        for (id, driver) in drivers.into_iter().enumerate() {
            let doors = doors.next();
            let waker = driver.waker();
            let (commands, inbox) = unbounded();
            let snapshot = Arc::clone(&watch.snapshot);
            let reports = reports.clone();
            let (records, spares) = (records.clone(), spares.clone());
            let cpu = watch
                .process
                .pin_cpus
                .then(|| allowed.get(id % allowed.len().max(1)));
            let cpu = cpu.flatten().copied();
            thread::Builder::new()
                .name(format!("wharf-worker-{id}"))
                .spawn(move || {
                    if let Some(cpu) = cpu
                        && let Err(error) = cpus::pin(cpu)
                    {
                        log::warn!("worker {id} cannot stay on CPU {cpu}: {error}");
                    }
                    // The slabs are not `Send`: the core is made where it lives.
                    let told = reports.clone();
                    let live = AssertUnwindSafe(move || {
                        let span = RESET_STREAM_DURATION;
                        let mut core = Core::new(id, driver, count, snapshot, inbox, reports, span);
                        core.keep_ledger(records, spares);
                        match doors {
                            Some(doors) => core.sharing(doors).run(),
                            None => core.run(),
                        }
                    });
                    if catch_unwind(live).is_err() {
                        // Whoever waits for this core must not wait for ever.
                        let _ = told.send(Report::Failed { core: id });
                    }
                })
                .map_err(machine("start a worker"))?;
            watch.cores.push(Reins { commands, waker });
        }
        drop(reports);

        let signals = Signals::new(HEARD).map_err(machine("listen for signals"))?;
        let (stop, stopped) = bounded(4);
        let signalled = stop.clone();
        thread::Builder::new()
            .name("wharf-signals".to_owned())
            .spawn(move || {
                let mut signals = signals;
                for signal in signals.forever() {
                    if !matches!(signal, SIGINT | SIGTERM) {
                        let name = signal_hook::low_level::signal_name(signal);
                        log::info!(
                            "{} changes nothing: flags and file are read at the start; to have them read again, restart wharf",
                            name.unwrap_or("a signal")
                        );
                    } else if signalled.send(()).is_err() {
                        break;
                    }
                }
            })
            .map_err(machine("start the signals' thread"))?;

        // The banner says whether the backends answer. One core asks; the others connect when somebody calls.
        watch.probe();
        let thread = thread::Builder::new()
            .name("wharf-control".to_owned())
            .spawn(move || watch.run(&reported, &stopped))
            .map_err(machine("start the control thread"))?;
        Ok(Self {
            notices: heard,
            records: recorded,
            spent,
            listening,
            stop,
            thread,
        })
    }

    /// Waits for the control thread. Call it after [`Notice::Stopped`].
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

/// How the control thread reaches a core.
struct Reins {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
}

impl Reins {
    /// Whether there is still somebody to obey.
    fn command(&self, command: Command) -> bool {
        let lives = self.commands.send(command).is_ok();
        if lives {
            let _ = self.waker.wake();
        }
        lives
    }
}

struct Watch {
    snapshot: Arc<Snapshot>,
    process: Process,
    cores: Vec<Reins>,
    resolver: Resolver,
    notices: Sender<Notice>,
    /// Only to see how many wait.
    records: Sender<Report>,
    dropped: u64,
    draining: bool,
    forced: bool,
    /// Endpoints whose last attempt failed.
    unreachable: HashSet<Arc<str>>,
}

impl Watch {
    fn run(mut self, reports: &Receiver<Report>, stop: &Receiver<()>) {
        let ticks = tick(RETRY_INTERVAL);
        let answers = self.resolver.answers.clone();
        let mut running = self.cores.len();
        let mut round = 0u32;
        while running > 0 {
            select! {
                recv(reports) -> report => match report {
                    Ok(Report::Stopped { records_dropped, .. }) => {
                        self.dropped += records_dropped;
                        running -= 1;
                    }
                    Ok(Report::Failed { core }) => {
                        log::error!("worker {core} has failed; the others go on");
                        self.forced = true;
                        running -= 1;
                    }
                    Ok(report) => self.note(report),
                    // Every core has gone without a word.
                    Err(_) => break,
                },
                recv(stop) -> _ => self.stop(),
                recv(answers) -> answer => {
                    if let Ok(answer) = answer && self.learn(answer) {
                        self.publish();
                    }
                }
                recv(ticks) -> _ => {
                    round += 1;
                    self.ask(round.is_multiple_of(REFRESH_ROUNDS));
                    if !self.unreachable.is_empty() && !self.draining {
                        self.probe();
                    }
                }
            }
        }
        // Whoever prints must hear the last word, and what was said before it.
        let Self {
            dropped,
            forced,
            notices,
            records,
            ..
        } = self;
        let (heard, hearing) = bounded(0);
        let last = Notice::Stopped {
            dropped,
            forced,
            heard,
        };
        let mut stuck = notices.send_timeout(last, LAST_WORD_TIMEOUT).is_err();
        let queued = || notices.len() + records.len();
        let mut waiting = queued();
        // The last word is heard when its `heard` is dropped. As long as what is in front of it gets shorter, it will be.
        while !stuck && let Err(RecvTimeoutError::Timeout) = hearing.recv_timeout(LAST_WORD_TIMEOUT)
        {
            stuck = forced || queued() == waiting;
            waiting = queued();
        }
        if stuck {
            // Whoever prints waits for a pipe that nobody reads; the calls have ended, and so does the process.
            std::process::exit(i32::from(forced));
        }
    }

    fn stop(&mut self) {
        if self.draining {
            self.forced = true;
            for core in &self.cores {
                core.command(Command::Stop);
            }
            return;
        }
        self.draining = true;
        let limit = self.process.drain_timeout;
        for core in &self.cores {
            core.command(Command::Drain(limit));
        }
        self.tell(Notice::Draining { limit });
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Attempt(attempt) => {
                if attempt.failure.is_some() {
                    self.unreachable.insert(Arc::clone(&attempt.endpoint));
                } else {
                    self.unreachable.remove(&attempt.endpoint);
                }
            }
            Report::Adopted { core, generation } => {
                log::debug!("worker {core} obeys generation {generation}");
            }
            // Records go to whoever prints.
            Report::Record(_) | Report::Stopped { .. } | Report::Failed { .. } => {}
        }
    }

    fn tell(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            // Where nobody reads any more there is nobody to tell.
            let _ = self.notices.send(notice);
        } else {
            self.dropped += 1;
        }
    }

    /// Has one core, the first that lives, ask the backends whether they answer.
    fn probe(&self) {
        let _ = self.cores.iter().any(|core| core.command(Command::Probe));
    }

    /// Sends every core the snapshot.
    fn publish(&self) {
        for core in &self.cores {
            core.command(Command::Adopt(Arc::clone(&self.snapshot)));
        }
        if !self.unreachable.is_empty() {
            self.probe();
        }
    }

    /// Asks what the endpoints' names mean: all of them, or those that mean nothing yet.
    fn ask(&self, all: bool) {
        for backend in &self.snapshot.backends {
            let Target::Endpoints(endpoints) = &backend.target else {
                continue;
            };
            for endpoint in endpoints {
                let literal = endpoint.name.parse::<SocketAddr>().is_ok();
                if !literal && (all || endpoint.addresses.is_empty()) {
                    self.resolver.ask(&endpoint.name);
                }
            }
        }
    }

    /// The start waits a moment for names, so that the first call finds addresses.
    fn resolve_first(&mut self) {
        self.ask(false);
        let waiting = |snapshot: &Snapshot| {
            snapshot
                .backends
                .iter()
                .any(|backend| match &backend.target {
                    Target::Endpoints(endpoints) => endpoints
                        .iter()
                        .any(|endpoint| endpoint.addresses.is_empty()),
                    Target::Local(_) => false,
                })
        };
        let timeout = crossbeam_channel::after(FIRST_RESOLVE_TIMEOUT);
        let answers = self.resolver.answers.clone();
        while waiting(&self.snapshot) {
            select! {
                recv(answers) -> answer => match answer {
                    Ok(answer) => {
                        let failed = answer.addresses.is_err();
                        self.learn(answer);
                        if failed {
                            break;
                        }
                    }
                    Err(_) => break,
                },
                recv(timeout) -> _ => break,
            }
        }
    }

    /// Takes in what a name means. Whether the snapshot has changed by it.
    fn learn(&mut self, answer: Resolved) -> bool {
        let addresses = match answer.addresses {
            Ok(addresses) if !addresses.is_empty() => addresses,
            Ok(_) => return false,
            Err(error) => {
                // What it meant before is kept: a resolver that fails is no reason to lose a backend.
                self.unreachable.insert(Arc::clone(&answer.name));
                self.tell(Notice::Unresolved {
                    name: answer.name,
                    error,
                });
                return false;
            }
        };
        let mut changed = false;
        let mut backends = self.snapshot.backends.clone();
        for backend in &mut backends {
            if let Target::Endpoints(endpoints) = &mut backend.target {
                for endpoint in endpoints {
                    // Resolvers take turns with the order; that is no news.
                    let same = endpoint.addresses.len() == addresses.len()
                        && addresses
                            .iter()
                            .all(|address| endpoint.addresses.contains(address));
                    if endpoint.name == answer.name && !same {
                        endpoint.addresses.clone_from(&addresses);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            // It is known and means what it meant: nobody waits for it because of a lookup that failed once.
            self.unreachable.remove(&answer.name);
        }
        if changed {
            let old = &self.snapshot;
            self.snapshot = Arc::new(Snapshot {
                generation: old.generation + 1,
                listeners: old.listeners.clone(),
                routes: Arc::clone(&old.routes),
                unrouted: Arc::clone(&old.unrouted),
                backends,
                limits: old.limits.clone(),
                live_path: old.live_path.clone(),
            });
        }
        changed
    }
}

/// Binds one socket for each listener and core. A port 0 becomes the port that the first of them got.
fn bind(
    snapshot: &mut Snapshot,
    workers: usize,
) -> Result<Vec<Vec<std::net::TcpListener>>, StartError> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let mut own = Vec::with_capacity(snapshot.listeners.len());
        for listener in &mut snapshot.listeners {
            let address = listener.address;
            let socket = listen(address).map_err(|error| StartError::Listen(address, error))?;
            listener.address = socket
                .local_addr()
                .map_err(|error| StartError::Listen(address, error))?;
            own.push(socket);
        }
        sockets.push(own);
    }
    Ok(sockets)
}
