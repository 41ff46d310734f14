//! `loopback`: what proxies are measured with, in one program. Owns the list of its sub-commands; each is a file of its own.
//!
//! `echo` is the gRPC backend, `floor` and `floor-echo` are proxies that do nothing but move bytes, `load` is the clients,
//! and `run` starts all of them and whatever is to be measured. Each is one thread, talks to loopback only, ends by itself,
//! and says what it has to say in lines of JSON on stdout.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod run;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "loopback", about = "What wharf is measured with.")]
enum Command {
    /// Starts proxies, backend and load, measures, and writes the report.
    Run(run::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Run(args) => run::main(args),
    }
}
