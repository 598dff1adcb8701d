//! rally-hook posts commits to Rally. This is the map; `docs/ARCHITECTURE.md` draws the way of one push.
//!
//! Data flows one way:
//!
//! ```text
//! event ─► new commits ─► commit ─► changeset ─► queue on disk ─► what Rally lacks ─► WSAPI requests ─► receipts
//! ```
//!
//! * [`command`]: one file a subcommand. Finds the repository, its settings and its queue, and hands them down.
//! * [`config`]: files, laid over each other, become the settings of one repository.
//! * [`vcs`]: what a repository answers: which commits are new, what one says and changes, what a range means.
//! * [`changeset`]: a commit and the policy make what is to be posted.
//! * [`record`]: from events to the queue. The only place in which repositories and the queue meet.
//! * [`queue`]: the durable state; with the ledger that many servers share.
//! * [`deliver`]: what is due, and what becomes of it.
//! * [`rally`]: Rally's objects, with the cache of look-ups.
//! * [`wsapi`]: authentication, queries, batches and the API's errors.
//! * [`http`]: how the clients of services connect, and how much they read.
//! * [`permits`]: what the processes of this host do one after the other when they use the same account.
//! * [`host_dir`]: the directory in which they share that.
//! * [`worker`]: records pushes that a hook left, delivers, waits. The only place that joins recording and delivery.
//!
//! Pure modules import each other only: [`artifact`], [`backoff`], [`changeset`], [`commit`], [`glob`], [`links`], [`refs`],
//! [`state`], [`text`], [`time`]. One module has each thing of the system: [`clock`], [`environment`], [`files`],
//! [`process`], [`log`], [`messages`], [`notices`], [`progress`], [`panics`]. `.ci/walls` checks who imports what.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod artifact;
mod backoff;
mod changeset;
mod cli;
mod clock;
mod command;
mod commit;
mod config;
mod deliver;
mod environment;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
mod host_dir;
mod http;
mod links;
mod log;
mod messages;
mod notices;
mod panics;
mod permits;
#[expect(unsafe_code, reason = "signals, fork and the like have no safe interface in the standard library")]
mod process;
mod progress;
mod queue;
mod rally;
mod record;
mod refs;
mod state;
#[cfg(any(test, fuzzing))]
mod test_vectors;
mod text;
mod time;
mod vcs;
mod worker;
mod wsapi;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// The program's name, also of the directory that holds its state.
const PROGRAM: &str = "rally-hook";

/// Runs the program with the process's arguments, and tells the outcome.
pub fn run() -> ExitCode {
    environment::take_secrets();
    process::hide_memory();
    let arguments: Vec<OsString> = std::env::args_os().take(4).collect();
    if let Some(hook) = command::post_receive::hook_of(&arguments) {
        command::post_receive::run(&cli::Place::default(), Some(&hook));
        return ExitCode::SUCCESS;
    }
    let cli = cli::Cli::parse();
    if cli.place.quiet {
        messages::hold();
    }
    if cli.place.verbose {
        messages::set_verbose();
    }
    match command::run(cli) {
        Ok(command::Ended::Done) => ExitCode::SUCCESS,
        Ok(command::Ended::NotAll) => {
            messages::release();
            ExitCode::FAILURE
        }
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            messages::release();
            messages::tell(&text::with_causes(&error));
            error.exit_code()
        }
    }
}
