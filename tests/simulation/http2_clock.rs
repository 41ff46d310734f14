//! Rows of HTTP/2 that hang on the clock: a client that says too little, reads too little, or only says that it is there.

use std::time::Duration;

use wharf::core::{Command, Flow};
use wharf::net::sim::{End, Weather};
use wharf::policy::{Limits, RouteKind};
use wharf::telemetry::Record;
use wharf::wire::{Code, Party, Reason};

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, frame, number, take_whole,
};
use crate::http2::greet;
use crate::still::{Manner, PULSES, Still, received};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The largest window that there may be, bytes (RFC 9113 §6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// How many calls a client makes at once.
const SIXTY: u32 = 60;
const NO_ERROR: u32 = 0;
const SETTINGS_TIMEOUT: u32 = 4;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The field block of a call.
pub(crate) fn call() -> Vec<u8> {
    call_of("/a.B/C")
}

/// The same of that path.
fn call_of(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc-web"),
    ] {
        field(name, value, &mut block);
    }
    block
}

fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), payload].concat()
}

/// The frames in there: kind, flags, stream and payload.
pub(crate) fn frames(bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let all = take_whole(&mut bytes.to_vec()).into_iter();
    all.map(|own| (own.kind, own.flags, own.stream, own.payload))
        .collect()
}

/// The code of the last GOAWAY in there.
pub(crate) fn goaway(bytes: &[u8]) -> Option<u32> {
    let all = frames(bytes);
    let last = all.iter().rfind(|own| own.0 == GOAWAY);
    last.map(|(.., payload)| number(&payload[4..]))
}

/// The codes of the resets of that stream in there.
pub(crate) fn resets(bytes: &[u8], stream: u32) -> Vec<u32> {
    let all = frames(bytes);
    let own = all
        .iter()
        .filter(|own| own.0 == RST_STREAM && own.2 == stream);
    own.map(|(.., payload)| number(payload)).collect()
}

/// One record, of a client that was turned out with those words.
fn assert_told(still: &Still, words: &str) {
    let [record] = &still.records[..] else {
        panic!("one record: {:?}", still.records);
    };
    assert_eq!(
        (record.refusal, record.by, &*record.message),
        (Some("bad_http"), Party::Downstream, words)
    );
}

/// The client is turned out with that code at that time, and no sooner.
fn assert_turned_out(still: &mut Still, client: &End, at: Duration, code: u32) {
    still.run_until(at - 20 * MS);
    let (early, closed) = still.receive(client);
    assert!(!closed && goaway(&early).is_none(), "not yet");
    still.run_until(at + 10 * MS);
    let (bytes, closed) = still.receive(client);
    assert_eq!((goaway(&bytes), closed), (Some(code), true));
}

#[test]
fn h2_02_half_a_preface_is_given_up_after_five_seconds() {
    // A single byte may still be the beginning of POST.
    for bytes in [2, 3, 14, 23] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = still.client();
        still.send(&client, &PREFACE[..bytes]);
        still.settle();
        let began = still.machine.now();
        still.run_until(began + 5 * SECOND - 20 * MS);
        assert_eq!(received(&client), (Vec::new(), false), "not yet");
        still.run_until(began + 6 * SECOND);
        let (said, closed) = still.receive(&client);
        assert!(
            closed && said.is_empty(),
            "{bytes} bytes are waited for: {said:?}, {:?}",
            still.records
        );
        drop(client);
        still.settle();
        assert_eq!(still.core.census(), (0, 0, 0));
    }
}

#[test]
fn h2_33_settings_that_are_never_acknowledged_end_the_connection_after_ten_seconds() {
    // Whether it has said anything but its preface, or even has a call open.
    for said in [0, 1, 2] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = still.client();
        let mut bytes = PREFACE.to_vec();
        if said > 0 {
            bytes.extend(frame(SETTINGS, 0, 0, b""));
        }
        if said > 1 {
            bytes.extend(frame(HEADERS, END_HEADERS, 1, &call()));
        }
        still.send(&client, &bytes);
        still.settle();
        let began = still.machine.now();
        assert_turned_out(&mut still, &client, began + 10 * SECOND, SETTINGS_TIMEOUT);
        if said > 1 {
            assert!(still.memory.seen()[0].dropped, "the backend is told");
            assert_eq!(still.records.len(), 2);
            let call = still.records.iter().find(|own| own.refusal.is_none());
            assert_eq!(call.map(|own| own.reason), Some(Reason::ClientTooSlow));
            still.records.retain(|own| own.refusal.is_some());
        }
        assert_told(&still, "it does not acknowledge our SETTINGS");
        drop(client);
        still.run_until(still.machine.now() + 10 * SECOND);
        assert_eq!(still.core.census(), (0, 0, 0));
    }
}

