//! The run: starts everything, measures in alternating rounds, reports, and says with its exit code how the goals stand. Owns
//! the order of things; each thing itself is in a file beside this one.
//!
//! It prints no figure that it does not believe: beside other load, with a port taken or beside another run it ends at once.

mod child;
mod figures;
mod goals;
mod machine;
mod measure;
mod proc;
mod proxies;
mod report;
mod scenario;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Args as ClapArgs, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};

use child::{Ports, Program, Running};
use goals::{Goals, exit_code};
use machine::{Cpus, Head};
use measure::{Bench, Crowd, Gap, Sample};
use proxies::{Places, Proxy};
use report::{Cell, Report, TOO_BUSY};
use scenario::{Backend, Scenario};

use crate::USAGE;

/// A goal was missed, or wharf did not answer rightly.
const MISSED: u8 = 1;
/// The machine, a port or another run stands in the way.
const REFUSED: u8 = 3;
/// 15,000 clients here, as many on the proxy's side; the rest is small change.
const DESCRIPTORS: u64 = 40_000;
/// How often a cell is measured again because others came in between.
const REPEATS_MAX: u32 = 2;
/// Ports of one run that is told where they begin. A port comes back after so many starts, when nothing of its old
/// connections is left.
const PORTS: u16 = 64;

/// Why a run ends without figures.
#[derive(Debug)]
enum Refusal {
    /// Others use what this run needs.
    Busy(String),
    /// A port is taken.
    Port(String),
    /// This machine cannot do it at all.
    Machine(String),
    /// Somebody asked for an end.
    Interrupted,
}

impl Refusal {
    fn text(&self) -> &str {
        match self {
            Self::Busy(text) | Self::Port(text) | Self::Machine(text) => text,
            Self::Interrupted => "interrupted",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Everything, and the goals are judged.
    Full,
    /// Does it all work? One or two minutes; figures are shown where the machine allows them, and none is judged.
    Smoke,
}

/// What `loopback run` is told.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// How much is done
    #[arg(long, value_enum, default_value = "full")]
    profile: Profile,
    /// Scenarios or groups of them, with commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    scenarios: Vec<String>,
    /// Proxies beside wharf, with commas: floor, hyper, envoy, pingora, nginx [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    proxies: Vec<String>,
    /// Rounds, forwards and backwards in turn [default: 5, smoke: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Measured seconds of each cell [default: 2, smoke: 0.5]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// The file of goals
    #[arg(
        long,
        value_name = "FILE",
        default_value = "benches/loopback/goals.toml"
    )]
    goals: PathBuf,
    /// Where report.md, report.json and the programs' logs go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// The binary that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/wharf")]
    wharf: PathBuf,
    /// Where scripts/tools has put Envoy and the small peers
    #[arg(long, value_name = "FOLDER", env = "WHARF_TOOLS")]
    tools: Option<PathBuf>,
    /// The first of the ports that the run uses, 64 of them, all of which must be free [default: any that are free]
    // Five digits, since the floor counts on a request's length, and the port is in it.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(10_000..65_000))]
    port: Option<u16>,
    /// Says which scenarios there are, and ends
    #[arg(long)]
    list: bool,
}

/// Runs, and says with the exit code how it went.
pub(crate) fn main(args: Args) -> ExitCode {
    if args.list {
        let names = scenario::SCENARIOS
            .iter()
            .map(|scenario| scenario.name.len());
        let width = names.max().unwrap_or(0);
        for scenario in scenario::SCENARIOS {
            let group = match scenario.group {
                own if own == scenario.name => String::new(),
                group => format!(" (group {group})"),
            };
            say(&format!(
                "{:<width$}  {}{group}",
                scenario.name, scenario.about
            ));
        }
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(Stop::Usage(text)) => {
            complain(&text);
            ExitCode::from(USAGE)
        }
        Err(Stop::Refused(refusal)) => {
            complain(refusal.text());
            ExitCode::from(REFUSED)
        }
    }
}

/// Why nothing comes of a run.
#[derive(Debug)]
enum Stop {
    Usage(String),
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Usage(text)
    }
}

