//! Events, actions and states in one line each, for traces that people read.

use std::fmt::Write as _;

use crate::model::train::{CandidateView, TrainView};
use crate::model::{
    AgentId, CommitId, CredentialView, GateRecord, HookAnswer, HookFact, Reply, RescueCause,
    Screen, Window,
};
use crate::supervisor::{
    Action, AgentState, Event, Fleet, GatesOutcome, ImportOutcome, Inventory, LandOutcome,
    MergeOutcome, PushOutcome, RemoteOutcome, RescueOutcome, SeenContainer, StackCandidate,
    StackOutcome,
};

const TEXT: usize = 60;
/// Reasons name credentials and times, which are what matters.
const REASON: usize = 140;

fn cut(text: &str) -> String {
    cut_at(text, TEXT)
}

fn cut_at(text: &str, length: usize) -> String {
    let line = text.lines().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(length).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

/// `c000000007000…` as `c7`.
fn commit(id: &CommitId) -> String {
    let number = id.short().trim_start_matches('c').trim_start_matches('0');
    format!("c{number}")
}

fn containers(seen: &[SeenContainer]) -> String {
    let state = |c: &SeenContainer| if c.running { "runs" } else { "ended" };
    let all = seen.iter().map(|c| format!("{} {}", c.name, state(c)));
    all.collect::<Vec<String>>().join(", ")
}

/// `None` for what would only be noise.
pub(super) fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::EngineAway { reason } => format!("the engine goes away: {reason}"),
        Event::EngineBack(Inventory::Seen(seen)) => {
            format!("the engine is back: [{}]", containers(seen))
        }
        Event::InventoryTaken(Inventory::Unreachable { reason })
        | Event::EngineBack(Inventory::Unreachable { reason }) => {
            format!("engine unreachable: {reason}")
        }
        Event::InventoryTaken(Inventory::Seen(seen)) => {
            format!("inventory: [{}]", containers(seen))
        }
        Event::Starved { agent, incarnation } => {
            format!("{agent} {incarnation} is out of memory")
        }
        Event::PoolRead { credentials } => {
            let names: Vec<&str> = credentials.iter().map(|one| one.id.as_str()).collect();
            format!("pool: {}", names.join(", "))
        }
        Event::WindowsTold { agent, windows, .. } => {
            let used = |window: Option<Window>| {
                window.map_or_else(|| "-".to_owned(), |w| format!("{:.0} %", w.used_percent))
            };
            let (five, seven) = (used(windows.five_hour), used(windows.seven_day));
            format!("{agent} tells its windows: 5-hour {five}, weekly {seven}")
        }
        Event::Lent {
            agent, credential, ..
        } => format!("{agent} has {credential}"),
        Event::LendFailed {
            agent,
            credential,
            reason,
            ..
        } => format!("{agent} not lent {credential}: {reason}"),
        Event::Refreshed { credential, .. } => format!("{credential} refreshed"),
        Event::RefreshFailed {
            credential, reason, ..
        } => format!("{credential} not refreshed: {reason}"),
        Event::Launched {
            agent, incarnation, ..
        } => format!("{agent} {incarnation} launched"),
        Event::LaunchFailed {
            agent,
            incarnation,
            reason,
            ..
        } => format!("{agent} {incarnation} not launched: {reason}"),
        Event::Exited {
            agent,
            incarnation,
            exit_code,
            ..
        } => match exit_code {
            Some(code) => format!("{agent} {incarnation} exited with {code}"),
            None => format!("{agent} {incarnation} is gone"),
        },
        Event::Hook(hook) => {
            let report = &hook.report;
            let spooled = if report.spooled { " (spooled)" } else { "" };
            let receipt = if hook.receipt { " = receipt" } else { "" };
            format!("{} {}{receipt}{spooled}", report.agent, fact(&report.fact))
        }
        Event::AnswerLost { agent, text, .. } => format!("{agent} lost answer {:?}", cut(text)),
        Event::Examined { .. }
        | Event::ScreenSeen {
            screen: Screen::Blank,
            ..
        }
        | Event::SessionChecked { .. }
        | Event::DirectionSeen { .. }
        | Event::QueueChanged(_)
        | Event::TaskCreated { .. }
        | Event::TaskFinished { .. }
        | Event::TaskSettled { .. } => return None,
        Event::ScreenSeen { agent, screen, .. } => format!("{agent} screen {screen:?}"),
        Event::Pasted { agent, .. } => format!("{agent} pasted"),
        Event::PasteFailed { agent, reason, .. } => format!("{agent} paste failed: {reason}"),
        Event::Overtaken {
            agent,
            task,
            reason,
            ..
        } => format!("{agent} lost {task}: {reason}"),
        Event::Claimed { agent, task } => {
            format!("{agent} claimed {} attempt {}", task.id, task.attempts)
        }
        Event::ClaimLost {
            agent,
            task,
            reason,
        } => format!("{agent} claim of {task} lost: {reason}"),
        Event::Rescued { agent, outcome, .. } => match outcome {
            RescueOutcome::Nothing => return None,
            RescueOutcome::Taken { rescue } => {
                format!("{agent} rescued {} {}", rescue.id, rescue.cause)
            }
            RescueOutcome::Failed { reason, .. } => format!("{agent} not rescued: {reason}"),
        },
        Event::TreeSeen {
            agent, uncommitted, ..
        } => {
            if uncommitted.is_empty() {
                return None;
            }
            format!("{agent} left {uncommitted:?}")
        }
        Event::Imported { agent, outcome } => match outcome {
            ImportOutcome::Taken { head, dirty, work } => {
                let counts = work
                    .iter()
                    .map(|w| format!("; {} for {}", w.work.commit_count, w.task));
                let counts: String = counts.collect();
                format!("{agent} imported {} dirty {dirty:?}{counts}", commit(head))
            }
            ImportOutcome::Failed { reason } => format!("{agent} import failed: {reason}"),
        },
        Event::StackBuilt { stack, outcome } => format!("stack {stack}{}", built(outcome)),
        Event::GatesFinished {
            stack,
            commit: id,
            outcome,
        } => format!(
            "gates of stack {stack} on {}: {}",
            commit(id),
            gates(outcome)
        ),
        Event::Landed { stack, outcome } => match outcome {
            LandOutcome::Landed { head } => {
                format!("stack {stack} landed: the branch is {}", commit(head))
            }
            LandOutcome::Moved { head } => {
                format!(
                    "stack {stack} not landed: the branch has moved to {}",
                    commit(head)
                )
            }
            LandOutcome::Failed { reason } => format!("stack {stack} not landed: {reason}"),
        },
        Event::StoreRecovered => "the store takes writes again".to_owned(),
        Event::BranchMoved { head } => format!("branch moved to {}", commit(head)),
        Event::PushFinished(outcome) => match outcome {
            PushOutcome::Pushed { head } => format!("pushed {}", commit(head)),
            PushOutcome::Moved => "push refused: the remote has moved".into(),
            PushOutcome::Denied { reason } => format!("push denied: {reason}"),
            PushOutcome::Away { reason } => format!("push: away: {reason}"),
        },
        Event::RemoteFetched(outcome) => match outcome {
            RemoteOutcome::Integrated { moved: false, .. } => return None,
            RemoteOutcome::Integrated { head, .. } => {
                format!("fetched; the branch is {}", commit(head))
            }
            RemoteOutcome::Conflict { remote, .. } => {
                format!("fetched {}: conflict", commit(remote))
            }
            RemoteOutcome::Away { reason } => format!("fetch: away: {reason}"),
        },
        Event::Noticed { text, .. } => text.clone(),
    })
}

