//! Single decisions, each taken from the outbox; what is left untaken fails the test.

use std::time::Duration;

use super::{Container, Turn, World};
use crate::model::{
    AgentId, CallbackId, Ending, HookFact, HookReport, Incarnation, Reply, Request, Screen,
    Timestamp,
};
use crate::supervisor::{
    Action, Again, AgentState, Event, HookInput, Inventory, Phase, Policy, SeenContainer,
};

const FIRST: Incarnation = Incarnation(1);

fn worker() -> AgentId {
    AgentId::worker(1)
}

fn state(world: &World) -> AgentState {
    world.fleet().agents[&worker()].clone()
}

/// Manager and one worker at their prompts, nothing to do.
fn at_rest() -> World {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.run_outbox();
    world.boot(&AgentId::manager());
    world.boot(&worker());
    world.advance(Duration::from_secs(1));
    world.expect_nothing();
    world
}

/// The worker works on `write a`.
fn at_work() -> World {
    let mut world = at_rest();
    world.add_task(&worker(), "write a");
    world.run_outbox();
    assert_eq!(state(&world).phase, Phase::Working);
    world
}

fn exited(incarnation: Incarnation) -> Event {
    Event::Exited {
        agent: worker(),
        incarnation,
        exit_code: Some(1),
        out_of_memory: false,
    }
}

fn screen(screen: Screen) -> Event {
    Event::ScreenSeen {
        agent: worker(),
        incarnation: FIRST,
        screen,
    }
}

fn spooled(incarnation: Incarnation, fact: HookFact) -> Event {
    Event::Hook(HookInput {
        report: HookReport {
            callback: CallbackId::new("late"),
            agent: worker(),
            incarnation: Some(incarnation),
            session: None,
            head: None,
            spooled: true,
            at: None,
            fact,
        },
        fault: None,
        receipt: false,
        jitter: 0,
    })
}

fn stopped() -> HookFact {
    HookFact::Stopped {
        background_tasks: 0,
        last_message: "done".into(),
    }
}

fn seen(incarnation: Incarnation, running: bool) -> SeenContainer {
    SeenContainer {
        name: format!("worker-1-{incarnation}"),
        agent: worker(),
        incarnation,
        running,
        exit_code: (!running).then_some(0),
        out_of_memory: false,
    }
}

#[test]
fn start_up_is_the_first_inventory() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.expect("push");
    world.expect("launch manager 1 new session-1");
    world.expect("launch worker-1 1 new session-2");
    world.expect_nothing();
}

#[test]
fn events_of_an_earlier_life_change_nothing() {
    let mut world = at_work();
    world.exits(&worker(), 137, false);
    world.advance(Duration::from_secs(4));
    world.boot(&worker());
    world.advance(Duration::from_secs(1));
    let before = world.fleet();
    let late = [
        exited(FIRST),
        spooled(FIRST, stopped()),
        screen(Screen::Ready),
        Event::Pasted {
            agent: worker(),
            incarnation: FIRST,
        },
        Event::AnswerLost {
            agent: worker(),
            incarnation: FIRST,
            text: "write a".into(),
        },
        Event::LaunchFailed {
            agent: worker(),
            incarnation: FIRST,
            reason: "late".into(),
            hint: None,
            again: Again::Counted,
        },
    ];
    let count = late.len() as u64;
    for event in late {
        world.observe(event);
    }
    let mut after = world.fleet();
    assert_eq!(after.late_events, before.late_events + count);
    after.late_events = before.late_events;
    assert_eq!(after, before);
    world.expect_nothing();
}

#[test]
fn a_claim_told_twice_is_held_once() {
    let mut world = at_work();
    let held = state(&world).held;
    let task = world.queue.tasks[0].clone();
    world.observe(Event::Claimed {
        agent: worker(),
        task: Box::new(task),
    });
    assert_eq!(state(&world).held, held);
    assert_eq!(state(&world).finishing, []);
    world.expect_nothing();
}

