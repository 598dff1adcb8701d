//! What the processes of this host do one after the other when they use the same account of Rally.
//!
//! Rally serves only so many requests of a user at a time, whoever sends them. A permit to send one is a lock on one of
//! a few files in a directory that all processes share; the kernel gives it back when its holder dies. Waiting for one
//! costs nothing: it is done at the gate, one more lock, and only the process that has passed the gate looks for a free
//! permit. Likewise there is a lock for each artifact that is written to, because two writes at once conflict, and one for
//! each SCMRepository that is created, because Rally would take two of one name.
//!
//! Nothing that is wrong with these locks holds up a delivery: without a directory that can be shared, each process keeps
//! the limit by itself, and `doctor` says so.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::host_dir::{self, Error, HostDir};

/// How often the one process that has passed the gate looks for a free permit.
const POLL: Duration = Duration::from_millis(2);
/// No account has more permits (docs/wsapi.md, 6.1).
const MOST_PERMITS: usize = 12;
/// So many artifacts of a request are locked at most: each lock is an open file. Conflicts over others are retried.
const MOST_ARTIFACTS: usize = 50;

/// What all who use an account share where more than this host does: the fleet that shares a ledger.
pub(crate) trait FleetPermits: Send + Sync {
    /// Waits for a permit to send a request, which is over after this time.
    ///
    /// # Errors
    /// If nothing may be sent any more, with the reason.
    fn permit(&self, lasts: Duration) -> Result<Guard, String>;

    /// Waits until no other request writes to these artifacts; not for ever, because a conflict is retried.
    fn lock_artifacts(&self, ids: &[&str]) -> Option<Guard>;
}

/// What is given back when it is dropped.
pub(crate) type Guard = Box<dyn Send>;

/// What is shared with the processes that use the same account.
pub(crate) struct Permits {
    shared: Option<Shared>,
    fleet: Option<Arc<dyn FleetPermits>>,
    refused: Vec<Error>,
    limit: usize,
    reserved: Mutex<Option<Permit>>,
    /// How many were taken and not counted yet.
    taken: AtomicI64,
}

/// The lock files of an account.
struct Shared {
    dir: HostDir,
    account: u64,
}

