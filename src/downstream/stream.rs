//! The caller's end of a call, whatever the caller speaks.

use std::task::{Context, Poll};
use std::time::Instant;

use crate::downstream::http1::Http1;
use crate::net::Socket;
use crate::wire::{Part, Reset, Sink, Source};

/// The caller's end of a call.
#[derive(Debug)]
pub enum Stream<S: Socket> {
    /// A lent HTTP/1.1 engine.
    Http1(Http1<S>),
}

impl<S: Socket> Source for Stream<S> {
    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        match self {
            Self::Http1(engine) => engine.poll_part(now, cx),
        }
    }

    fn taken(&mut self, bytes: usize) {
        match self {
            Self::Http1(engine) => engine.taken(bytes),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Http1(engine) => engine.wake_at(),
        }
    }
}

impl<S: Socket> Sink for Stream<S> {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        match self {
            Self::Http1(engine) => engine.poll_room(cx),
        }
    }

    fn send(&mut self, part: Part) {
        match self {
            Self::Http1(engine) => engine.send(part),
        }
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(engine) => engine.settle(cx),
        }
    }

    fn condemn(&mut self) {
        match self {
            Self::Http1(engine) => engine.condemn(),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        match self {
            Self::Http1(engine) => engine.poll_gone(cx),
        }
    }
}
