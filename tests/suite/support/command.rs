//! Commands in a known environment: the program under test, Git, and other tools.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// Returns the path of the program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rally-hook"))
}

/// Copies the program under test.
///
/// `cp` does it because a program that is open for writing cannot be run: a file that this process had open might be
/// inherited, still open, by what another test starts at that moment.
pub fn copy_program(to: &Path) {
    copy(program(), to);
}

/// Copies a file or a directory with all that it holds.
pub fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-r").arg(from).arg(to);
    ran(command).succeeds();
}

/// Copies a repository with what is queued in it, and lets the copy forget that it is one.
pub fn twin(from: &Path, to: &Path) {
    copy(from, to);
    let database = rusqlite::Connection::open(to.join("rally-hook/queue.db")).expect("a database");
    database.execute("DELETE FROM meta WHERE key = 'home'", []).expect("it can be written");
}

/// Writes these files below a directory; `None` deletes one.
pub fn change_files(dir: &Path, files: &[(&str, Option<&str>)]) {
    for (name, text) in files {
        let path = dir.join(name);
        match text {
            Some(text) => {
                fs::create_dir_all(path.parent().expect("a file has a directory")).expect("directories can be made");
                fs::write(path, text).expect("files can be written");
            }
            None => fs::remove_file(path).expect("the file was there"),
        }
    }
}

/// Returns a command that gets nothing of this machine's environment but `PATH`.
pub fn hermetic(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let fixed = [
        // Nobody can make it.
        ("HOME", "/proc/nonexistent"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Jane Roe"),
        ("GIT_AUTHOR_EMAIL", "jane.roe@acme.example"),
        ("GIT_COMMITTER_NAME", "John Doe"),
        ("GIT_COMMITTER_EMAIL", "john.doe@acme.example"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("TZ", "UTC"),
        ("LC_ALL", "C"),
    ];
    command.envs(fixed);
    if is_new_format() {
        command.env("GIT_DEFAULT_HASH", "sha256").env("GIT_DEFAULT_REF_FORMAT", "reftable");
    }
    command
}

/// Tells whether repositories are made in the format that Git 3.0 makes by default: SHA-256 and reftable. `.ci/run` runs
/// the files that depend on the format a second time with it, and with `--long` all tests.
pub fn is_new_format() -> bool {
    std::env::var_os("RALLY_HOOK_TEST_FORMAT").is_some_and(|format| format == "sha256-reftable")
}

/// Returns an object's name that is made of one digit: no object has it.
pub fn name_of(digit: char) -> String {
    digit.to_string().repeat(if is_new_format() { 64 } else { 40 })
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
    /// Asserts that the program ended with exit code 0.
    pub fn succeeds(self) -> Self {
        assert!(self.success, "{self:?}");
        self
    }

    /// Asserts that the program ended with this exit code.
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

/// Runs a command without input.
pub fn ran(mut command: Command) -> Ran {
    Ran::from(command.stdin(Stdio::null()).output().expect("the program can be run"))
}

/// Runs Git in a directory and returns its output without the last line break.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = hermetic("git");
    command.current_dir(directory).args(arguments);
    output_text(command, b"")
}

/// Runs a command with this input and returns its output without the last line break; panics if it fails.
pub fn output_text(command: Command, input: &[u8]) -> String {
    String::from_utf8_lossy(&output_bytes(command, input)).trim_end_matches('\n').to_owned()
}

/// Runs a command with this input and returns its output; panics if it fails.
pub fn output_bytes(mut command: Command, input: &[u8]) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // Not every command reads its input, and one that does may write much before it has read all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("the program ends")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a command with this input and returns what it printed to stderr; panics if it fails.
pub fn output_of(mut command: Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    child.stdin.take().expect("a pipe").write_all(input).expect("the program reads its input");
    Ran::from(child.wait_with_output().expect("the program ends")).succeeds().stderr
}

/// Says that a test, or a part of it, is skipped: past the test runner, which does not show what a test that passes prints.
pub fn skipped(why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(io::stderr(), "{test} is skipped: {why}").expect("standard error can be written");
}
