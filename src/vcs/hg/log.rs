//! What `hg log` prints of a changeset: one line, in which all that people chose is hexadecimal. So every byte survives:
//! messages may hold any, and JSON could not say a path that is not UTF-8.

use std::collections::HashSet;

use crate::commit::{Action, Change};
use crate::text::readable;
use crate::time::CommitTime;
use crate::vcs::source::{Entry, MAX_PATHS};

/// `{files}` of a merge are those that differ from all parents, which is our rule in Git too. It names also a file whose
/// executable bit came with the second parent; that is left so. Paths are joined first, since a template for each of them
/// costs more than all the rest; Mercurial permits no line break in a path.
pub(super) const TEMPLATE: &str = concat!(
    "{node} {date|hgdate} {branch|hex}. {user|hex}. {desc|hex}.",
    r#"{join(files, "\n")|hex}.{join(file_adds, "\n")|hex}.{join(file_dels, "\n")|hex}\n"#
);

/// Returns the revision and the changeset of a line; `None` if the line is not one of [`TEMPLATE`].
pub(super) fn parse(line: &[u8]) -> Option<(String, Entry)> {
    let mut parts = std::str::from_utf8(line).ok()?.split('.');
    let mut part = || parts.next();
    let (head, user, message) = (part()?, part()?, part()?);
    let (files, added, deleted) = (unhex(part()?)?, unhex(part()?)?, unhex(part()?)?);
    let mut head = head.split(' ');
    let (node, seconds, _zone, branch) = (head.next()?, head.next()?, head.next()?, head.next()?);
    let (author_name, author_email) = name_and_address(&unhex(user.trim_start())?);
    let (changes, omitted) = changes(&files, &added, &deleted);
    let entry = Entry {
        committed_at: CommitTime::from_seconds(seconds.parse().ok()?),
        author_name,
        author_email,
        branch: Some(readable(&unhex(branch)?).into_owned()),
        ref_name: None,
        message: unhex(message.trim_start())?,
        changes,
        omitted,
    };
    Some((node.to_owned(), entry))
}

/// Returns what became of the files. Before Mercurial 5.1, those added and deleted are told of the first parent only: of a
/// merge, they are many more than the files that count. So each of these is looked up among them.
fn changes(files: &[u8], added: &[u8], deleted: &[u8]) -> (Vec<Change>, usize) {
    let (added, deleted): (HashSet<&[u8]>, HashSet<&[u8]>) = (paths(added).collect(), paths(deleted).collect());
    let change = |path: &[u8]| {
        let action = match () {
            () if added.contains(path) => Action::Added,
            () if deleted.contains(path) => Action::Deleted,
            () => Action::Modified,
        };
        Change { action, path: readable(path).into_owned() }
    };
    let mut files = paths(files);
    let changes = files.by_ref().take(MAX_PATHS).map(change).collect();
    (changes, files.count())
}

fn paths(joined: &[u8]) -> impl Iterator<Item = &[u8]> {
    joined.split(|&byte| byte == b'\n').filter(|path| !path.is_empty())
}

/// Returns the parts of `Jane Roe <jane.roe@acme.example>`. A user is any text: one without brackets is an address if there
/// is an `@` in it, and else a name.
fn name_and_address(user: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let find = |byte: u8| user.iter().position(|&other| other == byte);
    let Some(open) = find(b'<') else {
        let address = if find(b'@').is_some() { user } else { b"" };
        return (user.trim_ascii().to_vec(), address.trim_ascii().to_vec());
    };
    let address = user[open + 1..].split(|&byte| byte == b'>').next().unwrap_or_default();
    let name = user[..open].trim_ascii();
    let name = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name);
    (name.to_vec(), address.trim_ascii().to_vec())
}

/// Returns the bytes that hexadecimal digits stand for.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some((digit(pair[0])? * 16 + digit(*pair.get(1)?)?) as u8)).collect()
}

/// Returns the hexadecimal digits of some bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_changeset_with_all_its_bytes() {
        let (files, added, deleted) = (hex(b"a\n\xc3\xa9 b\nc\xe9"), hex(b"a\nof p2"), hex(b"\xc3\xa9 b"));
        let (branch, user, message) = (hex(b"default"), hex(b"Jane <j@x>"), hex(b"US1\0\n\xff."));
        let line = format!("00ff -5 3600 {branch}. {user}. {message}.{files}.{added}.{deleted}");
        let (node, entry) = parse(line.as_bytes()).expect("a changeset");
        let change = |action, path: &str| Change { action, path: path.into() };
        let changes =
            vec![change(Action::Added, "a"), change(Action::Deleted, "é b"), change(Action::Modified, r"c\xE9")];
        let expected = Entry {
            committed_at: CommitTime::from_seconds(-5),
            author_name: b"Jane".to_vec(),
            author_email: b"j@x".to_vec(),
            branch: Some("default".into()),
            message: b"US1\0\n\xff.".to_vec(),
            changes,
            ..Entry::default()
        };
        assert_eq!((node.as_str(), entry), ("00ff", expected));
    }

    #[test]
    fn what_is_not_such_a_line_is_none() {
        for line in
            ["", "00ff 1 0 6", "00ff x 0 61. . ...", "00ff 1 0 6. . ...", "00ff 1 0 61. zz. ...", "00ff 1 0 61. . .6.."]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert!(parse(b"00ff 1 0 61. . ...").is_some());
    }

    #[test]
    fn a_user_is_a_name_and_an_address_or_one_of_them() {
        for (user, name, address) in [
            ("Jane Roe <jane@x>", "Jane Roe", "jane@x"),
            ("\"Roe, Jane\" <jane@x> (work)", "Roe, Jane", "jane@x"),
            ("jane", "jane", ""),
            ("jane@x", "jane@x", "jane@x"),
            ("<jane@x", "", "jane@x"),
            ("", "", ""),
        ] {
            assert_eq!(name_and_address(user.as_bytes()), (name.into(), address.into()), "{user}");
        }
    }
}
