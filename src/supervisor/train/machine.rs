//! The train by itself: what is tried next, and what a result means.
//!
//! ```text
//!  waiting ─batch─▶ Building ─▶ Testing ─green─▶ Landing ─▶ landed
//!                      ▲           │ red            │ the branch has moved
//!                      │           ▼                └──────▶ Building
//!                      │      TestingBase: was it red before?
//!                      │           ├─ on all the same gates ─▶ Landing: it makes nothing worse
//!                      │           ├─ one candidate ─▶ red
//!                      └─ halves ──┘  several
//! ```
//!
//! A candidate that conflicts with what lies below it in the stack, and not with the branch, is not
//! blamed: whether that lands is not known yet. It is tried by itself afterwards.

use std::collections::{BTreeSet, VecDeque};

use super::ended::{Colour, Sorted, again_after, colour, red};
use super::order::next_batch;
use super::state::{Built, Run, Stall, Step, Tested, Train};
use super::verdict::Verdict;
use crate::model::{AgentId, CommitId, GateRecord, Timestamp};
use crate::supervisor::input::{GatesOutcome, LandOutcome, StackOutcome};
use crate::supervisor::state::Candidate;

/// Times in a row that the branch moved under a stack, before it is let alone for a while.
const MOVES: u32 = 3;
const AGAIN: &str = "merge train: again";

/// What the configuration says about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) batch: usize,
    /// Names of the gates; none: what merges may land.
    pub(super) gates: &'a [String],
}

/// What the train wants done, or has found out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Build {
        stack: u64,
        candidates: Vec<Candidate>,
    },
    RunGates {
        stack: u64,
        commit: CommitId,
        all: bool,
    },
    Land {
        stack: u64,
        from: CommitId,
        to: CommitId,
    },
    /// The branch is at `head`. `by`: if all that is new is this agent's.
    Landed {
        head: CommitId,
        by: Option<AgentId>,
        merged: u32,
    },
    Judged {
        candidate: Candidate,
        verdict: Verdict,
    },
    /// The branch by itself is red; said once until it is green again.
    BranchRed {
        commit: CommitId,
        gates: Vec<GateRecord>,
    },
    BranchGreen,
    /// Said once per stall.
    Stalled {
        reason: String,
    },
}

impl Train {
    /// Takes the next batch out of the line, if nothing is on its way.
    pub(super) fn depart(
        &mut self,
        now: Timestamp,
        rules: Rules<'_>,
        waiting: &mut Vec<Candidate>,
        may: impl Fn(&Candidate) -> bool,
    ) -> Vec<Said> {
        let mut said = Vec::new();
        if self.run.is_some() {
            return said;
        }
        self.put_off.retain(|agent, held| {
            let held = |c: &Candidate| c.agent == *agent && c.commit == held.commit;
            waiting.iter().any(held)
        });
        let put_off = &self.put_off;
        let ready = |candidate: &Candidate| {
            let held = put_off.get(&candidate.agent);
            let held = held.is_some_and(|held| held.commit == candidate.commit && held.until > now);
            !held && may(candidate)
        };
        let mut batch = next_batch(waiting, &self.setbacks, rules.batch, |c| {
            !c.by_hand && ready(c)
        });
        // Behind what may have them, and in the same stack, so that they are tested and land with it.
        let looked_for = next_batch(waiting, &self.setbacks, usize::MAX, |c| {
            c.by_hand && ready(c) && !batch.iter().any(|at| waiting[*at].agent == c.agent)
        });
        batch.extend(looked_for);
        if batch.is_empty() {
            return said;
        }
        let taken: Vec<Candidate> = batch.iter().map(|index| waiting[*index].clone()).collect();
        batch.sort_unstable();
        for index in batch.into_iter().rev() {
            waiting.remove(index);
        }
        self.begin(now, VecDeque::from([taken]), &mut said);
        said
    }

    /// Asks again for what was in flight when the program ended.
    pub(super) fn resume(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        if self.run.as_ref().is_some_and(|run| !run.rests()) {
            self.ask(&mut said);
        }
        said
    }

