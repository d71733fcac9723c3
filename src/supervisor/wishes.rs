//! What people want of one task: once more, or not at all.
//!
//! The queue holds tasks, so a wish is kept here until the queue has confirmed it: a crash in between
//! forgets nothing, and nobody is given the task meanwhile. Whoever works on a task that is cancelled is
//! not interrupted: its turn ends by itself, is nobody's claim any more, and what it left uncommitted is
//! copied. With its next task it is told to take back what it did.

use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::action::Action;
use super::lifecycle::denied;
use super::state::{AgentState, Phase};
use crate::model::{AgentId, Reply, Request, Task, TaskId, TaskStatus, Timestamp};

/// One that the queue has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub task: TaskId,
    pub for_what: WishFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WishFor {
    /// Fresh attempts.
    Retry,
    Cancel,
}

impl Wish {
    fn action(&self) -> Action {
        let task = self.task.clone();
        match self.for_what {
            WishFor::Retry => Action::RetryTask { task },
            WishFor::Cancel => Action::CancelTask { task },
        }
    }
}

/// A task that was taken away from an agent in the middle of its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub task: TaskId,
    pub title: String,
    /// What became of it, as the end of a sentence about the task.
    #[serde(default = "cancelled")]
    pub how: String,
    /// The turn on it has ended.
    pub over: bool,
}

fn cancelled() -> String {
    "was cancelled".to_owned()
}

impl Supervisor {
    /// A request about one task, which is `found` in the queue.
    pub fn request_about(
        &mut self,
        now: Timestamp,
        request: Request,
        found: Option<&Task>,
    ) -> (Reply, Vec<Action>) {
        match (&request, found) {
            (Request::RetryTask { task }, Some(found)) if found.id == *task => {
                self.cause = super::evidence::asked(&request);
                let reply = self.request_retry(found);
                self.replied(now, reply)
            }
            (Request::CancelTask { task }, Some(found)) if found.id == *task => {
                self.cause = super::evidence::asked(&request);
                let reply = self.request_cancel(now, found);
                self.replied(now, reply)
            }
            _ => self.request(now, request),
        }
    }

    fn request_retry(&mut self, task: &Task) -> Reply {
        match task.status {
            TaskStatus::Available | TaskStatus::Claimed => Reply::AlreadySo,
            TaskStatus::Done => done(
                &task.id,
                "to have it done once more, take the tick out of its box in the task list",
            ),
            TaskStatus::Failed | TaskStatus::Cancelled => {
                self.wish(&task.id, WishFor::Retry);
                Reply::Accepted
            }
        }
    }

    fn request_cancel(&mut self, now: Timestamp, task: &Task) -> Reply {
        let id = &task.id;
        match task.status {
            TaskStatus::Cancelled => return Reply::AlreadySo,
            TaskStatus::Done => {
                let hint = format!(
                    "`orchestrator task receipt {id}` names its commits; `git revert` takes them back"
                );
                return done(id, &hint);
            }
            TaskStatus::Failed => {
                let reason = format!("{id} has failed, and nobody works on it any more");
                let hint = format!("`orchestrator task retry {id}` gives it fresh attempts");
                return denied("TASK_FAILED", reason, Some(hint));
            }
            TaskStatus::Available | TaskStatus::Claimed => {}
        }
        if let Some(why) = self.cannot_be_taken(id) {
            let hint = format!("`orchestrator task show {id}` tells when it is over");
            return denied("TASK_ENDING", why, Some(hint));
        }
        let all: Vec<AgentId> = self.fleet.agents.keys().cloned().collect();
        for agent in all {
            self.take_away(now, &agent, id, &cancelled());
        }
        self.wish(id, WishFor::Cancel);
        Reply::Accepted
    }

    /// It is too late for this task, or too early by a moment.
    fn cannot_be_taken(&self, task: &TaskId) -> Option<String> {
        for agent in self.fleet.agents.values() {
            let id = &agent.id;
            if agent.claims.iter().any(|c| c.task == *task && c.offered) {
                return Some(format!(
                    "{id} has done {task}, and the work is on its way into the branch"
                ));
            }
            if agent.finishing.iter().any(|f| f.task == *task) {
                return Some(format!("the end of {task} is being written down"));
            }
            if matches!(&agent.phase, Phase::Claiming { task: t, .. } if t == task) {
                return Some(format!("{task} is being handed to {id} at this moment"));
            }
        }
        None
    }

