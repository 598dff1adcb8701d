//! What recording asks of the queue: pushes in, changesets in, seen tips moved.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Error, Queue, StateDir, Walked, count, seen};
use crate::changeset::{Changeset, StateRequest};
use crate::commit::MovedTips;
use crate::time::Time;

/// A push whose commits are not all recorded yet.
#[derive(Debug)]
pub(crate) struct Push {
    pub id: i64,
    pub received_at: Time,
    /// What the hook was given.
    pub input: Vec<u8>,
}

/// What changes in the same transaction in which the last commits of a walk are recorded.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub pushes: Vec<i64>,
    pub commit_tips: MovedTips,
    pub state_tips: MovedTips,
    pub state_requests: Vec<StateRequest>,
    /// Revisions that cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
}

impl Queue {
    /// Keeps a push before anything else is done with it.
    pub(crate) fn add_push(&mut self, pusher: &str, input: &[u8], now: Time) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute(
                "INSERT INTO push (received_at, pusher, updates) VALUES (?1, ?2, ?3)",
                params![now, pusher, input],
            )
            .map(drop)
        })
    }

    /// Takes in the pushes that were kept in files while the database could not be written.
    pub(crate) fn add_kept_pushes(&mut self, now: Time) -> Result<(), Error> {
        for path in self.dir.kept_pushes()?.0 {
            let (pusher, input) = StateDir::read_push(&path)?;
            self.add_push(&pusher, &input, now)?;
            // If this fails the push is walked once more, which records nothing new.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Returns the pushes whose commits are not recorded yet, in order.
    pub(crate) fn pushes(&self) -> Result<Vec<Push>, Error> {
        self.read(|db| {
            let mut statement = db.prepare("SELECT id, received_at, updates FROM push ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok(Push { id: row.get("id")?, received_at: row.get("received_at")?, input: row.get("updates")? })
            })?;
            rows.collect()
        })
    }

    /// Tells whether pushes wait in files beside the database.
    pub(crate) fn has_kept_pushes(&self) -> Result<bool, Error> {
        Ok(!self.dir.kept_pushes()?.0.is_empty())
    }

    /// Records changesets and, with the last ones of a walk, moves the seen tips and forgets the pushes.
    /// A revision that is known already is left alone. Returns how many are new.
    pub(crate) fn record(
        &mut self,
        changesets: &[Changeset],
        settled: Option<&Settled>,
        destination: &str,
        now: Time,
    ) -> Result<usize, Error> {
        self.write(|tx| {
            let mut new = 0;
            for changeset in changesets {
                new += usize::from(insert_changeset(tx, changeset, destination, now)?);
            }
            if let Some(settled) = settled {
                for (revision, reason) in &settled.unreadable {
                    insert_unreadable(tx, revision, reason, now)?;
                }
                seen::move_tips(tx, Walked::Commits, &settled.commit_tips)?;
                seen::move_tips(tx, Walked::States, &settled.state_tips)?;
                for request in &settled.state_requests {
                    insert_state_request(tx, request, now)?;
                }
                for push in &settled.pushes {
                    tx.execute("DELETE FROM push WHERE id = ?1", [push])?;
                }
            }
            Ok(new)
        })
    }
}

