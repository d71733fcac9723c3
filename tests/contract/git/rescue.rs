//! Rescue snapshots: every byte of a checkout comes back, and nothing in it is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use orchestrator::model::{RescueKind, RescueView, Timestamp};
use orchestrator::worktree::sandbox::{Snapshot, SnapshotOutcome};
use orchestrator::worktree::{Reachability, RescueReason, Restored, Retention};

use super::*;

const AGENT: &str = "worker-1";
const MAX: usize = 256 * 1024 * 1024;
const NOW: Timestamp = Timestamp(1_795_262_400_000);

pub(super) fn reason(at: Timestamp) -> RescueReason<'static> {
    RescueReason {
        cause: "at an interval",
        at,
        keep: false,
    }
}

pub(super) fn take(world: &World, ignored: bool) -> PortResult<Snapshot> {
    let checkout = world.spec(AGENT).directory;
    let known = world.store.rescue_known(&AgentId::new(AGENT))?;
    let spec = sandbox::snapshot(checkout.to_str().unwrap(), &known, ignored, MAX);
    sandbox::parse_snapshot(sandbox::checked("snapshot", execute(&spec))?)
}

pub(super) fn rescue(world: &World, at: Timestamp) -> Option<RescueView> {
    let snapshot = take(world, false).unwrap();
    world
        .store
        .import_rescue(&AgentId::new(AGENT), &reason(at), &snapshot, MAX as u64)
        .unwrap()
}

fn restored(world: &World, rescue: &RescueView) -> (PathBuf, Restored) {
    let place = world.path().join(format!("restored-{}", rescue.id));
    let restored = world.store.restore_rescue(&rescue.id, &place).unwrap();
    (place, restored)
}

/// Paths below `root` without `.git`, each with what it is.
pub(super) fn tree(root: &Path) -> BTreeMap<Vec<u8>, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            let about = path.symlink_metadata().unwrap();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            if about.is_dir() {
                left.push(path);
            } else if about.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                found.insert(name, (0o120_000, target.into_os_string().into_vec()));
            } else if about.is_file() {
                let mode = about.permissions().mode() & 0o100;
                found.insert(name, (mode, std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Everything git knows of a checkout, and its index byte by byte.
fn untouched(checkout: &Path) -> String {
    let index = std::fs::read(checkout.join(".git/index")).unwrap_or_default();
    let refs = git(checkout, &["for-each-ref", "--exclude=refs/orchestrator/"]);
    let head = std::fs::read_to_string(checkout.join(".git/HEAD")).unwrap();
    format!("{index:?} {refs} {head} {:?}", tree(checkout))
}

/// Takes a snapshot that changes nothing, and finds every file of the checkout in it.
fn comes_back(world: &World) -> (PathBuf, Restored) {
    let checkout = world.spec(AGENT).directory;
    let before = untouched(&checkout);
    let rescue = rescue(world, NOW).expect("something to keep");
    assert_eq!(untouched(&checkout), before);
    let (place, restored) = restored(world, &rescue);
    assert_eq!(tree(&place.join("worktree")), tree(&checkout));
    (place, restored)
}

#[test]
fn a_clean_checkout_makes_nothing() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    for _ in 0..2 {
        assert_eq!(
            take(&world, false).unwrap().outcome,
            SnapshotOutcome::Nothing
        );
    }
    assert_eq!(git(&checkout, &["for-each-ref", "refs/orchestrator"]), "");
    assert_eq!(rescue(&world, NOW), None);
    assert_eq!(world.store.rescues().unwrap(), []);
}

#[test]
fn staged_changed_untracked_and_deleted_files_come_back() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    write(&checkout, "shared.txt", "staged\n");
    write(&checkout, "new.txt", "staged only\n");
    git(&checkout, &["add", "."]);
    write(&checkout, "shared.txt", "in the file\n");
    std::fs::remove_file(checkout.join("new.txt")).unwrap();
    std::fs::remove_file(checkout.join("README.md")).unwrap();
    write(&checkout, "dir/untracked.txt", "u\r\n\0\n");
    write(&checkout, ".gitignore", "*.log\n");
    write(&checkout, "a.log", "ignored\n");
    let before = untouched(&checkout);
    let view = rescue(&world, NOW).unwrap();
    assert_eq!(untouched(&checkout), before);
    let (place, restored) = restored(&world, &view);
    assert_eq!(text(&place, "worktree/shared.txt"), "in the file\n");
    assert_eq!(text(&place, "index/shared.txt"), "staged\n");
    assert_eq!(text(&place, "index/new.txt"), "staged only\n");
    assert_eq!(text(&place, "worktree/dir/untracked.txt"), "u\r\n\0\n");
    assert!(!place.join("worktree/README.md").exists());
    assert!(!place.join("worktree/a.log").exists());
    assert_eq!(restored.deleted, ["README.md", "new.txt"]);
    let files = world.store.rescue_files(&view.id).unwrap();
    let kinds: Vec<_> = files
        .iter()
        .map(|file| (file.path.as_str(), file.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (".gitignore", RescueKind::Untracked),
            ("README.md", RescueKind::Deleted),
            ("dir/untracked.txt", RescueKind::Untracked),
            ("new.txt", RescueKind::Deleted),
            ("shared.txt", RescueKind::Changed),
        ]
    );
    assert_eq!(view.head, Some(head(&checkout)));
    let diff = world.store.rescue_diff(&view.id, 10_000).unwrap();
    assert!(
        diff.contains("+in the file") && diff.contains("-hello"),
        "{diff}"
    );
    // By choice also what is ignored.
    let snapshot = take(&world, true).unwrap();
    let imported =
        world
            .store
            .import_rescue(&AgentId::new(AGENT), &reason(NOW), &snapshot, MAX as u64);
    let (place, _) = self::restored(&world, &imported.unwrap().unwrap());
    assert_eq!(text(&place, "worktree/a.log"), "ignored\n");
}

#[test]
fn odd_names_links_modes_and_binary_files_come_back() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    let odd: [&[u8]; 9] = [
        b"line\nbreak",
        b"\"quote\" 'and' \\",
        b"--option",
        b"-",
        b"not utf-8 \xff\xfe",
        b" blank ",
        b"tab\there",
        b"git~1",
        b"*?[x]",
    ];
    for name in odd {
        let name = OsString::from_vec(name.to_vec());
        std::fs::write(checkout.join(&name), name.as_bytes()).unwrap();
    }
    std::fs::create_dir_all(checkout.join("--dir/\n")).unwrap();
    std::fs::write(checkout.join("--dir/\n/x"), "x").unwrap();
    symlink("README.md", checkout.join("link")).unwrap();
    symlink("/nowhere/at\nall", checkout.join("dangling")).unwrap();
    symlink("--dir", checkout.join("to a directory")).unwrap();
    std::fs::remove_file(checkout.join("shared.txt")).unwrap();
    symlink("README.md", checkout.join("shared.txt")).unwrap();
    let run = checkout.join("README.md");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(checkout.join("binary"), binary).unwrap();
    std::fs::write(checkout.join("large"), vec![7; 40 * 1024 * 1024]).unwrap();
    std::fs::write(checkout.join("empty"), "").unwrap();
    comes_back(&world);
}

