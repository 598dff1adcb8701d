//! The files that `install` writes as hooks of Git and Subversion.
//!
//! The kernel runs this program as the file's interpreter, which saves the push the start of a shell. A shell that runs
//! the file finds the same call in it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Error, hgrc, owners};
use crate::files::{self, Links, Owners};
use crate::vcs::{self, Kind};
use crate::{PROGRAM, process};

/// What Git runs after a push.
pub(super) const POST_RECEIVE: &str = "post-receive";
/// What Subversion runs after a commit, and after a property of a revision was changed, such as its log message.
pub(super) const POST_COMMIT: &str = "post-commit";
pub(super) const POST_REVPROP_CHANGE: &str = "post-revprop-change";
/// What the hook that was there before is called while ours is there, after its own name. Ours finds it beside itself,
/// wherever the repository is moved to.
const KEPT: &str = ".before-rally-hook";
/// What that one is called once another has taken its place: it never runs.
const KEPT_BEFORE: &str = ".before-rally-hook.old";
/// Tells our hook from others.
pub(super) const MARK: &str = "# Installed by rally-hook; `rally-hook uninstall` removes it.";
/// For the one who opens the file because Git says that it cannot run it: the package may have been removed.
const HELP: &str = "\
# If this file cannot be run, the program in its first line is gone. Install rally-hook again, or delete this file and
# rename the one beside it whose name ends in .before-rally-hook, if there is one, to this one's name.";
/// Begins the line that names the configuration which the hook and all commands read.
const CONFIG_MARK: &str = "# Configuration: ";
/// No hook of ours is longer than this, in bytes; a copy of the program is.
const MAX_SIZE: u64 = 16 * 1024;
/// A longer hook is not searched for a call of this program, in bytes.
const MAX_SCRIPT: u64 = 1024 * 1024;
/// What older kernels read of a script's first line, in bytes.
const MAX_FIRST_LINE: usize = 127;

/// What becomes of a push's hook.
pub(super) enum Hook {
    /// Git runs it, and it is ours or calls us.
    Runs,
    /// The host's own hook runs this one.
    IsDispatched(PathBuf),
    Missing,
    NotExecutable,
    OnNoexecMount,
    ProgramGone,
    /// It is not ours, and does not call us.
    Other,
    /// The repository's configuration does not include the lines of it.
    NotIncluded,
    /// Mercurial does not trust this owner of the repository's configuration.
    Untrusted(String),
    /// Such a repository has none: it is polled.
    NotNeeded,
}

impl Hook {
    /// Returns the word for `status --json`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Hook::Runs | Hook::IsDispatched(_) | Hook::NotNeeded => "installed",
            // They do not run.
            Hook::Missing
            | Hook::NotExecutable
            | Hook::OnNoexecMount
            | Hook::ProgramGone
            | Hook::NotIncluded
            | Hook::Untrusted(_) => "missing",
            Hook::Other => "other",
        }
    }
}

/// Returns the names of the files that a kind of repository runs.
pub(super) fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Git => &[POST_RECEIVE],
        Kind::Subversion => &[POST_COMMIT, POST_REVPROP_CHANGE],
        Kind::Mercurial | Kind::Tfvc => &[],
    }
}

/// Returns what the hook that was there before ours is called, and what the one before that.
pub(super) fn kept(hook: &Path) -> [PathBuf; 2] {
    [KEPT, KEPT_BEFORE].map(|suffix| {
        let mut name = hook.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        hook.with_file_name(name)
    })
}

/// Looks at a hook.
pub(super) fn look(hook: &Path) -> Hook {
    if let Some(file) = executables(&hook.with_extension("d")).into_iter().find(|file| calls_us(file)) {
        Hook::IsDispatched(file)
    } else if !hook.exists() {
        Hook::Missing
    } else if !is_executable(hook) {
        Hook::NotExecutable
    } else if process::is_on_noexec_mount(hook) {
        Hook::OnNoexecMount
    } else if program_in(hook).is_some_and(|program| !program.exists()) {
        Hook::ProgramGone
    } else if !calls_us(hook) {
        Hook::Other
    } else {
        Hook::Runs
    }
}

/// Tells whether Git would run a file as a hook.
pub(super) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// Tells whether a hook is ours or calls this program.
fn calls_us(hook: &Path) -> bool {
    let names_us = || {
        files::read(hook, MAX_SCRIPT, Links::Follow)
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(PROGRAM))
    };
    let leads_to_us = || fs::read_link(hook).is_ok_and(|target| target.to_string_lossy().contains(PROGRAM));
    is_ours(hook) || leads_to_us() || names_us()
}

/// Returns the executable files of a directory, as hosts' dispatchers run them.
fn executables(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| is_executable(path)).collect()
}