#[test]
fn r_01_a_head_in_http2_has_ten_seconds_too() {
    for (pause, whole_frames) in [
        (SECOND / 10, false),
        (3 * SECOND, false),
        (3 * SECOND, true),
    ] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = greet(&mut still, 65_535);
        still.run_until(still.machine.now() + 60 * SECOND);
        let (_, closed) = still.receive(&client);
        assert!(!closed, "before its first byte it may rest");
        // Byte by byte in one frame, or frame by frame.
        let block = call();
        let drip = match whole_frames {
            true => {
                still.send(&client, &frame(HEADERS, 0, 1, &block[..1]));
                block[1..4]
                    .iter()
                    .map(|byte| frame(CONTINUATION, 0, 1, &[*byte]))
                    .collect::<Vec<_>>()
            }
            false => {
                let head = frame(HEADERS, END_HEADERS, 1, &[&block[..], &[0; 100]].concat());
                still.send(&client, &head[..10]);
                head[10..].iter().map(|&byte| vec![byte]).collect()
            }
        };
        still.settle();
        let began = still.machine.now();
        let mut drip = drip.into_iter();
        while still.machine.now() + pause < began + 10 * SECOND - 20 * MS {
            still.run_until(still.machine.now() + pause);
            still.send(&client, &drip.next().expect("enough"));
        }
        assert_turned_out(&mut still, &client, began + 10 * SECOND, ENHANCE_YOUR_CALM);
        assert_told(&still, "the head of the request did not come whole in time");
        assert!(still.memory.seen().is_empty());
        drop(client);
        still.run_until(still.machine.now() + 10 * SECOND);
        assert_eq!(still.core.census(), (0, 0, 0));
    }
}

#[test]
fn r_01_heads_that_follow_each_other_without_a_gap_have_ten_seconds_each() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, Limits::default());
    let client = greet(&mut still, 65_535);
    let block = call();
    let head = |number: u32| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, &block);
    // A slow line that is never idle: whatever comes ends one head and begins the next one.
    const BEGUN: usize = 20;
    const HEADS: u32 = 30;
    still.send(&client, &head(0)[..BEGUN]);
    still.settle();
    for number in 0..HEADS {
        still.run_until(still.machine.now() + 2 * SECOND);
        let piece = [&head(number)[BEGUN..], &head(number + 1)[..BEGUN]].concat();
        still.send(&client, &piece);
        still.settle();
        let (bytes, closed) = still.receive(&client);
        assert!(!closed && goaway(&bytes).is_none(), "at head {number}");
    }
    let served = |own: &Record| own.reason == Reason::Ok && own.refusal.is_none();
    assert!(still.records.iter().all(served), "{:?}", still.records);
    assert_eq!(still.records.len(), HEADS as usize);
    still.records.clear();
    // The last one does not come to its end, and has no more time than any other.
    let began = still.machine.now();
    assert_turned_out(&mut still, &client, began + 10 * SECOND, ENHANCE_YOUR_CALM);
    assert_told(&still, "the head of the request did not come whole in time");
}

#[test]
fn h2_16_a_reader_answers_what_it_was_sent_as_late_as_it_likes_but_only_once() {
    const WINDOW: u32 = (1 << 31) - 1;
    /// Frames in a second that say nothing, with no reason for them.
    const CHATTER_MAX: usize = 1_000;
    let mut still = Still::new(
        RouteKind::Rpc,
        Manner::Torrent(5 * (5 << 20)),
        Limits::default(),
    );
    let client = greet(&mut still, WINDOW);
    let window = |stream: u32, bytes: u32| frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    still.send(&client, &window(0, WINDOW - 65_535));
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &call());
    still.send(&client, &request);
    let (bytes, _) = still.receive(&client);
    let all = frames(&bytes);
    let pieces = all.iter().filter(|own| own.0 == DATA).count();
    assert!(pieces > CHATTER_MAX, "{pieces} frames");
    assert_eq!(still.records.len(), 1);
    assert_eq!(still.records[0].reason, Reason::Ok);
    still.records.clear();
    // Seconds later, and on a stream that is long over: one for it and one for the connection, for each frame.
    still.run_until(still.machine.now() + 3 * SECOND);
    still.send(
        &client,
        &[window(1, 1), window(0, 1)].concat().repeat(pieces),
    );
    still.settle();
    let (bytes, closed) = still.receive(&client);
    assert!(!closed && frames(&bytes).is_empty(), "that is no flood");
    // What has been answered is answered: from now on it may say as much as anybody.
    for _ in 0..2 {
        still.run_until(still.machine.now() + 2 * SECOND);
        still.send(&client, &window(1, 1).repeat(CHATTER_MAX));
        still.settle();
        let (bytes, closed) = still.receive(&client);
        assert!(!closed && frames(&bytes).is_empty(), "nor is that");
    }
    still.send(&client, &window(1, 1));
    still.settle();
    let (bytes, closed) = still.receive(&client);
    assert_eq!((goaway(&bytes), closed), (Some(ENHANCE_YOUR_CALM), true));
    assert_told(&still, "it floods frames that say nothing");
}

