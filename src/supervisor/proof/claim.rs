//! A claim: its agent says that a task is done, and nobody has seen yet that it is.

use serde::{Deserialize, Serialize};

use super::super::Supervisor;
use super::super::lifecycle::finish_action;
use super::super::policy::Proof;
use super::super::state::{AgentState, FinishAs, Finishing, Held};
use super::receipt;
use crate::model::view::UnprovenView;
use crate::model::{
    AgentId, AttemptNote, CallbackId, Missing, Receipt, RescueNote, SentBack, Span, TaskId,
    TaskSource, Timestamp, Work,
};

/// What begins the line with which an agent says why it changed nothing.
pub(in crate::supervisor) const NO_CHANGE: &str = "No change needed:";
/// Of that reason, in characters.
const REASON: usize = 500;

/// A task whose agent says that it is done. The queue keeps it claimed until that is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    pub task: TaskId,
    pub fence: u64,
    pub title: String,
    pub source: TaskSource,
    /// Paths it may change; empty: any.
    pub scope: Vec<String>,
    /// The agent's last words on it, and its reason for changing nothing.
    pub said: String,
    pub no_change: Option<String>,
    pub claimed_at: Timestamp,
    /// What its own turn and those that mended it added to the branch of its agent.
    pub spans: Vec<Span>,
    /// What the store has of it; `None` until the commits of its newest turn were taken.
    pub work: Option<Work>,
    /// What it lacked when it was looked at last.
    pub missing: Vec<Missing>,
    pub sent_back: Vec<SentBack>,
    /// The attempts before, and those that were sent back.
    #[serde(default)]
    pub past: Vec<AttemptNote>,
    /// It lacked nothing, and is on its way into the branch.
    pub offered: bool,
    /// The Stop of its newest turn, and what was uncommitted before that turn and is not its own.
    #[serde(default)]
    pub stop: Option<CallbackId>,
    #[serde(default)]
    pub base: Option<Vec<String>>,
    /// What its turns left uncommitted; `None`: not known.
    #[serde(default)]
    pub left: Option<Vec<String>>,
    /// The copy of what was uncommitted when it was looked at last.
    #[serde(default)]
    pub kept: Option<RescueNote>,
    /// What it may leave uncommitted, because that is kept and asking did not help.
    #[serde(default)]
    pub tolerated: Vec<String>,
}

impl Claimed {
    fn new(held: Held, agent: &AgentState, said: String, now: Timestamp) -> Self {
        Self {
            task: held.task,
            fence: held.fence,
            title: held.title,
            source: held.source,
            scope: held.scope,
            no_change: no_change(&said),
            said,
            claimed_at: now,
            spans: vec![Span {
                after: held.after,
                head: agent.head.clone(),
            }],
            work: None,
            missing: Vec::new(),
            sent_back: Vec::new(),
            past: held.past,
            offered: false,
            stop: agent.stop.clone(),
            base: held.before,
            left: None,
            kept: None,
            tolerated: Vec::new(),
        }
    }

    /// How often `who` was asked to mend it.
    pub(super) fn rounds(&self, who: &AgentId) -> u32 {
        let asked = self.sent_back.iter().filter(|back| back.to == *who);
        u32::try_from(asked.count()).unwrap_or(u32::MAX)
    }

    /// What it lacks is known, and somebody has to do something about it.
    pub(super) fn lacks(&self) -> bool {
        !self.offered && !self.missing.is_empty()
    }

    /// What its agent has committed shall not be merged as it is.
    pub(super) fn holds_back(&self) -> bool {
        self.lacks() && self.missing.iter().any(|lack| *lack != Missing::Commit)
    }

    /// It lacks nothing but a clean tree, and what makes that unclean is all in a copy: which paths.
    pub(super) fn only_leaves(&self) -> Option<&Vec<String>> {
        let worked = self.work.as_ref().is_some_and(|work| work.commit_count > 0);
        let copied = self.kept.as_ref().is_some_and(|kept| kept.left_out == 0);
        match self.missing.as_slice() {
            [Missing::CleanTree { paths }] if worked && copied => Some(paths),
            _ => None,
        }
    }

    /// In words, for people: what is being waited for.
    pub(in crate::supervisor) fn awaits(&self) -> String {
        if self.offered {
            return "on its way into the branch".to_owned();
        }
        if self.work.is_none() {
            return "its commits are being taken".to_owned();
        }
        let lacks: Vec<String> = self.missing.iter().map(Missing::in_words).collect();
        lacks.join("; ")
    }

