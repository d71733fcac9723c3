//! What is known about an agent, by which signal, since when, and whether anything of it moves.
//!
//! The state is decided elsewhere, mostly by hooks. This keeps the last fact of each signal so that
//! people can be told why (`explain`), and compares examinations: an agent counts as hung only when
//! every signal that a living Claude Code moves has stood still for the configured time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::input::Event;
use crate::model::explain::Fact;
use crate::model::{Cause, Ending, Grade, HookFact, Request, Screen, Signal, Timestamp};

/// CPU below this share of the time counts as none. Observed with 2.1.197: 0.35 to 0.6 % at an idle
/// prompt or a dialog, 1.5 % and more in a turn, nothing at all when it is stopped.
const CPU_IDLE_PART: u32 = 1000;

/// One look at everything that may move. What could not be read is `None` and proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// What the pane shows, and a hash of its text.
    pub screen: Option<(Screen, u64)>,
    pub transcript: Option<TranscriptSeen>,
    pub session: Option<SessionSeen>,
    pub vitals: Option<VitalsSeen>,
    /// When its status line ran last.
    pub status_line: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranscriptSeen {
    /// Of all its conversations together.
    pub bytes: u64,
    pub changed: Timestamp,
}

/// The session file, as far as it is evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    pub status: String,
    pub waiting_for: Option<String>,
    pub changed: Timestamp,
}

/// What the engine says of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VitalsSeen {
    /// Used by everything in it since it was started, in nanoseconds.
    pub cpu_nanos: u64,
    /// A person froze it (`docker pause`).
    pub paused: bool,
}

/// What of an examination is compared with the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    screen: u64,
    transcript: u64,
    session: Option<Timestamp>,
    status_line: Option<Timestamp>,
}

/// A time over which all samples were equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Still {
    sample: Sample,
    since: Timestamp,
    last: Timestamp,
    /// Since when no CPU was used, and how much had been used then.
    cpu_since: Timestamp,
    cpu_nanos: u64,
}

/// What comparing an examination with the earlier ones comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something moved, or too little is known.
    Alive,
    /// Nothing has moved for so long, but something in the container computes.
    OnlyCpu(Duration),
    /// Nothing at all has moved for so long.
    Still(Duration),
}

/// The evidence about one agent; part of its row in the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    #[serde(default)]
    facts: BTreeMap<Signal, Fact>,
    #[serde(default)]
    still: Option<Still>,
    /// While it works: when it is examined next.
    #[serde(default)]
    pub(super) examine_at: Option<Timestamp>,
    /// The last hook said that a person ended the process by typing.
    #[serde(default)]
    pub(super) exit_typed: bool,
}

impl Evidence {
    pub fn fact(&self, signal: Signal) -> Option<&Fact> {
        self.facts.get(&signal)
    }

    /// Since when nothing has moved, the CPU apart.
    pub(super) fn still_since(&self) -> Option<Timestamp> {
        self.still.as_ref().map(|still| still.since)
    }

    /// Nothing has moved since then, the CPU included.
    pub(super) fn stood_still_since(&self, at: Timestamp) -> bool {
        let still = self.still.as_ref();
        still.is_some_and(|still| still.since <= at && still.cpu_since <= at)
    }

    /// Keeps `at` while a signal says the same.
    fn note(&mut self, signal: Signal, seen: Timestamp, grade: Grade, said: impl Into<String>) {
        let said = said.into();
        let at = match self.facts.get(&signal) {
            Some(fact) if fact.said == said => fact.at,
            _ => seen,
        };
        self.note_since(signal, at, seen, grade, said);
    }

    fn note_since(
        &mut self,
        signal: Signal,
        at: Timestamp,
        seen: Timestamp,
        grade: Grade,
        said: String,
    ) {
        let fact = Fact {
            said,
            grade,
            at,
            seen,
        };
        self.facts.insert(signal, fact);
    }

