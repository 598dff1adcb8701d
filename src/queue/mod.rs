//! The durable state of a repository, in one SQLite database: what has been seen, what waits, what is done.
//!
//! Only this module and those below it use SQLite. What belongs together is one transaction, and each is on disk
//! (synchronous FULL) when the function returns, unless [`Queue::sync_lazily`] was called. Times are arguments.
//!
//! [`host`] is beside it: what the repositories of the host have in common, and can do without.
//!
//! [`recording`] has what recording asks of the queue. [`WorkQueue`] is what delivery asks of it, or of another store.
//! Locks, the file's inode number and SQLite's version of the data stay behind them.

#![expect(clippy::disallowed_types, reason = "this module is the user of SQLite")]

mod claim;
mod delivery;
mod dir;
mod entry;
mod home;
mod host;
mod journal;
mod ledger;
mod outbox;
mod place;
mod poll;
mod recording;
mod relocate;
mod repair;
mod seen;
mod status;
mod store;
mod work;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

pub(crate) use claim::{AtWork, Claim, Claimed, LOOK};
pub(crate) use dir::{Sharing, StateDir};
pub(crate) use entry::{Attempts, Entry, Outcome, Pause, StateEntry, Writes};
pub(crate) use home::{Home, Pin};
pub(crate) use host::{Host, HostError, Place, identity};
pub(crate) use ledger::{
    Address, Destination, DestinationStatus, FleetStatus, Held, Ledger, LedgerError, LedgerHealth, Origin,
    OriginStatus, Session, Taken, WorkerStatus,
};
pub(crate) use place::{MARKER, Trace};
pub(crate) use poll::{LEDGER, Poll, SERVER};
pub(crate) use recording::Settled;
pub(crate) use seen::Walked;
pub(crate) use status::{DeadLetter, Status};
pub(crate) use store::{Notice, Store};
pub(crate) use work::{REQUESTS, UNKNOWN_AUTHORS, WorkQueue};

use crate::files;
use crate::time::{CommitTime, Time};

const SCHEMA: &str = include_str!("schema.sql");
/// What makes the next version out of each earlier version of the tables, from version 1 on.
const MIGRATIONS: [&str; 3] = [
    "ALTER TABLE seen_tip ADD COLUMN covered INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX seen_tip_by_time ON seen_tip (walked, time);
     ALTER TABLE state_request ADD COLUMN done INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX state_request_due ON state_request (next_attempt) WHERE done = 0;
     ALTER TABLE receipt ADD COLUMN destination TEXT NOT NULL DEFAULT '';",
    "ALTER TABLE seen_tip ADD COLUMN forwarded INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE forwarded (kind TEXT NOT NULL, revision TEXT NOT NULL, json TEXT NOT NULL, position INTEGER NOT NULL,
                             at INTEGER NOT NULL, PRIMARY KEY (kind, revision)) STRICT;
     CREATE INDEX forwarded_position ON forwarded (position);",
    NAME_WITHDRAWN,
];
/// Earlier versions noted that a commit was withdrawn by an empty text in the place of its facts.
const NAME_WITHDRAWN: &str = "UPDATE forwarded SET kind = 'withdrawn' WHERE kind = 'changeset' AND json_valid(json) \
                              AND json->>'facts' = '';";
/// The version of the tables in schema.sql.
const VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// What to do where the queue was lost with all or some of what it held. Nobody else knows how far back that reaches.
pub(crate) const AFTER_LOSS: &str =
    "run `rally-hook backfill --all --since DATE`, where all commits that may be missing were made after DATE";

/// How long the write-ahead log may get, in pages of 4 KiB: reading it takes a fraction of a millisecond.
const PAGES_IN_LOG: u32 = 50;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    File(#[from] files::Error),
    #[error("cannot use {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot lock {}; if it lies on a network file system, move the repository to a local disk", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{} is a symbolic link; remove it, the queue must be a file of its own", .0.display())]
    Link(PathBuf),
    #[error("{} is not a file, so it cannot hold the queue; move it away, and a new queue takes its place", .0.display())]
    NotAFile(PathBuf),
    #[error(
        "{} belongs to user {owner}; run this as that user, or chown it if the repository changed hands", path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error(
        "{} was written by a newer rally-hook (version {found} of its tables; this one knows {VERSION}); \
         install that version again", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("queue.dir {} cannot be used: {problem}; as root, run: install -d -m 700 -o {us} {}",
        path.display(), path.display(), us = crate::process::effective_user())]
    Base { path: PathBuf, problem: String },
    #[error(
        "the queue of {} is in {}, which is not below queue.dir of the configuration; set queue.dir back, or run \
         `rally-hook install` to move the queue", repo_dir.display(), state.display()
    )]
    Elsewhere { repo_dir: PathBuf, state: PathBuf },
    #[error(
        "{}/{MARKER} names the queue of {}, which uses it; remove that file", repo_dir.display(), other.display()
    )]
    Taken { repo_dir: PathBuf, other: PathBuf },
    #[error("the queue {} was moved just now to where queue.dir says; run the command again", .0.display())]
    Moved(PathBuf),
    #[error(
        "another process uses the queue {}; stop `rally-hook worker` and processes called rally-deliver, or wait until they \
         have ended, then run `rally-hook install` again", .0.display()
    )]
    Busy(PathBuf),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the queue {} cannot be {doing}", path.display())]
    Database { path: PathBuf, doing: &'static str, source: rusqlite::Error },
}

