//! What a client can make its connection hold: never more than 256 KiB besides what its open streams may hold.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;
use std::{iter, thread};

use allocation_counter::measure;
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Seen};
use crate::caller::{CALL, Caller, call_with, head, head_of};
use crate::client::{Client, message, request};
use crate::frames::{
    CONTINUATION, DATA, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, PRIORITY, WINDOW_MAX,
    block, frame,
};
use crate::world::{Plan, Stepped};

/// Besides its open streams, bytes.
const HELD_MAX: i64 = 256 << 10;
/// What an open stream may hold, bytes.
const BUFFER_PER_STREAM: i64 = 256 << 10;
/// What a stream that has carried no content holds, bytes.
const BARE: i64 = 8 << 10;
/// What a backend's stream may send ahead, bytes.
const BACKEND_WINDOW: usize = 128 << 10;

/// What a core holds at most more than before while a client says that and reads nothing, bytes.
fn held(settings: &[(u16, u32)], bytes: Vec<u8>) -> i64 {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut first = Caller::new(world.address);
    first.raw(&head(1, &CALL, true));
    let mut peer = backend.accept_turning(|| world.turn());
    let served = thread::spawn(move || answer_at_length(&mut peer));
    drop(first);
    // Once beforehand, so that what the core makes once and keeps is there.
    attack(&mut world, settings, bytes.clone());
    let held = attack(&mut world, settings, bytes);
    world.stop();
    assert!(world.core.is_empty());
    served.join().expect("it answers");
    held
}

/// Whatever is asked is answered without end, as far as the windows go.
fn answer_at_length(peer: &mut Peer) {
    const PIECE: usize = 16 << 10;
    let piece = frame(DATA, 0, 0, &message(&vec![7; PIECE - 5]));
    let mut left = BTreeMap::new();
    while let Some(seen) = peer.next_or_windows(Duration::from_secs(3)) {
        match seen {
            Ok((stream, more)) => {
                if let Some(left) = left.get_mut(&stream) {
                    *left += more as usize;
                }
            }
            Err(Seen::Head { stream, .. }) => {
                peer.grpc_head(stream);
                left.insert(stream, BACKEND_WINDOW);
            }
            Err(Seen::Reset { stream, .. }) => {
                left.remove(&stream);
            }
            Err(Seen::End) => return,
            Err(_) => {}
        }
        for (stream, left) in &mut left {
            while *left >= PIECE {
                *left -= PIECE;
                let mut piece = piece.clone();
                piece[5..9].copy_from_slice(&stream.to_be_bytes());
                if !peer.try_raw(&piece) {
                    return;
                }
            }
        }
    }
}

/// What the core holds more at most while that goes on; then the client leaves.
fn attack(world: &mut Stepped, settings: &[(u16, u32)], bytes: Vec<u8>) -> i64 {
    let mut caller = Caller::narrow(world.address, 4 << 10, settings);
    let writer = thread::spawn(move || {
        caller.send_within(&bytes, Duration::from_millis(500));
        caller
    });
    let turns = Cell::new(0);
    let info = measure(|| {
        while turns.get() < 400 {
            thread::sleep(Duration::from_millis(2));
            world.turn();
            turns.set(turns.get() + 1);
        }
    });
    drop(writer.join().expect("it writes"));
    let until = std::time::Instant::now() + crate::world::PATIENCE;
    while world.core.census().0 > 0 {
        assert!(std::time::Instant::now() < until, "it is not let go");
        world.turn();
    }
    i64::try_from(info.bytes_max).expect("few")
}

