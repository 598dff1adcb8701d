//! The directory that holds a repository's state, and the care that its files need: who owns them, who may read
//! them, and what a crash leaves of them.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::claim::Claim;
use super::place::{self, Base, Marker, Trace};
use crate::files::{self, Links};
use crate::process::effective_user;
use crate::{PROGRAM, clock};

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

/// `$GIT_DIR/rally-hook`, or a directory below `queue.dir`.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
    repo_dir: PathBuf,
    /// The group whose members use the state.
    group: Option<u32>,
    /// The repository that this one was copied from, if that has just been seen.
    copy_of: Option<PathBuf>,
}

impl StateDir {
    /// Opens the directory, making it if it is not there: below `base`, if the configuration names one.
    ///
    /// # Errors
    /// If it cannot be made, or is a link, or belongs to somebody else.
    pub(crate) fn open(repo_dir: &Path, sharing: Sharing, base: Option<&Path>) -> Result<Self, Error> {
        let base = base.map(Base::open).transpose()?;
        let found = place::locate(repo_dir, base.as_ref())?;
        let was_deleted = found.is_noted && !found.path.is_dir();
        let mut state = StateDir::at(found.path, repo_dir, sharing, base.as_ref());
        state.copy_of = found.copy_of;
        state.make()?;
        if was_deleted {
            state.note_use()?;
        }
        if found.is_news {
            // Without it, a repository that is moved is taken for a new one.
            let _ = state.marker().write();
        }
        Ok(state)
    }

    pub(super) fn at(path: PathBuf, repo_dir: &Path, sharing: Sharing, base: Option<&Base>) -> Self {
        let of_repository =
            || fs::metadata(repo_dir).ok().filter(|_| sharing == Sharing::Group).map(|repo_dir| repo_dir.gid());
        let of_base = base.filter(|base| path.starts_with(&base.path)).and_then(|base| base.group);
        StateDir { path, repo_dir: repo_dir.to_owned(), group: of_base.or_else(of_repository), copy_of: None }
    }

    pub(super) fn make(&self) -> Result<(), Error> {
        let failed = |source| Error::Directory { path: self.path.clone(), source };
        // The owner could not use what root made. Others can make something only where they are meant to.
        if effective_user() == 0
            && let Ok(meta) = fs::metadata(&self.repo_dir)
            && meta.uid() != 0
        {
            return Err(Error::Foreign { path: self.repo_dir.clone(), owner: meta.uid() });
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => self.share().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        self.check(&self.path).map(drop)
    }

    pub(super) fn marker(&self) -> Marker {
        Marker { state: self.path.clone(), repo_dir: self.repo_dir.clone() }
    }

    /// Tells what there is of the state of a repository. Changes nothing.
    pub(crate) fn trace(repo_dir: &Path, base: Option<&Path>) -> Result<Trace, Error> {
        let base = base.map(Base::open).transpose()?;
        let found = place::locate(repo_dir, base.as_ref())?;
        Ok(match found.path.is_dir() {
            true => Trace::Present(found.path),
            false if found.is_noted => Trace::Deleted,
            false => Trace::Never,
        })
    }

    /// Tells whether a directory is one of a repository that has state, or had.
    pub(crate) fn is_in(repo_dir: &Path) -> bool {
        place::own(repo_dir).is_dir() || Marker::is_in(repo_dir)
    }

    /// Tells whether a directory has a queue, whatever else is left of its repository.
    pub(crate) fn has_queue(repo_dir: &Path) -> bool {
        place::own(repo_dir).join(DATABASE).is_file() || Marker::is_in(repo_dir)
    }

    /// Tells whether the state is not in the repository's directory.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.path != place::own(&self.repo_dir)
    }

    pub(super) fn copy_of(&self) -> Option<&Path> {
        self.copy_of.as_deref()
    }

    /// Returns the file that a configuration names: `rally-hook/` is the state directory, wherever that is.
    pub(crate) fn file(&self, named: &Path) -> PathBuf {
        named.strip_prefix(PROGRAM).map_or_else(|_| self.repo_dir.join(named), |rest| self.path.join(rest))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn repo_dir(&self) -> &Path {
        &self.repo_dir
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
        if meta.uid() != effective_user() && self.group != Some(meta.gid()) {
            return Err(Error::Foreign { path: path.to_owned(), owner: meta.uid() });
        }
        let forbidden = if self.group.is_some() { 0o002 } else { 0o022 };
        match meta.mode() & 0o777 {
            mode if mode & forbidden == 0 => Ok(meta),
            mode => Err(files::Error::Writable { path: path.to_owned(), mode }.into()),
        }
    }

    /// Opens a file for writing, made unreadable for everybody else whatever the umask is.
    pub(crate) fn open_file(&self, path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
        let opened = files::open_shared(path, options, self.group);
        opened.map_err(|source| Error::Directory { path: path.to_owned(), source })
    }

    /// Opens a lock file. The lock itself goes with the process that holds it.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, Error> {
        self.open_file(&self.path.join(name), OpenOptions::new().create(true).truncate(false))
    }

    /// Opens the new directory to the group that uses it.
    fn share(&self) -> io::Result<()> {
        let mode = if self.group.is_some() { 0o2770 } else { 0o700 };
        if self.group.is_some() {
            std::os::unix::fs::chown(&self.path, None, self.group)?;
        }
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
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

    /// Keeps a push in the repository's directory, for a time in which the state elsewhere cannot be used.
    pub(crate) fn keep_push_beside(repo_dir: &Path, sharing: Sharing, pusher: &str, input: &[u8]) -> Result<(), Error> {
        let beside = StateDir::at(place::own(repo_dir), repo_dir, sharing, None);
        beside.make()?;
        beside.keep_push(pusher, input)
    }

    /// Returns the files in which pushes were kept, the oldest first. The second list holds other things with such a name:
    /// links, directories, files of other users.
    pub(crate) fn kept_pushes(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let own = place::own(&self.repo_dir);
        let mut paths = pushes_in(&self.path)?;
        if own != self.path && own.is_dir() {
            paths.extend(pushes_in(&own)?);
        }
        paths.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
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

fn pushes_in(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Directory { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let is_push =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PUSH_FILE.as_bytes()));
    Ok(entries.iter().map(fs::DirEntry::path).filter(is_push).collect())
}
