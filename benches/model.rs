//! The scripted model of a benchmark: answers at once and keeps the time of every request.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use orchestrator::testing::scripted_model::{
    Answer, Block, Condition, Failure, ModelRequest, Pattern, Rule, Scenario, Script, Step,
};

/// Nothing here takes so long unless it never happens.
pub const LONG: Duration = Duration::from_secs(120);

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: SystemTime,
    /// The last six characters of the credential.
    pub credential: String,
    /// The answer ends the turn: what follows is Claude Code's Stop hook.
    pub ends_turn: bool,
    /// The answer was an error.
    pub refused: bool,
}

/// Shared by the server, which plays it, and the benchmarks, which read it.
#[derive(Clone)]
pub struct Stopwatch {
    shared: Arc<Shared>,
}

struct Shared {
    scenario: Scenario,
    asked: Mutex<Vec<Asked>>,
    came: Condvar,
    /// Credentials (their last six characters) whose quota is spent.
    spent: Mutex<Vec<String>>,
}

/// Says that it waits, and waits until the other file is there.
const WAIT_AT_GATE: &str =
    "touch .gate-{{gate}}.waiting; until [ -e .gate-{{gate}}.open ]; do sleep 0.1; done; echo open";
/// One commit, as small as commits are, in a turn that takes a few seconds: what becomes of the commit
/// of the turn before must be over when this one ends, as it is when turns take minutes.
const COMMIT: &str = "sleep 3; echo {{word}} >> work.txt && git add work.txt && \
     git commit -q -m {{word}} && git log -1 --format=%s";

impl Stopwatch {
    /// A text with `wait GATE` waits in the middle of its turn until the file `.gate-GATE.open` is in
    /// the checkout, `commit WORD` makes a commit; anything else is answered in a word.
    pub fn new() -> Result<Self> {
        let rule = |name: &str, pattern: &str, command: &str| -> Result<Rule> {
            Ok(Rule {
                name: name.into(),
                when: vec![Condition::Text(Pattern::new(pattern)?)],
                steps: vec![Step::bash(command, name)],
                finally: "Done.".into(),
            })
        };
        let scenario = Scenario {
            rules: vec![
                rule("wait", "wait {gate:word}", WAIT_AT_GATE)?,
                rule("commit", "commit {word:word}", COMMIT)?,
            ],
            ..Scenario::default()
        };
        Ok(Self {
            shared: Arc::new(Shared {
                scenario,
                asked: Mutex::default(),
                came: Condvar::new(),
                spent: Mutex::default(),
            }),
        })
    }

    pub fn script(&self) -> Arc<dyn Script> {
        Arc::new(self.clone())
    }

    /// From now on this credential (its last six characters) gets a usage limit; `None`: none does.
    pub fn spend(&self, credential: Option<&str>) {
        let mut spent = self
            .shared
            .spent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *spent = credential.map(str::to_owned).into_iter().collect();
    }

    /// How many requests there were; what comes later has a higher place.
    pub fn place(&self) -> usize {
        self.lock().len()
    }

    /// The requests since a place that are as wanted.
    pub fn since(&self, place: usize, wanted: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        let asked = self.lock();
        let later = asked.iter().skip(place);
        later.filter(|asked| wanted(asked)).cloned().collect()
    }

    /// Waits until `count` requests since a place are as wanted.
    pub fn until(
        &self,
        what: &str,
        place: usize,
        count: usize,
        wanted: impl Fn(&Asked) -> bool,
    ) -> Result<Vec<Asked>> {
        let deadline = Instant::now() + LONG;
        let mut asked = self.lock();
        loop {
            let found: Vec<Asked> = asked
                .iter()
                .skip(place)
                .filter(|asked| wanted(asked))
                .cloned()
                .collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<&Asked> = asked.iter().rev().take(3).collect();
                bail!(
                    "never happened: {what} ({} of {count} came; the last requests: {last:?})",
                    found.len()
                );
            }
            asked = self
                .shared
                .came
                .wait_timeout(asked, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_spent(&self, credential: &str) -> bool {
        let spent = self.shared.spent.lock();
        let spent = spent.unwrap_or_else(PoisonError::into_inner);
        spent.iter().any(|end| end == credential)
    }
}

impl Script for Stopwatch {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let at = SystemTime::now();
        let answer = if self.is_spent(&request.credential) {
            Answer::Error(Failure::usage_limit("five_hour", reset()))
        } else {
            self.shared.scenario.answer(request)
        };
        let (ends_turn, refused) = match &answer {
            Answer::Error(_) => (true, true),
            Answer::Turn(turn) => {
                let tool = |block: &Block| matches!(block, Block::ToolUse { .. });
                (!turn.blocks.iter().any(tool), false)
            }
        };
        self.lock().push(Asked {
            at,
            credential: request.credential.clone(),
            ends_turn,
            refused,
        });
        self.shared.came.notify_all();
        answer
    }
}

/// An hour from now, in seconds since the epoch.
fn reset() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX) + 3600
}

/// From one moment to a later one, in milliseconds; 0 if the clock was set back meanwhile.
pub fn millis_between(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64() * 1000.0
}
