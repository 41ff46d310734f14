//! The life of the process: read what was typed, start, say the banner, then a line for each finished call until it stops.
//!
//! This thread only prints. Where nobody reads what it prints, lines are dropped and counted; calls go on.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::cli::access;
use crate::cli::args::{Exit, Stop};
use crate::cli::banner::{self, Banner, Probe, Row, backend_line};
use crate::cli::demo::{Echo, Page};
use crate::cli::log::Log;
use crate::cli::port::bind_error;
use crate::cli::prepare::{Prepared, prepare};
use crate::cli::style::Color;
use crate::config::{CorsRule, DemoEnds};
use crate::control::{Control, Notice, StartError};
use crate::policy::{Remedy, Target};
use crate::upstream::{Attempt, Opening};
use crate::wire::Reason;

/// How long the banner waits for the backends to answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Does what the command line says, and returns when it is done.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let prepared = match prepare(args, demo_ends) {
        Ok(prepared) => prepared,
        Err(Stop { exit, text }) => {
            let said = match exit {
                Exit::Fine => io::stdout().write_all(text.as_bytes()),
                _ => io::stderr().write_all(text.as_bytes()),
            };
            return if said.is_ok() {
                exit.into()
            } else {
                Exit::Failed.into()
            };
        }
    };
    let log = Log::start(&prepared.log_filter);
    let _ = io::stderr().write_all(prepared.warnings.as_bytes());
    let exit = serve(prepared);
    log.flush();
    exit.into()
}

fn demo_ends() -> DemoEnds {
    DemoEnds {
        service: crate::wire::proto::demo::SERVICE.to_owned(),
        echo: Arc::new(Echo),
        page: Arc::new(Page),
    }
}

fn serve(prepared: Prepared) -> Exit {
    let Prepared { compiled, demo, .. } = prepared;
    let cors = compiled.cors.clone();
    let remedy = compiled.remedy;
    let endpoints: Vec<Arc<str>> = compiled
        .snapshot
        .backends
        .iter()
        .filter_map(|backend| match &backend.target {
            Target::Endpoints(endpoints) => Some(endpoints),
            Target::Local(_) => None,
        })
        .flatten()
        .map(|endpoint| Arc::clone(&endpoint.name))
        .collect();
    let control = match Control::start(compiled) {
        Ok(control) => control,
        Err(error) => {
            let (text, exit) = match &error {
                StartError::InUse(address) => (
                    bind_error(*address, &io::ErrorKind::AddrInUse.into(), remedy),
                    Exit::CannotBind,
                ),
                StartError::Listen(address, error) => {
                    (bind_error(*address, error, remedy), Exit::CannotBind)
                }
                StartError::Machine(..) => (format!("error: {error}\n"), Exit::Failed),
            };
            let _ = io::stderr().write_all(text.as_bytes());
            return exit;
        }
    };
    let listeners: Vec<SocketAddr> = control
        .listening
        .iter()
        .map(|(_, address)| *address)
        .collect();
    let mut printer = Printer {
        out: io::stdout(),
        color: Color::of_stdout(),
        known: HashMap::new(),
        remedy,
    };
    let early = printer.wait_for_backends(&control.notices, endpoints.len());
    printer.banner(&listeners, &endpoints, &cors, demo);
    let mut exit = Exit::Fine;
    for notice in early.into_iter().chain(control.notices.iter()) {
        if let Notice::Stopped {
            dropped, forced, ..
        } = notice
        {
            if dropped > 0 {
                log::warn!("{dropped} lines were dropped: whoever reads them is too slow");
            }
            if forced {
                exit = Exit::Failed;
            }
            break;
        }
        printer.notice(&notice);
    }
    control.join();
    exit
}

struct Printer {
    out: io::Stdout,
    color: Color,
    /// What was said last of each endpoint.
    known: HashMap<Arc<str>, Probe>,
    remedy: Remedy,
}

impl Printer {
    /// Gathers what the first attempts say; other notices are kept for later.
    fn wait_for_backends(&mut self, notices: &Receiver<Notice>, count: usize) -> Vec<Notice> {
        // clock: this thread only prints, and waits for what it is to print.
        let until = Instant::now() + PROBE_TIMEOUT;
        let mut early = Vec::new();
        while self.known.len() < count {
            match notices.recv_deadline(until) {
                Ok(Notice::Attempt(attempt)) => {
                    let probe = probe_of(&attempt);
                    // That a name has no address is known already, and says more than "no attempt was possible".
                    if attempt.failure != Some(Reason::BackendDns) {
                        self.known.insert(attempt.endpoint, probe);
                    }
                }
                Ok(Notice::Unresolved { name, error }) => {
                    self.known.insert(name, Probe::NoAddress(error));
                }
                Ok(other) => early.push(other),
                Err(_) => break,
            }
        }
        early
    }

