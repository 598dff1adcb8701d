//! `rally-hook worker`: a service that delivers for all repositories below a directory.
//!
//! A hook that has recorded a push closes its lock file, which the kernel tells; the repository then has a turn on one of
//! a few threads. What the kernel does not tell is found by a look at all repositories, which comes round: new
//! repositories, refs that moved without a hook, commits that a backfill queued.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use super::deliver::turn;
use super::many::{Which, found, is_served, repositories};
use super::poll::Polls;
use super::{Ended, Error, RECORD, Site, fleet, state_base, state_dir, store};
use crate::cli::{self, Place};
use crate::clock::{Deadline, now};
use crate::config::{Config, Level, StoreAccess};
use crate::environment::variable;
use crate::messages::tell;
use crate::notices::{Notice, Notices};
use crate::panics::{caught, caught_in_thread};
use crate::process;
use crate::queue::{Claim, Claimed, LOOK, StateDir, WorkQueue};
use crate::text::{plural, with_causes};
use crate::time::Time;
use crate::vcs::stamp;
use crate::worker::{Ledgers, Service};

/// How many repositories have a turn at the same time. Requests are limited by permits.
const LANES: usize = 8;
/// How many of them poll a server at the same time, and how long another poll waits for its place.
const POLLS: usize = 4;
const POLLS_BUSY: Duration = Duration::from_secs(1);

pub(super) fn run(place: &Place, arguments: &cli::Worker) -> Result<Ended, Error> {
    // Tells a mistyped directory at once.
    let root = arguments.all_repos.as_deref();
    match root {
        Some(root) => drop(found(place, root, Which::All)?),
        // It delivers for other servers only.
        None => drop(store::common(place)?),
    }
    process::allow_many_files();
    let termination = process::wait_for_termination().map_err(Error::Notices)?;
    let notices = Notices::new(termination).map_err(Error::Notices)?;
    let lanes = Lanes {
        place,
        ledgers: Arc::default(),
        every: arguments.every,
        service: Service::default(),
        known: Mutex::default(),
        polls: Default::default(),
    };
    let mut watcher = Watcher { root, lanes: &lanes, notices, repositories: HashMap::new(), is_limit_told: false };
    let mut delivers_for_fleet = false;
    let ended = caught(|| {
        thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| lanes.service.work(|repo_dir| lanes.turn(repo_dir)));
            }
            let ended = watcher.watch(&mut || {
                delivers_for_fleet = delivers_for_fleet || fleet::start(scope, place, &lanes.ledgers);
            });
            lanes.service.stop();
            ended
        })
    });
    ended.map_err(Error::Bug).flatten().map(|()| Ended::Done)
}

/// A repository that is forwarded has a turn after so many looks, if nothing brings one earlier.
const LOOKS: u32 = 10;

/// What the threads share.
struct Lanes<'l> {
    place: &'l Place,
    ledgers: Arc<Ledgers>,
    /// How often all repositories are looked at. Two looks tell that refs have moved and no hook is at work on it.
    every: Duration,
    service: Service,
    known: Mutex<Known>,
    /// Held while a server is polled.
    polls: [Mutex<()>; POLLS],
}

/// What the threads know of repositories.
#[derive(Default)]
struct Known {
    /// Those whose refs have moved without a hook.
    to_catch_up: HashSet<PathBuf>,
    /// The configuration that the last turn had, and when the files that it names were written.
    configurations: HashMap<PathBuf, (Config, Vec<Written>)>,
    /// What went wrong last, so that it is told once.
    errors: HashMap<PathBuf, String>,
    /// What the ledger has of the repositories, where there is one.
    forwarded: HashMap<PathBuf, Forwarded>,
}

