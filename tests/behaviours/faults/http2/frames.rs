//! Frames that are none, and frames without end.

use std::time::Instant;

use wharf::wire::Reason;

use super::{BROKEN, Scene, assert_told};
use crate::backend::{Backend, Seen};
use crate::caller::{CALL, Caller, Heard, call, head, head_of};
use crate::client::{Client, message};
use crate::frames::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_MAX, WINDOW_UPDATE, block, frame,
    settings_payload,
};
use crate::world::{PATIENCE, Plan, Stepped};

#[test]
fn h2_02_who_does_not_begin_with_settings_is_turned_out() {
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, b""),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(0x16, 0, 0, b"nobody knows it"),
        head(1, &CALL, true),
        frame(DATA, 0, 1, b""),
    ] {
        let scene = Scene::new();
        let mut caller = Caller::silent(scene.world.address);
        caller.raw(&[&PREFACE[..], &first].concat());
        caller.assert_turned_out(PROTOCOL_ERROR);
        scene.assert_told_once("it does not begin with SETTINGS");
    }
}

#[test]
fn h2_02_a_preface_that_is_none_is_read_as_http1_and_refused() {
    for (preface, status) in [
        (&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], "505"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "505"),
        (b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", "505"),
        (b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ] {
        let scene = Scene::new();
        let mut client = Client::new(scene.world.address);
        client.send(preface);
        let answer = client.answer();
        let text = preface.escape_ascii();
        assert!(
            answer.head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{text}: {}",
            answer.head
        );
        client.assert_closed();
        let records = scene.end();
        assert_eq!(records.len(), 1, "{text}");
        assert_eq!(records[0].refusal, Some("bad_http"));
    }
}

#[test]
fn h2_03_a_frame_of_a_wrong_size_ends_the_connection() {
    let long = (16 << 10) + 1;
    for (name, bytes) in [
        ("DATA", frame(DATA, 0, 1, &vec![0; long])),
        ("HEADERS", frame(HEADERS, END_HEADERS, 3, &vec![0; long])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &vec![0; 16_386])),
        ("unknown", frame(0x77, 0, 0, &vec![0; long])),
        ("SETTINGS of 5", frame(SETTINGS, 0, 0, &[0; 5])),
        (
            "SETTINGS that acknowledges",
            frame(SETTINGS, ACK, 0, &[0; 6]),
        ),
        ("PING of 7", frame(PING, 0, 0, &[0; 7])),
        ("PING of 9", frame(PING, 0, 0, &[0; 9])),
        ("RST_STREAM of 3", frame(RST_STREAM, 0, 1, &[0; 3])),
        ("RST_STREAM of 5", frame(RST_STREAM, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE of 3", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("WINDOW_UPDATE of 5", frame(WINDOW_UPDATE, 0, 1, &[1; 5])),
        ("PRIORITY of 4", frame(PRIORITY, 0, 1, &[0; 4])),
        ("PRIORITY of 6", frame(PRIORITY, 0, 1, &[0; 6])),
        ("GOAWAY of 7", frame(GOAWAY, 0, 0, &[0; 7])),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        // It has a call open, which is lost with it.
        caller.raw(&head(1, &CALL, false));
        let stream = scene.begun().stream;
        caller.try_raw(&bytes);
        let last = caller.last_words();
        assert_eq!(last.last(), Some(&(1, FRAME_SIZE_ERROR)), "{name}");
        scene.peer.assert_reset(stream, CANCEL);
        let records = scene.end();
        assert_eq!(records.len(), 2, "{name}: {records:?}");
        assert_eq!(records[0].message, "a frame of a wrong size", "{name}");
        assert_eq!(records[1].reason, BROKEN, "{name}");
    }
}

/// Resets of calls without an answer that the gate forgives in one second.
const UNANSWERED_RESETS: usize = 100;

#[test]
fn h2_04_calls_that_are_reset_as_soon_as_they_are_made_end_the_connection() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let mut bytes = Vec::new();
    for _ in 0..5_000 {
        let stream = caller.fresh();
        bytes.extend(head(stream, &CALL, false));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    // Each call that has reached the backend is taken back there, and there are no more than the limit says.
    scene.peer.frame(PING, 0, 0, b"anything");
    let (mut opened, mut reset, mut pongs) = (0, 0, 0);
    while pongs < 2 {
        match scene.peer.next() {
            Seen::Head { .. } => opened += 1,
            Seen::Reset { code, .. } => {
                assert_eq!(code, CANCEL);
                reset += 1;
            }
            Seen::Pong => {
                pongs += 1;
                scene.peer.frame(PING, 0, 0, b"anything");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, reset, "each is taken back");
    assert!(opened <= UNANSWERED_RESETS + 1, "{opened} calls");
    let records = scene.end();
    let refused: Vec<_> = records.iter().filter(|own| own.refusal.is_some()).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let calls = records.len() - 1;
    assert!(calls <= UNANSWERED_RESETS + 1, "{calls} calls");
}

#[test]
fn h2_04_a_page_that_leaves_with_all_its_calls_open_is_no_flood() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    for _ in 0..2 {
        let streams: Vec<u32> = (0..40).map(|_| caller.open(&CALL, false)).collect();
        for _ in &streams {
            scene.begun();
        }
        for &stream in &streams {
            caller.reset(stream, CANCEL);
        }
        for _ in &streams {
            assert!(matches!(
                scene.peer.next(),
                Seen::Reset { code: CANCEL, .. }
            ));
            assert_eq!(scene.world.record().reason, Reason::ClientLeft);
        }
    }
    scene.assert_serves(&mut caller);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_07_a_head_without_end_ends_the_connection() {
    // Twenty small ones too many, or more bytes than any head may have.
    for piece in [1, 4 << 10, 16 << 10] {
        let scene = Scene::new();
        let mut caller = scene.caller();
        // A name of two megabytes begins.
        let mut bytes = frame(HEADERS, END_STREAM, 1, &[0x00, 0x7f, 0x81, 0xff, 0x7f]);
        for _ in 0..1_000 {
            bytes.extend(frame(CONTINUATION, 0, 1, &vec![b'a'; piece]));
        }
        caller.try_raw(&bytes);
        caller.assert_turned_out(ENHANCE_YOUR_CALM);
        let mut scene = scene;
        scene.peer.assert_quiet();
        assert_eq!(scene.end().len(), 1);
    }
}

#[test]
fn h2_08_frames_in_which_nothing_stands_end_the_connection() {
    // Empty DATA on an open stream.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    caller.try_raw(&frame(DATA, 0, stream, b"").repeat(1_000));
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    scene.peer.assert_reset(begun, CANCEL);
    let records = scene.end();
    assert_eq!(records[0].message, "it floods empty frames");
    assert_eq!(records[1].reason, BROKEN);
    assert_eq!(records.len(), 2);

    // Padding alone is as empty.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    caller.try_raw(&frame(DATA, PADDED, stream, &[9; 10]).repeat(1_000));
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    scene.peer.assert_reset(begun, CANCEL);
    assert_eq!(scene.end().len(), 2);

    // CONTINUATION without a byte.
    let scene = Scene::new();
    let mut caller = scene.caller();
    let mut bytes = frame(HEADERS, END_STREAM, 1, b"\x82");
    bytes.extend(frame(CONTINUATION, 0, 1, b"").repeat(1_000));
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    assert_eq!(scene.end().len(), 1);

    // HEADERS without a byte: no request at all.
    let scene = Scene::new();
    let mut caller = scene.caller();
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        bytes.extend(head_of(caller.fresh(), b"", true));
    }
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    assert!(!scene.end().is_empty());
}

#[test]
fn h2_08_some_empty_frames_are_nothing() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    caller.raw(&frame(DATA, 0, stream, b"").repeat(90));
    caller.data(stream, &message(b"hi"), true);
    let request = scene.peer.request();
    assert_eq!(request.body, message(b"hi"));
    scene.peer.answer(request.stream, &message(b"well"));
    super::assert_good(&caller.answer(stream), b"well");
    scene.end();
}

#[test]
fn h2_08_what_is_empty_is_no_less_wrong_inside_a_head_or_on_a_stream_that_has_not_begun() {
    let empty = |stream| frame(DATA, 0, stream, b"");
    let padding = |stream| frame(DATA, PADDED, stream, &[9; 10]);
    let head = block(&CALL);
    let inside = |middle: Vec<u8>| {
        [
            frame(HEADERS, END_STREAM, 3, &head[..10]),
            middle,
            frame(CONTINUATION, END_HEADERS, 3, &head[10..]),
        ]
        .concat()
    };
    for (name, bytes) in [
        ("nothing for another stream inside a head", inside(empty(1))),
        ("nothing for its own stream inside a head", inside(empty(3))),
        ("padding inside a head", inside(padding(1))),
        ("nothing on a stream to come", empty(3)),
        ("padding on a stream to come", padding(3)),
        ("nothing on a stream of ours", empty(2)),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let stream = caller.open(&CALL, false);
        let begun = scene.begun().stream;
        assert_eq!(stream, 1);
        caller.raw(&bytes);
        let last = caller.last_words();
        assert_eq!(last.last(), Some(&(1, PROTOCOL_ERROR)), "{name}");
        scene.peer.assert_reset(begun, CANCEL);
        scene.peer.assert_quiet();
        let records = scene.end();
        let reasons: Vec<_> = records.iter().map(|own| own.refusal).collect();
        assert_eq!(reasons.len(), 2, "{name}: {records:?}");
        assert!(reasons.contains(&Some("bad_http")), "{name}: {records:?}");
    }
}

#[test]
fn h2_16_a_flood_that_ends_with_its_connection_has_its_line() {
    let backend = Backend::new();
    for (flood, count, words) in [
        (frame(PING, 0, 0, &[7; 8]), 200, "it floods PING"),
        (frame(SETTINGS, 0, 0, b""), 100, "it floods SETTINGS"),
    ] {
        let mut world = Stepped::new(Plan::default(), &[&backend]);
        let mut caller = Caller::new(world.address);
        (0..4).for_each(|_| world.turn());
        // Both lie there when it is looked at.
        caller.raw(&flood.repeat(count));
        caller.finish();
        let record = world.turn_until_record();
        assert_told(&[record], &[words]);
        let until = Instant::now() + PATIENCE;
        while world.core.census().0 > 0 {
            assert!(Instant::now() < until, "it stays");
            world.turn();
        }
        assert!(world.record().is_none(), "one line is enough");
    }
}

#[test]
fn h2_16_floods_that_say_nothing_end_the_connection() {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]);
    for (flood, count, words) in [
        (frame(SETTINGS, 0, 0, b""), 100, "it floods SETTINGS"),
        (
            frame(SETTINGS, 0, 0, &settings_payload(&[(4, 100_000), (1, 0)])),
            100,
            "it floods SETTINGS",
        ),
        (frame(PING, 0, 0, &[7; 8]), 200, "it floods PING"),
        (priority, 2_000, "it floods frames that say nothing"),
        (
            frame(0x77, 0xff, 5, b"what"),
            2_000,
            "it floods frames that say nothing",
        ),
        (
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            2_000,
            "it floods frames that say nothing",
        ),
    ] {
        let scene = Scene::new();
        let mut caller = scene.caller();
        caller.try_raw(&flood.repeat(count));
        caller.assert_turned_out(ENHANCE_YOUR_CALM);
        scene.assert_told_once(words);
    }
}

