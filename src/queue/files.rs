//! The directory that holds a repository's state, and the care that its files need: who owns them, who may read
//! them, and what is done with a damaged database.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Error;

const DIRECTORY: &str = "rally-hook";
const DATABASE: &str = "queue.db";
const PUSH_FILE: &str = "push-";
/// Held by whoever records commits. It is there once anything was recorded.
pub const RECORD_LOCK: &str = "record.lock";

/// Who may use the state, as `core.sharedRepository` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Owner,
    Group,
}

/// `$GIT_DIR/rally-hook`.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    git_dir: PathBuf,
    sharing: Sharing,
}

impl StateDir {
    /// Opens the directory, making it if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or is a link, or belongs to somebody else.
    pub fn open(git_dir: &Path, sharing: Sharing) -> Result<Self, Error> {
        let state = StateDir { path: git_dir.join(DIRECTORY), git_dir: git_dir.to_owned(), sharing };
        let failed = |source| Error::Directory { path: state.path.clone(), source };
        // What root made, the owner could not use. Others can make something only where they are meant to.
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } == 0
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
        Ok(state)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Refuses a file that is a link or belongs to somebody who should not be trusted with our state.
    pub fn check(&self, path: &Path) -> Result<Metadata, Error> {
        let directory = |source| Error::Directory { path: path.to_owned(), source };
        let meta = fs::symlink_metadata(path).map_err(directory)?;
        if meta.is_symlink() {
            return Err(Error::Link(path.to_owned()));
        }
        // SAFETY: geteuid has no preconditions and cannot fail.
        let ours = meta.uid() == unsafe { libc::geteuid() };
        let of_group = self.sharing == Sharing::Group
            && fs::metadata(&self.git_dir).is_ok_and(|git_dir| git_dir.gid() == meta.gid());
        if ours || of_group { Ok(meta) } else { Err(Error::Foreign { path: path.to_owned(), owner: meta.uid() }) }
    }

    /// Opens a file for writing, made for nobody else's eyes whatever the umask is.
    pub fn open_file(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let is_new = !path.exists();
        let file = options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if is_new {
            self.share(path, 0o660)?;
        }
        Ok(file)
    }

    /// Opens a lock file. The lock itself goes with the process that holds it.
    pub fn lock_file(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        self.open_file(&path, OpenOptions::new().create(true).truncate(false))
            .map_err(|source| Error::Directory { path, source })
    }

    /// Opens a new file or directory to the group where the repository is shared.
    pub(super) fn share(&self, path: &Path, mode: u32) -> io::Result<()> {
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
    /// A crash leaves the whole file or only one with a name that nobody reads.
    pub fn keep_push(&self, pusher: &str, input: &[u8]) -> Result<(), Error> {
        let stamp = since_epoch().as_nanos();
        let name = format!("{PUSH_FILE}{stamp}-{}", std::process::id());
        let temporary = self.path.join(format!("tmp-{name}"));
        let write = || {
            let mut file = self.open_file(&temporary, OpenOptions::new().create_new(true))?;
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

    /// Returns the pushes that were kept in files: path, pusher and input.
    pub fn kept_pushes(&self) -> Result<Vec<(PathBuf, String, Vec<u8>)>, Error> {
        let failed = |source| Error::Directory { path: self.path.clone(), source };
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(PUSH_FILE.as_bytes())
                && self.check(&entry.path()).is_ok()
            {
                let bytes = fs::read(entry.path()).map_err(failed)?;
                let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
                let pusher = String::from_utf8_lossy(&bytes[..end]).into_owned();
                kept.push((entry.path(), pusher, bytes.get(end + 1..).unwrap_or_default().to_vec()));
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// Moves a damaged database out of the way, with what belongs to it. Nothing is deleted.
    pub(super) fn set_aside(&self) -> Result<PathBuf, Error> {
        let aside = format!("{DATABASE}.damaged-{}", since_epoch().as_nanos());
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

fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
