//! The machine that is measured on: what stands in a report's head, which CPUs are whose, and whether it is quiet enough for
//! a figure. Owns that judgement; measures no proxy.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use serde::Serialize;

use super::proc::{self, CpuTicks};
use super::{Refusal, complain};

/// How long the machine is looked at before it is believed to be quiet: thirty ticks of most kernels.
const LOOK: Duration = Duration::from_millis(300);
/// The share of one CPU that others may use. A shell, an editor and a few timers need a tenth of this.
const BUSY_MAX: f64 = 0.10;
/// How often it is looked at before a run gives up: half a minute.
pub(super) const LOOKS: u32 = 100;
/// How often where no figure is needed: some seconds.
pub(super) const LOOKS_OF_SMOKE: u32 = 10;
/// How many of those who are busy are named.
const NAMED_MAX: usize = 3;

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cpus {
    /// Proxies of one worker.
    pub(super) proxy: usize,
    /// Backend, load, and the run itself.
    pub(super) rest: Vec<usize>,
    /// A proxy of two workers. On a machine of two, the second is shared with the rest.
    pub(super) both: Vec<usize>,
}

impl Cpus {
    /// From those that this process may use.
    pub(super) fn choose() -> Result<Self, Refusal> {
        Self::share_out(&allowed())
    }

    /// Everything on one CPU: no figure comes of it, but calls can be checked.
    pub(super) fn only() -> Self {
        let cpu = allowed().first().copied().unwrap_or(0);
        Self {
            proxy: cpu,
            rest: vec![cpu],
            both: vec![cpu],
        }
    }

    fn share_out(all: &[usize]) -> Result<Self, Refusal> {
        let [first, second, others @ ..] = all else {
            return Err(Refusal::Machine(format!(
                "this process may use {} CPU: a proxy needs one for itself and what loads it another, so there is nothing \
                 to measure here",
                all.len()
            )));
        };
        Ok(Self {
            proxy: *first,
            // One CPU for the rest, as in every run: what loads must not become quicker with the machine.
            rest: vec![others.first().copied().unwrap_or(*second)],
            both: vec![*first, *second],
        })
    }

    fn used(&self) -> Vec<usize> {
        let mut used = self.both.clone();
        used.extend(&self.rest);
        used.sort_unstable();
        used.dedup();
        used
    }
}

/// The CPUs that this process may use.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// Waits until the CPUs of this run are left alone; `Err` says who uses them.
pub(super) fn until_quiet(cpus: &Cpus, looks: u32) -> Result<(), Refusal> {
    let mut waits = 0;
    let wait = |time| {
        waits += 1;
        if waits == 2 {
            complain("waiting for the machine to be quiet");
        }
        std::thread::sleep(time);
    };
    match quiet_within(&cpus.used(), looks, proc::cpus, wait) {
        Ok(()) => Ok(()),
        Err(share) => {
            let busiest = proc::busiest(LOOK, std::process::id());
            Err(Refusal::Busy(busy_text(share, &busiest)))
        }
    }
}

/// Looks again and again; the share of the busiest CPU if it was never quiet.
fn quiet_within(
    used: &[usize],
    looks: u32,
    mut sample: impl FnMut() -> BTreeMap<usize, CpuTicks>,
    mut wait: impl FnMut(Duration),
) -> Result<(), f64> {
    let mut before = sample();
    let mut share = 0.0;
    for _ in 0..looks {
        wait(LOOK);
        let after = sample();
        share = busy_share(used, &before, &after);
        if share <= BUSY_MAX {
            return Ok(());
        }
        before = after;
    }
    Err(share)
}

fn busy_share(
    used: &[usize],
    before: &BTreeMap<usize, CpuTicks>,
    after: &BTreeMap<usize, CpuTicks>,
) -> f64 {
    used.iter()
        .filter_map(|cpu| Some(after.get(cpu)?.busy_since(*before.get(cpu)?)))
        .fold(0.0, f64::max)
}

fn busy_text(share: f64, busiest: &[(f64, u32, String)]) -> String {
    let named: Vec<_> = busiest
        .iter()
        .take(NAMED_MAX)
        .map(|(share, pid, name)| format!("{name} (process {pid}) uses {:.0} %", share * 100.0))
        .collect();
    let who = if named.is_empty() {
        "no process that can be seen from here, so perhaps a neighbour on the same hardware"
            .to_owned()
    } else {
        named.join(", ")
    };
    format!(
        "the machine is too busy for a figure: others use {:.0} % of a CPU that this run needs ({who}); end them and run again",
        share * 100.0
    )
}

