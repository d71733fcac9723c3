//! What the train did not accept: a conflict or a red gate. Its owner is asked to mend it, then the
//! manager.

use super::super::Supervisor;
use super::super::action::{Action, NewTask};
use super::super::policy::MergeBy;
use super::super::state::{Candidate, Conflict, Phase};
use super::super::texts;
use super::claim::Claimed;
use crate::model::{AgentId, CommitId, GateRecord, Missing, TaskId, TaskSource, Timestamp};

/// Times the manager is asked to merge one commit before a person is told.
const ASKED_TO_MERGE: u32 = 2;

/// Commits that came from the remote, in the conflict table.
pub(in crate::supervisor) fn remote() -> AgentId {
    AgentId::new("remote")
}

/// Why the train did not accept a commit.
pub(in crate::supervisor) enum Trouble<'a> {
    /// Path and conflict text per file.
    Conflict(&'a [(String, String)]),
    /// The gates that did not pass.
    Red(&'a [GateRecord]),
}

impl Trouble<'_> {
    /// Where it is, for tables: paths, or gates.
    fn places(&self) -> Vec<String> {
        match self {
            Self::Conflict(files) => files.iter().map(|(path, _)| path.clone()).collect(),
            Self::Red(gates) => gates
                .iter()
                .map(|gate| format!("gate {}", gate.name))
                .collect(),
        }
    }

    fn in_words(&self) -> String {
        let places = self.places().join(", ");
        match self {
            Self::Conflict(_) => format!("conflicts in {places}"),
            Self::Red(_) => format!("does not pass {places} once it is merged"),
        }
    }

    fn missing(&self) -> Missing {
        match self {
            Self::Conflict(_) => Missing::Merge {
                paths: self.places(),
            },
            Self::Red(gates) => Missing::Gate {
                gates: gates.to_vec(),
            },
        }
    }
}

impl Supervisor {
    /// A commit of `id` is in the branch, and with it its earlier ones that were in conflict.
    pub(in crate::supervisor) fn count_resolved(&mut self, id: &AgentId) {
        let merging = &mut self.fleet.merging;
        if merging.conflicts.contains_key(id) {
            return;
        }
        let before = merging.conflicts_asked.len();
        merging
            .conflicts_asked
            .retain(|asked, _| asked.split(' ').next() != Some(id.as_str()));
        let mut resolved = before - merging.conflicts_asked.len();
        if let Some(agent) = self.fleet.agents.get_mut(id)
            && std::mem::take(&mut agent.mends_conflict)
        {
            // Counted once, whoever resolved it.
            resolved = resolved.max(1);
        }
        merging.resolved += u32::try_from(resolved).unwrap_or(u32::MAX);
    }

    /// The manager's work is in the branch: what it was asked to merge is merged again. Up to date
    /// if it did its work, a conflict again if not.
    pub(in crate::supervisor) fn judge_conflicts(&mut self, now: Timestamp, id: &AgentId) {
        if *id != AgentId::manager() {
            return;
        }
        let open: Vec<AgentId> = self.fleet.merging.conflicts.keys().cloned().collect();
        for agent in open {
            let task = self.fleet.merging.conflicts[&agent].task.clone();
            if self.in_play(&task) || !self.fleet.merging.conflicts[&agent].seen {
                continue;
            }
            // It may be in what the manager has done: nothing is known before that is in the branch.
            if agent != *id && self.is_on_its_way(id) {
                continue;
            }
            let Some(conflict) = self.fleet.merging.conflicts.remove(&agent) else {
                continue;
            };
            if agent == remote() {
                self.fleet.merging.fetch_at = Some(Timestamp(0));
                continue;
            }
            let title = self
                .fleet
                .agents
                .get(&agent)
                .map_or_else(String::new, |a| a.last_title.clone());
            // The later one contains the other, so what is claimed comes with it.
            let (first, last) = match conflict.later {
                // It was asked to mend its own work, and this is what came of it.
                Some(later) if agent == AgentId::manager() => {
                    self.asked_about_later(&agent, &conflict.commit, &later);
                    (None, later)
                }
                Some(later) => (Some(conflict.commit), later),
                None => (None, conflict.commit),
            };
            let by_hand = self.policy.merge_by == MergeBy::Manager && agent != AgentId::manager();
            let first = first.map(|commit| (commit, Vec::new()));
            for (commit, tasks) in first.into_iter().chain([(last, conflict.tasks)]) {
                let (agent, title) = (agent.clone(), title.clone());
                self.fleet.merging.waiting.push(Candidate {
                    agent,
                    commit,
                    title,
                    since: now,
                    tasks,
                    by_hand,
                    asked: 0,
                });
            }
        }
    }

    /// It waits for the train, is in it, or has to be mended before it may go in again.
    fn is_on_its_way(&self, id: &AgentId) -> bool {
        let merging = &self.fleet.merging;
        let mut all = merging.waiting.iter().chain(merging.train.members());
        merging.conflicts.contains_key(id) || all.any(|candidate| candidate.agent == *id)
    }

    /// What was asked about a commit counts for the one that was to mend it.
    fn asked_about_later(&mut self, id: &AgentId, commit: &CommitId, later: &CommitId) {
        let asked = &mut self.fleet.merging.conflicts_asked;
        if let Some(times) = asked.remove(&format!("{id} {commit}")) {
            asked.insert(format!("{id} {later}"), times);
        }
    }

