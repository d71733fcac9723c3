//! What happened, checked: nothing here is taken from the script, everything from the fleet, its
//! receipts and gates, the remote repository and a test run in a container.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::mishaps::{Mishap, Mishaps};
use super::proofs::{GateRow, NotBelieved, Proofs};
use super::stage::Stage;
use super::watch::Watched;
use crate::claude::launch::WORKSPACE;
use crate::model::view::FleetView;
use crate::model::{AgentId, CommitId};
use crate::ports::{ExecSpec, Runtime as _};
use crate::testing::sample;
use crate::worktree::sandbox;

const TEST_DEADLINE: Duration = Duration::from_secs(120);
const TEST_OUTPUT: usize = 1024 * 1024;

/// The result as one object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    checks: Vec<Check>,
    mishaps: Vec<Mishap>,
    /// Every claim that was not believed at first.
    sent_back: Vec<NotBelieved>,
    gates: Vec<GateRow>,
    tasks_done: u32,
    turns: u64,
    merges: u32,
    conflicts: u32,
    resolved: u32,
    model_requests: u64,
    /// Until all agents could be started, the image included.
    seconds_to_ready: f64,
    /// From there until everything was done.
    seconds_of_work: f64,
    seconds_total: f64,
    agents: Vec<AgentRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
}

#[derive(Debug, Serialize)]
struct AgentRow {
    agent: AgentId,
    tasks_done: u32,
    turns: u64,
    head: Option<CommitId>,
}

impl Report {
    pub(super) async fn make(
        stage: &Stage,
        watched: &Watched,
        ready: Duration,
        total: Duration,
    ) -> Self {
        let mut checks = vec![Check {
            name: "everything was worked off",
            ok: watched.problem.is_none(),
            detail: watched
                .problem
                .clone()
                .unwrap_or_else(|| "all agents rest".into()),
        }];
        let view = watched.last.as_ref();
        checks.extend(fleet_checks(view));
        checks.push(lives_check(view, &watched.mishaps));
        let mishaps = watched.mishaps.list();
        checks.extend(mishaps.iter().map(|mishap| Check {
            name: mishap.what,
            ok: mishap.recovered,
            detail: mishap.detail.clone(),
        }));
        let proofs = Proofs::read(stage).await;
        checks.extend(proofs.checks());
        checks.push(lists_check(stage));
        let head = remote_head(stage);
        checks.push(features_check(stage, head.as_ref()));
        checks.push(once_check(stage));
        checks.push(tests_check(stage, view, head.as_ref()).await);
        let merges = view.map(|view| view.merges).unwrap_or_default();
        let agents: Vec<AgentRow> = view
            .map(|view| &view.agents[..])
            .unwrap_or_default()
            .iter()
            .map(|agent| AgentRow {
                agent: agent.id.clone(),
                tasks_done: agent.tasks_done,
                turns: agent.turns,
                head: agent.head.clone(),
            })
            .collect();
        Self {
            ok: checks.iter().all(|check| check.ok),
            checks,
            mishaps,
            sent_back: proofs.sent_back(),
            gates: proofs.gate_rows(),
            tasks_done: view.map_or(0, |view| view.tasks.done),
            turns: agents.iter().map(|agent| agent.turns).sum(),
            merges: merges.merged,
            conflicts: merges.conflicts,
            resolved: merges.resolved,
            model_requests: stage.model.counters().turns,
            seconds_to_ready: ready.as_secs_f64(),
            seconds_of_work: watched.took.as_secs_f64(),
            seconds_total: total.as_secs_f64(),
            agents,
        }
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut agents = Table::new();
        agents.load_style(presets::UTF8_FULL_CONDENSED);
        agents.set_header(["agent", "tasks done", "turns", "head"]);
        for row in &self.agents {
            let head = row.head.as_ref().map_or("-", CommitId::short).to_owned();
            agents.add_row([
                row.agent.to_string(),
                row.tasks_done.to_string(),
                row.turns.to_string(),
                head,
            ]);
        }
        let _ = writeln!(text, "{agents}");
        let mut numbers = Table::new();
        numbers.load_style(presets::UTF8_FULL_CONDENSED);
        numbers.set_header([
            "tasks",
            "turns",
            "merges",
            "conflicts",
            "resolved",
            "model requests",
            "ready",
            "work",
            "total",
        ]);
        numbers.add_row([
            self.tasks_done.to_string(),
            self.turns.to_string(),
            self.merges.to_string(),
            self.conflicts.to_string(),
            self.resolved.to_string(),
            self.model_requests.to_string(),
            format!("{:.1} s", self.seconds_to_ready),
            format!("{:.1} s", self.seconds_of_work),
            format!("{:.1} s", self.seconds_total),
        ]);
        let _ = writeln!(text, "{numbers}");
        let _ = writeln!(text, "{}", self.sent_back_table());
        for check in &self.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "{mark} {}: {}", check.name, check.detail);
        }
        text
    }

    fn sent_back_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["said to be done", "by", "sent back, because", "then landed"]);
        for back in &self.sent_back {
            let landed = back.landed.as_ref().map_or("-", CommitId::short);
            table.add_row([
                back.title,
                back.agent.as_str(),
                &format!("{} (to {})", back.why.join("; "), back.to),
                landed,
            ]);
        }
        table
    }
}