pub(crate) struct Queue {
    connection: Connection,
    dir: StateDir,
    /// The file's inode number, which differs if another file took its place.
    inode: u64,
    home: Home,
    /// What people should know since the queue was opened.
    notice: Option<String>,
}

/// What has been written to a queue so far; it changes when another process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(i64);

impl Queue {
    /// Opens the queue, making it if it is not there. A statement waits up to `patience` for another process.
    ///
    /// # Errors
    /// If the file is not ours, newer than this program, damaged or unreadable.
    pub(crate) fn open(dir: &StateDir, patience: Duration) -> Result<Self, Error> {
        let path = dir.database();
        let is_new = !path.try_exists().unwrap_or(true) && !path.is_symlink();
        if is_new {
            create(dir)?;
        }
        let meta = dir.check(&path)?;
        if !meta.is_file() {
            return Err(Error::NotAFile(path));
        }
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
                let (inode, home) = (meta.ino(), Home::default());
                let mut queue = Queue { connection, dir: dir.clone(), inode, home, notice: None };
                if found < VERSION {
                    queue.migrate()?;
                }
                queue.settle_home()?;
                if let Some(original) = dir.copy_of().filter(|_| is_new) {
                    queue.note_copy(original)?;
                }
                Ok(queue)
            }
            relocate::MOVED => Err(Error::Moved(path)),
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
        self.write(|tx| {
            // Another process may have done it since this one looked.
            let found: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            MIGRATIONS.iter().skip(found as usize - 1).try_for_each(|step| tx.execute_batch(step))?;
            tx.pragma_update(None, "user_version", VERSION)
        })
    }

    /// Tells whether the database was gone or damaged, and what may be missing has not been backfilled since.
    pub(crate) fn is_loss_noted(&self) -> Result<bool, Error> {
        self.read(|db| Ok(meta::<String>(db, "lost")?.is_some()))
    }

    /// Notes that a person has backfilled what was lost, or may have been with a damaged file.
    pub(crate) fn forget_loss(&mut self) -> Result<(), Error> {
        self.write(|tx| tx.execute("DELETE FROM meta WHERE key IN ('lost', 'repaired')", []).map(drop))
    }

    /// Leaves what is written from now on to be synced with the next durable write. For a hook, which has kept its push
    /// durably: if power fails before, the push is still there to be recorded again, and nothing was sent, since a
    /// deliverer notes durably what it is about to send.
    pub(crate) fn sync_lazily(&mut self) -> Result<(), Error> {
        self.read(|db| db.pragma_update(None, "synchronous", "NORMAL"))
    }

    /// Returns the name of the network file system that holds the queue, if one does, and whether the journal is one for that.
    pub(crate) fn network(&self) -> Result<Option<(&'static str, bool)>, Error> {
        let Some(network) = journal::network_of(self.dir.path()) else { return Ok(None) };
        let mode: String = self.read(|db| db.pragma_query_value(None, "journal_mode", |row| row.get(0)))?;
        Ok(Some((network, mode.eq_ignore_ascii_case(journal::mode_on(Some(network))))))
    }

    /// Returns what has been written so far; `None` once the file was removed, or its repository: then nobody looks at what is
    /// written here.
    pub(crate) fn mark(&self) -> Result<Option<Mark>, Error> {
        if !self.dir.repo_dir().exists() || inode(&self.dir.database()) != Some(self.inode) {
            return Ok(None);
        }
        self.read(|db| db.pragma_query_value(None, "data_version", |row| row.get(0))).map(|version| Some(Mark(version)))
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        query(&self.connection).map_err(|source| Error::Database { path: self.dir.database(), doing: "read", source })
    }

    fn write<T>(&mut self, change: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T, Error> {
        let run = || {
            let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&tx)?;
            tx.commit().map(|()| value)
        };
        run().map_err(|source| Error::Database { path: self.dir.database(), doing: "written", source })
    }

    fn each<T>(&mut self, items: &[T], change: impl Fn(&Transaction, &T) -> rusqlite::Result<()>) -> Result<(), Error> {
        if items.is_empty() {
            return Ok(());
        }
        self.write(|tx| items.iter().try_for_each(|item| change(tx, item)))
    }
}

/// Makes a complete database under another name and gives it its own only then: nobody ever sees half of one.
fn create(dir: &StateDir) -> Result<(), Error> {
    let path = dir.database();
    let temporary = dir.path().join(format!("tmp-queue-{}", std::process::id()));
    let directory = |source| Error::Directory { path: path.clone(), source };
    let database = |source| Error::Database { path: path.clone(), doing: "created", source };
    drop(dir.open_file(&temporary, std::fs::OpenOptions::new().create(true).truncate(true))?);
    let make = || {
        let connection = Connection::open(&temporary)?;
        connection.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = INCREMENTAL;")?;
        connection.execute_batch(SCHEMA)?;
        if dir.was_used() {
            // It was there before, and is gone.
            connection.execute("INSERT INTO meta VALUES ('lost', 'yes')", [])?;
        }
        connection.pragma_update(None, "user_version", VERSION)?;
        // This stays with the file, so that no hook has to ask for it.
        let mode = journal::mode_on(journal::network_of(dir.path()));
        connection.execute_batch(&format!("PRAGMA journal_mode = {mode};"))?;
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

impl ToSql for Time {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.millis().into())
    }
}

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Time::from_millis)
    }
}

impl ToSql for CommitTime {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.seconds().into())
    }
}

impl FromSql for CommitTime {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(CommitTime::from_seconds)
    }
}
