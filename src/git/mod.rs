//! The Git side: which commits are new, what they say and which paths they change.
//!
//! This module and those below it are the only users of libgit2. They read raw objects through its object
//! database and parse them here, which is several times faster than its higher layers. Replace refs and grafts are
//! not followed: what was pushed is what is posted.

mod commit;
mod range;
mod read;
mod tree_diff;
mod walk;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ErrorCode, ObjectType, Odb, OdbObject, Oid, RepositoryOpenFlags};

pub use range::{Range, is_date, resolve};
pub use read::{Item, Read, Reader, read_list, read_range};
pub use walk::Walk;

use crate::push::{CommitId, Tip};

/// How much of what was read lately is kept, twice this at most. Larger objects are not kept.
const RECENT_SIZE: usize = 8 * 1024 * 1024;
const LARGEST_RECENT: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is not a Git repository", .0.display())]
    NoRepository(PathBuf),
    #[error(
        "{}: {problem}, which libgit2 cannot open yet; pushes are kept in the queue and can be posted once it can \
         (the formats it reads: git init --object-format=sha1 --ref-format=files)", path.display()
    )]
    Format { path: PathBuf, problem: String },
    #[error("{} belongs to another user; run this as its owner, or run: git config --global --add safe.directory {}", path.display(), path.display())]
    Owner { path: PathBuf },
    #[error("cannot open the repository {}", path.display())]
    Open { path: PathBuf, source: git2::Error },
    #[error("cannot read the refs")]
    Refs(#[source] git2::Error),
    #[error("cannot read object {id}")]
    Object { id: CommitId, source: git2::Error },
    #[error("object {id} is damaged: it is no {kind} that Git could have written")]
    Damaged { id: CommitId, kind: &'static str },
    #[error("cannot start a thread to read commits; this user may have no more processes or memory")]
    Thread(#[source] std::io::Error),
    #[error("there is no time left to walk the history")]
    OutOfTime,
    #[error("cannot run git to resolve the range")]
    RunGit(#[source] std::io::Error),
    #[error("git cannot resolve the range: {0}")]
    Range(String),
}

/// An open repository.
pub struct Repository {
    inner: git2::Repository,
    recent: RefCell<Recent>,
}

impl Repository {
    /// Opens the repository in this directory, with the alternates that the environment adds where it is the one
    /// that Git runs the hook for.
    pub fn open(git_dir: &Path) -> Result<Self, Error> {
        tune_libgit2();
        let from_env = std::env::var_os("GIT_DIR").is_some_and(|dir| Path::new(&dir) == git_dir);
        let flags = if from_env { RepositoryOpenFlags::FROM_ENV } else { RepositoryOpenFlags::empty() };
        let flags = flags | RepositoryOpenFlags::NO_SEARCH;
        match git2::Repository::open_ext(git_dir, flags, std::iter::empty::<&Path>()) {
            Ok(inner) => Ok(Repository { inner, recent: RefCell::default() }),
            Err(source) => Err(open_error(git_dir.to_owned(), source)),
        }
    }

    pub(crate) fn objects(&self) -> Result<Objects<'_>, Error> {
        let open = |source| Error::Open { path: self.inner.path().to_owned(), source };
        Ok(Objects { odb: self.inner.odb().map_err(open)?, recent: &self.recent })
    }

    /// Returns all refs that lead to commits, each with the commit. Symbolic refs are left out: their target is there itself.
    pub fn tips(&self) -> Result<Vec<(String, Tip)>, Error> {
        let objects = self.objects()?;
        let mut tips = Vec::new();
        for reference in self.inner.references().map_err(Error::Refs)? {
            let reference = reference.map_err(Error::Refs)?;
            let Some(target) = reference.target() else { continue };
            // A ref whose object is gone is Git's trouble; it must not hide the other refs.
            let Ok(Some(tip)) = objects.peel(from_oid(target)) else { continue };
            let name = crate::text::readable(reference.name_bytes());
            tips.push((strip_namespaces(&name).to_owned(), tip));
        }
        Ok(tips)
    }

    /// Returns the full name of the branch that HEAD names.
    pub fn head_branch(&self) -> Option<String> {
        let head = self.inner.find_reference("HEAD").ok()?;
        head.symbolic_target_bytes().map(|name| crate::text::readable(name).into_owned())
    }
}

/// The objects of a repository.
pub(crate) struct Objects<'r> {
    odb: Odb<'r>,
    recent: &'r RefCell<Recent>,
}

/// A copy of an object's kind and bytes.
#[derive(Clone)]
struct Object {
    kind: ObjectType,
    data: Arc<[u8]>,
}

/// What was read lately: a commit's tree is read again as its child's parent tree, most of its subtrees too. When the
/// younger generation is full it becomes the older one, which is dropped.
#[derive(Default)]
struct Recent {
    younger: HashMap<CommitId, Object>,
    older: HashMap<CommitId, Object>,
    /// Of the younger generation.
    size: usize,
}

impl Recent {
    fn get(&mut self, id: CommitId) -> Option<Object> {
        if let Some(object) = self.younger.get(&id) {
            return Some(object.clone());
        }
        let object = self.older.remove(&id)?;
        self.keep(id, &object);
        Some(object)
    }

    fn keep(&mut self, id: CommitId, object: &Object) {
        if object.data.len() > LARGEST_RECENT {
            return;
        }
        if self.size > RECENT_SIZE {
            self.older = std::mem::take(&mut self.younger);
            self.size = 0;
        }
        self.size += object.data.len();
        self.younger.insert(id, object.clone());
    }
}

impl Objects<'_> {
    /// Returns the commit that the object is or, if it is an annotated tag, leads to; `None` for other objects.
    pub fn peel(&self, id: CommitId) -> Result<Option<Tip>, Error> {
        let mut id = id;
        loop {
            let object = self.read_often(id)?;
            match object.kind {
                ObjectType::Commit => {
                    let commit = commit::parse(&object.data).ok_or(Error::Damaged { id, kind: "commit" })?;
                    return Ok(Some(Tip { id, time: commit.committed_at }));
                }
                ObjectType::Tag => id = commit::tag_target(&object.data).ok_or(Error::Damaged { id, kind: "tag" })?,
                _ => return Ok(None),
            }
        }
    }

    fn read(&self, id: CommitId) -> Result<OdbObject<'_>, Error> {
        self.odb.read(oid(id)).map_err(|source| Error::Object { id, source })
    }

    /// Reads an object that may well have been read just before, or will be again.
    fn read_often(&self, id: CommitId) -> Result<Object, Error> {
        if let Some(object) = self.recent.borrow_mut().get(id) {
            return Ok(object);
        }
        let object = self.read(id)?;
        let object = Object { kind: object.kind(), data: object.data().into() };
        self.recent.borrow_mut().keep(id, &object);
        Ok(object)
    }

    /// Takes in commits that somebody has read: the parents of some are others of them.
    fn know(&self, items: &[Item]) {
        let mut recent = self.recent.borrow_mut();
        for (id, data) in items.iter().filter_map(|item| Some((item.id, item.data.clone()?))) {
            recent.keep(id, &Object { kind: ObjectType::Commit, data });
        }
    }

    fn read_tree(&self, id: CommitId) -> Result<Arc<[u8]>, Error> {
        let object = self.read_often(id)?;
        if object.kind == ObjectType::Tree { Ok(object.data) } else { Err(Error::Damaged { id, kind: "tree" }) }
    }
}

