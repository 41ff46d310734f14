//! The server's side of HTTP/2 (RFC 9113), written frame by frame so that it can do what no polite library would.
//!
//! What it does with a call stands in the call's path: `/survive.DEED/NAME`. It remembers how often each name came and which of
//! its connections the proxy gave up. It never judges: that is the scenarios' business.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use httlib_hpack::Decoder;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// More than any scenario opens at once.
pub(crate) const STREAMS_MAX: u32 = 10_000;
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What is to be done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Answered with its own name.
    Echo,
    /// The same, with an empty DATA frame before it.
    Empty,
    /// The same, with a DATA frame of nothing but padding before it.
    Padded,
    /// The answer begins with its own name, and goes on when the scenario says so.
    Open,
    /// No answer before the scenario says so.
    Held,
    /// Refused when it first comes, then answered.
    RefusedOnce,
}

impl Deed {
    /// As it stands in a path.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Echo => "Echo",
            Self::Empty => "Empty",
            Self::Padded => "Padded",
            Self::Open => "Open",
            Self::Held => "Held",
            Self::RefusedOnce => "RefusedOnce",
        }
    }

    fn of_path(path: &str) -> Option<(Self, &str)> {
        let (service, name) = path.strip_prefix("/survive.")?.split_once('/')?;
        let deeds = [
            Self::Echo,
            Self::Empty,
            Self::Padded,
            Self::Open,
            Self::Held,
            Self::RefusedOnce,
        ];
        let deed = deeds.into_iter().find(|deed| deed.service() == service)?;
        Some((deed, name))
    }
}

/// What happened to one name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visits {
    /// How often it came.
    pub(crate) seen: usize,
    /// How often it was, or may have been, worked on: it came again although an answer had begun or was promised.
    pub(crate) processed: usize,
}

/// The connections since [`Backend::fresh`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: usize,
    /// Ended by the proxy, unasked.
    pub(crate) lost: usize,
    /// The error codes of the proxy's GOAWAYs, and how often each came.
    pub(crate) go_aways: BTreeMap<u32, usize>,
    /// RST_STREAMs of the proxy.
    pub(crate) resets: usize,
    /// What is still in the way of more DATA: frames that wait for the proxy's window.
    pub(crate) starved: usize,
}

/// A server on a port of its own.
#[derive(Clone)]
pub(crate) struct Backend {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    world: Mutex<World>,
    changed: Condvar,
}

#[derive(Default)]
struct World {
    connections: Vec<Connection>,
    /// Where those of the present scenario begin.
    first: usize,
    visits: HashMap<String, Visits>,
    /// Whether held calls are still held.
    holding: bool,
    streams_max: u32,
}

struct Connection {
    socket: TcpStream,
    alive: bool,
    /// We have said goodbye, so its end is no loss.
    dismissed: bool,
    lost: bool,
    go_aways: Vec<u32>,
    resets: usize,
    pings: u64,
    pongs: u64,
    /// Calls above this were not processed.
    last: u32,
    highest: u32,
    streams: HashMap<u32, Stream>,
    /// How much DATA the proxy still takes.
    window: i64,
    waiting: VecDeque<(Vec<u8>, i64)>,
}

struct Stream {
    deed: Deed,
    name: String,
    /// The request has ended.
    whole: bool,
    reset: bool,
    /// The answer has begun.
    begun: bool,
    /// The answer has ended.
    done: bool,
}

