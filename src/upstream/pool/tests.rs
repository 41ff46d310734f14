//! The pool against a machine whose sockets do what the test says: they connect, stall and go on when they are told to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::*;
use crate::net::{Event, Now, ReadyList, Token};
use crate::policy;
use crate::telemetry::panics;
use crate::wire::{Part, Sink, Source};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
/// What SETTINGS are answered with.
const ACKNOWLEDGED: [u8; 9] = [0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];
/// What a client says before its first frame (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
const WINDOW_UPDATE: u8 = 8;

/// What lies between the proxy and one backend.
#[derive(Default)]
struct Pipe {
    connected: bool,
    /// To the proxy.
    input: VecDeque<u8>,
    /// From the proxy.
    output: Vec<u8>,
    /// How many more bytes it takes from the proxy.
    room: usize,
    /// Behind its input it has ended, or failed like this.
    end: Option<Result<(), io::ErrorKind>>,
}

struct End(Rc<RefCell<Pipe>>);

impl Socket for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        match pipe.end {
            _ if !pipe.input.is_empty() => io::Read::read(&mut pipe.input, into),
            Some(Ok(())) => Ok(0),
            Some(Err(kind)) => Err(kind.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let before = pipe.room;
        for piece in from {
            let taken = piece.len().min(pipe.room);
            pipe.output.extend_from_slice(&piece[..taken]);
            pipe.room -= taken;
        }
        if before == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(before - pipe.room)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(self.0.borrow().connected)
    }
}

#[derive(Default)]
struct Machine {
    /// Every attempt fails at once, like this.
    down: Option<io::ErrorKind>,
    attempts: Vec<SocketAddr>,
    pipes: Vec<Rc<RefCell<Pipe>>>,
}

impl Driver for Machine {
    type Socket = End;

    fn wait(&mut self, _: Option<Instant>, _: &mut Vec<Event>) -> Now {
        Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn accept(&mut self, _: u32) -> io::Result<(End, SocketAddr)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn turn_away(&mut self, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<End> {
        self.attempts.push(address);
        if let Some(kind) = self.down {
            return Err(kind.into());
        }
        let pipe = Rc::new(RefCell::new(Pipe {
            room: usize::MAX,
            ..Pipe::default()
        }));
        self.pipes.push(Rc::clone(&pipe));
        Ok(End(pipe))
    }

    fn register(&mut self, _: &mut End, _: Key) -> io::Result<()> {
        Ok(())
    }

    fn close_listener(&mut self, _: u32) {}
}

/// A pool and its machine, at a time that stands still unless the test moves it.
struct Bench {
    pool: Pool<End>,
    reactor: Reactor<Machine>,
    now: Instant,
}

impl Bench {
    fn new(endpoints: &[&str]) -> Self {
        let mut pool = Pool::new(Duration::MAX);
        pool.adopt(&snapshot(endpoints));
        Self {
            pool,
            reactor: Reactor::new(Machine::default()),
            now: Instant::now(),
        }
    }

    fn connect_wanted(&mut self) {
        self.pool.connect_wanted(&mut self.reactor, self.now);
    }

    fn pipe(&self, index: usize) -> Rc<RefCell<Pipe>> {
        Rc::clone(&self.reactor.driver.pipes[index])
    }

    fn ticket(&self) -> Ticket {
        self.pool.ticket(BackendId(0)).unwrap()
    }

    fn call(&mut self, ticket: &mut Ticket, wakeup: &Wakeup<u32>) -> Poll<Result<Stream, Reset>> {
        let cx = &mut Context::from_waker(wakeup.waker());
        self.pool.poll_open(ticket, head, self.now, cx)
    }

    fn open(&mut self, ticket: &mut Ticket, wakeup: &Wakeup<u32>) -> Stream {
        match self.call(ticket, wakeup) {
            Poll::Ready(Ok(stream)) => stream,
            Poll::Ready(Err(reset)) => panic!("instead of a stream: {reset:?}"),
            Poll::Pending => panic!("instead of a stream: patience"),
        }
    }

    /// Every socket has news, whatever they are.
    fn event(&self) {
        let mut owners = Vec::new();
        for (key, place) in self.reactor.transports.iter() {
            let event = Event {
                token: Token::Transport(key),
                readable: true,
                writable: true,
                read_closed: false,
                error: false,
            };
            place.transport.borrow_mut().handle_event(&event);
            owners.push(place.owner);
        }
        self.wake(owners);
    }

    /// The pool's share of a turn, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut ready = Vec::new();
            self.reactor.ready.take(&mut ready);
            for task in &ready {
                if let Task::Upstream(key) = *task {
                    self.pool.advance(key, &mut self.reactor, self.now);
                }
            }
            self.connect_wanted();
            let mut dirty = Vec::new();
            self.reactor.staging.take_dirty(&mut dirty);
            let mut relieved = Vec::new();
            for key in &dirty {
                if let Some(place) = self.reactor.transports.get(*key) {
                    let mut transport = place.transport.borrow_mut();
                    transport.flush(self.now);
                    if transport.take_relieved(usize::MAX) {
                        relieved.push(place.owner);
                    }
                }
            }
            self.wake(relieved);
            self.reactor.staging.next_turn();
            if ready.is_empty() && dirty.is_empty() {
                return;
            }
        }
    }

    fn wake(&self, owners: Vec<Task>) {
        for owner in owners {
            if let Task::Upstream(key) = owner {
                self.pool.wake(key);
            }
        }
    }
}

/// Each endpoint: its addresses, with spaces between. Its name is the first.
fn snapshot(endpoints: &[&str]) -> Snapshot {
    let endpoints = endpoints
        .iter()
        .map(|&addresses| policy::Endpoint {
            name: addresses.split(' ').next().unwrap().into(),
            addresses: addresses
                .split(' ')
                .map(|one| one.parse().unwrap())
                .collect(),
        })
        .collect();
    Snapshot {
        generation: 1,
        listeners: Vec::new(),
        routes: Arc::new([]),
        backends: vec![policy::Backend {
            name: "greeter".into(),
            target: Target::Endpoints(endpoints),
            connect_timeout: Duration::from_secs(5),
            connections_max: 1,
            pending_max: 100,
        }],
        limits: policy::Limits::default(),
        unrouted: Arc::new([]),
        live_path: None,
    }
}

