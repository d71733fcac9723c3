//! The task queue by its rules, in memory: claims with a growing fence, everything repeatable.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coordination::rules::{self, Changed, Retry};
use crate::daemon::claims::{self, Wish};
use crate::model::view::TaskCounts;
use crate::model::{
    AgentId, AttemptNote, Claim, Incarnation, Receipt, Task, TaskContext, TaskId, TaskSource,
    TaskStatus, Timestamp,
};
use crate::supervisor::{Fleet, NewTask, QueueView};

/// All tasks, in the order of their making.
#[derive(Clone, Debug, Default)]
pub struct WorldQueue {
    pub tasks: Vec<Task>,
    /// How often each task became done; more than once is a broken promise.
    pub completions: BTreeMap<TaskId, u32>,
    /// Agents whose next claim is refused.
    pub losers: Vec<AgentId>,
}

impl WorldQueue {
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id == *id)
    }

    fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id == *id)
    }

    /// Creating twice is one task.
    pub fn create(&mut self, now: Timestamp, new: NewTask) {
        if self.get(&new.id).is_some() {
            return;
        }
        self.tasks.push(Task {
            id: new.id,
            description: new.description,
            status: TaskStatus::Available,
            priority: new.priority,
            owner: Some(new.owner),
            dependencies: Vec::new(),
            labels: Vec::new(),
            context: TaskContext::default(),
            scope: Vec::new(),
            source: new.source,
            claim: None,
            attempts: 0,
            history: Vec::new(),
            forgiven: 0,
            result: None,
            receipt: None,
            created_at: now,
            updated_at: now,
        });
    }

    /// A claim by the holder itself is the same claim: its answer may have been lost.
    pub fn claim(
        &mut self,
        now: Timestamp,
        agent: &AgentId,
        incarnation: Incarnation,
        id: &TaskId,
    ) -> Result<Task, String> {
        if let Some(place) = self.losers.iter().position(|loser| loser == agent) {
            self.losers.remove(place);
            return Err("somebody else was faster".into());
        }
        let task = self.get_mut(id).ok_or("there is no such task")?;
        match (&task.status, &task.claim) {
            (TaskStatus::Available, _) => {}
            (TaskStatus::Claimed, Some(claim)) if claim.agent == *agent => {
                return Ok(task.clone());
            }
            (status, _) => return Err(format!("it is {}", status.as_str())),
        }
        task.attempts += 1;
        task.status = TaskStatus::Claimed;
        task.claim = Some(Claim {
            agent: agent.clone(),
            incarnation,
            fence: u64::from(task.attempts),
            claimed_at: now,
            lease_until: Timestamp(i64::MAX),
        });
        Ok(task.clone())
    }

    /// Somebody who is no agent of the fleet takes a claimed task, as if its lease had run out, and
    /// does it. False if nobody has it.
    pub fn overtake(&mut self, now: Timestamp, id: &TaskId) -> bool {
        let fence_of = |task: &Task| task.claim.as_ref().map(|claim| claim.fence);
        let claimed = self
            .get(id)
            .filter(|task| task.status == TaskStatus::Claimed);
        let Some(fence) = claimed.and_then(fence_of) else {
            return false;
        };
        self.release(now, id, fence, "its lease ran out", true);
        let taken = self.claim(now, &AgentId::new("elsewhere"), Incarnation(1), id);
        let fence = taken.ok().as_ref().and_then(fence_of);
        fence.is_some_and(|fence| self.complete(now, id, fence, "done elsewhere", None))
    }

    /// The next claim of this agent is refused.
    pub fn lose_next(&mut self, agent: &AgentId) {
        self.losers.push(agent.clone());
    }

    /// True when this made it done; a repeat or an old fence changes nothing.
    pub fn complete(
        &mut self,
        now: Timestamp,
        id: &TaskId,
        fence: u64,
        result: &str,
        receipt: Option<Box<Receipt>>,
    ) -> bool {
        let receipt = receipt.as_deref();
        let done = self.change(id, |task| {
            rules::complete(task, fence, result, receipt, now)
        });
        if done {
            *self.completions.entry(id.clone()).or_default() += 1;
        }
        done
    }

    pub fn release(&mut self, now: Timestamp, id: &TaskId, fence: u64, reason: &str, retry: bool) {
        self.change(id, |task| {
            if retry {
                rules::release(task, fence, reason, now)
            } else {
                rules::fail(task, fence, reason, Retry::Never, now)
            }
        });
    }

    /// What a person wants of it.
    pub fn wish(&mut self, now: Timestamp, id: &TaskId, retry: bool) {
        self.change(id, |task| {
            if retry {
                rules::reopen(task, task.priority, now)
            } else {
                rules::cancel(task, "cancelled by a person", now)
            }
        });
    }

    /// Of attempts under a claim that goes on.
    pub fn note(
        &mut self,
        now: Timestamp,
        id: &TaskId,
        fence: u64,
        incarnation: Incarnation,
        past: &[AttemptNote],
    ) {
        self.change(id, |task| rules::note(task, fence, incarnation, past, now));
    }

    /// True when the task is another now; what is refused changes nothing.
    fn change(&mut self, id: &TaskId, decide: impl FnOnce(&Task) -> Changed) -> bool {
        let Some(task) = self.get_mut(id) else {
            return false;
        };
        match decide(task) {
            Ok(Some(next)) => {
                *task = next;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Claims that no agent of this fleet has are open again, as the driver sees to at its start.
    pub fn tend(&mut self, now: Timestamp, fleet: &Fleet) {
        let claimed: Vec<Task> = self
            .tasks
            .iter()
            .filter(|task| task.status == TaskStatus::Claimed)
            .cloned()
            .collect();
        for (id, fence, wish) in claims::tend(&claimed, fleet, now, Duration::from_secs(3600)) {
            if wish == Wish::GiveBack {
                self.release(now, &id, fence, "nobody works on it any more", true);
            }
        }
    }

    pub fn view(&self, agents: &[AgentId]) -> QueueView {
        let mut view = QueueView {
            counts: self.counts(|_| true),
            ..QueueView::default()
        };
        for agent in agents {
            let mut mine: Vec<&Task> = self
                .tasks
                .iter()
                .filter(|task| task.status == TaskStatus::Available)
                .filter(|task| task.owner.as_ref() == Some(agent))
                .collect();
            mine.sort_by_key(|task| task.priority);
            let waiting = u32::try_from(mine.len()).unwrap_or(u32::MAX);
            view.waiting.insert(agent.clone(), waiting);
            let ids = mine.into_iter().take(4).map(|task| task.id.clone());
            view.candidates.insert(agent.clone(), ids.collect());
        }
        let workers = self.counts(|task| task.owner != Some(AgentId::manager()));
        view.open_worker_tasks = workers.available + workers.claimed;
        let all = [
            workers.available,
            workers.claimed,
            workers.done,
            workers.failed,
        ];
        view.created_worker_tasks = all.into_iter().map(u64::from).sum();
        view
    }

    fn counts(&self, of: impl Fn(&Task) -> bool) -> TaskCounts {
        let mut counts = TaskCounts::default();
        for task in self.tasks.iter().filter(|task| of(task)) {
            match task.status {
                TaskStatus::Available => counts.available += 1,
                TaskStatus::Claimed => counts.claimed += 1,
                TaskStatus::Done => counts.done += 1,
                TaskStatus::Failed => counts.failed += 1,
                TaskStatus::Cancelled => counts.cancelled += 1,
            }
        }
        counts
    }

    /// An item of a task list, as reading the lists makes it.
    pub fn list_item(&mut self, now: Timestamp, owner: &AgentId, description: &str, place: i64) {
        let id = TaskId::new(description.split_whitespace().collect::<Vec<_>>().join("-"));
        self.create(
            now,
            NewTask {
                id,
                owner: owner.clone(),
                description: description.to_owned(),
                priority: place,
                source: TaskSource::TaskList {
                    worker: owner.worker_number().unwrap_or(0),
                },
            },
        );
    }
}
