//! A client that speaks HTTP/2 by prior knowledge and writes its own frames: many calls on one connection, each at its own pace.
//! It holds the core to RFC 9113: windows, one end for each stream and nothing after it, no stream beyond a GOAWAY.
//!
//! Uploads in pieces, padded and empty frames, field blocks in pieces, trailers that nobody wants; windows that are shut, drip,
//! or shrink under what is on its way; PING, SETTINGS and what nobody knows in between; an own GOAWAY; readers that stand still:
//! all of that harms no other call. It resets a call at any point, closes, half-closes or loses its connection at any point, and
//! may break HTTP/2 or ask for far too much: from then on it only waits for its connection to end.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use httlib_hpack::Decoder;
use wharf::net::sim::{Arrival, End, Machine};

use crate::browser::{CONTINUE_WAIT, Step, body_of};
use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_MAX, Frame, GOAWAY, HEADERS,
    PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW, WINDOW_UPDATE,
    literal, number,
};
use crate::plan::{Broken, Form, Plan};

/// Far from what the core takes for a flood, each of them in the life of a connection.
const PINGS_MAX: u32 = 60;
const SETTINGS_MAX: u32 = 30;
const EMPTY_MAX: u32 = 60;
const ODD_MAX: u32 = 60;
const NAPS_MAX: u32 = 60;
/// How long who has broken HTTP/2 waits for the end of its connection.
const DOOM_TIME: Duration = Duration::from_secs(20);
/// What is left for the connection's window, bytes, before more is given.
const CONNECTION_TARGET: i64 = 1 << 20;
/// Weight and all (RFC 9113 §6.2).
const PRIORITY_FLAG: u8 = 0x20;

pub(crate) struct Caller {
    pub(crate) end: Option<End>,
    pub(crate) link: usize,
    pub(crate) calls: Vec<Call>,
    /// It has gone, or has given cause to be sent away.
    pub(crate) left: bool,
    /// It has stood still with bytes unread or unsent.
    pub(crate) stalled: bool,
    /// How the connection ended, where it was not the client that ended it; and when, whoever did.
    pub(crate) ended: Option<Arrival>,
    pub(crate) ended_at: Duration,
    pub(crate) born_at: Duration,
    pub(crate) done: bool,
    /// The last GOAWAY that came: the last stream that counts, and its code.
    pub(crate) told: Option<(u32, u32)>,
    machine: Machine,
    now: Duration,
    inbox: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    received: usize,
    decoder: Decoder<'static>,
    /// The core has begun to speak.
    pub(crate) greeted: bool,
    /// A field block that is not whole: of which stream, and whether that ends with it.
    block: Option<(u32, bool, Vec<u8>)>,
    next: u32,
    /// What we may send: to a new stream, and in all; and how many streams there may be.
    send_initial: i64,
    send: i64,
    streams_max: usize,
    /// What the core may send, by what it has acknowledged.
    recv_initial: i64,
    recv: i64,
    frame_max: usize,
    announced: VecDeque<Option<i64>>,
    pings: VecDeque<[u8; 8]>,
    frames: u32,
    /// What it has done of what may be too much.
    count: Count,
    habits: Habits,
    leave: Option<(Point, Way)>,
    stall: Option<(Point, Duration)>,
    sleeps_until: Option<Duration>,
    goaway_at: Option<u32>,
    /// It has said GOAWAY itself.
    went: bool,
    doom: Option<(u32, u8)>,
    /// It has broken HTTP/2, and closes then.
    doomed: Option<Duration>,
    patience: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    pings: u32,
    settings: u32,
    empty: u32,
    odd: u32,
    naps: u32,
    long_naps: u32,
}

#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Out of 256 and step: what HTTP/2 allows and nobody expects.
    mischief: u8,
    padded: bool,
    /// Windows are given in drops.
    drops: bool,
    write_max: usize,
    read_max: usize,
    /// It opens no stream after a GOAWAY.
    polite: bool,
    /// It sleeps in its patience and does not answer.
    naps: bool,
}

#[derive(Clone, Copy, Debug)]
enum Point {
    Sent(usize),
    Received(usize),
}

