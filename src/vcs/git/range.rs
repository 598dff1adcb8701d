//! The commits that a person names for a backfill.

use super::id::{Dated, ObjectId};
use super::objects::Objects;
use super::place;
use super::read::Item;
use super::walk::{Node, Walk};
use super::{Error, Repository};
use crate::time::CommitTime;
use crate::vcs::{Sink, Wanted, Work};

/// Commits to take with all that they reach, less what others reach, less what is older than a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Range {
    tips: Vec<ObjectId>,
    hidden: Vec<ObjectId>,
    not_before: Option<CommitTime>,
}

/// The options of `git rev-parse` that stand for revisions. It accepts others too, which limit or order a list of
/// commits, and ignores them.
const REVISION_OPTIONS: [&str; 7] = ["--all", "--branches", "--exclude", "--glob", "--not", "--remotes", "--tags"];

fn misused(message: String) -> Error {
    Error::Range { program: "git", message }
}

impl Repository {
    /// Resolves revision arguments (`A..B`, `A...B`, `^A B`, `--all`).
    ///
    /// Git itself is asked, by `git rev-parse`, so that all that it understands is understood the same way.
    ///
    /// # Errors
    /// If Git does not understand them, or an option is not a revision.
    pub(crate) fn range(&self, wanted: &Wanted, since: Option<CommitTime>) -> Result<Range, Error> {
        let all = wanted.all.then(|| "--all".to_owned());
        let mut revisions: Vec<String> = wanted.ranges.iter().cloned().chain(all).collect();
        if revisions.is_empty() {
            revisions.push("HEAD".into());
        }
        let is_revision = |option: &str| {
            let name = option.split('=').next().unwrap_or_default();
            !option.starts_with('-') || REVISION_OPTIONS.contains(&name)
        };
        if let Some(option) = revisions.iter().find(|revision| !is_revision(revision)) {
            return Err(misused(format!("{option} is not a revision; name commits, as in v1..main")));
        }
        let range = Range { not_before: since, ..self.parsed(&revisions)? };
        let is_other = |id: &ObjectId| matches!(self.objects.peel(*id), Ok(None));
        if range.tips.iter().chain(&range.hidden).any(is_other) {
            // A ref among `--all` may lead to something else; what a person names must be commits.
            for revision in revisions.iter().filter(|revision| !revision.starts_with("--")) {
                let named = self.parsed(std::slice::from_ref(revision))?;
                if named.tips.iter().chain(&named.hidden).any(is_other) {
                    return Err(misused(format!("{revision} is not a commit")));
                }
            }
        }
        Ok(range)
    }

    fn parsed(&self, revisions: &[String]) -> Result<Range, Error> {
        let mut arguments = vec!["rev-parse", "--revs-only"];
        arguments.extend(revisions.iter().map(String::as_str));
        // Without it a misspelt revision would be taken for a file's name and ignored.
        arguments.push("--");
        let answer = place::ask(&self.path, &arguments).map_err(|error| match error {
            Error::Says { message, .. } => misused(message),
            error => error,
        })?;
        let mut range = Range::default();
        for line in String::from_utf8_lossy(&answer).lines() {
            let id = |hex: &str| hex.parse().map_err(|()| misused(format!("{line} is not a commit")));
            if let Some(hex) = line.strip_prefix('^') {
                range.hidden.push(id(hex)?);
            } else {
                range.tips.push(id(line)?);
            }
        }
        Ok(range)
    }

    /// Reads the commits of a range, the youngest first.
    pub(crate) fn read_range<T: Send>(&self, range: &Range, work: Work<T>, sink: Sink<T>) -> Result<(), Error> {
        self.read_all(None, work, |objects, hand_over| feed(objects, range, hand_over), sink)
    }
}

/// Walks the range. A tip that cannot be read, such as a broken ref among all, does not keep the others from being read;
/// it is the error in the end.
fn feed(objects: &Objects, range: &Range, hand_over: &mut dyn FnMut(Item) -> bool) -> Result<(), Error> {
    let peel = |ids: &[ObjectId]| ids.iter().filter_map(|&id| objects.peel(id).transpose()).collect::<Vec<_>>();
    let mut hidden = peel(&range.hidden).into_iter().collect::<Result<Vec<Dated>, _>>()?;
    hidden.sort_unstable_by(|a, b| b.cmp(a));
    let is_young = |commit: Dated| range.not_before.is_none_or(|time| commit.time >= time);
    let is_hiding = !hidden.is_empty();
    let mut hidden = hidden.into_iter();
    let mut walk = Walk::new(|id| objects.node_with_data(id), &mut hidden, None);
    let mut broken = None;
    for tip in peel(&range.tips) {
        match tip {
            Ok(tip) => walk.start(tip)?,
            Err(error) => drop(broken.get_or_insert(error)),
        }
    }
    // With nothing hidden the commits come by time, and the first that is too old ends the walk.
    let mut take = |Node { commit, data, .. }| match is_young(commit) {
        true => hand_over(Item::with_data(commit.id, data)),
        false => is_hiding,
    };
    let rest = walk.hand_over_new(&mut take)?;
    let _ = rest.into_iter().rev().map(Node::from).all(take);
    broken.map_or(Ok(()), Err)
}