fn wakeup(number: u32) -> Wakeup<u32> {
    Wakeup::new(&Arc::new(ReadyList::default()), number)
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

/// How many frames of that kind there are.
fn count_of(kind: u8, mut frames: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&[a, b, c, own, ..]) = frames.first_chunk::<9>() {
        count += usize::from(own == kind);
        frames = &frames[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
    }
    count
}

/// A backend that takes one call at a time, with windows that are never short.
fn one_at_a_time() -> Vec<u8> {
    let settings = [0, 3, 0, 0, 0, 1, 0, 4, 0, 16, 0, 0];
    let window = (8u32 << 20).to_be_bytes();
    [frame(SETTINGS, &settings), frame(WINDOW_UPDATE, &window)].concat()
}

fn head() -> OutgoingHead {
    OutgoingHead {
        method: Method::POST,
        path: "/demo.Greeter/Greet".parse().unwrap(),
        authority: None,
        headers: HeaderMap::new(),
    }
}

#[test]
fn u_19_a_call_that_is_opened_behind_a_stalled_socket_is_woken_for_its_window() {
    const BODY_BYTES: usize = 400 << 10;
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    bench.pool.probe();
    bench.connect_wanted();
    let pipe = bench.pipe(0);
    pipe.borrow_mut().connected = true;
    pipe.borrow_mut().input.extend(one_at_a_time());
    bench.event();
    bench.settle();

    // The backend's TCP stalls. A first call fills what there is, and goes: its place is free, its RESET waits.
    pipe.borrow_mut().room = 0;
    let first = wakeup(1);
    let mut ticket = bench.ticket();
    let mut stream = bench.open(&mut ticket, &first);
    let cx = &mut Context::from_waker(first.waker());
    for _ in 0..12 {
        if stream.poll_room(cx).is_ready() {
            stream.send(Part::Data(Bytes::from(vec![0; 64 << 10])));
        }
        stream.settle(cx);
        bench.settle();
    }
    drop(stream);

    // A second call takes the place.
    let second = wakeup(2);
    let mut ticket = bench.ticket();
    let mut stream = bench.open(&mut ticket, &second);
    let now = bench.now;
    let mut left = BODY_BYTES;
    // As an exchange does: it goes on when it is woken, and never else.
    let mut step = || {
        second.popped();
        let cx = &mut Context::from_waker(second.waker());
        stream.sense(now, cx);
        let _ = stream.poll_part(now, cx);
        while left > 0 && stream.poll_room(cx).is_ready() {
            let piece = left.min(32 << 10);
            stream.send(Part::Data(Bytes::from(vec![b'~'; piece])));
            left -= piece;
            if left == 0 {
                stream.send(Part::End(None));
            }
        }
        stream.settle(cx);
    };
    step();
    while second.queued() {
        step();
    }
    bench.settle();
    pipe.borrow_mut().room = usize::MAX;
    for _ in 0..50 {
        bench.event();
        bench.settle();
        if second.queued() {
            step();
        }
    }
    let sent = |byte: &&u8| **byte == b'~';
    let arrived = pipe.borrow().output.iter().filter(sent).count();
    assert!(arrived >= BODY_BYTES, "it hangs after {arrived} bytes");
}

#[test]
fn u_25_a_backend_that_is_down_is_asked_once_in_a_pause_however_many_call() {
    // Nobody there, no way there, no port left on our side.
    for kind in [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ] {
        let mut bench = Bench::new(&["127.0.0.1:1"]);
        bench.reactor.driver.down = Some(kind);
        let mut calls: Vec<_> = (0..50)
            .map(|number| (bench.ticket(), wakeup(number)))
            .collect();
        // Each of them wants a connection before the first attempt has been made.
        for (ticket, wakeup) in &mut calls {
            assert!(bench.call(ticket, wakeup).is_pending());
        }
        bench.connect_wanted();
        assert_eq!(bench.reactor.driver.attempts.len(), 1);
        assert!(
            calls.iter().all(|(_, wakeup)| wakeup.queued()),
            "whoever waits is told of it"
        );
        // Within the pause nobody waits and nothing is tried; after it, once more.
        let a_bit = Duration::from_millis(1);
        for (pause, attempts) in [
            (BACKOFF_FIRST * 4 / 5 - a_bit, 1),
            (BACKOFF_FIRST * 2 / 5 + a_bit, 2),
        ] {
            bench.now += pause;
            for (ticket, wakeup) in &mut calls {
                match bench.call(ticket, wakeup) {
                    Poll::Ready(Err(reset)) if attempts == 1 => {
                        assert_eq!(reset, Reset::proxy(Reason::BackendConnectRefused));
                    }
                    Poll::Pending if attempts == 2 => {}
                    other => panic!("{kind}: {}", other.is_ready()),
                }
            }
            bench.connect_wanted();
            assert_eq!(bench.reactor.driver.attempts.len(), attempts);
        }
    }
}

#[test]
fn r_17_no_port_left_for_a_connection_is_a_failed_attempt() {
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    bench.reactor.driver.down = Some(io::ErrorKind::AddrNotAvailable);
    let (mut ticket, caller) = (bench.ticket(), wakeup(1));
    assert!(bench.call(&mut ticket, &caller).is_pending());
    bench.connect_wanted();
    let told = bench.call(&mut ticket, &caller);
    let Poll::Ready(Err(reset)) = told else {
        panic!("nobody is told");
    };
    assert_eq!(reset, Reset::proxy(Reason::BackendConnectRefused));
    assert_eq!(bench.pool.waiting(), 0);
    assert!(bench.reactor.transports.is_empty());
}

#[test]
fn u_25_each_pause_is_longer_by_three_fifths_give_or_take_one_up_to_a_limit() {
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    bench.reactor.driver.down = Some(io::ErrorKind::ConnectionRefused);
    let (mut ticket, caller) = (bench.ticket(), wakeup(1));
    let step = Duration::from_millis(1);
    let mut last = None;
    let mut expected = BACKOFF_FIRST;
    for _ in 0..20 {
        // Somebody calls every millisecond until the next attempt is made.
        let attempts = bench.reactor.driver.attempts.len();
        while bench.reactor.driver.attempts.len() == attempts {
            bench.now += step;
            let _ = bench.call(&mut ticket, &caller);
            bench.connect_wanted();
        }
        if let Some(last) = last.replace(bench.now) {
            let pause = bench.now - last;
            assert!(pause >= expected * 4 / 5, "{pause:?} of {expected:?}");
            assert!(
                pause <= expected * 6 / 5 + step,
                "{pause:?} of {expected:?}"
            );
            expected = (expected * 8 / 5).min(BACKOFF_MAX);
        }
    }
    assert_eq!(expected, BACKOFF_MAX);
}

#[test]
fn u_25_pauses_differ_by_a_fifth_each_way_and_are_the_same_for_the_same_seed() {
    let pause = Duration::from_secs(1);
    let pauses: Vec<_> = (0..1000).map(|seed| spread(pause, seed)).collect();
    let again: Vec<_> = (0..1000).map(|seed| spread(pause, seed)).collect();
    assert_eq!(pauses, again);
    let (shortest, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
    assert!((pause * 80 / 100..pause * 82 / 100).contains(shortest));
    assert!((pause * 118 / 100..=pause * 120 / 100).contains(longest));
    let mean = pauses.iter().sum::<Duration>() / 1000;
    assert!((pause * 98 / 100..pause * 102 / 100).contains(&mean));
}

/// A pool whose one connection is ready.
fn ready(greeting: Vec<u8>) -> (Bench, Rc<RefCell<Pipe>>) {
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    bench.pool.probe();
    bench.connect_wanted();
    let pipe = bench.pipe(0);
    pipe.borrow_mut().connected = true;
    pipe.borrow_mut().input.extend(greeting);
    bench.event();
    bench.settle();
    (bench, pipe)
}

#[test]
fn u_02_an_endpoint_that_does_not_speak_http2_is_left_alone_for_its_pause() {
    let (mut bench, _) = ready(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert_eq!(bench.pool.connections(), 0);
    let (mut ticket, caller) = (bench.ticket(), wakeup(1));
    let a_bit = Duration::from_millis(1);
    bench.now += BACKOFF_FIRST * 4 / 5 - a_bit;
    let Poll::Ready(Err(reset)) = bench.call(&mut ticket, &caller) else {
        panic!("it is asked again at once");
    };
    assert_eq!(reset, Reset::proxy(Reason::BackendNotGrpc(0)));
    bench.now += BACKOFF_FIRST * 2 / 5 + a_bit;
    assert!(bench.call(&mut ticket, &caller).is_pending());
    bench.connect_wanted();
    assert_eq!(bench.reactor.driver.attempts.len(), 2);
}

#[test]
fn u_19_a_call_waits_for_a_stream_so_long_and_no_longer() {
    // A backend that is used up, and one that takes no call at all.
    for allowed in [1, 0] {
        let settings = [0, 3, 0, 0, 0, allowed];
        let (mut bench, pipe) = ready(frame(SETTINGS, &settings));
        let holder = wakeup(0);
        let mut first = bench.ticket();
        let held = (allowed > 0).then(|| bench.open(&mut first, &holder));
        let mut calls: Vec<_> = (1..4)
            .map(|number| (bench.ticket(), wakeup(number)))
            .collect();
        let began = bench.now;
        for (ticket, wakeup) in &mut calls {
            assert!(bench.call(ticket, wakeup).is_pending());
            // A second later each, and so each is told a second later.
            bench.now += Duration::from_secs(1);
        }
        let patience = Duration::from_secs(5) + PENDING_TIMEOUT;
        for (late, (ticket, wakeup)) in (0u32..).zip(&mut calls) {
            let until = began + patience + Duration::from_secs(late.into());
            assert_eq!(bench.pool.wake_at(ticket), Some(until));
            bench.now = until - Duration::from_millis(1);
            assert!(bench.call(ticket, wakeup).is_pending(), "call {late}");
            bench.now = until;
            let Poll::Ready(Err(reset)) = bench.call(ticket, wakeup) else {
                panic!("call {late} waits on");
            };
            assert_eq!(reset, Reset::proxy(Reason::PendingOverflow));
            assert_eq!(bench.pool.wake_at(ticket), None);
            bench.pool.leave(ticket);
        }
        assert_eq!(bench.pool.waiting(), 0);
        bench.settle();
        // What left is the head of the one call that was opened, and nothing of the others (RFC 9113 §4.1, HEADERS).
        let output = pipe.borrow_mut().output.split_off(PREFACE_BYTES);
        assert_eq!(count_of(HEADERS, &output), usize::from(allowed));
        drop(held);
    }
}

#[test]
fn a_request_that_cannot_be_said_in_http2_costs_no_connection() {
    let (mut bench, _pipe) = ready(frame(SETTINGS, &[]));
    let caller = wakeup(1);
    let mut ticket = bench.ticket();
    let mut headers = HeaderMap::new();
    // Nothing in front of the pool lets it pass; were there a way, one client could empty every pool.
    headers.insert("connection", "x".parse().unwrap());
    let head = OutgoingHead {
        method: Method::POST,
        path: "/demo.Greeter/Greet".parse().unwrap(),
        authority: None,
        headers,
    };
    let cx = &mut Context::from_waker(caller.waker());
    let told = bench
        .pool
        .poll_open(&mut ticket, || head.clone(), bench.now, cx);
    let Poll::Ready(Err(reset)) = told else {
        panic!("it was sent");
    };
    let how = "it cannot be said in HTTP/2";
    assert_eq!(reset, Reset::proxy(Reason::ClientProtocol(how)));
    bench.settle();
    assert_eq!(bench.pool.connections(), 1);
    bench.open(&mut ticket, &caller);
}

#[test]
fn u_21_more_than_a_streams_window_costs_that_stream_alone() {
    let (mut bench, pipe) = ready(frame(SETTINGS, &[]));
    let callers = [wakeup(1), wakeup(2)];
    let mut streams = [bench.ticket(), bench.ticket()]
        .iter_mut()
        .zip(&callers)
        .map(|(ticket, caller)| bench.open(ticket, caller))
        .collect::<Vec<_>>();
    bench.settle();
    {
        let input = &mut pipe.borrow_mut().input;
        // `:status: 200`, and END_HEADERS.
        for stream in [1, 3] {
            input.extend([0, 0, 1, HEADERS, 4, 0, 0, 0, stream, 0x88]);
        }
        // Nine times 16 KiB: one too many.
        for _ in 0..9 {
            input.extend([0, 0x40, 0, 0, 0, 0, 0, 0, 1]);
            input.extend(vec![0; 16 << 10]);
        }
    }
    bench.event();
    bench.settle();
    let mut parts = |index: usize| {
        let cx = &mut Context::from_waker(callers[index].waker());
        streams[index].sense(bench.now, cx);
        loop {
            match streams[index].poll_part(bench.now, cx) {
                Poll::Ready(Ok(Part::Head(_) | Part::Data(_))) => {}
                Poll::Ready(Ok(Part::End(_))) => panic!("it has ended"),
                Poll::Ready(Err(reset)) => return Some(reset),
                Poll::Pending => return None,
            }
        }
    };
    let how = "it broke HTTP/2";
    assert_eq!(
        parts(0),
        Some(Reset::upstream(Reason::BackendProtocol(how)))
    );
    assert_eq!(parts(1), None);
    assert_eq!(bench.pool.connections(), 1);
}

#[test]
fn u_p4_a_call_whose_head_never_left_is_as_safe_to_repeat_as_a_refused_one() {
    // How many bytes leave after the connection is ready, and whether any of them is the head's.
    for (room, refused) in [(0, true), (1, false), (usize::MAX, false)] {
        for end in [Ok(()), Err(io::ErrorKind::TimedOut)] {
            let (mut bench, pipe) = ready(frame(SETTINGS, &[]));
            let before = pipe.borrow().output.len();
            pipe.borrow_mut().room = room;
            let caller = wakeup(1);
            let mut ticket = bench.ticket();
            let mut stream = bench.open(&mut ticket, &caller);
            bench.settle();
            assert_eq!(pipe.borrow().output.len() == before, room == 0);
            pipe.borrow_mut().end = Some(end);
            // Whoever has only ended its own side would go on reading; by then it is too late.
            bench.event();
            bench.settle();
            pipe.borrow_mut().room = usize::MAX;
            assert_eq!(bench.pool.connections(), 0);
            let cx = &mut Context::from_waker(caller.waker());
            stream.sense(bench.now, cx);
            let Poll::Ready(Err(reset)) = stream.poll_part(bench.now, cx) else {
                panic!("it is not told");
            };
            let expected = match refused {
                true => Reason::BackendRefused,
                false => Reason::BackendClosed,
            };
            assert_eq!(reset, Reset::upstream(expected), "room for {room}");
            let sent = pipe.borrow().output.len() - before;
            assert!(!refused || sent == 0, "it was repeated and sent");
        }
    }
}

/// What stands in the DATA frames, and which of them end their stream.
fn content_of(mut frames: &[u8]) -> (Vec<u8>, Vec<bool>) {
    let (mut content, mut ends) = (Vec::new(), Vec::new());
    while let Some(&[a, b, c, kind, flags, ..]) = frames.first_chunk::<9>() {
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == DATA {
            content.extend(&frames[9..end]);
            ends.push(flags & 1 == 1);
        }
        frames = &frames[end..];
    }
    (content, ends)
}

#[test]
fn a_small_request_that_is_whole_leaves_with_its_head_and_ends_behind_its_last_byte() {
    // Its pieces, bytes, and whether all of it leaves though its caller is not polled again.
    let cases: [(&[usize], bool); 6] = [
        (&[1], true),
        (&[5, 16], true),
        (&[1500, 1500], true),
        (&[2000, 3, 2000, 4], true),
        (&[5000], false),
        (&[3000, 3000], false),
    ];
    for (sizes, at_once) in cases {
        let (mut bench, pipe) = ready(frame(SETTINGS, &[]));
        let before = pipe.borrow().output.len();
        let caller = wakeup(1);
        let mut ticket = bench.ticket();
        let mut stream = bench.open(&mut ticket, &caller);
        let mut said: Vec<u8> = Vec::new();
        for (n, &size) in sizes.iter().enumerate() {
            let piece = vec![n as u8; size];
            said.extend(&piece);
            stream.send(Part::Data(piece.into()));
        }
        stream.send(Part::End(None));
        let cx = &mut Context::from_waker(caller.waker());
        stream.settle(cx);
        bench.settle();
        let (content, ends) = content_of(&pipe.borrow().output[before..]);
        assert_eq!(content == said, at_once, "{sizes:?}");
        // The rest goes when there is window for it.
        stream.settle(cx);
        bench.settle();
        stream.settle(cx);
        bench.settle();
        let (content, ends) = match at_once {
            true => (content, ends),
            false => content_of(&pipe.borrow().output[before..]),
        };
        assert!(content == said, "{sizes:?}");
        assert!(
            ends.iter()
                .rev()
                .copied()
                .eq((0..ends.len()).map(|n| n == 0)),
            "{sizes:?}: {ends:?}"
        );
    }
}

#[test]
fn u_08_a_small_request_that_has_no_window_is_given_up_with_its_call() {
    const RST_STREAM: u8 = 3;
    // One stream at a time, and no window for any: whatever stayed behind with `h2` would keep the only place.
    let (mut bench, pipe) = ready(frame(SETTINGS, &[0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0]));
    for (call, answered) in [true, false, true, true].into_iter().enumerate() {
        let before = pipe.borrow().output.len();
        let caller = wakeup(1);
        let mut ticket = bench.ticket();
        let mut stream = bench.open(&mut ticket, &caller);
        let cx = &mut Context::from_waker(caller.waker());
        stream.send(Part::Data(Bytes::from_static(b"small")));
        stream.send(Part::End(None));
        stream.settle(cx);
        bench.settle();
        if answered {
            // A whole answer: `:status: 200`, END_HEADERS and END_STREAM.
            let answer = [0, 0, 1, HEADERS, 5, 0, 0, 0, 1 + 2 * call as u8, 0x88];
            pipe.borrow_mut().input.extend(answer);
            bench.event();
            bench.settle();
            stream.sense(bench.now, cx);
            let head = stream.poll_part(bench.now, cx);
            assert!(matches!(head, Poll::Ready(Ok(Part::Head(_)))), "{call}");
            let end = stream.poll_part(bench.now, cx);
            assert!(matches!(end, Poll::Ready(Ok(Part::End(_)))), "{call}");
        }
        drop(stream);
        bench.settle();
        let output = &pipe.borrow().output[before..];
        let told = [HEADERS, DATA, RST_STREAM].map(|kind| count_of(kind, output));
        assert_eq!(told, [1, 0, 1], "call {call}");
        // NO_ERROR behind a whole answer (RFC 9113 §8.1), else CANCEL.
        let reason = if answered { 0 } else { 8 };
        assert!(output.ends_with(&[0, 0, 0, reason]), "call {call}");
    }
}

#[test]
fn u_22_window_is_given_back_to_whoever_reads_and_not_staged_without_end_for_others() {
    const STREAMS: u32 = 1000;
    const ROUNDS: u32 = 60;
    let (mut bench, pipe) = ready(frame(SETTINGS, &[]));
    let before = pipe.borrow().output.len();
    pipe.borrow_mut().room = 0;
    // Nothing but padding, on many streams: each frame is shorter than what gives its window back.
    let mut padded = Vec::new();
    for stream in 0..STREAMS {
        let mut frame = frame(DATA, &[0]);
        frame[4] = 8;
        frame[5..9].copy_from_slice(&(2 * stream + 1).to_be_bytes());
        padded.extend(frame);
    }
    for _ in 0..ROUNDS {
        pipe.borrow_mut().input.extend(&padded);
        bench.event();
        bench.settle();
    }
    let (_, connection) = bench.pool.iter().next().expect("it is in use");
    let staged = connection.transport().borrow().unwritten();
    assert!(staged < 300 << 10, "{staged} bytes wait for a reader");

    // Now it reads, and has back what it has used.
    pipe.borrow_mut().room = usize::MAX;
    bench.event();
    bench.settle();
    assert_eq!(bench.pool.connections(), 1);
    let output = &pipe.borrow().output[before..];
    let updates = output.chunks(13).filter(|frame| frame[5..9] == [0; 4]);
    let all = updates.map(|frame| u32::from_be_bytes([frame[9], frame[10], frame[11], frame[12]]));
    assert_eq!(all.sum::<u32>(), STREAMS * ROUNDS);
}

#[test]
fn u_30_a_call_behind_others_asks_for_no_connection_while_one_has_room() {
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    let mut plan = snapshot(&["127.0.0.1:1"]);
    plan.backends[0].connections_max = 4;
    bench.pool.adopt(&plan);
    let mut calls: Vec<_> = (0..3)
        .map(|number| (bench.ticket(), wakeup(number)))
        .collect();
    for (ticket, wakeup) in &mut calls[..2] {
        assert!(bench.call(ticket, wakeup).is_pending());
    }
    bench.connect_wanted();
    let pipe = bench.pipe(0);
    pipe.borrow_mut().connected = true;
    // It takes as many calls as there are.
    pipe.borrow_mut().input.extend(frame(SETTINGS, &[]));
    bench.event();
    bench.settle();
    // The third comes before the first two have been told: it waits behind them, and not for another connection.
    let (ticket, third) = &mut calls[2];
    assert!(bench.call(ticket, third).is_pending());
    bench.connect_wanted();
    let mut streams = Vec::new();
    for (ticket, wakeup) in &mut calls {
        assert!(wakeup.queued(), "each is woken by the one before it");
        streams.push(bench.open(ticket, wakeup));
        bench.connect_wanted();
    }
    assert_eq!(bench.reactor.driver.attempts.len(), 1);
}

#[test]
fn an_endpoint_that_leaves_while_it_is_being_connected_leaves_no_connection() {
    // Whenever it leaves: before it has answered, or with half of its greeting.
    let greeting = one_at_a_time();
    for said in [None, Some(0), Some(9)] {
        let mut bench = Bench::new(&["127.0.0.1:1"]);
        bench.pool.probe();
        bench.connect_wanted();
        let pipe = bench.pipe(0);
        if let Some(said) = said {
            pipe.borrow_mut().connected = true;
            pipe.borrow_mut().input.extend(&greeting[..said]);
            bench.event();
            bench.settle();
        }
        assert_eq!(bench.pool.connections(), 1);
        bench.pool.adopt(&snapshot(&["127.0.0.1:2"]));
        pipe.borrow_mut().connected = true;
        pipe.borrow_mut()
            .input
            .extend(&greeting[said.unwrap_or(0)..]);
        bench.event();
        bench.settle();
        assert_eq!(bench.pool.connections(), 0, "{said:?}");
        assert!(bench.reactor.transports.is_empty());
        assert!(bench.reactor.timers.is_empty());
    }
}

#[test]
fn u_p1_the_addresses_of_an_endpoint_are_tried_in_order_until_one_answers() {
    let mut bench = Bench::new(&["127.0.0.1:1 127.0.0.2:1"]);
    let (mut ticket, caller) = (bench.ticket(), wakeup(1));
    assert!(bench.call(&mut ticket, &caller).is_pending());
    bench.connect_wanted();
    // The first connects and never greets.
    bench.pipe(0).borrow_mut().connected = true;
    bench.event();
    bench.settle();
    bench.now += Duration::from_secs(5);
    bench.event();
    bench.settle();
    let expected: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.2:1"].map(|one| one.parse().unwrap());
    assert_eq!(bench.reactor.driver.attempts, expected);
    let pipe = bench.pipe(1);
    pipe.borrow_mut().connected = true;
    pipe.borrow_mut().input.extend(one_at_a_time());
    bench.event();
    bench.settle();
    assert!(caller.queued());
    bench.open(&mut ticket, &caller);
    assert_eq!(ticket.address(), Some(expected[1]));
    assert_eq!(bench.pool.connections(), 1);
}

/// What `h2` must never meet.
struct Mine;

impl std::task::Wake for Mine {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics under the lock");
    }
}

#[test]
fn r_21_a_connection_whose_lock_is_poisoned_is_found_and_nothing_of_it_ends_the_process() {
    for unwinding in [false, true] {
        let mut bench = Bench::new(&["10.0.0.1:1"]);
        let wakeup = wakeup(1);
        assert!(bench.call(&mut bench.ticket(), &wakeup).is_pending());
        bench.connect_wanted();
        bench.pipe(0).borrow_mut().connected = true;
        let settings = frame(SETTINGS, &[0, 3, 0, 0, 0, 100]);
        bench.pipe(0).borrow_mut().input.extend(settings);
        bench.event();
        bench.settle();
        // The queue is first come, first served; the one that waits above never comes back.
        bench.pool.mend(|_| false, &mut bench.reactor, bench.now);
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut ticket = bench.ticket();
            streams.push(bench.open(&mut ticket, &wakeup));
        }
        bench.settle();
        let mine = Waker::from(Arc::new(Mine));
        let cx = &mut Context::from_waker(&mine);
        assert!(streams[1].poll_part(bench.now, cx).is_pending());
        assert!(streams.iter().all(|stream| !stream.is_poisoned()));
        // RST_STREAM for the second call: whoever waits for it is woken, under the lock.
        let reset = [&[0, 0, 4, 3, 0, 0, 0, 0, 3][..], &[0, 0, 0, 8]].concat();
        bench.pipe(0).borrow_mut().input.extend(reset);
        bench.event();
        let settled = panics::contained(|| bench.settle());
        assert!(settled.is_none(), "the waker was called");
        assert!(streams.iter().all(Stream::is_poisoned), "all its streams");
        // Each may be left behind, or dropped, also while something else unwinds.
        streams.remove(0).forget();
        drop(streams.remove(0));
        let rest = panics::contained(|| {
            let streams = streams;
            assert!(!unwinding, "on purpose");
            drop(streams);
        });
        assert_eq!(rest.is_none(), unwinding);
        // The pool finds what is left of it.
        assert_eq!(bench.pool.connections(), 1);
        bench.pool.mend(|_| false, &mut bench.reactor, bench.now);
        assert_eq!(bench.pool.connections(), 0);
        assert!(bench.reactor.transports.is_empty() && bench.reactor.timers.is_empty());
    }
}

#[test]
fn u_31_a_backend_that_reads_nothing_is_given_so_many_heads_and_no_more() {
    // More than the socket's own staging holds and as many as may wait behind it, with a body for the first.
    const CALLS: usize = 1000;
    let (mut bench, pipe) = ready(frame(SETTINGS, &[]));
    let before = pipe.borrow().output.len();
    pipe.borrow_mut().room = 0;
    let caller = wakeup(1);
    let cx = &mut Context::from_waker(caller.waker());
    let mut given = 0;
    let mut patient = bench.ticket();
    let field = "~".repeat(2000);
    for number in 0..CALLS {
        // Each brings a field of its own, so that no table makes it small, and leaves at once.
        let mut head = head();
        let value = format!("{number}{field}");
        head.headers.insert("x-own", value.parse().unwrap());
        let mut ticket = bench.ticket();
        match bench
            .pool
            .poll_open(&mut ticket, || head.clone(), bench.now, cx)
        {
            Poll::Ready(Ok(_)) => given += 1,
            Poll::Ready(Err(reset)) => panic!("instead of patience: {reset:?}"),
            Poll::Pending => {
                bench.pool.leave(&ticket);
                if patient.place().is_none() {
                    assert!(bench.call(&mut patient, &caller).is_pending());
                }
            }
        }
        bench.settle();
    }
    assert!(
        (256..600).contains(&given),
        "{given} of {CALLS} were given to it"
    );
    assert_eq!(pipe.borrow().output.len(), before, "none of them has left");

    // It reads again: all that it was given leaves, and whoever waits is told.
    caller.popped();
    pipe.borrow_mut().room = usize::MAX;
    bench.event();
    bench.settle();
    assert_eq!(count_of(HEADERS, &pipe.borrow().output[before..]), given);
    assert!(caller.queued(), "the call that waits has not been woken");
    drop(bench.open(&mut patient, &caller));
}

impl Bench {
    /// A pool with a connection to a backend that takes any number of calls.
    fn connected() -> Self {
        let mut bench = Self::new(&["127.0.0.1:1"]);
        bench.pool.probe();
        bench.connect_wanted();
        bench.greet(0);
        bench
    }

    /// That connection has come about.
    fn greet(&mut self, index: usize) {
        let pipe = self.pipe(index);
        pipe.borrow_mut().connected = true;
        pipe.borrow_mut().input.extend(frame(SETTINGS, &[]));
        self.event();
        self.settle();
    }

    /// So many calls at the same time, all of which have been given up by now.
    fn burst(&mut self, calls: usize) {
        let caller = wakeup(1);
        let streams: Vec<Stream> = (0..calls)
            .map(|_| {
                let mut ticket = self.ticket();
                self.open(&mut ticket, &caller)
            })
            .collect();
        self.settle();
        drop(streams);
        self.settle();
    }

    /// So much later: whose time has come is woken.
    fn later(&mut self, by: Duration) {
        self.now += by;
        while let Some(task) = self.reactor.timers.expired(self.now) {
            self.wake(vec![task]);
        }
        self.settle();
    }
}

#[test]
fn a_connection_that_has_had_a_burst_is_replaced_once_it_has_rested() {
    const A_BIT: Duration = Duration::from_millis(1);
    let mut bench = Bench::connected();
    bench.burst(BURST_STREAMS);
    bench.later(BURST_REST - A_BIT);
    assert_eq!(bench.reactor.driver.attempts.len(), 1);
    // A call in between is served as ever, and it rests anew.
    bench.burst(1);
    bench.later(BURST_REST - A_BIT);
    assert_eq!(bench.reactor.driver.attempts.len(), 1);
    bench.later(A_BIT);
    assert_eq!(bench.reactor.driver.attempts.len(), 2);
    bench.greet(1);
    assert_eq!(bench.pool.connections(), 1, "the old one has gone");
    bench.burst(1);
    assert_eq!(
        count_of(HEADERS, &bench.pipe(1).borrow().output[PREFACE_BYTES..]),
        1
    );
    // The new one has had no burst.
    bench.later(10 * BURST_REST);
    assert_eq!(bench.reactor.driver.attempts.len(), 2);
    assert!(bench.reactor.timers.is_empty());
}

#[test]
fn a_connection_that_has_had_no_burst_stays_however_long_it_rests() {
    let mut bench = Bench::connected();
    (0..3).for_each(|_| bench.burst(BURST_STREAMS - 1));
    bench.later(10 * BURST_REST);
    assert_eq!(bench.reactor.driver.attempts.len(), 1);
    assert_eq!(bench.pool.connections(), 1);
}

#[test]
fn a_connection_is_not_given_up_after_a_burst_where_there_is_no_other() {
    let mut bench = Bench::connected();
    bench.burst(BURST_STREAMS);
    bench.reactor.driver.down = Some(io::ErrorKind::ConnectionRefused);
    bench.later(BURST_REST);
    assert_eq!(bench.reactor.driver.attempts.len(), 2);
    assert_eq!(bench.pool.connections(), 1, "the old one stays");
    bench.burst(1);
    // The backend takes new ones again.
    bench.reactor.driver.down = None;
    bench.later(BURST_REST);
    assert_eq!(bench.reactor.driver.attempts.len(), 3);
    // Whoever calls before the new one is there is served by the old one, which rests anew.
    bench.burst(1);
    bench.greet(1);
    assert_eq!(bench.pool.connections(), 2);
    bench.later(BURST_REST);
    assert_eq!(bench.pool.connections(), 1);
    assert_eq!(bench.reactor.driver.attempts.len(), 3);
}

#[test]
fn a_connection_that_carries_calls_is_read_without_an_event_when_all_are_looked_at() {
    const RST_STREAM: u8 = 3;
    let (mut bench, pipe) = ready(one_at_a_time());

    // Nobody waits for anything here: it keeps to its events.
    let unknown = frame(0x20, b"nothing");
    pipe.borrow_mut().input.extend(&unknown);
    bench.pool.look();
    bench.settle();
    assert_eq!(pipe.borrow().input.len(), unknown.len());

    let wakeup = wakeup(1);
    let mut ticket = bench.ticket();
    let mut stream = bench.open(&mut ticket, &wakeup);
    let cx = &mut Context::from_waker(wakeup.waker());
    assert!(stream.poll_part(bench.now, cx).is_pending());
    bench.settle();
    wakeup.popped();
    let mut reset = frame(RST_STREAM, &[0, 0, 0, 8]);
    reset[8] = 1;
    pipe.borrow_mut().input.extend(reset);
    bench.settle();
    assert!(!wakeup.queued(), "no event has come");
    bench.pool.look();
    bench.settle();
    assert!(wakeup.queued() && pipe.borrow().input.is_empty());
}

#[test]
fn u_19_those_who_wait_go_on_by_the_dozen_once_there_is_room_and_in_their_order() {
    const CALLS: u32 = 200;
    // No SETTINGS yet, so nobody gets on.
    let (mut bench, pipe) = ready(Vec::new());
    for (_, backend) in bench.pool.backends.iter_mut() {
        backend.pending_max = CALLS as usize;
    }
    let list = Arc::new(ReadyList::default());
    let mut calls: Vec<_> = (0..CALLS)
        .map(|number| (bench.ticket(), Wakeup::new(&list, number)))
        .collect();
    for (ticket, wakeup) in &mut calls {
        assert!(bench.call(ticket, wakeup).is_pending());
    }
    pipe.borrow_mut().input.extend(frame(SETTINGS, &[]));
    bench.event();
    bench.settle();
    // A turn has eight rounds over those who are ready.
    let mut streams = Vec::new();
    let mut order = Vec::new();
    for _ in 0..8 {
        let mut woken = Vec::new();
        list.take(&mut woken);
        for number in woken {
            let (ticket, wakeup) = &mut calls[number as usize];
            wakeup.popped();
            streams.push(match bench.call(ticket, wakeup) {
                Poll::Ready(Ok(stream)) => stream,
                Poll::Ready(Err(_)) | Poll::Pending => panic!("{number} was woken for nothing"),
            });
            order.push(number);
        }
    }
    assert_eq!(order, (0..CALLS).collect::<Vec<_>>());
    assert_eq!(bench.pool.waiting(), 0);
}

impl Bench {
    /// A pool with a connection to a backend that has acknowledged our SETTINGS.
    fn acknowledged() -> (Self, Rc<RefCell<Pipe>>) {
        let bench = Self::connected();
        let pipe = bench.pipe(0);
        (bench, pipe)
    }

    /// The backend says that, and what it hears then: how many resets, and how many SETTINGS.
    fn hear(&mut self, pipe: &RefCell<Pipe>, said: &[u8]) -> (usize, usize) {
        pipe.borrow_mut().output.clear();
        pipe.borrow_mut().input.extend(said);
        self.event();
        self.settle();
        let heard = &pipe.borrow().output;
        (count_of(RST_STREAM, heard), count_of(SETTINGS, heard))
    }

    /// So many calls whose heads have gone.
    fn calls(&mut self, count: usize) -> Vec<Stream> {
        let caller = wakeup(1);
        let streams = (0..count)
            .map(|_| self.open(&mut self.ticket(), &caller))
            .collect();
        self.settle();
        streams
    }
}

/// How many cancellations go on trust, and how many there are in all.
const ON_TRUST: usize = 8;
const CANCELLED: usize = 30;

/// How long a backend has peace between two questions.
const PAUSE: Duration = Duration::from_millis(30);

#[test]
fn u_32_calls_that_are_cancelled_together_are_told_when_their_backend_has_read_of_them() {
    let (mut bench, pipe) = Bench::acknowledged();
    bench.hear(&pipe, &ACKNOWLEDGED);
    let streams = |bench: &Bench| {
        bench
            .pool
            .iter()
            .map(|(_, own)| own.streams())
            .sum::<usize>()
    };
    drop(bench.calls(CANCELLED));
    // So many on trust, and the question.
    assert_eq!(bench.hear(&pipe, b""), (ON_TRUST, 1));
    assert_eq!(bench.hear(&pipe, b""), (0, 0), "nothing without an answer");
    assert_eq!(streams(&bench), CANCELLED - ON_TRUST);
    // They have been read. That they were looked at, the next answer says, and that question has its time.
    assert_eq!(bench.hear(&pipe, &ACKNOWLEDGED), (0, 0));
    pipe.borrow_mut().output.clear();
    bench.later(PAUSE - Duration::from_nanos(1));
    assert_eq!(pipe.borrow().output, b"");
    bench.later(Duration::from_nanos(1));
    assert_eq!(count_of(SETTINGS, &pipe.borrow().output), 1);
    assert_eq!(bench.hear(&pipe, &ACKNOWLEDGED), (CANCELLED - ON_TRUST, 0));
    assert!(bench.reactor.timers.is_empty());
    assert_eq!(streams(&bench), 0, "each has given its place back");
}

#[test]
fn u_32_a_backend_that_is_silent_is_told_all_in_the_end() {
    let (mut bench, pipe) = Bench::acknowledged();
    bench.hear(&pipe, &ACKNOWLEDGED);
    drop(bench.calls(CANCELLED));
    assert_eq!(bench.hear(&pipe, b""), (ON_TRUST, 1));
    bench.later(Duration::from_secs(10) - Duration::from_nanos(1));
    assert_eq!(bench.hear(&pipe, b""), (0, 0));
    pipe.borrow_mut().output.clear();
    bench.later(Duration::from_nanos(1));
    let told = count_of(RST_STREAM, &pipe.borrow().output);
    assert_eq!(told, CANCELLED - ON_TRUST);
    assert!(bench.reactor.timers.is_empty());
}

#[test]
fn u_32_who_leaves_now_and_then_never_waits() {
    let (mut bench, pipe) = Bench::acknowledged();
    bench.hear(&pipe, &ACKNOWLEDGED);
    let mut questions = 0;
    for _ in 0..10 * ON_TRUST {
        drop(bench.calls(1));
        let (told, asked) = bench.hear(&pipe, b"");
        assert_eq!(told, 1);
        questions += asked;
        bench.later(PAUSE / 2);
        bench.hear(&pipe, &ACKNOWLEDGED.repeat(asked));
    }
    assert_eq!(questions, 10 * ON_TRUST / 4);
}

#[test]
fn u_32_whom_the_backend_knows_is_cancelled_at_once() {
    // It has answered with a head, or two questions since.
    for answers in [true, false] {
        let (mut bench, pipe) = Bench::acknowledged();
        bench.hear(&pipe, &ACKNOWLEDGED);
        let mut streams = bench.calls(CANCELLED);
        let mut left = CANCELLED;
        if answers {
            let heads: Vec<u8> = (0..CANCELLED as u32)
                .flat_map(|number| {
                    let mut head = vec![0, 0, 1, HEADERS, 4];
                    head.extend((1 + 2 * number).to_be_bytes());
                    head.push(0x88);
                    head
                })
                .collect();
            bench.hear(&pipe, &heads);
            let caller = wakeup(1);
            let cx = &mut Context::from_waker(caller.waker());
            for stream in &mut streams {
                assert!(stream.poll_part(bench.now, cx).is_ready());
            }
        } else {
            left -= ON_TRUST + 1;
            drop(streams.split_off(left));
            assert_eq!(bench.hear(&pipe, b""), (ON_TRUST, 1));
            assert_eq!(bench.hear(&pipe, &ACKNOWLEDGED), (0, 0));
            bench.later(PAUSE);
            assert_eq!(bench.hear(&pipe, &ACKNOWLEDGED), (1, 0));
        }
        drop(streams);
        assert_eq!(bench.hear(&pipe, b""), (left, 0));
    }
}

#[test]
fn u_32_who_never_acknowledges_settings_cannot_be_asked_and_is_told_at_once() {
    let (mut bench, pipe) = Bench::acknowledged();
    drop(bench.calls(CANCELLED));
    assert_eq!(bench.hear(&pipe, b""), (CANCELLED, 0));
}

#[test]
fn u_32_who_waits_when_the_connection_ends_leaves_nothing_behind() {
    let (mut bench, pipe) = Bench::acknowledged();
    bench.hear(&pipe, &ACKNOWLEDGED);
    let mut streams = bench.calls(CANCELLED);
    drop(streams.split_off(5));
    bench.settle();
    pipe.borrow_mut().end = Some(Ok(()));
    bench.event();
    bench.settle();
    assert_eq!(bench.pool.connections(), 0);
    assert!(bench.reactor.transports.is_empty() && bench.reactor.timers.is_empty());
    drop(streams);
}
