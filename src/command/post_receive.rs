//! What Git runs after a push. It records and returns; nothing that happens here fails or holds up the push.
//!
//! The push itself is kept first, whatever is wrong with configuration, repository or anything else. The rest has a
//! time budget, after which the deliverer goes on with it.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::deliver::{deliver_apart, deliver_unseen};
use super::hook_file::{self, POST_RECEIVE};
use super::identity::host_path;
use super::{Ended, Error, RECORD, Site, load_config_of, repo_dir_named, sharing};
use crate::artifact::FormattedId;
use crate::cli::{Place, RefUpdated};
use crate::clock::{Deadline, now};
use crate::config::{Deliver, Level, PushLog};
use crate::environment::text_variable;
use crate::files::Owners;
use crate::messages::tell_pusher;
use crate::panics::caught;
use crate::process;
use crate::queue::{self, AFTER_LOSS, Sharing, StateDir, Store, WorkQueue};
use crate::record::{self, Recorded, Recorder, Rules, Unfinished};
use crate::text::{plural, with_causes};
use crate::vcs::{Kind, Named, Refs};
use crate::worker::Mode;

/// How long recording may take before the hook leaves it to the deliverer. A push of some hundred commits takes a
/// few milliseconds.
const BUDGET: Duration = Duration::from_secs(1);
/// How long the hook waits for another process that writes to the queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the delivery waits before it begins: Git ends the push first, and pushes that come in a row share requests.
const HEAD_START: Duration = Duration::from_millis(100);
/// How many artifacts the pusher's line names.
const NAMED: usize = 5;

/// Returns the hook that is run, where there is nothing to parse: the program was linked or copied to a place from which
/// Git or a host's dispatcher runs it without arguments (`hooks/post-receive`, `post-receive.d/50-rally`), or is the
/// interpreter of the file that `install` wrote.
pub(crate) fn hook_of(arguments: &[OsString]) -> Option<PathBuf> {
    let is_hook = |path: &OsString| Path::new(path).file_name().is_some_and(|name| name == POST_RECEIVE);
    match arguments {
        [hook, ..] if is_hook(hook) => Some(hook.into()),
        [_, command, hook] if command == POST_RECEIVE && is_hook(hook) => Some(hook.into()),
        // A dispatcher runs what else is to be run itself.
        [hook] if text_variable("GIT_DIR").is_some() && !io::stdin().is_terminal() => Some(hook.into()),
        _ => None,
    }
}

/// Runs what Gerrit's hooks plugin calls for each ref, with the update as arguments.
pub(super) fn run_ref_updated(place: &Place, update: &RefUpdated) -> Ended {
    process::ignore_hang_ups();
    let RefUpdated { oldrev, newrev, refname, .. } = update;
    // Gerrit may leave out `refs/heads/`.
    let name = if refname.starts_with("refs/") { refname.clone() } else { format!("refs/heads/{refname}") };
    let input = format!("{oldrev} {newrev} {name}\n");
    run_with(place, &Event { input: input.as_bytes(), ..Event::default() })
}

/// Runs the hook, whose own file is named if it is known. Nothing that it meets makes it fail.
pub(crate) fn run(place: &Place, hook: Option<&Path>) -> Ended {
    process::ignore_hang_ups();
    let mut input = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut input);
    if let Err(error) = read {
        tell_pusher(&format!("cannot read what was pushed ({error}); {CATCH_UP}"));
    }
    run_with(place, &Event { hook, input: &input, ..Event::default() })
}

/// What a hook is told.
#[derive(Debug, Default)]
pub(super) struct Event<'e> {
    /// The hook's own file, if it is known.
    pub hook: Option<&'e Path>,
    /// What is kept of it in the queue.
    pub input: &'e [u8],
    /// What the hook that was there before is given besides the input; `None` in Git, where it is given that.
    pub arguments: Option<&'e [OsString]>,
}

impl Event<'_> {
    /// Returns what people call it.
    fn what(&self) -> &'static str {
        if self.arguments.is_some() { "commit" } else { "push" }
    }
}

