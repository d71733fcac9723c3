//! `hooks/bring-up-to.sh` never touches what is not committed.

use super::*;

/// A worker's checkout at the base, and a newer tip that changes `shared.txt`, adds `dir/new.txt`
/// and changes `LIST.md`.
struct Case {
    world: World,
    tree: PathBuf,
    target: CommitId,
}

fn case() -> Case {
    let world = World::new();
    world.person_pushes("LIST.md", "- [ ] one\n");
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let tree = world.checkout("worker-1");
    let clone = world.person();
    write(&clone, "dir/new.txt", "new\n");
    write(&clone, "LIST.md", "- [x] one\n");
    let target = commit(&clone, "shared.txt", "1\n2\nthree\n4\n5\n");
    git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    Case {
        world,
        tree,
        target,
    }
}

/// Everything in the tree and the index, except what git's own bookkeeping changes.
fn picture(tree: &Path) -> String {
    let mut left: Vec<PathBuf> = vec![tree.to_owned()];
    let mut lines = Vec::new();
    while let Some(path) = left.pop() {
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            let mut inner: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            inner.retain(|path| !path.ends_with(".git"));
            inner.sort();
            left.extend(inner);
        } else if kind.is_symlink() {
            let to = std::fs::read_link(&path).unwrap();
            lines.push(format!("{} -> {}", path.display(), to.display()));
        } else {
            lines.push(format!(
                "{}: {:?}",
                path.display(),
                std::fs::read(&path).unwrap()
            ));
        }
    }
    lines.push(git(tree, &["ls-files", "--stage"]));
    lines.push(git(tree, &["stash", "list"]));
    lines.push(head(tree).to_string());
    lines.join("\n")
}

/// The outcome is `expected` and nothing changed but `origin/main`.
fn refuses(case: &Case, expected: BroughtUp) {
    let before = picture(&case.tree);
    assert_eq!(bring_up(&case.tree, &case.target), expected);
    assert_eq!(picture(&case.tree), before);
}

#[test]
fn a_clean_tree_is_forwarded_and_then_up_to_date() {
    let case = case();
    assert_eq!(bring_up(&case.tree, &case.target), BroughtUp::Forwarded);
    assert_eq!(head(&case.tree), case.target);
    assert_eq!(text(&case.tree, "dir/new.txt"), "new\n");
    assert_eq!(
        git(&case.tree, &["rev-parse", "origin/main"]),
        case.target.as_str()
    );
    assert_eq!(
        git(&case.tree, &["symbolic-ref", "--short", "HEAD"]),
        "worker-1"
    );
    assert!(inspect(&case.tree).is_clean());
    assert_eq!(bring_up(&case.tree, &case.target), BroughtUp::UpToDate);
}

#[test]
fn own_commits_are_merged_and_untracked_files_stay() {
    let case = case();
    let own = commit(&case.tree, "own.txt", "own\n");
    write(&case.tree, "note.txt", "mine\n");
    assert_eq!(bring_up(&case.tree, &case.target), BroughtUp::Merged);
    assert_eq!(text(&case.tree, "note.txt"), "mine\n");
    assert_eq!(text(&case.tree, "shared.txt"), "1\n2\nthree\n4\n5\n");
    git(
        &case.tree,
        &["merge-base", "--is-ancestor", own.as_str(), "HEAD"],
    );
    assert_eq!(inspect(&case.tree).untracked, 1);
}

#[test]
fn a_modified_file_is_left_alone() {
    for path in ["shared.txt", "README.md"] {
        let case = case();
        write(&case.tree, path, "work\n");
        refuses(&case, BroughtUp::Dirty);
    }
}

#[test]
fn staged_work_is_left_alone() {
    let case = case();
    write(&case.tree, "shared.txt", "staged\n");
    git(&case.tree, &["add", "shared.txt"]);
    refuses(&case, BroughtUp::Dirty);
    // Also where the file itself looks untouched, or already like the target.
    for content in ["1\n2\n3\n4\n5\n", "1\n2\nthree\n4\n5\n"] {
        write(&case.tree, "shared.txt", content);
        refuses(&case, BroughtUp::Dirty);
    }
}

