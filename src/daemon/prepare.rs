//! What a fleet needs before it runs: engine, image, network, git, saved state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::DaemonError;
use super::house::House;
use super::paths::FleetPaths;
use super::start::RunOptions;
use crate::config::{Config, ImageChoice};
use crate::credentials::Pool;
use crate::model::{AgentId, CredentialId, SessionId};
use crate::ports::runtime::ImageBuild;
use crate::ports::{Entropy, ImageSpec};
use crate::store::sqlite::FleetState;
use crate::supervisor::{AgentState, Fleet, Policy, Supervisor};
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
    let (_, git) = tokio::try_join!(image_ready, git_ready)?;
    options
        .panes
        .list()
        .await
        .map_err(DaemonError::prerequisite("reaching tmux"))?;
    let network = options
        .runtime
        .ensure_network(&config.project)
        .await
        .map_err(DaemonError::prerequisite("creating the network"))?;
    let head = git
        .branch_head()
        .map_err(DaemonError::prerequisite("reading the branch"))?;
    for credential in &pool.credentials {
        let material = credential.material();
        let others = material.api_key_helper.iter().chain(&material.oauth_file);
        for secret in material.settings_env.values().chain(others) {
            hide(&options.redactor, secret.expose());
        }
    }
    for problem in &pool.problems {
        say(&format!("warning: {problem}"));
    }
    let credentials: BTreeMap<_, _> = pool
        .credentials
        .into_iter()
        .map(|c| (c.id.clone(), c))
        .collect();
    let house = House {
        paths,
        runtime: options.runtime.clone(),
        panes: options.panes.clone(),
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        git: Arc::new(git),
        credentials,
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

fn image_spec(config: &Config) -> ImageSpec {
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
    if let Some(text) = saved.meta.get("fleet") {
        let row: Fleet = serde_json::from_str(text).map_err(|cause| DaemonError::State {
            what: "the fleet".into(),
            cause,
        })?;
        fleet = Fleet {
            agents: fleet.agents,
            ..row
        };
        fleet.phase = crate::supervisor::FleetPhase::Running;
    }
    for (id, text) in saved.agents {
        let row: AgentState = serde_json::from_str(&text).map_err(|cause| DaemonError::State {
            what: id.to_string(),
            cause,
        })?;
        if wanted.contains(&id) {
            fleet.agents.insert(id, row);
        }
    }
    let mut supervisor = Supervisor::new(policy, fleet);
    let pool: Vec<CredentialId> = house.credentials.keys().cloned().collect();
    supervisor.lend_credentials(&pool);
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
        task_attempts: config.tasks.attempts,
        empty_rounds: config.planning.empty_rounds,
        planning_cool_down: config.planning.cool_down,
        restart_burst: config.restart.burst,
        restart_window: config.restart.window,
        restarts_per_day: config.restart.per_day,
        backoff: config.restart.backoff,
        maximum_backoff: config.restart.maximum_backoff,
        stop_grace: config.stop_grace,
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
