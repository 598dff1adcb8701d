//! Sends writes, with notes in the queue around them. The intent is noted first. If the process ends before the answer
//! comes, the next one reads the note and asks Rally for the outcome.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use super::decide::Stage;
use super::dispatch::{Done, Failure, Job, LARGEST_BATCH, dispatch};
use super::pass::{Pass, PassEntry};
use crate::queue::Writes;
use crate::rally::Error;
use crate::wsapi::{self, Verdict};

/// This many requests in a row that fail by the server's fault, with no success between, are taken for an outage:
/// there is no use in trying the rest.
const STRIKES: u32 = 5;

impl Pass<'_, '_> {
    /// Sends jobs. Before that the outcome of each entry is noted as unknown. Afterwards the old value is restored for
    /// entries whose writes were not sent or certainly had no effect.
    pub(super) fn send(
        &mut self,
        jobs: Vec<Job>,
        answered: fn(&mut Self, Vec<Done>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if jobs.is_empty() || self.halt.is_some() || (self.delivery.is_stopped)() {
            return Ok(());
        }
        let sent: BTreeSet<usize> = jobs.iter().map(|job| job.entry).collect();
        let before: Vec<(usize, Writes)> = sent.iter().map(|&index| (index, self.items[index].entry.writes)).collect();
        let (client, mut limits) = (&self.rally.client, self.delivery.pace.limits.clone());
        let largest = limits.batch.map_or(1, |_| jobs.len().min(LARGEST_BATCH));
        self.note_sent(sent.iter().copied().collect(), largest)?;
        let mut noted = self.now();
        let mut broken = None;
        let unsent = dispatch(client, &mut limits, jobs, |group| {
            if !group.is_empty() {
                self.count_strikes(&group);
                self.has_written |= group.iter().any(|done| done.result.is_ok());
                if let Err(error) = answered(self, group) {
                    broken = Some(error);
                }
            }
            if self.now().since(noted) > self.timeout() {
                noted = self.now();
                let waiting = sent.iter().copied().filter(|&index| self.is_under_way(index)).collect();
                broken = self.note_sent(waiting, largest).err().or(broken.take());
            }
            let ends = broken.is_some() || self.halt.is_some() || (self.delivery.is_stopped)();
            if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.delivery.pace.limits = limits;
        if let Some(error) = broken {
            return Err(error);
        }
        unsent.iter().for_each(|job| self.items[job.entry].stage = Stage::Left);
        let mut known = BTreeSet::new();
        for (index, before) in before {
            let PassEntry { entry, stage, unclear, .. } = &mut self.items[index];
            // What was not sent had no effect, and what was answered is noted.
            if !*unclear && *stage == Stage::Left {
                entry.writes = before;
                known.insert(index);
            }
        }
        self.save(&known)
    }

    /// Notes, before requests are sent, until when their outcome is unknown if this process ends without an answer. That
    /// is noted again after each time limit, so a request may be sent, and answered, up to two of them later.
    fn note_sent(&mut self, entries: BTreeSet<usize>, writes: usize) -> Result<(), Error> {
        let until = self.now() + self.delivery.config.rally.at_work(writes) + self.timeout() * 2;
        for &index in &entries {
            self.items[index].entry.writes = Writes::Unanswered { until };
        }
        self.save(&entries)
    }

    /// Tells whether a write of the entry is still to be sent or answered, as far as is known.
    fn is_under_way(&self, index: usize) -> bool {
        let PassEntry { entry, stage, unclear, .. } = &self.items[index];
        !unclear && matches!(stage, Stage::New | Stage::ToChange) && matches!(entry.writes, Writes::Unanswered { .. })
    }

    fn timeout(&self) -> Duration {
        self.delivery.config.rally.timeout
    }

    /// Notes until when a failed write may take effect unseen, unless it is clear that it did not. Of several the
    /// latest counts.
    pub(super) fn note_unclear(&mut self, index: usize, failure: &Failure) {
        let error = &failure.error;
        if error.is_without_effect() {
            return;
        }
        let until = self.delivery.config.rally.settles_at(error, failure.together, self.now());
        let item = &mut self.items[index];
        let until = match item.entry.writes {
            // What was noted before the request was sent is known better now.
            Writes::Unanswered { until: other } if item.unclear => until.max(other),
            _ => until,
        };
        (item.unclear, item.entry.writes) = (true, Writes::Unanswered { until });
    }

    /// Counts groups that failed as a whole, one after the other, by the server's fault.
    fn count_strikes(&mut self, group: &[Done]) {
        let is_by_server = |done: &Done| {
            let failure = done.result.as_ref().err();
            let is_own_fault = |failure: &Failure| {
                failure.together <= 1
                    && (matches!(failure.error, wsapi::Error::Rejected { .. }) || failure.verdict() == Verdict::Refused)
            };
            failure.is_some_and(|failure| !is_own_fault(failure))
        };
        self.strikes = if group.iter().all(is_by_server) { self.strikes + 1 } else { 0 };
        let last = group.last().and_then(|done| done.result.as_ref().err());
        if let Some(failure) = last.filter(|_| self.strikes >= STRIKES) {
            self.halt.get_or_insert(failure.error.clone());
        }
    }
}
