//! The command line: what may be typed, and how a wrong word is answered.
//!
//! Owns flags and exit codes. Never judges a value that the file may hold too: those go through `config`, so that both are
//! judged alike.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::cli::escape::escape_short;
use crate::config::{Flags, is_plain_word};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve, by flags or by a file.
    Run(RunArgs),
    /// Serve the demo inside the process.
    Demo(DemoArgs),
}

/// `wharf run`, and `wharf` with flags alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// `-c`: the file. `None` with no backend among the flags: the usual places.
    pub config: Option<PathBuf>,
    /// What goes over the file.
    pub flags: Flags,
    /// `--log`.
    pub log: Option<String>,
}

/// `wharf demo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoArgs {
    /// Listeners, origins, workers; no backends.
    pub flags: Flags,
    /// `--log`.
    pub log: Option<String>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Fine = 0,
    /// It failed while running.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// An address could not be bound.
    CannotBind = 3,
}

/// The process ends here, with this to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The exit code. Text goes to standard output if it is [`Exit::Fine`] (help, version), else to standard error.
    pub exit: Exit,
    /// All that is said, with its line end.
    pub text: String,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Stop {
    /// A mistake of whoever typed.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            text: text.into(),
        }
    }

    /// A filter of the log that is none: what is wrong with it, and where it was said.
    pub(crate) fn no_filter(directive: &str, place: &str) -> Self {
        Self::usage(format!(
            "error: {directive:?} in {place} is no filter. Write a level, or targets with levels, e.g. wharf=debug,h2=warn\n"
        ))
    }
}

/// Reads the command line, the program's name first.
pub fn parse<I>(args: I) -> Result<Command, Stop>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let typed = Typed::try_parse_from(&args).map_err(|error| {
        let text = error.render().to_string();
        match error.exit_code() {
            0 => Stop {
                exit: Exit::Fine,
                text,
            },
            _ => {
                let meant = backend_meant(&error)
                    .or_else(|| file_meant(&error, &args))
                    .or_else(|| own_backends_meant(&error))
                    .or_else(|| order_meant(&error, &args))
                    .or_else(|| own_service_meant(&error, &args))
                    .or_else(|| check_meant(&error));
                Stop::usage(meant.unwrap_or(text))
            }
        }
    })?;
    let command = match typed.command {
        None if typed.run == RunFlags::default() => {
            return Err(Stop::usage(NOTHING_TO_DO));
        }
        None => Command::Run(typed.run.into()),
        Some(TypedCommand::Run { config, run }) => Command::Run(RunArgs {
            config,
            ..run.into()
        }),
        Some(TypedCommand::Demo { shared }) => {
            let RunArgs { flags, log, .. } = RunFlags {
                backend: Vec::new(),
                shared,
            }
            .into();
            let flags = Flags {
                subcommand: Some("demo"),
                ..flags
            };
            Command::Demo(DemoArgs { flags, log })
        }
    };
    let (Command::Run(RunArgs { log, .. }) | Command::Demo(DemoArgs { log, .. })) = &command;
    if let Some(filter) = log {
        check_filter(filter).map_err(|directive| Stop::no_filter(directive, "--log"))?;
    }
    Ok(command)
}

/// `wharf localhost:50051`: a word that is no command and looks like an endpoint.
fn backend_meant(error: &clap::Error) -> Option<String> {
    let word = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg]
        .into_iter()
        .find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(word)) => Some(word),
            _ => None,
        })?;
    let (_, port) = word.rsplit_once(':')?;
    port.parse::<u16>()
        .ok()
        .filter(|_| !word.starts_with('-'))?;
    let word = escape_short(word, 80);
    Some(format!(
        "error: {word:?} is no command. A gRPC server is named by its flag:  wharf --backend {word}\n"
    ))
}

/// `wharf -c wharf.toml`: a file where none is taken.
fn file_meant(error: &clap::Error, args: &[OsString]) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) if ["-c", "--config"].contains(&flag.as_str()) => {}
        _ => return None,
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let mut rest = args
        .iter()
        .skip_while(|arg| *arg != "-c" && *arg != "--config");
    let file = match rest.nth(1) {
        Some(file) => file.to_string_lossy(),
        None => "FILE".into(),
    };
    let file = escape_short(&file, 80);
    Some(format!("error: a file is read by:  wharf run -c {file}\n"))
}

