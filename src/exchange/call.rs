//! The exchange itself: two lanes, three phases, one end.
//!
//! A step goes: take in what has arrived, response lane, deadline, request lane, then ask whether the client is still there.
//! The end of the answer ends the exchange, even with half a request outstanding; what is left of the body is the
//! connection's business. Every exchange ends once, in [`Exchange::poll`]'s `Ready`, with one [`Outcome`] (invariant 5).
//!
//! It never retries what a backend may have seen.

use std::fmt;
use std::mem;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Version;
use http::header::HeaderValue;

use crate::exchange::head::Head;
use crate::exchange::outcome::{Outcome, Retry, http_status_of, message_of, status_of};
use crate::policy::{Route, Rules};
use crate::rpc::{Closing, Dialect, Ending, RequestCodec, ResponseCodec};
use crate::telemetry::record::Traffic;
use crate::tripwire::{Place, trip};
use crate::wire::status::{GRPC_MESSAGE, MESSAGE_BYTES_MAX};
use crate::wire::{
    Code, Dial, OutgoingHead, Part, Party, Pieces, Reason, RequestHead, Reset, Sink, Source,
    Status, metadata, timeout,
};

/// What of a request is kept so that a refused call can be sent again, bytes.
const REPLAY_BYTES_MAX: usize = 64 << 10;
/// Less of a message whose rest is still to come waits for more, bytes. Nobody can use the beginning of a message, and HTTP/2
/// servers count small frames against the whole connection: some hundred clients that send byte by byte would end it for
/// every other call (h2 0.4.20 charges each frame under 256 bytes, and closes with ENHANCE_YOUR_CALM).
const PIECE_BYTES_MIN: usize = 256;
/// What one exchange moves in one step, bytes, each way; then others have their turn.
const STEP_BYTES_MAX: usize = 256 << 10;
/// How long a client may take its time inside a message, and how many bytes buy it another second after that.
const SLOW_GRACE: Duration = Duration::from_secs(10);
const SLOW_BYTES_PER_SECOND: u64 = 256;
/// How often one refused call is sent again.
const REPEATS_MAX: u32 = 1;

/// What was decided about a call before it became an exchange, which keeps the head in a way of its own.
#[derive(Debug)]
pub struct Terms<H = RequestHead> {
    /// The request's head, as it came, after the route's filters.
    pub head: H,
    /// The version of HTTP that it came in.
    pub version: Version,
    /// What the caller speaks.
    pub dialect: Dialect,
    /// The configuration that the call began under, and ends under (invariant 7).
    pub snapshot: Rules,
    /// Which of its routes took the call.
    pub route: usize,
    /// When it must have ended.
    pub deadline: Option<Instant>,
    /// When its head had arrived.
    pub started: Instant,
}

impl From<Terms> for Terms<Head> {
    fn from(terms: Terms) -> Self {
        let Terms {
            head,
            version,
            dialect,
            snapshot,
            route,
            deadline,
            started,
        } = terms;
        Self {
            head: head.into(),
            version,
            dialect,
            snapshot,
            route,
            deadline,
            started,
        }
    }
}

impl Terms<Head> {
    fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.route)
    }

    fn backend(&self) -> &str {
        let backend = self
            .route()
            .and_then(|route| self.snapshot.backend(route.backend));
        backend.map_or("", |backend| &backend.name)
    }

    /// What of an answer is not passed on, whatever the dialect: metadata over the limit, and a CANCELLED at the deadline, which
    /// is the deadline, whoever's timer was first.
    fn judge(&self, part: &Part, now: Instant) -> Result<(), Reset> {
        let (fields, last) = match part {
            Part::Head(head) => (&head.headers, head.end),
            Part::End(Some(trailers)) => (&**trailers, true),
            Part::Data(_) | Part::End(None) => return Ok(()),
        };
        let (size, most) = (metadata::size(fields), self.snapshot.limits.head_bytes_max);
        if size > most {
            // What is cut off a long message anyway does not make its status another one.
            let message = fields.get(GRPC_MESSAGE).map_or(0, HeaderValue::len);
            if size - message.saturating_sub(MESSAGE_BYTES_MAX) > most {
                return Err(Reset::upstream(Reason::MetadataTooLarge));
            }
        }
        let timed = self.dialect.is_rpc() && self.is_late(now);
        if last && timed && Code::from_fields(fields) == Some(Code::CANCELLED) {
            return Err(Reset::proxy(Reason::Deadline));
        }
        Ok(())
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// What the backend is sent, if it leaves now.
    fn outgoing(&self, codec: &RequestCodec, now: Instant) -> OutgoingHead {
        let mut fields = metadata::forward_request(&self.head.headers);
        codec.request_fields(&self.head.headers, &mut fields);
        metadata::append_via(&mut fields, self.version);
        if let Some(vouched) = self.head.headers.vouched() {
            vouched.write(self.head.authority.as_ref(), &mut fields);
        }
        if let Some(deadline) = self.deadline {
            let remaining = timeout::print(deadline.duration_since(now));
            fields.insert(timeout::GRPC_TIMEOUT, remaining);
        }
        let mut path = self.head.path.clone();
        if self.dialect.is_rpc()
            && path.query().is_some()
            && let Ok(bare) = path.path().parse()
        {
            // A method has no query; what a browser puts there is for proxies (grpc-web's browser-features.md).
            path = bare;
        }
        OutgoingHead {
            method: self.head.method.clone(),
            path,
            authority: self.head.authority.clone(),
            headers: fields,
        }
    }
}

