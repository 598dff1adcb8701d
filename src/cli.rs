//! What can be typed. What it does stands in [`crate::command`].

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

/// Post the commits of a Git push to Rally as Changesets, once and without delaying the push
#[derive(Debug, Parser)]
#[command(name = "rally-hook", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// Read only this configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The repository [default: $GIT_DIR, or the one that holds the current directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub repo: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record a push; Git runs this as a hook, with the ref updates on standard input
    PostReceive(PostReceive),
    /// Record one updated ref; Gerrit's hooks plugin runs this
    RefUpdated(RefUpdated),
    /// Post the commits of a range, for example main~20..main
    ///
    /// You can interrupt it. Run it again to continue.
    Backfill(Backfill),
    /// Deliver what is due
    Deliver(Deliver),
    /// Record commits on watched refs that no hook recorded
    CatchUp,
    /// Show what waits, what failed and why, and what was delivered
    Status(Status),
    /// Try dead letters again
    Retry(Retry),
    /// Remove dead letters from the queue
    Forget(Forget),
    /// Install the hook into a repository; existing commits are not posted
    Install,
    /// Remove the hook, and put back the one that was there before
    Uninstall,
    /// Check configuration, repository, queue and Rally, and say what to do
    Doctor,
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or that of a command
    Man(Man),
}

#[derive(Debug, Default, Args)]
pub(crate) struct PostReceive {
    /// The hook's own file
    #[arg(hide = true)]
    pub hook: Option<PathBuf>,
}

/// The arguments that Gerrit gives to ref-updated; those that are not used are accepted.
#[derive(Debug, Args)]
pub(crate) struct RefUpdated {
    #[arg(long)]
    pub project: Option<String>,
    #[arg(long, value_name = "REF")]
    pub refname: String,
    #[arg(long, value_name = "REVISION")]
    pub oldrev: String,
    #[arg(long, value_name = "REVISION")]
    pub newrev: String,
    #[arg(long, value_name = "NAME")]
    pub submitter: Option<String>,
    #[arg(long, value_name = "NAME")]
    pub submitter_username: Option<String>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)))]
pub(crate) struct Backfill {
    /// Revision ranges as Git understands them: A..B, A...B, ^A B
    #[arg(value_name = "RANGE", group = "which")]
    pub ranges: Vec<String>,
    /// Post all refs, including notes and pull requests; for branches and tags only: -- --branches --tags
    #[arg(long, group = "which")]
    pub all: bool,
    /// Post only commits made since this date; without a range, those of HEAD; for example 2026-01-31 or "3 weeks ago"
    #[arg(long, value_name = "DATE", group = "which")]
    pub since: Option<String>,
    /// Print what would be posted; change nothing, send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run, print one JSON object a line for each commit
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Deliver {
    /// Go on until nothing is pending
    #[arg(long)]
    pub wait: bool,
    /// Deliver for every repository below this directory, for a timer (not with --wait or --repo)
    #[arg(long, value_name = "DIR", conflicts_with = "wait")]
    pub all_repos: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Retry {
    /// Revisions of dead letters, whole or at least the first 4 digits
    #[arg(value_name = "REVISION")]
    pub revisions: Vec<String>,
    /// Try all dead letters again
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Revisions of dead letters, whole or at least the first 4 digits
    #[arg(value_name = "REVISION", required = true)]
    pub revisions: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub shell: clap_complete::Shell,
}
