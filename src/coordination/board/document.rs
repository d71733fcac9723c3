//! Reads `tasks.json` as agents and people leave it, and writes it.
//!
//! What is broken is said and handed back to be kept aside; it takes nothing else with it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Board, BoardTask, Entry, is_id};
use crate::model::{TaskContext, TaskId, TaskStatus};

/// Something in the file that could not stay as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong, where, and what was done about it.
    pub text: String,
    /// What was there, if it is in the file no more.
    #[serde(skip)]
    pub removed: Option<String>,
}

/// What a file said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub board: Board,
    pub problems: Vec<Problem>,
}

/// Reads the file's text; `None`: it is gone. `good`: the last text that was fine, for what is missing
/// or broken now.
pub fn read(text: Option<&str>, good: Option<&str>) -> Reading {
    let before = good.and_then(|good| entries(good).ok());
    let found = text.map_or_else(|| Err("is gone".to_owned()), entries);
    let (top, found) = match found {
        Ok(found) => found,
        Err(error) => {
            let (top, entries) = before.unwrap_or_default();
            let mut reading = Reading::default();
            reading.board.top = top;
            for raw in entries {
                reading.take(raw, &[]);
            }
            reading.problems.push(Problem {
                text: format!(
                    "tasks.json {error}: the {} task(s) it had before are in place again",
                    reading.board.entries.len()
                ),
                removed: text.map(str::to_owned),
            });
            return reading;
        }
    };
    let before = before.map(|(_, entries)| entries).unwrap_or_default();
    let mut reading = Reading::default();
    reading.board.top = top;
    for raw in found {
        reading.take(raw, &before);
    }
    reading.bring_back(before);
    reading
}

impl Reading {
    fn take(&mut self, raw: Value, before: &[Value]) {
        let known = |task: &BoardTask| self.board.get(&task.id).is_some();
        match parse(&raw) {
            Ok(task) if known(&task) => {
                self.lost(
                    &raw,
                    &format!("there are two tasks `{}`: the first counts", task.id),
                );
            }
            Ok(task) => {
                let Value::Object(raw) = raw else { return };
                self.board.entries.push(Entry { raw, task });
            }
            Err(problem) => {
                let name = raw.get("id").map(word).unwrap_or_default();
                let earlier = before.iter().find(|old| {
                    old.get("id").map(word).as_ref() == Some(&name) && parse(old).is_ok()
                });
                let what = if name.is_empty() {
                    let place = self.board.entries.len() + 1;
                    format!("the task in place {place} {problem}")
                } else {
                    format!("task `{name}` {problem}")
                };
                match earlier.cloned() {
                    Some(earlier) => {
                        self.lost(&raw, &format!("{what}: it is as it was before"));
                        self.take(earlier, &[]);
                    }
                    None => self.lost(&raw, &format!("{what}: it was taken out")),
                }
            }
        }
    }

    fn lost(&mut self, raw: &Value, text: &str) {
        self.problems.push(Problem {
            text: text.to_owned(),
            removed: Some(format!("{raw:#}\n")),
        });
    }

    /// Whoever rewrites the whole file forgets tasks.
    fn bring_back(&mut self, before: Vec<Value>) {
        for raw in before {
            let Ok(task) = parse(&raw) else { continue };
            if self.board.get(&task.id).is_some() {
                continue;
            }
            self.problems.push(Problem {
                text: format!(
                    "task `{}` was missing and is back; to drop it, set its status to `cancelled`",
                    task.id
                ),
                removed: None,
            });
            self.take(raw, &[]);
        }
    }
}

impl Board {
    /// The file's text.
    pub fn text(&self) -> String {
        let tasks = self
            .entries
            .iter()
            .map(|entry| Value::Object(entry.raw.clone()));
        let mut top = self.top.clone();
        top.insert("tasks".into(), Value::Array(tasks.collect()));
        format!("{:#}\n", Value::Object(top))
    }
}

/// What is at the top besides the tasks, and the tasks; a bare list is taken, too.
fn entries(text: &str) -> Result<(Map<String, Value>, Vec<Value>), String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("is not JSON ({error})"))?;
    match value {
        Value::Array(tasks) => Ok((Map::new(), tasks)),
        Value::Object(mut top) => match top.get_mut("tasks").map(Value::take) {
            Some(Value::Array(tasks)) => Ok((top, tasks)),
            Some(_) => Err("has `tasks` that is no list".to_owned()),
            None => Err("has no list `tasks`".to_owned()),
        },
        _ => Err("is no object with a list `tasks`".to_owned()),
    }
}

/// `Err`: what is wrong, to follow a task's name.
fn parse(raw: &Value) -> Result<BoardTask, String> {
    let Value::Object(fields) = raw else {
        return Err("is no object".to_owned());
    };
    let id = fields.get("id").map(word).unwrap_or_default();
    if !is_id(&id) {
        return Err("has no `id` of letters, digits, `.`, `_` and `-`".to_owned());
    }
    let description = match fields.get("description") {
        Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
        _ => return Err("has no `description`".to_owned()),
    };
    let status = match fields.get("status") {
        None | Some(Value::Null) => TaskStatus::Available,
        Some(Value::String(text)) => status(text).ok_or_else(|| {
            format!("has the unknown status `{text}` (available, claimed, done, failed, cancelled)")
        })?,
        Some(_) => return Err("has a `status` that is no word".to_owned()),
    };
    let claimed_by = match fields.get("claimed_by") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.is_empty()),
        Some(_) => return Err("has a `claimed_by` that is no name".to_owned()),
    };
    let priority = match fields.get("priority") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_i64()
            .or_else(|| value.as_str()?.trim().parse().ok())
            .ok_or("has a `priority` that is no whole number")?,
    };
    let dependencies = match fields.get("dependencies") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(all)) => all.iter().map(|id| TaskId::new(word(id))).collect(),
        Some(_) => return Err("has `dependencies` that are no list".to_owned()),
    };
    Ok(BoardTask {
        id: TaskId::new(id),
        description,
        status,
        claimed_by,
        priority,
        dependencies,
        context: context(fields.get("context")),
    })
}

/// The words of the format, and those that agents write in their place.
fn status(text: &str) -> Option<TaskStatus> {
    let text = text.trim().to_lowercase().replace(['-', ' '], "_");
    Some(match text.as_str() {
        "available" | "pending" | "open" | "todo" => TaskStatus::Available,
        "claimed" | "in_progress" => TaskStatus::Claimed,
        "done" | "completed" | "complete" => TaskStatus::Done,
        "failed" => TaskStatus::Failed,
        "cancelled" | "canceled" => TaskStatus::Cancelled,
        _ => return None,
    })
}

/// Files and hints in whatever form they have.
fn context(value: Option<&Value>) -> TaskContext {
    let mut context = TaskContext::default();
    match value {
        Some(Value::Object(fields)) => {
            if let Some(Value::Array(files)) = fields.get("files") {
                context.files = files.iter().map(word).collect();
            }
            context.hints = fields
                .get("hints")
                .map(lines)
                .filter(|hints| !hints.is_empty());
        }
        Some(other) => context.hints = Some(lines(other)).filter(|hints| !hints.is_empty()),
        None => {}
    }
    context
}

fn lines(value: &Value) -> String {
    match value {
        Value::Array(all) => all.iter().map(word).collect::<Vec<_>>().join("\n"),
        other => word(other),
    }
}

/// A text as it is; a number as its digits.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
