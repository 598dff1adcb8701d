//! The dead letters of a repository: in its queue and, where it has been forwarded, in the ledger.

use super::{Error, Site};
use crate::clock::now;
use crate::config::StoreAccess;
use crate::queue::{Destination, LedgerError, Session};
use crate::worker::destination;

/// Names of commits are at least this long and may be abbreviated; numbers are not.
const LONG_REVISION: usize = 40;
/// To how many characters they may be abbreviated.
pub(super) const SHORTEST_REVISION: usize = 4;

pub(super) struct Letters<'s> {
    site: &'s Site,
    ledger: Option<(StoreAccess, Destination)>,
}

impl<'s> Letters<'s> {
    pub(super) fn of(site: &'s Site) -> Result<Self, Error> {
        let access = site.config.queue.store_access()?;
        Ok(Letters { site, ledger: access.map(|access| (access, destination(&site.config))) })
    }

    /// Returns the revisions of all.
    pub(super) fn all(&self) -> Result<Vec<String>, Error> {
        let mut all = self.site.with_queue(|queue| Ok(queue.dead_letters()?))?;
        all.extend(self.in_ledger(|session, destination| session.dead_letters(destination))?);
        Ok(all)
    }

    /// Returns the revisions that a text stands for: a whole revision, or the beginning of a long one.
    pub(super) fn named(&self, text: &str) -> Result<Vec<String>, Error> {
        let mut all = self.all()?;
        if all.iter().any(|revision| revision == text) {
            return Ok(vec![text.to_owned()]);
        }
        let beginning = text.to_ascii_lowercase();
        let is_long_enough = |revision: &str| revision.len() >= LONG_REVISION && text.len() >= SHORTEST_REVISION;
        all.retain(|revision| is_long_enough(revision) && revision.starts_with(&beginning));
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Tells whether a commit is in the repository's own queue, to be posted.
    pub(super) fn is_queued_here(&self, revision: &String) -> Result<bool, Error> {
        self.site.with_queue(|queue| {
            let is_there = queue.count_left(std::slice::from_ref(revision))? > 0;
            Ok(is_there && !queue.dead_letters()?.contains(revision))
        })
    }

    /// Makes one due again. Returns false if there is nothing to post: only its revision is known.
    pub(super) fn retry(&self, revision: &str) -> Result<bool, Error> {
        Ok(self.site.with_queue(|queue| Ok(queue.retry(revision, now())?))?
            || self.in_ledger(|session, destination| session.retry(destination, revision))?)
    }

    /// Drops these.
    pub(super) fn forget(&self, revisions: &[String]) -> Result<(), Error> {
        self.site.with_queue(|queue| Ok(queue.forget_dead_letters(revisions)?))?;
        self.in_ledger(|session, destination| session.forget_dead_letters(destination, revisions))
    }

    /// Returns how many of these revisions are queued or dead letters.
    pub(super) fn count_left(&self, revisions: &[String]) -> Result<usize, Error> {
        Ok(self.site.with_queue(|queue| Ok(queue.count_left(revisions)?))?
            + self.in_ledger(|session, destination| session.count_left(destination, revisions))?)
    }

    /// Makes due what waits for the end of a back-off.
    pub(super) fn make_due(&self) -> Result<(), Error> {
        self.site.with_queue(|queue| Ok(queue.make_due(now())?))?;
        self.in_ledger(Session::make_due)
    }

    fn in_ledger<T: Default>(
        &self,
        work: impl FnOnce(&Session, &Destination) -> Result<T, LedgerError>,
    ) -> Result<T, Error> {
        match &self.ledger {
            Some((access, destination)) => Ok(self.site.ledgers.with(access, |session| work(session, destination))?),
            None => Ok(T::default()),
        }
    }
}
