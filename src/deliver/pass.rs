//! One pass over what is due: ask Rally what it has, make what is missing, note what became of it.
//!
//! Each step notes its outcome before the next begins, so a pass may be cut off anywhere:
//!
//! ```text
//! not made ──create──► unknown ──answer──► made ──its Changes──► unknown ──answers──► receipt
//! ```
//!
//! Where an outcome is unknown the next pass asks Rally, and believes a "no" only once the write can no longer be
//! under way or hidden by a read replica that lags.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use super::body;
use super::dispatch::{Done, Job, Limits, dispatch};
use super::lookup;
use super::rally::{Artifact, Halt, Rally};
use super::{Report, lag, next_attempt, settles_at};
use crate::artifact::FormattedId;
use crate::config::Post;
use crate::context::{Context, now};
use crate::queue::{Failure, LONGEST_WAIT, Outcome, Queue, Row};
use crate::wsapi::{Error, Verdict};

/// This many requests in a row that fail by the server's fault, with no success between, are taken for an outage:
/// there is no use in trying the rest.
const STRIKES: u32 = 5;
/// A Changeset that Rally has not found for this many times the lag of its reads has been deleted.
const GONE_AFTER_LAGS: i64 = 6;
/// After this many failed attempts a changeset is sent alone: in a batch one bad entry may fail the others.
const ALONE_AFTER: u32 = 2;

/// Where a row of the pass stands.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Not in Rally as far as is known.
    New,
    /// Its Changeset is there; which of its Changes are is not known.
    ToComplete(String),
    /// Its Changeset is there, and so are all Changes but these.
    ToChange(String, BTreeSet<usize>),
    /// All of it is there.
    Complete,
    /// Nothing more in this pass.
    Left,
}

pub struct Pass<'p> {
    context: &'p Context,
    queue: &'p mut Queue,
    rally: &'p Rally,
    limits: &'p mut Limits,
    report: &'p mut Report,
    rows: Vec<Row>,
    stages: Vec<Stage>,
    artifacts: HashMap<FormattedId, Artifact>,
    /// Rows of which a write that is being sent, or was, has no known outcome.
    unclear: BTreeSet<usize>,
    strikes: u32,
    halt: Option<Halt>,
}

impl<'p> Pass<'p> {
    pub fn new(
        context: &'p Context,
        queue: &'p mut Queue,
        rally: &'p Rally,
        limits: &'p mut Limits,
        report: &'p mut Report,
        rows: Vec<Row>,
    ) -> Self {
        let stages = vec![Stage::New; rows.len()];
        let (artifacts, unclear) = (HashMap::new(), BTreeSet::new());
        Pass { context, queue, rally, limits, report, rows, stages, artifacts, unclear, strikes: 0, halt: None }
    }

    /// Does what can be done.
    ///
    /// # Errors
    /// If Rally cannot be used, now or before somebody acts. What was done until then is noted.
    pub fn run(mut self) -> Result<(), Halt> {
        let steps = [
            Self::look_up,
            Self::create_changesets,
            Self::find_missing_changes,
            Self::create_changes,
            Self::write_receipts,
        ];
        for step in steps {
            step(&mut self)?;
            if let Some(halt) = self.halt {
                return Err(halt);
            }
        }
        Ok(())
    }

    /// Finds out what Rally has: the artifacts, and the Changesets that we do not know of.
    fn look_up(&mut self) -> Result<(), Halt> {
        self.heed_clocks()?;
        let unmade: Vec<usize> = self.rows_where(|row| row.rally_ref.is_none());
        let name = self.context.repository_name();
        let there = match self.rally.repository(self.queue, &name)? {
            Some(repository) => {
                let revisions: Vec<String> =
                    unmade.iter().map(|&at| self.rows[at].changeset.revision.clone()).collect();
                lookup::revisions(&self.rally.client, &repository, &revisions)?
            }
            None => HashMap::new(),
        };
        let ids = self.rows.iter().flat_map(|row| &row.changeset.artifacts);
        self.artifacts = self.rally.artifacts(self.queue, ids)?;
        let mut found = Vec::new();
        for at in 0..self.rows.len() {
            let row = &mut self.rows[at];
            if let (None, Some(rally_ref)) = (&row.rally_ref, there.get(&row.changeset.revision)) {
                row.existed = row.settles_at.is_none();
                row.rally_ref = Some(rally_ref.clone());
                row.settles_at.get_or_insert(0);
                found.push((row.id, rally_ref.clone(), row.existed));
            }
            self.stages[at] = match (&row.rally_ref, row.settles_at) {
                (None, _) => Stage::New,
                (Some(rally_ref), Some(_)) => Stage::ToComplete(rally_ref.clone()),
                (Some(rally_ref), None) => {
                    let made: BTreeSet<usize> = row.made.iter().copied().collect();
                    let missing = (0..row.changeset.changes.len()).filter(|place| !made.contains(place)).collect();
                    Stage::ToChange(rally_ref.clone(), missing)
                }
            };
        }
        Ok(self.queue.changesets_found(&found)?)
    }

