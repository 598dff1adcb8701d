//! `rally-hook catch-up`: records the commits that a hook missed.

use super::deliver::deliver_apart;
use super::many::{Which, each};
use super::{Ended, Error, Site};
use crate::cli::{Many, Place};
use crate::clock::now;
use crate::config::Deliver;
use crate::messages::tell;
use crate::queue::AFTER_LOSS;
use crate::text::plural;

pub(super) fn run(place: &Place, many: &Many) -> Result<Ended, Error> {
    let is_one_of_many = many.all_repos.is_some();
    each(place, many, Which::Served, |place| catch_up(place, is_one_of_many))
}

fn catch_up(place: &Place, is_one_of_many: bool) -> Result<Ended, Error> {
    let site = Site::open(place)?;
    let is_first = site.with_queue(|queue| Ok(!queue.is_initialised()?))?;
    let recorded = site.record_all()?;
    if is_first {
        let (why, posts) = match site.with_queue(|queue| Ok(queue.is_loss_noted()?))? {
            true => ("the queue was lost", AFTER_LOSS),
            false => ("nothing was recorded here before", "`rally-hook backfill` posts it"),
        };
        tell(&format!("{why}, so the history that is there now counts as seen; {posts}"));
    }
    let (commits, queued) = (plural(recorded.commits, "new commit"), plural(recorded.queued, "commit"));
    if !is_one_of_many || recorded.commits > 0 {
        tell(&format!("{commits} found; {queued} queued"));
    }
    // Also where nothing is queued: what was posted before may change states now that it is known to be on a branch.
    let due = site.with_queue(|queue| Ok(queue.next_due(now())?))?;
    match site.config.queue.deliver {
        _ if due.is_none() => {}
        Deliver::Background => {
            deliver_apart(&site, || ()).map_err(Error::Background)?;
            tell("delivering in the background; `rally-hook status` shows the progress");
        }
        Deliver::Inline | Deliver::Later => tell("run `rally-hook deliver`, or let a timer run it"),
    }
    Ok(Ended::done_if(recorded.unreadable.is_empty()))
}
