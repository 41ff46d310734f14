//! A caller that leaves: the backend learns it at once.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::client::Call;
use crate::peers::Wharf;
use crate::peers::echo::{Echo, SAY, STREAM, Say, Stack, Stream};
use crate::peers::program::note;

/// Between the caller's close and the backend's own word that it saw it, on the machine's clock.
fn measure(stack: Stack, leave: impl Fn(&Wharf, &str) -> SystemTime) -> Duration {
    let backend = Echo::shared(stack);
    let wharf = Wharf::before(backend.address);
    let mut times: Vec<Duration> = (0..20)
        .map(|round| {
            let id = format!("leave-{}-{round}", wharf.address.port());
            let left = leave(&wharf, &id);
            let (seen, _) = backend.wait_cancelled(&id);
            seen.duration_since(left).unwrap_or_default()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn check(what: &str, median: Duration) {
    note(&format!(
        "{what}: the backend saw the cancellation after {median:?} (median of 20)"
    ));
    // The promise is 50 ms; other programs share the machine with this test.
    assert!(median < Duration::from_millis(500), "{what}: {median:?}");
}

#[test]
fn a_caller_that_leaves_a_stream_cancels_it_at_the_backend() {
    for stack in [Stack::Grpcio, Stack::Tonic] {
        let median = measure(stack, |wharf, id| {
            let held = Stream {
                count: 2,
                hold_after: 1,
                id: id.to_owned(),
                ..Stream::default()
            };
            let mut answering = Call::new(STREAM)
                .message(held.to_bytes())
                .begin(wharf.address);
            answering.message();
            let left = SystemTime::now();
            drop(answering);
            left
        });
        check(&format!("stream, {stack:?}"), median);
    }
}

#[test]
fn a_caller_that_leaves_a_unary_call_cancels_it_at_the_backend() {
    for stack in [Stack::Grpcio, Stack::Tonic] {
        let median = measure(stack, |wharf, id| {
            let slow = Say {
                delay_ms: 30_000,
                id: id.to_owned(),
                ..Say::default()
            };
            let mut connection = crate::client::Connection::open(wharf.address);
            connection.send(&Call::new(SAY).message(slow.to_bytes()).to_bytes());
            // Long enough that the call has reached the backend.
            std::thread::sleep(Duration::from_millis(100));
            let left = SystemTime::now();
            drop(connection);
            left
        });
        check(&format!("unary, {stack:?}"), median);
    }
}

#[test]
fn a_stream_that_was_left_prints_cancelled() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let held = Stream {
        count: 9,
        hold_after: 3,
        id: "line".into(),
        ..Stream::default()
    };
    let mut answering = Call::new(STREAM)
        .message(held.to_bytes())
        .begin(wharf.address);
    for _ in 0..3 {
        answering.message();
    }
    drop(answering);
    wharf.wait_call_line(&["wharf.test.v1.Echo/Stream", "CANCELLED"]);
}

#[test]
fn one_caller_that_leaves_does_not_disturb_another_on_the_same_backend() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let stays = Stream {
        count: 20,
        interval_ms: 20,
        ..Stream::default()
    };
    let leaves = Stream {
        count: 2,
        hold_after: 1,
        id: "neighbour".into(),
        ..Stream::default()
    };
    let mut staying = Call::new(STREAM)
        .message(stays.to_bytes())
        .begin(wharf.address);
    staying.message();
    for _ in 0..5 {
        let mut leaving = Call::new(STREAM)
            .message(leaves.to_bytes())
            .begin(wharf.address);
        leaving.message();
    }
    let answer = staying.rest();
    assert_eq!(answer.messages.len(), 19);
    assert_eq!(answer.status(), 0);
}

#[test]
fn s_13_signals_that_mean_nothing_here_cut_no_call() {
    let backend = Echo::shared(Stack::Grpcio);
    let wharf = Wharf::before(backend.address);
    let held = Stream {
        count: 2,
        hold_after: 1,
        id: format!("signals-{}", wharf.address.port()),
        ..Stream::default()
    };
    let mut answering = Call::new(STREAM)
        .message(held.to_bytes())
        .begin(wharf.address);
    answering.message();
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
        wharf.program.signal(signal);
        // A whole call after each, beside the one that is held open.
        let got = Call::new(SAY)
            .message(Say::default().to_bytes())
            .make(wharf.address);
        assert_eq!(got.status(), 0, "{signal:?}");
    }
    // Stopped by a debugger or a laptop's lid, and woken again: nothing is lost.
    wharf.program.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(1));
    wharf.program.signal(Signal::CONT);
    let got = Call::new(SAY)
        .message(Say::default().to_bytes())
        .make(wharf.address);
    assert_eq!(got.status(), 0);
    drop(answering);
    wharf.program.terminate();
    assert!(wharf.program.wait(Duration::from_secs(20)).success());
}
