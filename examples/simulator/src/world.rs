//! The state of the simulated subscription: objects, relations between them, and who may log in.
//!
//! Nothing here knows of HTTP or of permissions; the handlers ask first and change afterwards.

use crate::date;
use crate::reference::{self, Reference};
use crate::schema::{self, Attribute, Type};
use crate::table::{Object, Table};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

/// The first ObjectID. Those of Rally have long outgrown 32 bits.
const FIRST_ID: u64 = 700_000_000_001;

/// Everything that the server remembers.
#[derive(Debug)]
pub struct World {
    tables: Vec<Table>,
    next_id: u64,
    pub(crate) subscription: u64,
    pub(crate) accounts: Vec<Account>,
    /// The highest number in use for each workspace and type.
    numbers: HashMap<(u64, usize), u64>,
    pub(crate) updates: Vec<Update>,
    pub(crate) work_rules: HashMap<u64, String>,
    /// What to undo, newest last: one list for each `begin` that is not decided yet.
    journals: Vec<Vec<Undo>>,
}

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: u64,
    pub user_name: String,
    pub password: String,
    pub keys: Vec<ApiKey>,
    /// The workspaces it sees; the first is its default.
    pub workspaces: Vec<u64>,
    pub default_project: u64,
}

#[derive(Clone, Debug)]
pub struct ApiKey {
    pub text: String,
    pub is_read_only: bool,
}

/// An update of an artifact that took place.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub formatted_id: String,
    pub fields: Map<String, Value>,
}

#[derive(Debug)]
enum Undo {
    Created(Reference),
    Replaced(Box<Object>),
    Updated,
}

impl World {
    /// Returns a world without any object.
    pub(crate) fn empty() -> World {
        World {
            tables: schema::types().iter().map(|_| Table::default()).collect(),
            next_id: FIRST_ID,
            subscription: 0,
            accounts: Vec::new(),
            numbers: HashMap::new(),
            updates: Vec::new(),
            work_rules: HashMap::new(),
            journals: Vec::new(),
        }
    }

    pub(crate) fn table(&self, kind: &Type) -> &Table {
        &self.tables[kind.number]
    }

    /// Returns all objects of a type and of those below it.
    pub(crate) fn all(&self, kind: &Type) -> impl Iterator<Item = &Object> {
        kind.concrete().flat_map(|kind| self.table(kind).rows())
    }

    /// Returns the object if it exists and belongs to this type.
    pub(crate) fn find(&self, kind: &Type, id: u64) -> Option<&Object> {
        kind.concrete().find_map(|kind| self.table(kind).get(id))
    }

