//! One line per finished call, for eyes: when, what, how it ended, how long, how much, who.
//!
//! Pure: a [`Record`] in, text out. Every value that came from the network is escaped and cut, so that a line is one line
//! whatever was sent; a refusal has a second one, with its cure.
//!
//! A line is written straight behind the one before it, digit by digit and without a text of its own in between: at 50,000
//! calls a second the formatting machinery would cost more than the calls' codecs.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::escape::push_short;
use crate::cli::style::{Color, Paint};
use crate::telemetry::Record;
use crate::telemetry::record::Traffic;
use crate::wire::{Code, Reason};

/// The line of a finished call, without its last line end; a refusal's cure stands on a second line.
pub fn line(record: &Record, color: Color) -> String {
    let mut text = String::new();
    Lines::new(color).append(record, &mut text);
    text
}

/// Writes lines one after the other.
#[derive(Debug)]
pub struct Lines {
    color: Color,
    /// Flags alone said how to start: whoever reads of a limit may not know of a file that has it.
    without_file: bool,
    /// `None`: the machine's, which is asked for anew in every second.
    zone: Option<TimeZone>,
    /// The second of which [`Self::clock`] is, since 1970.
    second: Option<u64>,
    /// `12:04:31.`, as the last line had it; the whole column where there is no such second.
    clock: String,
}

impl Lines {
    /// Times are told in the machine's zone.
    pub const fn new(color: Color) -> Self {
        Self {
            color,
            without_file: false,
            zone: None,
            second: None,
            clock: String::new(),
        }
    }

    /// The same, and where a limit is named it is said that it stands in a file.
    #[must_use]
    pub fn without_file(self, without_file: bool) -> Self {
        Self {
            without_file,
            ..self
        }
    }

    /// Writes the line of a finished call behind what `text` holds, without its last line end; a refusal's cure stands on a
    /// second line.
    pub fn append(&mut self, record: &Record, text: &mut String) {
        text.push_str(self.color.on(Paint::Faint));
        self.push_clock(text, record.started);
        text.push_str(self.color.off());
        text.push_str("  ");
        match record.refusal {
            Some(word) => refused(text, record, word, self.color),
            None => finished(text, record, self.color),
        }
        if self.without_file && names_limit(record) {
            text.push_str("   (a key of the file: wharf run -c FILE)");
        }
    }

    /// `12:04:31.220`.
    fn push_clock(&mut self, text: &mut String, at: SystemTime) {
        let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else {
            return text.push_str(&self.spell(at, "%H:%M:%S%.3f"));
        };
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.clock = self.spell(at, "%H:%M:%S.");
        }
        text.push_str(&self.clock);
        if self.clock.len() < CLOCK {
            let mut millis = Column::default();
            let number = u64::from(since.subsec_millis());
            millis.pair(number % 100);
            millis.digit(number / 100);
            text.push_str(millis.as_str());
        }
    }

    fn spell(&self, at: SystemTime, how: &str) -> String {
        match Timestamp::try_from(at) {
            Ok(at) => {
                let zone = self.zone.clone().unwrap_or_else(TimeZone::system);
                at.to_zoned(zone).strftime(how).to_string()
            }
            // A clock beyond the calendar still gets its column.
            Err(_) => "--:--:--.---".to_owned(),
        }
    }
}

/// Whether we have told its caller of a limit that may be set.
fn names_limit(record: &Record) -> bool {
    let ours =
        record.refusal.is_some() || !matches!(record.reason, Reason::Ok | Reason::BackendStatus);
    ours && LIMITS.iter().any(|key| record.message.contains(key))
}

fn finished(text: &mut String, record: &Record, color: Color) {
    let mut wide = 0;
    let path = match record.code {
        Some(_) => record.path.trim_start_matches('/'),
        None => {
            wide = push_short(text, &record.verb, PATH_MAX) + 1;
            text.push(' ');
            &record.path
        }
    };
    wide += push_short(text, path, PATH_MAX);
    push_spaces(text, WHAT.saturating_sub(wide) + 2);
    push_end(text, record, color);
    let mut columns = Column::default();
    columns.traffic("   ↓", record.response, record.code);
    columns.traffic("   ↑", record.request, record.code);
    let behind = columns.width();
    columns.time(record.elapsed);
    columns.widen(behind + 9);
    columns.put(b"  ");
    text.push_str(columns.as_str());
    push_notes(text, record);
}

