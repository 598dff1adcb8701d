//! From pushes to the queue: which commits are new, what of them is to be posted, and the seen tips that move.
//!
//! All recording happens under one lock per repository and ends with one transaction that records the last
//! commits, moves the seen tips and forgets the pushes. Whoever comes after a crash or a lack of time walks
//! again; what is recorded already is left alone then.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::artifact::FormattedId;
use crate::changeset::Changeset;
use crate::context::{Context, Error, now};
use crate::git::{self, Item, Objects, Read, Reader, Repository, Walk, read_list};
use crate::push::{self, CommitId, RefUpdate, Tip};
use crate::queue::{self, MovedTips, Queue, Settled, Walked};
use crate::refs::{RefPatterns, Watched};
use crate::text::printable;

/// How many changesets go into one transaction.
const PER_TRANSACTION: usize = 500;
/// What the seen tips of [`Walked::Commits`] are about.
const EVERYTHING: &str = "all refs";
/// How often a lock that somebody holds is tried again.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    /// New commits, matching or not.
    pub commits: usize,
    /// Those of them that wait for delivery now.
    pub queued: usize,
    /// The artifacts that these name.
    pub artifacts: Vec<FormattedId>,
    /// Whether everything was recorded; if not, there was no time.
    pub complete: bool,
}

/// What to look for new commits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The pushes that the queue holds.
    Pushes,
    /// These and all refs of the repository.
    AllRefs,
}

/// Records what is new. With a deadline, stops there and leaves the rest to the next caller.
pub fn record(
    context: &Context,
    queue: &mut Queue,
    source: Source,
    deadline: Option<Instant>,
) -> Result<Recorded, Error> {
    let Some(lock) = lock(context, deadline)? else { return Ok(Recorded::default()) };
    let repository = context.open_repository()?;
    take_in_kept_pushes(context, queue)?;
    let mut work = Work::gather(context, queue, &repository, source)?;
    if queue.seen_scope(Walked::Commits)?.is_none() {
        // The first run, without `install`: what was there before these pushes counts as seen.
        queue.add_seen_tips(Walked::Commits, &work.tips_before(&repository, |_| true)?, EVERYTHING)?;
    }
    let objects = repository.objects()?;
    let found = work.walk(&Round { context, queue, objects: &objects, deadline });
    let items = match found.and_then(|items| work.ask_for_states(context, queue, &repository, deadline).map(|()| items))
    {
        Err(Error::Git(git::Error::OutOfTime)) => return Ok(Recorded::default()),
        items => items?,
    };
    let recorded = store(context, queue, &repository, items, work.settled, deadline)?;
    drop(lock);
    Ok(recorded)
}

/// Marks what the repository holds as seen: it is not posted, unless by a backfill. Pushes that wait in the queue, from
/// a hook that ran before, are left to be recorded.
pub fn mark_all_seen(context: &Context, queue: &mut Queue) -> Result<(), Error> {
    let _lock = lock(context, None)?;
    let repository = context.open_repository()?;
    take_in_kept_pushes(context, queue)?;
    let waiting = Work::gather(context, queue, &repository, Source::Pushes)?;
    Ok(queue.add_seen_tips(Walked::Commits, &waiting.tips_before(&repository, |_| true)?, EVERYTHING)?)
}

/// Returns the names of the watched refs whose tips hold commits that are not recorded.
pub fn refs_behind(context: &Context, queue: &Queue) -> Result<Vec<String>, Error> {
    let repository = context.open_repository()?;
    if queue.seen_scope(Walked::Commits)?.is_none() {
        // The first to record something will take what is there for seen.
        return Ok(Vec::new());
    }
    let objects = repository.objects()?;
    let watched = Watched::new(&context.config.commits);
    let tips: Vec<(String, Tip)> = repository.tips()?.into_iter().filter(|(name, _)| watched.includes(name)).collect();
    let unseen = queue.with_seen_tips(Walked::Commits, |seen| {
        let mut walk = Walk::new(&objects, seen);
        let mut unseen = HashSet::new();
        for (_, tip) in &tips {
            unseen.extend(walk.new_commits(*tip)?);
        }
        Ok::<_, git::Error>(unseen)
    })??;
    Ok(tips.into_iter().filter(|(_, tip)| unseen.contains(&tip.id)).map(|(name, _)| name).collect())
}

/// Records changesets that a person named by a range: neither pushes nor seen tips are touched.
pub fn store_backfill(context: &Context, queue: &mut Queue, changesets: &[Changeset]) -> Result<usize, queue::Error> {
    queue.record(changesets, None, &context.destination(), now())
}

