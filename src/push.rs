//! What Git tells a post-receive hook: one line `<old> <new> <ref>` for each ref that was updated.

use std::fmt;
use std::str::FromStr;

use crate::text;

/// The name of a commit (or of a tag object that leads to one): a SHA-1 of 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub [u8; 20]);

impl std::hash::Hash for CommitId {
    /// Hashes the first bytes only: they are as random as all of them, and history walks hash a lot.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let start: [u8; 8] = self.0[..8].try_into().expect("there are 20 bytes");
        state.write_u64(u64::from_ne_bytes(start));
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CommitId {
    type Err = ();

    fn from_str(hex: &str) -> Result<Self, ()> {
        if hex.len() != 40 {
            return Err(());
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(());
        let mut id = [0; 20];
        for (byte, pair) in id.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(CommitId(id))
    }
}

/// A commit with its committer's time, by which walks are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    pub id: CommitId,
    pub time: i64,
}

impl Ord for Tip {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.id).cmp(&(other.time, other.id))
    }
}

impl PartialOrd for Tip {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One ref that a push created, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// The full name, in the form of [`text::readable`].
    pub name: String,
    pub old: Option<CommitId>,
    /// `None` where the ref was deleted.
    pub new: Option<CommitId>,
}

impl RefUpdate {
    /// Returns the branch's name if the ref is a branch.
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }
}

/// Reads the hook's standard input. A line that is none of Git's comes back as text, for the log.
pub fn parse(input: &[u8]) -> (Vec<RefUpdate>, Vec<String>) {
    let mut updates = Vec::new();
    let mut strange = Vec::new();
    for line in input.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(line) {
            Some(update) => updates.push(update),
            None if line.is_empty() => {}
            None => strange.push(text::readable(line).into_owned()),
        }
    }
    (updates, strange)
}

fn parse_line(line: &[u8]) -> Option<RefUpdate> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let mut id = || std::str::from_utf8(parts.next()?).ok()?.parse::<CommitId>().ok();
    let (old, new) = (id()?, id()?);
    let name = parts.next().filter(|name| !name.is_empty())?;
    // Git writes zeros for "no such commit".
    let known = |id: CommitId| (id.0 != [0; 20]).then_some(id);
    Some(RefUpdate { name: text::readable(name).into_owned(), old: known(old), new: known(new) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn lines_become_ref_updates_and_strange_ones_are_named() {
        let long = "refs/heads/".to_owned() + &"x".repeat(10_000);
        let input = format!("{ZERO} {A} refs/heads/a b\r\n{A} {ZERO} {long}\n\nnonsense\n{A} {A}");
        let (updates, strange) = parse(input.as_bytes());
        assert_eq!(updates.len(), 2);
        assert_eq!(updates[0], RefUpdate { name: "refs/heads/a b".into(), old: None, new: A.parse().ok() });
        assert_eq!(updates[0].branch(), Some("a b"));
        assert_eq!((updates[1].old, updates[1].new), (A.parse().ok(), None));
        assert_eq!(strange, ["nonsense".to_owned(), format!("{A} {A}")]);
        assert_eq!(parse(b""), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn no_input_panics(input in any::<Vec<u8>>()) {
            parse(&input);
        }
    }
}
