//! Where the record of a finished call goes: to whoever keeps them, past the control thread, and back to be written on again.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, unbounded};
use wharf::core::{Command, Flow, Report};
use wharf::telemetry::Record;
use wharf::wire::Reason;

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, PATH, message};
use crate::world::{PATIENCE, Plan, Stepped};

const A_MOMENT: Duration = Duration::from_millis(5);
const FIELDS: &str = "origin: http://page.test\r\nx-user-agent: me\r\nuser-agent: browser\r\n";

/// So many calls of one client that are refused: each has a record, and the connection stays.
fn be_refused(world: &mut Stepped, calls: usize) {
    let mut client = Client::new(world.address);
    for _ in 0..calls {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        (0..4).for_each(|_| world.turn());
        assert!(client.answer().head.starts_with("HTTP/1.1 405 "));
    }
}

/// How many records the core had to drop, by its last word, which is all that the control thread has heard.
fn dropped_at_the_end(world: &mut Stepped) -> u64 {
    world.command(Command::Stop);
    while world.core.turn() == Flow::Running {}
    let told: Vec<Report> = world.reports().collect();
    match told[..] {
        [
            Report::Stopped {
                records_dropped, ..
            },
        ] => records_dropped,
        _ => panic!("instead of the last word alone: {told:?}"),
    }
}

#[test]
fn whoever_keeps_the_records_has_them_instead_of_the_control_thread_and_a_full_channel_costs_some()
{
    const ROOM: usize = 3;
    let mut world = Stepped::new(Plan::default(), &[]);
    let (records, kept) = bounded(ROOM);
    world.core.keep_ledger(records, bounded(1).1);
    be_refused(&mut world, 5);
    assert!(kept.try_iter().all(|own| matches!(own, Report::Record(_))));
    assert_eq!(dropped_at_the_end(&mut world), 2);
}

#[test]
fn a_channel_without_a_bound_of_its_own_is_full_when_so_many_wait() {
    const REPORTS_MAX: usize = 8192;
    let mut world = Stepped::new(Plan::default(), &[]);
    let (records, kept) = unbounded();
    for _ in 1..REPORTS_MAX {
        records
            .send(Report::Failed { core: 0 })
            .expect("it is kept");
    }
    world.core.keep_ledger(records, bounded(1).1);
    be_refused(&mut world, 3);
    assert_eq!(kept.len(), REPORTS_MAX);
    assert_eq!(dropped_at_the_end(&mut world), 2);
}

/// Turns until a call of the one client has ended well.
fn serve(world: &mut Stepped, peer: &mut Peer, kept: &Receiver<Report>) -> Box<Record> {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "no call ended");
        world.turn();
        match peer.next_within(A_MOMENT) {
            Some(Seen::Head { stream, .. }) => {
                assert_eq!(peer.body(stream), message(b"hi"));
                peer.answer(stream, b"");
            }
            None => {}
            Some(other) => panic!("instead of a head: {other:?}"),
        }
        let own = |report| match report {
            Report::Record(record) => Some(record),
            _ => None,
        };
        if let Some(record) = kept.try_iter().find_map(own) {
            return record;
        }
    }
}

#[test]
fn a_record_that_is_written_on_again_tells_nothing_of_the_call_before() {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let (records, kept) = bounded(8);
    let (spent, spares) = bounded(8);
    world.core.keep_ledger(records, spares);
    let mut client = Client::new(world.address);
    client.post(FIELDS, &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    let first = serve(&mut world, &mut peer, &kept);
    assert!(client.answer().whole);
    assert_eq!(first.origin.as_deref(), Some("http://page.test"));
    assert_eq!(first.library.as_deref(), Some("me"));

    // Everything that a record can tell, and that the next call has nothing of.
    let place = std::ptr::from_ref(&*first);
    let mut stale = first;
    stale.path.push_str("/and/more");
    stale.refusal = Some("stale");
    stale.message = "stale".to_owned();
    stale.reason = Reason::Loop;
    stale.aborted = true;
    stale.attempts = 7;
    stale.request.messages = 99;
    spent.send(stale).expect("there is room");
    client.post("", &message(b"hi"));
    let second = serve(&mut world, &mut peer, &kept);
    assert!(client.answer().whole);
    assert_eq!(std::ptr::from_ref(&*second), place, "it is the same one");
    assert_eq!((second.verb.as_str(), second.path.as_str()), ("POST", PATH));
    assert_eq!((&second.origin, &second.library), (&None, &None));
    assert_eq!(second.refusal, None);
    assert_eq!((second.message.as_str(), second.reason), ("", Reason::Ok));
    assert_eq!((second.aborted, second.attempts), (false, 1));
    assert_eq!(second.request.messages, 1);

    // With texts again, and with none that could be written on.
    client.post(FIELDS, &message(b"hi"));
    let third = serve(&mut world, &mut peer, &kept);
    assert_eq!(third.origin.as_deref(), Some("http://page.test"));
    assert_eq!(third.library.as_deref(), Some("me"));
}

#[test]
fn whoever_prints_hears_of_an_attempt_before_the_calls_that_it_served_and_the_control_thread_hears_too()
 {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let (records, kept) = bounded(8);
    world.core.keep_ledger(records, bounded(1).1);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    let mut kept_all = Vec::new();
    while !kept_all.iter().any(|own| matches!(own, Report::Record(_))) {
        world.turn();
        if let Some(Seen::Head { stream, .. }) = peer.next_within(A_MOMENT) {
            assert_eq!(peer.body(stream), message(b"hi"));
            peer.answer(stream, b"");
        }
        kept_all.extend(kept.try_iter());
    }
    assert!(client.answer().whole);
    assert!(
        matches!(kept_all[..], [Report::Attempt(_), Report::Record(_)]),
        "{kept_all:?}"
    );
    let told: Vec<Report> = world.reports().collect();
    assert!(matches!(told[..], [Report::Attempt(_)]), "{told:?}");
}
