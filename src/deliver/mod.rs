//! From the queue to Rally: who delivers, when, and what stops it.
//!
//! Delivery is at least once in its parts and exactly once in its effect: every step is safe to repeat, because what
//! Rally has is known from the ledger or asked for first.

mod authors;
mod body;
mod dispatch;
pub mod lookup;
mod pass;
pub mod rally;
mod states;

use std::fs::{File, TryLockError};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::backoff;
use crate::config::{self, BatchMode};
use crate::context::{Context, Error, now};
use crate::messages::tell;
use crate::queue::{self, Failure, Outcome, Pause, Queue};
use crate::record::{self, Source};
use crate::wsapi;
pub use authors::Authors;
use dispatch::Limits;
use pass::Pass;
use rally::{ANSWERS_KEPT, Halt, Rally};

/// How many changesets one pass takes: enough to fill the batches of all connections, few enough to hold in memory.
const PER_PASS: usize = 500;
/// How much text they may hold together; a message may have megabytes.
const BYTES_PER_PASS: usize = 16 * 1024 * 1024;
/// How often a waiting deliverer looks whether a push has brought something new.
const POLL: Duration = Duration::from_millis(500);
/// A request that ran into our time limit may be at work in Rally for this many times as long: five minutes at the
/// default of 30 s, when Rally ends any request (wsapi.md, section 6).
const TIMEOUT_SETTLES_AFTER: u32 = 10;
/// However long the time limit is, Rally is not at work on a request for longer than this.
const LONGEST_REQUEST: Duration = Duration::from_secs(3600);
/// How long a push is its hook's own, which tells the pusher what it recorded, before another process takes it for left
/// over; in milliseconds. A hook gives up after some two seconds.
const HOOKS_TIME: i64 = 2_500;

/// Who asks for delivery, which decides how long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A person or a timer: what is due is tried once.
    Once,
    /// A person who posts a range: like [`Mode::Once`], but what a process that was cut off has left unclear is waited
    /// for, since that takes a few seconds.
    Backfill,
    /// A person who waits until nothing is pending.
    Wait,
    /// The process that a hook started: like [`Mode::Wait`], but it heeds a pause that an earlier one began.
    Background,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Another process delivers.
    pub busy: bool,
    pub delivered: usize,
    pub existed: usize,
    /// Of the ones that existed: how many lacked Changes.
    pub completed: usize,
    pub unlinked: usize,
    /// Attempts that failed and will be repeated.
    pub put_off: usize,
    /// New dead letters.
    pub dead: usize,
    /// Why nothing more was tried, if so.
    pub paused: Option<Pause>,
    pub last_error: Option<String>,
    /// Whether there are pushes whose commits could not be recorded.
    pub unrecorded: bool,
    /// Shown while it goes on, if somebody watches.
    pub progress: Option<ProgressBar>,
}

impl Report {
    fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Delivered => &mut self.delivered,
            Outcome::Existed => &mut self.existed,
            Outcome::Unlinked => &mut self.unlinked,
        } += 1;
        if let Some(progress) = &self.progress {
            progress.inc(1);
        }
    }

    /// Tells whether nothing happened that anybody would want to hear of.
    pub fn is_uneventful(&self) -> bool {
        let done = self.delivered + self.existed + self.unlinked + self.put_off + self.dead;
        done == 0 && !self.busy && !self.unrecorded && self.last_error.is_none()
    }

    /// Tells whether a pause that somebody else began keeps this mode from trying.
    fn heeds_pause(&self, queue: &Queue, mode: Mode) -> Result<bool, Error> {
        Ok(mode == Mode::Background && queue.pause()?.is_some_and(|pause| pause.holds(now())))
    }

    fn failed(&mut self, for_good: bool, error: &wsapi::Error) {
        *(if for_good { &mut self.dead } else { &mut self.put_off }) += 1;
        self.last_error = Some(error.to_string());
    }
}

