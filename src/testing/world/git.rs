//! Symbolic git: a commit is the set of commits it contains.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AgentId, CommitId, CommitNote, GateOutcome, GateRecord, Span, Work};
use crate::supervisor::{
    GatesOutcome, LandOutcome, MergeOutcome, PushOutcome, RemoteOutcome, StackCandidate,
    StackMember, StackOutcome,
};

type Contents = BTreeSet<CommitId>;

/// The store, the checkouts' heads and the remote.
#[derive(Clone, Debug)]
pub struct WorldGit {
    commits: BTreeMap<CommitId, Contents>,
    /// Who made the commits that are work.
    authors: BTreeMap<CommitId, AgentId>,
    made: u32,
    pub branch: CommitId,
    pub remote: CommitId,
    pub heads: BTreeMap<AgentId, CommitId>,
    /// Paths in which the next commit of this agent will conflict with the branch; `remote` for
    /// commits of others.
    pub conflicts_on_demand: BTreeMap<String, String>,
    /// Commits that do not merge cleanly, and where.
    conflicting: BTreeMap<CommitId, String>,
    /// Commits made by merging others by hand, with what they contain.
    resolutions: BTreeMap<CommitId, Contents>,
    /// What the remote says instead of taking a push, once per entry.
    pub push_faults: Vec<PushOutcome>,
    pub fetch_faults: Vec<String>,
    /// One candidate, or a whole stack, that cannot be merged, once per entry.
    pub merge_faults: Vec<String>,
    pub stack_faults: Vec<String>,
    /// Gates that cannot be run, once per entry.
    pub gate_faults: Vec<String>,
    /// The gate that the next commit of this agent will not pass; `remote` for commits of others.
    pub red_on_demand: BTreeMap<String, String>,
    /// Commits on which a gate is red, and those that mend them.
    red: BTreeMap<CommitId, (String, Vec<CommitId>)>,
}

impl Default for WorldGit {
    fn default() -> Self {
        let mut git = Self {
            commits: BTreeMap::new(),
            authors: BTreeMap::new(),
            made: 0,
            branch: CommitId::new(""),
            remote: CommitId::new(""),
            heads: BTreeMap::new(),
            conflicts_on_demand: BTreeMap::new(),
            conflicting: BTreeMap::new(),
            resolutions: BTreeMap::new(),
            push_faults: Vec::new(),
            fetch_faults: Vec::new(),
            merge_faults: Vec::new(),
            stack_faults: Vec::new(),
            gate_faults: Vec::new(),
            red_on_demand: BTreeMap::new(),
            red: BTreeMap::new(),
        };
        let root = git.commit(&[]);
        git.branch = root.clone();
        git.remote = root;
        git
    }
}

impl WorldGit {
    /// A new commit on top of these.
    fn commit(&mut self, parents: &[CommitId]) -> CommitId {
        self.made += 1;
        let id = CommitId::new(format!("c{:09}{:030}", self.made, 0));
        let mut contents: Contents = parents.iter().flat_map(|p| self.contents(p)).collect();
        contents.insert(id.clone());
        self.commits.insert(id.clone(), contents);
        id
    }

    fn contents(&self, commit: &CommitId) -> Contents {
        self.commits.get(commit).cloned().unwrap_or_default()
    }

    pub fn branch_contains(&self, commit: &CommitId) -> bool {
        self.commits[&self.branch].contains(commit)
    }

    pub fn head(&self, agent: &AgentId) -> CommitId {
        self.heads.get(agent).unwrap_or(&self.branch).clone()
    }

    /// Its checkout is made, once: from then on only bringing it up moves it.
    pub fn check_out(&mut self, agent: &AgentId) {
        let branch = self.branch.clone();
        self.heads.entry(agent.clone()).or_insert(branch);
    }

