//! The text of raw commit and tag objects (the format: `git help cat-file`, and gitformat-signature for the
//! continuation lines), parsed without copying.

use std::borrow::Cow;

use encoding_rs::Encoding;

use crate::push::CommitId;
use crate::text;

/// A parsed commit object.
#[derive(Debug, PartialEq)]
pub struct RawCommit<'d> {
    pub tree: CommitId,
    pub parents: Vec<CommitId>,
    /// `name <email>` as written.
    pub author: &'d [u8],
    /// Seconds since 1970.
    pub committed_at: i64,
    /// The label of the encoding, where the commit names one.
    pub encoding: Option<&'d [u8]>,
    /// Up to the first NUL, where Git's own readers stop too.
    pub message: &'d [u8],
}

/// Parses a commit object; `None` if it is none.
pub fn parse(data: &[u8]) -> Option<RawCommit<'_>> {
    let (tree, mut rest) = id_line(data, b"tree ")?;
    let mut parents = Vec::new();
    while let Some((parent, after)) = id_line(rest, b"parent ") {
        parents.push(parent);
        rest = after;
    }
    let mut commit = RawCommit { tree, parents, author: b"", committed_at: 0, encoding: None, message: b"" };
    loop {
        let (line, after) = split_line(rest);
        if line.is_empty() {
            commit.message = after.split(|&byte| byte == 0).next().unwrap_or_default();
            return Some(commit);
        }
        if let Some(author) = line.strip_prefix(b"author ") {
            commit.author = before_time(author);
        } else if let Some(committer) = line.strip_prefix(b"committer ") {
            commit.committed_at = time(committer);
        } else if let Some(label) = line.strip_prefix(b"encoding ") {
            commit.encoding = Some(label);
        }
        rest = after;
    }
}

/// Returns the object that an annotated tag names.
pub fn tag_target(data: &[u8]) -> Option<CommitId> {
    id_line(data, b"object ").map(|(id, _)| id)
}

impl RawCommit<'_> {
    /// Returns text of the commit as its encoding header says, else as UTF-8 with other bytes escaped.
    pub fn decode<'t>(&self, bytes: &'t [u8]) -> Cow<'t, str> {
        match self.encoding.and_then(Encoding::for_label) {
            Some(encoding) if encoding != encoding_rs::UTF_8 => encoding.decode_without_bom_handling(bytes).0,
            _ => text::readable(bytes),
        }
    }

    /// Tells whether the message has to be decoded before anything is looked for in it.
    pub fn has_own_encoding(&self) -> bool {
        self.encoding.and_then(Encoding::for_label).is_some_and(|encoding| encoding != encoding_rs::UTF_8)
    }

    /// Returns the author's name and address.
    pub fn author(&self) -> (String, String) {
        let open = self.author.iter().position(|&byte| byte == b'<').unwrap_or(self.author.len());
        let (name, email) = self.author.split_at(open);
        let email = email.strip_prefix(b"<").unwrap_or(email);
        let email = email.strip_suffix(b">").unwrap_or(email);
        (self.decode(name.trim_ascii()).into_owned(), self.decode(email.trim_ascii()).into_owned())
    }
}

fn id_line<'d>(data: &'d [u8], key: &[u8]) -> Option<(CommitId, &'d [u8])> {
    let (line, rest) = split_line(data);
    let hex = std::str::from_utf8(line.strip_prefix(key)?).ok()?;
    Some((hex.parse().ok()?, rest))
}

fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, b""),
    }
}

/// Splits off the time and zone behind `name <email>`. Names may hold any bytes, so the last `>` counts.
fn before_time(signature: &[u8]) -> &[u8] {
    let end = signature.iter().rposition(|&byte| byte == b'>').map_or(signature.len(), |at| at + 1);
    &signature[..end]
}

/// Returns the time of a signature, or 0 as Git does for one that is no number.
fn time(signature: &[u8]) -> i64 {
    let rest = &signature[before_time(signature).len()..];
    let number = rest.split(|&byte| byte == b' ').find(|part| !part.is_empty());
    number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TREE: &str = "tree aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    const PARENT: &str = "parent bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n";

    #[test]
    fn a_signed_merge_with_an_encoding_is_parsed() {
        let data = format!(
            "{TREE}{PARENT}{PARENT}author A <b> C <a@x> 1 +0000\ncommitter C <c@x> 1700000000 -0800\nencoding ISO-8859-1\n\
             gpgsig -----BEGIN\n \n author fake\n -----END\n\nFixed DE1\n\nbody"
        );
        let commit = parse(data.as_bytes()).expect("a commit");
        assert_eq!((commit.parents.len(), commit.committed_at), (2, 1_700_000_000));
        assert_eq!(commit.author, b"A <b> C <a@x>");
        assert_eq!(commit.message, b"Fixed DE1\n\nbody");
        assert_eq!(commit.decode(b"caf\xe9"), "café");
    }

    #[test]
    fn odd_commits_are_read_as_git_reads_them() {
        let data = format!("{TREE}author A <a@x> 1 +0000\ncommitter C <c@x> nonsense\n\nUS1\0US2");
        let commit = parse(data.as_bytes()).expect("a commit");
        assert_eq!((commit.committed_at, commit.message), (0, &b"US1"[..]));
        assert_eq!(commit.decode(b"caf\xe9"), r"caf\xE9");
        assert_eq!(commit.author(), ("A".into(), "a@x".into()));
        assert_eq!(parse(format!("{TREE}author x").as_bytes()).map(|commit| commit.message), Some(&b""[..]));
        assert_eq!(parse(b"blob"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in any::<Vec<u8>>(), start in any::<bool>()) {
            if start {
                bytes.splice(0..0, TREE.bytes());
            }
            if let Some(commit) = parse(&bytes) {
                commit.author();
            }
        }
    }
}
