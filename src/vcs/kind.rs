//! The kinds of repositories: how one is recognised, where its hooks lie, and who uses it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, git};
use crate::files::{self, Links};
use crate::process;

pub(crate) use crate::config::Kind;

/// The file by which a share of Mercurial names the repository that it shares.
const SHARED_PATH: &str = "sharedpath";
/// No file of one path is longer, in bytes.
const MAX_PATH: u64 = 64 * 1024;
/// No configuration is longer, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;

/// Who named a directory, which decides whether its owner matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// The program or host that runs the hook. It has looked at the owner before, if it does so at all.
    ByHost,
    ByUser,
}

impl Kind {
    /// Returns the kind of a repository, whose directory this is; Git, if none is recognised: the rest of a damaged one.
    pub(crate) fn of(repo_dir: &Path) -> Self {
        Kind::at(repo_dir).unwrap_or(Kind::Git)
    }

    /// Returns the kind of the repository whose own directory this is.
    pub(crate) fn at(dir: &Path) -> Option<Self> {
        let has = |name: &str| dir.join(name).symlink_metadata().is_ok();
        if has("HEAD") && dir.join("objects").is_dir() {
            Some(Kind::Git)
        } else if has("format") && has("db/format") {
            Some(Kind::Subversion)
        } else if dir.file_name().is_some_and(|name| name == ".hg") && (has("requires") || has("store")) {
            Some(Kind::Mercurial)
        } else if names_tfvc(dir) {
            Some(Kind::Tfvc)
        } else {
            None
        }
    }

    /// Returns the word for it in `status --json`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Git => "git",
            Kind::Subversion => "svn",
            Kind::Mercurial => "hg",
            Kind::Tfvc => "tfvc",
        }
    }
}

/// Tells whether a directory stands for a path on a server, as its configuration says.
fn names_tfvc(dir: &Path) -> bool {
    let text = files::read(&dir.join("rally-hook.toml"), MAX_CONFIG, Links::Refuse).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(|line| line.trim_start().starts_with("[tfvc]"))
}

/// Returns the directory of the repository that `dir` is or lies in, absolute: what all its work trees have in common.
///
/// # Errors
/// If there is none, or it belongs to somebody else and was not opened to this user.
pub(crate) fn discover(dir: &Path, named: Named) -> Result<PathBuf, Error> {
    // In a work tree of Git, whoever may commit to it may put a directory `.hg` there.
    let is_git = || named == Named::ByUser && dir.join(".git").symlink_metadata().is_ok();
    let found = match Kind::at(dir) {
        Some(Kind::Git) => None,
        Some(Kind::Mercurial) => Some(shared_by(dir)),
        Some(_) => Some(dir.to_owned()),
        None => mercurial_in(dir).filter(|_| !is_git()),
    };
    let Some(found) = found else {
        let from_within = |error| match dir.canonicalize() {
            Ok(dir) if matches!(error, Error::NoRepository(_)) => {
                dir.ancestors().find_map(mercurial_in).map_or(Err(error), |found| own(found, named))
            }
            _ => Err(error),
        };
        return git::discover(dir, named).or_else(from_within);
    };
    own(found, named)
}

/// Returns the path of a repository's directory, if this user may use it.
fn own(found: PathBuf, named: Named) -> Result<PathBuf, Error> {
    let path = found.canonicalize().map_err(|_| Error::NoRepository(found))?;
    match path.metadata() {
        Ok(meta) if named == Named::ByUser && !files::is_own(&meta) && !is_shared(&path) => {
            Err(Error::Foreign { owner: meta.uid(), path })
        }
        _ => Ok(path),
    }
}

/// Returns the directory of the repository whose working directory this is; of the one that it shares its history with.
fn mercurial_in(dir: &Path) -> Option<PathBuf> {
    let own = dir.join(".hg");
    (Kind::at(&own) == Some(Kind::Mercurial)).then(|| shared_by(&own))
}

/// Returns the directory of the repository that this one shares its history with, or else its own.
fn shared_by(own: &Path) -> PathBuf {
    let shared = files::read(&own.join(SHARED_PATH), MAX_PATH, Links::Follow).ok();
    let shared = shared.and_then(|path| String::from_utf8(path).ok());
    shared.map_or_else(|| own.to_owned(), |path| own.join(path.trim_end_matches('\n')))
}

/// Tells whether a directory of a repository has no history of its own, but shares another one's.
pub(crate) fn is_share(kind: Kind, repo_dir: &Path) -> bool {
    kind == Kind::Mercurial && repo_dir.join(SHARED_PATH).exists()
}

/// Returns the directory in which a repository's hooks lie.
pub(crate) fn hooks_dir(repo_dir: &Path) -> Result<PathBuf, Error> {
    match Kind::of(repo_dir) {
        Kind::Git => git::hooks_dir(repo_dir),
        Kind::Subversion => Ok(repo_dir.join("hooks")),
        // Its hooks are lines of a file.
        Kind::Mercurial | Kind::Tfvc => Ok(repo_dir.to_owned()),
    }
}

/// Tells whether the hooks of a repository lie in a directory that others may use too.
pub(crate) fn shares_hooks(repo_dir: &Path, hooks: &Path) -> bool {
    Kind::of(repo_dir) == Kind::Git && git::shares_hooks(repo_dir, hooks)
}

/// Tells whether a repository is used by all users of a group: in Git, as it is configured. The others have only modes,
/// which their owner chooses, so these count where this user owns the repository or is in the group; never for root.
pub(crate) fn is_shared(repo_dir: &Path) -> bool {
    let is_opened =
        |meta: &fs::Metadata| meta.mode() & 0o020 != 0 && (files::is_own(meta) || process::is_in_group(meta.gid()));
    let is_group_writable = |name: &str| fs::metadata(repo_dir.join(name)).is_ok_and(|meta| is_opened(&meta));
    match Kind::of(repo_dir) {
        Kind::Git => git::is_shared(repo_dir),
        Kind::Subversion => is_group_writable("db"),
        Kind::Mercurial => is_group_writable("store"),
        Kind::Tfvc => false,
    }
}

/// Returns a number that differs once commits may have come in, told from the times of files, without reading any.
pub(crate) fn stamp(repo_dir: &Path) -> u64 {
    let files = |names: [&str; 2]| names.map(|name| repo_dir.join(name)).to_vec();
    let files = match Kind::of(repo_dir) {
        Kind::Git => git::ref_files(repo_dir),
        // A mirror notes in the properties of revision 0 how far it is.
        Kind::Subversion => files(["db/current", "db/revprops/0/0"]),
        Kind::Mercurial => files(["store/00changelog.i", "store/phaseroots"]),
        Kind::Tfvc => Vec::new(),
    };
    let mut hasher = DefaultHasher::new();
    for (path, meta) in files.iter().filter_map(|path| Some((path, fs::metadata(path).ok()?))) {
        (path, meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()).hash(&mut hasher);
    }
    hasher.finish()
}