#[test]
fn r_02_inside_a_message_in_http2_256_bytes_buy_a_second_after_ten() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
    let client = greet(&mut still, 65_535);
    still.send(&client, &frame(HEADERS, END_HEADERS, 1, &call()));
    still.send(&client, &frame(DATA, 0, 1, &message(b"whole")));
    still.settle();
    // Between two messages it may rest for ever.
    still.run_until(still.machine.now() + 24 * 3600 * SECOND);
    let (_, closed) = still.receive(&client);
    assert!(!closed && still.records.is_empty());
    let second = message(&[7; 3000]);
    still.send(&client, &frame(DATA, 0, 1, &second[..5]));
    still.settle();
    let began = still.machine.now();
    still.run_until(began + 9 * SECOND);
    still.send(&client, &frame(DATA, 0, 1, &second[5..5 + 1024]));
    still.run_until(began + 14 * SECOND - 20 * MS);
    assert!(still.records.is_empty(), "not yet");
    still.run_until(began + 14 * SECOND + 10 * MS);
    let [record] = &still.records[..] else {
        panic!("one record: {:?}", still.records);
    };
    assert_eq!(
        (record.code, record.reason, record.by),
        (
            Some(Code::DEADLINE_EXCEEDED),
            Reason::ClientTooSlow,
            Party::Downstream
        )
    );
    // A whole answer that says so; then its request is wanted no more.
    let (bytes, closed) = still.receive(&client);
    assert!(!closed, "the connection is none the worse");
    let text = bytes.escape_ascii().to_string();
    assert!(
        text.contains("grpc-status:4\\r\\ngrpc-message:the caller is too slow"),
        "{text}"
    );
    let ended = frames(&bytes)
        .iter()
        .any(|own| own.0 == DATA && own.1 & END_STREAM != 0);
    assert!(ended, "{text}");
    still.run_until(still.machine.now() + 2 * SECOND);
    let (bytes, _) = still.receive(&client);
    assert_eq!(resets(&bytes, 1), [NO_ERROR]);
    let seen = still.memory.seen();
    assert!(
        seen[0].dropped && !seen[0].ended,
        "the backend is told, and no end"
    );
    assert_eq!(still.core.census(), (1, 0, 0));
}

#[test]
fn r_03_a_reader_in_http2_that_takes_less_than_16_kib_in_30_seconds_is_given_up() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Torrent(64 << 20), Limits::default());
    let client = greet(&mut still, 0);
    still.send(
        &client,
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &call()),
    );
    still.settle();
    let window = |bytes: u32| frame(WINDOW_UPDATE, 0, 1, &bytes.to_be_bytes());
    let mut began = still.machine.now();
    // As long as it gives enough, it may take its time.
    for _ in 0..20 {
        still.run_until(began + 29 * SECOND);
        still.send(&client, &window(16 << 10));
        still.send(
            &client,
            &frame(WINDOW_UPDATE, 0, 0, &(16u32 << 10).to_be_bytes()),
        );
        still.settle();
        still.receive(&client);
        began = still.machine.now();
        assert!(still.records.is_empty(), "{:?}", still.records);
    }
    let mut heard = Vec::new();
    // h2_12: drops do not count.
    for _ in 0..29 {
        still.send(&client, &window(1));
        still.run_until(still.machine.now() + SECOND);
        heard.extend(still.receive(&client).0);
    }
    assert!(still.records.is_empty(), "not yet: {:?}", still.records);
    still.run_until(began + 31 * SECOND);
    let [record] = &still.records[..] else {
        panic!("one record: {:?}", still.records);
    };
    assert_eq!(
        (record.reason, record.by),
        (Reason::ClientTooSlow, Party::Downstream)
    );
    assert!(record.aborted);
    heard.extend(still.receive(&client).0);
    assert_eq!(resets(&heard, 1), [CANCEL]);
    assert!(still.memory.seen()[0].dropped, "the backend is told");
    assert_eq!(still.core.census(), (1, 0, 0), "its place is free");
}

#[test]
fn r_03_a_reader_in_http2_whose_socket_stands_still_is_given_up_for_that() {
    const WINDOW: u32 = (1 << 31) - 1;
    let mut still = Still::new(
        RouteKind::Rpc,
        Manner::Torrent(5 * (5 << 20)),
        Limits::default(),
    );
    let client = greet(&mut still, WINDOW);
    let more = (WINDOW - 65_535).to_be_bytes();
    still.send(&client, &frame(WINDOW_UPDATE, 0, 0, &more));
    // All the window there is for two calls, and the socket is not read.
    for stream in [1, 3] {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call());
        still.send(&client, &head);
    }
    still.settle();
    let began = still.machine.now();
    still.run_until(began + 30 * SECOND - 20 * MS);
    assert!(still.records.is_empty(), "not yet: {:?}", still.records);
    still.run_until(began + 31 * SECOND);
    let ends = still.records.iter().map(|own| (own.reason, own.by));
    let expected = [(Reason::ClientTooSlow, Party::Downstream); 2];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    assert!(still.memory.seen().iter().all(|own| own.dropped));
    drop(client);
    still.run_until(still.machine.now() + 10 * SECOND);
    assert_eq!(still.core.census(), (0, 0, 0));
}

