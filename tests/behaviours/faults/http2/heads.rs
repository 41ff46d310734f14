//! Heads: bombs, crumbs, broken compression, and requests that are none.

use wharf::telemetry::Record;
use wharf::wire::{Party, Reason};

use super::{Scene, assert_good, assert_told};
use crate::backend::{Backend, Seen, field_of};
use crate::caller::{CALL, Caller, Heard, call_with, head, head_of};
use crate::client::{Client, PATH, message};
use crate::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS,
    PROTOCOL_ERROR, block, frame,
};
use crate::world::World;

/// A literal that goes into the dynamic table (RFC 7541 §6.2.1); the next head finds it at [`NEWEST`].
fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut literal = block(&[(name, value)]);
    literal[0] = 0x40;
    literal
}

/// A reference to what came last into the dynamic table.
const NEWEST: u8 = 0x80 | 62;

#[test]
fn h2_09_few_references_to_a_large_field_are_too_large_a_head() {
    let large = remembered("x-large", &"v".repeat(3_900));
    for (references, status) in [(4, "431"), (14, "431")] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let bomb = [&block(&CALL)[..], &large, &vec![NEWEST; references]].concat();
        let stream = caller.fresh();
        caller.raw(&head_of(stream, &bomb, false));
        let answer = caller.answer(stream);
        assert_eq!(
            answer.told(),
            (
                status,
                "head too large: limits.header_bytes bounds it\\n".to_owned()
            )
        );
        assert!(answer.whole);
        // What follows of its body is of no interest, and the connection goes on.
        caller.data(stream, b"never read", true);
        assert_eq!(
            scene.world.record().message,
            "head too large: limits.header_bytes bounds it"
        );
        scene.assert_serves(&mut caller);
        assert_told(&scene.end(), &[]);
    }
}

#[test]
fn h2_09_references_to_far_more_than_a_head_may_have_are_not_even_read() {
    let large = remembered("x-large", &"v".repeat(3_900));
    for (references, code) in [(20, None), (2_000, Some(ENHANCE_YOUR_CALM))] {
        let scene = Scene::new();
        let mut caller = scene.caller();
        let bomb = [&block(&CALL)[..], &large, &vec![NEWEST; references]].concat();
        let stream = caller.fresh();
        caller.raw(&head_of(stream, &bomb, true));
        match code {
            None => assert_eq!(caller.answer(stream).told().0, "431"),
            Some(code) => caller.assert_turned_out(code),
        }
        let mut scene = scene;
        scene.peer.assert_quiet();
        assert_eq!(scene.end().len(), 1);
    }
}

#[test]
fn h2_09_who_sends_nothing_but_such_heads_is_turned_out() {
    /// Heads that are none which a connection may send.
    const FAULTS_MAX: usize = 100;
    let scene = Scene::new();
    let mut caller = scene.caller();
    let large = remembered("x-large", &"v".repeat(3_900));
    let again = [&block(&CALL)[..], &[NEWEST; 20]].concat();
    let mut bomb = [&block(&CALL)[..], &large, &[NEWEST; 20]].concat();
    let mut answered = 0;
    let code = 'out: loop {
        let stream = caller.fresh();
        caller.raw(&head_of(stream, &bomb, true));
        bomb.clone_from(&again);
        loop {
            match caller.next() {
                Heard::Head { fields, .. } => {
                    assert_eq!(field_of(&fields, ":status"), Some("431"));
                    answered += 1;
                    assert!(answered <= FAULTS_MAX + 1, "it goes on for ever");
                    break;
                }
                Heard::GoAway { code, .. } => break 'out code,
                // What is left of the one before.
                Heard::Reset { stream: own, .. } if own < stream => {}
                other => panic!("after {answered}: {other:?}"),
            }
        }
    };
    assert_eq!(code, ENHANCE_YOUR_CALM);
    let mut scene = scene;
    scene.peer.assert_quiet();
    let records = scene.end();
    // Each has its line, and the last one says what it came to.
    let bad = |own: &Record| (own.refusal, own.by) == (Some("bad_http"), Party::Downstream);
    assert!(records.iter().all(bad), "{records:?}");
    assert!(records.len() > FAULTS_MAX, "{} lines", records.len());
    let last = records.last().map(|own| &*own.message);
    let words = "it sends one head after another that is none";
    assert_eq!(last, Some(words));
}

