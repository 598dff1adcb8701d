//! Which commits a push brings, and how the seen tips move.
//!
//! The walk starts from the old and new values of each push and, for [`Refs::All`], from all refs. It stops at seen tips
//! and nothing else. The old values matter: a missed hook may have left their commits unrecorded, and this push may have
//! moved the ref away from them.

use std::collections::HashSet;
use std::sync::Arc;

use super::id::{Dated, ObjectId};
use super::objects::Objects;
use super::push::{self, RefUpdate};
use super::read::Item;
use super::walk::Walk;
use super::{Error, Repository};
use crate::clock::Deadline;
use crate::commit::{MovedTips, Tip};
use crate::vcs::{Items, NewCommits, Refs, Unreadable};

/// Refs that may have new commits.
pub(crate) struct Updates {
    list: Vec<RefUpdate>,
    /// How many of these come from pushes; the others are refs as they stand.
    pushed: usize,
    /// Lines of a hook's input that Git would not write.
    pub malformed: Vec<String>,
}

impl Repository {
    /// Reads what Git wrote to the standard input of hooks, in the order of the pushes.
    pub(crate) fn updates<'p>(&self, pushes: impl Iterator<Item = &'p [u8]>, refs: Refs) -> Result<Updates, Error> {
        let mut updates = Updates { list: Vec::new(), pushed: 0, malformed: Vec::new() };
        for input in pushes {
            let (list, malformed) = push::parse(input);
            updates.list.extend(list);
            updates.malformed.extend(malformed);
        }
        updates.pushed = updates.list.len();
        if refs == Refs::All {
            let all = self.refs()?.into_iter();
            updates.list.extend(all.map(|(name, tip)| RefUpdate { name, old: None, new: Some(tip.id) }));
        }
        Ok(updates)
    }

    /// Returns where the refs were before the pushes, as far as these and the repository tell.
    pub(crate) fn tips_before(&self, updates: &Updates, is_included: &dyn Fn(&str) -> bool) -> Result<Vec<Tip>, Error> {
        let objects = &self.objects;
        let mut pushed: HashSet<&str> = HashSet::new();
        let mut tips = Vec::new();
        for update in updates.list[..updates.pushed].iter().filter(|update| is_included(&update.name)) {
            // What a later push of the same ref found there is what an earlier one brought.
            if pushed.insert(&update.name) {
                tips.extend(update.old.and_then(|id| objects.peel(id).ok().flatten()));
            }
        }
        let others = self.refs()?.into_iter();
        let others = others.filter(|(name, _)| is_included(name) && !pushed.contains(name.as_str()));
        tips.extend(others.map(|(_, tip)| tip));
        Ok(tips.into_iter().map(Dated::tip).collect())
    }

    /// Finds what is new on the refs that are included: the oldest first, for each ref. A commit that several refs bring is
    /// there once, with the first of them.
    ///
    /// # Errors
    /// [`Error::OutOfTime`] if the deadline passes. What was pushed and cannot be read is no error.
    pub(crate) fn new_commits(
        &self,
        updates: &Updates,
        is_included: &dyn Fn(&str) -> bool,
        seen: &mut dyn Iterator<Item = Tip>,
        deadline: Option<Deadline>,
    ) -> Result<NewCommits<'_>, Error> {
        let objects = &self.objects;
        let mut seen = seen.filter_map(|tip| Dated::from_tip(&tip));
        let mut walk = Walk::new(|id| objects.node(id), &mut seen, deadline);
        let (mut items, mut moved, mut unreadable) = (Vec::new(), MovedTips::default(), Vec::new());
        for update in updates.list.iter().filter(|update| is_included(&update.name)) {
            let branch: Option<Arc<str>> = update.branch().map(Arc::from);
            for tip in tips(objects, update, &mut unreadable) {
                let found = walk.new_commits(tip)?;
                if found.is_empty() {
                    moved.covered.push(tip.id.bytes().to_vec());
                }
                // Also where nothing is new: what makes it seen today may be pruned tomorrow. Where the walk could not
                // go on, the next one has to come here again.
                if !walk.is_broken() {
                    moved.new.push(tip.tip());
                }
                items.extend(found.into_iter().map(|commit| Item::new(commit.id, branch.clone())));
            }
        }
        moved.covered.extend(walk.joined().iter().map(|id| id.bytes().to_vec()));
        Ok(NewCommits { items: Items::Git(self, items), moved, unreadable })
    }

    /// Tells whether the commit of a tip is there.
    pub(crate) fn has(&self, tip: &Tip) -> bool {
        Dated::from_tip(tip).is_some_and(|dated| self.objects.peel(dated.id).is_ok_and(|found| found.is_some()))
    }

    /// Returns the names of the refs that hold commits which no seen tip reaches.
    pub(crate) fn refs_behind(
        &self,
        is_included: &dyn Fn(&str) -> bool,
        seen: &mut dyn Iterator<Item = Tip>,
    ) -> Result<Vec<String>, Error> {
        let objects = &self.objects;
        let mut refs = self.refs()?;
        refs.retain(|(name, _)| is_included(name));
        let mut seen = seen.filter_map(|tip| Dated::from_tip(&tip));
        let mut walk = Walk::new(|id| objects.node(id), &mut seen, None);
        let mut unseen: HashSet<ObjectId> = HashSet::new();
        for (_, tip) in &refs {
            unseen.extend(walk.new_commits(*tip)?.into_iter().map(|commit| commit.id));
        }
        Ok(refs.into_iter().filter(|(_, tip)| unseen.contains(&tip.id)).map(|(name, _)| name).collect())
    }
}

/// Returns the commits that a ref was moved from and to, as far as they can be read.
fn tips(objects: &Objects, update: &RefUpdate, unreadable: &mut Vec<Unreadable>) -> Vec<Dated> {
    let old = update.old.and_then(|id| objects.peel(id).ok().flatten());
    let new = update.new.and_then(|id| {
        objects.peel(id).unwrap_or_else(|error| {
            unreadable.push(Unreadable { name: update.name.clone(), revision: id.to_string(), error });
            None
        })
    });
    old.into_iter().chain(new).collect()
}
