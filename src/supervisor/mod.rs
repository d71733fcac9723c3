//! DECIDES. The supervisor is a value: what came in, the state, and what shall be done.
//!
//! Called by the driver in `daemon` alone. Must never do anything: no IO, no clock, no async, no
//! randomness of its own. Time, ids and the queue's content come in as arguments; effects go out
//! as [`Action`]s, whose results come back as [`Event`]s.
//!
//! ```text
//!            Launch            SessionStart hook      first screen is a prompt
//!   Absent ────────▶ Launching ─────────▶ Starting ───────────────────▶ Idle ◀───────┐
//!                                                                        │ claim     │ Stop hook,
//!   crash: Backoff ──▶ Launching (next incarnation, --resume)            ▼           │ queue empty
//!   crash loop: Failed (a person acts)                  Claiming ─▶ Delivering ─▶ Working
//!                                                            ▲  Stop hook, next task │
//!                                                            └──────────────────────┘
//! ```
//!
//! Rules that hold everywhere: every life of an agent has an [`Incarnation`](crate::model::Incarnation) and an event of an
//! earlier life changes nothing; start-up is only the first inventory; not seeing something is not
//! proof that it is gone; a weak signal never stops an agent.

mod action;
mod adoption;
mod attempts;
mod canary;
mod clock;
mod delivery;
mod ending;
mod engine;
mod evidence;
mod examining;
mod explain;
mod hooks;
mod input;
mod lifecycle;
mod phase;
mod planning;
mod policy;
mod pool;
mod proof;
mod remote;
mod rescue;
mod screens;
mod state;
mod texts;
mod train;
mod typed;
mod view;
mod wishes;

pub use action::{Action, ClaimFor, NewTask, StackCandidate, WorkAsked};
pub use canary::{Signals, Trust};
pub use evidence::{Evidence, Examination, SessionSeen, TranscriptSeen, VitalsSeen};
pub use input::{
    Again, Event, GatesOutcome, HookInput, ImportOutcome, Inventory, LandOutcome, MergeOutcome,
    PushOutcome, QueueView, RemoteOutcome, RescueOutcome, SeenContainer, StackMember, StackOutcome,
    WorkFound,
};
pub use policy::{MergeBy, Policy, Proof};
use pool::NotLent;
pub use pool::{Lease, Lending, Pool, Standing};
pub use proof::{Claimed, Repair};
pub use rescue::Rescuing;
pub use state::{AgentState, Fleet, FleetPhase, Held, Phase, Waits};
pub use texts::TextContext;
pub use wishes::{Dropped, Wish, WishFor};

use std::collections::BTreeSet;
use std::time::Duration;

use lifecycle::{Exit, unknown_task};

use crate::model::{AgentId, Cause, CommitId, CredentialId, Reply, Request, Timestamp};

/// The deciding value. Everything it remembers is in [`Fleet`], which the driver persists.
#[derive(Clone, Debug)]
pub struct Supervisor {
    policy: Policy,
    fleet: Fleet,
    /// What the queue holds now; handed in, never persisted here.
    queue: QueueView,
    /// An inventory has been seen: before that, nothing is known about anybody.
    ready: bool,
    /// When the inventory that was asked for is due; there is never more than one on its way.
    inventory_due: Option<Timestamp>,
    /// What the newest decision was made about.
    cause: Cause,
    /// Logins whose renewal is on its way; it ends with this daemon.
    refreshing: BTreeSet<CredentialId>,
    /// Of the newest hook, in thousandths.
    jitter: u16,
    actions: Vec<Action>,
}

impl Supervisor {
    pub fn new(policy: Policy, fleet: Fleet) -> Self {
        Self {
            policy,
            fleet,
            queue: QueueView::default(),
            ready: false,
            inventory_due: None,
            cause: Cause::default(),
            refreshing: BTreeSet::new(),
            jitter: 500,
            actions: Vec::new(),
        }
    }

