//! Checkouts: what there is, and putting one away. Nothing is deleted: what is proven to be elsewhere,
//! or forced, goes to the trash, from where it can be put back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Keeper, refusal};
use crate::claude::launch::WORKSPACE;
use crate::control::{CleanUp, Refusal};
use crate::daemon::paths::FleetPaths;
use crate::model::{AgentId, CleanedUp, RescueCause, RescueNote, RescueView, WorktreeView};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::{GitStore, Reachability, Trash, sandbox};

/// Entries of one checkout that are counted; what is beyond them is not in its size.
const MAX_COUNTED: usize = 2_000_000;
/// Lines of what only a checkout has.
const MAX_NAMED: usize = 50;

/// Every checkout of a fleet whose agents are these; blocks.
pub(super) fn worktrees(
    git: &GitStore,
    paths: &FleetPaths,
    fleet: &BTreeSet<AgentId>,
) -> PortResult<Vec<WorktreeView>> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (branch, rescues) = (git.branch_head()?, git.rescues()?);
    let mut all = Vec::new();
    for agent in paths.agents_on_disk() {
        let directory = paths.agent(&agent).checkout();
        if !directory.is_dir() {
            continue;
        }
        let head = git.worker_head(&agent)?;
        let distance = match &head {
            Some(head) => Some(git.ahead_behind(head, &branch)?),
            None => None,
        };
        let newest = rescues.iter().find(|rescue| rescue.agent == agent);
        all.push(WorktreeView {
            configured: fleet.contains(&agent),
            branch: agent.to_string(),
            bytes: size(&directory),
            directory: directory.display().to_string(),
            head,
            ahead: distance.map(|(ahead, _)| number(ahead)),
            behind: distance.map(|(_, behind)| number(behind)),
            snapshot: newest.map(RescueNote::from),
            agent,
        });
    }
    Ok(all)
}

impl Keeper {
    pub(super) async fn all_worktrees(&self) -> PortResult<Vec<WorktreeView>> {
        let (paths, fleet) = (self.paths.clone(), self.fleet.clone());
        crate::daemon::blocking(&self.git, move |git| worktrees(git, &paths, &fleet)).await
    }

    pub(super) async fn put_away(
        &self,
        agent: &AgentId,
        how: CleanUp,
    ) -> Result<CleanedUp, Refusal> {
        let checkout = self.paths.agent(agent).checkout();
        // The name comes from outside: only one that is there becomes a path.
        if !self.paths.agents_on_disk().contains(agent) || !checkout.is_dir() {
            return Err(Refusal {
                code: "UNKNOWN_WORKTREE",
                reason: format!("there is no checkout of `{agent}`"),
                hint: Some("`orchestrator worktree list` shows them".into()),
            });
        }
        self.is_free(agent).await?;
        let forced = how == CleanUp::Force;
        let taken = self.take_all(agent).await;
        let (rescue, only_here) = match taken {
            Ok(taken) => taken,
            Err(error) if forced => {
                let line = format!(
                    "what is not committed: no snapshot of it: {}",
                    error.chain()
                );
                (None, vec![line])
            }
            Err(error) => return Err(unproven(agent, &error)),
        };
        if how == CleanUp::Try {
            return Ok(CleanedUp {
                agent: agent.clone(),
                trash: None,
                until: None,
                rescue,
                only_here,
            });
        }
        if !only_here.is_empty() && !forced {
            return Err(would_be_lost(agent, &only_here));
        }
        let (root, now, keep) = (
            self.paths.root().to_owned(),
            self.clock.now(),
            self.rescue.keep,
        );
        let why = format!("clean-up of {agent}");
        let entry =
            crate::daemon::join(move || Trash::open(&root)?.discard(&checkout, &why, now, keep));
        let entry = entry.await.map_err(refusal)?;
        tracing::info!(%agent, trash = entry.id, forced, "a checkout was put away");
        Ok(CleanedUp {
            agent: agent.clone(),
            trash: Some(entry.id),
            until: Some(entry.until),
            rescue,
            only_here,
        })
    }

