//! Which commits are new: those that the given tips reach and the hidden ones do not.
//!
//! Commits are visited by their time, the youngest first, so that as a rule only new commits and the border to
//! the hidden ones are read. Clocks may be wrong, so time alone decides nothing: what is hidden is painted on
//! for a while after the last new commit was found, and what turns out to be hidden late is taken back.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Instant;

use super::{Error, Objects, commit};
use crate::push::{CommitId, Tip};

/// How many hidden commits are read at least, after the new ones were found, to see whether they lead to one of
/// them in spite of their times. Git's own walk does the same with as many (`SLOP` in its revision.c); in a push of one
/// commit to loose objects each is a file to open.
const MIN_SLOP: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Hidden,
    New,
}

/// Whether the walk comes to a commit for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    First,
    Known,
}

/// A commit that waits for its turn, with what it holds where it has been read.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    tip: Tip,
    parents: Option<Vec<CommitId>>,
    data: Option<Arc<[u8]>>,
}

/// A new commit. The walk has read it, and most are read once more by whoever wants to know what they say; unless it
/// is very large, the raw object goes along.
#[derive(Debug)]
pub struct Visited {
    pub tip: Tip,
    pub data: Option<Arc<[u8]>>,
}

/// Larger objects are not handed on: many may be waiting at once.
const LARGEST_HANDED_ON: usize = 16 * 1024;

/// A walk over the history. It keeps what it learned, so that several tips can be asked for one after the other;
/// a commit is new only once. Each commit is read once.
pub struct Walk<'a, 'r> {
    objects: &'a Objects<'r>,
    marks: HashMap<CommitId, Mark>,
    /// Tips to hide that are so old that nothing has asked for them yet, the youngest first. There may be a great many.
    seen: Peekable<&'a mut dyn Iterator<Item = Tip>>,
    /// Hidden commits whose parents are not painted yet.
    hidden: BinaryHeap<Waiting>,
    /// New commits whose parents are not visited yet.
    open: BinaryHeap<Waiting>,
    /// Parents of new commits that had been known before.
    joined: Vec<CommitId>,
    hands_on: bool,
    deadline: Option<Instant>,
    /// Whether a new commit without parents was found.
    reached_root: bool,
}

impl<'a, 'r> Walk<'a, 'r> {
    /// Begins a walk that leaves out the tips `seen`, which come the youngest first, and all that they reach. Only
    /// those are taken that are not older than what the walk comes to.
    pub(crate) fn new(objects: &'a Objects<'r>, seen: &'a mut dyn Iterator<Item = Tip>) -> Self {
        let (marks, hidden, open) = (HashMap::new(), BinaryHeap::new(), BinaryHeap::new());
        let seen = seen.peekable();
        Walk {
            objects,
            marks,
            seen,
            hidden,
            open,
            joined: Vec::new(),
            hands_on: false,
            deadline: None,
            reached_root: false,
        }
    }

    /// Has the walk fail with [`Error::OutOfTime`] once this has passed.
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Has the raw commits handed on by [`Self::next_new`].
    pub fn handing_on(mut self) -> Self {
        self.hands_on = true;
        self
    }

    /// Leaves out this commit and all that it reaches. It need not exist any more.
    fn hide(&mut self, tip: Tip) {
        if self.marks.insert(tip.id, Mark::Hidden) != Some(Mark::Hidden) {
            self.hidden.push(Waiting { tip, parents: None, data: None });
        }
    }

    /// Returns the new commits that this tip reaches, the oldest first.
    ///
    /// # Errors
    /// If the tip itself or a damaged commit cannot be read. A parent that is missing, as in a shallow repository,
    /// ends its line of history.
    pub fn new_commits(&mut self, tip: Tip) -> Result<Vec<CommitId>, Error> {
        self.start(tip)?;
        let mut found = Vec::new();
        let mut oldest = i64::MAX;
        while let Some(Visited { tip, .. }) = self.next_new()? {
            oldest = oldest.min(tip.time);
            found.push(tip.id);
        }
        self.paint_late(&mut found, oldest)?;
        found.reverse();
        Ok(found)
    }

    /// Returns the commits, hidden or found for another tip, that new commits build on directly.
    pub fn joined(&self) -> &[CommitId] {
        &self.joined
    }

    /// Adds a tip from which [`Self::next_new`] goes on.
    pub fn start(&mut self, tip: Tip) -> Result<(), Error> {
        self.visit(tip.id).map(drop)
    }

