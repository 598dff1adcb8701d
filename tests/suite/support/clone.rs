//! Clones that commit and push to the server.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;

use super::{change_files, hermetic, output_text, ran};

/// A clone with a work tree. Each of its commits is dated later than the one before.
pub struct Clone {
    pub path: PathBuf,
    clock: Cell<i64>,
}

impl Clone {
    /// Returns the clone at this path; its first commit is dated shortly after `time`.
    pub fn at(path: PathBuf, time: i64) -> Self {
        Clone { path, clock: Cell::new(time) }
    }

    /// Writes these files (`None` deletes one), commits all that changed, and returns the revision.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> String {
        change_files(&self.path, files);
        self.git(&["add", "--all"]);
        self.commit_staged(message)
    }

    /// Commits the index, even if it changes nothing, and returns the revision.
    pub fn commit_staged(&self, message: &str) -> String {
        self.git_with(&["commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--file=-"], message.as_bytes());
        self.head()
    }

    /// Commits once for each message, changing two files, pushes the branch, and returns what the pusher saw.
    pub fn push_commits(&self, messages: &[&str]) -> String {
        for (number, message) in messages.iter().enumerate() {
            let text = format!("{message} {number}");
            self.commit(message, &[("a", Some(&text)), ("dir/b", Some(&text))]);
        }
        self.push(&["origin", "HEAD"])
    }

    /// Pushes and returns what the pusher saw; panics if the push fails.
    pub fn push(&self, arguments: &[&str]) -> String {
        let mut command = self.command();
        command.args(["push", "--quiet"]).args(arguments);
        ran(command).succeeds().stderr
    }

    /// Returns the revision of the commit that is checked out.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs Git in the clone and returns its output.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    /// Runs Git in the clone with this input and returns its output.
    pub fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command();
        command.args(arguments);
        output_text(command, input)
    }

    /// Returns a Git command in the clone, dated a minute after the one before.
    pub fn command(&self) -> Command {
        self.clock.set(self.clock.get() + 60);
        let mut command = hermetic("git");
        let date = format!("{} +0100", self.clock.get());
        command.current_dir(&self.path).env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        command
    }
}