#[test]
fn filters_and_line_endings_do_not_change_a_byte() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    git(&checkout, &["config", "core.autocrlf", "true"]);
    git(&checkout, &["config", "filter.shout.clean", "tr a-z A-Z"]);
    write(&checkout, ".gitattributes", "*.txt filter=shout text\n");
    write(&checkout, "shared.txt", "mixed\r\nends\n");
    write(&checkout, "new.txt", "more\r\nof\nit");
    comes_back(&world);
}

#[test]
fn files_git_was_told_not_to_look_at_are_looked_at() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    git(
        &checkout,
        &["update-index", "--assume-unchanged", "shared.txt"],
    );
    git(&checkout, &["update-index", "--skip-worktree", "README.md"]);
    assert_eq!(rescue(&world, NOW), None);
    write(&checkout, "shared.txt", "hidden\n");
    write(&checkout, "README.md", "hidden too\n");
    comes_back(&world);
}

#[test]
fn an_operation_in_progress_a_lock_and_a_damaged_index_are_no_obstacle() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    commit(&checkout, "shared.txt", "ours\n");
    git(&checkout, &["branch", "mine"]);
    git(&checkout, &["reset", "--quiet", "--hard", "HEAD^"]);
    let lost = commit(&checkout, "shared.txt", "theirs\n");
    let merge = command(&checkout, "git")
        .args(["merge", "mine"])
        .output()
        .unwrap();
    assert!(!merge.status.success());
    std::fs::write(checkout.join(".git/index.lock"), "").unwrap();
    let (place, _) = comes_back(&world);
    assert_eq!(text(&place, "index-stage-1/shared.txt"), "1\n2\n3\n4\n5\n");
    assert_eq!(text(&place, "index-stage-2/shared.txt"), "theirs\n");
    assert_eq!(text(&place, "index-stage-3/shared.txt"), "ours\n");
    assert!(place.join("extra/MERGE_MSG").exists());
    let mine = git(&checkout, &["rev-parse", "mine"]);
    for commit in [lost, CommitId::new(mine)] {
        assert!(world.store.contains(&commit).unwrap());
    }
    std::fs::write(checkout.join(".git/index"), "DIRC damaged").unwrap();
    let again = rescue(&world, Timestamp(NOW.0 + 1)).unwrap();
    let (place, _) = restored(&world, &again);
    assert_eq!(tree(&place.join("worktree")), tree(&checkout));
    assert_eq!(text(&place, "extra/index"), "DIRC damaged");
}