    /// The branch's tip as found at start.
    pub fn set_branch_head(&mut self, head: CommitId) {
        if self.fleet.branch_head.as_ref() != Some(&head) {
            self.new_tip(head, None);
        }
    }

    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What brought the newest decision about, for the history of what it changed.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// A request from people or scripts; it may be denied.
    pub fn request(&mut self, now: Timestamp, request: Request) -> (Reply, Vec<Action>) {
        self.cause = evidence::asked(&request);
        let reply = match request {
            Request::Restart { agent } => self.request_restart(now, &agent),
            Request::Rescue { agent } => self.request_rescue(now, agent.as_ref()),
            // Whoever asks looks the task up first: see `request_about`.
            Request::RetryTask { task } | Request::CancelTask { task } => unknown_task(&task),
            Request::Plan => self.request_plan(now),
            Request::Fetch => self.request_fetch(now),
            Request::RetryCredential { credential } => {
                self.request_retry_credential(now, &credential)
            }
            Request::End { ending } => self.request_end(now, ending),
        };
        self.replied(now, reply)
    }

    fn replied(&mut self, now: Timestamp, reply: Reply) -> (Reply, Vec<Action>) {
        self.settle(now);
        (reply, std::mem::take(&mut self.actions))
    }

    /// A fact from the world; it is never denied.
    pub fn observe(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.cause = evidence::cause_of(&event);
        match event {
            Event::InventoryTaken(inventory) => self.on_inventory(now, inventory),
            Event::EngineAway { reason } => self.on_engine_away(now, &reason),
            Event::EngineBack(inventory) => self.on_engine_back(now, inventory),
            Event::Launched {
                agent,
                incarnation,
                container,
            } => {
                self.on_launched(now, &agent, incarnation, container);
            }
            Event::LaunchFailed {
                agent,
                incarnation,
                reason,
                hint,
                again,
            } => {
                self.on_launch_failed(now, &agent, incarnation, &reason, hint, again);
            }
            Event::Exited {
                agent,
                incarnation,
                exit_code,
                out_of_memory,
            } => {
                let exit = Exit {
                    code: exit_code,
                    out_of_memory,
                    unseen: false,
                };
                self.on_exited(now, &agent, incarnation, exit);
            }
            Event::Starved { agent, incarnation } => self.on_starved(now, &agent, incarnation),
            Event::Hook(hook) => self.on_hook(now, hook),
            Event::AnswerLost {
                agent,
                incarnation,
                text,
            } => self.on_answer_lost(now, &agent, incarnation, &text),
            Event::ScreenSeen {
                agent,
                incarnation,
                screen,
            } => {
                self.on_screen(now, &agent, incarnation, screen);
            }
            Event::Examined {
                agent,
                incarnation,
                seen,
            } => self.on_examined(now, &agent, incarnation, &seen),
            Event::SessionChecked {
                agent,
                incarnation,
                note,
            } => self.on_session_checked(now, &agent, incarnation, note),
            Event::Pasted { agent, incarnation } => self.on_pasted(now, &agent, incarnation),
            Event::PasteFailed {
                agent,
                incarnation,
                reason,
            } => {
                self.on_paste_failed(now, &agent, incarnation, &reason);
            }
            Event::PoolRead { credentials } => self.on_pool_read(now, credentials),
            Event::WindowsTold {
                agent,
                incarnation,
                windows,
            } => self.on_windows_told(now, &agent, incarnation, windows),
            Event::Lent {
                agent,
                incarnation,
                credential,
            } => self.on_lent(now, &agent, incarnation, &credential),
            Event::LendFailed {
                agent,
                incarnation,
                credential,
                reason,
                restart,
            } => {
                let why = NotLent { reason, restart };
                self.on_lend_failed(now, &agent, incarnation, &credential, &why);
            }
            Event::Refreshed {
                credential,
                expires_at,
            } => self.on_refreshed(now, &credential, expires_at),
            Event::RefreshFailed {
                credential,
                reason,
                dead,
            } => self.on_refresh_failed(now, &credential, &reason, dead),
            Event::QueueChanged(queue) => {
                self.queue = queue;
                self.note_arrivals();
            }
            Event::Claimed { agent, task } => self.on_claimed(now, &agent, *task),
            Event::ClaimLost {
                agent,
                task,
                reason,
            } => {
                self.on_claim_lost(now, &agent, &task, &reason);
            }
            Event::TaskCreated { owner, task, open } => self.on_task_created(&owner, &task, open),
            Event::TaskSettled { task } => self.on_task_settled(&task),
            Event::Overtaken {
                agent,
                task,
                fence,
                reason,
            } => self.on_overtaken(now, &agent, &task, fence, &reason),
            Event::TaskFinished { agent, task } => self.on_task_finished(&agent, &task),
            Event::TreeSeen {
                agent,
                callback,
                uncommitted,
            } => self.on_tree_seen(&agent, &callback, uncommitted),
            Event::Rescued {
                agent,
                began,
                outcome,
            } => self.on_rescued(now, &agent, began, outcome),
            Event::Imported { agent, outcome } => self.on_imported(now, &agent, outcome),
            Event::StackBuilt { stack, outcome } => self.on_stack_built(now, stack, outcome),
            Event::GatesFinished {
                stack,
                commit,
                outcome,
            } => self.on_gates_finished(now, stack, &commit, outcome),
            Event::Landed { stack, outcome } => self.on_landed(now, stack, outcome),
            Event::StoreRecovered => self.doubt_everybody(),
            Event::BranchMoved { head } => {
                self.new_tip(head, None);
                self.want_push(Duration::ZERO);
            }
            Event::PushFinished(outcome) => self.on_push_finished(now, outcome),
            Event::RemoteFetched(outcome) => self.on_remote_fetched(now, outcome),
            Event::DirectionSeen { present } => self.fleet.planning.direction_present = present,
            Event::Noticed { agent, text, hint } => self.notice(now, agent.as_ref(), &text, hint),
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// Handles every deadline that is due.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Action> {
        self.cause = evidence::was_due(self.next_deadline());
        // Before the first inventory nobody knows what runs: a restart might be a second copy.
        if self.ready {
            self.expire_agents(now);
            self.expire_imports(now);
            self.look_at_quiet_ones(now);
            self.examine_quiet_ones(now);
            self.rescue_at_interval(now);
        }
        self.expire_train(now, false);
        self.expire_remote(now);
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// The earliest deadline, with what waits for it.
    pub fn next_deadline(&self) -> Option<(Timestamp, String)> {
        let known = self.fleet.agents.values().filter(|_| self.ready);
        let agents = known.filter_map(|agent| {
            let (at, what) = agent.phase.deadline()?;
            Some((at, format!("{}: {what}", agent.id)))
        });
        agents
            .chain(self.merging_deadlines())
            .chain(self.quiet_deadlines())
            .chain(self.examination_deadlines())
            .chain(self.rescue_deadlines())
            .chain(self.planning_deadline())
            .chain(self.pool_deadlines())
            .min_by_key(|(at, _)| *at)
    }

    /// What follows from the state however it came about: idle agents get work, merges go on,
    /// the manager is asked to plan, an ending ends. Level-triggered, so that a missed moment
    /// does not matter.
    fn settle(&mut self, now: Timestamp) {
        self.tend_pool(now);
        if !self.ready {
            self.end_if_done(now);
            return;
        }
        self.look_after_repairs();
        self.continue_merging(now);
        self.plan_if_needed(now);
        self.dispatch(now);
        self.plan_examinations(now);
        self.plan_rescues(now);
        self.end_if_done(now);
    }

    /// What a delay is stretched by.
    fn fraction(&self) -> f64 {
        f64::from(self.jitter) / 1000.0
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Tells people, once per text while it stays among the newest.
    fn notice(
        &mut self,
        now: Timestamp,
        agent: Option<&AgentId>,
        text: &str,
        hint: Option<String>,
    ) {
        self.fleet.notice(now, agent.cloned(), text, hint);
    }
}

/// Adds up to a quarter to a delay, so that several agents do not come back at the same moment.
fn with_jitter(delay: Duration, fraction: f64) -> Duration {
    delay + delay.mul_f64(fraction.clamp(0.0, 1.0) / 4.0)
}
