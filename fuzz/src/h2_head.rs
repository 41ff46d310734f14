//! Heads of requests in HTTP/2: what is accepted there and what HTTP/1.1's head accepts is the same, and means the same,
//! wherever both can say it.

use bytes::Bytes;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method, Request};
use wharf::wire::RequestHead;
use wharf::wire::http1::{HeadFault, HeadLimits, parse_request, scan};
use wharf::wire::http2::head::{self, Http2Fault};

use super::shared;

/// Fields that say where a message ends or whose hop it is: each version has its own, and `h2` refuses or checks them.
const FRAMING: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
];

/// Reads `input` as lines: a method, a scheme, an authority, a target, then fields.
pub fn check(input: &[u8]) {
    let mut lines = input.splitn(5, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, scheme, authority, path) = (line(), line(), line(), line());
    let fields = shared::fields(line(), b'\n');
    let Some(parts) = parts(method, scheme, authority, path, fields) else {
        return;
    };
    // What counts differently does not count here.
    let limits = HeadLimits {
        fields_max: 400,
        head_bytes_max: 1 << 20,
        ..HeadLimits::default()
    };
    let asked = parts.uri.authority().cloned();
    let hosts: Vec<_> = parts.headers.get_all("host").iter().cloned().collect();
    let text = as_http1(&parts);
    let scheme = parts.uri.scheme_str().map(str::to_owned);
    let framed = FRAMING.iter().any(|name| parts.headers.contains_key(*name));

    let ours = head::read(parts, &limits);
    if let Ok(read) = &ours {
        let host = read.head.authority.as_ref().expect("every request has one");
        let same = |text: &[u8]| text.eq_ignore_ascii_case(host.as_str().as_bytes());
        assert!(asked.is_none_or(|asked| same(asked.as_str().as_bytes())));
        assert!(hosts.iter().all(|host| same(host.as_bytes())));
        assert!(hosts.len() <= 1, "two hosts");
        for name in ["host", ":authority", ":path"] {
            assert!(
                read.head
                    .headers
                    .iter()
                    .all(|(own, _)| own.as_str() != name)
            );
        }
    }
    // In HTTP/1.1 a request has one host and no scheme.
    let sayable =
        !framed && hosts.len() <= 1 && matches!(scheme.as_deref(), None | Some("http" | "https"));
    let (true, Some(text)) = (sayable, text) else {
        return;
    };
    let theirs = in_http1(&text, &limits);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => assert_same(&ours.head, theirs),
        (Ok(_), Err(fault)) => panic!("HTTP/1.1 refuses it: {fault:?}"),
        // White space around a value is none of it in HTTP/1.1, and malformed in HTTP/2.
        (Err(Http2Fault::Malformed(_) | Http2Fault::TooMany), _) | (Err(_), Err(_)) => {}
        (Err(Http2Fault::Answer(fault, _)), Ok(_)) => panic!("HTTP/2 refuses it: {fault:?}"),
    }
}

/// What `h2` would make of it; `None`: it would refuse it.
fn parts(
    method: &[u8],
    scheme: &[u8],
    authority: &[u8],
    path: &[u8],
    fields: HeaderMap,
) -> Option<Parts> {
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    if !authority.is_empty() {
        uri.authority = Some(Authority::try_from(authority).ok()?);
        uri.scheme = Some(Scheme::try_from(scheme).ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.headers_mut() = fields;
    Some(request.into_parts().0)
}

/// The same request in HTTP/1.1; `None`: it says two different hosts.
fn as_http1(parts: &Parts) -> Option<Vec<u8>> {
    let asked = parts.uri.authority().map(|asked| asked.as_str().as_bytes());
    let host = parts.headers.get("host").map(|host| host.as_bytes());
    if let (Some(asked), Some(host)) = (asked, host)
        && !asked.eq_ignore_ascii_case(host)
    {
        return None;
    }
    let path = parts.uri.path_and_query()?.as_str();
    let mut text = format!("{} {path} HTTP/1.1\r\n", parts.method).into_bytes();
    if let Some(host) = asked.or(host) {
        text.extend_from_slice(b"host: ");
        text.extend_from_slice(host);
        text.extend_from_slice(b"\r\n");
    }
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "host") {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    Some(text)
}

fn in_http1(text: &[u8], limits: &HeadLimits) -> Result<RequestHead, HeadFault> {
    let length = scan(text, 0, limits)?.expect("it has its end");
    assert_eq!(length, text.len(), "an end in the middle");
    parse_request(Bytes::copy_from_slice(text), limits).map(|request| request.head)
}

fn assert_same(ours: &RequestHead, theirs: &RequestHead) {
    assert_eq!(ours.method, theirs.method);
    assert_eq!(ours.path, theirs.path);
    let text = |head: &RequestHead| head.authority.as_ref().map(|own| own.as_str().to_owned());
    assert_eq!(text(ours), text(theirs));
    assert_eq!(ours.headers.len(), theirs.headers.len());
    for (name, _) in ours.headers.iter() {
        let values = |head: &RequestHead| {
            let values = head.headers.get_all(name);
            values
                .map(|value| value.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(ours), values(theirs), "{name}");
    }
}
