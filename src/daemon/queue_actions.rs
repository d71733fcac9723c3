//! Actions on the task queue. They take about a millisecond, so the driver waits for them: what
//! it decides next then already sees their result.

use std::path::Path;
use std::time::Duration;

use super::claims::{self, Wish};
use super::lists::TaskLists;
use crate::coordination::{NewTask, PreparedClaim, Queue, Retry, TaskError};
use crate::model::{AgentId, AttemptNote, Incarnation, TaskContext, TaskId, TaskStatus, Timestamp};
use crate::ports::ErrorKind;
use crate::supervisor::{Action, Event, Fleet, QueueView};

/// The result of a task that a person cancelled. Reading its list again does not bring it back.
const BY_A_PERSON: &str = "cancelled by a person";

const TRIED_AGAIN: &str = "it is tried again within half a minute";

/// Blocked tasks named to a person; the number of all is said.
const NAMED: usize = 10;

/// Candidates per agent the supervisor is shown.
const CANDIDATES: usize = 16;

pub(super) struct QueueActions {
    pub(super) queue: Queue,
    pub(super) lists: TaskLists,
    pub(super) agents: Vec<AgentId>,
    pub(super) lease: Duration,
    /// Changes the store did not take; tried again by [`QueueActions::tend`].
    pub(super) again: Vec<Action>,
}

impl QueueActions {
    pub(super) fn view(&self) -> QueueView {
        let workers = self.queue.worker_counts();
        let created = [
            workers.available,
            workers.claimed,
            workers.done,
            workers.failed,
            workers.cancelled,
        ];
        let mut view = QueueView {
            counts: self.queue.by_status(),
            open_worker_tasks: workers.available + workers.claimed,
            created_worker_tasks: created.into_iter().map(u64::from).sum(),
            ..QueueView::default()
        };
        for agent in &self.agents {
            let ids = self.queue.candidate_ids(agent, CANDIDATES);
            let waiting = u32::try_from(self.queue.ready_count(agent)).unwrap_or(u32::MAX);
            view.waiting.insert(agent.clone(), waiting);
            view.candidates.insert(agent.clone(), ids);
        }
        view
    }

    /// Those of the claims that can be stored in one transaction of `database` with the decision
    /// that asks for them. Not the manager's: its boxes are ticked first.
    pub(super) fn prepare_claims(
        &self,
        now: Timestamp,
        actions: &[Action],
        database: &Path,
    ) -> Vec<(AgentId, PreparedClaim)> {
        if !self.queue.is_in(database) {
            return Vec::new();
        }
        let prepare = |action: &Action| match action {
            Action::Claim {
                agent,
                incarnation,
                task,
                purpose: _,
            } if *agent != AgentId::manager() => {
                let claim = self
                    .queue
                    .prepare_claim(task, agent, *incarnation, now, self.lease);
                claim.map(|claim| (agent.clone(), claim))
            }
            _ => None,
        };
        actions.iter().filter_map(prepare).collect()
    }

