//! Deadlines: what is told to the backend of them, and how a call ends whose time is over, wherever it stands.

use std::time::{Duration, Instant};

use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Seen};
use crate::client::{Client, alone, cut, last, message, streamed, trailer_frame};
use crate::frames::{CANCEL, INITIAL_WINDOW_SIZE};
use crate::world::{Plan, Stepped, World};

pub(crate) const TOLD: &str =
    "grpc-status:4\r\ngrpc-message:the deadline of the call has passed\r\n";
const SOON: &str = "grpc-timeout: 300m\r\n";
const A_MOMENT: Duration = Duration::from_millis(100);

pub(crate) fn assert_late(world: &World, aborted: bool) {
    let record = world.record();
    assert_eq!(record.code, Some(Code::DEADLINE_EXCEEDED));
    assert_eq!(
        (record.reason, record.by, record.aborted),
        (Reason::Deadline, Party::Proxy, aborted)
    );
}

/// What stands in a `grpc-timeout`.
pub(crate) fn timeout_of(text: &str) -> Duration {
    let (digits, unit) = text.split_at(text.len() - 1);
    assert!((1..=8).contains(&digits.len()), "{text}");
    let count: u64 = digits.parse().expect("digits");
    match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => panic!("{text}"),
    }
}

#[test]
fn d_05_the_backend_is_told_what_remains() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("grpc-timeout: 999999999m\r\n", &message(b"hi"));
    // The greeting comes late, and so the call leaves late.
    let mut peer = backend.accept_silently();
    let before = Instant::now();
    assert!(client.is_left_alone(A_MOMENT));
    let waited = before.elapsed();
    peer.settings(&[]);
    let request = peer.request();
    assert_eq!(request.field("grpc-timeout"), Some("999999S"));
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);
    assert!(waited >= A_MOMENT);

    client.post("grpc-timeout: 60S\r\n", &message(b"hi"));
    let request = peer.request();
    let told = timeout_of(request.field("grpc-timeout").expect("a timeout"));
    assert!(told <= Duration::from_secs(60), "never larger: {told:?}");
    assert!(told > Duration::from_secs(40), "{told:?}");
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);

    // No time limit is no time limit.
    client.post("", &message(b"hi"));
    let request = peer.request();
    assert_eq!(request.field("grpc-timeout"), None);
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn d_05_time_that_was_spent_waiting_is_gone() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("grpc-timeout: 20S\r\n", &message(b"hi"));
    let mut peer = backend.accept_silently();
    assert!(client.is_left_alone(3 * A_MOMENT));
    peer.settings(&[]);
    let request = peer.request();
    let told = timeout_of(request.field("grpc-timeout").expect("a timeout"));
    let limit = Duration::from_secs(20) - 3 * A_MOMENT;
    assert!(told <= limit, "{told:?}");
    peer.answer(request.stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn d_04_time_is_over_while_the_backend_has_not_even_greeted() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post(SOON, &message(b"hi"));
    let mut peer = backend.accept_silently();
    assert_eq!(client.answer(), alone(TOLD));
    assert_late(&world, false);
    // The connection may be of use to the next one; the call that is over never reaches it.
    peer.settings(&[]);
    peer.assert_quiet();
}

#[test]
fn d_04_time_is_over_before_the_head_between_messages_and_inside_one() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut peer = None;
    let half = &message(b"other")[..7];
    let whole = message(b"one");
    let rows: [&[&[u8]]; 4] = [&[], &[b""], &[&whole], &[&whole, half]];
    for (row, pieces) in rows.into_iter().enumerate() {
        let mut client = Client::new(world.address);
        client.post(SOON, &message(b"hi"));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let stream = peer.request().stream;
        if row > 0 {
            peer.grpc_head(stream);
        }
        for piece in pieces {
            peer.data(stream, piece, false);
        }
        let body = pieces.concat();
        let expected = match row {
            0 => alone(TOLD),
            3 => cut(&[&body]),
            _ => streamed(&[&body, &trailer_frame(TOLD)]),
        };
        assert_eq!(client.answer(), expected);
        assert_late(&world, row == 3);
        peer.assert_reset(stream, CANCEL);
        peer.assert_quiet();
    }
}

#[test]
fn d_04_time_is_over_while_the_request_is_still_being_sent() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.send(
        b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
          grpc-timeout: 300m\r\ncontent-length: 10\r\n\r\n\0\0\0",
    );
    let mut peer = backend.accept();
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    assert_eq!(client.answer(), alone(TOLD));
    assert_late(&world, false);
    loop {
        match peer.next() {
            Seen::Data { end: false, .. } => {}
            other => {
                assert_eq!(
                    other,
                    Seen::Reset {
                        stream,
                        code: CANCEL
                    }
                );
                break;
            }
        }
    }
}

