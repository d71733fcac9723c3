//! The hook doors: callbacks to the daemon or into the spool, and the answers back.

use super::World;
use super::mind::Doing;
use crate::model::{AgentId, CallbackId, HookAnswer, HookFact, HookReport, Incarnation};
use crate::supervisor::{Event, HookInput};

impl World {
    /// A hook of an agent's session: to the daemon if its door is open, else into the spool.
    pub(super) fn hook(&mut self, agent: &AgentId, fact: HookFact) {
        if self.minds[agent].mute {
            return;
        }
        self.callbacks += 1;
        let callback = CallbackId::new(format!("cb-{}", self.callbacks));
        if let HookFact::TurnFailed { .. } = fact
            && let Some(fault) = self.fault.take()
        {
            self.faults.insert(callback.clone(), fault);
        }
        let stopped = matches!(fact, HookFact::Stopped { .. });
        let life = self.live(agent);
        let mut report = HookReport {
            callback: callback.clone(),
            agent: agent.clone(),
            incarnation: life,
            session: self.minds[agent].session.clone(),
            head: Some(self.git.head(agent)),
            spooled: false,
            at: None,
            fact,
        };
        if stopped && let Some(mind) = self.minds.get_mut(agent) {
            mind.doing = Doing::Stopping {
                callback: callback.clone(),
            };
        }
        if self.up() && self.doors.get(agent).copied() == life {
            self.pending.insert(callback.clone(), report.clone());
            let dirty = self.minds[agent].dirty.clone();
            self.deliver(report);
            if stopped && !self.minds[agent].tree_untold {
                self.observe(Event::TreeSeen {
                    agent: agent.clone(),
                    callback,
                    uncommitted: dirty,
                });
            }
        } else {
            report.spooled = true;
            self.spools.entry(agent.clone()).or_default().push(report);
            self.answered(agent, &callback, &HookAnswer::LetGo);
        }
    }

    /// One callback to the daemon; whether it is a receipt is judged as the driver does.
    fn deliver(&mut self, report: HookReport) {
        let receipt = match &report.fact {
            HookFact::PromptSubmitted {
                text,
                machine: false,
            } => self
                .supervisor
                .as_ref()
                .and_then(|s| s.awaited_text(&report.agent))
                .is_some_and(|sent| sent.trim() == text.trim()),
            _ => false,
        };
        let fault = self.faults.get(&report.callback).cloned();
        self.observe(Event::Hook(HookInput {
            report,
            receipt,
            fault,
            jitter: 500,
        }));
    }

    /// The door of an agent opens: what it spooled comes first, what is known already never twice.
    pub(super) fn open_door(&mut self, agent: &AgentId, life: Incarnation) {
        self.doors.insert(agent.clone(), life);
        while self.up()
            && let Some(report) = self.spools.get(agent).and_then(|s| s.first().cloned())
        {
            let callback = report.callback.clone();
            match self.answers.get(&callback).cloned() {
                Some(HookAnswer::Continue { text, .. }) => self.observe(Event::AnswerLost {
                    agent: agent.clone(),
                    incarnation: report.incarnation.unwrap_or_default(),
                    text,
                }),
                Some(_) => {}
                None => {
                    self.deliver(report);
                    if self.up() {
                        self.answers.insert(callback, HookAnswer::LetGo);
                    }
                }
            }
            if self.up()
                && let Some(spool) = self.spools.get_mut(agent)
            {
                spool.remove(0);
            }
        }
    }

    /// What an answer does to the agent that waited for it.
    pub(super) fn answered(&mut self, agent: &AgentId, callback: &CallbackId, answer: &HookAnswer) {
        let Some(mind) = self.minds.get_mut(agent) else {
            return;
        };
        if !matches!(&mind.doing, Doing::Stopping { callback: c } if c == callback) {
            return;
        }
        match answer {
            HookAnswer::Continue { text, bring_up_to } => {
                mind.takes(text);
                if let Some(target) = bring_up_to {
                    self.git.bring_up(agent, target);
                }
            }
            HookAnswer::LetGo | HookAnswer::Deny { .. } => mind.doing = Doing::AtPrompt,
        }
    }
}
