//! Heads of HTTP/1.1: bytes to [`RequestHead`], and [`ResponseHead`] to bytes.
//!
//! Owns the decision where a request's head ends, what it says, and how its body is framed: [`Framing`] is decided here
//! once and never again. It never looks at a body, never routes, and never repairs: what two readers could read in two
//! ways is refused (RFC 9112 §11.2, request smuggling). httparse does the token work; the rules that it leaves open (bare
//! LF, leading empty lines, framing fields, targets, `Host`) are ours.
//!
//! Sources: RFC 9112 §2.2, §3, §5, §6; RFC 9110 §5.5, §7.2, §7.6.1, §8.6, §10.1.1, §15.5.22.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::wire::fields::{Fields, WHO_ASKS, X_USER_AGENT};
use crate::wire::metadata::is_hop_by_hop;
use crate::wire::part::{RequestHead, ResponseHead};

/// How much a head may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The request line, without its CRLF. Over it: 414.
    pub line_bytes_max: usize,
    /// The whole head, through its empty line. Over it: 431.
    pub head_bytes_max: usize,
    /// Fields. Over it: 431. Above [`FIELDS_CAP`] it means that.
    pub fields_max: usize,
    /// One field's name. Over it: 431.
    pub name_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 8 << 10,
            head_bytes_max: 16 << 10,
            fields_max: 100,
            name_bytes_max: 256,
        }
    }
}

/// Why a head is refused. After it the connection closes: where the next message begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFault {
    /// HTTP's status for it.
    pub status: u16,
    /// What was wrong, in a few words for the log.
    pub detail: &'static str,
}

impl HeadFault {
    /// Longer than [`HeadLimits::line_bytes_max`].
    pub const LINE_TOO_LONG: Self = Self::new(414, "request line too long");
    /// Larger than [`HeadLimits::head_bytes_max`].
    pub const HEAD_TOO_LARGE: Self = Self::new(431, "head too large");
    /// More than [`HeadLimits::fields_max`].
    pub const TOO_MANY_FIELDS: Self = Self::new(431, "too many fields");
    /// Longer than [`HeadLimits::name_bytes_max`].
    pub const NAME_TOO_LONG: Self = Self::new(431, "field name too long");

    /// A fault that is answered with 400.
    pub(in crate::wire) const fn bad(detail: &'static str) -> Self {
        Self::new(400, detail)
    }

    /// A fault with a status of its own.
    pub(in crate::wire) const fn new(status: u16, detail: &'static str) -> Self {
        Self { status, detail }
    }
}

/// Where the body of a request ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes; never zero-length by accident: `content-length: 0` is `Length(0)`.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
}

/// A request's head, with everything that a connection must know of it.
#[derive(Clone, Debug)]
pub struct Http1Request {
    /// What was asked for. `host` has become the authority; all other fields are as they came.
    pub head: RequestHead,
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the connection may carry another request afterwards.
    pub persistent: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub expect_continue: bool,
    /// 1.0 or 1.1.
    pub version: Version,
    /// Fields that were left out because their values are not ASCII.
    pub dropped_fields: u32,
}

/// How an answer's body will be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// There is no body and no field says so: 1xx, 204, 304.
    None,
}

/// Looks for a whole head at the start of `unread`: its length, through the empty line.
///
/// `from` is how much of `unread` an earlier call has seen (0 for none), so that a head that comes byte by byte is not read
/// over and over. Bare LF, bare CR, other control characters, two leading empty lines, a version that we do not speak, and
/// what is too long are refused as soon as they are there, at the same byte however the input is split.
pub fn scan(unread: &[u8], from: usize, limits: &HeadLimits) -> Result<Option<usize>, HeadFault> {
    let start = request_line_start(unread);
    let whole = unread.get(..limits.head_bytes_max).unwrap_or(unread);
    // The first byte that can no longer belong to the request line and its CRLF.
    let line_limit = start
        .saturating_add(limits.line_bytes_max)
        .saturating_add(2);

    if from <= line_limit {
        let line = whole.get(..line_limit).unwrap_or(whole);
        if let Some(length) = walk(line, start, from)? {
            return Ok(Some(length));
        }
        if whole.len() >= line_limit && !line.iter().skip(start).any(|&byte| byte == LF) {
            return Err(HeadFault::LINE_TOO_LONG);
        }
    }
    if whole.len() > line_limit
        && let Some(length) = walk(whole, start, from.max(line_limit))?
    {
        return Ok(Some(length));
    }
    if unread.len() >= limits.head_bytes_max {
        return Err(HeadFault::HEAD_TOO_LARGE);
    }
    Ok(None)
}