#[test]
fn h2_12_a_small_answer_that_nobody_has_window_for_is_given_up_too() {
    // The call has ended well; only its last bytes wait.
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, Limits::default());
    let client = greet(&mut still, 0);
    for stream in 0..100u32 {
        still.send(
            &client,
            &frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * stream, &call()),
        );
    }
    still.settle();
    let began = still.machine.now();
    assert_eq!(still.records.len(), 100);
    assert!(still.records.iter().all(|own| own.reason == Reason::Ok));
    let mut heard = still.receive(&client).0;
    for second in 1..60 {
        for stream in 0..100u32 {
            still.send(
                &client,
                &frame(WINDOW_UPDATE, 0, 1 + 2 * stream, &1u32.to_be_bytes()),
            );
        }
        still.run_until(began + second * SECOND);
        heard.extend(still.receive(&client).0);
        let given_up = resets(&heard, 1);
        match second {
            ..=15 => assert_eq!(given_up, [0; 0], "not yet"),
            _ if frames(&heard)
                .iter()
                .any(|own| own.0 == DATA && own.1 & END_STREAM != 0) =>
            {
                break;
            }
            32.. => assert_eq!(given_up, [CANCEL], "after {second} seconds"),
            _ => {}
        }
    }
    drop(client);
    still.settle();
    assert_eq!(still.core.census(), (0, 0, 0));
}

#[test]
fn h2_12_streams_that_only_wait_are_reset_and_their_places_are_free() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, Limits::default());
    let client = greet(&mut still, 0);
    for stream in 0..100u32 {
        still.send(
            &client,
            &frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * stream, &call()),
        );
    }
    still.settle();
    let began = still.machine.now();
    still.run_until(began + 30 * SECOND - 20 * MS);
    let (mut heard, _) = still.receive(&client);
    assert_eq!(resets(&heard, 1), [0; 0], "not yet");
    still.run_until(began + 31 * SECOND);
    heard.extend(still.receive(&client).0);
    for stream in 0..100u32 {
        assert_eq!(resets(&heard, 1 + 2 * stream), [CANCEL]);
    }
    // There is room for others again.
    still.records.clear();
    let settings = [&[0, 4][..], &65_535u32.to_be_bytes()].concat();
    still.send(&client, &frame(SETTINGS, 0, 0, &settings));
    still.send(
        &client,
        &frame(HEADERS, END_HEADERS | END_STREAM, 201, &call()),
    );
    still.settle();
    let (heard, _) = still.receive(&client);
    let ended = frames(&heard)
        .iter()
        .any(|own| own.2 == 201 && own.1 & END_STREAM != 0);
    assert!(ended);
    assert_eq!(still.records.len(), 1);
    assert_eq!(still.core.census(), (1, 0, 0));
}

#[test]
fn h2_19_pings_of_a_client_that_never_reads_are_held_up_and_then_it_is_given_up() {
    /// What lies in a socket at most, bytes.
    const SOCKET: usize = 2 << 10;
    /// What is taken of it for answers that it does not read: those that are staged, those that `h2` has ready, and what lies in
    /// both directions of its socket, bytes.
    const TAKEN_MAX: usize = 96 << 10;
    const LIMIT: Duration = Duration::from_secs(120);
    let weather = Weather {
        buffer_bytes_min: SOCKET,
        buffer_bytes_max: SOCKET,
        ..Weather::fair()
    };
    let limits = Limits {
        stall_timeout: LIMIT,
        ..Limits::default()
    };
    let mut still = Still::under(weather, RouteKind::Rpc, Manner::Silent, limits);
    let client = greet(&mut still, 65_535);
    // With a call open it is not idle.
    still.send(&client, &frame(HEADERS, END_HEADERS, 1, &call()));
    still.receive(&client);
    // No more in a second than would be no flood, each as long as its answer.
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(90);
    let (mut asked, mut began) = (0, None);
    let mut unsaid: Vec<u8> = Vec::new();
    loop {
        if unsaid.is_empty() {
            unsaid.clone_from(&pings);
        }
        let taken = client.write(&unsaid).expect("it is there");
        unsaid.drain(..taken);
        asked += taken;
        still.settle();
        if asked > SOCKET && began.is_none() {
            // The second that its answers are more than the socket takes: from now on it stands still.
            began = Some(still.machine.now());
        }
        if began.is_some_and(|at| still.machine.now() > at + LIMIT - 2 * SECOND) {
            break;
        }
        still.run_until(still.machine.now() + SECOND);
    }
    let began = began.expect("it never reads");
    assert!(client.unread() > 0, "it is not read either");
    assert!(asked <= TAKEN_MAX, "{asked} bytes were taken");
    still.run_until(began + LIMIT - 20 * MS);
    assert_eq!(still.core.census(), (1, 1, 0), "not yet");
    still.run_until(began + LIMIT + 10 * MS);
    assert_eq!(still.core.census(), (0, 0, 0), "it is served for ever");
    let ends = still.records.iter().map(|own| (own.reason, own.by));
    let expected = [(Reason::ClientTooSlow, Party::Downstream)];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
}

