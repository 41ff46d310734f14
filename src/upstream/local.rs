//! A backend inside the process, as a stream like any other.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::policy::Answer;
use crate::wire::{Part, Reset, Sink, Source};

/// What a request may send ahead of what its answer takes, bytes; the answer takes it at once, so it is a formality.
const ROOM_BYTES: usize = 64 << 10;

/// One call of a [`crate::policy::Callee`].
pub struct Local {
    answer: Box<dyn Answer>,
    waker: Option<Waker>,
    last: Option<Last>,
    wake_at: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Last {
    End,
    Reset(Reset),
}

impl Local {
    /// The stream of a call that has begun.
    pub fn new(answer: Box<dyn Answer>) -> Self {
        Self {
            answer,
            waker: None,
            last: None,
            wake_at: None,
        }
    }
}

impl Source for Local {
    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>> {
        match self.last {
            Some(Last::End) => return Poll::Ready(Ok(Part::End(None))),
            Some(Last::Reset(reset)) => return Poll::Ready(Err(reset)),
            None => {}
        }
        let part = self.answer.poll_part(now);
        self.wake_at = self.answer.wake_at();
        match &part {
            Poll::Ready(Ok(Part::End(_))) => self.last = Some(Last::End),
            Poll::Ready(Err(reset)) => self.last = Some(Last::Reset(*reset)),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => self.waker = Some(cx.waker().clone()),
        }
        part
    }

    fn taken(&mut self, _bytes: usize) {}

    fn wake_at(&self) -> Option<Instant> {
        if self.last.is_some() {
            None
        } else {
            self.wake_at
        }
    }
}

impl Sink for Local {
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Reset>> {
        Poll::Ready(Ok(ROOM_BYTES))
    }

    fn send(&mut self, part: Part) {
        // It takes what comes, and says itself how much is too much: nothing piles up in between.
        self.answer.handle_part(part);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<Reset> {
        Poll::Pending
    }
}