impl Lanes<'_> {
    /// Has one turn for a repository. Returns when the next is due.
    fn turn(&self, repo_dir: &Path) -> Option<Time> {
        match caught_in_thread(|| self.deliver(repo_dir)).map_err(Error::Bug).flatten() {
            Ok(next) => {
                self.known().errors.remove(repo_dir);
                next
            }
            Err(error) => {
                self.tell_once(repo_dir, with_causes(&error));
                Some(now() + self.every)
            }
        }
    }

    /// Says what is wrong with a repository, unless that was said last.
    fn tell_once(&self, repo_dir: &Path, error: String) {
        let before = self.known().errors.insert(repo_dir.to_owned(), error.clone());
        if before.as_ref() != Some(&error) {
            tell(&format!("{}: {error}", repo_dir.display()));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    fn deliver(&self, repo_dir: &Path) -> Result<Option<Time>, Error> {
        let mut site = Site::open(&Place { repo: Some(repo_dir.to_owned()), ..self.place.clone() })?;
        site.ledgers = Arc::clone(&self.ledgers);
        let (is_behind, is_changed) = {
            let (config, times) = (site.config.clone(), site.config.files().map(written_at).collect());
            let mut known = self.known();
            let before = known.configurations.insert(repo_dir.to_owned(), (config, times));
            let is_changed = before.is_some_and(|before| Some(&before) != known.configurations.get(repo_dir));
            (known.to_catch_up.remove(repo_dir), is_changed)
        };
        if is_changed {
            site.log.write(Level::Info, "configuration", &[], "the configuration has changed");
            site.with_queue(|queue| Ok(queue.set_pause(None)?))?;
        }
        let next_poll = match site.polls()? {
            Some(polls) => self.poll(&site, &polls)?,
            None => {
                if is_behind {
                    catch_up(&site)?;
                }
                None
            }
        };
        let next = turn(&site, self.every);
        self.note_position(&site);
        // No hook tells that the configuration names another ledger, or none, for what was forwarded.
        let next_check = site.config.queue.store.is_some().then(|| now() + self.every.saturating_mul(LOOKS));
        Ok(next?.into_iter().chain(next_poll).chain(next_check).min())
    }

    /// Remembers how much of a repository's queue the ledger has, so that a look can tell whether it has lost some.
    fn note_position(&self, site: &Site) {
        let Ok(Some(access)) = site.config.queue.store_access() else { return };
        let noted = site.with_queue(|queue| Ok((queue.home().id().to_owned(), queue.position()?)));
        if let Ok((queue_id, position)) = noted {
            self.known().forwarded.insert(site.repo_dir.clone(), Forwarded { access, queue_id, position });
        }
    }

    /// Returns the repositories of which a ledger has lost something that it had taken in.
    fn lost_parcels(&self) -> Vec<PathBuf> {
        let forwarded = self.known().forwarded.clone();
        let mut by_ledger: Vec<(&StoreAccess, Vec<(String, i64)>)> = Vec::new();
        for Forwarded { access, queue_id, position } in forwarded.values() {
            let queue = (queue_id.clone(), *position);
            match by_ledger.iter_mut().find(|(known, _)| *known == access) {
                Some((_, queues)) => queues.push(queue),
                None => by_ledger.push((access, vec![queue])),
            }
        }
        let lost = by_ledger.iter().flat_map(|(access, queues)| {
            // One that is away is asked again at the next look.
            self.ledgers.with(access, |session| session.lost_parcels(queues)).unwrap_or_default()
        });
        let lost: HashSet<String> = lost.collect();
        forwarded
            .into_iter()
            .filter(|(_, forwarded)| lost.contains(&forwarded.queue_id))
            .map(|(repo_dir, _)| repo_dir)
            .collect()
    }

    /// Asks the server of a repository that has no hooks, if that is due. Returns when to do so next. If it fails, what is
    /// queued is delivered all the same.
    fn poll(&self, site: &Site, polls: &Polls) -> Result<Option<Time>, Error> {
        let due = polls.due(now());
        if due > now() {
            return Ok(Some(due));
        }
        let Some(_place) = self.place_to_poll() else { return Ok(Some(now() + POLLS_BUSY)) };
        match catch_up(site) {
            Err(error @ Error::Queue(_)) => return Err(error),
            Err(error) => {
                let error = with_causes(&error);
                if polls.poll.error.as_ref() != Some(&error) {
                    tell(&format!("{}: the poll of the server failed: {error}", site.repo_dir.display()));
                }
            }
            Ok(()) => {}
        }
        Ok(Some(now() + polls.every))
    }

    /// Takes one of the places for polls, if one is free: servers that hang must not keep all threads from delivering.
    fn place_to_poll(&self) -> Option<MutexGuard<'_, ()>> {
        self.polls.iter().find_map(|place| match place.try_lock() {
            Ok(free) => Some(free),
            // A poll that met a bug has left nothing behind in it.
            Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}

/// Records what no hook did, once it is known what was there before.
fn catch_up(site: &Site) -> Result<(), Error> {
    if !site.with_queue(|queue| Ok(queue.is_initialised()?))? {
        return Ok(());
    }
    let recorded = site.record_all()?;
    if recorded.commits > 0 {
        let commits = plural(recorded.commits, "new commit");
        let text = format!("recorded what no hook did: {commits}, {} queued", recorded.queued);
        site.log.write(Level::Info, RECORD, &[], &text);
    }
    Ok(())
}

/// How much of a repository's queue the ledger has taken in.
#[derive(Clone)]
struct Forwarded {
    access: StoreAccess,
    queue_id: String,
    /// The number of the last parcel.
    position: i64,
}

/// When a file was written, in seconds and nanoseconds; `None` if it is not there.
type Written = Option<(i64, i64)>;

fn written_at(file: &Path) -> Written {
    file.metadata().ok().map(|meta| (meta.mtime(), meta.mtime_nsec()))
}

/// What the main thread keeps of a repository.
struct Watched {
    state: StateDir,
    /// Tells `status` and hooks that somebody delivers here.
    waiting: Option<Claimed>,
    /// How refs and queue looked the last time.
    refs: Option<u64>,
    queue: u64,
    /// The refs that were recorded, or are about to be.
    caught_up: Option<u64>,
}

/// What a look at a repository shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Unchanged,
    QueueHasChanged,
    /// Some time ago; if a hook was at work on it, that is over.
    RefsHaveMoved,
}

impl Watched {
    fn look(&mut self, repo_dir: &Path) -> Look {
        if self.waiting.is_none() {
            // A process that a hook has started may have it; that one does then what a turn would do.
            self.waiting = self.state.try_claim(Claim::Waiting).ok().flatten();
        }
        let (refs, queue) = (stamp(repo_dir), self.state.stamp());
        let (refs_before, queue_before) = (self.refs.replace(refs), std::mem::replace(&mut self.queue, queue));
        let is_settled = refs_before.is_none_or(|before| before == refs);
        if is_settled && self.caught_up.replace(refs) != Some(refs) {
            Look::RefsHaveMoved
        } else if queue_before != queue {
            Look::QueueHasChanged
        } else {
            Look::Unchanged
        }
    }
}

/// The main thread.
struct Watcher<'w> {
    /// `None` if it delivers for other servers only.
    root: Option<&'w Path>,
    lanes: &'w Lanes<'w>,
    notices: Notices,
    repositories: HashMap<PathBuf, Watched>,
    is_limit_told: bool,
}

impl Watcher<'_> {
    /// Gives repositories their turns until somebody asks the process to end.
    ///
    /// Before each look at all of them, `prepare` is called.
    fn watch(&mut self, prepare: &mut dyn FnMut()) -> Result<(), Error> {
        prepare();
        self.look_at_all();
        let count = plural(self.repositories.len(), "repository");
        if let Some(root) = self.root {
            tell(&format!("delivering for {count} below {}", root.display()));
        }
        tell_service_manager(&format!("READY=1\nSTATUS={count}"));
        let mut next_round = Deadline::after(self.lanes.every);
        while !process::is_terminated() {
            for notice in self.notices.wait(next_round.left()).map_err(Error::Notices)? {
                self.heed(&notice);
            }
            if next_round.has_passed() {
                prepare();
                self.look_at_all();
                tell_service_manager(&format!("STATUS={}", plural(self.repositories.len(), "repository")));
                next_round = Deadline::after(self.lanes.every);
            }
        }
        tell_service_manager("STOPPING=1");
        tell("ending, as asked; what is queued stays queued");
        Ok(())
    }

    fn heed(&self, Notice { dir, name }: &Notice) {
        let is_push = name.as_ref().is_none_or(|name| StateDir::is_written_by_hook(name));
        let of_dir = self.repositories.iter().filter(|(_, watched)| watched.state.path() == dir);
        of_dir.filter(|_| is_push).for_each(|(repo_dir, _)| self.lanes.service.bring_forward(repo_dir));
    }

    /// Finds new repositories, and what no notice tells of.
    fn look_at_all(&mut self) {
        let repo_dirs: BTreeSet<PathBuf> = self
            .root
            .map(repositories)
            .unwrap_or_default()
            .into_iter()
            .filter(|repo_dir| is_served(repo_dir))
            .collect();
        self.repositories.retain(|repo_dir, _| repo_dirs.contains(repo_dir));
        for repo_dir in &repo_dirs {
            if !self.repositories.contains_key(repo_dir)
                && let Some(watched) = self.begin(repo_dir)
            {
                self.repositories.insert(repo_dir.clone(), watched);
            }
        }
        let looks = self.repositories.iter_mut().map(|(repo_dir, watched)| (repo_dir, watched.look(repo_dir)));
        let looks: Vec<(PathBuf, Look)> = looks.map(|(repo_dir, look)| (repo_dir.clone(), look)).collect();
        let behind =
            looks.iter().filter(|(_, look)| *look == Look::RefsHaveMoved).map(|(repo_dir, _)| repo_dir.clone());
        self.lanes.known().to_catch_up.extend(behind);
        self.lanes.service.keep(&self.repositories.keys().cloned().collect());
        let changed = looks.iter().filter(|(_, look)| *look != Look::Unchanged);
        changed.for_each(|(repo_dir, _)| self.lanes.service.bring_forward(repo_dir));
        let behind = self.lanes.lost_parcels();
        behind.iter().for_each(|repo_dir| self.lanes.service.bring_forward(repo_dir));
    }

    /// Takes in a repository. What keeps it from being served is told.
    fn begin(&mut self, repo_dir: &Path) -> Option<Watched> {
        if !StateDir::is_in(repo_dir) {
            // It has only the hook so far, as from a template: its first push makes the rest.
            return None;
        }
        let state = match state_dir(repo_dir, state_base(self.lanes.place, repo_dir).as_deref()) {
            Ok(state) => state,
            Err(error) => {
                self.lanes.tell_once(repo_dir, with_causes(&error));
                return None;
            }
        };
        if let Err(error) = self.notices.watch(state.path())
            && !std::mem::replace(&mut self.is_limit_told, true)
        {
            tell(&format!(
                "pushes to {} and others are noticed only every {}: {error}; raise fs.inotify.max_user_watches (man 7 \
                 inotify)",
                repo_dir.display(),
                humantime::format_duration(self.lanes.every)
            ));
        }
        let waiting = state.claim(Claim::Waiting, Some(Deadline::after(LOOK))).ok().flatten();
        Some(Watched { state, waiting, refs: None, queue: 0, caught_up: None })
    }
}

/// Tells the service manager how the service stands, if one has started it.
fn tell_service_manager(state: &str) {
    if let Some(socket) = variable("NOTIFY_SOCKET") {
        process::tell_service_manager(&socket, state);
    }
}
