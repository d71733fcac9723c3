//! Stacks of the merge train: built in memory, landed by compare-and-set alone.

use std::collections::BTreeSet;

use orchestrator::worktree::{Landing, STACKS_KEPT, Stack, StackPart, Stacked};
use proptest::prelude::*;

use super::*;

fn part(commit: &CommitId) -> StackPart<'static> {
    StackPart {
        commit: commit.clone(),
        message: format!("Merge {}", commit.short()),
        edits: Vec::new(),
        only_look: false,
    }
}

/// Ticks `- [ ] WHAT` in the list.
fn tick(what: &'static str) -> FileEdit<'static> {
    FileEdit::new("WORKER_1_TASK_LIST.md", move |bytes| {
        let text = std::str::from_utf8(bytes?).ok()?;
        let (open, done) = (format!("- [ ] {what}"), format!("- [x] {what}"));
        text.contains(&open)
            .then(|| text.replace(&open, &done).into_bytes())
    })
}

impl World {
    /// The agent writes a file and its commit is in the store.
    fn work(&self, agent: &str, path: &str, content: &str) -> CommitId {
        let checkout = self.checkout(agent);
        commit(&checkout, path, content);
        self.import(agent).unwrap()
    }

    fn stack(&self, number: u64, commits: &[&CommitId]) -> Stack {
        let parts: Vec<StackPart<'_>> = commits.iter().map(|commit| part(commit)).collect();
        self.store.build_stack(number, &[], &parts).unwrap()
    }

    fn references(&self) -> BTreeSet<String> {
        let store = self.store.path().to_owned();
        let format = "--format=%(refname)";
        let all = git(&store, &["for-each-ref", format]);
        all.lines().map(str::to_owned).collect()
    }

    fn first_parents(&self, tip: &CommitId) -> Vec<String> {
        let arguments = ["log", "--first-parent", "--format=%s", tip.as_str()];
        let log = git(self.store.path(), &arguments);
        log.lines().map(str::to_owned).collect()
    }
}

fn merged(stack: &Stack) -> Vec<bool> {
    let merged = |part: &Stacked| matches!(part, Stacked::Merged { .. });
    stack.parts.iter().map(merged).collect()
}

#[test]
fn a_stack_moves_nothing_until_it_lands() {
    let world = World::new();
    let one = world.work("worker-1", "one.txt", "1\n");
    let two = world.work("worker-2", "two.txt", "2\n");
    let before = world.store.branch_head().unwrap();
    let stack = world.stack(1, &[&one, &two]);
    assert_eq!(merged(&stack), [true, true]);
    assert_eq!(stack.base, before);
    assert_eq!(world.store.branch_head().unwrap(), before);
    assert!(world.references().contains("refs/orchestrator/train/1"));
    let landed = world.store.land(&stack.base, &stack.top).unwrap();
    let head = stack.top.clone();
    assert_eq!(landed, Landing::Landed { head });
    assert_eq!(world.read("one.txt").unwrap(), "1\n");
    assert_eq!(world.read("two.txt").unwrap(), "2\n");
    let subjects = world.first_parents(&stack.top);
    let merge = |commit: &CommitId| format!("Merge {}", commit.short());
    assert_eq!(subjects, [merge(&two), merge(&one), "first".to_owned()]);
}

#[test]
fn what_conflicts_is_left_out_and_the_others_are_stacked_on() {
    let world = World::new();
    let one = world.work("worker-1", "shared.txt", "one\n2\n3\n4\n5\n");
    let two = world.work("worker-2", "shared.txt", "two\n2\n3\n4\n5\n");
    let three = world.work("worker-3", "three.txt", "3\n");
    let nowhere = CommitId::new("0123456789012345678901234567890123456789");
    let stack = world.stack(7, &[&one, &two, &nowhere, &three]);
    assert_eq!(merged(&stack), [true, false, false, true]);
    let Stacked::Conflict { files } = &stack.parts[1] else {
        panic!("{stack:?}");
    };
    assert_eq!(files[0].path, "shared.txt");
    assert!(files[0].hunks.contains("<<<<<<< ours\none\n"), "{files:?}");
    assert!(matches!(&stack.parts[2], Stacked::Failed { .. }));
    world.store.land(&stack.base, &stack.top).unwrap();
    assert_eq!(world.read("shared.txt").unwrap(), "one\n2\n3\n4\n5\n");
    assert_eq!(world.read("three.txt").unwrap(), "3\n");
    // A stack of nothing is the branch, and what is in it is up to date.
    let again = world.stack(8, &[&one, &three]);
    assert!(
        again
            .parts
            .iter()
            .all(|part| matches!(part, Stacked::UpToDate))
    );
    assert_eq!(again.base, again.top);
}

#[test]
fn ticks_land_with_the_work_that_claims_them_and_with_nothing_else() {
    let world = World::new();
    let list = "- [ ] a\n- [ ] b\n- [ ] c\n- [ ] d\n";
    world.person_pushes("WORKER_1_TASK_LIST.md", list);
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let one = world.work("worker-1", "shared.txt", "one\n2\n3\n4\n5\n");
    let two = world.work("worker-2", "shared.txt", "two\n2\n3\n4\n5\n");
    let three = world.work(
        "worker-3",
        "WORKER_1_TASK_LIST.md",
        &format!("{list}- [ ] e\n"),
    );
    let with = |commit: &CommitId, what| StackPart {
        edits: vec![tick(what)],
        ..part(commit)
    };
    let parts = [with(&one, "a"), with(&two, "b"), with(&three, "c")];
    let stack = world.store.build_stack(1, &[tick("d")], &parts).unwrap();
    assert_eq!(merged(&stack), [true, false, true]);
    world.store.land(&stack.base, &stack.top).unwrap();
    let ticked = "- [x] a\n- [ ] b\n- [x] c\n- [x] d\n- [ ] e\n";
    assert_eq!(world.read("WORKER_1_TASK_LIST.md").unwrap(), ticked);
    // Its commit is there already: only the tick is new, and it is not said to be merged.
    let parts = [with(&one, "b")];
    let stack = world.store.build_stack(2, &[], &parts).unwrap();
    assert!(matches!(stack.parts[0], Stacked::UpToDate));
    assert_ne!(stack.base, stack.top);
    world.store.land(&stack.base, &stack.top).unwrap();
    assert!(
        world
            .read("WORKER_1_TASK_LIST.md")
            .unwrap()
            .contains("- [x] b")
    );
}

#[test]
fn what_is_only_looked_for_is_ticked_if_it_is_there_and_never_merged() {
    let world = World::new();
    let list = "- [ ] a\n- [ ] b\n";
    world.person_pushes("WORKER_1_TASK_LIST.md", list);
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let there = world.work("worker-1", "one.txt", "1\n");
    let absent = world.work("worker-2", "two.txt", "2\n");
    let first = world.stack(1, &[&there]);
    world.store.land(&first.base, &first.top).unwrap();
    let look = |commit: &CommitId, what| StackPart {
        edits: vec![tick(what)],
        only_look: true,
        ..part(commit)
    };
    let parts = [look(&absent, "b"), look(&there, "a")];
    let stack = world.store.build_stack(2, &[], &parts).unwrap();
    assert!(matches!(stack.parts[0], Stacked::Absent), "{stack:?}");
    assert!(matches!(stack.parts[1], Stacked::UpToDate), "{stack:?}");
    world.store.land(&stack.base, &stack.top).unwrap();
    let ticked = world.read("WORKER_1_TASK_LIST.md").unwrap();
    assert_eq!(ticked, "- [x] a\n- [ ] b\n");
    assert_eq!(world.read("two.txt"), None);
}

#[test]
fn a_branch_that_has_moved_is_not_moved_back() {
    let world = World::new();
    let one = world.work("worker-1", "one.txt", "1\n");
    let stack = world.stack(1, &[&one]);
    world.person_pushes("theirs.txt", "theirs\n");
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let theirs = world.store.branch_head().unwrap();
    let head = theirs.clone();
    let landed = world.store.land(&stack.base, &stack.top).unwrap();
    assert_eq!(landed, Landing::Moved { head });
    assert_eq!(world.store.branch_head().unwrap(), theirs);
    // Built again on top of it, it lands, twice, and also when the branch has moved on since.
    let again = world.stack(2, &[&one]);
    assert_eq!(again.base, theirs);
    let head = again.top.clone();
    for _ in 0..2 {
        let landed = world.store.land(&again.base, &again.top).unwrap();
        let head = head.clone();
        assert_eq!(landed, Landing::Landed { head });
    }
    world.person_pushes("more.txt", "more\n");
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let beyond = world.store.branch_head().unwrap();
    let landed = world.store.land(&again.base, &again.top).unwrap();
    assert_eq!(landed, Landing::Landed { head: beyond });
}

#[test]
fn a_commit_that_does_not_contain_the_branch_never_becomes_it() {
    let world = World::new();
    let one = world.work("worker-1", "one.txt", "1\n");
    let two = world.work("worker-2", "two.txt", "2\n");
    let stack = world.stack(1, &[&one]);
    for (from, to) in [(&stack.top, &two), (&stack.base, &stack.base), (&two, &one)] {
        let error = world.store.land(from, to).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    }
    assert_eq!(world.store.branch_head().unwrap(), stack.base);
}

#[test]
fn old_stacks_go_and_no_commit_of_an_agent_goes_with_them() {
    let world = World::new();
    let one = world.work("worker-1", "one.txt", "1\n");
    world.stack(1, &[&one]);
    let two = world.work("worker-2", "two.txt", "2\n");
    world.stack(2, &[&one, &two]);
    // The agent's own reference is gone, as nothing of ours would do: the stack is kept for it.
    let store = world.store.path().to_owned();
    git(&store, &["update-ref", "-d", "refs/workers/worker-2/head"]);
    world.stack(STACKS_KEPT, &[&one]);
    assert!(world.references().contains("refs/orchestrator/train/1"));
    world.stack(STACKS_KEPT + 2, &[&one]);
    let left: BTreeSet<String> = world.references();
    assert!(!left.contains("refs/orchestrator/train/1"), "{left:?}");
    assert!(left.contains("refs/orchestrator/train/2"), "{left:?}");
    assert!(left.contains("refs/workers/worker-1/head"), "{left:?}");
    git(&store, &["cat-file", "-e", two.as_str()]);
}

/// Two trains would be wrong, and a fetch beside one is daily life: whoever is first, nothing that
/// was ever the branch is lost from it.
#[test]
fn landing_races_with_the_remote_and_nothing_is_lost() {
    let world = World::new();
    let mut expected = BTreeSet::new();
    for round in 0..8_u64 {
        let file = format!("one-{round}.txt");
        let one = world.work("worker-1", &file, "1\n");
        let theirs = format!("theirs-{round}.txt");
        world.person_pushes(&theirs, "t\n");
        world.store.fetch().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| world.store.integrate_remote().unwrap());
            scope.spawn(|| {
                for number in 0.. {
                    let stack = world.stack(round * 100 + number, &[&one]);
                    let landed = world.store.land(&stack.base, &stack.top).unwrap();
                    if matches!(landed, Landing::Landed { .. }) {
                        return;
                    }
                }
            });
        });
        expected.extend([file, theirs]);
        for path in &expected {
            assert!(
                world.read(path).is_some(),
                "{path} is lost in round {round}"
            );
        }
        world.store.push().unwrap();
    }
    let log = git(
        world.store.path(),
        &["reflog", "show", "refs/heads/main", "--format=%H"],
    );
    let moves: Vec<&str> = log.lines().collect();
    for pair in moves.windows(2) {
        let arguments = ["merge-base", "--is-ancestor", pair[1], pair[0]];
        git(world.store.path(), &arguments);
    }
}

