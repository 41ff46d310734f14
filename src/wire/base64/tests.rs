//! Base64 as a stream: the same at every split, strict, and the same whether many quanta are converted at once or one by one.

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;

use super::*;

fn decode(pieces: &[&[u8]]) -> Result<Vec<u8>, Base64Fault> {
    let mut decoder = Decoder::new();
    let mut out = BytesMut::new();
    for piece in pieces {
        decoder.decode(piece, &mut out)?;
    }
    decoder.finish()?;
    Ok(out.to_vec())
}

fn splits(text: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways: Vec<Vec<&[u8]>> = (0..=text.len())
        .map(|cut| vec![&text[..cut], &text[cut..]])
        .collect();
    ways.push(text.chunks(1).collect());
    ways.push(text.chunks(3).collect());
    ways.push(text.chunks(5).collect());
    ways
}

#[test]
fn w_20_and_w_23_padding_in_mid_stream_is_decoded_at_every_split() {
    let rows: &[(&[u8], &[u8])] = &[
        (b"", b""),
        (b"QUJD", b"ABC"),
        (b"QQ==QkI=", b"ABB"),
        (b"QQ==", b"A"),
        (b"QUJDQQ==QUJDREVGQkI=QUJD", b"ABCAABCDEFBBABC"),
        (b"AAA=AAA=AA==", &[0; 5]),
        (b"+/+/", &[0xfb, 0xff, 0xbf]),
    ];
    for (text, bytes) in rows {
        for way in splits(text) {
            assert_eq!(decode(&way).as_deref(), Ok(*bytes), "{way:?}");
        }
    }
}

#[test]
fn w_21_what_is_not_base64_is_refused_at_every_split() {
    let rows: &[&[u8]] = &[
        b"QUJ!",
        b"-_-_",
        b"QUJD\r\n\r\n",
        b"QU JD",
        b"QUJD ",
        b"====",
        b"A===",
        b"QQ=A",
        b"Zg=A",
        b"QR==",
        b"QUK=",
        b"QUJD====",
        b"=QUJ",
        b"Q===QUJD",
        b"QUJ\0",
        b"\xff\xff\xff\xff",
    ];
    for text in rows {
        for way in splits(text) {
            assert!(decode(&way).is_err(), "{way:?}");
        }
    }
}

#[test]
fn w_21_nothing_comes_out_of_what_is_not_base64() {
    let mut decoder = Decoder::new();
    let mut out = BytesMut::new();
    let fault = decoder.decode(b"QUJDQQ==QUJDQU!!", &mut out);
    assert_eq!(fault, Err(Base64Fault::Invalid));
    // The runs before it, and not a byte in place of the bad one.
    assert_eq!(&out[..], b"ABCA");
}

#[test]
fn w_22_a_text_that_ends_inside_a_quantum_is_truncated() {
    for text in [&b"Q"[..], b"QU", b"QUJ", b"QUJDQ", b"QQ==QU", b"QQ==Q"] {
        for way in splits(text) {
            assert_eq!(decode(&way), Err(Base64Fault::Truncated), "{way:?}");
        }
    }
}

#[test]
fn every_fault_has_its_words() {
    let invalid = "the request's text is not base64";
    assert_eq!(Base64Fault::Invalid.detail(), invalid);
    let truncated = "the request's base64 text ends inside a group of four characters";
    assert_eq!(Base64Fault::Truncated.detail(), truncated);
}

#[test]
fn every_split_encodes_to_the_same_text() {
    let bytes: Vec<u8> = (0..=50).map(|n: u8| n.wrapping_mul(37)).collect();
    for length in 0..bytes.len() {
        let bytes = &bytes[..length];
        let expected = STANDARD.encode(bytes);
        for way in splits(bytes) {
            let mut encoder = Encoder::new();
            let mut out = BytesMut::new();
            for piece in way {
                encoder.encode(piece, &mut out);
                assert_eq!(out.len() % 4, 0);
            }
            encoder.flush(&mut out);
            encoder.flush(&mut out);
            assert_eq!(&out[..], expected.as_bytes());
            assert_eq!(out.len(), encoded_length(length));
        }
    }
}

#[test]
fn a_flush_in_mid_stream_pads_and_the_decoder_reads_on() {
    let mut encoder = Encoder::new();
    let mut text = BytesMut::new();
    encoder.encode(b"A", &mut text);
    encoder.flush(&mut text);
    encoder.encode(b"BB", &mut text);
    encoder.flush(&mut text);
    assert_eq!(&text[..], b"QQ==QkI=");
    assert_eq!(decode(&[&text]).as_deref(), Ok(&b"ABB"[..]));
}

