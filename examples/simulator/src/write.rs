//! Create, update and delete, with the checks that WSAPI makes.

use crate::call::{Call, Outcome};
use crate::check::{Fields, checked, plain, unwrap};
use crate::reference::Reference;
use crate::render::Fetch;
use crate::schema::{self, Attribute, Type};
use crate::world::Update;
use serde_json::{Map, Value, json};

/// Creates an object from the body of a request.
pub fn create(call: &mut Call, kind: &'static Type, body: &Value) -> Outcome {
    match unwrap(kind, body) {
        Ok(given) => create_from(call, kind, given),
        Err(error) => Outcome::failed(error),
    }
}

/// Creates an object from its fields.
pub fn create_from(call: &mut Call, kind: &'static Type, given: &Map<String, Value>) -> Outcome {
    let mut outcome = Outcome::default();
    match try_create(call, kind, given, &mut outcome.warnings) {
        Ok(id) => {
            call.created += 1;
            let object = call.world.find(kind, id).expect("it was just made");
            outcome.members.insert("Object".to_owned(), call.render(object, Fetch::All).into());
        }
        Err(errors) => outcome.errors = errors,
    }
    outcome
}

/// Changes the fields of an object that the body names.
pub fn update(call: &mut Call, at: Reference, body: &Value) -> Outcome {
    let mut outcome = Outcome::default();
    match try_update(call, at, body, &mut outcome.warnings) {
        Ok(()) => {
            let object = call.world.find(at.kind, at.id).expect("it was just changed");
            outcome.members.insert("Object".to_owned(), call.render(object, Fetch::Shell).into());
        }
        Err(errors) => outcome.errors = errors,
    }
    outcome
}

pub fn delete(call: &mut Call, at: Reference) -> Outcome {
    let found = call.world.find(at.kind, at.id).filter(|object| call.may_see(object));
    let Some(object) = found else {
        return Outcome::failed("Object to delete cannot be null");
    };
    let at = Reference { kind: object.kind, id: object.id };
    if !at.kind.is_writable || call.is_closed(object.workspace) {
        return Outcome::failed(not_authorized("delete", at));
    }
    if at.kind.is_artifact()
        && let Err(error) = call.avoid_conflict(at)
    {
        return Outcome::failed(error);
    }
    call.world.delete(at, Some(call.caller.user));
    Outcome::default()
}

