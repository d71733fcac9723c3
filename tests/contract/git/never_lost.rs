//! Random agents and a random supervisor: no committed or uncommitted byte is ever lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Edit { agent: usize, file: usize, text: u8 },
    Commit { agent: usize },
    Amend { agent: usize },
    Retreat { agent: usize },
    Import { agent: usize },
    Merge { agent: usize },
    BringUp { agent: usize },
    EnsureAgain { agent: usize },
    PersonPushes { file: usize, text: u8 },
    FetchAndIntegrate,
    Push,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..2_usize;
    let (file, text) = (0..4_usize, any::<u8>());
    prop_oneof![
        4 => (agent.clone(), file.clone(), text).prop_map(|(agent, file, text)| Step::Edit { agent, file, text }),
        3 => agent.clone().prop_map(|agent| Step::Commit { agent }),
        1 => agent.clone().prop_map(|agent| Step::Amend { agent }),
        1 => agent.clone().prop_map(|agent| Step::Retreat { agent }),
        2 => agent.clone().prop_map(|agent| Step::Import { agent }),
        2 => agent.clone().prop_map(|agent| Step::Merge { agent }),
        3 => agent.clone().prop_map(|agent| Step::BringUp { agent }),
        1 => agent.prop_map(|agent| Step::EnsureAgain { agent }),
        1 => (file, any::<u8>()).prop_map(|(file, text)| Step::PersonPushes { file, text }),
        1 => Just(Step::FetchAndIntegrate),
        1 => Just(Step::Push),
        1 => Just(Step::Reopen),
    ]
}

const AGENTS: [&str; 2] = ["worker-1", "worker-2"];
const FILES: [&str; 4] = ["shared.txt", "a/one.txt", "b.txt", "LIST.md"];

struct Model {
    world: World,
    trees: Vec<PathBuf>,
    /// Uncommitted contents by agent and path.
    unsaved: Vec<BTreeMap<&'static str, String>>,
    /// Every commit the store ever took.
    imported: BTreeSet<CommitId>,
}

impl Model {
    fn new() -> Self {
        let world = World::new();
        let trees = AGENTS.iter().map(|agent| world.checkout(agent)).collect();
        Self {
            world,
            trees,
            unsaved: vec![BTreeMap::new(); 2],
            imported: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Edit { agent, file, text } => {
                let content = format!("line {text}\n");
                write(&self.trees[agent], FILES[file], &content);
                self.unsaved[agent].insert(FILES[file], content);
            }
            Step::Commit { agent } => {
                self.commit(agent, &["--allow-empty"]);
            }
            Step::Amend { agent } => self.commit(agent, &["--amend", "--allow-empty"]),
            Step::Retreat { agent } => {
                // The agent drops its newest commit but keeps the files: they are unsaved again.
                let tree = &self.trees[agent];
                let back = command(tree, "git")
                    .args(["rev-parse", "-q", "--verify", "HEAD^"])
                    .output();
                if back.is_ok_and(|output| output.status.success()) {
                    git(tree, &["reset", "--quiet", "--soft", "HEAD^"]);
                }
            }
            Step::Import { agent } => {
                let head = self.world.import(AGENTS[agent]).unwrap();
                self.imported.insert(head);
            }
            Step::Merge { agent } => {
                let head = self.world.import(AGENTS[agent]).unwrap();
                self.imported.insert(head.clone());
                let tick = FileEdit::new("LIST.md", |old| {
                    Some([old.unwrap_or_default(), b"tick\n"].concat())
                });
                if let Err(error) = self.world.store.merge(&head, "Merge", &[tick]) {
                    // The agent amended the very first commit: no common history any more.
                    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
                }
                self.imported
                    .insert(self.world.store.branch_head().unwrap());
            }
            Step::BringUp { agent } => {
                let tip = self.world.store.branch_head().unwrap();
                bring_up(&self.trees[agent], &tip);
            }
            Step::EnsureAgain { agent } => {
                self.world.checkout(AGENTS[agent]);
            }
            Step::PersonPushes { file, text } => {
                let same = format!("person {text}\n");
                let clone = self.world.person();
                write(&clone, FILES[file], &same);
                git(&clone, &["add", "--all"]);
                git(
                    &clone,
                    &["commit", "--quiet", "--allow-empty", "-m", "person"],
                );
                git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
            }
            Step::FetchAndIntegrate => {
                self.imported
                    .insert(self.world.store.fetch().unwrap().remote_head);
                self.world.store.integrate_remote().unwrap();
                self.imported
                    .insert(self.world.store.branch_head().unwrap());
            }
            Step::Push => {
                self.world.store.push().unwrap();
            }
            Step::Reopen => self.world.store = open(self.world.path(), "main").unwrap(),
        }
    }

    fn commit(&mut self, agent: usize, options: &[&str]) {
        let tree = &self.trees[agent];
        git(tree, &["add", "--all"]);
        let mut arguments = vec!["commit", "--quiet", "-m", "work"];
        arguments.extend(options);
        git(tree, &arguments);
        self.unsaved[agent].clear();
    }

    fn check(&self) {
        for (tree, unsaved) in self.trees.iter().zip(&self.unsaved) {
            for (path, content) in unsaved {
                assert_eq!(&text(tree, path), content, "unsaved work in {path}");
            }
        }
        let store = self.world.store.path();
        let reachable = git(store, &["rev-list", "--all"]);
        let reachable: BTreeSet<&str> = reachable.lines().collect();
        for commit in &self.imported {
            assert!(
                reachable.contains(commit.as_str()),
                "{commit} is not reachable any more"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_is_lost_whatever_happens(steps in prop::collection::vec(step(), 5..25)) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            model.check();
        }
        // Not only the commits: every object below every reference is there and sound.
        git(model.world.store.path(), &["fsck", "--full", "--strict", "--connectivity-only"]);
    }
}
