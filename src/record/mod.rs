//! Reads commits from a repository and writes them to the queue: which are new, what of them is to be posted, and the
//! seen tips that move.
//!
//! Pushes are recorded under one claim per repository. The last transaction records the last commits, moves the seen
//! tips and deletes the pushes. After a crash or a lack of time the next attempt walks again; what is recorded already
//! is left alone then. A backfill needs no claim: it changes no seen tips and no pushes.

mod changed;
mod states;

use std::collections::HashSet;
use std::fmt;

use crate::artifact::{FormattedId, MAX_ARTIFACTS};
use crate::changeset::{Changeset, Policy};
use crate::clock::{self, Deadline};
use crate::commit::{Commit, Tip};
use crate::config::{self, Config, Level};
use crate::queue::{self, Claim, Queue, Settled, Walked};
use crate::refs::Watched;
use crate::text::{plural, with_causes};
use crate::vcs::{self, Items, NewCommits, Refs, Repository, Updates};

/// How many changesets go into one transaction, and how much text they hold together at most, in bytes.
const PER_TRANSACTION: usize = 500;
const SIZE_OF_TRANSACTION: usize = 8 * 1024 * 1024;
/// What the seen tips of [`Walked::Commits`] are about.
pub(crate) const EVERYTHING: &str = "all refs";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Repository(#[from] vcs::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

/// Receives a message about a commit that could not be recorded, or only in part.
pub(crate) type Reporter<'r> = &'r dyn Fn(Level, &str);

/// What was recorded.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// New commits, matching or not.
    pub commits: usize,
    /// Those of them that wait for delivery now.
    pub queued: usize,
    /// Those that cannot be read, each with the reason.
    pub unreadable: Vec<(String, String)>,
    /// The artifacts that the queued ones name.
    pub artifacts: Vec<FormattedId>,
    /// Why not everything was recorded, if so; the next call records the rest.
    pub unfinished: Option<Unfinished>,
}

/// Why a call left something to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// The deadline passed while another process was recording.
    Busy,
    /// The deadline passed while commits were read.
    OutOfTime,
    /// Nothing was recorded here before, and only the ledger can tell what other servers have recorded.
    OthersUnknown,
}

impl Unfinished {
    fn recorded(self) -> Recorded {
        Recorded { unfinished: Some(self), ..Recorded::default() }
    }
}

/// What is to be recorded of a repository.
pub(crate) struct Rules {
    policy: Policy,
    watched: Watched,
    state: config::State,
    /// Where Changesets go: what was delivered there is not recorded again.
    destination: String,
    /// Whether other servers may have recorded commits of the same repository.
    has_ledger: bool,
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        Rules {
            policy: config.commits.policy(),
            watched: config.commits.watched(),
            state: config.state.clone(),
            destination: config.destination(),
            has_ledger: config.queue.store.is_some(),
        }
    }

    /// Returns the changeset of a commit that is to be posted.
    pub(crate) fn changeset(&self, commit: &Commit, paths: vcs::Paths) -> Result<Option<Changeset>, vcs::Error> {
        match &commit.ref_name {
            Some(name) if !self.watched.includes(name) => Ok(None),
            _ => self.policy.changeset(commit, paths),
        }
    }
}

/// Records commits of one repository.
pub(crate) struct Recorder<'r> {
    pub repository: &'r Repository,
    pub queue: &'r mut Queue,
    pub rules: &'r Rules,
    /// Told what could not be recorded, or only in part.
    pub report: Reporter<'r>,
}

