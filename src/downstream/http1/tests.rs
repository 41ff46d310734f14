//! What an engine holds of the buffers that its requests came in.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

use http::StatusCode;

use super::*;
use crate::net::transport::{Staging, Transport};
use crate::net::{Key, Socket};

/// Has said all that it will say, and hears everything.
struct Script(Vec<u8>);

impl Socket for Script {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.0.len().min(into.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0.drain(..n);
        Ok(n)
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(from.iter().map(|piece| piece.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

fn engine(said: Vec<u8>, now: Instant) -> Http1<Script> {
    engine_on(&Rc::new(Staging::default()), said, now)
}

fn engine_on(staging: &Rc<Staging>, said: Vec<u8>, now: Instant) -> Http1<Script> {
    let key = Key {
        index: 0,
        generation: 0,
    };
    let transport = Transport::accepted(Script(said), key, staging);
    let transport = Rc::new(RefCell::new(transport));
    Http1::new(transport, Rc::default(), now)
}

/// Whether behind what is unread there is the buffer of a large read still, with nobody else in it.
fn has_large_buffer(engine: &Http1<Script>) -> bool {
    let mut transport = engine.transport().borrow_mut();
    transport.unread_mut().try_reclaim(32 << 10)
}

#[test]
fn r_08_half_a_head_counts_behind_whole_ones_and_whole_ones_that_wait_do_not() {
    let now = Instant::now();
    let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    // One of them is less than a turn takes, and a hundred are more.
    for (whole, counted) in [(1, 3), (100, 0)] {
        let staging = Rc::new(Staging::default());
        let said = [&request.repeat(whole)[..], b"GET"].concat();
        let mut engine = engine_on(&staging, said, now);
        while let Poll::Ready(found) = engine.poll(now) {
            assert!(matches!(found, Incoming::Request(_)), "{found:?}");
            engine.respond(ResponseHead::new(StatusCode::OK), Bytes::new());
            engine.transport().borrow_mut().flush(now);
            engine.come_home(now);
        }
        assert_eq!(engine.head_bytes(), counted, "{whole}");
    }
}

#[test]
fn r_08_half_a_head_does_not_hold_the_buffer_of_those_before_it() {
    let now = Instant::now();
    let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    let many = 2_000;
    let staging = Rc::new(Staging::default());
    let said = [&request.repeat(many)[..], b"GET"].concat();
    let mut engine = engine_on(&staging, said, now);
    let mut heads = 0;
    // A turn takes some of them.
    for _ in 0..many {
        while let Poll::Ready(found) = engine.poll(now) {
            assert!(matches!(found, Incoming::Request(_)), "{found:?}");
            heads += 1;
            engine.respond(ResponseHead::new(StatusCode::OK), Bytes::new());
            engine.transport().borrow_mut().flush(now);
            engine.come_home(now);
        }
        staging.next_turn();
        // Its core would call it.
        let _ = staging.next_in_line();
        engine.transport().borrow_mut().leave_line();
    }
    assert_eq!((heads, engine.head_bytes()), (many, 3));
    assert!(!has_large_buffer(&engine));
}

#[test]
fn r_08_a_head_does_not_hold_the_buffer_of_the_body_behind_it() {
    let now = Instant::now();
    let head = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n";
    let mut engine = engine([&head[..], &[7; 60_000]].concat(), now);
    let Poll::Ready(Incoming::Request(request)) = engine.poll(now) else {
        panic!("no request");
    };
    assert_eq!(request.head.path, "/a");
    // All but a byte of what follows is taken: the head is the last that could share its buffer.
    let unread = engine.transport().borrow().unread().len();
    engine.transport().borrow_mut().consume(unread - 1);
    assert!(has_large_buffer(&engine));
    drop(request);
}
