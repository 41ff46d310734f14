//! What is counted and remembered, and what is told of a panic: data, no IO and no clock.

pub mod panics;
pub mod record;

pub use record::Record;
