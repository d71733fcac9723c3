//! What the scripted model does for the tasks of tests.

use std::sync::{Arc, Mutex};

use orchestrator::testing::scripted_model::{
    Answer, Condition, ModelRequest, Pattern, Rule, Scenario, Script, Step,
};

/// Every instruction in full, once; the model's own records are cut.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Plays a scenario and remembers what it was told.
pub struct Listening {
    pub scenario: Scenario,
    pub heard: Heard,
}

impl Script for Listening {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let conversation = &request.conversation;
        if conversation.results.is_empty() && request.attempt == 0 {
            let told = conversation.instruction.clone().unwrap_or_default();
            self.heard.0.lock().unwrap().push(told);
        }
        self.scenario.answer(request)
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
