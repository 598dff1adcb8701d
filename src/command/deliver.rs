//! `rally-hook deliver`: posts what waits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::{Ended, Error, load, plural, with_queue};
use crate::cli::{Deliver, Place};
use crate::context::Context;
use crate::deliver::{Mode, Report, deliver};
use crate::messages::tell;
use crate::panics::caught;
use crate::queue::Status;

/// Repositories nested deeper below the directory of `--all-repos` are not looked for.
const MAX_DEPTH: usize = 8;

pub fn run(place: &Place, arguments: &Deliver) -> Result<Ended, Error> {
    if let Some(root) = &arguments.all_repos {
        return all_repositories(place, root);
    }
    let mode = match arguments {
        Deliver { wait: true, .. } => Mode::Wait,
        _ => Mode::Once,
    };
    one_repository(&load(place)?, mode)
}

/// Delivers with nobody to see it: trouble goes to the log.
pub(super) fn deliver_unseen(context: &Context, mode: Mode) {
    let done = caught(|| with_queue(context, |queue| deliver(context, queue, mode, &mut Report::default())));
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => context.log.error(&format!("delivery ended: {error}")),
        Err(fault) => context.log.error(&format!("delivery ended by a fault of its own: {fault}")),
    }
}

fn one_repository(context: &Context, mode: Mode) -> Result<Ended, Error> {
    let (report, status) = deliver_and_look(context, mode)?;
    Ok(summarise(&report, &status))
}

/// Delivers, with a progress bar on a terminal, and returns how it went and what is left.
pub(super) fn deliver_and_look(context: &Context, mode: Mode) -> Result<(Report, Status), Error> {
    let mut report = Report::default();
    let status = with_queue(context, |queue| {
        report.progress = Some(super::progress("delivering", Some(queue.status()?.pending.unsigned_abs())));
        deliver(context, queue, mode, &mut report)?;
        Ok(queue.status()?)
    })?;
    report.progress.iter().for_each(ProgressBar::finish_and_clear);
    Ok((report, status))
}

/// Says what was delivered and what was not, and why.
pub(super) fn summarise(report: &Report, status: &Status) -> Ended {
    if report.busy {
        tell("another process is delivering at this moment; `rally-hook status` shows what waits");
        return if status.pending == 0 { Ended::Done } else { Ended::NotAll };
    }
    let mut parts = vec![format!("{} delivered", plural(report.delivered, "commit"))];
    let mut add = |count: usize, what: &str| parts.extend((count > 0).then(|| format!("{count} {what}")));
    add(report.existed, "already in Rally");
    add(report.completed, "of these completed");
    add(report.unlinked, "without an artifact that Rally has");
    add(report.dead, "given up");
    add(status.pending as usize, "waiting");
    add(status.state_requests as usize, "whose state changes wait");
    let waits = status.pending + status.state_requests > 0;
    if parts.len() == 1 && report.delivered == 0 {
        parts = vec!["nothing was left to deliver".into()];
    }
    tell(&parts.join(", "));
    let reason = report.paused.as_ref().map(|pause| &pause.error).or(report.last_error.as_ref());
    match (reason.filter(|_| waits || report.dead > 0 || report.unrecorded), status.next_attempt) {
        (Some(reason), _) => tell(reason),
        (None, Some(next)) if waits => tell(&format!("what waits is due {}", super::from_now(next))),
        _ => {}
    }
    if status.failed > 0 {
        let letters = plural(status.failed.unsigned_abs() as usize, "dead letter");
        tell(&format!("{letters}: `rally-hook status` says why, `rally-hook retry` tries again"));
    }
    if !waits && report.dead == 0 && !report.unrecorded { Ended::Done } else { Ended::NotAll }
}

/// Delivers for every repository that has a queue; one that fails does not keep the others from it.
fn all_repositories(place: &Place, root: &Path) -> Result<Ended, Error> {
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
        match load(&place).and_then(|context| deliver_and_look(&context, Mode::Once)) {
            // A timer that finds nothing to do says nothing.
            Ok((report, status)) if report.is_uneventful() && status.pending + status.state_requests == 0 => {}
            Ok((report, status)) => {
                name();
                if summarise(&report, &status) == Ended::NotAll {
                    ended = Ended::NotAll;
                }
            }
            Err(error) => {
                name();
                tell(&error.to_string());
                ended = Ended::NotAll;
            }
        }
    }
    Ok(ended)
}

/// Collects the Git directories below `dir` that have our state in them, each once however many links lead there.
fn find_queues(dir: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    if dir.join("HEAD").is_file() && dir.join("objects").is_dir() {
        found.extend(dir.join("rally-hook").is_dir().then(|| dir.canonicalize().ok()).flatten());
        return;
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    let Ok(entries) = fs::read_dir(dir) else { return };
    let below = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    below.for_each(|dir| find_queues(&dir, depth, found));
}
