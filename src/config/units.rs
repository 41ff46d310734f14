//! Values with units: `"16KiB"`, `"10s"`, `"auto"`, plain numbers. Each fault is a sentence that shows the right form.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::schema::Scalar;

/// What a count is: the operator's number, or ours to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Auto,
    Number(u64),
}

/// `"30s"`, `"500ms"`, `"2m"`, `"1h"`; a bare number would leave the unit to guesswork and is refused.
pub(super) fn duration(
    value: &Scalar,
    allowed: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let form = "write a number with its unit, e.g. \"500ms\", \"10s\", \"2m\", \"1h\"";
    let Scalar::Text(text) = value else {
        return Err(format!("a time needs a unit; {form}"));
    };
    let (number, unit) = split(text).ok_or_else(|| form.to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(form.to_owned()),
    };
    let time = number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .filter(|time| allowed.contains(time));
    let (least, most) = (spelled(*allowed.start()), spelled(*allowed.end()));
    time.ok_or_else(|| format!("must be from {least} to {most}"))
}

/// As somebody would write it here: in the largest unit that leaves no rest.
fn spelled(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = |(unit, _): &(u128, _)| millis >= *unit && millis.is_multiple_of(*unit);
    match units.into_iter().find(fits) {
        Some((unit, word)) => format!("{}{word}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

/// `"16KiB"`, `"4MiB"`, `"1GiB"`, `"64kB"`, `"100B"`, or a number of bytes.
pub(super) fn bytes(value: &Scalar, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let form = "write a size such as \"16KiB\", \"4MiB\" or a number of bytes";
    let size = match value {
        Scalar::Number(number) => u64::try_from(*number).ok(),
        Scalar::Text(text) => {
            let (number, unit) = split(text).ok_or_else(|| form.to_owned())?;
            let scale = match unit {
                "" | "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                "kB" => 1_000,
                "MB" => 1_000_000,
                "GB" => 1_000_000_000,
                _ => {
                    let (binary, decimal) = match unit.to_ascii_lowercase().as_str() {
                        "k" | "kb" | "kib" => ("KiB", "kB"),
                        "m" | "mb" | "mib" => ("MiB", "MB"),
                        "g" | "gb" | "gib" => ("GiB", "GB"),
                        _ => return Err(form.to_owned()),
                    };
                    return Err(format!(
                        "write \"{number}{binary}\", in steps of 1024, or \"{number}{decimal}\", in steps of 1000"
                    ));
                }
            };
            number.checked_mul(scale)
        }
    };
    size.filter(|size| allowed.contains(size)).ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        match most % 1024 {
            0 => format!("must be from {least} bytes to {}KiB", most / 1024),
            _ => format!("must be from {least} to {most} bytes"),
        }
    })
}

/// A number of things.
pub(super) fn count(value: &Scalar, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        Scalar::Number(number) => u64::try_from(*number).ok(),
        Scalar::Text(text) => match split(text) {
            Some((number, "")) => Some(number),
            _ => return Err("write a number".to_owned()),
        },
    };
    number
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| format!("must be from {} to {}", allowed.start(), allowed.end()))
}

/// A number of things, or `"auto"`.
pub(super) fn count_or_auto(value: &Scalar, allowed: RangeInclusive<u64>) -> Result<Count, String> {
    match value {
        Scalar::Text(text) if text == "auto" => Ok(Count::Auto),
        Scalar::Text(text) if !text.bytes().all(|b| b.is_ascii_digit()) => {
            Err("write a number or \"auto\"".to_owned())
        }
        _ => count(value, allowed).map(Count::Number),
    }
}

/// Leading digits and the rest; a space between them is allowed.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn a_bound_is_spelled_as_it_would_be_written() {
        for (millis, told) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (120_000, "2m"),
            (86_400_000, "24h"),
        ] {
            assert_eq!(spelled(Duration::from_millis(millis)), told);
        }
    }

    const DAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

    #[test]
    fn times_are_read_with_their_unit() {
        for (written, millis) in [
            ("0s", 0),
            ("1ms", 1),
            ("10s", 10_000),
            ("2 m", 120_000),
            ("24h", 86_400_000),
        ] {
            let read = duration(&text(written), DAY);
            assert_eq!(read, Ok(Duration::from_millis(millis)), "{written}");
        }
    }

    #[test]
    fn times_that_are_none_are_refused_with_the_right_form() {
        let faults = ["", "s", "10", "10sec", "-1s", "1.5s", "10 s s", "none"];
        for written in faults.map(text).iter().chain([&Scalar::Number(10)]) {
            let fault = duration(written, DAY).unwrap_err();
            assert!(fault.contains("\"500ms\""), "{written:?}: {fault}");
        }
        for written in ["25h", "18446744073709551615h"] {
            let fault = duration(&text(written), DAY).unwrap_err();
            assert_eq!(fault, "must be from 0s to 24h", "{written}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_thousands() {
        for (written, size) in [
            (text("100"), 100),
            (text("100B"), 100),
            (text("16KiB"), 16_384),
            (text("4 MiB"), 4 << 20),
            (text("1GiB"), 1 << 30),
            (text("64kB"), 64_000),
            (Scalar::Number(7), 7),
        ] {
            assert_eq!(bytes(&written, 0..=u64::MAX), Ok(size), "{written:?}");
        }
        for written in ["", "KiB", "1K", "1kib", "-1", "1.5MiB"] {
            assert!(bytes(&text(written), 0..=u64::MAX).is_err(), "{written}");
        }
        for (written, help) in [
            (
                "16KB",
                "write \"16KiB\", in steps of 1024, or \"16kB\", in steps of 1000",
            ),
            ("16kb", "write \"16KiB\","),
            ("4 m", "write \"4MiB\","),
            ("1gib", "write \"1GiB\","),
            ("1 sack", "write a size such as \"16KiB\""),
        ] {
            let fault = bytes(&text(written), 0..=u64::MAX).unwrap_err();
            assert!(fault.starts_with(help), "{written}: {fault}");
        }
        assert!(bytes(&text("18446744073709551615KiB"), 0..=u64::MAX).is_err());
        assert!(bytes(&Scalar::Number(-1), 0..=10).is_err());
        assert!(bytes(&Scalar::Number(11), 0..=10).is_err());
    }

    #[test]
    fn counts_are_numbers_and_auto_only_where_it_means_something() {
        assert_eq!(count(&text("12"), 1..=64), Ok(12));
        assert_eq!(count(&Scalar::Number(64), 1..=64), Ok(64));
        for value in [
            text("auto"),
            text("0"),
            text("x"),
            text(""),
            Scalar::Number(65),
        ] {
            assert!(count(&value, 1..=64).is_err(), "{value:?}");
        }
        assert_eq!(count_or_auto(&text("auto"), 1..=64), Ok(Count::Auto));
        assert_eq!(count_or_auto(&text("3"), 1..=64), Ok(Count::Number(3)));
        for value in [text("Auto"), text(""), text("0"), Scalar::Number(-1)] {
            assert!(count_or_auto(&value, 1..=64).is_err(), "{value:?}");
        }
    }
}
