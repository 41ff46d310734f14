//! What is sent again, and what never is: only what provably was not processed, once.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf::policy::Target;
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Seen};
use crate::caller::{CALL, Caller, head};
use crate::client::{Client, alone, message, streamed, trailer_frame};
use crate::frames::{DATA, INITIAL_WINDOW_SIZE, REFUSED_STREAM, frame};
use crate::world::{Plan, World};

const REFUSED: &str = "grpc-status:14\r\ngrpc-message:backend \"greeter\" refused the call\r\n";
const CLOSED: &str = "grpc-status:14\r\ngrpc-message:backend \"greeter\" closed the connection\r\n";
/// In which nothing comes that should not. Where something would, it comes within a millisecond or so.
const A_MOMENT: Duration = Duration::from_millis(100);

#[test]
fn u_03_a_call_above_a_goaway_is_made_once_more_on_another_connection_byte_for_byte() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let payload: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = Client::calling(world.address, &message(&payload));
    let mut first = backend.accept();
    let seen = first.request();
    first.go_away(0, 0);
    let mut second = backend.accept();
    let again = second.request();
    assert_eq!((&again.fields, &again.body), (&seen.fields, &seen.body));
    assert_eq!(again.body, message(&payload));
    second.answer(again.stream, &message(b"one"));
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(client.answer(), streamed(&[&message(b"one"), &end]));
    let record = world.record();
    assert_eq!((record.reason, record.attempts), (Reason::Ok, 2));
    second.assert_quiet();
    // It was the only call of the first connection, which has nothing left to do.
    assert!(matches!(first.next(), Seen::GoAway | Seen::End));
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn u_03_every_call_above_a_goaway_is_made_again_and_those_below_go_on() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut clients = Vec::new();
    let mut first = None;
    for index in 0..5u8 {
        clients.push(Client::calling(world.address, &message(&[index])));
        let peer = first.get_or_insert_with(|| backend.accept());
        assert_eq!(peer.request().body, message(&[index]));
    }
    let mut first = first.expect("a connection");
    // Streams 1, 3 and 5 are taken, 7 and 9 are not.
    first.go_away(5, 0);
    let mut second = backend.accept();
    for again in second.requests(2) {
        second.answer(again.stream, &again.body);
    }
    for stream in [5, 1, 3] {
        first.answer(stream, &message(&[(stream as u8 - 1) / 2]));
    }
    let end = trailer_frame("grpc-status:0\r\n");
    for (index, client) in (0u8..).zip(&mut clients) {
        assert_eq!(client.answer(), streamed(&[&message(&[index]), &end]));
    }
    let mut attempts: Vec<u32> = (0..5).map(|_| world.record().attempts).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 1, 2, 2]);
}

#[test]
fn u_04_a_call_at_or_below_a_goaway_ends_where_it_is_and_new_ones_go_elsewhere() {
    left_behind(false);
}

#[test]
fn u_05_a_goaway_that_is_announced_by_another_is_the_same() {
    left_behind(true);
}

fn left_behind(announce: bool) {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"old"));
    let mut first = backend.accept();
    let old = first.request();
    if announce {
        first.go_away((1 << 31) - 1, 0);
    }
    first.go_away(old.stream, 0);
    first.grpc_head(old.stream);
    first.data(old.stream, &message(b"one"), false);
    let (_, begun) = client.chunked_start(8);
    assert_eq!(begun, message(b"one"));

    let mut other = Client::calling(world.address, &message(b"new"));
    let mut second = backend.accept();
    let new = second.request();
    assert_eq!(new.body, message(b"new"));
    second.answer(new.stream, b"");
    assert!(other.answer().whole);

    first.trailers(old.stream, &[("grpc-status", "0")]);
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(client.chunked_rest(), (end, true));
    assert_eq!(world.record().attempts, 1);
    assert_eq!(world.record().attempts, 1);
}

