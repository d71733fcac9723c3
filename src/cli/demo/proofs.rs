//! Work that was not done when its agent said so: what the receipts of the tasks and the records of
//! the gates say of it. Asked while the fleet still runs.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::error::Result;
use super::super::{Error, Exit, wiring};
use super::report::Check;
use super::stage::Stage;
use crate::model::listing::{MOST_PER_PAGE, TaskFilter, TaskState};
use crate::model::{AgentId, CommitId, GateOutcome, GateRecord, Missing, Receipt, TaskId};
use crate::testing::sample::{self, AtFirst, Feature};

/// Fails as long as its cache is cold, and fills it: the first run of all needs a second try.
const FLAKY: &str = "flaky";
/// The sample's own tests.
const TEST: &str = "test";

/// The gates of the demo. The flaky one comes first, and so before anything that breaks.
pub(super) fn gates() -> Value {
    json!([
        {
            "name": FLAKY,
            "command": "test -e /cache/warm || { touch /cache/warm; echo 'the cache is cold'; exit 1; }",
            "cache": true,
        },
        {"name": TEST, "command": "make test"},
    ])
}

/// What was taken for the proof of the demo's tasks.
#[derive(Default)]
pub(super) struct Proofs {
    tasks: Vec<Proven>,
    /// Newest first.
    gates: Vec<GateRecord>,
    /// Every commit of the remote's branch.
    branch: BTreeSet<CommitId>,
    /// Why not everything could be read.
    problem: Option<String>,
}

/// A task that is done, and why it counts as that.
struct Proven {
    feature: &'static Feature,
    receipt: Receipt,
}

/// One claim that was not believed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct NotBelieved {
    pub(super) task: TaskId,
    pub(super) title: &'static str,
    pub(super) agent: AgentId,
    /// Who was asked to mend it.
    pub(super) to: AgentId,
    pub(super) why: Vec<String>,
    /// The commit of the branch that has it now.
    pub(super) landed: Option<CommitId>,
}

/// How often a gate ran, not counting outcomes that were known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GateRow {
    pub(super) gate: &'static str,
    pub(super) runs: usize,
    pub(super) failed: usize,
    pub(super) flaky: usize,
}

impl Proofs {
    pub(super) async fn read(stage: &Stage) -> Self {
        let mut proofs = Self::default();
        if let Err(error) = proofs.fill(stage).await {
            proofs.problem = Some(error.render().trim_end().to_owned());
        }
        proofs
    }

    async fn fill(&mut self, stage: &Stage) -> Result<()> {
        self.branch = commits(&stage.repository()).map_err(|error| {
            Error::new(Exit::Failure, "the remote's branch cannot be read").because(&error)
        })?;
        let runs = wiring::gate_runs(&stage.config.state_directory)?;
        self.gates = runs.into_iter().map(|run| run.record).collect();
        let done = TaskFilter {
            status: Some(TaskState::Done),
            limit: Some(MOST_PER_PAGE),
            ..TaskFilter::default()
        };
        for line in stage.client.tasks(&done).await?.tasks {
            if let Some(feature) = sample::item(&line.title) {
                let receipt = stage.client.receipt(&line.id).await?;
                self.tasks.push(Proven { feature, receipt });
            }
        }
        Ok(())
    }

