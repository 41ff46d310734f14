//! Rows W-14 to W-17 over HTTP/2: which pages may call, and what they may read. The cases are those of HTTP/1.1.

use wharf::wire::Code;

use crate::backend::Backend;
use crate::caller::{Answer, Caller, long_head};
use crate::client::{PATH, message};
use crate::faults::grpc_web::{
    A_MOMENT, BELOW_A_WILDCARD, LIST, LISTED, PAGE, PERMISSIVE, PREFLIGHTS, SIGNED_IN, SOME_NAMED,
    TEXT, VARY, WEB, asked_names, assert_readable, fail, pages, plain, refusals, statuses, text,
    under, web,
};
use crate::frames::{CANCEL, PROTOCOL_ERROR};
use crate::world::{Plan, World};

const OTHER: &str = "https://other.example";

/// Says a whole request on a new stream.
fn ask(caller: &mut Caller, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u32 {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
    ];
    let stream = caller.fresh();
    let fields = [&pseudo[..], fields].concat();
    caller.raw(&long_head(stream, &fields, body.is_empty()));
    if !body.is_empty() {
        caller.data(stream, body, true);
    }
    stream
}

fn preflight(caller: &mut Caller, path: &str, origins: &[&str], asked: Option<&str>) -> u32 {
    let mut fields: Vec<_> = origins.iter().map(|&own| ("origin", own)).collect();
    fields.push(("access-control-request-method", "POST"));
    fields.extend(asked.map(|asked| ("access-control-request-headers", asked)));
    ask(caller, "OPTIONS", path, &fields, b"")
}

/// The values of a field of the answer's head, in order.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let fields = answer.fields.iter().filter(|(own, _)| own == name);
    fields.map(|(_, value)| &**value).collect()
}

fn status(answer: &Answer) -> u16 {
    let status = answer.field(":status").expect("a head");
    status.parse().expect("a number")
}

/// All that the answer permits, by name.
fn permissions(answer: &Answer) -> Vec<(&str, &str)> {
    let fields = answer.fields.iter();
    let mut own: Vec<_> = fields
        .filter(|(name, _)| name.starts_with("access-control-"))
        .map(|(name, value)| (&**name, &**value))
        .collect();
    own.sort_unstable();
    own
}

/// How long an answer is, any page may read (Fetch, "CORS-safelisted response-header name"): whether it is told so or not is no
/// matter.
const LENGTH: &str = "content-length";

/// The names that the page may read, by name.
fn exposed(answer: &Answer) -> Vec<&str> {
    let lists = values(answer, "access-control-expose-headers");
    let names = lists.iter().flat_map(|list| list.split(','));
    let mut names: Vec<_> = names.filter(|name| *name != LENGTH).collect();
    names.sort_unstable();
    names
}

