//! Repositories: which commits are new, what one says and changes, what a range means, which refs lag behind.
//!
//! A kind of repository is one module below this one and gives the same answers. There is one kind so far, and
//! [`Repository`] is its reader; with the second kind it becomes an enum of readers. Nothing here knows of mentions, of
//! the queue or of Rally. Outside this module a revision is text and a tip's id is bytes, both of any length.

mod git;

use crate::commit::{Changes, Commit};

#[cfg(any(test, fuzzing))]
pub(crate) use git::fuzzing;
#[cfg(test)]
pub(crate) use git::testing;
pub(crate) use git::{
    Error, Item, Named, NewCommits, Range, Refs, Repository, Updates, discover, hooks_dir, is_shared, refs_stamp,
    shares_hooks,
};

/// Finds the paths that a commit changes, and keeps as many of them as the number says.
pub(crate) type Paths<'p> = &'p dyn Fn(usize) -> Result<Changes, Error>;

/// What a reader does with each commit, on any of its threads.
pub(crate) type Work<'w, T> = &'w (dyn Fn(&Commit, Paths) -> Result<T, Error> + Sync);

/// Takes the results in the order of the commits, each with its revision, and says whether to go on.
pub(crate) type Sink<'s, T> = &'s mut dyn FnMut(&dyn std::fmt::Display, Result<T, Error>) -> bool;
