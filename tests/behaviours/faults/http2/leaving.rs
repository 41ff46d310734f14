//! Rows S-01 to S-04: a proxy that is told to leave tells its callers so, serves what they had begun, and cuts no answer.

use std::thread;
use std::time::{Duration, Instant};

use wharf::core::Command;
use wharf::wire::Reason;

use super::{Scene, assert_good};
use crate::backend::Request;
use crate::caller::{CALL, Caller, Heard};
use crate::client::{Client, message, streamed, trailer_frame};
use crate::frames::{
    ACK, INITIAL_WINDOW_SIZE, NO_ERROR, PING, REFUSED_STREAM, SETTINGS, WINDOW_MAX, frame,
};
use crate::world::{PATIENCE, Plan};

/// How long calls are served that come between the two steps, if nobody answers the first.
const BETWEEN: Duration = Duration::from_secs(1);
/// What `h2` asks with before the second step (0.4.20).
const SHUTDOWN_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// The first step names no stream: whoever is on the way is served.
fn assert_first_step(caller: &mut Caller) {
    assert_goodbye(caller, WINDOW_MAX);
}

/// The second names the last that is.
fn assert_second_step(caller: &mut Caller, last: u32) {
    assert_goodbye(caller, last);
}

fn assert_goodbye(caller: &mut Caller, last: u32) {
    let code = NO_ERROR;
    assert_eq!(caller.next(), Heard::GoAway { last, code });
}

/// A call between the two steps, and what the backend sees of it; the first step was taken after `told`. `None`: the machine is so
/// slow that the call has come too late.
fn call_between(scene: &mut Scene, caller: &mut Caller, told: Instant) -> Option<(u32, Request)> {
    const A_MOMENT: Duration = Duration::from_millis(20);
    let stream = caller.call(&message(b"hi"));
    loop {
        if let Some(seen) = scene.peer.next_within(A_MOMENT) {
            return Some((stream, scene.peer.request_of(seen)));
        }
        match caller.next_within(A_MOMENT) {
            None => {}
            Some(_) if told.elapsed() >= BETWEEN => return None,
            Some(other) => panic!("instead of being served: {other:?}"),
        }
    }
}

#[test]
fn s_01_a_drain_says_goodbye_in_two_steps_and_waits_for_what_is_open() {
    let once = || {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        caller.acknowledges = false;
        let stream = caller.call(&message(b"hi"));
        let begun = scene.peer.request().stream;
        let told = Instant::now();
        scene.world.command(Command::Drain(PATIENCE));
        assert_first_step(&mut caller);
        // s_02: a call that comes between the two.
        let (between, request) = call_between(&mut scene, &mut caller, told)?;
        scene.peer.answer(request.stream, &message(b"well"));
        assert_good(&caller.answer(between), b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);
        // The answer to the PING that came with it brings the second step.
        caller.frame(PING, ACK, 0, &SHUTDOWN_PING);
        assert_second_step(&mut caller, between);
        // The open call is served to its end, and that is the end of the connection.
        scene.peer.answer(begun, &message(b"well"));
        assert_good(&caller.answer(stream), b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);
        assert_eq!(caller.next(), Heard::End);
        Some(())
    };
    in_time(once);
}

#[test]
fn s_02_a_call_between_the_two_steps_is_served() {
    let once = || {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let first = caller.call(&message(b"hi"));
        let begun = scene.peer.request().stream;
        let told = Instant::now();
        scene.world.command(Command::Drain(PATIENCE));
        assert_first_step(&mut caller);
        // Sent before the PING is answered.
        caller.acknowledges = false;
        let (between, request) = call_between(&mut scene, &mut caller, told)?;
        scene.peer.answer(request.stream, &message(b"well"));
        scene.peer.answer(begun, &message(b"well"));
        let mut ends = 0;
        while ends < 2 {
            match caller.next() {
                Heard::Data { stream, end, .. } => {
                    assert!(stream == first || stream == between);
                    ends += usize::from(end);
                }
                Heard::Head { .. } | Heard::GoAway { code: NO_ERROR, .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for _ in 0..2 {
            assert_eq!(scene.world.record().reason, Reason::Ok);
        }
        Some(())
    };
    in_time(once);
}

/// Does it again where the machine was too slow to tell.
fn in_time(once: impl Fn() -> Option<()>) {
    let done = (0..10).any(|_| once().is_some());
    assert!(done, "calls between the two steps are refused");
}

#[test]
fn s_03_a_call_behind_the_second_step_reaches_nobody_and_may_be_made_elsewhere() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    scene.world.command(Command::Drain(PATIENCE));
    assert_first_step(&mut caller);
    assert_second_step(&mut caller, stream);
    // Above the last stream of a GOAWAY nothing is processed (RFC 9113 §6.8): no word about it is needed.
    caller.call(&message(b"late"));
    caller.assert_quiet();
    scene.peer.assert_quiet();
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(caller.next(), Heard::End);
    assert_eq!(scene.world.record().reason, Reason::Ok);
}

#[test]
fn s_03_who_does_not_answer_the_first_step_is_refused_after_a_second() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.call(&message(b"hi"));
    let begun = scene.peer.request().stream;
    caller.assert_quiet();
    caller.acknowledges = false;
    scene.world.command(Command::Drain(PATIENCE));
    assert_first_step(&mut caller);
    assert_eq!(caller.next_within(Duration::from_millis(1_500)), None);
    let late = caller.open(&CALL, true);
    caller.assert_reset(late, REFUSED_STREAM);
    scene.peer.assert_quiet();
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert!(
        caller
            .last_words()
            .iter()
            .all(|&(_, code)| code == NO_ERROR)
    );
    assert_eq!(scene.world.record().reason, Reason::Ok);
}

#[test]
fn h2_35_data_above_the_last_stream_of_our_goodbye_costs_no_window() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    scene.world.command(Command::Drain(PATIENCE));
    assert_first_step(&mut caller);
    assert_second_step(&mut caller, stream);
    // More than the connection's window, on streams that nobody will ever look at.
    for _ in 0..110 {
        let late = caller.open(&CALL, false);
        for _ in 0..4 {
            caller.data(late, &[7; 16_000], false);
        }
    }
    let body = message(&vec![7; 1_000_000]);
    let expected = body.clone();
    let mut peer = scene.peer;
    let reader = thread::spawn(move || (peer.body(begun), peer));
    caller.upload(stream, &body, 16_000, None);
    caller.data(stream, b"", true);
    let (heard, mut peer) = reader.join().expect("it reads");
    assert!(heard == expected);
    peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(caller.next(), Heard::End);
    assert_eq!(scene.world.record().reason, Reason::Ok);
}

