//! Backends inside the process: what is true of their answers is true of every other backend's.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use wharf::policy::{
    Answer, Callee, Filter, LocalAnswer, Peer, Route, RouteKind, Snapshot, Target, Verdict,
};
use wharf::wire::{OutgoingHead, Part, RequestHead, Reset, ResponseHead};

use crate::client::{Client, message};
use crate::world::{Plan, Stepped, World};

/// Answers everybody with these parts.
#[derive(Debug)]
struct Page(&'static [&'static [u8]]);

impl Callee for Page {
    fn call(&self, _: &OutgoingHead) -> Box<dyn Answer> {
        let mut parts = vec![Part::Head(Box::new(ResponseHead::new(StatusCode::OK)))];
        parts.extend(
            self.0
                .iter()
                .copied()
                .map(Bytes::from_static)
                .map(Part::Data),
        );
        parts.push(Part::End(None));
        Box::new(Prepared(parts.into_iter()))
    }
}

struct Prepared(std::vec::IntoIter<Part>);

impl Answer for Prepared {
    fn handle_part(&mut self, _: Part) {}

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        Poll::Ready(Ok(self.0.next().expect("nothing is asked behind the end")))
    }
}

/// Says something large in every millisecond, for ever.
#[derive(Debug)]
struct Torrent;

impl Callee for Torrent {
    fn call(&self, _: &OutgoingHead) -> Box<dyn Answer> {
        Box::new(Flow {
            begun: false,
            next: None,
        })
    }
}

struct Flow {
    begun: bool,
    next: Option<Instant>,
}

impl Answer for Flow {
    fn handle_part(&mut self, _: Part) {}

    fn poll_part(&mut self, now: Instant) -> Poll<Result<Part, Reset>> {
        if !self.begun {
            self.begun = true;
            self.next = Some(now);
            let mut head = ResponseHead::new(StatusCode::OK);
            let kind = HeaderValue::from_static("application/grpc");
            head.headers.insert(http::header::CONTENT_TYPE, kind);
            return Poll::Ready(Ok(Part::Head(Box::new(head))));
        }
        if self.next.is_some_and(|next| now < next) {
            return Poll::Pending;
        }
        self.next = Some(now + Duration::from_millis(1));
        Poll::Ready(Ok(Part::Data(message(&[0; 4 << 10]).into())))
    }

    fn wake_at(&self) -> Option<Instant> {
        self.next
    }
}

pub(crate) fn snapshot(kind: RouteKind, callee: Arc<dyn Callee>) -> Snapshot {
    let mut snapshot = Plan::default().snapshot(&[]);
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody has it yet");
    let Some(Route { kind: own, .. }) = routes.first_mut() else {
        panic!("a plan has a route");
    };
    *own = kind;
    snapshot.backends[0].target = Target::Local(callee);
    snapshot
}

#[test]
fn an_answer_to_head_has_no_content_and_no_last_chunk_though_its_length_is_unknown() {
    let world = World::obeying(snapshot(
        RouteKind::Plain,
        Arc::new(Page(&[b"a ", b"page"])),
    ));
    let mut client = Client::new(world.address);
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let whole = client.answer();
        assert_eq!(whole.body, b"a page");
        client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        // What came behind it would be taken for the beginning of the next answer.
        assert_eq!(client.bare_head(), whole.head);
    }
    assert!(client.is_left_alone(Duration::from_millis(50)));
}

#[test]
fn an_answer_by_the_clock_whose_reader_stands_still_costs_no_turns() {
    let mut world = Stepped::obeying(snapshot(RouteKind::Rpc, Arc::new(Torrent)), 0);
    let mut client = Client::new(world.address);
    client.post("", &message(b"hi"));
    let step = Duration::from_millis(50);
    // It flows until every buffer on the way is full.
    let mut turns = 0;
    let rests = (0..100).any(|_| {
        let more = world.turns_within(step);
        turns += more;
        turns > 10 && more <= 5
    });
    assert!(rests, "it spins, or never flowed: {turns} turns");
    assert_eq!(world.core.census().1, 1, "it is not over");
    assert!(world.record().is_none());
}

/// Writes on every answer that it was there.
#[derive(Debug)]
struct Stamp;

impl Filter for Stamp {
    fn request(&self, _: &mut RequestHead, _: &Peer) -> Verdict {
        Verdict::Continue
    }

    fn response(&self, _: &RequestHead, head: &mut ResponseHead) {
        let stamp = HeaderValue::from_static("yes");
        head.headers.insert("x-stamped", stamp);
    }
}

/// Answers everybody by itself.
#[derive(Debug)]
struct Wall;

impl Filter for Wall {
    fn request(&self, _: &mut RequestHead, _: &Peer) -> Verdict {
        Verdict::Respond(Box::new(LocalAnswer {
            head: ResponseHead::new(StatusCode::FORBIDDEN),
            body: Bytes::from_static(b"no\n"),
            refusal: None,
        }))
    }

    fn response(&self, _: &RequestHead, _: &mut ResponseHead) {}
}

#[test]
fn the_answer_of_a_filter_is_seen_by_those_before_it_and_those_behind_it() {
    for wall_first in [false, true] {
        let mut snapshot = snapshot(RouteKind::Rpc, Arc::new(Page(&[b"a page"])));
        let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody has it yet");
        routes[0].filters = match wall_first {
            false => Box::new([Box::new(Stamp), Box::new(Wall)]),
            true => Box::new([Box::new(Wall), Box::new(Stamp)]),
        };
        let world = World::obeying(snapshot);
        let mut client = Client::new(world.address);
        client.post("", &message(b"hi"));
        let answer = client.answer();
        assert_eq!(answer.body, b"no\n");
        assert!(answer.head.contains("\r\nx-stamped: yes\r\n"), "{answer:?}");
    }
}
