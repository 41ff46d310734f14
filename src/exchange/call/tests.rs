//! An exchange between two queues: what a step does and in which order, whatever the ends are ready for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    Backend, BackendId, Endpoint, Limits, PathMatch, Route, RouteKind, Rules, Snapshot, Target,
};
use crate::rpc::Form;
use crate::wire::{Code, Fields, ResponseHead};

type Log = Rc<RefCell<Vec<&'static str>>>;

/// One end: what it will yield, what room it will have, and what it was sent.
struct State {
    names: Names,
    log: Log,
    /// `None`: pending, once.
    yields: VecDeque<Option<Result<Part, Reset>>>,
    /// `None`: no room, once. Empty: room.
    rooms: VecDeque<Option<Result<usize, Reset>>>,
    gone: Option<Reset>,
    heads: Vec<ResponseHead>,
    body: Vec<u8>,
    ended: bool,
    taken: usize,
    condemned: bool,
    wake_at: Option<Instant>,
}

struct Names {
    sense: &'static str,
    part: &'static str,
    room: &'static str,
    send: &'static str,
    settle: &'static str,
    gone: &'static str,
}

const DOWN: Names = Names {
    sense: "down.sense",
    part: "down.part",
    room: "down.room",
    send: "down.send",
    settle: "down.settle",
    gone: "down.gone",
};
const UP: Names = Names {
    sense: "up.sense",
    part: "up.part",
    room: "up.room",
    send: "up.send",
    settle: "up.settle",
    gone: "up.gone",
};

#[derive(Clone)]
struct End(Rc<RefCell<State>>);

impl End {
    fn new(names: Names, log: &Log) -> Self {
        Self(Rc::new(RefCell::new(State {
            names,
            log: Rc::clone(log),
            yields: VecDeque::new(),
            rooms: VecDeque::new(),
            gone: None,
            heads: Vec::new(),
            body: Vec::new(),
            ended: false,
            taken: 0,
            condemned: false,
            wake_at: None,
        })))
    }

    fn yields(&self, parts: impl IntoIterator<Item = Option<Result<Part, Reset>>>) {
        self.0.borrow_mut().yields.extend(parts);
    }

    fn rooms(&self, rooms: impl IntoIterator<Item = Option<Result<usize, Reset>>>) {
        self.0.borrow_mut().rooms.extend(rooms);
    }
}

impl State {
    fn note(&self, pick: impl Fn(&Names) -> &'static str) {
        self.log.borrow_mut().push(pick(&self.names));
    }
}

impl Source for End {
    fn sense(&mut self, _now: Instant, _cx: &mut Context<'_>) {
        self.0.borrow().note(|names| names.sense);
    }

    fn poll_part(&mut self, _now: Instant, _cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let mut state = self.0.borrow_mut();
        state.note(|names| names.part);
        match state.yields.pop_front() {
            Some(Some(part)) => Poll::Ready(part),
            Some(None) | None => Poll::Pending,
        }
    }

    fn taken(&mut self, bytes: usize) {
        self.0.borrow_mut().taken += bytes;
    }

    fn wake_at(&self) -> Option<Instant> {
        self.0.borrow().wake_at
    }
}

impl Sink for End {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        let mut state = self.0.borrow_mut();
        state.note(|names| names.room);
        match state.rooms.pop_front() {
            None => Poll::Ready(Ok(1)),
            Some(Some(room)) => Poll::Ready(room),
            Some(None) => Poll::Pending,
        }
    }

    fn send(&mut self, part: Part) {
        let mut state = self.0.borrow_mut();
        state.note(|names| names.send);
        assert!(!state.ended, "invariant 4: nothing behind an end");
        match part {
            Part::Head(head) => {
                assert!(state.heads.is_empty(), "invariant 4: one head");
                assert!(state.body.is_empty(), "invariant 4: the head first");
                state.heads.push(*head);
            }
            Part::Data(data) => state.body.extend(data),
            Part::End(_) => state.ended = true,
        }
    }

    fn settle(&mut self, _cx: &mut Context<'_>) {
        self.0.borrow().note(|names| names.settle);
    }

    fn condemn(&mut self) {
        self.0.borrow_mut().condemned = true;
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        let state = self.0.borrow();
        state.note(|names| names.gone);
        match state.gone {
            Some(reset) => Poll::Ready(reset),
            None => Poll::Pending,
        }
    }
}

