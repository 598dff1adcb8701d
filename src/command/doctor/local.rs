//! What the doctor finds on this machine: the repository, its hook, its queue and its settings.

use std::iter;
use std::path::Path;
use std::time::Duration;

use super::Finding::{self, Fine, Note, Wrong};
use super::wrong;
use crate::clock::now;
use crate::command::hook_file::{Hook, is_executable, kept};
use crate::command::identity::Naming;
use crate::command::{Error, Site, from_now, hooks, neighbours};
use crate::config::{Commits, Config, TfvcAccess};
use crate::process;
use crate::queue::{AFTER_LOSS, AtWork, Pause, Status, Store};
use crate::refs::RefPatterns;
use crate::text::{plural, with_causes};
use crate::vcs::{Kind, Repository};

/// Less space means that a few large pushes fill it: in bytes, and in files.
const LEAST_SPACE: u64 = 50_000_000;
const LEAST_FILES: u64 = 100;

/// Tells under which name the repository is posted, and whether other repositories of this host are too.
pub(super) fn name(naming: Option<Naming>, repo_dir: &Path, config: &Config, config_file: Option<&Path>) -> Finding {
    let name = &config.repository.name;
    match (neighbours::look(repo_dir, config, config_file), naming) {
        (Ok(Some(clash)), _) | (_, Some(Naming::Clash(clash))) => Wrong(clash),
        (_, Some(Naming::Notable(text))) => Note(text),
        (Ok(None), _) => Fine(format!("{name}, a name that no other repository of this host has by accident")),
        (Err(error), _) => {
            Note(format!("{name}; whether others of this host post to it is not known: {}", with_causes(&error)))
        }
    }
}

pub(super) fn repository(repo_dir: &Path, config: &Config) -> Finding {
    let kind = Kind::of(repo_dir).name();
    if Kind::of(repo_dir) == Kind::Tfvc {
        return server(repo_dir, config);
    }
    match Repository::open(repo_dir, config).and_then(|repository| repository.ref_names()) {
        Ok(Some(names)) => Fine(format!("{} with {}", repo_dir.display(), plural(names.len(), "ref"))),
        Ok(None) => Fine(format!("{}, a repository of {kind}", repo_dir.display())),
        Err(error) => wrong(&error),
    }
}

/// Tells whether a TFVC server answers, accepts the token, and has changesets below the path.
fn server(repo_dir: &Path, config: &Config) -> Finding {
    let TfvcAccess { collection, path, .. } = match config.tfvc.access() {
        Ok(access) => access,
        Err(error) => return wrong(&error),
    };
    let untested = "rally-hook was not tested against a real server, and does not speak NTLM";
    let all =
        Repository::open(repo_dir, config).and_then(|repository| repository.behind(&|_| true, &mut iter::empty()));
    match all {
        Ok(changesets) if changesets.is_empty() => Note(format!(
            "{collection} accepts the token and lists no changeset below {path}; check tfvc.path, unless it is new; {untested}"
        )),
        Ok(changesets) => Fine(format!(
            "{collection} accepts the token; changesets {} below {path}; {untested}",
            changesets.join(", ")
        )),
        Err(error) => Wrong(format!("{}; {untested}", with_causes(&error))),
    }
}

pub(super) fn hook(repo_dir: &Path, install: &str) -> Finding {
    let (hook, found) = match hooks::look(repo_dir) {
        Ok(found) => found,
        Err(error) => return wrong(&error),
    };
    let name = hook.display();
    match found {
        Hook::NotNeeded => Fine("none is needed: `rally-hook worker` or `rally-hook catch-up` polls the server".into()),
        Hook::IsDispatched(file) => Fine(format!("{}, which the host's own hook runs", file.display())),
        Hook::Missing => Wrong(format!("{name} does not exist; run: {install}")),
        Hook::NotExecutable => Wrong(format!("{name} is not executable, so it does not run; run: chmod +x {name}")),
        Hook::OnNoexecMount => Wrong(format!(
            "{name} lies on a file system mounted noexec, so Git ignores it; set core.hooksPath to a directory on another \
             one, then run: {install}"
        )),
        Hook::ProgramGone => Wrong(format!("{name} calls a program that does not exist any more; run: {install}")),
        Hook::NotIncluded => Wrong(format!("{name} does not include the hook; run: {install}")),
        Hook::Untrusted(owner) => Wrong(format!(
            "{name} belongs to {owner}, whom Mercurial does not trust when others push, so the hook does not run for them; \
             run: chown --reference={} {name}; or, if it is to belong to {owner}, put `[trusted]` and `users = {owner}` into \
             /etc/mercurial/hgrc",
            repo_dir.display()
        )),
        Hook::Other => Wrong(format!(
            "{name} does not call rally-hook, so pushes are not posted; run: {install} (it keeps that hook)"
        )),
        Hook::Runs => kept_hooks(&hook),
    }
}

/// Tells whether the hooks that ours keeps run.
fn kept_hooks(hook: &Path) -> Finding {
    let name = hook.display();
    match kept(hook) {
        [kept, _] if kept.exists() && !is_executable(&kept) => Note(format!(
            "{name}; the hook that it keeps, {0}, is not executable and does not run; run: chmod +x {0}",
            kept.display()
        )),
        [_, older] if older.exists() => {
            Note(format!("{name}; an older hook, {}, is kept and does not run; remove it", older.display()))
        }
        _ => Fine(name.to_string()),
    }
}

