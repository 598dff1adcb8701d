//! Which commits are new: those that the given tips reach and the hidden ones do not.
//!
//! Commits are visited by their time, the youngest first, so that as a rule only new commits and the border to
//! the hidden ones are read. To paint a commit is to mark its parents as hidden. Clocks may be wrong, so time alone
//! decides nothing: painting goes on for a while after the last new commit, and a new commit that turns out to be hidden
//! is dropped.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;

use super::Error;
use super::id::{Dated, ObjectId};
use crate::clock::Deadline;
use crate::time::CommitTime;

/// How many hidden commits are read at least, after the new ones were found, to see whether they lead to one of
/// them in spite of their times. Git's own walk does the same with as many (`SLOP` in its revision.c); in a push of one
/// commit to loose objects each is a file to open.
const MIN_SLOP: usize = 5;

/// What a walk has to know of a commit.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub commit: Dated,
    /// Where it has been read.
    pub parents: Option<Vec<ObjectId>>,
    /// The raw commit, if it was read for somebody else too.
    pub data: Option<Arc<[u8]>>,
}

impl From<Dated> for Node {
    fn from(commit: Dated) -> Self {
        Node { commit, parents: None, data: None }
    }
}

/// Reads a commit.
type Read<'a> = Box<dyn Fn(ObjectId) -> Result<Node, Error> + 'a>;

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

/// A walk over the history. It keeps what it learned, so that several tips can be asked for one after the other;
/// a commit is new only once. Each commit is read once.
pub(crate) struct Walk<'a> {
    read: Read<'a>,
    marks: HashMap<ObjectId, Mark>,
    /// Tips to hide that are so old that nothing has asked for them yet, the youngest first. There may be a great many.
    seen: Peekable<&'a mut dyn Iterator<Item = Dated>>,
    /// Hidden commits whose parents are not painted yet.
    hidden: BinaryHeap<Node>,
    /// New commits whose parents are not visited yet.
    open: BinaryHeap<Node>,
    /// Parents of new commits that had been known before.
    joined: Vec<ObjectId>,
    deadline: Option<Deadline>,
    /// Whether a new commit without parents was found.
    reached_root: bool,
    /// Whether a new commit cannot be read, so that those below it were not found.
    broken: bool,
}

impl<'a> Walk<'a> {
    /// Begins a walk that leaves out the tips `seen`, which come the youngest first, and all that they reach. Only
    /// those are taken that are not older than what the walk comes to. Once the deadline has passed, the walk fails with
    /// [`Error::OutOfTime`].
    pub(crate) fn new(
        read: impl Fn(ObjectId) -> Result<Node, Error> + 'a,
        seen: &'a mut dyn Iterator<Item = Dated>,
        deadline: Option<Deadline>,
    ) -> Self {
        Walk {
            read: Box::new(read),
            marks: HashMap::new(),
            seen: seen.peekable(),
            hidden: BinaryHeap::new(),
            open: BinaryHeap::new(),
            joined: Vec::new(),
            deadline,
            reached_root: false,
            broken: false,
        }
    }

    /// Leaves out this commit and all that it reaches. It need not exist any more.
    fn hide(&mut self, commit: Dated) {
        if self.marks.insert(commit.id, Mark::Hidden) != Some(Mark::Hidden) {
            self.hidden.push(commit.into());
        }
    }

    /// Returns the new commits that this tip reaches, the oldest first. One that is missing or damaged is among them and
    /// ends its line of history.
    ///
    /// # Errors
    /// [`Error::OutOfTime`].
    pub(crate) fn new_commits(&mut self, tip: Dated) -> Result<Vec<Dated>, Error> {
        self.start(tip)?;
        let mut found = Vec::new();
        while let Some(Node { commit, .. }) = self.next_new()? {
            found.push(commit);
        }
        self.settle(found)
    }

    /// Finds the new commits that the started tips reach. Once no hidden commit is left to read, each new commit is
    /// certain: it is handed over at once, the youngest first, until `hand_over` returns false. Returns the others, the
    /// oldest first.
    ///
    /// For that, the walk paints one more hidden commit for each new one. In a range that is longer than the history
    /// before it, all commits are certain long before the walk ends.
    ///
    /// # Errors
    /// [`Error::OutOfTime`].
    pub(crate) fn hand_over_new(&mut self, hand_over: &mut dyn FnMut(Node) -> bool) -> Result<Vec<Dated>, Error> {
        let mut found = Vec::new();
        loop {
            self.paint_one()?;
            let Some(next) = self.next_new()? else { break };
            if self.youngest_hidden().is_some() {
                found.push(next.commit);
                continue;
            }
            let certain = found.drain(..).filter(|commit| self.is_new(commit)).map(Node::from);
            if !certain.chain([next]).all(&mut *hand_over) {
                break;
            }
        }
        self.settle(found)
    }

