//! The Messages API on the wire: one JSON message, or the same as server-sent events.
//!
//! Event order and fields as documented for streaming and accepted by Claude Code 2.1.197:
//! message_start, ping, (content_block_start, content_block_delta*, content_block_stop)*,
//! message_delta with the stop reason and usage, message_stop.

use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Block, Turn};

/// Characters in one delta.
const CHUNK: usize = 40;
/// A rough rule: one token is about four bytes of English or code.
pub(super) const BYTES_PER_TOKEN: usize = 4;

/// Token counts of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// What is new in this request.
    pub(super) input: usize,
    /// What the conversation had before.
    pub(super) cached: usize,
    pub(super) output: usize,
}

impl Usage {
    /// Estimates: the last message is new input, all before it comes from the cache.
    pub(super) fn estimate(body: &Value, bytes: usize, turn: &Turn) -> Self {
        let newest = body["messages"]
            .as_array()
            .and_then(|messages| messages.last())
            .map_or(0, |message| message.to_string().len());
        let said: usize = turn
            .blocks
            .iter()
            .map(|block| match block {
                Block::Text(text) => text.len(),
                Block::ToolUse { name, input } => name.len() + input.to_string().len(),
            })
            .sum();
        Self {
            input: newest / BYTES_PER_TOKEN + 1,
            cached: bytes.saturating_sub(newest) / BYTES_PER_TOKEN,
            output: said / BYTES_PER_TOKEN + 1,
        }
    }

    fn json(self, output: usize) -> Value {
        json!({
            "input_tokens": self.input,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.cached,
            "output_tokens": output,
        })
    }
}

/// A turn ready to be sent: blocks with their ids.
pub(super) struct Message<'a> {
    id: String,
    model: &'a str,
    turn: &'a Turn,
    tool_ids: Vec<String>,
    usage: Usage,
}

impl<'a> Message<'a> {
    pub(super) fn new(model: &'a str, turn: &'a Turn, usage: Usage) -> Self {
        let id = |kind: &str| format!("{kind}_{}", Uuid::new_v4().simple());
        Self {
            id: id("msg"),
            model,
            turn,
            tool_ids: turn.blocks.iter().map(|_| id("toolu")).collect(),
            usage,
        }
    }

    /// The whole message, as a request without `stream` gets it.
    pub(super) fn whole(&self) -> Value {
        let content: Vec<Value> = self
            .blocks()
            .map(|(tool_id, block)| match block {
                Block::Text(text) => json!({"type": "text", "text": text}),
                Block::ToolUse { name, input } => {
                    json!({"type": "tool_use", "id": tool_id, "name": name, "input": input})
                }
            })
            .collect();
        let mut message = self.shell(self.usage.output);
        message["content"] = Value::Array(content);
        message["stop_reason"] = json!(self.turn.stop_reason());
        message
    }

    /// The events of the stream, each as the text to send.
    pub(super) fn events(&self) -> Vec<String> {
        let mut events = vec![
            event(&json!({"type": "message_start", "message": self.shell(1)})),
            event(&json!({"type": "ping"})),
        ];
        for (index, (tool_id, block)) in self.blocks().enumerate() {
            let (start, deltas) = parts(tool_id, block);
            events.push(event(
                &json!({"type": "content_block_start", "index": index, "content_block": start}),
            ));
            events.extend(deltas.into_iter().map(|delta| {
                event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
            }));
            events.push(event(
                &json!({"type": "content_block_stop", "index": index}),
            ));
        }
        events.push(event(&json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.turn.stop_reason(), "stop_sequence": null},
            "usage": self.usage.json(self.usage.output),
        })));
        events.push(event(&json!({"type": "message_stop"})));
        events
    }

    fn blocks(&self) -> impl Iterator<Item = (&str, &Block)> {
        self.tool_ids
            .iter()
            .map(String::as_str)
            .zip(&self.turn.blocks)
    }

    fn shell(&self, output: usize) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": self.usage.json(output),
        })
    }
}

/// The empty block that opens, and the deltas that fill it.
fn parts(tool_id: &str, block: &Block) -> (Value, Vec<Value>) {
    match block {
        Block::Text(text) => (
            json!({"type": "text", "text": ""}),
            chunks(text)
                .map(|chunk| json!({"type": "text_delta", "text": chunk}))
                .collect(),
        ),
        Block::ToolUse { name, input } => (
            json!({"type": "tool_use", "id": tool_id, "name": name, "input": {}}),
            chunks(&input.to_string())
                .map(|chunk| json!({"type": "input_json_delta", "partial_json": chunk}))
                .collect(),
        ),
    }
}

fn chunks(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let chunks: Vec<String> = characters
        .chunks(CHUNK)
        .map(|chunk| chunk.iter().collect())
        .collect();
    chunks.into_iter()
}

fn event(data: &Value) -> String {
    let name = data["type"].as_str().unwrap_or("message");
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        input: 3,
        cached: 5,
        output: 7,
    };

    fn turn() -> Turn {
        Turn {
            blocks: vec![
                Block::Text("größer ".repeat(20)),
                Block::ToolUse {
                    name: "Bash".into(),
                    input: json!({"command": "printf 'ä→\\n'; ".repeat(9)}),
                },
            ],
            ..Turn::default()
        }
    }

    fn data(event: &str) -> Value {
        serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()
    }

    #[test]
    fn the_deltas_of_a_stream_add_up_to_the_whole_message() {
        let turn = turn();
        let message = Message::new("m", &turn, USAGE);
        let (mut text, mut input) = (String::new(), String::new());
        for event in message.events().iter().map(|event| data(event)) {
            let delta = &event["delta"];
            text.push_str(delta["text"].as_str().unwrap_or_default());
            input.push_str(delta["partial_json"].as_str().unwrap_or_default());
        }
        let whole = message.whole();
        assert_eq!(whole["content"][0]["text"], text);
        assert_eq!(
            whole["content"][1]["input"],
            serde_json::from_str::<Value>(&input).unwrap()
        );
        assert_eq!(whole["stop_reason"], "tool_use");
    }

    #[test]
    fn the_events_come_in_the_order_of_the_api() {
        let turn = Turn::text("hi");
        let events = Message::new("m", &turn, USAGE).events();
        let names: Vec<Value> = events.iter().map(|e| data(e)["type"].clone()).collect();
        assert_eq!(
            names,
            [
                "message_start",
                "ping",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop"
            ]
        );
        assert!(events[0].starts_with("event: message_start\ndata: {"));
        assert!(events.iter().all(|event| event.ends_with("\n\n")));
        let end = data(&events[5]);
        assert_eq!(end["delta"]["stop_reason"], "end_turn");
        assert_eq!(end["usage"]["output_tokens"], 7);
    }
}
