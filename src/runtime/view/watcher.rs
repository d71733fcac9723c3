//! The engine's events about one agent, as hints that shorten a wait. Losing them costs time only.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{sleep, timeout};

use super::ViewOptions;
use crate::model::{AgentId, Incarnation, ProjectId};
use crate::ports::{PortResult, Runtime, RuntimeEvent, RuntimeEventKind};

/// How long the engine may take to open the stream.
const DEADLINE: Duration = Duration::from_secs(15);

/// After a container's death: time for the last of its output to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) struct Watcher {
    runtime: Arc<dyn Runtime>,
    project: ProjectId,
    agent: AgentId,
    stream: Option<BoxStream<'static, PortResult<RuntimeEvent>>>,
}

impl Watcher {
    pub(super) fn new(runtime: Arc<dyn Runtime>, options: &ViewOptions) -> Self {
        Self {
            runtime,
            project: options.project.clone(),
            agent: options.agent.clone(),
            stream: None,
        }
    }

    /// Listens, if it does not yet and the engine is there. Before a look, so that what happens
    /// after the look is heard.
    pub(super) async fn listen(&mut self) {
        if self.stream.is_none() {
            let opening = self.runtime.events(&self.project, None);
            self.stream = timeout(DEADLINE, opening).await.ok().and_then(Result::ok);
        }
    }

    /// The next start of any life of the agent; never, when nothing can be heard.
    pub(super) async fn started(&mut self) {
        loop {
            if let RuntimeEventKind::Started = self.next().await.kind {
                return;
            }
        }
    }

    /// Returns when the life `shown` is over, or a later one has started.
    pub(super) async fn over(&mut self, shown: Incarnation) {
        loop {
            let event = self.next().await;
            match event.kind {
                RuntimeEventKind::Started if event.incarnation > shown => return,
                RuntimeEventKind::Died { .. } if event.incarnation == shown => {
                    // Usually the stream of the terminal ends first, and this wait with it.
                    sleep(LAST_WORDS).await;
                    return;
                }
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> RuntimeEvent {
        while let Some(stream) = &mut self.stream {
            match stream.next().await {
                Some(Ok(event)) if event.agent == self.agent => return event,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.stream = None,
            }
        }
        pending().await
    }
}
