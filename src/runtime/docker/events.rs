//! What the engine tells of our containers. Only start, die and oom: everything else (health
//! checks, our own execs) would drown them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::error::{classify, stream_ended, too_late};
use crate::model::{ProjectId, Timestamp};
use crate::ports::{PortResult, RuntimeEvent, RuntimeEventKind};
use crate::runtime::labels;

const ATTEMPT: &str = "following the Docker engine's events";
/// For an engine to say that it remembers a death; it has it in memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// `Runtime::events`. Events at exactly `since` are told again, because two may share a
/// millisecond: twice is harmless, never is not. The engine remembers only its last few hundred
/// events, so list after connecting.
pub(super) async fn events(
    docker: &Docker,
    project: &ProjectId,
    since: Option<Timestamp>,
) -> PortResult<BoxStream<'static, PortResult<RuntimeEvent>>> {
    docker
        .ping()
        .await
        .map_err(|error| classify(ATTEMPT, error))?;
    // The request leaves at the first poll; a start time closes the gap until then.
    let since = since.unwrap_or_else(now);
    let filters = HashMap::from([
        ("type", words(&["container"])),
        ("event", words(&["start", "die", "oom"])),
        (
            "label",
            vec![
                format!("{}={project}", labels::PROJECT),
                labels::AGENT.to_owned(),
            ],
        ),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(&engine_time(since))
        .filters(&filters)
        .build();
    let asked = docker.clone();
    let told = docker.events(Some(options)).filter_map(move |event| {
        let docker = asked.clone();
        async move {
            match event {
                Ok(message) => believe(&docker, message).await.transpose(),
                Err(error) => Some(Err(classify(ATTEMPT, error))),
            }
        }
    });
    // It has no end of its own.
    let end = stream::once(async { Err(stream_ended(ATTEMPT)) });
    let all = Box::pin(told.chain(end));
    let until_an_error = stream::unfold(Some(all), |all| async move {
        let mut all = all?;
        let event = all.next().await?;
        let rest = event.is_ok().then_some(all);
        Some((event, rest))
    });
    Ok(until_an_error.boxed())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// An engine that is stopped stops every container first, and tells of it on the streams that are
/// still open: these deaths are its own. So each death is asked for again, on another connection.
/// An engine that goes away takes none (20.10 closes its socket before it stops anything); where
/// systemd holds the socket, the next engine answers, and has never heard of it.
async fn believe(docker: &Docker, message: EventMessage) -> PortResult<Option<RuntimeEvent>> {
    let (id, nanos) = (
        message.actor.as_ref().and_then(|actor| actor.id.clone()),
        message.time_nano,
    );
    let event = translate(message);
    let died = event
        .as_ref()
        .is_some_and(|event| matches!(event.kind, RuntimeEventKind::Died { .. }));
    if let (true, Some(id), Some(nanos)) = (died, id, nanos) {
        let remembered = tokio::time::timeout(PATIENCE, is_remembered(docker, &id, nanos));
        match remembered.await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(stream_ended(ATTEMPT)),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(too_late(ATTEMPT, PATIENCE.as_secs())),
        }
    }
    Ok(event)
}

async fn is_remembered(docker: &Docker, id: &str, nanos: i64) -> PortResult<bool> {
    let filters = HashMap::from([
        ("type", words(&["container"])),
        ("event", words(&["die"])),
        ("container", words(&[id])),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(&engine_nanos(nanos))
        .until(&engine_nanos(nanos.saturating_add(1)))
        .filters(&filters)
        .build();
    let mut told = docker.events(Some(options));
    while let Some(event) = told.next().await {
        let event = event.map_err(|error| classify(ATTEMPT, error))?;
        if event.time_nano == Some(nanos) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn engine_nanos(nanos: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    format!(
        "{}.{:09}",
        nanos.div_euclid(SECOND),
        nanos.rem_euclid(SECOND)
    )
}

/// The engine's `seconds.nanoseconds`.
fn engine_time(at: Timestamp) -> String {
    engine_nanos(at.0.saturating_mul(1_000_000))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// `None` for what is not about an agent's container of ours.
fn translate(message: EventMessage) -> Option<RuntimeEvent> {
    let attributes = message.actor?.attributes?;
    let mark = labels::read_mark(&attributes)?;
    let kind = match message.action?.as_str() {
        "start" => RuntimeEventKind::Started,
        "oom" => RuntimeEventKind::OutOfMemory,
        "die" => RuntimeEventKind::Died {
            // Absent would be a crash nobody can explain, not a success.
            exit_code: attributes
                .get("exitCode")
                .and_then(|code| code.parse().ok())
                .unwrap_or(-1),
        },
        _ => return None,
    };
    let at = message
        .time_nano
        .map(|nanos| nanos / 1_000_000)
        .or_else(|| message.time.map(|seconds| seconds.saturating_mul(1000)))?;
    Some(RuntimeEvent {
        name: attributes.get("name")?.clone(),
        agent: mark.agent,
        incarnation: mark.incarnation,
        at: Timestamp(at),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;
    use crate::runtime::docker::spec::tests::example;

    fn message(action: &str, labels: bool) -> EventMessage {
        let mut attributes = HashMap::from([
            ("name".to_owned(), "orchestrator-demo-worker-1-3".to_owned()),
            ("exitCode".to_owned(), "137".to_owned()),
        ]);
        if labels {
            attributes.extend(labels::agent_labels(&example()));
        }
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: None,
                attributes: Some(attributes),
            }),
            time_nano: Some(1_700_000_000_123_456_789),
            ..EventMessage::default()
        }
    }

    #[test]
    fn a_death_tells_its_exit_code_and_time() {
        let event = translate(message("die", true)).expect("ours");
        assert_eq!(event.kind, RuntimeEventKind::Died { exit_code: 137 });
        assert_eq!(event.at, Timestamp(1_700_000_000_123));
        assert_eq!(event.agent.as_str(), "worker-1");
    }

    #[test]
    fn strangers_and_other_actions_are_left_out() {
        assert_eq!(translate(message("die", false)), None);
        assert_eq!(translate(message("exec_create", true)), None);
    }

    #[test]
    fn the_engine_wants_seconds_and_nanoseconds() {
        assert_eq!(
            engine_time(Timestamp(1_700_000_000_042)),
            "1700000000.042000000"
        );
    }
}
