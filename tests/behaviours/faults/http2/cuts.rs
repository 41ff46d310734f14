//! Answers that are cut because their backend is lost, while much of them still waits for a client that reads slowly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use wharf::wire::Reason;

use crate::backend::{Backend, Peer, Seen};
use crate::caller::{CALL, Caller, Heard, call_with};
use crate::client::message;
use crate::frames::{
    ACK, INITIAL_WINDOW_SIZE, INTERNAL_ERROR, SETTINGS, WINDOW_MAX, WINDOW_UPDATE, frame,
};
use crate::world::{Plan, Stepped, World};

/// What a client's kernel takes that is not read, bytes.
const NARROW: usize = 4 << 10;
/// Of one message, bytes.
const PAYLOAD: usize = 9_995;
/// What begins behind the whole ones.
const HALF: usize = 5_000;
const SMALL_WINDOW: u32 = 20_000;
/// What a backend's stream may send ahead, bytes.
const AHEAD: usize = 128 << 10;

/// A client that reads nothing yet. It has acknowledged beforehand.
fn reading_slowly(world: SocketAddr, window: u32) -> Caller {
    let mut caller = Caller::narrow(world, NARROW, &[(INITIAL_WINDOW_SIZE, window)]);
    caller.window(0, WINDOW_MAX - 65_535);
    caller.frame(SETTINGS, ACK, 0, b"");
    caller.acknowledges = false;
    caller
}

fn native() -> Vec<(&'static str, &'static str)> {
    let mut fields = call_with(&[("te", "trailers")]);
    fields[4].1 = "application/grpc";
    fields
}

/// The message of that number.
fn numbered(number: u8) -> Vec<u8> {
    message(&[number; PAYLOAD])
}

/// Sends whole messages until no more are taken. How many.
fn fill(peer: &mut Peer, stream: u32) -> u8 {
    let (mut left, mut count) = (AHEAD - HALF, 0);
    loop {
        let one = numbered(count);
        while left >= one.len() {
            left -= one.len();
            peer.data(stream, &numbered(count), false);
            count += 1;
        }
        match peer.next_or_window(stream, Duration::from_millis(200)) {
            Some(Ok(more)) => left += more as usize,
            None => return count,
            Some(Err(other)) => panic!("{other:?}"),
        }
    }
}

#[test]
fn u_p8_u_p9_what_was_whole_before_a_cut_reaches_a_client_that_reads_slowly() {
    // Where it could wait: behind windows that are given by and by, or behind a socket that is not read, and so much of it that
    // the call goes on for as long as the client reads, or so little that it is over before. Inside a message and between two.
    for (window, few) in [
        (WINDOW_MAX, None),
        (SMALL_WINDOW, None),
        (WINDOW_MAX, Some(12)),
        (SMALL_WINDOW, Some(7)),
    ] {
        for (inside, fields) in [
            (true, native()),
            (false, native()),
            (true, CALL.to_vec()),
            (false, CALL.to_vec()),
        ] {
            let what = format!("{}, window {window}, {few:?}, {inside}", fields[4].1);
            let backend = Backend::new();
            let world = World::new(&[&backend]);
            let mut caller = reading_slowly(world.address, window);
            let stream = caller.open(&fields, false);
            caller.data(stream, &message(b"hi"), true);
            let mut peer = backend.accept();
            let begun = peer.request().stream;
            peer.grpc_head(begun);
            let count = match few {
                None => fill(&mut peer, begun),
                Some(count) => {
                    for number in 0..count {
                        peer.data(begun, &numbered(number), false);
                    }
                    count
                }
            };
            if inside {
                peer.data(begun, &numbered(count)[..HALF], false);
            }
            peer.finish();
            let early = few.map(|_| world.record());

            let (mut body, mut trailers, mut reset) = (Vec::new(), Vec::new(), None);
            let mut ended = false;
            while !ended {
                match caller.next() {
                    Heard::Head { fields, end, .. } => {
                        trailers = fields;
                        ended = end;
                    }
                    Heard::Data { bytes, end, .. } => {
                        if !bytes.is_empty() && window == SMALL_WINDOW && !end {
                            // Nobody hears it any more where the end is on its way already.
                            let more = (bytes.len() as u32).to_be_bytes();
                            caller.try_raw(&frame(WINDOW_UPDATE, 0, stream, &more));
                        }
                        body.extend(bytes);
                        ended = end;
                    }
                    Heard::Reset { code, .. } => {
                        reset = Some(code);
                        ended = true;
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
            let whole: Vec<u8> = (0..count).flat_map(numbered).collect();
            assert!(
                body.starts_with(&whole),
                "{what}: {} of {} bytes arrived",
                body.len(),
                whole.len()
            );
            let record = early.unwrap_or_else(|| world.record());
            assert_eq!(record.reason, Reason::BackendClosed, "{what}");
            assert_eq!(record.aborted, inside, "{what}");
            assert_eq!(record.response.messages, u64::from(count), "{what}");
            let rest = body[whole.len()..].escape_ascii().to_string();
            let status = trailers.iter().find(|(name, _)| name == "grpc-status");
            let status = status.map(|(_, value)| value.as_str());
            match (inside, fields == CALL) {
                (true, _) => assert_eq!(reset, Some(INTERNAL_ERROR), "{what}"),
                (false, true) => assert!(rest.contains("grpc-status:14"), "{what}: {rest}"),
                (false, false) => assert_eq!((status, &*rest), (Some("14"), ""), "{what}"),
            }
        }
    }
}

#[test]
fn u_p8_an_answer_that_is_cut_and_waits_for_its_reader_costs_no_turns() {
    // What is left of each lies elsewhere: with `h2`, behind its window, or in the socket alone.
    const STEP: usize = 10_000;
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut callers = Vec::new();
    for (window, bytes) in [(0, STEP), (0, 6 * STEP), (SMALL_WINDOW, 8 * STEP)]
        .into_iter()
        .chain((1..=12).map(|steps| (WINDOW_MAX, steps * STEP)))
    {
        let mut caller = reading_slowly(world.address, window);
        // Its request goes on, so that there are two things to wait for.
        let path = format!("/demo.Greeter/{bytes}");
        let mut fields = native();
        fields[2].1 = &path;
        caller.open(&fields, false);
        callers.push(caller);
    }
    let mut peer = backend.accept_turning(|| world.turn());
    let mut begun = BTreeMap::new();
    while begun.len() < callers.len() {
        world.turn();
        if let Some(Seen::Head { stream, fields, .. }) = peer.next_within(Duration::from_millis(5))
        {
            let path = fields.into_iter().find(|(name, _)| name == ":path");
            let bytes = path.and_then(|(_, path)| path.rsplit('/').next()?.parse().ok());
            begun.insert(stream, bytes.expect("a number"));
        }
    }
    for (&stream, &bytes) in &begun {
        peer.grpc_head(stream);
        // The message would be longer.
        let all = message(&vec![7; bytes]);
        for piece in all[..bytes].chunks(STEP) {
            peer.data(stream, piece, false);
            (0..4).for_each(|_| world.turn());
        }
    }
    peer.finish();
    for _ in &callers {
        let record = world.turn_until_record();
        assert_eq!(
            (record.reason, record.aborted),
            (Reason::BackendClosed, true)
        );
    }
    // Longer than what comes of their requests is waited for.
    world.turns_within(Duration::from_millis(1_500));
    let turns = world.turns_within(Duration::from_millis(500));
    assert!(turns <= 20, "it spins: {turns} turns");
    assert_eq!(world.core.census().0, callers.len(), "nobody was given up");
    drop(callers);
    world.stop();
    assert!(world.core.is_empty());
}
