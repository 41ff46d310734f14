//! Backends that live inside the process: the demo, its page, later health and the admin page.
//!
//! Owns the two traits that such a backend implements; `upstream::local` turns them into a stream like any other, so that
//! every dialect can call them without a line of code of their own.

use std::fmt::Debug;
use std::task::Poll;
use std::time::Instant;

use crate::wire::{OutgoingHead, Part, Reset};

/// A backend that is a function. Shared by all cores, so it keeps no state of its own.
pub trait Callee: Send + Sync + Debug {
    /// Begins an answer. For an RPC the head and the parts are plain gRPC over HTTP/2's.
    fn call(&self, head: &OutgoingHead) -> Box<dyn Answer>;
}

/// One call in progress. Lives on one core.
pub trait Answer {
    /// The next part of the request: `Data` or `End`, never a head.
    fn handle_part(&mut self, part: Part);

    /// The next part of the answer. `Pending`: it waits for a part of the request or for [`Answer::wake_at`].
    fn poll_part(&mut self, now: Instant) -> Poll<Result<Part, Reset>>;

    /// When it wants to be polled again though no part has come.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
