//! The fields of a request body: which are taken, and in what form they are stored.

use crate::call::Call;
use crate::date;
use crate::filter::bad_date;
use crate::reference::Reference;
use crate::schema::{self, Attribute, Kind, Type};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Checked fields; a reference keeps its type until it is stored.
pub type Fields = Vec<(&'static Attribute, Value)>;

/// Returns the fields inside of the one key that names the type.
pub fn unwrap<'a>(kind: &Type, body: &'a Value) -> Result<&'a Map<String, Value>, String> {
    let one = body.as_object().filter(|body| body.len() == 1);
    let (name, fields) = one
        .and_then(|body| body.iter().next())
        .ok_or_else(|| format!("Could not parse: expected one object named \"{}\"", kind.element_name))?;
    let is_named = name.eq_ignore_ascii_case(kind.element_name) || name.eq_ignore_ascii_case(kind.path);
    match fields.as_object().filter(|_| is_named) {
        Some(fields) => Ok(fields),
        None => Err(format!("Could not parse: expected \"{}\" but saw \"{name}\"", kind.element_name)),
    }
}

/// Checks each given field, and warns about those that are ignored.
pub fn checked(
    call: &Call,
    kind: &'static Type,
    given: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Fields, Vec<String>> {
    let (mut fields, mut errors) = (Fields::new(), Vec::new());
    for (name, value) in given {
        // Clients send the fields back that came with an object.
        if name.starts_with('_') {
            continue;
        }
        let attribute = kind.attribute(name).filter(|attribute| attribute.is_writable);
        let attribute = attribute.filter(|_| *name != "Branch" || call.settings.knows_branch);
        let Some(attribute) = attribute.filter(|_| kind.inverse(name).is_none()) else {
            let element = kind.element_name;
            warnings.push(format!("Ignored JSON element {element}.{name} during processing of this request."));
            continue;
        };
        match checked_value(call, kind, attribute, value) {
            Ok(value) => fields.push((attribute, value)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(fields) } else { Err(errors) }
}

/// Brings a value into the form that is stored; references keep their type until then.
fn checked_value(call: &Call, kind: &Type, attribute: &'static Attribute, value: &Value) -> Result<Value, String> {
    if value.is_null() || value.as_str() == Some("") {
        return Ok(Value::Null);
    }
    let value = match attribute.kind {
        Kind::Text | Kind::Rating | Kind::State => checked_text(kind, attribute, value)?,
        Kind::Date => {
            let text = shown(value);
            json!(date::normalize(&text).ok_or_else(|| bad_date(&text))?)
        }
        Kind::Boolean => json!(shown(value).eq_ignore_ascii_case("true")),
        Kind::Integer | Kind::Quantity => checked_number(value)?,
        Kind::Object => checked_reference(call, attribute, value)?,
        Kind::Collection => checked_list(call, kind, attribute, value)?,
    };
    let allowed = match attribute.name {
        "State" | "ScheduleState" => call.world.allowed_values(kind, attribute.name),
        _ => Vec::new(),
    };
    if !allowed.is_empty() && !allowed.iter().any(|allowed| value == *allowed) {
        return Err(invalid(&value));
    }
    Ok(value)
}

fn checked_number(value: &Value) -> Result<Value, String> {
    if value.is_number() {
        return Ok(value.clone());
    }
    let number: Option<f64> = value.as_str().and_then(|text| text.parse().ok());
    number.map(|number| json!(number)).ok_or_else(|| invalid(value))
}

fn invalid(value: &Value) -> String {
    format!("{} is an invalid value", shown(value))
}

/// Reads a list of references, each taken once.
fn checked_list(call: &Call, kind: &Type, attribute: &Attribute, value: &Value) -> Result<Value, String> {
    let members = value
        .as_array()
        .ok_or_else(|| format!("Could not read: {} of {} is not a list", attribute.name, kind.element_name))?;
    let mut checked = Vec::new();
    let mut seen = HashSet::new();
    for member in members {
        let member = checked_reference(call, attribute, member)?;
        if seen.insert(member["id"].as_u64()) {
            checked.push(member);
        }
    }
    Ok(Value::Array(checked))
}

fn checked_text(kind: &Type, attribute: &Attribute, value: &Value) -> Result<Value, String> {
    let (element, name) = (kind.element_name, attribute.name);
    let text = shown(value);
    if let Some(max) = attribute.max_length.filter(|&max| text.chars().count() > max) {
        return Err(format!("Validation error: {element}.{name} length is greater than the maximum length of {max}"));
    }
    if name == "Name" && has_markup(&text) {
        return Err(format!(
            "Validation error: {element}.Name contained invalid input. \
             Search 'HTML Whitelist' at help.rallydev.com for details."
        ));
    }
    Ok(json!(text))
}

fn has_markup(text: &str) -> bool {
    let after = text.split('<').skip(1);
    after.into_iter().any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!'))
}

/// Returns `{"id": …, "type": …}`, so that the type of an artifact is still known when it is linked.
fn checked_reference(call: &Call, attribute: &Attribute, value: &Value) -> Result<Value, String> {
    let reference = Reference::from_value(value)?;
    let target = attribute.target.and_then(schema::by_path);
    let found = call.referenced(target.unwrap_or(reference.kind), reference)?;
    Ok(json!({"id": found.id, "type": found.kind.path}))
}

/// Returns a checked value as it is stored.
pub fn plain(value: Value) -> Value {
    match value {
        Value::Object(reference) => reference.get("id").cloned().unwrap_or_default(),
        Value::Array(members) => members.into_iter().map(plain).collect(),
        other => other,
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
