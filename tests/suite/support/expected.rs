//! What Rally should hold, computed by Git itself and not by the code under test.

use std::collections::BTreeSet;
use std::path::Path;

use rally_simulator::Changeset;

use super::{git, git_output, hermetic};

/// A commit as it should be in Rally.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub revision: String,
    /// In no particular order.
    pub artifacts: BTreeSet<String>,
    /// Action letter and path.
    pub changes: BTreeSet<(String, String)>,
    /// Rows in Rally: more than `changes` if something is there twice.
    pub change_count: usize,
}

impl From<&Changeset> for Expected {
    fn from(held: &Changeset) -> Self {
        Expected {
            revision: held.revision.clone(),
            artifacts: held.artifacts.iter().cloned().collect(),
            changes: held.changes.iter().map(|change| (change.action.clone(), change.path.clone())).collect(),
            change_count: held.changes.len(),
        }
    }
}

/// Returns what Rally should hold of these commits: those that name one of US1 to US9, DE1 to DE9, TA1 to TA9.
pub fn expected(git_dir: &Path, rev_list: &[&str]) -> Vec<Expected> {
    let mut arguments = vec!["rev-list"];
    arguments.extend(rev_list);
    let revisions = git(git_dir, &arguments);
    let all = revisions.lines().map(|revision| {
        let changes = expected_changes(git_dir, revision);
        let message = git(git_dir, &["log", "-1", "--format=%B", revision]);
        let artifacts: BTreeSet<String> = words(&message).filter(|word| is_known(word)).collect();
        Expected { revision: revision.to_owned(), artifacts, change_count: changes.len(), changes }
    });
    all.filter(|commit| !commit.artifacts.is_empty()).collect()
}

fn words(message: &str) -> impl Iterator<Item = String> {
    message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned)
}

fn is_known(word: &str) -> bool {
    let number = ["US", "DE", "TA"].iter().find_map(|prefix| word.strip_prefix(prefix));
    number.is_some_and(|digits| digits.len() == 1 && ("1"..="9").contains(&digits))
}

/// Returns the paths that Git says the commit changes: against its parent, or for a merge against all of them.
pub fn expected_changes(git_dir: &Path, revision: &str) -> BTreeSet<(String, String)> {
    let mut command = hermetic("git");
    command.current_dir(git_dir).args(["diff-tree", "-r", "-c", "--no-renames", "--root", "--name-status", "-z"]);
    command.args(["--no-commit-id", revision]);
    let output = git_output(command, b"");
    let mut fields = output.split('\0').filter(|field| !field.is_empty());
    let mut changes = BTreeSet::new();
    while let (Some(status), Some(path)) = (fields.next(), fields.next()) {
        // For a merge there is a letter for each parent; the first parent's counts. A type change is a modification.
        let letter = status.get(..1).expect("a letter").replace('T', "M");
        changes.insert((letter, path.to_owned()));
    }
    changes
}
