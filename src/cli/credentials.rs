//! `credentials`: the pool, as the running supervisor knows it or as its files are.

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell, Color};
use serde::Serialize;

use super::context::Context;
use super::error::Result;
use super::format::{age, cut, safe};
use super::output::{self, Colour};
use super::{Exit, wiring};
use crate::client::Done;
use crate::model::view::FleetView;
use crate::model::{AgentId, CredentialId, CredentialView, Timestamp, Window, Windows};

/// A longer sentence is cut; `--json` has the whole text.
const MAX_TEXT: usize = 90;

const HEADER: [&str; 8] = [
    "credential",
    "kind",
    "plan",
    "state",
    "lent to",
    "5-hour",
    "weekly",
    "expires",
];

/// Show each credential: who has it, how far it is used, when it can be used again
///
/// With a running supervisor as that knows them; without one, what their files say and what is
/// wrong with them. No secret is shown.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  orchestrator credentials
  orchestrator credentials --json | jq '.credentials[] | select(.state != \"ready\")'
  orchestrator credentials retry team          after you have mended it, or to try it early

States: ready; spent (until its reset); cooling (for a short time); refused (a person must act);
gone (its file is not usable any more); unknown (no supervisor runs)."
)]
pub struct CredentialsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Forget why a credential is not used; it may be tried again at once
    Retry {
        /// Its name, as `credentials` shows it
        name: String,
    },
}

/// Everything there is to say about the pool.
#[derive(Debug, Default, Serialize)]
pub struct PoolReport {
    /// Whether a supervisor told this; otherwise only what the files say is known.
    running: bool,
    credentials: Vec<CredentialView>,
    problems: Vec<PoolProblem>,
}

/// A file that gives no credential, or a remark on one that does.
#[derive(Debug, Serialize)]
pub struct PoolProblem {
    pub text: String,
    pub hint: Option<String>,
}

pub(super) async fn run(context: &Context, args: &CredentialsArgs) -> Result<Exit> {
    if let Some(Action::Retry { name }) = &args.action {
        return retry(context, name).await;
    }
    let report = report(context).await?;
    if args.json {
        output::json(&report)?;
    } else {
        let columns = output::terminal_size().map(|(columns, _)| columns);
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        output::data(&render(&report, now, columns, Colour::of_stdout()))?;
    }
    Ok(Exit::Done)
}

async fn retry(context: &Context, name: &str) -> Result<Exit> {
    let id = CredentialId::new(name);
    let client = context.running()?.client;
    match client.retry_credential(&id).await? {
        Done::Accepted => output::say(&format!("{id} may be used again")),
        Done::AlreadySo => output::say(&format!("{id} is in use, or ready for it, already")),
    }
    Ok(Exit::Done)
}

async fn report(context: &Context) -> Result<PoolReport> {
    // Files that are refused are no part of what the supervisor tells.
    let files = match &context.config {
        Some(_) => Some(wiring::pool_on_disk(&context.settings()?)),
        None => None,
    };
    match (context.running(), files) {
        (Ok(running), files) => Ok(PoolReport {
            running: true,
            credentials: running.client.credentials().await?,
            problems: files.map_or_else(Vec::new, |(_, problems)| problems),
        }),
        (Err(_), Some((credentials, problems))) => Ok(PoolReport {
            running: false,
            credentials,
            problems,
        }),
        (Err(error), None) => Err(error),
    }
}

fn render(report: &PoolReport, now: Timestamp, columns: Option<u16>, colour: Colour) -> String {
    let mut table = output::table(columns, colour, &HEADER);
    for credential in &report.credentials {
        table.add_row(row(credential, now));
    }
    let mut text = table
        .to_string()
        .lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n");
    let remarks = report.credentials.iter().filter_map(|credential| {
        let reason = cut(&safe(credential.reason.as_deref()?), MAX_TEXT);
        Some(format!("{}: {reason}\n", credential.id))
    });
    let problems = report.problems.iter().map(|problem| {
        let hint = problem
            .hint
            .as_deref()
            .map_or_else(String::new, |hint| format!("\n  hint: {}", safe(hint)));
        format!("problem: {}{hint}\n", safe(&problem.text))
    });
    let below: String = remarks.chain(problems).collect();
    if !below.is_empty() {
        text.push('\n');
        text.push_str(&below);
    }
    if !report.running {
        text.push_str("\nno supervisor is running: this is what the files say\n");
    }
    text
}

