//! The driver's side of `control`: front doors put an input into its queue and wait for the answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use super::gates::Gates;
use super::keeping::Keeper;
use super::program::Herald;
use super::task_door::TaskDoor;
use crate::control::{
    ControlError, ControlPort, GateRequest, GateStream, KeepingPort, Refusal, StatusReport,
    TaskPort, TreeReport,
};
use crate::model::listing::{FoundTask, TaskFilter, TaskPage};
use crate::model::view::FleetView;
use crate::model::{
    About, AgentId, Explanation, GateView, HookAnswer, HookReport, Reply, Request, TaskId,
};
use crate::supervisor::Event;

/// Inputs that wait for the driver. A decision takes about a millisecond, so a full queue means
/// that the disk hangs.
pub(super) const INPUTS: usize = 4096;
/// A hook's caller gives up after 15 s; the driver must be clearly faster.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);

/// Everything that may come to the driver.
#[derive(Debug)]
pub(super) enum Input {
    Event(Event),
    Hook(Call),
    Request {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    Status {
        report: StatusReport,
        line: oneshot::Sender<String>,
    },
    /// A task list may have changed on disk.
    ListsTouched,
    /// The queue was changed by somebody else (another front door, an expired lease).
    QueueMoved,
    /// What an agent's transcripts say it has used.
    Tokens {
        agent: crate::model::AgentId,
        tokens: crate::claude::transcript::Tokens,
    },
    Explain(Question),
    /// Room on the disk of the state directory, while there is little.
    Disk(Option<crate::model::view::DiskView>),
    /// The gate that runs now.
    Gate(Option<crate::model::RunningGate>),
    /// Commits ahead of and behind the branch, per agent.
    Distances(Vec<(crate::model::AgentId, u32, u32)>),
}

/// Why is this agent in its state?
#[derive(Debug)]
pub(super) struct Question {
    pub(super) agent: crate::model::AgentId,
    /// How many changes of its state are wanted.
    pub(super) history: usize,
    /// Everything about it has been looked at for this question.
    pub(super) looked: bool,
    pub(super) reply: oneshot::Sender<Result<Option<Explanation>, ControlError>>,
}

/// A hook callback and whoever waits for its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) report: HookReport,
    pub(super) raw: serde_json::Value,
    pub(super) answer: oneshot::Sender<Result<HookAnswer, ControlError>>,
}

#[derive(Clone)]
pub(super) struct DriverHandle {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) view: watch::Receiver<Arc<FleetView>>,
    pub(super) herald: Arc<Herald>,
    pub(super) gates: Gates,
    pub(super) keeper: Arc<Keeper>,
    /// For questions about tasks and changes of them, which need no decision.
    pub(super) tasks: Arc<TaskDoor>,
}

impl DriverHandle {
    /// From effects and watchers: they have nobody to tell when the driver is gone.
    pub(super) async fn tell(&self, event: Event) {
        let _gone = self.inputs.send(Input::Event(event)).await;
    }

    pub(super) async fn put(&self, input: Input) {
        let _gone = self.inputs.send(input).await;
    }

    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, ControlError> {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            let sent = self.inputs.send(input(sender)).await;
            sent.map_err(|_| ControlError::Gone)?;
            receiver.await.map_err(|_| ControlError::Gone)
        };
        tokio::time::timeout(ANSWER_DEADLINE, asked)
            .await
            .map_err(|_| ControlError::Late)?
    }
}

#[async_trait]
impl ControlPort for DriverHandle {
    async fn request(&self, request: Request) -> Result<Reply, ControlError> {
        self.ask(|reply| Input::Request { request, reply }).await
    }

    async fn hook(
        &self,
        report: HookReport,
        raw: serde_json::Value,
    ) -> Result<HookAnswer, ControlError> {
        let call = |answer| Call {
            report,
            raw,
            answer,
        };
        self.ask(|answer| Input::Hook(call(answer))).await?
    }

    async fn tree(&self, report: TreeReport) -> Result<(), ControlError> {
        let TreeReport {
            agent,
            callback,
            uncommitted,
        } = report;
        let seen = Event::TreeSeen {
            agent,
            callback,
            uncommitted,
        };
        let sent = self.inputs.send(Input::Event(seen)).await;
        sent.map_err(|_| ControlError::Gone)
    }

    async fn status_line(&self, report: StatusReport) -> Result<String, ControlError> {
        self.ask(|line| Input::Status { report, line }).await
    }

    async fn about(&self) -> Result<About, ControlError> {
        Ok(self.herald.about().await)
    }

    async fn explain(
        &self,
        agent: AgentId,
        history: usize,
    ) -> Result<Option<Explanation>, ControlError> {
        self.ask(|reply| {
            Input::Explain(Question {
                agent,
                history,
                looked: false,
                reply,
            })
        })
        .await?
    }

    async fn gates(&self) -> Result<Vec<GateView>, ControlError> {
        Ok(self.gates.views())
    }

    async fn run_gates(
        &self,
        request: GateRequest,
    ) -> Result<Result<GateStream, Refusal>, ControlError> {
        Ok(self.gates.stream(request).await)
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, ControlError> {
        Ok(self.tasks.queue.page(&filter))
    }

    async fn task(&self, id: TaskId) -> Result<FoundTask, ControlError> {
        Ok(self.tasks.queue.find(&id))
    }

    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.clone()
    }

    fn queue(&self) -> Option<Arc<dyn TaskPort>> {
        Some(self.tasks.clone())
    }

    fn keeping(&self) -> Option<Arc<dyn KeepingPort>> {
        Some(self.keeper.clone())
    }
}
