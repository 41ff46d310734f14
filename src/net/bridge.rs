//! A transport as `h2` wants to see it: tokio's two I/O traits, and nothing else of tokio.
//!
//! Reads come from the read-ahead, writes go to the write-behind; a flush says yes at once, because the turn flushes before
//! it sleeps. No borrow of the transport is held across a poll of `h2` (invariant 8).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::driver::Socket;
use crate::net::transport::{COPY_BYTES_MAX, Filled, SharedTransport};

/// Looks at what was read before `h2` does, and may take some of it away.
pub trait Sieve: Unpin {
    /// How many bytes at the front of `unread`, which is in one piece, may be handed on now; it may have advanced beyond some
    /// in front of them, which are gone then. Zero: it needs more. `Err`: the peer is to be given up.
    fn pass(&mut self, unread: &mut impl Buf) -> io::Result<usize>;

    /// Whether no more is to be read, since what is there waits for something else than more bytes. Whoever holds back asks again
    /// by himself.
    fn holds_back(&self) -> bool {
        false
    }

    /// So many of them were handed on.
    fn passed(&mut self, bytes: usize);

    /// Whether the peer is to be told something for what was taken away.
    fn owes_answer(&self) -> bool {
        false
    }

    /// What it is to be told. It is asked only where a frame may begin.
    fn take_answer(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The same bytes as whoever owns them knows them, so that they are written from where they lie; `None`: they are copied.
    fn find(&self, _bytes: &[u8]) -> Option<Bytes> {
        None
    }

    /// These bytes of ours are on their way to the peer.
    fn wrote(&mut self, _bytes: &[u8]) {}
}

/// One transport, shown to `h2`.
#[derive(Debug)]
pub struct Bridge<S, F> {
    transport: SharedTransport<S>,
    sieve: F,
    /// From so many staged bytes on, writes wait, bytes.
    high_water: usize,
}

impl<S: Socket, F: Sieve> Bridge<S, F> {
    /// A bridge over that transport. `high_water`: from how many staged bytes on writes wait.
    pub fn new(transport: SharedTransport<S>, sieve: F, high_water: usize) -> Self {
        Self {
            transport,
            sieve,
            high_water,
        }
    }
}

impl<S: Socket, F: Sieve> AsyncRead for Bridge<S, F> {
    /// `Pending` leaves its note in the transport: dry (the kernel's next edge) or starved (when its turn comes).
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            transport, sieve, ..
        } = self.get_mut();
        let mut transport = transport.borrow_mut();
        loop {
            let mut unread = transport.unread();
            let before = unread.len();
            let passing = match sieve.pass(&mut unread) {
                Ok(passing) => passing.min(into.remaining()),
                Err(error) => {
                    transport.keep_unread();
                    return Poll::Ready(Err(error));
                }
            };
            let removed = before - unread.len();
            if passing > 0 {
                into.put_slice(&unread[..passing]);
                transport.consume(removed + passing);
                sieve.passed(passing);
                return Poll::Ready(Ok(()));
            }
            if removed > 0 {
                transport.consume(removed);
            }
            if sieve.holds_back() {
                transport.keep_unread();
                return Poll::Pending;
            }
            // A sieve holds back a frame head or a frame of SETTINGS at most, or all of a foreign peer's turn; the turn's budget
            // bounds them.
            let filled = transport.fill_shown();
            if !matches!(filled, Filled::Bytes(_)) {
                transport.keep_unread();
            }
            match filled {
                Filled::Bytes(_) => {}
                Filled::Dry | Filled::Starved | Filled::Full => return Poll::Pending,
                Filled::Ended => {
                    return Poll::Ready(match transport.failed() {
                        Some(kind) => Err(kind.into()),
                        None => Ok(()),
                    });
                }
            }
        }
    }
}

impl<S: Socket, F: Sieve> AsyncWrite for Bridge<S, F> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            transport,
            sieve,
            high_water,
        } = self.get_mut();
        let mut transport = transport.borrow_mut();
        if let Some(kind) = transport.failed() {
            return Poll::Ready(Err(kind.into()));
        }
        if transport.unwritten() >= *high_water {
            // Nobody but us will ever wake the connection for this: the turn asks `take_relieved` after its flush.
            transport.note_refused();
            return Poll::Pending;
        }
        let large = bytes.len() >= COPY_BYTES_MAX;
        match large.then(|| sieve.find(bytes)).flatten() {
            Some(found) => transport.write_bytes(found),
            None => transport.write(bytes),
        }
        sieve.wrote(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            transport,
            sieve,
            high_water,
        } = self.get_mut();
        if !sieve.owes_answer() {
            return Poll::Ready(Ok(()));
        }
        let mut transport = transport.borrow_mut();
        if transport.unwritten() >= *high_water {
            // Like any other write it waits for its reader: a peer that sends and never reads would have it grow for ever.
            transport.note_refused();
        } else if let Some(answer) = sieve.take_answer() {
            // `h2` flushes when it holds no byte of a frame any more: here something may stand between two of its own.
            transport.write(&answer);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.borrow_mut().shutdown_write();
        Poll::Ready(Ok(()))
    }
}
