//! Checkout, directories, hook door, container: one life of an agent begins.

use std::sync::atomic::Ordering;

use super::Shared;
use crate::claude::launch::{self as claude_launch, Conversation};
use crate::daemon::house::House;
use crate::model::{AgentId, CredentialId, Incarnation, RescueCause, SessionId};
use crate::ports::{ContainerSpec, ErrorKind, Mount, PortError, PortResult};
use crate::runtime::labels;
use crate::supervisor::{Again, Event};
use crate::worktree::{CheckoutSpec, GitStore, Identity};

/// Before it there was none, so nobody has to be asked.
const FIRST_LIFE: Incarnation = Incarnation(1);

/// Which conversation a life begins with, and whether it goes on with a lost turn.
pub(super) struct TakingUp {
    pub(super) session: SessionId,
    pub(super) resume: bool,
    pub(super) go_on: bool,
}

impl Shared {
    pub(super) async fn launch(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        taking_up: TakingUp,
        credential: Option<CredentialId>,
    ) {
        let turn = self.turns.of(&agent);
        let stopped = turn.lock().await;
        let launched = if stopped.is_some_and(|life| life >= incarnation) {
            Ok(Launched::never())
        } else {
            self.try_launch(&agent, incarnation, &taking_up, credential)
                .await
        };
        let event = match launched {
            Ok(Launched {
                container,
                running: true,
                ..
            }) => Event::Launched {
                agent,
                incarnation,
                container,
            },
            // It was there already and has ended: the reply to an earlier start was lost.
            Ok(Launched {
                exit_code,
                out_of_memory,
                ..
            }) => Event::Exited {
                agent,
                incarnation,
                exit_code,
                out_of_memory,
            },
            Err(error) => {
                tracing::warn!(%agent, error = error.chain(), "launch failed");
                Event::LaunchFailed {
                    agent,
                    incarnation,
                    reason: error.chain(),
                    again: self.again_after(&error).await,
                    hint: error.hint,
                }
            }
        };
        self.house.lives.fetch_add(1, Ordering::SeqCst);
        self.driver.tell(event).await;
    }

    async fn again_after(&self, error: &PortError) -> Again {
        match error.kind {
            ErrorKind::Refused => Again::Never,
            ErrorKind::Transient if self.house.runtime.probe().await.is_err() => {
                Again::WithTheEngine
            }
            _ => Again::Counted,
        }
    }

    async fn try_launch(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
        taking_up: &TakingUp,
        credential: Option<CredentialId>,
    ) -> PortResult<Launched> {
        let session = &taking_up.session;
        self.ensure_checkout(agent).await?;
        let house = self.house.clone();
        let lent = credential.clone();
        let id = agent.clone();
        super::super::join(move || super::instance::prepare(&house, &id, lent.as_ref())).await?;
        self.doors.open(agent).await.map_err(|error| {
            PortError::new(
                ErrorKind::Transient,
                format!("open its hook socket: {error}"),
            )
        })?;
        let earlier = self.stop_earlier_lives(agent, incarnation).await?;
        let there = super::instance::has_transcript(&self.house, agent, session);
        if there != taking_up.resume {
            tracing::info!(%agent, %session, there, "the conversation is taken up by its transcript");
        }
        let session = session.clone();
        let conversation = match (there, taking_up.go_on) {
            (false, _) => Conversation::New(session),
            (true, false) => Conversation::Resume(session),
            (true, true) => Conversation::GoOn(session),
        };
        let spec = container_spec(&self.house, agent, incarnation, conversation);
        let seen = self.house.runtime.start(&spec).await?;
        self.note_in_compose_file(agent, spec).await;
        self.remove_containers(&earlier).await;
        Ok(Launched {
            running: seen.running,
            exit_code: seen.exit_code,
            out_of_memory: seen.starved(),
            container: seen.name,
        })
    }

    /// Not before the start, which would wait for the disk.
    async fn note_in_compose_file(&self, agent: &AgentId, spec: ContainerSpec) {
        let (house, file) = (self.house.clone(), self.compose.clone());
        let written = tokio::task::spawn_blocking(move || file.put(&house, &spec)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!(%agent, %error, "the Compose file was not written");
        }
    }

    async fn ensure_checkout(&self, agent: &AgentId) -> PortResult<()> {
        let paths = self.house.paths.agent(agent);
        let spec = CheckoutSpec {
            agent: agent.clone(),
            directory: paths.checkout(),
            branch: agent.to_string(),
            base: super::super::blocking(&self.house.git, GitStore::branch_head).await?,
            owner: self.house.owner,
            identity: Identity {
                name: self.house.config.git.name.clone(),
                email: self.house.config.git.email.clone(),
            },
        };
        super::super::blocking(&self.house.git, move |git| git.ensure_checkout(&spec)).await?;
        Ok(())
    }

