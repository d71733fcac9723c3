//! Is what was claimed done really there: commits, a clean tree, within its scope, in the branch?
//! What is missing goes back to somebody who can mend it, a bounded number of times.
//!
//! ```text
//! the turn ends ─▶ claim ─▶ commits taken ─▶ nothing missing ─▶ train ─▶ landed ─▶ receipt: done
//!                   ▲                 │                            │
//!                   └── repair task ◀─┴── missing ◀────────────────┘ conflict, red gate
//!                       of its agent, `tasks.sendBack` times; then the manager; then it has failed
//! ```
//!
//! A tree that stays unclean to the last round fails nothing by itself: what was committed is tried and
//! merged without it, and the receipt names the paths and the copy that has them. It takes both, a
//! commit and a copy that left nothing out; else the task has failed like any other.

mod claim;
mod conflict;
mod mend;
mod receipt;
mod taking;
#[cfg(test)]
mod tests;
mod tree;

pub(super) use claim::NO_CHANGE;
pub use claim::{Claimed, Repair};
pub(super) use conflict::{Trouble, remote};
pub(super) use taking::TAKE_AGAIN;

use super::Supervisor;
use super::state::Candidate;
use super::train::Verdict;
use crate::model::{CommitId, GateRecord, Timestamp};

impl Supervisor {
    /// What became of a candidate, and what follows for the work in it.
    pub(super) fn judge(&mut self, now: Timestamp, candidate: &Candidate, verdict: Verdict) {
        let id = &candidate.agent;
        match verdict {
            Verdict::Landed { head, gates } | Verdict::UpToDate { head, gates } => {
                self.prove(now, candidate, &head, &gates);
                self.count_resolved(id);
                self.judge_conflicts(now, id);
            }
            Verdict::Conflict { files } => {
                self.not_accepted(now, candidate, &Trouble::Conflict(&files));
            }
            Verdict::Red { gates } => self.not_accepted(now, candidate, &Trouble::Red(&gates)),
            Verdict::NotMerged { on } => self.not_merged(now, candidate, &on),
            // It stays in the line, and what is claimed with it on its way.
            Verdict::Failed { reason } => {
                let commit = candidate.commit.short();
                let text = format!("its commit {commit} could not be merged: {reason}");
                let hint = "it is tried again soon";
                self.notice(now, Some(id), &text, Some(hint.into()));
            }
        }
    }

    /// It is in the branch: what was claimed with it is done.
    fn prove(
        &mut self,
        now: Timestamp,
        candidate: &Candidate,
        landed: &CommitId,
        gates: &[GateRecord],
    ) {
        let id = &candidate.agent;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let came = |claim: &Claimed| claim.offered && candidate.tasks.contains(&claim.task);
        let claims = std::mem::take(&mut agent.claims);
        let (proven, open): (Vec<Claimed>, Vec<Claimed>) = claims.into_iter().partition(came);
        agent.claims = open;
        for claim in proven {
            self.proven(now, id, &claim, Some(landed.clone()), gates);
        }
    }

    /// The claims of a candidate are not on their way any more.
    fn recall(&mut self, candidate: &Candidate, mut change: impl FnMut(&mut Claimed)) {
        let Some(agent) = self.fleet.agents.get_mut(&candidate.agent) else {
            return;
        };
        for claim in &mut agent.claims {
            if claim.offered && candidate.tasks.contains(&claim.task) {
                claim.offered = false;
                change(claim);
            }
        }
    }
}
