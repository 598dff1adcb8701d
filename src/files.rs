//! Reads files that somebody else may have put where we look, and replaces our own as a whole.
//!
//! A file is opened without waiting (a FIFO would hold the push for ever), must be a regular file, and is read up to a
//! limit. Where its text decides what is done, its owner counts as well: see [`Owners`].

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::environment::variable;
use crate::process::effective_user;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} belongs to another user (number {owner}); if it may decide what rally-hook does, run: chown {us} {}",
        path.display(), path.display(), us = effective_user())]
    Owner { path: PathBuf, owner: u32 },
    #[error("others may write {} (mode {mode:03o}); run: chmod go-w {}", path.display(), path.display())]
    Writable { path: PathBuf, mode: u32 },
}

/// Why a directory is not used for files that decide what is done, or that others must not read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub(crate) struct DirError {
    pub path: PathBuf,
    pub problem: String,
}

/// Whether a symbolic link counts as the file that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// The users whose files decide what is done: the one who runs this process, root, and, in a repository that is shared
/// with a group, the one who owns its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owners([u32; 3]);

impl Owners {
    /// For files that belong to no repository.
    pub(crate) fn of_system() -> Self {
        Owners([0, effective_user(), effective_user()])
    }

    pub(crate) fn of_repository(repo_dir: &Path, is_shared: bool) -> Self {
        let us = effective_user();
        let owner = is_shared.then(|| repo_dir.metadata().ok()).flatten().map(|meta| meta.uid());
        Owners([0, us, owner.unwrap_or(us)])
    }

    /// Refuses a file of another user, or one that other users may write.
    pub(crate) fn check(self, path: &Path, meta: &Metadata) -> Result<(), Error> {
        let (owner, mode, path) = (meta.uid(), meta.mode() & 0o777, path.to_owned());
        match () {
            () if !self.0.contains(&owner) => Err(Error::Owner { path, owner }),
            () if mode & 0o022 != 0 => Err(Error::Writable { path, mode }),
            () => Ok(()),
        }
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Of the kind `InvalidData` if it is no regular file, `FileTooLarge` if it is longer.
pub(crate) fn read(path: &Path, limit: u64, links: Links) -> io::Result<Vec<u8>> {
    let (mut file, meta) = open(path, links)?;
    read_to_limit(&mut file, &meta, limit)
}

/// Reads a file as [`read`] does, if one of these users wrote it and nobody else can have. If it has to lie within a
/// directory, it must really do so: no directory on the way may be a link that leads elsewhere.
pub(crate) fn read_trusted(
    path: &Path,
    limit: u64,
    links: Links,
    owners: Owners,
    within: Option<&Path>,
) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let (mut file, meta) = open(path, links).map_err(failed)?;
    if let Some(dir) = within {
        // The kernel knows where the open file is; the path could be changed between a check of it and its use.
        let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| path.canonicalize());
        if !real.map_err(failed)?.starts_with(dir.canonicalize().map_err(failed)?) {
            let text = format!("a link leads out of {}", dir.display());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
    }
    owners.check(path, &meta)?;
    read_to_limit(&mut file, &meta, limit).map_err(failed)
}

/// Refuses a directory in which others could put something that this user does not expect. Returns the group whose members
/// use it too, if its mode says so.
pub(crate) fn trusted_dir(dir: &Path) -> Result<Option<u32>, DirError> {
    let refused = |problem| DirError { path: dir.to_owned(), problem };
    let meta = fs::symlink_metadata(dir).map_err(|error| refused(error.to_string()))?;
    check_dir(&meta, effective_user()).map_err(refused)?;
    Ok((meta.mode() & 0o020 != 0).then(|| meta.gid()))
}

fn check_dir(meta: &Metadata, us: u32) -> Result<(), String> {
    let (owner, mode) = (meta.uid(), meta.mode() & 0o777);
    match () {
        () if meta.is_symlink() => Err("it is a symbolic link".into()),
        () if !meta.is_dir() => Err("it is not a directory".into()),
        () if ![0, us].contains(&owner) => Err(format!("it belongs to user {owner}")),
        () if mode & 0o002 != 0 => Err(format!("everybody may write to it (mode {mode:03o})")),
        () => Ok(()),
    }
}

/// Opens a file for writing, made unreadable for everybody but the group whatever the umask is. A link is not followed.
pub(crate) fn open_shared(path: &Path, options: &mut OpenOptions, group: Option<u32>) -> io::Result<File> {
    let is_new = !path.exists();
    let file = options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if is_new && group.is_some() {
        fchown(&file, None, group)?;
    }
    if is_new {
        file.set_permissions(Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }))?;
    }
    Ok(file)
}

/// Writes a file under another name, and gives it its own only then: a crash leaves the old one or the new one.
pub(crate) fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Tells whether a file belongs to the user who runs this process.
pub(crate) fn is_own(meta: &Metadata) -> bool {
    meta.uid() == effective_user()
}

/// Finds a program in the absolute directories of `PATH`. In others, such as the current one, somebody's repository may
/// have a program of that name.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(is_program)
}

fn open(path: &Path, links: Links) -> io::Result<(File, Metadata)> {
    let follow = if links == Links::Refuse { libc::O_NOFOLLOW } else { 0 };
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | follow).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidData, "it is a symbolic link"),
        _ => error,
    })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    Ok((file, meta))
}

fn read_to_limit(file: &mut File, meta: &Metadata, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(limit)).unwrap_or(0));
    // It may grow meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("it is longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_others_could_fill_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        let look = |us| check_dir(&fs::symlink_metadata(path).expect("it is there"), us);
        let us = effective_user();
        assert!(look(us).is_ok());
        if us != 0 {
            assert_eq!(look(us + 1), Err(format!("it belongs to user {us}")));
        }
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("a mode");
        assert_eq!(look(us), Err("everybody may write to it (mode 777)".into()));
        let link = path.join("link");
        symlink(path, &link).expect("a link");
        assert_eq!(trusted_dir(&link).expect_err("it is a link").problem, "it is a symbolic link");
    }

    #[test]
    fn only_a_regular_file_of_limited_size_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link, fifo) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&file, "four").expect("a file");
        symlink(&file, &link).expect("a link");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
        assert!(made.success());
        assert_eq!(read(&file, 4, Links::Refuse).expect("it fits"), b"four");
        assert_eq!(read(&link, 4, Links::Follow).expect("it is followed"), b"four");
        assert_eq!(read(&file, 3, Links::Refuse).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        for path in [&link, &fifo, &dir.path().to_owned()] {
            assert_eq!(read(path, 4, Links::Refuse).expect_err("no file").kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused_with_the_command_to_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "text").expect("a file");
        for mode in [0o602, 0o620, 0o666] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("a mode");
            let error =
                read_trusted(&file, 9, Links::Refuse, Owners::of_system(), None).expect_err("others may write it");
            assert!(error.to_string().ends_with(&format!("run: chmod go-w {}", file.display())), "{error}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "text").expect("a file");
        let meta = file.metadata().expect("it is there");
        let others = Owners([meta.uid() + 1; 3]);
        assert!(matches!(others.check(&file, &meta), Err(Error::Owner { owner, .. }) if owner == meta.uid()));
    }
}
