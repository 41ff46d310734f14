//! What the real binary holds: nothing but itself when idle, and for each connection what is promised and no more.
//!
//! Owns the bounds on resident memory, taken from `/proc/PID/status` of the program that cargo built (or `WHARF_BIN`) in front of
//! a backend that is a thread of this process. It counts what the process holds; what the kernel holds for a socket is not in
//! it. Every port is a free one of the loopback address, and the program is stopped by its own id.

#![cfg(target_os = "linux")]

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long anything may take. Generous: several builds may share the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long memory must have stood still before it is believed.
const QUIET: Duration = Duration::from_millis(300);
/// Clients' connections that are idle, or have had one call each at the same time.
const CONNECTIONS: usize = 10_000;
/// Streams that are open at the same time and say nothing.
const STREAMS: usize = 5_000;
/// Descriptors of this process and of the program that are no client's.
const DESCRIPTORS_SPARE: usize = 200;

/// What the program may hold when nobody has come yet, bytes. A build for debugging is a larger program.
const IDLE_BYTES_MAX: usize = if cfg!(debug_assertions) {
    10 << 20
} else {
    4_800_000
};
/// For each idle connection that was never used, bytes.
const IDLE_CONNECTION_BYTES_MAX: usize = 340;
/// For each connection that had one call, all of them at the same time, bytes. Most of it is what the allocator keeps.
const USED_CONNECTION_BYTES_MAX: usize = 3_500;
/// For each open stream that says nothing, its connection included, bytes.
const STREAM_BYTES_MAX: usize = 2_600;
/// When all of a burst of that many calls have left, bytes. Nearly all of it is what the allocator keeps.
const AFTER_BYTES_MAX: usize = 40 << 20;

#[test]
fn an_idle_connection_costs_a_few_hundred_bytes() {
    let (wharf, _backend) = both();
    let idle = wharf.resident();
    let clients = wharf.clients(CONNECTIONS);
    let each = wharf.resident().saturating_sub(idle) / clients.len();
    report("idle", idle, "B in all");
    report("idle connection", each, "B");
    assert!(each <= IDLE_CONNECTION_BYTES_MAX, "{each} B");
    assert!(idle <= IDLE_BYTES_MAX, "{idle} B");
}

#[test]
fn ten_thousand_calls_at_once_leave_a_bounded_amount_behind() {
    let (wharf, backend) = both();
    let idle = wharf.resident();
    let mut clients = wharf.clients(CONNECTIONS);
    backend.hold(clients.len());
    for client in &mut clients {
        client.write_all(CALL).expect("it reads");
    }
    for client in &mut clients {
        let answer = read_to(client, b"\r\n0\r\n\r\n");
        assert!(answer.contains("grpc-status:0"), "{answer}");
    }
    let each = wharf.resident().saturating_sub(idle) / clients.len();
    report("used connection", each, "B");
    drop(clients);
    wharf.wait_descriptors(0);
    let after = wharf.settled(AFTER_BYTES_MAX);
    report("after all have left", after, "B in all");
    assert!(each <= USED_CONNECTION_BYTES_MAX, "{each} B");
    assert!(after <= AFTER_BYTES_MAX, "{after} B after {idle} B");
}

