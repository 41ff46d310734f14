//! One cell: a proxy in a scenario in one round, from the proxy's start to its end. Owns what is read when; compares nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::Refusal;
use super::child::{Ports, Program, Running, Telling};
use super::figures::Spread;
use super::machine::Cpus;
use super::proc::{self, Usage};
use super::proxies::{Places, Proxy, Task};
use super::scenario::{Backend, Scenario, Work};

/// Patience with a load beyond the time that it was given: it has to connect, and to end.
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// What a proxy is given to settle before its memory is read.
const SETTLE: Duration = Duration::from_millis(700);
/// The share of a CPU that others may have used while a cell was measured.
const OTHERS_MAX: f64 = 0.10;
/// Starts of one round; their median counts.
const STARTS: usize = 5;
/// strace and valgrind count in two runs of such lengths; the difference has neither the start nor the end in it.
const COUNTED_SECONDS: [u32; 2] = [1, 8];
/// What comes before that in both.
const COUNTED_FIRST_SECONDS: u32 = 3;
/// With fewer calls in the difference a few calls at the edges would be seen in it.
const COUNTED_MIN: f64 = 500.0;

/// What one round yielded.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// By the names of the columns.
    pub(super) metrics: BTreeMap<&'static str, f64>,
    /// Calls that were not answered rightly. With one of them there is no figure.
    pub(super) failures: u64,
    /// The first of them, as the load tells it.
    pub(super) first_failure: Option<String>,
    /// What others used meanwhile, where it was too much for a figure.
    pub(super) disturbed: Option<Others>,
    /// What a reader of the figure should know.
    pub(super) notes: Vec<String>,
}

/// What neither this run nor what it started used, in shares of one CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Others {
    /// All of it.
    pub(super) share: f64,
    /// What a hypervisor took away, for its other guests.
    pub(super) stolen: f64,
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "others used {:.0} % of a CPU meanwhile",
            self.share * 100.0
        )?;
        if self.stolen * 2.0 > self.share {
            write!(
                f,
                ", {:.0} % of a CPU outside of this machine",
                self.stolen * 100.0
            )?;
        }
        Ok(())
    }
}

/// How large the memory's crowds are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    /// Connections.
    pub(super) connections: usize,
    /// Open, silent streams.
    pub(super) streams: usize,
    /// Connections of HTTP/2.
    pub(super) http2: usize,
}

/// What all cells share.
#[derive(Debug)]
pub(super) struct Bench {
    /// Where programs are.
    pub(super) places: Places,
    /// Who runs where.
    pub(super) cpus: Cpus,
    /// For the proxies.
    pub(super) ports: Ports,
    /// The backends' ports.
    pub(super) backends: BTreeMap<&'static str, u16>,
    /// Measured seconds of one cell.
    pub(super) seconds: f64,
    /// Seconds before them.
    pub(super) warm_up: f64,
    /// For the memory.
    pub(super) crowd: Crowd,
    /// Somebody wants us to end.
    pub(super) interrupted: Arc<AtomicBool>,
}

/// Why a cell has no figure.
#[derive(Debug)]
pub(super) enum Gap {
    /// This cell only; the run goes on.
    Cell(String),
    /// The whole run ends.
    Run(Refusal),
}

impl From<String> for Gap {
    fn from(text: String) -> Self {
        Self::Cell(text)
    }
}

impl From<Refusal> for Gap {
    fn from(refusal: Refusal) -> Self {
        Self::Run(refusal)
    }
}

impl Bench {
    /// One round of one scenario with one proxy.
    pub(super) fn cell(&mut self, scenario: &Scenario, proxy: Proxy) -> Result<Sample, Gap> {
        match scenario.work {
            Work::Load {
                load,
                bytes,
                workers,
            } => self.load(scenario, proxy, load, bytes, workers),
            Work::Memory => self.memory(proxy),
            Work::MemoryHttp2 => self.memory_http2(proxy),
            Work::Start => self.starts(scenario, proxy),
            Work::SystemCalls { load } => self.counted(proxy, load, "system_calls", &STRACE),
            Work::Instructions { load } => self.counted(proxy, load, "instructions", &VALGRIND),
        }
    }