/// Parses a whole head, as [`scan`] measured it. No value is copied: all of them share `head`.
pub fn parse_request(head: Bytes, limits: &HeadLimits) -> Result<Http1Request, HeadFault> {
    debug_assert_eq!(scan(&head, 0, limits), Ok(Some(head.len())));

    let head = head.slice(request_line_start(&head)..);
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_CAP];
    let slots_max = limits.fields_max.min(FIELDS_CAP);
    let mut request = httparse::Request::new(&mut []);
    let slots = slots.get_mut(..slots_max).unwrap_or_default();
    match request.parse_with_uninit_headers(&head, slots) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(HeadFault::bad("not one whole head")),
        Err(error) => return Err(fault_of(error)),
    }

    // The line was judged when it was measured.
    let version = match request.version {
        Some(1) => Version::HTTP_11,
        Some(0) => Version::HTTP_10,
        _ => return Err(HeadFault::bad("bad HTTP version")),
    };
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadFault::bad("bad method"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(HeadFault::new(405, "method not allowed"));
    }
    let target = Target::parse(request.path.unwrap_or_default(), &method, &head)?;

    let mut reading = Reading::new(request.headers.len());
    for field in request.headers.iter() {
        reading.take(field, &head, limits)?;
    }

    let authority = match (reading.host, target.authority) {
        (Some(host), Some(asked)) if !host.as_str().eq_ignore_ascii_case(asked.as_str()) => {
            return Err(HeadFault::bad("target and host differ"));
        }
        (None, None) if version == Version::HTTP_11 => return Err(HeadFault::bad("no host")),
        (None, Some(_)) if version == Version::HTTP_11 => return Err(HeadFault::bad("no host")),
        (host, asked) => host.or(asked),
    };

    let framing = match (reading.length, reading.chunked) {
        (Some(_), true) => {
            return Err(HeadFault::bad("both content-length and transfer-encoding"));
        }
        (None, true) if version == Version::HTTP_10 => {
            return Err(HeadFault::bad("transfer-encoding in HTTP/1.0"));
        }
        (None, true) => Framing::Chunked,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::Empty,
    };
    // HTTP/1.0 has no chunked answers, so a call could not be answered: only what reads pages and probes may use it.
    if version == Version::HTTP_10 && !matches!(method, Method::GET | Method::HEAD) {
        return Err(HeadFault::new(426, "HTTP/1.0 can not carry a call"));
    }

    Ok(Http1Request {
        head: RequestHead {
            method,
            path: target.path,
            authority,
            headers: reading.fields,
        },
        framing,
        persistent: version == Version::HTTP_11 && !reading.close,
        // RFC 9110 §10.1.1: an expectation in HTTP/1.0 is ignored; without a body there is nothing to wait for.
        expect_continue: reading.expect_continue
            && version == Version::HTTP_11
            && !matches!(framing, Framing::Empty | Framing::Length(0)),
        version,
        dropped_fields: reading.dropped,
    })
}

/// What can be told of a request that is refused: its verb, its path, who asks. Read from the lines that came whole, for the
/// answer's filters and for the record; nothing else may be decided by it, for what is refused is nobody's request.
pub fn glean(refused: &[u8]) -> Option<RequestHead> {
    let start = request_line_start(refused);
    let mut lines = refused
        .get(start..)?
        .split_inclusive(|&byte| byte == LF)
        // Behind a line that does not end as lines do, anything could be meant.
        .map_while(|line| line.strip_suffix(b"\r\n"));
    let mut words = lines.next()?.split(|&byte| byte == b' ');
    let (method, path) = (words.next()?, words.next()?);
    let method = Method::from_bytes(method).ok()?;
    let path = PathAndQuery::try_from(path).ok()?;
    let mut headers = Fields::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let told = |told: &&HeaderName| told.as_str().as_bytes().eq_ignore_ascii_case(name);
        let Some(name) = WHO_ASKS.iter().find(told) else {
            continue;
        };
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if value.is_ascii()
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(name.clone(), value);
        }
    }
    Some(RequestHead {
        method,
        path,
        authority: None,
        headers,
    })
}

