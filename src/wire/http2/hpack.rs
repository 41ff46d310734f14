//! How large a request's head is for the server that it goes to.
//!
//! Owns the two sizes that a server may bound: the list of fields (RFC 9113 §6.5.2), and the block that HPACK makes of it
//! (RFC 7541). It never encodes: `h2` does.

use http::Request;

/// What a field costs in a list besides its bytes (RFC 9113 §6.5.2), bytes.
pub const FIELD_OVERHEAD_BYTES: usize = 32;
/// A literal's first byte, and what says how long its name and its value are, bytes at most (RFC 7541 §5.1, §6.2).
const LITERAL_OVERHEAD_BYTES: usize = 1 + 2 * 4;
/// A character becomes no more than so many bytes: thirty bits.
const CHARACTER_BYTES_MAX: usize = 4;
/// No head that is let in becomes larger than that, bytes: 64 KiB at most, with what we add.
const HEAD_BYTES_MAX: usize = CHARACTER_BYTES_MAX * (80 << 10);
/// How long each character's code is, bits (RFC 7541, Appendix B).
#[rustfmt::skip]
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Whether neither the list of that request's fields nor their block is larger than that, bytes.
///
/// `h2` writes each string in Huffman's code, also where that makes it longer: of tildes a block is half as large again as the
/// list. A field that has a place in the table is smaller than what is counted here.
#[inline]
pub fn fits<T>(request: &Request<T>, most: usize) -> bool {
    most >= HEAD_BYTES_MAX || fits_narrowly(request, most)
}

fn fits_narrowly<T>(request: &Request<T>, most: usize) -> bool {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let pseudo = [
        (":method", request.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (
            ":authority",
            uri.authority().map_or("", |authority| authority.as_str()),
        ),
        (":path", path),
    ];
    let pseudo = pseudo.map(|(name, value)| (name, value.as_bytes()));
    let fields = || {
        let fields = request.headers().iter();
        let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
        pseudo.into_iter().chain(fields)
    };
    fit(fields, most)
}

fn fit<'a, I: Iterator<Item = (&'a str, &'a [u8])>>(fields: impl Fn() -> I, most: usize) -> bool {
    let sizes = fields().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD_BYTES);
    let list: usize = sizes.sum();
    if list > most {
        return false;
    }
    // Nearly all heads are so small that nobody has to count.
    if list * CHARACTER_BYTES_MAX <= most {
        return true;
    }
    let sizes = fields()
        .map(|(name, value)| LITERAL_OVERHEAD_BYTES + encoded(name.as_bytes()) + encoded(value));
    sizes.sum::<usize>() <= most
}

/// How long it is in Huffman's code, bytes.
fn encoded(text: &[u8]) -> usize {
    let bits = text
        .iter()
        .map(|&byte| usize::from(CODE_BITS[usize::from(byte)]));
    bits.sum::<usize>().div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_a_whole_tree() {
        // Each code of n bits takes the 2^-n th part; the end of a string has one of 30 bits.
        let parts = CODE_BITS.iter().map(|&bits| 1u64 << (30 - bits));
        assert_eq!(parts.sum::<u64>() + 1, 1 << 30);
        // RFC 7541 §C.4.1.
        assert_eq!(encoded(b"www.example.com"), 12);
        assert_eq!(encoded(b""), 0);
    }

    #[test]
    fn m_19_a_head_fits_as_a_list_and_as_a_block() {
        let value = |letter: u8, bytes| vec![letter; bytes];
        let fits = |value: &[u8], most| fit(|| [("x-a", value)].into_iter(), most);
        // As a list.
        assert!(fits(&value(b'a', 965), 1_000));
        assert!(!fits(&value(b'a', 966), 1_000));
        // As a block: 13 bits each, nine bytes and three for the name.
        assert!(fits(&value(b'~', 608), 1_000));
        assert!(!fits(&value(b'~', 609), 1_000));
        // Nothing fits into nothing.
        assert!(!fits(b"", 0));
        // And all of them count.
        let two = [("x-a", &b"a"[..]); 2];
        assert!(fit(|| two.into_iter(), 72));
        assert!(!fit(|| two.into_iter(), 71));
    }
}
