//! The life of one agent: launch, adopt, exit, restart, give up.

use std::time::Duration;

use super::action::{Action, ClaimFor};
use super::input::{Inventory, SeenContainer};
use super::state::{AfterStop, FinishAs, Finishing, Phase};
use super::{Supervisor, with_jitter};
use crate::model::{AgentId, Incarnation, Reply, Screen, Timestamp};

/// How often the first screen is looked at before a greeted agent counts as ready anyway.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A dialog or a login problem is looked at this often: a person may have closed it.
pub(super) const LOOK_AT_DIALOG: Duration = Duration::from_secs(5);
/// For the spool of an adopted agent to be read before its delivery is doubted.
const ADOPTED_RECEIPT: Duration = Duration::from_secs(5);
const INVENTORY_AGAIN: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Desired against observed. Start-up, repair and adoption are this one path.
    pub(super) fn on_inventory(&mut self, now: Timestamp, inventory: Inventory) {
        let seen = match inventory {
            Inventory::Unreachable { reason } => {
                self.notice(
                    now,
                    None,
                    &format!("the container engine does not answer: {reason}"),
                    Some("agents are left as they are; looking again".into()),
                );
                self.act(Action::TakeInventory {
                    after: INVENTORY_AGAIN,
                });
                return;
            }
            Inventory::Seen(seen) => seen,
        };
        self.ready = true;
        for id in self.policy.agents() {
            let lives: Vec<&SeenContainer> = seen.iter().filter(|c| c.agent == id).collect();
            self.reconcile(now, &id, &lives);
        }
        for container in &seen {
            if container.running && !self.fleet.agents.contains_key(&container.agent) {
                self.notice(
                    now,
                    None,
                    &format!(
                        "{} is no longer configured; its container is stopped",
                        container.agent
                    ),
                    Some("its checkout and its branch are kept".into()),
                );
                self.stop_life(&container.agent, container.incarnation);
            }
        }
    }

    fn reconcile(&mut self, now: Timestamp, id: &AgentId, lives: &[&SeenContainer]) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let current = agent.incarnation;
        let newest_running = lives
            .iter()
            .filter(|c| c.running)
            .map(|c| c.incarnation)
            .max();
        for old in lives
            .iter()
            .filter(|c| c.running && Some(c.incarnation) != newest_running)
        {
            self.stop_life(id, old.incarnation);
        }
        match newest_running {
            Some(life) if life >= current => self.adopt(now, id, life, lives),
            Some(older) => {
                self.stop_life(id, older);
                self.not_running(now, id, None);
            }
            None => {
                let exited = lives.iter().find(|c| c.incarnation == current).copied();
                self.not_running(now, id, exited);
            }
        }
        self.finish_again(id);
    }

    /// The container of `life` runs: keep what it does, make its doors work again.
    fn adopt(&mut self, now: Timestamp, id: &AgentId, life: Incarnation, lives: &[&SeenContainer]) {
        let start_deadline = self.policy.start_deadline;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let name = lives
            .iter()
            .find(|c| c.incarnation == life)
            .map(|c| c.name.clone());
        let same = agent.incarnation == life && agent.container == name;
        agent.incarnation = life;
        agent.container = name;
        match &agent.phase {
            Phase::Stopping { .. } => self.stop_life(id, life),
            Phase::Absent | Phase::Launching | Phase::Backoff { .. } | Phase::Failed => {
                let until = now + start_deadline;
                agent.enter(
                    now,
                    Phase::Starting {
                        until,
                        greeted: agent.conversed,
                        looks: 0,
                    },
                    "found running; looking at its screen",
                );
            }
            // Whoever waited for the answer has been let go: it is pasted instead.
            Phase::Claiming { task, .. } => {
                let task = task.clone();
                self.claim(now, id, task, ClaimFor::Paste);
            }
            Phase::Delivering { .. } => {
                // The receipt may lie in the spool, which is read first.
                let until = now + ADOPTED_RECEIPT;
                agent.enter(
                    now,
                    Phase::Delivering { until, attempt: 0 },
                    "adopted; delivery is checked",
                );
            }
            Phase::Starting { .. }
            | Phase::Idle
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Waiting { .. } => {}
        }
        self.act(Action::Adopt {
            agent: id.clone(),
            incarnation: life,
        });
        self.act(Action::EnsurePane { agent: id.clone() });
        let watch_screen = self.fleet.agents.get(id).is_some_and(|agent| {
            !same
                || matches!(
                    agent.phase,
                    Phase::Starting { .. } | Phase::Working | Phase::Idle
                )
        });
        if watch_screen {
            self.act(Action::CheckScreen {
                agent: id.clone(),
                incarnation: life,
                after: LOOK_AGAIN,
            });
        }
    }

    fn not_running(&mut self, now: Timestamp, id: &AgentId, exited: Option<&SeenContainer>) {
        if self.fleet.ending().is_some() {
            if let Some(agent) = self.fleet.agents.get_mut(id) {
                agent.enter(now, Phase::Absent, "stopped");
            }
            return;
        }
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        match &agent.phase {
            Phase::Absent => self.launch_next(now, id, "starting"),
            // The process that was to launch it is gone: launch the same life again.
            Phase::Launching => self.launch(now, id, incarnation, "launching again"),
            Phase::Backoff { .. } | Phase::Failed => {}
            Phase::Starting { .. }
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Delivering { .. }
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. } => {
                let code = exited.and_then(|c| c.exit_code);
                let oom = exited.is_some_and(|c| c.out_of_memory);
                self.on_exited(now, id, incarnation, code, oom);
            }
        }
    }

    /// Completions the queue may not have heard of before the daemon went away.
    fn finish_again(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let mut actions: Vec<Action> = agent
            .finishing
            .iter()
            .map(|f| finish_action(id, f))
            .collect();
        if agent.importing {
            let (agent, incarnation, head) = (id.clone(), agent.incarnation, agent.head.clone());
            actions.push(Action::Import {
                agent,
                incarnation,
                head,
            });
        }
        self.actions.extend(actions);
    }

    fn stop_life(&mut self, id: &AgentId, incarnation: Incarnation) {
        let grace = self.policy.stop_grace;
        self.act(Action::StopContainer {
            agent: id.clone(),
            incarnation,
            grace,
        });
    }

    pub(super) fn launch_next(&mut self, now: Timestamp, id: &AgentId, reason: &str) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let incarnation = agent.incarnation.next();
        self.launch(now, id, incarnation, reason);
    }

    fn launch(&mut self, now: Timestamp, id: &AgentId, incarnation: Incarnation, reason: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.incarnation = incarnation;
        agent.container = None;
        agent.enter(now, Phase::Launching, reason);
        if let Some(held) = &mut agent.held {
            held.delivered = false;
        }
        let launch = Action::Launch {
            agent: id.clone(),
            incarnation,
            session: agent.session.clone(),
            resume: agent.conversed,
        };
        self.act(launch);
        self.act(Action::EnsurePane { agent: id.clone() });
    }

    /// The agent if the event is of its present life; counts the late ones.
    pub(super) fn is_current(&mut self, id: &AgentId, incarnation: Incarnation) -> bool {
        let current = self
            .fleet
            .agents
            .get(id)
            .is_some_and(|a| a.incarnation == incarnation);
        if !current {
            self.fleet.late_events += 1;
        }
        current
    }

    pub(super) fn on_launched(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        container: String,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let until = now + self.policy.start_deadline;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.container = Some(container);
        if agent.phase == Phase::Launching {
            agent.enter(
                now,
                Phase::Starting {
                    until,
                    greeted: false,
                    looks: 0,
                },
                "container runs; waiting for Claude Code's SessionStart hook",
            );
        } else if matches!(agent.phase, Phase::Stopping { .. }) {
            self.stop_life(id, incarnation);
        }
    }

    pub(super) fn on_launch_failed(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        reason: &str,
        hint: Option<String>,
        retry: bool,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        self.notice(
            now,
            Some(id),
            &format!("could not be launched: {reason}"),
            hint,
        );
        if matches!(self.fleet.agents[id].phase, Phase::Stopping { .. }) {
            self.on_exited(now, id, incarnation, None, false);
        } else if retry {
            self.crashed(now, id, &format!("could not be launched: {reason}"), 0.5);
        } else if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.enter(
                now,
                Phase::Failed,
                format!("could not be launched: {reason}"),
            );
        }
    }

    pub(super) fn on_exited(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        exit_code: Option<i64>,
        out_of_memory: bool,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let ending = self.fleet.ending().is_some();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if !agent.phase.wants_container() && agent.phase != Phase::Launching {
            return;
        }
        agent.container = None;
        let cause = exit_cause(exit_code, out_of_memory);
        match agent.phase {
            Phase::Stopping {
                then: AfterStop::Launch,
            } if !ending => {
                agent.restarts += 1;
                self.launch_next(now, id, "restarting as asked");
            }
            Phase::Stopping {
                then: AfterStop::Crash,
            } if !ending => self.crashed(now, id, &cause, 0.5),
            Phase::Stopping { .. } => agent.enter(now, Phase::Absent, "stopped"),
            _ if ending => agent.enter(now, Phase::Absent, format!("{cause} while the fleet ends")),
            _ => self.crashed(now, id, &cause, 0.5),
        }
    }

    /// Backoff with jitter, or the end of it.
    fn crashed(&mut self, now: Timestamp, id: &AgentId, cause: &str, jitter: f64) {
        let policy = self.policy.clone();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent
            .crashes
            .retain(|at| now.since(*at) <= policy.restart_window);
        agent.crashes.push(now);
        let crashes = u32::try_from(agent.crashes.len()).unwrap_or(u32::MAX);
        if crashes > policy.restart_burst {
            let text = format!(
                "given up after {crashes} failures within {} s; the last: {cause}",
                policy.restart_window.as_secs()
            );
            agent.enter(now, Phase::Failed, text.clone());
            let hint = format!("see `orchestrator logs {id}`, then `orchestrator restart {id}`");
            self.notice(now, Some(id), &text, Some(hint));
            return;
        }
        let delay = with_jitter(policy.backoff_after(crashes), jitter);
        let reason = format!(
            "{cause}; restart {crashes} of {} in {:.0} s",
            policy.restart_burst,
            delay.as_secs_f64()
        );
        agent.enter(now, Phase::Backoff { until: now + delay }, reason);
    }

    pub(super) fn on_screen(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        screen: Screen,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        match agent.phase {
            Phase::Starting { .. } => self.first_screen(now, id, screen),
            Phase::Waiting { .. } => match screen {
                Screen::Ready | Screen::Draft => self.at_prompt(now, id),
                Screen::Busy => self.found_busy(now, id),
                Screen::Dialog { .. }
                | Screen::NotLoggedIn
                | Screen::Blank
                | Screen::Unrecognised { .. } => {}
            },
            Phase::Delivering { .. } => self.screen_at_delivery(now, id, screen),
            // An adopted agent that ended its turn while nobody listened and whose spool is lost.
            Phase::Working if screen == Screen::Ready && self.fleet.agents[id].held.is_none() => {
                self.at_prompt(now, id);
            }
            Phase::Absent
            | Phase::Launching
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed => {}
        }
    }

    fn first_screen(&mut self, now: Timestamp, id: &AgentId, screen: Screen) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        let Phase::Starting {
            until,
            greeted,
            looks,
        } = agent.phase
        else {
            return;
        };
        match screen {
            Screen::Ready | Screen::Draft if greeted => self.at_prompt(now, id),
            Screen::Busy if greeted => self.found_busy(now, id),
            Screen::Dialog { name } => self.wait_for_person(now, id, &dialog_text(&name)),
            Screen::NotLoggedIn => self.wait_for_person(now, id, NOT_LOGGED_IN),
            Screen::Unrecognised { ref tail } if greeted && looks >= LOOKS => {
                let text = format!(
                    "its first screen was not recognised; going on by its hooks. It ends: {tail}"
                );
                self.notice(
                    now,
                    Some(id),
                    &text,
                    Some(format!("look with `orchestrator attach {id}`")),
                );
                self.at_prompt(now, id);
            }
            Screen::Ready
            | Screen::Draft
            | Screen::Busy
            | Screen::Blank
            | Screen::Unrecognised { .. } => {
                agent.phase = Phase::Starting {
                    until,
                    greeted,
                    looks: looks.saturating_add(1),
                };
                let again = Action::CheckScreen {
                    agent: id.clone(),
                    incarnation,
                    after: LOOK_AGAIN,
                };
                // Without the greeting there is nothing to look for until the deadline.
                if greeted {
                    self.act(again);
                }
            }
        }
    }

    /// A free prompt: whatever it still holds is delivered again, else it is idle.
    pub(super) fn at_prompt(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let held = agent.held.is_some();
        agent.enter(now, Phase::Idle, "at its prompt");
        if held {
            self.deliver_held(now, id, 1);
        }
    }

    pub(super) fn found_busy(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if let Some(held) = &mut agent.held {
            held.delivered = true;
        }
        agent.enter(now, Phase::Working, "found in the middle of a turn");
    }

    pub(super) fn wait_for_person(&mut self, now: Timestamp, id: &AgentId, text: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.enter(
            now,
            Phase::Waiting {
                until: now + LOOK_AT_DIALOG,
            },
            text,
        );
        let hint = format!("look with `orchestrator attach {id}`");
        self.notice(now, Some(id), text, Some(hint));
    }

    pub(super) fn expire_agents(&mut self, now: Timestamp) {
        let due: Vec<(AgentId, Phase)> = self
            .fleet
            .agents
            .values()
            .filter(|agent| agent.phase.deadline().is_some_and(|(at, _)| at <= now))
            .map(|agent| (agent.id.clone(), agent.phase.clone()))
            .collect();
        for (id, phase) in due {
            match phase {
                Phase::Backoff { .. } => {
                    if let Some(agent) = self.fleet.agents.get_mut(&id) {
                        agent.restarts += 1;
                    }
                    self.launch_next(now, &id, "restarting");
                }
                Phase::Starting { greeted, .. } => self.start_is_late(now, &id, greeted),
                Phase::Waiting { .. } => {
                    let Some(agent) = self.fleet.agents.get_mut(&id) else {
                        continue;
                    };
                    agent.phase = Phase::Waiting {
                        until: now + LOOK_AT_DIALOG,
                    };
                    let incarnation = agent.incarnation;
                    self.act(Action::CheckScreen {
                        agent: id,
                        incarnation,
                        after: Duration::ZERO,
                    });
                }
                Phase::Limited { .. } => self.go_on_after_limit(now, &id),
                Phase::Delivering { attempt, .. } => self.receipt_is_late(now, &id, attempt),
                Phase::Absent
                | Phase::Launching
                | Phase::Idle
                | Phase::Claiming { .. }
                | Phase::Working
                | Phase::Stopping { .. }
                | Phase::Failed => {}
            }
        }
    }

    fn start_is_late(&mut self, now: Timestamp, id: &AgentId, greeted: bool) {
        if greeted {
            self.at_prompt(now, id);
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        agent.enter(
            now,
            Phase::Stopping {
                then: AfterStop::Crash,
            },
            format!(
                "no SessionStart hook within {} s",
                self.policy.start_deadline.as_secs()
            ),
        );
        self.stop_life(id, incarnation);
    }

    pub(super) fn request_restart(&mut self, now: Timestamp, id: &AgentId) -> Reply {
        if let Some(ending) = self.fleet.ending() {
            return denied(
                "ENDING",
                format!("the fleet is ending ({ending:?})").to_lowercase(),
                None,
            );
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            let known: Vec<String> = self.fleet.agents.keys().map(ToString::to_string).collect();
            return denied(
                "UNKNOWN_AGENT",
                format!("there is no agent `{id}`"),
                Some(format!("agents: {}", known.join(", "))),
            );
        };
        agent.crashes.clear();
        match agent.phase {
            Phase::Launching
            | Phase::Stopping {
                then: AfterStop::Launch,
            } => Reply::AlreadySo,
            Phase::Absent | Phase::Failed | Phase::Backoff { .. } => {
                agent.restarts += 1;
                self.launch_next(now, id, "restarting as asked");
                Reply::Accepted
            }
            Phase::Starting { .. }
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Delivering { .. }
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. } => {
                let incarnation = agent.incarnation;
                agent.enter(
                    now,
                    Phase::Stopping {
                        then: AfterStop::Launch,
                    },
                    "restart was asked for",
                );
                self.stop_life(id, incarnation);
                Reply::Accepted
            }
        }
    }
}