    pub(super) fn hook(&mut self, now: Timestamp, fact: &HookFact) {
        let said = hook_said(fact);
        self.note_since(Signal::Hook, now, now, Grade::Strong, said);
        self.exit_typed =
            matches!(fact, HookFact::SessionEnded { reason } if reason == "prompt_input_exit");
        self.moved();
    }

    /// A life begins: what was seen of the one before says nothing about it.
    pub(super) fn born(&mut self, now: Timestamp, container: &str) {
        let hook = self.facts.remove(&Signal::Hook);
        self.facts.clear();
        self.facts.extend(hook.map(|hook| (Signal::Hook, hook)));
        self.exit_typed = false;
        let said = format!("{container} runs");
        self.note(Signal::Container, now, Grade::Medium, said);
        self.moved();
    }

    pub(super) fn runs(&mut self, now: Timestamp, container: &str) {
        let said = format!("{container} runs");
        self.note(Signal::Container, now, Grade::Medium, said);
    }

    pub(super) fn died(&mut self, now: Timestamp, cause: &str) {
        self.note(Signal::Container, now, Grade::Strong, cause);
        self.at_rest();
    }

    pub(super) fn screen(&mut self, now: Timestamp, screen: &Screen) {
        self.note(Signal::Screen, now, Grade::Weak, screen_said(screen));
    }

    /// Something was heard of it: the comparison begins anew.
    fn moved(&mut self) {
        self.still = None;
        self.examine_at = None;
    }

    /// Nobody waits for it to do something.
    pub(super) fn at_rest(&mut self) {
        self.moved();
    }

    /// Takes an examination in. `gap` is the longest time between two that are compared: after a
    /// longer one (the machine slept, the supervisor was away) nobody knows what was in between.
    pub(super) fn examined(
        &mut self,
        now: Timestamp,
        seen: &Examination,
        gap: Duration,
    ) -> Verdict {
        self.note_examination(now, seen);
        let (Some((_, screen)), Some(transcript), Some(vitals)) =
            (&seen.screen, seen.transcript, seen.vitals)
        else {
            self.still = None;
            return Verdict::Alive;
        };
        let sample = Sample {
            screen: *screen,
            transcript: transcript.bytes,
            session: seen.session.as_ref().map(|session| session.changed),
            status_line: seen.status_line,
        };
        if vitals.paused {
            self.still = None;
            return Verdict::Alive;
        }
        let followed = self.still.take().filter(|still| {
            still.sample == sample && now >= still.last && now.since(still.last) <= gap
        });
        let mut still = followed.unwrap_or(Still {
            sample,
            since: now,
            last: now,
            cpu_since: now,
            cpu_nanos: vitals.cpu_nanos,
        });
        still.last = now;
        let used = Duration::from_nanos(vitals.cpu_nanos.saturating_sub(still.cpu_nanos));
        if used > now.since(still.cpu_since) / CPU_IDLE_PART || vitals.cpu_nanos < still.cpu_nanos {
            (still.cpu_since, still.cpu_nanos) = (now, vitals.cpu_nanos);
        }
        let verdict = match (now.since(still.since), now.since(still.cpu_since)) {
            (Duration::ZERO, _) => Verdict::Alive,
            (still, Duration::ZERO) => Verdict::OnlyCpu(still),
            (still, cpu) => Verdict::Still(still.min(cpu)),
        };
        self.date_back(&still);
        self.still = Some(still);
        verdict
    }

