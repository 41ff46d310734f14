//! Who comes when in a turn where there is more to do than a turn does: connections of HTTP/2 that pour requests, beside one that has
//! few, and those of HTTP/1.1 that cut what they say into pieces. The requests are answered by the core itself, so that nothing but
//! the turn bounds them.

use std::collections::BTreeMap;

use wharf::net::sim::{End, Weather};
use wharf::policy::{Limits, RouteKind};
use wharf::wire::Reason;

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, frame, literal, write};
use crate::http2::greet;
use crate::http2_clock::call;
use crate::still::{A_MOMENT, Manner, Still, received};

/// How many requests of one connection are looked at in one turn, and how many of all together.
const OF_ONE_MAX: usize = 64;
const OF_ALL_MAX: usize = 256;
/// How many one has that pours them: more than a test has turns for.
const POURED: u32 = 3_000;
const POURS: &str = "/pours";
const SELDOM: &str = "/seldom";

/// A core on a machine whose sockets take all that is said here at once.
fn roomy() -> Still {
    let weather = Weather {
        buffer_bytes_min: 1 << 20,
        buffer_bytes_max: 1 << 20,
        ..Weather::fair()
    };
    Still::under(weather, RouteKind::Rpc, Manner::Echo, Limits::default())
}

/// A client that has greeted, and wants to hear all that there is.
fn hearing(still: &mut Still) -> End {
    let end = greet(still, 65_535);
    let more = (1u32 << 30).to_be_bytes();
    still.send(&end, &frame(WINDOW_UPDATE, 0, 0, &more));
    still.settle();
    received(&end);
    end
}

/// So many requests, none of them a call, in as few bytes as there can be.
fn requests(path: &str, count: u32) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "sim.test"),
        ("content-type", "text/plain"),
    ];
    let mut first = Vec::new();
    for (name, value) in fields {
        literal(0x40, name, value, &mut first);
    }
    // The same five as the table remembers them, the newest last (RFC 7541 §2.3.3).
    let again = [66, 65, 64, 63, 62].map(|index| 0x80 | index);
    let mut bytes = Vec::new();
    for n in 0..count {
        let block = if n == 0 { &first[..] } else { &again };
        write(
            HEADERS,
            END_HEADERS | END_STREAM,
            1 + 2 * n,
            block,
            &mut bytes,
        );
    }
    bytes
}

/// One turn, and what was looked at in it: how many requests of those that pour were looked at, and whether the other one was.
fn turn(still: &mut Still) -> (usize, bool) {
    still.records.clear();
    still.turn(still.machine.now() + A_MOMENT);
    still.collect();
    let of = |path: &str| still.records.iter().filter(|own| own.path == path).count();
    let (poured, seldom) = (of(POURS), of(SELDOM));
    assert_eq!(still.records.len(), poured + seldom, "{:?}", still.records);
    assert!(seldom <= 1);
    (poured, seldom == 1)
}

#[test]
fn r_14_a_connection_that_pours_requests_has_its_share_of_a_turn_and_keeps_nobody_from_his() {
    let mut still = roomy();
    let pouring = hearing(&mut still);
    // Each time somebody else, so that whatever comes first among the events is met.
    let others: Vec<End> = (0..20).map(|_| hearing(&mut still)).collect();
    still.send(&pouring, &requests(POURS, POURED));
    for other in &others {
        still.send(other, &requests(SELDOM, 1));
        let (poured, seldom) = turn(&mut still);
        assert_eq!((poured, seldom), (OF_ONE_MAX, true));
        received(&pouring);
    }
    // And nothing of it is lost.
    let mut left = POURED as usize - others.len() * OF_ONE_MAX;
    for _ in 0..left.div_ceil(OF_ONE_MAX) {
        left -= turn(&mut still).0;
        received(&pouring);
    }
    assert_eq!(left, 0);
}

