//! What has to be asked of Rally before anything is written: the workspace, its types, and objects by their names.
//! Everything is asked for in bulk.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::FormattedId;
use crate::wsapi::{Client, Error, Query, relative};

/// How many terms go into one query. Rally's own clients send 30 to 50; the answer always fits a page.
const TERMS: usize = 100;

/// The types that a commit can be linked to: those with a Changesets collection (wsapi.md, section 8). Other types use
/// the same prefixes: a User's is US too.
const LINKABLE: [&str; 7] = ["hierarchicalrequirement", "defect", "defectsuite", "task", "testcase", "testset", "risk"];
const PORTFOLIO_ITEM: &str = "portfolioitem/";

/// A workspace as Rally knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workspace {
    pub rally_ref: String,
    /// Whether Rally shows Changesets in it; `None` if it does not say.
    pub changesets_enabled: Option<bool>,
}

/// A type of artifact with the prefix that this workspace gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactType {
    pub prefix: String,
    /// As in addresses: `defect`, `portfolioitem/feature`.
    pub path: String,
    pub rally_ref: String,
}

/// Finds the workspace by its name among those that the user sees.
pub fn workspace(client: &Client, name: &str) -> Result<Workspace, Error> {
    let rows =
        client.query("/workspace", None, "Name,State,ObjectID,WorkspaceConfiguration,BuildandChangesetEnabled")?;
    let open: Vec<&Value> = rows.iter().filter(|row| row["State"].as_str() != Some("Closed")).collect();
    let Some(row) = open.iter().find(|row| row["Name"].as_str() == Some(name)) else {
        let names: Vec<String> =
            open.iter().filter_map(|row| row["Name"].as_str().map(|name| format!("{name:?}"))).collect();
        let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::Wrong(format!(
            "Rally has no open workspace {name:?} for this user, who sees: {list}; set rally.workspace"
        )));
    };
    let changesets_enabled = row["WorkspaceConfiguration"]["BuildandChangesetEnabled"].as_bool();
    Ok(Workspace { rally_ref: object_ref(row)?, changesets_enabled })
}

/// Returns the types that commits can be linked to.
pub fn artifact_types(client: &Client) -> Result<Vec<ArtifactType>, Error> {
    let rows = client.query("/typedefinition", None, "ObjectID,ElementName,TypePath,IDPrefix")?;
    let mut types: Vec<ArtifactType> = Vec::new();
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let path = text("TypePath").to_ascii_lowercase();
        let linkable = LINKABLE.contains(&path.as_str()) || path.starts_with(PORTFOLIO_ITEM);
        let prefix = text("IDPrefix");
        if linkable && !prefix.is_empty() && !types.iter().any(|known| known.prefix == prefix) {
            types.push(ArtifactType { prefix, path, rally_ref: object_ref(&row)? });
        }
    }
    Ok(types)
}

/// Returns the artifacts that Rally has, of one type. Its answer is compared to the letter: a query may match by
/// number alone, so that asking for US11 finds DE11 (wsapi.md, 5.1).
pub fn artifacts(
    client: &Client,
    kind: &ArtifactType,
    ids: &[FormattedId],
) -> Result<HashMap<FormattedId, String>, Error> {
    let by_name: HashMap<&str, &FormattedId> = ids.iter().map(|id| (id.as_str(), id)).collect();
    let mut found = HashMap::new();
    for ids in ids.chunks(TERMS) {
        let query = Query::any(ids.iter().map(|id| Query::equal("FormattedID", id.as_str())));
        for row in client.query(&format!("/{}", kind.path), query.as_ref(), "ObjectID,FormattedID")? {
            if let Some(id) = row["FormattedID"].as_str().and_then(|name| by_name.get(name)) {
                found.insert((*id).clone(), object_ref(&row)?);
            }
        }
    }
    Ok(found)
}

/// Returns the user fields for each of these values of one field.
pub fn users(client: &Client, field: &str, values: &[String]) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for values in values.chunks(TERMS) {
        let query = Query::any(values.iter().map(|value| Query::equal(field, value)));
        for row in client.query("/user", query.as_ref(), "ObjectID,UserName,EmailAddress,DisplayName")? {
            if let Some(value) = row[field].as_str() {
                found.push((value.to_owned(), object_ref(&row)?));
            }
        }
    }
    Ok(found)
}

/// Finds an object by its Name; the oldest, if there are several.
pub fn by_name(client: &Client, path: &str, name: &str) -> Result<Option<String>, Error> {
    let rows = client.query(path, Some(&Query::equal("Name", name)), "ObjectID,Name")?;
    rows.iter().find(|row| row["Name"].as_str() == Some(name)).map(object_ref).transpose()
}

/// Returns which of the revisions the repository has, each with its Changeset; the oldest, if there are several.
pub fn revisions(client: &Client, repository: &str, revisions: &[String]) -> Result<HashMap<String, String>, Error> {
    let mut found = HashMap::new();
    for revisions in revisions.chunks(TERMS) {
        let Some(any) = Query::any(revisions.iter().map(|revision| Query::equal("Revision", revision))) else {
            continue;
        };
        let query = Query::equal("SCMRepository", repository).and(any);
        for row in client.query("/changeset", Some(&query), "ObjectID,Revision")? {
            if let Some(revision) = row["Revision"].as_str() {
                found.entry(revision.to_owned()).or_insert(object_ref(&row)?);
            }
        }
    }
    Ok(found)
}

/// Returns the paths of the Changes that these Changesets have, by Changeset.
pub fn changes_of(client: &Client, changesets: &[String]) -> Result<HashMap<String, Vec<String>>, Error> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for changesets in changesets.chunks(TERMS) {
        let query = Query::any(changesets.iter().map(|changeset| Query::equal("Changeset", changeset)));
        for row in client.query("/change", query.as_ref(), "ObjectID,Changeset,PathAndFilename")? {
            if let (Some(changeset), Some(path)) = (row["Changeset"]["_ref"].as_str(), row["PathAndFilename"].as_str())
            {
                found.entry(relative(changeset)).or_default().push(path.to_owned());
            }
        }
    }
    Ok(found)
}

pub fn object_ref(row: &Value) -> Result<String, Error> {
    let missing = || Error::NotJson { url: "a query".into(), excerpt: "a row without _ref".into() };
    row["_ref"].as_str().map(relative).ok_or_else(missing)
}
