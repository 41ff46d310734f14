//! The middle language: what a call is made of while it crosses the proxy, and the three traits that carry it.
//!
//! Owns the words `Part`, `RequestHead`, `OutgoingHead`, `ResponseHead`, and the traits `Source`, `Sink` and `Dial`. It never
//! knows which protocol a part came from or goes to: that is the business of the two ends (`downstream`, `upstream`).

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, StatusCode};

use crate::wire::fields::Fields;
use crate::wire::reset::Reset;

/// One piece of a message on its way: RFC 9110's head section, a piece of its content, or its end.
///
/// A well-formed answer is one `Head`, any number of `Data`, one `End`. A request's head is not a part: it is a decision,
/// taken before the exchange exists, and travels through [`Dial`].
#[derive(Debug)]
pub enum Part {
    /// The head of an answer.
    Head(Box<ResponseHead>),
    /// Content. Its borders mean nothing: one `Data` may hold half an envelope or ten.
    Data(Bytes),
    /// The clean end, with the trailer section if there was one. A stream that was cut never yields this.
    End(Option<Box<HeaderMap>>),
}

/// What a client asked for, in the same words for every version of HTTP.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The verb.
    pub method: Method,
    /// The target's path, with the query if there was one. Not decoded and not normalised.
    pub path: PathAndQuery,
    /// The host that was asked, with the port if there was one. `None` only where the protocol allows it.
    pub authority: Option<Authority>,
    /// All fields but `host`, names in lower case.
    pub headers: Fields,
}

/// What a backend is asked, in the same words for every version of HTTP.
#[derive(Clone, Debug)]
pub struct OutgoingHead {
    /// The verb.
    pub method: Method,
    /// The target's path, with the query if it is to see one.
    pub path: PathAndQuery,
    /// The host that was asked, with the port if there was one. `None`: the endpoint's own name.
    pub authority: Option<Authority>,
    /// All fields.
    pub headers: HeaderMap,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// HTTP's status.
    pub status: StatusCode,
    /// All fields. A `content-length` here tells an HTTP/1.1 sink to frame by length.
    pub headers: HeaderMap,
    /// The stream ends with this head (HTTP/2: END_STREAM on HEADERS). An `End(None)` follows all the same.
    pub end: bool,
}

impl ResponseHead {
    /// A head with that status, no fields, and content to follow.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            end: false,
        }
    }
}

/// Where parts come from: the reading half of a stream.
pub trait Source {
    /// Takes in what has arrived, whether or not anybody has room for it yet. First thing in every step of an exchange; what
    /// it takes in stays bounded by the peer's flow-control window.
    fn sense(&mut self, _now: Instant, _cx: &mut Context<'_>) {}

    /// The next part, or why there will be none. Errors and the end are sticky: asked again, it says the same.
    ///
    /// `Pending` has left a note for `cx`'s waker, or waits for the kernel's next event (invariant 1).
    fn poll_part(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<Part, Reset>>;

    /// The sink has taken so many bytes of what was handed out: their flow-control window may go back to the peer.
    fn taken(&mut self, bytes: usize);

    /// When to be polled again though nothing has happened. Ends that wait by the clock have such a time: one in this process,
    /// and a client that was told to go on.
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

/// Where parts go: the writing half of a stream.
pub trait Sink {
    /// How many bytes of `Data` may be sent now; never zero. It is the only door to [`Sink::send`]: room first (invariant 3).
    /// `Err`: the reader wants no more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reset>>;

    /// Hands a part over. One head, then data, then at most one end (invariant 4). A part that is larger than the room is
    /// taken whole: the room governs what is asked of the source next.
    fn send(&mut self, part: Part);

    /// The step is over: what was sent in it may be put together and go its way. Last thing in every step.
    fn settle(&mut self, _cx: &mut Context<'_>) {}

    /// No further request will be taken after this one: the peer's framing can no longer be trusted.
    fn condemn(&mut self) {}

    /// What was sent and has not left is taken back, and nothing more follows: it is not known how much of it is right. Where
    /// whoever lends the sink sees to that, nothing is to be done. Never panics.
    fn sever(&mut self) {}

    /// Whether the peer has left. Asked on every step of an exchange, whatever its lanes are doing.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Reset>;
}

/// The way to a backend: how *Connecting* gets its stream without knowing pools, sockets or HTTP/2.
pub trait Dial {
    /// The upstream end of a call.
    type Stream: Source + Sink;
    /// A place in the queue of one backend, and the memory of which endpoints were tried.
    type Ticket;

    /// A stream on which the head has been sent, as soon as an endpoint has room for one. `head` makes it, and is asked only
    /// then: most calls need theirs once, and those that wait need not hold it.
    fn poll_open(
        &mut self,
        ticket: &mut Self::Ticket,
        head: impl Fn() -> OutgoingHead,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Stream, Reset>>;

    /// The stream that was opened last was refused: another endpoint comes first, if there is one.
    fn note_refused(&mut self, ticket: &mut Self::Ticket);

    /// When whoever waits with that ticket must ask again though nothing has happened.
    fn wake_at(&self, _ticket: &Self::Ticket) -> Option<Instant> {
        None
    }
}