/// `origin X is not allowed; add:  --allow-origin X` becomes two lines, the cure under the cause.
fn refused(text: &mut String, record: &Record, word: &str, color: Color) {
    let (cause, cure) = match record.message.split_once("; ") {
        Some((cause, cure)) => (cause, Some(cure)),
        None => (record.message.as_str(), None),
    };
    text.push_str(color.on(Paint::Odd));
    let mut wide = push_short(text, &record.verb, PATH_MAX) + 1;
    text.push(' ');
    wide += push_short(text, &record.path, PATH_MAX);
    push_spaces(text, WHAT.saturating_sub(wide));
    wide = wide.max(WHAT) + "  refused".len();
    text.push_str("  refused");
    if let Some(status) = record.http_status {
        text.push(' ');
        let before = text.len();
        push_number(text, status.into());
        wide += 1 + text.len() - before;
    }
    text.push_str(color.off());
    text.push_str("   ");
    text.push_str(word);
    text.push_str(": ");
    push_short(text, cause, MESSAGE_MAX);
    if let Some(cure) = cure {
        text.push('\n');
        push_spaces(text, CLOCK + 2 + wide + 3);
        push_short(text, cure, MESSAGE_MAX);
    }
}

/// How it ended, in its column.
fn push_end(text: &mut String, record: &Record, color: Color) {
    let paint = match (record.code, record.http_status) {
        (Some(Code::OK), _) => Paint::Good,
        (Some(Code::CANCELLED), _) => Paint::Odd,
        (Some(_), _) => Paint::Bad,
        (None, Some(status)) if status < 400 => Paint::Good,
        (None, Some(_)) => Paint::Bad,
        (None, None) => Paint::Odd,
    };
    text.push_str(color.on(paint));
    let before = text.len();
    match (record.code, record.http_status) {
        (Some(code), _) => match code.name() {
            Some(name) => text.push_str(name),
            None => {
                let _ = write!(text, "{code}");
            }
        },
        (None, Some(status)) => push_number(text, status.into()),
        (None, None) => text.push_str("no answer"),
    }
    push_spaces(text, END.saturating_sub(text.len() - before));
    text.push_str(color.off());
}

/// What the columns do not say: why it ended, what was told, which library called.
fn push_notes(text: &mut String, record: &Record) {
    let ours = !matches!(record.reason, Reason::Ok | Reason::BackendStatus);
    if ours {
        text.push_str("   ");
        text.push_str(record.reason.word());
        // The message often begins with the detail, or is it.
        let detail = record.reason.detail();
        if let Some(detail) = detail.filter(|detail| !record.message.contains(detail)) {
            text.push_str(" (");
            text.push_str(detail);
            text.push(')');
        }
        if !record.message.is_empty() {
            text.push_str(": ");
            push_short(text, &record.message, MESSAGE_MAX);
        }
    } else if !record.message.is_empty() {
        text.push_str("   \"");
        push_short(text, &record.message, MESSAGE_MAX);
        text.push('"');
    }
    if record.aborted {
        text.push_str("   cut inside a message");
    }
    if record.attempts > 1 {
        text.push_str("   ");
        push_number(text, record.attempts.into());
        text.push_str(" attempts");
    }
    if let Some(library) = &record.library
        && !library.is_empty()
    {
        text.push_str("   ");
        push_short(text, caller(library), LIBRARY_MAX);
    }
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
    // Every mark ends with a slash: one pass over them instead of one for each mark.
    let upto = library.match_indices('/').map(|(at, _)| &library[..=at]);
    let rank = |upto: &str| BROWSERS.iter().position(|(mark, _)| upto.ends_with(mark));
    upto.filter_map(rank)
        .min()
        .and_then(|rank| BROWSERS.get(rank))
        .map_or(library, |(_, name)| name)
}

/// `<0.1 ms`, `0.42 ms`, `3.1 ms`, `12.00 s`, `3m12s`, `2h05m`.
pub(crate) fn time(time: Duration) -> String {
    let mut column = Column::default();
    column.time(time);
    column.as_str().to_owned()
}

