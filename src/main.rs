//! The binary: everything that it does is `wharf::cli`'s.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf::cli::run::run(std::env::args_os())
}
