//! Where a repository's state lies: in its directory, or below `queue.dir`, under a name that is made from the repository's.
//! A file in the repository's directory says which.
//!
//! That file is left where the state itself may go: it tells a repository whose state was deleted from one that never had
//! any, such as a repository that Git has just made from a template with our hook.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::home::{self, Location};
use super::{Error, StateDir};
use crate::PROGRAM;
use crate::files::{self, Links};

/// The file in the repository's directory. Its first line names the state directory, the rest the repository's directory.
pub(crate) const MARKER: &str = "rally-hook.queue";

/// Two paths are no longer than this, in bytes.
const MAX_MARKER: u64 = 16 * 1024;
/// How much of a repository's name is part of its directory's, in characters.
const LONGEST_NAME: usize = 50;

/// What there is of a repository's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trace {
    /// In this directory.
    Present(PathBuf),
    /// It was there, and its directory is gone.
    Deleted,
    Never,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub state: PathBuf,
    /// Where the repository was when this was written.
    pub repo_dir: PathBuf,
}

impl Marker {
    /// Reads the file of a repository. One that cannot be read is as good as none: the state is looked for without it.
    pub(super) fn read(repo_dir: &Path) -> Option<Self> {
        let bytes = files::read(&repo_dir.join(MARKER), MAX_MARKER, Links::Refuse).ok()?;
        let (state, rest) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n')?);
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        let own = rest[1..].strip_suffix(b"\n").unwrap_or(&rest[1..]);
        Some(Marker { state: repo_dir.join(path(state)), repo_dir: path(own).to_owned() })
    }

    /// Tells whether there is such a file, whatever it says.
    pub(super) fn is_in(repo_dir: &Path) -> bool {
        repo_dir.join(MARKER).symlink_metadata().is_ok()
    }

    /// Writes the file.
    pub(super) fn write(&self) -> io::Result<()> {
        // The state in the repository's directory moves with it.
        let state = self.state.strip_prefix(&self.repo_dir).unwrap_or(&self.state);
        let text = [state.as_os_str().as_bytes(), b"\n", self.repo_dir.as_os_str().as_bytes(), b"\n"].concat();
        files::replace(&self.repo_dir.join(MARKER), 0o600, |file| {
            file.write_all(&text)?;
            // It holds no secret, and other users of a shared repository read it.
            file.set_permissions(fs::Permissions::from_mode(0o644))
        })
    }
}

/// Returns the state directory in a repository's directory.
pub(super) fn own(repo_dir: &Path) -> PathBuf {
    repo_dir.join(PROGRAM)
}

/// Returns the state directory that a repository says it uses.
pub(super) fn named_by(repo_dir: &Path) -> PathBuf {
    // A copy of the file in another repository says nothing.
    let named = Marker::read(repo_dir).filter(|marker| marker.repo_dir == repo_dir);
    named.map_or_else(|| own(repo_dir), |marker| marker.state)
}

/// Where a repository's state lies, or is to be made.
pub(super) struct Located {
    pub path: PathBuf,
    /// Whether the repository says that it has state.
    pub is_noted: bool,
    /// Whether what it says is to be written anew.
    pub is_news: bool,
    /// The repository that this one was copied from, where that one has the queue.
    pub copy_of: Option<PathBuf>,
}

impl Located {
    fn known(path: PathBuf, is_news: bool) -> Self {
        Located { path, is_noted: true, is_news, copy_of: None }
    }
}

/// The directory that holds the state of many repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub path: PathBuf,
    /// The group whose members use the directory, where its mode says so.
    pub group: Option<u32>,
}

impl Base {
    /// Refuses a directory in which others could put something that this user does not expect.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let refused = |problem: String| Error::Base { path: dir.to_owned(), problem };
        let group = files::trusted_dir(dir).map_err(|error| refused(error.problem))?;
        let path = dir.canonicalize().map_err(|error| refused(error.to_string()))?;
        Ok(Base { path, group })
    }
}

