//! From the command line to a configuration that is valid, or to the message that says why not.
//!
//! The only part of the start that reads files and the environment; it binds nothing and asks no backend.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::args::{self, Command, DemoArgs, RunArgs, Stop};
use crate::cli::escape::escape;
use crate::cli::machine;
use crate::cli::style::Color;
use crate::config::{self, Compiled, DemoEnds, Machine, Schema};

/// Everything that a start needs.
#[derive(Debug)]
pub struct Prepared {
    /// What to obey.
    pub compiled: Compiled,
    /// What it was made of: `config::compile` makes a fresh snapshot of it whenever one is needed.
    pub schema: Schema,
    /// What `config::compile` must know of the machine.
    pub machine: Machine,
    /// The filter for the log, in env_logger's words.
    pub log_filter: String,
    /// Warnings, drawn for standard error; empty if there are none.
    pub warnings: String,
    /// The file that was read, escaped; `None`: none was.
    pub file: Option<String>,
    /// The demo runs, so that the banner can say where its page is.
    pub demo: bool,
}

/// Reads the command line, the program's name first, and what it names. `ends` makes the demo's two ends if they are asked
/// for.
pub fn prepare<I>(args: I, ends: impl FnOnce() -> DemoEnds) -> Result<Prepared, Stop>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let machine = machine::detect();
    let color = Color::of_stderr();
    match args::parse(args)? {
        Command::Run(RunArgs { config, flags, log }) => {
            let file = match (&config, flags.backends.is_empty()) {
                (Some(path), _) => Some(read(path)?),
                (None, true) => Some(usual_place()?),
                (None, false) => None,
            };
            let file = file
                .as_ref()
                .map(|(name, text)| (name.as_str(), text.as_str()));
            let loaded = config::load(file, &flags, &machine);
            let prepared = finish(loaded, log, machine, color)?;
            Ok(Prepared {
                file: file.map(|(name, _)| name.to_owned()),
                ..prepared
            })
        }
        Command::Demo(DemoArgs { flags, log }) => {
            let mut loaded = config::load(None, &flags, &machine);
            loaded.compiled = config::demo(&loaded.schema, ends(), &machine);
            let prepared = finish(loaded, log, machine, color)?;
            Ok(Prepared {
                demo: true,
                ..prepared
            })
        }
    }
}

fn finish(
    loaded: config::Loaded,
    log: Option<String>,
    machine: Machine,
    color: Color,
) -> Result<Prepared, Stop> {
    let colored = color == Color::Ansi;
    let compiled = loaded
        .compiled
        .map_err(|findings| Stop::usage(findings.render(&loaded.sources, colored)))?;
    let warnings = compiled.warnings.render(&loaded.sources, colored);
    Ok(Prepared {
        compiled,
        schema: loaded.schema,
        machine,
        log_filter: log_filter(log, |name| std::env::var(name).ok())?,
        warnings,
        file: None,
        demo: false,
    })
}

/// Flag, then `WHARF_LOG`, then `RUST_LOG`, then `info`. The last variable is passed over if it is no filter: it may be meant for
/// another program.
fn log_filter(
    flag: Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Stop> {
    let said = |name| variable(name).filter(|text| !text.is_empty());
    if let Some(flag) = flag {
        return Ok(flag);
    }
    if let Some(own) = said("WHARF_LOG") {
        args::check_filter(&own)
            .map_err(|directive| Stop::no_filter(directive, "the variable WHARF_LOG"))?;
        return Ok(own);
    }
    let common = said("RUST_LOG").filter(|text| args::check_filter(text).is_ok());
    Ok(common.unwrap_or_else(|| "info".to_owned()))
}

fn usual_place() -> Result<(String, String), Stop> {
    for path in USUAL_PLACES.map(PathBuf::from) {
        if path.exists() {
            return read(&path);
        }
    }
    Err(Stop::usage(format!(
        "error: there is no configuration file at {}. Name one, or a gRPC server:\n\n  \
         wharf run -c FILE\n  wharf --backend localhost:50051\n",
        USUAL_PLACES.join(" or ")
    )))
}

fn read(path: &Path) -> Result<(String, String), Stop> {
    let name = escape(&path.to_string_lossy()).into_owned();
    match fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Stop::usage(format!(
            "error: {name} is no text (UTF-8). Name another file with  wharf run -c FILE\n"
        ))),
        Err(error) => Err(Stop::usage(format!(
            "error: cannot read {name}: {error}. Name another file with  wharf run -c FILE\n"
        ))),
    }
}

