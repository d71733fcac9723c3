//! Round after round: work is handed out, something breaks, the fleet is well again.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::demo::interruption::Interruption;
use super::super::demo::stage::Stage;
use super::super::error::Result;
use super::super::{Error, Exit, output};
use super::blow::{Blow, Tools};
use super::dice::Dice;
use super::fault::{self, Fault, LeftOut};
use super::ledger::{Found, Ledger, Outcome};
use super::notes::{Kept, Notes, Places};
use super::report::{Happened, Report, summarise};
use super::watcher::{LOOK, Watcher};
use super::{ChaosArgs, Set};
use crate::model::AgentId;
use crate::model::view::{AgentView, FleetView};
use crate::ports::Runtime as _;

/// Before a fault, while work goes on.
const WAIT: Duration = Duration::from_secs(3);

/// Between two faults of one round.
const BETWEEN: Duration = Duration::from_millis(1500);

/// Between two looks for lines that are gone from their lists.
const PUT_BACK: Duration = Duration::from_secs(5);

/// For what the supervisor writes when everything is done.
const LAST_TICKS: Duration = Duration::from_secs(20);

/// The record of the model's requests kept as evidence.
const REQUESTS: usize = 400;

pub(super) struct Rounds {
    seed: u64,
    wanted: u32,
    workers: u32,
    limit: Duration,
    keep: bool,
    faults: Vec<Fault>,
    bag: Vec<Fault>,
    dice: Dice,
    errands: Dice,
    stage: Stage,
    tools: Tools,
    ledger: Ledger,
    notes: Notes,
    watcher: Watcher,
    started: Instant,
    played: u32,
    handing_out: bool,
    happened: Vec<Happened>,
    outcome: Outcome,
    kept: Kept,
    /// Everything that was handed out was done: nothing is on its way any more.
    at_rest: bool,
    violations: Vec<String>,
}

impl Rounds {
    pub(super) fn new(args: &ChaosArgs, set: Set, faults: Vec<Fault>) -> Self {
        let watcher = Watcher::start(&set.stage, !args.json);
        Self {
            seed: set.seed,
            wanted: args.rounds,
            workers: args.workers,
            limit: args.limit,
            keep: args.keep,
            faults,
            bag: Vec::new(),
            dice: set.dice,
            errands: set.errands,
            stage: set.stage,
            tools: set.tools,
            ledger: set.ledger,
            notes: set.notes,
            watcher,
            started: Instant::now(),
            played: 0,
            handing_out: true,
            happened: Vec::new(),
            outcome: Outcome::default(),
            kept: Kept::default(),
            at_rest: false,
            violations: Vec::new(),
        }
    }

    /// All rounds, then until everything is done; ends early where something must not be.
    pub(super) async fn play(&mut self) {
        if let Err(error) = self.all().await {
            self.violations.push(error.render().trim_end().to_owned());
        }
        if let Err(error) = self.compare_in_the_end().await {
            self.violations.push(error.render().trim_end().to_owned());
        }
        self.look_for_what_must_not_be();
    }

    async fn all(&mut self) -> Result<()> {
        self.until("the agents are ready", |view| {
            view.agents
                .iter()
                .all(|agent| matches!(agent.state.as_str(), "idle" | "working"))
        })
        .await?;
        self.started = Instant::now();
        while self.played < self.wanted {
            self.played += 1;
            self.round().await?;
            self.look_for_what_must_not_be();
            if !self.violations.is_empty() {
                return Ok(());
            }
        }
        self.handing_out = false;
        output::say("no more faults; waiting until everything is done");
        let total = self.ledger.total();
        let of: Vec<(u32, usize)> = (1..=self.workers)
            .map(|worker| {
                let agent = AgentId::worker(worker);
                (worker, self.ledger.of(&agent))
            })
            .collect();
        self.until(&format!("all {total} tasks are done and pushed"), |view| {
            is_done(view, &of)
        })
        .await?;
        self.at_rest = true;
        Ok(())
    }

