//! A real machine that also does what the test says: accepts that fail, events that are late, a clock that stands still.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Instant;

use mio::net::TcpStream;
use wharf::net::mio::MioDriver;
use wharf::net::{Driver, EVENTS_MAX, Event, Key, Now};

/// What the machine is to do, and what was asked of it.
#[derive(Default)]
pub(crate) struct Script {
    /// Errors that the next accepts end with.
    pub(crate) accept_errors: VecDeque<i32>,
    /// How often it was asked to accept.
    pub(crate) accepts: usize,
    /// A new client waits whenever one is asked for: the address where they come in.
    pub(crate) endless: Option<SocketAddr>,
    /// Events that come with the next ones.
    pub(crate) events: Vec<Event>,
    /// The keys under which sockets were registered, in order.
    pub(crate) keys: Vec<Key>,
    /// Time does not pass.
    pub(crate) frozen: bool,
}

pub(crate) struct Faulty {
    machine: MioDriver,
    script: Rc<RefCell<Script>>,
    first: Option<Now>,
}

impl Faulty {
    pub(crate) fn new(machine: MioDriver, script: &Rc<RefCell<Script>>) -> Self {
        Self {
            machine,
            script: Rc::clone(script),
            first: None,
        }
    }
}

impl Driver for Faulty {
    type Socket = TcpStream;

    fn wait(&mut self, until: Option<Instant>, events: &mut Vec<Event>) -> Now {
        events.append(&mut self.script.borrow_mut().events);
        let now = self.machine.wait(until, events);
        // As many as the machine would bring at most; the others are there when it is asked again.
        let late = events.split_off(EVENTS_MAX.min(events.len()));
        self.script.borrow_mut().events.extend(late);
        let first = *self.first.get_or_insert(now);
        match self.script.borrow().frozen {
            true => first,
            false => now,
        }
    }

    fn accept(&mut self, listener: u32) -> io::Result<(TcpStream, SocketAddr)> {
        let mut script = self.script.borrow_mut();
        script.accepts += 1;
        if let Some(errno) = script.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Some(address) = script.endless {
            drop(std::net::TcpStream::connect(address)?);
        }
        self.machine.accept(listener)
    }

    fn turn_away(&mut self, listener: u32) -> io::Result<()> {
        self.machine.turn_away(listener)
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        self.machine.connect(address)
    }

    fn register(&mut self, socket: &mut TcpStream, key: Key) -> io::Result<()> {
        self.script.borrow_mut().keys.push(key);
        self.machine.register(socket, key)
    }

    fn close_listener(&mut self, listener: u32) {
        self.machine.close_listener(listener);
    }
}

/// Runs `body` in a process of its own, where it may change what belongs to a whole process. `name`: the test's, with its
/// modules.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    const MARK: &str = "WHARF_TEST_ALONE";
    if std::env::var(MARK).as_deref() == Ok(name) {
        return body();
    }
    let own = std::env::current_exe().expect("a test has a program");
    let output = Command::new(own)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, name)
        .output()
        .expect("it starts again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES
            .lock()
            .expect("no panic here")
            .push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// From now on this process remembers what is logged; for a test that is [`alone`].
pub(crate) fn hear_the_log() {
    log::set_logger(&Ear).expect("the first one");
    log::set_max_level(log::LevelFilter::Info);
}

/// What has been logged since it was last asked: `LEVEL text`.
pub(crate) fn heard() -> Vec<String> {
    std::mem::take(&mut LINES.lock().expect("no panic here"))
}
