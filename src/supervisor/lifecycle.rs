//! The life of one agent: launch, exit, restart, give up.

use std::time::Duration;

use super::action::{Action, ClaimFor};
use super::canary::Signals;
use super::input::Again;
use super::screens::LOOK_AT_DIALOG;
use super::state::{AfterStop, AgentState, FinishAs, Finishing, Fleet, Held, Phase};
use super::{Supervisor, texts, typed, with_jitter};
use crate::model::{AgentId, AttemptEnd, Incarnation, Reply, TaskId, Timestamp};

/// What `restart.perDay` counts over.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How a life ended, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exit {
    pub(super) code: Option<i64>,
    pub(super) out_of_memory: bool,
    /// It ended while no supervisor ran: perhaps with the whole machine.
    pub(super) unseen: bool,
}

impl Supervisor {
    pub(super) fn stop_life(&mut self, id: &AgentId, incarnation: Incarnation) {
        let grace = self.policy.stop_grace;
        self.act(Action::StopContainer {
            agent: id.clone(),
            incarnation,
            grace,
        });
    }

    pub(super) fn launch_next(&mut self, now: Timestamp, id: &AgentId, reason: &str) {
        let Some(agent) = self.fleet.agents.get(id) else {
            return;
        };
        let incarnation = agent.incarnation.next();
        self.launch(now, id, incarnation, reason);
    }

    /// The next life, or the same one where it is not known to have ended.
    fn relaunch(&mut self, now: Timestamp, id: &AgentId, reason: &str) {
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let same_life = matches!(
            agent.phase,
            Phase::Backoff {
                same_life: true,
                ..
            }
        );
        let mut incarnation = agent.incarnation;
        if !same_life {
            agent.restarts += 1;
            incarnation = incarnation.next();
        }
        self.launch(now, id, incarnation, reason);
    }

    pub(super) fn launch(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        reason: &str,
    ) {
        self.rescue_before_launch(now, id);
        self.lend_for_launch(now, id);
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.incarnation = incarnation;
        agent.container = None;
        agent.enter(now, Phase::Launching, reason);
        agent.missing = false;
        agent.free_looks = 0;
        agent.leaving = None;
        agent.signals = Signals::of_a_life(now);
        if let Some(held) = &mut agent.held
            && (held.delivered || held.cut_off.take().is_some())
        {
            held.text = texts::again(&held.text);
            held.interrupted = true;
            held.delivered = false;
        }
        let launch = Action::Launch {
            agent: id.clone(),
            incarnation,
            session: agent.session.clone(),
            resume: agent.conversed,
            go_on: agent.held.as_ref().is_some_and(Held::goes_on),
        };
        self.act(launch);
        self.act(Action::EnsurePane { agent: id.clone() });
        self.tell_attempts(id);
    }

    /// The agent if the event is of its present life; counts the late ones.
    pub(super) fn is_current(&mut self, id: &AgentId, incarnation: Incarnation) -> bool {
        let current = self
            .fleet
            .agents
            .get(id)
            .is_some_and(|a| a.incarnation == incarnation);
        if !current {
            self.fleet.late_events += 1;
        }
        current
    }

    pub(super) fn on_launched(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        container: String,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let until = now + self.policy.start_deadline;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        agent.evidence.born(now, &container);
        agent.container = Some(container);
        if agent.phase == Phase::Launching {
            agent.enter(
                now,
                Phase::Starting {
                    until,
                    greeted: false,
                    looks: 0,
                    // A dialog may come before the session; then there is no hook to wait for.
                    look_at: now + LOOK_AT_DIALOG,
                },
                "container runs; waiting for Claude Code's SessionStart hook",
            );
        } else if matches!(
            agent.phase,
            Phase::Stopping { .. } | Phase::Absent | Phase::Failed
        ) {
            self.stop_life(id, incarnation);
        }
    }

