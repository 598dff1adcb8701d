//! The paths that a commit changes: those that differ from all of its parents, as `git show -c` lists them.
//!
//! The raw trees of the commit and its parents are merged entry by entry, and only subtrees that differ from all
//! parents are read. There is no rename detection: a rename is a deletion and an addition.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Error;
use super::id::ObjectId;
use super::objects::Objects;
use crate::clock::Deadline;
use crate::commit::{Action, Change, Changes};
use crate::text;

/// Directories nested deeper are refused, as Git itself does by default (`core.maxTreeDepth`): trees are hostile
/// input, and each level takes some of the stack.
pub(crate) const MAX_DEPTH: usize = 2048;

/// How many bytes of trees are compared for one commit: less than a second of work, and some millions of entries. Trees
/// that hold each other twice, forty levels deep, take a few kilobytes and have more paths than anybody can count.
const MAX_COMPARED: usize = 256 * 1024 * 1024;
/// How many bytes more are compared to count the paths that are left out.
const MAX_COUNTED: usize = 16 * 1024 * 1024;
/// What a comparison counts for, for each directory in it, besides their bytes.
const COMPARISON_COST: usize = 128;
/// Longer paths are cut, in bytes: no file system takes them, and Rally holds less. A few kilobytes of trees have paths
/// of gigabytes.
const MAX_PATH: usize = 4096;
/// How much text the paths of one commit may hold together, in bytes. The paths beyond it are counted.
const MAX_PATHS: usize = 1024 * 1024;

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
    id: ObjectId,
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

/// Compares a commit's tree with those of its parents (none for a root commit, whose every path is added).
/// Only the first `limit` paths are kept, the rest is counted.
///
/// # Errors
/// If a tree cannot be read, or the deadline passes.
pub(crate) fn compare(
    objects: &Objects,
    tree: ObjectId,
    parents: &[ObjectId],
    limit: usize,
    deadline: Option<Deadline>,
) -> Result<Changes, Error> {
    let mut walk = TreeDiff {
        objects,
        limit,
        path: Vec::new(),
        depth: 0,
        left: MAX_COMPARED,
        found_size: 0,
        deadline,
        id_length: tree.bytes().len(),
        found: Changes::default(),
    };
    // The first parent decides between added and modified; which of the others is which does not matter.
    let mut once = HashSet::new();
    let parents: Vec<Option<ObjectId>> = match parents {
        [] => vec![None],
        parents => parents.iter().filter(|tree| once.insert(**tree)).copied().map(Some).collect(),
    };
    if !parents.contains(&Some(tree)) {
        walk.subtree(Some(tree), &parents)?;
    }
    Ok(walk.found)
}

struct TreeDiff<'a> {
    objects: &'a Objects,
    limit: usize,
    /// The directory that is being compared, with a slash at its end unless it is the root.
    path: Vec<u8>,
    depth: usize,
    /// How many bytes may still be compared.
    left: usize,
    /// How much text the paths that were found hold together, in bytes.
    found_size: usize,
    deadline: Option<Deadline>,
    /// The length of ids in trees, in bytes.
    id_length: usize,
    found: Changes,
}

