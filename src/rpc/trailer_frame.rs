//! The frame that ends every gRPC-Web answer: flag 0x80, and the trailers as `name: value\r\n`, without an empty line.
//!
//! Owns what may stand in it: always exactly one `grpc-status`, names in lower case, values in printable ASCII. Clients read a
//! frame without a status as success, a name in upper case as no status at all, and some throw at other bytes.
//!
//! Source: grpc/grpc `doc/PROTOCOL-WEB.md` (Message framing, HTTP wire protocols).

use bytes::Bytes;
use http::HeaderMap;

use crate::wire::Code;
use crate::wire::envelope::{PREFIX_BYTES, TRAILERS, prefix};

/// A trailer frame, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailerFrame {
    /// The whole frame, prefix included.
    pub bytes: Bytes,
    /// How many fields were left out because their values are not printable.
    pub dropped_fields: u32,
}

impl TrailerFrame {
    /// The frame of that status, and of all `fields` but `grpc-status` and `grpc-message`. The message is as it stands on the
    /// wire, percent-encoded; `None` leaves it out.
    pub fn new(code: Code, message: Option<&[u8]>, fields: &HeaderMap) -> Self {
        let others = || {
            let told = |name: &str| matches!(name, "grpc-status" | "grpc-message");
            fields.iter().filter(move |(name, _)| !told(name.as_str()))
        };
        let others_bytes: usize = others()
            .map(|(name, value)| line_bytes(name.as_str(), value))
            .sum();
        if let (Code::OK, None | Some([]), 0) = (code, message, others_bytes) {
            return Self {
                bytes: Bytes::from_static(match message {
                    None => OK_ALONE,
                    Some(_) => OK_WITH_EMPTY_MESSAGE,
                }),
                dropped_fields: 0,
            };
        }
        let mut number = [0; 10];
        let number = decimal(code.number(), &mut number);
        let message_bytes = message.map_or(0, |message| line_bytes(MESSAGE, message));
        // As large as it will be, so that it needs no memory but its own.
        let mut frame = Vec::with_capacity(
            PREFIX_BYTES + line_bytes(STATUS, number) + message_bytes + others_bytes,
        );
        frame.extend_from_slice(&[0; PREFIX_BYTES]);
        write_line(&mut frame, STATUS, number);
        if let Some(message) = message {
            write_line(&mut frame, MESSAGE, message);
        }
        let mut dropped_fields = 0;
        for (name, value) in others() {
            if value
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, 0x20..=0x7e))
            {
                write_line(&mut frame, name.as_str(), value.as_bytes());
            } else {
                dropped_fields += 1;
            }
        }
        // Metadata is limited to kilobytes long before it could outgrow the length field.
        let length = frame.len().saturating_sub(PREFIX_BYTES);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        for (place, byte) in frame.iter_mut().zip(prefix(TRAILERS, length)) {
            *place = byte;
        }
        Self {
            bytes: frame.into(),
            dropped_fields,
        }
    }

    /// The frame as a text of its own, padded, if it is one that nearly every call ends with.
    pub fn usual_text(&self) -> Option<&'static str> {
        match &self.bytes[..] {
            OK_ALONE => Some(OK_ALONE_TEXT),
            OK_WITH_EMPTY_MESSAGE => Some(OK_WITH_EMPTY_MESSAGE_TEXT),
            _ => None,
        }
    }
}

fn write_line(frame: &mut Vec<u8>, name: &str, value: &[u8]) {
    frame.extend_from_slice(name.as_bytes());
    // No space after the colon: every client takes that, older ones of tonic-web do not take a space.
    frame.push(b':');
    frame.extend_from_slice(value);
    frame.extend_from_slice(b"\r\n");
}

/// How long such a line is.
fn line_bytes(name: &str, value: impl AsRef<[u8]>) -> usize {
    name.len() + value.as_ref().len() + 3
}

