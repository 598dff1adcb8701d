//! What is done with a damaged database.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction};

use super::seen::forget_tips;
use super::{Error, NAME_WITHDRAWN, Queue, StateDir, Walked, create, set_meta};

const LOCK: &str = "repair.lock";

impl Queue {
    /// Sets a damaged database aside, begins a new one and copies over what can still be read.
    /// Returns where the damaged one is now; `None` if another process has replaced it.
    pub(super) fn replace_damaged(dir: &StateDir) -> Result<Option<PathBuf>, Error> {
        let lock = dir.lock_file(LOCK)?;
        lock.lock().map_err(|source| Error::Lock { path: dir.path().join(LOCK), source })?;
        // Another process may have done it while this one waited.
        if let Ok(queue) = Queue::open(dir, Duration::from_secs(1))
            && queue
                .connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
                .is_ok_and(|answer| answer == "ok")
        {
            return Ok(None);
        }
        let aside = dir.set_aside()?;
        create(dir)?;
        let mut queue = Queue::open(dir, Duration::from_secs(1))?;
        let salvaged = Connection::open_with_flags(&aside, OpenFlags::SQLITE_OPEN_READ_WRITE);
        if let Ok(damaged) = salvaged {
            queue.write(|tx| {
                for table in ["meta", "receipt", "changeset", "facts", "push", "state_request", "forwarded"] {
                    copy_readable_rows(&damaged, tx, table)?;
                }
                // They may be of an earlier version.
                tx.execute_batch(NAME_WITHDRAWN)?;
                if !copy_readable_rows(&damaged, tx, "seen_tip")? {
                    // With some of them gone history would look new. With none, what is there counts as seen.
                    forget_tips(tx, Walked::Commits)?;
                }
                // A Changeset that is there is found in Rally. A state that was set and set back by hand since is not.
                forget_tips(tx, Walked::States)?;
                // A changeset without its facts cannot be posted, nor be forgotten: its receipt is not written.
                tx.execute("UPDATE changeset SET dead = 1, last_error = 'its data was damaged with the queue; run `rally-hook retry` to read the commit again' WHERE id NOT IN (SELECT changeset FROM facts)", [])?;
                set_meta(tx, "lost", "yes")?;
                set_meta(tx, "repaired", &aside.display().to_string())
            })?;
        }
        Ok(Some(aside))
    }
}

/// Copies rows until the first that cannot be read. Returns whether all were read.
pub(super) fn copy_readable_rows(damaged: &Connection, tx: &Transaction, table: &str) -> rusqlite::Result<bool> {
    let Ok(mut select) = damaged.prepare(&format!("SELECT * FROM {table}")) else { return Ok(false) };
    // They may be of an earlier version, which had fewer.
    let names = select.column_names().collect::<Vec<_>>().join(", ");
    let columns = select.column_count();
    let places: Vec<String> = (1..=columns).map(|place| format!("?{place}")).collect();
    let mut insert = tx.prepare(&format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({})", places.join(", ")))?;
    let Ok(mut rows) = select.query([]) else { return Ok(false) };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            end => return Ok(end.is_ok()),
        };
        let values =
            (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column)).collect::<Result<Vec<_>, _>>();
        let Ok(values) = values else { return Ok(false) };
        // A row that breaks a rule of the tables is damaged as well.
        let _ = insert.execute(rusqlite::params_from_iter(values));
    }
}
