//! The board: the task list of `.coordination/`, which sessions share that no supervisor runs.
//!
//! Called by the commands `leader` and `worker` with the text of `tasks.json`, which agents and people
//! edit as well. Pure: what is read and written, and under which lock, is the caller's. What it does
//! not know of an entry stays in it, in its place.

mod document;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::rules::{self, MAX_NAME_BYTES, NewTask, TaskError};
use crate::model::{TaskContext, TaskId, TaskSource, TaskStatus, Timestamp};

pub use document::{Problem, Reading, read};

/// The tasks, as they are in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// What else is at the top of the file.
    top: Map<String, Value>,
    entries: Vec<Entry>,
}

/// One task, and the text it was read from.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    raw: Map<String, Value>,
    task: BoardTask,
}

/// One task, as agents know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BoardTask {
    pub id: TaskId,
    pub description: String,
    pub status: TaskStatus,
    pub claimed_by: Option<String>,
    /// Smaller is sooner.
    pub priority: i64,
    pub dependencies: Vec<TaskId>,
    pub context: TaskContext,
}

/// What a new task is told.
#[derive(Clone, Debug, Default)]
pub struct NewBoardTask {
    pub description: String,
    pub priority: i64,
    pub dependencies: Vec<TaskId>,
    pub context: TaskContext,
}

/// Why a board was not changed. [`BoardError::code`] is public and stable, the queue's where it says the same.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("task {task} is claimed by {holder}")]
    Claimed { task: TaskId, holder: String },
    #[error("task {task} is not claimed by {who}: it is {}", status.as_str())]
    NotHeld {
        task: TaskId,
        who: String,
        status: TaskStatus,
    },
    #[error("`{0}` is no name: 1 to 64 letters, digits, `.`, `_` or `-`, not beginning with `.`")]
    Name(String),
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl BoardError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "TASK_CLAIMED",
            Self::NotHeld { .. } => "TASK_NOT_CLAIMED",
            Self::Name(_) => "INVALID_NAME",
            Self::Task(error) => error.code(),
        }
    }
}

type Result<T> = std::result::Result<T, BoardError>;

/// What came of a claim without a task's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    New(BoardTask),
    /// It is held by the same name already.
    Again(BoardTask),
    /// Nothing can be claimed now; this many wait for others to be done.
    Nothing {
        waiting: usize,
    },
}

impl Board {
    pub fn tasks(&self) -> impl Iterator<Item = &BoardTask> {
        self.entries.iter().map(|entry| &entry.task)
    }

    pub fn get(&self, id: &TaskId) -> Option<&BoardTask> {
        self.tasks().find(|task| task.id == *id)
    }

    /// The dependencies of a task that are not done; also those that do not exist.
    pub fn waits_for(&self, task: &BoardTask) -> Vec<TaskId> {
        let done = |id: &&TaskId| self.get(id).is_none_or(|t| t.status != TaskStatus::Done);
        task.dependencies.iter().filter(done).cloned().collect()
    }

    /// Adds a task at the end; its id is the next free `task-NNN`. Refuses unknown dependencies.
    pub fn add(&mut self, new: &NewBoardTask, now: Timestamp) -> Result<TaskId> {
        let used = self.tasks().filter_map(|task| {
            let number = task.id.as_str().strip_prefix("task-")?;
            number.parse::<u64>().ok()
        });
        let next = used.max().unwrap_or(0).saturating_add(1);
        let id = TaskId::new(format!("task-{next:03}"));
        let checked = NewTask {
            id: id.clone(),
            description: new.description.clone(),
            priority: new.priority,
            owner: None,
            dependencies: new.dependencies.clone(),
            labels: Vec::new(),
            context: new.context.clone(),
            scope: Vec::new(),
            source: TaskSource::Direct,
        };
        rules::create(&checked, now)?;
        rules::order(std::slice::from_ref(&checked), &|id| self.get(id).is_some())?;
        let task = BoardTask {
            id: id.clone(),
            description: new.description.clone(),
            status: TaskStatus::Available,
            claimed_by: None,
            priority: new.priority,
            dependencies: new.dependencies.clone(),
            context: new.context.clone(),
        };
        let raw = match serde_json::to_value(&task) {
            Ok(Value::Object(raw)) => raw,
            _ => Map::new(),
        };
        self.entries.push(Entry { raw, task });
        Ok(id)
    }

