//! Rows H1-68 and H1-69: what a connection's bytes mean, at every split and against a strict model of RFC 9112 that is
//! written here and shares nothing with the house.
//!
//! `WHARF_MUTANTS=N` tries so many mutants (4,000), `WHARF_FIRST=S` begins with that one.

use std::net::Ipv6Addr;

use wharf::policy::{Limits, RouteKind};

use crate::number;
use crate::still::{Manner, Seen, Still};

const MUTANTS: u64 = 4_000;
/// So many share a machine.
const LOT: u64 = 100;

/// What came of a connection on which these pieces were sent, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<u8>,
    closed: bool,
    seen: Vec<Seen>,
    records: Vec<(Option<u16>, Option<&'static str>, &'static str, String)>,
}

fn outcome(still: &mut Still, pieces: &[&[u8]]) -> Outcome {
    still.memory.forget();
    still.records.clear();
    let client = still.client();
    for piece in pieces {
        still.send(&client, piece);
        still.settle();
    }
    let (answers, closed) = still.receive(&client);
    let mut seen = still.memory.seen();
    for call in &mut seen {
        // Where the core meets a fault decides how much of what stands before it has left.
        if !call.ended {
            call.body.clear();
        }
        call.dropped = false;
    }
    let records = still.records.iter().map(|record| {
        let reason = record.reason.word();
        let message = record.message.clone();
        (record.http_status, record.refusal, reason, message)
    });
    Outcome {
        answers,
        closed,
        seen,
        records: records.collect(),
    }
}

/// Good and bad, for every arm of the parsers.
const SPLITS: &[&[u8]] = &[
    b"GET /a HTTP/1.1\r\nhost: wharf.test\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"\r\nPOST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nPOST /b HTTP/1.1\r\nhost: b\r\ncontent-length: 1\r\n\r\nxGET /healthz HTTP/1.1\r\nhost: c\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\nHEAD /b HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET http://wharf.test/a?b HTTP/1.1\r\nhost: wharf.test\r\nconnection: close\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /a HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
    b"GET /a HTTP/1.1\nhost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: a\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: a\r\n\n",
    b"GET /a HTTP/1.1\r\nhost: a\rb\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: a\r\n\rX",
    b"GET /a HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
    b"\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET  /a HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /a HTTP/2.0\r\nhost: a\r\n\r\n",
    b"GET /a HTTP/1.1x\r\nhost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost : a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nx: a\r\n b\r\nhost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloXX",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx : y\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
    b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX\0",
    b"GET /a HTTP/1.1\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\r\n",
];

