//! Bodies of HTTP/1.1: where the content of a request lies among its framing, and the framing of an answer.
//!
//! Owns the chunked decoder. It never buffers: it looks at what is unread, says what to skip and what is content, and keeps
//! a few counters. It never parses a size the lenient way that chunk parsers are known for (httparse's reads an empty size
//! as 0 and lets a bare LF stand in an extension); whatever RFC 9112 §7.1's grammar does not allow is a fault.
//!
//! Sources: RFC 9112 §6.3, §7.1 (chunked), §7.1.1 (extensions), §7.1.2 (trailers), §8 (incomplete messages).

use bytes::{BufMut, BytesMut};

use crate::wire::http1::head::Framing;

/// How much may stand around the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// One chunk's line: size and extension, without CRLF.
    pub line_bytes_max: u32,
    /// All extensions of a body.
    pub extension_bytes_max: u32,
    /// The trailer section, with its line ends.
    pub trailer_bytes_max: u32,
    /// Fields of the trailer section.
    pub trailer_fields_max: u32,
    /// By how many the chunks that are too small to hold an envelope (five bytes: no sender of messages makes them) may
    /// outnumber the others. So a million one-byte chunks still work, a message for each chunk works forever, and a
    /// flood of specks ends.
    pub specks_max: u32,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 256,
            extension_bytes_max: 16 << 10,
            trailer_bytes_max: 16 << 10,
            trailer_fields_max: 100,
            specks_max: 1 << 20,
        }
    }
}

/// What to do with what is unread. The decoder counts on its being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Drop `skip` bytes; then `len` bytes are content, at least one.
    Data {
        /// Framing before the content.
        skip: usize,
        /// Content.
        len: usize,
    },
    /// Drop `used` bytes, which is all there are; come again with more.
    More {
        /// Framing.
        used: usize,
    },
    /// Drop `used` bytes; then the body is over. Said again (with 0) whenever asked.
    End {
        /// Framing.
        used: usize,
    },
}

/// How a body broke its framing. Where the next message begins is not known then: the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// A chunk's size is not `1*HEXDIG` below 2^63.
    ChunkSize,
    /// A chunk's line is too long.
    ChunkLine,
    /// A chunk's extension holds a control character, a bare LF or other bytes, or there is too much of them.
    ChunkExtension,
    /// A chunk's line does not end with CRLF.
    ChunkLineEnd,
    /// A chunk's content is not followed by CRLF.
    ChunkEnd,
    /// A trailer field is not `name: value`, or a line does not end with CRLF.
    Trailer,
    /// The trailer section is too large.
    TrailersTooLarge,
    /// Too many chunks of almost nothing.
    Specks,
    /// The client closed before the end.
    Truncated,
}

impl BodyFault {
    /// In a few words, for the log.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::ChunkSize => "bad chunk size",
            Self::ChunkLine => "chunk line too long",
            Self::ChunkExtension => "bad chunk extension",
            Self::ChunkLineEnd => "chunk line does not end with CRLF",
            Self::ChunkEnd => "chunk is not followed by CRLF",
            Self::Trailer => "bad trailer field",
            Self::TrailersTooLarge => "trailers too large",
            Self::Specks => "too many tiny chunks",
            Self::Truncated => "request ends before its body does",
        }
    }
}

/// Finds the content of one request's body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: BodyLimits,
    /// Bytes of the current chunk line, or of the trailer section.
    line_bytes: u32,
    extension_bytes: u32,
    trailer_fields: u32,
    specks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A body by `content-length`: so many bytes left, at least one.
    Length(u64),
    /// In a chunk's size: what it says so far, and in how many digits.
    Size { size: u64, digits: u8 },
    /// In the white space behind a size, which only an extension may follow.
    SizeSpace { size: u64 },
    /// Behind a `;`.
    Extension { size: u64 },
    /// The line's CR was there.
    LineLf { size: u64 },
    /// In a chunk's content: so many bytes left, at least one.
    Chunk(u64),
    /// The content was there.
    ChunkCr,
    /// The content's CR was there.
    ChunkLf,
    /// At the start of a line of the trailer section.
    TrailerStart,
    /// In a trailer field's name.
    TrailerName,
    /// In a trailer field's value.
    TrailerValue,
    /// The CR of a trailer field's line was there.
    TrailerLf,
    /// The CR of the last line was there.
    LastLf,
    /// Over.
    Done,
    /// Broken, for good.
    Broken(BodyFault),
}

