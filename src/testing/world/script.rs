//! Scenario scripts: one command per line in, what was heard, decided and became of it out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::behave::Turn;
use super::{Account, World, lines};
use crate::model::train::TrainView;
use crate::model::{AgentId, CredentialId, Ending, Request, TaskId, Timestamp, Window, Windows};
use crate::supervisor::{MergeBy, Policy, PushOutcome};

/// Runs a script and renders it. Each line of the result shows an input (`>>`), an event (`<`), an
/// action (`>`), a deadline (`@`), a reply (`=`), a notice (`!`) or a state that changed (`.`).
///
/// Errors: a line that is no command, or that does not apply where it stands.
pub fn run_script(text: &str) -> Result<String, String> {
    let mut script = Script::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if line.starts_with('#') {
            let _ = writeln!(script.out, "{line}");
            continue;
        }
        let applied = script
            .command(line)
            .map_err(|problem| format!("line {}: {problem}", number + 1))?;
        if !applied {
            let trace = script.world.tail();
            return Err(format!(
                "line {}: `{line}` does not apply\n{trace}",
                number + 1
            ));
        }
        script.render(line);
    }
    Ok(script.out)
}

struct Script {
    world: World,
    out: String,
    shown: BTreeMap<String, String>,
    notices: Vec<String>,
    traced: usize,
}

/// The words of a line; text in double quotes is one word.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (place, part) in line.split('"').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn duration(word: &str) -> Result<Duration, String> {
    let bad = || format!("`{word}` is no duration; write 90s, 500ms, 5m, 2h or 3d");
    let split = word.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        "d" => Ok(Duration::from_secs(number * 86400)),
        _ => Err(bad()),
    }
}

impl Script {
    fn new() -> Self {
        Self {
            world: World::new(Policy::default()),
            out: String::new(),
            shown: BTreeMap::new(),
            notices: Vec::new(),
            traced: 0,
        }
    }

    /// False if it does not apply where it stands.
    fn command(&mut self, line: &str) -> Result<bool, String> {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let world = &mut self.world;
        let applied = match words.as_slice() {
            ["workers", number] => {
                let workers = number.parse().map_err(|_| "how many?".to_owned())?;
                *world = World::new(Policy {
                    workers,
                    ..Policy::default()
                });
                true
            }
            ["gates", "break"] => {
                world.git.gate_faults.push("no room on the disk".into());
                true
            }
            [state @ ("hold" | "release"), "gates"] => {
                world.gates_held = *state == "hold";
                true
            }
            ["gates", names @ ..] => {
                world.policy.gates = names.iter().map(|name| (*name).to_owned()).collect();
                true
            }
            ["merge-by", "manager"] => {
                world.policy.merge_by = MergeBy::Manager;
                true
            }
            ["daemon", "starts"] => {
                world.start_daemon(true);
                true
            }
            ["daemon", "starts", "without", "direction"] => {
                world.start_daemon(false);
                true
            }
            ["daemon", "crashes"] => {
                world.crash_daemon();
                true
            }
            ["tick", time] => {
                world.advance(duration(time)?);
                true
            }
            ["engine", state @ ("up" | "down")] => {
                world.engine(*state == "up");
                true
            }
            ["engine", "stops", "everything"] => {
                world.engine_stops_everything();
                true
            }
            ["plans", rest @ ..] => {
                let pairs = rest.chunks_exact(2);
                let items = pairs.map(|pair| (AgentId::new(pair[0]), pair[1].to_owned()));
                let items = items.collect();
                world.plans.push(items);
                true
            }
            ["end", ending] => {
                let ending = match *ending {
                    "stop" => Ending::Stop,
                    "drain" => Ending::Drain,
                    "detach" => Ending::Detach,
                    other => return Err(format!("`{other}` is no ending")),
                };
                world.request(Request::End { ending }).is_some()
            }
            ["task", wish @ ("retry" | "cancel"), task] => {
                let task = TaskId::new(*task);
                let request = match *wish {
                    "retry" => Request::RetryTask { task },
                    _ => Request::CancelTask { task },
                };
                world.request(request).is_some()
            }
            ["plan"] => world.request(Request::Plan).is_some(),
            ["fetch"] => world.request(Request::Fetch).is_some(),
            ["remote", "moves"] => {
                world.git.remote_moves();
                true
            }
            ["push", "denied", reason] => {
                let reason = (*reason).to_owned();
                world.git.push_faults.push(PushOutcome::Denied { reason });
                true
            }
            ["merge", "fails", reason] => {
                world.git.merge_faults.push((*reason).to_owned());
                true
            }
            ["rescue", "fails"] => {
                world.rescue_faults += 1;
                true
            }
            ["launch", "fails", retry @ ("once" | "forever")] => {
                world.launch_faults.push(*retry == "once");
                true
            }
            ["pool", names @ ..] => {
                let named = names.iter().map(|name| Account::named(name));
                world.accounts.extend(named);
                true
            }
            ["credential", name, rest @ ..] => {
                Self::of_credential(world, &CredentialId::new(*name), rest)?
            }
            [verb, agent, rest @ ..] => return Self::of_agent(world, verb, agent, rest),
            _ => return Err(format!("`{line}` is no command")),
        };
        world.run_outbox();
        Ok(applied)
    }

