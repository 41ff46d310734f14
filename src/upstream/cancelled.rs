//! Calls that were cancelled before their backend can be known to have read of them.
//!
//! A server that meets the end of a stream in the same read as its beginning has worked for nothing. Many count those, and end the
//! whole connection when there are too many, with everybody's calls: `h2` at the 21st that it has not given out (0.4.20;
//! CVE-2023-44487). One caller who leaves all his calls at once would be enough, and so would a deadline that passes for many
//! while the backend stands still. So only a few are told on trust. The others wait for SETTINGS that went out behind their heads to be
//! acknowledged (RFC 9113 §6.5.3), twice: the first time they have been read, the second time there was time to look at them.
//!
//! Owns who waits, and how many have gone. The connection asks, and sees the answer come; PING would ask as well, but gRPC servers
//! count PINGs (proposal A8) and end connections over them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::upstream::stream::Handles;

/// So many go on trust until the backend answers: not half of what `h2` allows.
pub const ON_TRUST_MAX: u32 = 8;
/// From so many on it is asked, so that whoever leaves now and then need not wait.
const ASKED_FROM: u32 = ON_TRUST_MAX / 2;
/// It is asked no oftener than that. There are servers, ours among them, that take 50 SETTINGS in a second for a flood.
pub const ASK_PAUSE: Duration = Duration::from_millis(30);
/// So many answers are waited for.
const ANSWERS: u32 = 2;
/// For so long an answer is waited for. A backend that is silent for longer is told all.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Those of one connection.
pub(super) struct Cancelled {
    /// How often the backend was asked whether it has read so far; the first time with the preface.
    asked: Cell<u32>,
    /// When that was.
    asked_at: Cell<Option<Instant>>,
    answered: Cell<u32>,
    /// How many went since the last answer.
    on_trust: Cell<u32>,
    waiting: RefCell<VecDeque<Waiting>>,
    /// Somebody waits, or so many have gone that the backend is to be asked. Looked at in each turn, in place of both.
    busy: Cell<bool>,
    /// The connection is over.
    over: Cell<bool>,
}

struct Waiting {
    /// Dropped, they cancel.
    _handles: Handles,
    /// As often the backend had been asked when it began.
    asked: u32,
}

impl Default for Cancelled {
    fn default() -> Self {
        Self {
            asked: Cell::new(1),
            asked_at: Cell::new(None),
            answered: Cell::new(0),
            on_trust: Cell::new(0),
            waiting: RefCell::default(),
            busy: Cell::new(false),
            over: Cell::new(false),
        }
    }
}

impl Cancelled {
    /// How often the backend has been asked so far: what a stream that begins now has to remember.
    pub(super) fn asked(&self) -> u32 {
        self.asked.get()
    }

    /// The backend is asked once more.
    pub(super) fn note_asked(&self, now: Instant) {
        self.asked.set(self.asked.get() + 1);
        self.asked_at.set(Some(now));
    }

    /// The backend has acknowledged SETTINGS.
    pub(super) fn note_answer(&self) {
        let answered = self.answered.get() + 1;
        self.answered.set(answered.min(self.asked.get()));
        self.on_trust.set(0);
    }

    /// A stream is given up of which the backend has said nothing. `asked`: as [`Cancelled::asked`] said when it began.
    pub(super) fn take(&self, handles: Handles, asked: u32) {
        // Who has never answered cannot be asked.
        let tells_all = self.over.get() || self.answered.get() == 0;
        if tells_all || self.knows(asked) {
            return;
        }
        if self.len() == 0 && self.on_trust.get() < ON_TRUST_MAX {
            self.on_trust.set(self.on_trust.get() + 1);
            self.note_busy();
            return;
        }
        // What is dropped wakes the connection; this does not.
        handles.wake();
        self.waiting.borrow_mut().push_back(Waiting {
            _handles: handles,
            asked,
        });
        self.note_busy();
    }

    /// Those go who may. Whether the backend has to be asked now.
    #[inline]
    pub(super) fn go_on(&self, now: Instant) -> bool {
        self.busy.get() && self.look(now)
    }

    fn look(&self, now: Instant) -> bool {
        let silent = self.silent_at().is_some_and(|at| now >= at);
        while let Some(first) = self.first()
            && (silent || self.knows(first))
        {
            let gone = self.waiting.borrow_mut().pop_front();
            // Not in the borrow: it wakes others.
            drop(gone);
        }
        self.note_busy();
        self.ask_at()
            .is_some_and(|at| at.is_none_or(|at| now >= at))
    }

    /// When to be asked again though nothing has happened.
    #[inline]
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if !self.busy.get() {
            return None;
        }
        self.ask_at().flatten().or_else(|| self.silent_at())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// The connection is over: nobody waits any more.
    pub(super) fn end(&self) {
        self.over.set(true);
        drop(self.waiting.take());
    }

    fn note_busy(&self) {
        self.busy
            .set(self.len() > 0 || self.on_trust.get() >= ASKED_FROM);
    }

    /// Whether the backend has read of a stream before which it had been asked so often, and had time to look at it.
    fn knows(&self, asked: u32) -> bool {
        self.answered.get() >= asked + ANSWERS
    }

    fn first(&self) -> Option<u32> {
        self.waiting.borrow().front().map(|first| first.asked)
    }

    /// From when on it may be asked, if it has to be; `Some(None)`: at any time.
    #[expect(clippy::option_option, reason = "two different nothings")]
    fn ask_at(&self) -> Option<Option<Instant>> {
        let needed = self.len() > 0 || self.on_trust.get() >= ASKED_FROM;
        let may = self.answered.get() == self.asked.get();
        (needed && may).then(|| self.asked_at.get().map(|at| at + ASK_PAUSE))
    }

    /// When it has been silent for too long, if somebody waits for its answer.
    fn silent_at(&self) -> Option<Instant> {
        let waits = self.len() > 0 && self.answered.get() < self.asked.get();
        let at = self.asked_at.get().filter(|_| waits);
        at.map(|at| at + ANSWER_TIME)
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled")
            .field("waiting", &self.len())
            .finish_non_exhaustive()
    }
}
