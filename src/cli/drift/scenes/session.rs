//! The whole life of one session: start, prompts, tools, Stop, `/clear`, `/exit`.

use serde_json::Value;

use super::super::door::until;
use super::super::instance::{A_WHILE, Instance, Login, SOON, Wish};
use super::super::notes::{Halt, Notes};
use super::super::script::{FIVE_HOUR_PERCENT, SEVEN_DAY_PERCENT};
use super::super::shape::{self, fields};
use super::super::stage::Stage;
use crate::claude::settings::DENIED_TOOLS;
use crate::claude::{same_prompt, transcript};
use crate::model::{Screen, SessionId};

const TOKEN: &str = "sk-ant-oat01-drift-session";
/// Quotes, markup, a tab, decomposed and wide characters, several lines, a hash and a slash.
const TRICKY: &str = "Say \"something\" about `$HOME`,\n\tcafe\u{301} and 漢字 & <b>\n# not a note\n/not a command\\";
const BLOCKS: usize = 10;

pub(in super::super) async fn play(stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
    let instance = Instance::prepare(stage, 1, Wish::of(Login::Max(TOKEN)))?;
    instance.start_new().await?;
    start(&instance, notes).await?;
    prompts(&instance, notes).await?;
    a_tool(&instance, notes).await?;
    stops(&instance, notes).await?;
    status_line(&instance, notes).await;
    on_disk(&instance, notes);
    draft(&instance, notes).await?;
    interrupt(&instance, notes).await?;
    a_limit(&instance, notes).await?;
    the_end(&instance, notes).await
}

async fn start(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let first = instance
        .until_screen(SOON, |screen| {
            matches!(
                screen,
                Screen::Ready | Screen::Dialog { .. } | Screen::NotLoggedIn
            )
        })
        .await;
    let shown = instance.shown().await;
    match first {
        Ok(Screen::Ready) => notes.check("start.prompt", true, "a free prompt"),
        Ok(other) | Err(other) => {
            let seen = format!("{other:?}: {shown}");
            notes.check("start.prompt", false, seen.clone());
            return Err(Halt::new(format!("it did not come up: {seen}")));
        }
    }
    let hook = instance.door.until(0, "SessionStart", SOON, |_| true).await;
    let hook = hook.ok_or_else(|| {
        notes.check("start.session-start", false, "no SessionStart hook came");
        Halt::new("no SessionStart hook came")
    })?;
    let session = hook["session_id"] == instance.session.as_str();
    notes.found("start.session-start", fields(&hook, shape::SESSION_START));
    notes.check(
        "start.session-start",
        session && hook["source"] == "startup",
        format!(
            "source {}, the session id is {}ours",
            hook["source"],
            if session { "" } else { "not " }
        ),
    );
    let file = instance.until_status("idle").await;
    notes.found(
        "start.session-file",
        file.and_then(|file| fields(&file, shape::SESSION_FILE)),
    );
    instance.until_ready().await
}

async fn prompts(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let mark = match instance.prompt(TRICKY).await {
        Ok(mark) => mark,
        Err(halt) => {
            notes.check("prompt.paste", false, halt.0.clone());
            return Err(halt);
        }
    };
    let hooks = instance.door.since(mark);
    let mut prompts = hooks
        .iter()
        .filter(|hook| hook["hook_event_name"] == "UserPromptSubmit");
    let hook = prompts.next().cloned().unwrap_or_default();
    let received = hook["prompt"].as_str().unwrap_or_default();
    let same = same_prompt(TRICKY, received);
    notes.check(
        "prompt.paste",
        same,
        if same {
            "the same text".to_owned()
        } else {
            format!("{received:?}")
        },
    );
    notes.found("prompt.fields", fields(&hook, shape::PROMPT));
    notes.check(
        "start.bypass",
        hook["permission_mode"] == "bypassPermissions",
        format!("permission_mode {}", hook["permission_mode"]),
    );
    let end = instance.end_of_turn(mark).await;
    let end = end.ok_or_else(|| Halt::new("the first turn did not end"))?;
    match end["hook_event_name"].as_str() {
        Some("Stop") => notes.found("stop.fields", fields(&end, shape::STOP)),
        _ => return Err(Halt::new(format!("the first turn failed: {end}"))),
    }
    let offered = instance.tools_offered();
    let denied: Vec<&str> = DENIED_TOOLS
        .iter()
        .copied()
        .filter(|tool| offered.contains(*tool))
        .collect();
    notes.check(
        "start.denied-tools",
        denied.is_empty() && offered.contains("Bash"),
        format!(
            "{} tools offered; of the denied: {}",
            offered.len(),
            list(&denied)
        ),
    );
    Ok(())
}

