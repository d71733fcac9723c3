//! Start, work, merge, push, tick; answers that are lost; a second supervisor on the same state.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use anyhow::{Context as _, Result, ensure};
use orchestrator::model::{AgentId, Ending};
use orchestrator::ports::{ErrorKind, PortError, Runtime as _};
use orchestrator::testing::fake_runtime::Call;
use serde_json::{Value, json};

use super::harness::{Place, Running, git, new_id};

const LIST: &str = "# Worker 1\n\n- [ ] first thing\n- [ ] second thing\n";
const FILE: &str = "WORKER_1_TASK_LIST.md";

fn place() -> Result<Place> {
    Place::new(&[("README.md", "# it\n"), (FILE, LIST)])
}

fn stop(message: &str) -> Value {
    json!({"hook_event_name": "Stop", "stop_hook_active": false, "last_assistant_message": message})
}

/// Both agents greeted; the worker's first task is pasted and received. The worker's life.
async fn working(place: &Place, running: &Running) -> Result<u64> {
    let worker = AgentId::worker(1);
    place.greet(running, &AgentId::manager()).await?;
    let life = place.greet(running, &worker).await?;
    let pasted = place
        .until("a paste", || place.panes.pastes(&worker).pop())
        .await?;
    ensure!(pasted.contains("first thing"), "{pasted}");
    place.receive(&worker, life, &pasted).await?;
    running
        .until_agent(&worker, "working", |a| a.state == "working")
        .await?;
    Ok(life)
}

