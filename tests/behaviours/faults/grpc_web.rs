//! Rows W: gRPC-Web framing, both forms, both ways, and what a page sees of CORS.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use wharf::policy::filter::Filter;
use wharf::policy::filter::cors::Remedy;
use wharf::policy::{Cors, PathMatch, Snapshot};
use wharf::wire::{Code, Party, Reason};

use crate::backend::{Backend, Peer, Seen, field_of};
use crate::client::{Answer, Client, PATH, alone, last, message, streamed, trailer_frame};
use crate::ends::{Pair, assert_ends};
use crate::frames::{CANCEL, PING};
use crate::world::{PATIENCE, Plan, World};

pub(crate) const WEB: &str = "application/grpc-web";
pub(crate) const TEXT: &str = "application/grpc-web-text";
pub(crate) const PAGE: &str = "http://localhost:5173";
const OK: &str = "grpc-status:0\r\n";
const INSIDE: &str = "the request ends inside a message";
/// In which nothing comes that should not.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(100);

/// A call of that content type, whose body comes with these framing lines.
fn head(content_type: &str, lines: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: wharf.test\r\ncontent-type: {content_type}\r\n{lines}\r\n"
    )
}

/// A whole call of that content type.
fn call(content_type: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let lines = format!("{lines}content-length: {}\r\n", body.len());
    [head(content_type, &lines).as_bytes(), body].concat()
}

/// The same, each piece in a chunk of its own.
fn chunked(content_type: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut call = head(content_type, "transfer-encoding: chunked\r\n").into_bytes();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        call.extend(format!("{:x}\r\n", piece.len()).bytes());
        call.extend_from_slice(piece);
        call.extend(b"\r\n");
    }
    call.extend(b"0\r\n\r\n");
    call
}

fn flagged(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = message(payload);
    message[0] = flags;
    message
}

pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    STANDARD.encode(bytes).into_bytes()
}

/// What a text body stands for: runs that end with padding, one behind the other.
pub(crate) fn plain(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "a client decodes four at a time");
    let mut bytes = Vec::new();
    for run in text.split_inclusive(|&char| char == b'=') {
        match run {
            // The second of two.
            b"=" => {}
            _ => {
                let padded = [run, b"=="].concat();
                let run = &padded[..run.len().next_multiple_of(4)];
                bytes.extend(STANDARD.decode(run).expect("base64"));
            }
        }
    }
    bytes
}

/// The values of a field of the answer's head, in order.
fn fields<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let lines = answer.head.lines().skip(1);
    lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value)
        .collect()
}

/// What the backend has got so far: what was sent before it answers a PING came before that.
fn seen(peer: &mut Peer) -> Vec<Seen> {
    peer.frame(PING, 0, 0, b"anything");
    std::iter::from_fn(|| match peer.next() {
        Seen::Pong => None,
        other => Some(other),
    })
    .collect()
}

/// Sends a broken call. Its caller is told so, in the form that it asked for, and nothing follows; its backend gets no more
/// than a beginning of `good`, no end, and a cancellation.
fn assert_broken(pair: &mut Pair, sent: &[u8], good: &[u8], how: &str) {
    pair.client.send(sent);
    let lines = format!("grpc-status:13\r\ngrpc-message:the request is broken: {how}\r\n");
    let is_text = String::from_utf8_lossy(sent).contains(TEXT);
    let expected = if is_text {
        text_of(last(&lines))
    } else {
        last(&lines)
    };
    assert_eq!(pair.client.answer(), expected, "{}", sent.escape_ascii());
    let record = pair.world.record();
    let reason = Reason::ClientProtocol("");
    assert_eq!(record.reason.word(), reason.word());
    assert_eq!(record.reason.detail(), Some(how));
    let ends = (record.code, record.by, record.aborted);
    assert_eq!(ends, (Some(Code::INTERNAL), Party::Downstream, false));
    assert_never_whole(&mut pair.peer, good);
    pair.reconnect();
}

/// Of the last call the backend has got a beginning of `good` at most, no end, and a cancellation.
fn assert_never_whole(peer: &mut Peer, good: &[u8]) {
    let mut got = Vec::new();
    let mut open = 0;
    let mut answered = false;
    peer.frame(PING, 0, 0, b"anything");
    // Where many are cancelled in a moment it is told a little later.
    while !answered || open > 0 {
        match peer.next() {
            Seen::Pong => answered = true,
            Seen::Head { end: false, .. } => open += 1,
            Seen::Data {
                bytes, end: false, ..
            } => got.extend(bytes),
            Seen::Reset { code: CANCEL, .. } => open -= 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(good.starts_with(&got), "{}", got.escape_ascii());
}

/// An answer of ours as it stands in text.
fn text_of(answer: Answer) -> Answer {
    let body = text(&answer.body);
    let lengths = [&answer.body, &body].map(|body| format!("content-length: {}\r\n", body.len()));
    let head = answer.head.replace(&lengths[0], &lengths[1]);
    Answer {
        head: head.replace(&format!("{WEB}\r\n"), &format!("{TEXT}\r\n")),
        body,
        ..answer
    }
}

#[test]
fn w_01_an_empty_body_is_an_empty_request_and_the_backend_decides() {
    let mut pair = Pair::new();
    let calls = [
        call(WEB, "", b""),
        // No framing at all is no body.
        head(WEB, "").into_bytes(),
        chunked(WEB, &[]),
        call(TEXT, "accept: application/grpc-web\r\n", b""),
    ];
    for sent in calls {
        pair.client.send(&sent);
        let Seen::Head {
            stream,
            fields,
            end,
        } = pair.peer.next()
        else {
            panic!("no head");
        };
        // Never END_STREAM on the head: some servers take that for no request.
        assert!(!end);
        assert_eq!(field_of(&fields, "content-length"), None);
        let (bytes, end) = (Vec::new(), true);
        assert_eq!(pair.peer.next(), Seen::Data { stream, bytes, end });
        let fields = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
        ];
        pair.peer.trailers(stream, &fields);
        assert_eq!(pair.client.answer(), alone("grpc-status:12\r\n"));
        let record = pair.world.record();
        assert_ends(&record, 12, Reason::BackendStatus, Party::Upstream, false);
        assert_eq!(record.request.messages, 0);
    }
}

#[test]
fn w_02_a_request_that_ends_inside_a_prefix_is_internal_and_never_ends_at_the_backend() {
    let mut pair = Pair::new();
    let good = message(b"good");
    for before in [&b""[..], &good] {
        for length in 1..=4 {
            let body = [before, &[0, 0, 0, 0][..length]].concat();
            assert_broken(&mut pair, &call(WEB, "", &body), before, INSIDE);
            assert_broken(
                &mut pair,
                &chunked(WEB, &[before, &body[before.len()..]]),
                before,
                INSIDE,
            );
            assert_broken(&mut pair, &call(TEXT, "", &text(&body)), before, INSIDE);
        }
    }
}

#[test]
fn w_03_a_request_that_ends_inside_a_message_is_internal_and_never_ends_at_the_backend() {
    let mut pair = Pair::new();
    let whole = message(b"hello");
    let two = [&whole[..], &whole].concat();
    for length in 5..whole.len() {
        for body in [&whole[..length], &two[..whole.len() + length]] {
            assert_broken(&mut pair, &call(WEB, "", body), body, INSIDE);
            assert_broken(&mut pair, &call(TEXT, "", &text(body)), body, INSIDE);
        }
    }
}

#[test]
fn w_04_a_length_beyond_all_measure_is_refused_by_its_prefix_alone() {
    let mut pair = Pair::new();
    for flags in [0, 1] {
        let prefix = [flags, 0xff, 0xff, 0xff, 0xff];
        let told = "grpc-status:8\r\ngrpc-message:a message of the request is larger than \
                    limits.message_bytes (4194304 bytes)\r\n";
        // The client announces all of it and sends no more than the prefix.
        let sent = head(WEB, "content-length: 4294967300\r\n");
        pair.client.send(&[sent.as_bytes(), &prefix].concat());
        assert_eq!(pair.client.answer(), last(told));
        let record = pair.world.record();
        let reason = Reason::MessageTooLarge(4 << 20);
        assert_ends(&record, 8, reason, Party::Downstream, false);
        assert_never_whole(&mut pair.peer, b"");
        pair.reconnect();

        if flags == 1 {
            // From a backend that is a compressed message, and without a coding another fault: W-33.
            continue;
        }
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &prefix, false);
        });
        let told = told.replace("request", "answer");
        assert_eq!(answer, streamed(&[&trailer_frame(&told)]));
        assert_ends(&record, 8, reason, Party::Upstream, false);
        let code = CANCEL;
        assert!(matches!(pair.peer.next(), Seen::Reset { code: own, .. } if own == code));
    }
    // Nothing was set aside for what was announced.
    assert!(virtual_bytes() < 3 << 30, "{} bytes", virtual_bytes());
}

