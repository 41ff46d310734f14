//! What `wharf demo` answers with: a gRPC service and a page that calls it, each a backend inside the process.
//!
//! Owns what the two say, never how they are reached: to the proxy they are backends like any other.

mod echo;
mod page;

pub use echo::Echo;
pub use page::Page;
