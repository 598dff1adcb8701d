//! What delivery asks of the queue: what is due, what became of it, pauses, and Rally's answers that are remembered.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};

use super::{
    Attempts, Entry, Error, Outcome, Pause, Queue, StateEntry, Walked, WorkQueue, Writes, count, meta, set_meta,
};
use crate::backoff::{LONGEST_WAIT, heeded};
use crate::time::Time;

/// Receipts beyond this many are dropped, the oldest first: some 35 MB. A commit whose receipt is gone is still not
/// posted twice: its ref's tip is seen, and Rally is asked before anything is made.
const MAX_RECEIPTS: i64 = 200_000;

/// How many seen tips are kept that others reach, the youngest: half a megabyte. They count only if all those others
/// have been pruned.
const MAX_COVERED_TIPS: i64 = 10_000;

/// How many settled requests for state changes are remembered, the latest: a commit that is pushed again after all that
/// tells of it was pruned changes nothing a second time.
const MAX_SETTLED_REQUESTS: i64 = 10_000;

/// What is due at the time `:now`. What waits beyond `:latest` was put off by a clock that has been set back since.
const DUE: &str = "(next_attempt <= :now OR next_attempt > :latest)";

impl WorkQueue for Queue {
    fn due(&self, now: Time, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT * FROM changeset NOT INDEXED JOIN facts ON changeset = id WHERE dead = 0 AND {DUE} ORDER BY id LIMIT :limit"
            ))?;
            let mut found = Vec::new();
            let mut bytes = 0;
            let due = named_params! {":now": now, ":latest": now + LONGEST_WAIT, ":limit": limit as i64};
            let mut rows = statement.query(due)?;
            while let Some(row) = rows.next()? {
                let json: String = row.get("json")?;
                bytes += json.len();
                found.push(entry(row, &json)?);
                if bytes > max_bytes {
                    break;
                }
            }
            Ok(found)
        })
    }

    fn due_state_requests(&self, now: Time, limit: usize) -> Result<Vec<StateEntry>, Error> {
        self.read(|db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT *, NULL AS last_error, 0 AS dead FROM state_request WHERE done = 0 AND {DUE} ORDER BY id LIMIT :limit"
            ))?;
            let due = named_params! {":now": now, ":latest": now + LONGEST_WAIT, ":limit": limit as i64};
            let rows = statement.query_map(due, |row| {
                let request = parse(&row.get::<_, String>("json")?)?;
                Ok(StateEntry { id: row.get("id")?, request, attempts: attempts(row)? })
            })?;
            rows.collect()
        })
    }

    fn save(&mut self, entries: &[&Entry]) -> Result<(), Error> {
        self.each(entries, |tx, entry| {
            let made = serde_json::to_string(&entry.made).expect("numbers become JSON");
            let Attempts { failed, first, next, last_error, is_over } = &entry.attempts;
            tx.prepare_cached(
                "UPDATE changeset SET dead = :dead, attempts = :failed, first_attempt = :first, next_attempt = :next, \
                 last_error = :error, rally_ref = :ref, existed = :existed, settles_at = :settles_at, made = :made \
                 WHERE id = :id AND revision = :revision",
            )?
            .execute(named_params! {
                ":dead": is_over, ":failed": failed, ":first": first, ":next": next, ":error": last_error,
                ":ref": entry.rally_ref, ":existed": entry.existed, ":settles_at": column_of(entry.writes),
                ":made": made, ":id": entry.id, ":revision": entry.changeset.revision,
            })
            .map(drop)
        })
    }

    fn count(&mut self, counter: &'static str, by: i64) -> Result<(), Error> {
        self.write(|tx| count(tx, counter, by))
    }

    fn finish(&mut self, done: &[(&Entry, Outcome)], destination: &str, now: Time) -> Result<(), Error> {
        self.each(done, |tx, (entry, outcome)| {
            tx.prepare_cached("INSERT OR REPLACE INTO receipt VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                entry.changeset.revision,
                outcome.name(),
                entry.rally_ref,
                now,
                destination
            ])?;
            // It may have been dropped meanwhile, because its message was edited, and the number used again.
            let removed = tx
                .prepare_cached("DELETE FROM changeset WHERE id = ?1 AND revision = ?2")?
                .execute(params![entry.id, entry.changeset.revision])?;
            count(tx, "recorded", i64::from(removed == 0))?;
            count(tx, outcome.name(), 1)
        })
    }

    fn save_state_requests(&mut self, entries: &[StateEntry]) -> Result<(), Error> {
        self.each(entries, |tx, entry| {
            let Attempts { failed, first, next, is_over, .. } = &entry.attempts;
            tx.prepare_cached(
                "UPDATE state_request SET done = ?2, json = ?3, attempts = ?4, first_attempt = ?5, next_attempt = ?6 \
                 WHERE id = ?1",
            )?
            .execute(params![entry.id, is_over, entry.json(), failed, first, next])
            .map(drop)
        })
    }

    fn give_up(&mut self, waiting_since_before: Time, reason: &str) -> Result<Vec<String>, Error> {
        self.write(|tx| {
            let mut update = tx.prepare(
                "UPDATE changeset SET dead = 1, last_error = ?2 \
                 WHERE dead = 0 AND max(recorded_at, coalesce(first_attempt, 0)) < ?1 RETURNING revision",
            )?;
            let rows = update.query_map(params![waiting_since_before, reason], |row| row.get("revision"))?;
            rows.collect()
        })
    }

    fn pause(&self, now: Time) -> Result<Option<Pause>, Error> {
        let json = self.read(|db| meta::<String>(db, "pause"))?;
        let pause: Option<Pause> = json.and_then(|json| serde_json::from_str(&json).ok());
        Ok(pause.map(|pause| Pause { until: heeded(pause.until, now, now), ..pause }))
    }

    fn set_pause(&mut self, pause: Option<&Pause>) -> Result<(), Error> {
        self.write(|tx| match pause {
            Some(pause) => set_meta(tx, "pause", &serde_json::to_string(pause).expect("plain data becomes JSON")),
            None => tx.execute("DELETE FROM meta WHERE key = 'pause'", []).map(drop),
        })
    }

    fn cached(&self, kind: &str, key: &str, since: Time) -> Result<Option<String>, Error> {
        self.read(|db| {
            db.prepare_cached("SELECT value FROM cache WHERE kind = ?1 AND key = ?2 AND at >= ?3")?
                .query_row(params![kind, key, since], |row| row.get("value"))
                .optional()
        })
    }

    fn remember(&mut self, kind: &str, answers: &[(String, String)], now: Time) -> Result<(), Error> {
        self.each(answers, |tx, (key, value)| {
            tx.prepare_cached("INSERT OR REPLACE INTO cache VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, key, value, now])
                .map(drop)
        })
    }

    fn forget(&mut self, kind: &str, key: &str) -> Result<(), Error> {
        self.write(|tx| tx.execute("DELETE FROM cache WHERE kind = ?1 AND key = ?2", [kind, key]).map(drop))
    }
}