impl TreeDiff<'_> {
    /// Compares one directory; `None` stands for a side that does not have it.
    fn subtree(&mut self, ours_id: Option<ObjectId>, parents: &[Option<ObjectId>]) -> Result<(), Error> {
        let (objects, deadline) = (self.objects, self.deadline);
        let read = |id: &Option<ObjectId>| match deadline.is_some_and(Deadline::has_passed) {
            true => Err(Error::OutOfTime),
            false => id.map(|id| objects.read_tree(id)).transpose(),
        };
        let our_tree = read(&ours_id)?;
        let parent_trees = parents.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut ours = Entries::of(our_tree.as_deref(), self.id_length);
        let size = parent_trees.iter().chain([&our_tree]).flatten().map(|tree| tree.len()).sum::<usize>();
        if !self.can_afford(size, parents.len() + 1) {
            self.found.omitted += 1;
            return Ok(());
        }
        let mut theirs: Vec<Entries> =
            parent_trees.iter().map(|tree| Entries::of(tree.as_deref(), self.id_length)).collect();
        let mut their_entries = Vec::with_capacity(theirs.len());
        loop {
            skip_same(&mut ours, &mut theirs);
            // The next path is the smallest that any side stands at.
            let mut next = ours.head();
            for head in theirs.iter().filter_map(Entries::head) {
                next = next.filter(|smallest| smallest.order(&head).is_le()).or(Some(head));
            }
            let Some(next) = next else { break };
            if self.left == 0 {
                return Ok(());
            }
            let our_entry = ours.take(&next);
            their_entries.clear();
            their_entries.extend(theirs.iter_mut().map(|side| side.take(&next)));
            let differs = |theirs: &Option<Entry>| match (&our_entry, theirs) {
                (Some(a), Some(b)) => !a.same_content(b),
                (None, None) => false,
                _ => true,
            };
            if their_entries.iter().all(differs) {
                self.changed(&next, our_entry, &their_entries)?;
            }
        }
        match std::iter::once(&ours).chain(&theirs).all(|side| side.rest.is_empty()) {
            true => Ok(()),
            false => {
                let id =
                    ours_id.into_iter().chain(parents.iter().copied().flatten()).next().expect("a side has the tree");
                Err(Error::Damaged { id, kind: "tree" })
            }
        }
    }

    /// Takes what it costs to compare directories of so many bytes together from what may still be compared. Returns
    /// whether enough was left.
    fn can_afford(&mut self, size: usize, sides: usize) -> bool {
        // For each entry all sides are looked at.
        let cost = size + size / self.id_length * sides.saturating_sub(2) + sides * COMPARISON_COST;
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Notes a path that differs from all parents, or goes down into it.
    fn changed(&mut self, entry: &Entry, ours: Option<Entry>, theirs: &[Option<Entry>]) -> Result<(), Error> {
        let length = self.path.len();
        let room = (MAX_PATH + 1).saturating_sub(length);
        self.path.extend_from_slice(&entry.name[..entry.name.len().min(room)]);
        if entry.kind == Kind::Tree {
            self.path.push(b'/');
            let parents: Vec<Option<ObjectId>> = theirs.iter().map(|entry| entry.map(|entry| entry.id)).collect();
            if self.depth == MAX_DEPTH {
                return Err(Error::TooDeep { id: entry.id });
            }
            self.depth += 1;
            self.subtree(ours.map(|entry| entry.id), &parents)?;
            self.depth -= 1;
        } else if self.found.list.len() < self.limit && self.found_size < MAX_PATHS {
            let action = match (ours, theirs[0]) {
                (None, _) => Action::Deleted,
                (Some(_), None) => Action::Added,
                (Some(_), Some(_)) => Action::Modified,
            };
            let path = text::readable(text::whole_characters(&self.path, MAX_PATH)).into_owned();
            self.found_size += path.len();
            self.found.list.push(Change { action, path });
        } else {
            self.found.omitted += 1;
            self.left = self.left.min(MAX_COUNTED);
        }
        self.path.truncate(length);
        Ok(())
    }
}

/// Skips the entries that all sides have, to the letter: in most trees that is nearly all of them.
fn skip_same(ours: &mut Entries, theirs: &mut [Entries]) {
    while let Some(length) = entry_length(ours.rest, ours.id_length) {
        let (entry, rest) = ours.rest.split_at(length);
        if !theirs.iter().all(|side| side.rest.starts_with(entry)) {
            return;
        }
        ours.rest = rest;
        theirs.iter_mut().for_each(|side| side.rest = &side.rest[length..]);
    }
}

/// Reads a raw tree entry by entry.
struct Entries<'t> {
    /// From the next entry on; what cannot be parsed stays.
    rest: &'t [u8],
    id_length: usize,
}

impl<'t> Entries<'t> {
    fn of(tree: Option<&'t [u8]>, id_length: usize) -> Self {
        Entries { rest: tree.unwrap_or_default(), id_length }
    }

    fn head(&self) -> Option<Entry<'t>> {
        parse_entry(self.rest, self.id_length).map(|(entry, _)| entry)
    }

    /// Takes the next entry if it is the one that is due.
    fn take(&mut self, due: &Entry) -> Option<Entry<'t>> {
        let (entry, rest) = parse_entry(self.rest, self.id_length).filter(|(entry, _)| entry.order(due).is_eq())?;
        self.rest = rest;
        Some(entry)
    }
}

/// Returns how long the first entry is: up to the NUL behind its name, and an id.
fn entry_length(rest: &[u8], id_length: usize) -> Option<usize> {
    let length = memchr::memchr(0, rest)? + 1 + id_length;
    (length <= rest.len()).then_some(length)
}

/// Parses `<octal mode> <name>\0<id>`. Returns the entry and what follows.
fn parse_entry(rest: &[u8], id_length: usize) -> Option<(Entry<'_>, &[u8])> {
    let (entry, rest) = rest.split_at(entry_length(rest, id_length)?);
    let (text, id) = entry.split_at(entry.len() - id_length);
    let space = text.iter().position(|&byte| byte == b' ')?;
    let mode = text[..space]
        .iter()
        .try_fold(0u32, |mode, &digit| (b'0'..=b'7').contains(&digit).then(|| mode << 3 | u32::from(digit - b'0')))?;
    let name = &text[space + 1..text.len() - 1];
    Some((Entry { name, kind: kind(mode), id: ObjectId::from_bytes(id)? }, rest))
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

    fn entry(name: &str, kind: Kind) -> Entry<'_> {
        Entry { name: name.as_bytes(), kind, id: ObjectId::from_bytes(&[0; 20]).expect("an id") }
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
}
