//! What must hold after every decision, and at rest.

use super::World;
use crate::model::{AgentId, TaskId, TaskSource, TaskStatus};
use crate::supervisor::{Phase, Proof};

impl World {
    pub(super) fn check_decision(&self) {
        let Some(supervisor) = self.supervisor() else {
            return;
        };
        if let Err(broken) = supervisor.fleet().check() {
            panic!("{broken}:\n{}", self.tail());
        }
        for (task, times) in &self.queue.completions {
            assert!(*times <= 1, "{task} was done {times} times");
        }
    }

    /// Nothing is in flight inside the driver.
    pub(super) fn check_rest(&self) {
        if !self.up() {
            return;
        }
        let waits: Vec<String> = self.pending.keys().map(ToString::to_string).collect();
        assert!(
            waits.is_empty(),
            "without an answer: {waits:?}\n{}",
            self.tail()
        );
        for agent in self.fleet().agents.values() {
            let claiming = self.inventoried && matches!(agent.phase, Phase::Claiming { .. });
            assert!(!claiming, "{} claims for ever:\n{}", agent.id, self.tail());
        }
    }

    /// Work counts as done only if the agent was really given it.
    pub(super) fn check_completion(&self, agent: &AgentId, task: &TaskId) {
        let found = self.queue.get(task);
        // A repair that nobody needs any more is over without being told.
        let needless = found.is_some_and(|task| {
            matches!(task.source, TaskSource::Repair { .. })
                && task.result.as_deref() == Some("nothing is missing any more")
        });
        let description = found.map(|t| t.description.trim());
        let description = description.unwrap_or_default();
        let received = &self.minds[agent].received;
        assert!(
            needless || received.iter().any(|text| text.contains(description)),
            "{agent} completed {task} without having been given it:\n{}",
            self.tail()
        );
        self.check_proof(agent, task);
    }

    /// What is done has a receipt, and a worker's work is in the branch.
    fn check_proof(&self, agent: &AgentId, task: &TaskId) {
        let Some(done) = self.queue.get(task) else {
            return;
        };
        let Some(receipt) = &done.receipt else {
            panic!("{task} is done without a receipt:\n{}", self.tail());
        };
        assert_eq!((&receipt.task, &receipt.agent), (task, agent));
        let repairs = matches!(done.source, TaskSource::Repair { .. });
        if agent.worker_number().is_none() || repairs || self.policy.proof == Proof::None {
            return;
        }
        let unchanged = receipt.commits.is_empty() && receipt.no_change.is_some();
        let landed = receipt
            .commits
            .iter()
            .all(|c| self.git.branch_contains(&c.id));
        assert!(
            unchanged || (receipt.commit_count > 0 && receipt.landed.is_some() && landed),
            "{task} is not proven by {receipt:?}:\n{}",
            self.tail()
        );
    }

    /// What is left undone, for liveness: nothing, or a list for the message.
    pub fn unfinished(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .queue
            .tasks
            .iter()
            .filter(|task| !matches!(task.status, TaskStatus::Done | TaskStatus::Cancelled))
            .map(|task| format!("{} is {}", task.id, task.status.as_str()))
            .collect();
        let fleet = self.fleet();
        for agent in fleet.agents.values() {
            if agent.phase != Phase::Idle || agent.held.is_some() || !agent.finishing.is_empty() {
                left.push(format!(
                    "{} is {}: {}",
                    agent.id,
                    agent.phase.word(),
                    agent.reason
                ));
            }
            for claim in &agent.claims {
                left.push(format!("{} of {} is not proven", claim.task, agent.id));
            }
            if let Some(repair) = &agent.repair {
                left.push(format!("{} is open", repair.task));
            }
            if agent.importing {
                left.push(format!("{} is being imported", agent.id));
            }
        }
        let merging = &fleet.merging;
        if merging.train.run.is_some() || !merging.waiting.is_empty() {
            left.push("merges wait".to_owned());
        }
        if merging.hand_over.is_some() {
            left.push("the manager is to merge".to_owned());
        }
        if !merging.conflicts.is_empty() {
            left.push("conflicts are open".to_owned());
        }
        if self.policy.push && self.git.remote != self.git.branch {
            left.push("the branch is not pushed".to_owned());
        }
        for (agent, head) in &self.git.heads {
            // What a cancelled task left there comes with its agent's next work.
            let dropped = fleet.agents[agent].dropped.is_some();
            // The manager did not merge it, and people were told.
            let told = merging.train.recent.iter().any(|ended| {
                ended.agent == *agent && ended.commit == *head && ended.outcome == "not merged"
            });
            if !told && !dropped && !self.git.branch_contains(head) {
                left.push(format!("{agent}'s work is not merged"));
            }
        }
        left
    }
}
