//! What a test tells the fake, and asks it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Call, FakeRuntime};
use crate::model::Timestamp;
use crate::ports::{
    ContainerSpec, ExecOutput, ExecSpec, JobEnd, PortError, PortResult, RuntimeEventKind,
};

impl FakeRuntime {
    /// Calls `script` at each start, after the container counts as running.
    pub fn on_start(&self, script: impl Fn(&ContainerSpec) + Send + Sync + 'static) {
        self.state().on_start = Some(Arc::new(script));
    }

    /// Asks `script` before each `exec` (by container name) and `run_once` (by agent); `None`
    /// runs the command after all.
    pub fn on_exec(
        &self,
        script: impl Fn(&str, &ExecSpec) -> Option<PortResult<ExecOutput>> + Send + Sync + 'static,
    ) {
        self.state().on_exec = Some(Arc::new(script));
    }

    /// Asks `script` before each `run_job` for what it prints and how it ends; `None` runs the
    /// command after all.
    pub fn on_job(
        &self,
        script: impl Fn(&ContainerSpec) -> Option<PortResult<(Vec<u8>, JobEnd)>> + Send + Sync + 'static,
    ) {
        self.state().on_job = Some(Arc::new(script));
    }

    /// The main process ends with `exit_code`, as in a crash. False when it was not running.
    pub fn kill(&self, name: &str, exit_code: i64) -> bool {
        self.end(name, exit_code, false)
    }

    /// Something in the container is killed for lack of memory; `fatal`: its main process.
    pub fn run_out_of_memory(&self, name: &str, fatal: bool) -> bool {
        let told = self.tell(name, RuntimeEventKind::OutOfMemory);
        if fatal {
            self.end(name, 137, true)
        } else {
            told
        }
    }

    /// While unreachable every call fails as `Transient`, and event streams have ended. What
    /// happens meanwhile is only seen later, by `list`.
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.send_replace(reachable);
    }

    /// The next `start` fails with this and does nothing.
    pub fn fail_next_start(&self, error: PortError) {
        self.state().failures.push_back(error);
    }

    /// The next `start` has its effect, but the answer is lost on the way.
    pub fn lose_next_answer(&self) {
        self.state().lost_answers += 1;
    }

    /// The time events carry from now on; without it, the system's.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = Some(now);
    }

    /// Everything asked so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The specification a container was made from.
    pub fn spec(&self, name: &str) -> Option<ContainerSpec> {
        self.state()
            .containers
            .get(name)
            .map(|container| container.spec.clone())
    }

    /// Prints on a container's terminal. False when there is none.
    pub fn print(&self, name: &str, text: &str) -> bool {
        let terminal = self
            .state()
            .containers
            .get(name)
            .map(|c| c.terminal.clone());
        terminal.is_some_and(|terminal| {
            terminal.print(Bytes::copy_from_slice(text.as_bytes()));
            true
        })
    }

    /// What was typed into a container's terminal so far.
    pub fn typed(&self, name: &str) -> Vec<u8> {
        let terminal = self
            .state()
            .containers
            .get(name)
            .map(|c| c.terminal.clone());
        terminal
            .map(|terminal| terminal.typed())
            .unwrap_or_default()
    }

    /// Columns and rows as last set.
    pub fn size(&self, name: &str) -> Option<(u16, u16)> {
        self.state().containers.get(name)?.size
    }
}
