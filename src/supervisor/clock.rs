//! Saved times that the present clock makes impossible.
//!
//! While the daemon runs its clock never goes back. Between two runs the machine's clock may have
//! been set back, and then a restart that was due in two seconds would be due in an hour. Each
//! deadline is brought to the longest it can be from now; a limit's end stays, for it is a point in
//! time that somebody else told.

use super::Supervisor;
use super::delivery::PASTE_DEADLINE;
use super::examining::FIRST_EXAMINATION;
use super::policy::Policy;
use super::proof::TAKE_AGAIN;
use super::remote::PUSH_AGAIN_DENIED;
use super::screens::LOOK_AT_DIALOG;
use super::state::{AgentState, Phase, QUIET};
use super::with_jitter;
use crate::model::Timestamp;

impl Supervisor {
    /// At the first inventory of a run, before anything waits for a saved time.
    pub(super) fn bring_deadlines_near(&mut self, now: Timestamp) {
        for agent in self.fleet.agents.values_mut() {
            agent_times(now, agent, &self.policy);
        }
        self.fleet.pool.bring_near(now);
        let merging = &mut self.fleet.merging;
        near(&mut merging.fetch_at, now + self.policy.fetch_interval);
        near(&mut merging.push_retry_at, now + PUSH_AGAIN_DENIED);
        merging.train.bring_near(now);
        for candidate in &mut merging.waiting {
            candidate.since = candidate.since.min(now);
        }
        near(&mut self.fleet.planning.last_end, now);
    }
}

fn agent_times(now: Timestamp, agent: &mut AgentState, policy: &Policy) {
    let longest_backoff = with_jitter(policy.maximum_backoff, 1.0);
    match &mut agent.phase {
        Phase::Starting { until, look_at, .. } => {
            *until = (*until).min(now + policy.start_deadline);
            *look_at = (*look_at).min(now + LOOK_AT_DIALOG);
        }
        Phase::Delivering { until, .. } => *until = (*until).min(now + PASTE_DEADLINE),
        Phase::Waiting { until } => *until = (*until).min(now + LOOK_AT_DIALOG),
        Phase::Backoff { until, .. } => *until = (*until).min(now + longest_backoff),
        Phase::Absent
        | Phase::Launching
        | Phase::Idle
        | Phase::Claiming { .. }
        | Phase::Working
        | Phase::Limited { .. }
        | Phase::Stopping { .. }
        | Phase::Failed => {}
    }
    agent.since = agent.since.min(now);
    near(&mut agent.import_at, now + TAKE_AGAIN);
    near(&mut agent.look_at, now + QUIET);
    near(&mut agent.evidence.examine_at, now + FIRST_EXAMINATION);
    near(&mut agent.last_hook_at, now);
    near(&mut agent.leaving, now);
    agent.lease.bring_near(now);
    let interval = policy.rescue_interval;
    agent.rescuing.bring_near(now, interval, &agent.phase);
    for crash in &mut agent.crashes {
        *crash = (*crash).min(now);
    }
}

fn near(at: &mut Option<Timestamp>, latest: Timestamp) {
    *at = at.map(|at| at.min(latest));
}
