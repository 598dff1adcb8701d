//! One pass over what is due: ask Rally what it has, make what is missing, note what became of it.
//!
//! Each step notes its outcome before the next begins, so a pass may be cut off anywhere:
//!
//! ```text
//! not made ──create──► unknown ──answer──► made ──its Changes──► unknown ──answers──► receipt
//! ```
//!
//! Where an outcome is unknown the next pass asks Rally, and believes a "no" only once the write can no longer be
//! under way or hidden by a read replica that lags. What follows from an answer is decided in [`super::decide`].

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::decide::{self, Choice, Fate, Stage};
use super::dispatch::{Done, Failure, Job};
use super::{Delivery, Event};
use crate::artifact::FormattedId;
use crate::backoff::random;
use crate::changeset::Changeset;
use crate::queue::{Attempts, Entry, Outcome, UNKNOWN_AUTHORS, Writes};
use crate::rally::{Artifact, Author, Error, Rally, posted_path};
use crate::time::Time;
use crate::wsapi::{self, Verdict};

/// A changeset of the pass.
pub(super) struct PassEntry {
    pub(super) entry: Entry,
    pub(super) stage: Stage,
    /// Whether a write has failed that may have taken effect.
    pub(super) unclear: bool,
    /// Whether Rally knows no user who is its author.
    author_unknown: bool,
}