    /// The containers of earlier lives. One that still runs, whatever we believed, is stopped first:
    /// two would work in one checkout.
    async fn stop_earlier_lives(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
    ) -> PortResult<Vec<String>> {
        if incarnation <= FIRST_LIFE {
            return Ok(Vec::new());
        }
        let all = self.house.runtime.list(&self.house.config.project).await?;
        let mut earlier = Vec::new();
        for old in all {
            if old.agent == *agent && old.incarnation < incarnation {
                if old.running {
                    tracing::warn!(name = old.name, "an earlier life still ran; it is stopped");
                    let grace = self.house.config.stop_grace;
                    self.rescue(agent, old.incarnation, RescueCause::Stop).await;
                    self.house.runtime.stop(&old.name, grace).await?;
                }
                earlier.push(old.name);
            }
        }
        Ok(earlier)
    }

    /// Their logs were kept line by line in the agent's own. Only when the next life runs: an agent
    /// that was killed in its turn should not wait for the engine to tidy up. What is left is removed
    /// with the next launch.
    async fn remove_containers(&self, names: &[String]) {
        for name in names {
            if let Err(error) = self.house.runtime.remove(name).await {
                tracing::warn!(name, error = error.chain(), "a container was not removed");
            }
        }
    }
}

struct Launched {
    container: String,
    running: bool,
    exit_code: Option<i64>,
    out_of_memory: bool,
}

impl Launched {
    /// It was stopped before it began.
    fn never() -> Self {
        Self {
            container: String::new(),
            running: false,
            exit_code: None,
            out_of_memory: false,
        }
    }
}

/// The container of one life.
pub(in crate::daemon) fn container_spec(
    house: &House,
    agent: &AgentId,
    incarnation: Incarnation,
    conversation: Conversation,
) -> ContainerSpec {
    ContainerSpec {
        settings_hash: settings_hash(house, agent),
        ..one_life(house, agent, incarnation, conversation)
    }
}

/// Over what is the same in each life of the agent as long as the settings and this program are.
pub(in crate::daemon) fn settings_hash(house: &House, agent: &AgentId) -> String {
    let nobody = Conversation::New(SessionId::new(""));
    labels::spec_hash(&one_life(house, agent, Incarnation(0), nobody))
}

fn one_life(
    house: &House,
    agent: &AgentId,
    incarnation: Incarnation,
    conversation: Conversation,
) -> ContainerSpec {
    let paths = house.paths.agent(agent);
    let launch = claude_launch::Launch {
        agent: agent.clone(),
        incarnation,
        role: House::role(agent),
        total_workers: house.config.worker_count,
        branch: agent.to_string(),
        model: house.config.model.clone(),
        conversation,
        environment: house.config.environment.clone(),
    };
    let mount = |host, container: &str, read_only| Mount {
        host,
        container: container.to_owned(),
        read_only,
    };
    let objects = house.git.objects_directory();
    let objects_inside = house.git.objects_inside().display().to_string();
    ContainerSpec {
        project: house.config.project.clone(),
        agent: agent.clone(),
        incarnation,
        image: house.image.clone(),
        command: launch.command(),
        environment: launch.environment(),
        mounts: vec![
            mount(paths.checkout(), claude_launch::WORKSPACE, false),
            mount(paths.home(), "/home/agent", false),
            mount(
                paths.managed(),
                crate::claude::settings::MANAGED_DIRECTORY,
                true,
            ),
            mount(
                paths.credentials(),
                super::instance::CREDENTIALS_INSIDE,
                true,
            ),
            mount(paths.socket(), claude_launch::SOCKET_DIRECTORY, true),
            mount(paths.spool(), claude_launch::SPOOL_DIRECTORY, false),
            mount(house.paths.tools(), "/opt/orchestrator", true),
            mount(objects, &objects_inside, true),
        ],
        working_directory: claude_launch::WORKSPACE.to_owned(),
        uid: house.uid(),
        gid: house.uid(),
        network: house.network.clone(),
        memory_bytes: i64::try_from(house.config.container.memory).ok(),
        milli_cpus: Some((house.config.container.cpus * 1000.0) as i64),
        pids: i64::from(house.config.container.pids),
        tmp_bytes: i64::try_from(house.config.container.tmp_size).unwrap_or(i64::MAX),
        state_directory: house.paths.root().to_owned(),
        settings_hash: String::new(),
    }
}
