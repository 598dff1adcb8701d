//! Delivers from the ledger, for all servers that forward to it: each thread claims a destination, delivers what is due
//! there, gives it back, and claims the next one.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::ledgers::{Ledgers, destination};
use super::{at_work, settings};
use crate::clock::{Deadline, now};
use crate::config::{self, Config, Level, Posting};
use crate::deliver::{self, Delivery, Event, Pace};
use crate::queue::{self, Destination, Held, Ledger, LedgerError, Session, WorkQueue, WorkerStatus};
use crate::text::with_causes;

/// How often the ledger is asked for something that is due, where nothing was.
const POLL: Duration = Duration::from_secs(1);
/// How often a process looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long a thread waits after a failure; how often a worker tells that it is there.
const AFTER_FAILURE: Duration = Duration::from_secs(3);
const TELL: Duration = Duration::from_secs(10);
/// A lease is renewed every third of it. It lasts for some requests, and for a while besides.
const LEASE_IN_TIMEOUTS: u32 = 3;
const LEASE_BESIDES: Duration = Duration::from_secs(5);

/// Who delivers.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Tells this process from all others.
    pub id: String,
    pub host: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        queue::Error::from(error).into()
    }
}

/// Takes each event of a delivery, with the SCMRepository's name.
pub(crate) type FleetObserver<'o> = &'o (dyn Fn(&Destination, &Event) + Sync);

/// A worker of the fleet.
pub(crate) struct Fleet<'f> {
    pub identity: Identity,
    /// Reads the worker's own settings, which may have changed.
    pub load: &'f (dyn Fn() -> Result<Config, config::Error> + Sync),
    pub ledgers: &'f Ledgers,
    pub observe: FleetObserver<'f>,
    /// Told what goes wrong, and of what level that is.
    pub report: &'f (dyn Fn(Level, &str) + Sync),
    pub is_stopped: &'f (dyn Fn() -> bool + Sync),
    /// Held by the thread that asks for what is due, where nothing was.
    scout: Mutex<()>,
    /// What went wrong last, so that it is told once.
    trouble: Mutex<Option<String>>,
}