#[test]
fn u_17_time_is_over_for_a_call_whose_backend_reads_nothing() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post(SOON, &message(&[1; 100]));
    let mut peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, 0)]);
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    assert_eq!(client.answer(), alone(TOLD));
    assert_late(&world, false);
    peer.assert_reset(stream, CANCEL);
}

#[test]
fn u_01_a_backend_that_never_greets_is_unavailable_after_the_connect_timeout() {
    let backend = Backend::new();
    let plan = Plan {
        connect_timeout: Duration::from_millis(200),
        ..Plan::default()
    };
    let world = World::with(plan, &[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept_silently();
    let told = "grpc-status:14\r\n\
                grpc-message:backend \"greeter\" is not reachable: it does not answer\r\n";
    assert_eq!(client.answer(), alone(told));
    let record = world.record();
    assert_eq!(record.reason, Reason::BackendConnectTimeout);
    assert_eq!(peer.next(), Seen::End);
}

/// A call whose time is over while the core sleeps. When it wakes, the backend has answered like this.
fn answered_late(
    answer: impl Fn(&mut crate::backend::Peer, u32),
) -> (crate::client::Answer, Reason) {
    // Where the machine is so slow that the time may have been over before, it is done again.
    let mut told = (0..10).filter_map(|_| answered_late_once(&answer));
    told.next().expect("too slow to tell")
}

fn answered_late_once(
    answer: impl Fn(&mut crate::backend::Peer, u32),
) -> Option<(crate::client::Answer, Reason)> {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut client = Client::new(world.address);
    let began = Instant::now();
    client.post("grpc-timeout: 2S\r\n", &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    let mut call = None;
    while call.is_none() {
        world.turn();
        call = peer.next_within(Duration::from_millis(5));
    }
    let Some(Seen::Head { stream, .. }) = call else {
        panic!("instead of a head: {call:?}");
    };
    assert_eq!(peer.body(stream), message(b"hi"));
    if began.elapsed() >= Duration::from_secs(1) {
        return None;
    }
    answer(&mut peer, stream);
    assert!(client.is_left_alone(Duration::from_millis(2200)));
    let record = world.turn_until_record();
    let answer = client.answer();
    // Its timer is gone with it: it ends once.
    for _ in 0..3 {
        world.turn();
    }
    assert!(world.record().is_none(), "it has ended twice");
    Some((answer, record.reason))
}

#[test]
fn a_reset_at_the_deadline_is_the_deadline_whoevers_timer_was_first() {
    let (answer, reason) = answered_late(|peer, stream| peer.reset(stream, CANCEL));
    assert_eq!((answer, reason), (alone(TOLD), Reason::Deadline));
    let (answer, reason) = answered_late(|peer, _| peer.finish());
    assert_eq!((answer, reason), (alone(TOLD), Reason::Deadline));
}

#[test]
fn a_cancelled_at_the_deadline_is_the_deadline() {
    let (answer, reason) = answered_late(|peer, stream| {
        let fields = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "1"),
        ];
        peer.head(stream, &fields, true);
    });
    assert_eq!((answer, reason), (alone(TOLD), Reason::Deadline));
    let (answer, reason) = answered_late(|peer, stream| {
        peer.grpc_head(stream);
        peer.data(stream, &message(b"one"), false);
        peer.trailers(stream, &[("grpc-status", "1")]);
    });
    let expected = streamed(&[&message(b"one"), &trailer_frame(TOLD)]);
    assert_eq!((answer, reason), (expected, Reason::Deadline));
}

#[test]
fn d_12_an_answer_that_is_whole_in_the_turn_of_the_deadline_is_the_answer() {
    let (answer, reason) = answered_late(|peer, stream| peer.answer(stream, &message(b"one")));
    let end = trailer_frame("grpc-status:0\r\n");
    let expected = streamed(&[&message(b"one"), &end]);
    assert_eq!((answer, reason), (expected, Reason::Ok));
}

#[test]
fn an_open_call_is_told_when_the_drain_is_over() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    peer.data(stream, &message(b"one"), false);
    client.chunked_start(8);
    world.command(wharf::core::Command::Drain(Duration::from_millis(100)));
    let told = "grpc-status:14\r\ngrpc-message:the proxy is shutting down\r\n";
    assert_eq!(client.chunked_rest(), (trailer_frame(told), true));
    client.assert_closed();
    let record = world.record();
    assert_eq!((record.reason, record.by), (Reason::Draining, Party::Proxy));
}

#[test]
fn a_call_that_ends_during_the_drain_says_that_it_was_the_last() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    world.command(wharf::core::Command::Drain(Duration::from_secs(15)));
    // The proxy has heard it: nobody can connect any more.
    while std::net::TcpStream::connect(world.address).is_ok() {}
    let fields = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "0"),
    ];
    peer.head(stream, &fields, true);
    assert_eq!(client.answer(), last("grpc-status:0\r\n"));
    client.assert_closed();
    assert_eq!(world.record().reason, Reason::Ok);
}
