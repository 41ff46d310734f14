//! Rows, and the times of H1-50 and H1-53: who is slow, or holds too much, ends when it is said to and
//! not a millisecond earlier.

use std::time::Duration;

use wharf::net::sim::{End, Weather};
use wharf::policy::{Limits, RouteKind};
use wharf::wire::{Code, Party, Reason};

use crate::still::{Manner, Still, received};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), payload].concat()
}

/// The head of a call whose body has that length.
fn call(fields: &str, length: usize) -> Vec<u8> {
    format!(
        "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\n{fields}\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// What a call is told that is too slow, with the end of the connection.
fn too_slow(still: &mut Still, client: &End) -> String {
    let (bytes, closed) = still.receive(client);
    assert!(closed, "{}", text(&bytes));
    text(&bytes)
}

const TOO_SLOW: &str = "grpc-status:4\\r\\ngrpc-message:the caller is too slow\\r\\n";

#[test]
fn r_01_a_head_has_ten_seconds_from_its_first_byte_and_no_byte_buys_more() {
    for pause in [SECOND / 10, SECOND, 3 * SECOND] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = still.client();
        still.settle();
        // Before its first byte it may rest, as long as an idle connection may.
        still.run_until(still.machine.now() + 60 * SECOND);
        assert_eq!(received(&client), (Vec::new(), false));
        still.send(&client, b"G");
        let began = still.machine.now();
        while still.machine.now() + pause < began + 10 * SECOND - MS {
            still.run_until(still.machine.now() + pause);
            still.send(&client, b"E");
        }
        still.run_until(began + 10 * SECOND - MS);
        assert_eq!(received(&client), (Vec::new(), false), "not yet");
        still.run_until(began + 10 * SECOND + 10 * MS);
        let (bytes, closed) = still.receive(&client);
        assert!(
            bytes.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"),
            "{}",
            text(&bytes)
        );
        assert!(closed);
        let [record] = &still.records[..] else {
            panic!("one record: {:?}", still.records);
        };
        assert_eq!(record.http_status, Some(408));
        assert_eq!(
            (record.refusal, record.by),
            (Some("bad_http"), Party::Downstream)
        );
        assert!(still.memory.seen().is_empty());
        // It goes on sending, and is let go all the same.
        for _ in 0..5 {
            still.send(&client, b"E");
            still.run_until(still.machine.now() + SECOND / 2);
        }
        assert_eq!(still.core.census(), (0, 0, 0));
    }
}

#[test]
fn r_02_inside_a_message_256_bytes_buy_a_second_after_ten() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
    let client = still.client();
    let first = message(b"whole");
    let second = message(&[7; 3000]);
    still.send(&client, &call("", first.len() + second.len()));
    still.send(&client, &first);
    still.settle();
    // Between two messages it may rest for ever.
    still.run_until(still.machine.now() + 24 * 3600 * SECOND);
    assert_eq!(received(&client), (Vec::new(), false));
    still.send(&client, &second[..5]);
    still.settle();
    let began = still.machine.now();
    still.run_until(began + 9 * SECOND);
    still.send(&client, &second[5..5 + 1024]);
    // What came buys four seconds more.
    still.run_until(began + 14 * SECOND - 10 * MS);
    assert_eq!(received(&client), (Vec::new(), false), "not yet");
    still.run_until(began + 14 * SECOND + 10 * MS);
    let told = too_slow(&mut still, &client);
    assert!(told.ends_with(TOO_SLOW), "{told}");
    let record = still.records.last().expect("a record");
    assert_eq!(
        (record.code, record.reason, record.by),
        (
            Some(Code::DEADLINE_EXCEEDED),
            Reason::ClientTooSlow,
            Party::Downstream
        )
    );
    let seen = still.memory.seen();
    assert_eq!(seen.len(), 1);
    assert!(
        seen[0].dropped && !seen[0].ended,
        "the backend is told, and no end"
    );
}

