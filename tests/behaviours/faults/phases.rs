//! Rows U-P: a backend that is lost at each phase of a call, in each way. Those of a stream that is reset stand in `ends`,
//! those that are about repeating in `repeats`.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use wharf::telemetry::Record;
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, PATH, alone, last, message, streamed, trailer_frame};
use crate::frames::{INITIAL_WINDOW_SIZE, frame};
use crate::world::World;

const OK: &str = "grpc-status:0\r\n";
const CLOSED: &str = "grpc-status:14\r\ngrpc-message:backend \"greeter\" closed the connection\r\n";
const A_MOMENT: Duration = Duration::from_millis(100);

/// How a connection is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Fin,
    Reset,
}

impl Loss {
    const ALL: [Self; 2] = [Self::Fin, Self::Reset];

    fn happen(self, peer: Peer) -> Option<Peer> {
        match self {
            Self::Fin => {
                peer.finish();
                Some(peer)
            }
            Self::Reset => {
                peer.abort();
                None
            }
        }
    }
}

fn assert_ends(record: &Record, reason: Reason, by: Party, attempts: u32) {
    assert_eq!(record.code, Some(Code::UNAVAILABLE));
    let ends = (record.reason, record.by, record.attempts, record.aborted);
    assert_eq!(ends, (reason, by, attempts, false));
}

#[test]
fn u_p2_a_backend_that_wants_tls_is_unavailable_and_another_endpoint_is_asked() {
    let alert = b"\x15\x03\x01\0\x02\x02\x46";
    let secure = Backend::new();
    let world = World::new(&[&secure]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = secure.accept_silently();
    peer.raw(alert);
    let told = "grpc-status:14\r\ngrpc-message:backend \"greeter\" wants TLS\r\n";
    assert_eq!(client.answer(), alone(told));
    assert_ends(&world.record(), Reason::BackendTls, Party::Proxy, 0);
    peer.assert_closed();

    let (secure, good) = (Backend::new(), Backend::new());
    let world = World::new(&[&secure, &good]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    secure.accept_silently().raw(alert);
    let mut peer = good.accept();
    let request = peer.request();
    peer.answer(request.stream, b"");
    assert_eq!(client.answer(), streamed(&[&trailer_frame(OK)]));
    assert_eq!(world.record().attempts, 1);
}

#[test]
fn u_p3_a_connection_lost_before_its_settings_is_unavailable_and_another_endpoint_is_asked() {
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]);
    for loss in Loss::ALL {
        for said in [0, 5, settings.len() - 1] {
            let bad = Backend::new();
            let world = World::new(&[&bad]);
            let mut client = Client::calling(world.address, &message(b"hi"));
            let mut peer = bad.accept_silently();
            peer.raw(&settings[..said]);
            let _kept = loss.happen(peer);
            assert_eq!(client.answer(), alone(CLOSED), "{loss:?} after {said}");
            assert_ends(&world.record(), Reason::BackendClosed, Party::Proxy, 0);

            let (bad, good) = (Backend::new(), Backend::new());
            let world = World::new(&[&bad, &good]);
            let mut client = Client::calling(world.address, &message(b"hi"));
            let mut peer = bad.accept_silently();
            peer.raw(&settings[..said]);
            let _kept = loss.happen(peer);
            let mut peer = good.accept();
            let request = peer.request();
            assert_eq!(request.body, message(b"hi"));
            peer.answer(request.stream, b"");
            assert_eq!(client.answer(), streamed(&[&trailer_frame(OK)]));
            let record = world.record();
            assert_eq!((record.reason, record.attempts), (Reason::Ok, 1));
            peer.assert_quiet();
        }
    }
}