#[test]
fn a_deleted_file_and_a_new_staged_one_are_left_alone() {
    let gone = case();
    std::fs::remove_file(gone.tree.join("shared.txt")).unwrap();
    refuses(&gone, BroughtUp::Dirty);
    let staged = case();
    write(&staged.tree, "mine.txt", "mine\n");
    git(&staged.tree, &["add", "mine.txt"]);
    refuses(&staged, BroughtUp::Dirty);
    let intended = case();
    write(&intended.tree, "dir/new.txt", "new\n");
    git(&intended.tree, &["add", "--intent-to-add", "dir/new.txt"]);
    refuses(&intended, BroughtUp::Dirty);
}

#[test]
fn untracked_work_in_the_way_is_left_alone() {
    let file = case();
    write(&file.tree, "dir/new.txt", "mine\n");
    refuses(&file, BroughtUp::Dirty);
    let above = case();
    write(&above.tree, "dir", "a file where a directory comes\n");
    refuses(&above, BroughtUp::Dirty);
    let below = case();
    write(
        &below.tree,
        "dir/new.txt/deep",
        "a directory where a file comes\n",
    );
    refuses(&below, BroughtUp::Dirty);
    let link = case();
    std::fs::create_dir(link.tree.join("dir")).unwrap();
    std::os::unix::fs::symlink("/nowhere", link.tree.join("dir/new.txt")).unwrap();
    refuses(&link, BroughtUp::Dirty);
    let linked = case();
    std::fs::create_dir(linked.world.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(
        linked.world.path().join("elsewhere"),
        linked.tree.join("dir"),
    )
    .unwrap();
    refuses(&linked, BroughtUp::Dirty);
}

#[test]
fn ignored_files_in_the_way_are_left_alone_in_forwards_and_merges() {
    for own_commit in [false, true] {
        let case = case();
        if own_commit {
            commit(&case.tree, "own.txt", "own\n");
        }
        write(&case.tree, ".git/info/exclude", "dir\n");
        write(&case.tree, "dir/new.txt", "secret settings\n");
        refuses(&case, BroughtUp::Dirty);
    }
}

#[test]
fn files_git_was_told_not_to_look_at_are_left_alone() {
    let case = case();
    git(
        &case.tree,
        &["update-index", "--assume-unchanged", "shared.txt"],
    );
    write(&case.tree, "shared.txt", "hidden work\n");
    refuses(&case, BroughtUp::Dirty);
}

#[test]
fn work_that_is_already_as_the_target_has_it_does_not_stand_in_the_way() {
    let case = case();
    write(&case.tree, "LIST.md", "- [x] one\n");
    write(&case.tree, "dir/new.txt", "new\n");
    write(&case.tree, "shared.txt", "1\n2\nthree\n4\n5\n");
    git(&case.tree, &["add", "shared.txt"]);
    write(&case.tree, "note.txt", "mine\n");
    assert_eq!(bring_up(&case.tree, &case.target), BroughtUp::Forwarded);
    let state = inspect(&case.tree);
    assert_eq!((state.dirty_count, state.untracked), (0, 1), "{state:?}");
}

#[test]
fn with_own_commits_even_equal_changes_wait() {
    let case = case();
    commit(&case.tree, "own.txt", "own\n");
    write(&case.tree, "LIST.md", "- [x] one\n");
    refuses(&case, BroughtUp::Dirty);
}

#[test]
fn a_mode_only_change_counts_as_work() {
    use std::os::unix::fs::PermissionsExt;
    let case = case();
    let file = case.tree.join("shared.txt");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    refuses(&case, BroughtUp::Dirty);
}

#[test]
fn a_conflict_leaves_nothing_behind() {
    let case = case();
    commit(&case.tree, "shared.txt", "1\n2\nmine\n4\n5\n");
    write(&case.tree, "note.txt", "mine\n");
    refuses(&case, BroughtUp::Conflict);
    assert_eq!(inspect(&case.tree).operation, None);
}

#[test]
fn an_operation_in_progress_and_a_detached_head_are_left_alone() {
    let merging = case();
    git(&merging.tree, &["branch", "side"]);
    commit(&merging.tree, "shared.txt", "one way\n");
    git(&merging.tree, &["checkout", "--quiet", "side"]);
    commit(&merging.tree, "shared.txt", "another way\n");
    command(&merging.tree, "git")
        .args(["merge", "worker-1"])
        .output()
        .unwrap();
    assert_eq!(inspect(&merging.tree).operation.as_deref(), Some("merge"));
    refuses(&merging, BroughtUp::Busy);
    git(&merging.tree, &["merge", "--abort"]);
    command(&merging.tree, "git")
        .args(["rebase", "worker-1"])
        .output()
        .unwrap();
    assert_eq!(inspect(&merging.tree).operation.as_deref(), Some("rebase"));
    refuses(&merging, BroughtUp::Busy);
    git(&merging.tree, &["rebase", "--abort"]);
    command(&merging.tree, "git")
        .args(["cherry-pick", "worker-1"])
        .output()
        .unwrap();
    assert_eq!(
        inspect(&merging.tree).operation.as_deref(),
        Some("cherry-pick")
    );
    refuses(&merging, BroughtUp::Busy);
    git(&merging.tree, &["cherry-pick", "--abort"]);
    git(&merging.tree, &["bisect", "start"]);
    assert_eq!(inspect(&merging.tree).operation.as_deref(), Some("bisect"));
    refuses(&merging, BroughtUp::Busy);

    let detached = case();
    git(&detached.tree, &["checkout", "--quiet", "--detach"]);
    assert_eq!(inspect(&detached.tree).branch, None);
    refuses(&detached, BroughtUp::Detached);

    let locked = case();
    write(&locked.tree, ".git/index.lock", "");
    refuses(&locked, BroughtUp::Busy);
}

#[test]
fn odd_file_names_are_not_mistaken() {
    for name in [
        "a b.txt",
        "tab\there",
        "quote\"d",
        "back\\slash",
        "ünïcode",
        "-dash",
        ":(glob)*",
        "new\nline",
    ] {
        let case = case();
        let target = case.world.person_pushes(name, "from the remote\n");
        case.world.store.fetch().unwrap();
        case.world.store.integrate_remote().unwrap();
        write(&case.tree, name, "mine\n");
        let before = picture(&case.tree);
        assert_eq!(bring_up(&case.tree, &target), BroughtUp::Dirty, "{name:?}");
        assert_eq!(picture(&case.tree), before, "{name:?}");
    }
}

#[test]
fn the_agents_settings_and_hooks_change_nothing() {
    let case = case();
    commit(&case.tree, "own.txt", "own\n");
    write(
        &case.tree,
        ".git/hooks/pre-merge-commit",
        "#!/bin/sh\nexit 1\n",
    );
    command(&case.tree, "chmod")
        .args(["+x", ".git/hooks/pre-merge-commit"])
        .status()
        .unwrap();
    for (key, value) in [
        ("merge.ff", "only"),
        ("merge.autoStash", "true"),
        ("commit.gpgSign", "true"),
        ("diff.external", "false"),
        ("merge.verifySignatures", "true"),
    ] {
        git(&case.tree, &["config", key, value]);
    }
    assert_eq!(bring_up(&case.tree, &case.target), BroughtUp::Merged);
}

#[test]
fn a_commit_that_cannot_be_seen_is_an_error() {
    let case = case();
    let unknown = CommitId::new("5".repeat(40));
    let before = picture(&case.tree);
    let output = execute(&sandbox::bring_up_to(
        case.tree.to_str().unwrap(),
        &unknown,
        "main",
    ));
    let error = sandbox::checked("bring-up-to", output).unwrap_err();
    assert!(error.message.contains("not visible"), "{error}");
    assert_eq!(picture(&case.tree), before);
}
