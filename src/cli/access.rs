//! One line per finished call, for eyes: when, what, how it ended, how long, how much, who.
//!
//! Pure: a [`Record`] in, text out. Every value that came from the network is escaped and cut, so that a line is one line
//! whatever was sent; a refusal has a second one, with its cure.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::escape::escape_short;
use crate::cli::style::{Color, Paint};
use crate::telemetry::Record;
use crate::wire::{Code, Reason};

/// The line of a finished call, without its last line end; a refusal's cure stands on a second line.
pub fn line(record: &Record, color: Color) -> String {
    line_in(record, color, &TimeZone::system())
}

fn line_in(record: &Record, color: Color, zone: &TimeZone) -> String {
    let clock = clock(record.started, zone);
    let faint = color.paint(Paint::Faint, &clock);
    if let Some(word) = record.refusal {
        return refused(record, word, &faint, color);
    }
    let what = match record.code {
        Some(_) => short(record.path.trim_start_matches('/')),
        None => format!("{} {}", short(&record.verb), short(&record.path)),
    };
    let (paint, end) = end(record);
    let end = color.paint(paint, &format!("{end:<12}"));
    let mut text = format!(
        "{faint}  {what:<WHAT$}  {end}  {:>9}   {}   {}",
        time(record.elapsed),
        traffic(
            "↑",
            record.request.messages,
            record.request.bytes,
            record.code
        ),
        traffic(
            "↓",
            record.response.messages,
            record.response.bytes,
            record.code
        ),
    );
    let notes = notes(record);
    if !notes.is_empty() {
        text.push_str("   ");
        text.push_str(&notes);
    }
    text
}

/// `origin X is not allowed; add:  --allow-origin X` becomes two lines, the cure under the cause.
fn refused(record: &Record, word: &str, clock: &str, color: Color) -> String {
    let what = format!("{} {}", short(&record.verb), short(&record.path));
    let status = record
        .http_status
        .map_or_else(String::new, |status| format!(" {status}"));
    let (cause, cure) = match record.message.split_once("; ") {
        Some((cause, cure)) => (cause, Some(cure)),
        None => (record.message.as_str(), None),
    };
    let head = format!("{what:<WHAT$}  refused{status}");
    let mut text = format!(
        "{clock}  {}   {word}: {}",
        color.paint(Paint::Odd, &head),
        escape_short(cause, MESSAGE_MAX)
    );
    if let Some(cure) = cure {
        let indent = CLOCK + 2 + head.chars().count() + 3;
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', indent));
        text.push_str(&escape_short(cure, MESSAGE_MAX));
    }
    text
}

fn end(record: &Record) -> (Paint, String) {
    match (record.code, record.http_status) {
        (Some(Code::OK), _) => (Paint::Good, Code::OK.to_string()),
        (Some(Code::CANCELLED), _) => (Paint::Odd, Code::CANCELLED.to_string()),
        (Some(code), _) => (Paint::Bad, code.to_string()),
        (None, Some(status)) if status < 400 => (Paint::Good, status.to_string()),
        (None, Some(status)) => (Paint::Bad, status.to_string()),
        (None, None) => (Paint::Odd, "no answer".to_owned()),
    }
}

/// What the columns do not say: why it ended, what was told, which library called.
fn notes(record: &Record) -> String {
    let mut notes = Vec::new();
    let ours = !matches!(record.reason, Reason::Ok | Reason::BackendStatus);
    if ours {
        let mut why = record.reason.word().to_owned();
        // The message often begins with the detail, or is it.
        let detail = record.reason.detail();
        if let Some(detail) = detail.filter(|detail| !record.message.contains(detail)) {
            why.push_str(" (");
            why.push_str(detail);
            why.push(')');
        }
        if !record.message.is_empty() {
            why.push_str(": ");
            why.push_str(&escape_short(&record.message, MESSAGE_MAX));
        }
        notes.push(why);
    } else if !record.message.is_empty() {
        notes.push(format!(
            "\"{}\"",
            escape_short(&record.message, MESSAGE_MAX)
        ));
    }
    if record.aborted {
        notes.push("cut inside a message".to_owned());
    }
    if record.attempts > 1 {
        notes.push(format!("{} attempts", record.attempts));
    }
    if let Some(library) = record
        .library
        .as_deref()
        .filter(|library| !library.is_empty())
    {
        notes.push(escape_short(caller(library), LIBRARY_MAX));
    }
    notes.join("   ")
}

