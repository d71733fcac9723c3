//! How our server and its sessions are set up.

use tmux_interface::{
    NewSession, NewWindow, RespawnPane, SetOption, StartServer, TmuxCommand, TmuxCommands,
};

use crate::model::{AgentId, ProjectId};
use crate::ports::{ErrorKind, PortError, PortResult};

pub(super) const PROJECT_OPTION: &str = "@orchestrator_project";
pub(super) const AGENT_OPTION: &str = "@orchestrator_agent";
pub(super) const SCHEMA_OPTION: &str = "@orchestrator_schema";
/// On the pane itself: `1` on the agent's own.
pub(super) const PANE_OPTION: &str = "@orchestrator_pane";
/// Grows when the marks change their meaning.
pub(super) const SCHEMA: &str = "1";

const COLUMNS: usize = 200;
const ROWS: usize = 50;
/// Lines kept for scrolling back, per pane. tmux stores about 100 bytes for a line of text.
const HISTORY_LINES: &str = "50000";
/// tmux shows the first so many characters of a session name whole.
const MAX_NAME: usize = 64;

/// Session names may hold neither `:` nor `.`; ours hold what an agent id holds.
pub(super) fn check_name(agent: &AgentId) -> PortResult<()> {
    let name = agent.as_str();
    let fits = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(PortError::new(
        ErrorKind::Refused,
        format!("`{shown}` cannot name a tmux session"),
    )
    .hint("use at most 64 letters, digits, `-` and `_`"))
}

pub(super) fn check_command(agent: &AgentId, command: &[String]) -> PortResult<()> {
    if command.first().is_none_or(String::is_empty) || command.iter().any(|a| a.contains('\0')) {
        return Err(PortError::new(
            ErrorKind::Refused,
            format!("the command for the pane of {agent} is empty or holds a NUL"),
        ));
    }
    Ok(())
}

/// Starts the server if needed, sets it up, and makes one marked session. tmux runs the sequence
/// in one go, so nobody sees the session without its marks.
pub(super) fn new_session(
    project: &ProjectId,
    agent: &AgentId,
    command: &[String],
) -> TmuxCommands<'static> {
    let session = NewSession::new()
        .detached()
        .session_name(agent.to_string())
        .window_name(agent.to_string())
        .width(COLUMNS)
        .height(ROWS)
        .build();
    let mut sequence = TmuxCommands::new().add_command(StartServer::new().build());
    for option in server_options(project) {
        sequence.push(option);
    }
    sequence.push(with_program(session, command));
    let target = format!("={agent}:");
    for (name, value) in [
        (PROJECT_OPTION, project.as_str()),
        (AGENT_OPTION, agent.as_str()),
        (SCHEMA_OPTION, SCHEMA),
    ] {
        sequence.push(
            SetOption::new()
                .target_pane(target.clone())
                .option(name)
                .value(value.to_owned())
                .build(),
        );
    }
    sequence.push(mark_pane(target));
    sequence
}

/// A fresh window for the agent in a session whose own pane was closed.
pub(super) fn new_window(agent: &AgentId, command: &[String]) -> TmuxCommands<'static> {
    let target = format!("={agent}:");
    let window = NewWindow::new()
        .window_name(agent.to_string())
        .target_window(target.clone())
        .build();
    TmuxCommands::new()
        .add_command(with_program(window, command))
        .add_command(mark_pane(target))
}

/// Without `-k`: tmux refuses while the pane lives, which makes two who try at once harmless.
pub(super) fn respawn(pane: &str, command: &[String]) -> TmuxCommands<'static> {
    let respawn = RespawnPane::new().target_pane(pane.to_owned()).build();
    TmuxCommands::new().add_command(with_program(respawn, command))
}

/// An argument as tmux must be given it: a `;` at its end would end the command.
pub(super) fn argument(text: &str) -> String {
    match text.strip_suffix(';') {
        Some(head) => format!("{head}\\;"),
        None => text.to_owned(),
    }
}

fn mark_pane(target: String) -> TmuxCommand<'static> {
    SetOption::new()
        .pane()
        .target_pane(target)
        .option(PANE_OPTION)
        .value("1")
        .build()
}

/// tmux runs several arguments as they are, but hands a single one to a shell; so a single one
/// gets company.
fn with_program(mut tmux: TmuxCommand<'static>, command: &[String]) -> TmuxCommand<'static> {
    tmux.push_param("--");
    if let [only] = command {
        for word in ["/bin/sh", "-c", "exec \"$0\"", only] {
            tmux.push_param(argument(word));
        }
    } else {
        for word in command {
            tmux.push_param(argument(word));
        }
    }
    tmux
}

fn server_options(project: &ProjectId) -> Vec<TmuxCommand<'static>> {
    let mut options: Vec<TmuxCommand<'static>> = [
        // Milliseconds to wait after ESC for the rest of a key. Not 0, which splits keys on slow links.
        ("escape-time", "10"),
        ("focus-events", "on"),
    ]
    .into_iter()
    .map(|(name, value)| SetOption::new().server().option(name).value(value).build())
    .collect();
    let left = format!(
        " #[bold]#{{{AGENT_OPTION}}}#[nobold] | {} ",
        project.as_str().replace('#', "##")
    );
    let size = format!("{COLUMNS}x{ROWS}");
    for (name, value) in [
        ("default-size", size.as_str()),
        ("default-terminal", "screen-256color"),
        ("history-limit", HISTORY_LINES),
        ("mouse", "on"),
        ("set-titles", "on"),
        ("set-titles-string", "#{session_name}: #{pane_title}"),
        ("status", "on"),
        ("status-interval", "0"),
        ("status-left", left.as_str()),
        ("status-left-length", "80"),
        (
            "status-right",
            " detach: Ctrl-b then d | closing this stops no agent ",
        ),
        ("status-right-length", "80"),
        ("window-status-format", ""),
        ("window-status-current-format", ""),
    ] {
        options.push(
            SetOption::new()
                .global()
                .option(name)
                .value(value.to_owned())
                .build(),
        );
    }
    for (name, value) in [
        // A command that ends leaves its last words on the screen until it is started again.
        ("remain-on-exit", "on"),
        ("automatic-rename", "off"),
        ("allow-rename", "off"),
    ] {
        options.push(
            SetOption::new()
                .global()
                .window()
                .option(name)
                .value(value)
                .build(),
        );
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_tmux_would_change_are_refused() {
        for name in ["", "a.b", "a:b", "a b", "-a", "é", "a;"] {
            let error = check_name(&name.into()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{name}");
        }
        check_name(&"worker-12".into()).unwrap();
        check_name(&"thread_3fa9".into()).unwrap();
    }

    #[test]
    fn a_trailing_semicolon_is_kept_from_tmux() {
        assert_eq!(argument("a;"), "a\\;");
        assert_eq!(argument(";"), "\\;");
        assert_eq!(argument("a;b"), "a;b");
    }

    #[test]
    fn a_single_word_is_not_given_to_a_shell_as_a_script() {
        let words = respawn("%1", &["a b".into()]).to_vec().join("\n");
        assert!(words.ends_with("/bin/sh\n-c\nexec \"$0\"\na b"), "{words}");
    }
}