fn push_number(text: &mut String, number: u64) {
    let mut column = Column::default();
    column.number(number);
    text.push_str(column.as_str());
}

/// A piece of a line, written from its right end to its left: numbers are told in that order, and what stands
/// to the right in its column needs no second look.
struct Column {
    bytes: [u8; Self::MAX],
    start: usize,
}

impl Default for Column {
    fn default() -> Self {
        Self {
            bytes: [b' '; Self::MAX],
            start: Self::MAX,
        }
    }
}

impl Column {
    /// More than the longest: two numbers of 20 digits, two sizes, a time, and what stands between them.
    const MAX: usize = 128;

    fn as_str(&self) -> &str {
        let shown = self.bytes.get(self.start..).unwrap_or_default();
        str::from_utf8(shown).unwrap_or_default()
    }

    const fn width(&self) -> usize {
        Self::MAX - self.start
    }

    /// Spaces in front, up to that width in all.
    fn widen(&mut self, width: usize) {
        // Nothing but spaces has been in front.
        self.start = self.start.min(Self::MAX.saturating_sub(width));
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.start;
        if let Some(start) = end.checked_sub(bytes.len())
            && let Some(place) = self.bytes.get_mut(start..end)
        {
            place.copy_from_slice(bytes);
            self.start = start;
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.start.checked_sub(1) {
            self.start = place;
            self.bytes[place] = byte;
        }
    }

    fn digit(&mut self, number: u64) {
        self.byte(b'0' + (number % 10) as u8);
    }

    /// In decimal digits.
    fn number(&mut self, mut number: u64) {
        loop {
            self.digit(number);
            number /= 10;
            if number == 0 {
                break;
            }
        }
    }

    /// A number below a hundred, of which both digits are shown.
    fn pair(&mut self, number: u64) {
        self.digit(number);
        self.digit(number / 10);
    }

    /// A number of tenths.
    fn tenths(&mut self, number: u64) {
        self.digit(number);
        self.byte(b'.');
        self.number(number / 10);
    }

    /// A number of hundredths.
    fn hundredths(&mut self, number: u64) {
        self.pair(number % 100);
        self.byte(b'.');
        self.number(number / 100);
    }

    fn time(&mut self, time: Duration) {
        const MICRO: u64 = 1_000;
        const MILLI: u64 = 1_000_000;
        let secs = time.as_secs();
        // Beyond 584 years it is not looked at.
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if nanos <= 5 * MICRO {
            // The clock is read once in a turn: what begins and ends in one has no time that is known.
            self.put(b"<0.1 ms");
        } else if nanos < 995 * MICRO {
            self.put(b" ms");
            self.hundredths(rounded(nanos, 10 * MICRO));
        } else if nanos < 999_500 * MICRO {
            self.put(b" ms");
            self.tenths(rounded(nanos, 100 * MICRO));
        } else if secs < 60 {
            self.put(b" s");
            self.hundredths(rounded(nanos, 10 * MILLI));
        } else if secs < 3_600 {
            self.byte(b's');
            self.pair(secs % 60);
            self.byte(b'm');
            self.number(secs / 60);
        } else {
            self.byte(b'm');
            self.pair(secs % 3_600 / 60);
            self.byte(b'h');
            self.number(secs / 3_600);
        }
    }

    /// `   ↑     1 msg     11 B`.
    fn traffic(&mut self, arrow: &str, traffic: Traffic, code: Option<Code>) {
        let behind = self.width();
        self.size(traffic.bytes);
        self.widen(behind + 8);
        match code {
            Some(_) => {
                self.put(b" msg ");
                let behind = self.width();
                self.number(traffic.messages);
                self.widen(behind + MESSAGES);
            }
            // What is no call has no messages.
            None => self.put(b"          "),
        }
        self.put(b" ");
        self.put(arrow.as_bytes());
    }

    /// `11 B`, `4.0 MiB`, `16 KiB`.
    fn size(&mut self, bytes: u64) {
        const UNITS: [&[u8]; 5] = [b" KiB", b" MiB", b" GiB", b" TiB", b" PiB"];
        if bytes < 1_000 {
            self.put(b" B");
            return self.number(bytes);
        }
        let (mut one, mut name) = (1u64, &b" B"[..]);
        for unit in UNITS {
            // Less than 999.5 of them.
            if u128::from(bytes) * 2 < 1_999 * u128::from(one) {
                break;
            }
            one <<= 10;
            name = unit;
        }
        self.put(name);
        let tens = bytes.saturating_mul(10);
        // Less than 9.95 of them.
        if u128::from(tens) * 10 < 995 * u128::from(one) {
            self.tenths(rounded(tens, one));
        } else {
            self.number(rounded(bytes, one));
        }
    }
}

/// The quotient, rounded to the nearest, and to the even one where two are as near.
const fn rounded(dividend: u64, divisor: u64) -> u64 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let other = divisor - rest;
    let up = rest > other || (rest == other && quotient % 2 == 1);
    quotient + up as u64
}

