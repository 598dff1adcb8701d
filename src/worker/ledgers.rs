//! The connections of a process to ledgers: few, used again, and not tried for a moment after one has failed.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::Deadline;
use crate::config::{Config, Secret, StoreAccess};
use crate::queue::{Address, Destination, Ledger, LedgerError, Session};
use crate::rally::posted_name;
use crate::text::with_causes;

/// After a failure, all repositories wait for this long: each of them would only find out the same.
const REST: Duration = Duration::from_secs(3);

/// The ledgers that a process uses: one, unless the configuration of repositories differs.
#[derive(Default)]
pub(crate) struct Ledgers(Mutex<Vec<Known>>);

struct Known {
    access: StoreAccess,
    ledger: Arc<Ledger>,
    /// Connections that nobody uses at the moment.
    idle: Vec<Session>,
    /// Until when it is not tried, and why.
    rest: Option<(Deadline, String)>,
}

impl Ledgers {
    /// Returns a ledger, to be used in other ways than [`with`](Self::with).
    pub(crate) fn ledger(&self, access: &StoreAccess) -> Result<Arc<Ledger>, LedgerError> {
        let mut known = self.lock();
        if let Some(known) = known.iter().find(|known| known.access == *access) {
            return Ok(Arc::clone(&known.ledger));
        }
        let address = Address {
            url: access.address.expose(),
            password: access.password.as_ref().map(Secret::expose),
            certificates: access.certificates.as_deref(),
        };
        let ledger = Arc::new(Ledger::new(address)?);
        known.push(Known { access: access.clone(), ledger: Arc::clone(&ledger), idle: Vec::new(), rest: None });
        Ok(ledger)
    }

    /// Returns where a ledger is, for messages: without its password; empty if its address cannot be read.
    pub(crate) fn place(&self, access: &StoreAccess) -> String {
        self.ledger(access).map(|ledger| ledger.place().to_owned()).unwrap_or_default()
    }

    /// Does some work over a connection to a ledger.
    pub(crate) fn with<T, E>(&self, access: &StoreAccess, work: impl FnOnce(&Session) -> Result<T, E>) -> Result<T, E>
    where
        E: From<LedgerError>,
    {
        let session = self.take(access)?;
        let done = work(&session);
        match &done {
            Ok(_) => self.of(access, |known| known.idle.push(session)),
            // It may be in the middle of something.
            Err(_) => drop(session),
        }
        done
    }

    fn take(&self, access: &StoreAccess) -> Result<Session, LedgerError> {
        let ledger = self.ledger(access)?;
        let (idle, rest) = self.of(access, |known| (known.idle.pop(), known.rest.clone()));
        if let Some(session) = idle.filter(Session::is_open) {
            return Ok(session);
        }
        if let Some((_, error)) = rest.filter(|(until, _)| !until.has_passed()) {
            return Err(LedgerError::Away(error));
        }
        let connected = ledger.connect();
        let failure = connected.as_ref().err().map(|error| (Deadline::after(REST), with_causes(error)));
        self.of(access, |known| known.rest = failure);
        connected
    }

    fn of<T>(&self, access: &StoreAccess, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.lock();
        work(known.iter_mut().find(|known| known.access == *access).expect("it is known by now"))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().expect("no holder panics")
    }
}

/// Returns where a repository's changesets go.
pub(crate) fn destination(config: &Config) -> Destination {
    // PostgreSQL's text holds no NUL, and its indexes nothing long; nor does Rally have such names.
    let name = |text: &str| posted_name(text).replace('\0', "\u{fffd}");
    Destination {
        server: name(&config.rally.server),
        workspace: name(config.rally.workspace.as_deref().unwrap_or_default()),
        repository: name(&config.repository.name),
    }
}
