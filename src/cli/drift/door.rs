//! What an instance tells: its hooks and status line, kept as they came. The real helper brings
//! them over the instance's own socket; here nothing is decided, a scene says what is answered.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::notes::Halt;
use crate::claude;
use crate::hooks::serve_socket;
use crate::model::HookAnswer;

/// Between two looks at a condition.
pub(super) const LOOK: Duration = Duration::from_millis(40);
/// What the status line shows.
const LINE: &str = "drift";

#[derive(Default)]
struct Told {
    hooks: Vec<Value>,
    status: Vec<Value>,
    /// Texts for the next Stop hooks.
    go_on: VecDeque<String>,
}

/// Dropping it closes the socket.
pub(super) struct Door {
    told: Arc<Mutex<Told>>,
    _stop: DropGuard,
}

impl Door {
    pub(super) fn open(directory: &Path) -> Result<Self, Halt> {
        let told = Arc::new(Mutex::new(Told::default()));
        let router = Router::new()
            .route("/hooks/v1/callback", post(callback))
            .route("/hooks/v1/status", post(status))
            .with_state(told.clone());
        let stop = CancellationToken::new();
        serve_socket(directory, router, stop.clone())
            .map_err(|error| Halt::new(format!("cannot listen for hooks: {error}")))?;
        Ok(Self {
            told,
            _stop: stop.drop_guard(),
        })
    }

    /// How many hooks came so far: the start for [`Door::since`] and [`Door::until`].
    pub(super) fn mark(&self) -> usize {
        lock(&self.told).hooks.len()
    }

    pub(super) fn since(&self, mark: usize) -> Vec<Value> {
        lock(&self.told)
            .hooks
            .get(mark..)
            .unwrap_or_default()
            .to_vec()
    }

    /// The first hook after `mark` that is this event and looks so.
    pub(super) async fn until(
        &self,
        mark: usize,
        event: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        until(limit, || {
            self.since(mark)
                .into_iter()
                .find(|hook| hook["hook_event_name"] == event && wanted(hook))
        })
        .await
    }

    /// The newest status line that looks so.
    pub(super) async fn until_status(
        &self,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        until(limit, || {
            let told = lock(&self.told);
            told.status.last().filter(|status| wanted(status)).cloned()
        })
        .await
    }

    pub(super) fn newest_status(&self) -> Option<Value> {
        lock(&self.told).status.last().cloned()
    }

    /// The next Stop hook is answered with "go on with this".
    pub(super) fn go_on_with(&self, text: impl Into<String>) {
        lock(&self.told).go_on.push_back(text.into());
    }
}

/// Looks again and again until there is something, or the time is over.
pub(super) async fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn callback(State(told): State<Arc<Mutex<Told>>>, Json(payload): Json<Value>) -> Response {
    let event = payload["hook_event_name"].as_str().unwrap_or_default();
    let answer = {
        let mut told = lock(&told);
        let text = (event == "Stop").then(|| told.go_on.pop_front()).flatten();
        text.map_or(HookAnswer::LetGo, |text| HookAnswer::Continue {
            text,
            bring_up_to: None,
        })
    };
    let rendered = claude::render(event, &answer);
    lock(&told).hooks.push(payload);
    match rendered {
        Ok(Some(json)) => Json(json).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

async fn status(State(told): State<Arc<Mutex<Told>>>, Json(payload): Json<Value>) -> &'static str {
    lock(&told).status.push(payload);
    LINE
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    // Lists that are only appended to: a panic elsewhere leaves nothing half done in them.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