/// The names that it should: gRPC's three, and all that stand on the answer besides what is said of CORS and to caches.
fn standing(answer: &Answer) -> Vec<&str> {
    let names = answer.fields.iter().map(|(name, _)| &**name);
    let hidden = |name: &&str| {
        let always = [LENGTH, "set-cookie", "vary"].contains(name);
        always || name.starts_with(':') || name.starts_with("access-control-")
    };
    let mut names: Vec<_> = names.filter(|name| !hidden(name)).collect();
    names.extend(["grpc-status", "grpc-message", "grpc-status-details-bin"]);
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn w_14_a_preflight_over_http2_is_answered_here_with_exactly_what_the_page_may() {
    let backend = Backend::new();
    for (allowed, origins, expected) in PREFLIGHTS {
        let world = web(Plan::default(), allowed, &[&backend]);
        let mut caller = Caller::new(world.address);
        let asked = "content-type, X-Grpc-Web";
        let stream = preflight(&mut caller, PATH, origins, Some(asked));
        let answer = caller.answer(stream);
        assert_eq!(status(&answer), expected, "{origins:?}");
        assert!(answer.whole);
        assert_eq!(values(&answer, "vary"), [VARY]);
        let all = [
            ("access-control-allow-headers", "content-type,x-grpc-web"),
            ("access-control-allow-methods", "POST"),
            ("access-control-allow-origin", origins[0]),
            ("access-control-max-age", "7200"),
        ];
        let granted = if expected == 204 { &all[..] } else { &[] };
        assert_eq!(permissions(&answer), granted);
        assert_eq!(answer.body.is_empty(), expected == 204);
        let record = world.record();
        assert_eq!(record.http_status, Some(expected));
        let (word, cause) = match expected {
            204 => (None, ""),
            403 => (Some("cors_origin"), origins[0]),
            _ => (Some("bad_http"), "more than one origin"),
        };
        assert_eq!(record.refusal, word);
        assert!(record.message.contains(cause), "{}", record.message);
        assert_eq!(record.message.is_empty(), expected == 204);
    }
    assert!(backend.is_left_alone(A_MOMENT), "a preflight was forwarded");
}

#[test]
fn w_14_a_call_over_http2_that_names_two_origins_is_refused() {
    let backend = Backend::new();
    let world = web(Plan::default(), &["*"], &[&backend]);
    let mut caller = Caller::new(world.address);
    let fields = [("content-type", WEB), ("origin", PAGE), ("origin", PAGE)];
    let stream = ask(&mut caller, "POST", PATH, &fields, &message(b"hi"));
    let answer = caller.answer(stream);
    assert_eq!((status(&answer), answer.whole), (400, true));
    assert_eq!(permissions(&answer), []);
    let record = world.record();
    assert_eq!(record.refusal, Some("bad_http"));
    assert_eq!(record.message, "the request has more than one origin");
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_14_a_page_below_a_wildcard_may_call_over_http2_and_one_that_only_looks_like_it_may_not() {
    let backend = Backend::new();
    let world = web(Plan::default(), &["https://*.example.com"], &[&backend]);
    let mut caller = Caller::new(world.address);
    for (origin, expected) in BELOW_A_WILDCARD {
        let stream = preflight(&mut caller, PATH, &[origin], None);
        let answer = caller.answer(stream);
        assert_eq!(status(&answer), expected, "{origin}");
        let told = values(&answer, "access-control-allow-origin");
        assert_eq!(told, Vec::from_iter((expected == 204).then_some(origin)));
        let record = world.record();
        assert_eq!(record.refusal, (expected == 403).then_some("cors_origin"));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_15_only_names_are_echoed_over_http2_and_not_too_many() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    for (asked, expected) in asked_names() {
        let mut caller = Caller::new(world.address);
        let stream = preflight(&mut caller, PATH, &[PAGE], Some(&asked));
        if asked.bytes().any(|byte| byte.is_ascii_control()) {
            // It may stand in no field at all (H2-25).
            caller.assert_turned_out(PROTOCOL_ERROR);
            let record = world.record();
            assert_eq!(
                (record.http_status, record.refusal),
                (None, Some("bad_http"))
            );
            continue;
        }
        let answer = caller.answer(stream);
        assert_eq!(status(&answer), expected, "{asked:?}");
        let echoed = values(&answer, "access-control-allow-headers");
        match expected {
            204 => assert_eq!(echoed, [asked.replace(", ,B,", ",b")]),
            _ => assert!(echoed.is_empty(), "{asked:?}: {echoed:?}"),
        }
        assert_eq!(world.record().http_status, Some(expected));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_15_a_field_that_is_not_listed_is_named_in_the_log_over_http2_too() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    let listed = ["x-tenant".parse().expect("a name")];
    under(&mut snapshot, pages(&[PAGE]).letting_send(listed));
    let world = World::obeying(snapshot);
    let mut caller = Caller::new(world.address);
    for (asked, refused) in LISTED {
        let stream = preflight(&mut caller, PATH, &[PAGE], Some(asked));
        let answer = caller.answer(stream);
        assert_eq!(status(&answer), 204);
        assert_eq!(values(&answer, "access-control-allow-headers"), [LIST]);
        let record = world.record();
        assert_eq!(record.refusal, refused.then_some("cors_header"), "{asked}");
        assert_eq!(record.message.contains("\"x-trace\""), refused);
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_16_over_http2_credentials_are_never_allowed_and_what_stands_there_is_readable_and_no_more() {
    for allowed in ["*", PAGE] {
        let backend = Backend::new();
        let world = web(Plan::default(), &[allowed], &[&backend]);
        let mut caller = Caller::new(world.address);
        let mut peer = None;
        for (origin, permitted) in [
            (Some(PAGE), true),
            (Some(OTHER), allowed == "*"),
            (None, false),
        ] {
            let mut fields = vec![("content-type", WEB), ("cookie", "a=b")];
            fields.extend(origin.map(|origin| ("origin", origin)));
            let stream = ask(&mut caller, "POST", PATH, &fields, &message(b"hi"));
            let peer = peer.get_or_insert_with(|| backend.accept());
            let begun = peer.request().stream;
            // What the backend permits is its own affair.
            let own = [("x-own", "1"), ("x-twice", "1"), ("x-twice", "2")];
            let secret = [("set-cookie", "c=d")];
            let head = [&PERMISSIVE[..], &own, &secret].concat();
            peer.head(begun, &head, false);
            peer.trailers(begun, &[("grpc-status", "0"), ("x-trailer", "1")]);
            let answer = caller.answer(stream);
            assert!(answer.whole);
            assert_eq!(values(&answer, "access-control-allow-credentials"), [""; 0]);
            let told = values(&answer, "access-control-allow-origin");
            assert_eq!(told, Vec::from_iter(origin.filter(|_| permitted)));
            assert_eq!(values(&answer, "vary"), ["accept", "Origin"]);
            match permitted {
                true => assert_eq!(exposed(&answer), standing(&answer)),
                false => assert_eq!(exposed(&answer), [""; 0]),
            }
        }
    }
}

#[test]
fn w_16_credentials_go_over_http2_with_an_origin_that_was_named_and_with_no_star() {
    let backend = Backend::new();
    let mut snapshot = Plan::default().snapshot(&[&backend]);
    under(&mut snapshot, pages(&SOME_NAMED).with_credentials(true));
    let world = World::obeying(snapshot);
    let mut caller = Caller::new(world.address);
    let mut peer = None;
    for (origin, named) in SIGNED_IN {
        let mut answers = Vec::new();
        let stream = preflight(&mut caller, PATH, &[origin], None);
        answers.push(caller.answer(stream));
        let mut fields = [("origin", origin), ("cookie", "a=b"), ("content-type", WEB)];
        let stream = ask(&mut caller, "POST", PATH, &fields, &message(b"hi"));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let request = peer.request();
        assert_eq!(request.field("cookie"), Some("a=b"));
        peer.answer(request.stream, &message(b"well"));
        answers.push(caller.answer(stream));
        // One of our own: no such content type.
        fields[2].1 = "image/png";
        let stream = ask(&mut caller, "POST", PATH, &fields, b"");
        answers.push(caller.answer(stream));
        for answer in &answers {
            let told = values(answer, "access-control-allow-credentials");
            assert_eq!(told, Vec::from_iter(named.then_some("true")), "{origin}");
            assert_eq!(values(answer, "access-control-allow-origin"), [origin]);
            assert!(!permissions(answer).iter().any(|own| own.1.contains('*')));
            let vary = values(answer, "vary").join(", ");
            assert!(vary.starts_with("Origin"), "{vary}");
        }
        for answer in &answers[1..] {
            assert_eq!(exposed(answer), standing(answer), "{origin}");
        }
    }
}

#[test]
fn w_17_over_http2_a_page_may_read_every_refusal_of_a_request_that_is_no_call() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    for (method, path, fields, expected) in refusals() {
        let what = format!("{method} {path} {expected}");
        // To another page it says the same and permits nothing.
        for origin in [PAGE, OTHER] {
            let mut caller = Caller::new(world.address);
            let mut all = vec![("origin", origin)];
            all.extend(fields.iter().map(|(name, value)| (*name, &**value)));
            let stream = ask(&mut caller, method, path, &all, b"");
            let answer = caller.answer(stream);
            assert_eq!((status(&answer), answer.whole), (expected, true), "{what}");
            if origin == PAGE {
                assert_readable(|name| values(&answer, name), &what);
                assert_eq!(exposed(&answer), standing(&answer), "{what}");
            } else {
                assert_eq!(permissions(&answer), [], "{what}");
            }
            let record = world.record();
            assert_eq!(record.http_status, Some(expected), "{what}");
            assert_eq!(record.origin.as_deref(), Some(origin), "{what}");
        }
        // Nor to two at once.
        let mut caller = Caller::new(world.address);
        let mut all = vec![("origin", PAGE), ("origin", PAGE)];
        all.extend(fields.iter().map(|(name, value)| (*name, &**value)));
        let stream = ask(&mut caller, method, path, &all, b"");
        assert_eq!(permissions(&caller.answer(stream)), [], "{what}");
        world.record();
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_17_over_http2_a_page_may_ask_for_a_method_that_no_route_takes_and_is_told_so() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    let mut caller = Caller::new(world.address);
    for (origin, expected) in [(PAGE, 204), (OTHER, 403)] {
        let stream = preflight(&mut caller, "/nowhere.S/M", &[origin], None);
        let answer = caller.answer(stream);
        assert_eq!(status(&answer), expected);
        assert_eq!(permissions(&answer).is_empty(), expected == 403);
        assert_eq!(world.record().http_status, Some(expected));
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn w_17_over_http2_a_page_may_read_every_status_that_is_ours() {
    let (silent, nobody) = (Backend::new(), Backend::nobody());
    let worlds = [&silent, &nobody].map(|backend| web(Plan::default(), &[PAGE], &[backend]));
    for (path, more, body, code) in statuses() {
        let world = &worlds[usize::from(code == 14)];
        for form in [WEB, TEXT] {
            let what = format!("{path} {more:?} {code}");
            let mut fields = vec![("origin", PAGE), ("content-type", form)];
            fields.extend(more.iter().map(|(name, value)| (*name, &**value)));
            let mut caller = Caller::new(world.address);
            let written = match form {
                TEXT => text(body),
                _ => body.to_vec(),
            };
            let stream = ask(&mut caller, "POST", path, &fields, &written);
            let answer = caller.answer(stream);
            assert_eq!((status(&answer), answer.whole), (200, true), "{what}");
            assert_readable(|name| values(&answer, name), &what);
            assert_eq!(exposed(&answer), standing(&answer), "{what}");
            let got = match form {
                TEXT => plain(&answer.body),
                _ => answer.body.clone(),
            };
            // One trailer frame and nothing else.
            let length = u32::try_from(got.len() - 5).expect("short").to_be_bytes();
            assert_eq!(got[..5], [&[0x80][..], &length].concat(), "{what}");
            let begin = format!("grpc-status:{code}\r\n");
            let told = got[5..].escape_ascii().to_string();
            assert!(got[5..].starts_with(begin.as_bytes()), "{what}: {told}");
            assert_eq!(world.record().code, Some(Code::new(code)));
        }
    }
}

#[test]
fn w_17_over_http2_a_page_may_read_what_became_of_a_call_that_has_reached_its_backend() {
    let backend = Backend::new();
    let world = web(Plan::default(), &[PAGE], &[&backend]);
    let mut caller = Caller::new(world.address);
    let mut peer = None;
    for code in [4, 8, 13, 14] {
        let mut fields = vec![("origin", PAGE), ("content-type", WEB)];
        fields.extend((code == 4).then_some(("grpc-timeout", "200m")));
        let stream = ask(&mut caller, "POST", PATH, &fields, &message(b"hi"));
        let peer = peer.get_or_insert_with(|| backend.accept());
        let begun = peer.request().stream;
        fail(peer, begun, code);
        let answer = caller.answer(stream);
        assert!(answer.whole);
        assert_readable(|name| values(&answer, name), &code.to_string());
        assert_eq!(exposed(&answer), standing(&answer), "{code}");
        assert_eq!(world.record().code, Some(Code::new(code)));
        if code != 14 {
            peer.assert_reset(begun, CANCEL);
        }
    }
}
