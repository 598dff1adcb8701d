//! Plain views of what the world holds, for tests to compare and for the page to show.

use crate::schema;
use crate::table::Object;
use crate::world::{Update, World};
use serde_json::{Value, json};

/// A Changeset, with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Changeset {
    pub object_id: u64,
    pub revision: String,
    pub message: String,
    pub uri: Option<String>,
    pub branch: Option<String>,
    /// UserName of the author.
    pub author: Option<String>,
    pub commit_timestamp: String,
    /// Name of the repository, empty if it was deleted.
    pub repository: String,
    pub workspace: String,
    /// FormattedIDs in the order in which they were linked.
    pub artifacts: Vec<String>,
    pub changes: Vec<Change>,
}

/// A file that a changeset touched.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub action: String,
    pub path: String,
    pub uri: Option<String>,
}

/// An SCMRepository.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    pub object_id: u64,
    pub name: String,
    pub uri: Option<String>,
    pub scm_type: String,
    pub workspace: String,
    pub projects: Vec<String>,
}

impl World {
    /// Returns a field of an artifact; a reference comes as ObjectID, a collection as array of them.
    pub fn field(&self, formatted_id: &str, field: &str) -> Value {
        let artifact = self.artifact(formatted_id);
        if artifact.kind.inverse(field).is_some() {
            return json!(self.members(artifact, field));
        }
        self.value(artifact, field).into_owned()
    }

    /// Returns all changesets in the order of their creation.
    pub fn changesets(&self) -> Vec<Changeset> {
        self.all(schema::known("Changeset")).map(|row| self.changeset_view(row)).collect()
    }

    pub(crate) fn changeset_view(&self, row: &Object) -> Changeset {
        let author = row.reference("Author").and_then(|id| self.find(schema::known("User"), id));
        let repository = row.reference("SCMRepository");
        let repository = repository.and_then(|id| self.find(schema::known("SCMRepository"), id));
        let artifacts = self.members(row, "Artifacts");
        let artifacts = artifacts.iter().filter_map(|&id| self.find(schema::known("Artifact"), id));
        let changes = self.members(row, "Changes");
        let changes = changes.iter().filter_map(|&id| self.find(schema::known("Change"), id));
        Changeset {
            object_id: row.id,
            revision: row.text("Revision").to_owned(),
            message: row.text("Message").to_owned(),
            uri: text(row, "Uri"),
            branch: text(row, "Branch"),
            author: author.map(|user| user.text("UserName").to_owned()),
            commit_timestamp: row.text("CommitTimestamp").to_owned(),
            repository: repository.map_or_else(String::new, |row| row.text("Name").to_owned()),
            workspace: self.workspace_name(row.workspace),
            artifacts: artifacts.map(|row| row.text("FormattedID").to_owned()).collect(),
            changes: changes
                .map(|row| Change {
                    action: row.text("Action").to_owned(),
                    path: row.text("PathAndFilename").to_owned(),
                    uri: text(row, "Uri"),
                })
                .collect(),
        }
    }

    pub fn repositories(&self) -> Vec<Repository> {
        let project = |id: &u64| self.find(schema::known("Project"), *id);
        self.all(schema::known("SCMRepository"))
            .map(|row| Repository {
                object_id: row.id,
                name: row.text("Name").to_owned(),
                uri: text(row, "Uri"),
                scm_type: row.text("SCMType").to_owned(),
                workspace: self.workspace_name(row.workspace),
                projects: self
                    .members(row, "Projects")
                    .iter()
                    .filter_map(project)
                    .map(|row| row.text("Name").to_owned())
                    .collect(),
            })
            .collect()
    }

    /// Returns the updates of artifacts that took place, in their order.
    pub fn updates(&self) -> Vec<Update> {
        self.updates.clone()
    }

    /// Says in a line how much there is, for the page and for the message of a failed wait.
    pub(crate) fn summary(&self) -> String {
        let count = |kind| self.all(schema::known(kind)).count();
        format!(
            "repositories: {}, changesets: {}, changes: {}, artifact updates: {}",
            count("SCMRepository"),
            count("Changeset"),
            count("Change"),
            self.updates.len()
        )
    }
}

fn text(row: &Object, field: &str) -> Option<String> {
    row.get(field).as_str().map(str::to_owned)
}
