//! The directory that holds a repository's state, and the care that its files need: who owns them, who may read
//! them, and what a crash leaves of them.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::claim::Claim;
use super::place::{self, Marker, Trace};
use crate::clock;
use crate::files::{self, Links};
use crate::process::effective_user;

const DATABASE: &str = "queue.db";
const PUSH_FILE: &str = "push-";
/// No push is larger: a million updated refs take about half as much, in bytes.
const MAX_PUSH: u64 = 256 * 1024 * 1024;

/// The users that may use the state, as `core.sharedRepository` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Owner,
    Group,
}

/// `$GIT_DIR/rally-hook`.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
    git_dir: PathBuf,
    sharing: Sharing,
}

impl StateDir {
    /// Opens the directory, making it if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or is a link, or belongs to somebody else.
    pub(crate) fn open(git_dir: &Path, sharing: Sharing) -> Result<Self, Error> {
        let trace = StateDir::trace(git_dir);
        let state = StateDir { path: place::own(git_dir), git_dir: git_dir.to_owned(), sharing };
        let failed = |source| Error::Directory { path: state.path.clone(), source };
        // The owner could not use what root made. Others can make something only where they are meant to.
        if effective_user() == 0
            && let Ok(meta) = fs::metadata(git_dir)
            && meta.uid() != 0
        {
            return Err(Error::Foreign { path: git_dir.to_owned(), owner: meta.uid() });
        }
        match DirBuilder::new().mode(0o700).create(&state.path) {
            Ok(()) => state.share(&state.path, 0o2770).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        state.check(&state.path)?;
        if trace == Trace::Deleted {
            state.note_use()?;
        }
        if !Marker::is_in(git_dir) {
            // Without it, only a deletion of all state goes unnoticed.
            let _ = Marker { state: state.path.clone(), git_dir: git_dir.to_owned() }.write();
        }
        Ok(state)
    }

    /// Tells what there is of the state of a repository. Changes nothing.
    pub(crate) fn trace(git_dir: &Path) -> Trace {
        match place::own(git_dir).is_dir() {
            true => Trace::Present,
            false if Marker::is_in(git_dir) => Trace::Deleted,
            false => Trace::Never,
        }
    }

    /// Tells whether a directory is one of a repository that has state, or had.
    pub(crate) fn is_in(git_dir: &Path) -> bool {
        StateDir::trace(git_dir) != Trace::Never
    }

    /// Tells whether a directory holds a queue, whatever else is left of its repository.
    pub(crate) fn has_queue(git_dir: &Path) -> bool {
        place::own(git_dir).join(DATABASE).is_file()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether a group uses the state.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Group
    }

    pub(super) fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    pub(super) fn database(&self) -> PathBuf {
        StateDir::database_in(&self.path)
    }

    /// Returns the database of a state directory.
    pub(super) fn database_in(state: &Path) -> PathBuf {
        state.join(DATABASE)
    }

    /// Tells whether a file of this name is closed or put here when a hook has recorded a push, or kept it.
    pub(crate) fn is_written_by_hook(name: &OsStr) -> bool {
        name == Claim::Recording.file_name() || name.as_encoded_bytes().starts_with(PUSH_FILE.as_bytes())
    }

    /// Returns a number that differs once something was written to the queue.
    pub(crate) fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in [DATABASE, &format!("{DATABASE}-wal")] {
            let written = fs::metadata(self.path.join(file)).map(|meta| (meta.mtime(), meta.mtime_nsec(), meta.len()));
            written.ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Notes that the state was used before: if its database is not there, it was lost.
    fn note_use(&self) -> Result<(), Error> {
        self.lock_file(Claim::Recording.file_name()).map(drop)
    }

    /// Tells whether anything was recorded here, although the database may be gone.
    pub(super) fn was_used(&self) -> bool {
        self.path.join(Claim::Recording.file_name()).exists()
    }

    /// Refuses a file that is a link or belongs to somebody who should not be trusted with our state.
    pub(super) fn check(&self, path: &Path) -> Result<Metadata, Error> {
        let directory = |source| Error::Directory { path: path.to_owned(), source };
        let meta = fs::symlink_metadata(path).map_err(directory)?;
        if meta.is_symlink() {
            return Err(Error::Link(path.to_owned()));
        }
        let of_group = self.is_shared() && fs::metadata(&self.git_dir).is_ok_and(|git_dir| git_dir.gid() == meta.gid());
        if meta.uid() != effective_user() && !of_group {
            return Err(Error::Foreign { path: path.to_owned(), owner: meta.uid() });
        }
        let forbidden = if self.is_shared() { 0o002 } else { 0o022 };
        match meta.mode() & 0o777 {
            mode if mode & forbidden == 0 => Ok(meta),
            mode => Err(files::Error::Writable { path: path.to_owned(), mode }.into()),
        }
    }

    /// Opens a file for writing, made unreadable for everybody else whatever the umask is.
    pub(crate) fn open_file(&self, path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
        let mut open = || {
            let is_new = !path.exists();
            let file = options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
            if is_new {
                self.share(path, 0o660)?;
            }
            Ok(file)
        };
        open().map_err(|source| Error::Directory { path: path.to_owned(), source })
    }

    /// Opens a lock file. The lock itself goes with the process that holds it.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, Error> {
        self.open_file(&self.path.join(name), OpenOptions::new().create(true).truncate(false))
    }

    /// Opens a new file or directory to the group where the repository is shared.
    fn share(&self, path: &Path, mode: u32) -> io::Result<()> {
        match self.sharing {
            Sharing::Owner => fs::set_permissions(path, Permissions::from_mode(mode & 0o700)),
            Sharing::Group => {
                std::os::unix::fs::chown(path, None, Some(fs::metadata(&self.git_dir)?.gid()))?;
                fs::set_permissions(path, Permissions::from_mode(mode))
            }
        }
    }

    /// Makes what was renamed or linked into the directory last.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Keeps a push in a file of its own, for a time in which the database cannot be written.
    /// A crash leaves the whole file or one with a name that nobody reads.
    pub(crate) fn keep_push(&self, pusher: &str, input: &[u8]) -> Result<(), Error> {
        let name = format!("{PUSH_FILE}{:016}-{}", clock::now().millis(), std::process::id());
        let temporary = self.path.join(format!("tmp-{name}"));
        let mut file = self.open_file(&temporary, OpenOptions::new().create_new(true))?;
        let write = || {
            file.write_all(pusher.replace(['\0', '\n'], " ").as_bytes())?;
            file.write_all(b"\n")?;
            file.write_all(input)?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(name))?;
            self.sync()
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            Error::Directory { path: self.path.clone(), source }
        })
    }

    /// Returns the files in which pushes were kept, the oldest first. The second list holds other things with such a name:
    /// links, directories, files of other users.
    pub(crate) fn kept_pushes(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let failed = |source| Error::Directory { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
        let is_named_so = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PUSH_FILE.as_bytes()))
        };
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(is_named_so).collect();
        paths.sort();
        Ok(paths
            .into_iter()
            .partition(|path| self.check(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_PUSH)))
    }

    /// Reads a push that was kept in a file: who pushed, and what the hook was given.
    pub(super) fn read_push(path: &Path) -> Result<(String, Vec<u8>), Error> {
        let failed = |source| Error::Directory { path: path.to_owned(), source };
        let bytes = files::read(path, MAX_PUSH, Links::Refuse).map_err(failed)?;
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        let pusher = String::from_utf8_lossy(&bytes[..end]).into_owned();
        Ok((pusher, bytes.get(end + 1..).unwrap_or_default().to_vec()))
    }

    /// Moves a damaged database out of the way, with what belongs to it. Nothing is deleted.
    pub(super) fn set_aside(&self) -> Result<PathBuf, Error> {
        let aside = format!("{DATABASE}.damaged-{}-{}", clock::now().millis(), std::process::id());
        for suffix in ["-wal", "-shm", ""] {
            let from = self.path.join(format!("{DATABASE}{suffix}"));
            match fs::rename(&from, self.path.join(format!("{aside}{suffix}"))) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Directory { path: from, source });
                }
                _ => {}
            }
        }
        Ok(self.path.join(aside))
    }
}
