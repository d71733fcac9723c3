//! Commits: out of a sandbox into the store, to the remote and back.

use std::time::Duration;

use super::Shared;
use crate::claude::launch::{Conversation, WORKSPACE};
use crate::daemon::handle::Input;
use crate::model::{AgentId, CommitId, Incarnation, RescueCause, SessionId};
use crate::ports::runtime::container_name;
use crate::ports::{ErrorKind, ExecOutput, ExecSpec, PortError, PortResult};
use crate::supervisor::{Event, ImportOutcome, PushOutcome, RemoteOutcome, WorkAsked, WorkFound};
use crate::worktree::{self, BundleSource, GitStore, sandbox};

/// A bundle larger than this is refused: the new commits of one task.
const BUNDLE_LIMIT: usize = 256 * 1024 * 1024;

/// Between tries of an import that failed for now, and how many there are. What the agent is to do
/// next waits behind it, so the pauses are short.
const AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 15;

impl Shared {
    pub(super) async fn import(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        head: Option<CommitId>,
        claims: Vec<WorkAsked>,
    ) {
        let mut tries = 0;
        let outcome = loop {
            let taken = self.try_import(&agent, incarnation, head.clone(), claims.clone());
            match taken.await {
                Ok(outcome) => break outcome,
                // What its agent does next waits behind it.
                Err(error) if error.kind == ErrorKind::Transient && tries < TRIES => {
                    tracing::warn!(%agent, error = error.chain(), "import; trying again");
                    if self.doors.wait_or_end(AGAIN).await {
                        return;
                    }
                    tries += 1;
                }
                Err(error) => {
                    break ImportOutcome::Failed {
                        reason: error.chain(),
                    };
                }
            }
        };
        self.measure().await;
        self.driver.tell(Event::Imported { agent, outcome }).await;
    }

    async fn try_import(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
        head: Option<CommitId>,
        claims: Vec<WorkAsked>,
    ) -> PortResult<ImportOutcome> {
        let seen = self
            .in_sandbox(agent, incarnation, &sandbox::inspect(WORKSPACE))
            .await?;
        let tree = sandbox::parse_inspect(&succeeded(seen, "git status")?.stdout)?;
        if !tree.is_clean() {
            self.rescue(agent, incarnation, RescueCause::TurnEnd).await;
        }
        let head = match (head, tree.head.clone()) {
            (Some(told), _) => told,
            (None, Some(found)) => found,
            (None, None) => {
                return Err(PortError::new(
                    ErrorKind::Broken,
                    "its checkout has no commit",
                ));
            }
        };
        let (id, wanted) = (agent.clone(), head.clone());
        let known = super::super::blocking(&self.house.git, move |git| {
            if git.contains(&wanted)? {
                return Ok(None);
            }
            let mut known = vec![git.branch_head()?];
            known.extend(git.worker_head(&id)?);
            Ok(Some(known))
        })
        .await?;
        // A turn that made no commit: there is nothing to fetch from the sandbox.
        let bundle = if let Some(known) = known {
            let export = sandbox::export(WORKSPACE, Some(&head), &known, BUNDLE_LIMIT);
            let output = self.in_sandbox(agent, incarnation, &export).await?;
            succeeded(output, "git bundle")?.stdout
        } else {
            Vec::new()
        };
        let (id, expected) = (agent.clone(), head.clone());
        let work = super::super::blocking(&self.house.git, move |git| {
            git.import_bundle(
                &id,
                BundleSource::Bytes(&bundle),
                &expected,
                BUNDLE_LIMIT as u64,
            )?;
            let found = claims.into_iter().map(|asked| {
                let work = git.work(&expected, &asked.spans, &asked.scope)?;
                Ok(WorkFound {
                    task: asked.task,
                    fence: asked.fence,
                    spans: asked.spans.len(),
                    work,
                })
            });
            found.collect::<PortResult<Vec<WorkFound>>>()
        })
        .await?;
        Ok(ImportOutcome::Taken {
            head,
            dirty: tree.left(),
            work,
        })
    }