#[test]
fn a_failed_launch_counts_once_and_the_same_life_is_tried_again() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.take();
    let failed = Event::LaunchFailed {
        agent: worker(),
        incarnation: FIRST,
        reason: "the engine does not answer".into(),
        hint: None,
        again: Again::Counted,
    };
    world.observe(failed.clone());
    world.observe(failed);
    assert_eq!(state(&world).crashes.len(), 1);
    world.advance(Duration::from_secs(3));
    assert_eq!(state(&world).incarnation, FIRST);
    assert!(
        world
            .trace
            .iter()
            .any(|l| l.contains("worker-1 1 launched"))
    );
}

#[test]
fn a_prompt_seen_before_the_paste_is_no_reason_for_another() {
    let mut world = at_rest();
    world.add_task(&worker(), "write a");
    assert!(matches!(&world.take()[..], [Action::Paste { .. }]));
    world.observe(screen(Screen::Ready));
    world.expect_nothing();
    // Only a look that was asked for, when the receipt is late.
    world.advance(Duration::from_secs(91));
    assert!(state(&world).held.is_some_and(|held| held.delivered));
}

#[test]
fn a_turn_of_a_person_is_no_delivery() {
    let mut world = at_rest();
    world.add_task(&worker(), "write a");
    world.take();
    world.observe(screen(Screen::Busy));
    let now = state(&world);
    assert_eq!(now.phase, Phase::Working);
    assert!(now.held.is_some_and(|held| !held.delivered));
    // The end of that turn completes nothing; it hands the task over.
    world.types(&worker(), "what is this?");
    world.turn_ends(&worker(), &Turn::default());
    assert!(world.queue.completions.is_empty());
    assert!(state(&world).held.is_some_and(|held| held.delivered));
}

#[test]
fn a_turn_that_goes_on_by_itself_after_a_crash_is_the_delivery() {
    let mut world = at_work();
    world.exits(&worker(), 137, false);
    world.advance(Duration::from_secs(4));
    world.boot(&worker());
    world.advance(Duration::from_secs(1));
    let now = state(&world);
    assert_eq!(now.phase, Phase::Working);
    assert!(
        now.held
            .is_some_and(|held| held.delivered && held.interrupted)
    );
    world.expect_nothing();
}

#[test]
fn busy_while_a_person_is_waited_for_is_no_delivery() {
    let mut world = at_rest();
    world.opens_dialog(&worker(), "rewind");
    world.add_task(&worker(), "write a");
    world.run_outbox();
    assert!(matches!(state(&world).phase, Phase::Waiting { .. }));
    world.observe(screen(Screen::Busy));
    assert!(state(&world).held.is_some_and(|held| !held.delivered));
}

#[test]
fn the_last_words_of_a_dead_process_are_a_claim_and_do_not_revive_it() {
    let mut world = at_work();
    world.exits(&worker(), 137, false);
    world.observe(spooled(FIRST, stopped()));
    world.expect("import worker-1");
    world.expect_nothing();
    let now = state(&world);
    assert!(matches!(now.phase, Phase::Backoff { .. }));
    assert_eq!((now.held, now.tasks_done), (None, 0));
    assert_eq!(now.claims.len(), 1);
    world.observe(spooled(
        FIRST,
        HookFact::PromptSubmitted {
            text: "hello".into(),
            machine: false,
        },
    ));
    assert!(matches!(state(&world).phase, Phase::Backoff { .. }));
}

#[test]
fn not_being_seen_once_is_no_end() {
    let mut world = at_work();
    world.observe(Event::InventoryTaken(Inventory::Seen(Vec::new())));
    assert_eq!(state(&world).phase, Phase::Working);
    world.expect("inventory after 2s");
    world.expect_nothing();
    world.advance(Duration::from_secs(3));
    world.observe(Event::InventoryTaken(Inventory::Seen(Vec::new())));
    assert!(matches!(state(&world).phase, Phase::Backoff { .. }));
}

