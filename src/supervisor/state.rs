//! Everything the supervisor remembers. Ordered, serialisable, and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::canary::Signals;
use super::evidence::Evidence;
pub use super::phase::{AfterStop, Phase, Waits};
use super::pool::{Lease, Pool};
use super::proof::{Claimed, Repair};
use super::rescue::Rescuing;
use super::train::{HandOver, Train};
use super::wishes::{Dropped, Wish};
use crate::model::view::{MergeCounts, Notice, TaskCounts};
use crate::model::{
    AgentId, AttemptNote, CallbackId, CommitId, CredentialId, Ending, Incarnation, Receipt, Role,
    SessionId, TaskId, TaskSource, Timestamp,
};

/// A working agent that says nothing for so long is looked at: a person may have interrupted it,
/// which no hook tells. Long thinking and long tools are quiet too, and show on the screen.
pub(super) const QUIET: Duration = Duration::from_secs(120);
/// From the end of a session to the end of its process. Observed: 0.1 s, 1.6 s with a slow hook.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// Notices kept; older ones fall out.
const NOTICES: usize = 50;

/// The fleet on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    pub agents: BTreeMap<AgentId, AgentState>,
    #[serde(default)]
    pub merging: Merging,
    #[serde(default)]
    pub planning: Planning,
    #[serde(default)]
    pub pool: Pool,
    #[serde(default)]
    pub phase: FleetPhase,
    #[serde(default)]
    pub branch_head: Option<CommitId>,
    /// Since when the container engine is away, as far as we know.
    #[serde(default)]
    pub engine_away: Option<Timestamp>,
    #[serde(default)]
    pub notices: Vec<Notice>,
    #[serde(default)]
    pub unknown_hooks: BTreeMap<String, u64>,
    /// What people want of single tasks, until the queue has confirmed it.
    #[serde(default)]
    pub wishes: Vec<Wish>,
    /// Events of earlier incarnations that were ignored.
    #[serde(default)]
    pub late_events: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum FleetPhase {
    #[default]
    Running,
    Ending {
        ending: Ending,
        finished: bool,
    },
}

/// One agent. Its row in the store is this value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    pub id: AgentId,
    pub role: Role,
    pub incarnation: Incarnation,
    pub phase: Phase,
    /// One sentence for people: why the phase is what it is.
    pub reason: String,
    pub since: Timestamp,
    pub session: SessionId,
    /// The conversation exists: the next launch resumes it.
    pub conversed: bool,
    /// What its instance has, as far as we know.
    pub credential: Option<CredentialId>,
    #[serde(default)]
    pub lease: Lease,
    pub container: Option<String>,
    pub held: Option<Held>,
    /// Completions and releases the queue has not confirmed yet.
    #[serde(default)]
    pub finishing: Vec<Finishing>,
    /// Tasks it says are done, until that is proven.
    #[serde(default)]
    pub claims: Vec<Claimed>,
    /// What it is asked to mend of them now, and how often it was asked so far.
    #[serde(default)]
    pub repair: Option<Repair>,
    #[serde(default)]
    pub repairs: u32,
    /// A conflict went back to it, and nothing of it was merged since.
    #[serde(default)]
    pub mends_conflict: bool,
    pub turns: u64,
    pub tasks_done: u32,
    pub restarts: u32,
    /// Crashes within the restart window.
    #[serde(default)]
    pub crashes: Vec<Timestamp>,
    pub head: Option<CommitId>,
    /// The newest commit of this agent that the store has.
    #[serde(default)]
    pub imported: Option<CommitId>,
    /// The newest commit of it that was handed to the train.
    #[serde(default)]
    pub offered: Option<CommitId>,
    /// The newest tip of the branch that holds work which is not its own: what its checkout is
    /// brought up to between two turns. Tips after it differ by this agent's own merges only.
    #[serde(default)]
    pub news: Option<CommitId>,
    /// An import is on its way.
    #[serde(default)]
    pub importing: bool,
    /// A later turn ended meanwhile: its title. Its commits are taken next.
    #[serde(default)]
    pub import_next: Option<String>,
    /// An import or a merge failed: its commits are taken again then, when it is idle.
    #[serde(default)]
    pub import_at: Option<Timestamp>,
    /// Title of the work that ended last; names the merge.
    #[serde(default)]
    pub last_title: String,
    /// It was asked to commit what it left uncommitted, and has not ended clean since.
    #[serde(default)]
    pub asked_to_commit: bool,
    /// The newest inventory did not show its container, and none has confirmed that yet.
    #[serde(default)]
    pub missing: bool,
    /// It should be working, but something says that it is not: its next free screen ends the turn.
    #[serde(default)]
    pub doubted: bool,
    /// Free screens in a row while it is doubted; two end the turn.
    #[serde(default)]
    pub free_looks: u32,
    /// While it works: when to look at its screen if no hook comes until then.
    #[serde(default)]
    pub look_at: Option<Timestamp>,
    /// Its turn ended with background tasks that run on.
    #[serde(default)]
    pub in_background: bool,
    /// When its session said that it ends: what it is told now, nobody may hear.
    #[serde(default)]
    pub leaving: Option<Timestamp>,
    pub last_hook: Option<String>,
    pub last_hook_at: Option<Timestamp>,
    /// What each signal said last.
    #[serde(default)]
    pub evidence: Evidence,
    /// What the start of its present life showed of its Claude Code.
    #[serde(default)]
    pub signals: Signals,
    #[serde(default)]
    pub rescuing: Rescuing,
    /// The Stop that ended its last turn, and what was uncommitted then, once that is known.
    #[serde(default)]
    pub stop: Option<CallbackId>,
    #[serde(default)]
    pub uncommitted: Option<Vec<String>>,
    /// Its task was cancelled under its hands, and it has not been told yet.
    #[serde(default)]
    pub dropped: Option<Dropped>,
}

