//! Train: how long a merge takes, which bounds how many workers one branch can serve.
//!
//! Ours is what the merge train does in the store: a stack of [`BATCH`] built in memory, its gates, the
//! branch moved by compare-and-set. The floor is `git merge` in a checkout, one branch after the other,
//! with the same command by plain `docker run` after each where there is a gate: a branch that is never
//! red takes that much. Both sides merge the same branches, and neither pushes. Left out on our side is
//! deciding: three transactions for a stack, as the turn gap has one.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use orchestrator::config::keys::CLAUDE_VERSION;
use orchestrator::config::{self, Inputs};
use orchestrator::daemon::{GateSetup, Gates, SystemClock};
use orchestrator::model::{GateOutcome, ProjectId};
use orchestrator::ports::Runtime as _;
use orchestrator::runtime::docker::image::bundled_image;
use orchestrator::worktree::{GitStore, Identity, Landing, StackPart, Stacked};
use serde_json::json;

use crate::hall::{Hall, path_text, ran};
use crate::stats::Sample;
use crate::table::Row;

/// As `merge.batch` is by default.
const BATCH: usize = 5;
const FILES: usize = 1000;
/// As fleets of root use it.
const AGENT: u32 = 1000;
const GATE: &str = "test -e f0.txt";

pub fn run(hall: &Hall) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (branches, gated) in [(hall.size(50, 5), false), (hall.size(10, 5), true)] {
        let (mut ours, mut floor) = (Sample::default(), Sample::default());
        for round in 0..hall.repeat {
            let name = format!("train-{branches}-{gated}-{round}");
            let place = Place::set(hall, &name, branches)?;
            ours.0.push(place.train(gated)?);
            floor.0.push(place.plain(gated)?);
        }
        let what = if gated { "with a gate" } else { "no gate" };
        let minute = 60_000.0;
        rows.push(Row {
            benchmark: "train",
            case: format!(
                "a merge, {what} ({:.0} a minute, floor {:.0})",
                minute / ours.median(),
                minute / floor.median()
            ),
            unit: "ms",
            ours,
            floor,
            aim: None,
        });
    }
    Ok(rows)
}

/// A repository with branches that do not conflict, as a store and as a checkout.
struct Place<'h> {
    hall: &'h Hall,
    root: PathBuf,
    project: ProjectId,
    branches: usize,
    store: Arc<GitStore>,
    checkout: PathBuf,
}

impl<'h> Place<'h> {
    fn set(hall: &'h Hall, name: &str, branches: usize) -> Result<Self> {
        let files: Vec<(String, String)> = (0..FILES)
            .map(|number| (format!("f{number}.txt"), format!("line {number}\n")))
            .collect();
        let remote = hall.repository(name, &files)?;
        let root = hall.root.path().join(format!("{name}.place"));
        std::fs::create_dir_all(root.join("config"))?;
        let bare = path_text(&remote)?;
        let checkout = root.join("checkout");
        hall.git(&root, &["clone", "-q", bare, path_text(&checkout)?])?;
        for number in 0..branches {
            let branch = format!("change-{number}");
            hall.git(&checkout, &["switch", "-q", "-c", &branch, "main"])?;
            std::fs::write(checkout.join(format!("f{number}.txt")), "changed\n")?;
            hall.git(&checkout, &["commit", "-q", "-a", "-m", &branch])?;
        }
        hall.git(&checkout, &["switch", "-q", "main"])?;
        let identity = Identity {
            name: "Bench".to_owned(),
            email: "bench@localhost".to_owned(),
        };
        let path = root.join("store.git");
        let store = GitStore::open_or_clone(&path, bare, "main", identity, &|_| {})?;
        let all = "refs/heads/change-*:refs/orchestrator/bench/change-*";
        hall.git(&path, &["fetch", "-q", path_text(&checkout)?, all])?;
        Ok(Self {
            hall,
            root,
            project: ProjectId::new(format!("{}-{name}", hall.name)),
            branches,
            store: Arc::new(store),
            checkout,
        })
    }