#[test]
fn an_ended_container_is_an_end_and_its_spool_is_read() {
    let mut world = at_work();
    let all = vec![seen(FIRST, false)];
    world.observe(Event::InventoryTaken(Inventory::Seen(all)));
    world.expect("adopt worker-1 1");
    assert!(matches!(state(&world).phase, Phase::Backoff { .. }));
}

#[test]
fn a_container_that_was_made_and_not_started_is_no_end() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.crash_daemon();
    world.take();
    let made = Container {
        running: false,
        exit_code: None,
        out_of_memory: false,
    };
    world.containers.insert((worker(), FIRST), made);
    world.start_daemon(false);
    let launches = |a: &Action| matches!(a, Action::Launch { agent, .. } if *agent == worker());
    assert!(world.take().iter().any(launches));
    assert_eq!(
        (state(&world).incarnation, state(&world).restarts),
        (FIRST, 0)
    );
    assert_eq!(state(&world).phase, Phase::Launching);
    // The same while its launch is under way.
    let all = vec![SeenContainer {
        exit_code: None,
        ..seen(FIRST, false)
    }];
    world.observe(Event::InventoryTaken(Inventory::Seen(all)));
    assert_eq!(state(&world).phase, Phase::Launching);
}

#[test]
fn an_unreachable_engine_changes_no_agent_and_is_asked_by_one_voice() {
    let mut world = at_work();
    let before = state(&world);
    for _ in 0..3 {
        world.observe(Event::InventoryTaken(Inventory::Unreachable {
            reason: "refused".into(),
        }));
    }
    assert_eq!(state(&world), before);
    world.expect("inventory after 2s");
    world.expect_nothing();
}

#[test]
fn nothing_is_launched_beside_an_older_life() {
    let mut world = at_work();
    world.exits(&worker(), 137, false);
    world.advance(Duration::from_secs(4));
    assert_eq!(state(&world).incarnation, Incarnation(2));
    world.crash_daemon();
    world.take();
    world.start_daemon(false);
    world.take();
    world.observe(Event::InventoryTaken(Inventory::Seen(vec![seen(
        FIRST, true,
    )])));
    world.expect("stop container worker-1 1");
    let launches = |a: &Action| matches!(a, Action::Launch { agent, .. } if *agent == worker());
    assert!(!world.take().iter().any(launches));
}

#[test]
fn before_the_first_inventory_no_deadline_is_due() {
    let mut world = at_work();
    world.exits(&worker(), 137, false);
    world.crash_daemon();
    world.engine_up = false;
    world.start_daemon(false);
    world.advance(Duration::from_secs(60));
    assert_eq!(state(&world).incarnation, FIRST);
    let next = world
        .supervisor()
        .and_then(crate::supervisor::Supervisor::next_deadline);
    assert!(next.is_none_or(|(at, _)| at > world.now));
}

#[test]
fn a_stop_waits_for_a_launch_that_is_under_way() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    let launches = world.take();
    assert!(launches.len() > 1);
    let ending = Ending::Stop;
    assert_eq!(
        world.request(Request::End { ending }),
        Some(Reply::Accepted)
    );
    world.expect_nothing();
    for id in [AgentId::manager(), worker()] {
        world.observe(Event::Launched {
            agent: id.clone(),
            incarnation: FIRST,
            container: "c".into(),
        });
        world.expect(&format!("stop container {id} 1"));
        world.observe(Event::Exited {
            agent: id,
            incarnation: FIRST,
            exit_code: Some(143),
            out_of_memory: false,
        });
    }
    assert_eq!(world.finished, Some(Ending::Stop));
    world.expect_nothing();
}

#[test]
fn which_ending_may_follow_which() {
    use Ending::{Detach, Drain, Stop};
    let table = [
        (Drain, Stop, true),
        (Drain, Detach, true),
        (Stop, Detach, true),
        (Stop, Drain, false),
        (Detach, Stop, false),
        (Detach, Drain, false),
    ];
    for (first, second, allowed) in table {
        let mut world = at_work();
        world.request(Request::End { ending: first });
        world.finished = None;
        let reply = world.request(Request::End { ending: second });
        let accepted = reply == Some(Reply::Accepted);
        assert_eq!(accepted, allowed, "{first:?} then {second:?}: {reply:?}");
        let again = world.request(Request::End {
            ending: if allowed { second } else { first },
        });
        assert_eq!(again, Some(Reply::AlreadySo));
    }
}

