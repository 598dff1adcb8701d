//! Requests side by side: at most so many for each user, and no two writes of one object.

use crate::http::Request;
use crate::reference::Reference;
use crate::server::{Shared, effective_method};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

/// Objects that are written at this moment, with the number of requests that write them.
#[derive(Debug, Default)]
pub struct Claims(HashMap<u64, usize>);

/// The right to be in work; given back when dropped.
pub struct Turn<'a> {
    shared: &'a Shared,
    user: u64,
}

/// The objects that a request writes; given back when dropped.
pub struct Claim<'a> {
    shared: &'a Shared,
    written: HashSet<u64>,
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

/// The objects that a write names, of the kinds that must not be written side by side.
#[derive(Default)]
struct Named {
    artifacts: HashSet<u64>,
    changesets: HashSet<u64>,
}

/// Claims the objects that a write names.
pub fn claim<'a>(shared: &'a Shared, request: &Request) -> Claim<'a> {
    let mut named = Named::default();
    let mut state = shared.lock();
    if effective_method(request) != "GET" {
        named.add_from_path(&request.path);
        if let Ok(body) = serde_json::from_str(&request.body) {
            named.add_from_body(&body);
        }
    }
    let mut written = HashSet::new();
    if state.settings.detect_parallel_artifact_writes {
        written.extend(named.artifacts);
    }
    if state.settings.detect_parallel_changes {
        written.extend(named.changesets);
    }
    let claims = &mut state.claims.0;
    let busy = written.iter().copied().filter(|id| claims.contains_key(id)).collect();
    for &object in &written {
        *claims.entry(object).or_default() += 1;
    }
    Claim { shared, written, busy }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let claims = &mut self.shared.lock().claims.0;
        for object in &self.written {
            if let Some(count) = claims.get_mut(object) {
                *count -= 1;
                if *count == 0 {
                    claims.remove(object);
                }
            }
        }
    }
}

impl Named {
    /// Finds `/defect/7` at the beginning of a path such as `/defect/7/changesets/add`.
    fn add_from_path(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.for_each(|end| self.add(&path[..end]));
    }

    /// Finds every reference, however deep: entries of a batch have bodies of their own.
    fn add_from_body(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Array(items) => items.iter().for_each(|item| self.add_from_body(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field.as_str() {
                        Some(path) if name == "Path" => self.add_from_path(path),
                        _ => self.add_from_body(field),
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, text: &str) {
        let Some(Reference { kind, id }) = Reference::parse(text) else { return };
        if kind.is_artifact() {
            self.artifacts.insert(id);
        } else if kind.element_name == "Changeset" {
            self.changesets.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn artifacts_and_changesets_are_found_in_paths_and_bodies() {
        let mut found = Named::default();
        found.add_from_path("/defect/7/changesets/add");
        found.add_from_path("/portfolioitem/feature/8");
        found.add_from_path("/changeset/9");
        found.add_from_body(&json!({"Batch": [
            {"Entry": {"Path": "/task/10", "Body": {"task": {"State": "Completed"}}}},
            {"Entry": {"Path": "/changeset/create", "Body": {"Changeset": {
                "SCMRepository": "/scmrepository/11", "Message": "x",
                "Artifacts": [{"_ref": "/hierarchicalrequirement/12"}, "defect/13"]}}}},
        ]}));
        assert_eq!(found.artifacts, HashSet::from([7, 8, 10, 12, 13]));
        assert_eq!(found.changesets, HashSet::from([9]));
    }
}
