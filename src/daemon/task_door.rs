//! The queue for people, scripts and claimants outside of the fleet: tasks are created, and claimed
//! by whoever is not one of its agents. The fleet's own are given their tasks by the supervisor.
//!
//! A change is one conditional append, as everybody's; the driver learns of it by the queue's view.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::control::{ControlError, Refusal, TaskPort};
use crate::coordination::{NewTask, Queue, TaskError};
use crate::model::draft::{LONGEST_LEASE, MOST_DRAFTS, TaskChange, TaskDraft};
use crate::model::listing::{FoundTask, TaskReport};
use crate::model::{AgentId, Incarnation, TaskContext, TaskId, TaskSource};
use crate::ports::{Clock, Entropy, ErrorKind};

/// Longest name of a claimant, in bytes.
const MAX_NAME: usize = 64;
/// Of a made-up id, in hexadecimal digits.
const ID_DIGITS: usize = 8;

pub struct TaskDoor {
    pub queue: Queue,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// The fleet's own.
    pub agents: Vec<AgentId>,
    pub lease: Duration,
    /// Failures after which a task has failed.
    pub attempts: u32,
}

#[async_trait]
impl TaskPort for TaskDoor {
    async fn create(
        &self,
        drafts: Vec<TaskDraft>,
    ) -> Result<Result<Vec<TaskReport>, Refusal>, ControlError> {
        if drafts.is_empty() || drafts.len() > MOST_DRAFTS {
            let text = format!(
                "{} tasks; 1 to {MOST_DRAFTS} can be created at once",
                drafts.len()
            );
            return Ok(Err(invalid(text)));
        }
        if let Some(refusal) = drafts.iter().find_map(|draft| self.unknown_owner(draft)) {
            return Ok(Err(refusal));
        }
        let new = drafts.into_iter().map(|draft| self.new_task(draft));
        let ids: Vec<TaskId> = match self.queue.create_all(new.collect(), self.clock.now()).await {
            Ok(created) => created.into_iter().map(|task| task.id).collect(),
            Err(error) => return refused(error),
        };
        let found = ids.iter().filter_map(|id| match self.queue.find(id) {
            FoundTask::Known(report) => Some(*report),
            FoundTask::Unknown { .. } => None,
        });
        Ok(Ok(found.collect()))
    }

    async fn change(
        &self,
        id: TaskId,
        change: TaskChange,
    ) -> Result<Result<TaskReport, Refusal>, ControlError> {
        if let Some(refusal) = refuse_claimant(change.agent()).or_else(|| refuse_lease(&change)) {
            return Ok(Err(refusal));
        }
        if let Some(refusal) = self.not_its_own(&id, &change).await? {
            return Ok(Err(refusal));
        }
        if let Err(error) = self.carry_out(&id, &change).await {
            return refused(error);
        }
        match self.queue.find(&id) {
            FoundTask::Known(report) => Ok(Ok(*report)),
            FoundTask::Unknown { .. } => refused(TaskError::NotFound(id)),
        }
    }
}

impl TaskDoor {
    async fn carry_out(&self, id: &TaskId, change: &TaskChange) -> Result<(), TaskError> {
        let (queue, now) = (&self.queue, self.clock.now());
        let lease = change.lease().unwrap_or(self.lease);
        let done = match change {
            TaskChange::Claim { agent, .. } => {
                queue.claim(id, agent, Incarnation(1), now, lease).await
            }
            TaskChange::Renew { fence, .. } => queue.renew(id, *fence, now, lease).await,
            TaskChange::Complete { fence, result, .. } => {
                queue.complete(id, *fence, result, None, now).await
            }
            TaskChange::Release { fence, cause, .. } => queue.release(id, *fence, cause, now).await,
            TaskChange::Fail { fence, cause, .. } => {
                queue.give_up(id, *fence, cause, self.attempts, now).await
            }
        };
        done.map(drop)
    }

