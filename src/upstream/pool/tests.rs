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
use crate::wire::{Part, Sink, Source};

const SETTINGS: u8 = 4;
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
}

struct End(Rc<RefCell<Pipe>>);

impl Socket for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let input = &mut self.0.borrow_mut().input;
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(input, into)
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
    /// Every attempt fails at once.
    down: bool,
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

    fn connect(&mut self, address: SocketAddr) -> io::Result<End> {
        self.attempts.push(address);
        if self.down {
            return Err(io::ErrorKind::NetworkUnreachable.into());
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
        let head = RequestHead {
            method: Method::POST,
            path: "/demo.Greeter/Greet".parse().unwrap(),
            authority: None,
            headers: HeaderMap::new(),
        };
        let cx = &mut Context::from_waker(wakeup.waker());
        self.pool.poll_open(ticket, &head, self.now, cx)
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

/// A backend that takes one call at a time, with windows that are never short.
fn one_at_a_time() -> Vec<u8> {
    let settings = [0, 3, 0, 0, 0, 1, 0, 4, 0, 16, 0, 0];
    let window = (8u32 << 20).to_be_bytes();
    [frame(SETTINGS, &settings), frame(WINDOW_UPDATE, &window)].concat()
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
        stream.sense(cx);
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
    let mut bench = Bench::new(&["127.0.0.1:1"]);
    bench.reactor.driver.down = true;
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
    for (pause, attempts) in [(BACKOFF_FIRST / 2, 1), (BACKOFF_FIRST / 2, 2)] {
        bench.now += pause;
        for (ticket, wakeup) in &mut calls {
            let call = bench.call(ticket, wakeup);
            assert_eq!(call.is_ready(), attempts == 1, "after {pause:?}");
        }
        bench.connect_wanted();
        assert_eq!(bench.reactor.driver.attempts.len(), attempts);
    }
}

#[test]
fn u_31_a_call_behind_others_asks_for_no_connection_while_one_has_room() {
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
