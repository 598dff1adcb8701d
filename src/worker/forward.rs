//! Hands what a repository's queue holds over to the ledger, and asks it what other servers have recorded.

use std::path::Path;
use std::time::Duration;

use super::Error;
use super::fleet::{self, Asked, Identity};
use super::ledgers::{Ledgers, destination};
use crate::clock::now;
use crate::config::{Config, StoreAccess};
use crate::deliver::{Event, Observer};
use crate::queue::{self, LEDGER, Origin, Queue, Session, Taken, WorkQueue};
use crate::record::EVERYTHING;
use crate::text::with_causes;
use crate::vcs::Repository;

/// What the ledger still has for a repository after a delivery.
pub(super) struct Left {
    pub asked: Asked,
    /// In what time something is due, if anything waits.
    pub due_in: Option<Duration>,
}

/// A repository, with what is needed to forward from it.
pub(crate) struct Forwarder<'f> {
    pub repo_dir: &'f Path,
    pub config: &'f Config,
    pub access: &'f StoreAccess,
    pub ledgers: &'f Ledgers,
    /// What this host is called.
    pub host: String,
}

impl Forwarder<'_> {
    /// Forwards all that the queue holds. If `checks`, also finds out whether the ledger has lost what it had taken in.
    pub(crate) fn forward(&self, queue: &mut Queue, checks: bool, observe: Observer) -> Result<(), queue::Error> {
        let from = self.config.destination();
        let waits = queue.parcel(&from, now())?.is_some();
        if !(waits || checks && queue.position()? > 0) {
            return Ok(());
        }
        let forwarded = self.ledgers.with(self.access, |session| self.send(session, queue, &from, observe));
        let error = forwarded.as_ref().err().map(|error| with_causes(error));
        let known = queue.last_attempt(LEDGER)?.error;
        if let Some(error) = error.as_ref().filter(|error| Some(*error) != known.as_ref()) {
            observe(&Event::LedgerAway { error });
        }
        // A worker gives each queue that has changed a turn: a note in every turn would bring the next one.
        if waits || error != known {
            queue.note_attempt(LEDGER, now(), error.as_deref())?;
        }
        forwarded?;
        // It is of the time before there was a ledger.
        if queue.pause(now())?.is_some() {
            queue.set_pause(None)?;
        }
        queue.tidy_outbox(now())
    }

    fn send(
        &self,
        session: &Session,
        queue: &mut Queue,
        from: &str,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<(), queue::Error> {
        session.block_if_replaced(self.config.rally.at_work(1))?;
        queue.begin_forwarding()?;
        let settings = serde_json::to_string(&self.config.posting()).expect("plain data becomes JSON");
        let mut commits = 0;
        loop {
            let (id, position) = (queue.home().id().to_owned(), queue.position()?);
            let origin = Origin {
                id: &id,
                host: &self.host,
                git_dir: &self.repo_dir.to_string_lossy(),
                web: self.config.repository.web.as_deref(),
                position,
                now: now(),
            };
            let parcel = queue.parcel(from, now())?;
            let taken = match &parcel {
                Some(parcel) => session.forward(&destination(self.config), &settings, &origin, parcel)?,
                None => session.check(&origin)?,
            };
            match (taken, parcel) {
                (Taken::Behind(there), _) => {
                    session.block(self.config.rally.at_work(1))?;
                    observe(&Event::LedgerSetBack);
                    queue.forward_again(there)?;
                }
                (Taken::In(position), Some(parcel)) => {
                    queue.note_forwarded(&parcel, position, now())?;
                    commits += parcel.changesets.len() + parcel.withdrawn.len();
                }
                (Taken::In(_), None) => break,
            }
        }
        if commits > 0 {
            observe(&Event::Forwarded { commits });
        }
        Ok(())
    }

    /// Delivers this repository's commits from the ledger and returns what remains. Without credentials for Rally here,
    /// nothing is delivered: other workers do that.
    pub(super) fn deliver(
        &self,
        identity: &Identity,
        observe: Observer,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Left, Error> {
        self.ledgers.with(self.access, |session| {
            let asked = match self.config.rally.has_credentials() {
                true => fleet::deliver_one(session, self.config, identity, observe, is_stopped)?,
                false => Asked::Elsewhere,
            };
            Ok(Left { asked, due_in: session.due_in(&destination(self.config))? })
        })
    }

    /// Asks the ledger what other servers have recorded of a repository of which this one has recorded nothing: a replica
    /// that takes over must not take for history what was pushed and not recorded. Returns whether they have.
    pub(crate) fn learn_history(&self, repository: &Repository, queue: &mut Queue) -> Result<bool, queue::Error> {
        if queue.is_initialised()? || queue.has_own_history()? {
            return Ok(false);
        }
        let walks = self.ledgers.with(self.access, |session| session.seen(&destination(self.config)))?;
        // Another repository of that name has another history.
        if !walks.iter().any(|(_, _, tips)| repository.has_any(tips)) {
            queue.note_own_history()?;
            return Ok(false);
        }
        for (walked, scope, tips) in walks {
            let scope = if walked == queue::Walked::Commits { EVERYTHING } else { &scope };
            queue.add_seen_tips(walked, &tips, scope)?;
        }
        Ok(true)
    }
}