#[test]
fn h2_16_as_much_as_a_lively_client_says_is_no_flood() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    caller.raw(&frame(PING, 0, 0, &[7; 8]).repeat(60));
    caller.raw(&frame(SETTINGS, 0, 0, &settings_payload(&[(4, 70_000)])).repeat(20));
    caller.raw(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]).repeat(300));
    caller.raw(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(300));
    for _ in 0..60 {
        assert_eq!(caller.next(), Heard::Pong);
    }
    scene.assert_serves(&mut caller);
    assert_eq!(caller.acknowledged, 21, "each SETTINGS is acknowledged");
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_17_a_body_in_frames_of_one_byte_arrives_and_every_window_comes_back() {
    // More than the connection's window, with the padding.
    for (payload, piece, padding) in [
        (200_000, 1, None),
        (27_000, 1, Some(255)),
        (700_000, 100, Some(0)),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let stream = caller.open(&CALL, false);
        let begun = scene.begun().stream;
        let body = message(&vec![7; payload]);
        let sent = body.clone();
        let mut peer = scene.peer;
        let reader = std::thread::spawn(move || (peer.body(begun), peer));
        caller.upload(stream, &sent, piece, padding);
        caller.data(stream, b"", true);
        let (heard, peer) = reader.join().expect("it reads");
        assert_eq!(heard.len(), body.len());
        assert!(heard == body, "the same bytes");
        scene.peer = peer;
        scene.peer.answer(begun, &message(b"well"));
        super::assert_good(&caller.answer(stream), b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);
        scene.assert_serves(&mut caller);
        assert_told(&scene.end(), &[]);
    }
}