/// Keeps what a hook is told, records it in Git, and has it delivered. Whatever happens, the hook ends well.
pub(super) fn run_with(place: &Place, event: &Event) -> Ended {
    let work = || {
        if let Some((site, recorded)) = record_push(place, event) {
            finish(&site, recorded.as_ref());
        }
    };
    if let Err(panic) = caught(work) {
        let what = event.what();
        tell_pusher(&format!("the {what} is fine, but rally-hook failed by a bug ({panic}); {CATCH_UP}"));
    }
    Ended::Done
}

/// What to do where a push could not even be kept.
const CATCH_UP: &str = "an administrator should run `rally-hook catch-up`";

/// Delivers as the configuration asks for it, and lets the push go on: what it need not wait for is done apart.
fn finish(site: &Site, recorded: Option<&Recorded>) {
    let note = || {
        let Some(Recorded { commits, queued, unfinished, .. }) = recorded else { return };
        let rest = unfinished.map(|why| format!(" so far; the rest is recorded later, because {}", reason(why)));
        let commits = plural(*commits, "new commit");
        let (pusher, rest) = (pusher(), rest.unwrap_or_default());
        let text = format!("push by {pusher}: {commits}, {queued} queued{rest}");
        site.log.write(Level::Info, "push", &[("pusher", pusher)], &text);
    };
    match site.config.queue.deliver {
        Deliver::Later => note(),
        // The pusher waits for Rally then, but never for the ledger.
        Deliver::Inline if site.config.queue.store.is_none() => {
            note();
            deliver_unseen(site, Mode::Once, None);
        }
        Deliver::Inline | Deliver::Background => {
            let apart = deliver_apart(site, || {
                note();
                thread::sleep(HEAD_START);
            });
            if let Err(error) = apart {
                let text = format!("cannot deliver in the background, the next push will: {error}");
                site.log_error("delivery-ended", &text);
            }
        }
    }
}

/// Keeps the push, then records it. Returns the repository, unless there is nothing to deliver with, and what was
/// recorded.
fn record_push(place: &Place, event: &Event) -> Option<(Site, Option<Recorded>)> {
    let Event { hook, input, arguments } = *event;
    // Git names it in its environment. Other programs look at nobody's rights to it but their own.
    let named = if arguments.is_some() { Named::ByHost } else { Named::ByUser };
    let repo_dir = match repo_dir_named(place, named) {
        Ok(dir) => dir,
        Err(error) => {
            tell_pusher(&format!("cannot find the repository: {}", with_causes(&error)));
            return None;
        }
    };
    // It says where the queue lies. Whatever is wrong with it, the push is kept.
    let sharing = sharing(&repo_dir);
    let owners = Owners::of_repository(&repo_dir, sharing == Sharing::Group);
    let is_trusted = |hook: &&Path| hook_file::check_owner(hook, owners).is_ok();
    let config_file = place.config.clone().or_else(|| hook_file::configuration_in(hook.filter(is_trusted)?));
    let config = load_config_of(config_file.as_deref(), &repo_dir, owners);
    let base = config.as_ref().ok().and_then(|config| config.queue.dir.as_deref());
    let kept = if input.is_empty() { None } else { keep(&repo_dir, sharing, base, input) };
    // Mercurial runs all of its hooks itself.
    if let Some(hook) = hook.filter(|_| Kind::of(&repo_dir) != Kind::Mercurial) {
        run_first(&hook_file::kept(hook)[0], owners, event);
    }
    let what = event.what();
    let text = match (config, kept?) {
        (Ok(config), Ok((state, mut store))) => {
            let site = Site { config_file, ..Site::with_state(repo_dir, config, state) };
            return record_kept(what, site, &mut store);
        }
        (Err(error), _) => format!("this {what} is kept until the configuration is fixed: {}", with_causes(&error)),
        (_, Err(error)) => format!("this {what} is kept, but not recorded yet: {}", with_causes(&error)),
    };
    tell_pusher(&text);
    None
}

