//! The train in a small world: commits are sets, gates are functions of a set, and everything that
//! is asked for may fail, come twice, or be cut off by a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::machine::{Rules, Said};
use super::order::{MAX_SETBACKS, SETBACK};
use super::state::Train;
use super::verdict::Verdict;
use crate::model::{AgentId, CommitId, GateOutcome, GateRecord, TaskId, Timestamp};
use crate::supervisor::input::{
    GatesOutcome, LandOutcome, MergeOutcome, StackMember, StackOutcome,
};
use crate::supervisor::state::Candidate;

type Contents = BTreeSet<u32>;

/// The number of the manager's commit.
const MANAGERS: u32 = 100;

const GATES: [&str; 2] = ["lint", "test"];

/// What is true of the candidates, by number.
#[derive(Clone, Debug, Default)]
struct Truth {
    /// Red on `test`, wherever it is merged.
    bad: BTreeSet<u32>,
    /// Red on `test` only together.
    quarrel: BTreeSet<(u32, u32)>,
    conflicts_with_branch: BTreeSet<u32>,
    conflicts: BTreeSet<(u32, u32)>,
    /// `lint` is red on the branch from the beginning, and this one mends it.
    branch_red: bool,
    mender: Option<u32>,
}

impl Truth {
    /// The gates of `names` that are red.
    fn red(&self, names: &[String], contents: &Contents) -> BTreeSet<&'static str> {
        let mut red = BTreeSet::new();
        let mended = self.mender.is_some_and(|n| contents.contains(&n));
        if self.branch_red && !mended {
            red.insert("lint");
        }
        let quarrels = |(a, b): &(u32, u32)| contents.contains(a) && contents.contains(b);
        if !self.bad.is_disjoint(contents) || self.quarrel.iter().any(quarrels) {
            red.insert("test");
        }
        red.retain(|gate| names.iter().any(|name| name == gate));
        red
    }

    fn conflict(&self, number: u32, contents: &Contents) -> bool {
        let other = |(a, b): &(u32, u32)| {
            (*a == number && contents.contains(b)) || (*b == number && contents.contains(a))
        };
        self.conflicts_with_branch.contains(&number) || self.conflicts.iter().any(other)
    }

    fn merges(&self, number: u32) -> bool {
        let in_pair = |(a, b): &(u32, u32)| *a == number || *b == number;
        !self.conflicts_with_branch.contains(&number) && !self.conflicts.iter().any(in_pair)
    }

    /// Nothing whatever is wrong with it.
    fn is_plain(&self, number: u32) -> bool {
        let in_pair = |(a, b): &(u32, u32)| *a == number || *b == number;
        !self.bad.contains(&number)
            && !self.conflicts_with_branch.contains(&number)
            && !self.quarrel.iter().chain(&self.conflicts).any(in_pair)
    }
}

/// What may go wrong, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It is done, and the program dies before it hears of it.
    CrashAfter,
    CrashBefore,
    Fails,
    MemberFails,
    GateBreaks,
    /// Somebody else moves the branch first.
    Moves,
    Twice,
}

struct World {
    truth: Truth,
    /// What comes with a commit beside itself.
    brings: BTreeMap<u32, Contents>,
    gates: Vec<String>,
    batch: usize,
    now: Timestamp,
    train: Train,
    waiting: Vec<Candidate>,
    commits: BTreeMap<CommitId, Contents>,
    branch: CommitId,
    asked: VecDeque<Said>,
    verdicts: BTreeMap<u32, Vec<&'static str>>,
    gate_runs: u32,
    moves: u32,
    branch_red_told: u32,
    made: u32,
}

fn number(commit: &CommitId) -> u32 {
    commit.as_str().trim_start_matches('w').parse().unwrap()
}

fn candidate(number: u32, since: Timestamp) -> Candidate {
    Candidate {
        agent: AgentId::worker(number),
        commit: CommitId::new(format!("w{number}")),
        title: format!("task {number}"),
        since,
        tasks: vec![TaskId::new(format!("t{number}"))],
        by_hand: false,
        asked: 0,
    }
}

