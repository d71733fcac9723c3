//! Points in time as the decisions see them: handed in, storable, never read from a clock here.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As people read it: `19:25 UTC`, with the date if that is not today.
    pub fn clock(self, now: Self) -> String {
        let minutes = self.0.div_euclid(60_000);
        let (hour, minute) = (minutes.rem_euclid(1440) / 60, minutes.rem_euclid(60));
        let day = |at: Self| at.0.div_euclid(DAY);
        if day(self) == day(now) {
            return format!("{hour:02}:{minute:02} UTC");
        }
        let (year, month, date) = civil(day(self));
        format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02} UTC")
    }
}

const DAY: i64 = 24 * 3600 * 1000;

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01. Years are counted
/// from March, so that the day a leap year has more is its last.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let from_march = days + 719_468;
    let (era, in_era) = (from_march.div_euclid(ERA), from_march.rem_euclid(ERA));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_the_date_only_of_another_day() {
        let noon = Timestamp(1_795_262_400_000);
        let evening = noon + Duration::from_secs(7 * 3600 + 25 * 60);
        assert_eq!(evening.clock(noon), "19:25 UTC");
        let later = evening + Duration::from_secs(2 * 24 * 3600);
        assert_eq!(later.clock(noon), "2026-11-23 19:25 UTC");
    }

    #[test]
    fn the_calendar_agrees_with_the_library_on_every_day_of_four_centuries() {
        use jiff::civil::date;
        let mut day = date(1970, 1, 1);
        for number in 0..146_097 {
            let (year, month, of_month) = civil(number);
            let same = (
                i64::from(day.year()),
                i64::from(day.month()),
                i64::from(day.day()),
            );
            assert_eq!((year, month, of_month), same);
            day = day.tomorrow().unwrap();
        }
    }
}
