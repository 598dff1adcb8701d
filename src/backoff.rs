//! When to try again.

use std::time::Duration;

/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(3600);

/// Returns the wait after `attempts` failed ones: it doubles from `first` on up to an hour, is then shortened by up
/// to a half as `random` (0 to 1) says, so that many do not come back at once, and is never less than the server asked for, up to
/// an hour too.
pub fn delay(first: Duration, attempts: u32, random: f64, asked_for: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST);
    let jittered = doubled.mul_f64(1.0 - random / 2.0);
    jittered.max(asked_for.unwrap_or_default().min(LONGEST))
}

/// Returns a number from 0 to 1. Jitter needs no better source than the keys of the standard library's hash maps.
pub fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_an_hour_and_heeds_the_server() {
        let first = Duration::from_secs(5);
        let seconds = |attempts| delay(first, attempts, 0.0, None).as_secs();
        assert_eq!([1, 2, 3, 11, 1000].map(seconds), [5, 10, 20, 3600, 3600]);
        assert_eq!(delay(first, 1, 1.0, None), Duration::from_millis(2500));
        assert_eq!(delay(first, 1, 0.5, Some(Duration::from_secs(600))).as_secs(), 600);
        assert_eq!(delay(first, 1, 0.5, Some(Duration::from_secs(7200))).as_secs(), 3600);
        assert!((0.0..1.0).contains(&random()));
    }
}
