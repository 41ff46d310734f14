//! The engine of one HTTP/2 connection of a client (RFC 9113): greeting, requests, and how it ends well.
//!
//! Owns the engine of `h2` and what it leaves to us: deadlines, the two steps of a GOAWAY, and the streams whose call has ended
//! while their last bytes still wait for window. What a client may not do, the gate and the settings say.

pub mod gate;
pub mod settings;
pub mod stream;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason as H2Reason, RecvStream};
use http::Request;

use crate::downstream::http2::gate::{Gate, Notes, Verdict};
use crate::downstream::http2::stream::{Opening, Slot};
use crate::downstream::lingering::Lingering;
use crate::downstream::refused::{Refused, TOO_SLOW};
use crate::downstream::{Budget, HIGH_WATER, Share};
use crate::net::{Bridge, SharedTransport, Socket};
use crate::policy::Limits;
use crate::telemetry::panics;
use crate::wire::http2::head::{self, Http2Fault};
use crate::wire::{Reason, RequestHead, Reset, Source};

pub use stream::Http2Stream;

/// How long a client may take to acknowledge our SETTINGS (RFC 9113 §6.5.3).
const SETTINGS_TIME: Duration = Duration::from_secs(10);
/// How long the answer to the first step of a GOAWAY is waited for. New streams are served meanwhile.
const GOAWAY_TIME: Duration = Duration::from_secs(1);
/// In which the gate counts what may come so often and no oftener.
const SECOND: Duration = Duration::from_secs(1);
/// What the calls of a connection end with that is ended for what its client has done. What that was has a line of its own.
const BROKEN: Reason = Reason::ClientProtocol("its connection had to be ended");

/// What a connection has found.
#[derive(Debug)]
pub enum Arrival {
    /// A request, and its stream.
    Request(RequestHead, Box<Http2Stream>),
    /// A head that is no request and is answered, on its stream.
    Refused(Refused, Box<Http2Stream>),
    /// Something that cannot be answered: a stream or the whole connection was ended for it. In a few words.
    Malformed(String),
    /// Nothing will come any more, and nobody waits for anything.
    Closed,
}

/// One connection's engine.
pub struct Http2<S: Socket> {
    transport: SharedTransport<S>,
    limits: Rc<Limits>,
    budget: Rc<Budget>,
    phase: Phase<S>,
    notes: Rc<Notes>,
    /// How many streams there are of it, those that leave included.
    open: Rc<Cell<usize>>,
    /// Streams whose call has ended, and whose last bytes wait for window.
    #[expect(
        clippy::vec_box,
        reason = "they come in the boxes that their calls had them in"
    )]
    leaving: Vec<Box<Http2Stream>>,
    /// How often `h2` has written all that it was given.
    writes: u64,
    /// When it began.
    since: Instant,
    /// When the gate began to count anew.
    second: Instant,
    /// Since when a head is coming.
    head_since: Option<Instant>,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    /// When the client was told to come with no more calls.
    closing: Option<Instant>,
    /// When it was polled last, requests were given out.
    accepts: bool,
}

enum Phase<S: Socket> {
    Greeting(Handshake<Bridge<S, Gate>, Bytes>),
    Open(Connection<Bridge<S, Gate>, Bytes>),
    /// We will send no more; what still comes is thrown away.
    Lingering(Lingering),
}

/// What the clock has brought.
enum Due {
    Nothing,
    /// There is something to say: `h2` has to be asked once more.
    Words,
    /// The client has failed to do something. In a few words.
    End(&'static str),
}

impl<S: Socket> Http2<S> {
    /// The engine of a connection whose first unread bytes are the preface. `reset_stream_duration`: as in
    /// [`settings::builder`].
    pub fn new(
        transport: SharedTransport<S>,
        limits: Rc<Limits>,
        budget: Rc<Budget>,
        reset_stream_duration: Duration,
        now: Instant,
    ) -> Self {
        let gate = Gate::new();
        let notes = gate.notes();
        notes.count_in(Some(Share::of(&budget)));
        let bridge = Bridge::new(Rc::clone(&transport), gate, HIGH_WATER);
        let builder = settings::builder(limits.head_bytes_max, reset_stream_duration);
        Self {
            transport,
            limits,
            phase: Phase::Greeting(builder.handshake(bridge)),
            notes,
            open: Rc::default(),
            budget,
            leaving: Vec::new(),
            writes: 0,
            since: now,
            second: now,
            head_since: None,
            idle_since: None,
            closing: None,
            accepts: true,
        }
    }

