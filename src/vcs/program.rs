//! Programs that read a repository for us.

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use super::Error;
use crate::files;
use crate::text::readable;

/// So much of what a program says on stderr is kept, in bytes.
const MAX_MESSAGE: u64 = 16 * 1024;
/// What is told of a program that fails without a word.
pub(super) const NO_REASON: &str = "it gave no reason";

/// A program that is at work.
pub(super) struct Running<'p> {
    program: &'static str,
    /// What it is about, for messages.
    path: &'p Path,
    child: Child,
    stderr: JoinHandle<Vec<u8>>,
}

/// Returns the command that runs a program, found by PATH, which may be empty in a hook.
pub(super) fn command(program: &'static str) -> Command {
    Command::new(files::program(program).unwrap_or_else(|| Path::new("/usr/bin").join(program)))
}

/// Starts a program that reads a repository. Returns what it writes as it writes it.
pub(super) fn start<'p>(
    program: &'static str,
    command: &mut Command,
    path: &'p Path,
) -> Result<(Running<'p>, BufReader<ChildStdout>), Error> {
    start_with(program, command, path, Stdio::null())
}

/// Does the same with an input.
pub(super) fn start_with<'p>(
    program: &'static str,
    command: &mut Command,
    path: &'p Path,
    input: Stdio,
) -> Result<(Running<'p>, BufReader<ChildStdout>), Error> {
    let failed = |source| Error::Run { program, source };
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let stderr = thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let _ = stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut kept);
        // It must not wait for a reader.
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        kept
    });
    let stderr = stderr.map_err(Error::Thread)?;
    Ok((Running { program, path, child, stderr }, BufReader::new(stdout)))
}

impl Running<'_> {
    /// Waits for the end.
    ///
    /// # Errors
    /// With the program's own words if it failed.
    pub(super) fn end(mut self) -> Result<(), Error> {
        let status = self.child.wait().map_err(|source| Error::Run { program: self.program, source })?;
        let stderr = self.stderr.join().expect("it does not panic");
        if status.success() {
            return Ok(());
        }
        Err(Error::Says { program: self.program, path: self.path.to_owned(), message: message(&stderr) })
    }

    /// Ends it, where nobody wants the rest.
    pub(super) fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program and returns all that it prints, which is known to be little.
pub(super) fn ask(program: &'static str, command: &mut Command, path: &Path) -> Result<Vec<u8>, Error> {
    let (running, mut stdout) = start(program, command, path)?;
    let mut printed = Vec::new();
    let read = stdout.read_to_end(&mut printed).map_err(|source| Error::Run { program, source });
    running.end()?;
    read.map(|_| printed)
}

fn message(stderr: &[u8]) -> String {
    let text = readable(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { NO_REASON.into() } else { lines.join(" ") }
}