#[test]
fn s_04_a_request_that_crosses_the_end_of_an_idle_connection_is_answered_or_not_read() {
    // Many times, so that it is met in every order.
    for round in 0..20 {
        let mut scene = Scene::new();
        let mut client = Client::new(scene.world.address);
        client.post("", &message(b"hi"));
        let stream = scene.peer.request().stream;
        scene.peer.answer(stream, &message(b"well"));
        let good = streamed(&[&message(b"well"), &trailer_frame(super::OK)]);
        assert_eq!(client.answer(), good);
        assert_eq!(scene.world.record().reason, Reason::Ok);
        let request = crate::client::request("", &message(b"hi"));
        if round % 2 == 0 {
            scene.world.command(Command::Drain(PATIENCE));
            client.try_send(&request);
        } else {
            client.try_send(&request);
            scene.world.command(Command::Drain(PATIENCE));
        }
        // Either the backend has it, and then it is answered, or nobody has, and the connection ends without a word and without
        // a reset that would have taken an answer away.
        let seen = loop {
            match scene.peer.next_within(Duration::from_millis(20)) {
                None if client.is_left_alone(Duration::from_millis(1)) => {}
                // What the backend was told came before the end of the connection.
                None => break scene.peer.next_within(Duration::from_millis(100)),
                seen => break seen,
            }
        };
        match seen {
            Some(crate::backend::Seen::Head { stream, .. }) => {
                assert_eq!(scene.peer.body(stream), message(b"hi"));
                scene.peer.answer(stream, &message(b"well"));
                let answer = client.answer();
                assert!(answer.whole && answer.body == good.body, "round {round}");
                client.assert_closed();
            }
            None => client.assert_closed(),
            other => panic!("round {round}: {other:?}"),
        }
    }
}

#[test]
fn s_01_answers_that_a_slow_reader_has_yet_to_take_come_whole() {
    const CALLS: usize = 20;
    const ANSWER: usize = 60_000;
    // Whether we leave, or the connection has been idle for long enough as soon as it is.
    for drains in [true, false] {
        let mut plan = Plan::default();
        if !drains {
            plan.limits.idle_timeout = Duration::from_millis(300);
        }
        let mut scene = Scene::with(plan);
        let settings = [(INITIAL_WINDOW_SIZE, WINDOW_MAX)];
        let mut caller = Caller::narrow(scene.world.address, 4 << 10, &settings);
        caller.window(0, WINDOW_MAX - 65_535);
        caller.raw(&frame(SETTINGS, ACK, 0, b""));
        // It does not answer the first step of the goodbye.
        caller.acknowledges = false;
        for _ in 0..CALLS {
            caller.call(&message(b"hi"));
            let begun = scene.peer.request().stream;
            scene.peer.answer(begun, &message(&[7; ANSWER]));
            let record = scene.world.record();
            assert_eq!((record.reason, record.aborted), (Reason::Ok, false));
        }
        if drains {
            let patience = Command::Drain(Duration::from_secs(30));
            scene.world.command(patience);
        }
        thread::sleep(BETWEEN + Duration::from_millis(500));
        let (mut bytes, mut whole) = (0, 0);
        loop {
            match caller.next() {
                Heard::Data {
                    bytes: some, end, ..
                } => {
                    bytes += some.len();
                    whole += usize::from(end);
                }
                Heard::End => break,
                Heard::Head { .. } | Heard::GoAway { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(whole, CALLS, "drains: {drains}, {bytes} bytes");
        assert!(bytes > CALLS * ANSWER, "{bytes}");
    }
}
