//! What has to be asked of Rally before anything is written: the workspace, its types, and objects by their names.
//! Everything is asked for in bulk.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{sound_path, sound_ref};
use super::authors::Candidate;
use super::bulk::{self, Refused};
use super::{Rally, error};
use crate::artifact::FormattedId;
use crate::text::cut;
use crate::wsapi::{Client, Error, Query, relative};

/// The types that a commit can be linked to: those with a Changesets collection (docs/wsapi.md, 7.2). Other types use
/// the same prefixes: a User's is US too.
const LINKABLE: [&str; 7] = ["hierarchicalrequirement", "defect", "defectsuite", "task", "testcase", "testset", "risk"];
const PORTFOLIO_ITEM: &str = "portfolioitem/";

/// A workspace as Rally knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Workspace {
    #[serde(deserialize_with = "sound_ref")]
    pub rally_ref: String,
    /// Whether Rally shows Changesets in it; `None` if it does not say.
    pub changesets_enabled: Option<bool>,
}

/// A type of artifact with the prefix that this workspace gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactType {
    pub prefix: String,
    /// As in addresses: `defect`, `portfolioitem/feature`.
    #[serde(deserialize_with = "sound_path")]
    pub path: String,
    #[serde(deserialize_with = "sound_ref")]
    pub rally_ref: String,
}

/// Finds the workspace by its name among those that the user sees.
pub(crate) fn workspace(client: &Client, name: &str) -> Result<Workspace, error::Error> {
    let rows =
        client.query("/workspace", None, "Name,State,ObjectID,WorkspaceConfiguration,BuildandChangesetEnabled")?;
    let open: Vec<&Value> = rows.iter().filter(|row| row["State"].as_str() != Some("Closed")).collect();
    let Some(row) = open.iter().find(|row| row["Name"].as_str() == Some(name)) else {
        let names: Vec<String> = open
            .iter()
            .filter_map(|row| row["Name"].as_str().map(|name| format!("{:?}", cut(name, 100))))
            .take(20)
            .collect();
        let seen = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(error::Error::NoWorkspace { name: name.to_owned(), seen });
    };
    let changesets_enabled = row["WorkspaceConfiguration"]["BuildandChangesetEnabled"].as_bool();
    Ok(Workspace { rally_ref: object_ref(row)?, changesets_enabled })
}