fn built(outcome: &StackOutcome) -> String {
    match outcome {
        StackOutcome::Failed { reason } => format!(" not built: {reason}"),
        StackOutcome::Built { base, top, members } => {
            let mut line = format!(" on {} is {}", commit(base), commit(top));
            for member in members {
                let (agent, id) = (&member.agent, commit(&member.commit));
                let _ = write!(line, "; {agent} {id} {}", merged(&member.outcome));
            }
            line
        }
    }
}

fn gates(outcome: &GatesOutcome) -> String {
    let gates = match outcome {
        GatesOutcome::Failed { reason } => return format!("failed: {reason}"),
        GatesOutcome::Ran { gates } => gates,
    };
    let word = |gate: &GateRecord| format!("{} {:?}", gate.name, gate.outcome).to_lowercase();
    gates.iter().map(word).collect::<Vec<String>>().join(", ")
}

fn merged(outcome: &MergeOutcome) -> String {
    match outcome {
        MergeOutcome::Merged { .. } => "merged".into(),
        MergeOutcome::UpToDate => "up to date".into(),
        MergeOutcome::Absent => "not there".into(),
        MergeOutcome::Conflict { files } => {
            let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
            format!("conflict in {}", paths.join(", "))
        }
        MergeOutcome::Failed { reason } => format!("failed: {reason}"),
    }
}

