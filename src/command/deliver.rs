//! `rally-hook deliver`: delivers what is due.

use std::io;
use std::time::Duration;

use super::letters::Letters;
use super::many::{Which, each};
use super::status::unclear;
use super::status_ledger::Ledger;
use super::{Ended, Error, RECORD, Site, from_now, neighbours, whole_seconds};
use crate::backoff::random;
use crate::cli::{Deliver, Place};
use crate::clock::now;
use crate::config::Level;
use crate::deliver::{Event, Line};
use crate::messages::{is_verbose, tell};
use crate::panics::caught;
use crate::process;
use crate::progress::Progress;
use crate::queue::{AtWork, Claim, Claimed, Pause, Status, WorkQueue};
use crate::text::{plural, with_causes};
use crate::time::Time;
use crate::worker::{self, Identity, Mode, Report, Worker};

pub(super) fn run(place: &Place, arguments: &Deliver) -> Result<Ended, Error> {
    let is_one_of_many = arguments.many.all_repos.is_some();
    each(place, &arguments.many, Which::Served, |place| {
        let site = Site::open(place)?;
        if !is_one_of_many {
            tell_pause(&site)?;
        }
        if arguments.now {
            Letters::of(&site)?.make_due()?;
        }
        let mode = match arguments {
            Deliver { wait: true, .. } => Mode::Wait,
            Deliver { now: true, .. } => Mode::UntilClear,
            _ => Mode::Once,
        };
        let (report, status) = deliver_and_look(&site, mode)?;
        // A timer that finds nothing to do says nothing, nor where another process does it.
        let is_idle = report.busy || report.is_uneventful() && status.pending + status.state_requests == 0;
        Ok(if is_one_of_many && is_idle { Ended::Done } else { summarise(&report, &status) })
    })
}

/// Returns what this process is called where many deliver.
pub(super) fn identity() -> Identity {
    let host = process::host_name();
    let chance = (random() * f64::from(u32::MAX)) as u32;
    Identity { id: format!("{host} {} {chance:08x}", std::process::id()), host }
}

/// Says that delivery pauses, which does not keep a person from trying.
pub(super) fn tell_pause(site: &Site) -> Result<(), Error> {
    let pause = site.with_queue(|queue| Ok(queue.pause(now())?))?;
    if let Some(pause) = pause.filter(|pause| pause.until > now()) {
        let Pause { until, error, .. } = pause;
        tell(&format!("delivery pauses until {until}: {error}"));
        tell("trying now all the same; this attempt does not extend the pause");
    }
    Ok(())
}

/// Delivers in a child process, which does `first` before. To be called as [`process::apart`] is.
pub(super) fn deliver_apart(site: &Site, first: impl FnOnce()) -> io::Result<()> {
    process::apart(|| {
        // At once, so that `status` sees that somebody will deliver. If it fails, the worker tries again and says why.
        let waiting = site.state.try_claim(Claim::Waiting).ok().flatten();
        first();
        deliver_unseen(site, Mode::Background, waiting);
    })
}

/// Delivers without a terminal: trouble goes to the log. The claim on waiting may have been made before.
pub(super) fn deliver_unseen(site: &Site, mode: Mode, waiting: Option<Claimed>) {
    let delivered = caught(|| deliver(site, mode, waiting, &mut Report::default(), None));
    if let Err(error) = delivered.map_err(Error::Bug).flatten() {
        site.log_error("delivery-ended", &format!("delivery ended: {}", with_causes(&error)));
    }
}

/// Delivers, with a progress bar on a terminal, and returns how it went and what is left.
pub(super) fn deliver_and_look(site: &Site, mode: Mode) -> Result<(Report, Status), Error> {
    let mut report = Report::default();
    let look = || {
        let (mut status, mut at_work) = (site.with_queue(|queue| Ok(queue.status(now())?))?, site.state.at_work()?);
        if let Some(ledger) = Ledger::of(site, &status) {
            at_work = ledger.at_work(at_work, &status);
            ledger.add_to(&mut status);
        }
        Ok::<_, Error>((status, at_work))
    };
    process::note_terminations();
    let bar = Progress::of(look()?.0.pending.unsigned_abs(), "delivering");
    deliver(site, mode, None, &mut report, Some(&bar))?;
    drop(bar);
    if process::is_terminated() {
        tell("interrupted; the other commits stay queued, and `rally-hook deliver` continues with them");
    }
    let (status, at_work) = look()?;
    report.is_attended = at_work != AtWork::Nobody;
    Ok((report, status))
}