#[test]
fn h2_20_windows_may_shrink_below_nothing_and_grow_again() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut scene = Scene::new();
    let mut caller = Caller::with(scene.world.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    caller.window(0, 1 << 20);
    let body = message(&(0..40_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let stream = caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    scene.peer.answer(begun, &body);
    let mut heard = Vec::new();
    let mut content = |caller: &mut Caller, wanted: usize| {
        while heard.len() < wanted {
            match caller.next() {
                Heard::Data { bytes, .. } => heard.extend(bytes),
                Heard::Head { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        heard.len()
    };
    assert_eq!(content(&mut caller, 0), 0);
    caller.settings(&[(INITIAL_WINDOW_SIZE, 20_000)]);
    assert_eq!(content(&mut caller, 20_000), 20_000);
    // Twenty thousand have gone: the window is now that much below nothing.
    caller.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    caller.window(stream, 15_000);
    caller.assert_quiet();
    caller.settings(&[(INITIAL_WINDOW_SIZE, 10_000)]);
    assert_eq!(content(&mut caller, 25_000), 25_000);
    caller.assert_quiet();
    caller.settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX - 15_000)]);
    let rest = caller.answer(stream);
    assert!(rest.whole);
    let all = [heard, rest.body].concat();
    assert!(all.starts_with(&body), "every byte once, in its place");
    assert_eq!(scene.world.record().reason, Reason::Ok);
    scene.assert_serves(&mut caller);
    scene.end();
}

#[test]
fn h2_20_a_window_of_more_than_there_is_ends_the_stream_or_the_connection() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    // On the connection.
    let scene = Scene::new();
    let mut caller = scene.caller();
    caller.window(0, WINDOW_MAX);
    caller.assert_turned_out(FLOW_CONTROL_ERROR);
    assert_eq!(scene.end().len(), 1);
    // By SETTINGS.
    let scene = Scene::new();
    let mut caller = scene.caller();
    caller.settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX + 1)]);
    caller.assert_turned_out(PROTOCOL_ERROR);
    assert_eq!(scene.end().len(), 1);
    // By SETTINGS on a stream that has some.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    scene.begun();
    caller.window(stream, 1);
    caller.settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    caller.assert_turned_out(FLOW_CONTROL_ERROR);
    let records = scene.end();
    assert_eq!(records.len(), 2);
    let call = records.iter().find(|own| own.refusal.is_none());
    let reason = call.map(|own| own.reason);
    assert!(
        matches!(reason, Some(Reason::ClientProtocol(_))),
        "{reason:?}"
    );
    // On a stream.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    caller.window(stream, WINDOW_MAX);
    caller.assert_reset(stream, FLOW_CONTROL_ERROR);
    scene.peer.assert_reset(begun, CANCEL);
    assert!(matches!(
        scene.world.record().reason,
        Reason::ClientProtocol(_) | Reason::ClientLeft
    ));
    scene.assert_serves(&mut caller);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_32_what_only_a_server_may_say_ends_the_connection() {
    let promise = [&[0, 0, 0, 2][..], &block(&CALL)].concat();
    for (bytes, calls) in [
        (frame(PUSH_PROMISE, END_HEADERS, 1, &promise), 1),
        (frame(PUSH_PROMISE, END_HEADERS, 0, &promise), 1),
        // It may not allow what it may not be sent.
        (frame(SETTINGS, 0, 0, &settings_payload(&[(2, 2)])), 1),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        caller.raw(&head(1, &CALL, false));
        let begun = scene.begun().stream;
        caller.raw(&bytes);
        caller.assert_turned_out(PROTOCOL_ERROR);
        scene.peer.assert_reset(begun, CANCEL);
        let records = scene.end();
        assert_eq!(records.len(), 1 + calls, "{records:?}");
    }
}

#[test]
fn h2_36_a_backend_that_answers_what_was_not_asked_loses_its_connection_alone() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    scene.peer.grpc_head(begun + 2);
    let answer = caller.answer(stream);
    assert!(answer.whole);
    // It had not to do with that call, so it is none that the call was to blame for.
    let frame = answer.body.escape_ascii().to_string();
    assert!(frame.contains("grpc-status:14\\r\\n"), "{frame}");
    scene.peer.assert_closed();
    // The connection of the caller is none the worse.
    caller.raw(&call(3, &message(b"again")));
    let mut again = scene._backend.accept();
    let request = again.request();
    again.answer(request.stream, &message(b"well"));
    super::assert_good(&caller.answer(3), b"well");
}
