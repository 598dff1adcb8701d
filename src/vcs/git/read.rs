//! Reads commits and hands them to somebody's work: a few right here, many on several threads, each with its own
//! handle of the repository. Results come out in the order in which the commits went in.

use std::cell::Cell;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::commit::RawCommit;
use super::id::ObjectId;
use super::objects::{Objects, parse_commit};
use super::{Error, Repository, tree_diff};
use crate::clock::Deadline;
use crate::commit::Changes;
use crate::vcs::{Sink, Work};

/// How many commits a thread takes at a time: enough that handing them over costs nothing.
const CHUNK: usize = 256;
/// Up to this many are read right here instead: threads would cost more than they save.
const FEW: usize = 64;
/// How many chunks may wait on either side of the threads; bounds the memory.
const CHUNKS_IN_FLIGHT: usize = 8;
/// How much text of paths a portion of a chunk's results holds before it is handed on, in bytes.
const PORTION_SIZE: usize = 4 * 1024 * 1024;
/// More threads than that would need more memory than they are worth: each has its own handle and recent objects.
const MAX_WORKERS: usize = 4;
/// Trees may be nested deeply, see [`tree_diff::MAX_DEPTH`].
pub(super) const STACK_SIZE: usize = 16 * 1024 * 1024;

/// A commit to read.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    id: ObjectId,
    branch: Option<Arc<str>>,
    /// The raw commit, where somebody has read it already.
    data: Option<Arc<[u8]>>,
}

impl Item {
    pub(crate) fn new(id: ObjectId, branch: Option<Arc<str>>) -> Self {
        Item { id, branch, data: None }
    }

    pub(crate) fn with_data(id: ObjectId, data: Option<Arc<[u8]>>) -> Self {
        Item { id, branch: None, data }
    }

    /// Returns the commit of this revision, if the text is one.
    pub(crate) fn of_revision(revision: &str) -> Option<Self> {
        revision.parse().ok().map(|id| Item::new(id, None))
    }
}

impl Repository {
    /// Reads these commits. An error is about the reading of them all; one commit's error goes to `sink`:
    /// [`Error::OutOfTime`] if the deadline passes while it is read.
    pub(crate) fn read<T: Send>(
        &self,
        items: Vec<Item>,
        deadline: Option<Deadline>,
        work: Work<T>,
        sink: Sink<T>,
    ) -> Result<(), Error> {
        if items.len() > FEW {
            let feed = |_: &Objects, hand_over: &mut dyn FnMut(Item) -> bool| {
                let _ = items.into_iter().all(hand_over);
                Ok(())
            };
            return self.read_all(deadline, work, feed, sink);
        }
        let reader = Reader { objects: &self.objects, deadline, work };
        let _ = items.iter().all(|item| sink(&item.id, reader.read(item, &Cell::new(0))));
        Ok(())
    }

    /// Reads the commits that `feed` hands over, on all cores.
    ///
    /// `feed` runs on a thread of its own with a handle of its own, so that walking goes on while commits are
    /// read. The function that it is given returns false when no more are wanted: when `sink` returned false.
    pub(crate) fn read_all<T, F>(
        &self,
        deadline: Option<Deadline>,
        work: Work<T>,
        feed: F,
        sink: Sink<T>,
    ) -> Result<(), Error>
    where
        T: Send,
        F: FnOnce(&Objects, &mut dyn FnMut(Item) -> bool) -> Result<(), Error> + Send,
    {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (jobs_in, jobs_out) = sync_channel::<Job<T>>(CHUNKS_IN_FLIGHT);
        let (order_in, order_out) = sync_channel::<Receiver<Results<T>>>(CHUNKS_IN_FLIGHT);
        let jobs_out = Arc::new(Mutex::new(jobs_out));
        thread::scope(|scope| {
            let start_worker = || {
                let objects = self.more_objects()?;
                // Only the workers hold it: when none is left, whoever waits for them to take or answer a chunk learns it.
                let jobs = Arc::clone(&jobs_out);
                let worker = thread::Builder::new().stack_size(STACK_SIZE);
                worker
                    .spawn_scoped(scope, move || Reader { objects: &objects, deadline, work }.work_through(&jobs))
                    .map_err(Error::Thread)
            };
            // One is enough where the host allows no more.
            let mut workers = vec![start_worker()?];
            workers.extend((1..cores.min(MAX_WORKERS)).map_while(|_| start_worker().ok()));
            drop(jobs_out);
            let objects = self.more_objects()?;
            let feeder = thread::Builder::new()
                .spawn_scoped(scope, move || feed_chunks(&objects, feed, &jobs_in, &order_in))
                .map_err(Error::Thread)?;
            // A worker that failed has answered less than it was given.
            let mut results = order_out.into_iter().flat_map(|chunk| chunk.into_iter().flatten());
            let wanted = results.all(|(id, read)| sink(&id as &dyn fmt::Display, read));
            drop(results);
            let fed = feeder.join().expect("the feeder does not panic");
            for worker in workers {
                worker.join().expect("a worker does not panic");
            }
            if wanted { fed } else { Ok(()) }
        })
    }
}