fn deliver(
    site: &Site,
    mode: Mode,
    mut waiting: Option<Claimed>,
    report: &mut Report,
    bar: Option<&Progress>,
) -> Result<(), Error> {
    with_worker(site, bar, |mut worker| worker.run(mode, waiting.take(), report))
}

/// Has one turn of a service, which looks so often for a changed configuration. Returns when the next is due, if anything
/// waits.
pub(super) fn turn(site: &Site, every: Duration) -> Result<Option<Time>, Error> {
    with_worker(site, None, |mut worker| worker.turn(every))
}

/// Does some work with the worker of the repository, which writes to its log. With a bar, somebody watches.
fn with_worker<T>(
    site: &Site,
    bar: Option<&Progress>,
    mut work: impl FnMut(Worker) -> Result<T, worker::Error>,
) -> Result<T, Error> {
    let mut observe = |event: &Event| {
        let Line { level, name, fields, text } = event.line();
        site.log.write(level, name, &fields, &text);
        if is_verbose() && level != Level::Debug {
            tell(&text);
        }
        if let (Some(bar), Event::Finished { .. } | Event::Unlinked { .. }) = (bar, event) {
            bar.advance();
        }
    };
    let log = |level: Level, message: &str| site.log.write(level, RECORD, &[], message);
    let wait = |span: Duration, error: Option<&str>| {
        if bar.is_some() {
            tell_wait(span, error);
        }
    };
    let reload = || site.reload();
    let identity = identity();
    site.with_queue(|queue| {
        // A timer and a service look at many repositories in which nothing waits.
        if queue.next_due(now())?.is_some() || !queue.pushes()?.is_empty() {
            neighbours::note(&site.repo_dir, &site.config, site.config_file.as_deref());
        }
        Ok(work(Worker {
            repo_dir: &site.repo_dir,
            ledgers: &site.ledgers,
            identity: &identity,
            queue,
            config: site.config.clone(),
            reload: &reload,
            observe: &mut observe,
            report: &log,
            wait: &wait,
            is_stopped: &process::is_terminated,
        })?)
    })
}

/// Says how long the wait is and what for, unless it is over in a moment.
fn tell_wait(wait: Duration, error: Option<&str>) {
    if wait.as_secs() > 0 {
        let span = whole_seconds(wait);
        let why = error.map(|error| format!(": {error}")).unwrap_or_default();
        tell(&format!("waiting {span} for the next attempt{why}"));
    }
}

/// Says what was delivered and what was not, and why.
pub(super) fn summarise(report: &Report, status: &Status) -> Ended {
    if report.busy {
        tell("another process is delivering; `rally-hook status` shows what is queued");
        return Ended::Done;
    }
    let mut parts = vec![format!("{} delivered", plural(report.delivered, "commit"))];
    let mut add = |count: usize, what: &str| parts.extend((count > 0).then(|| format!("{count} {what}")));
    add(report.existed, "already in Rally");
    add(report.completed, "of these lacked changes, now added");
    add(report.unlinked, "without an artifact that Rally has");
    add(report.dead, if report.dead == 1 { "became a dead letter" } else { "became dead letters" });
    add(status.pending as usize, "queued");
    add(status.state_requests as usize, "with queued state changes");
    let is_queued = status.pending + status.state_requests > 0;
    if parts.len() == 1 && report.delivered == 0 {
        parts = vec!["nothing is queued".into()];
    }
    tell(&parts.join(", "));
    let reason = report.paused.as_ref().map(|pause| &pause.error).or(report.last_error.as_ref());
    if let Some(why) = report.left_to_others.filter(|_| is_queued) {
        tell(why);
    }
    let is_told = is_queued || report.dead > 0 || report.unrecorded || report.unforwarded;
    if let Some(reason) = reason.filter(|_| is_told) {
        tell(reason);
    }
    if status.unclear > 0 {
        tell(&unclear(status));
    }
    if let Some(next) = status.next_attempt.filter(|_| !report.unforwarded && report.left_to_others.is_none()) {
        let due = from_now(next.max(now()));
        let who = if report.is_attended { "another process makes it" } else { "no process is waiting to make it" };
        tell(&format!("the next attempt is due {due}, {who}; `rally-hook deliver --now` tries at once"));
    }
    if status.failed > 0 {
        let letters = plural(status.failed, "dead letter");
        tell(&format!("{letters}: `rally-hook status` says why, `rally-hook retry --all` tries again"));
    }
    Ended::done_if(!is_queued && report.dead == 0 && !report.unrecorded && !report.unforwarded)
}
