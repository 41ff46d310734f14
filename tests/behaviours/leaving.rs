//! Callers who leave: the backend is told in the same turn of the loop.

use std::time::Duration;

use wharf::telemetry::Record;
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, message, request};
use crate::frames::{CANCEL, INITIAL_WINDOW_SIZE};
use crate::world::{Plan, Stepped, World};

/// Loopback delivers within the system call that sends; this only bounds the wait for what has not been sent.
const AT_ONCE: Duration = Duration::from_millis(20);

/// A call that the backend has, in a core that stands still.
fn called(backend: &Backend, world: &mut Stepped, client: &mut Client) -> (Peer, u32) {
    client.post("", &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    let stream = loop {
        world.turn();
        match peer.next_within(AT_ONCE) {
            None => {}
            Some(Seen::Head { stream, .. }) => break stream,
            Some(other) => panic!("instead of a head: {other:?}"),
        }
    };
    assert_eq!(peer.body(stream), message(b"hi"));
    (peer, stream)
}

fn assert_left(record: &Record) {
    assert_eq!(record.code, Some(Code::CANCELLED));
    assert_eq!(
        (record.reason, record.by, record.aborted),
        (Reason::ClientLeft, Party::Downstream, false)
    );
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Close,
    Reset,
    HalfClose,
}

#[test]
fn h1_67_the_backend_is_told_in_the_turn_in_which_the_client_leaves() {
    for way in [Way::Close, Way::Reset, Way::HalfClose] {
        for streaming in [false, true] {
            let backend = Backend::new();
            let mut world = Stepped::new(Plan::default(), &[&backend]);
            let mut client = Client::new(world.address);
            let (mut peer, stream) = called(&backend, &mut world, &mut client);
            if streaming {
                peer.grpc_head(stream);
                peer.data(stream, &message(b"one"), false);
                while client.is_left_alone(Duration::from_millis(1)) {
                    world.turn();
                }
            }
            // Everything that was to be said has been said.
            world.turn();
            assert_eq!(peer.next_within(AT_ONCE), None, "{way:?}");

            let mut kept = None;
            match way {
                Way::Close => drop(client),
                Way::Reset => client.abort(),
                Way::HalfClose => {
                    client.finish();
                    kept = Some(client);
                }
            }
            world.turn();
            let told = Seen::Reset {
                stream,
                code: CANCEL,
            };
            assert_eq!(peer.next_within(AT_ONCE), Some(told), "{way:?}");
            assert_left(&world.record().expect("the call has ended"));
            assert_eq!(world.core.census().1, 0, "its place is free");
            drop(kept);
        }
    }
}

#[test]
fn a_client_that_leaves_before_there_is_a_connection_is_never_seen_by_the_backend() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept_silently();
    drop(client);
    let record = world.record();
    assert_left(&record);
    assert_eq!(record.attempts, 0);
    peer.settings(&[]);
    peer.assert_quiet();
}

#[test]
fn a_client_that_leaves_the_queue_is_never_seen_by_the_backend_and_the_next_one_is() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut first = Client::calling(world.address, &message(b"first"));
    let mut peer = backend.accept_with(&[(crate::frames::MAX_CONCURRENT_STREAMS, 1)]);
    let stream = peer.request().stream;
    let second = Client::calling(world.address, &message(b"second"));
    let mut third = Client::calling(world.address, &message(b"third"));
    drop(second);
    assert_left(&world.record());
    peer.answer(stream, b"");
    assert!(first.answer().whole);
    let request = peer.request();
    assert_eq!(request.body, message(b"third"));
    peer.answer(request.stream, b"");
    assert!(third.answer().whole);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_request_cancels_it() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    // Enough of a message for a frame of its own.
    let whole = request("", &message(&[7; 1000]));
    client.send(&whole[..whole.len() - 500]);
    let mut peer = backend.accept();
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    assert!(matches!(peer.next(), Seen::Data { end: false, .. }));
    client.abort();
    peer.assert_reset(stream, CANCEL);
    assert_left(&world.record());
}

#[test]
fn h1_67_a_client_that_closes_while_its_request_waits_for_window_cancels_it() {
    const WINDOW: usize = 10_000;
    // How much was announced, how much of it came: all of it, or so much that its end is far away. No more than the proxy
    // and its kernel hold in between: a FIN behind what nobody takes has not arrived.
    for (announced, came) in [(40_000, 40_000), (100_000, 100_000), (2_000_000, 100_000)] {
        for half in [false, true] {
            let backend = Backend::new();
            let world = World::new(&[&backend]);
            let mut client = Client::new(world.address);
            let body = message(&vec![7; announced - 5]);
            let request = request("", &body);
            client.send(&request[..request.len() - announced + came]);
            let mut peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, WINDOW as u32)]);
            let Seen::Head { stream, .. } = peer.next() else {
                panic!("no head");
            };
            let mut got = 0;
            while got < WINDOW {
                match peer.next() {
                    Seen::Data { bytes, .. } => got += bytes.len(),
                    other => panic!("instead of data: {other:?}"),
                }
            }
            assert_eq!(got, WINDOW);
            peer.assert_quiet();
            let mut kept = None;
            if half {
                client.finish();
                kept = Some(client);
            } else {
                drop(client);
            }
            peer.assert_reset(stream, CANCEL);
            // A cut body or a client that left: whichever is seen first.
            assert_eq!(world.record().by, Party::Downstream);
            drop(kept);
        }
    }
}

#[test]
fn a_call_that_is_cut_by_the_end_of_the_process_leaves_a_record() {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut client = Client::new(world.address);
    let (_peer, _) = called(&backend, &mut world, &mut client);
    assert!(world.record().is_none());
    world.stop();
    let record = world.record().expect("it has ended");
    assert_eq!((record.reason, record.by), (Reason::Draining, Party::Proxy));
    assert!(world.record().is_none(), "one call, one record");
}

#[test]
fn a_client_that_reads_nothing_stops_its_backend_and_is_given_up_in_the_end() {
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.stall_timeout = Duration::from_millis(500);
    let world = World::with(plan, &[&backend]);
    let client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    // More than every buffer on the way can hold, but no more than one window at a time.
    let mut sent = 0u64;
    let mut window = 128i64 << 10;
    let piece = message(&[0; 16 << 10]);
    let reset = loop {
        if window >= piece.len() as i64 {
            peer.data(stream, &piece, false);
            window -= piece.len() as i64;
            sent += piece.len() as u64;
        }
        let wait = if window >= piece.len() as i64 {
            Duration::from_micros(1)
        } else {
            crate::world::PATIENCE
        };
        match peer.next_or_window(stream, wait) {
            Some(Ok(more)) => window += i64::from(more),
            Some(Err(seen)) => break seen,
            None => {}
        }
    };
    assert_eq!(
        reset,
        Seen::Reset {
            stream,
            code: CANCEL
        }
    );
    let record = world.record();
    assert_eq!(record.reason, Reason::ClientTooSlow);
    // What the kernel's buffers hold on this machine, and not much more.
    assert!(
        sent < 64 << 20,
        "{sent} bytes were taken for a client that reads nothing"
    );
    drop(client);
}
