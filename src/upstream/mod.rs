//! The server's side: HTTP/2 connections to backends, kept in a pool, and the streams on them.
//!
//! [`Pool`] is the core's way to every backend; it hands out [`Stream`]s, which are HTTP/2 or in-process. This room owns
//! connecting, SETTINGS, stream limits, the queue for a free stream, and GOAWAY. It never knows what a call means: no
//! gRPC status is decided here, only who ended a stream and why.

pub mod cancelled;
pub mod connection;
pub mod gate;
pub mod local;
pub mod pool;
pub mod settings;
pub mod stream;

pub use connection::Connection;
pub use gate::{Gate, Opening};
pub use pool::{Attempt, Pool, Ticket};
pub use stream::Stream;
