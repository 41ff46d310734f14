//! What a connection to a backend must live through: mass cancellations, late frames, GOAWAY under load, frames that mean
//! nothing. Every test ends with a healthy call on the same connection.

use std::thread;
use std::time::Duration;

use wharf::wire::Reason;

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, alone, message, streamed, trailer_frame};
use crate::frames::{CANCEL, DATA, MAX_CONCURRENT_STREAMS, PADDED, PING, STREAM_CLOSED, frame};
use crate::world::{PATIENCE, World};

const OK: &str = "grpc-status:0\r\n";
const REFUSED: &str = "grpc-status:14\r\ngrpc-message:backend \"greeter\" refused the call\r\n";
/// After so long `h2` has forgotten the streams it has reset.
const FORGOTTEN: Duration = Duration::from_millis(1200);

/// So many calls, each of which the backend has.
fn open_calls(world: &World, backend: &Backend, count: usize) -> (Vec<Client>, Peer, Vec<u32>) {
    let first = Client::calling(world.address, &number(0));
    let mut peer = backend.accept();
    let mut streams = vec![peer.request().stream];
    let mut clients = vec![first];
    for index in 1..count as u32 {
        clients.push(Client::calling(world.address, &number(index)));
        streams.push(peer.request().stream);
    }
    (clients, peer, streams)
}

/// A message that says which call it is.
fn number(call: u32) -> Vec<u8> {
    message(&call.to_be_bytes())
}

/// All callers leave at once, and the backend has been told of each.
fn leave(world: &World, clients: Vec<Client>, peer: &mut Peer) {
    let count = clients.len();
    drop(clients);
    for _ in 0..count {
        assert!(matches!(peer.next(), Seen::Reset { code: CANCEL, .. }));
    }
    for _ in 0..count {
        assert_eq!(world.record().reason, Reason::ClientLeft);
    }
}

/// What comes before the answer to a PING must be resets of streams that are forgotten. How many there were.
fn resets_of_the_forgotten(peer: &mut Peer) -> usize {
    let mut resets = 0;
    // An answer to a PING goes before resets of the same turn: the second one comes behind them all.
    for _ in 0..2 {
        peer.frame(PING, 0, 0, b"anything");
        loop {
            match peer.next() {
                Seen::Reset { code, .. } => {
                    assert_eq!(code, STREAM_CLOSED);
                    resets += 1;
                }
                Seen::Pong => break,
                other => panic!("instead of a pong: {other:?}"),
            }
        }
    }
    resets
}

fn assert_serves(world: &World, peer: &mut Peer) {
    let mut client = Client::calling(world.address, &message(b"healthy"));
    let request = peer.request();
    assert_eq!(request.body, message(b"healthy"));
    peer.answer(request.stream, &message(b"well"));
    let expected = streamed(&[&message(b"well"), &trailer_frame(OK)]);
    assert_eq!(client.answer(), expected);
    let record = world.record();
    assert_eq!((record.reason, record.attempts), (Reason::Ok, 1));
}

#[test]
fn twelve_hundred_calls_cancelled_at_once_with_a_late_frame_each_cost_no_connection() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (clients, mut peer, streams) = open_calls(&world, &backend, 1200);
    leave(&world, clients, &mut peer);
    for &stream in &streams {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"late"), false);
    }
    // How many are forgotten by then is a matter of the clock; that the connection lives is not.
    resets_of_the_forgotten(&mut peer);
    assert_serves(&world, &mut peer);
}

#[test]
fn sixty_calls_cancelled_with_a_hundred_late_frames_each_cost_no_connection() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (clients, mut peer, streams) = open_calls(&world, &backend, 60);
    leave(&world, clients, &mut peer);
    for _ in 0..103 {
        for &stream in &streams {
            peer.data(stream, b"late", false);
        }
    }
    resets_of_the_forgotten(&mut peer);
    assert_serves(&world, &mut peer);
}

#[test]
fn late_frames_of_forgotten_streams_by_the_thousand_cost_no_connection() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (clients, mut peer, streams) = open_calls(&world, &backend, 60);
    leave(&world, clients, &mut peer);
    let mut resets = 0;
    for _ in 0..3 {
        thread::sleep(FORGOTTEN);
        for &stream in &streams {
            for _ in 0..40 {
                peer.data(stream, b"late", false);
            }
            peer.trailers(stream, &[("grpc-status", "0")]);
        }
        resets += resets_of_the_forgotten(&mut peer);
    }
    assert!(resets >= 60, "{resets}: most were forgotten each time");
    assert_serves(&world, &mut peer);
}

#[test]
fn the_window_of_late_frames_is_given_back() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (clients, mut peer, streams) = open_calls(&world, &backend, 10);
    leave(&world, clients, &mut peer);
    // 2^31-1 bytes is what a connection may hold unread: 20 MiB of late frames say nothing yet, but each of them is charged.
    let mut charged = 0u64;
    let piece = frame(DATA, 0, streams[0], &[0; 16 << 10]);
    for _ in 0..1280 {
        peer.raw(&piece);
        charged += 16 << 10;
    }
    assert!(charged < 1 << 31);
    resets_of_the_forgotten(&mut peer);
    assert_serves(&world, &mut peer);
}

