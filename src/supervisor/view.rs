//! The published part of the state. What only adapters know (usage, ahead and behind) is added by
//! the driver.

use super::Supervisor;
use super::proof::Claimed;
use super::state::AgentState;
use crate::model::attempt::next_number;
use crate::model::view::{AgentView, FleetView, PlanningView, SignalsView, TaskView, UsageView};
use crate::model::{Ending, Timestamp};

impl Supervisor {
    pub fn view(&self, now: Timestamp) -> FleetView {
        let fleet = &self.fleet;
        let phase = match fleet.ending() {
            None => "running",
            Some(Ending::Stop) => "stopping",
            Some(Ending::Drain) => "draining",
            Some(Ending::Detach) => "detaching",
        };
        FleetView {
            generation: 0,
            at: now,
            project: self.policy.project.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: phase.to_owned(),
            branch: self.policy.branch.clone(),
            branch_head: fleet.branch_head.clone(),
            pushed: fleet.branch_head == fleet.merging.pushed || !self.policy.push,
            push_problem: fleet.merging.push_problem.clone(),
            tmux_socket: String::new(),
            task_list_directory: String::new(),
            agents: fleet
                .agents
                .values()
                .map(|agent| self.agent_view(agent))
                .collect(),
            credentials: self.credential_views(now),
            tasks: self.queue.counts,
            merges: fleet.merge_counts(),
            train: self.train_view(),
            planning: PlanningView {
                rounds: fleet.planning.rounds,
                empty_rounds: fleet.planning.empty_rounds,
                next_round_at: self.planning_deadline().map(|(at, _)| at),
                resting: fleet.planning.resting,
            },
            unknown_hooks: fleet
                .unknown_hooks
                .iter()
                .map(|(k, n)| (k.clone(), *n))
                .collect(),
            disk: None,
            gate: None,
            notices: fleet.notices.clone(),
        }
    }

    pub(super) fn agent_view(&self, agent: &AgentState) -> AgentView {
        let task = agent.held.as_ref().map(|held| TaskView {
            id: held.task.clone(),
            title: held.title.clone(),
            status: if held.delivered {
                "working"
            } else {
                "delivering"
            }
            .to_owned(),
            attempts: next_number(&held.past),
            since: held.since,
        });
        AgentView {
            id: agent.id.clone(),
            role: agent.role,
            incarnation: agent.incarnation,
            state: agent.phase.word().to_owned(),
            reason: agent.reason.clone(),
            since: agent.since,
            until: agent.until(),
            session: Some(agent.session.clone()),
            container: agent.container.clone(),
            credential: agent.credential.clone(),
            model: None,
            task,
            unproven: agent.claims.iter().map(Claimed::view).collect(),
            queued: self.queue.waiting.get(&agent.id).copied().unwrap_or(0),
            tasks_done: agent.tasks_done,
            branch: agent.id.to_string(),
            head: agent.head.clone(),
            ahead: None,
            behind: None,
            turns: agent.turns,
            restarts: agent.restarts,
            usage: UsageView::default(),
            task_list: agent
                .id
                .worker_number()
                .map(|n| format!("WORKER_{n}_TASK_LIST.md")),
            last_hook: agent.last_hook.clone(),
            last_hook_at: agent.last_hook_at,
            signals: SignalsView {
                claude_version: agent.signals.version.clone(),
                hooks: agent.signals.hooks.word().to_owned(),
                screen: agent.signals.screen.word().to_owned(),
                session_file: agent.signals.note.word().to_owned(),
            },
            kept: agent.rescuing.view(),
        }
    }
}