/// A number in digits, without an allocation.
fn decimal(mut number: u32, place: &mut [u8; 10]) -> &[u8] {
    let mut digits = 0;
    for digit in place.iter_mut().rev() {
        // A remainder of ten is one digit.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        digits += 1;
        if number == 0 {
            break;
        }
    }
    place.get(10 - digits..).unwrap_or_default()
}

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// What most answers end with, as it stands: OK from a server that writes no message, and from one that writes an empty one.
const OK_ALONE: &[u8] = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
const OK_WITH_EMPTY_MESSAGE: &[u8] = b"\x80\0\0\0\x1egrpc-status:0\r\ngrpc-message:\r\n";
/// The same in base64.
const OK_ALONE_TEXT: &str = "gAAAAA9ncnBjLXN0YXR1czowDQo=";
const OK_WITH_EMPTY_MESSAGE_TEXT: &str = "gAAAAB5ncnBjLXN0YXR1czowDQpncnBjLW1lc3NhZ2U6DQo=";

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::wire::base64::Encoder;

    fn fields(rows: &[(&'static str, &'static [u8])]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in rows {
            let value = HeaderValue::from_bytes(value).expect("a field value");
            fields.append(HeaderName::from_static(name), value);
        }
        fields
    }

    fn block(frame: &TrailerFrame) -> String {
        let (head, block) = frame.bytes.split_at(PREFIX_BYTES);
        let length = u32::try_from(block.len()).expect("short");
        assert_eq!(head, prefix(TRAILERS, length));
        String::from_utf8(block.to_vec()).expect("ASCII")
    }

    #[test]
    fn w_30_the_status_comes_first_and_duplicates_keep_their_order() {
        let trailers = fields(&[
            ("x-many", b"one"),
            ("grpc-status", b"5"),
            ("x-bin", b"AAEC"),
            ("x-many", b"two"),
            ("grpc-message", b"not this one"),
            ("x-empty", b""),
        ]);
        let frame = TrailerFrame::new(Code::NOT_FOUND, Some(b"gone%21"), &trailers);
        assert_eq!(
            block(&frame),
            "grpc-status:5\r\ngrpc-message:gone%21\r\nx-many:one\r\nx-many:two\r\n\
             x-bin:AAEC\r\nx-empty:\r\n"
        );
        assert_eq!(frame.dropped_fields, 0);
    }

    #[test]
    fn the_usual_frames_are_what_any_other_would_be() {
        let told = [("grpc-status", &b"0"[..]), ("grpc-message", b"")];
        for fields in [HeaderMap::new(), fields(&told)] {
            for (message, lines) in [(None, ""), (Some(&b""[..]), "grpc-message:\r\n")] {
                let frame = TrailerFrame::new(Code::OK, message, &fields);
                assert_eq!(block(&frame), format!("grpc-status:0\r\n{lines}"));
                assert_eq!(frame.dropped_fields, 0);
                let mut text = BytesMut::new();
                Encoder::new().encode_padded(&frame.bytes, &mut text);
                assert_eq!(frame.usual_text().map(str::as_bytes), Some(&text[..]));
            }
        }
        for (code, message) in [(Code::OK, Some(&b"fine"[..])), (Code::UNKNOWN, None)] {
            let frame = TrailerFrame::new(code, message, &HeaderMap::new());
            assert_eq!(frame.usual_text(), None);
        }
    }

    #[test]
    fn a_value_that_is_not_printable_is_left_out_and_counted() {
        let trailers = fields(&[("x-a", b"gr\xfcn"), ("x-b", b"a\tb"), ("x-c", b"fine")]);
        let frame = TrailerFrame::new(Code::OK, None, &trailers);
        assert_eq!(block(&frame), "grpc-status:0\r\nx-c:fine\r\n");
        assert_eq!(frame.dropped_fields, 2);
    }

    #[test]
    fn h1_66_and_w_32_a_field_value_cannot_hold_a_line_break() {
        for value in [&b"a\r\nb"[..], b"a\rb", b"a\nb", b"a\0b"] {
            assert!(HeaderValue::from_bytes(value).is_err());
        }
    }

    #[test]
    fn numbers_are_printed_without_leading_zeros() {
        for number in [0, 9, 10, 16, 99, 100, u32::MAX] {
            let frame = TrailerFrame::new(Code::new(number), None, &HeaderMap::new());
            assert_eq!(block(&frame), format!("grpc-status:{number}\r\n"));
        }
    }
}
