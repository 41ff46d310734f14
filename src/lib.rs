//! wharf: a gRPC-Web to gRPC reverse proxy.
//!
//! One thread per CPU core, each with its own event loop, its own connections and its own way to the backends; nothing is
//! shared on the data path. `ARCHITECTURE.md` tells the whole story; this list is its order of reading, lowest room first.
//! A room imports only rooms below it, and a test (`tests/tidy.rs`) holds that.
#![forbid(unsafe_code)]

pub mod tripwire;
pub mod wire;

pub mod net;
pub mod rpc;
pub mod telemetry;

pub mod http2;
pub mod policy;

pub mod config;
pub mod downstream;
pub mod exchange;
pub mod upstream;

pub mod core;

pub mod control;

pub mod cli;
