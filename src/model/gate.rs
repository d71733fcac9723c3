//! Gates: commands that must pass on the merged state before it may become the branch.

use serde::{Deserialize, Serialize};

use super::{CommitId, Timestamp};

/// What one gate said of one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// As the configuration names it.
    pub name: String,
    pub outcome: GateOutcome,
    /// It failed, and passed when it was tried again on the same tree.
    #[serde(default)]
    pub flaky: bool,
    /// Not run now: its outcome on the same tree was known.
    #[serde(default)]
    pub cached: bool,
    /// The commit it ran on, and the hash of that commit's tree.
    pub commit: CommitId,
    pub tree: String,
    /// Of the run that decided, in milliseconds.
    pub milliseconds: u64,
    /// Names the log that is kept.
    pub log: String,
    /// The end of that log, bounded.
    #[serde(default)]
    pub tail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    Passed,
    /// It ended with another status than 0.
    Failed,
    TimedOut,
    /// It could not be run: says nothing about the tree.
    Broken,
}

impl GateOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Broken => "could not be run",
        }
    }
}

impl GateRecord {
    pub fn passed(&self) -> bool {
        self.outcome == GateOutcome::Passed
    }
}

/// A gate whose run is kept, with when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedGate {
    pub at: Timestamp,
    pub record: GateRecord,
}

/// A gate that runs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningGate {
    pub gate: String,
    pub commit: CommitId,
    pub since: Timestamp,
    /// Which of this run's gates it is, from 1, and how many there are.
    pub number: u32,
    pub of: u32,
    /// It failed, and is tried once more.
    #[serde(default)]
    pub again: bool,
    /// Names the log that is written.
    pub log: String,
}

/// A gate as it is configured, and what came of it so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    pub name: String,
    /// As people read it.
    pub command: String,
    /// `None`: the one that agents run in.
    pub image: Option<String>,
    pub timeout_seconds: u64,
    pub network: bool,
    pub cache: bool,
    #[serde(default)]
    pub counts: GateCounts,
    /// How it last ended, and when.
    #[serde(default)]
    pub last: Option<GateRecord>,
    #[serde(default)]
    pub last_at: Option<Timestamp>,
}

/// How often a gate ended how. What was known already is only counted as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateCounts {
    /// Those that were flaky included.
    pub passed: u64,
    pub flaky: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub broken: u64,
    pub cached: u64,
}

impl GateCounts {
    pub fn count(&mut self, record: &GateRecord) {
        if record.cached {
            self.cached += 1;
            return;
        }
        match record.outcome {
            GateOutcome::Passed => self.passed += 1,
            GateOutcome::Failed => self.failed += 1,
            GateOutcome::TimedOut => self.timed_out += 1,
            GateOutcome::Broken => self.broken += 1,
        }
        self.flaky += u64::from(record.flaky);
    }
}

/// What somebody who has asked for a run of the gates is told meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GateEvent {
    /// Another run is under way; this one begins when that has ended.
    Waiting,
    Started(RunningGate),
    /// What it prints. May have gaps when it prints faster than it is read; the log has none.
    Output {
        text: String,
    },
    Finished {
        record: GateRecord,
    },
    /// Nothing comes after this. Gates behind the first that did not pass do not run.
    Ended {
        not_run: Vec<String>,
    },
    /// The run could not be done; nothing comes after this either.
    Failed {
        message: String,
        hint: Option<String>,
    },
}
