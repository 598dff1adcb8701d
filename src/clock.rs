//! The clock: the only module that asks what time it is. All others are told.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Time;

/// Returns the present moment.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A limit for work that must end in time, which no change of the system's clock moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn after(budget: std::time::Duration) -> Self {
        Deadline(Instant::now() + budget)
    }

    /// Returns how long it is until then.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn left(self) -> std::time::Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }
}
