//! One call, from its request's head to its [`Outcome`].
//!
//! An [`Exchange`] owns two streams, one codec each way, and the decision how the call ends. It is generic over its streams:
//! it cannot see `h2`, sockets or connections, so that the hardest logic of the product is testable with two queues.

pub mod call;
mod head;
pub mod outcome;

pub use call::{Exchange, Terms};
pub use outcome::{Outcome, Retry, status_of};
