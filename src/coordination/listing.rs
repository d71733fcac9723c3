//! What the view shows to people and scripts. One look over all tasks, and no more kept than a page.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::view::View;
use crate::model::listing::{
    MOST_PER_PAGE, PAGE, TaskFilter, TaskLine, TaskPage, TaskReport, TaskState, title,
};
use crate::model::{Task, TaskId, TaskStatus, Timestamp};

/// Ids named where there is none of the one that was asked for.
const NEAREST: usize = 3;
/// Of 1: an id less like it than this is no slip of the finger.
const LIKE: f64 = 0.5;
/// A longer id is like none; comparing takes the product of both lengths.
const MAX_COMPARED: usize = 128;

/// Newest first, and of one moment in the order of their list.
type Place = (Reverse<Timestamp>, i64, TaskId);

fn place(task: &Task) -> Place {
    (Reverse(task.created_at), task.priority, task.id.clone())
}

impl View {
    pub fn state(&self, task: &Task) -> TaskState {
        match task.status {
            TaskStatus::Available if self.unmet(task).is_empty() => TaskState::Available,
            TaskStatus::Available if self.blockers(task).is_empty() => TaskState::Waiting,
            TaskStatus::Available => TaskState::Blocked,
            TaskStatus::Claimed => TaskState::Claimed,
            TaskStatus::Done => TaskState::Done,
            TaskStatus::Failed => TaskState::Failed,
            TaskStatus::Cancelled => TaskState::Cancelled,
        }
    }

    /// A page after a task that is not there is empty.
    pub fn page(&self, filter: &TaskFilter) -> TaskPage {
        let limit = filter.limit.unwrap_or(PAGE).clamp(1, MOST_PER_PAGE);
        let after = match &filter.after {
            None => None,
            Some(id) => match self.get(id) {
                Some(entry) => Some(place(&entry.task)),
                None => return TaskPage::default(),
            },
        };
        let mut matching = 0;
        let mut more = false;
        // The last place of the page is on top, and gives way to a better one.
        let mut best: BinaryHeap<Place> = BinaryHeap::with_capacity(limit + 1);
        for task in self.tasks().filter(|task| self.is_wanted(task, filter)) {
            matching += 1;
            let at = place(task);
            if after.as_ref().is_some_and(|after| at <= *after) {
                continue;
            }
            best.push(at);
            if best.len() > limit {
                best.pop();
                more = true;
            }
        }
        let places = best.into_sorted_vec();
        let next = places.last().filter(|_| more).map(|(_, _, id)| id.clone());
        let found = places.iter().filter_map(|(_, _, id)| self.get(id));
        TaskPage {
            tasks: found.map(|entry| self.line(&entry.task)).collect(),
            matching,
            next,
        }
    }

    fn is_wanted(&self, task: &Task, filter: &TaskFilter) -> bool {
        let TaskFilter {
            status,
            owner,
            agent,
            label,
            after: _,
            limit: _,
        } = filter;
        let holder = task.claim.as_ref().map(|claim| &claim.agent);
        owner
            .as_ref()
            .is_none_or(|owner| task.owner.as_ref() == Some(owner))
            && agent
                .as_ref()
                .is_none_or(|agent| task.owner.as_ref() == Some(agent) || holder == Some(agent))
            && label
                .as_ref()
                .is_none_or(|label| task.labels.contains(label))
            && status.is_none_or(|status| self.state(task) == status)
    }

    fn line(&self, task: &Task) -> TaskLine {
        let tried = u32::try_from(task.history.len()).unwrap_or(u32::MAX);
        TaskLine {
            id: task.id.clone(),
            title: title(&task.description),
            status: self.state(task),
            owner: task.owner.clone(),
            agent: task.claim.as_ref().map(|claim| claim.agent.clone()),
            labels: task.labels.clone(),
            attempts: tried + u32::from(task.status == TaskStatus::Claimed),
            failures: task.failures(),
            created_at: task.created_at,
            updated_at: task.updated_at,
        }
    }

    pub fn report(&self, id: &TaskId) -> Option<TaskReport> {
        let task = &self.get(id)?.task;
        Some(TaskReport {
            title: title(&task.description),
            state: self.state(task),
            task: Task::clone(task),
            waits_for: self.unmet(task),
            blocked_by: self.blockers(task),
            needed_by: self.dependents(id),
        })
    }

    /// The ids most like one that is not there, the nearest first.
    pub fn nearest(&self, id: &TaskId) -> Vec<TaskId> {
        let wanted = id.as_str();
        if wanted.is_empty() || wanted.len() > MAX_COMPARED {
            return Vec::new();
        }
        let mut near: Vec<(f64, &TaskId)> = Vec::new();
        for task in self.tasks() {
            let known = task.id.as_str();
            let begins = known.starts_with(wanted);
            let like = if begins {
                1.0
            } else if known.len() > MAX_COMPARED {
                0.0
            } else {
                strsim::normalized_damerau_levenshtein(wanted, known)
            };
            if like >= LIKE {
                near.push((like, &task.id));
                near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
                near.truncate(NEAREST);
            }
        }
        near.into_iter().map(|(_, id)| id.clone()).collect()
    }
}
