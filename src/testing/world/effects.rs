//! Carries actions out on the world, as the driver and its effects do on the real one.

use std::time::Duration;

use super::mind::Doing;
use super::{Container, Waiting, World};
use crate::model::{AgentId, HookFact, Incarnation, Screen};
use crate::supervisor::{Action, Event, ImportOutcome};

impl World {
    /// At once what the driver does itself; the rest waits for its step.
    pub(super) fn carry_out(&mut self, action: Action) {
        let after = match &action {
            Action::Answer { .. }
            | Action::Claim { .. }
            | Action::Complete { .. }
            | Action::Release { .. }
            | Action::CreateTask(_)
            | Action::ReadTaskLists
            | Action::Finish { .. } => return self.carry_out_now(action),
            Action::CheckScreen { after, .. }
            | Action::TakeInventory { after }
            | Action::Push { after } => *after,
            _ => Duration::ZERO,
        };
        let at = self.now + after;
        self.outbox.push(Waiting { at, action });
    }

    fn carry_out_now(&mut self, action: Action) {
        let now = self.now;
        let result = match action {
            Action::Answer { callback, answer } => {
                let report = self.pending.remove(&callback);
                let Some(report) = report else {
                    panic!("{callback} is answered, but nobody waits:\n{}", self.tail());
                };
                return self.answered(&report.agent, &callback, &answer);
            }
            Action::Finish { ending } => {
                self.finished = Some(ending);
                return;
            }
            Action::Claim {
                agent,
                incarnation,
                task,
                ..
            } => Some(match self.queue.claim(now, &agent, incarnation, &task) {
                Ok(claimed) => Event::Claimed {
                    agent,
                    task: Box::new(claimed),
                },
                Err(reason) => Event::ClaimLost {
                    agent,
                    task,
                    reason,
                },
            }),
            Action::Complete {
                agent,
                task,
                fence,
                result,
            } => {
                if self.queue.complete(&task, fence, &result) {
                    self.check_completion(&agent, &task);
                }
                Some(Event::TaskFinished { agent, task })
            }
            Action::Release {
                agent,
                task,
                fence,
                retry,
                ..
            } => {
                self.queue.release(&task, fence, retry);
                Some(Event::TaskFinished { agent, task })
            }
            Action::CreateTask(new) => {
                self.queue.create(now, new);
                None
            }
            _ => {
                for (place, (owner, item)) in self.lists.clone().into_iter().enumerate() {
                    let place = i64::try_from(place).unwrap_or(i64::MAX);
                    self.queue.list_item(now, &owner, &item, place);
                }
                None
            }
        };
        let queue = self.queue.view(&self.policy.agents());
        self.inbox.push_back(Event::QueueChanged(queue));
        self.inbox.extend(result);
    }

    /// Carries out the first action that is due. False if there is none.
    pub fn step(&mut self) -> bool {
        let now = self.now;
        let Some(place) = self.outbox.iter().position(|w| w.at <= now) else {
            return false;
        };
        let Waiting { action, .. } = self.outbox.remove(place);
        self.execute(action);
        true
    }

    fn execute(&mut self, action: Action) {
        let event = match action {
            Action::Launch {
                agent,
                incarnation,
                session,
                ..
            } => {
                self.git.check_out(&agent);
                let event = self.launch(&agent, incarnation);
                if matches!(event, Event::Launched { .. })
                    && let Some(mind) = self.minds.get_mut(&agent)
                {
                    mind.session.get_or_insert(session);
                }
                Some(event)
            }
            Action::Adopt { agent, incarnation } => {
                self.open_door(&agent, incarnation);
                None
            }
            Action::CheckScreen {
                agent, incarnation, ..
            } => Some(self.look(&agent, incarnation)),
            Action::StopContainer {
                agent, incarnation, ..
            } => self.stop(&agent, incarnation),
            Action::TakeInventory { .. } => Some(Event::InventoryTaken(self.inventory())),
            Action::Paste {
                agent,
                incarnation,
                text,
                bring_up_to,
                clear,
            } => {
                if let Some(target) = bring_up_to {
                    self.git.bring_up(&agent, &target);
                }
                return self.paste(&agent, incarnation, &text, clear);
            }
            Action::Import { agent, .. } => Some(self.import(agent)),
            Action::Merge { agent, commit, .. } => {
                let outcome = self.git.merge(&commit);
                Some(Event::MergeFinished {
                    agent,
                    commit,
                    outcome,
                })
            }
            Action::Push { .. } => Some(Event::PushFinished(self.git.push())),
            Action::FetchRemote => Some(Event::RemoteFetched(self.git.fetch())),
            _ => None,
        };
        self.after_effect(event.into_iter().collect());
    }