#[test]
fn h2_19_no_attack_makes_a_connection_hold_much_besides_its_streams() {
    let fresh = |n: usize| 1 + 2 * n as u32;
    let each = |frames: &dyn Fn(u32) -> Vec<u8>, count: usize| {
        (0..count)
            .flat_map(|n| frames(fresh(n)))
            .collect::<Vec<u8>>()
    };
    let reset = |stream: u32| {
        let mut bytes = head(stream, &CALL, false);
        bytes.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
        bytes
    };
    let mut endless = frame(HEADERS, 0, 1, &block(&CALL));
    endless.extend(frame(CONTINUATION, 0, 1, &[0x82; 3_200]).repeat(19));
    let mut remembered = block(&[("x-large", &"v".repeat(3_900))]);
    remembered[0] = 0x40;
    let bomb = [&block(&CALL)[..], &remembered, &[0xbe; 15]].concat();
    let crumbs = [&block(&CALL)[..], &[0x40, 1, b'a', 0], &[0xbe; 1_400]].concat();
    let rows: Vec<(&str, i64, Vec<u8>)> = vec![
        ("rapid resets", 100 * BARE, each(&reset, 3_000)),
        ("PING", 0, frame(PING, 0, 0, &[7; 8]).repeat(100)),
        (
            "PRIORITY",
            0,
            each(&|n| frame(PRIORITY, 0, n, &[0, 0, 0, 0, 7]), 900),
        ),
        ("half a head", 0, endless),
        (
            "malformed heads",
            0,
            each(&|n| head(n, &call_with(&[("te", "gzip")]), true), 3_000),
        ),
        (
            "large heads",
            90 * BARE,
            each(&|n| head_of(n, &bomb, true), 90),
        ),
        (
            "small fields",
            90 * BARE,
            each(&|n| head_of(n, &crumbs, true), 90),
        ),
        (
            "refused streams",
            100 * BUFFER_PER_STREAM,
            each(&|n| head(n, &CALL, false), 190),
        ),
    ];
    for (name, streams, bytes) in rows {
        let held = held(&[(INITIAL_WINDOW_SIZE, 0)], bytes);
        let most = HELD_MAX + streams;
        assert!(held <= most, "{name}: {held} of {most} bytes");
    }
}

#[test]
fn h2_22_what_a_hundred_shut_windows_hold() {
    let mut bytes = Vec::new();
    for n in 0..100u32 {
        bytes.extend(head(1 + 2 * n, &CALL, false));
        bytes.extend(frame(DATA, END_STREAM, 1 + 2 * n, &message(b"hi")));
    }
    let held = held(&[(INITIAL_WINDOW_SIZE, 0)], bytes);
    assert!(held <= HELD_MAX + 100 * BUFFER_PER_STREAM, "{held} bytes");
}

#[test]
fn r_09_uploads_of_many_connections_share_a_budget() {
    const CONNECTIONS: usize = 8;
    const STREAMS: u32 = 100;
    /// What a core may hold of requests in all, bytes, and what so many connections and calls hold besides.
    const MOST: i64 = (32 << 20) + (16 << 20);
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = 32 << 20;
    let mut world = Stepped::new(plan, &[&backend]);
    let mut first = Caller::new(world.address);
    first.raw(&head(1, &CALL, true));
    let mut peer = backend.accept_turning(|| world.turn());
    // From now on it takes nothing.
    peer.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    let mut upload = Vec::new();
    for n in 0..STREAMS {
        let stream = 1 + 2 * n;
        upload.extend(head(stream, &CALL, false));
        // The beginning of a message of a megabyte, as far as the stream's first window goes.
        let mut content = vec![7; 65_535];
        content[..5].copy_from_slice(&[0, 0, 0x10, 0, 0]);
        for piece in content.chunks(16 << 10) {
            upload.extend(frame(DATA, 0, stream, piece));
        }
    }
    let mut callers: Vec<_> = (0..CONNECTIONS)
        .map(|_| (Caller::new(world.address), upload.clone()))
        .collect();
    // One in HTTP/1.1 comes before them all.
    let mut oldest = Client::new(world.address);
    oldest.send(&request("", &message(&[7; 1 << 20]))[..60_000]);
    let mut writers = Vec::with_capacity(CONNECTIONS);
    let mut answered = 0;
    let info = measure(|| {
        while !callers.is_empty() {
            for (mut caller, upload) in callers.drain(..CONNECTIONS / 2) {
                writers.push(thread::spawn(move || {
                    caller.send_within(&upload, Duration::from_secs(2));
                    (caller, upload)
                }));
            }
            while !writers.iter().all(thread::JoinHandle::is_finished) {
                world.turn();
            }
            (0..100).for_each(|_| world.turn());
            // Each is told something, and reads it at once.
            while let Some(seen) = peer.next_within(Duration::from_millis(10)) {
                if let Seen::Head { stream, .. } = seen {
                    peer.grpc_head(stream);
                    peer.data(stream, &message(b"well"), false);
                    answered += 1;
                }
            }
            (0..100).for_each(|_| world.turn());
            // What waits is old when it becomes too much.
            thread::sleep(Duration::from_millis(1100));
        }
    });
    // Who made it too much has gone, and nobody else.
    let gone: Vec<_> = iter::from_fn(|| world.record()).collect();
    assert!(!gone.is_empty(), "nobody was told of it");
    assert!(answered > CONNECTIONS, "{answered}");
    for own in &gone {
        let end = (own.reason, own.by, own.code);
        let expected = (Reason::Overloaded, Party::Proxy, Some(Code::UNAVAILABLE));
        assert_eq!(end, expected, "{own:?}");
        // It is a backend that takes nothing, and they read what they are told: they are told of this, too, and not cut.
        assert!(!own.aborted, "{own:?}");
    }
    assert!(gone.len() < CONNECTIONS * STREAMS as usize, "all are gone");
    let (_, told) = oldest.chunked_start(message(b"well").len());
    assert_eq!(told, message(b"well"));
    let (told, whole) = oldest.chunked_rest();
    let text = told.escape_ascii().to_string();
    assert!(whole && text.contains("grpc-status:14"), "{text}");
    drop(writers);
    drop(peer);
    world.stop();
    assert!(world.core.is_empty());
    assert!(
        i64::try_from(info.bytes_max).expect("few") <= MOST,
        "{} bytes",
        info.bytes_max
    );
}