impl<'r> Recorder<'r> {
    /// Records what is new on the refs that were pushed, or on all. With a deadline, stops there and leaves the rest to
    /// the next call.
    pub(crate) fn record(&mut self, refs: Refs, deadline: Option<Deadline>) -> Result<Recorded, Error> {
        let Some(_claim) = self.queue.claim(Claim::Recording, deadline)? else {
            return Ok(Unfinished::Busy.recorded());
        };
        let (updates, pushes) = self.updates(refs)?;
        if !self.queue.is_initialised()? {
            if self.rules.has_ledger && !self.queue.has_own_history()? {
                return Ok(Unfinished::OthersUnknown.recorded());
            }
            // The first run, without `install`: what was there before these pushes counts as seen.
            let before = updates.tips_before(&|_| true)?;
            self.queue.add_seen_tips(Walked::Commits, &before, EVERYTHING)?;
        }
        self.read_changed(&updates)?;
        let mut settled = Settled { pushes, ..Settled::default() };
        let found = self.walk(Walked::Commits, &updates, &|name| self.rules.watched.includes(name), deadline);
        let found = found.and_then(|items| self.request_states(&updates, deadline, &mut settled).map(|()| items));
        let new = match found {
            Err(Error::Repository(vcs::Error::OutOfTime)) => return Ok(Unfinished::OutOfTime.recorded()),
            found => found?,
        };
        settled.commit_tips = new.moved;
        for unreadable in new.unreadable {
            let reason =
                format!("cannot record what {} was pushed to: {}", unreadable.name, with_causes(&unreadable.error));
            (self.report)(Level::Error, &reason);
            settled.unreadable.push((unreadable.revision, reason));
        }
        self.read_and_store(new.items, &|| true, deadline, Some(settled))
    }

    /// Marks what the repository holds as seen: only a backfill posts it. Pushes that wait in the queue, from a hook
    /// that ran before, are left to be recorded.
    pub(crate) fn mark_all_seen(&mut self) -> Result<(), Error> {
        let _claim = self.queue.claim(Claim::Recording, None)?;
        let (waiting, _) = self.updates(Refs::Pushed)?;
        let before = waiting.tips_before(&|_| true)?;
        Ok(self.queue.add_seen_tips(Walked::Commits, &before, EVERYTHING)?)
    }

    /// Records the commits of a range that a person named: neither pushes nor seen tips are touched. `progress` is
    /// called for each commit that was read, and says whether to go on.
    pub(crate) fn backfill(&mut self, range: Items, progress: &dyn Fn() -> bool) -> Result<Recorded, Error> {
        self.read_and_store(range, progress, None, None)
    }

    /// Records again the commits of these revisions, whose data was lost or could never be read.
    pub(crate) fn read_again(&mut self, revisions: &[String]) -> Result<Recorded, Error> {
        self.read_and_store(self.repository.revisions(revisions), &|| true, None, None)
    }

    /// Returns the names of the watched refs, or the revisions, that are not all recorded.
    pub(crate) fn behind(&self) -> Result<Vec<String>, Error> {
        if !self.queue.is_initialised()? {
            // The first attempt to record something will count what is there as seen.
            return Ok(Vec::new());
        }
        let is_watched = |name: &str| self.rules.watched.includes(name);
        Ok(self.queue.with_seen_tips(Walked::Commits, |seen| self.repository.behind(&is_watched, seen))??)
    }

    /// Returns the refs to look at, and the pushes that they come from.
    fn updates(&mut self, refs: Refs) -> Result<(Updates<'r>, Vec<i64>), Error> {
        self.queue.add_kept_pushes(clock::now())?;
        let pushes = self.queue.pushes()?;
        let updates = self.repository.updates(pushes.iter().map(|push| push.input.as_slice()), refs)?;
        updates.malformed().iter().for_each(|line| (self.report)(Level::Warn, &format!("not a ref update: {line}")));
        Ok((updates, pushes.iter().map(|push| push.id).collect()))
    }

