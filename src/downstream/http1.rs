//! The engine of one HTTP/1.1 connection of a client (RFC 9112): heads, bodies, keep-alive, and how a connection ends well.
//!
//! Owns the order of things on the connection: a head, its call, its answer, then the next head, which is parsed from what is
//! already buffered. At home it reads heads; lent to an exchange it is that call's source and sink. A byte of a request
//! that was not parsed is never taken for another request: what is left of a body is drained within bounds, or the
//! connection closes.

use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Version};

use crate::downstream::bounds::{DRAIN_BYTES_MAX, DRAIN_TIME, HIGH_WATER, READ_AHEAD};
use crate::downstream::lingering::Lingering;
use crate::downstream::refused::{Refused, TOO_SLOW, forbids_content};
use crate::net::{Filled, SharedTransport, Socket};
use crate::policy::Limits;
use crate::wire::http1::{
    BodyDecoder, BodyLimits, CHUNK_END, Framing, HeadFault, Http1Request, LAST_CHUNK,
    ResponseFraming, Step, glean, parse_request, scan, write_chunk_head, write_continue,
    write_response,
};
use crate::wire::http2::PREFACE;
use crate::wire::{Part, Reason, Reset, ResponseHead, Sink, Source};

/// What a request costs of the steps that its connection may take in a turn, against a piece of content.
const HEAD_STEPS: u16 = 16;
/// How long HTTP/2's preface may take, from its first byte to its last.
const PREFACE_TIME: Duration = Duration::from_secs(5);

/// What a connection at home has found.
#[derive(Debug)]
pub enum Incoming {
    /// A whole head. The engine is ready to be lent.
    Request(Http1Request),
    /// The client speaks HTTP/2 by prior knowledge (RFC 9113 §3.3): its preface lies unread, and this engine is of no use.
    Http2,
    /// Bytes that are no request. The engine waits for [`Http1::respond`] and closes after it.
    Refused(Refused),
    /// Nothing will come any more.
    Closed,
}

/// One connection's engine. Of thousands of connections few have a call: between two calls it is as small as it can be.
#[derive(Debug)]
pub struct Http1<S: Socket> {
    transport: SharedTransport<S>,
    limits: Rc<Limits>,
    state: State,
    /// From a whole head, or its refusal, until the next head is awaited.
    call: Option<Box<OfCall>>,
}

/// What is known of one request and its answer.
#[derive(Debug)]
struct OfCall {
    body: BodyDecoder,
    persistent: bool,
    expects_continue: bool,
    /// The client was told to go on, and has not: until when it may take its time.
    continued_until: Option<Instant>,
    bodiless: bool,
    version: Version,
    fault: Option<Box<Reset>>,

    answer: Answer,
    /// Content of this step, to be written as one chunk.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    ending: bool,
}