#[test]
fn commits_that_only_the_checkout_has_are_kept() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    let amended = commit(&checkout, "a.txt", "first try\n");
    write(&checkout, "a.txt", "second try\n");
    git(
        &checkout,
        &["commit", "--quiet", "-a", "--amend", "-m", "x"],
    );
    let mut stashes = Vec::new();
    for text in ["one\n", "two\n"] {
        write(&checkout, "a.txt", text);
        git(&checkout, &["stash", "--quiet"]);
        stashes.push(CommitId::new(git(&checkout, &["rev-parse", "stash@{0}"])));
    }
    git(&checkout, &["checkout", "--quiet", "--detach"]);
    let detached = commit(&checkout, "b.txt", "detached\n");
    git(&checkout, &["tag", "-a", "-m", "words of a tag", "v1"]);
    git(&checkout, &["checkout", "--quiet", AGENT]);
    let attached = head(&checkout);
    let (place, _) = comes_back(&world);
    for commit in stashes.into_iter().chain([amended, detached, attached]) {
        assert!(world.store.contains(&commit).unwrap(), "{commit}");
    }
    assert!(text(&place, "extra/tags/v1").contains("words of a tag"));
    // The same again is no other one.
    let snapshot = take(&world, false).unwrap();
    assert!(matches!(
        snapshot.outcome,
        SnapshotOutcome::Nothing | SnapshotOutcome::Same(_)
    ));
}

#[test]
fn repositories_inside_are_kept_as_files_and_their_commits_as_a_bundle() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    let nested = checkout.join("inner dir/nested");
    std::fs::create_dir_all(&nested).unwrap();
    git(&nested, &["init", "--quiet", "--initial-branch=main"]);
    let inner = commit(&nested, "deep/f.txt", "committed\n");
    write(&nested, "g.txt", "staged\n");
    git(&nested, &["add", "g.txt"]);
    write(&nested, "g.txt", "changed\n");
    write(&nested, "h.txt", "untracked\n");
    let (place, _) = comes_back(&world);
    assert_eq!(text(&place, "index/inner dir/nested/g.txt"), "staged\n");
    let clone = world.path().join("clone");
    let bundle = place.join("extra/nested/inner dir/nested.bundle");
    git(
        world.path(),
        &["clone", "--quiet", bundle.to_str().unwrap(), "clone"],
    );
    assert_eq!(head(&clone), inner);
    // A submodule that is clean, with a commit nobody else has.
    git(&checkout, &["add", "."]);
    git(&checkout, &["commit", "--quiet", "-m", "with a submodule"]);
    git(
        &nested,
        &["commit", "--quiet", "--all", "-m", "in the submodule"],
    );
    comes_back_again(&world);
}

fn comes_back_again(world: &World) {
    let checkout = world.spec(AGENT).directory;
    let rescue = rescue(world, Timestamp(NOW.0 + 1)).unwrap();
    let (place, _) = restored(world, &rescue);
    assert_eq!(tree(&place.join("worktree")), tree(&checkout));
}

#[test]
fn before_the_first_commit_everything_comes_back() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    git(&checkout, &["checkout", "--quiet", "--orphan", "fresh"]);
    write(&checkout, "new.txt", "n\n");
    comes_back(&world);
}

#[test]
fn what_cannot_be_taken_is_named() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    std::fs::remove_file(checkout.join("shared.txt")).unwrap();
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        checkout.join("shared.txt"),
        pipe,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::fs::File::create(checkout.join("huge"))
        .unwrap()
        .set_len(101 << 20)
        .unwrap();
    let view = rescue(&world, NOW).unwrap();
    let named: Vec<&str> = view
        .left_out
        .iter()
        .map(|left| left.path.as_str())
        .collect();
    assert_eq!(named, ["shared.txt", "huge"]);
    let state = inspect(&checkout);
    let loss = world.store.loss_of_checkout(&state, Some(&view)).unwrap();
    assert!(matches!(loss, Reachability::WouldLose { files, .. } if files == named));
}

