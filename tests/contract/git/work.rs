//! Which commits of a branch are its agent's own work, and what they changed.

use orchestrator::model::{CommitId, Span, Work};
use orchestrator::worktree::sandbox::BroughtUp;

use super::{AgentId, World, bring_up, commit, git, head, inspect, write};

fn span(after: &[&CommitId], head: &CommitId) -> Span {
    Span {
        after: after.iter().map(|id| (*id).clone()).collect(),
        head: Some(head.clone()),
    }
}

fn work(world: &World, spans: &[Span], scope: &[&str]) -> Work {
    let imported = world.store.worker_head(&AgentId::new("worker-1")).unwrap();
    let scope: Vec<String> = scope.iter().map(|&text| text.to_owned()).collect();
    world.store.work(&imported.unwrap(), spans, &scope).unwrap()
}

fn subjects(work: &Work) -> Vec<&str> {
    work.commits.iter().map(|c| c.subject.as_str()).collect()
}

#[test]
fn each_span_has_its_own_commits_also_when_they_have_landed() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let start = head(&checkout);
    let one = commit(&checkout, "one.txt", "1\n");
    let two = commit(&checkout, "dir/two.txt", "2\n");
    world.import("worker-1").unwrap();
    let first = work(&world, &[span(&[&start], &one)], &[]);
    assert_eq!(subjects(&first), ["change one.txt"]);
    assert_eq!(
        (first.commit_count, first.files),
        (1, vec!["one.txt".to_owned()])
    );
    world.merge("worker-1");
    let both = work(&world, &[span(&[&start], &one), span(&[&one], &two)], &[]);
    assert_eq!(subjects(&both), ["change one.txt", "change dir/two.txt"]);
    let nothing = work(&world, &[span(&[&two], &two)], &[]);
    assert_eq!(nothing, Work::default());
}

/// Brought up by a fast-forward, by a merge, and with its list kept: nothing of that is its work.
#[test]
fn what_it_was_brought_up_with_is_not_its_work() {
    let world = World::new();
    let (first, second) = (world.checkout("worker-1"), world.checkout("worker-2"));
    let start = head(&first);
    commit(&second, "theirs.txt", "x\n");
    world.import("worker-2").unwrap();
    world.merge("worker-2");
    let tip = world.store.branch_head().unwrap();
    assert_eq!(bring_up(&first, &tip), BroughtUp::Forwarded);
    world.import("worker-1").unwrap();
    let forwarded = head(&first);
    assert_eq!(
        work(&world, &[span(&[&start], &forwarded)], &[]),
        Work::default()
    );
    let own = commit(&first, "mine.txt", "m\n");
    commit(&second, "more.txt", "y\n");
    world.import("worker-2").unwrap();
    world.merge("worker-2");
    let tip = world.store.branch_head().unwrap();
    write(&first, "WORKER_1_TASK_LIST.md", "- [x] it\n");
    git(&first, &["add", "WORKER_1_TASK_LIST.md"]);
    assert_eq!(bring_up(&first, &tip), BroughtUp::Merged);
    let merged = head(&first);
    world.import("worker-1").unwrap();
    let found = work(&world, &[span(&[&start], &merged)], &[]);
    assert_eq!(subjects(&found), ["change mine.txt"]);
    assert_eq!(found.commits[0].id, own);
    assert_eq!(
        work(&world, &[span(&[&own], &merged)], &[]),
        Work::default()
    );
    // A merge of something else is work, and so is what it merges: the merge brings it in.
    git(&first, &["switch", "-q", "-c", "side", "HEAD~1"]);
    commit(&first, "side.txt", "s\n");
    git(&first, &["switch", "-q", "-"]);
    git(
        &first,
        &["merge", "-q", "--no-ff", "-m", "Merge side", "side"],
    );
    world.import("worker-1").unwrap();
    let found = work(&world, &[span(&[&merged], &head(&first))], &[]);
    assert_eq!(subjects(&found), ["Merge side"]);
    assert_eq!(found.files, ["side.txt"]);
}

