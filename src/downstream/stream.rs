//! The caller's end of a call, whatever the caller speaks.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use crate::downstream::http1::Http1;
use crate::downstream::http2::Http2Stream;
use crate::net::Socket;
use crate::wire::{Part, Reset, ResponseHead, Sink, Source};

/// The caller's end of a call.
#[derive(Debug)]
pub enum Stream<S: Socket> {
    /// A lent HTTP/1.1 engine.
    Http1(Http1<S>),
    /// A stream of an HTTP/2 connection.
    Http2(Box<Http2Stream>),
}

impl<S: Socket> Stream<S> {
    /// Answers with what is at hand, whole.
    pub fn respond(&mut self, head: ResponseHead, body: Bytes) {
        match self {
            Self::Http1(engine) => engine.respond(head, body),
            Self::Http2(stream) => stream.respond(head, body),
        }
    }

    /// What it holds: of the request for its sink, of the answer for want of window, bytes.
    pub fn held(&self) -> (usize, usize) {
        match self {
            // What it has read and what it has said is its transport's.
            Self::Http1(_) => (0, 0),
            Self::Http2(stream) => stream.held(),
        }
    }

    /// All that is held for it: that, and what `h2` has been given, bytes.
    pub fn holds(&self) -> usize {
        match self {
            Self::Http1(_) => 0,
            Self::Http2(stream) => stream.holds(),
        }
    }

    /// What of its answer the socket has taken, and what waits for that, bytes. In HTTP/1.1 with those before it.
    pub fn answered(&self) -> (u64, usize) {
        match self {
            Self::Http1(engine) => {
                let transport = engine.transport().borrow();
                (transport.written_total(), transport.unwritten())
            }
            Self::Http2(stream) => stream.answered(),
        }
    }
}

impl<S: Socket> Source for Stream<S> {
    fn sense(&mut self, now: Instant, cx: &mut Context<'_>) {
        match self {
            Self::Http1(engine) => engine.sense(now, cx),
            Self::Http2(stream) => stream.sense(now, cx),
        }
    }

    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        match self {
            Self::Http1(engine) => engine.poll_part(now, cx),
            Self::Http2(stream) => stream.poll_part(now, cx),
        }
    }

    fn taken(&mut self, bytes: usize) {
        match self {
            Self::Http1(engine) => engine.taken(bytes),
            Self::Http2(stream) => stream.taken(bytes),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Http1(engine) => engine.wake_at(),
            Self::Http2(stream) => stream.wake_at(),
        }
    }
}

impl<S: Socket> Sink for Stream<S> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        match self {
            Self::Http1(engine) => engine.poll_room(cx),
            Self::Http2(stream) => stream.poll_room(cx),
        }
    }

    fn send(&mut self, part: Part) {
        match self {
            Self::Http1(engine) => engine.send(part),
            Self::Http2(stream) => stream.send(part),
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(engine) => engine.settle(cx),
            Self::Http2(stream) => stream.settle(cx),
        }
    }

    fn condemn(&mut self) {
        match self {
            Self::Http1(engine) => engine.condemn(),
            Self::Http2(stream) => stream.condemn(),
        }
    }

    fn sever(&mut self) {
        match self {
            Self::Http1(engine) => engine.sever(),
            Self::Http2(stream) => stream.sever(),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        match self {
            Self::Http1(engine) => engine.poll_gone(cx),
            Self::Http2(stream) => stream.poll_gone(cx),
        }
    }
}
