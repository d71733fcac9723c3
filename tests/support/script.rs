//! What the scripted model does for the tasks of tests.

use std::sync::{Arc, Mutex};

use orchestrator::model::Timestamp;
use orchestrator::testing::scripted_model::{
    Answer, Condition, Failure, ModelRequest, Pattern, Rule, Scenario, Script, Step,
};

/// Every instruction in full, once; the model's own records are cut.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// What the provider does with a credential, by its last characters.
#[derive(Clone)]
struct Treatment {
    credential: String,
    /// Instead of an answer, until this time.
    failure: Option<(Failure, Timestamp)>,
    /// With every answer.
    headers: Vec<(String, String)>,
}

/// Limits and refusals, which tests change while the fleet works.
#[derive(Clone, Default)]
pub struct Provider(Arc<Mutex<Vec<Treatment>>>);

impl Provider {
    /// From now on, until `until`.
    pub fn fails(&self, credential: &str, failure: Failure, until: Timestamp) {
        self.0.lock().unwrap().push(Treatment {
            credential: credential.to_owned(),
            failure: Some((failure, until)),
            headers: Vec::new(),
        });
    }

    /// Every answer tells so much of the 5-hour window as used.
    pub fn used(&self, credential: &str, part: &str, reset: Timestamp) {
        let header =
            |name: &str, value: String| (format!("anthropic-ratelimit-unified-{name}"), value);
        self.0.lock().unwrap().push(Treatment {
            credential: credential.to_owned(),
            failure: None,
            headers: vec![
                header("status", "allowed_warning".into()),
                header("5h-utilization", part.into()),
                header("5h-reset", (reset.0 / 1000).to_string()),
            ],
        });
    }

    fn treat(&self, request: &ModelRequest, answer: Answer) -> Answer {
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        let all = self.0.lock().unwrap().clone();
        let mut answer = answer;
        for one in all {
            if !request.credential.ends_with(&one.credential) {
                continue;
            }
            match one.failure {
                Some((failure, until)) if now < until => return Answer::Error(failure),
                _ => {}
            }
            if let Answer::Turn(turn) = &mut answer {
                turn.headers.extend(one.headers);
            }
        }
        answer
    }
}

/// Plays a scenario and remembers what it was told.
pub struct Listening {
    pub scenario: Scenario,
    pub provider: Provider,
    pub heard: Heard,
}

impl Script for Listening {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let conversation = &request.conversation;
        if conversation.results.is_empty() && request.attempt == 0 {
            let told = conversation.instruction.clone().unwrap_or_default();
            self.heard.0.lock().unwrap().push(told);
        }
        self.provider.treat(request, self.scenario.answer(request))
    }
}

/// Appends a line to a file of the task's own and commits it: a second run would show.
const WORK: &str = "id={{id}}; id=${id%:}; mkdir -p work && echo ran >> \"work/$id.txt\" && \
     git add work && git commit -q -m \"work $id\" && git log -1 --format=%s";

/// Says that it waits, and waits until the test makes the other file.
const WAIT_AT_GATE: &str =
    "touch .gate-{{gate}}.waiting; until [ -e .gate-{{gate}}.open ]; do sleep 0.1; done; echo open";

/// Every task is worked off with one commit. A task that says `gate NAME` waits in the middle of
/// its turn until [`super::Stage::open_gate`].
pub fn worker_script() -> Scenario {
    let task = || Condition::Text(Pattern::new("Task {id:word}").unwrap());
    let gate = Condition::Text(Pattern::new("gate {gate:word}").unwrap());
    Scenario {
        rules: vec![
            Rule {
                name: "gated".into(),
                when: vec![task(), gate],
                steps: vec![
                    Step::bash(WAIT_AT_GATE, "Wait at the gate"),
                    Step::bash(WORK, "Do the work"),
                ],
                finally: "Went through the gate and did it.".into(),
            },
            Rule {
                name: "work".into(),
                when: vec![task()],
                steps: vec![Step::bash(WORK, "Do the work")],
                finally: "Did it.".into(),
            },
        ],
        ..Scenario::default()
    }
}
