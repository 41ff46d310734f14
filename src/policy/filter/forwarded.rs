//! Forwarded fields: what a backend is told of the client, which it cannot see itself.
//!
//! Owns `x-forwarded-for`, `-proto`, `-host`, `x-real-ip`, `forwarded` and `x-request-id` on their way in. Whatever a client says
//! under these names is taken away and said anew from what the socket says, for anybody can write them; where the peer is a
//! proxy that the listener trusts, ours is appended to what it says. Where a client claims nothing and no proxy is trusted, nothing
//! is said, and no id made. It never refuses a request, and it never writes `forwarded` by itself: that would be the same once more, at the cost
//! of a field.
//!
//! `x-request-id` is a name and no claim: it is kept from anyone if it is one token of 128 characters at most; else it is made.
//!
//! Sources: RFC 7239 (`forwarded`); Envoy, `docs/root/configuration/http/http_conn_man/headers.rst`; RFC 7541 §7.1.3 (what is
//! never to be indexed).

use std::io::Write as _;
use std::net::IpAddr;

use http::header::FORWARDED;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use crate::policy::filter::{Filter, Peer, Verdict};
use crate::policy::network::Network;
use crate::wire::metadata::tells_who;
use crate::wire::vouched::{
    SCHEME, Vouched, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP, X_REQUEST_ID,
    host, private,
};
use crate::wire::{Fields, RequestHead, ResponseHead};

/// The filter: which proxies are believed, for each listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    trusted: Box<[Box<[Network]>]>,
}

impl Forwarded {
    /// Believes peers in those networks; one list for each listener, in their order.
    pub fn new(trusted: impl IntoIterator<Item = Vec<Network>>) -> Self {
        Self {
            trusted: trusted.into_iter().map(Vec::into_boxed_slice).collect(),
        }
    }

    /// The proxies that are believed, if `peer` is one of them.
    fn proxies(&self, peer: &Peer) -> Option<&[Network]> {
        let networks = self.trusted.get(peer.listener)?;
        has(networks, peer.address.ip()).then_some(networks)
    }
}

impl Filter for Forwarded {
    fn request(&self, head: &mut RequestHead, peer: &Peer) -> Verdict {
        let proxies = self.proxies(peer);
        let id = Id::of(&head.headers);
        let claims = || {
            head.headers
                .iter()
                .any(|(name, _)| tells_who(name.as_str()))
        };
        if proxies.is_none() && id != Id::Bad && !claims() {
            // Nothing is claimed, and five fields are a fifth of what a small call costs.
            return Verdict::Continue;
        }
        let address = peer.address.ip().to_canonical();
        let vouched = match proxies {
            None => Vouched::peer(address),
            Some(proxies) => behind(head, address, proxies),
        };
        head.headers.retain(|name| !tells_who(name.as_str()));
        match id {
            Id::Good => head.headers.vouch(vouched),
            Id::None | Id::Bad => {
                head.headers.remove(X_REQUEST_ID);
                head.headers.vouch(vouched.named(peer.number));
            }
        }
        Verdict::Continue
    }

    fn response(&self, _request: &RequestHead, _head: &mut ResponseHead) {}
}

/// What a trusted proxy says, and that it came from there.
fn behind(head: &RequestHead, address: IpAddr, proxies: &[Network]) -> Vouched {
    let said = &head.headers;
    let mut path = joined(said, &X_FORWARDED_FOR);
    // The last one that no proxy of ours stands for. What is before it anybody may have written.
    let hops = path.split(|&byte| byte == b',').rev();
    let hops = hops.map_while(|hop| std::str::from_utf8(hop.trim_ascii()).ok()?.parse().ok());
    let mut client = None;
    for hop in hops {
        client = Some(hop);
        if !has(proxies, hop) {
            break;
        }
    }
    let only = |name: &HeaderName| {
        let mut values = said.get_all(name);
        values.next().filter(|_| values.next().is_none())
    };
    let real = only(&X_REAL_IP).and_then(|value| value.to_str().ok()?.parse().ok());
    let client = client.or(real).unwrap_or(address).to_canonical();
    let scheme = only(&X_FORWARDED_PROTO).filter(|scheme| *scheme == "https");
    let scheme = scheme.map_or(SCHEME, |_| HeaderValue::from_static("https"));
    let asked = only(&X_FORWARDED_HOST)
        .filter(|host| Authority::try_from(host.as_bytes()).is_ok())
        .cloned();
    let asked = asked.or_else(|| host(head.authority.as_ref()?));
    let comma = comma(&path);
    let _ = write!(path, "{comma}{address}");
    let mut told = vec![
        (X_FORWARDED_FOR, private(path)),
        (X_REAL_IP, private(client.to_string().into_bytes())),
        (X_FORWARDED_PROTO, scheme),
    ];
    told.extend(asked.map(|host| (X_FORWARDED_HOST, host)));
    if said.contains(FORWARDED) {
        let mut all = joined(said, &FORWARDED);
        if !is_closed(&all) {
            // Behind an open quotation mark our own word would be part of somebody else's.
            all.clear();
        }
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        // RFC 7239 §4: one element for each proxy, the newest last.
        let comma = self::comma(&all);
        let _ = write!(all, "{comma}for={node};proto=http");
        told.push((FORWARDED, private(all)));
    }
    // Other names that begin so (a port, a prefix, a certificate) are the proxy's word, and it is believed.
    let others = said.iter().filter(|(name, _)| is_other(name));
    told.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    Vouched::told(told)
}

fn has(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

fn is_other(name: &HeaderName) -> bool {
    let known = [
        FORWARDED,
        X_FORWARDED_FOR,
        X_FORWARDED_PROTO,
        X_FORWARDED_HOST,
        X_REAL_IP,
    ];
    tells_who(name.as_str()) && !known.contains(name)
}

/// All values of a name as one list.
fn joined(fields: &Fields, name: &HeaderName) -> Vec<u8> {
    let mut all = Vec::new();
    for value in fields.get_all(name) {
        all.extend_from_slice(comma(&all).as_bytes());
        all.extend_from_slice(value.as_bytes());
    }
    all
}

/// Whether each quotation mark in there has its end (RFC 9110 §5.6.4).
fn is_closed(list: &[u8]) -> bool {
    let mut bytes = list.iter();
    let mut quoted = false;
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                bytes.next();
            }
            _ => {}
        }
    }
    !quoted
}

fn comma(before: &[u8]) -> &'static str {
    if before.is_empty() { "" } else { ", " }
}

/// How a request is called by its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    None,
    Good,
    /// By what is no id, or twice.
    Bad,
}

impl Id {
    fn of(fields: &Fields) -> Self {
        let mut ids = fields.get_all(X_REQUEST_ID);
        match (ids.next(), ids.next()) {
            (None, _) => Self::None,
            (Some(id), None) if is_id(id) => Self::Good,
            (Some(_), _) => Self::Bad,
        }
    }
}

/// RFC 9110 §5.6.2: a token. Nothing in it means anything to whoever logs it.
fn is_id(value: &HeaderValue) -> bool {
    let is_letter = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (1..=ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(is_letter)
}

const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
