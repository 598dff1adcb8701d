//! When to try again, and for how long.

use std::time::Duration;

use crate::time::Time;

/// The longest wait between two attempts, also where the server asks for more.
const LONGEST: Duration = Duration::from_secs(3600);

/// No wait that is written to disk is as long as this. A time further ahead was written by a clock that was ahead and
/// has been set back since.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);

/// How failed attempts are repeated, as `[queue]` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// The wait after the first failed attempt.
    pub delay: Duration,
    /// How long attempts go on.
    pub patience: Duration,
}

impl Retry {
    /// Returns the wait after `attempts` failed ones: it doubles up to an hour, is then shortened by up to a half as
    /// `random` (0 to 1) says, so that many do not come back at once, and is not shorter than the server asked for, up
    /// to an hour too.
    pub(crate) fn wait(&self, attempts: u32, random: f64, asked_for: Option<Duration>) -> Duration {
        let doubled = self.delay.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST);
        doubled.mul_f64(1.0 - random / 2.0).max(asked_for.unwrap_or_default().min(LONGEST))
    }

    /// Tells whether attempts that began at `first` have gone on for long enough.
    pub(crate) fn is_over(&self, first: Time, now: Time) -> bool {
        now.since(first) > self.patience
    }
}

/// Returns the time until which something waits, as it was read from disk; `instead` where a clock that was set back
/// has made it meaningless.
pub(crate) fn heeded(until: Time, now: Time, instead: Time) -> Time {
    if until > now + LONGEST_WAIT { instead } else { until }
}

/// Returns a number from 0 to 1. Jitter needs no better source than the keys of the standard library's hash maps.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { delay: Duration::from_secs(5), patience: Duration::from_secs(60) };

    #[test]
    fn the_wait_doubles_up_to_an_hour() {
        let seconds = |attempts| RETRY.wait(attempts, 0.0, None).as_secs();
        assert_eq!([1, 2, 3, 11, 1000].map(seconds), [5, 10, 20, 3600, 3600]);
    }

    #[test]
    fn chance_shortens_the_wait_by_half_at_most() {
        assert_eq!(RETRY.wait(1, 1.0, None), Duration::from_millis(2500));
        assert!((0.0..1.0).contains(&random()));
    }

    #[test]
    fn the_server_may_ask_for_up_to_an_hour() {
        let asked = |seconds| RETRY.wait(1, 0.5, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!([1, 600, 7200].map(asked), [3, 600, 3600]);
    }

    #[test]
    fn attempts_end_when_patience_does() {
        let first = Time::from_millis(0);
        assert!(!RETRY.is_over(first, Time::from_millis(60_000)));
        assert!(RETRY.is_over(first, Time::from_millis(60_001)));
        assert!(!RETRY.is_over(Time::from_millis(5_000), first));
    }

    #[test]
    fn a_time_that_a_clock_set_back_left_far_ahead_does_not_count() {
        let (now, instead) = (Time::from_millis(0), Time::from_millis(7));
        let soon = now + LONGEST_WAIT;
        assert_eq!(heeded(soon, now, instead), soon);
        assert_eq!(heeded(soon + Duration::from_millis(1), now, instead), instead);
    }
}
