//! What is missing goes back: to the worker that claimed it, then to the manager, then to a person.

use super::super::Supervisor;
use super::super::action::{Action, ClaimFor, NewTask};
use super::super::lifecycle::finish_action;
use super::super::state::{FinishAs, Finishing, Phase};
use super::super::texts;
use super::claim::{Claimed, Repair};
use super::receipt;
use crate::model::attempt::{cut_cause, next_number, with_notes};
use crate::model::{
    AgentId, AttemptEnd, AttemptNote, CommitId, GateRecord, Missing, SentBack, Task, TaskId,
    TaskSource, Timestamp,
};

/// Before every other task of its agent.
pub(super) const SOONEST: i64 = -1000;

/// The claims that one turn is to mend. One that has no commit is mended by itself, after the others:
/// what a turn commits for another task would count as its own.
fn next_to_mend(claims: &[Claimed]) -> Vec<TaskId> {
    let lacking: Vec<&Claimed> = claims.iter().filter(|claim| claim.lacks()).collect();
    let worked = lacking
        .iter()
        .filter(|claim| !claim.missing.contains(&Missing::Commit));
    let mut asked: Vec<TaskId> = worked.map(|claim| claim.task.clone()).collect();
    if asked.is_empty() {
        asked.extend(lacking.first().map(|claim| claim.task.clone()));
    }
    asked
}

impl Supervisor {
    /// Claims that lack something: again to their agent, or given up. One repair task at a time;
    /// what comes meanwhile is looked at when that is over.
    pub(super) fn mend(&mut self, now: Timestamp, id: &AgentId) {
        let limit = self.policy.send_back;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if agent.repair.is_some() {
            return;
        }
        let hopeless = |claim: &Claimed| claim.lacks() && claim.rounds(id) >= limit;
        let mut tolerated = Vec::new();
        for claim in agent.claims.iter_mut().filter(|claim| hopeless(claim)) {
            if let Some(left) = claim.only_leaves().cloned() {
                claim.missing.clear();
                tolerated.push((claim.task.clone(), left.join(", "), claim.kept.clone()));
                claim.tolerated = left;
            }
        }
        let claims = std::mem::take(&mut agent.claims);
        let (over, open): (Vec<Claimed>, Vec<Claimed>) = claims.into_iter().partition(hopeless);
        agent.claims = open;
        for claim in over {
            let cause = claim.awaits();
            self.give_up(now, id, claim, &cause, true);
        }
        for (task, left, copy) in tolerated {
            let text = format!("{task} counts without what it leaves uncommitted: {left}");
            let hint = copy.map(|copy| {
                let id = copy.id;
                format!("its receipt names the copy; see `orchestrator rescue show {id}`")
            });
            self.notice(now, Some(id), &text, hint);
        }
        self.send_back(now, id, "");
    }

    /// Asks the agent to mend what its claims lack, as far as one turn can ([`next_to_mend`]). `more`: what it needs for that.
    pub(super) fn send_back(&mut self, now: Timestamp, id: &AgentId, more: &str) {
        let context = self.text_context(id);
        let head = self.fleet.branch_head.clone();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if agent.repair.is_some() || !agent.claims.iter().any(Claimed::lacks) {
            return;
        }
        agent.repairs += 1;
        let task = TaskId::new(format!("repair-{id}-{}", agent.repairs));
        let asked = next_to_mend(&agent.claims);
        let is_asked = |claim: &Claimed| asked.contains(&claim.task);
        let lacking: Vec<&Claimed> = agent.claims.iter().filter(|c| is_asked(c)).collect();
        let text = texts::repair(&context, &lacking, head.as_ref(), more);
        let said: Vec<String> = lacking
            .iter()
            .map(|claim| format!("{} ({}): {}", claim.task, claim.title, claim.awaits()))
            .collect();
        let incarnation = agent.incarnation;
        for claim in agent.claims.iter_mut().filter(|claim| is_asked(claim)) {
            let note = AttemptNote {
                number: next_number(&claim.past),
                fence: claim.fence,
                agent: id.clone(),
                incarnation,
                began: claim.claimed_at,
                ended: now,
                end: AttemptEnd::SentBack,
                cause: cut_cause(&claim.awaits()),
            };
            claim.past = with_notes(&claim.past, &[note]);
            claim.sent_back.push(SentBack {
                at: now,
                to: id.clone(),
                missing: receipt::noted(&claim.missing),
                rescue: claim.kept.clone(),
            });
        }
        agent.repair = Some(Repair {
            task,
            text,
            claims: asked,
            known: false,
        });
        for said in said {
            let text = format!("said it was done, which is not proven: {said}");
            self.notice(
                now,
                Some(id),
                &text,
                Some("it is asked to mend that".into()),
            );
        }
        self.create_repair(id);
    }

    /// Creating it twice is one task, so this is said again as long as the queue has not confirmed it.
    pub(in crate::supervisor) fn create_repair(&mut self, id: &AgentId) {
        let repair = self.fleet.agents.get(id).and_then(|a| a.repair.as_ref());
        let Some(repair) = repair.filter(|repair| !repair.known) else {
            return;
        };
        let new = NewTask {
            id: repair.task.clone(),
            owner: id.clone(),
            description: repair.text.clone(),
            priority: SOONEST,
            source: TaskSource::Repair {
                tasks: repair.claims.clone(),
            },
        };
        self.act(Action::CreateTask(new));
    }