    /// The agent commits its work.
    pub fn work(&mut self, agent: &AgentId) {
        let head = self.head(agent);
        let commit = self.commit(&[head]);
        if let Some(path) = self.conflicts_on_demand.remove(agent.as_str()) {
            self.conflicting.insert(commit.clone(), path);
        }
        self.authors.insert(commit.clone(), agent.clone());
        self.mends_or_breaks(agent.as_str(), &commit);
        self.heads.insert(agent.clone(), commit);
    }

    /// What an agent's own commits in these spans are.
    pub fn work_of(&self, agent: &AgentId, head: &CommitId, spans: &[Span]) -> Work {
        let mut own = Contents::new();
        for span in spans {
            let mut new = self.contents(span.head.as_ref().unwrap_or(head));
            for before in &span.after {
                let known = self.contents(before);
                new.retain(|commit| !known.contains(commit));
            }
            own.extend(
                new.into_iter()
                    .filter(|c| self.authors.get(c) == Some(agent)),
            );
        }
        let note = |id: &CommitId| CommitNote {
            id: id.clone(),
            subject: String::new(),
        };
        Work {
            commits: own.iter().map(note).collect(),
            commit_count: u32::try_from(own.len()).unwrap_or(u32::MAX),
            ..Work::default()
        }
    }

    /// Whoever commits on top of something red mends it, and may break something else.
    fn mends_or_breaks(&mut self, author: &str, commit: &CommitId) {
        let below = self.contents(commit);
        for (red, (_, mends)) in &mut self.red {
            if below.contains(red) {
                mends.push(commit.clone());
            }
        }
        if let Some(gate) = self.red_on_demand.remove(author) {
            self.red.insert(commit.clone(), (gate, Vec::new()));
        }
    }

    /// The agent merges these into its own branch, with the target branch below.
    pub fn resolve(&mut self, agent: &AgentId, wanted: &[CommitId]) {
        let mut parents = vec![self.head(agent), self.branch.clone()];
        parents.extend_from_slice(wanted);
        let commit = self.commit(&parents);
        self.resolutions
            .insert(commit.clone(), self.contents(&commit));
        if let Some(path) = self.conflicts_on_demand.remove(agent.as_str()) {
            self.conflicting.insert(commit.clone(), path);
        }
        self.mends_or_breaks(agent.as_str(), &commit);
        self.heads.insert(agent.clone(), commit);
    }

    /// Commits named in a text.
    pub fn named_in(&self, text: &str) -> Vec<CommitId> {
        self.commits
            .keys()
            .filter(|c| text.contains(c.as_str()))
            .cloned()
            .collect()
    }

    pub fn bring_up(&mut self, agent: &AgentId, target: &CommitId) {
        let head = self.head(agent);
        if self.contents(target).contains(&head) {
            self.heads.insert(agent.clone(), target.clone());
        }
    }

    /// A commit's conflict is over where a commit that merged it by hand comes with it.
    fn conflict(&self, commit: &CommitId, into: &CommitId) -> Option<String> {
        let (ours, theirs) = (self.contents(into), self.contents(commit));
        let resolved = |c: &CommitId| {
            let by_hand = |(id, holds): (&CommitId, &Contents)| {
                id != c && holds.contains(c) && (theirs.contains(id) || ours.contains(id))
            };
            self.resolutions.iter().any(by_hand)
        };
        theirs
            .iter()
            .filter(|c| !ours.contains(*c) && !resolved(c))
            .find_map(|c| self.conflicting.get(c))
            .cloned()
    }

    /// Merges these one on the other; the branch stays where it is.
    pub fn build_stack(&mut self, candidates: &[StackCandidate]) -> StackOutcome {
        if let Some(reason) = self.stack_faults.pop() {
            return StackOutcome::Failed { reason };
        }
        let base = self.branch.clone();
        let mut top = base.clone();
        let mut members = Vec::new();
        for candidate in candidates {
            let there = self.contents(&top).contains(&candidate.commit);
            let outcome = if candidate.by_hand && !there {
                MergeOutcome::Absent
            } else {
                self.merge(&mut top, &candidate.commit)
            };
            members.push(StackMember {
                agent: candidate.agent.clone(),
                commit: candidate.commit.clone(),
                outcome,
            });
        }
        StackOutcome::Built { base, top, members }
    }