    /// Milliseconds for a merge, by the train.
    fn train(&self, gated: bool) -> Result<f64> {
        let gates = gated.then(|| self.gates()).transpose()?;
        let parts = (0..self.branches).map(|number| {
            let name = format!("change-{number}");
            let mut ask = Command::new("git");
            ask.args(["rev-parse", &name]).current_dir(&self.checkout);
            Ok(StackPart {
                commit: ran(&mut ask)?.trim().into(),
                message: format!("Merge change-{number}"),
                edits: Vec::new(),
                only_look: false,
            })
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        for (number, batch) in (1..).zip(parts.chunks(BATCH)) {
            let stack = self.store.build_stack(number, &[], batch)?;
            let merged = |part: &Stacked| matches!(part, Stacked::Merged { .. });
            ensure!(stack.parts.iter().all(merged), "left out: {stack:?}");
            if let Some(gates) = &gates {
                let records = self.hall.tokio.block_on(gates.run(&stack.top))?;
                let passed = records.iter().all(|r| r.outcome == GateOutcome::Passed);
                ensure!(passed && !records.is_empty(), "gates: {records:?}");
            }
            let landed = self.store.land(&stack.base, &stack.top)?;
            ensure!(matches!(landed, Landing::Landed { .. }), "it moved");
        }
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        if gates.is_some() {
            let docker = &self.hall.docker;
            let gone = docker.remove_network(&self.project);
            self.hall.tokio.block_on(gone)?;
        }
        Ok(took / self.branches as f64)
    }

    fn gates(&self) -> Result<Gates> {
        let document = json!({
            "project": self.project,
            "repositoryUrl": "https://example.com/r.git",
            "workerCount": 1,
            "claudeConfigs": self.root.join("keys/*.json"),
            "stateDirectory": self.root.join("state"),
            "gates": [{"name": "test", "command": GATE}],
        });
        let directory = self.root.join("config");
        std::fs::write(directory.join("orchestrator.json"), document.to_string())?;
        let uid = rustix::process::geteuid().as_raw();
        let inputs = Inputs {
            home: Some(self.root.join("home")),
            uid,
            ..Inputs::default()
        };
        let loaded = config::load(&directory, &inputs).map_err(|problems| {
            anyhow::anyhow!("the configuration of the benchmark: {problems:?}")
        })?;
        let docker = &self.hall.docker;
        let network = self.hall.tokio.block_on(async {
            let image = bundled_image(CLAUDE_VERSION, AGENT);
            docker.ensure_image(&image, &|_| {}).await?;
            docker.ensure_network(&self.project).await
        })?;
        let setup = GateSetup {
            config: loaded.config,
            runtime: Arc::new(docker.clone()),
            git: self.store.clone(),
            clock: Arc::new(SystemClock::new()),
            network: network.name,
            owner: (uid == 0).then_some((AGENT, AGENT)),
        };
        Ok(Gates::open(setup)?)
    }

    /// Milliseconds for a merge, by hand.
    fn plain(&self, gated: bool) -> Result<f64> {
        let image = bundled_image(CLAUDE_VERSION, AGENT).tag;
        let mount = format!("{}:/workspace:ro", path_text(&self.checkout)?);
        let begun = Instant::now();
        for number in 0..self.branches {
            let branch = format!("change-{number}");
            let words = ["merge", "-q", "--no-ff", "--no-edit", &branch];
            self.hall.git(&self.checkout, &words)?;
            if gated {
                let mut command = Command::new("docker");
                command
                    .args(["run", "--rm", "-v", &mount, "-w", "/workspace"])
                    .args(["--entrypoint", "sh", &image, "-c", GATE]);
                ran(&mut command).context("the gate by hand")?;
            }
        }
        Ok(begun.elapsed().as_secs_f64() * 1000.0 / self.branches as f64)
    }
}