#[test]
fn d_10_pings_do_not_keep_an_idle_connection() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, Limits::default());
    let client = greet(&mut still, 65_535);
    still.send(
        &client,
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &call()),
    );
    still.settle();
    let idle = still.machine.now();
    let mut heard = still.receive(&client).0;
    let mut pongs = 0;
    while still.machine.now() + 5 * SECOND < idle + 75 * SECOND {
        still.run_until(still.machine.now() + 5 * SECOND);
        still.send(&client, &frame(PING, 0, 0, b"are you?"));
        pongs += 1;
    }
    still.run_until(idle + 75 * SECOND - 20 * MS);
    let (bytes, closed) = still.receive(&client);
    heard.extend(bytes);
    assert!(!closed && goaway(&heard).is_none(), "not yet");
    let answers = frames(&heard)
        .iter()
        .filter(|own| own.0 == PING && own.1 & ACK != 0)
        .count();
    assert_eq!(answers, pongs, "each is answered");
    still.run_until(idle + 75 * SECOND + 10 * MS);
    let (bytes, _) = still.receive(&client);
    assert_eq!(goaway(&bytes), Some(NO_ERROR));
    // Even one that does not answer the first word is closed with the second.
    still.run_until(idle + 77 * SECOND);
    assert!(still.receive(&client).1);
    drop(client);
    still.run_until(idle + 80 * SECOND);
    assert_eq!(still.core.census(), (0, 0, 0));
    assert_eq!(still.records.len(), 1, "only the call is told of");
}

#[test]
fn h2_23_the_goodbye_before_numbers_run_out_leaves_at_once() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
    let client = greet(&mut still, 65_535);
    still.settle();
    still.receive(&client);
    let late = (1u32 << 31) - 65_535 + 2;
    let flags = END_HEADERS | END_STREAM;
    still.send(&client, &frame(HEADERS, flags, late, &call()));
    still.settle();
    // Its call is open and silent, and nothing else happens.
    let (bytes, closed) = still.receive(&client);
    assert_eq!((goaway(&bytes), closed), (Some(0), false));
}

/// Sixty answers of 40 kB for one who has then taken its windows back: all has been said as far as the backend knows, and little of
/// it was written. Each is of a call on the next odd stream.
fn sixty_answers_whose_windows_are_taken_back(limits: Limits) -> (Still, End) {
    let mut still = Still::new(RouteKind::Rpc, Manner::Torrent(40_000), limits);
    let client = greet(&mut still, 65_535);
    call_sixty_times(&mut still, &client);
    let ended_well = still.records.iter().filter(|own| own.reason == Reason::Ok);
    assert_eq!(ended_well.count(), SIXTY as usize);
    open_windows(&mut still, &client, 0);
    (still, client)
}

/// Sixty calls of one whose connection has all the window that there is.
fn call_sixty_times(still: &mut Still, client: &End) {
    let more = (WINDOW_MAX - 65_535).to_be_bytes();
    still.send(client, &frame(WINDOW_UPDATE, 0, 0, &more));
    let flags = END_HEADERS | END_STREAM;
    for n in 0..SIXTY {
        still.send(client, &frame(HEADERS, flags, 1 + 2 * n, &call()));
    }
    still.settle();
}

/// From now on each stream's window is that wide, bytes.
fn open_windows(still: &mut Still, client: &End, wide: u32) {
    let window = [&[0, 4][..], &wide.to_be_bytes()].concat();
    still.send(client, &frame(SETTINGS, 0, 0, &window));
    still.settle();
}

#[test]
fn an_answer_that_its_client_resets_while_it_is_written_holds_no_place() {
    let limits = Limits {
        idle_timeout: 5 * SECOND,
        ..Limits::default()
    };
    let (mut still, client) = sixty_answers_whose_windows_are_taken_back(limits);
    // There is room in the socket again: `h2` has seen that they may not go on.
    for _ in 0..10 {
        still.receive(&client);
        still.settle();
    }
    for n in 0..SIXTY {
        let reset = frame(RST_STREAM, 0, 1 + 2 * n, &CANCEL.to_be_bytes());
        still.send(&client, &reset);
    }
    still.settle();
    still.receive(&client);
    // Were their places still held, it would not be idle.
    let began = still.machine.now();
    still.run_until(began + 6 * SECOND);
    let all = frames(&still.receive(&client).0);
    assert!(all.iter().any(|own| own.0 == GOAWAY), "{all:?}");
}

