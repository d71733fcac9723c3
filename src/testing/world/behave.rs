//! What agents, people and the surroundings do. Each returns whether it applied.

use std::time::Duration;

use super::World;
use super::mind::Doing;
use super::pool::LIMIT_DIALOG;
use crate::model::{AgentId, Fault, HookFact, Incarnation, SessionId};
use crate::supervisor::Event;

/// How a turn ends.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub background: u32,
    pub dirty: Vec<String>,
    /// Ends without having done anything.
    pub idle: bool,
    /// With what it ends its last message.
    pub says: Option<String>,
}

impl World {
    /// Claude Code has started: its dialog, if any, then its SessionStart hook, then its prompt.
    pub fn boot(&mut self, agent: &AgentId) -> bool {
        if self.doing(agent) != Some(&Doing::Booting) {
            return false;
        }
        let Some(mind) = self.minds.get_mut(agent) else {
            return false;
        };
        if let Some(name) = mind.dialog_at_start.take() {
            mind.dialog = Some(name);
            return true;
        }
        if mind.dialog.is_some() {
            return false;
        }
        let source = if mind.received.is_empty() {
            "startup"
        } else {
            "resume"
        };
        mind.doing = match mind.interrupted.take() {
            Some(text) => Doing::Working { text },
            None => Doing::AtPrompt,
        };
        let source = source.to_owned();
        self.hook(agent, HookFact::SessionStarted { source });
        true
    }

