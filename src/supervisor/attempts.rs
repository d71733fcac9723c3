//! Attempts at a task: how each ended, which of that counts against it, and when it is enough.
//!
//! What the surroundings did (the engine, a person, a limit, an end of the fleet) counts for nothing.
//! Causes of its own count, and a task that has used up its attempts has failed with all of them.

use super::Supervisor;
use super::action::{Action, NewTask};
use super::lifecycle::finish_action;
use super::policy::Policy;
use super::state::{FinishAs, Finishing, Held};
use super::texts;
use crate::model::attempt::{cut_cause, next_number, with_notes};
use crate::model::{AgentId, AttemptEnd, AttemptNote, TaskId, TaskSource, Timestamp};

/// Part of a task's id in the id of what the manager is told of it.
const ID_PART: usize = 200;

impl Policy {
    /// Ends of one kind after which a task has failed; `None`: they do not count. A hang costs
    /// `hung_after` each time, so half as many are enough.
    fn attempts_ending(&self, end: AttemptEnd) -> Option<u32> {
        let all = self.task_attempts;
        match end {
            AttemptEnd::Hung => Some(all.div_ceil(2)),
            other => other.counts().then_some(all),
        }
    }
}

impl Held {
    /// Attempts since it was last asked for that ended like this.
    fn ended_like(&self, end: AttemptEnd) -> u32 {
        let since = self.past.iter().filter(|note| note.number > self.forgiven);
        u32::try_from(since.filter(|note| note.end == end).count()).unwrap_or(u32::MAX)
    }

    fn note(&mut self, note: AttemptNote) {
        self.failures += u32::from(note.end.counts());
        self.past = with_notes(&self.past, &[note]);
    }
}

impl Supervisor {
    /// The work on its task ended without a result. When the attempts are used up the task has
    /// failed, and the agent is free for other work; true then.
    pub(super) fn attempt_ended(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        end: AttemptEnd,
        cause: &str,
    ) -> bool {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return false;
        };
        let incarnation = agent.incarnation;
        let Some(held) = agent.held.as_mut().filter(|held| held.delivered) else {
            return false;
        };
        held.note(AttemptNote {
            number: next_number(&held.past),
            fence: held.fence,
            agent: id.clone(),
            incarnation,
            // A row of an earlier version does not say.
            began: held.began.max(held.since),
            ended: now,
            end,
            cause: cut_cause(cause),
        });
        held.began = now;
        let enough = self.policy.attempts_ending(end).is_some_and(|limit| {
            held.ended_like(end) >= limit || held.failures >= self.policy.task_attempts
        });
        if enough {
            self.give_up_task(now, id);
        } else {
            self.tell_attempts(id);
        }
        enough
    }

    /// The queue is told how the attempts ended, and which life has the task now.
    pub(super) fn tell_attempts(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let Some(held) = agent.held.as_ref().filter(|held| !held.past.is_empty()) else {
            return;
        };
        let told = Action::NoteAttempts {
            task: held.task.clone(),
            fence: held.fence,
            incarnation: agent.incarnation,
            past: held.past.clone(),
        };
        self.act(told);
    }

    /// It has failed with all its causes; people are told, and the manager, who may put something
    /// better in its place.
    fn give_up_task(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(held) = agent.held.take() else {
            return;
        };
        let text = format!("failed after {} attempts: {}", held.failures, causes(&held));
        let finishing = Finishing {
            task: held.task.clone(),
            fence: held.fence,
            text: text.clone(),
            outcome: FinishAs::Failed,
            past: held.past.clone(),
        };
        let action = finish_action(id, &finishing);
        agent.finishing.push(finishing);
        self.act(action);
        let notice = format!("{} ({}) {text}", held.task, held.title);
        let hint = format!(
            "other work goes on; see `orchestrator task show {}`, then change the words of its line",
            held.task
        );
        self.notice(now, Some(id), &notice, Some(hint));
        if id.worker_number().is_some() {
            let part: String = held.task.as_str().chars().take(ID_PART).collect();
            self.act(Action::CreateTask(NewTask {
                id: TaskId::new(format!("failed-{part}-{}", held.fence)),
                owner: AgentId::manager(),
                description: texts::task_failed(id, &held.task, &held.title, &each_cause(&held)),
                priority: -50,
                source: TaskSource::Direct,
            }));
        }
    }
}

/// Those that count, in a line: `out of memory: killed ...; 2 times crashed: killed (exit 137)`.
fn causes(held: &Held) -> String {
    let mut found: Vec<(String, u32)> = Vec::new();
    for text in each_cause(held) {
        match found.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times += 1,
            None => found.push((text, 1)),
        }
    }
    let told = found.into_iter().map(|(text, times)| match times {
        1 => text,
        times => format!("{times} times {text}"),
    });
    told.collect::<Vec<_>>().join("; ")
}

fn each_cause(held: &Held) -> Vec<String> {
    let since = held.past.iter().filter(|note| note.number > held.forgiven);
    let counted = since.filter(|note| note.end.counts());
    counted.map(AttemptNote::told).collect()
}
