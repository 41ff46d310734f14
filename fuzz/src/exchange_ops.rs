//! One exchange between two ends of memory, driven by a script: invariants 1, 3, 4 and 5 hold whatever comes in whatever
//! order, nothing is passed on that was not sent, and the end is told as the outcome says.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use wharf::exchange::{Exchange, Outcome, Terms, status_of};
use wharf::policy::{
    Backend, BackendId, Limits, PathMatch, Route, RouteKind, Rules, Snapshot, Target,
};
use wharf::rpc::{Dialect, Form};
use wharf::wire::base64::Decoder;
use wharf::wire::envelope::prefix;
use wharf::wire::{
    Code, Dial, OutgoingHead, Part, Party, Reason, RequestHead, Reset, ResponseHead, Sink, Source,
};

use super::shared::{Script, envelopes, trailers};

/// What a script may make the ends hold in all, bytes.
const BYTES_MAX: usize = 1 << 20;
/// How often an exchange may ask to be polled again before it is said to spin.
const POLLS_MAX: usize = 4_000;

/// Reads `input` as two bytes of terms and a script: a byte for each operation, most with a byte of argument.
pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (Some(how), Some(time)) = (script.byte(), script.byte()) else {
        return;
    };
    let mut world = World::new(how, time);
    while let Some(op) = script.byte() {
        if world.outcome.is_some() {
            break;
        }
        world.obey(op, &mut script);
        world.quiesce();
    }
    world.finish();
}

