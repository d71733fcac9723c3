//! What became of each try at a task; kept with the task.

use serde::{Deserialize, Serialize};

use super::{AgentId, Incarnation, Timestamp};

/// Attempts kept with a task. Of more, the oldest that counts for nothing falls out first.
pub const ATTEMPTS_KEPT: usize = 50;
/// Longest cause of one, in bytes; a longer one is cut.
pub const MAX_CAUSE_BYTES: usize = 500;

/// One try at a task, from its beginning to its end. A claim may have several: an agent that crashes
/// keeps its claim and tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptNote {
    /// Counts from 1 over all claims of the task.
    pub number: u32,
    /// The claim it was made under.
    pub fence: u64,
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub end: AttemptEnd,
    /// One sentence.
    pub cause: String,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    Done,
    Crashed,
    OutOfMemory,
    /// Nothing of its agent moved any more.
    Hung,
    /// Its turn ended in an error that is the task's own.
    FailedTurn,
    /// It was claimed done, and that was not believed.
    SentBack,
    /// Given back without being judged.
    Released,
    LeaseRanOut,
    Cancelled,
    /// Ended by something that is no fault of the task: the container engine, a person's restart, an
    /// end of the fleet.
    Interrupted,
}

impl AttemptEnd {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Crashed => "crashed",
            Self::OutOfMemory => "out of memory",
            Self::Hung => "hung",
            Self::FailedTurn => "failed turn",
            Self::SentBack => "sent back",
            Self::Released => "released",
            Self::LeaseRanOut => "lease ran out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// A cause of the task's own: it counts against it.
    pub fn counts(self) -> bool {
        match self {
            Self::Crashed | Self::OutOfMemory | Self::Hung | Self::FailedTurn => true,
            Self::Done
            | Self::SentBack
            | Self::Released
            | Self::LeaseRanOut
            | Self::Cancelled
            | Self::Interrupted => false,
        }
    }
}

impl AttemptNote {
    /// How it ended and why: `crashed: killed (exit 137)`.
    pub fn told(&self) -> String {
        let end = self.end.as_str();
        if self.cause.starts_with(end) {
            return self.cause.clone();
        }
        format!("{end}: {}", self.cause)
    }
}

/// Adds what is not there yet, by number, and keeps the bound.
pub fn with_notes(history: &[AttemptNote], more: &[AttemptNote]) -> Vec<AttemptNote> {
    let mut all = history.to_vec();
    for note in more {
        if !all.iter().any(|known| known.number == note.number) {
            all.push(note.clone());
        }
    }
    all.sort_by_key(|note| note.number);
    while all.len() > ATTEMPTS_KEPT {
        let least = all.iter().position(|note| !note.end.counts());
        all.remove(least.unwrap_or(0));
    }
    all
}

/// The number of the next attempt after these.
pub fn next_number(history: &[AttemptNote]) -> u32 {
    history
        .iter()
        .map(|note| note.number)
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

/// `cause` as it is kept: one line, bounded.
pub fn cut_cause(cause: &str) -> String {
    let line = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut end = line.len().min(MAX_CAUSE_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: u32, end: AttemptEnd) -> AttemptNote {
        AttemptNote {
            number,
            fence: 1,
            agent: AgentId::worker(1),
            incarnation: Incarnation(number.into()),
            began: Timestamp(0),
            ended: Timestamp(1),
            end,
            cause: "so it was".into(),
        }
    }

    #[test]
    fn a_note_comes_in_once_and_the_bound_keeps_what_counts() {
        let crash = note(1, AttemptEnd::Crashed);
        let mut history = Vec::new();
        for number in 1..=200 {
            let end = if number == 1 {
                AttemptEnd::Crashed
            } else {
                AttemptEnd::Interrupted
            };
            history = with_notes(&history, &[note(number, end)]);
        }
        assert_eq!(history.len(), ATTEMPTS_KEPT);
        assert_eq!(history[0], crash, "the one that counts stays");
        assert_eq!(history[1].number, 152);
        assert_eq!(with_notes(&history, &history), history);
        assert_eq!(next_number(&history), 201);
    }

    #[test]
    fn a_cause_is_one_line_and_bounded() {
        assert_eq!(cut_cause("a\n  b"), "a b");
        assert!(cut_cause(&"ä".repeat(1000)).len() <= MAX_CAUSE_BYTES);
    }
}