/// Streams to be opened, one after the other.
struct Streams {
    log: Log,
    streams: VecDeque<Option<Result<End, Reset>>>,
    heads: Vec<OutgoingHead>,
    refused: usize,
}

impl Dial for Streams {
    type Stream = End;
    type Ticket = ();

    fn poll_open(
        &mut self,
        _ticket: &mut (),
        head: impl Fn() -> OutgoingHead,
        _now: Instant,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<End, Reset>> {
        self.log.borrow_mut().push("dial.open");
        match self.streams.pop_front() {
            Some(Some(opened)) => {
                self.heads.push(head());
                Poll::Ready(opened)
            }
            Some(None) | None => Poll::Pending,
        }
    }

    fn note_refused(&mut self, _ticket: &mut ()) {
        self.refused += 1;
    }
}

/// An exchange, its ends, and a waker that counts.
struct Bench {
    log: Log,
    down: End,
    dial: Streams,
    exchange: Exchange<End, Streams>,
    now: Instant,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bench {
    fn new(time: Option<Duration>) -> Self {
        let log = Log::default();
        let down = End::new(DOWN, &log);
        let now = Instant::now();
        let mut headers = Fields::new();
        let web = HeaderValue::from_static("application/grpc-web");
        headers.append(CONTENT_TYPE, web);
        let terms = Terms {
            head: RequestHead {
                method: Method::POST,
                path: PathAndQuery::from_static("/a.B/C?cut=off"),
                authority: None,
                headers,
            },
            version: Version::HTTP_11,
            dialect: Dialect::GrpcWeb {
                request: Form::Binary,
                response: Form::Binary,
            },
            snapshot: Rules::new(Arc::new(snapshot())),
            route: 0,
            deadline: time.map(|time| now + time),
            started: now,
        };
        Self {
            dial: Streams {
                log: Rc::clone(&log),
                streams: VecDeque::new(),
                heads: Vec::new(),
                refused: 0,
            },
            exchange: Exchange::new(down.clone(), (), terms),
            down,
            log,
            now,
            wakes: Arc::default(),
        }
    }

    /// The next stream that will be opened.
    fn stream(&mut self) -> End {
        let up = End::new(UP, &self.log);
        self.dial.streams.push_back(Some(Ok(up.clone())));
        up
    }

    fn poll(&mut self) -> Poll<Outcome> {
        self.log.borrow_mut().clear();
        let waker = Waker::from(Arc::clone(&self.wakes));
        let cx = &mut Context::from_waker(&waker);
        self.exchange.poll(&mut self.dial, self.now, cx)
    }

    fn poll_to_the_end(&mut self) -> Outcome {
        for _ in 0..10_000 {
            if let Poll::Ready(outcome) = self.poll() {
                return outcome;
            }
        }
        panic!("it never ends");
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        generation: 1,
        listeners: Vec::new(),
        routes: Arc::new([Route {
            name: "all".into(),
            path: PathMatch::Prefix("/".to_owned()),
            kind: RouteKind::Rpc,
            backend: BackendId(0),
            filters: Box::new([]),
        }]),
        backends: vec![Backend {
            name: "b".into(),
            target: Target::Endpoints(Vec::<Endpoint>::new()),
            connect_timeout: Duration::from_secs(1),
            connections_max: 1,
            pending_max: 1,
        }],
        limits: Limits::default(),
        unrouted: Arc::new([]),
        live_path: None,
    }
}

fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), payload].concat()
}

