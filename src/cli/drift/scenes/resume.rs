//! A kill in the middle of a turn and one after it.

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
    instance.prompt("go through gate killed").await?;
    instance.until_at_gate("killed").await?;
    let asked = instance.requests(&instance.session).len();
    let mark = instance.door.mark();
    instance.kill_and_resume().await?;
    let hook = instance
        .door
        .until(mark, "SessionStart", SOON, |_| true)
        .await;
    let hook = hook.unwrap_or_default();
    notes.check(
        "resume.session",
        hook["source"] == "resume" && hook["session_id"] == instance.session.as_str(),
        format!("source {}, session {}", hook["source"], hook["session_id"]),
    );
    let again = until(SOON, || {
        (instance.requests(&instance.session).len() > asked).then_some(())
    })
    .await;
    let prompted = instance.heard(mark).contains("UserPromptSubmit");
    notes.check(
        "resume.goes-on",
        again.is_some() && !prompted,
        format!(
            "{}; hooks: {}",
            if again.is_some() {
                "the model was asked"
            } else {
                "the model was not asked"
            },
            instance.heard(mark)
        ),
    );
    instance.open_gate("killed")?;
    if again.is_some() && instance.end_of_turn(mark).await.is_none() {
        return Err(Halt::new("a turn that was taken up again did not end"));
    }
    rests(&mut instance, notes).await
}

async fn rests(instance: &mut Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    instance.until_ready().await?;
    let asked = instance.requests(&instance.session).len();
    instance.kill_and_resume().await?;
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
