//! A small deterministic world around the decision core: clock, queue, containers, minds, git.
//!
//! Called by tests. The world keeps the driver's order: decide, check, carry out; actions on the
//! queue are done at once and their results observed next, everything else waits in an outbox
//! until [`World::step`]. After each decision the invariants are checked, and a broken one panics
//! with the trace. Must never decide anything the supervisor should decide.

mod behave;
#[cfg(test)]
mod canary_tests;
mod check;
mod doors;
mod effects;
mod git;
mod lines;
mod mind;
mod pool;
mod queue;
mod rescue;
mod script;
#[cfg(test)]
mod tests;
mod twice;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use behave::Turn;
pub use git::WorldGit;
pub use mind::{Doing, Mind};
pub use pool::{Account, Accounts};
pub use queue::WorldQueue;
pub use script::run_script;
pub use twice::{ACTION_KINDS, Done, EVENT_KINDS, POOL_ACTIONS, POOL_EVENTS, Twice};

use crate::daemon::claims;
use crate::model::{
    AgentId, CallbackId, Ending, Fault, HookAnswer, HookReport, Incarnation, Reply, Request,
    SessionId, Timestamp,
};
use crate::supervisor::{
    Action, Event, Fleet, FleetPhase, Inventory, Policy, SeenContainer, Supervisor,
};

/// Decisions in a row without an effect or time passing; more is a loop.
const DECISIONS_IN_A_ROW: u32 = 1000;

/// A container by agent and life.
#[derive(Clone, Debug, Default)]
pub struct Container {
    pub running: bool,
    pub exit_code: Option<i64>,
    pub out_of_memory: bool,
}

/// Where the daemon dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashPlan {
    /// Counted in crash points from 1; `None` is never.
    pub at: Option<u64>,
    /// Points passed so far.
    pub passed: u64,
}

/// An action that waits for its moment.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub at: Timestamp,
    pub action: Action,
}

pub struct World {
    pub now: Timestamp,
    pub policy: Policy,
    pub queue: WorldQueue,
    pub git: WorldGit,
    /// What the credentials are really like. None: the fleet has no pool.
    pub accounts: Accounts,
    pub minds: BTreeMap<AgentId, Mind>,
    pub containers: BTreeMap<(AgentId, Incarnation), Container>,
    pub outbox: Vec<Waiting>,
    pub engine_up: bool,
    /// Gates that were asked for run on until they are released.
    pub gates_held: bool,
    /// Launches that fail, with whether trying again can help.
    pub launch_faults: Vec<bool>,
    /// Lendings that will not arrive.
    pub lend_faults: u32,
    /// Items per worker the manager writes at its next planning turn.
    pub plans: Vec<Vec<(AgentId, String)>>,
    /// Committed list items, read at the next `ReadTaskLists`.
    lists: Vec<(AgentId, String)>,
    pub finished: Option<Ending>,
    /// Every event but hooks is observed twice.
    pub duplicate: bool,
    /// Actions that are carried out twice.
    pub twice: Twice,
    pub done: Done,
    /// An action is being carried out again.
    repeating: bool,
    /// Pastes that fail before anything was typed.
    pub paste_faults: u32,
    /// Snapshots that fail.
    pub rescue_faults: u32,
    /// Looks at uncommitted work so far.
    pub rescues: u32,
    /// The prompt hook overtakes the paste's own result.
    pub hasty_receipts: bool,
    pub crash: CrashPlan,
    pub trace: Vec<String>,
    supervisor: Option<Supervisor>,
    /// What the daemon stored last.
    stored: Fleet,
    /// Answers by callback, stored with the decision that gave them.
    answers: BTreeMap<CallbackId, HookAnswer>,
    /// Callbacks whose hook waits.
    pending: BTreeMap<CallbackId, HookReport>,
    spools: BTreeMap<AgentId, Vec<HookReport>>,
    doors: BTreeMap<AgentId, Incarnation>,
    inbox: VecDeque<Event>,
    /// This daemon has seen an inventory.
    inventoried: bool,
    callbacks: u64,
    /// Why turns failed, by callback, as their texts would say.
    faults: BTreeMap<CallbackId, Fault>,
    /// Of the failure that is just being told.
    fault: Option<Fault>,
    decisions: u32,
}

