//! What a person types into an agent's pane besides prompts: `/exit` ends the process, `/clear`
//! begins another conversation.

use std::time::Duration;

use super::Supervisor;
use super::state::{AgentState, Phase};
use crate::model::{AgentId, Timestamp};

/// Before it comes back: for the person to see that it will.
const COMES_BACK: Duration = Duration::from_secs(1);

impl Supervisor {
    /// It is no crash: it counts neither towards giving the agent up nor against its task.
    pub(super) fn left_by_person(&mut self, now: Timestamp, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let phase = Phase::Backoff {
            until: now + COMES_BACK,
            same_life: false,
        };
        let reason = "a person ended it in its pane (`/exit`); it comes back with its conversation";
        agent.enter(now, phase, reason);
    }
}

/// A person typed `/exit`, or pressed Ctrl-C or Ctrl-D twice: Claude Code said so before it ended
/// with 0 (observed with 2.1.197). An agent that signals its own process ends with another reason.
pub(super) fn was_typed(agent: &AgentState, exit_code: Option<i64>) -> bool {
    exit_code == Some(0) && agent.evidence.exit_typed
}