/// One call. `D`: the caller's end; `L`: the way to the other.
pub struct Exchange<D, L: Dial> {
    down: D,
    phase: Phase<L::Stream>,
    ticket: L::Ticket,
    terms: Terms<Head>,
    request: RequestLane,
    response: ResponseCodec,
    repeats: u32,
    /// A part of the answer is being translated, sent or put together. Still so after a panic: nobody knows how much of it has
    /// gone out.
    torn: bool,
    /// The response lane waits for its sink, so the backend is not asked, however late it is.
    blocked: bool,
    /// The caller's sink has said that nothing will arrive any more, so nothing is sent (invariant 4).
    deaf: bool,
    /// What only the beginning of the call needed has been let go.
    has_shed: bool,
    first_byte: Option<Duration>,
    http_status: Option<u16>,
}

enum Phase<U> {
    /// Waiting for a stream, until then. The request is read meanwhile, as far as it may be kept.
    Connecting(Option<Instant>),
    /// Both lanes run.
    Relaying(U),
    /// The answer has been written to its end, with this outcome; there until it is given out.
    Done(Option<Outcome>),
}

/// The request's way: read, translated, kept until it cannot be needed again, sent.
struct RequestLane {
    codec: RequestCodec,
    state: Lane,
    /// There from its first content until its end has been sent and the call will not be repeated: a stream of answers may
    /// be open for hours.
    held: Option<Box<Held>>,
    /// The call may have to be repeated.
    repeatable: bool,
    ended: Ended,
    /// Whole messages of which nothing waits.
    messages_sent: u64,
    /// Bytes that were read.
    read: u64,
    /// Since when a message has been under way. Most come whole.
    pace: Option<Box<Pace>>,
}

/// What is held of a request.
#[derive(Debug, Default)]
struct Held {
    /// Translated content that waits for room.
    waiting: Pieces,
    /// What has been sent, for as long as the call may have to be repeated.
    kept: Pieces,
}

/// Where a message that is under way began.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    read: u64,
    messages: u64,
}

impl Pace {
    /// Until when the client may go on without another byte.
    fn until(&self, read: u64) -> Instant {
        let earned = Duration::from_millis((read - self.read) * 1000 / SLOW_BYTES_PER_SECOND);
        self.since + SLOW_GRACE + earned
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Open,
    /// The backend wants no more: the client is read to its end, and what it says thrown away. Stopped instead, a client
    /// that writes before it reads would never see its answer.
    Discard,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    No,
    /// The client has ended its request.
    Seen,
    /// The backend has been told.
    Sent,
}

impl<D: Source + Sink, L: Dial> Exchange<D, L> {
    /// An exchange that has done nothing yet.
    pub fn new(down: D, ticket: L::Ticket, terms: Terms) -> Self {
        let limit = terms.snapshot.limits.message_bytes_max;
        let request = RequestCodec::new(terms.dialect, limit);
        let response = ResponseCodec::new(terms.dialect, &terms.head.headers, limit);
        let lane = RequestLane {
            codec: request,
            state: Lane::Open,
            held: None,
            repeatable: true,
            messages_sent: 0,
            read: 0,
            pace: None,
            ended: Ended::No,
        };
        Self {
            down,
            phase: Phase::Connecting(None),
            ticket,
            terms: terms.into(),
            request: lane,
            response,
            repeats: 0,
            torn: false,
            blocked: false,
            deaf: false,
            has_shed: false,
            first_byte: None,
            http_status: None,
        }
    }

