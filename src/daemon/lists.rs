//! Task list files: read from the manager's checkout and from the branch, ticked when done.
//!
//! The file a person edits lies in the manager's checkout. It is read without following links and
//! written only by [`exchange`], which loses no edit made meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::coordination::{ListSource, Queue, TaskError, lists, tasklist};
use crate::model::{CommitId, TaskId, Timestamp};
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::exchange::{self, Ticked};
use crate::worktree::{FileEdit, GitStore, MergeOutcome, read_beneath};

pub const DIRECTION: &str = "PROJECT_DIRECTION.md";
/// A list longer than this is a mistake; 1 MiB is some 10,000 items.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Something a person should know about a list.
#[derive(Debug, PartialEq, Eq)]
pub struct ListProblem {
    pub text: String,
    pub hint: String,
}

#[derive(Clone)]
pub struct TaskLists {
    pub git: Arc<GitStore>,
    pub queue: Queue,
    /// The manager's checkout: agent-writable, never opened with git here.
    pub checkout: PathBuf,
    pub scratch: PathBuf,
    pub workers: u32,
}

/// `WORKER_{n}_TASK_LIST.md`.
pub fn file_name(worker: u32) -> String {
    format!("WORKER_{worker}_TASK_LIST.md")
}

impl TaskLists {
    /// Brings the queue up to what the lists say, and the boxes up to what the queue says.
    pub async fn read_all(&self, now: Timestamp) -> PortResult<Vec<ListProblem>> {
        let head = self.blocking(GitStore::branch_head).await?;
        let mut problems = Vec::new();
        for worker in 1..=self.workers {
            let file = file_name(worker);
            match read_beneath(&self.checkout, Path::new(&file), MAX_LIST_BYTES) {
                Ok(bytes) => {
                    self.take(worker, ListSource::Checkout, &bytes, now, &mut problems)
                        .await?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problems.push(ListProblem {
                    text: format!("{file} in the manager's checkout cannot be read: {error}"),
                    hint: "it must be a regular file of at most 1 MiB".into(),
                }),
            }
            let (path, commit) = (file.clone(), head.clone());
            let blob = self
                .blocking(move |git| git.read_file(&commit, &path, MAX_LIST_BYTES))
                .await?;
            if let Some(bytes) = blob {
                self.take(worker, ListSource::Branch, &bytes, now, &mut problems)
                    .await?;
            }
        }
        self.tick_all(&mut problems).await;
        Ok(problems)
    }

    async fn take(
        &self,
        worker: u32,
        source: ListSource,
        bytes: &[u8],
        now: Timestamp,
        problems: &mut Vec<ListProblem>,
    ) -> PortResult<()> {
        let file = file_name(worker);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                problems.push(ListProblem {
                    text: format!(
                        "{file} ({}) is not UTF-8: byte {} is wrong",
                        source.as_str(),
                        error.valid_up_to()
                    ),
                    hint: "save it as UTF-8; its tasks stay as they were".into(),
                });
                return Ok(());
            }
        };
        let list = tasklist::parse(text);
        if list.in_conflict && source == ListSource::Checkout {
            tracing::info!(
                file,
                reason = list.reason,
                "not read while it is being merged"
            );
            return Ok(());
        }
        if list.items.is_empty() && !list.unread && !text.trim().is_empty() {
            problems.push(ListProblem {
                text: format!("{file} ({}) has no checklist item", source.as_str()),
                hint: "write tasks as `- [ ] what to do`".into(),
            });
        }
        let applied = match lists::apply(&self.queue, worker, source, &list, now).await {
            Ok(applied) => applied,
            // One list that cannot be taken holds up no other.
            Err(error) if error.kind() != ErrorKind::Transient => {
                problems.push(ListProblem {
                    text: format!("{file} ({}) was not taken: {error}", source.as_str()),
                    hint: "its tasks stay as they were".into(),
                });
                return Ok(());
            }
            Err(error) => return Err(as_port_error(error)),
        };
        for (task, reason) in applied.refused {
            problems.push(ListProblem {
                text: format!(
                    "{file} ({}): item {task} cannot be a task: {reason}",
                    source.as_str()
                ),
                hint: "the other items are not held up".into(),
            });
        }
        Ok(())
    }

    /// Looks after files that were ticked a while ago: an editor that still had the old one open
    /// may have written into it. True: something was put back, and ticks may be missing again.
    pub async fn settle(&self) -> io::Result<bool> {
        let scratch = self.scratch.clone();
        let settled =
            tokio::task::spawn_blocking(move || exchange::settle(&scratch, exchange::HOLD)).await;
        let settlement = settled.map_err(io::Error::other)??;
        for mended in &settlement.mended {
            tracing::warn!(
                ?mended,
                "a task list was saved while it was ticked; both were kept"
            );
        }
        Ok(!settlement.mended.is_empty())
    }

    /// Finished items whose box is still empty in the manager's checkout.
    async fn tick_all(&self, problems: &mut Vec<ListProblem>) {
        for (worker, keys) in self.done_keys() {
            let (checkout, scratch) = (self.checkout.clone(), self.scratch.clone());
            let file = file_name(worker);
            let name = file.clone();
            let ticked = tokio::task::spawn_blocking(move || {
                let plan = |text: &str| tick_text(text, &keys);
                tick_file(&checkout, Path::new(&file), &scratch, &plan)
            })
            .await;
            match ticked {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) => problems.push(ListProblem {
                    text: format!("{name} could not be ticked: {error}"),
                    hint:
                        "the task is done all the same; it is ticked when the file can be written"
                            .into(),
                }),
                Err(error) => problems.push(ListProblem {
                    text: format!("{name} could not be ticked: {error}"),
                    hint: "this is a defect; please report it".into(),
                }),
            }
        }
    }

    /// Keys of finished items, by worker.
    fn done_keys(&self) -> BTreeMap<u32, Vec<String>> {
        let mut keys: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for task in self.queue.done_items() {
            if let Some((worker, key)) = lists::item_key(&task) {
                keys.entry(worker).or_default().push(key.to_owned());
            }
        }
        keys
    }

    /// Ticks finished items on the branch itself, before the manager's checkout, which has the
    /// ticks, is brought up to it. The branch's new tip, if that changed anything.
    pub async fn tick_branch(&self) -> PortResult<Option<CommitId>> {
        let edits = self.edits();
        let outcome = self
            .blocking(move |git| {
                let head = git.branch_head()?;
                git.merge(&head, "Tick finished tasks", &edits)
            })
            .await?;
        Ok(match outcome {
            MergeOutcome::Merged { commit, .. } | MergeOutcome::FastForwarded { commit } => {
                Some(commit)
            }
            MergeOutcome::UpToDate | MergeOutcome::Conflict { .. } => None,
        })
    }

    /// What a merge writes into the lists on the branch: every finished item's tick.
    pub fn edits(&self) -> Vec<FileEdit<'static>> {
        ticks(self.done_keys())
    }

    /// The ticks of these alone: they are claimed done, and land with the work.
    pub fn edits_of(&self, tasks: &[TaskId]) -> Vec<FileEdit<'static>> {
        let mut keys: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for task in tasks.iter().filter_map(|id| self.queue.get(id)) {
            if let Some((worker, key)) = lists::item_key(&task) {
                keys.entry(worker).or_default().push(key.to_owned());
            }
        }
        ticks(keys)
    }

    /// Whether the branch has a direction for the manager.
    pub async fn direction_present(&self, head: CommitId) -> PortResult<bool> {
        let found = self
            .blocking(move |git| git.read_file(&head, DIRECTION, MAX_LIST_BYTES))
            .await?;
        Ok(found.is_some())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&GitStore) -> PortResult<T> + Send + 'static,
    ) -> PortResult<T> {
        super::blocking(&self.git, work).await
    }
}

