//! A run for somebody at a front door: what happens comes as a stream, and the run ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{GateOrder, Gates, Known};
use crate::control::{GateRequest, GateStream, Refusal};
use crate::daemon::blocking;
use crate::model::CommitId;
use crate::model::gate::GateEvent;
use crate::ports::{ErrorKind, PortError, PortResult};
use crate::worktree::GitStore;

/// Output that waits for its reader, in bytes; more is left out.
const WAITING: usize = 1 << 20;

impl Gates {
    /// Begins a run that takes nothing as known.
    ///
    /// # Errors
    /// No gates, no such gate, no such commit.
    pub async fn stream(&self, request: GateRequest) -> Result<GateStream, Refusal> {
        let gates = &self.0.setup.config.gates;
        if gates.is_empty() {
            return Err(Refusal {
                code: "NO_GATES",
                reason: "no gates are configured".to_owned(),
                hint: Some("name commands under `gates` in orchestrator.json".to_owned()),
            });
        }
        if let Some(name) = &request.gate
            && !gates.iter().any(|gate| gate.name == *name)
        {
            let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
            return Err(Refusal {
                code: "UNKNOWN_GATE",
                reason: format!("there is no gate `{name}`"),
                hint: Some(format!("there are: {}", names.join(", "))),
            });
        }
        let commit = self.commit(request.commit).await.map_err(|error| Refusal {
            code: match error.kind {
                ErrorKind::NotFound => "UNKNOWN_COMMIT",
                _ => "STORE_UNREADABLE",
            },
            reason: error.chain(),
            hint: error.hint,
        })?;
        Ok(self.events(GateOrder {
            commit,
            only: request.gate,
            known: Known::RunAnew,
        }))
    }

    async fn commit(&self, text: Option<String>) -> PortResult<CommitId> {
        let git = &self.0.setup.git;
        match text {
            Some(text) => blocking(git, move |git| git.resolve(&text)).await,
            None => blocking(git, GitStore::branch_head).await,
        }
    }

    fn events(&self, order: GateOrder) -> GateStream {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (gates, held, told) = (self.clone(), waiting.clone(), sender.clone());
        let listener = move |event: GateEvent| {
            let size = weight(&event);
            if size > 0 && held.load(Ordering::Relaxed) > WAITING {
                return;
            }
            held.fetch_add(size, Ordering::Relaxed);
            let _nobody_listens = told.send(event);
        };
        tokio::spawn(async move {
            tokio::select! {
                ended = gates.run_order(order, Arc::new(listener)) => if let Err(error) = ended {
                    let _nobody_listens = sender.send(failed(error));
                },
                () = sender.closed() => {}
            }
        });
        UnboundedReceiverStream::new(receiver)
            .inspect(move |event| {
                waiting.fetch_sub(weight(event), Ordering::Relaxed);
            })
            .boxed()
    }
}

fn weight(event: &GateEvent) -> usize {
    match event {
        GateEvent::Output { text } => text.len(),
        _ => 0,
    }
}

fn failed(error: PortError) -> GateEvent {
    GateEvent::Failed {
        message: error.chain(),
        hint: error.hint,
    }
}