/// A task this agent has claimed and is working on, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub task: TaskId,
    pub fence: u64,
    pub title: String,
    pub source: TaskSource,
    /// Paths it may change; empty: any.
    #[serde(default)]
    pub scope: Vec<String>,
    /// Where its branch was when it was told first; its work on the task comes after.
    #[serde(default)]
    pub after: Vec<CommitId>,
    /// The Stop after which it began, and what was uncommitted then, once that is known.
    #[serde(default)]
    pub from: Option<CallbackId>,
    #[serde(default)]
    pub before: Option<Vec<String>>,
    /// What the agent is told.
    pub text: String,
    pub since: Timestamp,
    pub attempts: u32,
    /// The agent has it for sure: its Stop hook was answered with it, or its prompt receipt came.
    pub delivered: bool,
    /// It had it in an earlier life, and may go on with it by itself if it had `begun`.
    #[serde(default)]
    pub interrupted: bool,
    /// Its conversation has it for sure: the prompt was confirmed, or a tool was used in its turn. The
    /// answer to a Stop hook alone may be lost with the process.
    #[serde(default)]
    pub begun: bool,
    /// Attempts that ended by a cause of its own, since it was last asked for.
    #[serde(default)]
    pub failures: u32,
    /// Every attempt so far that has ended; told to the queue until that has them.
    #[serde(default)]
    pub past: Vec<AttemptNote>,
    /// Attempts up to this number count no longer.
    #[serde(default)]
    pub forgiven: u32,
    /// When the present attempt began.
    #[serde(default)]
    pub began: Timestamp,
    /// The turn on it was cut off and the conversation is whole: what is pasted in place of `text`.
    #[serde(default)]
    pub cut_off: Option<String>,
}

/// An end of a claim that must reach the queue, whatever happens in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finishing {
    pub task: TaskId,
    pub fence: u64,
    pub text: String,
    pub outcome: FinishAs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    /// Of a failure: what the manager is told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell_manager: Option<String>,
    /// The attempts before; those the queue does not have yet are told with the end.
    #[serde(default)]
    pub past: Vec<AttemptNote>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishAs {
    Done,
    Retry,
    Failed,
}

