//! Uncommitted work in the simulated world: a count of writes, and how many of them are kept.

use super::World;
use crate::model::{AgentId, RescueCause, RescueNote};
use crate::supervisor::{Event, RescueOutcome};

impl World {
    /// Takes a snapshot, in its container or in a throwaway one. `None`: there is no checkout.
    pub(super) fn rescue(&mut self, agent: &AgentId, cause: RescueCause) -> Option<Event> {
        let began = self.now;
        self.rescues += 1;
        let failed = if self.rescue_faults > 0 {
            self.rescue_faults -= 1;
            Some("told to fail")
        } else {
            (!self.engine_up).then_some("the engine does not answer")
        };
        let mind = self.minds.get_mut(agent)?;
        let outcome = match failed {
            Some(reason) => {
                mind.excused = mind.written;
                RescueOutcome::Failed {
                    reason: reason.to_owned(),
                    hint: None,
                }
            }
            None if mind.kept == mind.written && mind.dirty.is_empty() => RescueOutcome::Nothing,
            None => {
                // Without a new write it is the snapshot that the store has.
                mind.kept = mind.written;
                let id = format!("r{}", mind.written);
                RescueOutcome::Taken {
                    rescue: RescueNote {
                        reference: format!("refs/orchestrator/rescue/{agent}/{id}"),
                        id,
                        at: began,
                        cause: cause.as_str().to_owned(),
                        files: 1,
                        left_out: 0,
                    },
                }
            }
        };
        Some(Event::Rescued {
            agent: agent.clone(),
            began,
            outcome,
        })
    }

    /// Before a life begins, what the one before wrote is kept, or it was tried.
    pub(super) fn check_kept(&self, agent: &AgentId) {
        if self.live(agent).is_some() {
            return;
        }
        let mind = &self.minds[agent];
        assert!(
            mind.written <= mind.kept.max(mind.excused),
            "{agent} is launched, and what it wrote is not kept:\n{}",
            self.tail()
        );
    }
}
