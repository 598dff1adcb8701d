//! Numbers and reasons for `rally-hook status`.

use serde::Serialize;

use super::work::{REQUESTS, UNKNOWN_AUTHORS};
use super::{Error, Outcome, Pause, Queue, WorkQueue, meta};
use crate::time::Time;

/// What the queue holds. At all times recorded = delivered + existed + unlinked + pending + failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub recorded: i64,
    pub delivered: i64,
    /// Rally had them already.
    pub existed: i64,
    /// Rally has none of the artifacts that they name.
    pub unlinked: i64,
    pub pending: i64,
    /// Dead letters.
    pub failed: i64,
    /// Pushes whose commits are not all recorded yet.
    pub pushes: i64,
    /// Commits whose state changes are not made yet.
    pub state_requests: i64,
    /// Since when the oldest waits: a pending one, or a push.
    pub oldest_pending: Option<Time>,
    /// When something is due, now or after a back-off or pause.
    pub next_attempt: Option<Time>,
    /// How many wait until Rally can tell what became of an earlier write, and until when the last of them does.
    pub unclear: i64,
    pub unclear_until: Option<Time>,
    pub last_delivery: Option<Time>,
    pub last_error: Option<String>,
    pub pause: Option<Pause>,
    pub dead_letters: Vec<DeadLetter>,
    /// Changed paths that were left out because their commits have more than `max_changes`.
    pub omitted_changes: i64,
    /// Changesets that were created without an author, because Rally knows none of the users it could be.
    pub unknown_authors: i64,
    /// Requests that deliveries have sent to Rally.
    pub requests: i64,
    /// Whether the database was gone, with all that waited in it.
    pub lost: bool,
    /// Where a damaged database was set aside.
    pub damaged_copy: Option<String>,
    /// The repository that this one was copied from, with its queue.
    pub copy_of: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeadLetter {
    pub revision: String,
    pub reason: String,
}

impl Status {
    /// Tells whether there is anything that a process has to do.
    pub(crate) fn is_work_left(&self) -> bool {
        self.pending + self.pushes + self.state_requests > 0
    }
}

impl Queue {
    pub(crate) fn status(&self, now: Time) -> Result<Status, Error> {
        let pause = self.pause(now)?;
        let due = self.next_due(now)?;
        let kept_pushes = self.dir.kept_pushes()?.0.len() as i64;
        self.read(|db| {
            let counter = |key| Ok::<i64, rusqlite::Error>(meta(db, key)?.unwrap_or(0));
            let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
            let unclear = "SELECT count(*), max(settles_at) FROM changeset WHERE dead = 0 AND settles_at > ?1";
            let (unclear, unclear_until) = db.query_row(unclear, [now], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let time = |sql: &str| db.query_row(sql, [], |row| row.get::<_, Option<Time>>(0));
            let mut dead = db.prepare(
                "SELECT revision, coalesce(last_error, '') AS reason FROM changeset WHERE dead = 1 ORDER BY id",
            )?;
            let dead_letters = dead
                .query_map([], |row| Ok(DeadLetter { revision: row.get("revision")?, reason: row.get("reason")? }))?;
            let last_error =
                "SELECT last_error FROM changeset WHERE last_error IS NOT NULL ORDER BY dead, id DESC LIMIT 1";
            let row_error = db.query_row(last_error, [], |row| row.get::<_, String>("last_error")).ok();
            Ok(Status {
                recorded: counter("recorded")?,
                delivered: counter(Outcome::Delivered.name())?,
                existed: counter(Outcome::Existed.name())?,
                unlinked: counter(Outcome::Unlinked.name())?,
                pending: count("SELECT count(*) FROM changeset WHERE dead = 0")?,
                failed: count("SELECT count(*) FROM changeset WHERE dead = 1")?,
                // Those that the database could not take are in files beside it.
                pushes: kept_pushes + count("SELECT count(*) FROM push")?,
                state_requests: count("SELECT count(*) FROM state_request WHERE done = 0")?,
                oldest_pending: time(
                    "SELECT min(at) FROM (SELECT recorded_at AS at FROM changeset WHERE dead = 0 \
                     UNION ALL SELECT received_at FROM push)",
                )?,
                // Nothing is tried by itself before a pause is over.
                next_attempt: due.map(|next| pause.as_ref().map_or(next, |pause| next.max(pause.until))),
                unclear,
                unclear_until,
                last_delivery: time("SELECT max(at) FROM receipt WHERE outcome = 'delivered'")?,
                last_error: pause.as_ref().map(|pause| pause.error.clone()).or(row_error),
                pause,
                dead_letters: dead_letters.collect::<Result<_, _>>()?,
                omitted_changes: counter("omitted_changes")?,
                unknown_authors: counter(UNKNOWN_AUTHORS)?,
                requests: counter(REQUESTS)?,
                lost: meta::<String>(db, "lost")?.is_some(),
                damaged_copy: meta(db, "repaired")?,
                copy_of: self.home.original().map(|original| original.path().display().to_string()),
            })
        })
    }
}