    /// The daemon may die between an effect and its result.
    fn after_effect(&mut self, events: Vec<Event>) {
        if events.is_empty() || self.crash_point() {
            return;
        }
        for event in events {
            self.observe(event);
        }
    }

    fn launch(&mut self, agent: &AgentId, incarnation: Incarnation) -> Event {
        let failed = |reason: &str, retry| Event::LaunchFailed {
            agent: agent.clone(),
            incarnation,
            reason: reason.to_owned(),
            hint: None,
            retry,
        };
        if !self.engine_up {
            return failed("the engine does not answer", true);
        }
        if let Some(retry) = self.launch_faults.pop() {
            return failed("told to fail", retry);
        }
        if let Some(other) = self.live(agent).filter(|life| *life != incarnation) {
            panic!(
                "{agent} {incarnation} is launched while {other} runs:\n{}",
                self.tail()
            );
        }
        let container = self
            .containers
            .entry((agent.clone(), incarnation))
            .or_default();
        if container.exit_code.is_some() {
            return failed("a container of this life has ended already", true);
        }
        container.running = true;
        self.doors.insert(agent.clone(), incarnation);
        Event::Launched {
            agent: agent.clone(),
            incarnation,
            container: format!("{agent}-{incarnation}"),
        }
    }

    fn look(&self, agent: &AgentId, incarnation: Incarnation) -> Event {
        let screen = match self.live(agent) {
            Some(life) if life == incarnation => self.minds[agent].screen(),
            _ => Screen::Blank,
        };
        Event::ScreenSeen {
            agent: agent.clone(),
            incarnation,
            screen,
        }
    }

    fn stop(&mut self, agent: &AgentId, incarnation: Incarnation) -> Option<Event> {
        if !self.engine_up {
            return None;
        }
        let ran = self.kill(agent, incarnation, 143, false);
        let exit_code = ran.then_some(143);
        Some(Event::Exited {
            agent: agent.clone(),
            incarnation,
            exit_code,
            out_of_memory: false,
        })
    }

    /// The container's main process ends. False if it did not run.
    pub(super) fn kill(
        &mut self,
        agent: &AgentId,
        life: Incarnation,
        code: i64,
        oom: bool,
    ) -> bool {
        let container = self.containers.get_mut(&(agent.clone(), life));
        let Some(container) = container.filter(|c| c.running) else {
            return false;
        };
        *container = Container {
            running: false,
            exit_code: Some(code),
            out_of_memory: oom,
        };
        if let Some(mind) = self.minds.get_mut(agent) {
            mind.dies();
        }
        true
    }

    fn paste(&mut self, agent: &AgentId, incarnation: Incarnation, text: &str, clear: bool) {
        let seen = self.look(agent, incarnation);
        let Event::ScreenSeen { screen, .. } = &seen else {
            return;
        };
        let free = match screen {
            Screen::Ready => true,
            Screen::Draft => clear,
            _ => false,
        };
        if !free {
            return self.after_effect(vec![seen]);
        }
        let pasted = Event::Pasted {
            agent: agent.clone(),
            incarnation,
        };
        let Some(mind) = self.minds.get_mut(agent) else {
            return;
        };
        mind.draft = None;
        if mind.swallow > 0 {
            mind.swallow -= 1;
            return self.after_effect(vec![pasted]);
        }
        mind.takes(text);
        let prompt = HookFact::PromptSubmitted {
            text: text.to_owned(),
            machine: false,
        };
        if self.hasty_receipts {
            self.hook(agent, prompt);
            self.after_effect(vec![pasted]);
        } else {
            self.after_effect(vec![pasted]);
            self.hook(agent, prompt);
        }
    }

    fn import(&mut self, agent: AgentId) -> Event {
        let outcome = if self.engine_up {
            ImportOutcome::Taken {
                head: self.git.head(&agent),
                dirty: self.minds[&agent].dirty.clone(),
            }
        } else {
            ImportOutcome::Failed {
                reason: "the engine does not answer".into(),
            }
        };
        Event::Imported { agent, outcome }
    }

    /// What an agent does now, for behaviours to see whether they apply.
    pub fn doing(&self, agent: &AgentId) -> Option<&Doing> {
        self.live(agent)?;
        self.minds.get(agent).map(|mind| &mind.doing)
    }
}
