//! The table of scenarios: what is done, with whom, and which figures come of it. Owns names and numbers; runs nothing.

use super::proxies::Proxy;

/// What a backend does with a call. Each way has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// Answers a message with itself.
    Unary,
    /// A thousand messages of 100 B.
    Stream,
    /// A message with a stamp every 10 ms.
    Tick,
    /// 64 messages of 64 KiB.
    Bulk,
    /// A head, and nothing else ever.
    Hang,
}

impl Backend {
    /// All, with the words that the backend's command line has for them.
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Unary, "unary"),
        (Self::Stream, "stream"),
        (Self::Tick, "tick"),
        (Self::Bulk, "bulk"),
        (Self::Hang, "hang"),
    ];
}

/// What is done to a proxy, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A load for some seconds; the proxy's CPU time is divided by what it counts.
    Load {
        /// The words after `loopback load`, without target and time.
        load: &'static [&'static str],
        /// Bytes of a message, where the floor has to know.
        bytes: Option<usize>,
        /// Event loops, and as many CPUs.
        workers: usize,
    },
    /// Resident memory: idle, with connections that never called, that have called, after they left, with open streams.
    Memory,
    /// Resident memory of connections of HTTP/2: idle, that have never called, and that have.
    MemoryHttp2,
    /// From exec to listening.
    Start,
    /// System calls of a call, counted by strace in a pass of its own, since it slows everything.
    SystemCalls {
        /// As above.
        load: &'static [&'static str],
    },
    /// User instructions of a call, counted by valgrind in a pass of its own.
    Instructions {
        /// As above.
        load: &'static [&'static str],
    },
}

/// A figure and how it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// As goals and the JSON call it.
    pub(super) metric: &'static str,
    /// At the head of the table.
    pub(super) title: &'static str,
    /// What it is divided by before it is shown.
    pub(super) unit: f64,
    /// Digits after the point.
    pub(super) digits: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// As it is called on command lines and in goals.
    pub(super) name: &'static str,
    /// Scenarios of one group are measured within the same round, so that a ratio between them means something.
    pub(super) group: &'static str,
    /// What happens, in one line.
    pub(super) about: &'static str,
    /// What the CPU time is divided by.
    pub(super) per: &'static str,
    /// Who stands behind the proxy.
    pub(super) backend: Backend,
    /// Who can do it.
    pub(super) proxies: &'static [Proxy],
    /// What is done.
    pub(super) work: Work,
}

/// Those that speak gRPC-Web, and the floor.
const ALL: &[Proxy] = &[
    Proxy::Wharf,
    Proxy::Floor,
    Proxy::Hyper,
    Proxy::Envoy,
    Proxy::Pingora,
];
const PEERS: &[Proxy] = &[Proxy::Wharf, Proxy::Hyper, Proxy::Envoy, Proxy::Pingora];
/// Pingora's module knows no text.
const TEXT: &[Proxy] = &[Proxy::Wharf, Proxy::Hyper, Proxy::Envoy];
/// Those that take HTTP/2 from clients without TLS, and gRPC-Web on it; the floor of these rows would know no streams.
const WEB_HTTP2: &[Proxy] = &[Proxy::Wharf, Proxy::Hyper, Proxy::Envoy];
/// Those that forward gRPC as it is.
const NATIVE: &[Proxy] = &[Proxy::Wharf, Proxy::Hyper, Proxy::Envoy, Proxy::Nginx];
const WHARF: &[Proxy] = &[Proxy::Wharf];
const WHARF_AND_FLOOR: &[Proxy] = &[Proxy::Wharf, Proxy::Floor];

const fn unary(
    name: &'static str,
    group: &'static str,
    about: &'static str,
    proxies: &'static [Proxy],
    load: &'static [&'static str],
    bytes: usize,
) -> Scenario {
    Scenario {
        name,
        group,
        about,
        per: "call",
        backend: Backend::Unary,
        proxies,
        work: Work::Load {
            load,
            bytes: Some(bytes),
            workers: 1,
        },
    }
}

