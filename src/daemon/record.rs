//! What of a decision is written down: rows of the agents that changed, the fleet's own row, and the
//! answers given. Called by the driver alone, before anything of the decision leaves it.

use std::collections::BTreeMap;

use crate::model::{AgentId, Timestamp};
use crate::store::sqlite::Changes;
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

/// Every field is named, so that a new one cannot be forgotten.
fn same_but_agents(before: &Fleet, after: &Fleet) -> bool {
    let Fleet {
        agents: _,
        merging,
        planning,
        phase,
        branch_head,
        notices,
        unknown_hooks,
        late_events,
    } = before;
    *merging == after.merging
        && *planning == after.planning
        && *phase == after.phase
        && *branch_head == after.branch_head
        && *notices == after.notices
        && *unknown_hooks == after.unknown_hooks
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
