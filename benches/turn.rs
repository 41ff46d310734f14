//! The turn of one core in memory, as a plain program: for a profiler, and to see that a case works.
//!
//! `cargo bench --bench turn` runs every case once; `-- --case NAME --calls N` one of them. It prints what was done, never how
//! long it took: what it costs is counted from outside, see `counts`.
//!
//! ```text
//! GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS valgrind --tool=callgrind --collect-atstart=no \
//!   --toggle-collect='*::machine::counted_turn*' --toggle-collect='*::machine::memory::outside::*' \
//!   target/release/deps/turn-… --case unary --calls 1000
//! ```
//!
//! The variable keeps the C library from copying long pieces with one instruction that repeats itself: Callgrind counts each
//! repetition.
#![allow(
    clippy::print_stdout,
    reason = "it is a program, and this is what it says"
)]

mod machine;

use std::process::ExitCode;

use machine::{CASES, World};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut name, mut calls) = (None, None);
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match (argument, rest.clone().next()) {
            // What cargo itself says.
            ("--bench", _) => {}
            ("--case", Some(value)) => {
                name = Some(value);
                rest.next();
            }
            ("--calls", Some(value)) if value.parse().is_ok_and(|calls: usize| calls > 0) => {
                calls = value.parse().ok();
                rest.next();
            }
            _ => {
                eprintln!("usage: turn [--case NAME] [--calls N]");
                return ExitCode::from(2);
            }
        }
    }
    let mut found = false;
    for case in CASES {
        if name.is_some_and(|name| name != case.name) {
            continue;
        }
        found = true;
        let mut world = World::new(case);
        let received = world.run(calls.unwrap_or(case.calls));
        println!(
            "{}: {} calls, {} messages, {} bytes in {} turns",
            case.name, received.calls, received.messages, received.payload, world.turns
        );
    }
    if !found {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        eprintln!("no such case; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