/// Turns the error for an object that is not there, as a shallow repository's parents are, into `None`.
fn if_there<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(Error::Object { source, .. }) if source.code() == ErrorCode::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Returns the Git directory that `dir` is or lies in.
pub fn discover(dir: &Path) -> Result<PathBuf, Error> {
    git2::Repository::discover_path(dir, std::iter::empty::<&Path>()).map_err(|_| Error::NoRepository(dir.to_owned()))
}

/// Returns where Git looks for hooks: `core.hooksPath`, from any level of its configuration, or `hooks`.
pub fn hooks_dir(git_dir: &Path) -> Result<PathBuf, Error> {
    let open = |source| Error::Open { path: git_dir.to_owned(), source };
    let mut config = git2::Config::open_default().map_err(open)?;
    config.add_file(&git_dir.join("config"), git2::ConfigLevel::Local, false).map_err(open)?;
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
pub fn is_shared(git_dir: &Path) -> bool {
    let config = git2::Config::open(&git_dir.join("config"));
    let value = config.and_then(|config| config.get_string("core.sharedrepository"));
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "group" | "true" | "1" | "all" | "world" | "everybody" | "2" | "yes" | "on" => true,
        // An octal mode, such as 0660.
        mode => mode.starts_with('0') && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode & 0o020 != 0),
    }
}

fn open_error(path: PathBuf, source: git2::Error) -> Error {
    match source.code() {
        ErrorCode::Owner => Error::Owner { path },
        ErrorCode::NotFound => Error::NoRepository(path),
        _ if source.message().contains("extension") || source.message().contains("object format") => {
            Error::Format { path, problem: source.message().to_owned() }
        }
        _ => Error::Open { path, source },
    }
}

/// Refs in namespaces are pushed to by their short names (`git help namespaces`).
fn strip_namespaces(mut name: &str) -> &str {
    while let Some((_, inner)) = name.strip_prefix("refs/namespaces/").and_then(|rest| rest.split_once('/')) {
        name = inner;
    }
    name
}

fn oid(id: CommitId) -> Oid {
    Oid::from_bytes(&id.0).expect("both are 20 bytes")
}

fn from_oid(id: Oid) -> CommitId {
    CommitId(id.as_bytes().try_into().expect("both are 20 bytes"))
}

fn tune_libgit2() {
    // Git checked every object when it took it in.
    git2::opts::strict_hash_verification(false);
    // What we read twice we keep ourselves; its cache costs more than it saves a walk that reads each object once.
    git2::opts::enable_caching(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaced_ref_has_the_name_it_is_pushed_by() {
        assert_eq!(strip_namespaces("refs/namespaces/a/refs/namespaces/b/refs/heads/x"), "refs/heads/x");
        assert_eq!(strip_namespaces("refs/heads/x"), "refs/heads/x");
    }
}
