//! What is counted and remembered: data, no IO and no clock.

pub mod record;

pub use record::Record;
