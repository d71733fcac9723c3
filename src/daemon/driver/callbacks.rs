//! Hook callbacks: looked up, decided, stored with their answers.
//!
//! Those that wait together are decided one after the other and stored in one transaction, so that a
//! slow disk holds up a burst once and not once for each.

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::Driver;
use crate::claude::{limits, prompt};
use crate::control::ControlError;
use crate::daemon::handle::{Call, Input};
use crate::model::{HookAnswer, HookFact, HookReport, Timestamp};
use crate::store::sqlite::{Changes, JournalEntry};
use crate::supervisor::{Event, HookInput, Supervisor};

/// Callbacks that are stored together; a transaction of the store takes no more either.
const GROUP: usize = 64;

/// The callbacks that wait right behind this one, and the input that came after them.
pub(super) fn gather(
    first: Call,
    inputs: &mut mpsc::Receiver<Input>,
) -> (Vec<Call>, Option<Input>) {
    let mut calls = vec![first];
    while calls.len() < GROUP {
        match inputs.try_recv() {
            Ok(Input::Hook(call)) => calls.push(call),
            Ok(other) => return (calls, Some(other)),
            Err(_) => break,
        }
    }
    (calls, None)
}

impl Driver {
    pub(super) async fn take_hooks(&mut self, calls: Vec<Call>) {
        let known = join_all(
            calls
                .iter()
                .map(|call| self.state.callback(&call.report.callback)),
        )
        .await;
        let mut fresh: Vec<Call> = Vec::with_capacity(calls.len());
        for (call, known) in calls.into_iter().zip(known) {
            let known = match known {
                // The first of two equal ones is not stored yet: then the second is looked up again.
                Ok(None) if is_among(&fresh, &call) => {
                    self.decide_hooks(std::mem::take(&mut fresh)).await;
                    self.state.callback(&call.report.callback).await
                }
                known => known,
            };
            match known {
                Ok(None) => fresh.push(call),
                Ok(Some(known)) => {
                    self.decide_hooks(std::mem::take(&mut fresh)).await;
                    let again = serde_json::from_str(&known).unwrap_or(HookAnswer::LetGo);
                    let noted = self.note_lost_answer(&call.report, &again).await;
                    let _gone = call.answer.send(noted.map(|()| again));
                }
                Err(error) => {
                    let _gone = call
                        .answer
                        .send(Err(ControlError::NotStored(error.chain())));
                }
            }
        }
        self.decide_hooks(fresh).await;
    }

    async fn decide_hooks(&mut self, calls: Vec<Call>) {
        if calls.is_empty() {
            return;
        }
        let now = self.now();
        let mut also = Changes::default();
        let mut reports = Vec::with_capacity(calls.len());
        for call in calls {
            self.note_hook(now, &call, &mut also);
            let jitter = (self.house.entropy.fraction() * 999.0) as u16;
            // Of a spooled one the drain waits, to delete its file.
            self.waiting
                .insert(call.report.callback.clone(), call.answer);
            reports.push((call.report, jitter));
        }
        let decided = self
            .decide(also, |supervisor| {
                let mut actions = Vec::new();
                for (report, jitter) in &reports {
                    let input = HookInput {
                        receipt: is_receipt(supervisor, report),
                        jitter: *jitter,
                        fault: limits::fault_of(report, now),
                        report: report.clone(),
                    };
                    actions.extend(supervisor.observe(now, Event::Hook(input)));
                }
                actions
            })
            .await;
        for (report, _) in reports {
            if decided.is_ok() {
                self.logbook.hook(now, &report);
                if matches!(&report.fact, HookFact::Activity { what } if what == "ConfigChange") {
                    self.effects.settings_were_read(&report.agent);
                }
                if ends_a_turn(&report) {
                    self.effects.count_tokens(&report.agent);
                }
            }
            let answer = match &decided {
                Err(error) => Err(ControlError::NotStored(error.chain())),
                Ok(()) if report.spooled => Ok(HookAnswer::LetGo),
                Ok(()) => continue,
            };
            if let Some(sender) = self.waiting.remove(&report.callback) {
                let _gone = sender.send(answer);
            }
        }
    }

    /// What is stored with the decision on a callback. A spooled one has no answer; it is
    /// remembered all the same, so that a crash before the deletion of its file does not count it
    /// twice.
    fn note_hook(&self, now: Timestamp, call: &Call, also: &mut Changes) {
        let text = call.raw.to_string();
        also.journal.push(JournalEntry {
            seq: 0,
            at: now,
            agent: Some(call.report.agent.clone()),
            kind: "hook".into(),
            json: self.house.redactor.redact(&text).into_owned(),
        });
        if call.report.spooled {
            let json = serde_json::to_string(&HookAnswer::LetGo).unwrap_or_default();
            also.callbacks.push((
                call.report.callback.clone(),
                call.report.agent.clone(),
                json,
            ));
        }
    }

    /// A callback we answered that comes again from the spool: its caller never got the answer.
    /// Stored before the caller may delete its file.
    async fn note_lost_answer(
        &mut self,
        report: &HookReport,
        answer: &HookAnswer,
    ) -> Result<(), ControlError> {
        let (true, HookAnswer::Continue { text, .. }) = (report.spooled, answer) else {
            return Ok(());
        };
        let now = self.now();
        let lost = Event::AnswerLost {
            agent: report.agent.clone(),
            incarnation: report.incarnation.unwrap_or_default(),
            text: text.clone(),
        };
        self.decide(Changes::default(), |supervisor| {
            supervisor.observe(now, lost)
        })
        .await
        .map_err(|error| ControlError::NotStored(error.chain()))
    }
}

fn is_among(calls: &[Call], call: &Call) -> bool {
    let id = &call.report.callback;
    calls.iter().any(|other| other.report.callback == *id)
}

fn ends_a_turn(report: &HookReport) -> bool {
    matches!(
        report.fact,
        HookFact::Stopped { .. } | HookFact::TurnFailed { .. }
    )
}

fn is_receipt(supervisor: &Supervisor, report: &HookReport) -> bool {
    let HookFact::PromptSubmitted {
        text,
        machine: false,
    } = &report.fact
    else {
        return false;
    };
    supervisor
        .awaited_text(&report.agent)
        .is_some_and(|sent| prompt::same_prompt(sent, text))
}
