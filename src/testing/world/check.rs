//! What must hold after every decision, and at rest.

use super::World;
use crate::model::{AgentId, TaskId, TaskStatus};
use crate::supervisor::Phase;

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
        let description = self.queue.get(task).map(|t| t.description.trim());
        let description = description.unwrap_or_default();
        let received = &self.minds[agent].received;
        assert!(
            received.iter().any(|text| text.contains(description)),
            "{agent} completed {task} without having been given it:\n{}",
            self.tail()
        );
    }

    /// What is left undone, for liveness: nothing, or a list for the message.
    pub fn unfinished(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .queue
            .tasks
            .iter()
            .filter(|task| !matches!(task.status, TaskStatus::Done))
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
            if agent.importing {
                left.push(format!("{} is being imported", agent.id));
            }
        }
        let merging = &fleet.merging;
        if merging.train.run.is_some() || !merging.waiting.is_empty() {
            left.push("merges wait".to_owned());
        }
        if !merging.conflicts.is_empty() {
            left.push("conflicts are open".to_owned());
        }
        if self.policy.push && self.git.remote != self.git.branch {
            left.push("the branch is not pushed".to_owned());
        }
        for (agent, head) in &self.git.heads {
            if !self.git.branch_contains(head) {
                left.push(format!("{agent}'s work is not merged"));
            }
        }
        left
    }
}