    /// Goes on as far as it can. `Ready` once, at the end.
    pub fn poll(&mut self, dial: &mut L, now: Instant, cx: &mut Context<'_>) -> Poll<Outcome> {
        trip(Place::Exchange);
        self.down.sense(now, cx);
        let outcome = loop {
            match &mut self.phase {
                // Who has left already calls nobody; whether he was cut, what has come of his request says below.
                Phase::Connecting(_) if self.down.poll_gone(cx).is_ready() => {}
                Phase::Connecting(_) => match self.connect(dial, now, cx) {
                    Poll::Ready(Ok(stream)) => self.phase = Phase::Relaying(stream),
                    Poll::Ready(Err(reset)) => break Some(self.end(reset, now)),
                    Poll::Pending => {
                        self.phase = Phase::Connecting(dial.wake_at(&self.ticket));
                    }
                },
                Phase::Relaying(_) | Phase::Done(_) => {}
            }
            match self.respond(now, cx) {
                Ok(outcome @ Some(_)) => break outcome,
                Ok(None) => {}
                Err(reset) if self.may_repeat(reset) => {
                    self.repeats += 1;
                    dial.note_refused(&mut self.ticket);
                    self.request.rewind();
                    self.phase = Phase::Connecting(None);
                    continue;
                }
                Err(reset) => break Some(self.end(reset, now)),
            }
            if self.terms.is_late(now) {
                break Some(self.end(Reset::proxy(Reason::Deadline), now));
            }
            if let Err(reset) = self.request(now, cx) {
                break Some(self.end(reset, now));
            }
            if let Phase::Relaying(up) = &mut self.phase {
                up.settle(cx);
            }
            if let Poll::Ready(reset) = self.down.poll_gone(cx) {
                self.deaf = reset.by == Party::Downstream;
                break Some(self.end(reset, now));
            }
            break None;
        };
        self.settle(cx);
        if outcome.is_none() && self.http_status.is_some() && !self.has_shed {
            self.shed();
        }
        if outcome.is_some() {
            // What the caller has been told stands, even if dropping the stream, which tells the backend, should panic.
            drop(mem::replace(&mut self.phase, Phase::Done(outcome)));
        }
        match &mut self.phase {
            Phase::Done(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
            Phase::Connecting(_) | Phase::Relaying(_) => Poll::Pending,
        }
    }

    /// Ends it from outside: the proxy is shutting down.
    pub fn abandon(&mut self, reason: Reason, now: Instant, cx: &mut Context<'_>) -> Outcome {
        let outcome = self.end(Reset::proxy(reason), now);
        self.settle(cx);
        self.phase = Phase::Done(None);
        outcome
    }

    /// Ends it after a panic, in one of its own steps or of what it stands on. The upstream stream must have been taken out.
    /// The caller is told where that can be done without a lie: before a head, or where what has been sent is known.
    pub fn fail(&mut self, now: Instant, cx: &mut Context<'_>) -> Outcome {
        let reason = Reason::Panic;
        if let Phase::Done(told) = &mut self.phase
            && let Some(told) = told.take()
        {
            return told;
        }
        // What was read of the request may be lost.
        self.down.condemn();
        if self.torn && self.http_status.is_some() {
            return self.cut(reason);
        }
        if self.torn {
            // Nothing of the answer has left: another one is told whole.
            let limit = self.terms.snapshot.limits.message_bytes_max;
            let fields = &self.terms.head.headers;
            self.response = ResponseCodec::new(self.terms.dialect, fields, limit);
            self.torn = false;
        }
        self.abandon(reason, now, cx)
    }

    /// The same where telling the caller has failed too: its connection is cut.
    pub fn cut(&mut self, reason: Reason) -> Outcome {
        self.down.sever();
        self.phase = Phase::Done(None);
        let reset = Reset::proxy(reason);
        let (code, retry) = status_of(reason);
        Outcome {
            status: Status::new(code, message_of(reset, self.terms.backend())),
            reason,
            by: reset.by,
            retry,
            aborted: true,
        }
    }

    /// The upstream stream, if it has one.
    pub fn upstream(&self) -> Option<&L::Stream> {
        match &self.phase {
            Phase::Relaying(up) => Some(up),
            Phase::Connecting(_) | Phase::Done(_) => None,
        }
    }

    /// Hands the upstream stream out, before [`Exchange::fail`]: after a panic it may not be fit to be dropped.
    pub fn take_upstream(&mut self) -> Option<L::Stream> {
        if !matches!(self.phase, Phase::Relaying(_)) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Done(None)) {
            Phase::Relaying(up) => Some(up),
            Phase::Connecting(_) | Phase::Done(_) => None,
        }
    }