    fn note_examination(&mut self, now: Timestamp, seen: &Examination) {
        if let Some((screen, _)) = &seen.screen {
            self.screen(now, screen);
        }
        if let Some(transcript) = seen.transcript {
            let (said, changed) = match transcript.bytes {
                0 => ("nothing written yet".to_owned(), now),
                bytes => (format!("{bytes} bytes"), transcript.changed),
            };
            self.note_since(Signal::Transcript, changed, now, Grade::Medium, said);
        }
        if let Some(session) = &seen.session {
            let said = match &session.waiting_for {
                Some(what) => format!("{}, for: {what}", session.status),
                None => session.status.clone(),
            };
            self.note_since(
                Signal::SessionFile,
                session.changed,
                now,
                Grade::Medium,
                said,
            );
        }
        if let Some(at) = seen.status_line {
            let said = "drawn".to_owned();
            self.note_since(Signal::StatusLine, at, now, Grade::Medium, said);
        }
        if let Some(vitals) = seen.vitals {
            self.note_vitals(now, vitals);
        }
    }

    fn note_vitals(&mut self, now: Timestamp, vitals: VitalsSeen) {
        if vitals.paused {
            let said = "paused (`docker unpause` lets it go on)";
            self.note(Signal::Container, now, Grade::Medium, said);
        }
        let used = Duration::from_nanos(vitals.cpu_nanos).as_secs_f64();
        let said = format!("{used:.1} s used");
        self.note_since(Signal::Cpu, now, now, Grade::Weak, said);
    }

    /// The age of what moves all the time in a living agent is that of its last movement.
    fn date_back(&mut self, still: &Still) {
        for (signal, since) in [
            (Signal::Screen, still.since),
            (Signal::Cpu, still.cpu_since),
        ] {
            if let Some(fact) = self.facts.get_mut(&signal) {
                fact.at = since;
            }
        }
    }
}

fn hook_said(fact: &HookFact) -> String {
    match fact {
        HookFact::SessionStarted { source } => format!("SessionStart ({source})"),
        HookFact::PromptSubmitted { machine: true, .. } => {
            "UserPromptSubmit (a background task)".into()
        }
        HookFact::PromptSubmitted { .. } => "UserPromptSubmit".into(),
        HookFact::Stopped {
            background_tasks: 0,
            ..
        } => "Stop".into(),
        HookFact::Stopped {
            background_tasks, ..
        } => format!("Stop ({background_tasks} background task(s) run on)"),
        HookFact::TurnFailed { error, .. } => format!("StopFailure ({error})"),
        HookFact::Notified { notification, .. } => format!("Notification ({notification})"),
        HookFact::PermissionAsked { tool } => format!("PermissionRequest ({tool})"),
        HookFact::SessionEnded { reason } => format!("SessionEnd ({reason})"),
        HookFact::Activity { what } => what.clone(),
        HookFact::Unknown { event } => format!("{event} (unknown here)"),
    }
}

pub(super) fn screen_said(screen: &Screen) -> String {
    match screen {
        Screen::Ready => "a free prompt".into(),
        Screen::Draft => "a prompt with unsent text in it".into(),
        Screen::Busy => "a running turn".into(),
        Screen::Dialog { name } => format!("a dialog: {name}"),
        Screen::NotLoggedIn => "not logged in".into(),
        Screen::Blank => "nothing".into(),
        Screen::Unrecognised { .. } => "something that is not recognised".into(),
    }
}

