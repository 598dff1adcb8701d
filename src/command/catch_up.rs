//! `rally-hook catch-up`: makes up for hooks that did not run.

use super::deliver::deliver_unseen;
use super::{Ended, Error, load, plural, with_queue};
use crate::background;
use crate::cli::Place;
use crate::config::Deliver;
use crate::context::now;
use crate::deliver::Mode;
use crate::messages::tell;
use crate::queue::Walked;
use crate::record::{Source, record};

pub fn run(place: &Place) -> Result<Ended, Error> {
    let context = load(place)?;
    let is_first = with_queue(&context, |queue| Ok(queue.seen_scope(Walked::Commits)?.is_none()))?;
    let recorded = with_queue(&context, |queue| record(&context, queue, Source::AllRefs, None))?;
    if is_first {
        tell(
            "nothing was recorded here before, so what the repository holds counts as seen; `rally-hook backfill` posts it",
        );
    }
    tell(&format!(
        "{} not recorded before; {} queued",
        plural(recorded.commits, "commit"),
        plural(recorded.queued, "commit")
    ));
    // Also where nothing is queued: what was posted before may change states now that it is known to be on a branch.
    let due = with_queue(&context, |queue| Ok(queue.next_due(now())?))?;
    match context.config.queue.deliver {
        _ if due.is_none() => {}
        Deliver::Background => {
            background::apart(|| deliver_unseen(&context, Mode::Background)).map_err(|error| {
                Error::Failed(format!("cannot start the delivery ({error}); run `rally-hook deliver`"))
            })?;
            tell("what waits is being delivered; `rally-hook status` shows how it goes");
        }
        Deliver::Inline | Deliver::Later => tell("`rally-hook deliver` posts what waits"),
    }
    Ok(Ended::Done)
}
