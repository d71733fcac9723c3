//! `worktree`: the checkouts below the state directory, and putting away those nobody works in.

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell};

use super::Exit;
use super::context::Context;
use super::error::Result;
use super::format::{age, now, safe, size};
use super::output::{self, Look};
use super::wiring::kept::{self, Alone};
use crate::client::Client;
use crate::model::{AgentId, CleanedUp, Timestamp, WorktreeView};

const HEADER: [&str; 7] = [
    "agent",
    "in the fleet",
    "head",
    "ahead/behind",
    "newest copy",
    "size",
    "directory",
];

/// Show the checkouts, and put away those nobody needs any more
///
/// Each agent has a checkout below the state directory. Nothing removes one by itself, also when
/// `workerCount` is lowered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator worktree list
  orchestrator worktree cleanup --dry-run      what would be put away, and what stands against it
  orchestrator worktree cleanup                every checkout that no agent of the fleet has
  orchestrator worktree cleanup worker-4       this one; its fleet is stopped, or has no worker-4")]
pub struct WorktreeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the checkouts
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put checkouts into the trash, after everything in them was copied
    ///
    /// Uncommitted work is copied (see `rescue`) and commits are taken into the store first. A checkout
    /// that has anything else is left as it is, and what that is is said. What was put away stays in the
    /// trash for `rescue.keep`. The checkout of an agent of a running fleet is never touched.
    Cleanup(CleanupArgs),
}

#[derive(Debug, Args)]
struct CleanupArgs {
    /// `manager` or `worker-N` [default: all that the configuration does not have]
    names: Vec<String>,
    /// Put it into the trash although something is nowhere else; says what that is
    #[arg(long)]
    force: bool,
    /// Say what would be done; only the copies are taken
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Who does it: the running supervisor, or this process while none runs.
enum Door {
    Running(Client),
    Alone(Box<Alone>),
}

impl Door {
    async fn open(context: &Context) -> Result<Self> {
        match running(context)? {
            Some(client) => Ok(Self::Running(client)),
            None => Ok(Self::Alone(Box::new(Alone::new(context).await?))),
        }
    }

