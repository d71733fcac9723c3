//! What the screens show: is the prompt free, is a turn running, must a person help.

use std::time::Duration;

use super::Supervisor;
use super::action::Action;
use super::canary::DEAF;
use super::pool::LIMIT_DIALOG;
use super::state::{Held, Phase, QUIET};
use crate::model::{AgentId, Incarnation, Screen, Timestamp};

/// How often the first screen is looked at before a greeted agent counts as ready anyway.
const LOOKS: u32 = 20;
/// Looks that must find a free prompt before a turn counts as over without a hook.
const FREE_LOOKS: u32 = 2;
/// Looks that must find a free prompt before an interrupted agent is told its task again: it may
/// go on by itself. Observed: 0.2 s after the prompt is drawn, 2.4 s on a machine under load.
const GOES_ON: u32 = 20;
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
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.evidence.screen(now, &screen);
        match agent.phase {
            // Its limit was met while nobody listened.
            Phase::Starting { greeted: true, .. } | Phase::Working
                if is_limit_dialog(&screen) && (agent.phase != Phase::Working || agent.doubted) =>
            {
                self.close_the_limits_dialog(now, id);
            }
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
            // one whose own hook says it waits. Text that nobody sent is no work either: delivery clears it.
            Phase::Working
                if matches!(screen, Screen::Ready | Screen::Draft)
                    && (agent.held.is_none() || agent.doubted) =>
            {
                self.found_at_prompt(now, id);
            }
            Phase::Working => match screen {
                Screen::Dialog { name } => self.wait_for_person(now, id, &dialog_text(&name)),
                _ => self.believe(id),
            },
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

    /// The look after it decides; a dialog that stays is for a person.
    fn close_the_limits_dialog(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if let Some(held) = agent.held.as_mut().filter(|held| held.delivered) {
            held.interrupted = true;
        }
        let until = now + LOOK_AT_DIALOG;
        agent.enter(
            now,
            Phase::Waiting { until },
            "closing the dialog of its limit",
        );
        let close = Action::CloseDialog {
            agent: id.clone(),
            incarnation: agent.incarnation,
            name: LIMIT_DIALOG.to_owned(),
        };
        self.act(close);
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
        let interrupted = agent.held.as_ref().is_some_and(Held::goes_on);
        agent.signals.first_screen(&screen);
        match screen {
            // It goes on by itself with a turn its last life lost, but draws its prompt first.
            Screen::Ready if greeted && interrupted && agent.free_looks < GOES_ON => {
                agent.free_looks += 1;
            }
            Screen::Ready | Screen::Draft if greeted => {
                agent.free_looks = 0;
                self.at_prompt(now, id);
            }
            Screen::Busy if greeted => {
                // Without a prompt hook: it goes on by itself with the turn its last life lost.
                if let Some(held) = agent.held.as_mut().filter(|held| held.goes_on()) {
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
                self.screen_is_doubted(id);
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
            if !*greeted {
                self.check_session(id, Duration::ZERO);
            }
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
        if agent.is_deaf() {
            self.wait_for_person(now, id, DEAF);
            return;
        }
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
        let hint = format!(
            "answer it in `orchestrator attach {id}` (Ctrl-b d leaves it); it goes on by itself"
        );
        self.notice(now, Some(id), text, Some(hint));
    }
}

const NOT_LOGGED_IN: &str = "Claude Code says it is not logged in: its credential is not accepted";

fn is_limit_dialog(screen: &Screen) -> bool {
    matches!(screen, Screen::Dialog { name } if name == LIMIT_DIALOG)
}

pub(super) fn dialog_text(name: &str) -> String {
    format!("a dialog waits for a person: {name}")
}
