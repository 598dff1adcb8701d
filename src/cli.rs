//! What can be typed. What it does stands in [`crate::command`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

/// Post the commits of a Git push to Rally as Changesets, once and without delaying the push
///
/// As post-receive hook of a repository, it queues the new commits that mention artifacts such as US123 on disk. A
/// process in the background delivers them to Rally, and retries after failures.
///
/// To begin, write /etc/rally-hook/config.toml (config.sample.toml explains every key), run `rally-hook install` in the
/// repository, and then `rally-hook doctor`.
///
/// Exit codes: 0 done; 1 something was not done, and stderr says what; 2 wrong usage or configuration. The hook always
/// exits with 0.
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
    /// Print no messages unless something is not done
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print also what the log is told of during delivery
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// The argument of commands that can do their work for many repositories.
#[derive(Debug, Clone, Args)]
pub(crate) struct Many {
    /// Do it for every repository below this directory (not with --repo)
    #[arg(long, value_name = "DIR")]
    pub all_repos: Option<PathBuf>,
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
    /// Deliver queued commits that are due
    ///
    /// It tries once, also during a pause after a failure. What waits for the end of its own back-off is left, unless you
    /// say --now. If another process is delivering, it leaves that to it.
    Deliver(Deliver),
    /// Deliver for all repositories below a directory, as a service
    ///
    /// For many repositories: set deliver = "later", and no push starts a process. It notices each push, records what
    /// missed hooks left out, and takes in new repositories by itself. It ends when it is asked to (SIGTERM).
    Worker(Worker),
    /// Record commits on watched refs that no hook recorded
    ///
    /// Run it after a hook was missing, not executable, or without space on the disk. Commits from before `rally-hook
    /// install` are not recorded: `rally-hook backfill` posts them.
    CatchUp(Many),
    /// Show what is queued, what failed and why, and what was delivered
    ///
    /// The numbers add up: recorded = delivered + existed (already in Rally) + unlinked (no artifact in Rally) + queued +
    /// failed (dead letters). Exits with 1 if a person must act: also if something is queued and no process is at work on
    /// it. With deliver = "later", that is so until the timer runs.
    Status(Status),
    /// Queue dead letters again, and deliver them
    ///
    /// A commit that could not be read is read again. If a commit cannot be delivered now, attempts go on for retry_for.
    /// Exits with 1 unless all of them are delivered.
    Retry(Retry),
    /// Remove dead letters from the queue
    ///
    /// They are not posted, unless a backfill or a new push brings these commits again.
    Forget(Forget),
    /// Install the hook into a repository; existing commits are not posted
    ///
    /// An existing hook is kept as post-receive.before-rally-hook and runs first, with the same input. With --config, the
    /// hook and all commands read only that file.
    Install(Install),
    /// Remove the hook, and put back the one that was there before
    ///
    /// The queue stays; a new install continues with it.
    Uninstall(Many),
    /// Show the settings of the repository, and the file and line that each comes from
    ///
    /// Secrets are hidden. A `[[match]]` block of the configuration counts if its path matches the Git directory.
    Config(Config),
    /// Check configuration, repository, queue and Rally, and say what to do
    ///
    /// It looks at the configuration, the repository, the hook, the queue, the refs, the log, the map of authors, the proxy,
    /// the server, the credentials and their rights, the workspace, the prefixes and the SCMRepository. It changes nothing
    /// in Rally, unless you say --probe.
    Doctor(Doctor),
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
    /// Not used
    #[arg(long)]
    pub project: Option<String>,
    /// The ref; refs/heads/ may be left out
    #[arg(long, value_name = "REF")]
    pub refname: String,
    /// The commit before the update; zeros for a new ref
    #[arg(long, value_name = "REVISION")]
    pub oldrev: String,
    /// The commit after the update; zeros for a deleted ref
    #[arg(long, value_name = "REVISION")]
    pub newrev: String,
    /// Not used
    #[arg(long, value_name = "NAME")]
    pub submitter: Option<String>,
    /// Not used
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
    /// Continue until nothing is queued
    #[arg(long, conflicts_with = "all_repos")]
    pub wait: bool,
    /// Try also at once what waits for the end of a back-off
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The directory below which the repositories lie
    #[arg(long, value_name = "DIR")]
    pub all_repos: PathBuf,
    /// How often to look for new repositories, and for what hooks missed
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = humantime::parse_duration)]
    pub every: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Put the hook into this directory of templates instead, so that new repositories have it (see `git help init`)
    #[arg(long, value_name = "DIR", conflicts_with = "all_repos")]
    pub template: Option<PathBuf>,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print figures for Prometheus, as its node exporter's textfile collector reads them
    #[arg(long, conflicts_with = "json")]
    pub prometheus: bool,
    /// Exit with 1 also if something has waited for longer than this, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Find out what Rally does that its documents do not say: make a scratch SCMRepository with two Changesets and four
    /// Changes, and delete them
    #[arg(long, conflicts_with = "all_repos")]
    pub probe: bool,
    /// Print one JSON object for each repository
    #[arg(long, conflicts_with = "probe")]
    pub json: bool,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("letters").required(true)))]
pub(crate) struct Retry {
    /// Revisions of dead letters, whole or at least the first 4 digits
    #[arg(value_name = "REVISION", group = "letters")]
    pub revisions: Vec<String>,
    /// Queue all dead letters again
    #[arg(long, group = "letters")]
    pub all: bool,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Revisions of dead letters, whole or at least the first 4 digits
    #[arg(value_name = "REVISION", required = true)]
    pub revisions: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command; without it, the page is about the program
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}
