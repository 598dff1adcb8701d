//! `rally-hook deliver`: delivers what is due.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::status::unclear;
use super::{Ended, Error, Site, from_now, load_config, whole_seconds};
use crate::cli::{Deliver, Place};
use crate::clock::now;
use crate::config::Level;
use crate::deliver::Event;
use crate::messages::tell;
use crate::panics::caught;
use crate::process;
use crate::progress::Progress;
use crate::queue::{Claim, Claimed, Pause, StateDir, Status};
use crate::text::{plural, with_causes};
use crate::worker::{Mode, Report, Worker};

/// Repositories nested deeper below the directory of `--all-repos` are not looked for.
const MAX_DEPTH: usize = 8;

pub(super) fn run(place: &Place, arguments: &Deliver) -> Result<Ended, Error> {
    if let Some(root) = &arguments.all_repos {
        return all_repositories(place, root, arguments.now);
    }
    let mode = match arguments {
        Deliver { wait: true, .. } => Mode::Wait,
        Deliver { now: true, .. } => Mode::UntilClear,
        _ => Mode::Once,
    };
    let site = Site::open(place)?;
    tell_pause(&site)?;
    if arguments.now {
        make_due(&site)?;
    }
    let (report, status) = deliver_and_look(&site, mode)?;
    Ok(summarise(&report, &status))
}

/// Makes due what waits for the end of a back-off.
fn make_due(site: &Site) -> Result<(), Error> {
    site.with_queue(|queue| Ok(queue.make_due(now())?))
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
    let silent = |_: Duration, _: Option<&str>| ();
    match caught(|| deliver(site, mode, waiting, &mut Report::default(), &|| (), &silent)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => site.log.error(&format!("delivery ended: {}", with_causes(&error))),
        Err(panic) => site.log.error(&format!("delivery ended by a bug in rally-hook, please report it: {panic}")),
    }
}

/// Delivers, with a progress bar on a terminal, and returns how it went and what is left.
pub(super) fn deliver_and_look(site: &Site, mode: Mode) -> Result<(Report, Status), Error> {
    let mut report = Report::default();
    let status = || site.with_queue(|queue| Ok(queue.status(now())?));
    let bar = Progress::of(status()?.pending.unsigned_abs(), "delivering");
    deliver(site, mode, None, &mut report, &|| bar.advance(), &tell_wait)?;
    drop(bar);
    Ok((report, status()?))
}

fn deliver(
    site: &Site,
    mode: Mode,
    mut waiting: Option<Claimed>,
    report: &mut Report,
    progress: &dyn Fn(),
    wait: &dyn Fn(Duration, Option<&str>),
) -> Result<(), Error> {
    let mut observe = |event: &Event| {
        site.log.write(event.level(), &event.to_string());
        if let Event::Finished { .. } | Event::Unlinked { .. } = event {
            progress();
        }
    };
    let log = |level: Level, message: &str| site.log.write(level, message);
    let reload = || load_config(site.config_file.as_deref(), &site.git_dir);
    site.with_queue(|queue| {
        let (git_dir, config, observe) = (&site.git_dir, site.config.clone(), &mut observe);
        let waiting = waiting.take();
        Ok(Worker { git_dir, queue, waiting, config, reload: &reload, observe, report: &log, wait }
            .run(mode, report)?)
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
    add(report.dead, "became dead letters");
    add(status.pending as usize, "queued");
    add(status.state_requests as usize, "with queued state changes");
    let is_queued = status.pending + status.state_requests > 0;
    if parts.len() == 1 && report.delivered == 0 {
        parts = vec!["nothing is queued".into()];
    }
    tell(&parts.join(", "));
    let reason = report.paused.as_ref().map(|pause| &pause.error).or(report.last_error.as_ref());
    if let Some(reason) = reason.filter(|_| is_queued || report.dead > 0 || report.unrecorded) {
        tell(reason);
    }
    if status.unclear > 0 {
        tell(&unclear(status));
    }
    if let Some(next) = status.next_attempt {
        let due = from_now(next.max(now()));
        tell(&format!("the next attempt is due {due}; `rally-hook deliver --now` tries at once"));
    }
    if status.failed > 0 {
        let letters = plural(status.failed, "dead letter");
        tell(&format!("{letters}: `rally-hook status` says why, `rally-hook retry --all` tries again"));
    }
    Ended::done_if(!is_queued && report.dead == 0 && !report.unrecorded)
}

/// Delivers for every repository that has a queue; one that fails does not keep the others from it.
fn all_repositories(place: &Place, root: &Path, is_now: bool) -> Result<Ended, Error> {
    if !root.is_dir() {
        return Err(Error::Usage(format!("{} is not a directory", root.display())));
    }
    if let Some(repo) = &place.repo {
        return Err(Error::Usage(format!("--all-repos and --repo {} exclude each other", repo.display())));
    }
    let mut found = BTreeSet::new();
    find_queues(root, MAX_DEPTH, &mut found);
    let mut ended = Ended::Done;
    for git_dir in found {
        let place = Place { repo: Some(git_dir.clone()), ..place.clone() };
        let name = || tell(&format!("{}:", git_dir.display()));
        let work = || {
            let site = Site::open(&place)?;
            if is_now {
                make_due(&site)?;
            }
            deliver_and_look(&site, Mode::Once)
        };
        let done = caught(work);
        match done.unwrap_or_else(|panic| Err(Error::Failed(format!("a bug in rally-hook, please report it: {panic}"))))
        {
            // A timer that finds nothing to do says nothing, nor where another process does it.
            Ok((report, _)) if report.busy => {}
            Ok((report, status)) if report.is_uneventful() && status.pending + status.state_requests == 0 => {}
            Ok((report, status)) => {
                name();
                if summarise(&report, &status) == Ended::NotAll {
                    ended = Ended::NotAll;
                }
            }
            Err(error) => {
                name();
                tell(&with_causes(&error));
                ended = Ended::NotAll;
            }
        }
    }
    Ok(ended)
}

/// Collects the Git directories below `dir` that have our state in them. Links are not followed: they may lead to
/// repositories that the caller did not name.
fn find_queues(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    if dir.join("HEAD").is_file() && dir.join("objects").is_dir() {
        found.extend(StateDir::is_in(dir).then(|| dir.canonicalize().ok()).flatten());
        return;
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    let Ok(entries) = fs::read_dir(dir) else { return };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_dir).for_each(|entry| find_queues(&entry.path(), depth, found));
}