/// The most address space that this process has had.
fn virtual_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmPeak:"));
    let mut words = line.expect("the line").split_ascii_whitespace();
    words
        .nth(1)
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
        << 10
}

#[test]
fn w_05_a_message_as_long_as_the_limit_passes_and_one_byte_more_does_not() {
    const LIMIT: u32 = 1000;
    let mut plan = Plan::default();
    plan.limits.message_bytes_max = LIMIT;
    let mut pair = Pair::with(plan);
    let (fits, over) = (message(&[7; 1000]), message(&[7; 1001]));
    let end = trailer_frame(OK);
    for form in [WEB, TEXT] {
        let written = |body: &[u8]| {
            if form == TEXT {
                text(body)
            } else {
                body.to_vec()
            }
        };
        // Twice, because the limit is each message's own.
        let body = [&fits[..], &fits].concat();
        let sent = call(form, "accept: application/grpc-web\r\n", &written(&body));
        pair.client.send(&sent);
        let got = pair.peer.request();
        assert!(got.body == body);
        pair.peer.answer(got.stream, &body);
        assert_eq!(pair.client.answer(), streamed(&[&body, &end]));
        assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);

        let body = [&fits[..], &over].concat();
        let sent = call(form, "accept: application/grpc-web\r\n", &written(&body));
        pair.client.send(&sent);
        let told = "grpc-status:8\r\ngrpc-message:a message of the request is larger than \
                    limits.message_bytes (1000 bytes)\r\n";
        let answer = pair.client.answer();
        assert_eq!(answer.body, trailer_frame(told));
        assert_eq!(fields(&answer, "connection"), ["close"]);
        let reason = Reason::MessageTooLarge(LIMIT);
        assert_ends(&pair.world.record(), 8, reason, Party::Downstream, false);
        assert_never_whole(&mut pair.peer, &fits);
        pair.reconnect();
    }
}

#[test]
fn w_06_a_compressed_message_is_the_backends_to_judge() {
    let mut pair = Pair::new();
    let body = [flagged(1, b"packed"), message(b"not"), flagged(1, b"")].concat();
    for line in ["", "grpc-encoding: gzip\r\n", "grpc-encoding: identity\r\n"] {
        pair.client.send(&call(WEB, line, &body));
        let got = pair.peer.request();
        assert_eq!(got.body, body);
        let named = line.split_once(": ").map(|(_, value)| value.trim_end());
        assert_eq!(got.field("grpc-encoding"), named);
        let fields = [("grpc-status", "13"), ("grpc-message", "as you see it")];
        pair.peer.grpc_head(got.stream);
        pair.peer.trailers(got.stream, &fields);
        let told = "grpc-status:13\r\ngrpc-message:as you see it\r\n";
        assert_eq!(pair.client.answer(), streamed(&[&trailer_frame(told)]));
        let record = pair.world.record();
        assert_ends(&record, 13, Reason::BackendStatus, Party::Upstream, false);
        assert_eq!(record.request.messages, 3);
    }
}

#[test]
fn w_07_no_other_flag_reaches_the_backend() {
    let mut pair = Pair::new();
    let good = message(b"good");
    for flags in 2..=0xff {
        let bad = flagged(flags, b"x: y\r\n");
        let (before, sent) = match flags % 3 {
            0 => (&good[..], call(WEB, "", &[&good[..], &bad].concat())),
            1 => (&b""[..], call(WEB, "", &bad)),
            _ => (&b""[..], call(TEXT, "", &text(&bad))),
        };
        let how = "a message has flags that gRPC does not know";
        assert_broken(&mut pair, &sent, before, how);
    }
}

#[test]
fn w_08_a_request_is_the_same_wherever_it_was_cut() {
    let mut pair = Pair::new();
    let body = [message(b"hello"), message(b""), flagged(1, b"packed")].concat();
    for form in [WEB, TEXT] {
        let sent = if form == TEXT {
            text(&body)
        } else {
            body.clone()
        };
        let mut ways: Vec<Vec<&[u8]>> = (0..=sent.len())
            .map(|cut| vec![&sent[..cut], &sent[cut..]])
            .collect();
        ways.push(sent.chunks(1).collect());
        ways.push(sent.chunks(3).collect());
        for way in ways {
            pair.client.send(&chunked(form, &way));
            let got = pair.peer.request();
            assert_eq!(got.body, body, "{way:?}");
            pair.peer.answer(got.stream, b"");
            assert!(pair.client.answer().whole);
            let record = pair.world.record();
            assert_eq!((record.request.messages, record.request.bytes), (3, 26));
        }
    }
}

#[test]
fn w_08_an_answer_is_the_same_wherever_it_was_cut() {
    let mut pair = Pair::new();
    let body = [message(b"hello"), message(b""), message(b"the end")].concat();
    let whole = [&body[..], &trailer_frame("grpc-status:0\r\nx-a:b\r\n")].concat();
    let mut ways: Vec<Vec<&[u8]>> = (0..=body.len())
        .map(|cut| vec![&body[..cut], &body[cut..]])
        .collect();
    ways.push(body.chunks(1).collect());
    for form in [WEB, TEXT] {
        for way in &ways {
            pair.client.send(&call(form, "", b""));
            let stream = pair.peer.request().stream;
            pair.peer.grpc_head(stream);
            for piece in way {
                pair.peer.data(stream, piece, false);
            }
            let trailers = [("grpc-status", "0"), ("x-a", "b")];
            pair.peer.trailers(stream, &trailers);
            let answer = pair.client.answer();
            assert!(answer.whole);
            let got = if form == TEXT {
                plain(&answer.body)
            } else {
                answer.body
            };
            assert_eq!(got, whole, "{way:?}");
            let record = pair.world.record();
            assert_eq!((record.response.messages, record.response.bytes), (3, 27));
        }
    }
}

/// Sends DATA as far as the proxy gives window for it.
struct Windowed<'a> {
    peer: &'a mut Peer,
    stream: u32,
    window: i64,
}

impl<'a> Windowed<'a> {
    /// `wharf::upstream::settings`' window of one stream.
    const WINDOW: i64 = 128 << 10;

    fn new(peer: &'a mut Peer, stream: u32) -> Self {
        Self {
            peer,
            stream,
            window: Self::WINDOW,
        }
    }

    /// As many of these frames as are taken; `false` if for that long there is no window.
    fn send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let length = bytes.len() as i64;
        while self.window < length {
            match self.peer.next_or_window(self.stream, patience) {
                Some(Ok(more)) => self.window += i64::from(more),
                Some(Err(seen)) => panic!("instead of a window: {seen:?}"),
                None => return false,
            }
        }
        self.peer.data(self.stream, bytes, false);
        self.window -= length;
        true
    }
}

#[test]
fn w_09_a_hundred_thousand_empty_messages_stream_both_ways() {
    const MANY: usize = 100_000;
    let mut pair = Pair::new();
    let body = [0; 5 * MANY];
    pair.client
        .send(head(WEB, &format!("content-length: {}\r\n", body.len())).as_bytes());
    let Seen::Head { stream, .. } = pair.peer.next() else {
        panic!("no head");
    };
    // The first half is there before the second is sent: nothing waits for the end.
    let mut got = 0;
    for half in body.chunks(body.len() / 2) {
        pair.client.send(half);
        let until = got + half.len();
        while got < until {
            let Seen::Data { bytes, .. } = pair.peer.next() else {
                panic!("no data");
            };
            assert!(bytes.iter().all(|&byte| byte == 0));
            got += bytes.len();
        }
    }
    assert_eq!(got, body.len());
    // Maybe the end came with the last bytes, maybe alone.
    for rest in seen(&mut pair.peer) {
        let (bytes, end) = (Vec::new(), true);
        assert_eq!(rest, Seen::Data { stream, bytes, end });
    }

    pair.peer.grpc_head(stream);
    let reader = std::thread::spawn(move || {
        let answer = pair.client.answer();
        (answer, pair.world)
    });
    let mut windowed = Windowed::new(&mut pair.peer, stream);
    for _ in 0..MANY {
        assert!(windowed.send(&[0; 5], PATIENCE));
    }
    pair.peer.trailers(stream, &[("grpc-status", "0")]);
    let (answer, world) = reader.join().expect("an answer");
    assert!(answer == streamed(&[&body, &trailer_frame(OK)]));
    let record = world.record();
    let many = MANY as u64;
    assert_eq!(
        (record.request.messages, record.response.messages),
        (many, many)
    );
    assert_ends(&record, 0, Reason::Ok, Party::Upstream, false);
}