    /// In the order of the features.
    pub(super) fn sent_back(&self) -> Vec<NotBelieved> {
        let of = |feature: &'static Feature| {
            let found = move |task: &&Proven| task.feature == feature;
            self.tasks.iter().filter(found)
        };
        let tasks = sample::FEATURES.iter().flat_map(of);
        tasks
            .flat_map(|Proven { feature, receipt }| {
                receipt.sent_back.iter().map(|back| NotBelieved {
                    task: receipt.task.clone(),
                    title: feature.item,
                    agent: receipt.agent.clone(),
                    to: back.to.clone(),
                    why: back.missing.iter().map(Missing::in_words).collect(),
                    landed: receipt.landed.clone(),
                })
            })
            .collect()
    }

    pub(super) fn gate_rows(&self) -> Vec<GateRow> {
        [FLAKY, TEST]
            .map(|gate| {
                let runs = || self.gates.iter().filter(|record| record.name == gate);
                GateRow {
                    gate,
                    runs: runs().count(),
                    failed: runs().filter(|record| !record.passed()).count(),
                    flaky: runs().filter(|record| record.flaky).count(),
                }
            })
            .into()
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            self.every_task_is_proven(),
            self.a_false_done_came_back(),
            self.a_red_gate_was_mended(),
            self.nothing_red_landed(),
            self.a_flake_is_known(),
            self.conflicts_went_to_their_owners(),
        ]
    }

    fn every_task_is_proven(&self) -> Check {
        let proven = |feature: &&Feature| {
            let mut tasks = self.tasks.iter().filter(|task| task.feature == *feature);
            matches!((tasks.next(), tasks.next()), (Some(task), None) if self.holds(&task.receipt))
        };
        let all = sample::FEATURES.len();
        let count = sample::FEATURES.iter().filter(proven).count();
        let told =
            format!("{count} of {all} with commits in the branch and the gates passed there");
        Check {
            name: "every task has a receipt",
            ok: self.problem.is_none() && count == all,
            detail: self.problem.clone().unwrap_or(told),
        }
    }

    fn holds(&self, receipt: &Receipt) -> bool {
        let landed = receipt.landed.as_ref();
        let gates: Vec<&str> = receipt
            .gates
            .iter()
            .map(|gate| gate.name.as_str())
            .collect();
        receipt.commit_count > 0
            && landed.is_some_and(|commit| self.branch.contains(commit))
            && receipt
                .commits
                .iter()
                .all(|commit| self.branch.contains(&commit.id))
            && gates == [FLAKY, TEST]
            && receipt.gates.iter().all(GateRecord::passed)
    }

    fn a_false_done_came_back(&self) -> Check {
        let only_says_so = |at_first| at_first == AtFirst::OnlySaysSo;
        let lacks = |missing: &Missing| *missing == Missing::Commit;
        self.came_back(
            "a “done” without any work was sent back, and the work done",
            only_says_so,
            lacks,
            |task| task.feature.commit_message,
        )
    }

    fn a_red_gate_was_mended(&self) -> Check {
        let careless = |at_first| matches!(at_first, AtFirst::Careless { .. });
        let lacks = |missing: &Missing| match missing {
            Missing::Gate { gates } => gates
                .iter()
                .any(|gate| gate.name == TEST && gate.outcome == GateOutcome::Failed),
            _ => false,
        };
        self.came_back(
            "work that a gate stopped was sent back, and mended",
            careless,
            lacks,
            |task| match task.feature.at_first {
                AtFirst::Careless { mend_message, .. } => mend_message,
                AtFirst::Careful | AtFirst::OnlySaysSo => task.feature.commit_message,
            },
        )
    }

    /// The task of such a feature was sent back to its own agent for this, and that made this commit.
    fn came_back(
        &self,
        name: &'static str,
        wanted: impl Fn(AtFirst) -> bool,
        lacks: impl Fn(&Missing) -> bool,
        commit: impl Fn(&Proven) -> &'static str,
    ) -> Check {
        let task = self.tasks.iter().find(|task| wanted(task.feature.at_first));
        let (ok, detail) = match task {
            None => (false, "its task has no receipt".to_owned()),
            Some(task) => {
                let Receipt { agent, commits, .. } = &task.receipt;
                let backs = task.receipt.sent_back.iter();
                let back = backs
                    .filter(|back| back.to == *agent)
                    .flat_map(|back| &back.missing)
                    .find(|missing| lacks(missing));
                let mended = commits.iter().any(|note| note.subject == commit(task));
                let why = back.map_or_else(|| "NOT for this".to_owned(), Missing::in_words);
                let then = if mended { commit(task) } else { "NOTHING" };
                let told = format!("{agent}: {}: {why}; then “{then}”", task.feature.item);
                (back.is_some() && mended, told)
            }
        };
        Check { name, ok, detail }
    }

    fn nothing_red_landed(&self) -> Check {
        let red = || self.gates.iter().filter(|record| !record.passed());
        let landed = red().filter(|record| self.branch.contains(&record.commit));
        let (count, landed) = (red().count(), landed.count());
        Check {
            name: "nothing that a gate stopped became the branch",
            ok: count > 0 && landed == 0,
            detail: format!("{count} failed runs, {landed} of them on commits of the branch"),
        }
    }

    fn a_flake_is_known(&self) -> Check {
        let flakes: Vec<&GateRecord> = self.gates.iter().filter(|record| record.flaky).collect();
        let right = |record: &&GateRecord| record.name == FLAKY && record.passed();
        let named: Vec<String> = flakes
            .iter()
            .map(|record| format!("{} on {}", record.name, record.commit.short()))
            .collect();
        Check {
            name: "a gate that failed once and then passed counts as flaky",
            ok: flakes.len() == 1 && flakes.iter().all(right),
            detail: if named.is_empty() {
                "no gate was flaky".to_owned()
            } else {
                named.join(", ")
            },
        }
    }

    fn conflicts_went_to_their_owners(&self) -> Check {
        let conflicts: Vec<NotBelieved> = self
            .sent_back()
            .into_iter()
            .filter(|back| back.why.iter().any(|why| why.starts_with("conflicts in")))
            .collect();
        let told: Vec<String> = conflicts
            .iter()
            .map(|back| format!("{} to {}", back.why.join(", "), back.to))
            .collect();
        Check {
            name: "a conflict went back to the worker whose work it was",
            ok: !conflicts.is_empty() && conflicts.iter().all(|back| back.to == back.agent),
            detail: if told.is_empty() {
                "no conflict was sent back".to_owned()
            } else {
                told.join("; ")
            },
        }
    }
}

