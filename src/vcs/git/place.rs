//! Where a repository is and what it says about itself. Git is asked, and so decides whether this user may use the
//! repository, and whether its format is known.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{Config, ObjectFormat};

use super::Error;
use crate::environment::variable;
use crate::files::{self, Links};
use crate::text::readable;
use crate::vcs::{Named, program};

/// No file of one line that Git writes is longer, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Returns the Git directory that `dir` is or lies in, absolute: the one that all linked work trees have in common.
///
/// # Errors
/// If there is none, or Git refuses to work in it, since it belongs to somebody else and `safe.directory` does not name it.
pub(crate) fn discover(dir: &Path, named: Named) -> Result<PathBuf, Error> {
    let missing = || Error::NoRepository(dir.to_owned());
    let by_file = named_by_file(dir);
    let dir = by_file.as_deref().unwrap_or(dir);
    let found = if dir.join("HEAD").exists() && dir.join("objects").is_dir() {
        // A Git directory, as hooks are given it: no process is started for it.
        dir.to_owned()
    } else if let Some(common) = common_dir(dir) {
        common
    } else {
        let answer = ask(dir, &["rev-parse", "--git-common-dir"]);
        let is_missing =
            |message: &str| message.contains("not a git repository") || message.contains("cannot change to");
        match answer {
            Err(Error::Says { message, .. }) if is_missing(&message) => return Err(missing()),
            answer => dir.join(path_of(&answer?)),
        }
    };
    let found = found.canonicalize().map_err(|_| missing())?;
    let is_ours = |path: &Path| path.metadata().is_ok_and(|meta| files::is_own(&meta));
    if named == Named::ByUser && !is_ours(&found) {
        // Git knows its own exceptions.
        ask(dir, &["rev-parse", "--git-dir"])?;
    }
    Ok(found)
}

/// Returns the Git directory that a file called `.git` names (`git help gitrepository-layout`), if this is one.
fn named_by_file(file: &Path) -> Option<PathBuf> {
    let text = files::read(file, MAX_LINE, Links::Follow).ok()?;
    Some(file.with_file_name("").join(path_of(text.strip_prefix(b"gitdir: ")?)))
}

/// Returns what a linked work tree's Git directory shares with the others, if it is one.
fn common_dir(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(path_of(&files::read(&dir.join("commondir"), MAX_LINE, Links::Follow).ok()?)))
}

/// Returns the path on a line that Git wrote.
fn path_of(line: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(line.strip_suffix(b"\n").unwrap_or(line)))
}

/// Tells whether Git runs us as a hook of this repository.
pub(crate) fn is_in_environment(git_dir: &Path) -> bool {
    let named = variable("GIT_DIR").and_then(|dir| Path::new(&dir).canonicalize().ok());
    named.is_some_and(|dir| {
        dir == git_dir || common_dir(&dir).and_then(|dir| dir.canonicalize().ok()).as_deref() == Some(git_dir)
    })
}

/// Returns a command of Git in this directory. It runs nothing that the repository's configuration names, fetches
/// nothing, and follows neither replace refs nor grafts.
fn git(dir: &Path) -> Command {
    let mut git = program::command("git");
    // A bare repository is accepted as if `--git-dir` named it. That option itself would switch off Git's check of its owner.
    let settings = ["-c", "core.fsmonitor=false", "-c", "safe.bareRepository=all"];
    git.arg("-C").arg(dir).args(settings).arg("--no-pager");
    // A hook's variables would hide what `-C` means.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE"] {
        git.env_remove(name);
    }
    git.env("LC_ALL", "C")
        .env("GIT_NO_LAZY_FETCH", "1")
        // The same for Git before 2.45, which does not know that variable: no transport is allowed.
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_OPTIONAL_LOCKS", "0")
        // `main~1` is what was pushed, as everywhere here, and not what a graft or a replacement makes of it.
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_GRAFT_FILE", "/dev/null");
    git
}

/// Runs a command of Git and returns what it prints.
///
/// # Errors
/// With Git's own message if it fails.
pub(crate) fn ask(dir: &Path, arguments: &[&str]) -> Result<Vec<u8>, Error> {
    let output = git(dir).args(arguments).output().map_err(|source| Error::Run { program: "git", source })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(refusal(dir, &output.stderr)),
    }
}

/// Returns Git's message, unless there is better advice than what it says of `safe.directory`.
fn refusal(dir: &Path, stderr: &[u8]) -> Error {
    let (path, message) = (dir.to_owned(), message(stderr));
    match dir.metadata() {
        Ok(meta) if message.contains("dubious ownership") => Error::Foreign { path, owner: meta.uid() },
        _ => Error::Says { program: "git", path, message },
    }
}