#[test]
fn r_02_who_keeps_the_pace_may_take_hours_over_a_message() {
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, Limits::default());
    let client = still.client();
    let body = message(&[7; 500_000]);
    still.send(&client, &call("", body.len()));
    for piece in body.chunks(260) {
        still.send(&client, piece);
        still.run_until(still.machine.now() + SECOND);
    }
    assert!(still.machine.now() > 1900 * SECOND);
    let (bytes, closed) = still.receive(&client);
    assert!(text(&bytes).contains("grpc-status:0"), "{}", text(&bytes));
    assert!(!closed);
    assert_eq!(still.memory.seen()[0].body, body);
}

#[test]
fn r_02_a_plain_body_that_is_too_slow_is_408() {
    let mut still = Still::new(RouteKind::Plain, Manner::Silent, Limits::default());
    let client = still.client();
    still.send(
        &client,
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n",
    );
    still.settle();
    let began = still.machine.now();
    still.run_until(began + SECOND);
    still.send(&client, &[b'x'; 256]);
    still.run_until(began + 11 * SECOND - 10 * MS);
    assert_eq!(received(&client), (Vec::new(), false), "not yet");
    still.run_until(began + 11 * SECOND + 10 * MS);
    let told = too_slow(&mut still, &client);
    assert!(
        told.starts_with("HTTP/1.1 408 Request Timeout\\r\\n"),
        "{told}"
    );
    assert!(told.contains("\\r\\nconnection: close\\r\\n"), "{told}");
    let record = still.records.last().expect("a record");
    assert_eq!(
        (record.http_status, record.reason),
        (Some(408), Reason::ClientTooSlow)
    );
    let seen = still.memory.seen();
    assert!(seen[0].dropped && !seen[0].ended);
}

#[test]
fn r_03_a_reader_that_takes_less_than_16_kib_in_30_seconds_is_given_up() {
    for rpc in [RouteKind::Rpc, RouteKind::Plain] {
        let mut still = Still::new(rpc, Manner::Torrent(64 << 20), Limits::default());
        let client = still.client();
        still.send(&client, &call("", 0));
        still.settle();
        let mut taken = Vec::new();
        let mut began = still.machine.now();
        // As long as it takes enough, it may take its time.
        for _ in 0..20 {
            still.run_until(began + 29 * SECOND);
            client.read(&mut taken, 256 << 10);
            still.settle();
            began = still.machine.now();
        }
        assert!(still.records.is_empty(), "{:?}", still.records);
        // Drops do not count.
        while still.machine.now() < began + 29 * SECOND {
            client.read(&mut taken, 100);
            still.run_until(still.machine.now() + SECOND);
        }
        assert!(still.records.is_empty(), "not yet: {:?}", still.records);
        still.run_until(began + 61 * SECOND);
        let record = still.records.last().expect("it waits for ever");
        assert_eq!(
            (record.reason, record.by),
            (Reason::ClientTooSlow, Party::Downstream)
        );
        taken.extend(still.receive(&client).0);
        assert!(
            !taken.ends_with(b"0\r\n\r\n"),
            "it cannot be taken for whole"
        );
        let seen = still.memory.seen();
        assert!(seen[0].dropped, "the backend is told");
        assert_eq!(still.core.census(), (0, 0, 0), "its place is free");
    }
}

