//! The directory that the processes of this host share, whichever repositories they work for: who may use it, and the care
//! that files in it need. Others of a group may use it too.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::PROGRAM;
use crate::environment::{home, variable};
use crate::files::is_own;
use crate::process::effective_user;

/// The administrator makes this directory where several users deliver. Nobody's `/tmp` will do: services have their own.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/rally-hook/permits";

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{} cannot be used", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("{} is a link", .0.display())]
    Link(PathBuf),
    #[error("{} belongs to another user (number {owner})", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("everybody may write to {} (mode {mode:03o})", path.display())]
    Open { path: PathBuf, mode: u32 },
}

/// A directory in which nobody puts something that this user does not expect.
pub(crate) struct HostDir {
    path: PathBuf,
    /// The group whose members use the directory too.
    group: Option<u32>,
}

impl HostDir {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let meta = fs::symlink_metadata(path).map_err(|source| Error::Unusable { path: path.to_owned(), source })?;
        check(path, &meta, effective_user())?;
        let group = (meta.mode() & 0o020 != 0).then(|| meta.gid());
        Ok(HostDir { path: path.to_owned(), group })
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
        let path = self.path.join(name);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if let Some(group) = self.group.filter(|_| is_new) {
            fchown(&file, None, Some(group))?;
            file.set_permissions(Permissions::from_mode(0o660))?;
        }
        Ok(file)
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

/// Refuses a directory in which others could put something that this user `us` does not expect.
fn check(dir: &Path, meta: &Metadata, us: u32) -> Result<(), Error> {
    let (path, owner, mode) = (dir.to_owned(), meta.uid(), meta.mode() & 0o777);
    match () {
        () if meta.is_symlink() => Err(Error::Link(path)),
        () if ![0, us].contains(&owner) => Err(Error::Foreign { path, owner }),
        () if mode & 0o002 != 0 => Err(Error::Open { path, mode }),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_others_could_fill_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        let look = |us| check(path, &fs::symlink_metadata(path).expect("it is there"), us);
        let us = effective_user();
        assert!(look(us).is_ok());
        if us != 0 {
            assert!(matches!(look(us + 1), Err(Error::Foreign { owner, .. }) if owner == us));
        }
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("a mode");
        assert!(matches!(look(us), Err(Error::Open { mode: 0o777, .. })));
        let link = path.join("link");
        symlink(path, &link).expect("a link");
        assert!(matches!(HostDir::open(&link), Err(Error::Link(_))));
    }

    #[test]
    fn files_in_a_directory_of_a_group_are_the_groups() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).expect("a mode");
        let made = HostDir::open(dir.path()).map(|dir| dir.file("lock").expect("it is made"));
        let meta = made.expect("a directory of our own").metadata().expect("a file");
        assert_eq!(meta.mode() & 0o777, 0o660);
    }
}
