//! The branch of a revision, as its paths tell it.

use crate::commit::Change;
use crate::config::Svn;

/// Returns the branch in which all these paths lie, if it is one, and the ref that it stands for in the configuration.
pub(super) fn of(changes: &[Change], layout: &Svn) -> (Option<String>, Option<String>) {
    let mut places = changes.iter().map(|change| place(&change.path, layout));
    let Some(Some(first)) = places.next() else { return (None, None) };
    if !places.all(|place| place.as_ref() == Some(&first)) {
        return (None, None);
    }
    let Place { branch, is_tag } = first;
    let area = if is_tag { "refs/tags" } else { "refs/heads" };
    let short = branch.strip_prefix(&format!("{}/", layout.tags)).filter(|_| is_tag).unwrap_or(branch);
    (Some(branch.to_owned()), Some(format!("{area}/{short}")))
}

#[derive(PartialEq)]
struct Place<'p> {
    branch: &'p str,
    is_tag: bool,
}

/// Returns the branch in which a path lies: `trunk`, `branches/NAME` or `tags/NAME`, with the directories before it.
fn place<'p>(path: &'p str, layout: &Svn) -> Option<Place<'p>> {
    let mut end = 0;
    for name in path.split('/') {
        end += name.len();
        let rest = path.get(end + 1..).unwrap_or_default();
        let child = rest.split('/').next().unwrap_or_default();
        if name == layout.trunk {
            return Some(Place { branch: &path[..end], is_tag: false });
        }
        if (name == layout.branches || name == layout.tags) && !child.is_empty() {
            return Some(Place { branch: &path[..end + 1 + child.len()], is_tag: name == layout.tags });
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Action;

    fn of_paths(paths: &[&str]) -> (Option<String>, Option<String>) {
        let changes: Vec<Change> =
            paths.iter().map(|path| Change { action: Action::Modified, path: (*path).to_owned() }).collect();
        of(&changes, &Svn::default())
    }

    #[test]
    fn the_branch_is_where_all_paths_lie() {
        for (paths, branch, ref_name) in [
            (&["trunk/a", "trunk/b/c"][..], Some("trunk"), Some("refs/heads/trunk")),
            (&["trunk/"], Some("trunk"), Some("refs/heads/trunk")),
            (&["branches/x/trunk/a"], Some("branches/x"), Some("refs/heads/branches/x")),
            (&["tags/1.0/"], Some("tags/1.0"), Some("refs/tags/1.0")),
            (&["app/branches/x/a"], Some("app/branches/x"), Some("refs/heads/app/branches/x")),
            (&["trunk/a", "branches/x/a"], None, None),
            (&["trunk/", "branches/", "tags/"], None, None),
            (&["README"], None, None),
            (&["trunkated/a"], None, None),
            (&[], None, None),
        ] {
            assert_eq!(of_paths(paths), (branch.map(str::to_owned), ref_name.map(str::to_owned)), "{paths:?}");
        }
    }
}
