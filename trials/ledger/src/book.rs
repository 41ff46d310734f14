//! What a backend writes down, line by line, before it does what the line says.
//!
//! The file is opened for appending and every line is one write: what was written has left the process, so that SIGKILL
//! takes nothing back. The conductor writes its kills into the same file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A backend's book, open for writing.
#[derive(Debug)]
pub struct Book {
    file: File,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A process has begun.
    Started,
    /// It was killed.
    Killed,
    /// The head of a call has come.
    Begun(u64),
    /// A request was read to its end, with so many messages.
    Read(u64, u32),
    /// An answer was handed over with its end: so many messages, and the status.
    Answered(u64, u32, u32),
    /// A call ended before its answer did.
    Left(u64, String),
    /// Something came that may not come.
    Wrong(u64, String),
}

impl Book {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    /// Writes a line. Whoever cannot keep its book must not go on.
    pub fn write(&self, entry: &Entry) {
        let line = entry.line(now_ms());
        (&self.file)
            .write_all(line.as_bytes())
            .expect("the book can be written");
    }
}

/// Reads a book, with the time of each line in milliseconds.
pub fn read(path: &Path) -> io::Result<Vec<(u64, Entry)>> {
    let text = std::fs::read_to_string(path)?;
    let parsed = text.lines().map(|line| {
        Entry::parse(line)
            .ok_or_else(|| io::Error::other(format!("not a line of a book: {line:?}")))
    });
    parsed.collect()
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Entry {
    fn line(&self, at: u64) -> String {
        match self {
            Self::Started => format!("{at} started\n"),
            Self::Killed => format!("{at} killed\n"),
            Self::Begun(id) => format!("{at} begun {id}\n"),
            Self::Read(id, count) => format!("{at} read {id} {count}\n"),
            Self::Answered(id, count, code) => format!("{at} answered {id} {count} {code}\n"),
            Self::Left(id, why) => format!("{at} left {id} {}\n", why.replace('\n', " ")),
            Self::Wrong(id, what) => format!("{at} wrong {id} {}\n", what.replace('\n', " ")),
        }
    }

    fn parse(line: &str) -> Option<(u64, Self)> {
        let mut words = line.splitn(4, ' ');
        let at = words.next()?.parse().ok()?;
        let word = words.next()?;
        let mut id = || words.next()?.parse().ok();
        let entry = match word {
            "started" => Self::Started,
            "killed" => Self::Killed,
            "begun" => Self::Begun(id()?),
            "read" => Self::Read(id()?, words.next()?.parse().ok()?),
            "answered" => {
                let id = id()?;
                let (count, code) = words.next()?.split_once(' ')?;
                Self::Answered(id, count.parse().ok()?, code.parse().ok()?)
            }
            "left" => Self::Left(id()?, words.next()?.to_owned()),
            "wrong" => Self::Wrong(id()?, words.next()?.to_owned()),
            _ => return None,
        };
        Some((at, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for entry in [
            Entry::Started,
            Entry::Killed,
            Entry::Begun(7),
            Entry::Read(7, 3),
            Entry::Answered(7, 2, 13),
            Entry::Left(7, "it was reset".to_owned()),
            Entry::Wrong(7, "message 2 is corrupt".to_owned()),
        ] {
            let line = entry.line(99);
            assert_eq!(Entry::parse(line.trim_end()), Some((99, entry)));
        }
        assert_eq!(Entry::parse("99 begun"), None);
    }
}
