//! Requests side by side: at most so many for each user, and no two writes of one artifact.

use crate::http::Request;
use crate::reference::Reference;
use crate::server::{Shared, effective_method};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

/// Artifacts that are written at this moment, with the number of requests that write them.
#[derive(Debug, Default)]
pub struct Claims(HashMap<u64, usize>);

/// The right to be in work; given back when dropped.
pub struct Turn<'a> {
    shared: &'a Shared,
    user: u64,
}

/// The artifacts that a request writes; given back when dropped.
pub struct Claim<'a> {
    shared: &'a Shared,
    artifacts: HashSet<u64>,
    /// Those of them that another request was writing before.
    pub busy: HashSet<u64>,
}

/// Waits for the turn of a request.
pub fn take(shared: &Shared, user: u64, limit: usize) -> Turn<'_> {
    let mut state = shared.lock();
    while !state.is_stopping && state.turns.get(&user).is_some_and(|&count| count >= limit) {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    *state.turns.entry(user).or_default() += 1;
    Turn { shared, user }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.shared.lock().turns.get_mut(&self.user) {
            *count -= 1;
        }
        self.shared.changed.notify_all();
    }
}

/// Claims the artifacts that a write names.
pub fn claim<'a>(shared: &'a Shared, request: &Request) -> Claim<'a> {
    let mut artifacts = HashSet::new();
    let mut state = shared.lock();
    let is_write = effective_method(request) != "GET";
    if is_write && state.settings.detect_parallel_artifact_writes {
        add_from_path(&request.path, &mut artifacts);
        if let Ok(body) = serde_json::from_str(&request.body) {
            add_from_body(&body, &mut artifacts);
        }
    }
    let claims = &mut state.claims.0;
    let busy = artifacts.iter().copied().filter(|id| claims.contains_key(id)).collect();
    for &artifact in &artifacts {
        *claims.entry(artifact).or_default() += 1;
    }
    Claim { shared, artifacts, busy }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let claims = &mut self.shared.lock().claims.0;
        for artifact in &self.artifacts {
            if let Some(count) = claims.get_mut(artifact) {
                *count -= 1;
                if *count == 0 {
                    claims.remove(artifact);
                }
            }
        }
    }
}

/// Finds `/defect/7` at the beginning of a path such as `/defect/7/changesets/add`.
fn add_from_path(path: &str, artifacts: &mut HashSet<u64>) {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        add(&path[..end], artifacts);
    }
}

/// Finds every reference to an artifact, however deep: entries of a batch have bodies of their own.
fn add_from_body(value: &Value, artifacts: &mut HashSet<u64>) {
    match value {
        Value::String(text) => add(text, artifacts),
        Value::Array(items) => items.iter().for_each(|item| add_from_body(item, artifacts)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(path) if name == "Path" => add_from_path(path, artifacts),
                    _ => add_from_body(field, artifacts),
                }
            }
        }
        _ => {}
    }
}

fn add(text: &str, artifacts: &mut HashSet<u64>) {
    let reference = Reference::parse(text).filter(|found| found.kind.is_artifact());
    artifacts.extend(reference.map(|found| found.id));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn artifacts_are_found_in_paths_and_bodies() {
        let mut found = HashSet::new();
        add_from_path("/defect/7/changesets/add", &mut found);
        add_from_path("/portfolioitem/feature/8", &mut found);
        add_from_path("/changeset/9", &mut found);
        add_from_body(
            &json!({"Batch": [
                {"Entry": {"Path": "/task/10", "Body": {"task": {"State": "Completed"}}}},
                {"Entry": {"Path": "/changeset/create", "Body": {"Changeset": {
                    "SCMRepository": "/scmrepository/11", "Message": "x",
                    "Artifacts": [{"_ref": "/hierarchicalrequirement/12"}, "defect/13"]}}}},
            ]}),
            &mut found,
        );
        assert_eq!(found, HashSet::from([7, 8, 10, 12, 13]));
    }
}
