//! The states of artifacts: which ones a type may have, and which one an artifact has.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bulk::Refused;
use super::lookup::{ArtifactType, object_ref};
use super::{Artifact, Error, Rally};
use crate::artifact::FormattedId;
use crate::queue::WorkQueue;
use crate::time::Time;
use crate::wsapi::{self, Client, Query, Write};

/// A state that artifacts of a type may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allowed {
    pub name: String,
    /// What the field is set to: the name, or a reference for portfolio items.
    pub value: String,
}

impl Rally<'_> {
    /// Returns the allowed states by prefix, in the workspace's order.
    pub(crate) fn allowed_states<'k>(
        &self,
        queue: &mut dyn WorkQueue,
        kinds: impl Iterator<Item = &'k ArtifactType>,
        now: Time,
    ) -> Result<HashMap<String, Vec<Allowed>>, Error> {
        let mut allowed = HashMap::new();
        for kind in kinds {
            let Some(field) = state_field(kind) else { continue };
            if !allowed.contains_key(&kind.prefix) {
                let ask = || Ok(ask_allowed(&self.client, kind, field)?);
                let states = self.answers.remembered(queue, "states", &self.key(&kind.path), now, ask)?;
                allowed.insert(kind.prefix.clone(), states);
            }
        }
        Ok(allowed)
    }

    /// Returns the states that these artifacts have now.
    pub(crate) fn current_states<'i>(
        &self,
        artifacts: &HashMap<FormattedId, Artifact>,
        ids: impl Iterator<Item = &'i FormattedId>,
    ) -> Result<(HashMap<FormattedId, String>, Refused<FormattedId>), Error> {
        let mut by_type: HashMap<&str, Vec<FormattedId>> = HashMap::new();
        for id in ids {
            let Some(artifact) = artifacts.get(id) else { continue };
            by_type.entry(&artifact.kind.path).or_default().push(id.clone());
        }
        let (mut current, mut all_refused) = (HashMap::new(), Refused::new());
        for (path, ids) in by_type {
            let field = artifacts.get(&ids[0]).and_then(|artifact| state_field(&artifact.kind)).unwrap_or("State");
            let (path, fetch) = (format!("/{path}"), format!("ObjectID,FormattedID,Name,{field}"));
            let term = |id: &FormattedId| Query::equal("FormattedID", id.as_str());
            let (rows, refused) = self.ask(&path, &ids, term, &fetch)?;
            for row in rows {
                let found = ids.iter().find(|id| row["FormattedID"].as_str() == Some(id.as_str()));
                // A portfolio item's state is an object with a name.
                let state = row[field]
                    .as_str()
                    .or_else(|| row[field]["Name"].as_str())
                    .or_else(|| row[field]["_refObjectName"].as_str());
                if let (Some(id), Some(state)) = (found, state) {
                    current.insert(id.clone(), state.to_owned());
                }
            }
            all_refused.extend(refused);
        }
        Ok((current, all_refused))
    }
}

/// Returns the names of the states that artifacts of a type may be set to; `None` if it has no state that may be set.
pub(crate) fn state_names(client: &Client, kind: &ArtifactType) -> Result<Option<Vec<String>>, wsapi::Error> {
    let Some(field) = state_field(kind) else { return Ok(None) };
    Ok(Some(ask_allowed(client, kind, field)?.into_iter().map(|state| state.name).collect()))
}

/// Returns the write that sets an artifact's state; `None` if its type has no state that may be set.
pub(crate) fn state_update(artifact: &Artifact, state: &Allowed) -> Option<Write> {
    let mut fields = json!({state_field(&artifact.kind)?: state.value});
    if artifact.kind.path == "task" && state.name == "Completed" {
        fields["ToDo"] = json!(0);
    }
    let element = artifact.kind.path.rsplit('/').next().unwrap_or_default();
    Some(Write { path: artifact.rally_ref.clone(), body: json!({element: fields}) })
}

/// Returns the field that holds the state of a type, if it has one that may be set (docs/wsapi.md, 7.2).
fn state_field(kind: &ArtifactType) -> Option<&'static str> {
    match kind.path.as_str() {
        "hierarchicalrequirement" | "defectsuite" | "testset" => Some("ScheduleState"),
        "testcase" => None,
        _ => Some("State"),
    }
}

fn ask_allowed(client: &Client, kind: &ArtifactType, field: &str) -> Result<Vec<Allowed>, wsapi::Error> {
    if kind.path.starts_with("portfolioitem/") {
        let query = Query::equal("TypeDef", &kind.rally_ref);
        let mut rows = client.query("/state", Some(&query), "ObjectID,Name,OrderIndex")?;
        rows.sort_by_key(|row| row["OrderIndex"].as_i64());
        return rows.iter().map(|row| Ok(Allowed { name: text(row, "Name"), value: object_ref(row)? })).collect();
    }
    let attributes = client.list(&format!("{}/Attributes", kind.rally_ref), "ElementName,AllowedValues")?;
    let Some(attribute) = attributes.iter().find(|row| row["ElementName"].as_str() == Some(field)) else {
        return Ok(Vec::new());
    };
    let mut values = match &attribute["AllowedValues"] {
        Value::Array(values) => values.clone(),
        _ => client.list(&format!("{}/AllowedValues", object_ref(attribute)?), "StringValue,ValueIndex")?,
    };
    // Where the server numbers them, that is their order; else they come in it.
    values.sort_by_key(|value| value["ValueIndex"].as_i64());
    let named = values.iter().map(|value| text(value, "StringValue")).filter(|name| !name.is_empty());
    Ok(named.map(|name| Allowed { value: name.clone(), name }).collect())
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}
