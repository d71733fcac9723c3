//! Numbers and times as people read them.

use std::time::Duration;

use crate::model::Timestamp;

/// The two largest units: `5s`, `3m`, `2h 5m`, `3d 4h`.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `980`, `45k`, `1.2M`.
pub(super) fn count(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        1000..1_000_000 => format!("{}k", number / 1000),
        _ => format!("{:.1}M", number as f64 / 1_000_000.0),
    }
}

/// `980 B`, `4.2 KiB`, `1.3 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    if unit == "B" {
        return format!("{bytes} B");
    }
    format!("{number:.1} {unit}")
}

/// The time, for ages.
pub(super) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Cut to `width` characters, with `…` where something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Text from an agent or a remote, safe to print: no control characters.
pub(super) fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A duration as people write it (`90s`, `5m`, `1h 30m`) or a bare number of seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "give a time such as `90s`, `5m` or `1h 30m`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_name_at_most_two_units() {
        let ages = [0, 59, 60, 3599, 3600, 7500, 86_400, 273_600];
        let texts = ages.map(|s| age(Duration::from_secs(s)));
        assert_eq!(
            texts,
            ["0s", "59s", "1m", "59m", "1h 0m", "2h 5m", "1d 0h", "3d 4h"]
        );
    }

    #[test]
    fn counts_are_short() {
        let texts = [999, 1000, 45_300, 1_234_567].map(count);
        assert_eq!(texts, ["999", "1k", "45k", "1.2M"]);
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        let texts = [0, 980, 4300, 3 << 20, 5 << 40].map(size);
        assert_eq!(texts, ["0 B", "980 B", "4.2 KiB", "3.0 MiB", "5.0 TiB"]);
    }

    #[test]
    fn cutting_counts_characters_and_keeps_one_line() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("one\ntwo", 10), "one");
    }

    #[test]
    fn durations_are_read_as_written() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "soon", "-5m"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(safe("a\u{1b}[31mb\u{7}"), "a [31mb ");
    }
}
