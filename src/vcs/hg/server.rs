//! Mercurial's command server: one process of `hg` that is asked several things. To start one takes a tenth of a second, and
//! what it is asked comes through a pipe, where a list of thousands of heads has room (`hg help -e commandserver`, and
//! <https://www.mercurial-scm.org/wiki/CommandServer>).

use std::io::{self, BufReader, PipeWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::HG;
use crate::environment::variable;
use crate::files::{self, Links};
use crate::text::readable;
use crate::vcs::Error;
use crate::vcs::program::{self, Output, Running, SILENCE};

/// So much of what a command says on stderr is kept, in bytes.
const MAX_MESSAGE: usize = 16 * 1024;
/// What a server sends at once is shorter, in bytes.
const LARGEST_MESSAGE: u32 = 256 * 1024 * 1024;
/// No line of text that is posted is as long, in bytes.
const LONGEST_LINE: usize = 256 * 1024 * 1024;
/// The length of a message's header: the channel, and the length of the rest.
const HEADER: usize = 5;

/// The extensions that come with Mercurial and that a repository may not be readable without.
const EXTENSIONS: [&str; 3] = ["largefiles", "lfs", "git"];
/// No list of requirements is longer, in bytes.
const MAX_REQUIREMENTS: u64 = 64 * 1024;

/// A server that is at work on a repository.
pub(super) struct Server {
    repo_dir: PathBuf,
    running: Running<'static>,
    requests: PipeWriter,
    answers: BufReader<Output>,
}

/// How a command ended, and whether its server can be asked more.
pub(super) enum Ended {
    Well(Server),
    /// Nobody wanted the rest.
    Stopped,
    /// With what it said.
    Failed(String),
}

/// Returns `hg`: the one that runs the hook, or that is found by PATH.
pub(super) fn command() -> Command {
    let is_program = |path: &PathBuf| {
        path.is_absolute() && path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let named = variable("HG").map(PathBuf::from).filter(is_program);
    let mut hg = named.map_or_else(|| program::command(HG), Command::new);
    // No aliases, defaults, pager or translation; but what those who use this machine have configured for Mercurial counts,
    // because without an extension of theirs it might not read its repositories.
    hg.env("HGPLAIN", "1").env_remove("HGPLAINEXCEPT").env("HGENCODING", "utf-8");
    // A hook's variables, which would show a transaction that is not over.
    hg.env_remove("HG_PENDING").env_remove("HG_SHAREDPENDING").current_dir("/");
    hg
}

impl Server {
    /// Starts a server for the repository whose `.hg` this is. It runs nothing that the repository's own configuration
    /// names: that is not read.
    pub(super) fn start(repo_dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Run { program: HG, source };
        let (input, requests) = io::pipe().map_err(failed)?;
        let mut command = command();
        // Mercurial knows this variable since 5.7. Older versions read the configuration of a repository of the same user.
        command.env("HGRCSKIPREPO", "1").args(["serve", "--cmdserver", "pipe", "--noninteractive", "--repository"]);
        // Its path may hold what Mercurial would take for a variable.
        command.arg(".").current_dir(repo_dir.parent().unwrap_or(repo_dir));
        for extension in required(repo_dir) {
            command.args(["--config", &format!("extensions.{extension}=")]);
        }
        let (running, answers) = program::start(HG, &mut command, Path::new(""), Stdio::from(input), SILENCE)?;
        // It has the other end, which must close when the server ends.
        drop(command);
        let mut server = Server { repo_dir: repo_dir.to_owned(), running, requests, answers };
        match server.message() {
            Ok(_) => Ok(server),
            Err(_) => Err(server.dead()),
        }
    }

    /// Runs a command and hands over each line that it prints, without its end; stops when `take` says so.
    pub(super) fn run(mut self, arguments: &[&str], take: &mut dyn FnMut(&[u8]) -> bool) -> Result<Ended, Error> {
        let request = arguments.join("\0");
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let request = [b"runcommand\n", &length.to_be_bytes()[..], request.as_bytes()].concat();
        if self.requests.write_all(&request).is_err() {
            return Err(self.dead());
        }
        let (mut line, mut said) = (Vec::new(), Vec::new());
        loop {
            let Ok((channel, data)) = self.message() else { return Err(self.dead()) };
            match channel {
                b'o' => {
                    let mut rest = &data[..];
                    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                        line.extend_from_slice(&rest[..end]);
                        rest = &rest[end + 1..];
                        if !take(&line) {
                            self.running.stop();
                            return Ok(Ended::Stopped);
                        }
                        line.clear();
                    }
                    line.extend_from_slice(rest);
                    if line.len() > LONGEST_LINE {
                        self.running.stop();
                        return Ok(Ended::Failed(format!("a changeset has more than {LONGEST_LINE} bytes of text")));
                    }
                }
                b'e' => said.extend(data.iter().take(MAX_MESSAGE.saturating_sub(said.len()))),
                b'r' if data.iter().all(|&byte| byte == 0) => return Ok(Ended::Well(self)),
                // What it answers after an error is not to be relied on.
                b'r' => {
                    self.running.stop();
                    return Ok(Ended::Failed(words(&said)));
                }
                // It asks for input, and is told that there is none.
                b'I' | b'L' => drop(self.requests.write_all(&0_u32.to_be_bytes())),
                _ => {}
            }
        }
    }

    /// Lets the server end.
    pub(super) fn end(self) {
        drop(self.requests);
        let _ = self.running.end();
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.answers.read_exact(&mut header)?;
        let [channel, length @ ..] = header;
        if matches!(channel, b'I' | b'L') {
            return Ok((channel, Vec::new()));
        }
        let length = u32::from_be_bytes(length);
        if length > LARGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut data = Vec::new();
        match (&mut self.answers).take(length.into()).read_to_end(&mut data)? {
            read if read as u64 == u64::from(length) => Ok((channel, data)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Returns why a server that does not answer has ended.
    fn dead(self) -> Error {
        drop((self.requests, self.answers));
        let message = match self.running.end() {
            Err(Error::Says { message, .. }) => words(message.as_bytes()),
            Err(error) => return error,
            Ok(()) => "its command server ended".into(),
        };
        Error::Says { program: HG, path: self.repo_dir, message }
    }
}

/// Returns the extensions that a repository names as its requirements.
fn required(repo_dir: &Path) -> impl Iterator<Item = &'static str> {
    let read = |name| files::read(&repo_dir.join(name), MAX_REQUIREMENTS, Links::Follow).unwrap_or_default();
    let required = [read("requires"), read("store/requires")].concat();
    EXTENSIONS.into_iter().filter(move |name| required.split(|&byte| byte == b'\n').any(|line| line == name.as_bytes()))
}

/// Returns what Mercurial says on stderr, without warnings and stack traces before the error.
fn words(said: &[u8]) -> String {
    let text = readable(said);
    program::message(match text.find("abort: ") {
        Some(at) => &text[at + "abort: ".len()..],
        None if text.contains("Traceback ") => text.trim_end().lines().next_back().unwrap_or_default(),
        None => &text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_without_what_is_before_it() {
        for (said, expected) in [
            ("warning: x\nabort: unknown revision 'nix'\n(see help)\n", "unknown revision 'nix' (see help)"),
            (
                "hg: parse error at 4: not a prefix: end\n(foo(\n    ^ here)\n",
                "hg: parse error at 4: not a prefix: end (foo( ^ here)",
            ),
            ("Traceback (most recent call last):\n  File x\nzlib.error: bad\n", "zlib.error: bad"),
        ] {
            assert_eq!(words(said.as_bytes()), expected);
        }
    }
}
