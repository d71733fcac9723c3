//! What of our environment the tmux server, and with it every pane, may see.
//!
//! The server keeps the environment of whoever starts it for ever and shows it to anyone who asks
//! (`show-environment -g`), so it gets a list of what a view needs and none of the daemon's secrets.

use std::ffi::{OsStr, OsString};

const NAMES: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "TMUX_TMPDIR",
    "LANGUAGE",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
];
const PREFIXES: [&str; 4] = ["LC_", "XDG_", "DOCKER_", "ORCHESTRATOR_"];
const SECRETS: [&str; 5] = ["TOKEN", "SECRET", "PASSWORD", "KEY", "CREDENTIAL"];

/// `all`, filtered, with a terminal type and a UTF-8 locale that every system has.
pub(super) fn for_server(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut language = OsString::from("C.UTF-8");
    let mut kept = Vec::new();
    for (name, value) in all {
        if name == "LANG" {
            if is_utf8(&value) {
                language = value;
            }
        } else if name == "LC_ALL" && !is_utf8(&value) {
            // It would override LANG and make tmux print `_` for everything beyond ASCII.
        } else if name.to_str().is_some_and(allowed) {
            kept.push((name, value));
        }
    }
    kept.push(("LANG".into(), language));
    kept.push(("TERM".into(), "xterm-256color".into()));
    kept
}

fn allowed(name: &str) -> bool {
    (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        && !SECRETS.iter().any(|word| name.contains(word))
}

fn is_utf8(locale: &OsStr) -> bool {
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        for_server(pairs.iter().map(|(n, v)| (n.into(), v.into())))
            .into_iter()
            .map(|(n, v)| (n.into_string().unwrap(), v.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn secrets_and_the_outer_tmux_stay_outside() {
        let kept = filtered(&[
            ("PATH", "/bin"),
            ("ANTHROPIC_API_KEY", "sk"),
            ("ORCHESTRATOR_API_TOKEN", "t"),
            ("TMUX", "/tmp/x"),
            ("TMUX_PANE", "%3"),
            ("DOCKER_HOST", "unix:///d"),
        ]);
        let names: Vec<&str> = kept.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["PATH", "DOCKER_HOST", "LANG", "TERM"]);
    }

    #[test]
    fn the_locale_is_utf8_whatever_ours_is() {
        let kept = filtered(&[("LANG", "C"), ("LC_ALL", "POSIX"), ("LC_TIME", "de_DE")]);
        assert!(kept.contains(&("LANG".into(), "C.UTF-8".into())));
        assert!(!kept.iter().any(|(n, _)| n == "LC_ALL"));
        let kept = filtered(&[("LANG", "de_DE.UTF-8")]);
        assert!(kept.contains(&("LANG".into(), "de_DE.UTF-8".into())));
    }
}