/// Sixty answers of so many bytes for one who reads all that its socket gives, 20 KiB in a second; `shut`: its windows are, for
/// the first second. How many came whole, and how many were reset.
fn read_slowly(bytes: usize, seconds: u32, shut: bool) -> (usize, usize) {
    let weather = Weather {
        buffer_bytes_min: 16 << 10,
        buffer_bytes_max: 16 << 10,
        ..Weather::fair()
    };
    let manner = Manner::Torrent(bytes);
    let mut still = Still::under(weather, RouteKind::Rpc, manner, Limits::default());
    let client = greet(&mut still, if shut { 0 } else { WINDOW_MAX });
    call_sixty_times(&mut still, &client);
    let mut heard = still.receive(&client).0;
    let began = still.machine.now();
    still.run_until(began + SECOND);
    open_windows(&mut still, &client, WINDOW_MAX);
    for tenth in 11..10 * seconds {
        client.read(&mut heard, 2 << 10);
        still.run_until(began + SECOND / 10 * tenth);
    }
    let all = frames(&heard);
    let ended = all
        .iter()
        .filter(|own| own.0 == DATA && own.1 & END_STREAM != 0);
    let reset = all.iter().filter(|own| own.0 == RST_STREAM);
    (ended.count(), reset.count())
}

#[test]
fn r_03_who_reads_all_that_its_socket_gives_is_not_too_slow() {
    // Nothing of an answer of 60 kB moves for longer than the limit, while others have the socket.
    assert_eq!(read_slowly(60_000, 240, true), (60, 0));
    assert_eq!(read_slowly(60_000, 240, false), (60, 0));
    // Their calls are open for most of the time.
    assert_eq!(read_slowly(200_000, 700, false), (60, 0));
}

#[test]
fn r_03_a_reader_that_stands_still_is_let_go_in_time_from_when_its_socket_had_taken_all() {
    for full in [0, 25] {
        let passed = let_go_after(full * SECOND);
        let late = passed.saturating_sub(full * SECOND);
        assert!(
            (29 * SECOND..32 * SECOND).contains(&late),
            "{full}: {passed:?}"
        );
    }
}

/// How long two streams are left to a reader who takes their windows back, and leaves the socket as it is for so long.
fn let_go_after(full: Duration) -> Duration {
    const TWO: [u32; 2] = [1, 3];
    let weather = Weather {
        buffer_bytes_min: 16 << 10,
        buffer_bytes_max: 16 << 10,
        ..Weather::fair()
    };
    let manner = Manner::Torrent(1 << 30);
    let mut still = Still::under(weather, RouteKind::Rpc, manner, Limits::default());
    let client = greet(&mut still, 300_000);
    let more = (WINDOW_MAX - 65_535).to_be_bytes();
    still.send(&client, &frame(WINDOW_UPDATE, 0, 0, &more));
    for stream in TWO {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call());
        still.send(&client, &head);
    }
    still.settle();
    let began = still.machine.now();
    let settings = [&[0, 4][..], &0u32.to_be_bytes()].concat();
    still.send(&client, &frame(SETTINGS, 0, 0, &settings));
    still.settle();
    still.run_until(began + full);
    let mut heard = Vec::new();
    while TWO.iter().any(|&stream| resets(&heard, stream).is_empty()) {
        assert!(still.machine.now() < began + 100 * SECOND);
        still.run_until(still.machine.now() + 100 * MS);
        heard.extend(still.receive(&client).0);
    }
    still.machine.now() - began
}

#[test]
fn s_01_what_the_end_of_a_drain_cuts_in_http2_is_told_by_a_reset() {
    let manner = Manner::Torrent(40 << 20);
    let mut still = Still::new(RouteKind::Plain, manner, Limits::default());
    let client = greet(&mut still, 65_535);
    let flags = END_HEADERS | END_STREAM;
    still.send(&client, &frame(HEADERS, flags, 1, &call()));
    still.settle();
    let mut heard = still.receive(&client).0;
    let drain = Command::Drain(2 * SECOND);
    still.commands.send(drain).expect("the core lives");
    still.machine.ring();
    loop {
        let wake = still.machine.now() + SECOND;
        still.machine.expect(false, Some(wake));
        if still.core.turn() == Flow::Stopped {
            break;
        }
    }
    heard.extend(received(&client).0);
    let last: Vec<_> = frames(&heard)
        .iter()
        .filter(|own| matches!(own.0, RST_STREAM | GOAWAY))
        .map(|own| (own.0, own.2))
        .collect();
    // Both steps, and what becomes of its stream in between.
    assert_eq!(last, [(GOAWAY, 0), (RST_STREAM, 1), (GOAWAY, 0)]);
}

#[test]
fn h2_12_a_window_that_is_taken_back_is_a_reader_that_stands_still() {
    let (mut still, client) = sixty_answers_whose_windows_are_taken_back(Limits::default());
    let (mut heard, began) = (Vec::new(), still.machine.now());
    for second in 1..=40 {
        still.run_until(began + second * SECOND);
        heard.extend(still.receive(&client).0);
        // It is alive.
        still.send(&client, &frame(PING, 0, 0, b"are you?"));
        still.settle();
    }
    let all = frames(&heard);
    let ended = all
        .iter()
        .filter(|own| own.0 == DATA && own.1 & END_STREAM != 0);
    let reset = all.iter().filter(|own| own.0 == RST_STREAM);
    let (ended, reset) = (ended.count(), reset.count());
    assert!(reset > SIXTY as usize / 2, "{ended} whole, {reset} reset");
    assert_eq!(ended + reset, SIXTY as usize);
}

