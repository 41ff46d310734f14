//! Origins: which ones a text means, and whether a page's is one of them.
//!
//! Owns how a pattern is written and how it matches: byte by byte, the whole origin or nothing, because an origin that only
//! looks alike is another site's. It asks no resolver and knows no list of public suffixes.
//!
//! Sources: RFC 6454 §6.2, §7 (how an origin is written); the Fetch standard, "`Origin` header".

use std::borrow::Cow;
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
    /// `https://*.example.com`: every host below a domain.
    Below(Box<Domain>),
}

/// What every host below one domain has in common. The domain itself is not below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The scheme, e.g. `https://`.
    scheme: Box<str>,
    /// From the dot on: the domain, and the port if one is written, e.g. `.example.com` or `.example.com:8443`.
    rest: Box<str>,
    /// Any port besides, or none: `https://*.example.com:*`.
    any_port: bool,
}

/// Why a text is no origin; the sentence ends with what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginFault(pub Cow<'static, str>);

impl OriginFault {
    const fn new(sentence: &'static str) -> Self {
        Self(Cow::Borrowed(sentence))
    }
}

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
                Some(rest) => rest.strip_prefix(':').is_some_and(is_port),
                None => false,
            },
            Self::Below(domain) => domain.has(origin),
        }
    }

    /// The domain of one label, e.g. `com`, if all that lies below it is meant: hardly ever is that one owner's.
    pub fn top_level(&self) -> Option<&str> {
        let Self::Below(domain) = self else {
            return None;
        };
        let name = domain.rest.strip_prefix('.')?;
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        // RFC 6761 §6.3: below it everything is this machine.
        (!name.contains('.') && name != "localhost").then_some(name)
    }
}

impl Domain {
    fn has(&self, origin: &str) -> bool {
        let Some(host) = origin.strip_prefix(&*self.scheme) else {
            return false;
        };
        let host = match host.rsplit_once(':') {
            Some((host, port)) if self.any_port && is_port(port) => host,
            _ => host,
        };
        // What stands before the dot are labels and nothing else: no user, no other host, no port of its own.
        host.strip_suffix(&*self.rest).is_some_and(are_labels)
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
        if text.trim().contains([',', ' ']) {
            return Err(OriginFault::new(
                "one origin each: repeat the flag, or write a list, e.g. [\"http://a\", \"http://b\"]",
            ));
        }
        let text = text.to_ascii_lowercase();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(without_scheme(&text));
        };
        if scheme == "file" {
            return Err(OriginFault::new(
                "pages of files have the origin \"null\": serve the page by http, or write \"null\"",
            ));
        }
        let scheme_ok = scheme
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        if !scheme_ok {
            return Err(OriginFault::new(
                "the scheme is no scheme; write http or https",
            ));
        }
        if let Some(end) = rest.find(['/', '?', '#']) {
            const BEHIND: &str = "leave out everything behind the host and port";
            let whole = format!("{scheme}://{}", &rest[..end]);
            return Err(match whole.parse::<Self>() {
                Ok(_) => OriginFault(format!("{BEHIND}: {whole}").into()),
                Err(_) => OriginFault::new(BEHIND),
            });
        }
        if !rest.is_ascii() {
            return Err(OriginFault::new(
                "write the host in its ASCII form, as browsers send it, e.g. https://xn--mnchen-3ya.example",
            ));
        }
        let (host, port) = match rest.rfind(':') {
            // A colon inside brackets belongs to the address.
            Some(at) if !rest[at..].contains(']') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if let Some(domain) = host.strip_prefix("*.") {
            return below(scheme, domain, port);
        }
        if host.contains('*') {
            return Err(OriginFault::new(STAR));
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
            return Err(OriginFault::new(
                "the host is no host; write it as in the browser's address bar",
            ));
        }
        match port {
            Some("*") => Ok(Self::AnyPort(format!("{scheme}://{host}").into())),
            Some(port) if !is_port(port) => Err(OriginFault::new(PORT)),
            Some(port) if is_default(scheme, port) => {
                Ok(Self::Exact(format!("{scheme}://{host}").into()))
            }
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
            Self::Below(domain) => {
                let port = if domain.any_port { ":*" } else { "" };
                write!(f, "{}*{}{port}", domain.scheme, domain.rest)
            }
        }
    }
}

/// The same text with the scheme that it probably has, where that makes an origin of it. This machine has no certificate.
fn without_scheme(text: &str) -> OriginFault {
    let is_here = ["localhost", "127.", "[::1]"]
        .iter()
        .any(|host| text.starts_with(host));
    let whole = match is_here {
        true => format!("http://{text}"),
        false => format!("https://{text}"),
    };
    match whole.parse::<OriginPattern>() {
        Ok(_) => OriginFault(format!("an origin begins with its scheme: {whole}").into()),
        Err(_) => {
            OriginFault::new("an origin begins with its scheme, e.g. https://app.example.com")
        }
    }
}

/// `https://*.example.com`, with its parts already in lower case.
fn below(scheme: &str, domain: &str, port: Option<&str>) -> Result<OriginPattern, OriginFault> {
    if domain.contains('*') {
        return Err(OriginFault::new(STAR));
    }
    // An address has nothing below it.
    let is_address = domain.rsplit('.').next().is_some_and(is_digits);
    if !are_labels(domain) || is_address {
        return Err(OriginFault::new(
            "*. stands before a domain, as in https://*.example.com",
        ));
    }
    let rest = match port {
        Some(port) if port != "*" && !is_port(port) => return Err(OriginFault::new(PORT)),
        Some(port) if port != "*" && !is_default(scheme, port) => format!(".{domain}:{port}"),
        _ => format!(".{domain}"),
    };
    Ok(OriginPattern::Below(Box::new(Domain {
        scheme: format!("{scheme}://").into(),
        rest: rest.into(),
        any_port: port == Some("*"),
    })))
}

/// One label of a host's name, or several with dots between them, as a browser writes them.
fn are_labels(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    text.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(is_letter))
}

/// RFC 6454 §6.2: the default port of the scheme is not written.
fn is_default(scheme: &str, port: &str) -> bool {
    matches!((scheme, port), ("http", "80") | ("https", "443"))
}

fn is_port(text: &str) -> bool {
    is_digits(text) && text.parse::<u16>().is_ok()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

const PORT: &str = "the port is a number up to 65535, or *";
const STAR: &str = "* is a host's first label or its port, as in https://*.example.com and http://localhost:*; \
                    every page is \"*\" alone";
