//! What one process of this host at a time may do. Each claim is a lock on a file, which the kernel
//! gives back when its holder dies.

use std::fs::{File, TryLockError};
use std::time::Duration;

use super::{Error, Queue};
use crate::clock::Deadline;

/// How often a claim that somebody else has is tried again.
const POLL: Duration = Duration::from_millis(5);

/// What only one process at a time may do for a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// To record commits.
    Recording,
    /// To deliver what is due.
    Delivery,
    /// To stay in the background until something is due.
    Waiting,
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
        }
    }
}

impl Queue {
    /// Makes the claim unless another process has it.
    ///
    /// # Errors
    /// If the file cannot be locked, as on some network file systems.
    pub(crate) fn try_claim(&self, claim: Claim) -> Result<Option<Claimed>, Error> {
        let file = self.dir.lock_file(claim.file_name())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claimed(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(self.lock_error(claim, source)),
        }
    }

    /// Waits until the claim can be made.
    pub(crate) fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let file = self.dir.lock_file(claim.file_name())?;
        file.lock().map_err(|source| self.lock_error(claim, source))?;
        Ok(Claimed(file))
    }

    /// Waits until the claim can be made or the deadline has passed.
    pub(crate) fn claim_until(&self, claim: Claim, deadline: Deadline) -> Result<Option<Claimed>, Error> {
        loop {
            let claimed = self.try_claim(claim)?;
            if claimed.is_some() || deadline.has_passed() {
                return Ok(claimed);
            }
            std::thread::sleep(POLL);
        }
    }

    fn lock_error(&self, claim: Claim, source: std::io::Error) -> Error {
        Error::Lock { path: self.dir.path().join(claim.file_name()), source }
    }
}
