//! What a result means for the candidates and for what is known of the branch.

use std::collections::BTreeSet;
use std::time::Duration;

use super::machine::Said;
use super::state::{BranchRed, Built, Ended, PutOff, Tested, Train};
use super::verdict::Verdict;
use crate::model::{AgentId, CommitId, GateOutcome, GateRecord, Timestamp};
use crate::supervisor::input::{MergeOutcome, StackMember};
use crate::supervisor::state::Candidate;

/// Before a step that could not be done is tried again: doubled with each time, up to the longest.
const AGAIN: Duration = Duration::from_secs(10);
pub(in crate::supervisor) const AGAIN_AT_MOST: Duration = Duration::from_secs(600);
/// What is remembered of those that have ended.
const RECENT: usize = 20;

pub(super) fn again_after(tries: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
    AGAIN.saturating_mul(factor).min(AGAIN_AT_MOST)
}

/// What the gates say of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    /// Nothing, and why.
    Unknown(String),
}

/// Green only if each of `names` passed; red if one did not, and, where `all` are asked for, every
/// other has said something too.
pub(super) fn colour(names: &[String], gates: &[GateRecord], all: bool) -> Colour {
    let any_red = red(gates).next().is_some();
    if any_red && !all {
        return Colour::Red;
    }
    let silent = names
        .iter()
        .filter(|name| !red(gates).any(|gate| gate.name == **name))
        .filter(|name| {
            !gates
                .iter()
                .any(|gate| gate.name == **name && gate.passed())
        })
        .map(String::as_str)
        .collect::<Vec<_>>();
    if silent.is_empty() {
        return if any_red { Colour::Red } else { Colour::Green };
    }
    let tail = gates
        .iter()
        .find(|gate| gate.outcome == GateOutcome::Broken)
        .and_then(|gate| gate.tail.lines().rfind(|line| !line.trim().is_empty()));
    let tail = tail.map_or_else(String::new, |tail| format!(": {}", tail.trim()));
    Colour::Unknown(format!("{}{tail}", silent.join(", ")))
}

pub(super) fn red(gates: &[GateRecord]) -> impl Iterator<Item = &GateRecord> {
    gates
        .iter()
        .filter(|gate| matches!(gate.outcome, GateOutcome::Failed | GateOutcome::TimedOut))
}

/// Back into the line. A newer commit of the same agent that waits there contains it.
pub(super) fn put_back(waiting: &mut Vec<Candidate>, candidate: Candidate) {
    let newer = waiting.iter_mut().find(|c| c.agent == candidate.agent);
    let Some(newer) = newer else {
        waiting.push(candidate);
        return;
    };
    newer.since = newer.since.min(candidate.since);
    newer.claim(candidate.tasks);
}

/// The candidates of a stack by what became of them there.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) kept: Vec<Candidate>,
    pub(super) up_to_date: BTreeSet<AgentId>,
    /// In conflict with others of the stack, as far as is known: tried again without them.
    pub(super) later: Vec<Candidate>,
    /// In conflict with the branch: path and text per file.
    pub(super) conflicts: Vec<(Candidate, Vec<(String, String)>)>,
    pub(super) failed: Vec<(Candidate, String)>,
    /// Not in what lies below them, as they were to be.
    pub(super) absent: Vec<Candidate>,
}

impl Sorted {
    pub(super) fn of(candidates: Vec<Candidate>, members: &[StackMember]) -> Self {
        let mut sorted = Self::default();
        let mut stacked = false;
        for candidate in candidates {
            let of_it =
                |m: &&StackMember| m.agent == candidate.agent && m.commit == candidate.commit;
            let member = members.iter().find(of_it);
            match member.map(|member| member.outcome.clone()) {
                Some(MergeOutcome::Merged { .. }) => {
                    stacked = true;
                    sorted.kept.push(candidate);
                }
                Some(MergeOutcome::UpToDate) => {
                    sorted.up_to_date.insert(candidate.agent.clone());
                    sorted.kept.push(candidate);
                }
                Some(MergeOutcome::Conflict { .. }) if stacked => sorted.later.push(candidate),
                Some(MergeOutcome::Conflict { files }) => sorted.conflicts.push((candidate, files)),
                Some(MergeOutcome::Absent) => sorted.absent.push(candidate),
                Some(MergeOutcome::Failed { reason }) => sorted.failed.push((candidate, reason)),
                None => {
                    let reason = "nothing was said about it".to_owned();
                    sorted.failed.push((candidate, reason));
                }
            }
        }
        sorted
    }
}

