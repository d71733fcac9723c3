//! Every way in which a request fails, by what StopFailure then says.

use std::time::Instant;

use super::super::instance::{Instance, KEYS, Login, SOON, Wish};
use super::super::notes::{Halt, Notes};
use super::super::stage::Stage;
use super::limits::tries;
use crate::model::Screen;

/// A failure, and how it is told.
struct Row {
    id: &'static str,
    /// Behind `meet`.
    word: &'static str,
    error: &'static str,
    says: &'static str,
    /// Requests, with one retry allowed; `None`: not relied on.
    tries: Option<usize>,
}

const fn row(
    id: &'static str,
    word: &'static str,
    error: &'static str,
    says: &'static str,
    tries: Option<usize>,
) -> Row {
    Row {
        id,
        word,
        error,
        says,
        tries,
    }
}

const WITH_A_KEY: &[Row] = &[
    row(
        "key.too-many",
        "too-many-requests",
        "rate_limit",
        "Request rejected (429)",
        Some(2),
    ),
    row(
        "key.overload",
        "overload",
        "server_error",
        "529 Overloaded",
        None,
    ),
    row(
        "key.no-credit",
        "no-credit",
        "billing_error",
        "Credit balance is too low",
        Some(1),
    ),
    row(
        "key.unauthorized",
        "invalid-key",
        "authentication_failed",
        "Invalid API key",
        None,
    ),
];

const WITH_A_LOGIN: &[Row] = &[
    row(
        "login.too-many",
        "too-many-requests",
        "rate_limit",
        "Server is temporarily limiting requests",
        Some(1),
    ),
    row(
        "login.overload",
        "overload",
        "server_error",
        "529 Overloaded",
        None,
    ),
    row(
        "login.server-error",
        "server-error",
        "server_error",
        "500",
        None,
    ),
    row(
        "login.no-credit",
        "no-credit",
        "billing_error",
        "Credit balance is too low",
        Some(1),
    ),
    row(
        "login.no-model",
        "no-model",
        "model_not_found",
        "selected model",
        None,
    ),
    row(
        "login.not-allowed",
        "not-allowed",
        "oauth_org_not_allowed",
        "organization",
        None,
    ),
    row(
        "login.revoked",
        "revoked",
        "authentication_failed",
        "OAuth token revoked",
        None,
    ),
    row(
        "login.unauthorized",
        "unauthorized",
        "authentication_failed",
        "Please run /login",
        None,
    ),
];

pub(in super::super) async fn with_a_login(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let login = Login::Max("sk-ant-oat01-drift-failures");
    let instance = Instance::prepare(stage, 3, Wish::of(login))?;
    instance.start_new().await?;
    meet(&instance, &WITH_A_LOGIN[..1], notes).await?;
    let free = instance.until_screen(SOON, |s| *s == Screen::Ready).await;
    let shown = instance.shown().await;
    notes.found(
        "login.prompt-free",
        free.map(|_| "a free prompt".to_owned())
            .map_err(|screen| format!("{screen:?}: {shown}")),
    );
    meet(&instance, &WITH_A_LOGIN[1..], notes).await?;
    let end = instance.turn("and a good one").await?;
    notes.check(
        "login.heals",
        end["hook_event_name"] == "Stop",
        format!("{}", end["hook_event_name"]),
    );
    Ok(())
}

pub(in super::super) async fn with_a_key(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let [first, other] = KEYS else {
        return Err(Halt::new("two keys are needed"));
    };
    let instance = Instance::prepare(stage, 4, Wish::of(Login::Key(first)))?;
    instance.start_new().await?;
    meet(&instance, WITH_A_KEY, notes).await?;
    another_key(&instance, other, notes).await?;
    let mark = instance.door.mark();
    let code = instance.terminate().await?;
    let hook = instance
        .door
        .until(mark, "SessionEnd", SOON, |_| true)
        .await;
    let reason = hook.map(|hook| hook["reason"].clone()).unwrap_or_default();
    notes.check(
        "end.terminate",
        code == Some(143) && reason == "other",
        format!("exit code {code:?}, reason {reason}"),
    );
    Ok(())
}

async fn meet(instance: &Instance<'_>, rows: &[Row], notes: &mut Notes) -> Result<(), Halt> {
    for row in rows {
        let end = instance.turn(&format!("meet {}", row.word)).await?;
        let said = end["last_assistant_message"].as_str().unwrap_or_default();
        let tries = tries(instance, row.word);
        notes.check(
            row.id,
            end["error"] == row.error
                && said.contains(row.says)
                && row.tries.is_none_or(|wanted| wanted == tries),
            format!("{} after {tries} requests: {said}", end["error"]),
        );
    }
    Ok(())
}

/// Turn after turn until one is asked for with the new key.
async fn another_key(
    instance: &Instance<'_>,
    key: &'static str,
    notes: &mut Notes,
) -> Result<(), Halt> {
    instance.log_in(Login::Key(key))?;
    let swapped = Instant::now();
    let end: String = key.chars().skip(key.chars().count() - 6).collect();
    loop {
        instance.turn("which key is it?").await?;
        let newest = instance.requests(&instance.session).pop();
        let used = newest.map(|request| request.credential).unwrap_or_default();
        let took = swapped.elapsed();
        if used == end || took > SOON {
            notes.check(
                "swap.key",
                used == end,
                format!(
                    "after {:.1} s the requests carry {used}",
                    took.as_secs_f64()
                ),
            );
            return Ok(());
        }
    }
}
