//! The gate in front of `h2`: at every split it takes out empty DATA frames, padded or not, and nothing else, never holds back
//! a byte that may go on but of SETTINGS that are not whole, and gives back exactly the window that padding has used.

use bytes::{Buf as _, BytesMut};
use wharf::net::Sieve;
use wharf::upstream::{Gate, Opening};

use super::shared::ways;

/// Reads `input` as the sizes of pieces (four bytes), and what a peer sends: as it stands, and as the plan of frames.
pub fn check(input: &[u8]) {
    let Some((sizes, stream)) = input.split_first_chunk::<4>() else {
        return;
    };
    check_stream(stream, sizes);
    check_stream(&planned(stream), sizes);
}

/// SETTINGS, and then for each three bytes a frame of that kind, those flags and that length.
fn planned(plan: &[u8]) -> Vec<u8> {
    let mut stream = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut rest = plan;
    while let Some((&[kind, flags, length], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(length % 32).min(after.len());
        let (payload, after) = after.split_at(length);
        stream.extend_from_slice(&[0, 0, length as u8, kind % 4, flags, 0, 0, 0, 1]);
        stream.extend_from_slice(payload);
        rest = after;
    }
    stream.extend_from_slice(rest);
    stream
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    held: Vec<u8>,
    dropped: u64,
    opening: Option<Opening>,
    answer: Option<Vec<u8>>,
    failed: bool,
}

fn check_stream(stream: &[u8], sizes: &[u8]) {
    let [whole, rest @ ..] = ways(stream, sizes).map(|pieces| through(&pieces, sizes));
    for seen in rest {
        assert_eq!(seen, whole);
    }
    if !is_http2(stream) {
        assert!(whole.passed.is_empty());
        assert_eq!(whole.held, stream);
        assert_eq!(whole.dropped, 0);
        assert_ne!(whole.opening, Some(Opening::Http2));
        return;
    }
    // Not before the whole of the first SETTINGS has gone by.
    let settings = u32::from_be_bytes([0, stream[0], stream[1], stream[2]]) as usize;
    let opening = (stream.len() >= 9 + settings).then_some(Opening::Http2);
    assert_eq!(whole.opening, opening);
    if whole.failed {
        // A flood: unit tests say when.
        return;
    }
    let (passed, held, dropped, padding) = naive(stream);
    assert_eq!(whole.passed, passed);
    let told = whole.answer.as_deref().map_or(0, |answer| {
        let connection = answer.split_at(answer.len() - 13).1;
        assert_eq!(connection[..9], [0, 0, 4, 8, 0, 0, 0, 0, 0]);
        u32::from_be_bytes([
            connection[9],
            connection[10],
            connection[11],
            connection[12],
        ])
    });
    assert_eq!(told, padding);
    assert_eq!(whole.held, held);
    assert_eq!(whole.dropped, dropped);
}

/// The head of a SETTINGS frame on the connection that acknowledges nothing, of no more than three mebibytes or so: what is longer may be TLS.
fn is_http2(stream: &[u8]) -> bool {
    matches!(stream, [a, b, _, 4, flags, 0, 0, 0, 0, ..]
        if !(matches!(a, 0x15 | 0x16) && *b == 3) && flags & 1 == 0)
}

/// What passes of frames, what is held of a head or of SETTINGS that are not whole, and how many frames are taken out.
fn naive(stream: &[u8]) -> (Vec<u8>, Vec<u8>, u64, u32) {
    let mut passed = Vec::new();
    let mut dropped = 0;
    let mut padding = 0;
    let mut rest = stream;
    while let Some(&[a, b, c, kind, flags, ref stream @ ..]) = rest.get(..9) {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let (frame, after) = rest.split_at(rest.len().min(9 + length));
        let is_settings =
            kind == 4 && flags & 1 == 0 && length.is_multiple_of(6) && length <= 16 << 10;
        if is_settings && frame.len() < 9 + length {
            // What it says must be known before anybody acts upon it.
            break;
        }
        // The connection itself has no DATA, and nobody has streams of even numbers.
        let is_nobodys = stream[3] % 2 == 0;
        let kind = if is_nobodys { u8::MAX } else { kind };
        let ends_stream = flags & 1 != 0;
        let padded = flags & 8 != 0;
        if kind == 0 && !ends_stream && padded && length > 0 && frame.len() == 9 {
            // Whether there is data in it stands in the next byte.
            break;
        }
        let pad = frame.get(9).map_or(0, |&pad| usize::from(pad) + 1);
        if kind == 0 && length == 0 && !ends_stream && !padded {
            dropped += 1;
        } else if kind == 0 && !ends_stream && padded && length > 0 && pad == length {
            dropped += 1;
            padding += length as u32;
        } else {
            passed.extend_from_slice(frame);
        }
        rest = after;
    }
    (passed, rest.to_vec(), dropped, padding)
}

fn through(pieces: &[&[u8]], sizes: &[u8]) -> Seen {
    let mut gate = Gate::new();
    let mut unread = BytesMut::new();
    let mut passed = Vec::new();
    // As many at a time as the reader's buffer happens to have room for.
    let mut failed = false;
    let mut rooms = sizes.iter().map(|size| 1 + usize::from(size % 16)).cycle();
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            let Ok(open) = gate.pass(&mut unread) else {
                failed = true;
                break;
            };
            assert!(open <= unread.len());
            let left = unread.len();
            let again = gate.pass(&mut unread).ok();
            assert_eq!(again, Some(open), "asking changes nothing");
            assert_eq!(unread.len(), left);
            if open == 0 {
                break;
            }
            let taken = open.min(rooms.next().unwrap_or(1));
            passed.extend_from_slice(&unread[..taken]);
            unread.advance(taken);
            gate.passed(taken);
        }
    }
    let notes = gate.notes();
    Seen {
        passed,
        held: unread.to_vec(),
        dropped: notes.dropped(),
        opening: notes.opening(),
        answer: gate.take_answer(),
        failed,
    }
}
