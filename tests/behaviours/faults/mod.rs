//! The catalogue of faults (`docs/faults.md`), row by row: each test is named after its row, and says what must happen and
//! what must not.

mod event_loop;
mod grpc_web;
mod http1;
mod http2;
mod metadata;
mod panics;
mod phases;
mod resources;
mod survival;
mod time;
mod upstream;
