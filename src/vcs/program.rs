//! Programs that read a repository for us.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::Error;
use crate::text::readable;
use crate::{files, process};

/// A program that writes nothing for so long hangs, on a file system that does not answer for example.
pub(super) const SILENCE: Duration = Duration::from_secs(600);

/// No answer of a program to a short question is longer, in bytes.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// So much of what a program says on stderr is kept, in bytes.
const MAX_MESSAGE: u64 = 16 * 1024;
/// How long the last words of a program that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is told of a program that fails without a word.
pub(super) const NO_REASON: &str = "it gave no reason";

/// A program that is at work.
pub(super) struct Running<'p> {
    program: &'static str,
    /// What it is about, for messages.
    path: &'p Path,
    child: Child,
    stderr: Receiver<Vec<u8>>,
    /// How long it may write nothing, and whether it has.
    limit: Duration,
    hangs: Arc<AtomicBool>,
}

/// What a program writes. A read fails if the program hangs.
pub(super) struct Output {
    stdout: ChildStdout,
    limit: Duration,
    hangs: Arc<AtomicBool>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !process::is_readable_within(&self.stdout, self.limit)? {
            self.hangs.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stdout.read(buffer)
    }
}

/// Returns the command that runs a program, found by PATH, which may be empty in a hook.
pub(super) fn command(program: &'static str) -> Command {
    Command::new(files::program(program).unwrap_or_else(|| Path::new("/usr/bin").join(program)))
}

/// Starts a program that reads a repository, which may be silent for so long. Returns what it writes as it writes it.
pub(super) fn start<'p>(
    program: &'static str,
    command: &mut Command,
    path: &'p Path,
    input: Stdio,
    limit: Duration,
) -> Result<(Running<'p>, BufReader<Output>), Error> {
    let failed = |source| Error::Run { program, source };
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    let stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let (said, message) = channel();
    let listener = thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let _ = stderr.by_ref().take(MAX_MESSAGE).read_to_end(&mut kept);
        let _ = said.send(kept);
        // It must not wait for a reader.
        let _ = io::copy(&mut stderr, &mut io::sink());
    });
    listener.map_err(Error::Thread)?;
    let hangs = Arc::new(AtomicBool::new(false));
    let output = Output { stdout, limit, hangs: Arc::clone(&hangs) };
    Ok((Running { program, path, child, stderr: message, limit, hangs }, BufReader::new(output)))
}

impl Running<'_> {
    /// Waits for the end.
    ///
    /// # Errors
    /// With the program's own words if it failed. One that hangs is killed.
    pub(super) fn end(mut self) -> Result<(), Error> {
        if self.hangs.load(Ordering::Relaxed) {
            let message = format!("nothing for {}, so it was killed", humantime::format_duration(self.limit));
            let error = Error::Says { program: self.program, path: self.path.to_owned(), message };
            self.stop();
            return Err(error);
        }
        let status = self.child.wait().map_err(|source| Error::Run { program: self.program, source })?;
        if status.success() {
            return Ok(());
        }
        // A child of its own may hold its stderr.
        let stderr = self.stderr.recv_timeout(LAST_WORDS).unwrap_or_default();
        Err(Error::Says { program: self.program, path: self.path.to_owned(), message: message(&readable(&stderr)) })
    }

    /// Ends it, where nobody wants the rest.
    pub(super) fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program and returns what it prints, which is little.
pub(super) fn ask(program: &'static str, command: &mut Command, path: &Path) -> Result<Vec<u8>, Error> {
    let (running, stdout) = start(program, command, path, Stdio::null(), SILENCE)?;
    let mut printed = Vec::new();
    // A program that writes more than that finds its output closed, and ends.
    let read = stdout.take(MAX_ANSWER).read_to_end(&mut printed).map_err(|source| Error::Run { program, source });
    running.end()?;
    read.map(|_| printed)
}

/// Returns the words of a program on one line.
pub(super) fn message(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { NO_REASON.into() } else { lines.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_and_named() {
        let (mut sleep, path) = (Command::new("sleep"), Path::new("/repo"));
        let limit = Duration::from_millis(20);
        let (running, mut output) = start("sleep", sleep.arg("600"), path, Stdio::null(), limit).expect("it starts");
        output.read_to_end(&mut Vec::new()).expect_err("it writes nothing");
        let error = running.end().expect_err("it hangs").to_string();
        assert_eq!(error, "/repo: sleep says: nothing for 20ms, so it was killed");
    }
}