fn trailer_frame(lines: &str) -> Vec<u8> {
    let mut frame = message(lines.as_bytes());
    frame[0] = 0x80;
    frame
}

fn data(bytes: impl Into<Bytes>) -> Option<Result<Part, Reset>> {
    Some(Ok(Part::Data(bytes.into())))
}

fn end() -> Option<Result<Part, Reset>> {
    Some(Ok(Part::End(None)))
}

fn grpc_head() -> Option<Result<Part, Reset>> {
    let mut head = ResponseHead::new(StatusCode::OK);
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers.insert("content-type", grpc);
    Some(Ok(Part::Head(Box::new(head))))
}

fn trailers(status: &'static str) -> Option<Result<Part, Reset>> {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from_static(status));
    Some(Ok(Part::End(Some(Box::new(fields)))))
}

fn refused() -> Option<Result<Part, Reset>> {
    Some(Err(Reset::upstream(Reason::BackendRefused)))
}

#[test]
fn a_step_goes_answer_first_then_request_then_whether_the_client_is_there() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    bench.down.yields([data(message(b"hi")), None]);
    up.yields([None]);
    assert!(bench.poll().is_pending());
    assert_eq!(
        *bench.log.borrow(),
        [
            "down.sense",
            // Whoever has left calls nobody.
            "down.gone",
            "dial.open",
            "up.sense",
            "down.room",
            "up.part",
            "down.part",
            "up.room",
            "up.send",
            "down.part",
            "up.settle",
            "down.gone",
            "down.settle",
        ]
    );
    up.yields([grpc_head(), data(message(b"one")), trailers("0")]);
    assert!(bench.poll().is_ready());
    assert_eq!(
        *bench.log.borrow(),
        [
            "down.sense",
            "up.sense",
            "down.room",
            "up.part",
            "down.send",
            "down.room",
            "up.part",
            "down.send",
            "down.room",
            "up.part",
            // The frame, and the end.
            "down.send",
            "down.send",
            "down.settle",
        ],
        "the end of the answer ends the exchange, half a request outstanding"
    );
}

#[test]
fn a_sink_without_room_stops_its_source() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    up.yields([grpc_head()]);
    bench.down.rooms([None]);
    assert!(bench.poll().is_pending());
    assert!(!bench.log.borrow().contains(&"up.part"));
    assert!(bench.poll().is_pending());
    assert!(bench.log.borrow().contains(&"up.part"));

    // One part is held, no second one is asked for.
    bench
        .down
        .yields([data(message(b"1")), data(message(b"2")), None]);
    up.rooms([None, None]);
    for asked in [1, 0] {
        assert!(bench.poll().is_pending());
        let log = bench.log.borrow();
        let parts = log.iter().filter(|&&entry| entry == "down.part");
        assert_eq!(parts.count(), asked);
        assert!(!log.contains(&"up.send"));
    }
    assert!(bench.poll().is_pending());
    assert_eq!(up.0.borrow().body, [message(b"1"), message(b"2")].concat());
}

#[test]
fn a_request_is_read_ahead_of_its_stream_only_as_far_as_it_may_be_kept() {
    let mut bench = Bench::new(None);
    let piece = vec![0; 16 << 10];
    bench
        .down
        .yields([data(message(&vec![0; 1 << 20])[..5].to_vec())]);
    bench.down.yields((0..20).map(|_| data(piece.clone())));
    for _ in 0..5 {
        assert!(bench.poll().is_pending());
    }
    let left = bench.down.0.borrow().yields.len();
    assert_eq!(left, 20 - 4, "64 KiB, and not a part more");
}

