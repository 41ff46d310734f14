//! Metadata on its way through: which fields cross the proxy, in which shape, and how large they are.
//!
//! Owns the two lists of what does not cross, and the judgement of what stays out of a connection's table of fields. It never
//! judges what a field means to an application: everything that is not reserved passes unchanged. It never adds a field that a
//! dialect or an exchange owns (`te`, `content-type`, `grpc-timeout`), except for `via`, which it both writes and counts.
//!
//! Sources: RFC 9110 §7.6.1 (connection fields), §7.6.3 (`via`); RFC 9113 §8.2.2, §8.2.3; grpc/grpc
//! `doc/PROTOCOL-HTTP2.md` ("Custom-Metadata", "Call-Definition"); RFC 7541 §6.2.3 (literals that
//! are never indexed), §2.3.2 (the table that all calls of a connection share).

use std::borrow::Borrow;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::wire::base64;
use crate::wire::fields::Fields;
use crate::wire::http2::hpack::FIELD_OVERHEAD_BYTES;

/// What metadata may weigh, one way, by [`size`]. Over it: 431 for a request, RESOURCE_EXHAUSTED for an answer.
pub const METADATA_BYTES_MAX: usize = 16 << 10;

/// How many fields more than came a request may have after `-bin` values were split.
pub const SPLITS_MAX: usize = 100;

/// So many times a call may come through a wharf. With one more it runs in a circle.
pub const VIA_HOPS_MAX: usize = 8;

/// Why metadata is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataFault {
    /// A field that belongs to one connection stands where only a message's own may (RFC 9113 §8.2.2).
    ConnectionField,
}

impl MetadataFault {
    /// In a few words, for the log and the caller.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::ConnectionField => "connection field in trailers",
        }
    }
}

/// The fields of a request that go on to the backend.
///
/// Left behind: what belongs to the client's connection or is nominated by its `connection`; `host`; what describes the
/// body and the dialect on the client's side (`content-*`, `accept`, `accept-encoding`, `expect`); reserved `grpc-*` but
/// the call definition; and who the client is according to itself ([`tells_who`]). `-bin` values that a browser joined are
/// fields of their own again, and crumbs of `cookie` are one field. What a strict server may be unable to read crosses as it is
/// and is marked as never to be indexed ([`baffles`]).
pub fn forward_request(fields: &Fields) -> HeaderMap {
    // Room for what dialect and exchange add, so that the map does not grow again; four or more of what every page sends stay
    // behind. A map for a dozen fields has a place for each, one for thirteen has 24, at a hundred bytes a place.
    let mut forwarded = HeaderMap::with_capacity(fields.len() + 2);
    let mut cookie: Option<Crumbs<'_>> = None;
    // Beyond that a value passes as it came: commas cost a client nothing, and fields cost the backend.
    let mut splits_left = SPLITS_MAX;
    for (name, value) in fields.iter() {
        let text = name.as_str();
        if !crosses_to_backend(text) {
            continue;
        }
        if name == COOKIE {
            match &mut cookie {
                Some(crumbs) => crumbs.push(value),
                None => cookie = Some(Crumbs::Whole(value)),
            }
        } else if text.ends_with("-bin") {
            if joined(value) > splits_left {
                append(&mut forwarded, name, readable(text, value.clone()));
                continue;
            }
            for part in value.as_bytes().split(|&byte| byte == b',') {
                if let Ok(mut part) = HeaderValue::from_bytes(part.trim_ascii()) {
                    part.set_sensitive(value.is_sensitive());
                    append(&mut forwarded, name, readable(text, part));
                }
            }
            splits_left -= joined(value);
        } else if text.starts_with("grpc-") {
            append(&mut forwarded, name, readable(text, value.clone()));
        } else {
            append(&mut forwarded, name, value.clone());
        }
    }
    if let Some(value) = cookie.and_then(Crumbs::into_value) {
        append(&mut forwarded, &COOKIE, value);
    }
    drop_nominated(fields.get_all(CONNECTION), &mut forwarded);
    forwarded
}

/// The value; marked, if a strict server may be unable to read it ([`baffles`]).
fn readable(name: &str, mut value: HeaderValue) -> HeaderValue {
    if baffles(name, value.as_bytes()) {
        value.set_sensitive(true);
    }
    value
}

