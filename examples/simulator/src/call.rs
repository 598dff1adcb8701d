//! A request on its way through the handlers, and the answers they give.

use crate::auth::Caller;
use crate::reference::Reference;
use crate::render::{Fetch, Renderer};
use crate::schema::{self, Type};
use crate::settings::Settings;
use crate::table::Object;
use crate::world::World;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};

/// What the handlers of one request share.
pub struct Call<'a> {
    pub world: &'a mut World,
    pub settings: &'a Settings,
    pub caller: &'a Caller,
    pub dice: &'a mut Dice,
    pub parameters: &'a BTreeMap<String, String>,
    /// Such as `http://127.0.0.1:80/slm/webservice/v2.0`.
    pub base: String,
    /// Artifacts, and Changesets if the settings say so, that another request writes at this moment.
    pub busy: &'a HashSet<u64>,
    /// Objects from this ObjectID on cannot be referred to: they came with the same batch.
    pub newest: u64,
    /// Objects made so far.
    pub created: u32,
}

/// What came of one operation.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    /// `Object`, `Results` and the like.
    pub members: Map<String, Value>,
}

/// A sequence of conflicts that is the same in every run.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Returns true in about so many of a hundred cases.
    pub fn hits(&mut self, percent: u8) -> bool {
        // Knuth's linear congruence; its upper bits are good enough for a simulator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 100 < u64::from(percent)
    }
}

impl Outcome {
    pub fn failed(error: impl Into<String>) -> Outcome {
        Outcome { errors: vec![error.into()], ..Outcome::default() }
    }

    pub fn with(name: &str, value: impl Into<Value>) -> Outcome {
        let members = Map::from_iter([(name.to_owned(), value.into())]);
        Outcome { members, ..Outcome::default() }
    }

    /// Returns the answer, inside of its one key.
    pub fn envelope(self, key: &str) -> Value {
        let mut members = self.members;
        members.insert("_rallyAPIMajor".to_owned(), json!("2"));
        members.insert("_rallyAPIMinor".to_owned(), json!("0"));
        members.insert("Errors".to_owned(), json!(self.errors));
        members.insert("Warnings".to_owned(), json!(self.warnings));
        json!({ key: members })
    }
}

impl From<Result<Outcome, String>> for Outcome {
    fn from(result: Result<Outcome, String>) -> Outcome {
        result.unwrap_or_else(Outcome::failed)
    }
}

impl Call<'_> {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Returns the fields that the client asked for, or this if it did not ask.
    pub fn fetch_or(&self, default: Fetch) -> Fetch {
        match self.parameter("fetch") {
            None => default,
            given => Fetch::parse(given),
        }
    }

    pub fn render(&self, object: &Object, default: Fetch) -> Map<String, Value> {
        let fetch = self.fetch_or(default);
        Renderer { world: self.world, base: &self.base, fetch: &fetch }.object(object)
    }

    /// States whether the caller may know of an object at all.
    pub fn may_see(&self, object: &Object) -> bool {
        let workspace = match object.kind.element_name {
            "Workspace" => object.id,
            _ => object.workspace,
        };
        workspace == 0 || self.caller.workspaces.contains(&workspace)
    }

    /// States whether a read finds an object; new ones may lag behind.
    pub fn reads(&self, object: &Object) -> bool {
        let lag = self.settings.read_lag;
        self.may_see(object) && object.born.is_none_or(|born| born.elapsed() >= lag)
    }

    /// Returns the object of this type that a write refers to.
    pub fn referenced(&self, kind: &Type, reference: Reference) -> Result<Reference, String> {
        let found = Some(reference)
            .filter(|reference| reference.id < self.newest && reference.kind.is_a(kind))
            .and_then(|reference| self.world.find(reference.kind, reference.id))
            .filter(|object| self.may_see(object))
            .map(|object| Reference { kind: object.kind, id: object.id });
        found.ok_or_else(|| format!("Could not read: Could not read referenced object {}", reference.id))
    }

    /// Returns the workspace that the request is about.
    pub fn workspace(&self) -> Result<u64, String> {
        match self.parameter("workspace") {
            None | Some("") => Ok(self.caller.workspaces[0]),
            Some(text) => {
                let reference = Reference::from_value(&json!(text))?;
                self.referenced(schema::known("Workspace"), reference).map(|found| found.id)
            }
        }
    }

    pub fn is_closed(&self, workspace: u64) -> bool {
        let found = self.world.find(schema::known("Workspace"), workspace);
        found.is_some_and(|workspace| workspace.text("State") == "Closed")
    }

    /// Fails if a write of this artifact collides with another one, or by chance.
    pub fn avoid_conflict(&mut self, artifact: Reference) -> Result<(), String> {
        self.avoid_overlap(artifact)?;
        match self.dice.hits(self.settings.conflict_percent) {
            true => Err(conflict(artifact)),
            false => Ok(()),
        }
    }

    /// Fails if another request writes this object at this moment.
    pub fn avoid_overlap(&self, object: Reference) -> Result<(), String> {
        if self.busy.contains(&object.id) { Err(conflict(object)) } else { Ok(()) }
    }
}

fn conflict(object: Reference) -> String {
    format!(
        "Concurrency conflict: [Object has been modified since being read for update in this context] - \
         ConcurrencyConflictException : Modified since read on update : \
         Object Class : com.f4tech.slm.domain.{} : ObjectID : {}",
        object.kind.element_name, object.id
    )
}
