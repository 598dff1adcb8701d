//! Git repositories. Only this module and those below it use libgit2.

#![expect(clippy::disallowed_types, reason = "this module is the user of libgit2")]

mod alternates;
mod commit;
mod encoding;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod id;
mod loose;
mod new_commits;
mod objects;
mod place;
mod push;
mod range;
mod read;
mod stamp;
#[cfg(test)]
pub(crate) mod testing;
mod tree_diff;
mod walk;

use std::path::{Path, PathBuf};

use git2::ObjectFormat;

use crate::text;
use crate::vcs::Error;
use id::Dated;
use objects::Objects;

pub(crate) use id::ObjectId;
pub(crate) use new_commits::Updates;
pub(crate) use objects::LARGEST;
pub(crate) use place::{discover, hooks_dir, is_shared, shares_hooks};
pub(crate) use range::Range;
pub(crate) use read::Item;
pub(crate) use stamp::ref_files;
pub(crate) use tree_diff::MAX_DEPTH;

/// An error of the library, for the list of all errors.
pub(crate) type LibraryError = git2::Error;

/// An open repository.
pub(crate) struct Repository {
    /// What the linked work trees have in common, absolute.
    path: PathBuf,
    format: ObjectFormat,
    object_dirs: Vec<PathBuf>,
    objects: Objects,
}

impl Repository {
    /// Opens the repository in this directory, with the alternates that the environment adds where Git runs the hook
    /// for this very repository.
    ///
    /// # Errors
    /// If Git refuses it: another user owns it, or its format is not known to this version of Git. In a hook Git has
    /// asked itself already.
    pub(crate) fn open(git_dir: &Path) -> Result<Self, Error> {
        let in_hook = place::is_in_environment(git_dir);
        let format = if in_hook { place::configured_format(git_dir) } else { place::accepted_format(git_dir)? };
        let object_dirs = alternates::object_dirs(git_dir, in_hook);
        let objects = Objects::open(git_dir, format, object_dirs.clone())?;
        Ok(Repository { path: git_dir.to_owned(), format, object_dirs, objects })
    }

    /// Returns the names of all refs that lead to commits.
    pub(crate) fn ref_names(&self) -> Result<Vec<String>, Error> {
        Ok(self.refs()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Returns all refs that lead to commits. Symbolic refs are left out: their target is there itself.
    fn refs(&self) -> Result<Vec<(String, Dated)>, Error> {
        let listed = place::ask(&self.path, &["for-each-ref", "--format=%(objectname) %(symref) %(refname)"])?;
        let mut refs = Vec::new();
        for line in listed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let mut parts = line.splitn(3, |&byte| byte == b' ');
            let (id, symbolic, name) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
            let id = id.and_then(|hex| std::str::from_utf8(hex).ok()?.parse::<ObjectId>().ok());
            // A ref whose object is gone must not hide the other refs.
            let tip = id.filter(|_| symbolic == Some(b"")).and_then(|id| self.objects.peel(id).ok().flatten());
            let name = text::readable(name);
            refs.extend(tip.map(|tip| (strip_namespaces(&name).to_owned(), tip)));
        }
        Ok(refs)
    }

    /// Returns the full name of the branch that HEAD names.
    pub(crate) fn head_branch(&self) -> Option<String> {
        place::head_branch(&self.path)
    }

    /// Returns another handle of the same objects, for another thread.
    fn more_objects(&self) -> Result<Objects, Error> {
        Objects::open(&self.path, self.format, self.object_dirs.clone())
    }
}

/// Refs in namespaces are pushed to by their short names (`git help namespaces`).
fn strip_namespaces(mut name: &str) -> &str {
    while let Some((_, inner)) = name.strip_prefix("refs/namespaces/").and_then(|rest| rest.split_once('/')) {
        name = inner;
    }
    name
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
