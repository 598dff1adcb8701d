//! Repositories that a program or a server reads for us. It lists whole commits, which are read once, in their order.
//!
//! Their hooks only keep what they were told: to start such a program may take longer than the commit itself.

use super::{Error, Items, NewCommits, Sink, Wanted, Work};
use crate::commit::{Change, Changes, Commit, MovedTips, Tip};
use crate::time::CommitTime;

/// So many changed paths of one commit are kept; the others are counted.
pub(super) const MAX_PATHS: usize = 100_000;

/// A commit as it was listed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Entry {
    pub committed_at: CommitTime,
    pub author_name: Vec<u8>,
    pub author_email: Vec<u8>,
    pub branch: Option<String>,
    /// The name by which the patterns of the configuration know it, if that is not a branch's.
    pub ref_name: Option<String>,
    pub message: Vec<u8>,
    /// At most [`MAX_PATHS`].
    pub changes: Vec<Change>,
    pub omitted: usize,
}

/// Which commits to list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Span {
    /// What these tips reach and the seen ones do not.
    New {
        seen: Vec<Tip>,
        tips: Vec<Tip>,
    },
    Revisions(Vec<String>),
    /// What a person named, in the words of the program.
    Named {
        ranges: Vec<String>,
        since: Option<CommitTime>,
    },
}

/// Takes the commits as they are listed, each with its revision, and says whether to go on. A commit that cannot be read is
/// an error here and does not end the list.
pub(crate) type Take<'t> = &'t mut dyn FnMut(&str, Result<Entry, Error>) -> bool;

/// What a kind of repository answers.
pub(crate) trait Source {
    /// Returns where history ends: what is seen once all that is there now was read.
    fn tips(&self) -> Result<Vec<Tip>, Error>;

    /// Finds out whether the repository can be read.
    fn check(&self) -> Result<(), Error> {
        self.tips().map(drop)
    }

    /// Returns where history ended before what these hooks were told.
    fn tips_before(&self, events: &[Vec<u8>]) -> Result<Vec<Tip>, Error>;

    /// Lists commits, the oldest first. The tips of [`Span::New`] were returned by [`Source::tips`].
    fn list(&self, span: &Span, take: Take) -> Result<(), Error>;

    /// Returns the ranges that a person means, for [`Span::Named`].
    fn resolve(&self, wanted: &Wanted) -> Result<Vec<String>, Error>;

    /// Returns what lags behind, in the words of the repository.
    fn behind(&self, seen: &[Tip]) -> Result<Vec<String>, Error>;

    /// Returns which of the seen tips need not be walked from any more, once these were added.
    fn covered(&self, seen: &[Tip], tips: &[Tip]) -> Vec<Vec<u8>>;

    /// Returns which of the revisions that recording has come by were changed since, as hooks were told.
    fn changed_revisions(&self, _events: &[Vec<u8>], _seen: &[Tip]) -> Vec<String> {
        Vec::new()
    }

    /// Returns the branch on which people expect finished work.
    fn main_branch(&self) -> &str;
}

/// Does the work for each item, as long as it says so.
pub(super) fn each_while<T, E>(
    items: impl IntoIterator<Item = T>,
    mut work: impl FnMut(T) -> Result<bool, E>,
) -> Result<(), E> {
    for item in items {
        if !work(item)? {
            break;
        }
    }
    Ok(())
}

/// Finds what is new.
pub(super) fn new_commits(source: &dyn Source, seen: Vec<Tip>) -> Result<NewCommits<'_>, Error> {
    let tips = source.tips()?;
    let covered = source.covered(&seen, &tips);
    let items = Items::Listed(source, Span::New { seen, tips: tips.clone() });
    Ok(NewCommits { items, moved: MovedTips { new: tips, covered }, unreadable: Vec::new() })
}

/// Reads commits.
pub(super) fn read<T>(source: &dyn Source, span: &Span, work: Work<T>, sink: Sink<T>) -> Result<(), Error> {
    source.list(span, &mut |revision, entry| {
        let read = entry.and_then(|entry| {
            let commit = Commit {
                revision: &revision,
                committed_at: entry.committed_at,
                author_name: (&entry.author_name).into(),
                author_email: (&entry.author_email).into(),
                ref_name: entry.ref_name.clone().or_else(|| Some(format!("refs/heads/{}", entry.branch.as_ref()?))),
                branch: entry.branch.as_deref().map(Into::into),
                message: (&entry.message).into(),
            };
            work(&commit, &|limit| {
                let list = entry.changes[..entry.changes.len().min(limit)].to_vec();
                Ok(Changes { omitted: entry.omitted + entry.changes.len() - list.len(), list })
            })
        });
        sink(&revision, read)
    })
}
