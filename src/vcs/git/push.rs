//! What Git tells a post-receive hook: one line `<old> <new> <ref>` for each ref that was updated.

use super::id::ObjectId;
use crate::text;

/// One ref that a push created, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefUpdate {
    /// The full name, in the form of [`text::readable`].
    pub name: String,
    pub old: Option<ObjectId>,
    /// `None` where the ref was deleted.
    pub new: Option<ObjectId>,
}

impl RefUpdate {
    /// Returns the branch's name if the ref is a branch.
    pub(crate) fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }
}

/// Reads the hook's standard input. A line that Git would not write comes back as text, for the log.
pub(crate) fn parse(input: &[u8]) -> (Vec<RefUpdate>, Vec<String>) {
    let mut updates = Vec::new();
    let mut malformed = Vec::new();
    for line in input.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(line) {
            Some(update) => updates.push(update),
            None if line.is_empty() => {}
            None => malformed.push(text::readable(line).into_owned()),
        }
    }
    (updates, malformed)
}

fn parse_line(line: &[u8]) -> Option<RefUpdate> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let mut id = || std::str::from_utf8(parts.next()?).ok()?.parse::<ObjectId>().ok();
    let (old, new) = (id()?, id()?);
    let name = parts.next().filter(|name| !name.is_empty())?;
    // Git writes zeros for "no such commit".
    let known = |id: ObjectId| (!id.is_zero()).then_some(id);
    Some(RefUpdate { name: text::readable(name).into_owned(), old: known(old), new: known(new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn lines_become_ref_updates_and_strange_ones_are_named() {
        let long = "refs/heads/".to_owned() + &"x".repeat(10_000);
        let input = format!("{ZERO} {A} refs/heads/a b\r\n{A} {ZERO} {long}\n\nnonsense\n{A} {A}");
        let (updates, malformed) = parse(input.as_bytes());
        assert_eq!(updates.len(), 2);
        assert_eq!(updates[0], RefUpdate { name: "refs/heads/a b".into(), old: None, new: A.parse().ok() });
        assert_eq!(updates[0].branch(), Some("a b"));
        assert_eq!((updates[1].old, updates[1].new), (A.parse().ok(), None));
        assert_eq!(malformed, ["nonsense".to_owned(), format!("{A} {A}")]);
        assert_eq!(parse(b""), (vec![], vec![]));
    }
}
