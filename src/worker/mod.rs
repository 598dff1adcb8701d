//! Records what is left over, delivers what is due, waits, and begins again: the only module that joins recording and
//! delivery.
//!
//! Where many servers share a ledger, what is queued is forwarded there ([`forward`]), and delivered from there ([`fleet`]).
//!
//! One process at a time delivers for a repository, and one at most waits in the background: a second one leaves at
//! once, and the first one does what the second would have done.

mod fleet;
mod forward;
mod ledgers;
mod schedule;
mod service;

use std::path::Path;
use std::time::Duration;

use crate::clock::{Deadline, now};
use crate::config::{self, Config, Level, StoreAccess};
use crate::deliver::{Delivery, Event, Observer, Pace};
use crate::queue::{self, Claim, Claimed, LOOK, LedgerError, Mark, Outcome, Pause, Queue, WorkQueue};
use crate::rally;
use crate::record::{self, Recorded, Recorder, Reporter, Rules};
use crate::text::{plural, with_causes};
use crate::time::Time;
use crate::vcs::{Kind, Refs, Repository};
use fleet::Asked;
use forward::Left;

pub(crate) use fleet::{Fleet, Identity, Shared};
pub(crate) use forward::Forwarder;
pub(crate) use ledgers::{Ledgers, destination};
pub(crate) use service::Service;

/// How often a waiting process looks whether a push has brought something new.
const POLL: Duration = Duration::from_millis(500);
/// When a service comes back to a repository for which another process delivers.
const BUSY: Duration = Duration::from_secs(1);
/// A push that is younger than this is left alone: its hook may still be recording it and must report to the pusher.
/// Hooks stop after some two seconds.
const HOOKS_TIME: Duration = Duration::from_millis(2_500);
/// The same where hooks only keep what they are told: the client has its answer by then.
const BRIEF_HOOKS_TIME: Duration = Duration::from_millis(300);
/// How long a ledger that is away is left alone.
const LEDGER_AWAY: Duration = Duration::from_secs(5);

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

/// How delivery was asked for, which decides how long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A person or a timer: what is due is tried once.
    Once,
    /// A person who asked for these commits: like [`Mode::Once`], but if Rally can tell the outcome of an earlier write
    /// within `read_lag`, that is waited for.
    UntilClear,
    /// A person who waits until nothing is pending.
    Wait,
    /// The process that a hook started: like [`Mode::Wait`], but it heeds a pause that an earlier one began, and tries
    /// again, slowly, also where a person has to act: that looks like maintenance (docs/wsapi.md, 8.1).
    Background,
    /// A turn of a service, which comes back by itself: like one round of [`Mode::Background`].
    Turn,
}

impl Mode {
    /// Tells whether no person and no timer has asked for it: a pause is heeded, and hooks are left to end.
    fn is_by_itself(self) -> bool {
        matches!(self, Mode::Background | Mode::Turn)
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Another process delivers.
    pub busy: bool,
    pub delivered: usize,
    pub existed: usize,
    /// Of the ones that existed: how many lacked Changes.
    pub completed: usize,
    pub unlinked: usize,
    /// New dead letters.
    pub dead: usize,
    /// Whether another process is there that goes on with what is left.
    pub is_attended: bool,
    /// Why nothing more was tried, if so.
    pub paused: Option<Pause>,
    pub last_error: Option<String>,
    /// Whether there are pushes whose commits could not be recorded.
    pub unrecorded: bool,
    /// Why the rest is left to other servers, if it is.
    pub left_to_others: Option<&'static str>,
    /// Whether what is queued could not be forwarded to the ledger.
    pub unforwarded: bool,
}

impl Report {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Finished { outcome: Outcome::Delivered, .. } => self.delivered += 1,
            Event::Finished { outcome: Outcome::Existed, .. } => self.existed += 1,
            Event::Unlinked { .. } => self.unlinked += 1,
            Event::Completing { .. } => self.completed += 1,
            Event::PutOff { error, .. } => self.last_error = Some((*error).to_owned()),
            Event::GivenUp { error, .. } => {
                self.dead += 1;
                self.last_error = Some((*error).to_owned());
            }
            Event::Paused { pause, .. } => {
                self.last_error = Some(pause.error.clone());
                self.paused = Some((*pause).clone());
            }
            _ => {}
        }
    }

    /// Tells whether nothing happened that a person would want to know.
    pub(crate) fn is_uneventful(&self) -> bool {
        let done = self.delivered + self.existed + self.unlinked + self.dead;
        done == 0 && !self.busy && !self.unrecorded && self.last_error.is_none()
    }
}

