//! The durable state of a repository, in one SQLite database: what has been seen, what waits, what is done.
//!
//! This module and those below it are the only users of SQLite. Whatever belongs together is one transaction, and
//! each is on disk (synchronous FULL) when the function returns, unless [`Queue::sync_lazily`] was called. Times are arguments, in milliseconds since 1970.

mod delivery;
mod files;
mod repair;
mod seen;
mod status;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

pub use delivery::{Failure, LONGEST_WAIT, Outcome, Pause, Row, StateRow};
pub use files::{RECORD_LOCK, Sharing, StateDir};
pub use seen::{MovedTips, Walked};
pub use status::{DeadLetter, Status};

use crate::changeset::{Changeset, StateRequest};

const SCHEMA: &str = include_str!("schema.sql");
/// What makes the next version out of each earlier version of the tables, from version 1 on.
const MIGRATIONS: [&str; 1] = ["ALTER TABLE seen_tip ADD COLUMN covered INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX seen_tip_by_time ON seen_tip (walked, time);
     ALTER TABLE state_request ADD COLUMN done INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX state_request_due ON state_request (next_attempt) WHERE done = 0;
     ALTER TABLE receipt ADD COLUMN destination TEXT NOT NULL DEFAULT '';"];
/// The version of the tables in schema.sql.
const VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// Receipts beyond this many are dropped, the oldest first: some 35 MB. A commit whose receipt is gone is still not
/// posted twice: its ref's tip is seen, and Rally is asked before anything is made.
const MAX_RECEIPTS: i64 = 200_000;

/// How many seen tips are kept that others reach, the youngest: half a megabyte. They count only if all those others
/// have been pruned.
const MAX_COVERED_TIPS: i64 = 10_000;

/// How many settled requests for state changes are remembered, the latest: a commit that is pushed again after all that
/// tells of it was pruned changes nothing a second time.
const MAX_SETTLED_REQUESTS: i64 = 10_000;

/// How long the write-ahead log may get, in pages of 4 KiB: reading it takes a fraction of a millisecond.
const PAGES_IN_LOG: u32 = 50;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} is a symbolic link; remove it, the queue must be a file of its own", .0.display())]
    Link(PathBuf),
    #[error("{} belongs to user {owner}; run this as that user, or chown it if the repository changed hands", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("{} was written by a newer rally-hook (version {found} of its tables, this one knows {VERSION}); install that one again", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("the queue {} cannot be {doing}: {source}", path.display())]
    Database { path: PathBuf, doing: &'static str, source: rusqlite::Error },
}

impl Error {
    /// Tells whether the database's file is damaged, so that setting it aside helps.
    pub fn is_damage(&self) -> bool {
        let Error::Database { source, .. } = self else { return false };
        let code = source.sqlite_error_code();
        matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            || source.to_string().contains("no such table")
    }
}

/// A push whose commits are not all recorded yet.
#[derive(Debug)]
pub struct Push {
    pub id: i64,
    pub received_at: i64,
    pub pusher: String,
    /// What Git wrote to the hook's standard input.
    pub updates: Vec<u8>,
}

/// What changes in the same transaction in which the last commits of a walk are recorded.
#[derive(Debug, Default)]
pub struct Settled {
    pub pushes: Vec<i64>,
    pub commits: MovedTips,
    pub states: MovedTips,
    pub state_requests: Vec<StateRequest>,
}

pub struct Queue {
    connection: Connection,
    path: PathBuf,
    /// The file's inode number, by which a file that took its place is told from it.
    inode: Option<u64>,
}

