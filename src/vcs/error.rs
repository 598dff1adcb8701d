//! Why a repository cannot be read, or only in part.

use std::io;
use std::path::{Path, PathBuf};

use super::git::{LARGEST, LibraryError, MAX_DEPTH, ObjectId};
use super::tfvc::TfvcError;
use crate::config;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", no_repository(.0))]
    NoRepository(PathBuf),
    #[error(
        "{} belongs to user {owner}; run this as that user, or chown it if the repository changed hands", path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error("cannot run {program}; install it, put it into PATH, or make it executable")]
    Run { program: &'static str, source: io::Error },
    /// What a program says about a repository that it refuses.
    #[error("{}: {program} says: {message}", path.display())]
    Says { program: &'static str, path: PathBuf, message: String },
    #[error("{program} cannot resolve the range: {message}")]
    Range { program: &'static str, message: String },
    #[error("{0:?} is not a date; write 2026-01-31 or \"3 weeks ago\"")]
    Date(String),
    #[error(transparent)]
    Tfvc(#[from] TfvcError),
    #[error(transparent)]
    Config(config::Error),
    #[error("the time for reading history is over")]
    OutOfTime,
    #[error("cannot open the repository {}", path.display())]
    Open { path: PathBuf, source: LibraryError },
    #[error("the path {} is not UTF-8 and cannot be reached through /proc; rename it, or mount /proc", path.display())]
    NotUtf8 { path: PathBuf, source: io::Error },
    #[error("cannot read object {id}")]
    Object { id: ObjectId, source: LibraryError },
    #[error("cannot read object {id}")]
    Loose { id: ObjectId, source: io::Error },
    #[error("object {id} is damaged: it is not a {kind}")]
    Damaged { id: ObjectId, kind: &'static str },
    #[error("tree {id} is nested too deeply: more than {MAX_DEPTH} directories")]
    TooDeep { id: ObjectId },
    #[error("object {id} is too large: {size} bytes; at most {LARGEST} are read")]
    TooLarge { id: ObjectId, size: usize },
    #[error("tag {id} leads through too many other tags")]
    TooManyTags { id: ObjectId },
    #[error("cannot start a thread to read commits; this user may have no more processes or memory")]
    Thread(#[source] io::Error),
}

fn no_repository(path: &Path) -> String {
    // A relative path says little in a log, or to a caller from elsewhere.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = path.display();
    match path.exists() {
        false => format!("{name} does not exist"),
        true => format!(
            "{name} is not a Git repository, nor one of Subversion or Mercurial, and its rally-hook.toml has no [tfvc]; name \
             the repository's own directory, not one of its work trees or the one above it"
        ),
    }
}