async fn a_tool(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let mark = instance.prompt("go through gate tool").await?;
    instance.until_at_gate("tool").await?;
    let screen = instance.until_screen(SOON, |s| *s == Screen::Busy).await;
    let shown = instance.shown().await;
    notes.found(
        "busy.screen",
        screen
            .map(|_| "busy".to_owned())
            .map_err(|s| format!("{s:?}: {shown}")),
    );
    let busy = instance.until_status("busy").await;
    notes.found(
        "busy.session-file",
        busy.map(|_| "busy, then idle".to_owned()),
    );
    instance.open_gate("tool")?;
    let tool = instance
        .door
        .until(mark, "PostToolUse", SOON, |hook| {
            hook["tool_name"] == "Bash"
        })
        .await;
    notes.check(
        "tool.evidence",
        tool.is_some(),
        format!("hooks of the turn: {}", instance.heard(mark)),
    );
    if instance.end_of_turn(mark).await.is_none() {
        return Err(Halt::new("a turn with a tool did not end"));
    }
    let idle = instance.until_status("idle").await;
    notes.found(
        "busy.session-file",
        idle.map(|_| "busy, then idle".to_owned()),
    );
    Ok(())
}

async fn stops(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    for n in 1..=BLOCKS {
        instance.door.go_on_with(format!("Next task number {n}."));
    }
    let mark = instance.prompt("a turn that goes on").await?;
    let stops = |instance: &Instance<'_>| {
        let all = instance.door.since(mark);
        all.into_iter()
            .filter(|hook| hook["hook_event_name"] == "Stop")
            .collect::<Vec<_>>()
    };
    let all = until(SOON, || {
        Some(stops(instance)).filter(|all| all.len() > BLOCKS)
    })
    .await;
    let all = all.unwrap_or_else(|| stops(instance));
    let told: Vec<String> = instance
        .requests(&instance.session)
        .into_iter()
        .filter_map(|request| request.instruction)
        .filter(|text| text.starts_with("Next task number"))
        .collect();
    let prompts = instance.heard(mark).matches("UserPromptSubmit").count();
    let active = all
        .get(1)
        .is_some_and(|stop| stop["stop_hook_active"] == true);
    notes.check(
        "stop.block",
        told.first().is_some_and(|text| text == "Next task number 1.") && prompts == 1 && active,
        format!(
            "the model was told {:?}; UserPromptSubmit came {prompts} times; stop_hook_active then {active}",
            told.first()
        ),
    );
    notes.check(
        "stop.cap",
        told.len() == BLOCKS && all.len() == BLOCKS + 1,
        format!("{} of {BLOCKS} were told to the model", told.len()),
    );
    Ok(())
}

async fn status_line(instance: &Instance<'_>, notes: &mut Notes) {
    let told = instance
        .door
        .until_status(SOON, |status| status.get("rate_limits").is_some())
        .await
        .or_else(|| instance.door.newest_status());
    let Some(status) = told else {
        for id in ["status.fields", "status.windows", "start.version"] {
            notes.check(id, false, "the status line command was never run");
        }
        return;
    };
    notes.found("status.fields", fields(&status, shape::STATUS));
    let windows = fields(&status, shape::WINDOWS).and_then(|_| {
        let percent = |window: &str| status["rate_limits"][window]["used_percentage"].as_f64();
        let seen = (percent("five_hour"), percent("seven_day"));
        let wanted = (
            Some(FIVE_HOUR_PERCENT as f64),
            Some(SEVEN_DAY_PERCENT as f64),
        );
        let text = format!("5 hours {:?} %, 7 days {:?} %", seen.0, seen.1);
        if seen == wanted { Ok(text) } else { Err(text) }
    });
    notes.found("status.windows", windows);
    versions(instance, notes, &status);
}

fn versions(instance: &Instance<'_>, notes: &mut Notes, status: &Value) {
    let file = instance.session_file().unwrap_or_default();
    let (line, file) = (status["version"].as_str(), file["version"].as_str());
    let wanted = instance.version_asked_for();
    let right = line.is_some() && line == file && wanted.is_none_or(|wanted| line == Some(wanted));
    notes.check(
        "start.version",
        right,
        format!(
            "status line {}, session file {}",
            line.unwrap_or("none"),
            file.unwrap_or("none")
        ),
    );
}

