//! A fleet that is not there: answers as told, remembers what was asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::control::{
    CleanUp, ControlError, ControlPort, GateRequest, GateStream, KeepingPort, Refusal, Reply,
    Request, StatusReport, TaskPort, TreeReport,
};
use crate::model::explain::{Ahead, Change, Fact, SignalView};
use crate::model::listing::{FoundTask, TaskFilter, TaskPage};
use crate::model::train::{
    CandidateView, EndedView, StackView, StallKind, StallView, TrainState, TrainView,
};
use crate::model::view::{
    AgentView, DiskView, FleetView, MergeCounts, Notice, PlanningView, TaskCounts, TaskView,
    UsageView,
};
use crate::model::{
    About, AgentId, Cause, CleanedUp, CommitId, Explanation, GateCounts, GateEvent, GateView,
    Grade, HookAnswer, HookReport, Incarnation, LeftOut, RescueContent, RescueView, Restored, Role,
    Signal, TaskId, Timestamp, WorktreeView,
};
use crate::testing::tasks::tasks;

pub(crate) struct FakeControl {
    pub(crate) asked: Mutex<Vec<Request>>,
    pub(crate) answer: Mutex<Result<Reply, ControlError>>,
    pub(crate) views: watch::Sender<Arc<FleetView>>,
    queue: Mutex<Option<Arc<dyn TaskPort>>>,
}

impl FakeControl {
    pub(crate) fn new() -> Arc<Self> {
        let (views, _) = watch::channel(Arc::new(fleet()));
        Arc::new(Self {
            asked: Mutex::new(Vec::new()),
            answer: Mutex::new(Ok(Reply::Accepted)),
            views,
            queue: Mutex::default(),
        })
    }

    pub(crate) fn serve_queue(&self, queue: Arc<dyn TaskPort>) {
        *self.queue.lock().unwrap() = Some(queue);
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

    async fn tree(&self, _report: TreeReport) -> Result<(), ControlError> {
        Err(ControlError::Gone)
    }

    async fn status_line(&self, _report: StatusReport) -> Result<String, ControlError> {
        Err(ControlError::Gone)
    }

    async fn about(&self) -> Result<About, ControlError> {
        Ok(About {
            project: "demo".into(),
            version: "1.2.3".into(),
            build: Some("0123456789abcdef".into()),
            program: "/bin/orchestrator".into(),
            pid: 42,
            started_at: NOW,
            salt: String::new(),
            settings: Vec::new(),
        })
    }

    async fn explain(
        &self,
        agent: AgentId,
        history: usize,
    ) -> Result<Option<Explanation>, ControlError> {
        self.answer.lock().unwrap().clone()?;
        let mut why = why();
        why.history.truncate(history);
        Ok((agent == why.agent).then_some(why))
    }

    async fn gates(&self) -> Result<Vec<GateView>, ControlError> {
        self.answer.lock().unwrap().clone()?;
        Ok(vec![gate()])
    }

    async fn run_gates(
        &self,
        request: GateRequest,
    ) -> Result<Result<GateStream, Refusal>, ControlError> {
        if request.gate.as_deref().is_some_and(|name| name != "test") {
            return Ok(Err(Refusal {
                code: "UNKNOWN_GATE",
                reason: "there is no such gate".into(),
                hint: Some("there are: test".into()),
            }));
        }
        let text = request.commit.unwrap_or_default() + "\n\u{1b}[31mred\u{1b}[0m\n";
        let events = vec![
            GateEvent::Waiting,
            GateEvent::Output { text },
            GateEvent::Ended {
                not_run: vec!["other".into()],
            },
        ];
        Ok(Ok(futures_util::stream::iter(events).boxed()))
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, ControlError> {
        Ok(tasks(NOW).page(&filter))
    }

    async fn task(&self, id: TaskId) -> Result<FoundTask, ControlError> {
        let (known, nearest) = (tasks(NOW).report(&id), tasks(NOW).nearest(&id));
        Ok(known.map_or(FoundTask::Unknown { nearest }, |report| {
            FoundTask::Known(Box::new(report))
        }))
    }

    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.views.subscribe()
    }

    fn queue(&self) -> Option<Arc<dyn TaskPort>> {
        self.queue.lock().unwrap().clone()
    }

    fn keeping(&self) -> Option<Arc<dyn KeepingPort>> {
        Some(Arc::new(FakeKeeping))
    }
}

/// One snapshot of worker 1; nothing may be put away without force.
struct FakeKeeping;

impl FakeKeeping {
    fn find(id: &str) -> Result<RescueView, Refusal> {
        let one = rescue();
        if one.id.starts_with(id) {
            return Ok(one);
        }
        Err(Refusal {
            code: "UNKNOWN_RESCUE",
            reason: format!("there is no snapshot {id:?}"),
            hint: None,
        })
    }
}

#[async_trait]
impl KeepingPort for FakeKeeping {
    async fn rescues(&self, agent: Option<AgentId>) -> Result<Vec<RescueView>, Refusal> {
        let mut all = vec![rescue()];
        all.retain(|one| agent.as_ref().is_none_or(|id| one.agent == *id));
        Ok(all)
    }

