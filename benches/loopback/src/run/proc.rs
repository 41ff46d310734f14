//! Reads /proc: what a process has used, and what the machine is doing. Owns the parsers and the arithmetic between two
//! readings; never decides whether a figure is good enough.
//!
//! Formats: proc_pid_stat(5), proc_stat(5), proc_pid_status(5), and the kernel's `scheduler/sched-stats` page.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What /proc counts time in, ticks a second.
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// One CPU's time since the machine started, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTicks {
    /// With work of any kind, and what a hypervisor took away.
    pub(super) busy: u64,
    /// The latter alone.
    pub(super) stolen: u64,
    /// With and without work.
    pub(super) all: u64,
}

impl CpuTicks {
    /// The share of time with work since `before`; 0 where no tick has passed.
    pub(super) fn busy_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 {
            return 0.0;
        }
        self.busy.saturating_sub(before.busy) as f64 / all as f64
    }
}

/// The lines `cpuN` of /proc/stat.
pub(super) fn parse_cpus(text: &str) -> BTreeMap<usize, CpuTicks> {
    let mut cpus = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(number) = words
            .next()
            .and_then(|word| word.strip_prefix("cpu"))
            .and_then(|number| number.parse().ok())
        else {
            continue;
        };
        // user nice system idle iowait irq softirq steal; what follows is in user already.
        let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        cpus.insert(
            number,
            CpuTicks {
                busy: all - idle,
                stolen: ticks.get(7).copied().unwrap_or_default(),
                all,
            },
        );
    }
    cpus
}

/// All CPUs now; empty where /proc cannot be read.
pub(super) fn cpus() -> BTreeMap<usize, CpuTicks> {
    parse_cpus(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// A line of /proc/PID/stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its program's name, cut to 15 bytes by the kernel.
    pub(super) name: String,
    /// The process that started it.
    pub(super) parent: u32,
    /// User and system time of all its threads, also of those that have ended, in ticks.
    pub(super) ticks: u64,
}

/// The name may hold blanks and brackets: it ends at the last one that closes.
pub(super) fn parse_stat(text: &str) -> Option<Stat> {
    let (before, rest) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    // The first word here is field 3, the state; 4 is the parent, 14 and 15 are utime and stime.
    let number = |field: usize| words.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)? + number(15)?,
    })
}

/// The first word of a thread's `schedstat`: nanoseconds on a CPU.
pub(super) fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The value of `key` in a file of `Key:  N kB` lines, in bytes.
pub(super) fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What a process holds in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident, shared pages counted whole.
    pub(super) rss: u64,
    /// Resident, shared pages divided by those who share them; `None` where the kernel does not say.
    pub(super) pss: Option<u64>,
}

/// Memory of a process now.
pub(super) fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Some(Memory {
        rss: parse_kib(&status, "VmRSS")?,
        pss: parse_kib(&rollup, "Pss"),
    })
}

/// The CPU time of a process at one moment.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    /// Nanoseconds on a CPU of each thread that lives.
    threads: BTreeMap<u32, u64>,
    /// Of all threads that ever were, in ticks.
    ticks: u64,
}

impl Usage {
    /// Reads it; `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let Some(nanoseconds) = parse_schedstat(&text) {
                threads.insert(id, nanoseconds);
            }
        }
        let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self {
            threads,
            ticks: stat.ticks,
        })
    }

    /// What was used since `before`.
    pub(super) fn since(&self, before: &Self) -> Used {
        let nanoseconds = self
            .threads
            .iter()
            .map(|(id, now)| now.saturating_sub(before.threads.get(id).copied().unwrap_or(0)))
            .sum();
        Used {
            nanoseconds,
            tick_nanoseconds: self.ticks.saturating_sub(before.ticks) * 1_000_000_000
                / ticks_per_second(),
            threads_ended: before
                .threads
                .keys()
                .filter(|id| !self.threads.contains_key(id))
                .count(),
        }
    }
}

/// CPU time between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// By the scheduler's own clocks, of the threads that live at the end.
    pub(super) nanoseconds: u64,
    /// By the tick, of all threads.
    pub(super) tick_nanoseconds: u64,
    /// Threads whose time is missing in the first figure.
    pub(super) threads_ended: usize,
}

impl Used {
    /// Where the two clocks are further apart than ticks are coarse, in words.
    pub(super) fn doubt(&self) -> Option<String> {
        let tick = 1_000_000_000 / ticks_per_second();
        let apart = self.nanoseconds.abs_diff(self.tick_nanoseconds);
        let far = apart as f64 > 0.05 * self.nanoseconds.max(self.tick_nanoseconds) as f64;
        if far && apart > 5 * tick {
            return Some(format!(
                "the scheduler counts {} ms of CPU, the tick {} ms",
                self.nanoseconds / 1_000_000,
                self.tick_nanoseconds / 1_000_000
            ));
        }
        (self.threads_ended > 0)
            .then(|| format!("{} threads ended while it was measured", self.threads_ended))
    }
}

