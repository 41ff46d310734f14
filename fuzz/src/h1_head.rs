//! Heads of requests: the same at every split, never laxer than httparse, and one framing.

use bytes::Bytes;
use wharf::wire::http1::{Framing, HeadFault, HeadLimits, parse_request, scan};

/// Reads `input` as what stands at the start of a connection.
pub fn check(input: &[u8]) {
    let limits = HeadLimits::default();
    let whole = scan(input, 0, &limits);

    let step = 1 + input.len() / 256;
    assert_eq!(
        scan_in_steps(input, step, &limits),
        whole,
        "in steps of {step}"
    );
    let split = usize::from(input.first().copied().unwrap_or_default()) % (input.len() + 1);
    let again = match scan(input.get(..split).unwrap_or_default(), 0, &limits) {
        Ok(None) => scan(input, split, &limits),
        early => early,
    };
    assert_eq!(again, whole, "in two at {split}");

    // Where httparse refuses, or sees no whole head, neither do we.
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut theirs = httparse::Request::new(&mut slots);
    let parsed = theirs.parse(input);

    let Ok(Some(length)) = whole else { return };
    assert!(length <= limits.head_bytes_max);
    let head = input.get(..length).expect("a head is part of the input");
    assert!(head.ends_with(b"\r\n\r\n"));
    let Ok(request) = parse_request(Bytes::copy_from_slice(head), &limits) else {
        return;
    };

    // What we accept, httparse accepts, and it reads the same.
    assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
    assert_eq!(theirs.method, Some(request.head.method.as_str()));
    let target = theirs.path.expect("a whole head has a target");
    let path = request.head.path.as_str();
    match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            let rest = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
            assert_eq!(path.trim_start_matches('/'), rest.trim_start_matches('/'));
        }
        _ => assert_eq!(path, target),
    }
    // The same fields with the same values in the same order; but `host` is the authority, and what is not ASCII is left out.
    let fields = &request.head.headers;
    let is_host = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("host");
    let mut hosts = theirs.headers.iter().filter(is_host);
    let host = hosts.next();
    assert!(hosts.next().is_none(), "two hosts");
    let authority = request.head.authority.as_ref();
    if let Some(host) = host {
        let authority = authority.expect("a host is an authority").as_str();
        assert!(host.value.eq_ignore_ascii_case(authority.as_bytes()));
    }
    let kept = |field: &&httparse::Header<'_>| !is_host(field) && field.value.is_ascii();
    for (name, _) in fields.iter() {
        let ours = fields.get_all(name).map(|value| value.as_bytes());
        let theirs = theirs.headers.iter().filter(kept);
        let theirs = theirs.filter(|field| field.name.eq_ignore_ascii_case(name.as_str()));
        // White space around a value is none of it (RFC 9110 §5.5).
        let theirs = theirs.map(|field| field.value.trim_ascii());
        assert!(ours.eq(theirs), "{name} is not the same");
    }
    let dropped = theirs
        .headers
        .iter()
        .filter(|field| !field.value.is_ascii());
    assert_eq!(dropped.count(), request.dropped_fields as usize);
    assert_eq!(
        theirs.headers.iter().filter(kept).count(),
        fields.len(),
        "as many fields"
    );

    // One framing, and it is what the fields say.
    let count = |name: &str| fields.get_all(name).count();
    match (
        count("content-length"),
        count("transfer-encoding"),
        request.framing,
    ) {
        (0, 0, Framing::Empty) | (0, 1, Framing::Chunked) => {}
        (1, 0, Framing::Length(length)) => {
            assert_eq!(
                fields
                    .get("content-length")
                    .and_then(|value| value.to_str().ok()),
                Some(&*length.to_string())
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!fields.contains("host"));
    for (_, value) in fields.iter() {
        assert!(
            value
                .as_bytes()
                .iter()
                .all(|&byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        );
    }
}

fn scan_in_steps(
    input: &[u8],
    step: usize,
    limits: &HeadLimits,
) -> Result<Option<usize>, HeadFault> {
    let mut from = 0;
    while from < input.len() {
        let end = input.len().min(from + step);
        if let Some(length) = scan(input.get(..end).unwrap_or_default(), from, limits)? {
            return Ok(Some(length));
        }
        from = end;
    }
    Ok(None)
}