#[test]
fn r_14_however_many_pour_who_comes_with_one_request_is_heard_in_the_same_turn() {
    for (many, each) in [(7, POURED), (300, 100)] {
        let mut still = roomy();
        let pouring: Vec<End> = (0..many).map(|_| hearing(&mut still)).collect();
        let others: Vec<End> = (0..20).map(|_| hearing(&mut still)).collect();
        for end in &pouring {
            still.send(end, &requests(POURS, each));
        }
        // All of them are new, and a few fill the turn; from then on they are those who were held over.
        turn(&mut still);
        let mut looked_at = BTreeMap::new();
        for other in &others {
            still.send(other, &requests(SELDOM, 1));
            let (poured, seldom) = turn(&mut still);
            assert!(seldom, "it waits behind {many}");
            let half = OF_ALL_MAX / 2;
            assert!(
                (half - many.min(half / 2)..=half).contains(&poured),
                "{poured}"
            );
            for own in still.records.iter().filter(|own| own.path == POURS) {
                *looked_at.entry(own.client).or_insert(0) += 1;
            }
            for end in &pouring {
                received(end);
            }
        }
        // Among those who pour each has the same.
        assert_eq!(looked_at.len(), many);
        let (least, most) = (looked_at.values().min(), looked_at.values().max());
        let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
        assert!(least > 0 && most - least <= 20, "{least} to {most}");
    }
}

/// How many frames of one connection are read in one turn, and how many of all together.
const FRAMES_OF_ONE_MAX: usize = 1 << 10;
const FRAMES_BEYOND: usize = 8;
const FRAMES_OF_ALL_MAX: usize = 8 << 10;

/// An upload that nobody wants, a byte in each frame, and a request behind it.
fn by_bytes(frames: usize) -> Vec<u8> {
    let mut bytes = requests(SELDOM, 1);
    bytes[4] = END_HEADERS;
    for _ in 0..frames {
        write(DATA, 0, 1, b"x", &mut bytes);
    }
    // The same as the table remembers it.
    let again = [66, 65, 64, 63, 62].map(|index| 0x80 | index);
    write(HEADERS, END_HEADERS | END_STREAM, 3, &again, &mut bytes);
    bytes
}

#[test]
fn r_14_frames_of_a_byte_have_their_share_of_a_turn_whoever_sends_them() {
    // One by itself, and so many that their shares are more than a turn.
    for (connections, frames) in [(1, 20_000), (40, 1_000), (200, 300)] {
        let mut still = roomy();
        let pouring: Vec<End> = (0..connections).map(|_| hearing(&mut still)).collect();
        let other = hearing(&mut still);
        for end in &pouring {
            still.send(end, &by_bytes(frames));
        }
        // A few of each are read in any case.
        let of_all = FRAMES_OF_ALL_MAX + connections * FRAMES_BEYOND;
        let fewest = (frames / FRAMES_OF_ONE_MAX).max(connections * frames / of_all);
        let mut turns = 0;
        let mut answered = 0;
        let mut heard = None;
        while answered < 2 * connections {
            still.records.clear();
            if turns == 1 {
                still.send(&other, &requests(POURS, 1));
            }
            still.turn(still.machine.now() + A_MOMENT);
            still.collect();
            let of = |path: &str| still.records.iter().filter(|own| own.path == path).count();
            answered += of(SELDOM);
            if of(POURS) == 1 {
                heard = Some(turns);
            }
            turns += 1;
            assert!(
                turns < 10 * fewest + 10,
                "{answered} of {connections} are answered"
            );
        }
        // Whoever has little to say is heard at once, or in the next turn.
        assert!(heard.is_some_and(|turn| turn <= 2), "{heard:?}");
        assert!(
            turns >= fewest,
            "{turns} turns for {connections} times {frames} frames"
        );
    }
}

/// How many steps a connection of HTTP/1.1 may take in one turn, and how many all together; what a request costs of them.
const STEPS_OF_ONE_MAX: usize = 256;
const STEPS_OF_ALL_MAX: usize = 16 << 10;
const STEPS_BEYOND: usize = 16;
const HEAD_STEPS: usize = 16;

