//! Row R-21: a panic ends one key and nothing else. Here the code of others panics, in a real core; `tests/simulation` has
//! every step of our own panic, one after the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use wharf::core::{Flow, Report};
use wharf::policy::filter::{Filter, Peer, Verdict};
use wharf::policy::{Answer, Callee, RouteKind};
use wharf::telemetry::panics;
use wharf::wire::{OutgoingHead, Part, Reason, RequestHead, Reset, ResponseHead};

use crate::client::{Client, cut, last, message, streamed, trailer_frame};
use crate::faulty::{Faulty, Script, alone, hear_the_log, heard};
use crate::local::snapshot;
use crate::world::Stepped;

const TOLD: &str = "grpc-status:13\r\ngrpc-message:the proxy failed on this call\r\n";

/// Panics where the call's `x-panic` says; else a good answer.
#[derive(Debug)]
struct Fragile;

struct Shard {
    panics_at: String,
    step: usize,
    asked: bool,
}

impl Callee for Fragile {
    fn call(&self, head: &OutgoingHead) -> Box<dyn Answer> {
        let at = head.headers.get("x-panic");
        let panics_at = at.map_or("", |at| at.to_str().expect("ASCII")).to_owned();
        assert_ne!(panics_at, "call");
        Box::new(Shard {
            panics_at,
            step: 0,
            asked: false,
        })
    }
}

impl Answer for Shard {
    fn handle_part(&mut self, part: Part) {
        match part {
            Part::End(_) => {
                assert_ne!(self.panics_at, "request end");
                self.asked = true;
            }
            _ => assert_ne!(self.panics_at, "request data"),
        }
    }

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        if !self.asked {
            return Poll::Pending;
        }
        let whole = message(b"an answer");
        let (begin, end) = whole.split_at(8);
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let (name, part) = match self.step {
            0 => ("head", Part::Head(Box::new(head))),
            1 => ("data", Part::Data(Bytes::copy_from_slice(begin))),
            2 => ("rest", Part::Data(Bytes::copy_from_slice(end))),
            _ => ("end", Part::End(Some(Box::new(trailers)))),
        };
        self.step += 1;
        assert_ne!(self.panics_at, name);
        Poll::Ready(Ok(part))
    }
}

#[test]
fn r_21_a_backend_in_the_process_that_panics_loses_its_call_and_the_caller_is_told_the_truth() {
    let mut world = Stepped::obeying(snapshot(RouteKind::Rpc, Arc::new(Fragile)), 0);
    let whole = message(b"an answer");
    let good = streamed(&[&whole, &trailer_frame("grpc-status:0\r\n")]);
    let mut neighbour = Client::new(world.address);
    let rows = [
        ("call", last(TOLD)),
        ("request data", last(TOLD)),
        ("request end", last(TOLD)),
        ("head", last(TOLD)),
        // On a message boundary the answer has its end, inside of a message it is cut.
        ("data", streamed(&[&trailer_frame(TOLD)])),
        ("rest", cut(&[&whole[..8]])),
        ("end", streamed(&[&whole, &trailer_frame(TOLD)])),
    ];
    for (count, (place, expected)) in rows.into_iter().enumerate() {
        let mut client = Client::new(world.address);
        client.post(&format!("x-panic: {place}\r\n"), &message(b"hi"));
        let record = world.turn_until_record();
        assert_eq!(record.reason, Reason::Panic, "{place}");
        assert_eq!(record.code.map(|code| code.number()), Some(13), "{place}");
        assert_eq!(record.aborted, !expected.whole, "{place}");
        (0..5).for_each(|_| world.turn());
        let answer = client.answer();
        assert_eq!(answer.body, expected.body, "{place}");
        assert_eq!(answer.head, expected.head, "{place}");
        assert_eq!(answer.whole, expected.whole, "{place}");
        // What was read of its connection may be lost: it closes.
        client.finish();
        (0..5).for_each(|_| world.turn());
        client.assert_closed();
        assert!(world.record().is_none(), "{place}: one record");
        assert_eq!(world.core.panics(), count as u64 + 1, "{place}: one panic");
        assert_eq!(world.core.census(), (1, 0, 0), "{place}: one key is lost");
        // A connection that was there before does not notice.
        neighbour.post("", &message(b"hi"));
        assert_eq!(world.turn_until_record().reason, Reason::Ok);
        (0..3).for_each(|_| world.turn());
        assert_eq!(neighbour.answer(), good);
    }
    world.stop();
    assert!(world.core.is_empty());
}

/// Panics on heads that ask for it.
#[derive(Debug)]
struct Brittle;

