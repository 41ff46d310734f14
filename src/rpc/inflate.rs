//! Unpacks compressed messages for a caller that cannot read them.
//!
//! Only for an answer whose `grpc-encoding` the caller did not ask for: browsers' clients die at a compressed message. Each
//! message is unpacked by itself, in memory that never passes the message limit, and goes on with its flag cleared.
//!
//! Sources: grpc/grpc `doc/compression.md`, `doc/PROTOCOL-HTTP2.md` (Message-Encoding: `gzip` is RFC 1952, `deflate` is
//! RFC 1950's structure around RFC 1951).

use std::io::{self, Write};
use std::mem;

use bytes::{Bytes, BytesMut};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::HeaderValue;

use crate::wire::envelope::{COMPRESSED, PREFIX_BYTES, Step, Walker, prefix};
use crate::wire::{Reason, Reset};

/// How the messages of an answer are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    /// One that we cannot unpack.
    Foreign,
}

impl Coding {
    /// The coding that a `grpc-encoding` names; `None` for `identity`.
    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        match value.as_bytes() {
            b"identity" => None,
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => Some(Self::Foreign),
        }
    }
}

/// Messages in, messages out that nobody needs to unpack.
#[derive(Debug)]
pub(super) struct Inflater {
    coding: Coding,
    walker: Walker,
    current: Current,
    message_bytes_max: u32,
    bytes: u64,
}

/// The message that the walker is in.
#[derive(Debug)]
enum Current {
    Between,
    /// It was never packed and passes untouched.
    Untouched,
    Packed(Box<Unpacking>),
}

impl Inflater {
    pub(super) fn new(coding: Coding, message_bytes_max: u32) -> Self {
        Self {
            coding,
            walker: Walker::new(),
            current: Current::Between,
            message_bytes_max,
            bytes: 0,
        }
    }

    pub(super) fn pass(&mut self, data: Bytes, emit: &mut impl FnMut(Bytes)) -> Result<(), Reset> {
        let mut rest = data;
        loop {
            let before = self.walker;
            let (used, step) = self.walker.step(&rest);
            let walked = rest.split_to(used);
            match step {
                Step::Hungry => return Ok(()),
                Step::Prefix(head) => {
                    self.current = match self.begin(head.flags, head.length) {
                        Ok(current) => current,
                        Err(reset) => {
                            self.walker = before;
                            return Err(reset);
                        }
                    };
                    if matches!(self.current, Current::Untouched) || head.length == 0 {
                        self.emit(Bytes::copy_from_slice(&prefix(0, head.length)), emit);
                    }
                }
                Step::Payload(_) => match &mut self.current {
                    Current::Packed(unpacking) => unpacking.feed(&walked)?,
                    Current::Between | Current::Untouched => self.emit(walked, emit),
                },
            }
            if self.walker.at_boundary()
                && let Current::Packed(unpacking) =
                    mem::replace(&mut self.current, Current::Between)
            {
                self.emit(unpacking.finish()?, emit);
            }
        }
    }

    /// The writer has ended a message, and a stream may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.walker.at_boundary()
    }

    /// What was emitted ends with a whole message.
    pub(super) fn is_aligned(&self) -> bool {
        !matches!(self.current, Current::Untouched)
    }

    pub(super) fn messages(&self) -> u64 {
        self.walker.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn begin(&self, flags: u8, length: u32) -> Result<Current, Reset> {
        if length > self.message_bytes_max {
            return Err(too_large(self.message_bytes_max));
        }
        match flags {
            0 if length == 0 => Ok(Current::Between),
            0 => Ok(Current::Untouched),
            // Some servers set the flag on a message of length zero, in which there is nothing to unpack.
            COMPRESSED if length == 0 => Ok(Current::Between),
            COMPRESSED => Unpacking::new(self.coding, self.message_bytes_max)
                .map(|unpacking| Current::Packed(Box::new(unpacking)))
                .ok_or(broken("a message is packed in a way that nobody asked for")),
            _ => Err(broken("a message has flags that gRPC does not know")),
        }
    }

    fn emit(&mut self, bytes: Bytes, emit: &mut impl FnMut(Bytes)) {
        self.bytes += bytes.len() as u64;
        emit(bytes);
    }
}

/// One packed message.
#[derive(Debug)]
enum Unpacking {
    Gzip(MultiGzDecoder<Bounded>),
    Deflate(ZlibDecoder<Bounded>),
}

