//! What tmux answers when it fails, told apart by its text: it has one exit code for everything.

use std::io;

use crate::ports::{ErrorKind, PortError};

#[derive(Debug, thiserror::Error)]
pub(super) enum TmuxError {
    #[error("the tmux server is not running")]
    NoServer,
    #[error("{0}")]
    NoTarget(String),
    #[error("a session of that name exists")]
    Duplicate,
    #[error("the pane is still active")]
    StillActive,
    #[error("the program tmux was not found")]
    NotInstalled,
    #[error("tmux did not answer within {0} seconds")]
    Deadline(u64),
    #[error("cannot run tmux")]
    Io(#[source] io::Error),
    #[error("{0}")]
    Other(String),
}

/// Longest part of tmux's own words that is passed on, in characters.
const MAX_WORDS: usize = 500;

impl TmuxError {
    /// From what tmux 3.0 to 3.6 write to stderr (`client.c`, `cmd-find.c`, `cmd-new-session.c`,
    /// `spawn.c`).
    pub(super) fn from_stderr(stderr: &str) -> Self {
        let text: String = stderr.trim().chars().take(MAX_WORDS).collect();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if starts(&[
            "no server running",
            "lost server",
            "server exited",
            "[server exited",
            "[lost server",
        ]) || gone_socket(&text)
        {
            Self::NoServer
        } else if starts(&["can't find", "no such session", "no sessions", "no current"]) {
            Self::NoTarget(text)
        } else if starts(&["duplicate session"]) {
            Self::Duplicate
        } else if text.contains("still active") {
            Self::StillActive
        } else if text.is_empty() {
            Self::Other("tmux failed without a word".into())
        } else {
            Self::Other(text)
        }
    }

    /// The port's error: `cannot DOING`, with its kind and next step.
    pub(super) fn during(self, doing: &str) -> PortError {
        let message = format!("cannot {doing} in tmux");
        let error = PortError::new(self.kind(), message);
        match self {
            Self::NotInstalled => error.hint(super::version::INSTALL_HINT),
            _ => error,
        }
        .because(self)
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoServer | Self::NoTarget(_) => ErrorKind::NotFound,
            Self::Duplicate | Self::StillActive => ErrorKind::AlreadyExists,
            Self::NotInstalled | Self::Other(_) => ErrorKind::Refused,
            Self::Deadline(_) | Self::Io(_) => ErrorKind::Transient,
        }
    }
}

fn gone_socket(text: &str) -> bool {
    text.starts_with("error connecting to")
        && (text.contains("No such file") || text.contains("Connection refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_is_recognised_in_all_its_wordings() {
        for text in [
            "no server running on /tmp/tmux-0/x\n",
            "error connecting to /tmp/tmux-0/x (No such file or directory)",
            "error connecting to /tmp/tmux-0/x (Connection refused)",
            "server exited unexpectedly",
            "lost server",
        ] {
            assert!(
                matches!(TmuxError::from_stderr(text), TmuxError::NoServer),
                "{text}"
            );
        }
    }

    #[test]
    fn a_socket_we_may_not_open_is_not_a_missing_server() {
        let error = TmuxError::from_stderr("error connecting to /tmp/x (Permission denied)");
        let error = error.during("list the panes");
        assert_eq!(error.kind, ErrorKind::Refused);
        assert_eq!(
            error.chain(),
            "cannot list the panes in tmux: error connecting to /tmp/x (Permission denied)"
        );
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = TmuxError::NotInstalled.during("ask");
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.hint.unwrap().contains("apt-get install tmux"));
    }
}
