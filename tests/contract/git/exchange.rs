//! Checkouts, imports and merges.

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn three_workers_work_in_parallel_and_everything_arrives() {
    let world = World::new();
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let world = &world;
            scope.spawn(move || {
                let agent = format!("worker-{number}");
                let checkout = world.checkout(&agent);
                commit(&checkout, &format!("{agent}.txt"), "mine\n");
                assert!(matches!(world.merge(&agent), MergeOutcome::Merged { .. }));
            });
        }
    });
    for number in 1..=3 {
        assert_eq!(
            world.read(&format!("worker-{number}.txt")).as_deref(),
            Some("mine\n")
        );
    }
    let log = git(
        world.store.path(),
        &["log", "--first-parent", "--format=%an %s", "main"],
    );
    assert_eq!(log.matches("Ann Merge worker-").count(), 3, "{log}");
}

#[test]
fn a_checkout_is_ready_to_work_in_and_made_only_once() {
    let world = World::new();
    let spec = world.spec("worker-1");
    assert!(world.store.ensure_checkout(&spec).unwrap().created);
    let tree = &spec.directory;
    let state = inspect(tree);
    assert_eq!(state.branch.as_deref(), Some("worker-1"));
    assert_eq!(state.head.as_ref(), Some(&spec.base));
    assert!(state.is_clean());
    assert_eq!(
        git(tree, &["rev-parse", "--abbrev-ref", "@{upstream}"]),
        "origin/main"
    );
    assert_eq!(git(tree, &["config", "user.name"]), "Ann (worker-1)");
    assert_eq!(git(tree, &["config", "gc.auto"]), "0");
    let pushed = command(tree, "git")
        .args(["push", "origin", "HEAD"])
        .output()
        .unwrap();
    assert!(!pushed.status.success());
    let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(said.contains("the-supervisor-fetches-and-pushes"), "{said}");

    write(tree, "uncommitted.txt", "precious\n");
    assert!(!world.store.ensure_checkout(&spec).unwrap().created);
    assert_eq!(text(tree, "uncommitted.txt"), "precious\n");
}

#[test]
fn an_interrupted_checkout_is_begun_anew() {
    let world = World::new();
    let spec = world.spec("worker-1");
    write(
        spec.directory.parent().unwrap(),
        ".checkout.making/.git/HEAD",
        "half",
    );
    std::fs::create_dir_all(&spec.directory).unwrap();
    assert!(world.store.ensure_checkout(&spec).unwrap().created);
    assert!(inspect(&spec.directory).is_clean());
}

#[test]
fn a_checkout_belongs_to_the_containers_user() {
    let world = World::new();
    let mut spec = world.spec("worker-1");
    let me = rustix::process::geteuid();
    let owner = if me.is_root() {
        (23_456, 23_457)
    } else {
        (me.as_raw(), rustix::process::getegid().as_raw())
    };
    spec.owner = Some(owner);
    world.store.ensure_checkout(&spec).unwrap();
    for path in ["", ".git", ".git/config", ".git/HEAD", "README.md"] {
        let found = spec.directory.join(path).symlink_metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{path}");
    }
    let store = world.store.objects_directory().metadata().unwrap();
    assert_eq!(store.uid(), me.as_raw(), "the store stays the supervisor's");
}

#[test]
fn an_unknown_base_makes_nothing() {
    let world = World::new();
    let mut spec = world.spec("worker-1");
    spec.base = CommitId::new("1".repeat(40));
    assert_eq!(
        world.store.ensure_checkout(&spec).unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert!(!spec.directory.exists());
}

#[test]
fn an_export_without_news_is_empty_and_still_imports() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    assert!(world.export("worker-1").is_empty());
    assert_eq!(world.import("worker-1").unwrap(), head(&checkout));
    assert_eq!(world.merge("worker-1"), MergeOutcome::UpToDate);
    let agent = AgentId::new("worker-1");
    let unknown = CommitId::new("2".repeat(40));
    let error = world
        .store
        .import_bundle(&agent, BundleSource::Bytes(b""), &unknown, LIMIT);
    assert_eq!(error.unwrap_err().kind, ErrorKind::Broken);
}

