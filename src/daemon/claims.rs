//! Claims in the queue against what the agents hold: a claim that is worked on is renewed, one that
//! nobody has is given back.
//!
//! A crash between the claim and the commit that remembers it leaves a claim without a holder; only
//! one supervisor runs on a state directory, so a claim of one of its agents that the agent does not
//! hold can be nothing else.

use std::time::Duration;

use crate::model::{Task, TaskId, Timestamp};
use crate::supervisor::{Fleet, Phase};

/// What is to become of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Renew,
    GiveBack,
}

/// Task, fence and wish for every claim that something is to be done about.
pub(crate) fn tend(
    claimed: &[Task],
    fleet: &Fleet,
    now: Timestamp,
    lease: Duration,
) -> Vec<(TaskId, u64, Wish)> {
    claimed
        .iter()
        .filter_map(|task| {
            let claim = task.claim.as_ref()?;
            let wish = match fleet.agents.get(&claim.agent) {
                Some(agent) => {
                    let held = agent
                        .held
                        .as_ref()
                        .is_some_and(|held| held.task == task.id && held.fence == claim.fence)
                        // Said to be done, and not proven yet.
                        || agent
                            .claims
                            .iter()
                            .any(|said| said.task == task.id && said.fence == claim.fence);
                    let on_its_way = agent.finishing.iter().any(|f| f.task == task.id)
                        || matches!(&agent.phase, Phase::Claiming { task: t, .. } if *t == task.id);
                    match (held, on_its_way) {
                        (true, _) => {
                            (claim.lease_until.since(now) < lease / 2).then_some(Wish::Renew)
                        }
                        (false, true) => None,
                        (false, false) => Some(Wish::GiveBack),
                    }
                }
                // Somebody else's: it is theirs until its lease has run out.
                None => (claim.lease_until <= now).then_some(Wish::GiveBack),
            }?;
            Some((task.id.clone(), claim.fence, wish))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::{NewTask, Queue};
    use crate::model::{AgentId, Incarnation, SessionId, TaskContext, TaskSource};
    use crate::supervisor::Held;
    use crate::testing::memory_store::MemoryStore;
    use std::sync::Arc;

    const LEASE: Duration = Duration::from_secs(3600);

    async fn claimed(by: &AgentId) -> Vec<Task> {
        let queue = Queue::open(Arc::new(MemoryStore::new())).await.unwrap();
        let new = NewTask {
            id: TaskId::new("t"),
            description: "work".into(),
            priority: 0,
            owner: None,
            dependencies: Vec::new(),
            labels: Vec::new(),
            context: TaskContext::default(),
            scope: Vec::new(),
            source: TaskSource::Direct,
        };
        queue.create(new, Timestamp(0)).await.unwrap();
        let task = TaskId::new("t");
        queue
            .claim(&task, by, Incarnation(1), Timestamp(0), LEASE)
            .await
            .unwrap();
        queue.claimed()
    }

    fn fleet() -> Fleet {
        Fleet::new(
            &[AgentId::manager(), AgentId::worker(1)],
            [SessionId::new("a"), SessionId::new("b")],
        )
    }

    #[tokio::test]
    async fn a_claim_nobody_holds_is_given_back() {
        let worker = AgentId::worker(1);
        let claims = claimed(&worker).await;
        let wishes = tend(&claims, &fleet(), Timestamp(1), LEASE);
        assert_eq!(wishes, vec![(TaskId::new("t"), 1, Wish::GiveBack)]);
    }

    #[tokio::test]
    async fn a_claim_that_is_worked_on_is_renewed_in_time() {
        let worker = AgentId::worker(1);
        let claims = claimed(&worker).await;
        let mut fleet = fleet();
        fleet.agents.get_mut(&worker).unwrap().held = Some(Held {
            task: TaskId::new("t"),
            title: "work".into(),
            text: "work".into(),
            fence: 1,
            source: TaskSource::Direct,
            scope: Vec::new(),
            after: Vec::new(),
            from: None,
            before: None,
            since: Timestamp(0),
            attempts: 1,
            delivered: true,
            interrupted: false,
            begun: false,
            failures: 0,
            past: Vec::new(),
            forgiven: 0,
            began: Timestamp(0),
            cut_off: None,
        });
        assert!(tend(&claims, &fleet, Timestamp(1), LEASE).is_empty());
        let late = tend(&claims, &fleet, Timestamp(3_000_000), LEASE);
        assert_eq!(late, vec![(TaskId::new("t"), 1, Wish::Renew)]);
    }

    #[tokio::test]
    async fn a_claim_of_somebody_else_waits_for_its_lease() {
        let claims = claimed(&AgentId::new("elsewhere")).await;
        assert!(tend(&claims, &fleet(), Timestamp(1), LEASE).is_empty());
        let late = tend(&claims, &fleet(), Timestamp(3_600_000), LEASE);
        assert_eq!(late, vec![(TaskId::new("t"), 1, Wish::GiveBack)]);
    }
}
