//! The proof that nothing is lost: a random agent, a random supervisor, real git and the real
//! scripts, which are killed at a random call of git before, while or after it runs.
//!
//! After every step of the supervisor: each content and each commit that was in the checkout when the
//! step began can be read from the store, the checkout or the trash; and what a finished snapshot saw
//! can be read from the store alone, for ever after, and be written out as it was.
//!
//! `ORCHESTRATOR_SEED` (a number) repeats a run, `ORCHESTRATOR_SECONDS` says how long to search.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid};
use orchestrator::model::Timestamp;
use orchestrator::worktree::sandbox::{Snapshot, SnapshotOutcome};
use orchestrator::worktree::{RescueReason, Retention, Trash};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::rescue::tree;
use super::*;

const AGENT: &str = "worker-1";
const MAX: usize = 256 * 1024 * 1024;

/// What the agent does. What git refuses, it refuses.
#[derive(Clone, Debug)]
enum Agent {
    Edit { file: usize, text: u8 },
    Binary { file: usize, kilobytes: u16 },
    Delete { file: usize },
    Link { file: usize, to: usize },
    Mode { file: usize },
    DirectoryForFile { file: usize },
    Stage { file: usize },
    StageAll,
    Commit,
    Amend,
    ResetHard,
    Stash,
    StashPop,
    Detach,
    Branch { name: usize },
    MergeBranch { name: usize },
    RebaseStops,
    Continue,
    Abort,
    Nested { text: u8 },
    NestedCommit,
    Submodule,
    HideFile { file: usize },
    DamageIndex,
    Lock,
    Repair,
    PersonPushes { file: usize, text: u8 },
}

