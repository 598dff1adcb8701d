//! The outside world in small: a bare repository with the hook, clones that push to it, and a simulated Rally.
//!
//! Git runs without this machine's configuration, with fixed names and dates. Nothing here waits for time to pass:
//! tests wait for what they are about.

mod chance;
mod expected;
pub mod fault;
mod import;
pub mod process;
pub mod tls;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rally_simulator::{Changeset, Simulator};
use serde_json::Value;
use tempfile::TempDir;

pub use chance::{Random, rounds, seed};
pub use expected::{Expected, expected, expected_changes, expected_of_all};
pub use import::Import;

/// How long reads may lag behind writes, for the program under test; the real bound is seconds.
const LAG_MS: &str = "40";

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rally-hook"))
}

/// Copies the program under test. Another process does it: a file that this one had open for writing might be inherited,
/// still open, by what another test starts at that moment, and could not be run.
pub fn copy_program(to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg(program()).arg(to);
    ran(copy).succeeds();
}

/// A Git server: a bare repository with the hook installed, configured for a simulated Rally of its own.
pub struct Server {
    pub rally: Simulator,
    pub git_dir: PathBuf,
    directory: TempDir,
    clones: Cell<usize>,
}

impl Server {
    /// Sets up the server. Rally holds US1 to US9, DE1 to DE9 and TA1 to TA9.
    pub fn new() -> Self {
        let server = Server::without_hook();
        server.run(&["install"]).succeeds();
        server
    }

    /// The same without the hook.
    pub fn without_hook() -> Self {
        Server::of_kind(&[])
    }

    /// The same with more arguments for `git init`.
    pub fn of_kind(init: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let rally = Simulator::start();
        rally.world(|world| {
            for prefix in ["US", "DE", "TA"] {
                for number in 1..=9 {
                    world.add_artifact(&format!("{prefix}{number}"), "An artifact");
                }
            }
        });
        let git_dir = directory.path().join("payments.git");
        let server = Server { rally, git_dir, directory, clones: Cell::new(0) };
        let mut arguments = vec!["init", "--quiet", "--bare", "--initial-branch=main"];
        arguments.extend(init);
        arguments.push("payments.git");
        git(server.directory.path(), &arguments);
        server.configure("[queue]\nretry_delay = \"20ms\"\n");
        server
    }

    /// Replaces the configuration: `[rally]` for the simulator, and these lines after it.
    pub fn configure(&self, more: &str) {
        self.write_private("api-key", "_full-access-key\n");
        let key = self.git_dir.join("api-key");
        self.configure_all(&format!("{}api_key_file = \"{}\"\n\n{more}", self.rally_section(), key.display()));
    }

    /// Sets up a server that delivers only when it is told to, so that what a push recorded can be counted.
    pub fn delivering_later(more: &str) -> Self {
        let server = Server::new();
        server.configure_later(more);
        server
    }

    /// Replaces the configuration likewise.
    pub fn configure_later(&self, more: &str) {
        self.configure(&format!("[queue]\ndeliver = \"later\"\nretry_delay = \"20ms\"\n{more}"));
    }

    /// Replaces the whole configuration.
    pub fn configure_all(&self, text: &str) {
        self.write_private("rally-hook.toml", text);
    }

    /// The beginning of a `[rally]` section for the simulator, without credentials.
    pub fn rally_section(&self) -> String {
        format!("[rally]\nserver = \"{}\"\nworkspace = \"Acme\"\ntimeout = \"2s\"\n", self.rally.url())
    }

    /// Writes a file into the Git directory that only its owner may read.
    pub fn write_private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.git_dir.join(name);
        fs::write(&path, text).expect("the repository can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("modes can be set");
        path
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn new_clone(&self) -> Clone {
        let number = self.clones.replace(self.clones.get() + 1);
        let name = format!("clone{number}");
        git(self.path(), &["clone", "--quiet", "payments.git", &name]);
        Clone { path: self.path().join(name), clock: Cell::new(1_700_000_000 + number as i64 * 10_000) }
    }

    /// Runs the program in the repository.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    /// Returns the program's command, to be run in the repository.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic(program());
        command.args(arguments).current_dir(&self.git_dir);
        command
    }

    /// Runs the hook with this input, as Git would.
    pub fn run_hook(&self, input: &[u8]) -> Ran {
        let mut command = self.command(&["post-receive"]);
        command.env("GIT_DIR", ".").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be run");
        child.stdin.take().expect("a pipe").write_all(input).expect("the hook reads all its input");
        Ran::from(child.wait_with_output().expect("the hook ends"))
    }

    /// Waits until everything that was pushed is delivered.
    pub fn deliver_all(&self) {
        self.run(&["deliver", "--wait"]).succeeds();
    }

