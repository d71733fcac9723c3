use proptest::prelude::*;

use super::*;

/// A moment in UTC, as `2026-11-21T14:00:00Z`.
fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn now() -> Timestamp {
    at("2026-11-21T15:10:30Z")
}

fn spent(window: QuotaWindow, resets_at: &str) -> Fault {
    Fault::QuotaSpent {
        window,
        resets_at: Some(at(resets_at)),
    }
}

fn rate_limit(message: &str) -> Fault {
    classify("rate_limit", message, now())
}

#[test]
fn a_subscriptions_quotas_are_told_apart_and_have_their_reset() {
    for (message, window, resets_at) in [
        (
            "You've hit your session limit · resets 7:25pm (UTC)",
            QuotaWindow::FiveHour,
            "2026-11-21T19:25:00Z",
        ),
        (
            "You've hit your session limit · resets 8pm (UTC)",
            QuotaWindow::FiveHour,
            "2026-11-21T20:00:00Z",
        ),
        (
            "You've hit your weekly limit · resets Nov 23, 4:25pm (UTC)",
            QuotaWindow::Weekly,
            "2026-11-23T16:25:00Z",
        ),
        (
            "You've hit your Opus limit · resets Nov 24, 9am (UTC)",
            QuotaWindow::Model("opus".into()),
            "2026-11-24T09:00:00Z",
        ),
        (
            "You've hit your Sonnet limit · resets 12:05am (UTC)",
            QuotaWindow::Model("sonnet".into()),
            "2026-11-22T00:05:00Z",
        ),
        (
            "You've hit your Fable 5 limit · resets Jan 2, 2027, 4pm (UTC)",
            QuotaWindow::Model("fable 5".into()),
            "2027-01-02T16:00:00Z",
        ),
    ] {
        assert_eq!(rate_limit(message), spent(window, resets_at), "{message}");
    }
}

#[test]
fn the_recorded_limit_is_a_session_limit() {
    let recorded = include_str!("../samples/hooks/StopFailure-rate-limit.json");
    let json: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let message = json["last_assistant_message"].as_str().unwrap();
    let error = json["error"].as_str().unwrap();
    assert_eq!(
        classify(error, message, at("2026-11-21T16:00:00Z")),
        spent(QuotaWindow::FiveHour, "2026-11-21T20:40:00Z")
    );
}

#[test]
fn too_many_requests_at_once_are_no_quota() {
    for message in [
        "API Error: Server is temporarily limiting requests (not your usage limit) · This request would exceed your account's rate limit. Please try again later.",
        "API Error: Request rejected (429) · This request would exceed your organization's rate limit of 30,000 input tokens per minute",
        "API Error: Request rejected (429) · Number of concurrent connections has exceeded your rate limit.",
        "API Error: Request rejected (429) · This request would exceed the rate limit: acceleration limit",
        "something new",
    ] {
        assert_eq!(rate_limit(message), Fault::TooFast, "{message}");
    }
}

#[test]
fn a_keys_limit_after_its_retries_is_the_accounts() {
    let message = "API Error: Request rejected (429) · This request would exceed your account's rate limit. Please try again later.";
    let account = |resets_at| Fault::QuotaSpent {
        window: QuotaWindow::Account,
        resets_at,
    };
    assert_eq!(rate_limit(message), account(None));
    let monthly = "API Error: 400 You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.";
    for error in ["invalid_request", "unknown", "rate_limit"] {
        assert_eq!(
            classify(error, monthly, now()),
            account(Some(at("2026-12-01T00:00:00Z")))
        );
    }
    let no_time = "You have reached your specified API usage limits.";
    assert_eq!(classify("invalid_request", no_time, now()), account(None));
    assert_eq!(
        rate_limit("You've hit your limit · resets 8pm (UTC)"),
        account(Some(at("2026-11-21T20:00:00Z")))
    );
    assert_eq!(
        rate_limit("You're out of extra usage · resets 8pm (UTC)"),
        account(Some(at("2026-11-21T20:00:00Z")))
    );
}

