//! `rally-hook deliver`: posts what waits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Ended, Error, load, plural, with_queue};
use crate::cli::{Deliver, Place};
use crate::context::Context;
use crate::deliver::{Mode, Report, deliver};
use crate::messages::tell;
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
    let done = with_queue(context, |queue| deliver(context, queue, mode, &mut Report::default()));
    if let Err(error) = done {
        context.log.error(&format!("delivery ended: {error}"));
    }
}

fn one_repository(context: &Context, mode: Mode) -> Result<Ended, Error> {
    let mut report = Report::default();
    let status = with_queue(context, |queue| {
        deliver(context, queue, mode, &mut report)?;
        Ok(queue.status()?)
    })?;
    Ok(summarise(&report, &status))
}

/// Says what was delivered and what was not.
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
    add(report.dead, "refused for good");
    add(status.pending as usize, "waiting");
    add(status.state_requests as usize, "whose state changes wait");
    tell(&parts.join(", "));
    if let Some(pause) = &report.paused {
        tell(&pause.error);
    } else if let Some(error) = report
        .last_error
        .as_ref()
        .filter(|_| status.pending + status.state_requests > 0 || report.dead > 0 || report.unrecorded)
    {
        tell(error);
    }
    if report.dead > 0 {
        tell("see `rally-hook status` for what was refused; `rally-hook retry` tries it again");
    }
    let all_done = status.pending + status.state_requests == 0 && report.dead == 0 && !report.unrecorded;
    if all_done { Ended::Done } else { Ended::NotAll }
}

/// Delivers for every repository that has a queue; one that fails does not keep the others from it.
fn all_repositories(place: &Place, root: &Path) -> Result<Ended, Error> {
    if !root.is_dir() {
        return Err(Error::Usage(format!("{} is not a directory", root.display())));
    }
    let mut found = BTreeSet::new();
    find_queues(root, MAX_DEPTH, &mut found);
    let mut ended = Ended::Done;
    for git_dir in found {
        tell(&format!("{}:", git_dir.display()));
        let place = Place { repo: Some(git_dir), ..place.clone() };
        match load(&place).and_then(|context| one_repository(&context, Mode::Once)) {
            Ok(Ended::Done) => {}
            Ok(Ended::NotAll) => ended = Ended::NotAll,
            Err(error) => {
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
