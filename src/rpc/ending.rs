//! The words for how an answer ended.

use crate::wire::{Reason, Status};

/// How a call ended whose answer has been written to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the caller was told, its message decoded for people.
    pub status: Status,
    /// Why.
    pub reason: Reason,
}

/// What became of an answer that had to be ended by ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It was written to a regular end that carries the status.
    Ended,
    /// It stands inside a message, where an end would be read as the message's bytes. Nothing was written: abort the
    /// transport.
    Cut,
}