impl Point {
    fn reached(self, sent: usize, received: usize) -> bool {
        match self {
            Self::Sent(n) => sent >= n,
            Self::Received(n) => received >= n,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Reset,
    Close,
    Half,
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// END_STREAM.
    Whole,
    /// The core reset it, with that code.
    Reset(u32),
    /// A GOAWAY says that it never was.
    Unprocessed,
}

pub(crate) type FieldList = Vec<(String, String)>;

/// One stream.
pub(crate) struct Call {
    /// Which call; `None`: something else that needs an answer.
    pub(crate) id: Option<usize>,
    pub(crate) head: Option<FieldList>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<FieldList>,
    pub(crate) ended: Option<Ended>,
    /// We have reset it.
    pub(crate) reset: bool,
    /// When the core had heard of that at the latest.
    pub(crate) silent_at: Option<Duration>,
    /// It reads so slowly that its answer may be given up.
    pub(crate) slow: bool,
    /// Where in all that was written its head ends; zero: it was not made.
    pub(crate) head_at: usize,
    stream: u32,
    block: Vec<u8>,
    content: Vec<u8>,
    sent: usize,
    said: bool,
    trails: bool,
    /// The core has reset it; nothing may follow.
    over: bool,
    window: i64,
    recv: i64,
    /// What its window is to be.
    target: i64,
    shut: Option<(usize, Duration)>,
    reset_at: Option<(Point, u32)>,
    /// When it is made at the earliest, and when it was.
    at: Duration,
    /// So many others must have ended.
    after: usize,
    /// It waits for `100 Continue`.
    expects: bool,
    /// It resets what is left of it with that code when its answer is whole.
    quits: Option<u32>,
    piece_max: usize,
}

impl Call {
    /// A call of that plan, or some other stream.
    fn new(plan: Option<&Plan>, rng: &mut fastrand::Rng, plain: bool) -> Self {
        let mut call = Self::empty();
        call.expects = plan.is_some() && !plain && rng.u8(..12) == 0;
        call.content = plan.map_or_else(Vec::new, |plan| body_of(plan, rng));
        call.trails = plan.is_some() && !plain && rng.u8(..8) == 0;
        call.block = match plan {
            Some(plan) => call.head_of(plan, rng),
            None => stray(rng),
        };
        let Some(plan) = plan else {
            return call;
        };
        call.id = Some(plan.id);
        if plain {
            return call;
        }
        let replies: usize = plan.replies().iter().map(Vec::len).sum();
        let small = 1 + replies / 100;
        call.target = [small, small + 300, 65_535, 1 << 20][rng.usize(..4)] as i64;
        call.piece_max = rng.usize(1..40);
        call.quits = (rng.u8(..3) == 0).then(|| [0, 8][rng.usize(..2)]);
        if rng.u8(..10) == 0 {
            // The last is for ever.
            let time = [30, 3_000, 60_000, 10_000_000][rng.usize(..4)];
            call.shut = Some((rng.usize(..=replies), Duration::from_millis(time)));
            call.slow = true;
        }
        if rng.u8(..8) == 0 {
            let point = match rng.bool() {
                true => Point::Sent(rng.usize(..=call.content.len())),
                false => Point::Received(rng.usize(..=replies)),
            };
            let code = if rng.bool() { 8 } else { rng.u32(..14) };
            call.reset_at = Some((point, code));
        }
        call
    }

    fn empty() -> Self {
        Self {
            id: None,
            head: None,
            body: Vec::new(),
            trailers: None,
            ended: None,
            reset: false,
            silent_at: None,
            slow: false,
            head_at: 0,
            stream: 0,
            block: Vec::new(),
            content: Vec::new(),
            sent: 0,
            said: false,
            trails: false,
            over: false,
            window: 0,
            recv: 0,
            target: 1 << 20,
            shut: None,
            reset_at: None,
            at: Duration::ZERO,
            after: 0,
            expects: false,
            quits: None,
            piece_max: 1,
        }
    }

    fn head_of(&self, plan: &Plan, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut block = Vec::new();
        let mut field = |name: &str, value: &str| {
            // Remembered, not remembered, never to be remembered.
            let form = [0x40, 0, 0x10][rng.usize(..3)];
            literal(form, name, value, &mut block);
        };
        field(":method", "POST");
        field(":scheme", "http");
        field(":path", &plan.path());
        field(":authority", "sim.test");
        field("content-type", plan.form.content_type());
        field("x-call", &plan.id.to_string());
        match plan.form {
            Form::Web => {}
            Form::Text => field("accept", "application/grpc-web-text"),
            Form::Native => field("te", "trailers"),
        }
        if let Some(timeout) = plan.timeout {
            field("grpc-timeout", &format!("{}m", timeout.as_millis()));
        }
        if self.expects {
            field("expect", "100-continue");
        }
        let length = self.content.len();
        if plan.broken == Some(Broken::Framing) {
            field("content-length", &(length + 1).to_string());
        } else if plan.id.is_multiple_of(2) {
            field("content-length", &length.to_string());
        }
        block
    }

    fn is_open(&self) -> bool {
        self.head_at > 0 && !self.is_past()
    }

    /// Nothing more is waited for.
    fn is_past(&self) -> bool {
        match self.reset {
            true => self.silent_at.is_some(),
            false => self.ended.is_some(),
        }
    }

    /// Nothing more is to be sent.
    fn is_mute(&self) -> bool {
        self.said || self.reset || self.over || self.ended == Some(Ended::Unprocessed)
    }
}

/// The head of something that is no call: some of them are requests, others are malformed (RFC 9113 §8.1.1).
fn stray(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut block = Vec::new();
    let how = rng.u8(..6);
    let mut field = |name: &str, value: &str| literal(0, name, value, &mut block);
    field(":method", if how == 5 { "OPTIONS" } else { "GET" });
    field(":scheme", "http");
    if how != 1 {
        field(":path", "/");
    }
    field(":authority", "sim.test");
    match how {
        2 => field("accept", " text/html"),
        3 => field("connection", "close"),
        4 => field("accept", "text/html"),
        _ => {}
    }
    block
}

impl Caller {
    /// `plain`: it does what it is to do, and nothing else.
    pub(crate) fn new(
        machine: &Machine,
        rng: &mut fastrand::Rng,
        plans: &[Plan],
        plain: bool,
    ) -> Option<Self> {
        let end = machine.dial_in(0)?;
        let one_in = |many: u8, rng: &mut fastrand::Rng| rng.u8(..many) == 0 && !plain;
        let at_once = rng.bool() || plain;
        let mut calls = Vec::new();
        for plan in plans {
            let index = calls.len();
            let mut call = Call::new(Some(plan), rng, plain);
            if !at_once {
                call.after = rng.usize(..=index);
                call.at = machine.now() + Duration::from_millis(rng.u64(..1_500));
            }
            if let Some((_, until)) = &mut call.shut {
                *until += machine.now();
            }
            calls.push(call);
            if one_in(10, rng) {
                let mut stray = Call::new(None, rng, plain);
                stray.after = rng.usize(..=index);
                calls.push(stray);
            }
        }
        let sent: usize = calls
            .iter()
            .map(|call| call.content.len() + call.block.len())
            .sum();
        let replies: usize = plans
            .iter()
            .flat_map(Plan::replies)
            .map(|reply| reply.len())
            .sum();
        let point = |rng: &mut fastrand::Rng| match rng.bool() {
            true => Point::Sent(rng.usize(..=sent + 100)),
            false => Point::Received(rng.usize(1..2_000)),
        };
        let leave = one_in(6, rng).then(|| {
            let way = [Way::Reset, Way::Close, Way::Half][rng.usize(..3)];
            (point(rng), way)
        });
        let stall = one_in(8, rng).then(|| {
            // The last is for ever.
            let time = [2_000, 2_000, 120_000, 10_000_000][rng.usize(..4)];
            (point(rng), Duration::from_millis(rng.u64(1..time)))
        });
        let mut pace = |bytes: usize| match rng.u8(..6) {
            _ if plain => 1 << 20,
            // So slow, but not so slow that it takes a thousand turns.
            0 => rng.usize(1..8) + bytes / 300,
            1 | 2 => rng.usize(1..700) + bytes / 300,
            _ => 1 << 20,
        };
        let (write_max, read_max) = (pace(sent), pace(replies));
        let mut caller = Self {
            link: end.id(),
            end: Some(end),
            calls,
            left: false,
            stalled: false,
            ended: None,
            ended_at: Duration::ZERO,
            born_at: machine.now(),
            done: false,
            told: None,
            machine: machine.clone(),
            now: machine.now(),
            inbox: Vec::new(),
            out: PREFACE.to_vec(),
            written: 0,
            received: 0,
            decoder: Decoder::with_dynamic_size(4096),
            greeted: false,
            block: None,
            next: 1,
            send_initial: WINDOW,
            send: WINDOW,
            streams_max: usize::MAX,
            recv_initial: WINDOW,
            recv: WINDOW,
            frame_max: FRAME_MAX,
            announced: VecDeque::new(),
            pings: VecDeque::new(),
            frames: 0,
            count: Count::default(),
            habits: Habits {
                mischief: match plain {
                    true => 0,
                    false => [0, 20, 120][rng.usize(..3)],
                },
                padded: one_in(3, rng),
                drops: one_in(3, rng),
                write_max,
                read_max,
                polite: rng.bool(),
                naps: rng.bool(),
            },
            leave,
            stall,
            sleeps_until: None,
            goaway_at: one_in(10, rng).then(|| rng.u32(..60)),
            went: false,
            doom: one_in(8, rng).then(|| (rng.u32(..60), rng.u8(..VIOLATIONS))),
            doomed: None,
            patience: match rng.u8(..6) {
                _ if plain => Duration::ZERO,
                0 => Duration::from_secs(100),
                1 => Duration::from_secs(3),
                _ => Duration::ZERO,
            },
        };
        let initial = [0, rng.u32(1..20), 65_535, 1 << 20][rng.usize(..4)];
        if one_in(4, rng) {
            caller.frame_max = rng.usize(FRAME_MAX..1 << 20);
        }
        caller.settings((!plain && rng.u8(..4) != 0).then_some(initial), rng);
        Some(caller)
    }

    /// It reads in drops.
    pub(crate) fn drips(&self, call: &Call) -> bool {
        self.habits.drops || call.target < WINDOW
    }

    /// All that is to be sent has been.
    pub(crate) fn all_sent(&self) -> bool {
        self.out.is_empty() && self.calls.iter().all(|call| call.is_mute())
    }

    /// Whether the head of that call has left.
    pub(crate) fn has_begun(&self, call: &Call) -> bool {
        call.head_at > 0 && self.written >= call.head_at
    }

    pub(crate) fn step(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Step {
        if self.done {
            return Step::Idle;
        }
        self.now = now;
        if self.doomed.is_some_and(|until| now >= until) {
            self.finish();
            return Step::Progress;
        }
        if let Some(until) = self.sleeps_until {
            if now < until {
                return Step::Sleeps(until);
            }
            self.sleeps_until = None;
        }
        if let Some((point, time)) = self.stall
            && point.reached(self.written, self.received)
        {
            self.stall = None;
            self.stalled = true;
            self.sleeps_until = Some(now + time);
            return Step::Sleeps(now + time);
        }
        if let Some((point, way)) = self.leave
            && point.reached(self.written, self.received)
        {
            self.leave = None;
            self.left = true;
            match (way, &self.end) {
                (Way::Half, Some(end)) => {
                    end.shutdown();
                    self.doomed = Some(now + DOOM_TIME);
                }
                (Way::Reset, Some(end)) => {
                    end.reset();
                    self.finish();
                }
                _ => self.finish(),
            }
            return Step::Progress;
        }
        let mut busy = self.read(rng);
        if self.done {
            return Step::Progress;
        }
        let mut wake = self.doomed;
        if self.doomed.is_none() {
            let (acted, until) = self.act(rng);
            busy |= acted;
            wake = until;
        }
        busy |= self.write(rng);
        if busy {
            return Step::Progress;
        }
        let over = |call: &Call| call.is_past() || self.is_never(call);
        if self.doomed.is_none() && self.out.is_empty() && self.calls.iter().all(over) {
            // It has what it wanted, and closes at once or keeps the connection for a while.
            if self.patience.is_zero() {
                self.finish();
                return Step::Progress;
            }
            let until = now + std::mem::take(&mut self.patience);
            match self.habits.naps {
                true => self.sleeps_until = Some(until),
                false => {
                    self.doomed = Some(until);
                }
            }
            return Step::Sleeps(until);
        }
        match wake {
            Some(until) => Step::Sleeps(until),
            None => Step::Idle,
        }
    }

    /// That one will not be made any more.
    fn is_never(&self, call: &Call) -> bool {
        call.head_at == 0 && (self.went || (self.habits.polite && self.told.is_some()))
    }

    fn finish(&mut self) {
        self.end = None;
        self.done = true;
        self.ended_at = self.now;
    }

    fn read(&mut self, rng: &mut fastrand::Rng) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        match end.read(&mut self.inbox, rng.usize(1..=self.habits.read_max)) {
            Arrival::Nothing => return false,
            Arrival::Bytes(bytes) => self.received += bytes,
            ended @ (Arrival::End | Arrival::Reset) => {
                self.ended = Some(ended);
                self.finish();
                return true;
            }
        }
        for frame in frames::take_whole(&mut self.inbox) {
            // Who has broken HTTP/2 may be told anything.
            if !self.left {
                self.take(frame);
            }
        }
        true
    }

    fn hold(&self, holds: bool, why: &str, stream: u32) {
        let call = self.calls.iter().find(|call| call.stream == stream);
        assert!(
            holds,
            "client #{}, stream {stream}: {why}; {call:?}",
            self.link
        );
    }

    fn take(&mut self, frame: Frame) {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = frame;
        if !self.greeted {
            self.hold(
                kind == SETTINGS && flags & ACK == 0,
                "SETTINGS come first",
                0,
            );
            self.greeted = true;
        }
        self.hold(payload.len() <= self.frame_max, "a frame's length", stream);
        if let Some((own, ..)) = self.block {
            self.hold(
                kind == CONTINUATION && stream == own,
                "a block in one piece",
                own,
            );
        }
        match kind {
            SETTINGS if flags & ACK != 0 => {
                let initial = self.announced.pop_front().expect("an ACK of nothing");
                if let Some(initial) = initial {
                    for call in self.calls.iter_mut().filter(|call| call.head_at > 0) {
                        call.recv += initial - self.recv_initial;
                    }
                    self.recv_initial = initial;
                }
            }
            SETTINGS => {
                for six in payload.chunks_exact(6) {
                    let value = number(&six[2..]);
                    match six[1] {
                        3 => self.streams_max = value as usize,
                        4 => {
                            for call in self.calls.iter_mut().filter(|call| call.head_at > 0) {
                                call.window += i64::from(value) - self.send_initial;
                            }
                            self.send_initial = i64::from(value);
                        }
                        _ => {}
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK != 0 => {
                let own = self.pings.pop_front().expect("an answer to no PING");
                assert_eq!(own[..], payload[..], "the PING that is answered");
                let (stream, now) = (number(&own), self.now);
                let mut calls = self.calls.iter_mut();
                if let Some(call) = calls.find(|call| call.stream == stream && call.reset) {
                    call.silent_at = Some(now);
                }
            }
            PING => self.frame(PING, ACK, 0, &payload),
            WINDOW_UPDATE => {
                let more = i64::from(number(&payload));
                self.hold(more > 0, "a window that grows by nothing", stream);
                let mut calls = self.calls.iter_mut();
                if stream == 0 {
                    self.send += more;
                } else if let Some(call) = calls.find(|call| call.stream == stream) {
                    call.window += more;
                }
            }
            HEADERS | CONTINUATION => {
                let (own, ends, mut block) = match kind {
                    HEADERS => (stream, flags & END_STREAM != 0, Vec::new()),
                    _ => self.block.take().expect("the rest of nothing"),
                };
                block.extend(payload);
                match flags & END_HEADERS {
                    0 => self.block = Some((own, ends, block)),
                    _ => self.take_block(own, ends, block),
                }
            }
            DATA => self.take_data(flags, stream, &payload),
            RST_STREAM => self.take_reset(stream, number(&payload)),
            GOAWAY => {
                let (last, code) = (number(&payload), number(&payload[4..]));
                let before = self.told.map_or(u32::MAX, |(last, _)| last);
                self.hold(last <= before, "a GOAWAY that takes back the one before", 0);
                self.told = Some((last, code));
                self.unmake();
            }
            PRIORITY => {}
            other => panic!("client #{}: a frame of kind {other}", self.link),
        }
    }

    /// Whoever is beyond the last GOAWAY never was.
    fn unmake(&mut self) {
        let Some((last, _)) = self.told else {
            return;
        };
        let mut calls = Vec::new();
        for call in self.calls.iter_mut().filter(|call| call.stream > last) {
            if call.ended.is_none() {
                call.ended = Some(Ended::Unprocessed);
                call.reset = false;
            }
            calls.push((call.stream, call.ended));
        }
        for (stream, ended) in calls {
            // What was malformed never was a request.
            let never = [Ended::Unprocessed, Ended::Reset(7), Ended::Reset(1)].map(Some);
            self.hold(
                never.contains(&ended),
                "GOAWAY denies what was answered",
                stream,
            );
        }
    }

    /// The stream that something came for; `None`: it is past, and what was under way is not wrong.
    fn whose(&mut self, stream: u32) -> Option<&mut Call> {
        let index = self.calls.iter().position(|call| call.stream == stream);
        let Some(index) = index.filter(|_| stream > 0) else {
            panic!("client #{}: stream {stream} is nobody's", self.link);
        };
        let call = &self.calls[index];
        if call.reset {
            self.hold(
                call.silent_at.is_none(),
                "it has heard of the reset",
                stream,
            );
            return None;
        }
        self.hold(call.ended.is_none(), "nothing after an end", stream);
        Some(&mut self.calls[index])
    }

    fn take_block(&mut self, stream: u32, ends: bool, mut block: Vec<u8>) {
        let mut fields = Vec::new();
        let decoded = self.decoder.decode(&mut block, &mut fields);
        decoded.expect("a field block");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ASCII");
        let fields: FieldList = fields
            .into_iter()
            .map(|(name, value, _)| (text(name), text(value)))
            .collect();
        let Some(call) = self.whose(stream) else {
            return;
        };
        let status = fields.iter().find(|(name, _)| name == ":status");
        let status = status.map(|(_, status)| status.clone());
        call.expects = false;
        let (mut ended_rightly, begun) = (true, call.head.is_some());
        if !begun {
            if status.as_deref() == Some("100") {
                return;
            }
            call.head = Some(fields);
        } else {
            call.trailers = Some(fields);
            ended_rightly = ends;
        }
        if ends {
            call.ended = Some(Ended::Whole);
        }
        self.hold(ended_rightly, "trailers end a stream", stream);
        self.hold(
            begun != status.is_some(),
            "a status in the head alone",
            stream,
        );
    }

    fn take_data(&mut self, flags: u8, stream: u32, payload: &[u8]) {
        self.hold(flags & !END_STREAM == 0, "no padding", stream);
        let length = payload.len() as i64;
        self.hold(length <= self.recv, "the window of the connection", stream);
        self.recv -= length;
        let ends = flags & END_STREAM != 0;
        let Some(call) = self.whose(stream) else {
            return;
        };
        let windowed = length == 0 || length <= call.recv;
        call.recv -= length;
        call.body.extend_from_slice(payload);
        if ends {
            call.ended = Some(Ended::Whole);
        }
        let (begun, trailed) = (call.head.is_some(), call.trailers.is_some());
        self.hold(windowed, "the window of the stream", stream);
        self.hold(begun && !trailed, "content stands behind a head", stream);
        self.hold(length > 0 || ends, "a frame that says nothing", stream);
    }

    fn take_reset(&mut self, stream: u32, code: u32) {
        let index = self.calls.iter().position(|call| call.stream == stream);
        let Some(index) = index.filter(|_| stream > 0) else {
            panic!("client #{}: a reset of nothing, {stream}", self.link);
        };
        let call = &mut self.calls[index];
        let (again, silent) = (call.over, call.reset && call.silent_at.is_some());
        call.over = true;
        match call.ended {
            None => call.ended = Some(Ended::Reset(code)),
            Some(Ended::Unprocessed) => {
                self.hold(code == 7, "who was never heard is refused", stream);
            }
            // So much of the request is enough; or what followed it was wrong.
            Some(Ended::Whole) => {
                let enough = code == 0 || code == 1;
                self.hold(enough, "a reset behind the end", stream);
            }
            Some(Ended::Reset(_)) => {}
        }
        self.hold(!again, "a second reset", stream);
        self.hold(!silent, "it has heard of our reset", stream);
    }

    fn act(&mut self, rng: &mut fastrand::Rng) -> (bool, Option<Duration>) {
        // What is not written yet is enough.
        if self.out.len() > 1 << 16 {
            return (false, None);
        }
        let (before, now) = (self.out.len(), self.now);
        if let Some((at, how)) = self.doom
            && self.frames >= at
            && self.block.is_none()
        {
            self.doom = None;
            self.left = true;
            self.doomed = Some(now + DOOM_TIME);
            self.violate(how, rng);
            return (true, None);
        }
        if self.goaway_at.is_some_and(|at| self.frames >= at) {
            self.goaway_at = None;
            self.went = true;
            let mut payload = vec![0; 8];
            payload.extend_from_slice(b"that is all");
            self.frame(GOAWAY, 0, 0, &payload);
        }
        if rng.u8(..) < self.habits.mischief {
            self.mischief(rng);
        }
        let mut wake: Option<Duration> = None;
        let mut busy = false;
        for index in 0..self.calls.len() {
            let mut call = std::mem::replace(&mut self.calls[index], Call::empty());
            let (waits, until) = self.drive(&mut call, rng);
            self.calls[index] = call;
            busy |= waits;
            wake = wake.into_iter().chain(until).min();
        }
        self.give_connection(rng);
        (busy || self.out.len() > before, wake)
    }

    /// A step of one call: whether it would do more another time, and when at the latest.
    fn drive(&mut self, call: &mut Call, rng: &mut fastrand::Rng) -> (bool, Option<Duration>) {
        let now = self.now;
        if call.head_at == 0 {
            let open = self.calls.iter().filter(|own| own.is_open()).count();
            let past = self.calls.iter().filter(|own| own.is_past()).count();
            // A call may follow what is never made.
            let calm = open == 0;
            if self.is_never(call) || open >= self.streams_max || (past < call.after && !calm) {
                return (false, None);
            }
            if now < call.at {
                return (false, Some(call.at));
            }
            self.open(call, rng);
            return (true, None);
        }
        if call.is_past() && call.is_mute() {
            return (false, None);
        }
        if let Some((point, code)) = call.reset_at
            && call.ended.is_none()
            && !call.reset
            && point.reached(call.sent, call.body.len())
        {
            call.reset_at = None;
            call.reset = true;
            self.frame(RST_STREAM, 0, call.stream, &code.to_be_bytes());
            // When this comes back, the core has heard of it.
            let mut payload = [0; 8];
            payload[..4].copy_from_slice(&call.stream.to_be_bytes());
            self.pings.push_back(payload);
            self.frame(PING, 0, 0, &payload);
            return (true, None);
        }
        if let Some(code) = call.quits
            && call.ended == Some(Ended::Whole)
            && !call.is_mute()
        {
            call.said = true;
            self.frame(RST_STREAM, 0, call.stream, &code.to_be_bytes());
            return (true, None);
        }
        let mut busy = false;
        let mut wake = None;
        if call.ended.is_none() && !call.reset {
            busy = self.give(call, rng);
            wake = self.shut_until(call);
        }
        if call.is_mute() {
            return (busy, wake);
        }
        if call.expects {
            let until = call.at + CONTINUE_WAIT;
            if now < until {
                return (busy, wake.into_iter().chain([until]).min());
            }
            call.expects = false;
        }
        for _ in 0..rng.u8(1..6) {
            let left = call.content.len() - call.sent;
            if left == 0 {
                break;
            }
            let window = call.window.min(self.send).max(0) as usize;
            let pad = (self.habits.padded && rng.bool()).then(|| rng.usize(..20));
            let overhead = pad.map_or(0, |pad| 1 + pad);
            if window <= overhead {
                // Less padding may fit.
                busy |= window > 0;
                break;
            }
            let most = left.min(FRAME_MAX - overhead).min(window - overhead);
            let n = match rng.u8(..4) {
                0 => rng.usize(1..=most.min(call.piece_max)),
                1 => rng.usize(1..=most),
                _ => most,
            };
            let bytes = call.content[call.sent..call.sent + n].to_vec();
            call.sent += n;
            call.window -= (n + overhead) as i64;
            self.send -= (n + overhead) as i64;
            let ends = call.sent == call.content.len() && !call.trails && rng.bool();
            let flags = if ends { END_STREAM } else { 0 };
            match pad {
                Some(pad) => {
                    let mut payload = vec![pad as u8];
                    payload.extend(bytes);
                    payload.extend(vec![0; pad]);
                    self.frame(DATA, flags | PADDED, call.stream, &payload);
                }
                None => self.frame(DATA, flags, call.stream, &bytes),
            }
            busy = true;
            if ends {
                call.said = true;
                return (true, wake);
            }
        }
        if call.sent == call.content.len() {
            call.said = true;
            busy = true;
            match call.trails {
                true => {
                    let mut block = Vec::new();
                    literal(0, "x-checksum", "7", &mut block);
                    self.frame(HEADERS, END_HEADERS | END_STREAM, call.stream, &block);
                }
                false => self.frame(DATA, END_STREAM, call.stream, &[]),
            }
        }
        (busy, wake)
    }

    fn open(&mut self, call: &mut Call, rng: &mut fastrand::Rng) {
        call.stream = self.next;
        call.at = self.now;
        self.next += 2;
        call.window = self.send_initial;
        call.recv = self.recv_initial;
        let mut flags = 0;
        if call.content.is_empty() && !call.trails && rng.bool() {
            flags = END_STREAM;
            call.said = true;
        }
        let block = call.block.clone();
        // A head that is malformed in one of its first pieces ends the connection: to `h2` the rest of it comes from nowhere.
        let pieces = if call.id.is_some() && rng.u8(..4) == 0 {
            3
        } else {
            1
        };
        let (first, rest) = match pieces {
            1 => (&block[..], &[][..]),
            _ => block.split_at(rng.usize(..=block.len())),
        };
        let mut payload = Vec::new();
        let pad = (self.habits.padded && rng.bool()).then(|| rng.u8(..20));
        payload.extend(pad);
        if rng.u8(..6) == 0 {
            flags |= PRIORITY_FLAG;
            payload.extend([0, 0, 0, 0, rng.u8(..)]);
        }
        payload.extend_from_slice(first);
        if let Some(pad) = pad {
            flags |= PADDED;
            payload.extend(vec![0; usize::from(pad)]);
        }
        if pieces == 1 {
            self.frame(HEADERS, flags | END_HEADERS, call.stream, &payload);
        } else {
            self.frame(HEADERS, flags, call.stream, &payload);
            let (second, third) = rest.split_at(rng.usize(..=rest.len()));
            self.frame(CONTINUATION, 0, call.stream, second);
            self.frame(CONTINUATION, END_HEADERS, call.stream, third);
        }
        call.head_at = self.written + self.out.len();
        // Behind the last step of a GOAWAY nobody looks at it.
        if self.told.is_some_and(|(last, _)| call.stream > last) {
            call.ended = Some(Ended::Unprocessed);
        }
    }

    /// Until when a stream gets no window, if it is so now.
    fn shut_until(&self, call: &Call) -> Option<Duration> {
        let (at, until) = call.shut?;
        (call.body.len() >= at && self.now < until).then_some(until)
    }

    /// Gives window to a stream, if it is to have more. Whether that was due.
    fn give(&mut self, call: &mut Call, rng: &mut fastrand::Rng) -> bool {
        let want = call.target - call.recv;
        if want <= 0 || self.shut_until(call).is_some() {
            return false;
        }
        if self.habits.drops && rng.bool() {
            return true;
        }
        let more = match self.habits.drops {
            true => rng.i64(1..=want.min(1 + call.target / 4)),
            false => want,
        };
        call.recv += more;
        let more = u32::try_from(more).expect("a window");
        self.frame(WINDOW_UPDATE, 0, call.stream, &more.to_be_bytes());
        true
    }

    fn give_connection(&mut self, rng: &mut fastrand::Rng) {
        let want = CONNECTION_TARGET - self.recv;
        // Often enough that nobody waits for it, seldom enough that it is no chatter.
        if want >= CONNECTION_TARGET / 2 || self.recv < 100 {
            let more = match self.habits.drops {
                true => rng.i64(1..=want.min(40_000)),
                false => want,
            };
            self.recv += more;
            let more = u32::try_from(more).expect("a window");
            self.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    fn settings(&mut self, initial: Option<u32>, rng: &mut fastrand::Rng) {
        let mut payload = Vec::new();
        let mut set = |id: u16, value: u32| {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        };
        set(2, 0);
        set(5, self.frame_max as u32);
        if let Some(initial) = initial {
            set(4, initial);
        }
        if rng.bool() {
            // Of what nobody knows.
            set(0xeeee, rng.u32(..));
        }
        self.announced.push_back(initial.map(i64::from));
        self.frame(SETTINGS, 0, 0, &payload);
    }

    /// What HTTP/2 allows.
    fn mischief(&mut self, rng: &mut fastrand::Rng) {
        let open = self.calls.iter().any(Call::is_open);
        let speaking = |own: &Self| {
            let mut calls = own.calls.iter();
            calls.position(|call| call.is_open() && !call.is_mute() && !call.expects)
        };
        match rng.u8(..12) {
            0 if self.count.pings < PINGS_MAX => {
                for _ in 0..rng.u8(1..15) {
                    self.count.pings += 1;
                    let mut payload = [0xff; 8];
                    payload[7] = rng.u8(..);
                    self.pings.push_back(payload);
                    self.frame(PING, 0, 0, &payload);
                }
            }
            1 if self.count.settings < SETTINGS_MAX => {
                for _ in 0..rng.u8(1..5) {
                    self.count.settings += 1;
                    self.settings(None, rng);
                }
            }
            2 | 3 if self.count.settings < SETTINGS_MAX => {
                self.count.settings += 1;
                let initial = [0, 1, rng.u32(..70_000)][rng.usize(..3)];
                self.settings(Some(initial), rng);
            }
            4 if self.count.empty < EMPTY_MAX => {
                if let Some(index) = speaking(self) {
                    let stream = self.calls[index].stream;
                    for _ in 0..rng.u8(1..20) {
                        self.count.empty += 1;
                        self.frame(DATA, 0, stream, &[]);
                    }
                }
            }
            5 if self.count.empty < EMPTY_MAX => {
                // Padding alone, whose window comes back.
                let pad = rng.u8(..200);
                let length = i64::from(pad) + 1;
                if let Some(index) = speaking(self)
                    && self.calls[index].window >= length
                    && self.send >= length
                {
                    self.count.empty += 1;
                    self.calls[index].window -= length;
                    self.send -= length;
                    let stream = self.calls[index].stream;
                    let mut payload = vec![0; usize::from(pad) + 1];
                    payload[0] = pad;
                    self.frame(DATA, PADDED, stream, &payload);
                }
            }
            6 if self.count.odd < ODD_MAX => {
                self.count.odd += 1;
                self.frame(0xee, rng.u8(..), rng.u32(..1 << 31), b"nobody knows it");
            }
            7 if self.count.odd < ODD_MAX => {
                self.count.odd += 1;
                let stream = 1 + 2 * rng.u32(..50);
                self.frame(PRIORITY, 0, stream, &[0, 0, 0, 0, rng.u8(..)]);
            }
            8 if self.count.odd < ODD_MAX => {
                // Of a stream that is over on both sides.
                self.count.odd += 1;
                let past = self.calls.iter();
                let past = past.filter(|call| call.said && call.ended == Some(Ended::Whole));
                let past: Vec<u32> = past.map(|call| call.stream).collect();
                if let Some(stream) = rng.choice(past) {
                    match rng.bool() {
                        true => self.frame(WINDOW_UPDATE, 0, stream, &9u32.to_be_bytes()),
                        false => self.frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
                    }
                }
            }
            9 if open => {
                self.recv += 1;
                self.frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
            }
            _ => {
                // Once for long; all in all it is awake soon enough to answer SETTINGS.
                let long = rng.u8(..4) == 0 && self.count.long_naps == 0;
                self.count.long_naps += u32::from(long);
                self.count.naps += 1;
                if self.count.naps < NAPS_MAX {
                    let time = if long { 3_000 } else { 30 };
                    self.sleeps_until = Some(self.now + Duration::from_millis(rng.u64(..time)));
                }
            }
        }
    }

    /// What HTTP/2 forbids, or far too much of what it allows.
    fn violate(&mut self, how: u8, rng: &mut fastrand::Rng) {
        let idle = self.next + 2 * rng.u32(..9);
        let mut calls = self.calls.iter();
        let open = calls.find(|call| call.is_open());
        let open = open.map_or(idle, |call| call.stream);
        // A request to nowhere, as far as the core is concerned.
        let nowhere = [0x83, 0x86, 0x84, 0x01, 1, b'x'];
        match how {
            0 => self
                .out
                .extend(std::iter::repeat_with(|| rng.u8(..)).take(60)),
            1 => {
                self.out.extend([0, 0, 40, DATA, 0, 0, 0]);
                self.write(rng);
                if let Some(end) = &self.end {
                    end.shutdown();
                }
            }
            2 => self.frame(DATA, 0, 0, b"x"),
            3 => self.frame(HEADERS, END_HEADERS, idle + 1, &nowhere),
            4 => self.frame(DATA, 0, idle, b"x"),
            5 => self.frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            6 => self.frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            7 => self.frame(PUSH_PROMISE, END_HEADERS, open, &[0, 0, 0, 2, 0x82]),
            8 => self.frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            9 => self.frame(SETTINGS, 0, 0, &[0, 4, 0]),
            10 => self.frame(PING, 0, 0, &[0; 7]),
            11 => self.frame(CONTINUATION, END_HEADERS, open, &[0x88]),
            12 => self.frame(DATA, 0, open, &[0; FRAME_MAX + 1]),
            13 => {
                self.frame(HEADERS, 0, idle, &nowhere);
                self.frame(DATA, 0, idle, b"x");
            }
            14 => self.frame(HEADERS, END_HEADERS, idle, &[0x80, 0xff, 0xff, 0xff]),
            15 => self.frame(RST_STREAM, 0, open, &[0; 3]),
            16 => self.frame(RST_STREAM, 0, idle, &[0; 4]),
            17 => self.frame(GOAWAY, 0, 0, &[0; 3]),
            18 => self.frame(WINDOW_UPDATE, 0, open, &[0x7f, 255, 255, 255]),
            19 => self.frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            20 => self.frame(DATA, PADDED, open, &[9, 0, 0]),
            21 => (0..300).for_each(|_| self.frame(PING, 0, 0, &[0; 8])),
            22 => (0..300).for_each(|_| self.frame(SETTINGS, 0, 0, &[])),
            23 => {
                // Calls that nobody waits for.
                for n in 0..300 {
                    let stream = self.next + 2 * n;
                    let flags = END_HEADERS | END_STREAM;
                    self.frame(HEADERS, flags, stream, &nowhere);
                    self.frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
                }
            }
            24 => (0..300).for_each(|_| self.frame(DATA, 0, open, &[])),
            25 => {
                self.frame(HEADERS, 0, idle, &nowhere);
                (0..60).for_each(|_| self.frame(CONTINUATION, 0, idle, &[0; 0]));
            }
            26 => {
                // Far beyond its windows.
                self.frame(HEADERS, END_HEADERS, idle, &nowhere);
                (0..20).for_each(|_| self.frame(DATA, 0, idle, &[0; FRAME_MAX]));
            }
            27 => {
                // More streams than anybody may have.
                for n in 0..200 {
                    self.frame(HEADERS, END_HEADERS, self.next + 2 * n, &nowhere);
                }
            }
            28 => {
                // To `h2` a name that is not in small letters is a fault of the whole connection.
                let mut block = nowhere.to_vec();
                literal(0, "Accept", "text/html", &mut block);
                self.frame(HEADERS, END_HEADERS | END_STREAM, idle, &block);
            }
            // A head that never ends.
            _ => self.frame(HEADERS, 0, idle, &nowhere),
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frames += 1;
        let (link, length) = (self.link, payload.len());
        self.machine.note(format_args!(
            "#{link} frame {kind} flags {flags:#x} stream {stream}, {length} bytes"
        ));
        frames::write(kind, flags, stream, payload, &mut self.out);
    }

    fn write(&mut self, rng: &mut fastrand::Rng) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        if self.out.is_empty() {
            return false;
        }
        let most = self.out.len().min(rng.usize(1..=self.habits.write_max));
        // An error shows itself to the reading side.
        match end.write(&self.out[..most]) {
            Ok(n) => {
                self.out.drain(..n);
                self.written += n;
                n > 0
            }
            Err(_) => {
                self.out.clear();
                false
            }
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("id", &self.id)
            .field("stream", &self.stream)
            .field("head", &self.head)
            .field("body", &self.body.len())
            .field("ended", &self.ended)
            .field("reset", &self.reset)
            .field("silent_at", &self.silent_at)
            .field("sent", &(self.sent, self.content.len(), self.said))
            .field("windows", &(self.window, self.recv, self.target))
            .field("shut", &self.shut)
            .field("reset_at", &self.reset_at)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.calls.iter().filter(|call| !call.is_past());
        f.debug_struct("Caller")
            .field("link", &self.link)
            .field("told", &self.told)
            .field("unsent", &self.out.len())
            .field("windows", &(self.send, self.recv))
            .field("sleeps_until", &self.sleeps_until)
            .field("doomed", &self.doomed)
            .field("open", &open.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// How many ways there are to give cause to be sent away.
const VIOLATIONS: u8 = 30;