impl Queue {
    /// Opens the queue, making it if it is not there. A statement waits up to `patience` for another process.
    ///
    /// # Errors
    /// If the file is not ours, newer than this program, damaged or unreadable.
    pub fn open(dir: &StateDir, patience: Duration) -> Result<Self, Error> {
        let path = dir.database();
        if !path.try_exists().unwrap_or(true) && !path.is_symlink() {
            create(dir)?;
            if dir.path().join(RECORD_LOCK).exists() {
                let lost = Queue::open(dir, patience)?.note_loss();
                lost?;
            }
        }
        let meta = dir.check(&path)?;
        let database = |source| Error::Database { path: path.clone(), doing: "opened", source };
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&path, flags).map_err(database)?;
        connection.busy_timeout(patience).map_err(database)?;
        // Before the version is known nothing must be written, not even by the pragmas that follow.
        let found = match meta.len() {
            0 => 0,
            _ => connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)?,
        };
        match found {
            1..=VERSION => {
                configure(&connection).map_err(database)?;
                let mut queue = Queue { inode: Some(meta.ino()), connection, path };
                if found < VERSION {
                    queue.migrate()?;
                }
                Ok(queue)
            }
            // An empty file is what a truncated database leaves, for ours appears under its name only when complete.
            0 => Err(database(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
                None,
            ))),
            found => Err(Error::Newer { path, found }),
        }
    }

    /// Brings the tables of an earlier version up to date.
    fn migrate(&mut self) -> Result<(), Error> {
        self.write("brought up to date", |tx| {
            // Another process may have done it since this one looked.
            let found: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            MIGRATIONS.iter().skip(found as usize - 1).try_for_each(|step| tx.execute_batch(step))?;
            tx.pragma_update(None, "user_version", VERSION)
        })
    }

    /// Notes that the database was gone although it had been there.
    fn note_loss(&mut self) -> Result<(), Error> {
        self.write("written", |tx| set_meta(tx, "lost", "yes"))
    }

    /// Tells whether the database was gone or damaged, and nothing has been backfilled since.
    pub fn is_loss_noted(&self) -> Result<bool, Error> {
        self.read(|db| Ok(meta::<String>(db, "lost")?.is_some()))
    }

    /// Takes it that what was lost, or may have been with a damaged file, has been made up for.
    pub fn forget_loss(&mut self) -> Result<(), Error> {
        self.write("written", |tx| tx.execute("DELETE FROM meta WHERE key IN ('lost', 'repaired')", []).map(drop))
    }

    /// Leaves what is written from now on to be synced with the next durable write. For a hook, which has kept its push
    /// durably: if power fails before, the push is still there to be recorded again, and nothing was sent, since a
    /// deliverer notes durably what it is about to send.
    pub fn sync_lazily(&mut self) -> Result<(), Error> {
        self.read(|db| db.pragma_update(None, "synchronous", "NORMAL"))
    }

    /// Tells whether the file under the queue's name is still the one that is open here. If it was removed, with its
    /// repository or by a person, what is written here is lost.
    pub fn is_current(&self) -> bool {
        self.inode.is_some() && self.inode == inode(&self.path)
    }

    /// Keeps a push before anything else is done with it. Returns its number.
    pub fn add_push(&mut self, pusher: &str, updates: &[u8], now: i64) -> Result<i64, Error> {
        self.write("written", |tx| {
            tx.execute(
                "INSERT INTO push (received_at, pusher, updates) VALUES (?1, ?2, ?3)",
                params![now, pusher, updates],
            )?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// Returns the pushes whose commits are not recorded yet, in order.
    pub fn pushes(&self) -> Result<Vec<Push>, Error> {
        self.read(|db| {
            let mut statement = db.prepare("SELECT id, received_at, pusher, updates FROM push ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok(Push { id: row.get(0)?, received_at: row.get(1)?, pusher: row.get(2)?, updates: row.get(3)? })
            })?;
            rows.collect()
        })
    }

    /// Records changesets and, with the last ones of a walk, moves the seen tips and forgets the pushes.
    /// A revision that is known already is left alone. Returns how many are new.
    pub fn record(
        &mut self,
        changesets: &[Changeset],
        settled: Option<&Settled>,
        destination: &str,
        now: i64,
    ) -> Result<usize, Error> {
        self.write("written", |tx| {
            let mut new = 0;
            for changeset in changesets {
                new += usize::from(insert_changeset(tx, changeset, destination, now)?);
            }
            if let Some(settled) = settled {
                for (id, reason) in &settled.commits.unreadable {
                    insert_unreadable(tx, &id.to_string(), reason, now)?;
                }
                seen::move_tips(tx, Walked::Commits, &settled.commits)?;
                seen::move_tips(tx, Walked::States, &settled.states)?;
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

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        query(&self.connection).map_err(|source| Error::Database { path: self.path.clone(), doing: "read", source })
    }

    fn write<T>(
        &mut self,
        doing: &'static str,
        change: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let run = || {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&tx)?;
            tx.commit().map(|()| value)
        };
        run().map_err(|source| Error::Database { path: self.path.clone(), doing, source })
    }
}

/// Makes a complete database under another name and gives it its own only then: nobody ever sees half of one.
fn create(dir: &StateDir) -> Result<(), Error> {
    let path = dir.database();
    let temporary = dir.path().join(format!("tmp-queue-{}", std::process::id()));
    let directory = |source| Error::Directory { path: path.clone(), source };
    let database = |source| Error::Database { path: path.clone(), doing: "made", source };
    let file = dir.open_file(&temporary, std::fs::OpenOptions::new().create(true).truncate(true)).map_err(directory)?;
    drop(file);
    let make = || {
        let connection = Connection::open(&temporary)?;
        connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = INCREMENTAL;")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        // This stays with the file, so that no hook has to ask for it.
        connection.execute_batch("PRAGMA journal_mode = WAL;")?;
        connection.close().map_err(|(_, error)| error)
    };
    let made = make().map_err(database).and_then(|()| match std::fs::hard_link(&temporary, &path) {
        // Another process was faster; its database is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| dir.sync()).map_err(directory),
    });
    let _ = std::fs::remove_file(&temporary);
    made
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    // Whoever opens the queue reads the whole log, so a short one is worth moving it more often.
    connection.pragma_update(None, "wal_autocheckpoint", PAGES_IN_LOG)?;
    // A hook leaves the moving of the log into the database to the deliverer, which has time.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

fn inode(path: &std::path::Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

fn insert_state_request(tx: &Transaction, request: &StateRequest, now: i64) -> rusqlite::Result<()> {
    let json = serde_json::to_string(request).expect("plain data becomes JSON");
    tx.prepare_cached("INSERT OR IGNORE INTO state_request (revision, json, next_attempt) VALUES (?1, ?2, ?3)")?
        .execute(params![request.revision, json, now])
        .map(drop)
}

fn insert_changeset(tx: &Transaction, changeset: &Changeset, destination: &str, now: i64) -> rusqlite::Result<bool> {
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
        return mend_changeset(tx, revision, &json, now);
    }
    tx.prepare_cached("INSERT INTO facts VALUES (?1, ?2)")?.execute(params![tx.last_insert_rowid(), json])?;
    count(tx, "recorded", 1)?;
    if changeset.omitted > 0 {
        count(tx, "omitted_changes", changeset.omitted as i64)?;
    }
    Ok(true)
}

/// Makes a dead letter of a commit of which nothing is known but that it was pushed.
fn insert_unreadable(tx: &Transaction, revision: &str, reason: &str, now: i64) -> rusqlite::Result<()> {
    let inserted = tx.execute(
        "INSERT OR IGNORE INTO changeset (revision, recorded_at, next_attempt, dead, last_error) SELECT ?1, ?2, ?2, 1, ?3 \
         WHERE NOT EXISTS (SELECT 1 FROM receipt WHERE revision = ?1)",
        params![revision, now, reason],
    )?;
    count(tx, "recorded", inserted as i64)
}

/// Gives a changeset back its facts, if they were lost with a damaged database.
fn mend_changeset(tx: &Transaction, revision: &str, json: &str, now: i64) -> rusqlite::Result<bool> {
    let mended = tx
        .prepare_cached("INSERT OR IGNORE INTO facts SELECT id, ?2 FROM changeset WHERE revision = ?1")?
        .execute([revision, json])?;
    if mended > 0 {
        tx.execute("UPDATE changeset SET dead = 0, next_attempt = ?2 WHERE revision = ?1", params![revision, now])?;
    }
    Ok(mended > 0)
}

fn meta<T: std::str::FromStr>(db: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    let value: Option<String> =
        db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()?;
    Ok(value.and_then(|text| text.parse().ok()))
}

fn set_meta(tx: &Transaction, key: &str, value: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
        .execute([key, value])
        .map(drop)
}

/// Moves a counter. Together they show that every recorded commit is accounted for, see [`Status`].
fn count(tx: &Transaction, key: &str, by: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + ?2")?
        .execute(params![key, by.to_string()])
        .map(drop)
}
