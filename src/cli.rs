//! What can be typed. What it does stands in [`crate::command`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

/// Post commits to Rally, once and without delaying the push
#[derive(Debug, Parser)]
#[command(name = "rally-hook", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "\
As hook of a repository of Git, Subversion or Mercurial, it queues the new
commits that mention artifacts such as US123 on disk. A background process
delivers them to Rally, and retries. To begin, write
/etc/rally-hook/config.toml (see `rally-hook man rally-hook.toml`).

Examples:
  rally-hook install --repo /srv/git/payments.git    # then push as usual
  rally-hook doctor --repo /srv/git/payments.git     # what is wrong?
  rally-hook status --all-repos /srv/git             # what waits, and why")]
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
    /// The repository [default: $GIT_DIR, or the current one]
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

/// The text after the options is also the description in the manual, and its examples are those of the manual. No
/// option has a longer help besides, so that `--help` is as short as `-h`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record a push; Git runs this as a hook
    #[command(after_help = "\
It reads the ref updates on standard input, returns as soon as the commits are
on disk, and always exits with 0. A link to the program with any other name does
the same.

Examples:
  ln -s /usr/local/bin/rally-hook hooks/post-receive.d/50-rally")]
    PostReceive {
        /// The hook's own file
        #[arg(hide = true)]
        hook: Option<PathBuf>,
    },
    /// Record one updated ref; Gerrit's hooks plugin runs this
    #[command(after_help = "\
The repository is that of $GIT_DIR, which Gerrit sets. Other arguments that
Gerrit gives are accepted and not used.

Examples:
  rally-hook ref-updated \"$@\"    # in the script hooks/ref-updated of the site")]
    RefUpdated(RefUpdated),
    /// Record a commit; Subversion runs this as a hook
    #[command(
        hide = true,
        after_help = "\
`rally-hook install` writes the hook. It prints nothing and exits with 0, unless
an administrator has to mend something.

Examples:
  /usr/local/bin/rally-hook post-commit \"$@\"    # in a hook of your own"
    )]
    PostCommit(Event),
    /// Record a changed log message; Subversion runs this as a hook
    #[command(
        hide = true,
        after_help = "\
`rally-hook install` writes the hook. A revision that is not posted yet is read
again; a posted one stays as it is.

Examples:
  /usr/local/bin/rally-hook post-revprop-change \"$@\"    # in a hook of your own"
    )]
    PostRevpropChange(Event),
    /// Record a transaction; Mercurial runs this as a hook
    #[command(
        hide = true,
        after_help = "\
`rally-hook install` writes the hook into .hg/rally-hook/hgrc, which .hg/hgrc
includes. It keeps the variables that Mercurial sets, and prints nothing.

Examples:
  txnclose.rally-hook = /usr/local/bin/rally-hook txnclose    # in an hgrc of your own"
    )]
    Txnclose,
    /// Post the commits of a range, for example main~20..main
    #[command(after_help = "\
You can interrupt it. Run it again to continue. A commit that is already in
Rally is not posted again.

Examples:
  rally-hook backfill --dry-run --all          # what the whole history has
  rally-hook backfill v1..main
  rally-hook backfill 'dd41098^!'              # one commit
  rally-hook backfill --all --since '3 days ago'")]
    Backfill(Backfill),
    /// Deliver queued commits that are due
    #[command(after_help = "\
It tries once, also during a pause after a failure. What waits for the end of
its own back-off is left, unless you say --now. If another process is
delivering, it leaves that to it.

Examples:
  rally-hook deliver --wait                    # until nothing is queued
  rally-hook deliver --all-repos /srv/git      # for a timer")]
    Deliver(Deliver),
    /// Deliver for all repositories below a directory, as a service
    #[command(after_help = "\
For many repositories: set deliver = \"later\", and no push starts a process. It
notices each push, records what missed hooks left out, and takes in new
repositories by itself. It ends when it is asked to (SIGTERM). Where queue.store
names a ledger, it forwards what is queued to it, and delivers from it.

Examples:
  rally-hook worker --all-repos /srv/git
  rally-hook worker                         # only from the ledger")]
    Worker(Worker),
    /// Record commits on watched refs that no hook recorded
    #[command(after_help = "\
Run it after a hook was missing, not executable, or without space on the disk.
It does not record commits from before `rally-hook install`; `rally-hook
backfill` posts those. Of a TFVC path, it asks the server once.

Examples:
  rally-hook catch-up
  rally-hook catch-up --all-repos /srv/git")]
    CatchUp(Many),
    /// Show what is queued, what failed and why, and what was delivered
    #[command(after_help = "\
The numbers add up: recorded = delivered + existed (already in Rally) + unlinked
(no artifact in Rally) + queued + failed (dead letters). Exits with 1 if a
person must act: also if something is queued and no process is at work on it.
With deliver = \"later\", that is so until the timer runs.

