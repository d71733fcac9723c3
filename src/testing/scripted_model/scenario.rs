//! The scenario language: rules that match an instruction, and the steps a model takes for it.
//!
//! A scenario is data: built in Rust or read from JSON. The walk through the steps is a pure function
//! of the tool results since the instruction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Answer, Block, Failure, Pacing, Turn};
use super::pattern::{Captures, Pattern};
use super::request::{ModelRequest, ToolResult};
use super::server::Script;

/// Rules in order; the first whose conditions all hold is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub pacing: Pacing,
    /// Said when no rule fits, and when a rule ends without a word. `Done.` if empty.
    #[serde(default)]
    pub otherwise: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    /// All must hold. No condition at all always holds.
    #[serde(default)]
    pub when: Vec<Condition>,
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The last words of the turn.
    #[serde(default)]
    pub finally: String,
}

/// What a rule asks of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The instruction holds this pattern; its captures are `{{name}}` in the steps.
    Text(Pattern),
    /// The system prompt contains this text.
    System(String),
    /// The credential ends in these (at most six) characters.
    Credential(String),
    /// The model's name starts with this.
    Model(String),
    /// The first that holds gives the captures.
    Any(Vec<Condition>),
    Not(Box<Condition>),
}

/// One thing the model does. Strings may hold `{{capture}}`; in a command it is quoted for the shell.
/// Paths that are not absolute are taken from Claude Code's working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    Bash {
        command: String,
        #[serde(default)]
        description: String,
    },
    Read {
        file_path: String,
    },
    Write {
        file_path: String,
        content: String,
    },
    Edit {
        file_path: String,
        old_string: String,
        new_string: String,
    },
    /// Any other tool.
    Tool {
        name: String,
        input: Value,
    },
    /// Said before the next tool, or at the end.
    Say(String),
    /// Looks at the result of the last tool.
    If {
        result: ResultCheck,
        #[serde(default)]
        then: Vec<Step>,
        #[serde(default, rename = "else")]
        otherwise: Vec<Step>,
    },
    /// The API fails here instead of answering: only for this credential if one is given, and only
    /// for the first `times` requests at this place (for ever if absent).
    Fail {
        #[serde(default)]
        credential: Option<String>,
        #[serde(default)]
        times: Option<u32>,
        failure: Failure,
    },
}

/// All that is given must hold. Before the first tool the result is empty and no error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultCheck {
    pub error: Option<bool>,
    pub contains: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("the scenario cannot be read: {0}")]
pub struct ScenarioError(#[from] serde_json::Error);

impl Scenario {
    /// # Errors
    /// When the text is no JSON, has an unknown key, or a pattern is wrong; says where.
    pub fn from_json(text: &str) -> Result<Self, ScenarioError> {
        Ok(serde_json::from_str(text)?)
    }

    #[must_use]
    pub fn paced(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    pub fn script(self) -> Arc<dyn Script> {
        Arc::new(self)
    }

    fn last_words(&self) -> &str {
        if self.otherwise.is_empty() {
            "Done."
        } else {
            &self.otherwise
        }
    }
}

impl Script for Scenario {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let found = self
            .rules
            .iter()
            .find_map(|rule| Some((rule, rule.captures(request)?)));
        let mut walk = Walk {
            request,
            captures: Captures::new(),
            results: request.conversation.results.iter(),
            last: ToolResult::default(),
            said: Vec::new(),
        };
        let mut reached = None;
        let mut finally = String::new();
        if let Some((rule, captures)) = found {
            walk.captures = captures;
            reached = walk.steps(&rule.steps);
            finally = walk.fill(&rule.finally, str::to_owned);
        }
        let mut turn = match reached {
            Some(Answer::Error(failure)) => return Answer::Error(failure),
            Some(Answer::Turn(turn)) => turn,
            None => {
                walk.said.push(finally);
                walk.said.retain(|text| !text.is_empty());
                if walk.said.is_empty() {
                    walk.said.push(self.last_words().to_owned());
                }
                Turn::text(walk.said.join("\n\n"))
            }
        };
        turn.pacing = self.pacing;
        Answer::Turn(turn)
    }
}

impl Rule {
    /// What the conditions captured, or `None` if one does not hold.
    fn captures(&self, request: &ModelRequest) -> Option<Captures> {
        let mut all = Captures::new();
        for condition in &self.when {
            all.extend(condition.captures(request)?);
        }
        Some(all)
    }
}

impl Condition {
    /// The instruction contains exactly this text.
    pub fn text(literal: &str) -> Self {
        Self::Text(Pattern::literal(literal))
    }

    fn captures(&self, request: &ModelRequest) -> Option<Captures> {
        let plain = |holds: bool| holds.then(Captures::new);
        match self {
            Self::Text(pattern) => pattern.find(
                request
                    .conversation
                    .instruction
                    .as_deref()
                    .unwrap_or_default(),
            ),
            Self::System(text) => plain(request.system.contains(text.as_str())),
            Self::Credential(end) => plain(request.credential.ends_with(end.as_str())),
            Self::Model(start) => plain(request.model.starts_with(start.as_str())),
            Self::Any(conditions) => conditions
                .iter()
                .find_map(|condition| condition.captures(request)),
            Self::Not(condition) => plain(condition.captures(request).is_none()),
        }
    }
}

impl ResultCheck {
    fn holds(&self, result: &ToolResult) -> bool {
        self.error.is_none_or(|error| error == result.is_error)
            && self
                .contains
                .as_ref()
                .is_none_or(|text| result.text.contains(text.as_str()))
    }
}

impl Step {
    pub fn bash(command: &str, description: &str) -> Self {
        Self::Bash {
            command: command.to_owned(),
            description: description.to_owned(),
        }
    }

    pub fn read(file_path: &str) -> Self {
        Self::Read {
            file_path: file_path.to_owned(),
        }
    }

    pub fn write(file_path: &str, content: &str) -> Self {
        Self::Write {
            file_path: file_path.to_owned(),
            content: content.to_owned(),
        }
    }

    pub fn edit(file_path: &str, old_string: &str, new_string: &str) -> Self {
        Self::Edit {
            file_path: file_path.to_owned(),
            old_string: old_string.to_owned(),
            new_string: new_string.to_owned(),
        }
    }

    pub fn say(text: &str) -> Self {
        Self::Say(text.to_owned())
    }

    pub fn if_error(then: Vec<Step>, otherwise: Vec<Step>) -> Self {
        Self::If {
            result: ResultCheck {
                error: Some(true),
                contains: None,
            },
            then,
            otherwise,
        }
    }

    pub fn if_contains(text: &str, then: Vec<Step>, otherwise: Vec<Step>) -> Self {
        Self::If {
            result: ResultCheck {
                error: None,
                contains: Some(text.to_owned()),
            },
            then,
            otherwise,
        }
    }
}

/// Goes through the steps, taking one result for each tool, up to the first tool without one.
struct Walk<'a> {
    request: &'a ModelRequest,
    captures: Captures,
    results: std::slice::Iter<'a, ToolResult>,
    last: ToolResult,
    said: Vec<String>,
}

