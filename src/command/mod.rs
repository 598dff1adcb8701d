//! The subcommands, one file each. This file finds the repository that a command is about, loads its settings and opens
//! its queue, and hands them down.

mod as_owner;
mod backfill;
mod catch_up;
mod completions;
mod config;
mod deliver;
mod doctor;
mod fleet;
mod fleet_status;
mod forget;
mod hgrc;
mod hook_file;
mod hooks;
mod identity;
mod install;
mod letters;
mod man;
mod many;
mod neighbours;
mod poll;
mod post_commit;
pub(crate) mod post_receive;
mod prometheus;
mod retry;
mod status;
mod status_ledger;
mod status_table;
mod store;
mod worker;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::{Cli, Command, Place};
use crate::clock::now;
use crate::config::{self as configuration, Config, Level, StoreAccess};
use crate::environment::variable;
use crate::files::Owners;
use crate::log::Log;
use crate::messages::tell;
use crate::process;
use crate::queue::{self, Claim, Home, LedgerError, Notice, Queue, Sharing, StateDir, Store};
use crate::record::{self, Recorder, Rules};
use crate::time::Time;
use crate::vcs::{self, Kind, Named, Repository};
use crate::worker::{self as delivery, Forwarder, Ledgers};

/// How long a statement waits for another process that writes to the queue.
const PATIENCE: Duration = Duration::from_secs(30);

/// The event of the log that tells what was recorded, and what could not be.
const RECORD: &str = "recorded";

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// Something was not done; what it was has been said.
    NotAll,
}

