//! What the outside is shown: the snapshot after each decision, and the line under an agent's prompt.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Driver;
use crate::control::StatusReport;
use crate::model::AgentId;

impl Driver {
    pub(super) fn take_distances(&mut self, distances: Vec<(AgentId, u32, u32)>) {
        self.distances = distances
            .into_iter()
            .map(|(id, ahead, behind)| (id, (ahead, behind)))
            .collect();
    }

    pub(super) fn take_status(&mut self, report: StatusReport, line: oneshot::Sender<String>) {
        let text = self.status_text(&report.agent);
        self.effects.status_line_drawn(&report.agent, self.now());
        if let Some(version) = &report.claude_version {
            tracing::trace!(agent = %report.agent, version, "status line");
        }
        let id = report.agent.clone();
        if let Some(told) = self.windows.told(self.now(), &report) {
            self.inbox.push_back(told);
        }
        if self.usage.told(report.agent, report.usage, report.model) {
            self.effects.count_tokens(&id);
        }
        let _gone = line.send(text);
    }

    /// The line under an agent's prompt.
    fn status_text(&self, id: &AgentId) -> String {
        let Some(agent) = self.supervisor.fleet().agents.get(id) else {
            return format!("orchestrator · {id}");
        };
        match &agent.held {
            Some(held) => format!("orchestrator · {id} · {} · {}", held.task, held.title),
            None => format!("orchestrator · {id} · {}", agent.reason),
        }
    }

    pub(super) fn publish(&mut self) {
        let mut view = self.supervisor.view(self.now());
        view.disk.clone_from(&self.disk);
        view.gate.clone_from(&self.gate);
        view.tmux_socket.clone_from(&self.house.tmux_socket);
        let lists = self.house.paths.agent(&AgentId::manager()).checkout();
        view.task_list_directory = lists.display().to_string();
        for agent in &mut view.agents {
            self.usage.fill(agent);
            if let Some((ahead, behind)) = self.distances.get(&agent.id) {
                agent.ahead = Some(*ahead);
                agent.behind = Some(*behind);
            }
        }
        self.publisher.send_if_modified(|current| {
            view.generation = current.generation;
            let moment = view.at;
            view.at = current.at;
            if **current == view {
                return false;
            }
            view.generation = self.generation + 1;
            view.at = moment;
            *current = Arc::new(view);
            true
        });
        self.generation = self.publisher.borrow().generation;
    }
}