fn ticks(keys: BTreeMap<u32, Vec<String>>) -> Vec<FileEdit<'static>> {
    keys.into_iter()
        .map(|(worker, keys)| {
            FileEdit::new(file_name(worker), move |bytes| {
                let text = std::str::from_utf8(bytes?).ok()?;
                tick_text(text, &keys).map(String::into_bytes)
            })
        })
        .collect()
}

/// Tries again when somebody saved the file meanwhile; gives up for this time after a few.
fn tick_file(
    checkout: &Path,
    file: &Path,
    scratch: &Path,
    plan: &dyn Fn(&str) -> Option<String>,
) -> io::Result<Ticked> {
    const TRIES: u32 = 5;
    let mut last = Ticked::Raced;
    for _ in 0..TRIES {
        last = exchange::tick_file(checkout, file, scratch, "finished", plan)?;
        if last != Ticked::Raced {
            break;
        }
    }
    Ok(last)
}

/// The text with these items ticked; the same text when they are already.
fn tick_text(text: &str, keys: &[String]) -> Option<String> {
    let mut changed: Option<String> = None;
    for key in keys {
        let current = changed.as_deref().unwrap_or(text);
        if let Some(next) = tasklist::tick(current, key) {
            changed = Some(next);
        }
    }
    changed
}

fn as_port_error(error: TaskError) -> PortError {
    match error {
        TaskError::Store(error) => error,
        other => {
            PortError::new(ErrorKind::Transient, "a task list could not be applied").because(other)
        }
    }
}