fn row(credential: &CredentialView, now: Timestamp) -> Vec<Cell> {
    let until = credential
        .until
        .map_or_else(String::new, |at| format!(" until {}", at.clock(now)));
    let lent_to: Vec<&str> = credential.lent_to.iter().map(AgentId::as_str).collect();
    let Windows {
        five_hour,
        seven_day,
    } = credential.windows;
    vec![
        Cell::new(safe(credential.id.as_str())).add_attribute(Attribute::Bold),
        Cell::new(credential.kind.as_str()),
        Cell::new(safe(credential.plan.as_deref().unwrap_or("-"))),
        Cell::new(format!("{}{until}", credential.state)).fg(colour_of(&credential.state)),
        Cell::new(if lent_to.is_empty() {
            "-".to_owned()
        } else {
            lent_to.join(", ")
        }),
        Cell::new(window(five_hour, now)),
        Cell::new(window(seven_day, now)),
        Cell::new(expiry(credential.expires_at, now)),
    ]
}

/// `41%, resets 19:25 UTC`; a window that has been reset since is empty again.
fn window(window: Option<Window>, now: Timestamp) -> String {
    match window {
        None => "-".to_owned(),
        Some(window) if window.resets_at <= now => "0%".to_owned(),
        Some(window) => format!(
            "{:.0}%, resets {}",
            window.used_percent,
            window.resets_at.clock(now)
        ),
    }
}

fn expiry(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        None => "-".to_owned(),
        Some(at) if at <= now => "expired".to_owned(),
        Some(at) => format!("in {}", age(at.since(now))),
    }
}

fn colour_of(state: &str) -> Color {
    match state {
        "ready" => Color::Green,
        "spent" | "cooling" => Color::Yellow,
        "refused" | "gone" => Color::Red,
        _ => Color::Reset,
    }
}

/// Agents that wait for a credential: `limited until 19:25 UTC`.
pub(super) fn until(view: &FleetView, state: &str, at: Option<Timestamp>) -> String {
    match at {
        Some(at) if state == "limited" && at > view.at => {
            format!("{state} until {}", at.clock(view.at))
        }
        _ => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CredentialKind;

    const NOW: Timestamp = Timestamp(1_795_273_200_000);

    fn credential(id: &str, state: &str) -> CredentialView {
        CredentialView {
            id: CredentialId::new(id),
            kind: CredentialKind::OauthLogin,
            plan: Some("max".into()),
            state: state.into(),
            reason: None,
            until: None,
            lent_to: Vec::new(),
            windows: Windows::default(),
            windows_at: None,
            expires_at: None,
            refreshed_at: None,
        }
    }

    fn shown(report: &PoolReport) -> String {
        render(report, NOW, None, Colour::No)
    }

    #[test]
    fn a_row_says_who_has_it_and_until_when_it_is_spent() {
        let window = |used_percent, minutes: i64| {
            Some(Window {
                used_percent,
                resets_at: Timestamp(NOW.0 + minutes * 60_000),
            })
        };
        let spent = CredentialView {
            until: Some(Timestamp(NOW.0 + 600_000)),
            lent_to: vec!["manager".into(), "worker-1".into()],
            windows: Windows {
                five_hour: window(100.0, 10),
                seven_day: window(17.0, -1),
            },
            expires_at: Some(Timestamp(NOW.0 + 7_500_000)),
            reason: Some("has spent its 5-hour limit".into()),
            ..credential("team", "spent")
        };
        let text = shown(&PoolReport {
            running: true,
            credentials: vec![spent, credential("own", "ready")],
            problems: Vec::new(),
        });
        let clock = Timestamp(NOW.0 + 600_000).clock(NOW);
        for word in [
            &format!("spent until {clock}"),
            "manager, worker-1",
            &format!("100%, resets {clock}"),
            "0%",
            "in 2h 5m",
            "team: has spent its 5-hour limit",
            "ready",
        ] {
            assert!(text.contains(word), "`{word}` is not in\n{text}");
        }
        assert!(!text.contains("no supervisor"), "{text}");
    }

    #[test]
    fn problems_stand_below_with_what_to_do_and_cannot_drive_the_terminal() {
        let text = shown(&PoolReport {
            running: false,
            credentials: vec![credential("a", "unknown")],
            problems: vec![PoolProblem {
                text: "/c/x.json: it is empty\u{1b}[2J".into(),
                hint: Some("remove it".into()),
            }],
        });
        assert!(text.contains("problem: /c/x.json: it is empty"), "{text}");
        assert!(text.contains("hint: remove it"), "{text}");
        assert!(text.contains("no supervisor is running"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