/// `wharf run -c wharf.toml --backend a:1`: both ways to name a backend.
fn own_backends_meant(error: &clap::Error) -> Option<String> {
    // A flag that stands there twice is a conflict with itself.
    let names = |flag: &str| {
        [ContextKind::InvalidArg, ContextKind::PriorArg]
            .iter()
            .filter_map(|kind| error.get(*kind))
            .any(|value| value.to_string().contains(flag))
    };
    let is_file_and_backend =
        error.kind() == ErrorKind::ArgumentConflict && names("--config") && names("--backend");
    is_file_and_backend.then(|| {
        "error: a file names its backends itself: write it as  endpoints = [\"HOST:PORT\"]  in [backend.NAME], or leave out -c\n"
            .to_owned()
    })
}

/// `wharf --listen :9000 demo`: flags before the command that they are for.
fn order_meant(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let command = match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(command) => command,
        ContextValue::Strings(commands) => commands.first()?,
        _ => return None,
    };
    if error.kind() != ErrorKind::ArgumentConflict {
        return None;
    }
    let at = args.iter().position(|arg| arg == command.as_str())?;
    let before = args.get(1..at)?;
    // What a flag of the demo's would lead to is the next mistake.
    if command == "demo"
        && let Some(told) = own_service(before)
    {
        return Some(told);
    }
    let rest = before.iter().chain(args.get(at + 1..)?);
    let line = as_typed(rest);
    Some(format!(
        "error: flags stand behind the command:  wharf {command}{line}\n"
    ))
}

/// `wharf demo --backend a:1`: the demo is to be put in front of somebody.
fn own_service_meant(error: &clap::Error, args: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument || args.get(1)? != "demo" {
        return None;
    }
    own_service(args.get(2..)?)
}

/// What is said of a backend among the flags of the demo.
fn own_service(flags: &[OsString]) -> Option<String> {
    let long = |arg: &str| arg == "--backend" || arg.starts_with("--backend=");
    let is_backend = |arg: &OsString| {
        arg.to_str()
            .is_some_and(|arg| long(arg) || arg.starts_with("-b"))
    };
    let at = flags.iter().position(is_backend)?;
    let flag = flags.get(at)?.to_str()?;
    let value = match flag.split_once('=') {
        Some((_, value)) => value,
        None => flags.get(at + 1).and_then(|value| value.to_str())?,
    };
    let value = as_typed([OsString::from(value)].iter());
    Some(format!(
        "error: the demo brings its own service. A gRPC server of yours is named without the word demo:  \
         wharf --backend{value}\n"
    ))
}

/// `wharf check`: what other programs have.
fn check_meant(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(word) if ["check", "validate", "test"].contains(&word.as_str()) => {
            Some(format!(
                "error: {word:?} is no command. A file is checked when it is read, before anything starts:  wharf run -c FILE\n"
            ))
        }
        _ => None,
    }
}

/// Words as they would be typed again, each behind a space, in quotes where a shell would not leave them as they are.
fn as_typed<'a>(words: impl Iterator<Item = &'a OsString>) -> String {
    let mut line = String::new();
    for word in words {
        let word = word.to_string_lossy();
        let word = escape_short(&word, 80);
        line.push(' ');
        if is_plain_word(&word) {
            line.push_str(&word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', "'\\''"));
            line.push('\'');
        }
    }
    line
}

/// `level`, `target`, `target=level`, with commas between; `Err` names the first that is none.
pub(crate) fn check_filter(filter: &str) -> Result<(), &str> {
    let is_level = |text: &str| text.parse::<log::LevelFilter>().is_ok();
    let is_target = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_:-.".contains(&b))
    };
    for directive in filter.split(',').map(str::trim).filter(|d| !d.is_empty()) {
        let good = match directive.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(directive) || (is_target(directive) && directive.contains("::")),
        };
        if !good && directive != "wharf" && directive != "h2" {
            return Err(directive);
        }
    }
    Ok(())
}

/// The text of `--help`, for tests of the documents.
pub fn help() -> String {
    Typed::command().render_long_help().to_string()
}

#[derive(Debug, Parser)]
#[command(
    name = "wharf",
    version,
    about = "A reverse proxy for gRPC-Web and gRPC",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
struct Typed {
    #[command(subcommand)]
    command: Option<TypedCommand>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Debug, Subcommand)]
