//! `--all-repos`: a command's work for each repository below a directory. One that fails keeps no other from it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Ended, Error, hook_file};
use crate::cli::{Many, Place};
use crate::messages::{set_subject, tell};
use crate::panics::caught;
use crate::queue::StateDir;
use crate::text::{plural, with_causes};
use crate::vcs::{self, Kind};

/// Which repositories a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those with our hook or our state.
    Served,
}

/// Does a command's work for the repository that the caller names, or for each one below the directory of `--all-repos`.
pub(super) fn each(
    place: &Place,
    many: &Many,
    which: Which,
    mut work: impl FnMut(&Place) -> Result<Ended, Error>,
) -> Result<Ended, Error> {
    let Some(root) = &many.all_repos else { return work(place) };
    let found = found(place, root, which)?;
    let failed = found.iter().filter(|repo_dir| one_of_many(place, repo_dir, &mut work) == Ended::NotAll).count();
    set_subject("");
    if failed > 0 {
        tell(&format!("{failed} of {} with problems, see above", plural(found.len(), "repository")));
    }
    Ok(Ended::done_if(failed == 0))
}

/// Does the work for one of several repositories. What is said about it begins with its path.
fn one_of_many(place: &Place, repo_dir: &Path, work: &mut impl FnMut(&Place) -> Result<Ended, Error>) -> Ended {
    set_subject(&repo_dir.display().to_string());
    let place = Place { repo: Some(repo_dir.to_owned()), ..place.clone() };
    caught(|| work(&place)).map_err(Error::Bug).flatten().unwrap_or_else(|error| {
        tell(&with_causes(&error));
        Ended::NotAll
    })
}

/// Returns the repositories' directories below the directory of `--all-repos`.
///
/// # Errors
/// If there are none, since the directory was mistyped then, or is not mounted.
pub(super) fn found(place: &Place, root: &Path, which: Which) -> Result<Vec<PathBuf>, Error> {
    if let Some(repo) = &place.repo {
        return Err(Error::Usage(format!("--all-repos and --repo {} exclude each other", repo.display())));
    }
    let no_directory = || Error::Usage(format!("{} is not a directory", root.display()));
    let root = root.canonicalize().ok().filter(|root| root.is_dir()).ok_or_else(no_directory)?;
    let mut found = repositories(&root);
    let none = |what: &str| Err(Error::Usage(format!("there is no repository{what} below {}", root.display())));
    if found.is_empty() {
        return none("");
    }
    if which == Which::Served {
        found.retain(|repo_dir| is_served(repo_dir));
        if found.is_empty() {
            return none(" with the hook; `rally-hook install --all-repos DIR` puts it into all that are");
        }
    }
    Ok(found)
}

/// Tells whether our hook or our state is in a repository's directory.
pub(super) fn is_served(repo_dir: &Path) -> bool {
    let mut hooks = hook_file::names(Kind::of(repo_dir)).iter().map(|name| repo_dir.join("hooks").join(name));
    StateDir::is_in(repo_dir) || hooks.any(|hook| hook_file::is_ours(&hook))
}

/// Returns the repositories' directories below a directory, in their order. Links are not followed: they may lead to
/// repositories that the caller did not name, or in circles. A directory that this user may not read is passed over.
pub(super) fn repositories(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut to_read) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = to_read.pop() {
        if let Some(kind) = Kind::at(&dir) {
            // The history of a share is another repository's.
            found.extend((!vcs::is_share(kind, &dir)).then_some(dir));
            continue;
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        to_read.extend(entries.filter(is_dir).map(|entry| entry.path()));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn repositories_are_found_bare_and_in_work_trees_and_not_through_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        for repo_dir in ["root/a.git", "root/team/deep/er/b", "root/work/.git", "root/work/inner/.git", "outside.git"] {
            let repo_dir = dir.path().join(repo_dir);
            fs::create_dir_all(repo_dir.join("objects")).expect("a directory");
            fs::write(repo_dir.join("HEAD"), "ref: refs/heads/main\n").expect("a file");
        }
        fs::create_dir_all(root.join("a.git/modules/c.git/objects")).expect("a directory");
        symlink("../outside.git", root.join("link")).expect("a link");
        symlink(".", root.join("circle")).expect("a link");
        let found: Vec<PathBuf> =
            repositories(&root).iter().map(|path| path.strip_prefix(&root).expect("below").to_owned()).collect();
        assert_eq!(found, ["a.git", "team/deep/er/b", "work/.git", "work/inner/.git"].map(PathBuf::from));
    }
}