/// Returns what Git says on stderr, without its warnings before the error.
fn message(stderr: &[u8]) -> String {
    let text = readable(stderr);
    let error = text.find("fatal: ").map_or(&*text, |at| &text[at + "fatal: ".len()..]);
    program::message(error)
}

/// Asks Git for the repository's object format, and so whether it accepts the repository at all.
pub(crate) fn accepted_format(git_dir: &Path) -> Result<ObjectFormat, Error> {
    let answer = ask(git_dir, &["rev-parse", "--show-object-format"])?;
    Ok(format_of(&String::from_utf8_lossy(&answer)))
}

/// Returns the object format that the repository's configuration names, for a hook that Git has started.
pub(crate) fn configured_format(git_dir: &Path) -> ObjectFormat {
    let config = Config::open(&git_dir.join("config"));
    format_of(&config.and_then(|config| config.get_string("extensions.objectformat")).unwrap_or_default())
}

fn format_of(name: &str) -> ObjectFormat {
    if name.trim().eq_ignore_ascii_case("sha256") { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 }
}

/// Returns the full name of the branch that HEAD names.
pub(crate) fn head_branch(git_dir: &Path) -> Option<String> {
    let head = files::read(&git_dir.join("HEAD"), MAX_LINE, Links::Follow).unwrap_or_default();
    let name = head.strip_prefix(b"ref:").map(<[u8]>::trim_ascii);
    if let Some(name) = name.filter(|name| *name != b"refs/heads/.invalid") {
        return Some(readable(name).into_owned());
    }
    // With reftable, HEAD is not kept in that file. It may also be a symbolic link.
    let answer = ask(git_dir, &["symbolic-ref", "HEAD"]).ok()?;
    Some(readable(answer.trim_ascii()).into_owned())
}

/// Returns where Git looks for hooks: `core.hooksPath`, from any level of its configuration, or `hooks`.
pub(crate) fn hooks_dir(git_dir: &Path) -> Result<PathBuf, Error> {
    let answer = ask(git_dir, &["config", "--type=path", "--default", "hooks", "--get", "core.hooksPath"])?;
    // Relative to where the hooks of a push run: the Git directory, even if there is a work tree (`git help hooks`).
    Ok(git_dir.join(path_of(&answer)))
}

/// Tells whether the hooks of a repository lie in a directory that others may use too: outside of it, and named by a
/// configuration that is not its own.
pub(crate) fn shares_hooks(git_dir: &Path, hooks: &Path) -> bool {
    let is_own = || ask(git_dir, &["config", "--local", "--get", "core.hooksPath"]).is_ok();
    !hooks.starts_with(git_dir) && !is_own()
}

/// Tells whether `core.sharedRepository` opens the repository to a group.
pub(crate) fn is_shared(git_dir: &Path) -> bool {
    let config = Config::open(&git_dir.join("config"));
    let value = config.and_then(|config| config.get_string("core.sharedrepository"));
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "group" | "true" | "1" | "all" | "world" | "everybody" | "2" | "yes" | "on" => true,
        // An octal mode, such as 0660.
        mode => mode.starts_with('0') && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode & 0o020 != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_branch_of_head_is_found_in_every_form_that_git_reads() {
        let repository = crate::vcs::testing::TestRepository::new();
        repository.commit("main", "a");
        let head = repository.path().join("HEAD");
        for text in ["ref: refs/heads/main\n", "ref:refs/heads/main", "ref:\trefs/heads/main\n"] {
            fs::write(&head, text).expect("a file");
            assert_eq!(head_branch(repository.path()).as_deref(), Some("refs/heads/main"), "{text:?}");
        }
        fs::remove_file(&head).expect("it is there");
        std::os::unix::fs::symlink("refs/heads/unborn", &head).expect("a link");
        assert_eq!(head_branch(repository.path()).as_deref(), Some("refs/heads/unborn"));
    }

    #[test]
    fn a_detached_head_is_no_branch() {
        let repository = crate::vcs::testing::TestRepository::new();
        let revision = repository.commit("main", "a");
        fs::write(repository.path().join("HEAD"), revision).expect("a file");
        assert_eq!(head_branch(repository.path()), None);
    }

    #[test]
    fn the_reason_is_told_without_warnings() {
        let stderr = b"warning: unable to access '/root/.gitconfig'\nfatal: bad config line 3\nin file x\n";
        assert_eq!(message(stderr), "bad config line 3 in file x");
        assert_eq!(message(b""), "it gave no reason");
    }
}
