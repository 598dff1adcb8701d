//! Repositories: which commits are new, what one says and changes, what a range means, what lags behind.
//!
//! A kind of repository is a module below this one. [`git`] reads objects itself. The others ask a program or a server,
//! which lists whole commits: [`source`] is what such a kind has to answer. Nothing here knows of mentions, of the queue or
//! of Rally. Outside this module a revision is text and a tip's id is bytes, both of any length.

mod date;
mod error;
mod git;
mod hg;
mod kind;
mod program;
mod source;
mod svn;
mod tfvc;

use std::path::Path;

use crate::clock::Deadline;
use crate::commit::{Changes, Commit, MovedTips, Tip};
use crate::config::Config;
use source::{Source, Span};

pub(crate) use error::Error;
#[cfg(any(test, fuzzing))]
pub(crate) use git::fuzzing;
#[cfg(test)]
pub(crate) use git::testing;
pub(crate) use hg::{distrusted_owner, machine_hooks};
pub(crate) use kind::{Kind, Named, discover, hooks_dir, is_share, is_shared, shares_hooks, stamp};

/// Finds the paths that a commit changes, and keeps as many of them as the number says.
pub(crate) type Paths<'p> = &'p dyn Fn(usize) -> Result<Changes, Error>;

/// What a reader does with each commit, on any of its threads.
pub(crate) type Work<'w, T> = &'w (dyn Fn(&Commit, Paths) -> Result<T, Error> + Sync);

/// Takes the results in the order of the commits, each with its revision, and says whether to go on.
pub(crate) type Sink<'s, T> = &'s mut dyn FnMut(&dyn std::fmt::Display, Result<T, Error>) -> bool;

/// An open repository.
pub(crate) enum Repository {
    Git(Box<git::Repository>),
    Listed(Box<dyn Source>),
}

/// Which refs to look at besides those that hooks were told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refs {
    Pushed,
    All,
}

/// Where there may be new commits.
pub(crate) enum Updates<'r> {
    Git(&'r git::Repository, git::Updates),
    Listed(&'r dyn Source, Vec<Vec<u8>>),
}

/// What is new.
pub(crate) struct NewCommits<'r> {
    pub items: Items<'r>,
    pub moved: MovedTips,
    pub unreadable: Vec<Unreadable>,
}

/// What a ref was moved to and cannot be read.
pub(crate) struct Unreadable {
    pub name: String,
    pub revision: String,
    pub error: Error,
}

/// Commits to read.
#[derive(Clone)]
pub(crate) enum Items<'r> {
    Git(&'r git::Repository, Vec<git::Item>),
    GitRange(&'r git::Repository, git::Range),
    Listed(&'r dyn Source, Span),
}

impl Repository {
    /// Opens the repository in this directory, which [`discover`] has found.
    ///
    /// # Errors
    /// If it is none, or refuses this user, or the program that reads it is not there.
    pub(crate) fn open(repo_dir: &Path, config: &Config) -> Result<Self, Error> {
        Ok(match Kind::of(repo_dir) {
            Kind::Git => Repository::Git(Box::new(git::Repository::open(repo_dir)?)),
            Kind::Subversion => Repository::Listed(Box::new(svn::Subversion::new(repo_dir, &config.svn))),
            Kind::Tfvc => Repository::Listed(Box::new(tfvc::Tfvc::open(config)?)),
            Kind::Mercurial => Repository::Listed(Box::new(hg::Mercurial::new(repo_dir))),
        })
    }

    /// Reads what hooks were told, in the order of the pushes.
    pub(crate) fn updates<'p>(&self, pushes: impl Iterator<Item = &'p [u8]>, refs: Refs) -> Result<Updates<'_>, Error> {
        Ok(match self {
            Repository::Git(git) => Updates::Git(git, git.updates(pushes, refs)?),
            Repository::Listed(source) => Updates::Listed(&**source, pushes.map(<[u8]>::to_vec).collect()),
        })
    }

    /// Resolves what a person names for a backfill, and the date before which commits are left out.
    ///
    /// # Errors
    /// If the repository does not understand it.
    pub(crate) fn range(&self, wanted: &Wanted) -> Result<Items<'_>, Error> {
        let since = wanted.since.as_deref().map(date::parse).transpose()?;
        Ok(match self {
            Repository::Git(git) => Items::GitRange(git, git.range(wanted, since)?),
            Repository::Listed(source) => {
                Items::Listed(&**source, Span::Named { ranges: source.resolve(wanted)?, since })
            }
        })
    }

    /// Returns the commits of these revisions.
    pub(crate) fn revisions(&self, revisions: &[String]) -> Items<'_> {
        match self {
            Repository::Git(git) => {
                Items::Git(git, revisions.iter().filter_map(|revision| git::Item::of_revision(revision)).collect())
            }
            Repository::Listed(source) => Items::Listed(&**source, Span::Revisions(revisions.to_vec())),
        }
    }

    /// Returns the names of the refs, or of the revisions, that no seen tip reaches.
    pub(crate) fn behind(
        &self,
        is_included: &dyn Fn(&str) -> bool,
        seen: &mut dyn Iterator<Item = Tip>,
    ) -> Result<Vec<String>, Error> {
        match self {
            Repository::Git(git) => git.refs_behind(is_included, seen),
            Repository::Listed(source) => source.behind(&seen.collect::<Vec<_>>()),
        }
    }

    /// Tells whether it has any of these tips. Where they are counted, another repository may have the same.
    pub(crate) fn has_any(&self, tips: &[Tip]) -> bool {
        match self {
            Repository::Git(git) => tips.iter().any(|tip| git.has(tip)),
            Repository::Listed(_) => !tips.is_empty(),
        }
    }

    /// Returns the full name of the branch on which people expect finished work.
    pub(crate) fn main_branch(&self) -> Option<String> {
        match self {
            Repository::Git(git) => git.head_branch(),
            Repository::Listed(source) => Some(format!("refs/heads/{}", source.main_branch())),
        }
    }

    /// Returns the names of all refs that lead to commits; `None` where they are not known without reading history.
    pub(crate) fn ref_names(&self) -> Result<Option<Vec<String>>, Error> {
        match self {
            Repository::Git(git) => git.ref_names().map(Some),
            Repository::Listed(source) => source.check().map(|()| None),
        }
    }
}