fn lock(context: &Context, deadline: Option<Instant>) -> Result<Option<File>, Error> {
    let file = context.state.lock_file(queue::RECORD_LOCK)?;
    loop {
        match (file.try_lock(), deadline) {
            (Ok(()), _) => return Ok(Some(file)),
            (Err(TryLockError::Error(source)), _) => {
                return Err(queue::Error::Directory { path: context.state.path().to_owned(), source }.into());
            }
            (Err(TryLockError::WouldBlock), Some(deadline)) if Instant::now() >= deadline => return Ok(None),
            (Err(TryLockError::WouldBlock), _) => std::thread::sleep(LOCK_POLL),
        }
    }
}

/// Moves pushes that were kept in files, while the database could not be written, into the database.
fn take_in_kept_pushes(context: &Context, queue: &mut Queue) -> Result<(), Error> {
    for (path, pusher, updates) in context.state.kept_pushes()? {
        queue.add_push(&pusher, &updates, now())?;
        // If this fails the push is walked once more, which records nothing new.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// What one round of recording is about.
struct Work {
    updates: Vec<RefUpdate>,
    /// How many of these come from pushes; the others are refs as they stand.
    pushed: usize,
    settled: Settled,
}

impl Work {
    fn gather(context: &Context, queue: &Queue, repository: &Repository, source: Source) -> Result<Self, Error> {
        let mut work = Work { updates: Vec::new(), pushed: 0, settled: Settled::default() };
        for push in queue.pushes()? {
            let (updates, strange) = push::parse(&push.updates);
            for line in strange {
                context.log.warn(&format!("push {} by {}: not a ref update: {line}", push.id, push.pusher));
            }
            work.updates.extend(updates);
            work.settled.pushes.push(push.id);
        }
        work.pushed = work.updates.len();
        if source == Source::AllRefs {
            let tips = repository.tips()?.into_iter();
            work.updates.extend(tips.map(|(name, tip)| RefUpdate { name, old: None, new: Some(tip.id) }));
        }
        Ok(work)
    }

    /// Finds the new commits of the watched refs. A commit that several refs bring counts for the first of them.
    fn walk(&mut self, round: &Round) -> Result<Vec<Item>, Error> {
        let watched = Watched::new(&round.context.config.commits);
        let updates = self.updates.iter().filter(|update| watched.includes(&update.name));
        let mut items = Vec::new();
        self.settled.commits = round.walk(Walked::Commits, updates, |update, found| {
            let branch: Option<Arc<str>> = update.branch().map(Arc::from);
            items.extend(found.into_iter().map(|id| Item { id, branch: branch.clone(), data: None }));
        })?;
        Ok(items)
    }

    /// Finds the commits that are new to the refs on which messages change states. That a commit reaches such a ref has
    /// nothing to do with when it was posted: it may come from a branch that was pushed and posted before.
    fn ask_for_states(
        &mut self,
        context: &Context,
        queue: &mut Queue,
        repository: &Repository,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let Some(patterns) = state_refs(context, repository) else {
            // What comes in while this is off is never made up for.
            return Ok(queue.forget_seen_tips(Walked::States)?);
        };
        let refs = RefPatterns::new(&patterns);
        let scope = patterns.join("\n");
        if queue.seen_scope(Walked::States)?.as_ref() != Some(&scope) {
            // It was switched on, or the branches are others now: what those hold already changes nothing. Where there
            // is none of them yet, the first is not to bring up all of history.
            let mut tips = self.tips_before(repository, |name| refs.matches(name))?;
            if tips.is_empty() {
                tips = self.tips_before(repository, |_| true)?;
            }
            queue.add_seen_tips(Walked::States, &tips, &scope)?;
        }
        let objects = repository.objects()?;
        let round = Round { context, queue, objects: &objects, deadline };
        let mut new = Vec::new();
        let updates = self.updates.iter().filter(|update| refs.matches(&update.name));
        self.settled.states = round.walk(Walked::States, updates, |_, found| new.extend(found))?;
        let reader = Reader::new(&context.config.commits);
        for id in new {
            self.settled.state_requests.extend(reader.state_request(&objects, id)?);
        }
        Ok(())
    }

    /// Returns where these refs were before the pushes that are being recorded, as far as one can tell.
    fn tips_before(&self, repository: &Repository, is_meant: impl Fn(&str) -> bool) -> Result<Vec<Tip>, Error> {
        let objects = repository.objects()?;
        let mut pushed: HashSet<&str> = HashSet::new();
        let mut tips = Vec::new();
        for update in self.updates[..self.pushed].iter().filter(|update| is_meant(&update.name)) {
            // What a later push of the same ref found there is what an earlier one brought.
            if pushed.insert(&update.name) {
                tips.extend(update.old.and_then(|id| objects.peel(id).ok().flatten()));
            }
        }
        let others = repository.tips()?.into_iter();
        let others = others.filter(|(name, _)| is_meant(name) && !pushed.contains(name.as_str()));
        tips.extend(others.map(|(_, tip)| tip));
        Ok(tips)
    }
}

/// What all walks of one round of recording have in common.
struct Round<'r> {
    context: &'r Context,
    queue: &'r Queue,
    objects: &'r Objects<'r>,
    deadline: Option<Instant>,
}

impl Round<'_> {
    /// Walks from the refs' new values and hands over what is new of each, the oldest first. Returns how the seen tips
    /// move.
    fn walk<'u>(
        &self,
        walked: Walked,
        updates: impl Iterator<Item = &'u RefUpdate>,
        mut take: impl FnMut(&RefUpdate, Vec<CommitId>),
    ) -> Result<MovedTips, Error> {
        self.queue.with_seen_tips(walked, |seen| {
            let mut walk = Walk::new(self.objects, seen).until(self.deadline);
            let mut moved = MovedTips::default();
            for update in updates {
                // Where the hook for the old value did not run, its commits are new too, and may go away now.
                let old = update.old.and_then(|id| self.objects.peel(id).ok().flatten());
                let new = self.pushed_tip(update, &mut moved);
                let mut found = Vec::new();
                for tip in old.into_iter().chain(new) {
                    let of_tip = walk.new_commits(tip)?;
                    if of_tip.is_empty() {
                        moved.covered.push(tip.id);
                    }
                    // Also where nothing is new: what makes it seen today may be pruned tomorrow.
                    moved.new.push(tip);
                    found.extend(of_tip);
                }
                take(update, found);
            }
            moved.covered.extend(walk.joined());
            Ok(moved)
        })?
    }

    /// Returns the commit that a ref was moved to, if it was to one that can be read.
    fn pushed_tip(&self, update: &RefUpdate, moved: &mut MovedTips) -> Option<Tip> {
        let new = update.new?;
        self.objects.peel(new).unwrap_or_else(|error| {
            let reason = format!("{}: its commits cannot be recorded: {error}", printable(&update.name));
            self.context.log.error(&reason);
            moved.unreadable.push((new, reason));
            None
        })
    }
}