/// Reads one commit after the other, on one thread.
struct Reader<'r, T> {
    objects: &'r Objects,
    deadline: Option<Deadline>,
    work: Work<'r, T>,
}

impl<T> Reader<'_, T> {
    /// Reads a commit and adds the size of its paths.
    fn read(&self, item: &Item, size: &Cell<usize>) -> Result<T, Error> {
        let data = match &item.data {
            Some(data) => Arc::clone(data),
            None => self.objects.read_commit(item.id)?,
        };
        let raw = parse_commit(item.id, &data)?;
        (self.work)(&raw.commit(&item.id, item.branch.as_ref()), &|limit| {
            let changes = self.changes(item.id, &raw, limit)?;
            size.set(size.get() + changes.list.iter().map(|change| change.path.len()).sum::<usize>());
            Ok(changes)
        })
    }

    fn changes(&self, id: ObjectId, raw: &RawCommit, limit: usize) -> Result<Changes, Error> {
        let objects = self.objects;
        if objects.is_shallow(id) {
            // What such a commit changed is not known; that it added all its files is certainly wrong.
            return Ok(Changes::default());
        }
        let tree = |id: &ObjectId| match self.deadline.is_some_and(Deadline::has_passed) {
            true => Err(Error::OutOfTime),
            false => Ok(parse_commit(*id, &objects.read_commit(*id)?)?.tree),
        };
        let parent_trees = raw.parents.iter().map(tree).collect::<Result<Vec<_>, Error>>()?;
        tree_diff::compare(objects, raw.tree, &parent_trees, limit, self.deadline)
    }

    /// Takes chunks until there are none. What one commit brings may be large, so the answer comes in portions, and
    /// waits until those before it are taken.
    fn work_through(&self, jobs: &Mutex<Receiver<Job<T>>>) {
        loop {
            let next = jobs.lock().expect("no holder panics").recv();
            let Ok((chunk, answer)) = next else { return };
            // The parents of some are others of them.
            for (id, data) in chunk.iter().filter_map(|item| Some((item.id, item.data.clone()?))) {
                self.objects.keep_commit(id, data);
            }
            let (mut portion, size) = (Results::new(), Cell::new(0));
            for item in &chunk {
                portion.push((item.id, self.read(item, &size)));
                // Nobody waits for the answer any more once the sink has had enough.
                if size.get() > PORTION_SIZE {
                    size.set(0);
                    if answer.send(std::mem::take(&mut portion)).is_err() {
                        break;
                    }
                }
            }
            let _ = answer.send(portion);
        }
    }
}

type Chunk = Vec<Item>;
type Results<T> = Vec<(ObjectId, Result<T, Error>)>;
type Job<T> = (Chunk, SyncSender<Results<T>>);

fn feed_chunks<T, F>(
    objects: &Objects,
    feed: F,
    jobs: &SyncSender<Job<T>>,
    order: &SyncSender<Receiver<Results<T>>>,
) -> Result<(), Error>
where
    F: FnOnce(&Objects, &mut dyn FnMut(Item) -> bool) -> Result<(), Error>,
{
    let mut chunk = Chunk::with_capacity(CHUNK);
    let send = |chunk: &mut Chunk| {
        let (result_in, result_out) = sync_channel(1);
        order.send(result_out).is_ok() && jobs.send((std::mem::take(chunk), result_in)).is_ok()
    };
    let fed = feed(objects, &mut |item| {
        chunk.push(item);
        chunk.len() < CHUNK || send(&mut chunk)
    });
    send(&mut chunk);
    fed
}