/// Does what can be done for these entries.
///
/// # Errors
/// If Rally cannot be used, now or before somebody acts. What was done until then is noted.
pub(super) fn run(delivery: &mut Delivery, rally: &Rally, entries: Vec<Entry>) -> Result<(), Error> {
    let item = |entry| PassEntry { entry, stage: Stage::New, unclear: false, author_unknown: false };
    let items = entries.into_iter().map(item).collect();
    let mut pass = Pass {
        delivery,
        rally,
        items,
        artifacts: HashMap::new(),
        strikes: 0,
        has_written: false,
        refused: Vec::new(),
        halt: None,
    };
    let steps = [
        Pass::look_up,
        Pass::create_changesets,
        Pass::find_missing_changes,
        Pass::create_changes,
        Pass::write_receipts,
        Pass::settle_refused,
    ];
    for step in steps {
        step(&mut pass)?;
        if let Some(error) = pass.halt {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Returns how many failures count against an entry when it shares a batch. Conflicts are with others.
fn blamed(attempts: &Attempts) -> u32 {
    if attempts.last_error.as_deref().is_some_and(wsapi::is_conflict) { 0 } else { attempts.failed }
}

pub(super) struct Pass<'p, 'd> {
    pub(super) delivery: &'p mut Delivery<'d>,
    pub(super) rally: &'p Rally<'p>,
    pub(super) items: Vec<PassEntry>,
    pub(super) artifacts: HashMap<FormattedId, Artifact>,
    /// Requests in a row that failed by the server's fault.
    pub(super) strikes: u32,
    /// Whether a write has succeeded.
    pub(super) has_written: bool,
    /// The entries one of whose writes was refused to this user when it was sent alone, each with the reason.
    pub(super) refused: Vec<(usize, wsapi::Error)>,
    /// Why nothing more is sent.
    pub(super) halt: Option<wsapi::Error>,
}

impl Pass<'_, '_> {
    pub(super) fn now(&self) -> Time {
        (self.delivery.now)()
    }

    /// Returns how far reads may lag behind writes.
    fn lag(&self) -> Duration {
        self.delivery.config.rally.read_lag
    }

    /// Finds out what Rally has: the artifacts, and the Changesets that are not known yet.
    fn look_up(&mut self) -> Result<(), Error> {
        let now = self.now();
        let (queue, rally) = (&mut *self.delivery.queue, self.rally);
        let unmade = self.items.iter().filter(|item| item.entry.rally_ref.is_none());
        let revisions: Vec<String> = unmade.map(|item| item.entry.changeset.revision.clone()).collect();
        let (there, refused_revisions) = match rally.repository(queue, now)? {
            Some(repository) => rally.changesets(&repository, &revisions)?,
            None => Default::default(),
        };
        let ids = self.items.iter().flat_map(|item| &item.entry.changeset.artifacts);
        let artifacts = rally.artifacts(queue, ids, now)?;
        self.artifacts = artifacts.found;
        let mut found = BTreeSet::new();
        for (index, item) in self.items.iter_mut().enumerate() {
            if let (None, Some(rally_ref)) = (&item.entry.rally_ref, there.get(&item.entry.changeset.revision)) {
                decide::note_found(&mut item.entry, rally_ref);
                found.insert(index);
            }
            item.stage = decide::stage(&item.entry);
        }
        self.save(&found)?;
        for (revision, error) in refused_revisions {
            self.put_off_unanswered(|entry| entry.changeset.revision == revision, &error)?;
        }
        for (id, error) in artifacts.refused {
            self.put_off_unanswered(|entry| entry.changeset.artifacts.contains(&id), &error)?;
        }
        Ok(())
    }

    /// Puts off what a question was about that Rally gave no answer for.
    fn put_off_unanswered(&mut self, is_about: impl Fn(&Entry) -> bool, error: &wsapi::Error) -> Result<(), Error> {
        let is_concerned = |item: &PassEntry| item.stage != Stage::Left && is_about(&item.entry);
        let concerned: BTreeSet<usize> =
            (0..self.items.len()).filter(|&index| is_concerned(&self.items[index])).collect();
        for &index in &concerned {
            self.items[index].stage = Stage::Left;
            self.count_attempt(index, Verdict::Retry, error, &error.to_string());
        }
        self.save(&concerned)
    }

    /// Returns the indexes of the entries that stand here.
    fn at_stage(&self, stage: Stage) -> Vec<usize> {
        (0..self.items.len()).filter(|&index| self.items[index].stage == stage).collect()
    }

    fn create_changesets(&mut self) -> Result<(), Error> {
        let to_create = self.choose_new()?;
        if to_create.is_empty() {
            return Ok(());
        }
        let (queue, rally, now) = (&mut *self.delivery.queue, self.rally, self.delivery.now);
        let repository = rally.ensure_repository(queue, now)?;
        let commits: Vec<_> = to_create.iter().map(|&index| &self.items[index].entry.changeset).collect();
        let (authors, refusal) = rally.authors(queue, &commits, now())?;
        if let Some(error) = &refusal {
            (self.delivery.observe)(&Event::AuthorsRefused { error: &error.to_string() });
        }
        let mut jobs = Vec::new();
        for (&index, author) in to_create.iter().zip(&authors) {
            self.items[index].author_unknown = *author == Author::Unknown;
            let entry = &self.items[index].entry;
            let mut known = Vec::new();
            for id in entry.changeset.artifacts.iter().filter(|id| self.artifacts.contains_key(id)) {
                if !rally.is_left_out(queue, &entry.changeset.revision, id, now())? {
                    known.push(id);
                }
            }
            let refs: Vec<&str> = known.iter().map(|id| self.artifacts[*id].rally_ref.as_str()).collect();
            let write = rally.changeset_write(&entry.changeset, &repository, author.user(), &refs);
            let touches = known.iter().map(|id| id.to_string()).collect();
            jobs.push(Job { entry: index, change: 0, write, touches, failed: blamed(&entry.attempts) });
        }
        self.send(jobs, Self::changesets_answered)
    }

    /// Returns the changesets to create now; settles those that are not.
    fn choose_new(&mut self) -> Result<Vec<usize>, Error> {
        let (post, now, lag) = (self.delivery.config.commits.post, self.now(), self.lag());
        let (mut chosen, mut unlinked, mut early) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, item) in self.items.iter_mut().enumerate().filter(|(_, item)| item.stage == Stage::New) {
            let Entry { changeset, .. } = &item.entry;
            let missing: Vec<&FormattedId> =
                changeset.artifacts.iter().filter(|id| !self.artifacts.contains_key(id)).collect();
            let names: Vec<String> = missing.iter().map(|id| id.to_string()).collect();
            let (revision, missing_names) = (changeset.revision.as_str(), names.as_slice());
            match decide::choose(&item.entry, &missing, post, now, lag) {
                Choice::Create => {
                    if !names.is_empty() {
                        (self.delivery.observe)(&Event::ArtifactsMissing { revision, missing: missing_names });
                    }
                    chosen.push(index);
                }
                Choice::LeaveUnlinked => {
                    (self.delivery.observe)(&Event::Unlinked { revision, missing: missing_names });
                    unlinked.push(index);
                    item.stage = Stage::Left;
                }
                Choice::WaitUntil(until) => {
                    item.entry.writes = Writes::Unanswered { until };
                    item.entry.attempts.next = until;
                    early.insert(index);
                    item.stage = Stage::Left;
                }
            }
        }
        self.finish(&unlinked, |_| Outcome::Unlinked)?;
        self.save(&early)?;
        Ok(chosen)
    }

    fn changesets_answered(&mut self, group: Vec<Done>) -> Result<(), Error> {
        let touched: BTreeSet<usize> = group.iter().map(|done| done.job.entry).collect();
        let mut unknown_authors = 0;
        for done in group {
            let index = done.job.entry;
            match done.result {
                Ok(created) => {
                    let item = &mut self.items[index];
                    item.entry.rally_ref = Some(created.rally_ref);
                    item.entry.writes = Writes::Answered;
                    item.stage = decide::stage(&item.entry);
                    if item.author_unknown {
                        unknown_authors += 1;
                        (self.delivery.observe)(&Event::AuthorUnknown { commit: &item.entry.changeset });
                    }
                }
                Err(failure) => self.failed(index, &failure)?,
            }
        }
        self.save(&touched)?;
        if unknown_authors > 0 {
            self.delivery.queue.count(UNKNOWN_AUTHORS, unknown_authors)?;
        }
        Ok(())
    }

    /// Asks which Changes there are of the Changesets that are not known yet.
    fn find_missing_changes(&mut self) -> Result<(), Error> {
        let to_complete = self.at_stage(Stage::ToComplete);
        let refs: Vec<String> =
            to_complete.iter().filter_map(|&index| self.items[index].entry.rally_ref.clone()).collect();
        let (there, refused) = self.rally.changes_of(&refs)?;
        for (rally_ref, error) in refused {
            self.put_off_unanswered(|entry| entry.rally_ref.as_ref() == Some(&rally_ref), &error)?;
        }
        let (now, lag) = (self.now(), self.lag());
        let mut early = BTreeSet::new();
        for index in to_complete {
            let item = &mut self.items[index];
            if item.stage == Stage::Left {
                continue;
            }
            let there = item.entry.rally_ref.as_ref().and_then(|rally_ref| there.get(rally_ref));
            let mut paths: Vec<&str> = there.into_iter().flatten().map(String::as_str).collect();
            paths.sort_unstable();
            let is_there = |path: &str| paths.binary_search(&posted_path(path)).is_ok();
            item.stage = decide::complete(&mut item.entry, is_there, now, lag).unwrap_or_else(|until| {
                item.entry.attempts.next = until;
                early.insert(index);
                Stage::Left
            });
        }
        self.save(&early)
    }

    fn create_changes(&mut self) -> Result<(), Error> {
        let mut jobs = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let (Stage::ToChange, Some(rally_ref)) = (item.stage, &item.entry.rally_ref) else { continue };
            let Entry { changeset, attempts, .. } = &item.entry;
            if item.entry.existed {
                (self.delivery.observe)(&Event::Completing { revision: &changeset.revision });
            }
            jobs.extend(decide::missing(&item.entry).map(|change| {
                let write = self.rally.change_write(changeset, change, rally_ref);
                Job { entry: index, change, write, touches: vec![rally_ref.clone()], failed: blamed(attempts) }
            }));
        }
        self.send(jobs, Self::changes_answered)
    }

    fn changes_answered(&mut self, group: Vec<Done>) -> Result<(), Error> {
        let touched: BTreeSet<usize> = group.iter().map(|done| done.job.entry).collect();
        for done in group {
            let (index, change) = (done.job.entry, done.job.change);
            match done.result {
                Ok(_) => {
                    let PassEntry { entry, stage, .. } = &mut self.items[index];
                    entry.made.insert(change);
                    if *stage == Stage::ToChange && decide::missing(entry).next().is_none() {
                        *stage = Stage::Complete;
                    }
                }
                // One failure is enough to put the changeset off, but each may leave something unclear.
                Err(failure) if self.items[index].stage == Stage::Left => self.note_unclear(index, &failure),
                Err(failure) => self.failed(index, &failure)?,
            }
        }
        self.save(&touched)
    }

    /// Writes the receipts of what is complete.
    fn write_receipts(&mut self) -> Result<(), Error> {
        let complete = self.at_stage(Stage::Complete);
        let outcome = |entry: &Entry| if entry.existed { Outcome::Existed } else { Outcome::Delivered };
        self.finish(&complete, outcome)?;
        let now = self.now();
        for entry in complete.iter().map(|&index| &self.items[index].entry) {
            let (Changeset { revision, artifacts, .. }, outcome) = (&entry.changeset, outcome(entry));
            let artifacts: Vec<_> = artifacts.iter().filter(|id| self.artifacts.contains_key(id)).collect();
            let (artifacts, took) = (artifacts.as_slice(), now.since(entry.recorded_at));
            (self.delivery.observe)(&Event::Finished { revision, outcome, artifacts, took });
        }
        Ok(())
    }

    /// Decides what becomes of a changeset one of whose writes failed.
    fn failed(&mut self, index: usize, failure: &Failure) -> Result<(), Error> {
        self.items[index].stage = Stage::Left;
        self.note_unclear(index, failure);
        if let Some(id) = failure.error.unwritable().and_then(|oid| self.artifact_to_leave_out(index, oid)) {
            return self.leave_out(index, &id, failure);
        }
        if failure.verdict() == Verdict::Refused {
            return self.note_refused(index, &failure.error);
        }
        let (now, lag) = (self.now(), self.lag());
        if failure.verdict() == Verdict::Missing {
            let entry = &mut self.items[index].entry;
            self.rally.forget(self.delivery.queue, &entry.changeset)?;
            if decide::is_gone(entry, now, lag) {
                decide::note_gone(entry);
            }
        }
        self.count_attempt(index, failure.verdict(), &failure.error, &failure.to_string());
        Ok(())
    }

    /// Counts a failed attempt, which the caller saves.
    pub(super) fn count_attempt(&mut self, index: usize, verdict: Verdict, error: &wsapi::Error, text: &str) {
        let (retry, now) = (&self.delivery.config.queue.retry(), self.now());
        let Entry { attempts, changeset, .. } = &mut self.items[index].entry;
        let revision = changeset.revision.as_str();
        match decide::fate(attempts, verdict, error.retry_after(), retry, now, random()) {
            Fate::StopAll => {
                self.halt.get_or_insert(error.clone());
            }
            Fate::TryAgain(next) => {
                decide::note_failure(attempts, Some(next), text, now);
                (self.delivery.observe)(&Event::PutOff { revision, error: text });
            }
            Fate::GiveUp => {
                decide::note_failure(attempts, None, text, now);
                (self.delivery.observe)(&Event::GivenUp { revision, error: text });
            }
        }
    }

    pub(super) fn save(&mut self, places: &BTreeSet<usize>) -> Result<(), Error> {
        let entries: Vec<&Entry> = places.iter().map(|&index| &self.items[index].entry).collect();
        Ok(self.delivery.queue.save(&entries)?)
    }

    fn finish(&mut self, places: &[usize], outcome: impl Fn(&Entry) -> Outcome) -> Result<(), Error> {
        let entries = places.iter().map(|&index| &self.items[index].entry);
        let done: Vec<_> = entries.map(|entry| (entry, outcome(entry))).collect();
        Ok(self.delivery.queue.finish(&done, &self.delivery.config.destination(), self.now())?)
    }
}
