//! Claims in the queue against what the agents hold: a claim that is worked on is renewed, one that
//! nobody has is given back.
//!
//! A crash between the claim and the commit that remembers it leaves a claim without a holder; only
//! one supervisor runs on a state directory, so a claim of one of its agents that the agent does not
//! hold can be nothing else.

use std::time::Duration;

use crate::model::{Task, TaskId, TaskStatus, Timestamp};
use crate::supervisor::{Event, Fleet, Phase};

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

/// What agents of the fleet have and have lost: each claim of theirs that is over by what the queue
/// says. `task_of`: the queue's newest word on a task.
pub(crate) fn overtaken(fleet: &Fleet, task_of: &dyn Fn(&TaskId) -> Option<Task>) -> Vec<Event> {
    let mut events = Vec::new();
    for agent in fleet.agents.values() {
        let held = agent.held.iter().map(|held| (&held.task, held.fence));
        // What is on its way into the branch is refused at its end.
        let claims = agent.claims.iter().filter(|claim| !claim.offered);
        let claims = claims.map(|claim| (&claim.task, claim.fence));
        for (task, fence) in held.chain(claims) {
            if let Some(reason) = task_of(task).and_then(|found| is_over(&found, fence)) {
                events.push(Event::Overtaken {
                    agent: agent.id.clone(),
                    task: task.clone(),
                    fence,
                    reason,
                });
            }
        }
    }
    events
}

/// Why the claim of this number is over; `None` while it holds, or ended under that very number: then
/// a person ticked its box, or it is our own word.
fn is_over(task: &Task, fence: u64) -> Option<String> {
    let newest = task.claim.as_ref();
    let still = newest.is_some_and(|claim| claim.fence == fence);
    match task.status {
        TaskStatus::Claimed | TaskStatus::Done | TaskStatus::Failed if still => None,
        TaskStatus::Claimed => Some(newest.map_or_else(
            || "nobody has it".to_owned(),
            |claim| format!("{} has claimed it", claim.agent),
        )),
        TaskStatus::Done => Some("somebody else has done it".to_owned()),
        TaskStatus::Failed => Some("it has failed".to_owned()),
        TaskStatus::Cancelled => Some("it was cancelled".to_owned()),
        TaskStatus::Available => Some("it was given back to the queue".to_owned()),
    }
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

    fn new_task() -> NewTask {
        NewTask {
            id: TaskId::new("t"),
            description: "work".into(),
            priority: 0,
            owner: None,
            dependencies: Vec::new(),
            labels: Vec::new(),
            context: TaskContext::default(),
            scope: Vec::new(),
            source: TaskSource::Direct,
        }
    }

    async fn claimed(by: &AgentId) -> Vec<Task> {
        let queue = Queue::open(Arc::new(MemoryStore::new())).await.unwrap();
        queue.create(new_task(), Timestamp(0)).await.unwrap();
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

    fn held() -> Held {
        Held {
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
        }
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
        fleet.agents.get_mut(&worker).unwrap().held = Some(held());
        assert!(tend(&claims, &fleet, Timestamp(1), LEASE).is_empty());
        let late = tend(&claims, &fleet, Timestamp(3_000_000), LEASE);
        assert_eq!(late, vec![(TaskId::new("t"), 1, Wish::Renew)]);
    }

    /// Worker 1 works on `t` under claim 1.
    fn at_work() -> Fleet {
        let mut fleet = fleet();
        let worker = fleet.agents.get_mut(&AgentId::worker(1)).unwrap();
        worker.held = Some(held());
        fleet
    }

    #[tokio::test]
    async fn whoever_has_lost_a_claim_is_told_and_by_whom() {
        let worker = AgentId::worker(1);
        let queue = Queue::open(Arc::new(MemoryStore::new())).await.unwrap();
        let lost = |queue: &Queue| -> Option<String> {
            let mut events = overtaken(&at_work(), &|id| queue.get(id));
            assert!(events.len() < 2);
            let Event::Overtaken {
                task,
                fence,
                reason,
                ..
            } = events.pop()?
            else {
                panic!("{events:?}");
            };
            assert_eq!((task.as_str(), fence), ("t", 1));
            Some(reason)
        };
        assert_eq!(lost(&queue), None, "a task nobody knows is no proof");
        queue.create(new_task(), Timestamp(0)).await.unwrap();
        let (id, now) = (TaskId::new("t"), Timestamp(0));
        queue
            .claim(&id, &worker, Incarnation(1), now, LEASE)
            .await
            .unwrap();
        assert_eq!(lost(&queue), None, "it is its own");
        queue.release(&id, 1, "for a test", now).await.unwrap();
        assert_eq!(lost(&queue).unwrap(), "it was given back to the queue");
        let other = AgentId::new("terminal-2");
        queue
            .claim(&id, &other, Incarnation(1), now, LEASE)
            .await
            .unwrap();
        assert_eq!(lost(&queue).unwrap(), "terminal-2 has claimed it");
        queue.complete(&id, 2, "", None, now).await.unwrap();
        assert_eq!(lost(&queue).unwrap(), "somebody else has done it");
    }

    #[tokio::test]
    async fn a_box_that_a_person_ticked_takes_nothing_away() {
        let worker = AgentId::worker(1);
        let mut claims = claimed(&worker).await;
        let task = claims.pop().unwrap();
        let done = crate::coordination::rules::close(&task, "ticked", Timestamp(5));
        let done = done.unwrap().unwrap();
        assert!(overtaken(&at_work(), &|_| Some(done.clone())).is_empty());
    }

    #[tokio::test]
    async fn a_claim_of_somebody_else_waits_for_its_lease() {
        let claims = claimed(&AgentId::new("elsewhere")).await;
        assert!(tend(&claims, &fleet(), Timestamp(1), LEASE).is_empty());
        let late = tend(&claims, &fleet(), Timestamp(3_600_000), LEASE);
        assert_eq!(late, vec![(TaskId::new("t"), 1, Wish::GiveBack)]);
    }
}
