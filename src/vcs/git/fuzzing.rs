//! What must hold for anything that a push or a repository brings, see [`crate::fuzzing`].

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use git2::ObjectFormat;

use super::id::ObjectId;
use super::objects::Objects;
use super::read::STACK_SIZE;
use super::{Error, alternates, push, tree_diff};
use crate::clock::Deadline;
use crate::commit::{Action, Change, Changes};
use crate::text;

/// A few trees that hold each other have more paths than can be listed.
const BUDGET: Duration = Duration::from_millis(20);

/// Every line of the hook's input is a ref update or is named, and none is changed.
pub fn hook_input(input: &[u8]) {
    let (updates, malformed) = push::parse(input);
    let (mut updates, mut malformed) = (updates.into_iter(), malformed.into_iter().peekable());
    let lines = input.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for line in lines.filter(|line| !line.is_empty()) {
        if malformed.next_if(|text| *text::bytes_of(text) == *line).is_some() {
            continue;
        }
        let update = updates.next().expect("every line is accounted for");
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        for id in [update.old, update.new] {
            let written = String::from_utf8_lossy(parts.next().expect("an id")).to_lowercase();
            assert_eq!(id.map_or_else(|| "0".repeat(written.len()), |id| id.to_string()), written);
        }
        assert_eq!(&*text::bytes_of(&update.name), parts.next().expect("a name"));
    }
    assert_eq!((updates.next(), malformed.next()), (None, None));
}

/// A commit's parents stand behind its tree, and its message behind the first empty line.
pub fn commit(data: &[u8]) {
    super::commit::tag_target(data);
    let Some(raw) = super::commit::parse(data) else { return };
    let written: String = std::iter::once(format!("tree {}\n", raw.tree))
        .chain(raw.parents.iter().map(|parent| format!("parent {parent}\n")))
        .collect();
    // The last line break may be missing.
    let start = &data[..written.len().min(data.len())];
    assert_eq!(String::from_utf8_lossy(start).to_lowercase(), written[..start.len()]);
    let message = data.windows(2).position(|pair| pair == b"\n\n").map_or(&b""[..], |at| &data[at + 2..]);
    assert_eq!(raw.message, message.split(|&byte| byte == 0).next().unwrap_or_default());

    let commit = raw.commit(&raw.tree, None);
    for said in [&commit.author_name, &commit.author_email, &commit.message] {
        let readable = text::readable(said);
        assert!(!text::printable(&readable).contains(char::is_control));
        assert!(text::whole_characters(said, 100).len() <= 100);
        assert_eq!(text::bytes_of(&readable), *said);
    }
}

/// A list of paths is split where it was joined, whatever the paths are, if they are quoted; an unquoted one is split at
/// each separator.
pub fn alternates(list: &[u8]) {
    for separator in [b'\n', b':'] {
        let split = |list: &[u8]| {
            let paths = alternates::entries(list, separator).into_iter();
            paths.map(|path| path.into_os_string().into_vec()).collect::<Vec<_>>()
        };
        let parts = || list.split(|&byte| byte == separator).filter(|part| !part.is_empty());
        if !parts().any(|part| part.starts_with(b"\"")) {
            assert_eq!(split(list), parts().filter(|part| !part.starts_with(b"#")).collect::<Vec<_>>());
        }
        let quoted = parts().map(|part| {
            let escaped: String = part.iter().map(|byte| format!("\\{byte:03o}")).collect();
            format!("\"{escaped}\"")
        });
        let joined = quoted.collect::<Vec<_>>().join(&char::from(separator).to_string());
        assert_eq!(split(joined.as_bytes()), parts().collect::<Vec<_>>());
    }
}

/// Trees as they may come in a hostile pack: the data is cut into trees, which refer to each other by their numbers.
/// They are compared or refused.
pub fn raw_trees(data: &[u8]) {
    // They may be nested deeply, and the reader's threads are made for that.
    let compare = || compare_raw(data);
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, compare);
        reader.expect("a thread").join().expect("it has told why");
    });
}

fn compare_raw(data: &[u8]) {
    const MARK: &[u8] = b"--tree--";
    let objects = no_objects();
    let mut rest = data;
    let mut ids = Vec::new();
    while !rest.is_empty() && ids.len() < 20 {
        let end = rest.windows(MARK.len()).position(|window| window == MARK).unwrap_or(rest.len());
        ids.push(id(ids.len() as u8));
        objects.keep_tree(ids[ids.len() - 1], &rest[..end]);
        rest = rest.get(end + MARK.len()..).unwrap_or_default();
    }
    let Some((ours, parents)) = ids.split_first() else { return };
    for parents in [parents, &parents[..parents.len().min(1)], &[]] {
        match tree_diff::compare(&objects, *ours, parents, 10, Some(Deadline::after(BUDGET))) {
            Ok(changes) => assert!(changes.list.len() <= 10 && (changes.list.len() == 10 || changes.omitted == 0)),
            Err(error) => assert!(
                matches!(
                    error,
                    Error::Object { .. } | Error::Damaged { .. } | Error::TooDeep { .. } | Error::OutOfTime
                ),
                "{error}"
            ),
        }
    }
}