const fn streams(
    name: &'static str,
    group: &'static str,
    about: &'static str,
    proxies: &'static [Proxy],
    backend: Backend,
    load: &'static [&'static str],
) -> Scenario {
    Scenario {
        name,
        group,
        about,
        per: "message",
        backend,
        proxies,
        work: Work::Load {
            load,
            bytes: None,
            workers: 1,
        },
    }
}

const fn counted(name: &'static str, about: &'static str, work: Work) -> Scenario {
    Scenario {
        name,
        group: name,
        about,
        per: "call",
        backend: Backend::Unary,
        proxies: WHARF,
        work,
    }
}

const fn cores(name: &'static str, about: &'static str, workers: usize) -> Scenario {
    Scenario {
        name,
        group: "two-cores",
        about,
        per: "call",
        backend: Backend::Unary,
        proxies: WHARF,
        work: Work::Load {
            load: &["closed", "--connections", "256", "--bytes", "16"],
            bytes: None,
            workers,
        },
    }
}

/// All, in the order of a report.
#[rustfmt::skip]
pub(super) const SCENARIOS: &[Scenario] = &[
    unary("unary-16-c64", "unary-16-c64", "16 B there and back, 64 connections with one call each in flight", ALL,
        &["closed", "--connections", "64", "--bytes", "16"], 16),
    unary("unary-16-c1000", "unary-16-c1000", "16 B there and back, 1,000 connections", ALL,
        &["closed", "--connections", "1000", "--bytes", "16"], 16),
    unary("unary-1k-c64", "unary-1k-c64", "1 KiB there and back, 64 connections", ALL,
        &["closed", "--connections", "64", "--bytes", "1024"], 1024),
    unary("unary-64k-c64", "unary-64k-c64", "64 KiB there and back, 64 connections", ALL,
        &["closed", "--connections", "64", "--bytes", "65536"], 65536),
    unary("text-1k-c64", "text-1k-c64", "1 KiB there and back in base64, 64 connections", TEXT,
        &["closed", "--connections", "64", "--bytes", "1024", "--text"], 1024),
    streams("stream-100-c16", "stream-100-c16", "server streams of 1,000 messages of 100 B, 16 at a time", PEERS,
        Backend::Stream, &["stream", "--connections", "16"]),
    streams("bulk-64k", "bulk-64k", "server streams of 64 messages of 64 KiB, 4 at a time", PEERS,
        Backend::Bulk, &["bulk", "--connections", "4"]),
    streams("tick", "tick", "200 server streams with a message every 10 ms each", PEERS,
        Backend::Tick, &["tick", "--connections", "200"]),
    unary("open-3000", "open-3000", "3,000 calls a second by the clock, 256 B, latency from when each was due", ALL,
        &["open", "--rate", "3000", "--connections", "64", "--bytes", "256"], 256),
    streams("native-16-c1", "native-16-c1", "gRPC: 16 B there and back, one connection with 32 calls in flight", NATIVE,
        Backend::Unary, &["closed", "--native", "--connections", "1", "--streams", "32", "--bytes", "16"]).per("call"),
    streams("native-16-c64", "native-16-c64", "gRPC: 16 B there and back, 64 connections with 4 calls each in flight", NATIVE,
        Backend::Unary, &["closed", "--native", "--connections", "64", "--streams", "4", "--bytes", "16"]).per("call"),
    streams("native-stream-100", "native-stream-100", "gRPC: server streams of 1,000 messages of 100 B, 16 at a time on one connection",
        NATIVE, Backend::Stream, &["stream", "--native", "--connections", "1", "--streams", "16"]),
    streams("http2-16-c64", "http2-16-c64", "gRPC-Web over HTTP/2: 16 B there and back, 64 connections with 4 calls each in flight",
        WEB_HTTP2, Backend::Unary, &["closed", "--http2", "--connections", "64", "--streams", "4", "--bytes", "16"]).per("call"),
    streams("http2-stream-100", "http2-stream-100", "gRPC-Web over HTTP/2: server streams of 1,000 messages of 100 B, 16 at a time",
        WEB_HTTP2, Backend::Stream, &["stream", "--http2", "--connections", "4", "--streams", "4"]),
    Scenario {
        name: "memory-http2", group: "memory-http2", about: "resident memory of one worker with 1,000 connections of HTTP/2", per: "",
        backend: Backend::Unary, proxies: NATIVE, work: Work::MemoryHttp2,
    },
    Scenario {
        name: "memory", group: "memory", about: "resident memory of one worker", per: "", backend: Backend::Unary,
        proxies: PEERS, work: Work::Memory,
    },
    Scenario {
        name: "start", group: "start", about: "from exec to the first connection", per: "", backend: Backend::Unary,
        proxies: ALL, work: Work::Start,
    },
    unary("connections-10", "connections", "16 B, 10 connections", WHARF_AND_FLOOR,
        &["closed", "--connections", "10", "--bytes", "16"], 16),
    unary("connections-100", "connections", "16 B, 100 connections", WHARF_AND_FLOOR,
        &["closed", "--connections", "100", "--bytes", "16"], 16),
    unary("connections-1000", "connections", "16 B, 1,000 connections", WHARF_AND_FLOOR,
        &["closed", "--connections", "1000", "--bytes", "16"], 16),
    unary("connections-5000", "connections", "16 B, 5,000 connections", WHARF_AND_FLOOR,
        &["closed", "--connections", "5000", "--bytes", "16"], 16),
    unary("connections-15000", "connections", "16 B, 15,000 connections", WHARF_AND_FLOOR,
        &["closed", "--connections", "15000", "--bytes", "16"], 16),
    streams("streams-10", "streams", "server streams of 100 B messages, 10 at a time on one backend", WHARF,
        Backend::Stream, &["stream", "--connections", "10"]),
    streams("streams-100", "streams", "the same, 100 at a time", WHARF,
        Backend::Stream, &["stream", "--connections", "100"]),
    streams("streams-1000", "streams", "the same, 1,000 at a time", WHARF,
        Backend::Stream, &["stream", "--connections", "1000"]),
    cores("two-cores-1", "16 B, 256 connections, one worker", 1),
    cores("two-cores-2", "the same load on two workers, each with a CPU", 2),
    counted("system-calls", "system calls of a 16 B call, 64 connections",
        Work::SystemCalls { load: &["closed", "--connections", "64", "--bytes", "16"] }),
    counted("instructions-16", "user instructions of a 16 B call, 64 connections",
        Work::Instructions { load: &["closed", "--connections", "64", "--bytes", "16"] }),
    counted("instructions-1k", "the same, 1 KiB",
        Work::Instructions { load: &["closed", "--connections", "64", "--bytes", "1024"] }),
    counted("instructions-native-16", "the same of a 16 B call of gRPC, 32 on one connection",
        Work::Instructions { load: &["closed", "--native", "--connections", "1", "--streams", "32", "--bytes", "16"] }),
    counted("instructions-http2-16", "the same of a 16 B call of gRPC-Web over HTTP/2, 32 on one connection",
        Work::Instructions { load: &["closed", "--http2", "--connections", "1", "--streams", "32", "--bytes", "16"] }),
    counted("instructions-text-1k", "the same, 1 KiB in base64",
        Work::Instructions { load: &["closed", "--connections", "64", "--bytes", "1024", "--text"] }),
];

