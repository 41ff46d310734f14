//! The thread that decides: it starts the cores, publishes snapshots to them, resolves names, hears signals, and drains.
//!
//! It is no part of the data path: if it stood still, calls would go on. It tells people nothing itself; [`Notice`]s go to
//! `cli`, which does.

pub mod cpus;
pub mod resolve;
pub mod supervisor;

pub use supervisor::{Control, Notice, StartError};
