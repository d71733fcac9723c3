//! Which task goes to which agent, and how it gets there for sure.

use std::time::Duration;

use super::Supervisor;
use super::action::{Action, ClaimFor};
use super::lifecycle::finish_action;
use super::pool::LIMIT_DIALOG;
use super::screens::LOOK_AT_DIALOG;
use super::state::{AgentState, FinishAs, Finishing, Held, Phase};
use super::texts;
use crate::model::{AgentId, CommitId, Incarnation, Screen, Task, TaskId, Timestamp};

/// A paste into a loaded machine may take its time; the receipt deadline starts after it.
pub(super) const PASTE_DEADLINE: Duration = Duration::from_secs(90);

impl Held {
    /// It is told now, by an agent whose branch is at `head` and is brought up first.
    pub(super) fn begins(&mut self, head: Option<&CommitId>, bring_up_to: Option<&CommitId>) {
        if self.after.is_empty() && !self.interrupted {
            self.after
                .extend(head.into_iter().chain(bring_up_to).cloned());
        }
    }

    /// The next life goes on with it by itself.
    pub(super) fn goes_on(&self) -> bool {
        self.interrupted && self.begun
    }

    /// What is pasted next, and awaited.
    pub(super) fn words(&self) -> &str {
        self.cut_off.as_deref().unwrap_or(&self.text)
    }

    /// To go on is not enough any more: somebody else had the last word, or there is none.
    pub(super) fn tell_in_full(&mut self) {
        if self.cut_off.take().is_some() {
            self.text = texts::again(&self.text);
        }
    }
}

impl Supervisor {
    /// The text whose receipt is awaited, for the driver to compare prompts with.
    pub fn awaited_text(&self, id: &AgentId) -> Option<&str> {
        let held = self.fleet.agents.get(id)?.held.as_ref()?;
        (!held.delivered).then_some(held.words())
    }

    /// Gives every idle agent its next task.
    pub(super) fn dispatch(&mut self, now: Timestamp) {
        if self.fleet.ending().is_some() {
            return;
        }
        let idle: Vec<AgentId> = self
            .fleet
            .agents
            .values()
            .filter(|agent| agent.phase == Phase::Idle && agent.held.is_none())
            .filter(|agent| agent.may_work(&self.fleet.pool) && !agent.leaves(now))
            .map(|agent| agent.id.clone())
            .collect();
        for id in idle {
            if let Some(task) = self.next_task(&id) {
                self.claim(now, &id, task, ClaimFor::Paste);
            }
        }
    }

    /// The first candidate that nobody here is claiming, holding or finishing.
    pub(super) fn next_task(&self, id: &AgentId) -> Option<TaskId> {
        let taken = |task: &TaskId| {
            let wished = self.fleet.wishes.iter().any(|wish| wish.task == *task);
            wished
                || self.fleet.agents.values().any(|agent| {
                    agent.held.as_ref().is_some_and(|held| held.task == *task)
                        || agent.claims.iter().any(|claim| claim.task == *task)
                        || agent.finishing.iter().any(|f| f.task == *task)
                        || matches!(&agent.phase, Phase::Claiming { task: t, .. } if t == task)
                })
        };
        self.queue
            .candidates
            .get(id)?
            .iter()
            .find(|task| !taken(task))
            .cloned()
    }

