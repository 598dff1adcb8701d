//! Delivers from the ledger, for all servers that forward to it: each thread claims a destination, delivers what is due
//! there, gives it back, and claims the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Error;
use super::ledgers::{Ledgers, destination};
use crate::clock::Deadline;
use crate::config::{self, Config, Posting};
use crate::deliver::{self, Delivery, Event, Pace};
use crate::queue::{self, Destination, Held, Ledger, LedgerError, Session, WorkQueue};
use crate::text::with_causes;

/// How often the ledger is asked for something that is due, where nothing was.
const POLL: Duration = Duration::from_secs(1);
/// How often a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long a thread waits after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(3);
/// How long a repository waits whose settings this release cannot read; a worker of a newer one may be there by then.
const UNREADABLE: Duration = Duration::from_secs(600);
/// How often a worker tells the ledger that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A lease lasts for so many time limits of a request, and this besides. It is renewed every third of it.
const LEASE_IN_TIMEOUTS: u32 = 3;
const LEASE_BESIDES: Duration = Duration::from_secs(5);

/// Who delivers.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Tells this process from all others.
    pub id: String,
    pub host: String,
}

/// A worker of the fleet, which its threads share.
pub(crate) struct Fleet<'f> {
    pub identity: Identity,
    /// Reads the worker's own settings, which may have changed.
    pub load: &'f (dyn Fn() -> Result<Config, config::Error> + Sync),
    pub ledgers: &'f Ledgers,
    /// Takes each event of a delivery, with where the log is and where the delivery goes.
    pub observe: &'f (dyn Fn(&config::Log, &Destination, &Event) + Sync),
    /// Told what goes wrong.
    pub report: &'f (dyn Fn(&str) + Sync),
    pub is_stopped: &'f (dyn Fn() -> bool + Sync),
    pub shared: Shared,
}

/// What the threads tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    /// Held by the thread that asks for what is due, where nothing was.
    scout: Mutex<()>,
    /// Claims that could not be given back, because the connection broke.
    abandoned: Mutex<Vec<(i64, i64)>>,
    /// What went wrong last, so that it is told once.
    trouble: Mutex<Option<String>>,
}

impl Fleet<'_> {
    /// Works until the process is to end.
    pub(crate) fn work(&self) {
        while !(self.is_stopped)() {
            if let Err(error) = self.work_connected() {
                self.tell_once(with_causes(&error));
                self.wait(AFTER_FAILURE);
            }
        }
    }

    /// Works until the configuration changes or something fails.
    fn work_connected(&self) -> Result<(), Error> {
        let config = (self.load)()?;
        let Some((ledger, account)) = self.prepare(&config)? else {
            self.wait(AFTER_FAILURE);
            return Ok(());
        };
        let session = ledger.connect()?;
        session.note_at_work(config.rally.at_work(1))?;
        session.note_presence(&config.rally.server)?;
        while let Some(claim) = lock(&self.shared.abandoned).pop() {
            if let Err(error) = session.abandon(claim) {
                lock(&self.shared.abandoned).push(claim);
                return Err(error.into());
            }
        }
        let fingerprint = config.rally.fingerprint();
        let mut pace = Pace::new(&config.rally);
        while !(self.is_stopped)() {
            // While nothing is due, one thread asks and the others wait for it here.
            let scouting = lock(&self.shared.scout);
            if (self.is_stopped)() {
                return Ok(());
            }
            // Behind a pool of connections another database may answer from one moment to the next.
            session.block_if_replaced(config.rally.at_work(1))?;
            let claimed = claim(&session, &self.identity, &account, &config, None)?;
            if lock(&self.shared.trouble).take().is_some() {
                (self.report)("the ledger is delivered from again");
            }
            let Some(mut held) = claimed else {
                self.wait(POLL);
                drop(scouting);
                if self.is_changed(&session, &config, &account, &fingerprint)? {
                    return Ok(());
                }
                continue;
            };
            drop(scouting);
            let claim = held.claim();
            if let Err(error) = self.deliver(&mut held, &config, &mut pace) {
                // Over this connection, if it still works; or else over the next one.
                if session.abandon(claim).is_err() {
                    lock(&self.shared.abandoned).push(claim);
                }
                return Err(error);
            }
            if self.is_changed(&session, &config, &account, &fingerprint)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells whether somebody has changed the configuration or the credentials. Then there is no reason to wait any longer.
    fn is_changed(&self, session: &Session, config: &Config, account: &str, fingerprint: &str) -> Result<bool, Error> {
        let is_changed = (self.load)()? != *config || config.rally.fingerprint() != fingerprint;
        if is_changed {
            session.end_outage(account)?;
        }
        Ok(is_changed)
    }

    fn deliver(&self, held: &mut Held, config: &Config, pace: &mut Pace) -> Result<(), Error> {
        let name = held.destination.clone();
        let mut observe = |event: &Event| (self.observe)(&config.log, &name, event);
        match deliver_held(held, config, pace, &mut observe, self.is_stopped) {
            // The rest is that worker's.
            Err(Error::Queue(queue::Error::Ledger(error @ LedgerError::Lost(_)))) => {
                (self.report)(&error.to_string());
                Ok(())
            }
            // Given back as it is, it would stay the one that has been due longest, and every thread would take it.
            Err(Error::Queue(queue::Error::Ledger(error @ LedgerError::UnknownSettings(_)))) => {
                (self.report)(&error.to_string());
                held.put_off(&error, UNREADABLE)?;
                Ok(held.release()?)
            }
            done => done,
        }
    }

    /// Returns the ledger, and the account under which requests are counted, if this worker delivers at all.
    fn prepare(&self, config: &Config) -> Result<Option<(Arc<Ledger>, String)>, Error> {
        let Some(access) = config.queue.store_access()?.filter(|_| config.rally.has_credentials()) else {
            return Ok(None);
        };
        Ok(Some((self.ledgers.ledger(&access)?, config.rally.account_digest()?)))
    }

    /// Tells the ledger, from time to time, that this worker is there.
    pub(crate) fn send_heartbeats(&self) {
        let mut session: Option<Session> = None;
        while !(self.is_stopped)() {
            if self.send_heartbeat(&mut session).is_err() {
                session = None;
            }
            self.wait(HEARTBEAT);
        }
        if let Some(session) = session {
            // If this fails, nothing is heard of it any more.
            let _ = session.sign_off(&self.identity.id);
        }
    }

    fn send_heartbeat(&self, session: &mut Option<Session>) -> Result<(), Error> {
        let config = (self.load)()?;
        let Some(access) = config.queue.store_access()? else { return Ok(()) };
        if session.is_none() {
            *session = Some(self.ledgers.ledger(&access)?.connect()?);
        }
        let account = config.rally.account_digest().ok();
        let delivers = account.as_deref().map(|account| (config.rally.server.as_str(), account));
        let Identity { id, host } = &self.identity;
        Ok(session.as_ref().expect("it is open").send_heartbeat(id, host, env!("CARGO_PKG_VERSION"), delivers)?)
    }

    fn tell_once(&self, error: String) {
        let mut trouble = lock(&self.shared.trouble);
        if trouble.as_ref() != Some(&error) {
            (self.report)(&format!("nothing is delivered from the ledger: {error}"));
            *trouble = Some(error);
        }
    }

    fn wait(&self, span: Duration) {
        let deadline = Deadline::after(span);
        while !deadline.has_passed() && !(self.is_stopped)() {
            thread::sleep(LOOK.min(span));
        }
    }
}

/// A thread that met a bug has left nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Claims a destination that is due, or the one that is named.
fn claim<'s>(
    session: &'s Session,
    worker: &Identity,
    account: &str,
    config: &Config,
    only: Option<&Destination>,
) -> Result<Option<Held<'s>>, LedgerError> {
    let lease = config.rally.timeout * LEASE_IN_TIMEOUTS + LEASE_BESIDES;
    session.claim(&worker.id, account, &config.rally.server, only, lease, config.rally.at_work(1))
}