    /// It is nobody's any more; a turn on it goes on to its end.
    fn take_away(&mut self, now: Timestamp, id: &AgentId, task: &TaskId, how: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let claimed = agent.claims.iter().position(|claim| claim.task == *task);
        if let Some(place) = claimed {
            let claim = agent.claims.remove(place);
            // What it committed for it is not merged by itself.
            agent.offered.clone_from(&agent.head);
            agent.dropped = Some(Dropped {
                task: claim.task,
                title: claim.title,
                how: how.to_owned(),
                over: true,
            });
        }
        let Some(held) = agent.held.take_if(|held| held.task == *task) else {
            return;
        };
        if held.delivered || held.interrupted || matches!(agent.phase, Phase::Delivering { .. }) {
            agent.dropped = Some(Dropped {
                task: held.task,
                title: held.title,
                how: how.to_owned(),
                over: false,
            });
        }
        if matches!(agent.phase, Phase::Delivering { .. }) {
            // What is on its way to its prompt may arrive all the same: its screen tells.
            agent.enter(
                now,
                Phase::Working,
                format!("its task {how} while it was told"),
            );
            self.doubt(id);
        }
    }

    /// Whoever had it is stopped where that still changes anything: it is nobody's claim any more, its
    /// commits are not merged by themselves, and it is told to take them back. What is on its way into
    /// the branch goes on; the queue refuses its end.
    pub(super) fn on_overtaken(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        task: &TaskId,
        fence: u64,
        reason: &str,
    ) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let holds = agent
            .held
            .as_ref()
            .is_some_and(|held| held.task == *task && held.fence == fence);
        let claims = agent
            .claims
            .iter()
            .any(|claim| claim.task == *task && claim.fence == fence && !claim.offered);
        if !holds && !claims {
            return;
        }
        let how = format!("is not yours any more: {reason}");
        self.take_away(now, id, task, &how);
        let text = format!("{task} is not its any more: {reason}");
        let hint = "what it did for it is not merged; it is told so with its next task";
        self.notice(now, Some(id), &text, Some(hint.into()));
    }

    fn wish(&mut self, task: &TaskId, for_what: WishFor) {
        self.fleet.wishes.retain(|wish| wish.task != *task);
        let wish = Wish {
            task: task.clone(),
            for_what,
        };
        self.act(wish.action());
        self.fleet.wishes.push(wish);
    }

    /// The daemon that was to do it may have ended before: said again, which changes nothing twice.
    pub(super) fn wish_again(&mut self) {
        for wish in self.fleet.wishes.clone() {
            self.act(wish.action());
        }
    }

    /// The queue has it, or refused it for good.
    pub(super) fn on_task_settled(&mut self, task: &TaskId) {
        self.fleet.wishes.retain(|wish| wish.task != *task);
    }

    /// A turn that was nobody's any more has ended: what it left is looked at and copied, and its
    /// commits are taken, though not merged by themselves.
    pub(super) fn dropped_turn_ended(&mut self, id: &AgentId) -> bool {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return false;
        };
        let Some(dropped) = agent.dropped.as_mut().filter(|dropped| !dropped.over) else {
            return false;
        };
        dropped.over = true;
        let title = dropped.title.clone();
        agent.offered.clone_from(&agent.head);
        self.import(id, Some(&title));
        true
    }
}

impl AgentState {
    /// What it is told of a cancelled task before its next one, unless that is the same once more.
    pub(super) fn tell_dropped(&mut self, next: &TaskId, text: String) -> String {
        let other = self.dropped.take().filter(|dropped| dropped.task != *next);
        other.map_or_else(String::new, |dropped| super::texts::was_taken(&dropped)) + &text
    }
}