#[test]
fn r_09_what_a_socket_has_yet_to_take_is_held_too() {
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 50;
    const BUDGET: usize = 4 << 20;
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = BUDGET;
    let mut world = Stepped::new(plan, &[&backend]);
    let mut first = Caller::new(world.address);
    first.raw(&head(1, &CALL, true));
    let mut peer = backend.accept_turning(|| world.turn());
    let backend = thread::spawn(move || {
        while let Some(seen) = peer.next_within(Duration::from_secs(2)) {
            if let Seen::Data {
                stream, end: true, ..
            } = seen
            {
                peer.answer(stream, &message(&[7; 60_000]));
            }
        }
    });
    // Their windows are wide open, and nobody reads their sockets.
    let settings = [(INITIAL_WINDOW_SIZE, WINDOW_MAX)];
    let callers: Vec<Caller> = (0..CONNECTIONS)
        .map(|_| {
            let mut caller = Caller::narrow(world.address, 4 << 10, &settings);
            caller.window(0, WINDOW_MAX - 65_535);
            for _ in 0..STREAMS {
                caller.call(&message(b"hi"));
            }
            caller
        })
        .collect();
    let held = measure(|| {
        while !backend.is_finished() {
            world.turn();
        }
    });
    drop(callers);
    // Besides the budget: what their transports have staged, and the little that each call is.
    let staged = CONNECTIONS * (256 << 10);
    let most = (BUDGET + staged + CONNECTIONS * STREAMS * (8 << 10)) as u64;
    assert!(held.bytes_max < most, "{} of {most}", held.bytes_max);
    world.stop();
}

#[test]
fn r_08_half_a_head_holds_no_more_than_has_come_of_it() {
    const CLIENTS: usize = 50;
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.head_bytes_max = 64 << 10;
    let mut world = Stepped::new(plan, &[&backend]);
    // A field of no length for the table, and thousands of references to it, each a byte.
    let half = [&block(&CALL)[..], &[0x40, 1, b'a', 0], &[0xbe; 7_900]].concat();
    let half = frame(HEADERS, 0, 1, &half);
    let mut callers: Vec<_> = (0..CLIENTS).map(|_| Caller::new(world.address)).collect();
    (0..100).for_each(|_| world.turn());
    for caller in &mut callers {
        caller.raw(&half);
    }
    let info = measure(|| (0..200).for_each(|_| world.turn()));
    let each = info.bytes_current / CLIENTS as i64;
    assert!(each < 4 * half.len() as i64, "{each} for {}", half.len());
    drop(callers);
    world.stop();
}
