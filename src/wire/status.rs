//! gRPC's statuses: the 17 codes, the three tables between gRPC, HTTP and HTTP/2, and the repair of `grpc-message`.
//!
//! Sources: grpc/grpc `doc/statuscodes.md`, `doc/PROTOCOL-HTTP2.md` ("Errors", "Status-Message"),
//! `doc/http-grpc-status-mapping.md`. This file is the only truth about them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The field that carries a [`Code`].
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The field that carries a status's message, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The field that carries what a status says to programs, as base64 of a `google.rpc.Status`.
pub const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// How long a `grpc-message` may be on the wire, bytes. Over it: cut between two escapes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// A gRPC status code. The 17 of the specification have names; others (a backend may send 99) are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u32);

/// A code and what it says to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// Plain UTF-8, not yet percent-encoded; may be empty.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status of that code and message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Code {
    /// Not an error.
    pub const OK: Self = Self(0);
    /// The call was cancelled, usually by its caller.
    pub const CANCELLED: Self = Self(1);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The request makes no sense, whatever the state of the system.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// Time ran out first.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// What was asked for is not there.
    pub const NOT_FOUND: Self = Self(5);
    /// What was to be made is there already.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// The caller may not do that.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Something has run out, or is too large.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The system is not in the state that the call needs.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// Somebody else was there at the same time.
    pub const ABORTED: Self = Self(10);
    /// Past the valid range.
    pub const OUT_OF_RANGE: Self = Self(11);
    /// There is no such method here.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// An invariant is broken.
    pub const INTERNAL: Self = Self(13);
    /// Not now; trying again may help.
    pub const UNAVAILABLE: Self = Self(14);
    /// Data is lost for good.
    pub const DATA_LOSS: Self = Self(15);
    /// The caller did not say who it is.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The code of that number, one of the 17 or not.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, as it stands in `grpc-status`.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its name in the specification's spelling; `None` if it is not one of the 17.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "OK",
            1 => "CANCELLED",
            2 => "UNKNOWN",
            3 => "INVALID_ARGUMENT",
            4 => "DEADLINE_EXCEEDED",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            _ => return None,
        })
    }

    /// What a backend's `grpc-status` says. Whatever is not a decimal number without leading zeros is UNKNOWN
    /// (`statuscodes.md`: "Error parsing returned status").
    pub fn from_header(value: &HeaderValue) -> Self {
        let digits = value.as_bytes();
        // The 17, but for seven of them, have one digit.
        if let &[digit @ b'0'..=b'9'] = digits {
            return Self(u32::from(digit - b'0'));
        }
        let decimal = digits.iter().all(u8::is_ascii_digit);
        let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
        if !decimal || leading_zero {
            return Self::UNKNOWN;
        }
        // Empty, or over what a u32 holds: no number.
        match value.to_str().map(str::parse) {
            Ok(Ok(number)) => Self(number),
            _ => Self::UNKNOWN,
        }
    }

    /// What the `grpc-status` in a head or trailer section says; `None` if there is none. Two that differ are UNKNOWN.
    pub fn from_fields(fields: &HeaderMap) -> Option<Self> {
        Self::with_message(fields).map(|(code, _)| code)
    }

    /// The same with the first `grpc-message` beside it, as it stands there. A section that ends a call has a handful of
    /// fields, so that walking over them once costs less than looking up two names.
    pub fn with_message(fields: &HeaderMap) -> Option<(Self, Option<&HeaderValue>)> {
        let mut status: Option<&HeaderValue> = None;
        let mut differ = false;
        let mut message = None;
        for (name, value) in fields {
            match name.as_str() {
                "grpc-status" => differ |= *status.get_or_insert(value) != value,
                "grpc-message" => {
                    message.get_or_insert(value);
                }
                _ => {}
            }
        }
        let code = match differ {
            false => Self::from_header(status?),
            true => Self::UNKNOWN,
        };
        Some((code, message))
    }

    /// What a stream's reset with this HTTP/2 error code means where no trailers came (`PROTOCOL-HTTP2.md`, "Errors").
    /// Codes that the table does not name are INTERNAL: RFC 9113 §7 lets them be treated as INTERNAL_ERROR.
    pub const fn from_h2_reason(reason: u32) -> Self {
        match reason {
            0x7 => Self::UNAVAILABLE,        // REFUSED_STREAM
            0x8 => Self::CANCELLED,          // CANCEL
            0xb => Self::RESOURCE_EXHAUSTED, // ENHANCE_YOUR_CALM
            0xc => Self::PERMISSION_DENIED,  // INADEQUATE_SECURITY
            _ => Self::INTERNAL,
        }
    }

    /// What an HTTP status means where `grpc-status` is absent (`http-grpc-status-mapping.md`). Never the other way round.
    pub const fn from_http(status: u16) -> Self {
        match status {
            400 | 431 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }

    /// HTTP's nearest word for it, for callers that speak HTTP and no gRPC. Never for a gRPC-Web answer, which is 200.
    pub fn to_http(self) -> StatusCode {
        match self {
            Self::OK => StatusCode::OK,
            // 499 has no name in RFC 9110; it is what proxies have long logged for a client that left.
            Self::CANCELLED => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::INVALID_ARGUMENT | Self::FAILED_PRECONDITION | Self::OUT_OF_RANGE => {
                StatusCode::BAD_REQUEST
            }
            Self::DEADLINE_EXCEEDED => StatusCode::GATEWAY_TIMEOUT,
            Self::NOT_FOUND => StatusCode::NOT_FOUND,
            Self::ALREADY_EXISTS | Self::ABORTED => StatusCode::CONFLICT,
            Self::PERMISSION_DENIED => StatusCode::FORBIDDEN,
            Self::RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
            Self::UNIMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
            Self::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
            Self::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A message as `grpc-message` carries it: UTF-8, everything but printable ASCII and `%` percent-encoded, cut to
/// [`MESSAGE_BYTES_MAX`] between two characters.
pub fn encode_message(message: &str) -> HeaderValue {
    // Percent-encoding leaves nothing that a field value may not hold.
    HeaderValue::from_maybe_shared(Bytes::from(percent_encode(message)))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A backend's own `grpc-message`, made fit for clients that throw at a stray `%` or at escapes that are not UTF-8: what is
/// right stays as it is, what is broken is replaced, and nothing is an error.
pub fn repair_message(raw: &[u8]) -> Bytes {
    if raw.len() <= MESSAGE_BYTES_MAX && is_clean(raw) {
        return Bytes::copy_from_slice(raw);
    }
    Bytes::from(percent_encode(&decode_message(raw)))
}

/// What a `grpc-message` says, for logs. Never fails: a `%` that begins no escape stands for itself, and what is not UTF-8
/// becomes U+FFFD. Reads no more than can matter after a cut to [`MESSAGE_BYTES_MAX`].
pub fn decode_message(raw: &[u8]) -> String {
    // The thriftiest input is an escaped plain letter: three bytes that come out as one.
    let raw = raw.get(..MESSAGE_BYTES_MAX * 4).unwrap_or(raw);
    String::from_utf8_lossy(&percent_decode(raw).0).into_owned()
}

/// Whether every byte is printable ASCII, every `%` begins an escape, and the escapes are UTF-8.
fn is_clean(raw: &[u8]) -> bool {
    if !raw.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return false;
    }
    if !raw.contains(&b'%') {
        return true;
    }
    let (decoded, stray) = percent_decode(raw);
    !stray && std::str::from_utf8(&decoded).is_ok()
}

/// The bytes, and whether a `%` was met that begins no escape.
fn percent_decode(raw: &[u8]) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut stray = false;
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            if let [high, low, after @ ..] = after
                && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
            {
                decoded.push(high << 4 | low);
                rest = after;
                continue;
            }
            stray = true;
        }
        decoded.push(byte);
    }
    (decoded, stray)
}

