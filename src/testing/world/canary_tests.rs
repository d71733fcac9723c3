//! Starts of a Claude Code that is not as expected: who carries on by what, and what people hear.

use std::time::Duration;

use super::World;
use crate::model::{AgentId, Incarnation, Screen, SessionId, SessionNote, Timestamp};
use crate::supervisor::{Action, AgentState, Event, Phase, Policy, Trust};

const FIRST: Incarnation = Incarnation(1);
const A_MINUTE: Duration = Duration::from_secs(60);

fn worker() -> AgentId {
    AgentId::worker(1)
}

fn state(world: &World) -> AgentState {
    world.fleet().agents[&worker()].clone()
}

fn notices(world: &World) -> Vec<String> {
    let all = world.fleet().notices.into_iter();
    all.map(|notice| format!("{} {}", notice.text, notice.hint.unwrap_or_default()))
        .collect()
}

/// A worker whose container runs; the manager is at its prompt.
fn launched(tested: &str, change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(Policy {
        tested_version: tested.into(),
        ..Policy::default()
    });
    world.start_daemon(false);
    world.run_outbox();
    world.boot(&AgentId::manager());
    world.advance(Duration::from_secs(1));
    change(&mut world);
    world
}

fn mute(world: &mut World, mute: bool) {
    world.minds.get_mut(&worker()).unwrap().mute = mute;
}

fn checked(note: SessionNote) -> Event {
    Event::SessionChecked {
        agent: worker(),
        incarnation: FIRST,
        note,
    }
}

fn note(world: &World, change: impl FnOnce(&mut SessionId, &mut String, &mut Timestamp)) -> Event {
    let mut session = state(world).session;
    let mut status = "idle".to_owned();
    let mut started_at = world.now;
    change(&mut session, &mut status, &mut started_at);
    checked(SessionNote::Found {
        session,
        version: "1.0.0".into(),
        status,
        started_at,
    })
}

#[test]
fn a_start_as_expected_says_nothing() {
    let mut world = launched("1.0.0", |_| {});
    world.boot(&worker());
    world.advance(Duration::from_secs(20));
    let state = state(&world);
    assert_eq!(state.phase, Phase::Idle);
    let signals = &state.signals;
    assert_eq!(
        (signals.hooks, signals.screen, signals.note),
        (Trust::Good, Trust::Good, Trust::Good)
    );
    assert_eq!(signals.version.as_deref(), Some("1.0.0"));
    assert_eq!(notices(&world), Vec::<String>::new());
}

#[test]
fn another_version_is_told_once_for_the_fleet_with_the_command_that_looks() {
    let mut world = launched("2.1.197", |_| {});
    world.boot(&worker());
    world.advance(Duration::from_secs(20));
    let said = notices(&world);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("run Claude Code 1.0.0"), "{said:?}");
    assert!(said[0].contains("tested with 2.1.197"), "{said:?}");
    assert!(
        said[0].contains("orchestrator drift --claude-version 1.0.0"),
        "{said:?}"
    );
    assert_eq!(state(&world).phase, Phase::Idle);
}

#[test]
fn a_start_without_its_hook_is_ready_when_screen_and_note_agree() {
    let mut world = launched("1.0.0", |world| mute(world, true));
    world.boot(&worker());
    world.advance(A_MINUTE);
    let after = state(&world);
    assert_eq!(after.phase, Phase::Idle);
    assert_eq!((after.incarnation, after.restarts), (FIRST, 0));
    assert_eq!(after.signals.hooks, Trust::Doubted);
    let said = notices(&world);
    assert!(
        said[0].contains("its SessionStart hook did not come"),
        "{said:?}"
    );
    assert!(said[0].contains("orchestrator drift"), "{said:?}");

    // Its other hooks do come: it works like any other.
    mute(&mut world, false);
    world.add_task(&worker(), "write a");
    world.advance(Duration::from_secs(1));
    assert_eq!(state(&world).phase, Phase::Working);
    world.turn_ends(&worker(), &super::Turn::default());
    world.advance(Duration::from_secs(1));
    assert_eq!(
        (state(&world).phase, state(&world).tasks_done),
        (Phase::Idle, 1)
    );
}