    pub(super) fn on_launch_failed(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        reason: &str,
        hint: Option<String>,
        again: Again,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let phase = &self.fleet.agents[id].phase;
        if !matches!(
            phase,
            Phase::Launching | Phase::Starting { .. } | Phase::Stopping { .. }
        ) {
            return;
        }
        let stopping = matches!(phase, Phase::Stopping { .. });
        let no_engine = again == Again::WithTheEngine || self.engine_is_away();
        if no_engine && !stopping && again != Again::Never {
            self.wait_for_engine(now, id);
            return;
        }
        self.notice(
            now,
            Some(id),
            &format!("could not be launched: {reason}"),
            hint,
        );
        if stopping {
            self.on_exited(now, id, incarnation, Exit::default());
        } else if again != Again::Never {
            let cause = format!("could not be launched: {reason}");
            self.crashed(now, id, AttemptEnd::Interrupted, &cause);
            // Its container may run all the same: only the same life again is no second copy.
            if let Some(agent) = self.fleet.agents.get_mut(id)
                && let Phase::Backoff { same_life, .. } = &mut agent.phase
            {
                *same_life = true;
            }
        } else if let Some(agent) = self.fleet.agents.get_mut(id) {
            agent.enter(
                now,
                Phase::Failed,
                format!("could not be launched: {reason}"),
            );
        }
    }

    pub(super) fn on_exited(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        exit: Exit,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        if !agent.phase.wants_container() && agent.phase != Phase::Launching {
            return;
        }
        agent.container = None;
        agent.missing = false;
        let claiming = match &agent.phase {
            Phase::Claiming { task, .. } => Some(task.clone()),
            _ => None,
        };
        let cause = exit_cause(exit, &self.policy.memory);
        agent.evidence.died(now, &cause);
        self.after_exit(now, id, exit, &cause);
        // The queue may have given it the task already: ask, so that it is in nobody's hand lost.
        if let Some(task) = claiming {
            self.act(Action::Claim {
                agent: id.clone(),
                incarnation,
                task,
                purpose: ClaimFor::Paste,
            });
        }
    }

    /// What follows from the end of a life. Only what the agent did itself counts against it, and
    /// against its task.
    fn after_exit(&mut self, now: Timestamp, id: &AgentId, exit: Exit, cause: &str) {
        let ending = self.fleet.ending().is_some();
        let with_engine = self.engine_is_away();
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        let phase = agent.phase.clone();
        // Why it was stopped says more than how it ended.
        let why = agent.reason.clone();
        let typed = typed::was_typed(agent, exit.code);
        let interrupted = |this: &mut Self, text: &str| {
            this.attempt_ended(now, id, AttemptEnd::Interrupted, text)
        };
        match phase {
            _ if ending => {
                interrupted(self, "the fleet ended");
                let stopped = matches!(phase, Phase::Stopping { .. });
                let reason = if stopped {
                    "stopped".to_owned()
                } else {
                    format!("{cause} while the fleet ends")
                };
                if let Some(agent) = self.fleet.agents.get_mut(id) {
                    agent.enter(now, Phase::Absent, reason);
                }
            }
            // A stop that outlived its daemon: whoever started the next one wants the agent.
            Phase::Stopping {
                then: AfterStop::Launch | AfterStop::Stay,
            } => {
                interrupted(self, "it was restarted as asked");
                if let Some(agent) = self.fleet.agents.get_mut(id) {
                    agent.restarts += 1;
                }
                self.launch_next(now, id, "restarting as asked");
            }
            _ if with_engine => {
                interrupted(self, "it ended with the container engine");
                self.ended_with_engine(now, id, cause);
            }
            Phase::Stopping {
                then: AfterStop::Crash,
            } => self.crashed(now, id, AttemptEnd::Crashed, &why),
            Phase::Stopping {
                then: AfterStop::Hung,
            } => self.crashed(now, id, AttemptEnd::Hung, &why),
            _ if typed => {
                interrupted(self, "a person ended it in its pane");
                self.left_by_person(now, id);
            }
            _ if exit.out_of_memory => {
                self.crashed(now, id, AttemptEnd::OutOfMemory, cause);
                self.ran_out_of_memory(now, id);
            }
            _ if exit.unseen => {
                interrupted(self, "it ended while no supervisor ran");
                self.crashed(now, id, AttemptEnd::Interrupted, cause);
            }
            _ => self.crashed(now, id, AttemptEnd::Crashed, cause),
        }
    }

