//! `status`: the fleet as a table, as JSON, once or all the time.

mod summary;
mod table;

use clap::Args;

use super::Exit;
use super::context::Context;
use super::error::Result;
use super::output;
use super::watch::{self, Look, Shown};
use crate::model::view::FleetView;

/// Show what every agent does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator status
  orchestrator status --watch                     redrawn with every change; Ctrl-C ends it
  orchestrator status --json | jq '.agents[] | select(.state == \"failed\")'")]
pub struct StatusArgs {
    /// The whole snapshot as JSON; with --watch one line for each change
    #[arg(long)]
    json: bool,
    /// Go on, and show each change
    #[arg(long)]
    watch: bool,
}

const SHOWN: Shown = Shown {
    frame: render,
    line: |view| serde_json::to_string(view),
};

pub(super) async fn run(context: &Context, args: &StatusArgs) -> Result<Exit> {
    let client = context.running()?.client;
    if args.watch {
        return watch::run(&client, args.json, SHOWN).await;
    }
    let view = client.status().await?;
    if args.json {
        output::json(&view)?;
    } else {
        output::data(&render(&view, Look::of_stdout()))?;
    }
    Ok(Exit::Done)
}

/// The table and what belongs below it.
fn render(view: &FleetView, look: Look) -> String {
    let mut text = summary::head(view);
    text.push('\n');
    text.push_str(&table::agents(view, look));
    text.push('\n');
    text.push_str(&summary::foot(view, look.now));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::{NOW, fleet};
    use crate::cli::output::Colour;

    fn look(columns: Option<u16>) -> Look {
        Look {
            now: NOW,
            columns,
            colour: Colour::No,
        }
    }

    #[test]
    fn the_whole_fleet_in_a_pipe() {
        insta::assert_snapshot!(render(&fleet(), look(None)));
    }

    #[test]
    fn the_whole_fleet_in_a_terminal() {
        let text = render(&fleet(), look(Some(140)));
        for line in text.lines().take(20) {
            assert!(line.chars().count() <= 140, "too wide: {line}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_quiet_fleet_shows_no_empty_sections() {
        let mut view = fleet();
        view.notices.clear();
        view.disk = None;
        view.unknown_hooks.clear();
        view.pushed = true;
        view.push_problem = None;
        view.planning.resting = true;
        view.train.stalls.clear();
        let text = summary::foot(&view, NOW);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_agents_write_cannot_drive_the_terminal() {
        let mut view = fleet();
        view.agents[1].reason = "\u{1b}]0;title\u{7}".into();
        view.notices[0].text = "\u{1b}[2J".into();
        if let Some(task) = &mut view.agents[1].task {
            task.title = "\u{1b}[31m".into();
        }
        assert!(!render(&view, look(None)).contains('\u{1b}'));
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let coloured = Look {
            colour: Colour::Yes,
            ..look(Some(140))
        };
        assert!(render(&fleet(), coloured).contains("\u{1b}["));
        assert!(!render(&fleet(), look(Some(140))).contains("\u{1b}["));
    }
}
