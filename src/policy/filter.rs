//! Filters: pure functions on heads. Bodies never pass through one.
//!
//! A new filter is one file below this room and one line in `config::compile`. A filter that is off is absent from the
//! route, so that it costs nothing.

pub mod cors;
pub mod forwarded;

use std::net::SocketAddr;

use crate::wire::{RequestHead, ResponseHead};

/// Who is calling, as far as the connection knows.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The other end of the socket.
    pub address: SocketAddr,
    /// Where it came in: its index in [`Snapshot::listeners`](crate::policy::Snapshot::listeners).
    pub listener: usize,
    /// A number that this request has alone, among all that were ever asked anywhere.
    pub number: u128,
}

/// What a filter wants done with a request.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Answer here, with this head and this short content, and go no further.
    Respond(Box<LocalAnswer>),
}

/// An answer that needs no backend.
#[derive(Debug)]
pub struct LocalAnswer {
    /// Its head, complete but for `content-length` and `date`.
    pub head: ResponseHead,
    /// Its content; often empty.
    pub body: bytes::Bytes,
    /// One word for the log if this is a refusal (`cors_origin`, …), with the sentence that says what to type.
    pub refusal: Option<(&'static str, String)>,
}

/// A pure function on heads, kept in a route.
pub trait Filter: Send + Sync + std::fmt::Debug {
    /// Looks at a request, may change it, may answer it.
    fn request(&self, head: &mut RequestHead, peer: &Peer) -> Verdict;

    /// Looks at the head of the answer to `request`, may change it. It sees every answer, also our own.
    fn response(&self, request: &RequestHead, head: &mut ResponseHead);
}