#[test]
fn a_rewritten_history_counts_with_what_it_has_now() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let start = head(&checkout);
    commit(&checkout, "one.txt", "1\n");
    let told = head(&checkout);
    git(
        &checkout,
        &["commit", "-q", "--amend", "-m", "One, amended"],
    );
    world.import("worker-1").unwrap();
    let found = work(&world, &[span(&[&start], &told)], &[]);
    assert_eq!(subjects(&found), ["One, amended"], "{told} never came");
    // Rebased onto what somebody else did meanwhile.
    world.person_pushes("theirs.txt", "x\n");
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let tip = world.store.branch_head().unwrap();
    git(&checkout, &["rebase", "-q", tip.as_str()]);
    world.import("worker-1").unwrap();
    let found = work(&world, &[span(&[&start], &head(&checkout))], &[]);
    assert_eq!(subjects(&found), ["One, amended"]);
    let gone = CommitId::new("0".repeat(39) + "1");
    let found = work(&world, &[span(&[&gone], &head(&checkout))], &[]);
    assert_eq!(
        subjects(&found),
        ["One, amended"],
        "`after` was never taken"
    );
}

#[test]
fn what_lies_outside_its_scope_is_named_until_it_is_taken_back() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let start = head(&checkout);
    for path in [
        "src/a/x.rs",
        "src/a/deep/y.rs",
        "docs/x.md",
        "docs/y.md",
        "WORKER_1_TASK_LIST.md",
    ] {
        commit(&checkout, path, "text\n");
    }
    world.import("worker-1").unwrap();
    let spans = |head: &CommitId| [span(&[&start], head)];
    let now = head(&checkout);
    for (scope, outside) in [
        (&["src/a/**", "docs/*.md"][..], &[][..]),
        (&["src/a", "docs/x.md"], &["docs/y.md"]),
        (&["src/a/*", "docs/"], &["src/a/deep/y.rs"]),
        (
            &["*.md"],
            &["docs/x.md", "docs/y.md", "src/a/deep/y.rs", "src/a/x.rs"],
        ),
        (&[], &[]),
    ] {
        assert_eq!(
            work(&world, &spans(&now), scope).outside,
            outside,
            "{scope:?}"
        );
    }
    git(&checkout, &["rm", "-q", "docs/y.md"]);
    git(&checkout, &["commit", "-q", "-m", "Take it back"]);
    world.import("worker-1").unwrap();
    let found = work(&world, &spans(&head(&checkout)), &["src/a", "docs/x.md"]);
    assert_eq!(found.outside, Vec::<String>::new());
    assert!(found.files.contains(&"docs/y.md".to_owned()));
}

#[test]
fn everything_that_is_not_committed_is_left_and_nothing_that_is_ignored() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    write(&checkout, ".gitignore", "*.log\n");
    git(&checkout, &["add", ".gitignore"]);
    write(&checkout, "new/file.txt", "n\n");
    write(&checkout, "noise.log", "n\n");
    write(&checkout, "shared.txt", "changed\n");
    let mut left = inspect(&checkout).left();
    left.sort();
    assert_eq!(left, [".gitignore", "new/", "shared.txt"]);
    git(&checkout, &["add", "-A"]);
    git(&checkout, &["commit", "-q", "-m", "All"]);
    assert_eq!(inspect(&checkout).left(), Vec::<String>::new());
    let tip = head(&checkout);
    git(&checkout, &["switch", "-q", "-c", "other", "HEAD~1"]);
    commit(&checkout, "shared.txt", "otherwise\n");
    super::command(&checkout, "git")
        .args(["merge", "-q", tip.as_str()])
        .output()
        .unwrap();
    let left = inspect(&checkout).left();
    assert_eq!(left[0], "(a merge in progress)");
    assert!(left.contains(&"shared.txt".to_owned()), "{left:?}");
}
