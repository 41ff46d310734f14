//! Forwarded fields: what a backend is told of the client, which it cannot see itself.
//!
//! Owns `x-forwarded-for`, `-proto`, `-host`, `x-real-ip`, `forwarded` and `x-request-id` on their way in. Whatever a client says
//! under these names is taken away and said anew from what the socket says, for anybody can write them; where the peer is a
//! proxy that the listener trusts, ours is appended to what it says. It never refuses a request, and it never writes
//! `forwarded` by itself: that would be the same once more, at the cost of a field.
//!
//! `x-request-id` is a name and no claim: it is kept from anyone if it is one token of 128 characters at most, and made where
//! there is none.
//!
//! Sources: RFC 7239 (`forwarded`); Envoy, `docs/root/configuration/http/http_conn_man/headers.rst`; RFC 7541 §7.1.3 (what is
//! never to be indexed).

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::FORWARDED;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use crate::policy::filter::{Filter, Peer, Verdict};
use crate::policy::network::Network;
use crate::wire::metadata::tells_who;
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
        let address = peer.address.ip().to_canonical();
        match self.proxies(peer) {
            None => {
                head.headers.retain(|name| !tells_who(name.as_str()));
                let own = private(&address.to_string());
                say_who(head, own.clone(), own, SCHEME, None);
            }
            Some(proxies) => append(head, address, proxies),
        }
        if !has_id(&head.headers) {
            head.headers.remove(X_REQUEST_ID);
            head.headers.vouch(X_REQUEST_ID, id(peer.number));
        }
        Verdict::Continue
    }

    fn response(&self, _request: &RequestHead, _head: &mut ResponseHead) {}
}

/// Says what a trusted proxy says, and that it came from there.
fn append(head: &mut RequestHead, address: IpAddr, proxies: &[Network]) {
    let said = &head.headers;
    let mut path = joined(said, &X_FORWARDED_FOR);
    // The last one that no proxy of ours stands for. What is before it anybody may have written.
    let hops = <[u8]>::split(&path, |&byte| byte == b',').rev();
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
    let host = only(&X_FORWARDED_HOST)
        .filter(|host| Authority::try_from(host.as_bytes()).is_ok())
        .cloned();
    let forwarded = (said.contains(FORWARDED)).then(|| {
        let mut all = joined(said, &FORWARDED);
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        // RFC 7239 §4: one element for each proxy, the newest last.
        let _ = write!(all, "{}for={node};proto=http", comma(&all));
        all
    });
    let _ = write!(path, "{}{address}", comma(&path));
    // Other names that begin so (a port, a prefix, a certificate) are the proxy's word, and it is believed.
    let others = said.iter().filter(|(name, _)| is_other(name));
    let others: Vec<_> = others
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();

    head.headers.retain(|name| !tells_who(name.as_str()));
    let real = private(&client.to_string());
    say_who(head, sensitive(path), real, scheme, host);
    for (name, value) in others {
        head.headers.vouch(name, value);
    }
    if let Some(forwarded) = forwarded {
        head.headers.vouch(FORWARDED, sensitive(forwarded));
    }
}

fn say_who(
    head: &mut RequestHead,
    path: HeaderValue,
    real: HeaderValue,
    scheme: HeaderValue,
    host: Option<HeaderValue>,
) {
    let host = host.or_else(|| HeaderValue::from_str(head.authority.as_ref()?.as_str()).ok());
    head.headers.vouch(X_FORWARDED_FOR, path);
    head.headers.vouch(X_FORWARDED_PROTO, scheme);
    if let Some(host) = host {
        head.headers.vouch(X_FORWARDED_HOST, host);
    }
    head.headers.vouch(X_REAL_IP, real);
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
fn joined(fields: &Fields, name: &HeaderName) -> BytesMut {
    let mut all = BytesMut::new();
    for value in fields.get_all(name) {
        let comma = comma(&all);
        all.extend_from_slice(comma.as_bytes());
        all.extend_from_slice(value.as_bytes());
    }
    all
}

fn comma(before: &[u8]) -> &'static str {
    if before.is_empty() { "" } else { ", " }
}

/// A value of one client alone: in the table of a connection that many share it would only drive out what is of use to others.
fn private(text: &str) -> HeaderValue {
    sensitive(BytesMut::from(text))
}

fn sensitive(text: BytesMut) -> HeaderValue {
    // Addresses, and values that came in a head: this cannot fail.
    let mut value = HeaderValue::from_maybe_shared(text.freeze())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    value.set_sensitive(true);
    value
}

fn has_id(fields: &Fields) -> bool {
    let mut ids = fields.get_all(X_REQUEST_ID);
    matches!((ids.next(), ids.next()), (Some(id), None) if is_id(id))
}

/// RFC 9110 §5.6.2: a token. Nothing in it means anything to whoever logs it.
fn is_id(value: &HeaderValue) -> bool {
    let is_letter = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (1..=ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(is_letter)
}

/// The number in hexadecimal, always as long.
fn id(number: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = BytesMut::with_capacity(32);
    for byte in number.to_be_bytes() {
        text.extend_from_slice(&[byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
    sensitive(text)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The scheme of every listener that there is today.
const SCHEME: HeaderValue = HeaderValue::from_static("http");
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