#[test]
fn the_same_content_makes_no_second_one_and_a_lost_bundle_comes_with_the_next() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    write(&checkout, "a.txt", "one\n");
    // Made, and never taken in.
    let SnapshotOutcome::Taken(lost) = take(&world, false).unwrap().outcome else {
        panic!("nothing was taken");
    };
    assert_ne!(git(&checkout, &["for-each-ref", "refs/orchestrator"]), "");
    write(&checkout, "a.txt", "two\n");
    let snapshot = take(&world, false).unwrap();
    assert_eq!(snapshot.also, std::slice::from_ref(&lost));
    let agent = AgentId::new(AGENT);
    let import = || {
        world
            .store
            .import_rescue(&agent, &reason(NOW), &snapshot, MAX as u64)
    };
    let view = import().unwrap().unwrap();
    assert_eq!(import().unwrap().unwrap(), view, "twice is once");
    assert_eq!(world.store.rescues().unwrap().len(), 2);
    let again = take(&world, false).unwrap();
    assert!(matches!(again.outcome, SnapshotOutcome::Same(_)));
    assert_eq!(again.bundle, b"");
    assert_eq!(git(&checkout, &["for-each-ref", "refs/orchestrator"]), "");
    assert_eq!(rescue(&world, NOW), Some(view));
}

#[test]
fn routine_snapshots_are_thinned_out_and_others_are_not() {
    const HOUR: i64 = 3600 * 1000;
    let world = World::new();
    let checkout = world.checkout(AGENT);
    let agent = AgentId::new(AGENT);
    let mut views = Vec::new();
    for (number, (hours, keep)) in [(0, false), (1, true), (2, false), (3, false)]
        .iter()
        .enumerate()
    {
        write(&checkout, "a.txt", &format!("{number}\n"));
        if number == 2 {
            // Only this snapshot leads to what the agent takes back right afterwards.
            git(&checkout, &["checkout", "--quiet", "--detach"]);
            commit(&checkout, "b.txt", "b\n");
            write(&checkout, "a.txt", "2\n");
        }
        let snapshot = take(&world, false).unwrap();
        let reason = RescueReason {
            cause: "x",
            at: Timestamp(NOW.0 + hours * HOUR / 10),
            keep: *keep,
        };
        let view = world
            .store
            .import_rescue(&agent, &reason, &snapshot, MAX as u64);
        views.push(view.unwrap().unwrap());
        if number == 2 {
            git(&checkout, &["checkout", "--quiet", AGENT]);
            std::fs::remove_file(checkout.join(".git/logs/HEAD")).unwrap();
        }
    }
    let ids =
        |views: &[RescueView]| -> Vec<String> { views.iter().map(|v| v.id.clone()).collect() };
    let rule = Retention::default();
    let thin = |hours: i64| {
        world
            .store
            .thin_rescues(Timestamp(NOW.0 + hours * HOUR), &rule)
            .unwrap()
    };
    assert_eq!(thin(20).dropped, []);
    assert_eq!(ids(&thin(48).dropped), ids(&views[..1]));
    assert_eq!(thin(20 * 24).dropped, []);
    assert_eq!(thin(31 * 24).dropped.len(), 3);
    assert_eq!(world.store.rescues().unwrap(), []);
}

#[test]
fn what_a_reference_alone_leads_to_is_named() {
    let world = World::new();
    let checkout = world.checkout(AGENT);
    let new = commit(&checkout, "a.txt", "a\n");
    world.import(AGENT).unwrap();
    let name = "refs/workers/worker-1/head";
    let Reachability::WouldLose { commits, .. } = world.store.loss_of_reference(name).unwrap()
    else {
        panic!("nothing would be lost");
    };
    assert_eq!(commits, std::slice::from_ref(&new));
    let state = inspect(&checkout);
    assert_eq!(
        world.store.loss_of_checkout(&state, None).unwrap(),
        Reachability::Kept
    );
    world.store.merge(&new, "Merge", &[]).unwrap();
    assert_eq!(
        world.store.loss_of_reference(name).unwrap(),
        Reachability::Kept
    );
    write(&checkout, "b.txt", "b\n");
    let state = inspect(&checkout);
    assert_eq!(
        world.store.loss_of_checkout(&state, None).unwrap_err().kind,
        ErrorKind::Refused
    );
}
