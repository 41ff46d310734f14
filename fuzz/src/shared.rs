//! What targets share: bytes in pieces, fields out of lines, and naive readings of what wharf writes.
//!
//! The readings are slow, allocate as they like, and use none of wharf's decoders, so that a fault cannot hide on both sides.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Ways to hand over `bytes`: whole, one by one, and by `sizes` over and over, where zero is an empty piece.
///
/// A size is taken modulo 16, so that a digit in a seed stands for itself.
pub fn ways<'a>(bytes: &'a [u8], sizes: &[u8]) -> [Vec<&'a [u8]>; 3] {
    [vec![bytes], bytes.chunks(1).collect(), pieces(bytes, sizes)]
}

/// `bytes` by `sizes` alone.
pub fn pieces<'a>(bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let sizes: Vec<_> = sizes.iter().map(|size| usize::from(size % 16)).collect();
    if sizes.iter().all(|&size| size == 0) {
        return vec![bytes];
    }
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for size in sizes.into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The fields that stand in `text` as `name:value`, with `end` behind each. What is none is skipped.
pub fn fields(text: &[u8], end: u8) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in text.split(|&byte| byte == end).take(200) {
        let mut halves = line.splitn(2, |&byte| byte == b':');
        if let (Some(name), Some(value)) = (halves.next(), halves.next())
            && let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            fields.append(name, value);
        }
    }
    fields
}

/// An input that is a script: operations and their arguments, one after the other.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// A script from its first byte.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// As many as that, or as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Length-prefixed messages, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelopes<'a> {
    /// The flags and the payload of each that is whole.
    pub whole: Vec<(u8, &'a [u8])>,
    /// The flags, the declared length and what there is of one that is not.
    pub begun: Option<(u8, u32, &'a [u8])>,
    /// Up to four bytes of a prefix.
    pub rest: &'a [u8],
}

/// Takes `bytes` apart.
pub fn envelopes(mut bytes: &[u8]) -> Envelopes<'_> {
    let mut whole = Vec::new();
    while let Some((&[flags, a, b, c, d], after)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]);
        let Some((payload, after)) = after.split_at_checked(length as usize) else {
            return Envelopes {
                whole,
                begun: Some((flags, length, after)),
                rest: &[],
            };
        };
        whole.push((flags, payload));
        bytes = after;
    }
    Envelopes {
        whole,
        begun: None,
        rest: bytes,
    }
}

/// The block of a trailer frame, taken apart. Panics at what a client would stumble over.
pub fn trailers(block: &[u8]) -> Vec<(&str, &str)> {
    let text = std::str::from_utf8(block).expect("a block is ASCII");
    let text = text
        .strip_suffix("\r\n")
        .expect("the last line ends as the others do");
    let lines: Vec<_> = text
        .split("\r\n")
        .map(|line| line.split_once(':').expect("a line has a colon"))
        .collect();
    for (name, value) in &lines {
        assert!(!name.is_empty());
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        assert!(
            !name.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{name:?}"
        );
        assert!(
            value.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{value:?}"
        );
    }
    let count = |wanted: &str| lines.iter().filter(|(name, _)| *name == wanted).count();
    assert_eq!(count("grpc-status"), 1);
    assert!(count("grpc-message") <= 1);
    lines
}

/// The text that escapes stand for. Panics where one is broken or what comes out is not UTF-8, as clients do.
pub fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        assert!(matches!(byte, b' '..=b'~'), "{byte:#x} on the wire");
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2).expect("an escape is whole");
            let digits = std::str::from_utf8(digits).expect("digits are ASCII");
            assert!(!digits.starts_with('+'));
            decoded.push(u8::from_str_radix(digits, 16).expect("digits are hexadecimal"));
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).expect("escapes stand for UTF-8")
}