    fn of_agent(world: &mut World, verb: &str, name: &str, rest: &[&str]) -> Result<bool, String> {
        let agent = AgentId::new(name);
        if !world.minds.contains_key(&agent) && !["conflict", "red", "restart"].contains(&verb) {
            return Err(format!("there is no agent `{name}`"));
        }
        let applied = match (verb, rest) {
            ("boot", []) => world.boot(&agent),
            ("turn-ends", []) => world.turn_ends(&agent, &Turn::default()),
            ("turn-ends", ["idle"]) => world.turn_ends(
                &agent,
                &Turn {
                    idle: true,
                    ..Turn::default()
                },
            ),
            ("turn-ends", ["says", words]) => world.turn_ends(
                &agent,
                &Turn {
                    idle: true,
                    says: Some((*words).to_owned()),
                    ..Turn::default()
                },
            ),
            ("turn-ends", ["background", count]) => world.turn_ends(
                &agent,
                &Turn {
                    background: count.parse().map_err(|_| "how many?".to_owned())?,
                    ..Turn::default()
                },
            ),
            ("turn-ends", ["dirty", paths @ ..]) => world.turn_ends(
                &agent,
                &Turn {
                    dirty: paths.iter().map(|p| (*p).to_owned()).collect(),
                    ..Turn::default()
                },
            ),
            ("turn-fails", [error]) => world.turn_fails(&agent, error),
            ("acts", []) => world.uses_tool(&agent),
            ("forgets", []) => world.forgets(&agent),
            ("background-ends", []) => world.background_ends(&agent),
            ("crash", [code]) => {
                let code = code.parse().map_err(|_| "which code?".to_owned())?;
                world.exits(&agent, code, false)
            }
            ("starved", []) => world.starves(&agent),
            ("out-of-memory", []) => world.exits(&agent, 137, true),
            ("exit", []) => world.exits(&agent, 0, false),
            ("clear", []) => world.clear(&agent),
            ("escape", []) => world.escape(&agent),
            ("types", [text]) => world.types(&agent, text),
            ("permission", []) => world.waits_for_permission(&agent),
            ("asks-permission", []) => world.asks_permission(&agent),
            ("dialog", [dialog]) => world.opens_dialog(&agent, dialog),
            ("close-dialog", []) => world.closes_dialog(&agent),
            ("stands-still", []) => world.stands_still(&agent),
            ("computes", []) => world.computes(&agent),
            ("overtaken", []) => world.overtake(&agent),
            ("restart", []) => world.request(Request::Restart { agent }).is_some(),
            ("rescue", []) => {
                let agent = Some(agent);
                world.request(Request::Rescue { agent }).is_some()
            }
            ("windows", words) => {
                let windows = Self::windows(world.now, words)?;
                world.tells_windows(&agent, windows)
            }
            ("add-task", [text]) => {
                world.add_task(&agent, text);
                true
            }
            ("conflict", [path]) => {
                let demand = &mut world.git.conflicts_on_demand;
                demand.insert(name.to_owned(), (*path).to_owned());
                true
            }
            ("red", [gate]) => {
                let demand = &mut world.git.red_on_demand;
                demand.insert(name.to_owned(), (*gate).to_owned());
                true
            }
            (verb, rest) => Self::prepare(world, &agent, verb, rest)?,
        };
        world.run_outbox();
        Ok(applied)
    }

