//! The subcommands, one file each, and what they share: the repository's place, exit codes.

mod backfill;
mod catch_up;
mod deliver;
mod doctor;
mod install;
pub mod post_receive;
mod retry;
mod status;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Cli, Command, Place};
use crate::context::{self, Context, now};
use crate::{config, git, queue};

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Something was not done; what it was has been said.
    NotAll,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Git(#[from] git::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl From<context::Error> for Error {
    fn from(error: context::Error) -> Self {
        match error {
            context::Error::Config(error) => error.into(),
            context::Error::Git(error) => error.into(),
            context::Error::Queue(error) => error.into(),
        }
    }
}

impl Error {
    /// Exit codes: 1 where something was not done, 2 for wrong usage or configuration.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Config(_) | Error::Usage(_) | Error::Git(git::Error::NoRepository(_) | git::Error::Range(_)) => {
                ExitCode::from(2)
            }
            _ => ExitCode::from(1),
        }
    }

    /// Tells whether the reader of our output has gone away, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

pub fn run(cli: Cli) -> Result<Ended, Error> {
    let place = cli.place;
    match cli.command {
        Command::PostReceive(arguments) => {
            post_receive::run(&place, &arguments);
            Ok(Ended::Done)
        }
        Command::Backfill(arguments) => backfill::run(&place, &arguments),
        Command::Deliver(arguments) => deliver::run(&place, &arguments),
        Command::CatchUp => catch_up::run(&place),
        Command::Status(arguments) => status::run(&place, &arguments),
        Command::Retry(arguments) => retry::run(&place, &arguments),
        Command::Install => install::install(&place),
        Command::Uninstall => install::uninstall(&place),
        Command::Doctor => doctor::run(&place),
        Command::Completions(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "rally-hook", &mut script);
            print(&script)
        }
        Command::Man(arguments) => {
            let mut program = Cli::command();
            program.build();
            let topic = match &arguments.command {
                None => program,
                Some(name) => program
                    .find_subcommand(name)
                    .cloned()
                    .ok_or_else(|| Error::Usage(format!("there is no command {name:?}")))?,
            };
            let mut page = Vec::new();
            clap_mangen::Man::new(topic).render(&mut page)?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<Ended, Error> {
    io::stdout().write_all(bytes)?;
    Ok(Ended::Done)
}

/// Returns the absolute Git directory that the command is about.
fn git_dir(place: &Place) -> Result<PathBuf, Error> {
    let named = place.repo.clone();
    let found = match (named, env::var_os("GIT_DIR")) {
        // What is a Git directory by its looks is taken as it is: libgit2 does not know all formats.
        (Some(dir), _) if dir.join("HEAD").exists() && dir.join("objects").is_dir() => dir,
        (Some(dir), _) => git::discover(&dir)?,
        (None, Some(dir)) => dir.into(),
        (None, None) => git::discover(Path::new("."))?,
    };
    found.canonicalize().map_err(|_| git::Error::NoRepository(found).into())
}

fn load(place: &Place) -> Result<Context, Error> {
    let git_dir = git_dir(place)?;
    let config_file = config_file(place, &git_dir);
    Ok(Context::load(git_dir, config_file.as_deref())?)
}

/// Returns the configuration file that is named, here or by the hook, unless the environment names one.
fn config_file(place: &Place, git_dir: &Path) -> Option<PathBuf> {
    let by_hook = || env::var_os(config::FILE_VARIABLE).is_none().then(|| install::configured(git_dir)).flatten();
    place.config.clone().or_else(by_hook)
}

/// Runs the work on the queue; if its database turns out to be damaged only now, replaces it and runs the work again.
fn with_queue<T>(
    context: &Context,
    mut work: impl FnMut(&mut queue::Queue) -> Result<T, context::Error>,
) -> Result<T, Error> {
    let mut queue = context.open_queue()?;
    match work(&mut queue) {
        Err(context::Error::Queue(error)) if error.is_damage() => {
            drop(queue);
            context::replace_damaged_queue(&context.state, crate::messages::tell)?;
            Ok(work(&mut context.open_queue()?)?)
        }
        other => Ok(other?),
    }
}

/// Returns "1 commit" or "3 commits".
fn plural(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Returns a progress bar on stderr; it shows nothing where that is no terminal.
fn progress(what: &'static str, total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} ({eta})"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {pos} commits ({per_sec})"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid")).with_message(what)
}

/// Says how long ago a time was, or in how long it will be.
fn from_now(millis: i64) -> String {
    let seconds = (now() - millis) / 1000;
    let span = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs()));
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{span} ago"),
        _ => format!("in {span}"),
    }
}