impl Backend {
    /// Listens, and serves in threads of its own until the program ends.
    pub(crate) fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let backend = Self {
            state: Arc::default(),
        };
        let own = backend.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let own = own.clone();
                thread::spawn(move || own.serve(socket));
            }
        });
        Ok(backend)
    }

    /// Dismisses every connection and forgets every name: a scenario begins. From now on a connection takes so many calls at
    /// once.
    pub(crate) fn fresh(&self, streams_max: u32) {
        let mut world = self.world();
        world.streams_max = streams_max;
        for connection in &mut world.connections {
            connection.dismiss();
        }
        world.first = world.connections.len();
        world.visits.clear();
        world.holding = true;
    }

    pub(crate) fn tally(&self) -> Tally {
        let world = self.world();
        let mut tally = Tally::default();
        for connection in world.present() {
            tally.opened += 1;
            tally.lost += usize::from(connection.lost);
            for code in &connection.go_aways {
                *tally.go_aways.entry(*code).or_default() += 1;
            }
            tally.resets += connection.resets;
            tally.starved += connection.waiting.len();
        }
        tally
    }

    pub(crate) fn visits(&self, name: &str) -> Visits {
        self.world().visits.get(name).copied().unwrap_or_default()
    }

    /// Waits until that many calls of a deed are here whole, on living connections; how many there are.
    pub(crate) fn wait_for(&self, deed: Deed, count: usize, patience: Duration) -> usize {
        self.wait(patience, |world| {
            let here = world
                .present()
                .filter(|connection| connection.alive)
                .flat_map(|connection| connection.streams.values())
                .filter(|stream| stream.deed == deed && stream.whole && !stream.reset)
                .count();
            (here, here >= count)
        })
    }

    /// Waits until that many calls whose name begins like this have been reset by the proxy; how many have been.
    pub(crate) fn wait_for_resets(&self, prefix: &str, count: usize, patience: Duration) -> usize {
        self.wait(patience, |world| {
            let reset = world
                .present()
                .flat_map(|connection| connection.streams.values())
                .filter(|stream| stream.reset && stream.name.starts_with(prefix))
                .count();
            (reset, reset >= count)
        })
    }

    /// Frames for calls that have been cancelled, as if they had been on their way: one for each call, and again after a rest
    /// that lets the proxy read them.
    pub(crate) fn late_data(&self, prefix: &str, rounds: usize) {
        for round in 0..rounds {
            if round > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let mut world = self.world();
            for connection in world.present_mut() {
                for id in connection.named(prefix) {
                    connection.data(id, &envelope(b"late!"));
                }
            }
        }
    }

    /// Resets the calls whose name begins like this; how many.
    pub(crate) fn reset(&self, prefix: &str, code: u32) -> usize {
        let mut world = self.world();
        let mut count = 0;
        for connection in world.present_mut() {
            for id in connection.named(prefix) {
                connection.send(&frame(RST_STREAM, 0, id, &code.to_be_bytes()), 0);
                count += 1;
            }
        }
        count
    }

    /// Ends the answers of open calls whose name begins like this.
    pub(crate) fn finish(&self, prefix: &str) {
        let mut world = self.world();
        for connection in world.present_mut() {
            for id in connection.named(prefix) {
                connection.end(id);
            }
        }
    }

    /// Leaves every connection of now: some of its held calls, the oldest, will still be answered. From now on a held call that
    /// comes is answered at once. How many were left out.
    pub(crate) fn go_away(&self, share: Share) -> usize {
        let mut world = self.world();
        let world = &mut *world;
        world.holding = false;
        let mut left_out = 0;
        for connection in world.connections[world.first..].iter_mut() {
            let mut held: Vec<u32> = connection.named("held-");
            held.sort_unstable();
            if held.is_empty() || !connection.alive {
                continue;
            }
            let keep = match share {
                Share::Half => held.len() / 2,
                Share::None => 0,
            };
            let last = match share {
                Share::Half => keep.checked_sub(1).map_or(0, |index| held[index]),
                Share::None => 0,
            };
            left_out += held.len() - keep;
            connection.last = last;
            connection.dismissed = true;
            let payload = [last.to_be_bytes(), 0u32.to_be_bytes()].concat();
            connection.send(&frame(GOAWAY, 0, 0, &payload), 0);
            for id in &held[..keep] {
                if let Some(stream) = connection.streams.get(id) {
                    let visits = world.visits.entry(stream.name.clone()).or_default();
                    visits.processed += 1;
                }
            }
        }
        left_out
    }

    /// Answers the held calls that are here, but for those that a GOAWAY left out, and from now on each that comes.
    pub(crate) fn release(&self) {
        let mut world = self.world();
        let world = &mut *world;
        world.holding = false;
        for connection in &mut world.connections[world.first..] {
            let held = connection.named("held-").into_iter();
            for id in held.filter(|id| *id <= connection.last).collect::<Vec<_>>() {
                connection.answer(id);
            }
        }
    }

    /// Waits until the proxy has read all that was sent: what comes before a PING is read before it.
    pub(crate) fn settle(&self, patience: Duration) {
        {
            let mut world = self.world();
            for connection in world.present_mut().filter(|connection| connection.alive) {
                connection.pings += 1;
                connection.send(&frame(PING, 0, 0, b"all-read"), 0);
            }
        }
        self.wait(patience, |world| {
            let all = world
                .present()
                .all(|connection| !connection.alive || connection.pongs >= connection.pings);
            (0, all)
        });
    }

    fn wait(&self, patience: Duration, look: impl Fn(&World) -> (usize, bool)) -> usize {
        let until = Instant::now() + patience;
        let mut world = self.world();
        loop {
            let (count, enough) = look(&world);
            let left = until.saturating_duration_since(Instant::now());
            if enough || left.is_zero() {
                return count;
            }
            let waited = self.state.changed.wait_timeout(world, left);
            world = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let world = self.state.world.lock();
        world.unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut socket: TcpStream) {
        let mut preface = [0; PREFACE.len()];
        let greeted = socket.read_exact(&mut preface).is_ok() && preface == *PREFACE;
        let Some(writer) = socket.try_clone().ok().filter(|_| greeted) else {
            return;
        };
        // Small frames that wait for an acknowledgement would only make it slow.
        let _ = socket.set_nodelay(true);
        // A proxy that does not read is one that is lost.
        let _ = writer.set_write_timeout(Some(Duration::from_secs(10)));
        let index = {
            let mut world = self.world();
            let mut connection = Connection::new(writer);
            connection.greet(world.streams_max);
            world.connections.push(connection);
            world.connections.len() - 1
        };
        let mut fields = Decoder::with_dynamic_size(4096);
        while let Ok((kind, flags, id, payload)) = read_frame(&mut socket) {
            let mut world = self.world();
            if !world.understand(index, kind, flags, id, payload, &mut fields, &mut socket) {
                break;
            }
            drop(world);
            self.state.changed.notify_all();
        }
        let mut world = self.world();
        if let Some(connection) = world.connections.get_mut(index) {
            connection.alive = false;
            connection.lost = !connection.dismissed;
        }
        drop(world);
        self.state.changed.notify_all();
    }
}