/// Whether a refused head is a request's at all: `false` if its line is whole, and where a request names its protocol there is a
/// word that names none.
pub fn names_protocol(refused: &[u8]) -> bool {
    let start = request_line_start(refused);
    let rest = refused.get(start..).unwrap_or_default();
    let Some(end) = rest.iter().position(|&byte| byte == LF) else {
        return true;
    };
    let line = rest.get(..end).unwrap_or_default().trim_ascii_end();
    let mut words = line.split(|&byte| byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some(protocol), None) => {
            !protocol.is_ascii() || protocol.contains(&b'/')
        }
        _ => true,
    }
}

/// Writes an answer's head. Nothing is added but framing and `connection`; what frames or belongs to one connection is
/// never taken from the map. (A 426 says which protocol is wanted, as RFC 9110 §15.5.22 demands.)
pub fn write_response(
    head: &ResponseHead,
    framing: ResponseFraming,
    connection_close: bool,
    out: &mut BytesMut,
) {
    out.reserve(256);
    if head.status == StatusCode::OK {
        // Nearly every answer, and every one of gRPC-Web's.
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = head.status.canonical_reason().unwrap_or_default();
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(head.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(reason.as_bytes());
        out.put_slice(b"\r\n");
    }
    for (name, value) in &head.headers {
        if is_hop_by_hop(name) || *name == http::header::CONTENT_LENGTH {
            continue;
        }
        // A `HeaderValue` can not hold CR, LF or NUL, so no value can end its line.
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    match framing {
        ResponseFraming::Length(length) => {
            out.put_slice(b"content-length: ");
            write_decimal(length, out);
            out.put_slice(b"\r\n");
        }
        ResponseFraming::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        ResponseFraming::None => {}
    }
    match (
        connection_close,
        head.status == StatusCode::UPGRADE_REQUIRED,
    ) {
        (true, false) => out.put_slice(b"connection: close\r\n"),
        (true, true) => out.put_slice(b"upgrade: HTTP/1.1\r\nconnection: close, upgrade\r\n"),
        (false, true) => out.put_slice(b"upgrade: HTTP/1.1\r\nconnection: upgrade\r\n"),
        (false, false) => {}
    }
    out.put_slice(b"\r\n");
}

/// Writes the interim answer that a client with `expect: 100-continue` waits for.
pub fn write_continue(out: &mut BytesMut) {
    out.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// RFC 9112 §2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line
/// (CRLF) received prior to the request-line". One, and no more.
fn request_line_start(unread: &[u8]) -> usize {
    if unread.starts_with(b"\r\n") { 2 } else { 0 }
}

/// Walks over the control characters of `bytes` from `from` on, judges each, and stops behind the head's empty line.
fn walk(bytes: &[u8], start: usize, from: usize) -> Result<Option<usize>, HeadFault> {
    // A CR at the end of the last input is judged now that its successor may be there.
    let mut at = from.saturating_sub(1);
    // Known from the second line on: looking for it anew with every byte that comes would be dear.
    let mut line_start = None;
    while let Some(rest) = bytes.get(at..)
        && let Some(offset) = first_control(rest)
    {
        at += offset;
        let before = bytes.get(..at).unwrap_or_default();
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(&CR), Some(&LF)) => {
                let line_start = line_start.replace(at + 2).unwrap_or_else(|| {
                    let last = before.iter().rposition(|&byte| byte == LF);
                    last.map_or(0, |lf| lf + 1)
                });
                if judge_line(before, start, line_start)? {
                    return Ok(Some(at + 2));
                }
                at += 2;
            }
            (Some(&CR), Some(_)) => return Err(HeadFault::bad("bare CR")),
            // What follows has not come yet.
            (Some(&CR), None) => break,
            // It is the last of an earlier input, and was judged with its CR.
            (Some(&LF), _) if before.last() == Some(&CR) => at += 1,
            (Some(&LF), _) => return Err(HeadFault::bad("bare LF")),
            (Some(b'\t'), _) => at += 1,
            _ => return Err(HeadFault::bad("control character in head")),
        }
    }
    Ok(None)
}

/// Where the first control character (below the space) stands. Most of a head is none, so eight bytes are looked at together;
/// with longer strides, lines being as short as they are, it takes longer.
fn first_control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES * 0x80;

    let mut at = 0;
    while let Some(&eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(eight);
        // The lowest bit that is set belongs to the first byte below the space; a borrow can only disturb those behind it.
        let below = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        if below != 0 {
            return Some(at + below.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let found = rest.iter().position(|&byte| byte < b' ');
    found.map(|offset| at + offset)
}

/// Judges the line from `line_start` to the end of `before`. Whether it is the head's empty line.
fn judge_line(before: &[u8], start: usize, line_start: usize) -> Result<bool, HeadFault> {
    let line = before.get(line_start..).unwrap_or_default();
    if line_start < start {
        return Ok(false); // The one leading empty line.
    }
    if line_start == start {
        if line.is_empty() {
            return Err(HeadFault::bad("empty lines before the request line"));
        }
        version(line)?;
        return Ok(false);
    }
    Ok(line.is_empty())
}

/// The version at the end of a request line: `HTTP/` DIGIT `.` DIGIT (RFC 9112 §2.3), case-sensitive.
fn version(line: &[u8]) -> Result<Version, HeadFault> {
    match line.last_chunk::<9>() {
        Some(b" HTTP/1.1") => Ok(Version::HTTP_11),
        Some(b" HTTP/1.0") => Ok(Version::HTTP_10),
        Some([b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() && *major != b'1' =>
        {
            Err(HeadFault::new(505, "HTTP version not supported"))
        }
        _ => Err(HeadFault::bad("bad HTTP version")),
    }
}

fn fault_of(error: httparse::Error) -> HeadFault {
    match error {
        httparse::Error::HeaderName => HeadFault::bad("bad field name"),
        httparse::Error::HeaderValue => HeadFault::bad("bad field value"),
        httparse::Error::NewLine => HeadFault::bad("bad line end"),
        httparse::Error::Token => HeadFault::bad("bad request line"),
        httparse::Error::TooManyHeaders => HeadFault::TOO_MANY_FIELDS,
        httparse::Error::Version => HeadFault::bad("bad HTTP version"),
        httparse::Error::Status => HeadFault::bad("bad status"),
    }
}

/// What the request line asks for (RFC 9112 §3.2).
struct Target {
    path: PathAndQuery,
    authority: Option<Authority>,
}

impl Target {
    fn parse(target: &str, method: &Method, head: &Bytes) -> Result<Self, HeadFault> {
        const BAD: HeadFault = HeadFault::bad("bad request target");

        if !target.bytes().all(|byte| IN_TARGET[usize::from(byte)]) {
            return Err(BAD);
        }
        if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
            let path = PathAndQuery::from_maybe_shared(head.slice_ref(target.as_bytes()));
            return Ok(Self {
                path: path.map_err(|_| BAD)?,
                authority: None,
            });
        }

        // Absolute form: a scheme, the authority, and what is left.
        let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BAD);
        }
        let (asked, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') {
            PathAndQuery::from_maybe_shared(head.slice_ref(path.as_bytes()))
        } else {
            PathAndQuery::try_from(format!("/{path}"))
        };
        Ok(Self {
            path: path.map_err(|_| BAD)?,
            authority: Some(authority(&head.slice_ref(asked.as_bytes()))?),
        })
    }
}

/// The fields of a head as they are read, with what the framing fields have said so far.
struct Reading {
    fields: Fields,
    host: Option<Authority>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    expect_continue: bool,
    dropped: u32,
}

impl Reading {
    fn new(count: usize) -> Self {
        Self {
            fields: Fields::with_capacity(count.min(FIELDS_CAP)),
            host: None,
            length: None,
            chunked: false,
            close: false,
            expect_continue: false,
            dropped: 0,
        }
    }

    fn take(
        &mut self,
        field: &httparse::Header<'_>,
        head: &Bytes,
        limits: &HeadLimits,
    ) -> Result<(), HeadFault> {
        if field.name.len() > limits.name_bytes_max {
            return Err(HeadFault::NAME_TOO_LONG);
        }
        // Some servers read `_` as `-` (CGI did), so such a name could say behind us what was not checked here.
        if has_underscore(field.name.as_bytes()) && is_guarded(field.name.as_bytes()) {
            return Err(HeadFault::bad(
                "field name imitates another with an underscore",
            ));
        }
        if !field.value.is_ascii() {
            // gRPC: "servers must not error … may throw the value away". Not so where it would decide something.
            if is_guarded(field.name.as_bytes()) {
                return Err(HeadFault::bad("value of a field is not ASCII"));
            }
            self.dropped = self.dropped.saturating_add(1);
            return Ok(());
        }
        let name = name(field.name.as_bytes())?;
        match name.as_str() {
            "host" => {
                if self.host.is_some() {
                    return Err(HeadFault::bad("two host fields"));
                }
                self.host = Some(authority(&head.slice_ref(field.value))?);
                return Ok(());
            }
            "content-length" => {
                let length = content_length(field.value)?;
                if self.length.replace(length).is_some() {
                    return Err(HeadFault::bad("two content-length fields"));
                }
            }
            "transfer-encoding" => {
                if self.chunked {
                    return Err(HeadFault::bad("two transfer-encoding fields"));
                }
                transfer_encoding(field.value)?;
                self.chunked = true;
            }
            "connection" => {
                for option in list(field.value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    if is_guarded(option) && !is_ours_to_drop(option) {
                        return Err(HeadFault::bad("connection nominates a protected field"));
                    }
                }
            }
            "expect" => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadFault::new(417, "unknown expectation"));
                }
                self.expect_continue = true;
            }
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| HeadFault::bad("bad field value"))?;
        self.fields.append(name, value);
        Ok(())
    }
}