#[test]
fn a_call_at_or_below_a_goaway_whose_connection_ends_is_not_made_again() {
    // ENHANCE_YOUR_CALM is what servers say to a client that pings too often.
    for code in [0, 11] {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept();
        let stream = peer.request().stream;
        peer.go_away(stream, code);
        peer.finish();
        assert_eq!(client.answer(), alone(CLOSED));
        let record = world.record();
        assert_eq!((record.reason, record.attempts), (Reason::BackendClosed, 1));
        assert!(backend.is_left_alone(A_MOMENT));
    }
}

#[test]
fn u_p5_a_refused_call_is_made_once_more() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let first = peer.request();
    peer.reset(first.stream, REFUSED_STREAM);
    let second = peer.request();
    assert_eq!(second.stream, first.stream + 2);
    assert_eq!((second.fields, second.body), (first.fields, first.body));
    peer.answer(second.stream, &message(b"one"));
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(client.answer(), streamed(&[&message(b"one"), &end]));
    assert_eq!(world.record().attempts, 2);
    peer.assert_quiet();
}

#[test]
fn u_p5_a_call_that_is_refused_twice_is_unavailable() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    for _ in 0..2 {
        let stream = peer.request().stream;
        peer.reset(stream, REFUSED_STREAM);
    }
    assert_eq!(client.answer(), alone(REFUSED));
    let record = world.record();
    assert_eq!(record.code, Some(Code::UNAVAILABLE));
    assert_eq!(record.reason, Reason::BackendRefused);
    assert_eq!((record.by, record.attempts), (Party::Upstream, 2));
    peer.assert_quiet();
}

#[test]
fn u_p5_another_endpoint_is_asked_first_when_one_refuses() {
    let backends = [Backend::new(), Backend::new()];
    let world = World::new(&[&backends[0], &backends[1]]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peers = [backends[0].accept(), backends[1].accept()];
    // Whichever was ready first has it.
    let (chosen, head) = loop {
        if let Some(head) = peers[0].next_within(A_MOMENT) {
            break (0, head);
        }
        if let Some(head) = peers[1].next_within(A_MOMENT) {
            break (1, head);
        }
    };
    let Seen::Head { stream, .. } = head else {
        panic!("instead of a head: {head:?}");
    };
    assert_eq!(peers[chosen].body(stream), message(b"hi"));
    // Both are ready now: the other one has answered a PING.
    peers[1 - chosen].assert_quiet();
    peers[chosen].reset(stream, REFUSED_STREAM);
    let again = peers[1 - chosen].request();
    assert_eq!(again.body, message(b"hi"));
    peers[1 - chosen].answer(again.stream, b"");
    assert!(client.answer().whole);
    peers[chosen].assert_quiet();
    assert_eq!(world.record().attempts, 2);
}

#[test]
fn a_refused_call_that_was_too_large_to_keep_is_not_made_again() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let payload = vec![7; 100 << 10];
    let mut client = Client::calling(world.address, &message(&payload));
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(request.body, message(&payload));
    peer.reset(request.stream, REFUSED_STREAM);
    assert_eq!(client.answer(), alone(REFUSED));
    assert_eq!(world.record().attempts, 1);
    peer.assert_quiet();
}

#[test]
fn a_refusal_behind_a_head_is_believed_to_have_been_processed() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    peer.data(stream, &message(b"one"), false);
    client.chunked_start(8);
    peer.reset(stream, REFUSED_STREAM);
    let told = "grpc-status:14\r\n\
                grpc-message:backend \"greeter\" reset the stream (REFUSED_STREAM)\r\n";
    assert_eq!(client.chunked_rest(), (trailer_frame(told), true));
    assert_eq!(world.record().attempts, 1);
    peer.assert_quiet();
}

#[test]
fn u_p1_an_endpoint_that_cannot_be_reached_costs_no_call_where_there_is_another() {
    let good = Backend::new();
    let deaf = Backend::nobody();
    let world = World::new(&[&deaf, &good]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = good.accept();
    let request = peer.request();
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);
    assert_eq!(world.record().attempts, 1);
}