    fn of_credential(world: &mut World, id: &CredentialId, rest: &[&str]) -> Result<bool, String> {
        match rest {
            ["spent-for", time] => return Ok(world.limit(id, duration(time)?, true)),
            ["spent-for", time, "untold"] => return Ok(world.limit(id, duration(time)?, false)),
            ["new-file"] => return Ok(world.new_file(id)),
            ["retry"] => {
                let credential = id.clone();
                return Ok(world
                    .request(Request::RetryCredential { credential })
                    .is_some());
            }
            _ => {}
        }
        let now = world.now;
        let Some(account) = world.accounts.get_mut(id) else {
            return Err(format!("there is no credential `{id}`"));
        };
        match rest {
            ["expires-in", time] => account.info.expires_at = Some(now + duration(time)?),
            ["revoked"] => account.accepted = account.token + 1,
            ["dead"] => {
                account.accepted = account.token + 1;
                account.dead = true;
            }
            ["unpaid"] => account.unpaid = true,
            ["refresh-fails", times] => {
                account.refresh_faults = times.parse().map_err(|_| "how often?".to_owned())?;
            }
            ["removed"] => {
                account.there = false;
                world.read_pool();
            }
            _ => {
                return Err(format!(
                    "`{}` is no word about a credential",
                    rest.join(" ")
                ));
            }
        }
        Ok(true)
    }

    /// `5h=96@2h`: so much of the window is used, and so long until it ends.
    fn windows(now: Timestamp, words: &[&str]) -> Result<Windows, String> {
        let mut windows = Windows::default();
        for word in words {
            let bad = || format!("`{word}` is no window; write 5h=96@2h or 7d=40@3d");
            let (name, rest) = word.split_once('=').ok_or_else(bad)?;
            let (used, left) = rest.split_once('@').ok_or_else(bad)?;
            let window = Some(Window {
                used_percent: used.parse().map_err(|_| bad())?,
                resets_at: now + duration(left)?,
            });
            match name {
                "5h" => windows.five_hour = window,
                "7d" => windows.seven_day = window,
                _ => return Err(bad()),
            }
        }
        Ok(windows)
    }

    /// What will happen to an agent later.
    fn prepare(
        world: &mut World,
        agent: &AgentId,
        verb: &str,
        rest: &[&str],
    ) -> Result<bool, String> {
        let Some(mind) = world.minds.get_mut(agent) else {
            return Ok(false);
        };
        match (verb, rest) {
            ("dialog-at-start", [name]) => mind.dialog_at_start = Some((*name).to_owned()),
            ("swallow-pastes", [count]) => {
                mind.swallow = count.parse().map_err(|_| "how many?".to_owned())?;
            }
            ("tree-untold", []) => mind.tree_untold = true,
            ("dialog-at-limit", []) => mind.dialog_at_limit = true,
            ("draft", [text]) => mind.draft = Some((*text).to_owned()),
            _ => return Err(format!("`{verb}` with {} words is no command", rest.len())),
        }
        Ok(true)
    }

    fn render(&mut self, line: &str) {
        let _ = writeln!(self.out, "\n>> {line}");
        for trace in &self.world.trace[self.traced..] {
            let _ = writeln!(self.out, "{trace}");
        }
        self.traced = self.world.trace.len();
        let fleet = self.world.fleet();
        for notice in &fleet.notices {
            let agent = notice.agent.as_ref().map_or("", |agent| agent.as_str());
            let text = format!("{}|{agent}|{}", notice.at.0, notice.text);
            if !self.notices.contains(&text) {
                let _ = writeln!(self.out, "  ! {agent} {}", notice.text);
                self.notices.push(text);
            }
        }
        let mut states: Vec<(String, String)> = fleet
            .agents
            .values()
            .map(|agent| (agent.id.to_string(), lines::state(agent)))
            .collect();
        if let Some(supervisor) = self.world.supervisor() {
            let view = supervisor.view(self.world.now);
            let credentials = view.credentials.iter();
            states.extend(credentials.map(|view| (view.id.to_string(), lines::credential(view))));
            let train = lines::train(&view.train);
            if train != lines::train(&TrainView::default()) || self.shown.contains_key("train") {
                states.push(("train".into(), train));
            }
        }
        states.push(("fleet".into(), lines::fleet(&fleet)));
        for (who, state) in states {
            if self.shown.get(&who) != Some(&state) {
                let _ = writeln!(self.out, "  . {state}");
                self.shown.insert(who, state);
            }
        }
    }
}
