//! What a TFVC server writes, and what it means. Pure.

use std::collections::HashSet;

use serde::Deserialize;

use crate::commit::{Action, Change, Changes};
use crate::time::CommitTime;

#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub value: Vec<T>,
}

/// A changeset as it is listed or fetched
/// (<https://learn.microsoft.com/rest/api/azure/devops/tfvc/changesets>).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawChangeset {
    changeset_id: u32,
    author: Option<Identity>,
    checked_in_by: Option<Identity>,
    created_date: String,
    /// Left out where there is none.
    comment: Option<String>,
    comment_truncated: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    display_name: Option<String>,
    unique_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawChange {
    item: Option<Item>,
    change_type: String,
    source_server_item: Option<String>,
    merge_sources: Option<Vec<MergeSource>>,
}

#[derive(Deserialize)]
struct Item {
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MergeSource {
    server_item: Option<String>,
    is_rename: Option<bool>,
}

/// A changeset as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Listed {
    pub number: u32,
    pub created_at: CommitTime,
    pub author_name: String,
    /// The user name: an address, or the part after `DOMAIN\`.
    pub author_login: String,
    pub comment: String,
    /// Whether there is more of the comment.
    pub is_cut: bool,
}

/// One changed item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Changed {
    path: String,
    types: String,
    /// Where a renamed item was before.
    source: Option<String>,
}

impl Changed {
    /// Returns how much text it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        self.path.len() + self.types.len() + self.source.as_ref().map_or(0, String::len)
    }
}

/// Reads a changeset.
///
/// # Errors
/// If its number or date is none.
pub(super) fn listed(raw: RawChangeset) -> Result<Listed, String> {
    let RawChangeset { changeset_id: number, created_date, comment, comment_truncated, .. } = raw;
    let created_at = time(&created_date).ok_or_else(|| format!("changeset {number} of {created_date:?}"))?;
    if number == 0 {
        return Err("changeset 0".into());
    }
    // Who made the change. Where a build checks in for people (gated check-in), `checkedInBy` is the build's user.
    let author = [raw.author, raw.checked_in_by].into_iter().flatten().find(Identity::is_known);
    let Identity { display_name, unique_name } = author.unwrap_or(Identity { display_name: None, unique_name: None });
    let login = unique_name.unwrap_or_default();
    Ok(Listed {
        number,
        created_at,
        author_name: display_name.unwrap_or_default(),
        author_login: login.rsplit('\\').next().unwrap_or_default().to_owned(),
        comment: comment.unwrap_or_default(),
        is_cut: comment_truncated.unwrap_or(false),
    })
}

impl Identity {
    fn is_known(&self) -> bool {
        [&self.display_name, &self.unique_name].into_iter().flatten().any(|name| !name.is_empty())
    }
}

/// Reads a date such as `2014-03-24T16:52:10.4070000Z`: with any number of digits after the seconds, with `Z`, an offset,
/// or neither, which is UTC.
fn time(text: &str) -> Option<CommitTime> {
    let (date, rest) = text.split_at_checked(19)?;
    let seconds = CommitTime::parse(&format!("{date}Z"))?.seconds();
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone {
        "" | "Z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            sign * (i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60)
        }
    };
    Some(CommitTime::from_seconds(seconds - offset))
}

impl From<RawChange> for Changed {
    fn from(raw: RawChange) -> Self {
        let renamed = raw.merge_sources.into_iter().flatten().find(|source| source.is_rename == Some(true));
        Changed {
            path: raw.item.and_then(|item| item.path).unwrap_or_default(),
            types: raw.change_type,
            source: raw.source_server_item.or_else(|| renamed?.server_item),
        }
    }
}