    pub(in crate::supervisor) fn view(&self) -> UnprovenView {
        UnprovenView {
            id: self.task.clone(),
            title: self.title.clone(),
            since: self.claimed_at,
            waits_for: self.awaits(),
            missing: self.missing.clone(),
            sent_back: u32::try_from(self.sent_back.len()).unwrap_or(u32::MAX),
        }
    }
}

/// The one task with which an agent is asked to mend its claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    pub task: TaskId,
    pub text: String,
    /// The claims it is about.
    pub claims: Vec<TaskId>,
    /// The queue has it. Until then it is created again after a restart.
    #[serde(default)]
    pub known: bool,
}

/// The reason in the last line of a message, if that says that nothing had to be changed.
fn no_change(said: &str) -> Option<String> {
    let last = said.lines().rev().find(|line| !line.trim().is_empty())?;
    // As people and models mark a line: emphasis, a bullet, a quotation.
    let marks = ['*', '_', ' ', '\t'];
    let line = last.trim_start_matches(['-', '>', '*', '_', '`', ' ', '\t']);
    let start = line.get(..NO_CHANGE.len())?;
    if !start.eq_ignore_ascii_case(NO_CHANGE) {
        return None;
    }
    let reason = line[NO_CHANGE.len()..].trim_matches(marks);
    (!reason.is_empty()).then(|| reason.chars().take(REASON).collect())
}

impl Supervisor {
    /// A turn on a task has ended. What needs no proof is done; everything else is claimed.
    pub(in crate::supervisor) fn turn_ended_on(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        held: Held,
        said: String,
    ) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let repairs = matches!(held.source, TaskSource::Repair { .. });
        // The manager plans and merges: what comes of that is seen elsewhere.
        let proof = self.policy.proof == Proof::Commit && id.worker_number().is_some();
        if proof && !repairs {
            let claim = Claimed::new(held, agent, said, now);
            agent.claims.push(claim);
            return;
        }
        if repairs {
            self.mended(id, &held, &said);
        } else {
            agent.tasks_done += 1;
        }
        let receipt = receipt::without_proof(id, &held.task, held.fence, now);
        self.done(id, said, receipt, held.past);
    }

    /// What a merge of the agent's commits is called: after the work, not after its repair.
    pub(in crate::supervisor) fn title_of_work(&self, id: &AgentId, held: &Held) -> String {
        let agent = self.fleet.agents.get(id);
        let repair = agent.and_then(|agent| agent.repair.as_ref());
        let first = repair
            .filter(|repair| repair.task == held.task)
            .and_then(|repair| repair.claims.first());
        let claims = agent.into_iter().flat_map(|agent| &agent.claims);
        let claim = first.and_then(|task| claims.into_iter().find(|c| c.task == *task));
        claim.map_or_else(|| held.title.clone(), |claim| claim.title.clone())
    }

    /// It is done: the queue is told until it has confirmed it.
    pub(super) fn done(
        &mut self,
        id: &AgentId,
        said: String,
        receipt: Receipt,
        past: Vec<AttemptNote>,
    ) {
        let finishing = Finishing {
            task: receipt.task.clone(),
            fence: receipt.fence,
            text: said,
            outcome: FinishAs::Done,
            receipt: Some(Box::new(receipt)),
            tell_manager: None,
            past,
        };
        let complete = finish_action(id, &finishing);
        if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.finishing.push(finishing);
        }
        self.act(complete);
    }

    /// The turn that was to mend some claims is over: they are looked at again with what it added.
    fn mended(&mut self, id: &AgentId, held: &Held, said: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let Some(repair) = agent.repair.take_if(|repair| repair.task == held.task) else {
            return;
        };
        let span = Span {
            after: held.after.clone(),
            head: agent.head.clone(),
        };
        let reason = no_change(said);
        // One that came to lack nothing meanwhile is on its way with what was seen of it then.
        let named = |claim: &&mut Claimed| repair.claims.contains(&claim.task) && !claim.offered;
        for claim in agent.claims.iter_mut().filter(named) {
            claim.spans.push(span.clone());
            claim.was_mended(held.before.as_ref(), agent.stop.as_ref());
            claim.work = None;
            claim.missing.clear();
            if reason.is_some() {
                claim.no_change.clone_from(&reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_changing_nothing_is_the_last_line() {
        for (said, reason) in [
            ("No change needed: it is so", Some("it is so")),
            (
                "I looked.\n\n**No change needed: done before.**\n",
                Some("done before."),
            ),
            ("- no change needed: `a` is there", Some("`a` is there")),
            ("No change needed:", None),
            ("No change needed: x\nBut I did", None),
            ("Done.", None),
            ("", None),
        ] {
            assert_eq!(no_change(said).as_deref(), reason, "{said}");
        }
    }
}
