//! One try of one gate: a fresh checkout, a fresh container, and what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::log::LogWriter;
use super::places::Place;
use super::run::{Run, stopped};
use super::tail;
use crate::config::Gate;
use crate::config::units::format_duration;
use crate::daemon::{blocking, join};
use crate::model::gate::{GateEvent, GateOutcome, RunningGate};
use crate::model::{AgentId, Incarnation};
use crate::ports::{ContainerSpec, Job, JobEnd, Mount, NO_NETWORK, PortError, PortResult};

/// Where a gate finds the tree, its home and its cache.
const TREE: &str = "/workspace";
const HOME: &str = "/home/gate";
const CACHE: &str = "/cache";

/// With less room than this on the disk of the state directory, a failure says nothing of the tree.
const NO_ROOM: u64 = 64 << 20;

/// What came of a try.
pub(super) struct Attempt {
    pub(super) outcome: GateOutcome,
    /// In a few words.
    pub(super) ending: String,
    pub(super) milliseconds: u64,
    pub(super) tail: String,
}

impl Attempt {
    /// It could not be run.
    pub(super) fn broken(why: String) -> Self {
        Self {
            outcome: GateOutcome::Broken,
            tail: why.clone(),
            ending: format!("it could not be run: {why}"),
            milliseconds: 0,
        }
    }

    pub(super) fn unable(error: &PortError) -> Self {
        let mut why = error.chain();
        if let Some(hint) = &error.hint {
            why.push_str("; hint: ");
            why.push_str(hint);
        }
        Self::broken(why)
    }

    /// The last line of the log.
    pub(super) fn said(&self, took: Duration) -> String {
        format!(
            "{} after {}",
            self.ending,
            format_duration(Duration::from_secs(took.as_secs()))
        )
    }
}

/// # Errors
/// When the run is stopped; everything else is an outcome.
pub(super) async fn attempt(
    run: &Run<'_>,
    gate: &Gate,
    image: &str,
    running: &RunningGate,
    log: &LogWriter,
) -> PortResult<Attempt> {
    run.house.progress.send_replace(Some(running.clone()));
    (run.listener)(GateEvent::Started(running.clone()));
    let place = Place::new(&run.house.root, &running.log, running.again);
    let prepared = prepare(run, gate, &place).await;
    let attempt = match prepared {
        Ok(()) => in_container(run, gate, image, &place, log).await,
        Err(error) => Ok(Attempt::unable(&error)),
    };
    if let Err(error) = join(move || Ok(place.remove())).await? {
        tracing::warn!(gate = gate.name, %error, "the directory of a gate stays behind for now");
    }
    attempt
}

async fn prepare(run: &Run<'_>, gate: &Gate, place: &Place) -> PortResult<()> {
    let (owner, commit) = (run.house.setup.owner, run.order.commit.clone());
    let cache = gate.cache.then(|| run.house.cache(gate));
    let here = place.clone();
    blocking(&run.house.setup.git, move |git| {
        here.make(owner, cache.as_deref())?;
        git.checkout_once(&here.tree(), &commit, owner)
    })
    .await
}

async fn in_container(
    run: &Run<'_>,
    gate: &Gate,
    image: &str,
    place: &Place,
    log: &LogWriter,
) -> PortResult<Attempt> {
    let job = Job {
        spec: spec(run, gate, image, place),
        deadline: gate.timeout,
        stop: run.stop.clone(),
    };
    log.begin_try();
    let output = |bytes: &[u8]| {
        log.write(bytes);
        (run.listener)(GateEvent::Output {
            text: String::from_utf8_lossy(bytes).into_owned(),
        });
    };
    let begun = Instant::now();
    let end = run.house.setup.runtime.run_job(&job, &output).await;
    let (outcome, ending) = match end {
        Err(error) => return Ok(Attempt::unable(&error)),
        Ok(JobEnd::Stopped) => return Err(stopped()),
        Ok(JobEnd::TimedOut) => {
            let limit = format_duration(gate.timeout);
            (
                GateOutcome::TimedOut,
                format!("it was killed: it took longer than {limit}"),
            )
        }
        Ok(JobEnd::Exited { exit_code: 0, .. }) => (GateOutcome::Passed, "it passed".to_owned()),
        Ok(JobEnd::Exited {
            exit_code,
            out_of_memory,
        }) => {
            if let Some(why) = no_room(run) {
                return Ok(Attempt::broken(why));
            }
            (GateOutcome::Failed, failure(run, exit_code, out_of_memory))
        }
    };
    let mut tail = tail::of(&log.recent(), outcome == GateOutcome::Passed);
    if outcome != GateOutcome::Passed {
        if !tail.is_empty() {
            tail.push('\n');
        }
        let _ = write!(tail, "[{ending}]");
    }
    Ok(Attempt {
        outcome,
        ending,
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        tail,
    })
}

fn failure(run: &Run<'_>, exit_code: i64, out_of_memory: bool) -> String {
    let mut text = format!("it failed with status {exit_code}");
    if out_of_memory {
        let limit = crate::config::units::format_size(run.house.setup.config.container.memory);
        let _ = write!(
            text,
            "; it ran out of memory, of which it has {limit} (container.memory)"
        );
    }
    text
}

/// Whatever failed may have failed for that.
fn no_room(run: &Run<'_>) -> Option<String> {
    let disk = rustix::fs::statvfs(&run.house.root).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    (free < NO_ROOM).then(|| {
        format!(
            "it failed while the disk of the state directory was full ({} MiB free)",
            free >> 20
        )
    })
}

fn spec(run: &Run<'_>, gate: &Gate, image: &str, place: &Place) -> ContainerSpec {
    let setup = &run.house.setup;
    let config = &setup.config;
    let mount = |host, container: &str, read_only| Mount {
        host,
        container: container.to_owned(),
        read_only,
    };
    let objects_inside = setup.git.objects_inside().display().to_string();
    let mut mounts = vec![
        mount(place.tree(), TREE, false),
        mount(place.home(), HOME, false),
        mount(setup.git.objects_directory(), &objects_inside, true),
    ];
    if gate.cache {
        mounts.push(mount(run.house.cache(gate), CACHE, false));
    }
    ContainerSpec {
        project: config.project.clone(),
        agent: AgentId::new(format!("gate-{}", gate.name)),
        incarnation: Incarnation(0),
        image: image.to_owned(),
        command: gate.command.words(),
        environment: environment(run, gate),
        mounts,
        working_directory: TREE.to_owned(),
        uid: config.container.uid,
        gid: config.container.uid,
        network: if gate.network {
            setup.network.clone()
        } else {
            NO_NETWORK.to_owned()
        },
        memory_bytes: i64::try_from(config.container.memory).ok(),
        milli_cpus: Some(config.container.milli_cpus()),
        pids: i64::from(config.container.pids),
        tmp_bytes: i64::try_from(config.container.tmp_size).unwrap_or(i64::MAX),
        state_directory: config.state_directory.clone(),
        settings_hash: String::new(),
    }
}

/// The user's own win. What `environment` gives to agents is not for gates.
fn environment(run: &Run<'_>, gate: &Gate) -> BTreeMap<String, String> {
    let ours = [
        ("CI", "true"),
        ("HOME", HOME),
        ("ORCHESTRATOR_GATE", &gate.name),
        ("ORCHESTRATOR_COMMIT", run.order.commit.as_str()),
        ("ORCHESTRATOR_BRANCH", &run.house.setup.config.branch),
    ];
    let mut all: BTreeMap<String, String> = ours
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    all.extend(gate.environment.clone());
    all
}
