//! Cloning, fetching, pushing.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn failure(result: PortResult<GitStore>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    (
        error.kind,
        format!("{} / {}", error.chain(), error.hint.unwrap_or_default()),
    )
}

#[test]
fn a_missing_repository_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (kind, said) = failure(open(directory.path(), "main"));
    assert_eq!(kind, ErrorKind::NotFound, "{said}");
    assert!(
        said.contains("remote.git") && said.contains("check the repository URL"),
        "{said}"
    );
    assert!(
        !directory.path().join("state/store.git").exists(),
        "nothing half-made is left"
    );
}

#[test]
fn an_empty_repository_and_a_missing_branch_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    git(
        directory.path(),
        &["init", "--quiet", "--bare", "remote.git"],
    );
    let (kind, said) = failure(open(directory.path(), "main"));
    assert_eq!(kind, ErrorKind::Refused, "{said}");
    assert!(said.contains("no commits yet"), "{said}");
    std::fs::remove_dir_all(directory.path().join("remote.git")).unwrap();

    seed_remote(directory.path(), &[("a", "a\n")]);
    let seed = directory.path().join("seed");
    for name in ["mains", "develop", "release/1", "release/2", "topic", "x"] {
        git(
            &seed,
            &["push", "--quiet", "../remote.git", &format!("main:{name}")],
        );
    }
    let (kind, said) = failure(open(directory.path(), "mian"));
    assert_eq!(kind, ErrorKind::NotFound, "{said}");
    assert!(
        said.contains("no branch \"mian\"") && said.contains("7 branches: main, mains"),
        "{said}"
    );
    assert_eq!(said.matches(", ").count(), 4, "five names: {said}");
    let (kind, said) = failure(open(directory.path(), "no such..name"));
    assert_eq!(kind, ErrorKind::Refused, "{said}");
}

#[test]
fn authentication_failures_neither_ask_nor_show_the_password() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    for user in ["ann:hunter2", "hunter2"] {
        let url = format!("http://{user}@127.0.0.1:{port}/x.git");
        let path = directory.path().join("store.git");
        let result = GitStore::open_or_clone(&path, &url, "main", identity(), &|_| {});
        let (kind, said) = failure(result);
        assert_eq!(kind, ErrorKind::Refused, "{said}");
        assert!(said.contains("credential helper"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn an_unreachable_host_is_transient() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.git");
    let url = format!("http://127.0.0.1:{port}/x.git");
    let (kind, said) = failure(GitStore::open_or_clone(
        &path,
        &url,
        "main",
        identity(),
        &|_| {},
    ));
    assert_eq!(kind, ErrorKind::Transient, "{said}");
}

#[test]
fn something_else_in_the_stores_place_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    seed_remote(directory.path(), &[("a", "a\n")]);
    write(directory.path(), "state/store.git/precious", "mine\n");
    let (kind, said) = failure(open(directory.path(), "main"));
    assert_eq!(kind, ErrorKind::Broken, "{said}");
    assert_eq!(text(directory.path(), "state/store.git/precious"), "mine\n");
}

#[test]
fn an_interrupted_clone_is_begun_anew_and_a_store_opens_without_its_remote() {
    let directory = tempfile::tempdir().unwrap();
    seed_remote(directory.path(), &[("a", "a\n")]);
    write(directory.path(), "state/.store.git.making/HEAD", "half");
    let store = open(directory.path(), "main").unwrap();
    assert!(!directory.path().join("state/.store.git.making").exists());
    let head = store.branch_head().unwrap();
    std::fs::rename(
        directory.path().join("remote.git"),
        directory.path().join("away"),
    )
    .unwrap();
    assert_eq!(
        open(directory.path(), "main")
            .unwrap()
            .branch_head()
            .unwrap(),
        head
    );
    assert_eq!(store.fetch().unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn a_file_url_works_and_another_branch_joins_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    seed_remote(directory.path(), &[("a", "a\n")]);
    let seed = directory.path().join("seed");
    let other = commit(&seed, "b", "b\n");
    git(&seed, &["push", "--quiet", "../remote.git", "HEAD:next"]);
    let url = format!("file://{}", directory.path().join("remote.git").display());
    let path = directory.path().join("state/store.git");
    let lines = std::cell::Cell::new(0);
    let tell = |_: &str| lines.set(lines.get() + 1);
    let main = GitStore::open_or_clone(&path, &url, "main", identity(), &tell).unwrap();
    assert!(lines.get() > 0, "the clone told its progress");
    let next = GitStore::open_or_clone(&path, &url, "next", identity(), &|_| {}).unwrap();
    assert_eq!(next.branch_head().unwrap(), other);
    assert_eq!(
        next.ahead_behind(&other, &main.branch_head().unwrap())
            .unwrap(),
        (1, 0)
    );
    let config = text(&path, "config");
    assert!(
        !config.contains("remote.git"),
        "the URL is not kept in the store: {config}"
    );
}

#[test]
fn fetch_tells_whether_the_remote_moved_and_integration_fast_forwards() {
    let world = World::new();
    assert!(!world.store.fetch().unwrap().moved);
    let new = world.person_pushes("person.txt", "p\n");
    let fetched = world.store.fetch().unwrap();
    assert!(fetched.moved);
    assert_eq!(fetched.remote_head, new);
    assert_eq!(
        world.store.integrate_remote().unwrap(),
        MergeOutcome::FastForwarded {
            commit: new.clone()
        }
    );
    assert_eq!(
        world.store.integrate_remote().unwrap(),
        MergeOutcome::UpToDate
    );
    assert_eq!(world.store.branch_head().unwrap(), new);
    assert_eq!(
        world.store.list_files(&new, "").unwrap(),
        ["README.md", "person.txt", "shared.txt"]
    );
}

#[test]
fn a_push_to_a_remote_that_moved_is_integrated_and_tried_again() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    commit(&checkout, "work.txt", "w\n");
    world.merge("worker-1");
    let theirs = world.person_pushes("person.txt", "p\n");
    assert_eq!(world.store.push().unwrap(), PushOutcome::Moved);
    assert!(matches!(
        world.store.integrate_remote().unwrap(),
        MergeOutcome::Merged { .. }
    ));
    let tip = world.store.branch_head().unwrap();
    assert!(world.store.is_ancestor(&theirs, &tip).unwrap());
    assert_eq!(
        world.store.push().unwrap(),
        PushOutcome::Pushed {
            commit: tip.clone()
        }
    );
    assert_eq!(world.store.push().unwrap(), PushOutcome::UpToDate);
    assert_eq!(git(&world.remote(), &["rev-parse", "main"]), tip.as_str());
    assert_eq!(world.store.remote_head().unwrap(), tip);
}

#[test]
fn a_push_that_loses_the_race_on_the_remote_is_moved_and_overwrites_nothing() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    commit(&checkout, "work.txt", "w\n");
    world.merge("worker-1");
    // The person's commit arrives while ours is being received.
    let clone = world.person();
    let theirs = commit(&clone, "person.txt", "p\n");
    git(
        &clone,
        &["push", "--quiet", "origin", "HEAD:refs/heads/waiting"],
    );
    hook(
        &world,
        &format!("unset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/main {theirs}"),
    );
    assert_eq!(world.store.push().unwrap(), PushOutcome::Moved);
    assert_eq!(
        git(&world.remote(), &["rev-parse", "main"]),
        theirs.as_str()
    );
}