#[test]
fn r_08_half_heads_share_a_budget_and_those_go_that_have_been_coming_for_longest() {
    const HALF: usize = 15_900;
    let limits = Limits {
        heads_bytes_max: 10 * HALF + 100,
        ..Limits::default()
    };
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, limits);
    let half = [b"POST /a.B/C HTTP/1.1\r\nhost: a\r\nx: ", &[b'y'; HALF][..]].concat();
    let half = &half[..HALF];
    // Older than all of them, and small.
    let small = still.client();
    still.send(&small, b"POST /a.B/C HTTP/1.1\r\n");
    still.settle();
    let holders: Vec<End> = (0..10).map(|_| still.client()).collect();
    for holder in &holders {
        still.send(holder, half);
        still.settle();
    }
    // The eleventh is one too many: three go, so that it is not looked for with each. So it is with the fourteenth.
    let mut newcomers = Vec::new();
    for gone in [0..3, 3..3, 3..3, 3..6] {
        let client = still.client();
        still.send(&client, half);
        still.settle();
        newcomers.push(client);
        for holder in &holders[gone] {
            let (bytes, closed) = still.receive(holder);
            assert!(
                bytes.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"),
                "{}",
                text(&bytes)
            );
            assert!(text(&bytes).contains("\\r\\nconnection: close\\r\\n"));
            assert!(closed);
            let record = still.records.pop().expect("a record");
            assert_eq!(record.http_status, Some(503));
            assert_eq!(
                (record.refusal, record.by),
                (Some("overloaded"), Party::Proxy)
            );
            assert_eq!(record.path, "/a.B/C");
        }
        assert!(still.records.is_empty());
    }
    assert_eq!(received(&small), (Vec::new(), false));
    // Whoever comes with a large one in two pieces is served beside them, and whose is small is spared.
    for (bytes, first) in [(6_000, 5_000), (400, 200)] {
        let client = still.client();
        let more = format!("x-a: {}\r\n", "y".repeat(bytes));
        let (one, other) = (call(&more, 7), message(b"hi"));
        let (begun, rest) = one.split_at(first);
        still.send(&client, begun);
        still.settle();
        still.send(&client, &[rest, &other].concat());
        still.settle();
        let (bytes, _) = still.receive(&client);
        assert!(text(&bytes).contains("grpc-status:0"), "{}", text(&bytes));
        still.records.clear();
    }
    // Whoever sends a whole head is served meanwhile.
    let client = still.client();
    still.send(&client, &[call("", 7), message(b"hi")].concat());
    still.settle();
    let (bytes, _) = still.receive(&client);
    assert!(text(&bytes).contains("grpc-status:0"), "{}", text(&bytes));
    drop(client);
    // Those that are left are none the worse: one ends its head, one leaves; four more have room then.
    let body = message(b"hi");
    let rest = format!(
        "\r\ncontent-type: application/grpc-web\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    still.send(&holders[6], &[rest.as_bytes(), &body].concat());
    still.settle();
    let (bytes, closed) = still.receive(&holders[6]);
    assert!(
        text(&bytes).contains("grpc-status:0") && !closed,
        "{}",
        text(&bytes)
    );
    let mut left = holders;
    drop(left.drain(..7));
    drop(left.pop());
    left.append(&mut newcomers);
    still.settle();
    still.records.clear();
    for _ in 0..4 {
        let client = still.client();
        still.send(&client, half);
        still.settle();
        left.push(client);
    }
    assert!(still.records.is_empty());
    // When their time is over all of it comes back.
    still.run_until(still.machine.now() + 12 * SECOND);
    for client in &left {
        assert!(received(client).0.starts_with(b"HTTP/1.1 408 "));
    }
    let client = still.client();
    still.send(&client, half);
    still.settle();
    assert_eq!(received(&client), (Vec::new(), false));
}

#[test]
fn r_08_who_pipelines_behind_answers_that_he_does_not_read_goes_before_who_has_a_head_coming() {
    // They take nothing, or an answer or two at a time.
    for taken in [0, 1_000] {
        pipelining_goes_first(taken);
    }
}

fn pipelining_goes_first(taken: usize) {
    const PILES: usize = 8;
    let weather = Weather {
        buffer_bytes_min: 64 << 10,
        buffer_bytes_max: 64 << 10,
        ..Weather::fair()
    };
    let limits = Limits {
        heads_bytes_max: 300 << 10,
        ..Limits::default()
    };
    let mut still = Still::under(weather, RouteKind::Rpc, Manner::Echo, limits);
    let piles: Vec<End> = (0..PILES).map(|_| still.client()).collect();
    let pipelined = b"GET /no HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2_000);
    for end in &piles {
        still.send(end, &pipelined);
        still.settle();
    }
    let head = b"POST /a.B/C HTTP/1.1\r\nhost: a\r\nx: ";
    let half = [head, &[b'y'; 10 << 10][..]].concat();
    let honest = still.client();
    still.send(&honest, &half);
    still.settle();
    still.records.clear();
    let began = still.machine.now();
    let mut pushers = Vec::new();
    while still
        .records
        .iter()
        .all(|own| own.refusal != Some("overloaded"))
    {
        still.run_until(still.machine.now() + 100 * MS);
        assert!(still.machine.now() < began + 6 * SECOND, "nobody went");
        for end in &piles {
            end.read(&mut Vec::new(), taken);
            // A word now and then, so that something of theirs is new.
            end.write(b"G").expect("an open socket");
            still.settle();
        }
        let pusher = still.client();
        still.send(&pusher, &half);
        still.settle();
        pushers.push(pusher);
    }
    for client in pushers.iter().chain([&honest]) {
        assert_eq!(received(client), (Vec::new(), false), "taken {taken}");
    }
}