/// A field's name. The two that nearly every call has and `http` does not know need no memory of their own.
fn name(name: &[u8]) -> Result<HeaderName, HeadFault> {
    const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");
    for known in [X_GRPC_WEB, X_USER_AGENT] {
        if name.eq_ignore_ascii_case(known.as_str().as_bytes()) {
            return Ok(known);
        }
    }
    HeaderName::from_bytes(name).map_err(|_| HeadFault::bad("bad field name"))
}

/// RFC 9110 §8.6: `1*DIGIT`. No sign, no list, no leading zero, and below 2^63 so that no one's counter wraps.
fn content_length(value: &[u8]) -> Result<u64, HeadFault> {
    const BAD: HeadFault = HeadFault::bad("bad content-length");

    if value.is_empty() || value.len() > 19 || (value.len() > 1 && value.starts_with(b"0")) {
        return Err(BAD);
    }
    let mut length = 0u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(BAD);
        }
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
            .ok_or(BAD)?;
    }
    if length > i64::MAX as u64 {
        Err(BAD)
    } else {
        Ok(length)
    }
}

/// `chunked` and nothing else. Codings that exist but that we do not undo are 501 (RFC 9112 §6.1); the rest is 400.
fn transfer_encoding(value: &[u8]) -> Result<(), HeadFault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = codings
        .next_back()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known = |coding: &[u8]| {
        CODINGS
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known.as_bytes()))
    };
    if last_is_chunked && codings.all(known) {
        Err(HeadFault::new(501, "transfer coding not implemented"))
    } else {
        Err(HeadFault::bad("bad transfer-encoding"))
    }
}

