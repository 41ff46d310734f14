//! Programs that a run starts: each on CPUs of its own, awaited by its port, stopped by its process id. Owns their lives and
//! the ports; knows nothing of what they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use super::Refusal;

/// How long a program may take until it listens. Envoy needs a fifth of a second, a debug build under valgrind some.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);
/// How long one may take to end when it is asked to, before it is made to.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Ports of a run have five digits, since the floor counts on a request's length, and the port is in it.
const FIVE_DIGITS: u16 = 10_000;
/// Linux gives clients ports from here on, unless it is told otherwise (`net.ipv4.ip_local_port_range`).
const CLIENTS_FROM: u16 = 32_768;
/// Between two looks at a port: what a start takes is known to that.
const LOOK: Duration = Duration::from_micros(50);

/// Ports that a run hands to the programs it starts, one after the other and round again.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    count: u16,
    next: u16,
    /// Somebody has named them: one that is taken is told rather than passed over.
    named: bool,
}

impl Ports {
    /// `count` ports from `first` on, all of them free now.
    pub(super) fn named(first: u16, count: u16) -> Result<Self, Refusal> {
        let Some(last) = first.checked_add(count - 1) else {
            return Err(Refusal::Port(format!(
                "{count} ports from {first} on: there are not so many; give a lower --port"
            )));
        };
        for port in first..=last {
            is_free(port)?;
        }
        Ok(Self {
            first,
            count,
            next: 0,
            named: true,
        })
    }

    /// Any that are free when they are wanted: below the range from which the kernel takes clients' ports, so that no client
    /// sits on one, and where to begin differs from run to run.
    pub(super) fn any() -> Self {
        let count = CLIENTS_FROM - FIVE_DIGITS;
        Self {
            first: FIVE_DIGITS,
            count,
            next: (std::process::id() % u32::from(count)) as u16,
            named: false,
        }
    }

    /// The next one, which is free. An old one's connections may still be known to the kernel, so each is used rarely.
    pub(super) fn take(&mut self) -> Result<u16, Refusal> {
        for _ in 0..self.count {
            let port = self.first + self.next;
            self.next = (self.next + 1) % self.count;
            match is_free(port) {
                Err(refusal) if self.named => return Err(refusal),
                Err(_) => {}
                Ok(()) => return Ok(port),
            }
        }
        Err(Refusal::Port(format!(
            "no port from {} to {} is free: end what holds them (`ss -ltnp` names it)",
            self.first,
            self.first + (self.count - 1)
        )))
    }
}

fn is_free(port: u16) -> Result<(), Refusal> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::Port(format!(
            "port {port} is taken ({error}): end what listens there (`ss -ltnp 'sport = :{port}'` names it), or give another \
             --port"
        ))),
    }
}

/// A program to start.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Its file.
    pub(super) file: PathBuf,
    /// What it is told.
    pub(super) arguments: Vec<OsString>,
    /// Where its stdout and stderr go, begun anew with each start: an access log grows by megabytes a second. Nowhere if absent.
    pub(super) log: Option<PathBuf>,
}

impl Program {
    /// A program without a log.
    pub(super) fn new<I>(file: impl Into<PathBuf>, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        Self {
            file: file.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            log: None,
        }
    }

    /// The same under another program, which starts it: `strace -c -- wharf run`.
    pub(super) fn under<I>(self, file: impl Into<PathBuf>, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let mut outer = Self::new(file, arguments);
        outer.arguments.push(self.file.into());
        outer.arguments.extend(self.arguments);
        outer.log = self.log;
        outer
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(&self.file);
        command.args(&self.arguments).stdin(Stdio::null());
        let log = self.log.as_deref().map(File::create).transpose()?;
        if let Some(log) = log {
            command.stderr(log.try_clone()?).stdout(log);
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(command)
    }
}

/// One that runs. Dropped, it is stopped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    name: String,
    /// When its program had been put in place: what passes from here is its own time.
    pub(super) began: Instant,
}

