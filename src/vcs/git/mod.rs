//! Git repositories. Only this module and those below it use libgit2.

#![expect(clippy::disallowed_types, reason = "this module is the user of libgit2")]

mod commit;
mod id;
mod new_commits;
mod objects;
mod place;
mod push;
mod range;
mod read;
#[cfg(test)]
pub(crate) mod testing;
mod tree_diff;
mod walk;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, RepositoryOpenFlags};

use crate::text;
use id::{Dated, ObjectId};
use objects::{Objects, Recent};

pub(crate) use new_commits::{NewCommits, Refs, Updates};
pub(crate) use place::{discover, hooks_dir, is_shared};
pub(crate) use range::Range;
pub(crate) use read::Item;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{} is not a Git repository", .0.display())]
    NoRepository(PathBuf),
    #[error(
        "libgit2 cannot read the format of {} yet ({problem}); pushes stay queued until a version that can is installed. \
         It reads what `git init --object-format=sha1 --ref-format=files` makes", path.display()
    )]
    Format { path: PathBuf, problem: String },
    #[error(
        "{} belongs to another user; run this as its owner, or run: git config --global --add safe.directory {}",
        path.display(), path.display()
    )]
    Owner { path: PathBuf },
    #[error("cannot open the repository {}", path.display())]
    Open { path: PathBuf, source: git2::Error },
    #[error("cannot read the refs")]
    Refs(#[source] git2::Error),
    #[error("cannot read object {id}")]
    Object { id: ObjectId, source: git2::Error },
    #[error("object {id} is damaged: it is not a {kind}")]
    Damaged { id: ObjectId, kind: &'static str },
    #[error("tree {id} is nested too deeply: more than {} directories", tree_diff::MAX_DEPTH)]
    TooDeep { id: ObjectId },
    #[error("cannot start a thread to read commits; this user may have no more processes or memory")]
    Thread(#[source] std::io::Error),
    #[error("the time for reading history is over")]
    OutOfTime,
    #[error("cannot run git to resolve the range")]
    RunGit(#[source] std::io::Error),
    #[error("git cannot resolve the range: {0}")]
    Range(String),
    #[error("{0:?} is not a date; write 2026-01-31 or \"3 weeks ago\"")]
    Date(String),
}

/// An open repository.
pub(crate) struct Repository {
    path: PathBuf,
    inner: git2::Repository,
    recent: RefCell<Recent>,
}

impl Repository {
    /// Opens the repository in this directory, with the alternates that the environment adds where Git runs the hook
    /// for this very repository.
    pub(crate) fn open(git_dir: &Path) -> Result<Self, Error> {
        tune_libgit2();
        let flags = if place::is_in_environment(git_dir) {
            RepositoryOpenFlags::FROM_ENV
        } else {
            RepositoryOpenFlags::empty()
        };
        let flags = flags | RepositoryOpenFlags::NO_SEARCH;
        match git2::Repository::open_ext(git_dir, flags, std::iter::empty::<&Path>()) {
            Ok(inner) => Ok(Repository { path: git_dir.to_owned(), inner, recent: RefCell::default() }),
            Err(source) => Err(open_error(git_dir.to_owned(), source)),
        }
    }

    fn objects(&self) -> Result<Objects<'_>, Error> {
        let open = |source| Error::Open { path: self.path.clone(), source };
        Ok(Objects::new(self.inner.odb().map_err(open)?, &self.recent))
    }

    /// Returns the names of all refs that lead to commits.
    pub(crate) fn ref_names(&self) -> Result<Vec<String>, Error> {
        Ok(self.refs()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Returns all refs that lead to commits. Symbolic refs are left out: their target is there itself.
    fn refs(&self) -> Result<Vec<(String, Dated)>, Error> {
        let objects = self.objects()?;
        let mut refs = Vec::new();
        for reference in self.inner.references().map_err(Error::Refs)? {
            let reference = reference.map_err(Error::Refs)?;
            let Some(target) = reference.target() else { continue };
            // A ref whose object is gone must not hide the other refs.
            let Ok(Some(tip)) = objects.peel(ObjectId::from_oid(target)) else { continue };
            let name = text::readable(reference.name_bytes());
            refs.push((strip_namespaces(&name).to_owned(), tip));
        }
        Ok(refs)
    }

    /// Returns the full name of the branch that HEAD names.
    pub(crate) fn head_branch(&self) -> Option<String> {
        let head = self.inner.find_reference("HEAD").ok()?;
        head.symbolic_target_bytes().map(|name| text::readable(name).into_owned())
    }
}

fn open_error(path: PathBuf, source: git2::Error) -> Error {
    match source.code() {
        ErrorCode::Owner => Error::Owner { path },
        ErrorCode::NotFound => Error::NoRepository(path),
        _ if source.message().contains("extension") || source.message().contains("object format") => {
            Error::Format { path, problem: source.message().to_owned() }
        }
        _ => Error::Open { path, source },
    }
}

/// Refs in namespaces are pushed to by their short names (`git help namespaces`).
fn strip_namespaces(mut name: &str) -> &str {
    while let Some((_, inner)) = name.strip_prefix("refs/namespaces/").and_then(|rest| rest.split_once('/')) {
        name = inner;
    }
    name
}

fn tune_libgit2() {
    // Git checked every object when it received it.
    git2::opts::strict_hash_verification(false);
    // What is read twice is kept in `Recent`; libgit2's cache costs more than it saves a walk that reads each object once.
    git2::opts::enable_caching(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaced_ref_has_the_name_it_is_pushed_by() {
        assert_eq!(strip_namespaces("refs/namespaces/a/refs/namespaces/b/refs/heads/x"), "refs/heads/x");
        assert_eq!(strip_namespaces("refs/heads/x"), "refs/heads/x");
    }
}