#[derive(Clone, Debug)]
enum Boss {
    Snapshot {
        crash: Option<Crash>,
    },
    /// The bundle is lost between the checkout and the store, or arrives cut off.
    SnapshotLost {
        cut: Option<u16>,
    },
    Import {
        crash: Option<Crash>,
    },
    BringUp {
        crash: Option<Crash>,
    },
    Merge,
    Trash {
        crash: u8,
    },
    RestoreTrash,
    RestoreRescue {
        which: usize,
    },
    Thin {
        days: i64,
    },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
struct Crash {
    at: u8,
    when: &'static str,
}

#[derive(Clone, Debug)]
enum Step {
    Agent(Agent),
    Boss(Boss),
}

const FILES: [&[u8]; 8] = [
    b"shared.txt",
    b"a/one.txt",
    b"line\nbreak",
    b"\"quoted\" \\",
    b"--option",
    b"bytes \xff\xfe",
    b"a/b/two.bin",
    b"LIST.md",
];

fn agent() -> impl Strategy<Value = Agent> {
    let (file, text) = (0..FILES.len(), any::<u8>());
    prop_oneof![
        8 => (file.clone(), text).prop_map(|(file, text)| Agent::Edit { file, text }),
        2 => (file.clone(), 1..300_u16).prop_map(|(file, kilobytes)| Agent::Binary { file, kilobytes }),
        2 => file.clone().prop_map(|file| Agent::Delete { file }),
        1 => (file.clone(), file.clone()).prop_map(|(file, to)| Agent::Link { file, to }),
        1 => file.clone().prop_map(|file| Agent::Mode { file }),
        1 => file.clone().prop_map(|file| Agent::DirectoryForFile { file }),
        3 => file.clone().prop_map(|file| Agent::Stage { file }),
        3 => Just(Agent::StageAll),
        4 => Just(Agent::Commit),
        2 => Just(Agent::Amend),
        1 => Just(Agent::ResetHard),
        2 => Just(Agent::Stash),
        1 => Just(Agent::StashPop),
        1 => Just(Agent::Detach),
        2 => (0..2_usize).prop_map(|name| Agent::Branch { name }),
        2 => (0..2_usize).prop_map(|name| Agent::MergeBranch { name }),
        1 => Just(Agent::RebaseStops),
        1 => Just(Agent::Continue),
        1 => Just(Agent::Abort),
        1 => any::<u8>().prop_map(|text| Agent::Nested { text }),
        1 => Just(Agent::NestedCommit),
        1 => Just(Agent::Submodule),
        1 => file.clone().prop_map(|file| Agent::HideFile { file }),
        1 => Just(Agent::DamageIndex),
        1 => Just(Agent::Lock),
        2 => Just(Agent::Repair),
        2 => (file, any::<u8>()).prop_map(|(file, text)| Agent::PersonPushes { file, text }),
    ]
}

fn crash() -> impl Strategy<Value = Option<Crash>> {
    let when = prop_oneof![Just("before"), Just("during"), Just("after")];
    prop_oneof![
        1 => Just(None),
        2 => (1..16_u8, when).prop_map(|(at, when)| Some(Crash { at, when })),
    ]
}

fn boss() -> impl Strategy<Value = Boss> {
    prop_oneof![
        4 => crash().prop_map(|crash| Boss::Snapshot { crash }),
        1 => prop::option::of(any::<u16>()).prop_map(|cut| Boss::SnapshotLost { cut }),
        2 => crash().prop_map(|crash| Boss::Import { crash }),
        4 => crash().prop_map(|crash| Boss::BringUp { crash }),
        2 => Just(Boss::Merge),
        2 => (0..4_u8).prop_map(|crash| Boss::Trash { crash }),
        1 => Just(Boss::RestoreTrash),
        1 => (0..8_usize).prop_map(|which| Boss::RestoreRescue { which }),
        1 => (0..20_i64).prop_map(|days| Boss::Thin { days }),
        1 => Just(Boss::Reopen),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => agent().prop_map(Step::Agent), 2 => boss().prop_map(Step::Boss)]
}

/// Mode and content by path.
type Files = BTreeMap<Vec<u8>, (u32, Vec<u8>)>;

/// Objects by id, and the working tree by path.
#[derive(Default)]
struct Picture {
    contents: BTreeSet<String>,
    commits: BTreeSet<String>,
    /// The index and the commit of the repository inside; in the store they are part of a bundle.
    nested: BTreeSet<String>,
    files: Files,
}

struct Model {
    world: World,
    tree: PathBuf,
    now: i64,
    /// What finished snapshots saw: ids that the store has for ever after.
    promised: BTreeSet<String>,
    /// Files of each snapshot, by its id.
    pictures: BTreeMap<String, Files>,
    places: usize,
}

fn hashed(bytes: &[u8]) -> String {
    Oid::hash_object(ObjectType::Blob, bytes)
        .unwrap()
        .to_string()
}

/// Standard output of a git command that may fail.
fn tried(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = command(directory, "git").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

fn ids(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
}

/// Every object that references, logs and the index of a repository lead to.
fn objects(repository: &Path) -> BTreeSet<String> {
    let all = [
        "rev-list",
        "--objects",
        "--all",
        "--reflog",
        "--ignore-missing",
    ];
    let mut found: BTreeSet<String> = tried(repository, &all)
        .iter()
        .flat_map(|text| ids(text))
        .collect();
    found.extend(index(repository));
    found
}

fn index(repository: &Path) -> BTreeSet<String> {
    let listed = tried(repository, &["ls-files", "-s", "-z"]).unwrap_or_default();
    let entries = listed
        .split('\0')
        .filter(|entry| !entry.starts_with("160000"));
    entries
        .filter_map(|entry| entry.split(' ').nth(1))
        .map(str::to_owned)
        .collect()
}

impl Model {
    fn new() -> Self {
        let world = World::new();
        let tree = world.checkout(AGENT);
        Self {
            world,
            tree,
            now: 1_795_262_400_000,
            promised: BTreeSet::new(),
            pictures: BTreeMap::new(),
            places: 0,
        }
    }

    fn file(&self, file: usize) -> PathBuf {
        self.tree.join(OsString::from_vec(FILES[file].to_vec()))
    }

    fn git(&self, arguments: &[&str]) -> Option<String> {
        let mut command = command(&self.tree, "git");
        command
            .env("GIT_EDITOR", "true")
            .env("GIT_SEQUENCE_EDITOR", "sed -i 1s/pick/edit/");
        let output = command.args(arguments).output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn agent(&mut self, action: &Agent) {
        let nested = self.tree.join("nested");
        let branch = |name: usize| ["one", "two"][name];
        match *action {
            Agent::Edit { file, text } => {
                self.write(file, format!("line {text}\r\nend {text}").as_bytes());
            }
            Agent::Binary { file, kilobytes } => {
                let noise = (0..u32::from(kilobytes) * 1024)
                    .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8);
                self.write(file, &noise.collect::<Vec<u8>>());
            }
            Agent::Delete { file } => self.clear(file),
            Agent::Link { file, to } => {
                self.clear(file);
                let target = OsString::from_vec(FILES[to].to_vec());
                let _ = self.parent(file).map(|()| symlink(target, self.file(file)));
            }
            Agent::Mode { file } => {
                let mode = std::fs::Permissions::from_mode(0o755);
                if self
                    .file(file)
                    .symlink_metadata()
                    .is_ok_and(|about| about.is_file())
                {
                    std::fs::set_permissions(self.file(file), mode).unwrap();
                }
            }
            Agent::DirectoryForFile { file } => {
                self.clear(file);
                let inside = self.file(file).join("inside");
                let made = std::fs::create_dir_all(self.file(file));
                let _ = made.and_then(|()| std::fs::write(inside, "inside"));
            }
            Agent::Stage { file } => {
                let path = self.file(file);
                let _ = command(&self.tree, "git")
                    .args(["add", "--"])
                    .arg(path)
                    .output()
                    .unwrap();
            }
            Agent::StageAll => drop(self.git(&["add", "--all"])),
            Agent::Commit => drop(self.git(&["commit", "-q", "--allow-empty", "-m", "work"])),
            Agent::Amend => {
                drop(self.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "again"]));
            }
            Agent::ResetHard => drop(self.git(&["reset", "-q", "--hard"])),
            Agent::Stash => drop(self.git(&["stash", "-q", "--include-untracked"])),
            Agent::StashPop => drop(self.git(&["stash", "pop", "-q"])),
            Agent::Detach => drop(self.git(&["checkout", "-q", "--detach"])),
            Agent::Branch { name } => {
                let _ = self
                    .git(&["checkout", "-q", branch(name)])
                    .or_else(|| self.git(&["checkout", "-q", "-b", branch(name)]));
            }
            Agent::MergeBranch { name } => {
                drop(self.git(&["merge", "-q", "--no-edit", branch(name)]));
            }
            Agent::RebaseStops => drop(self.git(&["rebase", "-q", "-i", "--root"])),
            Agent::Continue => {
                let _ = self
                    .git(&["rebase", "--continue"])
                    .or_else(|| self.git(&["checkout", "-q", AGENT]));
            }
            Agent::Abort => {
                let _ = self
                    .git(&["rebase", "--abort"])
                    .or_else(|| self.git(&["merge", "--abort"]));
            }
            Agent::Nested { text } => {
                std::fs::create_dir_all(&nested).unwrap();
                if !nested.join(".git").exists() {
                    git(&nested, &["init", "-q", "--initial-branch=main"]);
                }
                write(&nested, "staged", &format!("staged {text}"));
                git(&nested, &["add", "staged"]);
                write(&nested, "staged", &format!("changed {text}"));
                write(&nested, "deep/untracked", &format!("untracked {text}"));
            }
            Agent::NestedCommit => {
                if nested.join(".git").exists() {
                    git(&nested, &["commit", "-q", "--allow-empty", "-m", "inside"]);
                }
            }
            Agent::Submodule => {
                let from = self.world.remote();
                let words = [
                    "-c",
                    "protocol.file.allow=always",
                    "submodule",
                    "--quiet",
                    "add",
                ];
                let _ = self.git(&[&words[..], &[from.to_str().unwrap(), "sub"]].concat());
            }
            Agent::HideFile { file } => {
                let mut command = command(&self.tree, "git");
                command.args(["update-index", "--assume-unchanged", "--"]);
                let _ = command.arg(self.file(file)).output().unwrap();
            }
            Agent::DamageIndex => std::fs::write(self.tree.join(".git/index"), "DIRC\0\0").unwrap(),
            Agent::Lock => std::fs::write(self.tree.join(".git/index.lock"), "").unwrap(),
            Agent::Repair => {
                let _ = std::fs::remove_file(self.tree.join(".git/index.lock"));
                if self.git(&["ls-files"]).is_none() {
                    std::fs::remove_file(self.tree.join(".git/index")).unwrap();
                    self.git(&["reset", "-q"]);
                }
            }
            Agent::PersonPushes { file, text } => self.person(file, text),
        }
    }