    /// Renews times of settlement that a clock set which was ahead and has been set back since.
    fn heed_clocks(&mut self) -> Result<(), Halt> {
        let (latest, anew) = (now() + LONGEST_WAIT, Some(now() + lag()));
        let mut renewed = Vec::new();
        for row in self.rows.iter_mut().filter(|row| row.settles_at > Some(latest)) {
            row.settles_at = anew;
            renewed.push((row.id, anew));
        }
        Ok(self.queue.settle(&renewed)?)
    }

    fn create_changesets(&mut self) -> Result<(), Halt> {
        let to_create = self.choose_new()?;
        if to_create.is_empty() {
            return Ok(());
        }
        let name = self.context.repository_name();
        let repository = match self.rally.repository(self.queue, &name)? {
            Some(repository) => repository,
            None => self.rally.create_repository(self.queue, &name, &self.context.config)?,
        };
        let commits: Vec<_> = to_create.iter().map(|&at| &self.rows[at].changeset).collect();
        let authors = self.rally.authors(self.queue, &commits)?;
        let branch = self.rally.knows_branch(self.queue)?;
        let mut jobs = Vec::new();
        for (&at, author) in to_create.iter().zip(&authors) {
            let row = &self.rows[at];
            let known: Vec<&FormattedId> =
                row.changeset.artifacts.iter().filter(|id| self.artifacts.contains_key(id)).collect();
            let refs = body::Refs {
                workspace: &self.rally.workspace.rally_ref,
                repository: &repository,
                author: author.as_deref(),
                artifacts: known.iter().map(|id| self.artifacts[*id].rally_ref.as_str()).collect(),
                branch,
            };
            let write = body::changeset(&row.changeset, &refs, &self.rally.links);
            let touches = known.iter().map(|id| id.to_string()).collect();
            jobs.push(Job { row: at, change: 0, write, touches, alone: row.attempts >= ALONE_AFTER });
        }
        self.send(jobs, Self::changesets_answered)
    }

    /// Returns the rows whose Changesets are to be made now; settles those that are not.
    fn choose_new(&mut self) -> Result<Vec<usize>, Halt> {
        let mut chosen = Vec::new();
        let mut unlinked = Vec::new();
        let mut too_early = Vec::new();
        for at in 0..self.rows.len() {
            let row = &self.rows[at];
            if self.stages[at] != Stage::New {
                continue;
            }
            let missing: Vec<String> = row
                .changeset
                .artifacts
                .iter()
                .filter(|id| !self.artifacts.contains_key(id))
                .map(FormattedId::to_string)
                .collect();
            if let Some(settles_at) = row.settles_at.filter(|at| *at > now()) {
                too_early.push((row.id, settles_at));
                self.stages[at] = Stage::Left;
            } else if missing.len() == row.changeset.artifacts.len() && self.context.config.commits.post == Post::Linked
            {
                self.context.log.info(&format!(
                    "commit {} is not posted: Rally has no {}",
                    row.changeset.revision,
                    missing.join(", ")
                ));
                unlinked.push((row.id, Outcome::Unlinked));
                self.stages[at] = Stage::Left;
            } else {
                if !missing.is_empty() {
                    self.context.log.info(&format!(
                        "commit {}: Rally has no {}",
                        row.changeset.revision,
                        missing.join(", ")
                    ));
                }
                chosen.push(at);
            }
        }
        self.report.unlinked += unlinked.len();
        self.queue.finish(&unlinked, &self.context.destination(), now())?;
        self.queue.put_off(&too_early)?;
        Ok(chosen)
    }

