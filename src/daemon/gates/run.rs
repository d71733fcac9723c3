//! One run: gate after gate, up to the first that does not pass.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Attempt};
use super::log::LogWriter;
use super::{GateOrder, House, Known, Listener, image, places, results};
use crate::config::Gate;
use crate::daemon::{blocking, join};
use crate::model::gate::{GateEvent, GateOutcome, GateRecord, RunningGate};
use crate::ports::{ErrorKind, PortError, PortResult};

/// One run, as its parts see it.
pub(super) struct Run<'a> {
    pub(super) house: &'a House,
    pub(super) order: &'a GateOrder,
    pub(super) stop: &'a CancellationToken,
    pub(super) listener: &'a Listener,
    /// Of the commit.
    pub(super) tree: String,
    pub(super) of: u32,
}

pub(super) async fn run(
    house: &House,
    order: &GateOrder,
    stop: &CancellationToken,
    listener: &Listener,
) -> PortResult<Vec<GateRecord>> {
    let gates = wanted(house, order)?;
    let _turn = if let Ok(turn) = house.turn.try_lock() {
        turn
    } else {
        listener(GateEvent::Waiting);
        tokio::select! {
            turn = house.turn.lock() => turn,
            () = stop.cancelled() => return Err(stopped()),
        }
    };
    // What could not be removed when its run ended.
    let root = house.root.clone();
    if let Err(error) = join(move || Ok(places::sweep(&root))).await? {
        tracing::warn!(%error, "directories of earlier gates stay behind");
    }
    let commit = order.commit.clone();
    let tree = blocking(&house.setup.git, move |git| git.tree_id(&commit)).await?;
    let run = Run {
        house,
        order,
        stop,
        listener,
        tree,
        of: gates.len() as u32,
    };
    let records = run.all(&gates).await;
    house.progress.send_replace(None);
    let records = records?;
    let names = gates.iter().skip(records.len());
    listener(GateEvent::Ended {
        not_run: names.map(|gate| gate.name.clone()).collect(),
    });
    Ok(records)
}

fn wanted<'a>(house: &'a House, order: &GateOrder) -> PortResult<Vec<&'a Gate>> {
    let gates = &house.setup.config.gates;
    let Some(name) = &order.only else {
        return Ok(gates.iter().collect());
    };
    let found: Vec<&Gate> = gates.iter().filter(|gate| gate.name == *name).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
    let error = PortError::new(ErrorKind::NotFound, format!("there is no gate `{name}`"));
    Err(if names.is_empty() {
        error.hint("`gates` in orchestrator.json names them; there are none")
    } else {
        error.hint(format!("there are: {}", names.join(", ")))
    })
}

pub(super) fn stopped() -> PortError {
    PortError::new(ErrorKind::Transient, "running the gates was stopped")
}

impl Run<'_> {
    async fn all(&self, gates: &[&Gate]) -> PortResult<Vec<GateRecord>> {
        let mut records = Vec::new();
        for (number, gate) in (1..).zip(gates) {
            let record = self.one(gate, number).await?;
            self.house.counts.count(&record, self.now());
            let passed = record.passed();
            tracing::info!(
                gate = gate.name,
                commit = record.commit.short(),
                outcome = ?record.outcome,
                flaky = record.flaky,
                cached = record.cached,
                milliseconds = record.milliseconds,
                log = record.log,
                "gate"
            );
            (self.listener)(GateEvent::Finished {
                record: record.clone(),
            });
            records.push(record);
            if !passed {
                break;
            }
        }
        Ok(records)
    }

    fn now(&self) -> crate::model::Timestamp {
        self.house.setup.clock.now()
    }

    async fn one(&self, gate: &Gate, number: u32) -> PortResult<GateRecord> {
        let image = tokio::select! {
            image = image::id(self.house, gate) => image,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        let key = image
            .as_ref()
            .ok()
            .map(|image| results::key(&self.tree, gate, image, &self.house.setup.config.container));
        if self.order.known == Known::Use
            && let Some(known) = key.as_deref().and_then(|key| self.house.results.get(key))
        {
            return Ok(GateRecord {
                cached: true,
                ..known
            });
        }
        let (id, log) = match self.house.logs.begin(self.now(), &gate.name) {
            Ok(begun) => begun,
            // Nothing was printed that could be lost: most likely there is no room.
            Err(error) => {
                let text = format!("its log cannot be written: {error}");
                return Ok(self.record(gate, String::new(), Attempt::broken(text)));
            }
        };
        let running = RunningGate {
            gate: gate.name.clone(),
            commit: self.order.commit.clone(),
            since: self.now(),
            number,
            of: self.of,
            again: false,
            log: id.clone(),
        };
        let begun = Instant::now();
        let (attempt, flaky) = match image {
            Ok(image) => self.tries(gate, &image, running, &log).await?,
            Err(error) => (Attempt::unable(&error), false),
        };
        log.finish(&attempt.said(begun.elapsed()));
        let record = GateRecord {
            flaky,
            ..self.record(gate, id, attempt)
        };
        self.keep(&record, key.as_deref());
        Ok(record)
    }

    /// The try that decides, and whether one before it failed.
    async fn tries(
        &self,
        gate: &Gate,
        image: &str,
        mut running: RunningGate,
        log: &LogWriter,
    ) -> PortResult<(Attempt, bool)> {
        let first = attempt::attempt(self, gate, image, &running, log).await?;
        if first.outcome != GateOutcome::Failed {
            return Ok((first, false));
        }
        running.again = true;
        running.since = self.now();
        log.note(&format!(
            "{}; tried once more on a fresh checkout of the same tree",
            first.ending
        ));
        let second = attempt::attempt(self, gate, image, &running, log).await?;
        let flaky = second.outcome == GateOutcome::Passed;
        Ok((second, flaky))
    }

    fn record(&self, gate: &Gate, log: String, attempt: Attempt) -> GateRecord {
        GateRecord {
            name: gate.name.clone(),
            outcome: attempt.outcome,
            flaky: false,
            cached: false,
            commit: self.order.commit.clone(),
            tree: self.tree.clone(),
            milliseconds: attempt.milliseconds,
            log,
            tail: attempt.tail,
        }
    }

    /// Losing any of this costs a run at most.
    fn keep(&self, record: &GateRecord, key: Option<&str>) {
        let about_the_tree = matches!(record.outcome, GateOutcome::Passed | GateOutcome::Failed);
        if about_the_tree
            && let Some(key) = key
            && let Err(error) = self.house.results.put(key, record)
        {
            tracing::warn!(gate = record.name, %error, "its outcome is not remembered");
        }
        if let Err(error) = self.house.logs.keep(self.now(), record) {
            tracing::warn!(gate = record.name, %error, "its log is not listed");
        }
    }
}