    /// Backoff with jitter, or the end of it.
    fn crashed(&mut self, now: Timestamp, id: &AgentId, end: AttemptEnd, cause: &str) {
        let policy = self.policy.clone();
        if end.counts() {
            self.attempt_ended(now, id, end, cause);
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        // A task that fails again and again is tried again ever later, however long each try lasts.
        let failures = agent.held.as_ref().map_or(0, |held| held.failures);
        agent.crashes.retain(|at| now.since(*at) <= DAY);
        agent.crashes.push(now);
        let within = |time: Duration| {
            let recent = agent.crashes.iter().filter(|at| now.since(**at) <= time);
            u32::try_from(recent.count()).unwrap_or(u32::MAX)
        };
        let (crashes, today) = (within(policy.restart_window), within(DAY));
        let given_up = if crashes > policy.restart_burst {
            let seconds = policy.restart_window.as_secs();
            Some(format!("{crashes} failures within {seconds} s"))
        } else {
            (today > policy.restarts_per_day).then(|| format!("{today} failures within 24 hours"))
        };
        if let Some(count) = given_up {
            let text = format!("given up after {count}; the last: {cause}");
            agent.enter(now, Phase::Failed, text.clone());
            let hint = format!("see `orchestrator logs {id}`, then `orchestrator restart {id}`");
            self.notice(now, Some(id), &text, Some(hint));
            return;
        }
        let delay = policy.backoff_after(crashes.max(failures));
        let delay = with_jitter(delay, jitter_of(agent));
        let when = if delay.is_zero() {
            "now".to_owned()
        } else {
            format!("in {:.0} s", delay.as_secs_f64())
        };
        let reason = format!(
            "{cause}; restart {crashes} of {} {when}",
            policy.restart_burst
        );
        let until = now + delay;
        let same_life = false;
        agent.enter(now, Phase::Backoff { until, same_life }, reason);
    }

    pub(super) fn expire_agents(&mut self, now: Timestamp) {
        let due: Vec<(AgentId, Phase)> = self
            .fleet
            .agents
            .values()
            .filter(|agent| agent.phase.deadline().is_some_and(|(at, _)| at <= now))
            .map(|agent| (agent.id.clone(), agent.phase.clone()))
            .collect();
        for (id, phase) in due {
            match phase {
                Phase::Backoff { .. } => self.relaunch(now, &id, "restarting"),
                Phase::Starting { until, .. } if now < until => self.look_at_start(now, &id),
                Phase::Starting { greeted, .. } => self.start_is_late(now, &id, greeted),
                Phase::Waiting { .. } => {
                    let Some(agent) = self.fleet.agents.get_mut(&id) else {
                        continue;
                    };
                    agent.phase = Phase::Waiting {
                        until: now + LOOK_AT_DIALOG,
                    };
                    let incarnation = agent.incarnation;
                    self.act(Action::CheckScreen {
                        agent: id,
                        incarnation,
                        after: Duration::ZERO,
                    });
                }
                Phase::Limited { .. } => self.go_on_after_limit(now, &id),
                Phase::Delivering { attempt, .. } => self.receipt_is_late(now, &id, attempt),
                Phase::Absent
                | Phase::Launching
                | Phase::Idle
                | Phase::Claiming { .. }
                | Phase::Working
                | Phase::Stopping { .. }
                | Phase::Failed => {}
            }
        }
    }

    fn start_is_late(&mut self, now: Timestamp, id: &AgentId, greeted: bool) {
        if greeted {
            self.at_prompt(now, id);
            return;
        }
        let away = self.engine_is_away();
        let deadline = now + self.policy.start_deadline;
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return;
        };
        // It may have ended with the engine; who knows when that is back.
        if away && let Phase::Starting { until, .. } = &mut agent.phase {
            *until = deadline;
            return;
        }
        let incarnation = agent.incarnation;
        agent.enter(
            now,
            Phase::Stopping {
                then: AfterStop::Crash,
            },
            format!(
                "no SessionStart hook within {} s",
                self.policy.start_deadline.as_secs()
            ),
        );
        self.stop_life(id, incarnation);
    }