impl Default for OfCall {
    /// Of what is no request: it has no body, and the connection ends with its answer.
    fn default() -> Self {
        Self {
            body: BodyDecoder::new(Framing::Empty, BodyLimits::default()),
            persistent: false,
            expects_continue: false,
            continued_until: None,
            bodiless: false,
            version: Version::HTTP_11,
            fault: None,
            answer: Answer::Unsent,
            pending: Vec::new(),
            pending_bytes: 0,
            ending: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests, or within a head.
    Head {
        /// How far the head was scanned without finding its end, or less.
        scanned: u32,
        /// Whether a byte of it has come.
        begun: bool,
        /// It is whole, and waits until it is called.
        whole: bool,
        /// Since when it is awaited; once it has begun: when its first byte came.
        since: Instant,
    },
    /// Within a call.
    Call,
    /// The answer is complete, the request's body is not.
    Draining { left: u32, until: Instant },
    /// We will send no more; what still comes is thrown away.
    Lingering(Lingering),
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Http1,
    /// HTTP/2's preface, whole.
    Http2,
    /// The beginning of it, and nothing else.
    Unclear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Unsent,
    Length(u64),
    Chunked,
    Ended,
}

impl<S: Socket> Http1<S> {
    /// The engine of a connection that was just accepted.
    pub fn new(transport: SharedTransport<S>, limits: Rc<Limits>, now: Instant) -> Self {
        Self {
            transport,
            limits,
            state: State::Head {
                scanned: 0,
                begun: false,
                whole: false,
                since: now,
            },
            call: None,
        }
    }

    /// At home: the next request, or what else has become of the connection.
    pub fn poll(&mut self, now: Instant) -> Poll<Incoming> {
        loop {
            match self.state {
                State::Head { scanned, .. } => {
                    if self.transport.borrow().unwritten() >= HIGH_WATER {
                        // Answers that nobody reads pile up: the next request waits, and its time with it.
                        if let State::Head {
                            begun: true, since, ..
                        } = &mut self.state
                        {
                            *since = now;
                        }
                        self.transport.borrow_mut().note_refused();
                        return Poll::Pending;
                    }
                    let limits = self.limits.head();
                    let opening = self.opening();
                    let found = match opening {
                        Opening::Http2 => return Poll::Ready(Incoming::Http2),
                        Opening::Unclear => Ok(None),
                        Opening::Http1 => {
                            scan(self.transport.borrow().unread(), scanned as usize, &limits)
                        }
                    };
                    match found {
                        Err(fault) => return Poll::Ready(Incoming::Refused(self.refuse(fault))),
                        Ok(Some(_)) if !self.transport.borrow_mut().take_steps(HEAD_STEPS) => {
                            if let State::Head { whole, since, .. } = &mut self.state {
                                // It is not late: it is we who do not read on.
                                (*whole, *since) = (true, now);
                            }
                            return Poll::Pending;
                        }
                        Ok(Some(length)) => return Poll::Ready(self.take_head(length)),
                        Ok(None) => {}
                    }
                    let mut transport = self.transport.borrow_mut();
                    let filled = transport.fill(limits.head_bytes_max + READ_AHEAD);
                    if let State::Head {
                        scanned,
                        begun,
                        whole: _,
                        since,
                    } = &mut self.state
                    {
                        if matches!(filled, Filled::Bytes(_)) && !mem::replace(begun, true) {
                            *since = now;
                        }
                        let whole = match filled {
                            // Nobody has looked at them yet.
                            _ if opening == Opening::Unclear => 0,
                            Filled::Bytes(n) => transport.unread().len() - n,
                            _ => transport.unread().len(),
                        };
                        *scanned = u32::try_from(whole).unwrap_or(u32::MAX);
                    }
                    match filled {
                        Filled::Bytes(_) => {}
                        Filled::Dry | Filled::Starved | Filled::Full => {
                            transport.compact();
                            return Poll::Pending;
                        }
                        // Half a head is nobody's request.
                        Filled::Ended => return Poll::Ready(Incoming::Closed),
                    }
                }
                State::Call => return Poll::Pending,
                State::Draining { .. } => match self.drain() {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(true) => self.rest(now),
                    Poll::Ready(false) => self.linger(),
                },
                State::Lingering(ref mut lingering) => {
                    let over = lingering.poll(&mut self.transport.borrow_mut(), now);
                    return over.map(|()| Incoming::Closed);
                }
            }
        }
    }

    /// What the first bytes of a connection say. Later ones say nothing of the kind: who has spoken HTTP/1.1 here goes on so.
    fn opening(&self) -> Opening {
        let transport = self.transport.borrow();
        let unread = transport.unread();
        // No method that is in use begins so.
        if !unread.starts_with(b"PR") || transport.staged_total() > 0 {
            return Opening::Http1;
        }
        let seen = unread.get(..PREFACE.len()).unwrap_or(unread);
        match PREFACE.strip_prefix(seen) {
            Some([]) => Opening::Http2,
            Some(_) => Opening::Unclear,
            None => Opening::Http1,
        }
    }

    fn take_head(&mut self, length: usize) -> Incoming {
        let bytes = self.transport.borrow_mut().split_to_keep(length);
        self.state = State::Call;
        match parse_request(bytes.clone(), &self.limits.head()) {
            Err(fault) => {
                self.call = Some(Box::default());
                let head = glean(&bytes).map(Box::new);
                Incoming::Refused(Refused { fault, head })
            }
            Ok(request) => {
                self.call = Some(Box::new(OfCall {
                    body: BodyDecoder::new(request.framing, BodyLimits::default()),
                    persistent: request.persistent,
                    expects_continue: request.expect_continue,
                    bodiless: request.head.method == Method::HEAD,
                    version: request.version,
                    ..OfCall::default()
                }));
                Incoming::Request(request)
            }
        }
    }

    /// Answers the present request with what is at hand, whole.
    pub fn respond(&mut self, mut head: ResponseHead, body: Bytes) {
        if matches!(self.state, State::Head { .. }) {
            // What is refused before it was a request ends the connection.
            self.state = State::Call;
            self.call = Some(Box::default());
        }
        if !forbids_content(head.status) {
            head.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        self.send(Part::Head(Box::new(head)));
        self.send(Part::Data(body));
        self.send(Part::End(None));
        self.finish_step();
    }

    /// The call is over and the engine at home again: what becomes of the connection?
    pub fn come_home(&mut self, now: Instant) {
        let call = self.call.get_or_insert_default();
        let whole = call.answer == Answer::Ended;
        let drainable = !call.expects_continue && call.fault.is_none();
        if !whole || !call.persistent {
            // An answer that was cut ends with the connection, so that it cannot be taken for whole.
            self.linger();
        } else if call.body.is_done() {
            self.rest(now);
        } else if drainable {
            self.state = State::Draining {
                left: DRAIN_BYTES_MAX,
                until: now + DRAIN_TIME,
            };
        } else {
            // Whether a body follows a 100 that was never sent cannot be known.
            self.linger();
        }
    }

    /// When to be asked again though nothing has happened.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            // It is we who do not read on, because the client does not; the stall limit is what counts then.
            State::Head { .. } if self.transport.borrow().unwritten() >= HIGH_WATER => None,
            State::Head {
                begun: true, since, ..
            } if self.opening() == Opening::Unclear => {
                Some(since + self.limits.head_timeout.min(PREFACE_TIME))
            }
            State::Head {
                begun: true, since, ..
            } => Some(since + self.limits.head_timeout),
            State::Head { since, .. } => Some(since + self.limits.idle_timeout),
            State::Call => None,
            State::Draining { until, .. } => Some(until),
            State::Lingering(lingering) => lingering.until(),
        }
    }

    /// Its deadline has passed: `Some` says with what to refuse, `None` that the connection is to be closed, or that
    /// [`Http1::poll`] knows what to do.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Refused> {
        if self.has_whole_head() || self.transport.borrow().is_in_line() {
            // It is we who do not read on.
            match &mut self.state {
                State::Head { since, .. } => *since = now,
                State::Draining { until, .. } => *until = now + DRAIN_TIME,
                State::Call | State::Lingering(_) => {}
            }
            return None;
        }
        match self.state {
            // Nobody would understand an answer.
            State::Head { begun: true, .. } if self.opening() == Opening::Unclear => {
                self.linger();
                None
            }
            State::Head { begun: true, .. } => Some(self.refuse(TOO_SLOW)),
            State::Head { .. } => {
                self.linger();
                None
            }
            State::Draining { .. } => {
                self.linger();
                None
            }
            State::Lingering(ref mut lingering) => {
                lingering.hurry(now);
                None
            }
            State::Call => None,
        }
    }