impl Running {
    /// Starts it on these CPUs.
    pub(super) fn start(program: &Program, cpus: &[usize]) -> Result<Self, String> {
        let name = program.file.display().to_string();
        let failed = |error: io::Error| format!("{name} does not start: {error}");
        let (child, began) = spawn(program.command().map_err(failed)?, cpus).map_err(failed)?;
        Ok(Self { child, name, began })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something accepts connections at `port`, and says how long it took since it was started.
    pub(super) fn until_it_listens(&mut self, port: u16) -> Result<Duration, String> {
        while self.began.elapsed() < LISTEN_LIMIT {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(self.began.elapsed());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended before it listened: {status}", self.name));
            }
            thread::sleep(LOOK);
        }
        Err(format!(
            "{} did not listen on port {port} within {} s",
            self.name,
            LISTEN_LIMIT.as_secs()
        ))
    }

    /// Does it still run?
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, makes it end if it does not, and waits.
    pub(super) fn stop(&mut self) {
        if !self.lives() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while self.lives() && asked.elapsed() < STOP_LIMIT {
            thread::sleep(Duration::from_millis(5));
        }
        if self.lives() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A child has the CPUs of the thread that starts it, so a thread of its own is pinned and starts it.
fn spawn(mut command: Command, cpus: &[usize]) -> io::Result<(Child, Instant)> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    thread::scope(|scope| {
        scope
            .spawn(|| {
                sched_setaffinity(None, &set)?;
                let child = command.spawn()?;
                // Returned from only when the other program is in place.
                Ok((child, Instant::now()))
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    })
}

/// A load that tells in lines of JSON what it does.
#[derive(Debug)]
pub(super) struct Telling {
    running: Running,
    lines: Receiver<Value>,
    interrupted: Arc<AtomicBool>,
}

impl Telling {
    /// Starts it on these CPUs; its stderr goes to the program's log.
    pub(super) fn start(
        program: &Program,
        cpus: &[usize],
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let name = program.file.display().to_string();
        let failed = |error: io::Error| format!("{name} does not start: {error}");
        let mut command = program.command().map_err(failed)?;
        command.stdout(Stdio::piped());
        let (mut child, began) = spawn(command, cpus).map_err(failed)?;
        let (tx, lines) = channel();
        let stdout = child.stdout.take();
        // Ends with the pipe.
        thread::spawn(move || {
            for line in stdout
                .into_iter()
                .flat_map(|pipe| BufReader::new(pipe).lines())
            {
                let Ok(line) = line else { break };
                let said = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if tx.send(said).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            running: Running { child, name, began },
            lines,
            interrupted: Arc::clone(interrupted),
        })
    }

    /// Its process id.
    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The next line, within `limit`.
    pub(super) fn line(&self, limit: Duration) -> Result<Value, String> {
        let asked = Instant::now();
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(said) => return Ok(said),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the load ended without its last line".to_owned());
                }
                Err(RecvTimeoutError::Timeout) if asked.elapsed() > limit => {
                    return Err(format!("the load said nothing for {} s", limit.as_secs()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The next line, which must be this event.
    pub(super) fn event(&self, name: &str, limit: Duration) -> Result<Value, String> {
        let said = self.line(limit)?;
        if said["event"] == name {
            Ok(said)
        } else {
            Err(format!("the load said {said} in place of {name:?}"))
        }
    }

    /// Everything up to its last line, which is the summary.
    pub(super) fn summary(mut self, limit: Duration) -> Result<Value, String> {
        let mut last = self.line(limit)?;
        while last.get("event").is_some() {
            last = self.line(limit)?;
        }
        self.running.stop();
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_with_what_to_do() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = held.local_addr().expect("its address").port();
        let Err(Refusal::Port(text)) = Ports::named(port, 1) else {
            panic!("a port that is held was handed out");
        };
        assert!(text.contains(&format!("port {port} is taken")), "{text}");
        assert!(text.contains("--port"), "{text}");
        drop(held);
        let mut ports = Ports::named(port, 1).expect("it is free again");
        assert_eq!(ports.take().ok(), Some(port));
        assert_eq!(ports.take().ok(), Some(port), "and round again");
    }

    #[test]
    fn a_port_that_nobody_asked_for_is_passed_over_when_it_is_taken() {
        let mut ports = Ports::any();
        // What it would hand out next is held, for as long as there is a free one to hold.
        let first = ports.take().expect("a free port");
        let held: Vec<_> = (1..=3)
            .filter_map(|more| TcpListener::bind((Ipv4Addr::LOCALHOST, first + more)).ok())
            .collect();
        let next = ports.take().expect("another free port");
        assert!(
            held.iter()
                .all(|held| held.local_addr().expect("its address").port() != next)
        );
        assert_ne!(next, first);
        assert!((FIVE_DIGITS..CLIENTS_FROM).contains(&next), "{next}");
    }

    #[test]
    fn where_no_port_is_free_that_is_said() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = held.local_addr().expect("its address").port();
        let mut ports = Ports {
            first: port,
            count: 1,
            next: 0,
            named: false,
        };
        let Err(Refusal::Port(text)) = ports.take() else {
            panic!("a port that is held was handed out");
        };
        assert!(text.contains(&format!("no port from {port}")), "{text}");
    }

    #[test]
    fn a_program_runs_on_its_cpus_and_is_stopped_by_its_id() {
        let allowed = rustix::thread::sched_getaffinity(None).expect("our own CPUs");
        let last = (0..CpuSet::MAX_CPU)
            .rev()
            .find(|cpu| allowed.is_set(*cpu))
            .expect("one at least");
        let mut running =
            Running::start(&Program::new("sleep", ["30"]), &[last]).expect("sleep is there");
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("it runs");
        assert!(
            status
                .lines()
                .any(|line| line == format!("Cpus_allowed_list:\t{last}")),
            "{status}"
        );
        running.stop();
        assert!(!running.lives());
        let ours = rustix::thread::sched_getaffinity(None).expect("our own CPUs");
        assert_eq!(ours.count(), allowed.count(), "we are not pinned ourselves");
    }

    #[test]
    fn a_program_that_is_not_there_or_ends_early_is_said_so() {
        let error = Running::start(&Program::new("/nowhere/proxy", [""; 0]), &[0])
            .expect_err("there is none");
        assert!(
            error.starts_with("/nowhere/proxy does not start"),
            "{error}"
        );
        let mut ends = Running::start(&Program::new("false", [""; 0]), &[0]).expect("it starts");
        // A port that nobody listens on: 1 is reserved and needs privileges that a test should not use.
        let error = ends.until_it_listens(1).expect_err("it ended");
        assert!(error.contains("ended before it listened"), "{error}");
    }

    #[test]
    fn what_a_load_says_is_read_in_order() {
        let script = "echo '{\"event\":\"begin\"}'; echo '{\"event\":\"end\",\"calls\":7}'; echo '{\"failures\":0}'";
        let flag = Arc::new(AtomicBool::new(false));
        let program = Program::new("sh", ["-c", script]);
        let limit = Duration::from_secs(10);
        let load = Telling::start(&program, &[0], &flag).expect("a shell");
        assert!(load.pid() > 0);
        assert!(load.event("begin", limit).is_ok());
        assert_eq!(load.event("end", limit).expect("an end")["calls"], 7);
        assert_eq!(load.summary(limit).expect("a summary")["failures"], 0);

        let load = Telling::start(&program, &[0], &flag).expect("a shell");
        assert!(load.event("end", limit).is_err(), "it began with begin");
        flag.store(true, Ordering::Relaxed);
        assert_eq!(load.line(limit).expect_err("interrupted"), "interrupted");
    }
}
