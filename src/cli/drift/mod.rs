//! `drift`: what of all that is known about Claude Code still holds in another version.
//!
//! Real instances in containers, as a fleet starts them, against the scripted model; every
//! observation `orchestrator` is built on is tried. Nothing holds that was not seen.

mod catalog;
mod door;
mod instance;
mod notes;
mod report;
mod scenes;
mod script;
mod shape;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use clap::Args;
use futures_util::{StreamExt as _, stream};

use super::error::Result;
use super::{Error, Exit, output};
use crate::config::keys::{CLAUDE_VERSION, is_version};
use catalog::{Observation, Scene};
use notes::{Finding, Notes};
use report::{About, Report};
use stage::Stage;

/// Scenes at once: each runs one Claude Code, which keeps about one core busy while it starts.
const AT_ONCE: usize = 3;

/// Find out what another version of Claude Code would break
///
/// Starts real Claude Code of the given version in containers, against a scripted model that runs
/// inside this program, and tries everything that orchestrator knows and relies on: start-up without
/// questions, hooks and their fields, limits and failures, swaps of credentials, resuming, screens.
/// Needs no account. Run it before `claudeVersion` is changed. Exit code 1 when anything differs or
/// could not be tried.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  orchestrator drift --claude-version 2.1.330     may I use this one?
  orchestrator drift --image my-agent:dev         does it work in my own image?
  orchestrator drift --only limit --only swap     only what these names begin with
  orchestrator drift --list                       what is tried, and what needs it")]
pub struct DriftArgs {
    /// A version of the npm package; the one this program is tested with if left out
    #[arg(long, value_name = "VERSION", value_parser = version)]
    claude_version: Option<String>,
    /// Try this image instead of the bundled one
    #[arg(long, value_name = "TAG", conflicts_with = "claude_version")]
    image: Option<String>,
    /// Only observations whose name begins with this; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Say what would be tried, and try nothing
    #[arg(long, conflicts_with_all = ["claude_version", "image"])]
    list: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &DriftArgs) -> Result<Exit> {
    let chosen = chosen(&args.only)?;
    if args.list {
        return list(&chosen, args.json);
    }
    let version = args.claude_version.clone().or_else(|| {
        let bundled = args.image.is_none();
        bundled.then(|| CLAUDE_VERSION.to_owned())
    });
    let stage = Stage::set(version.as_deref(), args.image.as_deref()).await?;
    let started = Instant::now();
    let played = tokio::select! {
        findings = play(&stage, &chosen) => Some(findings),
        _ = tokio::signal::ctrl_c() => None,
    };
    let about = About {
        claude_version: version,
        tested_version: CLAUDE_VERSION.to_owned(),
        image: stage.image.clone(),
        seconds: started.elapsed().as_secs_f64(),
    };
    stage.strike().await?;
    let Some(findings) = played else {
        return Err(Error::new(
            Exit::Failure,
            "interrupted; nothing is left behind",
        ));
    };
    let observations: Vec<Observation> = chosen.into_iter().flat_map(|(_, all)| all).collect();
    let report = Report::make(about, &observations, &findings);
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&report.table())?;
    }
    if report.ok {
        return Ok(Exit::Done);
    }
    Err(Error::new(
        Exit::Failure,
        "this Claude Code is not what orchestrator knows",
    )
    .hint(
        "keep `claudeVersion` at the tested one; what differs is named above, with what needs it",
    ))
}

/// Several scenes at once; what each found.
async fn play(
    stage: &Stage,
    chosen: &[(Scene, Vec<Observation>)],
) -> BTreeMap<&'static str, Finding> {
    stream::iter(chosen)
        .map(|(scene, _)| async move {
            let mut notes = Notes::default();
            let halted = scene.play(stage, &mut notes).await.err();
            let ids = scene
                .observations()
                .iter()
                .map(|observation| observation.id);
            notes.close(ids, halted.as_ref())
        })
        .buffer_unordered(AT_ONCE)
        .fold(BTreeMap::new(), |mut all, found| async move {
            all.extend(found);
            all
        })
        .await
}

/// The scenes in which something is wanted, with what is.
fn chosen(only: &[String]) -> Result<Vec<(Scene, Vec<Observation>)>> {
    let wanted = |id: &str| only.is_empty() || only.iter().any(|start| id.starts_with(start));
    let known = |start: &&String| {
        let mut all = Scene::ALL.iter().flat_map(|scene| scene.observations());
        !all.any(|observation| observation.id.starts_with(start.as_str()))
    };
    if let Some(nothing) = only.iter().find(known) {
        return Err(Error::new(
            Exit::Usage,
            format!("no observation's name begins with `{nothing}`"),
        )
        .hint("`orchestrator drift --list` shows them all"));
    }
    let scenes = Scene::ALL.into_iter().map(|scene| {
        let all = scene.observations().iter().copied();
        (scene, all.filter(|o| wanted(o.id)).collect::<Vec<_>>())
    });
    Ok(scenes.filter(|(_, all)| !all.is_empty()).collect())
}

fn list(chosen: &[(Scene, Vec<Observation>)], json: bool) -> Result<Exit> {
    let all = chosen.iter().flat_map(|(_, all)| all);
    if json {
        let rows: Vec<serde_json::Value> = all
            .map(|o| serde_json::json!({"id": o.id, "says": o.says, "used_by": o.used_by}))
            .collect();
        output::json(&rows)?;
    } else {
        let mut text = String::new();
        for o in all {
            let (id, says, used_by) = (o.id, o.says, o.used_by);
            let _ = writeln!(text, "{id:<20} {says}\n{:<20}   needed for {used_by}", "");
        }
        output::data(&text)?;
    }
    Ok(Exit::Done)
}

fn version(text: &str) -> std::result::Result<String, String> {
    if is_version(text) {
        Ok(text.to_owned())
    } else {
        Err("give a version such as 2.1.197".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_tried_and_a_wrong_name_is_refused() {
        let few = chosen(&["swap.".into(), "resume.rests".into()]).unwrap();
        let ids: Vec<&str> = few.iter().flat_map(|(_, all)| all).map(|o| o.id).collect();
        assert_eq!(
            ids,
            ["swap.key", "swap.login", "swap.mid-turn", "resume.rests"]
        );
        let error = chosen(&["swap".into(), "nothing".into()]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.render().contains("`nothing`"), "{}", error.render());
        assert_eq!(chosen(&[]).unwrap().len(), Scene::ALL.len());
    }
}
