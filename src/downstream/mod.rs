//! The client's side: connections, and the caller's end of each call.
//!
//! An HTTP/1.1 connection serves one call at a time, so its engine *is* the stream: the core lends it to the exchange and gets
//! it back when the call has ended. A second request cannot be parsed early, because the parser is not there. This room never
//! knows routes, dialects or backends.

pub mod http1;
pub mod stream;

pub use http1::{Http1, Incoming, Refused};
pub use stream::Stream;