#[test]
fn a_refused_upload_is_read_to_its_end_and_thrown_away_while_the_answer_runs() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    up.rooms([
        Some(Ok(1)),
        Some(Err(Reset::upstream(Reason::BackendReset(0)))),
    ]);
    up.yields([grpc_head(), None, None]);
    let pieces = [message(b"sent"), message(b"not sent"), message(b"nor this")];
    bench.down.yields(pieces.into_iter().map(data));
    bench.down.yields([end()]);
    assert!(bench.poll().is_pending());
    assert!(bench.poll().is_pending());
    assert_eq!(up.0.borrow().body, message(b"sent"));
    assert!(!up.0.borrow().ended, "half a request has no end");
    assert!(
        bench.down.0.borrow().yields.is_empty(),
        "all of it was read"
    );
    up.yields([trailers("0")]);
    let outcome = bench.poll_to_the_end();
    assert_eq!(outcome.reason, Reason::Ok);
    assert!(bench.down.0.borrow().ended);
}

#[test]
fn a_step_has_a_budget_each_way_and_asks_for_another() {
    const PIECE: usize = 16 << 10;
    let mut bench = Bench::new(None);
    let up = bench.stream();
    // A message that has begun, so that its bytes go on and on.
    let begun = message(&vec![0; 4 << 20])[..5].to_vec();
    up.yields([grpc_head(), data(begun.clone())]);
    up.yields((0..60).map(|_| data(vec![0; PIECE])));
    bench.down.yields([data(begun)]);
    bench.down.yields((0..60).map(|_| data(vec![0; PIECE])));
    for step in 1..=3 {
        let before = bench.wakes();
        assert!(bench.poll().is_pending());
        assert!(
            bench.wakes() > before,
            "there is more, and nobody else says so"
        );
        let sent = (up.0.borrow().body.len(), bench.down.0.borrow().body.len());
        let most = step * (STEP_BYTES_MAX + PIECE);
        assert!(sent.0 <= most && sent.1 <= most, "{sent:?} in {step} steps");
        assert!(sent.1 >= step * (STEP_BYTES_MAX - PIECE));
    }
}

#[test]
fn what_was_taken_is_told_to_the_source_when_the_sink_has_it() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    up.yields([grpc_head(), data(message(&[0; 95])), None]);
    bench.down.rooms([Some(Ok(1)), None]);
    assert!(bench.poll().is_pending());
    assert_eq!(up.0.borrow().taken, 0);
    assert!(bench.poll().is_pending());
    assert_eq!(up.0.borrow().taken, 100);
}

#[test]
fn a_call_is_repeated_once_and_only_where_nothing_was_answered() {
    // Refused twice: the second refusal is the end.
    let mut bench = Bench::new(None);
    for _ in 0..2 {
        bench.stream().yields([refused()]);
    }
    let third = bench.stream();
    let outcome = bench.poll_to_the_end();
    assert_eq!(outcome.reason, Reason::BackendRefused);
    assert_eq!(outcome.retry, Retry::Safe);
    assert_eq!(outcome.status.message, "backend \"b\" refused the call");
    assert_eq!((bench.dial.heads.len(), bench.dial.refused), (2, 1));
    assert!(third.0.borrow().body.is_empty());

    // Behind a head nothing is repeated, whatever the reset says.
    let mut bench = Bench::new(None);
    bench.stream().yields([grpc_head(), refused()]);
    bench.stream();
    assert_eq!(bench.poll_to_the_end().reason, Reason::BackendRefused);
    assert_eq!(bench.dial.heads.len(), 1);

    // Another reset is no refusal.
    let mut bench = Bench::new(None);
    let lost = Reset::upstream(Reason::BackendClosed);
    bench.stream().yields([Some(Err(lost))]);
    bench.stream();
    assert_eq!(bench.poll_to_the_end().reason, Reason::BackendClosed);
    assert_eq!(bench.dial.heads.len(), 1);
}

#[test]
fn the_query_stays_here_and_what_remains_of_the_time_goes_along() {
    let mut bench = Bench::new(Some(Duration::from_secs(10)));
    bench.dial.streams.push_back(None);
    assert!(bench.poll().is_pending());
    bench.now += Duration::from_secs(3);
    bench.stream();
    assert!(bench.poll().is_pending());
    let head = &bench.dial.heads[0];
    assert_eq!(head.path, "/a.B/C");
    assert_eq!(head.headers["grpc-timeout"], "7000000u");
    assert_eq!(head.headers["te"], "trailers");
}

