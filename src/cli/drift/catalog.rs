//! Every observation of Claude Code that `orchestrator` is built on: what is believed, and what
//! would break if it were no longer so.

use super::notes::{Halt, Notes};
use super::scenes;
use super::stage::Stage;

/// One belief.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    /// `scene.what`; stable, for scripts and `--only`.
    pub(super) id: &'static str,
    pub(super) says: &'static str,
    /// What of `orchestrator` depends on it.
    pub(super) used_by: &'static str,
}

const fn seen(id: &'static str, says: &'static str, used_by: &'static str) -> Observation {
    Observation { id, says, used_by }
}

/// What is tried in one instance, or a few, one step after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    Session,
    Limits,
    Key,
    Login,
    Resume,
    Dialogs,
}

impl Scene {
    /// The longest first: several are tried at once.
    pub(super) const ALL: [Self; 6] = [
        Self::Session,
        Self::Login,
        Self::Key,
        Self::Limits,
        Self::Resume,
        Self::Dialogs,
    ];

    pub(super) async fn play(self, stage: &Stage, notes: &mut Notes) -> Result<(), Halt> {
        match self {
            Self::Session => scenes::session::play(stage, notes).await,
            Self::Limits => scenes::limits::play(stage, notes).await,
            Self::Key => scenes::failures::with_a_key(stage, notes).await,
            Self::Login => scenes::failures::with_a_login(stage, notes).await,
            Self::Resume => scenes::resume::play(stage, notes).await,
            Self::Dialogs => scenes::dialogs::play(stage, notes).await,
        }
    }

    pub(super) fn observations(self) -> &'static [Observation] {
        match self {
            Self::Session => SESSION,
            Self::Limits => LIMITS,
            Self::Key => KEY,
            Self::Login => LOGIN,
            Self::Resume => RESUME,
            Self::Dialogs => DIALOGS,
        }
    }
}

const SESSION: &[Observation] = &[
    seen(
        "start.prompt",
        "with our seed and managed settings it comes up at a free prompt, without a dialog",
        "every start of an agent",
    ),
    seen(
        "start.session-start",
        "the SessionStart hook of the managed settings runs, source `startup`, with the session id that was given",
        "telling that an agent is up",
    ),
    seen(
        "start.session-file",
        "`sessions/PID.json` has pid, session, version and status",
        "the check at each start; readiness where hooks are silent",
    ),
    seen(
        "start.version",
        "status line and session file name the version that was asked for",
        "the check at each start",
    ),
    seen(
        "start.bypass",
        "managed settings alone give the mode `bypassPermissions`",
        "agents that work without questions",
    ),
    seen(
        "start.denied-tools",
        "tools denied in the managed settings are not offered to the model",
        "no dialog in the middle of work",
    ),
    seen(
        "prompt.paste",
        "a bracketed paste and Enter submit the text, and UserPromptSubmit has it",
        "delivery of tasks and its receipt",
    ),
    seen(
        "prompt.fields",
        "UserPromptSubmit has session_id and prompt",
        "receipts",
    ),
    seen(
        "prompt.draft",
        "typed text that is not sent shows as a draft, and C-u clears it",
        "delivery: a draft is cleared once",
    ),
    seen(
        "tool.evidence",
        "PostToolUse comes after a tool, with its name",
        "telling quiet from busy",
    ),
    seen(
        "busy.screen",
        "while a turn runs the screen is seen as busy",
        "nothing is typed into a turn",
    ),
    seen(
        "busy.session-file",
        "while a turn runs the session file says `busy`, afterwards `idle`",
        "readiness where hooks are silent",
    ),
    seen(
        "stop.fields",
        "Stop has last_assistant_message, background_tasks and stop_hook_active false",
        "the end of a task and its result",
    ),
    seen(
        "stop.block",
        "a Stop answered with `decision: block` goes on with the reason as its next prompt, without UserPromptSubmit",
        "the next task without idle time",
    ),
    seen(
        "stop.cap",
        "ten such answers in a row are all obeyed (CLAUDE_CODE_STOP_HOOK_BLOCK_CAP=0)",
        "no task is dropped with the ninth answer",
    ),
    seen(
        "status.fields",
        "the status line has session, model, version, cost and context",
        "usage in `status`",
    ),
    seen(
        "status.windows",
        "with a login the status line has both windows, as the API's headers say",
        "moving an agent before its limit",
    ),
    seen(
        "transcript.usage",
        "the transcript is where it is looked for, and its answers tell their tokens",
        "token counts; whether to resume",
    ),
    seen(
        "interrupt.silent",
        "one Escape ends a turn without any hook and leaves a free prompt",
        "the look at quiet agents",
    ),
    seen(
        "notify.idle",
        "`idle_prompt` comes a few seconds after a turn (messageIdleNotifThresholdMs)",
        "finding an end of a turn that was not heard",
    ),
    seen(
        "limit.max",
        "a limit of the largest plan opens no menu",
        "going on after a limit",
    ),
    seen(
        "clear.session",
        "`/clear`: SessionEnd `clear`, then SessionStart `clear` with another session id",
        "following a conversation",
    ),
    seen(
        "exit.reason",
        "`/exit`: SessionEnd `prompt_input_exit`, exit code 0, no session file left",
        "telling an exit from a crash",
    ),
];

