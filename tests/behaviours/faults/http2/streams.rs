//! Streams: resets that are asked for, too many of them, windows that are overrun or kept shut, and numbers that are none.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use wharf::wire::{Party, Reason};

use super::{Scene, assert_good, assert_told};
use crate::backend::{Peer, Seen};
use crate::caller::{CALL, Caller, Heard, call, call_with, head};
use crate::client::message;
use crate::frames::{
    CANCEL, DATA, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
    INITIAL_WINDOW_SIZE, NO_ERROR, PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM,
    WINDOW_MAX, WINDOW_UPDATE, frame,
};
use crate::world::{PATIENCE, Plan, Stepped};

/// Streams that a client may have open.
const STREAMS_MAX: usize = 100;
/// What may be held for a stream in all, bytes.
const BUFFER_PER_STREAM: usize = 256 << 10;

/// Resets that a client may ask for in the life of its connection.
const ERRORS: usize = 100;

/// Makes calls and breaks each of them with those frames until it is turned out. So many are reset, each with its code, and the
/// next one is the last; each is taken back at the backend at once.
fn made_to_reset(resets: &[u32], last_code: u32, frames: impl Fn(u32) -> Vec<u8>) {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let mut heard = Vec::new();
    let last = loop {
        let stream = caller.open(&CALL, false);
        let begun = scene.begun().stream;
        caller.raw(&frames(stream));
        let next = caller.next();
        // Whatever the caller is told, the backend is told that it is over.
        scene.peer.assert_reset(begun, CANCEL);
        match next {
            Heard::Reset { stream: own, code } => {
                assert_eq!(own, stream);
                heard.push(code);
            }
            Heard::GoAway { code, .. } => break code,
            other => panic!("after {heard:?}: {other:?}"),
        }
        assert!(heard.len() <= resets.len(), "{heard:?} were asked for");
    };
    assert_eq!((&*heard, last), (resets, last_code));
    assert_eq!(caller.last_words(), []);
    scene.peer.assert_quiet();
    let records = scene.end();
    let (refused, calls): (Vec<_>, Vec<_>) = records.iter().partition(|own| own.refusal.is_some());
    assert_eq!(calls.len(), resets.len() + 1, "each call has its line");
    assert!(calls.iter().all(|own| own.by == Party::Downstream));
    assert_eq!(refused.len(), 1, "and one tells why: {refused:?}");
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

#[test]
fn h2_05_a_window_that_grows_by_nothing() {
    // A fault of the stream; an endpoint may take it for one of the connection (RFC 9113 §5.4.2).
    made_to_reset(&[], PROTOCOL_ERROR, |stream| window_update(stream, 0));
}

#[test]
fn h2_05_b_windows_beyond_the_largest() {
    let resets = [FLOW_CONTROL_ERROR; ERRORS];
    made_to_reset(&resets, ENHANCE_YOUR_CALM, |stream| {
        window_update(stream, WINDOW_MAX)
    });
}

#[test]
fn h2_05_c_priority_of_a_wrong_length() {
    made_to_reset(&[], FRAME_SIZE_ERROR, |stream| {
        frame(PRIORITY, 0, stream, &[0; 4])
    });
}

#[test]
fn h2_05_d_priority_on_itself() {
    let resets = [PROTOCOL_ERROR; ERRORS];
    made_to_reset(&resets, ENHANCE_YOUR_CALM, |stream| {
        frame(
            PRIORITY,
            0,
            stream,
            &[&stream.to_be_bytes()[..], &[7]].concat(),
        )
    });
}

#[test]
fn h2_05_e_a_head_behind_the_end() {
    made_to_reset(&[], PROTOCOL_ERROR, |stream| {
        let mut frames = frame(DATA, END_STREAM, stream, &message(b"hi"));
        frames.extend(head(stream, &CALL, true));
        frames
    });
}

#[test]
fn h2_05_f_data_behind_the_end() {
    made_to_reset(&[], PROTOCOL_ERROR, |stream| {
        let mut frames = frame(DATA, END_STREAM, stream, &message(b"hi"));
        frames.extend(frame(DATA, 0, stream, b"more"));
        frames
    });
}

#[test]
fn h2_06_streams_beyond_the_limit_are_refused_and_a_flood_of_them_ends_the_connection() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let open: Vec<u32> = (0..STREAMS_MAX)
        .map(|_| caller.open(&CALL, false))
        .collect();
    let begun: Vec<u32> = open.iter().map(|_| scene.begun().stream).collect();
    let refused = caller.open(&CALL, false);
    caller.assert_reset(refused, REFUSED_STREAM);
    assert_eq!(scene.world.record().refusal, Some("bad_http"));
    // A place that is free is given again.
    caller.data(open[0], &message(b"hi"), true);
    assert_eq!(scene.peer.body(begun[0]), message(b"hi"));
    scene.peer.answer(begun[0], &message(b"well"));
    assert_good(&caller.answer(open[0]), b"well");
    let again = caller.open(&CALL, false);
    assert!(again > refused);
    scene.begun();
    assert_eq!(scene.world.record().reason, Reason::Ok);
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        bytes.extend(head(caller.fresh(), &CALL, false));
    }
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    for _ in 0..STREAMS_MAX {
        assert!(matches!(
            scene.peer.next(),
            Seen::Reset { code: CANCEL, .. }
        ));
    }
    scene.peer.assert_quiet();
    let records = scene.end();
    let calls = records.iter().filter(|own| own.refusal.is_none()).count();
    assert_eq!(calls, STREAMS_MAX);
    assert!(
        records.len() - calls <= 2,
        "{} lines",
        records.len() - calls
    );
}

