//! A program that a test started: its lines, its end. Stopped by its own id, never by name.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to be there. Generous: several builds may share the machine.
pub const START: Duration = Duration::from_secs(60);

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Mutex<Child>,
    lines: Arc<Lines>,
    /// Backends end when this does, should the test itself be killed.
    _stdin: Option<ChildStdin>,
}

#[derive(Debug, Default)]
struct Lines {
    all: Mutex<Vec<String>>,
    more: Condvar,
}

impl Program {
    /// Starts it. What it prints, on either stream, is kept and not shown.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({error}): run scripts/tools"));
        let lines = Arc::new(Lines::default());
        read(child.stdout.take(), "", &lines);
        read(child.stderr.take(), "stderr: ", &lines);
        Self {
            name: name.to_owned(),
            _stdin: child.stdin.take(),
            child: Mutex::new(child),
            lines,
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// Waits for the first line that `pick` takes. Panics when none comes in time, or when the program has ended.
    pub fn wait_line<T>(&self, patience: Duration, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.find_line(patience, pick)
            .unwrap_or_else(|| panic!("{} did not print what was waited for", self.name))
    }

    /// The same, with `None` in the place of the panic.
    pub fn find_line<T>(
        &self,
        patience: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        let mut seen = 0;
        loop {
            // Asked before the lines are read: what an ended program printed last is not missed.
            let ended = lock(&self.child).try_wait().ok().flatten().is_some();
            let all = lock(&self.lines.all);
            let all = if all.len() > seen {
                all
            } else {
                let waited = self.lines.more.wait_timeout(all, Duration::from_millis(50));
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            if let Some(found) = all[seen..].iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            let nothing_new = all.len() == seen;
            seen = all.len();
            if Instant::now() > end || (ended && nothing_new) {
                return None;
            }
        }
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines.all).clone()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub fn wait(&self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child().try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it any signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child());
        kill_process(id, signal).expect("it is our child and still there");
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        lock(&self.child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- {} had printed:", self.name);
            for line in self.lines() {
                eprintln!("    {line}");
            }
        }
    }
}

fn read(stream: Option<impl Read + Send + 'static>, mark: &'static str, lines: &Arc<Lines>) {
    let stream = stream.expect("the stream was asked for");
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            lock(&lines.all).push(format!("{mark}{line}"));
            lines.more.notify_all();
        }
    });
}

/// A test that fails while it holds a lock must not hide why it failed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what was measured, past the capture of a test's output: it is shown also when the test is green.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "    measured: {line}");
}