    /// The answer's head has gone out and the call goes on, perhaps for hours: lets go of what only its beginning needed. Of the
    /// request's head that is all but what a record tells, which is copied, so that it does not hold what it came in.
    fn shed(&mut self) {
        self.has_shed = true;
        self.terms.head.fold();
    }

    /// Puts together what the step has sent.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let before = mem::replace(&mut self.torn, true);
        self.down.settle(cx);
        self.torn = before;
    }

    /// The caller's connection takes no further request after this one: the proxy is shutting down.
    pub fn condemn(&mut self) {
        self.down.condemn();
    }

    /// When it must be polled though nothing has happened.
    pub fn wake_at(&self) -> Option<Instant> {
        let up = match &self.phase {
            Phase::Relaying(up) if !self.blocked => up.wake_at(),
            Phase::Connecting(until) => *until,
            Phase::Relaying(_) | Phase::Done(_) => None,
        };
        let pace = self.request.pace.as_ref();
        let pace = pace.map(|pace| pace.until(self.request.read));
        let down = self.down.wake_at();
        let times = [self.terms.deadline, up, down, pace];
        times.into_iter().flatten().min()
    }

    /// Gives the caller's end back, with the ticket, which may still stand in a queue.
    pub fn into_parts(self) -> (D, L::Ticket, Terms<Head>) {
        (self.down, self.ticket, self.terms)
    }

    /// The caller's end.
    pub fn down(&self) -> &D {
        &self.down
    }

    /// What was decided about it.
    pub fn terms(&self) -> &Terms<Head> {
        &self.terms
    }

    /// The place in the queue, and where the call went.
    pub fn ticket(&self) -> &L::Ticket {
        &self.ticket
    }

    /// From the head of the request to the head of the backend's answer.
    pub fn first_byte(&self) -> Option<Duration> {
        self.first_byte
    }

    /// HTTP's status as the caller saw it.
    pub fn http_status(&self) -> Option<u16> {
        self.http_status
    }

