//! What a client of HTTP/2 sees that says each frame by itself, where every time is exact: what seeds have found.

use std::time::Duration;

use wharf::core::{Command, Flow};
use wharf::net::sim::End;
use wharf::policy::Limits;
use wharf::policy::snapshot::RouteKind;

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, take_whole, write,
};
use crate::still::{A_MOMENT, Manner, Still, received};

/// A client that has greeted, with that window for each stream, and has acknowledged.
pub(crate) fn greet(still: &mut Still, window: u32) -> End {
    let end = still.client();
    let mut bytes = PREFACE.to_vec();
    let mut settings = vec![0, 4];
    settings.extend(window.to_be_bytes());
    write(SETTINGS, 0, 0, &settings, &mut bytes);
    write(SETTINGS, ACK, 0, &[], &mut bytes);
    still.send(&end, &bytes);
    still.settle();
    end
}

fn post(stream: u32, out: &mut Vec<u8>) {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/upload"),
        (":authority", "sim.test"),
    ] {
        field(name, value, &mut block);
    }
    write(HEADERS, END_HEADERS, stream, &block, out);
}

fn heard(end: &End) -> Vec<Frame> {
    take_whole(&mut received(end).0)
}

#[test]
fn an_answer_that_waits_for_its_reader_costs_no_turns_though_its_request_goes_on() {
    let mut still = Still::new(RouteKind::Plain, Manner::Torrent(40_000), Limits::default());
    let end = greet(&mut still, 0);
    let mut bytes = Vec::new();
    post(1, &mut bytes);
    still.send(&end, &bytes);
    still.settle();
    let until = still.machine.now() + Duration::from_secs(20);
    let mut turns = 0;
    while still.machine.now() < until {
        still.machine.expect(false, Some(until));
        assert_eq!(still.core.turn(), Flow::Running);
        turns += 1;
        assert!(turns < 50, "the core turns for nothing");
    }
    // The reader comes at last, and has all of it.
    let mut bytes = Vec::new();
    write(WINDOW_UPDATE, 0, 1, &(1u32 << 20).to_be_bytes(), &mut bytes);
    still.send(&end, &bytes);
    still.settle();
    let frames = heard(&end);
    let content = frames.iter().filter(|frame| frame.kind == DATA);
    assert_eq!(
        content.map(|frame| frame.payload.len()).sum::<usize>(),
        40_000
    );
}

#[test]
fn what_comes_for_a_stream_behind_the_last_goaway_ends_no_other_call() {
    let mut still = Still::new(RouteKind::Plain, Manner::Echo, Limits::default());
    let end = greet(&mut still, 65_535);
    let mut bytes = Vec::new();
    post(1, &mut bytes);
    still.send(&end, &bytes);
    still.settle();
    heard(&end);
    let drain = Command::Drain(Duration::from_secs(60));
    still.commands.send(drain).expect("the core lives");
    still.machine.ring();
    still.run_until(still.machine.now() + A_MOMENT);
    let frames = heard(&end);
    let ping = frames.iter().find(|frame| frame.kind == PING);
    let ping = ping.expect("the first step asks for an answer");
    // These were under way when the second step was.
    let mut bytes = Vec::new();
    write(PING, ACK, 0, &ping.payload, &mut bytes);
    post(3, &mut bytes);
    write(WINDOW_UPDATE, 0, 3, &9u32.to_be_bytes(), &mut bytes);
    write(DATA, 0, 3, b"more", &mut bytes);
    write(RST_STREAM, 0, 3, &8u32.to_be_bytes(), &mut bytes);
    still.send(&end, &bytes);
    still.run_until(still.machine.now() + A_MOMENT);
    let mut bytes = Vec::new();
    write(DATA, END_STREAM, 1, b"all", &mut bytes);
    still.send(&end, &bytes);
    still.run_until(still.machine.now() + A_MOMENT);
    let frames = heard(&end);
    let goaways = frames.iter().filter(|frame| frame.kind == GOAWAY);
    for goaway in goaways {
        assert_eq!(goaway.payload[..8], [0, 0, 0, 1, 0, 0, 0, 0], "{frames:?}");
    }
    let mut ends = frames.iter().filter(|frame| frame.stream == 1);
    assert!(
        ends.any(|frame| frame.flags & END_STREAM != 0),
        "the call that ran goes on: {frames:?}"
    );
    assert_eq!(still.memory.seen()[0].body, b"all");
}

#[test]
fn who_comes_as_the_drain_begins_is_answered_what_it_has_asked() {
    let mut still = Still::new(RouteKind::Plain, Manner::Echo, Limits::default());
    let end = still.client();
    let mut bytes = PREFACE.to_vec();
    write(SETTINGS, 0, 0, &[], &mut bytes);
    post(1, &mut bytes);
    write(DATA, END_STREAM, 1, b"all", &mut bytes);
    assert_eq!(end.write(&bytes).ok(), Some(bytes.len()));
    let drain = Command::Drain(Duration::from_secs(60));
    still.commands.send(drain).expect("the core lives");
    still.machine.ring();
    still.run_until(still.machine.now() + A_MOMENT);
    let frames = heard(&end);
    let mut ends = frames.iter().filter(|frame| frame.stream == 1);
    assert!(
        ends.any(|frame| frame.flags & END_STREAM != 0),
        "its call is answered: {frames:?}"
    );
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY);
    let goaway = goaway.expect("and it is told to come with no more");
    assert_eq!(goaway.payload[..4], [0x7f, 0xff, 0xff, 0xff]);
}