/// Returns the changes below a path, and how many there are more than the limit; `None` if none is below it.
///
/// A rename is two changes. Newer servers list both; of others, the item tells where it was.
pub(super) fn changes(changed: &[Changed], root: &str, limit: usize) -> Option<Changes> {
    let root = root.to_lowercase();
    let sources = changed.iter().filter(|changed| has(&changed.types, "sourceRename"));
    let told: HashSet<String> = sources.map(|changed| changed.path.to_lowercase()).collect();
    let (mut found, mut is_below_root) = (Changes::default(), false);
    let mut add = |action, path: &str| match found.list.len() < limit {
        true => found.list.push(Change { action, path: path.to_owned() }),
        false => found.omitted += 1,
    };
    for Changed { path, types, source } in changed {
        if is_below(path, &root) {
            is_below_root = true;
            action(types).into_iter().for_each(|action| add(action, path));
        }
        let is_renamed = has(types, "rename") || has(types, "targetRename");
        let source = source.as_deref().filter(|source| is_renamed && is_below(source, &root));
        if let Some(source) = source.filter(|source| !told.contains(&source.to_lowercase())) {
            is_below_root = true;
            add(Action::Deleted, source);
        }
    }
    is_below_root.then_some(found)
}

/// Tells whether a path is this one or below it. Servers do not heed case.
fn is_below(path: &str, root: &str) -> bool {
    let path = path.to_lowercase();
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn types(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

fn has(list: &str, wanted: &str) -> bool {
    types(list).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// Returns what a list such as "add, edit, encoding" does to the item; nothing for a lock alone.
fn action(list: &str) -> Option<Action> {
    let any = |words: &[&str]| words.iter().any(|word| has(list, word));
    if any(&["delete", "sourceRename"]) {
        Some(Action::Deleted)
    } else if any(&["add", "branch", "undelete", "rename", "targetRename"]) {
        Some(Action::Added)
    } else if types(list).all(|word| ["", "none", "lock"].iter().any(|nothing| word.eq_ignore_ascii_case(nothing))) {
        None
    } else {
        Some(Action::Modified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(types: &str, path: &str, source: Option<&str>) -> Changed {
        Changed { path: path.into(), types: types.into(), source: source.map(str::to_owned) }
    }

    fn shown(changed: &[Changed], root: &str) -> Option<Vec<String>> {
        let letter = |change: &Change| format!("{} {}", change.action.letter(), change.path);
        Some(changes(changed, root, 100)?.list.iter().map(letter).collect())
    }

    #[test]
    fn a_change_type_becomes_one_action() {
        for (types, expected) in [
            ("add, edit, encoding", Some("A")),
            ("add", Some("A")),
            ("edit", Some("M")),
            ("Edit", Some("M")),
            ("encoding", Some("M")),
            ("property", Some("M")),
            ("delete", Some("D")),
            ("delete, merge", Some("D")),
            ("rollback, delete", Some("D")),
            ("delete, sourceRename", Some("D")),
            ("sourceRename", Some("D")),
            ("branch", Some("A")),
            ("merge, branch", Some("A")),
            ("merge", Some("M")),
            ("merge, edit", Some("M")),
            ("rollback, edit", Some("M")),
            ("undelete", Some("A")),
            ("rename", Some("A")),
            ("edit, rename", Some("A")),
            ("targetRename", Some("A")),
            ("lock", None),
            ("none", None),
            ("edit, lock", Some("M")),
            ("somethingNew", Some("M")),
        ] {
            assert_eq!(action(types).map(Action::letter), expected, "{types}");
        }
    }

    #[test]
    fn a_rename_is_two_changes_however_the_server_tells_it() {
        let alone = [changed("rename", "$/P/b", Some("$/P/a"))];
        assert_eq!(shown(&alone, "$/P"), Some(vec!["A $/P/b".into(), "D $/P/a".into()]));
        let pair = [changed("edit, rename", "$/P/b", Some("$/P/a")), changed("delete, sourceRename", "$/P/A", None)];
        assert_eq!(shown(&pair, "$/P"), Some(vec!["A $/P/b".into(), "D $/P/A".into()]));
        let merged = [changed("merge, edit", "$/P/b", Some("$/P/other/b"))];
        assert_eq!(shown(&merged, "$/P"), Some(vec!["M $/P/b".into()]), "what is merged stays where it is");
    }

    #[test]
    fn a_rename_across_the_edge_of_the_path_shows_its_inner_side() {
        assert_eq!(shown(&[changed("rename", "$/Q/b", Some("$/P/a"))], "$/P"), Some(vec!["D $/P/a".into()]));
        assert_eq!(shown(&[changed("rename", "$/P/b", Some("$/Q/a"))], "$/P"), Some(vec!["A $/P/b".into()]));
    }

    #[test]
    fn what_lies_beside_the_path_is_not_below_it() {
        assert_eq!(shown(&[changed("edit", "$/P/mainly/a", None)], "$/P/main"), None);
        assert_eq!(shown(&[changed("edit", "$/p/MAIN/a", None)], "$/P/main"), Some(vec!["M $/p/MAIN/a".into()]));
        assert_eq!(shown(&[changed("lock", "$/P/main", None)], "$/P/main"), Some(Vec::new()));
        assert_eq!(shown(&[], "$"), None);
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let many: Vec<Changed> = (0..7).map(|number| changed("add", &format!("$/P/{number}"), None)).collect();
        let found = changes(&many, "$/P", 5).expect("below");
        assert_eq!((found.list.len(), found.omitted), (5, 2));
    }

    #[test]
    fn dates_have_any_number_of_digits_after_the_seconds() {
        let expected = Some(CommitTime::from_seconds(1_395_679_930));
        for text in [
            "2014-03-24T16:52:10Z",
            "2014-03-24T16:52:10.41Z",
            "2014-03-24T16:52:10.407Z",
            "2014-03-24T16:52:10.4070000Z",
            "2014-03-24T16:52:10",
            "2014-03-24T17:52:10.407+01:00",
            "2014-03-24T11:22:10-05:30",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for text in ["", "2014-03-24", "24.03.2014 16:52:10", "2014-03-24T16:52:10.4x", "é014-03-24T16:52:10Z"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    fn read(json: &str) -> Result<Listed, String> {
        listed(serde_json::from_str(json).map_err(|error| error.to_string())?)
    }

    #[test]
    fn the_author_is_who_made_the_change_and_not_who_checked_it_in() {
        let json = r#"{"changesetId": 7, "createdDate": "2014-03-24T16:52:10Z", "commentTruncated": true, "comment": "x",
            "author": {"displayName": "Jane Roe", "uniqueName": "ACME\\jroe", "id": "1"},
            "checkedInBy": {"displayName": "deploy", "uniqueName": "ACME\\deploy"}}"#;
        let listed = read(json).expect("valid");
        assert_eq!((listed.author_name.as_str(), listed.author_login.as_str()), ("Jane Roe", "jroe"));
        assert_eq!((listed.comment.as_str(), listed.is_cut), ("x", true));
        let json = r#"{"changesetId": 7, "createdDate": "2014-03-24T16:52:10Z", "author": {"displayName": ""},
            "checkedInBy": {"uniqueName": "jane@acme.example"}}"#;
        let listed = read(json).expect("valid");
        assert_eq!((listed.author_name.as_str(), listed.author_login.as_str()), ("", "jane@acme.example"));
        assert_eq!((listed.comment.as_str(), listed.is_cut), ("", false));
    }

    #[test]
    fn a_changeset_without_number_or_date_is_refused() {
        for json in [
            r#"{"createdDate": "2014-03-24T16:52:10Z"}"#,
            r#"{"changesetId": 7}"#,
            r#"{"changesetId": 0, "createdDate": "2014-03-24T16:52:10Z"}"#,
            r#"{"changesetId": -7, "createdDate": "2014-03-24T16:52:10Z"}"#,
            r#"{"changesetId": "7", "createdDate": "2014-03-24T16:52:10Z"}"#,
            r#"{"changesetId": 7, "createdDate": "yesterday"}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