fn commits(remote: &Path) -> std::result::Result<BTreeSet<CommitId>, git2::Error> {
    let repository = git2::Repository::open_bare(remote)?;
    let mut walk = repository.revwalk()?;
    walk.push_ref(&format!("refs/heads/{}", sample::BRANCH))?;
    walk.map(|id| Ok(CommitId::new(id?.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommitNote, SentBack, Timestamp};

    fn gate(name: &str, outcome: GateOutcome, commit: &str, flaky: bool) -> GateRecord {
        GateRecord {
            name: name.into(),
            outcome,
            flaky,
            cached: false,
            commit: CommitId::new(commit),
            tree: "t".into(),
            milliseconds: 1,
            log: "l".into(),
            tail: String::new(),
        }
    }

    fn proven(feature: &'static Feature) -> Proven {
        let agent = AgentId::worker(feature.worker);
        let red = gate(TEST, GateOutcome::Failed, "red", false);
        let (missing, subject) = match feature.at_first {
            AtFirst::Careful if feature.name == "distinct" => {
                let paths = vec!["textstats/report.py".into()];
                (Some(Missing::Merge { paths }), "Merge")
            }
            AtFirst::Careful => (None, feature.commit_message),
            AtFirst::OnlySaysSo => (Some(Missing::Commit), feature.commit_message),
            AtFirst::Careless { mend_message, .. } => {
                (Some(Missing::Gate { gates: vec![red] }), mend_message)
            }
        };
        let back = |missing| SentBack {
            at: Timestamp(1),
            to: agent.clone(),
            missing: vec![missing],
            rescue: None,
        };
        let passed = |name| gate(name, GateOutcome::Passed, "tip", false);
        let receipt = Receipt {
            task: TaskId::new(feature.name),
            agent: agent.clone(),
            fence: 1,
            claimed_at: Timestamp(1),
            proven_at: Timestamp(2),
            commits: vec![CommitNote {
                id: CommitId::new("tip"),
                subject: subject.into(),
            }],
            commit_count: 1,
            no_change: None,
            landed: Some(CommitId::new("tip")),
            gates: vec![passed(FLAKY), passed(TEST)],
            scope: Vec::new(),
            files: Vec::new(),
            uncommitted: Vec::new(),
            rescue: None,
            sent_back: missing.map(back).into_iter().collect(),
        };
        Proven { feature, receipt }
    }

    fn good() -> Proofs {
        Proofs {
            tasks: sample::FEATURES.iter().map(proven).collect(),
            gates: vec![
                gate(TEST, GateOutcome::Failed, "red", false),
                gate(FLAKY, GateOutcome::Passed, "tip", true),
            ],
            branch: [CommitId::new("tip")].into(),
            problem: None,
        }
    }

    /// Names of the checks that do not hold.
    fn failing(proofs: &Proofs) -> Vec<&'static str> {
        let checks = proofs.checks().into_iter();
        checks
            .filter(|check| !check.ok)
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn what_came_back_is_named_with_its_reason() {
        let proofs = good();
        assert_eq!(failing(&proofs), Vec::<&str>::new());
        let backs = proofs.sent_back();
        let told: Vec<(String, String)> = backs
            .iter()
            .map(|back| (back.to.to_string(), back.why.join(", ")))
            .collect();
        let expected = [
            ("worker-1", "no new commit"),
            ("worker-2", "conflicts in textstats/report.py"),
            ("worker-3", "gates that did not pass: test"),
        ];
        assert_eq!(
            told,
            expected.map(|(to, why)| (to.to_owned(), why.to_owned()))
        );
        assert_eq!(proofs.gate_rows()[1].failed, 1);
    }

    #[test]
    fn whatever_did_not_happen_fails_its_check() {
        type Change = fn(&mut Proofs);
        let changes: [(&str, Change); 8] = [
            ("every task has", |proofs| drop(proofs.tasks.remove(0))),
            ("every task has", |proofs| {
                proofs.tasks[0].receipt.landed = Some(CommitId::new("elsewhere"));
            }),
            ("a “done”", |proofs| {
                proofs.tasks[1].receipt.sent_back.clear();
            }),
            ("work that a gate", |proofs| {
                proofs.tasks[6].receipt.sent_back[0].missing = vec![Missing::Commit];
            }),
            ("work that a gate", |proofs| {
                proofs.tasks[6].receipt.commits[0].subject = "Other".into();
            }),
            ("nothing that a gate", |proofs| {
                proofs.branch.insert(CommitId::new("red"));
            }),
            ("a gate that failed once", |proofs| {
                proofs.gates[1].flaky = false;
            }),
            ("a conflict went back", |proofs| {
                proofs.tasks[2].receipt.sent_back[0].to = AgentId::manager();
            }),
        ];
        for (name, change) in changes {
            let mut proofs = good();
            change(&mut proofs);
            let failing = failing(&proofs);
            assert!(
                failing.len() == 1 && failing[0].starts_with(name),
                "{name}: {failing:?}"
            );
        }
    }
}
