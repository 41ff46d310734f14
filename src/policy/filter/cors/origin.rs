//! Origins: which ones a text means, and whether a page's is one of them.
//!
//! Owns how a pattern is written and how it matches: byte by byte, the whole origin or nothing, because an origin that only
//! looks alike is another site's. It asks no resolver and knows no list of public suffixes.
//!
//! Sources: RFC 6454 §6.2, §7 (how an origin is written); the Fetch standard, "`Origin` header".

use std::fmt;
use std::str::FromStr;

/// Which origins a page may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: every page, `null` included.
    Any,
    /// This one and no other, e.g. `https://app.example.com`; or `null`.
    Exact(Box<str>),
    /// `http://localhost:*`: this scheme and host, on any port or none.
    AnyPort(Box<str>),
}

/// Why a text is no origin; the sentence ends with what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginFault(pub &'static str);

impl OriginPattern {
    /// The pages of this machine, on any port. What the start without a file allows as long as it listens on loopback only.
    pub const LOOPBACK: [&'static str; 6] = [
        "http://localhost:*",
        "https://localhost:*",
        "http://127.0.0.1:*",
        "https://127.0.0.1:*",
        "http://[::1]:*",
        "https://[::1]:*",
    ];

    /// Whether a page of that origin is meant. Browsers send origins in lower case and without the default port, so bytes
    /// are compared as they are.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *origin,
            Self::AnyPort(base) => match origin.strip_prefix(&**base) {
                Some("") => true,
                Some(rest) => rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok() && is_digits(port)),
                None => false,
            },
        }
    }
}

impl FromStr for OriginPattern {
    type Err = OriginFault;

    fn from_str(text: &str) -> Result<Self, OriginFault> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Ok(Self::Exact(text.into()));
        }
        if text.contains(',') {
            return Err(OriginFault(
                "one origin each: repeat the flag, or write a list, e.g. [\"http://a\", \"http://b\"]",
            ));
        }
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://").ok_or(OriginFault(
            "an origin begins with its scheme, e.g. https://app.example.com",
        ))?;
        let scheme_ok = scheme
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        if !scheme_ok {
            return Err(OriginFault("the scheme is no scheme; write http or https"));
        }
        if rest.contains(['/', '?', '#']) {
            return Err(OriginFault(
                "an origin ends with its host and port: leave out everything from the slash on",
            ));
        }
        let (host, port) = match rest.rfind(':') {
            // A colon inside brackets belongs to the address.
            Some(at) if !rest[at..].contains(']') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if host.contains('*') {
            return Err(OriginFault(
                "only the port may be *, as in http://localhost:*; name each host by itself",
            ));
        }
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_ok = match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !host_ok {
            return Err(OriginFault(
                "the host is no host; write it as in the browser's address bar",
            ));
        }
        match port {
            Some("*") => Ok(Self::AnyPort(format!("{scheme}://{host}").into())),
            Some(port) if !(is_digits(port) && port.parse::<u16>().is_ok()) => {
                Err(OriginFault("the port is a number up to 65535, or *"))
            }
            // RFC 6454 §6.2: the default port of the scheme is not written.
            Some("80") if scheme == "http" => Ok(Self::Exact(format!("http://{host}").into())),
            Some("443") if scheme == "https" => Ok(Self::Exact(format!("https://{host}").into())),
            _ => Ok(Self::Exact(text.into())),
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(exact) => f.write_str(exact),
            Self::AnyPort(base) => write!(f, "{base}:*"),
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
