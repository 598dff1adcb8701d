//! The queue as the deliverer sees it: what is due, and what became of it.

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{Error, MAX_COVERED_TIPS, MAX_RECEIPTS, MAX_SETTLED_REQUESTS, Queue, Walked, count, meta, set_meta};
use crate::changeset::{Changeset, StateRequest};

/// A changeset that waits.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i64,
    pub changeset: Changeset,
    /// How many attempts have failed.
    pub attempts: u32,
    pub first_attempt: Option<i64>,
    /// The Changeset in Rally, once it is known to be there.
    pub rally_ref: Option<String>,
    /// Whether it was there before we made one.
    pub existed: bool,
    /// Set if a write was sent whose outcome is not known: the time from which on Rally's answer can be believed.
    pub settles_at: Option<i64>,
    /// The places of the changes that are known to be in Rally.
    pub made: Vec<usize>,
}

/// A request for state changes that waits.
#[derive(Debug, Clone)]
pub struct StateRow {
    pub id: i64,
    pub request: StateRequest,
    pub attempts: u32,
    pub first_attempt: Option<i64>,
}

/// How a changeset left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Rally had it all.
    Existed,
    /// Rally has none of the artifacts that it names.
    Unlinked,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Existed => "existed",
            Outcome::Unlinked => "unlinked",
        }
    }
}

/// What becomes of a changeset whose attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub error: String,
    /// When to try again; `None` makes it a dead letter.
    pub next_attempt: Option<i64>,
}

/// Why nothing is delivered at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub until: i64,
    pub since: i64,
    pub attempts: u32,
    pub error: String,
    /// Whether a person has to act, as opposed to a service that is down.
    pub needs_person: bool,
}

impl Pause {
    /// Tells whether it still holds.
    pub fn holds(&self, now: i64) -> bool {
        (now..now + LONGEST_WAIT).contains(&self.until)
    }
}

/// No wait is as long as this, in milliseconds: what is later still was put off by a clock that was ahead and has been
/// set back.
pub const LONGEST_WAIT: i64 = 2 * 3600 * 1000;

/// What is due at time ?1. The number is [`LONGEST_WAIT`].
const DUE: &str = "(next_attempt <= ?1 OR next_attempt > ?1 + 7200000)";

const COLUMNS: &str = "id, attempts, first_attempt, rally_ref, existed, settles_at, made, json";