    /// Returns the parents of new commits that the walk knew already: hidden, or found as new before. One may be there
    /// twice.
    pub(crate) fn joined(&self) -> &[ObjectId] {
        &self.joined
    }

    /// Tells whether the walk has met a new commit that cannot be read. What it found since may lie above that one.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Adds a tip from which the walk goes on.
    pub(crate) fn start(&mut self, tip: Dated) -> Result<(), Error> {
        self.visit(tip.id, tip.time).map(drop)
    }

    /// Returns the next commit that is new as far as is known by now.
    fn next_new(&mut self) -> Result<Option<Node>, Error> {
        while let Some(mut node) = self.open.pop() {
            self.paint_down_to(node.commit.time)?;
            if self.marks.get(&node.commit.id) == Some(&Mark::Hidden) {
                continue;
            }
            self.broken |= node.parents.is_none();
            let parents = node.parents.take().unwrap_or_default();
            self.reached_root |= parents.is_empty();
            for parent in parents {
                if self.visit(parent, node.commit.time)? == Visit::Known {
                    self.joined.push(parent);
                }
            }
            return Ok(Some(node));
        }
        Ok(None)
    }

    /// Comes to a commit. One that cannot be read has the time of its child and no parents; reading it tells why.
    fn visit(&mut self, id: ObjectId, child_time: CommitTime) -> Result<Visit, Error> {
        let Entry::Vacant(mark) = self.marks.entry(id) else { return Ok(Visit::Known) };
        mark.insert(Mark::New);
        let node = match self.read(id) {
            Err(Error::OutOfTime) => return Err(Error::OutOfTime),
            read => read.unwrap_or_else(|_| Dated { time: child_time, id }.into()),
        };
        // It may be a seen tip itself.
        self.hide_down_to(node.commit.time);
        if self.marks.get(&id) == Some(&Mark::Hidden) {
            return Ok(Visit::Known);
        }
        self.open.push(node);
        Ok(Visit::First)
    }

    /// Hides the seen tips that are not older than this.
    fn hide_down_to(&mut self, time: CommitTime) {
        while let Some(tip) = self.seen.next_if(|tip| tip.time >= time) {
            self.hide(tip);
        }
    }

    /// Returns the time of the youngest hidden commit whose parents are not painted yet.
    fn youngest_hidden(&mut self) -> Option<CommitTime> {
        let top = |hidden: &BinaryHeap<Node>| hidden.peek().map(|node| node.commit.time);
        let next = self.seen.peek().map(|tip| tip.time);
        if let Some(time) = next.filter(|time| top(&self.hidden).is_none_or(|top| *time >= top)) {
            self.hide_down_to(time);
        }
        top(&self.hidden)
    }

    /// Hides the parents of all hidden commits that are not older than this.
    fn paint_down_to(&mut self, time: CommitTime) -> Result<(), Error> {
        while self.youngest_hidden().is_some_and(|youngest| youngest >= time) {
            self.paint_one()?;
        }
        Ok(())
    }

    /// Hides the parents of the youngest hidden commit. Returns whether one of them had been taken for new.
    fn paint_one(&mut self) -> Result<bool, Error> {
        let Some(Node { commit, parents, .. }) = self.hidden.pop() else { return Ok(false) };
        let parents = match parents {
            Some(parents) => parents,
            // A seen tip may have been pruned, or it is damaged. What it reached is still hidden by the tips that were
            // seen before it.
            None => self.read_hidden(commit.id)?.and_then(|node| node.parents).unwrap_or_default(),
        };
        let mut corrected = false;
        for parent in parents {
            let before = self.marks.insert(parent, Mark::Hidden);
            corrected |= before == Some(Mark::New);
            if before != Some(Mark::Hidden) {
                self.hidden.extend(self.read_hidden(parent)?);
            }
        }
        Ok(corrected)
    }

    fn is_new(&self, commit: &Dated) -> bool {
        self.marks.get(&commit.id) == Some(&Mark::New)
    }