/// What one end will yield, what room it has, and what it has been asked and sent.
#[derive(Default)]
struct State {
    yields: VecDeque<Result<Part, Reset>>,
    /// No more will be added: the end has been said, or the cut.
    closed: bool,
    /// What it says for ever once `yields` is empty.
    last: Option<Result<(), Reset>>,
    room: usize,
    no_room_for_ever: Option<Reset>,
    gone: Option<Reset>,
    /// Of the way out: bytes, head, end.
    heads: Vec<ResponseHead>,
    body: Vec<u8>,
    ended: bool,
    trailers: Option<HeaderMap>,
    condemned: bool,
    /// Of the way in: what of it was handed out.
    handed_out: Vec<u8>,
    parts_out: usize,
    end_out: bool,
    head_out: bool,
    cut_out: bool,
    sends: usize,
    taken: usize,
    /// Room was given and nothing was asked for since.
    granted: bool,
    /// The last answer about room was no.
    refused: bool,
    /// It has said that nothing sent will arrive.
    dead: bool,
    dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn part(&mut self, cx: &Context<'_>) -> Poll<Result<Part, Reset>> {
        let next = match (self.yields.pop_front(), self.last) {
            (Some(next), _) => next,
            (None, Some(Ok(()))) => Ok(Part::End(None)),
            (None, Some(Err(reset))) => Err(reset),
            (None, None) => {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        self.parts_out += 1;
        match &next {
            Ok(Part::Head(_)) => self.head_out = true,
            Ok(Part::Data(bytes)) => self.handed_out.extend_from_slice(bytes),
            Ok(Part::End(_)) => {
                self.end_out = true;
                self.last = Some(Ok(()));
            }
            Err(reset) => {
                self.cut_out = true;
                self.last = Some(Err(*reset));
            }
        }
        Poll::Ready(next)
    }

    fn ask_room(&mut self, cx: &Context<'_>) -> Poll<Result<usize, Reset>> {
        if let Some(reset) = self.no_room_for_ever {
            self.dead = true;
            return Poll::Ready(Err(reset));
        }
        self.refused = self.room == 0;
        if self.refused {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.granted = true;
        Poll::Ready(Ok(self.room))
    }

    fn take_data(&mut self, bytes: &[u8]) {
        assert!(!self.ended, "invariant 4: nothing behind an end");
        assert!(!bytes.is_empty(), "a part of nothing");
        self.room = self.room.saturating_sub(bytes.len());
        self.body.extend_from_slice(bytes);
        self.sends += 1;
    }

    fn add(&mut self, part: Result<Part, Reset>) {
        if self.closed {
            return;
        }
        self.closed = !matches!(part, Ok(Part::Head(_) | Part::Data(_)));
        self.yields.push_back(part);
        wake(&mut self.reader);
    }

    fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

type Shared = Rc<RefCell<State>>;

/// The caller's end.
struct Down {
    own: Shared,
    dialect: Dialect,
    /// The stream that is open now, for invariant 3.
    up: Rc<RefCell<Option<Shared>>>,
}

impl Source for Down {
    fn poll_part(&mut self, _now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        if let Some(up) = &*self.up.borrow() {
            let up = up.borrow();
            assert!(
                !up.refused || up.dead,
                "invariant 3: more is asked for while what there is waits for room"
            );
        }
        self.own.borrow_mut().part(cx)
    }

    fn taken(&mut self, bytes: usize) {
        self.own.borrow_mut().taken += bytes;
    }
}

impl Sink for Down {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        self.own.borrow_mut().ask_room(cx)
    }

    fn send(&mut self, part: Part) {
        let mut own = self.own.borrow_mut();
        assert!(!own.dead, "invariant 4: nothing after a reset");
        assert!(!own.ended, "invariant 4: nothing behind an end");
        match part {
            Part::Head(head) => {
                assert!(own.heads.is_empty(), "invariant 4: one head");
                own.sends += 1;
                own.heads.push(*head);
            }
            Part::Data(bytes) => {
                assert!(!own.heads.is_empty(), "invariant 4: the head first");
                own.take_data(&bytes);
            }
            Part::End(fields) => {
                assert!(!own.heads.is_empty(), "invariant 4: the head first");
                match self.dialect {
                    Dialect::Grpc => {
                        let alone = own.heads.first().is_some_and(|head| head.end);
                        assert_eq!(fields.is_none(), alone, "one section ends it");
                    }
                    Dialect::GrpcWeb { .. } => {
                        assert!(fields.is_none(), "gRPC-Web has no HTTP trailers");
                    }
                    Dialect::Plain => {}
                }
                own.trailers = fields.map(|fields| *fields);
                own.sends += 1;
                own.ended = true;
            }
        }
    }

    fn condemn(&mut self) {
        self.own.borrow_mut().condemned = true;
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        let mut own = self.own.borrow_mut();
        match own.gone {
            Some(reset) => {
                own.dead = true;
                Poll::Ready(reset)
            }
            None => Poll::Pending,
        }
    }
}

/// The backend's end.
struct Up {
    own: Shared,
    down: Shared,
}

impl Source for Up {
    fn sense(&mut self, _now: Instant, cx: &mut Context<'_>) {
        let mut own = self.own.borrow_mut();
        // As h2: it wakes for what follows a head when that was asked for, and for the head when the head was.
        if own.head_out && own.yields.is_empty() {
            own.reader = Some(cx.waker().clone());
        }
    }

    fn poll_part(&mut self, _now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let mut own = self.own.borrow_mut();
        let mut down = self.down.borrow_mut();
        assert!(
            down.granted,
            "invariant 3: the sink is asked before the source"
        );
        let part = own.part(cx);
        if part.is_ready() {
            down.granted = false;
        }
        part
    }

    fn taken(&mut self, bytes: usize) {
        let mut own = self.own.borrow_mut();
        own.taken += bytes;
        assert!(
            own.taken <= own.handed_out.len(),
            "more is given back than came"
        );
    }
}

impl Sink for Up {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        self.own.borrow_mut().ask_room(cx)
    }

    fn send(&mut self, part: Part) {
        let mut own = self.own.borrow_mut();
        assert!(!own.dead, "invariant 4: nothing after a reset");
        assert!(!own.cut_out, "invariant 4: nothing after a reset");
        match part {
            Part::Head(_) => panic!("a request's head is no part"),
            Part::Data(bytes) => {
                assert!(own.granted, "invariant 3: room first");
                own.granted = false;
                own.take_data(&bytes);
            }
            Part::End(_) => {
                assert!(!own.ended, "invariant 4: one end");
                own.sends += 1;
                own.ended = true;
            }
        }
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        Poll::Pending
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.own.borrow_mut().dropped = true;
    }
}

/// The way to the backend: it says yes or no when the script does.
struct Way {
    down: Shared,
    up: Rc<RefCell<Option<Shared>>>,
    opened: Vec<Shared>,
    answers: VecDeque<Result<(), Reset>>,
    waiter: Option<Waker>,
    refused: usize,
    deadline: Option<Instant>,
}

impl Dial for Way {
    type Stream = Up;
    type Ticket = ();

    fn poll_open(
        &mut self,
        _ticket: &mut (),
        head: impl Fn() -> OutgoingHead,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Up, Reset>> {
        let head = head();
        let timeout = head.headers.get("grpc-timeout");
        assert_eq!(timeout.is_some(), self.deadline.is_some());
        if let (Some(timeout), Some(deadline)) = (timeout, self.deadline) {
            let remains = deadline.duration_since(now);
            assert!(
                naive_timeout(timeout) <= remains,
                "{timeout:?} of {remains:?}"
            );
        }
        match self.answers.pop_front() {
            None => {
                self.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Err(reset)) => Poll::Ready(Err(reset)),
            Some(Ok(())) => {
                for before in &self.opened {
                    let before = before.borrow();
                    assert!(before.dropped, "the refused one is gone before the next");
                    assert!(!before.head_out, "what was answered is never repeated");
                }
                let own = Shared::default();
                self.opened.push(Rc::clone(&own));
                *self.up.borrow_mut() = Some(Rc::clone(&own));
                let down = Rc::clone(&self.down);
                Poll::Ready(Ok(Up { own, down }))
            }
        }
    }

    fn note_refused(&mut self, _ticket: &mut ()) {
        self.refused += 1;
        *self.up.borrow_mut() = None;
    }
}

/// `1234m` and its like, without our own reader.
fn naive_timeout(value: &HeaderValue) -> Duration {
    let text = value.to_str().expect("ASCII");
    let (digits, unit) = text.split_at(text.len() - 1);
    assert!(!digits.is_empty() && digits.len() <= 8, "{text}");
    let count: u32 = digits.parse().expect("digits");
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => panic!("{text}"),
    };
    unit * count
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    exchange: Option<Exchange<Down, Way>>,
    way: Way,
    down: Shared,
    up: Rc<RefCell<Option<Shared>>>,
    dialect: Dialect,
    limit: u32,
    woken: Arc<Woken>,
    now: Instant,
    deadline: Option<Instant>,
    bytes_left: usize,
    outcome: Option<Outcome>,
}

impl World {
    fn new(how: u8, time: u8) -> Self {
        let form = |text: bool| if text { Form::Text } else { Form::Binary };
        let dialect = match how & 7 {
            6 => Dialect::Grpc,
            7 => Dialect::Plain,
            bits => Dialect::GrpcWeb {
                request: form(bits & 1 != 0),
                response: form(bits & 2 != 0),
            },
        };
        let limit = if how & 8 != 0 { 100 } else { 4 << 20 };
        let now = Instant::now();
        let deadline = (time > 0).then(|| now + Duration::from_millis(u64::from(time) * 200));
        let mut headers = HeaderMap::new();
        if how & 16 != 0 {
            headers.append("grpc-accept-encoding", HeaderValue::from_static("gzip"));
        }
        let terms = Terms {
            head: RequestHead {
                method: Method::POST,
                path: PathAndQuery::from_static("/a.B/C"),
                authority: None,
                headers: headers.into(),
            },
            version: match dialect {
                Dialect::Grpc => Version::HTTP_2,
                _ => Version::HTTP_11,
            },
            dialect,
            snapshot: Rules::new(Arc::new(snapshot(limit))),
            route: 0,
            deadline,
            started: now,
        };
        let own = Shared::default();
        let up: Rc<RefCell<Option<Shared>>> = Rc::default();
        let down = Down {
            own: Rc::clone(&own),
            dialect,
            up: Rc::clone(&up),
        };
        Self {
            exchange: Some(Exchange::new(down, (), terms)),
            way: Way {
                down: Rc::clone(&own),
                up: Rc::clone(&up),
                opened: Vec::new(),
                answers: VecDeque::new(),
                waiter: None,
                refused: 0,
                deadline,
            },
            down: own,
            up,
            dialect,
            limit,
            // It is polled once when it is made.
            woken: Arc::new(Woken(AtomicBool::new(true))),
            now,
            deadline,
            bytes_left: BYTES_MAX,
            outcome: None,
        }
    }

    fn wake(&self) {
        self.woken.0.store(true, Ordering::Relaxed);
    }

    /// A message of `n` bytes, or of a kibibyte for each where `n` is odd.
    fn message(&mut self, n: u8) -> Vec<u8> {
        let size = usize::from(n) * if n & 1 == 1 { 1024 } else { 1 };
        let size = size.min(self.bytes_left);
        self.bytes_left -= size;
        let payload = vec![n; size];
        [&prefix(0, size as u32)[..], &payload].concat()
    }

    fn obey(&mut self, op: u8, script: &mut Script<'_>) {
        let mut n = || script.byte().unwrap_or_default();
        let up = self.up.borrow().clone();
        match op % 24 {
            0 => self.wake(),
            // The client. Whatever happens to its socket wakes the call.
            1 => {
                let count = usize::from(n() % 32);
                let data = script.bytes(count).to_vec();
                self.say(data);
            }
            2 | 3 => {
                let message = self.message(n());
                self.say(self.spelled(&message));
            }
            4 => {
                // A piece of a message, with more promised than there is.
                let n = n();
                let begun = [
                    &prefix(0, 1 + u32::from(n))[..],
                    &vec![n; usize::from(n / 2)],
                ];
                self.say(self.spelled(&begun.concat()));
            }
            5 => {
                self.down.borrow_mut().add(Ok(Part::End(None)));
                self.wake();
            }
            6 => {
                let left = Reset::downstream(Reason::ClientLeft);
                let mut down = self.down.borrow_mut();
                down.gone = Some(left);
                down.no_room_for_ever = Some(left);
                down.add(Err(left));
                drop(down);
                self.wake();
            }
            7 => {
                let broken = Reset::downstream(Reason::ClientProtocol("so"));
                self.down.borrow_mut().add(Err(broken));
                self.wake();
            }
            8 | 9 => {
                self.down.borrow_mut().make_room(1 << (n() % 18));
                self.wake();
            }
            10 => {
                // It has stopped to read: the transport is given up.
                let slow = Reset::downstream(Reason::ClientTooSlow);
                let mut down = self.down.borrow_mut();
                down.gone = Some(slow);
                down.no_room_for_ever = Some(slow);
                drop(down);
                self.wake();
            }
            // The backend. It wakes whom it has promised to.
            11 => {
                let answer = match n() % 8 {
                    0 => Err(Reset::proxy(Reason::BackendConnectRefused)),
                    1 => Err(Reset::proxy(Reason::PendingOverflow)),
                    2 => Err(Reset::upstream(Reason::BackendRefused)),
                    _ => Ok(()),
                };
                self.way.answers.push_back(answer);
                wake(&mut self.way.waiter);
            }
            12 | 13 => {
                let n = n();
                if let Some(up) = up {
                    head(&mut up.borrow_mut(), n);
                }
            }
            14 => {
                let count = usize::from(n() % 32);
                let data = script.bytes(count).to_vec();
                self.answer(data);
            }
            15 | 16 => {
                let message = self.message(n());
                self.answer(message);
            }
            17 => {
                let n = n();
                self.answer(
                    [
                        &prefix(0, 1 + u32::from(n))[..],
                        &vec![n; usize::from(n / 2)],
                    ]
                    .concat(),
                );
            }
            18 => {
                let n = n();
                if let Some(up) = up.filter(|up| has_head(&up.borrow())) {
                    let fields = (n < 200).then(|| Box::new(status(n)));
                    up.borrow_mut().add(Ok(Part::End(fields)));
                }
            }
            19 => {
                let reset = Reset::upstream(match n() % 16 {
                    7 => Reason::BackendRefused,
                    15 => Reason::BackendClosed,
                    code => Reason::BackendReset(u32::from(code)),
                });
                if let Some(up) = up {
                    let mut up = up.borrow_mut();
                    up.add(Err(reset));
                    up.no_room_for_ever = Some(reset);
                    wake(&mut up.writer);
                }
            }
            20 => {
                let room = 1 << (n() % 18);
                if let Some(up) = up {
                    up.borrow_mut().make_room(room);
                }
            }
            21 => {
                if let Some(up) = up {
                    let mut up = up.borrow_mut();
                    up.no_room_for_ever = Some(Reset::upstream(Reason::BackendReset(0)));
                    wake(&mut up.writer);
                }
            }
            22 => self.now += Duration::from_millis(u64::from(n()) * 50),
            _ => {
                let n = n();
                if let Some(exchange) = &mut self.exchange {
                    if n < 250 {
                        exchange.condemn();
                    } else {
                        let waker = Waker::from(Arc::clone(&self.woken));
                        let cx = &mut Context::from_waker(&waker);
                        let outcome = exchange.abandon(Reason::Draining, self.now, cx);
                        assert!(
                            matches!(outcome.reason, Reason::Draining | Reason::Deadline),
                            "{outcome:?}"
                        );
                        self.outcome = Some(outcome);
                    }
                }
            }
        }
    }

    /// As the caller writes it.
    fn spelled(&self, bytes: &[u8]) -> Vec<u8> {
        use base64::Engine as _;
        match self.dialect {
            Dialect::GrpcWeb {
                request: Form::Text,
                ..
            } => base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into_bytes(),
            _ => bytes.to_vec(),
        }
    }

    fn say(&self, data: Vec<u8>) {
        if !data.is_empty() {
            self.down.borrow_mut().add(Ok(Part::Data(data.into())));
            self.wake();
        }
    }

    fn answer(&self, data: Vec<u8>) {
        let up = self.up.borrow().clone();
        if let Some(up) = up.filter(|up| has_head(&up.borrow()) && !data.is_empty()) {
            up.borrow_mut().add(Ok(Part::Data(data.into())));
        }
    }

    /// Polls as long as somebody asks for it, and once more: that must change nothing (invariant 1).
    fn quiesce(&mut self) {
        for polls in 0.. {
            assert!(polls < POLLS_MAX, "it spins");
            let Some(exchange) = &self.exchange else {
                return;
            };
            if self.outcome.is_some() {
                return;
            }
            let due = exchange.wake_at().is_some_and(|at| self.now >= at);
            let woken = self.woken.0.swap(false, Ordering::Relaxed);
            let late = self.deadline.is_some_and(|deadline| self.now >= deadline);
            let gone = self.down.borrow().gone.is_some();
            let before = self.progress();
            self.poll();
            if due || woken {
                assert!(
                    self.outcome.is_some() || !late && !gone,
                    "it goes on without a client, or after its deadline"
                );
                continue;
            }
            assert_eq!(
                self.progress(),
                before,
                "invariant 1: it could go on, and nobody would have said so"
            );
            assert!(self.outcome.is_none(), "invariant 1: it was over");
            if !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Everything that moves.
    fn progress(&self) -> (usize, usize, usize, usize, usize) {
        let down = self.down.borrow();
        let up = self.up.borrow().clone();
        let (parts, sends) = up.map_or((0, 0), |up| (up.borrow().parts_out, up.borrow().sends));
        let opened = self.way.opened.len();
        (down.parts_out, down.sends, parts, sends, opened)
    }

    fn poll(&mut self) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self.woken));
        let cx = &mut Context::from_waker(&waker);
        match exchange.poll(&mut self.way, self.now, cx) {
            Poll::Ready(outcome) => {
                assert_eq!(exchange.phase(), "done");
                self.outcome = Some(outcome);
            }
            Poll::Pending => {
                assert_ne!(exchange.phase(), "done");
                let wake_at = exchange.wake_at();
                assert!(
                    self.deadline
                        .is_none_or(|deadline| wake_at.is_some_and(|at| at <= deadline)),
                    "nobody wakes it at its deadline"
                );
            }
        }
        self.check_request();
    }

    /// What a backend has got is what the client has sent, and ends only where that ended.
    fn check_request(&self) {
        let down = self.down.borrow();
        let text = matches!(
            self.dialect,
            Dialect::GrpcWeb {
                request: Form::Text,
                ..
            }
        );
        let sent = if text {
            let mut bytes = BytesMut::new();
            let broken = Decoder::new().decode(&down.handed_out, &mut bytes).is_err();
            // The decoder has a target of its own. Here it only says what there is in front of a fault.
            if broken { return } else { bytes.to_vec() }
        } else {
            down.handed_out.clone()
        };
        for up in &self.way.opened {
            let up = up.borrow();
            assert!(sent.starts_with(&up.body), "bytes that nobody sent");
            if up.ended {
                assert!(down.end_out, "an end that nobody said");
                assert!(!down.cut_out, "a cut is no end");
                assert_eq!(up.body.len(), sent.len(), "an end before the end");
                if self.dialect.is_rpc() {
                    let read = envelopes(&sent);
                    assert!(
                        read.begun.is_none() && read.rest.is_empty(),
                        "half a message"
                    );
                    for (flags, payload) in read.whole {
                        assert!(flags <= 1);
                        assert!(payload.len() <= self.limit as usize);
                    }
                }
            }
        }
    }

    /// The rest comes, whatever it is: then the call ends.
    fn finish(mut self) {
        if self.outcome.is_none() {
            self.down.borrow_mut().make_room(BYTES_MAX * 4);
            self.wake();
            for _ in 0..3 {
                // A stream may be refused once, and what is refused the second time is told.
                self.way.answers.push_back(Ok(()));
                wake(&mut self.way.waiter);
                self.quiesce();
                let up = self.up.borrow().clone();
                if let Some(up) = up {
                    up.borrow_mut().make_room(BYTES_MAX * 4);
                    self.quiesce();
                    head(&mut up.borrow_mut(), 0);
                    self.quiesce();
                    up.borrow_mut()
                        .add(Ok(Part::End(Some(Box::new(status(5))))));
                    self.quiesce();
                }
            }
        }
        let outcome = self.outcome.take().expect("it never ends");
        self.judge(&outcome);
    }

    /// What everybody was told at the end.
    fn judge(&mut self, outcome: &Outcome) {
        let exchange = self.exchange.take().expect("it is taken once");
        for up in &self.way.opened {
            assert!(up.borrow().dropped, "invariant 5: the stream is gone");
        }
        assert!(
            self.way.opened.len() <= 2 && self.way.refused <= 1,
            "sent too often"
        );
        let http_status = exchange.http_status();
        let (_, response) = exchange.traffic();
        drop(exchange.into_parts());

        let down = self.down.borrow();
        let up = self.way.opened.last().map(|up| up.borrow());
        assert_eq!(
            http_status,
            down.heads.first().map(|head| head.status.as_u16())
        );
        match outcome.reason {
            Reason::Ok | Reason::BackendStatus => {
                let up = up.as_ref().expect("a backend answered");
                assert!(up.end_out || up.head_out, "a status that nobody sent");
                assert!(!up.cut_out, "a cut is no end");
                assert_eq!(outcome.by, Party::Upstream);
                assert!(!outcome.aborted);
            }
            Reason::Deadline => {
                let late = self.deadline.is_some_and(|deadline| self.now >= deadline);
                assert!(late, "a deadline before its time");
                assert_eq!(outcome.status.code, Code::DEADLINE_EXCEEDED);
            }
            // Its own status may say more than that.
            Reason::BackendProtocol(_) | Reason::BackendNotGrpc(_) | Reason::BackendNoTrailers => {}
            Reason::ClientLeft => assert!(down.gone.is_some() || down.cut_out),
            reason => assert_eq!(status_of(reason).0, outcome.status.code, "{outcome:?}"),
        }
        assert!(!(down.ended && outcome.aborted), "a cut that looks whole");
        if !self.dialect.is_rpc() {
            return;
        }
        if !down.ended {
            assert!(
                outcome.aborted || down.gone.is_some() || outcome.reason == Reason::ClientLeft,
                "no end, and nobody says so: {outcome:?}"
            );
            return;
        }

        // A whole answer: messages that were sent, in order, and what the outcome says, in one frame or in trailers.
        let head = down.heads.first().expect("a head");
        assert_eq!(head.status, StatusCode::OK);
        let text = matches!(
            self.dialect,
            Dialect::GrpcWeb {
                response: Form::Text,
                ..
            }
        );
        let mut body = BytesMut::new();
        if text {
            let mut decoder = Decoder::new();
            decoder.decode(&down.body, &mut body).expect("base64");
            decoder.finish().expect("whole groups of four");
        } else {
            body.extend_from_slice(&down.body);
        }
        let mut read = envelopes(&body);
        assert!(
            read.begun.is_none() && read.rest.is_empty(),
            "a whole frame is last"
        );
        let code = if self.dialect == Dialect::Grpc {
            let last = down.trailers.as_ref().unwrap_or(&head.headers);
            let code = last.get("grpc-status").expect("a status");
            code.to_str().expect("ASCII").to_owned()
        } else {
            let (flags, block) = read.whole.pop().expect("a frame");
            assert_eq!(flags, 0x80);
            let lines = trailers(block);
            let code = lines.iter().find(|(name, _)| *name == "grpc-status");
            code.expect("a status").1.to_owned()
        };
        assert_eq!(
            code,
            outcome.status.code.number().to_string(),
            "{outcome:?}"
        );
        if matches!(outcome.reason, Reason::Ok | Reason::BackendStatus) {
            assert_eq!(response.messages, read.whole.len() as u64);
        }

        let sent = up.map_or_else(Vec::new, |up| up.handed_out.clone());
        let sent = envelopes(&sent);
        assert!(
            read.whole.len() <= sent.whole.len(),
            "messages that nobody sent"
        );
        for ((flags, payload), (sent_flags, sent_payload)) in read.whole.iter().zip(&sent.whole) {
            assert!(*flags <= 1 && flags <= sent_flags);
            assert!(flags != sent_flags || payload == sent_payload);
            assert!(payload.len() <= self.limit as usize);
        }
        if outcome.reason == Reason::Ok {
            assert_eq!(
                read.whole.len(),
                sent.whole.len(),
                "what is whole is all of it"
            );
            assert!(sent.begun.is_none() && sent.rest.is_empty());
        }
    }
}

/// The head of an answer, if it is its turn.
fn head(up: &mut State, n: u8) {
    if has_head(up) || up.closed {
        return;
    }
    let code = match n % 8 {
        7 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let mut head = ResponseHead::new(code);
    let kind = match n % 8 {
        6 => "text/html",
        _ => "application/grpc+proto",
    };
    head.headers
        .insert("content-type", HeaderValue::from_static(kind));
    if n % 8 == 5 {
        head.headers
            .insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    if n % 8 == 4 {
        head.end = true;
        head.headers.extend(status(n / 8));
    }
    let ends = head.end;
    up.add(Ok(Part::Head(Box::new(head))));
    if ends {
        up.add(Ok(Part::End(None)));
    }
}

fn has_head(up: &State) -> bool {
    up.head_out
        || up
            .yields
            .iter()
            .any(|part| matches!(part, Ok(Part::Head(_))))
}

/// Trailers with that status, or with none.
fn status(n: u8) -> HeaderMap {
    let mut fields = HeaderMap::new();
    if n < 100 {
        fields.insert("grpc-status", u16::from(n % 20).into());
    }
    if n & 1 == 1 {
        fields.insert("grpc-message", HeaderValue::from_static("so%20it%20is"));
    }
    fields
}

fn snapshot(limit: u32) -> Snapshot {
    Snapshot {
        unrouted: Arc::new([]),
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
            target: Target::Endpoints(Vec::new()),
            connect_timeout: Duration::from_secs(1),
            connections_max: 1,
            pending_max: 1,
        }],
        limits: Limits {
            message_bytes_max: limit,
            ..Limits::default()
        },
        live_path: None,
    }
}