/// RFC 4648's table 1.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The same, read the other way.
const VALUES: [Option<u32>; 256] = {
    let mut values = [None; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = Some(value as u32);
        value += 1;
    }
    values
};

/// What one quantum stands for, by the book: the scale that everything else is put on.
fn quantum(chars: &[u8]) -> Option<Vec<u8>> {
    let padding = chars.iter().rev().take_while(|&&char| char == b'=').count();
    if padding > 2 {
        return None;
    }
    let (symbols, _) = chars.split_at(4 - padding);
    let mut bits: u32 = 0;
    for symbol in symbols {
        bits = bits << 6 | VALUES[usize::from(*symbol)]?;
    }
    let bits = bits << (6 * padding);
    let bytes = bits.to_be_bytes();
    let (bytes, rest) = bytes[1..].split_at(3 - padding);
    rest.iter().all(|&byte| byte == 0).then(|| bytes.to_vec())
}

/// What comes out, and the fault that ends it, if text comes in such pieces: run by run, and nothing of a run with a fault.
fn by_the_book(pieces: &[&[u8]]) -> (Vec<u8>, Option<Base64Fault>) {
    let mut out = Vec::new();
    let mut held = Vec::new();
    for piece in pieces {
        let begun = held.len();
        held.extend_from_slice(piece);
        let whole = held.len() - held.len() % 4;
        let left = held.split_off(whole);
        let mut run = Vec::new();
        for (index, chars) in held.chunks(4).enumerate() {
            let Some(bytes) = quantum(chars) else {
                return (out, Some(Base64Fault::Invalid));
            };
            run.extend(bytes);
            // What a cut went through is a run of its own.
            if chars.contains(&b'=') || (index == 0 && begun > 0) {
                out.append(&mut run);
            }
        }
        out.append(&mut run);
        held = left;
    }
    let fault = (!held.is_empty()).then_some(Base64Fault::Truncated);
    (out, fault)
}

fn decode_all(pieces: &[&[u8]]) -> (Vec<u8>, Option<Base64Fault>) {
    let mut decoder = Decoder::new();
    let mut out = BytesMut::new();
    let fault = pieces
        .iter()
        .try_for_each(|piece| decoder.decode(piece, &mut out));
    let fault = fault.and_then(|()| decoder.finish()).err();
    (out.to_vec(), fault)
}

fn encode_by_the_book(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | usize::from(group.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            text.push(if at > group.len() {
                b'='
            } else {
                ALPHABET[bits >> (18 - 6 * at) & 63]
            });
        }
    }
    text
}

/// Long enough for every way in which an engine takes many characters at once, and for what such a way leaves over.
const LONG_BYTES: usize = 100;

#[test]
fn w_21_each_byte_at_each_place_of_a_long_text_is_taken_or_refused_as_by_the_book() {
    // Three lengths: no padding, and one and two characters of it.
    for bytes in LONG_BYTES - 2..=LONG_BYTES {
        let bytes: Vec<u8> = (0..bytes).map(|n| (n * 151 % 256) as u8).collect();
        let mut text = encode_by_the_book(&bytes);
        for place in 0..text.len() {
            let right = text[place];
            for wrong in 0..=u8::MAX {
                text[place] = wrong;
                assert_eq!(
                    decode_all(&[&text]),
                    by_the_book(&[&text]),
                    "{wrong} at {place}"
                );
            }
            text[place] = right;
        }
    }
}

#[test]
fn every_length_is_encoded_and_decoded_as_by_the_book() {
    let bytes: Vec<u8> = (0..500).map(|n| (n * 197 % 256) as u8).collect();
    for length in 0..bytes.len() {
        let bytes = &bytes[..length];
        let expected = encode_by_the_book(bytes);
        let mut text = BytesMut::new();
        Encoder::new().encode_padded(bytes, &mut text);
        assert_eq!(&text[..], expected);
        assert_eq!(decode_all(&[&text]), (bytes.to_vec(), None));
    }
}

