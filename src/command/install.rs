//! `rally-hook install` and `uninstall`: our hook, and the one that was there before.
//!
//! Files are written under another name, synced and renamed: a crash leaves the old hook or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Ended, Error, git_dir};
use crate::cli::Place;
use crate::config::Config;
use crate::context::{self, Context};
use crate::git;
use crate::messages::tell;
use crate::queue::Walked;
use crate::record;

const HOOK: &str = "post-receive";
/// What the hook that was there before is called while ours is there. Ours finds it beside itself, wherever the
/// repository is moved to.
pub(super) const KEPT: &str = "post-receive.before-rally-hook";
/// Tells our hook from others.
const MARK: &str = "# Installed by rally-hook; `rally-hook uninstall` removes it.";
/// Begins the line that tells the other commands which configuration the hook reads.
const CONFIG_MARK: &str = "# Configuration: ";

pub fn install(place: &Place) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    let hooks = git::hooks_dir(&git_dir)?;
    let (hook, kept) = (hooks.join(HOOK), hooks.join(KEPT));
    let config_file = place.config.clone().or_else(|| configured(&git_dir));
    // The configuration may come later; to mark what is there as seen, its defaults do.
    let config = Config::load(config_file.as_deref(), &git_dir);
    let context = Context::new(git_dir.clone(), config.as_ref().cloned().unwrap_or_default())?;
    let mut queue = context.open_queue()?;
    if queue.seen_scope(Walked::Commits)?.is_none() {
        match record::mark_all_seen(&context, &mut queue) {
            Ok(()) => {
                tell("what the repository holds now counts as seen; `rally-hook backfill` posts history on purpose")
            }
            // The hook keeps the pushes all the same.
            Err(context::Error::Git(error @ git::Error::Format { .. })) => tell(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
    } else {
        tell(
            "the queue of an earlier installation goes on; what was pushed since, if anything, is recorded with the next push, or now by `rally-hook catch-up`",
        );
    }
    fs::create_dir_all(&hooks).map_err(|error| failed("create", &hooks, &error))?;
    let script = script(config_file.as_deref())?;
    if hook.symlink_metadata().is_ok() && !is_ours(&hook) {
        if kept.symlink_metadata().is_ok() {
            return Err(Error::Failed(format!(
                "{} is not ours and should be kept as {}, which is there already; remove one of them",
                hook.display(),
                kept.display()
            )));
        }
        // Under both names until ours takes its place: at no moment is there no hook.
        fs::hard_link(&hook, &kept).map_err(|error| failed("keep", &hook, &error))?;
        let runs = hook.metadata().is_ok_and(|meta| meta.mode() & 0o111 != 0);
        let what = if runs { "and runs first" } else { "and does not run, as it is not executable" };
        tell(&format!("the hook that was there is kept as {} {what}", kept.display()));
    }
    write_hook(&hook, &script).map_err(|error| failed("write", &hook, &error))?;
    tell(&format!("installed {}", hook.display()));
    match config {
        Ok(_) => tell("`rally-hook doctor` checks whether everything is in place"),
        Err(error) => tell(&format!("until this is put right pushes are kept and nothing is posted: {error}")),
    }
    Ok(Ended::Done)
}

pub fn uninstall(place: &Place) -> Result<Ended, Error> {
    let hooks = git::hooks_dir(&git_dir(place)?)?;
    let (hook, kept) = (hooks.join(HOOK), hooks.join(KEPT));
    if !is_ours(&hook) {
        let what = if hook.symlink_metadata().is_ok() { "is not ours" } else { "is not there" };
        tell(&format!("{} {what}; nothing was changed", hook.display()));
        return Ok(Ended::NotAll);
    }
    if kept.symlink_metadata().is_ok() {
        fs::rename(&kept, &hook).map_err(|error| failed("rename", &kept, &error))?;
        tell(&format!("put back the hook that was there before, {}", hook.display()));
    } else {
        fs::remove_file(&hook).map_err(|error| failed("remove", &hook, &error))?;
        tell(&format!("removed {}", hook.display()));
    }
    tell(
        "the queue stays; `rally-hook deliver --wait` posts what waits, and then the directory rally-hook may be removed",
    );
    Ok(Ended::Done)
}

/// Tells whether it is a hook that we wrote, or a link to this program, or a copy of it.
fn is_ours(hook: &Path) -> bool {
    let is_same_file = || {
        let (program, hook) = (fs::metadata(std::env::current_exe().ok()?).ok()?, fs::metadata(hook).ok()?);
        Some((program.dev(), program.ino()) == (hook.dev(), hook.ino()))
    };
    let is_written_by_us = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').any(|line| line == MARK.as_bytes());
    let is_copy = |bytes: &[u8]| std::env::current_exe().and_then(fs::read).is_ok_and(|program| program == bytes);
    is_same_file() == Some(true)
        || fs::read(hook)
            .is_ok_and(|bytes| is_written_by_us(&bytes) || bytes.starts_with(b"\x7fELF") && is_copy(&bytes))
}

/// Returns the hook's text: a script that names the program in full. If that is ever gone, the pusher is told, while Git
/// passes over a link that leads nowhere without a word.
fn script(config: Option<&Path>) -> Result<String, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::Failed(format!("cannot find this program's own file: {error}")))?;
    if config.is_none() && can_be_interpreter(&program) {
        // Without a shell in between: starting one costs the push half a millisecond.
        return Ok(format!("#!{} post-receive\n{MARK}\n", program.display()));
    }
    let (mut comment, mut options) = (String::new(), String::new());
    if let Some(config) = config {
        let config = std::path::absolute(config).map_err(|error| failed("find", config, &error))?;
        if config.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(Error::Failed(format!("{} has a line break in its name; give it another", config.display())));
        }
        options = format!(" --config {}", quoted(&config)?);
        comment = format!("{CONFIG_MARK}{}\n", config.display());
    }
    Ok(format!("#!/bin/sh\n{MARK}\n{comment}exec {} post-receive{options} \"$0\"\n", quoted(&program)?))
}

/// Returns the configuration file that our hook in the repository was installed with, if one was named.
pub(super) fn configured(git_dir: &Path) -> Option<PathBuf> {
    let hook = fs::read_to_string(git::hooks_dir(git_dir).ok()?.join(HOOK)).ok()?;
    let mut lines = hook.lines().skip_while(|line| *line != MARK);
    lines.find_map(|line| line.strip_prefix(CONFIG_MARK)).map(PathBuf::from)
}

/// Tells whether the kernel can find the program by the first line of a script: it stops at white space, and older
/// ones take no more than 127 bytes.
fn can_be_interpreter(program: &Path) -> bool {
    let longest = 127 - "#! post-receive\n".len();
    program.to_str().is_some_and(|path| path.len() <= longest && !path.contains(char::is_whitespace))
}

/// Quotes a path for the shell.
fn quoted(path: &Path) -> Result<String, Error> {
    let text =
        path.to_str().ok_or_else(|| Error::Failed(format!("{} is not UTF-8; put it elsewhere", path.display())))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn write_hook(hook: &Path, script: &str) -> io::Result<()> {
    let temporary = hook.with_file_name(format!("{HOOK}.tmp-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&temporary)?;
    file.write_all(script.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, hook)?;
    File::open(hook.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::Failed(format!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(quoted(Path::new("/a b/$(x)'; rm")).expect("UTF-8"), r"'/a b/$(x)'\''; rm'");
    }
}