fn fact(fact: &HookFact) -> String {
    match fact {
        HookFact::SessionStarted { source } => format!("SessionStart {source}"),
        HookFact::PromptSubmitted { text, .. } => format!("UserPromptSubmit {:?}", cut(text)),
        HookFact::Stopped {
            background_tasks: 0,
            ..
        } => "Stop".into(),
        HookFact::Stopped {
            background_tasks, ..
        } => format!("Stop with {background_tasks} background"),
        HookFact::TurnFailed { error, .. } => format!("StopFailure {error}"),
        HookFact::Notified { notification, .. } => format!("Notification {notification}"),
        HookFact::PermissionAsked { tool } => format!("PermissionRequest {tool}"),
        HookFact::SessionEnded { reason } => format!("SessionEnd {reason}"),
        HookFact::Activity { what } => what.clone(),
        HookFact::Unknown { event } => event.clone(),
    }
}

/// `None` for what would only be noise.
pub(super) fn action(action: &Action) -> Option<String> {
    Some(match action {
        Action::Launch {
            agent,
            incarnation,
            session,
            resume,
            go_on,
        } => {
            let how = match (resume, go_on) {
                (false, _) => "new",
                (true, false) => "resume",
                (true, true) => "resume and go on in",
            };
            format!("launch {agent} {incarnation} {how} {session}")
        }
        Action::Lend {
            agent, credential, ..
        } => format!("lend {credential} to {agent}"),
        Action::Refresh { credential } => format!("refresh {credential}"),
        Action::CloseDialog { agent, name, .. } => format!("close {name} of {agent}"),
        Action::Adopt { agent, incarnation } => format!("adopt {agent} {incarnation}"),
        Action::StopContainer {
            agent, incarnation, ..
        } => format!("stop container {agent} {incarnation}"),
        Action::TakeInventory { after } => format!("inventory after {after:?}"),
        Action::Claim { agent, task, .. } => format!("claim {task} for {agent}"),
        Action::Answer { callback, answer } => match answer {
            HookAnswer::LetGo => return None,
            HookAnswer::Continue { text, .. } => format!("answer {callback}: {:?}", cut(text)),
            HookAnswer::Deny { .. } => format!("answer {callback}: deny"),
        },
        Action::Paste {
            agent, text, clear, ..
        } => {
            let clear = if *clear { " clearing" } else { "" };
            format!("paste{clear} to {agent}: {:?}", cut(text))
        }
        Action::Complete {
            agent,
            task,
            result,
            receipt,
            ..
        } => {
            let copy = receipt.as_ref().and_then(|receipt| receipt.rescue.as_ref());
            let copy = copy.map_or_else(String::new, |copy| format!(" with copy {}", copy.id));
            format!("complete {task} of {agent}: {:?}{copy}", cut(result))
        }
        Action::Release {
            agent,
            task,
            reason,
            retry,
            ..
        } => {
            let end = if *retry { "release" } else { "fail" };
            format!("{end} {task} of {agent}: {reason}")
        }
        Action::NoteAttempts { task, past, .. } => {
            let last = past.last()?;
            format!("note {task}: attempt {} {}", last.number, last.end.as_str())
        }
        Action::RetryTask { task } => format!("retry {task}"),
        Action::CancelTask { task } => format!("cancel {task}"),
        Action::CreateTask(new) => format!("create {} for {}", new.id, new.owner),
        Action::Import { agent, .. } => format!("import {agent}"),
        Action::BuildStack { stack, candidates } => {
            let one = |c: &StackCandidate| {
                format!("{} {}: {}", c.agent, commit(&c.commit), cut(&c.message))
            };
            let all: Vec<String> = candidates.iter().map(one).collect();
            format!("stack {stack}: {}", all.join("; "))
        }
        Action::RunGates {
            stack,
            commit: id,
            all,
        } => {
            let which = if *all { "all gates" } else { "gates" };
            format!("run {which} of stack {stack} on {}", commit(id))
        }
        Action::Land { stack, from, to } => {
            format!("land stack {stack}: {} to {}", commit(from), commit(to))
        }
        Action::Push { .. } => "push".into(),
        Action::Rescue { agent, cause, .. } if *cause != RescueCause::Interval => {
            format!("rescue {agent} {}", cause.as_str())
        }
        Action::CheckScreen { .. }
        | Action::Rescue { .. }
        | Action::Examine { .. }
        | Action::CheckSession { .. }
        | Action::EnsurePane { .. }
        | Action::ReadTaskLists
        | Action::FetchRemote => return None,
        Action::Finish { ending } => format!("finish {ending:?}").to_lowercase(),
    })
}

