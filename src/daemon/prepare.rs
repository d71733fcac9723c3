//! What a fleet needs before it runs: engine, image, network, git, saved state.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::closing::leave_no_network;
use super::error::DaemonError;
use super::gates::{GateSetup, Gates};
use super::house::{House, PoolCell};
use super::paths::FleetPaths;
use super::saved::{self, Writer};
use super::start::RunOptions;
use crate::config::keys::CLAUDE_VERSION;
use crate::config::units::format_size;
use crate::config::{self, Config, ImageChoice, TaskProof};
use crate::credentials::{Logins, Pool};
use crate::model::{AgentId, SessionId};
use crate::ports::runtime::ImageBuild;
use crate::ports::{Entropy, ImageSpec};
use crate::store::sqlite::{Changes, FleetState};
use crate::supervisor::{Fleet, MergeBy, Policy, Proof, Supervisor};
use crate::telemetry::Redactor;
use crate::worktree::{GitStore, Identity};

/// Engine, image, network, panes and git, the slow ones side by side.
pub(super) async fn build_house(
    config: Config,
    pool: Pool,
    options: &RunOptions,
    paths: FleetPaths,
    owner: Option<(u32, u32)>,
) -> Result<(Arc<House>, crate::model::CommitId), DaemonError> {
    let say = options.progress.clone();
    let runtime = options.runtime.clone();
    let engine = runtime
        .probe()
        .await
        .map_err(DaemonError::prerequisite("reaching the container engine"))?;
    say(&format!("engine: {} {}", engine.name, engine.version));
    match runtime.remove_leftovers(&config.project).await {
        Ok(0) => {}
        Ok(count) => say(&format!(
            "removed {count} throwaway containers that were left behind"
        )),
        Err(error) => tracing::warn!(error = error.chain(), "leftovers were not removed"),
    }
    let image = image_spec(&config);
    let tag = image.tag.clone();
    let image_says = say.clone();
    let image_ready = async {
        let line = move |text: &str| image_says(text);
        runtime
            .ensure_image(&image, &line)
            .await
            .map_err(DaemonError::prerequisite("preparing the agent image"))
    };
    let clone_says = say.clone();
    let (url, branch, target) = (
        config.repository_url.clone(),
        config.branch.clone(),
        paths.store(),
    );
    let identity = Identity {
        name: config.git.name.clone(),
        email: config.git.email.clone(),
    };
    let git_ready = async {
        super::join(move || {
            let line = |text: &str| {
                if worth_telling(text) {
                    clone_says(text);
                }
            };
            GitStore::open_or_clone(&target, &url, &branch, identity, &line)
        })
        .await
        .map_err(DaemonError::prerequisite("reading the repository"))
    };
    let panes_ready = async {
        options
            .panes
            .list()
            .await
            .map_err(DaemonError::prerequisite("reaching tmux"))
    };
    let others_ready = async { tokio::try_join!(image_ready, git_ready, panes_ready) };
    // The engine takes its time for the network's rules: meanwhile the rest.
    let (others, network) = tokio::join!(
        others_ready,
        options.runtime.ensure_network(&config.project)
    );
    let (git, network) = match (others, network) {
        (Ok((_, git, _)), Ok(network)) => (git, network),
        (Err(error), network) => {
            if network.is_ok() {
                leave_no_network(&*options.runtime, &config.project).await;
            }
            return Err(error);
        }
        (_, Err(error)) => return Err(DaemonError::prerequisite("creating the network")(error)),
    };
    let head = git
        .branch_head()
        .map_err(DaemonError::prerequisite("reading the branch"))?;
    hide_all(&options.redactor, &pool);
    let mut problems = BTreeSet::new();
    for problem in &pool.problems {
        say(&format!("warning: {problem}"));
        problems.insert((problem.to_string(), problem.hint.clone()));
    }
    let git = Arc::new(git);
    let gates = open_gates(&config, options, &git, &network.name, owner).await?;
    let house = House {
        paths,
        runtime: options.runtime.clone(),
        panes: options.panes.clone(),
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        git,
        gates,
        pool: PoolCell::new(pool.credentials),
        pool_problems: tokio::sync::Mutex::new(problems),
        logins: Logins::new(&config.state_directory),
        redactor: options.redactor.clone(),
        image: tag,
        network: network.name,
        tmux_socket: options.tmux_socket.clone(),
        view_command: options.view_command.clone(),
        owner,
        lives: std::sync::atomic::AtomicU64::new(0),
        config,
    };
    Ok((Arc::new(house), head))
}

async fn open_gates(
    config: &Config,
    options: &RunOptions,
    git: &Arc<GitStore>,
    network: &str,
    owner: Option<(u32, u32)>,
) -> Result<Gates, DaemonError> {
    let setup = GateSetup {
        config: config.clone(),
        runtime: options.runtime.clone(),
        git: git.clone(),
        clock: options.clock.clone(),
        network: network.to_owned(),
        owner,
    };
    super::join(move || Gates::open(setup))
        .await
        .map_err(DaemonError::prerequisite("preparing the gates"))
}

/// No secret of the pool is shown from now on.
pub(super) fn hide_all(redactor: &Redactor, pool: &Pool) {
    for credential in &pool.credentials {
        for secret in credential.secrets() {
            hide(redactor, secret.expose());
        }
    }
}

