//! Stacks: several commits merged one on the other in memory, before any of it is the branch.
//!
//! A stack is kept under `refs/orchestrator/train/NUMBER`, so that what its gates say can be looked
//! into afterwards. Only merge commits of our own hang on that alone: what they merge is an agent's,
//! and kept by the agent's own references.

use std::thread;
use std::time::Duration;

use git2::{Oid, Repository, Sort};

use super::conflict::ConflictFile;
use super::merge::{Attempt, FileEdit, MAX_TRIES, MergeOutcome, lost_race};
use super::read::descends;
use super::store::{GitStore, broken, commit_id, find, head_name, oid};
use crate::model::CommitId;
use crate::ports::{ErrorKind, PortError, PortResult};

/// Stacks kept, counted by number from the newest.
pub const STACKS_KEPT: u64 = 50;
const PREFIX: &str = "refs/orchestrator/train/";

/// A commit that is to be merged into a stack.
pub struct StackPart<'a> {
    pub commit: CommitId,
    pub message: String,
    /// Go into its merge commit, and into those above it.
    pub edits: Vec<FileEdit<'a>>,
    /// It is not merged: it is there already, or left out.
    pub only_look: bool,
}

/// Merge commits that are no branch yet.
#[derive(Debug)]
pub struct Stack {
    /// The branch's tip that it was built on.
    pub base: CommitId,
    /// The same as `base` if nothing was added.
    pub top: CommitId,
    /// One for each part, in order.
    pub parts: Vec<Stacked>,
}

/// What became of one part of a stack.
#[derive(Debug)]
pub enum Stacked {
    Merged {
        commit: CommitId,
    },
    UpToDate,
    /// It was only looked for. Left out.
    Absent,
    /// Left out.
    Conflict {
        files: Vec<ConflictFile>,
    },
    /// Left out.
    Failed {
        error: PortError,
    },
}

/// What became of moving the branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// The branch has it; its tip is `head`, which may be beyond it.
    Landed { head: CommitId },
    /// The branch is somewhere else by now. Nothing moved.
    Moved { head: CommitId },
}