    async fn round(&mut self) -> Result<()> {
        let view = self
            .until("somebody works", |view| {
                let busy = |agent: &AgentView| agent.state == "working" && agent.task.is_some();
                view.agents.iter().any(busy)
            })
            .await?;
        let lists = self.lists();
        self.ledger.top_up(&lists, &view, &mut self.errands)?;
        let wait = self.dice.between(Duration::ZERO, WAIT);
        tokio::time::sleep(wait).await;
        let drawn = fault::draw(&mut self.dice, &self.faults, &mut self.bag);
        let mut blows = Vec::new();
        for fault in drawn {
            if !blows.is_empty() {
                let between = self.dice.between(Duration::ZERO, BETWEEN);
                tokio::time::sleep(between).await;
            }
            let view = self.watcher.view().unwrap_or(view.clone());
            self.notes.look(&self.stage.config.state_directory)?;
            let blow = Blow::begin(
                fault,
                &mut self.stage,
                &mut self.tools,
                &view,
                &mut self.dice,
            );
            let blow = blow.await?;
            self.tell(&blow);
            blows.push((self.started.elapsed(), blow));
        }
        for (_, blow) in &mut blows {
            tokio::time::sleep(blow.hold).await;
            blow.end(&mut self.stage, &mut self.tools).await?;
        }
        self.recover(blows).await
    }

    fn tell(&self, blow: &Blow) {
        let targets: Vec<&str> = blow.targets.iter().map(AgentId::as_str).collect();
        let whom = if blow.fault.hits_one() {
            targets.join(", ")
        } else {
            "all".to_owned()
        };
        output::say(&format!(
            "{:>3}/{} {:>5.0} s  {:<10} {whom}",
            self.played,
            self.wanted,
            self.started.elapsed().as_secs_f64(),
            blow.fault
        ));
    }

