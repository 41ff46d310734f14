//! The gate between a client and `h2`: the same at every split, it changes nothing but takes out frames that mean nothing, and
//! closes a connection at exactly the frame that is too much.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf as _, BytesMut};
use wharf::downstream::http2::gate::{Gate, Verdict};
use wharf::net::Sieve;
use wharf::wire::http2::{FRAME_HEAD_BYTES, FrameHead, PREFACE, flag, kind};

use super::shared::ways;

/// Reads `input` as the sizes of pieces (four bytes), and what a client sends behind its preface: as it stands, and as the plan
/// of frames.
pub fn check(input: &[u8]) {
    let Some((sizes, stream)) = input.split_first_chunk::<4>() else {
        return;
    };
    check_stream(stream, sizes);
    check_stream(&planned(stream), sizes);
}

/// More frames than the largest count allows, and few enough to be quick, bytes.
const PLAN_BYTES_MAX: usize = 24 << 10;

/// SETTINGS, and then for each five bytes so many frames of that kind, those flags, that stream and that length.
fn planned(plan: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    for own in plan.chunks_exact(5).take(16) {
        let &[of, flags, stream, length, times] = own else {
            continue;
        };
        // Mostly as long as such a frame is.
        let length = match (of % 12, length) {
            (kind::PRIORITY, 0..200) => 5,
            (kind::RST_STREAM | kind::WINDOW_UPDATE, 0..200) => 4,
            (kind::PING | kind::GOAWAY, 0..200) => 8,
            (kind::SETTINGS, 0..200) => 0,
            _ => usize::from(length),
        };
        for n in 0..u32::from(times) * if times > 250 { 8 } else { 1 } {
            if bytes.len() > PLAN_BYTES_MAX {
                return bytes;
            }
            // On that stream, or each on its own.
            let stream = match stream {
                0..128 => u32::from(stream),
                _ => u32::from(stream) + 2 * n,
            };
            bytes.extend_from_slice(&[0, 0, length as u8, of % 12, flags]);
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.resize(bytes.len() + length, length.saturating_sub(1) as u8);
        }
    }
    bytes
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    verdict: Option<Verdict>,
    answer: Option<Vec<u8>>,
    head_bytes: usize,
}

fn check_stream(stream: &[u8], sizes: &[u8]) {
    let [whole, rest @ ..] = ways(stream, sizes).map(|pieces| through(&pieces, sizes));
    for seen in rest {
        assert_eq!(seen, whole);
    }
    let (passed, closed) = naive(stream);
    assert!(whole.passed == passed, "something was changed");
    // With NO_ERROR its calls may end first.
    let ended = whole
        .verdict
        .filter(|verdict| u32::from(verdict.reason) != 0);
    assert_eq!(ended.is_some(), closed, "{ended:?}");
}

