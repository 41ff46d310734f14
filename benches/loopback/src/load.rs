//! The load: gRPC-Web clients over HTTP/1.1, as browsers are, and clients that speak HTTP/2, with gRPC-Web or with gRPC itself.
//! Owns what each kind of load is told, when its measured part begins and ends, and what it reports; the clients themselves
//! stand in [`clients`] and [`http2`]. Every answer is looked at, and one that
//! is not right is a failure in the report.
//!
//! The events `begin` and `end` are said at the very moments between which calls are counted, so that whoever listens can read
//! a proxy's CPU time there; with `--watch` they carry it themselves.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use self::clients::{Clients, Plan};
use crate::answer::Expected;
use crate::{call, clock, say, socket};

mod clients;
mod http2;
mod tally;
#[cfg(test)]
mod tests;

/// How long calls that are open at the end may take to be answered, in nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;

/// How long all connections together may take to be made, in nanoseconds. A proxy that accepts slowly lets the kernel drop
/// what knocks, and the kernel knocks again after one, three and seven seconds.
const CONNECT_NS: u64 = 30_000_000_000;

/// How long the calls of an idle load may take in all, in nanoseconds: there may be thousands at once.
const CALLS_NS: u64 = 60_000_000_000;

/// The room for what was not read, of a client that does not read. In bytes; the kernel makes of it what it can.
const STALLED_RECEIVE_BYTES: usize = 4096;

/// What one read takes at most, in bytes. All connections share the buffer.
const READ_BYTES: usize = 256 * 1024;

/// Connections that are on their way at once: fewer than a listener lets wait.
const CONNECTING_MAX: usize = 256;

/// How long a connection that broke rests before it is made again, in nanoseconds: a target that refuses is not to be hammered.
const REST_NS: u64 = 50_000_000;

/// Clients of one kind: what they do between the moments that a load sets.
trait Crowd {
    /// Waits until there is no broken connection, until `until_ns` at the latest.
    fn mend(&mut self, until_ns: u64) -> io::Result<()>;
    /// Every free client calls.
    fn call_all(&mut self);
    /// Counting begins.
    fn begin(&mut self);
    /// Counting ends: what was counted, for the event.
    fn end(&mut self) -> Value;
    /// Lets open calls end, until `until_ns`; those that do not are failures.
    fn finish(&mut self, until_ns: u64) -> io::Result<()>;
    /// What stands at this moment.
    fn counts(&self) -> Value;
    /// Everything that was counted.
    fn report(&self) -> Value;
    /// Waits until something is ready, `until_ns` at the latest, and does it.
    fn turn(&mut self, until_ns: u64) -> io::Result<()>;
}

/// What `loopback load` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// One call after the other on each connection.
    Closed {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        time: Time,
    },
    /// Calls at a fixed rate, whatever becomes of them; latency is counted from when a call was due.
    Open {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        time: Time,
        /// Calls per second, over all connections.
        #[arg(long)]
        rate: u64,
    },
    /// One server stream of small messages after the other on each connection.
    Stream {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        time: Time,
        /// Messages of each stream.
        #[arg(long, default_value_t = 1000)]
        messages: u64,
    },
    /// As stream, with large messages.
    Bulk {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        time: Time,
        /// Messages of each stream.
        #[arg(long, default_value_t = 64)]
        messages: u64,
    },
    /// One endless stream on each connection; latency is counted from the stamp in each message.
    Tick {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        time: Time,
    },
    /// Connections that do nothing, or have done something once, or have a stream open on which nothing comes.
    Idle {
        #[command(flatten)]
        target: Target,
        /// Calls that each connection makes before it rests, on all connections at once.
        #[arg(long, default_value_t = 0)]
        calls_each: u64,
        /// Opens a stream on each connection, and waits for its head.
        #[arg(long)]
        open_streams: bool,
        /// Seconds for which the connections are held.
        #[arg(long)]
        hold: f64,
        /// Seconds for which the program stays after it has closed them.
        #[arg(long, default_value_t = 0.0)]
        leave_then_hold: f64,
    },
    /// Streams that nobody reads.
    Stalled {
        #[command(flatten)]
        target: Target,
        /// Seconds for which they are held.
        #[arg(long)]
        hold: f64,
    },
}

