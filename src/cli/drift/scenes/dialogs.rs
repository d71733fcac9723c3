//! What is asked where our seed, or a credential, is missing; and whether we know it when we see it.

use super::super::instance::{Instance, KEYS, Login, SOON, Wish};
use super::super::notes::{Halt, Notes};
use super::super::stage::Stage;
use crate::model::Screen;

pub(in super::super) async fn play(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let trust = Wish {
        unseeded: &["projects"],
        ..Wish::of(Login::Max("sk-ant-oat01-drift-dialogs"))
    };
    let named = |wanted: &'static str| move |screen: &Screen| matches!(screen, Screen::Dialog { name } if name == wanted);
    shows(stage, 6, trust, "dialog.trust", named("trust"), notes).await?;
    let key = KEYS.first().copied().unwrap_or_default();
    let approval = Wish {
        unseeded: &["customApiKeyResponses"],
        ..Wish::of(Login::Key(key))
    };
    shows(
        stage,
        7,
        approval,
        "dialog.api-key",
        named("api-key"),
        notes,
    )
    .await?;
    let none = Wish::of(Login::None);
    let logged_out = |screen: &Screen| *screen == Screen::NotLoggedIn;
    shows(stage, 8, none, "dialog.no-login", logged_out, notes).await
}

async fn shows(
    stage: &Stage,
    number: u32,
    wish: Wish,
    id: &'static str,
    wanted: impl Fn(&Screen) -> bool,
    notes: &mut Notes,
) -> Result<(), Halt> {
    let instance = Instance::prepare(stage, number, wish)?;
    instance.start_new().await?;
    let seen = instance.until_screen(SOON, wanted).await;
    let shown = instance.shown().await;
    notes.found(
        id,
        seen.map(|screen| format!("{screen:?}"))
            .map_err(|screen| format!("{screen:?}: {shown}")),
    );
    instance.terminate().await?;
    Ok(())
}
