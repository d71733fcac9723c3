//! `down`: end the supervisor, in one of three ways, and wait until it has ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;

use super::context::{Context, Running};
use super::error::Result;
use super::{Error, Exit, format, output};
use crate::client::{Done, Ending, StatusStream};
use crate::model::view::FleetView;

/// How often it is looked whether the process is gone, once it no longer answers.
const LOOK: Duration = Duration::from_millis(100);

/// Something is said at least so often while waiting.
const PROGRESS: Duration = Duration::from_secs(5);

/// Stop the fleet, or end only the supervisor; nothing is lost in any case
///
/// Without a flag every agent is asked to stop, and killed after the configured grace. Checkouts,
/// branches and conversations are kept, and the next `up` goes on with them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator down              stop the agents, then the supervisor
  orchestrator down --drain      let every agent finish its turn, start nothing new, then detach
  orchestrator down --detach     end only the supervisor; the agents work on, and the next `up`
                                 adopts them (for upgrades)")]
pub struct DownArgs {
    /// Let every agent finish its turn first
    #[arg(long, conflicts_with = "detach")]
    drain: bool,
    /// Leave the agents running
    #[arg(long)]
    detach: bool,
    /// How long to wait for the end [default: 5m, with --drain 1h]
    #[arg(long, value_name = "TIME", value_parser = format::parse_duration)]
    timeout: Option<Duration>,
}

impl DownArgs {
    fn ending(&self) -> Ending {
        match (self.drain, self.detach) {
            (true, _) => Ending::Drain,
            (_, true) => Ending::Detach,
            _ => Ending::Stop,
        }
    }

    fn limit(&self) -> Duration {
        self.timeout.unwrap_or(match self.ending() {
            Ending::Drain => Duration::from_secs(3600),
            Ending::Stop | Ending::Detach => Duration::from_secs(300),
        })
    }
}

pub(super) async fn run(context: &Context, args: &DownArgs) -> Result<Exit> {
    let running = context.running()?;
    let ending = args.ending();
    // Subscribed first, so that no step is missed.
    let views = running.client.watch().await?;
    if running.client.end(ending).await? == Done::AlreadySo {
        output::say("it is ending already");
    }
    let waiting = wait(views, &running);
    let Ok(()) = tokio::time::timeout(args.limit(), waiting).await else {
        return Err(Error::new(
            Exit::TimedOut,
            format!("it has not ended after {}", format::age(args.limit())),
        )
        .hint("it still tries; wait longer with `--timeout TIME`, or see `orchestrator logs supervisor`"));
    };
    output::say(match ending {
        Ending::Stop => "stopped; `orchestrator up` goes on where it was",
        Ending::Drain | Ending::Detach => {
            "the supervisor has ended; the agents are left as they are, and the next `up` adopts them"
        }
    });
    Ok(Exit::Done)
}

/// Until nobody answers and the process is gone.
async fn wait(mut views: StatusStream, running: &Running) {
    let mut said = String::new();
    let mut said_at = Instant::now();
    let mut tell = |view: Option<&FleetView>, last: &mut Option<String>| {
        let line = view.map(progress).or_else(|| last.clone());
        let Some(line) = line else { return };
        if line != said || said_at.elapsed() >= PROGRESS {
            output::say(&line);
            said.clone_from(&line);
            said_at = Instant::now();
        }
        *last = Some(line);
    };
    let mut last = None;
    loop {
        match tokio::time::timeout(PROGRESS, views.next()).await {
            Ok(Some(Ok(view))) => tell(Some(&view), &mut last),
            Ok(Some(Err(_)) | None) => break,
            Err(_) => tell(None, &mut last),
        }
    }
    while still_there(running).await {
        tokio::time::sleep(LOOK).await;
    }
}

async fn still_there(running: &Running) -> bool {
    match &running.entry {
        Some(entry) => entry.process_exists(),
        None => running.client.health().await.is_ok(),
    }
}

/// `stopping: 2 working, 1 stopped`.
fn progress(view: &FleetView) -> String {
    let mut states = BTreeMap::<&str, usize>::new();
    for agent in &view.agents {
        *states.entry(&agent.state).or_default() += 1;
    }
    let states: Vec<String> = states
        .iter()
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    format!("{}: {}", view.phase, states.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::fake::fleet;

    #[test]
    fn progress_counts_the_agents_by_state() {
        assert_eq!(
            progress(&fleet()),
            "running: 1 failed, 1 idle, 1 limited, 1 working"
        );
    }
}