/// Where a configuration file is looked for, in this order.
const USUAL_PLACES: [&str; 2] = ["./wharf.toml", "/etc/wharf/wharf.toml"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;
    use std::time::Instant;

    use super::*;
    use crate::cli::args::Exit;
    use crate::policy::{Answer, Callee, RouteKind, Target};
    use crate::wire::{OutgoingHead, Part, Reset};

    #[derive(Debug)]
    struct Nobody;

    impl Callee for Nobody {
        fn call(&self, _head: &OutgoingHead) -> Box<dyn Answer> {
            Box::new(Self)
        }
    }

    impl Answer for Nobody {
        fn handle_part(&mut self, _part: Part) {}

        fn poll_part(&mut self, _now: Instant) -> Poll<Result<Part, Reset>> {
            Poll::Ready(Ok(Part::End(None)))
        }
    }

    fn ends() -> DemoEnds {
        DemoEnds {
            service: "demo.v1.Echo".to_owned(),
            echo: Arc::new(Nobody),
            page: Arc::new(Nobody),
        }
    }

    fn start(line: &str) -> Result<Prepared, Stop> {
        prepare(line.split_ascii_whitespace(), ends)
    }

    #[test]
    fn the_demo_is_a_page_at_the_root_and_a_service_in_this_process() {
        let prepared = start("wharf demo --listen 127.0.0.1:0").expect("valid");
        let snapshot = &prepared.compiled.snapshot;
        assert!(prepared.demo);
        assert_eq!(snapshot.listeners[0].address.port(), 0);
        let route = |path: &str| {
            let found = snapshot
                .routes
                .iter()
                .find(|route| route.path.matches(path));
            found.map(|route| (route.kind, route.backend.0))
        };
        assert_eq!(route("/"), Some((RouteKind::Plain, 0)));
        assert_eq!(route("/demo.v1.Echo/Say"), Some((RouteKind::Rpc, 1)));
        assert_eq!(route("/favicon.ico"), None);
        let local = |backend: &crate::policy::Backend| matches!(backend.target, Target::Local(_));
        assert!(snapshot.backends.iter().all(local));
    }

    #[test]
    fn a_start_by_flags_needs_no_file() {
        let prepared = start("wharf --backend localhost:50051 --workers 1").expect("valid");
        assert_eq!(prepared.compiled.process.workers, 1);
        assert!(!prepared.demo);
        assert_eq!(prepared.warnings, "");
    }

    #[test]
    fn the_file_that_was_read_is_known_by_name_wherever_it_was_found() {
        let file = |line| start(line).expect(line).file;
        assert_eq!(
            file("wharf run -c config.example.toml").as_deref(),
            Some("config.example.toml")
        );
        assert_eq!(file("wharf run --backend localhost:50051"), None);
    }

    #[test]
    fn what_is_wrong_stops_the_start_with_code_two_and_a_cure() {
        for (line, cure) in [
            (
                "wharf --backend https://a:1",
                "TLS to backends is not built yet",
            ),
            ("wharf --backend localhost", "\"localhost:50051\""),
            ("wharf --backend a:1 --workers many", "a number or \"auto\""),
            ("wharf demo --listen 8080", "\":8080\""),
            ("wharf demo --listen 8080", "1 | wharf demo --listen 8080\n"),
            ("wharf run -c no-such-file.toml", "wharf run -c FILE"),
        ] {
            let stop = start(line).expect_err(line);
            assert_eq!(stop.exit, Exit::Usage, "{line}");
            assert!(stop.text.contains(cure), "{line}: {}", stop.text);
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_called_so() {
        let path = std::env::temp_dir().join(format!("wharf-no-text-{}", std::process::id()));
        fs::write(&path, b"\xff\xfe").expect("a file");
        let told = read(&path).expect_err("no text").text;
        fs::remove_file(&path).expect("it was there");
        assert!(told.contains(" is no text (UTF-8). "), "{told}");
    }

    #[test]
    fn the_log_is_as_loud_as_the_flag_says_then_the_variables_then_info() {
        let variables = |name: &str| match name {
            "WHARF_LOG" => Some("debug".to_owned()),
            "RUST_LOG" => Some("trace".to_owned()),
            _ => None,
        };
        let filter = |flag: Option<&str>, variables: &dyn Fn(&str) -> Option<String>| {
            log_filter(flag.map(str::to_owned), variables).expect("a filter")
        };
        assert_eq!(filter(Some("off"), &variables), "off");
        assert_eq!(filter(None, &variables), "debug");
        let rust = |name: &str| variables(name).filter(|_| name == "RUST_LOG");
        assert_eq!(filter(None, &rust), "trace");
        assert_eq!(filter(None, &|_| None), "info");
        // Everybody's variable may be meant for somebody else; ours is not.
        let wrong = |name: &str| variables(name).map(|_| "wharf=loud".to_owned());
        let rust = |name: &str| wrong(name).filter(|_| name == "RUST_LOG");
        assert_eq!(filter(None, &rust), "info");
        let stop = log_filter(None, wrong).expect_err("no filter");
        assert_eq!(stop.exit, Exit::Usage);
        assert!(
            stop.text
                .contains("\"wharf=loud\" in the variable WHARF_LOG is no filter")
        );
    }
}