    fn walk(
        &self,
        walked: Walked,
        updates: &Updates<'r>,
        is_included: &dyn Fn(&str) -> bool,
        deadline: Option<Deadline>,
    ) -> Result<NewCommits<'r>, Error> {
        let walk = |seen: &mut dyn Iterator<Item = Tip>| updates.new_commits(is_included, seen, deadline);
        Ok(self.queue.with_seen_tips(walked, walk)??)
    }

    /// Reads commits and records what is to be posted; in one transaction with the last of them, what is settled then.
    fn read_and_store(
        &mut self,
        items: Items,
        progress: &dyn Fn() -> bool,
        deadline: Option<Deadline>,
        settled: Option<Settled>,
    ) -> Result<Recorded, Error> {
        let Recorder { queue, rules, report, .. } = self;
        let unreadable = settled.iter().flat_map(|settled| settled.unreadable.clone()).collect();
        let mut recorded = Recorded { unreadable, ..Recorded::default() };
        let (mut waiting, mut size, mut failed) = (Vec::new(), 0, None);
        let mut store = |waiting: &mut Vec<Changeset>, settled: Option<&Settled>, recorded: &mut Recorded| {
            recorded.queued += queue.record(waiting, settled, &rules.destination, clock::now())?;
            recorded.artifacts.extend(waiting.drain(..).flat_map(|changeset| changeset.artifacts));
            Ok::<_, queue::Error>(())
        };
        let read = items.read(deadline, &|commit, paths| rules.changeset(commit, paths), &mut |revision, read| {
            recorded.commits += 1;
            let goes_on = progress();
            match read {
                Ok(changeset) => waiting.extend(changeset.inspect(|changeset| {
                    report_omitted(changeset, *report);
                    size += changeset.size();
                })),
                Err(vcs::Error::OutOfTime) => {}
                Err(error) => recorded.unreadable.push(unreadable_commit(revision, &error, *report)),
            }
            if waiting.len() >= PER_TRANSACTION || size >= SIZE_OF_TRANSACTION {
                size = 0;
                failed = store(&mut waiting, None, &mut recorded).err();
            }
            let is_over = deadline.is_some_and(|deadline| deadline.has_passed());
            recorded.unfinished = is_over.then_some(Unfinished::OutOfTime);
            goes_on && !is_over && failed.is_none()
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let settled = settled.filter(|_| recorded.unfinished.is_none() && read.is_ok());
        let settled = settled.map(|settled| Settled { unreadable: recorded.unreadable.clone(), ..settled });
        store(&mut waiting, settled.as_ref(), &mut recorded)?;
        read?;
        let mut named = HashSet::new();
        recorded.artifacts.retain(|id| named.insert(id.clone()));
        Ok(recorded)
    }
}

fn report_omitted(changeset: &Changeset, report: Reporter) {
    let Changeset { revision, omitted, more_artifacts, .. } = changeset;
    if *omitted > 0 {
        let paths = plural(*omitted, "changed path");
        report(Level::Warn, &format!("commit {revision}: left out {paths} beyond max_changes"));
    }
    if *more_artifacts > 0 {
        let text = format!(
            "commit {revision} names too many artifacts: it is linked to the first {MAX_ARTIFACTS}; {more_artifacts} \
             further mentions are left out"
        );
        report(Level::Warn, &text);
    }
}

/// Returns the revision of a commit that cannot be read, with the reason.
fn unreadable_commit(revision: &dyn fmt::Display, error: &vcs::Error, report: Reporter) -> (String, String) {
    let reason = format!("it cannot be read and is not posted: {}", with_causes(error));
    report(Level::Error, &format!("commit {revision}: {reason}"));
    (revision.to_string(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Sharing, StateDir, Store};
    use crate::time::Time;
    use crate::vcs::testing::TestRepository;

    /// Records in a repository and returns what is done for each test.
    struct Scene {
        repository: TestRepository,
        config: Config,
    }

    impl Scene {
        fn new() -> Self {
            Scene { repository: TestRepository::new(), config: Config::default() }
        }

        fn run<T>(&self, mut work: impl FnMut(&mut Recorder) -> T) -> T {
            let state = StateDir::open(self.repository.path(), Sharing::Owner, None).expect("a state directory");
            let repository = Repository::open(self.repository.path(), &self.config).expect("a repository");
            let rules = Rules::new(&self.config);
            let report = |_: Level, message: &str| panic!("{message}");
            let done = Store::new(state, std::time::Duration::ZERO).run(|queue| {
                Ok::<_, Error>(work(&mut Recorder { repository: &repository, queue, rules: &rules, report: &report }))
            });
            done.expect("the queue can be used")
        }

        fn mark_all_seen(&self) {
            self.run(|recorder| recorder.mark_all_seen().expect("recorded"));
        }

        /// Records a push of one ref, of which the hook is told only this.
        fn push(&self, old: Option<&str>, new: &str, name: &str) -> Vec<String> {
            let line = format!("{} {new} {name}\n", old.unwrap_or("0000000000000000000000000000000000000000"));
            self.run(|recorder| {
                recorder.queue.add_push("somebody", line.as_bytes(), Time::from_millis(0)).expect("kept");
                let recorded = recorder.record(Refs::Pushed, None).expect("recorded");
                assert!(recorded.unfinished.is_none() && recorder.queue.pushes().expect("readable").is_empty());
                recorded.artifacts.iter().map(FormattedId::to_string).collect()
            })
        }

        fn pending_states(&self) -> i64 {
            self.run(|recorder| recorder.queue.status(clock::now()).expect("readable").state_requests)
        }
    }

    #[test]
    fn what_was_there_at_install_is_not_recorded() {
        let scene = Scene::new();
        let old = scene.repository.commit("main", "US1");
        scene.mark_all_seen();
        let new = scene.repository.commit("main", "US2");
        assert_eq!(scene.push(Some(&old), &new, "refs/heads/main"), ["US2"]);
    }

    #[test]
    fn without_install_the_first_push_counts_from_where_the_ref_was() {
        let scene = Scene::new();
        let old = scene.repository.commit("main", "US1");
        let new = scene.repository.commit("main", "US2");
        assert_eq!(scene.push(Some(&old), &new, "refs/heads/main"), ["US2"]);
    }

    #[test]
    fn a_new_branch_on_old_commits_records_nothing() {
        let scene = Scene::new();
        scene.mark_all_seen();
        let tip = scene.repository.commit("main", "US1");
        assert_eq!(scene.push(None, &tip, "refs/heads/main"), ["US1"]);
        scene.repository.branch("topic", &tip);
        assert_eq!(scene.push(None, &tip, "refs/heads/topic"), [] as [&str; 0]);
    }

    #[test]
    fn a_push_makes_up_what_a_missed_hook_left_out() {
        let scene = Scene::new();
        scene.mark_all_seen();
        let missed = scene.repository.commit("main", "US1");
        let new = scene.repository.commit("main", "US2");
        assert_eq!(scene.push(Some(&missed), &new, "refs/heads/main"), ["US1", "US2"]);
    }

    #[test]
    fn a_ref_that_is_not_watched_records_nothing_and_hides_nothing() {
        let scene = Scene::new();
        scene.mark_all_seen();
        let tip = scene.repository.commit("topic", "US1");
        assert_eq!(scene.push(None, &tip, "refs/notes/x"), [] as [&str; 0]);
        assert_eq!(scene.push(None, &tip, "refs/heads/topic"), ["US1"]);
    }

    #[test]
    fn a_ref_with_commits_that_are_not_recorded_lags_behind() {
        let scene = Scene::new();
        scene.mark_all_seen();
        scene.repository.commit("main", "nothing");
        assert_eq!(scene.run(|recorder| recorder.behind().expect("readable")), ["refs/heads/main"]);
        scene.run(|recorder| recorder.record(Refs::All, None).expect("recorded"));
        assert_eq!(scene.run(|recorder| recorder.behind().expect("readable")), [] as [&str; 0]);
    }

    #[test]
    fn a_commit_asks_for_its_states_once_when_it_reaches_the_branch() {
        let mut scene = Scene::new();
        scene.config.state.update = true;
        scene.config.state.refs = vec!["main".into()];
        scene.mark_all_seen();
        let base = scene.repository.commit("main", "nothing");
        scene.push(None, &base, "refs/heads/main");
        scene.repository.branch("topic", &base);
        let tip = scene.repository.commit("topic", "Fixed DE1");
        scene.push(Some(&base), &tip, "refs/heads/topic");
        assert_eq!(scene.pending_states(), 0);
        scene.repository.branch("main", &tip);
        scene.push(Some(&base), &tip, "refs/heads/main");
        scene.push(Some(&base), &tip, "refs/heads/main");
        assert_eq!(scene.pending_states(), 1);
    }

    #[test]
    fn switching_state_changes_on_changes_nothing_for_what_is_there() {
        let mut scene = Scene::new();
        scene.mark_all_seen();
        let old = scene.repository.commit("main", "Fixed DE1");
        scene.push(None, &old, "refs/heads/main");
        scene.config.state.update = true;
        scene.config.state.refs = vec!["main".into()];
        let new = scene.repository.commit("main", "Fixed DE2");
        scene.push(Some(&old), &new, "refs/heads/main");
        assert_eq!(scene.pending_states(), 1);
    }
}
