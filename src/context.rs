//! What every command works with: the repository's place, its configuration, its state and the log.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{self, Config};
use crate::log::Log;
use crate::queue::{Queue, Sharing, StateDir};
use crate::{git, queue};

/// How long a statement waits for another process that writes to the queue.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Git(#[from] git::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

pub struct Context {
    /// Absolute.
    pub git_dir: PathBuf,
    pub config: Config,
    /// The file that was named for it, if one was.
    config_file: Option<PathBuf>,
    pub state: StateDir,
    pub log: Log,
}

impl Context {
    /// Loads what is known about the repository.
    pub fn load(git_dir: PathBuf, config_file: Option<&Path>) -> Result<Self, Error> {
        let config = Config::load(config_file, &git_dir)?;
        Ok(Context { config_file: config_file.map(Path::to_owned), ..Context::new(git_dir, config)? })
    }

    /// Loads the configuration again.
    pub fn reloaded(&self) -> Result<Self, config::Error> {
        let config = Config::load(self.config_file.as_deref(), &self.git_dir)?;
        Ok(Context::with_state(self.git_dir.clone(), config, self.config_file.clone(), self.state.clone()))
    }

    pub fn new(git_dir: PathBuf, config: Config) -> Result<Self, queue::Error> {
        let state = StateDir::open(&git_dir, sharing(&git_dir))?;
        Ok(Context::with_state(git_dir, config, None, state))
    }

    pub fn with_state(git_dir: PathBuf, config: Config, config_file: Option<PathBuf>, state: StateDir) -> Self {
        let log = Log::new(&config.log, &git_dir, &state);
        Context { git_dir, config, config_file, state, log }
    }

    /// Opens the queue. A damaged one is set aside and replaced, which is told on stderr and in the log.
    pub fn open_queue(&self) -> Result<Queue, queue::Error> {
        open_queue(&self.state, PATIENCE, |message| {
            self.log.error(message);
            crate::messages::tell(message);
        })
    }

    pub fn open_repository(&self) -> Result<git::Repository, git::Error> {
        git::Repository::open(&self.git_dir)
    }

    /// Returns what tells where Changesets go to: server, workspace and SCMRepository.
    pub fn destination(&self) -> String {
        let rally = &self.config.rally;
        format!("{}\n{}\n{}", rally.server, rally.workspace.as_deref().unwrap_or_default(), self.repository_name())
    }

    /// Returns the name of the SCMRepository: the configured one, else the directory's without `.git`.
    pub fn repository_name(&self) -> String {
        self.config.repository.name.clone().unwrap_or_else(|| directory_name(&self.git_dir))
    }
}

/// Opens a queue; if it turns out to be damaged, here or where it is used, replaces it.
pub fn open_queue(state: &StateDir, patience: Duration, tell: impl Fn(&str)) -> Result<Queue, queue::Error> {
    match Queue::open(state, patience) {
        Err(error) if error.is_damage() => {
            replace_damaged_queue(state, tell)?;
            Queue::open(state, patience)
        }
        other => other,
    }
}

/// Sets a damaged queue aside and says so.
pub fn replace_damaged_queue(state: &StateDir, tell: impl Fn(&str)) -> Result<(), queue::Error> {
    let aside = Queue::replace_damaged(state)?;
    if aside != state.database() {
        tell(&format!(
            "the queue was damaged; it is kept as {}, and what could be read was taken over. \
             Run `rally-hook backfill` over the last pushes to be sure that nothing is missing",
            aside.display()
        ));
    }
    Ok(())
}

/// Tells whether several users of one group work with the repository.
pub fn sharing(git_dir: &Path) -> Sharing {
    match git::is_shared(git_dir) {
        true => Sharing::Group,
        false => Sharing::Owner,
    }
}

fn directory_name(git_dir: &Path) -> String {
    let own = git_dir.file_name().unwrap_or_default().to_string_lossy();
    match own.as_ref() {
        // A repository with a work tree is known by that.
        ".git" => git_dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned(),
        own => own.strip_suffix(".git").unwrap_or(own).to_owned(),
    }
}

/// Returns the time in milliseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_after_its_directory() {
        for (dir, name) in
            [("/srv/git/payments.git", "payments"), ("/srv/git/payments", "payments"), ("/home/a/work/.git", "work")]
        {
            assert_eq!(directory_name(Path::new(dir)), name);
        }
    }
}
