//! Writes that Rally refuses to this user. What one of them names may be closed to the user, or everything is: the others
//! of the pass tell.

use super::Event;
use super::decide;
use super::dispatch::Failure;
use super::pass::Pass;
use crate::artifact::FormattedId;
use crate::rally::Error;
use crate::wsapi::{self, Verdict};

/// When so many are refused to this user and nothing has succeeded, the rest is not tried.
const MANY: usize = 20;

impl Pass<'_, '_> {
    /// Notes that a write of the entry was refused although it was sent alone.
    pub(super) fn note_refused(&mut self, index: usize, error: &wsapi::Error) -> Result<(), Error> {
        self.refused.push((index, error.clone()));
        if self.refused.len() >= MANY && !self.has_written { self.settle_refused() } else { Ok(()) }
    }

    /// Returns the artifact with this ObjectID, if the commit names others as well.
    pub(super) fn artifact_to_leave_out(&self, index: usize, object_id: &str) -> Option<FormattedId> {
        let named = |id: &&FormattedId| self.artifacts.get(*id).map(|artifact| artifact.rally_ref.as_str());
        let known: Vec<&FormattedId> =
            self.items[index].entry.changeset.artifacts.iter().filter(|id| named(id).is_some()).collect();
        let is_it = |id: &&&FormattedId| named(id).and_then(|name| name.rsplit('/').next()) == Some(object_id);
        known.iter().find(is_it).filter(|_| known.len() > 1).map(|id| (*id).clone())
    }

    /// Has the commit posted without an artifact that this user may not write to.
    pub(super) fn leave_out(&mut self, index: usize, id: &FormattedId, failure: &Failure) -> Result<(), Error> {
        let now = self.now();
        let revision = self.items[index].entry.changeset.revision.clone();
        if self.rally.is_left_out(self.delivery.queue, &revision, id, now)? {
            // Rally says so although it was not asked to write to it.
            self.count_attempt(index, Verdict::Reject, &failure.error, &failure.to_string());
            return Ok(());
        }
        self.rally.leave_out(self.delivery.queue, &revision, id, now)?;
        let (artifact, error) = (id.as_str(), &failure.to_string());
        (self.delivery.observe)(&Event::LeftOut { revision: &revision, artifact, error });
        self.items[index].entry.attempts.next = now;
        Ok(())
    }

    /// Decides about what was refused, once it is known what became of the others.
    pub(super) fn settle_refused(&mut self) -> Result<(), Error> {
        let refused = std::mem::take(&mut self.refused);
        let touched = refused.iter().map(|(index, _)| *index).collect();
        for (index, error) in &refused {
            let attempts = &self.items[*index].entry.attempts;
            let verdict = decide::fate_of_refused(
                attempts,
                matches!(error, wsapi::Error::KeyRefused { .. }),
                self.has_written,
                refused.len(),
            );
            self.count_attempt(*index, verdict, error, &error.to_string());
        }
        if !self.has_written && refused.len() >= MANY {
            // Delivery stops now. The next attempt begins with others: these may be the only ones that are refused.
            refused
                .iter()
                .for_each(|(index, error)| self.count_attempt(*index, Verdict::Retry, error, &error.to_string()));
        }
        self.save(&touched)
    }
}
