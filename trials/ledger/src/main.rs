//! `ledger`: many calls of which every message is stamped go through a proxy to backends that are killed and stopped; at the
//! end the books of the clients and of the backends are compared, call by call.
//!
//! What must hold, whatever is done to the backends: every call that its client did not leave ends with a status, or with a
//! cut inside a message, where no status could stand; no call is begun twice; no message is another call's, another one of
//! the same call, or bent; nothing that is not whole is called whole, neither an answer nor a request; a call that nobody
//! disturbed succeeds; and nothing stays open at a backend. `offered = ok + errors + cut + left`, exactly.
//!
//! ```text
//! ledger --proxy HOST:PORT --backend PORT [--backend PORT]… [--pid PID] [--calls N] [--connections N] [--events N]
//!        [--seed N] [--books FOLDER]
//! ```
//!
//! The backends are this program's own children, on the ports that the proxy was told of. One line of JSON goes to standard
//! output, the rest to standard error. Ends with 0 if everything held, 1 if not, 2 for a mistake in the flags.

mod audit;
mod backend;
mod book;
mod client;
mod conductor;
mod plan;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use caller::{Connection, Line};
use tokio::time::{Instant, sleep, timeout};

use audit::{Audit, audit};
use client::{End, Floor};
use conductor::{Backend, Deeds, conduct};
use plan::{Method, Plan};

/// Streams that the backends allow on a connection, in turn: as servers commonly do, few, and many.
const STREAMS: [u32; 3] = [100, 8, 1000];
/// How long a call may take, whatever is done to the backends.
const PATIENCE: Duration = Duration::from_secs(30);

