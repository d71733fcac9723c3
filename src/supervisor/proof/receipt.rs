//! What is kept as the proof, cut to what fits the record of a task.

use super::claim::Claimed;
use crate::model::{AgentId, CommitId, GateRecord, Missing, Receipt, TaskId, Timestamp};

/// Of the end of a gate's log, in characters, in a receipt. The log itself is kept elsewhere.
const TAIL: usize = 1500;

/// For what is done when its turn ends.
pub(super) fn without_proof(agent: &AgentId, task: &TaskId, fence: u64, now: Timestamp) -> Receipt {
    Receipt {
        task: task.clone(),
        agent: agent.clone(),
        fence,
        claimed_at: now,
        proven_at: now,
        commits: Vec::new(),
        commit_count: 0,
        no_change: None,
        landed: None,
        gates: Vec::new(),
        scope: Vec::new(),
        files: Vec::new(),
        uncommitted: Vec::new(),
        rescue: None,
        sent_back: Vec::new(),
    }
}

/// For a claim that was proven: `landed` has its commits, and there the gates passed.
pub(super) fn of(
    claim: &Claimed,
    agent: &AgentId,
    now: Timestamp,
    landed: Option<CommitId>,
    gates: &[GateRecord],
) -> Receipt {
    let work = claim.work.clone().unwrap_or_default();
    let changed = work.commit_count > 0;
    Receipt {
        claimed_at: claim.claimed_at,
        no_change: claim.no_change.clone().filter(|_| !changed),
        commits: work.commits,
        commit_count: work.commit_count,
        landed,
        gates: gates.iter().map(without_log).collect(),
        scope: claim.scope.clone(),
        files: work.files,
        uncommitted: claim.tolerated.clone(),
        rescue: claim.kept.clone().filter(|_| !claim.tolerated.is_empty()),
        sent_back: claim.sent_back.clone(),
        ..without_proof(agent, &claim.task, claim.fence, now)
    }
}

/// What is kept of a lack: the end of a log in short.
pub(super) fn noted(missing: &[Missing]) -> Vec<Missing> {
    let note = |lack: &Missing| match lack {
        Missing::Gate { gates } => Missing::Gate {
            gates: gates.iter().map(short_log).collect(),
        },
        other => other.clone(),
    };
    missing.iter().map(note).collect()
}

fn without_log(gate: &GateRecord) -> GateRecord {
    GateRecord {
        tail: String::new(),
        ..gate.clone()
    }
}

fn short_log(gate: &GateRecord) -> GateRecord {
    let surplus = gate.tail.chars().count().saturating_sub(TAIL);
    GateRecord {
        tail: gate.tail.chars().skip(surplus).collect(),
        ..gate.clone()
    }
}