#[test]
fn of_a_request_whose_answer_goes_on_only_what_a_record_tells_is_kept() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    for (name, value) in [
        ("authorization", "Bearer long"),
        ("user-agent", "browser"),
        ("origin", "http://page.test"),
        ("x-user-agent", "library"),
    ] {
        let name = HeaderName::from_static(name);
        let head = &mut bench.exchange.terms.head;
        head.headers.append(name, HeaderValue::from_static(value));
    }
    bench.down.yields([data(message(b"hi")), end()]);
    let told = |bench: &Bench| {
        let head = &bench.exchange.terms().head;
        let names = head.headers.iter().map(|(name, _)| name.to_string());
        names.collect::<Vec<_>>()
    };
    assert!(bench.poll().is_pending());
    assert_eq!(told(&bench).len(), 5, "it may have to be sent again");
    up.yields([grpc_head(), data(message(b"one"))]);
    assert!(bench.poll().is_pending());
    assert_eq!(told(&bench), ["origin", "user-agent", "x-user-agent"]);
    assert_eq!(bench.exchange.terms().head.path, "/a.B/C?cut=off");
    up.yields([trailers("0")]);
    let outcome = bench.poll_to_the_end();
    assert_eq!(outcome.status.code, Code::OK);
}

#[test]
fn the_deadline_ends_an_exchange_in_every_phase_and_every_later_loss_is_the_deadline() {
    let time = Duration::from_secs(1);
    for loss in [None, Some(Reset::upstream(Reason::BackendReset(8)))] {
        for connected in [false, true] {
            let mut bench = Bench::new(Some(time));
            let up = connected.then(|| bench.stream());
            assert!(bench.poll().is_pending());
            assert_eq!(bench.exchange.wake_at(), Some(bench.now + time));
            bench.now += time;
            if let (Some(up), Some(loss)) = (&up, loss) {
                up.yields([Some(Err(loss))]);
            }
            let Poll::Ready(outcome) = bench.poll() else {
                panic!("it goes on for ever");
            };
            let ends = (outcome.status.code, outcome.reason, outcome.by);
            assert_eq!(
                ends,
                (Code::DEADLINE_EXCEEDED, Reason::Deadline, Party::Proxy)
            );
            let told = trailer_frame(
                "grpc-status:4\r\ngrpc-message:the deadline of the call has passed\r\n",
            );
            assert_eq!(bench.down.0.borrow().body, told);
            assert!(bench.down.0.borrow().ended);
        }
    }
}

#[test]
fn a_client_that_is_gone_is_told_nothing() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    up.yields([grpc_head(), data(message(b"one"))]);
    assert!(bench.poll().is_pending());
    bench.down.0.borrow_mut().gone = Some(Reset::downstream(Reason::ClientLeft));
    let Poll::Ready(outcome) = bench.poll() else {
        panic!("it goes on for ever");
    };
    assert_eq!(outcome.status.code, Code::CANCELLED);
    assert!(!outcome.aborted, "nobody was there to be cut off");
    assert!(!bench.down.0.borrow().ended);
    assert_eq!(bench.down.0.borrow().body, message(b"one"));
    assert_eq!(Rc::strong_count(&up.0), 1, "its stream was dropped");
}

