//! `rally-hook forget`: removes dead letters from the queue.

use super::letters::Letters;
use super::retry::named;
use super::{Ended, Error, Site};
use crate::cli::Place;
use crate::config::Level;
use crate::messages::tell;

pub(super) fn run(place: &Place, named_revisions: &[String]) -> Result<Ended, Error> {
    let site = Site::open(place)?;
    let letters = Letters::of(&site)?;
    let (revisions, all_found) = named(&letters, named_revisions)?;
    letters.forget(&revisions)?;
    for revision in &revisions {
        let text = format!("commit {revision} is removed from the queue on request");
        site.log.write(Level::Info, "forgotten", &[("revision", revision.clone())], &text);
        tell(&format!("commit {revision} is removed from the queue; a backfill of it can still post it"));
    }
    Ok(Ended::done_if(all_found))
}