    /// Tries a step again that could not be done; `at_once`: whatever could not be done may work now.
    pub(super) fn expire(&mut self, now: Timestamp, at_once: bool) -> Vec<Said> {
        let mut said = Vec::new();
        let Some(stall) = self.run.as_mut().and_then(|run| run.stall.as_mut()) else {
            return said;
        };
        if stall.again_at.is_some_and(|at| at <= now || at_once) {
            stall.again_at = None;
            self.ask(&mut said);
        }
        said
    }

    /// When a step that could not be done is tried again, or somebody who was put off.
    pub(super) fn deadline(
        &self,
        waiting: &[Candidate],
        may: impl Fn(&Candidate) -> bool,
    ) -> Option<(Timestamp, String)> {
        if let Some(run) = &self.run {
            let at = run.stall.as_ref()?.again_at?;
            return Some((at, AGAIN.to_owned()));
        }
        let held = |c: &Candidate| {
            let held = self.put_off.get(&c.agent)?;
            (held.commit == c.commit).then_some(held.until)
        };
        let at = waiting.iter().filter(|c| may(c)).filter_map(held).min()?;
        Some((at, AGAIN.to_owned()))
    }

    /// The branch keeps moving under a stack that takes long to test.
    pub(in crate::supervisor) fn wants_peace(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.moved >= MOVES)
    }

    pub(super) fn on_built(
        &mut self,
        now: Timestamp,
        rules: Rules<'_>,
        waiting: &mut Vec<Candidate>,
        stack: u64,
        outcome: StackOutcome,
    ) -> Vec<Said> {
        let mut said = Vec::new();
        let Some(run) = self.in_flight(stack, |step| *step == Step::Building) else {
            return said;
        };
        let (base, top, members) = match outcome {
            StackOutcome::Failed { reason } => {
                let reason = format!("the stack could not be built: {reason}");
                self.stall(now, reason, &mut said);
                return said;
            }
            StackOutcome::Built { base, top, members } => (base, top, members),
        };
        let candidates = run.segments.pop_front().unwrap_or_default();
        let mut sorted = Sorted::of(candidates, &members);
        if !sorted.later.is_empty() {
            run.segments.push_front(std::mem::take(&mut sorted.later));
        }
        let kept = std::mem::take(&mut sorted.kept);
        if !kept.is_empty() {
            run.segments.push_front(kept.clone());
        }
        run.stall = None;
        let whole = sorted.conflicts.is_empty() && sorted.failed.is_empty();
        let built = Built {
            base,
            top,
            up_to_date: sorted.up_to_date,
        };
        for candidate in sorted.absent {
            if whole {
                let on = built.top.clone();
                self.judged(now, candidate, Verdict::NotMerged { on }, &mut said);
            } else {
                // It may be in what could not be merged.
                waiting.push(candidate);
            }
        }
        for (candidate, files) in sorted.conflicts {
            self.judged(now, candidate, Verdict::Conflict { files }, &mut said);
        }
        for (candidate, reason) in sorted.failed {
            self.put_off(now, candidate, reason, waiting, &mut said);
        }
        if kept.is_empty() {
            self.next(now, &mut said);
            return said;
        }
        self.built(now, rules, built, &kept, &mut said);
        said
    }

    /// The stack is there: it is tested, or lands, or adds nothing.
    fn built(
        &mut self,
        now: Timestamp,
        rules: Rules<'_>,
        built: Built,
        kept: &[Candidate],
        said: &mut Vec<Said>,
    ) {
        if built.base != built.top {
            let step = if rules.gates.is_empty() {
                let gates = Vec::new();
                Step::Landing { built, gates }
            } else {
                let all = self.branch_red.is_some();
                Step::Testing { built, all }
            };
            self.step(now, step, said);
            return;
        }
        let known = self.tested.as_ref().filter(|t| t.commit == built.base);
        let claimed = kept.iter().any(|candidate| !candidate.tasks.is_empty());
        // What is claimed done is proven on the branch as it is; nothing else needs it.
        if known.is_none() && claimed && !rules.gates.is_empty() {
            self.step(now, Step::Testing { built, all: true }, said);
            return;
        }
        let gates = known.map_or_else(Vec::new, |tested| tested.gates.clone());
        self.landed(now, &built, &built.top, &gates, said);
    }

    pub(super) fn on_gates(
        &mut self,
        now: Timestamp,
        rules: Rules<'_>,
        waiting: &mut Vec<Candidate>,
        stack: u64,
        commit: &CommitId,
        outcome: GatesOutcome,
    ) -> Vec<Said> {
        let mut said = Vec::new();
        let asked = |step: &Step| match step {
            Step::Testing { built, .. } => built.top == *commit,
            Step::TestingBase { built, .. } => built.base == *commit,
            Step::Building | Step::Landing { .. } => false,
        };
        let Some(run) = self.in_flight(stack, asked) else {
            return said;
        };
        let step = run.step.clone();
        let (colour, gates) = match outcome {
            GatesOutcome::Failed { reason } => (Colour::Unknown(reason), Vec::new()),
            GatesOutcome::Ran { gates } => {
                let all = !matches!(step, Step::Testing { all: false, .. });
                (colour(rules.gates, &gates, all), gates)
            }
        };
        if let Colour::Unknown(reason) = colour {
            let reason = format!("the gates could not be run: {reason}");
            self.stall(now, reason, &mut said);
            return said;
        }
        run.stall = None;
        let tested = Tested {
            commit: commit.clone(),
            gates: gates.clone(),
        };
        match step {
            Step::TestingBase { built, gates: top } => {
                self.tested = Some(tested);
                self.weigh(now, rules, waiting, (built, top), &mut said);
            }
            Step::Testing { built, .. } if built.top == built.base => {
                self.tested = Some(tested);
                self.colour_of_branch(now, &mut said);
                self.landed(now, &built, &built.top, &gates, &mut said);
            }
            Step::Testing { built, .. } if colour == Colour::Green => {
                self.step(now, Step::Landing { built, gates }, &mut said);
            }
            Step::Testing { built, .. } => {
                self.weigh(now, rules, waiting, (built, gates), &mut said);
            }
            Step::Building | Step::Landing { .. } => {}
        }
        said
    }

    /// The stack is red: is it the candidates' fault, and whose?
    fn weigh(
        &mut self,
        now: Timestamp,
        rules: Rules<'_>,
        waiting: &mut Vec<Candidate>,
        (built, gates): (Built, Vec<GateRecord>),
        said: &mut Vec<Said>,
    ) {
        let Some(base) = self.tested.as_ref().filter(|t| t.commit == built.base) else {
            self.step(now, Step::TestingBase { built, gates }, said);
            return;
        };
        let before: BTreeSet<String> = red(&base.gates).map(|gate| gate.name.clone()).collect();
        let own: Vec<GateRecord> = red(&gates)
            .filter(|gate| !before.contains(&gate.name))
            .cloned()
            .collect();
        self.colour_of_branch(now, said);
        if own.is_empty() && colour(rules.gates, &gates, true) != Colour::Red {
            // What comes behind the first red gate may be green without it.
            self.step(now, Step::Testing { built, all: true }, said);
            return;
        }
        if own.is_empty() {
            // To hold it back would hold up everything until somebody mends the branch, and that
            // has to come through here as well.
            self.step(now, Step::Landing { built, gates }, said);
            return;
        }
        let Some(run) = &mut self.run else {
            return;
        };
        let members = run.segments.pop_front().unwrap_or_default();
        // What was only looked for is not to blame, and is looked for again when that is mended.
        let (looked_for, mut members): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|c| c.by_hand);
        waiting.extend(looked_for);
        if members.len() > 1 {
            run.halved = true;
            let second = members.split_off(members.len().div_ceil(2));
            run.segments.push_front(second);
            run.segments.push_front(members);
        } else if let Some(candidate) = members.pop() {
            self.judged(now, candidate, Verdict::Red { gates: own }, said);
        }
        self.next(now, said);
    }

    pub(super) fn on_landed(
        &mut self,
        now: Timestamp,
        stack: u64,
        outcome: LandOutcome,
    ) -> Vec<Said> {
        let mut said = Vec::new();
        let Some(run) = self.in_flight(stack, |step| matches!(step, Step::Landing { .. })) else {
            return said;
        };
        let Step::Landing { built, gates } = run.step.clone() else {
            return said;
        };
        match outcome {
            LandOutcome::Failed { reason } => {
                let reason = format!("the branch could not be moved: {reason}");
                self.stall(now, reason, &mut said);
            }
            LandOutcome::Moved { .. } => {
                let segments = std::mem::take(&mut run.segments);
                let (began, moved, halved) = (run.began, run.moved + 1, run.halved);
                self.begin(now, segments, &mut said);
                if let Some(run) = &mut self.run {
                    (run.began, run.moved, run.halved) = (began, moved, halved);
                }
            }
            LandOutcome::Landed { head } => {
                if !gates.is_empty() {
                    self.tested = Some(Tested {
                        commit: built.top.clone(),
                        gates: gates.clone(),
                    });
                    self.colour_of_branch(now, &mut said);
                }
                self.landed(now, &built, &head, &gates, &mut said);
            }
        }
        said
    }

    /// The run if this is the result it waits for.
    fn in_flight(&mut self, stack: u64, step: impl Fn(&Step) -> bool) -> Option<&mut Run> {
        let run = self.run.as_mut()?;
        (run.stack == stack && !run.rests() && step(&run.step)).then_some(run)
    }

    /// What is left of the run is tried; nothing left: the run is over.
    pub(super) fn next(&mut self, now: Timestamp, said: &mut Vec<Said>) {
        let Some(run) = self.run.take() else {
            return;
        };
        let mut segments = run.segments;
        segments.retain(|segment| !segment.is_empty());
        if !segments.is_empty() {
            self.begin(now, segments, said);
        }
        if let Some(next) = &mut self.run {
            next.halved = run.halved;
        }
    }

    fn begin(&mut self, now: Timestamp, segments: VecDeque<Vec<Candidate>>, said: &mut Vec<Said>) {
        self.stacks += 1;
        self.run = Some(Run {
            stack: self.stacks,
            segments,
            step: Step::Building,
            since: now,
            began: now,
            moved: 0,
            halved: false,
            stall: None,
        });
        self.ask(said);
    }

    fn step(&mut self, now: Timestamp, step: Step, said: &mut Vec<Said>) {
        if let Some(run) = &mut self.run {
            run.step = step;
            run.since = now;
            self.ask(said);
        }
    }

    fn ask(&self, said: &mut Vec<Said>) {
        let Some(run) = &self.run else {
            return;
        };
        let stack = run.stack;
        said.push(match &run.step {
            Step::Building => Said::Build {
                stack,
                candidates: run.segments.front().cloned().unwrap_or_default(),
            },
            Step::Testing { built, all } => Said::RunGates {
                stack,
                commit: built.top.clone(),
                all: *all,
            },
            Step::TestingBase { built, .. } => Said::RunGates {
                stack,
                commit: built.base.clone(),
                all: true,
            },
            Step::Landing { built, .. } => Said::Land {
                stack,
                from: built.base.clone(),
                to: built.top.clone(),
            },
        });
    }

    /// The step could not be done: it is tried again, later and later.
    fn stall(&mut self, now: Timestamp, reason: String, said: &mut Vec<Said>) {
        let Some(run) = &mut self.run else {
            return;
        };
        let before = run.stall.take();
        let tries = before.as_ref().map_or(0, |stall| stall.tries) + 1;
        if tries == 1 {
            said.push(Said::Stalled {
                reason: reason.clone(),
            });
        }
        run.stall = Some(Stall {
            reason,
            since: before.map_or(now, |stall| stall.since),
            tries,
            again_at: Some(now + again_after(tries)),
        });
    }
}

impl Run {
    /// It waits for a time; nothing is in flight.
    pub(super) fn rests(&self) -> bool {
        self.stall
            .as_ref()
            .is_some_and(|stall| stall.again_at.is_some())
    }
}