/// Reads the commits and records what is to be posted.
fn store(
    context: &Context,
    queue: &mut Queue,
    repository: &Repository,
    items: Vec<Item>,
    settled: Settled,
    deadline: Option<Instant>,
) -> Result<Recorded, Error> {
    let reader = Reader::new(&context.config.commits);
    let mut recorded = Recorded { commits: items.len(), ..Recorded::default() };
    let mut waiting: Vec<Changeset> = Vec::new();
    let mut failed = None;
    let mut in_time = true;
    let mut settled = settled;
    read_list(&context.git_dir, repository, &reader, items, |id, read| {
        match matching(context, id, read) {
            Ok(changeset) => waiting.extend(changeset),
            Err(reason) => settled.commits.unreadable.push((id, reason)),
        }
        if waiting.len() >= PER_TRANSACTION {
            match record_some(context, queue, &mut waiting, None, &mut recorded) {
                Ok(()) => {}
                Err(error) => failed = Some(error),
            }
        }
        in_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
        in_time && failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    recorded.complete = in_time;
    record_some(context, queue, &mut waiting, in_time.then_some(&settled), &mut recorded)?;
    let mut named = HashSet::new();
    recorded.artifacts.retain(|id| named.insert(id.clone()));
    Ok(recorded)
}

fn record_some(
    context: &Context,
    queue: &mut Queue,
    waiting: &mut Vec<Changeset>,
    settled: Option<&Settled>,
    recorded: &mut Recorded,
) -> Result<(), queue::Error> {
    recorded.queued += queue.record(waiting, settled, &context.destination(), now())?;
    recorded.artifacts.extend(waiting.drain(..).flat_map(|changeset| changeset.artifacts));
    Ok(())
}

/// Returns the changeset of a commit that is to be posted; says in the log what could not be read.
///
/// # Errors
/// Why the commit cannot be read at all.
pub fn matching(context: &Context, id: CommitId, read: Result<Read, git::Error>) -> Result<Option<Changeset>, String> {
    match read {
        Ok(Read::Unmentioned) => Ok(None),
        Ok(Read::Matching(changeset)) => {
            if changeset.omitted > 0 {
                context
                    .log
                    .warn(&format!("commit {id}: {} changed paths beyond max_changes are left out", changeset.omitted));
            }
            Ok(Some(changeset))
        }
        Err(error) => {
            let reason = format!("it cannot be read and is not posted: {error}");
            context.log.error(&format!("commit {id}: {reason}"));
            Err(reason)
        }
    }
}

/// Returns the patterns of the refs on which messages change states, if they do at all.
fn state_refs(context: &Context, repository: &Repository) -> Option<Vec<String>> {
    let state = &context.config.state;
    let patterns = match state.refs.is_empty() {
        true => repository.head_branch().into_iter().collect(),
        false => state.refs.clone(),
    };
    state.update.then_some(patterns)
}