#[test]
fn a_bundle_file_is_imported_and_limits_hold() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let new = commit(&checkout, "a.txt", "a\n");
    let file = world.path().join("w.bundle");
    std::fs::write(&file, world.export("worker-1")).unwrap();
    let agent = AgentId::new("worker-1");
    let import = |expected: &CommitId, limit| {
        world
            .store
            .import_bundle(&agent, BundleSource::File(&file), expected, limit)
    };
    assert_eq!(import(&new, 50).unwrap_err().kind, ErrorKind::Refused);
    let other = world.store.branch_head().unwrap();
    assert_eq!(import(&other, LIMIT).unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(
        world.store.worker_head(&agent).unwrap(),
        None,
        "nothing moved"
    );
    import(&new, LIMIT).unwrap();
    assert_eq!(world.store.worker_head(&agent).unwrap(), Some(new));
}

#[test]
fn rewritten_work_stays_reachable() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let first = commit(&checkout, "a.txt", "a\n");
    world.import("worker-1").unwrap();
    git(&checkout, &["reset", "--quiet", "--hard", "HEAD^"]);
    let second = commit(&checkout, "b.txt", "b\n");
    world.import("worker-1").unwrap();
    let refs = |id: &CommitId| {
        git(
            world.store.path(),
            &["for-each-ref", "--contains", id.as_str()],
        )
    };
    assert!(refs(&first).contains("refs/workers/worker-1/previous/"));
    assert!(refs(&second).contains("refs/workers/worker-1/head"));
}

#[test]
fn bundles_that_lie_or_are_damaged_move_nothing() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    let good = commit(&checkout, "a.txt", "a\n");
    let bundle = world.export("worker-1");
    let agent = AgentId::new("worker-1");
    let pack = bundle.windows(4).position(|w| w == b"PACK").unwrap();
    let lie = "3".repeat(40);
    let header = String::from_utf8_lossy(&bundle[..pack]).into_owned();
    let with_header = |text: String| [text.as_bytes(), &bundle[pack..]].concat();
    let mut flipped = bundle.clone();
    flipped[pack + 30] ^= 0xff;
    let cases = [
        ("cut", bundle[..bundle.len() - 10].to_vec(), good.clone()),
        ("flipped", flipped, good.clone()),
        ("no pack", bundle[..pack].to_vec(), good.clone()),
        ("noise", vec![7; 4000], good.clone()),
        (
            "another id",
            with_header(header.replace(good.as_str(), &lie)),
            CommitId::new(&*lie),
        ),
    ];
    let before = git(world.store.path(), &["for-each-ref"]);
    for (name, bytes, expected) in cases {
        let result =
            world
                .store
                .import_bundle(&agent, BundleSource::Bytes(&bytes), &expected, LIMIT);
        assert_eq!(result.unwrap_err().kind, ErrorKind::Broken, "{name}");
        assert_eq!(git(world.store.path(), &["for-each-ref"]), before, "{name}");
        assert!(
            !world.store.contains(&good).unwrap(),
            "{name}: nothing is left in the store"
        );
    }
    world.import("worker-1").unwrap();
}

#[test]
fn trees_that_would_write_into_a_git_directory_are_refused() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    write(&checkout, "x", "#!/bin/sh\n");
    let blob = git(&checkout, &["hash-object", "-w", "x"]);
    let tree = |lines: &str| {
        use std::io::Write;
        let mut child = command(&checkout, "git")
            .args(["mktree"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    };
    for name in [".git", ".GIT", "git~1", ".."] {
        let inner = tree(&format!("100755 blob {blob}\tpost-checkout\n"));
        let outer = tree(&format!("040000 tree {inner}\t{name}\n"));
        let evil = git(
            &checkout,
            &["commit-tree", &outer, "-p", "HEAD", "-m", "evil"],
        );
        git(&checkout, &["update-ref", "refs/heads/worker-1", &evil]);
        let error = world.import("worker-1").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Broken, "{name}: {error}");
        assert!(!world.store.contains(&CommitId::new(evil)).unwrap());
    }
}