    fn backend(&self, backend: Backend) -> u16 {
        let word = Backend::ALL
            .iter()
            .find_map(|(own, word)| (*own == backend).then_some(*word));
        word.and_then(|word| self.backends.get(word))
            .copied()
            .unwrap_or(0)
    }

    fn task(&mut self, backend: u16, workers: usize) -> Result<Task, Refusal> {
        Ok(Task {
            listen: self.ports.take()?,
            backend,
            workers,
        })
    }

    fn start(&self, proxy: Proxy, task: Task) -> Result<(Running, Duration), String> {
        let program = self.places.program(proxy, task)?;
        let cpus = if task.workers > 1 {
            &self.cpus.both[..]
        } else {
            std::slice::from_ref(&self.cpus.proxy)
        };
        started(&program, cpus, task.listen)
    }

    /// A load's command line.
    fn loading(&self, listen: u16, words: &[&str], more: &[String]) -> Program {
        let mut arguments = vec!["load".to_owned()];
        arguments.extend(words.iter().map(|&word| word.to_owned()));
        arguments.extend(["--target".to_owned(), format!("127.0.0.1:{listen}")]);
        arguments.extend(more.iter().cloned());
        let mut program = Program::new(&self.places.own, arguments);
        program.log = Some(self.places.out.join("load.log"));
        program
    }

    fn tell(&self, program: &Program) -> Result<Telling, String> {
        Telling::start(program, &self.cpus.rest, &self.interrupted)
    }

    fn load(
        &mut self,
        scenario: &Scenario,
        proxy: Proxy,
        words: &[&str],
        bytes: Option<usize>,
        workers: usize,
    ) -> Result<Sample, Gap> {
        let floor = proxy == Proxy::Floor;
        let mut task = self.task(self.backend(scenario.backend), workers)?;
        let mut echo = None;
        if let (true, Some(bytes)) = (floor, bytes) {
            // The floor's own other end, which speaks its framing in the place of HTTP/2 and knows how long a request is.
            task.backend = self.ports.take()?;
            let listen = format!("127.0.0.1:{}", task.backend);
            let bytes = bytes.to_string();
            let program = Program::new(
                &self.places.own,
                [
                    "floor-echo",
                    "--kind",
                    "mux",
                    "--listen",
                    &listen,
                    "--bytes",
                    &bytes,
                ],
            );
            echo = Some(started(&program, &self.cpus.rest, task.backend)?);
        }
        let (mut running, _) = self.start(proxy, task)?;
        let times = [
            "--seconds".to_owned(),
            self.seconds.to_string(),
            "--warm-up".to_owned(),
            self.warm_up.to_string(),
            // The load reads the proxy's CPU time itself, at the very moments between which it counts.
            "--watch".to_owned(),
            running.pid().to_string(),
        ];
        let load = self.tell(&self.loading(task.listen, words, &times))?;
        let limit = LOAD_LIMIT + Duration::from_secs_f64(self.seconds + self.warm_up);
        let pid = running.pid();
        let gone = || format!("{} ended under the load", proxy.name());

        let begin = load.event("begin", limit)?;
        let before = Usage::of(pid).ok_or_else(gone)?;
        let (cpus, ours) = (proc::cpus(), proc::ticks_of(std::process::id()));
        let end = load.event("end", limit)?;
        let after = Usage::of(pid).ok_or_else(gone)?;
        let others = others(&cpus, ours, &self.cpus);
        let summary = load.summary(limit)?;
        running.stop();
        drop(echo);

        let used = after.since(&before);
        let nanoseconds = match (begin["cpu_ns"].as_u64(), end["cpu_ns"].as_u64()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => return Err(Gap::Cell(gone())),
        };
        let counted = number(&end, scenario.per).or_else(|| number(&summary, scenario.per));
        let Some(counted) = counted.filter(|counted| *counted > 0.0) else {
            return Err(Gap::Cell(format!("nothing was counted: {summary}")));
        };
        let mut sample = Sample::default();
        sample.count_failures(&summary);
        let seconds = summary["seconds"].as_f64().unwrap_or(self.seconds);
        sample.set("cpu_us", nanoseconds as f64 / 1000.0 / counted);
        sample.set("per_second", counted / seconds);
        sample.set("utilisation", nanoseconds as f64 / 1e9 / seconds);
        for (metric, key) in [
            ("p50_us", "p50"),
            ("p90_us", "p90"),
            ("p99_us", "p99"),
            ("max_us", "max"),
        ] {
            let value = summary["latency_us"][key].as_f64();
            if let Some(value) = value.filter(|value| *value > 0.0) {
                sample.set(metric, value);
            }
        }
        sample.notes.extend(used.doubt());
        sample.disturbed = (others.share > OTHERS_MAX).then_some(others);
        Ok(sample)
    }

