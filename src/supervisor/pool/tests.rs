//! Which credential is chosen, whose failure it was, whose windows they are.

use std::time::Duration;

use super::super::{Action, Event, Fleet, HookInput, Inventory, Policy, SeenContainer, Supervisor};
use super::Standing;
use crate::model::{
    AgentId, CallbackId, CredentialId, CredentialInfo, CredentialKind, Fault, HookFact, HookReport,
    Incarnation, QuotaWindow, Reply, Request, Screen, SessionId, Timestamp, Window, Windows,
};

const NOW: Timestamp = Timestamp(1_795_200_000_000);
const FIRST: Incarnation = Incarnation(1);

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn info(name: &str, subscription: bool) -> CredentialInfo {
    CredentialInfo {
        id: name.into(),
        kind: CredentialKind::SettingsEnv,
        plan: None,
        subscription,
        refreshable: false,
        expires_at: None,
        fingerprint: "1".into(),
    }
}

fn login(name: &str, expires_at: Timestamp) -> CredentialInfo {
    CredentialInfo {
        kind: CredentialKind::OauthLogin,
        refreshable: true,
        expires_at: Some(expires_at),
        ..info(name, true)
    }
}

/// Manager and workers at their prompts.
fn fleet(workers: u32, pool: Vec<CredentialInfo>) -> Supervisor {
    let policy = Policy {
        workers,
        ..Policy::default()
    };
    let agents = policy.agents();
    let sessions = agents.iter().map(|id| SessionId::new(id.as_str()));
    let fleet = Fleet::new(&agents, sessions);
    let mut supervisor = Supervisor::new(policy, fleet);
    supervisor.observe(NOW, Event::PoolRead { credentials: pool });
    supervisor.observe(NOW, Event::InventoryTaken(Inventory::Seen(Vec::new())));
    for id in agents {
        let container = format!("{id}-1");
        let launched = Event::Launched {
            agent: id.clone(),
            incarnation: FIRST,
            container,
        };
        supervisor.observe(NOW, launched);
        let source = "startup".into();
        supervisor.observe(NOW, hook(&id, HookFact::SessionStarted { source }, None));
        let screen = Event::ScreenSeen {
            agent: id,
            incarnation: FIRST,
            screen: Screen::Ready,
        };
        supervisor.observe(NOW, screen);
    }
    supervisor
}

fn has<'a>(supervisor: &'a Supervisor, agent: &AgentId) -> &'a str {
    let credential = supervisor.fleet().agents[agent].credential.as_ref();
    credential.map_or("nothing", CredentialId::as_str)
}

fn standing<'a>(supervisor: &'a Supervisor, name: &str) -> &'a Standing {
    &supervisor.fleet().pool.credentials[&CredentialId::new(name)]
}

fn hook(agent: &AgentId, fact: HookFact, fault: Option<Fault>) -> Event {
    Event::Hook(HookInput {
        report: HookReport {
            callback: CallbackId::new("callback"),
            agent: agent.clone(),
            incarnation: Some(FIRST),
            session: None,
            head: None,
            spooled: true,
            at: None,
            fact,
        },
        receipt: false,
        fault,
        jitter: 0,
    })
}

fn fails(agent: &AgentId, fault: Fault) -> Event {
    let fact = HookFact::TurnFailed {
        error: "rate_limit".into(),
        message: "said the server".into(),
    };
    hook(agent, fact, Some(fault))
}

fn spent(resets_at: Option<Timestamp>) -> Fault {
    Fault::QuotaSpent {
        window: QuotaWindow::FiveHour,
        resets_at,
    }
}

fn lends(actions: &[Action]) -> Vec<(String, String)> {
    let lend = |action: &Action| match action {
        Action::Lend {
            agent, credential, ..
        } => Some((agent.to_string(), credential.to_string())),
        _ => None,
    };
    actions.iter().filter_map(lend).collect()
}

fn lent(supervisor: &mut Supervisor, now: Timestamp, agent: &AgentId, name: &str) -> Vec<Action> {
    let event = Event::Lent {
        agent: agent.clone(),
        incarnation: FIRST,
        credential: name.into(),
    };
    supervisor.observe(now, event)
}

