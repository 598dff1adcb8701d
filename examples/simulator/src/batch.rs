//! Many operations in one request: in order, each with its own result.

use crate::api;
use crate::call::{Call, Outcome};
use crate::fault::Action;
use crate::http::{self, Response};
use crate::read;
use crate::settings::Batch;
use serde_json::{Map, Value, json};

/// Answers `/batch` in the manner that the settings ask for.
pub fn answer(call: &mut Call, body: Result<Value, String>, fault: Option<&Action>) -> Response {
    let (key, outcome) = match call.settings.batch {
        Batch::Missing => {
            return Response::html(404, "<html><body><h1>Not Found</h1></body></html>");
        }
        Batch::Garbage => return Response::json("{\"foo\":1}".to_owned()),
        Batch::Unknown => ("OperationResult", Outcome::failed(read::unknown_type("batch"))),
        Batch::Normal | Batch::AllOrNothing => {
            let entries = body.as_ref().map_err(Clone::clone).and_then(entries);
            if let (Ok(entries), Some(max)) = (&entries, call.settings.batch_max)
                && entries.len() > max
            {
                return Response::html(413, "<html><body>Request Entity Too Large</body></html>");
            }
            ("BatchResult", entries.map(|entries| run(call, entries, fault)).into())
        }
    };
    Response::json(outcome.envelope(key).to_string())
}

fn entries(body: &Value) -> Result<&Vec<Value>, String> {
    let entries = body.get("Batch").and_then(Value::as_array);
    entries.ok_or_else(|| "Could not parse: expected \"Batch\"".to_owned())
}

fn run(call: &mut Call, entries: &[Value], fault: Option<&Action>) -> Outcome {
    // Nothing in a batch can refer to what the same batch makes.
    call.newest = call.world.next_id();
    call.world.begin();
    let mut results = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        results.push(match fault {
            Some(Action::EntryErrors { every, errors }) if (index + 1) % every == 0 => {
                Outcome { errors: errors.clone(), ..Outcome::default() }
            }
            _ => operate(call, entry).into(),
        });
    }
    let any_failed = results.iter().any(|result| !result.errors.is_empty());
    if call.settings.batch == Batch::AllOrNothing && any_failed {
        call.world.roll_back();
        call.created = 0;
        for result in results.iter_mut().filter(|result| result.errors.is_empty()) {
            *result = Outcome::failed("Could not update: another entry of this batch failed");
        }
    } else {
        call.world.commit();
    }
    call.newest = u64::MAX;
    Outcome::with("Results", results.into_iter().map(result).collect::<Vec<_>>())
}

/// Returns an outcome in the shape of a batch result.
fn result(mut outcome: Outcome) -> Value {
    let object = outcome.members.remove("Object").unwrap_or_else(|| {
        // Reading one object answers with its fields; other operations have none.
        Value::Object(std::mem::take(&mut outcome.members))
    });
    json!({"Object": object, "Errors": outcome.errors, "Warnings": outcome.warnings})
}

fn operate(call: &mut Call, entry: &Value) -> Result<Outcome, String> {
    let entry = entry.get("Entry").ok_or("Could not parse: expected \"Entry\"")?;
    let text = |name: &str| {
        let value = entry.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("Could not parse: expected \"{name}\""))
    };
    let method = text("Method")?.to_ascii_uppercase();
    let (path, query) = match text("Path")?.split_once('?') {
        Some((path, query)) => (path, query),
        None => (text("Path")?, ""),
    };
    let none = Value::Object(Map::new());
    let body = entry.get("Body").unwrap_or(&none);
    // The parameters of the batch hold for each entry, unless it brings its own.
    let mut parameters = call.parameters.clone();
    parameters.extend(http::decode_form(query));
    let mut inner = Call {
        world: &mut *call.world,
        dice: &mut *call.dice,
        parameters: &parameters,
        base: call.base.clone(),
        ..*call
    };
    let route = api::route(&path.to_ascii_lowercase());
    let done = api::operate(&mut inner, &method, &route, body);
    call.created = inner.created;
    match done {
        Some((_, outcome)) => Ok(outcome),
        None => Err(format!("Could not read: {method} {path} is not possible in a batch")),
    }
}