    fn memory(&mut self, proxy: Proxy) -> Result<Sample, Gap> {
        let mut sample = Sample::default();
        let Crowd {
            connections,
            streams,
            ..
        } = self.crowd;

        // Connections that never call.
        let (running, idle) = self.settled(proxy, Backend::Unary)?;
        let crowd = ["--connections".to_owned(), connections.to_string()];
        let held = self.hold(&running, &crowd, &[])?;
        sample.set("rss_idle", idle.rss as f64);
        if let Some(pss) = idle.pss {
            sample.set("pss_idle", pss as f64);
        }
        sample.set(
            "rss_per_connection",
            grown(held.now.rss, idle.rss, connections),
        );
        held.finish(&mut sample)?;
        drop(running);

        // Connections that have called, all at once; and what stays when they have left.
        let (running, idle) = self.settled(proxy, Backend::Unary)?;
        let once = ["--calls-each", "1", "--leave-then-hold", "3"];
        let held = self.hold(&running, &crowd, &once)?;
        sample.set(
            "rss_per_used_connection",
            grown(held.now.rss, idle.rss, connections),
        );
        held.load.event("left", LOAD_LIMIT)?;
        thread::sleep(SETTLE * 2);
        let left = read_memory(running.0.pid())?;
        sample.set("rss_left", left.rss as f64);
        held.finish(&mut sample)?;
        drop(running);

        // Streams that are open and silent.
        let (running, idle) = self.settled(proxy, Backend::Hang)?;
        let crowd = ["--connections".to_owned(), streams.to_string()];
        let held = self.hold(&running, &crowd, &["--open-streams"])?;
        sample.set("rss_per_stream", grown(held.now.rss, idle.rss, streams));
        held.finish(&mut sample)?;
        Ok(sample)
    }

    /// Connections of HTTP/2 that have greeted and been greeted, and never call; and those that have called once, all at once.
    fn memory_http2(&mut self, proxy: Proxy) -> Result<Sample, Gap> {
        let mut sample = Sample::default();
        let connections = self.crowd.http2;
        let crowd = [
            "--native".to_owned(),
            "--connections".to_owned(),
            connections.to_string(),
        ];
        for (metric, more) in [
            ("rss_per_connection", &[][..]),
            ("rss_per_used_connection", &["--calls-each", "1"]),
        ] {
            let (running, idle) = self.settled(proxy, Backend::Unary)?;
            let held = self.hold(&running, &crowd, more)?;
            sample.set("rss_idle", idle.rss as f64);
            sample.set(metric, grown(held.now.rss, idle.rss, connections));
            held.finish(&mut sample)?;
        }
        Ok(sample)
    }

    /// A proxy that has come to rest, and what it holds then.
    fn settled(
        &mut self,
        proxy: Proxy,
        backend: Backend,
    ) -> Result<((Running, u16), proc::Memory), Gap> {
        let task = self.task(self.backend(backend), 1)?;
        let (running, _) = self.start(proxy, task)?;
        thread::sleep(SETTLE);
        let memory = read_memory(running.pid())?;
        Ok(((running, task.listen), memory))
    }

    /// A crowd that has come and stays for a while.
    fn hold(&self, running: &(Running, u16), crowd: &[String], more: &[&str]) -> Result<Held, Gap> {
        let mut words = vec!["idle", "--hold", "2"];
        words.extend(more);
        let load = self.tell(&self.loading(running.1, &words, crowd))?;
        load.event("holding", LOAD_LIMIT)?;
        thread::sleep(SETTLE);
        let now = read_memory(running.0.pid())?;
        Ok(Held { load, now })
    }