#[test]
fn h1_68_the_same_bytes_come_to_the_same_at_every_split() {
    for whole in SPLITS {
        let mut still = Still::new(RouteKind::Plain, Manner::Echo, Limits::default());
        let expected = outcome(&mut still, &[whole]);
        for cut in 1..whole.len() {
            let (a, b) = whole.split_at(cut);
            let halves = outcome(&mut still, &[a, b]);
            assert_eq!(halves, expected, "{} at {cut}", whole.escape_ascii());
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let crumbs = outcome(&mut still, &bytes);
        assert_eq!(crumbs, expected, "{}", whole.escape_ascii());
    }
}

/// What mutants are made of.
const CORPUS: &[&[u8]] = &[
    b"GET /a HTTP/1.1\r\nHost: wharf.test\r\n\r\n",
    b"POST /b.C/D?q=1 HTTP/1.1\r\nHost: wharf.test:80\r\nContent-Length: 11\r\nx_y: z\r\n\r\nhello world",
    b"POST /c HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6 ;c\r\n world\r\n0\r\nX: y\r\n\r\n",
    b"PUT /d HTTP/1.1\r\nhost: [::1]:80\r\ncontent-length: 3\r\nconnection: x, te\r\nx: 1\r\n\r\nabcGET /e HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST http://wharf.test/f HTTP/1.1\r\nhost: WHARF.test\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nHEAD /g HTTP/1.1\r\nhost: a\r\n\r\n",
    b"\r\nOPTIONS * HTTP/1.1\r\nhost: a\r\norigin: https://a\r\n\r\nGET /h HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nGET /i HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /j HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\nGET /k HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /l HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nokPOST /m HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 33\r\n\r\nGET /evil HTTP/1.1\r\nhost: evil\r\n\r\nGET /n HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /o HTTP/1.1\r\nhost: a\r\ncontent-length: 44\r\nx-forwarded-for: 1\r\nvia: 1.1 x\r\n\r\nPOST /evil HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /q HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nx\r\n1;b\r\ny\r\n1 ;c\r\nz\r\n0;d\r\ne: f\r\n\r\nGET /r HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /p HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\nte: trailers\r\nupgrade: h2c\r\nconnection: upgrade\r\ntransfer-encoding: chunked\r\n\r\n00a\r\n0123456789\r\n00\r\n\r\n",
];

/// Lines that may be put into a head.
const LINES: &[&[u8]] = &[
    b"content-length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length: +5\r\n",
    b"content-length: 05\r\n",
    b"content-length: 5, 5\r\n",
    b"content-length:\r\n",
    b"content_length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"transfer-encoding : chunked\r\n",
    b" transfer-encoding: chunked\r\n",
    b"transfer-encoding:\tchunked\t\r\n",
    b"Host: b\r\n",
    b"host:\r\n",
    b"connection: close\r\n",
    b"connection: content-length\r\n",
    b"connection: x-a, Transfer_Encoding\r\n",
    b"expect: 100-continue\r\n",
    b"expect: 200-ok\r\n",
    b"x: \xe9\r\n",
    b"authorization: \xe9\r\n",
    b"x-forwarded_host: a\r\n",
    b"x: y\n",
    b"x\r\n",
    b": y\r\n",
    b"\r\n",
];

#[test]
fn h1_69_of_a_mutant_the_backend_sees_what_a_strict_reader_sees() {
    let first = number("WHARF_FIRST").unwrap_or(0);
    let end = first + number("WHARF_MUTANTS").unwrap_or(MUTANTS);
    let (mut calls, mut whole, mut untouched) = (0, 0, 0);
    for lot in (first..end).step_by(LOT as usize) {
        let mut still = Still::new(RouteKind::Plain, Manner::Echo, Limits::default());
        for seed in lot..end.min(lot + LOT) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (bytes, cut) = mutant(&mut rng);
            let (a, b) = bytes.split_at(cut);
            let expected = model::calls(&bytes);
            still.memory.forget();
            let client = still.client();
            for piece in [a, b] {
                still.send(&client, piece);
                still.settle();
            }
            let shown = || format!("mutant {seed}, cut at {cut}: {}", bytes.escape_ascii());
            let seen = still.memory.seen();
            let heads = |calls: &[(String, String)]| format!("{calls:?}");
            let own: Vec<_> = seen
                .iter()
                .map(|c| (c.method.clone(), c.path.clone()))
                .collect();
            let model: Vec<_> = expected
                .iter()
                .map(|c| (c.method.clone(), c.path.clone()))
                .collect();
            assert_eq!(heads(&own), heads(&model), "{}", shown());
            for (seen, expected) in seen.iter().zip(&expected) {
                assert_eq!(seen.ended, expected.whole, "{}", shown());
                let body = &expected.body;
                let right = match expected.whole {
                    true => seen.body == *body,
                    false => body.starts_with(&seen.body),
                };
                assert!(right, "{}: {}", shown(), seen.body.escape_ascii());
            }
            // Whatever it was waiting for does not come: nothing is made whole by that.
            let ended = seen.iter().filter(|call| call.ended).count();
            drop(client);
            still.settle();
            let seen = still.memory.seen();
            assert_eq!(seen.len(), expected.len(), "{}", shown());
            assert_eq!(
                seen.iter().filter(|call| call.ended).count(),
                ended,
                "{}",
                shown()
            );
            assert!(seen.iter().all(|call| call.dropped), "{}", shown());
            calls += expected.len();
            whole += ended;
            untouched += usize::from(expected.is_empty());
        }
        assert_eq!(still.core.census().1, 0, "no call is left");
    }
    // Mutants of which nothing ever comes would prove nothing, and neither would those of which all is well.
    let mutants = (end - first) as usize;
    println!("{mutants} mutants: {calls} calls, {whole} whole, {untouched} mutants without a call");
    if mutants >= 1_000 {
        assert!(
            whole * 3 > mutants,
            "{whole} whole calls of {mutants} mutants"
        );
        assert!(calls - whole > mutants / 50, "{} cut ones", calls - whole);
        assert!(untouched * 5 > mutants, "{untouched} without a call");
    }
}