pub(super) fn queue(site: &Site) -> Finding {
    let mut store = Store::new(site.state.clone(), Duration::from_secs(1));
    let looked: Result<_, Error> = store.run(|queue| {
        let (_, strange) = site.state.kept_pushes()?;
        Ok((queue.status(now())?, site.state.at_work()?, strange))
    });
    for notice in store.notices() {
        site.note(notice);
    }
    let (status, at_work, strange) = match looked {
        Ok(found) => found,
        Err(error) => return wrong(&error),
    };
    if let Some(strange) = strange.first() {
        return Wrong(format!("{} is not a push that rally-hook kept; remove it", strange.display()));
    }
    if let Some(base) = site.config.queue.dir.as_ref().filter(|_| !site.state.is_elsewhere()) {
        return Wrong(format!(
            "it lies in {}, although queue.dir is {}; run: rally-hook install",
            site.state.path().display(),
            base.display()
        ));
    }
    match state_of_queue(&status) {
        Note(text) if status.is_work_left() && at_work == AtWork::Nobody => {
            Note(format!("{text}; no process is at work on it; run `rally-hook deliver`"))
        }
        finding => finding,
    }
}

/// Tells whether the queue lies where other hosts may use it too, which its locks are not made for.
pub(super) fn file_system(site: &Site) -> Finding {
    let looked: Result<_, Error> =
        Store::new(site.state.clone(), Duration::from_secs(1)).run(|queue| Ok(queue.network()?));
    let remedy = "set queue.dir to a directory on a local disk, then run: rally-hook install";
    let on = |network| format!("the queue lies on a network file system ({network})");
    match looked {
        Ok(None) => Fine("the queue lies on a local one".into()),
        Ok(Some((network, true))) => {
            Note(format!("{}, so hooks and commands may run on one host only; {remedy}", on(network)))
        }
        Ok(Some((network, false))) => {
            Wrong(format!("{}, and has a write-ahead log, which needs a local one; {remedy}", on(network)))
        }
        Err(error) => wrong(&error),
    }
}

/// Names all that a person has to act on; of the rest, what matters most.
fn state_of_queue(status: &Status) -> Finding {
    let pause = status.pause.as_ref();
    let pauses = |pause: &Pause| format!("delivery pauses: {}; `rally-hook deliver` tries again at once", pause.error);
    let wrong = [
        status.lost.then(|| format!("it was lost, and what was queued may be missing in Rally; {AFTER_LOSS}")),
        (status.failed > 0).then(|| format!("{}; `rally-hook status` says why", plural(status.failed, "dead letter"))),
        pause.filter(|pause| pause.needs_person).map(pauses),
    ];
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    if !wrong.is_empty() {
        return Wrong(wrong.join("; "));
    }
    if let Some(pause) = pause {
        return Note(pauses(pause));
    }
    if status.pushes > 0 {
        let pushes = plural(status.pushes, "push");
        return Note(format!(
            "it holds {pushes} whose commits are not recorded yet; `rally-hook deliver` records them"
        ));
    }
    match status.oldest_pending {
        Some(oldest) => Note(format!("{} queued, the oldest recorded {}", status.pending, from_now(oldest))),
        None => Fine(format!("{} delivered, none queued", status.delivered)),
    }
}

/// Tells whether all watched refs have been recorded.
pub(super) fn refs(site: &Site) -> Finding {
    let behind = site.with_recorder(|recorder| recorder.behind());
    let unmatched = unmatched_patterns(site, &site.config.commits.refs);
    match behind {
        Ok(refs) if refs.is_empty() && !unmatched.is_empty() => Note(format!(
            "no ref matches {}; check commits.refs, unless such refs are pushed later",
            unmatched.join(", ")
        )),
        Ok(refs) if refs.is_empty() => Fine("all watched refs are recorded".into()),
        Ok(refs) => Note(format!("commits of {} are not recorded; run: rally-hook catch-up", refs.join(", "))),
        Err(error) => wrong(&error),
    }
}

/// Tells whether there is room for the queue.
pub(super) fn space(site: &Site) -> Finding {
    let dir = site.state.path();
    match process::free_space(dir) {
        Ok((bytes, files)) if bytes < LEAST_SPACE || files < LEAST_FILES => Wrong(format!(
            "{} MB and {files} files are left for the queue; without space, pushes are not recorded; make some",
            bytes / 1_000_000
        )),
        Ok((bytes, _)) => Fine(format!("{} MB are left for the queue", bytes / 1_000_000)),
        Err(error) => Wrong(format!("{}: its file system does not tell its space: {error}", dir.display())),
    }
}

/// Returns the patterns that match no ref of the repository, if it has any refs; the defaults are no mistake.
fn unmatched_patterns(site: &Site, patterns: &[String]) -> Vec<String> {
    let names = site.repository().and_then(|repository| repository.ref_names());
    let names = names.ok().flatten().unwrap_or_default();
    let is_matched = |pattern: &String| {
        let refs = RefPatterns::new(std::slice::from_ref(pattern));
        names.iter().any(|name| refs.matches(name))
    };
    let is_default = |pattern: &String| Commits::default().refs.contains(pattern);
    let unmatched = patterns.iter().filter(|pattern| !is_default(pattern) && !is_matched(pattern));
    unmatched.filter(|_| !names.is_empty()).map(|pattern| format!("{pattern:?}")).collect()
}

/// Tells whether the log can be written. Nothing else ever says so.
pub(super) fn log(site: &Site) -> Finding {
    match site.log.check() {
        Ok(place) => Fine(place),
        Err(error) => Wrong(format!("{}; set log.file or log.target, or make it writable", with_causes(&error))),
    }
}

/// Tells whether the map of authors can be read.
pub(super) fn authors(config: &Config) -> Finding {
    match (&config.authors.map_file, config.authors.map()) {
        (_, Err(error)) => wrong(&error),
        (Some(file), Ok(map)) => Fine(format!("{} has {}", file.display(), plural(map.len(), "author"))),
        (None, Ok(_)) => Fine("no map_file is set".into()),
    }
}
