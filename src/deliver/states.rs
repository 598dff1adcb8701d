//! State changes that delivered commits ask for.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dispatch::{Job, Limits, dispatch};
use super::lookup::{ArtifactType, object_ref};
use super::next_attempt;
use super::rally::{Artifact, Halt, Rally};
use crate::artifact::{FormattedId, Mentions};
use crate::context::{Context, now};
use crate::queue::{Queue, StateRow};
use crate::state::{self, States};
use crate::wsapi::{Client, Error, Query, Verdict, Write};

/// How many artifacts are asked for at once.
const TERMS: usize = 100;

/// A state that artifacts of a type may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Allowed {
    name: String,
    /// What the field is set to: the name, or a reference for portfolio items.
    value: String,
}

/// Makes the changes that these requests ask for, in their order. What Rally refuses for good is named in the log and
/// left, and so is what is not done within `retry_for`.
///
/// # Errors
/// If Rally cannot be used, now or before somebody acts.
pub fn update(
    context: &Context,
    queue: &mut Queue,
    rally: &Rally,
    limits: &mut Limits,
    rows: &[StateRow],
) -> Result<(), Halt> {
    let artifacts = rally.artifacts(queue, rows.iter().flat_map(|row| &row.request.artifacts))?;
    let allowed = allowed_states(queue, rally, artifacts.values().map(|artifact| &artifact.kind))?;
    let names = |states: &Vec<Allowed>| states.iter().map(|state| state.name.clone()).collect();
    let states: States = allowed.iter().map(|(prefix, states)| (prefix.clone(), names(states))).collect();
    let mentions = Mentions::new(&context.config.commits.prefixes, context.config.commits.ignore_case);
    let mut wanted = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let changes = state::changes(&row.request.message, &mentions, &states);
        wanted.extend(changes.into_iter().map(|change| (change.artifact, at, change.state)));
    }
    let current = current_states(rally, &artifacts, wanted.iter().map(|(id, ..)| id))?;
    let jobs = jobs(wanted, &artifacts, &allowed, current, context.config.state.backwards);
    let failed = send(context, rally, limits, rows, jobs);
    settle(context, queue, rows, failed)
}

/// Sends the updates. Returns the rows whose updates have to be sent again, with the reason.
fn send(
    context: &Context,
    rally: &Rally,
    limits: &mut Limits,
    rows: &[StateRow],
    jobs: Vec<Job>,
) -> HashMap<usize, Error> {
    let mut failed = HashMap::new();
    dispatch(&rally.client, limits, jobs, |group| {
        for done in group {
            let (artifact, commit) = (done.job.touches.join(" "), &rows[done.job.row].request.revision);
            match done.result {
                Ok(_) => context.log.info(&format!("commit {commit} sets {artifact} to {}", done.job.write.body)),
                Err(error) if error.verdict() == Verdict::Reject => {
                    context.log.warn(&format!("commit {commit}: {artifact} keeps its state: {error}"));
                }
                Err(error) => drop(failed.insert(done.job.row, error)),
            }
        }
        ControlFlow::Continue(())
    });
    failed
}

fn settle(
    context: &Context,
    queue: &mut Queue,
    rows: &[StateRow],
    mut failed: HashMap<usize, Error>,
) -> Result<(), Halt> {
    let (mut done, mut later, mut halt) = (Vec::new(), Vec::new(), None);
    for (at, row) in rows.iter().enumerate() {
        let Some(error) = failed.remove(&at) else {
            done.push(row.id);
            continue;
        };
        match next_attempt(context, row.attempts, row.first_attempt, &error) {
            Some(at) => later.push((row.id, at)),
            None => {
                context.log.warn(&format!("commit {} changes no states: {error}", row.request.revision));
                done.push(row.id);
            }
        }
        if matches!(error.verdict(), Verdict::Stop | Verdict::Unavailable) {
            halt = Some(error);
        }
    }
    queue.finish_state_requests(&done)?;
    queue.put_off_state_requests(&later, now())?;
    halt.map_or(Ok(()), |error| Err(error.into()))
}

/// Returns one update for each artifact whose state changes.
fn jobs(
    wanted: Vec<(FormattedId, usize, String)>,
    artifacts: &HashMap<FormattedId, Artifact>,
    allowed: &HashMap<String, Vec<Allowed>>,
    mut current: HashMap<FormattedId, String>,
    backwards: bool,
) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for (id, row, state) in wanted {
        let (Some(artifact), Some(states)) = (artifacts.get(&id), allowed.get(id.prefix())) else { continue };
        let Some(field) = state_field(&artifact.kind) else { continue };
        let place = |name: &str| states.iter().position(|state| state.name == name);
        let before = current.get(&id).and_then(|name| place(name));
        let Some(after) = place(&state) else { continue };
        if before == Some(after) || before.is_some_and(|before| after < before) && !backwards {
            continue;
        }
        let mut fields = json!({field: states[after].value});
        if artifact.kind.path == "task" && state == "Completed" {
            fields["ToDo"] = json!(0);
        }
        let element = artifact.kind.path.rsplit('/').next().unwrap_or_default();
        let write = Write { path: artifact.rally_ref.clone(), body: json!({element: fields}) };
        jobs.retain(|job| job.touches != [id.as_str()]);
        jobs.push(Job { row, change: 0, write, touches: vec![id.to_string()], alone: false });
        current.insert(id, state);
    }
    jobs
}

