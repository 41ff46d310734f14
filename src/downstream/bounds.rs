//! What both engines of a client's connection keep to: how much may wait, and how long a request is read whose answer is complete.

use std::time::Duration;

/// From so many staged bytes on, what is to be said next waits, bytes.
pub const HIGH_WATER: usize = 64 << 10;
/// How much of what a client sends is read ahead of its lane, bytes.
pub(super) const READ_AHEAD: usize = 64 << 10;
/// What is left of a request after an early answer is read and thrown away so far, bytes, and for so long: who stops at the answer has
/// heard it by then. Beyond it the client is sent away: its connection closes (HTTP/1.1), or its stream is reset (HTTP/2).
pub(super) const DRAIN_BYTES_MAX: u32 = 1 << 20;
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(1);
