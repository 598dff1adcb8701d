//! What the repositories of this host have in common, in one small SQLite database beside the permits: Rally's answers
//! that are the same for all of them, and where each of them posts to.
//!
//! Nothing here is needed. What is wrong with the database (it is missing, locked, damaged, full, somebody else's, of a
//! newer version) costs only what it would have saved: the functions return `None`, from then on at once, and a damaged
//! one is removed, so that the next process makes it anew.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::store::is_damage;
use super::{PAGES_IN_LOG, inode};
use crate::host_dir::{self, HostDir};
use crate::time::Time;

const DATABASE: &str = "host.db";
/// Held while the database is opened, and alone while it is removed: nobody opens half of it.
const LOCK: &str = "host.lock";
const VERSION: i64 = 1;
const SCHEMA: &str = "
    -- What Rally answered: to whom, to which sort of question, about what.
    CREATE TABLE answer (
        source TEXT NOT NULL,
        kind   TEXT NOT NULL,
        key    TEXT NOT NULL,
        value  TEXT NOT NULL,
        at     INTEGER NOT NULL,
        PRIMARY KEY (source, kind, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX answer_at ON answer (at);
    -- Where repositories post to.
    CREATE TABLE place (
        git_dir     BLOB PRIMARY KEY,               -- the repository's directory, of any kind
        device      INTEGER NOT NULL,
        inode       INTEGER NOT NULL,
        destination TEXT NOT NULL,
        is_named    INTEGER NOT NULL,
        config_file BLOB,
        at          INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX place_destination ON place (destination);
    CREATE INDEX place_at ON place (at);
    PRAGMA user_version = 1;";

/// How long a statement waits for another process. All of them write for a moment only.
const PATIENCE: Duration = Duration::from_millis(200);
/// Older answers are dropped. Whoever asks decides how old one may be; nobody takes an older one.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How many answers, and how many places, are kept: the latest.
const MOST_ROWS: i64 = 20_000;
/// Longer ones are not kept, in bytes: authors choose a part of the keys.
const LONGEST_KEY: usize = 1000;
const LONGEST_VALUE: usize = 64 * 1024;
/// A place that was noted longer ago is noted again, so that it counts among the latest.
const NOTED_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Why the database is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("there is no directory that the processes of this host can share")]
    NoDirectory,
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not a file of this user, or everybody may write it", .0.display())]
    NotOurs(PathBuf),
    #[error("{} was written by a newer rally-hook (version {found} of its tables)", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("cannot open {}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
}

/// The database, for as long as it can be used.
pub(crate) struct Host(RefCell<Option<Opened>>);

struct Opened {
    connection: Connection,
    dir: HostDir,
    inode: u64,
}

/// A repository, and where it posts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub repo_dir: PathBuf,
    /// Device and inode number of the directory: another repository may take its path.
    pub identity: (u64, u64),
    pub destination: String,
    /// Whether the configuration names the SCMRepository, as opposed to the directory.
    pub is_named: bool,
    /// The configuration file that was named for the repository.
    pub config_file: Option<PathBuf>,
}

impl Host {
    /// Opens the database, making it if it is not there.
    pub(crate) fn open() -> Result<Self, HostError> {
        let dir = host_dir::candidates().iter().find_map(|path| HostDir::open(path).ok());
        Host::open_in(dir.ok_or(HostError::NoDirectory)?)
    }

    fn open_in(dir: HostDir) -> Result<Self, HostError> {
        let found = inode(&dir.path().join(DATABASE));
        let opened = match Opened::open(&dir) {
            Err(error) if is_damage(&error) => {
                remove(&dir, found);
                Opened::open(&dir)?
            }
            opened => opened?,
        };
        let (connection, inode) = opened;
        Ok(Host(RefCell::new(Some(Opened { connection, dir, inode }))))
    }