#[test]
fn a_conflict_shows_its_hunks_and_moves_nothing() {
    let world = World::new();
    let (one, two) = (world.checkout("worker-1"), world.checkout("worker-2"));
    commit(&one, "shared.txt", "1\n2\nleft\n4\n5\n");
    commit(&two, "shared.txt", "1\n2\nright\n4\n5\n");
    assert!(matches!(
        world.merge("worker-1"),
        MergeOutcome::Merged { .. }
    ));
    let before = world.store.branch_head().unwrap();
    let MergeOutcome::Conflict { files } = world.merge("worker-2") else {
        panic!("both changed line 3")
    };
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].path, "shared.txt");
    assert!(
        files[0]
            .hunks
            .contains("<<<<<<< ours\nleft\n=======\nright\n>>>>>>> theirs")
    );
    assert_eq!(world.store.branch_head().unwrap(), before);
    // The owner merges the branch itself, and then it lands.
    assert_eq!(bring_up(&two, &before), BroughtUp::Conflict);
    assert!(inspect(&two).is_clean());
    command(&two, "git")
        .args(["merge", "--quiet", "origin/main"])
        .output()
        .unwrap();
    commit(&two, "shared.txt", "1\n2\nboth\n4\n5\n");
    assert!(matches!(
        world.merge("worker-2"),
        MergeOutcome::Merged { .. }
    ));
    assert_eq!(
        world.read("shared.txt").as_deref(),
        Some("1\n2\nboth\n4\n5\n")
    );
}

#[test]
fn other_kinds_of_conflict_are_described() {
    let world = World::new();
    let (one, two) = (world.checkout("worker-1"), world.checkout("worker-2"));
    git(&one, &["rm", "--quiet", "shared.txt"]);
    commit(&one, "new.txt", "one\n");
    commit(&two, "new.txt", "two\n");
    commit(&two, "shared.txt", "changed\n");
    world.merge("worker-1");
    let MergeOutcome::Conflict { mut files } = world.merge("worker-2") else {
        panic!("deleted here, changed there")
    };
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(files.len(), 2);
    assert!(
        files[0].hunks.contains("one\n=======\ntwo"),
        "{}",
        files[0].hunks
    );
    assert!(files[1].hunks.contains("deleted"), "{}", files[1].hunks);
}

#[test]
fn merges_from_many_hands_all_land() {
    let world = World::new();
    let mut heads = Vec::new();
    for number in 1..=6 {
        let agent = format!("worker-{number}");
        let checkout = world.checkout(&agent);
        commit(&checkout, &format!("f{number}.txt"), "x\n");
        heads.push(world.import(&agent).unwrap());
    }
    let tick = |old: Option<&[u8]>| {
        let mut text = old.map(<[u8]>::to_vec).unwrap_or_default();
        text.extend_from_slice(b"tick\n");
        Some(text)
    };
    std::thread::scope(|scope| {
        for head in &heads {
            // A handle of its own each, as another process would have.
            let store = open(world.path(), "main").unwrap();
            scope.spawn(move || {
                let edits = [FileEdit::new("LIST.md", tick)];
                assert!(matches!(
                    store.merge(head, "Merge", &edits).unwrap(),
                    MergeOutcome::Merged { .. }
                ));
            });
        }
    });
    let tip = world.store.branch_head().unwrap();
    for head in &heads {
        assert!(world.store.is_ancestor(head, &tip).unwrap());
    }
    assert_eq!(
        world.read("LIST.md").unwrap(),
        "tick\n".repeat(6),
        "no edit was lost either"
    );
}

/// The manager takes the branch in and the branch takes the manager's work in: two bases.
#[test]
fn ticks_do_not_conflict_where_two_branches_took_each_other_in() {
    let world = World::new();
    let tick = |from: &'static str, to: &'static str| {
        FileEdit::new("LIST.md", move |old| {
            let text = String::from_utf8_lossy(old?).replace(from, to);
            Some(text.into_bytes())
        })
    };
    let start = world.checkout("worker-1");
    commit(&start, "LIST.md", "[ ] a\n");
    world.import("worker-1").unwrap();
    world.merge("worker-1");
    let checkout = world.checkout("manager");
    commit(&checkout, "LIST.md", "[ ] a\n[ ] b\n");
    let added = world.import("manager").unwrap();
    let ticked = world.store.branch_head().unwrap();
    let edits = [tick("[ ] a", "[x] a")];
    let MergeOutcome::Merged { commit: ticked, .. } =
        world.store.merge(&ticked, "Tick", &edits).unwrap()
    else {
        panic!("nothing was ticked")
    };
    world.store.merge(&added, "Merge manager", &edits).unwrap();
    git(
        &checkout,
        &["merge", "-q", "-s", "ours", "--no-edit", ticked.as_str()],
    );
    write(&checkout, "LIST.md", "[x] a\n[ ] b\n");
    git(&checkout, &["commit", "-q", "-a", "--amend", "--no-edit"]);
    commit(&checkout, "LIST.md", "[x] a\n[ ] b\n[ ] c\n");
    let more = world.import("manager").unwrap();
    let edits = [tick("[ ] a", "[x] a"), tick("[ ] b", "[x] b")];
    let tip = world.store.branch_head().unwrap();
    world.store.merge(&tip, "Tick", &edits).unwrap();
    let merged = world.store.merge(&more, "Merge manager", &edits).unwrap();
    assert!(matches!(merged, MergeOutcome::Merged { .. }), "{merged:?}");
    assert_eq!(world.read("LIST.md").unwrap(), "[x] a\n[x] b\n[ ] c\n");
}