fn run(args: &Args) -> Result<u8, Stop> {
    let smoke = args.profile == Profile::Smoke;
    let scenarios = wanted_scenarios(args)?;
    let wanted = wanted_proxies(args)?;
    let goals = if smoke {
        None
    } else {
        Some(read_goals(&args.goals)?.of(&scenarios, &wanted))
    };
    let out = &args.out;
    fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let places = Places {
        wharf: args.wharf.clone(),
        own: std::env::current_exe()
            .map_err(|error| format!("this program's own file: {error}"))?,
        tools: args.tools.clone().unwrap_or_else(tools),
        out: out.clone(),
    };
    if let Some(missing) = places.missing(Proxy::Wharf) {
        return Err(missing.into());
    }
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for proxy in wanted {
        match places.missing(proxy) {
            None => present.push(proxy),
            Some(text) => {
                complain(&text);
                missing.push(text);
            }
        }
    }

    let _lock = machine::alone(&machine::lock_path())?;
    let mut too_busy = false;
    let cpus = match Cpus::choose() {
        Ok(cpus) => cpus,
        // What a smoke shows can be seen on one CPU too.
        Err(refusal) if smoke => {
            complain(refusal.text());
            too_busy = true;
            Cpus::only()
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let descriptors_max = machine::allow_descriptors(DESCRIPTORS);
    let mut ports = match args.port {
        Some(first) => Ports::named(first, PORTS)?,
        None => Ports::any(),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Without it a signal ends us at once, and leaves what we started.
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| format!("signals cannot be heard: {error}"))?;
    }

    let (_backend, backends) = start_backends(&places, &cpus, &mut ports)?;
    let seconds = args.seconds.unwrap_or(if smoke { 0.5 } else { 2.0 });
    let rounds = args.rounds.unwrap_or(if smoke { 1 } else { 5 }).max(1);
    let mut bench = Bench {
        cpus,
        ports,
        backends,
        seconds,
        warm_up: if smoke { 0.2 } else { 1.0 },
        crowd: if smoke {
            Crowd {
                connections: 500,
                streams: 200,
                http2: 100,
            }
        } else {
            Crowd {
                connections: 10_000,
                streams: 5_000,
                http2: 1_000,
            }
        },
        interrupted,
        places,
    };
    let mut report = Report {
        head: Head::read(&bench.cpus, descriptors_max),
        versions: present
            .iter()
            .map(|proxy| (proxy.name(), bench.places.version(*proxy)))
            .collect(),
        settings: settings(&bench, rounds),
        missing,
        scenarios,
        cells: BTreeMap::new(),
        judged: Vec::new(),
        too_busy,
        ended_early: None,
    };
    let ended = measure(&mut bench, &mut report, &present, rounds, smoke);
    report.ended_early = ended
        .as_ref()
        .err()
        .map(|refusal| refusal.text().to_owned());

    if let Some(goals) = &goals {
        report.judged = goals
            .goals
            .iter()
            .map(|goal| {
                goal.judge(|proxy, scenario, metric| report.rounds(proxy, scenario, metric))
            })
            .collect();
    }
    // Half an hour's figures are not thrown away for the last one. Where there is none yet, an older report stays.
    let code = if report.cells.is_empty() {
        0
    } else {
        finish(&report, out, smoke)?
    };
    ended?;
    Ok(code)
}

/// All rounds of all groups. Within a round every proxy and every scenario of the group has its turn, in alternating order.
fn measure(
    bench: &mut Bench,
    report: &mut Report,
    present: &[Proxy],
    rounds: u32,
    smoke: bool,
) -> Result<(), Refusal> {
    let scenarios = report.scenarios.clone();
    let looks = if smoke {
        machine::LOOKS_OF_SMOKE
    } else {
        machine::LOOKS
    };
    for group in scenarios.chunk_by(|one, next| one.group == next.group) {
        let mut turns: Vec<(Scenario, Proxy)> = group
            .iter()
            .flat_map(|scenario| scenario.proxies.iter().map(|proxy| (*scenario, *proxy)))
            .filter(|(_, proxy)| present.contains(proxy))
            .collect();
        let group_rounds = group.first().map_or(0, |scenario| scenario.rounds(rounds));
        for round in 0..group_rounds {
            if group.iter().any(Scenario::needs_quiet) && !report.too_busy {
                match machine::until_quiet(&bench.cpus, looks) {
                    Ok(()) => {}
                    Err(refusal) if smoke => {
                        complain(refusal.text());
                        report.too_busy = true;
                    }
                    Err(refusal) => return Err(refusal),
                }
            }
            for (scenario, proxy) in &turns {
                let mut sample = turn(bench, scenario, *proxy, round)?;
                let mut repeats = 0;
                while !smoke && is_disturbed(&sample) && repeats < REPEATS_MAX {
                    machine::until_quiet(&bench.cpus, looks)?;
                    sample = turn(bench, scenario, *proxy, round)?;
                    repeats += 1;
                }
                if smoke && is_disturbed(&sample) {
                    report.too_busy = true;
                }
                let cell = report
                    .cells
                    .entry((scenario.name, proxy.name()))
                    .or_default();
                take(cell, sample, smoke);
            }
            turns.reverse();
        }
    }
    Ok(())
}

fn turn(
    bench: &mut Bench,
    scenario: &Scenario,
    proxy: Proxy,
    round: u32,
) -> Result<Result<Sample, String>, Refusal> {
    let began = Instant::now();
    let sample = bench.cell(scenario, proxy);
    if bench.interrupted.load(Ordering::Relaxed) {
        return Err(Refusal::Interrupted);
    }
    let sample = match sample {
        Ok(sample) => Ok(sample),
        Err(Gap::Cell(text)) => Err(text),
        Err(Gap::Run(refusal)) => return Err(refusal),
    };
    let failed = sample.as_ref().is_ok_and(|sample| sample.failures > 0);
    let word = match &sample {
        Ok(_) if failed => "calls failed",
        Ok(_) => "done",
        Err(text) => text,
    };
    let _ = writeln!(
        io::stderr(),
        "loopback: round {} {} {}: {word}, {:.1} s",
        round + 1,
        scenario.name,
        proxy.name(),
        began.elapsed().as_secs_f64()
    );
    Ok(sample)
}

fn is_disturbed(sample: &Result<Sample, String>) -> bool {
    sample
        .as_ref()
        .is_ok_and(|sample| sample.disturbed.is_some())
}

/// A round with a failed call has no figure: a proxy that answers wrongly may be quick about it.
/// One that others disturbed has none either, but for a smoke, which shows none of that run.
fn take(cell: &mut Cell, sample: Result<Sample, String>, smoke: bool) {
    match sample {
        Ok(sample) if sample.failures == 0 => match sample.disturbed {
            Some(others) if !smoke => {
                cell.gaps.push(format!("too busy for a figure: {others}"));
                cell.rounds.push(None);
            }
            _ => cell.rounds.push(Some(sample)),
        },
        Ok(sample) => {
            let first = sample.first_failure.as_deref().unwrap_or("no reason told");
            cell.gaps.push(format!(
                "{} calls failed, the first: {first}",
                sample.failures
            ));
            cell.rounds.push(None);
        }
        Err(text) => {
            cell.gaps.push(text);
            cell.rounds.push(None);
        }
    }
}

fn finish(report: &Report, out: &Path, smoke: bool) -> Result<u8, Stop> {
    let markdown = report.markdown();
    let json = serde_json::to_string_pretty(&report.json()).unwrap_or_default();
    for (name, text) in [("report.md", &markdown), ("report.json", &json)] {
        let path = out.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    say(&markdown);
    say(&format!(
        "{} and report.json beside it",
        out.join("report.md").display()
    ));
    // A cell of wharf's own without a figure is wharf's fault, or this program's; either is a failure of a smoke.
    let broken: Vec<_> = report
        .cells
        .iter()
        .filter(|((_, proxy), cell)| (*proxy == goals::OWN || smoke) && !cell.gaps.is_empty())
        .map(|((scenario, proxy), cell)| format!("{scenario} {proxy}: {}", cell.gaps.join("; ")))
        .collect();
    for broken in &broken {
        complain(broken);
    }
    if smoke {
        say(if report.too_busy {
            TOO_BUSY
        } else {
            "a smoke judges no figure: its rounds are short and few"
        });
        return Ok(if broken.is_empty() { 0 } else { MISSED });
    }
    Ok(exit_code(&report.judged))
}

fn start_backends(
    places: &Places,
    cpus: &Cpus,
    ports: &mut Ports,
) -> Result<(Running, BTreeMap<&'static str, u16>), Stop> {
    let mut arguments = vec!["echo".to_owned()];
    let mut backends = BTreeMap::new();
    for (_, word) in Backend::ALL {
        let port = ports.take()?;
        arguments.extend(["--listen".to_owned(), format!("{word}=127.0.0.1:{port}")]);
        backends.insert(word, port);
    }
    // The longest run there is takes half an hour.
    arguments.extend(["--for", "7200"].map(str::to_owned));
    let program = Program::new(&places.own, arguments);
    let mut running = Running::start(&program, &cpus.rest)?;
    for port in backends.values() {
        running.until_it_listens(*port)?;
    }
    Ok((running, backends))
}

fn wanted_scenarios(args: &Args) -> Result<Vec<Scenario>, String> {
    if args.profile == Profile::Smoke && args.scenarios.is_empty() {
        let names = [
            "unary-16-c64",
            "text-1k-c64",
            "stream-100-c16",
            "open-3000",
            "native-16-c1",
            "native-stream-100",
            "http2-16-c64",
            "memory-http2",
            "memory",
            "start",
        ];
        return scenario::chosen(&names.map(str::to_owned));
    }
    scenario::chosen(&args.scenarios)
}

fn wanted_proxies(args: &Args) -> Result<Vec<Proxy>, String> {
    let mut wanted = vec![Proxy::Wharf];
    if args.proxies.is_empty() {
        return Ok(match args.profile {
            Profile::Full => Proxy::ALL.to_vec(),
            Profile::Smoke => vec![Proxy::Wharf, Proxy::Floor, Proxy::Hyper],
        });
    }
    for name in &args.proxies {
        let proxy = Proxy::named(name).ok_or_else(|| {
            let known: Vec<_> = Proxy::ALL.iter().map(|proxy| proxy.name()).collect();
            format!(
                "no proxy is called {name:?}; there are {}",
                known.join(", ")
            )
        })?;
        if !wanted.contains(&proxy) {
            wanted.push(proxy);
        }
    }
    wanted.sort_unstable();
    Ok(wanted)
}

fn read_goals(path: &Path) -> Result<Goals, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| told(&error))?;
    let goals = Goals::parse(&text).map_err(|error| told(&error))?;
    goals.check().map_err(|error| told(&error))?;
    Ok(goals)
}