    fn merge(&mut self, top: &mut CommitId, commit: &CommitId) -> MergeOutcome {
        if let Some(reason) = self.merge_faults.pop() {
            return MergeOutcome::Failed { reason };
        }
        if self.contents(top).contains(commit) {
            return MergeOutcome::UpToDate;
        }
        if let Some(path) = self.conflict(commit, top) {
            let files = vec![(path, "<<<<<<<".to_owned())];
            return MergeOutcome::Conflict { files };
        }
        *top = self.joined(top, commit);
        MergeOutcome::Merged { head: top.clone() }
    }

    pub fn land(&mut self, from: &CommitId, to: &CommitId) -> LandOutcome {
        if self.branch_contains(to) {
            let head = self.branch.clone();
            return LandOutcome::Landed { head };
        }
        if self.branch != *from {
            let head = self.branch.clone();
            return LandOutcome::Moved { head };
        }
        self.branch = to.clone();
        LandOutcome::Landed { head: to.clone() }
    }

    /// Each of `names` on that commit: red if it has a commit that is red there and none that mends
    /// it.
    pub fn run_gates(&mut self, names: &[String], commit: &CommitId) -> GatesOutcome {
        if let Some(reason) = self.gate_faults.pop() {
            return GatesOutcome::Failed { reason };
        }
        let contents = self.contents(commit);
        let red = |name: &String| {
            self.red.iter().any(|(id, (gate, mends))| {
                gate == name
                    && contents.contains(id)
                    && !mends.iter().any(|mend| contents.contains(mend))
            })
        };
        let gates = names.iter().map(|name| GateRecord {
            name: name.clone(),
            outcome: if red(name) {
                GateOutcome::Failed
            } else {
                GateOutcome::Passed
            },
            flaky: false,
            cached: false,
            commit: commit.clone(),
            tree: format!("tree of {commit}"),
            milliseconds: 1000,
            log: String::new(),
            tail: String::new(),
        });
        GatesOutcome::Ran {
            gates: gates.collect(),
        }
    }

    fn joined(&mut self, ours: &CommitId, theirs: &CommitId) -> CommitId {
        if self.contents(theirs).contains(ours) {
            theirs.clone()
        } else {
            self.commit(&[ours.clone(), theirs.clone()])
        }
    }

    /// Finished tasks are ticked on the branch.
    pub fn tick(&mut self) -> CommitId {
        self.branch = self.commit(std::slice::from_ref(&self.branch.clone()));
        self.branch.clone()
    }

    /// Somebody else pushes.
    pub fn remote_moves(&mut self) {
        self.remote = self.commit(std::slice::from_ref(&self.remote.clone()));
        if let Some(path) = self.conflicts_on_demand.remove("remote") {
            self.conflicting.insert(self.remote.clone(), path);
        }
        self.mends_or_breaks("remote", &self.remote.clone());
    }

    pub fn push(&mut self) -> PushOutcome {
        if let Some(fault) = self.push_faults.pop() {
            return fault;
        }
        if !self.branch_contains(&self.remote) {
            return PushOutcome::Moved;
        }
        self.remote = self.branch.clone();
        PushOutcome::Pushed {
            head: self.branch.clone(),
        }
    }

    pub fn fetch(&mut self) -> RemoteOutcome {
        if let Some(reason) = self.fetch_faults.pop() {
            return RemoteOutcome::Away { reason };
        }
        let remote = self.remote.clone();
        let moved = !self.branch_contains(&remote);
        if moved {
            if let Some(path) = self.conflict(&remote, &self.branch) {
                let files = vec![(path, "<<<<<<<".to_owned())];
                return RemoteOutcome::Conflict { remote, files };
            }
            self.branch = self.joined(&self.branch.clone(), &remote);
        }
        RemoteOutcome::Integrated {
            head: self.branch.clone(),
            moved,
        }
    }
}