fn window(used_percent: f64, resets_at: Timestamp) -> Window {
    Window {
        used_percent,
        resets_at,
    }
}

fn told(
    supervisor: &mut Supervisor,
    now: Timestamp,
    agent: &AgentId,
    windows: Windows,
) -> Vec<Action> {
    let event = Event::WindowsTold {
        agent: agent.clone(),
        incarnation: FIRST,
        windows,
    };
    supervisor.observe(now, event)
}

fn worker(number: u32) -> AgentId {
    AgentId::worker(number)
}

#[test]
fn agents_are_spread_over_subscriptions_and_a_key_is_left_alone() {
    let pool = vec![info("a", true), info("b", true), info("k", false)];
    let supervisor = fleet(3, pool);
    let all: Vec<&str> = supervisor
        .fleet()
        .agents
        .keys()
        .map(|id| has(&supervisor, id))
        .collect();
    assert_eq!(all, ["a", "b", "a", "b"]);
    let keys_alone = fleet(1, vec![info("k", false), info("m", false)]);
    assert_eq!(has(&keys_alone, &AgentId::manager()), "k");
    assert_eq!(has(&keys_alone, &worker(1)), "m");
}

#[test]
fn what_expires_soonest_is_taken_unless_little_is_left() {
    let pool = vec![
        info("a", true),
        info("b", true),
        info("c", true),
        info("d", true),
    ];
    let mut supervisor = fleet(3, pool);
    let week = |days: u64, five: f64, weekly: f64| Windows {
        five_hour: Some(window(five, NOW + hours(3))),
        seven_day: Some(window(weekly, NOW + hours(24 * days))),
    };
    // Manager has a, the workers b, c and d.
    told(&mut supervisor, NOW, &worker(1), week(5, 10.0, 10.0));
    told(&mut supervisor, NOW, &worker(2), week(2, 20.0, 60.0));
    told(&mut supervisor, NOW, &worker(3), week(1, 20.0, 97.0));
    let resets = Some(NOW + hours(2));
    supervisor.observe(NOW, fails(&AgentId::manager(), spent(resets)));
    // In its turn: worker-3 was moved there just now.
    let lease = &supervisor.fleet().agents[&AgentId::manager()].lease;
    let next = lease
        .lending
        .as_ref()
        .map(|lending| lending.credential.as_str());
    assert_eq!(next, Some("c"));
}

#[test]
fn an_agent_moved_before_the_limit_is_not_moved_again_soon() {
    let mut supervisor = fleet(0, vec![info("a", true), info("b", true)]);
    let manager = AgentId::manager();
    let near = |reset: Timestamp| Windows {
        five_hour: Some(window(96.0, reset)),
        seven_day: None,
    };
    let actions = told(&mut supervisor, NOW, &manager, near(NOW + hours(2)));
    assert_eq!(lends(&actions), [("manager".into(), "b".into())]);
    lent(&mut supervisor, NOW, &manager, "b");
    // b is near its limit as well, and a is no better.
    let later = NOW + Duration::from_secs(60);
    let actions = told(&mut supervisor, later, &manager, near(NOW + hours(3)));
    assert_eq!(lends(&actions), []);
    assert_eq!(has(&supervisor, &manager), "b");
    // A near end is not worth a move.
    let mut supervisor = fleet(0, vec![info("a", true), info("b", true)]);
    let soon = NOW + Duration::from_secs(300);
    let actions = told(&mut supervisor, NOW, &manager, near(soon));
    assert_eq!(lends(&actions), []);
}

#[test]
fn what_a_swapped_agent_still_shows_is_of_its_former_credential() {
    let mut supervisor = fleet(0, vec![info("a", true), info("b", true)]);
    let manager = AgentId::manager();
    let shows = |used: f64, reset: Timestamp| Windows {
        five_hour: Some(window(used, reset)),
        seven_day: None,
    };
    told(&mut supervisor, NOW, &manager, shows(95.0, NOW + hours(2)));
    lent(&mut supervisor, NOW, &manager, "b");
    let later = NOW + Duration::from_secs(600);
    told(
        &mut supervisor,
        later,
        &manager,
        shows(98.0, NOW + hours(2)),
    );
    told(&mut supervisor, later, &manager, shows(3.0, NOW + hours(4)));
    let used = |name: &str| standing(&supervisor, name).windows.five_hour;
    assert_eq!(used("a"), Some(window(98.0, NOW + hours(2))));
    assert_eq!(used("b"), Some(window(3.0, NOW + hours(4))));
}

