//! CORS: which pages may call, and what they may read.
//!
//! Owns the answer to a preflight, the refusal of an origin, and the `access-control-*` fields of every answer. It never
//! forwards a preflight and never stops a call: a page is held back by its browser, which reads these fields, and a caller
//! that is no browser is not held back by CORS at all. Only a request to upgrade is stopped here, because no browser asks
//! first before a WebSocket. The origin is always echoed, never `*`; credentials are allowed to a page that was named and to
//! none that came in by `*`.
//!
//! What a preflight says of private networks is not answered: Chromium asks its user instead (Local Network Access).
//!
//! Sources: the Fetch standard, "CORS protocol"; grpc/grpc `doc/PROTOCOL-WEB.md`, "CORS support"; RFC 6454 §7 (`Origin`);
//! RFC 6455 §10.2 (origins of WebSockets).

mod origin;

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE,
    Entry, ORIGIN, SET_COOKIE, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use origin::{OriginFault, OriginPattern};

use crate::policy::filter::{Filter, LocalAnswer, Peer, Verdict};
use crate::rpc::{NO_WEBSOCKET, asks_for_websocket};
use crate::wire::fields::X_USER_AGENT;
use crate::wire::status::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS};
use crate::wire::timeout::GRPC_TIMEOUT;
use crate::wire::{Fields, RequestHead, ResponseHead};

/// The filter: the pages that may call, what they may send and read, and how to let one more in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[OriginPattern]>,
    credentials: bool,
    /// What a page may send; `None`: whatever it asks for.
    sends: Option<Sends>,
    /// What a page may read, as it stands in the field; `None`: what stands on the answer.
    reads: Option<HeaderValue>,
    max_age: HeaderValue,
    origins_from: OriginsFrom,
    /// The table that holds `allow_headers`, e.g. `[cors]`.
    fields_table: Box<str>,
}

/// The fields that a page may send.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sends {
    names: Box<[HeaderName]>,
    /// The same, as they stand in the field.
    list: HeaderValue,
}

/// What an operator types to allow one more page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A flag, because there is no file.
    Flag,
    /// A key in the file.
    File,
}

/// Where the list of pages came from, and so what lets one more in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginsFrom {
    /// Flags, or nobody, and there is no file.
    Flags,
    /// Nobody named a page, so those of this machine are let in. A flag stands in place of them all.
    Loopback,
    /// Flags, in place of what the file says.
    FlagsOverFile,
    /// A table of the file, e.g. `[cors]`.
    Table(Box<str>),
    /// A file that has no `[cors]`.
    NoTable,
}

impl From<Remedy> for OriginsFrom {
    fn from(remedy: Remedy) -> Self {
        match remedy {
            Remedy::Flag => Self::Flags,
            Remedy::File => Self::Table("[cors]".into()),
        }
    }
}

impl OriginsFrom {
    /// What a flag does besides letting one more page in.
    const fn besides(&self) -> &'static str {
        match self {
            Self::Loopback => {
                "  (with  --allow-origin 'http://localhost:*'  pages on http://localhost stay allowed)"
            }
            Self::FlagsOverFile => "  (the flag stands in place of allow_origins in [cors])",
            Self::Flags | Self::Table(_) | Self::NoTable => "",
        }
    }
}

impl Cors {
    /// Lets these pages in; none of them if it is empty, and then every preflight is refused with its reason.
    pub fn new(origins: Vec<OriginPattern>, origins_from: impl Into<OriginsFrom>) -> Self {
        Self {
            origins: origins.into(),
            credentials: false,
            sends: None,
            reads: None,
            max_age: MAX_AGE,
            origins_from: origins_from.into(),
            fields_table: "[cors]".into(),
        }
    }