    /// Returns the ObjectID that the next object will have.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(crate) fn insert(&mut self, kind: &'static Type, workspace: u64, fields: Vec<(&'static str, Value)>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.tables[kind.number].insert(Object {
            id,
            kind,
            workspace,
            version: 1,
            created: date::now(),
            born: None,
            fields,
        });
        self.record(|| Undo::Created(Reference { kind, id }));
        id
    }

    /// Makes an object that reads see only later, if they lag.
    pub(crate) fn insert_now(
        &mut self,
        kind: &'static Type,
        workspace: u64,
        fields: Vec<(&'static str, Value)>,
    ) -> u64 {
        let id = self.insert(kind, workspace, fields);
        if let Some(object) = self.tables[kind.number].get_mut(id) {
            object.born = Some(Instant::now());
        }
        id
    }

    pub(crate) fn set(&mut self, at: Reference, attribute: &'static Attribute, value: Value) {
        self.record_before(at);
        self.tables[at.kind.number].set(at.id, attribute, value);
    }

    /// Notes that an object changed.
    pub(crate) fn touch(&mut self, at: Reference) {
        self.record_before(at);
        let table = &mut self.tables[at.kind.number];
        if let Some(object) = table.get_mut(at.id) {
            object.version += 1;
        }
        if let Some(changed) = at.kind.attribute("LastUpdateDate") {
            table.set(at.id, changed, json!(date::now()));
        }
    }

    pub(crate) fn remove(&mut self, at: Reference) {
        self.record_before(at);
        self.tables[at.kind.number].remove(at.id);
    }

    /// Begins changes that can be undone; ends with `commit` or `roll_back`.
    pub(crate) fn begin(&mut self) {
        self.journals.push(Vec::new());
    }

    /// Keeps the changes since `begin`, as far as an outer `begin` does not undo them.
    pub(crate) fn commit(&mut self) {
        let done = self.journals.pop().unwrap_or_default();
        if let Some(outer) = self.journals.last_mut() {
            outer.extend(done);
        }
    }

    /// Undoes the changes since `begin`.
    pub(crate) fn roll_back(&mut self) {
        for undo in self.journals.pop().into_iter().flatten().rev() {
            match undo {
                Undo::Created(at) => {
                    self.tables[at.kind.number].remove(at.id);
                }
                Undo::Replaced(object) => {
                    let table = &mut self.tables[object.kind.number];
                    table.remove(object.id);
                    table.insert(*object);
                }
                Undo::Updated => {
                    self.updates.pop();
                }
            }
        }
    }

    fn record(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(journal) = self.journals.last_mut() {
            journal.push(undo());
        }
    }

    fn record_before(&mut self, at: Reference) {
        if !self.journals.is_empty()
            && let Some(object) = self.table(at.kind).get(at.id).cloned()
        {
            self.record(|| Undo::Replaced(Box::new(object)));
        }
    }

    /// Adds to the list of updates that took place.
    pub(crate) fn log_update(&mut self, update: Update) {
        self.updates.push(update);
        self.record(|| Undo::Updated);
    }

    /// Deletes an object with what belongs to it.
    pub(crate) fn delete(&mut self, at: Reference, by: Option<u64>) {
        if at.kind.is_artifact() {
            return self.recycle(at, by);
        }
        let changes = schema::known("Change");
        if at.kind.element_name == "Changeset" {
            for id in self.table(changes).with("Changeset", &at.id.to_string()).to_vec() {
                self.remove(Reference { kind: changes, id });
            }
        }
        self.remove(at);
    }

    /// Deletes an artifact; what can be restored leaves an entry in the recycle bin.
    pub(crate) fn recycle(&mut self, at: Reference, by: Option<u64>) {
        let Some(artifact) = self.table(at.kind).get(at.id).cloned() else {
            return;
        };
        let changesets = schema::known("Changeset");
        let links = changesets.attribute("Artifacts").expect("in the table");
        for id in self.table(changesets).with("Artifacts", &at.id.to_string()).to_vec() {
            let linked = self.table(changesets).get(id).map(|row| self.members(row, links.name));
            let mut left = linked.unwrap_or_default().into_owned();
            left.retain(|&id| id != at.id);
            self.set(Reference { kind: changesets, id }, links, json!(left));
        }
        self.remove(at);
        if at.kind.is_restorable {
            let fields = vec![
                ("ID", artifact.get("FormattedID").clone()),
                ("Name", artifact.get("Name").clone()),
                ("ItemOID", json!(at.id)),
                ("Type", json!(self.type_definition(at.kind).map(|row| row.id))),
                ("DeletedBy", json!(by)),
                ("DeletionDate", json!(date::now())),
            ];
            self.insert(schema::known("RecycleBinEntry"), artifact.workspace, fields);
        }
    }

    /// Returns the value of a plain attribute; a reference comes as ObjectID.
    pub(crate) fn value<'a>(&'a self, object: &'a Object, name: &str) -> Cow<'a, Value> {
        Cow::Owned(match name {
            "ObjectID" => json!(object.id),
            "ObjectUUID" => json!(reference::uuid(object.id)),
            "VersionId" => json!(object.version.to_string()),
            "CreationDate" => json!(object.created),
            "Subscription" => json!(self.subscription),
            "Workspace" if object.workspace != 0 => json!(object.workspace),
            "LastUpdateDate" if object.get(name).is_null() => json!(object.created),
            "Recycled" | "Custom" | "Hidden" => json!(false),
            "Name" if object.kind.element_name == "Changeset" => json!(self.changeset_name(object)),
            _ => return Cow::Borrowed(object.get(name)),
        })
    }

    /// Returns the derived name of a changeset.
    fn changeset_name(&self, object: &Object) -> String {
        let repository = object.reference("SCMRepository");
        let repository = repository.and_then(|id| self.find(schema::known("SCMRepository"), id));
        format!("{}:{}", repository.map_or("", |repository| repository.text("Name")), object.text("Revision"))
    }

    /// Returns the ObjectIDs that a collection holds.
    pub(crate) fn members<'a>(&'a self, object: &'a Object, collection: &str) -> Cow<'a, [u64]> {
        let Some((owner, field)) = object.kind.inverse(collection) else {
            let stored = object.get(collection).as_array();
            let ids = stored.into_iter().flatten().filter_map(Value::as_u64);
            return Cow::Owned(ids.collect());
        };
        match owner.attribute(field) {
            Some(attribute) if attribute.is_indexed() => {
                Cow::Borrowed(self.table(owner).with(field, &object.id.to_string()))
            }
            _ => {
                let rows = self.table(owner).rows();
                let mine = rows.filter(|row| self.value(row, field).as_u64() == Some(object.id));
                Cow::Owned(mine.map(|row| row.id).collect())
            }
        }
    }

    /// Returns the values that an attribute of this type may take; empty if it takes any.
    pub(crate) fn allowed_values(&self, kind: &Type, attribute: &str) -> Vec<&str> {
        let definitions = self.table(schema::known("AttributeDefinition"));
        let Some(of_type) = self.type_definition(kind) else {
            return Vec::new();
        };
        of_type_named(definitions, of_type.id, attribute)
            .map(|definition| self.members(definition, "AllowedValues"))
            .unwrap_or_default()
            .iter()
            .filter_map(|&id| self.table(schema::known("AllowedAttributeValue")).get(id))
            .map(|value| value.text("StringValue"))
            .collect()
    }

    pub(crate) fn type_definition(&self, kind: &Type) -> Option<&Object> {
        self.table(schema::known("TypeDefinition")).rows().find(|definition| definition.text("TypePath") == kind.path)
    }

    /// Returns the AttributeDefinition of a type's attribute.
    pub(crate) fn attribute_definition(&self, kind: &Type, attribute: &str) -> Option<&Object> {
        let definitions = self.table(schema::known("AttributeDefinition"));
        of_type_named(definitions, self.type_definition(kind)?.id, attribute)
    }

    /// Returns the next FormattedID of a type in a workspace.
    pub(crate) fn next_formatted_id(&mut self, workspace: u64, kind: &Type) -> String {
        let prefix =
            self.type_definition(kind).map_or(kind.prefix, |definition| definition.text("IDPrefix")).to_owned();
        let number = self.numbers.entry((workspace, kind.number)).or_default();
        *number += 1;
        format!("{prefix}{number}")
    }

    /// Notes that a FormattedID is taken, so that new ones go on after it.
    pub(crate) fn take_formatted_id(&mut self, workspace: u64, kind: &Type, number: u64) {
        let highest = self.numbers.entry((workspace, kind.number)).or_default();
        *highest = number.max(*highest);
    }
}

fn of_type_named<'a>(definitions: &'a Table, of_type: u64, name: &str) -> Option<&'a Object> {
    definitions
        .with("TypeDefinition", &of_type.to_string())
        .iter()
        .filter_map(|&id| definitions.get(id))
        .find(|definition| definition.text("ElementName") == name)
}

/// Tells the letters of a FormattedID from its number.
pub(crate) fn split_formatted_id(id: &str) -> Option<(&str, u64)> {
    let digits = id.len() - id.bytes().rev().take_while(u8::is_ascii_digit).count();
    Some((&id[..digits], id[digits..].parse().ok()?))
}