pub(super) fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Accepted => "accepted".into(),
        Reply::AlreadySo => "already so".into(),
        Reply::Denied { code, reason, .. } => format!("denied {code}: {reason}"),
    }
}

/// An agent as people see it.
pub(super) fn state(agent: &AgentState) -> String {
    let held = agent.held.as_ref().map_or_else(String::new, |held| {
        let delivered = if held.delivered { "has" } else { "awaits" };
        format!(" {delivered} {}", held.task)
    });
    let claims: Vec<&str> = agent.claims.iter().map(|c| c.task.as_str()).collect();
    let claims = if claims.is_empty() {
        String::new()
    } else {
        format!(" claims {}", claims.join(", "))
    };
    format!(
        "{} {} {}{held}{claims}: {}",
        agent.id,
        agent.incarnation,
        agent.phase.word(),
        cut_at(&agent.reason, REASON)
    )
}

/// A credential as people see it.
pub(super) fn credential(view: &CredentialView) -> String {
    let lent: Vec<&str> = view.lent_to.iter().map(AgentId::as_str).collect();
    let lent = if lent.is_empty() {
        "nobody".to_owned()
    } else {
        lent.join(", ")
    };
    let reason = view.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    format!("\"{}\" {}, {lent} has it{reason}", view.id, view.state)
}

/// The train as people see it.
pub(super) fn train(view: &TrainView) -> String {
    let names = |all: &[CandidateView]| {
        let names: Vec<&str> = all.iter().map(|c| c.agent.as_str()).collect();
        names.join(", ")
    };
    let mut line = format!("train {}", view.state.as_str());
    if view.bisecting {
        line.push_str(" (bisecting)");
    }
    if let Some(stack) = &view.stack {
        let _ = write!(line, " stack {}: {}", stack.number, names(&stack.members));
    }
    for part in &view.after {
        let _ = write!(line, "; then {}", names(part));
    }
    if let Some(asked) = &view.with_manager {
        let _ = write!(line, "; {} with the manager", names(&asked.candidates));
    }
    if !view.waiting.is_empty() {
        let _ = write!(line, "; line {}", names(&view.waiting));
    }
    for stall in &view.stalls {
        let _ = write!(line, "; held up: {}", stall.reason);
    }
    line
}

/// Branch and planning as people see them.
pub(super) fn fleet(fleet: &Fleet) -> String {
    let merging = &fleet.merging;
    let name = |id: Option<&CommitId>| id.map_or_else(|| "-".to_owned(), commit);
    let mut line = format!(
        "branch {} pushed {} merged {}",
        name(fleet.branch_head.as_ref()),
        name(merging.pushed.as_ref()),
        merging.merged
    );
    for (agent, conflict) in &merging.conflicts {
        let paths = conflict.paths.join(", ");
        let _ = write!(line, "; {agent} conflicts in {paths}");
    }
    if fleet.planning.rounds > 0 {
        let _ = write!(line, "; rounds {}", fleet.planning.rounds);
    }
    if fleet.planning.resting {
        line.push_str(", resting");
    }
    line
}
