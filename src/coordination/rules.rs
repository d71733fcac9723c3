//! The life of a task: pure functions from the task as it is and a wish to the task as it will be.
//!
//! `Ok(None)` means that it is so already: every wish may be repeated. A claim's fence is the
//! attempt it began, so it grows with each claim, and whoever shows an older one is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::attempt::{cut_cause, next_number, with_notes};
use crate::model::{
    AgentId, AttemptEnd, AttemptNote, Claim, Incarnation, Receipt, Task, TaskContext, TaskId,
    TaskSource, TaskStatus, Timestamp,
};
use crate::ports::{ErrorKind, PortError};

/// Longest description, in bytes: leaves room for the rest of a record of 256 KB.
pub const MAX_DESCRIPTION_BYTES: usize = 64 * 1024;
/// Largest new task as JSON, in bytes: half a record, so that a claim and a result always fit.
pub const MAX_TASK_BYTES: usize = 128 * 1024;
/// Longest result or reason, in bytes; longer ones are cut, because work must not fail on it. JSON
/// may need six bytes for one.
pub const MAX_RESULT_BYTES: usize = 16 * 1024;
/// Most dependencies, labels or context files of one task.
pub const MAX_ENTRIES: usize = 200;
/// Longest task id, label, file name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// What `create` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    pub id: TaskId,
    pub description: String,
    pub priority: i64,
    pub owner: Option<AgentId>,
    pub dependencies: Vec<TaskId>,
    pub labels: Vec<String>,
    pub context: TaskContext,
    /// Globs of the paths it may change; empty: any.
    pub scope: Vec<String>,
    pub source: TaskSource,
}

/// What a failed attempt means for the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Available again while fewer than this many attempts count against it.
    UpTo(u32),
}

/// Why a task was not changed. [`TaskError::code`] is public and stable.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("task {task} is claimed by {holder} since {} ms (Unix time), until {}", since.0, until.0)]
    Claimed {
        task: TaskId,
        holder: AgentId,
        since: Timestamp,
        until: Timestamp,
    },
    #[error("there is no task {0}")]
    NotFound(TaskId),
    #[error("task {0} exists already")]
    AlreadyExists(TaskId),
    #[error("task {task} is {}", status.as_str())]
    NotAvailable { task: TaskId, status: TaskStatus },
    #[error("task {task} waits for {}", join(waits_for))]
    Blocked {
        task: TaskId,
        waits_for: Vec<TaskId>,
    },
    #[error("task {task} belongs to {owner}")]
    NotYours { task: TaskId, owner: AgentId },
    #[error("claim {shown} of task {task} is over; the newest claim is {newest}")]
    Fenced {
        task: TaskId,
        shown: u64,
        newest: u64,
    },
    #[error("task {task} depends on {dependency}, which does not exist")]
    UnknownDependency { task: TaskId, dependency: TaskId },
    #[error("the dependencies form a cycle: {}", join(.0))]
    Cycle(Vec<TaskId>),
    #[error("task {task}: {problem}")]
    Invalid { task: TaskId, problem: String },
    /// The store did not say whether the change happened; the view will show it when it does.
    #[error("the outcome of the change to task {task} is unknown: {text}")]
    Unknown { task: TaskId, text: String },
    #[error("the task store failed")]
    Store(#[from] PortError),
}

impl TaskError {
    /// The public code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "TASK_CLAIMED",
            Self::NotFound(_) => "TASK_NOT_FOUND",
            Self::AlreadyExists(_) => "TASK_EXISTS",
            Self::NotAvailable { .. } => "TASK_NOT_AVAILABLE",
            Self::Blocked { .. } => "TASK_BLOCKED",
            Self::NotYours { .. } => "TASK_NOT_YOURS",
            Self::Fenced { .. } => "TASK_FENCED",
            Self::UnknownDependency { .. } => "UNKNOWN_DEPENDENCY",
            Self::Cycle(_) => "DEPENDENCY_CYCLE",
            Self::Invalid { .. } => "INVALID_TASK",
            Self::Unknown { .. } => "OUTCOME_UNKNOWN",
            Self::Store(_) => "STORE_FAILED",
        }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::Unknown { .. } => ErrorKind::Transient,
            Self::Store(error) => error.kind,
            _ => ErrorKind::Refused,
        }
    }
}

