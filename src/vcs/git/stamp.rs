//! The files whose times tell whether refs may have changed, without reading any.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the files and directories of which one changes with each ref. A loose ref is replaced, which changes its
/// directory's time; so is packed-refs, and the list of tables of a reftable.
pub(crate) fn ref_files(git_dir: &Path) -> Vec<PathBuf> {
    let mut files = ["packed-refs", "reftable/tables.list"].map(|name| git_dir.join(name)).to_vec();
    let mut dirs = vec![git_dir.join("refs")];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        dirs.extend(entries.filter(is_dir).map(|entry| entry.path()));
        files.push(dir);
    }
    files
}

#[cfg(test)]
mod tests {
    use crate::vcs::stamp;
    use crate::vcs::testing::TestRepository;

    #[test]
    fn every_change_of_a_ref_changes_the_stamp() {
        let repository = TestRepository::new();
        let path = repository.path();
        let mut stamps = vec![stamp(path)];
        for branch in ["main", "main", "topic/deep"] {
            repository.commit(branch, "a");
            stamps.push(stamp(path));
        }
        assert_eq!(stamp(path), stamps[3], "nothing was changed");
        stamps.sort_unstable();
        stamps.dedup();
        assert_eq!(stamps.len(), 4);
    }
}