    pub fn turn_ends(&mut self, agent: &AgentId, turn: &Turn) -> bool {
        let Some(Doing::Working { text }) = self.doing(agent).cloned() else {
            return false;
        };
        if self.minds[agent].dialog.is_some() || self.minds[agent].stopped.is_some() {
            return false;
        }
        if let Some(fault) = self.credential_fault(agent) {
            return self.turn_fails_as(agent, fault);
        }
        if !turn.idle {
            self.works(agent, &text);
        }
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.background = turn.background;
            mind.dirty.clone_from(&turn.dirty);
            if !turn.dirty.is_empty() {
                mind.written += 1;
            } else if !turn.idle {
                mind.kept = mind.written;
            }
        }
        let mut last_message = format!("did: {}", first_line(&text));
        if let Some(says) = &turn.says {
            last_message = format!("{last_message}\n{says}");
        }
        self.hook(
            agent,
            HookFact::Stopped {
                background_tasks: turn.background,
                last_message,
            },
        );
        true
    }

    fn works(&mut self, agent: &AgentId, text: &str) {
        if text.contains("run `git merge ") {
            let wanted = self.git.named_in(text);
            return self.git.resolve(agent, &wanted);
        }
        if agent.worker_number().is_some() || text.contains("does not pass its gates") {
            return self.git.work(agent);
        }
        if text.contains("Mend a red gate. Your own") {
            return self.git.work(agent);
        }
        if text.contains("Decide what becomes of a task") {
            return;
        }
        if !self.plans.is_empty() {
            let items = self.plans.remove(0);
            if !items.is_empty() {
                self.lists.extend(items);
                self.git.work(agent);
            }
        }
    }

    /// Whatever its credential is like.
    pub fn turn_fails(&mut self, agent: &AgentId, error: &str) -> bool {
        let fault = match error {
            "rate_limit" => Fault::TooFast,
            "server_error" => Fault::Overloaded,
            "authentication_failed" => Fault::LoginRefused,
            "billing_error" => Fault::Billing,
            "model_not_found" => Fault::ModelRefused,
            "invalid_request" | "max_output_tokens" => Fault::TaskRefused,
            _ => Fault::Unclear,
        };
        self.turn_fails_with(agent, error, "said the server", fault)
    }

    pub(super) fn turn_fails_with(
        &mut self,
        agent: &AgentId,
        error: &str,
        message: &str,
        fault: Fault,
    ) -> bool {
        let Some(Doing::Working { text }) = self.doing(agent).cloned() else {
            return false;
        };
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.doing = Doing::AtPrompt;
            mind.interrupted = Some(text);
        }
        self.fault = Some(fault);
        self.hook(
            agent,
            HookFact::TurnFailed {
                error: error.to_owned(),
                message: message.to_owned(),
            },
        );
        true
    }

    /// Escape fires no hook at all.
    pub fn escape(&mut self, agent: &AgentId) -> bool {
        let working = matches!(self.doing(agent), Some(Doing::Working { .. }));
        if let Some(mind) = self.minds.get_mut(agent).filter(|_| working) {
            mind.doing = Doing::AtPrompt;
            mind.escaped = true;
        }
        working
    }

    /// A person types a prompt and presses Enter.
    pub fn types(&mut self, agent: &AgentId, text: &str) -> bool {
        let free = self.doing(agent) == Some(&Doing::AtPrompt);
        let Some(mind) = self.minds.get_mut(agent).filter(|m| m.dialog.is_none()) else {
            return false;
        };
        if !free {
            return false;
        }
        mind.draft = None;
        mind.takes(text);
        self.hook(
            agent,
            HookFact::PromptSubmitted {
                text: text.to_owned(),
                machine: false,
            },
        );
        true
    }

    /// A background task ends and wakes the session by itself.
    pub fn background_ends(&mut self, agent: &AgentId) -> bool {
        let free = self.doing(agent) == Some(&Doing::AtPrompt);
        let Some(mind) = self.minds.get_mut(agent) else {
            return false;
        };
        if !free || mind.background == 0 {
            return false;
        }
        mind.background = 0;
        let text = "<task-notification>".to_owned();
        mind.takes(&text);
        self.hook(
            agent,
            HookFact::PromptSubmitted {
                text,
                machine: true,
            },
        );
        true
    }

    /// `/clear`: the conversation goes, the prompt stays.
    pub fn clear(&mut self, agent: &AgentId) -> bool {
        if self.doing(agent) != Some(&Doing::AtPrompt) {
            return false;
        }
        self.callbacks += 1;
        let session = SessionId::new(format!("cleared-{}", self.callbacks));
        let reason = "clear".to_owned();
        self.hook(agent, HookFact::SessionEnded { reason });
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.session = Some(session);
            mind.interrupted = None;
        }
        let source = "clear".to_owned();
        self.hook(agent, HookFact::SessionStarted { source });
        true
    }

    /// Its process ends with this code; the engine says so if anybody listens.
    pub fn exits(&mut self, agent: &AgentId, code: i64, out_of_memory: bool) -> bool {
        let Some(life) = self.live(agent) else {
            return false;
        };
        if code == 0 {
            let reason = "prompt_input_exit".to_owned();
            self.hook(agent, HookFact::SessionEnded { reason });
        }
        self.kill(agent, life, code, out_of_memory);
        if self.engine_up {
            self.observe(Event::Exited {
                agent: agent.clone(),
                incarnation: life,
                exit_code: Some(code),
                out_of_memory,
            });
        }
        true
    }

    /// A tool of its turn has ended.
    pub fn uses_tool(&mut self, agent: &AgentId) -> bool {
        let working = matches!(self.doing(agent), Some(Doing::Working { .. }));
        if working {
            let what = "PostToolUse Bash".to_owned();
            self.hook(agent, HookFact::Activity { what });
        }
        working
    }

    /// It dies before the answer to its last Stop hook was written down: what its next life finds, and
    /// may go on with, is the turn before.
    pub fn forgets(&mut self, agent: &AgentId) -> bool {
        let working = matches!(self.doing(agent), Some(Doing::Working { .. }));
        let Some(mind) = self.minds.get_mut(agent).filter(|_| working) else {
            return false;
        };
        mind.received.pop();
        if let Some(text) = mind.received.last().cloned() {
            mind.doing = Doing::Working { text };
        }
        self.exits(agent, 137, false)
    }

    /// Its process stands still: nothing of it moves any more.
    pub fn stands_still(&mut self, agent: &AgentId) -> bool {
        let alive = self.doing(agent).is_some();
        if let Some(mind) = self.minds.get_mut(agent).filter(|_| alive) {
            mind.stopped = Some(mind.screen());
        }
        alive
    }

    /// A tool of its goes on computing.
    pub fn computes(&mut self, agent: &AgentId) -> bool {
        let working = matches!(self.doing(agent), Some(Doing::Working { .. }));
        if let Some(mind) = self.minds.get_mut(agent).filter(|_| working) {
            mind.computes = true;
        }
        working
    }

    pub fn opens_dialog(&mut self, agent: &AgentId, name: &str) -> bool {
        let shown = self.doing(agent).is_some();
        if let Some(mind) = self.minds.get_mut(agent).filter(|_| shown) {
            mind.dialog = Some(name.to_owned());
        }
        shown
    }

    /// A person answers it; a dialog at start gives way to the start.
    pub fn closes_dialog(&mut self, agent: &AgentId) -> bool {
        let Some(mind) = self.minds.get_mut(agent) else {
            return false;
        };
        let closed = mind.dialog.take().is_some();
        if closed && self.doing(agent) == Some(&Doing::Booting) {
            self.boot(agent);
        }
        closed
    }

    /// What a person does who knows that one dialog is not for people.
    fn answers_dialog(&mut self, agent: &AgentId) -> bool {
        let open = self
            .minds
            .get(agent)
            .and_then(|mind| mind.dialog.as_deref());
        open.is_some_and(|name| name != LIMIT_DIALOG) && self.closes_dialog(agent)
    }

    pub fn asks_permission(&mut self, agent: &AgentId) -> bool {
        let working = matches!(self.doing(agent), Some(Doing::Working { .. }));
        if working {
            let tool = "Bash".to_owned();
            self.hook(agent, HookFact::PermissionAsked { tool });
        }
        working
    }

    pub fn waits_for_permission(&mut self, agent: &AgentId) -> bool {
        if !matches!(self.doing(agent), Some(Doing::Working { .. })) {
            return false;
        }
        self.opens_dialog(agent, "permission");
        self.hook(
            agent,
            HookFact::Notified {
                notification: "permission_prompt".into(),
                message: "Claude needs your permission".into(),
            },
        );
        true
    }

    /// Something in its container is killed for lack of memory.
    pub fn starves(&mut self, agent: &AgentId) -> bool {
        let Some(incarnation) = self.live(agent).filter(|_| self.engine_up) else {
            return false;
        };
        let agent = agent.clone();
        self.observe(Event::Starved { agent, incarnation });
        true
    }

    /// The engine goes or comes, and its containers run on; on its return the driver takes an
    /// inventory.
    pub fn engine(&mut self, up: bool) {
        self.engine_up = up;
        let inventory = self.inventory();
        if up {
            return self.observe(Event::EngineBack(inventory));
        }
        let reason = "connection refused".into();
        self.observe(Event::EngineAway { reason });
        self.observe(Event::InventoryTaken(inventory));
    }

    /// The engine goes and takes its containers along, which nobody hears.
    pub fn engine_stops_everything(&mut self) {
        self.engine(false);
        let running = self.containers.iter().filter(|(_, c)| c.running);
        let all: Vec<(AgentId, Incarnation)> = running.map(|(key, _)| key.clone()).collect();
        for (agent, life) in all {
            self.kill(&agent, life, 143, false);
        }
    }

    pub fn add_task(&mut self, owner: &AgentId, description: &str) {
        let now = self.now;
        let place = i64::try_from(self.queue.tasks.len()).unwrap_or(i64::MAX);
        self.queue.list_item(now, owner, description, place);
        let view = self.queue.view(&self.policy.agents());
        self.observe(Event::QueueChanged(view));
    }

    /// Everybody does the natural thing until nothing is left, or this much time has passed.
    /// Returns what is left.
    pub fn live_on(&mut self, at_most: Duration) -> Vec<String> {
        let until = self.now + at_most;
        let agents: Vec<AgentId> = self.minds.keys().cloned().collect();
        loop {
            if !self.up() {
                self.start_daemon(true);
            }
            self.run_outbox();
            let mut moved = false;
            for agent in &agents {
                moved |= self.natural(agent);
                self.run_outbox();
            }
            let left = self.unfinished();
            if !moved && (left.is_empty() || self.now >= until) {
                return left;
            }
            if !moved {
                let next = self.next_moment().unwrap_or(until).min(until);
                self.advance(next.since(self.now).max(Duration::from_millis(1)));
            }
        }
    }

    fn natural(&mut self, agent: &AgentId) -> bool {
        self.answers_dialog(agent)
            || self.boot(agent)
            || self.background_ends(agent)
            || self.turn_ends(agent, &Turn::default())
            || (self.minds[agent].escaped && self.types(agent, "go on"))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