/// Returns the field that holds the state of a type, if it has one that may be set (wsapi.md, 10.3).
fn state_field(kind: &ArtifactType) -> Option<&'static str> {
    match kind.path.as_str() {
        "hierarchicalrequirement" | "defectsuite" | "testset" => Some("ScheduleState"),
        "testcase" => None,
        _ => Some("State"),
    }
}

/// Returns the allowed states by prefix, in the workspace's order.
fn allowed_states<'k>(
    queue: &mut Queue,
    rally: &Rally,
    kinds: impl Iterator<Item = &'k ArtifactType>,
) -> Result<HashMap<String, Vec<Allowed>>, Halt> {
    let mut allowed = HashMap::new();
    for kind in kinds {
        let Some(field) = state_field(kind) else { continue };
        if !allowed.contains_key(&kind.prefix) {
            let states = rally.remembered(queue, "states", &kind.path, || ask_allowed(&rally.client, kind, field))?;
            allowed.insert(kind.prefix.clone(), states);
        }
    }
    Ok(allowed)
}

fn ask_allowed(client: &Client, kind: &ArtifactType, field: &str) -> Result<Vec<Allowed>, Error> {
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

/// Returns the states that these artifacts have now.
fn current_states<'i>(
    rally: &Rally,
    artifacts: &HashMap<FormattedId, Artifact>,
    ids: impl Iterator<Item = &'i FormattedId>,
) -> Result<HashMap<FormattedId, String>, Halt> {
    let mut by_type: HashMap<&str, Vec<&FormattedId>> = HashMap::new();
    for id in ids {
        let Some(artifact) = artifacts.get(id) else { continue };
        by_type.entry(&artifact.kind.path).or_default().push(id);
    }
    let mut current = HashMap::new();
    for (path, ids) in by_type {
        let field = artifacts.get(ids[0]).and_then(|artifact| state_field(&artifact.kind)).unwrap_or("State");
        for ids in ids.chunks(TERMS) {
            let query = Query::any(ids.iter().map(|id| Query::equal("FormattedID", id.as_str())));
            for row in rally.client.query(
                &format!("/{path}"),
                query.as_ref(),
                &format!("ObjectID,FormattedID,Name,{field}"),
            )? {
                let found = ids.iter().find(|id| row["FormattedID"].as_str() == Some(id.as_str()));
                // A portfolio item's state is an object with a name.
                let state = row[field]
                    .as_str()
                    .or_else(|| row[field]["Name"].as_str())
                    .or_else(|| row[field]["_refObjectName"].as_str());
                if let (Some(id), Some(state)) = (found, state) {
                    current.insert((*id).clone(), state.to_owned());
                }
            }
        }
    }
    Ok(current)
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> ArtifactType {
        ArtifactType { prefix: "TA".into(), path: "task".into(), rally_ref: "/typedefinition/1".into() }
    }

    fn bodies(wanted: &[&str], now: &str, backwards: bool) -> Vec<Value> {
        let id: FormattedId = serde_json::from_value(json!("TA1")).expect("an ID");
        let states =
            ["Defined", "In-Progress", "Completed"].map(|name| Allowed { name: name.into(), value: name.into() });
        let artifacts = HashMap::from([(id.clone(), Artifact { rally_ref: "/task/7".into(), kind: task() })]);
        let allowed = HashMap::from([("TA".to_owned(), states.to_vec())]);
        let current = HashMap::from([(id.clone(), now.to_owned())]);
        let wanted = wanted.iter().enumerate().map(|(row, state)| (id.clone(), row, (*state).to_owned())).collect();
        jobs(wanted, &artifacts, &allowed, current, backwards).into_iter().map(|job| job.write.body).collect()
    }

    #[test]
    fn a_completed_task_has_nothing_left_to_do() {
        assert_eq!(bodies(&["Completed"], "Defined", false), [json!({"task": {"State": "Completed", "ToDo": 0}})]);
    }

    #[test]
    fn states_go_forward_only_unless_allowed() {
        assert!(bodies(&["Defined"], "Completed", false).is_empty());
        assert!(bodies(&["Completed"], "Completed", true).is_empty());
        assert_eq!(bodies(&["Defined"], "Completed", true), [json!({"task": {"State": "Defined"}})]);
    }

    #[test]
    fn of_several_changes_the_last_that_counts_is_made() {
        assert_eq!(
            bodies(&["In-Progress", "Completed", "Defined"], "Defined", false),
            [json!({"task": {"State": "Completed", "ToDo": 0}})]
        );
    }
}
