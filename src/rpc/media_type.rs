//! `application/grpc…`: taking content types apart and putting them together.
//!
//! Names are compared without regard to case, and parameters (`; charset=utf-8`) are ignored, as RFC 9110 §8.3.1 has it. The
//! suffix (`+proto`, `+json`) is kept, because the backend decodes by it. No suffix means proto, and stays no suffix.

use http::HeaderValue;

use crate::rpc::dialect::Form;

/// A content type, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType<'a> {
    /// `application/grpc-web`, `application/grpc-web-text`, with the suffix if there is one.
    GrpcWeb(Form, Option<&'a str>),
    /// `application/grpc`, with the suffix if there is one.
    Grpc(Option<&'a str>),
    /// What the Connect protocol uses: `application/connect+…`, `application/proto`, `application/json`.
    Connect,
    /// Anything else.
    Other,
}

impl<'a> MediaType<'a> {
    /// The type that a field names.
    pub(super) fn parse(value: &'a HeaderValue) -> Self {
        match Self::usual(value.as_bytes()) {
            Some(usual) => usual,
            None => value.to_str().map_or(Self::Other, Self::parse_str),
        }
    }

    /// What nearly every call says, and says several times, is known as it stands.
    fn usual(value: &[u8]) -> Option<Self> {
        Some(match value {
            b"application/grpc-web+proto" => Self::GrpcWeb(Form::Binary, Some("proto")),
            b"application/grpc-web-text" => Self::GrpcWeb(Form::Text, None),
            b"application/grpc-web" => Self::GrpcWeb(Form::Binary, None),
            b"application/grpc" => Self::Grpc(None),
            _ => return None,
        })
    }

    /// The type that a member of a list names, parameters and all.
    pub(super) fn parse_str(value: &'a str) -> Self {
        if let Some(usual) = Self::usual(value.as_bytes()) {
            return usual;
        }
        let essence = value.split(';').next().unwrap_or_default().trim();
        let (name, suffix) = match essence.split_once('+') {
            Some((_, suffix)) if !is_suffix(suffix) => return Self::Other,
            Some((name, suffix)) => (name, Some(suffix)),
            None => (essence, None),
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("application/grpc-web") {
            Self::GrpcWeb(Form::Binary, suffix)
        } else if is("application/grpc-web-text") {
            Self::GrpcWeb(Form::Text, suffix)
        } else if is("application/grpc-web-text-base64") && suffix.is_none() {
            Self::GrpcWeb(Form::Text, None)
        } else if is("application/grpc") {
            Self::Grpc(suffix)
        } else if is("application/connect") && suffix.is_some()
            || (is("application/proto") || is("application/json")) && suffix.is_none()
        {
            Self::Connect
        } else {
            Self::Other
        }
    }

    /// The suffix of a gRPC or gRPC-Web type.
    pub(super) const fn suffix(self) -> Option<&'a str> {
        match self {
            Self::GrpcWeb(_, suffix) | Self::Grpc(suffix) => suffix,
            Self::Connect | Self::Other => None,
        }
    }
}

/// `application/grpc` with that suffix.
pub(super) fn grpc(suffix: Option<&str>) -> HeaderValue {
    const PLAIN: HeaderValue = HeaderValue::from_static("application/grpc");
    const PROTO: HeaderValue = HeaderValue::from_static("application/grpc+proto");
    match suffix {
        None => PLAIN,
        Some("proto") => PROTO,
        Some(suffix) => compose("application/grpc", suffix).unwrap_or(PLAIN),
    }
}

/// gRPC-Web's type of that form, with that suffix.
pub(super) fn grpc_web(form: Form, suffix: Option<&str>) -> HeaderValue {
    const BINARY: HeaderValue = HeaderValue::from_static("application/grpc-web");
    const BINARY_PROTO: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");
    const TEXT: HeaderValue = HeaderValue::from_static("application/grpc-web-text");
    const TEXT_PROTO: HeaderValue = HeaderValue::from_static("application/grpc-web-text+proto");
    match (form, suffix) {
        (Form::Binary, None) => BINARY,
        (Form::Binary, Some("proto")) => BINARY_PROTO,
        (Form::Binary, Some(suffix)) => compose("application/grpc-web", suffix).unwrap_or(BINARY),
        (Form::Text, None) => TEXT,
        (Form::Text, Some("proto")) => TEXT_PROTO,
        (Form::Text, Some(suffix)) => compose("application/grpc-web-text", suffix).unwrap_or(TEXT),
    }
}

/// A type that is not common enough to be a constant of the compiler's.
fn compose(plain: &str, suffix: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{plain}+{}", suffix.to_ascii_lowercase())).ok()
}

fn is_suffix(suffix: &str) -> bool {
    !suffix.is_empty()
        && suffix
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w_10_suffixes_case_and_parameters_are_understood() {
        let rows = [
            (
                "application/grpc-web",
                MediaType::GrpcWeb(Form::Binary, None),
            ),
            (
                "application/grpc-web+proto",
                MediaType::GrpcWeb(Form::Binary, Some("proto")),
            ),
            (
                "application/grpc-web+json",
                MediaType::GrpcWeb(Form::Binary, Some("json")),
            ),
            (
                "application/grpc-web+thrift",
                MediaType::GrpcWeb(Form::Binary, Some("thrift")),
            ),
            (
                "application/grpc-web-text",
                MediaType::GrpcWeb(Form::Text, None),
            ),
            (
                "application/grpc-web-text+proto",
                MediaType::GrpcWeb(Form::Text, Some("proto")),
            ),
            (
                "application/grpc-web-text-base64",
                MediaType::GrpcWeb(Form::Text, None),
            ),
            (
                "Application/GRPC-Web+Proto",
                MediaType::GrpcWeb(Form::Binary, Some("Proto")),
            ),
            (
                "application/grpc-web; charset=utf-8",
                MediaType::GrpcWeb(Form::Binary, None),
            ),
            (
                "application/grpc-web+json ;x",
                MediaType::GrpcWeb(Form::Binary, Some("json")),
            ),
            ("application/grpc", MediaType::Grpc(None)),
            ("application/grpc+json;a=b", MediaType::Grpc(Some("json"))),
            ("application/connect+proto", MediaType::Connect),
            ("application/json; charset=utf-8", MediaType::Connect),
            ("application/proto", MediaType::Connect),
            ("application/grpc-webx", MediaType::Other),
            ("application/grpc-web+", MediaType::Other),
            ("application/grpc-web+a b", MediaType::Other),
            ("application/grpc-web-textual", MediaType::Other),
            ("application/connect", MediaType::Other),
            ("application/json+grpc", MediaType::Other),
            ("image/jpeg", MediaType::Other),
            ("", MediaType::Other),
        ];
        for (text, expected) in rows {
            assert_eq!(MediaType::parse_str(text), expected, "{text:?}");
            assert_eq!(MediaType::parse(&HeaderValue::from_static(text)), expected);
        }
    }

    #[test]
    fn a_suffix_survives_the_way_there_and_back() {
        assert_eq!(grpc(None), "application/grpc");
        assert_eq!(grpc(Some("proto")), "application/grpc+proto");
        assert_eq!(grpc(Some("JSON")), "application/grpc+json");
        assert_eq!(grpc_web(Form::Binary, None), "application/grpc-web");
        assert_eq!(
            grpc_web(Form::Text, Some("Proto")),
            "application/grpc-web-text+proto"
        );
        assert_eq!(
            grpc_web(Form::Binary, Some("json")),
            "application/grpc-web+json"
        );
    }
}