/// Finds the state of a repository, or where it is to be made.
pub(super) fn locate(repo_dir: &Path, base: Option<&Base>) -> Result<Located, Error> {
    let own = own(repo_dir);
    let has_queue = StateDir::database_in(&own).symlink_metadata().is_ok();
    if base.is_none() && has_queue {
        return Ok(Located::known(own, !Marker::is_in(repo_dir)));
    }
    let (marker, foreign) = match Marker::read(repo_dir) {
        Some(marker) if marker.is_of_original(repo_dir) => (None, Some(marker.repo_dir)),
        marker => (marker, None),
    };
    let is_noted = marker.is_some();
    match (marker, base) {
        (Some(marker), Some(base)) if marker.state.parent() == Some(&base.path) => {
            let is_news = marker.repo_dir != repo_dir;
            Ok(Located::known(marker.state, is_news))
        }
        (_, Some(_)) if has_queue => Ok(Located::known(own, !is_noted)),
        (Some(marker), _) if marker.state != own && marker.state.is_dir() => {
            Err(Error::Elsewhere { repo_dir: repo_dir.to_owned(), state: marker.state })
        }
        (_, Some(base)) => {
            let path = place_below(&base.path, repo_dir);
            Ok(Located { path, is_noted, is_news: true, copy_of: foreign })
        }
        (_, None) => Ok(Located { path: own, is_noted, is_news: !is_noted, copy_of: foreign }),
    }
}

/// Returns where a repository's state is that is not where the configuration wants it.
pub(super) fn misplaced(repo_dir: &Path, base: Option<&Base>) -> Result<Option<PathBuf>, Error> {
    match locate(repo_dir, base) {
        Err(Error::Elsewhere { state, .. }) => Ok(Some(state)),
        Ok(found) if base.is_some() && found.path == own(repo_dir) => Ok(Some(found.path)),
        other => other.map(|_| None),
    }
}

impl Marker {
    /// Tells whether the file came here with a copy, and the original is where it was and uses its state.
    fn is_of_original(&self, repo_dir: &Path) -> bool {
        self.repo_dir != repo_dir
            && self.state != own(repo_dir)
            && named_by(&self.repo_dir) == self.state
            && !Location::of(&self.repo_dir).is_ok_and(|original| original.is_directory(repo_dir))
    }
}

/// Returns the directory for a repository that does not say which it has. Where its own directory can be written, a file in
/// it says so afterwards; so a state directory that exists without such a file is another repository's.
pub(super) fn place_below(base: &Path, repo_dir: &Path) -> PathBuf {
    let mut names = names_below(base, repo_dir);
    let is_free = |dir: &PathBuf| !dir.exists() || home::is_of(&StateDir::database_in(dir), repo_dir);
    match is_writable(repo_dir) {
        true => names.find(is_free).expect("there are more numbers than directories"),
        false => names.next().expect("there is a first one"),
    }
}

/// Returns a directory that is not there yet, for a repository whose state is moved.
pub(super) fn free_below(base: &Path, repo_dir: &Path) -> PathBuf {
    names_below(base, repo_dir).find(|dir| !dir.exists()).expect("there are more numbers than directories")
}

fn names_below(base: &Path, repo_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let (base, name) = (base.to_owned(), directory_name(repo_dir));
    (1..).map(move |number: u32| base.join(if number == 1 { name.clone() } else { format!("{name}-{number}") }))
}

/// Tells whether this user can make a file in a directory.
fn is_writable(dir: &Path) -> bool {
    let probe = dir.join(format!("{MARKER}.tmp-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
    made.is_ok() && fs::remove_file(probe).is_ok()
}

/// Returns a name by which people know the repository, and that no other path has.
fn directory_name(repo_dir: &Path) -> String {
    let named = match repo_dir.file_name() {
        // A repository with a work tree is known by that.
        Some(name) if name == ".git" || name == ".hg" => repo_dir.parent().and_then(Path::file_name),
        name => name,
    };
    let name = named.unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.trim_end_matches(".git").chars().take(LONGEST_NAME).map(safe).collect();
    format!("{}-{:016x}", name.trim_start_matches('.'), stable_hash(repo_dir.as_os_str().as_bytes()))
}

/// Returns the FNV-1a hash, which every release of this program computes alike.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_the_name_of_its_repository_and_a_hash_of_its_path() {
        for (repo_dir, expected) in [
            ("/srv/git/payments.git", "payments-"),
            ("/home/a/work/.git", "work-"),
            ("/srv/hg/payments/.hg", "payments-"),
            ("/srv/git/.hidden.git", "hidden-"),
            ("/srv/git/a b\u{202e}.git", "a_b_-"),
        ] {
            let name = directory_name(Path::new(repo_dir));
            assert!(name.starts_with(expected) && name.len() == expected.len() + 16, "{name}");
        }
        assert_ne!(directory_name(Path::new("/a/x.git")), directory_name(Path::new("/b/x.git")));
    }

    #[test]
    fn the_hash_stays_the_same() {
        assert_eq!(stable_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_the_file_says_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let elsewhere = PathBuf::from("/var/lib/x/payments-1");
        for state in [own(dir.path()), elsewhere] {
            let marker = Marker { state, repo_dir: dir.path().to_owned() };
            marker.write().expect("a file");
            assert_eq!(Marker::read(dir.path()), Some(marker));
        }
    }
}
