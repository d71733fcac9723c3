//! Desired against observed: start-up, repair and adoption are one path.

use std::time::Duration;

use super::Supervisor;
use super::action::{Action, ClaimFor};
use super::input::{Inventory, SeenContainer};
use super::lifecycle::{Exit, finish_action};
use super::state::Phase;
use crate::model::{AgentId, Incarnation, Timestamp};

/// For the spool of an adopted agent to be read before its delivery is doubted.
const ADOPTED_RECEIPT: Duration = Duration::from_secs(5);
const INVENTORY_AGAIN: Duration = Duration::from_secs(2);
/// For the screen of an adopted agent to be drawn in its new view.
const LOOK_AT_ADOPTED: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Desired against observed. Start-up, repair and adoption are this one path.
    pub(super) fn on_inventory(&mut self, now: Timestamp, inventory: Inventory) {
        let first = !self.ready;
        let seen = match inventory {
            Inventory::Unreachable { .. } if self.engine_is_away() => {
                return self.look_around_again(now);
            }
            Inventory::Unreachable { reason } => {
                self.notice(
                    now,
                    None,
                    &format!("the container engine does not answer: {reason}"),
                    Some("agents are left as they are; looking again".into()),
                );
                self.look_around_again(now);
                return;
            }
            Inventory::Seen(seen) => seen,
        };
        if first {
            self.bring_deadlines_near(now);
            self.wish_again();
        }
        self.ready = true;
        // Stored by a daemon that ended while the engine was away.
        let back = first && self.engine_is_away();
        for id in self.policy.agents() {
            let lives: Vec<&SeenContainer> = seen.iter().filter(|c| c.agent == id).collect();
            self.reconcile(now, &id, &lives, first);
        }
        for container in &seen {
            if container.running && !self.fleet.agents.contains_key(&container.agent) {
                self.notice(
                    now,
                    None,
                    &format!(
                        "{} is no longer configured; its container is stopped",
                        container.agent
                    ),
                    Some("its checkout and its branch are kept".into()),
                );
                self.stop_life(&container.agent, container.incarnation);
            }
        }
        if back {
            self.fleet.engine_away = None;
        }
    }

    fn reconcile(&mut self, now: Timestamp, id: &AgentId, lives: &[&SeenContainer], first: bool) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let current = agent.incarnation;
        let newest_running = lives
            .iter()
            .filter(|c| c.running)
            .map(|c| c.incarnation)
            .max();
        for old in lives
            .iter()
            .filter(|c| c.running && Some(c.incarnation) != newest_running)
        {
            self.stop_life(id, old.incarnation);
        }
        match newest_running {
            Some(life) if life >= current => self.adopt(now, id, life, lives),
            // Nothing is launched beside it: the inventory after its stop decides.
            Some(older) => {
                self.stop_life(id, older);
                self.look_around_again(now);
            }
            None => {
                let exited = lives.iter().find(|c| c.incarnation == current).copied();
                self.not_running(now, id, exited, first);
            }
        }
        self.finish_again(id);
    }

    /// The container of `life` runs: keep what it does, make its doors work again.
    fn adopt(&mut self, now: Timestamp, id: &AgentId, life: Incarnation, lives: &[&SeenContainer]) {
        let start_deadline = self.policy.start_deadline;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let name = lives
            .iter()
            .find(|c| c.incarnation == life)
            .map(|c| c.name.clone());
        let same = agent.incarnation == life && agent.container == name;
        agent.missing = false;
        agent.rescuing.touch(now);
        // Whether it arrived is not known: it is lent again.
        if let Some(lending) = &mut agent.lease.lending {
            lending.sent = false;
        }
        agent.incarnation = life;
        if let Some(name) = &name {
            agent.evidence.runs(now, name);
        }
        agent.container = name;
        match &agent.phase {
            Phase::Stopping { .. } => self.stop_life(id, life),
            Phase::Absent | Phase::Launching | Phase::Backoff { .. } | Phase::Failed => {
                let until = now + start_deadline;
                agent.enter(
                    now,
                    Phase::Starting {
                        until,
                        greeted: agent.conversed,
                        looks: 0,
                        look_at: now + LOOK_AT_ADOPTED,
                    },
                    "found running; looking at its screen",
                );
            }
            // Whoever waited for the answer has been let go: it is pasted instead.
            Phase::Claiming { task, .. } => {
                let task = task.clone();
                self.claim(now, id, task, ClaimFor::Paste);
            }
            Phase::Delivering { .. } => {
                // The receipt may lie in the spool, which is read first.
                let until = now + ADOPTED_RECEIPT;
                agent.enter(
                    now,
                    Phase::Delivering {
                        until,
                        attempt: 0,
                        looking: false,
                    },
                    "adopted; delivery is checked",
                );
            }
            Phase::Starting { .. }
            | Phase::Idle
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Waiting { .. } => {}
        }
        self.act(Action::Adopt {
            agent: id.clone(),
            incarnation: life,
        });
        self.act(Action::EnsurePane { agent: id.clone() });
        let watch_screen = self.fleet.agents.get(id).is_some_and(|agent| {
            let starting = matches!(agent.phase, Phase::Starting { .. });
            !starting && (!same || matches!(agent.phase, Phase::Working | Phase::Idle))
        });
        if watch_screen {
            self.act(Action::CheckScreen {
                agent: id.clone(),
                incarnation: life,
                after: LOOK_AT_ADOPTED,
            });
        }
    }

    /// Asks for another inventory, unless one is on its way already.
    fn look_around_again(&mut self, now: Timestamp) {
        if self.inventory_due.is_some_and(|at| at > now) {
            return;
        }
        self.inventory_due = Some(now + INVENTORY_AGAIN);
        self.act(Action::TakeInventory {
            after: INVENTORY_AGAIN,
        });
    }

    /// No container of it runs. `exited` is proof; merely not being seen has to be confirmed once,
    /// because an inventory may have been taken while its container was being started.
    fn not_running(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        exited: Option<&SeenContainer>,
        first: bool,
    ) {
        let ending = self.fleet.ending().is_some();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let incarnation = agent.incarnation;
        // Made and not started: whoever made it was killed in between, or is about to start it.
        let never_ran = exited.is_none_or(|container| container.exit_code.is_none());
        match &agent.phase {
            Phase::Absent if !ending => self.launch_next(now, id, "starting"),
            // The process that was to launch it is gone: launch the same life again.
            Phase::Launching if never_ran && first && !ending => {
                self.launch(now, id, incarnation, "launching again");
            }
            // Its launch is under way; its result will tell.
            Phase::Launching if never_ran && !ending => {}
            Phase::Absent | Phase::Backoff { .. } | Phase::Failed => {}
            phase => {
                let certain = first
                    || exited.is_some()
                    || agent.missing
                    || matches!(phase, Phase::Stopping { .. });
                if !certain {
                    agent.missing = true;
                    self.look_around_again(now);
                    return;
                }
                // What it spooled before its end is read before its next life begins.
                self.act(Action::Adopt {
                    agent: id.clone(),
                    incarnation,
                });
                let exit = Exit {
                    code: exited.and_then(|c| c.exit_code),
                    out_of_memory: exited.is_some_and(|c| c.out_of_memory),
                    unseen: first,
                };
                self.on_exited(now, id, incarnation, exit);
            }
        }
    }

    /// Completions the queue may not have heard of before the daemon went away.
    fn finish_again(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let import = agent.importing.then(|| Action::Import {
            agent: id.clone(),
            incarnation: agent.incarnation,
            head: agent.head.clone(),
            claims: agent.work_asked(),
            after: Duration::ZERO,
        });
        for finishing in agent.finishing.clone() {
            self.tell_manager(id, &finishing);
            self.act(finish_action(id, &finishing));
        }
        self.create_repair(id);
        self.tell_attempts(id);
        self.actions.extend(import);
    }
}