/// A browser says "Mozilla/5.0" and a long list of whom it resembles; its name is enough. Each names the ones below it too.
fn caller(library: &str) -> &str {
    const BROWSERS: [(&str, &str); 5] = [
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    if !library.starts_with("Mozilla/5.0 ") {
        return library;
    }
    BROWSERS
        .iter()
        .find(|(mark, _)| library.contains(mark))
        .map_or(library, |(_, name)| name)
}

fn short(text: &str) -> String {
    escape_short(text, PATH_MAX)
}

fn clock(at: SystemTime, zone: &TimeZone) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => at
            .to_zoned(zone.clone())
            .strftime("%H:%M:%S%.3f")
            .to_string(),
        // A clock beyond the calendar still gets its column.
        Err(_) => "--:--:--.---".to_owned(),
    }
}

/// `0.42 ms`, `3.1 ms`, `12.00 s`, `3m12s`, `2h05m`.
pub(crate) fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    let secs = time.as_secs();
    if millis < 0.995 {
        format!("{millis:.2} ms")
    } else if millis < 999.5 {
        format!("{millis:.1} ms")
    } else if secs < 60 {
        format!("{:.2} s", time.as_secs_f64())
    } else if secs < 3_600 {
        format!("{}m{:02}s", secs / 60, secs % 60)
    } else {
        format!("{}h{:02}m", secs / 3_600, secs % 3_600 / 60)
    }
}