/// Delivers what is due at a destination that this worker holds, and gives it back.
fn deliver_held(
    held: &mut Held,
    config: &Config,
    pace: &mut Pace,
    observe: deliver::Observer,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let Destination { workspace, repository, .. } = &held.destination;
    let unknown = |_| LedgerError::UnknownSettings(repository.clone());
    let posting: Posting = serde_json::from_str(&held.settings).map_err(unknown)?;
    let config = config.for_posting(posting, workspace, repository);
    let permits = held.permits(config.rally.max_concurrent_requests, config.rally.timeout)?;
    let (config, fleet, clock) = (&config, Some(&permits), held.clock());
    let mut delivery = Delivery { config, fleet, queue: held, pace, observe, now: &clock, is_stopped };
    delivery.run()?;
    let to_check = held.to_check()?;
    if !to_check.is_empty() && held.pause(clock())?.is_none() {
        let mut delivery = Delivery { config, fleet, queue: held, pace, observe, now: &clock, is_stopped };
        if let Some((checked, doubles)) = delivery.look_for_doubles(to_check)? {
            held.note_checked(&checked, doubles)?;
        }
    }
    Ok(held.release()?)
}

/// What became of a person's wish to deliver one repository's part of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Delivered,
    /// Not by this process: a worker holds it, there are no credentials here, or the ledger does not have it.
    Elsewhere,
    /// Claims are blocked for so long: the ledger was restored or has failed over.
    Blocked(Duration),
}

/// Delivers what is due of one repository, as a person asks for it.
pub(super) fn deliver_one(
    session: &Session,
    config: &Config,
    worker: &Identity,
    observe: deliver::Observer,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Asked, Error> {
    session.note_at_work(config.rally.at_work(1))?;
    session.note_presence(&config.rally.server)?;
    session.block_if_replaced(config.rally.at_work(1))?;
    if let Some(left) = session.blocked_for()? {
        return Ok(Asked::Blocked(left));
    }
    let only = destination(config);
    match claim(session, worker, &config.rally.account_digest()?, config, Some(&only))? {
        Some(mut held) => {
            let claim = held.claim();
            let done = deliver_held(&mut held, config, &mut Pace::new(&config.rally), observe, is_stopped);
            if done.is_err() {
                // Others need not wait for the lease to end.
                let _ = session.abandon(claim);
            }
            done.map(|()| Asked::Delivered)
        }
        None => Ok(Asked::Elsewhere),
    }
}