impl Ended {
    fn done_if(all: bool) -> Self {
        if all { Ended::Done } else { Ended::NotAll }
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] configuration::Error),
    #[error(transparent)]
    Repository(#[from] vcs::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Worker(#[from] delivery::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("cannot {doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot find this program's own file")]
    OwnFile(#[source] io::Error),
    #[error("cannot start the delivery; run `rally-hook deliver`")]
    Background(#[source] io::Error),
    #[error("the kernel gives no notices of pushes (man 7 inotify)")]
    Notices(#[source] io::Error),
    #[error("a bug in rally-hook, please report it: {0}")]
    Bug(String),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl From<record::Error> for Error {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::Repository(error) => error.into(),
            record::Error::Queue(error) => error.into(),
        }
    }
}

impl Error {
    /// Exit codes: 1 where something was not done, 2 for wrong usage or configuration.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let is_usage = matches!(
            self,
            Error::Config(_)
                | Error::Worker(delivery::Error::Config(_))
                | Error::Usage(_)
                | Error::Repository(
                    vcs::Error::NoRepository(_)
                        | vcs::Error::Range { .. }
                        | vcs::Error::Date(_)
                        | vcs::Error::Config(_)
                )
        );
        ExitCode::from(if is_usage { 2 } else { 1 })
    }

    /// Tells whether the reader of our output has gone away, which is no failure.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

pub(crate) fn run(cli: Cli) -> Result<Ended, Error> {
    let place = cli.place;
    match cli.command {
        Command::PostReceive { hook } => Ok(post_receive::run(&place, hook.as_deref())),
        Command::RefUpdated(update) => Ok(post_receive::run_ref_updated(&place, &update)),
        Command::PostCommit(event) => post_commit::run(&place, hook_file::POST_COMMIT, &event.arguments),
        Command::PostRevpropChange(event) => post_commit::run(&place, hook_file::POST_REVPROP_CHANGE, &event.arguments),
        Command::Txnclose => Ok(post_commit::run_txnclose(&place)),
        Command::Backfill(arguments) => backfill::run(&place, &arguments),
        Command::Deliver(arguments) => deliver::run(&place, &arguments),
        Command::Worker(arguments) => worker::run(&place, &arguments),
        Command::CatchUp(many) => catch_up::run(&place, &many),
        Command::Status(arguments) => status::run(&place, &arguments),
        Command::Retry(arguments) => retry::run(&place, &arguments),
        Command::Forget { revisions } => forget::run(&place, &revisions),
        Command::Install(arguments) => install::install(&place, &arguments),
        Command::Uninstall(many) => install::uninstall(&place, &many),
        Command::Config(arguments) => config::run(&place, &arguments),
        Command::Doctor(arguments) => doctor::run(&place, &arguments),
        Command::Store(action) => store::run(&place, &action),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { page } => man::run(page.as_deref()),
    }
}

/// The repository that a command is about.
struct Site {
    /// Absolute.
    repo_dir: PathBuf,
    config: Config,
    /// The file that was named for it, if one was.
    config_file: Option<PathBuf>,
    state: StateDir,
    log: Log,
    /// What the queue knows of the repository, once it was asked.
    home: Home,
    ledgers: Arc<Ledgers>,
}

impl Site {
    /// Finds the repository and loads its settings.
    fn open(place: &Place) -> Result<Self, Error> {
        let repo_dir = repo_dir(place)?;
        let (config, config_file) = find_config(place, &repo_dir)?;
        let mut site = Site { config_file, ..Site::with_config(repo_dir, config)? };
        let mut store = Store::new(site.state.clone(), PATIENCE);
        let settled = site.settle_name(&mut store, None);
        site.tell_notices(&store);
        settled.map(|()| site)
    }

    fn with_config(repo_dir: PathBuf, config: Config) -> Result<Self, queue::Error> {
        let state = state_dir(&repo_dir, config.queue.dir.as_deref())?;
        Ok(Site::with_state(repo_dir, config, state))
    }

    fn with_state(repo_dir: PathBuf, config: Config, state: StateDir) -> Self {
        let log = Log::new(&config.log, &state);
        Site { repo_dir, config, config_file: None, state, log, home: Home::default(), ledgers: Arc::default() }
    }

    /// Loads the settings again, which may have been changed since.
    fn reload(&self) -> Result<Config, configuration::Error> {
        let mut config = load_config(self.config_file.as_deref(), &self.repo_dir)?;
        identity::identify(&mut config, &self.home);
        Ok(config)
    }

    fn repository(&self) -> Result<Repository, vcs::Error> {
        Repository::open(&self.repo_dir, &self.config)
    }

    fn log_error(&self, event: &str, message: &str) {
        self.log.write(Level::Error, event, &[], message);
    }

    /// Does some work on the queue. If its database is damaged it is replaced, which is told on stderr and in the log,
    /// and the work is done again.
    fn with_queue<T>(&self, mut work: impl FnMut(&mut Queue) -> Result<T, Error>) -> Result<T, Error> {
        let mut store = Store::new(self.state.clone(), PATIENCE);
        let done = store.run(&mut work);
        self.tell_notices(&store);
        done
    }

    fn tell_notices(&self, store: &Store) {
        for notice in store.notices() {
            tell(self.note(notice));
        }
    }

    /// Writes to the log what people should know of the queue, and returns it.
    fn note<'n>(&self, notice: &'n Notice) -> &'n str {
        let (level, event, text) = match notice {
            Notice::Replaced(text) => (Level::Error, "queue-damaged", text),
            Notice::Relocated(text) => (Level::Warn, "relocated", text),
        };
        self.log.write(level, event, &[], text);
        text
    }

    /// Asks the ledger, if there is one, what other servers have recorded of a repository of which nothing is recorded here.
    /// Returns whether they have.
    fn learn_history(&self) -> Result<bool, Error> {
        let Some(access) = self.config.queue.store_access()? else { return Ok(false) };
        let repository = self.repository()?;
        self.with_queue(|queue| Ok(self.forwarder(&access).learn_history(&repository, queue)?))
    }

    /// Forwards what the queue holds to the ledger, if there is one, unless another process does.
    fn forward(&self) -> Result<(), Error> {
        let Some(access) = self.config.queue.store_access()? else { return Ok(()) };
        let Some(_claim) = self.state.try_claim(Claim::Delivery)? else { return Ok(()) };
        self.with_queue(|queue| Ok(self.forwarder(&access).forward(queue, false, &mut |_| ())?))
    }

    fn forwarder<'s>(&'s self, access: &'s StoreAccess) -> Forwarder<'s> {
        let Site { repo_dir, config, ledgers, .. } = self;
        Forwarder { repo_dir, config, access, ledgers, host: process::host_name() }
    }

    /// Does some recording. What cannot be read is told on stderr and in the log.
    fn with_recorder<T>(&self, mut work: impl FnMut(&mut Recorder) -> Result<T, record::Error>) -> Result<T, Error> {
        let (repository, rules) = (&self.repository()?, Rules::new(&self.config));
        let report = |level: Level, message: &str| {
            self.log.write(level, RECORD, &[], message);
            tell(message);
        };
        self.with_queue(|queue| Ok(work(&mut Recorder { repository, queue, rules: &rules, report: &report })?))
    }
}

