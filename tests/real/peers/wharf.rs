//! The proxy under test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::program::{Program, START};

/// A running wharf.
#[derive(Debug)]
pub struct Wharf {
    pub program: Program,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Wharf {
    /// In front of that backend, on a free port.
    pub fn before(backend: SocketAddr) -> Self {
        Self::start(&["--backend", &backend.to_string()])
    }

    /// With those flags, on a free port.
    pub fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(flags).args(["--listen", "127.0.0.1:0"]);
        let program = Program::start("wharf", &mut command);
        let address = program.wait_line(START, |line| {
            let (_, rest) = line.split_once("http://127.0.0.1:")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("127.0.0.1:{digits}").parse().ok()
        });
        Self { program, address }
    }

    /// Its address as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for the line of a finished call that has all of these in it.
    pub fn wait_call_line(&self, needles: &[&str]) -> String {
        self.program.wait_line(Duration::from_secs(10), |line| {
            needles
                .iter()
                .all(|needle| line.contains(needle))
                .then(|| line.to_owned())
        })
    }
}

/// The program.
pub fn binary() -> PathBuf {
    std::env::var_os("WHARF_BIN").map_or_else(|| env!("CARGO_BIN_EXE_wharf").into(), PathBuf::from)
}

/// Where `scripts/tools` puts what it installs.
pub fn tools() -> PathBuf {
    std::env::var_os("WHARF_TOOLS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/wharf-tools"),
        PathBuf::from,
    )
}

/// A loopback address where nothing listens: it was free a moment ago.
pub fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}
