//! `rally-hook retry`: gives dead letters another chance.

use super::{Ended, Error, load, plural, with_queue};
use crate::cli::{Place, Retry};
use crate::context::{self, Context, now};
use crate::git::{Item, Reader, read_list};
use crate::messages::tell;
use crate::queue::Queue;
use crate::record;

pub fn run(place: &Place, arguments: &Retry) -> Result<Ended, Error> {
    let context = load(place)?;
    let wanted: Vec<Option<&str>> = match arguments.all {
        true => vec![None],
        false => arguments.revisions.iter().map(|revision| Some(revision.as_str())).collect(),
    };
    if let Some(wrong) = wanted
        .iter()
        .flatten()
        .find(|revision| revision.len() < 4 || !revision.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Error::Usage(format!(
            "{wrong:?} is no revision: name at least 4 digits of one, as `rally-hook status` shows them"
        )));
    }
    let mut ended = Ended::Done;
    let mut total = 0;
    for revision in wanted {
        let revision = revision.map(str::to_ascii_lowercase);
        let revision = revision.as_deref();
        let (again, forgotten) = with_queue(&context, |queue| {
            let (read, forgotten) = read_again(&context, queue, revision)?;
            Ok((read + queue.retry(revision, now())?, forgotten))
        })?;
        total += again;
        if let (0, Some(revision)) = (again + forgotten, revision) {
            tell(&format!("no dead letter has the revision {revision}; `rally-hook status` lists them"));
            ended = Ended::NotAll;
        }
    }
    match total {
        0 if arguments.all => tell("there are no dead letters that can be tried again"),
        0 => {}
        _ => tell(&format!("{} pending again; `rally-hook deliver` posts what is due", plural(total, "dead letter"))),
    }
    Ok(ended)
}

/// Reads the commits of dead letters that have lost their data, or never had any. One that cannot be read is forgotten,
/// but only if it is named. Returns how many wait again, and how many are forgotten.
fn read_again(context: &Context, queue: &mut Queue, revision: Option<&str>) -> Result<(usize, usize), context::Error> {
    let revisions = queue.letters_without_facts(revision)?;
    if revisions.is_empty() {
        return Ok((0, 0));
    }
    let reader = Reader::new(&context.config.commits);
    let ids = revisions.iter().filter_map(|revision| revision.parse().ok());
    let items = ids.map(|id| Item { id, branch: None, data: None }).collect();
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    read_list(&context.git_dir, &context.open_repository()?, &reader, items, |id, read| {
        match record::matching(context, id, read) {
            Ok(Some(changeset)) => found.push(changeset),
            Ok(None) => gone.push((id.to_string(), "it names no artifact".to_owned())),
            Err(reason) => gone.push((id.to_string(), reason)),
        }
        true
    })?;
    if revision.is_none() {
        for (revision, reason) in gone.drain(..) {
            tell(&format!("commit {revision} stays a dead letter: {reason}; `rally-hook retry {revision}` forgets it"));
        }
    }
    for (revision, reason) in &gone {
        tell(&format!("commit {revision} is forgotten: {reason}"));
    }
    let forgotten: Vec<String> = gone.into_iter().map(|(revision, _)| revision).collect();
    queue.forget_letters(&forgotten)?;
    Ok((record::store_backfill(context, queue, &found)?, forgotten.len()))
}