/// Returns the file's text. It names the program in full: if that is ever gone, the pusher is told, while Git ignores a
/// link that leads nowhere without a word.
pub(super) fn script(name: &str, config: Option<&Path>) -> Result<String, Error> {
    let program = std::env::current_exe().map_err(Error::OwnFile)?;
    let text = text_of(&program)?;
    let direct = format!("#!{text} {name}");
    // The kernel splits the line at white space.
    let is_direct = direct.len() < MAX_FIRST_LINE && !text.contains(char::is_whitespace);
    let first_line = if is_direct { direct } else { "#!/bin/sh".to_owned() };
    let config = config_line(config)?;
    Ok(format!("{first_line}\n{MARK}\n{HELP}\n{config}exec {} {name} \"$0\" \"$@\"\n", quoted(text)))
}

/// Returns the line that names the configuration, if one was named.
pub(super) fn config_line(config: Option<&Path>) -> Result<String, Error> {
    let Some(config) = config else { return Ok(String::new()) };
    let absolute = std::path::absolute(config).map_err(|source| file_error("find", config, source))?;
    Ok(format!("{CONFIG_MARK}{}\n", text_of(&absolute)?))
}

pub(super) fn write(hook: &Path, script: &str) -> io::Result<()> {
    files::replace(hook, 0o755, |file| file.write_all(script.as_bytes()))
}

/// Returns the configuration file that the hook of a repository was installed with, if one was named.
///
/// # Errors
/// If the hook names one, but somebody else may have written that.
pub(super) fn configuration_of(repo_dir: &Path) -> Result<Option<PathBuf>, files::Error> {
    let Ok(hooks) = vcs::hooks_dir(repo_dir) else { return Ok(None) };
    let named = match Kind::of(repo_dir) {
        Kind::Mercurial => Some(hgrc::own(repo_dir)),
        kind => names(kind).first().map(|name| hooks.join(name)),
    };
    let Some((file, hook)) = named.and_then(|hook| Some((configuration_in(&hook)?, hook))) else { return Ok(None) };
    check_owner(&hook, owners(repo_dir)).map(|()| Some(file))
}

/// Refuses a hook that a user wrote who does not decide what happens in this repository.
pub(super) fn check_owner(hook: &Path, owners: Owners) -> Result<(), files::Error> {
    let meta = hook.metadata().map_err(|source| files::Error::Read { path: hook.to_owned(), source })?;
    owners.check(hook, &meta)
}

/// Returns the configuration file that a hook of ours names, if it does.
pub(super) fn configuration_in(hook: &Path) -> Option<PathBuf> {
    let text = own_text(hook)?;
    text.lines().find_map(|line| line.strip_prefix(CONFIG_MARK)).map(PathBuf::from)
}

/// Returns the program that a hook of ours calls.
pub(super) fn program_in(hook: &Path) -> Option<PathBuf> {
    let text = own_text(hook)?;
    let (program, _) = text.lines().find_map(|line| line.strip_prefix("exec '")?.split_once("' post-"))?;
    Some(program.replace(r"'\''", "'").into())
}

/// Tells whether it is a hook that we wrote, or a link to this program, or a copy of it.
pub(super) fn is_ours(hook: &Path) -> bool {
    own_text(hook).is_some() || is_program(hook) == Some(true)
}

fn is_program(hook: &Path) -> Option<bool> {
    let program = std::env::current_exe().ok()?;
    let (ours, theirs) = (fs::metadata(&program).ok()?, fs::metadata(hook).ok()?);
    let is_link = (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
    Some(is_link || theirs.is_file() && ours.len() == theirs.len() && fs::read(program).ok()? == fs::read(hook).ok()?)
}

/// Returns the text of a hook that we wrote.
pub(super) fn own_text(hook: &Path) -> Option<String> {
    let text = String::from_utf8(files::read(hook, MAX_SIZE, Links::Follow).ok()?).ok()?;
    text.lines().any(|line| line == MARK).then_some(text)
}

pub(super) fn text_of(path: &Path) -> Result<&str, Error> {
    let text = path.to_str().filter(|text| !text.contains('\n'));
    text.ok_or_else(|| Error::Failed(format!("the path {} is not UTF-8 on one line; move the file", path.display())))
}

/// Quotes a path for the shell.
pub(super) fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

pub(super) fn file_error(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(quoted("/a b/$(x)'; rm"), r"'/a b/$(x)'\''; rm'");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let hook = dir.path().join(POST_RECEIVE);
        fs::write(&hook, script(POST_RECEIVE, Some(Path::new("/etc/it's.toml"))).expect("a script")).expect("a file");
        assert!(is_ours(&hook));
        assert_eq!(configuration_in(&hook), Some("/etc/it's.toml".into()));
        assert_eq!(program_in(&hook), std::env::current_exe().ok());
    }

    #[test]
    fn a_hook_of_somebody_else_is_not_ours() {
        let dir = tempfile::tempdir().expect("a directory");
        let hook = dir.path().join(POST_RECEIVE);
        fs::write(&hook, "#!/bin/sh\n# Configuration: /x\nexec '/bin/true' post-receive\n").expect("a file");
        assert!(!is_ours(&hook));
        assert_eq!((configuration_in(&hook), program_in(&hook)), (None, None));
    }
}
