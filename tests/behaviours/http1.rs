//! One client's connection: the order of things on it, and how it ends. A byte of one request is never taken for another's.

use std::time::Duration;

use wharf::wire::{Code, Reason};

use crate::backend::{Backend, Seen};
use crate::client::{Answer, Client, PATH, alone, message, request, streamed, trailer_frame};
use crate::frames::INITIAL_WINDOW_SIZE;
use crate::world::{Plan, World};

const OK: &str = "grpc-status:0\r\n";
const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
/// In which nothing comes that should not.
const A_MOMENT: Duration = Duration::from_millis(100);

fn healthy() -> Answer {
    text(200, "OK", "", "ok\n")
}

fn text(status: u16, phrase: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    Answer {
        head: format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             cache-control: no-store\r\ncontent-length: {length}\r\n{fields}\r\n"
        ),
        body: body.as_bytes().to_vec(),
        whole: true,
    }
}

fn good(payload: &[u8]) -> Answer {
    streamed(&[&message(payload), &trailer_frame(OK)])
}

#[test]
fn h1_48_pipelined_calls_are_made_one_after_the_other_and_answered_in_order() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let calls: Vec<Vec<u8>> = (0..5u8).map(|n| request("", &message(&[n]))).collect();
    client.send(&[&calls.concat()[..], LIVE].concat());
    let mut peer = backend.accept();
    for index in 0..5u8 {
        let call = peer.request();
        assert_eq!(call.body, message(&[index]));
        // The next one is not begun while this one runs.
        peer.assert_quiet();
        peer.answer(call.stream, &message(&[index, 0]));
    }
    for index in 0..5u8 {
        assert_eq!(client.answer(), good(&[index, 0]));
    }
    assert_eq!(client.answer(), healthy());
}

#[test]
fn h1_49_what_is_no_request_behind_a_good_one_is_refused_after_its_answer() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let behind = b"GET / HTTP/1.1\nhost: a\r\n\r\n";
    client.send(&[&request("", &message(b"hi")), &behind[..]].concat());
    let mut peer = backend.accept();
    let call = peer.request();
    peer.answer(call.stream, &message(b"one"));
    assert_eq!(client.answer(), good(b"one"));
    let refused = client.answer();
    assert!(refused.head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(refused.head.ends_with("connection: close\r\n\r\n"));
    client.assert_closed();
    assert_eq!(world.record().reason, Reason::Ok);
    assert_eq!(world.record().refusal, Some("bad_http"));
}

#[test]
fn h1_45_a_byte_behind_a_chunked_body_is_the_next_request() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    // H1-44: trailers are read and go nowhere.
    let chunks = b"3\r\n\0\0\0\r\n4;x=y\r\n\0\x02hi\r\n0\r\nauthorization: x\r\n\r\n";
    client.send(&[head.as_bytes(), chunks, b"X"].concat());
    let mut peer = backend.accept();
    let call = peer.request();
    assert_eq!(call.body, message(b"hi"));
    assert_eq!(call.field("authorization"), None);
    peer.answer(call.stream, &message(b"one"));
    assert_eq!(client.answer(), good(b"one"));
    client.send(b" / HTTP/1.1\r\nhost: a\r\n\r\n");
    // X is a method like another; here only POST is taken.
    let refused = client.answer();
    assert!(
        refused.head.starts_with("HTTP/1.1 405 "),
        "{}",
        refused.head
    );
}

#[test]
fn h1_43_a_body_in_chunks_of_one_byte_that_had_to_wait_goes_on_in_large_pieces() {
    const BYTES: usize = 50_000;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let body = message(&[7; BYTES - 5]);
    let mut call = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for byte in &body {
        call.extend([b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    }
    call.extend(b"0\r\n\r\n");
    let mut client = Client::new(world.address);
    client.send(&call);
    let mut peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, 0)]);
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    // All of it has come when the window opens.
    assert_eq!(peer.next_within(A_MOMENT), None);
    peer.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    let (mut got, mut frames, mut ended) = (Vec::new(), 0, false);
    while !ended {
        let Seen::Data { bytes, end, .. } = peer.next() else {
            panic!("no data");
        };
        got.extend(bytes);
        frames += 1;
        ended = end;
    }
    assert!(got == body, "{} of {BYTES} bytes, or others", got.len());
    assert!(frames < BYTES / 100, "{frames} frames");
    peer.answer(stream, &message(b"one"));
    assert_eq!(client.answer(), good(b"one"));
}

