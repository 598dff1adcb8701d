//! A few threads that work on many repositories, each when it is its turn.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::schedule::Schedule;
use crate::clock::now;
use crate::time::Time;

/// How long a thread waits where nothing is due: for ever, in effect.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The turns of all repositories, shared by the threads.
#[derive(Default)]
pub(crate) struct Service {
    schedule: Mutex<(Schedule, IsStopped)>,
    changed: Condvar,
}

type IsStopped = bool;

impl Service {
    /// Does the work whenever it is a repository's turn, until [`stop`](Self::stop) is called. The work returns when the
    /// repository's next turn is, if it knows.
    pub(crate) fn work(&self, work: impl Fn(&Path) -> Option<Time>) {
        let mut guard = self.lock();
        while !guard.1 {
            let Some(repo_dir) = guard.0.take(now()) else {
                let wait = guard.0.next().map_or(LONGEST_WAIT, |next| next.since(now()));
                guard = self.changed.wait_timeout(guard, wait).expect("no holder panics").0;
                continue;
            };
            drop(guard);
            let next = work(&repo_dir);
            guard = self.lock();
            guard.0.give_back(&repo_dir, next);
            self.changed.notify_one();
        }
    }

    /// Replaces the repositories; new ones have a turn now.
    pub(crate) fn keep(&self, repo_dirs: &BTreeSet<PathBuf>) {
        self.lock().0.keep(repo_dirs, now());
        self.changed.notify_all();
    }

    /// Gives a repository a turn now.
    pub(crate) fn bring_forward(&self, repo_dir: &Path) {
        self.lock().0.bring_forward(repo_dir, now());
        self.changed.notify_one();
    }

    /// Ends the threads, each after its turn.
    pub(crate) fn stop(&self) {
        self.lock().1 = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, (Schedule, IsStopped)> {
        self.schedule.lock().expect("no holder panics")
    }
}
