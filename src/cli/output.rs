//! Writing to stdout and stderr, and what the terminal can do.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

use super::error::Result;
use super::{Error, Exit};
use crate::model::Timestamp;

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

/// How things are drawn.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) now: Timestamp,
    pub(super) zone: jiff::tz::TimeZone,
    /// Of the terminal, if stdout is one.
    pub(super) columns: Option<u16>,
    pub(super) colour: Colour,
}

impl Look {
    pub(super) fn of_stdout() -> Self {
        Self {
            now: super::format::now(),
            zone: jiff::tz::TimeZone::system(),
            columns: terminal_size().map(|(columns, _)| columns),
            colour: Colour::of_stdout(),
        }
    }

    /// For what is compared with a text in tests.
    #[cfg(test)]
    pub(super) fn plain(now: Timestamp) -> Self {
        Self {
            now,
            zone: jiff::tz::TimeZone::UTC,
            columns: None,
            colour: Colour::No,
        }
    }
}

/// A list as JSON or as a table; `empty` is said in place of a table without rows.
pub(super) fn list<T: serde::Serialize>(
    all: &[T],
    as_json: bool,
    empty: &str,
    table: impl FnOnce(&[T], &Look) -> String,
) -> Result<Exit> {
    if as_json {
        json(&all)?;
    } else if all.is_empty() {
        say(empty);
    } else {
        data(&table(all, &Look::of_stdout()))?;
    }
    Ok(Exit::Done)
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

/// A table without lines. `columns`: `None` is as wide as it gets, for pipes.
pub(super) fn table(columns: Option<u16>, colour: Colour, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match columns {
        Some(columns) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(columns);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    match colour {
        Colour::Yes => table.enforce_styling(),
        Colour::No => table.force_no_tty(),
    };
    table.set_header(
        header
            .iter()
            .map(|name| Cell::new(name.to_uppercase()).add_attribute(Attribute::Dim)),
    );
    table
}

/// Its lines, without blanks at their ends.
pub(super) fn lines(table: &Table) -> String {
    let text = table.to_string();
    let lines = text.lines().map(str::trim_end);
    lines.fold(String::new(), |text, line| text + line + "\n")
}