    /// Goes on as far as it can. `accepts`: requests are given out; else what has come waits where it is, and all but that goes
    /// on.
    pub fn poll(&mut self, accepts: bool, now: Instant, cx: &mut Context<'_>) -> Poll<Arrival> {
        self.accepts = accepts;
        if now >= self.second + SECOND {
            self.second = now;
            self.notes.next_second();
        }
        if matches!(self.phase, Phase::Open(_))
            && self.transport.borrow().failed() == Some(io::ErrorKind::TimedOut)
        {
            // Not in a read of ours, which ends the connection in the same step: it was given up from outside.
            self.blame(Reason::ClientTooSlow);
        }
        loop {
            let connection = match &mut self.phase {
                Phase::Greeting(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Pending
                        if self.closing.is_some_and(|at| now >= at + GOAWAY_TIME)
                            || now >= self.since + SETTINGS_TIME =>
                    {
                        self.linger();
                        continue;
                    }
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(mut connection)) => {
                        if self.closing.is_some() {
                            connection.graceful_shutdown();
                        }
                        self.phase = Phase::Open(connection);
                        continue;
                    }
                    Poll::Ready(Err(_)) => {
                        self.linger();
                        continue;
                    }
                },
                Phase::Lingering(_) => return self.poll_lingering(now),
                Phase::Open(connection) => connection,
            };
            let accepted = match accepts {
                true => connection.poll_accept(cx),
                false => connection.poll_closed(cx).map(|over| over.err().map(Err)),
            };
            match accepted {
                Poll::Ready(Some(Ok((request, answer)))) => {
                    self.notes.let_heads_on();
                    if let Some(arrival) = self.arrive(request, answer, now) {
                        return Poll::Ready(arrival);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.linger();
                    if let Some(words) = self.sentence() {
                        return Poll::Ready(Arrival::Malformed(words));
                    }
                    // What the client or the network has ended needs no words.
                    if !error.is_remote() && !error.is_io() {
                        self.blame(BROKEN);
                        return Poll::Ready(Arrival::Malformed(format!(
                            "it broke HTTP/2: {error}"
                        )));
                    }
                }
                Poll::Ready(None) => {
                    self.linger();
                    if let Some(words) = self.sentence() {
                        return Poll::Ready(Arrival::Malformed(words));
                    }
                }
                Poll::Pending if accepts && self.notes.let_heads_on() => {}
                Poll::Pending => {
                    let written_all = !self.transport.borrow().has_refused();
                    self.notes.note_writes(written_all, now);
                    self.writes += u64::from(written_all);
                    // Once for all that has come: each look is at all of them.
                    if self.see_off(now, cx) {
                        // Before anything ends for good.
                        continue;
                    }
                    if written_all && self.leaving.iter().any(|stream| stream.waits_for_cut()) {
                        cx.waker().wake_by_ref();
                    }
                    let turned_away = self.notes.take_turned_away();
                    if turned_away > 0 {
                        if self.open.get() < settings::STREAMS_MAX as usize {
                            // It was not for want of places.
                            (0..turned_away).for_each(|_| self.notes.note_fault());
                        }
                        return Poll::Ready(Arrival::Malformed(self.say_turned_away(turned_away)));
                    }
                    match self.pass_sentence(now) {
                        Due::Nothing => {}
                        Due::Words => continue,
                        Due::End(words) => {
                            return Poll::Ready(Arrival::Malformed(words.to_owned()));
                        }
                    }
                    match self.watch(now) {
                        Due::Nothing => return Poll::Pending,
                        Due::Words => {}
                        Due::End(words) => {
                            return Poll::Ready(Arrival::Malformed(words.to_owned()));
                        }
                    }
                }
            }
        }
    }

    /// A stream has come.
    fn arrive(
        &mut self,
        request: Request<RecvStream>,
        answer: SendResponse<Bytes>,
        now: Instant,
    ) -> Option<Arrival> {
        let (parts, body) = request.into_parts();
        self.notes.note_request(answer.stream_id().as_u32());
        self.idle_since = None;
        let method = parts.method.clone();
        let read = head::read(parts, &self.limits.head());
        let mut stream = Box::new(Http2Stream::new(Opening {
            body,
            answer,
            slot: Slot::new(&self.open),
            share: Share::of(&self.budget),
            notes: Rc::clone(&self.notes),
            expects_continue: matches!(&read, Ok(read) if read.expect_continue),
            method,
            stall_timeout: self.limits.stall_timeout,
            now,
        }));
        if self.closing.is_some_and(|at| now >= at + GOAWAY_TIME) {
            // It was told long ago; elsewhere the call is safe (RFC 9113 §8.7).
            stream.reset(H2Reason::REFUSED_STREAM);
            return None;
        }
        Some(match read {
            Ok(read) => Arrival::Request(read.head, stream),
            Err(Http2Fault::Answer(fault, head)) => {
                // Honest clients send none of these, and each costs us an answer and a line.
                self.notes.note_fault();
                let head = Some(head);
                Arrival::Refused(Refused { fault, head }, stream)
            }
            Err(Http2Fault::Malformed(words)) => {
                stream.reset(H2Reason::PROTOCOL_ERROR);
                self.notes.note_fault();
                Arrival::Malformed(words.to_owned())
            }
            Err(Http2Fault::TooMany) => {
                stream.reset(H2Reason::ENHANCE_YOUR_CALM);
                self.notes.note_fault();
                Arrival::Malformed("too many fields: limits.header_fields bounds it".to_owned())
            }
        })
    }