#[test]
fn requests_that_make_no_sense_are_denied_with_a_code() {
    let mut world = at_rest();
    let agent = AgentId::worker(9);
    let reply = world.request(Request::Restart { agent });
    assert!(matches!(reply, Some(Reply::Denied { code, .. }) if code == "UNKNOWN_AGENT"));
    let ending = Ending::Drain;
    world.request(Request::End { ending });
    for request in [
        Request::Plan,
        Request::Fetch,
        Request::Restart { agent: worker() },
    ] {
        let reply = world.request(request);
        assert!(matches!(reply, Some(Reply::Denied { code, .. }) if code == "ENDING"));
    }
}

#[test]
fn a_lost_answer_is_pasted_word_for_word() {
    let mut world = at_work();
    world.add_task(&worker(), "write b");
    world.turn_ends(&worker(), &Turn::default());
    world.run_outbox();
    let text = state(&world).held.map(|held| held.text).unwrap();
    let lost = |text: &str| Event::AnswerLost {
        agent: worker(),
        incarnation: FIRST,
        text: text.to_owned(),
    };
    world.observe(lost("something else"));
    world.expect_nothing();
    world.observe(lost(&text));
    let pasted = world.take();
    assert!(matches!(&pasted[..], [Action::Paste { text: again, .. }] if *again == text));
}

#[test]
fn hooks_of_unknown_kinds_are_counted_and_let_go() {
    let mut world = at_rest();
    world.hook(
        &worker(),
        HookFact::Unknown {
            event: "Telepathy".into(),
        },
    );
    assert_eq!(world.fleet().unknown_hooks.get("Telepathy"), Some(&1));
    world.expect_nothing();
}

#[test]
fn the_backoff_doubles_and_is_bounded() {
    let policy = Policy::default();
    let seconds = |crashes| policy.backoff_after(crashes).as_secs();
    assert_eq!(
        [seconds(1), seconds(2), seconds(3), seconds(4)],
        [0, 2, 4, 8]
    );
    assert_eq!(seconds(40), policy.maximum_backoff.as_secs());
}

#[test]
fn crashes_far_apart_end_in_failed_as_well() {
    let mut world = at_rest();
    let limit = Policy::default().restarts_per_day;
    for _ in 0..limit {
        assert!(world.exits(&worker(), 1, false), "{}", world.tail());
        assert!(matches!(state(&world).phase, Phase::Backoff { .. }));
        world.advance(Duration::from_secs(1));
        world.boot(&worker());
        world.advance(Duration::from_secs(1800));
    }
    assert!(world.exits(&worker(), 1, false));
    assert_eq!(state(&world).phase, Phase::Failed);
    let reason = state(&world).reason;
    assert!(reason.contains("21 failures within 24 hours"), "{reason}");
}

#[test]
fn agents_that_die_together_come_back_apart() {
    let policy = Policy {
        workers: 4,
        ..Policy::default()
    };
    let mut world = World::new(policy.clone());
    world.start_daemon(false);
    world.run_outbox();
    let mut due = std::collections::BTreeSet::new();
    for round in 0..2 {
        for number in 1..=4 {
            let agent = AgentId::worker(number);
            assert!(world.exits(&agent, 1, false));
            if round == 1 {
                let Phase::Backoff { until, .. } = world.fleet().agents[&agent].phase else {
                    panic!("{agent} does not wait");
                };
                due.insert(until);
            }
        }
        if round == 0 {
            world.advance(Duration::from_secs(1));
            world.run_outbox();
        }
    }
    assert_eq!(due.len(), 4, "{due:?}");
}

