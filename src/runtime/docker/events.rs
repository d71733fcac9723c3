//! What the engine tells of our containers. Only start, die and oom: everything else (health
//! checks, our own execs) would drown them.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::error::{classify, stream_ended};
use crate::model::{ProjectId, Timestamp};
use crate::ports::{PortResult, RuntimeEvent, RuntimeEventKind};
use crate::runtime::labels;

const ATTEMPT: &str = "following the Docker engine's events";

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
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
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
    let told = docker.events(Some(options)).filter_map(|event| async move {
        match event {
            Ok(message) => translate(message).map(Ok),
            Err(error) => Some(Err(classify(ATTEMPT, error))),
        }
    });
    // It has no end of its own.
    let end = stream::once(async { Err(stream_ended(ATTEMPT)) });
    Ok(told.chain(end).boxed())
}

/// The engine's `seconds.nanoseconds`.
fn engine_time(at: Timestamp) -> String {
    let (seconds, millis) = (at.0.div_euclid(1000), at.0.rem_euclid(1000));
    format!("{seconds}.{millis:03}000000")
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