#[test]
fn r_09_what_is_only_kept_to_be_sent_again_costs_nobody_his_call() {
    const UPLOAD: usize = 50_000;
    let limits = Limits {
        buffers_bytes_max: 2 << 20,
        ..Limits::default()
    };
    // It takes all that it is given, and does not answer.
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, limits);
    let upload = |still: &mut Still, calls: u32| {
        let client = greet(still, 65_535);
        for stream in (0..calls).map(|n| 1 + 2 * n) {
            still.send(&client, &frame(HEADERS, END_HEADERS, stream, &call()));
            for piece in message(&[7; UPLOAD]).chunks(16_000) {
                still.send(&client, &frame(DATA, 0, stream, piece));
                still.settle();
            }
        }
        client
    };
    let others: Vec<End> = (0..SIXTY).map(|_| upload(&mut still, 1)).collect();
    // Who holds most comes last.
    let last = upload(&mut still, 20);
    for client in others.iter().chain([&last]) {
        let (heard, closed) = still.receive(client);
        assert!(!closed && frames(&heard).iter().all(|own| own.0 != RST_STREAM));
    }
    assert_eq!(still.records.len(), 0);
    let seen = still.memory.seen();
    assert_eq!(seen.len(), SIXTY as usize + 20);
    assert!(seen.iter().all(|own| own.body.len() == UPLOAD + 5));
}

/// What those do who keep their answers waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// They take 16 KiB twice a second.
    Read,
    /// They take none, and say 12 kB ten times a second, which goes on.
    Talk,
}

#[test]
fn r_09_who_reads_slowly_on_many_connections_goes_before_who_reads_fast_on_one() {
    // Whenever he comes: what those have of theirs passes in two seconds and a half.
    for tick in (20..47).step_by(3) {
        who_keeps_answers_waiting_goes_before_who_reads_fast(Waiting::Read, tick);
    }
}

#[test]
fn r_09_who_talks_and_does_not_read_goes_before_who_reads_fast() {
    who_keeps_answers_waiting_goes_before_who_reads_fast(Waiting::Talk, 40);
}

fn who_keeps_answers_waiting_goes_before_who_reads_fast(manner: Waiting, comes: u32) {
    const STREAMS: u32 = 20;
    let limits = Limits {
        buffers_bytes_max: 4 << 20,
        ..Limits::default()
    };
    let mut still = Still::new(RouteKind::Rpc, Manner::Torrent(1 << 30), limits);
    let widen = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let flags = END_HEADERS | END_STREAM;
    let slow: Vec<End> = (0..SIXTY)
        .map(|_| {
            let client = greet(&mut still, 16 << 10);
            still.send(&client, &widen(0, WINDOW_MAX - 65_535));
            let flags = match manner {
                Waiting::Read => flags,
                Waiting::Talk => END_HEADERS,
            };
            still.send(&client, &frame(HEADERS, flags, 1, &call()));
            client
        })
        .collect();
    still.settle();
    let mut fast = None;
    let began = still.machine.now();
    let mut read = 0;
    for tick in 1..=comes + 60 {
        still.run_until(began + 100 * MS * tick);
        // None of them stands still.
        for client in &slow {
            still.receive(client);
            match manner {
                Waiting::Read if tick % 5 == 0 => still.send(client, &widen(1, 16 << 10)),
                Waiting::Read => {}
                Waiting::Talk => still.send(client, &frame(DATA, 0, 1, &message(&[7; 12_000]))),
            }
        }
        if tick == comes {
            // Who comes now holds more than any of those, and takes it faster than they do.
            let client = greet(&mut still, 65_535);
            still.send(&client, &widen(0, WINDOW_MAX - 65_535));
            for n in 0..STREAMS {
                still.send(&client, &frame(HEADERS, flags, 1 + 2 * n, &call()));
            }
            fast = Some(client);
        }
        still.settle();
        if let Some(client) = &fast {
            let (bytes, closed) = still.receive(client);
            let all = frames(&bytes);
            assert!(
                !closed
                    && all
                        .iter()
                        .all(|own| own.1 & END_STREAM == 0 || own.0 == SETTINGS)
            );
            assert!(all.iter().all(|own| own.0 != RST_STREAM && own.0 != GOAWAY));
            read += bytes.len();
            for n in 0..STREAMS {
                still.send(client, &widen(1 + 2 * n, 60_000));
            }
            still.settle();
        }
    }
    let gone = still.records.len();
    assert!((1..SIXTY as usize).contains(&gone), "{gone} went");
    assert!(
        still
            .records
            .iter()
            .all(|own| own.reason == Reason::Overloaded)
    );
    assert!(read > 50_000_000, "{read} bytes");
}