/// A host with an optional port, and nothing that a URI parser further on could split in another place (RFC 9110 §7.2).
pub(in crate::wire) fn authority(value: &Bytes) -> Result<Authority, HeadFault> {
    check_authority(value)?;
    Authority::from_maybe_shared(value.clone()).map_err(|_| BAD_HOST)
}

const BAD_HOST: HeadFault = HeadFault::bad("bad host");

/// Whether a text is a host, and a port if any: no user, nothing that a server could read in two ways.
pub(in crate::wire) fn check_authority(value: &[u8]) -> Result<(), HeadFault> {
    const BAD: HeadFault = BAD_HOST;

    let port = if value.starts_with(b"[") {
        let text = std::str::from_utf8(value).map_err(|_| BAD)?;
        let (address, port) = text
            .get(1..)
            .and_then(|rest| rest.split_once(']'))
            .ok_or(BAD)?;
        address.parse::<Ipv6Addr>().map_err(|_| BAD)?;
        port.as_bytes()
    } else {
        let end = value
            .iter()
            .position(|&byte| !IN_HOST_NAME[usize::from(byte)]);
        let (name, port) = value.split_at(end.unwrap_or(value.len()));
        if name.is_empty() {
            return Err(BAD);
        }
        port
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(b":").ok_or(BAD)?;
        let mut number = 0u16;
        for digit in digits {
            number = match digit {
                b'0'..=b'9' => number
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(u16::from(digit - b'0')))
                    .ok_or(BAD)?,
                _ => return Err(BAD),
            };
        }
        if digits.is_empty() {
            return Err(BAD);
        }
    }
    Ok(())
}

