//! `readers`: hundreds of clients open an answer of megabytes and never read it, and beside them one client makes small calls
//! to the same backend. Nobody blocks anybody.
//!
//! What must hold: the small calls keep a median within twice of what it is without the others, measured in turns; the proxy
//! stays within its memory; who does not read is ended when the proxy's limit is reached (`--limit`), and is gone from the
//! backend as soon as it leaves.
//!
//! ```text
//! readers --proxy HOST:PORT --backend PORT [--pid PID] [--readers N] [--messages BYTES] [--bytes] [--limit SECONDS]
//!         [--rounds N] [--calls N] [--resident-mib N]
//! ```
//!
//! `--messages 100` pours messages of 100 bytes, each in a DATA frame of its own. `--bytes` lets the others upload instead,
//! one byte a second, inside a message. `--limit 0`: the proxy has no such limit, or it is not waited for. The backend runs in
//! this process, on the port that the proxy was told of. One line of JSON goes to standard output, the rest to standard
//! error. Ends with 0 if everything held, 1 if not, 2 for a mistake in the flags.

mod backend;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use caller::{Connection, Form, Frame, Framing, Line};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, timeout};

use backend::Counts;

/// What one reader would be poured, bytes: more than any window and buffer on the way.
const TOTAL_BYTES: usize = 16 << 20;
/// How long one small call may take before it counts as blocked.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Flags {
    proxy: SocketAddr,
    backend: u16,
    pid: Option<u32>,
    readers: usize,
    messages: usize,
    bytes: bool,
    limit: Duration,
    rounds: usize,
    calls: usize,
    resident_mib: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flags = match flags(&arguments) {
        Ok(flags) => flags,
        Err(why) => {
            eprintln!("readers: {why}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(run(&flags)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("readers: {why}");
            ExitCode::FAILURE
        }
    }
}

fn flags(arguments: &[String]) -> Result<Flags, String> {
    let mut proxy = None;
    let mut backend = None;
    let mut flags = Flags {
        proxy: SocketAddr::from(([127, 0, 0, 1], 0)),
        backend: 0,
        pid: None,
        readers: 500,
        messages: 64 << 10,
        bytes: false,
        limit: Duration::ZERO,
        rounds: 3,
        calls: 300,
        resident_mib: 150,
    };
    let mut words = arguments.iter();
    while let Some(name) = words.next() {
        if name == "--bytes" {
            flags.bytes = true;
            continue;
        }
        let Some(value) = words.next() else {
            return Err(format!("{name} wants a value"));
        };
        let number = || {
            let number = value.parse::<u32>();
            number.map_err(|_| format!("{name} wants a number, not {value:?}"))
        };
        match name.as_str() {
            "--proxy" => proxy = value.parse().ok(),
            "--backend" => backend = value.parse().ok(),
            "--pid" => flags.pid = Some(number()?),
            "--readers" => flags.readers = number()? as usize,
            "--messages" => flags.messages = number()?.max(1) as usize,
            "--limit" => flags.limit = Duration::from_secs(number()?.into()),
            "--rounds" => flags.rounds = number()?.max(1) as usize,
            "--calls" => flags.calls = number()?.max(1) as usize,
            "--resident-mib" => flags.resident_mib = number()?.into(),
            name => return Err(format!("no flag {name}")),
        }
    }
    flags.proxy = proxy.ok_or("--proxy HOST:PORT, an address of numbers")?;
    flags.backend = backend.ok_or("--backend PORT")?;
    Ok(flags)
}

/// What was measured.
#[derive(Default)]
struct Figures {
    /// The medians of each round: alone, while the others come, beside them.
    alone: Vec<Duration>,
    filling: Vec<Duration>,
    beside: Vec<Duration>,
    /// The longest small calls.
    alone_max: Duration,
    filling_max: Duration,
    beside_max: Duration,
    /// Small calls that failed or took longer than the patience.
    blocked: u64,
    resident_kib_max: u64,
    /// How long the last of them was open at the backend after the clients had left.
    freed: Vec<Duration>,
    /// Still open long after.
    stuck: u64,
    /// When the proxy had ended the first and the last of those that do nothing.
    ended_first: Option<Duration>,
    ended_last: Option<Duration>,
    /// What the backend had poured into one reader on average when everything stood still.
    poured: u64,
}