    /// Until every fault of the round is got over.
    async fn recover(&mut self, mut blows: Vec<(Duration, Blow)>) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        while !blows.is_empty() {
            tokio::time::sleep(LOOK).await;
            let mut left = Vec::new();
            let mut why = Vec::new();
            for (at, blow) in blows {
                let missing = match self.watcher.view_since(blow.since()) {
                    Some(view) => blow.missing(&self.stage, &view).await,
                    None => vec!["the supervisor does not answer".to_owned()],
                };
                if missing.is_empty() {
                    let took = blow.since().elapsed();
                    output::say(&format!(
                        "             got over {} after {:.1} s",
                        blow.fault,
                        took.as_secs_f64()
                    ));
                    self.note(at, &blow, Some(took));
                } else {
                    why.extend(
                        missing
                            .iter()
                            .map(|missing| format!("{}: {missing}", blow.fault)),
                    );
                    left.push((at, blow));
                }
            }
            blows = left;
            if Instant::now() > deadline && !blows.is_empty() {
                for (at, blow) in &blows {
                    self.note(*at, blow, None);
                }
                let what = format!("work did not go on within {} s", self.limit.as_secs());
                return Err(Error::new(
                    Exit::TimedOut,
                    format!("{what}: {}", why.join("; ")),
                ));
            }
        }
        Ok(())
    }

    fn note(&mut self, at: Duration, blow: &Blow, recovered: Option<Duration>) {
        self.happened.push(Happened {
            round: self.played,
            fault: blow.fault,
            targets: blow.targets.clone(),
            at_seconds: at.as_secs_f64(),
            lasted_seconds: blow.lasted().as_secs_f64(),
            recovered_seconds: recovered.map(|took| took.as_secs_f64()),
        });
    }

    /// A snapshot like this, within the limit; meanwhile workers without work are given some.
    async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&FleetView) -> bool,
    ) -> Result<FleetView> {
        let since = Instant::now();
        let mut put_back = Instant::now();
        loop {
            if let Some(view) = self.watcher.view_since(since) {
                if wanted(&view) {
                    return Ok(view);
                }
                // Nobody works: there is more to do, or what there was is gone.
                if self.played > 0 && put_back.elapsed() > PUT_BACK {
                    put_back = Instant::now();
                    let lists = self.lists();
                    if resting(&view) {
                        self.ledger.put_back(&lists)?;
                    }
                    if self.handing_out {
                        self.ledger.top_up(&lists, &view, &mut self.errands)?;
                    }
                }
            }
            if since.elapsed() > self.limit {
                return Err(self.never(what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn never(&self, what: &str) -> Error {
        let mut text = format!("it never happened that {what}");
        if let Some(view) = self.watcher.view() {
            for agent in &view.agents {
                let task = agent.task.as_ref().map_or("", |task| task.title.as_str());
                let line = format!(
                    "\n  {}: {} ({}), {} queued, {} done {task}",
                    agent.id, agent.state, agent.reason, agent.queued, agent.tasks_done
                );
                text.push_str(&line);
            }
            let line = format!(
                "\n  {:?} {:?} pushed: {}",
                view.tasks, view.merges, view.pushed
            );
            text.push_str(&line);
        }
        Error::new(Exit::TimedOut, text)
    }

    fn lists(&self) -> PathBuf {
        self.stage
            .config
            .state_directory
            .join("agents/manager/checkout")
    }

    /// The last ticks come a moment after the last push.
    async fn compare_in_the_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + LAST_TICKS;
        let all_well = self.violations.is_empty();
        loop {
            self.compare()?;
            let lost = !self.outcome.lost.is_empty() || !self.kept.lost.is_empty();
            if !lost || !all_well || Instant::now() > deadline {
                return Ok(());
            }
            let lists = self.lists();
            self.ledger.put_back(&lists)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was found against what was handed out.
    fn compare(&mut self) -> Result<()> {
        let found = Found::read(&self.stage.repository(), &self.lists(), self.workers)?;
        self.outcome = self.ledger.compare(&found);
        self.kept = self.notes.find(&Places {
            state: &self.stage.config.state_directory,
            remote: &self.stage.repository(),
        })?;
        Ok(())
    }

    fn look_for_what_must_not_be(&mut self) {
        let mut found = Vec::new();
        let seen = self.watcher.seen();
        for pair in &seen.two_at_once {
            found.push(format!("one agent had two containers at once: {pair}"));
        }
        for (agent, reason) in &seen.given_up {
            found.push(format!("{agent} was given up: {reason}"));
        }
        if let Some((_, view)) = &seen.view {
            if view.tasks.failed > 0 {
                found.push(format!("{} tasks failed", view.tasks.failed));
            }
            for agent in &view.agents {
                let handed_out = self.ledger.of(&agent.id);
                if agent.id.worker_number().is_some() && agent.tasks_done as usize > handed_out {
                    found.push(format!(
                        "{} finished {} tasks of {handed_out}",
                        agent.id, agent.tasks_done
                    ));
                }
            }
        }
        drop(seen);
        for what in found {
            if !self.violations.contains(&what) {
                self.violations.push(what);
            }
        }
    }

    pub(super) fn report(&self, left_out: Vec<LeftOut>) -> Report {
        let view = self.watcher.view();
        let merges = view.as_ref().map(|view| view.merges).unwrap_or_default();
        let Outcome { lost, doubled } = self.outcome.clone();
        let mut violations = self.violations.clone();
        violations.extend(lost.iter().map(|lost| format!("lost: {lost}")));
        violations.extend(doubled.iter().map(|twice| format!("done twice: {twice}")));
        if self.at_rest {
            // Before, one may be in a commit that is still in its agent's checkout alone.
            let lost = self.kept.lost.iter();
            violations.extend(lost.map(|note| format!("lost: {note}")));
        }
        Report {
            ok: violations.is_empty(),
            seed: self.seed,
            rounds: self.played,
            seconds: self.started.elapsed().as_secs_f64(),
            errands: self.ledger.total(),
            put_back: self.ledger.put_back,
            lost,
            doubled,
            notes: self.kept.clone(),
            violations,
            left_out,
            faults: summarise(&self.happened),
            happened: self.happened.clone(),
            merges: merges.merged,
            conflicts: merges.conflicts,
            model_requests: self.stage.model.counters().turns,
            restarts: self.watcher.seen().restarts.clone(),
            kept: None,
        }
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.stage.directory.path().to_owned()
    }

    /// With `--keep`: until a person ends it. The files stay.
    pub(super) async fn wait_for_the_end(self, interruption: &mut Interruption) -> Result<()> {
        output::say(&self.stage.kept());
        let Self {
            mut stage,
            mut tools,
            watcher,
            ..
        } = self;
        let ended = tokio::select! {
            ended = stage.supervisor.until_ended(None) => ended,
            () = interruption.came() => stage.end().await,
        };
        drop(watcher);
        stage.model.stop().await;
        take_off_the_disk(&stage.config.state_directory, &mut tools)?;
        let kept = stage.directory.keep();
        output::say(&format!("the files are in {}", kept.display()));
        ended
    }

    /// Ends the fleet and removes everything; with `keep`, all but the files, whose place it returns.
    pub(super) async fn strike(self, keep: bool) -> Result<Option<PathBuf>> {
        output::say("cleaning up");
        if keep || self.keep {
            self.write_evidence();
        }
        let Self {
            mut stage,
            mut tools,
            watcher,
            ..
        } = self;
        tools.make_good(&mut stage).await?;
        let mut ended = match stage.supervisor.status()? {
            None => stage.end().await,
            Some(status) => Err(Error::new(
                Exit::Failure,
                format!("the supervisor had ended ({status})"),
            )),
        };
        drop(watcher);
        if let Ok(left) = stage.runtime.list(&stage.config.project).await
            && !left.is_empty()
            && ended.is_ok()
        {
            let names: Vec<&str> = left.iter().map(|one| one.name.as_str()).collect();
            let what = format!("containers are left: {}", names.join(", "));
            ended = Err(Error::new(Exit::Failure, what));
        }
        stage.model.stop().await;
        if keep || ended.is_err() {
            take_off_the_disk(&stage.config.state_directory, &mut tools)?;
            let kept = stage.directory.keep();
            return ended.map(|()| Some(kept));
        }
        if let Some(disk) = &mut tools.disk {
            disk.unmount()?;
        }
        drop(tools);
        let path = stage.directory.path().to_owned();
        stage
            .directory
            .close()
            .map_err(|error| Error::io(format!("cannot remove {}", path.display()), &error))?;
        Ok(None)
    }

    /// What the supervisor said last and what the model was asked, beside the logs.
    fn write_evidence(&self) {
        let requests = self.stage.model.requests();
        let newest = &requests[requests.len().saturating_sub(REQUESTS)..];
        let evidence = serde_json::json!({
            "report": self.report(Vec::new()),
            "view": self.watcher.view(),
            "requests": newest,
        });
        let path = self.directory().join("evidence.json");
        if let Err(error) = fs::write(&path, format!("{evidence:#}\n")) {
            output::say(&format!("cannot write {}: {error}", path.display()));
        }
    }
}

/// The state lies on a disk that goes with us: it is copied to where it was mounted.
fn take_off_the_disk(state: &std::path::Path, tools: &mut Tools) -> Result<()> {
    let Some(disk) = &mut tools.disk else {
        return Ok(());
    };
    let copy = state.with_extension("kept");
    disk.copy_to(&copy)?;
    disk.unmount()?;
    fs::remove_dir(state)
        .and_then(|()| fs::rename(&copy, state))
        .map_err(|error| Error::io("cannot keep the state", &error))
}

/// Nobody works, and nobody will: nothing waits.
fn resting(view: &FleetView) -> bool {
    let rests = |agent: &AgentView| agent.state == "idle" && agent.queued == 0;
    view.agents.iter().all(rests) && view.tasks.available + view.tasks.claimed == 0
}

/// Everything handed out is done, merged and pushed, and everybody rests.
fn is_done(view: &FleetView, handed_out: &[(u32, usize)]) -> bool {
    let all = handed_out.iter().all(|(worker, count)| {
        let agent = AgentId::worker(*worker);
        let found = view.agents.iter().find(|found| found.id == agent);
        found.is_some_and(|found| found.tasks_done as usize >= *count)
    });
    all && view.tasks.available + view.tasks.claimed == 0
        && view.merges.waiting == 0
        && view.merges.conflicts == view.merges.resolved
        && view.pushed
        && view
            .agents
            .iter()
            .all(|agent| agent.state == "idle" && agent.ahead.unwrap_or(0) == 0)
}