fn percent_encode(message: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(message.len().min(MESSAGE_BYTES_MAX));
    for char in message.chars() {
        let plain = matches!(char, ' '..='~') && char != '%';
        let length = if plain { 1 } else { char.len_utf8() * 3 };
        if encoded.len() + length > MESSAGE_BYTES_MAX {
            break;
        }
        for &byte in char.encode_utf8(&mut [0; 4]).as_bytes() {
            if plain {
                encoded.push(byte);
            } else {
                encoded.extend([b'%', hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
            }
        }
    }
    encoded
}

/// `nibble` is below 16.
const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + (nibble & 0xf) - 10,
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "CODE_{}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_17_codes_has_its_number_name_and_http_status() {
        let rows = [
            (Code::OK, "OK", 200),
            (Code::CANCELLED, "CANCELLED", 499),
            (Code::UNKNOWN, "UNKNOWN", 500),
            (Code::INVALID_ARGUMENT, "INVALID_ARGUMENT", 400),
            (Code::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 504),
            (Code::NOT_FOUND, "NOT_FOUND", 404),
            (Code::ALREADY_EXISTS, "ALREADY_EXISTS", 409),
            (Code::PERMISSION_DENIED, "PERMISSION_DENIED", 403),
            (Code::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", 429),
            (Code::FAILED_PRECONDITION, "FAILED_PRECONDITION", 400),
            (Code::ABORTED, "ABORTED", 409),
            (Code::OUT_OF_RANGE, "OUT_OF_RANGE", 400),
            (Code::UNIMPLEMENTED, "UNIMPLEMENTED", 501),
            (Code::INTERNAL, "INTERNAL", 500),
            (Code::UNAVAILABLE, "UNAVAILABLE", 503),
            (Code::DATA_LOSS, "DATA_LOSS", 500),
            (Code::UNAUTHENTICATED, "UNAUTHENTICATED", 401),
        ];
        for (number, (code, name, http)) in (0_u32..).zip(rows) {
            assert_eq!(code.number(), number);
            assert_eq!(code.name(), Some(name));
            assert_eq!(code.to_string(), name);
            assert_eq!(code.to_http().as_u16(), http, "{name}");
            assert_eq!(Code::from_header(&HeaderValue::from(number)), code);
        }
        assert_eq!(Code::new(17).name(), None);
        assert_eq!(Code::new(99).to_string(), "CODE_99");
        assert_eq!(Code::new(99).to_http().as_u16(), 500);
    }

    #[test]
    fn each_of_the_14_http2_error_codes_has_its_status() {
        let rows = [
            Code::INTERNAL,           // NO_ERROR
            Code::INTERNAL,           // PROTOCOL_ERROR
            Code::INTERNAL,           // INTERNAL_ERROR
            Code::INTERNAL,           // FLOW_CONTROL_ERROR
            Code::INTERNAL,           // SETTINGS_TIMEOUT
            Code::INTERNAL,           // STREAM_CLOSED
            Code::INTERNAL,           // FRAME_SIZE_ERROR
            Code::UNAVAILABLE,        // REFUSED_STREAM
            Code::CANCELLED,          // CANCEL
            Code::INTERNAL,           // COMPRESSION_ERROR
            Code::INTERNAL,           // CONNECT_ERROR
            Code::RESOURCE_EXHAUSTED, // ENHANCE_YOUR_CALM
            Code::PERMISSION_DENIED,  // INADEQUATE_SECURITY
            Code::INTERNAL,           // HTTP_1_1_REQUIRED
        ];
        assert_eq!(rows.len(), 14);
        for (reason, code) in (0..).zip(rows) {
            assert_eq!(Code::from_h2_reason(reason), code, "{reason:#x}");
        }
        for unknown in [0xe, 0xff, u32::MAX] {
            assert_eq!(Code::from_h2_reason(unknown), Code::INTERNAL);
        }
    }

    #[test]
    fn u_11_every_http_status_has_its_code() {
        for status in 0..=1000 {
            let expected = match status {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 => 14,
                431 => 13,
                502..=504 => 14,
                _ => 2,
            };
            assert_eq!(Code::from_http(status).number(), expected, "{status}");
        }
    }

    #[test]
    fn w_35_a_status_that_is_no_number_is_unknown_and_99_is_kept() {
        let rows = [
            ("0", 0),
            ("16", 16),
            ("99", 99),
            ("4294967295", u32::MAX),
            ("4294967296", 2),
            ("99999999999999999999", 2),
            ("", 2),
            ("abc", 2),
            ("00", 2),
            ("05", 2),
            ("+5", 2),
            ("-1", 2),
            ("5 ", 2),
            ("0x5", 2),
            ("5,5", 2),
        ];
        for (value, number) in rows {
            let value = HeaderValue::from_static(value);
            assert_eq!(Code::from_header(&value).number(), number, "{value:?}");
        }
        let latin1 = HeaderValue::from_bytes(b"\xb2").expect("obs-text");
        assert_eq!(Code::from_header(&latin1), Code::UNKNOWN);
    }

    #[test]
    fn w_35_two_statuses_that_differ_are_unknown() {
        let mut fields = HeaderMap::new();
        assert_eq!(Code::from_fields(&fields), None);
        fields.append(GRPC_STATUS, HeaderValue::from_static("5"));
        assert_eq!(Code::from_fields(&fields), Some(Code::NOT_FOUND));
        fields.append(GRPC_STATUS, HeaderValue::from_static("5"));
        assert_eq!(Code::from_fields(&fields), Some(Code::NOT_FOUND));
        fields.append(GRPC_STATUS, HeaderValue::from_static("0"));
        assert_eq!(Code::from_fields(&fields), Some(Code::UNKNOWN));
    }

    #[test]
    fn a_message_is_percent_encoded_in_upper_case_and_comes_back() {
        let rows = [
            ("", ""),
            ("plain ~ text", "plain ~ text"),
            ("100%", "100%25"),
            ("a\r\nb\0\t", "a%0D%0Ab%00%09"),
            ("\u{7f}", "%7F"),
            ("grün", "gr%C3%BCn"),
            ("☺", "%E2%98%BA"),
            ("\u{1f600}", "%F0%9F%98%80"),
        ];
        for (message, encoded) in rows {
            assert_eq!(encode_message(message), encoded);
            assert_eq!(decode_message(encoded.as_bytes()), message);
            assert_eq!(repair_message(encoded.as_bytes()), encoded, "{message:?}");
        }
    }

    #[test]
    fn w_36_a_broken_message_is_repaired_and_never_an_error() {
        let rows: &[(&[u8], &str)] = &[
            (b"50% off", "50%25 off"),
            (b"%", "%25"),
            (b"%4", "%254"),
            (b"%zz", "%25zz"),
            (b"%%41", "%25A"),
            (b"%e2%98%ba", "%e2%98%ba"),
            (b"gr\xc3\xbcn", "gr%C3%BCn"),
            (b"\xff", "%EF%BF%BD"),
            (b"%FF", "%EF%BF%BD"),
            (b"%C3", "%EF%BF%BD"),
            (b"a\tb", "a%09b"),
            (b"a\r\nb\0", "a%0D%0Ab%00"),
            (b"fine %41%42 here", "fine %41%42 here"),
        ];
        for (raw, repaired) in rows {
            let once = repair_message(raw);
            assert_eq!(once, repaired, "{}", raw.escape_ascii());
            assert_eq!(
                repair_message(&once),
                once,
                "repairing twice changes nothing"
            );
        }
    }

    #[test]
    fn w_36_a_long_message_is_cut_between_two_characters() {
        let rows: Vec<Vec<u8>> = vec![
            vec![b'a'; 1 << 20],
            b"%E2%98%BA".repeat(100_000),
            b"%41".repeat(300_000),
            vec![0xff; 1 << 20],
            vec![b'%'; 1 << 20],
            [&vec![b'a'; MESSAGE_BYTES_MAX - 1][..], "☺".as_bytes()].concat(),
        ];
        for raw in rows {
            let cut = repair_message(&raw);
            assert!(cut.len() <= MESSAGE_BYTES_MAX);
            assert!(cut.len() > MESSAGE_BYTES_MAX - 12, "{}", cut.len());
            assert!(is_clean(&cut));
        }
        // As long as it may be it stays as it came, escapes in lower case and all.
        let longest = [&vec![b'a'; MESSAGE_BYTES_MAX - 6][..], b"%c3%bc"].concat();
        assert_eq!(repair_message(&longest), longest);
        // What is escaped weighs three times.
        for (last, room) in [("%", 3), ("ü", 6), ("☺", 9), ("😀", 12)] {
            for short in [0, 1] {
                let plain = "a".repeat(MESSAGE_BYTES_MAX - room + short);
                let encoded = encode_message(&format!("{plain}{last}"));
                let fits = if short == 0 { room } else { 0 };
                assert_eq!(encoded.len(), plain.len() + fits, "{last}");
            }
        }
        let long = "☺".repeat(10_000);
        let encoded = encode_message(&long);
        assert_eq!(encoded.len(), MESSAGE_BYTES_MAX / 9 * 9);
        assert!(long.starts_with(&decode_message(encoded.as_bytes())));
    }
}
