//! The log file: one line an event, rotated by size. It never fails anything: what cannot be written is dropped.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::config::{self, Level};
use crate::queue::StateDir;
use crate::text;

/// At this size the log is moved to `log.1`, whose predecessor goes: at most twice this is kept.
const MAX_SIZE: u64 = 5 * 1024 * 1024;

/// Longer events are cut, in bytes.
const MAX_EVENT: usize = 4096;

pub(crate) struct Log {
    path: PathBuf,
    level: Level,
    dir: StateDir,
}

impl Log {
    pub(crate) fn new(config: &config::Log, git_dir: &Path, dir: &StateDir) -> Self {
        Log { path: git_dir.join(&config.file), level: config.level, dir: dir.clone() }
    }

    pub(crate) fn error(&self, event: &str) {
        self.write(Level::Error, event);
    }

    pub(crate) fn info(&self, event: &str) {
        self.write(Level::Info, event);
    }

    /// Writes an event unless its level is not wanted.
    pub(crate) fn write(&self, level: Level, event: &str) {
        if level > self.level {
            return;
        }
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= MAX_SIZE) {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            let _ = fs::rename(&self.path, older);
        }
        let line = format!(
            "{} {} [{}] {}\n",
            clock::now(),
            level.name(),
            std::process::id(),
            text::cut(&text::printable(event), MAX_EVENT)
        );
        // One write to a file opened for appending: lines of several processes do not mix.
        let opened = self.dir.open_file(&self.path, OpenOptions::new().create(true).append(true));
        let _ = opened.map(|mut file| file.write_all(line.as_bytes()));
    }
}
