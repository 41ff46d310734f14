//! What a trial reads of a process, and the one line of JSON that it prints.

use std::fmt::Write as _;
use std::time::Duration;

/// The memory of a process that is in use, KiB: now, and at its highest.
pub fn resident_kib(pid: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let of = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}

/// How many descriptors a process holds.
pub fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// The middle one; zero of nothing.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// One line of JSON, key by key.
#[derive(Debug, Default)]
pub struct Line {
    text: String,
}

impl Line {
    pub fn number(&mut self, key: &str, value: impl std::fmt::Display) -> &mut Self {
        self.raw(key, &value.to_string())
    }

    pub fn word(&mut self, key: &str, value: &str) -> &mut Self {
        let value = quoted(value);
        self.raw(key, &value)
    }

    pub fn truth(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// A table of counts below one key.
    pub fn counts<'a, K: AsRef<str> + 'a>(
        &mut self,
        key: &str,
        counts: impl IntoIterator<Item = (&'a K, &'a u64)>,
    ) -> &mut Self {
        let rows: Vec<String> = counts
            .into_iter()
            .map(|(name, count)| format!("{}:{count}", quoted(name.as_ref())))
            .collect();
        self.raw(key, &format!("{{{}}}", rows.join(",")))
    }

    fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&quoted(key));
        self.text.push(':');
        self.text.push_str(value);
        self
    }

    pub fn finish(&self) -> String {
        format!("{{{}}}", self.text)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
