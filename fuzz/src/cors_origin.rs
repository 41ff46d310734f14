//! Allowed origins: a pattern means what a naive reading says it means, and a stranger's `origin` gets in by that alone.

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use wharf::policy::{Cors, Filter, OriginPattern, Peer, Remedy, Verdict};
use wharf::wire::RequestHead;

/// Reads `input` as a line of pattern, and lines of origins.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let text = lines.next().unwrap_or_default();
    let pattern = text.parse::<OriginPattern>();
    let expected = naive(text);
    assert_eq!(pattern.as_ref().ok(), expected.as_ref(), "{text:?}");
    let Ok(pattern) = pattern else { return };

    let printed = pattern.to_string();
    assert_eq!(
        printed.parse(),
        Ok(pattern.clone()),
        "what is printed is the same"
    );

    let mut origins: Vec<String> = lines.take(16).map(str::to_owned).collect();
    for near in [
        text.to_owned(),
        printed.clone(),
        printed.replace('*', "8080"),
        printed.replace('*', "65536"),
        printed.replace('*', "+80"),
        printed.replace(":*", ""),
        printed.replace("://", "://a."),
        format!("{printed}.example"),
        format!("{printed}:80"),
        format!("{printed}/"),
        format!(" {printed}"),
        "null".to_owned(),
        String::new(),
    ] {
        origins.push(near);
    }
    let cors = Cors::new(vec![pattern.clone()], Remedy::Flag);
    for origin in origins {
        let allowed = allows(&pattern, &origin);
        assert_eq!(pattern.matches(&origin), allowed, "{pattern:?}: {origin:?}");
        check_preflight(&cors, &origin, allowed);
    }
}

/// What a pattern means. It goes through the text from its end, where the parser goes from its beginning.
fn naive(text: &str) -> Option<OriginPattern> {
    if text == "*" {
        return Some(OriginPattern::Any);
    }
    if text == "null" {
        return Some(OriginPattern::Exact("null".into()));
    }
    let lower: String = text.chars().map(|c| c.to_ascii_lowercase()).collect();
    // The port: everything behind the last colon, if only a port's characters stand there.
    let end = lower.trim_end_matches(|c: char| c.is_ascii_digit() || c == '*');
    let port = &lower[end.len()..];
    let (base, port) = match end.strip_suffix(':') {
        Some(base) => (base, Some(port)),
        None => (lower.as_str(), None),
    };
    let (scheme, host) = match base.find("://") {
        Some(at) => (&base[..at], &base[at + 3..]),
        None => return None,
    };
    let mut letters = scheme.chars();
    if !letters.next()?.is_ascii_lowercase()
        || !letters.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '+' | '-' | '.'))
    {
        return None;
    }
    if let Some(address) = host.strip_prefix('[') {
        address
            .strip_suffix(']')?
            .parse::<std::net::Ipv6Addr>()
            .ok()?;
    } else if host.is_empty()
        || !host
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '_'))
    {
        return None;
    }
    match port {
        None => Some(OriginPattern::Exact(lower.as_str().into())),
        Some("*") => Some(OriginPattern::AnyPort(base.into())),
        Some(port) if !is_port(port) => None,
        Some(port) => {
            let default = matches!((scheme, port), ("http", "80") | ("https", "443"));
            let exact = if default { base } else { &lower };
            Some(OriginPattern::Exact(exact.into()))
        }
    }
}

/// Whether a page of that origin is meant.
fn allows(pattern: &OriginPattern, origin: &str) -> bool {
    match pattern {
        OriginPattern::Any => true,
        OriginPattern::Exact(exact) => origin.as_bytes() == exact.as_bytes(),
        OriginPattern::AnyPort(base) => {
            origin == &**base
                || origin
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| host == &**base && is_port(port))
        }
    }
}

/// Digits, of a number that fits 16 bits.
fn is_port(text: &str) -> bool {
    let number = text.trim_start_matches('0');
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_digit())
        && number.len() <= 5
        && number.parse::<u32>().unwrap_or_default() <= 65_535
}

fn check_preflight(cors: &Cors, origin: &str, allowed: bool) {
    let Ok(value) = HeaderValue::from_bytes(origin.as_bytes()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, value.clone());
    headers.insert(
        ACCESS_CONTROL_REQUEST_METHOD,
        HeaderValue::from_static("POST"),
    );
    let mut head = RequestHead {
        method: Method::OPTIONS,
        path: PathAndQuery::from_static("/a.B/C"),
        authority: None,
        headers: headers.into(),
    };
    let peer = Peer {
        address: ([127, 0, 0, 1], 1).into(),
    };
    let Verdict::Respond(answer) = cors.request(&mut head, &peer) else {
        panic!("a preflight goes no further");
    };
    let permission = answer.head.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
    // Beyond visible ASCII nothing is an origin, not even for `*`.
    if allowed && value.to_str().is_ok() {
        assert_eq!(answer.head.status, StatusCode::NO_CONTENT);
        assert_eq!(permission, Some(&value));
        return;
    }
    assert_eq!(answer.head.status, StatusCode::FORBIDDEN);
    assert_eq!(permission, None);
    let (_, sentence) = answer.refusal.expect("a refusal says why");
    assert!(!sentence.contains(char::is_control), "{sentence:?}");
    if let Some((_, typed)) = sentence.split_once("; allow it:  --allow-origin ") {
        // Somebody pastes it into a shell.
        assert_eq!(typed, origin);
        assert!(
            typed
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-._:/[]".contains(c)),
            "{typed:?}"
        );
    }
}
