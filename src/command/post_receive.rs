//! What Git runs after a push. It records and returns; nothing that happens here fails or holds up the push.
//!
//! The push itself is kept first, before configuration, repository or anything else can go wrong. The rest has a
//! time budget, after which the deliverer goes on with it.

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::deliver::deliver_unseen;
use super::install::KEPT;
use crate::artifact::FormattedId;
use crate::background;
use crate::cli::{Place, PostReceive};
use crate::config::{Config, Deliver, PushLog};
use crate::context::{self, Context, now};
use crate::deliver::Mode;
use crate::messages::tell_pusher;
use crate::panics::caught;
use crate::queue::{Queue, StateDir};
use crate::record::{Recorded, Source, record};

/// How long recording may take before the hook leaves it to the deliverer. A push of some hundred commits takes a
/// few milliseconds.
const BUDGET: Duration = Duration::from_secs(1);
/// How long the hook waits for another process that writes to the queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the delivery waits before it begins: Git ends the push first, and pushes that come in a row share requests.
const HEAD_START: Duration = Duration::from_millis(100);
/// How many artifacts the pusher's line names.
const NAMED: usize = 5;

/// Runs the hook. Nothing that it meets makes it fail.
pub fn run(place: &Place, arguments: &PostReceive) {
    // SAFETY: setting a signal's disposition to "ignore" has no preconditions.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
    let mut input = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut input);
    let hook = || {
        if let Err(error) = read {
            tell_pusher(&format!(
                "cannot read what was pushed ({error}); an administrator should run `rally-hook catch-up`"
            ));
        }
        if let Some(taken_in) = take_in(place, arguments, &input) {
            taken_in.finish();
        }
    };
    if let Err(fault) = caught(hook) {
        tell_pusher(&format!(
            "the push is fine, but the hook failed by a fault of its own, an administrator should run \
             `rally-hook catch-up`: {fault}"
        ));
    }
}

/// A push that has been kept and, if there was time, recorded.
struct TakenIn {
    context: Context,
    recorded: Recorded,
}

impl TakenIn {
    /// Delivers as the configuration asks for it, and lets the push go on: what it need not wait for is done apart.
    fn finish(self) {
        let TakenIn { context, recorded } = self;
        let log = &context.log;
        let note =
            || log.info(&format!("push by {}: {} new commits, {} queued", pusher(), recorded.commits, recorded.queued));
        match context.config.queue.deliver {
            Deliver::Later => note(),
            Deliver::Inline => {
                note();
                deliver_unseen(&context, Mode::Once);
            }
            Deliver::Background => {
                let apart = background::apart(|| {
                    note();
                    thread::sleep(HEAD_START);
                    deliver_unseen(&context, Mode::Background);
                });
                if let Err(error) = apart {
                    log.error(&format!("cannot deliver in the background, the next push will: {error}"));
                }
            }
        }
    }
}

fn take_in(place: &Place, arguments: &PostReceive, input: &[u8]) -> Option<TakenIn> {
    let git_dir = match git_dir(place) {
        Ok(dir) => dir,
        Err(error) => {
            tell_pusher(&format!("the hook does not know its repository: {error}"));
            return None;
        }
    };
    let (state, queue) = if input.is_empty() { (None, None) } else { keep(&git_dir, input) };
    if let Some(hook) = &arguments.hook {
        run_first(&hook.with_file_name(KEPT), input);
    }
    let state = state?;
    let context = match Config::load(place.config.as_deref(), &git_dir) {
        Ok(config) => Context::with_state(git_dir, config, place.config.clone(), state),
        Err(error) => {
            tell_pusher(&format!("this push waits until the configuration is put right: {error}"));
            return None;
        }
    };
    match record_push(&context, queue) {
        Ok(recorded) => Some(TakenIn { context, recorded }),
        Err(error) => {
            context.log.error(&format!("a push was kept but not recorded: {error}"));
            tell_pusher(&format!("this push is kept, but its commits cannot be read yet: {error}"));
            // A queue that somebody holds is free again soon.
            let is_queue = matches!(error, context::Error::Queue(_));
            is_queue.then(|| TakenIn { context, recorded: Recorded::default() })
        }
    }
}

/// Returns the absolute Git directory; Git sets `GIT_DIR=.`.
fn git_dir(place: &Place) -> io::Result<PathBuf> {
    let dir = place.repo.clone().or_else(|| env::var_os("GIT_DIR").map(PathBuf::from));
    dir.unwrap_or_else(|| ".".into()).canonicalize()
}

/// Keeps the push on disk: in the queue, or in a file beside it. Returns the queue if it can be used.
fn keep(git_dir: &Path, input: &[u8]) -> (Option<StateDir>, Option<Queue>) {
    let state = match StateDir::open(git_dir, context::sharing(git_dir)) {
        Ok(state) => state,
        Err(error) => {
            tell_pusher(&format!("{error}; an administrator should mend that and run `rally-hook catch-up`"));
            return (None, None);
        }
    };
    let pusher = pusher();
    let in_queue = Queue::open(&state, PATIENCE).and_then(|mut queue| {
        queue.add_push(&pusher, input, now())?;
        Ok(queue)
    });
    match in_queue {
        Ok(queue) => (Some(state), Some(queue)),
        Err(error) => match state.keep_push(&pusher, input) {
            Ok(()) => (Some(state), None),
            Err(_) => {
                tell_pusher(&format!("{error}; an administrator should mend that and run `rally-hook catch-up`"));
                (None, None)
            }
        },
    }
}

