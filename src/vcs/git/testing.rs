//! Small repositories for unit tests.

use std::path::Path;

use git2::{Oid, Signature, Time};
use tempfile::TempDir;

/// A bare repository in a temporary directory.
pub(crate) struct TestRepository {
    directory: TempDir,
    inner: git2::Repository,
}

impl TestRepository {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let inner = git2::Repository::init_bare(directory.path()).expect("a repository");
        TestRepository { directory, inner }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Moves a branch to a new commit on top of it that adds nothing. Returns the commit's revision.
    pub(crate) fn commit(&self, branch: &str, message: &str) -> String {
        let name = format!("refs/heads/{branch}");
        let parent = self.inner.find_reference(&name).ok().map(|branch| branch.peel_to_commit().expect("a commit"));
        let time = parent.as_ref().map_or(1_700_000_000, |parent| parent.time().seconds() + 1);
        let author = Signature::new("A", "a@x", &Time::new(time, 0)).expect("a signature");
        let empty = self.inner.treebuilder(None).and_then(|tree| tree.write()).expect("a tree");
        let tree = self.inner.find_tree(empty).expect("the tree");
        let parents: Vec<_> = parent.iter().collect();
        self.inner.commit(Some(&name), &author, &author, message, &tree, &parents).expect("a commit").to_string()
    }

    /// Makes a branch at a commit.
    pub(crate) fn branch(&self, branch: &str, revision: &str) {
        let id = Oid::from_str(revision).expect("a revision");
        self.inner.reference(&format!("refs/heads/{branch}"), id, true, "test").expect("a ref");
    }
}
