//! The bodies of the objects that we make in Rally, from plain facts. Pure.

use serde_json::{Map, Value, json};

use crate::changeset::Changeset;
use crate::commit::Action;
use crate::links::LinkTemplates;
use crate::text::cut;
use crate::wsapi::{MAX_SHORT_TEXT, MAX_TEXT, Write};

/// Rally objects that a Changeset refers to.
#[derive(Debug, Default)]
pub(super) struct References<'a> {
    pub workspace: &'a str,
    pub repository: &'a str,
    pub author: Option<&'a str>,
    pub artifacts: &'a [&'a str],
}

pub(super) fn changeset(facts: &Changeset, refs: &References, links: &LinkTemplates) -> Write {
    let mut body = Map::new();
    body.insert("Workspace".into(), json!(refs.workspace));
    body.insert("SCMRepository".into(), json!(refs.repository));
    body.insert("Revision".into(), json!(facts.revision));
    body.insert("CommitTimestamp".into(), json!(facts.committed_at.to_string()));
    body.insert("Message".into(), json!(message(facts)));
    let artifacts: Vec<Value> = refs.artifacts.iter().map(|artifact| json!({"_ref": artifact})).collect();
    body.insert("Artifacts".into(), json!(artifacts));
    // A server that does not know the field ignores it (docs/wsapi.md, 7.1).
    let branch = facts.branch.as_deref().map(|branch| cut(branch, MAX_SHORT_TEXT).to_owned());
    let optional =
        [("Uri", links.commit(&facts.revision)), ("Author", refs.author.map(str::to_owned)), ("Branch", branch)];
    body.extend(optional.into_iter().filter_map(|(field, value)| Some((field.to_owned(), json!(value?)))));
    Write { path: "/changeset/create".into(), body: json!({"Changeset": body}) }
}

pub(super) fn change(facts: &Changeset, place: usize, changeset_ref: &str, links: &LinkTemplates) -> Write {
    let change = &facts.changes[place];
    let mut body = json!({
        "Changeset": changeset_ref,
        "Action": change.action.letter(),
        "PathAndFilename": posted_path(&change.path),
    });
    // This commit has no page of a deleted file, and web servers show directories in other ways than files.
    let uri = match change.action {
        Action::Deleted => links.commit(&facts.revision),
        _ if change.path.ends_with('/') => links.commit(&facts.revision),
        _ => links.file(&facts.revision, &change.path),
    };
    if let Some(uri) = uri {
        body["Uri"] = json!(uri);
    }
    Write { path: "/change/create".into(), body: json!({"Change": body}) }
}

/// Returns the path as Rally holds it.
pub(crate) fn posted_path(path: &str) -> &str {
    cut(path, MAX_TEXT)
}

/// Returns the message, with a word about paths that are left out, within the field's limit.
fn message(facts: &Changeset) -> String {
    if facts.omitted == 0 {
        return cut(&facts.message, MAX_TEXT).to_owned();
    }
    let note = format!("\n\n[rally-hook: {} more changed paths are not listed]", facts.omitted);
    format!("{}{note}", cut(facts.message.trim_end(), MAX_TEXT - note.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Change;
    use crate::time::CommitTime;

    fn facts() -> Changeset {
        Changeset {
            revision: "abc".into(),
            committed_at: CommitTime::from_seconds(1_770_091_506),
            author_name: "A".into(),
            author_email: "a@x".into(),
            branch: Some("main".into()),
            message: "Fixed DE1".into(),
            artifacts: Vec::new(),
            more_artifacts: 0,
            changes: vec![
                Change { action: Action::Deleted, path: "a b".into() },
                Change { action: Action::Added, path: "c".into() },
            ],
            omitted: 0,
        }
    }

    #[test]
    fn a_changeset_says_all_that_is_known() {
        let refs = References {
            workspace: "/workspace/1",
            repository: "/scmrepository/2",
            author: Some("/user/3"),
            artifacts: &["/defect/4"],
        };
        let expected = json!({"Changeset": {
            "Workspace": "/workspace/1", "SCMRepository": "/scmrepository/2", "Revision": "abc", "CommitTimestamp": "2026-02-03T04:05:06Z",
            "Message": "Fixed DE1", "Artifacts": [{"_ref": "/defect/4"}], "Author": "/user/3", "Branch": "main",
        }});
        assert_eq!(changeset(&facts(), &refs, &LinkTemplates::default()).body, expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let facts = Changeset { branch: None, ..facts() };
        let body = changeset(&facts, &References::default(), &LinkTemplates::default()).body;
        assert!(["Author", "Branch", "Uri"].iter().all(|field| body["Changeset"].get(field).is_none()));
    }

    #[test]
    fn a_long_message_is_cut_and_left_out_paths_are_counted_in_it() {
        let long = Changeset { message: "é".repeat(3000), omitted: 7, ..facts() };
        let text = message(&long);
        assert!(
            text.len() <= MAX_TEXT && text.ends_with("é\n\n[rally-hook: 7 more changed paths are not listed]"),
            "{text}"
        );
        assert_eq!(message(&Changeset { omitted: 0, ..long }).len(), MAX_TEXT);
    }
}
