//! `GET /status/stream`: the newest snapshot, then each later one, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Extensions;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::model::view::FleetView;

/// A comment is sent when nothing happened for so long, so that both sides notice a dead peer.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Ends streams when the server goes; put into each request by `serve`.
#[derive(Clone)]
pub(super) struct Closing(pub(super) CancellationToken);

/// Each event: `event: status`, `id:` the generation, `data:` the whole snapshot. A slow reader
/// misses generations in between, never the newest.
pub(super) async fn status_stream(
    State(control): State<Control>,
    extensions: Extensions,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let closing = extensions
        .get::<Closing>()
        .map_or_else(CancellationToken::new, |closing| closing.0.clone());
    let events = WatchStream::new(control.view())
        .map(|view| Ok(event(&view)))
        .take_until(closing.cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn event(view: &Arc<FleetView>) -> Event {
    let event = Event::default()
        .event("status")
        .id(view.generation.to_string());
    match serde_json::to_string(view.as_ref()) {
        Ok(json) => event.data(json),
        // A view is plain data; if it ever cannot be written, the reader is told, not cut off.
        Err(error) => event.comment(format!("unreadable snapshot: {error}")),
    }
}