fn on_disk(instance: &Instance<'_>, notes: &mut Notes) {
    let path = instance.transcript();
    let seen = match instance.read(&path) {
        Err(error) => Err(format!("{path}: {error}")),
        Ok(bytes) => {
            let answers = bytes
                .split(|byte| *byte == b'\n')
                .filter_map(transcript::answer_usage)
                .filter(|(_, tokens)| tokens.input > 0 && tokens.output > 0)
                .count();
            let text = format!("{answers} answers with their tokens");
            if answers > 0 { Ok(text) } else { Err(text) }
        }
    };
    notes.found("transcript.usage", seen);
}

async fn draft(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    instance.until_ready().await?;
    instance.keys(&["d", "r", "a", "f", "t"]).await?;
    let typed = instance.until_screen(SOON, |s| *s == Screen::Draft).await;
    instance.keys(&["C-u"]).await?;
    let cleared = instance.until_screen(SOON, |s| *s == Screen::Ready).await;
    notes.check(
        "prompt.draft",
        typed.is_ok() && cleared.is_ok(),
        format!("typed: {typed:?}; after C-u: {cleared:?}"),
    );
    cleared
        .map(|_| ())
        .map_err(|screen| Halt::new(format!("a draft could not be cleared: {screen:?}")))
}

async fn interrupt(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    instance.prompt("go through gate interrupted").await?;
    instance.until_at_gate("interrupted").await?;
    let mark = instance.door.mark();
    instance.keys(&["Escape"]).await?;
    instance.until_ready().await?;
    let idle = instance.until_status("idle").await;
    let ends = |hook: &Value| {
        let name = hook["hook_event_name"].as_str().unwrap_or_default();
        ["Stop", "StopFailure", "SessionEnd"].contains(&name)
    };
    let heard = until(A_WHILE, || instance.door.since(mark).into_iter().find(ends)).await;
    notes.check(
        "interrupt.silent",
        heard.is_none() && idle.is_ok(),
        match heard {
            None => format!(
                "no hook; session file: {:?}",
                idle.map(|file| file["status"].clone())
            ),
            Some(hook) => format!("a hook: {}", hook["hook_event_name"]),
        },
    );
    instance.open_gate("interrupted")?;
    instance.turn("and now something else").await?;
    Ok(())
}

/// With the largest plan, whose menu would open about now.
async fn a_limit(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let end = instance.turn("meet five-hour-limit").await?;
    let dialog = instance
        .until_screen(A_WHILE, |screen| matches!(screen, Screen::Dialog { .. }))
        .await;
    notes.check(
        "limit.max",
        end["error"] == "rate_limit" && dialog.is_err(),
        format!(
            "error {}, then the screen: {:?}",
            end["error"],
            dialog.unwrap_or_else(|s| s)
        ),
    );
    if instance.screen().await != Screen::Ready {
        instance.keys(&["Escape"]).await?;
    }
    let mark = instance.prompt("and rest").await?;
    let idle = instance
        .door
        .until(mark, "Notification", SOON, |hook| {
            hook["notification_type"] == "idle_prompt"
        })
        .await;
    notes.check(
        "notify.idle",
        idle.is_some(),
        format!("hooks: {}", instance.heard(mark)),
    );
    Ok(())
}

async fn the_end(instance: &Instance<'_>, notes: &mut Notes) -> Result<(), Halt> {
    let mark = instance.door.mark();
    let ended = instance.command("/clear", "SessionEnd").await?;
    let ended = ended.filter(|hook| hook["reason"] == "clear");
    let started = instance
        .door
        .until(mark, "SessionStart", SOON, |hook| hook["source"] == "clear")
        .await;
    let new = started
        .as_ref()
        .and_then(|hook| hook["session_id"].as_str());
    let other = new.is_some_and(|id| SessionId::new(id) != instance.session);
    notes.check(
        "clear.session",
        ended.is_some() && other,
        format!(
            "hooks: {}; another session id: {other}",
            instance.heard(mark)
        ),
    );
    let ended = instance.command("/exit", "SessionEnd").await?;
    let code = instance.until_exited().await?;
    let reason = ended.map(|hook| hook["reason"].clone()).unwrap_or_default();
    let file = instance.session_file().is_some();
    notes.check(
        "exit.reason",
        reason == "prompt_input_exit" && code == Some(0) && !file,
        format!("reason {reason}, exit code {code:?}, a session file left: {file}"),
    );
    Ok(())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
