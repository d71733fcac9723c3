//! The files of the pool as they are now, and what people ask about it.

use std::time::Duration;

use super::super::Supervisor;
use super::super::lifecycle::denied;
use super::choose::Need;
use super::standing::{Standing, Strikes};
use crate::model::{AgentId, CredentialId, CredentialInfo, Reply, Timestamp};

impl Supervisor {
    pub(in crate::supervisor) fn on_pool_read(
        &mut self,
        now: Timestamp,
        credentials: Vec<CredentialInfo>,
    ) {
        self.forget_the_gone();
        for standing in self.fleet.pool.credentials.values_mut() {
            standing.gone = true;
        }
        let ahead = self.policy.refresh_ahead;
        for info in credentials {
            let id = info.id.clone();
            if let Some(standing) = self.fleet.pool.credentials.get_mut(&id) {
                standing.read_again(now, info, ahead);
            } else {
                let mut standing = Standing::new(info);
                standing.plan_refresh(now, ahead);
                self.fleet.pool.credentials.insert(id, standing);
            }
        }
    }

    /// What was gone already and nobody has is of no interest any more.
    fn forget_the_gone(&mut self) {
        let agents = &self.fleet.agents;
        let in_use = |id: &CredentialId| {
            agents
                .values()
                .any(|a| a.credential.as_ref() == Some(id) || a.next_credential() == Some(id))
        };
        let all = &mut self.fleet.pool.credentials;
        all.retain(|id, standing| !standing.gone || in_use(id));
    }

    /// What an agent is launched with: what it has, if that is usable, else the best, else the one
    /// that is free soonest.
    pub(in crate::supervisor) fn lend_for_launch(&mut self, now: Timestamp, id: &AgentId) {
        let ready = |id: &CredentialId| {
            let standing = self.fleet.pool.credentials.get(id);
            standing.is_some_and(Standing::lets_work)
        };
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let next = agent.next_credential().cloned();
        let kept = next.clone().filter(ready);
        let chosen = kept
            .or_else(|| self.best_for(now, id, Need::Any))
            .or(next)
            .or_else(|| self.free_soonest());
        let edition = chosen
            .as_ref()
            .and_then(|id| self.fleet.pool.credentials.get(id))
            .map_or(0, |standing| standing.edition);
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.lease.lending = None;
            agent.lease.edition = edition;
            if agent.credential != chosen {
                agent.lease.former = None;
                agent.lease.since = now;
                agent.credential = chosen;
            }
        }
    }

    fn free_soonest(&self) -> Option<CredentialId> {
        let all = self.fleet.pool.credentials.iter();
        let soonest =
            all.min_by_key(|(_, standing)| standing.free_at().unwrap_or(Timestamp(i64::MAX)));
        soonest.map(|(id, _)| id.clone())
    }

    pub(in crate::supervisor) fn request_retry_credential(
        &mut self,
        now: Timestamp,
        credential: &CredentialId,
    ) -> Reply {
        let ahead = self.policy.refresh_ahead;
        let all = &mut self.fleet.pool.credentials;
        let Some(standing) = all.get_mut(credential) else {
            let known: Vec<&str> = all.keys().map(CredentialId::as_str).collect();
            return denied(
                "UNKNOWN_CREDENTIAL",
                format!("there is no credential `{credential}`"),
                Some(format!("credentials: {}", known.join(", "))),
            );
        };
        let mut changed = !standing.is_ready();
        standing.forgive();
        standing.spent = None;
        standing.plan_refresh(now, ahead);
        for agent in self.fleet.agents.values_mut() {
            changed |= agent.lease.avoid.remove(credential).is_some();
        }
        if changed {
            Reply::Accepted
        } else {
            Reply::AlreadySo
        }
    }
}

impl Standing {
    /// A changed file is another chance; a told limit belongs to the account and stays.
    fn read_again(&mut self, now: Timestamp, info: CredentialInfo, ahead: Duration) {
        self.gone = false;
        if self.info == info {
            return;
        }
        let changed = self.info.fingerprint != info.fingerprint;
        self.info = info;
        if changed {
            self.edition += 1;
            self.forgive();
            self.spent = self.spent.take().filter(|spent| spent.told);
        }
        self.plan_refresh(now, ahead);
    }

    fn forgive(&mut self) {
        self.refused = None;
        self.cooling = None;
        self.doubted = false;
        self.doubted_at = None;
        self.strikes = Strikes::default();
        self.refresh_failures = 0;
    }
}