/// A directory as a commit has it.
#[derive(Debug, Default)]
struct Directory(BTreeMap<Vec<u8>, Node>);

#[derive(Debug)]
enum Node {
    Directory(Directory),
    /// Mode and content.
    File(&'static str, u8),
}

/// What stands at each path, by the readable path.
type Files = BTreeMap<Vec<u8>, (&'static str, u8)>;

/// The paths found are those that differ from all parents, in the order of their bytes: as one finds them by listing all
/// paths of all commits. The data says which files there are.
pub fn tree_diff(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let limit = usize::from(bytes.next().unwrap_or_default() % 16);
    let parent_count = usize::from(bytes.next().unwrap_or_default() % 4);
    let sides: Vec<Directory> = (0..=parent_count).map(|_| directory(&mut bytes, 0)).collect();

    let objects = no_objects();
    let mut known = HashMap::new();
    let ids: Vec<ObjectId> = sides.iter().map(|side| side.write(&objects, &mut known)).collect();
    let found = tree_diff::compare(&objects, ids[0], &ids[1..], limit, None).expect("all trees are there");

    let files: Vec<Files> = sides.iter().map(Directory::files).collect();
    let (ours, parents) = files.split_first().expect("there is a commit");
    let mut paths: Vec<&Vec<u8>> = files.iter().flat_map(BTreeMap::keys).collect();
    paths.sort_unstable();
    paths.dedup();
    let differs = |path: &&Vec<u8>| parents.iter().all(|parent| parent.get(*path) != ours.get(*path));
    let mut list: Vec<Change> = paths
        .into_iter()
        .filter(differs)
        .map(|path| {
            let action = match (ours.contains_key(path), parents.first().is_some_and(|files| files.contains_key(path)))
            {
                (false, _) => Action::Deleted,
                (true, false) => Action::Added,
                (true, true) => Action::Modified,
            };
            Change { action, path: text::readable(path).into_owned() }
        })
        .collect();
    let omitted = list.len().saturating_sub(limit);
    list.truncate(limit);
    assert_eq!(found, Changes { list, omitted });
}

/// Makes up a directory. Its names sort in ways that are easily got wrong.
fn directory(bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Directory {
    const NAMES: [&[u8]; 8] = [b"a", b"a.b", b"a-", b"ab", b"a0", b"b", b"\xff", b"\\xFF"];
    const MODES: [&str; 4] = ["100644", "100755", "120000", "160000"];
    let mut directory = Directory::default();
    while let Some(byte) = bytes.next() {
        let name = NAMES[usize::from(byte & 7)].to_vec();
        let node = match byte >> 3 & 7 {
            0 | 1 => return directory,
            2 | 3 if depth < 4 => Node::Directory(self::directory(bytes, depth + 1)),
            kind => Node::File(MODES[usize::from(kind & 3)], byte >> 6),
        };
        directory.0.insert(name, node);
    }
    directory
}

impl Directory {
    /// Lists the files below it.
    fn files(&self) -> Files {
        let mut files = Files::new();
        for (name, node) in &self.0 {
            match node {
                Node::File(mode, content) => drop(files.insert(name.clone(), (*mode, *content))),
                Node::Directory(below) => {
                    files.extend(
                        below.files().into_iter().map(|(path, file)| ([name, &b"/"[..], &path].concat(), file)),
                    );
                }
            }
        }
        files
    }

    /// Writes the tree and those below it. Equal trees get one name, as from a hash.
    fn write(&self, objects: &Objects, known: &mut HashMap<Vec<u8>, ObjectId>) -> ObjectId {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, node) in &self.0 {
            let (mode, end, id) = match node {
                Node::File(mode, content) => (*mode, &b""[..], id(100 + content)),
                Node::Directory(below) => ("40000", &b"/"[..], below.write(objects, known)),
            };
            let entry = [mode.as_bytes(), b" ", name, b"\0", id.bytes()].concat();
            entries.push(([name, end].concat(), entry));
        }
        entries.sort();
        let tree: Vec<u8> = entries.into_iter().flat_map(|(_, entry)| entry).collect();
        let next = known.len();
        *known.entry(tree).or_insert_with_key(|tree| {
            let name: Vec<u8> = [[1; 12].as_slice(), &next.to_be_bytes()].concat();
            let id = ObjectId::from_bytes(&name).expect("20 bytes");
            objects.keep_tree(id, tree);
            id
        })
    }
}

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes(&[number; 20]).expect("20 bytes")
}

/// Returns a repository without objects, for trees that are in memory only.
fn no_objects() -> Objects {
    Objects::open(Path::new("/nonexistent"), ObjectFormat::Sha1, Vec::new()).expect("nothing is opened")
}