    /// In the agent's container, or in a throwaway one where that is gone.
    async fn in_sandbox(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
        command: &ExecSpec,
    ) -> PortResult<ExecOutput> {
        let name = container_name(&self.house.config.project, agent, incarnation);
        match self.house.runtime.exec(&name, command).await {
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Refused) => {
                let nobody = Conversation::New(SessionId::new(""));
                let spec = super::launch::container_spec(&self.house, agent, incarnation, nobody);
                self.house.runtime.run_once(&spec, command).await
            }
            other => other,
        }
    }

    pub(super) async fn push(&self) {
        let pushed = super::super::blocking(&self.house.git, |git| {
            let outcome = git.push()?;
            Ok((outcome, git.branch_head()?))
        })
        .await;
        let outcome = match pushed {
            Ok((worktree::PushOutcome::Pushed { commit }, _)) => {
                PushOutcome::Pushed { head: commit }
            }
            Ok((worktree::PushOutcome::UpToDate, head)) => PushOutcome::Pushed { head },
            Ok((worktree::PushOutcome::Moved, _)) => PushOutcome::Moved,
            Ok((worktree::PushOutcome::Denied { reason }, _)) => PushOutcome::Denied { reason },
            Err(error) if error.kind == ErrorKind::Refused => PushOutcome::Denied {
                reason: error.chain(),
            },
            Err(error) => PushOutcome::Away {
                reason: error.chain(),
            },
        };
        tracing::info!(?outcome, "push");
        self.driver.tell(Event::PushFinished(outcome)).await;
    }

    pub(super) async fn fetch(&self) {
        let fetched = super::super::blocking(&self.house.git, GitStore::fetch).await;
        // Not while talking to the remote, which may take minutes to give up.
        let _turn = self.branch.lock().await;
        let fetched = match fetched {
            Err(error) => Err(error),
            Ok(fetched) => {
                super::super::blocking(&self.house.git, |git| {
                    let before = git.branch_head()?;
                    let outcome = git.integrate_remote()?;
                    Ok((before, fetched, outcome, git.branch_head()?))
                })
                .await
            }
        };
        let outcome = match fetched {
            Ok((_, fetched, worktree::MergeOutcome::Conflict { files }, _)) => {
                RemoteOutcome::Conflict {
                    remote: fetched.remote_head,
                    files: pairs(files),
                }
            }
            Ok((before, _, _, head)) => {
                let moved = before != head;
                RemoteOutcome::Integrated { head, moved }
            }
            Err(error) => RemoteOutcome::Away {
                reason: error.chain(),
            },
        };
        if let RemoteOutcome::Integrated { moved: true, head } = &outcome {
            self.look_for_direction(head).await;
            self.measure().await;
        }
        self.driver.tell(Event::RemoteFetched(outcome)).await;
    }

    /// The branch has moved, by a merge or by the remote: the direction may have come or gone with it.
    pub(super) async fn look_for_direction(&self, head: &CommitId) {
        match self.lists.direction_present(head.clone()).await {
            Ok(present) => self.driver.tell(Event::DirectionSeen { present }).await,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the direction could not be read");
            }
        }
    }

    /// Ahead and behind of every agent's newest imported commit.
    pub(super) async fn measure(&self) {
        let agents = crate::daemon::prepare::agents(&self.house.config);
        let measured = super::super::blocking(&self.house.git, move |git| {
            let branch = git.branch_head()?;
            let mut distances = Vec::new();
            for agent in agents {
                if let Some(head) = git.worker_head(&agent)? {
                    let (ahead, behind) = git.ahead_behind(&head, &branch)?;
                    distances.push((agent, ahead as u32, behind as u32));
                }
            }
            Ok(distances)
        })
        .await;
        match measured {
            Ok(distances) => self.driver.put(Input::Distances(distances)).await,
            Err(error) => tracing::debug!(error = error.chain(), "distances unknown"),
        }
    }
}

fn succeeded(output: ExecOutput, what: &str) -> PortResult<ExecOutput> {
    if output.exit_code == 0 {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let text = format!(
        "{what} in its sandbox failed ({}): {}",
        output.exit_code,
        said.trim()
    );
    Err(PortError::new(ErrorKind::Broken, text))
}

pub(super) fn pairs(files: Vec<worktree::ConflictFile>) -> Vec<(String, String)> {
    files
        .into_iter()
        .map(|file| (file.path, file.hunks))
        .collect()
}