impl World {
    /// A fleet that never ran; the daemon is not started yet.
    pub fn new(policy: Policy) -> Self {
        let agents = policy.agents();
        let sessions = (1..).map(|n| SessionId::new(format!("session-{n}")));
        let fleet = Fleet::new(&agents, sessions);
        Self {
            now: Timestamp(1_000_000),
            policy,
            queue: WorldQueue::default(),
            git: WorldGit::default(),
            accounts: Accounts::default(),
            minds: agents.into_iter().map(|id| (id, Mind::new())).collect(),
            containers: BTreeMap::new(),
            outbox: Vec::new(),
            engine_up: true,
            gates_held: false,
            launch_faults: Vec::new(),
            lend_faults: 0,
            plans: Vec::new(),
            lists: Vec::new(),
            finished: None,
            duplicate: false,
            twice: Twice::None,
            done: Done::default(),
            repeating: false,
            paste_faults: 0,
            rescue_faults: 0,
            rescues: 0,
            hasty_receipts: false,
            crash: CrashPlan::default(),
            trace: Vec::new(),
            supervisor: None,
            stored: fleet,
            answers: BTreeMap::new(),
            pending: BTreeMap::new(),
            spools: BTreeMap::new(),
            doors: BTreeMap::new(),
            inbox: VecDeque::new(),
            inventoried: false,
            callbacks: 0,
            faults: BTreeMap::new(),
            fault: None,
            decisions: 0,
        }
    }

    /// A fleet with one manager and so many workers whose daemon runs and has said its first words.
    pub fn started(workers: u32) -> Self {
        let mut world = Self::new(Policy {
            workers,
            ..Policy::default()
        });
        world.start_daemon(true);
        world
    }

    pub fn up(&self) -> bool {
        self.supervisor.is_some()
    }

    /// What the supervisor remembers; of a daemon that is away, what it stored.
    pub fn fleet(&self) -> Fleet {
        match &self.supervisor {
            Some(supervisor) => supervisor.fleet().clone(),
            None => self.stored.clone(),
        }
    }

