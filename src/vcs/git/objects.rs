//! Raw objects: loose ones are read here, packed ones through libgit2's object database, and all are parsed here, which
//! is several times faster than libgit2's higher layers. Replace refs and grafts are not followed: what was pushed is
//! posted.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectFormat, ObjectType, Odb};

use super::Error;
use super::commit::{self, RawCommit};
use super::id::{Dated, ObjectId};
use super::loose::Loose;
use super::place;
use super::walk::Node;
use crate::files::{self, Links};

/// A longer list of commits at which history is cut off counts as none, in bytes.
const MAX_SHALLOW: u64 = 64 * 1024 * 1024;
/// How much of what was read lately is kept, twice this at most. Larger objects are not kept.
const RECENT_SIZE: usize = 8 * 1024 * 1024;
const LARGEST_RECENT: usize = 1024 * 1024;

/// Larger commits are not handed on by a walk: many may be waiting at once.
const LARGEST_HANDED_ON: usize = 16 * 1024;

/// Larger commits, tags and trees are not read, in bytes: a tree of this size has some 400,000 entries. Each reader may
/// hold several objects.
pub(crate) const LARGEST: usize = 16 * 1024 * 1024;

/// How many tags may lead from one to the next: more are not meant to lead to a commit.
const MAX_TAGS: usize = 100;

/// The objects of a repository.
pub(crate) struct Objects {
    odb: Odb<'static>,
    /// Directories that `odb` reaches through these: see [`text_path`].
    _opened: Vec<File>,
    loose: Loose,
    recent: RefCell<Recent>,
    /// What the tags that were read lead to: each of many may lead through all others.
    tags: RefCell<HashMap<ObjectId, ObjectId>>,
    git_dir: PathBuf,
    /// The commits at which history was cut off.
    shallow: OnceCell<HashSet<ObjectId>>,
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
    younger: HashMap<ObjectId, Object>,
    older: HashMap<ObjectId, Object>,
    /// Of the younger generation, in bytes.
    size: usize,
}

impl Recent {
    fn get(&mut self, id: ObjectId) -> Option<Object> {
        if let Some(object) = self.younger.get(&id) {
            return Some(object.clone());
        }
        let object = self.older.remove(&id)?;
        self.keep(id, &object);
        Some(object)
    }

