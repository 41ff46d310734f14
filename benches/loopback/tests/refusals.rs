//! What `loopback run` says in the place of a figure: a port that is taken, a peer that is missing, another run, a wrong word.
//! And what a run leaves that ends early. Nothing here takes the time of a measurement.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder of one test's own, also for the lock: a real run beside the tests must not disturb them.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loopback-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// `true` stands for wharf: it is a program that is there, and none of these runs comes to start it.
    fn run(&self, more: &[&str]) -> Output {
        self.run_as("smoke", more)
    }

    fn run_as(&self, profile: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_loopback"))
            .args(["run", "--profile", profile, "--wharf", "/bin/true", "--out"])
            .arg(self.0.join("out"))
            .args(["--tools", "/nowhere"])
            .args(more)
            .env("TMPDIR", &self.0)
            .output()
            .expect("it runs")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn complaint(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "no figure: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One of 64 ports, held: the others need not be free for the message.
fn held() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_measured() {
    let place = Place::new("port");
    let (_listener, port) = held();
    let output = place.run(&["--port", &port.to_string()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let complaint = complaint(&output);
    assert!(
        complaint.contains(&format!("port {port} is taken")),
        "{complaint}"
    );
    assert!(complaint.contains("--port"), "{complaint}");
}

#[test]
fn a_peer_that_is_missing_is_named_with_what_installs_it_and_the_run_goes_on() {
    let place = Place::new("peer");
    let (_listener, port) = held();
    // The run goes on: what ends it is the port.
    let output = place.run(&["--proxies", "envoy,pingora", "--port", &port.to_string()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let complaint = complaint(&output);
    assert!(complaint.contains("envoy is missing"), "{complaint}");
    assert!(complaint.contains("`scripts/tools envoy`"), "{complaint}");
    assert!(complaint.contains("pingora is missing"), "{complaint}");
    assert!(complaint.contains("`scripts/tools peers`"), "{complaint}");
    assert!(
        complaint.contains(&format!("port {port} is taken")),
        "{complaint}"
    );
}

/// The program that stands for wharf ends at once, which is a cell without a figure; when it is started again the run is asked
/// to end, as with Ctrl-C.
#[test]
fn a_run_that_ends_early_leaves_what_it_has_and_says_so() {
    let place = Place::new("early");
    let wharf = place.0.join("wharf");
    let script = "#!/bin/sh\n[ \"$1\" = run ] || exit 0\n\
                  [ -e \"$0.once\" ] && kill -TERM $PPID\n: >\"$0.once\"\n";
    fs::write(&wharf, script).expect("a file");
    fs::set_permissions(&wharf, fs::Permissions::from_mode(0o755)).expect("its owner");
    let output = Command::new(env!("CARGO_BIN_EXE_loopback"))
        .args(["run", "--profile", "smoke", "--scenarios", "memory"])
        .args(["--proxies", "wharf", "--rounds", "3", "--wharf"])
        .arg(&wharf)
        .arg("--out")
        .arg(place.0.join("out"))
        .env("TMPDIR", &place.0)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = fs::read_to_string(place.0.join("out/report.md")).expect("a report");
    assert!(report.contains("ended early"), "{report}");
    assert!(report.contains("interrupted"), "{report}");
    assert!(report.contains("ended before it listened"), "{report}");
}

#[test]
fn without_wharf_there_is_nothing_to_measure() {
    let place = Place::new("wharf");
    let output = Command::new(env!("CARGO_BIN_EXE_loopback"))
        .args([
            "run",
            "--profile",
            "smoke",
            "--wharf",
            "/nowhere/wharf",
            "--out",
        ])
        .arg(place.0.join("out"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(complaint(&output).contains("cargo build --release"));
}

#[test]
fn two_runs_at_once_are_one_too_many() {
    let place = Place::new("lock");
    let lock = File::create(place.0.join("wharf-loopback.lock")).expect("a file");
    lock.lock().expect("nobody else");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("another run is measuring"));
}

#[test]
fn a_word_that_nobody_knows_is_told_what_there_is() {
    let place = Place::new("word");
    let output = place.run(&["--scenarios", "unary-17"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(complaint(&output).contains("unary-16-c64"));
    let output = place.run(&["--proxies", "traefik"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(complaint(&output).contains("pingora"));
}

#[test]
fn a_goal_that_means_nothing_ends_the_run_before_it_begins() {
    let place = Place::new("goals");
    let goals = place.0.join("goals.toml");
    let text =
        "[[goal]]\nname = \"g\"\nscenario = \"unary-16-c64\"\nmetric = \"cpu_ms\"\nat_most = 1.0\n";
    fs::write(&goals, text).expect("a file");
    let output = place.run_as("full", &["--goals", &goals.display().to_string()]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(complaint(&output).contains("cpu_ms"));
}
