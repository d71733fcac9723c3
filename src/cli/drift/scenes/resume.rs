//! Kills: in the first tool call of a turn, in a later one, and at rest.

use serde_json::Value;

use super::super::door::until;
use super::super::instance::{A_WHILE, Instance, Login, SOON, Wish};
use super::super::notes::{Halt, Notes};
use super::super::stage::Stage;

const TOKEN: &str = "sk-ant-oat01-drift-resume";

pub(in super::super) async fn play(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let mut instance = Instance::prepare(stage, 5, Wish::of(Login::Max(TOKEN)))?;
    instance.start_new().await?;
    instance
        .turn("a first turn, so that there is something")
        .await?;

    instance
        .prompt("take one step and go through gate later")
        .await?;
    instance.until_at_gate("later").await?;
    instance.until_written("\"tool_result\"").await?;
    let cut = killed(&mut instance, "later").await?;
    let hook = &cut.started;
    notes.check(
        "resume.session",
        hook["source"] == "resume" && hook["session_id"] == instance.session.as_str(),
        format!("source {}, session {}", hook["source"], hook["session_id"]),
    );
    notes.check(
        "resume.goes-on",
        cut.asked && cut.submitted.is_empty(),
        cut.words(),
    );

    instance.prompt("go through gate first").await?;
    instance.until_at_gate("first").await?;
    instance.until_written("go through gate first").await?;
    let cut = killed(&mut instance, "first").await?;
    let its_own = matches!(&cut.submitted[..], [one] if one.contains("gate first"));
    notes.check("resume.prompt-again", cut.asked && its_own, cut.words());
    rests(&mut instance, notes).await
}

/// What the next life did with the turn of the last one.
struct Cut {
    started: Value,
    asked: bool,
    submitted: Vec<String>,
}

impl Cut {
    fn words(&self) -> String {
        let asked = if self.asked { "asked" } else { "not asked" };
        format!(
            "the model was {asked}; prompts submitted: {:?}",
            self.submitted
        )
    }
}

/// Kills it at a gate and lets the next life go through.
async fn killed(instance: &mut Instance<'_>, gate: &str) -> Result<Cut, Halt> {
    let before = instance.requests(&instance.session).len();
    let mark = instance.door.mark();
    instance.kill_and_resume().await?;
    let started = instance
        .door
        .until(mark, "SessionStart", SOON, |_| true)
        .await;
    let asked = until(SOON, || {
        (instance.requests(&instance.session).len() > before).then_some(())
    })
    .await
    .is_some();
    instance.open_gate(gate)?;
    if asked && instance.end_of_turn(mark).await.is_none() {
        return Err(Halt::new("a turn that was taken up again did not end"));
    }
    let prompts = instance.door.since(mark).into_iter();
    let submitted = prompts
        .filter(|hook| hook["hook_event_name"] == "UserPromptSubmit")
        .filter_map(|hook| hook["prompt"].as_str().map(str::to_owned))
        .collect();
    Ok(Cut {
        started: started.unwrap_or_default(),
        asked,
        submitted,
    })
}

async fn rests(instance: &mut Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    instance.until_ready().await?;
    let asked = instance.requests(&instance.session).len();
    let mark = instance.door.mark();
    instance.kill_and_resume().await?;
    if instance
        .door
        .until(mark, "SessionStart", SOON, |_| true)
        .await
        .is_none()
    {
        return Err(Halt::new("no SessionStart after a kill at rest"));
    }
    instance.until_ready().await?;
    let more = until(A_WHILE, || {
        Some(instance.requests(&instance.session).len()).filter(|now| *now > asked)
    })
    .await;
    notes.check(
        "resume.rests",
        more.is_none(),
        format!("{} more requests", more.map_or(0, |now| now - asked)),
    );
    Ok(())
}
