//! CORS: which pages may call, and what they may read.
//!
//! Owns the answer to a preflight, the refusal of an origin, and the `access-control-*` fields of every answer. It never
//! forwards a preflight and never stops a call: a page is held back by its browser, which reads these fields, and a caller
//! that is no browser is not held back by CORS at all. Credentials are never allowed here, so `*` is never a danger, and
//! the origin is echoed all the same.
//!
//! Sources: the Fetch standard, "CORS protocol"; grpc/grpc `doc/PROTOCOL-WEB.md`, "CORS support"; RFC 6454 §7 (`Origin`).

mod origin;

use std::str::FromStr;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, Entry, ORIGIN,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use origin::{OriginFault, OriginPattern};

use crate::policy::filter::{Filter, LocalAnswer, Peer, Verdict};
use crate::wire::status::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS};
use crate::wire::{Fields, RequestHead, ResponseHead};

/// The filter: the pages that may call, and how to let one more in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[OriginPattern]>,
    remedy: Remedy,
}

/// What an operator types to allow one more page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A flag, because there is no file.
    Flag,
    /// A key in the file.
    File,
}

impl Cors {
    /// Lets these pages in; none of them if it is empty, and then every preflight is refused with its reason.
    pub fn new(origins: Vec<OriginPattern>, remedy: Remedy) -> Self {
        Self {
            origins: origins.into(),
            remedy,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .is_ok_and(|origin| self.origins.iter().any(|pattern| pattern.matches(origin)))
    }

    /// The answer to a preflight of an allowed page, or why not.
    fn preflight(&self, origin: &HeaderValue, request: &Fields) -> LocalAnswer {
        if !self.allows(origin) {
            return refuse(StatusCode::FORBIDDEN, "cors_origin", self.sentence(origin));
        }
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
        let mut head = ResponseHead::new(StatusCode::NO_CONTENT);
        let fields = &mut head.headers;
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        fields.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST"),
        );
        if let Some(asked) = asked {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        fields.insert(
            ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static(PREFLIGHT_MAX_AGE),
        );
        fields.insert(VARY, VARY_PREFLIGHT);
        LocalAnswer {
            head,
            body: Bytes::new(),
            refusal: None,
        }
    }

    /// Cause and cure. What the network sent is named as a thing to type only if it is nothing but an origin: a line
    /// that somebody pastes into a shell may not be written by a stranger.
    fn sentence(&self, origin: &HeaderValue) -> String {
        let text = String::from_utf8_lossy(origin.as_bytes());
        match OriginPattern::from_str(&text) {
            Ok(OriginPattern::Exact(plain)) if *plain == *text && text.len() <= SHOWN_MAX => {
                match self.remedy {
                    Remedy::Flag => {
                        format!("origin {plain} is not allowed; add:  --allow-origin {plain}")
                    }
                    Remedy::File => format!(
                        "origin {plain} is not allowed; add \"{plain}\" to allow_origins in [cors]"
                    ),
                }
            }
            _ => {
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                format!("origin {shown:?} is not allowed; it is no well-formed origin")
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
            && self.allows(origin)
        {
            let exposed = exposed_fields(&head.headers);
            head.headers
                .insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            head.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// A CORS preflight as the Fetch standard defines it; any other OPTIONS is none.
fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains(ORIGIN)
        && head.headers.contains(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The names that the page wants to send, ready to be echoed; `None` if it asked for none.
fn asked_fields(request: &Fields) -> Result<Option<HeaderValue>, Box<LocalAnswer>> {
    let mut echo = String::new();
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
            if echo.len() + name.as_str().len() > ASKED_BYTES_MAX {
                return Err(Box::new(refuse(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "cors_header",
                    format!("access-control-request-headers is over {ASKED_BYTES_MAX} bytes"),
                )));
            }
            if !echo.is_empty() {
                echo.push(',');
            }
            echo.push_str(name.as_str());
        }
    }
    // Names are visible ASCII, so this cannot fail; if it could, nothing would be allowed.
    Ok(HeaderValue::try_from(echo).ok().filter(|v| !v.is_empty()))
}

/// What the page may read: the three of gRPC, and every field that stands on this very answer. It is exact, so custom
/// metadata is readable with no configuration. `set-cookie` is never readable (Fetch, "forbidden response-header name").
fn exposed_fields(headers: &HeaderMap) -> HeaderValue {
    // Nearly every answer brings no metadata of its own.
    if headers.keys().eq(&USUAL_FIELDS) {
        return USUALLY_EXPOSED;
    }
    let told = |name: &&HeaderName| **name != SET_COOKIE && !ALWAYS_EXPOSED.contains(name);
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
const PREFLIGHT_MAX_AGE: &str = "7200";
/// An answer to a preflight depends on these three.
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
/// Any other answer depends on this one.
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// The fields by which an answer permits anything.
static PERMISSIONS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];
/// Readable on every answer, whether it stands there or not.
static ALWAYS_EXPOSED: [HeaderName; 3] = [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
/// The same, as it stands in the field.
const ALWAYS_EXPOSED_LIST: &str = "grpc-status,grpc-message,grpc-status-details-bin";
/// The fields of an answer without metadata, as they stand when it is asked what is exposed.
static USUAL_FIELDS: [HeaderName; 2] = [CONTENT_TYPE, VARY];
/// And what is exposed of it.
const USUALLY_EXPOSED: HeaderValue =
    HeaderValue::from_static("grpc-status,grpc-message,grpc-status-details-bin,content-type,vary");
/// What a page may ask to send, in bytes of names. Over it: 431.
const ASKED_BYTES_MAX: usize = 4096;
/// How much of a stranger's text stands in a sentence.
const SHOWN_MAX: usize = 200;

#[cfg(test)]
mod tests;