#[test]
fn r_08_who_was_answered_just_now_is_not_taken_for_one_who_does_not_read() {
    let limits = Limits {
        heads_bytes_max: 100 << 10,
        ..Limits::default()
    };
    let mut still = Still::new(RouteKind::Rpc, Manner::Echo, limits);
    let head = b"POST /a.B/C HTTP/1.1\r\nhost: a\r\nx: ";
    let half = [head, &[b'y'; 10 << 10][..]].concat();
    let standing: Vec<End> = (0..9).map(|_| still.client()).collect();
    for client in &standing {
        still.send(client, &half);
    }
    still.settle();
    still.run_until(still.machine.now() + 5 * SECOND);
    // His half head is one too many, and its room is asked for before the answer in front of it is written.
    let client = still.client();
    let first = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    still.send(&client, &[first, &half[..]].concat());
    still.settle();
    let (said, closed) = received(&client);
    let text = said.escape_ascii().to_string();
    assert!(!closed && text.starts_with("HTTP/1.1 200"), "{text}");
    let gone = standing.iter().filter(|end| received(end).1).count();
    assert!((1..9).contains(&gone), "{gone} went");
}

#[test]
fn r_23_ten_thousand_pipelined_requests_are_read_no_further_than_they_are_answered() {
    const MANY: usize = 10_000;
    let mut still = Still::new(RouteKind::Plain, Manner::Echo, Limits::default());
    let client = still.client();
    let requests: Vec<u8> = (0..MANY)
        .flat_map(|n| format!("GET /number/{n} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes())
        .collect();
    // Nobody reads the answers: what is not yet answered stays in the kernel, but for one read.
    let mut sent = 0;
    loop {
        let n = client.write(&requests[sent..]).expect("an open socket");
        sent += n;
        still.settle();
        if n == 0 || sent == requests.len() {
            break;
        }
    }
    let ends: Vec<usize> = (0..=MANY)
        .scan(0, |end, n| {
            let own = *end;
            *end += format!("GET /number/{n} HTTP/1.1\r\nhost: a\r\n\r\n").len();
            Some(own)
        })
        .collect();
    // What was read and is not yet answered.
    let held = |still: &Still, client: &End, sent: usize| {
        sent - client.unread() - ends[still.memory.seen().len()]
    };
    let most = (16 << 10) + (64 << 10);
    assert!(sent < requests.len(), "it reads whatever comes");
    assert!(
        held(&still, &client, sent) <= most,
        "{}",
        held(&still, &client, sent)
    );
    // Read, they come in order and are all that comes.
    let mut answers = Vec::new();
    let began = still.machine.now();
    while still.memory.seen().len() < MANY || client.unread() > 0 {
        answers.extend(still.receive(&client).0);
        if sent < requests.len() {
            sent += client.write(&requests[sent..]).expect("an open socket");
        }
        still.settle();
        assert!(held(&still, &client, sent) <= most);
        assert!(
            still.machine.now() < began + 600 * SECOND,
            "it stands still"
        );
    }
    answers.extend(still.receive(&client).0);
    let answers = String::from_utf8(answers).expect("ASCII");
    let mut rest = answers.as_str();
    for n in 0..MANY {
        let path = format!("/number/{n}");
        let expected = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{path}\r\n0\r\n\r\n",
            path.len()
        );
        rest = rest.strip_prefix(&*expected).unwrap_or_else(|| {
            panic!("answer {n}: {}", &rest[..rest.len().min(200)]);
        });
    }
    assert_eq!(rest, "");
    assert_eq!(still.records.len(), MANY);
}

#[test]
fn r_23_answers_that_need_no_backend_wait_for_their_reader_too() {
    const MANY: usize = 20_000;
    const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
    let client = still.client();
    let requests = LIVE.repeat(MANY);
    let mut sent = 0;
    loop {
        let n = client.write(&requests[sent..]).expect("an open socket");
        sent += n;
        still.settle();
        if n == 0 {
            break;
        }
    }
    // 64 KiB of answers are staged, and the socket holds 256 KiB at most; one read is ahead of them.
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n\
                  cache-control: no-store\r\ncontent-length: 3\r\n\r\nok\n";
    let answered = ((64 << 10) + (256 << 10)) / answer.len() + 1;
    let read = sent - client.unread();
    assert!(
        read <= answered * LIVE.len() + (80 << 10),
        "{read} bytes were read"
    );
    let mut got = Vec::new();
    while got.len() < MANY * answer.len() {
        let before = got.len();
        got.extend(still.receive(&client).0);
        sent += client.write(&requests[sent..]).expect("an open socket");
        still.settle();
        assert!(got.len() > before, "it stands still");
    }
    assert!(got == answer.repeat(MANY).as_bytes(), "other answers");
}

#[test]
fn h1_50_what_is_left_of_a_refused_body_has_a_second_and_the_closing_another() {
    for drips in [false, true] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Silent, Limits::default());
        let client = still.client();
        let head = "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n\
                    content-length: 1000000\r\n\r\n";
        let began = still.machine.now();
        still.send(&client, head.as_bytes());
        still.settle();
        let (bytes, closed) = still.receive(&client);
        assert!(bytes.starts_with(b"HTTP/1.1 415 "), "{}", text(&bytes));
        assert!(!closed);
        // No byte buys more time.
        let go_on = |still: &mut Still, until: Duration| {
            while drips && still.machine.now() + 100 * MS < until {
                still.send(&client, b"x");
                still.run_until(still.machine.now() + 100 * MS);
            }
            still.run_until(until);
        };
        go_on(&mut still, began + SECOND - 10 * MS);
        assert_eq!(received(&client), (Vec::new(), false), "not yet");
        go_on(&mut still, began + SECOND + 10 * MS);
        assert_eq!(received(&client), (Vec::new(), true), "half closed");
        go_on(&mut still, began + 2 * SECOND - 10 * MS);
        assert_eq!(still.core.census().0, 1, "it lingers");
        go_on(&mut still, began + 2 * SECOND + 20 * MS);
        assert_eq!(still.core.census(), (0, 0, 0), "its place is free");
        assert_eq!(still.records.len(), 1);
        assert!(still.memory.seen().is_empty());
    }
}