const fn column(metric: &'static str, title: &'static str, unit: f64, digits: usize) -> Column {
    Column {
        metric,
        title,
        unit,
        digits,
    }
}

const START: &[Column] = &[
    column("start_ms", "ms", 1.0, 2),
    column("start_own_ms", "of its own, ms", 1.0, 2),
];
const SYSTEM_CALLS: &[Column] = &[column("system_calls", "system calls", 1.0, 2)];
const INSTRUCTIONS: &[Column] = &[column("instructions", "user instructions", 1.0, 0)];

const LOADED: &[Column] = &[
    column("cpu_us", "CPU µs", 1.0, 2),
    column("per_second", "a second, thousands", 1000.0, 1),
    column("p50_us", "p50 µs", 1.0, 0),
    column("p99_us", "p99 µs", 1.0, 0),
    column("utilisation", "CPU used", 1.0, 2),
];

const MEMORY_HTTP2: &[Column] = &[
    column("rss_idle", "idle, MB", 1e6, 2),
    column("rss_per_connection", "B per connection", 1.0, 0),
    column("rss_per_used_connection", "B per used connection", 1.0, 0),
];

const MEMORY: &[Column] = &[
    column("rss_idle", "idle, MB", 1e6, 2),
    column("pss_idle", "Pss, MB", 1e6, 2),
    column("rss_per_connection", "B per connection", 1.0, 0),
    column("rss_per_used_connection", "B per used connection", 1.0, 0),
    column("rss_per_stream", "B per open stream", 1.0, 0),
    column("rss_left", "after all left, MB", 1e6, 2),
];