/// The way into the target branch, and to the remote and back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Merging {
    pub waiting: Vec<Candidate>,
    #[serde(default)]
    pub train: Train,
    /// What the manager is asked to merge now, and how many such tasks there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOver>,
    #[serde(default)]
    pub hand_overs: u32,
    /// What a version without a train was merging when it ended: it goes back into the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Candidate>,
    /// Conflicts the manager was asked to resolve, by agent.
    pub conflicts: BTreeMap<AgentId, Conflict>,
    /// How often the manager was asked to merge a commit, by `AGENT COMMIT`.
    #[serde(default)]
    pub conflicts_asked: BTreeMap<String, u32>,
    pub merged: u32,
    pub conflicts_seen: u32,
    pub resolved: u32,
    pub pushed: Option<CommitId>,
    pub push_in_flight: bool,
    /// A push is due once the one in flight is back, or at `push_retry_at`.
    pub push_wanted: bool,
    pub push_retry_at: Option<Timestamp>,
    pub push_problem: Option<String>,
    pub fetch_at: Option<Timestamp>,
    pub fetch_in_flight: bool,
}

/// A commit of an agent that wants to be in the target branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub agent: AgentId,
    pub commit: CommitId,
    pub title: String,
    /// When the first commit of it came to wait.
    #[serde(default)]
    pub since: Timestamp,
    /// What its agent claims done with it.
    #[serde(default)]
    pub tasks: Vec<TaskId>,
    /// It is the manager who merges it, and was asked to: it is only looked for.
    #[serde(default)]
    pub by_hand: bool,
    /// How often the manager was asked for it.
    #[serde(default)]
    pub asked: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub commit: CommitId,
    pub task: TaskId,
    pub paths: Vec<String>,
    /// A newer commit of the same agent that waits for the resolution.
    pub later: Option<CommitId>,
    /// What the agent claims done with them.
    #[serde(default)]
    pub tasks: Vec<TaskId>,
    /// The task has been seen in the queue: when it is in nobody's hand any more, it is over.
    #[serde(default)]
    pub seen: bool,
    /// When the manager was asked.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planning {
    pub rounds: u32,
    pub empty_rounds: u32,
    /// The round that is in the queue or being worked on.
    pub open: Option<TaskId>,
    /// It has been seen in the queue.
    #[serde(default)]
    pub open_seen: bool,
    /// `created_worker_tasks` when the newest round began.
    pub created_before: u64,
    /// The end of the newest round has been judged.
    pub judged: bool,
    pub last_end: Option<Timestamp>,
    pub resting: bool,
    pub direction_present: bool,
    /// A person asked for a round.
    pub asked: bool,
    #[serde(default)]
    pub counts: TaskCounts,
}

impl Fleet {
    /// A fleet that has never run. `sessions`: one fresh UUID per agent.
    pub fn new(agents: &[AgentId], sessions: impl IntoIterator<Item = SessionId>) -> Self {
        let agents = agents
            .iter()
            .zip(sessions)
            .map(|(id, session)| (id.clone(), AgentState::new(id.clone(), session)))
            .collect();
        Self {
            agents,
            merging: Merging::default(),
            planning: Planning::default(),
            pool: Pool::default(),
            phase: FleetPhase::Running,
            branch_head: None,
            engine_away: None,
            notices: Vec::new(),
            unknown_hooks: BTreeMap::new(),
            wishes: Vec::new(),
            late_events: 0,
        }
    }

    pub(super) fn notice(
        &mut self,
        at: Timestamp,
        agent: Option<AgentId>,
        text: &str,
        hint: Option<String>,
    ) {
        self.notices
            .retain(|notice| notice.text != text || notice.agent != agent);
        self.notices.push(Notice {
            at,
            agent,
            text: text.to_owned(),
            hint,
        });
        let surplus = self.notices.len().saturating_sub(NOTICES);
        self.notices.drain(..surplus);
    }

    pub fn ending(&self) -> Option<Ending> {
        match self.phase {
            FleetPhase::Running => None,
            FleetPhase::Ending { ending, .. } => Some(ending),
        }
    }

