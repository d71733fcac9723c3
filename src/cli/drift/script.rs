//! What the model answers: by words in the prompt. `meet WORD` gets that error, `gate NAME` runs a
//! command that waits for [`super::instance::Instance::open_gate`], everything else gets a word.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::testing::scripted_model::{
    Answer, Condition, Failure, ModelRequest, Pattern, PatternError, Rule, Scenario, Script, Step,
};

/// What each window's headers say on every good answer.
pub(super) const FIVE_HOUR_PERCENT: u64 = 41;
pub(super) const SEVEN_DAY_PERCENT: u64 = 17;

const WAIT_AT_GATE: &str = "touch .gate-{{gate}}.waiting; \
     until [ -e .gate-{{gate}}.open ]; do sleep 0.1; done; echo through";

/// Plays the scenario, keeps which tools were offered, and adds the headers of a subscription.
pub(super) struct DriftScript {
    scenario: Scenario,
    windows: Vec<(String, String)>,
    tools: Arc<Mutex<BTreeSet<String>>>,
}

/// Every tool that was offered to the model in a turn.
#[derive(Clone, Default)]
pub(super) struct Tools(Arc<Mutex<BTreeSet<String>>>);

impl Tools {
    pub(super) fn all(&self) -> BTreeSet<String> {
        // Only inserted into: a panic elsewhere leaves nothing half done in it.
        let tools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tools.clone()
    }
}

impl DriftScript {
    /// `reset`: when windows and limits reset, in seconds since the epoch: in some hours and days.
    pub(super) fn new(
        five_hours: i64,
        seven_days: i64,
        tools: &Tools,
    ) -> Result<Self, PatternError> {
        let window = |name: &str, percent: u64, reset: i64| {
            let header = |what: &str| format!("anthropic-ratelimit-unified-{name}-{what}");
            [
                (header("utilization"), format!("0.{percent}")),
                (header("reset"), reset.to_string()),
            ]
        };
        let mut windows = vec![(
            "anthropic-ratelimit-unified-status".to_owned(),
            "allowed".to_owned(),
        )];
        windows.extend(window("5h", FIVE_HOUR_PERCENT, five_hours));
        windows.extend(window("7d", SEVEN_DAY_PERCENT, seven_days));
        Ok(Self {
            scenario: scenario(five_hours, seven_days)?,
            windows,
            tools: tools.0.clone(),
        })
    }
}

impl Script for DriftScript {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        tools.extend(request.tools.iter().cloned());
        drop(tools);
        let mut answer = self.scenario.answer(&newest(request));
        if let Answer::Turn(turn) = &mut answer {
            turn.headers.extend(self.windows.iter().cloned());
        }
        answer
    }
}

/// A turn that failed has no answer, so its prompt and the next one come as one message: only the
/// last of them counts.
fn newest(request: &ModelRequest) -> ModelRequest {
    let mut request = request.clone();
    let instruction = &mut request.conversation.instruction;
    *instruction = instruction
        .take()
        .and_then(|text| text.lines().last().map(str::to_owned));
    request
}

/// The words behind `meet`, with what the API then says.
fn failures(five_hours: i64, seven_days: i64) -> Vec<(&'static str, Failure)> {
    vec![
        (
            "five-hour-limit",
            Failure::usage_limit("five_hour", five_hours),
        ),
        (
            "seven-day-limit",
            Failure::usage_limit("seven_day", seven_days),
        ),
        ("too-many-requests", Failure::too_many_requests()),
        ("overload", Failure::overloaded()),
        ("server-error", Failure::server_error()),
        ("unauthorized", Failure::unauthorized()),
        ("invalid-key", Failure::invalid_key()),
        ("revoked", Failure::revoked()),
        ("not-allowed", Failure::not_allowed()),
        ("no-credit", Failure::no_credit()),
        ("no-model", Failure::no_such_model()),
    ]
}

fn scenario(five_hours: i64, seven_days: i64) -> Result<Scenario, PatternError> {
    let mut rules: Vec<Rule> = failures(five_hours, seven_days)
        .into_iter()
        .map(|(word, failure)| Rule {
            name: word.to_owned(),
            when: vec![Condition::text(&format!("meet {word}"))],
            steps: vec![Step::Fail {
                credential: None,
                times: None,
                failure,
            }],
            finally: String::new(),
        })
        .collect();
    let gate = || Step::bash(WAIT_AT_GATE, "Wait at the gate");
    for (name, pattern, steps) in [
        (
            "later gate",
            "one step and go through gate {gate:word}",
            vec![Step::bash("echo one step", "Take a step"), gate()],
        ),
        ("gate", "gate {gate:word}", vec![gate()]),
    ] {
        rules.push(Rule {
            name: name.into(),
            when: vec![Condition::Text(Pattern::new(pattern)?)],
            steps,
            finally: "Went through the gate.".into(),
        });
    }
    Ok(Scenario {
        rules,
        otherwise: "Understood.".into(),
        ..Scenario::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::scripted_model::Conversation;

    fn told(instruction: &str) -> Answer {
        let script = DriftScript::new(10, 20, &Tools::default()).unwrap();
        script.answer(&ModelRequest {
            conversation: Conversation {
                instruction: Some(instruction.into()),
                ..Conversation::default()
            },
            ..ModelRequest::default()
        })
    }

    #[test]
    fn the_last_prompt_counts_where_earlier_ones_got_no_answer() {
        let answer = told("meet overload\nmeet no-credit");
        assert_eq!(answer, Answer::Error(Failure::no_credit()));
        assert!(matches!(told("meet overload\nnow go on"), Answer::Turn(_)));
    }

    #[test]
    fn each_word_meets_its_own_failure_and_other_words_meet_none() {
        for (word, failure) in failures(10, 20) {
            assert_eq!(
                told(&format!("please meet {word} now")),
                Answer::Error(failure)
            );
        }
        let Answer::Turn(turn) = told("say something") else {
            panic!("no turn");
        };
        assert!(turn.headers.iter().any(|(name, value)| {
            name == "anthropic-ratelimit-unified-5h-utilization" && value == "0.41"
        }));
    }
}
