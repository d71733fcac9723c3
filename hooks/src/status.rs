//! The status line: tell the supervisor, show what it says.

use std::time::Duration;

use crate::http::{Patience, Request, exchange};
use crate::{Places, print, read_payload};

/// Claude Code runs this often and draws what it prints; nobody should wait for it.
const DEADLINE: Duration = Duration::from_millis(200);
const AWAY: &str = "orchestrator: supervisor away";

pub(crate) fn run() {
    let places = Places::from_environment();
    let line = read_payload().ok().and_then(|payload| {
        let mut request = Request::post("/hooks/v1/status", payload);
        if let Some(incarnation) = places.incarnation {
            request = request.header("x-incarnation", &incarnation.to_string());
        }
        let patience = Patience {
            pauses: &[],
            deadline: DEADLINE,
        };
        let answer = exchange(&places.socket, &request, patience).ok()?;
        (answer.status == 200).then_some(answer.body)
    });
    match line {
        Some(line) => print(&line),
        None => print(AWAY.as_bytes()),
    }
    print(b"\n");
}