impl Walk<'_> {
    /// The answer where the conversation stands, or `None` when all steps are done.
    fn steps(&mut self, steps: &[Step]) -> Option<Answer> {
        steps.iter().find_map(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Option<Answer> {
        match step {
            Step::Say(text) => {
                let text = self.fill(text, str::to_owned);
                self.said.push(text);
                None
            }
            Step::If {
                result,
                then,
                otherwise,
            } => {
                let branch = if result.holds(&self.last) {
                    then
                } else {
                    otherwise
                };
                self.steps(branch)
            }
            Step::Fail {
                credential,
                times,
                failure,
            } => {
                let now = self.results.as_slice().is_empty()
                    && times.is_none_or(|times| self.request.attempt < times)
                    && credential
                        .as_ref()
                        .is_none_or(|end| self.request.credential.ends_with(end.as_str()));
                now.then(|| Answer::Error(failure.clone()))
            }
            tool => self.tool(tool),
        }
    }

    fn tool(&mut self, step: &Step) -> Option<Answer> {
        if let Some(result) = self.results.next() {
            self.last = result.clone();
            self.said.clear();
            return None;
        }
        let mut blocks: Vec<Block> = self.said.drain(..).map(Block::Text).collect();
        let (name, input) = self.call(step)?;
        blocks.push(Block::ToolUse { name, input });
        Some(Answer::Turn(Turn {
            blocks,
            ..Turn::default()
        }))
    }

    /// The tool's name and input, as Claude Code 2.1.197 declares them.
    fn call(&self, step: &Step) -> Option<(String, Value)> {
        let path = |path: &str| self.absolute(&self.fill(path, str::to_owned));
        let plain = |text: &str| self.fill(text, str::to_owned);
        let (name, input) = match step {
            Step::Bash {
                command,
                description,
            } => (
                "Bash",
                json!({"command": self.fill(command, quoted), "description": plain(description)}),
            ),
            Step::Read { file_path } => ("Read", json!({"file_path": path(file_path)})),
            Step::Write { file_path, content } => (
                "Write",
                json!({"file_path": path(file_path), "content": plain(content)}),
            ),
            Step::Edit {
                file_path,
                old_string,
                new_string,
            } => (
                "Edit",
                json!({
                    "file_path": path(file_path),
                    "old_string": plain(old_string),
                    "new_string": plain(new_string),
                }),
            ),
            Step::Tool { name, input } => (name.as_str(), input.clone()),
            Step::Say(_) | Step::If { .. } | Step::Fail { .. } => return None,
        };
        Some((name.to_owned(), input))
    }

    fn absolute(&self, path: &str) -> String {
        match self.request.working_dir() {
            Some(dir) if !path.starts_with('/') => format!("{}/{path}", dir.trim_end_matches('/')),
            _ => path.to_owned(),
        }
    }

    fn fill(&self, text: &str, form: fn(&str) -> String) -> String {
        self.captures
            .iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{{{name}}}}}"), &form(value))
            })
    }
}

/// One word for a POSIX shell, whatever it holds.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