    fn changesets_answered(&mut self, group: Vec<Done>) -> Result<(), Halt> {
        self.count_strikes(&group);
        let mut made = Vec::new();
        for done in group {
            let at = done.job.row;
            match done.result {
                Ok(created) => {
                    self.rally.note_warnings(self.queue, &created.warnings)?;
                    let all = (0..self.rows[at].changeset.changes.len()).collect();
                    made.push((self.rows[at].id, created.rally_ref.clone()));
                    self.stages[at] = Stage::ToChange(created.rally_ref, all);
                }
                Err(error) => self.failed(at, error)?,
            }
        }
        Ok(self.queue.changesets_made(&made)?)
    }

    /// Asks which Changes there are of the Changesets of which that is not known.
    fn find_missing_changes(&mut self) -> Result<(), Halt> {
        let refs: Vec<String> = self
            .stages
            .iter()
            .filter_map(|stage| match stage {
                Stage::ToComplete(rally_ref) => Some(rally_ref.clone()),
                _ => None,
            })
            .collect();
        let there = lookup::changes_of(&self.rally.client, &refs)?;
        let none = Vec::new();
        for at in 0..self.rows.len() {
            let Stage::ToComplete(rally_ref) = self.stages[at].clone() else { continue };
            let row = &self.rows[at];
            let mut paths: Vec<&str> = there.get(&rally_ref).unwrap_or(&none).iter().map(String::as_str).collect();
            paths.sort_unstable();
            let is_there = |place: &usize| {
                row.made.contains(place)
                    || paths.binary_search(&body::posted_path(&row.changeset.changes[*place].path)).is_ok()
            };
            let missing: BTreeSet<usize> = (0..row.changeset.changes.len()).filter(|place| !is_there(place)).collect();
            let (id, settles_at, now) = (row.id, row.settles_at.unwrap_or(0), now());
            self.stages[at] = if missing.is_empty() || settles_at != 0 && settles_at <= now {
                Stage::ToChange(rally_ref, missing)
            } else {
                // Somebody may be making them at this moment, or they are not to be seen yet: ask again later.
                let settles_at = if settles_at == 0 { now + lag() } else { settles_at };
                self.queue.settle(&[(id, Some(settles_at))])?;
                self.queue.put_off(&[(id, settles_at)])?;
                Stage::Left
            };
        }
        Ok(())
    }

    fn create_changes(&mut self) -> Result<(), Halt> {
        let mut jobs = Vec::new();
        for (at, stage) in self.stages.iter_mut().enumerate() {
            let Stage::ToChange(rally_ref, missing) = stage else { continue };
            let row = &self.rows[at];
            for &place in missing.iter() {
                let write = body::change(&row.changeset, place, rally_ref, &self.rally.links);
                jobs.push(Job {
                    row: at,
                    change: place,
                    write,
                    touches: Vec::new(),
                    alone: row.attempts >= ALONE_AFTER,
                });
            }
            if missing.is_empty() {
                *stage = Stage::Complete;
            } else if row.existed {
                self.report.completed += 1;
            }
        }
        self.send(jobs, Self::changes_answered)
    }

    fn changes_answered(&mut self, group: Vec<Done>) -> Result<(), Halt> {
        self.count_strikes(&group);
        let mut touched = BTreeSet::new();
        for done in group {
            let at = done.job.row;
            match (done.result, &mut self.stages[at]) {
                (Ok(_), stage) => {
                    self.rows[at].made.push(done.job.change);
                    touched.insert(at);
                    if let Stage::ToChange(_, missing) = stage {
                        missing.remove(&done.job.change);
                        if missing.is_empty() {
                            *stage = Stage::Complete;
                        }
                    }
                }
                // One failure of a row is enough to put it off, but each may leave something unclear.
                (Err(error), Stage::Left) => self.note_unclear(at, &error)?,
                (Err(error), _) => self.failed(at, error)?,
            }
        }
        let made: Vec<_> = touched.into_iter().map(|at| (self.rows[at].id, self.rows[at].made.clone())).collect();
        Ok(self.queue.changes_made(&made)?)
    }

    /// Writes the receipts of what is complete.
    fn write_receipts(&mut self) -> Result<(), Halt> {
        let mut done = Vec::new();
        for (row, _) in self.rows.iter().zip(&self.stages).filter(|(_, stage)| **stage == Stage::Complete) {
            let outcome = if row.existed { Outcome::Existed } else { Outcome::Delivered };
            self.report.count(outcome);
            self.context.log.info(&format!("{} commit {}", outcome.name(), row.changeset.revision));
            done.push((row.id, outcome));
        }
        Ok(self.queue.finish(&done, &self.context.destination(), now())?)
    }

