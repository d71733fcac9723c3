//! The walk through a scenario, without a server.

use super::*;
use crate::testing::scripted_model::Conversation;

fn request(instruction: &str, results: &[(&str, bool)]) -> ModelRequest {
    ModelRequest {
        system: " - Primary working directory: /work\n".into(),
        credential: "abcdef".into(),
        conversation: Conversation {
            ordinal: 1,
            instruction: Some(instruction.into()),
            results: results
                .iter()
                .map(|(text, is_error)| ToolResult {
                    text: (*text).into(),
                    is_error: *is_error,
                })
                .collect(),
        },
        ..ModelRequest::default()
    }
}

/// The answer as one line: texts, then `Tool input`.
fn line(answer: &Answer) -> String {
    match answer {
        Answer::Error(failure) => format!("error {}", failure.status),
        Answer::Turn(turn) => turn
            .blocks
            .iter()
            .map(|block| match block {
                Block::Text(text) => text.clone(),
                Block::ToolUse { name, input } => format!("{name} {input}"),
            })
            .collect::<Vec<_>>()
            .join(" | "),
    }
}

const SCENARIO: &str = r#"{
  "rules": [{
    "name": "merge",
    "when": [{"text": "git merge {sha:hex}"}, {"not": {"model": "claude-haiku"}}],
    "steps": [
      {"say": "Merging."},
      {"bash": {"command": "git merge {{sha}}"}},
      {"if": {"result": {"error": true, "contains": "CONFLICT"},
              "then": [{"say": "A conflict."}, {"bash": {"command": "resolve"}}],
              "else": [{"say": "Clean."}]}},
      {"read": {"file_path": "a.txt"}}
    ],
    "finally": "Merged {{sha}}."
  }, {
    "name": "greet",
    "when": [{"text": "greet {who:line}"}],
    "steps": [{"bash": {"command": "echo {{who}}"}}]
  }]
}"#;

#[test]
fn the_results_decide_the_way() {
    let scenario = Scenario::from_json(SCENARIO).unwrap();
    let sha = "a".repeat(40);
    let text = format!("please git merge {sha}");
    let say = |results: &[(&str, bool)]| line(&scenario.answer(&request(&text, results)));
    assert_eq!(
        say(&[]),
        format!(r#"Merging. | Bash {{"command":"git merge {sha}","description":""}}"#)
    );
    assert_eq!(
        say(&[("CONFLICT in a", true)]),
        r#"A conflict. | Bash {"command":"resolve","description":""}"#
    );
    let read = r#"Read {"file_path":"/work/a.txt"}"#;
    assert_eq!(say(&[("ok", false)]), format!("Clean. | {read}"));
    assert_eq!(say(&[("CONFLICT", true), ("ok", false)]), read);
    assert_eq!(
        say(&[("ok", false), ("text", false)]),
        format!("Merged {sha}.")
    );
}

#[test]
fn a_capture_in_a_command_cannot_leave_its_word() {
    let scenario = Scenario::from_json(SCENARIO).unwrap();
    let answer = scenario.answer(&request("greet $(rm -rf x); it's", &[]));
    let Answer::Turn(turn) = answer else {
        panic!("an error");
    };
    let Block::ToolUse { input, .. } = &turn.blocks[0] else {
        panic!("no tool");
    };
    assert_eq!(input["command"], r"echo '$(rm -rf x); it'\''s'");
}

#[test]
fn an_unknown_task_is_done() {
    let scenario = Scenario::from_json(SCENARIO).unwrap();
    assert_eq!(line(&scenario.answer(&request("dance", &[]))), "Done.");
}

#[test]
fn a_failure_strikes_one_credential_in_the_middle_of_a_turn_and_passes() {
    let rule = Rule {
        name: "limited".into(),
        when: Vec::new(),
        steps: vec![
            Step::bash("one", ""),
            Step::Fail {
                credential: Some("abcdef".into()),
                times: Some(1),
                failure: Failure::usage_limit("five_hour", 5),
            },
            Step::bash("two", ""),
        ],
        finally: "end".into(),
    };
    let scenario = Scenario {
        rules: vec![rule],
        ..Scenario::default()
    };
    let two = r#"Bash {"command":"two","description":""}"#;
    let mut asked = request("x", &[("ok", false)]);
    assert_eq!(line(&scenario.answer(&asked)), "error 429");
    asked.attempt = 1;
    assert_eq!(line(&scenario.answer(&asked)), two);
    asked.attempt = 0;
    asked.credential = "other1".into();
    assert_eq!(line(&scenario.answer(&asked)), two);
    let later = request("x", &[("ok", false), ("ok", false)]);
    assert_eq!(line(&scenario.answer(&later)), "end");
}

#[test]
fn json_and_rust_tell_the_same_and_typos_are_refused() {
    let scenario = Scenario::from_json(SCENARIO).unwrap();
    let text = serde_json::to_string(&scenario).unwrap();
    assert_eq!(Scenario::from_json(&text).unwrap(), scenario);
    let typo = SCENARIO.replace("\"steps\"", "\"step\"");
    assert!(
        Scenario::from_json(&typo)
            .unwrap_err()
            .to_string()
            .contains("step")
    );
}
