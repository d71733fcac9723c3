//! Answers "why is this agent in its state?": after a fresh look, from the supervisor's own words,
//! with the history the journal kept.

use super::{Driver, Input};
use crate::control::ControlError;
use crate::daemon::handle::Question;
use crate::daemon::record;

impl Driver {
    pub(super) fn take_question(&self, question: Question) {
        let agent = self.supervisor.fleet().agents.get(&question.agent);
        if let Some(agent) = agent
            && !question.looked
            && agent.container.is_some()
            && self.stalled_until.is_none()
        {
            let (id, life) = (agent.id.clone(), agent.incarnation);
            let question = Question {
                looked: true,
                ..question
            };
            self.effects
                .examine(id, life, Some(Input::Explain(question)));
            return;
        }
        let Question {
            agent,
            history,
            reply,
            ..
        } = question;
        let Some(mut explanation) = self.supervisor.explain(self.now(), &agent) else {
            let _gone = reply.send(Ok(None));
            return;
        };
        let state = self.state.clone();
        // Reading the journal holds nobody up.
        tokio::spawn(async move {
            let answer = match state.states(&agent, history).await {
                Ok(entries) => {
                    explanation.history = record::read_history(&entries);
                    Ok(Some(explanation))
                }
                Err(error) => {
                    tracing::warn!(%agent, error = error.chain(), "its history cannot be read");
                    Err(ControlError::NotStored(error.chain()))
                }
            };
            let _gone = reply.send(answer);
        });
    }
}