    /// Refuses the head that has begun to come.
    pub fn refuse(&self, fault: HeadFault) -> Refused {
        let head = glean(self.transport.borrow().unread()).map(Box::new);
        Refused { fault, head }
    }

    /// How much it holds of a head that has not come whole, bytes. Whole ones that wait for their turn are none;
    /// behind answers that nobody reads nobody looks which are whole.
    pub fn head_bytes(&self) -> usize {
        match self.state {
            State::Head { whole: false, .. } => self.transport.borrow().unread().len(),
            State::Head { whole: true, .. }
            | State::Call
            | State::Draining { .. }
            | State::Lingering(_) => 0,
        }
    }

    /// Since when a head has been coming, if one has begun.
    pub fn head_since(&self) -> Option<Instant> {
        match self.state {
            State::Head {
                begun: true, since, ..
            } => Some(since),
            _ => None,
        }
    }

    /// Whether a whole head lies here that had no turn yet.
    pub fn has_whole_head(&self) -> bool {
        matches!(self.state, State::Head { whole: true, .. })
    }

    /// Whether it waits for a request and has not seen a byte of one.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head { begun: false, .. })
    }

    /// Sends no more and reads no further request.
    pub fn linger(&mut self) {
        if !matches!(self.state, State::Lingering(_)) {
            self.transport.borrow_mut().shutdown_write();
            self.state = State::Lingering(Lingering::default());
            self.call = None;
        }
    }

    /// Its transport.
    pub fn transport(&self) -> &SharedTransport<S> {
        &self.transport
    }

    fn rest(&mut self, now: Instant) {
        // What is buffered already is the beginning of the next head.
        let begun = !self.transport.borrow().unread().is_empty();
        self.state = State::Head {
            scanned: 0,
            begun,
            whole: false,
            since: now,
        };
        self.call = None;
    }

    /// Reads on to the end of the body: `true` if it was reached in bounds.
    fn drain(&mut self) -> Poll<bool> {
        let State::Draining { left, .. } = &mut self.state else {
            return Poll::Ready(false);
        };
        let body = &mut self.call.get_or_insert_default().body;
        let mut transport = self.transport.borrow_mut();
        loop {
            if !transport.unread().is_empty() && !transport.take_steps(1) {
                return Poll::Pending;
            }
            match body.decode(transport.unread()) {
                Ok(Step::Data { skip, len }) => {
                    transport.consume(skip + len);
                    match less(*left, skip + len) {
                        Some(less) => *left = less,
                        None => return Poll::Ready(false),
                    }
                    continue;
                }
                Ok(Step::More { used }) => {
                    transport.consume(used);
                    match less(*left, used) {
                        Some(less) => *left = less,
                        None => return Poll::Ready(false),
                    }
                }
                Ok(Step::End { used }) => {
                    transport.consume(used);
                    return Poll::Ready(true);
                }
                Err(_) => return Poll::Ready(false),
            }
            match transport.fill(READ_AHEAD) {
                Filled::Bytes(_) => {}
                Filled::Dry | Filled::Starved | Filled::Full => return Poll::Pending,
                Filled::Ended => return Poll::Ready(false),
            }
        }
    }

    fn begin_answer(&mut self, head: &ResponseHead) {
        let call = self.call.get_or_insert_default();
        let length = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        let (framing, answer) = if forbids_content(head.status) {
            (ResponseFraming::None, Answer::Length(0))
        } else {
            match length {
                Some(length) if call.bodiless => {
                    (ResponseFraming::Length(length), Answer::Length(0))
                }
                Some(length) => (ResponseFraming::Length(length), Answer::Length(length)),
                None if call.version < Version::HTTP_11 => {
                    // HTTP/1.0 knows no chunks: the end of the connection is the end of the content.
                    call.persistent = false;
                    (ResponseFraming::None, Answer::Length(u64::MAX))
                }
                None => (ResponseFraming::Chunked, Answer::Chunked),
            }
        };
        let drainable = !call.expects_continue || call.body.is_done();
        let close = !call.persistent || !drainable;
        call.persistent = !close;
        call.answer = answer;
        let mut transport = self.transport.borrow_mut();
        transport.write_with(|out| write_response(head, framing, close, out));
    }

    /// Writes the content of this step, in one chunk, and the end if it has come.
    fn finish_step(&mut self) {
        let call = self.call.get_or_insert_default();
        if call.pending_bytes > 0 {
            let mut transport = self.transport.borrow_mut();
            let chunked = call.answer == Answer::Chunked;
            if chunked {
                let length = call.pending_bytes;
                transport.write_with(|out| write_chunk_head(length, out));
            }
            let mut pending = mem::take(&mut call.pending);
            for bytes in pending.drain(..) {
                transport.write_bytes(bytes);
            }
            // Between two steps a connection holds no list.
            transport.keep_list(pending);
            if chunked {
                transport.write(CHUNK_END);
            }
            call.pending_bytes = 0;
        }
        if call.ending && call.answer != Answer::Ended {
            match call.answer {
                Answer::Chunked if !call.bodiless => self.transport.borrow_mut().write(LAST_CHUNK),
                // Fewer bytes than were promised: only the end of the connection can say so.
                Answer::Length(1..) => call.persistent = false,
                _ => {}
            }
            let open_ended = call.version < Version::HTTP_11;
            let short = matches!(call.answer, Answer::Length(1..)) && !open_ended;
            if !short {
                call.answer = Answer::Ended;
            }
        }
    }
}

