//! A Mercurial repository and what Rally should hold of it, computed by `hg status` and not by the code under test.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::expected::escaped;
use super::network::is_installed;
use super::{Expected, Ran, Server, artifacts, change_files, hermetic, output_bytes, program, ran, skipped};

/// A server with a Mercurial repository.
pub struct Mercurial(Server);

impl Deref for Mercurial {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Mercurial {
    /// Sets up a server with the hook. Returns `None`, and says so, where Mercurial is not installed.
    pub fn new() -> Option<Self> {
        let server = Mercurial::without_hook("payments")?;
        server.run(&["install"]).succeeds();
        Some(server)
    }

    /// Sets up a server that delivers only when the test asks for it; these lines follow in its configuration.
    pub fn delivering_later(lines: &str) -> Option<Self> {
        let server = Mercurial::new()?;
        server.configure_later(lines);
        Some(server)
    }

    /// Sets up a server on which the hook is not installed, with a working directory of this name.
    pub fn without_hook(name: &str) -> Option<Self> {
        if !is_installed("hg") {
            return None;
        }
        Some(Mercurial(Server::around(&format!("{name}/.hg"), |path| {
            let mut init = hermetic("hg");
            init.env("HGRCPATH", "").arg("init").arg(path.join(name));
            ran(init).succeeds();
        })))
    }

    /// Returns the repository's own working directory.
    pub fn root(&self) -> WorkDir {
        WorkDir::at(self.git_dir.parent().expect("it is in one").to_owned(), 1_600_000_000)
    }

    /// Clones the repository.
    pub fn new_clone(&self) -> WorkDir {
        let number = self.next_number();
        let path = self.path().join(format!("clone{number}"));
        self.root().hg(&["clone", "--quiet", ".", path.to_str().expect("UTF-8")]);
        WorkDir::at(path, 1_700_000_000 + number * 10_000)
    }

    /// Adds lines to the repository's own configuration.
    pub fn add_settings(&self, lines: &str) {
        let path = self.git_dir.join("hgrc");
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{text}\n{lines}")).expect("it can be written");
    }

    /// Runs `work` while the repository has no hook.
    pub fn without_hooks<T>(&self, work: impl FnOnce() -> T) -> T {
        let (hgrc, away) = (self.git_dir.join("hgrc"), self.git_dir.join("hgrc.away"));
        fs::rename(&hgrc, &away).expect("it is installed");
        let done = work();
        fs::rename(&away, &hgrc).expect("it was there");
        done
    }

    /// Returns what Rally should hold of these changesets.
    pub fn expected(&self, revset: &str) -> Vec<Expected> {
        self.root().expected(revset)
    }

    /// Returns the revisions in Rally, in the order of their creation.
    pub fn revisions(&self) -> Vec<String> {
        self.changesets().into_iter().map(|changeset| changeset.revision).collect()
    }

    /// Delivers, and asserts that Rally holds these changesets and nothing else.
    pub fn assert_delivers(&self, revset: &str) {
        self.deliver_all();
        self.assert_rally_holds(&self.expected(revset));
    }