impl Unpacking {
    fn new(coding: Coding, bytes_max: u32) -> Option<Self> {
        let place = Bounded::new(bytes_max);
        match coding {
            Coding::Gzip => Some(Self::Gzip(MultiGzDecoder::new(place))),
            Coding::Deflate => Some(Self::Deflate(ZlibDecoder::new(place))),
            Coding::Foreign => None,
        }
    }

    fn feed(&mut self, packed: &[u8]) -> Result<(), Reset> {
        match self {
            Self::Gzip(decoder) => {
                let fed = decoder.write_all(packed);
                fed.map_err(|_| decoder.get_ref().blame())
            }
            Self::Deflate(decoder) => {
                let fed = decoder.write_all(packed);
                fed.map_err(|_| decoder.get_ref().blame())
            }
        }
    }

    /// The message with its new prefix.
    fn finish(mut self) -> Result<Bytes, Reset> {
        let place = match &mut self {
            Self::Gzip(decoder) => {
                let finished = decoder.try_finish();
                finished.map_err(|_| decoder.get_ref().blame())?;
                decoder.get_mut()
            }
            Self::Deflate(decoder) => {
                let finished = decoder.try_finish();
                finished.map_err(|_| decoder.get_ref().blame())?;
                decoder.get_mut()
            }
        };
        Ok(place.take())
    }
}

/// Where an unpacked message grows, never past the limit.
#[derive(Debug)]
struct Bounded {
    /// Room for the prefix, then the message.
    bytes: BytesMut,
    bytes_max: u32,
    over: bool,
}

impl Bounded {
    fn new(bytes_max: u32) -> Self {
        Self {
            bytes: BytesMut::zeroed(PREFIX_BYTES),
            bytes_max,
            over: false,
        }
    }

    fn length(&self) -> usize {
        self.bytes.len().saturating_sub(PREFIX_BYTES)
    }

    fn blame(&self) -> Reset {
        if self.over {
            too_large(self.bytes_max)
        } else {
            broken("a compressed message cannot be unpacked")
        }
    }

    fn take(&mut self) -> Bytes {
        // The limit is a u32, so the length is one.
        let length = u32::try_from(self.length()).unwrap_or(u32::MAX);
        for (place, byte) in self.bytes.iter_mut().zip(prefix(0, length)) {
            *place = byte;
        }
        mem::take(&mut self.bytes).freeze()
    }
}