/// Whom to call, and with what.
#[derive(Debug, Clone, clap::Args)]
struct Target {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections, each with one call at a time over HTTP/1.1.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// gRPC-Web over HTTP/2: closed, stream, bulk and idle.
    #[arg(long)]
    http2: bool,
    /// gRPC itself, over HTTP/2: the same kinds.
    #[arg(long)]
    native: bool,
    /// Calls at a time on each connection of HTTP/2.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Bytes of a message: of the request's and the answer's, or of each of a stream's. 16 for unary calls and ticks, 100 for
    /// streams, 65536 for bulk.
    #[arg(long)]
    bytes: Option<usize>,
    /// gRPC-Web's text mode, over HTTP/1.1.
    #[arg(long)]
    text: bool,
    /// The method's path.
    #[arg(long, default_value = call::PATH)]
    path: String,
    /// A process whose CPU time the events carry as `cpu_ns`: all of its threads, as the scheduler counts them.
    #[arg(long, value_name = "PID")]
    watch: Option<u32>,
}

/// How long.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Time {
    /// Seconds of the measured part.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before it that do not count.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

impl Target {
    fn plan(&self, bytes: usize) -> Plan {
        let bytes = self.bytes.unwrap_or(bytes);
        let payload = call::payload(bytes);
        let host = self.target.to_string();
        Plan {
            target: self.target,
            connections: self.connections,
            request: call::request(&host, &self.path, &payload, self.text),
            expected: Expected {
                payload,
                messages: Some(1),
                stamped: false,
                text: self.text,
                native: self.native,
            },
            again: true,
            receive_bytes: None,
        }
    }

    /// The plan of server streams: the request is small, whatever the messages are.
    fn streams(&self, bytes: usize, messages: Option<u64>) -> Plan {
        let mut plan = self.plan(bytes);
        plan.request = call::request(&self.target.to_string(), &self.path, &[], self.text);
        plan.expected.messages = messages;
        plan.expected.stamped = messages.is_none();
        plan
    }

    /// Connects those who do what the plan says, in the HTTP that was asked for.
    fn connect(&self, plan: Plan) -> io::Result<Box<dyn Crowd>> {
        let until_ns = clock::now_ns() + CONNECT_NS;
        if !self.speaks_http2() {
            return Ok(Box::new(Clients::connect(plan, until_ns)?));
        }
        if self.text {
            return Err(io::Error::other(
                "text is what browsers send that have HTTP/1.1: not with --http2 or --native",
            ));
        }
        let host = self.target.to_string();
        let body = if plan.expected.messages == Some(1) {
            call::envelope(&plan.expected.payload)
        } else {
            call::envelope(&[])
        };
        let plan = http2::Plan {
            target: plan.target,
            connections: plan.connections,
            streams: self.streams.max(1),
            fields: if self.native {
                call::native_fields(&host, &self.path)
            } else {
                call::web_fields(&host, &self.path, body.len())
            },
            body,
            expected: plan.expected,
            again: plan.again,
        };
        Ok(Box::new(http2::Clients::connect(plan, until_ns)?))
    }

    fn speaks_http2(&self) -> bool {
        self.http2 || self.native
    }

    /// This kind of load is of HTTP/1.1 alone.
    fn only_http1(&self) -> io::Result<()> {
        if self.speaks_http2() {
            return Err(io::Error::other(
                "--http2 and --native go with closed, stream, bulk, and idle without --open-streams",
            ));
        }
        Ok(())
    }

    fn event(&self, name: &str, mut more: Value) {
        // Read first: writing takes time too.
        let cpu_ns = self.watch.map(clock::cpu_ns_of);
        if let (Some(cpu_ns), Some(more)) = (cpu_ns, more.as_object_mut()) {
            more.insert("cpu_ns".to_owned(), json!(cpu_ns));
        }
        say::event(name, more);
    }
}

/// Loads until its time is over.
pub(crate) fn main(args: Args) -> ExitCode {
    say::exit(load(&args.kind).map(|report| say::line(&report)))
}