fn starts(place: &Place) -> Vec<String> {
    let calls = place.runtime.calls().into_iter();
    calls
        .filter_map(|call| match call {
            Call::Start(name) => Some(name),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_done_merged_pushed_and_ticked_and_the_next_is_the_answer() -> Result<()> {
    let place = place()?;
    let running = place.start().await?;
    let worker = AgentId::worker(1);
    let life = working(&place, &running).await?;
    place.commit(&worker, "one.txt", "one\n")?;
    let callback = new_id();
    let (status, answer) = place
        .hook(&worker, life, &callback, &stop("done one"))
        .await?;
    ensure!(
        status == 200 && answer.contains("second thing"),
        "{status} {answer}"
    );
    // The same callback again: the same answer, and nothing else happens.
    let (again, same) = place
        .hook(&worker, life, &callback, &stop("done one"))
        .await?;
    ensure!(again == 200 && same == answer, "{again} {same}");
    place
        .until("the push", || {
            git(&place.remote(), &["show", "main:one.txt"]).ok()
        })
        .await?;
    place
        .until("the tick on the branch", || {
            let text = git(&place.remote(), &["show", &format!("main:{FILE}")]).ok()?;
            (text.contains("- [x] first thing") && text.contains("- [ ] second thing"))
                .then_some(())
        })
        .await?;
    place
        .until("the tick in the file", || {
            let text = fs::read_to_string(place.checkout(&AgentId::manager()).join(FILE)).ok()?;
            text.contains("- [x] first thing").then_some(())
        })
        .await?;
    let view = running
        .until_agent(&worker, "with one task done", |a| a.tasks_done == 1)
        .await?;
    ensure!(view.state == "working", "{view:?}");
    place.commit(&worker, "two.txt", "two\n")?;
    let (status, answer) = place
        .hook(&worker, life, &new_id(), &stop("done two"))
        .await?;
    ensure!(status == 204, "{status} {answer}");
    let view = running
        .until_view("all done and pushed", |view| {
            view.tasks.done == 2 && view.pushed
        })
        .await?;
    ensure!(view.tasks.claimed == 0, "{:?}", view.tasks);
    ensure!(starts(&place).len() == 2, "{:?}", starts(&place));
    running.end(Ending::Stop).await
}

/// Behind the supervisor's back, as another process of several on one store would: its view of the
/// queue is old from then on.
fn cancel_behind_its_back(place: &Place, words: &str) -> Result<()> {
    let store = rusqlite::Connection::open(place.paths().database())?;
    let (subject, data): (String, Vec<u8>) = store.query_row(
        "SELECT r.subject, r.data FROM heads h JOIN records r ON r.seq = h.seq \
         WHERE instr(CAST(r.data AS TEXT), ?1) > 0",
        [words],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut task: Value = serde_json::from_slice(&data)?;
    task["status"] = json!("cancelled");
    task["operation"] = json!("somebody else");
    let both = store.unchecked_transaction()?;
    both.execute(
        "INSERT INTO records(subject, data) VALUES (?1, ?2)",
        (&subject, task.to_string().into_bytes()),
    )?;
    both.execute(
        "UPDATE heads SET seq = ?1 WHERE subject = ?2",
        (both.last_insert_rowid(), &subject),
    )?;
    Ok(both.commit()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_overtaken_takes_nothing_of_its_decision_along() -> Result<()> {
    let place = place()?;
    let running = place.start().await?;
    let worker = AgentId::worker(1);
    let life = working(&place, &running).await?;
    place.commit(&worker, "one.txt", "one\n")?;
    cancel_behind_its_back(&place, "second thing")?;
    let (status, answer) = place
        .hook(&worker, life, &new_id(), &stop("done one"))
        .await?;
    ensure!(status == 204, "{status} {answer}");
    running
        .until_view("one done, one cancelled", |view| {
            view.tasks.done == 1 && view.tasks.cancelled == 1
        })
        .await?;
    let view = running
        .until_agent(&worker, "idle", |a| a.state == "idle")
        .await?;
    ensure!(view.tasks_done == 1 && view.task.is_none(), "{view:?}");
    running.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_supervisor_adopts_and_takes_what_was_spooled_meanwhile() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let first = place.start().await?;
    let life = working(&place, &first).await?;
    first.end(Ending::Detach).await?;
    // The turn ends while nobody listens: the helper keeps it.
    let head = place.commit(&worker, "one.txt", "one\n")?;
    let kept = json!({
        "callback": new_id(),
        "incarnation": life,
        "head": head,
        "at": 1_795_000_000_000_u64,
        "payload": stop("done one").to_string(),
    });
    let spool = place.paths().agent(&worker).spool();
    fs::write(spool.join("00000001-it"), kept.to_string())?;
    let second = place.start().await?;
    let pasted = place
        .until("the second task", || {
            let pastes = place.panes.pastes(&worker);
            pastes
                .into_iter()
                .find(|text| text.contains("second thing"))
        })
        .await?;
    place.receive(&worker, life, &pasted).await?;
    let view = second
        .until_agent(&worker, "working", |a| {
            a.state == "working" && a.tasks_done == 1
        })
        .await?;
    ensure!(view.incarnation.0 == life, "{view:?}");
    ensure!(fs::read_dir(&spool)?.count() == 0, "the spool is empty");
    ensure!(starts(&place).len() == 2, "{:?}", starts(&place));
    place
        .until("the push", || {
            git(&place.remote(), &["show", "main:one.txt"]).ok()
        })
        .await?;
    second.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_arrived_is_delivered_by_paste() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let running = place.start().await?;
    let life = working(&place, &running).await?;
    let head = place.commit(&worker, "one.txt", "one\n")?;
    let callback = new_id();
    let (_, answer) = place
        .hook(&worker, life, &callback, &stop("done one"))
        .await?;
    ensure!(answer.contains("second thing"), "{answer}");
    // The helper had given up by then, and spooled it; its next call brings that in.
    let kept = json!({
        "callback": callback,
        "incarnation": life,
        "head": head,
        "payload": stop("done one").to_string(),
    });
    let spool = place.paths().agent(&worker).spool();
    fs::write(spool.join("00000001-it"), kept.to_string())?;
    let note = json!({"hook_event_name": "Notification", "message": "idle", "notification_type": "idle_prompt"});
    place.hook(&worker, life, &new_id(), &note).await?;
    place
        .until("the second task by paste", || {
            let pastes = place.panes.pastes(&worker);
            pastes
                .into_iter()
                .find(|text| text.contains("second thing"))
        })
        .await?;
    let view = running.client.status().await?;
    ensure!(view.tasks.done == 1, "{:?}", view.tasks);
    running.end(Ending::Stop).await
}

/// Another process that writes to the database holds it for longer than we wait.
fn hold(place: &Place) -> Result<rusqlite::Connection> {
    let held = rusqlite::Connection::open(place.paths().database())?;
    held.execute_batch("BEGIN IMMEDIATE")?;
    Ok(held)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_not_acknowledged_and_counts_once_when_it_comes_again()
-> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let running = place.start().await?;
    let life = working(&place, &running).await?;
    place.commit(&worker, "one.txt", "one\n")?;
    let held = hold(&place)?;
    let callback = new_id();
    let (status, answer) = place
        .hook(&worker, life, &callback, &stop("done one"))
        .await?;
    ensure!(status == 503, "{status} {answer}");
    drop(held);
    let view = running.client.status().await?;
    ensure!(
        view.tasks.done == 0 && view.tasks.claimed == 1,
        "{:?}",
        view.tasks
    );
    let (status, answer) = place
        .hook(&worker, life, &callback, &stop("done one"))
        .await?;
    ensure!(
        status == 200 && answer.contains("second thing"),
        "{status} {answer}"
    );
    // The agent is answered first; the queue is told a moment later, and once.
    running
        .until_view("one task is done, one is worked on", |view| {
            view.tasks.done == 1 && view.tasks.claimed == 1
        })
        .await?;
    running.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_detach_while_nothing_can_be_stored_and_goes_on_later() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let first = place.start().await?;
    let life = working(&place, &first).await?;
    let held = hold(&place)?;
    // An event that nobody waits for, and that must not be forgotten.
    let container = first
        .until_agent(&worker, "in a container", |a| a.container.is_some())
        .await?
        .container
        .context("it has one")?;
    ensure!(place.runtime.kill(&container, 137), "it ran");
    first.end(Ending::Detach).await?;
    drop(held);
    let second = place.start().await?;
    let view = second
        .until_agent(&worker, "in its next life", |a| a.incarnation.0 > life)
        .await?;
    ensure!(view.task.is_some(), "{view:?}");
    second.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_lost_its_holder_in_a_crash_is_worked_on() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let first = place.start().await?;
    working(&place, &first).await?;
    first.end(Ending::Detach).await?;
    // As if the crash had come between the claim and the commit that remembers it.
    let database = rusqlite::Connection::open(place.paths().database())?;
    let forgotten = database.execute(
        "UPDATE agent_state SET json = json_set(json, '$.held', NULL, '$.phase', \
         json('{\"phase\":\"idle\"}')) WHERE id = 'worker-1'",
        [],
    )?;
    ensure!(forgotten == 1, "one row");
    drop(database);
    place
        .panes
        .set_screen(&worker, super::harness::ready_screen());
    let before = place.panes.pastes(&worker).len();
    let second = place.start().await?;
    let pastes = || place.panes.pastes(&worker).into_iter().skip(before);
    let again = place
        .until("the first task again", || {
            pastes().find(|text| text.contains("first thing"))
        })
        .await;
    ensure!(again.is_ok(), "{:#?}", second.client.status().await?);
    second.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_overtakes_the_launches_leaves_nothing_running() -> Result<()> {
    let place = place()?;
    let running = place.start().await?;
    running.end(Ending::Stop).await?;
    let containers = place.runtime.list(&place.config.project).await?;
    ensure!(containers.iter().all(|c| !c.running), "{containers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direction_that_comes_with_a_merge_makes_the_manager_plan() -> Result<()> {
    let place = Place::new(&[("README.md", "# it\n"), (FILE, "- [ ] first thing\n")])?;
    let (manager, worker) = (AgentId::manager(), AgentId::worker(1));
    let running = place.start().await?;
    let life = working(&place, &running).await?;
    place.commit(&worker, "PROJECT_DIRECTION.md", "Make it good.\n")?;
    place.hook(&worker, life, &new_id(), &stop("done")).await?;
    place
        .until("the planning round", || place.panes.pastes(&manager).pop())
        .await?;
    running.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_between_two_supervisors_gets_its_task_again() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let first = place.start().await?;
    working(&place, &first).await?;
    let container = first
        .until_agent(&worker, "in a container", |a| a.container.is_some())
        .await?
        .container
        .context("it has one")?;
    first.end(Ending::Detach).await?;
    ensure!(place.runtime.kill(&container, 137), "it ran");
    let before = place.panes.pastes(&worker).len();
    let second = place.start().await?;
    place.greet(&second, &worker).await?;
    let again = place
        .until("the task again", || {
            place.panes.pastes(&worker).get(before).cloned()
        })
        .await?;
    ensure!(again.contains("first thing"), "{again}");
    let view = second.client.status().await?;
    ensure!(
        view.tasks.claimed == 1 && view.tasks.done == 0,
        "{:?}",
        view.tasks
    );
    second.end(Ending::Stop).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_prompt_is_neither_in_the_journal_nor_in_a_log() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let running = place.start().await?;
    let life = working(&place, &running).await?;
    let prompt = format!("use {} and tell nobody", super::harness::KEY);
    place.receive(&worker, life, &prompt).await?;
    running.end(Ending::Detach).await?;
    let database = rusqlite::Connection::open(place.paths().database())?;
    let count = |like: &str| -> Result<i64> {
        let sql = "SELECT count(*) FROM journal WHERE json LIKE ?1";
        Ok(database.query_row(sql, [format!("%{like}%")], |row| row.get(0))?)
    };
    ensure!(count("tell nobody")? == 1, "the prompt is in the journal");
    ensure!(count(super::harness::KEY)? == 0, "and the key is not");
    let log = fs::read_to_string(place.paths().root().join("log/agents/worker-1.log"))?;
    ensure!(log.contains("tell nobody"), "{log}");
    ensure!(!log.contains(super::harness::KEY), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_taken_although_the_engine_fails_for_a_moment() -> Result<()> {
    let place = place()?;
    let worker = AgentId::worker(1);
    let running = place.start().await?;
    let life = working(&place, &running).await?;
    place.commit(&worker, "one.txt", "one\n")?;
    let failures = Arc::new(AtomicU32::new(2));
    let left = failures.clone();
    place.runtime.on_exec(move |_, command| {
        let ours = command.command.iter().any(|word| word.contains("status"));
        let fails = ours
            && failures
                .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
                .is_ok();
        fails.then(|| Err(PortError::new(ErrorKind::Transient, "the engine hiccups")))
    });
    place
        .hook(&worker, life, &new_id(), &stop("done one"))
        .await?;
    place
        .until("the push", || {
            git(&place.remote(), &["show", "main:one.txt"]).ok()
        })
        .await?;
    ensure!(left.load(SeqCst) == 0, "it did fail");
    running.end(Ending::Stop).await
}