const NOT_LOGGED_IN: &str = "Claude Code says it is not logged in: its credential is not accepted";

fn dialog_text(name: &str) -> String {
    format!("a dialog waits for a person: {name}")
}

fn exit_cause(exit_code: Option<i64>, out_of_memory: bool) -> String {
    match (exit_code, out_of_memory) {
        (_, true) => "killed for lack of memory".into(),
        (Some(0), _) => "Claude Code ended by itself (exit 0)".into(),
        (Some(137), _) => "killed (exit 137)".into(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, _) => "its container is gone".into(),
    }
}

pub(super) fn finish_action(id: &AgentId, finishing: &Finishing) -> Action {
    let (agent, task, fence) = (id.clone(), finishing.task.clone(), finishing.fence);
    let text = finishing.text.clone();
    match finishing.outcome {
        FinishAs::Done => Action::Complete {
            agent,
            task,
            fence,
            result: text,
        },
        FinishAs::Retry => Action::Release {
            agent,
            task,
            fence,
            reason: text,
            retry: true,
        },
        FinishAs::Failed => Action::Release {
            agent,
            task,
            fence,
            reason: text,
            retry: false,
        },
    }
}

pub(super) fn denied(code: &str, reason: String, hint: Option<String>) -> Reply {
    Reply::Denied {
        code: code.into(),
        reason,
        hint,
    }
}
