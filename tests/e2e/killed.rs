//! `kill -9` of the supervisor at any moment, again and again, while agents work: while it starts,
//! launches, delivers, merges, pushes. The agents never notice.
//!
//! `ORCHESTRATOR_TEST_KILLS` says how often (6), `ORCHESTRATOR_TEST_SEED` when; the seed is printed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orchestrator::model::view::FleetView;
use orchestrator::testing::scripted_model::{Condition, Pattern, Rule, Scenario, Step};
use serde_json::json;

use crate::support::{Setup, Stage, eventually};

const KILLS: u64 = 6;
const WORKERS: u32 = 2;
/// The longest a supervisor is left alone, in milliseconds; ready it is after about 1,000.
const LIFE: u64 = 3000;
/// So long about a task takes, with everything around it.
const TASK: u64 = 2500;

/// Actions of the supervisor, as its log names them, at whose beginning it is killed.
const ACTIONS: [&str; 8] = [
    "Launch", "Adopt", "Paste", "Answer", "Complete", "Import", "Merge", "Push",
];
/// At most so long after the beginning of an action, in milliseconds.
const WITHIN: u64 = 60;

/// When a supervisor is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many milliseconds after its start.
    AfterStart(u64),
    /// So many milliseconds after it began such an action, or at the end of the longest life.
    AfterAction(&'static str, u64),
}

impl Moment {
    /// In turns: while it starts, when it does something, at any time.
    fn of(number: u64, chance: &mut Chance) -> Self {
        match number % 3 {
            0 => Self::AfterStart(chance.below(LIFE / 3)),
            1 => {
                let action = ACTIONS[chance.below(ACTIONS.len() as u64) as usize];
                Self::AfterAction(action, chance.below(WITHIN))
            }
            _ => Self::AfterStart(chance.below(LIFE)),
        }
    }

    /// Waits until it has come.
    fn wait(self, log: &Path, log_before: usize) {
        let (action, after) = match self {
            Self::AfterStart(after) => (None, after),
            Self::AfterAction(action, after) => (Some(action), after),
        };
        if let Some(action) = action {
            let wanted = format!("\"action\":\"{action} {{");
            let end = Instant::now() + Duration::from_millis(LIFE);
            while Instant::now() < end {
                let text = std::fs::read(log).unwrap_or_default();
                let new = String::from_utf8_lossy(text.get(log_before..).unwrap_or_default());
                if new.contains(&wanted) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // The moment of the kill, not a wait for anything.
        std::thread::sleep(Duration::from_millis(after));
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is `{text}`, not a number")),
    )
}

fn item(worker: u32, number: u64) -> String {
    format!("part-{worker}-{number}-of-it")
}

/// Every task takes a moment before and after its commit.
fn script() -> Scenario {
    let work = "sleep 0.7; mkdir -p work && echo ran >> work/{{id}}.txt && git add work && \
         git commit -q -m 'work {{id}}' && sleep 0.3; git log -1 --format=%s";
    let task = Condition::Text(Pattern::new("write {id:word}").unwrap());
    Scenario {
        rules: vec![Rule {
            name: "work".into(),
            when: vec![task],
            steps: vec![Step::bash(work, "Do the work")],
            finally: "Did it.".into(),
        }],
        ..Scenario::default()
    }
}

fn setup(tasks: u64) -> Setup {
    const NAMES: [&str; 2] = ["WORKER_1_TASK_LIST.md", "WORKER_2_TASK_LIST.md"];
    let list = |worker: u32| {
        let lines = (1..=tasks).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "- [ ] write {} now", item(worker, number));
            text
        });
        (NAMES[worker as usize - 1], lines.into_bytes())
    };
    Setup {
        workers: WORKERS,
        scenario: script(),
        files: (1..=WORKERS).map(list).collect(),
        config: json!({"logs": {"level": "debug"}}),
        own_engine: None,
    }
}

/// Every start of a container of an agent, as the engine tells it.
struct Starts(Option<Child>);

