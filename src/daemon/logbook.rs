//! One log per agent in plain words: what it was told, what its hooks said, how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::house::House;
use crate::model::{AgentId, HookFact, HookReport, Timestamp};
use crate::supervisor::{Event, RescueOutcome, StackOutcome};
use crate::telemetry::AgentLog;

/// Longest piece of an agent's own words in a log line.
const QUOTED: usize = 2000;

pub(super) struct Logbook {
    house: Arc<House>,
    logs: BTreeMap<AgentId, AgentLog>,
}

impl Logbook {
    pub(super) fn new(house: &Arc<House>) -> Self {
        Self {
            house: house.clone(),
            logs: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, now: Timestamp, agent: &AgentId, text: &str) {
        if !self.logs.contains_key(agent) {
            let opened = AgentLog::open(
                self.house.paths.root(),
                agent,
                self.house.rotation(),
                self.house.redactor.clone(),
            );
            match opened {
                Ok(log) => {
                    self.logs.insert(agent.clone(), log);
                }
                Err(error) => {
                    tracing::warn!(%agent, %error, "its log cannot be opened");
                    return;
                }
            }
        }
        if let Some(log) = self.logs.get_mut(agent)
            && let Err(error) = log.write(now, text)
        {
            tracing::warn!(%agent, %error, "its log cannot be written");
        }
    }

    pub(super) fn delivery(&mut self, now: Timestamp, agent: &AgentId, text: &str) {
        self.write(now, agent, &format!("paste: {}", quote(text)));
    }

    pub(super) fn hook(&mut self, now: Timestamp, report: &HookReport) {
        let spooled = if report.spooled {
            " (from the spool)"
        } else {
            ""
        };
        let line = match &report.fact {
            HookFact::SessionStarted { source } => format!("session started ({source})"),
            HookFact::PromptSubmitted { text, .. } => format!("prompt: {}", quote(text)),
            HookFact::Stopped {
                background_tasks,
                last_message,
            } => {
                let tail = if *background_tasks > 0 {
                    format!(" [{background_tasks} background tasks run on]")
                } else {
                    String::new()
                };
                format!("turn ended: {}{tail}", quote(last_message))
            }
            HookFact::TurnFailed { error, message } => {
                format!("turn failed ({error}): {}", quote(message))
            }
            HookFact::Notified {
                notification,
                message,
            } => {
                format!("notification {notification}: {}", quote(message))
            }
            HookFact::PermissionAsked { tool } => format!("permission asked for {tool}: denied"),
            HookFact::SessionEnded { reason } => format!("session ended ({reason})"),
            HookFact::Activity { what } => format!("tool {}", quote(what)),
            HookFact::Unknown { event } => format!("unknown hook event {event}"),
        };
        self.write(now, &report.agent, &format!("{line}{spooled}"));
    }

    pub(super) fn event(&mut self, now: Timestamp, event: &Event) {
        match event {
            Event::Launched {
                agent,
                incarnation,
                container,
            } => {
                self.write(
                    now,
                    agent,
                    &format!("life {incarnation} runs in container {container}"),
                );
            }
            Event::LaunchFailed { agent, reason, .. } => {
                self.write(now, agent, &format!("could not be launched: {reason}"));
            }
            Event::Exited {
                agent,
                incarnation,
                exit_code,
                out_of_memory,
            } => {
                let code = exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                let oom = if *out_of_memory {
                    ", killed for lack of memory"
                } else {
                    ""
                };
                self.write(
                    now,
                    agent,
                    &format!("life {incarnation} ended, exit code {code}{oom}"),
                );
            }
            Event::Starved { agent, incarnation } => {
                self.write(
                    now,
                    agent,
                    &format!("life {incarnation}: something was killed for lack of memory"),
                );
            }
            Event::Claimed { agent, task } => {
                self.write(
                    now,
                    agent,
                    &format!("claimed {} (attempt {})", task.id, task.attempts),
                );
            }
            Event::TaskFinished { agent, task } => {
                self.write(now, agent, &format!("finished with {task}"));
            }
            Event::Rescued { agent, outcome, .. } => match outcome {
                RescueOutcome::Taken { rescue } => self.write(
                    now,
                    agent,
                    &format!(
                        "rescue {}: {} files, {}",
                        rescue.id, rescue.files, rescue.cause
                    ),
                ),
                RescueOutcome::Failed { reason, .. } => {
                    self.write(now, agent, &format!("rescue failed: {reason}"));
                }
                RescueOutcome::Nothing => {}
            },
            Event::Imported { agent, outcome } => {
                self.write(now, agent, &format!("import: {outcome:?}"));
            }
            Event::StackBuilt {
                stack,
                outcome: StackOutcome::Built { members, .. },
            } => {
                for member in members {
                    let commit = member.commit.short();
                    let text = format!("merge of {commit} in stack {stack}: {:?}", member.outcome);
                    self.write(now, &member.agent, &text);
                }
            }
            Event::PasteFailed { agent, reason, .. } => {
                self.write(now, agent, &format!("paste failed: {reason}"));
            }
            Event::ScreenSeen { agent, screen, .. } => {
                self.write(now, agent, &format!("screen: {screen:?}"));
            }
            _ => {}
        }
    }
}

fn quote(text: &str) -> String {
    let mut quoted: String = text.trim().chars().take(QUOTED).collect();
    if quoted.len() < text.trim().len() {
        quoted.push('…');
    }
    quoted
}
