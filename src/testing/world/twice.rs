//! Doing things twice: which, and what has been so far.

use std::collections::BTreeSet;

use crate::supervisor::{Action, Event};

/// Which actions are carried out twice, one after the other, each with its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Twice {
    #[default]
    None,
    Every,
    /// The one of this number alone, counted from 1.
    Only(u64),
}

/// What a world has done, and what of it twice.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Actions said so far, repetitions not counted.
    pub actions: u64,
    pub actions_twice: BTreeSet<&'static str>,
    pub events_twice: BTreeSet<&'static str>,
    /// Actions after which, or within whose decision, the daemon has died.
    pub actions_at_crash: BTreeSet<&'static str>,
}

impl Twice {
    pub(super) fn applies(self, number: u64) -> bool {
        match self {
            Self::None => false,
            Self::Every => true,
            Self::Only(only) => only == number,
        }
    }
}

/// The kinds of actions; a new one belongs here and into the simulation's scripts.
pub const ACTION_KINDS: [&str; 26] = [
    "Rescue",
    "NoteAttempts",
    "CheckSession",
    "Examine",
    "Launch",
    "Adopt",
    "EnsurePane",
    "CheckScreen",
    "StopContainer",
    "TakeInventory",
    "Claim",
    "Answer",
    "Paste",
    "Complete",
    "Release",
    "CreateTask",
    "RetryTask",
    "CancelTask",
    "ReadTaskLists",
    "Import",
    "BuildStack",
    "RunGates",
    "Land",
    "Push",
    "FetchRemote",
    "Finish",
];

pub(super) fn action_kind(action: &Action) -> &'static str {
    match action {
        Action::Launch { .. } => "Launch",
        Action::Rescue { .. } => "Rescue",
        Action::Adopt { .. } => "Adopt",
        Action::EnsurePane { .. } => "EnsurePane",
        Action::CheckScreen { .. } => "CheckScreen",
        Action::StopContainer { .. } => "StopContainer",
        Action::TakeInventory { .. } => "TakeInventory",
        Action::Claim { .. } => "Claim",
        Action::Answer { .. } => "Answer",
        Action::Paste { .. } => "Paste",
        Action::Complete { .. } => "Complete",
        Action::Release { .. } => "Release",
        Action::NoteAttempts { .. } => "NoteAttempts",
        Action::CreateTask(_) => "CreateTask",
        Action::RetryTask { .. } => "RetryTask",
        Action::CancelTask { .. } => "CancelTask",
        Action::ReadTaskLists => "ReadTaskLists",
        Action::Import { .. } => "Import",
        Action::BuildStack { .. } => "BuildStack",
        Action::RunGates { .. } => "RunGates",
        Action::Land { .. } => "Land",
        Action::Push { .. } => "Push",
        Action::FetchRemote => "FetchRemote",
        Action::Finish { .. } => "Finish",
        Action::Examine { .. } => "Examine",
        Action::CheckSession { .. } => "CheckSession",
        Action::Lend { .. } => "Lend",
        Action::Refresh { .. } => "Refresh",
        Action::CloseDialog { .. } => "CloseDialog",
    }
}

/// The kinds of events that are results of actions or come from the world at any time. A hook is
/// not among them: a callback counts once by its id, which the driver sees to.
pub const EVENT_KINDS: [&str; 32] = [
    "TaskCreated",
    "Rescued",
    "TreeSeen",
    "SessionChecked",
    "Examined",
    "InventoryTaken",
    "EngineAway",
    "EngineBack",
    "Starved",
    "Launched",
    "LaunchFailed",
    "Exited",
    "AnswerLost",
    "ScreenSeen",
    "Pasted",
    "PasteFailed",
    "QueueChanged",
    "Claimed",
    "ClaimLost",
    "TaskFinished",
    "TaskSettled",
    "Overtaken",
    "Imported",
    "StackBuilt",
    "GatesFinished",
    "Landed",
    "StoreRecovered",
    "BranchMoved",
    "PushFinished",
    "RemoteFetched",
    "DirectionSeen",
    "Noticed",
];

pub(super) fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::InventoryTaken(_) => "InventoryTaken",
        Event::EngineAway { .. } => "EngineAway",
        Event::EngineBack(_) => "EngineBack",
        Event::Starved { .. } => "Starved",
        Event::Launched { .. } => "Launched",
        Event::LaunchFailed { .. } => "LaunchFailed",
        Event::Exited { .. } => "Exited",
        Event::Hook(_) => "Hook",
        Event::AnswerLost { .. } => "AnswerLost",
        Event::ScreenSeen { .. } => "ScreenSeen",
        Event::Pasted { .. } => "Pasted",
        Event::PasteFailed { .. } => "PasteFailed",
        Event::QueueChanged(_) => "QueueChanged",
        Event::Claimed { .. } => "Claimed",
        Event::ClaimLost { .. } => "ClaimLost",
        Event::TaskCreated { .. } => "TaskCreated",
        Event::TaskFinished { .. } => "TaskFinished",
        Event::TaskSettled { .. } => "TaskSettled",
        Event::Overtaken { .. } => "Overtaken",
        Event::Rescued { .. } => "Rescued",
        Event::TreeSeen { .. } => "TreeSeen",
        Event::Imported { .. } => "Imported",
        Event::StackBuilt { .. } => "StackBuilt",
        Event::GatesFinished { .. } => "GatesFinished",
        Event::Landed { .. } => "Landed",
        Event::StoreRecovered => "StoreRecovered",
        Event::BranchMoved { .. } => "BranchMoved",
        Event::PushFinished(_) => "PushFinished",
        Event::RemoteFetched(_) => "RemoteFetched",
        Event::DirectionSeen { .. } => "DirectionSeen",
        Event::Noticed { .. } => "Noticed",
        Event::Examined { .. } => "Examined",
        Event::SessionChecked { .. } => "SessionChecked",
        Event::PoolRead { .. } => "PoolRead",
        Event::WindowsTold { .. } => "WindowsTold",
        Event::Lent { .. } => "Lent",
        Event::LendFailed { .. } => "LendFailed",
        Event::Refreshed { .. } => "Refreshed",
        Event::RefreshFailed { .. } => "RefreshFailed",
    }
}

/// Kinds that only a pool of credentials brings about.
pub const POOL_ACTIONS: [&str; 3] = ["Lend", "Refresh", "CloseDialog"];
pub const POOL_EVENTS: [&str; 6] = [
    "PoolRead",
    "WindowsTold",
    "Lent",
    "LendFailed",
    "Refreshed",
    "RefreshFailed",
];