/// The members of a comma-separated list, without empty ones (RFC 9110 §5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether a name is one by which somebody frames, routes or identifies a request, in any case and with `_` for `-`.
pub(in crate::wire) fn is_guarded(name: &[u8]) -> bool {
    let mut normal = [0u8; 32];
    let Some(normal) = normal.get_mut(..name.len()) else {
        return name.get(..12).is_some_and(is_forwarded_prefix);
    };
    for (to, from) in normal.iter_mut().zip(name) {
        *to = match from {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        };
    }
    match &*normal {
        b"host"
        | b"content-length"
        | b"transfer-encoding"
        | b"connection"
        | b"te"
        | b"trailer"
        | b"upgrade"
        | b"expect"
        | b"content-type"
        | b"content-encoding"
        | b"grpc-timeout"
        | b"grpc-encoding"
        | b"origin"
        | b"authorization"
        | b"proxy-authorization"
        | b"forwarded"
        | b"via"
        | b"x-real-ip" => true,
        other => other.get(..12).is_some_and(is_forwarded_prefix),
    }
}

fn is_forwarded_prefix(start: &[u8]) -> bool {
    start.iter().zip(b"x-forwarded-").all(|(byte, wanted)| {
        byte.to_ascii_lowercase() == *wanted || (*byte == b'_' && *wanted == b'-')
    })
}

/// Guarded names that a client may well name in `connection`: RFC 9110 §10.1.4 and §7.8 tell it to.
fn is_ours_to_drop(name: &[u8]) -> bool {
    [&b"te"[..], b"upgrade", b"trailer"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether there is a `_` in a field's name; eight bytes at a time, for names are short and there are many.
pub(in crate::wire) fn has_underscore(name: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES * 0x80;

    let (eights, rest) = name.as_chunks::<8>();
    let found = eights.iter().fold(0, |found, &eight| {
        // A byte that is `_` has become zero, and only below a zero can a borrow set another high bit.
        let word = u64::from_le_bytes(eight) ^ (ONES * u64::from(b'_'));
        found | (word.wrapping_sub(ONES) & !word & HIGHS)
    });
    found != 0 || rest.contains(&b'_')
}

fn write_decimal(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// No head has more fields than that, whatever the limits say: so many fit on the stack.
pub const FIELDS_CAP: usize = 256;

/// What a request target may hold: browsers write `{|}[]` raw in queries; the rest of what RFC 3986 leaves out is refused.
pub(in crate::wire) static IN_TARGET: [bool; 256] = {
    let mut set = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        set[byte as usize] = !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`');
        byte += 1;
    }
    set
};

/// What a host's name may hold.
static IN_HOST_NAME: [bool; 256] = {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 0x80u8 {
        set[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    set
};

const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// IANA's transfer codings other than `chunked`, and what some send as if it were one.
const CODINGS: [&str; 7] = [
    "gzip",
    "x-gzip",
    "deflate",
    "compress",
    "x-compress",
    "br",
    "zstd",
];

#[cfg(test)]
mod tests;
