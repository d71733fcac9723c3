//! What of a decision is written down: rows of the agents that changed, the fleet's own row, and the
//! answers given. Called by the driver alone, before anything of the decision leaves it.

use std::collections::BTreeMap;

use crate::model::explain::Change;
use crate::model::{AgentId, Cause, Timestamp};
use crate::store::sqlite::{Changes, JournalEntry, STATE};
use crate::supervisor::{Action, Fleet};

/// What differs from before, with what goes along; `None` when nothing does.
pub(super) fn changes(
    at: Timestamp,
    before: &Fleet,
    after: &Fleet,
    also: Changes,
    actions: &[Action],
) -> Option<Changes> {
    let mut changes = Changes { at, ..also };
    for (id, agent) in &after.agents {
        if before.agents.get(id) != Some(agent) {
            let row = serde_json::to_string(agent).ok()?;
            changes.agents.push((id.clone(), row));
        }
    }
    if !same_but_agents(before, after) {
        changes.meta.push(("fleet".into(), fleet_row(after)));
    }
    for action in actions {
        if let Action::Answer { callback, answer } = action
            && let Ok(json) = serde_json::to_string(answer)
        {
            let agent = AgentId::new("");
            changes.callbacks.push((callback.clone(), agent, json));
        }
    }
    let empty = changes.agents.is_empty()
        && changes.meta.is_empty()
        && changes.journal.is_empty()
        && changes.callbacks.is_empty();
    (!empty).then_some(changes)
}

/// Changes of state and of its reason, one line each.
pub(super) fn history(
    at: Timestamp,
    before: &Fleet,
    after: &Fleet,
    cause: &Cause,
) -> impl Iterator<Item = JournalEntry> {
    after.agents.values().filter_map(move |agent| {
        let earlier = before.agents.get(&agent.id);
        let from = earlier.map_or("", |agent| agent.phase.word());
        let (to, reason) = (agent.phase.word(), &agent.reason);
        if from == to && earlier.is_some_and(|earlier| earlier.reason == *reason) {
            return None;
        }
        let change = Change {
            at,
            from: from.to_owned(),
            to: to.to_owned(),
            reason: reason.clone(),
            incarnation: agent.incarnation,
            cause: cause.clone(),
        };
        Some(JournalEntry {
            seq: 0,
            at,
            agent: Some(agent.id.clone()),
            kind: STATE.into(),
            json: serde_json::to_string(&change).ok()?,
        })
    })
}

/// A line of another version that cannot be read is left out.
pub(super) fn read_history(entries: &[JournalEntry]) -> Vec<Change> {
    let read = |entry: &JournalEntry| serde_json::from_str(&entry.json).ok();
    entries.iter().filter_map(read).collect()
}

/// Every field is named, so that a new one cannot be forgotten.
fn same_but_agents(before: &Fleet, after: &Fleet) -> bool {
    let Fleet {
        agents: _,
        merging,
        planning,
        pool,
        phase,
        branch_head,
        engine_away,
        notices,
        unknown_hooks,
        wishes,
        late_events,
    } = before;
    *merging == after.merging
        && *planning == after.planning
        && *pool == after.pool
        && *engine_away == after.engine_away
        && *phase == after.phase
        && *branch_head == after.branch_head
        && *notices == after.notices
        && *unknown_hooks == after.unknown_hooks
        && *wishes == after.wishes
        && *late_events == after.late_events
}

/// The fleet without its agents, which have rows of their own.
fn fleet_row(fleet: &Fleet) -> String {
    let bare = Fleet {
        agents: BTreeMap::new(),
        ..fleet.clone()
    };
    serde_json::to_string(&bare).unwrap_or_default()
}
