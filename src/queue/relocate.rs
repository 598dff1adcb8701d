//! Moves a repository's state to where the configuration wants it, which may be another disk.
//!
//! Nothing is lost if pushes come meanwhile: from the moment in which the old database is copied nobody can write to it, and
//! hooks keep their pushes in files, which the new queue takes in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi};

use super::claim::Claim;
use super::place::{self, Base};
use super::repair::copy_readable_rows;
use super::{Error, Queue, Sharing, StateDir};

/// The version of a database whose rows are elsewhere now.
pub(super) const MOVED: i64 = -1;
const PATIENCE: Duration = Duration::from_secs(1);
/// In an order in which each row finds those that it refers to.
const TABLES: [&str; 9] =
    ["meta", "receipt", "changeset", "facts", "push", "state_request", "seen_tip", "cache", "forwarded"];
const LOG: &str = "log";

impl StateDir {
    /// Moves the state of a repository to where the configuration wants it. Returns from where to where, if that was
    /// another place.
    ///
    /// # Errors
    /// If another process uses the queue.
    pub(crate) fn bring_into_place(
        repo_dir: &Path,
        sharing: Sharing,
        base: Option<&Path>,
    ) -> Result<Option<(PathBuf, PathBuf)>, Error> {
        let base = base.map(Base::open).transpose()?;
        let Some(from) = place::misplaced(repo_dir, base.as_ref())? else { return Ok(None) };
        let to = base.as_ref().map_or_else(|| place::own(repo_dir), |base| place::free_below(&base.path, repo_dir));
        let from = StateDir::at(from, repo_dir, sharing, base.as_ref());
        let to = StateDir::at(to, repo_dir, sharing, base.as_ref());
        from.check(from.path())?;
        to.make()?;
        from.move_queue(&to)?;
        Ok(Some((from.path().to_owned(), to.path().to_owned())))
    }

    fn move_queue(&self, to: &StateDir) -> Result<(), Error> {
        let busy = || Error::Busy(self.database());
        let mut claims = Vec::new();
        for claim in [Claim::Recording, Claim::Delivery, Claim::Waiting] {
            claims.push(self.try_claim(claim)?.ok_or_else(busy)?);
        }
        // Migrates it, and refuses one of another repository.
        drop(Queue::open(self, PATIENCE)?);
        let mut new = Queue::open(to, PATIENCE)?;
        let failed = |source| Error::Database { path: self.database(), doing: "moved", source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let old = Connection::open_with_flags(self.database(), flags).map_err(failed)?;
        old.busy_timeout(PATIENCE).map_err(failed)?;
        // Only a database that nobody else has open can leave the write-ahead log.
        old.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE;").map_err(|_| busy())?;
        new.write(|tx| {
            tx.execute("DELETE FROM meta", [])?;
            for table in TABLES {
                if !copy_readable_rows(&old, tx, table)? {
                    let text = format!("some rows of {} cannot be read", self.database().display());
                    return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(text)));
                }
            }
            Ok(())
        })?;
        // Where this cannot be written, the state is found by its name.
        let _ = to.marker().write();
        old.execute_batch(&format!("PRAGMA user_version = {MOVED}; COMMIT;")).map_err(failed)?;
        drop(old);
        self.clear(to)
    }

    /// Takes along the other files. The old directory stays: hooks that have found it may keep pushes there.
    fn clear(&self, to: &StateDir) -> Result<(), Error> {
        let directory = |source| Error::Directory { path: self.path().to_owned(), source };
        for extension in ["db", "db-wal", "db-shm"] {
            let _ = fs::remove_file(self.database().with_extension(extension));
        }
        if self.path().join(LOG).is_file() && fs::copy(self.path().join(LOG), to.path().join(LOG)).is_ok() {
            let _ = fs::remove_file(self.path().join(LOG));
        }
        for path in self.kept_pushes()?.0 {
            let (pusher, input) = StateDir::read_push(&path)?;
            to.keep_push(&pusher, &input)?;
            fs::remove_file(path).map_err(directory)?;
        }
        Ok(())
    }
}