/// How many of the held calls a GOAWAY still takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    Half,
    None,
}

impl World {
    fn present(&self) -> impl Iterator<Item = &Connection> {
        self.connections[self.first..].iter()
    }

    fn present_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections[self.first..].iter_mut()
    }

    /// `false`: the connection is of no more use.
    #[expect(clippy::too_many_arguments, reason = "a frame has many parts")]
    fn understand(
        &mut self,
        index: usize,
        kind: u8,
        flags: u8,
        id: u32,
        payload: Vec<u8>,
        decoder: &mut Decoder<'static>,
        socket: &mut TcpStream,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(index) else {
            return false;
        };
        match kind {
            SETTINGS if flags & ACK == 0 => connection.send(&frame(SETTINGS, ACK, 0, b""), 0),
            PING if flags & ACK == 0 => connection.send(&frame(PING, ACK, 0, &payload), 0),
            PING => connection.pongs += 1,
            WINDOW_UPDATE if id == 0 => {
                connection.window += i64::from(number(&payload));
                connection.drain();
            }
            GOAWAY => connection.go_aways.push(payload.get(4..).map_or(0, number)),
            RST_STREAM => {
                connection.resets += 1;
                if let Some(stream) = connection.streams.get_mut(&id) {
                    stream.reset = true;
                }
            }
            HEADERS => {
                let mut block = unpadded(flags, payload);
                if flags & PRIORITY != 0 {
                    block.drain(..5.min(block.len()));
                }
                let mut whole = flags & END_HEADERS != 0;
                while !whole {
                    match read_frame(socket) {
                        Ok((CONTINUATION, flags, _, more)) => {
                            block.extend(more);
                            whole = flags & END_HEADERS != 0;
                        }
                        _ => return false,
                    }
                }
                let mut fields = Vec::new();
                if decoder.decode(&mut block, &mut fields).is_err() {
                    return false;
                }
                let path = fields.iter().find(|(name, _, _)| name == b":path");
                let path = path.map(|(_, value, _)| String::from_utf8_lossy(value).into_owned());
                let path = path.unwrap_or_default();
                if let Some((deed, name)) = Deed::of_path(&path) {
                    self.begin(index, id, deed, name);
                }
                if flags & END_STREAM != 0 {
                    self.whole(index, id);
                }
            }
            DATA if flags & END_STREAM != 0 => self.whole(index, id),
            _ => {}
        }
        true
    }

    fn begin(&mut self, index: usize, id: u32, deed: Deed, name: &str) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if id > connection.last {
            // After our GOAWAY: as if it had never come.
            return;
        }
        let visits = self.visits.entry(name.to_owned()).or_default();
        visits.seen += 1;
        connection.highest = connection.highest.max(id);
        if deed == Deed::RefusedOnce && visits.seen == 1 {
            let code = REFUSED_STREAM.to_be_bytes();
            connection.send(&frame(RST_STREAM, 0, id, &code), 0);
            return;
        }
        connection.streams.insert(
            id,
            Stream {
                deed,
                name: name.to_owned(),
                whole: false,
                reset: false,
                begun: false,
                done: false,
            },
        );
    }

    fn whole(&mut self, index: usize, id: u32) {
        let holding = self.holding;
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if id > connection.last {
            return;
        }
        let Some(stream) = connection.streams.get_mut(&id) else {
            return;
        };
        stream.whole = true;
        if stream.deed == Deed::Held && holding {
            return;
        }
        let visits = self.visits.entry(stream.name.clone()).or_default();
        visits.processed += 1;
        match stream.deed {
            Deed::Open => connection.start(id),
            _ => connection.answer(id),
        }
    }
}

