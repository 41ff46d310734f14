//! etcd: grpc-go in production clothes, with a stream that never ends.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::program::{Program, START};
use crate::client::Connection;

/// One member, alone.
#[derive(Debug)]
pub struct Etcd {
    pub address: SocketAddr,
    folder: PathBuf,
    /// Dropped before the folder goes.
    program: Option<Program>,
}

impl Etcd {
    /// On free ports, with its data in a folder that goes with it.
    pub fn start() -> Self {
        // A port that was free a moment ago may be taken now: then two others are tried.
        (0..10)
            .find_map(|_| Self::try_start())
            .expect("etcd starts: run scripts/tools")
    }

    fn try_start() -> Option<Self> {
        let (client, peer) = free_ports();
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("etcd-{}", client.port()));
        let client_url = format!("http://{client}");
        let peer_url = format!("http://{peer}");
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(&folder)
            .args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--logger", "zap", "--log-outputs", "stderr"]);
        let program = Program::start("etcd", &mut command);
        let this = Self {
            address: client,
            folder,
            program: Some(program),
        };
        let program = this.program.as_ref()?;
        program.find_line(START, |line| {
            line.contains("serving client traffic insecurely")
                .then_some(())
        })?;
        Some(this)
    }

    /// How many watchers etcd says it has.
    pub fn watchers(&self) -> u32 {
        let mut connection = Connection::open(self.address);
        connection.send(b"GET /metrics HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\n\r\n");
        let (_, body) = connection.plain();
        String::from_utf8_lossy(&body)
            .lines()
            .find_map(|line| {
                line.strip_prefix("etcd_debugging_mvcc_watcher_total ")?
                    .parse()
                    .ok()
            })
            .expect("etcd counts its watchers")
    }

    /// Waits until it has so many watchers; tells how long that took.
    pub fn wait_watchers(&self, count: u32) -> Duration {
        let begun = Instant::now();
        while self.watchers() != count {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "etcd has {} watchers",
                self.watchers()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.program = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_ports() -> (SocketAddr, SocketAddr) {
    // Both are held while the other is chosen, or they might be one port.
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (bind(), bind());
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
    (address(&one), address(&other))
}