/// Returns who pushes, as the hosts' environments tell it.
fn pusher() -> String {
    let variables = ["GL_USERNAME", "GL_USER", "GITEA_PUSHER_NAME", "REMOTE_USER", "LOGNAME", "USER"];
    variables
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "somebody unknown".into())
}

/// Runs the hook that was there before ours, if there was one, as Git would: not if it is not executable, and by the
/// shell if the kernel cannot tell what it is.
fn run_first(hook: &Path, input: &[u8]) {
    if !hook.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0) {
        return;
    }
    let run = |mut command: Command| {
        // What we ignore would be ignored by it too, which no hook expects.
        // SAFETY: signal may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        // A hook need not read its input.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        child.wait()
    };
    let by_shell = || {
        let mut shell = Command::new("/bin/sh");
        shell.arg(hook);
        shell
    };
    let ended = match run(Command::new(hook)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => run(by_shell()),
        other => other,
    };
    match ended {
        Ok(status) if !status.success() => {
            tell_pusher(&format!("the other hook, {}, ended with {status}", hook.display()))
        }
        Ok(_) => {}
        Err(error) => tell_pusher(&format!("the other hook, {}, cannot be run: {error}", hook.display())),
    }
}

/// Records the push and tells the pusher.
fn record_push(context: &Context, queue: Option<Queue>) -> Result<Recorded, context::Error> {
    let tell = |message: &str| context.log.error(message);
    let open = || context::open_queue(&context.state, PATIENCE, tell);
    let mut queue = queue.map_or_else(open, Ok)?;
    queue.sync_lazily()?;
    let deadline = Some(Instant::now() + BUDGET);
    let recorded = match record(context, &mut queue, Source::Pushes, deadline) {
        Err(context::Error::Queue(error)) if error.is_damage() => {
            drop(queue);
            context::replace_damaged_queue(&context.state, tell)?;
            queue = open()?;
            record(context, &mut queue, Source::Pushes, deadline)
        }
        recorded => recorded,
    }?;
    if queue.is_loss_noted()? {
        tell("the queue's file was gone, and what waited in it is lost: `rally-hook backfill` makes up for it");
    }
    let trouble = queue.pause()?.map(|pause| {
        let since = humantime::format_rfc3339_seconds(time(pause.since));
        format!("nothing can be posted since {since}, all is kept: {}", pause.error)
    });
    let line = line(&recorded, trouble.as_deref(), &context.repository_name(), context.config.log.push);
    line.into_iter().for_each(|line| tell_pusher(&line));
    Ok(recorded)
}

/// Returns the one line for the pusher, if there is anything to say.
fn line(recorded: &Recorded, trouble: Option<&str>, repository: &str, verbosity: PushLog) -> Option<String> {
    let commits = super::plural(recorded.queued, "commit");
    let summary = match recorded {
        _ if verbosity == PushLog::Quiet => None,
        Recorded { complete: false, .. } => {
            Some(format!("this push is kept; its commits are being read (repository {repository})"))
        }
        Recorded { queued: 0, .. } => None,
        Recorded { artifacts, .. } if artifacts.is_empty() => {
            Some(format!("{commits} queued (repository {repository})"))
        }
        Recorded { artifacts, .. } => {
            Some(format!("{commits} queued for {} (repository {repository})", names(artifacts)))
        }
    };
    match (summary, trouble) {
        (Some(summary), Some(trouble)) => Some(format!("{summary}; {trouble}")),
        (summary, trouble) => summary.or_else(|| trouble.map(str::to_owned)),
    }
}

fn names(artifacts: &[FormattedId]) -> String {
    let mut names: Vec<String> = artifacts.iter().take(NAMED).map(FormattedId::to_string).collect();
    if artifacts.len() > NAMED {
        names.push(format!("{} more", artifacts.len() - NAMED));
    }
    names.join(", ")
}

fn time(millis: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(millis.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(queued: usize, ids: &[&str], complete: bool) -> Recorded {
        let artifacts = ids.iter().map(|id| serde_json::from_value((*id).into()).expect("an ID")).collect();
        Recorded { commits: queued, queued, artifacts, complete }
    }

    #[test]
    fn the_pusher_sees_one_line_or_none() {
        let summary = |recorded: &Recorded| line(recorded, None, "core", PushLog::Summary);
        assert_eq!(summary(&recorded(0, &[], true)), None);
        assert_eq!(summary(&recorded(1, &["US1"], true)).as_deref(), Some("1 commit queued for US1 (repository core)"));
        let many = recorded(7, &["US1", "US2", "US3", "US4", "US5", "US6", "US7"], true);
        assert_eq!(
            summary(&many).as_deref(),
            Some("7 commits queued for US1, US2, US3, US4, US5, 2 more (repository core)")
        );
        assert!(summary(&recorded(0, &[], false)).is_some_and(|line| line.contains("being read")));
    }

    #[test]
    fn trouble_is_told_even_where_the_summary_is_not() {
        let quiet = line(&recorded(1, &["US1"], true), Some("nothing can be posted"), "core", PushLog::Quiet);
        assert_eq!(quiet.as_deref(), Some("nothing can be posted"));
        assert_eq!(line(&recorded(1, &["US1"], true), None, "core", PushLog::Quiet), None);
    }
}