fn join(ids: &[TaskId]) -> String {
    let ids: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
    ids.join(", ")
}

/// What became of a wish: the new task, or nothing to do.
pub type Changed = Result<Option<Task>, TaskError>;

/// A fresh task, checked by itself. [`order`] checks it against the others.
pub fn create(new: &NewTask, now: Timestamp) -> Result<Task, TaskError> {
    let refuse = |problem: String| TaskError::Invalid {
        task: new.id.clone(),
        problem,
    };
    check_id(&new.id)?;
    if new.description.trim().is_empty() {
        return Err(refuse("the description is empty".to_owned()));
    }
    if new.description.len() > MAX_DESCRIPTION_BYTES {
        return Err(refuse(format!(
            "the description has {} bytes; at most {MAX_DESCRIPTION_BYTES} are allowed",
            new.description.len()
        )));
    }
    let names = new
        .labels
        .iter()
        .chain(&new.context.files)
        .chain(&new.scope);
    let hints = new.context.hints.as_ref().map_or(0, String::len);
    if hints > MAX_DESCRIPTION_BYTES || names.clone().any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(refuse(format!(
            "hints may have {MAX_DESCRIPTION_BYTES} bytes, a label, file name or pattern {MAX_NAME_BYTES}"
        )));
    }
    if new.dependencies.len() > MAX_ENTRIES || names.count() > MAX_ENTRIES {
        return Err(refuse(format!(
            "at most {MAX_ENTRIES} dependencies and {MAX_ENTRIES} labels and files are allowed"
        )));
    }
    if let Some((pattern, error)) = new
        .scope
        .iter()
        .find_map(|pattern| Some((pattern, glob::Pattern::new(pattern).err()?)))
    {
        return Err(refuse(format!(
            "`{pattern}` is no pattern of paths: {error}"
        )));
    }
    let task = Task {
        id: new.id.clone(),
        description: new.description.clone(),
        status: TaskStatus::Available,
        priority: new.priority,
        owner: new.owner.clone(),
        dependencies: new.dependencies.clone(),
        labels: new.labels.clone(),
        context: new.context.clone(),
        scope: new.scope.clone(),
        source: new.source.clone(),
        claim: None,
        attempts: 0,
        history: Vec::new(),
        forgiven: 0,
        result: None,
        receipt: None,
        created_at: now,
        updated_at: now,
    };
    let size = serde_json::to_vec(&task).map_or(usize::MAX, |json| json.len());
    if size > MAX_TASK_BYTES {
        return Err(refuse(format!(
            "as JSON it has {size} bytes; at most {MAX_TASK_BYTES} are allowed"
        )));
    }
    Ok(task)
}

/// An id is part of a store subject, of branch names and of addresses: `[A-Za-z0-9._-]`.
fn check_id(id: &TaskId) -> Result<(), TaskError> {
    let text = id.as_str();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.chars().all(allowed) {
        return Err(TaskError::Invalid {
            task: id.clone(),
            problem: format!("an id has 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` or `-`"),
        });
    }
    Ok(())
}