    /// Each start beside one of a program that only listens, so that what the kernel and the loader need can be taken off.
    fn starts(&mut self, scenario: &Scenario, proxy: Proxy) -> Result<Sample, Gap> {
        let cpu = [self.cpus.proxy];
        let (mut taken, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let task = self.task(self.backend(scenario.backend), 1)?;
            let listener = self.places.listener(task);
            let (_running, took) = started(&listener, &cpu, task.listen)?;
            bare.push(Some(milliseconds(took)));
            let task = self.task(self.backend(scenario.backend), 1)?;
            let (_running, took) = match proxy {
                // The other floor would take the backend's HTTP/2 for its own framing.
                Proxy::Floor => started(&self.places.listener(task), &cpu, task.listen)?,
                _ => self.start(proxy, task)?,
            };
            taken.push(Some(milliseconds(took)));
        }
        let mut sample = Sample::default();
        if let (Some(taken), Some(bare)) = (Spread::of(&taken), Spread::of(&bare)) {
            sample.set("start_ms", taken.median);
            sample.set("start_own_ms", taken.median - bare.median);
        }
        Ok(sample)
    }

    /// A load without a warm-up: the counter counts all of it.
    fn counted_load(&self, listen: u16, words: &[&str], seconds: u32) -> Result<Value, String> {
        let times = ["--seconds", &seconds.to_string(), "--warm-up", "0"].map(str::to_owned);
        let load = self.tell(&self.loading(listen, words, &times))?;
        load.summary(LOAD_LIMIT + Duration::from_secs(seconds.into()))
    }

    /// What a counter says of two runs, one longer than the other: the difference, divided by the difference in calls.
    fn counted(
        &mut self,
        proxy: Proxy,
        words: &[&str],
        metric: &'static str,
        counter: &Counter,
    ) -> Result<Sample, Gap> {
        let mut seen = [(0.0, 0.0); 2];
        let mut sample = Sample::default();
        for (at, seconds) in COUNTED_SECONDS.into_iter().enumerate() {
            let task = self.task(self.backend(Backend::Unary), 1)?;
            let told = self.places.out.join(format!("{}.txt", counter.program));
            let _ = fs::remove_file(&told);
            let program = self
                .places
                .program(proxy, task)?
                .under(counter.program, (counter.arguments)(&told));
            let cpu = std::slice::from_ref(&self.cpus.proxy);
            let (mut running, _) = started(&program, cpu, task.listen).map_err(|error| {
                format!(
                    "not measured: {error} ({} counts this; Debian's package has that name)",
                    counter.program
                )
            })?;
            // The first calls under a counter are so slow that the backend may count as lost: they are made alike in both
            // runs, and may fail.
            let first = self.counted_load(task.listen, words, COUNTED_FIRST_SECONDS)?;
            let summary = self.counted_load(task.listen, words, seconds)?;
            sample.count_failures(&summary);
            running.stop();
            let count = until_told(&told, counter.read)
                .ok_or_else(|| format!("{} did not say what it counted", counter.program))?;
            let calls = [first, summary]
                .iter()
                .filter_map(|summary| number(summary, "call"))
                .sum();
            seen[at] = (count, calls);
        }
        let calls = seen[1].1 - seen[0].1;
        if calls < COUNTED_MIN {
            return Err(Gap::Cell(format!("only {calls} calls were counted")));
        }
        sample.set(metric, (seen[1].0 - seen[0].0) / calls);
        Ok(sample)
    }
}

impl Sample {
    fn count_failures(&mut self, summary: &Value) {
        self.failures += summary["failures"].as_u64().unwrap_or(0);
        if self.first_failure.is_none() {
            self.first_failure = summary["first_failure"].as_str().map(str::to_owned);
        }
    }

    fn set(&mut self, metric: &'static str, value: f64) {
        self.metrics.insert(metric, value);
    }
}

/// A crowd that stays, and what the proxy holds for it.
#[derive(Debug)]
struct Held {
    load: Telling,
    now: proc::Memory,
}