/// What a person names for a backfill.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Ranges in the words of the repository's kind.
    pub ranges: Vec<String>,
    pub all: bool,
    pub since: Option<String>,
}

impl<'r> Updates<'r> {
    /// Returns what hooks were told that nobody understands.
    pub(crate) fn malformed(&self) -> &[String] {
        match self {
            Updates::Git(_, updates) => &updates.malformed,
            Updates::Listed(..) => &[],
        }
    }

    /// Returns where history ended before the pushes, as far as these and the repository tell.
    pub(crate) fn tips_before(&self, is_included: &dyn Fn(&str) -> bool) -> Result<Vec<Tip>, Error> {
        match self {
            Updates::Git(git, updates) => git.tips_before(updates, is_included),
            Updates::Listed(source, events) => source.tips_before(events),
        }
    }

    /// Finds what is new on the refs that are included.
    ///
    /// # Errors
    /// [`Error::OutOfTime`] if the deadline passes. What was pushed and cannot be read is no error.
    pub(crate) fn new_commits(
        &self,
        is_included: &dyn Fn(&str) -> bool,
        seen: &mut dyn Iterator<Item = Tip>,
        deadline: Option<Deadline>,
    ) -> Result<NewCommits<'r>, Error> {
        match self {
            Updates::Git(git, updates) => git.new_commits(updates, is_included, seen, deadline),
            Updates::Listed(source, _) => source::new_commits(*source, seen.collect()),
        }
    }

    /// Returns the revisions that were recorded, or might have been, and were changed since: by a new log message.
    pub(crate) fn changed_revisions(&self, seen: &mut dyn Iterator<Item = Tip>) -> Vec<String> {
        match self {
            Updates::Git(..) => Vec::new(),
            Updates::Listed(source, events) => source.changed_revisions(events, &seen.collect::<Vec<_>>()),
        }
    }
}

impl Items<'_> {
    /// Reads these commits. An error is about the reading of them all; one commit's error goes to `sink`:
    /// [`Error::OutOfTime`] if the deadline passes while it is read.
    pub(crate) fn read<T: Send>(self, deadline: Option<Deadline>, work: Work<T>, sink: Sink<T>) -> Result<(), Error> {
        match self {
            Items::Git(git, items) => git.read(items, deadline, work, sink),
            Items::GitRange(git, range) => git.read_range(&range, work, sink),
            Items::Listed(source, span) => source::read(source, &span, work, sink),
        }
    }
}
