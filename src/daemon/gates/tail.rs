//! The end of what a gate printed, as people and agents are shown it.

use crate::telemetry::Plain;

/// Of a failure: enough to see what is wrong. Of a success: what a test runner sums up.
const LINES: usize = 40;
const LINES_OF_SUCCESS: usize = 5;
const CHARACTERS: usize = 4000;
/// A line of more characters is cut.
const LONGEST_LINE: usize = 400;

/// `recent`: the newest bytes of a try.
pub(super) fn of(recent: &[u8], passed: bool) -> String {
    let text = Plain::default().feed(&String::from_utf8_lossy(recent));
    let lines: Vec<&str> = text
        .lines()
        .map(drawn_last)
        .filter(|line| !line.is_empty())
        .collect();
    let wanted = if passed { LINES_OF_SUCCESS } else { LINES };
    let mut taken = Vec::new();
    let mut characters = 0;
    for line in lines.iter().rev().take(wanted) {
        let line: String = line.chars().take(LONGEST_LINE).collect();
        characters += line.chars().count() + 1;
        if characters > CHARACTERS {
            break;
        }
        taken.push(line);
    }
    taken.reverse();
    taken.join("\n")
}

/// A line that was drawn over is as it was drawn last.
fn drawn_last(line: &str) -> &str {
    let line = line.trim_end();
    line.rsplit_once('\r').map_or(line, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_left_out() {
        let text = "\u{1b}[31mred\u{1b}[0m\r\n10%\r99%\n\u{1b}]0;title\u{7}after\u{8}\n\u{1b}";
        assert_eq!(of(text.as_bytes(), false), "red\n99%\nafter");
    }

    #[test]
    fn the_end_is_bounded_in_lines_and_characters() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n\n")).collect();
        let many = lines.concat();
        let end = of(many.as_bytes(), false);
        assert_eq!(end.lines().count(), LINES);
        assert!(end.ends_with("line 999"));
        assert_eq!(of(many.as_bytes(), true).lines().count(), LINES_OF_SUCCESS);
        let wide = format!("{}\n", "ä".repeat(10_000)).repeat(30);
        let end = of(wide.as_bytes(), false);
        assert!(end.chars().count() <= CHARACTERS);
        assert!(end.lines().all(|line| line.chars().count() == LONGEST_LINE));
        assert_eq!(of(b"\xff\xfe cut", false), "\u{fffd}\u{fffd} cut");
        assert_eq!(of(b"", true), "");
    }
}
