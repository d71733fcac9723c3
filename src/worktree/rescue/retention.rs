//! Which snapshots stay, and for how long.
//!
//! 1. Of the newest day (`whole`) all stay.
//! 2. After that, of those that were only routine, the newest of each hour of the week before, then
//!    the newest of each day.
//! 3. One that was taken before something destructive, or that alone leads to some commit, stays
//!    until `full` (30 days) is over, and so does every agent's newest.
//! 4. After `full` it goes.
//!
//! What goes loses its reference. Its objects stay in the store, which never prunes: whoever knows
//! its commit, from the log or the journal, can still read it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use git2::{Oid, Repository};

use super::{Kept, PREFIX, all};
use crate::model::{AgentId, RescueView, Timestamp};
use crate::ports::PortResult;
use crate::worktree::store::{GitStore, broken};

const HOUR: i64 = 3600 * 1000;
const DAY: i64 = 24 * HOUR;
/// Beside the snapshots; the same names.
const HELD: &str = "refs/orchestrator/rescue-held/";

/// How long snapshots stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub whole: Duration,
    pub hourly: Duration,
    pub full: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            whole: day,
            hourly: day * 7,
            full: day * 30,
        }
    }
}

/// What [`GitStore::thin_rescues`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    /// Their references are gone.
    pub dropped: Vec<RescueView>,
    pub kept: usize,
}

impl GitStore {
    /// Thins the snapshots out, by the rule at the top of this file.
    pub fn thin_rescues(&self, now: Timestamp, retention: &Retention) -> PortResult<Thinned> {
        let repository = self.repository()?;
        let all = all(&repository)?;
        let mut stays: BTreeSet<Oid> = BTreeSet::new();
        let mut slots: BTreeMap<(AgentId, i64), Oid> = BTreeMap::new();
        let mut newest: BTreeSet<&AgentId> = BTreeSet::new();
        let mut doubtful = Vec::new();
        // Newest first, so the first of a slot is its newest.
        for kept in &all {
            let age = now.since(kept.note.at);
            let is_newest = newest.insert(&kept.note.agent);
            let slot = match age {
                age if age > retention.full => continue,
                age if age <= retention.whole => None,
                age if age <= retention.hourly => Some(HOUR),
                _ => Some(DAY),
            };
            let first_of_slot = slot.is_none_or(|length| {
                let key = (
                    kept.note.agent.clone(),
                    kept.note.at.0.div_euclid(length) * length,
                );
                *slots.entry(key).or_insert(kept.commit) == kept.commit
            });
            if is_newest || first_of_slot || kept.note.keep || is_held(&repository, kept) {
                stays.insert(kept.commit);
            } else {
                doubtful.push(kept);
            }
        }
        for kept in doubtful {
            if leads_alone(&repository, kept, &stays)? {
                stays.insert(kept.commit);
            }
        }
        let mut thinned = Thinned {
            kept: stays.len(),
            ..Thinned::default()
        };
        for kept in all.iter().filter(|kept| !stays.contains(&kept.commit)) {
            drop_reference(&repository, &kept.reference)?;
            drop_reference(&repository, &held_name(kept))?;
            tracing::info!(agent = %kept.note.agent, commit = %kept.commit, cause = kept.note.cause,
                "a rescue snapshot was thinned out; its objects stay in the store");
            thinned.dropped.push(kept.view());
        }
        Ok(thinned)
    }
}

/// Whether some parent of it is in nothing but snapshots that go.
fn leads_alone(repository: &Repository, kept: &Kept, stays: &BTreeSet<Oid>) -> PortResult<bool> {
    let failed = |cause| broken("could not follow a snapshot's commits", cause);
    let commit = repository.find_commit(kept.commit).map_err(failed)?;
    if commit.parent_count() == 0 {
        return Ok(false);
    }
    let mut walk = repository.revwalk().map_err(failed)?;
    for parent in commit.parent_ids() {
        walk.push(parent).map_err(failed)?;
    }
    for id in outside(repository)?
        .into_iter()
        .chain(stays.iter().copied())
    {
        walk.hide(id).map_err(failed)?;
    }
    Ok(walk.next().is_some())
}

/// Commits that references other than snapshots name.
fn outside(repository: &Repository) -> PortResult<Vec<Oid>> {
    let failed = |cause| broken("could not list the references", cause);
    let mut ids = Vec::new();
    for reference in repository.references().map_err(failed)? {
        let reference = reference.map_err(failed)?;
        let ours = reference
            .name()
            .is_ok_and(|name| name.starts_with(PREFIX) || name.starts_with(HELD));
        if !ours && let Ok(commit) = reference.peel_to_commit() {
            ids.push(commit.id());
        }
    }
    Ok(ids)
}

fn held_name(kept: &Kept) -> String {
    kept.reference.replacen(PREFIX, HELD, 1)
}

fn is_held(repository: &Repository, kept: &Kept) -> bool {
    repository.refname_to_id(&held_name(kept)).is_ok()
}

/// A routine snapshot turned out to be what was there before something destructive.
pub(super) fn hold(repository: &Repository, kept: &Kept) -> PortResult<()> {
    repository
        .reference(&held_name(kept), kept.commit, true, "held")
        .map_err(|cause| broken("could not hold a snapshot", cause))?;
    Ok(())
}

fn drop_reference(repository: &Repository, name: &str) -> PortResult<()> {
    match repository.find_reference(name) {
        Err(cause) if cause.code() == git2::ErrorCode::NotFound => Ok(()),
        found => found
            .and_then(|mut reference| reference.delete())
            .map_err(|cause| broken("could not drop a snapshot's reference", cause)),
    }
}