impl Write for Bounded {
    fn write(&mut self, unpacked: &[u8]) -> io::Result<usize> {
        let room = (self.bytes_max as usize).saturating_sub(self.length());
        if unpacked.len() > room {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(unpacked);
        Ok(unpacked.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const fn broken(detail: &'static str) -> Reset {
    Reset::upstream(Reason::BackendProtocol(detail))
}

const fn too_large(bytes_max: u32) -> Reset {
    Reset::upstream(Reason::MessageTooLarge(bytes_max))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn message(flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short");
        [&prefix(flags, length)[..], payload].concat()
    }

    fn pack(coding: Coding, plain: &[u8]) -> Vec<u8> {
        let packed = match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).and_then(|()| encoder.finish())
            }
            _ => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).and_then(|()| encoder.finish())
            }
        };
        packed.expect("memory takes all")
    }

    fn pass(coding: Coding, max: u32, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Reset>, bool) {
        let mut inflater = Inflater::new(coding, max);
        let mut out = Vec::new();
        for piece in pieces {
            let passed = inflater.pass(Bytes::copy_from_slice(piece), &mut |bytes| {
                out.extend(bytes)
            });
            if passed.is_err() {
                return (out, passed, inflater.is_aligned());
            }
        }
        assert_eq!(inflater.bytes(), out.len() as u64);
        (out, Ok(()), inflater.is_aligned())
    }

    #[test]
    fn a_coding_is_known_by_its_name() {
        let rows = [
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("snappy", Some(Coding::Foreign)),
        ];
        for (name, coding) in rows {
            assert_eq!(Coding::parse(&HeaderValue::from_static(name)), coding);
        }
    }

    #[test]
    fn messages_are_counted_as_they_end() {
        let mut inflater = Inflater::new(Coding::Gzip, 10);
        for number in 0..3 {
            assert_eq!(inflater.messages(), number);
            let passed = inflater.pass(message(0, b"one").into(), &mut |_| {});
            assert_eq!(passed, Ok(()));
        }
    }

    #[test]
    fn w_33_packed_messages_come_out_plain_at_every_split() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let bytes = [
                message(1, &pack(coding, b"hello hello hello")),
                message(0, b"never packed"),
                message(1, b""),
                message(0, b""),
                message(1, &pack(coding, b"")),
            ]
            .concat();
            let expected = [
                message(0, b"hello hello hello"),
                message(0, b"never packed"),
                message(0, b""),
                message(0, b""),
                message(0, b""),
            ]
            .concat();
            for cut in 0..=bytes.len() {
                let (left, right) = bytes.split_at(cut);
                let (out, passed, aligned) = pass(coding, 64, &[left, right]);
                assert_eq!(passed, Ok(()));
                assert_eq!(out, expected, "{coding:?} cut at {cut}");
                assert!(aligned);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(pass(coding, 64, &single).0, expected);
        }
    }

    #[test]
    fn w_33_a_message_that_unpacks_past_the_limit_is_too_large() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let at_limit = message(1, &pack(coding, &[7; 1000]));
            assert_eq!(pass(coding, 1000, &[&at_limit]).1, Ok(()));
            let over = message(1, &pack(coding, &[7; 1001]));
            let (out, passed, aligned) = pass(coding, 1000, &[&over]);
            assert_eq!(passed, Err(Reset::upstream(Reason::MessageTooLarge(1000))));
            assert!(out.is_empty() && aligned);
            let bomb = message(1, &pack(coding, &vec![0; 1 << 20]));
            let (out, passed, aligned) = pass(coding, 100_000, &[&bomb]);
            assert_eq!(
                passed,
                Err(Reset::upstream(Reason::MessageTooLarge(100_000)))
            );
            assert!(out.is_empty() && aligned);
        }
        let at_limit = message(0, &[0; 10]);
        assert_eq!(pass(Coding::Gzip, 10, &[&at_limit]).1, Ok(()));
        let declared = message(0, &[0; 11]);
        let passed = pass(Coding::Gzip, 10, &[&declared]).1;
        assert_eq!(passed, Err(Reset::upstream(Reason::MessageTooLarge(10))));
    }

    #[test]
    fn w_33_what_cannot_be_unpacked_is_the_backends_fault() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = pack(coding, b"hello hello hello hello");
            let mut wrong_sum = packed.clone();
            let last = wrong_sum.len() - 6;
            wrong_sum[last] ^= 0x55;
            let rows = [
                b"not packed at all".to_vec(),
                packed[..packed.len() - 1].to_vec(),
                packed[..packed.len() / 2].to_vec(),
                [&packed[..], b"rubbish behind"].concat(),
                wrong_sum,
            ];
            for (row, payload) in rows.iter().enumerate() {
                let bytes = [message(0, b"fine"), message(1, payload)].concat();
                for cut in 0..=bytes.len() {
                    let (left, right) = bytes.split_at(cut);
                    let (out, passed, aligned) = pass(coding, 1000, &[left, right]);
                    let reason = passed.map_err(|reset| reset.reason.word());
                    assert_eq!(reason, Err("backend_protocol"), "{coding:?} row {row}");
                    assert_eq!(out, message(0, b"fine"));
                    assert!(aligned);
                }
            }
        }
    }

    #[test]
    fn w_33_a_foreign_coding_passes_until_a_message_uses_it() {
        let plain = message(0, b"fine");
        assert_eq!(pass(Coding::Foreign, 10, &[&plain]).0, plain);
        let packed = message(1, b"snappy");
        let (out, passed, _) = pass(Coding::Foreign, 10, &[&plain, &packed]);
        assert_eq!(
            passed.map_err(|reset| reset.reason.word()),
            Err("backend_protocol")
        );
        assert_eq!(out, plain);
    }

    #[test]
    fn flags_that_grpc_does_not_know_are_refused() {
        for flags in [2, 0x40, 0x80, 0x81, 0xff] {
            let (_, passed, aligned) = pass(Coding::Gzip, 10, &[&message(flags, b"")]);
            assert_eq!(
                passed.map_err(|reset| reset.reason.word()),
                Err("backend_protocol")
            );
            assert!(aligned);
            // What was refused is no message that went through.
            let mut inflater = Inflater::new(Coding::Gzip, 10);
            let empty = [message(0, b""), message(flags, b"")].concat();
            let passed = inflater.pass(Bytes::from(empty), &mut |_| {});
            assert!(passed.is_err());
            assert_eq!((inflater.messages(), inflater.bytes()), (1, 5));
        }
    }
}
