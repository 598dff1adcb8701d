//! What one process of this host at a time may do. Each claim is a lock on a file, which the kernel
//! gives back when its holder dies.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::{Error, Queue, StateDir};
use crate::clock::Deadline;

/// How often a claim that somebody else has is tried again.
const POLL: Duration = Duration::from_millis(5);
/// How long a claim may seem to be held by a process that only looks whether it is.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What only one process at a time may do for a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// To record commits.
    Recording,
    /// To deliver what is due.
    Delivery,
    /// To stay in the background until something is due.
    Waiting,
    /// To wait in the foreground. It keeps nobody from anything, and tells others that somebody waits.
    Foreground,
}

/// A claim that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Claimed(#[expect(dead_code, reason = "closing the file ends the lock")] File);

impl Claim {
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Claim::Recording => "record.lock",
            Claim::Delivery => "deliver.lock",
            Claim::Waiting => "background.lock",
            Claim::Foreground => "foreground.lock",
        }
    }
}

/// Who is there to deliver, as the claims tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtWork {
    /// A process is delivering.
    Delivering,
    /// A process waits until something is due.
    Waiting,
    Nobody,
}

impl StateDir {
    /// Tells who is there to deliver.
    pub(crate) fn at_work(&self) -> Result<AtWork, Error> {
        Ok(if self.is_claimed(Claim::Delivery)? {
            AtWork::Delivering
        } else if self.is_claimed(Claim::Waiting)? || self.is_claimed(Claim::Foreground)? {
            AtWork::Waiting
        } else {
            AtWork::Nobody
        })
    }

    /// Makes the claim unless another process has it, or looks at it at this moment.
    ///
    /// # Errors
    /// If the file cannot be locked, as on some network file systems.
    pub(crate) fn try_claim(&self, claim: Claim) -> Result<Option<Claimed>, Error> {
        let file = self.lock_file(claim.file_name())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claimed(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(self.lock_error(claim, source)),
        }
    }

    /// Waits until the claim can be made or the deadline has passed; without one, for as long as it takes.
    pub(crate) fn claim(&self, claim: Claim, deadline: Option<Deadline>) -> Result<Option<Claimed>, Error> {
        let Some(deadline) = deadline else {
            let file = self.lock_file(claim.file_name())?;
            file.lock().map_err(|source| self.lock_error(claim, source))?;
            return Ok(Some(Claimed(file)));
        };
        loop {
            let claimed = self.try_claim(claim)?;
            if claimed.is_some() || deadline.has_passed() {
                return Ok(claimed);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Tells whether a process has the claim. Two that look share the lock, so neither takes the other for its holder.
    fn is_claimed(&self, claim: Claim) -> Result<bool, Error> {
        match self.lock_file(claim.file_name())?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(self.lock_error(claim, source)),
        }
    }

    fn lock_error(&self, claim: Claim, source: std::io::Error) -> Error {
        Error::Lock { path: self.path().join(claim.file_name()), source }
    }
}

impl Queue {
    /// Does what [`StateDir::claim`] does.
    pub(crate) fn claim(&self, claim: Claim, deadline: Option<Deadline>) -> Result<Option<Claimed>, Error> {
        self.dir.claim(claim, deadline)
    }
}