fn load(kind: &Kind) -> io::Result<Value> {
    socket::raise_descriptors();
    match kind {
        Kind::Closed { target, time } => repeated(target, target.plan(16), *time),
        Kind::Open { target, time, rate } => open(target, *time, *rate),
        Kind::Stream {
            target,
            time,
            messages,
        } => repeated(target, target.streams(100, Some(*messages)), *time),
        Kind::Bulk {
            target,
            time,
            messages,
        } => repeated(target, target.streams(65_536, Some(*messages)), *time),
        Kind::Tick { target, time } => repeated(target, target.streams(16, None), *time),
        Kind::Idle {
            target,
            calls_each,
            open_streams,
            hold,
            leave_then_hold,
        } => idle(target, *calls_each, *open_streams, *hold, *leave_then_hold),
        Kind::Stalled { target, hold } => stalled(target, *hold),
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).map_or(0, |time| time.as_nanos() as u64)
}

/// What each connection does as soon as it is free: closed loops, and streams of every kind.
fn repeated(target: &Target, plan: Plan, time: Time) -> io::Result<Value> {
    let endless = plan.expected.messages.is_none();
    if endless {
        target.only_http1()?;
    }
    let mut clients = target.connect(plan)?;
    clients.call_all();
    measured(target, time, &mut *clients)?;
    if !endless {
        clients.finish(clock::now_ns() + PATIENCE_NS)?;
    }
    Ok(clients.report())
}

/// Warm-up, and the part that counts.
fn measured(target: &Target, time: Time, clients: &mut dyn Crowd) -> io::Result<()> {
    let begin_ns = clock::now_ns() + nanoseconds(time.warm_up);
    while clock::now_ns() < begin_ns {
        clients.turn(begin_ns)?;
    }
    target.event("begin", json!({}));
    clients.begin();
    let end_ns = clock::now_ns() + nanoseconds(time.seconds);
    while clock::now_ns() < end_ns {
        clients.turn(end_ns)?;
    }
    let counts = clients.end();
    target.event("end", counts);
    Ok(())
}

fn open(target: &Target, time: Time, rate: u64) -> io::Result<Value> {
    target.only_http1()?;
    let mut plan = target.plan(16);
    plan.again = false;
    let mut clients = Clients::connect(plan, clock::now_ns() + CONNECT_NS)?;
    clients.schedule(rate)?;
    measured(target, time, &mut clients)?;
    clients.finish(clock::now_ns() + PATIENCE_NS)?;
    Ok(clients.report())
}

fn idle(
    target: &Target,
    calls_each: u64,
    open_streams: bool,
    hold: f64,
    leave_then_hold: f64,
) -> io::Result<Value> {
    let mut plan = target.plan(16);
    plan.again = false;
    let mut clients = if open_streams {
        target.only_http1()?;
        let mut clients = Clients::connect(plan, clock::now_ns() + CONNECT_NS)?;
        clients.begin();
        calls(&mut clients, calls_each)?;
        clients.expect_no_end();
        clients.call_all();
        clients.wait_for_heads(clock::now_ns() + CALLS_NS)?;
        Box::new(clients) as Box<dyn Crowd>
    } else {
        let mut clients = target.connect(plan)?;
        clients.begin();
        calls(&mut *clients, calls_each)?;
        clients
    };
    clients.end();
    target.event("holding", clients.counts());
    let until_ns = clock::now_ns() + nanoseconds(hold);
    while clock::now_ns() < until_ns {
        clients.turn(until_ns)?;
    }
    let report = clients.report();
    drop(clients);
    target.event("left", json!({}));
    std::thread::sleep(Duration::from_nanos(nanoseconds(leave_then_hold)));
    Ok(report)
}

/// So many on each connection, one after the other, on all at once.
fn calls(clients: &mut dyn Crowd, each: u64) -> io::Result<()> {
    for _ in 0..each {
        let until_ns = clock::now_ns() + CALLS_NS;
        clients.call_all();
        clients.finish(until_ns)?;
        clients.mend(until_ns)?;
    }
    Ok(())
}

fn stalled(target: &Target, hold: f64) -> io::Result<Value> {
    target.only_http1()?;
    let mut plan = target.streams(65_536, None);
    plan.again = false;
    plan.receive_bytes = Some(STALLED_RECEIVE_BYTES);
    let mut clients = Clients::connect(plan, clock::now_ns() + CONNECT_NS)?;
    clients.never_read();
    clients.call_all();
    target.event("holding", clients.counts());
    let until_ns = clock::now_ns() + nanoseconds(hold);
    while clock::now_ns() < until_ns {
        clients.turn(until_ns)?;
    }
    Ok(clients.counts())
}
