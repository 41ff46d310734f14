//! Statuses: a repaired message can always be read, says what the broken one said, and is left alone if it was right.

use http::HeaderValue;
use wharf::wire::status::{
    Code, MESSAGE_BYTES_MAX, decode_message, encode_message, repair_message,
};

use super::shared::percent_decoded;

/// Reads `input` as a backend's `grpc-message`, as a text of ours, and as a `grpc-status`.
pub fn check(input: &[u8]) {
    check_repair(input);
    check_encoding(&String::from_utf8_lossy(input));
    // Over the limit, so that it is cut wherever the input's length puts the cut. One in eight, because it is slow.
    if input.len() % 8 == 1 {
        let long = input.repeat(1 + MESSAGE_BYTES_MAX / input.len());
        check_repair(&long);
        check_encoding(&String::from_utf8_lossy(&long));
    }
    check_code(input);
}

fn check_repair(raw: &[u8]) {
    let repaired = repair_message(raw);
    assert!(repaired.len() <= MESSAGE_BYTES_MAX);
    let said = percent_decoded(&repaired);
    assert_eq!(decode_message(&repaired), said);
    assert_eq!(
        repair_message(&repaired),
        repaired,
        "repairing twice changes nothing"
    );

    let meant = decode_message(raw);
    assert!(meant.starts_with(&said), "{said:?} is not what was said");
    if repaired.len() + 12 < MESSAGE_BYTES_MAX {
        assert_eq!(said, meant, "there was room for all");
    }
    if raw.len() <= MESSAGE_BYTES_MAX && is_right(raw) {
        assert_eq!(repaired, raw, "what is right stays as it is");
    }
}

/// Whether a client can read it as it stands.
fn is_right(raw: &[u8]) -> bool {
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if !matches!(byte, b' '..=b'~') {
            return false;
        }
        if byte == b'%' {
            let digits = raw.get(at + 1..at + 3).unwrap_or_default();
            if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
                return false;
            }
            let digits = String::from_utf8_lossy(digits);
            decoded.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).is_ok()
}

fn check_encoding(text: &str) {
    let encoded = encode_message(text);
    assert!(encoded.len() <= MESSAGE_BYTES_MAX);
    let said = percent_decoded(encoded.as_bytes());
    assert!(text.starts_with(&said));
    assert_eq!(decode_message(encoded.as_bytes()), said);
    if encoded.len() + 12 < MESSAGE_BYTES_MAX {
        assert_eq!(said, text, "there was room for all");
    }
}

fn check_code(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let code = Code::from_header(&value);
    if code.number().to_string().as_bytes() != input {
        assert_eq!(code, Code::UNKNOWN, "{value:?}");
    }
    // Whoever prints a number as it should be is understood.
    let mut number = [0; 4];
    for (place, byte) in number.iter_mut().zip(input) {
        *place = *byte;
    }
    let number = u32::from_be_bytes(number);
    assert_eq!(
        Code::from_header(&HeaderValue::from(number)).number(),
        number
    );
}