#[test]
fn r_03_a_reader_that_was_given_up_is_sent_nothing_more() {
    let slow = Reset::downstream(Reason::ClientTooSlow);
    for (answered, by_room) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::new(None);
        let up = bench.stream();
        if answered {
            up.yields([grpc_head(), data(message(b"one"))]);
        }
        assert!(bench.poll().is_pending());
        if by_room {
            bench.down.rooms([Some(Err(slow))]);
        } else {
            bench.down.0.borrow_mut().gone = Some(slow);
        }
        let Poll::Ready(outcome) = bench.poll() else {
            panic!("it goes on for ever");
        };
        assert!(!bench.log.borrow().contains(&"down.send"), "invariant 4");
        assert_eq!(outcome.reason, Reason::ClientTooSlow);
        assert_eq!(outcome.aborted, answered, "what was begun was cut");
        let seen = answered.then_some(200);
        assert_eq!(bench.exchange.http_status(), seen, "nobody saw another");
        assert!(!bench.down.0.borrow().ended);
        assert_eq!(Rc::strong_count(&up.0), 1, "its stream was dropped");
    }
}

#[test]
fn an_end_inside_a_message_is_never_written() {
    for abandoned in [false, true] {
        let mut bench = Bench::new(None);
        let up = bench.stream();
        up.yields([grpc_head(), data(message(b"other")[..7].to_vec())]);
        assert!(bench.poll().is_pending());
        let outcome = if abandoned {
            let cx = &mut Context::from_waker(Waker::noop());
            bench.exchange.abandon(Reason::Draining, bench.now, cx)
        } else {
            up.yields([Some(Err(Reset::upstream(Reason::BackendClosed)))]);
            bench.poll_to_the_end()
        };
        assert!(outcome.aborted);
        assert_eq!(outcome.status.code, Code::UNAVAILABLE);
        assert!(!bench.down.0.borrow().ended);
        assert_eq!(bench.down.0.borrow().body, message(b"other")[..7]);
    }
}

#[test]
fn a_broken_request_condemns_the_connection_and_never_ends_at_the_backend() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    bench
        .down
        .yields([data(message(b"hello")[..7].to_vec()), end()]);
    let outcome = bench.poll_to_the_end();
    assert_eq!(outcome.status.code, Code::INTERNAL);
    assert_eq!(outcome.by, Party::Downstream);
    assert!(bench.down.0.borrow().condemned);
    assert!(bench.down.0.borrow().ended, "the caller is told");
    assert!(!up.0.borrow().ended);
}

/// A request and how it comes, as sizes of pieces with pauses between them.
fn pieces(bytes: &[u8], schedule: &[(usize, bool)]) -> Vec<Option<Result<Part, Reset>>> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    for &(size, pause) in schedule.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, more) = rest.split_at(size.clamp(1, rest.len()));
        parts.push(data(piece.to_vec()));
        if pause {
            parts.push(None);
        }
        rest = more;
    }
    parts
}