async fn run(flags: &Flags) -> io::Result<bool> {
    let counts = backend::start(flags.backend)?;
    let mut caller = Caller::new(flags.proxy);
    let until = Instant::now() + Duration::from_secs(10);
    while caller.call().await.is_none() {
        if Instant::now() > until {
            return Err(io::Error::other("no call gets through the proxy"));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let mut figures = Figures::default();
    for round in 0..flags.rounds {
        let last = round + 1 == flags.rounds;
        one_round(flags, &counts, &mut caller, &mut figures, last).await?;
    }
    Ok(report(flags, &counts, &mut figures))
}

async fn one_round(
    flags: &Flags,
    counts: &Counts,
    caller: &mut Caller,
    figures: &mut Figures,
    last: bool,
) -> io::Result<()> {
    let (median, max) = measure(caller, flags.calls, figures).await;
    figures.alone.push(median);
    figures.alone_max = figures.alone_max.max(max);

    let begun = counts.begun.load(Relaxed) + flags.readers as u64;
    let poured = counts.poured.load(Relaxed);
    let mut others = Vec::with_capacity(flags.readers);
    for _ in 0..flags.readers {
        others.push(open(flags).await?);
    }
    let (median, max) = fill(flags, counts, caller, figures, begun).await;
    figures.filling.push(median);
    figures.filling_max = figures.filling_max.max(max);
    figures.poured = (counts.poured.load(Relaxed) - poured) / flags.readers.max(1) as u64;

    let still = Instant::now();
    let beside = async {
        let (median, max) = measure(caller, flags.calls, figures).await;
        figures.beside.push(median);
        figures.beside_max = figures.beside_max.max(max);
        remember_resident(flags, figures);
        if last && !flags.limit.is_zero() {
            wait_for_limit(flags, counts, caller, figures, still).await;
        }
    };
    if flags.bytes {
        tokio::select! {
            () = beside => {}
            () = drip(&others) => {}
        }
    } else {
        beside.await;
    }
    let left = Instant::now();
    drop(others);
    while counts.open.load(Relaxed) > 0 && left.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(5)).await;
    }
    figures.freed.push(left.elapsed());
    figures.stuck += counts.open.load(Relaxed);
    Ok(())
}

fn remember_resident(flags: &Flags, figures: &mut Figures) {
    if let Some((now, _)) = flags.pid.and_then(caller::resident_kib) {
        figures.resident_kib_max = figures.resident_kib_max.max(now);
    }
}

/// Makes small calls until all the others are there and nothing moves any more.
async fn fill(
    flags: &Flags,
    counts: &Counts,
    caller: &mut Caller,
    figures: &mut Figures,
    begun: u64,
) -> (Duration, Duration) {
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    let mut moved = (0, Instant::now());
    while Instant::now() < until {
        match caller.call().await {
            Some(time) => times.push(time),
            None => figures.blocked += 1,
        }
        remember_resident(flags, figures);
        let poured = counts.poured.load(Relaxed);
        if poured != moved.0 {
            moved = (poured, Instant::now());
        }
        let still = moved.1.elapsed() > Duration::from_millis(300);
        if still && counts.begun.load(Relaxed) >= begun {
            break;
        }
    }
    let max = times.iter().max().copied().unwrap_or_default();
    (caller::median(&mut times), max)
}

