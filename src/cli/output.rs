//! Writing to stdout and stderr, and what the terminal can do.

use std::io::{self, IsTerminal as _, Write as _};

use super::error::Result;
use super::{Error, Exit};

/// May colours be used on stdout?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Yes,
    No,
}

impl Colour {
    /// Only on a terminal, and not with `NO_COLOR` (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !forbidden {
            Self::Yes
        } else {
            Self::No
        }
    }
}

/// Writes data to stdout. A reader that went away (`| head`) ends the command silently.
pub(super) fn data(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// The same for what is not text.
pub(super) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Error::rendered(Exit::Done, ""))
        }
        Err(error) => Err(Error::io("cannot write to stdout", &error)),
    }
}

/// Writes pretty JSON and a line end to stdout.
pub(super) fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(Exit::Failure, "cannot write the answer as JSON").because(&error)
    })?;
    data(&format!("{text}\n"))
}

/// A message for people. Nobody is helped by an error about stderr.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Columns and rows of the terminal that stdout is, if it is one.
pub(super) fn terminal_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
