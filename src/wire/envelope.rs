//! gRPC's five-byte envelope: one byte of flags, four of length, then so many bytes of message.
//!
//! Owns the walk over bytes that pass through untouched: where one message ends and the next begins, however the bytes were
//! cut. Keeps no message and judges neither flags nor length: those who know the direction do that.
//!
//! Sources: grpc/grpc `doc/PROTOCOL-HTTP2.md` (Length-Prefixed-Message), `doc/PROTOCOL-WEB.md` (Message framing).

/// How long a prefix is.
pub const PREFIX_BYTES: usize = 5;

/// The flag of a message that is compressed with the call's `grpc-encoding`. It is no error mark.
pub const COMPRESSED: u8 = 0x01;

/// The flag of gRPC-Web's trailer frame, which only answers have.
pub const TRAILERS: u8 = 0x80;

/// What stands before a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first byte.
    pub flags: u8,
    /// How many bytes of message follow. It is the peer's word: never allocate by it.
    pub length: u32,
}

impl Prefix {
    /// As it stands on the wire.
    pub const fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        prefix(self.flags, self.length)
    }
}

/// The five bytes before a message of that length.
pub const fn prefix(flags: u8, length: u32) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [flags, a, b, c, d]
}

/// What the bytes just walked over were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// They completed a prefix. A message of length zero is whole with it.
    Prefix(Prefix),
    /// So many bytes of the message.
    Payload(usize),
    /// There was nothing, or the beginning of a prefix: the input is used up.
    Hungry,
}

/// Walks over envelopes in raw bytes. Its memory is a few words whatever the messages are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walker {
    begun: [u8; PREFIX_BYTES],
    begun_bytes: u8,
    remaining: u32,
    messages: u64,
}

impl Walker {
    /// A walker before the first envelope.
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks one step into `input`: how many bytes it took, and what they were. Call again with the rest until it is
    /// [`Step::Hungry`].
    pub fn step(&mut self, input: &[u8]) -> (usize, Step) {
        if self.remaining > 0 {
            return self.walk_payload(input);
        }
        if self.begun_bytes == 0
            && let Some(whole) = input.first_chunk()
        {
            return (PREFIX_BYTES, self.enter(*whole));
        }
        let wanted = PREFIX_BYTES.saturating_sub(self.begun_bytes());
        let taken = wanted.min(input.len());
        for (place, byte) in self
            .begun
            .iter_mut()
            .skip(self.begun_bytes.into())
            .zip(input)
        {
            *place = *byte;
        }
        if taken < wanted {
            self.begun_bytes += taken as u8;
            return (taken, Step::Hungry);
        }
        self.begun_bytes = 0;
        (taken, self.enter(self.begun))
    }

    /// Between two messages, or before the first: a stream may end here.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0 && self.begun_bytes == 0
    }

    /// How many bytes of the message are still to come. Zero within a prefix.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How many bytes of a prefix were seen without its end: zero to four.
    pub fn begun_bytes(&self) -> usize {
        self.begun_bytes.into()
    }

    /// How many messages were whole so far, those of length zero included.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// A prefix is whole: its message begins.
    fn enter(&mut self, prefix: [u8; PREFIX_BYTES]) -> Step {
        let [flags, a, b, c, d] = prefix;
        let length = u32::from_be_bytes([a, b, c, d]);
        self.remaining = length;
        if length == 0 {
            self.messages += 1;
        }
        Step::Prefix(Prefix { flags, length })
    }

    fn walk_payload(&mut self, input: &[u8]) -> (usize, Step) {
        if input.is_empty() {
            return (0, Step::Hungry);
        }
        let available = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let taken = available.min(self.remaining);
        self.remaining -= taken;
        if self.remaining == 0 {
            self.messages += 1;
        }
        // `taken` is at most `input.len()`, so it fits.
        let taken = taken as usize;
        (taken, Step::Payload(taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a walk saw, with payload pieces joined, so that walks over different cuts can be compared.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        prefixes: Vec<Prefix>,
        payload: Vec<u8>,
        messages: u64,
        at_boundary: bool,
    }

    fn walk(pieces: &[&[u8]]) -> Seen {
        let mut walker = Walker::new();
        let mut seen = Seen::default();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (used, step) = walker.step(rest);
                let (walked, after) = rest.split_at(used);
                rest = after;
                match step {
                    Step::Prefix(prefix) => seen.prefixes.push(prefix),
                    Step::Payload(length) => {
                        assert_eq!(length, used);
                        seen.payload.extend_from_slice(walked);
                    }
                    Step::Hungry => break,
                }
            }
            assert!(rest.is_empty(), "a hungry walker has used up its input");
        }
        seen.messages = walker.messages();
        seen.at_boundary = walker.at_boundary();
        seen
    }

    fn three_messages() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (flags, message) in [(0, &b"hello"[..]), (1, b""), (0x80, b"grpc-status: 0\r\n")] {
            bytes.extend(prefix(flags, u32::try_from(message.len()).expect("short")));
            bytes.extend(message);
        }
        bytes
    }

    #[test]
    fn a_prefix_is_flags_and_a_big_endian_length() {
        assert_eq!(prefix(0x80, 0x0102_0304), [0x80, 1, 2, 3, 4]);
        let (used, step) = Walker::new().step(&[1, 0, 0, 1, 0, 9]);
        assert_eq!(used, 5);
        assert_eq!(
            step,
            Step::Prefix(Prefix {
                flags: 1,
                length: 256
            })
        );
    }

    #[test]
    fn every_split_sees_the_same_envelopes() {
        let bytes = three_messages();
        let whole = walk(&[&bytes]);
        assert_eq!(whole.messages, 3);
        assert_eq!(whole.prefixes.len(), 3);
        assert_eq!(whole.payload, b"hellogrpc-status: 0\r\n");
        assert!(whole.at_boundary);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(walk(&[left, right]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(walk(&single), whole);
    }

    #[test]
    fn only_the_places_between_messages_are_boundaries() {
        let bytes = three_messages();
        let boundaries: Vec<usize> = (0..=bytes.len())
            .filter(|&cut| walk(&[&bytes[..cut]]).at_boundary)
            .collect();
        assert_eq!(boundaries, [0, 10, 15, bytes.len()]);
    }

    #[test]
    fn w_09_a_hundred_thousand_empty_messages_are_counted() {
        let bytes = prefix(0, 0).repeat(100_000);
        let seen = walk(&[&bytes]);
        assert_eq!(seen.messages, 100_000);
        assert!(seen.payload.is_empty());
        assert!(seen.at_boundary);
    }

    #[test]
    fn w_04_the_longest_length_is_walked_without_holding_it() {
        let mut walker = Walker::new();
        let (used, step) = walker.step(&prefix(0, u32::MAX));
        assert_eq!(used, 5);
        assert_eq!(
            step,
            Step::Prefix(Prefix {
                flags: 0,
                length: u32::MAX
            })
        );
        assert_eq!(walker.step(&[0; 100]), (100, Step::Payload(100)));
        assert_eq!(walker.remaining(), u32::MAX - 100);
        assert_eq!(walker.messages(), 0);
    }
}
