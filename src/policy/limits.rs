//! Every limit of the data path with its default, in one place. How a request ends hangs on them, so each says what happens
//! when it is hit.

use std::time::Duration;

use crate::wire::http1::HeadLimits;

/// Progress that a slow reader must make within the stall limit, bytes.
pub const STALL_PROGRESS_BYTES: u64 = 16 << 10;

/// What may be held, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's head, bytes, request line included. Over it: 431.
    pub head_bytes_max: usize,
    /// A request line, bytes. Over it: 414.
    pub line_bytes_max: usize,
    /// Fields in a head. Over it: 431; in HTTP/2, where cookies come in crumbs, 28 more, and the stream is reset.
    pub fields_max: usize,
    /// One gRPC message, bytes, by its declared length. Over it: RESOURCE_EXHAUSTED.
    pub message_bytes_max: u32,
    /// Heads that have not come whole, of all connections of one core together, bytes; those of 4 KiB and less by themselves, as
    /// much again. Over it those go whose clients do not read their answers, then those that have been coming for longest: 503; in
    /// HTTP/2 their connections end.
    pub heads_bytes_max: usize,
    /// What all calls hold together on one core, of requests and of answers, bytes; but for what HTTP/1.1 connections have read
    /// ahead and written behind, which each bounds. Over it whoever's oldest bytes have been waiting for longest, then whoever
    /// holds most: UNAVAILABLE.
    pub buffers_bytes_max: usize,
    /// From a head's first byte to its last. Over it: 408; in HTTP/2 its connection ends.
    pub head_timeout: Duration,
    /// How long a kept connection may be silent between requests. Over it: closed.
    pub idle_timeout: Duration,
    /// How long a client may leave bytes unread without taking at least 16 KiB of them. Over it: aborted.
    pub stall_timeout: Duration,
    /// Connections of clients, for one core. Over it: accepted and closed.
    pub connections_max: usize,
}

impl Limits {
    /// Those that hold for a request's head.
    pub fn head(&self) -> HeadLimits {
        HeadLimits {
            line_bytes_max: self.line_bytes_max,
            head_bytes_max: self.head_bytes_max,
            fields_max: self.fields_max,
            ..HeadLimits::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 << 10,
            line_bytes_max: 8 << 10,
            fields_max: 100,
            message_bytes_max: 4 << 20,
            heads_bytes_max: 32 << 20,
            buffers_bytes_max: 256 << 20,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(30),
            connections_max: 10_000,
        }
    }
}
