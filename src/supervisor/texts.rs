//! What agents are told, word for word. Nothing else in the house writes to an agent.

use std::fmt::Write as _;
use std::time::Duration;

use super::Supervisor;
use crate::model::view::TaskCounts;
use crate::model::{AgentId, CommitId, Fault, GateRecord, Task, TaskId, TaskSource};

/// Conflict text per merge task; more helps nobody.
const CONFLICT_TEXT: usize = 6000;
/// The end of the gates' logs in a task.
const GATE_TEXT: usize = 6000;
const TITLE: usize = 72;

/// What the texts need to know about the fleet.
#[derive(Clone, Debug)]
pub struct TextContext {
    pub agent: AgentId,
    pub workers: u32,
    pub branch: String,
}

/// A length of time as people say it: `45 s`, `10 min`, `3 h`.
pub(super) fn spell(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

impl Supervisor {
    pub(super) fn text_context(&self, id: &AgentId) -> TextContext {
        TextContext {
            agent: id.clone(),
            workers: self.policy.workers,
            branch: self.policy.branch.clone(),
        }
    }
}

/// `WORKER_2_TASK_LIST.md` and its like, at the root of the repository.
pub fn is_task_list(path: &str) -> bool {
    path.strip_prefix("WORKER_")
        .and_then(|rest| rest.strip_suffix("_TASK_LIST.md"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The first line of a description, cut for tables.
pub(super) fn title(task: &Task) -> String {
    let first = task
        .description
        .lines()
        .find(|line| !line.trim().is_empty());
    let first = first.unwrap_or("(no description)").trim();
    let mut cut: String = first.chars().take(TITLE).collect();
    if cut.len() < first.len() {
        cut.push('…');
    }
    cut
}

pub(super) fn task(task: &Task, context: &TextContext) -> String {
    match &task.source {
        TaskSource::Plan { .. } | TaskSource::MergeConflict { .. } => task.description.clone(),
        TaskSource::Direct if context.agent.worker_number().is_none() => {
            format!("Task {}:\n\n{}", task.id, task.description.trim())
        }
        TaskSource::TaskList { .. } | TaskSource::Direct => work(task, context),
    }
}

fn work(task: &Task, context: &TextContext) -> String {
    let TextContext { agent, workers, .. } = context;
    let mut text = format!("Task {}:\n\n{}\n", task.id, task.description.trim());
    if !task.context.files.is_empty() {
        let _ = write!(
            text,
            "\nFiles to look at: {}\n",
            task.context.files.join(", ")
        );
    }
    if let Some(hints) = &task.context.hints {
        let _ = write!(text, "\nHints: {hints}\n");
    }
    let _ = write!(
        text,
        "\nYou are {agent}, one of {workers} workers, on your own branch `{agent}` in /workspace. \
         Do this task and nothing else, completely. Run the project's tests. Commit your work with \
         git; do not push and do not switch branches: the supervisor takes your commits, merges \
         them and ticks the item in your task list. Then end your turn with a short summary."
    );
    text
}

pub(super) fn again(text: &str) -> String {
    const AGAIN: &str = "You were interrupted, and the last command may have run in part.";
    if text.starts_with(AGAIN) {
        return text.to_owned();
    }
    format!(
        "{AGAIN} Look at what is there (git status, git log), then finish what follows.\n\n{text}"
    )
}

/// For a conversation that is whole but for the end of its last turn.
pub(super) fn go_on(fault: &Fault) -> &'static str {
    match fault {
        Fault::QuotaSpent { .. } | Fault::TooFast => {
            "Your last turn was cut off by a usage limit, which is over now. Go on where you stopped."
        }
        _ => "Your last turn was cut off by an error of the service. Go on where you stopped.",
    }
}

pub(super) fn first_plan(context: &TextContext) -> String {
    let TextContext {
        workers, branch, ..
    } = context;
    let lists = (1..=*workers)
        .map(|n| format!("WORKER_{n}_TASK_LIST.md"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "You are the manager of {workers} workers. Plan their work and hand it out.\n\n\
         Read PROJECT_DIRECTION.md and look at the code on branch `{branch}`. Then write the task \
         lists at the root of the repository: {lists}. Each is a Markdown checklist, one line \
         `- [ ] what to do` per task, the most important first. A task is handed to its worker \
         word for word and alone, so each must stand by itself: what to do, in which files, how to \
         see that it works. Workers work at the same time on branches of their own, so give \
         different files to different workers where you can. Keep lines that are ticked.\n\n\
         Commit the lists with git on your branch; do not push. Do not do the tasks yourself. Then \
         end your turn with a short summary."
    )
}

pub(super) fn next_plan(context: &TextContext, idle: &[AgentId], counts: &TaskCounts) -> String {
    let TextContext {
        workers, branch, ..
    } = context;
    let names = idle
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let names = if names.is_empty() {
        "nobody".to_owned()
    } else {
        names
    };
    format!(
        "Please plan again for your {workers} workers. Idle now: {names}. Tasks so far: {} done, \
         {} waiting, {} being worked on, {} failed.\n\n\
         Compare PROJECT_DIRECTION.md with what is on branch `{branch}` now. If something is \
         missing, add lines `- [ ] what to do` to the WORKER_N_TASK_LIST.md of idle workers first \
         (WORKER_1_TASK_LIST.md to WORKER_{workers}_TASK_LIST.md), keep the ticked lines, and \
         commit. If everything is done, change nothing and say so. Then end your turn.",
        counts.done, counts.available, counts.claimed, counts.failed
    )
}

pub(super) fn commit_what_is_left(paths: &str) -> String {
    format!(
        "Your last turn ended with uncommitted changes: {paths}. Commit what belongs to your work; \
         undo or ignore (in .gitignore) what does not. Change nothing else."
    )
}

/// What became of a task that is not tried again, for whoever can put something better in its place.
pub(super) fn task_failed(
    agent: &AgentId,
    task: &TaskId,
    title: &str,
    causes: &[String],
) -> String {
    let causes = causes
        .iter()
        .enumerate()
        .fold(String::new(), |mut text, (at, cause)| {
            let _ = writeln!(text, "{}. {cause}", at + 1);
            text
        });
    let list = agent
        .worker_number()
        .map_or_else(String::new, |n| format!(" (WORKER_{n}_TASK_LIST.md)"));
    format!(
        "A task of {agent} has failed for good and is not tried again as it is: {task}, \"{title}\". \
         How its attempts ended:\n\n{causes}\n\
         Decide what becomes of it. If it is still wanted, word it anew in {agent}'s list{list} so \
         that this does not happen again: split it, say how to avoid the cause, or give it to another \
         worker; take the old line out. Commit the lists with git on your branch; do not push, and do \
         not do the task yourself. If nothing is to be done, change nothing and say why. Then end your \
         turn with a short summary."
    )
}

pub(super) fn merge_conflict(
    context: &TextContext,
    owner: &AgentId,
    commit: &CommitId,
    title: &str,
    files: &[(String, String)],
) -> String {
    let branch = &context.branch;
    let paths = files
        .iter()
        .map(|(path, _)| format!("`{path}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let mut text = format!(
        "Resolve a merge conflict. The work of {owner} ({title}) does not merge cleanly into \
         branch `{branch}`. In conflict: {paths}.\n\n\
         In /workspace, on your own branch, which has been brought up to `{branch}` if that was possible: make sure `git \
         status` is clean, run `git merge {commit}`, resolve every conflict so that the intent of \
         both sides survives, run the project's tests, and commit the merge. Do not push: the \
         supervisor takes your commit. Then end your turn with a short summary.\n"
    );
    let mut left = CONFLICT_TEXT;
    for (path, hunks) in files {
        let shown: String = hunks.chars().take(left).collect();
        left = left.saturating_sub(shown.chars().count());
        if shown.is_empty() {
            break;
        }
        let _ = write!(text, "\n{path}:\n{}\n", shown.trim_end());
    }
    text
}

/// For the manager: nobody's change is to blame, so somebody has to look.
pub(super) fn mend_branch(
    context: &TextContext,
    commit: &CommitId,
    gates: &[GateRecord],
) -> String {
    let branch = &context.branch;
    let mut text = format!(
        "Branch `{branch}` itself, at {commit}, does not pass its gates, without anybody's new work. \
         Find out why and mend it on your own branch, which has been brought up to `{branch}` if \
         that was possible. Change nothing else, run the project's tests, commit, and do not push: \
         the supervisor takes your commit. If it cannot be mended in the repository, change nothing \
         and say what is wrong. Then end your turn with a short summary.\n"
    );
    let mut left = GATE_TEXT;
    for gate in gates {
        let tail = gate.tail.trim_end();
        let skip = tail.chars().count().saturating_sub(left);
        let shown: String = tail.chars().skip(skip).collect();
        left = left.saturating_sub(shown.chars().count());
        let _ = write!(text, "\nGate `{}` ended with:\n{shown}\n", gate.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_task_lists_are_task_lists() {
        assert!(is_task_list("WORKER_12_TASK_LIST.md"));
        assert!(!is_task_list("WORKER__TASK_LIST.md"));
        assert!(!is_task_list("docs/WORKER_1_TASK_LIST.md"));
    }

    #[test]
    fn being_told_again_does_not_grow_the_text() {
        let once = again("do it");
        assert_eq!(again(&once), once);
    }
}