#[test]
fn goaway_under_load_repeats_what_was_not_processed_once_and_nothing_else() {
    const CALLS: usize = 200;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut first, streams) = open_calls(&world, &backend, CALLS);
    // Every second of the lower half has begun its answer.
    let last = streams[CALLS / 2 - 1];
    for &stream in streams[..CALLS / 2].iter().step_by(2) {
        first.grpc_head(stream);
    }
    first.go_away(last, 0);
    let mut second = backend.accept();
    let again = second.requests(CALLS / 2);
    let mut bodies: Vec<_> = again.iter().map(|request| request.body.clone()).collect();
    bodies.sort();
    let expected: Vec<_> = (CALLS as u32 / 2..CALLS as u32).map(number).collect();
    assert_eq!(bodies, expected, "each above the last id, once");
    second.assert_quiet();
    // The second connection is left as well: its upper half has been repeated once, and that is all.
    let last = again[CALLS / 4 - 1].stream;
    second.go_away(last, 0);
    for request in &again[..CALLS / 4] {
        second.answer(request.stream, &request.body);
    }
    for (index, &stream) in streams[..CALLS / 2].iter().enumerate() {
        let body = number(index as u32);
        if index % 2 == 0 {
            first.data(stream, &body, false);
            first.trailers(stream, &[("grpc-status", "0")]);
        } else {
            first.answer(stream, &body);
        }
    }
    let refused: Vec<_> = again[CALLS / 4..]
        .iter()
        .map(|request| &request.body)
        .collect();
    for (index, client) in (0u32..).zip(&mut clients) {
        let body = number(index);
        let answer = client.answer();
        if refused.contains(&&body) {
            assert_eq!(answer, alone(REFUSED), "call {index}");
        } else {
            assert_eq!(
                answer,
                streamed(&[&body, &trailer_frame(OK)]),
                "call {index}"
            );
        }
    }
    let mut attempts = [0; 3];
    for _ in 0..CALLS {
        attempts[world.record().attempts as usize] += 1;
    }
    assert_eq!(attempts, [0, CALLS / 2, CALLS / 2]);
    assert!(backend.is_left_alone(Duration::from_millis(100)));
}

#[test]
fn waiting_calls_that_are_cancelled_never_reach_the_backend() {
    const WAITING: u32 = 50;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut first = Client::calling(world.address, &message(b"first"));
    let mut peer = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let stream = peer.request().stream;
    let mut clients: Vec<_> = (0..WAITING)
        .map(|index| Some(Client::calling(world.address, &number(index))))
        .collect();
    for client in clients.iter_mut().step_by(2) {
        *client = None;
    }
    for _ in 0..WAITING / 2 {
        let record = world.record();
        assert_eq!((record.reason, record.attempts), (Reason::ClientLeft, 0));
    }
    peer.assert_quiet();
    peer.answer(stream, b"");
    assert!(first.answer().whole);
    let mut seen = Vec::new();
    for _ in 0..WAITING / 2 {
        let request = peer.request();
        peer.assert_quiet();
        peer.answer(request.stream, &request.body);
        seen.push(request.body);
    }
    seen.sort();
    let expected: Vec<_> = (0..WAITING).skip(1).step_by(2).map(number).collect();
    assert_eq!(seen, expected);
    peer.assert_quiet();
    for client in clients.iter_mut().flatten() {
        assert!(client.answer().whole);
    }
}

#[test]
fn u_22_padding_around_nothing_costs_neither_the_connection_nor_its_window() {
    const FRAMES: u32 = 3_000;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
    let stream = streams[0];
    let padded = frame(DATA, PADDED, stream, &[&[255][..], &[0; 255]].concat());
    peer.grpc_head(stream);
    // 750 KiB of padding through a window of 128: whatever it has used comes back.
    let mut window = 128i64 << 10;
    for _ in 0..FRAMES {
        while window < 256 {
            match peer.next_or_window(stream, PATIENCE) {
                Some(Ok(more)) => window += i64::from(more),
                other => panic!("instead of window: {other:?}"),
            }
        }
        peer.raw(&padded);
        window -= 256;
    }
    peer.data(stream, &message(b"one"), false);
    peer.raw(&padded);
    peer.trailers(stream, &[("grpc-status", "0")]);
    let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    assert_eq!(clients[0].answer(), expected);
    assert_eq!(world.record().reason, Reason::Ok);
    // One with each of three hundred answers: `h2` would give up at the 101st.
    for _ in 0..300 {
        clients[0].post("", &message(b"hi"));
        let stream = peer.request().stream;
        peer.grpc_head(stream);
        peer.frame(DATA, PADDED, stream, &[0]);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[("grpc-status", "0")]);
        assert_eq!(clients[0].answer(), expected);
        assert_eq!(world.record().reason, Reason::Ok);
    }
    assert_serves(&world, &mut peer);
}

#[test]
fn a_flood_of_empty_frames_on_one_stream_keeps_no_other_call_waiting() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (mut clients, mut peer, streams) = open_calls(&world, &backend, 1);
    let mut other = Client::new(world.address);
    let flood = frame(DATA, 0, streams[0], b"").repeat(100_000);
    peer.grpc_head(streams[0]);
    let sender = peer.send_beside(flood);
    // In the midst of it somebody else calls, on another connection of a client and on the same one of the backend.
    other.post("", &message(b"hi"));
    let stream = peer.request().stream;
    sender.join().expect("the proxy reads");
    peer.answer(stream, &message(b"one"));
    let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    assert_eq!(other.answer(), expected);
    peer.trailers(streams[0], &[("grpc-status", "0")]);
    assert_eq!(clients[0].answer(), streamed(&[&trailer_frame(OK)]));
    world.record();
    world.record();
    assert_serves(&world, &mut peer);
}