impl Train {
    /// What is in hand is in the branch, which is at `head`.
    pub(super) fn landed(
        &mut self,
        now: Timestamp,
        built: &Built,
        head: &CommitId,
        gates: &[GateRecord],
        said: &mut Vec<Said>,
    ) {
        let Some(run) = &mut self.run else {
            return;
        };
        let members = run.segments.pop_front().unwrap_or_default();
        let new = |candidate: &&Candidate| !built.up_to_date.contains(&candidate.agent);
        let owners: BTreeSet<&AgentId> = members.iter().map(|c| &c.agent).collect();
        if built.top != built.base {
            let by = owners.first().filter(|_| owners.len() == 1);
            said.push(Said::Landed {
                head: head.clone(),
                by: by.map(|agent| (*agent).clone()),
                merged: u32::try_from(members.iter().filter(new).count()).unwrap_or(u32::MAX),
            });
        }
        for candidate in members {
            let (head, gates) = (head.clone(), gates.to_vec());
            let verdict = if built.up_to_date.contains(&candidate.agent) {
                Verdict::UpToDate { head, gates }
            } else {
                Verdict::Landed { head, gates }
            };
            self.judged(now, candidate, verdict, said);
        }
        self.next(now, said);
    }

    /// What is known of the branch itself may be news.
    pub(super) fn colour_of_branch(&mut self, now: Timestamp, said: &mut Vec<Said>) {
        let Some(Tested { commit, gates }) = &self.tested else {
            return;
        };
        let names: Vec<String> = red(gates).map(|gate| gate.name.clone()).collect();
        match &mut self.branch_red {
            Some(_) if names.is_empty() => {
                self.branch_red = None;
                said.push(Said::BranchGreen);
            }
            Some(known) => known.gates = names,
            None if names.is_empty() => {}
            None => {
                self.branch_red = Some(BranchRed {
                    since: now,
                    commit: commit.clone(),
                    gates: names,
                });
                said.push(Said::BranchRed {
                    commit: commit.clone(),
                    gates: red(gates).cloned().collect(),
                });
            }
        }
    }

    pub(super) fn judged(
        &mut self,
        now: Timestamp,
        candidate: Candidate,
        verdict: Verdict,
        said: &mut Vec<Said>,
    ) {
        match &verdict {
            Verdict::Landed { .. } | Verdict::UpToDate { .. } => {
                self.setbacks.remove(&candidate.agent);
            }
            Verdict::Conflict { .. } | Verdict::Red { .. } => {
                *self.setbacks.entry(candidate.agent.clone()).or_default() += 1;
            }
            Verdict::NotMerged { .. } | Verdict::Failed { .. } => {}
        }
        if !matches!(verdict, Verdict::Failed { .. }) {
            self.put_off.remove(&candidate.agent);
        }
        let (outcome, detail) = verdict.words();
        self.recent.push_back(Ended {
            at: now,
            agent: candidate.agent.clone(),
            commit: candidate.commit.clone(),
            title: candidate.title.clone(),
            outcome: outcome.to_owned(),
            detail,
        });
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        said.push(Said::Judged { candidate, verdict });
    }

    /// It goes back to the end of the line and is not tried for a while.
    pub(super) fn put_off(
        &mut self,
        now: Timestamp,
        candidate: Candidate,
        reason: String,
        waiting: &mut Vec<Candidate>,
        said: &mut Vec<Said>,
    ) {
        let before = self.put_off.get(&candidate.agent);
        let before = before.filter(|before| before.commit == candidate.commit);
        let tries = before.map_or(0, |before| before.tries) + 1;
        let held = PutOff {
            commit: candidate.commit.clone(),
            since: before.map_or(now, |before| before.since),
            reason: reason.clone(),
            tries,
            until: now + again_after(tries),
        };
        self.put_off.insert(candidate.agent.clone(), held);
        put_back(waiting, candidate.clone());
        if tries == 1 {
            self.judged(now, candidate, Verdict::Failed { reason }, said);
        }
    }
}
