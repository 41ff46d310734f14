//! One call's end of a backend: an HTTP/2 stream, or a function in this process.
//!
//! Owns what is particular to the side that calls: the answer's head, interim heads, and what a lost stream means. Only the small
//! rest of a request that is there to its end goes ahead of its window, so that it leaves with the head. And dropping is
//! cancelling: the last handle that goes sends RST_STREAM(CANCEL), or NO_ERROR where the answer was complete (RFC 9113 §8.1).

use std::cell::{Cell, OnceCell};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason as H2Reason, RecvStream, SendStream};

use crate::http2::{Gathered, HandedOn, Unsent};
use crate::telemetry::panics;
use crate::upstream::gate::Notes;
use crate::upstream::local::Local;
use crate::wire::{Part, Reason, Reset, ResponseHead, Sink, Source};

/// So much of a request that is there to its end is handed to `h2` ahead of its window, bytes. `h2` opens a stream when its
/// connection is polled and has no window for it before: whoever waited for it would have to be polled once more.
const WHOLE_BYTES_MAX: usize = 4 << 10;

/// Interim heads (1xx) of one answer. Over it: the stream is reset, INTERNAL.
const INTERIM_HEADS_MAX: u32 = 16;

/// The upstream end of a call.
pub enum Stream {
    /// On an HTTP/2 connection.
    Http2(Box<Http2>),
    /// In this process.
    Local(Box<Local>),
}

impl Stream {
    /// What it holds: of the answer for its sink, of the request for want of window, bytes.
    pub fn held(&self) -> (usize, usize) {
        match self {
            Self::Http2(stream) => (stream.gathered.bytes(), stream.unsent.bytes()),
            Self::Local(_) => (0, 0),
        }
    }

    /// Whether nothing may be asked of it any more, not even its drop; see [`Stream::forget`].
    pub fn is_poisoned(&self) -> bool {
        match self {
            Self::Http2(stream) => stream.is_poisoned(),
            Self::Local(_) => false,
        }
    }

    /// Gives up a poisoned stream. What `h2` holds for its connection is never freed; so much does such a panic cost.
    pub fn forget(mut self) {
        if let Self::Http2(stream) = &mut self {
            stream.forget();
        }
    }
}

impl Source for Stream {
    fn sense(&mut self, now: Instant, cx: &mut Context<'_>) {
        match self {
            Self::Http2(stream) => stream.sense(now, cx),
            Self::Local(stream) => stream.sense(now, cx),
        }
    }

    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        match self {
            Self::Http2(stream) => stream.poll_part(now, cx),
            Self::Local(stream) => stream.poll_part(now, cx),
        }
    }

    fn taken(&mut self, bytes: usize) {
        match self {
            Self::Http2(stream) => stream.taken(bytes),
            Self::Local(stream) => stream.taken(bytes),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Http2(_) => None,
            Self::Local(stream) => stream.wake_at(),
        }
    }
}

impl Sink for Stream {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        match self {
            Self::Http2(stream) => stream.poll_room(cx),
            Self::Local(stream) => stream.poll_room(cx),
        }
    }

    fn send(&mut self, part: Part) {
        match self {
            Self::Http2(stream) => stream.send(part),
            Self::Local(stream) => stream.send(part),
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http2(stream) => stream.settle(cx),
            Self::Local(stream) => stream.settle(cx),
        }
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        // A backend that leaves is met by the lane that reads it.
        Poll::Pending
    }
}

/// A stream on an HTTP/2 connection.
pub struct Http2 {
    // Both are dropped by hand, see `drop`.
    answer: Answer,
    /// There until it is dropped.
    body: Option<SendStream<Bytes>>,
    /// There until it is dropped, and held for that.
    slot: Option<Slot>,
    /// What is known of its connection.
    notes: Rc<Notes>,
    /// Its number.
    id: u32,
    /// What had been staged on the connection before its head.
    begins: u64,
    /// How often the backend had been asked how far it has read.
    asked: u32,
    interim_heads: u32,
    head_seen: bool,
    /// DATA that has arrived and waits for its sink.
    gathered: Gathered,
    /// What is held of the request until there is window for it.
    unsent: Unsent,
}

enum Answer {
    Awaited(ResponseFuture),
    Body(RecvStream),
    Over,
}

/// A place among the streams of a connection; gone, it wakes the connection, so that the next call in the queue gets it.
pub(super) struct Slot(Rc<Open>);

/// How many streams a connection has, and how it is woken.
#[derive(Debug, Default)]
pub(super) struct Open {
    streams: Cell<usize>,
    /// There since its first stream.
    connection: OnceCell<Waker>,
}

