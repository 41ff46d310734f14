//! Text to [`policy::Snapshot`](crate::policy::Snapshot): parse, don't validate.
//!
//! Owns the words of the configuration file (`config.example.toml` holds each with its default), the start without a file
//! (the same words, written by flags), and the errors of both, which point at the place and end with what to type. A key
//! that is not known is an error, so that none is ever read and ignored. This room opens no socket, resolves no name and
//! asks nobody: what it must know of the machine is an argument.

mod compile;
mod error;
mod load;
mod parse;
mod schema;
mod units;

pub use compile::{
    Compiled, CorsRule, DEFAULT_LISTEN, DemoEnds, Machine, PagesRule, Process, compile, demo,
};
pub use error::{Finding, Findings, Level, Source, Sources};
pub use load::{Flags, Loaded, is_plain_word, load};
pub use parse::parse;
pub use schema::Schema;
