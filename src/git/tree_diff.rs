//! The paths that a commit changes: those that differ from all of its parents, as `git show -c` lists them.
//!
//! The raw trees of the commit and its parents are merged entry by entry, and only subtrees that differ from all
//! parents are read. There is no rename detection: a rename is a deletion and an addition.

use std::cmp::Ordering;

use git2::{ObjectType, OdbObject};

use super::{Error, Objects};
use crate::changeset::{Action, Change};
use crate::push::CommitId;
use crate::text;

/// Directories nested deeper are refused, as Git itself does by default (`core.maxTreeDepth`): trees are hostile
/// input, and each level takes some of the stack.
const MAX_DEPTH: usize = 2048;

/// What a path must be compared to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tree,
    /// A file, link or submodule with its mode in Git's canonical form.
    Leaf(u32),
}

/// One entry of a raw tree.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry<'t> {
    name: &'t [u8],
    kind: Kind,
    id: CommitId,
}

impl Entry<'_> {
    /// Orders entries as Git sorts them in a tree: a directory's name as if it ended in a slash.
    fn order(&self, other: &Entry) -> Ordering {
        let end = |entry: &Entry| if entry.kind == Kind::Tree { b'/' } else { 0 };
        let common = self.name.len().min(other.name.len());
        let at = |entry: &Entry| entry.name.get(common).copied().unwrap_or_else(|| end(entry));
        self.name[..common]
            .cmp(&other.name[..common])
            .then_with(|| at(self).cmp(&at(other)))
            .then_with(|| self.name.len().cmp(&other.name.len()))
    }

    fn same_content(&self, other: &Entry) -> bool {
        self.id == other.id && self.kind == other.kind
    }
}

/// The paths found so far.
#[derive(Debug, Default)]
pub struct Changes {
    pub list: Vec<Change>,
    /// How many more there are.
    pub omitted: usize,
}

/// Compares a commit's tree with those of its parents (none for a root commit, whose every path is added).
/// Only the first `limit` paths are kept, the rest is counted.
pub fn compare(objects: &Objects, tree: CommitId, parents: &[CommitId], limit: usize) -> Result<Changes, Error> {
    let mut walk = TreeDiff { objects, limit, path: Vec::new(), depth: 0, found: Changes::default() };
    let parents: Vec<Option<CommitId>> = match parents {
        [] => vec![None],
        parents => parents.iter().copied().map(Some).collect(),
    };
    if !parents.contains(&Some(tree)) {
        walk.subtree(Some(tree), &parents)?;
    }
    Ok(walk.found)
}

struct TreeDiff<'a, 'r> {
    objects: &'a Objects<'r>,
    limit: usize,
    /// The directory that is being compared, with a slash at its end unless it is the root.
    path: Vec<u8>,
    depth: usize,
    found: Changes,
}

impl TreeDiff<'_, '_> {
    /// Compares one directory; `None` stands for a side that does not have it.
    fn subtree(&mut self, ours: Option<CommitId>, parents: &[Option<CommitId>]) -> Result<(), Error> {
        let objects = self.objects;
        let read = |id: &Option<CommitId>| id.map(|id| read_tree(objects, id)).transpose();
        let our_tree = read(&ours)?;
        let parent_trees = parents.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut ours = Entries::of(our_tree.as_ref());
        let mut theirs: Vec<Entries> = parent_trees.iter().map(|tree| Entries::of(tree.as_ref())).collect();
        loop {
            // The next path is the smallest that any side stands at.
            let heads = std::iter::once(&ours).chain(&theirs).filter_map(|side| side.head);
            let Some(next) = heads.min_by(Entry::order) else { break };
            let our_entry = ours.take(&next);
            let mut differs = true;
            let mut their_entries = Vec::with_capacity(theirs.len());
            for side in &mut theirs {
                let entry = side.take(&next);
                differs &= match (&our_entry, &entry) {
                    (Some(a), Some(b)) => !a.same_content(b),
                    (None, None) => false,
                    _ => true,
                };
                their_entries.push(entry);
            }
            if differs {
                self.changed(&next, our_entry, &their_entries)?;
            }
        }
        if ours.damaged || theirs.iter().any(|side| side.damaged) {
            let damaged = our_tree.iter().chain(parent_trees.iter().flatten()).next().expect("a side has the tree");
            return Err(Error::Damaged { id: super::from_oid(damaged.id()), kind: "tree" });
        }
        Ok(())
    }