/// The order in which new tasks can be created: dependencies first. Refuses unknown dependencies,
/// cycles and an id named twice. `exists` tells which tasks are there already.
pub fn order(new: &[NewTask], exists: &dyn Fn(&TaskId) -> bool) -> Result<Vec<usize>, TaskError> {
    let mut by_id: BTreeMap<&TaskId, usize> = BTreeMap::new();
    for (at, task) in new.iter().enumerate() {
        if by_id.insert(&task.id, at).is_some() {
            return Err(TaskError::AlreadyExists(task.id.clone()));
        }
    }
    for task in new {
        for dependency in &task.dependencies {
            if !by_id.contains_key(dependency) && !exists(dependency) {
                return Err(TaskError::UnknownDependency {
                    task: task.id.clone(),
                    dependency: dependency.clone(),
                });
            }
        }
    }
    let mut placed: BTreeSet<usize> = BTreeSet::new();
    let mut result = Vec::with_capacity(new.len());
    while result.len() < new.len() {
        let ready: Vec<usize> = (0..new.len())
            .filter(|at| !placed.contains(at))
            .filter(|&at| {
                let mut ours = new[at].dependencies.iter().filter_map(|id| by_id.get(id));
                ours.all(|dependency| placed.contains(dependency))
            })
            .collect();
        if ready.is_empty() {
            return Err(TaskError::Cycle(cycle(new, &by_id, &placed)));
        }
        placed.extend(&ready);
        result.extend(ready);
    }
    Ok(result)
}

/// Walks dependencies that are not placed until one comes again.
fn cycle(
    new: &[NewTask],
    by_id: &BTreeMap<&TaskId, usize>,
    placed: &BTreeSet<usize>,
) -> Vec<TaskId> {
    let mut path: Vec<usize> = Vec::new();
    let mut at = (0..new.len()).find(|at| !placed.contains(at));
    while let Some(here) = at {
        if let Some(start) = path.iter().position(|&seen| seen == here) {
            path.push(here);
            return path[start..].iter().map(|&at| new[at].id.clone()).collect();
        }
        path.push(here);
        at = new[here]
            .dependencies
            .iter()
            .filter_map(|id| by_id.get(id).copied())
            .find(|dependency| !placed.contains(dependency));
    }
    Vec::new()
}

/// Who wants a task, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    pub agent: &'a AgentId,
    pub incarnation: Incarnation,
    pub lease: Duration,
}

/// Takes an available task, or one whose lease has run out. `unmet`: dependencies not done yet.
pub fn claim(task: &Task, who: Claimant<'_>, unmet: Vec<TaskId>, now: Timestamp) -> Changed {
    if let Some(owner) = task.owner.as_ref().filter(|owner| *owner != who.agent) {
        return Err(TaskError::NotYours {
            task: task.id.clone(),
            owner: owner.clone(),
        });
    }
    match (&task.status, &task.claim) {
        // Its own claim once more: the answer to the first was lost, in a crash for example.
        (TaskStatus::Claimed, Some(claim))
            if claim.agent == *who.agent && claim.lease_until > now =>
        {
            return Ok(None);
        }
        // Claimed by nobody is a damaged record: it may be taken.
        (TaskStatus::Available, _) | (TaskStatus::Claimed, None) => {}
        (TaskStatus::Claimed, Some(claim)) if claim.lease_until <= now => {}
        (TaskStatus::Claimed, Some(claim)) => {
            return Err(TaskError::Claimed {
                task: task.id.clone(),
                holder: claim.agent.clone(),
                since: claim.claimed_at,
                until: claim.lease_until,
            });
        }
        (status, _) => return Err(not_available(task, *status)),
    }
    if !unmet.is_empty() {
        return Err(TaskError::Blocked {
            task: task.id.clone(),
            waits_for: unmet,
        });
    }
    let attempts = task.attempts.saturating_add(1);
    let lapsed = "its claim was not renewed in time";
    let task = tried(task, AttemptEnd::LeaseRanOut, lapsed, now);
    Ok(Some(Task {
        status: TaskStatus::Claimed,
        claim: Some(Claim {
            agent: who.agent.clone(),
            incarnation: who.incarnation,
            fence: u64::from(attempts),
            claimed_at: now,
            lease_until: now + who.lease,
        }),
        attempts,
        result: None,
        receipt: None,
        updated_at: now,
        ..task
    }))
}

