//! The last time of a connection that we send no more on (RFC 9112 §9.6).
//!
//! What still comes is read and thrown away: closed with bytes unread, the kernel would reset the connection, and the client lose
//! the answer that it has not read yet.

use std::task::Poll;
use std::time::{Duration, Instant};

use crate::downstream::bounds::READ_AHEAD;
use crate::net::{Filled, Socket, Transport};

/// For how long, from when all that we had to say has left.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How such a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lingering {
    until: Option<Instant>,
}

impl Lingering {
    /// Reads on, also while the last words wait to be written: a client that writes before it reads would wait for us as we for
    /// it. Ready when the connection may be closed.
    pub(super) fn poll<S: Socket>(
        &mut self,
        transport: &mut Transport<S>,
        now: Instant,
    ) -> Poll<()> {
        loop {
            let unread = transport.unread().len();
            transport.consume(unread);
            if transport.is_broken() {
                return Poll::Ready(());
            }
            if transport.is_flushed() && now >= *self.until.get_or_insert(now + LINGER_TIME) {
                return Poll::Ready(());
            }
            match transport.fill(READ_AHEAD) {
                Filled::Bytes(_) => {}
                Filled::Ended if transport.is_flushed() => return Poll::Ready(()),
                Filled::Dry | Filled::Starved | Filled::Full | Filled::Ended => {
                    if !transport.is_flushed() {
                        transport.note_refused();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Its time ends now, if all that we had to say has left.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.until = Some(now);
    }

    /// When its time is over, once it runs.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }
}
