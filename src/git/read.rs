//! From commits to [`Changeset`]s: what a commit says and which paths it changes.
//!
//! One commit is read by a [`Reader`]; many are read by several threads, each with its own handle of the
//! repository, and come out in the order in which they went in.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Error, Objects, Range, Repository, Walk, commit, tree_diff};
use crate::artifact::{FormattedId, Mentions};
use crate::changeset::{Changeset, StateRequest};
use crate::config::{Commits, Post};
use crate::push::{CommitId, Tip};

/// How many commits a thread takes at a time: enough that handing them over costs nothing.
const CHUNK: usize = 256;
/// Up to this many are read right here instead: threads would cost more than they save.
const FEW: usize = 64;
/// How many chunks may wait on either side of the threads; bounds the memory.
const CHUNKS_IN_FLIGHT: usize = 8;
/// More threads than that would need more memory than they are worth: each has its own handle and recent objects.
const MAX_WORKERS: usize = 4;
/// Trees may be nested deeply, see `MAX_DEPTH` in [`tree_diff`].
const STACK_SIZE: usize = 16 * 1024 * 1024;

/// A commit to read.
#[derive(Debug, Clone)]
pub struct Item {
    pub id: CommitId,
    /// The branch that it came by.
    pub branch: Option<Arc<str>>,
    /// The raw commit, where somebody has read it already.
    pub data: Option<Arc<[u8]>>,
}

/// What a commit holds.
#[derive(Debug)]
pub enum Read {
    /// It names no artifact.
    Unmentioned,
    Matching(Changeset),
}

/// Reads commits as the configuration says.
pub struct Reader<'c> {
    commits: &'c Commits,
    mentions: Mentions,
}

impl<'c> Reader<'c> {
    pub fn new(commits: &'c Commits) -> Self {
        Reader { commits, mentions: Mentions::new(&commits.prefixes, commits.ignore_case) }
    }

    /// Reads one commit. Its trees are read only if it is to be posted.
    pub(crate) fn read(&self, objects: &Objects, item: &Item) -> Result<Read, Error> {
        let read;
        let data: &[u8] = match &item.data {
            Some(data) => data,
            None => {
                read = objects.read_often(item.id)?.data;
                &read
            }
        };
        let raw = commit::parse(data).ok_or(Error::Damaged { id: item.id, kind: "commit" })?;
        let artifacts = self.artifacts(&raw, item.branch.as_deref());
        if artifacts.is_empty() && self.commits.post == Post::Linked {
            return Ok(Read::Unmentioned);
        }
        let (author_name, author_email) = raw.author();
        let mut changeset = Changeset {
            revision: item.id.to_string(),
            committed_at: raw.committed_at,
            author_name,
            author_email,
            branch: item.branch.as_deref().map(str::to_owned),
            message: raw.decode(raw.message).into_owned(),
            artifacts,
            changes: Vec::new(),
            omitted: 0,
        };
        // Without its changed paths it is not posted: nothing would ever complete it.
        let changes = self.changes(objects, &raw)?;
        changeset.changes = changes.list;
        changeset.omitted = changes.omitted;
        Ok(Read::Matching(changeset))
    }

    /// Returns what a commit's message asks for, if it names an artifact.
    pub(crate) fn state_request(&self, objects: &Objects, id: CommitId) -> Result<Option<StateRequest>, Error> {
        let object = objects.read_often(id)?;
        let raw = commit::parse(&object.data).ok_or(Error::Damaged { id, kind: "commit" })?;
        let artifacts = self.artifacts(&raw, None);
        let message = raw.decode(raw.message).into_owned();
        Ok((!artifacts.is_empty()).then(|| StateRequest { revision: id.to_string(), message, artifacts }))
    }