#[test]
fn a_window_does_not_shrink_before_its_end() {
    let mut supervisor = fleet(0, vec![info("a", true)]);
    let manager = AgentId::manager();
    for used in [40.0, 30.0] {
        let windows = Windows {
            five_hour: Some(window(used, NOW + hours(2))),
            seven_day: None,
        };
        told(&mut supervisor, NOW, &manager, windows);
    }
    let used = |supervisor: &Supervisor| standing(supervisor, "a").windows.five_hour;
    assert_eq!(used(&supervisor), Some(window(40.0, NOW + hours(2))));
    let next = Windows {
        five_hour: Some(window(1.0, NOW + hours(7))),
        seven_day: None,
    };
    told(&mut supervisor, NOW + hours(3), &manager, next);
    assert_eq!(used(&supervisor), Some(window(1.0, NOW + hours(7))));
}

#[test]
fn a_failure_just_after_an_exchange_is_of_the_former_credential() {
    let table = [
        // Seconds after the exchange, told end in hours, who is spent by then.
        (3, None, "a"),
        (30, None, "b"),
        (3, Some(5), "b"),
        (30, Some(2), "a"),
    ];
    for (after, end, whose) in table {
        let mut supervisor = fleet(0, vec![info("a", true), info("b", true), info("c", true)]);
        let manager = AgentId::manager();
        let near = Windows {
            five_hour: Some(window(96.0, NOW + hours(2))),
            seven_day: None,
        };
        told(&mut supervisor, NOW, &manager, near);
        lent(&mut supervisor, NOW, &manager, "b");
        let now = NOW + Duration::from_secs(after);
        supervisor.observe(now, fails(&manager, spent(end.map(|end| NOW + hours(end)))));
        for name in ["a", "b", "c"] {
            let is_spent = standing(&supervisor, name).spent.is_some();
            assert_eq!(
                is_spent,
                name == whose,
                "{name} after {after} s, told {end:?}"
            );
        }
    }
}

#[test]
fn a_turn_that_began_after_an_exchange_fails_because_of_the_present_credential() {
    let prompt = || HookFact::PromptSubmitted {
        text: "go on".into(),
        machine: false,
    };
    let stop = || HookFact::Stopped {
        background_tasks: 0,
        last_message: "done".into(),
    };
    // What happens between the exchange and the failure, whether it was told at once, whose it is.
    let table = [
        (None, true, "a"),
        (Some(prompt()), true, "b"),
        (Some(prompt()), false, "a"),
        (Some(stop()), true, "b"),
    ];
    for (between, at_once, whose) in table {
        let keys = ["a", "b", "c"].map(|name| info(name, false));
        let mut supervisor = fleet(0, keys.into());
        let manager = AgentId::manager();
        supervisor.observe(NOW, fails(&manager, Fault::TooFast));
        lent(&mut supervisor, NOW, &manager, "b");
        let shown = format!("{between:?} {at_once}");
        if let Some(fact) = between {
            let mut event = hook(&manager, fact, None);
            if let Event::Hook(input) = &mut event {
                input.report.spooled = !at_once;
            }
            supervisor.observe(NOW + Duration::from_secs(1), event);
        }
        let before = standing(&supervisor, "a").cooling.clone();
        let now = NOW + Duration::from_secs(5);
        supervisor.observe(now, fails(&manager, Fault::TooFast));
        let blamed = if standing(&supervisor, "b").cooling.is_some() {
            "b"
        } else {
            assert_ne!(standing(&supervisor, "a").cooling, before, "{shown}");
            "a"
        };
        assert_eq!(blamed, whose, "{shown}");
    }
}

#[test]
fn a_quota_without_an_end_is_tried_again_later_each_time() {
    let mut supervisor = fleet(0, vec![info("a", true)]);
    let mut now = NOW;
    let mut waits = Vec::new();
    for _ in 0..6 {
        supervisor.observe(now, fails(&AgentId::manager(), spent(None)));
        let until = standing(&supervisor, "a")
            .spent
            .as_ref()
            .map(|spent| spent.resets_at);
        let until = until.expect("it is spent");
        waits.push(until.since(now).as_secs() / 60);
        now = until + Duration::from_secs(30);
        supervisor.expire(now);
    }
    assert_eq!(waits, [30, 60, 120, 240, 300, 300]);
}