    pub fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.as_ref()
    }

    /// As the driver does it: the stored fleet, the queue, what was in flight, the inventory.
    pub fn start_daemon(&mut self, direction: bool) {
        assert!(self.supervisor.is_none(), "the daemon runs already");
        let stored = serde_json::to_string(&self.stored).expect("a fleet can be stored");
        let mut fleet: Fleet = serde_json::from_str(&stored).expect("what was stored can be read");
        assert_eq!(fleet, self.stored, "storing loses something");
        fleet.phase = FleetPhase::Running;
        self.queue.tend(self.now, &fleet);
        let mut supervisor = Supervisor::new(self.policy.clone(), fleet);
        supervisor.set_branch_head(self.git.branch.clone());
        self.supervisor = Some(supervisor);
        self.finished = None;
        self.inventoried = false;
        let queue = self.queue.view(&self.policy.agents());
        self.observe(Event::QueueChanged(queue));
        if let Some(supervisor) = &mut self.supervisor {
            let actions = supervisor.resume_merging(self.now);
            self.decided(actions);
        }
        self.observe(Event::DirectionSeen { present: direction });
        self.read_pool();
        let inventory = self.inventory();
        self.observe(Event::InventoryTaken(inventory));
    }

    /// The process is gone; what it had not stored never was.
    pub fn crash_daemon(&mut self) {
        self.supervisor = None;
        self.outbox.clear();
        self.inbox.clear();
        self.doors.clear();
        // Each helper that waited spools its callback and lets the agent go.
        for (callback, mut report) in std::mem::take(&mut self.pending) {
            report.spooled = true;
            let agent = report.agent.clone();
            self.spools.entry(agent.clone()).or_default().push(report);
            self.answered(&agent, &callback, &HookAnswer::LetGo);
        }
    }

    /// Feeds one fact and everything that follows from it at once.
    pub fn observe(&mut self, event: Event) {
        if self.supervisor.is_none() {
            return;
        }
        self.inbox.push_back(event);
        while let Some(event) = self.inbox.pop_front() {
            self.observe_one(event.clone());
            let hook = matches!(event, Event::Hook(_));
            if self.duplicate && !hook && self.supervisor.is_some() {
                self.done.events_twice.insert(twice::event_kind(&event));
                self.observe_one(event);
            }
        }
        self.check_rest();
    }

    fn observe_one(&mut self, event: Event) {
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        let now = self.now;
        if let Some(line) = lines::event(&event) {
            let line = format!("  < {line}");
            // A dialog that stays is one line.
            let repeated = line.contains(" screen ") && self.trace.last() == Some(&line);
            if !repeated {
                self.trace.push(line);
            }
        }
        self.inventoried |= matches!(
            event,
            Event::InventoryTaken(Inventory::Seen(_)) | Event::EngineBack(Inventory::Seen(_))
        );
        let actions = supervisor.observe(now, event);
        self.decided(actions);
    }

    /// Somebody outside of the fleet takes and does what this agent has: what it works on, else what it
    /// has claimed done. False if it has nothing.
    pub fn overtake(&mut self, agent: &AgentId) -> bool {
        let fleet = self.fleet();
        let Some(state) = fleet.agents.get(agent) else {
            return false;
        };
        let held = state.held.as_ref().map(|held| &held.task);
        let claimed = state.claims.iter().filter(|claim| !claim.offered);
        let claimed = claimed.map(|claim| &claim.task).next();
        let Some(task) = held.or(claimed) else {
            return false;
        };
        let taken = self.queue.overtake(self.now, task);
        self.tell_overtaken();
        taken
    }

    /// As the driver does it with each change of the queue, and from time to time.
    fn tell_overtaken(&mut self) {
        let fleet = self.fleet();
        let lost = claims::overtaken(&fleet, &|id| self.queue.get(id).cloned());
        for event in lost {
            self.observe(event);
        }
    }

    /// A request from a person.
    pub fn request(&mut self, request: Request) -> Option<Reply> {
        let now = self.now;
        let supervisor = self.supervisor.as_mut()?;
        let found = request.task().and_then(|id| self.queue.get(id));
        let (reply, actions) = supervisor.request_about(now, request, found);
        self.trace.push(format!("  = {}", lines::reply(&reply)));
        self.decided(actions);
        self.drain();
        Some(reply)
    }

    fn drain(&mut self) {
        if let Some(event) = self.inbox.pop_front() {
            self.observe(event);
        }
        self.check_rest();
    }

    /// Stores the decision, checks it, carries its actions out.
    fn decided(&mut self, actions: Vec<Action>) {
        self.decisions += 1;
        assert!(
            self.decisions < DECISIONS_IN_A_ROW,
            "the supervisor goes in circles:\n{}",
            self.tail()
        );
        self.store(&actions);
        self.check_decision();
        if self.crash_point() {
            let kinds = actions.iter().map(twice::action_kind);
            self.done.actions_at_crash.extend(kinds);
            return;
        }
        self.check_work(&actions);
        for action in actions {
            if let Some(line) = lines::action(&action) {
                self.trace.push(format!("  > {line}"));
            }
            let kind = twice::action_kind(&action);
            let at_once = effects::is_done_at_once(&action);
            self.done.actions += 1;
            if self.twice.applies(self.done.actions) {
                self.done.actions_twice.insert(kind);
                self.carry_out(action.clone());
                self.repeating = true;
            }
            self.carry_out(action);
            self.repeating = false;
            // What waits in the outbox is as if it had not been said.
            if at_once && self.crash_point() {
                self.done.actions_at_crash.insert(kind);
                return;
            }
        }
    }

    fn store(&mut self, actions: &[Action]) {
        if let Some(supervisor) = &self.supervisor {
            self.stored.clone_from(supervisor.fleet());
        }
        for action in actions {
            if let Action::Answer { callback, answer } = action {
                self.answers.insert(callback.clone(), answer.clone());
            }
        }
    }

    /// True if the daemon died here.
    fn crash_point(&mut self) -> bool {
        if self.supervisor.is_none() {
            return true;
        }
        self.crash.passed += 1;
        if self.crash.at != Some(self.crash.passed) {
            return false;
        }
        self.trace.push("  * the daemon dies".to_owned());
        self.crash_daemon();
        true
    }

    /// The life whose container runs.
    pub fn live(&self, agent: &AgentId) -> Option<Incarnation> {
        let mut lives = self.containers.iter().rev();
        lives
            .find(|((id, _), container)| id == agent && container.running)
            .map(|((_, life), _)| *life)
    }

    pub fn inventory(&self) -> Inventory {
        if !self.engine_up {
            return Inventory::Unreachable {
                reason: "connection refused".into(),
            };
        }
        let seen = self
            .containers
            .iter()
            .map(|((agent, life), c)| SeenContainer {
                name: format!("{agent}-{life}"),
                agent: agent.clone(),
                incarnation: *life,
                running: c.running,
                exit_code: c.exit_code,
                out_of_memory: c.out_of_memory,
            });
        Inventory::Seen(seen.collect())
    }

    /// Lets time pass: every deadline and every waiting action in its turn.
    pub fn advance(&mut self, by: Duration) {
        self.tell_overtaken();
        let until = self.now + by;
        loop {
            self.run_outbox();
            let Some(next) = self.next_moment().filter(|at| *at <= until) else {
                break;
            };
            if next > self.now {
                self.now = next;
                self.decisions = 0;
            }
            self.expire();
        }
        self.now = until;
        self.decisions = 0;
    }

    /// The next moment something happens by itself.
    pub fn next_moment(&self) -> Option<Timestamp> {
        let deadline = self.supervisor.as_ref().and_then(Supervisor::next_deadline);
        let free = |w: &&Waiting| !self.holds(w);
        let waiting = self.outbox.iter().filter(free).map(|w| w.at);
        waiting.chain(deadline.map(|(at, _)| at)).min()
    }

    fn expire(&mut self) {
        let now = self.now;
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        let due = supervisor.next_deadline().filter(|(at, _)| *at <= now);
        let Some((at, why)) = due else { return };
        let actions = supervisor.expire(now);
        if !why.ends_with(" looks")
            && !why.ends_with(" examination")
            && !why.ends_with(" snapshot")
            && why != "fetch the remote"
        {
            self.trace.push(format!("  @ {why}"));
        }
        let spins = supervisor
            .next_deadline()
            .filter(|(again, reason)| *again <= now && *reason == why && *again == at);
        self.decided(actions);
        self.drain();
        assert!(
            spins.is_none(),
            "the deadline `{why}` stays due:\n{}",
            self.tail()
        );
    }

    /// Carries out what is due, one by one, until nothing is.
    pub fn run_outbox(&mut self) {
        while self.step() {}
    }

    /// Every action that is waiting now, taken away unexecuted: for tests that play the world
    /// themselves.
    pub fn take(&mut self) -> Vec<Action> {
        let waiting = std::mem::take(&mut self.outbox);
        waiting.into_iter().map(|w| w.action).collect()
    }

    /// Takes one waiting action, named as in a trace.
    pub fn expect(&mut self, line: &str) {
        let said = |w: &Waiting| lines::action(&w.action);
        let place = self
            .outbox
            .iter()
            .position(|w| said(w).as_deref() == Some(line));
        let Some(place) = place else {
            let all: Vec<String> = self.outbox.iter().filter_map(said).collect();
            panic!("`{line}` was not said, but: {all:#?}");
        };
        self.outbox.remove(place);
    }

    /// Proves that nothing was said that nobody took.
    pub fn expect_nothing(&self) {
        let said: Vec<String> = self
            .outbox
            .iter()
            .filter_map(|w| lines::action(&w.action))
            .collect();
        assert!(said.is_empty(), "untaken: {said:#?}\n{}", self.tail());
    }

    /// The end of the trace, for messages.
    pub fn tail(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..].join("\n")
    }
}
