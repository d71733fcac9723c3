//! Durations and sizes as people write them: `90s`, `1h30m`, `512MiB`.

use std::fmt::Write as _;
use std::time::Duration;

const MILLIS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Binary units first: a size is shown in the first one that divides it.
const BYTES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads whole numbers with the units `d`, `h`, `m`, `s`, `ms`, one after the other. `None`: not
/// of this form, or more than 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let factor = MILLIS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = next;
    }
    Some(Duration::from_millis(total))
}

/// The shortest exact text that [`parse_duration`] reads back; parts of a millisecond are cut.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in MILLIS {
        if millis >= factor {
            let _ = write!(text, "{}{unit}", millis / factor);
            millis %= factor;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Reads one whole number with `B`, `KiB`, `MiB`, `GiB`, `TiB`, or the decimal `KB` to `TB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let unit = unit.trim_start();
    let factor = BYTES.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(factor)
}

/// The shortest exact text that [`parse_size`] reads back.
pub fn format_size(bytes: u64) -> String {
    let (unit, factor) = BYTES
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .copied()
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units_and_written_back() {
        for (text, millis) in [
            ("500ms", 500),
            ("60s", 60_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read.as_millis(), millis, "{text}");
            assert_eq!(parse_duration(&format_duration(read)), Some(read), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
    }

    #[test]
    fn what_has_no_unit_or_too_many_digits_is_no_duration() {
        for text in [
            "",
            "60",
            "s",
            "1.5h",
            "-1s",
            "1h 30m x",
            "99999999999999999999s",
            "1w",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration(&format!("{}d", u64::MAX)), None);
    }

    #[test]
    fn sizes_are_read_with_units_and_written_back() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("10 MiB", 10 << 20),
            ("5MB", 5_000_000),
            ("7B", 7),
            ("0B", 0),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes), "{text}");
        }
        for text in ["", "4", "4G", "GiB", "1.5GiB", "-1B", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
