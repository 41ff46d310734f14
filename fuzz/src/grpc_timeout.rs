//! `grpc-timeout`: what can be read is printed short, and never longer than it was.

use http::HeaderValue;
use wharf::wire::timeout::{MAX, parse, print};

/// Reads `input` as the field's value.
pub fn check(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let Ok(timeout) = parse(&value) else { return };
    assert!(timeout <= MAX);
    assert!((2..=21).contains(&input.len()));

    let printed = print(timeout);
    assert!(printed.len() <= 9, "{printed:?}");
    let again = parse(&printed).expect("what is printed can be read");
    assert!(again <= timeout, "{timeout:?} grew to {again:?}");
    assert!(
        (timeout - again) * 100_000 <= timeout,
        "{timeout:?} shrank to {again:?}"
    );
}