#[test]
fn what_is_encoded_and_padded_in_one_go_is_what_is_encoded_and_then_padded() {
    let bytes: Vec<u8> = (0..=255).collect();
    for held in 0..3 {
        for length in 0..bytes.len() - held {
            let (first, rest) = bytes[..held + length].split_at(held);
            let mut in_one_go = (Encoder::new(), BytesMut::new());
            in_one_go.0.encode(first, &mut in_one_go.1);
            assert_eq!(in_one_go.0.is_empty(), held == 0);
            in_one_go.0.encode_padded(rest, &mut in_one_go.1);
            let mut in_two = (Encoder::new(), BytesMut::new());
            in_two.0.encode(first, &mut in_two.1);
            in_two.0.encode(rest, &mut in_two.1);
            in_two.0.flush(&mut in_two.1);
            assert_eq!(in_one_go.1, in_two.1);
            assert!(in_one_go.0.is_empty() && in_two.0.is_empty());
        }
    }
}

/// Cuts at those places of a thousand.
fn cut<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut * text.len() / 1000).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &text[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The crate's vectors, its tails and our runs against one quantum after the other.
    #[test]
    fn w_20_to_w_23_any_text_in_any_pieces_is_taken_or_refused_as_by_the_book(
        runs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..6),
        wrong in prop::collection::vec((0..1000usize, any::<u8>()), 0..3),
        padded in prop::collection::vec(0..1000usize, 0..2),
        dropped in 0..4usize,
        cuts in prop::collection::vec(0..1000usize, 0..6),
    ) {
        let mut text: Vec<u8> = runs.iter().flat_map(|run| encode_by_the_book(run)).collect();
        text.truncate(text.len().saturating_sub(dropped));
        let padded = padded.into_iter().map(|place| (place, b'='));
        for (place, char) in wrong.into_iter().chain(padded) {
            let place = place * text.len() / 1000;
            if let Some(right) = text.get_mut(place) {
                *right = char;
            }
        }
        let pieces = cut(&text, &cuts);
        prop_assert_eq!(decode_all(&pieces), by_the_book(&pieces));
    }

    #[test]
    fn any_bytes_in_any_pieces_are_encoded_as_by_the_book(
        bytes in prop::collection::vec(any::<u8>(), 0..1_500),
        cuts in prop::collection::vec(0..1000usize, 0..6),
    ) {
        let mut encoder = Encoder::new();
        let mut text = BytesMut::new();
        for piece in cut(&bytes, &cuts) {
            encoder.encode(piece, &mut text);
        }
        encoder.flush(&mut text);
        prop_assert_eq!(&text[..], &encode_by_the_book(&bytes)[..]);
    }
}

/// What the crate's two strict engines take, and nothing else.
fn is_canonical_by_crate(text: &[u8]) -> bool {
    STANDARD.decode(text).is_ok() || STANDARD_NO_PAD.decode(text).is_ok()
}

#[test]
fn whole_values_are_canonical_padded_or_not() {
    for text in ["", "QQ==", "QQ", "QUI=", "QUI", "QUJD", "+/+/", "QUJDQQ"] {
        assert!(is_canonical(text.as_bytes()), "{text}");
    }
    for text in [
        "=", "==", "===", "====", "Q", "Q=", "Q==", "Q===", "QQ=", "QQ===", "QR", "QR==", "QUK",
        "QUK=", "QUJD=", "QUJD==", "QUJD====", "QQ==QQ==", "Q=Q=", "=QQ=", "Q-_Q", "QQ,QQ",
        "QQ==,", "QUJ ", " QUJ", "!!!!", "QUJDQ",
    ] {
        assert!(!is_canonical(text.as_bytes()), "{text}");
    }
}

#[test]
fn a_value_is_canonical_if_the_crate_can_decode_it() {
    // Each byte in each place of the last quantum.
    for byte in 0..=u8::MAX {
        for before in [&b""[..], b"QUJD", b"QUJDQUJDQUJDQUJDQUJDQUJD"] {
            for after in [&b""[..], b"=", b"==", b"A", b"A=", b"AA", b"AAA"] {
                for own in [&[byte][..], &[b'A', byte], &[b'A', b'A', byte]] {
                    let text = [before, own, after].concat();
                    let expected = is_canonical_by_crate(&text);
                    assert_eq!(is_canonical(&text), expected, "{}", text.escape_ascii());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_encoded_is_canonical_and_what_is_not_is_said_to_be_not(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        text in "[A-Qg+/=,]{0,12}",
    ) {
        prop_assert!(is_canonical(STANDARD.encode(&bytes).as_bytes()));
        prop_assert!(is_canonical(STANDARD_NO_PAD.encode(&bytes).as_bytes()));
        prop_assert_eq!(is_canonical(text.as_bytes()), is_canonical_by_crate(text.as_bytes()));
    }
}
