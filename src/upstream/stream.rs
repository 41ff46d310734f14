//! One call's end of a backend: an HTTP/2 stream, or a function in this process.
//!
//! Owns the rules for using a stream of `h2` well. DATA is taken out of `h2` as soon as it is there, gathered here, and its
//! window released only when the sink has taken it: `h2` pays 336 bytes for every frame that it keeps, and never gives that
//! back. Nothing is sent without capacity, for `h2` would queue it without limit; only the small rest of a request that is there
//! to its end goes ahead, so that it leaves with the head. And dropping is cancelling: the last handle that goes sends
//! RST_STREAM(CANCEL), or NO_ERROR where the answer was complete (RFC 9113 §8.1).

use std::cell::{Cell, OnceCell};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason as H2Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::telemetry::panics;
use crate::upstream::gate::Notes;
use crate::upstream::local::Local;
use crate::wire::{Part, Pieces, Reason, Reset, ResponseHead, Sink, Source};

/// What is held of a request for want of window, bytes. Beyond it the request waits in its client.
const UNSENT_BYTES_MAX: usize = 64 << 10;

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
    fn sense(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http2(stream) => stream.sense(cx),
            Self::Local(stream) => stream.sense(cx),
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
    /// Held for its drop.
    _slot: Slot,
    /// What is known of its connection.
    notes: Rc<Notes>,
    /// Its number.
    id: u32,
    /// What had been staged on the connection before its head.
    begins: u64,
    interim_heads: u32,
    head_seen: bool,
    /// DATA that has arrived and waits for its sink.
    gathered: Pieces,
    /// How the answer ended; given out when what was gathered before it is.
    end: Option<Result<Option<Box<HeaderMap>>, Box<Reset>>>,
    /// What is held of the request until there is window for it.
    unsent: Pieces,
    /// The request waits for less to be unsent.
    refused: bool,
    upload: Upload,
}

enum Answer {
    Awaited(ResponseFuture),
    Body(RecvStream),
    Over,
}

/// How far the request has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Open,
    /// Its end is known and waits behind what is unsent.
    Ending,
    /// END_STREAM has been handed to `h2`.
    Ended,
    /// The backend wants no more of it.
    Refused,
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
        if let Some(connection) = self.0.connection.get() {
            connection.wake_by_ref();
        }
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
            _slot: slot,
            notes,
            begins,
            interim_heads: 0,
            head_seen: false,
            gathered: Pieces::default(),
            end: None,
            unsent: Pieces::default(),
            refused: false,
            upload: Upload::Open,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        let Answer::Awaited(response) = &mut self.answer else {
            return Poll::Pending;
        };
        match std::pin::Pin::new(response).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.answer = Answer::Over;
                let reset = self.reset_of(&error);
                self.end = Some(Err(Box::new(reset)));
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
                self.sense(cx);
                Poll::Ready(Ok(Part::Head(Box::new(head))))
            }
        }
    }
}

impl Source for Http2 {
    fn sense(&mut self, cx: &mut Context<'_>) {
        if self.end.is_some() {
            // `h2` gives trailers out once; asked again it says that there were none.
            return;
        }
        let body = match &mut self.answer {
            Answer::Body(body) => body,
            Answer::Awaited(_) => return self.skip_interim_heads(cx),
            Answer::Over => return,
        };
        let end = loop {
            match body.poll_data(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(bytes))) => self.gathered.push(bytes),
                Poll::Ready(Some(Err(error))) => break Err(self.reset_of(&error)),
                Poll::Ready(None) => match body.poll_trailers(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(trailers)) => break Ok(trailers.map(Box::new)),
                    Poll::Ready(Err(error)) => break Err(self.reset_of(&error)),
                },
            }
        };
        self.end = Some(end.map_err(Box::new));
    }

    fn poll_part(&mut self, _now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        if matches!(self.answer, Answer::Awaited(_)) {
            return self.poll_head(cx);
        }
        if let Some(bytes) = self.gathered.pop() {
            return Poll::Ready(Ok(Part::Data(bytes)));
        }
        match &mut self.end {
            None => Poll::Pending,
            Some(Ok(trailers)) => Poll::Ready(Ok(Part::End(trailers.take()))),
            Some(Err(reset)) => Poll::Ready(Err(**reset)),
        }
    }

    fn taken(&mut self, bytes: usize) {
        // Where the answer has ended, the window goes back by itself when the stream is dropped.
        if self.end.is_none()
            && let Answer::Body(body) = &mut self.answer
        {
            // An error says that more was released than was received, which the lane's bookkeeping rules out.
            let released = body.flow_control().release_capacity(bytes);
            debug_assert!(released.is_ok(), "released more than was received");
        }
    }
}