enum TypedCommand {
    /// Serve: by flags, or by a configuration file
    Run {
        /// The configuration file [default: ./wharf.toml, then /etc/wharf/wharf.toml]
        #[arg(short, long, value_name = "FILE", conflicts_with = "backend")]
        config: Option<PathBuf>,
        #[command(flatten)]
        run: RunFlags,
    },
    /// Show it working: a gRPC service and a page inside this process, to open in a browser
    Demo {
        #[command(flatten)]
        shared: SharedFlags,
    },
}

#[derive(Debug, Default, PartialEq, Eq, Args)]
struct RunFlags {
    /// A gRPC server, plaintext HTTP/2; several times: endpoints of one backend
    #[arg(short, long, value_name = "HOST:PORT")]
    backend: Vec<String>,
    #[command(flatten)]
    shared: SharedFlags,
}

#[derive(Debug, Default, PartialEq, Eq, Args)]
struct SharedFlags {
    /// Where clients come in; without a host it is loopback [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDR")]
    listen: Vec<String>,
    /// An origin whose pages may call, e.g. http://localhost:5173, 'http://localhost:*', or '*'; may be repeated
    /// [default: pages of this machine when listening on loopback]
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Event loops: a number, or auto for one per CPU
    #[arg(long, value_name = "N|auto")]
    workers: Option<String>,
    /// Whether each worker stays on a CPU of its own [default: on]
    #[arg(long, value_name = "on|off")]
    pin: Option<Pin>,
    /// What the log on stderr says, e.g. warn or wharf=debug; also by WHARF_LOG or RUST_LOG. The lines of calls go to stdout
    /// whatever it says [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pin {
    On,
    Off,
}

impl From<RunFlags> for RunArgs {
    fn from(typed: RunFlags) -> Self {
        Self {
            config: None,
            flags: Flags {
                subcommand: None,
                backends: typed.backend,
                listen: typed.shared.listen,
                allow_origins: typed.shared.allow_origin,
                workers: typed.shared.workers,
                pin: typed.shared.pin.map(|pin| pin == Pin::On),
            },
            log: typed.shared.log,
        }
    }
}

const NOTHING_TO_DO: &str = "\
error: nothing to do. Name a gRPC server, or see it working without one:

  wharf --backend localhost:50051
  wharf demo

For everything else:  wharf --help
";

