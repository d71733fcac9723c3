//! The remote: fetching, pushing, and trying again.

use std::time::Duration;

use super::Supervisor;
use super::action::Action;
use super::input::{PushOutcome, RemoteOutcome};
use super::lifecycle::denied;
use super::proof::{Trouble, remote};
use crate::model::{Reply, Timestamp};

const PUSH_AGAIN: Duration = Duration::from_secs(30);
/// A remote that says no will say no again until somebody changes something there.
pub(super) const PUSH_AGAIN_DENIED: Duration = Duration::from_secs(300);

impl Supervisor {
    pub(super) fn want_push(&mut self, after: Duration) {
        if !self.policy.push {
            return;
        }
        let merging = &mut self.fleet.merging;
        if merging.push_in_flight {
            merging.push_wanted = true;
            return;
        }
        merging.push_in_flight = true;
        merging.push_wanted = false;
        merging.push_retry_at = None;
        self.act(Action::Push { after });
    }

    pub(super) fn on_push_finished(&mut self, now: Timestamp, outcome: PushOutcome) {
        self.fleet.merging.push_in_flight = false;
        match outcome {
            PushOutcome::Pushed { head } => {
                self.fleet.merging.pushed = Some(head);
                self.fleet.merging.push_problem = None;
            }
            PushOutcome::Moved => {
                self.fleet.merging.push_wanted = true;
                self.fetch_now();
                return;
            }
            PushOutcome::Denied { reason } => self.push_failed(now, reason, PUSH_AGAIN_DENIED),
            PushOutcome::Away { reason } => self.push_failed(now, reason, PUSH_AGAIN),
        }
        if self.fleet.merging.push_wanted {
            self.want_push(Duration::ZERO);
        }
    }

    fn push_failed(&mut self, now: Timestamp, reason: String, again: Duration) {
        let text = format!("the branch could not be pushed: {reason}");
        let hint = format!(
            "merged work is safe in the store; trying again in {} s",
            again.as_secs()
        );
        self.notice(now, None, &text, Some(hint));
        self.fleet.merging.push_problem = Some(reason);
        self.fleet.merging.push_wanted = false;
        self.fleet.merging.push_retry_at = Some(now + again);
    }

    pub(super) fn request_fetch(&mut self, _now: Timestamp) -> Reply {
        if self.fleet.ending().is_some() {
            return denied("ENDING", "the fleet is ending".into(), None);
        }
        if self.fleet.merging.fetch_in_flight {
            return Reply::AlreadySo;
        }
        self.fetch_now();
        Reply::Accepted
    }

    fn fetch_now(&mut self) {
        if !self.fleet.merging.fetch_in_flight {
            self.fleet.merging.fetch_in_flight = true;
            self.act(Action::FetchRemote);
        }
    }

    pub(super) fn on_remote_fetched(&mut self, now: Timestamp, outcome: RemoteOutcome) {
        self.fleet.merging.fetch_in_flight = false;
        self.fleet.merging.fetch_at = Some(now + self.policy.fetch_interval);
        match outcome {
            RemoteOutcome::Integrated { head, moved } => {
                if moved {
                    self.wake_planning();
                }
                if self.fleet.branch_head.as_ref() != Some(&head) {
                    self.branch_moved(head, None);
                }
                self.count_resolved(&remote());
                let merging = &self.fleet.merging;
                // A push that found the remote away is made up for as soon as it is back.
                let behind = merging.pushed != self.fleet.branch_head;
                if merging.push_wanted || (behind && merging.push_retry_at.is_none()) {
                    self.want_push(Duration::ZERO);
                }
            }
            RemoteOutcome::Conflict {
                remote: commit,
                files,
            } => {
                if !self.fleet.merging.conflicts.contains_key(&remote()) {
                    self.conflicted(
                        now,
                        &remote(),
                        &commit,
                        "commits pushed to the remote",
                        &Trouble::Conflict(&files),
                        Vec::new(),
                    );
                }
            }
            RemoteOutcome::Away { reason } => {
                self.fleet.merging.push_wanted = false;
                let text = format!("the remote could not be fetched: {reason}");
                self.notice(now, None, &text, Some("trying again; work goes on".into()));
            }
        }
    }

    pub(super) fn expire_remote(&mut self, now: Timestamp) {
        if self.fleet.merging.fetch_at.is_some_and(|at| at <= now) && self.fleet.ending().is_none()
        {
            self.fleet.merging.fetch_at = Some(now + self.policy.fetch_interval);
            if !self.fleet.merging.train.wants_peace() {
                self.fetch_now();
            }
        }
        if self.fleet.merging.push_retry_at.is_some_and(|at| at <= now) {
            self.fleet.merging.push_retry_at = None;
            self.want_push(Duration::ZERO);
        }
    }
}