/// What a backend's stream may send ahead, bytes.
const WINDOW: usize = 128 << 10;
/// What it sends at a time, bytes.
const PIECE: usize = 16 << 10;

/// All that the backend can send of one large message on that stream until nobody takes more. It ends inside the message, so that
/// nothing could be said behind it.
fn pour(scene: &mut Scene, stream: u32) -> usize {
    const PATIENCE: Duration = Duration::from_millis(300);
    let all = message(&vec![7; 3 << 20]);
    let (mut left, mut pieces) = (WINDOW, all.chunks(PIECE));
    scene.peer.grpc_head(stream);
    loop {
        while left >= PIECE {
            left -= PIECE;
            let piece = pieces.next().expect("all of it was taken for nobody");
            scene.peer.data(stream, piece, false);
        }
        match scene.peer.next_or_window(stream, PATIENCE) {
            Some(Ok(more)) => left += more as usize,
            _ => return all.len() - pieces.map(<[u8]>::len).sum::<usize>(),
        }
    }
}

#[test]
fn h2_18_a_window_that_is_open_and_a_socket_that_is_not_read() {
    let mut plan = Plan::default();
    plan.limits.stall_timeout = Duration::from_secs(2);
    let mut scene = Scene::with(plan);
    let settings = [(INITIAL_WINDOW_SIZE, WINDOW_MAX)];
    let mut caller = Caller::narrow(scene.world.address, 4 << 10, &settings);
    caller.window(0, WINDOW_MAX - 65_535);
    caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    let taken = pour(&mut scene, begun);
    // A stream's share, what is staged, and what the kernel takes.
    assert!(
        taken <= BUFFER_PER_STREAM + (1 << 20),
        "{taken} bytes were taken for nobody"
    );
    scene.peer.assert_reset(begun, CANCEL);
    let record = scene.world.record();
    // Whether its window or its socket is what has stood still for so long.
    assert_eq!(
        (record.reason, record.by, record.aborted),
        (Reason::ClientTooSlow, Party::Downstream, true)
    );
    scene.end();
}

#[test]
fn h2_19_faults_that_ask_for_answers_nobody_reads_end_the_connection() {
    let scene = Scene::new();
    let mut caller = Caller::narrow(scene.world.address, 4 << 10, &[]);
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        bytes.extend(head(caller.fresh(), &call_with(&[("te", "gzip")]), true));
    }
    caller.send_within(&bytes, Duration::from_secs(5));
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    let records = scene.end();
    assert!(records.len() <= 102, "{} lines", records.len());
}