/// What an event is evidence of, in words; `None` for what changes no agent.
pub(super) fn cause_of(event: &Event) -> Cause {
    let (signal, text) = match event {
        Event::Hook(hook) => (
            Some(Signal::Hook),
            format!("hook {}", hook_said(&hook.report.fact)),
        ),
        Event::AnswerLost { .. } => (
            Some(Signal::Hook),
            "its helper never got the answer to its Stop hook".into(),
        ),
        Event::InventoryTaken(_) => (Some(Signal::Container), "the list of containers".into()),
        Event::EngineAway { .. } => (None, "the container engine went away".into()),
        Event::EngineBack(_) => (
            Some(Signal::Container),
            "the list of containers of the engine that is back".into(),
        ),
        Event::Starved { .. } => (
            Some(Signal::Container),
            "a process of it was killed for lack of memory".into(),
        ),
        Event::Launched { container, .. } => (
            Some(Signal::Container),
            format!("container {container} was started"),
        ),
        Event::LaunchFailed { reason, .. } => (
            Some(Signal::Container),
            format!("its launch failed: {reason}"),
        ),
        Event::Exited { exit_code, .. } => {
            let code = exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            let text = format!("its container ended, exit code {code}");
            (Some(Signal::Container), text)
        }
        Event::ScreenSeen { screen, .. } => (
            Some(Signal::Screen),
            format!("its screen shows {}", screen_said(screen)),
        ),
        Event::SessionChecked { .. } => (None, "its session file was read".into()),
        Event::Examined { .. } => (None, "all its signals were compared".into()),
        Event::Pasted { .. } => (None, "its text was pasted".into()),
        Event::PasteFailed { reason, .. } => (None, format!("pasting failed: {reason}")),
        Event::Claimed { task, .. } => (None, format!("the queue gave it {}", task.id)),
        Event::ClaimLost { task, .. } => (None, format!("the queue did not give it {task}")),
        Event::TaskCreated { task, .. } => (None, format!("the queue has {task}")),
        Event::TaskSettled { task } => (None, format!("the queue took the wish about {task}")),
        Event::Overtaken { task, reason, .. } => {
            (None, format!("the queue took {task} away: {reason}"))
        }
        Event::TaskFinished { task, .. } => (None, format!("the queue took the end of {task}")),
        Event::QueueChanged(_) => (None, "the queue changed".into()),
        Event::TreeSeen { .. } => (None, "what it left uncommitted was told".into()),
        Event::Rescued { .. } => (None, "its uncommitted work was copied".into()),
        Event::Imported { .. } => (None, "its commits were taken".into()),
        Event::StackBuilt { .. } | Event::GatesFinished { .. } | Event::Landed { .. } => {
            (None, "the merge train went on".into())
        }
        Event::StoreRecovered => (None, "the disk takes writes again".into()),
        Event::PoolRead { .. }
        | Event::WindowsTold { .. }
        | Event::Lent { .. }
        | Event::LendFailed { .. }
        | Event::Refreshed { .. }
        | Event::RefreshFailed { .. } => (None, "its credential".into()),
        Event::BranchMoved { .. }
        | Event::PushFinished(_)
        | Event::RemoteFetched(_)
        | Event::DirectionSeen { .. }
        | Event::Noticed { .. } => (None, "the surroundings".into()),
    };
    let died = matches!(event, Event::Exited { .. });
    let grade = signal.map(|signal| if died { Grade::Strong } else { signal.grade() });
    Cause {
        text,
        signal,
        grade,
    }
}

/// A request as a cause.
pub(super) fn asked(request: &Request) -> Cause {
    let text = match request {
        Request::Restart { .. } => "a restart was asked for",
        Request::Rescue { .. } => "a snapshot was asked for",
        Request::RetryTask { .. } => "fresh attempts were asked for",
        Request::CancelTask { .. } => "its task was cancelled",
        Request::Plan => "planning was asked for",
        Request::RetryCredential { .. } => "a credential may be tried again",
        Request::Fetch => "a fetch was asked for",
        Request::End { ending } => match ending {
            Ending::Detach => "a detach was asked for",
            Ending::Drain => "a drain was asked for",
            Ending::Stop => "a stop was asked for",
        },
    };
    Cause {
        text: text.into(),
        ..Cause::default()
    }
}