#[test]
fn an_import_that_failed_is_tried_again() {
    let mut world = at_work();
    world.engine_up = false;
    world.turn_ends(&worker(), &Turn::default());
    world.run_outbox();
    assert_eq!(
        state(&world).import_at,
        Some(world.now + Duration::from_secs(60))
    );
    world.engine_up = true;
    world.advance(Duration::from_secs(61));
    assert_eq!(world.git.head(&worker()), world.git.branch);
    assert_eq!(world.git.remote, world.git.branch);
}

#[test]
fn the_remote_is_looked_at_after_each_start() {
    let mut world = at_rest();
    world.crash_daemon();
    world.git.remote_moves();
    world.start_daemon(false);
    world.advance(Duration::from_secs(1));
    assert!(world.git.branch_contains(&world.git.remote.clone()));
    assert!(world.fleet().merging.fetch_at > Some(Timestamp(0)));
}

#[test]
fn a_turn_whose_end_was_lost_is_found_by_a_look_and_its_task_told_again() {
    let mut world = at_work();
    world.escape(&worker());
    world.advance(Duration::from_secs(60));
    assert_eq!(state(&world).phase, Phase::Working, "no hook told");
    world.observe(Event::StoreRecovered);
    world.advance(Duration::from_secs(5));
    let held = state(&world).held.unwrap();
    assert!(
        held.delivered && held.text.starts_with("You were interrupted"),
        "{}",
        held.text
    );
    assert_eq!(state(&world).phase, Phase::Working);
    world.turn_ends(&worker(), &Turn::default());
    world.run_outbox();
    assert_eq!(world.unfinished(), Vec::<String>::new());
}

#[test]
fn a_look_at_an_agent_that_works_disturbs_nothing() {
    let mut world = at_work();
    let before = state(&world).held;
    world.observe(Event::StoreRecovered);
    world.advance(Duration::from_secs(5));
    assert_eq!(state(&world).phase, Phase::Working);
    assert_eq!(state(&world).held, before);
}

#[test]
fn a_turn_that_a_person_interrupted_and_left_goes_on() {
    let mut world = at_work();
    world.escape(&worker());
    world.advance(Duration::from_secs(60));
    assert_eq!(state(&world).phase, Phase::Working, "no hook told");
    world.advance(Duration::from_secs(90));
    let held = state(&world).held.unwrap();
    assert!(
        held.text.starts_with("You were interrupted"),
        "{}",
        held.text
    );
    world.turn_ends(&worker(), &Turn::default());
    world.run_outbox();
    assert_eq!(world.unfinished(), Vec::<String>::new());
}

#[test]
fn a_clock_set_back_while_nobody_ran_delays_nothing() {
    let mut world = at_work();
    for _ in 0..2 {
        assert!(world.exits(&worker(), 1, false), "{}", world.tail());
        world.advance(Duration::from_secs(1));
    }
    assert!(matches!(state(&world).phase, Phase::Backoff { .. }));
    world.crash_daemon();
    world.now = world.now - Duration::from_secs(3600);
    let restarted = world.now;
    world.start_daemon(false);
    world.run_outbox();
    world.advance(Policy::default().maximum_backoff * 2);
    assert!(matches!(state(&world).phase, Phase::Starting { .. }));
    world.boot(&worker());
    world.advance(Duration::from_secs(5));
    assert!(state(&world).held.is_some_and(|held| held.delivered));
    assert!(state(&world).since <= restarted + Policy::default().maximum_backoff * 3);
}

#[test]
fn what_ends_with_the_engine_is_counted_nowhere() {
    let mut world = at_work();
    for life in 2..10 {
        world.engine_stops_everything();
        world.advance(Duration::from_secs(61));
        world.engine(true);
        world.advance(Duration::from_secs(3));
        assert_eq!(state(&world).incarnation, Incarnation(life));
        world.boot(&worker());
        world.boot(&AgentId::manager());
        world.advance(Duration::from_secs(5));
        let now = state(&world);
        assert_eq!((now.crashes, now.restarts), (Vec::new(), life as u32 - 1));
        let held = now.held.unwrap();
        assert_eq!((held.failures, held.attempts), (0, 1));
        assert_eq!(now.phase, Phase::Working);
    }
    world.turn_ends(&worker(), &Turn::default());
    world.run_outbox();
    assert_eq!(world.unfinished(), Vec::<String>::new());
    // The next death is its own.
    world.exits(&worker(), 1, false);
    assert_eq!(state(&world).crashes.len(), 1);
}

