//! Raw objects, read through libgit2's object database and parsed here, which is several times faster than its higher
//! layers. Replace refs and grafts are not followed: what was pushed is posted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use git2::{ErrorCode, ObjectType, Odb, OdbObject};

use super::Error;
use super::commit::{self, RawCommit};
use super::id::{Dated, ObjectId};
use super::walk::Node;

/// How much of what was read lately is kept, twice this at most. Larger objects are not kept.
const RECENT_SIZE: usize = 8 * 1024 * 1024;
const LARGEST_RECENT: usize = 1024 * 1024;

/// Larger commits are not handed on by a walk: many may be waiting at once.
const LARGEST_HANDED_ON: usize = 16 * 1024;

/// The objects of a repository.
pub(super) struct Objects<'r> {
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
pub(super) struct Recent {
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

impl<'r> Objects<'r> {
    pub(super) fn new(odb: Odb<'r>, recent: &'r RefCell<Recent>) -> Self {
        Objects { odb, recent }
    }

    /// Returns the commit that the object is or, if it is an annotated tag, leads to; `None` for other objects.
    pub(super) fn peel(&self, id: ObjectId) -> Result<Option<Dated>, Error> {
        let mut id = id;
        loop {
            let object = self.read_often(id)?;
            match object.kind {
                ObjectType::Commit => {
                    return Ok(Some(Dated { id, time: parse_commit(id, &object.data)?.committed_at }));
                }
                ObjectType::Tag => id = commit::tag_target(&object.data).ok_or(Error::Damaged { id, kind: "tag" })?,
                _ => return Ok(None),
            }
        }
    }

    fn read(&self, id: ObjectId) -> Result<OdbObject<'_>, Error> {
        self.odb.read(id.oid()).map_err(|source| Error::Object { id, source })
    }

    /// Reads an object that may well have been read just before, or will be again.
    fn read_often(&self, id: ObjectId) -> Result<Object, Error> {
        if let Some(object) = self.recent.borrow_mut().get(id) {
            return Ok(object);
        }
        let object = self.read(id)?;
        let object = Object { kind: object.kind(), data: object.data().into() };
        self.recent.borrow_mut().keep(id, &object);
        Ok(object)
    }

    /// Returns a raw commit.
    pub(super) fn read_commit(&self, id: ObjectId) -> Result<Arc<[u8]>, Error> {
        self.read_often(id).map(|object| object.data)
    }

    /// Returns a raw tree.
    pub(super) fn read_tree(&self, id: ObjectId) -> Result<Arc<[u8]>, Error> {
        let object = self.read_often(id)?;
        if object.kind == ObjectType::Tree { Ok(object.data) } else { Err(Error::Damaged { id, kind: "tree" }) }
    }

    /// Keeps a commit that somebody has read: it may be the parent of another one.
    pub(super) fn keep_commit(&self, id: ObjectId, data: Arc<[u8]>) {
        self.recent.borrow_mut().keep(id, &Object { kind: ObjectType::Commit, data });
    }

    /// Reads a commit for a walk; `None` if it is not there. Whoever walks will read the commit too.
    pub(super) fn node(&self, id: ObjectId) -> Result<Option<Node>, Error> {
        let Some(object) = if_there(self.read_often(id))? else { return Ok(None) };
        node(id, &object.data, None).map(Some)
    }

    /// The same for a walk whose commits are read by others: the node has the raw commit with it, unless that is large.
    pub(super) fn node_with_data(&self, id: ObjectId) -> Result<Option<Node>, Error> {
        let Some(object) = if_there(self.read(id))? else { return Ok(None) };
        let data = (object.len() <= LARGEST_HANDED_ON).then(|| Arc::from(object.data()));
        node(id, object.data(), data).map(Some)
    }
}

fn node(id: ObjectId, raw: &[u8], data: Option<Arc<[u8]>>) -> Result<Node, Error> {
    let commit = parse_commit(id, raw)?;
    Ok(Node { time: commit.committed_at, parents: commit.parents, data })
}

pub(super) fn parse_commit(id: ObjectId, raw: &[u8]) -> Result<RawCommit<'_>, Error> {
    commit::parse(raw).ok_or(Error::Damaged { id, kind: "commit" })
}

/// Turns the error for an object that is not there, as a shallow repository's parents are, into `None`.
pub(super) fn if_there<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(Error::Object { source, .. }) if source.code() == ErrorCode::NotFound => Ok(None),
        other => other.map(Some),
    }
}
