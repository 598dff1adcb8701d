//! What Rally should hold, computed by Git and not by the code under test.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

use rally_simulator::Changeset;

use super::{hermetic, output_bytes};

/// A commit as it should be in Rally.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub revision: String,
    pub artifacts: BTreeSet<String>,
    /// Action letters and paths.
    pub changes: BTreeSet<(String, String)>,
    /// Number of changes in Rally: more than `changes` holds if one is there twice.
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

/// Returns what Rally should hold of the commits of this range: those that name one of US1 to US9, DE1 to DE9, TA1 to
/// TA9.
pub fn expected(git_dir: &Path, rev_list: &[&str]) -> Vec<Expected> {
    let mut all = expected_of_all(git_dir, rev_list);
    all.retain(|commit| !commit.artifacts.is_empty());
    all
}

/// Returns all commits of this range, with those that name no artifact.
pub fn expected_of_all(git_dir: &Path, rev_list: &[&str]) -> Vec<Expected> {
    let mut log = as_pushed(git_dir, &["log", "-z", "--format=%H %B"]);
    log.args(rev_list);
    let log = output_bytes(log, b"");
    let messages = log.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()).map(String::from_utf8_lossy);
    let messages: Vec<(String, String)> = messages
        .map(|entry| {
            let (revision, message) = entry.trim_start_matches('\n').split_once(' ').expect("a revision");
            (revision.to_owned(), message.to_owned())
        })
        .collect();
    let revisions: String = messages.iter().flat_map(|(revision, _)| [revision, "\n"]).collect();
    let mut changes = changes_of(git_dir, revisions.as_bytes());
    let commits = messages.into_iter().map(|(revision, message)| {
        let changes = changes.remove(&revision).expect("Git compares every commit");
        Expected { revision, artifacts: artifacts(&message), change_count: changes.len(), changes }
    });
    commits.collect()
}

/// Returns the artifacts of Rally that a message names.
pub fn artifacts(message: &str) -> BTreeSet<String> {
    words(message).filter(|word| is_known(word)).collect()
}

fn words(message: &str) -> impl Iterator<Item = String> {
    message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned)
}

fn is_known(word: &str) -> bool {
    let number = ["US", "DE", "TA"].iter().find_map(|prefix| word.strip_prefix(prefix));
    number.is_some_and(|digits| digits.len() == 1 && ("1"..="9").contains(&digits))
}

/// Returns the changes of a commit that Git lists: against its parent, or for a merge against all parents.
pub fn expected_changes(git_dir: &Path, revision: &str) -> BTreeSet<(String, String)> {
    changes_of(git_dir, format!("{revision}\n").as_bytes()).remove(revision).expect("Git compares the commit")
}

/// Returns the changes of these revisions, which stand one a line.
fn changes_of(git_dir: &Path, revisions: &[u8]) -> HashMap<String, BTreeSet<(String, String)>> {
    let options = ["--stdin", "--always", "-r", "-c", "--no-renames", "--root", "--name-status", "-z"];
    let mut diff = as_pushed(git_dir, &["diff-tree"]);
    diff.args(options);
    let output = output_bytes(diff, revisions);
    let mut fields = output.split(|&byte| byte == 0).filter(|field| !field.is_empty());
    let mut all = HashMap::new();
    let mut current = None;
    while let Some(field) = fields.next() {
        let field = std::str::from_utf8(field).expect("a revision or letters").trim_end();
        if field.len() >= 40 {
            current = Some(all.entry(field.to_owned()).or_insert_with(BTreeSet::new));
            continue;
        }
        let path = escaped(fields.next().expect("a path follows the letters"));
        // A merge has a letter for each parent; the first one counts. A type change is a modification.
        let letter = field.get(..1).expect("a letter").replace('T', "M");
        current.as_mut().expect("a revision came first").insert((letter, path));
    }
    all
}

/// Returns a Git command that sees history as it was pushed, without replace refs and grafts.
fn as_pushed(git_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = hermetic("git");
    command.current_dir(git_dir).arg("--no-replace-objects").args(arguments).env("GIT_GRAFT_FILE", "/dev/null");
    command
}

/// Returns a path as it is posted: if it is not UTF-8, wrong bytes become `\xHH` and backslashes are doubled.
pub(super) fn escaped(path: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(path) {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text += &chunk.valid().replace('\\', r"\\");
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02X}"));
    }
    text
}