    fn person(&mut self, file: usize, text: u8) {
        let clone = self.world.person();
        let path = clone.join(OsString::from_vec(FILES[file].to_vec()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("line {text}\r\nend {text}")).unwrap();
        git(&clone, &["add", "--all"]);
        git(&clone, &["commit", "-q", "--allow-empty", "-m", "person"]);
        git(&clone, &["push", "-q", "origin", "HEAD:main"]);
        self.world.store.fetch().unwrap();
        self.world.store.integrate_remote().unwrap();
    }

    fn parent(&self, file: usize) -> std::io::Result<()> {
        std::fs::create_dir_all(self.file(file).parent().unwrap())
    }

    /// A file that is in the way of the path is the agent's to keep.
    fn write(&self, file: usize, bytes: &[u8]) {
        self.clear(file);
        let _ = self
            .parent(file)
            .and_then(|()| std::fs::write(self.file(file), bytes));
    }

    fn clear(&self, file: usize) {
        let path = self.file(file);
        match path.symlink_metadata() {
            Ok(about) if about.is_dir() => std::fs::remove_dir_all(path).unwrap(),
            Ok(_) => std::fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
    }

    /// Everything that is in the checkout.
    fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        if !self.tree.exists() {
            return picture;
        }
        picture.files = tree(&self.tree);
        picture.contents = picture
            .files
            .values()
            .map(|(_, bytes)| hashed(bytes))
            .collect();
        picture.contents.extend(index(&self.tree));
        let nested = self.tree.join("nested");
        if nested.join(".git").exists() {
            picture.nested = index(&nested);
            let head = tried(&nested, &["rev-parse", "-q", "--verify", "HEAD"]);
            picture.nested.extend(head.map(|id| id.trim().to_owned()));
        }
        // Not the snapshots themselves: the store has commits of its own around their trees.
        let commits = [
            "rev-list",
            "--exclude=refs/orchestrator/*",
            "--all",
            "--reflog",
            "--ignore-missing",
        ];
        picture.commits = tried(&self.tree, &commits)
            .iter()
            .flat_map(|text| ids(text))
            .collect();
        picture
    }

    fn readable_in_store(&self) -> BTreeSet<String> {
        let text = git(self.world.store.path(), &["rev-list", "--objects", "--all"]);
        ids(&text).collect()
    }

    fn readable(&self) -> BTreeSet<String> {
        let mut found = self.readable_in_store();
        let trash = Trash::open(&self.state()).unwrap();
        let thrown = trash.list().unwrap().into_iter();
        let thrown = thrown.map(|entry| self.state().join("trash").join(entry.id).join("content"));
        for place in thrown
            .chain([self.tree.clone()])
            .filter(|place| place.exists())
        {
            found.extend(tree(&place).values().map(|(_, bytes)| hashed(bytes)));
            found.extend(objects(&place));
            if place.join("nested/.git").exists() {
                found.extend(objects(&place.join("nested")));
            }
        }
        found
    }

    fn state(&self) -> PathBuf {
        self.world.path().join("state")
    }

    /// Runs a script; `None` if it was killed.
    fn script(&self, spec: &ExecSpec, crash: Option<Crash>) -> Option<ExecOutput> {
        let Some(crash) = crash else {
            return Some(execute(spec));
        };
        let place = self.world.path().join("crash");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("git"), WRAPPER).unwrap();
        std::fs::set_permissions(place.join("git"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        std::fs::write(place.join("count"), "0").unwrap();
        let path = std::env::var("PATH").unwrap();
        let program = if spec.command[0] == sandbox::HELPER {
            helper()
        } else {
            Path::new(&spec.command[0])
        };
        let output = command(
            Path::new(spec.working_directory.as_ref().unwrap()),
            program.to_str().unwrap(),
        )
        .args(&spec.command[1..])
        .envs(&spec.environment)
        .env("PATH", format!("{}:{path}", place.display()))
        .env("REAL_PATH", path)
        .env("CRASH_AT", crash.at.to_string())
        .env("CRASH_WHEN", crash.when)
        .env("CRASH_COUNT", place.join("count"))
        .process_group(0)
        .output()
        .unwrap();
        let exit_code = output.status.code()?.into();
        Some(ExecOutput {
            exit_code,
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    fn snapshot(&self, crash: Option<Crash>) -> Option<Snapshot> {
        let known = self.world.store.rescue_known(&AgentId::new(AGENT)).unwrap();
        let spec = sandbox::snapshot(self.tree.to_str().unwrap(), &known, false, MAX);
        let output = self.script(&spec, crash)?;
        let said = sandbox::checked("snapshot", output).unwrap();
        Some(sandbox::parse_snapshot(said).unwrap())
    }

    /// Takes a snapshot in, and holds it to what was in the checkout.
    fn keep(&mut self, snapshot: &Snapshot, before: &Picture) {
        let reason = RescueReason {
            cause: "before a step",
            at: Timestamp(self.now),
            keep: true,
        };
        let agent = AgentId::new(AGENT);
        let view = self
            .world
            .store
            .import_rescue(&agent, &reason, snapshot, MAX as u64)
            .unwrap();
        if let Some(view) = view {
            assert_eq!(view.left_out, [], "nothing here is too large");
            self.pictures.insert(view.id.clone(), before.files.clone());
            let place = self.written_out(&view.id);
            if self.tree.join("nested/.git").exists()
                && let Some(head) = tried(
                    &self.tree.join("nested"),
                    &["rev-parse", "-q", "--verify", "HEAD"],
                )
            {
                let bundle = place.join("extra/nested/nested.bundle");
                let heads = git(&place, &["bundle", "list-heads", bundle.to_str().unwrap()]);
                assert!(heads.contains(head.trim()), "{heads}");
            }
        }
        self.promised
            .extend(before.contents.iter().chain(&before.commits).cloned());
    }

    fn written_out(&mut self, id: &str) -> PathBuf {
        self.places += 1;
        let place = self.world.path().join(format!("restored-{}", self.places));
        self.world.store.restore_rescue(id, &place).unwrap();
        let found = tree(&place.join("worktree"));
        let wanted = &self.pictures[id];
        for path in found.keys().chain(wanted.keys()) {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(
                found.get(path),
                wanted.get(path),
                "{shown} in the snapshot {id}"
            );
        }
        place
    }

    fn boss(&mut self, action: &Boss, before: &Picture) {
        match *action {
            Boss::Snapshot { crash } => {
                if let Some(snapshot) = self.snapshot(crash) {
                    self.keep(&snapshot, before);
                }
            }
            Boss::SnapshotLost { cut } => {
                let mut snapshot = self.snapshot(None).unwrap();
                if let (Some(cut), SnapshotOutcome::Taken(_)) = (cut, &snapshot.outcome) {
                    let length = usize::from(cut) % snapshot.bundle.len().max(1);
                    snapshot.bundle.truncate(length);
                    let reason = RescueReason {
                        cause: "cut off",
                        at: Timestamp(self.now),
                        keep: true,
                    };
                    let agent = AgentId::new(AGENT);
                    let imported = self
                        .world
                        .store
                        .import_rescue(&agent, &reason, &snapshot, MAX as u64);
                    assert!(imported.is_err(), "a bundle that was cut off");
                }
            }
            Boss::Import { crash } => drop(self.import(crash)),
            Boss::BringUp { crash } => {
                let tip = self.world.store.branch_head().unwrap();
                let spec = sandbox::bring_up_to(self.tree.to_str().unwrap(), &tip, "main");
                self.script(&spec, crash);
            }
            Boss::Merge => {
                if let Some(head) = self.import(None)
                    && let Err(error) = self.world.store.merge(&head, "Merge", &[])
                {
                    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
                }
            }
            Boss::Trash { crash } => self.throw_away(crash, before),
            Boss::RestoreTrash => {
                let trash = Trash::open(&self.state()).unwrap();
                if let Some(entry) = trash.list().unwrap().first() {
                    self.places += 1;
                    let swap = self.world.path().join(format!("swap-{}", self.places));
                    if self.tree.exists() {
                        // What is in its place goes into the trash first.
                        trash
                            .discard(&self.tree, "swapped", Timestamp(self.now), Trash::RETENTION)
                            .unwrap();
                    }
                    trash.restore(&entry.id, Some(&swap)).unwrap();
                    std::fs::rename(swap, &self.tree).unwrap();
                }
            }
            Boss::RestoreRescue { which } => {
                let ids: Vec<String> = self.pictures.keys().cloned().collect();
                if !ids.is_empty() {
                    let _place = self.written_out(&ids[which % ids.len()]);
                }
            }
            Boss::Thin { days } => {
                let later = Timestamp(self.now + days * 24 * 3600 * 1000);
                let thinned = self
                    .world
                    .store
                    .thin_rescues(later, &Retention::default())
                    .unwrap();
                for view in thinned.dropped {
                    // Only one that never was in our hands: its bundle had been lost.
                    assert!(!self.pictures.contains_key(&view.id), "{view:?}");
                }
            }
            Boss::Reopen => self.world.store = open(self.world.path(), "main").unwrap(),
        }
    }

    fn import(&mut self, crash: Option<Crash>) -> Option<CommitId> {
        let head = CommitId::new(
            tried(
                &self.tree,
                &["rev-parse", "-q", "--verify", "HEAD^{commit}"],
            )?
            .trim(),
        );
        let spec = sandbox::export(
            self.tree.to_str().unwrap(),
            Some(&head),
            &self.world.known(AGENT),
            MAX,
        );
        let output = self.script(&spec, crash)?;
        let bundle = sandbox::checked("export", output).unwrap();
        let agent = AgentId::new(AGENT);
        let source = BundleSource::Bytes(&bundle);
        self.world
            .store
            .import_bundle(&agent, source, &head, LIMIT)
            .unwrap();
        self.promised.insert(head.as_str().to_owned());
        Some(head)
    }

    /// As a worker is removed: a snapshot, then the trash. `crash`: how far it gets.
    fn throw_away(&mut self, crash: u8, before: &Picture) {
        let snapshot = self.snapshot(None).unwrap();
        if crash == 1 {
            return;
        }
        self.keep(&snapshot, before);
        let trash = Trash::open(&self.state()).unwrap();
        if crash == 2 {
            // Written down, and not moved.
            let half = self.state().join("trash/0000000000001-checkout");
            std::fs::create_dir(half).unwrap();
            return;
        }
        trash
            .discard(&self.tree, "removed", Timestamp(self.now), Trash::RETENTION)
            .unwrap();
        if crash != 3 {
            self.world.checkout(AGENT);
        }
    }

    fn check(&self, before: &Picture, step: &Boss) {
        let readable = self.readable();
        let all = before.contents.iter().chain(&before.commits);
        for id in all.chain(&before.nested) {
            assert!(
                readable.contains(id),
                "{id} is nowhere after {step:?}: {}",
                Self::what(id, before)
            );
        }
        let store = self.readable_in_store();
        for id in &self.promised {
            assert!(
                store.contains(id),
                "{id} is not in the store after {step:?}: {}",
                Self::what(id, before)
            );
        }
    }

    fn what(id: &str, before: &Picture) -> String {
        let named = before
            .files
            .iter()
            .find(|(_, (_, bytes))| hashed(bytes) == id);
        named.map_or_else(
            || "a commit, or staged".to_owned(),
            |(path, _)| String::from_utf8_lossy(path).into_owned(),
        )
    }

    fn take(&mut self, step: &Step) {
        self.now += 60_000;
        match step {
            Step::Agent(action) if self.tree.exists() => self.agent(action),
            Step::Agent(_) => {}
            Step::Boss(action) => {
                if !self.tree.exists() {
                    // As at every start.
                    self.world.checkout(AGENT);
                }
                let before = self.picture();
                self.boss(action, &before);
                self.check(&before, action);
            }
        }
    }
}

/// Counts its calls, and ends the whole process group at one of them.
const WRAPPER: &str = r#"#!/bin/sh
n=$(($(cat "$CRASH_COUNT") + 1))
echo $n > "$CRASH_COUNT"
export PATH="$REAL_PATH"
if [ $n -eq "$CRASH_AT" ]; then
    case $CRASH_WHEN in
    after) git "$@" ;;
    during) git "$@" <&0 & sleep 0.00$n ;;
    esac
    kill -KILL 0
fi
exec git "$@"
"#;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play(steps: &[Step]) -> Result<(), TestCaseError> {
    let steps = steps.to_vec();
    let played = std::panic::catch_unwind(move || {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
        }
        // Not only the ids: every object is there, and sound.
        git(
            model.world.store.path(),
            &["fsck", "--full", "--connectivity-only"],
        );
    });
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        TestCaseError::fail(
            text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()))
                .unwrap_or_default(),
        )
    })
}

#[test]
fn every_byte_can_be_restored_whatever_happens_and_wherever_it_crashes() {
    let seed = variable("ORCHESTRATOR_SEED").unwrap_or_else(|| u64::from(rand_seed()));
    let seconds = variable("ORCHESTRATOR_SECONDS").unwrap_or(45);
    println!("ORCHESTRATOR_SEED={seed} repeats this run");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let sequences = prop::collection::vec(step(), 6..30);
    let begun = Instant::now();
    let mut played = 0;
    while played < 3 || begun.elapsed() < Duration::from_secs(seconds) {
        let sequence = sequences.new_tree(&mut runner).unwrap();
        played += 1;
        match runner.run_one(sequence, |steps| play(&steps)) {
            Ok(_) => {}
            Err(TestError::Fail(why, steps)) => panic!("seed {seed}: {why}\n{steps:#?}"),
            Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{played} sequences");
}

fn rand_seed() -> u32 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    now.subsec_nanos() ^ std::process::id()
}