    fn keep(&mut self, id: ObjectId, object: &Object) {
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

impl Objects {
    /// Opens the objects in these directories.
    pub(crate) fn open(git_dir: &Path, format: ObjectFormat, dirs: Vec<PathBuf>) -> Result<Self, Error> {
        tune_libgit2();
        let open = |source| Error::Open { path: git_dir.to_owned(), source };
        let odb = Odb::new_ext(format).map_err(open)?;
        let mut opened = Vec::new();
        for dir in &dirs {
            odb.add_disk_alternate(&text_path(dir, &mut opened)?).map_err(open)?;
        }
        let (loose, recent, tags) = (Loose::new(dirs), RefCell::default(), RefCell::default());
        let git_dir = git_dir.to_owned();
        Ok(Objects { odb, _opened: opened, loose, recent, tags, git_dir, shallow: OnceCell::new() })
    }

    /// Returns the commit that the object is or, if it is an annotated tag, leads to; `None` for other objects.
    pub(crate) fn peel(&self, id: ObjectId) -> Result<Option<Dated>, Error> {
        let mut peeled = id;
        for _ in 0..MAX_TAGS {
            if let Some(target) = self.tags.borrow().get(&peeled) {
                peeled = *target;
                continue;
            }
            let object = self.read_often(peeled)?;
            match object.kind {
                ObjectType::Commit => {
                    let time = parse_commit(peeled, &object.data)?.committed_at;
                    return Ok(Some(Dated { id: peeled, time }));
                }
                ObjectType::Tag => {
                    let damaged = Error::Damaged { id: peeled, kind: "tag" };
                    let target = commit::tag_target(&object.data).ok_or(damaged)?;
                    self.tags.borrow_mut().insert(peeled, target);
                    peeled = target;
                }
                _ => return Ok(None),
            }
        }
        Err(Error::TooManyTags { id })
    }

    fn read(&self, id: ObjectId) -> Result<Object, Error> {
        match self.loose.read(id) {
            Ok(Some((kind, data))) => Ok(Object { kind, data: data.into() }),
            Ok(None) => self.read_packed(id),
            Err(source) => self.read_with_git(id).ok_or(Error::Loose { id, source }),
        }
    }

    fn read_packed(&self, id: ObjectId) -> Result<Object, Error> {
        let failed = |source| Error::Object { id, source };
        // Some kilobytes of a pack may be an object of gigabytes.
        let (size, kind) = self.odb.read_header(id.oid()).map_err(failed)?;
        if kind == ObjectType::Blob {
            // All that counts of a blob is that it is one.
            return Ok(Object { kind, data: Arc::default() });
        }
        if size > LARGEST {
            return Err(Error::TooLarge { id, size });
        }
        let packed = self.odb.read(id.oid()).map_err(failed)?;
        Ok(Object { kind: packed.kind(), data: packed.data().into() })
    }

    /// Reads an object whose own file is damaged. Git finds it if it is in a pack too; libgit2 might never return.
    fn read_with_git(&self, id: ObjectId) -> Option<Object> {
        let cat = |what: &str| place::ask(&self.git_dir, &["cat-file", what, &id.to_string()]).ok();
        let text = |what: &str| Some(String::from_utf8(cat(what)?).ok()?.trim_end().to_owned());
        let (name, size) = (text("-t")?, text("-s")?.parse::<usize>().ok()?);
        let kind = ObjectType::from_str(&name)?;
        (size <= LARGEST).then(|| cat(&name)).flatten().map(|data| Object { kind, data: data.into() })
    }

    /// Reads an object that may well have been read just before, or will be again.
    fn read_often(&self, id: ObjectId) -> Result<Object, Error> {
        if let Some(object) = self.recent.borrow_mut().get(id) {
            return Ok(object);
        }
        let object = self.read(id)?;
        self.recent.borrow_mut().keep(id, &object);
        Ok(object)
    }

    /// Returns a raw commit.
    pub(crate) fn read_commit(&self, id: ObjectId) -> Result<Arc<[u8]>, Error> {
        self.read_often(id).map(|object| object.data)
    }

    /// Returns a raw tree.
    pub(crate) fn read_tree(&self, id: ObjectId) -> Result<Arc<[u8]>, Error> {
        let object = self.read_often(id)?;
        if object.kind == ObjectType::Tree { Ok(object.data) } else { Err(Error::Damaged { id, kind: "tree" }) }
    }

    /// Keeps a commit that somebody has read: it may be the parent of another one.
    pub(crate) fn keep_commit(&self, id: ObjectId, data: Arc<[u8]>) {
        self.recent.borrow_mut().keep(id, &Object { kind: ObjectType::Commit, data });
    }

    /// Makes a tree known that is in memory only.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn keep_tree(&self, id: ObjectId, data: &[u8]) {
        self.recent.borrow_mut().keep(id, &Object { kind: ObjectType::Tree, data: data.into() });
    }

    /// Tells whether history was cut off at this commit: its parents were never fetched.
    pub(crate) fn is_shallow(&self, id: ObjectId) -> bool {
        let read = || {
            let listed = files::read(&self.git_dir.join("shallow"), MAX_SHALLOW, Links::Follow).unwrap_or_default();
            String::from_utf8_lossy(&listed).lines().filter_map(|line| line.parse().ok()).collect()
        };
        self.shallow.get_or_init(read).contains(&id)
    }

    /// Reads a commit for a walk, which reads the commit itself later.
    pub(crate) fn node(&self, id: ObjectId) -> Result<Node, Error> {
        let object = self.read_often(id)?;
        self.parsed_node(id, &object.data, None)
    }

    /// Reads a commit for a walk whose commits are read by others: the node has the raw commit with it, unless that is
    /// large.
    pub(crate) fn node_with_data(&self, id: ObjectId) -> Result<Node, Error> {
        let object = self.read(id)?;
        let data = (object.data.len() <= LARGEST_HANDED_ON).then(|| Arc::clone(&object.data));
        self.parsed_node(id, &object.data, data)
    }

    fn parsed_node(&self, id: ObjectId, raw: &[u8], data: Option<Arc<[u8]>>) -> Result<Node, Error> {
        let commit = parse_commit(id, raw)?;
        let parents = if self.is_shallow(id) { Vec::new() } else { commit.parents };
        Ok(Node { commit: Dated { time: commit.committed_at, id }, parents: Some(parents), data })
    }
}

/// Returns a path of the directory that is text, as git2 takes no other. If its own path is not UTF-8, the directory is
/// opened, and is found below `/proc` (`man proc_pid_fd`) as long as it stays open.
fn text_path<'d>(dir: &'d Path, opened: &mut Vec<File>) -> Result<Cow<'d, str>, Error> {
    if let Some(path) = dir.to_str() {
        return Ok(path.into());
    }
    let unreachable = |source| Error::NotUtf8 { path: dir.to_owned(), source };
    let file = File::open(dir).map_err(unreachable)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // libgit2 takes a directory that does not exist for an empty one.
    Path::new(&path).metadata().map_err(unreachable)?;
    opened.push(file);
    Ok(path.into())
}

fn tune_libgit2() {
    // Git checked every object when it received it.
    git2::opts::strict_hash_verification(false);
    // What is read twice is kept in `Recent`; libgit2's cache costs more than it saves a walk that reads each object once.
    git2::opts::enable_caching(false);
}

pub(crate) fn parse_commit(id: ObjectId, raw: &[u8]) -> Result<RawCommit<'_>, Error> {
    commit::parse(raw).ok_or(Error::Damaged { id, kind: "commit" })
}