/// A deadline as a cause.
pub(super) fn was_due(deadline: Option<(Timestamp, String)>) -> Cause {
    let what = deadline.map_or_else(|| "time".to_owned(), |(_, what)| what);
    Cause {
        text: format!("it was due: {what}"),
        ..Cause::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(60);

    fn look(screen: u64, cpu_millis: u64) -> Examination {
        Examination {
            screen: Some((Screen::Busy, screen)),
            transcript: Some(TranscriptSeen {
                bytes: 100,
                changed: Timestamp(5),
            }),
            session: None,
            vitals: Some(VitalsSeen {
                cpu_nanos: cpu_millis * 1_000_000,
                paused: false,
            }),
            status_line: Some(Timestamp(7)),
        }
    }

    /// A look every 20 s.
    fn verdict(looks: &[Examination]) -> Verdict {
        let mut evidence = Evidence::default();
        let mut last = Verdict::Alive;
        for (number, seen) in (0..).zip(looks) {
            last = evidence.examined(Timestamp(number * 20_000), seen, GAP);
        }
        last
    }

    #[test]
    fn only_when_everything_stands_still_does_it_count_as_still() {
        let still = [look(1, 500), look(1, 500), look(1, 505)];
        assert_eq!(verdict(&still), Verdict::Still(Duration::from_secs(40)));
        let ticks = [look(1, 500), look(2, 500), look(3, 500)];
        assert_eq!(verdict(&ticks), Verdict::Alive);
        let computes = [look(1, 500), look(1, 600), look(1, 700)];
        let only_cpu = Verdict::OnlyCpu(Duration::from_secs(40));
        assert_eq!(verdict(&computes), only_cpu);
        for change in [
            |seen: &mut Examination| seen.status_line = Some(Timestamp(8)),
            |seen: &mut Examination| seen.transcript.as_mut().unwrap().bytes += 1,
            |seen: &mut Examination| {
                seen.session = Some(SessionSeen {
                    status: "busy".into(),
                    waiting_for: None,
                    changed: Timestamp(9),
                });
            },
            |seen: &mut Examination| seen.screen = None,
            |seen: &mut Examination| seen.vitals = None,
            |seen: &mut Examination| seen.vitals.as_mut().unwrap().paused = true,
        ] {
            let mut looks = still.clone();
            change(&mut looks[2]);
            assert_eq!(verdict(&looks), Verdict::Alive, "{:?}", looks[2]);
        }
    }

    #[test]
    fn the_cpu_of_an_idle_prompt_is_enough_to_be_alive() {
        // 0.35 % of 20 s.
        let idle: Vec<Examination> = (0..4).map(|n| look(1, 500 + n * 70)).collect();
        let only_cpu = Verdict::OnlyCpu(Duration::from_secs(60));
        assert_eq!(verdict(&idle), only_cpu);
    }

    #[test]
    fn a_gap_between_looks_proves_nothing() {
        let mut evidence = Evidence::default();
        evidence.examined(Timestamp(0), &look(1, 5), GAP);
        let after_sleep = evidence.examined(Timestamp(8 * 3_600_000), &look(1, 5), GAP);
        assert_eq!(after_sleep, Verdict::Alive);
        let backwards = evidence.examined(Timestamp(1000), &look(1, 5), GAP);
        assert_eq!(backwards, Verdict::Alive);
    }

    #[test]
    fn a_hook_begins_the_comparison_anew() {
        let mut evidence = Evidence::default();
        evidence.examined(Timestamp(0), &look(1, 5), GAP);
        let what = "PostToolUse Bash".to_owned();
        evidence.hook(Timestamp(10_000), &HookFact::Activity { what });
        let next = evidence.examined(Timestamp(20_000), &look(1, 5), GAP);
        assert_eq!(next, Verdict::Alive);
        assert_eq!(
            evidence.fact(Signal::Hook).unwrap().said,
            "PostToolUse Bash"
        );
    }

    #[test]
    fn a_fact_keeps_its_age_while_it_stays_the_same() {
        let mut evidence = Evidence::default();
        evidence.screen(Timestamp(1), &Screen::Ready);
        evidence.screen(Timestamp(9), &Screen::Ready);
        let fact = evidence.fact(Signal::Screen).unwrap();
        assert_eq!((fact.at, fact.seen), (Timestamp(1), Timestamp(9)));
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
    }
}