#[test]
fn h1_53_a_client_that_waits_is_told_to_go_on_when_the_body_is_wanted() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let call = request("expect: 100-continue\r\n", &message(b"hi"));
    let (head, body) = call.split_at(call.len() - message(b"hi").len());
    client.send(head);
    assert_eq!(client.bare_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(body);
    let mut peer = backend.accept();
    let seen = peer.request();
    assert_eq!(seen.body, message(b"hi"));
    assert_eq!(seen.field("expect"), None);
    peer.answer(seen.stream, &message(b"one"));
    assert_eq!(client.answer(), good(b"one"));
    client.send(LIVE);
    assert_eq!(client.answer(), healthy());
}

#[test]
fn h1_53_a_body_that_comes_unasked_needs_no_word() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("expect: 100-continue\r\n", &message(b"hi"));
    let mut peer = backend.accept();
    let seen = peer.request();
    peer.answer(seen.stream, &message(b"one"));
    assert_eq!(client.answer(), good(b"one"));
    client.send(LIVE);
    assert_eq!(client.answer(), healthy());
}

#[test]
fn h1_53_an_answer_that_comes_first_says_no_100_and_closes() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.send(
        b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\
          expect: 100-continue\r\ncontent-length: 10\r\n\r\n",
    );
    let refused = client.answer();
    assert!(refused.head.starts_with("HTTP/1.1 415 "));
    assert!(refused.head.ends_with("connection: close\r\n\r\n"));
    client.assert_closed();
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn h1_50_the_rest_of_a_body_is_drained_behind_an_early_answer_and_the_next_request_served() {
    let world = World::new(&[]);
    for size in [1, 1000, 100 << 10, 1 << 20] {
        let mut client = Client::new(world.address);
        let head = format!(
            "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\
             content-length: {size}\r\n\r\n"
        );
        client.send(head.as_bytes());
        let refused = client.answer();
        assert!(refused.head.starts_with("HTTP/1.1 415 "), "{size}");
        // What looks like a request is none.
        let body: Vec<u8> = LIVE.iter().copied().cycle().take(size).collect();
        client.send(&body);
        client.send(LIVE);
        assert_eq!(client.answer(), healthy(), "{size}");
        assert!(client.is_left_alone(A_MOMENT));
    }
}

#[test]
fn h1_50_a_body_over_the_bound_closes_the_connection_and_none_of_it_is_a_request() {
    let world = World::new(&[]);
    let mut client = Client::new(world.address);
    let size = 3 << 20;
    let head = format!(
        "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\
         content-length: {size}\r\n\r\n"
    );
    client.send(head.as_bytes());
    let refused = client.answer();
    assert!(refused.head.starts_with("HTTP/1.1 415 "));
    let body: Vec<u8> = LIVE.iter().copied().cycle().take(size).collect();
    // It may be cut off while it sends.
    client.try_send(&body);
    client.try_send(LIVE);
    client.assert_closed();
}

#[test]
fn h1_50_a_body_that_does_not_come_in_time_closes_the_connection() {
    let world = World::new(&[]);
    let mut client = Client::new(world.address);
    client.send(
        b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\
          content-length: 10\r\n\r\n12345",
    );
    assert!(client.answer().head.starts_with("HTTP/1.1 415 "));
    client.assert_closed();
}

#[test]
fn h1_50_a_status_that_needs_no_backend_leaves_the_connection_to_the_next_call() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let body = message(&[0; 1000]);
    let length = body.len();
    let head = format!(
        "POST /no-method HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         content-length: {length}\r\n\r\n"
    );
    client.send(&[head.as_bytes(), &body, LIVE].concat());
    let told = "grpc-status:12\r\n\
                grpc-message:not a method: a path is /package.Service/Method\r\n";
    assert_eq!(client.answer(), alone(told));
    assert_eq!(client.answer(), healthy());
    assert_eq!(world.record().code, Some(Code::UNIMPLEMENTED));
}

