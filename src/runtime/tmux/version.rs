//! Is this tmux new enough?

use crate::ports::{ErrorKind, PortError, PortResult};

/// Pane options, `respawn-pane -e` and `new-session` on all that is used here: tmux 3.0.
const OLDEST: (u32, u32) = (3, 0);

pub(super) const INSTALL_HINT: &str = "install tmux 3.0 or newer: `sudo apt-get install tmux` (Debian, Ubuntu), `brew install tmux` (macOS)";

/// From the answer of `tmux -V` (`tmux 3.3a`, `tmux next-3.5`, `tmux openbsd-7.4`, `tmux master`)
/// to the version's name. One that has no number is a development build, and passes.
pub(super) fn check(answer: &str) -> PortResult<String> {
    let answer = answer.trim();
    let Some(name) = answer.strip_prefix("tmux ") else {
        let said: String = answer.chars().take(80).collect();
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("the program tmux says of itself `{said}`, which is no tmux version"),
        )
        .hint(INSTALL_HINT));
    };
    match number(name) {
        Some(found) if found < OLDEST => Err(PortError::new(
            ErrorKind::Refused,
            format!("tmux {name} is too old; 3.0 is the oldest that works"),
        )
        .hint(INSTALL_HINT)),
        _ => Ok(name.to_owned()),
    }
}

fn number(name: &str) -> Option<(u32, u32)> {
    let name = name.strip_prefix("next-").unwrap_or(name);
    let (major, rest) = name.split_once('.')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_three_on_pass() {
        for answer in [
            "tmux 3.0",
            "tmux 3.3a\n",
            "tmux next-3.6",
            "tmux master",
            "tmux openbsd-7.4",
        ] {
            check(answer).unwrap();
        }
    }

    #[test]
    fn an_old_one_and_something_else_are_refused_with_a_hint() {
        for answer in ["tmux 2.9a", "tmux 1.8", "screen 4.9"] {
            let error = check(answer).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused);
            assert!(error.hint.unwrap().contains("apt-get install tmux"));
        }
    }
}
