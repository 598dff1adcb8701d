//! The log: one line an event, as `key=value`, to a file, syslog or the journal. It never fails anything: what cannot be
//! written is dropped, and `doctor` says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::config::{self, Level, LogTarget};
use crate::queue::{self, StateDir};
use crate::{PROGRAM, clock, text};

/// At this size the log is moved to `log.1`, whose predecessor goes: at most twice this is kept.
const MAX_SIZE: u64 = 5 * 1024 * 1024;

/// Longer values are cut, in bytes.
const MAX_VALUE: usize = 4096;

/// A file that need not be one: a service manager gives a service a socket.
const STDERR: &str = "/dev/stderr";
/// Where syslog and systemd's journal take events (`man 3 syslog`, `man 7 systemd.journal-fields`).
const SYSLOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Of the numbers of syslog: daemons that have none of their own.
const FACILITY: u8 = 3;

pub(crate) struct Log {
    target: LogTarget,
    path: PathBuf,
    level: Level,
    /// `None` for a service that works for no single repository.
    dir: Option<StateDir>,
    repository: String,
}

impl Log {
    pub(crate) fn new(config: &config::Log, dir: &StateDir) -> Self {
        Log {
            target: config.target,
            path: dir.file(&config.file),
            level: config.level,
            dir: Some(dir.clone()),
            repository: dir.repo_dir().to_string_lossy().into_owned(),
        }
    }

    /// Makes the log of a service for a repository of another host: to standard error, unless a file is named with its
    /// whole path.
    pub(crate) fn of_service(config: &config::Log, repository: &str) -> Self {
        let path = if config.file.is_absolute() { config.file.clone() } else { STDERR.into() };
        Log { target: config.target, path, level: config.level, dir: None, repository: repository.to_owned() }
    }

    /// Writes an event of the repository unless its level is not wanted.
    pub(crate) fn write(&self, level: Level, event: &str, fields: &[(&str, String)], message: &str) {
        if level > self.level {
            return;
        }
        let _ = match self.target {
            LogTarget::File => self.write_to_file(level, event, fields, message),
            LogTarget::Syslog => {
                let start = format!("<{}>{PROGRAM}[{}]: ", FACILITY * 8 + priority(level), std::process::id());
                send(SYSLOG, &(start + &self.line(event, fields, message)))
            }
            LogTarget::Journal => send(JOURNAL, &self.journal_entry(level, event, fields, message)),
        };
    }

    /// Tells where events go, once it was tried whether they can.
    ///
    /// # Errors
    /// If the file cannot be written, or nobody takes events.
    pub(crate) fn check(&self) -> Result<String, queue::Error> {
        let socket = |path: &str| {
            let tried = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
            tried.map(|()| path.to_owned()).map_err(|source| queue::Error::Directory { path: path.into(), source })
        };
        match self.target {
            LogTarget::File if self.path == Path::new(STDERR) => Ok(STDERR.to_owned()),
            LogTarget::File => self.open().map(|_| self.path.display().to_string()),
            LogTarget::Syslog => socket(SYSLOG),
            LogTarget::Journal => socket(JOURNAL),
        }
    }

    fn write_to_file(&self, level: Level, event: &str, fields: &[(&str, String)], message: &str) -> io::Result<()> {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.is_file() && meta.len() >= MAX_SIZE) {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            let _ = fs::rename(&self.path, older);
        }
        let start = format!("time={} level={} pid={} ", clock::now(), level.name(), std::process::id());
        // One write to a file opened for appending: lines of several processes do not mix.
        let line = start + &self.line(event, fields, message) + "\n";
        match self.path == Path::new(STDERR) {
            true => io::stderr().write_all(line.as_bytes()),
            false => self.open().map_err(io::Error::other)?.write_all(line.as_bytes()),
        }
    }

    fn open(&self) -> Result<File, queue::Error> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        match &self.dir {
            Some(dir) => dir.open_file(&self.path, &mut options),
            None => {
                let opened = options.mode(0o600).open(&self.path);
                opened.map_err(|source| queue::Error::Directory { path: self.path.clone(), source })
            }
        }
    }

    fn line(&self, event: &str, fields: &[(&str, String)], message: &str) -> String {
        let start = format!("repository={} event={event}", value(&self.repository));
        let with_fields = fields.iter().fold(start, |line, (key, text)| line + &format!(" {key}={}", value(text)));
        with_fields + " message=" + &value(message)
    }

    /// Returns an entry in the journal's own form, one `FIELD=value` a line.
    fn journal_entry(&self, level: Level, event: &str, fields: &[(&str, String)], message: &str) -> String {
        let clean = |text: &str| text::cut(&text::printable(text), MAX_VALUE).to_owned();
        let mut entry = format!(
            "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={PROGRAM}\nRALLY_REPOSITORY={}\nRALLY_EVENT={event}\n",
            clean(message),
            priority(level),
            clean(&self.repository)
        );
        for (key, text) in fields {
            entry += &format!("RALLY_{}={}\n", key.to_uppercase(), clean(text));
        }
        entry
    }
}

/// Returns a value as it stands behind `key=`: in quotes unless it is one plain word.
fn value(text: &str) -> String {
    let shown = text::printable(text);
    let shown = text::cut(&shown, MAX_VALUE);
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\\' | '=');
    match !shown.is_empty() && shown.chars().all(is_plain) {
        true => shown.to_owned(),
        false => format!("\"{}\"", shown.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Returns the level as syslog numbers it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

/// Sends an event to a socket of this host. A receiver that is behind is not waited for.
fn send(socket: &str, event: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to(event.as_bytes(), socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_unless_it_is_one_plain_word() {
        for (text, expected) in [
            ("US1,DE2", "US1,DE2"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("x\nlevel=error\u{1b}[31m", "\"x level=error?[31m\""),
        ] {
            assert_eq!(value(text), expected);
        }
    }
}
