//! gRPC-Web's text mode: base64 as a stream.
//!
//! Owns the few characters and bytes that a cut leaves over. A text body is a concatenation of padded runs, so padding may
//! stand in mid-stream, and a run's border means nothing to gRPC. Strict in everything else: no other alphabet, no white
//! space, no missing padding, no bits that mean nothing. What lies whole between two cuts is converted by the `base64` crate,
//! many quanta at a time where the processor can.
//!
//! Sources: RFC 4648 §3 and §4; grpc/grpc `doc/PROTOCOL-WEB.md` (Text-encoded streams).

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::PAD;
use bytes::BytesMut;

/// Four characters make up to three bytes.
const QUANTUM_CHARS: usize = 4;
/// Three bytes make four characters.
const QUANTUM_BYTES: usize = 3;

/// As strict as the crate's `STANDARD`, and with AVX2 or NEON where the processor has it, which is asked once.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENGINE: LazyLock<base64::engine::Simd> =
    LazyLock::new(|| base64::engine::Simd::standard(PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENGINE: LazyLock<base64::engine::Scalar> =
    LazyLock::new(|| base64::engine::Scalar::new(&base64::alphabet::STANDARD, PAD));

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
            let chars = self.held_chars + input.len();
            out.reserve(chars / QUANTUM_CHARS * QUANTUM_BYTES);
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
        let (quanta, left) = rest.split_at(whole);
        // Nearly every text is padded at its end or not at all, and so is one run.
        if decode_run(quanta, out).is_err() {
            decode_runs(quanta, out)?;
        }
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

/// Decodes whole quanta, run by run. A run ends with a quantum that ends with `=`; in any other place the engine refuses it.
fn decode_runs(quanta: &[u8], out: &mut BytesMut) -> Result<(), Base64Fault> {
    let (quanta, _) = quanta.as_chunks::<QUANTUM_CHARS>();
    quanta
        .split_inclusive(|[.., last]| *last == b'=')
        .try_for_each(|run| decode_run(run.as_flattened(), out))
}

/// Decodes whole quanta, of which only the last may be padded.
fn decode_run(run: &[u8], out: &mut BytesMut) -> Result<(), Base64Fault> {
    let start = out.len();
    let padding = match run {
        [.., b'=', b'='] => 2,
        [.., b'='] => 1,
        _ => 0,
    };
    // Not a byte more: a buffer that is full is handed on as it is.
    let bytes = (run.len() / QUANTUM_CHARS * QUANTUM_BYTES).saturating_sub(padding);
    let decoded = ENGINE.decode_slice(run, grow(out, bytes));
    if decoded == Ok(bytes) {
        Ok(())
    } else {
        out.truncate(start);
        Err(Base64Fault::Invalid)
    }
}

/// So many bytes more, and where they are.
fn grow(out: &mut BytesMut, bytes: usize) -> &mut [u8] {
    let start = out.len();
    if out.capacity() == 0 {
        *out = BytesMut::zeroed(bytes);
    } else {
        out.resize(start + bytes, 0);
    }
    out.get_mut(start..).unwrap_or_default()
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
            out.reserve(encoded_length(self.held_bytes + input.len()));
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

    /// Appends the text of all of `input`, what was held before included, and pads it, so that the reader can decode all that
    /// was encoded so far. The same as [`Encoder::encode`] and then [`Encoder::flush`], in one go where nothing is held.
    pub fn encode_padded(&mut self, input: &[u8], out: &mut BytesMut) {
        if self.held_bytes == 0 {
            encode_run(input, out);
        } else {
            self.encode(input, out);
            self.flush(out);
        }
    }

    /// Appends what is held, padded, so that the reader can decode all that was encoded so far.
    pub fn flush(&mut self, out: &mut BytesMut) {
        let held = self.held;
        encode_run(held.get(..self.held_bytes).unwrap_or_default(), out);
        self.held_bytes = 0;
    }

    /// Whether nothing is held: what comes next begins a text of its own.
    pub const fn is_empty(&self) -> bool {
        self.held_bytes == 0
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

/// Whether a text is all of one value in base64, padded or not: no other alphabet, no bits that mean nothing, nothing behind the
/// padding, and as much of that as there has to be. The empty text is.
pub fn is_canonical(text: &[u8]) -> bool {
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] if text.len().is_multiple_of(QUANTUM_CHARS) => {
            bare
        }
        _ => text,
    };
    // All of them, without a way out: so many are compared at once.
    let known = bare.iter().fold(true, |all, char| {
        all & (char.is_ascii_alphanumeric() | (*char == b'+') | (*char == b'/'))
    });
    // The last character of what is no whole quantum stands for two bits, or for four, and else for zeros.
    let is_whole = match (bare.len() % QUANTUM_CHARS, bare.last()) {
        (0, _) => true,
        (2, Some(last)) => b"AQgw".contains(last),
        (3, Some(last)) => b"AEIMQUYcgkosw048".contains(last),
        _ => false,
    };
    known && is_whole
}

fn encode_run(run: &[u8], out: &mut BytesMut) {
    if run.is_empty() {
        return;
    }
    let chars = encoded_length(run.len());
    let written = ENGINE.encode_slice(run, grow(out, chars));
    debug_assert_eq!(written, Ok(chars));
}

#[cfg(test)]
mod tests;