/// Returns the types that commits can be linked to.
pub(crate) fn artifact_types(client: &Client) -> Result<Vec<ArtifactType>, Error> {
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

/// Finds an object by its Name, and returns these fields of it; the oldest, if there are several.
pub(super) fn named(client: &Client, path: &str, name: &str, fetch: &str) -> Result<Option<Value>, Error> {
    let rows = client.query(path, Some(&Query::equal("Name", name)), fetch)?;
    Ok(rows.into_iter().find(|row| row["Name"].as_str() == Some(name)))
}

/// Values of one field, each with the ref of the user who has it.
pub(super) type Users = Vec<(String, String)>;

/// The paths of Changes, by the ref of their Changeset.
type PathsByChangeset = HashMap<String, Vec<String>>;

impl Rally<'_> {
    /// Asks for all things that the terms stand for, in as few requests as Rally answers.
    pub(super) fn ask<T: Clone>(
        &self,
        path: &str,
        terms: &[T],
        term: impl Fn(&T) -> Query,
        fetch: &str,
    ) -> Result<(Vec<Value>, Refused<T>), Error> {
        bulk::ask(&self.portion, terms, term, |query| self.client.query(path, Some(&query), fetch))
    }

    /// Returns the artifacts that Rally has, of one type. Its answer is compared to the letter: a query may match by
    /// number alone, so that asking for US11 finds DE11 (docs/wsapi.md, 4.4).
    pub(super) fn ask_artifacts(
        &self,
        kind: &ArtifactType,
        ids: &[FormattedId],
    ) -> Result<(HashMap<FormattedId, String>, Refused<FormattedId>), Error> {
        let by_name: HashMap<&str, &FormattedId> = ids.iter().map(|id| (id.as_str(), id)).collect();
        let term = |id: &FormattedId| Query::equal("FormattedID", id.as_str());
        let (rows, refused) = self.ask(&format!("/{}", kind.path), ids, term, "ObjectID,FormattedID")?;
        let mut found = HashMap::new();
        for row in &rows {
            if let Some(id) = row["FormattedID"].as_str().and_then(|name| by_name.get(name)) {
                found.insert((*id).clone(), object_ref(row)?);
            }
        }
        Ok((found, refused))
    }

    /// Returns the values of one field that users have, each with its user. A value that Rally gives no answer for costs
    /// the author only: anybody may choose it. The first reason is returned besides.
    pub(super) fn ask_users(&self, field: &str, asked: &[&Candidate]) -> Result<(Users, Option<Error>), Error> {
        let term = |candidate: &&Candidate| Query::equal(field, &candidate.value);
        let (rows, refused) = self.ask("/user", asked, term, "ObjectID,UserName,EmailAddress,DisplayName")?;
        let values = rows.iter().filter_map(|row| Some((row[field].as_str()?, row)));
        let found = values.map(|(value, row)| Ok((value.to_owned(), object_ref(row)?)));
        Ok((found.collect::<Result<_, Error>>()?, refused.into_iter().next().map(|(_, error)| error)))
    }

    /// Returns which of the revisions the repository has, each with its Changeset; the oldest, if there are several.
    pub(crate) fn changesets(
        &self,
        repository: &str,
        revisions: &[String],
    ) -> Result<(HashMap<String, String>, Refused<String>), super::Error> {
        let (rows, refused) = self.changeset_rows(repository, revisions)?;
        let mut found = HashMap::new();
        for row in &rows {
            if let Some(revision) = row["Revision"].as_str() {
                found.entry(revision.to_owned()).or_insert(object_ref(row)?);
            }
        }
        Ok((found, refused))
    }

    /// Returns which of the revisions the repository has more than once, and those that Rally gave no answer for.
    pub(crate) fn doubles(
        &self,
        repository: &str,
        revisions: &[String],
    ) -> Result<(BTreeSet<String>, Refused<String>), super::Error> {
        let (rows, refused) = self.changeset_rows(repository, revisions)?;
        let (mut seen, mut doubles) = (HashSet::new(), BTreeSet::new());
        for revision in rows.iter().filter_map(|row| row["Revision"].as_str()) {
            if !seen.insert(revision) {
                doubles.insert(revision.to_owned());
            }
        }
        Ok((doubles, refused))
    }

    fn changeset_rows(
        &self,
        repository: &str,
        revisions: &[String],
    ) -> Result<(Vec<Value>, Refused<String>), super::Error> {
        let term = |revision: &String| Query::equal("Revision", revision);
        let ask = |any| {
            let query = Query::equal("SCMRepository", repository).and(any);
            self.client.query("/changeset", Some(&query), "ObjectID,Revision")
        };
        Ok(bulk::ask(&self.portion, revisions, term, ask)?)
    }

    /// Returns the paths of the Changes that these Changesets have, by Changeset.
    pub(crate) fn changes_of(
        &self,
        changesets: &[String],
    ) -> Result<(PathsByChangeset, Refused<String>), super::Error> {
        let term = |changeset: &String| Query::equal("Changeset", changeset);
        let (rows, refused) = self.ask("/change", changesets, term, "ObjectID,Changeset,PathAndFilename")?;
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        for row in &rows {
            let (changeset, path) = (row["Changeset"]["_ref"].as_str(), row["PathAndFilename"].as_str());
            if let (Some(changeset), Some(path)) = (changeset, path) {
                found.entry(relative(changeset).unwrap_or_default()).or_default().push(path.to_owned());
            }
        }
        Ok((found, refused))
    }
}

pub(super) fn object_ref(row: &Value) -> Result<String, Error> {
    let missing = || Error::NotWsapi { request: "a query".into(), excerpt: "a row without _ref".into() };
    row["_ref"].as_str().and_then(relative).ok_or_else(missing)
}