impl<'f> Fleet<'f> {
    pub(crate) fn new(
        identity: Identity,
        load: &'f (dyn Fn() -> Result<Config, config::Error> + Sync),
        ledgers: &'f Ledgers,
        observe: FleetObserver<'f>,
        report: &'f (dyn Fn(Level, &str) + Sync),
        is_stopped: &'f (dyn Fn() -> bool + Sync),
    ) -> Self {
        let (scout, trouble) = Default::default();
        Fleet { identity, load, ledgers, observe, report, is_stopped, scout, trouble }
    }

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
        session.settle(at_work(&config))?;
        let mut pace = Pace::new(&config.rally);
        let mut scout = None;
        while !(self.is_stopped)() {
            let scouting = scout.take().unwrap_or_else(|| self.scout.lock().expect("no holder panics"));
            let claimed = claim(&session, &self.identity, &account, &config, None)?;
            *self.trouble.lock().expect("no holder panics") = None;
            let Some(mut held) = claimed else {
                self.wait(POLL);
                if (self.load)()? != config {
                    return Ok(());
                }
                scout = Some(scouting);
                continue;
            };
            drop(scouting);
            self.deliver(&mut held, &config, &mut pace)?;
            if (self.load)()? != config {
                return Ok(());
            }
        }
        Ok(())
    }

    fn deliver(&self, held: &mut Held, config: &Config, pace: &mut Pace) -> Result<(), Error> {
        let name = held.destination.clone();
        let mut observe = |event: &Event| (self.observe)(&name, event);
        match deliver_held(held, config, &self.identity, pace, &mut observe, self.is_stopped) {
            // The rest is that worker's.
            Err(Error::Queue(queue::Error::Ledger(error @ LedgerError::Lost(_)))) => {
                (self.report)(Level::Warn, &error.to_string());
                Ok(())
            }
            done => done,
        }
    }

    /// Returns the ledger, and the account under which requests are counted, unless there is no ledger.
    fn prepare(&self, config: &Config) -> Result<Option<(Arc<Ledger>, String)>, Error> {
        let Some(access) = config.queue.store_access()? else { return Ok(None) };
        Ok(Some((self.ledgers.ledger(&access)?, config.rally.account_name()?)))
    }

    /// Tells the ledger, from time to time, that this worker is there.
    pub(crate) fn keep_telling(&self) {
        let mut session: Option<Session> = None;
        while !(self.is_stopped)() {
            let told = self.tell(&mut session);
            if told.is_err() {
                session = None;
            }
            self.wait(TELL);
        }
        if let Some(session) = session {
            // It is seen to be gone, if this fails.
            let _ = session.take_leave(&self.identity.id);
        }
    }

    fn tell(&self, session: &mut Option<Session>) -> Result<(), Error> {
        let config = (self.load)()?;
        let Some(access) = config.queue.store_access()? else { return Ok(()) };
        if session.is_none() {
            *session = Some(self.ledgers.ledger(&access)?.connect()?);
        }
        let Identity { id, host } = self.identity.clone();
        let server = config.rally.account_name().is_ok().then(|| config.rally.server.clone());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (started_at, seen_at) = (now(), now());
        Ok(session.as_ref().expect("it is open").tell(&WorkerStatus {
            id,
            host,
            version,
            server,
            started_at,
            seen_at,
        })?)
    }

    fn tell_once(&self, error: String) {
        let mut trouble = self.trouble.lock().expect("no holder panics");
        if trouble.as_ref() != Some(&error) {
            (self.report)(Level::Error, &format!("nothing is delivered from the ledger: {error}"));
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

/// Claims a destination that is due, or the one that is named.
fn claim<'s>(
    session: &'s Session,
    worker: &Identity,
    account: &str,
    config: &Config,
    only: Option<&Destination>,
) -> Result<Option<Held<'s>>, LedgerError> {
    let lease = config.rally.timeout * LEASE_IN_TIMEOUTS + LEASE_BESIDES;
    session.claim(&worker.id, account, &config.rally.server, only, lease, at_work(config))
}

/// Delivers what is due at a destination that this worker holds, and gives it back.
fn deliver_held(
    held: &mut Held,
    config: &Config,
    worker: &Identity,
    pace: &mut Pace,
    observe: deliver::Observer,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let Destination { workspace, repository, .. } = &held.destination;
    let posting: Posting = serde_json::from_str(&held.settings).unwrap_or_default();
    let config = config.for_posting(posting, workspace, repository);
    let permits = held.permits(&worker.id, config.rally.max_concurrent_requests, config.rally.timeout)?;
    let (settings, clock) = (settings(&config, Some(&permits)), held.clock());
    let mut delivery = Delivery { settings: &settings, queue: held, pace, observe, now: &clock, is_stopped };
    delivery.run()?;
    let to_check = held.to_check()?;
    if !to_check.is_empty() && held.pause(clock())?.is_none() {
        let mut delivery = Delivery { settings: &settings, queue: held, pace, observe, now: &clock, is_stopped };
        if let Some(doubles) = delivery.look_for_doubles(&to_check)? {
            held.note_checked(&to_check, doubles)?;
        }
    }
    Ok(held.release()?)
}

/// Delivers what is due of one repository, as a person asks for it. Returns whether another worker is at it.
pub(super) fn deliver_one(
    session: &Session,
    config: &Config,
    worker: &Identity,
    observe: deliver::Observer,
    is_stopped: &dyn Fn() -> bool,
) -> Result<bool, Error> {
    session.settle(at_work(config))?;
    let only = destination(config);
    let Some(mut held) = claim(session, worker, &config.rally.account_name()?, config, Some(&only))? else {
        return Ok(true);
    };
    deliver_held(&mut held, config, worker, &mut Pace::new(&config.rally), observe, is_stopped)?;
    Ok(false)
}