impl Queue {
    /// Returns when the next attempt is due, if anything waits; not after `now` for what is due.
    pub(crate) fn next_due(&self, now: Time) -> Result<Option<Time>, Error> {
        let first = format!(
            "SELECT min(CASE WHEN {DUE} THEN min(next_attempt, :now) ELSE next_attempt END) FROM \
             (SELECT next_attempt FROM changeset WHERE dead = 0 UNION ALL SELECT next_attempt FROM state_request WHERE done = 0)"
        );
        let due = named_params! {":now": now, ":latest": now + LONGEST_WAIT};
        self.read(|db| db.prepare_cached(&first)?.query_row(due, |row| row.get(0)))
    }

    /// Returns the revisions of all dead letters.
    pub(crate) fn dead_letters(&self) -> Result<Vec<String>, Error> {
        self.read(|db| {
            let mut statement = db.prepare("SELECT revision FROM changeset WHERE dead = 1 ORDER BY id")?;
            let rows = statement.query_map([], |row| row.get("revision"))?;
            rows.collect()
        })
    }

    /// Makes a dead letter due again, as if its first attempt were now: attempts go on for all of `retry_for`. Returns
    /// false if there is nothing to post: only its revision is known.
    pub(crate) fn retry(&mut self, revision: &str, now: Time) -> Result<bool, Error> {
        self.write(|tx| {
            let changed = tx.execute(
                "UPDATE changeset SET dead = 0, attempts = 0, first_attempt = ?2, next_attempt = ?2 \
                 WHERE dead = 1 AND revision = ?1 AND id IN (SELECT changeset FROM facts)",
                params![revision, now],
            )?;
            Ok(changed > 0)
        })
    }