#[test]
fn a_lock_that_a_killed_process_left_is_removed_and_a_fresh_one_is_not() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    commit(&checkout, "work.txt", "w\n");
    world.merge("worker-1");
    let lock = world.store.path().join("refs/remotes/origin/main.lock");
    let made = std::fs::File::create(&lock).unwrap();
    assert!(world.store.push().is_err());
    assert!(lock.exists());
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    made.set_modified(before).unwrap();
    let tip = world.store.branch_head().unwrap();
    world.store.push().unwrap();
    assert_eq!(git(&world.remote(), &["rev-parse", "main"]), tip.as_str());
    assert!(!lock.exists());
}

#[test]
fn a_push_the_remote_forbids_is_denied_with_its_words() {
    let world = World::new();
    let checkout = world.checkout("worker-1");
    commit(&checkout, "work.txt", "w\n");
    world.merge("worker-1");
    hook(
        &world,
        "echo 'main is protected: open a pull request' >&2; exit 1",
    );
    let PushOutcome::Denied { reason } = world.store.push().unwrap() else {
        panic!("the hook said no")
    };
    assert!(reason.contains("hook declined"), "{reason}");
    assert!(
        reason.contains("main is protected: open a pull request"),
        "{reason}"
    );
}

fn hook(world: &World, body: &str) {
    let file = world.remote().join("hooks/pre-receive");
    write(
        &world.remote(),
        "hooks/pre-receive",
        &format!("#!/bin/sh\n{body}\n"),
    );
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_rewritten_remote_takes_no_commit_from_the_store() {
    let world = World::new();
    let lost = world.person_pushes("person.txt", "p\n");
    world.store.fetch().unwrap();
    let clone = world.person();
    git(&clone, &["reset", "--quiet", "--hard", "HEAD^"]);
    let new = commit(&clone, "other.txt", "o\n");
    git(
        &clone,
        &["push", "--quiet", "--force", "origin", "HEAD:main"],
    );
    assert_eq!(world.store.fetch().unwrap().remote_head, new);
    let refs = git(
        world.store.path(),
        &["for-each-ref", "--contains", lost.as_str()],
    );
    assert!(refs.contains("refs/orchestrator/replaced/"), "{refs}");
}

#[test]
fn a_repository_that_was_replaced_is_refused_not_mixed_in() {
    let world = World::new();
    let stranger = world.path().join("stranger");
    git(
        world.path(),
        &["init", "--quiet", "--initial-branch=main", "stranger"],
    );
    commit(&stranger, "x", "x\n");
    git(
        &stranger,
        &["push", "--quiet", "--force", "../remote.git", "main"],
    );
    world.store.fetch().unwrap();
    let before = world.store.branch_head().unwrap();
    let error = world.store.integrate_remote().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(world.store.branch_head().unwrap(), before);
}

#[test]
fn a_url_that_runs_a_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("ran");
    let url = format!("ext::touch {}", mark.display());
    let path = directory.path().join("store.git");
    let result = GitStore::open_or_clone(&path, &url, "main", identity(), &|_| {});
    assert!(result.is_err());
    assert!(!mark.exists());
}
