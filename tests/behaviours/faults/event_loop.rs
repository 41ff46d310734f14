//! Rows: events that come too late, ends inside of a step, and what is dropped with calls still open. The
//! simulator does all of it at random; here it is done on purpose. X-06 is held by `tests/tidy.rs`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use wharf::net::{EVENTS_MAX, Event, Key, Token};
use wharf::policy::{Answer, Callee};
use wharf::wire::{OutgoingHead, Part, Reason, Reset};

use crate::backend::Backend;
use crate::client::{Client, alone, message};
use crate::faulty::{Faulty, Script};
use crate::local::snapshot;
use crate::world::{PATIENCE, Plan, Stepped};

const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

fn turn_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
    }
}

#[test]
fn x_02_an_event_for_a_socket_that_is_gone_does_not_touch_the_next_one_in_its_place() {
    let script = Rc::new(RefCell::new(Script::default()));
    let backend = Backend::new();
    let snapshot = Plan::default().snapshot(&[&backend]);
    let mut world = Stepped::driven(snapshot, 0, None, |driver| Faulty::new(driver, &script));
    let mut first = Client::new(world.address);
    first.send(LIVE);
    turn_until("the first one is served", || {
        world.turn();
        world.core.census().0 == 1
    });
    (0..5).for_each(|_| world.turn());
    assert_eq!(first.answer().body, b"ok\n");
    first.abort();
    turn_until("the first one is gone", || {
        world.turn();
        world.core.census().0 == 0
    });
    let mut second = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    (0..5).for_each(|_| world.turn());
    let keys = script.borrow().keys.clone();
    let &[old, new, _] = &keys[..] else {
        panic!("two clients and a backend: {keys:?}");
    };
    assert_eq!(old.index, new.index, "the place was used again");
    let event = |token| Event {
        token,
        readable: true,
        writable: true,
        read_closed: true,
        error: true,
    };
    let never = Key {
        index: 77,
        generation: 3,
    };
    let tokens = [
        Token::Transport(old),
        Token::Transport(never),
        Token::Listener(9),
        Token::Inbox,
    ];
    script.borrow_mut().events.extend(tokens.map(event));
    (0..5).for_each(|_| world.turn());
    peer.answer(1, &message(b"answer"));
    assert_eq!(world.turn_until_record().reason, Reason::Ok);
    (0..3).for_each(|_| world.turn());
    assert!(second.answer().whole);
    // The same event under the right key is believed: it would have ended the call.
    second.post("", &message(b"hi"));
    turn_until("the second call is open", || {
        world.turn();
        world.core.census().1 == 1
    });
    script
        .borrow_mut()
        .events
        .push(event(Token::Transport(new)));
    assert_eq!(world.turn_until_record().reason, Reason::ClientLeft);
}

#[test]
fn an_answer_does_not_wait_behind_more_events_than_one_turn_takes() {
    let script = Rc::new(RefCell::new(Script::default()));
    let backend = Backend::new();
    let snapshot = Plan::default().snapshot(&[&backend]);
    let mut world = Stepped::driven(snapshot, 0, None, |driver| Faulty::new(driver, &script));
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept_turning(|| world.turn());
    (0..5).for_each(|_| world.turn());
    peer.answer(1, &message(b"answer"));
    // They happened before it, and nobody knows their sockets any more.
    let never = Event {
        token: Token::Transport(Key {
            index: 77,
            generation: 3,
        }),
        readable: true,
        writable: true,
        read_closed: false,
        error: false,
    };
    script.borrow_mut().events.extend([never; EVENTS_MAX]);
    world.turn();
    assert!(
        !script.borrow().events.is_empty(),
        "its event is still to come"
    );
    let record = world.record().expect("it was read without its event");
    assert_eq!(record.reason, Reason::Ok);
    assert!(client.answer().whole);
}

/// Takes a part of the request and ends its own answer for it.
#[derive(Debug)]
struct Touchy;

impl Callee for Touchy {
    fn call(&self, _: &OutgoingHead) -> Box<dyn Answer> {
        Box::new(Touched(false))
    }
}

struct Touched(bool);