async fn measure(caller: &mut Caller, calls: usize, figures: &mut Figures) -> (Duration, Duration) {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        match caller.call().await {
            Some(time) => times.push(time),
            None => {
                figures.blocked += 1;
                if figures.blocked > 10 {
                    break;
                }
                times.push(PATIENCE);
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    let max = times.iter().max().copied().unwrap_or_default();
    (caller::median(&mut times), max)
}

/// Waits until the proxy has ended all of them, or twice its limit is over since everything stood still.
async fn wait_for_limit(
    flags: &Flags,
    counts: &Counts,
    caller: &mut Caller,
    figures: &mut Figures,
    still: Instant,
) {
    while still.elapsed() < flags.limit * 2 {
        let open = counts.open.load(Relaxed);
        if open < flags.readers as u64 && figures.ended_first.is_none() {
            figures.ended_first = Some(still.elapsed());
        }
        if open == 0 {
            figures.ended_last = Some(still.elapsed());
            return;
        }
        if caller.call().await.is_none() {
            figures.blocked += 1;
        }
        remember_resident(flags, figures);
        sleep(Duration::from_millis(50)).await;
    }
}

/// One of the many: a reader that never reads, or a writer that hardly writes.
async fn open(flags: &Flags) -> io::Result<Connection> {
    if flags.bytes {
        let mut connection = Connection::open(flags.proxy).await?;
        let head = caller::head(
            "readers.test",
            backend::TAKE,
            Form::Binary,
            Framing::Chunked,
            "",
        );
        connection.writer.write_all(&head).await?;
        // A frame that promises 4 KiB, which never come.
        let prefix = b"5\r\n\0\0\0\x10\0\r\n";
        connection.writer.write_all(prefix).await?;
        return Ok(connection);
    }
    let mut connection = Connection::open_narrow(flags.proxy).await?;
    let fields = format!(
        "{}: {}\r\n{}: {TOTAL_BYTES}\r\n",
        backend::SIZE,
        flags.messages,
        backend::TOTAL
    );
    connection
        .writer
        .write_all(&request(backend::POUR, &fields))
        .await?;
    Ok(connection)
}

/// One byte from each, every second, for ever.
async fn drip(others: &[Connection]) {
    loop {
        for other in others {
            // Who was ended cannot write any more.
            let _ = other.writer.try_write(b"1\r\n\x07\r\n");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn request(path: &str, fields: &str) -> Vec<u8> {
    let mut body = Vec::new();
    caller::frame(b"a word", &mut body);
    let framing = Framing::Length(body.len());
    let mut out = caller::head("readers.test", path, Form::Binary, framing, fields);
    out.extend(body);
    out
}

/// The one who wants to be served as ever.
struct Caller {
    proxy: SocketAddr,
    connection: Option<Connection>,
    request: Vec<u8>,
}

impl Caller {
    fn new(proxy: SocketAddr) -> Self {
        Self {
            proxy,
            connection: None,
            request: request(backend::SAY, ""),
        }
    }

    /// Makes a call and says how long it took; `None` if it failed or lasted too long.
    async fn call(&mut self) -> Option<Duration> {
        let connection = self.connection.take();
        let begun = Instant::now();
        let (connection, time) = timeout(PATIENCE, self.make(connection, begun))
            .await
            .ok()??;
        self.connection = Some(connection);
        Some(time)
    }

    async fn make(
        &self,
        connection: Option<Connection>,
        begun: Instant,
    ) -> Option<(Connection, Duration)> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(self.proxy).await.ok()?,
        };
        connection.writer.write_all(&self.request).await.ok()?;
        let (_, mut body) = connection.reader.head().await.ok()?;
        let mut messages = 0;
        let mut ok = false;
        loop {
            match connection.reader.frame(&mut body).await.ok()? {
                Frame::Message(_) => messages += 1,
                Frame::Trailers(fields) => {
                    ok = fields.contains(&("grpc-status".to_owned(), "0".to_owned()));
                }
                Frame::End => break,
            }
        }
        (ok && messages == 1).then(|| (connection, begun.elapsed()))
    }
}

fn report(flags: &Flags, counts: &Counts, figures: &mut Figures) -> bool {
    let alone = caller::median(&mut figures.alone);
    let filling = caller::median(&mut figures.filling);
    let beside = caller::median(&mut figures.beside);
    let freed = figures.freed.iter().max().copied().unwrap_or_default();
    let ratio = beside.as_secs_f64() / alone.as_secs_f64().max(f64::MIN_POSITIVE);
    let resident_mib = figures.resident_kib_max / 1024;
    let limited = flags.limit.is_zero() || figures.ended_last.is_some();
    let faults: Vec<&str> = [
        (ratio > 2.0, "slower than twice"),
        (figures.blocked > 0, "blocked"),
        (resident_mib > flags.resident_mib, "memory"),
        (figures.stuck > 0, "stuck at the backend"),
        (!limited, "never ended"),
    ]
    .into_iter()
    .filter_map(|(wrong, what)| wrong.then_some(what))
    .collect();
    let seconds = |time: Option<Duration>| match time {
        Some(time) => format!("{:.1}", time.as_secs_f64()),
        None => "null".to_owned(),
    };
    let what = match flags.bytes {
        true => "clients that send a byte a second".to_owned(),
        false => format!("clients that never read, messages of {} B", flags.messages),
    };
    eprintln!(
        "readers: {} {what}, {} rounds\n  small calls: {alone:?} alone (longest {:?}), {filling:?} while they come ({:?}), \
         {beside:?} beside them ({:?}), {ratio:.2} times\n  blocked {}, resident at most {resident_mib} MiB, {} KiB poured \
         into each, gone {freed:?} after they left, {} stuck\n  ended by the proxy after {} to {} s; {} connections to the \
         backend in all\n  {}",
        flags.readers,
        flags.rounds,
        figures.alone_max,
        figures.filling_max,
        figures.beside_max,
        figures.blocked,
        figures.poured / 1024,
        figures.stuck,
        seconds(figures.ended_first),
        seconds(figures.ended_last),
        counts.connections.load(Relaxed),
        if faults.is_empty() {
            "held".to_owned()
        } else {
            format!("FAULT {}", faults.join(", "))
        }
    );
    let mut line = Line::default();
    line.word("trial", "readers")
        .truth("held", faults.is_empty())
        .word("variant", if flags.bytes { "bytes" } else { "messages" })
        .number("readers", flags.readers)
        .number("message_bytes", flags.messages)
        .number("alone_us", alone.as_micros())
        .number("filling_us", filling.as_micros())
        .number("beside_us", beside.as_micros())
        .number("alone_us_max", figures.alone_max.as_micros())
        .number("filling_us_max", figures.filling_max.as_micros())
        .number("beside_us_max", figures.beside_max.as_micros())
        .number("ratio", format!("{ratio:.2}"))
        .number("blocked", figures.blocked)
        .number("resident_mib", resident_mib)
        .number("poured_kib_each", figures.poured / 1024)
        .number("freed_ms", freed.as_millis())
        .number("stuck", figures.stuck)
        .number("ended_first_s", seconds(figures.ended_first))
        .number("ended_last_s", seconds(figures.ended_last))
        .number("connections", counts.connections.load(Relaxed))
        .word("faults", &faults.join(", "));
    println!("{}", line.finish());
    faults.is_empty()
}