#[test]
fn h2_21_who_sends_more_than_the_window_is_cut() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    // Its backend takes as much as its own window allows; more than both is held for nobody.
    let mut prefix = message(b"");
    prefix[1..].copy_from_slice(&(1u32 << 20).to_be_bytes());
    caller.data(stream, &prefix, false);
    let piece = vec![7; 16 << 10];
    let mut sent = 0;
    let code = loop {
        // Never a look at the windows.
        let taken = caller.try_raw(&frame(DATA, 0, stream, &piece).repeat(8));
        sent += 8 * piece.len();
        assert!(taken && sent <= 64 << 20, "it takes all");
        match caller.next_within(Duration::from_millis(1)) {
            None => {}
            Some(Heard::Reset { code, .. } | Heard::GoAway { code, .. }) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, FLOW_CONTROL_ERROR, "after {sent} bytes");
    let mut reset = false;
    while !reset {
        match scene.peer.next() {
            Seen::Data { end: false, .. } => {}
            Seen::Reset { stream, code } => {
                assert_eq!((stream, code), (begun, CANCEL));
                reset = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let records = scene.end();
    assert_eq!(
        records.iter().filter(|own| own.refusal.is_none()).count(),
        1
    );
}

#[test]
fn h2_22_a_hundred_streams_whose_windows_stay_shut_hold_little_and_are_given_up() {
    let mut plan = Plan::default();
    plan.limits.stall_timeout = Duration::from_secs(3);
    let mut scene = Scene::with(plan);
    let mut caller = Caller::with(scene.world.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        caller.call(&message(b"hi"));
        let stream = scene.peer.request().stream;
        scene.peer.grpc_head(stream);
        streams.push(stream);
    }
    // As much as the proxy's windows allow.
    let piece = message(&vec![7; PIECE - 5]);
    let mut left = BTreeMap::new();
    for &stream in &streams {
        left.insert(stream, WINDOW);
    }
    let mut taken = 0;
    loop {
        for (&stream, left) in &mut left {
            while *left >= PIECE {
                *left -= PIECE;
                taken += PIECE;
                scene.peer.data(stream, &piece, false);
            }
        }
        match scene.peer.next_or_windows(Duration::from_millis(300)) {
            Some(Ok((0, _))) => {}
            Some(Ok((stream, more))) => {
                *left.get_mut(&stream).expect("one of them") += more as usize
            }
            Some(Err(Seen::Reset { .. })) | None => break,
            Some(Err(other)) => panic!("{other:?}"),
        }
    }
    let each = taken / STREAMS_MAX;
    assert!(
        each <= BUFFER_PER_STREAM,
        "{each} bytes were taken for nobody"
    );
    // All of them had more to say than that, and were held up.
    assert!(each > WINDOW, "{each} bytes held nobody up");
    for _ in 0..STREAMS_MAX {
        let record = scene.world.record();
        assert_eq!(
            (record.reason, record.by),
            (Reason::ClientTooSlow, Party::Downstream)
        );
        assert!(record.aborted);
    }
    // Each is reset, with CANCEL, and their places are free.
    let mut resets = 0;
    while resets < STREAMS_MAX {
        match caller.next() {
            Heard::Reset { code: CANCEL, .. } => resets += 1,
            Heard::Head { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    caller.settings(&[(INITIAL_WINDOW_SIZE, 65_535)]);
    // What else the peer has seen are the resets of those streams.
    let stream = caller.call(&message(b"hi"));
    let begun = loop {
        match scene.peer.next() {
            Seen::Reset { .. } => {}
            Seen::Head { stream, .. } => break stream,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scene.peer.body(begun), message(b"hi"));
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    scene.end();
}

#[test]
fn h2_23_numbers_that_no_stream_has_end_the_connection() {
    for (name, first, second) in [
        ("even", None, 2),
        ("zero", None, 0),
        ("smaller", Some(5), 3),
        ("the same again", Some(5), 5),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        if let Some(first) = first {
            caller.raw(&call(first, &message(b"hi")));
            let begun = scene.peer.request().stream;
            scene.peer.answer(begun, &message(b"well"));
            assert_good(&caller.answer(first), b"well");
            assert_eq!(scene.world.record().reason, Reason::Ok);
        }
        caller.raw(&head(second, &CALL, true));
        let code = caller.last_words().last().map(|&(_, code)| code);
        assert_eq!(code, Some(PROTOCOL_ERROR), "{name}");
        scene.peer.assert_quiet();
        assert_eq!(scene.end().len(), 1, "{name}");
    }
}

#[test]
fn h2_23_before_its_numbers_run_out_a_client_is_asked_to_come_again() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let late = (1u32 << 31) - 65_535 + 2;
    caller.raw(&call(late, &message(b"hi")));
    let begun = scene.peer.request().stream;
    // It is served, and so is who comes before the second word.
    scene.peer.answer(begun, &message(b"well"));
    let mut answer = crate::caller::Answer::default();
    let mut last = Vec::new();
    loop {
        match caller.next() {
            Heard::Head { fields, .. } => answer.fields.extend(fields),
            Heard::Data { bytes, end, .. } => {
                answer.body.extend(bytes);
                answer.whole = end;
            }
            Heard::GoAway { last: id, code } => last.push((id, code)),
            Heard::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_good(&answer, b"well");
    assert_eq!(last, [(WINDOW_MAX, NO_ERROR), (late, NO_ERROR)]);
    assert_eq!(scene.world.record().reason, Reason::Ok);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_30_a_caller_who_resets_is_gone_in_the_same_turn() {
    let backend = crate::backend::Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut caller = Caller::new(world.address);
    let turn = |world: &mut Stepped| (0..4).for_each(|_| world.turn());
    turn(&mut world);
    // In the middle of a request, in the middle of an answer, and between the two.
    caller.raw(&head(1, &CALL, false));
    let mut peer = backend.accept_turning(|| world.turn());
    turn(&mut world);
    caller.raw(&head(3, &CALL, false));
    caller.data(3, &message(b"hi"), true);
    caller.raw(&head(5, &CALL, false));
    caller.data(5, &message(b"hi"), true);
    let until = std::time::Instant::now() + PATIENCE;
    while world.core.census().1 < 3 {
        assert!(std::time::Instant::now() < until);
        world.turn();
    }
    turn(&mut world);
    let mut begun = Vec::new();
    while begun.len() < 3 {
        if let Some(Seen::Head { stream, .. }) = peer.next_within(Duration::from_secs(1)) {
            begun.push(stream);
        }
        world.turn();
    }
    peer.grpc_head(begun[1]);
    peer.data(begun[1], &message(b"some")[..7], false);
    turn(&mut world);
    for (left, stream) in [(2, 1), (1, 3), (0, 5)] {
        caller.reset(stream, CANCEL);
        // The kernel may take a moment to bring it; then one turn is enough.
        while world.core.census().1 > left {
            assert!(std::time::Instant::now() < until, "{left} are still open");
            world.turn();
        }
        let record = world.record().expect("in that same turn");
        assert_eq!(
            (record.reason, record.by),
            (Reason::ClientLeft, Party::Downstream)
        );
        // And the backend's socket was told before the turn was over: no further one is made.
        let told = loop {
            match peer.next() {
                Seen::Data { .. } | Seen::Head { .. } => {}
                other => break other,
            }
        };
        let index = usize::from(stream == 3) + 2 * usize::from(stream == 5);
        assert_eq!(
            told,
            Seen::Reset {
                stream: begun[index],
                code: CANCEL
            }
        );
    }
    assert_eq!(world.core.census(), (1, 0, 1));
    world.stop();
    assert!(world.core.is_empty());
}

#[test]
fn h2_31_a_client_that_says_goodbye_has_its_open_calls_served() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    caller.frame(GOAWAY, 0, 0, &[0; 8]);
    caller.assert_quiet();
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(scene.world.record().reason, Reason::Ok);
    assert!(
        caller
            .last_words()
            .iter()
            .all(|&(_, code)| code == NO_ERROR)
    );
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_34_data_behind_our_reset_is_ignored_and_its_window_comes_back() {
    // Of all streams together more than the connection's window.
    const STREAMS: usize = 95;
    const ROUNDS: usize = 4;
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let crumbs: Vec<_> = (0..200).map(|_| ("cookie", "a=b")).collect();
    let too_many = call_with(&crumbs);
    let piece = vec![7; 16 << 10];
    for stream in 0..STREAMS {
        let own = caller.fresh();
        // Our reset leaves at the end of the turn that reads all of this.
        let mut bytes = head(own, &too_many, false);
        for _ in 0..ROUNDS {
            bytes.extend(frame(DATA, 0, own, &piece[..16_000]));
        }
        caller.raw(&bytes);
        caller.assert_reset(own, ENHANCE_YOUR_CALM);
        assert_eq!(scene.world.record().refusal, Some("bad_http"), "{stream}");
    }
    // 6.08 MB of 6.55 are gone by if nothing came back; the rest of this would not fit.
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    let body = message(&vec![7; 2_000_000]);
    let expected = body.clone();
    let mut peer = scene.peer;
    let reader = thread::spawn(move || (peer.body(begun), peer));
    caller.upload(stream, &body, 16_000, None);
    caller.data(stream, b"", true);
    let (heard, peer) = reader.join().expect("it reads");
    assert!(heard == expected);
    scene.peer = peer;
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(scene.world.record().reason, Reason::Ok);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_39_one_stream_at_full_rate_starves_nobody() {
    const OTHERS: usize = 99;
    /// What the fast one carries while the others call, bytes.
    const FLOW: usize = 16 << 20;
    let Scene {
        world,
        mut peer,
        bystander: _bystander,
        _backend,
        ..
    } = Scene::new();
    let settings = [(INITIAL_WINDOW_SIZE, WINDOW_MAX)];
    let mut caller = Caller::narrow(world.address, 64 << 10, &settings);
    caller.window(0, WINDOW_MAX - 65_535);
    let fast = caller.call(&message(b"much"));
    let begun = peer.request().stream;
    let backend = thread::spawn(move || {
        pour_and_answer(&mut peer, begun);
        peer
    });
    let (mut flown, mut most) = (0, 0);
    while flown < FLOW {
        let mut asked: BTreeMap<u32, Vec<u8>> = (0..OTHERS)
            .map(|_| (caller.call(&message(b"hi")), Vec::new()))
            .collect();
        while !asked.is_empty() {
            match caller.next() {
                Heard::Head { .. } => {}
                Heard::Data { stream, bytes, end } if stream == fast => {
                    flown += bytes.len();
                    assert!(!end && flown <= 16 * FLOW, "the others starve");
                }
                Heard::Data { stream, bytes, end } => {
                    let body = asked.get_mut(&stream).expect("one of them");
                    body.extend(bytes);
                    if end {
                        let payload = body[5..].first_chunk().expect("a number");
                        let before = usize::try_from(u64::from_be_bytes(*payload)).expect("few");
                        most = most.max(flown.saturating_sub(before));
                        asked.remove(&stream);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        // Their places are free again.
        for _ in 0..OTHERS {
            assert_eq!(world.record().reason, Reason::Ok);
        }
    }
    // Of what the backend said behind a small answer no more has overtaken it than may be sent ahead.
    assert!(most <= WINDOW, "{most} bytes overtook an answer");
    caller.reset(fast, CANCEL);
    backend.join().expect("it is told");
    assert_eq!(world.record().reason, Reason::ClientLeft);
}

/// Sends on one stream as much as it may, and answers all others at once with how much that was until then. Until it is reset.
fn pour_and_answer(peer: &mut Peer, fast: u32) {
    let piece = message(&vec![7; PIECE - 5]);
    let (mut left, mut sent) = (WINDOW, 0u64);
    peer.grpc_head(fast);
    loop {
        while left >= PIECE {
            left -= PIECE;
            sent += PIECE as u64;
            peer.data(fast, &piece, false);
        }
        match peer.next_or_window(fast, PATIENCE).expect("it goes on") {
            Ok(more) => left += more as usize,
            Err(Seen::Data {
                stream, end: true, ..
            }) => peer.answer(stream, &message(&sent.to_be_bytes())),
            Err(Seen::Reset { stream, .. }) if stream == fast => return,
            Err(Seen::Head { .. } | Seen::Data { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The next whole request, where calls are taken back meanwhile.
fn request_among_resets(peer: &mut Peer) -> (u32, Vec<u8>) {
    let mut own = None;
    let mut body = Vec::new();
    loop {
        match peer.next() {
            Seen::Reset { code: CANCEL, .. } => {}
            Seen::Head { stream, .. } if own.is_none() => own = Some(stream),
            Seen::Data { stream, bytes, end } if own == Some(stream) => {
                body.extend(bytes);
                if end {
                    return (stream, body);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn r_09_who_reads_nothing_goes_before_who_reads() {
    const STALLED: usize = 60;
    const ANSWER: usize = 100_000;
    const BUDGET: usize = 4 << 20;
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = BUDGET;
    let mut scene = Scene::with(plan);
    let mut stalled = Caller::with(scene.world.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    for round in 0..STALLED {
        stalled.call(&message(b"much"));
        let (stream, _) = request_among_resets(&mut scene.peer);
        scene.peer.grpc_head(stream);
        // Half of them are whole, and wait for window when their call has long ended.
        let whole = round % 2 == 1;
        let length = if whole { ANSWER / 2 } else { ANSWER };
        scene.peer.data(stream, &message(&vec![7; length]), false);
        if whole {
            scene.peer.trailers(stream, &[("grpc-status", "0")]);
        }
    }
    // Whoever reads is served all the while, also with what is more than a little.
    let mut caller = scene.caller();
    caller.window(0, 1 << 30);
    for _ in 0..20 {
        let stream = caller.call(&message(&[7; 10_000]));
        let (begun, body) = request_among_resets(&mut scene.peer);
        assert_eq!(body.len(), 10_005);
        scene.peer.answer(begun, &message(&[7; 30_000]));
        assert_good(&caller.answer(stream), &[7; 30_000]);
    }
    // Those who went were told of, and were not all.
    let mut sent_away = 0;
    for record in scene.end() {
        match record.reason {
            Reason::Ok => {}
            Reason::Overloaded => sent_away += 1,
            other => panic!("{other:?}: {record:?}"),
        }
    }
    assert!((1..STALLED).contains(&sent_away), "{sent_away}");
}

#[test]
fn r_09_answers_that_nobody_reads_go_one_by_one_and_not_who_reads_slowly() {
    // Their windows are shut; or they are open, and the sockets are full.
    for (window, socket) in [(0, 1 << 20), (WINDOW_MAX, 4 << 10)] {
        cut_one_by_one(window, socket);
    }
}

fn cut_one_by_one(window: u32, socket: usize) {
    const ANSWER: usize = 50_000;
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = 4 << 20;
    let mut scene = Scene::with(plan);
    let settings = [(INITIAL_WINDOW_SIZE, window)];
    let mut stalled = Caller::narrow(scene.world.address, socket, &settings);
    stalled.window(0, WINDOW_MAX - 65_535);
    let mut leave = |scene: &mut Scene, answers: usize| {
        for _ in 0..answers {
            stalled.call(&message(b"much"));
            let (stream, _) = request_among_resets(&mut scene.peer);
            // Their calls end; what was said waits for window, stream by stream.
            scene.peer.answer(stream, &message(&[7; ANSWER]));
        }
    };
    leave(&mut scene, 70);
    // Somebody with a narrow window has more waiting than is little, and not for long.
    let mut slow = scene.caller();
    let stream = slow.call(&message(b"hi"));
    let (begun, _) = request_among_resets(&mut scene.peer);
    scene.peer.answer(begun, &message(&[7; 90_000]));
    leave(&mut scene, 25);
    slow.window(0, 1 << 20);
    slow.window(stream, 1 << 20);
    let answer = slow.answer(stream);
    assert_eq!((answer.whole, answer.reset), (true, None));
    assert_good(&answer, &[7; 90_000]);
    assert!(scene.end().iter().all(|own| own.reason == Reason::Ok));
}

#[test]
fn r_09_who_reads_does_not_pay_for_uploads_that_stand_still() {
    const UPLOAD: usize = 65_535;
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = 4 << 20;
    let mut scene = Scene::with(plan);
    let mut reader = scene.caller();
    let stream = reader.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    // The backend takes nothing from now on.
    scene.peer.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    let mut hog = scene.caller();
    let upload = |hog: &mut Caller, calls: usize| {
        let mut bytes = Vec::new();
        for _ in 0..calls {
            let stream = hog.fresh();
            bytes.extend(head(stream, &CALL, false));
            let mut content = vec![7; UPLOAD];
            content[..5].copy_from_slice(&[0, 0, 0x10, 0, 0]);
            let pieces = content.chunks(16 << 10);
            bytes.extend(pieces.flat_map(|piece| frame(DATA, 0, stream, piece)));
        }
        hog.send_within(&bytes, Duration::from_secs(2));
    };
    // Some may come before the backend's word, and pass.
    upload(&mut hog, 62);
    thread::sleep(Duration::from_millis(100));
    // A narrow window keeps the answer waiting for a moment each time that it is used up.
    scene.peer.grpc_head(begun);
    for piece in message(&vec![7; 120_000]).chunks(16_000) {
        scene.peer.data(begun, piece, false);
    }
    scene.peer.trailers(begun, &[("grpc-status", "0")]);
    thread::sleep(Duration::from_millis(20));
    upload(&mut hog, 30);
    let mut read = 0;
    loop {
        match reader.next() {
            Heard::Head { .. } => {}
            Heard::Data { bytes, end, .. } => {
                read += bytes.len();
                if end {
                    break;
                }
                let more = bytes.len() as u32;
                reader.window(stream, more);
                reader.window(0, more);
            }
            other => panic!("after {read} bytes: {other:?}"),
        }
    }
    assert!(read > 120_000, "{read}");
    drop(hog);
    let records = scene.end();
    let of = |reason: Reason| records.iter().filter(|own| own.reason == reason).count();
    assert!(of(Reason::Overloaded) > 0, "{records:?}");
    assert_eq!(of(Reason::Ok), 1, "{records:?}");
}

#[test]
fn h2_34_a_refused_upload_may_come_to_its_end_for_seconds() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let open = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    let elsewhere: Vec<_> = CALL
        .iter()
        .map(|&(name, value)| {
            if name == "content-type" {
                (name, "text/plain")
            } else {
                (name, value)
            }
        })
        .collect();
    let refused: Vec<u32> = (0..60)
        .map(|_| {
            let stream = caller.open(&elsewhere, false);
            caller.answer(stream);
            stream
        })
        .collect();
    // Each is reset when its time is over.
    for _ in &refused {
        assert!(matches!(caller.next(), Heard::Reset { code: NO_ERROR, .. }));
    }
    // `h2` would have forgotten them after a second, and each word on one would be an error of its client.
    thread::sleep(Duration::from_millis(1200));
    for _ in 0..3 {
        for &stream in &refused {
            caller.data(stream, b"late", false);
        }
    }
    caller.data(open, &message(b"hi"), true);
    assert_eq!(scene.peer.body(begun), message(b"hi"));
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(open), b"well");
}

#[test]
fn u_32_who_leaves_in_the_turn_in_which_he_comes_calls_nobody() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    scene.assert_serves(&mut caller);
    let mut bytes = Vec::new();
    for _ in 0..50 {
        let stream = caller.fresh();
        bytes.extend(call(stream, &message(b"hi")));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    caller.raw(&bytes);
    for _ in 0..50 {
        let record = scene.world.record();
        assert_eq!(
            (record.reason, record.by),
            (Reason::ClientLeft, Party::Downstream)
        );
    }
    scene.peer.assert_quiet();
    scene.assert_serves(&mut caller);
}