/// What may happen to the branch, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Work(u8, u8),
    Build(u8),
    Land(u8),
    Remote,
    Tick,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, 0_u8..4).prop_map(|(agent, file)| Step::Work(agent, file)),
        3 => (0_u8..8).prop_map(Step::Build),
        3 => any::<u8>().prop_map(Step::Land),
        1 => Just(Step::Remote),
        1 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any stack may be landed at any time, old ones as well: the branch only ever grows.
    #[test]
    fn the_branch_only_grows(steps in prop::collection::vec(any_step(), 1..20)) {
        let world = World::new();
        let mut heads: Vec<CommitId> = Vec::new();
        let mut stacks: Vec<Stack> = Vec::new();
        let mut tips = vec![world.store.branch_head().unwrap()];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Work(agent, file) => {
                    let agent = format!("worker-{}", agent + 1);
                    let path = format!("file-{file}.txt");
                    heads.push(world.work(&agent, &path, &format!("{agent} {number}\n")));
                }
                Step::Build(mask) => {
                    let chosen: Vec<&CommitId> = heads
                        .iter()
                        .rev()
                        .enumerate()
                        .filter(|(place, _)| *place < 8 && mask & (1 << place) != 0)
                        .map(|(_, head)| head)
                        .collect();
                    stacks.push(world.stack(number as u64, &chosen));
                }
                Step::Land(which) if !stacks.is_empty() => {
                    let stack = &stacks[usize::from(which) % stacks.len()];
                    let before = world.store.branch_head().unwrap();
                    let landed = world.store.land(&stack.base, &stack.top);
                    let after = world.store.branch_head().unwrap();
                    match landed {
                        Ok(Landing::Landed { head }) => prop_assert_eq!(head, after),
                        Ok(Landing::Moved { head }) => {
                            prop_assert_eq!(&head, &after);
                            prop_assert_eq!(before, after);
                        }
                        Err(error) => {
                            prop_assert_eq!(error.kind, ErrorKind::Refused);
                            prop_assert_eq!(&stack.base, &stack.top);
                        }
                    }
                }
                Step::Land(_) => {}
                Step::Remote => {
                    world.person_pushes(&format!("remote-{number}.txt"), "r\n");
                    world.store.fetch().unwrap();
                    world.store.integrate_remote().unwrap();
                }
                Step::Tick => {
                    let head = world.store.branch_head().unwrap();
                    let line = FileEdit::replace("ticks.txt", format!("{number}\n").into_bytes());
                    world.store.merge(&head, "Tick finished tasks", &[line]).unwrap();
                }
            }
            tips.push(world.store.branch_head().unwrap());
        }
        for pair in tips.windows(2) {
            let arguments = ["merge-base", "--is-ancestor", pair[0].as_str(), pair[1].as_str()];
            git(world.store.path(), &arguments);
        }
    }
}