fn traffic(arrow: &str, messages: u64, bytes: u64, code: Option<Code>) -> String {
    let bytes = size(bytes);
    match code {
        Some(_) => format!("{arrow} {messages:>3} msg {bytes:>8}"),
        // What is no call has no messages.
        None => format!("{arrow}         {bytes:>8}"),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

const CLOCK: usize = "12:04:31.220".len();
const WHAT: usize = 24;
const PATH_MAX: usize = 120;
const MESSAGE_MAX: usize = 300;
const LIBRARY_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Traffic;
    use crate::wire::Party;

    fn record() -> Record {
        Record {
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(43_471_220),
            elapsed: Duration::from_micros(3_100),
            first_byte: None,
            client: "127.0.0.1:5000".parse().unwrap(),
            verb: "POST".to_owned(),
            path: "/demo.v1.Echo/Say".to_owned(),
            origin: None,
            library: Some("connect-es/2.1.2".to_owned()),
            protocol: "grpc-web",
            route: None,
            backend: None,
            endpoint: None,
            attempts: 1,
            code: Some(Code::OK),
            http_status: Some(200),
            reason: Reason::Ok,
            refusal: None,
            by: Party::Upstream,
            message: String::new(),
            aborted: false,
            request: Traffic {
                messages: 1,
                bytes: 11,
            },
            response: Traffic {
                messages: 37,
                bytes: 148,
            },
        }
    }

    fn shown(record: &Record) -> String {
        line_in(record, Color::Never, &TimeZone::UTC)
    }

    #[test]
    fn a_call_is_one_line_of_columns() {
        assert_eq!(
            shown(&record()),
            "12:04:31.220  demo.v1.Echo/Say          OK               3.1 ms   ↑   1 msg     11 B   ↓  37 msg    148 B   connect-es/2.1.2"
        );
    }

    #[test]
    fn a_call_that_we_ended_names_the_reason_and_what_was_told() {
        let record = Record {
            code: Some(Code::UNAVAILABLE),
            reason: Reason::BackendConnectRefused,
            message: "nothing listens on 127.0.0.1:50051".to_owned(),
            library: None,
            ..record()
        };
        let text = shown(&record);
        assert!(text.contains("  UNAVAILABLE  "), "{text}");
        assert!(
            text.ends_with("   backend_connect_refused: nothing listens on 127.0.0.1:50051"),
            "{text}"
        );
        let left = Record {
            code: Some(Code::CANCELLED),
            reason: Reason::ClientLeft,
            by: Party::Downstream,
            message: String::new(),
            ..record
        };
        assert!(shown(&left).ends_with("   client_left"), "{}", shown(&left));
    }

    #[test]
    fn the_backends_own_error_is_quoted_and_a_cut_and_a_retry_are_told() {
        let record = Record {
            code: Some(Code::NOT_FOUND),
            reason: Reason::BackendStatus,
            message: "no such user".to_owned(),
            aborted: true,
            attempts: 2,
            ..record()
        };
        assert!(
            shown(&record).ends_with(
                "   \"no such user\"   cut inside a message   2 attempts   connect-es/2.1.2"
            ),
            "{}",
            shown(&record)
        );
        let detail = Record {
            reason: Reason::ClientProtocol("bad base64"),
            message: String::new(),
            ..record
        };
        assert!(shown(&detail).contains("   client_protocol (bad base64)   "));
        let twice = Record {
            message: "bad base64".to_owned(),
            ..detail
        };
        assert!(shown(&twice).contains("   client_protocol: bad base64   "));
    }

    #[test]
    fn a_refusal_has_its_cure_under_its_cause() {
        let origin = "http://192.168.1.7:5173";
        let record = Record {
            verb: "OPTIONS".to_owned(),
            code: None,
            http_status: Some(403),
            refusal: Some("cors_origin"),
            message: format!("origin {origin} is not allowed; add:  --allow-origin {origin}"),
            ..record()
        };
        assert_eq!(
            shown(&record),
            "12:04:31.220  OPTIONS /demo.v1.Echo/Say  refused 403   cors_origin: origin http://192.168.1.7:5173 is not allowed\n                                                       add:  --allow-origin http://192.168.1.7:5173"
        );
        let plain = Record {
            message: "no POST".to_owned(),
            ..record
        };
        assert_eq!(shown(&plain).lines().count(), 1);
    }

    #[test]
    fn a_browser_is_called_by_its_name() {
        const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
        const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15";
        const FIREFOX: &str =
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        let edge = format!("{CHROME} Edg/141.0.0.0");
        for (agent, name) in [
            (CHROME, "Chrome"),
            (SAFARI, "Safari"),
            (FIREFOX, "Firefox"),
            (edge.as_str(), "Edge"),
            ("grpc-web-javascript/0.1", "grpc-web-javascript/0.1"),
            ("Mozilla/5.0 (what)", "Mozilla/5.0 (what)"),
        ] {
            let record = Record {
                library: Some(agent.to_owned()),
                ..record()
            };
            let text = shown(&record);
            assert!(text.ends_with(&format!("   {name}")), "{text}");
        }
    }

    #[test]
    fn what_is_no_call_shows_its_verb_and_http_status() {
        let record = Record {
            verb: "GET".to_owned(),
            path: "/healthz".to_owned(),
            code: None,
            library: None,
            ..record()
        };
        assert!(
            shown(&record).starts_with("12:04:31.220  GET /healthz              200 "),
            "{}",
            shown(&record)
        );
        let unanswered = Record {
            http_status: None,
            ..record
        };
        assert!(shown(&unanswered).contains("no answer"));
    }

    #[test]
    fn nothing_that_a_stranger_sent_reaches_the_terminal_raw_or_makes_a_second_line() {
        let evil = "a\r\nb\x1b[2J\0\u{202e}\u{9b}".repeat(100);
        let record = Record {
            verb: evil.clone(),
            path: format!("/{evil}"),
            origin: Some(evil.clone()),
            library: Some(evil.clone()),
            message: evil,
            ..record()
        };
        for (code, refusal, reason) in [
            (Some(Code::OK), None, Reason::Ok),
            (Some(Code::INTERNAL), None, Reason::Loop),
            (None, None, Reason::NoRoute),
            (None, Some("bad_http"), Reason::Ok),
        ] {
            let record = Record {
                code,
                refusal,
                reason,
                ..record.clone()
            };
            let text = shown(&record);
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(!text.contains('\u{202e}'), "{text:?}");
            assert!(text.len() < 10_000, "{}", text.len());
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let strip = |text: String| {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once('\x1b') {
                out.push_str(before);
                rest = after.split_once('m').expect("a sequence ends").1;
            }
            out + rest
        };
        let refusal = Record {
            refusal: Some("cors_origin"),
            message: "a; b".to_owned(),
            ..record()
        };
        for record in [record(), refusal] {
            let painted = line_in(&record, Color::Ansi, &TimeZone::UTC);
            assert!(painted.contains('\x1b'));
            assert_eq!(strip(painted), shown(&record));
        }
    }

    #[test]
    fn times_and_sizes_are_short_at_every_scale() {
        for (micros, text) in [
            (0, "0.00 ms"),
            (420, "0.42 ms"),
            (996, "1.0 ms"),
            (3_100, "3.1 ms"),
            (999_400, "999.4 ms"),
            (999_600, "1.00 s"),
            (12_000_000, "12.00 s"),
            (192_000_000, "3m12s"),
            (7_500_000_000, "2h05m"),
        ] {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KiB"),
            (10_240, "10 KiB"),
            (4 << 20, "4.0 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