/// What of a stream goes on, frame by frame, and whether it was closed for something.
fn naive(stream: &[u8]) -> (Vec<u8>, bool) {
    let mut passed = Vec::new();
    let mut rest = stream;
    let (mut begun, mut newest) = (false, 0);
    let (mut resets, mut unanswered, mut pings, mut settings, mut empty, mut chatter) =
        (0, 0, 0, 0, 0, 0);
    let mut open = BTreeSet::new();
    let mut owed = BTreeMap::<u32, usize>::new();
    while let Some(frame) = FrameHead::parse(rest) {
        let FrameHead {
            length,
            kind: of,
            stream,
            ..
        } = frame;
        let (bytes, after) = rest.split_at(rest.len().min(FRAME_HEAD_BYTES + length));
        // On a stream that has not begun every frame is for `h2` to judge.
        let known = stream % 2 == 1 && stream <= newest;
        let plain = of == kind::DATA && known && !frame.has(flag::END_STREAM);
        let padded = frame.has(flag::PADDED);
        if plain && padded && length > 0 && bytes.len() == FRAME_HEAD_BYTES {
            // Whether there is content in it stands in the next byte.
            break;
        }
        let pad = bytes
            .get(FRAME_HEAD_BYTES)
            .map_or(0, |&pad| usize::from(pad) + 1);
        let nothing = plain
            && if padded {
                length > 0 && pad == length
            } else {
                length == 0
            };
        let first = !std::mem::replace(&mut begun, true);
        if first && (of != kind::SETTINGS || frame.has(flag::ACK)) {
            return (passed, true);
        }
        let right = match of {
            kind::PRIORITY => length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => length == 4,
            kind::PING => length == 8,
            kind::SETTINGS if frame.has(flag::ACK) => length == 0,
            kind::SETTINGS => length % 6 == 0,
            kind::GOAWAY => length >= 8,
            _ => true,
        };
        if !nothing && (!right || length > 16 << 10 || of == kind::PUSH_PROMISE) {
            return (passed, true);
        }
        if of == kind::RST_STREAM && bytes.len() < FRAME_HEAD_BYTES + length {
            break;
        }
        if of == kind::HEADERS && !nothing {
            match whole_head(rest) {
                Some(true) => {}
                Some(false) => return (passed, true),
                None => break,
            }
        }
        match of {
            _ if nothing => {
                empty += 1;
                if length > 0 {
                    *owed.entry(stream).or_default() += length;
                }
            }
            kind::DATA => {}
            kind::HEADERS => {
                empty += u32::from(length == 0);
                if stream > newest {
                    newest = stream;
                    open.insert(stream);
                    if open.len() > 400 {
                        open.pop_first();
                    }
                }
            }
            kind::CONTINUATION => empty += u32::from(length == 0),
            kind::RST_STREAM => {
                resets += 1;
                unanswered += u32::from(open.remove(&stream));
            }
            kind::PING => pings += u32::from(!frame.has(flag::ACK)),
            kind::SETTINGS => settings += u32::from(!frame.has(flag::ACK)),
            _ => chatter += 1,
        }
        let too_much = resets > 200
            || unanswered > 100
            || pings > 100
            || settings > 50
            || empty > 100
            || chatter > 1_000
            || owed.len() > 100
            || owed.values().any(|&bytes| bytes > 64 << 10);
        if too_much {
            return (passed, true);
        }
        if !nothing {
            passed.extend_from_slice(bytes);
        }
        rest = after;
    }
    (passed, false)
}

/// Whether the head that begins there is one; `Some(false)`: it is larger than any may be, or something else stands inside it;
/// `None`: it has not come whole.
fn whole_head(bytes: &[u8]) -> Option<bool> {
    let (mut rest, mut block, mut frames) = (bytes, 0, 0);
    let first = FrameHead::parse(bytes)?.stream;
    loop {
        let frame = FrameHead::parse(rest)?;
        let follows = frame.kind == kind::CONTINUATION && frame.stream == first;
        if frames > 0 && !follows {
            return Some(false);
        }
        if frame.length > 16 << 10 {
            return Some(true);
        }
        frames += 1;
        block += FRAME_HEAD_BYTES + frame.length;
        if block > 65 << 10 || frames > 21 {
            return Some(false);
        }
        rest = rest.get(FRAME_HEAD_BYTES + frame.length..)?;
        if frame.has(flag::END_HEADERS) {
            return Some(true);
        }
    }
}

fn through(pieces: &[&[u8]], sizes: &[u8]) -> Seen {
    let mut gate = Gate::new();
    let notes = gate.notes();
    let mut unread = BytesMut::new();
    let mut passed = Vec::new();
    let mut rooms = sizes.iter().map(|size| 1 + usize::from(size % 16)).cycle();
    let preface: &[u8] = PREFACE;
    for piece in [preface].iter().chain(pieces) {
        unread.extend_from_slice(piece);
        loop {
            let open = gate.pass(&mut unread).expect("it never fails");
            assert!(open <= unread.len());
            let left = unread.len();
            assert_eq!(
                gate.pass(&mut unread).ok(),
                Some(open),
                "asking changes nothing"
            );
            assert_eq!(unread.len(), left);
            if open == 0 {
                // One head at a time: the one before has been given out.
                if notes.let_heads_on() {
                    continue;
                }
                break;
            }
            let taken = open.min(rooms.next().unwrap_or(1));
            passed.extend_from_slice(&unread[..taken]);
            unread.advance(taken);
            gate.passed(taken);
        }
    }
    Seen {
        passed: passed.split_off(PREFACE.len()),
        verdict: notes.verdict(),
        answer: gate.take_answer(),
        head_bytes: notes.head_bytes(),
    }
}