impl World {
    fn new(truth: Truth, gates: usize, batch: usize) -> Self {
        let base = CommitId::new("base");
        Self {
            truth,
            brings: BTreeMap::new(),
            gates: GATES[2 - gates..]
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            batch,
            now: Timestamp(0),
            train: Train::default(),
            waiting: Vec::new(),
            commits: BTreeMap::from([(base.clone(), Contents::new())]),
            branch: base,
            asked: VecDeque::new(),
            verdicts: BTreeMap::new(),
            gate_runs: 0,
            moves: 0,
            branch_red_told: 0,
            made: 0,
        }
    }

    /// The manager comes with its own commit and `merged`; it was asked for 1 to `asked`.
    fn manager_merged(&mut self, merged: &Contents, asked: u32) {
        self.brings.insert(MANAGERS, merged.clone());
        let looked_for = (1..=asked).map(|id| Candidate {
            by_hand: true,
            ..candidate(id, self.now)
        });
        self.waiting.extend(looked_for);
        self.waiting.push(Candidate {
            agent: AgentId::manager(),
            ..candidate(MANAGERS, self.now)
        });
    }

    fn arrive(&mut self, number: u32) {
        self.waiting.push(candidate(number, self.now));
    }

    fn step(&mut self, step: impl FnOnce(&mut Train, Rules<'_>, &mut Vec<Candidate>) -> Vec<Said>) {
        let gates = self.gates.clone();
        let rules = Rules {
            batch: self.batch,
            gates: &gates,
        };
        let said = step(&mut self.train, rules, &mut self.waiting);
        self.train.check().unwrap();
        for said in said {
            self.hear(said);
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Build { .. } | Said::RunGates { .. } | Said::Land { .. } => {
                self.asked.push_back(said);
                assert_eq!(self.asked.len(), 1, "two things at once: {:?}", self.asked);
            }
            Said::Landed { head, .. } => assert!(self.commits.contains_key(&head)),
            Said::BranchRed { gates, .. } => {
                self.branch_red_told += 1;
                assert!(self.truth.branch_red && gates.iter().all(|gate| gate.name == "lint"));
            }
            Said::BranchGreen => assert!(self.truth.mender.is_some()),
            Said::Stalled { reason } => assert!(!reason.is_empty()),
            Said::Judged { candidate, verdict } => self.judge(&candidate, &verdict),
        }
    }

    fn judge(&mut self, candidate: &Candidate, verdict: &Verdict) {
        let id = number(&candidate.commit);
        let inside = self.commits[&self.branch].contains(&id);
        assert_eq!(candidate.tasks, [TaskId::new(format!("t{id}"))]);
        match verdict {
            Verdict::Landed { .. } | Verdict::UpToDate { .. } => assert!(inside, "{id}"),
            Verdict::Red { gates } => {
                assert!(!inside && !gates.is_empty());
                let with: Contents = self.commits[&self.branch]
                    .iter()
                    .copied()
                    .chain([id])
                    .collect();
                let own = self.truth.red(&self.gates, &with);
                let before = self.truth.red(&self.gates, &self.commits[&self.branch]);
                let blamed = |gate: &GateRecord| {
                    own.contains(gate.name.as_str()) && !before.contains(gate.name.as_str())
                };
                assert!(gates.iter().all(blamed), "{id} is blamed for {gates:?}");
            }
            Verdict::NotMerged { .. } => assert!(candidate.by_hand && !inside, "{id}"),
            Verdict::Conflict { .. } => {
                assert!(!inside);
                assert!(self.truth.conflict(id, &self.commits[&self.branch]), "{id}");
            }
            // It is still there, and is tried again.
            Verdict::Failed { .. } => return,
        }
        self.verdicts.entry(id).or_default().push(verdict.words().0);
    }

    fn commit(&mut self, contents: Contents) -> CommitId {
        self.made += 1;
        let id = CommitId::new(format!("m{}", self.made));
        self.commits.insert(id.clone(), contents);
        id
    }

    /// Does what was asked for, if anything was.
    fn carry_out(&mut self, fault: Fault) -> bool {
        let Some(asked) = self.asked.pop_front() else {
            return false;
        };
        if fault == Fault::CrashBefore {
            self.crash();
            return true;
        }
        match asked {
            Said::Build { stack, candidates } => {
                let outcome = self.build(&candidates, fault);
                self.answer(fault, |train, now, rules, waiting| {
                    train.on_built(now, rules, waiting, stack, outcome.clone())
                });
            }
            Said::RunGates { stack, commit, all } => {
                let outcome = self.run_gates(&commit, all, fault);
                self.answer(fault, |train, now, rules, waiting| {
                    train.on_gates(now, rules, waiting, stack, &commit, outcome.clone())
                });
            }
            Said::Land { stack, from, to } => {
                let outcome = self.land(&from, &to, fault);
                self.answer(fault, |train, now, _, _| {
                    train.on_landed(now, stack, outcome.clone())
                });
            }
            other => panic!("{other:?} is nothing to do"),
        }
        true
    }

    fn answer(
        &mut self,
        fault: Fault,
        tell: impl Fn(&mut Train, Timestamp, Rules<'_>, &mut Vec<Candidate>) -> Vec<Said>,
    ) {
        if fault == Fault::CrashAfter {
            return self.crash();
        }
        let now = self.now;
        self.step(|train, rules, waiting| tell(train, now, rules, waiting));
        if fault == Fault::Twice {
            let before = (self.train.clone(), self.waiting.clone());
            self.step(|train, rules, waiting| tell(train, now, rules, waiting));
            assert_eq!(before, (self.train.clone(), self.waiting.clone()));
        }
    }

    fn build(&mut self, candidates: &[Candidate], fault: Fault) -> StackOutcome {
        let reason = || "told to".to_owned();
        if fault == Fault::Fails {
            return StackOutcome::Failed { reason: reason() };
        }
        let base = self.branch.clone();
        let mut top = base.clone();
        let mut members = Vec::new();
        for candidate in candidates {
            let id = number(&candidate.commit);
            let below = self.commits[&top].clone();
            let outcome = if fault == Fault::MemberFails && members.is_empty() {
                MergeOutcome::Failed { reason: reason() }
            } else if below.contains(&id) {
                MergeOutcome::UpToDate
            } else if candidate.by_hand {
                MergeOutcome::Absent
            } else if self.truth.conflict(id, &below) {
                let files = vec![("a.txt".to_owned(), String::new())];
                MergeOutcome::Conflict { files }
            } else {
                let brings = self.brings.get(&id).into_iter().flatten().copied();
                top = self.commit(below.into_iter().chain([id]).chain(brings).collect());
                MergeOutcome::Merged { head: top.clone() }
            };
            members.push(StackMember {
                agent: candidate.agent.clone(),
                commit: candidate.commit.clone(),
                outcome,
            });
        }
        StackOutcome::Built { base, top, members }
    }

    /// As the real ones: in order, up to the first that does not pass.
    fn run_gates(&mut self, commit: &CommitId, all: bool, fault: Fault) -> GatesOutcome {
        if fault == Fault::Fails {
            let reason = "told to".to_owned();
            return GatesOutcome::Failed { reason };
        }
        self.gate_runs += 1;
        let red = self.truth.red(&self.gates, &self.commits[commit]);
        let mut gates = Vec::new();
        for name in &self.gates {
            let outcome = match () {
                () if fault == Fault::GateBreaks => GateOutcome::Broken,
                () if red.contains(name.as_str()) => GateOutcome::Failed,
                () => GateOutcome::Passed,
            };
            gates.push(GateRecord {
                name: name.clone(),
                outcome,
                flaky: false,
                cached: false,
                commit: commit.clone(),
                tree: commit.to_string(),
                milliseconds: 1,
                log: String::new(),
                tail: String::new(),
            });
            if outcome != GateOutcome::Passed && !all {
                break;
            }
        }
        GatesOutcome::Ran { gates }
    }

    fn land(&mut self, from: &CommitId, to: &CommitId, fault: Fault) -> LandOutcome {
        if fault == Fault::Fails {
            let reason = "told to".to_owned();
            return LandOutcome::Failed { reason };
        }
        if fault == Fault::Moves {
            self.moves += 1;
            let contents = self.commits[&self.branch].clone();
            self.branch = self.commit(contents);
        }
        let head = self.branch.clone();
        if self.commits[to].is_subset(&self.commits[&head]) {
            return LandOutcome::Landed { head };
        }
        if head != *from {
            return LandOutcome::Moved { head };
        }
        // Nothing lands that makes the branch redder than it was.
        let red = |commit| self.truth.red(&self.gates, &self.commits[commit]);
        let (before, after) = (red(from), red(to));
        assert!(after.is_subset(&before), "{before:?} {after:?}");
        self.branch = to.clone();
        LandOutcome::Landed { head: to.clone() }
    }

    /// Only what is stored is left, and a new program begins with it.
    fn crash(&mut self) {
        self.asked.clear();
        let stored = serde_json::to_string(&(&self.train, &self.waiting)).unwrap();
        let (train, waiting) = serde_json::from_str(&stored).unwrap();
        assert_eq!(self.train, train);
        (self.train, self.waiting) = (train, waiting);
        self.step(|train, _, _| train.resume());
    }

    /// As the supervisor has it: nothing is looked for before what may have it can be.
    fn may_depart(&self) -> impl Fn(&Candidate) -> bool + use<> {
        let put_off =
            |c: &Candidate| !c.by_hand && c.agent == AgentId::manager() && self.train.is_put_off(c);
        let held = self.waiting.iter().any(put_off);
        move |candidate| !(candidate.by_hand && held)
    }

    fn depart(&mut self) {
        let now = self.now;
        let may = self.may_depart();
        self.step(|train, rules, waiting| train.depart(now, rules, waiting, may));
    }

    /// Time passes to the next deadline; false if there is none.
    fn wait(&mut self) -> bool {
        let Some((at, why)) = self.train.deadline(&self.waiting, self.may_depart()) else {
            return false;
        };
        assert_eq!(why, "merge train: again");
        self.now = self.now.max(at);
        let now = self.now;
        self.step(|train, _, _| train.expire(now, false));
        true
    }

    /// Until nothing is left to be done.
    fn come_to_rest(&mut self) {
        for _ in 0..5000 {
            self.depart();
            if !self.carry_out(Fault::None) && !self.wait() {
                assert!(
                    self.train.run.is_none() && self.waiting.is_empty(),
                    "{:?}",
                    self.train
                );
                return;
            }
        }
        panic!("no end: {:?}", self.train);
    }

    /// What holds at the end, whatever happened on the way.
    fn check(&self, arrived: u32) {
        let contents = &self.commits[&self.branch];
        for id in 1..=arrived {
            let said = self.verdicts.get(&id).cloned().unwrap_or_default();
            assert_eq!(said.len(), 1, "{id}: {said:?}");
            let landed = matches!(said[0], "landed" | "up to date");
            assert_eq!(landed, contents.contains(&id), "{id}: {said:?}");
            if self.truth.is_plain(id) || self.gates.is_empty() && self.truth.merges(id) {
                assert!(landed, "{id}, with which nothing is wrong, is {}", said[0]);
            }
            if self.truth.conflicts_with_branch.contains(&id) {
                assert_eq!(said[0], "conflict", "{id}");
            }
            if !self.gates.is_empty() && self.truth.bad.contains(&id) {
                assert!(!landed, "{id} is red and landed");
            }
        }
        // Of two that do not go together one is in, if nothing else is wrong with it.
        for (a, b) in &self.truth.conflicts {
            let both = contents.contains(a) && contents.contains(b);
            assert!(!both, "{a} and {b} conflict and are both in");
        }
    }
}

fn truths(n: u32) -> impl Strategy<Value = Truth> {
    let one = move || prop::collection::btree_set(1..=n, 0..4);
    let two = move || {
        let pair = (1..=n, 1..=n).prop_filter("two", |(a, b)| a != b);
        prop::collection::btree_set(pair, 0..3)
    };
    let none = || Just(BTreeSet::new());
    (
        one(),
        two(),
        prop_oneof![none(), prop::collection::btree_set(1..=n, 0..2)],
        two(),
        prop::bool::weighted(0.2),
        prop::option::of(1..=n),
    )
        .prop_map(
            |(bad, quarrel, conflicts_with_branch, conflicts, branch_red, mender)| Truth {
                bad,
                quarrel,
                conflicts_with_branch,
                conflicts,
                branch_red,
                mender,
            },
        )
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::CrashAfter),
        1 => Just(Fault::CrashBefore),
        1 => Just(Fault::Fails),
        1 => Just(Fault::MemberFails),
        1 => Just(Fault::GateBreaks),
        1 => Just(Fault::Moves),
        2 => Just(Fault::Twice),
    ]
}

