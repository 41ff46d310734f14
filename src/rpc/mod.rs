//! Dialects: what a caller speaks, and how it is turned into plain gRPC and back, part by part.
//!
//! [`classify()`] names the dialect of a request or refuses it; [`RequestCodec`] and [`ResponseCodec`] translate, one call and
//! one direction each. This room has no clock and no socket. A codec holds a few bytes and never waits for a whole message,
//! but where it must unpack one that the caller could not read.

pub mod classify;
pub mod codec;
pub mod dialect;
pub mod ending;
pub mod trailer_frame;

mod answer;
mod gate;
mod grpc;
mod grpc_web;
mod grpc_web_text;
mod inflate;
mod media_type;
mod plain;

pub use classify::{NO_WEBSOCKET, Refusal, asks_for_websocket, classify, is_rpc_path};
pub use codec::{RequestCodec, ResponseCodec};
pub use dialect::{Dialect, Form};
pub use ending::{Closing, Ending};