#[test]
fn u_p4_a_call_whose_head_has_not_left_is_made_on_the_next_connection() {
    const UPLOAD: usize = 3 << 20;
    for loss in Loss::ALL {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        // An upload that fills every buffer on the way to a backend that grants much and reads nothing.
        let mut upload = TcpStream::connect(world.address).expect("the proxy listens");
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        upload.write_all(head.as_bytes()).expect("the proxy reads");
        let peer = backend.accept_with(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]);
        let piece = message(&vec![7; UPLOAD]);
        let piece = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
        let limit = upload.set_write_timeout(Some(Duration::from_millis(500)));
        limit.expect("a timeout");
        let mut pieces = 0;
        while upload.write_all(&piece).is_ok() {
            pieces += 1;
            assert!(pieces < 30, "somebody reads");
        }

        let mut client = Client::calling(world.address, &message(b"later"));
        assert!(client.is_left_alone(A_MOMENT));
        let kept = loss.happen(peer);
        let mut second = backend.accept();
        let request = second.request();
        assert_eq!(request.body, message(b"later"));
        second.answer(request.stream, &message(b"one"));
        let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
        assert_eq!(client.answer(), expected, "{loss:?}");
        // The upload is not repeated: some of it left.
        second.assert_quiet();
        let mut records = [world.record(), world.record()];
        records.sort_by_key(|record| record.attempts);
        assert_ends(&records[0], Reason::BackendClosed, Party::Upstream, 1);
        assert_eq!((records[1].reason, records[1].attempts), (Reason::Ok, 2));
        // Nor is the second call found among what the first connection was sent.
        if let Some(mut peer) = kept {
            loop {
                match peer.next() {
                    Seen::Head { stream, .. } => assert_eq!(stream, 1),
                    Seen::End => break,
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn u_p6_a_connection_lost_while_the_request_is_sent_is_unavailable_and_nothing_is_repeated() {
    for loss in Loss::ALL {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::new(world.address);
        let body = message(&[b'x'; 600]);
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes());
        client.send(&body[..500]);
        let mut peer = backend.accept();
        assert!(matches!(peer.next(), Seen::Head { end: false, .. }));
        assert!(matches!(peer.next(), Seen::Data { end: false, .. }));
        let _kept = loss.happen(peer);
        let answer = client.answer();
        assert!(
            answer == alone(CLOSED) || answer == last(CLOSED),
            "{answer:?}"
        );
        assert_ends(&world.record(), Reason::BackendClosed, Party::Upstream, 1);
        assert!(backend.is_left_alone(A_MOMENT));
    }
}

#[test]
fn u_p6_each_reset_while_the_request_is_sent_has_its_status() {
    for (h2, name, code) in crate::ends::RESETS {
        if name == "REFUSED_STREAM" {
            // Repeated: row U-P5.
            continue;
        }
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::new(world.address);
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
             content-length: 605\r\n\r\n"
        );
        client.send(head.as_bytes());
        client.send(&message(&[b'x'; 600])[..500]);
        let mut peer = backend.accept();
        let Seen::Head { stream, .. } = peer.next() else {
            panic!("no head");
        };
        assert!(matches!(peer.next(), Seen::Data { end: false, .. }));
        peer.reset(stream, h2);
        let lines = format!(
            "grpc-status:{code}\r\ngrpc-message:backend \"greeter\" reset the stream ({name})\r\n"
        );
        let answer = client.answer();
        assert_eq!(answer.body, trailer_frame(&lines), "{name}");
        let record = world.record();
        assert_eq!(
            (record.reason, record.attempts),
            (Reason::BackendReset(h2), 1)
        );
        // What still comes of the request goes nowhere.
        client.try_send(&message(&[b'x'; 600])[500..]);
        peer.assert_quiet();
    }
}

#[test]
fn u_p10_a_connection_lost_behind_a_whole_answer_takes_nothing_away() {
    for loss in Loss::ALL {
        let backend = Backend::new();
        let world = World::new(&[&backend]);
        let mut client = Client::calling(world.address, &message(b"hi"));
        let mut peer = backend.accept();
        let stream = peer.request().stream;
        peer.answer(stream, &message(b"one"));
        if matches!(loss, Loss::Reset) {
            // A reset that overtakes the answer takes it from the kernel, not from us.
            peer.assert_quiet();
        }
        let _kept = loss.happen(peer);
        let expected = streamed(&[&message(b"one"), &trailer_frame(OK)]);
        assert_eq!(client.answer(), expected, "{loss:?}");
        let record = world.record();
        assert_eq!((record.reason, record.attempts), (Reason::Ok, 1));
    }
}

#[test]
fn u_24_a_reset_behind_the_head_among_the_data_or_behind_it_never_hangs_a_call() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::calling(world.address, &message(b"hi"));
    let mut peer = backend.accept();
    let mut next = Some(peer.request());
    let told = "grpc-status:1\r\ngrpc-message:backend \"greeter\" reset the stream (CANCEL)\r\n";
    let whole = message(b"whole");
    let half = &message(b"half")[..6];
    // What comes before the reset, and what the caller has then; `None`: an answer that is cut.
    let rows: [(&[&[u8]], Option<&str>); 4] = [
        (&[], Some(told)),
        (&[&whole], Some(told)),
        (&[&whole, half], None),
        (&[&whole, b"\0"], Some(told)),
    ];
    for (pieces, told) in rows {
        let stream = match next.take() {
            Some(request) => request.stream,
            None => {
                client.post("", &message(b"hi"));
                peer.request().stream
            }
        };
        peer.grpc_head(stream);
        for piece in pieces {
            peer.data(stream, piece, false);
        }
        peer.reset(stream, 8);
        let answer = client.answer();
        let content = pieces.first().copied().unwrap_or_default();
        match told {
            Some(lines) => {
                assert_eq!(answer.body, [content, &trailer_frame(lines)].concat());
                assert!(answer.whole);
            }
            None => {
                assert_eq!(answer.body, [content, half].concat());
                assert!(!answer.whole);
                client = Client::new(world.address);
            }
        }
        let record = world.record();
        assert_eq!(record.reason, Reason::BackendReset(8));
        assert_eq!(record.aborted, told.is_none());
    }
    // Behind all of it: the answer is whole (row U-P10), and the connection lives.
    client.post("", &message(b"hi"));
    let stream = peer.request().stream;
    peer.answer(stream, &whole);
    peer.reset(stream, 8);
    assert_eq!(client.answer(), streamed(&[&whole, &trailer_frame(OK)]));
    peer.assert_quiet();
}