    /// Claims the task of this name, or the next one: the most urgent that can be done, of equal ones
    /// the first in the file. Who holds one already gets that.
    pub fn claim(&mut self, who: &str, wanted: Option<&TaskId>) -> Result<Claimed> {
        check_name(who)?;
        let holds = |task: &BoardTask| {
            task.status == TaskStatus::Claimed && task.claimed_by.as_deref() == Some(who)
        };
        let at = if let Some(id) = wanted {
            let at = self.place(id)?;
            let task = &self.entries[at].task;
            if holds(task) {
                return Ok(Claimed::Again(task.clone()));
            }
            self.claimable(task)?;
            at
        } else {
            if let Some(task) = self.tasks().find(|task| holds(task)) {
                return Ok(Claimed::Again(task.clone()));
            }
            let Some(at) = self.next() else {
                let open = |task: &&BoardTask| task.status == TaskStatus::Available;
                let waiting = self.tasks().filter(open).count();
                return Ok(Claimed::Nothing { waiting });
            };
            at
        };
        self.set(at, TaskStatus::Claimed, Some(who));
        Ok(Claimed::New(self.entries[at].task.clone()))
    }

    fn next(&self) -> Option<usize> {
        let free =
            (0..self.entries.len()).filter(|at| self.claimable(&self.entries[*at].task).is_ok());
        free.min_by_key(|at| (self.entries[*at].task.priority, *at))
    }

    /// Ends a claim with the work done. `false`: it was done by the same name already.
    pub fn complete(&mut self, who: &str, id: &TaskId) -> Result<bool> {
        self.end(who, id, TaskStatus::Done)
    }

    /// Gives a claim back, for others. `false`: it is available already.
    pub fn release(&mut self, who: &str, id: &TaskId) -> Result<bool> {
        self.end(who, id, TaskStatus::Available)
    }

    fn end(&mut self, who: &str, id: &TaskId, status: TaskStatus) -> Result<bool> {
        check_name(who)?;
        let at = self.place(id)?;
        let task = &self.entries[at].task;
        match (&task.claimed_by, task.status) {
            (Some(holder), TaskStatus::Claimed) if holder == who => {}
            (Some(holder), TaskStatus::Claimed) => {
                return Err(BoardError::Claimed {
                    task: id.clone(),
                    holder: holder.clone(),
                });
            }
            (Some(holder), TaskStatus::Done) if holder == who && status == TaskStatus::Done => {
                return Ok(false);
            }
            (None, TaskStatus::Available) if status == TaskStatus::Available => return Ok(false),
            (_, found) => {
                return Err(BoardError::NotHeld {
                    task: id.clone(),
                    who: who.to_owned(),
                    status: found,
                });
            }
        }
        // Who did it stays with what is done.
        let holder = (status == TaskStatus::Done).then_some(who);
        self.set(at, status, holder);
        Ok(true)
    }

    fn place(&self, id: &TaskId) -> Result<usize> {
        let found = self.entries.iter().position(|entry| entry.task.id == *id);
        Ok(found.ok_or_else(|| TaskError::NotFound(id.clone()))?)
    }

    fn claimable(&self, task: &BoardTask) -> Result<()> {
        if task.status == TaskStatus::Claimed {
            return Err(BoardError::Claimed {
                task: task.id.clone(),
                holder: task.claimed_by.clone().unwrap_or_else(|| "?".to_owned()),
            });
        }
        if task.status != TaskStatus::Available {
            return Err(BoardError::Task(TaskError::NotAvailable {
                task: task.id.clone(),
                status: task.status,
            }));
        }
        let waits_for = self.waits_for(task);
        if waits_for.is_empty() {
            return Ok(());
        }
        Err(BoardError::Task(TaskError::Blocked {
            task: task.id.clone(),
            waits_for,
        }))
    }

    fn set(&mut self, at: usize, status: TaskStatus, holder: Option<&str>) {
        let entry = &mut self.entries[at];
        entry.task.status = status;
        entry.task.claimed_by = holder.map(str::to_owned);
        entry.raw.insert("status".into(), status.as_str().into());
        let holder = holder.map_or(Value::Null, Value::from);
        entry.raw.insert("claimed_by".into(), holder);
    }

    /// How many tasks are in each state; those that wait for others apart from the available ones.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for task in self.tasks() {
            let waits = task.status == TaskStatus::Available && !self.waits_for(task).is_empty();
            let word = if waits {
                "waiting"
            } else {
                task.status.as_str()
            };
            *counts.entry(word).or_default() += 1;
        }
        counts
    }
}

/// The name of a session is part of a file name.
///
/// # Errors
///
/// [`BoardError::Name`].
pub fn check_name(who: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let wrong = who.is_empty() || who.len() > 64 || who.starts_with('.') || !who.chars().all(fine);
    if wrong {
        return Err(BoardError::Name(who.to_owned()));
    }
    Ok(())
}

/// An id is part of a file name as well.
fn is_id(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES.min(200)
        && !text.starts_with('.')
        && text.chars().all(fine)
}