/// The text, and where it is JSON (a login file) every long string in it: those are the tokens.
pub(super) fn hide(redactor: &Redactor, secret: &str) {
    const SHORTEST: usize = 16;
    fn strings(value: &serde_json::Value, redactor: &Redactor) {
        match value {
            serde_json::Value::String(text) if text.len() >= SHORTEST => redactor.add(text),
            serde_json::Value::Array(values) => {
                for value in values {
                    strings(value, redactor);
                }
            }
            serde_json::Value::Object(map) => {
                for value in map.values() {
                    strings(value, redactor);
                }
            }
            _ => {}
        }
    }
    redactor.add(secret);
    if let Ok(value) = serde_json::from_str(secret) {
        strings(&value, redactor);
    }
}

/// Of git's progress, what tells a person that something large is on its way.
fn worth_telling(line: &str) -> bool {
    let large = line.contains("Receiving objects") || line.contains("Resolving deltas");
    large && (!line.contains('%') || line.contains("0%"))
}

pub(super) fn image_spec(config: &Config) -> ImageSpec {
    let uid = config.container.uid;
    match &config.image {
        ImageChoice::Named(tag) => ImageSpec {
            tag: tag.clone(),
            build: ImageBuild::Named,
        },
        ImageChoice::Dockerfile(path) => ImageSpec {
            tag: format!("orchestrator-{}", config.project),
            build: ImageBuild::Dockerfile {
                path: path.clone(),
                claude_version: config.claude_version.clone(),
                uid,
            },
        },
        ImageChoice::Bundled => {
            crate::runtime::docker::image::bundled_image(&config.claude_version, uid)
        }
    }
}

/// From its rows, or new. A row that cannot be read stops the start: it is never replaced.
pub(super) async fn load_supervisor(
    house: &House,
    state: &FleetState,
    head: crate::model::CommitId,
    entropy: &dyn Entropy,
) -> Result<Supervisor, DaemonError> {
    let saved = state
        .load()
        .await
        .map_err(DaemonError::prerequisite("reading the saved state"))?;
    let policy = policy(&house.config);
    let wanted = policy.agents();
    let sessions = wanted.iter().map(|_| SessionId::new(entropy.uuid()));
    let mut fleet = Fleet::new(&wanted, sessions);
    let saved = saved::read(&saved)?;
    if let Some(row) = saved.fleet {
        fleet = Fleet {
            agents: fleet.agents,
            ..row
        };
        fleet.phase = crate::supervisor::FleetPhase::Running;
    }
    for row in saved.agents {
        if wanted.contains(&row.id) {
            fleet.agents.insert(row.id.clone(), row);
        }
    }
    let writer = Changes {
        at: house.clock.now(),
        meta: vec![Writer::row()],
        ..Changes::default()
    };
    state
        .commit(writer)
        .await
        .map_err(DaemonError::prerequisite("writing the state"))?;
    let mut supervisor = Supervisor::new(policy, fleet);
    supervisor.set_branch_head(head);
    Ok(supervisor)
}

/// Every agent of the fleet.
pub(super) fn agents(config: &Config) -> Vec<AgentId> {
    policy(config).agents()
}

pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        project: config.project.clone(),
        branch: config.branch.clone(),
        workers: config.worker_count,
        push: config.push,
        fetch_interval: config.fetch_interval,
        gates: config.gates.iter().map(|gate| gate.name.clone()).collect(),
        merge_by: match config.merge_by {
            config::MergeBy::Train => MergeBy::Train,
            config::MergeBy::Manager => MergeBy::Manager,
        },
        merge_batch: config.merge_batch,
        task_attempts: config.tasks.attempts,
        proof: match config.tasks.proof {
            TaskProof::Commit => Proof::Commit,
            TaskProof::None => Proof::None,
        },
        send_back: config.tasks.send_back,
        empty_rounds: config.planning.empty_rounds,
        planning_cool_down: config.planning.cool_down,
        restart_burst: config.restart.burst,
        restart_window: config.restart.window,
        restarts_per_day: config.restart.per_day,
        backoff: config.restart.backoff,
        maximum_backoff: config.restart.maximum_backoff,
        hung_after: config.restart.hung_after,
        stop_grace: config.stop_grace,
        rescue_interval: config.rescue.interval,
        memory: format_size(config.container.memory),
        switch_at_percent: f64::from(config.credentials.switch_at),
        switch_back_percent: f64::from(config.credentials.switch_at.saturating_sub(10)),
        tested_version: CLAUDE_VERSION.to_owned(),
        ..Policy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_in_a_login_file_are_hidden_each_by_itself() {
        let redactor = Redactor::new([]);
        let file = r#"{"claudeAiOauth": {"accessToken": "sk-ant-oat01-0123456789", "scopes": []}}"#;
        hide(&redactor, file);
        let said = redactor.redact("it is sk-ant-oat01-0123456789, they say");
        assert!(!said.contains("0123456789"), "{said}");
        hide(&redactor, "echo a-helper-with-a-key");
        assert!(
            !redactor
                .redact("ran echo a-helper-with-a-key")
                .contains("helper")
        );
    }
}