#[test]
fn h1_53_who_was_told_to_go_on_has_the_time_of_a_head_to_begin() {
    let limits = Limits {
        head_timeout: 7 * SECOND,
        ..Limits::default()
    };
    let body = message(b"hi");
    for begins in [false, true] {
        let mut still = Still::new(RouteKind::Rpc, Manner::Echo, limits.clone());
        let client = still.client();
        still.send(&client, &call("expect: 100-continue\r\n", 2 * body.len()));
        let before = still.machine.now();
        still.settle();
        let (bytes, closed) = still.receive(&client);
        assert_eq!(text(&bytes), "HTTP/1.1 100 Continue\\r\\n\\r\\n");
        assert!(!closed);
        still.run_until(before + 7 * SECOND - 10 * MS);
        assert_eq!(received(&client), (Vec::new(), false), "not yet");
        if begins {
            still.send(&client, &body);
            still.settle();
            // It has begun: between messages it may rest.
            still.run_until(before + 3600 * SECOND);
            assert_eq!(received(&client), (Vec::new(), false));
            still.send(&client, &body);
            still.settle();
            let (bytes, closed) = still.receive(&client);
            assert!(text(&bytes).contains("grpc-status:0") && !closed);
            continue;
        }
        still.run_until(before + 7 * SECOND + 10 * MS);
        let told = too_slow(&mut still, &client);
        assert!(told.ends_with(TOO_SLOW), "{told}");
        let record = still.records.last().expect("a record");
        assert_eq!(
            (record.reason, record.by),
            (Reason::ClientTooSlow, Party::Downstream)
        );
        let seen = still.memory.seen();
        assert!(seen[0].dropped && !seen[0].ended);
    }
}