impl<S: Socket> Source for Http1<S> {
    fn poll_part(&mut self, now: Instant, _cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let call = self.call.get_or_insert_default();
        if let Some(reset) = &call.fault {
            return Poll::Ready(Err(**reset));
        }
        let mut transport = self.transport.borrow_mut();
        loop {
            if !transport.unread().is_empty() && !transport.take_steps(1) {
                return Poll::Pending;
            }
            match call.body.decode(transport.unread()) {
                Ok(Step::Data { skip, len }) => {
                    transport.consume(skip);
                    return Poll::Ready(Ok(Part::Data(transport.split(len))));
                }
                Ok(Step::More { used }) => transport.consume(used),
                Ok(Step::End { used }) => {
                    transport.consume(used);
                    return Poll::Ready(Ok(Part::End(None)));
                }
                Err(fault) => {
                    let reset = Reset::downstream(Reason::ClientProtocol(fault.detail()));
                    call.fault = Some(Box::new(reset));
                    return Poll::Ready(Err(reset));
                }
            }
            match transport.fill(READ_AHEAD) {
                Filled::Bytes(_) => {
                    call.expects_continue = false;
                    call.continued_until = None;
                }
                Filled::Dry | Filled::Starved | Filled::Full => {
                    // The body is asked for now, nothing of it has come, and the client waits for a word (RFC 9110 §10.1.1).
                    if call.expects_continue && transport.unread().is_empty() {
                        call.expects_continue = false;
                        if call.answer == Answer::Unsent {
                            transport.write_with(write_continue);
                            call.continued_until = now.checked_add(self.limits.head_timeout);
                        }
                    }
                    if call.continued_until.is_some_and(|until| now >= until) {
                        // It asked for the word, and got it: such a body begins as promptly as a head comes.
                        call.continued_until = None;
                        let reset = Reset::downstream(Reason::ClientTooSlow);
                        call.fault = Some(Box::new(reset));
                        return Poll::Ready(Err(reset));
                    }
                    return Poll::Pending;
                }
                Filled::Ended => {
                    let reason = match call.body.at_eof() {
                        Err(fault) if !transport.is_broken() => {
                            Reason::ClientProtocol(fault.detail())
                        }
                        Err(_) | Ok(()) => Reason::ClientLeft,
                    };
                    let reset = Reset::downstream(reason);
                    call.fault = Some(Box::new(reset));
                    return Poll::Ready(Err(reset));
                }
            }
        }
    }

