//! Detach, drain, stop: what each still allows.

use super::Supervisor;
use super::action::Action;
use super::lifecycle::denied;
use super::state::{AfterStop, FleetPhase, Phase};
use crate::model::{AgentId, Ending, Reply, Timestamp};

impl Supervisor {
    pub(super) fn request_end(&mut self, now: Timestamp, ending: Ending) -> Reply {
        match self.fleet.ending() {
            Some(present) if present == ending => return Reply::AlreadySo,
            Some(Ending::Detach) => {
                let hint = "start it again, then stop it".to_owned();
                return denied("ENDING", "the daemon is detaching".into(), Some(hint));
            }
            // Stop may overtake a drain, detach may overtake both; nothing else changes course.
            Some(Ending::Stop) if ending != Ending::Detach => {
                let hint = "a stop is under way; a detach leaves the agents as they are".to_owned();
                return denied("ENDING", "the fleet is being stopped".into(), Some(hint));
            }
            Some(_) | None => {}
        }
        self.fleet.phase = FleetPhase::Ending {
            ending,
            finished: false,
        };
        if ending == Ending::Stop {
            let ids: Vec<AgentId> = self.fleet.agents.keys().cloned().collect();
            for id in ids {
                self.stop_agent(now, &id);
            }
        }
        Reply::Accepted
    }

    fn stop_agent(&mut self, now: Timestamp, id: &AgentId) {
        let grace = self.policy.stop_grace;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        match agent.phase {
            Phase::Absent => {}
            Phase::Backoff { .. } | Phase::Failed => agent.enter(now, Phase::Absent, "stopped"),
            _ => {
                let incarnation = agent.incarnation;
                let launching = agent.phase == Phase::Launching;
                agent.enter(
                    now,
                    Phase::Stopping {
                        then: AfterStop::Stay,
                    },
                    "stopping",
                );
                // What is not there yet would be found gone: it is stopped when it has been launched.
                if !launching {
                    self.act(Action::StopContainer {
                        agent: id.clone(),
                        incarnation,
                        grace,
                    });
                }
            }
        }
    }

    pub(super) fn end_if_done(&mut self, _now: Timestamp) {
        let FleetPhase::Ending {
            ending,
            finished: false,
        } = self.fleet.phase
        else {
            return;
        };
        let done = match ending {
            Ending::Detach => true,
            Ending::Drain => self.drained(),
            Ending::Stop => self.fleet.agents.values().all(|a| a.phase == Phase::Absent),
        };
        if done {
            self.fleet.phase = FleetPhase::Ending {
                ending,
                finished: true,
            };
            self.act(Action::Finish { ending });
        }
    }
}