    fn run<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Option<T> {
        let mut opened = self.0.borrow_mut();
        match work(&mut opened.as_mut()?.connection) {
            Ok(done) => Some(done),
            Err(error) => {
                let Opened { connection, dir, inode } = opened.take()?;
                drop(connection);
                if is_damage(&error) {
                    remove(&dir, Some(inode));
                }
                None
            }
        }
    }

    fn write<T>(&self, change: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Option<T> {
        self.run(|db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&tx)?;
            tx.commit().map(|()| value)
        })
    }

    /// Returns the answer that Rally gave, if it is not older than `since`.
    pub(crate) fn answer(&self, source: &str, kind: &str, key: &str, since: Time) -> Option<Option<String>> {
        self.run(|db| {
            db.prepare_cached("SELECT value FROM answer WHERE source = ?1 AND kind = ?2 AND key = ?3 AND at >= ?4")?
                .query_row(params![source, kind, key, since], |row| row.get("value"))
                .optional()
        })
    }

    /// Keeps answers, each with its key.
    pub(crate) fn keep(&self, source: &str, kind: &str, answers: &[(String, String)], at: Time) -> Option<()> {
        let fits = |(key, value): &&(String, String)| key.len() <= LONGEST_KEY && value.len() <= LONGEST_VALUE;
        self.write(|tx| {
            for (key, value) in answers.iter().filter(fits) {
                tx.prepare_cached("INSERT OR REPLACE INTO answer VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![source, kind, key, value, at])?;
            }
            tx.execute("DELETE FROM answer WHERE at < ?1", [at - KEPT])?;
            keep_latest(tx, "answer")
        })
    }

    /// Forgets an answer.
    pub(crate) fn forget(&self, source: &str, kind: &str, key: &str) -> Option<()> {
        self.write(|tx| {
            tx.execute("DELETE FROM answer WHERE source = ?1 AND kind = ?2 AND key = ?3", [source, kind, key]).map(drop)
        })
    }

    /// Notes where a repository posts to.
    pub(crate) fn note(&self, place: &Place, now: Time) -> Option<()> {
        let known = self.run(|db| {
            db.prepare("SELECT * FROM place WHERE git_dir = ?1 AND at BETWEEN ?2 AND ?3")?
                .query_row(params![place.repo_dir.as_os_str().as_bytes(), now - NOTED_AGAIN, now], read_place)
                .optional()
        })?;
        if known.as_ref() == Some(place) {
            return Some(());
        }
        let (device, inode) = place.identity;
        let config_file = place.config_file.as_ref().map(|file| file.as_os_str().as_bytes());
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO place VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    place.repo_dir.as_os_str().as_bytes(),
                    device as i64,
                    inode as i64,
                    place.destination,
                    place.is_named,
                    config_file,
                    now
                ],
            )?;
            keep_latest(tx, "place")
        })
    }

    /// Returns the repositories that post to the same SCMRepository as this one, and still are where they were.
    pub(crate) fn others(&self, place: &Place) -> Option<Vec<Place>> {
        let noted: Vec<Place> = self.run(|db| {
            let mut select = db.prepare("SELECT * FROM place WHERE destination = ?1 ORDER BY git_dir")?;
            let rows = select.query_map([&place.destination], read_place)?;
            rows.collect()
        })?;
        let (gone, there): (Vec<Place>, Vec<Place>) = noted.into_iter().partition(Place::is_gone);
        if !gone.is_empty() {
            self.write(|tx| {
                gone.iter().try_for_each(|gone| {
                    let path = gone.repo_dir.as_os_str().as_bytes();
                    tx.execute("DELETE FROM place WHERE git_dir = ?1", [path]).map(drop)
                })
            })?;
        }
        Some(there.into_iter().filter(|other| other.identity != place.identity).collect())
    }
}