    async fn clean_up(&self, agent: &AgentId, args: &CleanupArgs) -> Result<CleanedUp> {
        match self {
            Self::Running(client) => Ok(client.clean_up(agent, args.force, args.dry_run).await?),
            Self::Alone(alone) => alone.clean_up(agent, args.force, args.dry_run).await,
        }
    }
}

/// `None`: none runs, and it is said which fleet is meant.
fn running(context: &Context) -> Result<Option<Client>> {
    match context.running() {
        Ok(running) => Ok(Some(running.client)),
        Err(error) if error.exit != Exit::NotRunning => Err(error),
        Err(_) if context.config.is_some() => Ok(None),
        Err(error) => {
            Err(error.hint("while no supervisor runs, say which fleet with `--config DIR`"))
        }
    }
}

async fn all(context: &Context) -> Result<Vec<WorktreeView>> {
    match running(context)? {
        Some(client) => Ok(client.worktrees().await?),
        None => kept::worktrees(context).await,
    }
}

pub(super) async fn run(context: &Context, args: &WorktreeArgs) -> Result<Exit> {
    match &args.action {
        Action::List { json } => list(context, *json).await,
        Action::Cleanup(args) => clean_up(context, args).await,
    }
}

async fn list(context: &Context, json: bool) -> Result<Exit> {
    output::list(&all(context).await?, json, "there are no checkouts", table)
}

fn table(all: &[WorktreeView], look: &Look) -> String {
    let mut table = output::table(look.columns, look.colour, &HEADER);
    for view in all {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
        let copy = view.snapshot.as_ref().map_or_else(
            || "-".to_owned(),
            |copy| {
                let ago = age(look.now.since(copy.at));
                format!("{} ({} files, {ago} ago)", copy.id, copy.files)
            },
        );
        table.add_row(vec![
            Cell::new(safe(view.agent.as_str())).add_attribute(Attribute::Bold),
            Cell::new(if view.configured { "yes" } else { "no" }),
            Cell::new(view.head.as_ref().map_or("-", |head| head.short())),
            Cell::new(format!("{}/{}", number(view.ahead), number(view.behind))),
            Cell::new(copy),
            Cell::new(size(view.bytes)),
            Cell::new(&view.directory),
        ]);
    }
    output::lines(&table)
}

async fn clean_up(context: &Context, args: &CleanupArgs) -> Result<Exit> {
    let wanted: Vec<AgentId> = if args.names.is_empty() {
        let all = all(context).await?;
        let surplus = all.into_iter().filter(|view| !view.configured);
        surplus.map(|view| view.agent).collect()
    } else {
        args.names.iter().map(AgentId::new).collect()
    };
    if wanted.is_empty() {
        output::say(
            "every checkout belongs to an agent of the fleet: there is nothing to put away",
        );
    }
    let door = Door::open(context).await?;
    let (mut done, mut first) = (Vec::new(), None);
    for agent in &wanted {
        match door.clean_up(agent, args).await {
            Ok(one) => {
                output::say(told(&one, now()).trim_end());
                done.push(one);
            }
            // The others are looked at all the same; the first refusal is the command's.
            Err(error) if first.is_none() => first = Some(error),
            Err(error) => output::say(error.render().trim_end()),
        }
    }
    if args.json {
        output::json(&done)?;
    }
    match first {
        Some(error) => Err(error),
        None => Ok(Exit::Done),
    }
}

fn told(one: &CleanedUp, now: Timestamp) -> String {
    use std::fmt::Write as _;
    let agent = safe(one.agent.as_str());
    let mut text = match (&one.trash, one.until) {
        (Some(trash), Some(until)) => format!(
            "{agent}: its checkout is in the trash for {} (`orchestrator trash restore {trash}` puts it back)\n",
            age(until.since(now))
        ),
        _ if one.only_here.is_empty() => {
            format!("{agent}: its checkout would be put into the trash\n")
        }
        _ => format!("{agent}: its checkout would be left as it is, without `--force`\n"),
    };
    if let Some(rescue) = &one.rescue {
        let _ = writeln!(
            text,
            "  uncommitted work: {} files, `orchestrator rescue show {}`",
            rescue.files, rescue.id
        );
    }
    for line in &one.only_here {
        let _ = writeln!(text, "  only there: {}", safe(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::NOW;
    use crate::model::RescueNote;

    #[test]
    fn checkouts_are_a_table() {
        let copy = RescueNote {
            id: "3f2a9c01d4e5".into(),
            at: Timestamp(NOW.0 - 125_000),
            cause: "before a stop".into(),
            files: 3,
            reference: "refs/orchestrator/rescue/worker-2/1".into(),
            left_out: 0,
        };
        let one = |agent: AgentId, configured, snapshot| WorktreeView {
            directory: format!("/state/agents/{agent}/checkout"),
            branch: agent.to_string(),
            agent,
            configured,
            head: Some("0123456789abcdef0123456789abcdef01234567".into()),
            ahead: Some(2),
            behind: Some(0),
            snapshot,
            bytes: 3 << 20,
        };
        let all = [
            one(AgentId::manager(), true, None),
            one(AgentId::worker(2), false, Some(copy)),
        ];
        insta::assert_snapshot!(table(&all, &Look::plain(NOW)));
    }

    #[test]
    fn what_is_only_there_is_said() {
        let mut one = CleanedUp {
            agent: AgentId::worker(2),
            trash: Some("1767323045000-checkout".into()),
            until: Some(Timestamp(NOW.0 + 30 * 86_400_000)),
            rescue: None,
            only_here: vec!["file big.bin (larger than 5 bytes)".into()],
        };
        let text = told(&one, NOW);
        assert!(text.contains("in the trash for 30d 0h"), "{text}");
        assert!(text.contains("  only there: file big.bin"), "{text}");
        (one.trash, one.until) = (None, None);
        assert!(told(&one, NOW).contains("without `--force`"));
        one.only_here.clear();
        assert!(told(&one, NOW).contains("would be put into the trash"));
    }
}
