//! Adding to a collection and removing from it.

use crate::call::{Call, Outcome};
use crate::reference::Reference;
use crate::render::Fetch;
use crate::schema::{self, Attribute, Type};
use crate::write;
use serde_json::{Map, Value, json};

/// Rally's own client splits at this number, naming a constant of the server.
const MAX_ITEMS: usize = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Add,
    Remove,
}

/// Adds the items of the body to a collection, or removes them; all of them or none.
pub fn edit(call: &mut Call, at: Reference, attribute: &'static Attribute, edit: Edit, body: &Value) -> Outcome {
    call.world.begin();
    match try_edit(call, at, attribute, edit, body) {
        Ok(items) => {
            call.world.commit();
            let found = items.iter().filter_map(|item| call.world.find(item.kind, item.id));
            let shown = found.map(|object| Value::Object(call.render(object, Fetch::Shell)));
            Outcome::with("Results", shown.collect::<Vec<_>>())
        }
        Err(errors) => {
            call.world.roll_back();
            let mut outcome = Outcome::with("Results", Vec::<Value>::new());
            outcome.errors = errors;
            outcome
        }
    }
}

fn try_edit(
    call: &mut Call,
    at: Reference,
    attribute: &'static Attribute,
    edit: Edit,
    body: &Value,
) -> Result<Vec<Reference>, Vec<String>> {
    let one = |error: String| vec![error];
    let owner = call.world.find(at.kind, at.id).filter(|object| call.may_see(object));
    let owner = owner.ok_or_else(|| one("Cannot find object to read".to_owned()))?;
    let at = Reference { kind: owner.kind, id: owner.id };
    if !attribute.is_writable || call.is_closed(owner.workspace) {
        return Err(one(format!("Not authorized to update: {} {}", at.kind.element_name, at.id)));
    }
    let given = items(body).map_err(one)?;
    let target = attribute.target.and_then(schema::by_path);
    let target = target.unwrap_or(schema::known("WorkspaceDomainObject"));
    let mut found = Vec::new();
    for item in given {
        found.push(match new_object(item) {
            Some(fields) if edit == Edit::Add => create(call, at, attribute, fields)?,
            _ => {
                let reference = Reference::from_value(item).map_err(one)?;
                call.referenced(target, reference).map_err(one)?
            }
        });
    }
    link(call, at, attribute, edit, &found).map_err(one)?;
    Ok(found)
}

/// Returns the items of the one list in the body, whatever its name.
fn items(body: &Value) -> Result<&Vec<Value>, String> {
    let lists = body.as_object().into_iter().flat_map(Map::values);
    let items = lists.into_iter().find_map(Value::as_array).ok_or("Could not parse: expected \"CollectionItems\"")?;
    if items.len() > MAX_ITEMS {
        // What Rally answers here is not known; the wording is ours.
        return Err(format!("Could not update: more than {MAX_ITEMS} collection items"));
    }
    Ok(items)
}

fn new_object(item: &Value) -> Option<&Map<String, Value>> {
    item.as_object().filter(|fields| !fields.contains_key("_ref"))
}

/// Makes an object that belongs to the owner of the collection.
fn create(
    call: &mut Call,
    at: Reference,
    attribute: &Attribute,
    fields: &Map<String, Value>,
) -> Result<Reference, Vec<String>> {
    let is_refused = attribute.name == "Changes" && !call.settings.changes_add;
    let inverse = at.kind.inverse(attribute.name).filter(|_| !is_refused);
    let Some((kind, field)) = inverse.filter(|(kind, field)| holds_one(kind, field)) else {
        return Err(vec![format!("Could not update: {} takes no new objects", attribute.name)]);
    };
    let mut fields = fields.clone();
    let owner = format!("/{}/{}", at.kind.path, at.id);
    fields.insert(field.to_owned(), json!(owner));
    let id = call.world.next_id();
    let made = write::create_from(call, kind, &fields);
    if made.errors.is_empty() { Ok(Reference { kind, id }) } else { Err(made.errors) }
}

fn holds_one(kind: &Type, field: &str) -> bool {
    let attribute = kind.attribute(field);
    attribute.is_some_and(|attribute| attribute.kind == schema::Kind::Object)
}

/// Changes the field that the collection is kept in, on this side or on the other.
fn link(
    call: &mut Call,
    at: Reference,
    attribute: &'static Attribute,
    edit: Edit,
    items: &[Reference],
) -> Result<(), String> {
    let artifacts = items.iter().filter(|item| item.kind.is_artifact()).copied();
    let mut touched: Vec<Reference> = artifacts.collect();
    if at.kind.is_artifact() {
        touched.push(at);
    }
    for artifact in &touched {
        call.avoid_conflict(*artifact)?;
    }
    match at.kind.inverse(attribute.name) {
        None => change(call, at, attribute, edit, items),
        Some((kind, field)) => {
            let field = kind.attribute(field).expect("inverse fields exist");
            for item in items {
                if holds_one(kind, field.name) {
                    let owner = if edit == Edit::Add { json!(at.id) } else { Value::Null };
                    call.world.set(*item, field, owner);
                } else {
                    change(call, *item, field, edit, &[at]);
                }
            }
        }
    }
    for artifact in touched {
        call.world.touch(artifact);
    }
    Ok(())
}

fn change(call: &mut Call, at: Reference, attribute: &'static Attribute, edit: Edit, items: &[Reference]) {
    let Some(owner) = call.world.find(at.kind, at.id) else {
        return;
    };
    let mut ids = call.world.members(owner, attribute.name).into_owned();
    for item in items {
        ids.retain(|&id| id != item.id || edit == Edit::Add);
        if edit == Edit::Add && !ids.contains(&item.id) {
            ids.push(item.id);
        }
    }
    call.world.set(at, attribute, json!(ids));
}
