//! Base64 as a stream: the same at every split, and strict.

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
