//! One core: the loop that lends engines to exchanges, and everything that one thread owns.
//!
//! This is the only place where an exchange gets its concrete streams. A core shares nothing: it is told by [`Command`]s and
//! tells by [`Report`]s.

pub mod admit;
pub mod contain;
pub mod invariants;
pub mod messages;
pub mod turn;

pub use invariants::Reached;
pub use messages::{Command, Report};
pub use turn::{Core, Flow};
