//! From the queue to Rally: what is due, and what becomes of it.
//!
//! Delivery is at least once in its parts and exactly once in its effect: every step is safe to repeat, because what
//! Rally has is known from the queue or asked for first. It is given the clock, the settings it needs and an observer,
//! and knows no repository, command, log or terminal.

mod decide;
mod dispatch;
mod event;
mod intent;
mod pass;
mod refused;
mod states;

use crate::backoff::random;
use crate::config::{self, BatchMode, Config};
use crate::queue::{self, REQUESTS, WorkQueue};
use crate::rally::{self, Fleet, Portion, Rally};
use crate::time::Time;
use crate::wsapi;
use dispatch::Limits;

pub(crate) use event::{Event, Line, Observer};

/// How many changesets one pass takes: enough to fill the batches of all connections, few enough to hold in memory.
const PER_PASS: usize = 500;
/// How much text they may hold together, in bytes; a message may have megabytes.
const BYTES_PER_PASS: usize = 16 * 1024 * 1024;

/// How much is asked of Rally at once; what was learned of it stays for as long as the process lives.
pub(crate) struct Pace {
    limits: Limits,
    portion: Portion,
}

impl Pace {
    pub(crate) fn new(rally: &config::Rally) -> Self {
        let limits = Limits::new(rally.max_concurrent_requests, rally.batch == BatchMode::Auto);
        Pace { limits, portion: Portion::default() }
    }
}

/// Delivers what is due.
pub(crate) struct Delivery<'d> {
    pub config: &'d Config,
    pub fleet: Fleet<'d>,
    pub queue: &'d mut dyn WorkQueue,
    pub pace: &'d mut Pace,
    pub observe: Observer<'d>,
    pub now: &'d dyn Fn() -> Time,
    /// Whether to send nothing more.
    pub is_stopped: &'d dyn Fn() -> bool,
}

impl<'d> Delivery<'d> {
    /// Delivers until nothing more is due, or something stops all of it: then a pause begins.
    pub(crate) fn run(&mut self) -> Result<(), queue::Error> {
        let mut rally: Option<Rally> = None;
        loop {
            let now = (self.now)();
            let entries = self.queue.due(now, PER_PASS, BYTES_PER_PASS)?;
            let requests = match entries.is_empty() {
                true => self.queue.due_state_requests(now, PER_PASS)?,
                false => Vec::new(),
            };
            if entries.is_empty() && requests.is_empty() || (self.is_stopped)() {
                return Ok(());
            }
            (self.observe)(&Event::Due { changesets: entries.len(), state_requests: requests.len() });
            let connected = rally.take().map_or_else(|| self.connect(), Ok);
            let done = connected.and_then(|connected| match entries.is_empty() {
                false => pass::run(self, rally.insert(connected), entries),
                true => states::run(self, rally.insert(connected), requests),
            });
            if let Some(rally) = &rally {
                self.queue.count(REQUESTS, rally.client.permits().count_taken())?;
            }
            match done {
                Ok(()) => {
                    if self.queue.pause(now)?.is_some() {
                        self.queue.set_pause(None)?;
                    }
                }
                Err(error) => return self.pause(error, rally.as_ref()),
            }
        }
    }

    /// Asks Rally which of these revisions it has more than once, and tells. Returns those that it gave an answer for, and how
    /// many it has more than once; nothing if it cannot be used, after which a pause begins.
    pub(crate) fn look_for_doubles(
        &mut self,
        revisions: Vec<String>,
    ) -> Result<Option<(Vec<String>, usize)>, queue::Error> {
        let connected = self.connect();
        let looked = connected.and_then(|rally| {
            let found = match rally.repository(self.queue, (self.now)())? {
                Some(repository) => rally.doubles(&repository, &revisions)?,
                None => Default::default(),
            };
            self.queue.count(REQUESTS, rally.client.permits().count_taken())?;
            Ok(found)
        });
        match looked {
            Ok((doubles, refused)) => {
                doubles.iter().for_each(|revision| (self.observe)(&Event::Doubled { revision }));
                let is_answered = |revision: &String| refused.iter().all(|(refused, _)| refused != revision);
                Ok(Some((revisions.into_iter().filter(is_answered).collect(), doubles.len())))
            }
            Err(error) => self.pause(error, None).map(|()| None),
        }
    }

    fn connect(&mut self) -> Result<Rally<'d>, rally::Error> {
        let rally = Rally::connect(self.config, self.fleet, self.queue, &self.pace.portion, (self.now)())?;
        if rally.workspace.changesets_enabled == Some(false) {
            (self.observe)(&Event::ChangesetsAreHidden);
        }
        Ok(rally)
    }

    /// Puts everything off: Rally cannot be used, or nothing will succeed before a person has acted.
    ///
    /// # Errors
    /// Where Rally has no part in it: the queue cannot be used, or this worker may send nothing more.
    fn pause(&mut self, error: rally::Error, rally: Option<&Rally>) -> Result<(), queue::Error> {
        let error = match error {
            rally::Error::Queue(error) => return Err(error),
            rally::Error::Api(wsapi::Error::NotSent { reason, .. })
            | rally::Error::CreateRepository(wsapi::Error::NotSent { reason, .. }) => {
                return Err(queue::LedgerError::Away(reason).into());
            }
            error => error,
        };
        let (now, retry) = ((self.now)(), self.config.queue.retry());
        let before = self.queue.pause(now)?;
        let pause = decide::pause(before.as_ref(), &error, retry, now, random());
        self.queue.set_pause(Some(&pause))?;
        // In whole seconds, as people read it.
        let wait = std::time::Duration::from_secs(pause.until.since(now).as_secs());
        (self.observe)(&Event::Paused { pause: &pause, wait });
        if retry.is_over(pause.since, now) {
            for revision in &self.queue.give_up(now - retry.patience, &pause.error)? {
                (self.observe)(&Event::GivenUp { revision, error: &pause.error });
            }
        }
        if let Some(rally) = rally.filter(|_| pause.needs_person) {
            rally.forget_workspace(self.queue)?;
        }
        Ok(())
    }
}
