//! The server: a bare repository with the hook, a configuration, and a simulated Rally of its own.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rally_simulator::{Changeset, Simulator};
use serde_json::Value;
use tempfile::TempDir;

use super::{Clone, Expected, Ran, git, hermetic, program, ran, skipped, system_configuration};

/// A Git server: a bare repository with the hook installed, configured for a simulated Rally of its own.
pub struct Server {
    pub rally: Simulator,
    pub git_dir: PathBuf,
    directory: TempDir,
    /// Numbers clones and dates.
    counter: Cell<usize>,
}

/// Setting up.
impl Server {
    /// Sets up a server. Rally holds US1 to US9, DE1 to DE9 and TA1 to TA9.
    pub fn new() -> Self {
        let server = Server::without_hook();
        server.run(&["install"]).succeeds();
        server
    }

    /// Sets up a server that delivers only when the test asks for it; these lines follow in its configuration.
    pub fn delivering_later(lines: &str) -> Self {
        let server = Server::new();
        server.configure_later(lines);
        server
    }

    /// Sets up a server on which the hook is not installed.
    pub fn without_hook() -> Self {
        Server::with_repository(&[])
    }

    /// Sets up a server without the hook, with more arguments for `git init`.
    pub fn with_repository(init: &[&str]) -> Self {
        Server::around("payments.git", |path| {
            let mut arguments = vec!["init", "--quiet", "--bare", "--initial-branch=main"];
            arguments.extend(init);
            arguments.push("payments.git");
            git(path, &arguments);
        })
    }

    /// Sets up a server without the hook. `make` makes the repository in this directory, whose own one has this name.
    pub fn around(name: &str, make: impl FnOnce(&Path)) -> Self {
        system_configuration::hide();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let rally = Simulator::start();
        rally.world(|world| {
            for prefix in ["US", "DE", "TA"] {
                for number in 1..=9 {
                    world.add_artifact(&format!("{prefix}{number}"), "An artifact");
                }
            }
        });
        let git_dir = directory.path().join(name);
        let server = Server { rally, git_dir, directory, counter: Cell::new(0) };
        make(server.path());
        server.write_private("api-key", "_full-access-key\n");
        server.configure("[queue]\nretry_delay = \"20ms\"\n");
        server
    }

    /// Returns the directory that holds the repository and its clones.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Clones the repository.
    pub fn new_clone(&self) -> Clone {
        let number = self.next_number();
        let name = format!("clone{number}");
        git(self.path(), &["clone", "--quiet", "payments.git", &name]);
        Clone::at(self.path().join(name), 1_700_000_000 + number * 10_000)
    }

    /// Returns 0, 1 and so on.
    pub(super) fn next_number(&self) -> i64 {
        self.counter.replace(self.counter.get() + 1) as i64
    }

    /// Writes a file that only its owner may read to the Git directory.
    pub fn write_private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.git_dir.join(name);
        fs::write(&path, text).expect("the repository can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("modes can be set");
        path
    }

    /// Returns the path of the hook.
    pub fn hook(&self) -> PathBuf {
        self.git_dir.join("hooks/post-receive")
    }

    /// Moves the hook out of the way, so that pushes run none.
    pub fn disable_hook(&self) {
        fs::rename(self.hook(), self.git_dir.join("hooks/disabled")).expect("the hook is there");
    }

    /// Moves the hook back to its place.
    pub fn enable_hook(&self) {
        fs::rename(self.git_dir.join("hooks/disabled"), self.hook()).expect("the hook was disabled");
    }

    /// Runs Git in the repository and returns its output.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.git_dir, arguments)
    }

    /// Removes all objects that no ref reaches.
    pub fn collect_garbage(&self) {
        self.git(&["reflog", "expire", "--expire=now", "--all"]);
        self.git(&["gc", "--quiet", "--prune=now"]);
    }
}