/// Loads the settings of the repository that a command is about. Returns them with the file that was named for it, if one
/// was.
fn find_config(place: &Place, repo_dir: &Path) -> Result<(Config, Option<PathBuf>), configuration::Error> {
    let file = config_file(place, repo_dir)?;
    Ok((load_config(file.as_deref(), repo_dir)?, file))
}

/// Loads the settings of a repository.
fn load_config(named: Option<&Path>, repo_dir: &Path) -> Result<Config, configuration::Error> {
    load_config_of(named, repo_dir, owners(repo_dir))
}

/// Does the same, if it is known whose files count.
fn load_config_of(named: Option<&Path>, repo_dir: &Path, owners: Owners) -> Result<Config, configuration::Error> {
    let mut config = configuration::load(named, repo_dir, owners)?;
    config.repository.scm_type = Kind::of(repo_dir);
    Ok(config)
}

/// Returns the users whose files count in a repository.
fn owners(repo_dir: &Path) -> Owners {
    Owners::of_repository(repo_dir, sharing(repo_dir) == Sharing::Group)
}

fn sharing(repo_dir: &Path) -> Sharing {
    if vcs::is_shared(repo_dir) { Sharing::Group } else { Sharing::Owner }
}

/// Returns the directory with a repository's state: below `base`, if the configuration names one.
fn state_dir(repo_dir: &Path, base: Option<&Path>) -> Result<StateDir, queue::Error> {
    StateDir::open(repo_dir, sharing(repo_dir), base)
}

/// Returns the directory below which the state is to lie, if the configuration can be read and names one.
fn state_base(place: &Place, repo_dir: &Path) -> Option<PathBuf> {
    find_config(place, repo_dir).ok()?.0.queue.dir
}

/// Returns the absolute directory of the repository that a command is about. A damaged repository, such as one without
/// HEAD, still has its queue.
fn repo_dir(place: &Place) -> Result<PathBuf, vcs::Error> {
    repo_dir_named(place, Named::ByUser)
}

/// Does the same where it matters who has named the directory.
fn repo_dir_named(place: &Place, named: Named) -> Result<PathBuf, vcs::Error> {
    let (dir, named) = match (&place.repo, variable("GIT_DIR")) {
        (Some(dir), _) => (dir.clone(), named),
        (None, Some(dir)) => (dir.into(), Named::ByHost),
        (None, None) => (".".into(), named),
    };
    vcs::discover(&dir, named).or_else(|error| match (&error, dir.canonicalize()) {
        (vcs::Error::NoRepository(_), Ok(dir)) if StateDir::has_queue(&dir) => Ok(dir),
        _ => Err(error),
    })
}

/// Returns the configuration file that is named, here or by the installed hook, unless the environment names one.
fn config_file(place: &Place, repo_dir: &Path) -> Result<Option<PathBuf>, configuration::Error> {
    match &place.config {
        Some(file) => Ok(Some(file.clone())),
        None if configuration::is_named_by_environment() => Ok(None),
        None => Ok(hook_file::configuration_of(repo_dir)?),
    }
}

fn write_out(bytes: &[u8]) -> Result<Ended, Error> {
    io::stdout().write_all(bytes)?;
    Ok(Ended::Done)
}

/// Returns a duration as people read it.
fn whole_seconds(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(span.as_secs()))
}

/// Says how long ago a time was, or in how long it will be.
fn from_now(time: Time) -> String {
    let now = now();
    match (now.since(time), time.since(now)) {
        (ago, _) if ago.as_secs() > 0 => format!("{} ago", whole_seconds(ago)),
        (_, ahead) if ahead.as_secs() > 0 => format!("in {}", whole_seconds(ahead)),
        _ => "now".to_owned(),
    }
}
