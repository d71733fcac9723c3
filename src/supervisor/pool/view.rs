//! The pool as people see it.

use super::super::Supervisor;
use super::standing::{Health, Spent, Standing};
use crate::model::{AgentId, CredentialId, CredentialView, QuotaWindow, Timestamp};

impl Supervisor {
    pub(in crate::supervisor) fn credential_views(&self, now: Timestamp) -> Vec<CredentialView> {
        let all = self.fleet.pool.credentials.iter();
        all.map(|(id, standing)| self.credential_view(now, id, standing))
            .collect()
    }

    fn credential_view(
        &self,
        now: Timestamp,
        id: &CredentialId,
        standing: &Standing,
    ) -> CredentialView {
        let agents = self.fleet.agents.values();
        let lent_to = agents
            .filter(|agent| agent.credential.as_ref() == Some(id))
            .map(|agent| agent.id.clone())
            .collect();
        CredentialView {
            id: id.clone(),
            kind: standing.info.kind,
            plan: standing.info.plan.clone(),
            state: standing.word().to_owned(),
            reason: standing
                .why_not(now)
                .or_else(|| standing.remark(now, self.policy.switch_at_percent)),
            until: standing.free_at().filter(|at| *at > now),
            lent_to,
            windows: standing.windows,
            windows_at: standing.windows_at,
            expires_at: standing.info.expires_at,
            refreshed_at: standing.refreshed_at,
        }
    }

    /// Why the agent cannot go on with what it has; `None` if it can.
    pub(super) fn why_not(&self, now: Timestamp, id: &AgentId) -> Option<String> {
        let has = self.fleet.agents.get(id)?.credential.as_ref()?;
        let why = self.fleet.pool.credentials.get(has)?.why_not(now)?;
        Some(format!("\"{has}\" {why}"))
    }

    /// When this agent can have a credential again, and the sentence for people.
    pub(super) fn when_free(&self, now: Timestamp, id: &AgentId) -> (Option<Timestamp>, String) {
        let all = &self.fleet.pool.credentials;
        let avoid = self.fleet.agents.get(id).map(|agent| &agent.lease.avoid);
        let free = all.iter().filter_map(|(name, standing)| {
            let avoided = avoid.and_then(|avoid| avoid.get(name)).copied();
            let at = standing.free_at()?;
            Some((
                avoided.map_or(at, |avoided| avoided.max(at)),
                name,
                standing,
            ))
        });
        let renewing = all
            .iter()
            .find(|(_, one)| matches!(one.health(), Health::Renewing));
        if let Some((name, _)) = renewing {
            return (None, format!("\"{name}\" is being renewed"));
        }
        let Some((at, name, standing)) = free.min_by_key(|(at, name, _)| (*at, *name)) else {
            let text = "no credential can be used, and none comes back by itself: a person must act, see `orchestrator credentials`";
            return (None, text.to_owned());
        };
        let spent = all
            .values()
            .all(|one| matches!(one.health(), Health::Spent(_)));
        let what = match (all.len(), spent) {
            (1, true) => format!("\"{name}\" is spent; it"),
            (_, true) => format!("every credential is spent; \"{name}\""),
            (_, false) => format!("no credential can be used now; \"{name}\""),
        };
        let again = match standing.health() {
            Health::Spent(spent) => spent.again(now),
            Health::Refused(_) => format!(
                "is tried again at {}, or when a person has mended it",
                at.clock(now)
            ),
            _ => format!("is free again at {}", at.clock(now)),
        };
        (Some(at), format!("{what} {again}"))
    }
}

impl Spent {
    fn again(&self, now: Timestamp) -> String {
        let clock = self.resets_at.clock(now);
        if self.told {
            format!("is free again at {clock}")
        } else {
            format!("is tried again at {clock} (nobody told when its limit ends)")
        }
    }
}

impl Standing {
    fn word(&self) -> &'static str {
        match self.health() {
            Health::Ready => "ready",
            Health::Spent(_) => "spent",
            Health::Cooling(_) | Health::Renewing => "cooling",
            Health::Refused(_) => "refused",
            Health::Gone => "gone",
        }
    }

    /// Why it is not used, as the end of a sentence about it.
    pub(super) fn why_not(&self, now: Timestamp) -> Option<String> {
        Some(match self.health() {
            Health::Ready => return None,
            Health::Spent(spent) => {
                let quota = quota(&spent.window);
                format!("has spent {quota} and {}", spent.again(now))
            }
            Health::Cooling(cooling) => {
                let clock = cooling.until.clock(now);
                format!("cools down until {clock}: {}", cooling.reason)
            }
            Health::Renewing => "is being renewed".to_owned(),
            Health::Refused(refused) => format!("is refused: {}", refused.reason),
            Health::Gone => "is not in the pool any more".to_owned(),
        })
    }

    /// What is worth knowing of one that is used.
    fn remark(&self, now: Timestamp, percent: f64) -> Option<String> {
        let (name, window) = self.nearly_spent(now, percent)?;
        let used = window.used_percent;
        let clock = window.resets_at.clock(now);
        Some(format!(
            "{used:.0} % of its {name} window are used until {clock}; others are preferred"
        ))
    }
}

fn quota(window: &QuotaWindow) -> String {
    match window {
        QuotaWindow::FiveHour => "its 5-hour quota".into(),
        QuotaWindow::Weekly => "its weekly quota".into(),
        QuotaWindow::Model(model) => format!("its weekly quota for {model}"),
        QuotaWindow::Account => "its quota".into(),
    }
}
