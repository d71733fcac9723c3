//! Carries actions out on the world, as the driver and its effects do on the real one.

use std::time::Duration;

use super::mind::Doing;
use super::{Container, Waiting, World};
use crate::model::{
    AgentId, AttemptNote, HookFact, Incarnation, RescueCause, Screen, SessionNote, TaskId,
    Timestamp,
};
use crate::supervisor::{
    Action, Again, Event, Examination, ImportOutcome, TranscriptSeen, VitalsSeen, WorkAsked,
    WorkFound,
};

/// What the driver does itself, before its next decision.
pub(super) fn is_done_at_once(action: &Action) -> bool {
    matches!(
        action,
        Action::Answer { .. }
            | Action::Claim { .. }
            | Action::Complete { .. }
            | Action::Release { .. }
            | Action::NoteAttempts { .. }
            | Action::RetryTask { .. }
            | Action::CancelTask { .. }
            | Action::CreateTask(_)
            | Action::ReadTaskLists
            | Action::Finish { .. }
    )
}

impl World {
    /// At once what the driver does itself; the rest waits for its step.
    pub(super) fn carry_out(&mut self, action: Action) {
        if is_done_at_once(&action) {
            return self.carry_out_now(action);
        }
        let after = match &action {
            Action::CheckScreen { after, .. }
            | Action::CheckSession { after, .. }
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
                    // The driver finds nobody who waits, and does nothing.
                    if self.repeating {
                        return;
                    }
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
                receipt,
                past,
            } => {
                self.keep_attempts(&task, fence, &past);
                if self.queue.complete(now, &task, fence, &result, receipt) {
                    self.check_completion(&agent, &task);
                }
                Some(Event::TaskFinished { agent, task })
            }
            Action::Release {
                agent,
                task,
                fence,
                reason,
                retry,
                past,
            } => {
                self.keep_attempts(&task, fence, &past);
                self.queue.release(now, &task, fence, &reason, retry);
                Some(Event::TaskFinished { agent, task })
            }
            Action::NoteAttempts {
                task,
                fence,
                incarnation,
                past,
            } => {
                self.queue.note(now, &task, fence, incarnation, &past);
                None
            }
            Action::RetryTask { task } => {
                self.queue.wish(now, &task, true);
                Some(Event::TaskSettled { task })
            }
            Action::CancelTask { task } => {
                self.queue.wish(now, &task, false);
                Some(Event::TaskSettled { task })
            }
            Action::CreateTask(new) => {
                let (owner, task) = (new.owner.clone(), new.id.clone());
                self.queue.create(now, new);
                let open = self.queue.get(&task).is_some_and(|t| !t.status.is_final());
                Some(Event::TaskCreated { owner, task, open })
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

    /// Gates that run until they are released.
    pub(super) fn holds(&self, waiting: &Waiting) -> bool {
        self.gates_held && matches!(waiting.action, Action::RunGates { .. })
    }

    fn keep_attempts(&mut self, task: &TaskId, fence: u64, past: &[AttemptNote]) {
        if let Some(last) = past.last() {
            let now = self.now;
            self.queue.note(now, task, fence, last.incarnation, past);
        }
    }

    /// Carries out the first action that is due. False if there is none.
    pub fn step(&mut self) -> bool {
        let now = self.now;
        let due = |w: &Waiting| w.at <= now && !self.holds(w);
        let Some(place) = self.outbox.iter().position(due) else {
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
                go_on,
                ..
            } => {
                if !go_on && let Some(mind) = self.minds.get_mut(&agent) {
                    mind.interrupted = None;
                }
                self.git.check_out(&agent);
                self.check_kept(&agent);
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
            Action::Examine { agent, incarnation } => Some(self.examine(agent, incarnation)),
            Action::CheckSession {
                agent, incarnation, ..
            } => {
                let note = self.note_of(&agent, incarnation);
                Some(Event::SessionChecked {
                    agent,
                    incarnation,
                    note,
                })
            }
            Action::StopContainer {
                agent, incarnation, ..
            } => {
                let kept = self.rescue(&agent, RescueCause::Stop);
                let ended = self.stop(&agent, incarnation);
                return self.after_effect(kept.into_iter().chain(ended).collect());
            }
            Action::Rescue { agent, cause, .. } => self.rescue(&agent, cause),
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
            Action::Lend {
                agent,
                incarnation,
                credential,
            } => Some(self.lend(agent, incarnation, credential)),
            Action::Refresh { credential } => Some(self.refresh(credential)),
            Action::CloseDialog {
                agent,
                incarnation,
                name,
            } => {
                if let Some(mind) = self.minds.get_mut(&agent) {
                    mind.dialog.take_if(|open| *open == name);
                }
                Some(self.look(&agent, incarnation))
            }
            Action::Import { agent, claims, .. } => {
                let dirty = !self.minds[&agent].dirty.is_empty();
                let kept = dirty.then(|| self.rescue(&agent, RescueCause::TurnEnd));
                let imported = self.import(agent, claims);
                let events = kept.flatten().into_iter().chain([imported]);
                return self.after_effect(events.collect());
            }
            Action::BuildStack { stack, candidates } => {
                let outcome = self.git.build_stack(&candidates);
                Some(Event::StackBuilt { stack, outcome })
            }
            Action::RunGates { stack, commit, .. } => {
                let outcome = self.git.run_gates(&self.policy.gates, &commit);
                Some(Event::GatesFinished {
                    stack,
                    commit,
                    outcome,
                })
            }
            Action::Land { stack, from, to } => {
                let outcome = self.git.land(&from, &to);
                Some(Event::Landed { stack, outcome })
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
        let failed = |reason: &str, again| Event::LaunchFailed {
            agent: agent.clone(),
            incarnation,
            reason: reason.to_owned(),
            hint: None,
            again,
        };
        if !self.engine_up {
            return failed("the engine does not answer", Again::WithTheEngine);
        }
        if let Some(retry) = self.launch_faults.pop() {
            let again = if retry { Again::Counted } else { Again::Never };
            return failed("told to fail", again);
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
        if let Some(exit_code) = container.exit_code {
            return Event::Exited {
                agent: agent.clone(),
                incarnation,
                exit_code: Some(exit_code),
                out_of_memory: container.out_of_memory,
            };
        }
        container.running = true;
        let lent = self.fleet().agents[agent].credential.clone();
        self.equip(agent, lent);
        self.approve(agent);
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

    /// A running turn ticks, everything that lives uses some CPU; the rest stands still.
    fn examine(&self, agent: AgentId, incarnation: Incarnation) -> Event {
        let alive = self.live(&agent) == Some(incarnation) && self.engine_up;
        let mind = &self.minds[&agent];
        let screen = mind.screen();
        let moves = mind.stopped.is_none();
        let time = u64::try_from(self.now.0).unwrap_or(0);
        let ticks = moves && screen == Screen::Busy;
        let vitals = alive.then_some(VitalsSeen {
            cpu_nanos: if moves || mind.computes {
                time * 5000
            } else {
                0
            },
            paused: false,
        });
        let seen = Box::new(Examination {
            screen: Some((screen, if ticks { time } else { 0 })),
            transcript: Some(TranscriptSeen {
                bytes: 1000,
                changed: Timestamp(0),
            }),
            session: None,
            vitals,
            status_line: None,
        });
        Event::Examined {
            agent,
            incarnation,
            seen,
        }
    }

    /// What its Claude Code notes about itself; it starts right with its container.
    fn note_of(&self, agent: &AgentId, incarnation: Incarnation) -> SessionNote {
        if self.live(agent) != Some(incarnation) {
            return SessionNote::Missing;
        }
        let Some(mind) = self.minds.get(agent) else {
            return SessionNote::Missing;
        };
        mind.note(self.now)
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
        if self.paste_faults > 0 {
            self.paste_faults -= 1;
            let (agent, reason) = (agent.clone(), "told to fail".into());
            return self.after_effect(vec![Event::PasteFailed {
                agent,
                incarnation,
                reason,
            }]);
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

    fn import(&mut self, agent: AgentId, claims: Vec<WorkAsked>) -> Event {
        let outcome = if self.engine_up {
            let head = self.git.head(&agent);
            let found = claims.into_iter().map(|asked| WorkFound {
                work: self.git.work_of(&agent, &head, &asked.spans),
                task: asked.task,
                fence: asked.fence,
                spans: asked.spans.len(),
            });
            ImportOutcome::Taken {
                work: found.collect(),
                dirty: self.minds[&agent].dirty.clone(),
                head,
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
