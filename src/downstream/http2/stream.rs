//! The caller's end of a call that came on a stream of HTTP/2.
//!
//! Owns the order of an answer on its stream, and what a stream may keep waiting. The head waits for the end of its step, so that an
//! answer of a head alone is one frame. Nothing is handed to `h2` ahead of its window: a reader that gives none is then known to
//! stand still, and is let go. Dropped before its end an answer is cut, with INTERNAL_ERROR, so that it cannot be taken for whole.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as H2Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{Method, Response, StatusCode};

use crate::downstream::Share;
use crate::downstream::bounds::{DRAIN_BYTES_MAX, DRAIN_TIME};
use crate::downstream::http2::gate::Notes;
use crate::downstream::refused::forbids_content;
use crate::http2::{Gathered, HandedOn, Unsent};
use crate::net::Stall;
use crate::policy::limits::STALL_PROGRESS_BYTES;
use crate::telemetry::panics;
use crate::wire::{Part, Reason, Reset, ResponseHead, Sink, Source};

/// One call's end of an HTTP/2 connection.
pub struct Http2Stream {
    // Both are dropped by hand, see `drop`.
    body: Option<RecvStream>,
    answer: Answer,
    /// Held for its drop.
    _slot: Slot,
    /// Its part of what all calls of the core hold.
    share: Share,
    notes: Rc<Notes>,
    id: u32,
    /// The time of this step.
    now: Instant,
    gathered: Gathered,
    /// The head of the answer, until the step that sends it is over.
    head: Option<Box<ResponseHead>>,
    unsent: Unsent,
    expects_continue: bool,
    /// The answer has no content, whatever its head says.
    bodiless: bool,
    /// Content that `h2` has been given, bytes.
    handed: u64,
    /// Since when something waits for window.
    stall: Option<Stall>,
    /// Where the socket was what it waited for when it was last looked at: for how long that had not taken all by then.
    waited_for_socket: Option<Duration>,
    stall_timeout: Duration,
    /// Nobody is there any more.
    gone: Option<Reset>,
    /// A panic has cut it: of what it holds nothing is said any more.
    severed: bool,
    /// Since when its call has ended.
    leaving_since: Option<Instant>,
    /// Since when its request is thrown away, and how much was, bytes.
    left_at: Option<Instant>,
    discarded: usize,
    /// How often `h2` had written all when all that comes before the cut was given to it.
    cut_behind: Option<u64>,
}

enum Answer {
    Awaited(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
    Over,
}

/// A place among the streams of a connection.
#[derive(Debug)]
pub(super) struct Slot(Rc<Cell<usize>>);

impl Slot {
    pub(super) fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What is known of a request when its stream is made.
pub(super) struct Opening {
    pub(super) body: RecvStream,
    pub(super) answer: SendResponse<Bytes>,
    pub(super) slot: Slot,
    pub(super) share: Share,
    pub(super) notes: Rc<Notes>,
    pub(super) expects_continue: bool,
    pub(super) method: Method,
    pub(super) stall_timeout: Duration,
    pub(super) now: Instant,
}

impl Http2Stream {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            id: opening.answer.stream_id().as_u32(),
            body: Some(opening.body),
            answer: Answer::Awaited(opening.answer),
            _slot: opening.slot,
            share: opening.share,
            notes: opening.notes,
            now: opening.now,
            gathered: Gathered::default(),
            head: None,
            unsent: Unsent::default(),
            expects_continue: opening.expects_continue,
            bodiless: opening.method == Method::HEAD,
            handed: 0,
            stall: None,
            waited_for_socket: None,
            stall_timeout: opening.stall_timeout,
            gone: None,
            severed: false,
            leaving_since: None,
            left_at: None,
            discarded: 0,
            cut_behind: None,
        }
    }

