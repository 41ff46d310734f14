//! What a request on an RPC route speaks, or why it is refused.
//!
//! Looks at a head and nothing else. A refusal here is HTTP's (405, 415, 400), because a request that never became an RPC has
//! nobody who would look for a gRPC status; and it says what to type instead.
//!
//! Sources: grpc/grpc `doc/PROTOCOL-WEB.md` (Content-Type, Text-encoded streams), `doc/PROTOCOL-HTTP2.md` (Path);
//! connectrpc.com `docs/protocol.md`.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, Method, StatusCode, Version};

use crate::rpc::dialect::{Dialect, Form};
use crate::rpc::media_type::MediaType;
use crate::wire::{Fields, RequestHead};

const CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

/// The dialect of a request on an RPC route, which came in that version of HTTP.
pub fn classify(head: &RequestHead, version: Version) -> Result<Dialect, Refusal> {
    if head.method != Method::POST {
        let message = match asks_for_websocket(&head.headers) {
            true => NO_WEBSOCKET.to_owned(),
            false => format!(
                "calls are made with POST, not {}: this port speaks gRPC and gRPC-Web",
                quote(head.method.as_str().as_bytes()),
            ),
        };
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            message,
        ));
    }
    let request = request_form(&head.headers, version)?;
    refuse_content_encoding(&head.headers)?;
    Ok(match request {
        None => Dialect::Grpc,
        Some(request) => Dialect::GrpcWeb {
            request,
            response: response_form(&head.headers, request),
        },
    })
}

/// Whether a request to upgrade names WebSocket (RFC 6455 §4.1; RFC 9110 §7.8: a list, a version may stand behind a name).
pub fn asks_for_websocket(headers: &Fields) -> bool {
    let is_websocket = |protocol: &[u8]| {
        let mut parts = protocol.split(|&b| b == b'/');
        parts
            .next()
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    headers
        .get_all(UPGRADE)
        .any(|value| value.as_bytes().split(|&b| b == b',').any(is_websocket))
}

/// Whether a path is a method's: `/package.Service/Method`, two segments that are not empty. Another path on an RPC route is
/// answered with UNIMPLEMENTED, as an unknown method is.
pub fn is_rpc_path(path: &str) -> bool {
    let mut segments = path.as_bytes().split(|&byte| byte == b'/');
    let mut next = || segments.next().map(<[u8]>::is_empty);
    // Nothing before the first slash, a service, a method, and no more.
    [next(), next(), next(), next()] == [Some(true), Some(false), Some(false), None]
}

/// A request that is no RPC, though the route is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's word for it.
    pub status: StatusCode,
    /// One word for the log.
    pub word: &'static str,
    /// What was wrong, and what to do instead. Printable ASCII.
    pub message: String,
    /// It is gRPC itself, which would be taken over HTTP/2. Who knows that none is spoken here tells another way out.
    pub needs_http2: bool,
}

impl Refusal {
    fn new(status: StatusCode, word: &'static str, message: String) -> Self {
        Self {
            status,
            word,
            message,
            needs_http2: false,
        }
    }
}

/// The form of a gRPC-Web request, which its one `content-type` must name; `None`: gRPC itself, which needs HTTP/2.
fn request_form(headers: &Fields, version: Version) -> Result<Option<Form>, Refusal> {
    let wanted = match version {
        Version::HTTP_2 => "application/grpc or application/grpc-web+proto",
        _ => "application/grpc-web+proto",
    };
    let mut types = headers.get_all(CONTENT_TYPE);
    let Some(content_type) = types.next() else {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            format!("there is no content-type: send {wanted}"),
        ));
    };
    if types.next().is_some() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "content_type",
            "there is more than one content-type".to_owned(),
        ));
    }
    let refuse = |word, message| {
        Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            word,
            message,
        ))
    };
    let media_type = MediaType::parse(content_type);
    match (media_type, version) {
        (MediaType::GrpcWeb(form, _), _) => return Ok(Some(form)),
        (MediaType::Grpc(_), Version::HTTP_2) => return Ok(None),
        _ => {}
    }
    if media_type == MediaType::Connect || headers.contains(CONNECT_PROTOCOL_VERSION) {
        return refuse(
            "connect_protocol",
            "this is the Connect protocol, and this port speaks gRPC and gRPC-Web: make the client \
             with createGrpcWebTransport in place of createConnectTransport"
                .to_owned(),
        );
    }
    let quoted = quote(content_type.as_bytes());
    if let MediaType::Grpc(_) = media_type {
        let message = format!(
            "{quoted} needs HTTP/2: speak that to this port, with prior knowledge where there is no \
             TLS, or send {wanted}"
        );
        return Err(Refusal {
            needs_http2: true,
            ..Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message)
        });
    }
    refuse(
        "content_type",
        match version {
            Version::HTTP_2 => format!("{quoted} is neither gRPC nor gRPC-Web: send {wanted}"),
            _ => format!("{quoted} is not gRPC-Web: send {wanted}"),
        },
    )
}

