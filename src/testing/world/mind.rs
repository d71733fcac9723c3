//! What an agent's Claude Code does, as far as the outside can tell.

use std::collections::BTreeSet;

use crate::model::{CallbackId, CredentialId, Screen, SessionId, SessionNote, Timestamp};

/// What every mind says it is, unless told otherwise.
pub const TESTED_VERSION: &str = "1.0.0";

/// What it does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    Booting,
    AtPrompt,
    Working {
        text: String,
    },
    /// The turn has ended; its Stop hook waits for the answer.
    Stopping {
        callback: CallbackId,
    },
}

/// One agent's Claude Code with its conversation, which outlives containers.
#[derive(Clone, Debug)]
pub struct Mind {
    pub doing: Doing,
    pub session: Option<SessionId>,
    /// Swallows all input while it is open.
    pub dialog: Option<String>,
    pub draft: Option<String>,
    pub background: u32,
    /// The last turn did not end: the next life goes on with it, without a prompt hook.
    pub interrupted: Option<String>,
    /// Every text it was given for sure.
    pub received: Vec<String>,
    /// A person pressed Escape and has the next word.
    pub escaped: bool,
    /// Uncommitted paths.
    pub dirty: Vec<String>,
    /// What is uncommitted at its Stops is not told.
    pub tree_untold: bool,
    /// Times it wrote something it has not committed, and how many of them are in a snapshot or a
    /// commit.
    pub written: u64,
    pub kept: u64,
    /// As far as this nobody could keep them: a snapshot failed.
    pub excused: u64,
    /// Pastes that vanish although the pane took them.
    pub swallow: u32,
    /// The process stands still (SIGSTOP): its screen stays as it is, nothing is heard of it.
    pub stopped: Option<Screen>,
    /// A tool of its computes, whatever the process itself does.
    pub computes: bool,
    /// The dialog that opens at the next start.
    pub dialog_at_start: Option<String>,
    /// What its instance has: a credential and which edition of its token.
    pub credential: Option<(CredentialId, u64)>,
    /// Keys it may use without a question, with the edition of each.
    pub approved: BTreeSet<(CredentialId, u64)>,
    /// The dialog of the limit opens at the next one; once per process.
    pub dialog_at_limit: bool,
    /// Its hooks do not run.
    pub mute: bool,
    /// The version it says it is.
    pub version: String,
}

impl Mind {
    pub fn new() -> Self {
        Self {
            doing: Doing::Booting,
            session: None,
            dialog: None,
            draft: None,
            background: 0,
            interrupted: None,
            received: Vec::new(),
            escaped: false,
            dirty: Vec::new(),
            tree_untold: false,
            written: 0,
            kept: 0,
            excused: 0,
            swallow: 0,
            stopped: None,
            computes: false,
            dialog_at_start: None,
            credential: None,
            approved: BTreeSet::new(),
            dialog_at_limit: false,
            mute: false,
            version: TESTED_VERSION.to_owned(),
        }
    }

    pub fn screen(&self) -> Screen {
        if let Some(screen) = &self.stopped {
            return screen.clone();
        }
        if let Some(name) = &self.dialog {
            return Screen::Dialog { name: name.clone() };
        }
        match &self.doing {
            Doing::Booting => Screen::Blank,
            Doing::AtPrompt if self.draft.is_some() => Screen::Draft,
            Doing::AtPrompt => Screen::Ready,
            Doing::Working { .. } | Doing::Stopping { .. } => Screen::Busy,
        }
    }

    /// Its session file; none before its session has begun.
    pub fn note(&self, now: Timestamp) -> SessionNote {
        let Some(session) = self
            .session
            .clone()
            .filter(|_| self.doing != Doing::Booting)
        else {
            return SessionNote::Missing;
        };
        let status = match self.screen() {
            Screen::Busy => "busy",
            Screen::Dialog { .. } => "waiting",
            _ => "idle",
        };
        SessionNote::Found {
            session,
            version: self.version.clone(),
            status: status.to_owned(),
            started_at: now,
        }
    }

    /// The process ends; the conversation stays.
    pub fn dies(&mut self) {
        if let Doing::Working { text } = &self.doing {
            self.interrupted = Some(text.clone());
        }
        self.doing = Doing::Booting;
        self.stopped = None;
        self.computes = false;
        self.dialog = None;
        self.draft = None;
        self.escaped = false;
        self.background = 0;
    }

    pub fn takes(&mut self, text: &str) {
        self.received.push(text.to_owned());
        self.written += 1;
        self.escaped = false;
        self.doing = Doing::Working {
            text: text.to_owned(),
        };
    }
}

impl Default for Mind {
    fn default() -> Self {
        Self::new()
    }
}