impl BodyDecoder {
    /// At the start of a body with that framing.
    pub const fn new(framing: Framing, limits: BodyLimits) -> Self {
        Self {
            state: match framing {
                Framing::Empty | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => SIZE,
            },
            limits,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_fields: 0,
            specks: 0,
        }
    }

    /// What to do with `unread`. Called again with what is left when that was done.
    pub fn decode(&mut self, unread: &[u8]) -> Result<Step, BodyFault> {
        let mut used = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step::End { used }),
                State::Broken(fault) => return Err(fault),
                State::Length(left) | State::Chunk(left) => {
                    let ready = unread.len().saturating_sub(used);
                    if ready == 0 {
                        return Ok(Step::More { used });
                    }
                    let len = usize::try_from(left).map_or(ready, |left| left.min(ready));
                    let left = left.saturating_sub(len as u64);
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), left) => State::Length(left),
                        (_, 0) => State::ChunkCr,
                        (_, left) => State::Chunk(left),
                    };
                    return Ok(Step::Data { skip: used, len });
                }
                _ => {
                    let Some(&byte) = unread.get(used) else {
                        return Ok(Step::More { used });
                    };
                    match self.advance(byte) {
                        Ok(next) => self.state = next,
                        Err(fault) => {
                            self.state = State::Broken(fault);
                            return Err(fault);
                        }
                    }
                    used += 1;
                }
            }
        }
    }

    /// The client sends no more: fine if the body is over, and else a truncation, never an end (RFC 9112 §8).
    pub const fn at_eof(&self) -> Result<(), BodyFault> {
        match self.state {
            State::Done => Ok(()),
            State::Broken(fault) => Err(fault),
            _ => Err(BodyFault::Truncated),
        }
    }

    /// Whether the body is over.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, if that is known.
    pub const fn bytes_left(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// One byte of framing: one arm for each arrow of RFC 9112 §7.1's grammar.
    fn advance(&mut self, byte: u8) -> Result<State, BodyFault> {
        match self.state {
            State::Size { size, digits } => {
                self.count_line_byte(byte)?;
                match byte {
                    b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                        let digit = (byte as char).to_digit(16).ok_or(BodyFault::ChunkSize)?;
                        if digits >= SIZE_DIGITS_MAX {
                            return Err(BodyFault::ChunkSize);
                        }
                        let size = size
                            .checked_mul(16)
                            .and_then(|size| size.checked_add(u64::from(digit)))
                            .filter(|&size| size <= i64::MAX as u64)
                            .ok_or(BodyFault::ChunkSize)?;
                        Ok(State::Size {
                            size,
                            digits: digits + 1,
                        })
                    }
                    _ if digits == 0 => Err(BodyFault::ChunkSize),
                    b'\r' => Ok(State::LineLf { size }),
                    b';' => self.extend(size),
                    b' ' | b'\t' => Ok(State::SizeSpace { size }),
                    _ => Err(BodyFault::ChunkSize),
                }
            }
            State::SizeSpace { size } => {
                self.count_line_byte(byte)?;
                match byte {
                    b';' => self.extend(size),
                    b' ' | b'\t' => Ok(State::SizeSpace { size }),
                    _ => Err(BodyFault::ChunkSize),
                }
            }
            // What an extension says means nothing to anybody here. It is dropped, and may hold only what can not end a
            // line for any reader.
            State::Extension { size } => {
                self.count_line_byte(byte)?;
                match byte {
                    b'\r' => Ok(State::LineLf { size }),
                    b'\t' | b' '..=b'~' => self.extend(size),
                    _ => Err(BodyFault::ChunkExtension),
                }
            }
            State::LineLf { size } => match (byte, size) {
                (b'\n', 0) => {
                    self.line_bytes = 0;
                    Ok(State::TrailerStart)
                }
                (b'\n', size) => {
                    self.line_bytes = 0;
                    self.weigh(size)?;
                    Ok(State::Chunk(size))
                }
                _ => Err(BodyFault::ChunkLineEnd),
            },
            State::ChunkCr if byte == b'\r' => Ok(State::ChunkLf),
            State::ChunkLf if byte == b'\n' => Ok(SIZE),
            State::ChunkCr | State::ChunkLf => Err(BodyFault::ChunkEnd),

            // Trailers are read so that the body's end is found, and dropped: a field that arrives after the decision was
            // taken must not change it (RFC 9110 §6.5.1).
            State::TrailerStart => {
                self.count_trailer_byte()?;
                match byte {
                    b'\r' => Ok(State::LastLf),
                    byte if is_token_byte(byte) => {
                        self.trailer_fields = self.trailer_fields.saturating_add(1);
                        if self.trailer_fields > self.limits.trailer_fields_max {
                            return Err(BodyFault::TrailersTooLarge);
                        }
                        Ok(State::TrailerName)
                    }
                    _ => Err(BodyFault::Trailer),
                }
            }
            State::TrailerName => {
                self.count_trailer_byte()?;
                match byte {
                    b':' => Ok(State::TrailerValue),
                    byte if is_token_byte(byte) => Ok(State::TrailerName),
                    _ => Err(BodyFault::Trailer),
                }
            }
            State::TrailerValue => {
                self.count_trailer_byte()?;
                match byte {
                    b'\r' => Ok(State::TrailerLf),
                    b'\t' | b' '..=b'~' | 0x80.. => Ok(State::TrailerValue),
                    _ => Err(BodyFault::Trailer),
                }
            }
            State::TrailerLf if byte == b'\n' => {
                self.count_trailer_byte()?;
                Ok(State::TrailerStart)
            }
            State::LastLf if byte == b'\n' => Ok(State::Done),
            State::TrailerLf | State::LastLf => Err(BodyFault::Trailer),

            // `decode` never brings these here.
            State::Length(_) | State::Chunk(_) | State::Done | State::Broken(_) => Ok(self.state),
        }
    }

    /// A chunk's line grows by `byte`, unless that is its end.
    const fn count_line_byte(&mut self, byte: u8) -> Result<(), BodyFault> {
        if byte == b'\r' {
            return Ok(());
        }
        self.line_bytes = self.line_bytes.saturating_add(1);
        if self.line_bytes > self.limits.line_bytes_max {
            return Err(BodyFault::ChunkLine);
        }
        Ok(())
    }

    const fn count_trailer_byte(&mut self) -> Result<(), BodyFault> {
        self.line_bytes = self.line_bytes.saturating_add(1);
        if self.line_bytes > self.limits.trailer_bytes_max {
            return Err(BodyFault::TrailersTooLarge);
        }
        Ok(())
    }

    const fn extend(&mut self, size: u64) -> Result<State, BodyFault> {
        self.extension_bytes = self.extension_bytes.saturating_add(1);
        if self.extension_bytes > self.limits.extension_bytes_max {
            return Err(BodyFault::ChunkExtension);
        }
        Ok(State::Extension { size })
    }

    const fn weigh(&mut self, size: u64) -> Result<(), BodyFault> {
        if size >= ENVELOPE_BYTES {
            self.specks = self.specks.saturating_sub(1);
            return Ok(());
        }
        self.specks = self.specks.saturating_add(1);
        if self.specks > self.limits.specks_max {
            return Err(BodyFault::Specks);
        }
        Ok(())
    }
}

/// Writes the line before a chunk of `len` bytes. The content follows, then [`CHUNK_END`].
///
/// `len` is not 0: that chunk would be the last one, and that is [`LAST_CHUNK`]'s to say.
pub fn write_chunk_head(len: usize, out: &mut BytesMut) {
    debug_assert_ne!(len, 0, "an empty chunk is the last one");

    let mut digits = [0u8; 2 * size_of::<usize>()];
    let mut used = 0;
    let mut rest = len;
    for slot in digits.iter_mut().rev() {
        let digit = (rest & 0xf) as u8;
        *slot = if digit < 10 {
            b'0' + digit
        } else {
            b'a' - 10 + digit
        };
        rest >>= 4;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(digits.get(digits.len() - used..).unwrap_or_default());
    out.put_slice(CHUNK_END);
}

/// What stands behind a chunk's content.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// RFC 9110 §5.6.2.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// At the start of a chunk's line.
const SIZE: State = State::Size { size: 0, digits: 0 };

/// 16 hexadecimal digits are 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// gRPC's smallest message is its five-byte prefix.
const ENVELOPE_BYTES: u64 = 5;

#[cfg(test)]
mod tests;