#[test]
fn r_09_who_reads_at_once_what_comes_seldom_does_not_pay_for_those_who_do_not_read() {
    // What came with the last pulse went at once, and nobody looked at it since.
    for (every, pulse) in [(20, 1), (20, 2), (4, 1), (4, 3)] {
        what_comes_seldom(every * SECOND, pulse, Manner::Torrent(1 << 30), 40);
    }
}

#[test]
fn r_09_what_is_left_of_calls_that_have_ended_goes_before_who_reads_at_once() {
    what_comes_seldom(4 * SECOND, 1, Manner::Torrent(40_000), 80);
}

/// One reads at once what comes so often. Three seconds before that pulse others come, who read nothing of what the backend says in
/// that manner.
fn what_comes_seldom(every: Duration, pulse: u32, manner: Manner, others: u32) {
    const STREAMS: u32 = 20;
    const BYTES: usize = 60_000;
    let limits = Limits {
        buffers_bytes_max: 4 << 20,
        ..Limits::default()
    };
    let mut still = Still::new(RouteKind::Rpc, manner, limits);
    let reader = greet(&mut still, WINDOW_MAX);
    let more = (WINDOW_MAX - 65_535).to_be_bytes();
    still.send(&reader, &frame(WINDOW_UPDATE, 0, 0, &more));
    let at = still.machine.now() + every * pulse;
    call_for_pulses(&mut still, &reader, STREAMS, BYTES, every);
    let mut heard = Vec::new();
    let mut read_until = |still: &mut Still, until: Duration| {
        while still.machine.now() < until {
            still.run_until(until.min(still.machine.now() + 100 * MS));
            heard.extend(still.receive(&reader).0);
        }
    };
    read_until(&mut still, at - 3 * SECOND);
    let flags = END_HEADERS | END_STREAM;
    let standing: Vec<End> = (0..others)
        .map(|_| {
            let client = greet(&mut still, 0);
            still.send(&client, &frame(HEADERS, flags, 1, &call()));
            client
        })
        .collect();
    read_until(&mut still, at + SECOND);
    let cut = |client: &End| !resets(&received(client).0, 1).is_empty();
    let gone = standing.iter().filter(|client| cut(client)).count();
    assert!((1..others as usize).contains(&gone), "{gone} went");
    let all = frames(&heard);
    let reset = all.iter().filter(|own| own.0 == RST_STREAM).count();
    assert_eq!(reset, 0, "each {every:?}, at pulse {pulse}");
    let data = all.iter().filter(|own| own.0 == DATA);
    let bytes: usize = data.map(|own| own.3.len()).sum();
    assert_eq!(bytes, pulse as usize * STREAMS as usize * BYTES);
}

/// So many calls on the next odd streams, each answered with so many bytes so often.
fn call_for_pulses(still: &mut Still, client: &End, calls: u32, bytes: usize, every: Duration) {
    let block = call_of(&format!("{PULSES}{bytes}x{}", every.as_millis()));
    let flags = END_HEADERS | END_STREAM;
    for n in 0..calls {
        still.send(client, &frame(HEADERS, flags, 1 + 2 * n, &block));
    }
    still.settle();
}

/// What each of them has been told when each has made so many calls and been answered with so many bytes at once, of which it reads
/// nothing: how many streams were reset.
fn pulse_for(clients: &[(u32, usize)], buffers_bytes_max: usize) -> Vec<usize> {
    let limits = Limits {
        buffers_bytes_max,
        ..Limits::default()
    };
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, limits);
    let mut ends = Vec::new();
    let at = still.machine.now() + 10 * SECOND;
    for &(calls, bytes) in clients {
        let client = greet(&mut still, 0);
        let every = at - still.machine.now();
        call_for_pulses(&mut still, &client, calls, bytes, every);
        ends.push(client);
    }
    still.run_until(at + SECOND / 2);
    ends.iter()
        .map(|client| frames(&still.receive(client).0))
        .map(|all| all.iter().filter(|own| own.0 == RST_STREAM).count())
        .collect()
}

#[test]
fn r_09_where_nothing_is_old_it_is_the_client_who_holds_most_and_not_the_largest_call() {
    let reset = pulse_for(&[(1, 60_000), (20, 30_000)], 500_000);
    assert_eq!(reset[0], 0);
    assert!((1..20).contains(&reset[1]), "{reset:?}");
}

#[test]
fn r_09_who_holds_little_stays_until_they_hold_twice_of_it_all() {
    const BUDGET: usize = 200_000;
    const BYTES: usize = 3_000;
    for (calls, stay) in [(60, true), (90, false)] {
        let reset: usize = pulse_for(&[(calls, BYTES); 2], BUDGET).iter().sum();
        assert_eq!(reset == 0, stay, "{reset} of 2 x {calls}");
        assert!(reset < 2 * calls as usize, "{reset} of 2 x {calls}");
    }
}