/// One or two mutations of something from the corpus, and where it is cut in two.
fn mutant(rng: &mut fastrand::Rng) -> (Vec<u8>, usize) {
    let pick = |rng: &mut fastrand::Rng| CORPUS[rng.usize(..CORPUS.len())].to_vec();
    let mut bytes = pick(rng);
    let mut cut = bytes.len();
    for _ in 0..rng.usize(1..=2) {
        let at = spot(rng, &bytes);
        let slice = |rng: &mut fastrand::Rng, bytes: &[u8]| {
            let from = rng.usize(..=bytes.len());
            let len = rng.usize(..=(bytes.len() - from).min(40));
            from..from + len
        };
        match rng.u8(..13) {
            0 => drop(bytes.splice(at..(at + 1).min(bytes.len()), [])),
            1 => {
                let byte = odd(rng);
                drop(bytes.splice(at..(at + 1).min(bytes.len()), [byte]));
            }
            2 => bytes.insert(at, odd(rng)),
            3 => drop(bytes.splice(at..at, *b"\r\n")),
            4 => bytes.insert(at, 0),
            5 => bytes.insert(at, b':'),
            kind @ 6..=8 => {
                let lines = lines_of(&bytes);
                if lines.is_empty() {
                    continue;
                }
                let line = lines[rng.usize(..lines.len())].clone();
                let new = LINES[rng.usize(..LINES.len())];
                match kind {
                    6 => drop(bytes.splice(line.start..line.start, new.iter().copied())),
                    7 => drop(bytes.splice(line, new.iter().copied())),
                    _ => drop(bytes.splice(line, [])),
                }
            }
            9 => bytes.extend(pick(rng)),
            10 => cut = at,
            11 => {
                let from = slice(rng, &bytes);
                let moved: Vec<u8> = bytes.drain(from).collect();
                let to = rng.usize(..=bytes.len());
                drop(bytes.splice(to..to, moved));
            }
            _ => {
                let from = slice(rng, &bytes);
                let again = bytes[from.clone()].to_vec();
                drop(bytes.splice(from.end..from.end, again));
            }
        }
    }
    let cut = cut.min(bytes.len());
    (bytes, cut)
}

/// A place next to a byte that ends or divides something, or any.
fn spot(rng: &mut fastrand::Rng, bytes: &[u8]) -> usize {
    let divides = |(at, byte): (usize, &u8)| b"\r\n:; ,".contains(byte).then_some(at);
    let places: Vec<usize> = bytes.iter().enumerate().filter_map(divides).collect();
    match rng.u8(..4) {
        0 => rng.usize(..=bytes.len()),
        _ if places.is_empty() => 0,
        _ => places[rng.usize(..places.len())] + rng.usize(..=1),
    }
}

/// A byte that somebody might read otherwise, or any.
fn odd(rng: &mut fastrand::Rng) -> u8 {
    let odd = b"\r\n\t \0:;,0159aAfF+-_.\"/\\*?#%x\x0b\x0c\x7f\x80\xff";
    match rng.bool() {
        true => odd[rng.usize(..odd.len())],
        false => rng.u8(..),
    }
}

/// Where lines stand that look like fields.
fn lines_of(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            if bytes[start..at].contains(&b':') {
                lines.push(start..at + 1);
            }
            start = at + 1;
        }
    }
    lines
}

/// A reader of requests that takes nothing but what RFC 9112 and the house's own rules allow, and stops at the first doubt.
mod model {
    use super::Ipv6Addr;

