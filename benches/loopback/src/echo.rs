//! The backend: a gRPC server that is as cheap as one can be, so that what is measured is the proxy before it. Owns its
//! listeners, its one thread and its turn; how a connection speaks HTTP/2 stands in [`connection`]. It reads no head: what a
//! call does is decided by the port that it comes in on.
//!
//! Source: RFC 9113 (HTTP/2), the gRPC over HTTP/2 protocol page.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Map, Value, json};
use slab::Slab;

use self::connection::{Conduct, Connection};
use crate::clock::{self, Timer};
use crate::socket::{self, Stop};
use crate::{call, say};

mod connection;

/// What one read takes at most, in bytes. All connections share the buffer.
const READ_BYTES: usize = 256 * 1024;

/// Tokens of what is no connection: they stand above all connections.
const STOP: Token = Token(usize::MAX);
const TICK: Token = Token(usize::MAX - 1);
const FIRST_LISTENER: usize = usize::MAX / 2;

/// What `loopback echo` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen and what calls do there: `MODE=127.0.0.1:PORT`; port 0 takes a free one. May be given several times.
    ///
    /// unary: each answer is the request's body. stream: --messages of --bytes each. bulk: --bulk-messages of --bulk-bytes
    /// each. tick: a message every --every-ms, for ever, with the time in its first eight bytes. hang: a head, then nothing.
    #[arg(long = "listen", required = true, value_name = "MODE=ADDRESS")]
    listen: Vec<Listen>,
    /// Messages of a stream.
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// Bytes of each message of a stream.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Messages of a bulk stream.
    #[arg(long, default_value_t = 64)]
    bulk_messages: u64,
    /// Bytes of each message of a bulk stream.
    #[arg(long, default_value_t = 65_536)]
    bulk_bytes: usize,
    /// Milliseconds between two messages of a ticking stream.
    #[arg(long, default_value_t = 10)]
    every_ms: u64,
    /// Bytes of each message of a ticking stream; eight at least.
    #[arg(long, default_value_t = 16)]
    tick_bytes: usize,
    /// Seconds after which it ends by itself.
    #[arg(long = "for", default_value_t = 600)]
    seconds: u64,
}

/// One listener as it is asked for.
#[derive(Debug, Clone)]
struct Listen {
    mode: Mode,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Unary,
    Stream,
    Tick,
    Bulk,
    Hang,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mode, address) = text
            .split_once('=')
            .ok_or("MODE=ADDRESS, as in unary=127.0.0.1:0")?;
        Ok(Self {
            mode: clap::ValueEnum::from_str(mode, false)?,
            address: address
                .parse()
                .map_err(|error| format!("{address}: {error}"))?,
        })
    }
}

/// Serves until it is told to stop or its time is over.
pub(crate) fn main(args: Args) -> ExitCode {
    say::exit(serve(&args))
}

fn serve(args: &Args) -> io::Result<()> {
    socket::raise_descriptors();
    let mut echo = Echo::new(args)?;
    let until_ns = clock::now_ns() + args.seconds * 1_000_000_000;
    let mut stopped = false;
    while !stopped && clock::now_ns() < until_ns {
        stopped = echo.turn()?;
    }
    say::line(&json!({
        "calls": echo.calls,
        "messages": echo.messages,
        "connections": echo.accepted,
        "cpu_ns": clock::own_cpu_ns(),
    }));
    Ok(())
}

/// The program's whole world.
struct Echo {
    poll: Poll,
    events: Events,
    listeners: Vec<(TcpListener, Conduct)>,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
    /// Connections to read, and those that have something to say.
    readable: Vec<usize>,
    speaking: Vec<usize>,
    tick: Option<Timer>,
    calls: u64,
    messages: u64,
    accepted: u64,
    _stop: Stop,
}

impl Echo {
    fn new(args: &Args) -> io::Result<Self> {
        let poll = Poll::new()?;
        let stop = Stop::on(poll.registry(), STOP)?;
        let mut listeners = Vec::new();
        let mut all = Map::new();
        let mut first = None;
        let mut tick = None;
        for (index, listen) in args.listen.iter().enumerate() {
            let mut listener = socket::listen(listen.address)?;
            poll.registry().register(
                &mut listener,
                Token(FIRST_LISTENER + index),
                Interest::READABLE,
            )?;
            let address = listener.local_addr()?;
            first.get_or_insert(address);
            let name = clap::ValueEnum::to_possible_value(&listen.mode);
            if let Some(name) = name {
                all.insert(name.get_name().to_owned(), Value::from(address.to_string()));
            }
            if listen.mode == Mode::Tick {
                // Streams tick from when they began: the timer only has to look often enough.
                let period = Duration::from_millis(args.every_ms) / 10;
                tick = Some(Timer::every(period, poll.registry(), TICK)?);
            }
            listeners.push((listener, conduct(listen.mode, args)));
        }
        say::line(&json!({ "listening": first.map(|address| address.to_string()), "all": all }));
        Ok(Self {
            poll,
            events: Events::with_capacity(4096),
            listeners,
            connections: Slab::new(),
            buffer: vec![0; READ_BYTES],
            readable: Vec::new(),
            speaking: Vec::new(),
            tick,
            calls: 0,
            messages: 0,
            accepted: 0,
            _stop: stop,
        })
    }

