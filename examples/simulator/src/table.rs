//! Objects of one type, found by ObjectID or by the value of an indexed attribute.

use crate::schema::{Attribute, Type};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// An object of the workspace. References are kept as ObjectIDs, collections as arrays of them.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: u64,
    pub kind: &'static Type,
    /// The workspace it belongs to, or 0 if it belongs to the subscription.
    pub workspace: u64,
    pub version: u32,
    pub created: String,
    /// When a request made it, for the time that reads lag behind. What a test put there has always been there.
    pub born: Option<Instant>,
    /// The attributes that have a value; few, so that a list beats a map.
    pub fields: Vec<(&'static str, Value)>,
}

#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<u64, Object>,
    index: HashMap<&'static str, HashMap<String, Vec<u64>>>,
}

impl Object {
    /// Returns the stored value, null if there is none.
    pub fn get(&self, name: &str) -> &Value {
        self.fields.iter().find(|(key, _)| *key == name).map_or(&Value::Null, |(_, value)| value)
    }

    /// Returns the ObjectID that a stored reference holds.
    pub fn reference(&self, name: &str) -> Option<u64> {
        self.get(name).as_u64()
    }

    pub fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_default()
    }
}

impl Table {
    pub fn get(&self, id: u64) -> Option<&Object> {
        self.rows.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Object> {
        self.rows.get_mut(&id)
    }

    /// Returns all objects in the order of their creation.
    pub fn rows(&self) -> impl Iterator<Item = &Object> {
        self.rows.values()
    }

    /// Returns the objects whose indexed attribute has this value.
    pub fn with(&self, attribute: &str, key: &str) -> &[u64] {
        self.index.get(attribute).and_then(|keys| keys.get(key)).map_or(&[], Vec::as_slice)
    }

    pub fn insert(&mut self, object: Object) {
        for (name, value) in &object.fields {
            if is_indexed(object.kind, name) {
                add(&mut self.index, name, value, object.id);
            }
        }
        self.rows.insert(object.id, object);
    }

    pub fn remove(&mut self, id: u64) -> Option<Object> {
        let object = self.rows.remove(&id)?;
        for (name, value) in &object.fields {
            if is_indexed(object.kind, name) {
                drop_from(&mut self.index, name, value, id);
            }
        }
        Some(object)
    }

    pub fn set(&mut self, id: u64, attribute: &'static Attribute, value: Value) {
        let Some(object) = self.rows.get_mut(&id) else {
            return;
        };
        if attribute.is_indexed() {
            drop_from(&mut self.index, attribute.name, object.get(attribute.name), id);
            add(&mut self.index, attribute.name, &value, id);
        }
        match object.fields.iter_mut().find(|(key, _)| *key == attribute.name) {
            Some(field) => field.1 = value,
            None => object.fields.push((attribute.name, value)),
        }
    }
}

fn is_indexed(kind: &Type, name: &str) -> bool {
    kind.attribute(name).is_some_and(Attribute::is_indexed)
}

fn add(index: &mut HashMap<&'static str, HashMap<String, Vec<u64>>>, name: &'static str, value: &Value, id: u64) {
    let keys = index.entry(name).or_default();
    for key in keys_of(value) {
        keys.entry(key).or_default().push(id);
    }
}

fn drop_from(index: &mut HashMap<&'static str, HashMap<String, Vec<u64>>>, name: &str, value: &Value, id: u64) {
    let Some(keys) = index.get_mut(name) else {
        return;
    };
    for key in keys_of(value) {
        if let Some(ids) = keys.get_mut(&key) {
            ids.retain(|&other| other != id);
        }
    }
}

/// Returns what an index or an equality compares: one key, or one for each member of a collection.
pub fn keys_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(members) => members.iter().flat_map(keys_of).collect(),
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        // A number compares by its value: 5.0 is 5.
        Value::Number(number) => vec![match number.as_f64() {
            Some(float) if !number.is_u64() && !number.is_i64() => float.to_string(),
            _ => number.to_string(),
        }],
        other => vec![other.to_string()],
    }
}