    fn taken(&mut self, _bytes: usize) {
        // The kernel's window is the socket's: what was read is read.
    }

    fn wake_at(&self) -> Option<Instant> {
        self.call.as_ref()?.continued_until
    }
}

impl<S: Socket> Sink for Http1<S> {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        let mut transport = self.transport.borrow_mut();
        if let Some(kind) = transport.failed() {
            return Poll::Ready(Err(gone(kind)));
        }
        if transport.is_broken() {
            return Poll::Ready(Err(Reset::downstream(Reason::ClientLeft)));
        }
        let held = transport.unwritten() + self.call.as_ref().map_or(0, |call| call.pending_bytes);
        if held >= HIGH_WATER {
            transport.note_refused();
            return Poll::Pending;
        }
        Poll::Ready(Ok(HIGH_WATER - held))
    }

    fn send(&mut self, part: Part) {
        match part {
            Part::Head(head) => self.begin_answer(&head),
            Part::Data(bytes) => {
                let call = self.call.get_or_insert_default();
                let bytes = match &mut call.answer {
                    Answer::Unsent | Answer::Ended => return,
                    Answer::Chunked => bytes,
                    Answer::Length(left) => {
                        // Never a byte more than was promised: it would be read as the next answer.
                        let take = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
                        *left -= take;
                        bytes.slice(..usize::try_from(take).unwrap_or(usize::MAX))
                    }
                };
                if !bytes.is_empty() && !call.bodiless {
                    if call.pending.is_empty() {
                        call.pending = self.transport.borrow().take_list();
                    }
                    call.pending_bytes += bytes.len();
                    call.pending.push(bytes);
                }
            }
            Part::End(_) => self.call.get_or_insert_default().ending = true,
        }
    }

    fn settle(&mut self, _cx: &mut Context<'_>) {
        self.finish_step();
    }

    fn condemn(&mut self) {
        self.call.get_or_insert_default().persistent = false;
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        let transport = self.transport.borrow();
        if let Some(kind) = transport.failed() {
            return Poll::Ready(gone(kind));
        }
        // A half-closed browser is a gone browser, also while its request waits for room. A body that was cut is not mistaken
        // for it: the request lane runs first and meets the cut, when it is called where there is more than one turn may read.
        if transport.is_broken() || (transport.read_closed() && !transport.is_in_line()) {
            return Poll::Ready(Reset::downstream(Reason::ClientLeft));
        }
        Poll::Pending
    }
}

/// What remains of `left` without `bytes`. `None`: it is fewer than nothing.
fn less(left: u32, bytes: usize) -> Option<u32> {
    left.checked_sub(u32::try_from(bytes).ok()?)
}

fn gone(kind: io::ErrorKind) -> Reset {
    Reset::downstream(match kind {
        io::ErrorKind::TimedOut => Reason::ClientTooSlow,
        _ => Reason::ClientLeft,
    })
}

#[cfg(test)]
mod tests;