    /// The events that follow, the queue's new view first.
    pub(super) async fn carry_out(&mut self, now: Timestamp, action: Action) -> Vec<Event> {
        let mut events = Vec::new();
        if let Action::Claim { agent, .. } = &action
            && *agent == AgentId::manager()
        {
            events.extend(self.tick_branch().await);
        }
        let kept = action.clone();
        let ends_a_task = matches!(action, Action::Complete { .. });
        let result = match action {
            Action::Claim {
                agent,
                incarnation,
                task,
                purpose: _,
            } => self.claim(now, agent, incarnation, task).await,
            Action::Complete {
                agent,
                task,
                fence,
                result,
                receipt,
                past,
            } => {
                self.keep_attempts(now, &task, fence, &past).await;
                let receipt = receipt.as_deref();
                let done = self.queue.complete(&task, fence, &result, receipt, now);
                let done = done.await;
                Some(self.finished(kept, agent, task, done.map(drop)))
            }
            Action::Release {
                agent,
                task,
                fence,
                reason,
                retry,
                past,
            } => {
                self.keep_attempts(now, &task, fence, &past).await;
                let over = if retry {
                    self.queue.release(&task, fence, &reason, now).await
                } else {
                    let failed = self.queue.fail(&task, fence, &reason, Retry::Never, now);
                    failed.await
                };
                events.extend(self.blocked_by(&task));
                Some(self.finished(kept, agent, task, over.map(drop)))
            }
            Action::NoteAttempts {
                task,
                fence,
                incarnation,
                past,
            } => {
                let told = self.queue.note(&task, fence, incarnation, &past, now).await;
                if let Err(error) = told {
                    // Told again with the next word about this claim.
                    tracing::debug!(%task, fence, %error, "attempts were not noted");
                }
                None
            }
            Action::RetryTask { task } => {
                let reopened = self.queue.reopen(&task, now).await;
                Some(self.settled(kept, task, reopened.map(drop)))
            }
            Action::CancelTask { task } => {
                let cancelled = self.queue.cancel(&task, BY_A_PERSON, now).await;
                events.extend(self.blocked_by(&task));
                Some(self.settled(kept, task, cancelled.map(drop)))
            }
            Action::CreateTask(task) => Some(self.create(now, kept, task).await),
            other => {
                tracing::error!(?other, "not an action on the queue");
                None
            }
        };
        events.push(Event::QueueChanged(self.view()));
        events.extend(result);
        if ends_a_task {
            // Its box is ticked.
            events.extend(self.read_lists(now).await);
        }
        events
    }

    async fn tick_branch(&self) -> Option<Event> {
        match self.lists.tick_branch().await {
            Ok(head) => head.map(|head| Event::BranchMoved { head }),
            Err(error) => Some(Event::Noticed {
                agent: None,
                text: format!(
                    "finished tasks could not be ticked on the branch: {}",
                    error.chain()
                ),
                hint: Some("they are ticked with the next merge".into()),
            }),
        }
    }

    async fn claim(
        &self,
        now: Timestamp,
        agent: AgentId,
        incarnation: Incarnation,
        task: TaskId,
    ) -> Option<Event> {
        match self
            .queue
            .claim(&task, &agent, incarnation, now, self.lease)
            .await
        {
            Ok(claimed) => Some(Event::Claimed {
                agent,
                task: Box::new(claimed),
            }),
            Err(error) => {
                tracing::info!(%agent, %task, %error, "claim lost");
                Some(Event::ClaimLost {
                    agent,
                    task,
                    reason: error.to_string(),
                })
            }
        }
    }

    async fn create(
        &mut self,
        now: Timestamp,
        action: Action,
        task: crate::supervisor::NewTask,
    ) -> Event {
        let new = NewTask {
            id: task.id.clone(),
            description: task.description,
            priority: task.priority,
            owner: Some(task.owner.clone()),
            source: task.source,
            dependencies: Vec::new(),
            labels: Vec::new(),
            context: TaskContext::default(),
            scope: Vec::new(),
        };
        match self.queue.create(new, now).await {
            Ok(_) | Err(TaskError::AlreadyExists(_)) => {
                let found = self.queue.get(&task.id);
                Event::TaskCreated {
                    owner: task.owner,
                    task: task.id,
                    open: found.is_some_and(|task| !task.status.is_final()),
                }
            }
            Err(error) if error.kind() == ErrorKind::Transient => {
                self.again.push(action);
                Event::Noticed {
                    agent: Some(task.owner),
                    text: format!("a task could not be created: {error}"),
                    hint: Some(TRIED_AGAIN.to_owned()),
                }
            }
            Err(error) => {
                tracing::error!(task = %task.id, %error, "a task of the supervisor was refused");
                Event::TaskCreated {
                    owner: task.owner,
                    task: task.id,
                    open: false,
                }
            }
        }
    }

    /// Attempts the queue does not have yet: it was not told, or could not take them.
    async fn keep_attempts(&self, now: Timestamp, task: &TaskId, fence: u64, past: &[AttemptNote]) {
        if let Some(last) = past.last() {
            let noted = self.queue.note(task, fence, last.incarnation, past, now);
            if let Err(error) = noted.await {
                tracing::debug!(%task, fence, %error, "attempts were not noted");
            }
        }
    }

