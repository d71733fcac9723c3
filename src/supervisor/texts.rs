//! What agents are told, word for word. Nothing else in the house writes to an agent.

use std::fmt::Write as _;
use std::time::Duration;

use super::Supervisor;
use super::policy::{MergeBy, Proof};
use super::proof::{Claimed, NO_CHANGE};
use super::state::Candidate;
use super::wishes::Dropped;
use crate::model::view::TaskCounts;
use crate::model::{AgentId, CommitId, Fault, GateRecord, Missing, Task, TaskId, TaskSource};

/// Conflict text per merge task; more helps nobody.
const CONFLICT_TEXT: usize = 6000;
/// The end of the gates' logs in a task.
const GATE_TEXT: usize = 6000;
const TITLE: usize = 72;
/// Of an agent's last words, in characters, where the manager is told of them.
const SAID: usize = 2000;

/// What the texts need to know about the fleet.
#[derive(Clone, Debug)]
pub struct TextContext {
    pub agent: AgentId,
    pub workers: u32,
    pub branch: String,
    pub proof: Proof,
    pub merge_by: MergeBy,
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
            proof: self.policy.proof,
            merge_by: self.policy.merge_by,
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
        TaskSource::Plan { .. }
        | TaskSource::Merge { .. }
        | TaskSource::MergeConflict { .. }
        | TaskSource::Repair { .. }
        | TaskSource::Unproven { .. } => task.description.clone(),
        TaskSource::Direct if context.agent.worker_number().is_none() => {
            format!("Task {}:\n\n{}", task.id, task.description.trim())
        }
        TaskSource::TaskList { .. } | TaskSource::Direct => work(task, context),
    }
}