    /// What went to the backend, and what came back.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        let request = &self.request.codec;
        (
            Traffic {
                messages: request.messages(),
                bytes: request.bytes(),
            },
            Traffic {
                messages: self.response.messages(),
                bytes: self.response.bytes(),
            },
        )
    }

    /// How much of the request has been read, as the client wrote it, bytes.
    pub fn read(&self) -> u64 {
        self.request.read
    }

    /// Whether it would read more of the request now.
    pub fn wants_more(&self) -> bool {
        let connected = matches!(self.phase, Phase::Relaying(_));
        self.request.wants_more(connected)
    }

    /// Whether the rest of the request is thrown away.
    pub fn discards(&self) -> bool {
        self.request.state == Lane::Discard
    }

    /// What it holds of the request: what waits for room, and what is kept to be sent again, bytes.
    pub fn held(&self) -> (usize, usize) {
        let held = self.request.held.as_ref();
        held.map_or((0, 0), |held| (held.waiting.bytes(), held.kept.bytes()))
    }

    /// Lets go of what is only kept to be sent again: a backend that refuses the call from now on has refused it for good.
    pub fn forget_kept(&mut self) {
        if self.held().1 > 0 {
            self.request.commit();
        }
    }

    /// The name of its phase, for people.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Connecting(_) => "connecting",
            Phase::Relaying(_) => "relaying",
            Phase::Done(_) => "done",
        }
    }

    fn connect(
        &mut self,
        dial: &mut L,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<L::Stream, Reset>> {
        if self.terms.is_late(now) {
            return Poll::Ready(Err(Reset::proxy(Reason::Deadline)));
        }
        let (terms, codec) = (&self.terms, &self.request.codec);
        dial.poll_open(&mut self.ticket, || terms.outgoing(codec, now), now, cx)
    }

    /// The response lane: room first, then a part, then its translation.
    fn respond(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<Option<Outcome>, Reset> {
        let Phase::Relaying(up) = &mut self.phase else {
            return Ok(None);
        };
        up.sense(now, cx);
        self.blocked = false;
        let mut moved = 0;
        loop {
            match self.down.poll_room(cx) {
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(None);
                }
                Poll::Ready(Err(reset)) => {
                    self.deaf = true;
                    return Err(reset);
                }
                Poll::Ready(Ok(_)) => {}
            }
            let part = match up.poll_part(now, cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(part) => part?,
            };
            let bytes = match &part {
                Part::Data(bytes) => bytes.len(),
                Part::Head(_) => {
                    self.first_byte = Some(now.duration_since(self.terms.started));
                    // It was processed: nothing will be repeated.
                    self.request.commit();
                    0
                }
                Part::End(_) => 0,
            };
            self.terms.judge(&part, now)?;
            let mut out = Outlet {
                down: &mut self.down,
                terms: &self.terms,
                http_status: &mut self.http_status,
            };
            self.torn = true;
            trip(Place::ResponseCodec);
            let ending = self.response.translate(part, &mut |part| out.send(part));
            trip(Place::Sent);
            self.torn = false;
            up.taken(bytes);
            if let Some(Ending { status, reason }) = ending? {
                return Ok(Some(Outcome {
                    status,
                    reason,
                    by: Party::Upstream,
                    retry: Retry::Unsafe,
                    aborted: false,
                }));
            }
            moved += bytes;
            if moved >= STEP_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Ok(None);
            }
        }
    }

    /// The request lane.
    fn request(&mut self, now: Instant, cx: &mut Context<'_>) -> Result<(), Reset> {
        let mut moved = 0;
        loop {
            if let Phase::Relaying(up) = &mut self.phase {
                self.request.hand_on(up, cx);
            }
            let up = matches!(self.phase, Phase::Relaying(_));
            if !self.request.wants_more(up) {
                // It is not the client who is slow.
                self.request.pace = None;
                return Ok(());
            }
            let part = match self.down.poll_part(now, cx) {
                Poll::Pending => return self.request.keep_pace(now),
                Poll::Ready(part) => part?,
            };
            let bytes = match &part {
                Part::Data(bytes) => bytes.len(),
                Part::Head(_) | Part::End(_) => 0,
            };
            self.request.read += bytes as u64;
            self.request.take(part)?;
            self.down.taken(bytes);
            moved += bytes;
            if moved >= STEP_BYTES_MAX {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    fn may_repeat(&self, reset: Reset) -> bool {
        reset.reason == Reason::BackendRefused
            && self.repeats < REPEATS_MAX
            && self.request.repeatable
            && !self.response.head_sent()
    }

    /// Ends the answer, wherever it stands, with the status that this end has.
    fn end(&mut self, reset: Reset, now: Instant) -> Outcome {
        // Whoever's timer fires first, at the deadline every loss is the deadline: a server may reset instead of answering.
        let excused = reset.by == Party::Downstream || reset.reason == Reason::Panic;
        let reset = if self.terms.is_late(now) && !excused {
            Reset::proxy(Reason::Deadline)
        } else {
            reset
        };
        let (code, retry) = status_of(reset.reason);
        let status = Status::new(code, message_of(reset, self.terms.backend()));
        let mut aborted = false;
        match reset.reason {
            // Nobody is there to be told.
            Reason::ClientLeft => {}
            _ if self.deaf => aborted = self.response.head_sent(),
            reason => {
                if matches!(reason, Reason::ClientProtocol(_)) || reset.by == Party::Downstream {
                    self.down.condemn();
                }
                let mut out = Outlet {
                    down: &mut self.down,
                    terms: &self.terms,
                    http_status: &mut self.http_status,
                };
                self.torn = true;
                let http = http_status_of(reason).filter(|_| !self.terms.dialect.is_rpc());
                let mut send = |mut part| {
                    if let (Part::Head(head), Some(http)) = (&mut part, http) {
                        head.status = http;
                    }
                    out.send(part);
                };
                match self.response.end(&status, &mut send) {
                    Closing::Ended => {}
                    Closing::Cut => aborted = true,
                }
                self.torn = false;
            }
        }
        Outcome {
            status,
            reason: reset.reason,
            by: reset.by,
            retry,
            aborted,
        }
    }
}

/// The caller's sink, behind the route's filters.
struct Outlet<'a, D> {
    down: &'a mut D,
    terms: &'a Terms<Head>,
    http_status: &'a mut Option<u16>,
}

impl<D: Sink> Outlet<'_, D> {
    fn send(&mut self, mut part: Part) {
        if let Part::Head(head) = &mut part {
            if let Some(route) = self.terms.route() {
                for filter in route.filters.iter().rev() {
                    filter.response(&self.terms.head, head);
                }
            }
            *self.http_status = Some(head.status.as_u16());
        }
        self.down.send(part);
    }
}

