//! A subscription at its limit, and another one put in its place.

use super::super::instance::{A_WHILE, Instance, Login, SOON, Wish};
use super::super::notes::{Halt, Notes};
use super::super::stage::Stage;
use crate::model::Screen;

const FIRST: &str = "sk-ant-oat01-drift-limit-aaaaaa";
const SECOND: &str = "sk-ant-oat01-drift-limit-bbbbbb";
const THIRD: &str = "sk-ant-oat01-drift-limit-cccccc";

pub(in super::super) async fn play(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let instance = Instance::prepare(stage, 2, Wish::of(Login::Pro(FIRST)))?;
    instance.start_new().await?;
    five_hours(&instance, notes).await?;
    seven_days(&instance, notes).await?;
    another_login(&instance, notes).await?;
    in_the_middle(&instance, notes).await
}

async fn five_hours(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let end = instance.turn("meet five-hour-limit").await?;
    let said = end["last_assistant_message"].as_str().unwrap_or_default();
    let tries = tries(instance, "five-hour-limit");
    notes.check(
        "limit.five-hour",
        end["error"] == "rate_limit"
            && says_when(said, "You've hit your session limit · resets ")
            && tries == 1,
        format!("{} after {tries} requests: {said}", end["error"]),
    );
    let screen = instance
        .until_screen(SOON, |screen| matches!(screen, Screen::Dialog { .. }))
        .await;
    let file = instance.until_status("waiting").await;
    let waits = file.as_ref().map(|file| file["waitingFor"].clone());
    let named = matches!(&screen, Ok(Screen::Dialog { name }) if name == "rate-limit-options");
    notes.check(
        "limit.menu",
        named && waits.as_ref().is_ok_and(|what| what == "dialog open"),
        format!(
            "screen {:?}; waiting for {waits:?}",
            screen.clone().unwrap_or_else(|s| s)
        ),
    );
    if screen.is_ok() {
        instance.keys(&["Escape"]).await?;
    }
    let free = instance.until_screen(SOON, |s| *s == Screen::Ready).await;
    notes.check(
        "limit.menu-escape",
        screen.is_ok() && free.is_ok(),
        format!("after one Escape: {free:?}"),
    );
    let status = instance
        .door
        .until_status(SOON, |status| {
            status["rate_limits"]["five_hour"]["used_percentage"].as_f64() == Some(100.0)
        })
        .await;
    let newest = status.or_else(|| instance.door.newest_status());
    let window = newest.unwrap_or_default()["rate_limits"]["five_hour"].clone();
    notes.check(
        "limit.window",
        window["used_percentage"].as_f64() == Some(100.0) && window["resets_at"].is_number(),
        format!("five_hour {window}"),
    );
    Ok(())
}

async fn seven_days(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let end = instance.turn("meet seven-day-limit").await?;
    let said = end["last_assistant_message"].as_str().unwrap_or_default();
    notes.check(
        "limit.seven-day",
        end["error"] == "rate_limit" && says_when(said, "You've hit your weekly limit · resets "),
        format!("{}: {said}", end["error"]),
    );
    let menu = |screen: &Screen| matches!(screen, Screen::Dialog { .. });
    if instance.until_screen(A_WHILE, menu).await.is_ok() {
        instance.keys(&["Escape"]).await?;
    }
    Ok(())
}

async fn another_login(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    instance.log_in(Login::Pro(SECOND))?;
    let end = instance.turn("go on with the other login").await?;
    let used = credentials(instance, "go on with the other login");
    notes.check(
        "swap.login",
        end["hook_event_name"] == "Stop" && used == ["bbbbbb"],
        format!("{}; the requests carried {used:?}", end["hook_event_name"]),
    );
    Ok(())
}

async fn in_the_middle(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let mark = instance.prompt("go through gate swap").await?;
    instance.until_at_gate("swap").await?;
    instance.log_in(Login::Pro(THIRD))?;
    instance.open_gate("swap")?;
    if instance.end_of_turn(mark).await.is_none() {
        return Err(Halt::new(
            "a turn in which the login was replaced did not end",
        ));
    }
    let used = credentials(instance, "gate swap");
    notes.check(
        "swap.mid-turn",
        used == ["bbbbbb", "cccccc"],
        format!("the requests of the turn carried {used:?}"),
    );
    Ok(())
}

/// How often the model was asked about this.
pub(super) fn tries(instance: &Instance<'_>, about: &str) -> usize {
    credentials(instance, about).len()
}

/// The ends of the credentials on the requests about this, in order.
fn credentials(instance: &Instance<'_>, about: &str) -> Vec<String> {
    instance
        .requests(&instance.session)
        .into_iter()
        .filter(|r| {
            r.instruction
                .as_deref()
                .is_some_and(|text| text.contains(about))
        })
        .map(|request| request.credential)
        .collect()
}

/// `... resets 7:25pm (UTC)` or `... resets Nov 23, 4:25pm (UTC)`.
fn says_when(said: &str, start: &str) -> bool {
    said.strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(" (UTC)"))
        .is_some_and(|when| {
            when.chars().any(|c| c.is_ascii_digit())
                && (when.ends_with("am") || when.ends_with("pm"))
        })
}

#[cfg(test)]
mod tests {
    use super::says_when;

    #[test]
    fn a_time_of_reset_is_known_by_its_form() {
        let start = "You've hit your session limit · resets ";
        for good in ["7:25pm", "8pm", "Nov 23, 4:25pm"] {
            assert!(says_when(&format!("{start}{good} (UTC)"), start), "{good}");
        }
        for bad in ["soon (UTC)", "7:25pm", "in 3h (UTC)"] {
            assert!(!says_when(&format!("{start}{bad}"), start), "{bad}");
        }
        assert!(!says_when(
            "You've hit your limit · resets 8pm (UTC)",
            start
        ));
    }
}
