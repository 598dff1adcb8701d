//! Where a repository's objects are: its own directory, and those that it borrows from (`git help
//! gitrepository-layout`, `objects/info/alternates`, and `git help git` for the two variables).

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::environment::variable;
use crate::files::{self, Links};

/// How deep alternates may refer to others, as in Git.
const MAX_DEPTH: usize = 5;
/// A longer list of alternates counts as none, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// Returns the directories in the order in which Git looks into them. The variables count only where Git runs us for
/// this repository.
pub(crate) fn object_dirs(git_dir: &Path, in_hook: bool) -> Vec<PathBuf> {
    let own = variable("GIT_OBJECT_DIRECTORY").filter(|_| in_hook).map(|dir| git_dir.join(dir));
    let mut dirs = Vec::new();
    add(&mut dirs, own.unwrap_or_else(|| git_dir.join("objects")), 0);
    if let Some(more) = variable("GIT_ALTERNATE_OBJECT_DIRECTORIES").filter(|_| in_hook) {
        for dir in entries(more.as_bytes(), b':') {
            add(&mut dirs, git_dir.join(dir), 0);
        }
    }
    dirs
}

fn add(dirs: &mut Vec<PathBuf>, dir: PathBuf, depth: usize) {
    let Ok(dir) = dir.canonicalize() else { return };
    if depth > MAX_DEPTH || dirs.contains(&dir) {
        return;
    }
    dirs.push(dir.clone());
    let listed = files::read(&dir.join("info/alternates"), MAX_SIZE, Links::Follow).unwrap_or_default();
    for alternate in entries(&listed, b'\n') {
        add(dirs, dir.join(alternate), depth + 1);
    }
}

/// Splits a list of paths. One that begins with a double quote is quoted as in C; one with `#` is a comment.
pub(super) fn entries(list: &[u8], separator: u8) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (path, after) = match rest.strip_prefix(b"\"").and_then(unquote) {
            Some((path, after)) => (path, after.strip_prefix(&[separator]).unwrap_or(after)),
            None => {
                let end = rest.iter().position(|&byte| byte == separator).unwrap_or(rest.len());
                (rest[..end].to_vec(), rest.get(end + 1..).unwrap_or_default())
            }
        };
        if !path.is_empty() && !rest.starts_with(b"#") {
            paths.push(PathBuf::from(std::ffi::OsString::from_vec(path)));
        }
        rest = after;
    }
    paths
}

/// Reads text up to the closing quote, with C's escapes, as `unquote_c_style` in Git's quote.c does. Returns what
/// follows too; `None` if it is not quoted so.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut path = Vec::new();
    let mut rest = text;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((path, rest)),
            b'\\' => {
                let (&escape, after) = rest.split_first()?;
                rest = after;
                let octal =
                    |digit: Option<&u8>| digit.filter(|digit| (b'0'..=b'7').contains(digit)).map(|digit| digit - b'0');
                path.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'\\' | b'"' => escape,
                    b'0'..=b'3' => {
                        let (second, third) = (octal(rest.first())?, octal(rest.get(1))?);
                        rest = &rest[2..];
                        (escape - b'0') << 6 | second << 3 | third
                    }
                    _ => return None,
                });
            }
            byte => path.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_of_paths_are_read_as_git_reads_them() {
        let cases: [(&[u8], u8, &[&str]); 5] = [
            (b"/a\n\n# comment\n../b\n", b'\n', &["/a", "../b"]),
            (b"\"/pool/objects\"\n/c", b'\n', &["/pool/objects", "/c"]),
            (br#""/a\040b\"\\c":/d"#, b':', &["/a b\"\\c", "/d"]),
            ("\"/\\303\\251\"\n\"#pool\"".as_bytes(), b'\n', &["/é", "#pool"]),
            (b"\"/open\n/x", b'\n', &["\"/open", "/x"]),
        ];
        for (list, separator, expected) in cases {
            let found: Vec<String> = entries(list, separator).iter().map(|path| path.display().to_string()).collect();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(list));
        }
    }

    #[test]
    fn alternates_may_be_relative_nested_and_circular() {
        let place = tempfile::tempdir().expect("a directory");
        for (name, alternates) in [("a", "../../b/objects\n"), ("b", "../../c/objects"), ("c", "../../a/objects")] {
            let info = place.path().join(name).join("objects/info");
            fs::create_dir_all(&info).expect("a directory");
            fs::write(info.join("alternates"), alternates).expect("a file");
        }
        let base = place.path().canonicalize().expect("it exists");
        let expected: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| base.join(name).join("objects")).collect();
        assert_eq!(object_dirs(&place.path().join("a"), false), expected);
    }
}
