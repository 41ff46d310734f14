//! gRPC-Web's text mode: base64 as a stream.
//!
//! Owns the few characters and bytes that a cut leaves over. A text body is a concatenation of padded runs, so padding may
//! stand in mid-stream, and a run's border means nothing to gRPC. Strict in everything else: no other alphabet, no white
//! space, no missing padding, no bits that mean nothing.
//!
//! Sources: RFC 4648 §3 and §4; grpc/grpc `doc/PROTOCOL-WEB.md` (Text-encoded streams).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

/// Four characters make up to three bytes.
const QUANTUM_CHARS: usize = 4;
/// Three bytes make four characters.
const QUANTUM_BYTES: usize = 3;

/// The text is not base64 as gRPC-Web wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64Fault {
    /// A character that has no business there, wrong padding, or bits behind the last byte.
    Invalid,
    /// The text ended inside a quantum of four characters.
    Truncated,
}

impl Base64Fault {
    /// What to tell the client.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Invalid => "the request's text is not base64",
            Self::Truncated => "the request's base64 text ends inside a group of four characters",
        }
    }
}

/// Text in, bytes out. Holds at most three characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    held: [u8; QUANTUM_CHARS],
    held_chars: usize,
}

impl Decoder {
    /// A decoder before the first character.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` what the whole quanta of `input`, and what was held before, stand for. After a fault the decoder is of
    /// no more use; `out` may have got what stood before it.
    pub fn decode(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), Base64Fault> {
        let mut rest = input;
        if self.held_chars > 0 {
            let wanted = QUANTUM_CHARS.saturating_sub(self.held_chars);
            let (head, tail) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            self.hold(head);
            rest = tail;
            if self.held_chars < QUANTUM_CHARS {
                return Ok(());
            }
            self.held_chars = 0;
            decode_run(&self.held, out)?;
        }
        let whole = rest.len() - rest.len() % QUANTUM_CHARS;
        let (mut quanta, left) = rest.split_at(whole);
        // A run ends with the quantum that holds the first `=`; the engine sees to it that it stands in its right place.
        while let Some(padding) = quanta.iter().position(|&char| char == b'=') {
            let end = (padding / QUANTUM_CHARS + 1) * QUANTUM_CHARS;
            let (run, next) = quanta.split_at_checked(end).unwrap_or((quanta, &[]));
            decode_run(run, out)?;
            quanta = next;
        }
        decode_run(quanta, out)?;
        self.hold(left);
        Ok(())
    }

    /// The text is over. Characters without their quantum are a fault.
    pub fn finish(&self) -> Result<(), Base64Fault> {
        if self.held_chars == 0 {
            Ok(())
        } else {
            Err(Base64Fault::Truncated)
        }
    }

    fn hold(&mut self, chars: &[u8]) {
        for (place, char) in self.held.iter_mut().skip(self.held_chars).zip(chars) {
            *place = *char;
            self.held_chars += 1;
        }
    }
}

/// Decodes whole quanta, of which only the last may be padded.
fn decode_run(run: &[u8], out: &mut BytesMut) -> Result<(), Base64Fault> {
    let start = out.len();
    out.resize(start + run.len() / QUANTUM_CHARS * QUANTUM_BYTES, 0);
    let place = out.get_mut(start..).unwrap_or_default();
    match STANDARD.decode_slice(run, place) {
        Ok(written) => {
            out.truncate(start + written);
            Ok(())
        }
        Err(_) => {
            out.truncate(start);
            Err(Base64Fault::Invalid)
        }
    }
}

/// Bytes in, text out. Holds at most two bytes, and pads only where it is told to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    held: [u8; QUANTUM_BYTES],
    held_bytes: usize,
}

impl Encoder {
    /// An encoder before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` the text of all whole groups of three bytes, those held before included.
    pub fn encode(&mut self, input: &[u8], out: &mut BytesMut) {
        let mut rest = input;
        if self.held_bytes > 0 {
            let wanted = QUANTUM_BYTES.saturating_sub(self.held_bytes);
            let (head, tail) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            self.hold(head);
            rest = tail;
            if self.held_bytes < QUANTUM_BYTES {
                return;
            }
            self.held_bytes = 0;
            encode_run(&self.held, out);
        }
        let whole = rest.len() - rest.len() % QUANTUM_BYTES;
        let (groups, left) = rest.split_at(whole);
        encode_run(groups, out);
        self.hold(left);
    }

    /// Appends what is held, padded, so that the reader can decode all that was encoded so far.
    pub fn flush(&mut self, out: &mut BytesMut) {
        let held = self.held;
        encode_run(held.get(..self.held_bytes).unwrap_or_default(), out);
        self.held_bytes = 0;
    }

    fn hold(&mut self, bytes: &[u8]) {
        for (place, byte) in self.held.iter_mut().skip(self.held_bytes).zip(bytes) {
            *place = *byte;
            self.held_bytes += 1;
        }
    }
}

/// How many characters [`Encoder`] makes of so many bytes, padding included.
pub const fn encoded_length(bytes: usize) -> usize {
    bytes.div_ceil(QUANTUM_BYTES).saturating_mul(QUANTUM_CHARS)
}

fn encode_run(run: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.resize(start + encoded_length(run.len()), 0);
    let place = out.get_mut(start..).unwrap_or_default();
    let written = STANDARD.encode_slice(run, place);
    debug_assert_eq!(written, Ok(encoded_length(run.len())));
}

#[cfg(test)]
mod tests {
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
}
