//! The table of agents.

use comfy_table::{Attribute, Cell, CellAlignment, Color};

use crate::cli::credentials::until;
use crate::cli::format::{age, count, cut, safe};
use crate::cli::output;
use crate::cli::watch::Look;
use crate::model::view::{AgentView, FleetView};

/// A longer sentence or title is cut: the table stays a table. `--json` has the whole text.
const MAX_TEXT: usize = 60;

const HEADER: [&str; 12] = [
    "agent",
    "role",
    "state",
    "task",
    "branch",
    "ahead/behind",
    "turns",
    "tokens",
    "cost",
    "context",
    "credential",
    "since",
];

pub(super) fn agents(view: &FleetView, look: Look) -> String {
    let mut table = output::table(look.columns, look.colour, &HEADER);
    for agent in &view.agents {
        table.add_row(row(view, agent, look));
    }
    output::lines(&table)
}

fn row(view: &FleetView, agent: &AgentView, look: Look) -> Vec<Cell> {
    let usage = &agent.usage;
    let word = until(view, &agent.state, agent.until);
    let state = format!("{word}: {}", cut(&safe(&agent.reason), MAX_TEXT));
    let mut task = agent.task.as_ref().map_or_else(String::new, |task| {
        let again = if task.attempts > 1 {
            format!(" (attempt {})", task.attempts)
        } else {
            String::new()
        };
        format!("{}{again}", cut(&safe(&task.title), MAX_TEXT))
    });
    if !agent.unproven.is_empty() {
        let more = format!("{} not proven yet", agent.unproven.len());
        task = match task.as_str() {
            "" => more,
            task => format!("{task}; {more}"),
        };
    }
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    vec![
        Cell::new(&agent.id).add_attribute(Attribute::Bold),
        Cell::new(agent.role.as_str()),
        Cell::new(state).fg(colour(&agent.state)),
        Cell::new(task),
        Cell::new(safe(&agent.branch)),
        right(format!(
            "{}/{}",
            number(agent.ahead.map(u64::from)),
            number(agent.behind.map(u64::from))
        )),
        right(agent.turns.to_string()),
        right(count(
            usage.input_tokens.saturating_add(usage.output_tokens),
        )),
        right(format!("${:.2}", usage.cost_usd)),
        right(percent(usage.context_used_percent)),
        Cell::new(
            agent
                .credential
                .as_ref()
                .map_or("-", |credential| credential.as_str()),
        ),
        right(age(look.now.since(agent.since))),
    ]
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}%"))
}

/// Colours repeat what the word says, for a glance; nothing is said by colour alone.
fn colour(state: &str) -> Color {
    match state {
        "working" | "delivering" => Color::Green,
        "waiting" | "limited" | "backoff" => Color::Yellow,
        "failed" => Color::Red,
        "stopped" => Color::DarkGrey,
        _ => Color::Reset,
    }
}