#[test]
fn h2_10_hundreds_of_references_to_an_empty_field_are_reset() {
    for (references, reset) in [(127, true), (500, true), (126, false)] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        // With a name of one byte and no value: a byte here, and a field there.
        let bomb = [
            &block(&CALL)[..],
            &remembered("a", ""),
            &vec![NEWEST; references],
        ]
        .concat();
        let stream = caller.fresh();
        caller.raw(&head_of(stream, &bomb, true));
        if reset {
            caller.assert_reset(stream, ENHANCE_YOUR_CALM);
            assert_told(
                &[scene.world.record()],
                &["too many fields: limits.header_fields bounds it"],
            );
            scene.assert_serves(&mut caller);
            assert_told(&scene.end(), &[]);
            continue;
        }
        // A hundred and twenty-eight: the type, the first of them, and these.
        let seen = scene.peer.next();
        let Seen::Head { stream, fields, .. } = seen else {
            panic!("instead of a call: {seen:?}");
        };
        assert_eq!(
            fields.iter().filter(|(name, _)| name == "a").count(),
            references + 1
        );
        scene.peer.reset(stream, CANCEL);
    }
}

#[test]
fn h2_10_a_client_that_goes_on_so_is_turned_out() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let mut bytes = Vec::new();
    for _ in 0..300 {
        let bomb = [&block(&CALL)[..], &remembered("a", ""), &[NEWEST; 200]].concat();
        bytes.extend(head_of(caller.fresh(), &bomb, true));
    }
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    scene.peer.assert_quiet();
    let records = scene.end();
    assert!(records.len() <= 102, "{} lines", records.len());
}

