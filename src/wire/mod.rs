//! Bytes to [`Part`]s and back: what stands on the wire, and nothing else.
//!
//! This room has no clock, no socket, no thread and no lock. It parses and prints HTTP/1.1 heads and bodies, the heads
//! of HTTP/2's frames, gRPC's five-byte envelopes, gRPC-Web's text mode, metadata, timeouts and statuses, each as a small state machine that may be
//! fed at any split point. Nothing that it reads can panic, and nothing grows without a named limit (invariant 10).
//!
//! What it makes once, and from then on only reads, is base64's engine: the processor is asked what it can do.

pub mod base64;
pub mod envelope;
pub mod fields;
pub mod http1;
pub mod http2;
pub mod metadata;
pub mod part;
pub mod pieces;
pub mod proto;
pub mod reset;
pub mod status;
pub mod timeout;
pub mod vouched;

pub use fields::Fields;
pub use part::{Dial, OutgoingHead, Part, RequestHead, ResponseHead, Sink, Source};
pub use pieces::Pieces;
pub use reset::{Party, Reason, Reset};
pub use status::{Code, Status};