/// gRPC compresses messages, not bodies; a body packed as a whole would hide them.
fn refuse_content_encoding(headers: &Fields) -> Result<(), Refusal> {
    for value in headers.get_all(CONTENT_ENCODING) {
        if !value.as_bytes().eq_ignore_ascii_case(b"identity") {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_encoding",
                format!(
                    "content-encoding {} is not taken: compress messages with grpc-encoding",
                    quote(value.as_bytes()),
                ),
            ));
        }
    }
    Ok(())
}

/// The form of the answer: text if `accept` names it, else binary if it names that, else the request's own. Servers that go by
/// `accept` alone answer binary to text clients that send `*/*`.
fn response_form(headers: &Fields, request: Form) -> Form {
    let mut named = None;
    let lists = headers
        .get_all(ACCEPT)
        .filter_map(|list| list.to_str().ok());
    for member in lists.flat_map(members) {
        if is_unwanted(member) {
            continue;
        }
        match MediaType::parse_str(member) {
            MediaType::GrpcWeb(Form::Text, _) => return Form::Text,
            MediaType::GrpcWeb(Form::Binary, _) => named = Some(Form::Binary),
            _ => {}
        }
    }
    named.unwrap_or(request)
}

/// The members of a list. (Bytes are compared, because looking for a character costs more than all the rest.)
fn members(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let comma = list.bytes().position(|byte| byte == b',');
        let (member, more) = match comma {
            Some(comma) => (&list[..comma], Some(&list[comma + 1..])),
            None => (list, None),
        };
        rest = more;
        Some(member)
    })
}

/// Whether a member of `accept` has a weight of zero: "not acceptable" (RFC 9110 §12.4.2).
fn is_unwanted(member: &str) -> bool {
    if !member.as_bytes().contains(&b';') {
        return false;
    }
    member
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.trim().split_once('='))
        .any(|(name, weight)| {
            name.eq_ignore_ascii_case("q")
                && weight.starts_with('0')
                && weight.bytes().all(|byte| matches!(byte, b'0' | b'.'))
        })
}

/// To a page that asks for a WebSocket, whether it may call or not.
pub const NO_WEBSOCKET: &str = "WebSocket is not spoken here: use the client's fetch transport";