/// Only one run at a time: two that overlap measure each other. Held as long as the file lives.
pub(super) fn alone(path: &Path) -> Result<File, Refusal> {
    let unable = |error: &dyn std::fmt::Display| {
        Refusal::Machine(format!("{}: cannot be locked: {error}", path.display()))
    };
    let file = File::create(path).map_err(|error| unable(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Refusal::Busy(format!(
            "another run is measuring (it holds {}): wait for its end",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unable(&error)),
    }
}

/// Where the lock is: one for all checkouts of a machine's user.
pub(super) fn lock_path() -> PathBuf {
    std::env::temp_dir().join("wharf-loopback.lock")
}

/// Lets this process and what it starts open so many descriptors; what it may open afterwards.
pub(super) fn allow_descriptors(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let maximum = now.maximum.unwrap_or(u64::MAX);
    // Raising the hard limit takes a privilege; the soft one goes up to it without.
    let raised = Rlimit {
        current: Some(wanted),
        maximum: Some(maximum.max(wanted)),
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted.min(maximum)),
                maximum: now.maximum,
            },
        );
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What stands in the head of a report: without it a figure means nothing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Head {
    /// UTC.
    pub(super) date: String,
    /// Its release.
    pub(super) kernel: String,
    /// As it calls itself.
    pub(super) cpu: String,
    /// That this process may use.
    pub(super) cpus: usize,
    /// Of the proxy's CPU, the smallest first.
    pub(super) caches: Vec<String>,
    /// Who sets the clock rate, where the kernel does.
    pub(super) governor: String,
    /// TCP's, for all programs alike.
    pub(super) congestion_control: String,
    /// Descriptors that a program may open.
    pub(super) descriptors_max: u64,
}

impl Head {
    /// Reads it.
    pub(super) fn read(cpus: &Cpus, descriptors_max: u64) -> Self {
        let cpu = format!("/sys/devices/system/cpu/cpu{}", cpus.proxy);
        Self {
            date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            cpu: model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cpus: allowed().len(),
            caches: (0..8)
                .map_while(|index| cache(&format!("{cpu}/cache/index{index}")))
                .collect(),
            governor: line_of(&format!("{cpu}/cpufreq/scaling_governor")),
            congestion_control: line_of("/proc/sys/net/ipv4/tcp_congestion_control"),
            descriptors_max,
        }
    }
}

fn model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn cache(folder: &str) -> Option<String> {
    let part = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok();
    Some(format!(
        "L{} {} {}",
        part("level")?.trim(),
        part("type")?.trim().to_lowercase(),
        part("size")?.trim()
    ))
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path).map_or_else(
        |_| "not told by the kernel".to_owned(),
        |text| text.trim().to_owned(),
    )
}

/// The first line of what a program says; "unknown" if it says nothing.
pub(super) fn said_by(command: &mut Command) -> String {
    command
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find(|line| !line.trim().is_empty())?;
            Some(line.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two CPUs after `looks` looks of thirty ticks each, the first busy by so many ticks a look.
    fn stat(looks: u64, busy: u64) -> BTreeMap<usize, CpuTicks> {
        proc::parse_cpus(&format!(
            "cpu0 {} 0 0 {} 0 0 0 0 0 0\ncpu1 0 0 0 {} 0 0 0 0 0 0\n",
            looks * busy,
            looks * (30 - busy),
            looks * 30
        ))
    }

    fn looked_at(busy: u64, looks: u32, used: &[usize]) -> Result<(), f64> {
        let mut look = 0;
        let sample = || {
            look += 1;
            stat(look, busy)
        };
        quiet_within(used, looks, sample, |_| {})
    }

    #[test]
    fn a_machine_is_quiet_up_to_a_tenth_of_a_cpu() {
        assert_eq!(looked_at(0, 1, &[0, 1]), Ok(()));
        assert_eq!(looked_at(3, 1, &[0, 1]), Ok(()));
        let share = looked_at(15, 4, &[0, 1]).expect_err("half a CPU is busy");
        assert!((share - 0.5).abs() < 1e-9);
        assert_eq!(
            looked_at(15, 4, &[1]),
            Ok(()),
            "a CPU that nobody here needs"
        );
    }

    #[test]
    fn a_machine_that_becomes_quiet_is_waited_for() {
        let mut look = 0;
        let mut waits = 0;
        let sample = || {
            look += 1;
            // Fully busy for three looks, then idle.
            let busy = 30 * u64::min(look, 3);
            proc::parse_cpus(&format!("cpu0 {busy} 0 0 {} 0 0 0 0", look * 30 - busy))
        };
        assert_eq!(quiet_within(&[0], 100, sample, |_| waits += 1), Ok(()));
        assert_eq!(waits, 3);
    }

    #[test]
    fn who_is_busy_is_named() {
        let text = busy_text(
            0.42,
            &[(0.4, 77, "rustc".to_owned()), (0.02, 78, "sh".to_owned())],
        );
        assert!(text.contains("too busy for a figure"), "{text}");
        assert!(text.contains("rustc (process 77) uses 40 %"), "{text}");
        assert!(busy_text(0.42, &[]).contains("neighbour"));
    }

    #[test]
    fn one_cpu_is_not_enough_and_the_load_never_has_more_than_one() {
        assert!(matches!(Cpus::share_out(&[3]), Err(Refusal::Machine(_))));
        let two = Cpus::share_out(&[0, 1]).expect("enough");
        assert_eq!(
            (two.proxy, &two.rest[..], &two.both[..]),
            (0, &[1][..], &[0, 1][..])
        );
        let four = Cpus::share_out(&[0, 1, 2, 3]).expect("enough");
        assert_eq!((&four.rest[..], &four.both[..]), (&[2][..], &[0, 1][..]));
        assert_eq!(four.used(), [0, 1, 2]);
    }

    #[test]
    fn a_second_run_is_refused_while_the_first_lasts() {
        let path = std::env::temp_dir().join(format!("loopback-lock-{}", std::process::id()));
        let first = alone(&path).expect("nobody else");
        let Err(Refusal::Busy(text)) = alone(&path) else {
            panic!("two runs at once");
        };
        assert!(text.contains("another run is measuring"), "{text}");
        drop(first);
        assert!(alone(&path).is_ok());
        let _ = fs::remove_file(path);
    }

    #[test]
    fn the_model_of_a_cpu_is_read() {
        assert_eq!(
            model("vendor_id\t: X\nmodel name\t: Some CPU 9\n"),
            "Some CPU 9"
        );
        assert_eq!(model(""), "unknown");
    }
}