/// Records a push that is kept. Returns what [`record_push`] does.
fn record_kept(what: &str, mut site: Site, store: &mut Store) -> Option<(Site, Option<Recorded>)> {
    let settled = site.settle_name(store, host_path());
    let recorded = settled.and_then(|()| match Kind::of(&site.repo_dir) {
        Kind::Git => record(&site, store).map(Some),
        // To read it may take longer than the commit did.
        Kind::Subversion | Kind::Mercurial | Kind::Tfvc => Ok(None),
    });
    for notice in store.notices() {
        site.note(notice);
    }
    match recorded {
        Ok(recorded) => Some((site, recorded)),
        Err(error) => {
            let text = with_causes(&error);
            site.log_error(RECORD, &format!("a {what} was kept but not recorded: {text}"));
            tell_pusher(&format!("this {what} is kept, but not recorded yet: {text}"));
            // A queue that another process holds is free again soon.
            matches!(error, Error::Queue(_)).then_some((site, None))
        }
    }
}

/// Keeps the push on disk: in the queue, or in a file beside its database; or in the repository's directory, if the
/// queue's directory elsewhere cannot be used, with the reason.
fn keep(
    repo_dir: &Path,
    sharing: Sharing,
    base: Option<&Path>,
    input: &[u8],
) -> Option<Result<(StateDir, Store), queue::Error>> {
    let pusher = pusher();
    let keep = || {
        let state = StateDir::open(repo_dir, sharing, base)?;
        let mut store = Store::new(state.clone(), PATIENCE);
        let queued: Result<(), queue::Error> = store.run(|queue| queue.add_push(&pusher, input, now()));
        if let Err(error) = queued {
            state.keep_push(&pusher, input).map_err(|_| error)?;
        }
        Ok((state, store))
    };
    let kept = keep();
    if let Err(error) = &kept
        && StateDir::keep_push_beside(repo_dir, sharing, &pusher, input).is_err()
    {
        tell_pusher(&format!("{}; {CATCH_UP} once that is fixed", with_causes(error)));
        return None;
    }
    Some(kept)
}

/// Returns who pushes, as the hosts' environments tell it.
fn pusher() -> String {
    let variables = ["GL_USERNAME", "GL_USER", "GITEA_PUSHER_NAME", "REMOTE_USER", "LOGNAME", "USER"];
    variables.iter().find_map(|name| text_variable(name)).unwrap_or_else(|| "somebody unknown".into())
}

/// Runs the hook that was there before ours, if there was one, as Git would: not if it is not executable, and by the
/// shell if the kernel cannot tell what it is.
fn run_first(hook: &Path, owners: Owners, event: &Event) {
    if !hook.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0) {
        return;
    }
    if let Err(error) = hook_file::check_owner(hook, owners) {
        tell_pusher(&format!("the other hook is not run: {}", with_causes(&error)));
        return;
    }
    let run = |program: &Path, script: Option<&Path>| {
        let mut command = Command::new(program);
        process::with_usual_signals(command.args(script));
        match event.arguments {
            Some(arguments) => command.args(arguments).stdin(Stdio::null()),
            None => command.stdin(Stdio::piped()),
        };
        let mut child = command.spawn()?;
        // A hook need not read its input.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(event.input));
        child.wait()
    };
    let ended = match run(hook, None) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => run(Path::new("/bin/sh"), Some(hook)),
        other => other,
    };
    match ended {
        Ok(status) if !status.success() => {
            tell_pusher(&format!("the other hook, {}, ended with {status}", hook.display()));
        }
        Ok(_) => {}
        Err(error) => tell_pusher(&format!("the other hook, {}, cannot be run: {error}", hook.display())),
    }
}

