//! Where a repository is, and where its hooks are.

use std::path::{Path, PathBuf};

use git2::{Config, ConfigLevel};

use super::Error;
use crate::environment::variable;

/// Returns the Git directory that `dir` is or lies in, absolute.
pub(crate) fn discover(dir: &Path) -> Result<PathBuf, Error> {
    let missing = || Error::NoRepository(dir.to_owned());
    // A directory that looks like a Git directory is taken as it is: libgit2 does not know all formats.
    let found = match dir.join("HEAD").exists() && dir.join("objects").is_dir() {
        true => dir.to_owned(),
        false => git2::Repository::discover_path(dir, std::iter::empty::<&Path>()).map_err(|_| missing())?,
    };
    found.canonicalize().map_err(|_| missing())
}

/// Tells whether Git runs us as a hook of this repository.
pub(super) fn is_in_environment(git_dir: &Path) -> bool {
    variable("GIT_DIR").is_some_and(|dir| Path::new(&dir) == git_dir)
}

/// Returns where Git looks for hooks: `core.hooksPath`, from any level of its configuration, or `hooks`.
pub(crate) fn hooks_dir(git_dir: &Path) -> Result<PathBuf, Error> {
    let open = |source| Error::Open { path: git_dir.to_owned(), source };
    let mut config = Config::open_default().map_err(open)?;
    config.add_file(&git_dir.join("config"), ConfigLevel::Local, false).map_err(open)?;
    match config.get_path("core.hookspath") {
        // Relative to where hooks run: the Git directory, or the work tree's top.
        Ok(path) if path.is_relative() && git_dir.ends_with(".git") => {
            Ok(git_dir.parent().unwrap_or(git_dir).join(path))
        }
        Ok(path) => Ok(git_dir.join(path)),
        Err(_) => Ok(git_dir.join("hooks")),
    }
}

/// Tells whether `core.sharedRepository` opens the repository to a group. Reads only the repository's own
/// configuration, so that it works for formats that libgit2 cannot open.
pub(crate) fn is_shared(git_dir: &Path) -> bool {
    let config = Config::open(&git_dir.join("config"));
    let value = config.and_then(|config| config.get_string("core.sharedrepository"));
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "group" | "true" | "1" | "all" | "world" | "everybody" | "2" | "yes" | "on" => true,
        // An octal mode, such as 0660.
        mode => mode.starts_with('0') && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode & 0o020 != 0),
    }
}
