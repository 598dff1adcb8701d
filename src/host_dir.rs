//! The directory that the processes of this host share, whichever repositories they work for: who may use it, and the care
//! that files in it need. Others of a group may use it too.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::PROGRAM;
use crate::environment::{home, variable};
use crate::files::{self, is_own};

pub(crate) use crate::files::DirError as Error;

/// The administrator makes this directory where several users deliver. Nobody's `/tmp` will do: services have their own.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/rally-hook/permits";

/// A directory in which nobody puts something that this user does not expect.
pub(crate) struct HostDir {
    path: PathBuf,
    /// The group whose members use the directory too.
    group: Option<u32>,
}

impl HostDir {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(HostDir { path: path.to_owned(), group: files::trusted_dir(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether a file in it was written by those who may use the directory, and by nobody else.
    pub(crate) fn is_trusted(&self, meta: &Metadata) -> bool {
        let is_theirs = is_own(meta) || self.group == Some(meta.gid());
        meta.is_file() && is_theirs && meta.mode() & 0o002 == 0
    }

    /// Opens a file for writing, made if it is missing: for nobody else, or for the group.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        files::open_shared(&self.path.join(name), OpenOptions::new().create(true).truncate(false), self.group)
    }
}

/// Returns the directories that may be shared, the best one first. The user's own are made if they are missing.
pub(crate) fn candidates() -> Vec<PathBuf> {
    // What a session has goes away with it, and its processes would not see those of services.
    let in_home = home().map(|home| (home, ".local/state"));
    let in_session = variable("XDG_RUNTIME_DIR").map(|dir| (dir.into(), ""));
    let make = |(base, below): (PathBuf, &str)| {
        // Somebody else's home directory is not ours to fill, although root could.
        fs::metadata(&base).ok().filter(is_own)?;
        let dir = base.join(below).join(PROGRAM);
        // If this fails, so does what is done there next, and that is told.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        Some(dir)
    };
    let own = [in_home, in_session].into_iter().flatten().filter_map(make);
    let system = Some(PathBuf::from(SYSTEM_DIR)).filter(|dir| dir.symlink_metadata().is_ok());
    system.into_iter().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_in_a_directory_of_a_group_are_the_groups() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).expect("a mode");
        let made = HostDir::open(dir.path()).map(|dir| dir.file("lock").expect("it is made"));
        let meta = made.expect("a directory of our own").metadata().expect("a file");
        assert_eq!(meta.mode() & 0o777, 0o660);
    }
}
