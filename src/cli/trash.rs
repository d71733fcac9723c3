//! `trash`: checkouts that were put away.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell};

use super::context::Context;
use super::error::Result;
use super::format::{age, cut, safe};
use super::output::{self, Look};
use super::wiring::kept::{Kept, TrashEntry};
use super::{Error, Exit};
use crate::model::Timestamp;

/// See what was put away, put it back, or delete it for good
///
/// `worktree cleanup` puts checkouts here. They are deleted when `rescue.keep` is over; copies of
/// uncommitted work and commits stay in the git store in any case.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator trash list
  orchestrator trash restore 1767323045000-checkout
  orchestrator trash empty --force")]
pub struct TrashArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is in it, newest first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put something back to where it was, or elsewhere
    Restore {
        /// As `trash list` shows it
        id: String,
        /// A place that does not exist, on the same file system
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Delete all of it for good
    Empty {
        /// Really; without it only what would be deleted is said
        #[arg(long)]
        force: bool,
        /// What was deleted, or would be, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(context: &Context, args: &TrashArgs) -> Result<Exit> {
    let kept = Kept::of(context)?;
    match &args.action {
        Action::List { json } => show(&kept.trash().await?, *json),
        Action::Restore { id, into } => {
            let into = into.as_ref().map(std::path::absolute).transpose();
            let into =
                into.map_err(|error| Error::io("cannot tell the current directory", &error))?;
            let place = kept.put_back(id, into.as_deref()).await?;
            output::say(&format!("{} is back", place.display()));
            Ok(Exit::Done)
        }
        Action::Empty { force, json } => empty(&kept, *force, *json).await,
    }
}

fn show(all: &[TrashEntry], json: bool) -> Result<Exit> {
    output::list(all, json, "the trash is empty", table)
}

async fn empty(kept: &Kept, force: bool, json: bool) -> Result<Exit> {
    if force {
        let gone = kept.empty(Timestamp(i64::MAX)).await?;
        if json {
            output::json(&gone)?;
        }
        output::say(&format!("deleted for good: {}", gone.len()));
        return Ok(Exit::Done);
    }
    let all = kept.trash().await?;
    show(&all, json)?;
    if all.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Error::new(
        Exit::Refused,
        "nothing was deleted: these would be gone for good",
    )
    .hint("`orchestrator trash empty --force` deletes them; each goes by itself when its time is over"))
}

fn table(all: &[TrashEntry], look: &Look) -> String {
    let header = ["id", "age", "deleted in", "why", "was"];
    let mut table = output::table(look.columns, look.colour, &header);
    for entry in all {
        table.add_row(vec![
            Cell::new(safe(&entry.id)).add_attribute(Attribute::Bold),
            Cell::new(age(look.now.since(entry.at))),
            Cell::new(age(entry.until.since(look.now))),
            Cell::new(cut(&safe(&entry.why), 60)),
            Cell::new(entry.path.display()),
        ]);
    }
    output::lines(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::NOW;

    #[test]
    fn the_trash_is_a_table() {
        let entry = TrashEntry {
            id: "1767323000000-checkout".into(),
            path: "/state/agents/worker-2/checkout".into(),
            why: "clean-up of worker-2".into(),
            at: Timestamp(NOW.0 - 45_000),
            until: Timestamp(NOW.0 + 29 * 86_400_000),
        };
        insta::assert_snapshot!(table(&[entry], &Look::plain(NOW)));
    }
}