/// Records the push and tells the pusher.
fn record(site: &Site, store: &mut Store) -> Result<Recorded, Error> {
    let rules = Rules::new(&site.config);
    let report = |level: Level, message: &str| site.log.write(level, RECORD, &[], message);
    let (recorded, lost, pause) = store.run(|queue| {
        queue.sync_lazily()?;
        let repository = site.repository()?;
        let deadline = Some(Deadline::after(BUDGET));
        let mut recorder = Recorder { repository: &repository, queue, rules: &rules, report: &report };
        let recorded = recorder.record(Refs::Pushed, deadline)?;
        Ok::<_, record::Error>((recorded, queue.is_loss_noted()?, queue.pause(now())?))
    })?;
    if lost {
        let text = format!("the queue was lost, and what was queued may be missing in Rally; {AFTER_LOSS}");
        site.log_error("queue-lost", &text);
    }
    let trouble = pause.map(|pause| format!("nothing has been posted since {}: {}", pause.since, pause.error));
    let line = line(&recorded, trouble.as_deref(), &site.config.repository.name, site.config.log.push);
    line.into_iter().for_each(|line| tell_pusher(&line));
    Ok(recorded)
}

/// Returns the one line for the pusher, if there is anything to say.
fn line(recorded: &Recorded, trouble: Option<&str>, repository: &str, verbosity: PushLog) -> Option<String> {
    let commits = plural(recorded.queued, "commit");
    let summary = match recorded {
        _ if verbosity == PushLog::Quiet => None,
        Recorded { unfinished: Some(why), .. } => Some(format!(
            "this push is kept; its commits are recorded later, because {} (repository {repository})",
            reason(*why)
        )),
        Recorded { queued: 0, .. } => None,
        Recorded { artifacts, .. } => Some(format!("{commits} queued{} (repository {repository})", names(artifacts))),
    };
    match (summary, trouble) {
        (Some(summary), Some(trouble)) => Some(format!("{summary}; {trouble}")),
        (summary, trouble) => summary.or_else(|| trouble.map(str::to_owned)),
    }
}

fn reason(unfinished: Unfinished) -> &'static str {
    match unfinished {
        Unfinished::Busy => "another process is recording commits",
        Unfinished::OutOfTime => "there are many",
        Unfinished::OthersUnknown => {
            "the ledger must first tell what other servers have recorded, and a hook does not wait for it"
        }
    }
}

/// Says for which artifacts, if there are any.
fn names(artifacts: &[FormattedId]) -> String {
    let mut names: Vec<String> = artifacts.iter().take(NAMED).map(FormattedId::to_string).collect();
    if artifacts.len() > NAMED {
        names.push(format!("{} more", artifacts.len() - NAMED));
    }
    if names.is_empty() { String::new() } else { format!(" for {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(queued: usize, ids: &[&str], unfinished: Option<Unfinished>) -> Recorded {
        let artifacts = ids.iter().map(|id| serde_json::from_value((*id).into()).expect("an ID")).collect();
        Recorded { commits: queued, queued, artifacts, unfinished, ..Recorded::default() }
    }

    #[test]
    fn the_pusher_sees_one_line_or_none() {
        let summary = |recorded: &Recorded| line(recorded, None, "core", PushLog::Summary);
        assert_eq!(summary(&recorded(0, &[], None)), None);
        assert_eq!(summary(&recorded(1, &["US1"], None)).as_deref(), Some("1 commit queued for US1 (repository core)"));
        let many = recorded(7, &["US1", "US2", "US3", "US4", "US5", "US6", "US7"], None);
        assert_eq!(
            summary(&many).as_deref(),
            Some("7 commits queued for US1, US2, US3, US4, US5, 2 more (repository core)")
        );
        assert_eq!(
            summary(&recorded(0, &[], Some(Unfinished::Busy))).as_deref(),
            Some(
                "this push is kept; its commits are recorded later, because another process is recording commits \
                 (repository core)"
            )
        );
    }

    #[test]
    fn trouble_is_told_even_where_the_summary_is_not() {
        let quiet = line(&recorded(1, &["US1"], None), Some("trouble"), "core", PushLog::Quiet);
        assert_eq!(quiet.as_deref(), Some("trouble"));
        assert_eq!(line(&recorded(1, &["US1"], None), None, "core", PushLog::Quiet), None);
    }
}
