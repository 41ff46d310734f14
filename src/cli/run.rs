//! The life of the process: read what was typed, start, say the banner, then a line for each finished call until it stops.
//!
//! This thread only starts and prints; how it prints is `cli::printer`'s business.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::args::{Exit, Stop};
use crate::cli::banner::{Banner, TRIED_PATH};
use crate::cli::demo::{Echo, Page};
use crate::cli::log::Log;
use crate::cli::port::bind_error;
use crate::cli::prepare::{Prepared, prepare};
use crate::cli::printer::{Ears, Printer};
use crate::cli::style::Color;
use crate::config::DemoEnds;
use crate::control::{Control, StartError};
use crate::policy::{Remedy, Target, Versions};

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
    let Prepared {
        compiled,
        file,
        demo,
        ..
    } = prepared;
    let cors = compiled.cors.clone();
    let credentials = compiled.credentials;
    let own_rules = compiled.own_rules.clone();
    let trusted = compiled.trusted.clone();
    let remedy = compiled.remedy;
    let mut endpoints: Vec<Arc<str>> = Vec::new();
    let mut owners: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
    for backend in &compiled.snapshot.backends {
        let Target::Endpoints(written) = &backend.target else {
            continue;
        };
        for endpoint in written {
            endpoints.push(Arc::clone(&endpoint.name));
            // Lines of calls tell of a backend by the name that the file gives it.
            if remedy == Remedy::File {
                let owners = owners.entry(Arc::clone(&endpoint.name)).or_default();
                owners.push(Arc::clone(&backend.name));
            }
        }
    }
    let mut routes = compiled.snapshot.routes.iter();
    let health_routed = routes.any(|route| route.path.matches(TRIED_PATH));
    let written = compiled.snapshot.listeners.iter();
    let versions: Vec<Versions> = written.map(|listener| listener.versions).collect();
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
    let addresses = control.listening.iter().map(|(_, address)| *address);
    let listeners: Vec<_> = addresses.zip(versions).collect();
    let names = control.listening.iter().map(|(name, _)| Arc::clone(name));
    let names: Vec<_> = names.collect();
    let ears = Ears {
        records: control.records.clone(),
        spent: control.spent.clone(),
        notices: control.notices.clone(),
    };
    let mut printer = Printer::new(io::stdout(), Color::of_stdout(), remedy, ears).owned_by(owners);
    let early = printer.wait_for_backends(endpoints.len());
    let banner = Banner {
        version: env!("CARGO_PKG_VERSION"),
        file: file.as_deref(),
        listeners: &listeners,
        names: &names,
        trusted: &trusted,
        backends: &[],
        cors: &cors,
        credentials,
        own_rules: &own_rules,
        remedy,
        health_routed,
        demo,
    };
    printer.banner(&banner, &endpoints);
    let exit = printer.print_until_stopped(early);
    control.join();
    exit
}
