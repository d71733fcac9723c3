//! A fleet that is not there: answers as told, remembers what was asked.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::control::{ControlError, ControlPort, Reply, Request, StatusReport};
use crate::model::view::{
    AgentView, FleetView, MergeCounts, Notice, PlanningView, TaskCounts, TaskView, UsageView,
};
use crate::model::{AgentId, HookAnswer, HookReport, Incarnation, Role, Timestamp};

pub(crate) struct FakeControl {
    pub(crate) asked: Mutex<Vec<Request>>,
    pub(crate) answer: Mutex<Result<Reply, ControlError>>,
    pub(crate) views: watch::Sender<Arc<FleetView>>,
}

impl FakeControl {
    pub(crate) fn new() -> Arc<Self> {
        let (views, _) = watch::channel(Arc::new(fleet()));
        Arc::new(Self {
            asked: Mutex::new(Vec::new()),
            answer: Mutex::new(Ok(Reply::Accepted)),
            views,
        })
    }

    pub(crate) fn answer(&self, answer: Result<Reply, ControlError>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Takes what was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Publishes a snapshot of this generation.
    pub(crate) fn publish(&self, generation: u64) {
        let mut view = fleet();
        view.generation = generation;
        self.views.send_replace(Arc::new(view));
    }
}

#[async_trait]
impl ControlPort for FakeControl {
    async fn request(&self, request: Request) -> Result<Reply, ControlError> {
        self.asked.lock().unwrap().push(request);
        self.answer.lock().unwrap().clone()
    }

    async fn hook(
        &self,
        _report: HookReport,
        _raw: serde_json::Value,
    ) -> Result<HookAnswer, ControlError> {
        Err(ControlError::Gone)
    }

    async fn status_line(&self, _report: StatusReport) -> Result<String, ControlError> {
        Err(ControlError::Gone)
    }

    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views.subscribe()
    }
}

/// 2026-01-02T03:04:05Z.
pub(crate) const NOW: Timestamp = Timestamp(1_767_323_045_000);

/// A manager, a worker at work, one that is limited and one that failed.
pub(crate) fn fleet() -> FleetView {
    let mut working = agent(AgentId::worker(1), "working", "is on task w1-3fa9", 95);
    working.task = Some(TaskView {
        id: "w1-3fa9".into(),
        title: "Add a `--json` flag to every table the program prints".into(),
        status: "claimed".into(),
        attempts: 2,
        since: Timestamp(NOW.0 - 65_000),
    });
    working.usage = UsageView {
        input_tokens: 1_234_567,
        output_tokens: 45_300,
        cost_usd: 12.345,
        context_used_percent: Some(62.4),
        ..UsageView::default()
    };
    (working.ahead, working.behind, working.turns) = (Some(3), Some(1), 42);
    let mut limited = agent(
        AgentId::worker(2),
        "limited",
        "the 5-hour limit of `team` is spent until 04:00",
        7_500,
    );
    limited.credential = Some("team".into());
    let mut failed = agent(
        AgentId::worker(3),
        "failed",
        "crashed 5 times in 2 min: exit code 137, out of memory",
        200_000,
    );
    failed.restarts = 5;
    let mut manager = agent(AgentId::manager(), "idle", "nothing to do", 5);
    manager.role = Role::Manager;
    manager.task_list = None;
    FleetView {
        generation: 7,
        at: NOW,
        project: "demo".into(),
        version: "0.1.0".into(),
        phase: "running".into(),
        branch: "main".into(),
        branch_head: Some("0123456789abcdef0123456789abcdef01234567".into()),
        pushed: false,
        push_problem: Some("the remote refused: protected branch".into()),
        tmux_socket: "orchestrator-demo".into(),
        task_list_directory: "/state/checkouts/manager".into(),
        agents: vec![manager, working, limited, failed],
        tasks: TaskCounts {
            available: 4,
            claimed: 1,
            done: 9,
            failed: 1,
            cancelled: 0,
        },
        merges: MergeCounts {
            waiting: 1,
            merged: 8,
            conflicts: 2,
            resolved: 1,
        },
        planning: PlanningView {
            rounds: 3,
            empty_rounds: 1,
            next_round_at: Some(Timestamp(NOW.0 + 300_000)),
            resting: false,
        },
        unknown_hooks: vec![("FutureEvent".into(), 2)],
        notices: vec![Notice {
            at: Timestamp(NOW.0 - 120_000),
            agent: Some(AgentId::worker(3)),
            text: "worker-3 is out of memory again and again".into(),
            hint: Some("raise `memory` in orchestrator.json".into()),
        }],
    }
}

fn agent(id: AgentId, state: &str, reason: &str, seconds: i64) -> AgentView {
    AgentView {
        branch: format!("agent/{id}"),
        task_list: id
            .worker_number()
            .map(|n| format!("WORKER_{n}_TASK_LIST.md")),
        id,
        role: Role::Worker,
        incarnation: Incarnation(1),
        state: state.into(),
        reason: reason.into(),
        since: Timestamp(NOW.0 - seconds * 1000),
        session: None,
        container: None,
        credential: Some("login".into()),
        model: None,
        task: None,
        queued: 0,
        tasks_done: 0,
        head: None,
        ahead: Some(0),
        behind: Some(0),
        turns: 0,
        restarts: 0,
        usage: UsageView::default(),
        last_hook: None,
        last_hook_at: None,
        signals: crate::model::view::SignalsView::default(),
    }
}