impl Place {
    /// Tells whether the repository is not there any more, or another one is. One that cannot be looked at still is there.
    fn is_gone(&self) -> bool {
        match fs::metadata(&self.repo_dir) {
            Ok(meta) => (meta.dev(), meta.ino()) != self.identity,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }
}

impl Opened {
    fn open(dir: &HostDir) -> Result<(Connection, u64), HostError> {
        // SQLite refuses a path with a link in it, which the way to a home directory may have.
        let path = dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_owned()).join(DATABASE);
        let file = |source: io::Error| HostError::File { path: path.clone(), source };
        let lock = dir.file(LOCK).map_err(file)?;
        lock.try_lock_shared().map_err(|error| file(error.into()))?;
        if !path.exists() {
            dir.file(DATABASE).map_err(file)?;
        }
        let meta = fs::symlink_metadata(&path).map_err(file)?;
        if !dir.is_trusted(&meta) {
            return Err(HostError::NotOurs(path));
        }
        let database = |source| HostError::Database { path: path.clone(), source };
        let connection = connect(&path).map_err(database)?;
        match connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database)? {
            VERSION => Ok((connection, meta.ino())),
            found => Err(HostError::Newer { path, found }),
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Whoever closes last does not remove the log: it may be that of a database that took this one's place.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = |db: &Connection| db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version(&connection)? == 0 {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have made the tables since this one looked.
        if version(&tx)? == 0 {
            tx.execute_batch(SCHEMA)?;
        }
        tx.commit()?;
    }
    // This stays with the file. While others use the database it fails, and they do it.
    let _ = connection.execute_batch("PRAGMA journal_mode = WAL;");
    // A power failure may cost the latest answers, which then are asked for again.
    connection.execute_batch("PRAGMA synchronous = NORMAL;")?;
    connection.pragma_update(None, "wal_autocheckpoint", PAGES_IN_LOG)?;
    Ok(connection)
}

/// Removes a damaged database, unless another one took its place or somebody is opening it.
fn remove(dir: &HostDir, damaged: Option<u64>) {
    let Ok(lock) = dir.file(LOCK) else { return };
    let path = dir.path().join(DATABASE);
    if lock.try_lock().is_err() || inode(&path) != damaged {
        return;
    }
    for suffix in ["-wal", "-shm", ""] {
        // If this fails, the next process finds the same damage.
        let _ = fs::remove_file(dir.path().join(format!("{DATABASE}{suffix}")));
    }
}

fn keep_latest(tx: &Transaction, table: &str) -> rusqlite::Result<()> {
    let oldest = format!("SELECT at FROM {table} ORDER BY at DESC LIMIT 1 OFFSET ?1");
    tx.prepare_cached(&format!("DELETE FROM {table} WHERE at < ({oldest})"))?.execute([MOST_ROWS]).map(drop)
}

fn read_place(row: &Row) -> rusqlite::Result<Place> {
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
    Ok(Place {
        repo_dir: path(row.get("git_dir")?),
        identity: (number("device")?, number("inode")?),
        destination: row.get("destination")?,
        is_named: row.get("is_named")?,
        config_file: row.get::<_, Option<Vec<u8>>>("config_file")?.map(path),
    })
}