fn cases() -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES");
    let wanted = wanted.ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(400),
        rng_seed: match wanted {
            Some(_) => RngSeed::Random,
            None => RngSeed::Fixed(11),
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// All come at once and nothing goes wrong: how it ends, and after how many steps.
fn play(
    truth: &Truth,
    gates: usize,
    batch: usize,
    n: u32,
    fault: Option<(u32, Fault)>,
) -> (World, u32) {
    let mut world = World::new(truth.clone(), gates, batch);
    for id in 1..=n {
        world.arrive(id);
        world.now = world.now + Duration::from_secs(1);
    }
    let mut steps = 0;
    loop {
        world.depart();
        let fault = fault
            .filter(|(at, _)| *at == steps)
            .map_or(Fault::None, |(_, fault)| fault);
        steps += 1;
        if !world.carry_out(fault) && !world.wait() {
            return (world, steps);
        }
        assert!(steps < 5000, "no end");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_each_gets_what_it_deserves(
        truth in truths(9),
        gates in 0_usize..3,
        batch in 1_usize..7,
        steps in prop::collection::vec((0_u32..4, faults(), any::<bool>()), 0..80),
    ) {
        let mut world = World::new(truth, gates, batch);
        let mut arrived = 0;
        for (come, fault, wait) in steps {
            for _ in 0..come {
                if arrived < 9 {
                    arrived += 1;
                    world.arrive(arrived);
                }
            }
            world.now = world.now + Duration::from_secs(7);
            world.depart();
            if !world.carry_out(fault) && wait {
                world.wait();
            }
        }
        world.come_to_rest();
        world.check(arrived);
        prop_assert!(world.branch_red_told <= 1 + u32::from(world.truth.mender.is_some()));
    }

    #[test]
    fn bisection_ends_within_two_runs_for_each_candidate(
        truth in truths(9),
        gates in 1_usize..3,
        batch in 1_usize..10,
    ) {
        let (world, _) = play(&truth, gates, batch, 9, None);
        world.check(9);
        let batches = 9_u32.div_ceil(u32::try_from(batch).unwrap());
        // 2n - 1 for the halves of each batch, one for what lay below it, and one for each that was
        // set aside because it did not merge with the others.
        let once = 2 * 9 + 2 * batches + 9;
        // On a red branch all gates are run again where only the first had been.
        let bound = if world.truth.branch_red { 2 * once } else { once };
        prop_assert!(world.gate_runs <= bound, "{} runs", world.gate_runs);
    }

    #[test]
    fn all_green_is_one_run_for_each_batch(batch in 1_u32..10) {
        let (world, _) = play(&Truth::default(), 2, batch as usize, 9, None);
        prop_assert_eq!(world.gate_runs, 9_u32.div_ceil(batch));
    }

    #[test]
    fn what_the_manager_merged_lands_with_its_work_and_nothing_else_does(
        merged in prop::collection::btree_set(1_u32..7, 0..6),
        red: bool,
        gates in 1_usize..3,
        batch in 1_usize..4,
        steps in prop::collection::vec((faults(), any::<bool>()), 0..40),
    ) {
        let bad = red.then_some(MANAGERS).into_iter().collect();
        let mut world = World::new(Truth { bad, ..Truth::default() }, gates, batch);
        world.manager_merged(&merged, 6);
        for (fault, wait) in steps {
            world.now = world.now + Duration::from_secs(7);
            world.depart();
            if !world.carry_out(fault) && wait {
                world.wait();
            }
        }
        world.come_to_rest();
        let own: &[&str] = if red { &["red"] } else { &["landed"] };
        prop_assert_eq!(&world.verdicts[&MANAGERS], own);
        for id in 1..=6 {
            let there = !red && merged.contains(&id);
            let said: &[&str] = if there { &["up to date"] } else { &["not merged"] };
            prop_assert_eq!(&world.verdicts[&id], said, "{}", id);
        }
        let mut wanted = merged;
        wanted.insert(MANAGERS);
        let wanted = if red { Contents::new() } else { wanted };
        prop_assert_eq!(&world.commits[&world.branch], &wanted);
    }

    /// The same in, the same out; and a crash anywhere, before or after what was asked for is done,
    /// changes nothing of how it ends.
    #[test]
    fn a_crash_anywhere_gives_the_same_end(
        truth in truths(6),
        gates in 0_usize..3,
        batch in 1_usize..7,
        after: bool,
    ) {
        let (plain, steps) = play(&truth, gates, batch, 6, None);
        let (again, _) = play(&truth, gates, batch, 6, None);
        prop_assert_eq!(&plain.train, &again.train);
        let fault = if after { Fault::CrashAfter } else { Fault::CrashBefore };
        for at in 0..steps {
            let (crashed, _) = play(&truth, gates, batch, 6, Some((at, fault)));
            crashed.check(6);
            let contents = |world: &World| world.commits[&world.branch].clone();
            prop_assert_eq!(contents(&plain), contents(&crashed), "crash at {}", at);
            // What landed unheard before the crash lands once: it is asked for again, and is there.
            prop_assert_eq!(&plain.verdicts, &crashed.verdicts, "crash at {}", at);
        }
    }
}

#[test]
fn what_the_manager_merged_is_tested_once_together_with_its_commit() {
    let mut world = World::new(Truth::default(), 2, 1);
    world.manager_merged(&BTreeSet::from([1, 2, 3]), 3);
    world.come_to_rest();
    assert_eq!((world.gate_runs, world.train.stacks), (1, 1));
}

#[test]
fn two_that_do_not_go_together_the_older_lands_and_the_newer_is_red() {
    let truth = Truth {
        quarrel: BTreeSet::from([(2, 4)]),
        ..Truth::default()
    };
    let (world, _) = play(&truth, 2, 5, 5, None);
    let said = |id: u32| world.verdicts[&id].clone();
    assert_eq!((said(2), said(4)), (vec!["landed"], vec!["red"]));
    assert_eq!(world.commits[&world.branch], BTreeSet::from([1, 2, 3, 5]));
}

#[test]
fn a_conflict_with_a_neighbour_that_turns_out_red_is_no_conflict() {
    let truth = Truth {
        bad: BTreeSet::from([1]),
        conflicts: BTreeSet::from([(1, 2)]),
        ..Truth::default()
    };
    let (world, _) = play(&truth, 2, 5, 3, None);
    assert_eq!(world.verdicts[&1], ["red"]);
    assert_eq!(world.verdicts[&2], ["landed"]);
    assert_eq!(world.verdicts[&3], ["landed"]);
}

#[test]
fn on_a_red_branch_what_makes_nothing_worse_lands_and_the_branch_is_told_once() {
    let truth = Truth {
        branch_red: true,
        mender: Some(4),
        ..Truth::default()
    };
    let (world, _) = play(&truth, 2, 2, 5, None);
    assert_eq!(world.branch_red_told, 1);
    assert_eq!(world.train.branch_red, None, "number 4 mended it");
    assert_eq!(
        world.commits[&world.branch],
        BTreeSet::from([1, 2, 3, 4, 5])
    );
}

/// Others come faster than the train goes, one at a time, and this one was red again and again.
#[test]
fn nobody_starves() {
    let mut world = World::new(Truth::default(), 0, 1);
    world.train.setbacks.insert(AgentId::worker(1), 1000);
    world.arrive(1);
    let bound = SETBACK * MAX_SETBACKS + Duration::from_secs(120);
    for id in 2..1000 {
        world.arrive(id);
        world.depart();
        world.carry_out(Fault::None);
        world.carry_out(Fault::None);
        world.now = world.now + Duration::from_secs(2);
        if id % 2 == 0 {
            continue;
        }
        world.arrive(1000 + id);
        if world.verdicts.contains_key(&1) {
            assert!(
                world.now.since(Timestamp(0)) > SETBACK,
                "the penalty counts"
            );
            return;
        }
        // Two come for each that goes; whoever came before its place is served first.
        assert!(world.now.since(Timestamp(0)) < bound * 2, "it starves");
    }
    panic!("it starved");
}
