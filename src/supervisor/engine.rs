//! The container engine goes away and comes back: what ends with it is no fault of an agent's.

use std::time::Duration;

use super::Supervisor;
use super::input::Inventory;
use super::state::Phase;
use crate::model::{AgentId, Incarnation, Timestamp};

/// Between launches that find no engine. The engine listens on this machine: asking costs nothing.
const ENGINE_AGAIN: Duration = Duration::from_secs(2);
const STARVED: &str = "something in its container was killed for lack of memory";

impl Supervisor {
    /// From now on, until it is back, no end of a container counts as a crash: an engine without
    /// live-restore stops every container when it is stopped, and may do so when it starts again.
    pub(super) fn on_engine_away(&mut self, now: Timestamp, reason: &str) {
        if self.fleet.engine_away.is_some() {
            return;
        }
        self.fleet.engine_away = Some(now);
        let text = format!("the container engine went away: {reason}");
        let hint = "agents that run on are left alone; who ended with it is started again";
        self.notice(now, None, &text, Some(hint.into()));
    }

    /// Its first inventory is of everything that happened meanwhile.
    pub(super) fn on_engine_back(&mut self, now: Timestamp, inventory: Inventory) {
        let seen = matches!(inventory, Inventory::Seen(_));
        let away = self.fleet.engine_away.filter(|_| seen);
        self.on_inventory(now, inventory);
        if let Some(since) = away {
            let seconds = now.since(since).as_secs();
            let text = format!("the container engine is back after {seconds} s");
            self.notice(now, None, &text, None);
            self.fleet.engine_away = None;
            for agent in self.fleet.agents.values_mut() {
                agent.import_at = agent.import_at.map(|_| now);
            }
            // The gates run in containers.
            self.expire_train(now, true);
        }
    }

    pub(super) fn engine_is_away(&self) -> bool {
        self.fleet.engine_away.is_some()
    }

    /// Its next life begins as soon as there is an engine. No crash of the agent, and no failure of
    /// its task: nothing is counted.
    pub(super) fn ended_with_engine(&mut self, now: Timestamp, id: &AgentId, cause: &str) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            let phase = Phase::Backoff {
                until: now,
                same_life: false,
            };
            agent.enter(
                now,
                phase,
                format!("{cause} while the container engine was away; starts with it"),
            );
        }
    }

    /// Nobody was there to launch it: tried again for as long as it takes, and not counted.
    pub(super) fn wait_for_engine(&mut self, now: Timestamp, id: &AgentId) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            let phase = Phase::Backoff {
                until: now + ENGINE_AGAIN,
                same_life: true,
            };
            agent.enter(now, phase, "waits for the container engine");
        }
    }

    /// Something in its container was killed. If that was Claude Code itself, its end is told next,
    /// and says so.
    pub(super) fn on_starved(&mut self, now: Timestamp, id: &AgentId, incarnation: Incarnation) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let text = format!(
            "{STARVED}, whose limit is {}; the agent goes on",
            self.policy.memory
        );
        self.notice(now, Some(id), &text, Some(more_memory(id)));
    }

    /// After its end was counted as a crash: says what a person can do.
    pub(super) fn ran_out_of_memory(&mut self, now: Timestamp, id: &AgentId) {
        let about_it = |agent: &Option<AgentId>| agent.as_ref() == Some(id);
        self.fleet
            .notices
            .retain(|notice| !(about_it(&notice.agent) && notice.text.starts_with(STARVED)));
        let agent = self.fleet.agents.get(id);
        let given_up = agent.filter(|agent| agent.phase == Phase::Failed);
        let text = given_up.map_or_else(
            || {
                let limit = &self.policy.memory;
                format!(
                    "Claude Code was killed for lack of memory; the limit of its container is {limit}"
                )
            },
            |agent| agent.reason.clone(),
        );
        self.notice(now, Some(id), &text, Some(more_memory(id)));
    }
}

fn more_memory(id: &AgentId) -> String {
    format!(
        "raise `container.memory`, then `orchestrator down --detach`, `orchestrator up -d` and \
         `orchestrator restart {id}`; or give it less to do at once"
    )
}