    async fn rescue(&self, id: String) -> Result<RescueContent, Refusal> {
        Ok(RescueContent {
            rescue: Self::find(&id)?,
            files: Vec::new(),
        })
    }

    async fn restore(&self, id: String, into: PathBuf) -> Result<Restored, Refusal> {
        Ok(Restored {
            rescue: Self::find(&id)?,
            directory: into.display().to_string(),
            files: 1,
            staged: 0,
            extras: 0,
            deleted: Vec::new(),
            left_out: Vec::new(),
        })
    }

    async fn worktrees(&self) -> Result<Vec<WorktreeView>, Refusal> {
        Ok(Vec::new())
    }

    async fn clean_up(&self, agent: AgentId, how: CleanUp) -> Result<CleanedUp, Refusal> {
        if how == CleanUp::IfKept {
            return Err(Refusal {
                code: "NOT_KEPT",
                reason: "a file is nowhere else".into(),
                hint: None,
            });
        }
        Ok(CleanedUp {
            agent,
            trash: (how == CleanUp::Force).then(|| "1-checkout".into()),
            until: None,
            rescue: None,
            only_here: vec!["file a".into()],
        })
    }
}

pub(crate) fn rescue() -> RescueView {
    RescueView {
        id: "3f2a9c01d4e5".into(),
        agent: AgentId::worker(1),
        at: Timestamp(NOW.0 - 125_000),
        cause: "before a stop".into(),
        commit: "3f2a9c01d4e5f60718293a4b5c6d7e8f90a1b2c3".into(),
        reference: "refs/orchestrator/rescue/worker-1/1767322920000-3f2a9c01d4e5".into(),
        head: Some("0123456789abcdef0123456789abcdef01234567".into()),
        files: 3,
        left_out: vec![LeftOut {
            path: "build/huge.bin".into(),
            why: "larger than 104857600 bytes".into(),
        }],
    }
}

fn gate() -> GateView {
    GateView {
        name: "test".into(),
        command: "make test".into(),
        image: None,
        timeout_seconds: 600,
        network: false,
        cache: false,
        counts: GateCounts::default(),
        last: None,
        last_at: None,
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
        credentials: Vec::new(),
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
        train: train(),
        planning: PlanningView {
            rounds: 3,
            empty_rounds: 1,
            next_round_at: Some(Timestamp(NOW.0 + 300_000)),
            resting: false,
        },
        unknown_hooks: vec![("FutureEvent".into(), 2)],
        gate: None,
        disk: Some(DiskView {
            free_bytes: 400 << 20,
            total_bytes: 8 << 30,
        }),
        notices: vec![Notice {
            at: Timestamp(NOW.0 - 120_000),
            agent: Some(AgentId::worker(3)),
            text: "worker-3 is out of memory again and again".into(),
            hint: Some("raise `memory` in orchestrator.json".into()),
        }],
    }
}

/// Half of a red batch is tested; one waits, one could not be tried.
pub(crate) fn train() -> TrainView {
    let ago = |seconds: i64| Timestamp(NOW.0 - seconds * 1000);
    let commit = |digit: &str| CommitId::new(digit.repeat(40));
    let candidate = |worker, digit: &str, setbacks| CandidateView {
        agent: AgentId::worker(worker),
        commit: commit(digit),
        title: format!("work of worker {worker}"),
        since: ago(i64::from(worker) * 100),
        tasks: vec![TaskId::new(format!("w{worker}-3fa9"))],
        setbacks,
    };
    TrainView {
        merge_by: "train".into(),
        batch: 5,
        gates: vec!["lint".into(), "test".into()],
        state: TrainState::Testing,
        since: Some(ago(42)),
        bisecting: true,
        stack: Some(StackView {
            number: 12,
            base: Some("0123456789abcdef0123456789abcdef01234567".into()),
            top: Some(commit("d")),
            members: vec![candidate(1, "a", 0)],
        }),
        after: vec![vec![candidate(2, "b", 0)]],
        waiting: vec![candidate(3, "c", 2)],
        with_manager: None,
        stalls: vec![StallView {
            kind: StallKind::Candidate,
            reason: "worker-3's cccccccccc could not be tried (2 times): no room on the disk"
                .into(),
            since: Some(ago(30)),
            again_at: Some(Timestamp(NOW.0 + 10_000)),
        }],
        recent: vec![EndedView {
            at: ago(500),
            agent: AgentId::worker(3),
            commit: commit("e"),
            title: "work of worker 3".into(),
            outcome: "red".into(),
            detail: "test".into(),
        }],
    }
}

/// Worker 1 at work, quiet for a while.
pub(crate) fn why() -> Explanation {
    let ago = |seconds: i64| Timestamp(NOW.0 - seconds * 1000);
    let fact = |signal: Signal| {
        let (said, grade, at, seen) = match signal {
            Signal::Hook => ("PostToolUse Bash", Grade::Strong, 95, 95),
            Signal::Container => ("orchestrator-demo-worker-1-2 runs", Grade::Medium, 700, 700),
            Signal::StatusLine => ("drawn", Grade::Medium, 4, 0),
            Signal::Transcript => ("14741 bytes", Grade::Medium, 95, 0),
            Signal::SessionFile => ("busy", Grade::Medium, 95, 0),
            Signal::Screen => ("a running turn", Grade::Weak, 30, 0),
            Signal::Cpu => return None,
        };
        Some(Fact {
            said: said.into(),
            grade,
            at: ago(at),
            seen: ago(seen),
        })
    };
    let change = |seconds, from: &str, to: &str, reason: &str, text: &str| Change {
        at: ago(seconds),
        from: from.into(),
        to: to.into(),
        reason: reason.into(),
        incarnation: Incarnation(2),
        cause: Cause {
            text: text.into(),
            signal: Some(Signal::Hook),
            grade: Some(Grade::Strong),
        },
    };
    let view = fleet();
    let worker = view.agents[1].clone();
    Explanation {
        agent: worker.id,
        at: NOW,
        state: worker.state,
        reason: worker.reason,
        since: worker.since,
        incarnation: Incarnation(2),
        container: Some("orchestrator-demo-worker-1-2".into()),
        session: Some("c233d0f7-0c80-4271-a49e-f13d31ec9b4c".into()),
        credential: worker.credential,
        task: worker.task,
        unproven: Vec::new(),
        until: None,
        still_since: Some(ago(30)),
        signals: Signal::ALL
            .map(|signal| SignalView {
                signal,
                grade: signal.grade(),
                fact: fact(signal),
            })
            .to_vec(),
        ahead: vec![
            Ahead {
                at: None,
                what: "a Stop hook ends the turn".into(),
            },
            Ahead {
                at: Some(Timestamp(NOW.0 + 25_000)),
                what: "quiet until then: its screen is looked at".into(),
            },
        ],
        restarts: 1,
        crashes: 1,
        crashes_allowed: 5,
        kept: crate::model::KeptView::default(),
        notices: vec![Notice {
            at: ago(120),
            agent: Some(AgentId::worker(1)),
            text: "a dialog waits for a person: model".into(),
            hint: Some("look with `orchestrator attach worker-1`".into()),
        }],
        history: vec![
            change(
                99,
                "idle",
                "delivering",
                "delivering w1-3fa9 (try 1)",
                "the queue gave it w1-3fa9",
            ),
            change(
                95,
                "delivering",
                "working",
                "its prompt hook confirmed the paste",
                "hook UserPromptSubmit",
            ),
        ],
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
        until: None,
        session: None,
        container: None,
        credential: Some("login".into()),
        model: None,
        task: None,
        unproven: Vec::new(),
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
        kept: crate::model::KeptView::default(),
    }
}
