//! What is said of a text that is no TOML: the first fault, and what was probably meant.
//!
//! The reader of TOML says what it did not expect. Where that is far from what is wrong (a bracket that was never closed shows
//! some lines below) this finds the place that a person would look at. It never decides whether a text is TOML.

use std::ops::Range;

use crate::config::error::Finding;

/// The finding for a fault of that text, with a help where there is one.
pub(super) fn finding(text: &str, fault: &toml::de::Error) -> Finding {
    let message = fault.message();
    let finding = Finding::error("E100", format!("this is no TOML: {message}"));
    let Some(span) = fault.span() else {
        return finding;
    };
    let help = help(text, message, &span);
    let finding = finding.at(span, "");
    match help {
        Some(help) => finding.help(help),
        None => finding,
    }
}

fn help(text: &str, message: &str, span: &Range<usize>) -> Option<String> {
    let before = text.get(..span.start)?;
    let found = text.get(span.clone())?;
    let line = line_at(text, span.start);
    let is_quoted = || {
        let rest = text.get(span.start..).unwrap_or_default();
        rest.starts_with(['"', '\''])
    };
    if message == "duplicate key" {
        return Some(twice(line, found));
    }
    if message.starts_with("unclosed table") || message.starts_with("unclosed array table") {
        return Some(match header(line) {
            Some(Header { name, list: true }) => format!("close it: [[{name}]]"),
            Some(Header { name, list: false }) => format!("close it: [{name}]"),
            None => "close the bracket".to_owned(),
        });
    }
    // A list may stand on many lines; then its elements are texts, and a comma is missing.
    if let Some(open) = open_bracket(before)
        && !(message.starts_with("missing comma") && is_quoted())
        && !message.contains("string, expected")
    {
        let number = line_number(text, open);
        let is_here = number == line_number(text, span.start);
        if !is_here || message.starts_with("unclosed array") {
            return Some(format!(
                "is the bracket of line {number} closed? A list ends with ]"
            ));
        }
    }
    if message.starts_with("missing comma") {
        return Some("write a comma between the two".to_owned());
    }
    if message.starts_with("string values must be quoted") {
        let is_short = found.len() <= 60 && found.bytes().all(|b| b.is_ascii_graphic());
        return Some(match is_short && !found.contains(['"', '\\']) {
            true => format!("write it in quotes: \"{found}\""),
            false => "write it in quotes".to_owned(),
        });
    }
    if message.contains("string, expected") {
        return Some("is the text closed? It ends with the same quotation mark".to_owned());
    }
    if message.starts_with("invalid boolean") {
        return Some("write true or false, in lower case".to_owned());
    }
    if message.contains("key") {
        // What other forms have in common is that they are no TOML.
        return Some(match line.contains(':') && !line.contains('=') {
            true => "write KEY = VALUE, with = in place of the colon; below a table's name in brackets, as in [limits]"
                .to_owned(),
            false => "write KEY = VALUE, or a table's name in brackets, as in [limits]".to_owned(),
        });
    }
    None
}

/// A name that stands there for the second time: `found`, in that line.
fn twice(line: &str, found: &str) -> String {
    match header(line) {
        Some(Header {
            name: name @ ("route" | "listener"),
            ..
        }) => format!("write [[{name}]], with two brackets, each time"),
        Some(Header {
            name: "route.cors", ..
        }) => {
            "one [route.cors] stands below each [[route]]; put the keys of both into one".to_owned()
        }
        Some(Header { name, list: true }) => {
            format!("write [{name}], with one bracket on each side, and once")
        }
        Some(Header { name, list: false }) => {
            let another = match name.starts_with("backend.") {
                true => ", or give it another name",
                false => "",
            };
            format!("[{name}] stands above already: put the keys of both into one{another}")
        }
        None => format!("{} stands above already: leave one out", found.trim()),
    }
}

/// A line that names a table: `[name]`, or `[[name]]`.
struct Header<'a> {
    name: &'a str,
    list: bool,
}

/// A line that would name a table, its last bracket forgotten or not.
fn header(line: &str) -> Option<Header<'_>> {
    let rest = line.trim_start().strip_prefix('[')?;
    let (list, rest) = match rest.strip_prefix('[') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let end = rest.find([']', '#', '\r']).unwrap_or(rest.len());
    let name = rest.get(..end)?.trim();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!name.is_empty() && name.bytes().all(is_plain)).then_some(Header { name, list })
}

/// Where the innermost bracket stands that is still open at the end of this text.
fn open_bracket(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut escaped = false;
    let mut comment = false;
    for (at, b) in text.bytes().enumerate() {
        match (quote, b) {
            // A text of one line ends with it, at the latest.
            (_, b'\n') => (quote, comment, escaped) = (None, false, false),
            _ if comment => {}
            (Some(_), _) if escaped => escaped = false,
            (Some(b'"'), b'\\') => escaped = true,
            (Some(mark), _) if mark == b => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(b),
            (None, b'#') => comment = true,
            (None, b'[') => open.push(at),
            (None, b']') => {
                open.pop();
            }
            _ => {}
        }
    }
    open.pop()
}

fn line_number(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.bytes().filter(|b| *b == b'\n').count() + 1
}

fn line_at(text: &str, at: usize) -> &str {
    let start = text
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |end| end + 1);
    text.get(start..)
        .and_then(|rest| rest.lines().next())
        .unwrap_or_default()
}
