//! What is counted of calls between two moments. Owns the figures of a report that all clients have in common.

use serde_json::{Value, json};

use crate::answer::Fault;
use crate::clock;
use crate::histogram::Histogram;

/// What was counted. Failures count always, also those outside the measured part: a proxy that fails is not to be measured.
#[derive(Debug)]
pub(super) struct Tally {
    counting: bool,
    begin_ns: u64,
    end_ns: u64,
    own_cpu_ns: u64,
    /// Right answers.
    pub(super) calls: u64,
    messages: u64,
    latency: Histogram,
    failures: u64,
    first_failure: Option<Fault>,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            counting: false,
            begin_ns: 0,
            end_ns: 0,
            own_cpu_ns: 0,
            calls: 0,
            messages: 0,
            latency: Histogram::new(),
            failures: 0,
            first_failure: None,
        }
    }

    /// Counting begins.
    pub(super) fn begin(&mut self) {
        self.counting = true;
        self.own_cpu_ns = clock::own_cpu_ns();
        self.begin_ns = clock::now_ns();
    }

    /// Counting ends: what was counted, for the event.
    pub(super) fn end(&mut self) -> Value {
        self.counting = false;
        self.end_ns = clock::now_ns();
        self.own_cpu_ns = clock::own_cpu_ns() - self.own_cpu_ns;
        json!({
            "calls": self.calls,
            "messages": self.messages,
            "failures": self.failures,
        })
    }

    /// So many messages have come.
    pub(super) fn messages(&mut self, count: u64) {
        if self.counting {
            self.messages += count;
        }
    }

    /// Something took so long, in nanoseconds.
    pub(super) fn latency(&mut self, nanoseconds: u64) {
        if self.counting {
            self.latency.count(nanoseconds);
        }
    }

    /// A right answer has come whole, so long after its call.
    pub(super) fn call(&mut self, nanoseconds: u64) {
        if self.counting {
            self.calls += 1;
            self.latency.count(nanoseconds);
        }
    }

    /// A call went wrong.
    pub(super) fn failure(&mut self, fault: Fault) {
        self.failures += 1;
        self.first_failure.get_or_insert(fault);
    }

    /// What stands at this moment, of so many connections with so many open calls.
    pub(super) fn counts(&self, connections: usize, open: usize) -> Value {
        json!({
            "connections": connections,
            "open": open,
            "calls": self.calls,
            "failures": self.failures,
            "first_failure": self.first_failure.map(|fault| fault.to_string()),
        })
    }

    /// Everything that was counted, of calls whose messages have so many bytes and are the only ones of an answer, or not.
    pub(super) fn report(&self, payload: usize, streams: bool) -> Value {
        json!({
            "calls": self.calls,
            "messages": self.messages,
            "streams": if streams { self.calls } else { 0 },
            "failures": self.failures,
            "first_failure": self.first_failure.map(|fault| fault.to_string()),
            "seconds": self.end_ns.saturating_sub(self.begin_ns) as f64 / 1e9,
            "bytes": self.messages * payload as u64,
            "latency_us": self.latency.summary_us(),
            "own_cpu_ns": self.own_cpu_ns,
        })
    }
}