    fn say_turned_away(&self, count: usize) -> String {
        let what = match count {
            1 => "a stream was ended before it was a request".to_owned(),
            count => format!("{count} streams were ended before they were requests"),
        };
        let most = settings::STREAMS_MAX;
        format!("{what}: malformed, far too large, or beyond the {most} that may be open")
    }

    /// What the gate has found, where the connection is over anyhow.
    fn sentence(&self) -> Option<String> {
        let verdict = self.notes.verdict();
        let verdict = verdict.filter(|verdict| verdict.reason != H2Reason::NO_ERROR)?;
        self.blame(BROKEN);
        Some(verdict.words.to_owned())
    }

    /// The client has given that cause for the end: its open calls end with it.
    fn blame(&self, reason: Reason) {
        self.notes.note_end(Reset::downstream(reason));
    }

    /// Ends the connection for what the gate has found, once.
    fn pass_sentence(&mut self, now: Instant) -> Due {
        match self.notes.verdict() {
            None => Due::Nothing,
            Some(Verdict { reason, .. }) if reason == H2Reason::NO_ERROR => match self.closing {
                None => {
                    self.close(now);
                    Due::Words
                }
                Some(_) => Due::Nothing,
            },
            Some(Verdict { reason, words }) => {
                self.blame(BROKEN);
                match self.end(reason) {
                    true => Due::End(words),
                    false => Due::Nothing,
                }
            }
        }
    }

    /// Ends it now, with a GOAWAY. Whether nobody had.
    fn end(&mut self, reason: H2Reason) -> bool {
        let Phase::Open(connection) = &mut self.phase else {
            return false;
        };
        connection.abrupt_shutdown(reason);
        // It has nothing to wait for but its own last words, which are staged at once.
        let mut cx = Context::from_waker(Waker::noop());
        let _ = connection.poll_closed(&mut cx);
        self.linger();
        true
    }

    /// Looks at the time.
    fn watch(&mut self, now: Instant) -> Due {
        if self.notes.take_head_whole() {
            // The next one has its own time.
            self.head_since = None;
        }
        match self.notes.head_bytes() {
            0 => self.head_since = None,
            _ => {
                self.head_since.get_or_insert(now);
            }
        }
        let is_idle = self.open.get() == 0;
        match is_idle {
            true => {
                self.idle_since.get_or_insert(now);
            }
            false => self.idle_since = None,
        }
        let passed =
            |since: Option<Instant>, limit: Duration| since.is_some_and(|at| now >= at + limit);
        if !self.notes.acknowledged() && passed(Some(self.since), SETTINGS_TIME) {
            self.blame(Reason::ClientTooSlow);
            self.end(H2Reason::SETTINGS_TIMEOUT);
            return Due::End("it does not acknowledge our SETTINGS");
        }
        if passed(self.head_since, self.limits.head_timeout) {
            self.blame(Reason::ClientTooSlow);
            self.end(H2Reason::ENHANCE_YOUR_CALM);
            return Due::End(TOO_SLOW.detail);
        }
        // What has come and was not given out is a call.
        if is_idle && self.accepts && passed(self.closing, GOAWAY_TIME) {
            self.end(H2Reason::NO_ERROR);
            return Due::Words;
        }
        if self.closing.is_none() && passed(self.idle_since, self.limits.idle_timeout) {
            self.close(now);
            return Due::Words;
        }
        Due::Nothing
    }

    /// No more calls: the first step of a GOAWAY, and the second when the client has seen it. Calls that are open go on.
    pub fn close(&mut self, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(now);
        match &mut self.phase {
            Phase::Open(connection) => connection.graceful_shutdown(),
            // What it has asked with its greeting is answered; it is told right after that.
            Phase::Greeting(_) | Phase::Lingering(_) => {}
        }
    }

    /// Ends it, last words included: the process is about to.
    pub fn say_goodbye(&mut self, now: Instant) {
        let mut cx = Context::from_waker(Waker::noop());
        self.see_off(now, &mut cx);
        if let Phase::Open(connection) = &mut self.phase {
            // Answers that have been given are staged before the end is, and then what is cut is told.
            let _ = connection.poll_closed(&mut cx);
            self.leaving.clear();
            let _ = connection.poll_closed(&mut cx);
        }
        self.end(H2Reason::NO_ERROR);
    }