/// Works on one repository.
pub(crate) struct Worker<'w> {
    pub repo_dir: &'w Path,
    pub ledgers: &'w Ledgers,
    /// Who delivers, for the ledger.
    pub identity: &'w Identity,
    pub queue: &'w mut Queue,
    pub config: Config,
    /// Reads the configuration again, after each wait.
    pub reload: &'w dyn Fn() -> Result<Config, config::Error>,
    pub observe: Observer<'w>,
    /// Told what could not be recorded, or only in part.
    pub report: Reporter<'w>,
    /// Told how long the next wait is, and what for.
    pub wait: &'w dyn Fn(Duration, Option<&str>),
    /// Whether to end as soon as that leaves nothing unclear.
    pub is_stopped: &'w dyn Fn() -> bool,
}

impl<'w> Worker<'w> {
    /// Works as long as this mode does. The claim on waiting may have been made before.
    pub(crate) fn run(&mut self, mode: Mode, mut waiting: Option<Claimed>, report: &mut Report) -> Result<(), Error> {
        let mut pace = Pace::new(&self.config.rally);
        let _foreground = match mode {
            Mode::Wait | Mode::UntilClear => self.queue.claim(Claim::Foreground, Some(Deadline::after(LOOK)))?,
            Mode::Once | Mode::Background | Mode::Turn => None,
        };
        loop {
            if mode == Mode::Background && waiting.is_none() {
                waiting = self.queue.claim(Claim::Waiting, Some(Deadline::after(LOOK)))?;
                if waiting.is_none() {
                    report.busy = true;
                    return Ok(());
                }
            }
            // From before the look at what is due: a push that comes during the look ends the wait.
            let Some(mark) = self.queue.mark()? else { return Ok(()) };
            match self.round(mode, &mut pace, report)? {
                _ if (self.is_stopped)() => return Ok(()),
                Some(next) => {
                    (self.wait)(next.since(now()), report.last_error.as_deref());
                    self.wait_until(next, mark)?;
                    match self.renew_config() {
                        // Nobody is there who is told, and somebody may be editing it at this moment.
                        Err(Error::Config(error)) if mode == Mode::Background => {
                            let error = with_causes(&error);
                            let text =
                                format!("the configuration has an error, so the one before still counts: {error}");
                            (self.report)(Level::Error, &text);
                        }
                        renewed => renewed?,
                    }
                }
                None => {
                    // A push may have arrived after `mark` was read. Its process could not take the claim on waiting and
                    // has ended, so this process must look again.
                    waiting = None;
                    if mode != Mode::Background || self.queue.mark()?.is_none_or(|latest| latest == mark) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits, but not longer than until a push brings something new, or the queue is removed.
    fn wait_until(&self, next: Time, mark: Mark) -> Result<(), Error> {
        while now() < next && !(self.is_stopped)() && self.queue.mark()? == Some(mark) {
            std::thread::sleep(next.since(now()).min(POLL));
        }
        Ok(())
    }

    /// Reads the configuration again. If somebody has fixed it there is no reason to wait any longer.
    fn renew_config(&mut self) -> Result<(), Error> {
        let renewed = (self.reload)()?;
        if renewed != self.config {
            self.queue.set_pause(None)?;
            self.config = renewed;
        }
        Ok(())
    }

    /// Has one turn of a service. Returns when the next is due, if anything waits; `every` so often while a person has to
    /// act, who may have changed the configuration.
    pub(crate) fn turn(&mut self, every: Duration) -> Result<Option<Time>, Error> {
        let (mut pace, mut report) = (Pace::new(&self.config.rally), Report::default());
        let next = self.round(Mode::Turn, &mut pace, &mut report)?;
        if report.busy {
            return Ok(Some(now() + BUSY));
        }
        let needs_person = self.queue.pause(now())?.is_some_and(|pause| pause.needs_person);
        Ok(next.map(|next| if needs_person { next.min(now() + every) } else { next }))
    }

    /// Records and delivers what there is. Returns when to go on, if this mode does and anything waits.
    fn round(&mut self, mode: Mode, pace: &mut Pace, report: &mut Report) -> Result<Option<Time>, Error> {
        let deadline = match mode {
            Mode::Once | Mode::UntilClear | Mode::Turn => Some(Deadline::after(LOOK)),
            Mode::Wait | Mode::Background => None,
        };
        let Some(claim) = self.queue.claim(Claim::Delivery, deadline)? else {
            report.busy = true;
            return Ok(None);
        };
        if self.queue.mark()?.is_none() {
            return Ok(None);
        }
        let access = self.config.queue.store_access()?;
        let hooks_end = self.record_rest(mode, access.as_ref(), report)?;
        let next = match &access {
            Some(access) => {
                let next = self.deliver_by_ledger(access, mode, report)?;
                self.queue.tidy(now() - rally::ANSWERS_KEPT)?;
                next
            }
            None => {
                let count = self.queue.take_back(now())?;
                if count > 0 {
                    let commits = plural(count, "commit");
                    (self.report)(
                        Level::Info,
                        &format!("took back {commits} from the ledger, which is not used any more"),
                    );
                }
                let pause = self.queue.pause(now())?;
                if !mode.is_by_itself() || pause.is_none_or(|pause| pause.until <= now()) {
                    report.paused = None;
                    self.deliver(pace, report)?;
                }
                self.queue.tidy(now() - rally::ANSWERS_KEPT)?;
                // Nobody is kept from delivering while this process only waits.
                drop(claim);
                let due = self.queue.next_due(now())?;
                next_round(mode, due, self.queue.pause(now())?.as_ref(), now(), self.config.rally.read_lag)
            }
        };
        Ok(next.into_iter().chain(hooks_end).min())
    }

    /// Forwards what is queued and, if a person or a timer asks for it, delivers this repository's part of the ledger.
    /// Returns when to go on, if this mode does.
    fn deliver_by_ledger(
        &mut self,
        access: &StoreAccess,
        mode: Mode,
        report: &mut Report,
    ) -> Result<Option<Time>, Error> {
        let config = self.config.clone();
        let forwarder = self.forwarder(&config, access);
        report.unforwarded = false;
        report.paused = None;
        let observe = &mut |event: &Event| {
            report.note(event);
            (self.observe)(event);
        };
        let forwarded = forwarder.forward(self.queue, mode != Mode::Background, observe).map_err(Error::from);
        let done = forwarded.and_then(|()| match mode {
            Mode::Background | Mode::Turn => Ok(None),
            Mode::Once | Mode::UntilClear | Mode::Wait => {
                forwarder.deliver(self.identity, observe, self.is_stopped).map(Some)
            }
        });
        match done {
            Ok(None) => Ok(None),
            Ok(Some(left)) => {
                report.left_to_others = (!config.rally.has_credentials()).then_some(
                    "what was forwarded is left to workers of other servers: here are no credentials for Rally",
                );
                report.busy = report.left_to_others.is_none()
                    && mode == Mode::Once
                    && left.asked == Asked::Elsewhere
                    && left.due_in.is_some();
                if let Asked::Blocked(span) = left.asked {
                    let span = humantime::format_duration(Duration::from_secs(span.as_secs() + 1));
                    report.last_error =
                        Some(format!("nothing is delivered for {span}: the ledger was restored or has failed over"));
                }
                Ok(next_of_ledger(mode, &left, report.paused.as_ref(), now(), self.config.rally.read_lag))
            }
            Err(Error::Queue(queue::Error::Ledger(error))) => {
                report.unforwarded = true;
                report.last_error = Some(with_causes(&error));
                // A repository in which nothing waits need not try so soon.
                let goes_on = match mode {
                    Mode::Turn => self.queue.parcel(&config.destination(), now())?.is_some(),
                    mode => mode == Mode::Wait,
                };
                Ok(goes_on.then(|| now() + LEDGER_AWAY))
            }
            Err(error) => Err(error),
        }
    }

    fn forwarder<'f>(&self, config: &'f Config, access: &'f StoreAccess) -> Forwarder<'f>
    where
        'w: 'f,
    {
        let Worker { repo_dir, ledgers, identity, .. } = *self;
        Forwarder { repo_dir, config, access, ledgers, host: identity.host.clone() }
    }

    /// Records what a hook had no time for. If that fails the delivery of the rest goes on.
    ///
    /// In the background, pushes whose hooks are still at work are left to these; returns when that will be over.
    fn record_rest(
        &mut self,
        mode: Mode,
        access: Option<&StoreAccess>,
        report: &mut Report,
    ) -> Result<Option<Time>, Error> {
        let pushes = self.queue.pushes()?;
        let hooks_time = match Kind::of(self.repo_dir) {
            Kind::Git => HOOKS_TIME,
            Kind::Subversion | Kind::Mercurial | Kind::Tfvc => BRIEF_HOOKS_TIME,
        };
        let hooks_end = pushes.iter().map(|push| push.received_at + hooks_time).max();
        let at_work = hooks_end.filter(|end| *end > now() && *end <= now() + hooks_time);
        if at_work.is_some() && mode.is_by_itself() {
            return Ok(at_work);
        }
        report.unrecorded = false;
        if pushes.is_empty() && !self.queue.has_kept_pushes()? {
            return Ok(None);
        }
        let rules = Rules::new(&self.config);
        let config = self.config.clone();
        let forwarder = access.map(|access| self.forwarder(&config, access));
        let recorded = Repository::open(self.repo_dir, &config).map_err(record::Error::from).and_then(|repository| {
            let (queue, report) = (&mut *self.queue, self.report);
            forwarder.map_or(Ok(false), |forwarder| forwarder.learn_history(&repository, queue))?;
            Recorder { repository: &repository, queue, rules: &rules, report }.record(Refs::Pushed, None)
        });
        match recorded {
            // The lines of the hooks tell only what these had recorded themselves.
            Ok(recorded) => {
                let Recorded { commits, queued, .. } = recorded;
                let commits = plural(commits, "new commit");
                (self.report)(Level::Info, &format!("recorded what hooks left: {commits}, {queued} queued"));
            }
            Err(error) => {
                report.unrecorded = true;
                // That is told once, by what is forwarded.
                let is_ledger_away = matches!(error, record::Error::Queue(queue::Error::Ledger(_)));
                let error = format!("cannot record the commits of a push: {}", with_causes(&error));
                if !is_ledger_away {
                    (self.report)(Level::Error, &error);
                }
                report.last_error = Some(error);
                if is_ledger_away && matches!(mode, Mode::Turn | Mode::Wait) {
                    return Ok(Some(now() + LEDGER_AWAY));
                }
            }
        }
        Ok(None)
    }

    fn deliver(&mut self, pace: &mut Pace, report: &mut Report) -> Result<(), Error> {
        let observe = &mut |event: &Event| {
            report.note(event);
            (self.observe)(event);
        };
        let is_stopped = self.is_stopped;
        let (config, queue) = (&self.config, &mut *self.queue);
        Ok(Delivery { config, fleet: None, queue, pace, observe, now: &now, is_stopped }.run()?)
    }
}

/// Returns when a mode goes on, or `None` if there is nothing that it waits for.
fn next_round(mode: Mode, due: Option<Time>, pause: Option<&Pause>, now: Time, lag: Duration) -> Option<Time> {
    let due = due?;
    match (mode, pause) {
        (Mode::Once, _) => None,
        // The person is here, is told, and has to act.
        (Mode::Wait, Some(pause)) if pause.needs_person => None,
        (Mode::UntilClear, pause) => Some(due).filter(|due| pause.is_none() && *due <= now + lag),
        (Mode::Wait | Mode::Background | Mode::Turn, pause) => Some(pause.map_or(due, |pause| due.max(pause.until))),
    }
}

/// Returns when a mode goes on that delivers from the ledger.
fn next_of_ledger(mode: Mode, left: &Left, pause: Option<&Pause>, now: Time, lag: Duration) -> Option<Time> {
    let earliest = match left.asked {
        Asked::Delivered => Duration::ZERO,
        Asked::Elsewhere => BUSY,
        Asked::Blocked(left) => left,
    };
    let due = left.due_in.map(|due| now + due.max(earliest));
    next_round(mode, due, pause, now, lag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_millis(10);

    fn at(millis: i64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    fn pause(needs_person: bool) -> Pause {
        Pause { until: at(500), since: at(0), attempts: 1, error: String::new(), needs_person, is_outage: false }
    }

    fn next(mode: Mode, due: i64, pause: Option<&Pause>) -> Option<Time> {
        next_round(mode, Some(at(due)), pause, at(0), LAG)
    }

    #[test]
    fn who_waits_goes_on_when_something_is_due_and_no_pause_holds() {
        for mode in [Mode::Wait, Mode::Background] {
            assert_eq!(next(mode, 100, None), Some(at(100)));
            assert_eq!(next(mode, 100, Some(&pause(false))), Some(at(500)));
            assert_eq!(next_round(mode, None, None, at(0), LAG), None);
        }
    }

    #[test]
    fn a_person_does_not_wait_for_what_a_person_has_to_fix() {
        for mode in [Mode::Once, Mode::UntilClear, Mode::Wait] {
            assert_eq!(next(mode, 100, Some(&pause(true))), None);
        }
        assert_eq!(next(Mode::Background, 100, Some(&pause(true))), Some(at(500)));
    }

    #[test]
    fn a_person_who_asked_waits_only_for_what_becomes_clear_in_a_moment() {
        assert_eq!(next(Mode::UntilClear, 10, None), Some(at(10)));
        assert_eq!(next(Mode::UntilClear, 11, None), None);
        assert_eq!(next(Mode::UntilClear, 10, Some(&pause(false))), None);
        assert_eq!(next(Mode::Once, 10, None), None);
    }
}
