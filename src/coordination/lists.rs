//! Task list files become tasks: applies what changed in one source of a worker's list.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::queue::Queue;
use super::rules::{self, NewTask, TaskError};
use super::tasklist::{self, Item, ListChanges, MAX_ITEMS, ParsedList, SeenList};
use super::write::{self, Written};
use crate::model::{AgentId, Task, TaskContext, TaskId, TaskSource, TaskStatus, Timestamp};

/// The result of a task whose item was taken out of the list.
pub const REMOVED: &str = "its item was removed from the task list";
/// The result of a task whose item a person ticked.
pub const TICKED: &str = "its item was ticked by hand";

/// An item that loses its tick this soon after its task was done was overwritten by an editor that
/// held the older text; later it is a wish to do it again.
pub const UNTICK_GRACE: Duration = Duration::from_secs(10);

/// Lost races for the record of what was seen.
const MAX_RACES: u32 = 16;

/// Where a text of a list came from. Each is compared only with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListSource {
    /// The file in the manager's checkout, where people edit.
    Checkout,
    /// The file at the tip of the target branch.
    Branch,
}

impl ListSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Branch => "branch",
        }
    }
}

/// What applying a list changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub created: Vec<TaskId>,
    pub cancelled: Vec<TaskId>,
    /// Ticked by hand.
    pub closed: Vec<TaskId>,
    /// Unticked by hand, or back after a removal.
    pub reopened: Vec<TaskId>,
    pub moved: Vec<TaskId>,
    /// Done a moment ago, and the tick is gone: the caller ticks again. See [`UNTICK_GRACE`].
    pub retick: Vec<TaskId>,
    /// Items that cannot be a task, with the reason; the others are not held up.
    pub refused: Vec<(TaskId, String)>,
}

impl Applied {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    seen: SeenList,
    operation: String,
}

/// The task of an item.
pub fn task_id(worker: u32, key: &str) -> TaskId {
    TaskId::new(format!("w{worker}-{key}"))
}

/// Worker and item of a task that came from a list.
pub fn item_key(task: &Task) -> Option<(u32, &str)> {
    let TaskSource::TaskList { worker } = task.source else {
        return None;
    };
    let (_, key) = task.id.as_str().split_once('-')?;
    Some((worker, key))
}

/// Brings the tasks up to what changed in `source` since it was last applied. May be repeated and
/// may be interrupted anywhere: every step is idempotent and what was seen is written last.
pub async fn apply(
    queue: &Queue,
    worker: u32,
    source: ListSource,
    list: &ParsedList,
    now: Timestamp,
) -> Result<Applied, TaskError> {
    check(worker, list)?;
    let subject = format!("tasklist/{worker}/{}", source.as_str());
    let mut total = Applied::default();
    for _ in 0..MAX_RACES {
        let (seq, seen) = load(queue, &subject).await?;
        let changes = tasklist::diff(&seen, list);
        let applied = apply_changes(queue, worker, source, list, &changes, now).await?;
        let unsettled: BTreeSet<String> = applied
            .retick
            .iter()
            .filter_map(|id| id.as_str().split_once('-'))
            .map(|(_, key)| key.to_owned())
            .collect();
        merge(&mut total, applied);
        let after = seen.after(list, &unsettled);
        if after == seen || save(queue, &subject, seq, after).await? {
            return Ok(total);
        }
    }
    Err(TaskError::Unknown {
        task: task_id(worker, "list"),
        text: format!("{MAX_RACES} other changes of {subject} came first; try again"),
    })
}

/// A list that was not read, or not whole, must not look like one whose items were removed.
fn check(worker: u32, list: &ParsedList) -> Result<(), TaskError> {
    let problem = if list.unread {
        list.reason.clone().unwrap_or_default()
    } else if list.items.len() > MAX_ITEMS {
        format!(
            "the task list has {} items; at most {MAX_ITEMS} are taken: split it",
            list.items.len()
        )
    } else {
        return Ok(());
    };
    Err(TaskError::Invalid {
        task: task_id(worker, "list"),
        problem,
    })
}

async fn apply_changes(
    queue: &Queue,
    worker: u32,
    source: ListSource,
    list: &ParsedList,
    changes: &ListChanges,
    now: Timestamp,
) -> Result<Applied, TaskError> {
    let mut applied = Applied::default();
    let places: Vec<(i64, &Item)> = (0..).zip(&list.items).collect();
    let has = |keys: &[String]| keys.iter().cloned().collect::<BTreeSet<String>>();
    let (added, unticked) = (has(&changes.added), has(&changes.unticked));
    let (ticked, moved) = (has(&changes.ticked_by_hand), has(&changes.moved));
    for (place, item) in places {
        let id = task_id(worker, &item.key);
        if moved.contains(&item.key) {
            reprioritise(queue, &id, place, now, &mut applied).await?;
        }
        if added.contains(&item.key) && !item.checked {
            appear(
                queue,
                new_task(worker, item, place),
                now,
                false,
                &mut applied,
            )
            .await?;
        } else if unticked.contains(&item.key) {
            appear(
                queue,
                new_task(worker, item, place),
                now,
                true,
                &mut applied,
            )
            .await?;
        } else if (added.contains(&item.key) || ticked.contains(&item.key))
            && queue.get(&id).is_some_and(|task| !task.status.is_final())
        {
            // On the branch the tick of a claimed task came with the work on it, whose receipt follows.
            let ours =
                |task: &Task| source == ListSource::Branch && task.status == TaskStatus::Claimed;
            let task = queue
                .change(&id, &|task| {
                    if ours(task) {
                        return Ok(None);
                    }
                    rules::close(task, TICKED, now)
                })
                .await?;
            if task.status.is_final() {
                applied.closed.push(id);
            }
        }
    }
    for key in &changes.removed {
        let id = task_id(worker, key);
        if queue
            .get(&id)
            .is_some_and(|task| task.status == TaskStatus::Available)
        {
            // Only while nobody works on it: a claimed task is finished, its tick finds no item.
            let task = queue
                .change(&id, &|task| match task.status {
                    TaskStatus::Available => rules::cancel(task, REMOVED, now),
                    _ => Ok(None),
                })
                .await?;
            if task.status == TaskStatus::Cancelled {
                applied.cancelled.push(id);
            }
        }
    }
    Ok(applied)
}

