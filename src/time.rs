//! Moments, in the two units that occur here. The types keep them apart; the clock itself is read in [`crate::clock`].

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since 1970, as the queue stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Time(i64);

impl Time {
    pub(crate) const fn from_millis(millis: i64) -> Self {
        Time(millis)
    }

    pub(crate) const fn millis(self) -> i64 {
        self.0
    }

    /// Returns how long before `self` the other moment was, or zero if it was not.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(millis(duration)))
    }
}

/// Returns a span in milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Writes the moment as RFC 3339 in UTC, to the second.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        CommitTime::from_seconds(self.0.div_euclid(1000)).fmt(f)
    }
}

/// A commit's time in seconds since 1970, as its author's clock gave it: it may be wrong by any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CommitTime(i64);

impl CommitTime {
    pub(crate) const fn from_seconds(seconds: i64) -> Self {
        CommitTime(seconds)
    }

    /// Reads a time as RFC 3339 writes it in UTC, such as `2026-02-03T04:05:06.789Z`; from 1970 on.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let since_1970 = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since_1970.as_secs()).ok().map(CommitTime)
    }

    pub(crate) const fn seconds(self) -> i64 {
        self.0
    }
}

/// Writes the time as RFC 3339 in UTC. A time outside the years 1970 to 9999 becomes the nearest one inside.
impl fmt::Display for CommitTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const END_OF_9999: i64 = 253_402_300_799;
        let seconds = self.0.clamp(0, END_OF_9999).unsigned_abs();
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_still_dates() {
        assert_eq!(CommitTime(-5).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(CommitTime::from_seconds(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Time(1_770_091_506_999).to_string(), "2026-02-03T04:05:06Z");
    }

    #[test]
    fn a_date_is_read_as_it_is_written() {
        assert_eq!(CommitTime::parse("2026-02-03T04:05:06.789012Z"), Some(CommitTime(1_770_091_506)));
        assert_eq!([CommitTime::parse("1969-12-31T23:59:59Z"), CommitTime::parse("yesterday")], [None; 2]);
    }

    #[test]
    fn a_later_moment_is_zero_ago() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!((Time(5) + Duration::MAX).since(Time(5)), Duration::from_millis(i64::MAX as u64 - 5));
    }
}
