//! What the processes of this host do one after the other when they use the same account of Rally.
//!
//! Rally serves only so many requests of a user at a time, whoever sends them. A permit to send one is a lock on one of
//! a few files in a directory that all processes share; the kernel gives it back when its holder dies. Waiting for one
//! costs nothing: it is done at the gate, one more lock, and only the process that has passed the gate looks for a free
//! permit. Likewise there is a lock for each artifact that is written to, because two writes at once conflict.
//!
//! Nothing that is wrong with these locks holds up a delivery: without a directory that can be shared, each process keeps
//! the limit by itself, and `doctor` says so.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::PROGRAM;
use crate::environment::{home, variable};
use crate::files::is_own;
use crate::process::effective_user;

/// The administrator makes this directory where several users deliver. Nobody's `/tmp` will do: services have their own.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/rally-hook/permits";
/// How often the one process that has passed the gate looks for a free permit.
const POLL: Duration = Duration::from_millis(2);
/// So many artifacts of a request are locked at most: each lock is an open file. Conflicts over others are retried.
const MOST_ARTIFACTS: usize = 50;

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

/// What is shared with the processes that use the same account.
pub(crate) struct Permits {
    shared: Option<Shared>,
    refused: Vec<Error>,
    limit: usize,
    reserved: Mutex<Option<Permit>>,
}

/// The lock files of an account.
struct Shared {
    dir: PathBuf,
    /// The group whose members use the directory too.
    group: Option<u32>,
    account: u64,
}

/// Allows one request for as long as it lives.
pub(crate) struct Permit(#[expect(dead_code, reason = "closing the file ends the lock")] Option<File>);

/// Keeps others from writing to an artifact for as long as it lives.
pub(crate) struct ArtifactLock {
    path: PathBuf,
    #[expect(dead_code, reason = "closing the file ends the lock")]
    file: File,
}

impl Permits {
    /// Finds the directory that is shared. Of one account, at most `limit` requests are permitted at a time.
    pub(crate) fn open(account: &str, limit: usize) -> Self {
        let (mut shared, mut refused) = (None, Vec::new());
        for dir in directories() {
            match Shared::open(&dir, account) {
                Ok(opened) => {
                    shared = Some(opened);
                    break;
                }
                Err(error) => refused.push(error),
            }
        }
        Permits { shared, refused, limit, reserved: Mutex::default() }
    }

    /// Returns the directory, if there is one.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.shared.as_ref().map(|shared| shared.dir.as_path())
    }

    /// Returns why directories that come before it are not used.
    pub(crate) fn refused(&self) -> &[Error] {
        &self.refused
    }

    /// Waits for a permit.
    pub(crate) fn take(&self) -> Permit {
        let reserved = self.reserved.lock().expect("no holder panics").take();
        reserved.unwrap_or_else(|| self.wait())
    }

    /// Waits for the permit that is taken next.
    pub(crate) fn reserve(&self) {
        let permit = self.wait();
        *self.reserved.lock().expect("no holder panics") = Some(permit);
    }

    fn wait(&self) -> Permit {
        Permit(self.shared.as_ref().and_then(|shared| shared.permit(self.limit).ok()))
    }

    /// Waits until no other request writes to these artifacts. To be called before a permit is taken.
    pub(crate) fn lock_artifacts<'r>(&self, refs: impl Iterator<Item = &'r str>) -> Vec<ArtifactLock> {
        let Some(shared) = &self.shared else { return Vec::new() };
        // All take them in one order, so that no two wait for each other.
        let ids: BTreeSet<&str> = refs.filter_map(|rally_ref| rally_ref.rsplit('/').next()).collect();
        ids.into_iter().take(MOST_ARTIFACTS).filter_map(|id| shared.artifact(id).ok()).collect()
    }
}