    /// Sends jobs. Before that the outcome of each row is noted as unknown, and taken back for what was not sent.
    fn send(&mut self, jobs: Vec<Job>, answered: fn(&mut Self, Vec<Done>) -> Result<(), Halt>) -> Result<(), Halt> {
        if jobs.is_empty() || self.halt.is_some() {
            return Ok(());
        }
        self.unclear.clear();
        let rows: BTreeSet<usize> = jobs.iter().map(|job| job.row).collect();
        let intended: Vec<_> = rows.iter().map(|&at| (self.rows[at].id, Some(now() + lag()))).collect();
        self.queue.settle(&intended)?;
        let (client, mut limits) = (&self.rally.client, self.limits.clone());
        let mut broken = None;
        let unsent = dispatch(client, &mut limits, jobs, |group| {
            if let Err(halt) = answered(self, group) {
                broken = Some(halt);
            }
            if broken.is_some() || self.halt.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        *self.limits = limits;
        if let Some(halt) = broken {
            return Err(halt);
        }
        // Nothing is unknown of a row whose writes were not sent, or all failed for sure or are noted as made. One of
        // which some were made and others not sent keeps its mark: what it has is asked for.
        let not_sent: BTreeSet<usize> = unsent.iter().map(|job| job.row).collect();
        let mut known = rows;
        known.retain(|at| match self.stages[*at] {
            Stage::Left => !self.unclear.contains(at),
            _ => not_sent.contains(at) && self.rows[*at].made.is_empty(),
        });
        let taken_back: Vec<_> = known.iter().map(|&at| (self.rows[at].id, self.rows[at].settles_at)).collect();
        self.queue.settle(&taken_back)?;
        unsent.iter().for_each(|job| self.stages[job.row] = Stage::Left);
        Ok(())
    }

    /// Notes when Rally can tell what became of a write that failed, unless it is clear that nothing did. Of several
    /// the latest counts.
    fn note_unclear(&mut self, at: usize, error: &Error) -> Result<(), Halt> {
        if error.is_without_effect() {
            return Ok(());
        }
        self.unclear.insert(at);
        let row = &mut self.rows[at];
        row.settles_at = row.settles_at.max(Some(settles_at(error, self.context.config.rally.timeout)));
        Ok(self.queue.settle(&[(row.id, row.settles_at)])?)
    }

    /// Decides what becomes of a row whose write failed.
    fn failed(&mut self, at: usize, error: Error) -> Result<(), Halt> {
        self.stages[at] = Stage::Left;
        self.note_unclear(at, &error)?;
        let row = &self.rows[at];
        let verdict = error.verdict();
        if matches!(verdict, Verdict::Stop | Verdict::Unavailable) {
            self.halt.get_or_insert(error.into());
            return Ok(());
        }
        if verdict == Verdict::Missing {
            self.rally.forget(self.queue, &row.changeset, &self.context.repository_name())?;
            // A Changeset that was made just now may only be hidden yet. After a while it was deleted.
            let failing_since = row.first_attempt.unwrap_or_else(now);
            if row.rally_ref.is_some() && now() - failing_since > GONE_AFTER_LAGS * lag() {
                self.queue.unmake(row.id)?;
            }
        }
        let again = next_attempt(self.context, row.attempts, row.first_attempt, &error);
        let next_attempt = again.filter(|_| verdict != Verdict::Reject);
        let given_up = next_attempt.is_none();
        let what = if given_up { "cannot be posted" } else { "could not be posted yet" };
        self.context.log.warn(&format!("commit {} {what}: {error}", row.changeset.revision));
        self.report.failed(given_up, &error);
        self.queue.fail(&[(row.id, Failure { error: error.to_string(), next_attempt })], now())?;
        Ok(())
    }

    /// Counts groups that failed as a whole, one after the other, by the server's fault.
    fn count_strikes(&mut self, group: &[Done]) {
        let fault = group.iter().try_fold(None, |_, done| match &done.result {
            Ok(_) | Err(Error::Rejected(_)) => Err(()),
            Err(error) => Ok(Some(error)),
        });
        self.strikes = if fault.is_ok() { self.strikes + 1 } else { 0 };
        if let (Ok(Some(error)), true) = (fault, self.strikes >= STRIKES) {
            self.halt.get_or_insert(error.clone().into());
        }
    }

    fn rows_where(&self, is: impl Fn(&Row) -> bool) -> Vec<usize> {
        (0..self.rows.len()).filter(|&at| is(&self.rows[at])).collect()
    }
}