fn work(task: &Task, context: &TextContext) -> String {
    let TextContext {
        agent,
        workers,
        branch,
        proof,
        merge_by,
    } = context;
    let merges = match merge_by {
        MergeBy::Train => "merges them",
        MergeBy::Manager => "has the manager merge them",
    };
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
    if !task.scope.is_empty() {
        let scope = task.scope.join(", ");
        let _ = write!(text, "\nChange only files that match: {scope}\n");
    }
    let _ = write!(
        text,
        "\nYou are {agent}, one of {workers} workers, on your own branch `{agent}` in /workspace. \
         Do this task and nothing else, completely. Run the project's tests. Commit your work with \
         git; do not push and do not switch branches: the supervisor takes your commits, {merges} \
         and ticks the item in your task list. Then end your turn with a short summary."
    );
    if *proof == Proof::Commit {
        let _ = write!(
            text,
            " The task counts as done when your commits are in `{branch}` and `git status` shows \
             nothing that is not committed. If nothing has to be changed for it, end your last \
             message with a line `{NO_CHANGE} REASON`."
        );
    }
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

/// Before its next task, for an agent whose task was taken from it.
pub(super) fn was_taken(dropped: &Dropped) -> String {
    let Dropped {
        task, title, how, ..
    } = dropped;
    format!(
        "Before you begin: task {task} ({title}), which you worked on, {how}. Do not go on with \
         it, and take back what you did for it: undo what is not committed (a copy is kept), and `git \
         revert` your commits for it. If you find nothing of it, leave everything as it is.\n\n"
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

/// For the manager where it is the one who merges.
pub(super) fn merge_work(context: &TextContext, candidates: &[Candidate]) -> String {
    let branch = &context.branch;
    let agents: Vec<&str> = candidates.iter().map(|c| c.agent.as_str()).collect();
    let mut text = format!(
        "Merge the work of {} into branch `{branch}`.\n\nIt waits in this order, the oldest first:\n\n",
        agents.join(", ")
    );
    for candidate in candidates {
        let (agent, commit) = (&candidate.agent, &candidate.commit);
        let title = if candidate.title.is_empty() {
            "work without a task"
        } else {
            &candidate.title
        };
        let again = if candidate.asked > 0 {
            "; you were asked for it before, and your work did not have it"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "- {agent}, on its branch `{agent}` ({title}): run `git merge {commit}`{again}"
        );
    }
    let _ = write!(
        text,
        "\nDo it in /workspace, on your own branch, which has been brought up to `{branch}` if that was \
         possible. Make sure `git status` is clean, then merge them one after the other. Resolve every \
         conflict so that the intent of both sides survives, run the project's tests, mend what does not \
         go together, and commit. Merge, and do not rebase, squash or pick: work counts as merged when \
         your branch has that very commit. Leave out what must not be merged, and say why. Do not push: \
         the supervisor takes your commits, runs the gates on them and moves `{branch}`. Then end your \
         turn with a short summary."
    );
    text
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
    text.push_str(&hunks(files));
    text
}

/// The conflicting lines of each file, bounded.
pub(super) fn hunks(files: &[(String, String)]) -> String {
    let mut text = String::new();
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

/// What an agent is to mend of what it said was done. `head` is the branch, `more` what is needed
/// beside.
pub(super) fn repair(
    context: &TextContext,
    claims: &[&Claimed],
    head: Option<&CommitId>,
    more: &str,
) -> String {
    let mut text = "You said that this is done, and something is still missing:\n".to_owned();
    for claim in claims {
        let _ = write!(text, "\nTask {} ({}):\n", claim.task, claim.title);
        for lack in &claim.missing {
            let _ = writeln!(text, "- {}", what_to_mend(context, claim, lack, head));
        }
    }
    if !more.is_empty() {
        let _ = write!(text, "{more}");
    }
    text.push_str(
        "\nMend exactly this and change nothing else. Do not push and do not switch branches. Then \
         end your turn with a short summary.",
    );
    text
}

fn what_to_mend(
    context: &TextContext,
    claim: &Claimed,
    lack: &Missing,
    head: Option<&CommitId>,
) -> String {
    let branch = &context.branch;
    match lack {
        Missing::Commit => format!(
            "There is no new commit of yours for it. Do it and commit your work with git. If nothing \
             has to be changed for it, end your last message with a line `{NO_CHANGE} REASON`."
        ),
        Missing::CleanTree { paths } => commit_what_is_left(&paths.join(", ")),
        Missing::Scope { paths } => format!(
            "It may change only files that match {}, and you changed {}. Take these changes back \
             (`git checkout {} -- PATH`, or remove what is new) and commit that.",
            claim.scope.join(", "),
            paths.join(", "),
            head.map_or(branch.as_str(), CommitId::as_str)
        ),
        Missing::Merge { paths } => format!(
            "Your work does not merge cleanly into branch `{branch}`. In conflict: {}. Make sure \
             `git status` is clean, run `git merge {}`, resolve every conflict so that the intent of \
             both sides survives, run the project's tests, and commit the merge.",
            paths.join(", "),
            head.map_or(branch.as_str(), CommitId::as_str)
        ),
        Missing::Gate { gates } => {
            let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
            format!(
                "Merged into branch `{branch}`, your work does not pass: {}. Find out why (the branch \
                 without it passes), mend it, run it yourself, and commit.\n{}",
                names.join(", "),
                logs(gates)
            )
        }
    }
}

/// For the manager, of a claim that was given up.
pub(super) fn unproven(context: &TextContext, claim: &Claimed, cause: &str) -> String {
    let agent = &context.agent;
    format!(
        "Decide what becomes of a task that has failed. {agent} said that this task was done, and it \
         was not, although it was asked to mend that {} time(s): {cause}.\n\n\
         Task {} ({}). Its last words on it:\n\n{}\n\n\
         If it should be done, add a line `- [ ] what to do` to a WORKER_N_TASK_LIST.md, clearer, \
         smaller, or for another worker, and commit the list. If not, change nothing. Do not do the \
         task yourself. Then end your turn with a short summary.",
        claim.sent_back.len(),
        claim.task,
        claim.title,
        claim.said.chars().take(SAID).collect::<String>()
    )
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
    text.push_str(&logs(gates));
    text
}

/// For the manager: work that its owner did not bring through the gates.
pub(super) fn red_work(
    context: &TextContext,
    owner: &AgentId,
    commit: &CommitId,
    title: &str,
    gates: &[GateRecord],
) -> String {
    let branch = &context.branch;
    if *owner == context.agent {
        return format!(
            "Mend a red gate. Your own commit {commit} merges into branch `{branch}`, and then a gate \
             does not pass that the branch passes without it. Mend it on your own branch, run the \
             gate's command yourself, and commit. Do not push. Then end your turn with a short \
             summary.\n{}",
            logs(gates)
        );
    }
    let mut text = format!(
        "Mend a red gate. The work of {owner} ({title}) merges into branch `{branch}`, and then a \
         gate does not pass that the branch passes without it.\n\n\
         In /workspace, on your own branch, which has been brought up to `{branch}` if that was \
         possible: make sure `git status` is clean, run `git merge {commit}`, mend what the gate \
         complains about, keeping the intent of the work, run the gate's command yourself, and \
         commit. Do not push: the supervisor takes your commit. Then end your turn with a short \
         summary.\n"
    );
    text.push_str(&logs(gates));
    text
}

/// The end of each gate's log, bounded.
fn logs(gates: &[GateRecord]) -> String {
    let mut text = String::new();
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
