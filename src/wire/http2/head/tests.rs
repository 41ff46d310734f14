//! What of a head is a request, and what is answered or reset.

use http::Request;

use super::*;
use crate::wire::http1::HeadLimits;

/// A request with those fields, changed by `change`.
fn read_with(
    fields: &[(&str, &str)],
    change: impl FnOnce(http::request::Builder) -> http::request::Builder,
) -> Result<Http2Request, Http2Fault> {
    let mut builder = Request::builder()
        .method("POST")
        .uri("http://wharf.test/a.B/C");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    let (parts, ()) = change(builder).body(()).unwrap().into_parts();
    read(parts, &HeadLimits::default())
}

fn fault(read: Result<Http2Request, Http2Fault>) -> (u16, &'static str) {
    match read {
        Err(Http2Fault::Answer(fault, _)) => (fault.status, fault.detail),
        Err(Http2Fault::Malformed(words)) => (0, words),
        Err(Http2Fault::TooMany) => (1, ""),
        Ok(read) => panic!("it was read: {read:?}"),
    }
}

#[test]
fn a_head_says_the_same_as_in_http1() {
    let read = read_with(
        &[
            ("x-a", "1"),
            ("x-b", ""),
            ("x-a", "2"),
            ("host", "WHARF.test"),
        ],
        |own| own,
    )
    .unwrap();
    let RequestHead {
        method,
        path,
        authority,
        headers,
    } = read.head;
    assert_eq!((method, path.as_str()), (Method::POST, "/a.B/C"));
    assert_eq!(authority.unwrap().as_str(), "wharf.test");
    let fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(fields, [("x-a", "1"), ("x-a", "2"), ("x-b", "")]);
    assert!(!read.expect_continue);
    assert!(
        read_with(&[("expect", "100-Continue")], |own| own)
            .unwrap()
            .expect_continue
    );
}

#[test]
fn each_limit_has_its_answer() {
    let many: Vec<_> = (0..128).map(|_| ("cookie", "a")).collect();
    assert!(read_with(&many, |own| own).is_ok());
    let more = [&many[..], &[("x", "y")]].concat();
    assert_eq!(fault(read_with(&more, |own| own)).0, 1);
    let long_name = "x".repeat(257);
    assert_eq!(
        fault(read_with(&[(&long_name, "a")], |own| own)),
        (431, "field name too long")
    );
    let (fits, too_large) = ("v".repeat(16_000), "v".repeat(16_384));
    assert!(read_with(&[("x", &fits)], |own| own).is_ok());
    assert_eq!(
        fault(read_with(&[("x", &too_large)], |own| own)),
        (431, "head too large")
    );
    let path = format!("http://a/{}", "p".repeat(8 << 10));
    assert_eq!(
        fault(read_with(&[], |own| own.uri(&path))),
        (414, "request line too long")
    );
}

#[test]
fn a_refused_head_tells_what_a_page_needs_to_read_the_answer() {
    let fields = [
        ("origin", "https://page.test"),
        ("expect", "much"),
        ("authorization", "secret"),
    ];
    let Err(Http2Fault::Answer(fault, head)) = read_with(&fields, |own| own) else {
        panic!("it was read");
    };
    assert_eq!(fault.status, 417);
    assert_eq!(head.path.as_str(), "/a.B/C");
    assert_eq!(head.headers.get("origin").unwrap(), "https://page.test");
    assert!(!head.headers.contains("authorization"));
}

#[test]
fn each_of_several_expectations_counts() {
    let both = [("expect", "100-continue"), ("expect", "101-continue")];
    assert_eq!(fault(read_with(&both, |own| own)).0, 417);
}

#[test]
fn names_that_imitate_and_values_that_are_no_text() {
    assert_eq!(
        fault(read_with(&[("content_length", "5")], |own| own)).0,
        400
    );
    assert!(read_with(&[("x_own", "5")], |own| own).is_ok());
    let latin = |name: &str| {
        let value = HeaderValue::from_bytes(b"\xe4").unwrap();
        read_with(&[], |own| own.header(name, value))
    };
    assert!(
        !latin("x-a").unwrap().head.headers.contains("x-a"),
        "left out"
    );
    assert_eq!(fault(latin("content-length")).0, 400);
    assert_eq!(fault(read_with(&[("x-a", " a")], |own| own)).0, 0);
}

#[test]
fn a_host_is_said_once_or_twice_the_same() {
    let alone = |hosts: &[(&str, &str)]| read_with(hosts, |own| own.uri("/a.B/C"));
    assert_eq!(
        alone(&[("host", "a.test")])
            .unwrap()
            .head
            .authority
            .unwrap()
            .as_str(),
        "a.test"
    );
    assert_eq!(fault(alone(&[])), (400, "no host"));
    assert_eq!(
        fault(alone(&[("host", "a"), ("host", "a")])),
        (400, "two hosts")
    );
    assert_eq!(
        fault(read_with(&[("host", "b")], |own| own)),
        (400, ":authority and host differ")
    );
    assert_eq!(
        fault(read_with(&[], |own| own.uri("ftp://a/b"))),
        (400, "bad scheme")
    );
}
