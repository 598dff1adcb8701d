//! What delivery asks of the store in which changesets wait.

use super::{Entry, Error, Outcome, Pause, StateEntry};
use crate::time::Time;

/// The counter of changesets that were created without an author, because Rally knows none of the users it could be.
pub(crate) const UNKNOWN_AUTHORS: &str = "unknown_authors";
/// The counter of requests that were sent.
pub(crate) const REQUESTS: &str = "requests";

/// What is due, and what becomes of it. The queue of a repository is one, and what a worker holds of the ledger another.
///
/// # Errors
/// If the store cannot be used. In the ledger also if another worker has taken over: then nothing was changed.
pub(crate) trait WorkQueue {
    /// Returns the changesets that are due, in the order in which they were recorded: at most `limit` of them, and no
    /// more than the first that exceeds `max_bytes`.
    fn due(&self, now: Time, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, Error>;

    /// Returns the requests for state changes that are due, in the order in which they were recorded.
    fn due_state_requests(&self, now: Time, limit: usize) -> Result<Vec<StateEntry>, Error>;

    /// Notes all that is known of these changesets. Before anything is sent this notes the intent, which leaves the
    /// outcome unknown if a crash follows; afterwards, the outcome.
    fn save(&mut self, entries: &[&Entry]) -> Result<(), Error>;

    /// Moves one of the counters of this module.
    fn count(&mut self, counter: &'static str, by: i64) -> Result<(), Error>;

    /// Moves what is done to the receipts.
    fn finish(&mut self, done: &[(&Entry, Outcome)], destination: &str, now: Time) -> Result<(), Error>;

    /// Notes what became of requests for state changes. One that is over is settled, one way or another.
    fn save_state_requests(&mut self, entries: &[StateEntry]) -> Result<(), Error>;

    /// Makes dead letters of all that was recorded, and first tried, before this time. Returns their revisions.
    fn give_up(&mut self, waiting_since_before: Time, reason: &str) -> Result<Vec<String>, Error>;

    /// Returns why nothing is delivered at the moment, if so.
    fn pause(&self, now: Time) -> Result<Option<Pause>, Error>;

    /// Stores the pause; `None` ends it.
    fn set_pause(&mut self, pause: Option<&Pause>) -> Result<(), Error>;

    /// Returns a remembered answer of Rally, if it is not older than `since`.
    fn cached(&self, kind: &str, key: &str, since: Time) -> Result<Option<String>, Error>;

    /// Remembers answers, each with its key.
    fn remember(&mut self, kind: &str, answers: &[(String, String)], now: Time) -> Result<(), Error>;

    /// Forgets an answer.
    fn forget(&mut self, kind: &str, key: &str) -> Result<(), Error>;
}