/// Whether a strict server may be unable to read that value of a field of a request.
///
/// grpc-core keeps such an error with the entry of the connection's table that the field has made, and gives it to every later
/// call that takes the name of the same field from there, whoever makes it and however good its value is. A literal that is
/// never indexed makes no entry. Which values these are was found by trying grpc-core 1.85; where others may be stricter (in
/// padding, in the sign of a number) so are we, since too much caution costs a few bytes.
fn baffles(name: &str, value: &[u8]) -> bool {
    match name {
        "grpc-encoding" => !matches!(value, b"identity" | b"gzip" | b"deflate"),
        // A number of 32 bits, and some that fit are not worth a look.
        "grpc-previous-rpc-attempts" => {
            !matches!(value.len(), 1..=9) || !value.iter().all(u8::is_ascii_digit)
        }
        // A backend's own report, too short if it has less than eight bytes. It means nothing in a request.
        "lb-cost-bin" => true,
        other => other.ends_with("-bin") && !base64::is_canonical(value),
    }
}

/// How many commas join the values of a `-bin` field.
fn joined(value: &HeaderValue) -> usize {
    value
        .as_bytes()
        .iter()
        .filter(|&&byte| byte == b',')
        .count()
}

/// The initial metadata of an answer that goes on to the client: everything but connection fields, `content-length` and
/// `content-type` (the dialect writes its own), and `access-control-*` (the policy of the listener decides, not the
/// backend). `grpc-*` is the codec's to take.
pub fn forward_response(mut fields: HeaderMap) -> HeaderMap {
    // What nominates stays behind itself, so where all crosses nothing is nominated.
    if fields.keys().all(crosses_to_client) {
        return fields;
    }
    if fields.contains_key(CONNECTION) {
        let nominating = fields.clone();
        drop_nominated(nominating.get_all(CONNECTION).iter(), &mut fields);
    }
    // A head has few fields and one or two of them stay behind, so this costs less than a new map.
    while let Some(name) = fields.keys().find(|name| !crosses_to_client(name)).cloned() {
        fields.remove(name);
    }
    fields
}

/// The trailers of an answer: all of them, or a fault where one has no business in trailers.
pub fn forward_trailers<T: Borrow<HeaderMap>>(trailers: T) -> Result<T, MetadataFault> {
    match trailers.borrow().keys().find(|name| is_hop_by_hop(name)) {
        Some(_) => Err(MetadataFault::ConnectionField),
        None => Ok(trailers),
    }
}

/// What metadata weighs: names, values, and what each field costs besides (RFC 9113 §6.5.2).
pub fn size(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES)
        .sum()
}

/// How often this request has come through a wharf.
pub fn via_hops(fields: &Fields) -> usize {
    fields
        .get_all(VIA)
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter(|hop| {
            // received-protocol RWS received-by [ RWS comment ]
            let mut words = hop
                .split(|byte| matches!(byte, b' ' | b'\t'))
                .filter(|word| !word.is_empty());
            words
                .nth(1)
                .is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM))
        })
        .count()
}

/// Writes that a request, received in that version of HTTP, has come through a wharf.
pub fn append_via(fields: &mut HeaderMap, received: Version) {
    const HTTP_10: HeaderValue = HeaderValue::from_static("1.0 wharf");
    const HTTP_11: HeaderValue = HeaderValue::from_static("1.1 wharf");
    const HTTP_2: HeaderValue = HeaderValue::from_static("2 wharf");
    let value = match received {
        Version::HTTP_10 => HTTP_10,
        Version::HTTP_2 => HTTP_2,
        _ => HTTP_11,
    };
    append(fields, &VIA, value);
}

/// Whether a field belongs to one connection and never to a message that goes on (RFC 9110 §7.6.1, RFC 9113 §8.2.2).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    is_of_connection(name.as_str())
}

fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

fn crosses_to_backend(name: &str) -> bool {
    if is_of_connection(name) {
        return false;
    }
    match name {
        "host" | "expect" | "content-length" | "content-type" | "content-encoding" | "accept"
        | "accept-encoding" => false,
        "grpc-timeout"
        | "grpc-encoding"
        | "grpc-accept-encoding"
        | "grpc-message-type"
        | "grpc-trace-bin"
        | "grpc-tags-bin"
        | "grpc-previous-rpc-attempts" => true,
        other => !other.starts_with("grpc-") && !tells_who(other),
    }
}

