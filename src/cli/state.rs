//! `state`: the file with the tasks, the agents' state and the journal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::Context;
use super::error::Result;
use super::format::size;
use super::output;
use super::wiring::state::{self, Checked, CopyInfo};
use super::{Error, Exit};

/// Back up the state, look it through, or put a backup back
///
/// The state is one file, `state.db`: the tasks with their attempts and receipts, what every agent
/// was doing, and the journal. Commits, uncommitted work and conversations lie beside it and are
/// not part of a backup.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator state backup state-before.db      while the fleet works
  orchestrator state check                       is every page of it readable, and does it agree?
  orchestrator state check state-before.db       or of a backup?
  orchestrator down && orchestrator state restore state-before.db --config ./fleet

A file that turns out to be damaged stops the start and is left as it is: it is never replaced by
an empty one. `state restore` keeps it beside the backup that takes its place.")]
pub struct StateArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a copy of the state, also while the supervisor runs
    Backup {
        /// A file that does not exist yet
        file: PathBuf,
        /// What was written, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at every page of the state, or of a backup
    Check {
        /// A backup; without it the state itself
        file: Option<PathBuf>,
        /// What was found, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in the place of the state; no supervisor may be running
    Restore {
        /// What `state backup` wrote
        file: PathBuf,
        /// What was done, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(context: &Context, args: &StateArgs) -> Result<Exit> {
    match &args.action {
        Action::Backup { file, json } => {
            let directory = context.state_directory()?;
            let copied = state::back_up(&directory, &absolute(file)?).await?;
            done(&copied, file, "written", *json)
        }
        Action::Check { file, json } => {
            // A backup may be looked at where there is no fleet.
            let directory = match file {
                Some(_) => PathBuf::new(),
                None => context.state_directory()?,
            };
            let checked = state::check(&directory, file.as_deref()).await?;
            let shown = file.clone().unwrap_or_else(|| directory.join("state.db"));
            report(&checked, &shown, *json)
        }
        Action::Restore { file, json } => {
            let directory = context.state_directory()?;
            let restored = state::restore(&directory, &absolute(file)?).await?;
            done(&restored, file, "is the state now", *json)
        }
    }
}

fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file)
        .map_err(|error| Error::io("cannot tell the current directory", &error))
}

/// What a script is told of a copy.
#[derive(Serialize)]
struct Done<'a> {
    file: &'a Path,
    bytes: u64,
    schema: i64,
    records: u64,
    replaced: Option<&'a Path>,
}

fn done(copied: &CopyInfo, file: &Path, what: &str, json: bool) -> Result<Exit> {
    if json {
        output::json(&Done {
            file,
            bytes: copied.bytes,
            schema: copied.schema,
            records: copied.subjects,
            replaced: copied.replaced.as_deref(),
        })?;
    }
    output::say(&format!(
        "{}: {what} ({})",
        file.display(),
        size(copied.bytes)
    ));
    if let Some(replaced) = &copied.replaced {
        output::say(&format!("what was there is kept: {}", replaced.display()));
    }
    Ok(Exit::Done)
}

/// What a script is told of a file that was looked through.
#[derive(Serialize)]
struct Found<'a> {
    file: &'a Path,
    ok: bool,
    bytes: u64,
    schema: i64,
    records: u64,
    journal: u64,
    problems: &'a [String],
}

fn report(checked: &Checked, file: &Path, json: bool) -> Result<Exit> {
    let ok = checked.problems.is_empty();
    if json {
        output::json(&Found {
            file,
            ok,
            bytes: checked.bytes,
            schema: checked.schema,
            records: checked.records,
            journal: checked.journal,
            problems: &checked.problems,
        })?;
    } else {
        output::data(&text(checked, file))?;
    }
    if ok {
        return Ok(Exit::Done);
    }
    Err(
        Error::new(Exit::Failure, format!("{} is damaged", file.display())).hint(
            "`orchestrator state restore BACKUP` puts a backup in its place and keeps this one",
        ),
    )
}

fn text(checked: &Checked, file: &Path) -> String {
    let mut text = String::new();
    if checked.problems.is_empty() {
        let _ = writeln!(
            text,
            "{}: whole ({}, schema {}, {} records of {} tasks and lists, {} journal entries)",
            file.display(),
            size(checked.bytes),
            checked.schema,
            checked.records,
            checked.subjects,
            checked.journal
        );
    }
    for problem in &checked.problems {
        let _ = writeln!(text, "{problem}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_in_a_line_or_problem_by_problem() {
        let mut checked = Checked {
            bytes: 8192,
            schema: 2,
            subjects: 3,
            records: 5,
            journal: 7,
            problems: Vec::new(),
        };
        let file = Path::new("/state/state.db");
        let said = text(&checked, file);
        for word in ["whole", "8.0 KiB", "schema 2", "5 records", "7 journal"] {
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(report(&checked, file, false).unwrap(), Exit::Done);
        checked.problems = vec!["page 7 is never used".into(), "and another".into()];
        assert_eq!(text(&checked, file), "page 7 is never used\nand another\n");
        let error = report(&checked, file, false).unwrap_err();
        assert_eq!(error.exit, Exit::Failure);
        assert!(error.render().contains("state restore"));
    }
}