    /// Returns the next commit that is new as far as is known by now. With nothing hidden that is final.
    pub fn next_new(&mut self) -> Result<Option<Visited>, Error> {
        while let Some(waiting) = self.open.pop() {
            self.paint_down_to(waiting.tip.time)?;
            if self.marks.get(&waiting.tip.id) == Some(&Mark::Hidden) {
                continue;
            }
            let parents = waiting.parents.unwrap_or_default();
            self.reached_root |= parents.is_empty();
            for parent in parents {
                if self.visit(parent)? == Visit::Known {
                    self.joined.push(parent);
                }
            }
            return Ok(Some(Visited { tip: waiting.tip, data: waiting.data }));
        }
        Ok(None)
    }

    fn visit(&mut self, id: CommitId) -> Result<Visit, Error> {
        let Entry::Vacant(mark) = self.marks.entry(id) else { return Ok(Visit::Known) };
        mark.insert(Mark::New);
        let Some(waiting) = self.read(id)? else { return Ok(Visit::First) };
        // It may be a seen tip itself.
        self.hide_down_to(waiting.tip.time);
        if self.marks.get(&id) == Some(&Mark::Hidden) {
            return Ok(Visit::Known);
        }
        self.open.push(waiting);
        Ok(Visit::First)
    }

    /// Hides the seen tips that are not older than this.
    fn hide_down_to(&mut self, time: i64) {
        while let Some(tip) = self.seen.next_if(|tip| tip.time >= time) {
            self.hide(tip);
        }
    }

    /// Returns the time of the youngest hidden commit whose parents are not painted yet.
    fn youngest_hidden(&mut self) -> Option<i64> {
        let top = |hidden: &BinaryHeap<Waiting>| hidden.peek().map(|waiting| waiting.tip.time);
        let next = self.seen.peek().map(|tip| tip.time);
        if let Some(time) = next.filter(|time| top(&self.hidden).is_none_or(|top| *time >= top)) {
            self.hide_down_to(time);
        }
        top(&self.hidden)
    }

    /// Hides the parents of all hidden commits that are not older than this.
    fn paint_down_to(&mut self, time: i64) -> Result<(), Error> {
        while self.youngest_hidden().is_some_and(|youngest| youngest >= time) {
            self.paint_one()?;
        }
        Ok(())
    }

    /// Hides the parents of the youngest hidden commit. Returns whether one of them had been taken for new.
    fn paint_one(&mut self) -> Result<bool, Error> {
        let Some(Waiting { tip, parents, .. }) = self.hidden.pop() else { return Ok(false) };
        let parents = match parents {
            Some(parents) => parents,
            // A seen tip may have been pruned. What it reached is still hidden by the tips that were seen before it.
            None => self.read(tip.id)?.and_then(|waiting| waiting.parents).unwrap_or_default(),
        };
        let mut corrected = false;
        for parent in parents {
            let before = self.marks.insert(parent, Mark::Hidden);
            corrected |= before == Some(Mark::New);
            if before != Some(Mark::Hidden) {
                self.hidden.extend(self.read(parent)?);
            }
        }
        Ok(corrected)
    }

    /// Goes on painting as long as that may still reach a commit that was found, and takes back those it reaches.
    fn paint_late(&mut self, found: &mut Vec<CommitId>, oldest: i64) -> Result<(), Error> {
        // A walk that ran past the border, because clocks were wrong there, comes to the beginning of history. Then, as
        // with a new root, all that is hidden is painted; else in proportion to what was found.
        let allowance = if self.reached_root { usize::MAX } else { found.len().max(MIN_SLOP) };
        let mut slop = allowance;
        while !found.is_empty()
            && let Some(youngest) = self.youngest_hidden()
        {
            let in_range = youngest >= oldest;
            if !in_range && slop == 0 {
                break;
            }
            slop = if self.paint_one()? { allowance } else { slop.saturating_sub(usize::from(!in_range)) };
        }
        self.reached_root = false;
        found.retain(|id| self.marks.get(id) == Some(&Mark::New));
        Ok(())
    }

    /// Reads a commit; `None` if it is not there.
    fn read(&self, id: CommitId) -> Result<Option<Waiting>, Error> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::OutOfTime);
        }
        if !self.hands_on {
            // Whoever asked for the walk will read it too.
            let Some(object) = super::if_there(self.objects.read_often(id))? else { return Ok(None) };
            return Self::waiting(id, &object.data, None).map(Some);
        }
        let Some(object) = super::if_there(self.objects.read(id))? else { return Ok(None) };
        let data = (object.len() <= LARGEST_HANDED_ON).then(|| Arc::from(object.data()));
        Self::waiting(id, object.data(), data).map(Some)
    }

    fn waiting(id: CommitId, raw: &[u8], data: Option<Arc<[u8]>>) -> Result<Waiting, Error> {
        let commit = commit::parse(raw).ok_or(Error::Damaged { id, kind: "commit" })?;
        Ok(Waiting { tip: Tip { id, time: commit.committed_at }, parents: Some(commit.parents), data })
    }
}