/// What the holder tells of attempts that ended while it kept the claim, and which life of it goes
/// on with it. May be told as often as one likes.
pub fn note(
    task: &Task,
    fence: u64,
    incarnation: Incarnation,
    past: &[AttemptNote],
    now: Timestamp,
) -> Changed {
    let claim = held(task, fence)?;
    let history = with_notes(&task.history, past);
    let incarnation = incarnation.max(claim.incarnation);
    if history == task.history && incarnation == claim.incarnation {
        return Ok(None);
    }
    let claim = Claim {
        incarnation,
        ..claim.clone()
    };
    Ok(Some(Task {
        history,
        claim: Some(claim),
        updated_at: now,
        ..task.clone()
    }))
}

/// Moves the lease's end; never back.
pub fn renew(task: &Task, fence: u64, lease: Duration, now: Timestamp) -> Changed {
    let claim = held(task, fence)?;
    let until = now + lease;
    if until <= claim.lease_until {
        return Ok(None);
    }
    let mut claim = claim.clone();
    claim.lease_until = until;
    Ok(Some(Task {
        claim: Some(claim),
        updated_at: now,
        ..task.clone()
    }))
}

/// The holder is done. Its lease may have run out, as long as nobody else has claimed since.
pub fn complete(
    task: &Task,
    fence: u64,
    result: &str,
    receipt: Option<&Receipt>,
    now: Timestamp,
) -> Changed {
    if task.status == TaskStatus::Done && fence_of(task) == Some(fence) {
        return Ok(None);
    }
    held(task, fence)?;
    let task = tried(
        task,
        AttemptEnd::Done,
        "its agent said that it is done",
        now,
    );
    let mut done = ended(&task, TaskStatus::Done, result, now);
    done.receipt = receipt.cloned().map(Box::new);
    Ok(Some(done))
}

/// Before a push or a merge: is the work of this claim still wanted? A finished one is, an
/// overtaken, failed or cancelled one is not.
pub fn check(task: &Task, fence: u64) -> Result<(), TaskError> {
    if task.status == TaskStatus::Done && fence_of(task) == Some(fence) {
        return Ok(());
    }
    held(task, fence).map(|_| ())
}

/// The holder gives up: available again if `retry` allows it, failed otherwise. How its last attempt
/// ended was [`note`]d before.
pub fn fail(task: &Task, fence: u64, reason: &str, retry: Retry, now: Timestamp) -> Changed {
    if attempt_is_over(task, fence) {
        return Ok(None);
    }
    held(task, fence)?;
    let again = match retry {
        Retry::Never => false,
        Retry::UpTo(limit) => task.failures() < limit,
    };
    let status = if again {
        TaskStatus::Available
    } else {
        TaskStatus::Failed
    };
    let mut next = ended(task, status, reason, now);
    if again {
        next.claim = None;
    }
    Ok(Some(next))
}

/// As [`fail`], with the note of an attempt that failed by itself.
pub fn give_up(task: &Task, fence: u64, cause: &str, limit: u32, now: Timestamp) -> Changed {
    if attempt_is_over(task, fence) {
        return Ok(None);
    }
    held(task, fence)?;
    let task = tried(task, AttemptEnd::FailedTurn, cause, now);
    fail(&task, fence, cause, Retry::UpTo(limit), now)
}

/// The holder hands it back undone, without judging it: that counts for nothing.
pub fn release(task: &Task, fence: u64, cause: &str, now: Timestamp) -> Changed {
    if attempt_is_over(task, fence) {
        return Ok(None);
    }
    let claim = held(task, fence)?;
    let end = if claim.lease_until <= now {
        AttemptEnd::LeaseRanOut
    } else {
        AttemptEnd::Released
    };
    Ok(Some(Task {
        status: TaskStatus::Available,
        claim: None,
        updated_at: now,
        ..tried(task, end, cause, now)
    }))
}

