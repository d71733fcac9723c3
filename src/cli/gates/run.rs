//! `gates run`: now, with everything they print.

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;

use super::render;
use crate::cli::context::Context;
use crate::cli::error::Result;
use crate::cli::{Error, Exit, output};
use crate::client::GateStream;
use crate::model::{GateEvent, GateRecord};
use crate::telemetry::Plain;

/// Run gates now, whatever is known of the tree, up to the first that does not pass
///
/// What they print goes to stdout, everything else to stderr. Ctrl-C ends the run. Exit code 1 when
/// one does not pass.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator gates run
  orchestrator gates run worker-2
  orchestrator gates run 3f2a91c --gate test
  orchestrator gates run --json | jq '.gates[] | select(.flaky)'")]
pub(super) struct RunArgs {
    /// A branch, an agent (what it has committed) or the beginning of a commit's id; the tip of the
    /// branch unless given
    commit: Option<String>,
    /// This one alone
    #[arg(long, value_name = "NAME")]
    gate: Option<String>,
    /// What came of it, as JSON, at the end and without what they print
    #[arg(long)]
    json: bool,
}

/// What came of a run.
struct Outcome {
    records: Vec<GateRecord>,
    not_run: Vec<String>,
}

pub(super) async fn run(context: &Context, args: &RunArgs) -> Result<Exit> {
    let client = context.running()?.client;
    let events = client
        .run_gates(args.commit.as_deref(), args.gate.as_deref())
        .await?;
    let outcome = follow(events, args.json).await?;
    if args.json {
        output::json(&json!({ "gates": outcome.records, "not_run": outcome.not_run }))?;
    }
    let passed = outcome.records.iter().all(GateRecord::passed);
    Ok(if passed { Exit::Done } else { Exit::Failure })
}

async fn follow(mut events: GateStream, quiet: bool) -> Result<Outcome> {
    let mut records = Vec::new();
    let mut plain = Plain::default();
    while let Some(event) = events.next().await {
        match event? {
            GateEvent::Waiting => output::say("another run is under way; waiting for its end"),
            GateEvent::Started(running) => output::say(&render::started(&running)),
            GateEvent::Output { text } if !quiet => output::data(&plain.feed(&text))?,
            GateEvent::Output { .. } => {}
            GateEvent::Finished { record } => {
                output::say(&render::finished(&record));
                records.push(record);
            }
            GateEvent::Ended { not_run } => {
                if !not_run.is_empty() {
                    output::say(&format!("not run: {}", not_run.join(", ")));
                }
                return Ok(Outcome { records, not_run });
            }
            GateEvent::Failed { message, hint } => {
                let error = Error::new(Exit::Failure, message);
                return Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
            }
        }
    }
    Err(Error::new(
        Exit::Failure,
        "the supervisor ended the run before it was done",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(events: Vec<GateEvent>) -> GateStream {
        futures_util::stream::iter(events.into_iter().map(Ok)).boxed()
    }

    #[tokio::test]
    async fn a_run_without_an_end_is_an_error_and_so_is_one_that_failed() {
        let ended = GateEvent::Ended {
            not_run: vec!["b".into()],
        };
        let outcome = follow(stream(vec![GateEvent::Waiting, ended]), true).await;
        assert_eq!(outcome.unwrap_or_else(|_| panic!()).not_run, ["b"]);
        assert!(
            follow(stream(vec![GateEvent::Waiting]), true)
                .await
                .is_err()
        );
        let failed = GateEvent::Failed {
            message: "away".into(),
            hint: Some("start it".into()),
        };
        let error = follow(stream(vec![failed]), true).await.err();
        assert!(error.is_some_and(|error| error.render().contains("hint: start it")));
    }
}
