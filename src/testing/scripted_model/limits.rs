//! Credentials at their limit, put over any script while it plays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answer::{Answer, Failure};
use super::request::ModelRequest;
use super::server::Script;
use crate::model::Timestamp;

/// A script whose credentials can be spent. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Limits {
    script: Arc<dyn Script>,
    /// Until when, by the credential's last six characters.
    spent: Arc<Mutex<BTreeMap<String, Timestamp>>>,
}

impl Limits {
    pub fn over(script: Arc<dyn Script>) -> Self {
        Self {
            script,
            spent: Arc::default(),
        }
    }

    /// From now on the 5-hour limit of the credential that ends in these six characters is reached,
    /// until `reset`.
    pub fn spend(&self, credential: &str, reset: Timestamp) {
        self.lock().insert(credential.to_owned(), reset);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        // A map of plain values: a panic elsewhere leaves nothing half done in it.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script for Limits {
    fn answer(&self, request: &ModelRequest) -> Answer {
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        match self.lock().get(&request.credential) {
            Some(reset) if now < *reset => {
                Answer::Error(Failure::usage_limit("five_hour", reset.0 / 1000))
            }
            _ => self.script.answer(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::scripted_model::Scenario;

    #[test]
    fn only_the_credential_that_is_spent_is_refused_and_only_until_its_reset() {
        let limits = Limits::over(Scenario::default().script());
        let answer = |credential: &str| {
            limits.answer(&ModelRequest {
                credential: credential.to_owned(),
                ..ModelRequest::default()
            })
        };
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        limits.spend("aaaaaa", now + Duration::from_secs(3600));
        assert!(matches!(answer("aaaaaa"), Answer::Error(failure) if failure.status == 429));
        assert!(matches!(answer("bbbbbb"), Answer::Turn(_)));
        limits.spend("aaaaaa", now);
        assert!(matches!(answer("aaaaaa"), Answer::Turn(_)));
    }
}