/// Delivers. One process at a time does so for a repository, and one at most waits in the background: a second one
/// leaves at once, and the first one sees to what the second would have done.
pub fn deliver(context: &Context, queue: &mut Queue, mode: Mode, report: &mut Report) -> Result<(), Error> {
    let mut pace = Pace::new(&context.config.rally);
    let mut reloaded: Option<Context> = None;
    loop {
        let background = context.state.lock_file("background.lock")?;
        if mode == Mode::Background && !try_lock(context, &background)? {
            report.busy = true;
            return Ok(());
        }
        loop {
            let context = reloaded.as_ref().unwrap_or(context);
            // From before it looks at what is due: a push that comes while it looks ends the wait.
            let version = queue.version()?;
            let Some(next) = Deliverer { context, queue, report, pace: &mut pace, rally: None }.run(mode)? else {
                break;
            };
            if mode != Mode::Background {
                tell_wait(next, report);
            }
            wait_until(queue, next, version)?;
            // Somebody may have mended the configuration meanwhile; then there is no reason to wait any longer.
            let renewed = context.reloaded()?;
            if renewed.config != context.config {
                queue.set_pause(None)?;
            }
            reloaded = Some(renewed);
        }
        drop(background);
        // A push may have come after the last look, and its process may have found the lock held and left.
        let pushes = !report.unrecorded && !queue.pushes()?.is_empty();
        let due = report.paused.is_none() && queue.next_due(now())?.is_some_and(|due| due <= now());
        if report.busy || !queue.is_current() || !pushes && !due || report.heeds_pause(queue, mode)? {
            return Ok(());
        }
    }
}

/// Tells whoever waits what for, unless it is over in a moment.
fn tell_wait(next: i64, report: &Report) {
    let seconds = (next - now()) / 1000;
    if seconds > 0 {
        let span = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs()));
        let why = report.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        tell(&format!("waiting {span} for the next attempt{why}"));
    }
}

/// Waits, but not longer than until a push brings something new to do: until the queue has another version.
fn wait_until(queue: &Queue, next: i64, version: i64) -> Result<(), Error> {
    while now() < next && queue.is_current() && queue.version()? == version {
        let left = Duration::from_millis((next - now()).max(0) as u64);
        std::thread::sleep(left.min(POLL));
    }
    Ok(())
}

/// Takes a lock if nobody holds it.
fn try_lock(context: &Context, file: &File) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => {
            Err(queue::Error::Directory { path: context.state.path().to_owned(), source }.into())
        }
    }
}

/// A row that is due: its number, its failed attempts, and the first of them.
type Due = (i64, u32, Option<i64>);

/// How much is asked of Rally at once; what was learned of it stays for as long as the process lives.
struct Pace {
    limits: Limits,
    /// How many changesets the next pass takes.
    per_pass: usize,
}

impl Pace {
    fn new(rally: &config::Rally) -> Self {
        let limits = Limits::new(rally.max_concurrent_requests, rally.batch == BatchMode::Auto);
        Pace { limits, per_pass: PER_PASS }
    }
}

struct Deliverer<'d> {
    context: &'d Context,
    queue: &'d mut Queue,
    report: &'d mut Report,
    pace: &'d mut Pace,
    rally: Option<Rally>,
}

