//! One hook callback: send, obey, print; or keep it for later.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::{Answer, Patience, Request, exchange};
use crate::tree::Look;
use crate::{Places, bring_up, complain, head, print, read_payload, spool};

/// About one second in all: a supervisor that restarts by rename and bind is back by then.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(350),
];
/// The front door answers within 15 s; with 30 s for bring-up this stays below the 60 s that the
/// managed settings give a Stop hook.
const DEADLINE: Duration = Duration::from_secs(20);
const EVIDENCE_DEADLINE: Duration = Duration::from_secs(5);

/// What is at stake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Must arrive, now or later.
    Event,
    /// The same, and what is uncommitted is looked at beside it.
    Turn,
    /// A sign of life: worth nothing later.
    Evidence,
}

/// Never fails towards Claude Code: what goes wrong is told on stderr.
pub(crate) fn run(weight: Weight) {
    let places = Places::from_environment();
    let at_nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    let payload = match read_payload() {
        Ok(payload) => payload,
        Err(why) => return complain(&why),
    };
    let callback = callback_id(at_nanos);
    let commit = head::commit_at_head(&places.workspace);
    let look = (weight == Weight::Turn)
        .then(|| Look::begin(&callback))
        .flatten();
    let result = send(
        &places,
        &callback,
        commit.as_deref(),
        payload.clone(),
        weight,
    );
    let why = match result {
        Ok(answer) => match answer.status {
            200..=299 => return obey(&places, &answer, look),
            // Would be refused again; keeping it helps nobody.
            400..=499 if !matches!(answer.status, 408 | 429) => {
                return complain(&format!(
                    "the supervisor refused the event: {} {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                ));
            }
            status => format!("the supervisor answered {status}"),
        },
        Err(error) => format!("the supervisor is not reachable: {error}"),
    };
    if weight == Weight::Evidence {
        return complain(&why);
    }
    let event = spool::Envelope {
        callback: &callback,
        incarnation: places.incarnation,
        head: commit.as_deref(),
        at_nanos,
        payload: &payload,
    };
    match spool::keep(&places.spool, &event) {
        Ok(()) => complain(&format!("{why}; the event is kept for later")),
        Err(error) => complain(&format!(
            "{why}, and the event could not be kept in {}: {error}",
            places.spool.display()
        )),
    }
}

fn send(
    places: &Places,
    callback: &str,
    commit: Option<&str>,
    payload: Vec<u8>,
    weight: Weight,
) -> io::Result<Answer> {
    let mut request =
        Request::post("/hooks/v1/callback", payload).header("x-callback-id", callback);
    if let Some(incarnation) = places.incarnation {
        request = request.header("x-incarnation", &incarnation.to_string());
    }
    if let Some(commit) = commit {
        request = request.header("x-head", commit);
    }
    let patience = match weight {
        Weight::Event | Weight::Turn => Patience {
            pauses: &PAUSES,
            deadline: DEADLINE,
        },
        Weight::Evidence => Patience {
            pauses: &[],
            deadline: EVIDENCE_DEADLINE,
        },
    };
    exchange(&places.socket, &request, patience)
}

/// Brings the worktree up first, so that the next task starts from the newest state, then prints.
fn obey(places: &Places, answer: &Answer, look: Option<Look>) {
    if let Some(order) = answer.header("x-bring-up-to") {
        match bring_up::Order::parse(order) {
            Some(order) => {
                if let Some(look) = look {
                    look.finish();
                }
                if let Err(why) = bring_up::run(&places.bring_up, &places.workspace, &order) {
                    complain(&format!("the worktree was not brought up: {why}"));
                }
            }
            None => complain("the supervisor sent an order to bring up that makes no sense"),
        }
    }
    print(&answer.body);
}

/// A random UUID from the kernel. Without `/proc`: time and process, which is unique enough in
/// one instance.
fn callback_id(at_nanos: u128) -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map(|text| text.trim().to_owned())
        .ok()
        .filter(|text| text.len() == 36)
        .unwrap_or_else(|| format!("{at_nanos:x}-{:x}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_ids_differ() {
        let first = callback_id(1);
        assert_eq!(first.len(), 36);
        assert_ne!(first, callback_id(1));
    }
}
