//! Why a turn failed: Claude Code's `error` word and its message, told apart.
//!
//! The texts are those of version 2.1.197, as observed; what is only documented says so. A reset
//! time is nowhere a number in a hook: it is read from the text, which gives it in the zone of the
//! process, and instances run in UTC.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::model::{Fault, HookFact, HookReport, QuotaWindow, Timestamp};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The five-hour window cannot end later than this after the moment it was told; with some minutes
/// for clocks that differ.
const FIVE_HOURS: i64 = 5 * HOUR + 5 * MINUTE;

/// Of the report of a failed turn. An agent can write its own spool: a time in the future is none.
pub fn fault_of(report: &HookReport, now: Timestamp) -> Option<Fault> {
    let HookFact::TurnFailed { error, message } = &report.fact else {
        return None;
    };
    let at = report.at.filter(|at| *at < now).unwrap_or(now);
    Some(classify(error, message, at))
}

/// What a failed turn says. `at` is the moment it failed, which for a callback from the spool may
/// be long ago: times of day are meant as seen from there.
///
/// A reset time is the beginning of the minute that the text names, or its end while that minute
/// runs; one that is not after `at` means that the limit is over.
pub fn classify(error: &str, message: &str, at: Timestamp) -> Fault {
    // What is said about the account decides, whatever word comes with it.
    if let Some(fault) = account(message, at) {
        return fault;
    }
    match error {
        "rate_limit" => rate_limit(message, at),
        "server_error" | "overloaded" => Fault::Overloaded,
        "authentication_failed" | "oauth_org_not_allowed" => Fault::LoginRefused,
        "billing_error" => Fault::Billing,
        "model_not_found" => Fault::ModelRefused,
        "invalid_request" | "max_output_tokens" => Fault::TaskRefused,
        _ => by_status(message),
    }
}

/// Texts about the account, which come under several words: `invalid_request`, `unknown`,
/// `billing_error`, `rate_limit`.
fn account(message: &str, at: Timestamp) -> Option<Fault> {
    let says = |text: &str| contains(message, text);
    if says("organization has been disabled") || says("belongs to a disabled organization") {
        return Some(Fault::LoginRefused);
    }
    if says("specified API usage limits") {
        return Some(Fault::QuotaSpent {
            window: QuotaWindow::Account,
            resets_at: regained(message, at),
        });
    }
    (says("credit balance") && says("too low")).then_some(Fault::Billing)
}

fn rate_limit(message: &str, at: Timestamp) -> Fault {
    if contains(message, "not your usage limit") {
        return Fault::TooFast;
    }
    if let Some(window) = window(message) {
        let resets_at = resets(message, at, &window);
        return Fault::QuotaSpent { window, resets_at };
    }
    // The API names the length of a window that passes by itself.
    let passing = [
        "per minute",
        "per second",
        "concurrent",
        "acceleration",
        "Overloaded",
    ];
    if passing.iter().any(|text| contains(message, text)) {
        return Fault::TooFast;
    }
    // An API key's limit: of a month, a workspace, or of a window that only its headers tell. It
    // comes after Claude Code's own retries, so waiting a little has been tried.
    if contains(message, "Request rejected (429)") {
        return Fault::QuotaSpent {
            window: QuotaWindow::Account,
            resets_at: resets(message, at, &QuotaWindow::Account),
        };
    }
    Fault::TooFast
}

/// `You've hit your session limit`, `weekly limit`, `Opus limit`, `Fable 5 limit`; a limit that is
/// hit and has no name is the account's.
fn window(message: &str) -> Option<QuotaWindow> {
    let lower = message.to_ascii_lowercase();
    if let Some(rest) = after(&lower, "hit your ") {
        let name = rest.split("limit").next().unwrap_or_default().trim();
        if rest.contains("limit") && name.len() <= 40 {
            return Some(match name {
                "" | "usage" => QuotaWindow::Account,
                "session" | "5-hour" | "five-hour" => QuotaWindow::FiveHour,
                "weekly" => QuotaWindow::Weekly,
                model => QuotaWindow::Model(model.to_owned()),
            });
        }
    }
    let spent = ["limit reached", "out of extra usage", "out of credits"];
    spent
        .iter()
        .any(|text| lower.contains(text))
        .then_some(QuotaWindow::Account)
}