impl GitStore {
    /// Merges `parts` onto the branch's tip, one on the other, each as a merge commit; what cannot
    /// be merged is left out. `edits` go into every one of them. Nothing moves: the result is kept
    /// under the stack's `number`, and those [`STACKS_KEPT`] before it are let go.
    ///
    /// Errors: `Broken` (the store cannot be read or written).
    pub fn build_stack(
        &self,
        number: u64,
        edits: &[FileEdit<'_>],
        parts: &[StackPart<'_>],
    ) -> PortResult<Stack> {
        let repository = self.repository()?;
        let head = head_name(&self.branch);
        let base = find(&repository, &head)?.ok_or_else(|| {
            let text = format!("the store has no branch {:?}", self.branch);
            PortError::new(ErrorKind::Broken, text)
        })?;
        let mut top = base;
        let mut edits = edits.to_vec();
        let mut stacked = Vec::new();
        for part in parts {
            let with = edits.len();
            edits.extend_from_slice(&part.edits);
            let outcome = match self.stack_one(&repository, &mut top, &edits, part) {
                Ok(outcome) => outcome,
                Err(error) => Stacked::Failed { error },
            };
            // The ticks of what is left out are left out as well.
            if !matches!(outcome, Stacked::Merged { .. } | Stacked::UpToDate) {
                edits.truncate(with);
            }
            stacked.push(outcome);
        }
        if top != base {
            self.share_objects(top)?;
            repository
                .reference(&format!("{PREFIX}{number}"), top, true, "a stack")
                .map_err(|cause| broken("could not keep the stack", cause))?;
        }
        let_go(&repository, number)?;
        Ok(Stack {
            base: commit_id(base),
            top: commit_id(top),
            parts: stacked,
        })
    }

    fn stack_one(
        &self,
        repository: &Repository,
        top: &mut Oid,
        edits: &[FileEdit<'_>],
        part: &StackPart<'_>,
    ) -> PortResult<Stacked> {
        let theirs = oid(&part.commit)?;
        let there = *top == theirs || descends(repository, *top, theirs)?;
        if part.only_look && !there {
            return Ok(Stacked::Absent);
        }
        let attempt = match there {
            // The ticks of finished tasks alone are worth no commit here.
            true if part.edits.is_empty() => return Ok(Stacked::UpToDate),
            true => self.edit_only(repository, *top, "Tick finished tasks", edits)?,
            false => self.combine(repository, *top, theirs, &part.message, edits)?,
        };
        Ok(match attempt {
            Attempt::Move { to, .. } => {
                *top = to;
                if there {
                    Stacked::UpToDate
                } else {
                    let commit = commit_id(to);
                    Stacked::Merged { commit }
                }
            }
            Attempt::Done(MergeOutcome::Conflict { files }) => Stacked::Conflict { files },
            Attempt::Done(_) => Stacked::UpToDate,
        })
    }

    /// Moves the branch to `to`, which was built on `from`, by compare-and-set. A branch that has
    /// `to` already is left where it is.
    ///
    /// Errors: `Refused` (`to` was not built on `from`), `NotFound` (no such commit), `Transient`
    /// (the branch was locked all the time).
    pub fn land(&self, from: &CommitId, to: &CommitId) -> PortResult<Landing> {
        let repository = self.repository()?;
        let (from, to) = (oid(from)?, oid(to)?);
        if from == to || !descends(&repository, to, from)? {
            let text = format!("{to} does not contain {from}, so the branch would lose it");
            return Err(PortError::new(ErrorKind::Refused, text));
        }
        let name = head_name(&self.branch);
        for tried in 0..MAX_TRIES {
            let tip = find(&repository, &name)?.ok_or_else(|| {
                let text = format!("the store has no branch {:?}", self.branch);
                PortError::new(ErrorKind::Broken, text)
            })?;
            let head = commit_id(tip);
            if tip == to || descends(&repository, tip, to)? {
                return Ok(Landing::Landed { head });
            }
            if tip != from {
                return Ok(Landing::Moved { head });
            }
            match repository.reference_matching(&name, to, true, from, "merge train") {
                Ok(_) => {
                    let head = commit_id(to);
                    return Ok(Landing::Landed { head });
                }
                Err(cause) if lost_race(&cause) => {
                    thread::sleep(Duration::from_millis(u64::from(tried.min(20))));
                }
                Err(cause) => return Err(broken("could not move the branch", cause)),
            }
        }
        Err(PortError::new(
            ErrorKind::Transient,
            format!("branch {:?} stayed locked", self.branch),
        ))
    }
}

/// Old stacks go, if nothing but merge commits of our own hangs on them alone.
fn let_go(repository: &Repository, newest: u64) -> PortResult<()> {
    let failed = |cause| broken("could not look through old stacks", cause);
    let names: Vec<String> = repository
        .references_glob(&format!("{PREFIX}*"))
        .map_err(failed)?
        .names()
        .filter_map(|name| name.ok().map(str::to_owned))
        .collect();
    for name in names {
        let number = name
            .strip_prefix(PREFIX)
            .and_then(|n| n.parse::<u64>().ok());
        if number.is_some_and(|number| number + STACKS_KEPT <= newest)
            && only_ours(repository, &name)?
        {
            repository
                .find_reference(&name)
                .and_then(|mut reference| reference.delete())
                .map_err(|cause| broken(&format!("could not let {name} go"), cause))?;
        }
    }
    Ok(())
}

/// Everything that no reference outside of the train keeps is on the stack's own line of merge
/// commits.
fn only_ours(repository: &Repository, name: &str) -> PortResult<bool> {
    let failed = |cause| broken(&format!("could not look what {name} keeps"), cause);
    let Some(top) = find(repository, name)? else {
        return Ok(false);
    };
    let mut alone = repository.revwalk().map_err(failed)?;
    alone.set_sorting(Sort::TOPOLOGICAL).map_err(failed)?;
    alone.push(top).map_err(failed)?;
    for other in repository.references().map_err(failed)? {
        let other = other.map_err(failed)?;
        let of_the_train = other.name().is_ok_and(|name| name.starts_with(PREFIX));
        if !of_the_train && let Some(id) = other.target() {
            alone.hide(id).map_err(failed)?;
        }
    }
    let mut ours = Some(top);
    for id in alone {
        let id = id.map_err(failed)?;
        if ours != Some(id) {
            return Ok(false);
        }
        let commit = repository.find_commit(id).map_err(failed)?;
        ours = commit.parent_id(0).ok();
    }
    Ok(true)
}