const EXAMPLES: &str = "\
Examples:
  wharf demo
      see it working in a browser
  wharf --backend localhost:50051
      pages of this machine may call it at http://127.0.0.1:8080
  wharf --backend localhost:50051 \\
      --listen 0.0.0.0:8080 --allow-origin https://app.example.com
      pages of that origin may, at every address of this machine
  wharf run -c wharf.toml
      the same and more, from a file";

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Command, Stop> {
        parse(line.split_ascii_whitespace())
    }

    fn run(line: &str) -> RunArgs {
        match typed(line) {
            Ok(Command::Run(run)) => run,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_has_no_contradiction() {
        Typed::command().debug_assert();
    }

    #[test]
    fn flags_alone_are_the_same_as_run_with_flags() {
        let flags = "--backend a:1 --backend b:2 --listen :9 --allow-origin http://x --workers 2 --pin off --log debug";
        let short = run(&format!("wharf {flags}"));
        assert_eq!(short, run(&format!("wharf run {flags}")));
        assert_eq!(short.flags.backends, ["a:1", "b:2"]);
        assert_eq!(short.flags.listen, [":9"]);
        assert_eq!(short.flags.allow_origins, ["http://x"]);
        assert_eq!(short.flags.workers.as_deref(), Some("2"));
        assert_eq!(short.flags.pin, Some(false));
        assert_eq!(short.log.as_deref(), Some("debug"));
        assert_eq!(short.config, None);
    }

    #[test]
    fn a_file_may_be_named_and_overruled_but_not_mixed_with_a_backend() {
        let args = run("wharf run -c x.toml --listen :1");
        assert_eq!(args.config, Some("x.toml".into()));
        assert_eq!(args.flags.listen, [":1"]);
        assert_eq!(run("wharf run").config, None);
        let stop = typed("wharf run -c x.toml --backend a:1").unwrap_err();
        assert_eq!(stop.exit, Exit::Usage);
    }

    #[test]
    fn the_demo_takes_everything_but_backends() {
        match typed("wharf demo --listen :1 --workers 1") {
            Ok(Command::Demo(demo)) => assert_eq!(demo.flags.listen, [":1"]),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            typed("wharf demo --backend a:1").unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn every_mistake_ends_with_code_two_and_what_to_type() {
        for (line, told) in [
            ("wharf", "wharf --backend localhost:50051"),
            (
                "wharf run -c x.toml --backend a:1",
                "a file names its backends itself: write it as  endpoints = [\"HOST:PORT\"]  in [backend.NAME], or leave out -c\n",
            ),
            (
                "wharf run --backend a:1 -c x.toml",
                "error: a file names its backends itself: ",
            ),
            (
                "wharf run --backend a:1 --workers 2 --workers 3",
                "cannot be used multiple times",
            ),
            ("wharf run -c a -c b", "cannot be used multiple times"),
            ("wharf --bakend a:1", "--backend"),
            ("wharf --pin maybe", "on, off"),
            ("wharf --backend", "--help"),
            ("wharf dmo", "demo"),
            ("wharf localhost:50051", "wharf --backend localhost:50051\n"),
            (
                "wharf [::1]:50051 --workers 1",
                "wharf --backend [::1]:50051\n",
            ),
            (
                "wharf -c x.toml",
                "a file is read by:  wharf run -c x.toml\n",
            ),
            (
                "wharf --listen :1 --config x.toml --pin on",
                "a file is read by:  wharf run -c x.toml\n",
            ),
            (
                "wharf --config=x.toml",
                "a file is read by:  wharf run -c FILE\n",
            ),
            (
                "wharf demo -c x.toml",
                "a file is read by:  wharf run -c x.toml\n",
            ),
            ("wharf run localhost:1", "wharf --backend localhost:1\n"),
            (
                "wharf --listen :9000 demo",
                "flags stand behind the command:  wharf demo --listen :9000\n",
            ),
            (
                "wharf --pin off --allow-origin http://localhost:* run -c x.toml",
                "behind the command:  wharf run --pin off --allow-origin 'http://localhost:*' -c x.toml\n",
            ),
            (
                "wharf demo --backend a:1",
                "the demo brings its own service. A gRPC server of yours is named without the word demo:  wharf --backend a:1\n",
            ),
            ("wharf demo --backend=a:1", "  wharf --backend a:1\n"),
            ("wharf -b a:1 demo", "  wharf --backend a:1\n"),
            ("wharf demo --backend", "--help"),
            (
                "wharf check x.toml",
                "A file is checked when it is read, before anything starts:  wharf run -c FILE\n",
            ),
            (
                "wharf --backend a:1 --log loud",
                "in --log is no filter. Write a level, or targets with levels, e.g. wharf=debug",
            ),
            (
                "wharf --backend a:1 --log wharf=loud",
                "in --log is no filter. Write a level, or targets with levels, e.g. wharf=debug",
            ),
            (
                "wharf --backend a:1 --log a=debug,=x",
                "in --log is no filter. Write a level, or targets with levels, e.g. wharf=debug",
            ),
        ] {
            let stop = typed(line).expect_err(line);
            assert_eq!(stop.exit, Exit::Usage, "{line}");
            assert!(stop.text.contains(told), "{line}: {}", stop.text);
            assert!(stop.text.ends_with('\n'));
        }
        for filter in [
            "info",
            "OFF",
            "wharf=debug,h2=warn",
            "wharf::core",
            "warn, wharf=trace",
            "",
        ] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        for line in [
            "wharf --help",
            "wharf -h",
            "wharf run --help",
            "wharf help",
            "wharf help run",
            "wharf --version",
        ] {
            let stop = typed(line).expect_err(line);
            assert_eq!(stop.exit, Exit::Fine, "{line}");
        }
        assert!(help().contains("wharf demo"));
        let help = help();
        let (_, examples) = help.split_once("Examples:").expect("there are some");
        for line in examples.lines() {
            assert!(line.len() < 80, "{line} would be wrapped");
        }
    }

    #[test]
    fn what_the_help_shows_can_be_typed_into_a_shell_and_is_for_all_clients() {
        let help = help();
        for line in help.lines().filter(|line| line.contains('*')) {
            let bare = line.replace("'http://localhost:*'", "").replace("'*'", "");
            assert!(!bare.contains('*'), "{line}");
        }
        assert!(help.contains("Where clients come in"), "{help}");
    }
}
