//! What both ends need to use streams of `h2` well.
//!
//! DATA is taken out of `h2` as soon as it is there, and gathered: `h2` pays 336 bytes for every frame that it keeps, and never
//! gives that back. Its window goes back to the peer only when somebody has taken it. And nothing is sent without capacity, for
//! `h2` would queue it without limit; but for the rest of a message that is here to its end, where a caller asks for that. This room owns no connection and no handle of one, and never knows who its peer is.

mod entering;
mod gathered;
mod loans;
mod passing;
mod unsent;

pub use entering::{Entering, Fate, LARGE_BYTES, Met, TOGETHER_MAX};
pub use gathered::Gathered;
pub use loans::{Loans, PIECE_BYTES_MIN};
pub use passing::{Gone, Passing};
pub use unsent::{HandedOn, SEND_BUFFER_BYTES, Unsent};
