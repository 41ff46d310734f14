//! What we say of a client to a backend, which cannot see it: where it is, what it asked for, and a name for the request.
//!
//! Owns how little of it is held while a call waits, and how it is written: `x-forwarded-for`, `-proto`, `-host`, `x-real-ip`
//! and `x-request-id`. It never decides whom to believe: that is a filter's business.
//!
//! Sources: RFC 7239 §1 (these fields before there was one for all); RFC 7541 §7.1.3 (what is never to be indexed).

use std::net::IpAddr;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::fields::Field;
use crate::wire::metadata::append;

/// What is said of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    who: Who,
    /// In bytes, because a number of this size would be aligned to as many.
    id: Option<[u8; 16]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// The other end of the socket.
    Peer(IpAddr),
    /// What a proxy has said that is believed.
    Told(Box<[Field]>),
}

impl Vouched {
    /// The other end of the socket is the client.
    pub fn peer(address: IpAddr) -> Self {
        Self {
            who: Who::Peer(address.to_canonical()),
            id: None,
        }
    }

    /// These fields, as they are.
    pub fn told(fields: Vec<Field>) -> Self {
        Self {
            who: Who::Told(fields.into()),
            id: None,
        }
    }

    /// The same, and the request is called by that number.
    #[must_use]
    pub fn named(self, number: u128) -> Self {
        Self {
            id: Some(number.to_be_bytes()),
            ..self
        }
    }

    /// Writes it behind the fields of a request that asked for that host.
    pub fn write(&self, authority: Option<&Authority>, fields: &mut HeaderMap) {
        match &self.who {
            Who::Peer(address) => {
                let address = private(address.to_string().into_bytes());
                append(fields, &X_FORWARDED_FOR, address.clone());
                append(fields, &X_REAL_IP, address);
                append(fields, &X_FORWARDED_PROTO, SCHEME);
                if let Some(host) = authority.and_then(host) {
                    append(fields, &X_FORWARDED_HOST, host);
                }
            }
            Who::Told(told) => {
                for (name, value) in told {
                    append(fields, name, value.clone());
                }
            }
        }
        if let Some(id) = &self.id {
            append(fields, &X_REQUEST_ID, hexadecimal(id));
        }
    }
}

/// A host as a value.
pub fn host(authority: &Authority) -> Option<HeaderValue> {
    HeaderValue::from_str(authority.as_str()).ok()
}

/// A value that one client has alone: in the table of a connection that many share it would only drive out what is of use to
/// others.
pub fn private(text: Vec<u8>) -> HeaderValue {
    // Addresses, digits, and values that came in a head: this cannot fail.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    value.set_sensitive(true);
    value
}

fn hexadecimal(id: &[u8; 16]) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(32);
    for byte in id {
        text.extend([byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
    private(text)
}

/// The addresses that a request has come through, the client's first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the client called.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The client's address alone.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// A name for the request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The scheme of every listener that there is today.
pub const SCHEME: HeaderValue = HeaderValue::from_static("http");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_one_client_has_alone_stays_out_of_the_table_that_all_share() {
        let mut fields = HeaderMap::new();
        let authority = Authority::from_static("a.example:8080");
        let vouched = Vouched::peer("::ffff:10.0.0.1".parse().unwrap()).named(0x12);
        vouched.write(Some(&authority), &mut fields);
        for (name, value, alone) in [
            (X_FORWARDED_FOR, "10.0.0.1", true),
            (X_REAL_IP, "10.0.0.1", true),
            (X_FORWARDED_PROTO, "http", false),
            (X_FORWARDED_HOST, "a.example:8080", false),
            (X_REQUEST_ID, "00000000000000000000000000000012", true),
        ] {
            assert_eq!(fields[&name], value);
            assert_eq!(fields[&name].is_sensitive(), alone, "{name}");
        }
        assert_eq!(fields.len(), 5);
    }

    #[test]
    fn numbers_that_differ_in_any_bit_make_ids_that_differ() {
        let ids: HashSet<_> = (0..128)
            .map(|bit| hexadecimal(&(1u128 << bit).to_be_bytes()))
            .collect();
        assert_eq!(ids.len(), 128);
    }

    #[test]
    fn a_call_that_waits_holds_little_of_it() {
        assert!(size_of::<Vouched>() <= 48, "{}", size_of::<Vouched>());
    }
}
