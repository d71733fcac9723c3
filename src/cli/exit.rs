//! The table of exit codes. Stable: scripts depend on it, and a test holds it to the help text.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failure,
    Usage,
    NotRunning,
    AlreadyRunning,
    Prerequisite,
    Refused,
    NotFound,
    TimedOut,
}

impl Exit {
    /// In the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failure,
        Self::Usage,
        Self::NotRunning,
        Self::AlreadyRunning,
        Self::Prerequisite,
        Self::Refused,
        Self::NotFound,
        Self::TimedOut,
    ];

    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::AlreadyRunning => 4,
            Self::Prerequisite => 5,
            Self::Refused => 6,
            Self::NotFound => 7,
            Self::TimedOut => 8,
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failure => "something failed; the message says what",
            Self::Usage => "wrong arguments, or a configuration with problems",
            Self::NotRunning => "no supervisor is running",
            Self::AlreadyRunning => "a supervisor is running already",
            Self::Prerequisite => {
                "something that is needed is missing; `doctor` says how to get it"
            }
            Self::Refused => "the supervisor refused",
            Self::NotFound => "there is no agent, log or project of that name",
            Self::TimedOut => "it took longer than allowed",
        }
    }

    /// The exit with this number, for the code of a child process of ours.
    pub fn from_code(code: i32) -> Self {
        Self::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
            .unwrap_or(Self::Failure)
    }

    /// The table as `--help` and the man page show it.
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            let _ = writeln!(text, "  {}  {}", exit.code(), exit.meaning());
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_their_places_in_the_table() {
        for (number, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), number);
            assert_eq!(Exit::from_code(i32::from(exit.code())), exit);
        }
        assert_eq!(Exit::from_code(137), Exit::Failure);
    }
}