    /// Goes on painting as long as that may still reach a commit that was found, and takes back those it reaches. Returns
    /// the others, the oldest first.
    fn settle(&mut self, mut found: Vec<Dated>) -> Result<Vec<Dated>, Error> {
        let oldest = found.iter().map(|commit| commit.time).min();
        // A walk that ran past the border, because clocks were wrong there, comes to the beginning of history. Then, as
        // with a new root, all that is hidden is painted; else in proportion to what was found.
        let allowance = if self.reached_root { usize::MAX } else { found.len().max(MIN_SLOP) };
        let mut slop = allowance;
        while let Some(oldest) = oldest
            && let Some(youngest) = self.youngest_hidden()
        {
            let in_range = youngest >= oldest;
            if !in_range && slop == 0 {
                break;
            }
            slop = if self.paint_one()? { allowance } else { slop.saturating_sub(usize::from(!in_range)) };
        }
        self.reached_root = false;
        found.retain(|commit| self.is_new(commit));
        found.reverse();
        Ok(found)
    }

    /// Reads a commit that is hidden. It does not matter if that fails: nothing of it is to be posted.
    fn read_hidden(&self, id: ObjectId) -> Result<Option<Node>, Error> {
        match self.read(id) {
            Err(Error::OutOfTime) => Err(Error::OutOfTime),
            read => Ok(read.ok()),
        }
    }

