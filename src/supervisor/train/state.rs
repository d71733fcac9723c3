//! What the train remembers. Part of the fleet's row in the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::ended::AGAIN_AT_MOST;
use super::order::Setbacks;
use crate::model::{AgentId, CommitId, GateRecord, TaskId, Timestamp};
use crate::supervisor::state::Candidate;

/// The train of one target branch: what is being tried, and what is known of the branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Train {
    /// The number of the newest stack. Results of another one change nothing.
    pub stacks: u64,
    pub run: Option<Run>,
    pub setbacks: Setbacks,
    /// Commits that could not be tried, by agent: they wait, and hold up nobody.
    pub put_off: BTreeMap<AgentId, PutOff>,
    /// The commit the gates have seen last that was, or became, the branch, and what they said.
    pub tested: Option<Tested>,
    /// The branch by itself does not pass its gates.
    pub branch_red: Option<BranchRed>,
    /// What became of the last ones, newest last; bounded.
    pub recent: VecDeque<Ended>,
}

/// One batch on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub stack: u64,
    /// What is tried together. The first is in hand; the others come after it, each on top of what
    /// has landed by then. Never empty, and no part of it is.
    pub segments: VecDeque<Vec<Candidate>>,
    pub step: Step,
    /// When this step began.
    pub since: Timestamp,
    /// When what is in hand was first tried, and how often the branch has moved under it since.
    pub began: Timestamp,
    pub moved: u32,
    /// It was red as a whole, and its parts are tried by themselves.
    #[serde(default)]
    pub halved: bool,
    pub stall: Option<Stall>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    Building,
    /// The gates run on the top of the stack; `all` of them, if it will be compared.
    Testing {
        built: Built,
        all: bool,
    },
    /// They were red there: they run on what the stack was built on, to see whose fault it is.
    TestingBase {
        built: Built,
        gates: Vec<GateRecord>,
    },
    Landing {
        built: Built,
        gates: Vec<GateRecord>,
    },
}

/// A stack of merge commits, in the store and nowhere else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Built {
    pub base: CommitId,
    /// The same as `base` if there is nothing to add to the branch.
    pub top: CommitId,
    /// Whose commits the branch had already.
    pub up_to_date: BTreeSet<AgentId>,
}

/// Why it does not go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    pub reason: String,
    pub since: Timestamp,
    pub tries: u32,
    /// When the step is tried again; nothing is in flight until then. `None`: it is being tried.
    pub again_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PutOff {
    pub commit: CommitId,
    pub reason: String,
    pub since: Timestamp,
    pub tries: u32,
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub commit: CommitId,
    pub gates: Vec<GateRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BranchRed {
    pub since: Timestamp,
    /// Where it was seen first.
    pub commit: CommitId,
    /// The gates' names.
    pub gates: Vec<String>,
}

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    pub agent: AgentId,
    pub commit: CommitId,
    pub title: String,
    /// `landed`, `up to date`, `red`, `conflict`, `not merged`, `failed`.
    pub outcome: String,
    /// The branch's tip, or what was in the way.
    pub detail: String,
}

impl Candidate {
    /// It comes with these as well.
    pub(in crate::supervisor) fn claim(&mut self, tasks: Vec<TaskId>) {
        for task in tasks {
            if !self.tasks.contains(&task) {
                self.tasks.push(task);
            }
        }
    }
}

impl Train {
    /// The candidates that are on their way, in the order in which they are tried.
    pub fn members(&self) -> impl Iterator<Item = &Candidate> {
        self.run
            .iter()
            .flat_map(|run| run.segments.iter().flatten())
    }

    /// It could not be tried, and waits until it is tried again.
    pub(in crate::supervisor) fn is_put_off(&self, candidate: &Candidate) -> bool {
        let held = self.put_off.get(&candidate.agent);
        held.is_some_and(|held| held.commit == candidate.commit)
    }

    /// Saved times that the present clock makes impossible.
    pub(in crate::supervisor) fn bring_near(&mut self, now: Timestamp) {
        let latest = now + AGAIN_AT_MOST;
        for held in self.put_off.values_mut() {
            held.until = held.until.min(latest);
            held.since = held.since.min(now);
        }
        let Some(run) = &mut self.run else {
            return;
        };
        run.since = run.since.min(now);
        run.began = run.began.min(now);
        for candidate in run.segments.iter_mut().flatten() {
            candidate.since = candidate.since.min(now);
        }
        if let Some(stall) = &mut run.stall {
            stall.since = stall.since.min(now);
            stall.again_at = stall.again_at.map(|at| at.min(latest));
        }
    }

    /// What the state must always be.
    pub(in crate::supervisor) fn check(&self) -> Result<(), String> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        if run.segments.is_empty() || run.segments.iter().any(Vec::is_empty) {
            return Err("the train tries nothing".into());
        }
        let mut agents = BTreeSet::new();
        if let Some(twice) = self.members().find(|c| !agents.insert(&c.agent)) {
            return Err(format!("{} is twice on the train", twice.agent));
        }
        Ok(())
    }
}
