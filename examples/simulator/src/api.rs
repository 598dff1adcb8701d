//! The paths of WSAPI: which handler answers, and in which envelope.

use crate::batch;
use crate::call::{Call, Outcome};
use crate::collection::{self, Edit};
use crate::fault::Action;
use crate::http::Response;
use crate::read;
use crate::reference::{self, Reference};
use crate::schema::{self, Attribute, Kind, Type};
use crate::write;
use serde_json::Value;

/// What a path asks for.
#[derive(Clone, Debug)]
pub enum Route {
    Authorize,
    Batch,
    Query(&'static Type),
    /// The caller.
    Myself,
    Create(&'static Type),
    Object(Reference),
    Collection(Reference, &'static Attribute),
    Edit(Reference, &'static Attribute, Edit),
    /// The type in the path does not exist.
    UnknownType(String),
    /// The path leads nowhere, perhaps because a FormattedID stands where an ObjectID should.
    Nothing(String),
}

/// Reads a path in lower case, without the base.
pub fn route(path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        ["security", "authorize"] => return Route::Authorize,
        ["batch"] => return Route::Batch,
        ["user:current"] => return Route::Myself,
        [] => return Route::Nothing(path.to_owned()),
        _ => {}
    }
    let two = parts.get(..2).and_then(|two| schema::by_path(&two.join("/")));
    let (kind, rest) = match (two, schema::by_path(parts[0])) {
        (Some(kind), _) => (kind, &parts[2..]),
        (None, Some(kind)) => (kind, &parts[1..]),
        (None, None) => return Route::UnknownType(parts[0].to_owned()),
    };
    of_type(kind, rest).unwrap_or_else(|| Route::Nothing(path.to_owned()))
}

fn of_type(kind: &'static Type, rest: &[&str]) -> Option<Route> {
    let at = |id: &str| Some(Reference { kind, id: reference::object_id(id)? });
    let collection = |name: &str| {
        let mut attributes = kind.attributes.iter();
        attributes.find(|attribute| attribute.kind == Kind::Collection && attribute.name.eq_ignore_ascii_case(name))
    };
    Some(match *rest {
        [] => Route::Query(kind),
        ["create"] => Route::Create(kind),
        [id] => Route::Object(at(id)?),
        [id, name] => Route::Collection(at(id)?, collection(name)?),
        [id, name, "add"] => Route::Edit(at(id)?, collection(name)?, Edit::Add),
        [id, name, "remove"] => Route::Edit(at(id)?, collection(name)?, Edit::Remove),
        _ => return None,
    })
}

impl Route {
    /// Returns the key of the answer, as far as it does not depend on what is found.
    pub fn envelope(&self) -> &'static str {
        match self {
            Route::Query(_) | Route::Collection(..) => "QueryResult",
            Route::Create(_) => "CreateResult",
            Route::Batch => "BatchResult",
            _ => "OperationResult",
        }
    }
}

/// Answers a request whose caller may do what it wants to do.
pub fn answer(call: &mut Call, method: &str, route: &Route, body: &str, fault: Option<&Action>) -> Response {
    let body = match method {
        "POST" | "PUT" => serde_json::from_str(body).map_err(|error| {
            format!("Cannot parse input stream due to I/O error as JSON document: Parse error: {error}")
        }),
        _ => Ok(Value::Null),
    };
    let done = match (route, body) {
        (Route::Batch, body) => return batch::answer(call, body, fault),
        (_, Ok(body)) => operate(call, method, route, &body),
        (_, Err(error)) => Some((route.envelope(), Outcome::failed(error))),
    };
    match done {
        Some((key, outcome)) => Response::json(outcome.envelope(key).to_string()),
        None => Response::html(405, "<html><body>Method Not Allowed</body></html>"),
    }
}

/// Carries one operation out, alone or as entry of a batch; `None` if the path has no such method.
pub fn operate(call: &mut Call, method: &str, route: &Route, body: &Value) -> Option<(&'static str, Outcome)> {
    let outcome = match (method, route) {
        ("GET", Route::Query(kind)) => match kind.element_name {
            "User" if !call.parameters.contains_key("query") => return myself(call),
            "Subscription" => return Some(read::object(call, kind, call.world.subscription)),
            _ => read::query(call, kind),
        },
        ("GET", Route::Myself) => return myself(call),
        ("GET", Route::Object(at)) => return Some(read::object(call, at.kind, at.id)),
        ("GET", Route::Collection(at, attribute)) => read::collection(call, *at, attribute),
        ("POST" | "PUT", Route::Create(kind)) => write::create(call, kind, body),
        ("POST" | "PUT", Route::Object(at)) => write::update(call, *at, body),
        ("DELETE", Route::Object(at)) => write::delete(call, *at),
        ("POST" | "PUT", Route::Edit(at, attribute, edit)) => collection::edit(call, *at, attribute, *edit, body),
        (_, Route::UnknownType(name)) => Outcome::failed(read::unknown_type(name)),
        (_, Route::Nothing(path)) => Outcome::failed(format!("Cannot parse object reference from \"{path}\"")),
        _ => return None,
    };
    Some((route.envelope(), outcome))
}

fn myself(call: &Call) -> Option<(&'static str, Outcome)> {
    Some(read::object(call, schema::known("User"), call.caller.user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_handlers() {
        for (path, envelope, shown) in [
            ("/changeset", "QueryResult", "Query"),
            ("/users", "QueryResult", "Query"),
            ("/changeset/create", "CreateResult", "Create"),
            ("/portfolioitem/feature/create", "CreateResult", "Create"),
            ("/portfolioitem/feature/7", "OperationResult", "Object"),
            ("/portfolioitem/7", "OperationResult", "Object"),
            ("/changeset/7/changes", "QueryResult", "Collection"),
            ("/changeset/7/changes/add", "OperationResult", "Edit"),
            ("/batch", "BatchResult", "Batch"),
            ("/security/authorize", "OperationResult", "Authorize"),
            ("/user:current", "OperationResult", "Myself"),
            ("/widget/create", "OperationResult", "UnknownType"),
            ("/defect/de17", "OperationResult", "Nothing"),
            ("/changeset/7/name", "OperationResult", "Nothing"),
            ("/", "OperationResult", "Nothing"),
        ] {
            let route = route(path);
            assert_eq!(route.envelope(), envelope, "{path}");
            assert!(format!("{route:?}").starts_with(shown), "{path}: {route:?}");
        }
    }
}