fn push_spaces(text: &mut String, count: usize) {
    match SPACES.get(..count) {
        Some(spaces) => text.push_str(spaces),
        None => text.extend(std::iter::repeat_n(' ', count)),
    }
}

const SPACES: &str = "                                ";
const CLOCK: usize = "12:04:31.220".len();
/// A usual method's name, e.g. `helloworld.Greeter/SayHello`.
const WHAT: usize = 28;
/// The longest name of a status, `FAILED_PRECONDITION`.
const END: usize = 19;
/// Digits of a number of messages.
const MESSAGES: usize = 5;
const PATH_MAX: usize = 120;
const LIMITS: [&str; 4] = [
    "limits.message_bytes",
    "limits.header_bytes",
    "limits.line_bytes",
    "limits.header_fields",
];
const MESSAGE_MAX: usize = 300;
const LIBRARY_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Party;

    fn record() -> Record {
        Record {
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(43_471_220),
            elapsed: Duration::from_micros(3_100),
            client: "127.0.0.1:5000".parse().unwrap(),
            verb: "POST".to_owned(),
            path: "/demo.v1.Echo/Say".to_owned(),
            library: Some("connect-es/2.1.2".to_owned()),
            protocol: "grpc-web",
            attempts: 1,
            code: Some(Code::OK),
            http_status: Some(200),
            by: Party::Upstream,
            request: Traffic {
                messages: 1,
                bytes: 11,
            },
            response: Traffic {
                messages: 37,
                bytes: 148,
            },
            ..Record::blank()
        }
    }

    fn line_in(record: &Record, color: Color, zone: &TimeZone) -> String {
        let mut text = String::new();
        let mut lines = Lines::new(color);
        lines.zone = Some(zone.clone());
        lines.append(record, &mut text);
        text
    }

    fn size(bytes: u64) -> String {
        let mut column = Column::default();
        column.size(bytes);
        column.as_str().to_owned()
    }

    fn shown(record: &Record) -> String {
        line_in(record, Color::Never, &TimeZone::UTC)
    }

    #[test]
    fn a_call_is_one_line_of_columns() {
        assert_eq!(
            shown(&record()),
            "12:04:31.220  demo.v1.Echo/Say              OK                      3.1 ms   ↑     1 msg     11 B   ↓    37 msg    148 B   connect-es/2.1.2"
        );
    }

    #[test]
    fn the_usual_ends_methods_and_numbers_stand_in_columns() {
        let at = |record: &Record, mark: &str| {
            let text = shown(record);
            let before = text.split_once(mark).expect("each line has it").0;
            before.chars().count()
        };
        let long = Record {
            path: "/helloworld.Greeter/SayHello".to_owned(),
            response: Traffic {
                messages: 10_000,
                bytes: 4 << 20,
            },
            elapsed: Duration::ZERO,
            ..record()
        };
        let codes = (0..=16).map(|code| Record {
            code: Some(Code::new(code)),
            ..long.clone()
        });
        for record in codes {
            for mark in [" ms ", "↑", "↓", "connect-es"] {
                assert_eq!(
                    at(&record, mark),
                    at(&self::record(), mark),
                    "{}",
                    shown(&record)
                );
            }
        }
        let page = Record {
            code: None,
            ..record()
        };
        assert_eq!(at(&page, "↓"), at(&record(), "↓"), "{}", shown(&page));
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
            "12:04:31.220  OPTIONS /demo.v1.Echo/Say     refused 403   cors_origin: origin http://192.168.1.7:5173 is not allowed\n                                                          add:  --allow-origin http://192.168.1.7:5173"
        );
        let plain = Record {
            message: "no POST".to_owned(),
            ..record
        };
        assert_eq!(shown(&plain).lines().count(), 1);
    }

    #[test]
    fn who_has_no_file_is_told_that_a_limit_stands_in_one() {
        let limit = "a message of the request is larger than limits.message_bytes (7 bytes)";
        let ended = Record {
            code: Some(Code::RESOURCE_EXHAUSTED),
            reason: Reason::MessageTooLarge(7),
            message: limit.to_owned(),
            ..record()
        };
        let refused = Record {
            code: None,
            http_status: Some(431),
            refusal: Some("bad_http"),
            message: "head too large: limits.header_bytes bounds it".to_owned(),
            ..record()
        };
        // A backend's own words are its own.
        let other = Record {
            reason: Reason::BackendStatus,
            ..ended.clone()
        };
        let key = "   (a key of the file: wharf run -c FILE)";
        for (record, told) in [(&ended, true), (&refused, true), (&other, false)] {
            let by = |without_file| {
                let mut text = String::new();
                let mut lines = Lines::new(Color::Never).without_file(without_file);
                lines.append(record, &mut text);
                text
            };
            assert_eq!(by(true).ends_with(key), told, "{}", by(true));
            assert!(!by(false).contains(key));
        }
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
            shown(&record).starts_with("12:04:31.220  GET /healthz                  200 "),
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
            (0, "<0.1 ms"),
            (4, "<0.1 ms"),
            (5, "<0.1 ms"),
            (6, "0.01 ms"),
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

    #[test]
    fn a_size_is_rounded_as_the_standard_library_rounds() {
        let standard = |bytes: u64| {
            let (mut value, mut unit) = (bytes as f64, "B");
            for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
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
        };
        let near = |bytes: u64| (bytes - 600..bytes + 600).step_by(7);
        let small = 1_000..40_000;
        let large = [1_023_488, 10_433_331, 11_010_048, 1 << 30, 10_683_731_148]
            .into_iter()
            .flat_map(near);
        for bytes in small.chain(large) {
            assert_eq!(size(bytes), standard(bytes), "{bytes}");
        }
    }

    #[test]
    fn one_writer_tells_the_time_of_every_line() {
        let mut lines = Lines::new(Color::Never);
        lines.zone = Some(TimeZone::fixed(jiff::tz::offset(2)));
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut clock = |at| {
            let mut text = String::new();
            lines.push_clock(&mut text, at);
            text
        };
        // Of one second, of another and back, with and without a part of it that is cut off.
        for (nanos, text) in [
            (0, "00:13:20.000"),
            (7_999_999, "00:13:20.007"),
            (999_999_999, "00:13:20.999"),
            (1_020_000_000, "00:13:21.020"),
            (450_000_000, "00:13:20.450"),
        ] {
            assert_eq!(clock(base + Duration::from_nanos(nanos)), text);
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(clock(before), "01:59:59.999");
        // The last second that the calendar knows is of the year 9999.
        let beyond = SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        assert_eq!(clock(beyond), "--:--:--.---");
        assert_eq!(clock(base), "00:13:20.000");
    }

    #[test]
    fn a_line_stands_behind_the_one_before_it_and_changes_nothing_of_it() {
        let refusal = Record {
            refusal: Some("cors_origin"),
            message: "a; b".to_owned(),
            ..record()
        };
        let mut lines = Lines::new(Color::Ansi);
        lines.zone = Some(TimeZone::UTC);
        let mut text = String::new();
        let mut alone = String::new();
        for record in [record(), refusal, record()] {
            lines.append(&record, &mut text);
            alone.push_str(&line_in(&record, Color::Ansi, &TimeZone::UTC));
        }
        assert_eq!(text, alone);
    }

    #[test]
    fn the_longest_numbers_are_told_whole() {
        let most = Traffic {
            messages: u64::MAX,
            bytes: u64::MAX,
        };
        let record = Record {
            elapsed: Duration::MAX,
            request: most,
            response: most,
            ..record()
        };
        let number = "18446744073709551615 msg 16384 PiB";
        let text = format!("  5124095576030431h00m   ↑ {number}   ↓ {number}   connect-es");
        assert!(shown(&record).contains(&text), "{}", shown(&record));
    }
}