impl Deliverer<'_> {
    /// Delivers what is due. Returns when to go on, if this mode does and anything waits.
    fn run(&mut self, mode: Mode) -> Result<Option<i64>, Error> {
        let lock = self.context.state.lock_file("deliver.lock")?;
        if matches!(mode, Mode::Once | Mode::Backfill) && !try_lock(self.context, &lock)? {
            self.report.busy = true;
            return Ok(None);
        }
        let waited = |source| queue::Error::Directory { path: self.context.state.path().to_owned(), source };
        lock.lock().map_err(waited)?;
        if !self.queue.is_current() {
            return Ok(None);
        }
        let hooks_end = self.record_rest(mode)?;
        if !self.report.heeds_pause(self.queue, mode)? {
            self.deliver_due()?;
        }
        self.queue.tidy(now() - ANSWERS_KEPT)?;
        // Nobody is kept from delivering while this process only waits.
        drop(lock);
        Ok(self.next_attempt(mode)?.into_iter().chain(hooks_end).min())
    }

    /// Records what a hook had no time for. If that fails the delivery of the rest goes on.
    ///
    /// In the background, pushes whose hooks are still at work are left to these; returns when that will be over.
    fn record_rest(&mut self, mode: Mode) -> Result<Option<i64>, Error> {
        let pushes = self.queue.pushes()?;
        let kept = self.context.state.kept_pushes().map_or(0, |kept| kept.len());
        let hooks_end = pushes.iter().map(|push| push.received_at + HOOKS_TIME).max();
        let at_work = hooks_end.filter(|end| (now()..=now() + HOOKS_TIME).contains(end));
        if at_work.is_some() && mode == Mode::Background {
            return Ok(at_work);
        }
        if pushes.is_empty() && kept == 0 {
            return Ok(None);
        }
        match record::record(self.context, self.queue, Source::Pushes, None) {
            Ok(recorded) => {
                self.report.unrecorded = false;
                if recorded.commits > 0 {
                    let (commits, queued) = (recorded.commits, recorded.queued);
                    self.context
                        .log
                        .info(&format!("pushes that were left over: {commits} new commits, {queued} queued"));
                }
            }
            Err(error) => {
                self.report.unrecorded = true;
                self.context.log.error(&format!("commits of a push cannot be recorded: {error}"));
                self.report.last_error = Some(error.to_string());
            }
        }
        Ok(None)
    }

    /// Delivers until nothing more is due, or something stops it.
    fn deliver_due(&mut self) -> Result<(), Error> {
        self.report.paused = None;
        loop {
            let rows = self.queue.due(now(), self.pace.per_pass, BYTES_PER_PASS)?;
            let states = match rows.is_empty() {
                true => self.queue.due_state_requests(now(), self.pace.per_pass)?,
                false => Vec::new(),
            };
            if rows.is_empty() && states.is_empty() {
                return Ok(());
            }
            let due: Vec<Due> = rows.iter().map(|row| (row.id, row.attempts, row.first_attempt)).collect();
            let (count, asked) = (rows.len(), states.len());
            self.context.log.debug(&format!("{count} changesets and {asked} requests for state changes are due"));
            match self.connect().and_then(|()| self.pass(rows, &states)) {
                Ok(()) => {
                    self.pace.per_pass = (self.pace.per_pass * 2).min(PER_PASS);
                    if self.queue.pause()?.is_some() {
                        self.queue.set_pause(None)?;
                    }
                }
                Err(Halt::Rally(error)) if self.rally.is_some() && self.goes_on_with_less(&due, &error)? => {}
                Err(Halt::Rally(error) | Halt::Repository(error)) => {
                    return self.stop(&error, error.verdict() == wsapi::Verdict::Stop, error.retry_after());
                }
                Err(Halt::Queue(error)) => return Err(error.into()),
                Err(Halt::Config(error)) => return self.stop(&error, true, None),
            }
        }
    }

    fn connect(&mut self) -> Result<(), Halt> {
        if self.rally.is_none() {
            self.rally = Some(Rally::connect(self.context, self.queue)?);
        }
        Ok(())
    }

    fn pass(&mut self, rows: Vec<queue::Row>, states: &[queue::StateRow]) -> Result<(), Halt> {
        let rally = self.rally.as_ref().expect("it is connected before each pass");
        if !rows.is_empty() {
            return Pass::new(self.context, self.queue, rally, &mut self.pace.limits, self.report, rows).run();
        }
        states::update(self.context, self.queue, rally, &mut self.pace.limits, states)
    }

    /// Asks for less the next time, after a look-up failed. Where Rally refused the question, which is about several
    /// changesets, they are halved at once until the one that it will not answer for stands alone and is put off.
    fn goes_on_with_less(&mut self, due: &[Due], error: &wsapi::Error) -> Result<bool, Error> {
        self.pace.per_pass = (due.len() / 2).max(1);
        if error.verdict() != wsapi::Verdict::Reject {
            return Ok(false);
        }
        if let [(id, attempts, first_attempt)] = *due {
            let next_attempt = next_attempt(self.context, attempts, first_attempt, error);
            self.queue.fail(&[(id, Failure { error: error.to_string(), next_attempt })], now())?;
            self.report.failed(next_attempt.is_none(), error);
        }
        Ok(!due.is_empty())
    }

    /// Puts everything off: Rally cannot be used, or nothing will succeed before a person has acted.
    fn stop(
        &mut self,
        error: &dyn std::error::Error,
        needs_person: bool,
        retry_after: Option<Duration>,
    ) -> Result<(), Error> {
        let queue = &self.context.config.queue;
        let before = self.queue.pause()?;
        // Who tries before its time, as people do, makes no one wait longer.
        let early = before.as_ref().filter(|pause| pause.holds(now()));
        let attempts = before.as_ref().map_or(0, |pause| pause.attempts) + u32::from(early.is_none());
        let wait = backoff::delay(queue.retry_delay, attempts, backoff::random(), retry_after);
        let until = early.filter(|_| retry_after.is_none()).map_or(now() + millis(wait), |pause| pause.until);
        let since = before.as_ref().map_or_else(now, |pause| pause.since);
        let pause = Pause { until, since, attempts, error: error.to_string(), needs_person };
        let wait = Duration::from_secs((until - now()).max(0).unsigned_abs() / 1000);
        self.context.log.error(&match needs_person {
            true => format!("delivery stops until somebody acts: {error}"),
            false => format!("delivery pauses for {}: {error}", humantime::format_duration(wait)),
        });
        self.queue.set_pause(Some(&pause))?;
        let patience = queue.retry_for.as_millis() as i64;
        if now() - since > patience {
            let given_up = self.queue.give_up(now() - patience, &pause.error)?;
            for revision in &given_up {
                self.context.log.error(&format!("commit {revision} cannot be posted: {}", pause.error));
            }
            self.report.dead += given_up.len();
        }
        // What is known of the workspace may be what is wrong.
        self.rally = None;
        if needs_person {
            for kind in ["workspace", "types"] {
                self.queue.forget(kind, None)?;
            }
        }
        self.report.last_error = Some(pause.error.clone());
        self.report.paused = Some(pause);
        Ok(())
    }

    /// Returns when this mode goes on, or `None` if there is nothing that it waits for.
    fn next_attempt(&self, mode: Mode) -> Result<Option<i64>, Error> {
        let Some(due) = self.queue.next_due(now())? else { return Ok(None) };
        Ok(match (mode, self.queue.pause()?) {
            (Mode::Once, _) => None,
            // A person is told and has to act; the next push or call tries again.
            (_, Some(pause)) if pause.needs_person => None,
            (Mode::Backfill, pause) => Some(due).filter(|due| pause.is_none() && *due <= now() + lag()),
            (Mode::Wait | Mode::Background, pause) => Some(pause.map_or(due, |pause| due.max(pause.until))),
        })
    }
}