#[test]
fn w_10_every_grpc_web_type_is_taken_and_its_suffix_survives_both_ways() {
    let mut pair = Pair::new();
    let rows = [
        (
            "application/grpc-web",
            "application/grpc",
            "application/grpc-web",
        ),
        (
            "application/grpc-web+proto",
            "application/grpc+proto",
            "application/grpc-web+proto",
        ),
        (
            "application/grpc-web+json",
            "application/grpc+json",
            "application/grpc-web+json",
        ),
        (
            "application/grpc-web+thrift",
            "application/grpc+thrift",
            "application/grpc-web+thrift",
        ),
        (
            "application/grpc-web-text",
            "application/grpc",
            "application/grpc-web-text",
        ),
        (
            "application/grpc-web-text+proto",
            "application/grpc+proto",
            "application/grpc-web-text+proto",
        ),
        (
            "application/grpc-web-text-base64",
            "application/grpc",
            "application/grpc-web-text",
        ),
        (
            "APPLICATION/GRPC-WEB+PROTO",
            "application/grpc+proto",
            "application/grpc-web+proto",
        ),
        (
            "Application/Grpc-Web-Text",
            "application/grpc",
            "application/grpc-web-text",
        ),
        (
            "application/grpc-web; charset=utf-8",
            "application/grpc",
            "application/grpc-web",
        ),
        (
            "application/grpc-web-text+proto;charset=x;y",
            "application/grpc+proto",
            "application/grpc-web-text+proto",
        ),
    ];
    for (asked, upstream, told) in rows {
        let is_text = told.contains("-text");
        let body = if is_text {
            text(&message(b"hi"))
        } else {
            message(b"hi")
        };
        pair.client.send(&call(asked, "", &body));
        let got = pair.peer.request();
        assert_eq!(got.field("content-type"), Some(upstream), "{asked}");
        assert_eq!(got.body, message(b"hi"), "{asked}");
        let head = [(":status", "200"), ("content-type", upstream)];
        pair.peer.head(got.stream, &head, false);
        pair.peer.data(got.stream, &message(b"one"), false);
        pair.peer.trailers(got.stream, &[("grpc-status", "0")]);
        let answer = pair.client.answer();
        assert_eq!(fields(&answer, "content-type"), [told], "{asked}");
        let name = if is_text { "grpc-web-text" } else { "grpc-web" };
        assert_eq!(pair.world.record().protocol, name);

        // An answer of our own has the request's suffix, since nobody else has named one.
        pair.client
            .send(&call(asked, "grpc-timeout: 0n\r\n", &body));
        let answer = pair.client.answer();
        assert_eq!(fields(&answer, "content-type"), [told], "{asked}");
        assert_eq!(pair.world.record().reason, Reason::Deadline);
        pair.peer.assert_quiet();
    }
    // The backend's own suffix wins over the request's.
    pair.client
        .send(&call("application/grpc-web+proto", "", b""));
    let stream = pair.peer.request().stream;
    let head = [
        (":status", "200"),
        ("content-type", "application/grpc+json"),
    ];
    pair.peer.head(stream, &head, false);
    pair.peer.trailers(stream, &[("grpc-status", "0")]);
    let answer = pair.client.answer();
    assert_eq!(
        fields(&answer, "content-type"),
        ["application/grpc-web+json"]
    );
}

