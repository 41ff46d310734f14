//! Many calls and few connections: the peer's limits are kept, whatever waits.

use std::time::Duration;

use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Seen};
use crate::client::{Client, alone, message, streamed, trailer_frame};
use crate::frames::{MAX_CONCURRENT_STREAMS, frame, settings_payload};
use crate::world::{Plan, World};

const OK: &str = "grpc-status:0\r\n";

#[test]
fn u_19_a_backend_that_takes_one_call_at_a_time_gets_one_at_a_time_and_all_are_served() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut clients: Vec<Client> = (0..20u8)
        .map(|index| Client::calling(world.address, &message(&[index])))
        .collect();
    let mut peer = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let request = peer.request();
        // Had it sent a second one, that would have come before the answer to this PING.
        peer.assert_quiet();
        peer.answer(request.stream, &request.body);
        seen.push(request.body);
    }
    for (index, client) in (0u8..).zip(&mut clients) {
        let expected = streamed(&[&message(&[index]), &trailer_frame(OK)]);
        assert_eq!(client.answer(), expected);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20, "each call once");
    peer.assert_quiet();
}

#[test]
fn u_19_settings_that_come_in_pieces_count_before_the_first_call_leaves() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut clients: Vec<Client> = (0..5u8)
        .map(|index| Client::calling(world.address, &message(&[index])))
        .collect();
    let mut peer = backend.accept_silently();
    let settings = frame(4, 0, 0, &settings_payload(&[(MAX_CONCURRENT_STREAMS, 1)]));
    for piece in settings.chunks(5) {
        peer.raw(piece);
        assert!(clients[0].is_left_alone(Duration::from_millis(50)));
    }
    for _ in 0..5 {
        let request = peer.request();
        peer.assert_quiet();
        peer.answer(request.stream, b"");
    }
    assert!(clients.iter_mut().all(|client| client.answer().whole));
}

#[test]
fn u_19_a_limit_that_shrinks_and_grows_is_kept() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut clients: Vec<Client> = (0..9u8)
        .map(|index| Client::calling(world.address, &message(&[index])))
        .collect();
    let mut peer = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 3)]);
    let first = peer.requests(3);
    peer.assert_quiet();
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 1)]);
    for request in &first[..2] {
        peer.answer(request.stream, b"");
        peer.assert_quiet();
    }
    peer.answer(first[2].stream, b"");
    let alone = peer.request();
    peer.assert_quiet();
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 100)]);
    let rest = peer.requests(5);
    peer.assert_quiet();
    for request in rest.iter().chain([&alone]) {
        peer.answer(request.stream, b"");
    }
    assert!(clients.iter_mut().all(|client| client.answer().whole));
}

#[test]
fn u_19_who_finds_the_queue_full_is_told_at_once() {
    let backend = Backend::new();
    let plan = Plan {
        pending_max: 2,
        ..Plan::default()
    };
    let world = World::with(plan, &[&backend]);
    let mut served = Client::calling(world.address, &message(b"served"));
    let mut peer = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let first = peer.request();
    let mut others: Vec<Client> = (0..5)
        .map(|_| Client::calling(world.address, &message(b"waits")))
        .collect();
    let told = "grpc-status:14\r\ngrpc-message:backend \"greeter\" is busy: too many calls wait for it, or this one has waited too long\r\n";
    for _ in 0..3 {
        let record = world.record();
        assert_eq!(record.code, Some(Code::UNAVAILABLE));
        assert_eq!(record.reason, Reason::PendingOverflow);
        assert_eq!((record.by, record.attempts), (Party::Proxy, 0));
    }
    peer.answer(first.stream, b"");
    assert!(served.answer().whole);
    for _ in 0..2 {
        let request = peer.request();
        peer.answer(request.stream, b"");
    }
    let answers: Vec<_> = others.iter_mut().map(Client::answer).collect();
    let turned_away = answers.iter().filter(|&answer| *answer == alone(told));
    assert_eq!(turned_away.count(), 3);
    let good = streamed(&[&trailer_frame(OK)]);
    assert_eq!(answers.iter().filter(|&answer| *answer == good).count(), 2);
    peer.assert_quiet();
}

#[test]
fn u_19_a_backend_that_takes_no_call_gets_none() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("grpc-timeout: 300m\r\n", &message(b"hi"));
    let mut peer = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 0)]);
    let told = "grpc-status:4\r\ngrpc-message:the deadline of the call has passed\r\n";
    assert_eq!(client.answer(), alone(told));
    peer.assert_quiet();
}

#[test]
fn more_connections_are_made_where_one_is_full_and_no_more_than_are_allowed() {
    let backend = Backend::new();
    let plan = Plan {
        connections_max: 2,
        ..Plan::default()
    };
    let world = World::with(plan, &[&backend]);
    let mut clients: Vec<Client> = (0..6u8)
        .map(|index| Client::calling(world.address, &message(&[index])))
        .collect();
    let mut first = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let mut second = backend.accept_with(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let mut served = 0;
    while served < 6 {
        for peer in [&mut first, &mut second] {
            let request = match peer.next_within(Duration::from_millis(50)) {
                None => continue,
                Some(Seen::Head { stream, .. }) => stream,
                Some(other) => panic!("instead of a head: {other:?}"),
            };
            peer.body(request);
            peer.answer(request, b"");
            served += 1;
        }
    }
    assert!(clients.iter_mut().all(|client| client.answer().whole));
    assert!(backend.is_left_alone(Duration::from_millis(50)));
}

#[test]
fn ten_thousand_answers_with_an_empty_frame_in_each_cost_no_connection() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
    for call in 0..10_000 {
        let stream = peer.request().stream;
        assert_eq!(stream, 2 * call + 1);
        peer.grpc_head(stream);
        peer.data(stream, b"", false);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[("grpc-status", "0")]);
        assert_eq!(client.answer(), expected);
        if call < 9_999 {
            client.post("", &message(b"hi"));
        }
    }
    peer.assert_quiet();
}