impl Answer for Touched {
    fn handle_part(&mut self, _: Part) {
        self.0 = true;
    }

    fn poll_part(&mut self, _: Instant) -> Poll<Result<Part, Reset>> {
        match self.0 {
            true => Poll::Ready(Err(Reset::upstream(Reason::BackendReset(2)))),
            false => Poll::Pending,
        }
    }
}

#[test]
fn x_04_an_answer_that_ends_inside_of_the_step_that_feeds_it_ends_once() {
    let rules = snapshot(wharf::policy::RouteKind::Rpc, Arc::new(Touchy));
    let mut world = Stepped::obeying(rules, 0);
    let mut client = Client::new(world.address);
    for _ in 0..3 {
        // Each message is handed on in one step, and wakes the very call that hands it on.
        let body: Vec<u8> = (0..50).flat_map(|_| message(b"hello")).collect();
        client.post("", &body);
        let record = world.turn_until_record();
        assert_eq!(record.reason, Reason::BackendReset(2));
        (0..5).for_each(|_| world.turn());
        assert!(world.record().is_none(), "it ends once");
        assert_eq!(world.core.census().1, 0);
        let told = "grpc-status:13\r\ngrpc-message:backend \"greeter\" reset the stream (INTERNAL_ERROR)\r\n";
        assert_eq!(client.answer(), alone(told));
    }
}

#[test]
fn x_04_a_stream_that_both_ends_reset_at_once_ends_once() {
    let backend = Backend::new();
    let mut world = Stepped::new(Plan::default(), &[&backend]);
    let mut staying = Client::calling(world.address, &message(b"stays"));
    let mut peer = backend.accept_turning(|| world.turn());
    for round in 0..3 {
        let leaving = Client::calling(world.address, &message(b"leaves"));
        turn_until("both calls are open", || {
            world.turn();
            world.core.census().1 == 2
        });
        (0..5).for_each(|_| world.turn());
        peer.reset(3 + 2 * round, 8);
        leaving.abort();
        let record = world.turn_until_record();
        let either = [Reason::ClientLeft, Reason::BackendReset(8)];
        assert!(either.contains(&record.reason), "{:?}", record.reason);
        (0..5).for_each(|_| world.turn());
        assert!(world.record().is_none(), "it ends once");
        assert_eq!(world.core.census(), (1, 1, 1), "the other call goes on");
    }
    peer.answer(1, &message(b"answer"));
    assert_eq!(world.turn_until_record().reason, Reason::Ok);
    assert!(staying.answer().whole);
}

#[test]
fn x_07_whatever_is_open_may_be_dropped_in_any_phase_and_while_unwinding() {
    // Nobody answers; SETTINGS and no more; a request; half an answer that nobody reads.
    for phase in 0..4 {
        for unwinding in [false, true] {
            let backend = Backend::new();
            let mut world = Stepped::new(Plan::default(), &[&backend]);
            let mut clients: Vec<Client> = (0..3).map(|_| Client::new(world.address)).collect();
            for client in &mut clients {
                client.send(&crate::client::request("", &message(b"hi"))[..100]);
            }
            let whole = crate::client::request("", &message(b"hi"));
            clients[0].send(&whole[100..]);
            let mut peer = None;
            if phase > 0 {
                peer = Some(backend.accept_turning(|| world.turn()));
            }
            if phase > 1 {
                clients[1].send(&whole[100..]);
            }
            (0..20).for_each(|_| world.turn());
            if let Some(peer) = &mut peer
                && phase > 2
            {
                peer.grpc_head(1);
                peer.data(1, &message(&[7; 300 << 10])[..200 << 10], false);
                (0..20).for_each(|_| world.turn());
            }
            assert!(world.core.census().1 > 0, "there is a call");
            let dropped = catch_unwind(AssertUnwindSafe(|| {
                let world = world;
                assert!(!unwinding, "on purpose");
                drop(world);
            }));
            assert_eq!(
                dropped.is_err(),
                unwinding,
                "phase {phase}: a drop has panicked"
            );
            // It is gone for everybody.
            drop(peer);
            drop(clients);
        }
    }
}
