//! `rally-hook retry`: tries dead letters again.

use super::deliver::{deliver_and_look, summarise, tell_pause};
use super::letters::{Letters, SHORTEST_REVISION};
use super::many::{Which, each};
use super::{Ended, Error, Site};
use crate::cli::{Place, Retry};
use crate::messages::tell;
use crate::text::plural;
use crate::worker::Mode;

pub(super) fn run(place: &Place, arguments: &Retry) -> Result<Ended, Error> {
    each(place, &arguments.many, Which::Served, |place| retry(place, arguments))
}

fn retry(place: &Place, arguments: &Retry) -> Result<Ended, Error> {
    let is_one_of_many = arguments.many.all_repos.is_some();
    let site = Site::open(place)?;
    let letters = Letters::of(&site)?;
    let (revisions, all_found) = match arguments.all {
        true => (letters.all()?, true),
        false => named(&letters, &arguments.revisions)?,
    };
    if is_one_of_many && revisions.is_empty() && arguments.all {
        return Ok(Ended::Done);
    }
    let mut unread = Vec::new();
    for revision in &revisions {
        if !letters.retry(revision)? {
            unread.push(revision.clone());
        }
    }
    let unreadable = if unread.is_empty() { 0 } else { read_again(&site, &letters, &unread)? };
    if revisions.is_empty() && arguments.all {
        tell("there are no dead letters");
    }
    let due = revisions.len() - unreadable;
    let is_done = due == 0 || deliver(&site, &letters, due, &revisions)?;
    Ok(Ended::done_if(all_found && unreadable == 0 && is_done))
}

/// Delivers, as the caller asked for it, and says what became of it. Returns whether these revisions are done with, or
/// another process is at work on them.
fn deliver(site: &Site, letters: &Letters, due: usize, revisions: &[String]) -> Result<bool, Error> {
    tell(&format!("{} queued again", plural(due, "commit")));
    tell_pause(site)?;
    let (report, status) = deliver_and_look(site, Mode::UntilClear)?;
    summarise(&report, &status);
    Ok(report.busy || letters.count_left(revisions)? == 0)
}

/// Reads the commits of dead letters of which only the revision is known. Returns how many cannot be read.
fn read_again(site: &Site, letters: &Letters, revisions: &[String]) -> Result<usize, Error> {
    let recorded = site.with_recorder(|recorder| recorder.read_again(revisions))?;
    // What the ledger has of one that could be read is replaced when this is forwarded.
    let mut dead = letters.all()?;
    for revision in revisions {
        if letters.is_queued_here(revision)? {
            dead.retain(|dead| dead != revision);
        }
    }
    let still_dead: Vec<&String> = revisions.iter().filter(|revision| dead.contains(revision)).collect();
    for revision in &still_dead {
        let reason = recorded.unreadable.iter().find(|(unreadable, _)| unreadable == *revision);
        let reason = reason.map_or("it names no artifact", |(_, reason)| reason);
        tell(&format!(
            "commit {revision} stays a dead letter: {reason}; `rally-hook forget {revision}` removes it from the queue"
        ));
    }
    Ok(still_dead.len())
}

/// Returns the dead letters that these texts stand for, and whether each text stands for one; says where not.
pub(super) fn named(letters: &Letters, texts: &[String]) -> Result<(Vec<String>, bool), Error> {
    let mut found = Vec::new();
    for text in texts {
        match letters.named(text)?.as_slice() {
            [] if text.len() < SHORTEST_REVISION => tell(&format!(
                "no dead letter has the revision {text:?}, and {SHORTEST_REVISION} characters are the shortest beginning of \
                 one; `rally-hook status` lists them"
            )),
            [] => tell(&format!("no dead letter has the revision {text:?}; `rally-hook status` lists them")),
            [revision] => found.push(revision.clone()),
            _ => tell(&format!("several dead letters begin with {text:?}; give more of the revision")),
        }
    }
    let all_found = found.len() == texts.len();
    Ok((found, all_found))
}
