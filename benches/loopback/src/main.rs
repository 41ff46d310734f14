//! `loopback`: what proxies are measured with, in one program. Owns the list of its sub-commands; each is a file of its own.
//!
//! `echo` is the gRPC backend, `floor` and `floor-echo` are proxies that do nothing but move bytes, `load` is the clients,
//! and `run` starts all of them and whatever is to be measured. Each is one thread, talks to loopback only, ends by itself,
//! and says what it has to say in lines of JSON on stdout.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod answer;
mod call;
mod clock;
mod echo;
mod floor;
mod floor_echo;
mod frames;
mod histogram;
mod load;
mod run;
mod say;
mod socket;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "loopback", about = "What wharf is measured with.")]
enum Command {
    /// A gRPC backend that costs next to nothing.
    Echo(echo::Args),
    /// A proxy that only moves bytes.
    Floor(floor::Args),
    /// What stands behind a floor.
    FloorEcho(floor_echo::Args),
    /// gRPC-Web and gRPC clients.
    Load(load::Args),
    /// Starts proxies, backend and load, measures, and writes the report.
    Run(run::Args),
}

/// A wrong word on the command line.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            // Its own code would be 2, and that is a goal which was not measured.
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match command {
        Command::Echo(args) => echo::main(args),
        Command::Floor(args) => floor::main(args),
        Command::FloorEcho(args) => floor_echo::main(args),
        Command::Load(args) => load::main(args),
        Command::Run(args) => run::main(args),
    }
}