/// An unticked item is there: because it is new, is back, or (`unticked`) lost its tick.
async fn appear(
    queue: &Queue,
    new: NewTask,
    now: Timestamp,
    unticked: bool,
    applied: &mut Applied,
) -> Result<(), TaskError> {
    let (id, place) = (new.id.clone(), new.priority);
    match queue.create(new, now).await {
        Ok(_) => {
            applied.created.push(id);
            return Ok(());
        }
        Err(TaskError::AlreadyExists(_)) => {}
        Err(TaskError::Invalid { task, problem }) => {
            applied.refused.push((task, problem));
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let Some(task) = queue.get(&id) else {
        return Err(TaskError::NotFound(id));
    };
    let removed = task.status == TaskStatus::Cancelled && task.result.as_deref() == Some(REMOVED);
    // The other source may show a finished item for the first time, from before its tick: only a
    // tick that was seen in this source and is gone asks for it again.
    let again = removed || (unticked && task.status.is_final());
    if !again {
        return Ok(());
    }
    let by_us = task.status == TaskStatus::Done && task.result.as_deref() != Some(TICKED);
    if by_us && now.since(task.updated_at) < UNTICK_GRACE {
        applied.retick.push(id);
        return Ok(());
    }
    queue
        .change(&id, &|task| rules::reopen(task, place, now))
        .await?;
    applied.reopened.push(id);
    Ok(())
}

async fn reprioritise(
    queue: &Queue,
    id: &TaskId,
    place: i64,
    now: Timestamp,
    applied: &mut Applied,
) -> Result<(), TaskError> {
    let differs = |task: Task| !task.status.is_final() && task.priority != place;
    if queue.get(id).is_some_and(differs) {
        queue
            .change(id, &|task| rules::reprioritise(task, place, now))
            .await?;
        applied.moved.push(id.clone());
    }
    Ok(())
}

fn new_task(worker: u32, item: &Item, place: i64) -> NewTask {
    let hints =
        (!item.parents.is_empty()).then(|| format!("Part of: {}", item.parents.join(" > ")));
    NewTask {
        id: task_id(worker, &item.key),
        description: item.text.clone(),
        priority: place,
        owner: Some(AgentId::worker(worker)),
        dependencies: Vec::new(),
        labels: Vec::new(),
        context: TaskContext {
            files: Vec::new(),
            hints,
        },
        scope: item.scope(),
        source: TaskSource::TaskList { worker },
    }
}

async fn load(queue: &Queue, subject: &str) -> Result<(u64, SeenList), TaskError> {
    let Some(record) = queue.store().last(subject).await? else {
        return Ok((0, SeenList::default()));
    };
    let stored: Stored = serde_json::from_slice(&record.data).map_err(|error| {
        crate::ports::PortError::new(
            crate::ports::ErrorKind::Broken,
            format!("record {} of {subject} cannot be read", record.seq),
        )
        .hint("it was written by another version, or the store is damaged")
        .because(error)
    })?;
    Ok((record.seq, stored.seen))
}

async fn save(queue: &Queue, subject: &str, seq: u64, seen: SeenList) -> Result<bool, TaskError> {
    let operation = write::operation();
    let stored = Stored {
        seen,
        operation: operation.clone(),
    };
    let data = serde_json::to_vec(&stored).map_err(|error| {
        crate::ports::PortError::new(
            crate::ports::ErrorKind::Broken,
            format!("what was seen of {subject} cannot be written as JSON"),
        )
        .because(error)
    })?;
    match write::append(&**queue.store(), subject, seq, &data, &operation).await? {
        Written::At(_) | Written::Superseded => Ok(true),
        Written::Conflict => Ok(false),
        Written::Unknown(text) => Err(TaskError::Unknown {
            task: TaskId::new(subject),
            text,
        }),
    }
}

fn merge(total: &mut Applied, more: Applied) {
    for refused in more.refused {
        if !total.refused.contains(&refused) {
            total.refused.push(refused);
        }
    }
    let pairs = [
        (&mut total.created, more.created),
        (&mut total.cancelled, more.cancelled),
        (&mut total.closed, more.closed),
        (&mut total.reopened, more.reopened),
        (&mut total.moved, more.moved),
        (&mut total.retick, more.retick),
    ];
    for (into, from) in pairs {
        for id in from {
            if !into.contains(&id) {
                into.push(id);
            }
        }
    }
}