#[test]
fn h1_21_health_is_answered_in_every_form() {
    let world = World::new(&[]);
    let mut client = Client::new(world.address);
    client.send(LIVE);
    assert_eq!(client.answer(), healthy());
    // HEAD: the same head and nothing behind it.
    client.send(b"HEAD /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.bare_head(), healthy().head);
    // GET with a body: it is read, and it is nobody's request.
    client.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 38\r\n\r\n");
    client.send(b"GET /evil HTTP/1.1\r\nhost: a\r\nx: yz\r\n\r\n");
    assert_eq!(client.answer(), healthy());
    client.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let closing = text(200, "OK", "connection: close\r\n", "ok\n");
    assert_eq!(client.answer(), closing);
    client.assert_closed();

    let mut client = Client::new(world.address);
    client.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer(), closing);
    client.assert_closed();

    let mut client = Client::new(world.address);
    client.send(b"POST /a.B/C HTTP/1.0\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    assert!(client.answer().head.starts_with("HTTP/1.1 426 "));
    client.assert_closed();
}

#[test]
fn h1_68_a_call_is_the_same_at_every_split() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let call = [
        head.as_bytes(),
        b"3\r\n\0\0\0\r\n4\r\n\0\x02hi\r\n0\r\n\r\n",
    ]
    .concat();
    let mut client = Client::new(world.address);
    let mut peer = None;
    let serve = |client: &mut Client, peer: &mut Option<crate::backend::Peer>| {
        let peer = peer.get_or_insert_with(|| backend.accept());
        let seen = peer.request();
        assert_eq!(seen.body, message(b"hi"));
        peer.answer(seen.stream, &message(b"one"));
        assert_eq!(client.answer(), good(b"one"));
    };
    for cut in 0..=call.len() {
        let (a, b) = call.split_at(cut);
        client.send(a);
        client.send(b);
        serve(&mut client, &mut peer);
    }
    for byte in &call {
        client.send(&[*byte]);
    }
    serve(&mut client, &mut peer);
}

#[test]
fn r_01_a_head_that_drips_is_408_and_drops_do_not_refresh_its_time() {
    let mut plan = Plan::default();
    plan.limits.head_timeout = Duration::from_millis(600);
    let world = World::with(plan, &[]);
    let mut client = Client::new(world.address);
    let began = std::time::Instant::now();
    client.send(b"GET /healthz HTTP/1.1\r\nx: ");
    while client.is_left_alone(Duration::from_millis(50)) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it may drip for ever"
        );
        client.try_send(b"a");
    }
    assert!(began.elapsed() >= Duration::from_millis(550));
    let refused = client.answer();
    assert!(
        refused.head.starts_with("HTTP/1.1 408 "),
        "{}",
        refused.head
    );
    assert!(refused.head.ends_with("connection: close\r\n\r\n"));
    client.assert_closed();
    assert_eq!(world.record().http_status, Some(408));
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_a_busy_one_is_not() {
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.idle_timeout = Duration::from_millis(300);
    let world = World::with(plan, &[&backend]);
    let mut idle = Client::new(world.address);
    let mut busy = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    idle.assert_closed();
    assert!(busy.is_left_alone(Duration::from_millis(600)));
    peer.answer(stream, &message(b"one"));
    assert_eq!(busy.answer(), good(b"one"));
    busy.assert_closed();
}

#[test]
fn a_malformed_body_under_a_running_answer_ends_it_and_closes() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    client.send(head.as_bytes());
    let mut peer = backend.accept();
    let Seen::Head { stream, .. } = peer.next() else {
        panic!("no head");
    };
    peer.grpc_head(stream);
    peer.data(stream, &message(b"one"), false);
    client.chunked_start(8);
    client.send(b"\r\n");
    let (rest, whole) = client.chunked_rest();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("grpc-status:13\r\n"), "{rest}");
    assert!(whole);
    client.assert_closed();
    peer.assert_reset(stream, 8);
    assert!(matches!(world.record().reason, Reason::ClientProtocol(_)));
}
