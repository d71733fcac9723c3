//! One decision: made, stored, then carried out.
//!
//! A claim is a record of the queue. Where that lies in the same file as our own rows, the claim, the
//! decision that asks for it and the one that follows from it are one transaction: an agent that waits
//! for its next task waits for the disk once and not three times.

use super::Driver;
use crate::coordination::PreparedClaim;
use crate::daemon::record;
use crate::model::{AgentId, Timestamp};
use crate::ports::PortResult;
use crate::store::sqlite::{Changes, Committed};
use crate::supervisor::{Action, Event, Supervisor};

impl Driver {
    /// One decision. On `Err` nothing has changed, here or on disk.
    pub(super) async fn decide(
        &mut self,
        mut also: Changes,
        decision: impl FnOnce(&mut Supervisor) -> Vec<Action>,
    ) -> PortResult<()> {
        let now = self.now();
        let before = self.supervisor.clone();
        let actions = decision(&mut self.supervisor);
        self.note_history(now, &before, &mut also);
        let stored = match self.store_with_claims(now, &before, &also, &actions).await {
            Ok(Some(all)) => Ok(all),
            Ok(None) => self
                .store(now, &before, also, &actions)
                .await
                .map(|()| actions),
            Err(error) => Err(error),
        };
        let actions = match stored {
            Ok(actions) => actions,
            Err(error) => {
                self.supervisor = before;
                self.refused = true;
                return Err(error);
            }
        };
        if let Err(broken) = self.supervisor.fleet().check() {
            tracing::error!(broken, "an invariant of the fleet does not hold");
        }
        self.carry_out(actions).await;
        Ok(())
    }

    async fn store(
        &mut self,
        now: Timestamp,
        before: &Supervisor,
        also: Changes,
        actions: &[Action],
    ) -> PortResult<()> {
        let after = self.supervisor.fleet();
        let Some(changes) = record::changes(now, before.fleet(), after, also, actions) else {
            return Ok(());
        };
        self.state.commit(changes).await?;
        self.was_written();
        Ok(())
    }

    /// The decision as it is with its claims made: all that is to be done then. `None` when there is
    /// no claim to be stored with it, or somebody else was first: nothing of it is stored, and the
    /// supervisor is where `decision` left it.
    async fn store_with_claims(
        &mut self,
        now: Timestamp,
        before: &Supervisor,
        also: &Changes,
        actions: &[Action],
    ) -> PortResult<Option<Vec<Action>>> {
        let claims = self.queue.prepare_claims(now, actions, self.state.path());
        if claims.is_empty() {
            return Ok(None);
        }
        let decided = self.supervisor.clone();
        let mut also = also.clone();
        let mut all: Vec<Action> = actions
            .iter()
            .filter(|action| !is_one_of(&claims, action))
            .cloned()
            .collect();
        for (agent, claim) in &claims {
            let earlier = self.supervisor.clone();
            let claimed = Event::Claimed {
                agent: agent.clone(),
                task: Box::new(claim.task.clone()),
            };
            all.extend(self.supervisor.observe(now, claimed));
            self.note_history(now, &earlier, &mut also);
        }
        let after = self.supervisor.fleet();
        let changes = record::changes(now, before.fleet(), after, also, &all).unwrap_or_default();
        let appends = claims.iter().map(|(_, claim)| claim.append.clone());
        let committed = self.state.commit_with(changes, appends.collect()).await?;
        let Committed::All(appended) = committed else {
            tracing::debug!("a claim was not stored with its decision; it is tried by itself");
            self.supervisor = decided;
            return Ok(None);
        };
        self.was_written();
        for ((agent, claim), seq) in claims.into_iter().zip(appended) {
            let task = Box::new(claim.task.clone());
            self.queue.queue.note_claim(claim, seq);
            self.logbook.event(now, &Event::Claimed { agent, task });
        }
        let view = self.queue.view();
        self.inbox.push_back(Event::QueueChanged(view));
        Ok(Some(all))
    }

    /// Changes of state since then, with what brought them about.
    fn note_history(&self, now: Timestamp, before: &Supervisor, also: &mut Changes) {
        let (before, after) = (before.fleet(), self.supervisor.fleet());
        let history = record::history(now, before, after, self.supervisor.cause());
        also.journal.extend(history);
    }

    fn was_written(&mut self) {
        if std::mem::take(&mut self.refused) {
            self.inbox.push_back(Event::StoreRecovered);
        }
    }
}

fn is_one_of(claims: &[(AgentId, PreparedClaim)], action: &Action) -> bool {
    let Action::Claim { agent, task, .. } = action else {
        return false;
    };
    claims
        .iter()
        .any(|(claimant, claim)| claimant == agent && claim.task.id == *task)
}