    /// The queue has a task that was asked for; `open`: somebody may still do it.
    pub(in crate::supervisor) fn on_task_created(
        &mut self,
        id: &AgentId,
        task: &TaskId,
        open: bool,
    ) {
        self.note_hand_over(task, open);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(repair) = agent.repair.as_mut().filter(|r| r.task == *task) else {
            return;
        };
        repair.known = true;
        if !open {
            self.repair_is_over(id);
        }
    }

    /// Nobody will do it any more: it was cancelled, or has failed. What it was about is looked at
    /// again.
    pub(in crate::supervisor) fn repair_is_over(&mut self, id: &AgentId) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(repair) = agent.repair.take() else {
            return;
        };
        for claim in &mut agent.claims {
            if repair.claims.contains(&claim.task) && !claim.offered {
                claim.missing.clear();
                claim.work = None;
            }
        }
        self.import(id, None);
    }

    /// Repairs that are in nobody's queue and hand, of agents that could take them.
    pub(in crate::supervisor) fn look_after_repairs(&mut self) {
        let gone: Vec<AgentId> = self
            .fleet
            .agents
            .values()
            .filter(|agent| agent.phase == Phase::Idle && agent.held.is_none())
            .filter(|agent| {
                agent.repair.as_ref().is_some_and(|repair| {
                    let queued = self.queue.candidates.get(&agent.id);
                    repair.known && !queued.is_some_and(|tasks| tasks.contains(&repair.task))
                })
            })
            .map(|agent| agent.id.clone())
            .collect();
        for id in gone {
            self.repair_is_over(&id);
        }
    }

    /// What a repair task was about has been mended meanwhile, or its claims are gone: nobody is told.
    pub(in crate::supervisor) fn is_needless(&self, id: &AgentId, task: &Task) -> bool {
        if !matches!(task.source, TaskSource::Repair { .. }) {
            return false;
        }
        let Some(agent) = self.fleet.agents.get(id) else {
            return false;
        };
        let asked = agent.repair.as_ref().filter(|r| r.task == task.id);
        asked.is_none_or(|repair| {
            let about = |claim: &Claimed| claim.lacks() && repair.claims.contains(&claim.task);
            !agent.claims.iter().any(about)
        })
    }

    /// Ends a claimed repair task that nobody needs.
    pub(in crate::supervisor) fn pass_over(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        task: &Task,
        purpose: Option<ClaimFor>,
    ) {
        let fence = task.claim.as_ref().map_or(0, |claim| claim.fence);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.repair.take_if(|repair| repair.task == task.id);
        if purpose.is_some() {
            agent.enter(now, Phase::Idle, "what it was to mend is there already");
        }
        let said = "nothing is missing any more".to_owned();
        let receipt = receipt::without_proof(id, &task.id, fence, now);
        self.done(id, said, receipt, Vec::new());
        if let Some(ClaimFor::Answer { callback }) = purpose {
            self.next_or_let_go(now, id, Some(callback));
        }
    }

    /// It is proven.
    pub(super) fn proven(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        claim: &Claimed,
        landed: Option<CommitId>,
        gates: &[GateRecord],
    ) {
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.tasks_done += 1;
        }
        let receipt = receipt::of(claim, id, now, landed, gates);
        self.done(id, claim.said.clone(), receipt, claim.past.clone());
    }

    /// The claim is not believed any more: the task has failed, people are told, and so is the
    /// manager, unless it was the one who tried last.
    pub(super) fn give_up(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        claim: Claimed,
        cause: &str,
        tell: bool,
    ) {
        let times = claim.sent_back.len();
        let text = format!("claimed done, and not proven after {times} repair(s): {cause}");
        let notice = format!("{} ({}) failed: {text}", claim.task, claim.title);
        let tell = tell.then(|| texts::unproven(&self.text_context(id), &claim, cause));
        let finishing = Finishing {
            task: claim.task,
            fence: claim.fence,
            text,
            outcome: FinishAs::Failed,
            receipt: None,
            tell_manager: tell,
            past: claim.past,
        };
        self.tell_manager(id, &finishing);
        let failed = finish_action(id, &finishing);
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.finishing.push(finishing);
        }
        self.act(failed);
        let hint = "other work goes on; what it committed stays on its branch";
        self.notice(now, Some(id), &notice, Some(hint.into()));
    }

    /// Before the failure itself, which is said again after a crash, and this with it.
    pub(in crate::supervisor) fn tell_manager(&mut self, id: &AgentId, finishing: &Finishing) {
        let Some(text) = &finishing.tell_manager else {
            return;
        };
        self.act(Action::CreateTask(NewTask {
            id: TaskId::new(format!("unproven-{}-{}", finishing.task, finishing.fence)),
            owner: AgentId::manager(),
            description: text.clone(),
            priority: 0,
            source: TaskSource::Unproven {
                agent: id.clone(),
                task: finishing.task.clone(),
            },
        }));
    }
}
