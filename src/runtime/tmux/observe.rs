//! What is on the server, read from one `list-panes`.

use std::collections::BTreeMap;

use tmux_interface::{DisplayMessage, ListPanes, TmuxCommand, TmuxCommands};

use super::layout::{AGENT_OPTION, PANE_OPTION, PROJECT_OPTION, SCHEMA, SCHEMA_OPTION};
use crate::model::{AgentId, ProjectId};
use crate::ports::ObservedPane;

/// One pane of any session on our socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PaneRow {
    id: String,
    dead: bool,
    in_mode: bool,
    /// Carries our mark: the agent's own pane, not one a person opened beside it.
    marked: bool,
    schema: String,
    project: String,
    agent: String,
    session: String,
}

/// Where an agent's pane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Absent,
    /// A session of that name that is not ours.
    Foreign,
    /// Our session, in which somebody closed our pane and left their own open.
    Unmarked,
    Live {
        pane: String,
        in_mode: bool,
    },
    Dead {
        pane: String,
    },
}

/// Fields are separated by `|`, which none of ours contains; the session's name, which a person
/// may choose, comes last.
pub(super) fn list_panes() -> TmuxCommands<'static> {
    let format = format!(
        "#{{pane_id}}|#{{pane_dead}}|#{{pane_in_mode}}|#{{{PANE_OPTION}}}|#{{{SCHEMA_OPTION}}}|\
         #{{{PROJECT_OPTION}}}|#{{{AGENT_OPTION}}}|#{{session_name}}"
    );
    TmuxCommands::new().add_command(ListPanes::new().all().format(format).build())
}

/// No row is like it: each has a pane's id in front.
const END_OF_LIST: &str = "end of the list";

/// Comes after [`list_panes`] where the sequence goes on.
pub(super) fn end_of_list() -> TmuxCommand<'static> {
    DisplayMessage::new().print().message(END_OF_LIST).build()
}

/// The rows, and what came after [`end_of_list`].
pub(super) fn split_list(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix(END_OF_LIST) {
        return Some(("", rest.strip_prefix('\n')?));
    }
    text.split_once(&format!("\n{END_OF_LIST}\n"))
}

pub(super) fn parse(text: &str) -> Vec<PaneRow> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<PaneRow> {
    let mut fields = line.splitn(8, '|');
    let mut next = || fields.next();
    Some(PaneRow {
        id: next()?.to_owned(),
        dead: next()? == "1",
        in_mode: !matches!(next()?, "" | "0"),
        marked: next()? == "1",
        schema: next()?.to_owned(),
        project: next()?.to_owned(),
        agent: next()?.to_owned(),
        session: next()?.to_owned(),
    })
}

fn is_ours(row: &PaneRow, project: &ProjectId) -> bool {
    row.schema == SCHEMA && row.project == project.as_str() && !row.agent.is_empty()
}

pub(super) fn find(rows: &[PaneRow], project: &ProjectId, agent: &AgentId) -> Place {
    let session: Vec<&PaneRow> = rows
        .iter()
        .filter(|row| row.session == agent.as_str())
        .collect();
    let Some(first) = session.first() else {
        return Place::Absent;
    };
    if !is_ours(first, project) || first.agent != agent.as_str() {
        return Place::Foreign;
    }
    match session.iter().find(|row| row.marked) {
        Some(row) if row.dead => Place::Dead {
            pane: row.id.clone(),
        },
        Some(row) => Place::Live {
            pane: row.id.clone(),
            in_mode: row.in_mode,
        },
        None => Place::Unmarked,
    }
}

/// One entry per session of ours; dead when its own pane has ended or was closed.
pub(super) fn ours(rows: &[PaneRow], project: &ProjectId) -> Vec<ObservedPane> {
    let mut live: BTreeMap<&str, bool> = BTreeMap::new();
    for row in rows
        .iter()
        .filter(|row| is_ours(row, project) && row.session == row.agent)
    {
        *live.entry(&row.agent).or_default() |= row.marked && !row.dead;
    }
    live.into_iter()
        .map(|(agent, live)| ObservedPane {
            agent: AgentId::new(agent),
            dead: !live,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "\
%0|0|1|1|1|p|worker-1|worker-1
%1|0|0||1|p|worker-1|worker-1
%2|1|0|1|1|p|worker-2|worker-2
%3|0|0|||||a person's | session
%4|0|0||1|p|worker-3|worker-3
%5|0|0|1|1|other|worker-4|worker-4
junk
";

    #[test]
    fn only_marked_sessions_of_this_project_are_listed() {
        let seen = ours(&parse(ROWS), &"p".into());
        let seen: Vec<(&str, bool)> = seen.iter().map(|p| (p.agent.as_str(), p.dead)).collect();
        assert_eq!(
            seen,
            [("worker-1", false), ("worker-2", true), ("worker-3", true)]
        );
    }

    #[test]
    fn a_list_ends_at_its_end_whatever_the_screen_shows() {
        let text = format!("{ROWS}end of the list\n% end of the list\nend of the list\n");
        let (rows, screen) = split_list(&text).unwrap();
        assert_eq!(parse(rows), parse(ROWS));
        assert_eq!(screen, "% end of the list\nend of the list\n");
        assert_eq!(split_list("end of the list\nx"), Some(("", "x")));
        assert_eq!(split_list("%0|0"), None);
    }

    #[test]
    fn the_agents_own_pane_is_found_beside_a_persons_split() {
        let rows = parse(ROWS);
        let place = |agent: &str| find(&rows, &"p".into(), &agent.into());
        assert_eq!(
            place("worker-1"),
            Place::Live {
                pane: "%0".into(),
                in_mode: true
            }
        );
        assert_eq!(place("worker-2"), Place::Dead { pane: "%2".into() });
        assert_eq!(place("worker-3"), Place::Unmarked);
        assert_eq!(place("worker-4"), Place::Foreign);
        assert_eq!(place("worker"), Place::Absent);
    }
}
