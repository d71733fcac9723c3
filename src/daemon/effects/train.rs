//! The merge train's part in the store: stacks are built, and the branch moves to one.

use std::sync::Arc;

use super::Shared;
use super::refs::pairs;
use crate::daemon::{GateOrder, Known, blocking};
use crate::model::{CommitId, GateRecord};
use crate::ports::PortResult;
use crate::supervisor::{
    Event, GatesOutcome, LandOutcome, MergeOutcome, StackCandidate, StackMember, StackOutcome,
};
use crate::worktree::{Landing, Stack, StackPart, Stacked};

impl Shared {
    pub(super) async fn build_stack(&self, stack: u64, candidates: Vec<StackCandidate>) {
        let finished = self.lists.edits();
        let parts: Vec<StackPart<'static>> = candidates
            .iter()
            .map(|candidate| StackPart {
                commit: candidate.commit.clone(),
                message: candidate.message.clone(),
                edits: self.lists.edits_of(&candidate.tasks),
                only_look: candidate.by_hand,
            })
            .collect();
        let built = blocking(&self.house.git, move |git| {
            git.build_stack(stack, &finished, &parts)
        })
        .await;
        let outcome = stack_outcome(candidates, built);
        tracing::info!(stack, ?outcome, "stack");
        self.driver.tell(Event::StackBuilt { stack, outcome }).await;
    }

    pub(super) async fn run_gates(&self, stack: u64, commit: CommitId, all: bool) {
        let outcome = match self.gates_on(&commit, all).await {
            Ok(gates) => GatesOutcome::Ran { gates },
            // It ended with us, and is asked for again by the next start.
            Err(_) if self.doors.ended() => return,
            Err(error) => GatesOutcome::Failed {
                reason: error.chain(),
            },
        };
        tracing::info!(stack, commit = commit.short(), ?outcome, "gates");
        self.driver
            .tell(Event::GatesFinished {
                stack,
                commit,
                outcome,
            })
            .await;
    }

    /// In their order up to the first that does not pass; with `all` each of the others by itself.
    async fn gates_on(&self, commit: &CommitId, all: bool) -> PortResult<Vec<GateRecord>> {
        let mut records = self.house.gates.run(commit).await?;
        if !all {
            return Ok(records);
        }
        for gate in &self.house.config.gates {
            if records.iter().any(|record| record.name == gate.name) {
                continue;
            }
            let order = GateOrder {
                commit: commit.clone(),
                only: Some(gate.name.clone()),
                known: Known::Use,
            };
            let one = self.house.gates.run_order(order, Arc::new(|_| {})).await?;
            records.extend(one);
        }
        Ok(records)
    }

    pub(super) async fn land(&self, stack: u64, from: CommitId, to: CommitId) {
        let _turn = self.branch.lock().await;
        let landed = blocking(&self.house.git, move |git| git.land(&from, &to)).await;
        let outcome = match landed {
            Ok(Landing::Landed { head }) => LandOutcome::Landed { head },
            Ok(Landing::Moved { head }) => LandOutcome::Moved { head },
            Err(error) => LandOutcome::Failed {
                reason: error.chain(),
            },
        };
        tracing::info!(stack, ?outcome, "landing");
        if let LandOutcome::Landed { head } = &outcome {
            self.look_for_direction(head).await;
            self.measure().await;
        }
        self.driver.tell(Event::Landed { stack, outcome }).await;
    }
}

fn stack_outcome(candidates: Vec<StackCandidate>, built: PortResult<Stack>) -> StackOutcome {
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            let reason = error.chain();
            return StackOutcome::Failed { reason };
        }
    };
    let outcome = |stacked: Stacked| match stacked {
        Stacked::Merged { commit } => MergeOutcome::Merged { head: commit },
        Stacked::UpToDate => MergeOutcome::UpToDate,
        Stacked::Absent => MergeOutcome::Absent,
        Stacked::Conflict { files } => MergeOutcome::Conflict {
            files: pairs(files),
        },
        Stacked::Failed { error } => MergeOutcome::Failed {
            reason: error.chain(),
        },
    };
    let members = candidates.into_iter().zip(built.parts);
    let members = members.map(|(candidate, stacked)| StackMember {
        agent: candidate.agent,
        commit: candidate.commit,
        outcome: outcome(stacked),
    });
    StackOutcome::Built {
        base: built.base,
        top: built.top,
        members: members.collect(),
    }
}