impl Scenario {
    /// The same, with its CPU time divided by these.
    const fn per(mut self, per: &'static str) -> Self {
        self.per = per;
        self
    }

    /// Its figures. The first is the one that proxies are compared by.
    pub(super) fn columns(&self) -> &'static [Column] {
        match self.work {
            Work::Load { .. } => LOADED,
            Work::Memory => MEMORY,
            Work::MemoryHttp2 => MEMORY_HTTP2,
            Work::Start => START,
            Work::SystemCalls { .. } => SYSTEM_CALLS,
            Work::Instructions { .. } => INSTRUCTIONS,
        }
    }

    /// Rounds that it takes where a run has so many: what a clock does not disturb is not repeated as often.
    pub(super) fn rounds(&self, wanted: u32) -> u32 {
        match self.work {
            Work::Load { .. } | Work::Start => wanted,
            Work::Memory | Work::MemoryHttp2 => wanted.min(3),
            Work::SystemCalls { .. } | Work::Instructions { .. } => 1,
        }
    }

    /// Does other work on the machine spoil it?
    pub(super) fn needs_quiet(&self) -> bool {
        matches!(self.work, Work::Load { .. } | Work::Start)
    }
}

/// The scenarios that these words name: each a name or a group; all if there are none.
pub(super) fn chosen(words: &[String]) -> Result<Vec<Scenario>, String> {
    for word in words {
        if !SCENARIOS
            .iter()
            .any(|own| own.name == word || own.group == word)
        {
            let known: Vec<_> = SCENARIOS.iter().map(|own| own.name).collect();
            return Err(format!(
                "no scenario is called {word:?}; there are {}",
                known.join(", ")
            ));
        }
    }
    let wanted = |own: &Scenario| {
        words.is_empty()
            || words
                .iter()
                .any(|word| own.name == word || own.group == word)
    };
    Ok(SCENARIOS.iter().copied().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_groups_stand_together() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            let rest = &SCENARIOS[at + 1..];
            assert!(rest.iter().all(|other| other.name != scenario.name));
            let apart = rest
                .iter()
                .skip_while(|other| other.group == scenario.group)
                .any(|other| other.group == scenario.group);
            assert!(!apart, "{} is in two places", scenario.group);
        }
    }

    #[test]
    fn words_choose_scenarios_and_groups_and_a_wrong_one_is_told_what_there_is() {
        let names = |words: &[&str]| -> Vec<&str> {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            chosen(&words)
                .expect("known words")
                .iter()
                .map(|own| own.name)
                .collect()
        };
        assert_eq!(names(&[]).len(), SCENARIOS.len());
        assert_eq!(
            names(&["start", "streams"]),
            ["start", "streams-10", "streams-100", "streams-1000"]
        );
        let error = chosen(&["unary".to_owned()]).expect_err("no such");
        assert!(error.contains("unary-16-c64"), "{error}");
    }

    #[test]
    fn where_the_floor_takes_part_its_other_end_can_be_told_the_size() {
        for scenario in SCENARIOS {
            if let Work::Load { bytes, .. } = scenario.work {
                let has_floor = scenario.proxies.contains(&Proxy::Floor);
                assert!(!has_floor || bytes.is_some(), "{}", scenario.name);
            }
        }
    }
}
