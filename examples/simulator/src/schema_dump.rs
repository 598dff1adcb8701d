//! The whole schema of a workspace in one answer, as Rally's Python toolkit asks for it.

use crate::http::Response;
use crate::reference::Reference;
use crate::render::{Fetch, Renderer};
use crate::schema;
use crate::table::Object;
use crate::world::World;
use serde_json::{Map, Value, json};

pub const BASE: &str = "/slm/schema/v2.0/workspace/";

/// Changes with the schema on a real server; ours never changes.
const HASH: &str = "5f2b0c0ffee";

/// Answers with a redirection to the present version of the schema, or with the schema.
pub fn answer(world: &World, path: &str, base: &str) -> Response {
    let rest = path.strip_prefix(BASE).unwrap_or_default();
    let (id, hash) = rest.split_once('/').unwrap_or((rest, ""));
    let workspace = Reference::parse(&format!("/workspace/{id}"));
    if workspace.is_none_or(|at| world.find(at.kind, at.id).is_none()) {
        return Response::html(404, "<html><body><h1>Not Found</h1></body></html>");
    }
    if hash != HASH {
        let location = format!("{BASE}{id}/{HASH}");
        return Response::html(302, "").with_header("Location", &location);
    }
    let renderer = Renderer { world, base, fetch: &Fetch::All };
    let types = world.all(schema::known("TypeDefinition"));
    let types: Vec<Value> = types.map(|kind| described(&renderer, kind)).collect();
    let result = json!({
        "_rallyAPIMajor": "2",
        "_rallyAPIMinor": "0",
        "Errors": [],
        "Warnings": [],
        "TotalResultCount": types.len(),
        "StartIndex": 1,
        "PageSize": types.len(),
        "Results": types,
    });
    Response::json(json!({"QueryResult": result}).to_string())
}

/// Returns a type with its attributes, and these with their values, in place of the collections.
fn described(renderer: &Renderer, kind: &Object) -> Value {
    let attributes = filled(renderer, kind, "Attributes", "AttributeDefinition");
    let attributes = attributes.into_iter().map(|(object, mut fields)| {
        let values = filled(renderer, object, "AllowedValues", "AllowedAttributeValue");
        let values: Vec<_> = values.into_iter().map(|(_, value)| value).collect();
        fields.insert("AllowedValues".to_owned(), json!(values));
        fields
    });
    let attributes: Vec<_> = attributes.collect();
    let mut fields = renderer.object(kind);
    fields.insert("Attributes".to_owned(), json!(attributes));
    Value::Object(fields)
}

fn filled<'a>(
    renderer: &Renderer<'a>,
    owner: &'a Object,
    collection: &str,
    kind: &str,
) -> Vec<(&'a Object, Map<String, Value>)> {
    let ids = renderer.world.members(owner, collection);
    let objects = ids.iter().filter_map(|&id| renderer.world.find(schema::known(kind), id));
    objects.map(|object| (object, renderer.object(object))).collect()
}