/// Who uses the machine: each process's share of one CPU over `during`, the largest first. `own` and what it started stay out.
pub(super) fn busiest(during: Duration, own: u32) -> Vec<(f64, u32, String)> {
    let before = processes();
    std::thread::sleep(during);
    let after = processes();
    let ours = descendants(&after, own);
    let ticks = during.as_secs_f64() * ticks_per_second() as f64;
    let mut shares: Vec<_> = after
        .iter()
        .filter(|(pid, _)| !ours.contains(pid))
        .map(|(pid, now)| {
            let then = before.get(pid).map_or(now.ticks, |then| then.ticks);
            let share = now.ticks.saturating_sub(then) as f64 / ticks;
            (share, *pid, now.name.clone())
        })
        .filter(|(share, ..)| *share > 0.0)
        .collect();
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    shares
}

/// CPU time of `own` and everything below it, in ticks.
pub(super) fn ticks_of(own: u32) -> u64 {
    let all = processes();
    let ours = descendants(&all, own);
    all.iter()
        .filter(|(pid, _)| ours.contains(pid))
        .map(|(_, stat)| stat.ticks)
        .sum()
}

fn processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect()
}

fn descendants(all: &BTreeMap<u32, Stat>, own: u32) -> Vec<u32> {
    let mut ours = vec![own];
    let mut at = 0;
    while let Some(parent) = ours.get(at).copied() {
        ours.extend(
            all.iter()
                .filter(|(_, stat)| stat.parent == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  300 0 100 1600 0 0 0 0 0 0\n\
                          cpu0 100 10 50 800 20 5 10 5 0 0\n\
                          cpu1 200 0 50 750 0 0 0 0 0 0\n\
                          intr 12345\nctxt 99\n";
    const AFTER: &str = "cpu0 110 10 55 883 20 5 10 7 0 0\n\
                         cpu1 200 0 50 850 0 0 0 0 0 0\n";

    #[test]
    fn the_busy_share_of_a_cpu_is_what_is_neither_idle_nor_waiting() {
        let (before, after) = (parse_cpus(BEFORE), parse_cpus(AFTER));
        assert_eq!(before.len(), 2, "the sum of all is no CPU");
        assert_eq!(
            before[&0],
            CpuTicks {
                busy: 180,
                stolen: 5,
                all: 1000
            }
        );
        // 10 user, 5 system, 2 stolen of 100.
        assert!((after[&0].busy_since(before[&0]) - 0.17).abs() < 1e-9);
        assert_eq!(after[&1].busy_since(before[&1]), 0.0);
        assert_eq!(after[&1].busy_since(after[&1]), 0.0, "no tick has passed");
    }

    #[test]
    fn a_process_may_be_named_with_blanks_and_brackets() {
        let text = "77 (a ) (b) R 5 77 77 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 3 0 100 1 2";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                name: "a ) (b".to_owned(),
                parent: 5,
                ticks: 300
            })
        );
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("77 (a) R 5"), None);
    }

    #[test]
    fn schedstat_begins_with_nanoseconds() {
        assert_eq!(parse_schedstat("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn memory_is_told_in_kib() {
        let text = "VmHWM:\t 9000 kB\nVmRSS:\t    2312 kB\nThreads: 3\n";
        assert_eq!(parse_kib(text, "VmRSS"), Some(2312 * 1024));
        assert_eq!(
            parse_kib("Pss:   10 kB\nPss_Dirty: 4 kB\n", "Pss"),
            Some(10_240)
        );
        assert_eq!(parse_kib(text, "Vm"), None, "a key is a whole word");
    }

    #[test]
    fn cpu_time_is_summed_over_threads_and_those_that_ended_are_told() {
        let before = Usage {
            threads: BTreeMap::from([(1, 1_000), (2, 500), (3, 9)]),
            ticks: 0,
        };
        let after = Usage {
            threads: BTreeMap::from([(1, 6_000), (2, 500), (4, 2_000)]),
            ticks: 0,
        };
        let used = after.since(&before);
        assert_eq!(used.nanoseconds, 7_000, "thread 4 is new, thread 3 is gone");
        assert_eq!(used.threads_ended, 1);
        assert!(used.doubt().is_some_and(|doubt| doubt.contains("1 thread")));
    }

    #[test]
    fn two_clocks_that_disagree_by_more_than_ticks_are_told() {
        let used = |nanoseconds, tick_nanoseconds| Used {
            nanoseconds,
            tick_nanoseconds,
            threads_ended: 0,
        };
        assert_eq!(used(1_000_000_000, 980_000_000).doubt(), None);
        assert_eq!(used(20_000_000, 0).doubt(), None, "two ticks are nothing");
        assert!(used(1_000_000_000, 1_200_000_000).doubt().is_some());
    }

    #[test]
    fn this_process_is_among_those_that_are_read() {
        let own = std::process::id();
        assert!(Usage::of(own).is_some());
        assert!(memory(own).is_some_and(|memory| memory.rss > 0));
        assert!(descendants(&processes(), own).contains(&own));
        assert!(Usage::of(u32::MAX).is_none());
    }
}