impl Shared {
    fn open(dir: &Path, account: &str) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable { path: dir.to_owned(), source };
        let meta = fs::symlink_metadata(dir).map_err(unusable)?;
        check(dir, &meta, effective_user())?;
        let group = (meta.mode() & 0o020 != 0).then(|| meta.gid());
        // Two releases of this program may hash differently, and count apart while both are at work.
        let mut hasher = DefaultHasher::new();
        account.hash(&mut hasher);
        let shared = Shared { dir: dir.to_owned(), group, account: hasher.finish() };
        // Some network file systems have no locks.
        match shared.file(&shared.path("gate")).map(|gate| gate.try_lock()).map_err(unusable)? {
            Err(TryLockError::Error(source)) => Err(unusable(source)),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(shared),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{:016x}-{name}", self.account))
    }

    fn file(&self, path: &Path) -> io::Result<File> {
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

    fn permit(&self, limit: usize) -> io::Result<File> {
        let gate = self.file(&self.path("gate"))?;
        gate.lock()?;
        loop {
            // The first ones are left to processes with a lower limit.
            for number in (0..limit).rev() {
                let file = self.file(&self.path(&format!("permit-{number}")))?;
                match file.try_lock() {
                    Ok(()) => return Ok(file),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
            std::thread::sleep(POLL);
        }
    }

    fn artifact(&self, id: &str) -> io::Result<ArtifactLock> {
        let path = self.path(&format!("artifact-{id}"));
        loop {
            let file = self.file(&path)?;
            file.lock()?;
            // Whoever had it before us has removed the file, and others may have made a new one.
            if fs::symlink_metadata(&path).is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino())) {
                return Ok(ArtifactLock { path, file });
            }
        }
    }
}

impl Drop for ArtifactLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the directories that may be shared, the best one first. The user's own are made if they are missing.
fn directories() -> Vec<PathBuf> {
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    fn permits(dir: &Path, account: &str, limit: usize) -> Permits {
        let shared = Shared::open(dir, account).expect("a directory of our own");
        Permits { shared: Some(shared), refused: Vec::new(), limit, reserved: Mutex::default() }
    }

    fn private_dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn no_more_permits_are_given_than_the_limit_allows() {
        let dir = private_dir();
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    // Locks belong to open files, so threads stand for processes here.
                    let permits = permits(dir.path(), "a", 3);
                    for _ in 0..20 {
                        let permit = permits.take();
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
    }

    #[test]
    fn accounts_have_permits_of_their_own() {
        let dir = private_dir();
        let _one = permits(dir.path(), "a", 1).take();
        let _other = permits(dir.path(), "b", 1).take();
    }

    #[test]
    fn a_reserved_permit_is_the_one_that_is_taken_next() {
        let dir = private_dir();
        let permits = permits(dir.path(), "a", 1);
        permits.reserve();
        let _taken = permits.take();
    }

    #[test]
    fn artifacts_are_written_to_by_one_at_a_time_in_whatever_order_they_are_named() {
        let dir = private_dir();
        let writers = [AtomicUsize::new(0), AtomicUsize::new(0)];
        thread::scope(|scope| {
            for number in 0..8 {
                let (dir, writers) = (dir.path(), &writers);
                scope.spawn(move || {
                    let permits = permits(dir, "a", 12);
                    let refs = if number % 2 == 0 { ["/defect/1", "/task/2"] } else { ["/task/2", "/defect/1"] };
                    for _ in 0..50 {
                        let locks = permits.lock_artifacts(refs.into_iter());
                        assert!(locks.len() == 2 && writers.iter().all(|one| one.fetch_add(1, Ordering::SeqCst) == 0));
                        thread::yield_now();
                        for writer in writers {
                            writer.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let left = fs::read_dir(dir.path()).expect("it is there").count();
        assert_eq!(left, 1, "the gate alone is left");
    }

    #[test]
    fn a_directory_that_others_could_fill_is_refused() {
        let dir = private_dir();
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
        assert!(matches!(Shared::open(&link, "a"), Err(Error::Link(_))));
    }

    #[test]
    fn files_in_a_directory_of_a_group_are_the_groups() {
        let dir = private_dir();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).expect("a mode");
        let _permit = permits(dir.path(), "a", 1).take();
        for entry in fs::read_dir(dir.path()).expect("it is there") {
            assert_eq!(entry.and_then(|entry| entry.metadata()).expect("a file").mode() & 0o777, 0o660);
        }
    }
}