    /// Ends it now: too much is held of heads that have not come whole.
    pub fn refuse(&mut self) {
        self.notes.note_end(Reset::proxy(Reason::Overloaded));
        self.end(H2Reason::ENHANCE_YOUR_CALM);
    }

    /// The call on that stream has ended. What is left of its answer goes out when there is window for it.
    pub fn take_leave(&mut self, mut stream: Box<Http2Stream>, now: Instant) {
        if matches!(self.phase, Phase::Open(_)) {
            stream.leave(now);
            self.leaving.push(stream);
        }
    }

    /// Those whose call is over go when their last bytes have gone. Whether `h2` has something to say for one that went.
    fn see_off(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let writes = self.writes;
        let mut words = false;
        self.leaving.retain_mut(|stream| {
            let over = stream.see_off(writes, now, cx);
            words |= over && !stream.is_done();
            !over
        });
        words
    }

    fn linger(&mut self) {
        if !matches!(self.phase, Phase::Lingering(_)) {
            self.phase = Phase::Lingering(Lingering::default());
            self.leaving = Vec::new();
            self.notes.count_in(None);
            self.transport.borrow_mut().shutdown_write();
        }
    }

    fn poll_lingering(&mut self, now: Instant) -> Poll<Arrival> {
        let Phase::Lingering(lingering) = &mut self.phase else {
            return Poll::Pending;
        };
        let over = lingering.poll(&mut self.transport.borrow_mut(), now);
        // Its calls learn of it by themselves, and it is theirs until then.
        match over.is_ready() && self.open.get() == 0 {
            true => Poll::Ready(Arrival::Closed),
            false => Poll::Pending,
        }
    }

    /// When to be asked again though nothing has happened.
    pub fn deadline(&self) -> Option<Instant> {
        if let Phase::Lingering(lingering) = &self.phase {
            // Whoever takes its calls back wakes it.
            return lingering.until().filter(|_| self.open.get() == 0);
        }
        let unacknowledged = !self.notes.acknowledged();
        let is_idle = self.open.get() == 0;
        let times = [
            unacknowledged.then(|| self.since + SETTINGS_TIME),
            self.head_since.map(|at| at + self.limits.head_timeout),
            match self.closing {
                // Whoever calls it to give out what has come looks at that time, too.
                Some(at) => (is_idle && self.accepts).then(|| at + GOAWAY_TIME),
                None => self.idle_since.map(|at| at + self.limits.idle_timeout),
            },
        ];
        let leaving = self.leaving.iter().filter_map(|stream| stream.wake_at());
        times.into_iter().flatten().chain(leaving).min()
    }

    /// How much it holds of a head that has not come whole, bytes.
    pub fn head_bytes(&self) -> usize {
        match self.phase {
            Phase::Lingering(_) => 0,
            Phase::Greeting(_) | Phase::Open(_) => self.notes.head_bytes(),
        }
    }

    /// Since when a head has been coming that is not whole.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// How many streams there are of it, those that leave included.
    pub fn streams(&self) -> usize {
        self.open.get()
    }

    /// From now on so many frames are read, and then no more until this is said again.
    pub fn allow_frames(&self, frames: u32) {
        self.notes.allow_frames(frames);
    }

    /// How many more frames are read.
    pub fn frames_left(&self) -> u32 {
        self.notes.frames_left()
    }

    /// Whether a frame waits for more to be allowed.
    pub fn is_out_of_frames(&self) -> bool {
        self.notes.is_out_of_frames()
    }

    /// Lets go of one that leaves. Its answer is cut.
    pub fn cut_leaving(&mut self, stream: u32) {
        self.leaving.retain(|own| own.id() != stream);
    }

    /// Those that leave.
    pub fn leaving(&self) -> impl Iterator<Item = &Http2Stream> {
        self.leaving.iter().map(|stream| &**stream)
    }

    /// What `h2` has been given of answers and has not written, bytes.
    pub fn unwritten(&self) -> usize {
        self.notes.unwritten_bytes()
    }

    /// What those hold that leave, without what `h2` holds of them, bytes.
    pub fn held(&self) -> usize {
        let leaving = self.leaving.iter();
        leaving
            .map(|stream| stream.held().0 + stream.held().1)
            .sum()
    }

    /// Whether somebody has panicked under its lock: every call into `h2` would panic from now on.
    pub fn is_poisoned(&self) -> bool {
        match &self.phase {
            Phase::Open(connection) => panics::quietly(|| connection.has_streams()).is_none(),
            Phase::Greeting(_) | Phase::Lingering(_) => false,
        }
    }
}

impl<S: Socket> fmt::Debug for Http2<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("streams", &self.open.get())
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}