fn fleet_checks(view: Option<&FleetView>) -> Vec<Check> {
    let Some(view) = view else {
        return vec![Check {
            name: "the fleet was seen",
            ok: false,
            detail: "no snapshot came".into(),
        }];
    };
    let workers = view
        .agents
        .iter()
        .filter(|agent| agent.id.worker_number().is_some());
    let busy = workers.clone().filter(|agent| agent.tasks_done > 0).count();
    let all = workers.count();
    let merges = &view.merges;
    vec![
        Check {
            name: "every worker finished tasks",
            ok: all > 0 && busy == all,
            detail: format!("{busy} of {all}"),
        },
        Check {
            name: "branches conflicted and that was resolved",
            ok: merges.conflicts > 0 && merges.resolved == merges.conflicts,
            detail: format!(
                "{} conflicts, {} resolved",
                merges.conflicts, merges.resolved
            ),
        },
        Check {
            name: "the result was pushed",
            ok: view.pushed,
            detail: view
                .push_problem
                .clone()
                .unwrap_or_else(|| "to the remote's branch".into()),
        },
    ]
}

/// Nobody was started again but the agent whose container was killed, and that one once.
fn lives_check(view: Option<&FleetView>, mishaps: &Mishaps) -> Check {
    let victim = mishaps.victim();
    let agents = view.map(|view| &view.agents[..]).unwrap_or_default();
    let right = agents
        .iter()
        .all(|agent| agent.restarts == u32::from(victim.as_ref() == Some(&agent.id)));
    let restarts: Vec<String> = agents
        .iter()
        .filter(|agent| agent.restarts > 0)
        .map(|agent| format!("{} of {}", agent.restarts, agent.id))
        .collect();
    Check {
        name: "nobody was started again but who was killed",
        ok: right && !agents.is_empty(),
        detail: format!(
            "restarts: {}",
            if restarts.is_empty() {
                "none".to_owned()
            } else {
                restarts.join(", ")
            }
        ),
    }
}

/// Each feature is one commit: nobody did again what was done before something broke.
fn once_check(stage: &Stage) -> Check {
    let read = || -> Result<Vec<usize>, git2::Error> {
        let repository = git2::Repository::open_bare(stage.repository())?;
        let mut walk = repository.revwalk()?;
        walk.push_ref("refs/heads/main")?;
        let mut counts = vec![0; sample::FEATURES.len()];
        for id in walk {
            let commit = repository.find_commit(id?)?;
            let subject = commit.summary().ok().flatten().unwrap_or_default();
            let found = sample::FEATURES
                .iter()
                .position(|feature| feature.commit_message == subject);
            if let Some(place) = found {
                counts[place] += 1;
            }
        }
        Ok(counts)
    };
    let (ok, detail) = match read() {
        Ok(counts) => (
            counts.iter().all(|count| *count == 1),
            format!("commits for each of {} tasks: {counts:?}", counts.len()),
        ),
        Err(error) => (false, error.message().to_owned()),
    };
    Check {
        name: "every task was done once",
        ok,
        detail,
    }
}

