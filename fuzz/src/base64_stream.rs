//! Base64 as a stream: the same at every split, and never anything else than the `base64` crate makes of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use wharf::wire::base64::{Base64Fault, Decoder, Encoder, encoded_length};

use super::shared::{pieces, ways};

/// Reads `input` as the sizes of pieces (four bytes), and then as text, as indices of text, and as bytes.
pub fn check(input: &[u8]) {
    let Some((sizes, rest)) = input.split_first_chunk::<4>() else {
        return;
    };
    check_decoding(rest, sizes);
    check_decoding(&spelled(rest), sizes);
    check_encoding(rest, sizes);
}

/// Every byte as a character of the alphabet or as padding, so that most of it can be decoded.
pub fn spelled(bytes: &[u8]) -> Vec<u8> {
    const CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .iter()
        .map(|&byte| match byte {
            b'=' | 0xf0.. => b'=',
            other => CHARS[usize::from(other % 64)],
        })
        .collect()
}

/// What the text stands for up to its first fault, quantum by quantum.
pub fn naive(text: &[u8]) -> (Vec<u8>, Option<Base64Fault>) {
    let mut bytes = Vec::new();
    let quanta = text.chunks_exact(4);
    let left = quanta.remainder();
    for quantum in quanta {
        match STANDARD.decode(quantum) {
            Ok(decoded) => bytes.extend(decoded),
            Err(_) => return (bytes, Some(Base64Fault::Invalid)),
        }
    }
    (bytes, (!left.is_empty()).then_some(Base64Fault::Truncated))
}

/// Up to so long a text is cut at every place, bytes.
const EVERY_CUT_MAX: usize = 200;

fn check_decoding(text: &[u8], sizes: &[u8]) {
    let (bytes, fault) = naive(text);
    // Without padding inside, the crate reads it as one text, and says the same.
    let inside = &text[..text.len().saturating_sub(4)];
    if !inside.contains(&b'=') {
        let whole = STANDARD.decode(text);
        assert_eq!(whole.is_ok(), fault.is_none());
        assert!(whole.is_err() || whole.as_ref() == Ok(&bytes));
    }
    for at in 0..text.len().min(EVERY_CUT_MAX) {
        let (start, end) = text.split_at(at);
        let (decoded, found) = decode(&[start, end]);
        assert_eq!(found, fault, "cut at {at}");
        assert!(bytes.starts_with(&decoded), "cut at {at}");
        assert!(found.is_some() || decoded == bytes, "cut at {at}");
    }
    for pieces in ways(text, sizes) {
        let (decoded, found) = decode(&pieces);
        assert_eq!(found, fault, "in {} pieces", pieces.len());
        if fault == Some(Base64Fault::Invalid) {
            assert!(bytes.starts_with(&decoded));
        } else {
            assert_eq!(decoded, bytes, "in {} pieces", pieces.len());
        }
    }
}

fn decode(pieces: &[&[u8]]) -> (BytesMut, Option<Base64Fault>) {
    let mut decoder = Decoder::new();
    let mut out = BytesMut::new();
    for piece in pieces {
        if let Err(fault) = decoder.decode(piece, &mut out) {
            return (out, Some(fault));
        }
    }
    let fault = decoder.finish().err();
    (out, fault)
}

fn check_encoding(bytes: &[u8], sizes: &[u8]) {
    let whole = STANDARD.encode(bytes);
    assert_eq!(encoded_length(bytes.len()), whole.len());
    for pieces in ways(bytes, sizes) {
        let mut encoder = Encoder::new();
        let mut out = BytesMut::new();
        for piece in &pieces {
            encoder.encode(piece, &mut out);
        }
        encoder.flush(&mut out);
        assert_eq!(out, whole.as_bytes(), "in {} pieces", pieces.len());
        encoder.flush(&mut out);
        assert_eq!(out.len(), whole.len(), "nothing is held after a flush");
    }

    // Padded after each piece, every piece is a text of its own, and together they stand for all.
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    let mut in_one_go = BytesMut::new();
    let mut expected = String::new();
    for piece in pieces(bytes, sizes) {
        encoder.encode(piece, &mut out);
        encoder.flush(&mut out);
        encoder.encode_padded(piece, &mut in_one_go);
        expected.push_str(&STANDARD.encode(piece));
        assert_eq!(out, expected.as_bytes());
        assert_eq!(in_one_go, expected.as_bytes());
    }
    let (decoded, fault) = decode(&pieces(&out, sizes));
    assert_eq!(fault, None);
    assert_eq!(decoded, bytes);
}