#[test]
fn an_open_silent_stream_costs_a_few_kilobytes() {
    let (wharf, backend) = both();
    let idle = wharf.resident();
    let mut clients = wharf.clients(STREAMS);
    backend.be_silent();
    for client in &mut clients {
        client.write_all(CALL).expect("it reads");
    }
    for client in &mut clients {
        let answer = read_to(client, b"\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let each = wharf.resident().saturating_sub(idle) / clients.len();
    report("open silent stream", each, "B");
    drop(clients);
    wharf.wait_descriptors(0);
    let after = wharf.settled(AFTER_BYTES_MAX);
    report("after all streams have left", after, "B in all");
    assert!(each <= STREAM_BYTES_MAX, "{each} B");
    assert!(after <= AFTER_BYTES_MAX, "{after} B after {idle} B");
}

/// Tells what was measured, past the capture of a test's output: it is shown also when the test is green.
fn report(what: &str, bytes: usize, unit: &str) {
    let _ = writeln!(std::io::stderr(), "    measured: {what}: {bytes} {unit}");
}

/// A call as a browser's client library sends it, with one empty message.
const CALL: &[u8] = b"POST /pkg.Greeter/SayHello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n\
    content-type: application/grpc-web+proto\r\ncontent-length: 5\r\naccept: */*\r\n\
    origin: http://localhost:5173\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0\r\n\
    x-user-agent: grpc-web-javascript/0.1\r\nx-grpc-web: 1\r\n\
    authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0\r\n\r\n\0\0\0\0\0";

/// Reads an answer until `end` has come.
fn read_to(client: &mut TcpStream, end: &[u8]) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.windows(end.len()).any(|window| window == end) {
        let n = client.read(&mut piece).expect("an answer in time");
        assert_ne!(n, 0, "cut after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A program and its backend. One pair at a time: what one test's ten thousand clients cost the machine disturbs another's.
fn both() -> (Wharf, Backend) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to its hard limit");
    let backend = Backend::start();
    (Wharf::before(backend.address, turn), backend)
}

/// The program under test.
struct Wharf {
    child: Child,
    address: SocketAddr,
    descriptors: usize,
    /// Held until the program has gone.
    _turn: MutexGuard<'static, ()>,
}

impl Wharf {
    fn before(backend: SocketAddr, turn: MutexGuard<'static, ()>) -> Self {
        let binary = std::env::var_os("WHARF_BIN");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_wharf").into());
        let mut child = Command::new(binary)
            .args(["--listen", "127.0.0.1:0", "--workers", "1", "--backend"])
            .arg(backend.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("it was asked for"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).expect("UTF-8"), 0, "it has ended");
            if let Some((_, rest)) = line.split_once("http://127.0.0.1:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{digits}").parse().expect("a port");
            }
        };
        thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut wharf = Self {
            child,
            address,
            descriptors: 0,
            _turn: turn,
        };
        wharf.resident();
        wharf.descriptors = wharf.count_descriptors();
        wharf
    }

    /// As many clients as that, or as descriptors allow, all of them accepted.
    fn clients(&self, count: usize) -> Vec<TcpStream> {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) as usize;
        // A program keeps a quarter of its descriptors for its backends.
        let allowed = (allowed / 4 * 3).saturating_sub(DESCRIPTORS_SPARE);
        let count = count.min(allowed);
        let clients: Vec<TcpStream> = (0..count)
            .map(|_| {
                let client = TcpStream::connect(self.address).expect("it listens");
                client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                client
            })
            .collect();
        self.wait_descriptors(count);
        clients
    }

    /// Waits until it has taken so many clients, or lost all others.
    fn wait_descriptors(&self, clients: usize) {
        let until = Instant::now() + PATIENCE;
        while self
            .count_descriptors()
            .abs_diff(self.descriptors + clients)
            > 3
        {
            assert!(Instant::now() < until, "{}", self.count_descriptors());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn count_descriptors(&self) -> usize {
        let list = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        list.expect("it lives").count()
    }

    /// What it holds once that stands still, bytes.
    fn resident(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        let mut last = (self.resident_now(), Instant::now());
        while last.1.elapsed() < QUIET {
            assert!(Instant::now() < until, "its memory does not come to rest");
            thread::sleep(Duration::from_millis(20));
            let now = self.resident_now();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        last.0
    }

    /// The same, once it is no more than `bytes_max`: connections to the backend are replaced some seconds after a burst.
    fn settled(&self, bytes_max: usize) -> usize {
        let until = Instant::now() + PATIENCE;
        while self.resident_now() > bytes_max && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        self.resident()
    }

    fn resident_now(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        kilobytes
            .expect("VmRSS")
            .parse::<usize>()
            .expect("a number")
            << 10
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gRPC server of this process, which reads no metadata: one thread for each connection.
struct Backend {
    address: SocketAddr,
    /// How many calls must have come before the first is answered; `usize::MAX`: each gets its head and nothing else.
    held: Arc<AtomicUsize>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let held = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&held);
        let arrived = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                let (held, arrived) = (Arc::clone(&own), Arc::clone(&arrived));
                thread::spawn(move || serve(peer, &held, &arrived));
            }
        });
        Self { address, held }
    }

    fn hold(&self, calls: usize) {
        self.held.store(calls, Ordering::SeqCst);
    }

    fn be_silent(&self) {
        self.held.store(usize::MAX, Ordering::SeqCst);
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// RFC 7541 §6.2.2: a field whose name and value stand there in full.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, name.len() as u8];
    out.extend_from_slice(name.as_bytes());
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
    out
}

/// One connection of the program under test (RFC 9113), until it ends.
fn serve(mut peer: TcpStream, held: &AtomicUsize, arrived: &AtomicUsize) {
    let head = [
        &[0x88][..],
        &field("content-type", "application/grpc+proto"),
    ]
    .concat();
    let trailers = field("grpc-status", "0");
    let mut out = Vec::new();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    frame(&mut out, WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
    let mut unread = VecDeque::new();
    let mut preface = 24;
    let mut piece = vec![0; 64 << 10];
    let mut waiting = Vec::new();
    loop {
        if peer.write_all(&out).is_err() {
            return;
        }
        out.clear();
        let read = match peer.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        unread.extend(&piece[..read]);
        let skip = preface.min(unread.len());
        unread.drain(..skip);
        preface -= skip;
        while unread.len() >= 9 {
            let at = |index: usize| u32::from(unread[index]);
            let length = (at(0) << 16 | at(1) << 8 | at(2)) as usize;
            let (kind, flags) = (unread[3], unread[4]);
            let stream = (at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8)) & (u32::MAX >> 1);
            if unread.len() < 9 + length {
                break;
            }
            let payload: Vec<u8> = unread.drain(..9 + length).skip(9).collect();
            match kind {
                SETTINGS if flags & ACK == 0 => frame(&mut out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(&mut out, PING, ACK, 0, &payload),
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    waiting.push(stream);
                    arrived.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        let wanted = held.load(Ordering::SeqCst);
        if wanted == usize::MAX {
            for stream in waiting.drain(..) {
                frame(&mut out, HEADERS, END_HEADERS, stream, &head);
            }
        } else if arrived.load(Ordering::SeqCst) >= wanted {
            for stream in waiting.drain(..) {
                frame(&mut out, HEADERS, END_HEADERS, stream, &head);
                frame(&mut out, DATA, 0, stream, &[0; 5]);
                frame(
                    &mut out,
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream,
                    &trailers,
                );
            }
        }
    }
}
