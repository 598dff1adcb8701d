//! Sends many writes over a few connections, in batches where the server takes them.
//!
//! Linking a Changeset writes to its artifacts too, and a Change to its Changeset, so writes that name the same object are
//! never under way in two requests: they would only conflict. The size of a batch adapts to what the server bears.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::wsapi::{Client, Created, Error, Verdict, Write};

/// The size of the first batch. No limit is documented; Rally's own clients send more.
const FIRST_BATCH: usize = 25;
/// The largest batch. Rally ends a request after some minutes, and makes about ten objects a second at its worst.
pub(super) const LARGEST_BATCH: usize = 100;

/// One write, for the entry at place `entry`.
#[derive(Debug)]
pub(super) struct Job {
    pub entry: usize,
    /// Which of the entry's changes it makes; not used by other writes.
    pub change: usize,
    pub write: Write,
    /// What must not be written to by others at the same time.
    pub touches: Vec<String>,
    /// How many attempts of its entry have failed. The more, the smaller its batch: alone it shows what is wrong with it.
    pub failed: u32,
}

/// A job's end.
pub(super) struct Done {
    pub job: Job,
    pub result: Result<Created, Failure>,
}

/// Why a job failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub error: Error,
    /// How many writes failed together, as one batch.
    pub together: usize,
}

impl Failure {
    pub(super) fn verdict(&self) -> Verdict {
        match self.error.verdict() {
            // One bad entry may have failed them all.
            Verdict::Reject | Verdict::Missing | Verdict::Refused if self.together > 1 => Verdict::Retry,
            verdict => verdict,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.together {
            1 => self.error.fmt(f),
            together => write!(f, "a batch of {together} failed: {}", self.error),
        }
    }
}

/// How much is sent at once; lives as long as the process.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub connections: usize,
    /// `None` once the server is known to have no batch endpoint.
    pub batch: Option<usize>,
}

impl Limits {
    pub(super) fn new(connections: usize, batch: bool) -> Self {
        Limits { connections, batch: batch.then_some(FIRST_BATCH) }
    }
}

/// What is still to be sent, and what is under way.
struct Schedule {
    waiting: VecDeque<Job>,
    /// What the writes under way touch.
    busy: HashSet<String>,
    /// How many groups have been sent and have no answer yet.
    under_way: usize,
    limits: Limits,
    stopped: bool,
}