    /// Tasks that can not begin any more, because this one has failed or was cancelled.
    fn blocked_by(&self, task: &TaskId) -> Option<Event> {
        let ended = match self.queue.get(task)?.status {
            TaskStatus::Failed => "has failed",
            TaskStatus::Cancelled => "was cancelled",
            TaskStatus::Available | TaskStatus::Claimed | TaskStatus::Done => return None,
        };
        let waiting = self.queue.dependents(task);
        if waiting.is_empty() {
            return None;
        }
        let named: Vec<&str> = waiting.iter().take(NAMED).map(TaskId::as_str).collect();
        let more = waiting.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        Some(Event::Noticed {
            agent: None,
            text: format!(
                "blocked, because {task} {ended}: {}{more}",
                named.join(", ")
            ),
            hint: Some(format!(
                "`orchestrator task show {task}` says why; what depends on it waits until it is done (`orchestrator task retry {task}`)"
            )),
        })
    }

    /// Lists → queue → boxes.
    pub(super) async fn read_lists(&self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        match self.lists.read_all(now).await {
            Ok(problems) => events.extend(problems.into_iter().map(|problem| Event::Noticed {
                agent: None,
                text: problem.text,
                hint: Some(problem.hint),
            })),
            Err(error) => events.push(Event::Noticed {
                agent: None,
                text: format!("the task lists could not be read: {}", error.chain()),
                hint: error.hint,
            }),
        }
        events.insert(0, Event::QueueChanged(self.view()));
        events
    }

    /// A claim that is not ours any more is over as well: somebody else's fence is higher.
    fn finished(
        &mut self,
        action: Action,
        agent: AgentId,
        task: TaskId,
        result: Result<(), TaskError>,
    ) -> Event {
        match result {
            Ok(()) => Event::TaskFinished { agent, task },
            Err(error) if error.kind() != ErrorKind::Transient => {
                tracing::warn!(%agent, %task, %error, "the end of a task was refused");
                Event::TaskFinished { agent, task }
            }
            Err(error) => {
                self.again.push(action);
                Event::Noticed {
                    agent: Some(agent),
                    text: format!("the end of {task} could not be stored yet: {error}"),
                    hint: Some(TRIED_AGAIN.to_owned()),
                }
            }
        }
    }

    /// The queue's answer to a wish. One that it refuses is over too: the task is not what it was.
    fn settled(&mut self, action: Action, task: TaskId, result: Result<(), TaskError>) -> Event {
        match result {
            Ok(()) => Event::TaskSettled { task },
            Err(error) if error.kind() != ErrorKind::Transient => {
                tracing::warn!(%task, %error, "a wish about a task was refused");
                Event::TaskSettled { task }
            }
            Err(error) => {
                self.again.push(action);
                Event::Noticed {
                    agent: None,
                    text: format!("what was asked of {task} could not be stored yet: {error}"),
                    hint: Some(TRIED_AGAIN.to_owned()),
                }
            }
        }
    }

    /// What agents have and have lost, by what the queue says now.
    pub(super) fn overtaken(&self, fleet: &Fleet) -> Vec<Event> {
        claims::overtaken(fleet, &|id| self.queue.get(id))
    }

    /// Claims and their holders are made to agree, and what failed is tried again.
    pub(super) async fn tend(&mut self, now: Timestamp, fleet: &Fleet) -> Vec<Event> {
        let mut events = Vec::new();
        for action in std::mem::take(&mut self.again) {
            events.extend(self.carry_out(now, action).await);
        }
        for (task, fence, wish) in claims::tend(&self.queue.claimed(), fleet, now, self.lease) {
            let done = match wish {
                Wish::Renew => self.queue.renew(&task, fence, now, self.lease).await,
                Wish::GiveBack => {
                    let nobody = "nobody works on it any more";
                    self.queue.release(&task, fence, nobody, now).await
                }
            };
            match done {
                Ok(_) if wish == Wish::GiveBack => {
                    tracing::warn!(%task, fence, "a claim that nobody works on was given back");
                }
                Ok(_) => {}
                // The next look finds what is true then.
                Err(error) => tracing::warn!(%task, fence, %error, "a claim was not looked after"),
            }
        }
        events
    }
}
