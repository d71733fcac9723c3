//! The log of the server: bounded, and free of secrets.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::answer::{Answer, Block};
use super::request::Conversation;
use crate::model::{SessionId, Timestamp};

/// Older records are dropped.
const MOST_RECORDS: usize = 10_000;
/// Sessions whose place is remembered; beyond that counting of retries starts afresh.
const MOST_SESSIONS: usize = 4_096;
/// Longer texts are cut in the record, in characters.
const LONGEST_TEXT: usize = 2_000;

/// One request and what it got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestRecord {
    /// When it came.
    pub at: Timestamp,
    pub kind: RequestKind,
    pub session: Option<SessionId>,
    /// The last six characters of the credential; empty if there was none.
    pub credential: String,
    pub model: String,
    /// The newest instruction in the conversation, cut to 2,000 characters.
    pub instruction: Option<String>,
    /// Tool results since that instruction.
    pub step: usize,
    /// Earlier requests at this very place: 0 unless it is a retry.
    pub attempt: u32,
    pub answered: Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A turn of a conversation.
    Turn,
    /// A session title or the like.
    Side,
    /// Refused before the script was asked.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// The text said and the names of the tools called.
    Turn {
        text: String,
        tools: Vec<String>,
    },
    Error {
        status: u16,
    },
}

/// Totals since the start; never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub turns: u64,
    pub side_calls: u64,
    /// Errors by script, and requests refused.
    pub errors: u64,
    pub token_counts: u64,
    /// Requests for addresses there are none of.
    pub unknown: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: VecDeque<RequestRecord>,
    pub(super) counters: Counters,
    places: HashMap<SessionId, (u64, u32)>,
}

impl Log {
    pub(super) fn push(&mut self, record: RequestRecord) {
        match (&record.answered, record.kind) {
            (Answered::Error { .. }, _) => self.counters.errors += 1,
            (Answered::Turn { .. }, RequestKind::Side) => self.counters.side_calls += 1,
            (Answered::Turn { .. }, _) => self.counters.turns += 1,
        }
        while self.records.len() >= MOST_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// How often this session was at this place before; counts this time.
    pub(super) fn attempt(&mut self, session: &SessionId, conversation: &Conversation) -> u32 {
        let mut hasher = DefaultHasher::new();
        (
            conversation.ordinal,
            conversation.results.len(),
            &conversation.instruction,
        )
            .hash(&mut hasher);
        let place = hasher.finish();
        if !self.places.contains_key(session) && self.places.len() >= MOST_SESSIONS {
            self.places.clear();
        }
        let entry = self.places.entry(session.clone()).or_insert((place, 0));
        if entry.0 != place {
            *entry = (place, 0);
        }
        let attempt = entry.1;
        entry.1 = entry.1.saturating_add(1);
        attempt
    }
}

impl Answered {
    pub(super) fn of(answer: &Answer) -> Self {
        let turn = match answer {
            Answer::Error(failure) => {
                return Self::Error {
                    status: failure.status,
                };
            }
            Answer::Turn(turn) => turn,
        };
        let (mut text, mut tools) = (String::new(), Vec::new());
        for block in &turn.blocks {
            match block {
                Block::Text(said) => text.push_str(said),
                Block::ToolUse { name, .. } => tools.push(name.clone()),
            }
        }
        Self::Turn {
            text: cut(&text),
            tools,
        }
    }
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_place_of_the_same_session_counts_as_a_retry() {
        let mut log = Log::default();
        let (a, b) = (SessionId::from("a"), SessionId::from("b"));
        let first = Conversation {
            ordinal: 1,
            ..Conversation::default()
        };
        let second = Conversation {
            ordinal: 2,
            ..Conversation::default()
        };
        let asked = [(&a, &first), (&a, &first), (&b, &first), (&a, &second)];
        let attempts = asked.map(|(session, place)| log.attempt(session, place));
        assert_eq!(attempts, [0, 1, 0, 0]);
    }

    #[test]
    fn the_log_is_bounded_and_the_counters_go_on() {
        let mut log = Log::default();
        for _ in 0..MOST_RECORDS + 5 {
            log.push(RequestRecord {
                at: Timestamp(0),
                kind: RequestKind::Turn,
                session: None,
                credential: String::new(),
                model: String::new(),
                instruction: None,
                step: 0,
                attempt: 0,
                answered: Answered::Error { status: 529 },
            });
        }
        assert_eq!(log.records.len(), MOST_RECORDS);
        assert_eq!(log.counters.errors, MOST_RECORDS as u64 + 5);
    }
}
