//! When the manager is asked to plan: never while there is enough to do, never without end.

use super::Supervisor;
use super::action::{Action, NewTask};
use super::lifecycle::denied;
use super::state::Phase;
use super::texts;
use crate::model::{AgentId, Reply, TaskId, TaskSource, Timestamp};

impl Supervisor {
    pub(super) fn request_plan(&mut self, now: Timestamp) -> Reply {
        if self.fleet.ending().is_some() {
            return denied("ENDING", "the fleet is ending".into(), None);
        }
        if self.fleet.planning.open.is_some() {
            return Reply::AlreadySo;
        }
        self.fleet.planning.asked = true;
        self.fleet.planning.resting = false;
        self.fleet.planning.empty_rounds = 0;
        self.plan_if_needed(now);
        Reply::Accepted
    }

    /// The manager's turn for a planning round has ended.
    pub(super) fn round_ended(&mut self, now: Timestamp) {
        let planning = &mut self.fleet.planning;
        planning.open = None;
        planning.last_end = Some(now);
        planning.judged = false;
    }

    /// Something changed that may give a resting manager new ideas.
    pub(super) fn wake_planning(&mut self) {
        self.fleet.planning.resting = false;
        self.fleet.planning.empty_rounds = 0;
    }

    pub(super) fn plan_if_needed(&mut self, now: Timestamp) {
        if self.fleet.ending().is_some() || !self.manager_is_free() {
            return;
        }
        // A round that is in no queue and in no hand is over, however it ended.
        if self.fleet.planning.open.is_some() {
            if !self.fleet.planning.open_seen {
                return;
            }
            self.round_ended(now);
        }
        self.judge_round(now);
        if !self.round_is_due(now) {
            return;
        }
        self.begin_round();
    }

    pub(super) fn manager_is_free(&self) -> bool {
        let id = AgentId::manager();
        let waiting = self
            .queue
            .candidates
            .get(&id)
            .is_some_and(|tasks| !tasks.is_empty());
        !waiting
            && self.fleet.agents.get(&id).is_some_and(|manager| {
                manager.phase == Phase::Idle
                    && manager.held.is_none()
                    && manager.finishing.is_empty()
            })
    }

    /// Once per round, when the cool-down is over: did it bring anything?
    fn judge_round(&mut self, now: Timestamp) {
        let created = self.queue.created_worker_tasks;
        let cool_down = self.policy.planning_cool_down;
        let bound = self.policy.empty_rounds;
        let planning = &mut self.fleet.planning;
        let Some(ended) = planning.last_end else {
            return;
        };
        if created > planning.created_before {
            planning.empty_rounds = 0;
            planning.resting = false;
            planning.judged = true;
            return;
        }
        if planning.judged || now < ended + cool_down {
            return;
        }
        planning.judged = true;
        planning.empty_rounds += 1;
        if planning.empty_rounds >= bound && !planning.resting {
            planning.resting = true;
            let text = format!(
                "the manager rests: {} planning rounds in a row brought no new task",
                planning.empty_rounds
            );
            let hint = "push a changed PROJECT_DIRECTION.md, add an item to a task list, or `orchestrator plan`";
            self.notice(now, None, &text, Some(hint.into()));
        }
    }

    fn round_is_due(&self, now: Timestamp) -> bool {
        let planning = &self.fleet.planning;
        if planning.asked {
            return true;
        }
        if planning.resting || !planning.direction_present {
            return false;
        }
        let cooled = planning
            .last_end
            .is_none_or(|ended| now >= ended + self.policy.planning_cool_down);
        let first = planning.rounds == 0 && self.queue.open_worker_tasks == 0;
        first || (cooled && !self.idle_workers().is_empty() && self.merging_is_quiet())
    }

    /// Workers at their prompt with nothing in their queue.
    fn idle_workers(&self) -> Vec<AgentId> {
        self.fleet
            .agents
            .values()
            .filter(|agent| agent.id.worker_number().is_some())
            .filter(|agent| agent.phase == Phase::Idle && agent.held.is_none())
            .filter(|agent| self.next_task(&agent.id).is_none())
            .map(|agent| agent.id.clone())
            .collect()
    }

    fn begin_round(&mut self) {
        let idle = self.idle_workers();
        let context = self.text_context(&AgentId::manager());
        let counts = self.queue.counts;
        let created = self.queue.created_worker_tasks;
        let planning = &mut self.fleet.planning;
        planning.rounds += 1;
        planning.asked = false;
        planning.created_before = created;
        let round = planning.rounds;
        let id = TaskId::new(format!("plan-{round}"));
        planning.open = Some(id.clone());
        planning.open_seen = false;
        let description = if round == 1 {
            texts::first_plan(&context)
        } else {
            texts::next_plan(&context, &idle, &counts)
        };
        self.act(Action::CreateTask(NewTask {
            id,
            owner: AgentId::manager(),
            description,
            priority: 100,
            source: TaskSource::Plan { round },
        }));
    }

    pub(super) fn planning_deadline(&self) -> Option<(Timestamp, String)> {
        let planning = &self.fleet.planning;
        let ended = planning.last_end?;
        let waits = self.ready
            && !planning.resting
            && planning.open.is_none()
            && self.fleet.ending().is_none()
            && self.manager_is_free()
            && (!planning.judged
                || (planning.direction_present
                    && !self.idle_workers().is_empty()
                    && self.merging_is_quiet()));
        waits.then(|| {
            (
                ended + self.policy.planning_cool_down,
                "planning cool-down".to_owned(),
            )
        })
    }
}