/// Returns device and inode number of a directory.
pub(crate) fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const NOW: Time = Time::from_millis(1_000_000_000_000);

    fn dir() -> TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn host(dir: &TempDir) -> Result<Host, HostError> {
        Host::open_in(HostDir::open(dir.path()).expect("a directory of our own"))
    }

    fn keep(host: &Host, key: &str, at: Time) -> Option<()> {
        host.keep("source", "artifact", &[(key.to_owned(), "/defect/1".to_owned())], at)
    }

    fn find(host: &Host, key: &str) -> Option<Option<String>> {
        host.answer("source", "artifact", key, NOW - KEPT)
    }

    fn place(repo_dir: &Path, destination: &str) -> Place {
        fs::create_dir_all(repo_dir).expect("a directory");
        let identity = identity(repo_dir).expect("it is there");
        let destination = destination.to_owned();
        Place { repo_dir: repo_dir.to_owned(), identity, destination, is_named: false, config_file: None }
    }

    #[test]
    fn an_answer_is_found_by_all_of_its_source_until_it_is_forgotten() {
        let dir = dir();
        let (one, other) = (host(&dir).expect("opened"), host(&dir).expect("opened"));
        keep(&one, "DE1", NOW);
        assert_eq!(find(&other, "DE1"), Some(Some("/defect/1".to_owned())));
        assert_eq!(other.answer("another", "artifact", "DE1", NOW - KEPT), Some(None));
        other.forget("source", "artifact", "DE1");
        assert_eq!(find(&one, "DE1"), Some(None));
    }

    #[test]
    fn old_and_long_answers_are_not_kept() {
        let dir = dir();
        let host = host(&dir).expect("opened");
        let long = "x".repeat(LONGEST_KEY + 1);
        keep(&host, "old", NOW);
        keep(&host, &long, NOW);
        keep(&host, "DE1", NOW + KEPT + Duration::from_millis(1));
        let count = host.run(|db| db.query_row("SELECT count(*) FROM answer", [], |row| row.get::<_, i64>(0)));
        assert_eq!(count, Some(1));
    }

    #[test]
    fn a_damaged_database_is_made_anew() {
        let dir = dir();
        let path = dir.path().join(DATABASE);
        let used = host(&dir).expect("opened");
        keep(&used, "DE1", NOW);
        // Else the log has all of it, and SQLite repairs the database.
        used.run(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).expect("done");
        fs::write(&path, "no database at all, and long enough that SQLite reads it as one").expect("a file");
        let renewed = host(&dir).expect("opened");
        assert_eq!(find(&renewed, "DE1"), Some(None));
        keep(&renewed, "DE2", NOW);
        drop(used);
        assert_eq!(find(&host(&dir).expect("opened"), "DE2"), Some(Some("/defect/1".to_owned())));
    }

    #[test]
    fn damage_that_is_found_later_costs_the_answers_only() {
        let dir = dir();
        let used = host(&dir).expect("opened");
        used.run(|db| db.execute_batch("DROP TABLE answer")).expect("done");
        assert_eq!((find(&used, "DE1"), keep(&used, "DE1", NOW)), (None, None));
        assert_eq!(find(&host(&dir).expect("opened"), "DE1"), Some(None));
    }

    #[test]
    fn a_database_that_somebody_holds_is_not_waited_for_long() {
        let dir = dir();
        let (holder, other) = (host(&dir).expect("opened"), host(&dir).expect("opened"));
        holder.run(|db| db.execute_batch("BEGIN IMMEDIATE")).expect("begun");
        assert_eq!((keep(&other, "DE1", NOW), find(&other, "DE1")), (None, None));
    }

    #[test]
    fn a_newer_database_and_a_link_are_left_alone() {
        let newer = dir();
        host(&newer).expect("opened").run(|db| db.pragma_update(None, "user_version", VERSION + 1)).expect("written");
        assert!(matches!(host(&newer), Err(HostError::Newer { found, .. }) if found == VERSION + 1));
        let linked = dir();
        std::os::unix::fs::symlink(newer.path().join(DATABASE), linked.path().join(DATABASE)).expect("a link");
        assert!(matches!(host(&linked), Err(HostError::NotOurs(_))));
    }

    #[test]
    fn repositories_that_post_to_one_place_see_each_other_while_they_are_there() {
        let dir = dir();
        let host = host(&dir).expect("opened");
        let [one, two, gone, replaced, elsewhere] = ["one", "two", "gone", "replaced", "elsewhere"]
            .map(|name| place(&dir.path().join(name), if name == "elsewhere" { "other" } else { "api" }));
        for place in [&one, &two, &gone, &replaced, &elsewhere] {
            host.note(place, NOW).expect("noted");
        }
        fs::remove_dir(&gone.repo_dir).expect("it was there");
        fs::rename(&elsewhere.repo_dir, &replaced.repo_dir).expect("it is empty");
        assert_eq!(host.others(&one), Some(vec![two.clone()]));
        host.note(&Place { destination: "other".to_owned(), ..two }, NOW).expect("noted");
        assert_eq!(host.others(&one), Some(Vec::new()));
    }
}