    fn read(&self, id: ObjectId) -> Result<Node, Error> {
        match self.deadline.is_some_and(Deadline::has_passed) {
            true => Err(Error::OutOfTime),
            false => (self.read)(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history by hand: each commit has a number, a time and parents.
    struct Graph(&'static [(u8, i64, &'static [u8])]);

    fn id(number: u8) -> ObjectId {
        ObjectId::from_bytes(&[number; 20]).expect("an id")
    }

    impl Graph {
        fn read(&self, wanted: ObjectId) -> Result<Node, Error> {
            let commit = self.0.iter().find(|(number, ..)| id(*number) == wanted);
            let (_, time, parents) = commit.ok_or(Error::Damaged { id: wanted, kind: "commit" })?;
            let parents = parents.iter().map(|number| id(*number)).collect();
            let commit = Dated { time: CommitTime::from_seconds(*time), id: wanted };
            Ok(Node { commit, parents: Some(parents), data: None })
        }

        fn dated(&self, number: u8) -> Dated {
            let time = self.0.iter().find(|(known, ..)| *known == number).map_or(0, |commit| commit.1);
            Dated { time: CommitTime::from_seconds(time), id: id(number) }
        }

        fn seen(&self, numbers: &[u8]) -> impl Iterator<Item = Dated> {
            let mut seen: Vec<Dated> = numbers.iter().map(|number| self.dated(*number)).collect();
            seen.sort_unstable_by(|a, b| b.cmp(a));
            seen.into_iter()
        }

        /// Returns what is new of each tip, in turn, and the commits that these join.
        fn walked(&self, seen: &[u8], tips: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
            let mut seen = self.seen(seen);
            let mut walk = Walk::new(|id| self.read(id), &mut seen, None);
            let number = |id: ObjectId| id.bytes()[0];
            let new = tips.iter().map(|tip| {
                let found = walk.new_commits(self.dated(*tip)).expect("readable");
                found.into_iter().map(|commit| number(commit.id)).collect()
            });
            let new = new.collect();
            (new, walk.joined().iter().map(|id| number(*id)).collect())
        }

        /// Returns the new commits of some tips that are handed over early, and the others.
        fn handed_over(&self, seen: &[u8], tips: &[u8]) -> (Vec<u8>, Vec<u8>) {
            let mut seen = self.seen(seen);
            let mut walk = Walk::new(|id| self.read(id), &mut seen, None);
            let number = |commit: Dated| commit.id.bytes()[0];
            let mut early = Vec::new();
            let mut take = |found: Node| {
                early.push(number(found.commit));
                true
            };
            tips.iter().for_each(|tip| walk.start(self.dated(*tip)).expect("readable"));
            let rest = walk.hand_over_new(&mut take).expect("readable");
            (early, rest.into_iter().map(number).collect())
        }
    }

    /// 1 ─ 2 ─ 3 ─ 5, and 2 ─ 4, and their merge 6.
    const DIAMOND: Graph =
        Graph(&[(1, 10, &[]), (2, 20, &[1]), (3, 30, &[2]), (4, 40, &[2]), (5, 50, &[3]), (6, 60, &[5, 4])]);

    #[test]
    fn with_nothing_seen_all_of_history_is_new_the_oldest_first() {
        assert_eq!(DIAMOND.walked(&[], &[6]).0, [vec![1, 2, 3, 4, 5, 6]]);
    }

    #[test]
    fn a_seen_tip_hides_what_it_reaches_and_is_joined() {
        assert_eq!(DIAMOND.walked(&[3], &[6]), (vec![vec![4, 5, 6]], vec![3]));
        assert_eq!(DIAMOND.walked(&[6], &[6, 3]).0, [vec![], vec![]] as [Vec<u8>; 2]);
    }

    #[test]
    fn a_commit_is_new_for_the_first_of_two_tips_only() {
        assert_eq!(DIAMOND.walked(&[2], &[5, 4, 6]).0, [vec![3, 5], vec![4], vec![6]]);
    }

    #[test]
    fn a_missing_commit_is_found_and_ends_its_line_of_history() {
        let gap = Graph(&[(1, 10, &[]), (3, 30, &[2]), (4, 40, &[1]), (5, 50, &[3, 4])]);
        assert_eq!(gap.walked(&[], &[5]).0, [vec![1, 2, 3, 4, 5]]);
        let mut seen = std::iter::empty();
        let mut walk = Walk::new(|id| gap.read(id), &mut seen, None);
        assert!(walk.new_commits(gap.dated(4)).is_ok() && !walk.is_broken());
        assert!(walk.new_commits(gap.dated(5)).is_ok() && walk.is_broken());
    }

    #[test]
    fn what_is_hidden_may_be_missing() {
        let gap = Graph(&[(3, 30, &[2]), (5, 50, &[3])]);
        assert_eq!(gap.walked(&[9, 3], &[5]).0, [vec![5]]);
    }

    #[test]
    fn wrong_clocks_make_nothing_new_and_hide_nothing() {
        // The seen tip 4 is younger by its clock than what it builds on, and older than the new commit's parent 2.
        let skewed = Graph(&[(1, 500, &[]), (2, 400, &[1]), (3, 5, &[2]), (4, 1, &[3]), (5, 2, &[4]), (6, 600, &[2])]);
        assert_eq!(skewed.walked(&[4], &[5, 6]).0, [vec![5], vec![6]]);
    }

    #[test]
    fn a_walk_that_runs_past_the_border_is_taken_back() {
        // The seen tip 3 seems to be far older than its own ancestors, so the walk comes to them first.
        let late = Graph(&[(1, 100, &[]), (2, 200, &[1]), (3, 1, &[2]), (4, 300, &[2])]);
        assert_eq!(late.walked(&[3], &[4]).0, [vec![4]]);
    }

    #[test]
    fn commits_are_handed_over_once_all_that_is_hidden_is_known() {
        assert_eq!(DIAMOND.handed_over(&[], &[6]), (vec![6, 5, 4, 3, 2, 1], vec![]));
        assert_eq!(DIAMOND.handed_over(&[1], &[6]), (vec![6, 5, 4, 3, 2], vec![]));
        assert_eq!(DIAMOND.handed_over(&[5], &[6]), (vec![], vec![4, 6]));
        assert_eq!(DIAMOND.handed_over(&[1], &[4, 5]), (vec![5, 4, 3, 2], vec![]));
        assert_eq!(DIAMOND.handed_over(&[3], &[4, 5]), (vec![], vec![4, 5]));
    }

    #[test]
    fn what_turns_out_to_be_hidden_is_not_handed_over() {
        // The seen tip 9 seems to be far older than its ancestors 1 and 2, which are found before it leads to them.
        let late = Graph(&[
            (1, 100, &[]),
            (2, 200, &[1]),
            (3, 1, &[2]),
            (8, 1, &[3]),
            (9, 1, &[8]),
            (7, 30, &[]),
            (6, 40, &[7]),
            (5, 50, &[6]),
            (4, 300, &[2, 5]),
        ]);
        assert_eq!(late.handed_over(&[9], &[4]), (vec![4, 5, 6, 7], vec![]));
    }

    #[test]
    fn a_walk_ends_when_its_time_is_over() {
        let mut seen = std::iter::empty();
        let deadline = Deadline::after(std::time::Duration::ZERO);
        let mut walk = Walk::new(|id| DIAMOND.read(id), &mut seen, Some(deadline));
        assert!(matches!(walk.new_commits(DIAMOND.dated(6)), Err(Error::OutOfTime)));
    }
}
