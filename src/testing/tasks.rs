//! A queue of a few tasks, one in each state that the front doors show differently.

use std::time::Duration;

use crate::coordination::rules::{self, Claimant};
use crate::coordination::view::View;
use crate::coordination::{NewTask, Retry, TaskError};
use crate::model::{
    AgentId, AttemptEnd, AttemptNote, CommitNote, Incarnation, Receipt, Task, TaskContext, TaskId,
    TaskSource, Timestamp,
};

/// One that is done after a crash, one that failed, and one that waits for that.
///
/// # Panics
///
/// If the rules of the queue refuse one of them.
pub fn tasks(now: Timestamp) -> View {
    let mut view = View::default();
    let worker = AgentId::worker(1);
    let at = |seconds: i64| Timestamp(now.0 - 3_600_000 + seconds * 1000);
    let new = |id: &str, dependencies: &[&str]| NewTask {
        id: id.into(),
        description: format!("write {id}\nand test it"),
        priority: 0,
        owner: Some(worker.clone()),
        dependencies: dependencies.iter().map(|id| TaskId::new(*id)).collect(),
        labels: vec!["docs".to_owned()],
        context: TaskContext::default(),
        scope: Vec::new(),
        source: TaskSource::TaskList { worker: 1 },
    };
    let who = Claimant {
        agent: &worker,
        incarnation: Incarnation(1),
        lease: Duration::from_secs(3600),
    };
    let crash = |number| AttemptNote {
        number,
        fence: 1,
        agent: worker.clone(),
        incarnation: Incarnation(1),
        began: at(1),
        ended: at(60),
        end: AttemptEnd::Crashed,
        cause: "killed (exit 137)".to_owned(),
    };
    let crashed = |id: &str, created: i64| {
        let task = made(&new(id, &[]), at(created));
        let task = put(rules::claim(&task, who, Vec::new(), at(1)));
        put(rules::note(&task, 1, Incarnation(2), &[crash(1)], at(60)))
    };
    let mut done = crashed("w1-done", 0);
    done = put(rules::complete(&done, 1, "did it", None, at(90)));
    done.receipt = Some(Box::new(Receipt {
        task: "w1-done".into(),
        agent: worker.clone(),
        fence: 1,
        claimed_at: at(90),
        proven_at: at(95),
        commits: vec![CommitNote {
            id: "0123456789abcdef0123456789abcdef01234567".into(),
            subject: "write it".into(),
        }],
        commit_count: 1,
        no_change: None,
        landed: Some("89abcdef0123456789abcdef0123456789abcdef".into()),
        gates: Vec::new(),
        scope: Vec::new(),
        files: Vec::new(),
        uncommitted: Vec::new(),
        rescue: None,
        sent_back: Vec::new(),
    }));
    view.put(1, done);
    let failed = rules::fail(&crashed("w1-fails", 1), 1, "no more", Retry::Never, at(99));
    view.put(2, put(failed));
    view.put(3, made(&new("w1-waits", &["w1-fails"]), at(2)));
    view
}

fn made(new: &NewTask, at: Timestamp) -> Task {
    rules::create(new, at).expect("the rules take a task like this one")
}

fn put(changed: Result<Option<Task>, TaskError>) -> Task {
    changed
        .expect("the rules allow it")
        .expect("it changes the task")
}
