//! `rally-hook backfill`: posts the commits of a range that a person names.
//!
//! Commits are recorded while the walk goes on and are delivered afterwards. Whatever stops it (Ctrl-C too), running it
//! again goes on where it ended: what is recorded or delivered already is left alone.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::{Ended, Error, git_dir, load, plural, progress, with_queue};
use crate::artifact::FormattedId;
use crate::changeset::{Change, Changeset};
use crate::cli::{Backfill, Place};
use crate::config::{self, Commits, Config, Deliver};
use crate::context::{self, Context};
use crate::deliver::Mode;
use crate::git::{self, Range, Read, Reader, read_range};
use crate::messages::tell;
use crate::push::CommitId;
use crate::queue::{self, Queue};
use crate::record;
use crate::text::{json_safe, printable};

/// How many changesets go into one transaction.
const PER_TRANSACTION: usize = 500;

pub fn run(place: &Place, arguments: &Backfill) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    if let Some(since) = arguments.since.as_deref().filter(|since| !git::is_date(since)) {
        return Err(Error::Usage(format!("{since:?} is no date; one looks like 2026-01-31 or \"3 weeks ago\"")));
    }
    let range = range(&git_dir, arguments)?;
    if arguments.dry_run {
        return dry_run(place, &git_dir, &range, arguments.json);
    }
    let context = load(place)?;
    let (commits, new, unreadable) = with_queue(&context, |queue| record_range(&context, queue, &range))?;
    tell(&format!("{} read, {new} of them new to the queue", plural(commits, "commit")));
    if context.config.queue.deliver == Deliver::Later {
        if new > 0 {
            tell("they are delivered by the next `rally-hook deliver`, as queue.deliver = \"later\" says");
        }
        return Ok(if unreadable == 0 { Ended::Done } else { Ended::NotAll });
    }
    let (report, status) = super::deliver::deliver_and_look(&context, Mode::Backfill)?;
    let ended = super::deliver::summarise(&report, &status);
    if status.pending > 0 {
        tell("`rally-hook deliver --wait` goes on with what waits");
    }
    Ok(if unreadable == 0 { ended } else { Ended::NotAll })
}

fn range(git_dir: &Path, arguments: &Backfill) -> Result<Range, Error> {
    let mut revisions = arguments.ranges.clone();
    if arguments.all {
        revisions.push("--all".into());
    }
    if revisions.is_empty() {
        revisions.push("HEAD".into());
    }
    Ok(git::resolve(git_dir, &revisions, arguments.since.as_deref())?)
}

fn record_range(context: &Context, queue: &mut Queue, range: &Range) -> Result<(usize, usize, usize), context::Error> {
    let reader = Reader::new(&context.config.commits);
    let bar = progress("reading", None);
    let (mut waiting, mut commits, mut new, mut unreadable) = (Vec::new(), 0, 0, 0);
    let mut failed: Option<queue::Error> = None;
    let read = read_range(&context.git_dir, &reader, range, |id, read| {
        commits += 1;
        bar.inc(1);
        match record::matching(context, id, read) {
            Ok(changeset) => waiting.extend(changeset),
            Err(reason) => {
                unreadable += 1;
                tell(&format!("commit {id}: {reason}"));
            }
        }
        if waiting.len() >= PER_TRANSACTION {
            match record::store_backfill(context, queue, &waiting) {
                Ok(stored) => new += stored,
                Err(error) => failed = Some(error),
            }
            waiting.clear();
        }
        failed.is_none()
    });
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error.into());
    }
    new += record::store_backfill(context, queue, &waiting)?;
    read?;
    queue.forget_loss()?;
    Ok((commits, new, unreadable))
}

/// Prints what would be posted. It needs no network, no queue, and no configuration either.
fn dry_run(place: &Place, git_dir: &Path, range: &Range, json: bool) -> Result<Ended, Error> {
    let commits = match Config::load(super::config_file(place, git_dir).as_deref(), git_dir) {
        Ok(config) => config.commits,
        // Where none was named, none is needed.
        Err(config::Error::Missing(places)) if places.len() > 1 => Commits::default(),
        Err(error) => return Err(error.into()),
    };
    let reader = Reader::new(&commits);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let (mut read_count, mut matching, mut ended) = (0, 0, Ended::Done);
    let all_read = read_range(git_dir, &reader, range, |id, read| {
        read_count += 1;
        if let Some(changeset) = readable(id, read, &mut ended) {
            matching += 1;
            written = if json { print_json(&mut out, &changeset) } else { print_text(&mut out, &changeset) };
        }
        written.is_ok()
    });
    written?;
    out.flush()?;
    all_read?;
    if !json {
        tell(&format!(
            "{} read, {matching} would be posted, unless they are there already",
            plural(read_count, "commit")
        ));
    }
    Ok(ended)
}

fn readable(id: CommitId, read: Result<Read, git::Error>, ended: &mut Ended) -> Option<Changeset> {
    match read {
        Ok(Read::Unmentioned) => None,
        Ok(Read::Matching(changeset)) => Some(changeset),
        Err(error) => {
            tell(&format!("commit {id}: {error}"));
            *ended = Ended::NotAll;
            None
        }
    }
}

#[derive(Serialize)]
struct Line<'c> {
    revision: &'c str,
    artifacts: &'c [FormattedId],
    changes: &'c [Change],
    #[serde(skip_serializing_if = "is_zero")]
    omitted_changes: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn print_json(out: &mut impl Write, changeset: &Changeset) -> io::Result<()> {
    let Changeset { revision, artifacts, changes, omitted, .. } = changeset;
    let json = serde_json::to_string(&Line { revision, artifacts, changes, omitted_changes: *omitted })?;
    writeln!(out, "{}", json_safe(&json))
}

fn print_text(out: &mut impl Write, changeset: &Changeset) -> io::Result<()> {
    let ids: Vec<String> = changeset.artifacts.iter().map(FormattedId::to_string).collect();
    let subject = changeset.message.lines().next().unwrap_or_default();
    let ids = if ids.is_empty() { "-".to_owned() } else { ids.join(", ") };
    writeln!(out, "{} {ids}: {}", &changeset.revision[..12], printable(subject))?;
    for change in &changeset.changes {
        writeln!(out, "  {} {}", change.action.letter(), printable(&change.path))?;
    }
    if changeset.omitted > 0 {
        writeln!(out, "  and {} more", changeset.omitted)?;
    }
    Ok(())
}
