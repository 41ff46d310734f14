//! Envelopes: a walk sees the same at every split, and what a naive reading sees.

use wharf::wire::envelope::{Prefix, Step, Walker, prefix};

use super::shared::{envelopes, pieces, ways};

/// Reads `input` as the sizes of pieces (four bytes), and a stream of messages.
pub fn check(input: &[u8]) {
    let Some((sizes, stream)) = input.split_first_chunk::<4>() else {
        return;
    };
    let expected = naive(stream);
    for pieces in ways(stream, sizes) {
        assert_eq!(walk(&pieces), expected, "in {} pieces", pieces.len());
    }
    check_writing(&pieces(stream, sizes));
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    prefixes: Vec<(u8, u32)>,
    payload: Vec<u8>,
    messages: u64,
    remaining: u32,
    begun_bytes: usize,
    at_boundary: bool,
}

fn naive(stream: &[u8]) -> Seen {
    let read = envelopes(stream);
    let mut prefixes = Vec::new();
    let mut payload = Vec::new();
    for (flags, message) in &read.whole {
        prefixes.push((*flags, message.len() as u32));
        payload.extend_from_slice(message);
    }
    let mut remaining = 0;
    if let Some((flags, length, part)) = read.begun {
        prefixes.push((flags, length));
        payload.extend_from_slice(part);
        remaining = length - part.len() as u32;
    }
    Seen {
        prefixes,
        payload,
        messages: read.whole.len() as u64,
        remaining,
        begun_bytes: read.rest.len(),
        at_boundary: read.begun.is_none() && read.rest.is_empty(),
    }
}

fn walk(pieces: &[&[u8]]) -> Seen {
    let mut walker = Walker::new();
    let mut prefixes = Vec::new();
    let mut payload = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, step) = walker.step(rest);
            let (walked, after) = rest.split_at(used);
            rest = after;
            match step {
                Step::Prefix(head) => {
                    assert!(used > 0, "a step goes on");
                    prefixes.push((head.flags, head.length));
                }
                Step::Payload(length) => {
                    assert!(used > 0 && used == length);
                    payload.extend_from_slice(walked);
                }
                Step::Hungry => break,
            }
        }
        assert!(rest.is_empty(), "who is hungry has left nothing");
    }
    Seen {
        prefixes,
        payload,
        messages: walker.messages(),
        remaining: walker.remaining(),
        begun_bytes: walker.begun_bytes(),
        at_boundary: walker.at_boundary(),
    }
}

fn check_writing(messages: &[&[u8]]) {
    let mut written = Vec::new();
    let mut expected = Vec::new();
    for message in messages {
        let flags = message.first().copied().unwrap_or_default();
        let length = message.len() as u32;
        let head = prefix(flags, length);
        assert_eq!(Prefix { flags, length }.to_bytes(), head);
        written.extend_from_slice(&head);
        written.extend_from_slice(message);
        expected.push((flags, *message));
    }
    let read = envelopes(&written);
    assert_eq!(read.whole, expected);
    assert!(read.begun.is_none() && read.rest.is_empty());
}
