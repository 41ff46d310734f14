//! The head of a request that came in HTTP/2: what `h2` has read, to [`RequestHead`].
//!
//! `h2` knows what is no HTTP/2. Owns the rules that it leaves open, so that a request means the same in every version of HTTP:
//! limits, targets, the host, and names that imitate others. It never routes and never repairs.
//!
//! Sources: RFC 9113 §8.2.1, §8.3.1; RFC 9110 §7.2, §10.1.1.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method};

use crate::wire::fields::{Fields, WHO_ASKS};
use crate::wire::http1::head::{IN_TARGET, authority, check_authority, has_underscore, is_guarded};
use crate::wire::http1::{HeadFault, HeadLimits};
use crate::wire::http2::hpack::FIELD_OVERHEAD_BYTES;
use crate::wire::part::RequestHead;

/// So many fields more than in HTTP/1.1 a head may have, since browsers cut their cookies into crumbs here (RFC 9113 §8.2.3).
const CRUMBS_MAX: usize = 28;

/// A head that is a request.
#[derive(Debug)]
pub struct Http2Request {
    /// What was asked for. `host` has become the authority; all other fields are as they came.
    pub head: RequestHead,
    /// The client waits for `100 Continue` before it sends its content.
    pub expect_continue: bool,
}

/// A head that is none.
#[derive(Debug)]
pub enum Http2Fault {
    /// It is answered in HTTP. With what can be told of it.
    Answer(HeadFault, Box<RequestHead>),
    /// It is malformed (RFC 9113 §8.1.1): the stream is reset. In a few words.
    Malformed(&'static str),
    /// It has more fields than anybody needs: the stream is reset, and told to calm down.
    TooMany,
}

/// Reads a head that `h2` has found well-formed.
pub fn read(parts: Parts, limits: &HeadLimits) -> Result<Http2Request, Http2Fault> {
    let Parts {
        method,
        uri,
        mut headers,
        ..
    } = parts;
    if headers.len() > limits.fields_max.saturating_add(CRUMBS_MAX) {
        return Err(Http2Fault::TooMany);
    }
    let mut reading = Reading::default();
    if headers.get_all(HOST).iter().nth(1).is_some() {
        reading.fault(HeadFault::bad("two hosts"));
    }
    let host = headers.remove(HOST);
    let mut fields = Fields::with_capacity(headers.len());
    let mut last = None;
    for (name, value) in headers {
        // A name that is repeated comes once, with the first of its values.
        last = name.or(last);
        if let Some(name) = &last {
            reading.take(name, value, &mut fields, limits)?;
        }
    }
    let asked = uri.authority();
    // `h2` drops the scheme of a target without `:authority`, which has `host` then (RFC 9113 §8.3.1).
    let scheme = uri
        .scheme_str()
        .or_else(|| asked.is_none().then_some("http"));
    let path = uri.path_and_query();
    let refused = |fault, path: Option<&PathAndQuery>, fields: &Fields| {
        let known = path.filter(|path| path.as_str().starts_with('/'));
        let who = fields.iter().filter(|(name, _)| WHO_ASKS.contains(name));
        let who = who.map(|(name, value)| (name.clone(), value.clone()));
        let head = RequestHead {
            method: method.clone(),
            path: known.map_or(PathAndQuery::from_static("/"), PathAndQuery::clone),
            authority: None,
            headers: who.collect(),
        };
        Http2Fault::Answer(fault, Box::new(head))
    };
    let judged = reading
        .fault
        .map_or(Ok(()), Err)
        .and_then(|()| target_of(&method, scheme, path, limits))
        .and_then(|target| Ok((target, host_of(asked, host.as_ref())?)));
    let (target, authority) = match judged {
        Ok(judged) => judged,
        Err(fault) => return Err(refused(fault, path, &fields)),
    };
    let line = method.as_str().len()
        + target.as_str().len()
        + asked.map_or(0, |asked| asked.as_str().len());
    if reading.bytes.saturating_add(line) > limits.head_bytes_max {
        let fault = HeadFault::HEAD_TOO_LARGE;
        return Err(refused(fault, path, &fields));
    }
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    // Each of them, where there are several.
    if !fields.get_all(EXPECT).all(expects) {
        let fault = HeadFault::new(417, "unknown expectation");
        return Err(refused(fault, path, &fields));
    }
    let expect_continue = fields.contains(EXPECT);
    Ok(Http2Request {
        head: RequestHead {
            method,
            path: target,
            authority,
            headers: fields,
        },
        expect_continue,
    })
}

/// What the fields have said so far.
#[derive(Debug, Default)]
struct Reading {
    bytes: usize,
    fault: Option<HeadFault>,
}

impl Reading {
    fn take(
        &mut self,
        name: &HeaderName,
        value: HeaderValue,
        fields: &mut Fields,
        limits: &HeadLimits,
    ) -> Result<(), Http2Fault> {
        let bytes = name.as_str().as_bytes();
        self.bytes += bytes.len() + value.len() + FIELD_OVERHEAD_BYTES;
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
            return Err(Http2Fault::Malformed(
                "a field's value begins or ends with a space",
            ));
        }
        if bytes.len() > limits.name_bytes_max {
            self.fault(HeadFault::NAME_TOO_LONG);
        }
        // Some servers read `_` as `-` (CGI did), so such a name could say behind us what was not checked here.
        if has_underscore(bytes) && is_guarded(bytes) {
            self.fault(HeadFault::bad(
                "field name imitates another with an underscore",
            ));
        }
        if *name == CONTENT_LENGTH {
            // `h2` counts by the first, reads `007`, and takes nothing for nothing.
            let text = value.as_bytes();
            let is_bad = text.is_empty() || (text.len() > 1 && text.starts_with(b"0"));
            if is_bad || fields.contains(CONTENT_LENGTH) {
                self.fault(HeadFault::bad("bad content-length"));
            }
        }
        if !value.as_bytes().is_ascii() {
            // gRPC: "servers must not error … may throw the value away". Not so where it would decide something.
            if is_guarded(bytes) {
                self.fault(HeadFault::bad("value of a field is not ASCII"));
            }
            return Ok(());
        }
        fields.append(name.clone(), value);
        Ok(())
    }

