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

    let Ok(Some(length)) = whole else { return };
    assert!(length <= limits.head_bytes_max);
    let head = input.get(..length).expect("a head is part of the input");
    assert!(head.ends_with(b"\r\n\r\n"));
    let Ok(request) = parse_request(Bytes::copy_from_slice(head), &limits) else {
        return;
    };

    // What we accept, httparse accepts, and it reads the same.
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut theirs = httparse::Request::new(&mut slots);
    assert_eq!(theirs.parse(head), Ok(httparse::Status::Complete(length)));
    assert_eq!(theirs.method, Some(request.head.method.as_str()));
    let target = theirs.path.expect("a whole head has a target");
    assert!(target.ends_with(request.head.path.as_str()) || !target.starts_with('/'));
    let hosts = usize::from(
        theirs
            .headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case("host")),
    );
    let fields = &request.head.headers;
    assert_eq!(
        theirs.headers.len(),
        fields.len() + hosts + request.dropped_fields as usize
    );

    // One framing, and it is what the fields say.
    let count = |name: &str| fields.get_all(name).iter().count();
    match (
        count("content-length"),
        count("transfer-encoding"),
        request.framing,
    ) {
        (0, 0, Framing::Empty) | (0, 1, Framing::Chunked) => {}
        (1, 0, Framing::Length(length)) => {
            assert_eq!(
                fields["content-length"].to_str().ok(),
                Some(&*length.to_string())
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(!fields.contains_key("host"));
    for value in fields.values() {
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