    /// The same, and pages that are named may call with cookies and certificates.
    #[must_use]
    pub fn with_credentials(self, credentials: bool) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// The same, and pages may send these fields besides those that gRPC-Web is made of, and no other.
    #[must_use]
    pub fn letting_send(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut all = ALWAYS_SENT.to_vec();
        for name in names {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        Self {
            sends: Some(Sends {
                list: listed(all.iter()),
                names: all.into(),
            }),
            ..self
        }
    }

    /// The same, and of an answer pages may read gRPC's three fields and these, and no other.
    #[must_use]
    pub fn letting_read(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut all = ALWAYS_EXPOSED.to_vec();
        for name in names {
            if !all.contains(&name) && name != SET_COOKIE {
                all.push(name);
            }
        }
        Self {
            reads: Some(listed(all.iter())),
            ..self
        }
    }

    /// The same, and a browser may remember its answer to a preflight for so long, in whole seconds.
    #[must_use]
    pub fn remembered_for(self, max_age: Duration) -> Self {
        Self {
            max_age: max_age.as_secs().into(),
            ..self
        }
    }

    /// The same, and the fields that a page may send stand in another table than `[cors]`.
    #[must_use]
    pub fn naming_fields_in(self, table: impl Into<Box<str>>) -> Self {
        Self {
            fields_table: table.into(),
            ..self
        }
    }

    /// What a page of that origin may do; `None`: nothing.
    fn permission(&self, origin: &HeaderValue) -> Option<Permission> {
        let origin = origin.to_str().ok()?;
        let mut found = None;
        for pattern in &self.origins {
            if pattern.matches(origin) {
                // Whoever is let in by `*` could be anybody, so it is not let in as whoever has signed in.
                let credentials = self.credentials && *pattern != OriginPattern::Any;
                found = Some(Permission { credentials });
                if credentials || !self.credentials {
                    break;
                }
            }
        }
        found
    }

    /// The answer to a preflight of an allowed page, or why not.
    fn preflight(&self, origin: &HeaderValue, request: &Fields) -> LocalAnswer {
        let Some(permission) = self.permission(origin) else {
            return refuse(StatusCode::FORBIDDEN, "cors_origin", self.sentence(origin));
        };
        if request.get_all(ACCESS_CONTROL_REQUEST_METHOD).count() > 1 {
            return refuse(
                StatusCode::BAD_REQUEST,
                "bad_http",
                "the preflight has more than one access-control-request-method".to_owned(),
            );
        }
        let asked = match asked_fields(request) {
            Ok(asked) => asked,
            Err(fault) => return *fault,
        };
        let unlisted = match &self.sends {
            Some(sends) => unlisted(&sends.names, &asked),
            None => Vec::new(),
        };
        let mut head = ResponseHead::new(StatusCode::NO_CONTENT);
        let fields = &mut head.headers;
        permission.write(origin, fields);
        fields.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST"),
        );
        let allowed = match &self.sends {
            Some(sends) => Some(sends.list.clone()),
            None if asked.is_empty() => None,
            None => Some(listed(asked.iter())),
        };
        if let Some(allowed) = allowed {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        // A refusal is forgotten at once, so that the page works as soon as the list does.
        let max_age = if unlisted.is_empty() {
            self.max_age.clone()
        } else {
            HeaderValue::from_static("0")
        };
        fields.insert(ACCESS_CONTROL_MAX_AGE, max_age);
        fields.insert(VARY, VARY_PREFLIGHT);
        // The browser itself holds back what is not listed, and tells the page's author which field it was. With a status of
        // failure it would say only that there was one.
        let refusal = (!unlisted.is_empty()).then(|| ("cors_header", self.too_much(&unlisted)));
        LocalAnswer {
            head,
            body: Bytes::new(),
            refusal,
        }
    }

    /// Cause and cure where a page wants to send what is not listed. A name may hold characters that mean something to a shell
    /// or to TOML, so only plain ones are named as a thing to type.
    fn too_much(&self, unlisted: &[&HeaderName]) -> String {
        let is_plain = |name: &str| {
            let mut bytes = name.bytes();
            bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let names = unlisted.iter().map(|name| name.as_str());
        let names: Vec<_> = names.filter(|name| is_plain(name)).collect();
        let quoted = format!("\"{}\"", names.join("\", \""));
        let place = &self.fields_table;
        if names.is_empty() || quoted.len() > SHOWN_MAX {
            return format!(
                "the page asks to send what allow_headers does not list; write its fields there, or \
                 allow_headers = \"mirror\", in {place}"
            );
        }
        format!(
            "the page asks to send {quoted}, which allow_headers does not list; add {quoted} there, or write \
             allow_headers = \"mirror\", in {place}"
        )
    }

    /// Cause and cure. What the network sent is named as a thing to type only if it is nothing but an origin: a line
    /// that somebody pastes into a shell may not be written by a stranger.
    fn sentence(&self, origin: &HeaderValue) -> String {
        let text = String::from_utf8_lossy(origin.as_bytes());
        if text == "null" {
            // Every file and every sandboxed frame has that origin, a stranger's too.
            let last = match &self.origins_from {
                OriginsFrom::Table(table) => format!("\"null\" in allow_origins in {table}"),
                OriginsFrom::NoTable => new_table("null"),
                flags => format!(" --allow-origin null{}", flags.besides()),
            };
            return format!(
                "origin null is not allowed: it is a file's or a sandboxed frame's; serve the page by http, or allow \
                 them all with {last}"
            );
        }
        match OriginPattern::from_str(&text) {
            Ok(OriginPattern::Exact(plain)) if *plain == *text && text.len() <= SHOWN_MAX => {
                let cure = match &self.origins_from {
                    OriginsFrom::NoTable => {
                        return format!(
                            "origin {plain} is not allowed; write {}",
                            new_table(&plain)
                        );
                    }
                    OriginsFrom::Table(table) => {
                        format!(" \"{plain}\" to allow_origins in {table}")
                    }
                    // To some shells the brackets of an address mean something.
                    flags if plain.contains('[') => {
                        format!(":  --allow-origin '{plain}'{}", flags.besides())
                    }
                    flags => format!(":  --allow-origin {plain}{}", flags.besides()),
                };
                format!("origin {plain} is not allowed; add{cure}")
            }
            _ => {
                // One word, whatever it was: the log breaks a line where a cure begins, and that must be ours.
                let shown = text.chars().take(SHOWN_MAX);
                let shown: String = shown.map(|c| if is_plain(c) { c } else { '?' }).collect();
                format!("origin \"{shown}\" is not allowed; it is no well-formed origin")
            }
        }
    }
}

impl Filter for Cors {
    fn request(&self, head: &mut RequestHead, _peer: &Peer) -> Verdict {
        let mut origins = head.headers.get_all(ORIGIN);
        let Some(origin) = origins.next() else {
            return Verdict::Continue;
        };
        if origins.next().is_some() {
            return Verdict::Respond(Box::new(refuse(
                StatusCode::BAD_REQUEST,
                "bad_http",
                "the request has more than one origin".to_owned(),
            )));
        }
        if is_preflight(head) {
            return Verdict::Respond(Box::new(self.preflight(origin, &head.headers)));
        }
        if head.headers.contains(UPGRADE) && self.permission(origin).is_none() {
            let mut sentence = self.sentence(origin);
            // To let the page in would lead it to the next refusal, so that is told first.
            if asks_for_websocket(&head.headers) {
                sentence = format!("{NO_WEBSOCKET}, for which {sentence}");
            }
            let answer = refuse(StatusCode::FORBIDDEN, "cors_origin", sentence);
            return Verdict::Respond(Box::new(answer));
        }
        Verdict::Continue
    }

    fn response(&self, request: &RequestHead, head: &mut ResponseHead) {
        if is_preflight(request) {
            // Answered above, whole, unless another filter answered first: then it is no permission.
            add_vary(&mut head.headers, VARY_PREFLIGHT);
            return;
        }
        // What a backend says about CORS it says of itself, not of this port: no permission comes from there.
        if head.headers.keys().any(|name| PERMISSIONS.contains(name)) {
            for name in &PERMISSIONS {
                head.headers.remove(name);
            }
        }
        add_vary(&mut head.headers, VARY_ORIGIN);
        let mut origins = request.headers.get_all(ORIGIN);
        if let (Some(origin), None) = (origins.next(), origins.next())
            && let Some(permission) = self.permission(origin)
        {
            let exposed = match &self.reads {
                Some(reads) => reads.clone(),
                None => exposed_fields(&head.headers),
            };
            permission.write(origin, &mut head.headers);
            head.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// What a page that may call may do.
#[derive(Clone, Copy, Debug)]
struct Permission {
    credentials: bool,
}

impl Permission {
    fn write(self, origin: &HeaderValue, fields: &mut HeaderMap) {
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            fields.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

/// What is written into a file that says nothing of pages.
fn new_table(origin: &str) -> String {
    format!(" [cors]  and below it  allow_origins = [\"{origin}\"]")
}

/// Whether an origin could have that character.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-._:/[]".contains(c)
}

/// A CORS preflight as the Fetch standard defines it; any other OPTIONS is none.
fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains(ORIGIN)
        && head.headers.contains(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The names that the page wants to send, in lower case.
fn asked_fields(request: &Fields) -> Result<Vec<HeaderName>, Box<LocalAnswer>> {
    let mut asked = Vec::new();
    let mut bytes = 0;
    for value in request.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        for name in value.as_bytes().split(|&b| b == b',') {
            let name = name.trim_ascii();
            if name.is_empty() {
                // RFC 9110 §5.6.1.2: a recipient ignores empty elements of a list.
                continue;
            }
            // Only what is a name is echoed; the crate knows what a token is, and lowers it.
            let Ok(name) = HeaderName::from_bytes(name) else {
                return Err(Box::new(refuse(
                    StatusCode::BAD_REQUEST,
                    "cors_header",
                    "access-control-request-headers holds what is no field name".to_owned(),
                )));
            };
            // With a comma behind each.
            if bytes + name.as_str().len() > ASKED_BYTES_MAX {
                return Err(Box::new(refuse(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "cors_header",
                    format!("access-control-request-headers is over {ASKED_BYTES_MAX} bytes"),
                )));
            }
            bytes += name.as_str().len() + 1;
            asked.push(name);
        }
    }
    Ok(asked)
}

/// The first few of the names asked for that are not in the list, each once.
fn unlisted<'a>(names: &[HeaderName], asked: &'a [HeaderName]) -> Vec<&'a HeaderName> {
    let mut missing = Vec::new();
    for name in asked {
        // A bound, because whoever asks for a thousand fields may not cost a million comparisons.
        if missing.len() < UNLISTED_SHOWN_MAX && !names.contains(name) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    missing
}

/// Names with commas between them.
fn listed<'a>(names: impl Iterator<Item = &'a HeaderName>) -> HeaderValue {
    let mut list = String::new();
    for name in names {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(name.as_str());
    }
    // Names are visible ASCII, so this cannot fail; if it could, nothing would be allowed.
    HeaderValue::try_from(list).unwrap_or(HeaderValue::from_static(""))
}

/// What the page may read: the three of gRPC, and every field that stands on this very answer. It is exact, so custom
/// metadata is readable with no configuration. Not named are `set-cookie`, which is never readable (Fetch, "forbidden
/// response-header name"), `content-length`, which always is ("CORS-safelisted response-header name"), and `vary`, which is
/// for caches.
fn exposed_fields(headers: &HeaderMap) -> HeaderValue {
    // Nearly every answer brings no metadata of its own.
    if headers.keys().eq(&USUAL_FIELDS) {
        return USUALLY_EXPOSED;
    }
    let told = |name: &&HeaderName| !NEVER_NAMED.contains(name) && !ALWAYS_EXPOSED.contains(name);
    let more = || headers.keys().filter(told).map(HeaderName::as_str);
    // Exactly as long as it will be: else one more piece of memory would remember its room.
    let more_bytes: usize = more().map(|name| name.len() + 1).sum();
    let mut list = String::with_capacity(ALWAYS_EXPOSED_LIST.len() + more_bytes);
    list.push_str(ALWAYS_EXPOSED_LIST);
    for name in more() {
        list.push(',');
        list.push_str(name);
    }
    // Names are visible ASCII, so this cannot fail.
    HeaderValue::try_from(list).unwrap_or_else(|_| GRPC_STATUS.into())
}

/// Adds the names that are not there yet; a backend's own `vary` stays.
fn add_vary(headers: &mut HeaderMap, names: HeaderValue) {
    let mut vary = match headers.entry(VARY) {
        Entry::Vacant(vacant) => {
            vacant.insert(names);
            return;
        }
        Entry::Occupied(occupied) => occupied,
    };
    let present = |name: &str| {
        vary.iter().any(|value| {
            value.as_bytes().split(|&b| b == b',').any(|part| {
                let part = part.trim_ascii();
                part == b"*" || part.eq_ignore_ascii_case(name.as_bytes())
            })
        })
    };
    let said = names
        .to_str()
        .is_ok_and(|names| names.split(", ").all(present));
    if !said {
        vary.append(names);
    }
}

fn refuse(status: StatusCode, word: &'static str, sentence: String) -> LocalAnswer {
    let mut head = ResponseHead::new(status);
    head.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    head.headers.insert(VARY, VARY_PREFLIGHT);
    LocalAnswer {
        head,
        body: Bytes::from(format!("{sentence}\n")),
        refusal: Some((word, sentence)),
    }
}

/// The longest that Chromium keeps a preflight's answer, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// An answer to a preflight depends on these three.
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
/// Any other answer depends on this one.
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// The fields by which an answer permits anything.
static PERMISSIONS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];
/// What gRPC-Web is made of: where these could not be sent there would be no call at all.
static ALWAYS_SENT: [HeaderName; 4] = [CONTENT_TYPE, X_GRPC_WEB, X_USER_AGENT, GRPC_TIMEOUT];
const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");
/// Readable on every answer, whether it stands there or not.
static ALWAYS_EXPOSED: [HeaderName; 3] = [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
/// The same, as it stands in the field.
const ALWAYS_EXPOSED_LIST: &str = "grpc-status,grpc-message,grpc-status-details-bin";
/// What a page could not read if it were named, can read all the same, or has no use for.
static NEVER_NAMED: [HeaderName; 3] = [SET_COOKIE, CONTENT_LENGTH, VARY];
/// The fields of an answer without metadata, as they stand when it is asked what is exposed.
static USUAL_FIELDS: [HeaderName; 2] = [CONTENT_TYPE, VARY];
/// And what is exposed of it.
const USUALLY_EXPOSED: HeaderValue =
    HeaderValue::from_static("grpc-status,grpc-message,grpc-status-details-bin,content-type");
/// What a page may ask to send, in bytes of names. Over it: 431.
const ASKED_BYTES_MAX: usize = 4096;
/// How many fields a sentence names.
const UNLISTED_SHOWN_MAX: usize = 8;
/// How much of a stranger's text stands in a sentence.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests;
