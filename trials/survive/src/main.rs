//! Do a proxy's connections to its backend survive what HTTP/2 allows, and do the other calls on them?
//!
//! Drives any gRPC-Web proxy from both sides: it is the clients, over HTTP/1.1, and the backend, frame by frame. Late frames for
//! cancelled calls, empty frames, GOAWAYs, refusals and resets are ordinary life; none of it may cost a call that has nothing
//! to do with it. Start the proxy first, with `127.0.0.1:BACKEND` behind it, and let it have made no call yet:
//!
//! ```text
//! survive --proxy HOST:PORT --backend PORT [--pid PID] [--name NAME] [--only SCENARIO]… [--rounds N]
//! ```
//!
//! One line of JSON for each scenario and round goes to stdout, the same for people to stderr. It ends with 0 if nothing was amiss.

mod backend;
mod client;
mod report;
mod scenarios;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use crate::backend::Backend;
use crate::scenarios::{SCENARIOS, Trial};

const USAGE: &str = "usage: survive --proxy HOST:PORT --backend PORT [--pid PID] [--name NAME] [--only SCENARIO]... [--rounds N]";

struct Options {
    proxy: SocketAddr,
    backend: u16,
    pid: Option<u32>,
    name: String,
    only: Vec<String>,
    rounds: u32,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}\nscenarios:");
        for scenario in SCENARIOS {
            eprintln!("  {:<14} {}", scenario.name, scenario.about);
        }
        return ExitCode::from(2);
    };
    let backend = match Backend::listen(options.backend) {
        Ok(backend) => backend,
        Err(error) => {
            eprintln!(
                "survive: cannot listen on port {}: {error}",
                options.backend
            );
            return ExitCode::from(2);
        }
    };
    let mut amiss = false;
    for scenario in SCENARIOS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == scenario.name) {
            continue;
        }
        for _ in 0..options.rounds {
            let trial = Trial::new(options.proxy, backend.clone(), options.pid);
            let report = trial.run(scenario, &options.name);
            println!("{}", report.json());
            eprintln!("{report}");
            amiss |= !report.is_clean();
        }
    }
    ExitCode::from(u8::from(amiss))
}

fn options() -> Option<Options> {
    let mut arguments = std::env::args().skip(1);
    let (mut proxy, mut backend, mut pid) = (None, None, None);
    let (mut name, mut only, mut rounds) = ("proxy".to_owned(), Vec::new(), 1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match flag.as_str() {
            "--proxy" => proxy = value.to_socket_addrs().ok()?.next(),
            "--backend" => backend = Some(value.parse().ok()?),
            "--pid" => pid = Some(value.parse().ok()?),
            "--name" => name = value,
            "--rounds" => rounds = value.parse().ok()?,
            "--only" if SCENARIOS.iter().any(|known| known.name == value) => only.push(value),
            _ => return None,
        }
    }
    Some(Options {
        proxy: proxy?,
        backend: backend?,
        pid,
        name,
        only,
        rounds,
    })
}
