//! `rally-hook backfill`: posts the commits of a range that a person names.
//!
//! Commits are recorded while the walk goes on and are delivered afterwards. It may be stopped at any time (Ctrl-C too):
//! run again it goes on where it ended, because what is recorded or delivered already is left alone.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::deliver::{deliver_and_look, summarise, tell_pause};
use super::{Ended, Error, Site, find_config, repo_dir};
use crate::artifact::FormattedId;
use crate::changeset::{Changeset, Post};
use crate::cli::{Backfill, Place};
use crate::commit::Change;
use crate::config::{self, Config, Deliver};
use crate::messages::tell;
use crate::process;
use crate::progress::Progress;
use crate::record::Rules;
use crate::text::{json_line, plural, printable, with_causes};
use crate::vcs::{Items, Repository, Wanted};
use crate::worker::Mode;

/// How many of the IDs that are named most a dry run lists.
const MOST_NAMED: usize = 10;

pub(super) fn run(place: &Place, arguments: &Backfill) -> Result<Ended, Error> {
    let repo_dir = repo_dir(place)?;
    let wanted = Wanted { ranges: arguments.ranges.clone(), all: arguments.all, since: arguments.since.clone() };
    let config = match find_config(place, &repo_dir) {
        Err(config::Error::NotConfigured(_)) => Config::default(),
        found => found?.0,
    };
    let repository = Repository::open(&repo_dir, &config)?;
    let range = repository.range(&wanted)?;
    if arguments.dry_run {
        return dry_run(range, &config, arguments.json);
    }
    let site = Site::open(place)?;
    process::note_terminations();
    let recorded = {
        let bar = Progress::endless("reading");
        let advance = || {
            bar.advance();
            !process::is_terminated()
        };
        site.with_recorder(|recorder| recorder.backfill(range.clone(), &advance))?
    };
    if process::is_terminated() {
        let queued = plural(recorded.queued, "commit");
        tell(&format!(
            "interrupted: {queued} queued so far, which stay so; `rally-hook deliver` posts them, and this command, run \
             again, goes on"
        ));
        return Ok(Ended::NotAll);
    }
    if arguments.all && arguments.ranges.is_empty() && recorded.unreadable.is_empty() {
        settle_loss(&site)?;
    }
    tell(&format!("{} read, {} queued", plural(recorded.commits, "commit"), recorded.queued));
    let all_read = Ended::done_if(recorded.unreadable.is_empty());
    if site.config.queue.deliver == Deliver::Later {
        if recorded.queued > 0 {
            tell("the next `rally-hook deliver` posts them, because the configuration has queue.deliver = \"later\"");
        }
        return Ok(all_read);
    }
    tell_pause(&site)?;
    let (report, status) = deliver_and_look(&site, Mode::UntilClear)?;
    let ended = summarise(&report, &status);
    if status.pending > 0 && !report.busy {
        tell("run `rally-hook deliver --wait` to deliver the rest");
    }
    Ok(if all_read == Ended::Done { ended } else { all_read })
}

/// Ends the time after a loss of the queue, if there was one: all history was recorded again.
fn settle_loss(site: &Site) -> Result<(), Error> {
    if site.with_queue(|queue| Ok(queue.is_loss_noted()?))? {
        site.with_queue(|queue| Ok(queue.forget_loss()?))?;
        tell("the loss of the queue is dealt with: what may have been missing is queued again or was posted before");
    }
    Ok(())
}

/// Prints what would be posted. It needs no network, no queue, and no configuration either.
fn dry_run(range: Items, config: &Config, json: bool) -> Result<Ended, Error> {
    let rules = Rules::new(config);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let (mut read_count, mut matching, mut all_read) = (0, 0, true);
    let mut named: HashMap<FormattedId, usize> = HashMap::new();
    let walked = range.read(None, &|commit, paths| rules.changeset(commit, paths), &mut |revision, read| {
        read_count += 1;
        match read {
            Ok(None) => {}
            Ok(Some(changeset)) => {
                matching += 1;
                changeset.artifacts.iter().for_each(|id| *named.entry(id.clone()).or_default() += 1);
                written = if json { print_json(&mut out, &changeset) } else { print_text(&mut out, &changeset) };
            }
            Err(error) => {
                tell(&format!("commit {revision}: {}", with_causes(&error)));
                all_read = false;
            }
        }
        written.is_ok()
    });
    written?;
    out.flush()?;
    walked?;
    if !json {
        let read = plural(read_count, "commit");
        let what = match config.commits.post {
            Post::Linked => "to post, if Rally has an artifact that it mentions",
            Post::All => "to post",
        };
        tell(&format!("{read} read, {matching} {what}; what Rally has already is not posted again"));
        if let Some(most_named) = most_named(named) {
            tell(&format!("mentioned most: {most_named}; list those that are not artifacts in commits.ignore"));
        }
    }
    Ok(Ended::done_if(all_read))
}

/// Returns the IDs that are named by most commits, with the number of these.
fn most_named(named: HashMap<FormattedId, usize>) -> Option<String> {
    let mut ids: Vec<(usize, FormattedId)> = named.into_iter().map(|(id, count)| (count, id)).collect();
    ids.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.cmp(y)));
    let listed: Vec<String> = ids.iter().take(MOST_NAMED).map(|(count, id)| format!("{id} ({count})")).collect();
    (!listed.is_empty()).then(|| listed.join(", "))
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
    let line = json_line(&Line { revision, artifacts, changes, omitted_changes: *omitted });
    out.write_all(line.as_bytes())
}

fn print_text(out: &mut impl Write, changeset: &Changeset) -> io::Result<()> {
    let ids: Vec<String> = changeset.artifacts.iter().map(FormattedId::to_string).collect();
    let subject = changeset.message.lines().next().unwrap_or_default();
    let ids = if ids.is_empty() { "-".to_owned() } else { ids.join(", ") };
    writeln!(out, "{:.12} {ids}: {}", changeset.revision, printable(subject))?;
    for change in &changeset.changes {
        writeln!(out, "  {} {}", change.action.letter(), printable(&change.path))?;
    }
    if changeset.omitted > 0 {
        writeln!(out, "  and {} more", changeset.omitted)?;
    }
    Ok(())
}