/// Running the program.
impl Server {
    /// Runs the program in the repository.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    /// Returns the command that [`run`](Self::run) runs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic(program());
        command.args(arguments).current_dir(&self.git_dir);
        command
    }

    /// Returns the command of the hook, with the environment that Git gives it.
    pub fn hook_command(&self) -> Command {
        let mut command = self.command(&["post-receive"]);
        command.env("GIT_DIR", ".");
        command
    }

    /// Runs the hook with this input, as Git does.
    pub fn run_hook(&self, input: &[u8]) -> Ran {
        let mut command = self.hook_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be run");
        child.stdin.take().expect("a pipe").write_all(input).expect("the hook reads all its input");
        Ran::from(child.wait_with_output().expect("the hook ends"))
    }

    /// Runs the program with this text as the system's configuration file, in a mount namespace of its own. Returns
    /// `None`, and says so, where mounting is not permitted.
    pub fn run_with_system_file(&self, text: &str, arguments: &[&str]) -> Option<Ran> {
        self.run_with_system_file_and(text, arguments, &[])
    }

    /// Does the same with these variables in the environment.
    pub fn run_with_system_file_and(&self, text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Option<Ran> {
        self.write_private("system.toml", text);
        let script = "mount -t tmpfs none /etc && mkdir /etc/rally-hook && \
                      cp -p payments.git/system.toml /etc/rally-hook/config.toml && exec \"$@\"";
        let with_system = |arguments: &[&str]| {
            let mut command = hermetic("unshare");
            command.args(["--mount", "sh", "-c", script, "sh"]).arg(program()).args(arguments);
            command.args(["--repo", "payments.git"]).current_dir(self.path()).envs(variables.iter().copied());
            ran(command)
        };
        if !with_system(&["--version"]).success {
            skipped("this user may not mount over /etc");
            return None;
        }
        Some(with_system(arguments))
    }

    /// Delivers until the queue is empty.
    pub fn deliver_all(&self) {
        self.run(&["deliver", "--wait"]).succeeds();
    }

    /// Makes everything due that waits for its next attempt, and lets Rally be done with every request it got.
    pub fn let_time_pass(&self) {
        self.change_queue(
            "UPDATE changeset SET next_attempt = 0, settles_at = iif(settles_at > 0, 1, settles_at) WHERE dead = 0;
             DELETE FROM cache WHERE kind = 'repository-settles-at'",
        );
    }

    /// Changes the queue's database directly.
    pub fn change_queue(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.git_dir.join("rally-hook/queue.db")).expect("a database");
        database.busy_timeout(Duration::from_secs(30)).expect("it can wait");
        database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// What the server and its Rally hold.
impl Server {
    /// Returns what `status --json` prints.
    pub fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Returns a number of the status.
    pub fn count(&self, key: &str) -> i64 {
        self.status()[key].as_i64().unwrap_or_else(|| panic!("{key} is not a number"))
    }

    /// Returns the text of the log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.git_dir.join("rally-hook/log")).unwrap_or_default()
    }

    /// Returns the changesets in Rally, in the order of their creation.
    pub fn changesets(&self) -> Vec<Changeset> {
        self.rally.world(|world| world.changesets())
    }

    /// Returns the only changeset of a revision.
    pub fn changeset(&self, revision: &str) -> Changeset {
        let mut found = self.changesets();
        found.retain(|changeset| changeset.revision == revision);
        assert_eq!(found.len(), 1, "changesets of {revision}");
        found.remove(0)
    }

    /// Asserts that Rally holds exactly what Git says, commit by commit, and that the queue's numbers add up.
    pub fn assert_rally_holds(&self, expected: &[Expected]) {
        let mut held: Vec<Expected> = self.changesets().iter().map(Expected::from).collect();
        let mut expected = expected.to_vec();
        held.sort();
        expected.sort();
        assert_same(&expected, &held);
        self.assert_counts_add_up();
    }

    /// Asserts that every recorded commit is counted once: as delivered, waiting, or given up.
    pub fn assert_counts_add_up(&self) {
        let status = self.status();
        let number = |key: &str| status[key].as_i64().unwrap_or_else(|| panic!("{key} in {status}"));
        let parts = ["delivered", "existed", "unlinked", "pending", "failed"].map(number);
        assert_eq!(number("recorded"), parts.iter().sum::<i64>(), "{status}");
    }

    /// Asserts that the status names exactly these refs as not recorded up to their tips.
    pub fn assert_refs_behind(&self, refs: &[&str]) {
        assert_eq!(self.status()["refs_behind"], serde_json::json!(refs));
    }

    /// Asserts that delivery has stopped, for this reason, until a person acts.
    pub fn assert_stopped(&self, reason: &str) {
        let status = self.status();
        assert_eq!(status["paused"]["needs_person"], true, "{status}");
        let said = status["paused"]["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{reason:?} in {status}");
        self.run(&["status"]).fails_with(1);
    }
}

/// Compares two sorted lists and shows only where they differ.
fn assert_same(expected: &[Expected], held: &[Expected]) {
    let missing: Vec<_> = expected.iter().filter(|one| !held.contains(one)).take(5).collect();
    let surplus: Vec<_> = held.iter().filter(|one| !expected.contains(one)).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "Rally lacks {missing:#?} and has {surplus:#?}");
    assert_eq!(expected.len(), held.len(), "Rally holds something twice");
}