    /// Runs the program where `hg` cannot be run, with these variables. Returns `None`, and says so, where mounting is not
    /// permitted.
    pub fn run_without_hg(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Option<Ran> {
        let hidden = |arguments: &[&str]| {
            let mut command = hermetic("unshare");
            let script = "mount --bind /dev/null \"$0\" && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(path_of("hg")).arg(program()).args(arguments);
            command.current_dir(&self.git_dir).envs(variables.iter().copied());
            ran(command)
        };
        if !hidden(&["--version"]).success {
            skipped("this user may not mount");
            return None;
        }
        Some(hidden(arguments))
    }

    /// Writes a program that takes the place of `ssh`: it runs the command of the server here.
    pub fn stand_in_for_ssh(&self) -> PathBuf {
        let path = self.path().join("ssh");
        fs::write(&path, "#!/bin/sh\nshift\nexec sh -c \"$*\"\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }
}

/// A working directory. Each of its changesets is dated later than the one before.
pub struct WorkDir {
    pub path: PathBuf,
    clock: Cell<i64>,
}

impl WorkDir {
    pub fn at(path: PathBuf, time: i64) -> Self {
        WorkDir { path, clock: Cell::new(time) }
    }

    /// Returns a command of Mercurial's here, with nobody's settings but the repository's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic("hg");
        command.current_dir(&self.path).env("HGRCPATH", "").env("HGPLAIN", "1").env("HGENCODING", "utf-8");
        // It keeps large files there.
        command.env("HOME", self.path.parent().unwrap_or(&self.path));
        command.env("HGUSER", "Jane Roe <jane.roe@acme.example>").args(arguments);
        command
    }

    /// Runs Mercurial and returns its output without the last line break; panics if it fails.
    pub fn hg(&self, arguments: &[&str]) -> String {
        ran(self.command(arguments)).succeeds().stdout.trim_end_matches('\n').to_owned()
    }

    /// Writes these files (`None` deletes one), commits all that changed, and returns the revision.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> String {
        change_files(&self.path, files);
        self.commit_with(&["--addremove", "--message", message])
    }

    /// Commits with these arguments, and returns the revision.
    pub fn commit_with(&self, arguments: &[&str]) -> String {
        self.clock.set(self.clock.get() + 60);
        self.hg(&[&["commit", "--date", &format!("{} -3600", self.clock.get())], arguments].concat());
        self.node(".")
    }

    /// Commits once for each message, changing two files, and pushes; returns the last revision.
    pub fn push_each(&self, messages: &[&str]) -> String {
        for (number, message) in messages.iter().enumerate() {
            let text = format!("{message} {number}");
            self.commit(message, &[("a", Some(&text)), ("dir/b", Some(&text))]);
        }
        self.push(&[]).succeeds();
        self.node(".")
    }

    /// Pushes all, also new heads and branches.
    pub fn push(&self, arguments: &[&str]) -> Ran {
        ran(self.push_command(arguments))
    }

    pub fn push_command(&self, arguments: &[&str]) -> Command {
        self.command(&[&["push", "--force"], arguments].concat())
    }

    /// Returns the revision that a revset means.
    pub fn node(&self, revset: &str) -> String {
        self.hg(&["log", "--hidden", "--rev", revset, "--template", "{node}"])
    }

    /// Removes changesets and all that is built on them.
    pub fn strip(&self, revision: &str) {
        self.hg(&["--config", "extensions.strip=", "strip", "--quiet", "--rev", revision]);
    }

    /// Returns what Rally should hold of these changesets: those that name an artifact that it has.
    pub fn expected(&self, revset: &str) -> Vec<Expected> {
        let mut log = self.command(&["log", "--hidden", "--rev", revset]);
        log.args(["--template", "{node}\\0{p1node}\\0{p2node}\\0{desc}\\0\\0\\0"]);
        let log = String::from_utf8(output_bytes(log, b"")).expect("these are UTF-8");
        let all = log.split_terminator("\0\0\0").map(|entry| {
            let parts: Vec<&str> = entry.splitn(4, '\0').collect();
            let changes = self.changes(parts[0], &parts[1..3]);
            let artifacts = artifacts(parts[3]);
            Expected { revision: parts[0].to_owned(), artifacts, change_count: changes.len(), changes }
        });
        all.filter(|commit| !commit.artifacts.is_empty()).collect()
    }

    /// Returns the paths that a changeset has otherwise than each of its parents, and how.
    fn changes(&self, node: &str, parents: &[&str]) -> BTreeSet<(String, String)> {
        let is_null = |parent: &&&str| parent.bytes().all(|byte| byte == b'0');
        let against = |parent: &&str| -> BTreeMap<String, String> {
            let status = ["status", "--hidden", "-amr", "--print0", "--rev", parent, "--rev", node];
            let printed = output_bytes(self.command(&status), b"");
            let lines = printed.split(|&byte| byte == 0).filter(|line| !line.is_empty());
            lines.map(|line| (escaped(&line[2..]), char::from(line[0]).to_string().replace('R', "D"))).collect()
        };
        let mut all: Vec<_> = parents.iter().filter(|parent| !is_null(parent)).map(against).collect();
        let first = if all.is_empty() { against(&"null") } else { all.remove(0) };
        let in_all = first.into_iter().filter(|(path, _)| all.iter().all(|other| other.contains_key(path)));
        in_all.map(|(path, letter)| (letter, path)).collect()
    }
}

/// Returns the path of a program, as a shell finds it.
pub fn path_of(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file()).expect("it is installed")
}
