//! What the gate hands on, what it counts, and what it closes a connection for.

use bytes::BytesMut;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A gate that has seen the preface and SETTINGS.
fn opened() -> Gate {
    let mut gate = Gate::new();
    let settings = frame(kind::SETTINGS, 0, 0, b"");
    assert_eq!(
        handed_on(&mut gate, &[PREFACE, &settings[..]].concat()).len(),
        33
    );
    gate
}

/// What goes on of those bytes; heads are given out at once.
fn handed_on(gate: &mut Gate, bytes: &[u8]) -> Vec<u8> {
    let mut unread = BytesMut::from(bytes);
    let mut all = Vec::new();
    loop {
        match gate.pass(&mut unread).unwrap() {
            0 if gate.notes.let_heads_on() => {}
            0 => return all,
            passing => {
                all.extend_from_slice(&unread.split_to(passing));
                gate.passed(passing);
            }
        }
    }
}

/// Makes the frame of that number.
type Maker<'a> = &'a dyn Fn(u32) -> Vec<u8>;

fn reason(gate: &Gate) -> Option<H2Reason> {
    gate.notes.verdict().map(|verdict| verdict.reason)
}

#[test]
fn each_count_may_be_reached_and_not_passed_and_begins_anew_with_the_second() {
    let rst = |n: u32| frame(kind::RST_STREAM, 0, 1 + 2 * n, &[0, 0, 0, 8]);
    let rows: [(&str, u32, Maker<'_>); 6] = [
        ("RST_STREAM", 200, &rst),
        ("PING", 100, &|_| frame(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", 50, &|_| frame(kind::SETTINGS, 0, 0, b"")),
        ("empty DATA", 100, &|_| frame(kind::DATA, 0, 1, b"")),
        ("PRIORITY", 1_000, &|_| frame(kind::PRIORITY, 0, 1, &[0; 5])),
        ("unknown", 1_000, &|_| frame(0x77, 0, 1, b"")),
    ];
    for (name, most, frame) in rows {
        let mut gate = opened();
        // What is empty is taken out where its stream has begun.
        gate.notes.begun.set(1);
        // The first SETTINGS of a connection count, too.
        gate.notes.next_second();
        for _ in 0..3 {
            for n in 0..most {
                handed_on(&mut gate, &frame(n));
            }
            assert_eq!(reason(&gate), None, "{name}");
            gate.notes.next_second();
        }
        for n in 0..=most {
            handed_on(&mut gate, &frame(n));
        }
        assert_eq!(reason(&gate), Some(H2Reason::ENHANCE_YOUR_CALM), "{name}");
        // From now on nothing of it is looked at.
        assert_eq!(handed_on(&mut gate, &frame(0)), b"", "{name}");
    }
}

#[test]
fn answers_to_our_own_frames_are_no_chatter() {
    let mut gate = opened();
    let update = frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let sent = frame(kind::DATA, 0, 1, b"content");
    for _ in 0..5_000 {
        gate.wrote(&sent);
        handed_on(&mut gate, &update.repeat(2));
    }
    assert_eq!(reason(&gate), None);
    handed_on(
        &mut gate,
        &frame(kind::SETTINGS, flag::ACK, 0, b"").repeat(5_000),
    );
    handed_on(
        &mut gate,
        &frame(kind::PING, flag::ACK, 0, &[0; 8]).repeat(5_000),
    );
    assert_eq!(reason(&gate), None);
    assert!(gate.notes.acknowledged());
}

#[test]
fn a_reset_counts_more_where_no_answer_had_begun() {
    let head = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x82");
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let streams = (0..101).map(|n| 1 + 2 * n);
    // Answered.
    let mut gate = opened();
    for stream in streams.clone() {
        handed_on(&mut gate, &head(stream));
        gate.notes.note_request(stream);
        gate.wrote(&head(stream));
        handed_on(&mut gate, &reset(stream));
    }
    assert_eq!(reason(&gate), None);
    // Not answered. The last of them is one too many.
    let mut gate = opened();
    for stream in streams {
        assert_eq!(reason(&gate), None);
        handed_on(&mut gate, &head(stream));
        gate.notes.note_request(stream);
        handed_on(&mut gate, &reset(stream));
    }
    assert_eq!(reason(&gate), Some(H2Reason::ENHANCE_YOUR_CALM));
}

#[test]
fn a_reset_is_believed_when_its_last_byte_has_come() {
    let mut gate = opened();
    let notes = gate.notes();
    notes.note_piece(1, &Bytes::from_static(b"answer"));
    let reset = frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let mut unread = BytesMut::new();
    for (n, &byte) in reset.iter().enumerate() {
        assert_eq!(notes.unwritten(1), Some(6), "after {n} bytes of it");
        unread.extend_from_slice(&[byte]);
        let passing = gate.pass(&mut unread).unwrap();
        assert_eq!(passing, if n + 1 == reset.len() { reset.len() } else { 0 });
    }
    assert_eq!(notes.unwritten(1), None);
}

#[test]
fn what_h2_ends_before_it_is_a_request_is_counted_unless_it_is_given_out_after_all() {
    let head = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x82");
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 1]);
    let mut gate = opened();
    let notes = gate.notes();
    for stream in [1, 3, 5, 7] {
        handed_on(&mut gate, &head(stream));
    }
    notes.note_request(1);
    gate.wrote(&reset(1));
    gate.wrote(&reset(3));
    gate.wrote(&reset(5));
    notes.note_request(5);
    // RST_STREAM of a stream that has begun to be answered says nothing about its head.
    notes.note_request(7);
    gate.wrote(&head(7));
    gate.wrote(&reset(7));
    assert_eq!(notes.take_turned_away(), 1);
    assert_eq!(notes.take_turned_away(), 0);
}

#[test]
fn a_head_waits_until_the_one_before_it_was_given_out() {
    let mut gate = opened();
    let notes = gate.notes();
    notes.let_heads_on();
    let head = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x82");
    let mut unread =
        BytesMut::from(&[head(1), frame(kind::DATA, 0, 1, b"a"), head(3)].concat()[..]);
    let mut handed = 0;
    while let passing @ 1.. = gate.pass(&mut unread).unwrap() {
        let _ = unread.split_to(passing);
        gate.passed(passing);
        handed += passing;
    }
    assert_eq!(handed, 10 + 10, "the first, and what follows it");
    assert!(gate.holds_back());
    assert_eq!(gate.pass(&mut unread).unwrap(), 0);
    assert!(notes.let_heads_on());
    assert!(!gate.holds_back());
    assert_eq!(gate.pass(&mut unread).unwrap(), 10);
    gate.passed(10);
    assert!(!notes.let_heads_on(), "nothing waits");
}

#[test]
fn half_a_head_is_told_in_bytes_and_handed_on_when_it_is_whole() {
    let mut gate = opened();
    let notes = gate.notes();
    let mut unread = BytesMut::new();
    let mut whole = Vec::new();
    for (flags, kind, block) in [
        (0, kind::HEADERS, &b"\x82\x86"[..]),
        (0, kind::CONTINUATION, b"\x84"),
        (flag::END_HEADERS, kind::CONTINUATION, b""),
    ] {
        assert_eq!(gate.pass(&mut unread).unwrap(), 0);
        assert_eq!(notes.head_bytes(), whole.len());
        let frame = frame(kind, flags, 1, block);
        // Nor before the last byte of a frame has come.
        let (all_but_one, one) = frame.split_at(frame.len() - 1);
        unread.extend_from_slice(all_but_one);
        assert_eq!(gate.pass(&mut unread).unwrap(), 0);
        unread.extend_from_slice(one);
        whole.extend(frame);
    }
    let mut handed = Vec::new();
    while let passing @ 1.. = gate.pass(&mut unread).unwrap() {
        handed.extend(unread.split_to(passing));
        gate.passed(passing);
    }
    assert_eq!(handed, whole);
    assert_eq!(notes.head_bytes(), 0);
}

#[test]
fn what_stands_within_a_head_and_is_no_part_of_it_ends_the_connection_before_h2_reads_a_byte() {
    for (kind, stream) in [(kind::CONTINUATION, 3), (kind::PING, 0), (kind::DATA, 1)] {
        let mut gate = opened();
        let mut bytes = frame(kind::HEADERS, 0, 1, b"\x82");
        // Its head is enough.
        bytes.extend(&frame(kind, flag::END_HEADERS, stream, b"12345678")[..9]);
        assert_eq!(handed_on(&mut gate, &bytes), b"");
        assert_eq!(reason(&gate), Some(H2Reason::PROTOCOL_ERROR));
    }
}

#[test]
fn the_last_streams_end_a_connection_gently_and_a_fault_still_ends_it_at_once() {
    let mut gate = opened();
    for (left, expected) in [(65_537, None), (65_535, Some(H2Reason::NO_ERROR))] {
        let stream = (1 << 31) - left;
        let head = frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x82");
        handed_on(&mut gate, &head);
        assert_eq!(reason(&gate), expected);
    }
    let data = frame(kind::DATA, 0, 1, b"still read");
    assert_eq!(handed_on(&mut gate, &data), data);
    handed_on(&mut gate, &frame(kind::PING, 0, 0, b"short"));
    assert_eq!(reason(&gate), Some(H2Reason::FRAME_SIZE_ERROR));
    assert_eq!(handed_on(&mut gate, &data), b"");
}

#[test]
fn padding_alone_is_given_back_and_too_much_of_it_ends_the_connection() {
    let mut gate = opened();
    gate.notes.begun.set(u32::MAX >> 1);
    let padding = [&[99][..], &[0; 99]].concat();
    let padded = frame(kind::DATA, flag::PADDED, 1, &padding);
    assert_eq!(handed_on(&mut gate, &padded), b"");
    assert!(gate.owes_answer());
    let answer = gate.take_answer().unwrap();
    let update = |stream| frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 100]);
    assert_eq!(answer, [update(1), update(0)].concat());
    assert!(gate.take_answer().is_none());
    // On more streams than there may be.
    for stream in 0..=100 {
        assert_eq!(reason(&gate), None);
        gate.notes.next_second();
        handed_on(
            &mut gate,
            &frame(kind::DATA, flag::PADDED, 1 + 2 * stream, &padding),
        );
    }
    assert_eq!(reason(&gate), Some(H2Reason::ENHANCE_YOUR_CALM));
}
