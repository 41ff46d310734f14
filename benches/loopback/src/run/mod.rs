//! The run: starts everything, measures in rounds, reports.

use std::process::ExitCode;

/// What `loopback run` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs, and says with the exit code how it went.
pub(crate) fn main(args: Args) -> ExitCode {
    let Args {} = args;
    ExitCode::FAILURE
}