Examples:
  rally-hook status
  rally-hook status --all-repos /srv/git --max-age 1h    # for monitoring")]
    Status(Status),
    /// Queue dead letters again, and deliver them
    #[command(after_help = "\
A commit that could not be read is read again. If a commit cannot be delivered
now, attempts go on for retry_for. Exits with 1 unless all of them are
delivered.

Examples:
  rally-hook retry dd41098
  rally-hook retry --all")]
    Retry(Retry),
    /// Remove dead letters from the queue
    #[command(after_help = "\
They are not posted, unless a backfill or a new push brings these commits again.

Examples:
  rally-hook forget dd41098")]
    Forget {
        /// Revisions of dead letters, whole or at least the first 4 digits
        #[arg(value_name = "REVISION", required = true)]
        revisions: Vec<String>,
    },
    /// Install the hook; existing commits are not posted
    #[command(after_help = "\
An existing hook is kept with .before-rally-hook added to its name, and runs
first. With --config, the hook and all commands read only that file.

Examples:
  sudo -u git rally-hook install --repo /srv/git/payments.git
  sudo -u git rally-hook install --all-repos /srv/git
  sudo -u git rally-hook install --template /srv/git-template")]
    Install(Install),
    /// Remove the hook, and put back the one that was there before
    #[command(after_help = "\
The queue stays; a new install continues with it.

Examples:
  rally-hook deliver --wait && rally-hook uninstall")]
    Uninstall(Many),
    /// Show the settings of a repository, and where each comes from
    #[command(after_help = "\
Each line ends with the file and line of the setting. Secrets are hidden. A
[[match]] block of the configuration counts if its path matches the Git
directory.

Examples:
  rally-hook config --repo /srv/git/payments.git")]
    Config(Config),
    /// Check configuration, repository and Rally, and say what to do
    #[command(after_help = "\
It looks at the configuration, the repository, the hook, the queue and its disk,
the refs, the log, the map of authors, the proxy, the server, the clock, the
credentials and their rights, the workspace, the prefixes, the states and the
SCMRepository. If root runs it, it checks as the owner of the repository. It
changes nothing in Rally, unless you say --probe: then it makes a scratch
SCMRepository with two Changesets and four Changes, and deletes them.

Examples:
  sudo -u git rally-hook doctor --repo /srv/git/payments.git")]
    Doctor(Doctor),
    /// Prepare the database that many servers share
    #[command(
        subcommand,
        after_help = "\
The configuration's queue.store names the database. Other commands do not need
the right to create or alter tables.

Examples:
  rally-hook store migrate --config /root/migrate.toml --grant rally_hook"
    )]
    Store(Store),
    /// Print a completion script for a shell
    #[command(after_help = "\
To try it: `source <(rally-hook completions bash)`.

Examples:
  rally-hook completions bash > /etc/bash_completion.d/rally-hook")]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(value_name = "SHELL", hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    #[command(after_help = "\
Without an argument, the page is about the program.

Examples:
  rally-hook man | man -l -                    # about the program
  rally-hook man backfill | man -l -           # about a command
  rally-hook man rally-hook.toml | man -l -    # about the configuration")]
    Man {
        /// A command, or rally-hook.toml
        #[arg(value_name = "PAGE")]
        page: Option<String>,
    },
}

/// The arguments that Gerrit gives to ref-updated; those that are not used are accepted.
#[derive(Debug, Args)]
pub(crate) struct RefUpdated {
    /// Not used
    #[arg(long, hide = true)]
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
    #[arg(long, hide = true)]
    pub submitter: Option<String>,
    /// Not used
    #[arg(long, hide = true)]
    pub submitter_username: Option<String>,
}

/// What Subversion tells a hook.
#[derive(Debug, Args)]
pub(crate) struct Event {
    /// The arguments that Subversion gives: the repository, the revision and more
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).multiple(true)))]
pub(crate) struct Backfill {
    /// Ranges: in Git A..B, A...B, ^A B; in Subversion 5, 5:10; revsets in Mercurial; in TFVC 5, 100..200
    #[arg(value_name = "RANGE", group = "which")]
    pub ranges: Vec<String>,
    /// Post all refs, also notes and pull requests (without them: -- --branches --tags)
    #[arg(long, group = "which")]
    pub all: bool,
    /// Post only commits made since this date; without a range, those of HEAD in Git, and of all history elsewhere
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
    /// The directory below which the repositories lie; may be left out where queue.store names a ledger
    #[arg(long, value_name = "DIR")]
    pub all_repos: Option<PathBuf>,
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
    /// Show what all servers have forwarded to the ledger, and who delivers it (see queue.store)
    #[arg(long, conflicts_with_all = ["all_repos", "repo"])]
    pub fleet: bool,
    #[command(flatten)]
    pub many: Many,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Find out also what Rally does that its documents do not say
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

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Make the ledger's tables, or bring those of an earlier version up to date
    Migrate {
        /// Allow this role of the database to use them
        #[arg(long, value_name = "ROLE")]
        grant: Option<String>,
    },
}
