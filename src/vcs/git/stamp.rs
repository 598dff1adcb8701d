//! Whether refs may have changed, told from the times of the files that hold them, without reading any.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns a number that differs once a ref was changed. A loose ref is replaced, which changes its directory's time;
/// so is packed-refs, and the list of tables of a reftable.
pub(crate) fn refs_stamp(git_dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in ["packed-refs", "reftable/tables.list"] {
        add_time(&git_dir.join(file), &mut hasher);
    }
    let mut dirs = vec![git_dir.join("refs")];
    while let Some(dir) = dirs.pop() {
        add_time(&dir, &mut hasher);
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        dirs.extend(entries.filter(is_dir).map(|entry| entry.path()));
    }
    hasher.finish()
}

fn add_time(path: &Path, hasher: &mut DefaultHasher) {
    if let Ok(meta) = fs::metadata(path) {
        (path, meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs::testing::TestRepository;

    #[test]
    fn every_change_of_a_ref_changes_the_stamp() {
        let repository = TestRepository::new();
        let path = repository.path();
        let mut stamps = vec![refs_stamp(path)];
        for branch in ["main", "main", "topic/deep"] {
            repository.commit(branch, "a");
            stamps.push(refs_stamp(path));
        }
        assert_eq!(refs_stamp(path), stamps[3], "nothing was changed");
        stamps.sort_unstable();
        stamps.dedup();
        assert_eq!(stamps.len(), 4);
    }
}
