//! What can be typed. What it does stands in [`crate::command`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Posts the commits of a Git push to Rally as Changesets, once and without holding up the push
#[derive(Debug, Parser)]
#[command(name = "rally-hook", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// Read only this configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The repository [default: $GIT_DIR, or the one that holds the current directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub repo: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take in a push; Git runs this as a hook, with the ref updates on standard input
    PostReceive(PostReceive),
    /// Post the commits of a range, for example main~20..main
    ///
    /// It may be interrupted at any time: the same command goes on where it ended.
    Backfill(Backfill),
    /// Deliver what waits and is due
    Deliver(Deliver),
    /// Record the commits that a hook missed, on all refs
    CatchUp,
    /// Show what waits, what failed and why, and what was delivered
    Status(Status),
    /// Try dead letters again
    Retry(Retry),
    /// Install the hook into a repository; its history counts as seen
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
pub struct PostReceive {
    /// The hook's own file
    #[arg(hide = true)]
    pub hook: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// Revision ranges as Git understands them: A..B, A...B, ^A B
    #[arg(value_name = "RANGE", required_unless_present_any = ["all", "since"])]
    pub ranges: Vec<String>,
    /// Take all refs as Git does, notes and pull requests too; for branches and tags alone: -- --branches --tags
    #[arg(long)]
    pub all: bool,
    /// Leave out commits that are older (of HEAD, if nothing else is named), for example 2026-01-31 or "3 weeks ago"
    #[arg(long, value_name = "DATE")]
    pub since: Option<String>,
    /// Print what would be posted; touch nothing, send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print one JSON object a line for each commit
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Deliver {
    /// Go on until nothing is pending
    #[arg(long)]
    pub wait: bool,
    /// Deliver for every repository below this directory, for a timer (not with --wait or --repo)
    #[arg(long, value_name = "DIR", conflicts_with = "wait")]
    pub all_repos: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Retry {
    /// Revisions, or their beginnings
    #[arg(value_name = "REVISION", required_unless_present = "all")]
    pub revisions: Vec<String>,
    /// Try all dead letters again
    #[arg(long, conflicts_with = "revisions")]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Man {
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[derive(Debug, Args)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}
