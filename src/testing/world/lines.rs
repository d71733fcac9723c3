//! Events, actions and states in one line each, for traces that people read.

use std::fmt::Write as _;

use crate::model::{CommitId, HookAnswer, HookFact, Reply, Screen};
use crate::supervisor::{
    Action, AgentState, Event, Fleet, ImportOutcome, Inventory, MergeOutcome, PushOutcome,
    RemoteOutcome,
};

const TEXT: usize = 60;

fn cut(text: &str) -> String {
    let line = text.lines().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(TEXT).collect();
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

/// `None` for what would only be noise.
pub(super) fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::InventoryTaken(Inventory::Unreachable { reason }) => {
            format!("engine unreachable: {reason}")
        }
        Event::InventoryTaken(Inventory::Seen(seen)) => {
            let all: Vec<String> = seen
                .iter()
                .map(|c| {
                    let state = if c.running { "runs" } else { "ended" };
                    format!("{} {state}", c.name)
                })
                .collect();
            format!("inventory: [{}]", all.join(", "))
        }
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
        Event::ScreenSeen {
            screen: Screen::Blank,
            ..
        }
        | Event::SessionChecked { .. } => return None,
        Event::ScreenSeen { agent, screen, .. } => format!("{agent} screen {screen:?}"),
        Event::Pasted { agent, .. } => format!("{agent} pasted"),
        Event::PasteFailed { agent, reason, .. } => format!("{agent} paste failed: {reason}"),
        Event::Claimed { agent, task } => {
            format!("{agent} claimed {} attempt {}", task.id, task.attempts)
        }
        Event::ClaimLost {
            agent,
            task,
            reason,
        } => format!("{agent} claim of {task} lost: {reason}"),
        Event::Imported { agent, outcome } => match outcome {
            ImportOutcome::Taken { head, dirty } => {
                format!("{agent} imported {} dirty {dirty:?}", commit(head))
            }
            ImportOutcome::Failed { reason } => format!("{agent} import failed: {reason}"),
        },
        Event::MergeFinished {
            agent,
            commit: id,
            outcome,
        } => format!("merge of {agent} {}: {}", commit(id), merged(outcome)),
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
        Event::DirectionSeen { .. } | Event::QueueChanged(_) | Event::TaskFinished { .. } => {
            return None;
        }
        Event::Noticed { text, .. } => text.clone(),
    })
}

fn merged(outcome: &MergeOutcome) -> String {
    match outcome {
        MergeOutcome::Merged { head } => format!("the branch is {}", commit(head)),
        MergeOutcome::UpToDate => "up to date".into(),
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
        } => {
            let how = if *resume { "resume" } else { "new" };
            format!("launch {agent} {incarnation} {how} {session}")
        }
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
            ..
        } => format!("complete {task} of {agent}: {:?}", cut(result)),
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
        Action::CreateTask(new) => format!("create {} for {}", new.id, new.owner),
        Action::Import { agent, .. } => format!("import {agent}"),
        Action::Merge {
            agent,
            commit: id,
            message,
        } => format!("merge {agent} {}: {}", commit(id), cut(message)),
        Action::Push { .. } => "push".into(),
        Action::CheckScreen { .. }
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
    format!(
        "{} {} {}{held}: {}",
        agent.id,
        agent.incarnation,
        agent.phase.word(),
        cut(&agent.reason)
    )
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