impl Sink for Http2 {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        match self.upload {
            Upload::Refused => {
                // The answer says why; this only says that the request may stop.
                Poll::Ready(Err(Reset::upstream(Reason::BackendReset(
                    H2Reason::NO_ERROR.into(),
                ))))
            }
            // `settle` wakes whoever was refused here.
            _ if self.unsent.bytes() >= UNSENT_BYTES_MAX => {
                self.refused = true;
                Poll::Pending
            }
            _ => Poll::Ready(Ok(UNSENT_BYTES_MAX - self.unsent.bytes())),
        }
    }

    fn send(&mut self, part: Part) {
        match part {
            Part::Data(bytes) => self.unsent.push(bytes),
            Part::End(_) if self.upload == Upload::Open => self.upload = Upload::Ending,
            Part::End(_) | Part::Head(_) => {}
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        self.send_unsent(cx);
        if self.refused && self.unsent.bytes() < UNSENT_BYTES_MAX {
            self.refused = false;
            cx.waker().wake_by_ref();
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
                self.end = Some(Err(Box::new(reset)));
                return;
            }
        }
    }

    /// Who ended it, and why, from what `h2` says and what its connection has seen.
    fn reset_of(&self, error: &h2::Error) -> Reset {
        let on_connection = error.is_io() || error.is_go_away();
        let never_left = || {
            let lost_after = self.notes.lost_after();
            lost_after.is_some_and(|written| written <= self.begins)
        };
        if not_processed(error, self.head_seen) || on_connection && never_left() {
            return Reset::upstream(Reason::BackendRefused);
        }
        if let Some(fault) = self.notes.fault()
            && fault.stream == self.id
        {
            return Reset::upstream(fault.reason);
        }
        match error.reason() {
            Some(reason) if error.is_remote() && error.is_reset() => {
                Reset::upstream(Reason::BackendReset(reason.into()))
            }
            // `h2` has found the connection broken, and it was on this stream.
            Some(reason) if error.is_library() && self.notes.stream() == self.id => {
                Reset::upstream(match reason {
                    H2Reason::ENHANCE_YOUR_CALM => Reason::MetadataTooLarge,
                    _ => Reason::BackendProtocol("it broke HTTP/2"),
                })
            }
            // It has found this stream broken.
            Some(_) if error.is_reset() => {
                Reset::upstream(Reason::BackendProtocol("it broke HTTP/2"))
            }
            // The connection is lost: by its socket, by a GOAWAY with our stream at or below its last id, or for what another
            // stream's frame did. The call may have run.
            _ => Reset::upstream(Reason::BackendClosed),
        }
    }

    /// Hands to `h2` what it has window for.
    fn send_unsent(&mut self, cx: &mut Context<'_>) {
        let Some(body) = &mut self.body else {
            return;
        };
        while matches!(self.upload, Upload::Open | Upload::Ending) {
            if self.unsent.bytes() == 0 {
                if self.upload == Upload::Ending {
                    // The last DATA had gone before the end was known (wire rule: never END_STREAM on HEADERS).
                    self.upload = match body.send_data(Bytes::new(), true) {
                        Ok(()) => Upload::Ended,
                        Err(_) => Upload::Refused,
                    };
                }
                return;
            }
            if self.upload == Upload::Ending && self.unsent.bytes() <= WHOLE_BYTES_MAX {
                let bytes = self.unsent.take(WHOLE_BYTES_MAX);
                let last = self.unsent.is_empty();
                match body.send_data(bytes, last) {
                    Ok(()) if last => {
                        self.upload = Upload::Ended;
                        self.notes.note_ahead(self.id);
                    }
                    Ok(()) => {}
                    Err(_) => self.upload = Upload::Refused,
                }
                continue;
            }
            body.reserve_capacity(self.unsent.bytes());
            let mut capacity = body.capacity();
            if capacity == 0 {
                capacity = match body.poll_capacity(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(capacity))) => capacity,
                    Poll::Ready(None | Some(Err(_))) => {
                        self.upload = Upload::Refused;
                        self.unsent = Pieces::default();
                        return;
                    }
                };
                if capacity == 0 {
                    continue;
                }
            }
            let bytes = self.unsent.take(capacity);
            let last = self.unsent.bytes() == 0 && self.upload == Upload::Ending;
            self.notes.note_piece(self.id, &bytes);
            match body.send_data(bytes, last) {
                Ok(()) if last => self.upload = Upload::Ended,
                Ok(()) => {}
                Err(_) => self.upload = Upload::Refused,
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
        let complete = matches!(self.end, Some(Ok(_)));
        if complete && (waits_in_h2 || matches!(self.upload, Upload::Open | Upload::Ending)) {
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
        let answer = mem::replace(&mut self.answer, Answer::Over);
        if panics::contained(|| drop(answer)).is_none() {
            self.forget();
        }
        let body = self.body.take();
        // Whoever polls the connection next meets what has happened here.
        let _ = panics::contained(|| drop(body));
    }
}

/// Provably not processed: refused by the peer itself, before any answer (RFC 9113 §8.7). Without `is_remote` it would be
/// wrong: what `h2` finds wrong by itself looks the same.
fn not_processed(error: &h2::Error, head_seen: bool) -> bool {
    let refused = error.is_reset() && error.reason() == Some(H2Reason::REFUSED_STREAM);
    !head_seen && error.is_remote() && (error.is_go_away() || refused)
}