    pub fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Returns a number of the status.
    pub fn count(&self, key: &str) -> i64 {
        self.status()[key].as_i64().unwrap_or_else(|| panic!("{key} is no number"))
    }

    pub fn changesets(&self) -> Vec<Changeset> {
        self.rally.world(|world| world.changesets())
    }

    pub fn changeset(&self, revision: &str) -> Changeset {
        let mut found = self.changesets();
        found.retain(|changeset| changeset.revision == revision);
        assert_eq!(found.len(), 1, "Changesets of {revision}");
        found.remove(0)
    }

    /// Runs Git in the bare repository.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.git_dir, arguments)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.git_dir.join("rally-hook/log")).unwrap_or_default()
    }

    /// Makes sure that Rally holds exactly what Git says, commit by commit, and that the ledger adds up.
    pub fn assert_rally_holds(&self, expected: &[Expected]) {
        let mut held: Vec<Expected> = self.changesets().iter().map(Expected::from).collect();
        let mut expected = expected.to_vec();
        held.sort();
        expected.sort();
        similar(&expected, &held);
        self.assert_ledger_adds_up();
    }

    pub fn assert_ledger_adds_up(&self) {
        let status = self.status();
        let number = |key: &str| status[key].as_i64().unwrap_or_else(|| panic!("{key} in {status}"));
        let parts = ["delivered", "existed", "unlinked", "pending", "failed"].map(number);
        assert_eq!(number("recorded"), parts.iter().sum::<i64>(), "{status}");
    }
}

/// Compares two sorted lists and shows only where they differ.
fn similar(expected: &[Expected], held: &[Expected]) {
    let missing: Vec<_> = expected.iter().filter(|one| !held.contains(one)).take(5).collect();
    let surplus: Vec<_> = held.iter().filter(|one| !expected.contains(one)).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "Rally lacks {missing:#?} and has {surplus:#?}");
    assert_eq!(expected.len(), held.len(), "Rally holds something twice");
}

/// A work tree that pushes to the server.
pub struct Clone {
    pub path: PathBuf,
    clock: Cell<i64>,
}

impl Clone {
    /// Commits these files (`None` deletes one) and returns the revision.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> String {
        for (name, text) in files {
            let path = self.path.join(name);
            match text {
                Some(text) => {
                    fs::create_dir_all(path.parent().expect("a file has a directory"))
                        .expect("directories can be made");
                    fs::write(path, text).expect("files can be written");
                }
                None => fs::remove_file(path).expect("the file was there"),
            }
        }
        self.git(&["add", "--all"]);
        self.commit_staged(message)
    }

    /// Commits what is staged, be it nothing.
    pub fn commit_staged(&self, message: &str) -> String {
        self.git_with(&["commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--file=-"], message.as_bytes());
        self.head()
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Pushes and returns what the pusher saw.
    pub fn push(&self, arguments: &[&str]) -> String {
        let ran = self.try_push(arguments);
        assert!(ran.success, "{ran:?}");
        ran.stderr
    }

    pub fn try_push(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(["push", "--quiet"]).args(arguments);
        ran(command)
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    pub fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command();
        command.args(arguments);
        git_output(command, input)
    }

    /// Returns a Git command in this work tree; each has a later date than the one before.
    pub fn command(&self) -> Command {
        self.clock.set(self.clock.get() + 60);
        let mut command = hermetic("git");
        let date = format!("{} +0100", self.clock.get());
        command.current_dir(&self.path).env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        command
    }
}

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub success: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn succeeds(self) -> Self {
        assert!(self.success, "{self:?}");
        self
    }

    /// Makes sure that it ended with this exit code.
    pub fn fails_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (success, code) = (output.status.success(), output.status.code());
        Ran { success, code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

pub fn ran(mut command: Command) -> Ran {
    Ran::from(command.stdin(Stdio::null()).output().expect("the program can be run"))
}

/// Runs Git and returns its output without the last line break.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = hermetic("git");
    command.current_dir(directory).args(arguments);
    git_output(command, b"")
}

fn git_output(command: Command, input: &[u8]) -> String {
    String::from_utf8_lossy(&output_bytes(command, input)).trim_end_matches('\n').to_owned()
}

fn output_bytes(mut command: Command, input: &[u8]) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("git can be run");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // Not every command reads its input; one that does may write much before it has read all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("git ends")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns a command with nothing of this machine's environment but where programs are.
pub fn hermetic(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let fixed = [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Jane Roe"),
        ("GIT_AUTHOR_EMAIL", "jane.roe@acme.example"),
        ("GIT_COMMITTER_NAME", "John Doe"),
        ("GIT_COMMITTER_EMAIL", "john.doe@acme.example"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("TZ", "UTC"),
        ("LC_ALL", "C"),
        ("RALLY_HOOK_TEST_LAG_MS", LAG_MS),
    ];
    command.envs(fixed);
    command
}