/// Words from the network, made printable and short.
fn quote(raw: &[u8]) -> String {
    const QUOTED_BYTES_MAX: usize = 80;
    let short = raw.get(..QUOTED_BYTES_MAX).unwrap_or(raw);
    format!("\"{}\"", short.escape_ascii())
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// As over HTTP/1.1.
    fn classify(head: &RequestHead) -> Result<Dialect, Refusal> {
        super::classify(head, Version::HTTP_11)
    }

    fn request(method: Method, fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = Fields::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        RequestHead {
            method,
            path: PathAndQuery::from_static("/pkg.Service/Method"),
            authority: None,
            headers,
        }
    }

    fn refused(fields: &[(&'static str, &'static str)]) -> (u16, &'static str) {
        let refusal = classify(&request(Method::POST, fields)).expect_err("a refusal");
        assert!(
            refusal
                .message
                .bytes()
                .all(|byte| matches!(byte, 0x20..=0x7e))
        );
        (refusal.status.as_u16(), refusal.word)
    }

    #[test]
    fn w_10_grpc_web_types_are_taken_whatever_their_suffix_case_and_parameters() {
        let rows = [
            ("application/grpc-web", "grpc-web"),
            ("application/grpc-web+json", "grpc-web"),
            ("Application/Grpc-Web+Proto; charset=utf-8", "grpc-web"),
            ("application/grpc-web-text", "grpc-web-text"),
            ("application/grpc-web-text+proto", "grpc-web-text"),
        ];
        for (content_type, name) in rows {
            let dialect = classify(&request(Method::POST, &[("content-type", content_type)]));
            assert_eq!(dialect.map(Dialect::name), Ok(name), "{content_type}");
        }
    }

    #[test]
    fn w_11_what_is_no_rpc_type_is_refused_and_the_word_says_why() {
        type Fields<'a> = &'a [(&'static str, &'static str)];
        let rows: &[(Fields<'_>, u16, &str)] = &[
            (&[], 415, "content_type"),
            (
                &[("content-type", "application/grpc-webx")],
                415,
                "content_type",
            ),
            (&[("content-type", "image/jpeg")], 415, "content_type"),
            (
                &[("content-type", "application/grpc+proto")],
                415,
                "content_type",
            ),
            (
                &[
                    ("content-type", "application/grpc-web"),
                    ("content-type", "application/grpc-web"),
                ],
                400,
                "content_type",
            ),
            (
                &[("content-type", "application/connect+proto")],
                415,
                "connect_protocol",
            ),
            (
                &[("content-type", "application/json")],
                415,
                "connect_protocol",
            ),
            (
                &[("content-type", "application/proto")],
                415,
                "connect_protocol",
            ),
            (
                &[
                    ("content-type", "text/x"),
                    ("connect-protocol-version", "1"),
                ],
                415,
                "connect_protocol",
            ),
            (
                &[
                    ("content-type", "application/grpc-web"),
                    ("content-encoding", "gzip"),
                ],
                415,
                "content_encoding",
            ),
        ];
        for (fields, status, word) in rows {
            assert_eq!(refused(fields), (*status, *word), "{fields:?}");
        }
        let identity = [
            ("content-type", "application/grpc-web"),
            ("content-encoding", "Identity"),
        ];
        assert!(classify(&request(Method::POST, &identity)).is_ok());
    }

    #[test]
    fn h2_38_native_grpc_is_taken_over_http_2_and_refused_with_a_hint_below_it() {
        let types = [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "Application/GRPC; charset=utf-8",
        ];
        for content_type in types {
            let head = request(Method::POST, &[("content-type", content_type)]);
            let dialect = super::classify(&head, Version::HTTP_2);
            assert_eq!(dialect, Ok(Dialect::Grpc), "{content_type}");
            assert_eq!(dialect.map(Dialect::name), Ok("grpc"));
            for version in [Version::HTTP_10, Version::HTTP_11] {
                let refusal = super::classify(&head, version).expect_err("a refusal");
                assert_eq!(
                    (refusal.status.as_u16(), refusal.word),
                    (415, "content_type")
                );
                assert_eq!(
                    refusal.message,
                    format!(
                        "\"{content_type}\" needs HTTP/2: speak that to this port, with prior knowledge \
                         where there is no TLS, or send application/grpc-web+proto"
                    )
                );
            }
        }
        // What accept names is for gRPC-Web.
        let fields = [
            ("content-type", "application/grpc"),
            ("accept", "application/grpc-web-text"),
        ];
        let head = request(Method::POST, &fields);
        assert_eq!(super::classify(&head, Version::HTTP_2), Ok(Dialect::Grpc));
    }

    #[test]
    fn over_http_2_all_but_native_grpc_is_told_apart_as_ever() {
        type Row<'a> = &'a [(&'static str, &'static str)];
        let rows: &[Row<'_>] = &[
            &[("content-type", "application/grpc-web")],
            &[("content-type", "application/grpc-web-text+proto")],
            &[
                ("content-type", "application/grpc-web"),
                ("accept", "application/grpc-web-text"),
            ],
            &[],
            &[("content-type", "application/grpc-webx")],
            &[("content-type", "application/grpcx")],
            &[("content-type", "application/grpc+")],
            &[("content-type", "image/jpeg")],
            &[("content-type", "application/json")],
            &[
                ("content-type", "application/grpc-web"),
                ("content-type", "application/grpc"),
            ],
            &[
                ("content-type", "application/grpc-web"),
                ("content-encoding", "gzip"),
            ],
        ];
        for fields in rows {
            let told = |version| {
                super::classify(&request(Method::POST, fields), version)
                    .map_err(|refusal| (refusal.status, refusal.word))
            };
            assert_eq!(told(Version::HTTP_2), told(Version::HTTP_11), "{fields:?}");
        }
        let native = [
            ("content-type", "application/grpc"),
            ("content-encoding", "gzip"),
        ];
        let refusal = super::classify(&request(Method::POST, &native), Version::HTTP_2);
        assert_eq!(refusal.expect_err("a refusal").word, "content_encoding");
        let get = request(Method::GET, &native);
        let refusal = super::classify(&get, Version::HTTP_2).expect_err("a refusal");
        assert_eq!((refusal.status.as_u16(), refusal.word), (405, "method"));
        assert_eq!(
            refusal.message,
            "calls are made with POST, not \"GET\": this port speaks gRPC and gRPC-Web"
        );
    }

    #[test]
    fn a_refusal_over_http_2_names_both_types_that_are_taken() {
        for (fields, message) in [
            (
                &[][..],
                "there is no content-type: send application/grpc or application/grpc-web+proto",
            ),
            (
                &[("content-type", "image/jpeg")],
                "\"image/jpeg\" is neither gRPC nor gRPC-Web: send application/grpc or \
                 application/grpc-web+proto",
            ),
        ] {
            let head = request(Method::POST, fields);
            let refusal = super::classify(&head, Version::HTTP_2).expect_err("a refusal");
            assert_eq!(refusal.message, message);
        }
    }

    #[test]
    fn a_refusal_quotes_what_came_printable_and_short() {
        let message = |value: &'static str| {
            let head = request(Method::POST, &[("content-type", value)]);
            classify(&head).expect_err("a refusal").message
        };
        assert_eq!(
            message("image/\"jpeg\""),
            r#""image/\"jpeg\"" is not gRPC-Web: send application/grpc-web+proto"#
        );
        let long: &str = "x".repeat(1_000).leak();
        assert!(message(long).starts_with(&format!("\"{}\" is not", "x".repeat(80))));
    }

    #[test]
    fn who_asks_for_a_websocket_hears_that_there_is_none() {
        for (upgrade, told) in [
            ("websocket", true),
            ("foo, WebSocket/13", true),
            ("h2c", false),
        ] {
            let head = request(Method::GET, &[("upgrade", upgrade)]);
            let refusal = classify(&head).expect_err("a refusal");
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(refusal.message == NO_WEBSOCKET, told, "{upgrade}");
        }
    }

    #[test]
    fn w_12_every_other_verb_is_405_whatever_the_type() {
        for method in [
            Method::GET,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::HEAD,
        ] {
            for content_type in ["application/grpc-web", "image/jpeg"] {
                let head = request(method.clone(), &[("content-type", content_type)]);
                let refusal = classify(&head).expect_err("a refusal");
                assert_eq!((refusal.status.as_u16(), refusal.word), (405, "method"));
            }
        }
    }

    #[test]
    fn w_13_only_two_segments_make_a_method() {
        for path in ["/pkg.Service/Method", "/S/m"] {
            assert!(is_rpc_path(path), "{path}");
        }
        for path in [
            "", "/", "*", "/a", "/a/", "//a", "/a/b/", "/a/b/c", "/a//b", "//", "a/b",
        ] {
            assert!(!is_rpc_path(path), "{path}");
        }
    }

    #[test]
    fn w_25_the_answers_form_is_what_accept_names_or_else_the_requests() {
        const WEB: &str = "application/grpc-web+proto";
        const TEXT: &str = "application/grpc-web-text";
        let rows: &[(&str, &[&str], Form)] = &[
            (WEB, &[], Form::Binary),
            (TEXT, &[], Form::Text),
            (WEB, &["*/*"], Form::Binary),
            (TEXT, &["*/*"], Form::Text),
            (TEXT, &["application/grpc-web"], Form::Binary),
            (WEB, &["application/grpc-web-text"], Form::Text),
            (WEB, &["application/grpc-web-text+proto"], Form::Text),
            (
                TEXT,
                &["text/plain, application/grpc-web;q=0.9"],
                Form::Binary,
            ),
            (
                WEB,
                &["application/grpc-web, application/grpc-web-text;q=0.1"],
                Form::Text,
            ),
            (
                WEB,
                &["application/grpc-web, application/grpc-web-text;q=0"],
                Form::Binary,
            ),
            (WEB, &["application/grpc-web-text; Q=0.000"], Form::Binary),
            (
                WEB,
                &["application/grpc-web", "APPLICATION/GRPC-WEB-TEXT"],
                Form::Text,
            ),
            (TEXT, &["application/json"], Form::Text),
        ];
        for (content_type, accept, expected) in rows {
            let mut fields = vec![("content-type", *content_type)];
            fields.extend(accept.iter().map(|value| ("accept", *value)));
            let dialect = classify(&request(Method::POST, &fields)).expect("a dialect");
            let request = if *content_type == TEXT {
                Form::Text
            } else {
                Form::Binary
            };
            let response = *expected;
            assert_eq!(
                dialect,
                Dialect::GrpcWeb { request, response },
                "{fields:?}"
            );
        }
    }
}