    pub fn merge_counts(&self) -> MergeCounts {
        let merging = &self.merging;
        MergeCounts {
            waiting: u32::try_from(
                self.agents.values().filter(|agent| agent.importing).count()
                    + merging.waiting.len()
                    + merging.handed_over().count()
                    + merging.train.members().count(),
            )
            .unwrap_or(u32::MAX),
            merged: merging.merged,
            conflicts: merging.conflicts_seen,
            resolved: merging.resolved,
        }
    }

    /// What must always be true. Returns the first thing that is not.
    pub fn check(&self) -> Result<(), String> {
        let mut holders: BTreeMap<&TaskId, &AgentId> = BTreeMap::new();
        for agent in self.agents.values() {
            let held = agent.held.iter().map(|held| &held.task);
            for task in held.chain(agent.claims.iter().map(|claim| &claim.task)) {
                if let Some(other) = holders.insert(task, &agent.id) {
                    return Err(format!("{other} and {} both hold {task}", agent.id));
                }
            }
            if agent.phase.wants_container() && agent.incarnation == Incarnation(0) {
                return Err(format!("{} runs without an incarnation", agent.id));
            }
            if matches!(agent.phase, Phase::Delivering { .. }) && agent.held.is_none() {
                return Err(format!("{} is delivered nothing", agent.id));
            }
            if agent.phase == Phase::Idle && agent.held.is_some() {
                return Err(format!("{} idles with a task", agent.id));
            }
        }
        if self.merging.conflicts.values().any(|c| c.paths.is_empty()) {
            return Err("a conflict without a path".into());
        }
        if self.merging.hand_over.is_some() && self.merging.handed_over().count() == 0 {
            return Err("the manager is asked to merge nothing".into());
        }
        self.merging.train.check()?;
        self.check_leases()
    }
}

impl Merging {
    /// What the manager is asked to merge now.
    pub fn handed_over(&self) -> impl Iterator<Item = &Candidate> {
        self.hand_over.iter().flat_map(|open| &open.candidates)
    }
}

impl AgentState {
    pub fn new(id: AgentId, session: SessionId) -> Self {
        let role = if id.worker_number().is_some() {
            Role::Worker
        } else {
            Role::Manager
        };
        Self {
            id,
            role,
            incarnation: Incarnation(0),
            phase: Phase::Absent,
            reason: "not started yet".into(),
            since: Timestamp(0),
            session,
            conversed: false,
            credential: None,
            lease: Lease::default(),
            container: None,
            held: None,
            finishing: Vec::new(),
            claims: Vec::new(),
            repair: None,
            repairs: 0,
            mends_conflict: false,
            turns: 0,
            tasks_done: 0,
            restarts: 0,
            crashes: Vec::new(),
            head: None,
            imported: None,
            offered: None,
            news: None,
            importing: false,
            import_next: None,
            import_at: None,
            last_title: String::new(),
            asked_to_commit: false,
            missing: false,
            doubted: false,
            free_looks: 0,
            look_at: None,
            in_background: false,
            leaving: None,
            last_hook: None,
            last_hook_at: None,
            evidence: Evidence::default(),
            signals: Signals::default(),
            rescuing: Rescuing::default(),
            stop: None,
            uncommitted: None,
            dropped: None,
        }
    }

    /// Its process is on its way out. After a while it is not, whatever it said.
    pub(super) fn leaves(&self, now: Timestamp) -> bool {
        self.leaving.is_some_and(|at| now.since(at) < LEAVES_WITHIN)
    }

    /// When the state people see ends by itself.
    pub(super) fn until(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Limited { until, .. }
            | Phase::Waiting { until }
            | Phase::Backoff { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Moves to another phase; `since` changes only with the public word.
    pub(super) fn enter(&mut self, now: Timestamp, phase: Phase, reason: impl Into<String>) {
        if self.phase.word() != phase.word() {
            self.since = now;
        }
        let interrupted = self.held.as_ref().is_some_and(|held| held.interrupted);
        self.rescuing.leaves(now, &self.phase, interrupted);
        self.look_at = (phase == Phase::Working).then(|| now + QUIET);
        self.phase = phase;
        self.reason = reason.into();
    }
}