impl Starts {
    fn follow(stage: &Stage) -> Self {
        let project = format!("label=dev.orchestrator.project={}", stage.project);
        let child = Command::new("docker")
            .args([
                "events",
                "--filter",
                "type=container",
                "--filter",
                "event=start",
            ])
            .args([
                "--filter",
                &project,
                "--filter",
                "label=dev.orchestrator.agent",
            ])
            .args(["--format", "{{.Actor.Attributes.name}}"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(Some(child))
    }

    fn end(mut self) -> Vec<String> {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        let told = child.wait_with_output().unwrap().stdout;
        let told = String::from_utf8(told).unwrap();
        let mut names: Vec<String> = told.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a supervisor and kills it. Its own words go into a file.
fn one_short_life(stage: &Stage, moment: Moment) {
    let its_log = stage.state().join("log/supervisor.log");
    let before = std::fs::metadata(&its_log).map_or(0, |found| found.len() as usize);
    let log = stage.root().join("short-lives.log");
    let said = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let mut child = stage
        .command(&["up", "--background"])
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap();
    moment.wait(&its_log, before);
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "it ended by itself: {ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn killed_at_work(stage: &Stage) {
    stage.up();
    stage.until("all workers work", |view| {
        let at_work = view.agents.iter().filter(|agent| agent.state == "working");
        at_work.count() == WORKERS as usize || view.tasks.done > 0
    });
    let pid = stage.pid();
    stage.signal("-9", &pid);
    stage.until_gone(&pid);
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_done_twice() {
    let kills = from_environment("ORCHESTRATOR_TEST_KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = from_environment("ORCHESTRATOR_TEST_SEED");
    let seed = seed.unwrap_or(now.as_micros() as u64 % 1_000_000);
    eprintln!("{kills} kills; again with ORCHESTRATOR_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    // As much work as there is time to kill in, so that most kills meet work.
    let tasks = (kills * LIFE / 2).div_ceil(TASK).max(2);
    let stage = Stage::set(setup(tasks));
    let starts = Starts::follow(&stage);
    let mut moments = Vec::new();
    for number in 0..kills {
        if number == kills / 3 {
            // The kills before met launches; those from here on meet work.
            killed_at_work(&stage);
        }
        let moment = Moment::of(number, &mut chance);
        moments.push(moment);
        one_short_life(&stage, moment);
    }
    eprintln!("killed at {moments:?}");
    stage.up();
    let total = tasks as u32 * WORKERS;
    let view = stage.until_done(total);
    everything_once(&stage, &view, tasks);
    let mut expected: Vec<String> = view
        .agents
        .iter()
        .map(|agent| format!("orchestrator-{}-{}-1", stage.project, agent.id))
        .collect();
    expected.sort();
    assert_eq!(starts.end(), expected, "each agent was started once");
    nothing_to_complain_about(&stage, &view);
    stage.down();
    stage.nothing_is_left();
}

fn everything_once(stage: &Stage, view: &FleetView, tasks: u64) {
    let log = stage
        .git(&stage.remote(), &["log", "--format=%s", "main"])
        .ok();
    for worker in 1..=WORKERS {
        for number in 1..=tasks {
            let name = item(worker, number);
            let commits = log
                .lines()
                .filter(|line| *line == format!("work {name}"))
                .count();
            let told = stage.turns_about(&format!("write {name} ")).len();
            assert_eq!(
                (commits, stage.runs_of(&name), told),
                (1, 1, 1),
                "{name}: {log}"
            );
        }
    }
    for agent in &view.agents {
        assert_eq!((agent.incarnation.0, agent.restarts), (1, 0), "{agent:?}");
    }
    let (failed, cancelled) = (view.tasks.failed, view.tasks.cancelled);
    assert_eq!((failed, cancelled), (0, 0));
    for worker in 1..=WORKERS {
        let list = stage
            .checkout("manager")
            .join(format!("WORKER_{worker}_TASK_LIST.md"));
        eventually("every item is ticked", || {
            let text = std::fs::read_to_string(&list).ok()?;
            (text.matches("- [x] ").count() as u64 == tasks).then_some(())
        });
    }
}

fn nothing_to_complain_about(stage: &Stage, view: &FleetView) {
    for agent in &view.agents {
        for place in ["spool", "quarantine"] {
            let path = stage.state().join(format!("agents/{}/{place}", agent.id));
            let left: Vec<_> = std::fs::read_dir(&path)
                .into_iter()
                .flatten()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
    assert_eq!(view.notices, [], "nobody has to look at anything");
    let log = std::fs::read_to_string(stage.state().join("log/supervisor.log")).unwrap();
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"ERROR\""))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
