//! The hooks of a repository: files for Git and Subversion, lines of a file for Mercurial, none for TFVC.
//!
//! Files are written under another name, synced and renamed: a crash leaves the old hook or the new one.

use std::fs;
use std::path::{Path, PathBuf};

use super::hook_file::{self, Hook, file_error, is_executable, is_ours, kept};
use super::{Error, hgrc};
use crate::messages::tell;
use crate::vcs::{self, Kind};

/// Looks at the hooks of a repository. Returns the first that has a problem, or else the first.
///
/// # Errors
/// If it cannot be found out where they lie.
pub(super) fn look(repo_dir: &Path) -> Result<(PathBuf, Hook), vcs::Error> {
    if Kind::of(repo_dir) == Kind::Mercurial {
        return hgrc::look(repo_dir);
    }
    let hooks = files(repo_dir, &vcs::hooks_dir(repo_dir)?);
    let looked = |hook: &PathBuf| (hook.clone(), hook_file::look(hook));
    let is_problem = |(_, hook): &(PathBuf, Hook)| !matches!(hook, Hook::Runs | Hook::IsDispatched(_));
    let found = hooks.iter().map(looked).find(is_problem).or_else(|| hooks.first().map(looked));
    Ok(found.unwrap_or_else(|| (repo_dir.to_owned(), Hook::NotNeeded)))
}

/// Puts our hooks into a repository. Those that are there are kept, and run first.
pub(super) fn put(repo_dir: &Path, config_file: Option<&Path>) -> Result<(), Error> {
    if Kind::of(repo_dir) == Kind::Mercurial {
        return hgrc::put(repo_dir, config_file);
    }
    let hooks = vcs::hooks_dir(repo_dir)?;
    if vcs::shares_hooks(repo_dir, &hooks) {
        tell(&format!("core.hooksPath is {}: the hook serves all repositories that use it", hooks.display()));
    }
    for hook in files(repo_dir, &hooks) {
        let name = hook.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let script = hook_file::script(name, config_file)?;
        fs::create_dir_all(&hooks).map_err(|source| file_error("create", &hooks, source))?;
        if hook.symlink_metadata().is_ok() && !is_ours(&hook) {
            keep(&hook)?;
        }
        hook_file::write(&hook, &script).map_err(|source| file_error("write", &hook, source))?;
        tell(&format!("installed {}", hook.display()));
    }
    Ok(())
}

/// Removes our hooks, and puts back those that were there before. Returns whether there was anything to remove.
pub(super) fn remove(repo_dir: &Path) -> Result<bool, Error> {
    if Kind::of(repo_dir) == Kind::Mercurial {
        return hgrc::remove(repo_dir);
    }
    let hooks = vcs::hooks_dir(repo_dir)?;
    let files = files(repo_dir, &hooks);
    if files.iter().any(|hook| is_ours(hook)) && vcs::shares_hooks(repo_dir, &hooks) {
        return Err(Error::Failed(format!(
            "{} serves all repositories whose core.hooksPath is {}; remove the file by hand to stop posting for all",
            hooks.join(hook_file::POST_RECEIVE).display(),
            hooks.display()
        )));
    }
    let mut all_removed = true;
    for hook in files {
        all_removed &= remove_file(&hook)?;
    }
    Ok(all_removed)
}

/// Returns the files in a directory of hooks that the repository's program runs.
fn files(repo_dir: &Path, hooks: &Path) -> Vec<PathBuf> {
    hook_file::names(Kind::of(repo_dir)).iter().map(|name| hooks.join(name)).collect()
}

/// Keeps the hook that is there. It has both names until ours takes its place: at no moment is there no hook.
fn keep(hook: &Path) -> Result<(), Error> {
    let [kept, older] = kept(hook);
    if kept.symlink_metadata().is_ok() {
        // The host has written its hook again since we were installed: the new one counts.
        fs::rename(&kept, &older).map_err(|source| file_error("rename", &kept, source))?;
        tell(&format!("the hook that was kept before is now {}", older.display()));
    }
    fs::hard_link(hook, &kept).map_err(|source| file_error("keep", hook, source))?;
    let runs = if is_executable(hook) { "and runs first" } else { "and does not run, because it is not executable" };
    tell(&format!("the hook that was there is kept as {} {runs}", kept.display()));
    Ok(())
}

fn remove_file(hook: &Path) -> Result<bool, Error> {
    if !is_ours(hook) {
        let what = if hook.symlink_metadata().is_ok() { "is not ours" } else { "does not exist" };
        tell(&format!("{} {what}; nothing was changed", hook.display()));
        return Ok(false);
    }
    let [kept, older] = kept(hook);
    if kept.symlink_metadata().is_ok() {
        fs::rename(&kept, hook).map_err(|source| file_error("rename", &kept, source))?;
        tell(&format!("put back the hook that was there before: {} is {} again", kept.display(), hook.display()));
    } else {
        fs::remove_file(hook).map_err(|source| file_error("remove", hook, source))?;
        tell(&format!("removed {}", hook.display()));
    }
    if older.symlink_metadata().is_ok() {
        tell(&format!("an older hook stays as {}; it does not run", older.display()));
    }
    Ok(true)
}