impl Queue {
    /// Records a commit that was changed, or that is not to be posted any more. Returns false for one that Rally has,
    /// or may have: it is left alone.
    pub(crate) fn renew(
        &mut self,
        revision: &str,
        changeset: Option<&Changeset>,
        destination: &str,
        now: Time,
    ) -> Result<bool, Error> {
        const IS_POSTED: &str = "SELECT EXISTS (SELECT 1 FROM receipt WHERE revision = ?1 AND outcome <> 'unlinked') OR \
             EXISTS (SELECT 1 FROM changeset WHERE revision = ?1 AND (rally_ref IS NOT NULL OR settles_at IS NOT NULL))";
        self.write(|tx| {
            if tx.query_row(IS_POSTED, [revision], |row| row.get(0))? {
                return Ok(false);
            }
            let Some(changeset) = changeset else {
                let dropped = tx.execute("DELETE FROM changeset WHERE revision = ?1", [revision])?;
                Queue::withdraw_forwarded(tx, revision, now)?;
                count(tx, "recorded", -(dropped as i64))?;
                return Ok(true);
            };
            let json = serde_json::to_string(changeset).expect("plain data becomes JSON");
            let changed = tx.execute(
                "UPDATE facts SET json = ?2 WHERE changeset = (SELECT id FROM changeset WHERE revision = ?1)",
                [revision, &json],
            )?;
            if changed == 0 {
                insert_changeset(tx, changeset, destination, now)?;
            }
            Ok(true)
        })
    }
}

fn insert_state_request(tx: &Transaction, request: &StateRequest, now: Time) -> rusqlite::Result<()> {
    let json = serde_json::to_string(request).expect("plain data becomes JSON");
    tx.prepare_cached("INSERT OR IGNORE INTO state_request (revision, json, next_attempt) VALUES (?1, ?2, ?3)")?
        .execute(params![request.revision, json, now])
        .map(drop)
}

fn insert_changeset(tx: &Transaction, changeset: &Changeset, destination: &str, now: Time) -> rusqlite::Result<bool> {
    let revision = &changeset.revision;
    let receipt: Option<(String, String)> = tx
        .prepare_cached("SELECT outcome, destination FROM receipt WHERE revision = ?1")?
        .query_row([revision], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((outcome, delivered_to)) = receipt {
        // What is known to be there is left alone. Where its artifacts were unknown they may be there by now, and another
        // workspace or repository has nothing of what this one has: a backfill tries again.
        let is_there = outcome != "unlinked" && (delivered_to == destination || delivered_to.is_empty());
        if is_there {
            return Ok(false);
        }
        tx.execute("DELETE FROM receipt WHERE revision = ?1", [revision])?;
        count(tx, &outcome, -1)?;
        count(tx, "recorded", -1)?;
    }
    let inserted = tx
        .prepare_cached("INSERT OR IGNORE INTO changeset (revision, recorded_at, next_attempt) VALUES (?1, ?2, ?2)")?
        .execute(params![revision, now])?;
    let json = serde_json::to_string(changeset).expect("plain data becomes JSON");
    if inserted == 0 {
        return restore_facts(tx, revision, &json, now);
    }
    tx.prepare_cached("INSERT INTO facts VALUES (?1, ?2)")?.execute(params![tx.last_insert_rowid(), json])?;
    count(tx, "recorded", 1)?;
    if changeset.omitted > 0 {
        count(tx, "omitted_changes", changeset.omitted as i64)?;
    }
    Ok(true)
}

/// Makes a dead letter of a commit of which nothing is known but that it was pushed.
fn insert_unreadable(tx: &Transaction, revision: &str, reason: &str, now: Time) -> rusqlite::Result<()> {
    let inserted = tx.execute(
        "INSERT OR IGNORE INTO changeset (revision, recorded_at, next_attempt, dead, last_error) SELECT ?1, ?2, ?2, 1, ?3 \
         WHERE NOT EXISTS (SELECT 1 FROM receipt WHERE revision = ?1)",
        params![revision, now, reason],
    )?;
    count(tx, "recorded", inserted as i64)
}

/// Gives a changeset back its facts, if they were lost with a damaged database.
fn restore_facts(tx: &Transaction, revision: &str, json: &str, now: Time) -> rusqlite::Result<bool> {
    let restored = tx
        .prepare_cached("INSERT OR IGNORE INTO facts SELECT id, ?2 FROM changeset WHERE revision = ?1")?
        .execute([revision, json])?;
    if restored > 0 {
        tx.execute("UPDATE changeset SET dead = 0, next_attempt = ?2 WHERE revision = ?1", params![revision, now])?;
    }
    Ok(restored > 0)
}
