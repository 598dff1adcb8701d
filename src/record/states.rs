//! The state changes that messages ask for. A commit may reach a ref on which it changes states long after it was posted:
//! from a branch that was pushed before.

use super::{Error, Recorder};
use crate::changeset::StateRequest;
use crate::clock::Deadline;
use crate::queue::{Settled, Walked};
use crate::refs::RefPatterns;
use crate::vcs::Updates;

impl<'r> Recorder<'r> {
    /// Finds the commits that are new to the refs on which messages change states.
    pub(super) fn request_states(
        &mut self,
        updates: &Updates<'r>,
        deadline: Option<Deadline>,
        settled: &mut Settled,
    ) -> Result<(), Error> {
        let patterns = match &self.rules.state {
            // What comes in while this is off never changes a state.
            state if !state.update => return Ok(self.queue.forget_seen_tips(Walked::States)?),
            state if state.refs.is_empty() => self.repository.main_branch().into_iter().collect(),
            state => state.refs.clone(),
        };
        let refs = RefPatterns::new(&patterns);
        let scope = patterns.join("\n");
        if self.queue.seen_scope(Walked::States)?.as_ref() != Some(&scope) {
            // State changes were just enabled, or `state.refs` changed: the commits already on these branches change
            // nothing. If no such branch exists yet, all refs are marked as seen, so that the first such branch does not
            // replay the whole history.
            let mut tips = updates.tips_before(&|name| refs.matches(name))?;
            if tips.is_empty() {
                tips = updates.tips_before(&|_| true)?;
            }
            self.queue.add_seen_tips(Walked::States, &tips, &scope)?;
        }
        let new = self.walk(Walked::States, updates, &|name| refs.matches(name), deadline)?;
        settled.state_tips = new.moved;
        let requests: &mut Vec<StateRequest> = &mut settled.state_requests;
        new.items.read(
            deadline,
            &|commit, _| match &commit.ref_name {
                Some(name) if !refs.matches(name) => Ok(None),
                _ => Ok(self.rules.policy.state_request(commit)),
            },
            // One that cannot be read is reported where its Changeset is recorded.
            &mut |_, request| {
                requests.extend(request.ok().flatten());
                true
            },
        )?;
        Ok(())
    }
}
