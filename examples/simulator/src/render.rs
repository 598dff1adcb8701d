//! Objects as JSON: the fields that `fetch` asks for, with nested objects filled in by name.

use crate::reference;
use crate::schema::{self, Kind};
use crate::table::Object;
use crate::world::World;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// How deep nested objects are filled in; the schema has cycles.
const MAX_DEPTH: usize = 4;

/// The fields that a client asked for.
#[derive(Debug, PartialEq)]
pub enum Fetch {
    /// Only the fields that begin with an underscore.
    Shell,
    All,
    Named(HashSet<String>),
}

/// What is needed to write an object out.
#[derive(Clone, Copy)]
pub struct Renderer<'a> {
    pub world: &'a World,
    /// Such as `http://127.0.0.1:80/slm/webservice/v2.0`.
    pub base: &'a str,
    pub fetch: &'a Fetch,
}

impl Fetch {
    /// Reads the parameter. The sub-lists of `Owner[UserName;Name]` count as names like the others.
    pub fn parse(text: Option<&str>) -> Fetch {
        match text.map(|text| text.trim_matches('"')) {
            None | Some("" | "false") => Fetch::Shell,
            Some("true") => Fetch::All,
            Some(list) => Fetch::Named(
                list.split([',', '[', ']', ';'])
                    .map(|name| name.trim().split(':').next().unwrap_or_default())
                    .map(|name| name.trim_matches('"').to_owned())
                    .filter(|name| !name.is_empty())
                    .collect(),
            ),
        }
    }

    fn wants(&self, name: &str) -> bool {
        match self {
            Fetch::Shell => false,
            Fetch::All => true,
            Fetch::Named(names) => names.contains(name),
        }
    }
}

impl Renderer<'_> {
    pub fn object(&self, object: &Object) -> Map<String, Value> {
        self.nested(object, 0)
    }

    /// Returns a collection as it appears inside of an object.
    fn collection(&self, object: &Object, name: &str, target: Option<&str>) -> Value {
        json!({
            "_rallyAPIMajor": "2",
            "_rallyAPIMinor": "0",
            "_ref": format!("{}/{name}", self.url(object)),
            "_type": target.unwrap_or(name),
            "Count": self.world.members(object, name).len(),
        })
    }

    fn nested(&self, object: &Object, depth: usize) -> Map<String, Value> {
        let mut fields = self.head(object);
        for attribute in &object.kind.attributes {
            // Everything is meant for the object that was asked for, not for those around it.
            if !self.fetch.wants(attribute.name) || (depth > 0 && *self.fetch == Fetch::All) {
                continue;
            }
            let value = match attribute.kind {
                Kind::Collection => self.collection(object, attribute.name, attribute.target),
                Kind::Object => {
                    let id = self.world.value(object, attribute.name).as_u64();
                    let target = attribute.target.and_then(schema::by_path);
                    let other = target.zip(id).and_then(|(kind, id)| self.world.find(kind, id));
                    other.map_or(Value::Null, |other| self.other(other, depth))
                }
                _ => self.world.value(object, attribute.name).into_owned(),
            };
            fields.insert(attribute.name.to_owned(), value);
        }
        fields
    }

    fn other(&self, object: &Object, depth: usize) -> Value {
        Value::Object(if depth < MAX_DEPTH { self.nested(object, depth + 1) } else { self.head(object) })
    }

    /// Returns the fields that come with every object.
    fn head(&self, object: &Object) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: String| fields.insert(name.to_owned(), Value::String(value));
        put("_rallyAPIMajor", "2".to_owned());
        put("_rallyAPIMinor", "0".to_owned());
        put("_ref", self.url(object));
        put("_refObjectUUID", reference::uuid(object.id));
        put("_objectVersion", object.version.to_string());
        let name = match object.kind.element_name {
            "User" => object.get("DisplayName").as_str().map(str::to_owned),
            _ => self.world.value(object, "Name").as_str().map(str::to_owned),
        };
        if let Some(name) = name {
            put("_refObjectName", name);
        }
        put("_CreatedAt", "just now".to_owned());
        put("_type", object.kind.path.to_owned());
        fields
    }

    fn url(&self, object: &Object) -> String {
        format!("{}/{}/{}", self.base, object.kind.path.to_ascii_lowercase(), object.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::known;

    #[test]
    fn lists_of_fields_are_read() {
        assert_eq!(Fetch::parse(None), Fetch::Shell);
        assert_eq!(Fetch::parse(Some("true")), Fetch::All);
        let names = ["Name", "Owner", "UserName", "Tags"].map(str::to_owned);
        let list = Fetch::parse(Some("\"Name, Owner[UserName;Name],Tags:summary[Name]\""));
        assert_eq!(list, Fetch::Named(names.into()));
    }

    #[test]
    fn named_fields_of_nested_objects_are_filled_in() {
        let mut world = World::default();
        world.add_artifact("DE1", "x");
        let base = "http://h/slm/webservice/v2.0";
        let fetch = Fetch::parse(Some("FormattedID,Project,Name,Workspace,Changesets"));
        let renderer = Renderer { world: &world, base, fetch: &fetch };
        let defect = world.all(known("Defect")).next().expect("added");
        let shown = renderer.object(defect);
        assert_eq!(shown["FormattedID"], "DE1");
        assert_eq!(shown["Project"]["Workspace"]["Name"], "Acme");
        assert_eq!(shown["Changesets"]["Count"], 0);
        assert_eq!(shown["Changesets"]["_ref"], format!("{base}/defect/{}/Changesets", defect.id));
        assert!(!shown.contains_key("State"));
        let shell = Renderer { fetch: &Fetch::Shell, ..renderer }.object(defect);
        assert!(shell.keys().all(|name| name.starts_with('_')));
    }
}
