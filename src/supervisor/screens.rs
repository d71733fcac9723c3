//! What the screens show: is the prompt free, is a turn running, must a person help.

use std::time::Duration;

use super::Supervisor;
use super::action::Action;
use super::state::{AgentState, Phase, QUIET};
use crate::model::{AgentId, Incarnation, Screen, Timestamp};

/// How often the first screen is looked at before a greeted agent counts as ready anyway.
const LOOKS: u32 = 20;
/// From the greeting of a resumed conversation to its first request. Seen with 2.1.197: 0.7 s, and on
/// a machine with ten times more to do than it can, 2.2 s.
const GOES_ON_WITHIN: Duration = Duration::from_millis(2500);
/// Looks that must find a free prompt before a turn counts as over without a hook.
const FREE_LOOKS: u32 = 2;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A dialog or a login problem is looked at this often: a person may have closed it.
pub(super) const LOOK_AT_DIALOG: Duration = Duration::from_secs(5);

impl Supervisor {
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
            // An adopted agent that ended its turn while nobody listened and whose spool is lost, or
            // one whose own hook says it waits.
            Phase::Working
                if screen == Screen::Ready && (agent.held.is_none() || agent.doubted) =>
            {
                self.found_at_prompt(now, id);
            }
            Phase::Working => self.believe(id),
            Phase::Absent
            | Phase::Launching
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Limited { .. }
            | Phase::Stopping { .. }
            | Phase::Backoff { .. }
            | Phase::Failed => {}
        }
    }

    /// Its turn ended and nobody heard of it: what it did is there, so it is told to look first.
    fn found_at_prompt(&mut self, now: Timestamp, id: &AgentId) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.free_looks += 1;
            if agent.doubted && agent.free_looks < FREE_LOOKS {
                let (agent, incarnation) = (id.clone(), agent.incarnation);
                self.act(Action::CheckScreen {
                    agent,
                    incarnation,
                    after: BETWEEN_LOOKS,
                });
                return;
            }
            agent.doubted = false;
            agent.free_looks = 0;
            if let Some(held) = agent.held.as_mut().filter(|held| held.delivered) {
                held.interrupted = true;
            }
        }
        self.at_prompt(now, id);
    }

    /// It should be working, but a hook of its own or a gap in what we heard says otherwise. One
    /// look at the screen decides; its task, if it holds one, is told to it again.
    pub(super) fn doubt(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if agent.phase != Phase::Working || agent.in_background {
            return;
        }
        agent.doubted = true;
        agent.free_looks = 0;
        let look = Action::CheckScreen {
            agent: id.clone(),
            incarnation: agent.incarnation,
            after: LOOK_AGAIN,
        };
        self.act(look);
    }

    /// Its screen shows something else than a free prompt.
    fn believe(&mut self, id: &AgentId) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.doubted = false;
            agent.free_looks = 0;
        }
    }

    /// Working agents of which nothing was heard for a while.
    pub(super) fn look_at_quiet_ones(&mut self, now: Timestamp) {
        let quiet: Vec<AgentId> = self
            .fleet
            .agents
            .values_mut()
            .filter(|agent| agent.look_at.is_some_and(|at| at <= now))
            .map(|agent| {
                agent.look_at = Some(now + QUIET);
                agent.id.clone()
            })
            .collect();
        for id in quiet {
            self.doubt(&id);
        }
    }

    pub(super) fn quiet_deadlines(&self) -> impl Iterator<Item = (Timestamp, String)> {
        let known = self.fleet.agents.values().filter(|_| self.ready);
        known.filter_map(|agent| {
            let at = agent.look_at?;
            Some((at, format!("{}: a look, it is quiet", agent.id)))
        })
    }

    pub(super) fn doubt_everybody(&mut self) {
        let all: Vec<AgentId> = self.fleet.agents.keys().cloned().collect();
        for id in all {
            self.doubt(&id);
        }
    }

    fn first_screen(&mut self, now: Timestamp, id: &AgentId, screen: Screen) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Phase::Starting { greeted, looks, .. } = agent.phase else {
            return;
        };
        match screen {
            Screen::Ready | Screen::Draft if greeted && !may_go_on(agent, now) => {
                self.at_prompt(now, id);
            }
            Screen::Busy if greeted => {
                // Without a prompt hook: it goes on by itself with the turn its last life lost.
                if let Some(held) = agent.held.as_mut().filter(|held| held.interrupted) {
                    held.delivered = true;
                }
                self.found_busy(now, id);
            }
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
            | Screen::Unrecognised { .. } => {}
        }
    }

    /// Without the greeting only a dialog is looked for, and that is no hurry.
    pub(super) fn look_at_start(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        if let Phase::Starting {
            greeted,
            looks,
            look_at,
            ..
        } = &mut agent.phase
        {
            *looks = looks.saturating_add(1);
            *look_at = now + if *greeted { LOOK_AGAIN } else { LOOK_AT_DIALOG };
            self.act(Action::CheckScreen {
                agent: id.clone(),
                incarnation,
                after: Duration::ZERO,
            });
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
        } else {
            self.import_if_new(id);
        }
    }

    pub(super) fn found_busy(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
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
}

/// A turn that was cut off is taken up without a hook, a while after the greeting. Until then the
/// prompt looks free, and what is typed into it is done a second time.
fn may_go_on(agent: &AgentState, now: Timestamp) -> bool {
    let cut_off = agent.held.as_ref().is_some_and(|held| held.interrupted);
    cut_off && now.since(agent.since) < GOES_ON_WITHIN
}

const NOT_LOGGED_IN: &str = "Claude Code says it is not logged in: its credential is not accepted";

fn dialog_text(name: &str) -> String {
    format!("a dialog waits for a person: {name}")
}
