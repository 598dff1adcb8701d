//! Revisions that were changed after they were made: Subversion's log messages can be edited.

use super::{Error, Recorder, unreadable_commit};
use crate::clock;
use crate::config::Level;
use crate::queue::Walked;
use crate::vcs::Updates;

impl<'r> Recorder<'r> {
    /// Reads the revisions again that hooks say were changed. If one is not posted yet, its new text is posted. If it is,
    /// Rally keeps the old text.
    pub(super) fn read_changed(&mut self, updates: &Updates<'r>) -> Result<(), Error> {
        let revisions = self.queue.with_seen_tips(Walked::Commits, |seen| updates.changed_revisions(seen))?;
        if revisions.is_empty() {
            return Ok(());
        }
        let Recorder { repository, queue, rules, report } = self;
        let mut failed = None;
        let items = repository.revisions(&revisions);
        items.read(None, &|commit, paths| rules.changeset(commit, paths), &mut |revision, read| {
            let changeset = match read {
                Ok(changeset) => changeset,
                Err(error) => {
                    unreadable_commit(revision, &error, *report);
                    return true;
                }
            };
            let renewed = queue.renew(&revision.to_string(), changeset.as_ref(), &rules.destination, clock::now());
            match renewed {
                Ok(true) => {}
                Ok(false) => {
                    (report)(
                        Level::Info,
                        &format!("commit {revision} was changed after it was posted; Rally keeps what it has"),
                    );
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