impl Open {
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    fn wake(&self) {
        if let Some(connection) = self.connection.get() {
            connection.wake_by_ref();
        }
    }
}

impl Slot {
    pub(super) fn new(open: &Rc<Open>, connection: &Waker) -> Self {
        open.streams.set(open.streams() + 1);
        open.connection.get_or_init(|| connection.clone());
        Self(Rc::clone(open))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams() - 1);
        self.0.wake();
    }
}

impl Http2 {
    pub(super) fn new(
        answer: ResponseFuture,
        body: SendStream<Bytes>,
        slot: Slot,
        notes: Rc<Notes>,
        begins: u64,
    ) -> Self {
        Self {
            id: body.stream_id().as_u32(),
            answer: Answer::Awaited(answer),
            body: Some(body),
            slot: Some(slot),
            asked: notes.cancelled().asked(),
            notes,
            begins,
            interim_heads: 0,
            head_seen: false,
            gathered: Gathered::default(),
            unsent: Unsent::default(),
        }
    }

    fn poll_head(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let Answer::Awaited(response) = &mut self.answer else {
            return Poll::Pending;
        };
        match std::pin::Pin::new(response).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.answer = Answer::Over;
                let reset = reset_of(&error, &self.notes, self.id, self.begins, self.head_seen);
                self.gathered.end(reset);
                Poll::Ready(Err(reset))
            }
            Poll::Ready(Ok(response)) => {
                self.head_seen = true;
                let (head, body) = response.into_parts();
                // It has its place before anything else is asked of `h2`: a receiving half that an unwinding frame owned would
                // end the process.
                let awaited = mem::replace(&mut self.answer, Answer::Body(body));
                drop(awaited);
                let end = matches!(&self.answer, Answer::Body(body) if body.is_end_stream());
                let head = ResponseHead {
                    status: head.status,
                    headers: head.headers,
                    end,
                };
                // What came with the head is taken out at once, like everything.
                self.sense(now, cx);
                Poll::Ready(Ok(Part::Head(Box::new(head))))
            }
        }
    }
}

impl Source for Http2 {
    fn sense(&mut self, _now: Instant, cx: &mut Context<'_>) {
        let Self {
            answer,
            gathered,
            notes,
            id,
            begins,
            head_seen,
            ..
        } = self;
        match answer {
            Answer::Body(body) => {
                let reset_of = |error: &h2::Error| reset_of(error, notes, *id, *begins, *head_seen);
                gathered.sense(body, reset_of, cx);
            }
            Answer::Awaited(_) => self.skip_interim_heads(cx),
            Answer::Over => {}
        }
    }

    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        if matches!(self.answer, Answer::Awaited(_)) {
            return self.poll_head(now, cx);
        }
        self.gathered.poll_part()
    }

    fn taken(&mut self, bytes: usize) {
        if let Answer::Body(body) = &mut self.answer {
            self.gathered.taken(body, bytes);
        }
    }
}

impl Sink for Http2 {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        match self.unsent.room() {
            Ok(Some(room)) => Poll::Ready(Ok(room)),
            Ok(None) => Poll::Pending,
            // The answer says why; this only says that the request may stop.
            Err(_) => Poll::Ready(Err(Reset::upstream(Reason::BackendReset(
                H2Reason::NO_ERROR.into(),
            )))),
        }
    }

    fn send(&mut self, part: Part) {
        match part {
            Part::Data(bytes) => self.unsent.push(bytes),
            // A request's trailers have ended in its codec.
            Part::End(_) => self.unsent.end(None),
            Part::Head(_) => {}
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        let Self {
            body,
            unsent,
            notes,
            id,
            ..
        } = self;
        if let Some(body) = body {
            let told = |handed: HandedOn<'_>| match handed {
                HandedOn::Piece(piece) => notes.note_piece(*id, piece),
                HandedOn::Ahead => notes.note_ahead(*id),
            };
            unsent.send(body, WHOLE_BYTES_MAX, told, cx);
        }
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        Poll::Pending
    }
}

impl Http2 {
    /// Takes out of `h2` the heads before the head; like DATA they would gather there.
    fn skip_interim_heads(&mut self, cx: &mut Context<'_>) {
        let Answer::Awaited(response) = &mut self.answer else {
            return;
        };
        // Errors and the end are sticky: `poll_head` meets them again.
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            self.interim_heads += 1;
            if self.interim_heads > INTERIM_HEADS_MAX {
                if let Some(body) = &mut self.body {
                    body.send_reset(H2Reason::CANCEL);
                }
                self.answer = Answer::Over;
                let how = "too many interim heads";
                let reset = Reset::upstream(Reason::BackendProtocol(how));
                self.gathered.end(reset);
                return;
            }
        }
    }
}