    fn artifacts(&self, raw: &commit::RawCommit, branch: Option<&str>) -> Vec<FormattedId> {
        // Bytes that are no text must not hide an ID next to them, so the message is searched as it is wherever
        // that is possible: in every encoding but those that use ASCII bytes for other letters.
        let mut artifacts = match raw.has_own_encoding() {
            true => self.mentions.find(raw.decode(raw.message).as_bytes()),
            false => self.mentions.find(raw.message),
        };
        if let Some(branch) = branch.filter(|_| self.commits.from_branch_name) {
            let named = self.mentions.find(branch.as_bytes());
            artifacts.extend(named.into_iter().filter(|id| !artifacts.contains(id)).collect::<Vec<_>>());
        }
        artifacts
    }

    fn changes(&self, objects: &Objects, raw: &commit::RawCommit) -> Result<tree_diff::Changes, Error> {
        let mut parent_trees = Vec::with_capacity(raw.parents.len());
        for &id in &raw.parents {
            // The parents of a shallow repository's boundary are not there. What such a commit changed is not
            // known; that it added all its files is certainly wrong.
            let Some(object) = super::if_there(objects.read_often(id))? else {
                return Ok(tree_diff::Changes::default());
            };
            let parent = commit::parse(&object.data).ok_or(Error::Damaged { id, kind: "commit" })?;
            parent_trees.push(parent.tree);
        }
        tree_diff::compare(objects, raw.tree, &parent_trees, self.commits.max_changes)
    }
}

type Chunk = Vec<Item>;
type Results = Vec<(CommitId, Result<Read, Error>)>;

/// Reads the commits that `feed` hands over, on all cores, and gives them to `sink` in the same order.
///
/// `feed` runs on a thread of its own with a repository handle of its own, so that walking goes on while commits
/// are read. The function that it is given returns false when no more are wanted: when `sink` returned false.
pub fn read_all<F, S>(git_dir: &Path, reader: &Reader, feed: F, mut sink: S) -> Result<(), Error>
where
    F: FnOnce(&Repository, &mut dyn FnMut(Item) -> bool) -> Result<(), Error> + Send,
    S: FnMut(CommitId, Result<Read, Error>) -> bool,
{
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (work_in, work_out) = sync_channel::<(Chunk, SyncSender<Results>)>(CHUNKS_IN_FLIGHT);
    let (order_in, order_out) = sync_channel::<Receiver<Results>>(CHUNKS_IN_FLIGHT);
    let work_out = Arc::new(Mutex::new(work_out));
    thread::scope(|scope| {
        let start_worker = || {
            // Only the workers hold it: when none is left, whoever waits for them to take or answer a chunk learns it.
            let work = Arc::clone(&work_out);
            let worker = thread::Builder::new().stack_size(STACK_SIZE);
            worker.spawn_scoped(scope, move || work_through(git_dir, reader, &work)).map_err(Error::Thread)
        };
        // One is enough where the host allows no more.
        let mut workers = vec![start_worker()?];
        workers.extend((1..cores.min(MAX_WORKERS)).map_while(|_| start_worker().ok()));
        drop(work_out);
        let feeder = thread::Builder::new()
            .spawn_scoped(scope, move || feed_chunks(git_dir, feed, &work_in, &order_in))
            .map_err(Error::Thread)?;
        let mut wanted = true;
        for results in order_out {
            // A chunk without an answer belongs to a worker that could not open the repository; it says why below.
            let Ok(results) = results.recv() else { break };
            wanted = results.into_iter().all(|(id, read)| sink(id, read));
            if !wanted {
                break;
            }
        }
        let fed = feeder.join().expect("the feeder does not panic");
        for worker in workers {
            worker.join().expect("a worker does not panic")?;
        }
        if wanted { fed } else { Ok(()) }
    })
}

fn feed_chunks<F>(
    git_dir: &Path,
    feed: F,
    work: &SyncSender<(Chunk, SyncSender<Results>)>,
    order: &SyncSender<Receiver<Results>>,
) -> Result<(), Error>
where
    F: FnOnce(&Repository, &mut dyn FnMut(Item) -> bool) -> Result<(), Error>,
{
    let repository = Repository::open(git_dir)?;
    let mut chunk = Chunk::with_capacity(CHUNK);
    let send = |chunk: &mut Chunk| {
        let (result_in, result_out) = sync_channel(1);
        order.send(result_out).is_ok() && work.send((std::mem::take(chunk), result_in)).is_ok()
    };
    let fed = feed(&repository, &mut |item| {
        chunk.push(item);
        chunk.len() < CHUNK || send(&mut chunk)
    });
    send(&mut chunk);
    fed
}

