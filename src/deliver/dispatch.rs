//! Sends many writes over a few connections, in batches where the server takes them.
//!
//! Linking a Changeset writes to its artifacts too, so writes that name the same artifact are never under way at
//! the same time: they would only conflict. The size of a batch adapts to what the server bears.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::wsapi::{Client, Created, Error, Verdict, Write};

/// The size of the first batch. No limit is documented; Rally's own clients send more.
const FIRST_BATCH: usize = 25;
/// The largest batch. Rally ends a request after some minutes, and makes about ten objects a second at its worst.
const LARGEST_BATCH: usize = 100;

/// One write, for the row at place `row`.
#[derive(Debug)]
pub struct Job {
    pub row: usize,
    /// Which of the row's changes it makes; not used by other writes.
    pub change: usize,
    pub write: Write,
    /// What must not be written to by others at the same time.
    pub touches: Vec<String>,
    /// Whether it must not share a batch: it has failed in company, and shows alone what is wrong with it.
    pub alone: bool,
}

/// A job's end.
pub struct Done {
    pub job: Job,
    pub result: Result<Created, Error>,
}

/// How much is sent at once; lives as long as the process.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections: usize,
    /// `None` once the server is known to have no batch endpoint.
    pub batch: Option<usize>,
}

impl Limits {
    pub fn new(connections: usize, batch: bool) -> Self {
        Limits { connections, batch: batch.then_some(FIRST_BATCH) }
    }
}

struct Shared {
    waiting: VecDeque<Job>,
    /// What the writes under way touch.
    busy: HashSet<String>,
    /// How many groups have been sent and have no answer yet.
    under_way: usize,
    limits: Limits,
    stopped: bool,
}

/// Sends all jobs and hands each group's results to `sink`, which may stop it. Returns the jobs that were not sent.
pub fn dispatch<S>(client: &Client, limits: &mut Limits, jobs: Vec<Job>, mut sink: S) -> Vec<Job>
where
    S: FnMut(Vec<Done>) -> ControlFlow<()>,
{
    let connections = limits.connections.min(jobs.len());
    let shared =
        Shared { waiting: jobs.into(), busy: HashSet::new(), under_way: 0, limits: limits.clone(), stopped: false };
    let shared = (Mutex::new(shared), Condvar::new());
    let (done_in, done_out) = channel();
    thread::scope(|scope| {
        let start = |_: &usize| {
            let (done, shared) = (done_in.clone(), &shared);
            thread::Builder::new().spawn_scoped(scope, move || send_groups(client, shared, &done)).is_ok()
        };
        // Fewer will do where the host allows no more.
        let started = (0..connections).filter(start).count();
        assert!(started > 0 || connections == 0, "the system lets this user start no thread to post with");
        drop(done_in);
        for group in done_out {
            if sink(group).is_break() {
                shared.0.lock().expect("no holder panics").stopped = true;
                shared.1.notify_all();
            }
        }
    });
    let shared = shared.0.into_inner().expect("no holder panicked");
    *limits = shared.limits;
    shared.waiting.into()
}

fn send_groups(client: &Client, (shared, changed): &(Mutex<Shared>, Condvar), done: &Sender<Vec<Done>>) {
    let lock = || shared.lock().expect("no holder panics");
    loop {
        let mut state = lock();
        let group = loop {
            // What is under way may come back, if its batch was too large.
            if state.stopped || state.waiting.is_empty() && state.under_way == 0 {
                return;
            }
            let group = state.take_group();
            if !group.is_empty() {
                break group;
            }
            state = changed.wait(state).expect("no holder panics");
        };
        drop(state);
        let outcome = send(client, &group);
        let results = lock().take_back(group, outcome);
        changed.notify_all();
        if !results.is_empty() && done.send(results).is_err() {
            return;
        }
    }
}

fn send(client: &Client, group: &[Job]) -> Result<Vec<Result<Created, Error>>, Error> {
    match group {
        [job] => Ok(vec![client.write(&job.write)]),
        group => {
            let writes: Vec<&Write> = group.iter().map(|job| &job.write).collect();
            client.batch(&writes)
        }
    }
}

impl Shared {
    /// Takes the next jobs that nothing under way is in the way of, and marks what they touch as busy.
    fn take_group(&mut self) -> Vec<Job> {
        // All connections get something to do before any gets a large batch; a small one is not worth splitting.
        let fair_share = self.waiting.len().div_ceil(self.limits.connections).max(FIRST_BATCH);
        let size = self.limits.batch.unwrap_or(1).min(fair_share);
        let mut group = Vec::new();
        let mut passed_over = VecDeque::new();
        while group.len() < size
            && let Some(job) = self.waiting.pop_front()
        {
            let blocked = job.touches.iter().any(|key| self.busy.contains(key)) || job.alone && !group.is_empty();
            if blocked {
                passed_over.push_back(job);
                continue;
            }
            let alone = job.alone;
            group.push(job);
            if alone {
                break;
            }
        }
        passed_over.append(&mut self.waiting);
        self.waiting = passed_over;
        self.busy.extend(group.iter().flat_map(|job| job.touches.iter().cloned()));
        self.under_way += usize::from(!group.is_empty());
        group
    }

    /// Takes in a group's outcome: adapts the limits, puts back what can be sent another way at once, and returns the
    /// rest with its results.
    fn take_back(&mut self, group: Vec<Job>, outcome: Result<Vec<Result<Created, Error>>, Error>) -> Vec<Done> {
        self.under_way -= 1;
        for key in group.iter().flat_map(|job| &job.touches) {
            self.busy.remove(key);
        }
        let error = match outcome {
            Ok(results) => {
                if group.len() > 1 && results.iter().all(Result::is_ok) {
                    self.limits.batch = self.limits.batch.map(|size| (size * 2).min(LARGEST_BATCH));
                }
                return group.into_iter().zip(results).map(|(job, result)| Done { job, result }).collect();
            }
            Err(error) => error,
        };
        if error.is_about_batch_itself() {
            self.limits.batch = None;
        } else if matches!(error.verdict(), Verdict::TooLarge | Verdict::Retry | Verdict::Reject) {
            self.limits.batch = self.limits.batch.map(|size| (size.min(group.len()) / 2).max(1));
        }
        let another_way = self.limits.batch.is_none() || error.verdict() == Verdict::TooLarge;
        if another_way && error.is_without_effect() {
            group.into_iter().rev().for_each(|job| self.waiting.push_front(job));
            return Vec::new();
        }
        let failed = |job| Done { job, result: Err(Error::Batch(Box::new(error.clone()))) };
        group.into_iter().map(failed).collect()
    }
}
