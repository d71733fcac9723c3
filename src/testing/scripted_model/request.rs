//! What Claude Code asked: the parsed request, and the newest instruction in its conversation.
//!
//! Formats as sent by Claude Code 2.1.197. A task arrives as a plain user message or as the text of
//! a Stop hook (`Stop hook feedback:\n...`); around it are reminders, tool results and the notes of a
//! resumed turn, none of which is an instruction.

use serde_json::Value;

use crate::model::SessionId;

const STOP_FEEDBACK: &str = "Stop hook feedback:\n";
const STOP_CONTEXT: &str = "<system-reminder>\nStop hook additional context: ";
/// Texts that ask to go on with the task at hand, in lower case. Claude Code itself sends
/// `Continue from where you left off.` and `[Request interrupted by user]`.
const CONTINUATIONS: [&str; 4] = [
    "continue",
    "you were interrupted",
    "[request interrupted",
    "your last turn was cut off",
];
/// A longer text is a task even if it starts like a continuation.
const LONGEST_CONTINUATION: usize = 200;

/// One request for a message, as far as a script cares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelRequest {
    /// From the header `X-Claude-Code-Session-Id`.
    pub session: Option<SessionId>,
    /// The last six characters of the credential, never more.
    pub credential: String,
    pub model: String,
    pub system: String,
    pub tools: Vec<String>,
    pub stream: bool,
    /// The JSON schema the answer must fit, of `output_config.format`.
    pub schema: Option<Value>,
    pub conversation: Conversation,
    /// How often this session asked at this very place of the conversation before: 0 is the first
    /// time, more are retries. Set by the server.
    pub attempt: u32,
}

/// The newest instruction and what was done about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// How many instructions there were, this one included.
    pub ordinal: usize,
    pub instruction: Option<String>,
    /// The results of the tools used since the instruction, in order.
    pub results: Vec<ToolResult>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolResult {
    pub text: String,
    pub is_error: bool,
}

impl ModelRequest {
    /// Reads a request body. Whatever is missing or of another shape is left empty: only the
    /// server decides what to refuse.
    pub fn parse(body: &Value) -> Self {
        Self {
            model: text_of(&body["model"]),
            system: text_of(&body["system"]),
            tools: each(&body["tools"])
                .map(|tool| text_of(&tool["name"]))
                .collect(),
            stream: body["stream"].as_bool().unwrap_or(false),
            schema: body
                .pointer("/output_config/format/schema")
                .filter(|schema| schema.is_object())
                .cloned(),
            conversation: Conversation::parse(&body["messages"]),
            ..Self::default()
        }
    }

    /// Session titles and the like: asked beside the conversation, without any tool.
    pub fn is_side_call(&self) -> bool {
        self.tools.is_empty()
    }

    /// Claude Code's working directory, which its system prompt names.
    pub fn working_dir(&self) -> Option<&str> {
        let (_, rest) = self.system.split_once("Primary working directory: ")?;
        rest.lines().next().map(str::trim)
    }
}

impl Conversation {
    fn parse(messages: &Value) -> Self {
        let mut conversation = Self::default();
        for message in each(messages).filter(|message| message["role"] == "user") {
            conversation.take(&message["content"]);
        }
        conversation
    }

    fn take(&mut self, content: &Value) {
        let mut has_results = false;
        for block in each(content).filter(|block| block["type"] == "tool_result") {
            has_results = true;
            self.results.push(ToolResult {
                text: text_of(&block["content"]),
                is_error: block["is_error"].as_bool().unwrap_or(false),
            });
        }
        let single = content.as_str().into_iter();
        let blocks = each(content)
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str());
        let texts: Vec<&str> = single
            .chain(blocks)
            .filter_map(|text| instruction(text, has_results))
            .collect();
        if !texts.is_empty() {
            self.ordinal += 1;
            self.instruction = Some(texts.join("\n"));
            self.results.clear();
        }
    }
}

/// The task in a user text, if it is one. Beside tool results only a Stop hook gives tasks.
fn instruction(text: &str, beside_results: bool) -> Option<&str> {
    if let Some(task) = text
        .strip_prefix(STOP_FEEDBACK)
        .or_else(|| text.strip_prefix(STOP_CONTEXT))
    {
        return Some(task.trim());
    }
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let continues = text.len() <= LONGEST_CONTINUATION
        && CONTINUATIONS.iter().any(|start| lower.starts_with(start));
    let is_task = !beside_results
        && !text.is_empty()
        && !text.starts_with("<system-reminder>")
        && !text.starts_with("<local-command-")
        && !continues;
    is_task.then_some(text)
}

/// A string, or the texts of a list of blocks joined by newlines.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter_map(|block| block["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(content: Value) -> Value {
        json!({"role": "user", "content": content})
    }

    fn result(text: &str, is_error: bool) -> Value {
        user(
            json!([{"type": "tool_result", "tool_use_id": "t", "content": text, "is_error": is_error}]),
        )
    }

    fn conversation(messages: Vec<Value>) -> Conversation {
        Conversation::parse(&Value::Array(messages))
    }

    #[test]
    fn reminders_and_continuations_are_no_instruction() {
        let found = conversation(vec![
            user(json!([
                {"type": "text", "text": "<system-reminder>\nToday\n</system-reminder>\n\n"},
                {"type": "text", "text": " count the words "},
            ])),
            result("ok", false),
            user(json!("Continue from where you left off.")),
            user(json!([
                {"type": "tool_result", "tool_use_id": "t", "is_error": true,
                 "content": [{"type": "text", "text": "Exit code 1"}]},
                {"type": "text", "text": "<system-reminder>be careful</system-reminder>"},
            ])),
        ]);
        assert_eq!(found.instruction.as_deref(), Some("count the words"));
        assert_eq!(found.ordinal, 1);
        assert_eq!(found.results.len(), 2);
        assert!(found.results[1].is_error);
        assert_eq!(found.results[1].text, "Exit code 1");
    }

    #[test]
    fn the_text_of_a_stop_hook_is_the_newest_instruction() {
        let found = conversation(vec![
            user(json!("first")),
            result("ok", false),
            user(json!("Stop hook feedback:\nsecond task")),
        ]);
        assert_eq!(found.instruction.as_deref(), Some("second task"));
        assert_eq!(found.ordinal, 2);
        assert!(found.results.is_empty());
    }

    #[test]
    fn a_request_of_any_shape_is_read_without_panic() {
        for body in [json!(null), json!({"messages": 3, "tools": "x"}), json!([])] {
            let request = ModelRequest::parse(&body);
            assert!(request.is_side_call());
            assert_eq!(request.conversation, Conversation::default());
        }
    }

    #[test]
    fn the_working_directory_is_in_the_system_prompt() {
        let request = ModelRequest::parse(&json!({
            "system": [{"type": "text", "text": "# Env\n - Primary working directory: /work/a b\n - Git: true"}],
        }));
        assert_eq!(request.working_dir(), Some("/work/a b"));
    }
}