#[test]
fn everything_else_of_the_table() {
    for (error, message, fault) in [
        (
            "server_error",
            "API Error: Repeated 529 Overloaded errors. The API is at capacity — this is usually temporary. Try again in a moment.",
            Fault::Overloaded,
        ),
        (
            "server_error",
            "API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment.",
            Fault::Overloaded,
        ),
        (
            "server_error",
            "API Error: 500 Internal server error. This is a server-side issue, usually temporary",
            Fault::Overloaded,
        ),
        (
            "server_error",
            "API Error: Unable to connect to API (ConnectionRefused)",
            Fault::Overloaded,
        ),
        (
            "server_error",
            "API Error: Unable to connect to API (ECONNRESET)",
            Fault::Overloaded,
        ),
        ("server_error", "Request timed out", Fault::Overloaded),
        ("overloaded", "", Fault::Overloaded),
        (
            "authentication_failed",
            "Invalid API key · Fix external API key",
            Fault::LoginRefused,
        ),
        (
            "authentication_failed",
            "Please run /login · API Error: 401 Invalid bearer token",
            Fault::LoginRefused,
        ),
        (
            "authentication_failed",
            "OAuth token revoked · Please run /login",
            Fault::LoginRefused,
        ),
        (
            "authentication_failed",
            "Not logged in · Please run /login",
            Fault::LoginRefused,
        ),
        (
            "oauth_org_not_allowed",
            "Your organization has disabled Claude subscription access for Claude Code · Use an API key instead",
            Fault::LoginRefused,
        ),
        ("billing_error", "Credit balance is too low", Fault::Billing),
        (
            "invalid_request",
            "API Error: 400 Your credit balance is too low to access the Anthropic API.",
            Fault::Billing,
        ),
        (
            "invalid_request",
            "Your ANTHROPIC_API_KEY belongs to a disabled organization · Update or unset the environment variable",
            Fault::LoginRefused,
        ),
        (
            "unknown",
            "API Error: 400 This organization has been disabled.",
            Fault::LoginRefused,
        ),
        (
            "model_not_found",
            "There's an issue with the selected model (X). It may not exist or you may not have access to it. Run /model to pick a different model.",
            Fault::ModelRefused,
        ),
        (
            "invalid_request",
            "Prompt is too long · 201000 tokens",
            Fault::TaskRefused,
        ),
        ("max_output_tokens", "", Fault::TaskRefused),
        ("unknown", "API Error: 503 upstream", Fault::Overloaded),
        ("unknown", "API Error: 401 no", Fault::LoginRefused),
        ("unknown", "what is this", Fault::Unclear),
        ("a_new_word", "", Fault::Unclear),
    ] {
        assert_eq!(classify(error, message, now()), fault, "{error}: {message}");
    }
}

#[test]
fn a_time_that_has_just_been_is_the_minute_that_runs() {
    let limit = "You've hit your session limit · resets 3:10pm (UTC)";
    assert_eq!(
        rate_limit(limit),
        spent(QuotaWindow::FiveHour, "2026-11-21T15:11:00Z")
    );
    let weekly = "You've hit your weekly limit · resets 3:10pm (UTC)";
    assert_eq!(
        rate_limit(weekly),
        spent(QuotaWindow::Weekly, "2026-11-21T15:11:00Z")
    );
}

#[test]
fn a_session_limit_heard_of_too_late_is_over() {
    // It could only be tomorrow's 12:25, and that is more than five hours away.
    let late = "You've hit your session limit · resets 12:25pm (UTC)";
    assert_eq!(
        rate_limit(late),
        spent(QuotaWindow::FiveHour, "2026-11-21T12:25:00Z")
    );
    // A weekly limit may well end tomorrow at that time.
    let weekly = "You've hit your weekly limit · resets 12:25pm (UTC)";
    assert_eq!(
        rate_limit(weekly),
        spent(QuotaWindow::Weekly, "2026-11-22T12:25:00Z")
    );
}