fn try_create(
    call: &mut Call,
    kind: &'static Type,
    given: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<u64, Vec<String>> {
    if kind.is_abstract || !kind.is_writable {
        return Err(vec![format!("Not authorized to create: {}", kind.element_name)]);
    }
    let mut fields = checked(call, kind, given, warnings)?;
    let workspace = workspace_of(call, &fields).map_err(|error| vec![error])?;
    if call.is_closed(workspace) {
        return Err(vec![format!("Not authorized to create: {}", kind.element_name)]);
    }
    if kind.is_artifact() {
        add_defaults(call, kind, workspace, &mut fields);
    }
    let missing = missing(kind, &fields);
    if !missing.is_empty() {
        return Err(missing);
    }
    let linked = linked(&fields);
    for artifact in &linked {
        call.avoid_conflict(*artifact).map_err(|error| vec![error])?;
    }
    if let Some(changeset) = changeset(&fields) {
        call.avoid_overlap(changeset).map_err(|error| vec![error])?;
    }
    let stored = fields.into_iter().filter(|(attribute, _)| attribute.name != "Workspace");
    let stored = stored.map(|(attribute, value)| (attribute.name, plain(value))).collect();
    let id = call.world.insert_now(kind, workspace, stored);
    for artifact in linked {
        call.world.touch(artifact);
    }
    Ok(id)
}

fn try_update(call: &mut Call, at: Reference, body: &Value, warnings: &mut Vec<String>) -> Result<(), Vec<String>> {
    let one = |error: String| vec![error];
    let at = target(call, at).map_err(one)?;
    let given = unwrap(at.kind, body).map_err(one)?;
    let fields = checked(call, at.kind, given, warnings)?;
    let blanked = fields.iter().filter(|(field, value)| field.is_required && value.is_null());
    let blanked: Vec<_> = blanked.map(|(field, _)| should_not_be_null(at.kind, field)).collect();
    if !blanked.is_empty() {
        return Err(blanked);
    }
    let mut touched = linked(&fields);
    if at.kind.is_artifact() {
        if let Some(text) = call.world.work_rules.get(&at.id) {
            return Err(one(text.clone()));
        }
        touched.push(at);
    }
    for artifact in &touched {
        call.avoid_conflict(*artifact).map_err(one)?;
    }
    if at.kind.is_artifact() {
        log_update(call, at, &fields);
    } else {
        touched.push(at);
    }
    for (attribute, value) in fields.into_iter().filter(|(field, _)| field.name != "Workspace") {
        call.world.set(at, attribute, plain(value));
    }
    for object in touched {
        call.world.touch(object);
    }
    Ok(())
}

/// Returns the object to update with its own type, if the caller may write it.
fn target(call: &Call, at: Reference) -> Result<Reference, String> {
    let found = call.world.find(at.kind, at.id).filter(|object| call.may_see(object));
    let Some(object) = found else {
        let element = at.kind.element_name;
        return Err(format!("Could not read: Could not read {element} {} to update.", at.id));
    };
    let at = Reference { kind: object.kind, id: object.id };
    if !at.kind.is_writable || call.is_closed(object.workspace) {
        return Err(not_authorized("update", at));
    }
    Ok(at)
}

fn log_update(call: &mut Call, at: Reference, fields: &Fields) {
    let artifact = call.world.find(at.kind, at.id);
    let formatted_id = artifact.map_or("", |artifact| artifact.text("FormattedID")).to_owned();
    let fields = fields.iter().map(|(field, value)| (field.name.to_owned(), plain(value.clone())));
    let fields = fields.collect();
    call.world.log_update(Update { formatted_id, fields });
}

/// Returns the artifacts that a changeset names in its fields.
fn linked(fields: &Fields) -> Vec<Reference> {
    let artifacts = fields.iter().find(|(attribute, _)| attribute.name == "Artifacts");
    let members = artifacts.and_then(|(_, value)| value.as_array()).into_iter().flatten();
    members
        .filter_map(|member| {
            let kind = schema::by_path(member["type"].as_str()?)?;
            Some(Reference { kind, id: member["id"].as_u64()? })
        })
        .collect()
}

/// Returns the changeset that a change belongs to.
fn changeset(fields: &Fields) -> Option<Reference> {
    let (_, value) = fields.iter().find(|(attribute, _)| attribute.name == "Changeset")?;
    Some(Reference { kind: schema::known("Changeset"), id: plain(value.clone()).as_u64()? })
}

fn workspace_of(call: &Call, fields: &Fields) -> Result<u64, String> {
    // A change lives where its changeset does.
    let changeset = changeset(fields).and_then(|at| call.world.find(at.kind, at.id));
    let workspace = fields.iter().find(|(attribute, _)| attribute.name == "Workspace");
    match (changeset, workspace.and_then(|(_, value)| plain(value.clone()).as_u64())) {
        (Some(changeset), _) => Ok(changeset.workspace),
        (None, Some(workspace)) => Ok(workspace),
        (None, None) => call.workspace(),
    }
}

/// Adds what a new artifact has without being told.
fn add_defaults(call: &mut Call, kind: &'static Type, workspace: u64, fields: &mut Fields) {
    let mut defaults = call.world.artifact_defaults(kind, workspace);
    let project = call.parameter("project").and_then(Reference::parse);
    let project = project.map_or(call.caller.default_project, |reference| reference.id);
    let project = call.world.find(schema::known("Project"), project);
    if let Some(project) = project.filter(|project| project.workspace == workspace) {
        defaults.retain(|(name, _)| *name != "Project");
        defaults.push(("Project", json!(project.id)));
    }
    defaults.push(("FormattedID", json!(call.world.next_formatted_id(workspace, kind))));
    for (name, value) in defaults {
        let is_given = fields.iter().any(|(attribute, value)| attribute.name == name && !value.is_null());
        if let Some(attribute) = kind.attribute(name).filter(|_| !is_given) {
            fields.retain(|(attribute, _)| attribute.name != name);
            fields.push((attribute, value));
        }
    }
}

fn missing(kind: &Type, fields: &Fields) -> Vec<String> {
    kind.attributes
        .iter()
        .filter(|attribute| attribute.is_required && attribute.is_writable)
        .filter(|attribute| {
            let given = fields.iter().find(|(field, _)| field.name == attribute.name);
            given.is_none_or(|(_, value)| value.is_null())
        })
        .map(|attribute| should_not_be_null(kind, attribute))
        .collect()
}

fn should_not_be_null(kind: &Type, attribute: &Attribute) -> String {
    format!("Validation error: {}.{} should not be null", kind.element_name, attribute.name)
}

fn not_authorized(action: &str, at: Reference) -> String {
    format!("Not authorized to {action}: {} {}", at.kind.element_name, at.id)
}