#[test]
fn the_exact_end_of_a_window_mends_an_estimate_and_a_text() {
    let mut supervisor = fleet(0, vec![info("a", true)]);
    let manager = AgentId::manager();
    supervisor.observe(NOW, fails(&manager, spent(None)));
    let end = NOW + hours(1) + Duration::from_secs(42);
    let full = Windows {
        five_hour: Some(window(100.0, end)),
        seven_day: None,
    };
    told(&mut supervisor, NOW, &manager, full);
    let resets_at = |supervisor: &Supervisor| {
        let spent = standing(supervisor, "a")
            .spent
            .clone()
            .expect("it is spent");
        assert!(spent.told);
        spent.resets_at
    };
    assert_eq!(resets_at(&supervisor), end);
    supervisor.observe(NOW, fails(&manager, spent(Some(NOW + hours(1)))));
    assert_eq!(resets_at(&supervisor), end);
}

#[test]
fn a_login_is_renewed_once_at_a_time_and_later_each_time_it_fails() {
    let mut supervisor = fleet(0, vec![login("l", NOW + hours(1))]);
    let credential = CredentialId::new("l");
    let refreshes = |actions: &[Action]| {
        actions
            .iter()
            .filter(|a| matches!(a, Action::Refresh { .. }))
            .count()
    };
    let mut now = NOW + Duration::from_secs(1799);
    assert_eq!(refreshes(&supervisor.expire(now)), 0);
    now = now + Duration::from_secs(1);
    assert_eq!(refreshes(&supervisor.expire(now)), 1);
    assert_eq!(refreshes(&supervisor.expire(now)), 0, "one is on its way");
    let mut waits = Vec::new();
    for _ in 0..6 {
        let failed = Event::RefreshFailed {
            credential: credential.clone(),
            reason: "no route".into(),
            dead: false,
        };
        supervisor.observe(now, failed.clone());
        supervisor.observe(now, failed);
        let next = standing(&supervisor, "l")
            .refresh_at
            .expect("it is tried again");
        waits.push(next.since(now).as_secs() / 60);
        now = next;
        assert_eq!(refreshes(&supervisor.expire(now)), 1);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
    let expires_at = Some(now + hours(8));
    let renewed = supervisor.observe(
        now,
        Event::Refreshed {
            credential,
            expires_at,
        },
    );
    assert_eq!(lends(&renewed), [("manager".into(), "l".into())]);
    assert_eq!(
        standing(&supervisor, "l").refresh_at,
        Some(now + hours(8) - Duration::from_secs(1800))
    );
}

#[test]
fn a_token_that_nobody_can_renew_is_refused_when_it_ends() {
    let ending = CredentialInfo {
        expires_at: Some(NOW + hours(1)),
        ..info("a", true)
    };
    let mut supervisor = fleet(0, vec![ending, info("b", true)]);
    assert_eq!(has(&supervisor, &AgentId::manager()), "a");
    let deadline = supervisor
        .next_deadline()
        .filter(|(at, _)| *at <= NOW + hours(1));
    assert!(deadline.is_some());
    let actions = supervisor.expire(NOW + hours(1));
    assert_eq!(lends(&actions), [("manager".into(), "b".into())]);
    assert!(standing(&supervisor, "a").refused.is_some());
    let changed = CredentialInfo {
        fingerprint: "2".into(),
        ..info("a", true)
    };
    let credentials = vec![changed, info("b", true)];
    supervisor.observe(NOW + hours(1), Event::PoolRead { credentials });
    assert!(standing(&supervisor, "a").refused.is_none());
}

#[test]
fn a_credential_is_retried_only_if_it_is_known_and_there_is_a_reason() {
    let mut supervisor = fleet(0, vec![info("a", true)]);
    let mut retry = |name: &str, now| {
        let credential = name.into();
        supervisor
            .request(now, Request::RetryCredential { credential })
            .0
    };
    let denied = retry("z", NOW);
    assert!(
        matches!(&denied, Reply::Denied { code, hint: Some(hint), .. } if code == "UNKNOWN_CREDENTIAL" && hint.contains('a')),
        "{denied:?}"
    );
    assert_eq!(retry("a", NOW), Reply::AlreadySo);
    supervisor.observe(NOW, fails(&AgentId::manager(), Fault::Billing));
    assert!(standing(&supervisor, "a").refused.is_some());
    let credential = CredentialId::new("a");
    let (reply, actions) = supervisor.request(NOW, Request::RetryCredential { credential });
    assert_eq!(reply, Reply::Accepted);
    assert_eq!(lends(&actions), [("manager".into(), "a".into())]);
}

#[test]
fn a_model_that_is_refused_is_a_matter_of_one_agent() {
    let mut supervisor = fleet(1, vec![info("a", true), info("b", true)]);
    let manager = AgentId::manager();
    let actions = supervisor.observe(NOW, fails(&manager, Fault::ModelRefused));
    assert_eq!(lends(&actions), [("manager".into(), "b".into())]);
    lent(&mut supervisor, NOW, &manager, "b");
    let later = NOW + Duration::from_secs(60);
    supervisor.observe(later, fails(&manager, Fault::ModelRefused));
    let agent = &supervisor.fleet().agents[&manager];
    assert_eq!(agent.phase.word(), "limited");
    assert!(standing(&supervisor, "a").is_ready() && standing(&supervisor, "b").is_ready());
}

#[test]
fn the_pool_survives_the_store_and_rows_without_it_load() {
    let mut supervisor = fleet(1, vec![info("a", true), login("l", NOW + hours(9))]);
    supervisor.observe(NOW, fails(&AgentId::manager(), spent(Some(NOW + hours(2)))));
    let text = serde_json::to_string(supervisor.fleet()).unwrap();
    let again: Fleet = serde_json::from_str(&text).unwrap();
    assert_eq!(&again, supervisor.fleet());
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    old.as_object_mut().unwrap().remove("pool");
    for agent in old["agents"].as_object_mut().unwrap().values_mut() {
        agent.as_object_mut().unwrap().remove("lease");
        let limited = serde_json::json!({"phase": "limited", "until": 5});
        agent["phase"] = limited;
    }
    let old: Fleet = serde_json::from_value(old).unwrap();
    assert!(old.pool.credentials.is_empty());
    assert!(old.check().is_ok());
}

#[test]
fn an_adopted_agent_is_lent_again_what_was_on_its_way() {
    let mut supervisor = fleet(0, vec![info("a", true), info("b", true)]);
    let resets = Some(NOW + hours(2));
    supervisor.observe(NOW, fails(&AgentId::manager(), spent(resets)));
    let mut next = Supervisor::new(
        Policy {
            workers: 0,
            ..Policy::default()
        },
        supervisor.fleet().clone(),
    );
    let credentials = vec![info("a", true), info("b", true)];
    let before = next.observe(NOW, Event::PoolRead { credentials });
    assert_eq!(lends(&before), [], "nothing is done before the inventory");
    let running = SeenContainer {
        name: "manager-1".into(),
        agent: AgentId::manager(),
        incarnation: FIRST,
        running: true,
        exit_code: None,
        out_of_memory: false,
    };
    let actions = next.observe(NOW, Event::InventoryTaken(Inventory::Seen(vec![running])));
    assert_eq!(lends(&actions), [("manager".into(), "b".into())]);
}

#[test]
fn with_nothing_else_a_refused_credential_gets_a_chance_now_and_then() {
    let pool = vec![info("a", true), info("b", true)];
    let mut supervisor = fleet(0, pool);
    let manager = AgentId::manager();
    supervisor.observe(NOW, fails(&manager, Fault::LoginRefused));
    lent(&mut supervisor, NOW, &manager, "b");
    supervisor.expire(NOW + hours(1));
    assert!(standing(&supervisor, "a").refused.is_some(), "b is there");
    supervisor.observe(NOW + hours(1), fails(&manager, Fault::Billing));
    assert!(standing(&supervisor, "b").refused.is_some());
    let actions = supervisor.expire(NOW + hours(2));
    assert_eq!(lends(&actions), [("manager".into(), "a".into())]);
}