/// Of an `unknown` error: `API Error: 529 ...`, or a connection that failed.
fn by_status(message: &str) -> Fault {
    let status = after(message, "API Error: ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse::<u16>().ok());
    let network = ["Unable to connect to API", "Request timed out"];
    match status {
        Some(401 | 403) => Fault::LoginRefused,
        Some(429) => Fault::TooFast,
        Some(500..=599) => Fault::Overloaded,
        _ if network.iter().any(|text| contains(message, text)) => Fault::Overloaded,
        _ => Fault::Unclear,
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase()
        .contains(&part.to_ascii_lowercase())
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

/// `You will regain access on 2026-12-01 at 00:00 UTC.`
fn regained(message: &str, at: Timestamp) -> Option<Timestamp> {
    let mut words = after(message, "regain access on ")?.split_whitespace();
    let date: Date = words.next()?.trim_end_matches(['.', ',']).parse().ok()?;
    let time = match (words.next(), words.next()) {
        (Some("at"), Some(clock)) => clock_time(clock)?,
        _ => Time::midnight(),
    };
    in_minute(utc(date.to_datetime(time))?, at)
}

/// `resets 7:25pm (UTC)`, `resets 8pm`, `resets Nov 23, 4:25pm (UTC)`, with a year `resets Jan 2,
/// 2027, 4pm (UTC)`. `None` in another zone than UTC, which nothing here can know.
fn resets(message: &str, at: Timestamp, window: &QuotaWindow) -> Option<Timestamp> {
    let lower = message.to_ascii_lowercase();
    let rest = after(&lower, "resets ")?;
    let rest = rest.split('·').next().unwrap_or_default();
    let (text, zone) = match rest.split_once('(') {
        Some((text, zone)) => (text, zone.split(')').next().unwrap_or_default()),
        None => (rest, "utc"),
    };
    if !matches!(zone.trim(), "utc" | "gmt") {
        return None;
    }
    let told = Told::read(text)?;
    in_minute(told.moment(at, window)?, at)
}

/// A minute that runs at `at` is over at its end: the text is cut to minutes.
fn in_minute(moment: i64, at: Timestamp) -> Option<Timestamp> {
    let runs = moment <= at.0 && at.0.checked_sub(moment)? < MINUTE;
    Some(Timestamp(if runs {
        moment.checked_add(MINUTE)?
    } else {
        moment
    }))
}

/// The parts of a reset time that the text gave.
struct Told {
    month_and_day: Option<(i8, i8)>,
    year: Option<i16>,
    time: Time,
}

impl Told {
    fn read(text: &str) -> Option<Self> {
        let (mut month, mut day, mut year, mut time) = (None, None, None, None);
        let text = text
            .replace(['\u{a0}', '\u{202f}', ','], " ")
            .replace(" pm", "pm")
            .replace(" am", "am");
        for word in text.split_whitespace().take(8) {
            let word = word.trim_end_matches('.');
            if let Some(found) = month_number(word) {
                month = Some(found);
            } else if let Some(found) = clock_time(word) {
                time = Some(found);
            } else if let Ok(number) = word.parse::<i16>() {
                match number {
                    1..=31 => day = i8::try_from(number).ok(),
                    1970..=9999 => year = Some(number),
                    _ => return None,
                }
            } else if word != "at" && word != "on" {
                break;
            }
        }
        let month_and_day = match (month, day) {
            (Some(month), Some(day)) => Some((month, day)),
            (None, None) => None,
            _ => return None,
        };
        Some(Self {
            month_and_day,
            year,
            time: time?,
        })
    }

    /// In milliseconds since the epoch.
    fn moment(&self, at: Timestamp, window: &QuotaWindow) -> Option<i64> {
        let here = jiff::Timestamp::from_millisecond(at.0)
            .ok()?
            .to_zoned(TimeZone::UTC)
            .date();
        let Some((month, day)) = self.month_and_day else {
            return self.time_of_day(here, at, window);
        };
        let on = |year: i16| {
            let date = Date::new(year, month, day).ok()?;
            utc(date.to_datetime(self.time))
        };
        if let Some(year) = self.year {
            return on(year);
        }
        // This year's; around New Year the year that is nearest.
        let near = [here.year() - 1, here.year(), here.year() + 1];
        near.into_iter()
            .filter_map(on)
            .min_by_key(|moment| moment.abs_diff(at.0))
    }

    /// The next one, unless it has just been or is farther away than the window is long.
    fn time_of_day(&self, here: Date, at: Timestamp, window: &QuotaWindow) -> Option<i64> {
        let mut moment = utc(here.to_datetime(self.time))?;
        if moment <= at.0.checked_sub(MINUTE)? {
            moment = moment.checked_add(DAY)?;
        }
        let too_far = *window == QuotaWindow::FiveHour && moment.checked_sub(at.0)? > FIVE_HOURS;
        if too_far {
            moment = moment.checked_sub(DAY)?;
        }
        Some(moment)
    }
}

fn utc(moment: DateTime) -> Option<i64> {
    let zoned = moment.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

fn month_number(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let start = word.get(..3)?;
    let letters = word.chars().all(|c| c.is_ascii_alphabetic());
    let at = MONTHS.iter().position(|month| *month == start)?;
    (letters && word.len() <= 9)
        .then(|| i8::try_from(at + 1).ok())
        .flatten()
}

/// `7:25pm`, `8pm`, `00:00`.
fn clock_time(word: &str) -> Option<Time> {
    let word = word.trim_end_matches(['.', ',']);
    let (digits, half) = if let Some(digits) = word.strip_suffix("pm") {
        (digits, Some(12))
    } else if let Some(digits) = word.strip_suffix("am") {
        (digits, Some(0))
    } else {
        (word, None)
    };
    let (hour, minute) = match digits.split_once(':') {
        Some((hour, minute)) => (hour, minute.parse::<i8>().ok()?),
        // A bare number is a day or a year.
        None => (half.map(|_| digits)?, 0),
    };
    let hour: i8 = hour.parse().ok()?;
    let hour = match half {
        Some(add) if (1..=12).contains(&hour) => hour % 12 + add,
        Some(_) => return None,
        None => hour,
    };
    Time::new(hour, minute, 0, 0).ok()
}

#[cfg(test)]
mod tests;
