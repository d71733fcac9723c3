//! What the configuration says about decisions.

use std::time::Duration;

use crate::model::{AgentId, ProjectId};

/// What makes a worker's task done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Commits in the branch, or its word that none was needed; a clean tree; its scope.
    Commit,
    /// The end of its turn: for fleets whose tasks change no files.
    None,
}

/// Who merges the work of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeBy {
    /// The merge train, in memory.
    Train,
    /// The manager, on its own branch, which goes into the branch by the train.
    Manager,
}

impl MergeBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Manager => "manager",
        }
    }
}

/// Fixed for one run of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub project: ProjectId,
    pub branch: String,
    pub workers: u32,
    pub push: bool,
    /// How often the remote is fetched. Git servers tell nobody when a branch moves.
    pub fetch_interval: Duration,
    pub merge_by: MergeBy,
    /// Candidates that are merged and tested together, or that the manager is asked for at once.
    pub merge_batch: u32,
    /// Names of the gates that a stack must pass before it becomes the branch; none: it lands as
    /// soon as it merges.
    pub gates: Vec<String>,
    /// Claims of one task before it counts as failed.
    pub task_attempts: u32,
    /// What makes a worker's task done.
    pub proof: Proof,
    /// How often a claim without proof goes back to the agent that made it.
    pub send_back: u32,
    /// Planning rounds in a row that brought nothing before the manager rests.
    pub empty_rounds: u32,
    pub planning_cool_down: Duration,
    /// Crashes within `restart_window` before an agent is given up.
    pub restart_burst: u32,
    pub restart_window: Duration,
    /// Crashes within a day before an agent is given up, however far apart.
    pub restarts_per_day: u32,
    pub backoff: Duration,
    pub maximum_backoff: Duration,
    /// An agent at work of which nothing has moved for so long is restarted.
    pub hung_after: Duration,
    pub stop_grace: Duration,
    /// How often the uncommitted work of an agent that works is copied.
    pub rescue_interval: Duration,
    /// From container start to the SessionStart hook. Observed: 1.7 s; a loaded machine is slower.
    pub start_deadline: Duration,
    /// From paste to its UserPromptSubmit. Observed: 30 to 120 ms.
    pub receipt_deadline: Duration,
    pub delivery_attempts: u32,
    /// `container.memory`, as people write it.
    pub memory: String,
    /// Used part of a window, in per cent, from which agents are moved to another credential
    /// before they meet the limit.
    pub switch_at_percent: f64,
    /// They are moved only to one with less than this used, so that they are not moved again soon.
    pub switch_back_percent: f64,
    /// Between two such moves of one agent.
    pub switch_cool_down: Duration,
    /// How long before its end an access token is renewed.
    pub refresh_ahead: Duration,
    /// Between two agents that come to the same credential, so that they do not arrive as a herd.
    pub lend_pace: Duration,
    /// The Claude Code every observation was made on; another one is told to people. Empty: none.
    pub tested_version: String,
}

impl Policy {
    /// Every agent of the fleet, manager first.
    pub fn agents(&self) -> Vec<AgentId> {
        std::iter::once(AgentId::manager())
            .chain((1..=self.workers).map(AgentId::worker))
            .collect()
    }

    /// Delay before restart number `crashes` (from 1) within the window: none, then doubling,
    /// bounded. What crashes once after a long life is not in a loop, and waiting helps nobody.
    pub fn backoff_after(&self, crashes: u32) -> Duration {
        let Some(doublings) = crashes.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 2_u32.saturating_pow(doublings.min(16));
        self.backoff
            .saturating_mul(factor)
            .min(self.maximum_backoff)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            project: ProjectId::new("default"),
            branch: "main".into(),
            workers: 1,
            push: true,
            fetch_interval: Duration::from_secs(30),
            merge_by: MergeBy::Train,
            merge_batch: 5,
            gates: Vec::new(),
            task_attempts: 3,
            proof: Proof::Commit,
            send_back: 2,
            empty_rounds: 2,
            planning_cool_down: Duration::from_secs(60),
            restart_burst: 5,
            restart_window: Duration::from_secs(600),
            restarts_per_day: 20,
            backoff: Duration::from_secs(2),
            maximum_backoff: Duration::from_secs(120),
            hung_after: Duration::from_secs(600),
            stop_grace: Duration::from_secs(20),
            rescue_interval: Duration::from_secs(300),
            start_deadline: Duration::from_secs(120),
            receipt_deadline: Duration::from_secs(8),
            delivery_attempts: 4,
            memory: "4GiB".into(),
            switch_at_percent: 95.0,
            switch_back_percent: 85.0,
            switch_cool_down: Duration::from_secs(300),
            refresh_ahead: Duration::from_secs(1800),
            lend_pace: Duration::from_secs(2),
            tested_version: String::new(),
        }
    }
}