    /// Remembers which of the tasks we asked for have arrived.
    pub(in crate::supervisor) fn note_arrivals(&mut self) {
        let arrived: Vec<AgentId> = self
            .fleet
            .merging
            .conflicts
            .iter()
            .filter(|(_, conflict)| self.in_play(&conflict.task))
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in arrived {
            if let Some(conflict) = self.fleet.merging.conflicts.get_mut(&agent) {
                conflict.seen = true;
            }
        }
        self.note_hand_over_arrived();
        let open = self.fleet.planning.open.clone();
        if open.is_some_and(|task| self.in_play(&task)) {
            self.fleet.planning.open_seen = true;
        }
    }

    /// The task is in the manager's queue or hand.
    pub(in crate::supervisor) fn in_play(&self, task: &TaskId) -> bool {
        let id = AgentId::manager();
        let queued = self
            .queue
            .candidates
            .get(&id)
            .is_some_and(|tasks| tasks.contains(task));
        let in_hand = self.fleet.agents.get(&id).is_some_and(|manager| {
            let held = manager.held.as_ref();
            held.is_some_and(|held| held.task == *task)
                || matches!(&manager.phase, Phase::Claiming { task: t, .. } if t == task)
        });
        queued || in_hand
    }

    pub(in crate::supervisor) fn conflicted(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        commit: &CommitId,
        title: &str,
        trouble: &Trouble<'_>,
        tasks: Vec<TaskId>,
    ) {
        let merges = matches!(trouble, Trouble::Red(_));
        let says = trouble.in_words();
        let asked = self
            .fleet
            .merging
            .conflicts_asked
            .entry(format!("{id} {commit}"))
            .or_default();
        *asked += 1;
        let times = *asked;
        let counted = self.fleet.agents.get(id).is_some_and(|a| a.mends_conflict);
        if times == 1 && !counted && !merges {
            self.fleet.merging.conflicts_seen += 1;
        }
        let task = TaskId::new(format!("merge-{id}-{}-{times}", commit.short()));
        let text = format!("{} {says}", commit.short());
        if times > ASKED_TO_MERGE {
            let hint =
                format!("merge {commit} into the branch by hand and push; it is in the store");
            self.notice(
                now,
                Some(id),
                &format!("{text}, and the manager did not resolve it"),
                Some(hint),
            );
            let cause = format!("{says}, which neither it nor the manager mended");
            self.give_up_all(now, id, &tasks, &cause);
            return;
        }
        self.notice(
            now,
            Some(id),
            &text,
            Some("the manager is asked to mend it".into()),
        );
        let context = self.text_context(&AgentId::manager());
        // The manager's own work is not merged into itself: the branch is.
        let wanted = match &self.fleet.branch_head {
            Some(head) if *id == AgentId::manager() => head,
            _ => commit,
        };
        let description = match trouble {
            Trouble::Conflict(files) => texts::merge_conflict(&context, id, wanted, title, files),
            Trouble::Red(gates) => texts::red_work(&context, id, commit, title, gates),
        };
        let conflict = Conflict {
            commit: commit.clone(),
            task: task.clone(),
            paths: trouble.places(),
            later: None,
            tasks,
            seen: false,
            since: Some(now),
        };
        self.fleet.merging.conflicts.insert(id.clone(), conflict);
        self.act(Action::CreateTask(NewTask {
            id: task,
            owner: AgentId::manager(),
            description,
            priority: 0,
            source: TaskSource::MergeConflict {
                agent: id.clone(),
                commit: commit.clone(),
            },
        }));
    }

    /// It goes back to the agent whose work it is, if that claims something with it and has not been
    /// asked too often; then the manager is asked.
    pub(super) fn not_accepted(
        &mut self,
        now: Timestamp,
        candidate: &Candidate,
        trouble: &Trouble<'_>,
    ) {
        let id = &candidate.agent;
        if !self.owner_mends(candidate) {
            let (commit, title) = (&candidate.commit, &candidate.title);
            self.conflicted(now, id, commit, title, trouble, candidate.tasks.clone());
            return;
        }
        self.recall(candidate, |claim| claim.missing = vec![trouble.missing()]);
        let mut more = String::new();
        if let Trouble::Conflict(files) = trouble {
            more = texts::hunks(files);
            if let Some(agent) = self.fleet.agents.get_mut(id)
                && !std::mem::replace(&mut agent.mends_conflict, true)
            {
                self.fleet.merging.conflicts_seen += 1;
            }
        }
        self.send_back(now, id, &more);
    }

    fn owner_mends(&self, candidate: &Candidate) -> bool {
        let id = &candidate.agent;
        let limit = self.policy.send_back;
        let Some(agent) = self.fleet.agents.get(id) else {
            return false;
        };
        let ours = |claim: &&Claimed| claim.offered && candidate.tasks.contains(&claim.task);
        let mut rounds = agent.claims.iter().filter(ours).map(|c| c.rounds(id));
        // One that was given up answers nobody before a person has restarted it.
        agent.phase != Phase::Failed
            && rounds
                .next()
                .is_some_and(|first| rounds.fold(first, u32::max) < limit)
    }

    pub(in crate::supervisor) fn give_up_all(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        tasks: &[TaskId],
        says: &str,
    ) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let named = |claim: &Claimed| tasks.contains(&claim.task);
        let claims = std::mem::take(&mut agent.claims);
        let (over, open): (Vec<Claimed>, Vec<Claimed>) = claims.into_iter().partition(named);
        agent.claims = open;
        for claim in over {
            self.give_up(now, id, claim, says, false);
        }
    }
}