#[test]
fn a_spooled_callback_is_understood_from_when_it_happened() {
    let report = |at: Option<Timestamp>| HookReport {
        callback: "c".into(),
        agent: crate::model::AgentId::worker(1),
        incarnation: None,
        session: None,
        head: None,
        spooled: at.is_some(),
        at,
        fact: HookFact::TurnFailed {
            error: "rate_limit".into(),
            message: "You've hit your weekly limit · resets 12:25pm (UTC)".into(),
        },
    };
    let fault = |at| fault_of(&report(at), now()).unwrap();
    let today = spent(QuotaWindow::Weekly, "2026-11-21T12:25:00Z");
    let tomorrow = spent(QuotaWindow::Weekly, "2026-11-22T12:25:00Z");
    assert_eq!(fault(Some(self::at("2026-11-21T11:00:00Z"))), today);
    assert_eq!(fault(None), tomorrow);
    assert_eq!(fault(Some(self::at("2027-11-21T11:00:00Z"))), tomorrow);
    let ended = HookReport {
        fact: HookFact::Unknown { event: "x".into() },
        ..report(None)
    };
    assert_eq!(fault_of(&ended, now()), None);
}

#[test]
fn over_midnight_and_over_new_year() {
    let evening = at("2026-12-31T22:00:00Z");
    let limit = |message: &str| classify("rate_limit", message, evening);
    assert_eq!(
        limit("You've hit your session limit · resets 1:05am (UTC)"),
        spent(QuotaWindow::FiveHour, "2027-01-01T01:05:00Z")
    );
    assert_eq!(
        limit("You've hit your weekly limit · resets Jan 3, 12pm (UTC)"),
        spent(QuotaWindow::Weekly, "2027-01-03T12:00:00Z")
    );
}

#[test]
fn a_reset_that_cannot_be_read_is_none_and_the_limit_stays() {
    for text in [
        "You've hit your weekly limit",
        "You've hit your weekly limit · resets soon",
        "You've hit your weekly limit · resets 25pm (UTC)",
        "You've hit your weekly limit · resets Nov 31, 4pm (UTC)",
        "You've hit your weekly limit · resets Nov 4pm (UTC)",
        "You've hit your weekly limit · resets 7:25pm (Europe/Paris)",
    ] {
        let fault = Fault::QuotaSpent {
            window: QuotaWindow::Weekly,
            resets_at: None,
        };
        assert_eq!(rate_limit(text), fault, "{text}");
    }
}

#[test]
fn other_spellings_of_a_time_are_read_too() {
    for text in [
        "7:25 pm",
        "7:25\u{202f}pm",
        "19:25",
        "Nov 21 at 7:25pm",
        "November 21, 2026, 7:25pm",
        "7:25PM",
    ] {
        let message = format!("You've hit your session limit · resets {text} (UTC)");
        let evening = spent(QuotaWindow::FiveHour, "2026-11-21T19:25:00Z");
        assert_eq!(rate_limit(&message), evening, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        error in "(rate_limit|invalid_request|unknown|server_error|[a-z_]{0,10})",
        start in "(You've hit your |API Error: |regain access on |resets |specified API usage limits )?",
        text in "\\PC{0,80}",
        time in "(Jan|Nov|)( |, )[0-9]{0,5}(:|, )[0-9]{0,5}(am|pm|)( \\(UTC\\))?",
        at: i64,
    ) {
        for message in [
            format!("{start}{text}"),
            format!("You've hit your session limit · resets {time}"),
            format!("You've hit your weekly limit · resets {time}{text}"),
            format!("specified API usage limits. You will regain access on {time} {text}"),
        ] {
            let _ = classify(&error, &message, Timestamp(at));
            let _ = classify("rate_limit", &message, Timestamp(at));
        }
    }
}
