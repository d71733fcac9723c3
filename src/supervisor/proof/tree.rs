//! Whose leftover is it? What each turn left uncommitted, as its own Stop found it.
//!
//! The helper tells it beside the Stop hook, so that nobody waits for it (`hooks/src/tree.rs`). A turn
//! answers for what was not there when it began. Where that is not known (a look that took too long, a
//! spooled Stop, a session without the helper) the tree is judged when the agent is at rest.

use super::super::Supervisor;
use super::super::state::AgentState;
use super::super::texts;
use super::claim::Claimed;
use crate::model::{AgentId, CallbackId};

impl AgentState {
    /// A turn has ended with this Stop, whose callback is known unless it was spooled.
    pub(in crate::supervisor) fn turn_stopped(&mut self, callback: Option<&CallbackId>) {
        self.stop = callback.cloned();
        self.uncommitted = None;
    }

    /// At rest, so it is what it was at the last Stop, or newer.
    pub(super) fn is_left_with(&mut self, paths: &[String]) {
        self.uncommitted = Some(paths.to_vec());
    }
}

impl Supervisor {
    /// What was uncommitted at the Stop with this callback.
    pub(in crate::supervisor) fn on_tree_seen(
        &mut self,
        id: &AgentId,
        callback: &CallbackId,
        mut paths: Vec<String>,
    ) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        paths.retain(|path| !texts::is_task_list(path));
        for claim in agent.claims.iter_mut().filter(|claim| !claim.offered) {
            if claim.stop.as_ref() == Some(callback) {
                claim.left = claim.base.as_ref().map(|base| without(&paths, base));
            }
        }
        if agent.stop.as_ref() != Some(callback) {
            return;
        }
        if let Some(held) = &mut agent.held
            && held.from.as_ref() == Some(callback)
        {
            held.before.get_or_insert_with(|| paths.clone());
        }
        agent.uncommitted = Some(paths);
    }
}

impl Claimed {
    /// Those of the paths that are uncommitted now that are its own; `None`: nobody knows.
    pub(super) fn own_leftovers(&self, now: &[String], at_rest: bool) -> Option<Vec<String>> {
        match &self.left {
            Some(left) => {
                let own = |path: &&String| {
                    // An operation that is not over is seen by the import alone.
                    left.contains(path) || (at_rest && path.starts_with("(a "))
                };
                Some(now.iter().filter(own).cloned().collect())
            }
            None if at_rest => Some(without(now, self.base.as_deref().unwrap_or_default())),
            None => None,
        }
    }

    /// A turn that was to mend it has ended: what is its own is still its own, and so is what that
    /// turn left.
    pub(super) fn was_mended(&mut self, before: Option<&Vec<String>>, stop: Option<&CallbackId>) {
        let own = self.left.take().unwrap_or_default();
        self.base = before.map(|before| without(before, &own));
        self.stop = stop.cloned();
    }
}

fn without(paths: &[String], others: &[String]) -> Vec<String> {
    let kept = paths.iter().filter(|path| !others.contains(path));
    kept.cloned().collect()
}