    /// Answers with what is at hand, whole.
    pub fn respond(&mut self, mut head: ResponseHead, body: Bytes) {
        if !forbids_content(head.status) {
            head.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        self.send(Part::Head(Box::new(head)));
        self.send(Part::Data(body));
        self.send(Part::End(None));
    }

    /// Ends it at once with that reason; nothing more is said on it.
    pub(super) fn reset(&mut self, reason: H2Reason) {
        match &mut self.answer {
            Answer::Awaited(answer) => answer.send_reset(reason),
            Answer::Begun(answer) => answer.send_reset(reason),
            Answer::Over => {}
        }
        self.gone = Some(Reset::downstream(Reason::ClientLeft));
    }

    /// Its call has ended: what still comes of the request is thrown away, up to some bytes and some time.
    pub(super) fn leave(&mut self, now: Instant) {
        self.pass_time(now);
        self.leaving_since = Some(now);
        let taken = self.taken_by_reader();
        self.stall = self.stall.map(|stall| stall.counted_from(taken));
        if self.left_at.is_none() && !self.gathered.is_whole() {
            self.left_at = Some(now);
        }
    }

    /// Goes on where nobody else drives it any more. Whether it is over: all of its answer has been written and its request has
    /// ended or been given up, or nobody is there for it. `writes`: how often `h2` had written all that it was given.
    pub(super) fn see_off(&mut self, writes: u64, now: Instant, cx: &mut Context<'_>) -> bool {
        if self.severed && !(self.unsent.has_ended() && self.unwritten().is_some()) {
            // Its drop tells the client.
            return true;
        }
        self.sense(now, cx);
        self.discard();
        self.settle(cx);
        if self.poll_gone(cx).is_ready() {
            return true;
        }
        if self.waits_for_cut() {
            // A reset throws away what `h2` has not written, and whole messages before the cut are whole.
            return writes > *self.cut_behind.get_or_insert(writes);
        }
        let heard = self.gathered.is_over() || self.discarded >= DRAIN_BYTES_MAX as usize;
        let waited = self.left_at.is_none_or(|at| now >= at + DRAIN_TIME);
        self.is_said() && self.unwritten().is_none() && (heard || waited)
    }

    /// Whether both sides have ended, and all is written: its drop leaves nothing to be said.
    pub(super) fn is_done(&self) -> bool {
        self.unsent.has_ended() && self.unwritten().is_none() && self.gathered.is_whole()
    }

    /// What `h2` has been given of the answer and has not written, bytes; `None`: it has written all that it was given.
    pub fn unwritten(&self) -> Option<usize> {
        self.notes.unwritten(self.id)
    }

    /// Whether `h2` has all of the answer that there is.
    fn is_said(&self) -> bool {
        self.head.is_none() && !self.unsent.waits()
    }

    /// Whether it is to be cut, as soon as what it has said is written.
    pub(super) fn waits_for_cut(&self) -> bool {
        self.is_said() && !self.unsent.has_ended()
    }

    /// What has come of a request that nobody wants is gone, and its window with it.
    fn discard(&mut self) {
        while let Poll::Ready(Ok(Part::Data(bytes))) = self.gathered.poll_part() {
            self.discarded = self.discarded.saturating_add(bytes.len());
            self.taken(bytes.len());
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it holds: of the request for its sink, of the answer for want of window, bytes. Not what `h2` holds.
    pub fn held(&self) -> (usize, usize) {
        (self.gathered.bytes(), self.unsent.bytes())
    }

    /// All that is held for it: that, and what `h2` has been given, bytes.
    pub fn holds(&self) -> usize {
        let (request, answer) = self.held();
        request + answer + self.unwritten().unwrap_or_default()
    }

    /// What of its answer the socket has taken, and what waits for that or for window, bytes.
    pub fn answered(&self) -> (u64, usize) {
        let unwritten = self.unwritten().unwrap_or_default();
        (
            self.handed - unwritten as u64,
            self.unsent.bytes() + unwritten,
        )
    }

    /// Since when its call has ended, if it has. What it holds came before that.
    pub fn leaving_since(&self) -> Option<Instant> {
        self.leaving_since
    }

    /// Gives up a poisoned stream. What `h2` holds for its connection is never freed; so much does such a panic cost.
    fn forget(&mut self) {
        mem::forget(self.body.take());
        mem::forget(mem::replace(&mut self.answer, Answer::Over));
    }

    /// Counts what it holds.
    fn count(&mut self) {
        self.share.hold(self.gathered.bytes() + self.unsent.bytes());
    }

    /// Says the head, if it waits.
    fn send_head(&mut self) {
        let Some(head) = self.head.take() else {
            return;
        };
        let Answer::Awaited(answer) = &mut self.answer else {
            return;
        };
        let ResponseHead {
            status,
            headers,
            end,
        } = *head;
        let end = end || (self.unsent.is_ending() && self.unsent.is_bare());
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        match answer.send_response(response, end) {
            Ok(body) => {
                // It has its place before anything else is asked of `h2`.
                let awaited = mem::replace(&mut self.answer, Answer::Begun(body));
                drop(awaited);
                if end {
                    self.unsent.note_ended();
                }
            }
            // The stream is gone, or its connection is, or `h2` takes this for no answer.
            Err(error) => {
                log::debug!("an answer cannot be said in HTTP/2: {error}");
                self.reset(H2Reason::INTERNAL_ERROR);
            }
        }
    }

    /// How much its reader has taken, bytes. As long as its call is open that is what it has given window for. But what was within
    /// the window when `h2` was given it can be beyond it by now (RFC 9113 §6.9.2), and where nothing more is to be said that may
    /// be all that is left.
    fn taken_by_reader(&self) -> u64 {
        match self.leaving_since {
            Some(_) => self.answered().0,
            None => self.handed,
        }
    }

    /// Whether `h2` holds some of it for want of room in the socket: all that its connection has to say goes by turns.
    fn waits_for_socket(&self) -> bool {
        !self.notes.has_written_all() && self.unwritten().is_some()
    }

    /// It is `now`. What the socket has kept waiting its reader has not: of the whole connection that is judged by what it takes.
    fn pass_time(&mut self, now: Instant) {
        if let Some(before) = &mut self.waited_for_socket {
            let until_now = self.notes.socket_time(now);
            let waited = until_now.saturating_sub(*before);
            *before = until_now;
            self.stall = self.stall.map(|stall| stall.later_by(waited));
        }
        self.now = now;
    }

    fn watch_reader(&mut self) {
        let waits = self.waits_for_socket();
        self.waited_for_socket = waits.then(|| self.notes.socket_time(self.now));
        let is_unwritten = self.leaving_since.is_some() && self.unwritten().is_some();
        if !self.unsent.waits() && !is_unwritten {
            self.stall = None;
            return;
        }
        let taken = self.taken_by_reader();
        let stall = Stall::new(self.now, taken);
        let stall = self.stall.get_or_insert(stall);
        stall.note(self.now, taken, STALL_PROGRESS_BYTES);
    }

    /// When its reader will have stood still for too long.
    fn stalled_at(&self) -> Option<Instant> {
        self.stall.as_ref()?.until(self.stall_timeout)
    }
}

impl Source for Http2Stream {
    fn sense(&mut self, now: Instant, cx: &mut Context<'_>) {
        self.pass_time(now);
        if let Some(body) = &mut self.body {
            let notes = &self.notes;
            self.gathered
                .sense(body, |error| reset_of(error, notes), cx);
            // A request's trailers mean nothing in gRPC, and would be held for as long as its content waits.
            self.gathered.forget_trailers();
        }
        self.count();
        if self.gone.is_none() && self.stalled_at().is_some_and(|at| now >= at) {
            self.reset(H2Reason::CANCEL);
            self.gone = Some(Reset::downstream(Reason::ClientTooSlow));
        }
    }

    fn poll_part(&mut self, _now: Instant, _cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let part = self.gathered.poll_part();
        if self.expects_continue {
            self.expects_continue = false;
            // The content is asked for now, and the client waits for a word (RFC 9110 §10.1.1).
            if let (Poll::Pending, Answer::Awaited(answer)) = (&part, &mut self.answer) {
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::CONTINUE;
                // Where that cannot be said, the stream is gone.
                if answer.send_informational(head).is_ok() {
                    self.notes.note_interim(self.id);
                }
            }
        }
        part
    }

    fn taken(&mut self, bytes: usize) {
        if let Some(body) = &mut self.body {
            self.gathered.taken(body, bytes);
        }
        self.count();
    }

    fn wake_at(&self) -> Option<Instant> {
        // As long as its answer waits, the time for its request does not end anything.
        let left = self
            .left_at
            .filter(|_| self.is_said() && self.unsent.has_ended() && self.unwritten().is_none());
        let left = left.map(|at| at + DRAIN_TIME);
        self.stalled_at().into_iter().chain(left).min()
    }
}

impl Sink for Http2Stream {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        if let Some(gone) = self.gone {
            return Poll::Ready(Err(gone));
        }
        match self.unsent.room() {
            Ok(Some(room)) => Poll::Ready(Ok(room)),
            Ok(None) => Poll::Pending,
            Err(_) => Poll::Ready(Err(self.notes.why_gone())),
        }
    }

    fn send(&mut self, part: Part) {
        match part {
            Part::Head(head) => {
                self.bodiless |= forbids_content(head.status);
                self.head = Some(head);
            }
            Part::Data(bytes) if self.bodiless || bytes.is_empty() => {}
            Part::Data(bytes) => self.unsent.push(bytes),
            Part::End(trailers) => self.unsent.end(trailers),
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        if self.gone.is_some() {
            return;
        }
        let had_ended = self.unsent.has_ended();
        self.send_head();
        let Self {
            answer,
            unsent,
            notes,
            id,
            handed,
            ..
        } = self;
        if let Answer::Begun(answer) = answer {
            let told = |handed_on: HandedOn<'_>| {
                if let HandedOn::Piece(piece) = handed_on {
                    *handed += piece.len() as u64;
                    notes.note_piece(*id, piece);
                }
            };
            unsent.send(answer, 0, told, cx);
        }
        if !had_ended && self.unsent.has_ended() {
            self.notes.note_answer_end(self.id);
        }
        self.watch_reader();
        self.count();
    }

    fn sever(&mut self) {
        self.severed = true;
        if !self.unsent.has_ended() {
            self.head = None;
            self.unsent = Unsent::default();
        }
        self.count();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        if let Some(gone) = self.gone {
            return Poll::Ready(gone);
        }
        let asked = match &mut self.answer {
            Answer::Awaited(answer) => answer.poll_reset(cx),
            Answer::Begun(answer) => answer.poll_reset(cx),
            Answer::Over => Poll::Pending,
        };
        if asked.is_pending() {
            return Poll::Pending;
        }
        // Where the request was broken, that is why.
        let fault = self.gathered.fault();
        let gone = fault.unwrap_or_else(|| self.notes.why_gone());
        self.gone = Some(gone);
        Poll::Ready(gone)
    }
}

impl Drop for Http2Stream {
    /// Hands the handles back to `h2`, each by itself: a receiving half whose drop panics while something else unwinds ends
    /// the process, so nothing may be left to be dropped when one of them panics.
    fn drop(&mut self) {
        // What `h2` has been given it would send all the same.
        let is_whole = self.unsent.has_ended() && self.unwritten().is_none();
        self.notes.forget(self.id);
        if self.gone.is_none() && !is_whole {
            let cut = panics::contained(|| self.reset(H2Reason::INTERNAL_ERROR));
            if cut.is_none() {
                self.forget();
            }
        }
        let body = self.body.take();
        if panics::contained(|| drop(body)).is_none() {
            self.forget();
        }
        let answer = mem::replace(&mut self.answer, Answer::Over);
        // Whoever polls the connection next meets what has happened here.
        let _ = panics::contained(|| drop(answer));
    }
}

/// Why a request has not come to its end.
fn reset_of(error: &h2::Error, notes: &Notes) -> Reset {
    match (error.is_reset(), error.is_remote()) {
        (true, false) => Reset::downstream(Reason::ClientProtocol("the request breaks HTTP/2")),
        // Whatever became of its connection afterwards.
        (true, true) => Reset::downstream(Reason::ClientLeft),
        (false, _) => notes.why_gone(),
    }
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
