//! Numbers and reasons for `rally-hook status`.

use serde::Serialize;

use super::{Error, Pause, Queue, meta};

/// What the queue holds. At all times recorded = delivered + existed + unlinked + pending + failed.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
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
    /// When the oldest pending one was recorded; milliseconds since 1970, like all times here.
    pub oldest_pending: Option<i64>,
    pub next_attempt: Option<i64>,
    pub last_delivery: Option<i64>,
    pub last_error: Option<String>,
    pub pause: Option<Pause>,
    pub dead_letters: Vec<DeadLetter>,
    /// Changed paths that were left out because their commits have more than `max_changes`.
    pub omitted_changes: i64,
    /// Whether the database was gone, with all that waited in it.
    pub lost: bool,
    /// Where a damaged database was set aside.
    pub damaged_copy: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    pub revision: String,
    pub reason: String,
}

/// How many dead letters are listed; the rest is in the count.
const LISTED: i64 = 1000;

impl Queue {
    pub fn status(&self) -> Result<Status, Error> {
        let pause = self.pause()?;
        self.read(|db| {
            let counter = |key| Ok::<i64, rusqlite::Error>(meta(db, key)?.unwrap_or(0));
            let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
            let mut dead = db.prepare(
                "SELECT revision, coalesce(last_error, '') FROM changeset WHERE dead = 1 ORDER BY id LIMIT ?1",
            )?;
            let dead_letters =
                dead.query_map([LISTED], |row| Ok(DeadLetter { revision: row.get(0)?, reason: row.get(1)? }))?;
            let last_error =
                "SELECT last_error FROM changeset WHERE last_error IS NOT NULL ORDER BY dead, id DESC LIMIT 1";
            let row_error = db.query_row(last_error, [], |row| row.get::<_, String>(0)).ok();
            Ok(Status {
                recorded: counter("recorded")?,
                delivered: counter("delivered")?,
                existed: counter("existed")?,
                unlinked: counter("unlinked")?,
                pending: number("SELECT count(*) FROM changeset WHERE dead = 0")?.unwrap_or(0),
                failed: number("SELECT count(*) FROM changeset WHERE dead = 1")?.unwrap_or(0),
                pushes: number("SELECT count(*) FROM push")?.unwrap_or(0),
                state_requests: number("SELECT count(*) FROM state_request WHERE done = 0")?.unwrap_or(0),
                oldest_pending: number("SELECT min(recorded_at) FROM changeset WHERE dead = 0")?,
                // Nothing is tried before a pause is over, and nothing by itself where a person has to act.
                next_attempt: number("SELECT min(next_attempt) FROM changeset WHERE dead = 0")?
                    .filter(|_| !pause.as_ref().is_some_and(|pause| pause.needs_person))
                    .map(|next| next.max(pause.as_ref().map_or(0, |pause| pause.until))),
                last_delivery: number("SELECT max(at) FROM receipt WHERE outcome = 'delivered'")?,
                last_error: pause.as_ref().map(|pause| pause.error.clone()).or(row_error),
                pause,
                dead_letters: dead_letters.collect::<Result<_, _>>()?,
                omitted_changes: counter("omitted_changes")?,
                lost: meta::<String>(db, "lost")?.is_some(),
                damaged_copy: meta(db, "repaired")?,
            })
        })
    }
}