/// Allows one request for as long as it lives.
pub(crate) struct Permit(#[expect(dead_code, reason = "dropping it gives it back")] Option<Guard>);

/// Keeps others from the same thing for as long as it lives.
struct Lock {
    path: PathBuf,
    #[expect(dead_code, reason = "closing the file ends the lock")]
    file: File,
}

impl Permits {
    /// Finds the directory that is shared. Of one account, at most `limit` requests are permitted at a time.
    pub(crate) fn open(account: &str, limit: usize) -> Self {
        let (mut shared, mut refused) = (None, Vec::new());
        for dir in host_dir::candidates() {
            match HostDir::open(&dir).and_then(|dir| Shared::open(dir, account)) {
                Ok(opened) => {
                    shared = Some(opened);
                    break;
                }
                Err(error) => refused.push(error),
            }
        }
        Permits { shared, fleet: None, refused, limit, reserved: Mutex::default(), taken: AtomicI64::new(0) }
    }

    /// Shares with a fleet instead of this host.
    pub(crate) fn of_fleet(fleet: Arc<dyn FleetPermits>) -> Self {
        let (reserved, taken) = (Mutex::default(), AtomicI64::new(0));
        Permits { shared: None, fleet: Some(fleet), refused: Vec::new(), limit: 0, reserved, taken }
    }

    /// Returns the directory, if there is one.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.shared.as_ref().map(|shared| shared.dir.path())
    }

    /// Returns why directories that come before it are not used.
    pub(crate) fn refused(&self) -> &[Error] {
        &self.refused
    }

    /// Returns how many permits all processes hold at this moment, with the name of the account in the directory.
    pub(crate) fn in_use(&self) -> Option<(String, usize)> {
        let shared = self.shared.as_ref()?;
        let is_held = |number: &usize| {
            let path = shared.dir.path().join(shared.name(&format!("permit-{number}")));
            // Shared, so that two that look do not take each other for holders.
            File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        Some((format!("{:016x}", shared.account), (0..MOST_PERMITS).filter(is_held).count()))
    }

    /// Returns how many permits were taken since this was asked last.
    pub(crate) fn count_taken(&self) -> i64 {
        self.taken.swap(0, Ordering::Relaxed)
    }

    /// Waits for a permit to send a request, which is over after this time.
    ///
    /// # Errors
    /// If nothing may be sent any more, with the reason.
    pub(crate) fn take(&self, lasts: Duration) -> Result<Permit, String> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let reserved = self.reserved.lock().expect("no holder panics").take();
        reserved.map_or_else(|| self.wait(lasts), Ok)
    }

    /// Waits for the permit that is taken next.
    ///
    /// # Errors
    /// As [`take`](Self::take) has them.
    pub(crate) fn reserve(&self, lasts: Duration) -> Result<(), String> {
        let permit = self.wait(lasts)?;
        *self.reserved.lock().expect("no holder panics") = Some(permit);
        Ok(())
    }

    fn wait(&self, lasts: Duration) -> Result<Permit, String> {
        if let Some(fleet) = &self.fleet {
            return fleet.permit(lasts).map(|held| Permit(Some(held)));
        }
        let file = self.shared.as_ref().and_then(|shared| shared.permit(self.limit).ok());
        Ok(Permit(file.map(|file| Box::new(file) as Guard)))
    }

    /// Waits until no other request writes to these artifacts. To be called before a permit is taken.
    pub(crate) fn lock_artifacts<'r>(&self, refs: impl Iterator<Item = &'r str>) -> Vec<Guard> {
        // All take them in one order, so that no two wait for each other.
        let ids: BTreeSet<&str> = refs.filter_map(|rally_ref| rally_ref.rsplit('/').next()).collect();
        let ids: Vec<&str> = ids.into_iter().take(MOST_ARTIFACTS).collect();
        match (&self.fleet, &self.shared) {
            (Some(fleet), _) if !ids.is_empty() => fleet.lock_artifacts(&ids).into_iter().collect(),
            (None, Some(shared)) => {
                let lock = |id: &&str| shared.lock(&shared.name(&format!("artifact-{id}"))).ok();
                ids.iter().filter_map(lock).map(|lock| Box::new(lock) as Guard).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Waits until no other process looks for the SCMRepository that this text stands for, or creates it, whatever its
    /// account is. To be called before a permit is taken. In a fleet, who holds the destination is alone with it.
    pub(crate) fn lock_repository(&self, repository: &str) -> Option<Guard> {
        let lock = self.shared.as_ref()?.lock(&format!("{:016x}-scmrepository", hash(repository))).ok()?;
        Some(Box::new(lock))
    }
}

impl Shared {
    fn open(dir: HostDir, account: &str) -> Result<Self, Error> {
        let shared = Shared { account: hash(account), dir };
        let unusable = |error: io::Error| Error { path: shared.dir.path().to_owned(), problem: error.to_string() };
        // Some network file systems have no locks.
        match shared.file("gate").map(|gate| gate.try_lock()).map_err(unusable)? {
            Err(TryLockError::Error(source)) => Err(unusable(source)),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(shared),
        }
    }

    fn file(&self, name: &str) -> io::Result<File> {
        self.dir.file(&self.name(name))
    }

    fn name(&self, name: &str) -> String {
        format!("{:016x}-{name}", self.account)
    }

    fn permit(&self, limit: usize) -> io::Result<File> {
        let gate = self.file("gate")?;
        gate.lock()?;
        loop {
            // The first ones are left to processes with a lower limit.
            for number in (0..limit).rev() {
                let file = self.file(&format!("permit-{number}"))?;
                match file.try_lock() {
                    Ok(()) => return Ok(file),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for a lock whose file is removed with it: there may be any number of them.
    fn lock(&self, name: &str) -> io::Result<Lock> {
        let path = self.dir.path().join(name);
        loop {
            let file = self.dir.file(name)?;
            file.lock()?;
            // Whoever had it before us has removed the file, and others may have made a new one.
            if fs::symlink_metadata(&path).is_ok_and(|meta| file.metadata().is_ok_and(|own| own.ino() == meta.ino())) {
                return Ok(Lock { path, file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Two releases of this program may hash differently, and count apart while both are at work.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    fn permits(dir: &Path, account: &str, limit: usize) -> Permits {
        let shared = HostDir::open(dir).and_then(|dir| Shared::open(dir, account)).expect("a directory of our own");
        Permits {
            shared: Some(shared),
            fleet: None,
            refused: Vec::new(),
            limit,
            reserved: Mutex::default(),
            taken: AtomicI64::new(0),
        }
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
                        let permit = permits.take(Duration::ZERO);
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
        let _one = permits(dir.path(), "a", 1).take(Duration::ZERO);
        let _other = permits(dir.path(), "b", 1).take(Duration::ZERO);
    }

    #[test]
    fn a_reserved_permit_is_the_one_that_is_taken_next() {
        let dir = private_dir();
        let permits = permits(dir.path(), "a", 1);
        permits.reserve(Duration::ZERO).expect("it is free");
        let _taken = permits.take(Duration::ZERO);
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
}
