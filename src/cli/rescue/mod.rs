//! `rescue`: copies of uncommitted work. They lie in the supervisor's git store and are read there,
//! whether it runs or not.

mod now;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell};

use super::context::Context;
use super::error::Result;
use super::format::{age, cut, safe};
use super::output::{self, Look};
use super::wiring::kept::Kept;
use super::{Error, Exit};
use crate::model::{AgentId, RescueView};

/// See, and get back, what agents had not committed
///
/// Uncommitted work (staged, changed and untracked files, and commits on no branch) is copied into the
/// supervisor's git store: at an interval while an agent works (`rescue.interval`), at the end of a
/// turn, before a stop or a restart, and after a crash. The copies are kept for `rescue.keep`, and
/// thinned out after a day. All of this works whether the supervisor runs or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator rescue list worker-2
  orchestrator rescue show 3f2a --diff
  orchestrator rescue restore 3f2a                    writes ./rescue-3f2a.../
  orchestrator rescue restore 3f2a --into /tmp/work
  orchestrator rescue now worker-2")]
pub struct RescueArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the copies, newest first
    List {
        /// Only of this agent: `manager` or `worker-N`
        agent: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is in one: its files, and what could not be copied
    Show {
        /// As `rescue list` shows it; the first digits are enough
        id: String,
        /// How its files differ from the commit they were based on
        #[arg(long)]
        diff: bool,
        /// As JSON
        #[arg(long, conflicts_with = "diff")]
        json: bool,
    },
    /// Write one into a new directory; nothing that exists is touched
    Restore {
        /// As `rescue list` shows it; the first digits are enough
        id: String,
        /// A directory that does not exist [default: rescue-ID in the current one]
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
        /// Say what was written as JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy the uncommitted work of an agent, or of all, now
    Now {
        /// `manager` or `worker-N`
        agent: Option<String>,
    },
}

pub(super) async fn run(context: &Context, args: &RescueArgs) -> Result<Exit> {
    match &args.action {
        Action::List { agent, json } => list(context, agent.as_deref(), *json).await,
        Action::Show { id, diff, json } => {
            let kept = Kept::of(context)?;
            if *diff {
                output::data(&lines_safe(&kept.diff(id).await?))?;
                return Ok(Exit::Done);
            }
            let content = kept.rescue(id).await?;
            if *json {
                output::json(&content)?;
            } else {
                output::data(&show::content(&content, super::format::now()))?;
            }
            Ok(Exit::Done)
        }
        Action::Restore { id, into, json } => restore(context, id, into.as_ref(), *json).await,
        Action::Now { agent } => now::run(context, agent.as_deref()).await,
    }
}

async fn list(context: &Context, agent: Option<&str>, json: bool) -> Result<Exit> {
    let kept = Kept::of(context)?;
    let agent = agent.map(AgentId::new);
    let all = kept.rescues(agent.as_ref()).await?;
    if let Some(agent) = agent.filter(|_| all.is_empty()) {
        let known = kept.agents();
        if !known.contains(&agent) {
            return Err(unknown(&agent, &known));
        }
    }
    let empty = "there are no copies: nothing uncommitted was seen at any time they are taken";
    output::list(&all, json, empty, table)
}

fn unknown(agent: &AgentId, known: &[AgentId]) -> Error {
    let names: Vec<&str> = known.iter().map(AgentId::as_str).collect();
    Error::new(Exit::NotFound, format!("there is no agent `{agent}`"))
        .hint(format!("there are: {}", names.join(", ")))
}

fn table(all: &[RescueView], look: &Look) -> String {
    let header = [
        "id",
        "agent",
        "age",
        "files",
        "left out",
        "why it was taken",
    ];
    let mut table = output::table(look.columns, look.colour, &header);
    for rescue in all {
        let left_out = match rescue.left_out.len() {
            0 => "-".to_owned(),
            number => number.to_string(),
        };
        table.add_row(vec![
            Cell::new(&rescue.id).add_attribute(Attribute::Bold),
            Cell::new(safe(rescue.agent.as_str())),
            Cell::new(age(look.now.since(rescue.at))),
            Cell::new(rescue.files),
            Cell::new(left_out),
            Cell::new(cut(&safe(&rescue.cause), 60)),
        ]);
    }
    output::lines(&table)
}

async fn restore(context: &Context, id: &str, into: Option<&PathBuf>, json: bool) -> Result<Exit> {
    let kept = Kept::of(context)?;
    let directory = match into {
        Some(directory) => directory.clone(),
        None => PathBuf::from(format!("rescue-{}", kept.rescue(id).await?.rescue.id)),
    };
    let directory = std::path::absolute(&directory)
        .map_err(|error| Error::io("cannot tell the current directory", &error))?;
    if directory.symlink_metadata().is_ok() {
        return Err(Error::new(
            Exit::Refused,
            format!("{} is there already", directory.display()),
        )
        .hint("nothing is written over: name another one with `--into DIR`"));
    }
    let restored = kept.restore(id, &directory).await?;
    if json {
        output::json(&restored)?;
    } else {
        output::data(&show::restored(&restored))?;
    }
    Ok(Exit::Done)
}

/// Text of agents, line by line without control characters.
fn lines_safe(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split('\t').map(safe).collect::<Vec<_>>().join("\t"));
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::{NOW, rescue};

    #[test]
    fn copies_are_a_table() {
        let mut other = rescue();
        (other.id, other.left_out) = ("a1b2c3d4e5f6".into(), Vec::new());
        other.cause = "\u{1b}[31mred".into();
        let text = table(&[rescue(), other], &Look::plain(NOW));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_diff_keeps_its_tabs_and_drives_no_terminal() {
        assert_eq!(lines_safe("+\ta\u{1b}[2J\n-b"), "+\ta [2J\n-b\n");
    }
}
