//! `mergeBy: "manager"`: what waits is merged by the manager, on its own branch, and only its commits go
//! into the branch, by the train and through the gates as ever.
//!
//! ```text
//!   waiting ─batch─▶ task of the manager ─its turn ends─▶ looked for behind the manager's own commit
//!      ▲                                                       │
//!      └── not there: asked once more; then people are told ◀──┴─▶ there: it has landed with that
//! ```

use serde::{Deserialize, Serialize};

use super::order::next_batch;
use crate::model::{AgentId, CommitId, TaskId, TaskSource, Timestamp};
use crate::supervisor::Supervisor;
use crate::supervisor::action::{Action, NewTask};
use crate::supervisor::policy::MergeBy;
use crate::supervisor::state::Candidate;
use crate::supervisor::texts;

/// Times the manager is asked to merge one commit before people are told.
const ASKED: u32 = 2;

/// Work that the manager is asked to merge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    pub task: TaskId,
    pub since: Timestamp,
    /// In the order in which they waited; never empty.
    pub candidates: Vec<Candidate>,
    /// The task has been seen in the queue: when it is in nobody's hand any more, it is over.
    pub seen: bool,
}

impl Supervisor {
    /// Hands over what waits, one batch at a time, and looks for it when the manager is through.
    pub(super) fn merge_by_manager(&mut self, now: Timestamp) {
        if self.policy.merge_by == MergeBy::Train {
            return self.take_back();
        }
        if self.is_through() {
            self.look_for_handed_over(now);
        }
        self.next_hand_over(now);
    }

    /// May it depart now? The manager's own work at any time, and what it was asked to merge once
    /// everything of the manager's is on board or in the branch.
    pub(super) fn may_depart(&self) -> impl Fn(&Candidate) -> bool + use<> {
        let by_train = self.policy.merge_by == MergeBy::Train;
        let settled = self.manager_is_settled();
        let manager = AgentId::manager();
        move |candidate| by_train || candidate.agent == manager || (candidate.by_hand && settled)
    }

    /// Nothing of the manager's is still to be taken, mended or tried again.
    fn manager_is_settled(&self) -> bool {
        let id = AgentId::manager();
        let merging = &self.fleet.merging;
        let taken = self.fleet.agents.get(&id).is_none_or(|manager| {
            !manager.importing && manager.import_next.is_none() && manager.import_at.is_none()
        });
        let put_off = |c: &Candidate| c.agent == id && merging.train.is_put_off(c);
        taken && !merging.conflicts.contains_key(&id) && !merging.waiting.iter().any(put_off)
    }

    /// The turn in which the manager was to merge is over, and its commits were taken.
    fn is_through(&self) -> bool {
        let merging = &self.fleet.merging;
        let over = merging
            .hand_over
            .as_ref()
            .is_some_and(|open| open.seen && !self.in_play(&open.task));
        over && self.manager_is_settled()
    }

    fn look_for_handed_over(&mut self, now: Timestamp) {
        let merging = &mut self.fleet.merging;
        let Some(open) = merging.hand_over.take() else {
            return;
        };
        for candidate in open.candidates {
            merging.waiting.push(Candidate {
                by_hand: true,
                asked: candidate.asked + 1,
                // Behind the manager's commit, which has it if anything has.
                since: now,
                ..candidate
            });
        }
    }

    /// One batch at a time, and none while something of the last one is still on its way.
    fn next_hand_over(&mut self, now: Timestamp) {
        let merging = &mut self.fleet.merging;
        let manager = AgentId::manager();
        let on_its_way = |c: &Candidate| c.by_hand || c.agent == manager;
        let busy = merging.hand_over.is_some()
            || merging.train.members().any(on_its_way)
            || merging.waiting.iter().any(on_its_way)
            || merging.conflicts.contains_key(&manager);
        if busy || self.fleet.ending().is_some() {
            return;
        }
        let merging = &mut self.fleet.merging;
        let most = self.policy.merge_batch as usize;
        let mut batch = next_batch(&merging.waiting, &merging.train.setbacks, most, |_| true);
        if batch.is_empty() {
            return;
        }
        let candidates = batch
            .iter()
            .map(|at| merging.waiting[*at].clone())
            .collect();
        batch.sort_unstable();
        for at in batch.into_iter().rev() {
            merging.waiting.remove(at);
        }
        merging.hand_overs += 1;
        merging.hand_over = Some(HandOver {
            task: TaskId::new(format!("merge-{}", merging.hand_overs)),
            since: now,
            candidates,
            seen: false,
        });
        self.ask_to_merge();
    }

    /// Creating it twice is one task, so this is said again as long as it was not seen.
    pub(super) fn ask_to_merge(&mut self) {
        let open = self.fleet.merging.hand_over.as_ref();
        let Some(open) = open.filter(|open| !open.seen) else {
            return;
        };
        let context = self.text_context(&AgentId::manager());
        let agents = open.candidates.iter().map(|c| c.agent.clone()).collect();
        let task = NewTask {
            id: open.task.clone(),
            owner: AgentId::manager(),
            description: texts::merge_work(&context, &open.candidates),
            priority: 0,
            source: TaskSource::Merge { agents },
        };
        self.act(Action::CreateTask(task));
    }

    /// The queue has it; `open`: it is still to be done.
    pub(in crate::supervisor) fn note_hand_over(&mut self, task: &TaskId, open: bool) {
        let ours = self.fleet.merging.hand_over.as_mut();
        if let Some(ours) = ours.filter(|ours| ours.task == *task && !open) {
            ours.seen = true;
        }
    }

    /// It is in the manager's queue or hand.
    pub(in crate::supervisor) fn note_hand_over_arrived(&mut self) {
        let open = self.fleet.merging.hand_over.as_ref();
        let arrived = open.is_some_and(|open| self.in_play(&open.task));
        if let Some(open) = self.fleet.merging.hand_over.as_mut().filter(|_| arrived) {
            open.seen = true;
        }
    }

    /// The manager was asked to merge it, and the branch does not have it. `on`: what was looked at.
    pub(in crate::supervisor) fn not_merged(
        &mut self,
        now: Timestamp,
        candidate: &Candidate,
        on: &CommitId,
    ) {
        let (id, commit) = (&candidate.agent, &candidate.commit);
        let by_train = self.policy.merge_by == MergeBy::Train;
        if by_train || candidate.asked < ASKED {
            let again = Candidate {
                by_hand: false,
                ..candidate.clone()
            };
            super::ended::put_back(&mut self.fleet.merging.waiting, again);
            if !by_train {
                let text = format!("{} is not in the manager's work", commit.short());
                let hint = "the manager is asked to merge it once more";
                self.notice(now, Some(id), &text, Some(hint.into()));
            }
            return;
        }
        let says = format!("the manager was asked {ASKED} times to merge it and did not");
        let text = format!("{} is not in {}: {says}", commit.short(), on.short());
        let hint = format!(
            "merge {commit} into the branch by hand and push; it is in the store, and comes with the \
             next work of {id}"
        );
        self.notice(now, Some(id), &text, Some(hint));
        self.give_up_all(now, id, &candidate.tasks, &says);
    }

    /// The train merges by itself, as far as the manager was asked before.
    fn take_back(&mut self) {
        let merging = &mut self.fleet.merging;
        if let Some(open) = merging.hand_over.take() {
            for candidate in open.candidates {
                super::ended::put_back(&mut merging.waiting, candidate);
            }
        }
        for candidate in &mut merging.waiting {
            candidate.by_hand = false;
        }
    }
}
