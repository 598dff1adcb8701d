//! `rally-hook catch-up`: makes up for hooks that did not run.

use super::deliver::deliver_unseen;
use super::{Ended, Error, load, plural, with_queue};
use crate::background;
use crate::cli::Place;
use crate::config::Deliver;
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
    match context.config.queue.deliver {
        _ if recorded.queued == 0 => {}
        Deliver::Background => {
            background::apart(|| deliver_unseen(&context, Mode::Background)).map_err(|error| {
                Error::Failed(format!("cannot start the delivery ({error}); run `rally-hook deliver`"))
            })?;
            tell("they are being delivered; `rally-hook status` shows how it goes");
        }
        Deliver::Inline | Deliver::Later => tell("`rally-hook deliver` posts them now"),
    }
    Ok(Ended::Done)
}