fn work_through(
    git_dir: &Path,
    reader: &Reader,
    work: &Mutex<Receiver<(Chunk, SyncSender<Results>)>>,
) -> Result<(), Error> {
    let repository = Repository::open(git_dir)?;
    let objects = repository.objects()?;
    loop {
        let next = work.lock().expect("no holder panics").recv();
        let Ok((chunk, answer)) = next else { return Ok(()) };
        objects.know(&chunk);
        let results = chunk.iter().map(|item| (item.id, reader.read(&objects, item))).collect();
        // Nobody waits for the answer any more once the sink has had enough.
        let _ = answer.send(results);
    }
}

/// Reads a list of commits: right here if they are few, as in most pushes, else with [`read_all`].
pub fn read_list<S>(
    git_dir: &Path,
    repository: &Repository,
    reader: &Reader,
    items: Vec<Item>,
    mut sink: S,
) -> Result<(), Error>
where
    S: FnMut(CommitId, Result<Read, Error>) -> bool,
{
    if items.len() > FEW {
        let feed = |_: &Repository, hand_over: &mut dyn FnMut(Item) -> bool| {
            let _ = items.into_iter().all(hand_over);
            Ok(())
        };
        return read_all(git_dir, reader, feed, sink);
    }
    let objects = repository.objects()?;
    let _ = items.iter().all(|item| sink(item.id, reader.read(&objects, item)));
    Ok(())
}

/// Reads the commits of a range, the youngest first.
pub fn read_range<S>(git_dir: &Path, reader: &Reader, range: &Range, sink: S) -> Result<(), Error>
where
    S: FnMut(CommitId, Result<Read, Error>) -> bool,
{
    let feed = |repository: &Repository, hand_over: &mut dyn FnMut(Item) -> bool| {
        let objects = repository.objects()?;
        let mut hand_over = |id, data| hand_over(Item { id, branch: None, data });
        let peel = |ids: &[CommitId]| ids.iter().filter_map(|&id| objects.peel(id).transpose()).collect::<Vec<_>>();
        let mut hidden = peel(&range.hidden).into_iter().collect::<Result<Vec<_>, _>>()?;
        // A tip that cannot be read, such as a broken ref among all, does not keep the others from being read.
        let (mut tips, mut broken) = (Vec::new(), None);
        for tip in peel(&range.tips) {
            match tip {
                Ok(tip) => tips.push(tip),
                Err(error) => drop(broken.get_or_insert(error)),
            }
        }
        hidden.sort_unstable_by(|a, b| b.cmp(a));
        let mut hidden = hidden.into_iter();
        let mut walk = Walk::new(&objects, &mut hidden);
        let is_young = |tip: &Tip| range.not_before.is_none_or(|time| tip.time >= time);
        if range.hidden.is_empty() {
            // Nothing can turn out to be hidden, so no commit has to wait for the end of the walk.
            let mut walk = walk.handing_on();
            tips.into_iter().try_for_each(|tip| walk.start(tip))?;
            while let Some(visited) = walk.next_new()?.filter(|visited| is_young(&visited.tip)) {
                if !hand_over(visited.tip.id, visited.data) {
                    break;
                }
            }
            return broken.map_or(Ok(()), Err);
        }
        let mut found = Vec::new();
        for tip in tips {
            found.extend(walk.new_commits(tip)?);
        }
        for id in found.into_iter().rev() {
            // With a time limit each commit is read once more; nobody waits for such a range.
            let wanted = range.not_before.is_none() || objects.peel(id)?.as_ref().is_some_and(is_young);
            if wanted && !hand_over(id, None) {
                break;
            }
        }
        broken.map_or(Ok(()), Err)
    };
    read_all(git_dir, reader, feed, sink)
}
