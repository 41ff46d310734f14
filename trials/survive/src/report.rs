//! What a scenario found, as JSON for programs and as a line for people.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use crate::backend::Tally;
use crate::client::Ending;

/// How many calls ended how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endings {
    counts: BTreeMap<Ending, usize>,
}

impl Endings {
    pub(crate) fn count(&mut self, ending: Ending) {
        *self.counts.entry(ending).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (ending, count) in &other.counts {
            *self.counts.entry(*ending).or_default() += count;
        }
    }

    pub(crate) fn of(&self, ending: Ending) -> usize {
        self.counts.get(&ending).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> usize {
        self.counts.values().sum()
    }

    pub(crate) fn other_than(&self, ending: Ending) -> usize {
        self.total() - self.of(ending)
    }

    fn json(&self) -> String {
        object(
            self.counts
                .iter()
                .map(|(ending, count)| (ending.to_string(), count.to_string())),
        )
    }
}

impl fmt::Display for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter();
        let all: Vec<_> = counts
            .map(|(ending, count)| format!("{count} {ending}"))
            .collect();
        f.write_str(&all.join(", "))
    }
}

/// One scenario with one proxy.
pub(crate) struct Report {
    pub(crate) proxy: String,
    pub(crate) scenario: &'static str,
    pub(crate) seconds: f64,
    pub(crate) subjects: Endings,
    pub(crate) innocents: Endings,
    pub(crate) tally: Tally,
    pub(crate) facts: BTreeMap<&'static str, usize>,
    /// Resident memory of the proxy, KiB.
    pub(crate) memory_before: Option<u64>,
    pub(crate) memory_after: Option<u64>,
    /// What did not hold; empty is as it should be.
    pub(crate) amiss: Vec<String>,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.amiss.is_empty()
    }

    /// One line.
    pub(crate) fn json(&self) -> String {
        let tally = &self.tally;
        let facts = self.facts.iter();
        let go_aways = tally.go_aways.iter();
        let number =
            |value: Option<u64>| value.map_or_else(|| "null".to_owned(), |v| v.to_string());
        let fields = [
            ("trial", quoted("survive")),
            ("proxy", quoted(&self.proxy)),
            ("scenario", quoted(self.scenario)),
            ("clean", self.is_clean().to_string()),
            ("amiss", list(self.amiss.iter().map(|text| quoted(text)))),
            ("subjects", self.subjects.json()),
            ("innocents", self.innocents.json()),
            ("connections", tally.opened.to_string()),
            ("lost", tally.lost.to_string()),
            (
                "go_aways",
                object(go_aways.map(|(code, count)| (code.to_string(), count.to_string()))),
            ),
            ("resets", tally.resets.to_string()),
            ("starved", tally.starved.to_string()),
            (
                "facts",
                object(facts.map(|(name, count)| ((*name).to_owned(), count.to_string()))),
            ),
            ("memory_kib_before", number(self.memory_before)),
            ("memory_kib_after", number(self.memory_after)),
            ("seconds", format!("{:.2}", self.seconds)),
        ];
        object(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "survive: {} {}: ", self.proxy, self.scenario)?;
        if self.amiss.is_empty() {
            f.write_str("nothing amiss")?;
        } else {
            f.write_str(&self.amiss.join("; "))?;
        }
        let connections = self.tally.opened;
        write!(f, " (connections: {connections}, {:.1} s)", self.seconds)?;
        write!(f, "\n  innocents: {}", self.innocents)?;
        if self.subjects.total() > 0 {
            write!(f, "\n  subjects:  {}", self.subjects)?;
        }
        let facts: Vec<_> = self
            .facts
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        write!(f, "\n  backend:   {}", facts.join(", "))?;
        if !self.tally.go_aways.is_empty() {
            let codes = self.tally.go_aways.iter();
            let codes: Vec<_> = codes
                .map(|(code, n)| format!("{n} of code {code}"))
                .collect();
            write!(f, "; GOAWAYs of the proxy: {}", codes.join(", "))?;
        }
        if self.tally.starved > 0 {
            write!(
                f,
                "; {} frames never sent for want of window",
                self.tally.starved
            )?;
        }
        Ok(())
    }
}

/// Resident memory of a process, KiB; `None`: it has ended.
pub(crate) fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn quoted(text: &str) -> String {
    // Only our own words and a name of the caller.
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{}: {value}", quoted(&name)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    format!("[{}]", items.join(", "))
}