fn settings(bench: &Bench, rounds: u32) -> Vec<(&'static str, String)> {
    vec![
        (
            "rounds",
            format!(
                "{rounds}, forwards and backwards in turn; {} s each after {} s of warming up",
                bench.seconds, bench.warm_up
            ),
        ),
        (
            "placed",
            format!(
                "proxy on CPU {}, load and backend on CPU {}; one worker",
                bench.cpus.proxy, bench.cpus.rest[0]
            ),
        ),
        (
            "built",
            if cfg!(debug_assertions) {
                "what loads and answers is not optimised: **figures of this report mean nothing**".to_owned()
            } else {
                "optimised".to_owned()
            },
        ),
        (
            "logs",
            "wharf has its default settings, so it writes its access log, to a file; the others write none".to_owned(),
        ),
    ]
}

fn tools() -> PathBuf {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    home.join(".cache/wharf-tools")
}

fn say(text: &str) {
    // A reader who has left is no reason to fail.
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "loopback: {text}");
}

#[cfg(test)]
mod tests {
    use super::measure::Others;
    use super::*;

    fn taken(sample: Sample, smoke: bool) -> Cell {
        let mut cell = Cell::default();
        take(&mut cell, Ok(sample), smoke);
        cell
    }

    #[test]
    fn a_round_with_a_failed_call_or_a_disturbed_one_has_no_figure() {
        let failed = Sample {
            failures: 3,
            first_failure: Some("status 503".to_owned()),
            ..Sample::default()
        };
        let cell = taken(failed, false);
        assert!(cell.rounds[0].is_none());
        assert_eq!(cell.gaps, ["3 calls failed, the first: status 503"]);

        let disturbed = |stolen| Sample {
            disturbed: Some(Others { share: 0.4, stolen }),
            ..Sample::default()
        };
        let others = "too busy for a figure: others used 40 % of a CPU meanwhile";
        for (stolen, told) in [
            (0.1, others.to_owned()),
            (
                0.3,
                format!("{others}, 30 % of a CPU outside of this machine"),
            ),
        ] {
            let cell = taken(disturbed(stolen), false);
            assert!(cell.rounds[0].is_none());
            assert_eq!(cell.gaps, [told]);
        }
        let disturbed = disturbed(0.0);
        let cell = taken(disturbed, true);
        assert!(
            cell.rounds[0].is_some(),
            "its calls were right, which is what a smoke asks"
        );
        assert!(cell.gaps.is_empty());
        assert!(taken(Sample::default(), false).rounds[0].is_some());
    }
}