fn done(task: &TaskId, hint: &str) -> Reply {
    denied(
        "TASK_DONE",
        format!("{task} is done"),
        Some(hint.to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::AttemptEnd;
    use crate::supervisor::Policy;
    use crate::testing::world::{Doing, Turn, World};

    fn worker() -> AgentId {
        AgentId::worker(1)
    }

    /// Worker 1 works on `write a`, and `write b` waits.
    fn at_work() -> World {
        let mut world = World::new(Policy::default());
        world.start_daemon(false);
        world.run_outbox();
        world.boot(&AgentId::manager());
        world.boot(&worker());
        world.advance(Duration::from_secs(1));
        world.add_task(&worker(), "write a");
        world.add_task(&worker(), "write b");
        world.run_outbox();
        world
    }

    fn cancel(world: &mut World, task: &str) -> Reply {
        let task = task.into();
        let reply = world.request(Request::CancelTask { task }).unwrap();
        world.run_outbox();
        reply
    }

    fn retry(world: &mut World, task: &str) -> Reply {
        let task = task.into();
        let reply = world.request(Request::RetryTask { task }).unwrap();
        world.run_outbox();
        reply
    }

    #[track_caller]
    fn refused(reply: Reply, wanted: &str) {
        let Reply::Denied { code, hint, .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(code, wanted);
        assert!(hint.unwrap().contains('`') || wanted == "TASK_DONE");
    }

    fn status(world: &World, task: &str) -> TaskStatus {
        world.queue.get(&task.into()).unwrap().status
    }

    #[test]
    fn one_that_is_worked_on_is_nobodys_and_its_agent_is_told_with_the_next() {
        let mut world = at_work();
        let before = world.rescues;
        assert_eq!(cancel(&mut world, "write-a"), Reply::Accepted);
        assert_eq!(status(&world, "write-a"), TaskStatus::Cancelled);
        let doing = world.doing(&worker()).cloned();
        assert!(matches!(doing, Some(Doing::Working { .. })), "no harm done");
        let left = Turn {
            dirty: vec!["notes.txt".into()],
            ..Turn::default()
        };
        world.turn_ends(&worker(), &left);
        world.run_outbox();
        assert_eq!(world.rescues, before + 1, "what it left is copied");
        let told = world.minds[&worker()].received.last().unwrap();
        assert!(told.contains("write-a (write a), which you worked on, was cancelled"));
        assert!(told.contains("Task write-b:"), "{told}");
        let agent = &world.fleet().agents[&worker()];
        assert!(agent.claims.is_empty() && agent.dropped.is_none());
        let history = &world.queue.get(&"write-a".into()).unwrap().history;
        assert_eq!(history.last().unwrap().end, AttemptEnd::Cancelled);
        // What it did for it comes with its next work, taken back.
        assert_eq!(world.fleet().merging.merged, 0);
        world.turn_ends(&worker(), &Turn::default());
        world.run_outbox();
        assert_eq!(status(&world, "write-b"), TaskStatus::Done);
        assert_eq!(world.unfinished(), Vec::<String>::new());
    }

    #[test]
    fn one_that_waits_is_never_told() {
        let mut world = at_work();
        assert_eq!(cancel(&mut world, "write-b"), Reply::Accepted);
        assert_eq!(cancel(&mut world, "write-b"), Reply::AlreadySo);
        world.turn_ends(&worker(), &Turn::default());
        world.run_outbox();
        let told = &world.minds[&worker()].received;
        assert!(told.iter().all(|text| !text.contains("write b")));
        assert_eq!(world.unfinished(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_cancelled_is_said_with_what_to_do() {
        let mut world = at_work();
        refused(cancel(&mut world, "write-z"), "UNKNOWN_TASK");
        world.gates_held = true;
        world.policy.gates = vec!["test".into()];
        world.crash_daemon();
        world.start_daemon(false);
        world.run_outbox();
        world.turn_ends(&worker(), &Turn::default());
        world.run_outbox();
        refused(cancel(&mut world, "write-a"), "TASK_ENDING");
        world.gates_held = false;
        world.run_outbox();
        assert_eq!(status(&world, "write-a"), TaskStatus::Done);
        refused(cancel(&mut world, "write-a"), "TASK_DONE");
        refused(retry(&mut world, "write-a"), "TASK_DONE");
        assert_eq!(retry(&mut world, "write-b"), Reply::AlreadySo);
    }

    #[test]
    fn a_failed_one_gets_fresh_attempts_and_keeps_its_history() {
        let mut world = at_work();
        for _ in 0..3 {
            world.turn_fails(&worker(), "invalid_request");
            world.advance(Duration::from_secs(1000));
        }
        assert_eq!(status(&world, "write-a"), TaskStatus::Failed);
        refused(cancel(&mut world, "write-a"), "TASK_FAILED");
        assert_eq!(retry(&mut world, "write-a"), Reply::Accepted);
        let task = world.queue.get(&"write-a".into()).unwrap().clone();
        assert_eq!((task.failures(), task.history.len()), (0, 3));
        assert!(world.live_on(Duration::from_secs(3600)).is_empty());
        assert_eq!(status(&world, "write-a"), TaskStatus::Done);
    }

    #[test]
    fn a_wish_outlives_the_daemon_that_was_asked() {
        let mut world = at_work();
        // It dies right after it has stored what it decided.
        world.crash.at = Some(world.crash.passed + 1);
        cancel(&mut world, "write-b");
        assert!(!world.up());
        assert_eq!(status(&world, "write-b"), TaskStatus::Available);
        world.start_daemon(false);
        world.run_outbox();
        assert_eq!(status(&world, "write-b"), TaskStatus::Cancelled);
        assert!(world.fleet().wishes.is_empty());
    }
}