    /// Wait, read, tick, write: `true` once it was told to stop.
    fn turn(&mut self) -> io::Result<bool> {
        let rests = self.readable.is_empty() && self.speaking.is_empty();
        let timeout = if rests {
            Duration::from_millis(250)
        } else {
            Duration::ZERO
        };
        socket::wait(&mut self.poll, &mut self.events, timeout)?;
        let (mut stop, mut ticks, mut knocks) = (false, false, Vec::new());
        for event in &self.events {
            match event.token() {
                STOP => stop = true,
                TICK => ticks = true,
                Token(listener) if listener >= FIRST_LISTENER => {
                    knocks.push(listener - FIRST_LISTENER);
                }
                Token(key) => {
                    let Some(connection) = self.connections.get_mut(key) else {
                        continue;
                    };
                    if event.is_writable() && connection.make_writable() {
                        speak(&mut self.speaking, connection, key);
                    }
                    if event.is_readable() && connection.make_readable(event.is_read_closed()) {
                        self.readable.push(key);
                    }
                }
            }
        }
        self.read();
        if ticks {
            self.tick();
        }
        self.write();
        // Last, so that no event of this turn is taken for one of a connection that came in its place.
        for listener in knocks {
            self.accept(listener);
        }
        Ok(stop)
    }

    /// One read for each connection that has bytes.
    fn read(&mut self) {
        let keys = std::mem::take(&mut self.readable);
        for key in keys {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            let Some(more) = connection.read(&mut self.buffer) else {
                self.connections.remove(key);
                continue;
            };
            if more {
                self.readable.push(key);
            }
            speak(&mut self.speaking, connection, key);
        }
    }

    fn tick(&mut self) {
        if let Some(timer) = &self.tick {
            timer.rearm();
        }
        let now_ns = clock::now_ns();
        for (key, connection) in &mut self.connections {
            if connection.tick(now_ns) {
                speak(&mut self.speaking, connection, key);
            }
        }
    }

    /// One write for each connection that has something to say.
    fn write(&mut self) {
        let keys = std::mem::take(&mut self.speaking);
        for key in keys {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.is_listed = false;
            let Some(more) = connection.write() else {
                self.connections.remove(key);
                continue;
            };
            let (calls, messages) = connection.take_counts();
            self.calls += calls;
            self.messages += messages;
            if more {
                speak(&mut self.speaking, connection, key);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        let Some((listener, conduct)) = self.listeners.get(index) else {
            return;
        };
        while let Ok((mut stream, _)) = listener.accept() {
            let slot = self.connections.vacant_entry();
            let key = slot.key();
            // A connection that is broken already is nobody's loss.
            if stream.set_nodelay(true).is_ok()
                && socket::register(self.poll.registry(), &mut stream, Token(key)).is_ok()
            {
                let connection = slot.insert(Connection::new(stream, conduct.clone()));
                self.accepted += 1;
                speak(&mut self.speaking, connection, key);
            }
        }
    }
}

fn speak(speaking: &mut Vec<usize>, connection: &mut Connection, key: usize) {
    if !connection.is_listed {
        connection.is_listed = true;
        speaking.push(key);
    }
}

fn conduct(mode: Mode, args: &Args) -> Conduct {
    let envelope = |bytes| call::envelope(&call::payload(bytes)).into();
    match mode {
        Mode::Unary => Conduct::Echo,
        Mode::Stream => Conduct::Messages(envelope(args.bytes), args.messages),
        Mode::Bulk => Conduct::Messages(envelope(args.bulk_bytes), args.bulk_messages),
        Mode::Tick => {
            let every_ns = args.every_ms.max(1) * 1_000_000;
            Conduct::Ticks(envelope(args.tick_bytes.max(8)), every_ns)
        }
        Mode::Hang => Conduct::Silence,
    }
}
