//! The canary: is the Claude Code that started the one we know? First hook, first screen and its
//! own note about itself are compared with what is expected. Where one does not fit, the others
//! carry on and people are told; a version we do not know is no reason to stop work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::action::Action;
use super::state::{AgentState, Phase};
use crate::model::{AgentId, Incarnation, Screen, SessionId, SessionNote, Timestamp};

/// After the first hook, for the note to be written. Observed: it is there before the hook.
const NOTE_AFTER: Duration = Duration::from_millis(500);
const NOTE_AGAIN: Duration = Duration::from_secs(2);
/// Reads before a note that is not there, or not as it should be, is not asked for any more.
const NOTE_READS: u32 = 5;
/// Free prompts with an idle note, five seconds apart, before a start counts as done without its
/// hook. Observed: the hook comes within a second of the prompt.
const SILENT_LOOKS: u32 = 4;
/// Sources of a first hook, as 2.1.197 names them.
const SOURCES: &[&str] = &["startup", "resume", "clear"];

pub(super) const DEAF: &str =
    "none of its hooks arrive, so nobody would hear when it is done: it is given no more work";

/// How far a signal of an agent is trusted, in its present life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Not seen yet.
    #[default]
    Unknown,
    /// As expected.
    Good,
    /// Missing, or of another form: others are used in its place.
    Doubted,
}

impl Trust {
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Doubted => "doubted",
        }
    }
}

/// What the start of a life showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signals {
    /// Notes of processes that started before belong to earlier lives.
    pub since: Timestamp,
    pub hooks: Trust,
    pub screen: Trust,
    pub note: Trust,
    /// The version its note names.
    pub version: Option<String>,
    /// A text was pasted in this life.
    pub pasted: bool,
    /// The newest screen of a start without a hook was a free prompt.
    prompt: bool,
    /// Free prompts with an idle note, in a row.
    silent_looks: u32,
    reads: u32,
}

impl Signals {
    pub(super) fn of_a_life(since: Timestamp) -> Self {
        Self {
            since,
            ..Self::default()
        }
    }

    /// A screen while it starts.
    pub(super) fn first_screen(&mut self, screen: &Screen) {
        self.prompt = *screen == Screen::Ready;
        if matches!(screen, Screen::Ready | Screen::Draft | Screen::Busy) {
            self.screen = Trust::Good;
        }
    }
}

impl AgentState {
    /// It counts as ready without its first hook, and none has come since: what was pasted had no
    /// receipt, and its end would not be heard.
    pub(super) fn is_deaf(&self) -> bool {
        let heard = self.last_hook_at.is_some_and(|at| at >= self.signals.since);
        self.signals.hooks == Trust::Doubted && self.signals.pasted && !heard
    }
}

impl Supervisor {
    pub(super) fn check_session(&mut self, id: &AgentId, after: Duration) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let check = Action::CheckSession {
            agent: id.clone(),
            incarnation: agent.incarnation,
            after,
        };
        self.act(check);
    }

    /// The first hook of a life says who greets, and how it began.
    pub(super) fn check_first_hook(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        source: &str,
        session: Option<&SessionId>,
    ) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let starting = matches!(agent.phase, Phase::Launching | Phase::Starting { .. });
        if !starting {
            return;
        }
        let problem = match session {
            None => Some("names no session".to_owned()),
            Some(_) if !SOURCES.contains(&source) => Some(format!("has the source `{source}`")),
            Some(_) => None,
        };
        agent.signals.hooks = match problem {
            None => Trust::Good,
            Some(_) => Trust::Doubted,
        };
        if let Some(problem) = problem {
            let text =
                format!("its SessionStart hook {problem}; going on with the session it was given");
            self.tell_of_drift(now, id, &text);
        }
        self.check_session(id, NOTE_AFTER);
    }

    pub(super) fn on_session_checked(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        note: SessionNote,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let present = match note {
            SessionNote::Found { started_at, .. } if started_at < agent.signals.since => {
                SessionNote::Missing
            }
            other => other,
        };
        match present {
            SessionNote::Found {
                session,
                version,
                status,
                ..
            } => {
                let known = ["idle", "busy", "waiting"].contains(&status.as_str());
                let idle = status == "idle";
                if session != agent.session {
                    self.note_is_doubted(now, id, "names another session");
                } else if known {
                    agent.signals.note = Trust::Good;
                } else {
                    let problem = format!("has the status `{status}`, which is not known");
                    self.note_is_doubted(now, id, &problem);
                }
                self.version_seen(now, id, version);
                self.start_without_hook(now, id, idle);
            }
            SessionNote::Missing => self.note_is_missing(now, id, "is not there"),
            SessionNote::Unreadable { problem } => {
                self.note_is_missing(now, id, &format!("cannot be read: {problem}"));
            }
        }
    }

    /// Read again a few times: it may be a moment late. While no hook has come the looks at the
    /// start do that.
    fn note_is_missing(&mut self, now: Timestamp, id: &AgentId, problem: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.signals.silent_looks = 0;
        if agent.signals.hooks == Trust::Unknown || agent.phase.is_over() {
            return;
        }
        agent.signals.reads += 1;
        if agent.signals.reads < NOTE_READS {
            self.check_session(id, NOTE_AGAIN);
        } else if agent.signals.note != Trust::Good {
            self.note_is_doubted(now, id, problem);
        }
    }

    fn note_is_doubted(&mut self, now: Timestamp, id: &AgentId, problem: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.signals.note = Trust::Doubted;
        let text =
            format!("the session file of its Claude Code {problem}; going on by hooks and screen");
        self.tell_of_drift(now, id, &text);
    }

    pub(super) fn screen_is_doubted(&mut self, id: &AgentId) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.signals.screen = Trust::Doubted;
        }
    }

    fn version_seen(&mut self, now: Timestamp, id: &AgentId, version: String) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let tested = self.policy.tested_version.clone();
        agent.signals.version = Some(version.clone());
        if tested.is_empty() || tested == version {
            return;
        }
        let text =
            format!("agents run Claude Code {version}; this orchestrator is tested with {tested}");
        let hint =
            format!("`orchestrator drift --claude-version {version}` says what is different");
        self.notice(now, None, &text, Some(hint));
    }

    /// Screen and note agree that it waits at its prompt, and still no SessionStart hook: taking
    /// that for a failed start would restart it for ever.
    fn start_without_hook(&mut self, now: Timestamp, id: &AgentId, idle: bool) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let silent = matches!(agent.phase, Phase::Starting { greeted: false, .. });
        let signals = &mut agent.signals;
        if !silent || !idle || !signals.prompt || signals.note != Trust::Good {
            signals.silent_looks = 0;
            return;
        }
        signals.silent_looks += 1;
        if signals.silent_looks < SILENT_LOOKS {
            return;
        }
        signals.hooks = Trust::Doubted;
        agent.conversed = true;
        let text = "its SessionStart hook did not come, but its prompt is free and its session file \
                    says idle; going on without the hook";
        self.tell_of_drift(now, id, text);
        self.at_prompt(now, id);
    }

    fn tell_of_drift(&mut self, now: Timestamp, id: &AgentId, text: &str) {
        let hint =
            "`orchestrator drift` with the version or image of the fleet says what is different";
        self.notice(now, Some(id), text, Some(hint.to_owned()));
    }
}