    pub(super) fn claim(&mut self, now: Timestamp, id: &AgentId, task: TaskId, purpose: ClaimFor) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.enter(
            now,
            Phase::Claiming {
                task: task.clone(),
                purpose: purpose.clone(),
            },
            format!("claiming {task}"),
        );
        let incarnation = agent.incarnation;
        self.act(Action::Claim {
            agent: id.clone(),
            incarnation,
            task,
            purpose,
        });
    }

    pub(super) fn on_claimed(&mut self, now: Timestamp, id: &AgentId, task: Task) {
        let context = self.text_context(id);
        let needless = self.is_needless(id, &task);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let fence = task.claim.as_ref().map_or(0, |claim| claim.fence);
        if knows_claim(agent, &task.id, fence) {
            return;
        }
        let purpose = match &agent.phase {
            Phase::Claiming {
                task: wanted,
                purpose,
            } if *wanted == task.id => Some(purpose.clone()),
            // It died meanwhile: it is told when it is back.
            phase if phase.comes_back() && agent.held.is_none() => None,
            _ => {
                // The agent was stopped meanwhile: give it back.
                let back = Finishing {
                    task: task.id,
                    fence,
                    text: "its agent went away while claiming it".into(),
                    outcome: FinishAs::Retry,
                    receipt: None,
                    tell_manager: None,
                    past: Vec::new(),
                };
                let action = finish_action(id, &back);
                agent.finishing.push(back);
                self.act(action);
                return;
            }
        };
        if needless {
            self.pass_over(now, id, &task, purpose);
            return;
        }
        let failures = task.failures();
        agent.held = Some(Held {
            title: texts::title(&task),
            text: agent.tell_dropped(&task.id, texts::task(&task, &context)),
            scope: task.scope,
            after: Vec::new(),
            from: agent.stop.clone(),
            before: agent.uncommitted.clone(),
            fence,
            source: task.source,
            since: now,
            attempts: task.attempts,
            delivered: false,
            interrupted: false,
            begun: false,
            failures,
            past: task.history,
            forgiven: task.forgiven,
            began: now,
            cut_off: None,
            task: task.id,
        });
        match purpose {
            None => {}
            Some(ClaimFor::Paste) => self.deliver_held(now, id, 1),
            Some(ClaimFor::Answer { callback }) => {
                let Some(held) = &mut agent.held else { return };
                held.delivered = true;
                let text = held.text.clone();
                let reason = "the answer to its Stop hook carried the task";
                agent.enter(now, Phase::Working, reason);
                self.hand_over(id, callback, text);
            }
        }
    }

    pub(super) fn on_claim_lost(&mut self, now: Timestamp, id: &AgentId, task: &TaskId, why: &str) {
        if let Some(waiting) = self.queue.candidates.get_mut(id) {
            waiting.retain(|candidate| candidate != task);
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Phase::Claiming {
            task: wanted,
            purpose,
        } = agent.phase.clone()
        else {
            return;
        };
        if wanted != *task {
            return;
        }
        agent.enter(now, Phase::Idle, format!("{task} went elsewhere: {why}"));
        if let ClaimFor::Answer { callback } = purpose {
            self.next_or_let_go(now, id, Some(callback));
        }
    }

    /// Pastes what the agent holds, unless it could only fail; `attempt` counts from 1.
    pub(super) fn deliver_held(&mut self, now: Timestamp, id: &AgentId, attempt: u32) {
        let bring_up_to = self.news_for(id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if !agent.may_work(&self.fleet.pool) {
            let text = "at its prompt, without a credential it could use";
            return self.await_credential(now, id, text);
        }
        let Some(held) = &mut agent.held else { return };
        held.begins(agent.head.as_ref(), bring_up_to.as_ref());
        if held.delivered {
            held.text = texts::again(&held.text);
        }
        held.delivered = false;
        agent.signals.pasted = true;
        let text = held.words().to_owned();
        let reason = format!("delivering {} (try {attempt})", held.task);
        agent.enter(
            now,
            Phase::Delivering {
                until: now + PASTE_DEADLINE,
                attempt,
                looking: false,
            },
            reason,
        );
        let incarnation = agent.incarnation;
        let clear = attempt > 1;
        self.act(Action::Paste {
            agent: id.clone(),
            incarnation,
            text,
            bring_up_to,
            clear,
        });
    }

    pub(super) fn on_pasted(&mut self, now: Timestamp, id: &AgentId, incarnation: Incarnation) {
        let receipt_deadline = self.policy.receipt_deadline;
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if let Phase::Delivering { attempt, .. } = agent.phase {
            agent.phase = Phase::Delivering {
                until: now + receipt_deadline,
                attempt,
                looking: false,
            };
        }
    }

    pub(super) fn on_paste_failed(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        reason: &str,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if let Phase::Delivering { attempt, .. } = agent.phase {
            agent.reason = format!("could not be pasted ({reason}); trying again");
            agent.phase = Phase::Delivering {
                until: now + Duration::from_secs(1),
                attempt,
                looking: false,
            };
            self.act(Action::EnsurePane { agent: id.clone() });
        }
    }

    /// No receipt: look at the screen before anything is typed again.
    pub(super) fn receipt_is_late(&mut self, now: Timestamp, id: &AgentId, attempt: u32) {
        let receipt_deadline = self.policy.receipt_deadline;
        if attempt >= self.policy.delivery_attempts {
            let text = format!("its task could not be delivered in {attempt} tries");
            self.wait_for_person(now, id, &text);
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        agent.phase = Phase::Delivering {
            until: now + receipt_deadline,
            attempt: attempt + 1,
            looking: true,
        };
        self.act(Action::EnsurePane { agent: id.clone() });
        self.act(Action::CheckScreen {
            agent: id.clone(),
            incarnation,
            after: Duration::ZERO,
        });
    }

    /// What the screen says while a receipt is late, or why a paste was not even tried.
    pub(super) fn screen_at_delivery(&mut self, now: Timestamp, id: &AgentId, screen: Screen) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Phase::Delivering {
            attempt, looking, ..
        } = agent.phase
        else {
            return;
        };
        match screen {
            // Seen before the paste that is on its way: no reason for another one.
            Screen::Ready if !looking => {}
            Screen::Ready => self.deliver_held(now, id, attempt.max(1)),
            // A person may be typing: wait once, then clear the line.
            Screen::Draft if attempt > 1 && looking => self.deliver_held(now, id, attempt),
            Screen::Draft => {
                let until = now + LOOK_AT_DIALOG;
                agent.phase = Phase::Delivering {
                    until,
                    attempt: attempt.max(1),
                    looking: false,
                };
            }
            // A turn runs: ours without its hook, or a person's. Its Stop hook will tell.
            Screen::Busy => {
                agent.enter(
                    now,
                    Phase::Working,
                    "busy; what waits is handed over at its Stop hook",
                );
            }
            Screen::Dialog { name } if name == LIMIT_DIALOG => self.close_limit_dialog(now, id),
            Screen::Dialog { name } => {
                let text = format!("a dialog waits for a person: {name}");
                self.wait_for_person(now, id, &text);
            }
            Screen::NotLoggedIn => {
                self.wait_for_person(now, id, "Claude Code says it is not logged in");
            }
            Screen::Blank | Screen::Unrecognised { .. } => {
                agent.phase = Phase::Delivering {
                    until: now + LOOK_AT_DIALOG,
                    attempt,
                    looking: false,
                };
            }
        }
    }

    /// Opened by itself when the turn before this text met the limit of a login. Its answer is the
    /// next screen.
    fn close_limit_dialog(&mut self, now: Timestamp, id: &AgentId) {
        let tries = self.policy.delivery_attempts;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Phase::Delivering { attempt, .. } = agent.phase else {
            return;
        };
        if attempt >= tries {
            let text = format!("the dialog {LIMIT_DIALOG} does not close");
            return self.wait_for_person(now, id, &text);
        }
        agent.phase = Phase::Delivering {
            until: now + LOOK_AT_DIALOG,
            attempt: attempt + 1,
            looking: true,
        };
        let incarnation = agent.incarnation;
        self.act(Action::CloseDialog {
            agent: id.clone(),
            incarnation,
            name: LIMIT_DIALOG.to_owned(),
        });
    }

    pub(super) fn on_task_finished(&mut self, id: &AgentId, task: &TaskId) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.finishing.retain(|finishing| finishing.task != *task);
        }
    }
}

/// The event is a repeat: the claim is in its hand, or on its way back.
fn knows_claim(agent: &AgentState, task: &TaskId, fence: u64) -> bool {
    let held = agent.held.as_ref();
    held.is_some_and(|held| held.task == *task && held.fence == fence)
        || agent
            .claims
            .iter()
            .any(|claim| claim.task == *task && claim.fence == fence)
        || agent
            .finishing
            .iter()
            .any(|f| f.task == *task && f.fence == fence)
}