#[test]
fn agents_that_outlive_the_engine_are_left_alone() {
    let mut world = at_work();
    let before = world.fleet().agents;
    world.engine(false);
    world.advance(Duration::from_secs(300));
    world.engine(true);
    world.advance(Duration::from_secs(3));
    let after = world.fleet();
    assert_eq!(after.engine_away, None);
    for (before, after) in before.values().zip(after.agents.values()) {
        assert_eq!(after.incarnation, before.incarnation);
        assert_eq!(after.phase, before.phase);
        assert_eq!(after.held, before.held);
    }
}

#[test]
fn an_agent_that_was_starting_when_the_engine_went_is_not_given_up() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.run_outbox();
    assert!(matches!(state(&world).phase, Phase::Starting { .. }));
    world.engine_stops_everything();
    world.advance(Policy::default().start_deadline * 3);
    assert!(matches!(state(&world).phase, Phase::Starting { .. }));
    world.engine(true);
    world.advance(Duration::from_secs(3));
    assert_eq!(state(&world).incarnation, Incarnation(2));
    assert_eq!(state(&world).crashes, []);
}

#[test]
fn a_launch_without_an_engine_waits_for_it_and_is_the_same_life() {
    let mut world = World::new(Policy::default());
    world.start_daemon(false);
    world.engine_up = false;
    world.advance(Duration::from_secs(600));
    let waiting = state(&world);
    assert_eq!((waiting.crashes, waiting.restarts), (Vec::new(), 0));
    assert_eq!(waiting.reason, "waits for the container engine");
    world.engine_up = true;
    world.advance(Duration::from_secs(3));
    assert!(matches!(state(&world).phase, Phase::Starting { .. }));
    assert_eq!(state(&world).incarnation, FIRST);
}

#[test]
fn lack_of_memory_again_and_again_ends_with_what_to_do() {
    let mut world = World::new(Policy {
        memory: "768MiB".into(),
        ..Policy::default()
    });
    world.start_daemon(false);
    world.advance(Duration::from_secs(1));
    while state(&world).phase != Phase::Failed {
        assert!(state(&world).crashes.len() < 6, "{}", world.tail());
        world.starves(&worker());
        world.exits(&worker(), 137, true);
        world.advance(Policy::default().maximum_backoff);
    }
    let reason = state(&world).reason;
    assert!(
        reason.ends_with("killed for lack of memory (`container.memory` is 768MiB)"),
        "{reason}"
    );
    let fleet = world.fleet();
    let own = fleet
        .notices
        .iter()
        .filter(|notice| notice.agent == Some(worker()));
    let told: Vec<_> = own.collect();
    assert!(
        !told.iter().any(|notice| notice.text.contains("goes on")),
        "{told:?}"
    );
    let last = told.last().unwrap();
    assert_eq!(last.text, reason);
    assert!(
        last.hint
            .as_ref()
            .is_some_and(|hint| hint.starts_with("raise `container.memory`")),
        "{last:?}"
    );
}

#[test]
fn a_process_on_its_way_out_is_handed_nothing() {
    let mut world = at_work();
    world.add_task(&worker(), "write b");
    let reason = "other".to_owned();
    world.hook(&worker(), HookFact::SessionEnded { reason });
    assert!(world.turn_ends(&worker(), &Turn::default()));
    assert_eq!(state(&world).held, None, "{}", world.tail());
    assert!(world.exits(&worker(), 143, false));
    world.advance(Duration::from_secs(1));
    world.boot(&worker());
    world.advance(Duration::from_secs(5));
    let held = state(&world).held;
    assert!(held.is_some_and(|held| held.delivered), "{}", world.tail());
}
