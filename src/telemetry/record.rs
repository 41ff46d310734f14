//! The one record of a finished call. The access line reads it today; spans and metrics will read the same.
//!
//! Owns the fields, never how they look: printing is `cli::access`'s business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::wire::{Code, Party, Reason};

/// How a finished call went, from its head to its outcome.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request's head had arrived (wall clock, for people).
    pub started: SystemTime,
    /// From then to the end.
    pub elapsed: Duration,
    /// From then to the head of the backend's answer, if one came.
    pub first_byte: Option<Duration>,
    /// Who called.
    pub client: SocketAddr,
    /// `method` of HTTP, e.g. `POST`.
    pub verb: String,
    /// The path as it was asked for, without the query; `/pkg.Service/Method` for an RPC. From the network: escape it.
    pub path: String,
    /// The page's origin, if a page called. From the network: escape it.
    pub origin: Option<String>,
    /// `x-user-agent`, else `user-agent`. From the network: escape it.
    pub library: Option<String>,
    /// What the caller spoke, e.g. `grpc-web`.
    pub protocol: &'static str,
    /// Name of the route that took it.
    pub route: Option<Arc<str>>,
    /// Name of the backend.
    pub backend: Option<Arc<str>>,
    /// Address of the endpoint that answered, or was to answer.
    pub endpoint: Option<SocketAddr>,
    /// How many times a stream was opened for it.
    pub attempts: u32,
    /// The true end. `None` for a request that was no RPC.
    pub code: Option<Code>,
    /// HTTP's status as the caller saw it; `None` if no head was sent.
    pub http_status: Option<u16>,
    /// Why it ended so.
    pub reason: Reason,
    /// A refusal that is no RPC's end: one word (`cors_origin`, `method`, `content_type`, `bad_http`, …).
    pub refusal: Option<&'static str>,
    /// Who ended it.
    pub by: Party,
    /// What the caller was told, or what an operator should type; empty if there is nothing to say.
    pub message: String,
    /// The answer was cut inside a message, so that it cannot be taken for whole.
    pub aborted: bool,
    /// Messages and their bytes (envelopes included), from the client.
    pub request: Traffic,
    /// Messages and their bytes (envelopes included), to the client.
    pub response: Traffic,
}

/// Who says to be calling, as far as a record tells it. From the network: escape it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The page's origin, if a page called.
    pub origin: Option<Box<str>>,
    /// `x-user-agent`, else `user-agent`.
    pub library: Option<Box<str>>,
}

impl Caller {
    /// As these fields of a request say, in copies.
    pub fn of(fields: &HeaderMap) -> Self {
        let text = |name: &str| {
            let value = fields.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into())
        };
        Self {
            origin: text("origin"),
            library: text("x-user-agent").or_else(|| text("user-agent")),
        }
    }
}

/// How much went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whole messages.
    pub messages: u64,
    /// Bytes of messages, five-byte prefixes included, before text mode.
    pub bytes: u64,
}