#[test]
fn u_p1_a_name_whose_first_address_is_dead_is_reached_by_its_second() {
    let (dead, backend) = (Backend::nobody(), Backend::new());
    let mut snapshot = Plan::default().snapshot(&[&dead]);
    let Target::Endpoints(endpoints) = &mut snapshot.backends[0].target else {
        panic!("a plan has endpoints");
    };
    endpoints[0].addresses.push(backend.address);
    let world = World::obeying(snapshot);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(request.body, message(b"hi"));
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);
    let record = world.record();
    assert_eq!((record.reason, record.attempts), (Reason::Ok, 1));
}

#[test]
fn u_p1_a_backend_that_cannot_be_reached_is_unavailable_and_the_message_says_why() {
    let deaf = Backend::nobody();
    let world = World::new(&[&deaf]);
    let told = "grpc-status:14\r\n\
                grpc-message:backend \"greeter\" is not reachable: nothing listens there\r\n";
    let mut client = Client::calling(world.address, &message(b"hi"));
    assert_eq!(client.answer(), alone(told));
    let record = world.record();
    assert_eq!(record.reason, Reason::BackendConnectRefused);
    assert_eq!((record.by, record.attempts), (Party::Proxy, 0));

    let rows: [(&[u8], &str, Reason); 4] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "does not speak gRPC",
            Reason::BackendNotGrpc(0),
        ),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "does not speak gRPC",
            Reason::BackendNotGrpc(0),
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x46",
            "wants TLS",
            Reason::BackendTls,
        ),
        (b"", "closed the connection", Reason::BackendClosed),
    ];
    for (bytes, words, reason) in rows {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept_silently();
        peer.raw(bytes);
        peer.finish();
        let told = format!("grpc-status:14\r\ngrpc-message:backend \"greeter\" {words}\r\n");
        assert_eq!(client.answer(), alone(&told));
        let record = world.record();
        assert_eq!((record.reason, record.attempts), (reason, 0));
        assert_eq!(record.code, Some(Code::UNAVAILABLE));
    }
}

#[test]
fn r_09_what_waits_for_its_backend_may_be_sent_again_however_much_others_hold() {
    const UPLOADS: usize = 40;
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.buffers_bytes_max = 1 << 20;
    let world = World::with(plan, &[&backend]);
    let mut opener = Client::calling(world.address, &message(b"hi"));
    let mut first = backend.accept();
    let taken = first.request().stream;
    // From now on the backend takes heads alone.
    first.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    first.answer(taken, b"");
    assert!(opener.answer().whole);
    assert_eq!(world.record().reason, Reason::Ok);
    let own = message(&[7; 20_000]);
    let mut client = Client::calling(world.address, &own);
    assert!(matches!(first.next(), Seen::Head { .. }));
    let mut hog = Caller::new(world.address);
    for _ in 0..UPLOADS {
        let stream = hog.fresh();
        let mut bytes = head(stream, &CALL, false);
        let content = &message(&[7; 1 << 20])[..60_000];
        let pieces = content.chunks(16_000);
        bytes.extend(pieces.flat_map(|piece| frame(DATA, 0, stream, piece)));
        hog.raw(&bytes);
    }
    // Room was made, and none of it where nothing would have been free.
    assert_eq!(world.record().reason, Reason::Overloaded);
    first.go_away(taken, 0);
    let mut second = backend.accept();
    let mut bodies: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let stream = loop {
        if let Seen::Data { stream, bytes, end } = second.next() {
            bodies.entry(stream).or_default().extend(bytes);
            // What others have sent has not come to its end.
            if end {
                break stream;
            }
        }
    };
    assert_eq!(bodies[&stream], own);
    second.answer(stream, &message(b"one"));
    let end = trailer_frame("grpc-status:0\r\n");
    assert_eq!(client.answer(), streamed(&[&message(b"one"), &end]));
    drop(hog);
}