impl Filter for Brittle {
    fn request(&self, head: &mut RequestHead, _: &Peer) -> Verdict {
        assert!(!head.headers.contains("x-panic-request"));
        Verdict::Continue
    }

    fn response(&self, request: &RequestHead, _: &mut ResponseHead) {
        assert!(!request.headers.contains("x-panic-response"));
    }
}

#[test]
fn r_21_a_filter_that_panics_loses_its_call_however_often_it_is_asked() {
    let mut rules = snapshot(RouteKind::Rpc, Arc::new(Fragile));
    let routes = Arc::get_mut(&mut rules.routes).expect("nobody has it yet");
    routes[0].filters = Box::new([Box::new(Brittle)]);
    let mut world = Stepped::obeying(rules, 0);
    let mut neighbour = Client::new(world.address);
    let mut healthy = |world: &mut Stepped| {
        neighbour.post("", &message(b"hi"));
        assert_eq!(world.turn_until_record().reason, Reason::Ok);
        (0..3).for_each(|_| world.turn());
        assert!(neighbour.answer().whole);
    };
    // The decision is lost: the call ends before it was one, and its connection is none the worse.
    let mut client = Client::new(world.address);
    for _ in 0..2 {
        client.post("x-panic-request: 1\r\n", &message(b"hi"));
        let record = world.turn_until_record();
        assert_eq!(record.reason, Reason::Panic);
        assert_eq!(record.code.map(|code| code.number()), Some(13));
        (0..3).for_each(|_| world.turn());
        assert_eq!(client.answer(), crate::client::alone(TOLD));
        healthy(&mut world);
    }
    // No head can be sent at all, not even that of the bad news.
    for fields in [
        "x-panic-response: 1\r\n",
        "x-panic-request: 1\r\nx-panic-response: 1\r\n",
    ] {
        let mut client = Client::new(world.address);
        client.post(fields, &message(b"hi"));
        let record = world.turn_until_record();
        assert_eq!(record.reason, Reason::Panic);
        assert!(record.aborted);
        (0..5).for_each(|_| world.turn());
        client.finish();
        (0..5).for_each(|_| world.turn());
        client.assert_closed();
        assert!(world.record().is_none(), "one record");
        healthy(&mut world);
    }
    world.stop();
    assert!(world.core.is_empty());
}

#[test]
fn r_21_a_core_that_panics_without_end_takes_no_more_clients_and_says_that_it_has_failed() {
    let script = Rc::new(RefCell::new(Script {
        frozen: true,
        ..Script::default()
    }));
    let rules = snapshot(RouteKind::Rpc, Arc::new(Fragile));
    let mut world = Stepped::driven(rules, 0, None, |driver| Faulty::new(driver, &script));
    let mut staying = Client::new(world.address);
    staying.post("", &message(b"hi"));
    world.turn_until_record();
    assert!(staying.answer().whole);
    for round in 0..64 {
        assert!(!world.core.is_empty(), "{round}");
        let mut client = Client::new(world.address);
        client.post("x-panic: head\r\n", &message(b"hi"));
        assert_eq!(world.turn_until_record().reason, Reason::Panic);
        for _ in 0..3 {
            world.turn_or_end();
        }
        assert_eq!(client.answer(), last(TOLD));
    }
    // It drains: nobody is accepted, and the last word tells why.
    let refused = std::net::TcpStream::connect(world.address);
    assert!(refused.is_err(), "the listener is closed");
    staying.finish();
    while world.core.turn() == Flow::Running {
        world.wake();
    }
    assert!(world.core.is_empty());
    let reports: Vec<Report> = world.reports().collect();
    let last_word = reports.last().expect("a last word");
    assert!(
        matches!(last_word, Report::Failed { core: 0 }),
        "{last_word:?}"
    );
}

#[test]
fn r_21_a_panic_is_told_in_one_line_with_its_place() {
    alone(
        "faults::panics::r_21_a_panic_is_told_in_one_line_with_its_place",
        || {
            hear_the_log();
            panics::tell_in_the_log();
            let worker = std::thread::Builder::new().name("wharf-worker-3".to_owned());
            let done = worker.spawn(|| {
                assert_eq!(panics::contained(|| panic!("it broke\nbadly")), None::<()>);
                assert_eq!(panics::quietly(|| panic!("unheard")), None::<()>);
            });
            done.expect("a thread").join().expect("both were contained");
            let lines = heard();
            let [line] = &lines[..] else {
                panic!("one line: {lines:?}");
            };
            assert!(line.starts_with(
                "ERROR panic in wharf-worker-3 at tests/behaviours/faults/panics.rs:"
            ));
            assert!(line.ends_with(": it broke"), "{line}");
        },
    );
}