impl Connection {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            alive: true,
            dismissed: false,
            lost: false,
            go_aways: Vec::new(),
            resets: 0,
            pings: 0,
            pongs: 0,
            last: WINDOW_MAX,
            highest: 0,
            streams: HashMap::new(),
            window: 65_535,
            waiting: VecDeque::new(),
        }
    }

    fn greet(&mut self, streams_max: u32) {
        let mut settings = Vec::new();
        for (name, value) in [
            (MAX_CONCURRENT_STREAMS, streams_max),
            (INITIAL_WINDOW_SIZE, WINDOW_MAX),
        ] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        self.send(&frame(SETTINGS, 0, 0, &settings), 0);
        let more = (WINDOW_MAX - 65_535).to_be_bytes();
        self.send(&frame(WINDOW_UPDATE, 0, 0, &more), 0);
    }

    /// Says goodbye and hangs up.
    fn dismiss(&mut self) {
        if !self.alive {
            return;
        }
        self.dismissed = true;
        let payload = [self.highest.to_be_bytes(), 0u32.to_be_bytes()].concat();
        self.send(&frame(GOAWAY, 0, 0, &payload), 0);
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The unfinished calls whose name begins like this, oldest first.
    fn named(&self, prefix: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.done && stream.name.starts_with(prefix))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The head and one message.
    fn start(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.begun || stream.reset {
            return;
        }
        stream.begun = true;
        let (deed, message) = (stream.deed, envelope(stream.name.as_bytes()));
        let head = block(&[(":status", "200"), ("content-type", "application/grpc")]);
        self.send(&frame(HEADERS, END_HEADERS, id, &head), 0);
        match deed {
            Deed::Empty => self.send(&frame(DATA, 0, id, b""), 0),
            // The length of the padding, the padding, and nothing between them.
            Deed::Padded => self.send(&frame(DATA, PADDED, id, &[3, 0, 0, 0]), 4),
            _ => {}
        }
        self.data(id, &message);
    }

    fn end(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.done
            && !stream.reset
        {
            stream.done = true;
            let trailers = block(&[("grpc-status", "0")]);
            self.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &trailers), 0);
        }
    }

    fn answer(&mut self, id: u32) {
        self.start(id);
        self.end(id);
    }

    fn data(&mut self, id: u32, bytes: &[u8]) {
        self.send(&frame(DATA, 0, id, bytes), bytes.len() as i64);
    }

    /// Sends a frame that costs so much of the connection's window, in its turn.
    fn send(&mut self, frame: &[u8], cost: i64) {
        if !self.alive {
            return;
        }
        // Only DATA and what follows it on a stream has to wait.
        let ordered = matches!(frame.get(3), Some(&(DATA | HEADERS)));
        if ordered && (cost > self.window || !self.waiting.is_empty()) {
            self.waiting.push_back((frame.to_vec(), cost));
            return;
        }
        self.window -= cost;
        self.write(frame);
    }

    fn drain(&mut self) {
        while let Some((frame, cost)) = self.waiting.pop_front() {
            if cost > self.window {
                self.waiting.push_front((frame, cost));
                return;
            }
            self.window -= cost;
            self.write(&frame);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.socket.write_all(bytes).is_err() {
            self.alive = false;
            self.lost = !self.dismissed;
        }
    }
}

fn read_frame(socket: &mut TcpStream) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head)?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    socket.read_exact(&mut payload)?;
    Ok((kind, flags, number(&id), payload))
}

fn unpadded(flags: u8, mut payload: Vec<u8>) -> Vec<u8> {
    if flags & PADDED != 0 && !payload.is_empty() {
        let padding = usize::from(payload.remove(0));
        payload.truncate(payload.len().saturating_sub(padding));
    }
    payload
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block of short literals that are never indexed (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a length of one byte");
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A gRPC message in its envelope.
pub(crate) fn envelope(message: &[u8]) -> Vec<u8> {
    let mut envelope = vec![0];
    envelope.extend((message.len() as u32).to_be_bytes());
    envelope.extend(message);
    envelope
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes) & WINDOW_MAX)
}