    /// The first counts.
    fn fault(&mut self, fault: HeadFault) {
        self.fault.get_or_insert(fault);
    }
}

fn target_of(
    method: &Method,
    scheme: Option<&str>,
    path: Option<&PathAndQuery>,
    limits: &HeadLimits,
) -> Result<PathAndQuery, HeadFault> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(HeadFault::new(405, "method not allowed"));
    }
    if !matches!(scheme, Some("http" | "https")) {
        return Err(HeadFault::bad("bad scheme"));
    }
    let path = path.ok_or(HeadFault::bad("bad request target"))?;
    let text = path.as_str();
    if text.len() > limits.line_bytes_max {
        return Err(HeadFault::LINE_TOO_LONG);
    }
    let whole = text.starts_with('/') || (text == "*" && *method == Method::OPTIONS);
    match whole && text.bytes().all(|byte| IN_TARGET[usize::from(byte)]) {
        // What is left of a fragment alone is empty, and shown as this.
        true if text == "/" => Ok(PathAndQuery::from_static("/")),
        true => Ok(path.clone()),
        false => Err(HeadFault::bad("bad request target")),
    }
}

/// `:authority` and `host` say the same, or one of them says it alone.
fn host_of(
    asked: Option<&Authority>,
    host: Option<&HeaderValue>,
) -> Result<Option<Authority>, HeadFault> {
    if let Some(asked) = asked {
        check_authority(asked.as_str().as_bytes())?;
    }
    let read = |host: &HeaderValue| authority(&Bytes::copy_from_slice(host.as_bytes()));
    let host = host.map(read).transpose()?;
    match (asked, host) {
        (Some(asked), Some(host)) if !asked.as_str().eq_ignore_ascii_case(host.as_str()) => {
            Err(HeadFault::bad(":authority and host differ"))
        }
        (None, None) => Err(HeadFault::bad("no host")),
        (asked, host) => Ok(asked.cloned().or(host)),
    }
}

#[cfg(test)]
mod tests;
