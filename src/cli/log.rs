//! The log, on standard error, by a thread of its own: a pipe that nobody reads costs lines, never a core.
//!
//! The access lines are not the log's business; they go to standard output.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::cli::style::Color;
use crate::telemetry::panics;

/// How many lines may wait; beyond it they are dropped and counted.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for the last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

/// A log that has been started.
#[derive(Debug)]
pub struct Log {
    lines: Option<Sender<Entry>>,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written when this sender is dropped.
    Flush(#[expect(dead_code, reason = "its drop is the message")] Sender<()>),
}

impl Log {
    /// Starts it, with a filter in env_logger's words.
    pub fn start(filter: &str) -> Self {
        let (lines, written) = unbounded();
        let started = thread::Builder::new()
            .name("wharf-log".to_owned())
            .spawn(move || write(&written));
        let mut builder = env_logger::Builder::new();
        builder.parse_filters(filter).format_target(false);
        if started.is_ok() {
            let style = match Color::of_stderr() {
                Color::Ansi => env_logger::WriteStyle::Always,
                Color::Never => env_logger::WriteStyle::Never,
            };
            let lines = Lines {
                lines: lines.clone(),
                dropped: AtomicU64::new(0),
            };
            builder
                .write_style(style)
                .target(env_logger::Target::Pipe(Box::new(lines)));
        }
        // Somebody who embeds the library may have a logger of his own.
        let _ = builder.try_init();
        panics::tell_in_the_log();
        Self {
            lines: started.is_ok().then_some(lines),
        }
    }

    /// Waits a moment until what was logged is written.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else {
            return;
        };
        let (done, waited) = bounded(0);
        if lines
            .send_timeout(Entry::Flush(done), LAST_LINES_TIMEOUT)
            .is_ok()
        {
            let _ = waited.recv_timeout(LAST_LINES_TIMEOUT);
        }
    }
}

fn write(entries: &Receiver<Entry>) {
    for entry in entries {
        if let Entry::Line(line) = entry {
            // Where nobody reads any more there is nobody to tell.
            let _ = io::stderr().write_all(&line);
        }
    }
}

/// env_logger writes a line here; it never waits.
struct Lines {
    lines: Sender<Entry>,
    dropped: AtomicU64,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let mut text = line.to_vec();
        if dropped > 0 {
            text.extend_from_slice(
                format!("({dropped} lines of the log were dropped)\n").as_bytes(),
            );
        }
        if self.lines.len() >= LINES_MAX || self.lines.try_send(Entry::Line(text)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_nobody_reads_drops_lines_and_says_how_many() {
        let (lines, entries) = bounded(2);
        let mut out = Lines {
            lines,
            dropped: AtomicU64::new(0),
        };
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            out.write_all(line.as_bytes()).expect("it never fails");
        }
        let mut seen = Vec::new();
        while let Ok(Entry::Line(line)) = entries.try_recv() {
            seen.extend(line);
        }
        out.write_all(b"e\n").expect("it never fails");
        while let Ok(Entry::Line(line)) = entries.try_recv() {
            seen.extend(line);
        }
        assert_eq!(seen, b"a\nb\ne\n(2 lines of the log were dropped)\n");
    }

    #[test]
    fn so_many_lines_wait_and_no_more() {
        let (lines, entries) = unbounded();
        let mut out = Lines {
            lines,
            dropped: AtomicU64::new(0),
        };
        for _ in 0..LINES_MAX + 3 {
            out.write_all(b"a\n").expect("it never fails");
        }
        assert_eq!(entries.len(), LINES_MAX);
        assert_eq!(out.dropped.load(Ordering::Relaxed), 3);
    }
}