/// Returns when to try again after one more failed attempt; `None` if that has been done for long enough.
fn next_attempt(context: &Context, attempts: u32, first_attempt: Option<i64>, error: &wsapi::Error) -> Option<i64> {
    let config = &context.config.queue;
    let tried_for = now() - first_attempt.unwrap_or_else(now);
    let wait = backoff::delay(config.retry_delay, attempts + 1, backoff::random(), error.retry_after());
    (tried_for <= millis(config.retry_for)).then(|| now() + millis(wait))
}

/// Returns from when on Rally can tell whether a write took place that ended with this error.
fn settles_at(error: &wsapi::Error, timeout: Duration) -> i64 {
    match error.is_timeout() {
        true => now() + millis((timeout * TIMEOUT_SETTLES_AFTER).min(LONGEST_REQUEST)).max(lag()),
        false => now() + lag(),
    }
}

/// How far reads may lag behind writes, in milliseconds: up to about 8 seconds have been seen (wsapi.md, 2.3).
fn lag() -> i64 {
    // A fault test of hundreds of rounds cannot wait that long in each; its simulator does not lag.
    #[cfg(debug_assertions)]
    if let Some(lag) = std::env::var("RALLY_HOOK_TEST_LAG_MS").ok().and_then(|text| text.parse().ok()) {
        return lag;
    }
    10_000
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