#[test]
fn w_11_another_type_is_415_two_are_400_and_no_backend_hears_of_it() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let two = "content-type: application/grpc-web\r\n";
    let rows = [
        (
            "content-type: application/grpc-webx\r\n".to_owned(),
            415,
            "content_type",
        ),
        (
            "content-type: image/jpeg\r\n".to_owned(),
            415,
            "content_type",
        ),
        (
            "content-type: application/grpc\r\n".to_owned(),
            415,
            "content_type",
        ),
        (
            "content-type: application/grpc+proto\r\n".to_owned(),
            415,
            "content_type",
        ),
        (
            "content-type: application/grpc-web+\r\n".to_owned(),
            415,
            "content_type",
        ),
        ("content-type:\r\n".to_owned(), 415, "content_type"),
        (
            "content-type: application/json\r\n".to_owned(),
            415,
            "connect_protocol",
        ),
        (String::new(), 415, "content_type"),
        ([two, two].concat(), 400, "content_type"),
        (
            [two, "content-type: image/jpeg\r\n"].concat(),
            400,
            "content_type",
        ),
    ];
    let mut client = Client::new(world.address);
    for (lines, status, word) in rows {
        let sent = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\n{lines}content-length: 7\r\n\r\n");
        client.send(&[sent.as_bytes(), &message(b"hi")].concat());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.head.starts_with(&begin), "{lines}{}", answer.head);
        assert!(!answer.head.contains("grpc-status"));
        assert_eq!(answer.body.last(), Some(&b'\n'));
        let record = world.record();
        assert_eq!(
            (record.http_status, record.refusal),
            (Some(status), Some(word))
        );
        assert_eq!(record.code, None);
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_12_another_verb_is_405_whatever_the_type_and_a_browser_tab_gets_a_page() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    for verb in [
        "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "post", "X",
    ] {
        for lines in [
            "",
            "content-type: application/grpc-web\r\n",
            "accept: text/html,*/*\r\n",
        ] {
            client.send(format!("{verb} {PATH} HTTP/1.1\r\nhost: a\r\n{lines}\r\n").as_bytes());
            let answer = if verb == "HEAD" {
                let (head, body) = (client.bare_head(), Vec::new());
                Answer {
                    head,
                    body,
                    whole: true,
                }
            } else {
                client.answer()
            };
            assert!(
                answer
                    .head
                    .starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
                "{verb}"
            );
            assert_eq!(fields(&answer, "allow"), ["POST, OPTIONS"]);
            let page = lines.contains("html") && matches!(verb, "GET" | "HEAD");
            let kind = if page { "text/html" } else { "text/plain" };
            assert_eq!(
                fields(&answer, "content-type"),
                [format!("{kind}; charset=utf-8")]
            );
            let body = String::from_utf8(answer.body).expect("UTF-8");
            if verb != "HEAD" {
                assert!(body.contains("gRPC-Web"), "{body}");
            }
            let record = world.record();
            assert_eq!(
                (record.http_status, record.refusal),
                (Some(405), Some("method"))
            );
        }
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_13_a_path_that_is_no_method_is_unimplemented_and_no_backend_hears_of_it() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let told = "grpc-status:12\r\n\
                grpc-message:not a method: a path is /package.Service/Method\r\n";
    let mut client = Client::new(world.address);
    let paths = [
        "/", "/a", "/a/", "//a", "//", "/a/b/", "/a/b/c", "/a//b", "/a?b/c", "/a/b/?c",
    ];
    for path in paths {
        for form in [WEB, TEXT] {
            let body = if form == TEXT {
                text(&message(b"hi"))
            } else {
                message(b"hi")
            };
            let sent = call(form, "", &body);
            let sent = String::from_utf8_lossy(&sent).replace(PATH, path);
            client.send(sent.as_bytes());
            let expected = if form == TEXT {
                text_of(alone(told))
            } else {
                alone(told)
            };
            assert_eq!(client.answer(), expected, "{path}");
            let record = world.record();
            assert_ends(&record, 12, Reason::NoRoute, Party::Proxy, false);
        }
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

/// A world whose one route takes calls of the service, for the pages of those origins.
pub(crate) fn web(plan: Plan, origins: &[&str], backends: &[&Backend]) -> World {
    World::obeying(with_pages(plan.snapshot(backends), origins))
}

fn with_pages(mut snapshot: Snapshot, origins: &[&str]) -> Snapshot {
    under(&mut snapshot, pages(origins));
    snapshot
}

pub(crate) fn pages(origins: &[&str]) -> Cors {
    let origins = origins
        .iter()
        .map(|origin| origin.parse().expect("an origin"));
    Cors::new(origins.collect(), Remedy::Flag)
}

pub(crate) fn under(snapshot: &mut Snapshot, cors: Cors) {
    let filters = || -> Box<[Box<dyn Filter>]> { Box::new([Box::new(cors.clone())]) };
    let routes = Arc::get_mut(&mut snapshot.routes).expect("nobody else's yet");
    routes[0].path = PathMatch::Prefix("/demo.Greeter".to_owned());
    routes[0].filters = filters();
    snapshot.unrouted = filters().into();
}

fn preflight(origins: &[&str], lines: &str) -> String {
    let origins: String = origins
        .iter()
        .map(|origin| format!("origin: {origin}\r\n"))
        .collect();
    format!(
        "OPTIONS {PATH} HTTP/1.1\r\nhost: a\r\n{origins}access-control-request-method: POST\r\n\
         {lines}\r\n"
    )
}

fn permissions(answer: &Answer) -> Vec<&str> {
    let lines = answer.head.lines();
    lines
        .filter(|line| line.starts_with("access-control-"))
        .collect()
}

pub(crate) const VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Who is let in, who asks, and the status of the answer.
pub(crate) const PREFLIGHTS: [(&[&str], &[&str], u16); 8] = [
    (&[PAGE], &[PAGE], 204),
    (&["http://localhost:*"], &[PAGE], 204),
    (&["*"], &["null"], 204),
    (&["null"], &["null"], 204),
    (&[PAGE], &["null"], 403),
    (&[PAGE], &["http://localhost:5174"], 403),
    (&[PAGE], &["http://localhost:5173.evil.example"], 403),
    (&["*"], &[PAGE, PAGE], 400),
];

#[test]
fn w_14_a_preflight_is_answered_here_with_exactly_what_the_page_may() {
    let backend = Backend::new();
    for (allowed, origins, status) in PREFLIGHTS {
        let world = web(Plan::default(), allowed, &[&backend]);
        let mut client = Client::new(world.address);
        let asked = "access-control-request-headers: content-type, X-Grpc-Web\r\n";
        client.send(preflight(origins, asked).as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(
            answer.head.starts_with(&begin),
            "{origins:?}: {}",
            answer.head
        );
        assert_eq!(fields(&answer, "vary"), [VARY]);
        let mut granted = permissions(&answer);
        granted.sort_unstable();
        let origin = format!("access-control-allow-origin: {}", origins[0]);
        let all = [
            "access-control-allow-headers: content-type,x-grpc-web",
            "access-control-allow-methods: POST",
            origin.as_str(),
            "access-control-max-age: 7200",
        ];
        assert_eq!(granted, if status == 204 { &all[..] } else { &[] });
        assert_eq!(answer.body.is_empty(), status == 204);
        let record = world.record();
        assert_eq!(record.http_status, Some(status));
        let word = match status {
            204 => None,
            403 => Some("cors_origin"),
            _ => Some("bad_http"),
        };
        assert_eq!(record.refusal, word);
    }
    assert!(backend.is_left_alone(A_MOMENT), "a preflight was forwarded");
}

/// What a page asks to send, and the status of the answer.
pub(crate) fn asked_names() -> [(String, u16); 11] {
    let many = |count: usize| vec!["x".repeat(60); count].join(",");
    [
        ("a,b:c".to_owned(), 400),
        ("content type".to_owned(), 400),
        ("x\x01y".to_owned(), 400),
        ("x\ry".to_owned(), 400),
        ("x\ny".to_owned(), 400),
        ("x\r y".to_owned(), 400),
        ("(x)".to_owned(), 400),
        (many(68), 431),
        // More than any head may hold.
        (many(280), 431),
        (many(60), 204),
        ("a, ,B,".to_owned(), 204),
    ]
}

#[test]
fn w_15_only_names_are_echoed_and_not_too_many() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    for (asked, status) in asked_names() {
        let mut client = Client::new(world.address);
        let line = format!("access-control-request-headers: {asked}\r\n");
        client.send(preflight(&[PAGE], &line).as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(
            answer.head.starts_with(&begin),
            "{asked:?}: {}",
            answer.head
        );
        let echoed = fields(&answer, "access-control-allow-headers");
        match status {
            204 => assert_eq!(echoed, [asked.replace(", ,B,", ",b")]),
            _ => assert!(echoed.is_empty(), "{asked:?}: {echoed:?}"),
        }
        assert_eq!(world.record().http_status, Some(status));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

/// The head of a backend that would permit everything.
pub(crate) const PERMISSIVE: [(&str, &str); 6] = [
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("access-control-expose-headers", "*"),
    ("vary", "accept"),
];

#[test]
fn w_16_credentials_are_never_allowed_and_vary_is_always_there() {
    for allowed in ["*", PAGE] {
        let backend = Backend::new();
        let world = web(Plan::default(), &[allowed], &[&backend]);
        let mut client = Client::new(world.address);
        let mut peer = None;
        for (line, origin) in [
            (format!("origin: {PAGE}\r\ncookie: a=b\r\n"), Some(PAGE)),
            (
                "origin: https://other.example\r\n".to_owned(),
                (allowed == "*").then_some("https://other.example"),
            ),
            (String::new(), None),
        ] {
            client.send(&call(WEB, &line, &message(b"hi")));
            let peer = peer.get_or_insert_with(|| backend.accept());
            let stream = peer.request().stream;
            // What the backend permits is its own affair.
            peer.head(stream, &PERMISSIVE, false);
            peer.trailers(stream, &[("grpc-status", "0")]);
            let answer = client.answer();
            assert_eq!(fields(&answer, "access-control-allow-credentials"), [""; 0]);
            let told = fields(&answer, "access-control-allow-origin");
            assert_eq!(told, Vec::from_iter(origin), "{line}");
            assert_eq!(fields(&answer, "vary"), ["accept", "Origin"]);
            let exposed = fields(&answer, "access-control-expose-headers");
            assert_eq!(exposed.len(), told.len());
            assert!(!exposed.contains(&"*"));
        }
    }
}

/// What a page that asks is answered where `https://*.example.com` is let in.
pub(crate) const BELOW_A_WILDCARD: [(&str, u16); 10] = [
    ("https://app.example.com", 204),
    ("https://a.b.example.com", 204),
    ("https://example.com", 403),
    ("https://evilexample.com", 403),
    ("https://app.example.com.evil.net", 403),
    ("https://user@app.example.com", 403),
    ("https://app.example.com:8443", 403),
    ("https://App.example.com", 403),
    ("https://app.example.com.", 403),
    ("http://app.example.com", 403),
];

#[test]
fn w_14_a_page_below_a_wildcard_may_call_and_one_that_only_looks_like_it_may_not() {
    let backend = Backend::new();
    let world = web(Plan::default(), &["https://*.example.com"], &[&backend]);
    for (origin, status) in BELOW_A_WILDCARD {
        let mut client = Client::new(world.address);
        client.send(preflight(&[origin], "").as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.head.starts_with(&begin), "{origin}: {}", answer.head);
        let told = fields(&answer, "access-control-allow-origin");
        assert_eq!(told, Vec::from_iter((status == 204).then_some(origin)));
        let record = world.record();
        assert_eq!(record.refusal, (status == 403).then_some("cors_origin"));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

/// What a page asks to send where `x-tenant` is listed, and whether that is more than is.
pub(crate) const LISTED: [(&str, bool); 3] = [
    ("content-type,x-grpc-web,x-user-agent,grpc-timeout", false),
    ("X-Tenant", false),
    ("content-type, x-trace", true),
];
/// What it is told that it may send.
pub(crate) const LIST: &str = "content-type,x-grpc-web,x-user-agent,grpc-timeout,x-tenant";

#[test]
fn w_15_a_field_that_is_not_listed_is_named_in_the_log_and_the_browser_is_told_the_list() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    let listed = ["x-tenant".parse().expect("a name")];
    under(&mut snapshot, pages(&[PAGE]).letting_send(listed));
    let world = World::obeying(snapshot);
    for (asked, refused) in LISTED {
        let mut client = Client::new(world.address);
        let line = format!("access-control-request-headers: {asked}\r\n");
        client.send(preflight(&[PAGE], &line).as_bytes());
        let answer = client.answer();
        assert!(answer.head.starts_with("HTTP/1.1 204 "), "{}", answer.head);
        assert_eq!(fields(&answer, "access-control-allow-headers"), [LIST]);
        let record = world.record();
        assert_eq!(record.refusal, refused.then_some("cors_header"), "{asked}");
        assert_eq!(record.message.contains("\"x-trace\""), refused);
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

/// Who is let in where credentials are.
pub(crate) const SOME_NAMED: [&str; 3] = [PAGE, "https://*.example.com", "*"];
/// Who comes then, and whether it was named.
pub(crate) const SIGNED_IN: [(&str, bool); 4] = [
    (PAGE, true),
    ("https://app.example.com", true),
    ("https://other.example", false),
    ("null", false),
];

#[test]
fn w_16_credentials_go_with_an_origin_that_was_named_on_every_answer_and_with_no_star() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    under(&mut snapshot, pages(&SOME_NAMED).with_credentials(true));
    let world = World::obeying(snapshot);
    let mut client = Client::new(world.address);
    let mut peer = None;
    for (origin, named) in SIGNED_IN {
        let mut answers = Vec::new();
        client.send(preflight(&[origin], "").as_bytes());
        answers.push(client.answer());
        let line = format!("origin: {origin}\r\ncookie: a=b\r\n");
        client.send(&call(WEB, &line, &message(b"hi")));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let request = peer.request();
        assert_eq!(request.field("cookie"), Some("a=b"));
        peer.head(
            request.stream,
            &[
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("x-own", "1"),
            ],
            false,
        );
        peer.trailers(request.stream, &[("grpc-status", "0")]);
        answers.push(client.answer());
        // One of our own: no such content type.
        client.send(&call("image/png", &line, b""));
        answers.push(client.answer());
        for answer in &answers {
            let told = fields(answer, "access-control-allow-credentials");
            assert_eq!(told, Vec::from_iter(named.then_some("true")), "{origin}");
            assert_eq!(fields(answer, "access-control-allow-origin"), [origin]);
            assert!(!permissions(answer).iter().any(|line| line.contains('*')));
            let vary = fields(answer, "vary").join(", ");
            assert!(vary.starts_with("Origin"), "{vary}");
        }
        let exposed = fields(&answers[1], "access-control-expose-headers").join(",");
        assert!(exposed.split(',').any(|name| name == "x-own"), "{exposed}");
    }
}

/// An answer that a page of [`PAGE`] may read, with the two fields that a client looks for. `values`: of its field of a name.
pub(crate) fn assert_readable<'a>(values: impl Fn(&str) -> Vec<&'a str>, what: &str) {
    assert_eq!(values("access-control-allow-origin"), [PAGE], "{what}");
    let exposed = values("access-control-expose-headers").join(",");
    for name in ["grpc-status", "grpc-message"] {
        assert!(
            exposed.split(',').any(|own| own == name),
            "{what}: {exposed}"
        );
    }
    let vary = values("vary").join(", ");
    assert!(
        vary.split(", ").any(|name| name == "Origin"),
        "{what}: {vary}"
    );
    assert_eq!(values("access-control-allow-credentials"), [""; 0]);
}

/// Fields of a request, in their order.
pub(crate) type Fields = Vec<(&'static str, String)>;

fn in_lines(fields: &Fields) -> String {
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    lines.collect()
}

/// Requests that are no call in either version of HTTP, and the status of the answer: the method, the path, the fields.
pub(crate) fn refusals() -> Vec<(&'static str, &'static str, Fields, u16)> {
    let rows: [(_, _, &[(_, &str)], _); 14] = [
        ("GET", "/nowhere", &[], 404),
        ("POST", "/nowhere", &[("content-type", "image/png")], 404),
        ("GET", PATH, &[], 405),
        ("OPTIONS", PATH, &[], 405),
        ("TRACE", PATH, &[], 405),
        ("POST", PATH, &[], 415),
        ("POST", PATH, &[("content-type", "image/png")], 415),
        (
            "POST",
            PATH,
            &[("content-type", WEB), ("content-encoding", "gzip")],
            415,
        ),
        (
            "POST",
            PATH,
            &[("content-type", WEB), ("content-type", "a/b")],
            400,
        ),
        // It has one already.
        ("POST", PATH, &[("host", "b")], 400),
        ("POST", PATH, &[("x_forwarded_for", "1")], 400),
        ("POST", PATH, &[("expect", "tea")], 417),
        ("POST", PATH, &[("x-large", &"x".repeat(20 << 10))], 431),
        ("POST", PATH, &[(LONG_NAME, "y")], 431),
    ];
    let owned = |fields: &[(&'static str, &str)]| {
        let fields = fields.iter().map(|&(name, value)| (name, value.to_owned()));
        fields.collect()
    };
    rows.map(|(method, path, fields, status)| (method, path, owned(fields), status))
        .into()
}

/// More than a name may have, bytes.
const LONG_NAME: &str = match str::from_utf8(&[b'x'; 300]) {
    Ok(name) => name,
    Err(_) => panic!("ASCII"),
};

#[test]
fn w_17_a_page_may_read_every_refusal_of_a_request_that_is_no_call() {
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.head_timeout = Duration::from_millis(300);
    let world = web(plan, &[PAGE], &[&backend]);
    let origin = format!("host: a\r\norigin: {PAGE}\r\n");
    let many = "x: y\r\n".repeat(120);
    let mut rows: Vec<_> = refusals()
        .into_iter()
        .map(|(method, path, fields, status)| {
            let line = format!("{method} {path} HTTP/1.1");
            (line, format!("{}\r\n", in_lines(&fields)), status)
        })
        .collect();
    // And those that there are in this version alone. The last one stops in the middle.
    for (version, rest, status) in [
        ("HTTP/1.1", "content-length: +5\r\n\r\n", 400),
        ("HTTP/1.1", "bare: lf\n\r\n", 400),
        ("HTTP/1.1", "transfer-encoding: gzip, chunked\r\n\r\n", 501),
        ("HTTP/1.0", "\r\n", 426),
        ("HTTP/1.1", &format!("{many}\r\n"), 431),
        ("HTTP/1.1", "x-slow: ", 408),
    ] {
        let line = format!("POST {PATH} {version}");
        rows.push((line, rest.to_owned(), status));
    }
    for (line, rest, status) in rows {
        let mut client = Client::new(world.address);
        client.send(format!("{line}\r\n{origin}{rest}").as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.head.starts_with(&begin), "{line}: {}", answer.head);
        assert_readable(|name| fields(&answer, name), &format!("{line} {rest}"));
        let record = world.record();
        assert_eq!(record.http_status, Some(status));
        assert_eq!(record.origin.as_deref(), Some(PAGE), "{line}");
        // To another page it says the same and permits nothing, nor to two at once.
        for other in [
            "https://other.example".to_owned(),
            format!("{PAGE}\r\norigin: {PAGE}"),
        ] {
            let mut client = Client::new(world.address);
            let origin = origin.replace(PAGE, &other);
            client.send(format!("{line}\r\n{origin}{rest}").as_bytes());
            assert_eq!(permissions(&client.answer()), [""; 0], "{line}");
            world.record();
        }
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_17_a_page_may_ask_for_a_method_that_no_route_takes_and_is_told_so() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    let mut client = Client::new(world.address);
    for (origin, status) in [(PAGE, 204), ("https://other.example", 403)] {
        let sent = preflight(&[origin], "").replace(PATH, "/nowhere.S/M");
        client.send(sent.as_bytes());
        let answer = client.answer();
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.head.starts_with(&begin), "{}", answer.head);
        assert_eq!(permissions(&answer).is_empty(), status == 403);
        assert_eq!(world.record().http_status, Some(status));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

/// Calls that we end by ourselves, and their status: the path, the fields, the body. With 14 nobody listens at the backend.
pub(crate) fn statuses() -> Vec<(&'static str, Fields, &'static [u8], u32)> {
    let time = |value: &str| vec![("grpc-timeout", value.to_owned())];
    vec![
        ("/nowhere.S/M", Vec::new(), b"", 12),
        ("/demo.Greeter", Vec::new(), b"", 12),
        (PATH, time("0m"), b"", 4),
        (PATH, time("x"), b"", 13),
        (PATH, vec![("via", "1.1 wharf".to_owned()); 8], b"", 13),
        (PATH, Vec::new(), &[0, 0xff, 0, 0, 0], 8),
        (PATH, Vec::new(), b"\x02\0\0\0\0", 13),
        (PATH, Vec::new(), b"", 14),
    ]
}

#[test]
fn w_17_a_page_may_read_every_status_that_is_ours() {
    let (silent, nobody) = (Backend::new(), Backend::nobody());
    let worlds = [&silent, &nobody].map(|backend| web(Plan::default(), &[PAGE], &[backend]));
    for (path, more, body, code) in statuses() {
        let lines = in_lines(&more);
        let world = &worlds[usize::from(code == 14)];
        for form in [WEB, TEXT] {
            let written = if form == TEXT {
                text(body)
            } else {
                body.to_vec()
            };
            let sent = call(form, &format!("origin: {PAGE}\r\n{lines}"), &written);
            let mut client = Client::new(world.address);
            let at = PATH.len() + "POST ".len();
            client.send(&[b"POST ", path.as_bytes(), &sent[at..]].concat());
            let answer = client.answer();
            assert!(
                answer.head.starts_with("HTTP/1.1 200 OK\r\n"),
                "{path} {lines}"
            );
            assert_readable(|name| fields(&answer, name), &format!("{path} {lines}"));
            let got = if form == TEXT {
                plain(&answer.body)
            } else {
                answer.body
            };
            let status = format!("grpc-status:{code}\r\n");
            assert!(
                String::from_utf8_lossy(&got[5..]).starts_with(&status),
                "{path} {lines}"
            );
            assert_eq!(world.record().code, Some(Code::new(code)));
        }
    }
}

/// The backend has that call end with that status; 4: by its time alone.
pub(crate) fn fail(peer: &mut Peer, stream: u32, code: u32) {
    match code {
        4 => {}
        8 => {
            let fields = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("x", &"x".repeat(20 << 10)),
            ];
            let block = crate::frames::block(&fields);
            peer.frame(1, 0, stream, &block[..16 << 10]);
            peer.frame(9, 4, stream, &block[16 << 10..]);
        }
        13 => {
            peer.grpc_head(stream);
            peer.data(stream, &[2, 0, 0, 0, 0], false);
        }
        _ => peer.finish(),
    }
}

#[test]
fn w_17_a_page_may_read_what_became_of_a_call_that_has_reached_its_backend() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    let mut client = Client::new(world.address);
    let mut peer = None;
    for code in [4, 8, 13, 14] {
        let time = if code == 4 {
            "grpc-timeout: 200m\r\n"
        } else {
            ""
        };
        let lines = format!("origin: {PAGE}\r\n{time}");
        client.send(&call(WEB, &lines, &message(b"hi")));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let stream = peer.request().stream;
        fail(peer, stream, code);
        let answer = client.answer();
        assert!(answer.whole);
        assert_readable(|name| fields(&answer, name), &code.to_string());
        assert_eq!(world.record().code, Some(Code::new(code)));
        if code != 14 {
            peer.assert_reset(stream, CANCEL);
        }
    }
}

#[test]
fn w_20_a_text_request_is_a_row_of_padded_runs() {
    let mut pair = Pair::new();
    let body = [message(b"hello"), message(b"you")].concat();
    // A run for each byte, for each two, and for each message.
    let ways = [1, 2, 3, 4, 5, 10, body.len()]
        .map(|length| -> Vec<u8> { body.chunks(length).flat_map(text).collect() });
    for way in ways {
        pair.client.send(&call(TEXT, "", &way));
        let got = pair.peer.request();
        assert_eq!(got.body, body, "{}", way.escape_ascii());
        pair.peer.answer(got.stream, &message(b"one"));
        let answer = pair.client.answer();
        assert_eq!(
            plain(&answer.body),
            [message(b"one"), trailer_frame(OK)].concat()
        );
        assert_eq!(pair.world.record().request.messages, 2);
    }
}

#[test]
fn w_21_text_that_is_no_base64_is_internal_and_the_connection_closes() {
    let mut pair = Pair::new();
    let good = text(&message(b"a"));
    let rows: [&[u8]; 20] = [
        b"QUJ!",
        b"-_-_",
        b"_w==",
        b"QU JDQUJ",
        b"QUJD    ",
        b" QUJDQUJ",
        b"QUJD\r\n\r\n",
        b"QU\r\n",
        b"====",
        b"A===",
        b"=AAA",
        b"QQ=A",
        b"QR==",
        b"QUK=",
        b"QUJD====",
        b"QUJ\0",
        b"\xff\xff\xff\xff",
        b"QUJD,QUJDQUJ",
        b"%3D%3D==",
        b"\xef\xbb\xbfQUJDQ",
    ];
    for bad in rows {
        let how = "the request's text is not base64";
        assert_broken(&mut pair, &call(TEXT, "", bad), b"", how);
        // Behind a good message, and in pieces of one byte.
        let sent = [&good[..], bad].concat();
        let pieces: Vec<&[u8]> = sent.chunks(1).collect();
        assert_broken(&mut pair, &chunked(TEXT, &pieces), &message(b"a"), how);
    }
}

#[test]
fn w_22_text_that_ends_inside_four_characters_is_internal_at_once() {
    let mut pair = Pair::new();
    let whole = text(&message(b"a"));
    let how = "the request's base64 text ends inside a group of four characters";
    for length in (1..whole.len()).filter(|length| length % 4 != 0) {
        let sent = &whole[..length];
        assert_broken(&mut pair, &call(TEXT, "", sent), &message(b"a"), how);
        let sent = [&whole[..], &whole[..length]].concat();
        assert_broken(&mut pair, &chunked(TEXT, &[&sent]), &message(b"a"), how);
    }
    // White space behind the text is part of it.
    for space in [&b" "[..], b"\n", b"\r\n"] {
        let sent = [&whole[..], space].concat();
        assert_broken(&mut pair, &call(TEXT, "", &sent), &message(b"a"), how);
    }
}

#[test]
fn w_23_four_characters_may_be_cut_between_any_two_pieces() {
    let mut pair = Pair::new();
    let body = [message(b"hi"), message(b"there")].concat();
    let sent: Vec<u8> = [&body[..7], &body[7..]]
        .into_iter()
        .flat_map(text)
        .collect();
    let offsets = (0..=sent.len())
        .flat_map(|first| [1, 2, 3, 5].map(|gap| (first, (first + gap).min(sent.len()))));
    for (first, second) in offsets {
        let way = [&sent[..first], &sent[first..second], &sent[second..]];
        pair.client.send(&chunked(TEXT, &way));
        let got = pair.peer.request();
        assert_eq!(got.body, body, "{first} {second}");
        pair.peer.answer(got.stream, b"");
        assert!(pair.client.answer().whole);
        assert_eq!(pair.world.record().reason, Reason::Ok);
    }
}

#[test]
fn w_24_a_large_message_leaves_in_text_as_it_comes_and_is_held_by_nobody() {
    const LENGTH: usize = 32 << 20;
    const PIECE: usize = 16 << 10;
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.message_bytes_max = LENGTH as u32;
    let world = World::with(plan, &[&backend]);
    let mut client = Client::new(world.address);
    client.send(&call(TEXT, "", &text(&message(b"hi"))));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    let body: Vec<u8> = (0..LENGTH + 5)
        .map(|index| match index.checked_sub(5) {
            None => [0, (LENGTH >> 24) as u8, (LENGTH >> 16) as u8, 0, 0][index],
            Some(index) => (index * 7) as u8,
        })
        .collect();
    let mut windowed = Windowed::new(&mut peer, stream);
    let mut pieces = body.chunks(PIECE);
    // Nobody reads: what is taken is what fills the buffers on the way, and a window each of the two sides.
    let mut sent = 0;
    let mut waiting = None;
    for piece in pieces.by_ref() {
        if !windowed.send(piece, Duration::from_millis(700)) {
            waiting = Some(piece);
            break;
        }
        sent += piece.len();
    }
    assert!(
        waiting.is_some() && sent < LENGTH / 2,
        "{sent} bytes for nobody"
    );
    let reader = std::thread::spawn(move || client.answer());
    for piece in waiting.into_iter().chain(pieces) {
        assert!(windowed.send(piece, PATIENCE));
    }
    peer.trailers(stream, &[("grpc-status", "0")]);
    let answer = reader.join().expect("an answer");
    assert!(answer.whole);
    let got = plain(&answer.body);
    assert!(got[..body.len()] == body, "another message");
    assert_eq!(got[body.len()..], trailer_frame(OK));
    // In groups of three bytes: padding stands behind the message and behind the frame, and nowhere else.
    let padded = |bytes: usize| !bytes.is_multiple_of(3);
    let runs = usize::from(padded(body.len())) + usize::from(padded(trailer_frame(OK).len()));
    let padding = answer
        .body
        .split(|&char| char != b'=')
        .filter(|run| !run.is_empty());
    assert_eq!(padding.count(), runs);
    let record = world.record();
    assert_ends(&record, 0, Reason::Ok, Party::Upstream, false);
    assert_eq!(record.response.bytes, body.len() as u64);
}

#[test]
fn w_25_the_answer_has_the_form_that_accept_names_or_else_the_requests() {
    let mut pair = Pair::new();
    let rows = [
        (WEB, "", WEB),
        (TEXT, "", TEXT),
        (WEB, "accept: */*\r\n", WEB),
        (TEXT, "accept: */*\r\n", TEXT),
        (TEXT, "accept: application/grpc-web\r\n", WEB),
        (TEXT, "accept: application/grpc-web+proto\r\n", WEB),
        (WEB, "accept: application/grpc-web-text\r\n", TEXT),
        (WEB, "accept: APPLICATION/GRPC-WEB-TEXT+PROTO\r\n", TEXT),
        (
            WEB,
            "accept: application/grpc-web, application/grpc-web-text;q=0.1\r\n",
            TEXT,
        ),
        (
            WEB,
            "accept: application/grpc-web\r\naccept: application/grpc-web-text\r\n",
            TEXT,
        ),
        (WEB, "accept: application/grpc-web-text;q=0\r\n", WEB),
        (
            TEXT,
            "accept: application/grpc-web-text;q=0, application/grpc-web;q=0.5\r\n",
            WEB,
        ),
        (TEXT, "accept: text/html, application/json;q=0.9\r\n", TEXT),
    ];
    for (asked, accept, told) in rows {
        let body = message(b"hi");
        let body = if asked == TEXT { text(&body) } else { body };
        pair.client.send(&call(asked, accept, &body));
        let got = pair.peer.request();
        assert_eq!(got.body, message(b"hi"));
        assert_eq!(got.field("accept"), None);
        pair.peer.answer(got.stream, &message(b"one"));
        let answer = pair.client.answer();
        assert_eq!(fields(&answer, "content-type"), [told], "{asked} {accept}");
        let got = if told == TEXT {
            plain(&answer.body)
        } else {
            answer.body
        };
        assert_eq!(
            got,
            [message(b"one"), trailer_frame(OK)].concat(),
            "{asked} {accept}"
        );
        pair.world.record();

        // And a status of ours comes in the same form.
        pair.client.send(&call(
            asked,
            &format!("{accept}grpc-timeout: 0S\r\n"),
            &body,
        ));
        let answer = pair.client.answer();
        assert_eq!(fields(&answer, "content-type"), [told], "{asked} {accept}");
        let got = if told == TEXT {
            plain(&answer.body)
        } else {
            answer.body
        };
        assert_eq!(got[0], 0x80);
        pair.world.record();
    }
}

#[test]
fn w_30_trailers_are_one_frame_behind_all_messages() {
    let mut pair = Pair::new();
    let trailers = [
        ("x-many", "one"),
        ("grpc-status", "0"),
        ("x-empty", ""),
        ("x-many", "two"),
        ("x-bin", "AAEC"),
        ("x-many", "one"),
        ("grpc-status-details-bin", "CAU"),
        ("grpc-retry-pushback-ms", "5"),
    ];
    let lines = "grpc-status:0\r\nx-many:one\r\nx-many:two\r\nx-many:one\r\nx-empty:\r\n\
                 x-bin:AAEC\r\ngrpc-status-details-bin:CAU\r\ngrpc-retry-pushback-ms:5\r\n";
    for form in [WEB, TEXT] {
        for messages in 0..3 {
            pair.client.send(&call(form, "", b""));
            let stream = pair.peer.request().stream;
            pair.peer.grpc_head(stream);
            let body = message(b"one").repeat(messages);
            pair.peer.data(stream, &body, false);
            pair.peer.trailers(stream, &trailers);
            let answer = pair.client.answer();
            assert!(answer.whole);
            assert_eq!(fields(&answer, "grpc-status"), [""; 0]);
            assert_eq!(fields(&answer, "trailer"), [""; 0]);
            let got = if form == TEXT {
                plain(&answer.body)
            } else {
                answer.body
            };
            assert_eq!(got, [body, trailer_frame(lines)].concat());
            assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
        }
    }
}

#[test]
fn w_31_an_answer_of_trailers_alone_is_one_frame_and_a_length() {
    let mut pair = Pair::new();
    let head = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "5"),
        ("grpc-message", "none"),
        ("x-own", "yes"),
    ];
    let expected = alone("grpc-status:5\r\ngrpc-message:none\r\nx-own:yes\r\n");
    for form in [WEB, TEXT] {
        for way in 0..4 {
            pair.client.send(&call(form, "", b""));
            let stream = pair.peer.request().stream;
            pair.peer.head(stream, &head, way == 0);
            match way {
                0 => {}
                1 => pair.peer.data(stream, b"", true),
                // Trailers that say no more than the head has said.
                2 => pair.peer.trailers(stream, &[]),
                _ => {
                    pair.peer.data(stream, b"", false);
                    pair.peer.data(stream, b"", true);
                }
            }
            let expected = if form == TEXT {
                text_of(expected.clone())
            } else {
                expected.clone()
            };
            assert_eq!(pair.client.answer(), expected, "way {way}");
            let record = pair.world.record();
            assert_ends(&record, 5, Reason::BackendStatus, Party::Upstream, false);
        }
    }
    pair.peer.assert_quiet();
}

/// A field of a block, as it stands: HPACK's literal without a name or a value over 126 bytes.
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    [
        &[0, name.len() as u8][..],
        name,
        &[value.len() as u8],
        value,
    ]
    .concat()
}

#[test]
fn w_32_a_line_break_in_a_trailer_never_becomes_a_line_of_the_frame() {
    let values: [&[u8]; 5] = [
        b"a\r\ngrpc-status:0",
        b"a\rb",
        b"a\nb",
        b"a\0b",
        b"\r\n\r\n",
    ];
    for value in values {
        for inside in [false, true] {
            for name in [&b"x-evil"[..], b"grpc-message"] {
                let mut pair = Pair::new();
                pair.client.post("", &message(b"hi"));
                let stream = pair.peer.request().stream;
                pair.peer.grpc_head(stream);
                let body = if inside {
                    &message(b"whole")[..7]
                } else {
                    &message(b"whole")
                };
                pair.peer.data(stream, body, false);
                let (_, begun) = pair.client.chunked_start(body.len());
                assert_eq!(begun, body);
                let block = [literal(b"grpc-status", b"7"), literal(name, value)].concat();
                pair.peer.frame(1, 5, stream, &block);
                let told = "grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the \
                            protocol: it broke HTTP/2\r\n";
                let rest = pair.client.chunked_rest();
                let expected = if inside {
                    (Vec::new(), false)
                } else {
                    (trailer_frame(told), true)
                };
                assert_eq!(rest, expected, "{}", value.escape_ascii());
                let reason = Reason::BackendProtocol("it broke HTTP/2");
                assert_ends(&pair.world.record(), 13, reason, Party::Upstream, inside);
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// A call whose answer is encoded like this, and what its client got.
fn packed(
    pair: &mut Pair,
    form: &str,
    lines: &str,
    coding: Option<&str>,
    pieces: &[&[u8]],
) -> (Answer, Vec<u8>) {
    pair.client.send(&call(form, lines, b""));
    let got = pair.peer.request();
    if !lines.contains("grpc-accept-encoding") {
        assert_eq!(got.field("grpc-accept-encoding"), Some("identity"));
    }
    let mut head = vec![(":status", "200"), ("content-type", "application/grpc")];
    head.extend(coding.map(|coding| ("grpc-encoding", coding)));
    pair.peer.head(got.stream, &head, false);
    for piece in pieces {
        pair.peer.data(got.stream, piece, false);
    }
    pair.peer.trailers(got.stream, &[("grpc-status", "0")]);
    let answer = pair.client.answer();
    assert!(answer.whole);
    let bytes = if form == TEXT {
        plain(&answer.body)
    } else {
        answer.body.clone()
    };
    (answer, bytes)
}

#[test]
fn w_33_a_message_that_came_compressed_unasked_is_unpacked() {
    let mut pair = Pair::new();
    let payload = b"hello hello hello".repeat(50);
    for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("deflate", deflate)] {
        let body = [
            flagged(1, &pack(&payload)),
            message(b"plain"),
            flagged(1, b""),
        ]
        .concat();
        let expected = [
            message(&payload),
            message(b"plain"),
            message(b""),
            trailer_frame(OK),
        ]
        .concat();
        for form in [WEB, TEXT] {
            for cut in [0, 3, 7, 20] {
                let (left, right) = body.split_at(cut);
                let (answer, got) = packed(&mut pair, form, "", Some(coding), &[left, right]);
                assert_eq!(got, expected, "{coding} {form} {cut}");
                assert_eq!(fields(&answer, "grpc-encoding"), [""; 0]);
                assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
            }
        }
        // Who asked for it gets it as it is.
        let lines = format!("grpc-accept-encoding: br, {coding}\r\n");
        let (answer, got) = packed(&mut pair, WEB, &lines, Some(coding), &[&body]);
        assert_eq!(got, [&body[..], &trailer_frame(OK)].concat());
        assert_eq!(fields(&answer, "grpc-encoding"), [coding]);
        pair.world.record();
    }
}

#[test]
fn w_33_what_cannot_be_unpacked_ends_the_call_behind_the_messages_before_it() {
    const LIMIT: usize = 10_000;
    let broken = |how: &str| {
        format!("grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the protocol: {how}\r\n")
    };
    let over = format!(
        "grpc-status:8\r\ngrpc-message:a message of the answer is larger than \
         limits.message_bytes ({LIMIT} bytes)\r\n"
    );
    let nobody = broken("a message is packed in a way that nobody asked for");
    let none = broken("a compressed message without grpc-encoding");
    let cannot = broken("a compressed message cannot be unpacked");
    let (fits, bomb) = (gzip(&[0; LIMIT]), gzip(&[0; LIMIT + 1]));
    let huge = gzip(&vec![0; 8 << 20]);
    let half = &gzip(b"hello hello")[..12];
    let half_deflate = &deflate(&b"hello hello".repeat(9))[..12];
    let rows: [(Option<&str>, &[u8], &str); 9] = [
        (Some("snappy"), b"packed", &nobody),
        (None, &fits, &none),
        (Some("identity"), &fits, &none),
        (Some("gzip"), b"not packed", &cannot),
        (Some("gzip"), half, &cannot),
        (Some("deflate"), half_deflate, &cannot),
        (Some("gzip"), &bomb, &over),
        (Some("gzip"), &huge, &over),
        (Some("gzip"), &fits, OK),
    ];
    let mut plan = Plan::default();
    plan.limits.message_bytes_max = LIMIT as u32;
    let mut pair = Pair::with(plan);
    for (coding, payload, told) in rows {
        for form in [WEB, TEXT] {
            let body = [message(b"before"), flagged(1, payload), message(b"behind")].concat();
            let (_, got) = packed(&mut pair, form, "", coding, &[&body]);
            let whole = [message(&[0; LIMIT]), message(b"behind")].concat();
            let rest = if told == OK { whole } else { Vec::new() };
            let expected = [message(b"before"), rest, trailer_frame(told)].concat();
            assert!(got == expected, "{coding:?}: {}", got.escape_ascii());
            let record = pair.world.record();
            let by = (record.by, record.aborted);
            assert_eq!(by, (Party::Upstream, false));
            let word = match told {
                OK => "ok",
                _ if told == over => "message_too_large",
                _ => "backend_protocol",
            };
            assert_eq!(record.reason.word(), word);
            // The end was there before we gave up, or the backend is told.
            for seen in seen(&mut pair.peer) {
                assert!(matches!(seen, Seen::Reset { code: CANCEL, .. }), "{seen:?}");
            }
        }
    }
}

#[test]
fn w_34_an_answer_that_ends_inside_a_message_is_cut_whatever_its_trailers_say() {
    let mut pair = Pair::new();
    let whole = message(b"whole");
    let half = &message(b"not whole")[..9];
    for form in [WEB, TEXT] {
        for before in [0, 1] {
            pair.client.send(&call(form, "", b""));
            let stream = pair.peer.request().stream;
            pair.peer.grpc_head(stream);
            let body = [&whole.repeat(before)[..], half].concat();
            pair.peer.data(stream, &body, false);
            pair.peer.trailers(stream, &[("grpc-status", "0")]);
            let answer = pair.client.answer();
            // The client cannot take it for whole: neither its framing ends nor a frame follows.
            assert!(!answer.whole);
            let got = if form == TEXT {
                let text = text(&body);
                assert!(
                    text.starts_with(&answer.body),
                    "{}",
                    answer.body.escape_ascii()
                );
                assert!(answer.body.len() + 4 >= text.len());
                body
            } else {
                answer.body
            };
            assert_eq!(got, [&whole.repeat(before)[..], half].concat());
            let record = pair.world.record();
            let reason = Reason::BackendProtocol("the answer ends inside a message");
            assert_ends(&record, 13, reason, Party::Upstream, true);
            assert_eq!(record.response.messages, before as u64);
            pair.reconnect();
        }
    }
    // The beginning of a prefix is kept back, so there the status can still be told.
    for length in 1..5 {
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &[&whole[..], &[0; 4][..length]].concat(), false);
            peer.trailers(stream, &[("grpc-status", "0")]);
        });
        let told = "grpc-status:13\r\ngrpc-message:backend \"greeter\" broke the protocol: the \
                    answer ends inside a message\r\n";
        assert_eq!(answer, streamed(&[&whole, &trailer_frame(told)]));
        let reason = Reason::BackendProtocol("the answer ends inside a message");
        assert_ends(&record, 13, reason, Party::Upstream, false);
    }
}

#[test]
fn w_35_a_status_that_is_no_number_is_unknown_and_one_that_nobody_knows_is_kept() {
    let mut pair = Pair::new();
    let rows: [(&[&str], u32); 16] = [
        (&["99"], 99),
        (&["17"], 17),
        (&["4294967295"], u32::MAX),
        (&["4294967296"], 2),
        (&["abc"], 2),
        (&[""], 2),
        (&["00"], 2),
        (&["007"], 2),
        (&["-1"], 2),
        (&["+1"], 2),
        (&["1.0"], 2),
        (&["0x0"], 2),
        (&["0,0"], 2),
        (&["0", "5"], 2),
        (&["5", "0"], 2),
        (&["5", "5"], 5),
    ];
    for (values, told) in rows {
        let own = if told == 0 {
            Reason::Ok
        } else {
            Reason::BackendStatus
        };
        let lines = format!("grpc-status:{told}\r\n");
        let status: Vec<_> = values.iter().map(|value| ("grpc-status", *value)).collect();
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &message(b"one"), false);
            peer.trailers(stream, &status);
        });
        let expected = streamed(&[&message(b"one"), &trailer_frame(&lines)]);
        assert_eq!(answer, expected, "{values:?}");
        assert_ends(&record, told, own, Party::Upstream, false);
        let (answer, record) = pair.call(|peer, stream| {
            let head = [(":status", "200"), ("content-type", "application/grpc")];
            peer.trailers(stream, &[&head[..], &status].concat());
        });
        assert_eq!(answer, alone(&lines), "{values:?}");
        assert_ends(&record, told, own, Party::Upstream, false);
    }
}

#[test]
fn w_36_a_broken_message_is_repaired_and_never_an_error() {
    let mut pair = Pair::new();
    let rows: [(&[u8], &str, &str); 12] = [
        (b"plain", "plain", "plain"),
        (b"100%", "100%25", "100%"),
        (b"%zz%4", "%25zz%254", "%zz%4"),
        (b"%", "%25", "%"),
        (b"%25", "%25", "%"),
        (b"%c3%bc", "%c3%bc", "\u{fc}"),
        (b"%C3", "%EF%BF%BD", "\u{fffd}"),
        (b"gr\xc3\xbcn", "gr%C3%BCn", "gr\u{fc}n"),
        (b"gr\xfcn", "gr%EF%BF%BDn", "gr\u{fffd}n"),
        (b"a\tb", "a%09b", "a\tb"),
        (
            b"%0D%0Agrpc-status:0",
            "%0D%0Agrpc-status:0",
            "\r\ngrpc-status:0",
        ),
        (b"", "", ""),
    ];
    for (sent, told, meant) in rows {
        let block = [
            literal(b"grpc-status", b"5"),
            literal(b"grpc-message", sent),
        ]
        .concat();
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.frame(1, 5, stream, &block);
        });
        let lines = format!("grpc-status:5\r\ngrpc-message:{told}\r\n");
        let expected = streamed(&[&trailer_frame(&lines)]);
        assert_eq!(answer, expected, "{}", sent.escape_ascii());
        assert_ends(&record, 5, Reason::BackendStatus, Party::Upstream, false);
        assert_eq!(record.message, meant);
    }
}