#[test]
fn r_14_what_comes_in_pieces_over_http_1_1_has_its_share_of_a_turn_too() {
    let call = "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n";
    // A message of 2,000 bytes, one in each chunk.
    let pieces = 2_000;
    let mut upload = format!("{call}transfer-encoding: chunked\r\n\r\n").into_bytes();
    upload.extend(b"5\r\n\0\0\0\x07\xd0\r\n");
    upload.extend(b"1\r\nx\r\n".repeat(pieces));
    upload.extend(b"0\r\n\r\n");
    let requests = 500;
    let pipelined = b"GET /no HTTP/1.1\r\nhost: a\r\n\r\n".repeat(requests);
    let answers = |bytes: &[u8]| bytes.windows(9).filter(|own| own == b"HTTP/1.1 ").count();
    for (said, each, steps) in [
        (upload, 1, pieces),
        (pipelined, requests, requests * HEAD_STEPS),
    ] {
        for clients in [1, 100] {
            let mut still = roomy();
            let pouring: Vec<End> = (0..clients).map(|_| still.client()).collect();
            let other = still.client();
            still.settle();
            for end in &pouring {
                still.send(end, &said);
            }
            let most = STEPS_OF_ALL_MAX + clients * STEPS_BEYOND;
            let fewest = (steps / STEPS_OF_ONE_MAX).max(clients * steps / most) - 1;
            assert!(fewest > 2);
            let mut heard = 0;
            for turn in 0..fewest {
                // Whoever has little to say is heard in the same turn.
                still.send(&other, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
                still.turn(still.machine.now() + A_MOMENT);
                still.collect();
                let (bytes, _) = received(&other);
                assert_eq!(answers(&bytes), 1, "turn {turn} of {fewest}");
                heard += pouring
                    .iter()
                    .map(|end| answers(&received(end).0))
                    .sum::<usize>();
            }
            assert!(heard < clients * each, "all of them in {fewest} turns");
            still.settle();
            heard += pouring
                .iter()
                .map(|end| answers(&received(end).0))
                .sum::<usize>();
            assert_eq!(heard, clients * each, "{clients} clients, {steps} steps");
        }
    }
}

/// How many of those in the line are called in one turn, and how many requests each of them then has.
const CALLED_MAX: usize = 128;
const CALLED_REQUESTS_MAX: usize = STEPS_OF_ALL_MAX / 2 / CALLED_MAX / HEAD_STEPS;

#[test]
fn r_14_however_many_pour_over_http_1_1_who_comes_with_one_request_is_heard_in_the_same_turn() {
    // More than a line calls in a turn, and more than a turn has steps for.
    for (clients, each) in [(200, 150), (2_000, 60)] {
        let mut still = roomy();
        let pouring: Vec<End> = (0..clients).map(|_| still.client()).collect();
        let other = still.client();
        still.settle();
        let pipelined = b"GET /no HTTP/1.1\r\nhost: a\r\n\r\n".repeat(each);
        for end in &pouring {
            still.send(end, &pipelined);
        }
        let mut answers = vec![0; clients];
        let count = |still: &mut Still, answers: &mut [usize]| {
            still.collect();
            still.records.clear();
            let before: usize = answers.iter().sum();
            for (own, end) in answers.iter_mut().zip(&pouring) {
                let (bytes, _) = received(end);
                *own += bytes.windows(9).filter(|own| own == b"HTTP/1.1 ").count();
            }
            answers.iter().sum::<usize>() - before
        };
        // All of them are new, and this machine tells of all at once: a wait of the kernel's brings no more than 256.
        still.turn(still.machine.now() + A_MOMENT);
        let poured = count(&mut still, &mut answers);
        assert!(
            poured <= STEPS_OF_ALL_MAX / HEAD_STEPS + clients,
            "{poured} of {clients}"
        );
        assert!(
            answers.iter().all(|&own| own > 0),
            "whoever comes new is heard"
        );
        // From then on they are those who stand in the line.
        let first = answers.clone();
        for turn in 0..40 {
            still.send(&other, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
            still.turn(still.machine.now() + A_MOMENT);
            let (bytes, _) = received(&other);
            assert!(!bytes.is_empty(), "turn {turn}: it waits behind {clients}");
            let poured = count(&mut still, &mut answers);
            assert_eq!(poured, CALLED_MAX * CALLED_REQUESTS_MAX, "turn {turn}");
        }
        // Each has had the same, but for those who are next.
        let gained = answers.iter().zip(&first).map(|(now, first)| now - first);
        let (least, most) = (gained.clone().min(), gained.max());
        let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
        assert!(
            least > 0 && most - least <= 2 * CALLED_REQUESTS_MAX,
            "{least} to {most}"
        );
        // Some leave while they stand in it, and nobody else is forgotten.
        let (leaving, staying) = pouring.split_at(clients / 3);
        for end in leaving {
            end.reset();
        }
        still.settle();
        let mut heard: usize = answers[clients / 3..].iter().sum();
        for end in staying {
            let (bytes, _) = received(end);
            heard += bytes.windows(9).filter(|own| own == b"HTTP/1.1 ").count();
        }
        assert_eq!(heard, staying.len() * each);
    }
}

#[test]
fn r_14_who_waits_in_line_for_longer_than_a_head_may_take_is_not_late() {
    const CLIENTS: usize = 4 * CALLED_MAX;
    const EACH: usize = 60;
    let mut still = roomy();
    let pouring: Vec<End> = (0..CLIENTS).map(|_| still.client()).collect();
    still.settle();
    // The last of them breaks off, and its rest comes when it is known to be awaited.
    let pipelined = b"GET /no HTTP/1.1\r\nhost: a\r\n\r\n".repeat(EACH);
    let (begun, rest) = pipelined.split_at(pipelined.len() - 4);
    for end in &pouring {
        still.send(end, begun);
    }
    still.turn(still.machine.now() + A_MOMENT);
    // However long they stand there, and also those who have been called in this very turn.
    still.machine.leap();
    still.settle();
    for end in &pouring {
        still.send(end, rest);
        let (bytes, closed) = still.receive(end);
        let heard = bytes.windows(12).filter(|own| own == b"HTTP/1.1 405");
        assert!(!closed, "it was not late");
        assert_eq!(heard.count(), EACH);
    }
}

#[test]
fn r_14_the_rest_of_a_body_that_waits_in_line_is_not_late_either() {
    const CLIENTS: usize = 4 * CALLED_MAX;
    const PIECES: usize = STEPS_OF_ONE_MAX + 50;
    let mut still = roomy();
    let pouring: Vec<End> = (0..CLIENTS).map(|_| still.client()).collect();
    still.settle();
    // It is refused before its body has been read, which is then read and thrown away, so that the next one may follow.
    let mut refused = b"POST /no HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    refused.extend(b"1\r\nx\r\n".repeat(PIECES));
    for end in &pouring {
        still.send(end, &refused);
    }
    still.turn(still.machine.now() + A_MOMENT);
    // However long they stand there, and also those who are called in the turn that notices.
    still.machine.leap();
    still.settle();
    for end in &pouring {
        still.send(end, b"0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    still.settle();
    for end in &pouring {
        let (bytes, closed) = received(end);
        let text = bytes.escape_ascii().to_string();
        assert!(!closed, "it was not late");
        assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    }
}

#[test]
fn h1_47_a_body_that_is_cut_is_told_so_however_many_pieces_it_comes_in() {
    for pieces in [100, 300, 3_000] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = still.client();
        still.settle();
        let mut said = b"POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n\
            transfer-encoding: chunked\r\n\r\n5\r\n\0\0\0\x27\x10\r\n"
            .to_vec();
        said.extend(b"1\r\nx\r\n".repeat(pieces));
        still.send(&client, &said);
        client.shutdown();
        still.settle();
        let (answer, _) = received(&client);
        let [record] = &still.records[..] else {
            panic!("{pieces}: {:?}", still.records);
        };
        // The last of them are read in a turn in which the end of the connection is long known.
        assert!(
            matches!(record.reason, Reason::ClientProtocol(_)),
            "{pieces}: {:?}",
            record.reason
        );
        assert!(!answer.is_empty(), "{pieces}: it may still read");
    }
}

#[test]
fn r_14_whoever_has_more_in_the_kernel_than_a_turn_reads_stands_in_line() {
    let weather = Weather {
        buffer_bytes_min: 1 << 20,
        buffer_bytes_max: 1 << 20,
        ..Weather::fair()
    };
    let mut still = Still::under(weather, RouteKind::Rpc, Manner::Silent, Limits::default());
    // More than are called in one turn.
    let pouring: Vec<_> = (0..200).map(|_| greet(&mut still, 65_535)).collect();
    let mut said = frame(HEADERS, END_HEADERS, 1, &call());
    for _ in 0..20_000 {
        write(DATA, 0, 1, b"x", &mut said);
    }
    for end in &pouring {
        still.send(end, &said);
    }
    // The invariants look after each turn.
    for _ in 0..20 {
        still.turn(still.machine.now() + A_MOMENT);
    }
}
