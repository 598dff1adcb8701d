//! `rally-hook install` and `uninstall`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::hook_file::{self, POST_RECEIVE, file_error, is_ours};
use super::identity::Naming;
use super::many::{Which, each};
use super::{Ended, Error, PATIENCE, Site, hooks, load_config, neighbours, repo_dir, sharing, state_base, state_dir};
use crate::cli::{Install, Many, Place};
use crate::clock::now;
use crate::config;
use crate::messages::tell;
use crate::queue::{MARKER, StateDir, Store, Trace};
use crate::text::{plural, with_causes};
use crate::vcs::Kind;

/// Puts the hook into a repository, into all below a directory, or into a directory of templates.
pub(super) fn install(place: &Place, arguments: &Install) -> Result<Ended, Error> {
    if let Some(template) = &arguments.template {
        return install_template(place, template);
    }
    let mut advice = BTreeSet::new();
    let ended = each(place, &arguments.many, Which::All, |place| install_one(place, &mut advice));
    advice.iter().for_each(|text| tell(text));
    ended
}

/// Puts the hook into a directory from which `git init` and `git clone` copy it.
fn install_template(place: &Place, template: &Path) -> Result<Ended, Error> {
    let hooks = template.join("hooks");
    fs::create_dir_all(&hooks).map_err(|source| file_error("create", &hooks, source))?;
    let hook = hooks.join(POST_RECEIVE);
    if hook.symlink_metadata().is_ok() && !is_ours(&hook) {
        return Err(Error::Failed(format!("{} is there already and is not ours; move it away", hook.display())));
    }
    let script = hook_file::script(POST_RECEIVE, place.config.as_deref())?;
    hook_file::write(&hook, &script).map_err(|source| file_error("write", &hook, source))?;
    tell(&format!("installed {}", hook.display()));
    let template = template.canonicalize().map_err(|source| file_error("find", template, source))?;
    tell(&format!(
        "repositories that are made from now on have the hook once Git knows the directory; as the user who makes them, \
         run: git config --global init.templateDir {}",
        template.display()
    ));
    Ok(Ended::Done)
}

/// Puts the hook into a repository. What is the same for all repositories is left in `advice`.
fn install_one(place: &Place, advice: &mut BTreeSet<&str>) -> Result<Ended, Error> {
    let repo_dir = repo_dir(place)?;
    let config_file = match &place.config {
        Some(file) => Some(file.clone()),
        None => hook_file::configuration_of(&repo_dir).map_err(config::Error::from)?,
    };
    // The configuration may come later; its defaults are enough to mark the existing commits as seen.
    let config = load_config(config_file.as_deref(), &repo_dir);
    let is_polled = Kind::of(&repo_dir) == Kind::Tfvc;
    if is_polled && place.config.is_some() {
        return Err(Error::Usage(format!(
            "{0} has no hook that could name another configuration; write what it needs into {0}/rally-hook.toml",
            repo_dir.display()
        )));
    }
    // One that is named goes into the hook, and every command would fail by it. Without one, no server can be asked.
    let config = if place.config.is_some() || is_polled { Ok(config?) } else { config };
    if let Ok(config) = &config
        && let Some((from, to)) =
            StateDir::bring_into_place(&repo_dir, sharing(&repo_dir), config.queue.dir.as_deref())?
    {
        tell(&format!("moved the queue from {} to {}", from.display(), to.display()));
    }
    let mut site = Site::with_config(repo_dir.clone(), config.as_ref().cloned().unwrap_or_default())?;
    if config.is_ok() {
        site.settle_name(&mut Store::new(site.state.clone(), PATIENCE), None)?;
    }
    advice.insert(mark_seen(&site)?);
    // Another server that takes over is to know from where this one has recorded.
    if let Err(error) = site.forward() {
        tell(&format!("the ledger is told of this repository later: {}", with_causes(&error)));
    }
    if config.is_ok() {
        tell(&format!("this repository {}", Naming::of(&site.config, &site.home).text()));
    }
    hooks::put(&repo_dir, config_file.as_deref())?;
    match config {
        Ok(_) => {
            if let Ok(Some(clash)) = neighbours::look(&repo_dir, &site.config, config_file.as_deref()) {
                tell(&clash);
            }
            advice.insert("run `rally-hook doctor` to check whether everything is in place");
        }
        Err(error) => {
            tell(&format!("pushes are kept but not posted until this is fixed: {}", with_causes(&error)));
        }
    }
    Ok(Ended::Done)
}

/// Marks what the repository holds as seen, unless that was done before. Returns what people should know.
fn mark_seen(site: &Site) -> Result<&'static str, Error> {
    if site.with_queue(|queue| Ok(queue.is_initialised()?))? {
        return Ok(
            "the queue of an earlier installation goes on; run `rally-hook catch-up` to record what was pushed since",
        );
    }
    match site.learn_history() {
        Ok(true) => {
            return Ok(
                "other servers have recorded commits of this repository: those that no server has recorded are recorded with \
                 the next push, or by `rally-hook catch-up`",
            );
        }
        Ok(false) => {}
        Err(error) => {
            tell(&format!(
                "cannot ask the ledger whether other servers have recorded commits of this repository: {}",
                with_causes(&error)
            ));
            return Ok(
                "the first push is recorded once the ledger has answered whether other servers have recorded this repository",
            );
        }
    }
    site.mark_all_seen()?;
    Ok("the history that is there now counts as seen: it is not posted, unless you run `rally-hook backfill --all`")
}

pub(super) fn uninstall(place: &Place, many: &Many) -> Result<Ended, Error> {
    each(place, many, Which::Served, uninstall_one)
}

fn uninstall_one(place: &Place) -> Result<Ended, Error> {
    let repo_dir = repo_dir(place)?;
    // The hook may name the configuration.
    let base = state_base(place, &repo_dir);
    if !hooks::remove(&repo_dir)? {
        return Ok(Ended::NotAll);
    }
    if Kind::of(&repo_dir) == Kind::Tfvc {
        tell(&format!(
            "there is no hook to remove; to end the polling, remove the section [tfvc] from {}/rally-hook.toml",
            repo_dir.display()
        ));
    }
    if let Trace::Present(state) = StateDir::trace(&repo_dir, base.as_deref())? {
        tell_rest(&repo_dir, base.as_deref(), &state)?;
    }
    Ok(Ended::Done)
}

/// Says what becomes of the queue.
fn tell_rest(repo_dir: &Path, base: Option<&Path>, state: &Path) -> Result<(), Error> {
    let status = Store::new(state_dir(repo_dir, base)?, PATIENCE).run(|queue| queue.status(now()))?;
    let rest = format!("{} and {}", state.display(), repo_dir.join(MARKER).display());
    match status.pending + status.failed + status.pushes + status.state_requests {
        0 => tell(&format!("the queue is empty; {rest} may be removed")),
        _ => tell(&format!(
            "the queue is not empty ({} queued, {} failed, {} unread); before you remove {rest}, run \
             `rally-hook deliver --wait` and see `rally-hook status`",
            status.pending,
            status.failed,
            plural(status.pushes, "push")
        )),
    }
    Ok(())
}