#[test]
fn w_36_a_long_message_is_cut_between_two_escapes_and_its_status_stays() {
    let mut pair = Pair::new();
    let rows = [
        ("x".repeat(4096), "x".repeat(4096)),
        ("x".repeat(4097), "x".repeat(4096)),
        // A stack trace, longer than all metadata may be: what is cut anyway does not count.
        ("x".repeat(60 << 10), "x".repeat(4096)),
        ("%E2%82%AC".repeat(1000), "%E2%82%AC".repeat(455)),
        (
            format!("xy{}", "%E2%82%AC".repeat(6000)),
            format!("xy{}", "%E2%82%AC".repeat(454)),
        ),
    ];
    for (sent, told) in rows {
        for alone_in_head in [false, true] {
            let (answer, record) = pair.call(|peer, stream| {
                let mut fields = vec![(":status", "200"), ("content-type", "application/grpc")];
                if !alone_in_head {
                    peer.head(stream, &fields, false);
                    peer.data(stream, &message(b"one"), false);
                    fields.clear();
                }
                fields.extend([("grpc-status", "5"), ("grpc-message", sent.as_str())]);
                let block = crate::frames::block(&fields);
                let mut pieces = block.chunks(16 << 10).peekable();
                let mut kind = 1;
                while let Some(piece) = pieces.next() {
                    let last = if pieces.peek().is_none() { 4 } else { 0 };
                    peer.frame(kind, last | u8::from(kind == 1), stream, piece);
                    kind = 9;
                }
            });
            let lines = format!("grpc-status:5\r\ngrpc-message:{told}\r\n");
            let expected = if alone_in_head {
                alone(&lines)
            } else {
                streamed(&[&message(b"one"), &trailer_frame(&lines)])
            };
            assert!(
                answer == expected,
                "{} bytes: {}",
                sent.len(),
                answer.body.escape_ascii()
            );
            assert_ends(&record, 5, Reason::BackendStatus, Party::Upstream, false);
        }
    }
}

