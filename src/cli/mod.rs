//! What a person types and reads: flags, banner, one line per finished call, messages that end with what to type.
//!
//! Everything that came from the network and is shown passes [`escape()`] first, so that no stranger writes to a terminal.

pub mod access;
pub mod args;
pub mod banner;
pub mod demo;
pub mod escape;
pub mod log;
pub mod machine;
pub mod port;
pub mod prepare;
pub(crate) mod printer;
pub mod run;
pub mod style;

pub use access::line;
pub use args::{Command, DemoArgs, Exit, RunArgs, Stop};
pub use banner::{Banner, Probe, Row};
pub use escape::escape;
pub use port::bind_error;
pub use prepare::{Prepared, prepare};
pub use style::Color;