fn schedule() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((500..40_000usize, any::<bool>()), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_repeated_call_is_the_same_byte_for_byte_whenever_it_is_refused(
        payload in prop::collection::vec(any::<u8>(), 0..90_000),
        schedule in schedule(),
        rooms in prop::collection::vec(any::<bool>(), 0..30),
        more_rooms in prop::collection::vec(any::<bool>(), 0..30),
        refused_after in 0..20usize,
        opens_after in 0..4usize,
    ) {
        let request = message(&payload);
        let mut bench = Bench::new(None);
        bench.down.yields(pieces(&request, &schedule));
        bench.down.yields([end()]);
        bench.dial.streams.extend((0..opens_after).map(|_| None));
        let first = bench.stream();
        let second = bench.stream();
        first.rooms(rooms.iter().map(|&room| room.then_some(Ok(1))));
        second.rooms(more_rooms.iter().map(|&room| room.then_some(Ok(1))));
        first.yields((0..refused_after).map(|_| None));
        first.yields([refused()]);
        // Long enough for the slowest request to arrive.
        second.yields((0..1_000).map(|_| None));
        second.yields([grpc_head(), trailers("0")]);

        let outcome = bench.poll_to_the_end();
        let seen = first.0.borrow();
        prop_assert!(request.starts_with(&seen.body));
        prop_assert!(!seen.ended || seen.body == request);
        if bench.dial.heads.len() == 2 {
            let again = second.0.borrow();
            prop_assert_eq!(outcome.reason, Reason::Ok);
            prop_assert!(again.body == request, "not the same bytes");
            prop_assert!(again.ended);
        } else {
            prop_assert_eq!(outcome.reason, Reason::BackendRefused);
            prop_assert!(request.len() > REPLAY_BYTES_MAX, "small enough to be kept");
        }
    }

    #[test]
    fn an_answer_is_the_same_byte_for_byte_whatever_is_ready_when(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5_000), 0..6),
        schedule in schedule(),
        rooms in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let answer: Vec<u8> = payloads.iter().flat_map(|payload| message(payload)).collect();
        let mut bench = Bench::new(None);
        let up = bench.stream();
        bench.down.rooms(rooms.iter().map(|&room| room.then_some(Ok(1))));
        up.yields([grpc_head()]);
        up.yields(pieces(&answer, &schedule));
        up.yields([trailers("5")]);
        let outcome = bench.poll_to_the_end();
        prop_assert_eq!(outcome.status.code, Code::NOT_FOUND);
        let down = bench.down.0.borrow();
        let expected = [&answer[..], &trailer_frame("grpc-status:5\r\n")].concat();
        prop_assert!(down.body == expected);
        prop_assert!(down.ended);
        prop_assert_eq!(up.0.borrow().taken, answer.len());
        let (_, response) = bench.exchange.traffic();
        prop_assert_eq!(response.messages, payloads.len() as u64);
        prop_assert_eq!(response.bytes, answer.len() as u64);
    }
}

#[test]
fn r_02_a_client_may_rest_between_messages_but_not_inside_one() {
    let second = Duration::from_secs(1);
    let mut bench = Bench::new(None);
    let up = bench.stream();
    up.rooms([Some(Ok(1 << 20)), Some(Ok(1 << 20)), Some(Ok(1 << 20))]);
    bench.down.yields([data(message(b"whole")), None]);
    assert!(bench.poll().is_pending());
    bench.now += 3600 * second;
    assert!(bench.poll().is_pending(), "an hour between two messages");
    assert_eq!(bench.exchange.wake_at(), None);

    let other = message(&[7; 3000]);
    bench.down.yields([data(other[..5].to_vec()), None]);
    assert!(bench.poll().is_pending());
    assert_eq!(
        bench.exchange.wake_at(),
        Some(bench.now + 10 * second),
        "ten seconds of grace"
    );
    bench.now += 9 * second;
    bench.down.yields([data(other[5..5 + 512].to_vec()), None]);
    assert!(bench.poll().is_pending());
    assert_eq!(
        bench.exchange.wake_at(),
        Some(bench.now + 3 * second),
        "512 bytes buy two more"
    );
    bench.now += 3 * second;
    let Poll::Ready(outcome) = bench.poll() else {
        panic!("it waits for ever");
    };
    assert_eq!(outcome.reason, Reason::ClientTooSlow);
    assert_eq!(outcome.status.code, Code::DEADLINE_EXCEEDED);
    let down = bench.down.0.borrow();
    assert!(
        down.ended && down.condemned,
        "it is told, and its connection ends"
    );
}

#[test]
fn metadata_over_the_limit_is_not_passed_on_and_at_the_limit_it_is() {
    let max = Limits::default().head_bytes_max;
    for over in [0, 1] {
        let mut bench = Bench::new(None);
        let up = bench.stream();
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static("5"));
        fields.insert("x-large", HeaderValue::from_static(""));
        let length = max - metadata::size(&fields) + over;
        let value = HeaderValue::from_str(&"x".repeat(length)).expect("letters");
        fields.insert("x-large", value);
        assert_eq!(metadata::size(&fields), max + over);
        up.yields([grpc_head(), Some(Ok(Part::End(Some(Box::new(fields)))))]);
        let reason = bench.poll_to_the_end().reason;
        let expected = [Reason::BackendStatus, Reason::MetadataTooLarge];
        assert_eq!(reason, expected[over]);
    }
}