    fn banner(
        &mut self,
        listeners: &[SocketAddr],
        endpoints: &[Arc<str>],
        cors: &CorsRule,
        demo: bool,
    ) {
        let mut rows = Vec::new();
        for name in endpoints {
            let silent = Probe::Timeout(PROBE_TIMEOUT);
            let probe = self.known.entry(Arc::clone(name)).or_insert(silent).clone();
            rows.push(Row {
                name: name.to_string(),
                probe,
            });
        }
        if demo {
            let name = crate::wire::proto::demo::SERVICE.to_owned();
            rows.push(Row {
                name,
                probe: Probe::Local,
            });
        }
        let version = env!("CARGO_PKG_VERSION");
        let banner = Banner {
            version,
            listeners,
            backends: &rows,
            cors,
            remedy: self.remedy,
            demo,
        };
        let text = banner::render(&banner, self.color);
        self.print(&text);
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Record(record) => {
                let line = access::line(record, self.color);
                self.print(&format!("{line}\n"));
            }
            Notice::Attempt(attempt) if attempt.failure != Some(Reason::BackendDns) => {
                self.backend(&attempt.endpoint, probe_of(attempt));
            }
            Notice::Unresolved { name, error } => {
                self.backend(name, Probe::NoAddress(error.clone()));
            }
            Notice::Draining { limit } => {
                let seconds = limit.as_secs();
                self.print(&format!(
                    "stopping: open calls may run for {seconds} s more; a second Ctrl-C stops at once\n"
                ));
            }
            Notice::Attempt(_) | Notice::Stopped { .. } => {}
        }
    }

    /// Says how an endpoint stands, if that has changed.
    fn backend(&mut self, name: &Arc<str>, probe: Probe) {
        let before = self.known.insert(Arc::clone(name), probe.clone());
        let changed = before
            .is_none_or(|before| std::mem::discriminant(&before) != std::mem::discriminant(&probe));
        if changed {
            let line = backend_line(
                &Row {
                    name: name.to_string(),
                    probe,
                },
                self.remedy,
                self.color,
            );
            self.print(&line);
        }
    }

    fn print(&mut self, text: &str) {
        // Where nobody reads any more there is nobody to tell; calls go on.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

fn probe_of(attempt: &Attempt) -> Probe {
    match (attempt.failure, &attempt.opening) {
        (None, _) => match attempt.tried.first() {
            Some(&address) => Probe::Answers {
                address,
                elapsed: attempt.elapsed,
            },
            None => Probe::NotGrpc,
        },
        (Some(Reason::BackendConnectRefused), _) => Probe::Refused {
            tried: attempt.tried.clone(),
        },
        (Some(Reason::BackendConnectTimeout), _) => Probe::Timeout(attempt.elapsed),
        (Some(Reason::BackendTls), _) => Probe::WantsTls,
        (Some(Reason::BackendDns), _) => Probe::NoAddress("it has no address".to_owned()),
        (Some(_), Some(Opening::Http1(line))) => Probe::SpeaksHttp1(line.clone()),
        (Some(Reason::BackendClosed), None) => Probe::ClosedMute,
        (Some(Reason::BackendClosed), Some(Opening::Http2)) => Probe::ClosedEarly,
        (Some(_), _) => Probe::NotGrpc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_closes_mute_one_that_talks_noise_and_one_that_leaves_early_are_told_apart()
    {
        for (reason, opening, probe) in [
            (Reason::BackendClosed, None, Probe::ClosedMute),
            (
                Reason::BackendClosed,
                Some(Opening::Http2),
                Probe::ClosedEarly,
            ),
            (
                Reason::BackendNotGrpc(0),
                Some(Opening::Noise),
                Probe::NotGrpc,
            ),
            (Reason::BackendTls, Some(Opening::Tls), Probe::WantsTls),
        ] {
            let attempt = Attempt {
                backend: "a".into(),
                endpoint: "a:1".into(),
                tried: vec!["127.0.0.1:1".parse().unwrap()],
                elapsed: Duration::from_millis(1),
                failure: Some(reason),
                opening,
            };
            assert_eq!(probe_of(&attempt), probe, "{reason:?}");
        }
    }
}