#[test]
fn edits_go_into_the_merge_or_into_a_commit_of_their_own() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    commit(&checkout, "docs/LIST.md", "- [ ] one\n");
    let head = world.import("worker-1").unwrap();
    let done = || {
        FileEdit::new("docs/LIST.md", |old| {
            Some(
                String::from_utf8_lossy(old?)
                    .replace("[ ]", "[x]")
                    .into_bytes(),
            )
        })
    };
    let MergeOutcome::Merged { commit: merge, .. } =
        world.store.merge(&head, "Merge", &[done()]).unwrap()
    else {
        panic!("there was work to merge")
    };
    assert_eq!(world.read("docs/LIST.md").as_deref(), Some("- [x] one\n"));
    assert_eq!(
        world.store.merge(&head, "again", &[done()]).unwrap(),
        MergeOutcome::UpToDate
    );
    let extra = FileEdit::replace("note.txt", b"n\n".to_vec());
    let outcome = world.store.merge(&head, "A note", &[extra]).unwrap();
    assert!(matches!(outcome, MergeOutcome::Merged { old, .. } if old == merge));
    assert_eq!(world.read("note.txt").as_deref(), Some("n\n"));
    for path in [".git/config", "../x", "/x", "docs", "README.md/x", ""] {
        let edit = FileEdit::replace(path, b"evil".to_vec());
        let error = world.store.merge(&head, "evil", &[edit]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{path}: {}", error.chain());
    }
}

#[test]
fn pointers_and_submodules_stay_what_they_are() {
    let world = World::new();
    let clone = world.person();
    write(
        &clone,
        ".gitattributes",
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    write(&clone, "big.bin", pointer);
    write(
        &clone,
        ".gitmodules",
        "[submodule \"sub\"]\n\tpath = sub\n\turl = https://example.invalid/x\n",
    );
    git(&clone, &["add", "--all"]);
    let id = "4".repeat(40);
    git(
        &clone,
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{id},sub"),
        ],
    );
    git(&clone, &["commit", "--quiet", "-m", "large files"]);
    git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
    world.store.fetch().unwrap();
    world.store.integrate_remote().unwrap();
    let checkout = world.checkout("worker-1");
    assert_eq!(text(&checkout, "big.bin"), pointer);
    assert!(inspect(&checkout).is_clean());
    commit(&checkout, "a.txt", "a\n");
    assert!(matches!(
        world.merge("worker-1"),
        MergeOutcome::Merged { .. }
    ));
}

#[test]
fn files_are_read_from_commits_with_limits() {
    let world = World::new();
    let clone = world.person();
    std::os::unix::fs::symlink("/etc/passwd", clone.join("LIST.md")).unwrap();
    let tip = commit(&clone, "docs/a.md", "abc\n");
    git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
    world.store.fetch().unwrap();
    let read = |path: &str, limit| world.store.read_file(&tip, path, limit);
    assert_eq!(
        read("docs/a.md", 4).unwrap().as_deref(),
        Some(&b"abc\n"[..])
    );
    assert_eq!(read("docs/a.md", 3).unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(read("LIST.md", 1000).unwrap(), None, "a link is no file");
    assert_eq!(read("docs", 1000).unwrap(), None);
    assert_eq!(read("none", 1000).unwrap(), None);
    assert_eq!(world.store.list_files(&tip, "docs").unwrap(), ["a.md"]);
    assert!(world.store.list_files(&tip, "none").unwrap().is_empty());
    assert!(
        world
            .store
            .read_file(&CommitId::new("main"), "a", 1)
            .is_err()
    );
}
