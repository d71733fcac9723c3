//! Which credential is taken next. What is paid for already comes first, and of that what expires
//! soonest.

use std::time::Duration;

use super::super::Supervisor;
use super::standing::Standing;
use crate::model::{AgentId, CredentialId, Timestamp, Window};

/// A window that ends so soon is as good as fresh.
const NEAR_RESET: Duration = Duration::from_secs(600);
const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a credential may be chosen for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Need {
    /// The agent cannot go on with what it has.
    Any,
    /// It could go on: only a subscription with plenty left is worth the move.
    Better,
}

/// Smaller is taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Prepaid,
    PayPerUse,
    /// A subscription with little left: better than to wait.
    NearlySpent,
}

impl Standing {
    /// The window of which so much is used that its limit is near, with its name.
    pub(super) fn nearly_spent(&self, now: Timestamp, percent: f64) -> Option<(&str, Window)> {
        let windows = [
            ("5-hour", self.windows.five_hour),
            ("weekly", self.windows.seven_day),
        ];
        windows.into_iter().find_map(|(name, window)| {
            let window = window?;
            let near = window.used_percent >= percent && window.resets_at > now + NEAR_RESET;
            near.then_some((name, window))
        })
    }

    fn class(&self, now: Timestamp, percent: f64) -> Class {
        match (self.info.subscription, self.nearly_spent(now, percent)) {
            (false, _) => Class::PayPerUse,
            (true, None) => Class::Prepaid,
            (true, Some(_)) => Class::NearlySpent,
        }
    }

    /// When the weekly and the 5-hour window end; one that has not begun ends latest.
    fn ends(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let end = |window: Option<Window>, whole: Duration| {
            let present = window.filter(|window| window.resets_at > now);
            present.map_or(now + whole, |window| window.resets_at)
        };
        let windows = &self.windows;
        (
            end(windows.seven_day, WEEK),
            end(windows.five_hour, FIVE_HOURS),
        )
    }
}

impl Supervisor {
    /// The best credential for this agent that is usable now, be it the one it has.
    pub(super) fn best_for(
        &self,
        now: Timestamp,
        id: &AgentId,
        need: Need,
    ) -> Option<CredentialId> {
        let avoid = &self.fleet.agents.get(id)?.lease.avoid;
        let percent = match need {
            Need::Any => self.policy.switch_at_percent,
            Need::Better => self.policy.switch_back_percent,
        };
        let usable = self
            .fleet
            .pool
            .credentials
            .iter()
            .filter(|(name, one)| one.is_ready() && !avoid.contains_key(*name));
        let ranked = usable.map(|(name, standing)| {
            let class = standing.class(now, percent);
            let lent = self.lent_to_others(id, name);
            ((class, standing.ends(now), lent, name), name)
        });
        let (rank, name) = ranked.min_by(|(a, _), (b, _)| a.cmp(b))?;
        (need == Need::Any || rank.0 == Class::Prepaid).then(|| name.clone())
    }

    /// How many other agents have this credential, or are about to.
    fn lent_to_others(&self, id: &AgentId, credential: &CredentialId) -> usize {
        let others = self.fleet.agents.values().filter(|agent| agent.id != *id);
        others
            .filter(|agent| agent.next_credential() == Some(credential))
            .count()
    }
}