    /// Notes a path that differs from all parents, or goes down into it.
    fn changed(&mut self, entry: &Entry, ours: Option<Entry>, theirs: &[Option<Entry>]) -> Result<(), Error> {
        let length = self.path.len();
        self.path.extend_from_slice(entry.name);
        if entry.kind == Kind::Tree {
            self.path.push(b'/');
            let parents: Vec<Option<CommitId>> = theirs.iter().map(|entry| entry.map(|entry| entry.id)).collect();
            if self.depth == MAX_DEPTH {
                return Err(Error::Damaged { id: entry.id, kind: "tree of a sane depth" });
            }
            self.depth += 1;
            self.subtree(ours.map(|entry| entry.id), &parents)?;
            self.depth -= 1;
        } else if self.found.list.len() < self.limit {
            let action = match (ours, theirs[0]) {
                (None, _) => Action::Deleted,
                (Some(_), None) => Action::Added,
                (Some(_), Some(_)) => Action::Modified,
            };
            self.found.list.push(Change { action, path: text::readable(&self.path).into_owned() });
        } else {
            self.found.omitted += 1;
        }
        self.path.truncate(length);
        Ok(())
    }
}

fn read_tree<'o>(objects: &'o Objects, id: CommitId) -> Result<OdbObject<'o>, Error> {
    let object = objects.read(id)?;
    if object.kind() == ObjectType::Tree { Ok(object) } else { Err(Error::Damaged { id, kind: "tree" }) }
}

/// Reads a raw tree entry by entry.
struct Entries<'t> {
    head: Option<Entry<'t>>,
    rest: &'t [u8],
    damaged: bool,
}

impl<'t> Entries<'t> {
    fn of(tree: Option<&'t OdbObject>) -> Self {
        let mut entries = Entries { head: None, rest: tree.map_or(b"", |tree| tree.data()), damaged: false };
        entries.advance();
        entries
    }

    /// Takes the entry if it is the one that is due.
    fn take(&mut self, due: &Entry) -> Option<Entry<'t>> {
        let entry = self.head.filter(|entry| entry.order(due).is_eq())?;
        self.advance();
        Some(entry)
    }

    fn advance(&mut self) {
        self.head = parse_entry(&mut self.rest);
        self.damaged |= self.head.is_none() && !self.rest.is_empty();
    }
}

/// Parses `<octal mode> <name>\0<20 bytes>`.
fn parse_entry<'t>(rest: &mut &'t [u8]) -> Option<Entry<'t>> {
    let space = rest.iter().position(|&byte| byte == b' ')?;
    let mode = rest[..space]
        .iter()
        .try_fold(0u32, |mode, &digit| (b'0'..=b'7').contains(&digit).then(|| mode << 3 | u32::from(digit - b'0')))?;
    let after = &rest[space + 1..];
    let end = after.iter().position(|&byte| byte == 0)?;
    let id = CommitId(after.get(end + 1..end + 21)?.try_into().ok()?);
    *rest = &after[end + 21..];
    Some(Entry { name: &after[..end], kind: kind(mode), id })
}

/// Reduces a mode to those that Git tells apart (`canon_mode` in its cache.h): old repositories hold others.
fn kind(mode: u32) -> Kind {
    match mode & 0o170_000 {
        0o040_000 => Kind::Tree,
        0o100_000 if mode & 0o100 != 0 => Kind::Leaf(0o100_755),
        0o100_000 => Kind::Leaf(0o100_644),
        0o120_000 => Kind::Leaf(0o120_000),
        _ => Kind::Leaf(0o160_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, kind: Kind) -> Entry<'_> {
        Entry { name: name.as_bytes(), kind, id: CommitId([0; 20]) }
    }

    #[test]
    fn a_directory_sorts_as_if_it_ended_in_a_slash() {
        let file = Kind::Leaf(0o100_644);
        let sorted = [
            entry("a", file),
            entry("a.b", file),
            entry("a", Kind::Tree),
            entry("a0", file),
            entry("a0", Kind::Tree),
            entry("ab", file),
        ];
        for pair in sorted.windows(2) {
            assert_eq!(pair[0].order(&pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(pair[1].order(&pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let mut rest = bytes.as_slice();
            while parse_entry(&mut rest).is_some() {}
        }
    }
}