impl Queue {
    /// Returns what is due, in the order in which it was recorded: at most `limit` rows, and no more than the first
    /// that exceeds `max_bytes`.
    pub fn due(&self, now: i64, limit: usize, max_bytes: usize) -> Result<Vec<Row>, Error> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM changeset NOT INDEXED JOIN facts ON changeset = id WHERE dead = 0 AND {DUE} ORDER BY id LIMIT ?2"
            ))?;
            let mut found = Vec::new();
            let mut bytes = 0;
            let mut rows = statement.query(params![now, limit as i64])?;
            while let Some(row) = rows.next()? {
                let json: String = row.get(7)?;
                bytes += json.len();
                found.push(Row {
                    id: row.get(0)?,
                    attempts: row.get(1)?,
                    first_attempt: row.get(2)?,
                    rally_ref: row.get(3)?,
                    existed: row.get(4)?,
                    settles_at: row.get(5)?,
                    made: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
                    changeset: serde_json::from_str(&json).map_err(|_| rusqlite::Error::InvalidQuery)?,
                });
                if bytes > max_bytes {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// Returns the requests for state changes that are due, in the order in which they were recorded.
    pub fn due_state_requests(&self, now: i64, limit: usize) -> Result<Vec<StateRow>, Error> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT id, attempts, first_attempt, json FROM state_request WHERE done = 0 AND {DUE} ORDER BY id LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![now, limit as i64], |row| {
                let json: String = row.get(3)?;
                Ok(StateRow {
                    id: row.get(0)?,
                    attempts: row.get(1)?,
                    first_attempt: row.get(2)?,
                    request: serde_json::from_str(&json).map_err(|_| rusqlite::Error::InvalidQuery)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Notes that these requests are settled, one way or another.
    pub fn finish_state_requests(&mut self, ids: &[i64]) -> Result<(), Error> {
        self.each(ids, |tx, id| {
            tx.prepare_cached("UPDATE state_request SET done = 1, json = '' WHERE id = ?1")?.execute([id]).map(drop)
        })
    }

    /// Notes when failed requests are tried again.
    pub fn put_off_state_requests(&mut self, ids: &[(i64, i64)], now: i64) -> Result<(), Error> {
        self.each(ids, |tx, (id, next_attempt)| {
            tx.prepare_cached(
                "UPDATE state_request SET attempts = attempts + 1, first_attempt = coalesce(first_attempt, ?3), \
                 next_attempt = ?2 WHERE id = ?1",
            )?
            .execute(params![id, next_attempt, now])
            .map(drop)
        })
    }

    /// Returns when the next attempt is due, if anything waits; not after `now` for what is due.
    pub fn next_due(&self, now: i64) -> Result<Option<i64>, Error> {
        let first = format!(
            "SELECT min(CASE WHEN {DUE} THEN min(next_attempt, ?1) ELSE next_attempt END) FROM \
             (SELECT next_attempt FROM changeset WHERE dead = 0 UNION ALL SELECT next_attempt FROM state_request WHERE done = 0)"
        );
        self.read(|db| db.prepare_cached(&first)?.query_row([now], |row| row.get(0)))
    }

    /// Returns a number that changes when another process has written something.
    pub fn version(&self) -> Result<i64, Error> {
        self.read(|db| db.pragma_query_value(None, "data_version", |row| row.get(0)))
    }

    /// Notes for writes whose outcome is unknown when Rally can tell it; `None` takes that back. Before anything is
    /// sent this is noted for the time at which it will be: a crash leaves the outcome unknown.
    pub fn settle(&mut self, rows: &[(i64, Option<i64>)]) -> Result<(), Error> {
        self.each(rows, |tx, (id, at)| {
            tx.prepare_cached("UPDATE changeset SET settles_at = ?2 WHERE id = ?1")?.execute(params![id, at]).map(drop)
        })
    }

    /// Notes that these Changesets are in Rally; nothing about their Changes is unknown.
    pub fn changesets_made(&mut self, made: &[(i64, String)]) -> Result<(), Error> {
        self.each(made, |tx, (id, rally_ref)| {
            tx.prepare_cached("UPDATE changeset SET rally_ref = ?2, settles_at = NULL WHERE id = ?1")?
                .execute(params![id, rally_ref])
                .map(drop)
        })
    }

    /// Notes that these Changesets are in Rally although we do not know of having made them: which of their Changes
    /// are there has to be asked.
    pub fn changesets_found(&mut self, found: &[(i64, String, bool)]) -> Result<(), Error> {
        self.each(found, |tx, (id, rally_ref, existed)| {
            tx.prepare_cached(
                "UPDATE changeset SET rally_ref = ?2, existed = ?3, settles_at = coalesce(settles_at, 0) WHERE id = ?1",
            )?
            .execute(params![id, rally_ref, existed])
            .map(drop)
        })
    }

    /// Notes which changes are known to be in Rally.
    pub fn changes_made(&mut self, made: &[(i64, Vec<usize>)]) -> Result<(), Error> {
        self.each(made, |tx, (id, places)| {
            let json = serde_json::to_string(places).expect("numbers become JSON");
            tx.prepare_cached("UPDATE changeset SET made = ?2 WHERE id = ?1")?.execute(params![id, json]).map(drop)
        })
    }

    /// Moves what is done to the receipts.
    pub fn finish(&mut self, done: &[(i64, Outcome)], destination: &str, now: i64) -> Result<(), Error> {
        self.each(done, |tx, (id, outcome)| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO receipt SELECT revision, ?2, rally_ref, ?3, ?4 FROM changeset WHERE id = ?1",
            )?
            .execute(params![id, outcome.name(), now, destination])?;
            tx.prepare_cached("DELETE FROM changeset WHERE id = ?1")?.execute([id])?;
            count(tx, outcome.name(), 1)
        })
    }

    /// Notes failed attempts.
    pub fn fail(&mut self, failures: &[(i64, Failure)], now: i64) -> Result<(), Error> {
        self.each(failures, |tx, (id, failure)| {
            tx.prepare_cached(
                "UPDATE changeset SET attempts = attempts + 1, first_attempt = coalesce(first_attempt, ?2), \
                 dead = ?3, next_attempt = coalesce(?4, next_attempt), last_error = ?5 WHERE id = ?1",
            )?
            .execute(params![id, now, failure.next_attempt.is_none(), failure.next_attempt, failure.error])
            .map(drop)
        })
    }

    /// Puts rows off without counting an attempt: it is too early to ask for the outcome of a write.
    pub fn put_off(&mut self, ids: &[(i64, i64)]) -> Result<(), Error> {
        self.each(ids, |tx, (id, until)| {
            tx.prepare_cached("UPDATE changeset SET next_attempt = ?2 WHERE id = ?1")?
                .execute(params![id, until])
                .map(drop)
        })
    }

    /// Makes dead letters of all that has waited since before `recorded_before`. Returns their revisions.
    pub fn give_up(&mut self, recorded_before: i64, reason: &str) -> Result<Vec<String>, Error> {
        self.write("written", |tx| {
            let mut update = tx.prepare(
                "UPDATE changeset SET dead = 1, last_error = ?2 WHERE dead = 0 AND recorded_at < ?1 RETURNING revision",
            )?;
            let rows = update.query_map(params![recorded_before, reason], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Makes dead letters due again: the one with this revision (or its beginning), or all. Returns how many.
    pub fn retry(&mut self, revision: Option<&str>, now: i64) -> Result<usize, Error> {
        self.write("written", |tx| {
            tx.execute(
                "UPDATE changeset SET dead = 0, attempts = 0, first_attempt = NULL, next_attempt = ?2 \
                 WHERE dead = 1 AND substr(revision, 1, length(?1)) = ?1 AND id IN (SELECT changeset FROM facts)",
                params![revision.unwrap_or(""), now],
            )
        })
    }

    /// Returns the dead letters of which nothing but the revision is known, among all or those that begin so.
    pub fn letters_without_facts(&self, revision: Option<&str>) -> Result<Vec<String>, Error> {
        self.read(|db| {
            let mut statement = db.prepare(
                "SELECT revision FROM changeset WHERE dead = 1 AND substr(revision, 1, length(?1)) = ?1 \
                 AND id NOT IN (SELECT changeset FROM facts)",
            )?;
            let rows = statement.query_map([revision.unwrap_or("")], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Forgets dead letters that nobody can ever post.
    pub fn forget_letters(&mut self, revisions: &[String]) -> Result<(), Error> {
        self.each(revisions, |tx, revision| {
            tx.execute("DELETE FROM changeset WHERE revision = ?1 AND dead = 1", [revision])?;
            count(tx, "recorded", -1)
        })
    }

    /// Notes that a Changeset is not in Rally any more, with all that is known of its Changes.
    pub fn unmake(&mut self, id: i64) -> Result<(), Error> {
        self.write("written", |tx| {
            tx.execute(
                "UPDATE changeset SET rally_ref = NULL, existed = 0, made = '[]', settles_at = NULL WHERE id = ?1",
                [id],
            )
            .map(drop)
        })
    }

    pub fn pause(&self) -> Result<Option<Pause>, Error> {
        self.read(|db| Ok(meta::<String>(db, "pause")?.and_then(|json| serde_json::from_str(&json).ok())))
    }

    pub fn set_pause(&mut self, pause: Option<&Pause>) -> Result<(), Error> {
        self.write("written", |tx| match pause {
            Some(pause) => set_meta(tx, "pause", &serde_json::to_string(pause).expect("plain data becomes JSON")),
            None => tx.execute("DELETE FROM meta WHERE key = 'pause'", []).map(drop),
        })
    }

    /// Returns a remembered answer of Rally, if it is not older than `since`.
    pub fn cached(&self, kind: &str, key: &str, since: i64) -> Result<Option<String>, Error> {
        self.read(|db| {
            db.prepare_cached("SELECT value FROM cache WHERE kind = ?1 AND key = ?2 AND at >= ?3")?
                .query_row(params![kind, key, since], |row| row.get(0))
                .optional()
        })
    }

    pub fn remember(&mut self, kind: &str, answers: &[(String, String)], now: i64) -> Result<(), Error> {
        self.each(answers, |tx, (key, value)| {
            tx.prepare_cached("INSERT OR REPLACE INTO cache VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, key, value, now])
                .map(drop)
        })
    }

    /// Forgets one answer, or with no key all of that kind.
    pub fn forget(&mut self, kind: &str, key: Option<&str>) -> Result<(), Error> {
        self.write("written", |tx| {
            tx.execute("DELETE FROM cache WHERE kind = ?1 AND key = coalesce(?2, key)", [Some(kind), key]).map(drop)
        })
    }

    /// Keeps the database small: drops old receipts and answers. The write-ahead log is left alone: it moves into the
    /// database by itself when it is long enough, and begun anew it would cost the next push another sync.
    pub fn tidy(&mut self, answers_before: i64) -> Result<(), Error> {
        self.write("written", |tx| {
            tx.execute("DELETE FROM cache WHERE at < ?1", [answers_before])?;
            tx.execute(
                "DELETE FROM receipt WHERE at < (SELECT at FROM receipt ORDER BY at DESC LIMIT 1 OFFSET ?1)",
                [MAX_RECEIPTS],
            )?;
            tx.execute(
                "DELETE FROM state_request WHERE done = 1 AND id < \
                 (SELECT id FROM state_request WHERE done = 1 ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                [MAX_SETTLED_REQUESTS],
            )?;
            for walked in [Walked::Commits, Walked::States] {
                tx.execute(
                    "DELETE FROM seen_tip WHERE walked = ?1 AND covered = 1 AND time < \
                     (SELECT time FROM seen_tip WHERE walked = ?1 AND covered = 1 ORDER BY time DESC LIMIT 1 OFFSET ?2)",
                    params![walked.name(), MAX_COVERED_TIPS],
                )?;
            }
            Ok(())
        })?;
        // Another process may be reading; then it is done another time.
        let _ = self.read(|db| db.execute_batch("PRAGMA incremental_vacuum(1000);"));
        Ok(())
    }

    fn each<T>(&mut self, items: &[T], change: impl Fn(&Transaction, &T) -> rusqlite::Result<()>) -> Result<(), Error> {
        if items.is_empty() {
            return Ok(());
        }
        self.write("written", |tx| items.iter().try_for_each(|item| change(tx, item)))
    }
}