impl Http2 {
    /// Whether somebody has panicked under the lock of its connection: every call into `h2` would panic from now on.
    fn is_poisoned(&self) -> bool {
        let asked = panics::quietly(|| self.body.as_ref().map(SendStream::capacity));
        asked.is_none()
    }

    /// Leaves the handles' memory behind, for they cannot be dropped any more.
    fn forget(&mut self) {
        mem::forget(mem::replace(&mut self.answer, Answer::Over));
        mem::forget(self.body.take());
    }
}

impl Drop for Http2 {
    /// Hands the handles back to `h2`, each by itself: a receiving half whose drop panics while something else unwinds ends
    /// the process, so nothing may be left to be dropped when one of them panics.
    fn drop(&mut self) {
        // Both sides have ended for `h2` then, so it would not cancel by itself what may never find a window.
        let waits_in_h2 = self.notes.forget(self.id);
        let complete = self.gathered.is_whole();
        if complete && (waits_in_h2 || self.unsent.is_open()) {
            // The answer is whole; the rest of the request is not wanted (RFC 9113 §8.1).
            let body = &mut self.body;
            let told = panics::contained(|| {
                if let Some(body) = body {
                    body.send_reset(H2Reason::NO_ERROR);
                }
            });
            if told.is_none() {
                self.forget();
            }
        }
        let handles = Handles {
            answer: mem::replace(&mut self.answer, Answer::Over),
            body: self.body.take(),
            slot: self.slot.take(),
        };
        let is_known = self.head_seen || self.interim_heads > 0 || self.gathered.fault().is_some();
        if !is_known {
            self.notes.cancelled().take(handles, self.asked);
        }
    }
}

/// What `h2` and the connection have given for a stream. To drop it is to cancel, if the stream has not ended.
pub(super) struct Handles {
    answer: Answer,
    body: Option<SendStream<Bytes>>,
    slot: Option<Slot>,
}

impl Handles {
    /// Wakes the connection, as dropping them does.
    pub(super) fn wake(&self) {
        if let Some(Slot(open)) = &self.slot {
            open.wake();
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        let answer = mem::replace(&mut self.answer, Answer::Over);
        let body = self.body.take();
        if panics::contained(|| drop(answer)).is_none() {
            mem::forget(body);
            return;
        }
        // Whoever polls the connection next meets what has happened here.
        let _ = panics::contained(|| drop(body));
    }
}

/// Who ended it, and why, from what `h2` says and what its connection has seen.
fn reset_of(error: &h2::Error, notes: &Notes, id: u32, begins: u64, head_seen: bool) -> Reset {
    let on_connection = error.is_io() || error.is_go_away();
    let never_left = || {
        let lost_after = notes.lost_after();
        lost_after.is_some_and(|written| written <= begins)
    };
    if not_processed(error, head_seen) || on_connection && never_left() {
        return Reset::upstream(Reason::BackendRefused);
    }
    if let Some(fault) = notes.fault()
        && fault.stream == id
    {
        return Reset::upstream(fault.reason);
    }
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => {
            Reset::upstream(Reason::BackendReset(reason.into()))
        }
        // `h2` has found the connection broken, and it was on this stream.
        Some(reason) if error.is_library() && notes.stream() == id => {
            Reset::upstream(match reason {
                H2Reason::ENHANCE_YOUR_CALM => Reason::MetadataTooLarge,
                _ => Reason::BackendProtocol("it broke HTTP/2"),
            })
        }
        // It has found this stream broken.
        Some(_) if error.is_reset() => Reset::upstream(Reason::BackendProtocol("it broke HTTP/2")),
        // The connection is lost: by its socket, by a GOAWAY with our stream at or below its last id, or for what another
        // stream's frame did. The call may have run.
        _ => Reset::upstream(Reason::BackendClosed),
    }
}

/// Provably not processed: refused by the peer itself, before any answer (RFC 9113 §8.7). Without `is_remote` it would be
/// wrong: what `h2` finds wrong by itself looks the same.
fn not_processed(error: &h2::Error, head_seen: bool) -> bool {
    let refused = error.is_reset() && error.reason() == Some(H2Reason::REFUSED_STREAM);
    !head_seen && error.is_remote() && (error.is_go_away() || refused)
}
