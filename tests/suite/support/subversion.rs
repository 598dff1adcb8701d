//! A Subversion repository and what Rally should hold of it, computed by `svnlook` and not by the code under test.

use std::collections::BTreeSet;
use std::ops::{Deref, RangeInclusive};
use std::path::Path;
use std::process::Command;

use super::network::is_installed;
use super::{Expected, Ran, Server, artifacts, hermetic, output_bytes, output_text, ran};

/// A server with a Subversion repository.
pub struct Subversion(Server);

impl Deref for Subversion {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Subversion {
    /// Sets up a server with the hooks, on which trunk, branches and tags are revision 1. Returns `None`, and says so,
    /// where Subversion is not installed.
    pub fn new() -> Option<Self> {
        let server = Subversion::without_hooks("payments")?;
        server.run(&["install"]).succeeds();
        Some(server)
    }

    /// Sets up a server that delivers only when the test asks for it; these lines follow in its configuration.
    pub fn delivering_later(lines: &str) -> Option<Self> {
        let server = Subversion::new()?;
        server.configure_later(lines);
        Some(server)
    }

    /// Sets up a server on which the hooks are not installed, in a directory of this name.
    pub fn without_hooks(name: &str) -> Option<Self> {
        let server = Subversion::bare(name)?;
        server.commit("layout", &["mkdir", "trunk", "mkdir", "branches", "mkdir", "tags"]);
        Some(server)
    }

    /// Sets up a server without the hooks and without any revision.
    pub fn bare(name: &str) -> Option<Self> {
        if !is_installed("svn") {
            return None;
        }
        Some(Subversion(Server::around(name, |path| {
            let mut create = hermetic("svnadmin");
            create.env("LC_ALL", "C.UTF-8").arg("create").arg(path.join(name));
            output_text(create, b"");
        })))
    }

    /// Returns the address of the repository's root.
    pub fn url(&self) -> String {
        url_of(&self.git_dir)
    }

    /// Returns a command of Subversion's, with a directory of settings of its own.
    pub fn svn(&self, program: &str) -> Command {
        let mut command = hermetic(program);
        command.current_dir(self.path()).env("LC_ALL", "C.UTF-8");
        command.arg("--non-interactive").arg("--config-dir").arg(self.path().join("svn-settings"));
        command
    }

    /// Returns the command that commits what these words say as `svnmucc` understands them, as this user.
    pub fn mucc(&self, author: &str, message: &str, words: &[&str]) -> Command {
        let mut command = self.svn("svnmucc");
        command.args(["--root-url", &self.url(), "--username", author, "--message", message]).args(words);
        command
    }

    /// Commits what these words say, and returns the revision.
    pub fn commit(&self, message: &str, words: &[&str]) -> u64 {
        self.commit_as("jane.roe", message, words);
        self.youngest()
    }

    pub fn commit_as(&self, author: &str, message: &str, words: &[&str]) -> Ran {
        ran(self.mucc(author, message, words)).succeeds()
    }

    /// Commits a new content of a file in trunk for each message, and returns the last revision.
    pub fn commit_each(&self, messages: &[&str]) -> u64 {
        messages.iter().map(|message| self.commit(message, &["put", "/dev/null", &self.new_path()])).last().unwrap_or(0)
    }

    /// Returns a path in trunk that is not there yet.
    pub fn new_path(&self) -> String {
        format!("trunk/file{}", self.next_number())
    }

    pub fn youngest(&self) -> u64 {
        self.look(&["youngest"]).parse().expect("a number")
    }

    /// Changes a property of a revision, as an administrator does who lets the hook know.
    pub fn set_revision_property(&self, revision: u64, name: &str, value: &str) {
        let file = self.path().join("value");
        std::fs::write(&file, value).expect("a file");
        self.admin(
            &["setrevprop", "--use-post-revprop-change-hook", "-r", &revision.to_string()],
            &[name],
            Some(&file),
        );
    }

    /// Runs `svnadmin` with these arguments, the repository, and more arguments.
    pub fn admin(&self, arguments: &[&str], more: &[&str], file: Option<&Path>) -> String {
        let mut command = hermetic("svnadmin");
        command.env("LC_ALL", "C.UTF-8").args(arguments).arg(&self.git_dir).args(more).args(file);
        output_text(command, b"")
    }

    /// Runs `svnlook` with the repository after its first argument.
    pub fn look(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.look_bytes(arguments)).expect("UTF-8").trim_end_matches('\n').to_owned()
    }

    fn look_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = hermetic("svnlook");
        command.env("LC_ALL", "C.UTF-8").arg(arguments[0]).arg(&self.git_dir).args(&arguments[1..]);
        output_bytes(command, b"")
    }

    /// Returns what Rally should hold of these revisions: those that name an artifact that it has.
    pub fn expected(&self, revisions: RangeInclusive<u64>) -> Vec<Expected> {
        let all = revisions.map(|revision| {
            let number = revision.to_string();
            let changes: BTreeSet<(String, String)> =
                self.look(&["changed", "-r", &number]).lines().map(change_of).collect();
            let artifacts = artifacts(&self.look(&["log", "-r", &number]));
            Expected { revision: number, artifacts, change_count: changes.len(), changes }
        });
        all.filter(|commit| !commit.artifacts.is_empty()).collect()
    }

    /// Delivers, and asserts that Rally holds these revisions and nothing else.
    pub fn assert_delivers(&self, revisions: RangeInclusive<u64>) {
        self.deliver_all();
        self.assert_rally_holds(&self.expected(revisions));
    }
}

/// Returns the address of a repository in this directory.
pub fn url_of(path: &Path) -> String {
    let escaped = |byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    format!("file://{}", path.to_str().expect("UTF-8").as_bytes().iter().map(escaped).collect::<String>())
}

/// Returns what Rally should hold of a line of `svnlook changed`: `U   trunk/a`, `_U  trunk/`, `A + branches/x/`.
fn change_of(line: &str) -> (String, String) {
    let (flags, path) = line.split_at(4);
    let action = match flags.trim().chars().next() {
        Some('A') => "A",
        Some('D') => "D",
        _ => "M",
    };
    (action.to_owned(), path.to_owned())
}