    /// A request that a backend is to see.
    pub(super) struct Call {
        pub(super) method: String,
        pub(super) path: String,
        /// As far as it can be read.
        pub(super) body: Vec<u8>,
        pub(super) whole: bool,
    }

    enum Framing {
        Length(usize),
        Chunked,
    }

    struct Head {
        method: String,
        path: String,
        framing: Framing,
        last: bool,
        here: bool,
    }

    pub(super) fn calls(mut bytes: &[u8]) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some((head, rest)) = head(bytes) {
            let (body, left) = body(&head.framing, rest);
            if !head.here {
                calls.push(Call {
                    method: head.method,
                    path: head.path,
                    body,
                    whole: left.is_some(),
                });
            }
            match left {
                Some(left) if !head.last => bytes = left,
                _ => break,
            }
        }
        calls
    }

    /// One line and what is behind it; none if it does not end with CRLF, or holds a control character.
    fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let line = &bytes[..end];
        let fine = line.iter().all(|byte| *byte == b'\t' || *byte >= b' ');
        fine.then_some((line, &bytes[end + 2..]))
    }

    fn head(bytes: &[u8]) -> Option<(Head, &[u8])> {
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let (first, mut bytes) = line(bytes)?;
        let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
        let [method, target, version] = words[..] else {
            return None;
        };
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return None,
        };
        if !is_token(method) || method == b"CONNECT" || method == b"TRACE" {
            return None;
        }
        let mut fields: Vec<(String, &[u8])> = Vec::new();
        loop {
            let (field, rest) = line(bytes)?;
            bytes = rest;
            if field.is_empty() {
                break;
            }
            let colon = field.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&field[..colon], trim(&field[colon + 1..]));
            if !is_token(name) || value.contains(&0x7f) {
                return None;
            }
            let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
            if name.contains('_') && decides(&name.replace('_', "-")) {
                return None;
            }
            if !value.is_ascii() {
                if decides(&name) {
                    return None;
                }
                continue;
            }
            fields.push((name, value));
        }
        let all = |name: &str| -> Vec<&[u8]> {
            let own = fields.iter().filter(|(own, _)| own == name);
            own.map(|(_, value)| *value).collect()
        };
        let host = match all("host")[..] {
            [host] if is_host(host) => Some(host),
            [] if old => None,
            _ => return None,
        };
        let (path, here) = path(method, target, host, old)?;
        let length = match all("content-length")[..] {
            [] => None,
            [value] => Some(length(value)?),
            _ => return None,
        };
        let chunked = match all("transfer-encoding")[..] {
            [] => false,
            [value] => value.eq_ignore_ascii_case(b"chunked").then_some(true)?,
            _ => return None,
        };
        let framing = match (length, chunked) {
            (Some(_), true) => return None,
            (_, true) if old => return None,
            (_, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        if old && method != b"GET" && method != b"HEAD" {
            return None;
        }
        let expects = all("expect");
        if expects
            .iter()
            .any(|value| !value.eq_ignore_ascii_case(b"100-continue"))
        {
            return None;
        }
        let mut last = old;
        for option in all("connection")
            .iter()
            .flat_map(|value| value.split(|b| *b == b','))
        {
            let option = String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase();
            last |= option == "close";
            let usual = ["te", "upgrade", "trailer"].contains(&option.as_str());
            if decides(&option.replace('_', "-")) && !usual {
                return None;
            }
        }
        let head = Head {
            method: String::from_utf8(method.to_vec()).ok()?,
            path,
            framing,
            last,
            here,
        };
        Some((head, bytes))
    }

    /// The path, and whether it is answered without a backend.
    fn path(
        method: &[u8],
        target: &[u8],
        host: Option<&[u8]>,
        old: bool,
    ) -> Option<(String, bool)> {
        let target = std::str::from_utf8(target).ok()?;
        let odd = |c: char| !c.is_ascii_graphic() || "\"#<>\\^`".contains(c);
        if target.is_empty() || target.contains(odd) {
            return None;
        }
        if target == "*" && method == b"OPTIONS" {
            return Some((target.to_owned(), true));
        }
        let path = if target.starts_with('/') {
            target.to_owned()
        } else {
            let (scheme, rest) = target.split_once("://")?;
            if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
                return None;
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (asked, path) = rest.split_at(end);
            if !is_host(asked.as_bytes()) {
                return None;
            }
            match host {
                Some(host) if host.eq_ignore_ascii_case(asked.as_bytes()) => {}
                None if old => {}
                _ => return None,
            }
            match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            }
        };
        let bare = path.split('?').next()?;
        let here = bare == "/healthz" && (method == b"GET" || method == b"HEAD");
        Some((path, here))
    }

    fn length(value: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(value).ok()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = text == "0" || !text.starts_with('0');
        let length: u64 = text.parse().ok().filter(|_| digits && plain)?;
        usize::try_from(i64::try_from(length).ok()?).ok()
    }

    /// The content, and what is behind it if it is whole.
    fn body<'a>(framing: &Framing, mut bytes: &'a [u8]) -> (Vec<u8>, Option<&'a [u8]>) {
        match framing {
            Framing::Length(length) => match bytes.split_at_checked(*length) {
                Some((body, rest)) => (body.to_vec(), Some(rest)),
                None => (bytes.to_vec(), None),
            },
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let Some((size, rest)) = chunk_size(bytes) else {
                        return (body, None);
                    };
                    bytes = rest;
                    if size == 0 {
                        return (body, trailers(bytes));
                    }
                    let here = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                    body.extend(&bytes[..here]);
                    bytes = &bytes[here..];
                    if (here as u64) < size {
                        return (body, None);
                    }
                    let Some(rest) = bytes.strip_prefix(b"\r\n") else {
                        return (body, None);
                    };
                    bytes = rest;
                }
            }
        }
    }

    fn chunk_size(bytes: &[u8]) -> Option<(u64, &[u8])> {
        let (line, rest) = line(bytes)?;
        let printable = line
            .iter()
            .all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte));
        if !printable || line.len() > 256 {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
        let digits = match text.split_once(';') {
            Some((digits, _)) => digits.trim_end_matches([' ', '\t']),
            None => text,
        };
        let fine = digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(digits, 16).ok().filter(|_| fine)?;
        (size < 1 << 63).then_some((size, rest))
    }

    fn trailers(mut bytes: &[u8]) -> Option<&[u8]> {
        loop {
            let (field, rest) = line(bytes)?;
            bytes = rest;
            if field.is_empty() {
                return Some(bytes);
            }
            let colon = field.iter().position(|byte| *byte == b':')?;
            if !is_token(&field[..colon]) || field.contains(&0x7f) {
                return None;
            }
        }
    }

    fn trim(value: &[u8]) -> &[u8] {
        let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let start = value
            .iter()
            .position(|byte| !blank(byte))
            .unwrap_or(value.len());
        let end = value
            .iter()
            .rposition(|byte| !blank(byte))
            .map_or(start, |at| at + 1);
        &value[start..end]
    }

    fn is_token(name: &[u8]) -> bool {
        !name.is_empty()
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    }

    fn is_host(value: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(value) else {
            return false;
        };
        let port = if let Some(rest) = text.strip_prefix('[') {
            match rest.split_once(']') {
                Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => port,
                _ => return false,
            }
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            let fine = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if name.is_empty() || !name.chars().all(fine) {
                return false;
            }
            port
        };
        match port.strip_prefix(':') {
            None => port.is_empty(),
            Some(digits) => {
                !digits.is_empty()
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
                    && digits.parse::<u16>().is_ok()
            }
        }
    }

    /// Whether somebody frames, routes or identifies a request by that name. In lower case, without underscores.
    fn decides(name: &str) -> bool {
        name.starts_with("x-forwarded-")
            || [
                "host",
                "content-length",
                "transfer-encoding",
                "connection",
                "te",
                "trailer",
                "upgrade",
                "expect",
                "content-type",
                "content-encoding",
                "grpc-timeout",
                "grpc-encoding",
                "origin",
                "authorization",
                "proxy-authorization",
                "forwarded",
                "via",
                "x-real-ip",
            ]
            .contains(&name)
    }
}
