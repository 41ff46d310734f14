//! The client's side: connections, and the caller's end of each call.
//!
//! An HTTP/1.1 connection serves one call at a time, so its engine *is* the stream: the core lends it to the exchange and gets
//! it back when the call has ended. A second request cannot be parsed early, because the parser is not there. An HTTP/2 connection
//! serves many: it gives out a stream for each, and takes it back when the call has ended and its last bytes wait for the reader.
//! This room never knows routes, dialects or backends.

mod bounds;
pub mod budget;
pub mod http1;
pub mod http2;
mod lingering;
pub mod refused;
pub mod stream;

pub use bounds::HIGH_WATER;
pub use budget::{Budget, Share};
pub use http1::{Http1, Incoming};
pub use http2::{Arrival, Http2, Http2Stream};
pub use refused::Refused;
pub use stream::Stream;
