//! The backends' processes, and what is done to them: SIGKILL and a new start, SIGSTOP and SIGCONT, on a schedule that
//! follows from the seed and goes by calls, not by the clock, so that a short run has its share of everything.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::book::{Book, Entry};

/// One backend and its process.
pub struct Backend {
    port: u16,
    streams: u32,
    book: PathBuf,
    child: RefCell<Option<Child>>,
    /// Something is being done to it.
    busy: Cell<bool>,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Deeds {
    pub killed: Cell<u64>,
    pub stopped: Cell<u64>,
}

impl Backend {
    pub fn start(port: u16, streams: u32, book: PathBuf) -> io::Result<Self> {
        let own = Self {
            port,
            streams,
            book,
            child: RefCell::new(None),
            busy: Cell::new(false),
        };
        own.spawn()?;
        Ok(own)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn book(&self) -> &Path {
        &self.book
    }

    fn spawn(&self) -> io::Result<()> {
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args(["--port", &self.port.to_string()])
            .args(["--streams", &self.streams.to_string()])
            .arg("--book")
            .arg(&self.book)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        *self.child.borrow_mut() = Some(child);
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.borrow().as_ref().map(Child::id);
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It fails only where the process is gone, which its calls will show.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and the line in the book once it is dead.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(mut child) = self.child.borrow_mut().take() {
            child.kill()?;
            child.wait()?;
            Book::open(&self.book)?.write(&Entry::Killed);
        }
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Does something to somebody each time that `every` more calls are done, until all of them are.
pub async fn conduct(
    backends: Rc<Vec<Backend>>,
    deeds: Rc<Deeds>,
    seed: u64,
    every: u64,
    done: impl Fn() -> Option<u64>,
) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut next = every;
    while let Some(calls) = done() {
        if calls >= next {
            next += every;
            let at = dice.usize(..backends.len());
            let deed = dice.u32(..100);
            let pause = Duration::from_millis(dice.u64(20..900));
            let down = Duration::from_millis(dice.u64(0..600));
            if !backends[at].busy.replace(true) {
                let (backends, deeds) = (Rc::clone(&backends), Rc::clone(&deeds));
                tokio::task::spawn_local(async move {
                    let backend = &backends[at];
                    if let Err(error) = act(backend, &deeds, deed, pause, down).await {
                        eprintln!("ledger: the backend at {}: {error}", backend.port);
                    }
                    backend.busy.set(false);
                });
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
    while backends.iter().any(|backend| backend.busy.get()) {
        sleep(Duration::from_millis(2)).await;
    }
}

async fn act(
    backend: &Backend,
    deeds: &Deeds,
    deed: u32,
    pause: Duration,
    down: Duration,
) -> io::Result<()> {
    let (stops, kills) = match deed {
        0..50 => (false, true),
        50..85 => (true, false),
        _ => (true, true),
    };
    if stops {
        deeds.stopped.set(deeds.stopped.get() + 1);
        backend.signal(Signal::STOP);
        sleep(pause).await;
    }
    if kills {
        deeds.killed.set(deeds.killed.get() + 1);
        backend.kill()?;
        sleep(down).await;
        backend.spawn()?;
    } else {
        backend.signal(Signal::CONT);
    }
    Ok(())
}