/// Sends all jobs and hands each group's results to `sink`, which may stop it. Returns the jobs that were not sent.
///
/// Requests may wait long for a permit, so `sink` is called from time to time without results too.
pub(super) fn dispatch<S>(client: &Client, limits: &mut Limits, jobs: Vec<Job>, mut sink: S) -> Vec<Job>
where
    S: FnMut(Vec<Done>) -> ControlFlow<()>,
{
    let connections = limits.connections.min(jobs.len());
    let shared =
        Schedule { waiting: jobs.into(), busy: HashSet::new(), under_way: 0, limits: limits.clone(), stopped: false };
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
        loop {
            let group = match done_out.recv_timeout(client.timeout() / 2) {
                Ok(group) => group,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
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

fn send_groups(client: &Client, (shared, changed): &(Mutex<Schedule>, Condvar), done: &Sender<Vec<Done>>) {
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

impl Schedule {
    /// Takes the next jobs that nothing under way is in the way of, and marks what they touch as busy.
    fn take_group(&mut self) -> Vec<Job> {
        // All connections get something to do before any gets a large batch; a small one is not worth splitting.
        let fair_share = self.waiting.len().div_ceil(self.limits.connections).max(FIRST_BATCH);
        let batch = self.limits.batch.unwrap_or(1);
        let mut size = batch.min(fair_share);
        let mut group = Vec::new();
        let mut passed_over = VecDeque::new();
        while group.len() < size
            && let Some(job) = self.waiting.pop_front()
        {
            let own_size = batch.checked_shr(2 * job.failed).unwrap_or(0).max(1);
            if group.len() >= own_size || job.touches.iter().any(|key| self.busy.contains(key)) {
                passed_over.push_back(job);
            } else {
                size = size.min(own_size);
                group.push(job);
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
                let done = |(job, result): (Job, Result<_, _>)| Done {
                    job,
                    result: result.map_err(|error| Failure { error, together: 1 }),
                };
                return group.into_iter().zip(results).map(done).collect();
            }
            Err(error) => error,
        };
        if error.is_about_batch_itself() {
            self.limits.batch = None;
        } else if matches!(error.verdict(), Verdict::TooLarge | Verdict::Retry | Verdict::Reject) {
            self.limits.batch = self.limits.batch.map(|size| (size.min(group.len()) / 2).max(1));
        }
        // What one of them names may be refused to all. Sent with fewer, and in the end alone, it shows itself.
        let is_refused = error.verdict() == Verdict::Refused && group.len() > 1;
        let another_way = self.limits.batch.is_none() || error.verdict() == Verdict::TooLarge || is_refused;
        if another_way && error.is_without_effect() {
            for job in group.into_iter().rev() {
                self.waiting.push_front(Job { failed: job.failed + u32::from(is_refused), ..job });
            }
            return Vec::new();
        }
        let failure = Failure { error, together: group.len() };
        group.into_iter().map(|job| Done { job, result: Err(failure.clone()) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(entry: usize, touches: &[&str], failed: u32) -> Job {
        let write = Write { path: "/changeset/create".into(), body: serde_json::Value::Null };
        Job { entry, change: 0, write, touches: touches.iter().map(|key| (*key).to_owned()).collect(), failed }
    }

    fn schedule(jobs: Vec<Job>, connections: usize, batch: Option<usize>) -> Schedule {
        let limits = Limits { connections, batch };
        Schedule { waiting: jobs.into(), busy: HashSet::new(), under_way: 0, limits, stopped: false }
    }

    fn entries(group: &[Job]) -> Vec<usize> {
        group.iter().map(|job| job.entry).collect()
    }

    fn status(code: u16) -> Error {
        Error::Status { request: String::new(), code, retry_after: None, excerpt: String::new() }
    }

    fn all_created(group: &[Job]) -> Result<Vec<Result<Created, Error>>, Error> {
        let created = |job: &Job| Ok(Created { rally_ref: format!("/changeset/{}", job.entry), warnings: Vec::new() });
        Ok(group.iter().map(created).collect())
    }

    #[test]
    fn jobs_that_touch_the_same_artifact_are_not_under_way_side_by_side() {
        let jobs = vec![job(0, &["US1"], 0), job(1, &["US1"], 0), job(2, &["US2"], 0)];
        let mut schedule = schedule(jobs, 8, None);
        let first = schedule.take_group();
        assert_eq!(entries(&first), [0]);
        assert_eq!(entries(&schedule.take_group()), [2]);
        assert!(schedule.take_group().is_empty());
        let outcome = all_created(&first);
        schedule.take_back(first, outcome);
        assert_eq!(entries(&schedule.take_group()), [1]);
    }

    #[test]
    fn jobs_that_touch_the_same_artifact_may_share_a_batch() {
        let mut schedule = schedule(vec![job(0, &["US1"], 0), job(1, &["US1"], 0)], 1, Some(25));
        assert_eq!(entries(&schedule.take_group()), [0, 1]);
    }

    #[test]
    fn a_job_that_failed_shares_its_batch_with_fewer_and_in_the_end_with_none() {
        let jobs = |failed| (0..30).map(|entry| job(entry, &[], failed)).collect();
        let size = |failed| schedule(jobs(failed), 1, Some(25)).take_group().len();
        assert_eq!([0, 1, 2, 40].map(size), [25, 6, 1, 1]);
        // The others do not wait for it.
        let mut mixed = schedule(vec![job(0, &[], 0), job(1, &[], 2), job(2, &[], 0)], 1, Some(25));
        assert_eq!(entries(&mixed.take_group()), [0, 2]);
        assert_eq!(entries(&mixed.take_group()), [1]);
    }

    #[test]
    fn batches_grow_while_all_goes_well_and_shrink_when_one_fails() {
        let mut schedule = schedule((0..200).map(|entry| job(entry, &[], 0)).collect(), 1, Some(FIRST_BATCH));
        let group = schedule.take_group();
        let outcome = all_created(&group);
        assert_eq!(schedule.take_back(group, outcome).len(), 25);
        assert_eq!(schedule.limits.batch, Some(50));
        let group = schedule.take_group();
        let done = schedule.take_back(group, Err(status(502)));
        assert!(done.len() == 50 && done.iter().all(|done| done.result.is_err()));
        assert_eq!(schedule.limits.batch, Some(25));
    }

    #[test]
    fn a_batch_that_was_refused_for_its_size_is_sent_again_in_parts() {
        let mut schedule = schedule((0..4).map(|entry| job(entry, &[], 0)).collect(), 1, Some(4));
        let group = schedule.take_group();
        assert!(schedule.take_back(group, Err(status(413))).is_empty());
        assert_eq!(entries(&schedule.take_group()), [0, 1]);
    }

    #[test]
    fn a_batch_that_is_refused_is_split_until_the_culprit_stands_alone() {
        let mut schedule = schedule((0..11).map(|entry| job(entry, &[], 0)).collect(), 1, Some(25));
        let (mut refused, mut requests) = (Vec::new(), 0);
        while !schedule.waiting.is_empty() {
            let group = schedule.take_group();
            requests += 1;
            let outcome = if entries(&group).contains(&7) { Err(status(403)) } else { all_created(&group) };
            let done = schedule.take_back(group, outcome);
            refused.extend(done.into_iter().filter(|done| done.result.is_err()).map(|done| done.job.entry));
        }
        assert_eq!(refused, [7]);
        assert!(requests < 11, "{requests} requests");
        assert!(schedule.limits.batch >= Some(25), "the server bears batches");
    }

    #[test]
    fn without_a_batch_endpoint_each_job_is_sent_alone() {
        let mut schedule = schedule((0..4).map(|entry| job(entry, &[], 0)).collect(), 1, Some(4));
        let group = schedule.take_group();
        assert!(schedule.take_back(group, Err(status(404))).is_empty());
        assert_eq!((schedule.limits.batch, entries(&schedule.take_group())), (None, vec![0]));
    }

    #[test]
    fn a_refusal_counts_against_a_job_only_if_it_was_sent_alone() {
        let refused = Error::Rejected { request: String::new(), texts: vec!["Validation error".into()] };
        assert_eq!(Failure { error: refused.clone(), together: 2 }.verdict(), Verdict::Retry);
        assert_eq!(Failure { error: refused, together: 1 }.verdict(), Verdict::Reject);
        assert_eq!(Failure { error: status(401), together: 2 }.verdict(), Verdict::Stop);
    }
}