#[test]
fn a_backend_that_cancels_at_the_deadline_has_met_the_deadline() {
    let second = Duration::from_secs(1);
    let rows = [
        (0, "1", Reason::BackendStatus),
        (1, "1", Reason::Deadline),
        (1, "5", Reason::BackendStatus),
    ];
    for (passed, status, reason) in rows {
        let mut bench = Bench::new(Some(second));
        let up = bench.stream();
        up.yields([grpc_head()]);
        assert!(bench.poll().is_pending());
        bench.now += passed * second;
        up.yields([trailers(status)]);
        let outcome = bench.poll_to_the_end();
        assert_eq!(outcome.reason, reason, "{status} after {passed} s");
    }
}

#[test]
fn an_exchange_tells_where_it_stands() {
    let mut bench = Bench::new(None);
    let started = bench.now;
    assert!(bench.exchange.wants_more());
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.phase(), "connecting");
    assert!(bench.exchange.upstream().is_none());

    let up = bench.stream();
    up.rooms([None]);
    bench.down.yields([data(message(b"hi")), None]);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.phase(), "relaying");
    assert!(bench.exchange.upstream().is_some());
    assert!(!bench.exchange.wants_more(), "it waits for room");
    assert!(!bench.exchange.discards());
    assert_eq!(bench.exchange.held(), (7, 0));
    assert_eq!(bench.exchange.first_byte(), None);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.held(), (0, 7), "it may have to be repeated");

    bench.now += Duration::from_secs(2);
    up.yields([grpc_head()]);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.held(), (0, 0), "it was answered");
    let first_byte = bench.exchange.first_byte();
    assert_eq!(first_byte, Some(bench.now.duration_since(started)));

    up.rooms([Some(Err(Reset::upstream(Reason::BackendReset(0))))]);
    bench.down.yields([data(message(b"more")), None]);
    assert!(bench.poll().is_pending());
    assert!(bench.exchange.discards() && bench.exchange.wants_more());
    assert!(bench.exchange.take_upstream().is_some());
    assert_eq!(bench.exchange.phase(), "done");
    assert!(bench.exchange.take_upstream().is_none());
}

#[test]
fn a_backend_is_not_waited_for_by_the_clock_while_the_caller_has_no_room() {
    let mut bench = Bench::new(None);
    let up = bench.stream();
    let at = bench.now + Duration::from_secs(1);
    up.0.borrow_mut().wake_at = Some(at);
    bench.down.rooms([None]);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.wake_at(), None);
    assert!(bench.poll().is_pending());
    assert_eq!(bench.exchange.wake_at(), Some(at));
}

#[test]
fn a_failed_call_is_told_so_where_it_is_known_what_was_sent() {
    for answered in [false, true] {
        let mut bench = Bench::new(None);
        let up = bench.stream();
        if answered {
            up.yields([grpc_head(), data(message(b"one"))]);
        }
        assert!(bench.poll().is_pending());
        drop(bench.exchange.take_upstream());
        let cx = &mut Context::from_waker(Waker::noop());
        let outcome = bench.exchange.fail(bench.now, cx);
        assert_eq!((outcome.reason, outcome.aborted), (Reason::Panic, false));
        let down = bench.down.0.borrow();
        assert!(down.ended && down.condemned);
        assert_eq!(bench.exchange.http_status(), Some(200));
    }
}

#[test]
fn a_small_piece_of_a_message_waits_for_more_and_256_bytes_go() {
    let begun = message(&[7; 3000]);
    for (bytes, sent) in [(255, 0), (256, 256), (257, 257)] {
        let mut bench = Bench::new(None);
        let up = bench.stream();
        bench.down.yields([data(begun[..bytes].to_vec()), None]);
        assert!(bench.poll().is_pending());
        assert_eq!(up.0.borrow().body.len(), sent, "{bytes} bytes");
    }
}