const LIMITS: &[Observation] = &[
    seen(
        "limit.five-hour",
        "the 5-hour limit: one request, StopFailure `rate_limit`, `You've hit your session limit · resets TIME (UTC)`",
        "telling a spent quota, and until when",
    ),
    seen(
        "limit.menu",
        "it opens a menu that the screen and the session file (`dialog open`) show",
        "nothing is typed into the menu",
    ),
    seen(
        "limit.menu-escape",
        "one Escape closes the menu",
        "going on after a limit",
    ),
    seen(
        "limit.seven-day",
        "the weekly limit: `You've hit your weekly limit · resets DATE, TIME (UTC)`",
        "telling a spent quota, and until when",
    ),
    seen(
        "limit.window",
        "the status line tells the window of the 429 answer as full",
        "windows in `credentials`",
    ),
    seen(
        "swap.login",
        "a login file that is replaced is used from the next request on",
        "moving an agent to another credential",
    ),
    seen(
        "swap.mid-turn",
        "also between two tool calls of one turn",
        "moving an agent before its limit",
    ),
];

const KEY: &[Observation] = &[
    seen(
        "key.too-many",
        "429 with an API key: `rate_limit`, `Request rejected (429)`, after CLAUDE_CODE_MAX_RETRIES tries",
        "classification of failures",
    ),
    seen(
        "key.overload",
        "529: `server_error`, `529 Overloaded`",
        "classification of failures",
    ),
    seen(
        "key.no-credit",
        "400 `credit balance is too low`: `billing_error`, one request",
        "classification of failures",
    ),
    seen(
        "key.unauthorized",
        "401: `authentication_failed`, `Invalid API key`",
        "classification of failures",
    ),
    seen(
        "swap.key",
        "a key replaced in the managed settings is used within seconds, without a restart",
        "moving an agent to another credential",
    ),
    seen(
        "end.terminate",
        "SIGTERM: SessionEnd `other`, exit code 143",
        "stopping an agent",
    ),
];

const LOGIN: &[Observation] = &[
    seen(
        "login.too-many",
        "429 without unified headers: `rate_limit`, `Server is temporarily limiting requests`, one request",
        "telling overload from a spent quota",
    ),
    seen(
        "login.prompt-free",
        "after a failed turn the prompt is seen as free, with nothing suggested in it",
        "delivery after a failure",
    ),
    seen(
        "login.overload",
        "529: `server_error`, `529 Overloaded`",
        "classification of failures",
    ),
    seen(
        "login.server-error",
        "500: `server_error`",
        "classification of failures",
    ),
    seen(
        "login.no-credit",
        "400 `credit balance is too low`: `billing_error`",
        "classification of failures",
    ),
    seen(
        "login.no-model",
        "404: `model_not_found`",
        "classification of failures",
    ),
    seen(
        "login.not-allowed",
        "403 for the organisation: `oauth_org_not_allowed`",
        "quarantine of a dead login",
    ),
    seen(
        "login.revoked",
        "403 `revoked`: `authentication_failed`, `OAuth token revoked`",
        "quarantine of a dead login",
    ),
    seen(
        "login.unauthorized",
        "401: `authentication_failed`, `Please run /login`",
        "quarantine of a dead login",
    ),
    seen(
        "login.heals",
        "after all of these the next good answer ends a turn as usual",
        "going on after a failure",
    ),
];

const RESUME: &[Observation] = &[
    seen(
        "resume.session",
        "`--resume` after a kill: SessionStart `resume` with the same session id",
        "repair",
    ),
    seen(
        "resume.goes-on",
        "a turn cut off in a later tool call goes on by itself, without UserPromptSubmit (CLAUDE_CODE_RESUME_INTERRUPTED_TURN)",
        "no turn is lost with a container",
    ),
    seen(
        "resume.prompt-again",
        "one cut off in its first tool call starts again, and UserPromptSubmit has its prompt",
        "no turn is lost with a container",
    ),
    seen(
        "resume.rests",
        "a finished turn is not taken up again: it waits at its prompt",
        "nothing is done twice",
    ),
];

const DIALOGS: &[Observation] = &[
    seen(
        "dialog.trust",
        "an untrusted directory is asked about, and the screen is seen as that dialog",
        "the seed; naming what waits for a person",
    ),
    seen(
        "dialog.api-key",
        "a key that is not approved is asked about, and the screen is seen as that dialog",
        "the seed; naming what waits for a person",
    ),
    seen(
        "dialog.no-login",
        "without a credential the screen is seen as not logged in",
        "naming what waits for a person",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_observation_has_one_name_and_says_what_needs_it() {
        let mut ids = BTreeSet::new();
        for scene in Scene::ALL {
            for observation in scene.observations() {
                assert!(ids.insert(observation.id), "{} twice", observation.id);
                assert!(!observation.says.is_empty() && !observation.used_by.is_empty());
                assert!(observation.id.contains('.'), "{}", observation.id);
            }
        }
        assert!(ids.len() >= 40, "{}", ids.len());
    }
}