    /// The number of a claim is no secret: whoever shows it must also be the one who has it.
    async fn not_its_own(
        &self,
        id: &TaskId,
        change: &TaskChange,
    ) -> Result<Option<Refusal>, ControlError> {
        let Some(fence) = change.fence() else {
            return Ok(None);
        };
        if let Err(error) = self.queue.refresh(id).await {
            return Err(ControlError::NotStored(error.chain()));
        }
        let task = self.queue.get(id);
        let claim = task.as_ref().and_then(|task| task.claim.as_ref());
        let other = claim.filter(|claim| claim.fence == fence && claim.agent != *change.agent());
        Ok(other.map(|claim| Refusal {
            code: "TASK_CLAIMED",
            reason: format!(
                "claim {fence} of task {id} is {}'s, not {}'s",
                claim.agent,
                change.agent()
            ),
            hint: Some("claim it yourself when it is available".into()),
        }))
    }

    fn unknown_owner(&self, draft: &TaskDraft) -> Option<Refusal> {
        let owner = draft.owner.as_ref()?;
        if self.agents.contains(owner) {
            return None;
        }
        let names: Vec<&str> = self.agents.iter().map(AgentId::as_str).collect();
        Some(Refusal {
            code: "UNKNOWN_AGENT",
            reason: format!("there is no agent `{owner}` that could do it"),
            hint: Some(format!(
                "there are: {}; without an owner any worker takes it",
                names.join(", ")
            )),
        })
    }

    fn new_task(&self, draft: TaskDraft) -> NewTask {
        let made_up = || {
            let digits = self.entropy.uuid().replace('-', "");
            let digits = digits.get(..ID_DIGITS).unwrap_or(&digits);
            TaskId::new(format!("task-{digits}"))
        };
        NewTask {
            id: draft.id.unwrap_or_else(made_up),
            description: draft.description,
            priority: draft.priority,
            owner: draft.owner,
            dependencies: draft.dependencies,
            labels: draft.labels,
            context: TaskContext {
                files: draft.context.files,
                hints: draft.context.hints,
            },
            scope: draft.scope,
            source: TaskSource::Direct,
        }
    }
}

fn refuse_claimant(agent: &AgentId) -> Option<Refusal> {
    let name = agent.as_str();
    if *agent == AgentId::manager() || agent.worker_number().is_some() {
        return Some(Refusal {
            code: "AGENT_OF_FLEET",
            reason: format!("`{agent}` is a name of the fleet's own agents"),
            hint: Some("the supervisor hands them their tasks; claim under another name".into()),
        });
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let text = format!("a claimant's name has 1 to {MAX_NAME} of a-z, 0-9 and `-`");
        return Some(invalid(text));
    }
    None
}

fn refuse_lease(change: &TaskChange) -> Option<Refusal> {
    let lease = change.lease()?;
    let allowed = Duration::from_secs(1)..=LONGEST_LEASE;
    (!allowed.contains(&lease)).then(|| {
        invalid(format!(
            "a lease has 1 to {} seconds; renew it to go on",
            LONGEST_LEASE.as_secs()
        ))
    })
}

fn invalid(reason: String) -> Refusal {
    Refusal {
        code: "INVALID_TASK",
        reason,
        hint: None,
    }
}

/// A refusal of the rules, or no answer at all.
fn refused<T>(error: TaskError) -> Result<Result<T, Refusal>, ControlError> {
    if let TaskError::Store(error) = &error {
        return Err(ControlError::NotStored(error.chain()));
    }
    if error.kind() == ErrorKind::Transient {
        return Err(ControlError::NotStored(error.to_string()));
    }
    let hint = match &error {
        TaskError::Claimed { .. } => {
            "whoever had it before has lost it: stop working on it, and give nothing of it away"
        }
        TaskError::Fenced { .. } => "stop working on it; `orchestrator task show` says why",
        TaskError::NotFound(_) => "`orchestrator task list` lists them",
        TaskError::AlreadyExists(_) => "choose another id, or leave it out",
        TaskError::Blocked { .. } => "it can be claimed when they are done",
        TaskError::UnknownDependency { .. } => "create it before, or in the same request",
        TaskError::Cycle(_) => "leave one of the dependencies out",
        TaskError::NotYours { .. } | TaskError::NotAvailable { .. } => {
            "`orchestrator task list --status available` lists what can be claimed"
        }
        TaskError::Invalid { .. } | TaskError::Unknown { .. } | TaskError::Store(_) => "",
    };
    let code = match &error {
        // As for a question about it.
        TaskError::NotFound(_) => "UNKNOWN_TASK",
        other => other.code(),
    };
    Ok(Err(Refusal {
        code,
        reason: error.to_string(),
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
    }))
}