    /// Makes due what waits for the end of a back-off.
    pub(crate) fn make_due(&mut self, now: Time) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute("UPDATE changeset SET next_attempt = ?1 WHERE dead = 0 AND next_attempt > ?1", [now])?;
            tx.execute("UPDATE state_request SET next_attempt = ?1 WHERE done = 0 AND next_attempt > ?1", [now])
                .map(drop)
        })
    }

    /// Returns how many of these revisions are queued or dead letters.
    pub(crate) fn count_left(&self, revisions: &[String]) -> Result<usize, Error> {
        self.read(|db| {
            let mut is_left = db.prepare("SELECT 1 FROM changeset WHERE revision = ?1")?;
            let left = revisions.iter().map(|revision| is_left.exists([revision]));
            left.collect::<Result<Vec<bool>, _>>().map(|left| left.into_iter().filter(|left| *left).count())
        })
    }

    /// Drops dead letters.
    pub(crate) fn forget_dead_letters(&mut self, revisions: &[String]) -> Result<(), Error> {
        self.each(revisions, |tx, revision| {
            let dropped = tx.execute("DELETE FROM changeset WHERE revision = ?1 AND dead = 1", [revision])?;
            count(tx, "recorded", -(dropped as i64))
        })
    }

    /// Keeps the database small: drops old receipts and answers. The write-ahead log is left alone: it moves into the
    /// database by itself when it is long enough, and begun again it would cost the next push another sync.
    pub(crate) fn tidy(&mut self, answers_before: Time) -> Result<(), Error> {
        self.write(|tx| {
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
            [Walked::Commits, Walked::States].iter().try_for_each(|walked| drop_covered_tips(tx, *walked))
        })?;
        // Another process may be reading; then it is done another time.
        let _ = self.read(|db| db.execute_batch("PRAGMA incremental_vacuum(1000);"));
        Ok(())
    }
}

fn drop_covered_tips(tx: &Transaction, walked: Walked) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM seen_tip WHERE walked = ?1 AND covered = 1 AND time < \
         (SELECT time FROM seen_tip WHERE walked = ?1 AND covered = 1 ORDER BY time DESC LIMIT 1 OFFSET ?2)",
        params![walked.name(), MAX_COVERED_TIPS],
    )
    .map(drop)
}

fn entry(row: &Row, json: &str) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get("id")?,
        changeset: parse(json)?,
        recorded_at: row.get("recorded_at")?,
        attempts: attempts(row)?,
        rally_ref: row.get("rally_ref")?,
        existed: row.get("existed")?,
        writes: writes_of(row.get("settles_at")?),
        made: parse_made(row.get("made")?),
    })
}

fn attempts(row: &Row) -> rusqlite::Result<Attempts> {
    Ok(Attempts {
        failed: row.get("attempts")?,
        first: row.get("first_attempt")?,
        next: row.get("next_attempt")?,
        last_error: row.get("last_error")?,
        is_over: row.get("dead")?,
    })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|_| rusqlite::Error::InvalidQuery)
}

/// Reads which Changes are known to be in Rally.
pub(super) fn parse_made(json: Option<String>) -> BTreeSet<usize> {
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

/// What stands in the column `settles_at` for [`Writes::ChangesUnknown`].
const FOUND: Time = Time::from_millis(0);

pub(super) fn writes_of(column: Option<Time>) -> Writes {
    match column {
        None => Writes::Answered,
        Some(FOUND) => Writes::ChangesUnknown,
        Some(until) => Writes::Unanswered { until },
    }
}

pub(super) fn column_of(writes: Writes) -> Option<Time> {
    match writes {
        Writes::Answered => None,
        Writes::ChangesUnknown => Some(FOUND),
        Writes::Unanswered { until } => Some(until),
    }
}