#[test]
fn w_37_binary_trailers_stay_base64_in_text_mode() {
    let mut pair = Pair::new();
    let trailers = [
        ("grpc-status", "3"),
        ("x-bin", "AAECAw"),
        ("x-bin", "AAEC"),
        ("x-joined-bin", "AA==, AQ=="),
        ("grpc-status-details-bin", "CAMSAm5v"),
    ];
    let lines = "grpc-status:3\r\nx-bin:AAECAw\r\nx-bin:AAEC\r\nx-joined-bin:AA==, AQ==\r\n\
                 grpc-status-details-bin:CAMSAm5v\r\n";
    pair.client.send(&call(TEXT, "", b""));
    let stream = pair.peer.request().stream;
    let head = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("y-bin", "AAE"),
    ];
    pair.peer.head(stream, &head, false);
    pair.peer.trailers(stream, &trailers);
    let answer = pair.client.answer();
    assert_eq!(fields(&answer, "y-bin"), ["AAE"]);
    assert_eq!(plain(&answer.body), trailer_frame(lines));
    assert_eq!(pair.world.record().code, Some(Code::INVALID_ARGUMENT));
}

#[test]
fn w_39_how_many_messages_an_answer_has_is_the_clients_to_judge() {
    let mut pair = Pair::new();
    for count in [0, 1, 2, 3] {
        let body = message(b"one").repeat(count);
        let (answer, record) = pair.call(|peer, stream| {
            peer.grpc_head(stream);
            peer.data(stream, &body, false);
            peer.trailers(stream, &[("grpc-status", "0")]);
        });
        assert_eq!(answer, streamed(&[&body, &trailer_frame(OK)]));
        assert_ends(&record, 0, Reason::Ok, Party::Upstream, false);
        assert_eq!(record.response.messages, count as u64);
    }
}