#[test]
fn h2_11_crumbs_of_a_cookie_count_each_and_ninety_are_read() {
    let scene = Scene::new();
    let mut scene = scene;
    let mut caller = scene.caller();
    let crumbs: Vec<_> = (0..90).map(|_| ("cookie", "a=b")).collect();
    let stream = caller.fresh();
    caller.raw(&head(stream, &call_with(&crumbs), false));
    caller.data(stream, &message(b"hi"), true);
    let request = scene.peer.request();
    let cookies: Vec<_> = request
        .fields
        .iter()
        .filter(|(name, _)| name == "cookie")
        .map(|(_, value)| value.matches("a=b").count())
        .collect();
    assert_eq!(cookies.iter().sum::<usize>(), 90, "no crumb is lost");
    scene.peer.answer(request.stream, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(scene.world.record().reason, Reason::Ok);

    let crumbs: Vec<_> = (0..128).map(|_| ("cookie", "a=b")).collect();
    let stream = caller.fresh();
    caller.raw(&head(stream, &call_with(&crumbs), true));
    caller.assert_reset(stream, ENHANCE_YOUR_CALM);

    // A hundred thousand of them, a byte each.
    let stream = caller.fresh();
    let crumb = remembered("cookie", "a");
    let first = [&block(&CALL)[..], &crumb].concat();
    let mut bytes = frame(HEADERS, END_STREAM, stream, &first);
    for _ in 0..10 {
        bytes.extend(frame(CONTINUATION, 0, stream, &[NEWEST; 10_000]));
    }
    bytes.extend(frame(CONTINUATION, END_HEADERS, stream, b""));
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    assert_eq!(scene.end().len(), 2);
}

#[test]
fn h2_13_more_fields_than_a_table_has_places_are_no_panic() {
    // In one head they are more bytes than a head may have.
    let scene = Scene::new();
    let mut caller = scene.caller();
    let names: Vec<String> = (0..25_000u32).map(|n| format!("{n:x}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (&**name, "")).collect();
    let block = block(&fields);
    let mut pieces = block.chunks(16 << 10);
    let mut bytes = head(1, &CALL, true);
    bytes[4] &= !END_HEADERS;
    for piece in &mut pieces {
        bytes.extend(frame(CONTINUATION, 0, 1, piece));
    }
    caller.try_raw(&bytes);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    scene.assert_told_once("a head without end");
    // As many as fit are too many fields.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let few = call_with(&fields[..1_200]);
    caller.raw(&head(1, &few, true));
    caller.assert_reset(1, ENHANCE_YOUR_CALM);
    caller.fresh();
    assert_eq!(scene.world.record().refusal, Some("bad_http"));
    scene.assert_serves(&mut caller);
    scene.end();
}

#[test]
fn h2_14_whatever_table_a_client_offers_ours_stays_small() {
    const HEADER_TABLE_SIZE: u16 = 1;
    let mut scene = Scene::new();
    let mut caller = Caller::with(scene.world.address, &[(HEADER_TABLE_SIZE, u32::MAX)]);
    // The caller's decoder holds 4 KiB, and fails on what refers to more.
    for call in 0..40 {
        let stream = caller.call(&message(b"hi"));
        let begun = scene.peer.request().stream;
        let names: Vec<String> = (0..10).map(|n| format!("x-{call}-{n}")).collect();
        let value = "v".repeat(100);
        let mut fields = vec![(":status", "200"), ("content-type", "application/grpc")];
        fields.extend(names.iter().map(|name| (&**name, &*value)));
        scene.peer.head(begun, &fields, false);
        scene.peer.data(begun, &message(b"well"), false);
        scene.peer.trailers(begun, &[("grpc-status", "0")]);
        let answer = caller.answer(stream);
        for name in &names {
            assert_eq!(answer.field(name), Some(&*value), "call {call}");
        }
        assert_good(&answer, b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);
    }
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_15_broken_compression_ends_the_connection() {
    for (name, broken) in [
        ("a larger table", &[0x3f, 0xe2, 0x1f][..]),
        ("a larger table behind a field", &[0x82, 0x3f, 0xe1, 0x1f]),
        ("index 0", &[0x80]),
        ("an index beyond the table", &[0xff, 0x00]),
        ("padding that is no part of EOS", &[0x00, 0x81, 0x00, 0x00]),
        ("EOS in a text", &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00]),
        (
            "a number without end",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ),
        ("a text without end", &[0x00, 0x05, b'a']),
        (
            "a text of gigabytes",
            &[0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x07, b'a'],
        ),
    ] {
        let scene = Scene::new();
        let mut caller = scene.caller();
        caller.raw(&head_of(1, &[broken, &block(&CALL)].concat(), true));
        let code = caller.last_words().last().map(|&(_, code)| code);
        assert_eq!(code, Some(PROTOCOL_ERROR), "{name}");
        let mut scene = scene;
        scene.peer.assert_quiet();
        assert_eq!(scene.end().len(), 1, "{name}");
    }
}

/// [`CALL`] with that in place of what it says of `name`; `None`: without it.
fn but<'a>(name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    CALL.iter()
        .filter_map(|&(own, before)| {
            let value = if own == name { value } else { Some(before) };
            value.map(|value| (own, value))
        })
        .collect()
}

/// A head with its name and its end.
type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);

/// Each of those heads ends so: with that status, with RST_STREAM (`reset`) or with the connection (`goaway`), both for
/// PROTOCOL_ERROR. The backend sees nothing, one line tells of it, and where the connection is left it goes on.
fn assert_ends(heads: &[Row<'_>]) {
    let mut scene = Scene::new();
    let mut failed = Vec::new();
    for (name, expected, fields) in heads {
        let mut caller = scene.caller();
        let stream = caller.open(fields, true);
        let (mut end, mut status) = (None, None);
        while end.is_none() {
            match caller.next() {
                Heard::Head {
                    fields, end: last, ..
                } => {
                    status = field_of(&fields, ":status").map(str::to_owned);
                    end = last.then(|| status.clone().unwrap_or_default());
                }
                Heard::Data { end: last, .. } => {
                    end = last.then(|| status.clone().unwrap_or_default());
                }
                Heard::Reset {
                    stream: own,
                    code: PROTOCOL_ERROR,
                } if own == stream => {
                    end = Some("reset".to_owned());
                }
                Heard::GoAway {
                    code: PROTOCOL_ERROR,
                    ..
                } => end = Some("goaway".to_owned()),
                other => panic!("{name}: {other:?}"),
            }
        }
        scene.peer.assert_quiet();
        let record = scene.world.record();
        assert_eq!(
            (record.refusal, record.by),
            (Some("bad_http"), Party::Downstream),
            "{name}"
        );
        let end = end.unwrap_or_default();
        if end != *expected {
            failed.push(format!("{name}: {end} instead of {expected}"));
        }
        match &*end {
            "goaway" => assert_eq!(caller.next(), Heard::End),
            _ => scene.assert_serves(&mut caller),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_24_a_head_that_is_no_request_is_reset() {
    let twice = |name: &'static str, value: &'static str| [&CALL[..4], &[(name, value)]].concat();
    assert_ends(&[
        ("an uppercase name", "goaway", call_with(&[("X-Name", "a")])),
        (
            "a pseudo-field behind a field",
            "reset",
            [&CALL[..3], &[CALL[4], CALL[3]]].concat(),
        ),
        ("two methods", "reset", twice(":method", "POST")),
        ("two schemes", "reset", twice(":scheme", "http")),
        ("two paths", "reset", twice(":path", PATH)),
        (
            "two authorities",
            "reset",
            twice(":authority", "wharf.test"),
        ),
        (
            "an unknown pseudo-field",
            "goaway",
            [&[(":x", "a")], &CALL[..]].concat(),
        ),
        ("no method", "reset", but(":method", None)),
        ("no scheme", "reset", but(":scheme", None)),
        ("no path", "reset", but(":path", None)),
        ("an empty path", "reset", but(":path", Some(""))),
        (
            "a status",
            "reset",
            [&[(":status", "200")], &CALL[..]].concat(),
        ),
        ("connection", "reset", call_with(&[("connection", "close")])),
        (
            "keep-alive",
            "reset",
            call_with(&[("keep-alive", "timeout=5")]),
        ),
        (
            "proxy-connection",
            "reset",
            call_with(&[("proxy-connection", "close")]),
        ),
        (
            "transfer-encoding",
            "reset",
            call_with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", "reset", call_with(&[("upgrade", "websocket")])),
        ("te: gzip", "reset", call_with(&[("te", "gzip")])),
    ]);
}

#[test]
fn h2_24_a_client_that_says_nothing_else_is_turned_out() {
    // What `h2` finds, and what we find.
    for bad in [("te", "gzip"), ("x-a", " a")] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let mut bytes = Vec::new();
        for _ in 0..1_000 {
            bytes.extend(head(caller.fresh(), &call_with(&[bad]), true));
        }
        caller.try_raw(&bytes);
        caller.assert_turned_out(ENHANCE_YOUR_CALM);
        scene.peer.assert_quiet();
        let records = scene.end();
        assert!(records.len() <= 102, "{} lines", records.len());
    }
}

#[test]
fn h2_25_what_no_field_may_hold_is_malformed() {
    assert_ends(&[
        ("CR in a value", "goaway", call_with(&[("x-a", "a\rb")])),
        ("LF in a value", "goaway", call_with(&[("x-a", "a\nb")])),
        ("NUL in a value", "goaway", call_with(&[("x-a", "a\0b")])),
        (
            "CR LF and a field",
            "goaway",
            call_with(&[("x-a", "a\r\nx-b: c")]),
        ),
        (
            "a space before a value",
            "reset",
            call_with(&[("x-a", " a")]),
        ),
        (
            "a space behind a value",
            "reset",
            call_with(&[("x-a", "a ")]),
        ),
        (
            "a tab before a value",
            "reset",
            call_with(&[("x-a", "\ta")]),
        ),
        (
            "a tab behind a value",
            "reset",
            call_with(&[("x-a", "a\t")]),
        ),
        ("a colon in a name", "goaway", call_with(&[("x:a", "a")])),
        ("a space in a name", "goaway", call_with(&[("x a", "a")])),
        ("CR in a name", "goaway", call_with(&[("x\ra", "a")])),
        ("LF in a name", "goaway", call_with(&[("x\na", "a")])),
        ("NUL in a name", "goaway", call_with(&[("x\0a", "a")])),
        ("DEL in a name", "goaway", call_with(&[("x\x7fa", "a")])),
        ("an empty name", "goaway", call_with(&[("", "a")])),
    ]);
}

#[test]
fn h2_26_targets_methods_and_schemes_that_are_none_are_refused() {
    assert_ends(&[
        (
            "no slash",
            "reset",
            but(":path", Some("demo.Greeter/Greet")),
        ),
        (
            "a space",
            "reset",
            but(":path", Some("/demo.Greeter/Gr eet")),
        ),
        (
            "HTTP/1 inside",
            "reset",
            but(":path", Some("/a HTTP/1.1\r\nhost: b")),
        ),
        ("a quote", "400", but(":path", Some("/a\"b"))),
        ("a whole address", "reset", but(":path", Some("http://b/c"))),
        ("an asterisk", "400", but(":path", Some("*"))),
        (
            "a method with a target in it",
            "goaway",
            but(":method", Some("GET?")),
        ),
        (
            "a method with a space",
            "goaway",
            but(":method", Some("GET /x")),
        ),
        ("an empty method", "goaway", but(":method", Some(""))),
        (
            "a scheme with an address in it",
            "reset",
            but(":scheme", Some("http://x/?")),
        ),
        ("another scheme", "400", but(":scheme", Some("ftp"))),
        (
            "CONNECT",
            "405",
            vec![(":method", "CONNECT"), (":authority", "wharf.test:80")],
        ),
        ("TRACE", "405", but(":method", Some("TRACE"))),
    ]);
}

#[test]
fn h2_26_what_stands_behind_a_number_sign_reaches_nobody() {
    // `h2` reads a target into a type that has no place for it (crate http 1.5.0), so it cannot be refused here.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let path = format!("{PATH}#secret");
    let stream = caller.open(&but(":path", Some(&path)), false);
    caller.data(stream, &message(b"hi"), true);
    let request = scene.peer.request();
    assert_eq!(request.field(":path"), Some(PATH));
    scene.peer.answer(request.stream, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(scene.world.record().path, PATH);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_27_two_hosts_are_one_too_many() {
    let host = |value| call_with(&[("host", value)]);
    assert_ends(&[
        ("another host", "400", host("other.test")),
        ("another port", "400", host("wharf.test:81")),
        (
            "the same twice",
            "400",
            call_with(&[("host", "wharf.test"), ("host", "wharf.test")]),
        ),
        ("none at all", "400", but(":authority", None)),
        ("an empty one", "reset", but(":authority", Some(""))),
        (
            "two in one",
            "400",
            [&but(":authority", None)[..], &[("host", "a,b")]].concat(),
        ),
        (
            "a path in it",
            "400",
            [&but(":authority", None)[..], &[("host", "a/b")]].concat(),
        ),
        (
            "a user in it",
            "400",
            but(":authority", Some("user@wharf.test")),
        ),
    ]);
    // The same in other letters, or said in one place alone, is a host.
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let alone = [&but(":authority", None)[..], &[("host", "wharf.test")]].concat();
    for fields in [host("WHARF.test"), alone] {
        let stream = caller.open(&fields, false);
        caller.data(stream, &message(b"hi"), true);
        let request = scene.peer.request();
        assert_eq!(request.field("host"), None);
        let authority = request.field(":authority").map(str::to_ascii_lowercase);
        assert_eq!(authority.as_deref(), Some("wharf.test"));
        scene.peer.answer(request.stream, &message(b"well"));
        assert_good(&caller.answer(stream), b"well");
    }
}

#[test]
fn h2_28_a_length_that_is_not_that_of_the_body_is_reset_and_never_completed() {
    let length = |value| call_with(&[("content-length", value)]);
    let body = message(b"hi");
    for (name, fields, pieces) in [
        ("too short", length("8"), vec![(&body[..], true)]),
        ("too long", length("6"), vec![(&body[..], true)]),
        (
            "too long in two",
            length("6"),
            vec![(&body[..5], false), (&body[5..], true)],
        ),
        ("none", length("7"), vec![]),
    ] {
        let mut scene = Scene::new();
        let mut caller = scene.caller();
        let stream = caller.open(&fields, pieces.is_empty());
        for (piece, end) in pieces {
            caller.data(stream, piece, end);
        }
        let answer = caller.answer(stream);
        assert_eq!(answer.reset, Some(PROTOCOL_ERROR), "{name}");
        // Where the call has reached the backend, it is taken back and never ended.
        scene.peer.frame(6, 0, 0, b"anything");
        let mut pongs = 0;
        while pongs < 2 {
            match scene.peer.next() {
                Seen::Pong => {
                    pongs += 1;
                    scene.peer.frame(6, 0, 0, b"anything");
                }
                Seen::Head { end: false, .. } | Seen::Data { end: false, .. } => {}
                Seen::Reset { code, .. } => assert_eq!(code, CANCEL, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        scene.peer.next_within(std::time::Duration::from_millis(20));
        let record = scene.world.record();
        assert_eq!(record.by, Party::Downstream, "{name}");
        assert_eq!(scene.end().len(), 0, "{name}");
    }
    assert_ends(&[
        (
            "two lengths",
            "reset",
            call_with(&[("content-length", "0"), ("content-length", "1")]),
        ),
        ("no number", "reset", length("a")),
        ("a list", "reset", length("0, 0")),
        ("a sign", "reset", length("+0")),
    ]);
}

#[test]
fn h2_28_a_length_that_is_said_twice_or_with_zeros_in_front_is_refused_in_words() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let body = message(b"hi");
    for lengths in [&["7", "7"][..], &["7", "7", "7"], &["007"], &["07"], &[""]] {
        let fields: Vec<_> = lengths.iter().map(|&own| ("content-length", own)).collect();
        // What is no number at all `h2` refuses where content follows.
        let bare = *lengths == [""];
        let stream = caller.open(&call_with(&fields), bare);
        if !bare {
            caller.data(stream, &body, true);
        }
        let answer = caller.answer(stream);
        let expected = ("400", "bad content-length\\n".to_owned());
        assert_eq!(answer.told(), expected, "{lengths:?}");
        assert!(answer.whole);
        assert_told(&[scene.world.record()], &["bad content-length"]);
        scene.peer.assert_quiet();
    }
    // A zero alone is a number, and so is one that ends with zeros.
    for (length, body) in [("0", Vec::new()), ("100", message(&[7; 95]))] {
        let stream = caller.open(&call_with(&[("content-length", length)]), false);
        caller.data(stream, &body, true);
        let request = scene.peer.request();
        assert_eq!(request.body, body);
        scene.peer.answer(request.stream, &message(b"well"));
        assert_good(&caller.answer(stream), b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);
    }
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_29_trailers_behind_an_answer_that_has_begun_are_no_request_that_was_turned_away() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let native = [
        &CALL[..4],
        &[("content-type", "application/grpc"), ("te", "trailers")],
    ]
    .concat();
    let trailers = [("x-end", "a")];
    // The backend answers in trailers, is reset by the caller, or loses its stream.
    for end in ["trailers", "reset", "lost"] {
        let stream = caller.open(&native, false);
        caller.data(stream, &message(b"hi"), false);
        let begun = scene.begun().stream;
        scene.peer.grpc_head(begun);
        scene.peer.data(begun, &message(b"well"), false);
        assert!(matches!(caller.next(), Heard::Head { end: false, .. }));
        assert!(matches!(caller.next(), Heard::Data { end: false, .. }));
        caller.raw(&head(stream, &trailers, true));
        assert_eq!(scene.peer.body(begun), message(b"hi"));
        match end {
            "trailers" => {
                scene.peer.trailers(begun, &[("grpc-status", "0")]);
                let answer = caller.answer(stream);
                assert_eq!(answer.field("grpc-status"), Some("0"));
            }
            "reset" => {
                caller.reset(stream, CANCEL);
                scene.peer.assert_reset(begun, CANCEL);
            }
            _ => {
                // Half a message, and nothing behind it.
                scene.peer.data(begun, &message(b"well")[..7], false);
                scene.peer.reset(begun, CANCEL);
                assert!(caller.answer(stream).reset.is_some());
            }
        }
        let record = scene.world.record();
        assert_eq!(record.refusal, None, "{end}: {record:?}");
        assert_eq!(record.reason == Reason::Ok, end == "trailers", "{end}");
        caller.assert_quiet();
    }
    scene.assert_serves(&mut caller);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_29_trailers_of_a_request_are_left_out_and_with_a_pseudo_field_malformed() {
    let mut scene = Scene::new();
    let mut caller = scene.caller();
    let stream = caller.open(&CALL, false);
    caller.data(stream, &message(b"hi"), false);
    caller.raw(&head(
        stream,
        &[("x-end", "secret"), ("grpc-status", "0")],
        true,
    ));
    // The request ends with its data.
    let request = scene.peer.request();
    assert_eq!(request.body, message(b"hi"));
    assert_eq!(request.field("x-end"), None);
    scene.peer.answer(request.stream, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
    assert_eq!(scene.world.record().reason, Reason::Ok);

    // A pseudo-field that leads them is dropped by `h2` unseen, as from a backend (M-12), and so reaches nobody; behind a field
    // it makes them malformed.
    for pseudo in [CALL[2], (":status", "200")] {
        let stream = caller.open(&CALL, false);
        caller.data(stream, &message(b"hi"), false);
        caller.raw(&head(stream, &[pseudo], true));
        let request = scene.peer.request();
        assert_eq!(request.body, message(b"hi"));
        scene.peer.answer(request.stream, &message(b"well"));
        assert_good(&caller.answer(stream), b"well");
        assert_eq!(scene.world.record().reason, Reason::Ok);

        let stream = caller.open(&CALL, false);
        caller.data(stream, &message(b"hi"), false);
        let begun = scene.begun().stream;
        assert!(matches!(scene.peer.next(), Seen::Data { end: false, .. }));
        caller.raw(&head(stream, &[("x-end", "a"), pseudo], true));
        caller.assert_reset(stream, PROTOCOL_ERROR);
        scene.peer.assert_reset(begun, CANCEL);
        let record = scene.world.record();
        assert_eq!(
            (record.by, record.refusal),
            (Party::Downstream, None),
            "{pseudo:?}"
        );
    }
    // Trailers that do not end the request.
    let stream = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    caller.raw(&head(stream, &[("x-end", "a")], false));
    let answer = caller.answer(stream);
    assert_eq!(answer.reset, Some(PROTOCOL_ERROR));
    scene.peer.assert_reset(begun, CANCEL);
    scene.world.record();
    scene.assert_serves(&mut caller);
    assert_told(&scene.end(), &[]);
}

#[test]
fn h2_32_a_protocol_that_was_not_offered_is_malformed() {
    assert_ends(&[(
        "CONNECT with a protocol",
        "reset",
        vec![
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", PATH),
            (":authority", "wharf.test"),
        ],
    )]);
}

#[test]
fn h2_38_what_dialect_a_caller_may_speak_where() {
    const NATIVE: &str = "application/grpc";
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    // Over HTTP/1.1 its trailers could not be said.
    let mut client = Client::new(world.address);
    client.send(
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: {NATIVE}\r\ncontent-length: 0\r\n\r\n"
        )
        .as_bytes(),
    );
    assert!(client.answer().head.starts_with("HTTP/1.1 415 "));
    assert_eq!(world.record().refusal, Some("content_type"));
    // Over HTTP/2 it passes as it is.
    let mut caller = Caller::new(world.address);
    let fields: Vec<_> = [&CALL[..4], &[("content-type", NATIVE), ("te", "trailers")]].concat();
    let stream = caller.open(&fields, false);
    caller.data(stream, &message(b"hi"), true);
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(request.body, message(b"hi"));
    peer.answer(request.stream, &message(b"well"));
    let answer = caller.answer(stream);
    assert_eq!(answer.field("content-type"), Some(NATIVE));
    assert_eq!(answer.body, message(b"well"));
    assert_eq!(answer.field("grpc-status"), Some("0"));
    assert!(answer.whole);
    assert_eq!(world.record().reason, Reason::Ok);
    // A type that nobody speaks.
    let fields: Vec<_> = [&CALL[..4], &[("content-type", "text/plain")]].concat();
    let stream = caller.open(&fields, false);
    let answer = caller.answer(stream);
    assert_eq!(answer.field(":status"), Some("415"));
    assert!(answer.whole);
    assert_eq!(world.record().refusal, Some("content_type"));
    caller.frame(DATA, END_STREAM, stream, b"");
}