/// Whether a field of that name says who a client is and where it came in: anybody can write one, so only ours are worth
/// something. Names are in lower case.
pub fn tells_who(name: &str) -> bool {
    match name.strip_prefix("x-") {
        Some(rest) => rest.starts_with("forwarded-") || rest == "real-ip",
        None => name == "forwarded",
    }
}

/// Whether a field of an answer's head goes on to the client, if no other field there nominates it.
pub fn crosses_to_client(name: &HeaderName) -> bool {
    !is_hop_by_hop(name)
        && *name != CONTENT_LENGTH
        && *name != http::header::CONTENT_TYPE
        // What was compressed whole would be of no use behind a frame of ours.
        && *name != http::header::CONTENT_ENCODING
        && !name.as_str().starts_with("access-control-")
}

/// RFC 9110 §7.6.1: an intermediary must "remove any header or trailer field(s) from the message with the same name as the
/// connection-option".
fn drop_nominated<'a>(by: impl Iterator<Item = &'a HeaderValue>, fields: &mut HeaderMap) {
    for value in by {
        for option in value.as_bytes().split(|&byte| byte == b',') {
            if let Ok(option) = std::str::from_utf8(option.trim_ascii())
                && !option.is_empty()
            {
                fields.remove(option);
            }
        }
    }
}

/// Appends, unless the map is full: then a field is lost rather than the process. Heads are bounded far below that.
pub(super) fn append(fields: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let added = fields.try_append(name, value);
    debug_assert!(added.is_ok(), "heads are bounded");
}

/// Cookie crumbs: RFC 9113 §8.2.3 joins them with "; " where they leave HTTP/2, and most servers want them so anywhere.
enum Crumbs<'a> {
    Whole(&'a HeaderValue),
    Joined(BytesMut),
}

impl Crumbs<'_> {
    fn push(&mut self, crumb: &HeaderValue) {
        if let Self::Whole(first) = self {
            *self = Self::Joined(BytesMut::from(first.as_bytes()));
        }
        if let Self::Joined(all) = self {
            all.extend_from_slice(b"; ");
            all.extend_from_slice(crumb.as_bytes());
        }
    }

    fn into_value(self) -> Option<HeaderValue> {
        match self {
            Self::Whole(value) => Some(value.clone()),
            Self::Joined(all) => HeaderValue::from_maybe_shared(all.freeze()).ok(),
        }
    }
}