/// Every item of every list is ticked on the remote's branch.
fn lists_check(stage: &Stage) -> Check {
    let name = "every item is ticked in its list";
    let read = || -> Result<(usize, usize), git2::Error> {
        let repository = git2::Repository::open_bare(stage.repository())?;
        let tree = repository
            .revparse_single("refs/heads/main")?
            .peel_to_tree()?;
        let mut counts = (0, 0);
        for worker in 1..=sample::WORKERS {
            let entry = tree.get_path(std::path::Path::new(&sample::list_file(worker)))?;
            let blob = entry.to_object(&repository)?.peel_to_blob()?;
            let text = String::from_utf8_lossy(blob.content()).into_owned();
            let list = crate::coordination::tasklist::parse(&text);
            counts.0 += list.items.iter().filter(|item| item.checked).count();
            counts.1 += list.items.len();
        }
        Ok(counts)
    };
    match read() {
        Ok((ticked, all)) => Check {
            name,
            ok: all > 0 && ticked == all,
            detail: format!("{ticked} of {all}"),
        },
        Err(error) => Check {
            name,
            ok: false,
            detail: error.message().to_owned(),
        },
    }
}

fn remote_head(stage: &Stage) -> Option<CommitId> {
    let repository = git2::Repository::open_bare(stage.repository()).ok()?;
    let id = repository.refname_to_id("refs/heads/main").ok()?;
    Some(CommitId::new(id.to_string()))
}

fn features_check(stage: &Stage, head: Option<&CommitId>) -> Check {
    let name = "everything the direction asks for is on the remote";
    let Some(head) = head else {
        return Check {
            name,
            ok: false,
            detail: "the remote has no branch".into(),
        };
    };
    match sample::verify(&stage.repository(), head) {
        Ok(verified) => Check {
            name,
            ok: verified.merges > 0,
            detail: format!(
                "{} features, {} commits, {} merges at {}",
                verified.features.len(),
                verified.commits,
                verified.merges,
                head.short()
            ),
        },
        Err(error) => Check {
            name,
            ok: false,
            detail: error.to_string(),
        },
    }
}

/// The sample's own tests, on the merged result, in the manager's container.
async fn tests_check(stage: &Stage, view: Option<&FleetView>, head: Option<&CommitId>) -> Check {
    let name = "the tests pass on the merged result";
    let container = view
        .and_then(|view| {
            view.agents
                .iter()
                .find(|agent| agent.id == AgentId::manager())
        })
        .and_then(|manager| manager.container.clone());
    let (Some(container), Some(head)) = (container, head) else {
        return Check {
            name,
            ok: false,
            detail: "there is no container or no commit to run them on".into(),
        };
    };
    let bring = sandbox::bring_up_to(WORKSPACE, head, sample::BRANCH);
    let script = format!(
        "test \"$(git rev-parse HEAD^{{tree}})\" = \"$(git rev-parse {head}^{{tree}})\" && make test"
    );
    let test = ExecSpec {
        command: vec!["sh".into(), "-c".into(), script],
        working_directory: Some(WORKSPACE.into()),
        environment: std::collections::BTreeMap::new(),
        stdin: Vec::new(),
        max_output_bytes: TEST_OUTPUT,
        deadline: TEST_DEADLINE,
    };
    for command in [bring, test] {
        match stage.runtime.exec(&container, &command).await {
            Ok(output) if output.exit_code == 0 => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().last().unwrap_or("no output").to_owned();
                let log = stage.log_of(&AgentId::manager());
                let detail = format!("exit {}: {last} (log: {})", output.exit_code, log.display());
                return Check {
                    name,
                    ok: false,
                    detail,
                };
            }
            Err(error) => {
                return Check {
                    name,
                    ok: false,
                    detail: error.chain(),
                };
            }
        }
    }
    Check {
        name,
        ok: true,
        detail: format!("`make test` at {}", head.short()),
    }
}