impl Held {
    fn finish(self, sample: &mut Sample) -> Result<(), String> {
        sample.count_failures(&self.load.summary(LOAD_LIMIT)?);
        Ok(())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn grown(now: u64, idle: u64, among: usize) -> f64 {
    (now as f64 - idle as f64) / among.max(1) as f64
}

fn read_memory(pid: u32) -> Result<proc::Memory, String> {
    proc::memory(pid).ok_or_else(|| "the proxy ended under the crowd".to_owned())
}

fn started(program: &Program, cpus: &[usize], port: u16) -> Result<(Running, Duration), String> {
    let mut running = Running::start(program, cpus)?;
    let took = running.until_it_listens(port)?;
    Ok((running, took))
}

/// `calls` for `call`, `messages` for `message`.
fn number(said: &Value, per: &str) -> Option<f64> {
    said.get(format!("{per}s"))?.as_f64()
}

/// What neither this run nor what it started used of its CPUs.
fn others(before: &BTreeMap<usize, proc::CpuTicks>, ours: u64, cpus: &Cpus) -> Others {
    let after = proc::cpus();
    let ours = proc::ticks_of(std::process::id()).saturating_sub(ours);
    let mut used = cpus.both.clone();
    used.extend(&cpus.rest);
    used.sort_unstable();
    used.dedup();
    let (mut busy, mut stolen, mut all) = (0, 0, 0);
    for cpu in used {
        if let (Some(before), Some(after)) = (before.get(&cpu), after.get(&cpu)) {
            busy += after.busy.saturating_sub(before.busy);
            stolen += after.stolen.saturating_sub(before.stolen);
            all = all.max(after.all.saturating_sub(before.all));
        }
    }
    let share = |ticks: u64| ticks as f64 / all.max(1) as f64;
    Others {
        share: share(busy.saturating_sub(ours)),
        stolen: share(stolen),
    }
}

/// A program that runs another and counts.
struct Counter {
    program: &'static str,
    /// What it is told, with the file to write to.
    arguments: fn(&Path) -> Vec<String>,
    /// Its count from that file; `None` while it is not whole.
    read: fn(&str) -> Option<f64>,
}

/// `-D`: the proxy stays the process that was started, so that it can be stopped by its id.
const STRACE: Counter = Counter {
    program: "strace",
    arguments: |file| {
        let file = file.display().to_string();
        ["-D", "-f", "-c", "-U", "calls,name", "-o", &file, "--"]
            .map(str::to_owned)
            .to_vec()
    },
    read: read_strace,
};

const VALGRIND: Counter = Counter {
    program: "valgrind",
    arguments: |file| {
        vec![
            "--tool=cachegrind".to_owned(),
            "--cache-sim=no".to_owned(),
            "--cachegrind-out-file=/dev/null".to_owned(),
            format!("--log-file={}", file.display()),
        ]
    },
    read: read_valgrind,
};

/// The last line: `12345 total`.
fn read_strace(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `==7== I   refs:      1,234,567`; other versions say `I refs:`.
fn read_valgrind(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        let words: Vec<_> = line.split_whitespace().skip(1).take(2).collect();
        words == ["I", "refs:"]
    })?;
    line.rsplit_once(':')?
        .1
        .trim()
        .replace(',', "")
        .parse()
        .ok()
}

fn until_told(file: &Path, read: fn(&str) -> Option<f64>) -> Option<f64> {
    for _ in 0..100 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(count) = read(&text) {
            return Some(count);
        }
        thread::sleep(Duration::from_millis(100));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strace_and_valgrind_say_is_read() {
        let strace = "    calls syscall\n--------- ----------------\n    10345 recvfrom\n       12 epoll_wait\n\
                      --------- ----------------\n    10357 total\n";
        assert_eq!(read_strace(strace), Some(10_357.0));
        assert_eq!(read_strace("    10345 recvfrom\n"), None, "not whole yet");
        let valgrind = "==7== Cachegrind, a profiler\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(read_valgrind(valgrind), Some(1_234_567.0));
        assert_eq!(read_valgrind("==7== I refs:  99\n"), Some(99.0));
        assert_eq!(read_valgrind("==7== Cachegrind\n"), None);
    }

    #[test]
    fn memory_of_a_crowd_is_what_was_added() {
        assert_eq!(grown(3_000_000, 1_000_000, 1000), 2000.0);
        assert_eq!(grown(900, 1000, 10), -10.0, "less is told as less");
    }

    #[test]
    fn what_is_counted_has_its_own_name() {
        let said = serde_json::json!({"calls": 12, "messages": 12_000});
        assert_eq!(number(&said, "call"), Some(12.0));
        assert_eq!(number(&said, "message"), Some(12_000.0));
        assert_eq!(number(&said, ""), None);
    }
}