    pub(super) fn request_restart(&mut self, now: Timestamp, id: &AgentId) -> Reply {
        if let Some(ending) = self.fleet.ending() {
            return denied(
                "ENDING",
                format!("the fleet is ending ({ending:?})").to_lowercase(),
                None,
            );
        }
        let Some(agent) = self.fleet.agents.get_mut(id) else {
            return unknown_agent(&self.fleet, id);
        };
        agent.crashes.clear();
        match agent.phase {
            Phase::Launching
            | Phase::Stopping {
                then: AfterStop::Launch,
            } => Reply::AlreadySo,
            Phase::Absent | Phase::Failed | Phase::Backoff { .. } => {
                self.relaunch(now, id, "restarting as asked");
                Reply::Accepted
            }
            Phase::Starting { .. }
            | Phase::Idle
            | Phase::Claiming { .. }
            | Phase::Delivering { .. }
            | Phase::Working
            | Phase::Limited { .. }
            | Phase::Waiting { .. }
            | Phase::Stopping { .. } => {
                let incarnation = agent.incarnation;
                agent.enter(
                    now,
                    Phase::Stopping {
                        then: AfterStop::Launch,
                    },
                    "restart was asked for",
                );
                self.stop_life(id, incarnation);
                Reply::Accepted
            }
        }
    }
}

/// A fraction that differs by agent and by life and is the same whenever it is asked for, so that
/// agents that died together do not all come back at the same moment.
pub(super) fn jitter_of(agent: &AgentState) -> f64 {
    const FNV_PRIME: u32 = 16_777_619;
    let seed = 0x811c_9dc5_u32 ^ agent.incarnation.0 as u32;
    let mixed = agent.id.as_str().bytes().fold(seed, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME)
    });
    f64::from(mixed) / f64::from(u32::MAX)
}

fn exit_cause(exit: Exit, limit: &str) -> String {
    match (exit.code, exit.out_of_memory) {
        (_, true) => format!("killed for lack of memory (`container.memory` is {limit})"),
        (Some(0), _) => "Claude Code ended by itself (exit 0)".into(),
        (Some(137), _) => "killed (exit 137)".into(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, _) => "its container is gone".into(),
    }
}

pub(super) fn finish_action(id: &AgentId, finishing: &Finishing) -> Action {
    let (agent, task, fence) = (id.clone(), finishing.task.clone(), finishing.fence);
    let (text, past) = (finishing.text.clone(), finishing.past.clone());
    match finishing.outcome {
        FinishAs::Done => Action::Complete {
            agent,
            task,
            fence,
            result: text,
            receipt: finishing.receipt.clone(),
            past,
        },
        FinishAs::Retry | FinishAs::Failed => Action::Release {
            agent,
            task,
            fence,
            reason: text,
            retry: finishing.outcome == FinishAs::Retry,
            past,
        },
    }
}

pub(super) fn unknown_agent(fleet: &Fleet, id: &AgentId) -> Reply {
    let known: Vec<&str> = fleet.agents.keys().map(AgentId::as_str).collect();
    denied(
        "UNKNOWN_AGENT",
        format!("there is no agent `{id}`"),
        Some(format!("agents: {}", known.join(", "))),
    )
}

pub(super) fn unknown_task(task: &TaskId) -> Reply {
    denied(
        "UNKNOWN_TASK",
        format!("there is no task `{task}`"),
        Some("`orchestrator task list` lists them".into()),
    )
}

pub(super) fn denied(code: &str, reason: String, hint: Option<String>) -> Reply {
    Reply::Denied {
        code: code.into(),
        reason,
        hint,
    }
}
