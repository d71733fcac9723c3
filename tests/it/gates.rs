//! Gates over the API: listed, run with their output, shown while they run, ended with the reader.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use orchestrator::client::GateStream;
use orchestrator::config::{Gate, GateCommand, GatePlace};
use orchestrator::daemon::{logged_runs, read_log};
use orchestrator::model::{Ending, GateEvent, GateOutcome};
use orchestrator::ports::ErrorKind;

use super::harness::{LONG, Place};

fn gate(name: &str, command: &str) -> Gate {
    Gate {
        name: name.into(),
        command: GateCommand::Shell(command.into()),
        timeout: Duration::from_secs(600),
        place: GatePlace::Agent,
        network: false,
        cache: false,
        environment: BTreeMap::new(),
    }
}

async fn next(events: &mut GateStream) -> Result<GateEvent> {
    let next = tokio::time::timeout(LONG, events.next()).await?;
    Ok(next.context("an event")??)
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_run_for_whoever_asks_and_end_with_the_reader() -> Result<()> {
    let mut place = Place::new(&[("README.md", "# it\n")])?;
    place.config.gates = vec![
        gate("lint", "echo linted; cat README.md"),
        gate("test", "touch begun; sleep 600"),
    ];
    let running = place.start().await?;
    let client = &running.client;
    let mut events = client.run_gates(None, None).await?;
    let mut printed = String::new();
    loop {
        match next(&mut events).await? {
            GateEvent::Output { text } => printed.push_str(&text),
            GateEvent::Finished { record } => {
                ensure!(record.outcome == GateOutcome::Passed, "{record:?}");
                ensure!(record.name == "lint" && !record.cached, "{record:?}");
            }
            GateEvent::Started(now) if now.gate == "test" => break,
            other => ensure!(matches!(other, GateEvent::Started(_)), "{other:?}"),
        }
    }
    ensure!(printed == "linted\n# it\n", "{printed}");
    let view = running
        .until_view("a gate is shown", |view| {
            view.gate.as_ref().is_some_and(|gate| gate.gate == "test")
        })
        .await?;
    let shown = view.gate.context("a gate")?;
    ensure!((shown.number, shown.of) == (2, 2), "{shown:?}");
    ensure!(
        Some(&shown.commit) == view.branch_head.as_ref(),
        "{shown:?}"
    );
    drop(events);
    running
        .until_view("the run has ended", |view| view.gate.is_none())
        .await?;
    let mut events = client.run_gates(Some("main"), Some("lint")).await?;
    while !matches!(next(&mut events).await?, GateEvent::Ended { .. }) {}
    for (commit, gate) in [(None, Some("tset")), (Some("trunk"), None)] {
        let error = client.run_gates(commit, gate).await.err();
        let error = error.context("it is refused")?;
        ensure!(error.kind == ErrorKind::NotFound, "{error:?}");
        ensure!(error.hint.is_some(), "{error:?}");
    }
    let gates = client.gates().await?;
    ensure!(gates.len() == 2 && gates[0].counts.passed == 2, "{gates:?}");
    ensure!(
        gates[1].last.is_none(),
        "what was ended says nothing: {gates:?}"
    );
    let directory = place.paths().gates();
    let runs = logged_runs(&directory)?;
    ensure!(runs.len() == 2, "{runs:?}");
    let log = read_log(&directory, &runs[0].record.log)?.context("its log")?;
    ensure!(log.starts_with(b"linted\n"), "{log:?}");
    // The end of the supervisor does not wait for a gate.
    let mut events = client.run_gates(None, Some("test")).await?;
    while !matches!(next(&mut events).await?, GateEvent::Started(_)) {}
    running.end(Ending::Detach).await?;
    ensure!(directory.join("runs").read_dir()?.next().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gates_there_is_nothing_to_run() -> Result<()> {
    let place = Place::new(&[("README.md", "# it\n")])?;
    let running = place.start().await?;
    ensure!(running.client.gates().await?.is_empty());
    let error = running.client.run_gates(None, None).await.err();
    let error = error.context("it is refused")?;
    ensure!(error.code.as_deref() == Some("NO_GATES"), "{error:?}");
    running.end(Ending::Stop).await
}
