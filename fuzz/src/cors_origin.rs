//! Allowed origins: a pattern means what a naive reading says it means, and a stranger's `origin` gets in by that alone.

use std::fmt;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN,
};
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
    assert_eq!(pattern.is_ok(), expected.is_some(), "{text:?}");
    let (Ok(pattern), Some(expected)) = (pattern, expected) else {
        return;
    };

    let printed = pattern.to_string();
    assert_eq!(printed, expected.to_string(), "{text:?}");
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
        printed.replace("://", "://evil"),
        printed.replace("://", "://user@"),
        printed.replace("://", "://evil.net:80"),
        printed.replace("://", "://evil.net/"),
        printed.replacen("*.", "", 1),
        printed.replacen("*.", ".", 1),
        printed.replacen("*.", "a.b-c.", 1),
        printed.replacen("*.", "a.b_1.", 1).replace(":*", ":1"),
        printed.replacen("*.", "a..", 1),
        printed.replacen("*.", "A.", 1),
        printed.replacen('*', "evil", 1),
        printed.replacen('*', "a/", 1),
        printed.replacen('*', "u@a", 1),
        printed.replacen('*', "a:1", 1),
        printed.to_ascii_uppercase(),
        format!("{printed}."),
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
        let allowed = expected.allows(&origin);
        assert_eq!(pattern.matches(&origin), allowed, "{pattern:?}: {origin:?}");
        let named = !matches!(expected, Meaning::All);
        check_preflight(&cors, &origin, allowed, false);
        check_preflight(
            &cors.clone().with_credentials(true),
            &origin,
            allowed,
            named && allowed,
        );
    }
}

/// What a pattern means, in the parts of an origin.
enum Meaning {
    All,
    Null,
    Pages {
        scheme: String,
        /// With a `*.` before it where everything below it is meant.
        host: String,
        port: Port,
    },
}

enum Port {
    Default,
    This(String),
    Any,
}

/// Goes through the text from its end, where the parser goes from its beginning.
fn naive(text: &str) -> Option<Meaning> {
    if text == "*" {
        return Some(Meaning::All);
    }
    if text == "null" {
        return Some(Meaning::Null);
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
    if scheme == "file" {
        // Its pages have no origin of their own.
        return None;
    }
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
    } else if let Some(domain) = host.strip_prefix("*.") {
        // Labels, of which the last is no number: that would be an address.
        let last = domain.rsplit('.').next()?;
        if !is_name(domain) || last.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
    } else if host.is_empty()
        || !host
            .chars()
            .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '_'))
    {
        return None;
    }
    let port = match port {
        None => Port::Default,
        Some("*") => Port::Any,
        Some(port) if !is_port(port) => return None,
        Some(port) if matches!((scheme, port), ("http", "80") | ("https", "443")) => Port::Default,
        Some(port) => Port::This(port.to_owned()),
    };
    Some(Meaning::Pages {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        port,
    })
}

impl Meaning {
    /// Whether a page of that origin is meant.
    fn allows(&self, origin: &str) -> bool {
        let (scheme, host, port) = match self {
            Self::All => return true,
            Self::Null => return origin == "null",
            Self::Pages { scheme, host, port } => (scheme, host, port),
        };
        // The origin in its parts: where the host ends, a port begins or nothing.
        let Some((own_scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let end = if authority.starts_with('[') {
            authority.find(']').map_or(authority.len(), |at| at + 1)
        } else {
            authority.find(':').unwrap_or(authority.len())
        };
        let (own_host, rest) = authority.split_at(end);
        let own_port = rest.strip_prefix(':');
        let port_fits = match port {
            Port::Default => rest.is_empty(),
            Port::This(port) => own_port == Some(port),
            Port::Any => rest.is_empty() || own_port.is_some_and(is_port),
        };
        let host_fits = match host.strip_prefix("*.") {
            None => own_host == host,
            Some(domain) => {
                let wanted: Vec<_> = domain.split('.').collect();
                let own: Vec<_> = own_host.split('.').collect();
                is_name(own_host) && own.len() > wanted.len() && own.ends_with(&wanted)
            }
        };
        own_scheme == scheme && host_fits && port_fits
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::Pages { scheme, host, port } => {
                write!(f, "{scheme}://{host}")?;
                match port {
                    Port::Default => Ok(()),
                    Port::This(port) => write!(f, ":{port}"),
                    Port::Any => f.write_str(":*"),
                }
            }
        }
    }
}

/// Labels with dots between them.
fn is_name(text: &str) -> bool {
    text.split('.').all(|label| {
        let mut letters = label.chars();
        !label.is_empty() && letters.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
    })
}

/// Digits, of a number that fits 16 bits.
fn is_port(text: &str) -> bool {
    let number = text.trim_start_matches('0');
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_digit())
        && number.len() <= 5
        && number.parse::<u32>().unwrap_or_default() <= 65_535
}

fn check_preflight(cors: &Cors, origin: &str, allowed: bool, credentials: bool) {
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
        listener: 0,
        number: 0,
    };
    let Verdict::Respond(answer) = cors.request(&mut head, &peer) else {
        panic!("a preflight goes no further");
    };
    let permission = answer.head.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
    let with_credentials = answer
        .head
        .headers
        .contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    assert_eq!(with_credentials, credentials && value.to_str().is_ok());
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
    let (cause, cure) = sentence
        .split_once("; ")
        .expect("a refusal says what to do");
    assert!(cause.split(' ').count() < 14, "{cause:?}");
    if let Some((_, typed)) = cure.split_once("  --allow-origin ") {
        // Somebody pastes it into a shell, to which brackets may mean something.
        let typed = match origin.contains('[') {
            true => typed
                .strip_prefix('\'')
                .and_then(|typed| typed.strip_suffix('\''))
                .expect("brackets stand in quotes"),
            false => typed,
        };
        assert_eq!(typed, origin);
        assert!(
            typed
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-._:/[]".contains(c)),
            "{typed:?}"
        );
    } else {
        assert_eq!(cure, "it is no well-formed origin");
    }
}
