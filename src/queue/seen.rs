//! The commits up to which everything has been recorded.

use rusqlite::{Transaction, params};

use super::{Error, Queue, meta, set_meta};
use crate::commit::{MovedTips, Tip};

/// Whether the ledger was asked, and knew nothing of the repository.
const OWN_HISTORY: &str = "own history";

/// What the seen tips are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Commits of all watched refs, for their Changesets.
    Commits,
    /// Commits of the refs on which messages change states.
    States,
}

impl Walked {
    pub(super) fn name(self) -> &'static str {
        match self {
            Walked::Commits => "commits",
            Walked::States => "states",
        }
    }

    /// Returns the key under which stands what tips have been marked as seen for.
    pub(super) fn scope_key(self) -> String {
        format!("{} initialised", self.name())
    }
}

impl Queue {
    /// Returns what tips have been marked as seen for; also where there were none, as in an empty repository.
    pub(crate) fn seen_scope(&self, walked: Walked) -> Result<Option<String>, Error> {
        self.read(|db| meta(db, &walked.scope_key()))
    }

    /// Tells whether the history from before the first recording has been marked as seen, by `install` or by the first
    /// push.
    pub(crate) fn is_initialised(&self) -> Result<bool, Error> {
        Ok(self.seen_scope(Walked::Commits)?.is_some())
    }

    /// Hands the seen tips to `work`, the youngest first. They are read as they are taken: there may be many, and most
    /// walks take a few.
    pub(crate) fn with_seen_tips<T>(
        &self,
        walked: Walked,
        work: impl FnOnce(&mut dyn Iterator<Item = Tip>) -> T,
    ) -> Result<T, Error> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT id, time FROM seen_tip WHERE walked = ?1 ORDER BY time DESC")?;
            let mut rows = statement.query([walked.name()])?;
            let mut read =
                || rows.next()?.map(|row| Ok(Tip { id: row.get("id")?, time: row.get("time")? })).transpose();
            let mut failed = None;
            let done = work(&mut std::iter::from_fn(|| {
                read().unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            }));
            failed.map_or(Ok(done), Err)
        })
    }

    /// Marks these tips as seen too, and notes what for.
    pub(crate) fn add_seen_tips(&mut self, walked: Walked, tips: &[Tip], scope: &str) -> Result<(), Error> {
        self.write(|tx| {
            insert_tips(tx, walked, tips)?;
            set_meta(tx, &walked.scope_key(), scope)
        })
    }

    /// Notes that no other server has recorded anything of this repository: its own refs tell what is history.
    pub(crate) fn note_own_history(&mut self) -> Result<(), Error> {
        self.write(|tx| set_meta(tx, OWN_HISTORY, "yes"))
    }

    pub(crate) fn has_own_history(&self) -> Result<bool, Error> {
        Ok(self.read(|db| meta::<String>(db, OWN_HISTORY))?.is_some())
    }

    /// Returns to where nothing has been marked as seen.
    pub(crate) fn forget_seen_tips(&mut self, walked: Walked) -> Result<(), Error> {
        if self.seen_scope(walked)?.is_none() {
            return Ok(());
        }
        self.write(|tx| forget_tips(tx, walked))
    }
}

pub(super) fn move_tips(tx: &Transaction, walked: Walked, moved: &MovedTips) -> rusqlite::Result<()> {
    insert_tips(tx, walked, &moved.new)?;
    let mut cover = tx.prepare_cached(
        "UPDATE seen_tip SET covered = 1, forwarded = 0 WHERE walked = ?1 AND id = ?2 AND covered = 0",
    )?;
    moved.covered.iter().try_for_each(|id| cover.execute(params![walked.name(), id]).map(drop))
}

pub(super) fn forget_tips(tx: &Transaction, walked: Walked) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM seen_tip WHERE walked = ?1", [walked.name()])?;
    tx.execute("DELETE FROM meta WHERE key = ?1", [walked.scope_key()]).map(drop)
}

fn insert_tips(tx: &Transaction, walked: Walked, tips: &[Tip]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO seen_tip (walked, id, time) VALUES (?1, ?2, ?3)")?;
    tips.iter().try_for_each(|tip| insert.execute(params![walked.name(), tip.id, tip.time]).map(drop))
}
