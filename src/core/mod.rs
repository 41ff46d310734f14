//! One core: the loop that lends engines to exchanges, and everything that one thread owns.
//!
//! This is the only place where an exchange gets its concrete streams. A core shares nothing once a client is its own: it is
//! told by [`Command`]s and tells by [`Report`]s. Whose a client becomes, the [`Doors`] say.

mod accept;
pub mod admit;
mod client;
pub mod contain;
pub mod doors;
mod drain;
mod heads;
pub mod invariants;
pub mod messages;
mod records;
mod relief;
mod serve;
pub mod turn;

pub use doors::Doors;
pub use invariants::Reached;
pub use messages::{Command, Report};
pub use turn::{Core, Flow};
