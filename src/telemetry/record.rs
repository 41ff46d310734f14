//! The one record of a finished call. The access line reads it today; spans and metrics will read the same.
//!
//! Owns the fields, never how they look: printing is `cli::access`'s business.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::wire::{Code, Party, Reason};

/// What a text may take and still be written on again, bytes: more than nearly all paths and names of libraries have.
const TEXT_KEPT_MAX: usize = 256;

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

impl Record {
    /// Of nothing yet.
    pub const fn blank() -> Self {
        Self {
            started: SystemTime::UNIX_EPOCH,
            elapsed: Duration::ZERO,
            first_byte: None,
            client: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            verb: String::new(),
            path: String::new(),
            origin: None,
            library: None,
            protocol: "http",
            route: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            code: None,
            http_status: None,
            reason: Reason::Ok,
            refusal: None,
            by: Party::Proxy,
            message: String::new(),
            aborted: false,
            request: Traffic::NONE,
            response: Traffic::NONE,
        }
    }

    /// Lets go of texts that are longer than most, before this record waits to be written on again.
    pub fn trim(&mut self) {
        let optional = [&mut self.origin, &mut self.library];
        let texts = [&mut self.verb, &mut self.path, &mut self.message];
        for text in texts.into_iter().chain(optional.into_iter().flatten()) {
            if text.capacity() > TEXT_KEPT_MAX {
                *text = String::new();
            }
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

impl Traffic {
    const NONE: Self = Self {
        messages: 0,
        bytes: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_to_be_written_on_again_keeps_no_long_text() {
        let long = "x".repeat(TEXT_KEPT_MAX + 1);
        let mut record = Record {
            verb: long.clone(),
            path: long.clone(),
            origin: Some(long.clone()),
            library: Some("short".to_owned()),
            message: long,
            ..Record::blank()
        };
        record.trim();
        let origin = record.origin.expect("it is there");
        for text in [&record.verb, &record.path, &origin, &record.message] {
            assert_eq!(text.capacity(), 0);
        }
        assert_eq!(record.library.as_deref(), Some("short"));
    }
}
