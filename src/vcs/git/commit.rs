//! The text of raw commit and tag objects (the format: `git help cat-file`, and gitformat-signature for the
//! continuation lines), parsed without copying.

use std::borrow::Cow;
use std::sync::Arc;

use super::encoding::Charset;
use super::id::ObjectId;
use crate::commit::Commit;
use crate::time::CommitTime;

/// A parsed commit object.
pub(crate) struct RawCommit<'d> {
    pub tree: ObjectId,
    pub parents: Vec<ObjectId>,
    /// `name <email>` as written.
    pub author: &'d [u8],
    pub committed_at: CommitTime,
    /// The encoding, where the commit names one that is known and is not UTF-8.
    pub encoding: Option<Charset>,
    /// Up to the first NUL, where Git's own readers stop too.
    pub message: &'d [u8],
}

/// Parses a commit object; `None` if Git could not have written it.
pub(crate) fn parse(data: &[u8]) -> Option<RawCommit<'_>> {
    let (tree, mut rest) = id_line(data, b"tree ")?;
    let mut parents = Vec::new();
    while let Some((parent, after)) = id_line(rest, b"parent ") {
        parents.push(parent);
        rest = after;
    }
    let mut commit = RawCommit {
        tree,
        parents,
        author: b"",
        committed_at: CommitTime::from_seconds(0),
        encoding: None,
        message: b"",
    };
    loop {
        let (line, after) = split_line(rest);
        if line.is_empty() {
            commit.message = memchr::memchr(0, after).map_or(after, |end| &after[..end]);
            return Some(commit);
        }
        if let Some(author) = line.strip_prefix(b"author ") {
            commit.author = before_time(author);
        } else if let Some(committer) = line.strip_prefix(b"committer ") {
            commit.committed_at = time(committer);
        } else if let Some(label) = line.strip_prefix(b"encoding ") {
            commit.encoding = Charset::for_label(label);
        }
        rest = after;
    }
}

/// Returns the object that an annotated tag names.
pub(crate) fn tag_target(data: &[u8]) -> Option<ObjectId> {
    id_line(data, b"object ").map(|(id, _)| id)
}

impl<'d> RawCommit<'d> {
    /// Returns what the commit says. Its branch is not written in it.
    pub(crate) fn commit<'c>(&self, id: &'c ObjectId, branch: Option<&Arc<str>>) -> Commit<'c>
    where
        'd: 'c,
    {
        let open = self.author.iter().position(|&byte| byte == b'<').unwrap_or(self.author.len());
        let (name, email) = self.author.split_at(open);
        let email = email.strip_prefix(b"<").unwrap_or(email);
        let email = email.strip_suffix(b">").unwrap_or(email);
        Commit {
            revision: id,
            committed_at: self.committed_at,
            author_name: self.text(name.trim_ascii()),
            author_email: self.text(email.trim_ascii()),
            branch: branch.cloned(),
            ref_name: None,
            message: self.text(self.message),
        }
    }

    /// Decodes text where the commit has its own encoding: some use ASCII bytes for other letters, so the bytes as they
    /// are can't be searched.
    fn text(&self, bytes: &'d [u8]) -> Cow<'d, [u8]> {
        match self.encoding {
            Some(encoding) => Cow::Owned(encoding.decode(bytes).into_bytes()),
            None => Cow::Borrowed(bytes),
        }
    }
}

fn id_line<'d>(data: &'d [u8], key: &[u8]) -> Option<(ObjectId, &'d [u8])> {
    let (line, rest) = split_line(data);
    let hex = std::str::from_utf8(line.strip_prefix(key)?).ok()?;
    Some((hex.parse().ok()?, rest))
}

fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', data) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, b""),
    }
}

/// Splits off the time and zone behind `name <email>`. Names may hold any bytes, so the last `>` counts.
fn before_time(signature: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b'>', signature).map_or(signature.len(), |at| at + 1);
    &signature[..end]
}

/// Returns the time of a signature, or 0 as Git does where it is not a number.
fn time(signature: &[u8]) -> CommitTime {
    let rest = &signature[before_time(signature).len()..];
    let number = rest.split(|&byte| byte == b' ').find(|part| !part.is_empty());
    CommitTime::from_seconds(number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::readable;

    const TREE: &str = "tree aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    const PARENT: &str = "parent bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n";

    fn said<'d>(raw: &RawCommit<'d>, id: &'d ObjectId) -> Commit<'d> {
        raw.commit(id, None)
    }

    fn some_id() -> ObjectId {
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb".parse().expect("an id")
    }

    #[test]
    fn a_signed_merge_with_an_encoding_is_parsed() {
        let mut data = format!(
            "{TREE}{PARENT}{PARENT}author A <b> C <a@x> 1 +0000\ncommitter C <c@x> 1700000000 -0800\nencoding ISO-8859-1\n\
             gpgsig -----BEGIN\n \n author fake\n -----END\n\nFixed DE1\n\nbody caf"
        )
        .into_bytes();
        data.push(0xe9);
        let raw = parse(&data).expect("a commit");
        assert_eq!((raw.parents.len(), raw.committed_at), (2, CommitTime::from_seconds(1_700_000_000)));
        assert_eq!(raw.author, b"A <b> C <a@x>");
        assert_eq!(readable(&said(&raw, &some_id()).message), "Fixed DE1\n\nbody café");
    }

    #[test]
    fn odd_commits_are_read_as_git_reads_them() {
        let mut data = format!("{TREE}author A <a@x> 1 +0000\ncommitter C <c@x> nonsense\n\nUS1 ").into_bytes();
        data.extend(b"caf\xe9\0US2");
        let raw = parse(&data).expect("a commit");
        assert_eq!((raw.committed_at, raw.message), (CommitTime::from_seconds(0), &b"US1 caf\xe9"[..]));
        let id = some_id();
        let commit = said(&raw, &id);
        assert_eq!(readable(&commit.message), r"US1 caf\xE9");
        assert_eq!((&*readable(&commit.author_name), &*readable(&commit.author_email)), ("A", "a@x"));
        assert_eq!(parse(format!("{TREE}author x").as_bytes()).map(|commit| commit.message), Some(&b""[..]));
        assert!(parse(b"blob").is_none());
    }
}