    /// Nobody works in it, and nobody is about to.
    async fn is_free(&self, agent: &AgentId) -> Result<(), Refusal> {
        if self.fleet.contains(agent) && !self.at_rest {
            return Err(Refusal {
                code: "IN_USE",
                reason: format!("`{agent}` belongs to the running fleet"),
                hint: Some(
                    "stop the fleet first (`orchestrator down`), or lower `workerCount` and start it again"
                        .into(),
                ),
            });
        }
        let all = self.runtime.list(&self.project).await.map_err(refusal)?;
        match all.into_iter().find(|c| c.running && c.agent == *agent) {
            None => Ok(()),
            Some(container) => Err(Refusal {
                code: "IN_USE",
                reason: format!("`{agent}` runs in container {}", container.name),
                hint: Some("a fleet that was detached runs on: `orchestrator up -d`, then `orchestrator down`".into()),
            }),
        }
    }

    /// Takes everything that is not in the store, and says what could not be taken.
    async fn take_all(&self, agent: &AgentId) -> PortResult<(Option<RescueView>, Vec<String>)> {
        let began = self.clock.now();
        let rescue = self
            .snapshot(agent, None, RescueCause::CleanUp, began)
            .await?;
        let inspect = sandbox::inspect(WORKSPACE);
        let output = self.run(agent, None, &inspect).await?;
        let tree = sandbox::parse_inspect(&sandbox::checked("git status", output)?)?;
        let kept = rescue.clone();
        let loss = crate::daemon::blocking(&self.git, move |git| {
            git.loss_of_checkout(&tree, kept.as_ref())
        });
        let only_here = match loss.await? {
            Reachability::Kept => Vec::new(),
            Reachability::WouldLose { commits, files } => commits
                .iter()
                .map(|commit| format!("commit {commit}"))
                .chain(files.iter().map(|file| named(file, rescue.as_ref())))
                .collect(),
        };
        Ok((rescue, only_here))
    }
}

fn named(file: &str, rescue: Option<&RescueView>) -> String {
    let left = rescue.and_then(|rescue| rescue.left_out.iter().find(|left| left.path == *file));
    match left {
        Some(left) => format!("file {file} ({})", left.why),
        None => format!("file {file}"),
    }
}

fn unproven(agent: &AgentId, error: &PortError) -> Refusal {
    Refusal {
        code: if error.kind == ErrorKind::Transient {
            "TRY_AGAIN"
        } else {
            "NOT_KEPT"
        },
        reason: format!(
            "it could not be proven that nothing of {agent} is lost: {}",
            error.chain()
        ),
        hint: Some(
            "it was left as it is; `--force` puts it into the trash all the same, uncommitted work and \
             all"
            .into(),
        ),
    }
}

fn would_be_lost(agent: &AgentId, only_here: &[String]) -> Refusal {
    let mut reason = format!("the checkout of {agent} is the only place of");
    for line in only_here.iter().take(MAX_NAMED) {
        reason.push_str("\n  ");
        reason.push_str(line);
    }
    if let Some(more) = only_here.len().checked_sub(MAX_NAMED).filter(|n| *n > 0) {
        let _ = write!(reason, "\n  and {more} more");
    }
    Refusal {
        code: "NOT_KEPT",
        reason,
        hint: Some(
            "it was left as it is; `--force` puts it into the trash, where these are until it is \
             emptied"
                .into(),
        ),
    }
}

/// Bytes of all files, links not followed. An agent's own tree: nothing in it is opened.
fn size(directory: &Path) -> u64 {
    let (mut bytes, mut counted) = (0_u64, 0);
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            counted += 1;
            if counted > MAX_COUNTED {
                return bytes;
            }
            match entry.metadata() {
                Ok(data) if data.is_dir() => waiting.push(entry.path()),
                Ok(data) => bytes = bytes.saturating_add(data.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_is_named_and_bounded() {
        let many: Vec<String> = (0..60).map(|n| format!("file {n}")).collect();
        let refusal = would_be_lost(&AgentId::worker(3), &many);
        assert!(refusal.reason.starts_with("the checkout of worker-3"));
        assert!(refusal.reason.contains("\n  file 49\n  and 10 more"));
        let few = would_be_lost(&AgentId::worker(3), &many[..1]);
        assert!(few.reason.ends_with("\n  file 0"), "{}", few.reason);
    }

    #[test]
    fn sizes_are_summed_and_links_not_followed() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/c"), [0; 100]).unwrap();
        fs::write(place.path().join("d"), [0; 20]).unwrap();
        std::os::unix::fs::symlink("/", place.path().join("a/root")).unwrap();
        assert_eq!(size(place.path()), 121);
    }
}