/// Nobody shall do it any more. A holder learns it by its fence being refused.
pub fn cancel(task: &Task, reason: &str, now: Timestamp) -> Changed {
    match task.status {
        TaskStatus::Cancelled => Ok(None),
        TaskStatus::Available | TaskStatus::Claimed => {
            let task = tried(task, AttemptEnd::Cancelled, reason, now);
            Ok(Some(ended(&task, TaskStatus::Cancelled, reason, now)))
        }
        status => Err(not_available(task, status)),
    }
}

/// Somebody else has done it. The claim stays in the record, so the holder's `complete` is no error.
pub fn close(task: &Task, result: &str, now: Timestamp) -> Changed {
    if task.status.is_final() {
        return Ok(None);
    }
    let task = tried(task, AttemptEnd::Done, result, now);
    Ok(Some(ended(&task, TaskStatus::Done, result, now)))
}

/// A finished task is to be done again. Claims go on counting, so old fences stay refused; the
/// attempts so far count against it no longer.
pub fn reopen(task: &Task, priority: i64, now: Timestamp) -> Changed {
    if !task.status.is_final() {
        return Ok(None);
    }
    Ok(Some(Task {
        status: TaskStatus::Available,
        claim: None,
        result: None,
        receipt: None,
        forgiven: next_number(&task.history) - 1,
        priority,
        updated_at: now,
        ..task.clone()
    }))
}

/// Changes the place of a task that is not finished.
pub fn reprioritise(task: &Task, priority: i64, now: Timestamp) -> Changed {
    if task.status.is_final() || task.priority == priority {
        return Ok(None);
    }
    Ok(Some(Task {
        priority,
        updated_at: now,
        ..task.clone()
    }))
}

fn fence_of(task: &Task) -> Option<u64> {
    task.claim.as_ref().map(|claim| claim.fence)
}

/// The current claim, if `fence` is its number. Whoever shows another one while somebody has the
/// task is told who.
fn held(task: &Task, fence: u64) -> Result<&Claim, TaskError> {
    match &task.claim {
        Some(claim) if task.status == TaskStatus::Claimed && claim.fence == fence => Ok(claim),
        Some(claim) if task.status == TaskStatus::Claimed => Err(TaskError::Claimed {
            task: task.id.clone(),
            holder: claim.agent.clone(),
            since: claim.claimed_at,
            until: claim.lease_until,
        }),
        _ => Err(TaskError::Fenced {
            task: task.id.clone(),
            shown: fence,
            newest: u64::from(task.attempts),
        }),
    }
}

/// The attempt of this fence was failed or released before, and nobody has claimed since.
fn attempt_is_over(task: &Task, fence: u64) -> bool {
    match task.status {
        TaskStatus::Available => task.attempts > 0 && u64::from(task.attempts) == fence,
        TaskStatus::Failed => fence_of(task) == Some(fence),
        _ => false,
    }
}

/// With a note of how the attempt under its present claim ended; as it is where nobody held it.
fn tried(task: &Task, end: AttemptEnd, cause: &str, now: Timestamp) -> Task {
    let mut task = task.clone();
    let (TaskStatus::Claimed, Some(claim)) = (task.status, &task.claim) else {
        return task;
    };
    let mut latest = task.history.iter().rev();
    let before = latest.find(|note| note.fence == claim.fence);
    let note = AttemptNote {
        number: next_number(&task.history),
        fence: claim.fence,
        agent: claim.agent.clone(),
        incarnation: claim.incarnation,
        began: before.map_or(claim.claimed_at, |note| note.ended),
        ended: now,
        end,
        cause: cut_cause(cause),
    };
    task.history = with_notes(&task.history, &[note]);
    task
}

fn ended(task: &Task, status: TaskStatus, result: &str, now: Timestamp) -> Task {
    Task {
        status,
        result: Some(cut(result).to_owned()),
        updated_at: now,
        ..task.clone()
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_RESULT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn not_available(task: &Task, status: TaskStatus) -> TaskError {
    TaskError::NotAvailable {
        task: task.id.clone(),
        status,
    }
}