#[test]
fn without_any_hook_one_task_is_tried_and_then_a_person_is_asked() {
    let mut world = launched("1.0.0", |world| mute(world, true));
    world.boot(&worker());
    world.advance(A_MINUTE);
    world.add_task(&worker(), "write a");
    let mut told = 0;
    for _ in 0..60 {
        world.advance(Duration::from_secs(10));
        // It works a while; nobody hears of the end.
        if state(&world).phase == Phase::Working {
            told += 1;
            world.minds.get_mut(&worker()).unwrap().doing = super::Doing::AtPrompt;
        }
    }
    assert!(
        matches!(state(&world).phase, Phase::Waiting { .. }),
        "{:?}",
        state(&world)
    );
    assert_eq!(
        world.minds[&worker()].received.len(),
        1,
        "{told}: it was told again"
    );
    assert_eq!(state(&world).incarnation, FIRST, "it was restarted");
    assert!(
        notices(&world)
            .iter()
            .any(|text| text.contains("none of its hooks arrive"))
    );
}

#[test]
fn an_idle_note_alone_does_not_make_a_start_ready() {
    let mut world = launched("1.0.0", |world| mute(world, true));
    world.boot(&worker());
    world.minds.get_mut(&worker()).unwrap().draft = Some("x".into());
    world.advance(Duration::from_secs(100));
    assert!(
        matches!(state(&world).phase, Phase::Starting { greeted: false, .. }),
        "{:?}",
        state(&world).phase
    );
    world.advance(A_MINUTE);
    assert!(
        state(&world).incarnation > FIRST,
        "the deadline of the start still holds"
    );
}

#[test]
fn a_note_that_an_earlier_life_left_proves_nothing() {
    let mut world = launched("1.0.0", |world| mute(world, true));
    let before = state(&world);
    for _ in 0..10 {
        let left = note(&world, |_, _, started| {
            *started = Timestamp(before.signals.since.0 - 1);
        });
        world.observe(Event::ScreenSeen {
            agent: worker(),
            incarnation: FIRST,
            screen: Screen::Ready,
        });
        world.observe(left);
    }
    assert!(matches!(
        state(&world).phase,
        Phase::Starting { greeted: false, .. }
    ));
    assert_eq!(state(&world).signals.note, Trust::Unknown);
}

#[test]
fn a_note_of_another_form_is_doubted_and_the_rest_carries_on() {
    type Change = fn(&World) -> Event;
    let cases: [(&str, Change); 3] = [
        ("names another session", |world| {
            note(world, |session, _, _| *session = SessionId::new("somebody"))
        }),
        ("has the status `dreaming`", |world| {
            note(world, |_, status, _| "dreaming".clone_into(status))
        }),
        ("cannot be read: key `status` is missing", |_| {
            checked(SessionNote::Unreadable {
                problem: "key `status` is missing".into(),
            })
        }),
    ];
    for (says, event) in cases {
        let mut world = launched("1.0.0", |_| {});
        world.boot(&worker());
        world
            .outbox
            .retain(|w| !matches!(w.action, Action::CheckSession { .. }));
        for _ in 0..5 {
            world.observe(event(&world));
            world
                .outbox
                .retain(|w| !matches!(w.action, Action::CheckSession { .. }));
        }
        assert_eq!(state(&world).signals.note, Trust::Doubted, "{says}");
        let said = notices(&world);
        assert!(said.len() == 1 && said[0].contains(says), "{said:?}");
        world.advance(Duration::from_secs(5));
        assert_eq!(state(&world).phase, Phase::Idle);
    }
}

#[test]
fn a_first_hook_without_a_session_is_told_and_changes_no_session() {
    let mut world = launched("1.0.0", |world| {
        world.minds.get_mut(&worker()).unwrap().session = None;
    });
    let given = state(&world).session;
    world.boot(&worker());
    world.advance(Duration::from_secs(2));
    let after = state(&world);
    assert_eq!((after.phase, after.session), (Phase::Idle, given));
    assert_eq!(after.signals.hooks, Trust::Doubted);
    assert!(notices(&world)[0].contains("names no session"));
}

#[test]
fn a_first_screen_nobody_knows_leaves_the_hooks() {
    let mut world = launched("1.0.0", |_| {});
    world.boot(&worker());
    for _ in 0..40 {
        let screen = Event::ScreenSeen {
            agent: worker(),
            incarnation: FIRST,
            screen: Screen::Unrecognised {
                tail: "A new look".into(),
            },
        };
        world
            .outbox
            .retain(|w| !matches!(w.action, Action::CheckScreen { .. }));
        world.observe(screen);
        world.advance(Duration::from_millis(0));
        world.now = world.now + Duration::from_millis(500);
        world
            .outbox
            .retain(|w| !matches!(w.action, Action::CheckScreen { .. }));
        world.expire();
    }
    assert_eq!(state(&world).phase, Phase::Idle);
    assert_eq!(state(&world).signals.screen, Trust::Doubted);
    assert!(
        notices(&world)
            .iter()
            .any(|text| text.contains("A new look"))
    );
}
