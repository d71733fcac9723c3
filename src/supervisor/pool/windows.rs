//! What status lines tell of the limits, and whose it is.

use std::time::Duration;

use super::super::Supervisor;
use super::limits::AFTER_RESET;
use super::standing::Standing;
use crate::model::{AgentId, CredentialId, Incarnation, QuotaWindow, Timestamp, Window, Windows};

/// For answers to requests that were running when the credential was exchanged.
const ANSWERS_ARRIVE: Duration = Duration::from_secs(10);

impl Supervisor {
    pub(in crate::supervisor) fn on_windows_told(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        incarnation: Incarnation,
        windows: Windows,
    ) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let Some(owner) = self.owner_of(now, id, &windows) else {
            return;
        };
        if let Some(standing) = self.fleet.pool.credentials.get_mut(&owner) {
            standing.learn(now, &windows);
        }
    }

    /// After an exchange Claude Code shows the windows of the former credential until its next
    /// answer.
    fn owner_of(&self, now: Timestamp, id: &AgentId, told: &Windows) -> Option<CredentialId> {
        let agent = self.fleet.agents.get(id)?;
        let has = agent.credential.clone()?;
        let Some(former) = agent.lease.former.clone() else {
            return Some(has);
        };
        let known = |id: &CredentialId| {
            let standing = self.fleet.pool.credentials.get(id);
            standing.map_or_else(Windows::default, |standing| standing.windows)
        };
        let (of_former, of_present) = (known(&former), known(&has));
        if same_resets(told, &of_former) && !same_resets(told, &of_present) {
            return Some(former);
        }
        // Nothing was known of the former one: what comes just now may be of either.
        let unknown = of_former == Windows::default() && of_present == Windows::default();
        let early = now.since(agent.lease.since) < ANSWERS_ARRIVE;
        (!(unknown && early)).then_some(has)
    }
}

fn same_resets(a: &Windows, b: &Windows) -> bool {
    let resets = |windows: &Windows| {
        let end = |window: Option<Window>| window.map(|window| window.resets_at);
        (end(windows.five_hour), end(windows.seven_day))
    };
    resets(a) == resets(b)
}

impl Standing {
    fn learn(&mut self, now: Timestamp, told: &Windows) {
        if !self.info.subscription {
            return;
        }
        self.windows.five_hour = newer(now, self.windows.five_hour, told.five_hour);
        self.windows.seven_day = newer(now, self.windows.seven_day, told.seven_day);
        self.windows_at = Some(now);
        let windows = self.windows;
        if let Some(spent) = self.spent.as_mut().filter(|spent| !spent.told)
            && let Some(end) = windows.end_of(&spent.window, now)
        {
            spent.resets_at = end;
            spent.until = end + AFTER_RESET;
            spent.told = true;
        }
    }
}

impl Windows {
    /// When this window ends, if that is known and yet to come.
    pub(super) fn end_of(&self, window: &QuotaWindow, now: Timestamp) -> Option<Timestamp> {
        let told = match window {
            QuotaWindow::FiveHour => self.five_hour,
            QuotaWindow::Weekly => self.seven_day,
            QuotaWindow::Model(_) | QuotaWindow::Account => None,
        };
        told.map(|window| window.resets_at).filter(|end| *end > now)
    }
}

/// Idle agents go on showing old numbers: a window only grows until it ends.
fn newer(now: Timestamp, known: Option<Window>, told: Option<Window>) -> Option<Window> {
    let Some(told) = told.filter(|told| told.resets_at > now) else {
        return known;
    };
    match known {
        Some(known) if known.resets_at > told.resets_at => Some(known),
        Some(known) if known.resets_at == told.resets_at => Some(Window {
            used_percent: known.used_percent.max(told.used_percent),
            ..told
        }),
        Some(_) | None => Some(told),
    }
}