impl RequestLane {
    /// Translates one part of the request and keeps it until there is room for it.
    fn take(&mut self, part: Part) -> Result<(), Reset> {
        if self.state == Lane::Discard {
            // What is thrown away cannot be sent again.
            self.commit();
            if matches!(part, Part::End(_)) {
                self.state = Lane::Done;
            }
            return Ok(());
        }
        let Self {
            codec, held, ended, ..
        } = self;
        trip(Place::RequestCodec);
        codec.translate(part, &mut |part| match part {
            Part::Data(data) => held.get_or_insert_default().waiting.push(data),
            Part::End(_) => *ended = Ended::Seen,
            Part::Head(_) => {}
        })
    }

    /// The client has sent all it has for now. Between messages it may rest for ever; inside one it has to go on.
    fn keep_pace(&mut self, now: Instant) -> Result<(), Reset> {
        if self.state != Lane::Open || self.codec.at_boundary() {
            self.pace = None;
            return Ok(());
        }
        let (read, messages) = (self.read, self.codec.messages());
        let fresh = Pace {
            since: now,
            read,
            messages,
        };
        let pace = self.pace.get_or_insert_with(|| Box::new(fresh));
        if pace.messages != messages {
            **pace = fresh;
        }
        match now >= pace.until(read) {
            true => Err(Reset::downstream(Reason::ClientTooSlow)),
            false => Ok(()),
        }
    }

    /// Sends what there is room for.
    fn hand_on<U: Sink>(&mut self, up: &mut U, cx: &mut Context<'_>) {
        if self.state != Lane::Open || self.gathers() {
            return;
        }
        while let Some(held) = &mut self.held
            && !held.waiting.is_empty()
        {
            match up.poll_room(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    self.state = match self.ended {
                        Ended::No => Lane::Discard,
                        Ended::Seen | Ended::Sent => Lane::Done,
                    };
                    return;
                }
                Poll::Ready(Ok(_)) => {}
            }
            let data = held.waiting.pop().unwrap_or_default();
            if self.repeatable {
                held.kept.push(data.clone());
                if held.kept.bytes() > REPLAY_BYTES_MAX {
                    self.repeatable = false;
                    held.kept = Pieces::default();
                }
            }
            up.send(Part::Data(data));
        }
        self.messages_sent = self.codec.messages();
        if self.ended == Ended::Seen {
            up.send(Part::End(None));
            self.ended = Ended::Sent;
            self.state = Lane::Done;
            if !self.repeatable {
                self.held = None;
            }
        }
    }

    /// How much waits for room, bytes.
    fn waiting(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.waiting.bytes())
    }

    /// What waits is a piece of one message, too small to be sent by itself.
    fn gathers(&self) -> bool {
        self.waiting() < PIECE_BYTES_MIN
            && self.ended == Ended::No
            && self.codec.in_message()
            && self.codec.messages() == self.messages_sent
    }

    /// Whether the client is to be read now.
    fn wants_more(&self, connected: bool) -> bool {
        match self.state {
            Lane::Done => false,
            Lane::Discard => true,
            Lane::Open if self.ended != Ended::No => false,
            Lane::Open if connected => self.waiting() == 0 || self.gathers(),
            Lane::Open => self.waiting() < REPLAY_BYTES_MAX,
        }
    }

    /// The call will not be repeated: what was sent can go.
    fn commit(&mut self) {
        self.repeatable = false;
        if self.state == Lane::Done {
            self.held = None;
        } else if let Some(held) = &mut self.held {
            held.kept = Pieces::default();
        }
    }

    /// The call is sent anew, from its first byte.
    fn rewind(&mut self) {
        if let Some(held) = &mut self.held {
            let kept = mem::take(&mut held.kept);
            held.waiting.prepend(kept);
        }
        self.messages_sent = 0;
        if self.ended == Ended::Sent {
            self.ended = Ended::Seen;
        }
        if self.state == Lane::Discard || self.ended != Ended::No {
            self.state = Lane::Open;
        }
    }
}

impl<D, L: Dial> fmt::Debug for Exchange<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("path", &self.terms.head.path)
            .field("request", &self.request.state)
            .field("ended", &self.request.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