/// How we call ourselves in `via`.
const PSEUDONYM: &[u8] = b"wharf";

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for &(name, value) in fields {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    fn values<'a>(fields: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        fields
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    fn names(fields: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn m_15_what_is_not_reserved_crosses_unchanged() {
        let fields = map(&[
            ("x-grpc-web", "1"),
            ("x-user-agent", "grpc-web-javascript/0.1"),
            ("user-agent", "Mozilla/5.0"),
            ("authorization", "Bearer x"),
            ("origin", "https://page.example"),
            ("x_custom.name", "a"),
            ("x-bin", "AAEC"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("x-request-id", "7"),
            ("via", "1.1 other"),
        ]);
        assert_eq!(forward_request(&fields.clone().into()), fields);
    }

    #[test]
    fn h1_64_what_belongs_to_the_connection_or_to_our_own_end_stays_behind() {
        let dropped = map(&[
            ("connection", "x-nominated, keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("host", "a"),
            ("expect", "100-continue"),
            ("content-length", "5"),
            ("content-type", "application/grpc-web"),
            ("content-encoding", "identity"),
            ("accept", "application/grpc-web-text"),
            ("accept-encoding", "gzip, br"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "Hash=0"),
            ("x-real-ip", "1.2.3.4"),
            ("x-nominated", "1"),
        ]);
        assert_eq!(names(&forward_request(&dropped.into())), Vec::<&str>::new());
    }

    #[test]
    fn m_04_of_the_reserved_names_only_the_call_definition_crosses() {
        let kept = [
            "grpc-accept-encoding",
            "grpc-encoding",
            "grpc-message-type",
            "grpc-previous-rpc-attempts",
            "grpc-tags-bin",
            "grpc-timeout",
            "grpc-trace-bin",
        ];
        let mut fields = map(&[
            ("grpc-status", "0"),
            ("grpc-message", "x"),
            ("grpc-status-details-bin", "AA"),
            ("grpc-anything", "x"),
            ("grpc-", "x"),
        ]);
        for name in kept {
            fields.append(name, HeaderValue::from_static("v"));
        }
        assert_eq!(names(&forward_request(&fields.clone().into())), kept);
    }

    #[test]
    fn h1_63_a_nominated_field_is_removed_whatever_its_case() {
        let mut fields = map(&[("x-secret", "1"), ("x-kept", "2"), ("x-third", "3")]);
        fields.append(CONNECTION, HeaderValue::from_static("close,, X-Secret ,te"));
        fields.append(
            CONNECTION,
            HeaderValue::from_static("x-third, no such:name"),
        );
        assert_eq!(names(&forward_request(&fields.clone().into())), ["x-kept"]);
        assert_eq!(names(&forward_response(fields)), ["x-kept"]);
    }

    #[test]
    fn m_01_binary_values_that_a_browser_joined_are_split_and_else_untouched() {
        let fields = map(&[
            ("a-bin", "AAEC, AwQ=,"),
            ("b-bin", "not base64!"),
            ("c-bin", ""),
            ("d-bin", "QQ=="),
            ("d-bin", "Qg"),
            ("e-text", "a, b"),
        ]);
        let forwarded = forward_request(&fields.into());
        assert_eq!(values(&forwarded, "a-bin"), ["AAEC", "AwQ=", ""]);
        assert_eq!(values(&forwarded, "b-bin"), ["not base64!"]);
        assert_eq!(values(&forwarded, "c-bin"), [""]);
        assert_eq!(values(&forwarded, "d-bin"), ["QQ==", "Qg"]);
        assert_eq!(values(&forwarded, "e-text"), ["a, b"]);
    }

    #[test]
    fn m_18_what_a_strict_server_cannot_read_is_marked_and_nothing_else() {
        let rows = [
            ("a-bin", "AAEC", false),
            ("a-bin", "QQ==", false),
            ("a-bin", "", false),
            ("a-bin", "!!!", true),
            ("a-bin", "QR", true),
            ("-bin", "!", true),
            ("a-bin-x", "!!!", false),
            ("x-any", "!!!", false),
            ("grpc-trace-bin", "AAEC", false),
            ("grpc-trace-bin", "!", true),
            ("lb-cost-bin", "AAAAAAAAAAA", true),
            ("grpc-encoding", "identity", false),
            ("grpc-encoding", "deflate", false),
            ("grpc-encoding", "gzip", false),
            ("grpc-encoding", "zstd", true),
            ("grpc-encoding", "Gzip", true),
            ("grpc-encoding", "", true),
            ("grpc-previous-rpc-attempts", "0", false),
            ("grpc-previous-rpc-attempts", "999999999", false),
            ("grpc-previous-rpc-attempts", "1000000000", true),
            ("grpc-previous-rpc-attempts", "-1", true),
            ("grpc-previous-rpc-attempts", "", true),
            ("grpc-accept-encoding", "zstd", false),
            ("grpc-message-type", "zstd", false),
        ];
        for (name, value, apart) in rows {
            let forwarded = forward_request(&map(&[(name, value)]).into());
            assert_eq!(forwarded[name], value);
            assert_eq!(forwarded[name].is_sensitive(), apart, "{name}: {value}");
        }
        let forwarded = forward_request(&map(&[("a-bin", "AAEC, !,QQ")]).into());
        let apart: Vec<_> = forwarded.get_all("a-bin").iter().collect();
        let apart: Vec<_> = apart.iter().map(|value| value.is_sensitive()).collect();
        assert_eq!(apart, [false, true, false]);
    }

    #[test]
    fn m_18_a_value_that_came_marked_goes_on_marked() {
        let mut value = HeaderValue::from_static("AAAA");
        value.set_sensitive(true);
        let mut fields = map(&[]);
        fields.append("x-any", value.clone());
        fields.append("a-bin", value);
        let forwarded = forward_request(&fields.into());
        assert!(forwarded["x-any"].is_sensitive() && forwarded["a-bin"].is_sensitive());
    }

    #[test]
    fn m_01_commas_make_a_hundred_fields_more_at_most() {
        let commas = ",".repeat(15_000);
        let mut fields = map(&[]);
        fields.append("a-bin", HeaderValue::try_from(commas.clone()).unwrap());
        assert_eq!(
            values(&forward_request(&fields.clone().into()), "a-bin"),
            [commas]
        );

        // What one field has used up the next has not.
        let (joined, more) = (vec!["AA"; SPLITS_MAX + 1].join(","), "AA,AA");
        let mut fields = map(&[]);
        fields.append("a-bin", HeaderValue::try_from(joined).unwrap());
        fields.append("a-bin", HeaderValue::from_static(more));
        let forwarded = forward_request(&fields.clone().into());
        let expected = [vec!["AA"; SPLITS_MAX + 1], vec![more]].concat();
        assert_eq!(values(&forwarded, "a-bin"), expected);
    }

    #[test]
    fn m_11_empty_values_and_duplicates_are_kept_and_crumbs_are_joined_once() {
        let mut fields = map(&[("x-empty", "")]);
        let mut cookie = String::new();
        for number in 0..100 {
            fields.append("x-many", HeaderValue::from(number));
            if number < 90 {
                fields.append(
                    COOKIE,
                    HeaderValue::try_from(format!("c{number}={number}")).unwrap(),
                );
                cookie.push_str(&format!(
                    "{}c{number}={number}",
                    if number > 0 { "; " } else { "" }
                ));
            }
        }
        let forwarded = forward_request(&fields.clone().into());
        assert_eq!(values(&forwarded, "x-empty"), [""]);
        let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(values(&forwarded, "x-many"), expected);
        assert_eq!(values(&forwarded, "cookie"), [cookie]);

        let one = map(&[("cookie", "a=1; b=2")]);
        assert_eq!(forward_request(&one.clone().into()), one);
    }

    #[test]
    fn a_fault_has_its_words() {
        let words = MetadataFault::ConnectionField.detail();
        assert_eq!(words, "connection field in trailers");
    }

    #[test]
    fn m_13_an_answer_keeps_all_but_connection_framing_and_the_backends_own_cors() {
        let fields = map(&[
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "*"),
            ("content-type", "application/grpc"),
            ("content-length", "0"),
            ("keep-alive", "1"),
            ("trailer", "grpc-status"),
            ("server", "x"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2, c"),
            ("grpc-encoding", "gzip"),
            ("grpc-status", "0"),
            ("x-a-bin", "AAEC, AwQ="),
        ]);
        let forwarded = forward_response(fields);
        assert_eq!(
            names(&forwarded),
            [
                "grpc-encoding",
                "grpc-status",
                "server",
                "set-cookie",
                "x-a-bin"
            ]
        );
        // M-14: never joined.
        assert_eq!(values(&forwarded, "set-cookie"), ["a=1", "b=2, c"]);
        assert_eq!(values(&forwarded, "x-a-bin"), ["AAEC, AwQ="]);
    }

    #[test]
    fn m_12_a_connection_field_in_trailers_is_a_fault_and_all_else_passes() {
        let trailers = map(&[
            ("grpc-status", "0"),
            ("grpc-status-details-bin", "AA"),
            ("grpc-retry-pushback-ms", "5"),
            ("x", "1"),
            ("x", "2"),
        ]);
        assert_eq!(forward_trailers(trailers.clone()), Ok(trailers.clone()));
        for name in ["connection", "transfer-encoding", "upgrade", "te"] {
            let mut trailers = trailers.clone();
            trailers.append(name, HeaderValue::from_static("x"));
            assert_eq!(
                forward_trailers(trailers),
                Err(MetadataFault::ConnectionField),
                "{name}"
            );
        }
    }

    #[test]
    fn m_10_size_counts_every_value_with_its_name() {
        assert_eq!(size(&HeaderMap::new()), 0);
        assert_eq!(
            size(&map(&[("a", "bc"), ("a", ""), ("xyz", "1")])),
            35 + 33 + 36
        );
    }

    #[test]
    fn m_16_only_hops_of_our_own_are_counted() {
        let mut fields = map(&[
            ("via", "1.1 wharf, 2 WHARF,HTTP/1.1  wharf (a comment)"),
            ("via", "1.1 other, wharf, 1.1 wharfs, 1.1, , 1.1 x wharf"),
        ]);
        assert_eq!(via_hops(&fields.clone().into()), 3);
        append_via(&mut fields, Version::HTTP_11);
        append_via(&mut fields, Version::HTTP_2);
        append_via(&mut fields, Version::HTTP_10);
        assert_eq!(via_hops(&fields.clone().into()), 6);
        assert_eq!(via_hops(&Fields::new()), 0);
        let last: Vec<_> = values(&fields, "via").into_iter().skip(2).collect();
        assert_eq!(last, ["1.1 wharf", "2 wharf", "1.0 wharf"]);
    }
}
