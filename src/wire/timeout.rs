//! `grpc-timeout`: how long the caller will wait.
//!
//! Owns reading and printing the field. It never looks at a clock: what remains of a timeout is the exchange's to compute.
//!
//! Source: grpc/grpc `doc/PROTOCOL-HTTP2.md`, "Timeout": `TimeoutValue` is at most 8 digits, `TimeoutUnit` one of
//! `H M S m u n`. Google's browser client writes milliseconds without a cap on the digits, so more are read than written.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::wire::fields::Fields;

/// The field.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Why a timeout can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutFault {
    /// It is not 1 to 20 digits and a unit.
    Malformed,
    /// Two fields say different things.
    Ambiguous,
}

impl TimeoutFault {
    /// In a few words, for the log and the caller.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Malformed => "bad grpc-timeout",
            Self::Ambiguous => "two different grpc-timeout fields",
        }
    }
}

/// The timeout that a request's fields ask for, if they do.
pub fn of(fields: &Fields) -> Result<Option<Duration>, TimeoutFault> {
    let mut values = fields.get_all(GRPC_TIMEOUT);
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let timeout = parse(first)?;
    for other in values {
        if parse(other)? != timeout {
            return Err(TimeoutFault::Ambiguous);
        }
    }
    Ok(Some(timeout))
}

/// Reads one value. What is longer than [`MAX`] becomes that.
pub fn parse(value: &HeaderValue) -> Result<Duration, TimeoutFault> {
    let (unit, digits) = value
        .as_bytes()
        .split_last()
        .ok_or(TimeoutFault::Malformed)?;
    if digits.is_empty() || digits.len() > DIGITS_READ_MAX {
        return Err(TimeoutFault::Malformed);
    }
    let mut count = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(TimeoutFault::Malformed);
        }
        count = count
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'));
    }
    let timeout = match unit {
        b'H' => Duration::from_secs(count.saturating_mul(3600)),
        b'M' => Duration::from_secs(count.saturating_mul(60)),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(TimeoutFault::Malformed),
    };
    Ok(timeout.min(MAX))
}

/// Prints a timeout in at most 8 digits, in the finest unit that holds it, rounded down: never longer than it is.
pub fn print(timeout: Duration) -> HeaderValue {
    let timeout = timeout.min(MAX);
    let seconds = timeout.as_secs();
    let units = [
        (timeout.as_nanos(), b'n'),
        (timeout.as_micros(), b'u'),
        (timeout.as_millis(), b'm'),
        (u128::from(seconds), b'S'),
        (u128::from(seconds / 60), b'M'),
    ];
    let (count, unit) = units
        .into_iter()
        .find_map(|(count, unit)| {
            let count = u32::try_from(count)
                .ok()
                .filter(|&count| count <= COUNT_PRINTED_MAX)?;
            Some((count, unit))
        })
        // `MAX` is what fits here.
        .unwrap_or(((seconds / 3600) as u32, b'H'));

    let mut text = [0u8; 9];
    let mut used = 0;
    let mut rest = count;
    for slot in text.iter_mut().rev() {
        if used == 0 {
            *slot = unit;
        } else {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        used += 1;
        if used > 1 && rest == 0 {
            break;
        }
    }
    let text = text.get(text.len() - used..).unwrap_or_default();
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

/// The longest timeout: 8 digits of hours, more than 11,000 years. No clock overflows when it is added.
pub const MAX: Duration = Duration::from_secs(COUNT_PRINTED_MAX as u64 * 3600);

const COUNT_PRINTED_MAX: u32 = 99_999_999;

/// 20 digits hold every 64-bit number, and nobody writes more.
const DIGITS_READ_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Duration, TimeoutFault> {
        parse(&HeaderValue::from_bytes(text.as_bytes()).unwrap())
    }

    #[test]
    fn d_01_every_unit_and_every_length_is_read() {
        let rows = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("1n", Duration::from_nanos(1)),
            ("0m", Duration::ZERO),
            ("00000007S", Duration::from_secs(7)),
            ("99999999H", MAX),
            ("99999999n", Duration::from_nanos(99_999_999)),
            // Google's client writes milliseconds with as many digits as it takes.
            ("999999999m", Duration::from_millis(999_999_999)),
            ("123456789012S", Duration::from_secs(123_456_789_012)),
            ("100000000H", MAX),
            ("99999999999999999999H", MAX),
            ("99999999999999999999n", Duration::from_nanos(u64::MAX)),
            ("00000000000000000001S", Duration::from_secs(1)),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        // Far from where a clock of 64-bit seconds overflows.
        assert!(MAX.as_secs() < 1 << 40);
    }

    #[test]
    fn d_02_what_is_not_a_timeout_is_refused() {
        let rows = [
            "",
            "S",
            "m",
            "1",
            "12",
            "-1S",
            "+1S",
            " 1S",
            "1 S",
            "1S ",
            "1s",
            "1h",
            "1ms",
            "1.5S",
            "0x1S",
            "1_0S",
            "1,1S",
            "1S,1S",
            "100000000000000000000n",
            "\t1S",
        ];
        for text in rows {
            assert_eq!(read(text), Err(TimeoutFault::Malformed), "{text:?}");
        }
    }

    #[test]
    fn d_02_two_different_values_are_ambiguous_and_two_equal_ones_are_not() {
        let mut fields = Fields::new();
        assert_eq!(of(&fields), Ok(None));
        fields.append(GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        fields.append(GRPC_TIMEOUT, HeaderValue::from_static("1000m"));
        assert_eq!(of(&fields), Ok(Some(Duration::from_secs(1))));
        fields.append(GRPC_TIMEOUT, HeaderValue::from_static("2S"));
        assert_eq!(of(&fields), Err(TimeoutFault::Ambiguous));
        fields.append(GRPC_TIMEOUT, HeaderValue::from_static("x"));
        assert!(of(&fields).is_err());
    }

    #[test]
    fn d_05_a_printed_timeout_is_short_and_never_longer_than_it_was() {
        let rows = [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_millis(99_999_999), "99999999m"),
            (Duration::from_millis(100_000_999), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(99_999_999 * 60 + 59), "99999999M"),
            (Duration::from_secs(100_000_000 * 60), "1666666H"),
            (MAX, "99999999H"),
            (Duration::MAX, "99999999H"),
        ];
        for (timeout, expected) in rows {
            let printed = print(timeout);
            assert_eq!(printed.to_str().unwrap(), expected, "{timeout:?}");
        }

        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..100_000 {
            let timeout = Duration::new(
                random.u64(..) >> random.u32(..64),
                random.u32(..1_000_000_000),
            );
            let printed = print(timeout);
            assert!(printed.len() <= 9, "{printed:?}");
            let again = parse(&printed).unwrap();
            assert!(again <= timeout, "{timeout:?} grew to {again:?}");
            // Eight digits lose at most a part in a million (60 seconds of 10^8, or 3600 of 6 * 10^9).
            let lost = timeout.min(MAX) - again;
            assert!(
                lost * 100_000 <= timeout.min(MAX),
                "{timeout:?} shrank to {again:?}"
            );
        }
    }
}