struct Flags {
    proxy: SocketAddr,
    backends: Vec<u16>,
    pid: Option<u32>,
    calls: u64,
    connections: u64,
    events: u64,
    seed: u64,
    books: PathBuf,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if arguments.first().is_some_and(|word| word == "serve") {
        arguments.remove(0);
        return runtime.block_on(serve(&arguments));
    }
    let flags = match flags(&arguments) {
        Ok(flags) => flags,
        Err(why) => {
            eprintln!("ledger: {why}");
            return ExitCode::from(2);
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, run(flags)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("ledger: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A backend's process: started by the conductor, and by nobody else.
async fn serve(arguments: &[String]) -> ExitCode {
    let value = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1)
    };
    let parsed = (|| {
        let port = value("--port")?.parse().ok()?;
        let streams = value("--streams")?.parse().ok()?;
        Some((port, streams, PathBuf::from(value("--book")?)))
    })();
    let Some((port, streams, book)) = parsed else {
        return ExitCode::from(2);
    };
    if let Err(error) = backend::serve(port, streams, &book).await {
        eprintln!("ledger: the backend at {port}: {error}");
    }
    ExitCode::FAILURE
}

fn flags(arguments: &[String]) -> Result<Flags, String> {
    let mut proxy = None;
    let mut flags = Flags {
        proxy: SocketAddr::from(([127, 0, 0, 1], 0)),
        backends: Vec::new(),
        pid: None,
        calls: 3_000,
        connections: 96,
        events: 30,
        seed: 1,
        books: std::env::temp_dir().join(format!("ledger-{}", std::process::id())),
    };
    let mut words = arguments.iter();
    while let Some(name) = words.next() {
        let Some(value) = words.next() else {
            return Err(format!("{name} wants a value"));
        };
        let number = || {
            let number = value.parse::<u64>();
            number.map_err(|_| format!("{name} wants a number, not {value:?}"))
        };
        let port = || u16::try_from(number()?).map_err(|_| format!("{value} is no port"));
        match name.as_str() {
            "--proxy" => proxy = value.parse().ok(),
            "--backend" => flags.backends.push(port()?),
            "--pid" => flags.pid = Some(u32::try_from(number()?).map_err(|_| "no pid")?),
            "--calls" => flags.calls = number()?.max(1),
            "--connections" => flags.connections = number()?.max(1),
            "--events" => flags.events = number()?,
            "--seed" => flags.seed = number()?,
            "--books" => flags.books = value.into(),
            name => return Err(format!("no flag {name}")),
        }
    }
    flags.proxy = proxy.ok_or("--proxy HOST:PORT, an address of numbers")?;
    if flags.backends.is_empty() {
        return Err("--backend PORT, once or several times".to_owned());
    }
    Ok(flags)
}

async fn run(flags: Flags) -> std::io::Result<bool> {
    std::fs::create_dir_all(&flags.books)?;
    let mut backends = Vec::new();
    for (at, &port) in flags.backends.iter().enumerate() {
        let book = flags.books.join(format!("backend-{port}"));
        let _ = std::fs::remove_file(&book);
        backends.push(Backend::start(port, STREAMS[at % STREAMS.len()], book)?);
    }
    let backends = Rc::new(backends);
    let floor = Rc::new(Floor {
        proxy: flags.proxy,
        seed: flags.seed,
        calls: flags.calls,
        patience: PATIENCE,
        next: Cell::new(0),
        done: Cell::new(0),
        hung: Cell::new(0),
        ends: RefCell::new(vec![None; flags.calls as usize]),
        late: RefCell::default(),
        connections: Cell::new(0),
    });
    greet(&flags, &backends).await?;

    let begun = Instant::now();
    let deeds = Rc::new(Deeds::default());
    let every = flags.calls.checked_div(flags.events).unwrap_or(u64::MAX);
    let progress = {
        let floor = Rc::clone(&floor);
        move || (floor.next.get() < floor.calls).then(|| floor.done.get())
    };
    let conducted = tokio::task::spawn_local(conduct(
        Rc::clone(&backends),
        Rc::clone(&deeds),
        flags.seed,
        every.max(1),
        progress,
    ));
    let clients: Vec<_> = (0..flags.connections)
        .map(|number| tokio::task::spawn_local(client::client(Rc::clone(&floor), number)))
        .collect();
    for client in clients {
        client.await?;
    }
    conducted.await?;
    let elapsed = begun.elapsed();
    quiet(&backends).await?;
    let resident = flags.pid.and_then(caller::resident_kib);
    let descriptors = flags.pid.and_then(caller::descriptors);

    let mut books = Vec::new();
    for backend in backends.iter() {
        books.push(book::read(backend.book())?);
    }
    let audit = audit(flags.seed, &floor.ends.borrow(), &books);
    let held = report(
        &flags,
        &floor,
        &deeds,
        &audit,
        elapsed,
        resident,
        descriptors,
    );
    if held {
        std::fs::remove_dir_all(&flags.books)?;
    } else {
        eprintln!("ledger: the books are in {}", flags.books.display());
    }
    Ok(held)
}

/// Waits until calls get through. Greetings have ids of their own, beyond those of the run.
async fn greet(flags: &Flags, backends: &[Backend]) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    for backend in backends {
        while tokio::net::TcpStream::connect(("127.0.0.1", backend.port()))
            .await
            .is_err()
        {
            if Instant::now() > until {
                return Err(std::io::Error::other("a backend does not start"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    let mut dice = fastrand::Rng::with_seed(0);
    let greetings = (flags.calls + 1..)
        .map(|id| Plan::of(flags.seed, id))
        .filter(|plan| {
            plan.method == Method::Unary
                && plan.code == 0
                && plan.leave.is_none()
                && plan.deadline_ms.is_none()
        });
    for plan in greetings {
        if let Ok(connection) = Connection::open(flags.proxy).await {
            let made = client::make(&plan, flags.seed, connection, &mut dice);
            if let Ok((End::Status { code: 0, .. }, _)) =
                timeout(Duration::from_secs(5), made).await
            {
                return Ok(());
            }
        }
        if Instant::now() > until {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(std::io::Error::other("no call gets through the proxy"))
}

/// Waits until nothing is open at the backends, or it is clear that something stays open.
async fn quiet(backends: &[Backend]) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let mut open = 0;
        for backend in backends {
            let mut alive = std::collections::HashSet::new();
            for (_, entry) in book::read(backend.book())? {
                match entry {
                    book::Entry::Begun(id) => {
                        alive.insert(id);
                    }
                    book::Entry::Answered(id, ..) | book::Entry::Left(id, _) => {
                        alive.remove(&id);
                    }
                    book::Entry::Started | book::Entry::Killed => alive.clear(),
                    book::Entry::Read(..) | book::Entry::Wrong(..) => {}
                }
            }
            open += alive.len();
        }
        if open == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn report(
    flags: &Flags,
    floor: &Floor,
    deeds: &Deeds,
    audit: &Audit,
    elapsed: Duration,
    resident: Option<(u64, u64)>,
    descriptors: Option<usize>,
) -> bool {
    let sum = audit.ok + audit.own_errors + audit.proxy_errors + audit.cut_in_message + audit.left;
    let faults: u64 = audit.faults.values().sum();
    let held = sum == flags.calls && faults == 0;
    let mut late = floor.late.borrow_mut();
    let late_median = caller::median(&mut late);
    let late_max = late.last().copied().unwrap_or_default();

    eprintln!(
        "ledger: {} calls in {:.1} s over {} connections; backends killed {} times, stopped {} times",
        flags.calls,
        elapsed.as_secs_f64(),
        floor.connections.get(),
        deeds.killed.get(),
        deeds.stopped.get()
    );
    for (cause, count) in &audit.causes {
        eprintln!("  {count:>8}  {cause}");
    }
    eprintln!(
        "  {} offered = {} ok + {} backends' own errors + {} proxy's errors + {} cut + {} left{}",
        flags.calls,
        audit.ok,
        audit.own_errors,
        audit.proxy_errors,
        audit.cut_in_message,
        audit.left,
        if sum == flags.calls {
            ""
        } else {
            "  DOES NOT ADD UP"
        },
    );
    eprintln!(
        "  {} calls were seen by a backend, {} died with one; deadlines were overrun by {:?} (median), {:?} (most)",
        audit.begun, audit.died, late_median, late_max
    );
    for story in &audit.stories {
        eprintln!("  FAULT {story}");
    }
    let mut line = Line::default();
    line.word("trial", "ledger")
        .truth("held", held)
        .number("seed", flags.seed)
        .number("offered", flags.calls)
        .number("ok", audit.ok)
        .number("own_errors", audit.own_errors)
        .number("proxy_errors", audit.proxy_errors)
        .number("cut_in_message", audit.cut_in_message)
        .number("left", audit.left)
        .number("begun", audit.begun)
        .number("died", audit.died)
        .number("killed", deeds.killed.get())
        .number("stopped", deeds.stopped.get())
        .number("seconds", format!("{:.1}", elapsed.as_secs_f64()))
        .number("late_ms_median", late_median.as_millis())
        .number("late_ms_max", late_max.as_millis())
        .counts("causes", &audit.causes)
        .counts("faults", &audit.faults);
    if let Some((now, most)) = resident {
        line.number("resident_kib", now)
            .number("resident_kib_max", most);
    }
    if let Some(descriptors) = descriptors {
        line.number("descriptors", descriptors);
    }
    println!("{}", line.finish());
    held
}
